package sigma

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/minio/highwayhash"
)

// Ref points at an event; the engine keeps it and gives it back.
type Ref [28]byte

// CorrelatorOptions sets bounds. The zero value takes the defaults named.
type CorrelatorOptions struct {
	MaxGroups   int           // live groups in all, default 1,000,000
	ScopeGroups int           // live groups of one scope, default MaxGroups/4: one tenant's noise must not push out another's state
	MaxRefs     int           // events pointed at by a group, 2 to 255, default 20
	UpdateEvery time.Duration // event time between the first two hits of an episode, default 1 minute; it doubles up to 16 times that
	Lateness    time.Duration // how long a group is kept beyond its timespan, default 10 minutes
	IPv6Prefix  int           // addresses are grouped by this prefix, default 64
	// Scoped says whether the groups of a correlation are kept apart by scope; nil: always.
	Scoped func(*Correlation) bool
	// HashKey keeps group hashes unpredictable; a restored snapshot brings its own. All zero is taken, and right only in tests.
	HashKey [32]byte
}

// Hit is a correlation whose condition holds for a group. A run of events that goes on makes one hit with New and then updates.
type Hit struct {
	Correlation int32
	Scope       uint32
	New         bool
	Late        bool
	N           int   // ordinal within the episode, from 0
	Episode     int64 // event time of the first event of the window that fired; with the group it names the episode
	First, Last int64 // event times of what this hit adds
	Count       int   // events that this hit adds: those of the window that fired (value_count: at least one a value), or since the last hit
	Total       int   // events of the episode so far
	Value       float64
	Saturated   bool     // Value is at least this
	Group       []string // values of the group-by fields, as text
	Refs        []Ref    // first and latest events, oldest first
	Rules       []string // for temporal types: the rules seen, in their order
}

// CorrelatorStats counts.
type CorrelatorStats struct {
	Groups     int
	Observed   uint64
	Hits       uint64
	Expired    uint64 // groups that ended quietly
	Evicted    uint64 // groups that were pushed out before their time: detection may have been missed, show it
	NoGroup    uint64 // matches without a group-by field, not counted
	Dropped    uint64 // groups of a snapshot whose rule has changed or gone
	StateBytes int    // about, of groups and their contents
}

// Correlator holds the state of correlations. It belongs to one goroutine.
type Correlator struct {
	e       *Engine
	opts    CorrelatorOptions
	groups  groupStore
	streams streamTable
	byCor   []list // oldest use first, for expiry
	scoped  []bool // by correlation: groups are kept apart by scope
	turn    int    // the correlation whose groups are looked at next for expiry
	byScope map[uint32]*scopeList
	largest []*scopeList // a heap: the scope with most groups is first
	active  []int32      // groups in an episode with events not reported yet
	waiting map[int32]*waiting
	dues    []due // a heap: the first is first
	tick    int64
	bytes   int // of what groups hold, themselves not included
	stats   CorrelatorStats
	evicted map[uint32]uint64

	buf     []byte
	values  []string
	text    []byte
	done    []complete
	points  []point // of a group that has to be taken apart
	numbers []float64
}

// NewCorrelator makes an empty state for e.
func NewCorrelator(e *Engine, opts CorrelatorOptions) *Correlator {
	def := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	def(&opts.MaxGroups, 1_000_000)
	def(&opts.ScopeGroups, max(opts.MaxGroups/4, 1))
	def(&opts.MaxRefs, 20)
	opts.MaxRefs = min(max(opts.MaxRefs, 2), maxRefs)
	def(&opts.IPv6Prefix, 64)
	if opts.UpdateEvery <= 0 {
		opts.UpdateEvery = time.Minute
	}
	if opts.Lateness <= 0 {
		opts.Lateness = 10 * time.Minute
	}
	c := &Correlator{e: e, opts: opts, byCor: make([]list, len(e.cors)), scoped: make([]bool, len(e.cors)), byScope: map[uint32]*scopeList{}, evicted: map[uint32]uint64{}, waiting: map[int32]*waiting{}}
	for i, cor := range e.Correlations {
		c.scoped[i] = opts.Scoped == nil || opts.Scoped(cor)
	}
	return c
}

