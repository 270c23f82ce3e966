package keys

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// hub is a real TLS server with the gate's settings.
func hub(t *testing.T, s scheme, now func() time.Time, check func(Peer) error, ring *Ring) *httptest.Server {
	t.Helper()
	cert, err := ring.HubCertificate([]string{"localhost", "127.0.0.1"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ring.CA()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/trust" {
			w.Write(s.trust.Bundle)
			return
		}
		if len(r.TLS.PeerCertificates) == 0 {
			io.WriteString(w, "nobody")
			return
		}
		p, err := Identify(r.TLS.PeerCertificates[0], ca.Certificate(), now())
		if err != nil {
			io.WriteString(w, err.Error())
			return
		}
		io.WriteString(w, p.Collector)
	}))
	srv.TLS = ServerConfig(ServerOptions{Certificate: cert, CA: ca.Certificate(), Now: now, Check: check})
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, cfg *tls.Config, url string) (string, error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func TestTLS(t *testing.T) {
	s := newScheme(t)
	ring, err := Open(s.dir, HubTLS, CollectorCA)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	now, revoked, checks := t0, false, 0
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	srv := hub(t, s, clock, func(p Peer) error {
		mu.Lock()
		defer mu.Unlock()
		checks++
		if revoked {
			return errors.New("revoked")
		}
		return nil
	}, ring)
	addr := srv.Listener.Addr().String()

	trust, err := FetchTrust(t.Context(), addr, s.trust.RootFingerprint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FetchTrust(t.Context(), addr, [32]byte{1}, nil); !errors.Is(err, ErrTrustRoot) {
		t.Errorf("wrong root at first contact: %v", err)
	}

	c, err := CreateCollector(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := c.csr()
	ca, _ := ring.CA()
	const id = "019aaaaa-0000-7000-8000-000000000001"
	pemCert, notAfter, err := ca.Issue([]byte(csr), id, t0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !notAfter.Equal(t0.Add(72 * time.Hour)) {
		t.Errorf("certificate ends %v", notAfter)
	}
	if err := c.SaveCertificate(pemCert); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveTrust(trust); err != nil {
		t.Fatal(err)
	}
	cert, err := c.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	held, err := c.Trust()
	if err != nil {
		t.Fatal(err)
	}
	cfg := ClientConfig(func() *Trust { return held }, func() *tls.Certificate { return cert })
	if got, err := get(t, cfg, srv.URL); err != nil || got != id {
		t.Errorf("enrolled: %q, %v", got, err)
	}
	if got, err := get(t, ClientConfig(func() *Trust { return held }, func() *tls.Certificate { return nil }), srv.URL); err != nil || got != "nobody" {
		t.Errorf("without certificate: %q, %v", got, err)
	}
	// Expired: let in as far as HTTP and told so.
	mu.Lock()
	now = t0.Add(100 * time.Hour)
	mu.Unlock()
	if got, err := get(t, cfg, srv.URL); err != nil || !strings.Contains(got, "expired") {
		t.Errorf("expired: %q, %v", got, err)
	}
	mu.Lock()
	now, revoked, checks = t0, true, 0
	mu.Unlock()
	if got, err := get(t, cfg, srv.URL); err == nil {
		t.Errorf("revoked collector got %q", got)
	}
	if checks == 0 {
		t.Error("revocation was not looked up")
	}
	// A certificate of another scheme.
	other := newScheme(t)
	oring, _ := Open(other.dir, CollectorCA, HubTLS)
	oca, _ := oring.CA()
	foreign, _, _ := oca.Issue([]byte(csr), id, t0, 0)
	if err := c.SaveCertificate(foreign); err != nil {
		t.Fatal(err)
	}
	fcert, _ := c.Certificate()
	if got, err := get(t, ClientConfig(func() *Trust { return held }, func() *tls.Certificate { return fcert }), srv.URL); err != nil || !strings.Contains(got, "not issued by this scheme") {
		t.Errorf("foreign certificate: %q, %v", got, err)
	}
	// A hub certificate cannot be shown as a collector's.
	hubCert, _ := ring.HubCertificate(nil, t0)
	if got, err := get(t, ClientConfig(func() *Trust { return held }, func() *tls.Certificate { return &hubCert }), srv.URL); err == nil && !strings.Contains(got, "not issued") {
		t.Errorf("hub certificate as client: %q, %v", got, err)
	}
	// A man in the middle relays the true trust list but holds another key.
	fake := hub(t, s, clock, nil, oring)
	if _, err := FetchTrust(t.Context(), fake.Listener.Addr().String(), s.trust.RootFingerprint(), nil); !errors.Is(err, ErrNotTheHub) {
		t.Errorf("interception at first contact: %v", err)
	}
	if _, err := get(t, cfg, fake.URL); !errors.Is(err, ErrNotTheHub) {
		t.Errorf("interception later: %v", err)
	}
	// TLS 1.2 is refused.
	old := cfg.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := get(t, old, srv.URL); err == nil {
		t.Error("TLS 1.2 was taken")
	}
}

func TestResumptionAsksAboutRevocation(t *testing.T) {
	s := newScheme(t)
	ring, err := Open(s.dir, HubTLS, CollectorCA)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	revoked := false
	srv := hub(t, s, func() time.Time { return t0 }, func(Peer) error {
		mu.Lock()
		defer mu.Unlock()
		if revoked {
			return errors.New("revoked")
		}
		return nil
	}, ring)
	c, _ := CreateCollector(filepath.Join(t.TempDir(), "c"))
	csr, _ := c.csr()
	ca, _ := ring.CA()
	p, _, err := ca.Issue([]byte(csr), "id", t0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SaveCertificate(p); err != nil {
		t.Fatal(err)
	}
	cert, _ := c.Certificate()
	cfg := ClientConfig(func() *Trust { return s.trust }, func() *tls.Certificate { return cert })
	cfg.Time = func() time.Time { return t0 }
	dial := func() (bool, error) {
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			return false, err
		}
		conn := tls.Client(nc, cfg)
		defer conn.Close()
		if err := conn.Handshake(); err != nil {
			return false, err
		}
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(conn)
		if err == nil && !bytes.Contains(b, []byte("200 OK")) {
			err = errors.New(string(b))
		}
		return conn.ConnectionState().DidResume, err
	}
	if _, err := dial(); err != nil {
		t.Fatal(err)
	}
	if resumed, err := dial(); err != nil || !resumed {
		t.Fatalf("second connection: resumed %v, %v", resumed, err)
	}
	mu.Lock()
	revoked = true
	mu.Unlock()
	if _, err := dial(); err == nil {
		t.Error("a resumed session of a revoked collector was let in")
	}
}

func TestCARefuses(t *testing.T) {
	s := newScheme(t)
	ring, _ := Open(s.dir, CollectorCA)
	ca, err := ring.CA()
	if err != nil {
		t.Fatal(err)
	}
	if c := ca.Certificate(); !c.IsCA || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || !c.MaxPathLenZero {
		t.Error("the authority's certificate is not limited to client authentication")
	}
	if _, _, err := ca.Issue([]byte("x"), "id", t0, 0); err == nil {
		t.Error("issued for garbage")
	}
}
