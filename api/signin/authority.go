// Package signin tells who is asking: it gives tokens to programs, in the way
// of Entra ID, and checks those that come with requests. It also makes the
// certificates by which clients know the server.
package signin

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/diskvault/diskvault/base/problem"
	"github.com/diskvault/diskvault/control/resource"
)

// directory knows the principals.
type directory interface {
	Tenant(ctx context.Context) (string, error)
	SignIn(ctx context.Context, appID, secret string) (resource.Principal, error)
	Principal(ctx context.Context, objectID string) (resource.Principal, error)
}

// Options say whom tokens are believed.
type Options struct {
	Folder string // in which the signing keys lie
	// Issuer is the URL of an outside OpenID issuer. With it, that one alone
	// is believed, and no tokens are given here.
	Issuer   string
	Audience string // that its tokens must be for
}

// Authority gives tokens and checks them. Its methods are safe for concurrent
// use.
type Authority struct {
	directory directory
	tenant    string
	keys      *keys
	options   Options
	outside   *oidc.IDTokenVerifier // nil: tokens are given here
	now       func() time.Time
}

// Open opens the authority of a deployment. An outside issuer is asked for its
// keys, so it must answer.
func Open(ctx context.Context, d directory, o Options) (*Authority, error) {
	a := &Authority{directory: d, options: o, now: time.Now}
	var err error
	if a.tenant, err = d.Tenant(ctx); err != nil {
		return nil, err
	}
	if o.Issuer == "" {
		a.keys, err = openKeys(o.Folder)
		return a, err
	}
	if o.Audience == "" {
		return nil, problem.New(problem.InvalidArgument, "The outside issuer %s is trusted only for one audience.", o.Issuer).Do("Give the audience that its tokens are for.")
	}
	provider, err := oidc.NewProvider(context.WithoutCancel(ctx), o.Issuer)
	if err != nil {
		return nil, problem.Wrap(err, problem.InvalidArgument, "The OpenID issuer %s cannot be asked for its keys.", o.Issuer)
	}
	a.outside = provider.VerifierContext(context.WithoutCancel(ctx), &oidc.Config{ClientID: o.Audience})
	return a, nil
}

// claims are those of a token that count.
type claims struct {
	jwt.Claims
	Tenant  string   `json:"tid,omitempty"`
	Object  string   `json:"oid,omitempty"`
	App     string   `json:"appid,omitempty"`
	Party   string   `json:"azp,omitempty"`
	Kind    string   `json:"idtyp,omitempty"`
	Version string   `json:"ver,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	User    string   `json:"preferred_username,omitempty"`
}

// give makes a token for a program.
func (a *Authority) give(issuer, audience string, p resource.Principal) (token string, err error) {
	now := a.now()
	all, err := a.keys.at(now)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: all[0]}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims{
		Claims: jwt.Claims{
			Issuer: issuer, Subject: p.ObjectID, Audience: jwt.Audience{audience}, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-time.Minute)), Expiry: jwt.NewNumericDate(now.Add(tokenLife)),
		},
		Tenant: a.tenant, Object: p.ObjectID, App: p.AppID, Party: p.AppID, Kind: "app", Version: "2.0",
	}).Serialize()
}

// Caller tells whose token it is, or returns an InvalidAuthenticationToken
// problem.
func (a *Authority) Caller(ctx context.Context, token string) (resource.Caller, error) {
	if token == "" {
		return resource.Caller{}, problem.New(problem.TokenInvalid, "The request has no token: the Authorization header must be Bearer and a token.")
	}
	if a.outside != nil {
		return a.outsider(ctx, token)
	}
	refused := func(err error) (resource.Caller, error) {
		return resource.Caller{}, problem.Wrap(err, problem.TokenInvalid, "The token is not valid here.")
	}
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return refused(err)
	}
	all, err := a.keys.at(a.now())
	if err != nil {
		return resource.Caller{}, err
	}
	var c claims
	set := jose.JSONWebKeySet{}
	for _, k := range all {
		set.Keys = append(set.Keys, k.Public())
	}
	if err := t.Claims(&set, &c); err != nil {
		return refused(err)
	}
	if err := c.ValidateWithLeeway(jwt.Expected{Time: a.now()}, time.Minute); err != nil {
		return refused(err)
	}
	if !strings.EqualFold(c.Tenant, a.tenant) || !forManagement(c.Audience) || c.Expiry == nil {
		return resource.Caller{}, problem.New(problem.TokenInvalid, "The token is for another tenant or another API.")
	}
	// Who was removed or disabled since the token was given is out at once.
	p, err := a.directory.Principal(ctx, c.Object)
	if problem.Is(err, problem.PrincipalUnknown) || err == nil && p.Disabled {
		return resource.Caller{}, problem.New(problem.TokenInvalid, "The program that the token was given to is no longer known.")
	}
	return resource.Caller{Principal: p.ObjectID, Name: p.Name, Groups: p.Groups}, err
}

// forManagement tells whether an audience is that of the management API: the
// bare address of a host. Others, such as that of Microsoft Graph, have a path.
func forManagement(audience jwt.Audience) bool {
	for _, text := range audience {
		if u, err := url.Parse(text); err == nil && u.Host != "" && strings.Trim(u.Path, "/") == "" {
			return true
		}
	}
	return false
}

// outsider tells whose token of an outside issuer it is. Where that does not
// name the object ID, it follows from issuer and subject.
func (a *Authority) outsider(ctx context.Context, token string) (resource.Caller, error) {
	t, err := a.outside.Verify(ctx, token)
	var c claims
	if err == nil {
		err = t.Claims(&c)
	}
	if err != nil {
		return resource.Caller{}, problem.Wrap(err, problem.TokenInvalid, "The token is not valid here.")
	}
	who := resource.Caller{Principal: c.Object, Name: c.User, Groups: c.Groups}
	if _, err := uuid.Parse(who.Principal); err != nil {
		who.Principal = uuid.NewSHA1(uuid.NameSpaceURL, []byte(t.Issuer+"\n"+t.Subject)).String()
	}
	if who.Name == "" {
		who.Name = t.Subject
	}
	return who, nil
}
