package worker

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/bus"
	"tocsin/internal/event"
)

// opened is a batch that was fetched and checked, or the reason why it cannot be.
type opened struct {
	msg    bus.Msg
	n      bus.Notice
	m      batch.Manifest
	stream event.StreamID // as the notice names it; zero when that cannot be read
	body   *batch.Body
	reason string // not empty: put it aside
	got    time.Time
	memory *budget
	size   int64
}

var bodies = sync.Pool{New: func() any { return &batch.Body{} }}

// release gives the body's memory back.
func (o *opened) release() {
	if o.body != nil {
		if o.size <= 4<<20 {
			bodies.Put(o.body)
		}
		o.body = nil
	}
	o.memory.give(o.size)
	o.size = 0
}

// budget bounds the bytes of decompressed batches that wait.
type budget struct {
	mu   sync.Mutex
	free int64
	more chan struct{}
}

func newBudget(n int64) *budget { return &budget{free: n, more: make(chan struct{}, 1)} }

func (b *budget) take(ctx context.Context, n int64) error {
	for {
		b.mu.Lock()
		if b.free >= n {
			b.free -= n
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *budget) give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.free += n
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

const (
	readAhead = 128 << 20 // bytes of decompressed batches in memory, above one plan of small ones
	fetchMany = 64
	fetchWait = 250 * time.Millisecond
)

// read fetches, opens and hands over batches until ctx ends; it also acknowledges, since a feed belongs to one goroutine.
func (w *Worker) read(ctx, work context.Context, out chan<- *opened) {
	memory := newBudget(readAhead)
	defer close(w.ackDone)
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		select {
		case seq := <-w.acks:
			w.acknowledge(work, seq)
		default:
		}
		msgs, err := w.o.Feed.Fetch(ctx, fetchMany, fetchWait)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			w.log.Warn("the bus does not answer, trying again", "error", err)
			w.m.retries.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, 5*time.Second)
			continue
		}
		wait = 100 * time.Millisecond
		for _, m := range msgs {
			o, err := w.open(ctx, m, memory)
			if err != nil {
				return // ctx ended; the message comes again
			}
			select {
			case out <- o:
			case <-ctx.Done():
				o.release()
				return
			}
		}
	}
}

