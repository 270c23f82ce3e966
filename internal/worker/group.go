package worker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"time"

	"tocsin/internal/bus"
	"tocsin/internal/event"
)

// job is a group of batches: rows and detections in memory, and what will be noted when all is stored.
type job struct {
	cut      *cut // this alone: no group, but the detector's state behind those before it
	plan     Plan
	redo     bool
	doubt    bool      // some of its rows may be stored already
	sum      hash.Hash // over the messages, for plan.Digest
	messages int
	last     uint64  // bus sequence of the newest message
	blocks   []Block // the last one is being filled
	rows     int
	heads    []Head
	msgs     []bus.Msg // of the heads
	dead     []Dead
	tried    []Tried
	events   uint64
	created  int64 // the newest event's receipt at its collector, corrected by its clock's offset

	dets   []event.Detection // not applied yet
	causes []cause           // one for each: when what made it was received
	since  time.Time         // when the oldest of them was found
}

type result struct {
	rows int
	cut  *cut // what came of it: kept, or not
	kept bool
	err  error
}

type cause struct{ created, received int64 }

// full says whether the group takes no more. A plan that is redone takes exactly its own messages.
func (j *job) full(maxRows int) bool {
	if j.redo {
		return j.last >= j.plan.Last
	}
	return j.rows >= maxRows || j.messages >= maxGroup
}

// start begins a group with its first batch: the oldest pending plan, or a new one.
func (w *Worker) start(o *opened) *job {
	j := &job{sum: sha256.New(), blocks: []Block{w.free.Get().(Block)}}
	if len(w.pending) > 0 {
		j.plan, j.redo = w.pending[0], true
		w.pending = w.pending[1:]
		w.m.redone.Add(1)
	} else {
		w.planned++
		j.plan = Plan{Number: w.planned, First: o.msg.Seq, Ingested: w.o.Now().UnixNano(), Decoder: Decoder}
		if w.o.Enrich != nil {
			j.plan.Enricher = w.o.Enrich.Version()
		}
	}
	w.m.plans.Add(1)
	fmt.Fprintf(j.sum, "tocsin-plan-v1\n%s\n%d\n", w.o.Shard, j.plan.Number)
	return j
}

// add decodes, enriches and detects one batch and makes its rows.
func (w *Worker) add(ctx context.Context, j *job, o *opened) error {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], o.msg.Seq)
	j.sum.Write(b[:])
	data := sha256.Sum256(o.msg.Data)
	j.sum.Write(data[:])
	j.messages++
	j.last = o.msg.Seq
	begin := time.Now()
	if o.n.Retry != nil {
		if err := w.retry(ctx, o, j); err != nil {
			return err
		}
	} else {
		if err := w.loadHead(ctx, o); err != nil {
			return err
		}
		w.batch(o, j)
	}
	if len(j.dets) > 0 && j.since.IsZero() {
		j.since = time.Now()
	}
	w.m.decode.observe(time.Since(begin))
	return nil
}

// alertSoon is how long detections wait for others of a burst, so that one transaction takes them.
const alertSoon = 50 * time.Millisecond

// told says whether the detections of the group are to be applied now.
func (j *job) told() bool {
	return len(j.dets) >= maxDetections || len(j.dets) > 0 && time.Since(j.since) >= alertSoon
}

// alert applies the detections made so far. Their keys do not depend on the plan, so this need not wait for it.
func (w *Worker) alert(ctx context.Context, j *job) error {
	if len(j.dets) == 0 {
		return nil
	}
	if w.o.Apply != nil {
		if err := w.step("alert before"); err != nil {
			return err
		}
		if err := w.persist(ctx, "apply the detections", func() error { return w.o.Apply(ctx, w.o.Shard+"/"+strconv.FormatInt(j.plan.Number, 10), j.dets) }); err != nil {
			return err
		}
		if err := w.step("alert after"); err != nil {
			return err
		}
	}
	now := w.o.Now().UnixNano()
	w.m.detections.Add(uint64(len(j.dets)))
	for _, c := range j.causes {
		if !j.redo { // a redo's times say how long the crash took
			w.m.alerted.observe(time.Duration(now - c.created))
			w.m.gateAlerted.observe(time.Duration(now - c.received))
		}
	}
	clear(j.dets)
	j.dets, j.causes, j.since = j.dets[:0], j.causes[:0], time.Time{}
	return nil
}

