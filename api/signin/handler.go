package signin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
)

// Serve answers a request of a client that signs in or looks for where to do
// so; false if it is none. It needs no token.
func (a *Authority) Serve(w http.ResponseWriter, r *http.Request) bool {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	base := "https://" + r.Host
	switch {
	case len(path) == 2 && path[0] == "metadata" && path[1] == "endpoints":
		answer(w, http.StatusOK, a.metadata(base, r.URL.Query().Get("api-version")))
		return true
	case a.outside != nil:
		return false // it has its own
	case len(path) == 3 && path[1] == "discovery" && path[2] == "instance":
		answer(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": base + "/" + a.tenant + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": r.Host, "preferred_cache": r.Host, "aliases": []string{r.Host}}},
		})
		return true
	case len(path) < 2 || !a.isTenant(path[0]):
		return false
	}
	switch strings.Join(path[1:], "/") {
	case "v2.0/.well-known/openid-configuration", ".well-known/openid-configuration":
		answer(w, http.StatusOK, a.discovery(base))
	case "discovery/v2.0/keys", "discovery/keys":
		a.serveKeys(w)
	case "oauth2/v2.0/token", "oauth2/token":
		a.serveToken(w, r, base)
	default:
		return false
	}
	return true
}

// isTenant tells whether a path names the tenant. Clients that do not know it
// yet write a word that means their own.
func (a *Authority) isTenant(name string) bool {
	return strings.EqualFold(name, a.tenant) || name == "common" || name == "organizations"
}

func (a *Authority) issuer(base string) string { return base + "/" + a.tenant + "/v2.0" }

func (a *Authority) discovery(base string) map[string]any {
	t := base + "/" + a.tenant
	return map[string]any{
		"issuer": a.issuer(base), "authorization_endpoint": t + "/oauth2/v2.0/authorize", "token_endpoint": t + "/oauth2/v2.0/token",
		"jwks_uri": t + "/discovery/v2.0/keys", "response_types_supported": []string{"code", "id_token"}, "subject_types_supported": []string{"pairwise"},
		"grant_types_supported":                 []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	}
}

// metadata is what clients such as Terraform begin with.
func (a *Authority) metadata(base, version string) any {
	login := base
	if u, err := url.Parse(a.options.Issuer); a.outside != nil && err == nil {
		login = u.Scheme + "://" + u.Host
	}
	if version == "2018-01-01" {
		return map[string]any{"cloudEndpoint": map[string]any{"public": map[string]any{"endpoint": base, "locations": []string{}}}}
	}
	host := strings.TrimPrefix(base, "https://")
	return map[string]any{
		"name": "diskvault", "portal": base, "resourceManager": base + "/", "microsoftGraphResourceId": base + "/graph/", "graph": base + "/graph/", "graphAudience": base + "/graph/",
		"authentication": map[string]any{"loginEndpoint": login, "audiences": []string{base + "/"}, "tenant": "common", "identityProvider": "AAD"},
		"suffixes":       map[string]any{"keyVaultDns": "vault." + host, "storage": "storage." + host},
		"batch":          base + "/batch/", "media": "", "gallery": "", "vmImageAliasDoc": "", "sqlManagement": "", "activeDirectoryDataLake": "", "logAnalyticsResourceId": "",
		"ossrDbmsResourceId": "", "synapseAnalyticsResourceId": "", "attestationResourceId": "", "appInsightsResourceId": "", "appInsightsTelemetryChannelResourceId": "",
	}
}

func (a *Authority) serveKeys(w http.ResponseWriter) {
	all, err := a.keys.at(a.now())
	if err != nil {
		refuse(w, http.StatusInternalServerError, "server_error", 90033, "A key could not be made.")
		return
	}
	set := jose.JSONWebKeySet{}
	for _, k := range all {
		set.Keys = append(set.Keys, k.Public())
	}
	answer(w, http.StatusOK, set)
}

// serveToken gives a token for a client's ID and secret.
func (a *Authority) serveToken(w http.ResponseWriter, r *http.Request, base string) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(w, http.StatusMethodNotAllowed, "invalid_request", 900561, "The endpoint only accepts POST requests.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", 900144, "The request body must be a form.")
		return
	}
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok && secret == "" {
		// Both are form-encoded in the header, by RFC 6749.
		id, _ = url.QueryUnescape(user)
		secret, _ = url.QueryUnescape(password)
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		refuse(w, http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type; client_credentials is supported.")
		return
	}
	audience := strings.TrimRight(r.PostForm.Get("resource"), "/")
	for _, s := range strings.Fields(r.PostForm.Get("scope")) {
		if of, ok := strings.CutSuffix(s, "/.default"); ok {
			audience = strings.TrimRight(of, "/")
		}
	}
	if audience == "" {
		refuse(w, http.StatusBadRequest, "invalid_scope", 70011, "The scope must be a resource followed by /.default.")
		return
	}
	p, err := a.directory.SignIn(r.Context(), id, secret)
	if err != nil {
		if problem.Is(err, problem.SignInFailed) {
			refuse(w, http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client ID or secret provided.")
			return
		}
		refuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", 90033, problem.From(err).Message)
		return
	}
	token, err := a.give(a.issuer(base), audience, p)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "server_error", 90033, "A token could not be made.")
		return
	}
	life := int(tokenLife.Seconds()) - 1
	answer(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token})
}

// refuse answers in the form of Entra ID.
func refuse(w http.ResponseWriter, status int, name string, number int, text string) {
	answer(w, status, map[string]any{
		"error": name, "error_description": fmt.Sprintf("AADSTS%d: %s", number, text), "error_codes": []int{number},
		"timestamp": time.Now().UTC().Format("2006-01-02 15:04:05Z"), "trace_id": uuid.NewString(), "correlation_id": uuid.NewString(),
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store, no-cache")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}