// Stats gives the counters.
func (c *Correlator) Stats() CorrelatorStats {
	s := c.stats
	s.Groups = c.groups.live
	s.StateBytes = c.bytes + c.groups.bytes() + c.streams.bytes() + len(c.waiting)*waitingBytes
	return s
}

// EvictedByScope gives how many live groups each scope lost to the bounds.
func (c *Correlator) EvictedByScope() map[uint32]uint64 { return c.evicted }

// Observe takes the matches of one event: the numbers of its rules, the record, its event time and the processing time (both UTC
// nanoseconds; the second only decides when memory is freed), the scope it belongs to, whether it came too late to share a window with
// current events, and a reference to it. It appends hits; what they point at is theirs.
func (c *Correlator) Observe(rules []int32, r *Record, at, now int64, scope uint32, late bool, ref Ref, dst []Hit) []Hit {
	for _, rule := range rules {
		for i := range c.e.feeds.byRule[rule] {
			f := &c.e.feeds.byRule[rule][i]
			c.stats.Observed++
			dst = c.fromRule(f, r, at, now, scope, late, ref, dst)
		}
	}
	if len(rules) > 0 {
		c.expireTurn(now)
	}
	return dst
}

// groupText gives the value by which k groups, folded so that Admin and admin are one, and how it is shown.
func (c *Correlator) groupText(r *Record, k Key) (low, shown string, ok bool) {
	for i := r.first(k); i >= 0; i = r.fields[i].next {
		f := &r.fields[i]
		if f.kind == fieldNull {
			continue
		}
		if f.kind == fieldIP && f.ip.Is6() && !f.ip.Is4In6() && c.opts.IPv6Prefix < 128 {
			if p, err := f.ip.WithZone("").Prefix(c.opts.IPv6Prefix); err == nil {
				r.room(64)
				from := len(r.arena)
				r.arena = netip.Prefix.AppendTo(p, r.arena)
				s := unsafe.String(unsafe.SliceData(r.arena[from:]), len(r.arena)-from)
				return s, s, true
			}
		}
		return r.lowOf(f), r.textOf(f), true
	}
	return "", "", false
}

func (c *Correlator) fromRule(f *feed, r *Record, at, now int64, scope uint32, late bool, ref Ref, dst []Hit) []Hit {
	c.begin(f.cor, scope, late)
	c.values = c.values[:0]
	for _, k := range f.in.keys {
		low, shown, ok := c.groupText(r, k)
		if !ok && !c.e.Correlations[f.cor].OptionalGroup {
			c.stats.NoGroup++
			return dst
		}
		c.part(low)
		c.values = append(c.values, shown)
	}
	var value uint64
	c.text = c.text[:0]
	for j, k := range f.in.values {
		i := r.first(k)
		for i >= 0 && r.fields[i].kind == fieldNull {
			i = r.fields[i].next
		}
		if i < 0 {
			return dst // a missing field does not count
		}
		fl := &r.fields[i]
		if c.e.cors[f.cor].kind == "value_count" {
			value = c.hashed(j, len(f.in.values), r.lowOf(fl))
		} else {
			n, ok := r.numberOf(fl)
			if !ok {
				return dst
			}
			value = math.Float64bits(n)
		}
	}
	return c.add(f, value, at, now, scope, late, ref, dst)
}

// hashed gives the hash of the values of one event, low being the j-th of n.
func (c *Correlator) hashed(j, n int, low string) uint64 {
	if n > 1 {
		c.text = binary.AppendUvarint(c.text, uint64(len(low)))
	}
	if c.text = append(c.text, low...); j < n-1 {
		return 0
	}
	return highwayhash.Sum64(c.text, c.opts.HashKey[:])
}

func (c *Correlator) begin(cor int32, scope uint32, late bool) {
	if !c.scoped[cor] {
		scope = 0
	}
	c.buf = binary.LittleEndian.AppendUint64(c.buf[:0], c.e.cors[cor].fingerprint)
	c.buf = binary.LittleEndian.AppendUint32(c.buf, scope)
	if late {
		c.buf = append(c.buf, 1)
	} else {
		c.buf = append(c.buf, 0)
	}
}

