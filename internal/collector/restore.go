package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/send"
	"tocsin/internal/collector/spool"
)

// askHeads fetches the hub's heads each time it is asked to, as long as it takes.
func (a *Agent) askHeads(ctx context.Context, ask <-chan struct{}, heads chan<- []batch.Head) {
	for {
		select {
		case <-ask:
		case <-ctx.Done():
			return
		}
		for attempt := 0; ; attempt++ {
			h, err := a.client.Heads(ctx)
			if err == nil {
				a.reached(nil)
				select {
				case heads <- h:
				case <-ctx.Done():
					return
				}
				break
			}
			if ctx.Err() != nil {
				return
			}
			if send.CodeOf(err) == batch.CodeExpired {
				if rerr := a.client.Renew(ctx); rerr != nil {
					err = rerr
				}
			}
			a.reached(err)
			a.log.Warn("cannot compare streams with the hub; trying again", "attempt", attempt+1, "error", plain(err))
			var asked time.Duration
			var p *send.Problem
			if errors.As(err, &p) {
				asked = p.After()
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(send.Backoff(attempt, asked, a.o.Config.RetryMax)):
			}
		}
	}
}

// standing is how one of our streams stands to the hub's head of it.
type standing uint8

const (
	same    standing = iota // the hub has what has a receipt, or the sealed batch too
	behind                  // the hub has less than it once confirmed: it was restored
	foreign                 // the hub has batches that we do not know: we were restored, or another copy runs
)

// stand compares a lane with the hub's heads of that lane. known are the epochs we have begun, since is the hub time of our newest receipt.
func stand(l *laneState, heads []batch.Head, known []string, since time.Time) (standing, uint64) {
	found := false
	at := uint64(0)
	s := same
	for _, h := range heads {
		if h.Epoch != l.Epoch {
			if !slices.Contains(known, h.Epoch) && h.Received.After(since) {
				return foreign, 0
			}
			continue
		}
		found, at = true, h.Seq
		switch {
		case h.Seq < l.Seq:
			s = behind
		case h.Seq == l.Seq:
			if h.Digest != l.Prev.String() {
				return foreign, 0
			}
		case l.Pending != nil && h.Seq == l.Pending.Seq:
			if h.Digest != l.Pending.Digest.String() {
				return foreign, 0
			}
		default:
			return foreign, 0
		}
	}
	if !found && l.Seq > 0 {
		return behind, 0
	}
	return s, at
}

// compare settles how we stand to the hub, and says that sealing may begin.
func (a *Agent) compare(heads []batch.Head) error {
	byLane := map[batch.Lane][]batch.Head{}
	for _, h := range heads {
		if h.Tenant == a.id.Tenant {
			byLane[h.Lane] = append(byLane[h.Lane], h)
		}
	}
	a.checked = true
	copied := false
	for _, l := range a.lanes {
		s, at := stand(l.st, byLane[l.name], a.st.Epochs, a.st.ReceiptTime)
		switch s {
		case foreign:
			copied = true
		case behind:
			if err := a.resendFrom(l, at); err != nil {
				a.log.Error("the hub was restored from an older copy and asks for batches that are not kept any more; a new epoch begins", "lane", l.name, "from", at+1, "error", err)
				a.giveUp(l)
			} else {
				a.log.Warn("the hub was restored from an older copy; it gets again what it lost", "lane", l.name, "from", at+1, "to", l.st.Seq)
			}
		}
	}
	if copied {
		return a.takeOver(byLane)
	}
	return nil
}

// resendFrom finds the lane's batches after seq, up to the last with a receipt, in the record of batches.
func (a *Agent) resendFrom(l *lane, seq uint64) error {
	l.resend = nil
	r := a.batches.Reader(a.batches.Start())
	defer r.Close()
	for {
		pos := r.Pos()
		b, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		e, _, err := decodeEntry(b)
		if err != nil || e.Kind != "batch" || e.Lane != l.name || e.Epoch != l.st.Epoch || e.Seq <= seq || e.Seq > l.st.Seq {
			continue
		}
		if e.Seq != seq+uint64(len(l.resend))+1 {
			break
		}
		l.resend = append(l.resend, outgoing{stream: streamOf(&a.id, l.name, e.Epoch), seq: e.Seq, events: e.Events, at: pos})
	}
	if n := uint64(len(l.resend)); seq+n != l.st.Seq {
		l.resend = nil
		return fmt.Errorf("of %d batches %d are kept in one piece", l.st.Seq-seq, n)
	}
	return nil
}

