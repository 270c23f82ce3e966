package member

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var national = access.System("test")

func newStore(t testing.TB) (*Store, *clock) {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	c := &clock{t: time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)}
	return New(d, Options{Address: "hub.example:8443", Root: [32]byte{1}, Now: c.now}), c
}

func organisation(t testing.TB, s *Store, name string) (Organisation, Site) {
	t.Helper()
	o, err := s.AddOrganisation(t.Context(), "test", Organisation{Name: name, Sector: "education"})
	if err != nil {
		t.Fatal(err)
	}
	site, err := s.FindSite(t.Context(), national, o.ID, "")
	if err != nil {
		t.Fatal(err)
	}
	return o, site
}

func enrolment(n byte, secret []byte) Enrolment {
	seed := sha256.Sum256([]byte{n})
	key := ed25519.NewKeyFromSeed(seed[:])
	return Enrolment{Secret: secret, BatchKey: key.Public().(ed25519.PublicKey), TLSKey: [32]byte{n}, Words: [4]string{"apple", "river", "stone", fmt.Sprintf("w%c", 'a'+n)}, Name: "fw-log-1", Version: "0.1"}
}

func issuer(c *clock) Issue {
	return func(id string) ([]byte, time.Time, error) {
		return []byte("cert " + id), c.now().Add(72 * time.Hour), nil
	}
}

func enrol(t testing.TB, s *Store, c *clock, site Site, n byte) Registration {
	t.Helper()
	k, _, err := s.MakeToken(t.Context(), national, "test", site.ID)
	if err != nil {
		t.Fatal(err)
	}
	r, cert, _, err := s.Redeem(t.Context(), enrolment(n, k.Secret[:]), issuer(c))
	if err != nil || string(cert) != "cert "+r.ID {
		t.Fatalf("%v, %q", err, cert)
	}
	return r
}

