package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Address is where an export is found, as an NBD URL says it.
type Address struct {
	Network string // "tcp" or "unix"
	Host    string // host:port, or the path of the socket
	Export  string // may be empty: the server's default export
	TLS     bool   // of the schemes nbds and nbds+unix

	// Certificates is a folder with ca-cert.pem and, if the server wants to
	// know its client, client-cert.pem and client-key.pem, as qemu and libnbd
	// have it. Empty: the authorities that the host trusts.
	Certificates string
	// ServerName is the name that the server's certificate must have. Empty:
	// that of the host.
	ServerName string

	// More are the parameters of the URL that are not about reaching the export.
	More url.Values
}

// Schemes are those of the URLs that ParseAddress reads.
var Schemes = []string{"nbd", "nbds", "nbd+unix", "nbds+unix"}

// ParseAddress reads nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH,
// and the same with nbds for TLS. The error is a clause about the URL.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Address{}, errors.Unwrap(err)
	}
	if !slices.Contains(Schemes, u.Scheme) {
		return Address{}, fmt.Errorf("its scheme is none of %s", strings.Join(Schemes, ", "))
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Address{}, err
	}
	a := Address{Network: "tcp", TLS: strings.HasPrefix(u.Scheme, "nbds"), Export: strings.TrimPrefix(u.Path, "/"), More: query}
	take := func(key string) (value string) {
		value = query.Get(key)
		query.Del(key)
		return value
	}
	a.Certificates, a.ServerName = take("tls-certificates"), take("tls-hostname")
	socket := take("socket")
	switch {
	case u.User != nil:
		return Address{}, errors.New("it names a user, which NBD does not know")
	case u.Fragment != "" || u.Opaque != "":
		return Address{}, errors.New("it is not of the form scheme://host/export")
	case len(a.Export) > maxName:
		return Address{}, fmt.Errorf("its export has a name of more than %d bytes", maxName)
	case !a.TLS && (a.Certificates != "" || a.ServerName != ""):
		return Address{}, fmt.Errorf("it has a parameter for TLS, which takes the scheme %s", strings.Replace(u.Scheme, "nbd", "nbds", 1))
	case strings.HasSuffix(u.Scheme, "+unix"):
		if u.Host != "" {
			return Address{}, fmt.Errorf("it names the host %q; the socket goes into ?socket=PATH and three slashes come before the export", u.Host)
		}
		if socket == "" {
			return Address{}, errors.New("it names no socket: ?socket=PATH is missing")
		}
		a.Network, a.Host = "unix", socket
	case socket != "":
		return Address{}, fmt.Errorf("it names a socket, which takes the scheme %s+unix", u.Scheme)
	case u.Hostname() == "":
		return Address{}, errors.New("it names no host")
	case strings.Contains(u.Hostname(), ":") && !isIPv6(u.Hostname()):
		return Address{}, fmt.Errorf("its host %q is neither a name nor an address", u.Hostname())
	default:
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		a.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return a, nil
}

func isIPv6(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Is6()
}

// String is the URL of the address, in a form that is the same for the same
// export. Parameters of More come last.
func (a Address) String() string {
	u := url.URL{Scheme: "nbd", Path: "/" + a.Export, Host: a.Host}
	if a.TLS {
		u.Scheme = "nbds"
	}
	query := url.Values{}
	for key, values := range a.More {
		query[key] = values
	}
	if a.Network == "unix" {
		u.Scheme += "+unix"
		u.Host = ""
		query.Set("socket", a.Host)
	} else if host, port, err := net.SplitHostPort(a.Host); err == nil && port == defaultPort {
		u.Host = host
		if strings.Contains(host, ":") {
			u.Host = "[" + host + "]"
		}
	}
	if a.Certificates != "" {
		query.Set("tls-certificates", a.Certificates)
	}
	if a.ServerName != "" {
		query.Set("tls-hostname", a.ServerName)
	}
	// A slash needs no escape in a query, and paths are easier to read without.
	tail := strings.ReplaceAll(query.Encode(), "%2F", "/")
	if tail != "" {
		tail = "?" + tail
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath() + tail
}

// tlsConfig is how the server of the address is trusted.
func (a Address) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.ServerName}
	if c.ServerName == "" {
		c.ServerName = "localhost" // what a socket of this host is called
		if host, _, err := net.SplitHostPort(a.Host); err == nil && a.Network == "tcp" {
			c.ServerName = host
		}
	}
	if a.Certificates == "" {
		return c, nil
	}
	authority, err := os.ReadFile(filepath.Join(a.Certificates, "ca-cert.pem"))
	if err != nil {
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(a.Certificates, "ca-cert.pem"))
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(a.Certificates, "client-cert.pem"), filepath.Join(a.Certificates, "client-key.pem"))
	switch {
	case err == nil:
		c.Certificates = []tls.Certificate{own}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c, nil
}
