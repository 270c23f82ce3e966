// Package detect runs the Sigma engine on the stream and makes detections of matches. The same engine runs on the member's site, over
// everything, and at the hub, over what left the sites; rules say where they belong.
//
// It reads events one by one (Process) and gives detections; it writes nothing. Its state, the windows of correlations, is in memory and
// can be saved (Snapshot) and restored: after a crash the stage restores the last snapshot and processes again what came since, which
// makes the same detections with the same keys. State is bounded, in all and for each member, and what had to be pushed out is counted
// by member (Stats): then something may have been missed.
//
// An attack that goes on is one detection. The first comes at once; while it lasts the same detection comes again, with the same Key and
// a higher Count, at a pace that slows down from one minute to sixteen. Whoever keeps detections replaces the count.
//
// Attempts and successes are different rules and never share a group. Sources in IPv6 are grouped by /64. Events that come long after
// their time (a spool that was cut off) are correlated among themselves and their detections marked Late.
package detect

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// lateAfter is how far behind the processing time an event's time may be before it is correlated apart from current ones.
const lateAfter = 15 * time.Minute

// Options for New.
type Options struct {
	Rules     fs.FS      // folder of rules; or
	Catalogue *Catalogue // one that was loaded already
	Where     Where      // Site or Hub
	// Origin tells the keys of detections made on different sites apart: the collector's id. At the hub it is empty.
	Origin string
	Logger *slog.Logger
	// Withhold says which fields' values must not be in a detection: on a site the member's policy decides what leaves, and a sentence
	// must not carry out what a field may not. Only the entity is named all the same, since nothing can be grouped without it: EntityField
	// says where its value is from, and whoever lets the detection leave decides about it.
	Withhold func(field string) bool

	// Exceptions gives those in force, for each event anew; nil: there are none. It may give nil.
	Exceptions func() Exceptions

	MaxGroups    int // live groups of all correlations, default 50,000 on a site and 2,000,000 at the hub
	TenantGroups int // of one member, default a quarter at the hub; on a site all, since there is mostly one
}

// siteGroups is how many groups a collector, which has 64 MB in all, can hold: about 15 MB of them.
const (
	siteGroups = 50_000
	hubGroups  = 2_000_000
)

// Engine detects. It belongs to one goroutine, but for Stats, Reload, Catalogue and Errors.
type Engine struct {
	mu   sync.Mutex // held by every call that changes or reads state; waited for only by who asks for Stats or changes the rules
	opts Options
	program

	match sigma.Matcher
	rec   sigma.Record
	ids   []int32
	hits  []sigma.Hit

	waiting []linking // while a record is filled
	made    []byte
	clock   int64 // the latest event time that was not ahead of its processing
	stats   Stats

	coarse map[event.TenantID]uint64 // events of further kinds, by whose they are (reading)

	// What was pushed out of correlators that a reload replaced.
	evicted   uint64
	evictedBy map[uint32]uint64
}

// program is one compiled set of rules with its state: all that Reload replaces. What is derived from rules belongs here.
type program struct {
	cat      *Catalogue
	rules    *sigma.Engine
	cor      *sigma.Correlator
	corOpts  sigma.CorrelatorOptions
	attrs    []*attributes // by correlation; nil: silent
	metas    []*sigma.Meta
	wanted   []bool // by event key
	routes   map[route]*reading
	routesOf map[event.TenantID]int // how many of them by whose events
	finer    finerKeys
	grouped  []string // fields that correlations look at
}

// Stats counts since the engine was made.
type Stats struct {
	Rules        int // rules that run here, correlations included
	Events       uint64
	Matches      uint64 // of single rules
	Detections   uint64 // first ones
	Updates      uint64
	Late         uint64 // events that came long after their time
	Groups       int    // live groups
	Evicted      uint64 // groups pushed out before their time: something may have been missed
	EvictedBy    map[event.TenantID]uint64
	Kinds        int    // of events that are told apart
	Coarse       uint64 // events of further kinds, judged by their data set alone: rules for what they are were not asked
	CoarseBy     map[event.TenantID]uint64
	StateBytes   int
	MatchedRules map[string]uint64 // detections by rule id
}