// open brings one batch into memory. A batch that can never be read gets a reason; a store that does not answer is waited for.
// The only error is the context's.
func (w *Worker) open(ctx context.Context, m bus.Msg, memory *budget) (*opened, error) {
	o := &opened{msg: m, got: w.o.Now(), memory: memory}
	var err error
	if o.n, err = bus.ParseNotice(m.Data); err != nil {
		o.reason = err.Error()
		return o, nil
	}
	o.stream = batch.Stream{Collector: o.n.Collector, Tenant: o.n.Tenant, Lane: batch.Lane(o.n.Lane), Epoch: o.n.Epoch}.ID()
	var sub []byte
	wait := 50 * time.Millisecond
	for {
		if sub, err = w.o.Blobs.Get(ctx, o.n); err == nil {
			break
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if w.o.Blobs.Missing(err) {
			o.reason = "its blob: " + err.Error()
			return o, nil
		}
		w.m.retries.Add(1)
		w.log.Warn("a batch cannot be read from the blob store, trying again", "tenant", o.n.Tenant, "collector", o.n.Collector, "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, 5*time.Second)
	}
	envelope, packed, err := batch.SplitSubmission(sub)
	if err != nil {
		o.reason = err.Error()
		return o, nil
	}
	manifest, digest, err := batch.Parse(envelope)
	switch {
	case digest != o.n.Digest:
		// The gate verified the signature over these very bytes and named their digest.
		o.reason = "the blob is not the batch that the gate accepted: its digest differs"
	case err != nil:
		o.reason = err.Error()
	case manifest.Stream.Tenant != o.n.Tenant || manifest.Stream.Collector != o.n.Collector || manifest.Seq != o.n.Seq:
		o.reason = "the manifest names another stream than the gate did"
	}
	if o.reason != "" {
		return o, nil
	}
	if err := memory.take(ctx, int64(manifest.Expanded)); err != nil {
		return nil, err
	}
	o.size = int64(manifest.Expanded)
	body := bodies.Get().(*batch.Body)
	// The digest was compared with the one of the batch that the gate opened and checked.
	if err := body.Reopen(manifest, packed); err != nil {
		bodies.Put(body)
		o.release()
		o.reason = err.Error()
		return o, nil
	}
	o.m, o.body = manifest, body
	return o, nil
}

// ack hands a sequence to the reader; if that has ended, it acknowledges itself.
func (w *Worker) ack(ctx context.Context, seq uint64) {
	select {
	case <-w.acks: // an older one that was not taken yet
	default:
	}
	select {
	case <-w.ackDone:
		w.acknowledge(ctx, seq)
	default:
		w.acks <- seq // there is room: nobody else puts one in
	}
}

func (w *Worker) acknowledge(ctx context.Context, seq uint64) {
	if err := w.o.Feed.AckThrough(ctx, seq); err != nil {
		// The bus keeps the messages; the next acknowledgement covers them.
		w.log.Warn("the bus does not take an acknowledgement", "error", err)
		w.m.retries.Add(1)
	}
}

// prepare decodes line i of the batch into w.e and gives it its place.
func (w *Worker) prepare(o *opened, i int, ingested int64) error {
	e := &w.e
	e.Reset()
	if err := event.DecodeJSON(e, o.body.Lines()[i]); err != nil {
		return err
	}
	e.ID = event.ID{Stream: o.stream, Seq: o.m.Seq, Index: uint32(i)}
	e.Tenant = o.m.Stream.Tenant
	e.Ingested = ingested
	if e.Created == 0 {
		e.Created = o.m.Created.UnixNano()
	}
	// What the hub says of an event, whatever the event says itself.
	e.SetString(event.TocsinCollectorID, o.m.Stream.Collector)
	e.Del(event.TocsinTenant)
	if o.n.Quarantined {
		e.SetBool(event.TocsinCollectorQuarantined, true)
	} else {
		e.Del(event.TocsinCollectorQuarantined)
	}
	if w.o.Enrich != nil {
		w.o.Enrich.Enrich(e)
	}
	return nil
}

// replay feeds the detector with a batch that is done: its state since the snapshot is rebuilt, what it finds was said before.
func (w *Worker) replay(o *opened) {
	w.m.replayed.Add(1)
	defer func() { w.seen = max(w.seen, o.msg.Seq) }()
	if o.msg.Seq <= w.covered || w.o.Detect == nil || o.body == nil || o.n.Quarantined {
		return
	}
	aside := w.aside[batchKey{o.stream, o.m.Seq}]
	again := func(i int) {
		if o.n.Retry == nil && slices.Contains(aside, uint32(i)) {
			return // it found a fault then and may not now; it is seen when it is tried again
		}
		_ = w.guarded(func() error { // what it says was said, and put aside, the first time
			err := w.prepare(o, i, o.n.Received)
			if err == nil {
				w.o.Detect.Process(&w.e, o.n.Received)
			}
			return err
		})
	}
	if r := o.n.Retry; r != nil {
		if w.tried[r.ID] || w.triedOnce[r.ID] || r.Detected {
			return
		}
		w.tried[r.ID] = true
		if len(r.Places) > 0 {
			for _, i := range r.Places {
				if int(i) < len(o.body.Lines()) {
					again(int(i))
				}
			}
			return
		}
	} else {
		if o.m.Seq <= w.again[o.stream] {
			return
		}
		w.again[o.stream] = o.m.Seq
	}
	for i := range o.body.Lines() {
		again(i)
	}
}

// guarded turns a panic into an error, so that one event which finds a fault in decoder, enricher or detector is put aside. Otherwise it would
// end the hub, come again after the restart, and end it again.
func (w *Worker) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.log.Error("an event finds a fault in this program and is put aside", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("a fault of this program: %v", p)
		}
	}()
	return f()
}

const maxDeadPerBatch = 20

// meta is what the rows of a batch need beside their events.
func (w *Worker) meta(o *opened) Meta {
	m := Meta{ClockOffset: o.m.ClockOffset, Quarantined: o.n.Quarantined}
	if w.o.Keep != nil {
		m.Keep = w.o.Keep(o.m.Stream.Tenant)
	}
	return m
}

