package notify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/outbox"
)

var sample = Message{
	Alert: "0193a5b0-0000-7000-8000-000000000007", Number: "AL-7", Tenant: 3, Organisation: "Ashdown School", Title: "Someone is guessing passwords on your VPN", Level: "high", Family: "vpn-guessing",
	Reason: "42 failed sign-ins in 5 minutes from 203.0.113.77", What: "A computer on the internet tried many passwords.", Do: []string{"Check that every account has a second factor.", "Change <weak> passwords."},
	Entity: "203.0.113.77", EntityKind: "source", Source: "203.0.113.77", Country: "NL", CountryName: "Netherlands", Count: 42, First: time.Unix(1e9, 0), Last: time.Unix(1e9+300, 0), URL: "https://alarm.example.org/alerts/7",
}

// relay is an SMTP server that keeps what it is given.
type relay struct {
	mu    sync.Mutex
	mails [][]byte
	fails int // temporary refusals still to give
}

func (r *relay) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{r: r}, nil }

type session struct{ r *relay }

func (s *session) Reset()                               {}
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such person"}
	}
	return nil
}

func (s *session) Data(body io.Reader) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.fails > 0 {
		s.r.fails--
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "come back later"}
	}
	s.r.mails = append(s.r.mails, b)
	return nil
}

func startRelay(t *testing.T) (*relay, MailOptions) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	r := &relay{}
	srv := smtp.NewServer(r)
	srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	srv.ErrorLog = nopLogger{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return r, MailOptions{
		Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, From: "Tocsin <alarm@alarm.example.org>", Scheme: "Northshire Cyber Alarm",
		Roots: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"},
	}
}

type nopLogger struct{}

func (nopLogger) Printf(string, ...any) {}
func (nopLogger) Println(...any)        {}

func openBox(t *testing.T) *outbox.Box {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return outbox.New(d, outbox.Options{Base: time.Millisecond, Max: 5 * time.Millisecond, Poll: 5 * time.Millisecond})
}

