// Package worker turns batches into stored events and alerts, each exactly once.
//
// It reads the bus: word of each batch, in order, for the partitions of the shard it holds by lease; and the blob store: the
// batches themselves. It writes rows (Store), detections (Apply) and, in the scheme's database, its own memory (Plans): the
// lease, the plan under way, the head of every stream, and what could not be processed.
//
// The life of a batch, and of the group (up to 50,000 events or a second) it is stored with:
//
//	fetch    from the bus; blob read, digest compared with the one of the batch that the gate checked, decompressed; a repeat
//	         (at or below its stream's head) is dropped, a batch that fails is put aside with its reason, to be tried
//	         again when somebody asks for it (letters.go)
//	decode, enrich, detect, make rows: in memory
//	alert    detections are applied at once; each carries a key, so a second time changes nothing
//	plan     the group's sequences, a digest over them, event.ingested and the versions in use are made durable
//	store    rows are inserted under the plan's digest, so a second time stores nothing
//	done     plan, position and heads are moved in one transaction
//	ack      the bus may forget what every snapshot of the detector's state covers
//
// After a crash the same messages come again. Those up to the position are done: they only rebuild the detector's state
// since its last snapshot, and what it says about them was said before. Those of a pending plan are redone under the
// same plan. So a crash between any two steps, before or after either took effect, stores every row once, and alerts once.
//
// Counted: batches and events in, stored, repeated, put aside; plans and redone plans; detections; and the time from the
// collector's receipt, and from the gate's, to each step ([Worker.Stats], and Prometheus).
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tocsin/internal/bus"
	"tocsin/internal/event"
)

// Decoder is the version of the conversion from a batch's lines to rows; it is part of every plan.
const Decoder = "1"

// Feed is the bus as one follower sees it; *bus.Consumer is one. After being opened it gives everything past the last
// AckThrough, in order.
type Feed interface {
	Fetch(ctx context.Context, limit int, wait time.Duration) ([]bus.Msg, error)
	AckThrough(ctx context.Context, seq uint64) error
}

// Blobs gives a batch as the gate received it. Missing says whether an error of Get means that it will never be there.
type Blobs interface {
	Get(ctx context.Context, n bus.Notice) ([]byte, error)
	Missing(err error) bool
}

// Meta is what a row needs beyond its event. It is the same type as eventstore.Meta.
type Meta = struct {
	ClockOffset time.Duration
	Keep        uint16
	Quarantined bool
}

// Block is rows on their way; *eventstore.Block is one. Which events share a block depends on the events alone.
type Block interface {
	Add(e *event.Event, m Meta) bool
	Len() int
	Reset()
}

// Store inserts rows. The same token always comes with the same rows. redo: they may be stored already, in whole or in part.
// An error with a method Permanent that answers true means that the rows can never be stored.
type Store interface {
	NewBlock() Block
	Insert(ctx context.Context, token string, b Block, redo bool) error
}

// Enricher adds what the hub knows about an event's addresses. Version names the data it uses.
type Enricher interface {
	Enrich(e *event.Event)
	Version() string
}

// Detector runs the rules of the hub. It belongs to the worker's one goroutine. now is the gate's receipt of the event's
// batch, so that a replay sees the same clock.
type Detector interface {
	Process(e *event.Event, now int64) []event.Detection
	Snapshot() ([]byte, error)
	Restore([]byte) error
}

// Snapshots keeps the detector's state with the bus sequence it covers. Save is durable on return. Load's ok is false when
// there is none.
type Snapshots interface {
	Save(ctx context.Context, shard string, seq uint64, state []byte) error
	Load(ctx context.Context, shard string) (seq uint64, state []byte, ok bool, err error)
}

