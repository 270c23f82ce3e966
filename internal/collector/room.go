package collector

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"tocsin/internal/collector/spool"
	"tocsin/internal/event"
)

// What is done when the spool is full. What waits is let go by its value, the lowest first and of that the oldest: first refusals that repeat what
// the hub has been told and traffic that was let through, then what a device or a mail filter found suspicious, last the signs themselves: those of
// intrusion detection and virus scanners, failed sign-ins, indicators, detections made here. So noise cannot push out what it is to cover.
//
// The two lower values are taken out of the spool's files one by one (spool.Log.Thin), where that frees at least a sixteenth of a file; the files
// keep their places and numbers. Only what is left goes by whole files, and everything while this program is on trial (format.go). Every event is
// counted by what it was: dropped.spool_full.REASON.
//
// The state says what is going to be let go, with the counts, before a file is touched: a crash at any moment counts nothing twice. Records that
// were let go leave gaps in the numbers; state.Gone says how many of them the lanes have still to come across.

// value is how much it would hurt to lose an event.
type value uint8

const (
	valueLow value = 1 + iota
	valueMiddle
	valueHigh
)

// worth gives an event's value. urgent is what the policy says.
func worth(e *event.Event, urgent bool) value {
	has := func(category string) bool { return e.HasString(event.EventCategory, category) }
	switch {
	case urgent, e.Has(event.TocsinIndicatorID), has("intrusion_detection"), has("malware"), has("authentication") && e.Str(event.EventOutcome) == "failure":
		return valueHigh
	case e.Str(event.TocsinVerdict) == "detect", has("email"):
		return valueMiddle
	}
	return valueLow
}

// value is the value marked at the append. Records from before values were marked say only whether they were urgent.
func (r *record) value() value {
	if v := value(r.flags >> recordValue & 3); v > 0 {
		return v
	}
	if r.flags&(recordUrgent|recordDetection) != 0 {
		return valueHigh
	}
	return valueLow
}

// reason is the word under which a record is counted when it is let go.
func (r *record) reason() string {
	if r.flags&recordDetection != 0 {
		return "detection"
	}
	const field = `"tocsin.left.reason":"` // a quote inside a value would be escaped
	if _, rest, ok := bytes.Cut(r.json, []byte(field)); ok {
		if word, _, ok := bytes.Cut(rest, []byte{'"'}); ok && len(word) > 0 && len(word) <= 40 {
			return string(word)
		}
	}
	return "other"
}

// thinning is what is being let go: of these files of the spool, what is not above the value.
type thinning struct {
	Segments []uint64 `json:"segments"`
	Value    value    `json:"value"`
}

// has says whether the record is being let go, and counted already, though its file may still hold it.
func (t *thinning) has(segment uint64, r *record) bool {
	return t != nil && r.value() <= t.Value && slices.Contains(t.Segments, segment)
}

const (
	thinShare  = 16 // a file is thinned for at least one in so many of its bytes
	thinAtOnce = 16 // files looked through or thinned before lines are worked on again
	maxReasons = 32 // kinds of events that are counted by name when they are let go
)

// bound keeps spool, archive and the record of batches within their bounds. It comes after a commit.
func (a *Agent) bound(now time.Time) error {
	st, c := a.st, &a.o.Config
	a.removeSent()
	a.thin()
	if err := a.shed(c.Spool.MaxBytes, valueHigh); err != nil {
		return err
	}
	if lost := a.archive.Prune(); lost > 0 {
		st.Counts["lost.archive_full"] += lost
		a.dirty = true
		a.log.Error("raw lines were deleted before they were worked on: the archive's bound is too small", "lines", lost)
	}
	a.pruneBatches(now)
	return nil
}