func (c *Correlator) part(s string) {
	c.buf = binary.AppendUvarint(c.buf, uint64(len(s)))
	c.buf = append(c.buf, s...)
}

func (c *Correlator) add(f *feed, value uint64, at, now int64, scope uint32, late bool, ref Ref, dst []Hit) []Hit {
	cc := c.e.cors[f.cor]
	if !c.scoped[f.cor] {
		scope = 0
	}
	sum := highwayhash.Sum128(c.buf, c.opts.HashKey[:])
	key := [2]uint64{binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:])}
	i, ok := c.groups.find(key)
	if ok && c.groups.at(i).is(isWaiting) { // what is over is decided without this event; it can free the group
		dst = c.decide(i, at, now, dst)
		i, ok = c.groups.find(key)
	}
	if !ok {
		i = c.alloc(key, f.cor, scope, now)
	}
	g := c.groups.at(i)
	before := g.size()
	g.seen = seconds(now)
	g.mark(isLate, late)
	g.mark(isUsedCor|isUsedScope, ok)
	ep := g.ep
	if g.last != 0 && at > g.last+cc.span || ep != nil && at-ep.firedAt > cc.span {
		if ep != nil { // the attack is over: what it gathered since its last hit is told now
			if ep.since > 0 { // correlations that build on this one knew of each event: telling them could free g
				dst = c.tell(g, c.summary(g), dst)
			}
			g.ep, ep = nil, nil
		}
		if at > g.last+cc.span { // everything before is out of every window
			c.empty(g)
		}
	}
	last := g.last
	g.last = max(g.last, at)
	if ref != (Ref{}) { // else a hit of another correlation without an event of its own
		c.streams.add(&g.refs, ref, c.opts.MaxRefs)
	}
	var count int
	var first int64
	var measured float64
	if cc.terms != nil {
		count, first, measured, c.done = g.countTerms(cc, f.in.order, at, c.done[:0])
		c.negated(i, g, cc, f.in.order, at, c.done)
	} else if count, first, measured = c.count(g, cc, f.in.order, value, at, last); cc.closes {
		c.open(i, g, cc, at)
		c.bytes += g.size() - before
		return dst
	}
	holds := cc.holds(measured)
	if ep != nil {
		if ep.since == 0 || at < ep.sinceFirst {
			ep.sinceFirst = at
		}
		ep.since++
		ep.total++
		if !g.is(isListed) {
			g.mark(isListed, true)
			c.active = append(c.active, i)
		}
	}
	opened := holds && ep == nil
	if opened {
		ep = &episode{start: first, firedAt: at, emitted: at, total: uint32(min(count, math.MaxUint32))}
		for _, v := range c.values {
			ep.names = append(ep.names, strings.Clone(v))
		}
		g.ep = ep
	}
	c.bytes += g.size() - before // before anything else is told: that can free groups, this one too
	if !holds {
		return dst
	}
	ep.firedAt = max(ep.firedAt, at)
	hit := Hit{Correlation: f.cor, Scope: scope, Late: late, Value: measured, Saturated: g.is(isSaturated)}
	switch {
	case opened:
		hit.New, hit.First, hit.Last, hit.Count = true, first, at, count
	case at-ep.emitted >= c.pace(ep):
		hit.First, hit.Last, hit.Count = ep.sinceFirst, at, int(ep.since)
		ep.emitted, ep.since = at, 0
		ep.n++
	default:
		return c.feedOthers(ep.names, &hit, at, now, ref, dst)
	}
	return c.emit(g, hit, at, now, ref, dst)
}

// empty forgets what g has gathered.
func (c *Correlator) empty(g *group) {
	g.clear()
	c.streams.release(&g.refs)
	g.mark(isSaturated, false)
}

// summary is what the episode of g has gathered since its last hit.
func (c *Correlator) summary(g *group) Hit {
	ep := g.ep
	hit := Hit{Correlation: int32(g.cor), Scope: g.scope, Late: g.is(isLate), First: ep.sinceFirst, Last: g.last, Count: int(ep.since), Saturated: g.is(isSaturated)}
	hit.Value = c.current(g, c.e.cors[g.cor])
	ep.emitted, ep.since = max(ep.emitted, g.last), 0
	ep.n++
	return hit
}

