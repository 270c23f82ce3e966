package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
)

// The record and the hub's statement: what is missing at the hub, or too much there, is named.
func TestReconcileNamesTheDifference(t *testing.T) {
	t.Parallel()
	_, s, r, c := begin(t, "Bank")
	for i := range 200 {
		fmt.Fprintf(c, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
	}
	r.settled(200)
	ctx := context.Background()
	rec, err := collector.Reconcile(ctx, &s.cfg, "test")
	if err != nil || !rec.Match || rec.Events != [2]uint64{200, 200} {
		t.Fatalf("%+v %v", rec, err)
	}
	r.end()
	// A record that has lost its batches is found to be that.
	copied := filepath.Join(t.TempDir(), "c")
	copyDir(t, s.cfg.Dir, copied)
	if err := os.RemoveAll(filepath.Join(copied, "batches")); err != nil {
		t.Fatal(err)
	}
	other := s.cfg
	other.Dir = copied
	rec, err = collector.Reconcile(ctx, &other, "test")
	if err != nil || rec.Match {
		t.Errorf("a record without batches agrees: %+v %v", rec, err)
	}
}

// Troubleshooting: raw lines leave only while the member lets them, and say until when they may be kept.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "Estate")
	line := func(i int) { fmt.Fprintf(c, "%s SECRET%d\n", traffic("accept", "10.0.0.5", "203.0.113.201", i), i) }
	line(0)
	r.settled(1)
	ctx := context.Background()
	if err := collector.Troubleshoot(ctx, &s.cfg, 48*time.Hour, netip.Addr{}); err == nil {
		t.Error("for two days")
	}
	if err := collector.Troubleshoot(ctx, &s.cfg, time.Hour, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	line(1)
	line(2)
	st := r.settled(3)
	if st.Raw == nil || st.Raw.Lines != 2 || !strings.Contains(s.logs.String(), "RAW LINES LEAVE") {
		t.Errorf("%+v", st.Raw)
	}
	if err := collector.Troubleshoot(ctx, &s.cfg, 0, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	line(3)
	r.settled(4)
	k := h.take(s.id)
	all := strings.Join(k.raw, "\n")
	if k.lanes[batch.Raw] != 2 || strings.Contains(all, "SECRET0") || !strings.Contains(all, "SECRET1") || !strings.Contains(all, "SECRET2") || strings.Contains(all, "SECRET3") || strings.Count(all, "tocsin.expires") != 2 {
		t.Errorf("lanes %v:\n%s", k.lanes, all)
	}
	if k.counts["made.raw"] != 2 || k.counts["kept.allowed"] != 4 {
		t.Errorf("%v", k.counts)
	}
	if rec, err := collector.Reconcile(ctx, &s.cfg, "test"); err != nil || !rec.Match {
		t.Errorf("%+v %v", rec, err)
	}
}

// The local page: for those with the secret, under a literal loopback name, reading only.
func TestPage(t *testing.T) {
	t.Parallel()
	_, s, r, c := begin(t, "Farm <b>shop</b>")
	for i := range 20 {
		fmt.Fprintf(c, "%s\n", traffic([]string{"deny", "accept"}[i%2], "203.0.113.5", "198.51.100.7", i))
	}
	fmt.Fprintf(c, "<script>alert(1)</script> what is this from 203.0.113.9:99\n")
	r.settled(21)
	st := r.until("the centre knows it", func(st *collector.Status) bool { return st.State == "quarantined" })
	url, err := collector.FetchPage(context.Background(), &s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	base, _, _ := strings.Cut(url, "?")
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar}
	get := func(client *http.Client, url, host, method string) (int, string, http.Header) {
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Header
	}
	if code, _, _ := get(http.DefaultClient, base, "", "GET"); code != http.StatusUnauthorized {
		t.Errorf("without the secret: %d", code)
	}
	if code, _, _ := get(http.DefaultClient, base+"?key=00000000000000000000000000000000", "", "GET"); code != http.StatusUnauthorized {
		t.Errorf("with another secret: %d", code)
	}
	for _, host := range []string{"evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil.example"} {
		if code, body, _ := get(http.DefaultClient, url, host, "GET"); code != http.StatusForbidden || strings.Contains(body, "Farm") {
			t.Errorf("as %s: %d", host, code)
		}
	}
	code, body, header := get(client, url, "", "GET")
	if code != 200 {
		t.Fatalf("signed in: %d %s", code, body)
	}
	for _, want := range []string{"One last step: compare these words", st.CheckWords[0], "Farm &lt;b&gt;shop", "kept.allowed", "left.denied_inbound", "We do not understand these yet", "&lt;script&gt;alert(1)", "203.0.113.9:99", "policy"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing on the page", want)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "<b>shop") {
		t.Error("what a sender writes is markup")
	}
	csp := header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", header)
	}
	if code, _, _ := get(client, base, "", "POST"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	// The name is one of this machine's; the cookie is another name's.
	if code, _, _ = get(client, base+"sent", "localhost:1", "GET"); code != http.StatusUnauthorized {
		t.Errorf("as localhost: %d", code)
	}
	if code, body, _ = get(client, base+"sent", "", "GET"); code != 200 || !strings.Contains(body, "/sent?batch=") {
		t.Fatalf("what left: %d %s", code, body)
	}
	_, rest, _ := strings.Cut(body, "/sent?batch=")
	digest, _, _ := strings.Cut(rest, `"`)
	if code, body, _ = get(client, base+"sent?batch="+digest, "", "GET"); code != 200 || !strings.Contains(body, "Byte for byte") {
		t.Errorf("a batch: %d %s", code, body)
	}
}