// New makes an engine. Rules that cannot be used are logged and listed by Errors; New fails only if none is left or the options are wrong.
func New(opts Options) (*Engine, error) {
	if opts.Where != Site && opts.Where != Hub {
		return nil, fmt.Errorf("detect: where is %q, want site or hub", opts.Where)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	cat := opts.Catalogue
	if cat == nil {
		var err error
		if cat, err = Load(opts.Rules); err != nil {
			return nil, err
		}
	}
	coll, loud := cat.selection(opts.Where)
	attrs := cat.attrs
	daily, a := dailyRule(opts.Where)
	attrs = maps.Clone(attrs)
	coll.Rules, loud[daily.ID], attrs[daily.ID] = append(coll.Rules, daily), true, a
	// A rule that is no correlation becomes the simplest one: once, then counted. So one sensor that repeats itself is one detection.
	for _, r := range coll.Rules {
		if !loud[r.ID] {
			continue
		}
		a := attrs[r.ID]
		group := slices.Clone(a.EntityFields)
		for _, f := range a.GroupBy {
			if !slices.Contains(group, f) {
				group = append(group, f)
			}
		}
		coll.Correlations = append(coll.Correlations, &sigma.Correlation{
			Meta: sigma.Meta{ID: wrapped + r.ID, Title: r.Title, File: r.File, Line: r.Line}, Type: "event_count", Rules: []string{r.ID}, GroupBy: group,
			Timespan: a.Window, Generate: true, Bounds: []sigma.Bound{{Op: "gte", Value: 1}}, OptionalGroup: true})
	}
	rules, err := sigma.Compile(coll, sigma.Options{Schema: schema{}})
	if err != nil {
		return nil, fmt.Errorf("detect: %w", err)
	}
	e := &Engine{opts: opts, program: program{cat: cat, rules: rules, routes: map[route]*reading{}, routesOf: map[event.TenantID]int{}}}
	for _, err := range slices.Concat(cat.Errors, rules.Errors) {
		opts.Logger.Error("detection rule left out", "file", err.File, "line", err.Line, "rule", err.Rule, "reason", err.Reason)
	}
	ids := map[string]*sigma.Meta{}
	for _, r := range coll.Rules {
		ids[r.ID] = &r.Meta
	}
	quiet := map[string]bool{} // rules that only feed a correlation, as Sigma says unless that one generates
	for i, r := range rules.Rules {
		quiet[r.ID] = !rules.Alerts(int32(i))
	}
	for i, c := range rules.Correlations {
		id, isWrapped := strings.CutPrefix(c.ID, wrapped)
		meta := &c.Meta
		if isWrapped {
			meta = ids[id]
		}
		var a *attributes
		if loud[id] && (isWrapped && !quiet[id] || !isWrapped && rules.CorrelationAlerts(int32(i))) {
			a = attrs[id]
			if id != daily.ID {
				e.stats.Rules++
			}
		}
		e.attrs, e.metas = append(e.attrs, a), append(e.metas, meta)
	}
	if e.stats.Rules == 0 {
		return nil, errors.New("detect: no rule is left that makes detections here")
	}
	copts := sigma.CorrelatorOptions{MaxGroups: opts.MaxGroups, ScopeGroups: opts.TenantGroups, Scoped: func(c *sigma.Correlation) bool {
		a := attrs[strings.TrimPrefix(c.ID, wrapped)]
		return a == nil || !a.Across
	}}
	if copts.MaxGroups == 0 {
		copts.MaxGroups = map[Where]int{Site: siteGroups, Hub: hubGroups}[opts.Where]
	}
	if copts.ScopeGroups == 0 && opts.Where == Site {
		copts.ScopeGroups = copts.MaxGroups
	}
	rand.Read(copts.HashKey[:])
	e.corOpts = copts
	e.forget()
	return e, e.name()
}

// forget empties the state and the counters.
func (e *Engine) forget() {
	e.cor = sigma.NewCorrelator(e.rules, e.corOpts)
	e.clock = 0
	e.stats = Stats{Rules: e.stats.Rules, MatchedRules: map[string]uint64{}}
}

// wrapped marks correlations that New makes of single rules.
const wrapped = "each:"

// schema lets rules name any field: their names become keys.
type schema struct{}

func (schema) Key(name string) (sigma.Key, error) {
	k, err := event.Register(name)
	return sigma.Key(k), err
}

// name makes ready what says where in events the fields are that rules, groups and reasons look at.
func (p *program) name() error {
	if err := registerNames(p.rules); err != nil {
		return fmt.Errorf("detect: the rules name too many fields: %w", err)
	}
	p.finer = newFinerKeys()
	seen := map[string]bool{}
	for _, c := range p.rules.Correlations {
		for _, f := range append(slices.Clone(c.GroupBy), c.ValueFields()...) {
			seen[f] = true
			for _, to := range c.Aliases[f] {
				seen[to] = true
			}
		}
	}
	p.grouped = slices.Sorted(maps.Keys(seen))
	p.wanted = make([]bool, event.NumKeys())
	for _, n := range p.rules.FieldNames() {
		if k, ok := event.Lookup(n); ok {
			p.wanted[k] = true
		}
	}
	return nil
}

// Catalogue gives the rules with their texts. It may be called from any goroutine.
func (e *Engine) Catalogue() *Catalogue {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cat
}

// Errors lists rules that were left out, with the reason. It may be called from any goroutine.
func (e *Engine) Errors() []*sigma.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Concat(e.cat.Errors, e.rules.Errors)
}

