package worker

import (
	"context"
	"testing"
	"time"
)

// held is a store whose inserts wait.
type held struct {
	Store
	entered, let chan struct{}
}

func (s *held) Insert(ctx context.Context, token string, b Block, redo bool) error {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.let
	return s.Store.Insert(ctx, token, b, redo)
}

// While rows wait for the store, alerts go on, also when a snapshot of the detector falls due; and the snapshot, when it is kept, covers no
// plan that was still under way.
func TestSnapshotsDoNotHoldAlerts(t *testing.T) {
	h := newHub(t)
	det := newCounter()
	o := h.options(det)
	store := &held{Store: o.Store, entered: make(chan struct{}, 1), let: make(chan struct{})}
	o.Store, o.SnapshotEvery, o.Linger = store, time.Millisecond, 5*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	alerts := func(n int) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // a poll, bounded by end
			h.mu.Lock()
			got := len(h.applied)
			h.mu.Unlock()
			if got >= n {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d alerts after a minute, want %d", got, n)
			}
		}
	}
	h.send(1, 100, change{})
	<-store.entered // its rows are under way, and wait
	for n := range 5 {
		h.send(1, 100, change{})
		alerts(2 + n)
	}
	if _, _, ok, err := o.Snapshots.Load(ctx, "all"); ok || err != nil {
		t.Errorf("a snapshot was kept while all plans were under way: %v", err)
	}
	close(store.let)
	last := h.lastSeq()
	for end := time.Now().Add(time.Minute); w.Stats().Position < last && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // a poll, bounded by end
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if seq, _, ok, err := o.Snapshots.Load(t.Context(), "all"); err != nil || !ok || seq != last {
		t.Errorf("the snapshot covers %d of %d: %v", seq, last, err)
	}
	if n := h.rows()[1]; n != 600 {
		t.Errorf("%d rows", n)
	}
}
