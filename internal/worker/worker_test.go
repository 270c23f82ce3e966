package worker

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tocsin/internal/access"
	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine"
	"tocsin/internal/eventstore/engine/enginetest"
	"tocsin/internal/keys"
)

// hub is what a worker stands on, all of it real: bus, blobs, database, event store in its child process.
type hub struct {
	t      testing.TB
	dir    string
	bus    *bus.Bus
	blobs  *blob.Store
	db     *db.DB
	engine *engine.Engine
	store  *eventstore.Store

	mu      sync.Mutex
	applied map[string]event.Detection // by key
	applies int
	streams map[event.TenantID]*chain
	blobsOf map[[32]byte][]byte // of notBlob: what should have been stored
}

type chain struct {
	stream batch.Stream
	seq    uint64
	prev   [32]byte
}

var signer = keys.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, dir: enginetest.Dir(t), applied: map[string]event.Detection{}, streams: map[event.TenantID]*chain{}, blobsOf: map[[32]byte][]byte{}}
	h.engine = enginetest.Start(t, h.dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	h.store, err = eventstore.Open(context.Background(), eventstore.Options{Address: h.engine.Address(), Ready: h.engine.Ready, Logger: h.logger()})
	must(err)
	h.bus, err = bus.Open(bus.Options{Dir: filepath.Join(h.dir, "bus"), Reserve: 1 << 20, Followers: []string{"worker"}, TrimEvery: -1})
	must(err)
	t.Cleanup(func() { h.bus.Close() })
	ks, err := keys.OpenTenantKeys(filepath.Join(h.dir, "keys"), nil)
	must(err)
	h.blobs, err = blob.Open(blob.Options{Dir: filepath.Join(h.dir, "blobs"), Keys: ks, Reserve: 1 << 20})
	must(err)
	t.Cleanup(func() { h.blobs.Close() })
	h.db, err = db.Open(context.Background(), db.Options{Path: filepath.Join(h.dir, "tocsin.db")})
	must(err)
	t.Cleanup(func() { h.db.Close() })
	return h
}

func (h *hub) logger() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(h.t.Output(), nil))
	}
	return slog.New(slog.DiscardHandler)
}

type storeAdapter struct{ *eventstore.Store }

func (s storeAdapter) NewBlock() Block { return eventstore.NewBlock() }

func (s storeAdapter) Insert(ctx context.Context, token string, b Block, redo bool) error {
	if redo {
		return s.Store.Redo(ctx, token, b.(*eventstore.Block))
	}
	return s.Store.Insert(ctx, token, b.(*eventstore.Block))
}

// counter is a detector with state that must be exact: it counts denials by tenant and speaks at each hundredth, under a key
// made of the count. An event lost or counted twice changes the set of keys or the final counts.
type counter struct {
	Counts map[event.TenantID]int
}

func (c *counter) Process(e *event.Event, now int64) []event.Detection {
	c.Counts[e.Tenant]++
	n := c.Counts[e.Tenant]
	if n%100 != 0 {
		return nil
	}
	return []event.Detection{{Tenant: e.Tenant, RuleID: "hundred", Family: "test", Level: "low", Entity: event.Entity{Kind: "rule", Value: "x"}, Count: n, Key: fmt.Sprintf("%d/%d", e.Tenant, n), Events: []event.ID{e.ID}}}
}
func (c *counter) Snapshot() ([]byte, error) { return json.Marshal(c) }
func (c *counter) Restore(b []byte) error    { return json.Unmarshal(b, c) }

func (h *hub) options(det Detector) Options {
	h.t.Helper()
	feed, err := h.bus.Consumer(context.Background(), "worker", "batch.*")
	if err != nil {
		h.t.Fatal(err)
	}
	o := Options{
		Feed: feed, Blobs: FromBlobs(h.blobs), Plans: NewPlans(h.db), Store: storeAdapter{h.store}, Logger: h.logger(),
		Apply: func(_ context.Context, _ string, dets []event.Detection) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.applies++
			for _, d := range dets {
				h.applied[d.Key] = d
			}
			return nil
		},
		LastSeq: func(ctx context.Context) (uint64, error) { s, err := h.bus.Stats(ctx); return s.LastSeq, err },
		Linger:  20 * time.Millisecond,
	}
	if det != nil {
		o.Detect, o.Snapshots = det, Files{filepath.Join(h.dir, "snapshots")}
	}
	return o
}