// close makes the group's plan durable, or checks that a pending one is what it was.
func (w *Worker) close(ctx context.Context, j *job) error {
	digest := [32]byte(j.sum.Sum(nil))
	w.seen = j.last
	if j.redo {
		if digest != j.plan.Digest || j.messages != j.plan.Messages || j.last != j.plan.Last {
			return fmt.Errorf("plan %d is not what the bus holds now (%d messages up to %d, planned were %d up to %d): the bus or the database was changed behind the worker's back",
				j.plan.Number, j.messages, j.last, j.plan.Messages, j.plan.Last)
		}
		return nil
	}
	j.plan.Digest, j.plan.Messages, j.plan.Last = digest, j.messages, j.last
	if err := w.step("plan before"); err != nil {
		return err
	}
	if err := w.persist(ctx, "record a plan", func() error { return w.o.Plans.Record(ctx, w.lease, j.plan) }); err != nil {
		return fmt.Errorf("record plan %d: %w", j.plan.Number, err)
	}
	return w.step("plan after")
}

func (w *Worker) name(p Plan) string {
	return w.o.Shard + "/" + strconv.FormatInt(p.Number, 10) + "/" + hex.EncodeToString(p.Digest[:])
}

// loadHead makes sure that the head of the batch's stream is in memory.
func (w *Worker) loadHead(ctx context.Context, o *opened) error {
	if _, ok := w.heads[o.stream]; ok || o.stream == (event.StreamID{}) {
		return nil
	}
	got, err := w.o.Plans.HeadsOf(ctx, []event.StreamID{o.stream})
	if err != nil {
		return err
	}
	w.heads[o.stream] = got[o.stream]
	return nil
}

// insert stores the rows of one plan after another and marks them done, and keeps the cuts between them. It ends with jobs.
func (w *Worker) insert(ctx context.Context, jobs <-chan *job, results chan<- result) {
	dead := false
	for j := range jobs {
		r := result{rows: j.rows}
		switch {
		case dead:
		case j.cut != nil:
			r = w.keep(ctx, j.cut)
		default:
			r.err = w.finish(ctx, j)
		}
		dead = dead || r.err != nil
		results <- r
	}
}

func (w *Worker) finish(ctx context.Context, j *job) error {
	start := time.Now()
	for i, b := range j.blocks {
		if b.Len() == 0 {
			continue
		}
		token := w.name(j.plan) + "/" + strconv.Itoa(i)
		if err := w.step("insert before"); err != nil {
			return err
		}
		redo := j.redo || j.doubt
		err := w.persist(ctx, "store events", func() error {
			err := w.o.Store.Insert(ctx, token, b, redo)
			redo = true // whatever it did, the next try looks first
			return err
		})
		var p interface{ Permanent() bool }
		if errors.As(err, &p) && p.Permanent() {
			w.putAside(j, err)
			break
		}
		if err != nil {
			return fmt.Errorf("store plan %d: %w", j.plan.Number, err)
		}
		if err := w.step("insert after"); err != nil {
			return err
		}
	}
	took := time.Since(start)
	w.m.store.observe(took)
	w.lastInsert.Store(int64(took))
	if err := w.step("done before"); err != nil {
		return err
	}
	now := w.o.Now().UnixNano()
	if err := w.persist(ctx, "mark a plan done", func() error { return w.o.Plans.Done(ctx, w.lease, j.plan, j.heads, j.dead, j.tried, now) }); err != nil {
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

// putAside gives up on a plan whose rows the store can never take: its batches become dead letters, and the line goes on.
func (w *Worker) putAside(j *job, cause error) {
	w.log.Error("the event store refuses the rows of a plan for good: its batches are put aside", "plan", j.plan.Number, "batches", len(j.heads), "events", j.events, "error", cause)
	refused := "the event store refused its rows: " + cause.Error()
	for i := range j.tried {
		j.tried[i].refuse(refused)
	}
	for i := range j.heads {
		h := &j.heads[i]
		if h.Events == 0 { // nothing of it was to be stored; why is noted already
			continue
		}
		d := Dead{BusSeq: j.msgs[i].Seq, Index: -1, Stream: h.Stream, Seq: h.Seq, Tenant: h.Tenant, Collector: h.Collector, Events: int(h.Events), Reason: refused, Notice: j.msgs[i].Data, Detected: true}
		if n, err := bus.ParseNotice(j.msgs[i].Data); err == nil {
			d.Digest = hex.EncodeToString(n.Digest[:])
			var own []uint32 // those of its events that have letters of their own
			for k := range j.dead {
				if j.dead[k].BusSeq == d.BusSeq {
					own = append(own, j.dead[k].wanted()...)
				}
			}
			if len(own) > 0 {
				d.Places = rest(n.Events, own)
			}
		}
		j.dead = append(j.dead, d)
		w.m.dead.Add(h.Events)
		w.m.aside.Add(1)
		h.Dead += h.Events
		h.Events = 0
	}
	j.events = 0
}
