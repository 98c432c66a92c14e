package signin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

const tenant = "03f956eb-f942-449d-85f0-89515af239ab"

// people is a directory of one program.
type people struct{ gone bool }

var robot = resource.Principal{ObjectID: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", AppID: "bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee", Type: "ServicePrincipal", Name: "robot", Groups: []string{"g"}}

func (*people) Tenant(context.Context) (string, error) { return tenant, nil }

func (*people) SignIn(_ context.Context, appID, secret string) (resource.Principal, error) {
	if appID != robot.AppID || secret != "s3cret" {
		return resource.Principal{}, problem.New(problem.SignInFailed, "no")
	}
	return robot, nil
}

func (p *people) Principal(_ context.Context, id string) (resource.Principal, error) {
	if p.gone || id != robot.ObjectID {
		return resource.Principal{}, problem.New(problem.PrincipalUnknown, "no")
	}
	return robot, nil
}

func open(t *testing.T, p *people, folder string) *Authority {
	t.Helper()
	a, err := Open(t.Context(), p, Options{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func token(t *testing.T, a *Authority, form url.Values) (status int, answer map[string]any) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "https://login.test/"+tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	if !a.Serve(w, r) {
		t.Fatal("it is not served")
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return w.Code, answer
}

func form(secret, scope string) url.Values {
	return url.Values{"grant_type": {"client_credentials"}, "client_id": {robot.AppID}, "client_secret": {secret}, "scope": {scope}}
}

func TestTokens(t *testing.T) {
	p, folder, now := &people{}, t.TempDir(), time.Now()
	a := open(t, p, folder)
	a.now = func() time.Time { return now }
	status, answer := token(t, a, form("s3cret", "https://arm.test/.default openid offline_access profile"))
	text, _ := answer["access_token"].(string)
	if status != 200 || strings.Count(text, ".") != 2 || answer["token_type"] != "Bearer" {
		t.Fatalf("%d %v", status, answer)
	}
	who, err := a.Caller(t.Context(), text)
	if err != nil || who.Principal != robot.ObjectID || who.Name != "robot" || len(who.Groups) != 1 {
		t.Fatalf("%+v, %v", who, err)
	}
	// Another process of the same folder knows it as well; one of another does not.
	if _, err := open(t, p, folder).Caller(t.Context(), text); err != nil {
		t.Error(err)
	}
	refused := func(a *Authority, text, why string) {
		t.Helper()
		if who, err := a.Caller(t.Context(), text); !problem.Is(err, problem.TokenInvalid) {
			t.Errorf("%s: %+v, %v", why, who, err)
		}
	}
	refused(open(t, p, t.TempDir()), text, "the keys of another deployment")
	refused(a, "", "no token")
	refused(a, text[:len(text)-4]+"AAAA", "a changed signature")
	parts := strings.Split(text, ".")
	refused(a, "eyJhbGciOiJub25lIn0."+parts[1]+".", "no signature")
	_, graph := token(t, a, form("s3cret", "https://arm.test/graph/.default"))
	refused(a, graph["access_token"].(string), "a token for Microsoft Graph")
	p.gone = true
	refused(a, text, "the program was removed")
	p.gone = false
	now = now.Add(2 * time.Hour)
	refused(a, text, "it has expired")

	// A token that was given just before the key changed stays good.
	now = now.Add(rotateAfter - 2*time.Hour - time.Minute)
	_, answer = token(t, a, form("s3cret", "https://arm.test/.default"))
	now = now.Add(30 * time.Minute)
	if _, err := a.Caller(t.Context(), answer["access_token"].(string)); err != nil {
		t.Error(err)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "signing-*.json"))
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	if len(files) != 2 {
		t.Errorf("%d keys", len(files))
	}
}

func TestRefusedSignIns(t *testing.T) {
	a := open(t, &people{}, t.TempDir())
	other := form("s3cret", "https://arm.test/.default")
	other.Set("grant_type", "password")
	for _, c := range []struct {
		form   url.Values
		status int
		name   string
	}{
		{form("wrong", "https://arm.test/.default"), 401, "invalid_client"}, {form("s3cret", "openid"), 400, "invalid_scope"}, {other, 400, "unsupported_grant_type"},
	} {
		status, answer := token(t, a, c.form)
		if status != c.status || answer["error"] != c.name || !strings.HasPrefix(answer["error_description"].(string), "AADSTS") {
			t.Errorf("%d %v, want %s", status, answer, c.name)
		}
	}
}

func TestServersAreKnownByTheAuthority(t *testing.T) {
	folder := t.TempDir()
	ca, err := OpenCA(folder)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenCA(folder)
	if err != nil || !again.cert.Equal(ca.cert) {
		t.Fatalf("the authority is another one when it is opened again: %v", err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", ca.Server([]string{"127.0.0.1", "backup.test"}))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	go s.Serve(l)
	defer s.Close()
	data, err := os.ReadFile(ca.File())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	for name, good := range map[string]bool{"127.0.0.1": true, "backup.test": true, "other.test": false} {
		c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: name})
		if (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			c.Close()
		}
	}
}
