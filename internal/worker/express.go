package worker

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"tocsin/internal/bus"
	"tocsin/internal/event"
)

// The express lane. Batches are worked off in the bus's order, and when more comes than can be worked off, what is urgent would wait behind what is not: seconds,
// or minutes after the store was away. So word of batches is read far ahead of the work (it is small), and an urgent batch that has many before it is opened at
// once and shown to enrichment and rules, and what they find is applied, before its turn. Its events are kept in memory; at its turn they become rows like
// all others, in the bus's order, so that plans, heads and sums are what they would have been.
//
// The detector has then seen a batch that lies beyond what is done. Snapshots name such batches (Ahead), and after a crash neither the replay nor the work shows
// them to it again: a count is exact whatever overtook whatever. What a crash lost between the look and the next snapshot is seen at its turn, as ever.

// entry is word of a batch in the queue.
type entry struct {
	msg     bus.Msg
	n       bus.Notice
	err     error // the notice cannot be read
	claimed atomic.Bool
	o       *opened       // opened by the express lane; nil: it had no room
	done    chan struct{} // closed when the express lane has done with it
}

const (
	queueMost   = 8192 // notices read ahead, some hundred bytes each
	expressMost = 256  // of them urgent, and waiting to be opened
	expressFrom = 4    // in the queue, beside those that are opened: fewer are worked off as fast
	expressRows = 2000 // of one batch: more are no news of a moment
	expressRoom = 32 << 20
)

func newEntry(m bus.Msg) *entry {
	e := &entry{msg: m, done: make(chan struct{})}
	e.n, e.err = bus.ParseNotice(m.Data)
	return e
}

// mayOvertake says whether the rules may see the batch before its turn.
func (e *entry) mayOvertake() bool {
	return e.err == nil && e.n.Urgent && !e.n.Quarantined && e.n.Retry == nil && e.n.Events <= expressRows
}

// inTurn gives the batch at its turn: opened by open, or by the express lane, when that has done with it.
func (e *entry) inTurn(ctx context.Context, open func() (*opened, error)) (*opened, error) {
	if e.claimed.CompareAndSwap(false, true) {
		return open()
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e.o != nil {
		return e.o, nil
	}
	return open()
}

// overtake opens urgent batches before their turn and has the loop look at them, until ctx ends.
func (w *Worker) overtake(ctx context.Context, express <-chan *entry) {
	memory := newBudget(expressRoom)
	for {
		var e *entry
		select {
		case e = <-express:
		case <-ctx.Done():
			return
		}
		if !e.claimed.CompareAndSwap(false, true) {
			continue // its turn has come
		}
		o, err := w.open(ctx, e, memory, false)
		if err != nil {
			return
		}
		if e.o = o; o == nil || o.reason != "" {
			close(e.done)
			continue
		}
		o.looked = e.done
		select {
		case w.express <- o:
		case <-ctx.Done():
			return
		}
	}
}

// seen is an event that the rules have seen before its turn, or why they could not.
type seen struct {
	e   event.Event
	err error
}

// lookAll looks at what has come by the express lane, o first if there is one, and applies what it finds in one transaction.
func (w *Worker) lookAll(ctx context.Context, o *opened) error {
	var f found
	plan := ""
	for n := 0; n < expressMost; n++ {
		if o == nil {
			select {
			case o = <-w.express:
			default:
			}
		}
		if o == nil {
			break
		}
		if plan == "" {
			plan = "express/" + strconv.FormatUint(o.msg.Seq, 10)
		}
		err := w.look(ctx, o, &f)
		if o = nil; err != nil {
			return err
		}
	}
	return w.alert(ctx, plan, &f, false)
}

// look shows an urgent batch to the rules before its turn and gathers what they find. While what was done before a start is replayed or redone, and where the
// batch is a repeat, it waits for its turn.
func (w *Worker) look(ctx context.Context, o *opened, f *found) error {
	defer close(o.looked)
	if o.msg.Seq <= w.position || w.seen < w.position || len(w.pending) > 0 {
		return nil
	}
	if err := w.loadHead(ctx, o); err != nil {
		return err
	}
	key := batchKey{o.stream, o.n.Seq}
	if _, ok := w.early[key]; ok || o.n.Seq <= w.heads[o.stream] {
		return nil
	}
	w.m.gate.observe(o.got.Sub(time.Unix(0, o.n.Received)))
	events := make([]seen, len(o.body.Lines()))
	for i := range events {
		events[i].err = w.see(&events[i].e, o, i, f, w.o.Now().UnixNano(), false)
	}
	o.early = events
	w.early[key] = struct{}{}
	w.m.overtook.Add(1)
	return nil
}