// row makes event i of the batch ready in w.e and, unless the rules have seen it before, gathers what they say of it. After an error nothing
// of it is left.
func (w *Worker) row(o *opened, i int, j *job, detected bool) error {
	e := &w.e
	from := len(j.dets)
	err := w.guarded(func() error {
		if err := w.prepare(o, i, j.plan.Ingested); err != nil || o.n.Quarantined || detected {
			return err
		}
		if e.IsDetection() {
			if d, err := event.ToDetection(e); err != nil {
				w.m.badDetections.Add(1)
			} else {
				// Keys are the senders' words: each in its own member's space, or one could silence another.
				d.Key = "site/" + strconv.FormatUint(uint64(d.Tenant), 10) + "/" + d.Key
				j.dets = append(j.dets, d)
			}
		}
		if w.o.Detect != nil {
			j.dets = append(j.dets, w.o.Detect.Process(e, o.n.Received)...)
		}
		return nil
	})
	if err != nil {
		j.dets = j.dets[:from]
		return err
	}
	created := e.Created + int64(o.m.ClockOffset)
	if o.n.Retry == nil { // how long a letter lay is not how long the line takes
		j.created = max(j.created, created)
	}
	for range len(j.dets) - from {
		j.causes = append(j.causes, cause{created, o.n.Received})
	}
	return nil
}

// batch makes the rows and detections of one batch.
func (w *Worker) batch(o *opened, j *job) {
	w.m.batches.Add(1)
	putAside := func(index int, places []uint32, events int, reason string) {
		w.m.dead.Add(uint64(events))
		j.dead = append(j.dead, Dead{BusSeq: o.msg.Seq, Index: index, Places: places, Stream: o.stream, Seq: o.n.Seq, Tenant: o.n.Tenant, Collector: o.n.Collector, Digest: fmt.Sprintf("%x", o.n.Digest), Events: events, Reason: strings.ToValidUTF8(reason, "?"), Notice: o.msg.Data})
	}
	known := o.stream != event.StreamID{}
	if known && o.n.Seq <= w.heads[o.stream] {
		w.m.repeats.Add(1)
		return
	}
	if known {
		w.heads[o.stream] = o.n.Seq
	}
	if o.reason != "" {
		w.m.aside.Add(1)
		w.log.Warn("a batch is put aside", "tenant", o.n.Tenant, "collector", o.n.Collector, "batch", o.n.Seq, "reason", o.reason)
		putAside(-1, nil, o.n.Events, o.reason)
		if known { // the gate gave a receipt for it: its collector's sum must name it
			j.heads = append(j.heads, Head{Stream: o.stream, Tenant: o.n.Tenant, Collector: o.n.Collector, Lane: o.n.Lane, Seq: o.n.Seq, Batches: 1, Dead: uint64(o.n.Events)})
			j.msgs = append(j.msgs, o.msg)
		}
		return
	}
	if o.m.Created.UnixNano()+int64(o.m.ClockOffset) < w.o.Doubt {
		j.doubt = true
	}
	h := Head{Stream: o.stream, Tenant: o.m.Stream.Tenant, Collector: o.m.Stream.Collector, Lane: string(o.m.Stream.Lane), Seq: o.m.Seq, Batches: 1}
	meta := w.meta(o)
	if !j.redo {
		w.m.gate.observe(o.got.Sub(time.Unix(0, o.n.Received)))
	}
	block := j.blocks[len(j.blocks)-1]
	var more []uint32 // what fails beyond maxDeadPerBatch shares one letter
	moreReason := ""
	for i := range o.body.Lines() {
		if err := w.row(o, i, j, false); err != nil {
			if h.Dead++; h.Dead <= maxDeadPerBatch {
				putAside(i, nil, 1, err.Error())
			} else {
				more, moreReason = append(more, uint32(i)), err.Error()
			}
			continue
		}
		if !block.Add(&w.e, meta) {
			block = w.free.Get().(Block)
			j.blocks = append(j.blocks, block)
			block.Add(&w.e, meta)
		}
		h.Events++
	}
	if len(more) > 0 {
		putAside(len(o.body.Lines()), more, len(more), "more events like this: "+moreReason)
	}
	j.events += h.Events
	j.rows += int(h.Events)
	j.heads = append(j.heads, h)
	j.msgs = append(j.msgs, o.msg)
}
