package gate

import (
	"bytes"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

func TestRefusedEnrolments(t *testing.T) {
	h := newHub(t, nil)
	s := newSite(t, h, "Ashgrove School")
	other, err := keys.CreateCollector(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	request := func(c *keys.Collector, tok keys.Token) []byte {
		req, err := c.EnrolRequest(tok.Secret, "x", "1")
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	tok := h.token("Ashgrove School")
	s.refused("/v1/enrol", request(other, keys.Token{Secret: [16]byte{1}}), http.StatusForbidden, "token_unknown")
	s.refused("/v1/enrol", []byte("{}"), http.StatusBadRequest, "enrolment_invalid")
	s.refused("/v1/enrol", bytes.Replace(request(other, tok), []byte(`"sig":"A`), []byte(`"sig":"B`), 1)[:50], http.StatusBadRequest, "enrolment_invalid")
	s.refused("/v1/enrol", make([]byte, keys.MaxEnrol+1), http.StatusRequestEntityTooLarge, "too_big")
	s.refused("/v1/enrol", request(s.keys, tok), http.StatusConflict, "key_known")
	h.clock.add(member.TokenLife + time.Second)
	s.refused("/v1/enrol", request(other, tok), http.StatusForbidden, "token_expired")
	tok = h.token("Ashgrove School")
	var a keys.EnrolAnswer
	s.post("/v1/enrol", request(other, tok), http.StatusOK, &a)
	// The answer was lost: the same collector may ask again. Another machine with the same token may not.
	var b keys.EnrolAnswer
	s.post("/v1/enrol", request(other, tok), http.StatusOK, &b)
	if a.Collector != b.Collector {
		t.Errorf("the same collector was registered twice: %s, %s", a.Collector, b.Collector)
	}
	third, err := keys.CreateCollector(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	s.refused("/v1/enrol", request(third, tok), http.StatusForbidden, "token_unknown")
}

func TestRenewalAlsoAfterExpiry(t *testing.T) {
	h := newHub(t, nil)
	s := newSite(t, h, "Ashgrove School")
	s.send(1)
	h.clock.add(keys.DefaultCertificateLife + time.Hour)
	// On the connection it has, and on a new one.
	b := s.seal(s.manifest(), 1)
	s.refused("/v1/batches", b.Submission(), http.StatusUnauthorized, batch.CodeExpired)
	s.client()
	s.refused("/v1/batches", b.Submission(), http.StatusUnauthorized, batch.CodeExpired)

	renew := func(c *keys.Collector, counter uint64) []byte {
		req, err := c.RenewRequest(s.reg.Collector, "0.2", counter)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	var a keys.EnrolAnswer
	s.post("/v1/renew", renew(s.keys, 100), http.StatusOK, &a)
	s.adopt(a.Certificate)
	var ack batch.Ack
	s.post("/v1/batches", b.Submission(), http.StatusOK, &ack)
	s.accepted(b, &ack)

	p := s.refused("/v1/renew", renew(s.keys, 99), http.StatusConflict, batch.CodeStaleCounter)
	if p.Higher != 100 {
		t.Errorf("a stale renewal is told to be higher than %d", p.Higher)
	}
	thief, err := keys.CreateCollector(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	s.refused("/v1/renew", renew(thief, 101), http.StatusForbidden, "renewal_signature")
	s.refused("/v1/renew", []byte("x"), http.StatusBadRequest, "renewal_invalid")

	if err := h.store.Revoke(t.Context(), operator, "test", s.reg.Collector, "stolen"); err != nil {
		t.Fatal(err)
	}
	// On the open connection it is told; a new one ends in the handshake; the renewal says why.
	s.refused("/v1/batches", s.seal(s.manifest(), 1).Submission(), http.StatusForbidden, batch.CodeRevoked)
	s.client()
	if code, _, body, err := s.do(http.MethodGet, h.addr, "/v1/self", nil); err == nil {
		t.Errorf("a revoked collector got %d %s", code, body)
	}
	s.cert = nil
	s.client()
	s.refused("/v1/renew", renew(s.keys, 200), http.StatusForbidden, batch.CodeRevoked)
}

func TestCertificates(t *testing.T) {
	h := newHub(t, nil)
	s := newSite(t, h, "Ashgrove School")
	mine := s.cert
	s.cert = nil
	s.client()
	s.refused("/v1/batches", []byte("x"), http.StatusUnauthorized, batch.CodeNoCert)

	// Another scheme's authority.
	dir := t.TempDir()
	if _, err := keys.CreateScheme(keys.SchemeOptions{Dir: filepath.Join(dir, "k"), Offline: filepath.Join(dir, "o"), Name: "Other", Now: h.clock.now()}); err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Open(filepath.Join(dir, "k"), keys.CollectorCA)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ring.CA()
	if err != nil {
		t.Fatal(err)
	}
	csr := csrOf(t, s)
	foreign, _, err := ca.Issue(csr, s.reg.Collector, h.clock.now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.adopt(string(foreign))
	s.refused("/v1/batches", []byte("x"), http.StatusUnauthorized, batch.CodeUnknownCert)

	// Our own authority, but nobody the records know, and a key that is not the collector's.
	own := h.gate.o.CA
	unknown, _, err := own.Issue(csr, "019aa0b4-7c00-7000-8000-00000000dead", h.clock.now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.adopt(string(unknown))
	s.refused("/v1/batches", []byte("x"), http.StatusForbidden, "collector_unknown")
	other := newSite(t, h, "Brindle Engineering")
	stolen, _, err := own.Issue(csrOf(t, other), s.reg.Collector, h.clock.now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	other.adopt(string(stolen))
	other.refused("/v1/batches", []byte("x"), http.StatusUnauthorized, "certificate_replaced")
	s.cert = mine
	s.client()
	s.send(1)
}

func csrOf(t testing.TB, s *site) []byte {
	t.Helper()
	req, err := s.keys.RenewRequest(s.reg.Collector, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := keys.OpenRenew(req, s.keys.Batch().Public())
	if err != nil {
		t.Fatal(err)
	}
	return []byte(r.CSR)
}
