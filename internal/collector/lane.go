package collector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/send"
	"tocsin/internal/collector/spool"
	"tocsin/internal/event"
)

// lane is the running side of a lane. Its goroutine is Agent.sender; everything else in it is the loop's.
type lane struct {
	name   batch.Lane
	st     *laneState
	log    *spool.Log // where its events wait
	side   *sideState // of the lanes that have a spool of their own: look-back, raw
	work   chan outgoing
	busy   bool // something was given to the sender and not answered
	last   time.Time
	urgent bool // something urgent waits (live)
	resend []outgoing
}

// outgoing is a sealed batch to be sent.
type outgoing struct {
	stream     batch.Stream
	seq        uint64
	submission []byte
	events     int
	at         spool.Pos // where it is in the record of batches; submission is read from there when nil
}

// result is the sender's answer.
type result struct {
	lane *lane
	out  outgoing
	ack  send.Ack
	err  error // a refusal that trying again will not heal, or the end of the context
}

// sender submits one batch after another, each until the hub holds it, has refused it for good, or ctx ends.
func (a *Agent) sender(ctx context.Context, l *lane) {
	for {
		var o outgoing
		select {
		case o = <-l.work:
		case <-ctx.Done():
			return
		}
		ack, err := a.submit(ctx, o)
		a.answers <- result{lane: l, out: o, ack: ack, err: err} // has room: one of each lane at a time
	}
}

func (a *Agent) submit(ctx context.Context, o outgoing) (send.Ack, error) {
	for attempt := 0; ; attempt++ {
		ack, err := a.client.Submit(ctx, o.stream, o.seq, o.submission)
		if err == nil {
			a.reached(nil)
			return ack, nil
		}
		if ctx.Err() != nil {
			return ack, err
		}
		var p *send.Problem
		refused := errors.As(err, &p)
		if refused {
			switch p.Code {
			case batch.CodeFork, batch.CodeOutOfSequence:
				a.reached(nil)
				return ack, err
			case batch.CodeExpired:
				if rerr := a.client.Renew(ctx); rerr != nil {
					err = rerr
				} else if attempt == 0 {
					continue
				}
			}
		}
		if errors.Is(err, batch.ErrSubmission) {
			return ack, err
		}
		a.reached(err)
		var asked time.Duration
		if refused {
			asked = p.After()
			if !p.Temporary() { // revoked, not understood …: a person must act; ask again now and then
				asked = time.Minute
			}
		}
		a.log.Warn("the hub has not taken a batch; trying again", "lane", o.stream.Lane, "seq", o.seq, "attempt", attempt+1, "error", plain(err))
		select {
		case <-ctx.Done():
			return ack, err
		case <-time.After(send.Backoff(attempt, asked, a.o.Config.RetryMax)):
		}
	}
}

// plain says what an error of reaching the hub means. A certificate that the hub does not take is refused in the TLS handshake, before any
// words can be exchanged: the reason is said here.
func plain(err error) string {
	if !send.Refused(err) {
		return err.Error()
	}
	return "the hub does not take this collector's certificate: it was revoked in the portal, or it has expired and is about to be renewed. Nothing is lost: what waits here is kept. " +
		"If it was revoked and that was not meant, ask the centre for a new token and run: tocsin-collector enrol TOKEN --again (" + err.Error() + ")"
}

