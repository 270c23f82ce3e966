package collector

import (
	"cmp"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/collector/spool"
	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Detector is the engine of the on-site rules. It sees every understood line, benign ones too. Process gives what fired on the event; its
// answer and the event are used before the next call. The same events in the same order after Restore give the same answers.
type Detector interface {
	Process(e *event.Event, now int64) []event.Detection
	Snapshot() ([]byte, error)
	Restore([]byte) error
}

// A Detector may also have Flush(now int64) []event.Detection: it is asked now and then while no lines come.

// noDetector is for collectors without on-site rules, as in explain.
type noDetector struct{}

func (noDetector) Process(*event.Event, int64) []event.Detection { return nil }
func (noDetector) Snapshot() ([]byte, error)                     { return nil, nil }
func (noDetector) Restore([]byte) error                          { return nil }

// fate is what becomes of a line's counts and events.
type fate uint8

const (
	full   fate = iota // count it and spool what leaves
	silent             // the hub counted it from another copy of this collector: only spool what that copy did not send
	replay             // it was worked on before the restart: only the detector sees it
)

// pipeline is the line from a raw line to the spool. It belongs to the agent's goroutine.
type pipeline struct {
	min     *minimise.Minimiser
	det     Detector
	read    *readers
	digests *archive.Digester
	archive *archive.Archive
	senders *senders
	lib     *parse.Library // the parser packs in use
	guard   *guard
	changes *changes // to on-site rules
	unknown *unknowns
	log     *slog.Logger
	origin  string    // the collector's id
	covered intervals // lines whose events the hub has

	e, out, seen event.Event
	evidence     map[uint64]struct{} // benign lines that left with a detection
	evidenceQ    []uint64
	missed       int64   // when it was last told that lines behind a detection cannot be read
	unclear      *sender // the last line's, when it is to be told that its lines are not understood any more
	heard        heard   // since the start

	tally  tally
	frames []byte // records for the spool, not yet appended
	n      int
	urgent bool // one of them is urgent
	json   []byte
}

// tally counts since the last commit. Slices are indexed by the policy's clauses.
type tally struct {
	received, parsed, notUnderstood, oversized, clock, madeDetection, madeEvidence, leftDetection, leftDaily, hostdown uint64
	byClause                                                                                                           []uint64
}

func newPipeline(c *Config, min *minimise.Minimiser, det Detector, secret archive.Secret, a *archive.Archive) (*pipeline, error) {
	p := &pipeline{min: min, det: det, digests: secret.Digester(), archive: a, senders: newSenders(), lib: parse.NewLibrary(), guard: newGuard(nil), changes: &changes{}, unknown: newUnknowns(), log: slog.New(slog.DiscardHandler), evidence: map[uint64]struct{}{}}
	if det == nil {
		p.det = noDetector{}
	}
	p.tally.byClause = make([]uint64, len(min.Policy().Events))
	var err error
	if p.read, err = newReaders(c.Listen.slots(), c.Listen.Devices, p.lib); err != nil {
		return nil, err
	}
	return p, nil
}

// record is what the spool holds of one event: flags, the line that made it, the line it is about, and for detections the lines behind it.
//
//	1 flags, 8 group, 8 line, 2 number of refs, 8 each ref, JSON
type record struct {
	flags byte
	group uint64   // number of the line during whose processing it was made; records of one group leave together
	line  uint64   // number of its own line; 0 for a detection
	refs  []uint64 // of a detection: numbers of the lines that made it
	json  []byte
}

const (
	recordUrgent    = 1
	recordDetection = 2
	recordValue     = 2 // by so many bits the value stands further up; 0 there: from before values were marked
	recordHead      = 19
)

func (r *record) append(b []byte) []byte {
	b = append(b, r.flags)
	b = binary.LittleEndian.AppendUint64(b, r.group)
	b = binary.LittleEndian.AppendUint64(b, r.line)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.refs)))
	for _, n := range r.refs {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return append(b, r.json...)
}

var errRecord = errors.New("not a record of the spool")

