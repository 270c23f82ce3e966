package sigma

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// Ref points at an event; the engine keeps it and gives it back.
type Ref [28]byte

// CorrelatorOptions sets bounds. The zero value takes the defaults named.
type CorrelatorOptions struct {
	MaxGroups   int           // live groups in all, default 1,000,000
	ScopeGroups int           // live groups of one scope, default MaxGroups/4: one tenant's noise must not push out another's state
	MaxRefs     int           // events pointed at by a group, default 20
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
	table   map[[2]uint64]int32
	groups  []group
	free    []int32
	byCor   []list // oldest use first, for expiry
	byScope map[uint32]*scopeList
	active  []int32 // groups in an episode with events not reported yet
	tick    int64
	stats   CorrelatorStats
	evicted map[uint32]uint64

	buf    []byte
	values []string
	text   []byte
}

type list struct{ head, tail int32 } // positions plus one

type scopeList struct {
	list
	n int
}

type point struct {
	t int64
	h uint64 // hash of a value, or bits of a number
}

type group struct {
	key                [2]uint64
	scope              uint32
	cor                int32
	corPrev, corNext   int32 // positions plus one
	scopePrev, scopeNx int32
	late, saturated    bool
	inActive           bool
	n                  uint32 // hits of the episode
	seen               int64  // processing time of the last event
	last               int64  // event time of the latest event
	episode            int64
	firedAt            int64
	emitted            int64
	sinceFirst         int64
	since, total       uint32
	times              []int64 // event_count: sorted; temporal: by rule; temporal_ordered: start of the best chain by rule
	points             []point // value_*
	refs               []Ref
	names              []string // group texts, kept while an episode lasts so that Tick can report
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
	def(&opts.IPv6Prefix, 64)
	if opts.UpdateEvery <= 0 {
		opts.UpdateEvery = time.Minute
	}
	if opts.Lateness <= 0 {
		opts.Lateness = 10 * time.Minute
	}
	return &Correlator{e: e, opts: opts, table: map[[2]uint64]int32{}, byCor: make([]list, len(e.cors)), byScope: map[uint32]*scopeList{}, evicted: map[uint32]uint64{}}
}

