package send

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
)

// hostile is a server that holds the hub's TLS key and answers as the test says: the collector must believe nothing else of it.
func hostile(t *testing.T) (c *Client, ring *keys.Ring, answer *http.HandlerFunc) {
	t.Helper()
	dir := t.TempDir()
	now := time.Now()
	trust, err := keys.CreateScheme(keys.SchemeOptions{Dir: filepath.Join(dir, "keys"), Offline: filepath.Join(dir, "offline"), Name: "Test", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if ring, err = keys.Open(filepath.Join(dir, "keys"), keys.HubTLS, keys.CollectorCA, keys.Receipts); err != nil {
		t.Fatal(err)
	}
	cert, err := ring.HubCertificate([]string{"127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	var h http.HandlerFunc
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(w, r) }))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	srv.StartTLS()
	t.Cleanup(srv.Close)

	k, err := keys.CreateCollector(filepath.Join(dir, "c"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SaveTrust(trust); err != nil {
		t.Fatal(err)
	}
	req, err := k.EnrolRequest([16]byte{}, "c", "v")
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := keys.OpenEnrol(req)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ring.CA()
	if err != nil {
		t.Fatal(err)
	}
	pem, _, err := ca.Issue([]byte(e.CSR), id, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SaveCertificate(pem); err != nil {
		t.Fatal(err)
	}
	if c, err = New(Options{Address: srv.Listener.Addr().String(), Collector: id, Version: "v", Keys: k, Timeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, ring, &h
}

const id = "01a203bc-fba0-74ea-837c-9c1716764469"

func TestSubmitBelievesOnlyItsReceipt(t *testing.T) {
	c, ring, answer := hostile(t)
	stream := batch.Stream{Collector: id, Tenant: 7, Lane: batch.Live, Epoch: strings.Repeat("ab", 16)}
	w := batch.NewWriter()
	sealed, err := w.Seal(batch.Manifest{Stream: stream, Seq: 3, Prev: [32]byte{1}, Created: time.Now()}, c.o.Keys.Batch())
	if err != nil {
		t.Fatal(err)
	}
	sub := sealed.Submission()
	receipts, err := ring.Signer(keys.Receipts)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, _ := ed25519.GenerateKey(nil)
	good := batch.Receipt{Stream: stream.ID(), Seq: 3, Digest: sha256.Sum256(sealed.Envelope), HubTime: time.Now()}
	ack := func(r batch.Receipt, s batch.Signer, interval int) []byte {
		env, err := batch.SignReceipt(r, s)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(batch.Ack{Receipt: env, NextIntervalMS: interval, HubTime: time.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	seq, digest, str := good, good, good
	seq.Seq, digest.Digest, str.Stream = 4, [32]byte{1}, [16]byte{1}
	for _, x := range []struct {
		name   string
		status int
		body   []byte
		want   func(Ack, error) bool
	}{
		{"good", 200, ack(good, receipts, 700), func(a Ack, err error) bool {
			return err == nil && a.Receipt.Seq == 3 && a.Interval == 700*time.Millisecond && a.Offset > 50*time.Second && a.Offset < 70*time.Second
		}},
		{"too fast a pace", 200, ack(good, receipts, 1), func(a Ack, err error) bool { return err == nil && a.Interval == MinInterval }},
		{"too slow a pace", 200, ack(good, receipts, 1e9), func(a Ack, err error) bool { return err == nil && a.Interval == MaxInterval }},
		{"another sequence", 200, ack(seq, receipts, 700), func(_ Ack, err error) bool { return errors.Is(err, ErrWrongReceipt) }},
		{"another batch", 200, ack(digest, receipts, 700), func(_ Ack, err error) bool { return errors.Is(err, ErrWrongReceipt) }},
		{"another stream", 200, ack(str, receipts, 700), func(_ Ack, err error) bool { return errors.Is(err, ErrWrongReceipt) }},
		{"another key", 200, ack(good, keys.NewSigner(otherKey), 700), func(_ Ack, err error) bool { return errors.Is(err, keys.ErrSignature) }},
		{"no receipt", 200, []byte(`{"next_interval_ms":1000}`), func(_ Ack, err error) bool { return err != nil }},
		{"not JSON", 200, []byte(`<html>`), func(_ Ack, err error) bool { return err != nil && CodeOf(err) == "" }},
		{"endless", 200, make([]byte, 2<<20), func(_ Ack, err error) bool { return err != nil }},
		{"redirect", 302, nil, func(_ Ack, err error) bool { var p *Problem; return errors.As(err, &p) && p.Status == 302 }},
		{"busy", 503, []byte(`{"code":"busy","title":"The hub is busy.","detail":"It cannot take more now.","next":"Nothing to do.","retry_after_ms":4000}`), func(_ Ack, err error) bool {
			var p *Problem
			return errors.As(err, &p) && p.Temporary() && p.After() == 4*time.Second && p.Error() == "The hub is busy. It cannot take more now. Nothing to do."
		}},
		{"plain error", 500, []byte("boom"), func(_ Ack, err error) bool {
			var p *Problem
			return errors.As(err, &p) && p.Temporary() && strings.Contains(p.Error(), "500")
		}},
	} {
		*answer = func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Location", "/elsewhere")
			rw.WriteHeader(x.status)
			rw.Write(x.body)
		}
		if a, err := c.Submit(t.Context(), stream, 3, sub); !x.want(a, err) {
			t.Errorf("%s: %+v %v", x.name, a, err)
		}
	}
}

func TestHeadsAndDirectives(t *testing.T) {
	c, _, answer := hostile(t)
	*answer = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"streams":[{"lane":"live","digest":"zz"}]}`)
	}
	if _, err := c.Heads(t.Context()); err == nil {
		t.Error("a digest that is none was taken")
	}
	*answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"5"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"5"`)
		fmt.Fprint(w, "envelope")
	}
	env, tag, changed, err := c.Directive(t.Context(), "/v1/indicators", "")
	if err != nil || !changed || string(env) != "envelope" || tag != `"5"` {
		t.Errorf("%q %q %v %v", env, tag, changed, err)
	}
	if _, _, changed, err := c.Directive(t.Context(), "/v1/indicators", tag); changed || err != nil {
		t.Errorf("unchanged: %v %v", changed, err)
	}
}

// The hub awaits a test from when it hands out its number: only who sends the test asks.
func TestSelfAsksForNoTest(t *testing.T) {
	c, _, answer := hostile(t)
	for _, test := range []bool{false, true} {
		*answer = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/self" || r.URL.Query().Has("daily") != test {
				t.Errorf("asked for a test: %v: %s", test, r.URL)
			}
			fmt.Fprint(w, "{}")
		}
		if _, err := c.Self(t.Context(), test); err != nil {
			t.Error(err)
		}
	}
}

// Full jitter: every wait between nothing and the span, which doubles up to the longest.
func TestBackoff(t *testing.T) {
	for attempt := -1; attempt < 70; attempt++ {
		span := time.Minute
		if attempt < 7 {
			span = min(500*time.Millisecond<<max(attempt, 0), span)
		}
		longest := time.Duration(0)
		for range 300 {
			d := Backoff(attempt, 0, time.Minute)
			if d < 0 || d > span {
				t.Fatalf("attempt %d: %v of %v", attempt, d, span)
			}
			longest = max(longest, d)
			if d := Backoff(attempt, 10*time.Second, time.Minute); d < 10*time.Second || d > 25*time.Second {
				t.Fatalf("attempt %d, asked for 10 s: %v", attempt, d)
			}
		}
		if longest < span/2 {
			t.Errorf("attempt %d: never more than %v of %v", attempt, longest, span)
		}
	}
}
