package nbd

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"nbd://host/disk":                         {Network: "tcp", Host: "host:10809", Export: "disk"},
		"nbd://host":                              {Network: "tcp", Host: "host:10809"},
		"nbd://host:10809/a%20b/c":                {Network: "tcp", Host: "host:10809", Export: "a b/c"},
		"nbd://[fe80::1]:99/":                     {Network: "tcp", Host: "[fe80::1]:99"},
		"nbds://host/d?tls-certificates=/etc/pki": {Network: "tcp", Host: "host:10809", Export: "d", TLS: true, Certificates: "/etc/pki"},
		"nbd+unix:///disk?socket=/run/s%20x":      {Network: "unix", Host: "/run/s x", Export: "disk"},
		"nbds+unix:///?socket=s&tls-hostname=h":   {Network: "unix", Host: "s", TLS: true, ServerName: "h"},
	} {
		got, err := ParseAddress(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if len(got.More) > 0 {
			t.Errorf("%s: parameters remain: %v", text, got.More)
		}
		got.More = nil
		if got.String() != want.String() || got.Host != want.Host || got.Export != want.Export || got.TLS != want.TLS || got.Network != want.Network {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
		again, err := ParseAddress(got.String())
		if err != nil || again.String() != got.String() {
			t.Errorf("%s: became %s, and that %s (%v)", text, got, again, err)
		}
	}
	got, err := ParseAddress("nbd+unix:///x?socket=/s&bitmap=b1")
	if err != nil || got.More.Get("bitmap") != "b1" || got.String() != "nbd+unix:///x?bitmap=b1&socket=/s" {
		t.Errorf("got %s with %v (%v)", got, got.More, err)
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"http://host/":                            "scheme",
		"nbd:host":                                "form",
		"nbd:///x":                                "no host",
		"nbd+unix:///x":                           "socket",
		"nbd+unix://host/x?socket=/s":             `"host"`,
		"nbd://host/x?socket=/s":                  "nbd+unix",
		"nbd://u@host/x":                          "user",
		"nbd://host/x?tls-certificates=/x":        "nbds",
		"nbd://host:x/":                           "port",
		"nbd://host/" + strings.Repeat("x", 5000): "4096",
	} {
		if a, err := ParseAddress(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.40s became %v, with the error %v, which does not say %q", text, a, err, why)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("nbd+unix:///disk?socket=/run/s")
	f.Add("nbds://[::1]:10809/a%2Fb?tls-hostname=x&bitmap=y")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil {
			t.Fatalf("%q became %q, which is refused: %v", text, a, err)
		}
		if again.Host != a.Host || again.Export != a.Export || again.Network != a.Network || again.String() != a.String() {
			t.Fatalf("%q became %+v and then %+v", text, a, again)
		}
	})
}
