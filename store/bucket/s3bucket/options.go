package s3bucket

import (
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Options of Open; the zero value is what the command line uses.
type Options struct {
	// Credentials sign the requests; nil: those of the environment, else those
	// of the credentials file, as the AWS tools find them.
	Credentials aws.CredentialsProvider
	// Transport carries the requests; nil: a pool of connections of its own.
	Transport http.RoundTripper
}

func (o Options) credentials() (aws.CredentialsProvider, error) {
	if o.Credentials != nil {
		return o.Credentials, nil
	}
	return findCredentials()
}

// connections is how many idle connections are kept: more than there are
// workers that put or get at a time.
const connections = 64

func (o Options) transport() (client *http.Client, closeIdle func()) {
	if o.Transport != nil {
		return &http.Client{Transport: o.Transport, CheckRedirect: stay}, func() {}
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: time.Minute,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConns:          connections,
		MaxIdleConnsPerHost:   connections,
		WriteBufferSize:       256 << 10,
		ReadBufferSize:        256 << 10,
		DisableCompression:    true,
	}
	return &http.Client{Transport: t, CheckRedirect: stay}, t.CloseIdleConnections
}

// stay leaves a redirect to be reported: the signature fits no other place.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
