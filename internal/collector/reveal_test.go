package collector

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/keys"
)

// Pseudonyms leave, and the member turns them back: IPv4 from the ranges, IPv6 and users from the archive. Without the member's key nothing
// comes back.
func TestReveal(t *testing.T) {
	c := DefaultConfig()
	c.Dir = t.TempDir()
	c.OwnRanges = []string{"198.51.100.0/24", "192.0.2.128/25", "2001:db8:1::/48", "2001:db8:7::/48"}
	c.Policy.Pseudonyms = []string{"addresses", "users"}
	if _, err := Reveal(t.Context(), &c, []string{"user-0123456789ab"}); !errors.Is(err, keys.ErrNotEnrolled) {
		t.Fatalf("without keys: %v", err)
	}
	if _, err := keys.CreateCollector(c.KeyDir()); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(archive.Options{Dir: c.path("archive")})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Minimiser()
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(&c, m, nil, archive.Secret{}, a)
	if err != nil {
		t.Fatal(err)
	}
	stamp := time.Now().UTC().Format(time.Stamp)
	var b archive.Batch
	hidden := []string{"198.51.100.77", "192.0.2.200", "2001:db8:1::99", "2001:db8:7:5::1", "ann.smith"}
	for i, own := range hidden[:4] {
		l := fmt.Sprintf("<4>%s gw kernel: [UFW BLOCK] IN=eth0 OUT= MAC=aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:08:00 SRC=203.0.113.5 DST=%s LEN=60 PROTO=TCP SPT=4000 DPT=%d", stamp, own, 20+i)
		b.Add(&archive.Line{Created: time.Now().UnixNano(), Sender: netip.MustParseAddr("10.0.0.1"), Text: []byte(l)})
	}
	b.Add(&archive.Line{Created: time.Now().UnixNano(), Sender: netip.MustParseAddr("10.0.0.1"), Text: []byte("<38>" + stamp + " gw sshd[1]: Failed password for ann.smith from 203.0.113.9 port 4711 ssh2")})
	if err := a.Append(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	r := a.Reader(a.Start())
	var l archive.Line
	for r.Next(&l) == nil {
		p.line(&l, full)
	}
	r.Close()
	left := string(p.frames)
	for _, h := range hidden {
		if strings.Contains(left, h) {
			t.Errorf("%s left", h)
		}
	}
	var asked []string
	for _, h := range hidden {
		want := m.PseudonymUser(h)
		if addr, err := netip.ParseAddr(h); err == nil {
			want = m.PseudonymIP(addr).String()
		}
		if !strings.Contains(left, want) {
			t.Errorf("%s did not leave as %s", h, want)
		}
		asked = append(asked, want)
	}
	got, err := Reveal(t.Context(), &c, asked)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if !r.Found || r.Value != hidden[i] || (r.How == "ranges") != (i < 2) {
			t.Errorf("%s: %+v", hidden[i], r)
		}
	}
	if _, err := Reveal(t.Context(), &c, []string{"10.0.0.1"}); !errors.Is(err, ErrPseudonym) {
		t.Errorf("an address: %v", err)
	}
	// Another key, as a thief of the hub's data would have to guess it.
	if err := os.Remove(c.path("keys/pseudonyms.secret")); err != nil {
		t.Fatal(err)
	}
	c.OwnRanges = nil // so that the ranges are tried in short
	other, err := Reveal(t.Context(), &c, asked[4:])
	if err != nil || other[0].Found {
		t.Errorf("with another key: %+v %v", other, err)
	}
}