// reached notes whether the hub answers. Safe for any goroutine.
func (a *Agent) reached(err error) {
	if err == nil {
		a.trouble.Store(nil)
		return
	}
	s := plain(err)
	a.trouble.Store(&s)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// due says when the live lane has something to seal, and whether it has.
func (a *Agent) due(now time.Time) (at time.Time, ok bool) {
	l := a.live
	if l.busy || l.st.Pending != nil || !a.checked || len(l.resend) > 0 {
		return time.Time{}, false
	}
	defer func() {
		if ok && at.Before(a.hold) {
			at = a.hold
		}
	}()
	gap := l.last.Add(minGap)
	waiting := a.spooled() - l.st.At.Num
	switch {
	case waiting > 0 && (l.urgent || a.pipe.urgent || waiting >= maxBatchEvents || a.draining):
		return gap, true
	case waiting > 0:
		return l.last.Add(max(a.st.Interval, minGap)), true
	case a.uncounted():
		if a.draining {
			return gap, true
		}
		return l.last.Add(max(a.st.Interval, 2*time.Second)), true
	}
	return l.last.Add(heartbeat), true
}

// spooled is the number of the record after the last one made, gathered ones included.
func (a *Agent) spooled() uint64 { return a.st.Spool.Num + uint64(a.pipe.n) }

// sealable says whether the live lane could seal something urgent now.
func (a *Agent) sealable(now time.Time) bool {
	l := a.live
	return !l.busy && l.st.Pending == nil && a.checked && now.Sub(l.last) >= minGap && !now.Before(a.hold)
}

// seal seals what is due in the lanes and gives it to the senders.
func (a *Agent) seal(now time.Time) error {
	for _, l := range a.lanes {
		if l.busy || !a.checked {
			continue
		}
		if len(l.resend) > 0 {
			o := l.resend[0]
			if err := a.load(&o); err != nil {
				a.log.Error("a batch the hub asks for again is not in the record of batches any more", "lane", l.name, "seq", o.seq, "error", err)
				a.giveUp(l)
				continue
			}
			a.give(l, o)
			continue
		}
		if p := l.st.Pending; p != nil { // sealed before a restart
			o := outgoing{stream: streamOf(&a.id, l.name, l.st.Epoch), seq: p.Seq, events: p.Events, at: p.At}
			if err := a.load(&o); err != nil {
				// The disk has lost it; its events are still in the spool.
				a.log.Error("the sealed batch cannot be read; its events are sealed again in a new epoch", "lane", l.name, "error", err)
				a.giveUp(l)
				continue
			}
			a.give(l, o)
			continue
		}
		switch l.name {
		case batch.Live:
			if at, ok := a.due(now); !ok || now.Before(at) {
				continue
			}
		case batch.Backlog:
			// The backlog goes at a slower pace than the hub allows a stream, and never while something urgent waits to be worked on.
			if len(a.st.Ranges) == 0 || now.Sub(l.last) < minGap+minGap/4 || now.Before(a.hold) {
				continue
			}
		default:
			if l.st.At.Num >= l.side.End.Num || now.Sub(l.last) < minGap+minGap/4 || now.Before(a.hold) {
				continue
			}
		}
		if err := a.sealOne(l, now); err != nil {
			return err
		}
	}
	return nil
}

// sealOne seals one batch of the lane, commits, and gives it to the sender.
func (a *Agent) sealOne(l *lane, now time.Time) error {
	if err := a.flushSpool(); err != nil {
		return err
	}
	a.pipe.flush(a.st.Counts)
	a.inputCounts()
	st := a.st
	p := &pending{Seq: l.st.Seq + 1, Sealed: now.UTC(), Done: l.st.Done}
	limit := st.Spool
	switch {
	case l.name == batch.Backlog:
		p.From, limit = st.Ranges[0].From, st.Ranges[0].To
	case l.side != nil:
		p.From, limit = l.st.At, l.side.End
	default:
		p.From = l.st.At
	}
	stream := streamOf(&a.id, l.name, l.st.Epoch)
	refs, err := a.fill(l, p, limit, stream.ID())
	if err != nil {
		return err
	}
	switch {
	case l.side != nil: // its lines are counted and noted in the live lane
	case l.name == batch.Backlog:
		p.Done = p.Done.add(p.From.Line+1, p.To.Line)
	default:
		// Numbers jump between runs; what another copy of this collector may have numbered in between is not ours to claim.
		from := p.From.Line + 1
		if before := a.archive.Before(); from < before && p.To.Line >= a.archive.First() {
			p.Done = p.Done.add(from, before-1)
			from = a.archive.First()
		}
		p.Done = p.Done.add(from, p.To.Line)
	}
	counts := map[string]uint64{}
	if l.name == batch.Live {
		p.Reported, p.Cursor, p.Line = maps.Clone(st.Counts), st.Cursor, st.Line
		counts = delta(st.Counts, l.st.Reported)
	}
	if p.Events > 0 {
		counts["sent"] = uint64(p.Events)
	}
	m := batch.Manifest{
		Stream: stream, Seq: p.Seq, Prev: l.st.Prev, Created: now, CollectorVersion: a.o.Version, PolicyDigest: a.min.Digest(),
		ParserPack: a.packs.parsers, RulePack: a.rulePack(), IndicatorSet: a.setName(), ClockOffset: st.Offset, Checkpoint: st.Checkpoint,
		Position: position{Counted: p.Line, Done: p.Done}.encode(), Counts: counts, Urgent: p.Urgent,
	}
	if p.Seq == 1 {
		m.Prev, m.LastReceipt = st.LastReceipt, st.LastReceipt
	}
	sealed, err := a.writer.Seal(m, a.keys.Batch())
	a.writer.Reset()
	if err != nil {
		return err
	}
	p.Digest = digest(sealed.Digest)
	submission := sealed.Submission()
	rec := entry{Kind: "batch", Lane: l.name, Epoch: l.st.Epoch, Seq: p.Seq, Digest: p.Digest, At: now.UTC(), Events: p.Events}.encode(submission)
	for {
		p.At = a.batches.End()
		if _, err = a.batches.Append(rec); err == nil {
			err = a.batches.Sync()
		}
		if err == nil {
			break
		}
		if !a.waitForRoom("batches", err) {
			return fmt.Errorf("batches: %w", err)
		}
	}
	l.st.Pending = p
	if err := a.commit(false); err != nil {
		return err
	}
	// From here on the batch may be sent: the state names it.
	for i, line := range refs {
		if l.side != nil {
			break
		}
		a.sent.add(line, event.ID{Stream: stream.ID(), Seq: p.Seq, Index: uint32(i)})
	}
	if l.name == batch.Live {
		l.urgent = p.To.Num < st.Spool.Num && l.urgent // more than one batch waits, and it may be in the next
	}
	a.give(l, outgoing{stream: stream, seq: p.Seq, submission: submission, events: p.Events, at: p.At})
	return nil
}

// fill adds the spool's records from p.From on to the writer, whole groups at a time, and sets p.To, Events, Skipped and Urgent. It gives
// for each event in the batch the number of its line (0 for a detection).
func (a *Agent) fill(l *lane, p *pending, limit mark, stream event.StreamID) ([]uint64, error) {
	type item struct {
		rec record
		end mark
	}
	var items []item // of the batch so far; the strings are copies
	var lines []uint64
	here := map[uint64]uint32{} // line to index in this batch
	r := l.log.Reader(p.From.Pos)
	defer r.Close()
	p.To = p.From
	stop := -1 // index of the group that did not fit
	var group []item
	size, unsendable := 0, 0
	add := func(g []item) (taken int, err error) { // fewer than g: the writer is full
		for i := range g {
			rec := &g[i].rec
			if l.side == nil && a.pipe.covered.contains(rec.group) {
				p.Skipped++
				continue
			}
			js := rec.json
			if rec.flags&recordDetection != 0 {
				js = a.withEvents(js, rec.refs, func(line uint64) (event.ID, bool) {
					if i, ok := here[line]; ok {
						return event.ID{Stream: stream, Seq: p.Seq, Index: i}, true
					}
					return a.sent.find(line)
				})
			}
			err := a.writer.Add(js)
			if errors.Is(err, batch.ErrFull) {
				return i, nil
			}
			if errors.Is(err, batch.ErrLine) {
				unsendable++
				a.log.Error("an event cannot be sent and is dropped", "line", rec.line, "error", err)
				continue
			}
			if err != nil {
				return i, err
			}
			if rec.line != 0 {
				here[rec.line] = uint32(len(lines))
			}
			lines = append(lines, rec.line)
			if rec.flags&recordUrgent != 0 {
				p.Urgent = true
			}
		}
		return len(g), nil
	}
	taken := 0 // of the group that did not fit
	flush := func() (full bool, err error) {
		if len(group) == 0 {
			return false, nil
		}
		n, err := add(group)
		if err != nil {
			return false, err
		}
		if n < len(group) {
			stop, taken = len(items), n
			return true, nil
		}
		items = append(items, group...)
		p.To = group[len(group)-1].end
		group = group[:0]
		return a.writer.Len() >= maxBatchEvents || int64(size) >= min(maxBatchBytes, a.o.Config.Spool.MaxBytes/8), nil
	}
	done := false
	for !done && p.To.Num+uint64(len(group)) < limit.Num {
		b, num, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		if num >= limit.Num {
			break
		}
		var rec record
		if rec.decode(b) != nil {
			continue // as damage: it is missed and counted below
		}
		if len(group) > 0 && group[0].rec.group != rec.group {
			if done, err = flush(); err != nil {
				return nil, err
			}
			if done {
				break
			}
		}
		if a.st.Thin.has(r.Pos().Segment, &rec) {
			continue
		}
		rec.refs, rec.json = slices.Clone(rec.refs), bytes.Clone(rec.json)
		size += len(rec.json)
		group = append(group, item{rec, mark{Pos: r.Pos(), Num: num + 1, Line: rec.group}})
	}
	if !done {
		var err error
		if done, err = flush(); err != nil {
			return nil, err
		}
	}
	switch {
	case stop == 0: // a group that fills a batch alone is cut
		if taken == 0 {
			return nil, errors.New("seal batch: an event does not fit into an empty batch")
		}
		p.To = group[taken-1].end
	case stop > 0:
		// A group did not fit and a part of it is in the writer. Begin anew with what fitted before.
		a.writer.Reset()
		clear(here)
		unsendable = 0
		lines, p.Skipped, p.Urgent = lines[:0], 0, false
		if n, err := add(items[:stop]); err != nil || n < stop {
			return nil, fmt.Errorf("seal batch: what fitted before does not fit again: %w", err)
		}
	case !done || p.To.Num >= limit.Num:
		p.To = limit // also the lines that made no events, and records that damage took from the end
	}
	p.Events = a.writer.Len()
	missing := p.To.Num - p.From.Num - min(p.To.Num-p.From.Num, uint64(p.Events+p.Skipped+unsendable))
	if l.name == batch.Backlog { // what was let go for want of room is counted already
		p.Gone = min(missing, a.st.gone())
		missing -= p.Gone
	}
	if missing > 0 && a.gap && len(a.pipe.covered) > 0 {
		// A copy of a folder that was made file by file: what it lacks the original had, and sent.
		p.Skipped += int(missing)
	} else if missing > 0 {
		a.st.Counts["dropped.spool_damage"] += missing
		a.log.Error("events in a damaged file of the spool could not be read; they are counted", "events", missing)
	}
	if unsendable > 0 {
		a.st.Counts["dropped.unsendable"] += uint64(unsendable)
	}
	if p.Skipped > 0 {
		a.st.Counts["covered"] += uint64(p.Skipped)
	}
	return lines, nil
}

// withEvents writes the hub's ids of the lines behind a detection into its JSON. Lines that have not left are left out.
func (a *Agent) withEvents(js []byte, refs []uint64, find func(uint64) (event.ID, bool)) []byte {
	b := slices.Clone(js[:len(js)-1])
	n := 0
	for _, line := range refs {
		id, ok := find(line)
		if !ok {
			continue
		}
		if n == 0 {
			b = append(b, `,"tocsin.detection.events":[`...)
		} else {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), id.String()...), '"')
		n++
	}
	if n > 0 {
		b = append(b, ']')
	}
	return append(b, '}')
}