// Options of a worker. Feed, Blobs, Plans and Store must be given.
type Options struct {
	Shard  string // name of the set of partitions; default "all"
	Holder string // name of this worker, the same after a restart; default "hub"

	Feed      Feed
	Blobs     Blobs
	Plans     *Plans
	Store     Store
	Enrich    Enricher  // nil: nothing is added
	Detect    Detector  // nil: no rules run here
	Snapshots Snapshots // must be given with Detect
	// Apply makes detections known: it groups them into alerts and notifies. It must be idempotent by Detection.Key.
	Apply func(ctx context.Context, plan string, dets []event.Detection) error
	// Keep is a tenant's retention in days; nil or 0: the store's default. It must not change under a pending plan's feet
	// by much: a row's storage date depends on it only at the edge of retention.
	Keep func(event.TenantID) uint16
	// LastSeq is the newest sequence of the bus. If the worker's position lies beyond it the bus was replaced, and the
	// worker begins anew; heads still drop repeats. May be nil.
	LastSeq func(ctx context.Context) (uint64, error)
	// Doubt is an instant, UTC nanoseconds: rows of batches sealed before it may be in the store already, since the hub was restored then
	// from a copy whose parts are not equally old. They are counted before they are stored. 0: there is no doubt.
	Doubt int64

	MaxRows       int           // of one plan; default 50,000
	Linger        time.Duration // how long rows wait for more before they are stored; default 1 s, twice that when very many come. Alerts do not wait
	UrgentLinger  time.Duration // the same once there is an urgent batch, whose alert somebody may open; default 300 ms
	SnapshotEvery time.Duration // default 30 s
	LeaseTTL      time.Duration // default 15 s
	Grace         time.Duration // how long Run goes on after its context ends, to finish what is under way; default 20 s

	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics are registered
	// After is the worker, now ended, whose place this one takes in the same process: its counts go on, and Registerer is not used.
	After *Worker

	// seam is called before and after each step that has an effect; an error stops the worker there, as a crash would.
	seam func(step string) error
}

// Worker follows one shard. Run may be called once.
type Worker struct {
	o   Options
	log *slog.Logger
	m   *metrics

	lease      Lease // as taken; never changed after
	planned    int64 // number of the last plan begun
	fenced     atomic.Bool
	lastInsert atomic.Int64 // nanoseconds
	position   uint64       // everything up to here is done
	covered    uint64       // the detector's snapshot covers everything up to here
	seen       uint64       // the detector has processed everything up to here
	pending    []Plan
	heads      map[event.StreamID]uint64
	again      map[event.StreamID]uint64 // heads of the replay
	aside      map[batchKey][]uint32     // of the replay: events that the rules have not seen
	tried      map[string]bool           // tries of dead letters that were taken since the newest cut
	triedOnce  map[string]bool           // and before it, while plans from before it may be under way

	acks    chan uint64
	ackDone chan struct{} // closed when the reader has ended
	e       event.Event
	free    sync.Pool // Block
}

// New checks the options.
func New(o Options) (*Worker, error) {
	if o.Feed == nil || o.Blobs == nil || o.Plans == nil || o.Store == nil {
		return nil, errors.New("worker: feed, blobs, plans and store must be given")
	}
	if (o.Detect == nil) != (o.Snapshots == nil) {
		return nil, errors.New("worker: a detector needs a place for its snapshots, and the other way round")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Linger, time.Second)
	def(&o.UrgentLinger, 300*time.Millisecond)
	def(&o.SnapshotEvery, 30*time.Second)
	def(&o.LeaseTTL, 15*time.Second)
	def(&o.Grace, 20*time.Second)
	if o.Shard == "" {
		o.Shard = "all"
	}
	if o.Holder == "" {
		o.Holder = "hub"
	}
	if o.MaxRows <= 0 {
		o.MaxRows = 50_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	w := &Worker{o: o, log: o.Logger, heads: map[event.StreamID]uint64{}, again: map[event.StreamID]uint64{}, tried: map[string]bool{}, acks: make(chan uint64, 1), ackDone: make(chan struct{})}
	var err error
	if o.After != nil {
		w.m, w.o.After = o.After.m, nil
		w.m.restarts.Add(1)
	} else if w.m, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	w.free.New = func() any { return o.Store.NewBlock() }
	w.m.running.Add(1) // until Run returns: one that is about to run is not one that has stopped
	return w, nil
}

// Run works until ctx ends, then finishes what is under way (at most Grace), takes a snapshot and gives the lease up. Any
// error means that the worker's state in memory is not to be trusted any more: make a new Worker, with a feed opened anew.
func (w *Worker) Run(ctx context.Context) error {
	defer w.m.running.Add(^uint64(0))
	if err := w.acquire(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	// work outlives ctx by the grace period, so that a stop does not leave a plan half done.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stopGrace := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(w.o.Grace, func() { cancel(errors.New("the grace period is over")) })
		context.AfterFunc(work, func() { t.Stop() })
	})
	defer stopGrace()
	if err := w.begin(work); err != nil {
		return err
	}

	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(nil)
	group.Go(func() { w.renew(work, cancel) })
	batches := make(chan *opened, 16)
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	group.Go(func() {
		defer close(batches)
		w.read(reading, work, batches)
	})
	err := w.loop(work, batches)
	stopReading()
	for o := range batches { // let the reader go
		o.release()
	}
	select {
	case seq := <-w.acks: // came too late for the reader
		w.acknowledge(work, seq)
	default:
	}
	if w.fenced.Load() {
		err = ErrFenced
	}
	if err != nil {
		return fmt.Errorf("worker %s: %w", w.o.Shard, err)
	}
	if err := w.o.Plans.Release(work, w.lease); err != nil {
		return fmt.Errorf("worker %s: give the lease up: %w", w.o.Shard, err)
	}
	return nil
}

