package ledger

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"tocsin/internal/bus"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/member"
)

// house is the real bus and database that a ledger stands on.
type house struct {
	t        testing.TB
	dir      string
	db       *db.DB
	bus      *bus.Bus
	signer   note.Signer
	verifier note.Verifier
	lines    register
}

// register is a register that a test writes.
type register []member.LogEntry

func (r *register) Log(_ context.Context, after int64, n int) ([]member.LogEntry, error) {
	var out []member.LogEntry
	for _, e := range *r {
		if e.Seq > after && len(out) < n {
			out = append(out, e)
		}
	}
	return out, nil
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	var err error
	if h.db, err = db.Open(t.Context(), db.Options{Path: filepath.Join(h.dir, "t.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close() })
	if h.bus, err = bus.Open(bus.Options{Dir: filepath.Join(h.dir, "bus"), Followers: []string{Follower}, TrimEvery: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.bus.Close() })
	skey, vkey, err := note.GenerateKey(rand.Reader, "tocsin.test/ledger")
	if err != nil {
		t.Fatal(err)
	}
	if h.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	if h.verifier, err = note.NewVerifier(vkey); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) open() *Ledger {
	h.t.Helper()
	c, err := h.bus.Consumer(h.t.Context(), Follower, "batch.*")
	if err != nil {
		h.t.Fatal(err)
	}
	l, err := Open(h.t.Context(), Options{Dir: filepath.Join(h.dir, "ledger"), Signer: h.signer, DB: h.db, Messages: c, Register: &h.lines, CheckpointEvery: 100 * time.Millisecond})
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

func (h *house) publish(n int) [32]byte {
	h.t.Helper()
	digest := sha256.Sum256(fmt.Append(nil, n))
	notice := bus.Notice{Digest: digest, Tenant: 3, Collector: "0193a5b0-0000-7000-8000-000000000001", Lane: "live", Epoch: strings.Repeat("ab", 16), Seq: uint64(n), Events: 1, Received: 1}
	// A message id of its own, so that the bus's short memory does not hide a repeat from the ledger.
	if _, err := h.bus.Publish(h.t.Context(), bus.Subject(3), fmt.Sprint(n, time.Now().UnixNano()), notice.Encode()); err != nil {
		h.t.Fatal(err)
	}
	return digest
}

// follow runs the ledger until it has caught up with bus and register and a checkpoint covers size entries.
func (h *house) follow(l *Ledger, size uint64) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for {
		cp, err := l.Latest(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		s, err := l.Stats(ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		if n, err := treeSize(cp); err == nil && n == size && s.Lag == 0 {
			break
		}
		select {
		case err := <-done:
			h.t.Fatalf("ledger stopped: %v", err)
		case <-ctx.Done():
			h.t.Fatalf("ledger stands at %q, %+v, want size %d", cp, s, size)
		case <-time.After(10 * time.Millisecond): // a poll, bounded by ctx
		}
	}
	cancel()
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) close(l *Ledger) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		h.t.Fatal(err)
	}
}

// check verifies a proof as a stranger would: with the leaf, the proof and the log's public key.
func (h *house) check(l *Ledger, leaf [32]byte) Proof {
	h.t.Helper()
	p, err := l.Prove(h.t.Context(), leaf)
	if err != nil {
		h.t.Fatal(err)
	}
	n, err := note.Open(p.Checkpoint, note.VerifierList(h.verifier))
	if err != nil {
		h.t.Fatal(err)
	}
	lines := strings.Split(n.Text, "\n")
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || lines[0] != "tocsin.test/ledger" || lines[1] != fmt.Sprint(p.Size) {
		h.t.Fatalf("checkpoint %q: %v", n.Text, err)
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, p.Index, p.Size, rfc6962.DefaultHasher.HashLeaf(leaf[:]), p.Hashes, root); err != nil {
		h.t.Fatal(err)
	}
	return p
}

func TestFollowsAndProves(t *testing.T) {
	h := newHouse(t)
	h.lines = register{{Seq: 1, Kind: "registration", Collector: "c", Tenant: 3, AtNS: 5, Body: []byte(`{"a":1}`)}}
	var leaves [][32]byte
	for i := range 300 { // more than one bundle
		leaves = append(leaves, h.publish(i+1))
	}
	h.publish(7) // a repeat
	l := h.open()
	h.follow(l, 301)
	for _, i := range []int{0, 7, 255, 256, 299} {
		h.check(l, leaves[i])
	}
	reg, err := RegisterLeaf(h.lines[0])
	if err != nil {
		t.Fatal(err)
	}
	if p := h.check(l, reg); p.Index != 0 {
		t.Errorf("the registration stands at %d, want first", p.Index)
	}
	if _, err := l.Prove(t.Context(), [32]byte{1}); !errors.Is(err, ErrNotFound) {
		t.Errorf("proof of what was never added: %v", err)
	}
	if _, err := Open(t.Context(), Options{Dir: filepath.Join(h.dir, "ledger"), Signer: h.signer, DB: h.db}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second writer: %v", err)
	}
	s, err := l.Stats(t.Context())
	if err != nil || s.Added != 301 || s.Repeated != 1 {
		t.Errorf("counted %+v, %v", s, err)
	}
	h.close(l)

	// The next one goes on where this one stopped.
	more := h.publish(1000)
	h.lines = append(h.lines, member.LogEntry{Seq: 2, Kind: "revocation", Body: []byte(`{}`)})
	l = h.open()
	h.follow(l, 303)
	h.check(l, more)
	h.check(l, leaves[3])
	h.close(l)
}

// TestCrashBetweenLogAndDatabase takes the database back to before the entries, as a crash between the two writes leaves it, and has the
// bus bring everything again.
func TestCrashBetweenLogAndDatabase(t *testing.T) {
	h := newHouse(t)
	var leaves [][32]byte
	for i := range 20 {
		leaves = append(leaves, h.publish(i+1))
	}
	l := h.open()
	h.follow(l, 20)
	h.close(l)
	if _, err := rawWrite(h.db, "DELETE FROM ledger_entries WHERE idx >= 5"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		h.publish(i + 1)
	}
	l = h.open()
	h.follow(l, 20)
	for _, leaf := range leaves {
		h.check(l, leaf)
	}
	var unnamed int
	if err := h.db.Read().NewRaw("SELECT count(*) FROM ledger_entries WHERE kind <> 'batch' OR seq = 0").Scan(t.Context(), &unnamed); err != nil || unnamed != 0 {
		t.Errorf("%d entries lack what the bus said of them (%v)", unnamed, err)
	}
	if s, err := l.Stats(t.Context()); err != nil || s.Added != 0 || s.Repeated != 20 {
		t.Errorf("counted %+v, %v", s, err)
	}
	h.close(l)
}

func TestRefusesAnOlderLog(t *testing.T) {
	h := newHouse(t)
	h.publish(1)
	l := h.open()
	h.follow(l, 1)
	h.close(l)
	if err := os.RemoveAll(filepath.Join(h.dir, "ledger", "log")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Dir: filepath.Join(h.dir, "ledger"), Signer: h.signer, DB: h.db})
	if err == nil || !strings.Contains(err.Error(), "older copy") {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableMessageDoesNotStopTheLine(t *testing.T) {
	h := newHouse(t)
	if _, err := h.bus.Publish(t.Context(), bus.Subject(event.TenantID(3)), "x", []byte("not a notice")); err != nil {
		t.Fatal(err)
	}
	leaf := h.publish(1)
	l := h.open()
	h.follow(l, 1)
	h.check(l, leaf)
	if s, err := l.Stats(t.Context()); err != nil || s.Failed != 1 {
		t.Errorf("counted %+v, %v", s, err)
	}
	h.close(l)
}

func BenchmarkAdd(b *testing.B) {
	h := newHouse(b)
	l := h.open()
	defer h.close(l)
	n := 0
	for b.Loop() {
		rows := make([]row, fetchLimit)
		for i := range rows {
			n++
			leaf := sha256.Sum256(fmt.Append(nil, n))
			rows[i] = row{Leaf: leaf[:], Kind: "batch", Stream: make([]byte, 16), Seq: int64(n)}
		}
		if err := l.add(b.Context(), rows, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "batches/s")
}
