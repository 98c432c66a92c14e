package signin

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/diskvault/diskvault/base/problem"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	certLife   = 90 * 24 * time.Hour
	renewAfter = 30 * 24 * time.Hour
)

// CA is the certificate authority of a deployment, by which clients know its
// servers. Its key never leaves the folder. Safe for concurrent use.
type CA struct {
	folder string
	cert   *x509.Certificate
	key    crypto.Signer
}

// File is the path of the certificate that clients have to trust, in PEM.
func (c *CA) File() string { return filepath.Join(c.folder, "ca.pem") }

// OpenCA opens the authority of a folder, which is made if there is none.
func OpenCA(folder string) (*CA, error) {
	c := &CA{folder: folder}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, problem.Wrap(err, problem.HomeNotUsable, "The folder %s cannot be made.", folder)
	}
	unlock, err := lockFolder(folder)
	if err != nil {
		return nil, problem.Wrap(err, problem.HomeNotUsable, "The folder %s cannot be locked.", folder)
	}
	defer unlock()
	// One file holds both, so that they cannot come apart.
	data, err := os.ReadFile(filepath.Join(folder, "ca-key.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = makeCA(time.Now()); err == nil {
			err = writeSecret(folder, "ca-key.pem", data)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := c.read(data); err != nil {
		return nil, problem.Wrap(err, problem.SignInKeysDamaged, "The certificate authority in %s cannot be read.", folder)
	}
	if err := os.WriteFile(c.File(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw}), 0o644); err != nil {
		return nil, problem.Wrap(err, problem.HomeNotUsable, "The file %s cannot be written.", c.File())
	}
	return c, nil
}

// lockFolder keeps two processes from making an authority at once.
func lockFolder(folder string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

func makeCA(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "diskvault own CA " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...), nil
}

func (c *CA) read(data []byte) error {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("its key cannot sign")
	}
	c.cert, c.key = pair.Leaf, key
	return nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the system's source of randomness does not fail
	}
	return n
}

// Server gives the settings of a TLS server that is known by some names and
// addresses. Its certificate is made anew every month, in memory only.
func (c *CA) Server(names []string) *tls.Config {
	var mu sync.Mutex
	var current *tls.Certificate
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if now := time.Now(); current == nil || now.Sub(current.Leaf.NotBefore) > renewAfter {
				fresh, err := c.issue(names, now)
				if err != nil {
					return nil, err
				}
				current = fresh
			}
			return current, nil
		},
	}
}

func (c *CA) issue(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "diskvault"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(cert)
	return &tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key, Leaf: leaf}, err
}
