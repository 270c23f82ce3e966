package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/blob"
	"tocsin/internal/event"
)

// picky panics on some source ports, until the fault is mended.
type picky struct {
	counter
	faulty func(port int64) bool
}

func (p *picky) Process(e *event.Event, now int64) []event.Detection {
	if port, _ := e.Int(event.SourcePort); p.faulty(port) {
		panic("a fault in a rule")
	}
	return p.counter.Process(e, now)
}

func newCounter() *counter { return &counter{Counts: map[event.TenantID]int{}} }

// ask asks for another try and publishes it, twice: what is on the bus twice must be done once.
func (h *hub) ask(t *testing.T, names ...string) []Dead {
	t.Helper()
	n := 0
	asked, never, err := NewPlans(h.db).Ask(t.Context(), names, func() string { n++; return fmt.Sprintf("%s-%d-%d", t.Name(), h.lastSeq(), n) })
	if err != nil || len(never) > 0 {
		t.Fatalf("%+v, %v", never, err)
	}
	for _, again := range []string{"", "/again"} {
		for i := range asked {
			n, err := asked[i].Again()
			if err != nil {
				t.Fatal(err)
			}
			h.publish(n, asked[i].Try+again)
		}
	}
	return asked
}

func (h *hub) letters(t *testing.T) []Dead {
	t.Helper()
	list, err := NewPlans(h.db).DeadLetters(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sums demands that what is stored is what the collectors' sums say, and what they should say.
func (h *hub) sums(t *testing.T, what string, want map[event.TenantID][2]uint64) {
	t.Helper()
	stored, err := NewPlans(h.db).StoredByCollector(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, rows, wantRows := map[event.TenantID][2]uint64{}, h.rows(), map[event.TenantID]uint64{}
	for _, s := range stored {
		got[s.Tenant] = [2]uint64{s.Events, s.Dead}
	}
	for tenant, n := range want {
		if n[0] > 0 {
			wantRows[tenant] = n[0]
		}
	}
	if !maps.Equal(got, want) || !maps.Equal(rows, wantRows) {
		t.Errorf("%s: stored and put aside %v, want %v; rows %v", what, got, want, rows)
	}
}

// TestRetry: what was put aside is tried again when somebody asks. It fails again while the fault is there; then it is stored, once, the
// rules see it, once, and the sums follow.
func TestRetry(t *testing.T) {
	h := newHub(t)
	det := &picky{counter: *newCounter(), faulty: func(port int64) bool {
		at := port - 1024
		return at == 3 || at == 7 || at == 8 || at >= 12 && at < 40
	}}
	lost := h.send(1, 10, change{notBlob: true})
	h.send(2, 50, change{})
	h.send(3, 10, change{lines: [][]byte{[]byte(`{"source.ip":{"nested":1}}`)}})
	if _, err := h.bus.Publish(context.Background(), "batch.06", "garbage", []byte("{not a notice")); err != nil {
		t.Fatal(err)
	}
	last := h.lastSeq()
	h.until(h.options(det), func(s Stats) bool { return s.Position >= last })
	h.sums(t, "before", map[event.TenantID][2]uint64{1: {0, 10}, 2: {19, 31}, 3: {7, 4}})
	all := h.letters(t)
	if len(all) != 1+21+4+1 {
		t.Fatalf("%d letters: %+v", len(all), all)
	}
	plans := NewPlans(h.db)
	for _, name := range []string{"nosuch", "ffffffffffff/all", "%", fmt.Sprintf("%.12x/9", lost.Digest), "", fmt.Sprintf("%.5s", fmt.Sprintf("%x", lost.Digest))} {
		if _, _, err := plans.Ask(t.Context(), []string{fmt.Sprintf("%x/all", lost.Digest), name}, func() string { return "x" }); !errors.Is(err, ErrNoLetter) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if open, err := plans.Asked(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("a name that is not there asked for something: %+v, %v", open, err)
	}

	// Nothing is mended: all fails again, and nothing changes but the count of tries.
	_, never, err := plans.Ask(t.Context(), nil, func() string { return fmt.Sprint("never published ", len(h.letters(t)), time.Now().UnixNano()) })
	if err != nil || len(never) != 1 || never[0].Retriable() == "" {
		t.Fatalf("%+v, %v", never, err)
	}
	open, err := plans.Asked(t.Context())
	if err != nil || len(open) != len(all)-1 {
		t.Fatalf("%d asked for, %v", len(open), err)
	}
	for i := range open { // as the hub does at its start
		n, err := open[i].Again()
		if err != nil {
			t.Fatal(err)
		}
		h.publish(n, open[i].Try)
	}
	last = h.lastSeq()
	h.until(h.options(det), func(s Stats) bool { return s.Position >= last })
	h.sums(t, "after the first try", map[event.TenantID][2]uint64{1: {0, 10}, 2: {19, 31}, 3: {7, 4}})
	for _, d := range h.letters(t) {
		if d.Try != "" || d.Tries != 1 && d.Retriable() == "" {
			t.Errorf("%s after a try that failed: %+v", d.ID(), d)
		}
	}

	// The blob is back, the rule is mended; the event that cannot be decoded stays.
	sub := h.blobsOf[lost.Digest]
	if _, err := h.blobs.Put(t.Context(), blob.Blob{Name: lost.Digest, Tenant: 1, Kind: blob.Batch, Received: time.Now()}, sub); err != nil {
		t.Fatal(err)
	}
	h.ask(t, fmt.Sprintf("%.12x", lost.Digest))
	last = h.lastSeq()
	mended := newCounter()
	h.until(h.options(mended), func(s Stats) bool { return s.Position >= last })
	h.sums(t, "after the blob came back", map[event.TenantID][2]uint64{1: {10, 0}, 2: {19, 31}, 3: {7, 4}})
	for _, d := range h.letters(t) {
		if d.Tenant != 1 && d.Retriable() == "" {
			h.ask(t, d.ID())
		}
	}
	last = h.lastSeq()
	w := h.until(h.options(mended), func(s Stats) bool { return s.Position >= last })
	h.sums(t, "at the end", map[event.TenantID][2]uint64{1: {10, 0}, 2: {50, 0}, 3: {10, 1}})
	if got, want := mended.Counts, (map[event.TenantID]int{1: 10, 2: 50, 3: 10}); !maps.Equal(got, want) {
		t.Errorf("the rules have seen %v, want %v", got, want)
	}
	if left := h.letters(t); len(left) != 2 || !slices.ContainsFunc(left, func(d Dead) bool { return d.Tenant == 3 && d.Index == 10 && d.Tries == 2 && d.Events == 1 }) {
		t.Errorf("what is left: %+v", left)
	}
	if s := w.Stats(); s.Retried != 34 {
		t.Errorf("%d events stored by another try in the last run", s.Retried)
	}
}

// TestRetryOfRefusedRows: of a batch that the store refused, the rules have seen all but those events that failed by themselves.
func TestRetryOfRefusedRows(t *testing.T) {
	h := newHub(t)
	det := &picky{counter: *newCounter(), faulty: func(port int64) bool { return port == 1024+4 }}
	h.send(1, 10, change{})
	o := h.options(det)
	o.Store = &refusing{Store: o.Store}
	h.until(o, func(s Stats) bool { return s.Position >= 1 })
	h.sums(t, "refused", map[event.TenantID][2]uint64{1: {0, 10}})
	h.ask(t)
	last := h.lastSeq()
	mended := newCounter()
	h.until(h.options(mended), func(s Stats) bool { return s.Position >= last })
	h.sums(t, "tried again", map[event.TenantID][2]uint64{1: {10, 0}})
	if mended.Counts[1] != 10 || len(h.letters(t)) != 0 {
		t.Errorf("the rules have seen %v; left %+v", mended.Counts, h.letters(t))
	}
}

// TestCrashInRetry stops the worker at every step of another try, before and after its effect.
func TestCrashInRetry(t *testing.T) {
	h := newHub(t)
	faulty := &picky{counter: *newCounter(), faulty: func(port int64) bool { return port == 1024+4 || port == 1024+6 }}
	total := uint64(0)
	for _, step := range []string{"insert", "done", "ack"} {
		for _, when := range []string{" before", " after"} {
			if step == "insert" && when == " before" || step == "ack" && when == " after" {
				continue // as after a crash without a retry
			}
			h.send(1, 10, change{})
			total += 10
			last := h.lastSeq()
			h.until(h.options(faulty), func(s Stats) bool { return s.Position >= last })
			if n := len(h.letters(t)); n != 2 {
				t.Fatalf("%d letters", n)
			}
			h.ask(t)
			mended := newCounter()
			o := h.options(mended)
			o.seam = func(s string) error {
				if s == step+when {
					return errSeam
				}
				return nil
			}
			w, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if step == "ack" {
				last := h.lastSeq()
				go func() { // this comes when it is told to stop
					for w.Stats().Position < last && ctx.Err() == nil {
						time.Sleep(time.Millisecond) // a poll, bounded by ctx
					}
					cancel()
				}()
			}
			if err := w.Run(ctx); !errors.Is(err, errSeam) {
				t.Fatalf("%s%s: the worker ended with %v, want the crash", step, when, err)
			}
			cancel()
			h.send(1, 1, change{}) // so that it can be seen that all before it is done, and replayed
			total++
			last = h.lastSeq()
			h.until(h.options(mended), func(s Stats) bool { return s.Position >= last })
			h.sums(t, "after "+step+when, map[event.TenantID][2]uint64{1: {total, 0}})
			_, state, _, err := h.options(mended).Snapshots.Load(t.Context(), "all")
			if err != nil || len(h.letters(t)) != 0 {
				t.Fatalf("%s%s: %v; left %+v", step, when, err, h.letters(t))
			}
			mended = newCounter()
			if err := mended.Restore(state); err != nil {
				t.Fatal(err)
			}
			if mended.Counts[1] != int(total) {
				t.Fatalf("%s%s: the rules have seen %d events, want %d", step, when, mended.Counts[1], total)
			}
		}
	}
}

// TestLettersOfAnotherBus: letters of a bus that is gone do not stand in the way of new ones, and streams that are set back forget theirs.
func TestLettersOfAnotherBus(t *testing.T) {
	h := newHub(t)
	plans := NewPlans(h.db)
	lease, err := plans.Acquire(t.Context(), "all", "hub", time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	notice, err := json.Marshal(map[string]any{"digest": fmt.Sprintf("%064x", 1), "events": 5, "blob": ""})
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 3; n++ {
		p := Plan{Number: n, First: 1, Last: 1, Messages: 1}
		if err := plans.Record(t.Context(), lease, p); err != nil {
			t.Fatal(err)
		}
		stream := event.StreamID{byte(n)}
		head := Head{Stream: stream, Tenant: 1, Collector: "c", Lane: "live", Seq: 4, Batches: 4, Events: 15, Dead: 5}
		if err := plans.Done(t.Context(), lease, p, []Head{head}, []Dead{{BusSeq: 1, Index: -1, Stream: stream, Seq: 3, Tenant: 1, Collector: "c", Digest: fmt.Sprintf("%064x", n), Events: 5, Reason: "test", Notice: notice}}, nil, n); err != nil {
			t.Fatal(err)
		}
		if err := plans.Begin(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
	}
	if list := h.letters(t); len(list) != 3 {
		t.Fatalf("%+v", list)
	}
	heads, err := plans.Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	heads[0].Seq, heads[0].Batches, heads[0].Events = 2, 2, 15-10 // two batches of five, one of which lies aside
	if err := plans.SetBack(t.Context(), heads[:1]); err != nil {
		t.Fatal(err)
	}
	if list := h.letters(t); len(list) != 2 {
		t.Errorf("%+v", list)
	}
	if got, err := plans.Heads(t.Context()); err != nil || got[0].Events != 10 || got[0].Dead != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	// What an older program put aside has no stream: it is listed, and said to be beyond help.
	if err := h.db.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO worker_dead (shard, bus_seq, place, at_ns, tenant, collector, digest, events, reason, notice) VALUES ('all', 9, 0, 9, 1, 'c', 'ab', 1, 'old', ?)", notice)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if list := h.letters(t); len(list) != 3 || list[0].Retriable() == "" {
		t.Errorf("%+v", list)
	}
}
