// Package worker turns batches into stored events and alerts, each exactly once.
//
// It reads the bus: word of each batch, in order, for the partitions of the shard it holds by lease; and the blob store: the
// batches themselves. It writes rows (Store), detections (Apply) and, in the scheme's database, its own memory (Plans): the
// lease, the plan under way, the head of every stream, and what could not be processed.
//
// The life of a group of batches (up to 50,000 events or a fifth of a second, less when one is urgent):
//
//	fetch    from the bus; blob read, digest compared, decompressed, lines and root checked; a repeat (at or below its
//	         stream's head) is dropped, a batch that fails is put aside with its reason
//	plan     the sequences, a digest over them, event.ingested and the versions in use are made durable
//	decode, enrich, detect, make rows: in memory
//	alert    detections are applied; each carries a key, so a second time changes nothing
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
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
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

	MaxRows       int           // of one plan; default 50,000
	Linger        time.Duration // how long a group waits for more; default 200 ms
	UrgentLinger  time.Duration // the same once it has an urgent batch; default 10 ms
	SnapshotEvery time.Duration // default 30 s
	LeaseTTL      time.Duration // default 15 s
	Grace         time.Duration // how long Run goes on after its context ends, to finish what is under way; default 20 s

	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics are registered

	// seam is called before and after each step that has an effect; an error stops the worker there, as a crash would.
	seam func(step string) error
}

// Worker follows one shard. Run may be called once.
type Worker struct {
	o   Options
	log *slog.Logger
	m   *metrics

	lease    Lease
	fenced   atomic.Bool
	position uint64 // everything up to here is done
	covered  uint64 // the detector's snapshot covers everything up to here
	seen     uint64 // the detector has processed everything up to here
	pending  []Plan
	heads    map[event.StreamID]uint64
	again    map[event.StreamID]uint64 // heads of the replay

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
	def(&o.Linger, 200*time.Millisecond)
	def(&o.UrgentLinger, 10*time.Millisecond)
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
	w := &Worker{o: o, log: o.Logger, heads: map[event.StreamID]uint64{}, again: map[event.StreamID]uint64{}, acks: make(chan uint64, 1), ackDone: make(chan struct{})}
	var err error
	if w.m, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	w.free.New = func() any { return o.Store.NewBlock() }
	return w, nil
}

