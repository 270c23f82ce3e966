package app

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/alert"
	"tocsin/internal/app/status"
	"tocsin/internal/config"
	"tocsin/internal/eventstore/engine/enginetest"
	"tocsin/internal/notify"
)

// settings are a hub's in a new folder, on ports of the kernel's choice.
func settings(t *testing.T) config.Hub {
	t.Helper()
	h := config.DefaultHub()
	h.DataDir = filepath.Join(t.TempDir(), "data")
	h.Gate.Listen, h.Web.Listen, h.Gate.Address = "127.0.0.1:0", "127.0.0.1:0", "localhost:8443"
	if err := h.Complete(); err != nil {
		t.Fatal(err)
	}
	return h
}

// offline is where the keys that are not on the hub lie in these tests.
func offline(h config.Hub) string { return filepath.Join(filepath.Dir(h.DataDir), "offline") }

func createScheme(t *testing.T, h config.Hub) {
	t.Helper()
	if _, err := CreateScheme(h.DataDir, offline(h), "Test", time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutAScheme(t *testing.T) {
	h := settings(t)
	err := Run(t.Context(), Options{Config: h, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "tocsin admin --data") {
		t.Errorf("got %v, want what to do", err)
	}
	if _, err := OpenOffice(t.Context(), h, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "init") {
		t.Errorf("office: %v", err)
	}
	createScheme(t, h)
	if _, err := CreateScheme(h.DataDir, t.TempDir(), "Test", time.Now()); err == nil {
		t.Error("a scheme was made over another")
	}
}

// TestHub runs a whole hub on its real engines and asks it what its operator may ask.
func TestHub(t *testing.T) {
	h := settings(t)
	h.Engine.Program, h.Engine.Library = enginetest.Program(t), enginetest.Library(t)
	h.Alerts.MinLevel = "high"
	h.Alerts.Webhook, h.Alerts.WebhookSecret = "http://127.0.0.1:9/", "0123456789abcdef"
	createScheme(t, h)
	ctx, stop := context.WithCancel(t.Context())
	ready := make(chan string, 1)
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Config: h, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Version: "test", Ready: func(u string) { ready <- u }})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("the hub ended: %v", err)
	case <-time.After(2 * time.Minute):
		t.Fatal("the hub is not ready after two minutes")
	}
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", AdminSocket(h.DataDir))
	}}}
	ask := func(method, path, body string, want int) string {
		t.Helper()
		// The socket is made just after the hub says that it is ready.
		for deadline := time.Now().Add(20 * time.Second); ; {
			req, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond) // a poll, bounded by the deadline
				continue
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != want {
				t.Errorf("%s %s answered %s, want %d: %s", method, path, resp.Status, want, b)
			}
			return string(b)
		}
	}
	ask("GET", "/healthz", "", 200)
	if st, err := os.Stat(AdminSocket(h.DataDir)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", st, err)
	}
	ask("POST", "/admin/members", `{"name":"Ashdown School","sector":"education"}`, 200)
	ask("POST", "/admin/members", `{"name":"ashdown school"}`, 409)
	ask("POST", "/admin/members", `{"nmae":"x"}`, 422)
	if body := ask("POST", "/admin/tokens", `{"tenant":1,"site":"Annexe"}`, 200); !strings.Contains(body, `"tocsin1.`) {
		t.Errorf("token: %s", body)
	}
	ask("POST", "/admin/tokens", `{"tenant":99}`, 404)
	ask("POST", "/admin/users", `{"email":"a@example.org","name":"Ann","role":"operator"}`, 200)
	ask("POST", "/admin/users", `{"email":"b@example.org","name":"Bob","role":"king"}`, 422)
	ask("POST", "/admin/collectors/none/confirm", `{"words":"a b c d"}`, 404)
	ask("POST", "/admin/rules/daily?tenant=99", "", 404)
	if body := ask("POST", "/admin/rules/daily?tenant=1", "", 200); !strings.Contains(body, `"sent":[1]`) {
		t.Errorf("daily test: %s", body)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // a poll, bounded by the deadline
		var tests []DailyTest
		body := ask("GET", "/admin/rules/daily", "", 200)
		if err := json.Unmarshal([]byte(body), &tests); err != nil || len(tests) != 1 || tests[0].Member != "Ashdown School" || tests[0].Missed {
			t.Fatalf("daily tests: %s, %v", body, err)
		}
		if x := tests[0]; !x.Arrived.IsZero() {
			t.Logf("the daily test took %d ms", x.Millis)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daily test has not come out of the rules: %s", body)
		}
	}
	if body := ask("POST", "/admin/indicators?source=test", "203.0.113.9\nnonsense!\n", 200); !strings.Contains(body, `"added":1`) || !strings.Contains(body, "nonsense") {
		t.Errorf("import: %s", body)
	}
	if body := ask("GET", "/metrics", "", 200); !strings.Contains(body, "tocsin_") {
		t.Errorf("metrics: %.300s", body)
	}
	var s status.Status
	if err := json.Unmarshal([]byte(ask("GET", "/status", "", 200)), &s); err != nil || len(s.Members) != 1 || s.Members[0].Name != "Ashdown School" || len(s.Stages) < 6 {
		t.Errorf("status: %+v, %v", s, err)
	}
	for _, f := range Doctor(ctx, h) {
		if !f.OK && f.Name != "place data" {
			t.Errorf("doctor: %+v", f)
		}
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the hub ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the hub does not stop")
	}
}

func TestEntries(t *testing.T) {
	h := &hub{cfg: settings(t)}
	h.cfg.Alerts.MailTo = []string{"a@example.org", "b@example.org", "a@example.org"} // the same twice is told once
	h.cfg.Alerts.Webhook = "https://hook.example.org/x"
	n := alert.Notice{Kind: "opened", N: 1, Alert: alert.Alert{
		ID: "id", Ref: "AL-1", Tenant: 3, Organisation: "Ashdown School", Severity: alert.High, Title: "VPN sign-in after many failures", Count: 12,
		Details: alert.Details{Reason: "Because.", Text: alert.Text{Title: "Someone may have got in", What: "What.", Do: "- Lock the account.\n2. Call us.\n\n"}},
	}}
	got, err := h.entries(n)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	keys := map[string]bool{}
	for _, e := range got {
		keys[e.Key] = true
		if e.Tenant != 3 || e.Kind != notify.KindMail && e.Kind != notify.KindWebhook {
			t.Errorf("entry %+v", e)
		}
	}
	if len(keys) != 3 {
		t.Errorf("keys are not distinct: %v", keys)
	}
	m := message(n, "https://alarm.example.org")
	if m.Title != "Someone may have got in" || strings.Join(m.Do, "|") != "Lock the account.|Call us." || m.URL != "https://alarm.example.org/alerts/AL-1" || m.Update != 0 {
		t.Errorf("message: %+v", m)
	}
	n.Alert.Tenant, n.Alert.Organisation, n.N = 0, "", 3
	if m = message(n, ""); m.Organisation != "several members" || m.Update != 2 {
		t.Errorf("message of the centre: %+v", m)
	}
	n.Alert.Severity = alert.Low
	if got, err = h.entries(n); err != nil || len(got) != 0 {
		t.Errorf("an alert below the level makes %d entries, %v", len(got), err)
	}
}

func TestSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	for content, want := range map[string]string{"hush\n": "hush", " \n": ""} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := secret("unused", file)
		if string(b) != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", content, b, err)
		}
	}
	if b, err := secret("given", ""); err != nil || string(b) != "given" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := secret("", file+"x"); err == nil {
		t.Error("a missing file was taken")
	}
}