func (a *Agent) give(l *lane, o outgoing) {
	l.busy, l.last = true, a.o.Now()
	l.work <- o // has room: one at a time
}

// load reads the submission of a batch from the record of batches.
func (a *Agent) load(o *outgoing) error {
	if o.submission != nil {
		return nil
	}
	r := a.batches.Reader(o.at)
	defer r.Close()
	b, _, err := r.Next()
	if err != nil {
		return err
	}
	e, body, err := decodeEntry(b)
	if err != nil {
		return err
	}
	if e.Kind != "batch" || e.Lane != o.stream.Lane || e.Epoch != o.stream.Epoch || e.Seq != o.seq {
		return errors.New("another record stands in its place")
	}
	o.submission = bytes.Clone(body)
	return nil
}

// answer takes a sender's result.
func (a *Agent) answer(l *lane, r result, ask chan<- struct{}) {
	l.busy = false
	again := func() {
		a.checked = false
		if ask != nil {
			select {
			case ask <- struct{}{}:
			default:
			}
		}
	}
	if r.err != nil {
		switch code := send.CodeOf(r.err); code {
		case batch.CodeFork, batch.CodeOutOfSequence:
			a.log.Warn("the hub stands elsewhere in this stream; comparing", "lane", l.name, "seq", r.out.seq, "code", code)
			again()
		default:
			if errors.Is(r.err, batch.ErrSubmission) {
				a.log.Error("a sealed batch is damaged on disk; its events are sealed again in a new epoch", "lane", l.name, "error", r.err)
				a.giveUp(l)
			}
		}
		return
	}
	if r.out.stream.Epoch != l.st.Epoch {
		return // an answer to what was given up meanwhile
	}
	st := a.st
	st.LastReceipt, st.ReceiptTime = sha256.Sum256(r.ack.Envelope), r.ack.Receipt.HubTime
	st.Interval, st.Offset = r.ack.Interval, r.ack.Offset
	a.noteCheckpoint(r.ack.Checkpoint)
	rec := entry{Kind: "receipt", Lane: l.name, Epoch: l.st.Epoch, Seq: r.out.seq, Digest: digest(r.ack.Receipt.Digest), At: a.o.Now().UTC(), Events: r.out.events}.encode(r.ack.Envelope)
	if _, err := a.batches.Append(rec); err != nil {
		a.log.Error("cannot keep a receipt", "error", err)
	}
	a.dirty = true
	if len(l.resend) > 0 && l.resend[0].seq == r.out.seq {
		l.resend = l.resend[1:]
		return
	}
	p := l.st.Pending
	if p == nil || p.Seq != r.out.seq {
		return
	}
	l.st.Seq, l.st.Prev, l.st.Done, l.st.Pending = p.Seq, p.Digest, p.Done, nil
	st.Acknowledged += uint64(p.Events)
	st.Gone -= min(p.Gone, st.Gone)
	st.total(l.name, l.st.Epoch, p)
	if l.side != nil {
		l.st.At = p.To
		a.trimSide(l)
		return
	}
	if l.name == batch.Live {
		l.st.At, l.st.Reported, l.st.Cursor, l.st.Line = p.next(), p.Reported, p.Cursor, p.Line
		// What has piled up beyond the next batches goes to the backlog, so that what comes now need not wait behind it.
		if n := a.spooled() - l.st.At.Num; n > 2*maxBatchEvents && a.flushSpool() == nil {
			a.shelve()
		}
		return
	}
	if len(st.Ranges) > 0 {
		st.Ranges[0].From = p.To
		if st.Ranges[0].From.Num >= st.Ranges[0].To.Num {
			st.Ranges = slices.Delete(st.Ranges, 0, 1)
		}
	}
}