// tell completes a hit of the episode of g and appends it.
func (c *Correlator) tell(g *group, hit Hit, dst []Hit) []Hit {
	hit.N, hit.Episode, hit.Total = int(g.ep.n), g.ep.start, int(g.ep.total)
	hit.Group = slices.Clone(g.ep.names)
	hit.Refs = c.streams.unpack(&g.refs)
	cc := c.e.cors[hit.Correlation]
	switch {
	case cc.kind == "temporal_ordered" && cc.terms == nil: // all of them, or there would be no hit
		hit.Rules = slices.Clone(cc.cor.Rules)
	case cc.kind == "temporal" || cc.kind == "temporal_ordered":
		for o, t := range g.slots(cc.keep)[:len(cc.cor.Rules)] {
			if t != 0 && hit.Last-t <= cc.span {
				hit.Rules = append(hit.Rules, cc.cor.Rules[o])
			}
		}
	}
	c.stats.Hits++
	return append(dst, hit)
}

// emit tells a hit, and the correlations that build on this one. That can free groups, g too: it must not be used after.
func (c *Correlator) emit(g *group, hit Hit, at, now int64, ref Ref, dst []Hit) []Hit {
	names := g.ep.names
	return c.feedOthers(names, &hit, at, now, ref, c.tell(g, hit, dst))
}

// feedOthers tells the correlations that build on this one. They see its group-by fields and nothing else. Counts take an episode once;
// for temporal types the condition is as recent as the last event for which it held.
func (c *Correlator) feedOthers(names []string, hit *Hit, at, now int64, ref Ref, dst []Hit) []Hit {
	feeds := c.e.feeds.byCor[hit.Correlation]
	if len(feeds) == 0 {
		return dst
	}
	for i := range feeds {
		f := &feeds[i]
		cc := c.e.cors[f.cor]
		if !hit.New && !strings.HasPrefix(cc.kind, "temporal") {
			continue
		}
		c.stats.Observed++
		c.begin(f.cor, hit.Scope, hit.Late)
		c.values = c.values[:0]
		for _, p := range f.in.groups {
			c.part(fold(names[p]))
			c.values = append(c.values, names[p])
		}
		var value uint64
		c.text = c.text[:0]
		counts := true
		for j, p := range f.in.valueGroups {
			if cc.kind == "value_count" {
				value = c.hashed(j, len(f.in.valueGroups), fold(names[p]))
				continue
			}
			n, ok := parseNumber(names[p])
			value, counts = math.Float64bits(n), ok
		}
		if !counts {
			continue
		}
		dst = c.add(f, value, at, now, hit.Scope, hit.Late, ref, dst)
	}
	return dst
}

// Tick decides conditions whose time is over, and reports what episodes have gathered since their last hit, once the pace allows it or
// the episode is over; at is the current event time. Call it now and then (its cost grows with the episodes that go on, not with the groups), so that the last events of an attack are
// counted too.
func (c *Correlator) Tick(at, now int64, dst []Hit) []Hit {
	dst = c.decideDue(at, now, dst)
	if at-c.tick < int64(c.opts.UpdateEvery) {
		return dst
	}
	c.tick = at
	list := c.active
	c.active = nil // telling others can list groups anew
	slices.Sort(list)
	list = slices.Compact(list) // a place that was freed and taken again may be listed twice
	keep := list[:0]
	for _, i := range list {
		g := c.groups.at(i)
		if !g.is(isListed) {
			continue // freed meanwhile
		}
		switch {
		case g.ep == nil || g.ep.since == 0:
			g.mark(isListed, false)
		case !g.is(isLate) && at-g.ep.emitted < c.pace(g.ep) && at-g.ep.firedAt <= c.e.cors[g.cor].span:
			keep = append(keep, i)
		default:
			g.mark(isListed, false)
			hit := c.summary(g)
			dst = c.emit(g, hit, hit.Last, now, Ref{}, dst)
		}
	}
	c.active = append(keep, c.active...)
	return dst
}

// pace is the time between two hits of an episode: it doubles four times, so that a long attack is told less and less often.
func (c *Correlator) pace(ep *episode) int64 { return int64(c.opts.UpdateEvery) << min(ep.n, 4) }
