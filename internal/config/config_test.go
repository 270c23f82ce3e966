package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "hub.yaml")
	text := "data_dir: /from/file\ngate:\n  listen: 127.0.0.1:1\n  certificate_life: 2h\nalerts:\n  mail_to: [a@example.org]\n  webhook_secret: hush\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h := DefaultHub()
	origins, err := Load(&h, Options{
		File: file, EnvPrefix: "TOCSIN",
		Environ: []string{"TOCSIN_GATE_LISTEN=127.0.0.1:2", "TOCSIN_ALERTS_MAIL_TO=b@example.org, c@example.org", "TOCSIN_COLLECTOR_DIR=x", "PATH=/bin"},
		Flags:   map[string]string{"gate.listen": "127.0.0.1:3", "engine.memory": "512"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if h.DataDir != "/from/file" || h.Gate.Listen != "127.0.0.1:3" || h.Gate.CertificateLife != 2*time.Hour || h.Engine.Memory != 512 || strings.Join(h.Alerts.MailTo, "|") != "b@example.org|c@example.org" || h.Scheme != "Tocsin" {
		t.Errorf("got %+v", h)
	}
	for key, want := range map[string]string{"data_dir": "file:1", "gate.listen": "flag", "gate.certificate_life": "file:4", "alerts.mail_to": "environment TOCSIN_ALERTS_MAIL_TO", "scheme": "default"} {
		if origins[key] != want {
			t.Errorf("%s came from %q, want %q", key, origins[key], want)
		}
	}
	var out bytes.Buffer
	if err := Print(&out, &h, origins); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "hush") || !strings.Contains(s, "********") || !strings.Contains(s, "gate.listen:") {
		t.Errorf("printed:\n%s", s)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"gate:\n  lisen: x\n", "line 2: unknown setting lisen"},
		{"gate: [", "did not find"},
		{"engine:\n  memory: much\n", "line 2"},
		{"data_dir: a\n---\ndata_dir: b\n", "more than one document"},
	} {
		file := filepath.Join(t.TempDir(), "hub.yaml")
		if err := os.WriteFile(file, []byte(c.yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		h := DefaultHub()
		if _, err := Load(&h, Options{File: file}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.yaml, err, c.want)
		}
	}
	h := DefaultHub()
	if got := Unknown(&h, Options{EnvPrefix: "TOCSIN", Environ: []string{"TOCSIN_GATE_LISEN=x", "TOCSIN_GATE_LISTEN=x", "TOCSIN_TEST_X=1", "TOCSIN_COLLECTOR_DIR=x", "HOME=x"}}, "TEST", "COLLECTOR"); strings.Join(got, " ") != "TOCSIN_GATE_LISEN" {
		t.Errorf("unknown variables: %v", got)
	}
	for _, o := range []Options{
		{File: "/does/not/exist"},
		{EnvPrefix: "TOCSIN", Environ: []string{"TOCSIN_ENGINE_MEMORY=lots"}},
		{Flags: map[string]string{"no.such": "1"}},
		{Flags: map[string]string{"gate.certificate_life": "3"}},
	} {
		h := DefaultHub()
		if _, err := Load(&h, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestComplete(t *testing.T) {
	h := DefaultHub()
	if err := h.Complete(); err != nil {
		t.Fatal(err)
	}
	if h.Gate.Address != "localhost:8443" || h.Web.PublicURL != "http://localhost:8080" || !filepath.IsAbs(h.DataDir) {
		t.Errorf("got %+v", h)
	}
	for name, change := range map[string]func(*Hub){
		"open without TLS":     func(h *Hub) { h.Web.Listen = ":8080" },
		"half a key pair":      func(h *Hub) { h.Web.TLSKey = "x" },
		"unknown log level":    func(h *Hub) { h.Log.Level = "loud" },
		"unknown log format":   func(h *Hub) { h.Log.Format = "xml" },
		"a test for days":      func(h *Hub) { h.Health.DailyWithin = 24 * time.Hour },
		"a budget below 0":     func(h *Hub) { h.Alerts.MailBudget = -1 },
		"unknown level":        func(h *Hub) { h.Alerts.MinLevel = "awful" },
		"mail without a relay": func(h *Hub) { h.Alerts.MailTo = []string{"a@example.org"} },
		"relay without sender": func(h *Hub) { h.Mail.Host = "relay.example.org" },
		"plain to far relay":   func(h *Hub) { h.Mail.Host, h.Mail.From, h.Mail.TLS = "relay.example.org", "a@example.org", "none" },
		"webhook unsigned":     func(h *Hub) { h.Alerts.Webhook = "https://hook.example.org" },
		"webhook in the clear": func(h *Hub) {
			h.Alerts.Webhook, h.Alerts.WebhookSecret = "http://hook.example.org/", "0123456789abcdef"
		},
		"webhook of a password": func(h *Hub) {
			h.Alerts.Webhook, h.Alerts.WebhookSecret = "https://u:p@hook.example.org/", "0123456789abcdef"
		},
		"webhook that is none":  func(h *Hub) { h.Alerts.Webhook, h.Alerts.WebhookSecret = "file:///etc/passwd", "0123456789abcdef" },
		"proxy that is a name":  func(h *Hub) { h.Web.TrustedProxies = []string{"proxy.example.org"} },
		"everybody as a proxy":  func(h *Hub) { h.Web.TrustedProxies = []string{"0.0.0.0/0"} },
		"endless certificate":   func(h *Hub) { h.Gate.CertificateLife = 1e6 * time.Hour },
		"too little for engine": func(h *Hub) { h.Engine.Memory = 1 },
	} {
		h := DefaultHub()
		change(&h)
		if err := h.Complete(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestDocumented fails when a setting is missing from the operator's table.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	h := DefaultHub()
	origins, err := Load(&h, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for key := range origins {
		if !strings.Contains(string(b), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not name %s", key)
		}
	}
}