// giveUp gives up a lane's sealed batch, if there is one, and begins a new epoch. The batch's events are in the spool and will be sealed
// again.
func (a *Agent) giveUp(l *lane) {
	st := a.st
	if p := st.Live.Pending; l.name == batch.Live && p != nil && p.Next != nil { // what followed the batch is backlog already: so is the batch
		i := 0
		for i < len(st.Ranges) && st.Ranges[i].From.Num < p.To.Num {
			i++
		}
		st.Ranges = slices.Insert(st.Ranges, i, span{From: st.Live.At, To: p.To})
		st.Live.At = *p.Next
	}
	st.newEpoch(l.st)
	l.resend = nil
	a.dirty = true
}

// sentIndex remembers where at the hub the lines are that left lately, for the detections that point at them.
type sentIndex struct {
	ids   map[uint64]event.ID
	queue []uint64
	next  int
}

const maxSentIndex = 1 << 14

func newSentIndex() *sentIndex { return &sentIndex{ids: map[uint64]event.ID{}} }

func (s *sentIndex) add(line uint64, id event.ID) {
	if line == 0 {
		return
	}
	if _, ok := s.ids[line]; !ok {
		if len(s.queue) < maxSentIndex {
			s.queue = append(s.queue, line)
		} else {
			delete(s.ids, s.queue[s.next])
			s.queue[s.next] = line
			s.next = (s.next + 1) % maxSentIndex
		}
	}
	s.ids[line] = id
}

func (s *sentIndex) find(line uint64) (event.ID, bool) {
	id, ok := s.ids[line]
	return id, ok
}

// entry is the head of a record in the record of batches. The batch's submission or the receipt's envelope follows it after a newline.
type entry struct {
	Kind   string     `json:"kind"` // batch, receipt
	Lane   batch.Lane `json:"lane"`
	Epoch  string     `json:"epoch"`
	Seq    uint64     `json:"seq,string"`
	Digest digest     `json:"digest"`
	At     time.Time  `json:"at"`
	Events int        `json:"events"`
}

func (e entry) encode(body []byte) []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain fields always marshal
	}
	return append(append(b, '\n'), body...)
}

func decodeEntry(b []byte) (e entry, body []byte, err error) {
	head, body, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return e, nil, errors.New("not a record of a batch")
	}
	if err := json.Unmarshal(head, &e); err != nil {
		return e, nil, fmt.Errorf("record of a batch: %w", err)
	}
	return e, body, nil
}
