// Package sdk drives diskvault by Microsoft's own modules, unchanged. It is a
// module of its own, so that the product does not depend on them.
package sdk

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "diskvault-sdk")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "diskvault")
	build := exec.Command("go", "build", "-o", binary, "./cmd/diskvault")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		os.Stderr.Write(out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// server is a diskvault that runs for a test.
type server struct {
	t    *testing.T
	home string
	url  string
}

// start runs `diskvault serve` on free ports of the loopback interface.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, home: t.TempDir()}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	cmd := exec.Command(binary, append([]string{"serve", "--tls-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "-o", "json", "--home", s.home}, args...)...)
	cmd.Stdout, cmd.Stderr = out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve ended with %v: %s", err, errOut.String())
			}
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			t.Error("serve did not end")
		}
		if t.Failed() {
			t.Log(errOut.String())
		}
	})
	for range 300 {
		var at struct{ Endpoint string }
		data, _ := os.ReadFile(out.Name())
		if json.Unmarshal(data, &at) == nil && at.Endpoint != "" {
			s.url = at.Endpoint
			return s
		}
		select {
		case err := <-ended:
			t.Fatalf("serve ended: %v: %s", err, errOut.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatal("serve does not start")
	return nil
}

// program is what role create-sp prints.
type program struct {
	TenantID, ClientID, ClientSecret, SubscriptionID, Authority, Endpoint, CAFile string
	t                                                                             *testing.T
}

func (s *server) createSP(name, role, scope string) program {
	s.t.Helper()
	p := program{t: s.t}
	out, err := exec.Command(binary, "role", "create-sp", name, "--role", role, "--scope", scope, "-o", "json", "--home", s.home).Output()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		s.t.Fatalf("role create-sp: %v", err)
	}
	return p
}

// client gives a client that trusts the server's own authority.
func (p program) client() *http.Client {
	data, err := os.ReadFile(p.CAFile)
	if err != nil {
		p.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	p.t.Cleanup(c.CloseIdleConnections)
	return c
}

func (p program) sdk() (azcore.TokenCredential, *arm.ClientOptions) {
	p.t.Helper()
	o := azcore.ClientOptions{Transport: p.client(), Cloud: cloud.Configuration{
		ActiveDirectoryAuthorityHost: p.Authority,
		Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: p.Endpoint, Audience: p.Endpoint}},
	}}
	cred, err := azidentity.NewClientSecretCredential(p.TenantID, p.ClientID, p.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: o, DisableInstanceDiscovery: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return cred, &arm.ClientOptions{ClientOptions: o}
}

// token gives a bearer token for requests that are written by hand.
func (p program) token() string {
	cred, _ := p.sdk()
	t, err := cred.GetToken(context.Background(), policy.TokenRequestOptions{Scopes: []string{p.Endpoint + "/.default"}})
	if err != nil {
		p.t.Fatal(err)
	}
	return t.Token
}

// raw sends a request by hand.
func (p program) raw(token, method, path, body string, headers ...string) (*http.Response, []byte) {
	p.t.Helper()
	r, err := http.NewRequest(method, p.Endpoint+path, bytes.NewReader([]byte(body)))
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for n := 0; n+1 < len(headers); n += 2 {
		r.Header.Set(headers[n], headers[n+1])
	}
	a, err := p.client().Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer a.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(a.Body); err != nil {
		p.t.Fatal(err)
	}
	return a, out.Bytes()
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// ends waits for a long-running operation, which must succeed.
func ends[T any](t *testing.T) func(*runtime.Poller[T], error) T {
	return func(p *runtime.Poller[T], err error) T {
		t.Helper()
		v, err := wait(t, p, err)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wait[T any](t *testing.T, p *runtime.Poller[T], err error) (T, error) {
	t.Helper()
	if err != nil {
		var none T
		return none, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return p.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: time.Second})
}

// wants checks the code of an error, and its status; 0: any.
func wants(t *testing.T, err error, code string, status int) {
	t.Helper()
	var e *azcore.ResponseError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want %s", err, code)
	}
	if e.ErrorCode != code || status != 0 && e.StatusCode != status {
		t.Errorf("got %s with %d, want %s with %d:\n%v", e.ErrorCode, e.StatusCode, code, status, err)
	}
}