// acquire waits for the lease.
func (w *Worker) acquire(ctx context.Context) error {
	for {
		l, err := w.o.Plans.Acquire(ctx, w.o.Shard, w.o.Holder, w.o.Now(), w.o.LeaseTTL)
		if err == nil {
			w.lease = l
			return nil
		}
		if !errors.Is(err, ErrHeld) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.o.LeaseTTL / 3):
		}
	}
}

func (w *Worker) renew(ctx context.Context, stop context.CancelCauseFunc) {
	t := time.NewTicker(w.o.LeaseTTL / 3)
	defer t.Stop()
	good := w.o.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := w.o.Now()
		err := w.o.Plans.Renew(ctx, w.lease, now.Add(w.o.LeaseTTL))
		switch {
		case err == nil:
			good = now
		case errors.Is(err, ErrFenced), now.Sub(good) > w.o.LeaseTTL && ctx.Err() == nil:
			w.fenced.Store(true)
			stop(ErrFenced)
			return
		}
	}
}

// begin reads where the worker stood.
func (w *Worker) begin(ctx context.Context) error {
	var err error
	w.position, w.planned = w.lease.Position, w.lease.Planned
	if w.pending, err = w.o.Plans.Pending(ctx, w.o.Shard); err != nil {
		return err
	}
	if w.o.LastSeq != nil {
		last, err := w.o.LastSeq(ctx)
		if err != nil {
			return fmt.Errorf("worker: %w", err)
		}
		if last < w.position {
			w.log.Warn("the bus is younger than the worker's position: it was replaced, so the worker begins at its start; what is stored already is recognised by its stream and number",
				"position", w.position, "bus", last)
			w.position = 0
			w.pending = nil
			if err := w.o.Plans.Rewind(ctx, w.lease); err != nil {
				return err
			}
		}
	}
	if w.o.Detect != nil {
		seq, state, ok, err := w.o.Snapshots.Load(ctx, w.o.Shard)
		switch {
		case err != nil:
			w.log.Warn("the detector's snapshot cannot be read: its state is rebuilt from the batches the bus still holds", "error", err)
			if d, ok := w.o.Detect.(interface{ Forgotten() }); ok { // what took weeks to learn is not on the bus
				d.Forgotten()
			}
		case ok && seq <= w.position:
			if err := w.o.Detect.Restore(state); err != nil {
				w.log.Warn("the detector does not take its snapshot (rules may have changed): its state is rebuilt from the batches the bus still holds", "error", err)
			} else {
				w.covered, w.seen = seq, seq
			}
		}
	}
	if w.aside, err = w.o.Plans.unseen(ctx); err != nil {
		return err
	}
	if len(w.pending) > 0 {
		w.log.Info("plans were under way when the worker stopped and are redone", "plans", len(w.pending))
	}
	return nil
}