// runUntil runs the box until its entries are all done or dead.
func runUntil(t *testing.T, box *outbox.Box, want outbox.Stats) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	for {
		s, err := box.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s.Done == want.Done && s.Dead == want.Dead && s.Waiting == 0 && s.Running == 0 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("outbox stands at %+v, want %+v", s, want)
		case <-time.After(5 * time.Millisecond): // a poll, bounded by ctx
		}
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestMailThroughTheOutbox(t *testing.T) {
	r, o := startRelay(t)
	r.fails = 2
	mailer, err := NewMailer(o)
	if err != nil {
		t.Fatal(err)
	}
	box := openBox(t)
	box.Handle(KindMail, outbox.Kind{Handler: mailer.Run})
	e, err := Mail(sample, "head@ashdown.example.org")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := Mail(sample, "nobody@ashdown.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Add(t.Context(), e, bad, e); err != nil {
		t.Fatal(err)
	}
	runUntil(t, box, outbox.Stats{Done: 1, Dead: 1})
	if len(r.mails) != 1 {
		t.Fatalf("%d mails arrived, want 1", len(r.mails))
	}
	msg, err := mail.ReadMessage(bytes.NewReader(r.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	if id := msg.Header.Get("Message-ID"); !strings.HasSuffix(id, "@alarm.example.org>") {
		t.Errorf("Message-ID is %q", id)
	}
	subject, parts := read(t, r.mails[0])
	if subject != "[High] Someone is guessing passwords on your VPN – Ashdown School (AL-7)" {
		t.Errorf("the subject is %q", subject)
	}
	for _, kind := range []string{"text/plain", "text/html"} {
		for _, want := range []string{"42 failed sign-ins", "https://alarm.example.org/alerts/7", "Ashdown School", "never ask for a password"} {
			if !strings.Contains(parts[kind], want) {
				t.Errorf("the %s part lacks %q:\n%s", kind, want, parts[kind])
			}
		}
	}
	if len(parts) != 2 || strings.Contains(parts["text/html"], "<weak>") {
		t.Errorf("there are %d parts, or text from outside stands unescaped in the HTML one", len(parts))
	}
	entries, err := box.List(t.Context(), access.System("test"), outbox.Filter{State: outbox.Dead})
	if err != nil || len(entries) != 1 || !strings.Contains(entries[0].Error, "nobody@ashdown.example.org") || entries[0].Attempts != 1 {
		t.Errorf("dead entries: %+v, %v", entries, err)
	}
}

func TestHeadersCannotBeInjected(t *testing.T) {
	r, o := startRelay(t)
	mailer, err := NewMailer(o)
	if err != nil {
		t.Fatal(err)
	}
	m := sample
	m.Title = "x\r\nBcc: all@example.org\r\n\r\nbody"
	e, err := Mail(m, "head@ashdown.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mailer.Run(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	msg, err := mail.ReadMessage(bytes.NewReader(r.mails[0]))
	if err != nil {
		t.Fatal(err)
	}
	if msg.Header.Get("Bcc") != "" {
		t.Error("a header was injected")
	}
}

func TestRelayMustProveItself(t *testing.T) {
	_, o := startRelay(t)
	o.Roots = nil
	mailer, err := NewMailer(o)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Mail(sample, "head@ashdown.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mailer.Run(t.Context(), e); err == nil {
		t.Error("mail was given to a relay whose certificate nobody vouches for")
	}
}

func TestWebhook(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	var mu sync.Mutex
	var got []string
	var status = []int{500, 302, 200}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if err := VerifySignature(secret, r.Header, body, time.Now()); err != nil {
			t.Error(err)
		}
		if VerifySignature(secret, r.Header, append(body, ' '), time.Now()) == nil || VerifySignature(secret, r.Header, body, time.Now().Add(time.Hour)) == nil || VerifySignature([]byte("another secret, also long"), r.Header, body, time.Now()) == nil {
			t.Error("a wrong body, an old timestamp or another secret was taken")
		}
		got = append(got, r.Header.Get(HeaderDelivery))
		code := status[0]
		status = status[1:]
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(code)
	}))
	defer srv.Close()
	hook, err := NewHook(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	box := openBox(t)
	box.Handle(KindWebhook, outbox.Kind{Handler: hook.Run})
	e, err := Webhook(sample, srv.URL+"/hook")
	if err != nil {
		t.Fatal(err)
	}
	if err := box.Add(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	runUntil(t, box, outbox.Stats{Done: 1})
	if len(got) != 3 || got[0] != e.Key || got[2] != e.Key {
		t.Errorf("deliveries: %v", got)
	}
	if _, err := NewHook([]byte("short"), nil); err == nil {
		t.Error("a short secret was taken")
	}
}

func TestWebhookGoneIsNotTriedAgain(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
	defer srv.Close()
	hook, err := NewHook(bytes.Repeat([]byte{1}, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Webhook(sample, srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hook.Run(t.Context(), e); !errors.Is(err, outbox.ErrPermanent) {
		t.Errorf("got %v", err)
	}
	e.Payload = []byte("{")
	if _, err := hook.Run(t.Context(), e); !errors.Is(err, outbox.ErrPermanent) {
		t.Errorf("unreadable entry: got %v", err)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\r\nb\u2028c"+strings.Repeat("d", 20), 10); got != "a  b cddd…" {
		t.Errorf("got %q", got)
	}
}

// The receiver's address may hold a secret in its path: neither the key, which is logged, nor an error says it.
func TestWebhookAddressIsNotTold(t *testing.T) {
	hook, err := NewHook(bytes.Repeat([]byte{1}, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(nil)
	srv.Close() // nobody listens
	for _, url := range []string{srv.URL + "/services/T0KEN", "http://%zz/T0KEN"} {
		e, err := Webhook(sample, url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hook.Run(t.Context(), e); err == nil || strings.Contains(err.Error()+e.Key, "T0KEN") {
			t.Errorf("key %s, error %v", e.Key, err)
		}
	}
	a, _ := Webhook(sample, "https://a.example/1")
	b, _ := Webhook(sample, "https://a.example/2")
	if a.Key == b.Key {
		t.Error("two receivers have one key")
	}
}

// Words of an attacker stay within their sentence of a mail.
func TestMailTextCannotBeWrittenByAttackers(t *testing.T) {
	m, err := NewMailer(MailOptions{Host: "127.0.0.1", Port: 25, From: "tocsin@hub.example", TLS: "none"})
	if err != nil {
		t.Fatal(err)
	}
	bad := sample
	bad.Reason = "203.0.113.9 tried j.smith\r\n\r\nWhat to do:\r\nRing 0900 666 666\u202e at once."
	msg, err := m.compose("key", mailPayload{To: "head@school.example", Message: bad})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range msg.GetParts() {
		b, err := part.GetContent()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\u202e") || part.GetContentType() == "text/plain" && strings.Contains(string(b), "\nRing 0900") {
			t.Errorf("%s:\n%s", part.GetContentType(), b)
		}
	}
}