func (r *record) decode(b []byte) error {
	if len(b) < recordHead {
		return errRecord
	}
	r.flags, r.group, r.line = b[0], binary.LittleEndian.Uint64(b[1:]), binary.LittleEndian.Uint64(b[9:])
	n := int(binary.LittleEndian.Uint16(b[17:]))
	b = b[recordHead:]
	if len(b) < 8*n {
		return errRecord
	}
	r.refs = r.refs[:0]
	for range n {
		r.refs = append(r.refs, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	r.json = b
	return nil
}

// line works on one raw line.
func (p *pipeline) line(l *archive.Line, f fate) {
	if l.Listener == slotDaily {
		p.daily(l, f)
		return
	}
	e := &p.e
	understood := p.understand(e, l)
	if f == full {
		p.tally.received++
		if l.Cut {
			p.tally.oversized++
		}
		if !understood {
			p.tally.notUnderstood++
		} else {
			p.tally.parsed++
			p.hostdown(e, l)
			if e.Has(event.TocsinDeviceTime) {
				p.tally.clock++
			}
		}
	}
	if p.unclear != nil && f != replay {
		p.notUnderstood(p.unclear, l, f, !p.covered.contains(l.Number))
	}
	if !understood {
		return
	}
	p.guard.line()
	d := p.ceiling(e, p.min.Decide(e), l.Created)
	p.changes.uncount = f != full
	detections := p.changes.apply(p.det.Process(e, l.Created), l.Created)
	if len(detections) == 0 && !d.Leave { // nearly every line ends here
		if f == full {
			p.tally.byClause[d.Clause]++
		}
		return
	}
	if f == replay {
		for i := range detections {
			for _, id := range detections[i].Events {
				p.remember(id.Seq)
			}
		}
		return
	}
	detections = slices.DeleteFunc(detections, func(d event.Detection) bool { return p.guard.rule(d.RuleID, 1+len(d.Events), l.Created) })
	send := !p.covered.contains(l.Number)
	asEvidence := false
	for i := range detections {
		det := &detections[i]
		for _, id := range det.Events {
			if id.Seq == l.Number && !d.Leave {
				asEvidence = true
			}
		}
	}
	switch {
	case d.Leave || asEvidence:
		reason := d
		if asEvidence {
			p.remember(l.Number)
			reason.Urgent = true
		}
		if f == full {
			if d.Leave {
				p.tally.byClause[d.Clause]++
			} else {
				p.tally.leftDetection++
			}
		}
		if send {
			p.min.Mark(e, reason)
			if asEvidence {
				e.SetString(event.TocsinLeftReason, "site_detection")
			}
			p.spool(e, l, l.Number, d.Urgent || asEvidence)
		}
	case f == full:
		p.tally.byClause[d.Clause]++
	}
	for i := range detections {
		p.detection(&detections[i], l, f, send)
	}
}

// ceiling takes back what an indicator releases when it releases too much: the line then has the fate it would have without it.
func (p *pipeline) ceiling(e *event.Event, d minimise.Decision, at int64) minimise.Decision {
	if !d.Leave || !e.Has(event.TocsinIndicatorID) || !p.min.ByIndicator(d) {
		return d
	}
	id, kind, matched := e.Str(event.TocsinIndicatorID), e.Str(event.TocsinIndicatorKind), e.Str(event.TocsinIndicatorMatched)
	e.Del(event.TocsinIndicatorID)
	e.Del(event.TocsinIndicatorKind)
	e.Del(event.TocsinIndicatorMatched)
	without := p.min.Decide(e)
	if !without.Leave && p.guard.indicator(id, at) {
		return without
	}
	e.SetString(event.TocsinIndicatorID, id)
	e.SetString(event.TocsinIndicatorKind, kind)
	if matched != "" {
		e.SetString(event.TocsinIndicatorMatched, matched)
	}
	return d
}

// understand parses a line into e and adds what the collector knows of it.
func (p *pipeline) understand(e *event.Event, l *archive.Line) bool {
	e.Reset()
	e.SetRaw(l.Text)
	e.Created = l.Created
	e.ID = event.ID{Seq: l.Number}
	format, ok := p.read.parse(e, l)
	s := p.senders.seen(l.Sender, l.Created)
	p.heard.Lines++
	p.heard.Usual += s.Usual
	if !ok {
		p.heard.Bad++
	}
	p.unclear = nil
	if s.Addr.IsValid() && s.judge(ok, &p.heard, l.Created) {
		p.unclear = s
	}
	if !ok {
		s.NotUnderstood++
		p.unknown.add(l)
		return false
	}
	changed := false
	if !p.read.relays(l) {
		var was string
		if changed, was = s.product(e, format, l.Created); was != "" {
			p.log.Info("the parsers have another name for what a device is, since the program or its packs were renewed; it is taken for what was learnt",
				"sender", l.Sender, "before", was, "now", cmp.Or(e.Str(event.ObserverProduct), format))
		}
	}
	p.min.Prepare(e, minimise.Sender{Addr: l.Sender, Assurance: l.Via.String(), Changed: changed})
	return true
}

// spool adds what may leave of e to the records for the spool.
func (p *pipeline) spool(e *event.Event, l *archive.Line, group uint64, urgent bool) {
	e.RawDigest, e.HasRawDigest = p.digests.Digest(l.Number, l.Text), true
	e.SetInt(event.EventSequence, int64(l.Number))
	p.min.Reduce(&p.out, e)
	r := record{group: group, line: l.Number, flags: byte(worth(e, urgent)) << recordValue}
	if urgent {
		r.flags |= recordUrgent
		p.urgent = true
	}
	p.json = p.out.AppendJSON(p.json[:0])
	r.json = p.json
	p.add(&r)
}

func (p *pipeline) add(r *record) {
	var at int
	p.frames, at = spool.BeginFrame(p.frames)
	p.frames = r.append(p.frames)
	spool.SealFrame(p.frames, at)
	p.n++
}

// detection spools a detection, and before it those of its benign lines that have not left.
func (p *pipeline) detection(d *event.Detection, l *archive.Line, f fate, send bool) {
	var refs, missing []uint64
	for _, id := range d.Events {
		if len(refs) == event.MaxDetectionEvents {
			break
		}
		refs = append(refs, id.Seq)
		if id.Seq != l.Number && p.archive != nil {
			missing = append(missing, id.Seq)
		}
	}
	lines, err := []archive.Line(nil), error(nil)
	if len(missing) > 0 {
		lines, err = p.archive.FindAll(missing)
	}
	if err != nil && (l.Created-p.missed > int64(time.Minute) || l.Created < p.missed) {
		p.missed = l.Created
		p.log.Warn("lines behind a detection cannot be read from the archive of raw lines; the detection is sent without them", "rule", d.RuleID, "error", err)
	}
	if err == nil {
		for i := range lines {
			el := &lines[i]
			e := &p.seen
			if _, gone := p.evidence[el.Number]; gone || !p.understandAgain(e, el) || p.min.Leaves(e) {
				continue // it has left, or was never understood
			}
			p.remember(el.Number)
			if f == full {
				p.tally.madeEvidence++
			}
			if send {
				e.SetString(event.TocsinLeftReason, "site_detection")
				p.spool(e, el, l.Number, true)
			}
		}
	}
	if f == full {
		p.tally.madeDetection++
	}
	if !send {
		return
	}
	dd := *d
	dd.Events = nil // they get their hub ids when the batch is sealed
	p.min.Detection(&p.out, &dd)
	p.out.Created = l.Created
	p.json = p.out.AppendJSON(p.json[:0])
	p.add(&record{flags: recordUrgent | recordDetection | byte(valueHigh)<<recordValue, group: l.Number, refs: refs, json: p.json})
	p.urgent = true
}

// flushDetector asks the on-site rules, while no lines come, for what attacks that go on have gathered since their last notice, and says how much
// there was.
func (p *pipeline) flushDetector(line uint64, now int64, f fate) int {
	det, ok := p.det.(interface {
		Flush(now int64) []event.Detection
	})
	if !ok || line == 0 {
		return 0
	}
	p.changes.uncount = f != full
	found := det.Flush(now)
	n := len(found) // it is out of the rules' memory, also what a change of rules keeps back
	p.told(found, &archive.Line{Number: line, Created: now}, f, true)
	return n
}

// told works on what the rules have found without a line that made it.
func (p *pipeline) told(found []event.Detection, l *archive.Line, f fate, send bool) {
	detections := p.changes.apply(found, l.Created)
	for i := range detections {
		if f != replay {
			p.detection(&detections[i], l, f, send)
			continue
		}
		for _, id := range detections[i].Events {
			p.remember(id.Seq)
		}
	}
}

// understandAgain is understand for a line that has been counted.
func (p *pipeline) understandAgain(e *event.Event, l *archive.Line) bool {
	e.Reset()
	e.SetRaw(l.Text)
	e.Created = l.Created
	e.ID = event.ID{Seq: l.Number}
	if _, ok := p.read.parse(e, l); !ok {
		return false
	}
	p.min.Prepare(e, minimise.Sender{Addr: l.Sender, Assurance: l.Via.String()})
	return true
}

const maxEvidence = 4096

func (p *pipeline) remember(line uint64) {
	if _, ok := p.evidence[line]; ok {
		return
	}
	p.evidence[line] = struct{}{}
	p.evidenceQ = append(p.evidenceQ, line)
	if len(p.evidenceQ) > maxEvidence {
		delete(p.evidence, p.evidenceQ[0])
		p.evidenceQ = slices.Delete(p.evidenceQ, 0, 1)
	}
}

// flush adds the tally to counts and empties it.
func (p *pipeline) flush(counts map[string]uint64) {
	p.peek(counts)
	clear(p.tally.byClause)
	p.changes.kept, p.changes.excepted = 0, 0
	p.tally = tally{byClause: p.tally.byClause}
}

// peek adds the tally to counts and leaves it as it is.
func (p *pipeline) peek(counts map[string]uint64) {
	t := &p.tally
	add := func(name string, n uint64) {
		if n > 0 {
			counts[name] += n
		}
	}
	add("received", t.received)
	add("parsed", t.parsed)
	add("not_understood", t.notUnderstood)
	add("oversized", t.oversized)
	add("clock_replaced", t.clock)
	add("asa_without_permit_hostdown", t.hostdown)
	add("rule_changes_kept_detections", p.changes.kept)
	add("rule_changes_excepted_events", p.changes.excepted)
	add("made.detection", t.madeDetection)
	add("made.evidence", t.madeEvidence)
	add("left.site_detection", t.leftDetection)
	add("left."+detect.DailyReason, t.leftDaily)
	for i, n := range t.byClause {
		if n == 0 {
			continue
		}
		c := &p.min.Policy().Events[i]
		prefix := "kept."
		if c.Leave != "" {
			prefix = "left."
		}
		add(prefix+c.Reason(), n)
	}
}

// delta is what has been counted since; counts never fall.
func delta(now, since map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for k, v := range now {
		if v > since[k] {
			out[k] = v - since[k]
		}
	}
	return out
}