// loop works batches off as they come: decode, enrich, detect, alert at once. Their rows are gathered and stored in groups,
// each under a plan; the inserts go on beside it, in order. While the store is away the alerts go on, until the rows that
// wait for it fill their share of memory.
func (w *Worker) loop(ctx context.Context, batches <-chan *opened) error {
	jobs := make(chan *job, maxJobs)
	results := make(chan result, 2*maxJobs) // more than can be unread, so that the inserter never waits for us
	var inserting sync.WaitGroup
	inserting.Go(func() { w.insert(ctx, jobs, results) })
	defer inserting.Wait()
	defer close(jobs)
	inFlight, waiting := 0, 0 // plans and rows that are not done
	snapshot := time.NewTimer(w.o.SnapshotEvery)
	took := func(r result) error {
		inFlight--
		waiting -= r.rows
		if r.cut != nil {
			w.settled(r)
			snapshot.Reset(w.o.SnapshotEvery)
		}
		return r.err
	}
	// settle waits until at most that many plans and rows are under way.
	settle := func(plans, rows int) error {
		for inFlight > plans || inFlight > 0 && waiting > rows {
			if err := took(<-results); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		j       *job // being filled; nil between groups
		due     bool // a snapshot is due, as soon as no group is open
		flush   = time.NewTimer(time.Hour)
		closeAt time.Time
		sent    time.Time // when the last group was closed
		busy    bool      // it was large
	)
	defer snapshot.Stop()
	defer flush.Stop()
	// send closes the group: its plan is durable before its rows go anywhere.
	send := func() error {
		done := j
		j = nil
		sent, busy = time.Now(), done.rows >= manyRows
		if err := w.close(ctx, done); err != nil {
			return err
		}
		if err := settle(maxJobs-1, maxWaiting*w.o.MaxRows-done.rows); err != nil {
			return err
		}
		inFlight++
		waiting += done.rows
		jobs <- done // there is room
		return nil
	}
	for {
		if due && j == nil && inFlight < maxJobs {
			due = false
			if len(w.heads) > maxHeads {
				if err := settle(0, 0); err != nil {
					return err
				}
				clear(w.heads)
			}
			c, err := w.cut()
			if err != nil {
				return err
			}
			if c == nil {
				snapshot.Reset(w.o.SnapshotEvery)
			} else { // kept behind the plans that it covers; alerts do not wait for their rows
				inFlight++
				jobs <- &job{cut: c} // there is room
			}
		}
		select {
		case o, more := <-batches:
			if !more {
				if j != nil && j.redo {
					// Not all of a pending plan's messages have come: it stays for the next start, with the older snapshot.
					return settle(0, 0)
				}
				if j != nil {
					if err := send(); err != nil {
						return err
					}
				}
				if err := settle(0, 0); err != nil {
					return err
				}
				c, err := w.cut()
				if err != nil || c == nil {
					return err
				}
				r := w.keep(ctx, c)
				w.settled(r)
				return r.err
			}
			if o.msg.Seq <= w.position {
				w.replay(o)
				o.release()
				continue
			}
			if j == nil {
				j = w.start(o)
				wait := w.pace(w.o.Linger)
				if busy { // an insert costs nearly the same for ten thousand rows as for fifty
					wait = max(wait, busyLinger*w.o.Linger)
				}
				closeAt = time.Now().Add(wait)
				flush.Reset(wait)
			}
			// What is there already goes in as well, so that one transaction takes the detections of a burst.
			for o != nil {
				// Where urgent batches come all the time, each would otherwise have an insert of its own: they share one a linger.
				if wait := max(w.pace(w.o.UrgentLinger), w.o.Linger-time.Since(sent)); o.n.Urgent && time.Until(closeAt) > wait {
					closeAt = time.Now().Add(wait)
					flush.Reset(wait)
				}
				err := w.add(ctx, j, o)
				o.release()
				if err != nil {
					return err
				}
				o = nil
				if !j.full(w.o.MaxRows) && !j.told() {
					select {
					case o = <-batches: // nil when it is closed, which is seen above
					default:
					}
				}
			}
			if err := w.alert(ctx, j); err != nil {
				return err
			}
			if j.full(w.o.MaxRows) {
				if err := send(); err != nil {
					return err
				}
			}
		case <-flush.C:
			if j != nil && !j.redo {
				if err := send(); err != nil {
					return err
				}
			}
		case <-snapshot.C:
			due = true
		case r := <-results:
			if err := took(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pace stretches a linger on a slow or busy machine, so that small inserts take at most a third of the time.
func (w *Worker) pace(linger time.Duration) time.Duration {
	return max(linger, min(3*time.Duration(w.lastInsert.Load()), 3*time.Second))
}

const (
	manyRows   = 10_000 // of one plan: from here on events come so fast that it pays to wait longer for more of them
	busyLinger = 2      // times as long

	maxJobs       = 64   // plans under way
	maxWaiting    = 4    // rows under way, in largest groups
	maxGroup      = 2000 // batches of one plan: tiny ones of many collectors
	maxDetections = 1000 // taken into one transaction

	maxHeads = 500_000 // streams in memory, about 40 bytes each: a cache, while no plan is under way
)

func (w *Worker) step(name string) error {
	if w.o.seam != nil {
		return w.o.seam(name)
	}
	return nil
}

// persist repeats f until it succeeds, ctx ends, or the error is not one that time heals.
func (w *Worker) persist(ctx context.Context, what string, f func() error) error {
	wait := 50 * time.Millisecond
	for {
		err := f()
		if err == nil {
			return nil
		}
		var p interface{ Permanent() bool }
		if errors.Is(err, ErrFenced) || errors.As(err, &p) && p.Permanent() {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
		}
		w.m.retries.Add(1)
		w.log.Warn("the worker cannot go on and tries again", "step", what, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(wait):
		}
		wait = min(2*wait, 5*time.Second)
	}
}