// Stats gives the counters. It may be called from any goroutine.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	c := e.cor.Stats()
	s.Groups, s.Evicted, s.StateBytes = c.Groups, c.Evicted+e.evicted, c.StateBytes
	s.EvictedBy = map[event.TenantID]uint64{}
	for t, n := range e.evictedBy {
		s.EvictedBy[event.TenantID(t)] = n
	}
	for t, n := range e.cor.EvictedByScope() {
		s.EvictedBy[event.TenantID(t)] += n
	}
	s.Kinds, s.CoarseBy = len(e.routes), maps.Clone(e.coarse)
	for _, n := range e.coarse {
		s.Coarse += n
	}
	s.MatchedRules = map[string]uint64{}
	for id, n := range e.stats.MatchedRules {
		s.MatchedRules[id] = n
	}
	return s
}

// at is the event's time for correlation: when the collector received it, which does not depend on the device's clock.
func at(ev *event.Event, now int64) int64 {
	switch {
	case ev.Created != 0:
		return ev.Created
	case ev.Time != 0:
		return ev.Time
	}
	return now
}

// Process takes one event and gives the detections that it completes. now is the processing time in UTC nanoseconds; after a crash
// events must be processed again with the times they had (at the hub: event.ingested). The event is not kept.
func (e *Engine) Process(ev *event.Event, now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Events++
	t := at(ev, now)
	late := now-t > int64(lateAfter)
	if late {
		e.stats.Late++
	} else if t > e.clock && t <= now+int64(lateAfter) {
		e.clock = t
	}
	e.hits = e.hits[:0]
	if g := e.reading(ev); g.set.Len() > 0 {
		e.fill(ev, g)
		e.ids = e.match.Match(g.set, &e.rec, e.ids[:0])
		e.stats.Matches += uint64(len(e.ids))
		e.ids = e.except(e.ids, ev, now)
		if len(e.ids) > 0 {
			// The order must not depend on how the index works, or a replay by another version would differ.
			slices.Sort(e.ids)
			e.fillRest(ev, g)
			e.hits = e.cor.Observe(e.ids, &e.rec, t, now, uint32(ev.Tenant), late, refOf(ev.ID), e.hits)
		}
	}
	direct := len(e.hits)
	e.hits = e.cor.Tick(e.clock, now, e.hits)
	if len(e.hits) == 0 {
		return nil
	}
	return e.detections(ev, direct)
}

// Flush reports what attacks that go on have gathered since their last detection, if its time has come. Process does so too: call it when
// no events come.
func (e *Engine) Flush(now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clock = max(e.clock, now-int64(lateAfter))
	e.hits = e.cor.Tick(e.clock, now, e.hits[:0])
	return e.detections(nil, 0)
}

