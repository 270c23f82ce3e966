package intel

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

var (
	analyst  = access.Principal{UserID: "a", Role: access.Analyst}
	somebody = access.Principal{UserID: "m", Role: access.Member, Tenant: 3}
	begin    = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func open(t testing.TB) (*Store, *clock, ed25519.PublicKey) {
	t.Helper()
	d, err := db.Open(context.Background(), db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	c := &clock{begin}
	return New(d, Options{Signer: keys.NewSigner(key), Now: c.now}), c, key.Public().(ed25519.PublicKey)
}

func (s *Store) must(t testing.TB, list string, o ImportOptions) ImportResult {
	t.Helper()
	res, err := s.Import(context.Background(), analyst, strings.NewReader(list), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// content opens the directive in force as a collector does, but for the trust list, which package keys tests.
func content(t testing.TB, s *Store, pub ed25519.PublicKey) (uint64, *indicator.Set) {
	t.Helper()
	env, _ := s.Current()
	payload, err := keys.OpenEnvelope(env, keys.DirectiveType, pub)
	if err != nil {
		t.Fatal(err)
	}
	var d keys.Directive
	if err := json.Unmarshal(payload, &d); err != nil {
		t.Fatal(err)
	}
	set, err := indicator.Open(d.Content)
	if err != nil {
		t.Fatal(err)
	}
	return d.Version, set
}

func TestImportPlain(t *testing.T) {
	s, _, _ := open(t)
	res := s.must(t, "\ufeff203.0.113.9 # seen in bulletin 7\n\n# only a remark\nEVIL.example\tphishing\n198.51.100.0/24\nnot an indicator!\n203.0.113.9\n0.0.0.0/0\nco.uk\nhttp://evil.example/a\n\xff\xfe\n", ImportOptions{Source: "bulletin 7", TLP: "green", Push: true})
	if res.Added != 4 || res.Updated != 0 || res.RefusedCount != 4 || len(res.Refused) != 4 {
		t.Fatalf("got %+v", res)
	}
	for i, line := range []int{6, 8, 9, 11} {
		if res.Refused[i].Line != line || res.Refused[i].Why == "" {
			t.Errorf("refusal %d: %+v, want line %d with a reason", i, res.Refused[i], line)
		}
	}
	p, err := s.List(t.Context(), access.System("test"), Filter{Text: "evil"})
	if err != nil || len(p.Indicators) != 2 || p.Total != 4 || p.Pushed != 4 {
		t.Fatalf("list: %+v, %v", p, err)
	}
	if p, err = s.List(t.Context(), access.System("test"), Filter{Kind: "cidr"}); err != nil || len(p.Indicators) != 1 || p.Indicators[0].Value != "198.51.100.0/24" {
		t.Errorf("networks: %+v, %v", p.Indicators, err)
	}
	if p, err = s.List(t.Context(), access.System("test"), Filter{Text: "bulletin 7", Kind: "ip"}); err != nil || len(p.Indicators) != 1 || p.Indicators[0].Note != "seen in bulletin 7" {
		t.Errorf("address: %+v, %v", p.Indicators, err)
	}
	if res = s.must(t, "evil.example\nnew.example", ImportOptions{Source: "bulletin 7", TLP: "red", Push: true}); res.Added != 1 || res.Updated != 1 || res.NotPushed != 2 {
		t.Errorf("second list: %+v", res)
	}
}

func TestImportCSV(t *testing.T) {
	s, _, _ := open(t)
	res := s.must(t, "type,value,tlp,confidence,description\nipv4-addr,203.0.113.9,TLP:GREEN,90,scanner\ndomain,evil.example,amber+strict,,\nsha256,"+strings.Repeat("ab", 32)+",white,,\nip,evil.example,,,\nip,203.0.113.10,purple,,\nip,203.0.113.11,,150,\nip,,,,\nip,\"203\n", ImportOptions{Source: "feed", Push: true})
	if res.Added != 3 || res.RefusedCount != 5 || res.NotPushed != 1 {
		t.Fatalf("got %+v", res)
	}
	p, err := s.List(t.Context(), access.System("test"), Filter{Kind: "ip"})
	if err != nil || len(p.Indicators) != 1 || p.Indicators[0].Confidence != 90 || p.Indicators[0].TLP != "green" || p.Indicators[0].Note != "scanner" {
		t.Errorf("got %+v, %v", p.Indicators, err)
	}
}

func TestRefusals(t *testing.T) {
	s, _, _ := open(t)
	for name, try := range map[string]func() error{
		"a member's person imports": func() error {
			_, err := s.Import(t.Context(), somebody, strings.NewReader("203.0.113.9"), ImportOptions{Source: "x"})
			return err
		},
		"a member's person lists":   func() error { _, err := s.List(t.Context(), access.Only(3), Filter{}); return err },
		"a member's person removes": func() error { return s.Remove(t.Context(), somebody, "x") },
		"no source": func() error {
			_, err := s.Import(t.Context(), analyst, strings.NewReader("203.0.113.9"), ImportOptions{})
			return err
		},
		"unknown TLP": func() error {
			_, err := s.Import(t.Context(), analyst, strings.NewReader("203.0.113.9"), ImportOptions{Source: "x", TLP: "purple"})
			return err
		},
		"nothing in it": func() error {
			_, err := s.Import(t.Context(), analyst, strings.NewReader("\n# x\n"), ImportOptions{Source: "x"})
			return err
		},
		"expired": func() error {
			_, err := s.Import(t.Context(), analyst, strings.NewReader("203.0.113.9"), ImportOptions{Source: "x", ValidUntil: begin})
			return err
		},
		"one endless line": func() error {
			_, err := s.Import(t.Context(), analyst, strings.NewReader(strings.Repeat("x", 1<<17)), ImportOptions{Source: "x"})
			return err
		},
		"unknown cursor": func() error { _, err := s.List(t.Context(), access.System("t"), Filter{After: "!"}); return err },
		"unknown id":     func() error { return s.Remove(t.Context(), analyst, "nothing") },
	} {
		if err := try(); !errors.Is(err, ErrInvalid) && !errors.Is(err, access.ErrDenied) && !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPublish(t *testing.T) {
	s, c, pub := open(t)
	if env, tag := s.Current(); env != nil || tag != "" {
		t.Error("something is in force before anything was published")
	}
	s.must(t, "203.0.113.9\nevil.example\n", ImportOptions{Source: "open", TLP: "green", Push: true, ValidUntil: begin.Add(time.Hour)})
	s.must(t, "203.0.113.66\n", ImportOptions{Source: "secret", TLP: "red", Push: true})
	s.must(t, "203.0.113.77\n", ImportOptions{Source: "live case", TLP: "green"})
	publish := func() {
		t.Helper()
		if err := s.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	v, set := content(t, s, pub)
	if v != 1 || set.Len(0) != 2 {
		t.Fatalf("version %d with %d entries, want 1 with 2", v, set.Len(0))
	}
	for addr, want := range map[string]bool{"203.0.113.9": true, "203.0.113.66": false, "203.0.113.77": false} {
		if _, got := set.MatchIP(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s in the pushed set: %v", addr, got)
		}
	}

	// The hub matches what is not pushed too, and finds the indicator again by the number of the hit.
	for addr, source := range map[string]string{"203.0.113.9": "open", "203.0.113.66": "secret"} {
		var e event.Event
		e.SetIP(event.DestinationIP, netip.MustParseAddr(addr))
		if !s.Match(&e) {
			t.Fatalf("%s is not matched at the hub", addr)
		}
		hash, err := strconv.ParseUint(e.Str(event.TocsinIndicatorID), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.Resolve(t.Context(), e.Str(event.TocsinIndicatorKind), hash)
		if err != nil || len(found) != 1 || found[0].Source != source {
			t.Errorf("%s resolved to %+v, %v", addr, found, err)
		}
		if err := s.Seen(t.Context(), map[Hit]Count{{e.Str(event.TocsinIndicatorKind), hash}: {3, 42}}); err != nil {
			t.Fatal(err)
		}
		if found, err = s.Resolve(t.Context(), e.Str(event.TocsinIndicatorKind), hash); err != nil || found[0].Hits != 3 || found[0].LastHitNS != 42 {
			t.Errorf("hits: %+v, %v", found, err)
		}
		// Its confidence may be told unless its marking forbids that.
		hit, want := fmt.Sprintf("%s:%016x", found[0].Kind, hash), found[0].Confidence
		if !mayPush(found[0].TLP) {
			want = 0
		}
		if err := s.db.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
			got, err := s.Confidence(ctx, tx, []string{hit, "nonsense", "ip:xyz", "ip:0000000000000000"})
			if err == nil && (got[hit] != want || len(got) > 1) {
				t.Errorf("%s, marked %s: confidence %v, want %d", addr, found[0].TLP, got, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	var miss event.Event
	miss.SetIP(event.SourceIP, netip.MustParseAddr("203.0.113.1"))
	miss.SetString(event.URLDomain, "good.example")
	if s.Match(&miss) || miss.Has(event.TocsinIndicatorID) {
		t.Error("matched what is on no list")
	}

	// Nothing changed: nothing new, also for another process that opens the same database.
	publish()
	s2 := New(s.db, s.o)
	if err := s2.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, _ := content(t, s2, pub); v != 1 {
		t.Errorf("version %d without a change", v)
	}
	// Another key: signed anew.
	rotated := ed25519.NewKeyFromSeed([]byte("a seed that has thirty-two bytes"))
	o := s.o
	o.Signer = keys.NewSigner(rotated)
	s3 := New(s.db, o)
	if err := s3.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, _ := content(t, s3, rotated.Public().(ed25519.PublicKey)); v != 2 {
		t.Errorf("version %d after the key was changed, want 2", v)
	}
	// Half its life over: signed anew under the next version.
	c.t = begin.Add(8 * 24 * time.Hour)
	s.must(t, "203.0.113.9\n", ImportOptions{Source: "open", TLP: "green", Push: true})
	publish()
	if v, set := content(t, s, pub); v != 3 || set.Len(0) != 1 { // evil.example has expired
		t.Errorf("version %d with %d entries, want 3 with 1", v, set.Len(0))
	}
	p, err := s.List(t.Context(), access.System("test"), Filter{Text: "203.0.113.9"})
	if err != nil || len(p.Indicators) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := s.Remove(t.Context(), analyst, p.Indicators[0].ID); err != nil {
		t.Fatal(err)
	}
	publish()
	if v, set := content(t, s, pub); v != 4 || set.Len(0) != 0 {
		t.Errorf("version %d with %d entries, want 4 with none", v, set.Len(0))
	}
}

func TestPages(t *testing.T) {
	s, _, _ := open(t)
	var b strings.Builder
	for i := range 250 {
		fmt.Fprintf(&b, "203.0.113.%d\n", i)
	}
	s.must(t, b.String(), ImportOptions{Source: "x"})
	seen := map[string]bool{}
	f := Filter{Limit: 100}
	for n := 0; n < 5; n++ {
		p, err := s.List(t.Context(), access.System("test"), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Indicators {
			if seen[i.ID] {
				t.Fatalf("%s twice", i.Value)
			}
			seen[i.ID] = true
		}
		if f.After = p.Next; f.After == "" {
			break
		}
	}
	if len(seen) != 250 {
		t.Errorf("%d of 250 listed", len(seen))
	}
}

func TestRunPublishesAfterAChange(t *testing.T) {
	s, _, pub := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.must(t, "203.0.113.9\n", ImportOptions{Source: "x", TLP: "green", Push: true})
	for {
		if env, _ := s.Current(); env != nil {
			if _, set := content(t, s, pub); set.Len(0) == 1 {
				break
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("never published")
		case <-time.After(10 * time.Millisecond): // a poll, bounded by ctx
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add("203.0.113.9 # x\nevil.example")
	f.Add("value,type\n203.0.113.9,ip\n\"")
	f.Fuzz(func(t *testing.T, list string) {
		var res ImportResult
		items, err := readList(strings.NewReader(list), ImportOptions{Source: "x", TLP: "green", Push: true}, &res)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		for _, it := range items {
			k, v, err := indicator.Canonical(it.kind, it.value)
			if err != nil || k != it.kind || v != it.value {
				t.Fatalf("%v %q is not canonical: %v %q %v", it.kind, it.value, k, v, err)
			}
		}
	})
}

// TestPublishDespiteOneBad: an indicator that an earlier program took and this one refuses stays behind; the others are published.
func TestPublishDespiteOneBad(t *testing.T) {
	s, _, pub := open(t)
	s.must(t, "203.0.113.9\n203.0.113.10\n", ImportOptions{Source: "old", TLP: "green", Push: true})
	err := s.db.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("UPDATE indicators SET value = '100.64.0.1' WHERE value = '203.0.113.10'").Exec(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, set := content(t, s, pub); set.Len(0) != 1 {
		t.Errorf("%d indicators in the set, want 1", set.Len(0))
	}
}
