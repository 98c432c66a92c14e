package arm

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/access"
	"github.com/diskvault/diskvault/control/home"
	"github.com/diskvault/diskvault/control/resource"
	"github.com/diskvault/diskvault/control/service"
)

// byName is an authority whose tokens are the object IDs of their owners.
type byName struct{}

func (byName) Caller(_ context.Context, token string) (resource.Caller, error) {
	if token == "" {
		return resource.Caller{}, problem.New(problem.TokenInvalid, "no token")
	}
	if token == "owner" {
		token = ""
	}
	return resource.Caller{Principal: token, Name: "test"}, nil
}

const (
	groupPath = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/Rg"
	vaultPath = groupPath + "/providers/Microsoft.DataProtection/backupVaults/vault-01"
	stranger  = "99999999-2222-3333-4444-555555555555"
)

// surface is a server with a resource group.
func surface(t *testing.T, o Options) *Server {
	t.Helper()
	f, err := home.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.Open(t.Context(), f, service.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	server := New(s, byName{}, o)
	if a := ask(t, server, "owner", "PUT", groupPath+"?api-version=2021-04-01", `{"location":"East US"}`); a.status != http.StatusCreated {
		t.Fatalf("%+v", a)
	}
	return server
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string {
	var e envelope
	json.Unmarshal([]byte(a.body), &e)
	return e.Error.Code
}

func ask(t *testing.T, s *Server, token, method, path, body string, headers ...string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "https://diskvault.test"+path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for n := 0; n+1 < len(headers); n += 2 {
		r.Header.Set(headers[n], headers[n+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	out, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{w.Code, w.Result().Header, string(out)}
}

func TestErrorsOfARM(t *testing.T) {
	s := surface(t, Options{})
	for _, c := range []struct {
		token, method, path, body string
		status                    int
		code                      string
	}{
		{"", "GET", vaultPath + "?api-version=2023-11-01", "", 401, "InvalidAuthenticationToken"},
		{stranger, "GET", vaultPath + "?api-version=2023-11-01", "", 403, "AuthorizationFailed"},
		{"owner", "GET", vaultPath, "", 400, "MissingApiVersionParameter"},
		{"owner", "GET", vaultPath + "?api-version=2020-01-01", "", 400, "NoRegisteredProviderFound"},
		{"owner", "GET", vaultPath + "?api-version=2999-01-01", "", 400, "NoRegisteredProviderFound"},
		{"owner", "GET", vaultPath + "?api-version=yes", "", 400, "NoRegisteredProviderFound"},
		{"owner", "GET", vaultPath + "?api-version=2023-11-01", "", 404, "ResourceNotFound"},
		{"owner", "GET", vaultPath + "/backupInstances/i?api-version=2023-11-01", "", 404, "UserErrorGenericResourceNotFound"},
		{"owner", "GET", groupPath + "/providers/Microsoft.Nothing/x/y?api-version=2023-11-01", "", 404, "InvalidResourceNamespace"},
		{"owner", "GET", groupPath + "/providers/Microsoft.DataProtection/x/y?api-version=2023-11-01", "", 404, "InvalidResourceType"},
		{"owner", "PATCH", vaultPath + "/backupPolicies/p?api-version=2023-11-01", "", 405, "MethodNotAllowed"},
		{"owner", "PUT", vaultPath + "?api-version=2023-11-01", "{", 400, "InvalidRequestContent"},
		{"owner", "PUT", vaultPath + "?api-version=2023-11-01", `{"location":7}`, 400, "InvalidRequestContent"},
		{"owner", "PUT", vaultPath + "?api-version=2023-11-01", `{}`, 400, "BadRequest"},
		{"owner", "PUT", strings.Replace(vaultPath, "/Rg/", "/none/", 1) + "?api-version=2023-11-01", `{"location":"eastus"}`, 404, "ResourceGroupNotFound"},
		{"owner", "GET", groupPath + "/providers/Microsoft.DataProtection/backupVaults?api-version=2023-11-01&$top=x", "", 400, "InvalidParameter"},
		{"owner", "GET", groupPath + "/providers/Microsoft.Authorization/roleDefinitions?api-version=2022-04-01&$filter=color%20eq%20'red'", "", 400, "InvalidParameter"},
		{"owner", "DELETE", vaultPath + "?api-version=2023-11-01", "", 204, ""},
	} {
		a := ask(t, s, c.token, c.method, c.path, c.body)
		if a.status != c.status || a.code() != c.code || a.header.Get("x-ms-error-code") != c.code {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, a.status, a.body, c.status, c.code)
		}
		if a.header.Get("x-ms-request-id") == "" || a.body != "" && a.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s %s: %v", c.method, c.path, a.header)
		}
		if (a.header.Get("WWW-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%s %s: WWW-Authenticate %q", c.method, c.path, a.header.Get("WWW-Authenticate"))
		}
	}
}

func TestETagsOfVaults(t *testing.T) {
	s := surface(t, Options{})
	path, body := vaultPath+"?api-version=2023-11-01", `{"location":"eastus","identity":{"type":"SystemAssigned"}}`
	if a := ask(t, s, "owner", "PUT", path, body, "If-Match", "*"); a.status != 412 {
		t.Errorf("%+v", a)
	}
	made := ask(t, s, "owner", "PUT", path, body, "If-None-Match", "*")
	if made.status != 201 || !strings.Contains(made.body, `"provisioningState":"Provisioning"`) || !strings.HasPrefix(made.header.Get("Azure-AsyncOperation"), "https://diskvault.test"+vaultPath+"/operationStatus/") {
		t.Fatalf("%+v", made)
	}
	if a := ask(t, s, "owner", "PUT", path, body, "If-None-Match", "*"); a.status != 412 || a.code() != "PreconditionFailed" {
		t.Errorf("%+v", a)
	}
	// Paths count in any case; answers have the canonical one.
	read := ask(t, s, "owner", "GET", strings.ToUpper(vaultPath)+"?api-version=2023-11-01", "")
	etag := read.header.Get("ETag")
	if read.status != 200 || etag == "" || !strings.Contains(read.body, `"id":"`+vaultPath+`"`) {
		t.Fatalf("%+v", read)
	}
	if a := ask(t, s, "owner", "GET", path, "", "If-None-Match", etag); a.status != 304 || a.body != "" {
		t.Errorf("%+v", a)
	}
	if a := ask(t, s, "owner", "PATCH", path, `{"tags":{"a":"b"}}`, "If-Match", etag); a.status != 200 {
		t.Errorf("%+v", a)
	}
	if a := ask(t, s, "owner", "PATCH", path, `{"tags":{"a":"c"}}`, "If-Match", etag); a.status != 412 {
		t.Errorf("%+v", a)
	}
}

// What a client sends is what it reads again, but for what only says more.
func TestPolicyComesBackAsItWasSent(t *testing.T) {
	s := surface(t, Options{})
	if a := ask(t, s, "owner", "PUT", vaultPath+"?api-version=2023-11-01", `{"location":"eastus"}`); a.status != 201 {
		t.Fatalf("%+v", a)
	}
	path := vaultPath + "/backupPolicies/disk-4h"
	a := ask(t, s, "owner", "PUT", path+"?api-version=2023-11-01", policyJSON)
	if a.status != 200 {
		t.Fatalf("%+v", a)
	}
	var sent, got map[string]any
	for text, to := range map[string]*map[string]any{policyJSON: &sent, a.body: &got} {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(sent["properties"], got["properties"]) || got["id"] != path {
		t.Errorf("sent %s\ngot  %s", policyJSON, a.body)
	}
	for _, bad := range []string{
		strings.Replace(policyJSON, `"FirstOfDay"`, `"FirstOfDay","FirstOfWeek"`, 1), strings.Replace(policyJSON, `"AzureBackupRule"`, `"OtherRule"`, 1),
		strings.Replace(policyJSON, `"name": "Daily"`, `"name": "Other"`, 1), strings.Replace(policyJSON, `"Microsoft.Compute/disks"`, `"Microsoft.Storage/blobs"`, 1),
	} {
		if a := ask(t, s, "owner", "PUT", path+"?api-version=2023-11-01", bad); a.status != 400 {
			t.Errorf("%d %s for %s", a.status, a.body, bad)
		}
	}
}

const policyJSON = `{"properties": {"objectType": "BackupPolicy", "datasourceTypes": ["Microsoft.Compute/disks"], "policyRules": [
 {"objectType": "AzureBackupRule", "name": "BackupHourly", "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
  "dataStore": {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"},
  "trigger": {"objectType": "ScheduleBasedTriggerContext", "schedule": {"repeatingTimeIntervals": ["R/2025-01-06T02:00:00+00:00/PT4H"], "timeZone": "UTC"}, "taggingCriteria": [
   {"isDefault": true, "taggingPriority": 99, "tagInfo": {"tagName": "Default", "id": "Default_"}},
   {"isDefault": false, "taggingPriority": 25, "tagInfo": {"tagName": "Daily", "id": "Daily_"}, "criteria": [{"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": ["FirstOfDay"]}]}]}},
 {"objectType": "AzureRetentionRule", "name": "Default", "isDefault": true, "lifecycles": [
  {"deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P7D"}, "sourceDataStore": {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"}, "targetDataStoreCopySettings": []}]},
 {"objectType": "AzureRetentionRule", "name": "Daily", "isDefault": false, "lifecycles": [
  {"deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": "P14D"}, "sourceDataStore": {"dataStoreType": "OperationalStore", "objectType": "DataStoreInfoBase"}, "targetDataStoreCopySettings": []}]}]}}`

func TestTooManyRequests(t *testing.T) {
	s := surface(t, Options{Rate: 0.2})
	path := groupPath + "?api-version=2021-04-01"
	for n := range 3 {
		a := ask(t, s, "owner", "GET", path, "")
		if want := 200; n < 2 && a.status != want {
			t.Fatalf("request %d: %+v", n, a)
		}
		if n == 2 && (a.status != 429 || a.header.Get("Retry-After") != "5" || a.code() != "TooManyRequests") {
			t.Errorf("%+v", a)
		}
	}
	if a := ask(t, s, stranger, "GET", path, ""); a.status != 403 {
		t.Errorf("one caller is held up by another: %+v", a)
	}
}

func TestProviderMustBeRegistered(t *testing.T) {
	s := surface(t, Options{})
	provider := "/subscriptions/11111111-2222-3333-4444-555555555555/providers/microsoft.dataprotection"
	if a := ask(t, s, "owner", "POST", provider+"/unregister?api-version=2019-05-01", ""); a.status != 200 || !strings.Contains(a.body, `"registrationState":"NotRegistered"`) {
		t.Fatalf("%+v", a)
	}
	if a := ask(t, s, "owner", "PUT", vaultPath+"?api-version=2023-11-01", `{"location":"eastus"}`); a.status != 409 || a.code() != "MissingSubscriptionRegistration" {
		t.Errorf("%+v", a)
	}
	if a := ask(t, s, "owner", "POST", provider+"/register?api-version=2019-05-01", ""); a.status != 200 || !strings.Contains(a.body, `"registrationState":"Registered"`) {
		t.Errorf("%+v", a)
	}
	if a := ask(t, s, "owner", "PUT", vaultPath+"?api-version=2023-11-01", `{"location":"eastus"}`); a.status != 201 {
		t.Errorf("%+v", a)
	}
}

// Every handler answers an operation that is in a table with its action.
func TestHandlersHaveOperations(t *testing.T) {
	known := map[string]bool{}
	for _, o := range append(further, access.Operations...) {
		known[o.Name] = true
	}
	for name := range handlers() {
		if !known[name] {
			t.Errorf("nothing leads to the handler of %s", name)
		}
	}
}

func TestDurations(t *testing.T) {
	for seconds, want := range map[float64][2]string{219.7214322: {"PT3M39.7214322S", "00:03:39.7214322"}, 0: {"PT0S", "00:00:00.0000000"}, 90000: {"PT25H0S", "1.01:00:00.0000000"}} {
		if iso, clock := isoDuration(seconds), clockDuration(seconds); iso != want[0] || clock != want[1] {
			t.Errorf("%g: %s, %s; want %s", seconds, iso, clock, want)
		}
	}
}