// shed lets go of what waits, up to a value, until the spool is within limit bytes.
func (a *Agent) shed(limit int64, upTo value) error {
	if a.spool.Size() <= limit {
		return nil
	}
	full := limit
	limit -= limit / 16 // room for a while: each time costs a commit
	if err := a.flushSpool(); err != nil {
		return err
	}
	if err := a.spool.Rotate(0); err != nil { // so that the newest events can be looked through too
		a.log.Error("cannot begin another file of the spool", "error", err) // as on a full disk: the others are enough for now
	}
	a.st.Spool.Pos = a.spool.End()
	a.shelve()
	left := thinAtOnce
	if a.spool.Size() > full+full/16 { // it fills faster than that: the rest of the line waits
		left = 1 << 20
	}
	for v := valueLow; v < valueHigh && a.modern.Load(); v++ {
		for a.st.Thin == nil && a.spool.Size() > limit {
			more, err := a.plan(v, limit, &left)
			if err != nil {
				return err
			}
			a.thin()
			if !more {
				break
			}
		}
		if left <= 0 {
			a.dirty = true // it goes on after another commit
			return nil
		}
	}
	for upTo == valueHigh && a.spool.Size() > full && (a.st.Thin == nil || a.spool.Size() > full+full/8) { // where thinning fails, whole files go in the end
		more, err := a.dropOldest()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// shelve gives what waits in the live lane to the backlog, also behind a sealed batch.
func (a *Agent) shelve() {
	st := a.st
	p := st.Live.Pending
	from := st.Live.At
	if p != nil && !a.modern.Load() {
		return
	}
	if p != nil {
		from = p.next()
	}
	if from.Num >= st.Spool.Num {
		return
	}
	switch n := len(st.Ranges); {
	case n > 0 && st.Ranges[n-1].To.Num == from.Num:
		st.Ranges[n-1].To = st.Spool
	case n >= maxRanges:
		return
	default:
		st.Ranges = append(st.Ranges, span{From: from, To: st.Spool})
	}
	if p != nil {
		next := st.Spool
		p.Next = &next
	} else {
		st.Live.At = st.Spool
		a.live.urgent = false
	}
	a.dirty = true
}

// files are the spool's files that lie whole in the backlog and hold nothing of a sealed batch, oldest first.
func (a *Agent) files() (out []spool.Segment) {
	segs := a.spool.Segments()
	for i := 0; i+1 < len(segs); i++ {
		base, end := segs[i].Base, segs[i+1].Base
		if p := a.back.st.Pending; p != nil && p.From.Num < end && base < p.To.Num {
			continue
		}
		if slices.ContainsFunc(a.st.Ranges, func(r span) bool { return r.From.Num <= base && end <= r.To.Num }) {
			out = append(out, segs[i])
		}
	}
	return out
}

// plan chooses files to thin of what is not above v, counts what goes, and commits that. more: there is more of it to choose.
func (a *Agent) plan(v value, limit int64, left *int) (more bool, err error) {
	t := &thinning{Value: v}
	counts := map[string]uint64{}
	n, need := uint64(0), a.spool.Size()-limit
	files := a.files()
	if len(a.worth) > 2*len(files)+64 { // of files that are gone
		a.worth = nil
	}
	if a.worth == nil {
		a.worth = map[uint64][valueHigh + 1]int64{}
	}
	for _, f := range files {
		if need <= 0 || *left <= 0 || len(t.Segments) >= thinAtOnce {
			more = true
			break
		}
		w, known := a.worth[f.Base]
		if !known {
			*left--
			if err := a.records(f.Base, func(r *record, size int64) { w[r.value()] += size }); err != nil {
				return false, err
			}
			a.worth[f.Base] = w
		}
		free := int64(0)
		for x := valueLow; x <= v; x++ {
			free += w[x]
		}
		if free < f.Size/thinShare {
			continue
		}
		*left--
		t.Segments = append(t.Segments, f.Base)
		need -= free
		if err := a.records(f.Base, func(r *record, _ int64) {
			if r.value() <= v {
				counts[r.reason()]++
				n++
			}
		}); err != nil {
			return false, err
		}
	}
	if n == 0 {
		return more && *left > 0, nil
	}
	a.st.Thin = t
	a.st.Gone += n
	a.dropped(counts)
	return more, a.commit(false)
}

// records gives f each record of one of the spool's files, with the bytes it takes.
func (a *Agent) records(base uint64, f func(r *record, size int64)) error {
	var r record
	err := a.spool.Records(base, func(b []byte) bool {
		if r.decode(b) == nil {
			f(&r, int64(len(b))+spool.FrameSize)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// thin does what the state says is let go. What fails is tried again after the next commit; until then nothing of it is sent.
func (a *Agent) thin() {
	t := a.st.Thin
	if t == nil {
		return
	}
	for _, base := range t.Segments {
		_, err := a.spool.Thin(base, func(b []byte) bool {
			var r record
			return r.decode(b) != nil || r.value() > t.Value
		})
		if err != nil {
			a.log.Error("cannot make room in the spool now; trying again", "error", err)
			a.dirty = true
			return
		}
		delete(a.worth, base)
	}
	a.st.Thin = nil
	a.dirty = true
}

// dropped counts events that were let go.
func (a *Agent) dropped(counts map[string]uint64) {
	const prefix = "dropped.spool_full."
	kinds := 0
	for k := range a.st.Counts {
		if strings.HasPrefix(k, prefix) {
			kinds++
		}
	}
	for reason, n := range counts {
		a.shedded += n
		name := prefix + reason
		if _, ok := a.st.Counts[name]; !ok {
			if kinds++; kinds > maxReasons { // own policies may have any number of reasons, manifests not
				name = prefix + "other"
			}
		}
		a.st.Counts[name] += n
	}
	a.dirty = true
	if now := a.o.Now(); a.shedded > 0 && now.Sub(a.saidShed).Abs() >= time.Minute {
		a.log.Error("the spool is full: of what waits, the oldest of the lowest value is let go, and counted by what it is", "events", a.shedded, "next", "mend the way to the hub, or raise spool.max_bytes")
		a.saidShed, a.shedded = now, 0
	}
}

// dropOldest lets go of all that waits in the spool's oldest file of the backlog, and deletes the file. It says whether there was one.
func (a *Agent) dropOldest() (bool, error) {
	st := a.st
	i := 0
	if p := a.back.st.Pending; p != nil { // the sealed batch's own records stay until it is answered
		if len(st.Ranges) > 0 && st.Ranges[0].To.Num > p.To.Num {
			st.Ranges = slices.Insert(st.Ranges, 1, span{From: p.To, To: st.Ranges[0].To})
			st.Ranges[0].To = p.To
		}
		i = 1
	}
	if i >= len(st.Ranges) {
		return false, nil
	}
	rng := &st.Ranges[i]
	r := a.spool.Reader(rng.From.Pos)
	defer r.Close()
	to, segment, first := rng.From, uint64(0), true
	counts, n := map[string]uint64{}, uint64(0)
	for to.Num < rng.To.Num {
		b, num, err := r.Next()
		if err != nil || num >= rng.To.Num {
			to = rng.To
			break
		}
		at := r.Pos().Segment
		if first {
			segment, first = at, false
		} else if at != segment {
			to.Pos, to.Num = spool.Pos{Segment: at}, max(to.Num, at) // nothing of the file before is wanted any more
			break
		}
		to = mark{Pos: r.Pos(), Num: num + 1, Line: to.Line}
		var rec record
		if rec.decode(b) == nil {
			to.Line = rec.group
			if !st.Thin.has(at, &rec) {
				counts[rec.reason()]++
				n++
			}
		}
	}
	if to.Num >= rng.To.Num {
		to = rng.To
	}
	passed := to.Num - rng.From.Num
	if passed == 0 {
		return false, nil
	}
	a.dropped(counts)
	if missing := passed - min(passed, n); missing > 0 { // let go and counted before, or damaged
		known := min(missing, st.gone())
		st.Gone -= known
		st.Counts["dropped.spool_damage"] += missing - known
	}
	rng.From = to
	if to.Num >= rng.To.Num {
		st.Ranges = slices.Delete(st.Ranges, i, i+1)
	}
	if err := a.commit(false); err != nil { // before the file goes: after a crash its events are counted, once
		return false, err
	}
	a.removeSent()
	return true, nil
}

// removeSent deletes the spool's files that nothing is waiting in.
func (a *Agent) removeSent() {
	segs := a.spool.Segments()
	for i := 0; i+1 < len(segs); i++ {
		base, end := segs[i].Base, segs[i+1].Base
		if a.needed(base, end) {
			continue
		}
		if err := a.spool.Remove(base); err != nil {
			a.log.Error("cannot delete sent events from the spool", "error", err)
			return
		}
		delete(a.worth, base)
	}
}

// needed says whether any of the records from..to-1 has still to be sent, or to be sent again.
func (a *Agent) needed(from, to uint64) bool {
	st := a.st
	live := st.Live.At.Num
	if p := st.Live.Pending; p != nil {
		if p.From.Num < to && from < p.To.Num {
			return true
		}
		live = p.next().Num
	}
	if live < to {
		return true
	}
	return slices.ContainsFunc(st.Ranges, func(r span) bool { return r.From.Num < to && from < r.To.Num })
}
