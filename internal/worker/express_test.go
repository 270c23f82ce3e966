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

// slow is a counter that is not done with the first event before something urgent has been opened.
type slow struct {
	counter
	bulk int
	w    *Worker
}

func (s *slow) Process(e *event.Event, now int64) []event.Detection {
	if e.Tenant == bulk {
		if s.bulk++; s.bulk == 1 && s.w != nil {
			for late := time.Now().Add(20 * time.Second); len(s.w.express) == 0 && time.Now().Before(late); {
				time.Sleep(time.Millisecond)
			}
		}
	}
	return s.counter.Process(e, now)
}

// An urgent batch that stands behind twenty others becomes an alert before the second of them is looked at; its rows, the sums and the detector's counts are what they
// would have been, also when the worker is killed while it is ahead and the next one goes on from its snapshot.
func TestOvertake(t *testing.T) {
	h := newHub(t)
	const batches, each = 20, 100
	for range batches {
		h.send(bulk, each, change{})
	}
	h.send(urgent, 100, change{urgent: true})
	h.send(bulk, each, change{})
	last := h.lastSeq()
	det := &slow{counter: counter{Counts: map[event.TenantID]int{}}}
	o := h.options(det)
	o.MaxRows = each
	o.overtakeFrom = -1
	o.SnapshotEvery = time.Nanosecond
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
	det.w = w
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.Run(ctx); !errors.Is(err, errSeam) {
		t.Fatalf("the worker ended with %v", err)
	}
	if at < 0 || at > each {
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
	for range 8 {
		h.send(bulk, 300, change{})
	}
	h.send(urgent, 100, change{urgent: true})
	last := h.lastSeq()
	o := h.options(&counter{Counts: map[event.TenantID]int{}})
	o.MaxRows = 300
	o.overtakeFrom = -1
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
	if s := w.Stats(); s.Overtook != 1 || s.Events != 2500 {
		t.Errorf("%+v", s)
	}
}