func TestOrganisations(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	a, site := organisation(t, s, "Ashgrove School")
	b, _ := organisation(t, s, "Brindle Engineering")
	if a.ID == 0 || a.ID == b.ID || site.Name != "Main site" || a.Policy != "metadata" {
		t.Fatalf("%+v %+v", a, site)
	}
	if _, err := s.AddOrganisation(ctx, "test", Organisation{Name: "ashgrove school"}); !errors.Is(err, ErrExists) {
		t.Errorf("same name: %v", err)
	}
	for _, bad := range []Organisation{{}, {Name: "x"}, {Name: "ok", ContactEmail: "nobody"}, {Name: "a\nb"}, {Name: "\xff\xfe"}, {Name: "ok", Policy: "everything"}, {Name: strings.Repeat("x", 200)}} {
		if _, err := s.AddOrganisation(ctx, "test", bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := s.AddSite(ctx, access.Only(b.ID), "x", a.ID, "Annexe"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a site at another member: %v", err)
	}
	if _, err := s.AddSite(ctx, access.Only(a.ID), "x", a.ID, "Annexe"); err != nil {
		t.Error(err)
	}
	if _, err := s.AddSite(ctx, access.Only(a.ID), "x", a.ID, "annexe"); !errors.Is(err, ErrExists) {
		t.Errorf("same site: %v", err)
	}
	for _, tc := range []struct {
		scope access.Scope
		want  int
	}{{national, 2}, {access.Only(a.ID), 1}, {access.Only(99), 0}, {access.Scope{}, 0}, {national.Narrow(a.ID, b.ID), 2}} {
		if got, err := s.Organisations(ctx, tc.scope); err != nil || len(got) != tc.want {
			t.Errorf("%v: %d organisations, %v; want %d", tc.scope, len(got), err, tc.want)
		}
	}
	if _, err := s.Organisation(ctx, access.Only(b.ID), a.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("another member's organisation: %v", err)
	}
	if o, err := s.FindOrganisation(ctx, national, "ASHGROVE school"); err != nil || o.ID != a.ID {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := s.FindOrganisation(ctx, national, fmt.Sprint(b.ID)); err != nil || o.ID != b.ID {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestTokenLife(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	a, site := organisation(t, s, "Ashgrove School")
	if _, _, err := s.MakeToken(ctx, access.Only(a.ID+1), "x", site.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("a token for another member's site: %v", err)
	}
	k, until, err := s.MakeToken(ctx, access.Only(a.ID), "head", site.ID)
	if err != nil || until != c.now().Add(24*time.Hour) || k.Address != "hub.example:8443" {
		t.Fatalf("%+v, %v, %v", k, until, err)
	}
	var stored string
	if err := s.db.Read().NewRaw("SELECT hex(secret_hash) || quote(id) FROM tokens").Scan(ctx, &stored); err != nil || strings.Contains(stored, fmt.Sprintf("%X", k.Secret)) {
		t.Errorf("the secret is in the database: %s, %v", stored, err)
	}
	if _, _, _, err := s.Redeem(ctx, enrolment(1, make([]byte, 16)), issuer(c)); !errors.Is(err, ErrToken) {
		t.Errorf("unknown secret: %v", err)
	}
	if _, _, _, err := s.Redeem(ctx, enrolment(1, nil), issuer(c)); !errors.Is(err, ErrToken) {
		t.Errorf("no secret: %v", err)
	}
	// The certificate cannot be issued: the token is not used up.
	boom := errors.New("no key")
	if _, _, _, err := s.Redeem(ctx, enrolment(1, k.Secret[:]), func(string) ([]byte, time.Time, error) { return nil, time.Time{}, boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	// Twenty at once with different keys: one wins.
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won []Registration
	for i := range byte(20) {
		wg.Go(func() {
			r, _, _, err := s.Redeem(ctx, enrolment(i, k.Secret[:]), issuer(c))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, r)
			} else if !errors.Is(err, ErrToken) {
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 || won[0].State != Quarantined || won[0].Tenant != a.ID || won[0].Site != "Main site" {
		t.Fatalf("%d winners: %+v", len(won), won)
	}
	if list, err := s.Tokens(ctx, national); err != nil || len(list) != 0 {
		t.Errorf("a used token is listed: %v, %v", list, err)
	}
	// The winner lost the answer and asks again.
	for i := range byte(20) {
		e := enrolment(i, k.Secret[:])
		r, _, _, err := s.Redeem(ctx, e, issuer(c))
		if same := slices.Equal(e.BatchKey, won[0].BatchKey); same != (err == nil) || same && r.ID != won[0].ID {
			t.Errorf("again %d: %+v, %v", i, r, err)
		}
	}
	// Another token, the same key.
	k2, _, err := s.MakeToken(ctx, access.Only(a.ID), "head", site.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i := range byte(20) {
		if e := enrolment(i, k2.Secret[:]); slices.Equal(e.BatchKey, won[0].BatchKey) {
			if _, _, _, err := s.Redeem(ctx, e, issuer(c)); !errors.Is(err, ErrKnownKey) {
				t.Errorf("the same key with a new token: %v", err)
			}
		}
	}
	list, err := s.Tokens(ctx, access.Only(a.ID))
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if err := s.CancelToken(ctx, access.Only(a.ID+1), "x", list[0].ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("another member cancelled it: %v", err)
	}
	if err := s.CancelToken(ctx, access.Only(a.ID), "head", list[0].ID); err != nil {
		t.Error(err)
	}
	if _, _, _, err := s.Redeem(ctx, enrolment(30, k2.Secret[:]), issuer(c)); !errors.Is(err, ErrToken) {
		t.Errorf("cancelled: %v", err)
	}
	k3, _, err := s.MakeToken(ctx, access.Only(a.ID), "head", site.ID)
	if err != nil {
		t.Fatal(err)
	}
	c.add(24 * time.Hour)
	if _, _, _, err := s.Redeem(ctx, enrolment(31, k3.Secret[:]), issuer(c)); !errors.Is(err, ErrExpired) {
		t.Errorf("a day later: %v", err)
	}
}

func TestCheckWords(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	a, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	own := access.Only(a.ID)
	if err := s.ConfirmWords(ctx, access.Only(a.ID+1), "x", r.ID, r.Words); !errors.Is(err, ErrNotFound) {
		t.Errorf("another member confirmed it: %v", err)
	}
	if err := s.ConfirmWords(ctx, own, "head", r.ID, "apple river stone"); !errors.Is(err, ErrWords) {
		t.Errorf("three words: %v", err)
	}
	if err := s.ConfirmWords(ctx, own, "head", r.ID, "  Apple-RIVER, stone  wb\n"); err != nil {
		t.Errorf("as a person types them: %v", err)
	}
	got, err := s.Registration(ctx, r.ID)
	if err != nil || got.State != Live {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := s.ConfirmWords(ctx, own, "head", r.ID, r.Words); err != nil {
		t.Errorf("again: %v", err)
	}
	r2 := enrol(t, s, c, site, 2)
	for range wordTries {
		if err := s.ConfirmWords(ctx, own, "x", r2.ID, "wrong"); !errors.Is(err, ErrWords) {
			t.Fatal(err)
		}
	}
	if err := s.ConfirmWords(ctx, own, "x", r2.ID, r2.Words); !errors.Is(err, ErrWordTries) {
		t.Errorf("after too many tries: %v", err)
	}
}

func TestAuthenticateRenewRevoke(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	a, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	if _, err := s.Authenticate(ctx, r.ID, [32]byte{1}); err != nil {
		t.Error(err)
	}
	if _, err := s.Authenticate(ctx, r.ID, [32]byte{9}); !errors.Is(err, ErrRetired) {
		t.Errorf("a key never issued: %v", err)
	}
	if _, err := s.Authenticate(ctx, "nobody", [32]byte{1}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
	c.add(100 * time.Hour) // the certificate has expired
	if _, _, _, err := s.Renew(ctx, r.ID, [32]byte{2}, 100, "0.2", issuer(c)); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.Renew(ctx, r.ID, [32]byte{2}, 100, "0.2", issuer(c)); err != nil {
		t.Errorf("the same renewal again: %v", err)
	}
	if _, _, _, err := s.Renew(ctx, r.ID, [32]byte{3}, 100, "0.2", issuer(c)); !errors.Is(err, ErrReplay) {
		t.Errorf("same counter, other key: %v", err)
	}
	if _, _, _, err := s.Renew(ctx, r.ID, [32]byte{1}, 99, "0.2", issuer(c)); !errors.Is(err, ErrReplay) {
		t.Errorf("an old renewal: %v", err)
	}
	r2 := enrol(t, s, c, site, 5)
	if _, _, _, err := s.Renew(ctx, r2.ID, [32]byte{2}, 1, "0.2", issuer(c)); !errors.Is(err, ErrKnownKey) {
		t.Errorf("another collector's TLS key: %v", err)
	}
	for _, key := range []byte{1, 2} {
		if _, err := s.Authenticate(ctx, r.ID, [32]byte{key}); err != nil {
			t.Errorf("key %d: %v", key, err)
		}
	}
	if err := s.Revoke(ctx, access.Only(a.ID+1), "x", r.ID, "not mine"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another member revoked it: %v", err)
	}
	if err := s.Revoke(ctx, access.Only(a.ID), "head", r.ID, ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("no reason: %v", err)
	}
	if err := s.Revoke(ctx, access.Only(a.ID), "head", r.ID, "stolen"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(ctx, r.ID, [32]byte{2}); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	if _, _, _, err := s.Renew(ctx, r.ID, [32]byte{4}, 1000, "0.2", issuer(c)); !errors.Is(err, ErrRevoked) {
		t.Errorf("renewing a revoked one: %v", err)
	}
	if err := s.ConfirmWords(ctx, national, "x", r.ID, r.Words); !errors.Is(err, ErrRevoked) {
		t.Errorf("confirming a revoked one: %v", err)
	}
	log, err := s.Log(ctx, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for i, e := range log {
		kinds = append(kinds, e.Kind)
		if e.Seq != int64(i+1) || e.Tenant != a.ID {
			t.Errorf("%+v", e)
		}
	}
	if bytes.Equal(log[0].Body, log[1].Body) || !bytes.Contains(log[2].Body, []byte(`"salt":"`)) {
		t.Errorf("no salt in %s", log[2].Body)
	}
	if !slices.Equal(kinds, []string{"registration", "registration", "revocation"}) {
		t.Errorf("log: %v", kinds)
	}
}

func digest(stream byte, seq uint64, v byte) (d [32]byte) {
	d[0], d[1] = stream, v
	binary.BigEndian.PutUint64(d[8:], seq)
	return d
}

func aBatch(r Registration, stream byte, epoch string, seq uint64, counts map[string]uint64) *Batch {
	b := &Batch{Head: Head{Stream: event.StreamID{stream}, Collector: r.ID, Tenant: r.Tenant, Lane: "live", Epoch: epoch, Seq: seq,
		Digest: digest(stream, seq, 0), Position: fmt.Sprint("p", seq), Receipt: []byte(fmt.Sprint("receipt ", seq)), CreatedNS: 1},
		Events: int(counts["sent"]), Size: 100, Counts: counts}
	if seq > 1 {
		b.Prev = digest(stream, seq-1, 0)
	}
	return b
}

func TestStreams(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	_, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	counts := map[string]uint64{"received": 10, "parsed": 9, "not_understood": 1, "kept.benign": 5, "left.denied": 4, "made.detection": 1, "sent": 5, "Bad Name!": 3, "hub.stored": 99}
	accept := func(b *Batch, want Sequence) Verdict {
		t.Helper()
		j, err := s.Judge(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Accept(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		if j.Sequence != want || v.Sequence != want {
			t.Fatalf("batch %d: judged %d, accepted as %d, want %d", b.Seq, j.Sequence, v.Sequence, want)
		}
		return v
	}
	accept(aBatch(r, 1, "e1", 2, counts), OutOfSequence)
	accept(aBatch(r, 1, "e1", 1, counts), Opening)
	accept(aBatch(r, 1, "e1", 2, counts), Next)
	v := accept(aBatch(r, 1, "e1", 1, counts), Repeat)
	if string(v.Receipt) != "receipt 1" || v.Head.Seq != 2 || v.Head.Position != "p2" {
		t.Errorf("repeat: %+v", v)
	}
	accept(aBatch(r, 1, "e1", 4, counts), OutOfSequence)
	// Another batch 2, and a batch 3 on another past: forks, recorded once.
	fork := aBatch(r, 1, "e1", 2, counts)
	fork.Digest[1] = 7
	if v := accept(fork, Fork); !v.First {
		t.Error("the fork was known before")
	}
	if v := accept(fork, Fork); v.First {
		t.Error("the same fork twice")
	}
	past := aBatch(r, 1, "e1", 3, counts)
	past.Prev[1] = 9
	accept(past, Fork)
	accept(aBatch(r, 1, "e1", 3, counts), Next)
	// A new epoch follows; then the old one goes on: a clone.
	c.add(time.Second)
	if v := accept(aBatch(r, 2, "e2", 1, counts), Opening); v.Clone {
		t.Error("a restore is no clone")
	}
	if v := accept(aBatch(r, 1, "e1", 4, counts), Next); !v.Clone || !v.First {
		t.Errorf("no clone: %+v", v)
	}
	if v := accept(aBatch(r, 1, "e1", 5, counts), Next); !v.Clone || v.First {
		t.Errorf("clone again: %+v", v)
	}
	if v := accept(aBatch(r, 2, "e2", 2, counts), Next); v.Clone {
		t.Error("the newer epoch is called the clone")
	}
	heads, err := s.Heads(ctx, GateReader, r.ID)
	if err != nil || len(heads) != 2 || heads[0].Seq != 5 || heads[1].Seq != 2 || heads[0].Digest != digest(1, 5, 0) || heads[1].Epoch != "e2" {
		t.Errorf("heads %+v, %v", heads, err)
	}
	// Seven batches were accepted; the worker stored 4 of 5 events of each, and replays.
	for range 3 {
		for seq := uint64(1); seq <= 5; seq++ {
			if err := s.AddCounts(ctx, "stored", Counted{Stream: event.StreamID{1}, Collector: r.ID, Tenant: r.Tenant, Seq: seq, Counts: map[string]uint64{"hub.stored": 4, "hub.refused": 1}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.AddCounts(ctx, "stored", Counted{Seq: 1, Counts: map[string]uint64{"A B": 1}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("bad name: %v", err)
	}
	for range 2 {
		if err := s.Refused(ctx, r.ID, "out_of_sequence", 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Refused(ctx, "nobody", "fork", 1); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown collector: %v", err)
	}
	if err := s.Refused(ctx, r.ID, "<b>", 1); !errors.Is(err, ErrInvalid) {
		t.Errorf("bad reason: %v", err)
	}
	got, err := s.Collector(ctx, national, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	b := got.Balance
	if b.TurnedAway["out_of_sequence"] != 6 {
		t.Errorf("turned away %v", b.TurnedAway)
	}
	if b.Received != 70 || b.NotUnderstood != 7 || b.Kept["benign"] != 35 || b.Left["denied"] != 28 || b.Made["detection"] != 7 || b.Sent != 35 || b.Accepted != 35 ||
		b.Stored != 20 || b.Refused != 5 || b.InFlight != 10 || b.Waiting != 0 || b.Gap != 0 || b.Batches != 7 || b.Other["hub.bad_counter"] != 14 {
		t.Errorf("balance %+v", b)
	}
	if got.Streams != 2 || got.Forks != 2 || got.LastBatchNS != c.now().UnixNano() {
		t.Errorf("%+v", got)
	}
	days, err := s.Days(ctx, national, r.ID, c.now().Add(-48*time.Hour), c.now())
	if err != nil || len(days) != 1 || days[0].Balance.Received != 70 || days[0].Balance.Gap != 0 {
		t.Errorf("%+v, %v", days, err)
	}
	for _, scope := range []access.Scope{access.Only(r.Tenant + 1), {}} {
		if list, err := s.Collectors(ctx, scope); err != nil || len(list) != 0 {
			t.Errorf("%v sees %v, %v", scope, list, err)
		}
		if _, err := s.Collector(ctx, scope, r.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", scope, err)
		}
		if days, err := s.Days(ctx, scope, r.ID, time.Unix(0, 0), c.now()); err != nil || len(days) != 0 {
			t.Errorf("%v sees %v, %v", scope, days, err)
		}
	}
	log, err := s.Log(ctx, 1, 100)
	if err != nil || len(log) != 3 || log[0].Kind != "fork" || log[1].Kind != "fork" || log[2].Kind != "clone" {
		t.Errorf("log %+v, %v", log, err)
	}
	// Old batches are forgotten, the head's never.
	c.add(40 * 24 * time.Hour)
	if n, err := s.Prune(ctx, 30*24*time.Hour); err != nil || n != 5 {
		t.Errorf("pruned %d, %v", n, err)
	}
	accept(aBatch(r, 1, "e1", 5, counts), Repeat)
	accept(aBatch(r, 1, "e1", 1, counts), OutOfSequence)
	if _, err := s.Prune(ctx, time.Hour); !errors.Is(err, ErrInvalid) {
		t.Errorf("too short: %v", err)
	}
}

// Two gates take the same sequence at once: one wins, nothing counts twice.
func TestAcceptRace(t *testing.T) {
	s, c := newStore(t)
	_, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[Sequence]int{}
	for i := range byte(16) {
		wg.Go(func() {
			b := aBatch(r, 1, "e1", 1, map[string]uint64{"received": 1, "left.x": 1, "sent": 1})
			b.Digest[1] = i % 2
			v, err := s.Accept(t.Context(), b)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			got[v.Sequence]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if got[Opening] != 1 || got[Repeat] != 7 || got[Fork] != 8 {
		t.Errorf("%v", got)
	}
	cs, err := s.Collector(t.Context(), national, r.ID)
	if err != nil || cs.Balance.Received != 1 || cs.Balance.Batches != 1 {
		t.Errorf("%+v, %v", cs.Balance, err)
	}
}

// A number that was claimed is for that batch alone, before and after it is accepted.
func TestClaim(t *testing.T) {
	s, c := newStore(t)
	ctx := t.Context()
	_, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	claim := func(b *Batch, want Sequence, first bool) {
		t.Helper()
		v, err := s.Claim(ctx, b)
		if err != nil || v.Sequence != want || v.First != first {
			t.Fatalf("batch %d: %+v, %v; want %d, first %v", b.Seq, v, err, want, first)
		}
	}
	accept := func(b *Batch, want Sequence) {
		t.Helper()
		if v, err := s.Accept(ctx, b); err != nil || v.Sequence != want {
			t.Fatalf("batch %d: %+v, %v; want %d", b.Seq, v, err, want)
		}
	}
	b1, other := aBatch(r, 1, "e1", 1, nil), aBatch(r, 1, "e1", 1, nil)
	other.Digest[1] = 7
	claim(b1, Opening, false)
	claim(other, Fork, true)
	claim(other, Fork, false)
	claim(b1, Opening, false) // its answer was lost
	claim(aBatch(r, 1, "e1", 2, nil), OutOfSequence, false)
	accept(b1, Opening)
	claim(b1, Repeat, false)
	claim(aBatch(r, 1, "e1", 2, nil), Next, false)
	accept(aBatch(r, 1, "e1", 2, nil), Next)
	claim(aBatch(r, 1, "e1", 3, nil), Next, false)
	claim(aBatch(r, 2, "e2", 1, nil), Opening, false) // another stream
}

// A collector that reports absurd numbers spoils no sum but its own.
func TestAbsurdCounts(t *testing.T) {
	s, c := newStore(t)
	_, site := organisation(t, s, "Ashgrove School")
	r := enrol(t, s, c, site, 1)
	for seq := uint64(1); seq <= 5000; seq += 1000 {
		var batches []Counted
		for i := range uint64(1000) {
			batches = append(batches, Counted{Stream: event.StreamID{9}, Collector: r.ID, Tenant: r.Tenant, Seq: seq + i, Counts: map[string]uint64{"received": 1<<64 - 1}})
		}
		if err := s.AddCounts(t.Context(), "x", batches...); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Collector(t.Context(), national, r.ID)
	if err != nil || got.Balance.Received < 1<<52 || got.Balance.Received > 1<<53 {
		t.Errorf("%d, %v", got.Balance.Received, err)
	}
}

func TestAdvance(t *testing.T) {
	s, _ := newStore(t)
	ctx := t.Context()
	h1 := Head{Stream: event.StreamID{1}, Collector: "c", Tenant: 1, Lane: "live", Epoch: "e", Seq: 1, Digest: [32]byte{1}}
	h2 := h1
	h2.Seq, h2.Digest = 2, [32]byte{2}
	if err := s.Advance(ctx, "ledger", h1, h2); !errors.Is(err, ErrMoved) {
		t.Errorf("from a head that is not there: %v", err)
	}
	if err := s.Advance(ctx, "ledger", Head{}, h1); err != nil {
		t.Error(err)
	}
	if err := s.Advance(ctx, "ledger", Head{}, h1); !errors.Is(err, ErrMoved) {
		t.Errorf("twice: %v", err)
	}
	if err := s.Advance(ctx, "ledger", h1, h2); err != nil {
		t.Error(err)
	}
	if _, ok, err := s.Head(ctx, GateReader, h1.Stream); ok || err != nil {
		t.Errorf("another reader's head: %v, %v", ok, err)
	}
	if h, ok, err := s.Head(ctx, "ledger", h1.Stream); !ok || err != nil || h.Seq != 2 {
		t.Errorf("%+v, %v, %v", h, ok, err)
	}
}

func TestMakeTokenWithoutHub(t *testing.T) {
	s, _ := newStore(t)
	_, site := organisation(t, s, "Ashgrove School")
	s.o.Address = ""
	if _, _, err := s.MakeToken(t.Context(), national, "x", site.ID); err == nil || !strings.Contains(err.Error(), "start the hub once") {
		t.Errorf("got %v", err)
	}
	_ = keys.TokenPrefix
}

func BenchmarkAccept(b *testing.B) {
	s, c := newStore(b)
	_, site := organisation(b, s, "Ashgrove School")
	r := enrol(b, s, c, site, 1)
	counts := map[string]uint64{"received": 500, "parsed": 499, "not_understood": 1, "kept.benign": 300, "kept.allowed": 100, "kept.internal": 20, "left.denied": 70, "left.ids": 5, "left.auth": 4, "made.detection": 1, "sent": 80}
	var mu sync.Mutex
	streams := byte(0)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		streams++
		stream := streams
		mu.Unlock()
		for seq := uint64(1); pb.Next(); seq++ {
			if v, err := s.Accept(context.Background(), aBatch(r, stream, fmt.Sprint("e", stream), seq, counts)); err != nil || v.Sequence != Next && v.Sequence != Opening {
				b.Fatal(v, err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "batches/s")
}
