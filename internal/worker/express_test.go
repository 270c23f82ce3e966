package worker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"tocsin/internal/event"
)

const bulk, urgent event.TenantID = 1, 9

// slow is a counter that takes its time over what is not urgent.
type slow struct {
	counter
	bulk int
}

func (s *slow) Process(e *event.Event, now int64) []event.Detection {
	if e.Tenant == bulk {
		s.bulk++
		time.Sleep(20 * time.Microsecond)
	}
	return s.counter.Process(e, now)
}

// An urgent batch that stands behind thirty others becomes an alert before most of them are looked at; its rows, the sums and the detector's counts are what they
// would have been, also when the worker is killed while it is ahead and the next one goes on from its snapshot.
func TestOvertake(t *testing.T) {
	h := newHub(t)
	const batches, each = 30, 200
	for range batches {
		h.send(bulk, each, change{})
	}
	h.send(urgent, 100, change{urgent: true})
	h.send(bulk, each, change{})
	last := h.lastSeq()
	det := &slow{counter: counter{Counts: map[event.TenantID]int{}}}
	o := h.options(det)
	o.MaxRows = 10 * each
	o.SnapshotEvery = time.Millisecond
	apply := o.Apply
	at := -1
	o.Apply = func(ctx context.Context, plan string, dets []event.Detection) error {
		if slices.ContainsFunc(dets, func(d event.Detection) bool { return d.Tenant == urgent }) && at < 0 {
			at = det.bulk
		}
		return apply(ctx, plan, dets)
	}
	saved := 0
	o.seam = func(step string) error {
		if step == "snapshot after" && at >= 0 {
			if saved++; saved == 1 {
				return errSeam // ahead with the urgent batch, as the snapshot says
			}
		}
		return nil
	}
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.Run(ctx); !errors.Is(err, errSeam) {
		t.Fatalf("the worker ended with %v", err)
	}
	if at < 0 || at > batches*each/2 {
		t.Errorf("the alert came when %d of %d others had been looked at", at, batches*each)
	}
	if _, ahead, _, ok, err := o.Snapshots.Load(t.Context(), "all"); err != nil || !ok || len(ahead) != 1 {
		t.Errorf("the snapshot is ahead with %v, %v", ahead, err)
	}
	again := &slow{counter: counter{Counts: map[event.TenantID]int{}}}
	h.until(h.options(again), func(s Stats) bool { return s.Position >= last })
	if want := (map[event.TenantID]int{bulk: (batches + 1) * each, urgent: 100}); !maps.Equal(again.Counts, want) {
		t.Errorf("the rules have seen %v, want %v", again.Counts, want)
	}
	if got, want := h.rows(), (map[event.TenantID]uint64{bulk: (batches + 1) * each, urgent: 100}); !maps.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	if len(h.applied) != (batches+1)*each/100+1 {
		t.Errorf("%d alerts", len(h.applied))
	}
}

// stuck is a store that takes nothing until it is let.
type stuck struct {
	Store
	back <-chan struct{}
}

func (s *stuck) Insert(ctx context.Context, token string, b Block, redo bool) error {
	select {
	case <-s.back:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.Store.Insert(ctx, token, b, redo)
}

// While the store is away and as many rows wait for it as may, what is urgent becomes an alert all the same.
func TestOvertakeWhileTheStoreIsAway(t *testing.T) {
	h := newHub(t)
	for range 30 {
		h.send(bulk, 200, change{})
	}
	h.send(urgent, 100, change{urgent: true})
	last := h.lastSeq()
	o := h.options(&counter{Counts: map[event.TenantID]int{}})
	o.MaxRows = 800
	back := make(chan struct{})
	o.Store = &stuck{Store: o.Store, back: back}
	apply, told := o.Apply, false
	o.Apply = func(ctx context.Context, plan string, dets []event.Detection) error {
		if slices.ContainsFunc(dets, func(d event.Detection) bool { return d.Tenant == urgent }) && !told {
			told = true
			close(back)
		}
		return apply(ctx, plan, dets)
	}
	w := h.until(o, func(s Stats) bool { return s.Position >= last })
	if s := w.Stats(); s.Overtook != 1 || s.Events != 6100 {
		t.Errorf("%+v", s)
	}
}