// Run works until ctx ends, then finishes what is under way (at most Grace), takes a snapshot and gives the lease up. Any
// error means that the worker's state in memory is not to be trusted any more: make a new Worker, with a feed opened anew.
func (w *Worker) Run(ctx context.Context) error {
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
	failed := make(chan error, 1)
	group.Go(func() {
		defer close(batches)
		if err := w.read(reading, work, batches); err != nil {
			failed <- err
		}
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
	if err == nil {
		select {
		case err = <-failed:
		default:
		}
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
	w.position = w.lease.Position
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
		case ok && seq <= w.position:
			if err := w.o.Detect.Restore(state); err != nil {
				w.log.Warn("the detector does not take its snapshot (rules may have changed): its state is rebuilt from the batches the bus still holds", "error", err)
			} else {
				w.covered, w.seen = seq, seq
			}
		}
	}
	if len(w.pending) > 0 {
		w.log.Info("plans were under way when the worker stopped and are redone", "plans", len(w.pending))
	}
	return nil
}

// loop gathers groups and works them off; the inserts go on beside it, in order, a few plans behind.
func (w *Worker) loop(ctx context.Context, batches <-chan *opened) error {
	jobs := make(chan *job, 2)
	results := make(chan error, 16) // more than can be unread, so that the inserter never waits for us
	var inserting sync.WaitGroup
	inserting.Go(func() { w.insert(ctx, jobs, results) })
	defer inserting.Wait()
	defer close(jobs)
	inFlight := 0
	settle := func(all bool) error {
		for inFlight > 0 {
			var err error
			if all {
				err = <-results
			} else {
				select {
				case err = <-results:
				default:
					return nil
				}
			}
			inFlight--
			if err != nil {
				return err
			}
		}
		return nil
	}
	lastSnapshot := w.o.Now()
	for {
		g, more, err := w.gather(ctx, batches)
		if err != nil {
			return err
		}
		if len(g.batches) > 0 {
			j, err := w.plan(ctx, g)
			if err != nil {
				return err
			}
			select {
			case jobs <- j:
				inFlight++
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := settle(false); err != nil {
			return err
		}
		if now := w.o.Now(); !more || now.Sub(lastSnapshot) >= w.o.SnapshotEvery {
			// The detector must not be ahead of what is done: a plan under way is redone with its detections.
			if err := settle(true); err != nil {
				return err
			}
			if err := w.snapshot(ctx); err != nil {
				return err
			}
			lastSnapshot = now
		}
		if !more {
			return nil
		}
	}
}

// group is what one plan is made of. plan is set when it is an old one that is redone.
type group struct {
	batches []*opened
	rows    int
	urgent  bool
	redo    *Plan
}

// gather collects the next group. more is false when the reader has ended. It returns an empty group after a snapshot
// interval without anything to do.
func (w *Worker) gather(ctx context.Context, batches <-chan *opened) (g group, more bool, err error) {
	idle := time.NewTimer(w.o.SnapshotEvery)
	defer idle.Stop()
	var flush <-chan time.Time
	var linger *time.Timer
	defer func() {
		if linger != nil {
			linger.Stop()
		}
	}()
	for {
		// A plan that was under way takes exactly its own messages.
		if len(w.pending) > 0 && len(g.batches) > 0 && g.batches[len(g.batches)-1].msg.Seq >= w.pending[0].Last {
			p := w.pending[0]
			w.pending = w.pending[1:]
			if d := digestOf(w.o.Shard, p.Number, g.batches); d != p.Digest || len(g.batches) != p.Messages {
				return g, false, fmt.Errorf("plan %d is not what the bus holds now (%d messages from %d to %d, planned %d): the bus or the database was changed behind the worker's back",
					p.Number, len(g.batches), p.First, p.Last, p.Messages)
			}
			g.redo = &p
			return g, true, nil
		}
		select {
		case o, ok := <-batches:
			if !ok {
				if len(w.pending) > 0 {
					// Not all of the pending plan's messages have come: leave it for the next start.
					for _, o := range g.batches {
						o.release()
					}
					g.batches = nil
				}
				return g, false, nil
			}
			if o.msg.Seq <= w.position {
				w.replay(o)
				o.release()
				continue
			}
			g.batches = append(g.batches, o)
			g.rows += o.rows()
			if len(w.pending) > 0 {
				continue
			}
			if g.rows >= w.o.MaxRows || len(g.batches) >= maxGroup {
				return g, true, nil
			}
			wait := w.o.Linger
			if o.n.Urgent || g.urgent {
				g.urgent = true
				wait = w.o.UrgentLinger
			}
			if linger == nil || o.n.Urgent {
				if linger != nil {
					linger.Stop()
				}
				linger = time.NewTimer(wait)
				flush = linger.C
			}
		case <-flush:
			return g, true, nil
		case <-idle.C:
			if len(g.batches) == 0 {
				return g, true, nil
			}
			idle.Reset(w.o.SnapshotEvery)
		case <-ctx.Done():
			return g, false, context.Cause(ctx)
		}
	}
}

// maxGroup bounds the batches of one plan: tiny batches of many collectors.
const maxGroup = 2000

// digestOf names a plan by what it is made of.
func digestOf(shard string, number int64, batches []*opened) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "tocsin-plan-v1\n%s\n%d\n", shard, number)
	var b [8]byte
	for _, o := range batches {
		binary.BigEndian.PutUint64(b[:], o.msg.Seq)
		h.Write(b[:])
		sum := sha256.Sum256(o.msg.Data)
		h.Write(sum[:])
	}
	return [32]byte(h.Sum(nil))
}

// job is a plan whose effects in memory are ready.
type job struct {
	plan    Plan
	redo    bool
	blocks  []Block
	heads   []Head
	dead    []Dead
	created int64 // the newest event's receipt at its collector, corrected
	got     int64 // the gate's newest receipt
	events  uint64
}

func (w *Worker) step(name string) error {
	if w.o.seam != nil {
		return w.o.seam(name)
	}
	return nil
}

// plan records the plan, decodes, enriches and detects, makes the rows, and applies the detections.
func (w *Worker) plan(ctx context.Context, g group) (*job, error) {
	p := Plan{
		Number: w.lease.Planned + 1, First: g.batches[0].msg.Seq, Last: g.batches[len(g.batches)-1].msg.Seq, Messages: len(g.batches),
		Ingested: w.o.Now().UnixNano(), Decoder: Decoder,
	}
	if w.o.Enrich != nil {
		p.Enricher = w.o.Enrich.Version()
	}
	if g.redo != nil {
		p = *g.redo
		w.m.redone.Add(1)
	} else {
		p.Digest = digestOf(w.o.Shard, p.Number, g.batches)
		if err := w.step("plan before"); err != nil {
			return nil, err
		}
		if err := w.o.Plans.Record(ctx, w.lease, p); err != nil {
			return nil, fmt.Errorf("record plan %d: %w", p.Number, err)
		}
		w.lease.Planned = p.Number
		if err := w.step("plan after"); err != nil {
			return nil, err
		}
	}
	w.m.plans.Add(1)
	j := &job{plan: p, redo: g.redo != nil}
	if err := w.loadHeads(ctx, g.batches); err != nil {
		return nil, err
	}
	var dets []event.Detection
	var causes []int64 // when the collector received what made each detection
	block := w.free.Get().(Block)
	for _, o := range g.batches {
		start := time.Now()
		block = w.batch(o, j, block, &dets, &causes)
		w.m.decode.observe(time.Since(start))
		o.release()
	}
	if block.Len() > 0 {
		j.blocks = append(j.blocks, block)
	} else {
		w.free.Put(block)
	}
	w.seen = p.Last
	if len(dets) > 0 && w.o.Apply != nil {
		if err := w.step("alert before"); err != nil {
			return nil, err
		}
		if err := w.persist(ctx, "apply the detections", func() error { return w.o.Apply(ctx, w.name(p), dets) }); err != nil {
			return nil, err
		}
		if err := w.step("alert after"); err != nil {
			return nil, err
		}
		now := w.o.Now().UnixNano()
		w.m.detections.Add(uint64(len(dets)))
		for _, c := range causes {
			if c > 0 && !j.redo {
				w.m.alerted.observe(time.Duration(now - c))
			}
		}
		if !j.redo && j.got > 0 {
			w.m.gateAlerted.observe(time.Duration(now - j.got))
		}
	}
	return j, nil
}

func (w *Worker) name(p Plan) string {
	return w.o.Shard + "/" + strconv.FormatInt(p.Number, 10) + "/" + hex.EncodeToString(p.Digest[:8])
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

func (w *Worker) loadHeads(ctx context.Context, batches []*opened) error {
	var missing []event.StreamID
	for _, o := range batches {
		if o.reason == "" {
			if _, ok := w.heads[o.stream]; !ok {
				missing = append(missing, o.stream)
				w.heads[o.stream] = 0
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	got, err := w.o.Plans.HeadsOf(ctx, missing)
	if err != nil {
		return err
	}
	for s, seq := range got {
		w.heads[s] = seq
	}
	return nil
}

// insert stores the rows of one plan after another and marks them done. It ends with jobs.
func (w *Worker) insert(ctx context.Context, jobs <-chan *job, results chan<- error) {
	dead := false
	for j := range jobs {
		if dead {
			results <- nil
			continue
		}
		err := w.finish(ctx, j)
		dead = err != nil
		results <- err
	}
}

func (w *Worker) finish(ctx context.Context, j *job) error {
	start := time.Now()
	for i, b := range j.blocks {
		token := w.name(j.plan) + "/" + strconv.Itoa(i) + "/" + hex.EncodeToString(j.plan.Digest[:])
		if err := w.step("insert before"); err != nil {
			return err
		}
		redo := j.redo
		err := w.persist(ctx, "store events", func() error {
			err := w.o.Store.Insert(ctx, token, b, redo)
			redo = true // whatever it did, the next try looks first
			return err
		})
		if err != nil {
			return fmt.Errorf("store plan %d: %w", j.plan.Number, err)
		}
		if err := w.step("insert after"); err != nil {
			return err
		}
	}
	w.m.store.observe(time.Since(start))
	if err := w.step("done before"); err != nil {
		return err
	}
	now := w.o.Now().UnixNano()
	if err := w.persist(ctx, "mark a plan done", func() error { return w.o.Plans.Done(ctx, w.lease, j.plan, j.heads, j.dead, now) }); err != nil {
		return fmt.Errorf("mark plan %d done: %w", j.plan.Number, err)
	}
	if err := w.step("done after"); err != nil {
		return err
	}
	if !j.redo && j.created > 0 {
		w.m.stored.observe(time.Duration(now - j.created))
	}
	w.m.events.Add(j.events)
	w.m.lastDone.Store(now)
	for _, b := range j.blocks {
		b.Reset()
		w.free.Put(b)
	}
	w.m.position.Store(j.plan.Last)
	return nil
}

// snapshot keeps the detector's state and lets the bus forget what it covers. Nothing is under way.
func (w *Worker) snapshot(ctx context.Context) error {
	const maxHeads = 500_000 // streams; about 40 bytes each
	if len(w.heads) > maxHeads {
		clear(w.heads) // a cache, while no plan is under way
	}
	if w.seen > w.position {
		w.position = w.seen
	}
	if w.position <= w.covered {
		return nil
	}
	seq := w.position
	if w.o.Detect != nil {
		state, err := w.o.Detect.Snapshot()
		if err != nil {
			return fmt.Errorf("snapshot of the detector: %w", err)
		}
		if err := w.step("snapshot before"); err != nil {
			return err
		}
		if err := w.o.Snapshots.Save(ctx, w.o.Shard, seq, state); err != nil {
			// The bus keeps more for longer; nothing is lost.
			w.log.Warn("the detector's snapshot cannot be saved", "error", err)
			return nil
		}
		if err := w.step("snapshot after"); err != nil {
			return err
		}
	}
	w.covered = seq
	if err := w.step("ack before"); err != nil {
		return err
	}
	w.ack(ctx, seq)
	return w.step("ack after")
}