func (e *Engine) detections(ev *event.Event, direct int) []event.Detection {
	var out []event.Detection
	for i := range e.hits {
		h := &e.hits[i]
		if e.attrs[h.Correlation] == nil {
			continue
		}
		from := ev
		if i >= direct {
			from = nil // from an episode, not from this event
		}
		out = append(out, e.detection(h, from))
	}
	// Several within one event: in an order that a replay repeats.
	slices.SortStableFunc(out, func(a, b event.Detection) int {
		return cmp.Or(cmp.Compare(a.RuleID, b.RuleID), cmp.Compare(a.Key, b.Key))
	})
	return out
}

// fillRest adds what correlations look at beside.
func (e *Engine) fillRest(ev *event.Event, g *reading) {
	r := &e.rec
	for i, k := range ev.Keys() {
		if int(k) < len(e.wanted) && e.wanted[k] && !(int(k) < len(g.asked) && g.asked[k]) && k != event.TocsinTenant {
			add(r, sigma.Key(k), ev.Ref(i))
		}
	}
	if !g.asked[event.TocsinTenant] {
		addTenant(r, ev)
	}
}

// addTenant tells rules whose event it is. Never from the event: a collector speaks only for its own member.
func addTenant(r *sigma.Record, ev *event.Event) {
	r.AddInt(sigma.Key(event.TocsinTenant), int64(ev.Tenant))
}

func add(r *sigma.Record, k sigma.Key, v *event.Value) {
	switch v.Kind() {
	case event.String:
		r.AddString(k, v.Str())
	case event.Int:
		r.AddInt(k, v.Int())
	case event.Float:
		r.AddFloat(k, v.Float())
	case event.Bool:
		r.AddBool(k, v.Bool())
	case event.IP:
		r.AddIP(k, v.IP())
	case event.Time:
		r.AddTime(k, v.Time())
	}
}

func refOf(id event.ID) (r sigma.Ref) {
	if id.Seq == 0 {
		return r // not numbered yet, as on the site
	}
	copy(r[:16], id.Stream[:])
	binary.BigEndian.PutUint64(r[16:24], id.Seq)
	binary.BigEndian.PutUint32(r[24:], id.Index)
	return r
}

func idOf(r sigma.Ref) event.ID {
	return event.ID{Stream: event.StreamID(r[:16]), Seq: binary.BigEndian.Uint64(r[16:24]), Index: binary.BigEndian.Uint32(r[24:])}
}

func (e *Engine) detection(h *sigma.Hit, ev *event.Event) event.Detection {
	a, meta, c := e.attrs[h.Correlation], e.metas[h.Correlation], e.rules.Correlations[h.Correlation]
	named := func(name string) string {
		if i := slices.Index(c.GroupBy, name); i >= 0 {
			return h.Group[i]
		}
		// What is counted differs from event to event: the last one's value would mislead.
		if ev == nil || name == c.ValueField() {
			return ""
		}
		if k, ok := event.Lookup(name); ok {
			return ev.Text(k)
		}
		return ""
	}
	value := func(name string) string {
		if e.opts.Withhold != nil && e.opts.Withhold(name) {
			return ""
		}
		return named(name)
	}
	d := event.Detection{
		Tenant: event.TenantID(h.Scope), RuleID: meta.ID, RuleTitle: meta.Title, Family: a.Family, Level: meta.Level, Tags: meta.Tags,
		Entity: event.Entity{Kind: a.Entity}, First: h.Episode, Last: h.Last, Count: h.Total, Site: e.opts.Where == Site, Late: h.Late,
		Source: value("source.ip"), User: value("user.name"),
	}
	if ev != nil {
		d.Indicator = ev.Indicator()
	}
	if a.Across {
		d.Tenant = 0
	}
	for _, f := range a.EntityFields {
		if d.Entity.Value = named(f); d.Entity.Value != "" {
			d.EntityField = f
			break
		}
	}
	if d.Entity.Value == "" { // nothing names it: the alert groups by rule, it is not lost
		d.Entity = event.Entity{Kind: "rule", Value: meta.ID}
	}
	if d.Entity.Kind == "host" {
		d.Host = d.Entity.Value
	} else {
		d.Host = value("destination.ip")
	}
	for _, r := range h.Refs {
		if r != (sigma.Ref{}) && len(d.Events) < event.MaxDetectionEvents {
			d.Events = append(d.Events, idOf(r))
		}
	}
	// A pattern of several rules counts its parts; people ask how many events are behind it.
	d.Count = max(d.Count, len(d.Events))
	d.Reason = e.reason(a.Reason, h, c, value)
	d.Steps = steps(h, c, d.Reason)
	// The window is named by where it began, which a replay finds again. It is hashed because users' names may be in it.
	group := strings.ToLower(strings.Join(h.Group, "\x00"))
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s\x00%s\x00%s\x00%s\x00%d\x00%t", d.Tenant, e.opts.Origin, d.RuleID, d.Entity.Kind, d.Entity.Value, group, h.Episode, h.Late))
	d.Key = hex.EncodeToString(sum[:16])
	if h.New {
		e.stats.Detections++
		e.stats.MatchedRules[meta.ID]++
	} else {
		e.stats.Updates++
	}
	return d
}