// takeOver goes on where another copy of this collector left off: this folder was restored from an older copy, or that copy still runs.
// The hub's heads say which lines it has; the rest of ours is sent in new epochs.
func (a *Agent) takeOver(byLane map[batch.Lane][]batch.Head) error {
	st := a.st
	if err := a.flushSpool(); err != nil {
		return err
	}
	a.pipe.flush(st.Counts)
	var covered intervals
	var counted uint64
	for lane, heads := range byLane {
		for _, h := range heads {
			p, err := decodePosition(h.Position)
			if err != nil {
				a.log.Warn("a head of the hub does not say which lines it holds; some events may be sent twice", "lane", lane, "epoch", h.Epoch, "error", err)
				continue
			}
			covered = covered.union(p.Done)
			if lane == batch.Live {
				counted = max(counted, p.Counted)
			}
		}
	}
	switch {
	case counted >= st.Line:
		st.Live.Reported = maps.Clone(st.Counts)
		st.Live.Line, st.Live.Cursor = st.Line, st.Cursor
	case counted > st.Live.Line:
		// The other copy had counted some of the lines that we worked on before we knew of it.
		from := st.Live.Line
		if err := errors.Join(a.recount(counted), a.remade(from, counted)); err != nil {
			return err
		}
	}
	st.Covered = covered
	st.CoveredLine = max(st.CoveredLine, counted)
	a.pipe.covered = covered
	for _, l := range a.lanes {
		a.giveUp(l)
	}
	now := a.o.Now()
	a.epochs = slices.DeleteFunc(a.epochs, func(t time.Time) bool { return now.Sub(t) > 10*time.Minute })
	a.epochs = append(a.epochs, now)
	if n := len(a.epochs); n > 2 {
		// A restored copy does this once. Again and again means that the other one is alive: two that overtake each other help nobody.
		a.hold = now.Add(min(time.Minute<<(n-3), 30*time.Minute))
		a.log.Error("another copy of this collector seems to be running with the same keys: stop one of them and enrol it anew. Nothing is sent until then, or until the time given; everything is kept", "until", a.hold)
	}
	st.Counts["copies_noticed"]++
	a.log.Warn("this folder is an older copy of a collector that went on elsewhere; the hub has said what it holds, and a new epoch begins with the rest",
		"live_epoch", st.Live.Epoch, "counted_to_line", counted, "covered", len(covered))
	return a.commit(false)
}

// recount adds to the reported counts those of the lines after the last reported one, up to line: another copy has reported them. Parsing
// and policy give the same answer again; only a line that left for an on-site detection alone would be counted as kept.
func (a *Agent) recount(line uint64) error {
	st := a.st
	p, err := newPipeline(&a.o.Config, a.min, nil, archive.Secret{}, nil)
	if err != nil {
		return err
	}
	r := a.archive.Reader(st.Live.Cursor)
	defer r.Close()
	for {
		var l archive.Line
		if err := r.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if l.Number > line {
			break
		}
		p.line(&l, full)
		p.frames, p.n = p.frames[:0], 0
		st.Live.Line, st.Live.Cursor = l.Number, r.Pos()
	}
	if st.Live.Reported == nil {
		st.Live.Reported = map[string]uint64{}
	}
	p.flush(st.Live.Reported)
	for k, v := range st.Live.Reported { // what was reported cannot be more than what was counted
		st.Live.Reported[k] = min(v, st.Counts[k])
	}
	return nil
}

// remade adds to the reported counts the events that were made here during the lines after from, up to line: the other copy made them too.
func (a *Agent) remade(from, line uint64) error {
	st := a.st
	r := a.spool.Reader(spool.Pos{})
	defer r.Close()
	for {
		b, _, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		var rec record
		if rec.decode(b) != nil || rec.group <= from || rec.group > line {
			continue
		}
		name := ""
		switch {
		case rec.flags&recordDetection != 0:
			name = "made.detection"
		case rec.line != rec.group:
			name = "made.evidence"
		}
		if name != "" && st.Live.Reported[name] < st.Counts[name] {
			st.Live.Reported[name]++
		}
	}
}

// pruneBatches deletes the oldest files of the record of batches: beyond their days, or beyond the bound of size. What has no receipt, and
// the hub may ask for, stays.
func (a *Agent) pruneBatches(now time.Time) {
	keep := a.batches.End().Segment
	for _, l := range a.st.lanes() {
		if l.Pending != nil {
			keep = min(keep, l.Pending.At.Segment)
		}
	}
	for _, l := range a.lanes {
		for _, o := range l.resend {
			keep = min(keep, o.at.Segment)
		}
	}
	limit := now.Add(-time.Duration(a.o.Config.Sent.Days) * 24 * time.Hour)
	size := a.batches.Size()
	for _, s := range a.batches.Segments() {
		if s.Base >= keep || s.ModTime.After(limit) && size <= a.o.Config.Sent.MaxBytes {
			return
		}
		if s.ModTime.After(limit) {
			a.log.Warn("the record of what left is over its bound; its oldest part is deleted before its days are over", "days", a.o.Config.Sent.Days)
		}
		if err := a.batches.Remove(s.Base); err != nil {
			a.log.Error("cannot delete the oldest part of the record of what left", "error", err)
			return
		}
		size -= s.Size
	}
}