// Stats gives the counters.
func (c *Correlator) Stats() CorrelatorStats {
	s := c.stats
	s.Groups = len(c.table)
	for i := range c.groups {
		g := &c.groups[i]
		s.StateBytes += cap(g.times)*8 + cap(g.points)*16 + cap(g.refs)*28 + 200
	}
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
		c.expire(now)
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
				s := string(r.arena[from:])
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
	if f.in.value != NoKey {
		i := r.first(f.in.value)
		for i >= 0 && r.fields[i].kind == fieldNull {
			i = r.fields[i].next
		}
		if i < 0 {
			return dst // a missing field does not count
		}
		fl := &r.fields[i]
		if c.e.cors[f.cor].kind == "value_count" {
			c.text = append(c.text[:0], r.lowOf(fl)...)
			value = highwayhash.Sum64(c.text, c.opts.HashKey[:])
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

func (c *Correlator) begin(cor int32, scope uint32, late bool) {
	if c.opts.Scoped != nil && !c.opts.Scoped(c.e.Correlations[cor]) {
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
	if c.opts.Scoped != nil && !c.opts.Scoped(cc.cor) {
		scope = 0
	}
	sum := highwayhash.Sum128(c.buf, c.opts.HashKey[:])
	key := [2]uint64{binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:])}
	i, ok := c.table[key]
	if !ok {
		i = c.alloc(key, f.cor, scope, now)
	} else {
		c.unlink(i)
	}
	g := &c.groups[i]
	c.link(i)
	g.seen, g.late = now, late
	if g.last != 0 && at > g.last+cc.span { // everything before is out of every window
		g.reset()
	}
	g.last = max(g.last, at)
	if ref == (Ref{}) {
		// A hit of another correlation without an event of its own.
	} else if len(g.refs) < c.opts.MaxRefs {
		g.refs = append(g.refs, ref)
	} else { // the first half stays, the latest take turns in the rest
		half := c.opts.MaxRefs / 2
		copy(g.refs[half:], g.refs[half+1:])
		g.refs[len(g.refs)-1] = ref
	}
	count, first, measured := g.count(cc, f.in.order, value, at)
	holds := cc.holds(measured)
	inEpisode := g.episode != 0 && at-g.firedAt <= cc.span
	if !inEpisode {
		g.episode = 0
	}
	if inEpisode {
		if g.since == 0 || at < g.sinceFirst {
			g.sinceFirst = at
		}
		g.since++
		g.total++
		if !g.inActive {
			g.inActive = true
			c.active = append(c.active, i)
		}
	}
	if !holds {
		return dst
	}
	g.firedAt = max(g.firedAt, at)
	hit := Hit{Correlation: f.cor, Scope: scope, Late: late, Value: measured, Saturated: g.saturated}
	switch {
	case !inEpisode:
		g.episode, g.emitted, g.n, g.since, g.total = first, at, 0, 0, uint32(min(count, math.MaxUint32))
		g.names = g.names[:0]
		for _, v := range c.values {
			g.names = append(g.names, strings.Clone(v))
		}
		hit.New, hit.First, hit.Last, hit.Count = true, first, at, count
	case at-g.emitted >= c.pace(g):
		hit.First, hit.Last, hit.Count = g.sinceFirst, at, int(g.since)
		g.emitted, g.since = at, 0
		g.n++
	default:
		return c.feedOthers(g, &hit, at, now, ref, dst)
	}
	return c.emit(g, hit, at, now, ref, dst)
}

func (c *Correlator) emit(g *group, hit Hit, at, now int64, ref Ref, dst []Hit) []Hit {
	hit.N, hit.Episode, hit.Total = int(g.n), g.episode, int(g.total)
	hit.Group = slices.Clone(g.names)
	hit.Refs = slices.Clone(g.refs)
	cc := c.e.cors[hit.Correlation]
	if cc.kind == "temporal" || cc.kind == "temporal_ordered" {
		for o, t := range g.times {
			if t != 0 && (cc.kind == "temporal_ordered" || hit.Last-t <= cc.span) {
				hit.Rules = append(hit.Rules, cc.cor.Rules[o])
			}
		}
	}
	c.stats.Hits++
	dst = append(dst, hit)
	return c.feedOthers(g, &hit, at, now, ref, dst)
}

// feedOthers tells the correlations that build on this one. They see its group-by fields and nothing else. Counts take an episode once;
// for temporal types the condition is as recent as the last event for which it held.
func (c *Correlator) feedOthers(g *group, hit *Hit, at, now int64, ref Ref, dst []Hit) []Hit {
	feeds := c.e.feeds.byCor[hit.Correlation]
	if len(feeds) == 0 {
		return dst
	}
	names := g.names // g itself can move when a group is made
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
		if p := f.in.valueGroup; p >= 0 {
			if cc.kind == "value_count" {
				value = highwayhash.Sum64([]byte(fold(names[p])), c.opts.HashKey[:])
			} else if n, ok := parseNumber(names[p]); ok {
				value = math.Float64bits(n)
			} else {
				continue
			}
		}
		dst = c.add(f, value, at, now, hit.Scope, hit.Late, ref, dst)
	}
	return dst
}

// Tick reports what episodes have gathered since their last hit, once the pace allows it; at is the current event time. Call it now and
// then (its cost grows with the episodes that go on, not with the groups), so that the last events of an attack are counted too.
func (c *Correlator) Tick(at, now int64, dst []Hit) []Hit {
	if at-c.tick < int64(c.opts.UpdateEvery) {
		return dst
	}
	c.tick = at
	keep := c.active[:0]
	for _, i := range c.active {
		g := &c.groups[i]
		if !g.inActive {
			continue // freed meanwhile
		}
		switch {
		case g.episode == 0 || g.since == 0:
			g.inActive = false
		case !g.late && at-g.emitted < c.pace(g):
			keep = append(keep, i)
		default:
			hit := Hit{Correlation: g.cor, Scope: g.scope, Late: g.late, First: g.sinceFirst, Last: g.last, Count: int(g.since), Saturated: g.saturated}
			hit.Value = g.current(c.e.cors[g.cor])
			g.emitted, g.since, g.inActive = max(g.emitted, g.last), 0, false
			g.n++
			dst = c.emit(g, hit, hit.Last, now, Ref{}, dst)
		}
	}
	slices.Sort(keep) // a place that was freed and taken again may be listed twice
	c.active = slices.Compact(keep)
	return dst
}

// pace is the time between two hits of an episode: it doubles four times, so that a long attack is told less and less often.
func (c *Correlator) pace(g *group) int64 { return int64(c.opts.UpdateEvery) << min(g.n, 4) }