// reason fills the sentence of a rule.
func (e *Engine) reason(text string, h *sigma.Hit, c *sigma.Correlation, value func(string) string) string {
	s := placeholders.ReplaceAllStringFunc(text, func(p string) string {
		name := p[1 : len(p)-1]
		switch name {
		case "count":
			return strconv.Itoa(h.Total)
		case "value":
			v := strconv.FormatFloat(h.Value, 'f', -1, 64)
			if h.Saturated {
				v = "at least " + v
			}
			return v
		case "span":
			return span(int64(c.Timespan))
		case "within":
			return span(h.Last - h.Episode)
		case "times":
			if h.Total == 1 {
				return "once"
			}
			return strconv.Itoa(h.Total) + " times within " + span(h.Last-h.Episode)
		}
		for n := range strings.SplitSeq(name, "|") { // the first that is there
			if text, ok := strings.CutPrefix(n, "'"); ok {
				return strings.TrimSuffix(text, "'")
			}
			if v := value(n); v != "" {
				return event.Clip(v)
			}
		}
		return "unknown"
	})
	s = strings.TrimSpace(s)
	if h.Late {
		s += " These events reached us late."
	}
	return s
}

// steps is how it came about: begin, threshold, latest.
func steps(h *sigma.Hit, c *sigma.Correlation, reason string) []event.Step {
	out := []event.Step{{Time: h.Episode, Text: "The first of these events."}}
	if h.Total == 1 {
		return []event.Step{{Time: h.Last, Text: reason}}
	}
	if !h.New {
		out = append(out, event.Step{Time: h.First, Text: fmt.Sprintf("%d more since the last notice.", h.Count)})
	}
	return append(out, event.Step{Time: h.Last, Text: reason})
}

// span says a duration as people do.
func span(ns int64) string {
	unit := func(n int64, name string) string {
		if n == 1 {
			return "1 " + name
		}
		return fmt.Sprintf("%d %ss", n, name)
	}
	switch s := (ns + 5e8) / 1e9; {
	case s < 1:
		return "less than a second"
	case s < 120:
		return unit(s, "second")
	case s < 2*3600:
		return unit((s+30)/60, "minute")
	case s < 48*3600:
		return unit((s+1800)/3600, "hour")
	default:
		return unit((s+43200)/86400, "day")
	}
}

// Snapshot is the state. It belongs with the position in the stream up to which events were processed.
func (e *Engine) Snapshot() ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := []byte{1}
	b = binary.BigEndian.AppendUint64(b, uint64(e.clock))
	b = append(b, e.cor.Snapshot()...)
	sum := sha256.Sum256(b)
	return append(b, sum[:8]...), nil
}

// Restore takes the state of a snapshot. Windows of rules that have changed since are left out. On an error the state is as it was.
func (e *Engine) Restore(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(b) < 17 || b[0] != 1 {
		return errors.New("detect: restore: not a snapshot of a known version")
	}
	body := b[:len(b)-8]
	if sum := sha256.Sum256(body); string(sum[:8]) != string(b[len(body):]) {
		return errors.New("detect: restore: the snapshot is damaged (its checksum differs)")
	}
	if err := e.cor.Restore(body[9:]); err != nil {
		return fmt.Errorf("detect: restore: %w", err)
	}
	e.clock = int64(binary.BigEndian.Uint64(body[1:9]))
	return nil
}