func line(e *event.Event, tenant event.TenantID, n int) []byte {
	e.Reset()
	now := time.Now().UnixNano()
	e.Time, e.Created = now, now
	e.SetText(event.SourceIP, fmt.Sprintf("203.0.113.%d", n%256))
	e.SetInt(event.SourcePort, int64(1024+n%60000))
	e.SetText(event.DestinationIP, fmt.Sprintf("198.51.100.%d", tenant))
	e.SetInt(event.DestinationPort, 3389)
	e.SetString(event.NetworkTransport, "tcp")
	e.SetString(event.EventCategory, "network")
	e.AddString(event.EventType, "denied")
	e.SetString(event.EventAction, "deny")
	e.SetString(event.EventDataset, "fortinet.fortigate")
	e.SetString(event.ObserverVendor, "Fortinet")
	e.SetString(event.TocsinSourceProof, "none")
	return e.AppendJSON(nil)
}

type change struct {
	quarantined, urgent bool
	lines               [][]byte
	blob                func([]byte) []byte // what the gate stored, damaged
	notBlob             bool
	received            time.Time // by the gate; default now
}

// send does what the gate does: blob, then word on the bus.
func (h *hub) send(tenant event.TenantID, events int, c change) bus.Notice {
	h.t.Helper()
	ch := h.streams[tenant]
	if ch == nil {
		ch = &chain{stream: batch.Stream{Collector: fmt.Sprintf("019aa0b4-7c00-7000-8000-%012d", tenant), Tenant: tenant, Lane: batch.Live, Epoch: fmt.Sprintf("%032x", tenant)}}
		h.streams[tenant] = ch
	}
	ch.seq++
	w := batch.NewWriter()
	var e event.Event
	for i := range events {
		if err := w.Add(line(&e, tenant, i)); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, l := range c.lines {
		if err := w.Add(l); err != nil {
			h.t.Fatal(err)
		}
	}
	s, err := w.Seal(batch.Manifest{Stream: ch.stream, Seq: ch.seq, Prev: ch.prev, Created: time.Now(), CollectorVersion: "test", PolicyDigest: "x", ParserPack: "x", RulePack: "x", IndicatorSet: "0"}, signer)
	if err != nil {
		h.t.Fatal(err)
	}
	ch.prev = s.Digest
	n := bus.Notice{Digest: s.Digest, Tenant: tenant, Collector: ch.stream.Collector, Lane: "live", Epoch: ch.stream.Epoch, Seq: ch.seq, Received: time.Now().UnixNano(), Events: events + len(c.lines), Quarantined: c.quarantined, Urgent: c.urgent}
	if !c.received.IsZero() {
		n.Received = c.received.UnixNano()
	}
	sub := s.Submission()
	if c.blob != nil {
		sub = c.blob(sub)
	}
	if c.notBlob {
		h.blobsOf[s.Digest] = sub
	} else {
		if n.Blob, err = h.blobs.Put(context.Background(), blob.Blob{Name: s.Digest, Tenant: tenant, Kind: blob.Batch, Received: time.Now()}, sub); err != nil {
			h.t.Fatal(err)
		}
	}
	h.publish(n, fmt.Sprintf("%x", n.Digest))
	return n
}

func (h *hub) publish(n bus.Notice, id string) uint64 {
	h.t.Helper()
	seq, err := h.bus.Publish(context.Background(), bus.Subject(n.Tenant), id, n.Encode())
	if err != nil {
		h.t.Fatal(err)
	}
	return seq
}

// until runs a worker until done answers true, then stops it the ordinary way.
func (h *hub) until(o Options, done func(s Stats) bool) *Worker {
	h.t.Helper()
	w, err := New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done(w.Stats()) {
		select {
		case err := <-ended:
			cancel()
			h.t.Fatalf("the worker ended: %v", err)
		case <-deadline:
			cancel()
			h.t.Fatalf("not done after two minutes: %+v", w.Stats())
		case <-tick.C:
		}
	}
	cancel()
	if err := <-ended; err != nil {
		h.t.Fatal(err)
	}
	return w
}

func (h *hub) rows() map[event.TenantID]uint64 {
	h.t.Helper()
	list, err := h.store.CollectorCounts(context.Background(), access.System("test"), 0, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[event.TenantID]uint64{}
	for _, c := range list {
		out[c.Tenant] += c.Events
	}
	return out
}

func (h *hub) lastSeq() uint64 {
	s, err := h.bus.Stats(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return s.LastSeq
}

func TestLine(t *testing.T) {
	h := newHub(t)
	h.send(1, 250, change{})
	h.send(2, 100, change{urgent: true})
	first := h.send(1, 50, change{})
	h.send(3, 120, change{quarantined: true})
	h.publish(first, "again") // a repeat beyond the bus's own window
	det := &counter{Counts: map[event.TenantID]int{}}
	last := h.lastSeq()
	w := h.until(h.options(det), func(s Stats) bool { return s.Position >= last })

	if got, want := h.rows(), (map[event.TenantID]uint64{1: 300, 2: 100, 3: 120}); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	if s := w.Stats(); s.Repeats != 1 || s.Events != 520 || s.Dead != 0 || s.ReceiptToAlert.Count != 4 {
		t.Errorf("stats %+v", s)
	}
	keys := slices.Sorted(maps.Keys(h.applied))
	if want := []string{"1/100", "1/200", "1/300", "2/100"}; !slices.Equal(keys, want) {
		t.Errorf("alerts %v, want %v (nothing of the quarantined collector)", keys, want)
	}
	// The national picture leaves the quarantined out, the member's own shows them.
	sum, err := h.store.Summary(context.Background(), access.System("test"), time.Now().Add(-time.Hour).UnixNano(), time.Now().Add(time.Hour).UnixNano())
	if err != nil || sum.Events != 400 {
		t.Errorf("national summary %d events, %v; want 400", sum.Events, err)
	}
	sum, err = h.store.Summary(context.Background(), access.Only(3), time.Now().Add(-time.Hour).UnixNano(), time.Now().Add(time.Hour).UnixNano())
	if err != nil || sum.Events != 120 {
		t.Errorf("the member's summary %d events, %v; want 120", sum.Events, err)
	}
	stored, err := NewPlans(h.db).StoredByCollector(context.Background())
	if err != nil || len(stored) != 3 || stored[0].Events != 300 || stored[0].Batches != 2 {
		t.Errorf("stored by collector %+v, %v", stored, err)
	}
	if acked := h.options(nil).Feed.(*bus.Consumer).Acked(); acked != last {
		t.Errorf("acknowledged through %d, want %d", acked, last)
	}
	// A stored event is found by the id the alert carries.
	list, err := h.store.ByIDs(context.Background(), access.Only(2), h.applied["2/100"].Events)
	if err != nil || len(list) != 1 || list[0].Str(event.EventAction) != "deny" {
		t.Errorf("the alert's event: %v, %v", list, err)
	}
}

func TestPoison(t *testing.T) {
	h := newHub(t)
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b = bytes.Clone(b)
			if at < 0 {
				at += len(b)
			}
			b[at] ^= 1
			return b
		}
	}
	h.send(1, 10, change{})
	h.send(2, 10, change{blob: flip(10)})
	h.send(3, 10, change{blob: flip(-1)})
	h.send(4, 10, change{notBlob: true})
	h.send(5, 10, change{blob: func([]byte) []byte { return []byte("no newline here") }})
	if _, err := h.bus.Publish(context.Background(), "batch.06", "garbage", []byte("{not a notice")); err != nil {
		t.Fatal(err)
	}
	h.send(7, 10, change{lines: [][]byte{[]byte(`{"source.ip":{"nested":1}}`), []byte(`{"@timestamp":"2026-01-01T00:00:00Z"}`)}})
	n := h.send(8, 10, change{})
	n.Seq, n.Digest = 9, [32]byte{1}
	h.publish(n, "lies")
	h.send(9, 10, change{})
	last := h.lastSeq()
	w := h.until(h.options(nil), func(s Stats) bool { return s.Position >= last })
	if got, want := h.rows(), (map[event.TenantID]uint64{1: 10, 7: 11, 8: 10, 9: 10}); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	dead, err := NewPlans(h.db).DeadLetters(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dead {
		t.Logf("tenant %d seq %d index %d: %s", d.Tenant, d.BusSeq, d.Index, d.Reason)
		if d.Reason == "" || len(d.Notice) == 0 {
			t.Errorf("a dead letter without a reason or its message: %+v", d)
		}
	}
	if len(dead) != 7 {
		t.Errorf("%d dead letters, want 7", len(dead))
	}
	if s := w.Stats(); s.Dead != 10*4+1+10+0 {
		t.Errorf("%d events put aside", s.Dead)
	}
	// Every event of which the gate took a receipt is in its collector's sum: stored, or put aside.
	stored, err := NewPlans(h.db).StoredByCollector(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := map[event.TenantID][2]uint64{}
	for _, s := range stored {
		got[s.Tenant] = [2]uint64{s.Events, s.Dead}
	}
	if want := (map[event.TenantID][2]uint64{1: {10, 0}, 2: {0, 10}, 3: {0, 10}, 4: {0, 10}, 5: {0, 10}, 7: {11, 1}, 8: {10, 10}, 9: {10, 0}}); !maps.Equal(got, want) {
		t.Errorf("stored and put aside by member: %v, want %v", got, want)
	}
}

// refusing is a store that can never take the first rows it is given.
type refusing struct {
	Store
	once sync.Once
}

type permanent struct{}

func (permanent) Error() string   { return "these rows make no sense to the engine" }
func (permanent) Permanent() bool { return true }

func (r *refusing) Insert(ctx context.Context, token string, b Block, redo bool) (err error) {
	r.once.Do(func() { err = permanent{} })
	if err != nil {
		return err
	}
	return r.Store.Insert(ctx, token, b, redo)
}

// TestRefusedRows: what the engine can never take is put aside whole, and the line goes on.
func TestRefusedRows(t *testing.T) {
	h := newHub(t)
	h.send(1, 10, change{})
	o := h.options(nil)
	o.Store = &refusing{Store: o.Store}
	h.until(o, func(s Stats) bool { return s.Position >= 1 })
	h.send(1, 20, change{})
	w := h.until(h.options(nil), func(s Stats) bool { return s.Position >= 2 })
	if got, want := h.rows(), (map[event.TenantID]uint64{1: 20}); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	dead, err := NewPlans(h.db).DeadLetters(context.Background(), 10)
	if err != nil || len(dead) != 1 || dead[0].Events != 10 || dead[0].Index != -1 || !strings.Contains(dead[0].Reason, "no sense") {
		t.Errorf("dead letters %+v, %v", dead, err)
	}
	if s, err := NewPlans(h.db).StoredByCollector(context.Background()); err != nil || s[0].Events != 20 || s[0].Dead != 10 {
		t.Errorf("counts %+v, %v; worker %+v", s, err, w.Stats())
	}
}

// TestCrash stops the worker at every step, before and after its effect, again and again, and starts a new one on the same
// bus, blobs, database and store. At the end every row is stored once, every detection was made, and the detector's state is
// what an undisturbed run gives.
func TestCrash(t *testing.T) {
	h := newHub(t)
	steps := []string{"plan", "alert", "insert", "done", "snapshot", "ack"}
	want := map[event.TenantID]uint64{}
	rng := rand.New(rand.NewPCG(3, 4))
	crashes := 0
	round := func(step string, after int) {
		for range 4 {
			tenant := event.TenantID(1 + rng.IntN(3))
			n := 60 + rng.IntN(100)
			h.send(tenant, n, change{urgent: rng.IntN(2) == 0})
			want[tenant] += uint64(n)
		}
		det := &counter{Counts: map[event.TenantID]int{}}
		o := h.options(det)
		o.SnapshotEvery = 30 * time.Millisecond
		o.MaxRows = 150
		var mu sync.Mutex
		left := after
		o.seam = func(s string) error {
			mu.Lock()
			defer mu.Unlock()
			if s != step {
				return nil
			}
			if left--; left < 0 {
				crashes++
				return errSeam
			}
			return nil
		}
		w, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Run(ctx); !errors.Is(err, errSeam) {
			t.Fatalf("%s: the worker ended with %v, want the crash", step, err)
		}
	}
	for _, s := range steps {
		for _, when := range []string{" before", " after"} {
			round(s+when, 0)
			if s != "snapshot" && s != "ack" {
				round(s+when, 1)
			}
		}
	}
	// The long form (make torture) goes on at random until it has crashed so often.
	if n, err := strconv.Atoi(os.Getenv("TOCSIN_TORTURE")); err == nil {
		for crashes < n {
			s, after := steps[rng.IntN(len(steps))], 0
			if s != "snapshot" && s != "ack" {
				after = rng.IntN(2)
			}
			round(s+[]string{" before", " after"}[rng.IntN(2)], after)
		}
	}
	det := &counter{Counts: map[event.TenantID]int{}}
	last := h.lastSeq()
	h.until(h.options(det), func(s Stats) bool { return s.Position >= last })
	if got := h.rows(); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	var wantKeys []string
	for tn, n := range want {
		if got := det.Counts[tn]; got != int(n) {
			t.Errorf("tenant %d: the detector counted %d of %d", tn, got, n)
		}
		for i := 100; i <= int(n); i += 100 {
			wantKeys = append(wantKeys, fmt.Sprintf("%d/%d", tn, i))
		}
	}
	slices.Sort(wantKeys)
	if got := slices.Sorted(maps.Keys(h.applied)); !slices.Equal(got, wantKeys) {
		t.Errorf("%d alerts, want %d; not wanted %v, missing %v", len(got), len(wantKeys), slices.DeleteFunc(slices.Clone(got), func(k string) bool { return slices.Contains(wantKeys, k) }), slices.DeleteFunc(wantKeys, func(k string) bool { return slices.Contains(got, k) }))
	}
	sum, err := h.store.Summary(context.Background(), access.System("test"), time.Now().Add(-24*time.Hour).UnixNano(), time.Now().Add(time.Hour).UnixNano())
	var total uint64
	for _, n := range want {
		total += n
	}
	if err != nil || sum.Events != total {
		t.Errorf("the roll-up says %d, %v; want %d", sum.Events, err, total)
	}
	t.Logf("%d crashes, %d events", crashes, total)
}

// fragile panics on one source port, as a fault in a rule's code would.
type fragile struct{ counter }

func (f *fragile) Process(e *event.Event, now int64) []event.Detection {
	if port, _ := e.Int(event.SourcePort); port == 1024+7 {
		panic("a fault in a rule")
	}
	return f.counter.Process(e, now)
}

// TestFaultyEvent: an event that makes the hub's own code panic is put aside with the reason; the others of its batch are stored, and the
// worker goes on. It also ends once with an error, and the worker after it goes on counting.
func TestFaultyEvent(t *testing.T) {
	h := newHub(t)
	h.send(1, 20, change{})
	reg := prometheus.NewRegistry()
	o := h.options(&fragile{counter{Counts: map[event.TenantID]int{}}})
	o.Registerer = reg
	first := true
	o.seam = func(step string) error {
		if step == "done after" && first {
			first = false
			return errSeam
		}
		return nil
	}
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(t.Context()); !errors.Is(err, errSeam) {
		t.Fatalf("the worker ended with %v", err)
	}
	if s := w.Stats(); s.Running || s.Dead != 1 {
		t.Errorf("after its end: %+v", s)
	}
	h.send(1, 5, change{})
	o = h.options(&fragile{counter{Counts: map[event.TenantID]int{}}})
	o.Registerer, o.After = reg, w // which has registered its metrics there
	s := h.until(o, func(s Stats) bool { return s.Position >= 2 }).Stats()
	if s.Restarts != 1 || s.Batches < 2 || s.Dead != 1 {
		t.Errorf("after the restart: %+v", s)
	}
	if got, want := h.rows(), (map[event.TenantID]uint64{1: 24}); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	dead, err := NewPlans(h.db).DeadLetters(context.Background(), 10)
	if err != nil || len(dead) != 1 || dead[0].Index != 7 || !strings.Contains(dead[0].Reason, "a fault in a rule") {
		t.Errorf("dead letters %+v, %v", dead, err)
	}
}

var errSeam = errors.New("stopped by the test")

// TestFence lets a second worker take the shard over: the first can change nothing any more.
func TestFence(t *testing.T) {
	d, err := db.Open(context.Background(), db.Options{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, p, now := context.Background(), NewPlans(d), time.Now()
	a, err := p.Acquire(ctx, "all", "a", now, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Acquire(ctx, "all", "b", now, time.Minute); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "a holds all") {
		t.Fatalf("a second holder got %v", err)
	}
	if err := p.Record(ctx, a, Plan{Number: 1, First: 1, Last: 5, Messages: 5, Ingested: 1}); err != nil {
		t.Fatal(err)
	}
	if err := p.Record(ctx, a, Plan{Number: 1}); !errors.Is(err, ErrFenced) {
		t.Fatalf("a second plan 1: %v", err)
	}
	b, err := p.Acquire(ctx, "all", "b", now.Add(2*time.Minute), time.Minute)
	if err != nil || b.Fence <= a.Fence || b.Planned != 1 {
		t.Fatalf("after expiry: %+v, %v", b, err)
	}
	for what, err := range map[string]error{
		"renew": p.Renew(ctx, a, now.Add(time.Hour)), "record": p.Record(ctx, a, Plan{Number: 2}), "done": p.Done(ctx, a, Plan{Number: 1}, nil, nil, nil, 1), "release": p.Release(ctx, a),
	} {
		if !errors.Is(err, ErrFenced) {
			t.Errorf("%s by the old holder: %v", what, err)
		}
	}
	pend, err := p.Pending(ctx, "all")
	if err != nil || len(pend) != 1 || pend[0].Last != 5 || pend[0].Messages != 5 {
		t.Fatalf("pending %+v, %v", pend, err)
	}
	head := Head{Stream: event.StreamID{1}, Tenant: 1, Collector: "c", Lane: "live", Seq: 3, Batches: 3, Events: 30}
	for range 2 { // the second changes nothing
		if err := p.Done(ctx, b, pend[0], []Head{head}, nil, nil, 5); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := p.StoredByCollector(ctx); err != nil || len(s) != 1 || s[0].Events != 30 {
		t.Fatalf("stored %+v, %v", s, err)
	}
}

func TestSnapshotFiles(t *testing.T) {
	f := Files{t.TempDir()}
	ctx := context.Background()
	if _, _, ok, err := f.Load(ctx, "all"); ok || err != nil {
		t.Fatal(ok, err)
	}
	for i := range uint64(3) {
		if err := f.Save(ctx, "all", i, bytes.Repeat([]byte{byte(i)}, int(i)*1000)); err != nil {
			t.Fatal(err)
		}
		seq, b, ok, err := f.Load(ctx, "all")
		if seq != i || len(b) != int(i)*1000 || !ok || err != nil {
			t.Fatal(seq, len(b), ok, err)
		}
	}
}
