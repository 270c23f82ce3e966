package sigma

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// Limits on one correlation.
const (
	maxThreshold = 100_000 // of a count: so many times or values may have to be kept for one group
	maxNumbers   = 10_000  // values kept for sums, averages and percentiles
	distinctRoom = 256     // distinct values counted exactly, if the threshold does not ask for more
)

// input is one rule, or one other correlation, that feeds a correlation.
type input struct {
	order int   // position in Correlation.Rules
	keys  []Key // of the group-by fields
	value Key   // of the counted or summed field
	// For a correlation as input: positions in its own group-by.
	groups     []int
	valueGroup int
}

type compiledCorrelation struct {
	cor         *Correlation
	kind        string
	span        int64
	keep        int // times or values that decide the condition
	fingerprint uint64
	quiet       bool
}

type feed struct {
	cor int32
	in  input
}

// feeds by rule and by correlation.
type feedTable struct {
	byRule, byCor [][]feed
}

func (e *Engine) correlations(list []*Correlation, refused func(*Meta, error)) {
	type target struct {
		rule, cor int32
	}
	named := map[string]target{}
	for i, r := range e.Rules {
		for _, n := range []string{r.ID, r.Name} {
			if n != "" {
				named[n] = target{int32(i), -1}
			}
		}
	}
	// A correlation may refer to others, before or after it: take those whose references are known until nothing changes.
	e.feeds.byRule = make([][]feed, len(e.Rules))
	rest := slices.Clone(list)
	for progress := true; progress && len(rest) > 0; {
		progress = false
		var later []*Correlation
		for _, c := range rest {
			if slices.ContainsFunc(c.Rules, func(n string) bool { _, ok := named[n]; return !ok }) {
				later = append(later, c)
				continue
			}
			progress = true
			cc, err := compileCorrelation(c)
			if err != nil {
				refused(&c.Meta, err)
				continue
			}
			number := int32(len(e.Correlations))
			if taken, ok := named[c.ID]; ok && c.ID != "" {
				refused(&c.Meta, fmt.Errorf("the id %s is already used (rule %d)", c.ID, taken.rule))
				continue
			}
			var feeds []feed
			var from []target
			for order, n := range c.Rules {
				t := named[n]
				in, err := e.input(c, order, n, t.rule, t.cor)
				if err != nil {
					refused(&c.Meta, &lineError{c.line, err.Error()})
					feeds = nil
					break
				}
				feeds, from = append(feeds, feed{number, in}), append(from, t)
			}
			if feeds == nil {
				continue
			}
			e.Correlations, e.cors = append(e.Correlations, c), append(e.cors, cc)
			e.feeds.byCor = append(e.feeds.byCor, nil)
			for i, t := range from {
				if t.cor >= 0 {
					e.feeds.byCor[t.cor] = append(e.feeds.byCor[t.cor], feeds[i])
					e.cors[t.cor].quiet = e.cors[t.cor].quiet || !c.Generate
				} else {
					e.feeds.byRule[t.rule] = append(e.feeds.byRule[t.rule], feeds[i])
					e.quiet[t.rule] = e.quiet[t.rule] || !c.Generate
				}
			}
			for _, n := range []string{c.ID, c.Name} {
				if n != "" {
					named[n] = target{-1, number}
				}
			}
		}
		rest = later
	}
	for _, c := range rest {
		for _, n := range c.Rules {
			if _, ok := named[n]; !ok {
				refused(&c.Meta, &lineError{c.line, fmt.Sprintf("the correlation refers to %q, which does not exist, was refused, or refers back to it", n)})
				break
			}
		}
	}
}

func compileCorrelation(c *Correlation) (*compiledCorrelation, error) {
	cc := &compiledCorrelation{cor: c, kind: c.Type, span: int64(c.Timespan)}
	counts := c.Type == "event_count" || c.Type == "value_count" || strings.HasPrefix(c.Type, "temporal")
	decided := false
	for _, b := range c.Bounds {
		if counts {
			if b.Value < 0 || b.Value > maxThreshold || b.Value != math.Trunc(b.Value) {
				return nil, &lineError{c.line, fmt.Sprintf("%s: %g is not a whole number up to %d", b.Op, b.Value, maxThreshold)}
			}
			cc.keep = max(cc.keep, int(b.Value)+1)
		}
		switch b.Op {
		case "gt", "gte", "eq":
			decided = true
		}
	}
	if counts && len(c.Bounds) > 0 && !decided {
		return nil, &lineError{c.line, "a count that must stay below a value can only be decided when its time is over; give gt, gte or eq as well"}
	}
	switch c.Type {
	case "value_count":
		cc.keep = max(cc.keep, distinctRoom)
	case "temporal", "temporal_ordered":
		cc.keep = len(c.Rules)
		if c.Type == "temporal_ordered" && len(c.Bounds) > 0 {
			return nil, &lineError{c.line, "temporal_ordered always wants all rules; it takes no condition"}
		}
	case "event_count":
	default:
		cc.keep = maxNumbers
	}
	// What the state of a group means: state saved under other rules must not be taken for it.
	text := fmt.Sprintf("%s\x00%s\x00%d\x00%v\x00%s\x00%q\x00%q\x00%g", c.Label(), c.Type, cc.span, c.Bounds, c.valueField, c.Rules, c.GroupBy, c.Percentile)
	cc.fingerprint = highwayhash.Sum64([]byte(text), make([]byte, 32))
	return cc, nil
}

// input resolves the names of fields for one of the rules of c.
func (e *Engine) input(c *Correlation, order int, label string, rule, cor int32) (input, error) {
	in := input{order: order, value: NoKey, valueGroup: -1}
	alias := func(name string) string {
		m, ok := c.Aliases[name]
		if !ok {
			return name
		}
		if to, ok := m[label]; ok {
			return to
		}
		var meta *Meta // an alias may use the id where the list of rules uses the name, and the other way round
		if rule >= 0 {
			meta = &e.Rules[rule].Meta
		} else {
			meta = &e.Correlations[cor].Meta
		}
		for _, n := range []string{meta.ID, meta.Name} {
			if to, ok := m[n]; ok && n != "" {
				return to
			}
		}
		return name
	}
	if cor >= 0 {
		child := e.Correlations[cor]
		find := func(name string) (int, error) {
			if i := slices.Index(child.GroupBy, alias(name)); i >= 0 {
				return i, nil
			}
			return 0, fmt.Errorf("the correlation %s does not group by %q", child.Label(), alias(name))
		}
		for _, g := range c.GroupBy {
			i, err := find(g)
			if err != nil {
				return in, err
			}
			in.groups = append(in.groups, i)
		}
		if c.valueField != "" {
			i, err := find(c.valueField)
			if err != nil {
				return in, err
			}
			in.valueGroup = i
		}
		return in, nil
	}
	for _, g := range c.GroupBy {
		k, err := e.opts.Schema.Key(alias(g))
		if err != nil {
			return in, fmt.Errorf("field %q: %w", alias(g), err)
		}
		in.keys = append(in.keys, k)
	}
	if c.valueField != "" {
		var err error
		if in.value, err = e.opts.Schema.Key(alias(c.valueField)); err != nil {
			return in, fmt.Errorf("field %q: %w", alias(c.valueField), err)
		}
	}
	return in, nil
}

// CorrelationAlerts says whether hits of correlation i are results of their own.
func (e *Engine) CorrelationAlerts(i int32) bool { return !e.cors[i].quiet }

// Feeds says whether matches of rule i are of interest to a correlation.
func (e *Engine) Feeds(i int32) bool { return len(e.feeds.byRule[i]) > 0 }

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

func (g *group) reset() {
	g.times, g.points, g.refs = g.times[:0], g.points[:0], g.refs[:0]
	g.episode, g.saturated = 0, false
}

// count enters one event and gives the events in the window, the time of the first of them, and what the condition compares.
func (g *group) count(cc *compiledCorrelation, order int, value uint64, at int64) (n int, first int64, measured float64) {
	from := at - cc.span
	switch cc.kind {
	case "event_count":
		// Sorted by time; in order, which is the rule, this is an append.
		p := len(g.times)
		for p > 0 && g.times[p-1] > at {
			p--
		}
		g.times = slices.Insert(g.times, p, at)
		if len(g.times) > cc.keep {
			g.times = slices.Delete(g.times, 0, len(g.times)-cc.keep)
			p = max(p-1, 0)
		}
		if newest := g.times[len(g.times)-1]; newest == at {
			cut := 0
			for g.times[cut] < from {
				cut++
			}
			g.times = slices.Delete(g.times, 0, cut)
			g.saturated = len(g.times) >= cc.keep
			return len(g.times), g.times[0], float64(len(g.times))
		}
		// An event behind others: the fullest window that holds it decides.
		best, start := 0, p
		for lo, hi := 0, 0; lo <= p; lo++ {
			for hi < len(g.times) && g.times[hi] <= g.times[lo]+cc.span {
				hi++
			}
			if hi > p && hi-lo > best {
				best, start = hi-lo, lo
			}
		}
		return best, g.times[start], float64(best)
	case "temporal", "temporal_ordered":
		if len(g.times) == 0 {
			g.times = append(g.times, make([]int64, cc.keep)...)
		}
		if cc.kind == "temporal" {
			g.times[order] = max(g.times[order], at)
			first = at
			for _, t := range g.times {
				if t != 0 && t >= from {
					n++
					first = min(first, t)
				}
			}
			return n, first, float64(n)
		}
		// times[i] is the latest start of a chain of the rules 0 to i: later starts leave the window later, so only the best matters.
		if order == 0 {
			g.times[0] = max(g.times[0], at)
		} else if start := g.times[order-1]; start != 0 && start >= from && start <= at {
			g.times[order] = max(g.times[order], start)
		}
		if order == cc.keep-1 && g.times[order] != 0 && g.times[order] >= from {
			first = g.times[order]
			g.times[order] = 0 // the chain is used up
			return cc.keep, first, float64(cc.keep)
		}
		return 0, at, 0
	case "value_count":
		found := false
		n = 0
		first = at
		oldest := -1
		for i := 0; i < len(g.points); i++ {
			p := &g.points[i]
			if p.h == value {
				p.t, found = max(p.t, at), true
			}
			if p.t < from { // out of the window: its place is free
				last := len(g.points) - 1
				g.points[i] = g.points[last]
				g.points = g.points[:last]
				i--
				continue
			}
			first = min(first, p.t)
			if oldest < 0 || p.t < g.points[oldest].t {
				oldest = i
			}
		}
		if !found {
			if len(g.points) >= cc.keep {
				g.points[oldest] = point{at, value}
				g.saturated = true
			} else {
				g.points = append(g.points, point{at, value})
			}
		}
		n = len(g.refs)
		return max(n, len(g.points)), first, float64(len(g.points))
	default:
		g.points = append(g.points, point{at, value})
		if n := len(g.points); n > 1 && g.points[n-2].t > at {
			slices.SortStableFunc(g.points, func(a, b point) int { return cmp.Compare(a.t, b.t) })
		}
		cut := 0
		newest := g.points[len(g.points)-1].t
		for g.points[cut].t < newest-cc.span {
			cut++
		}
		if len(g.points)-cut > cc.keep {
			cut, g.saturated = len(g.points)-cc.keep, true
		}
		g.points = slices.Delete(g.points, 0, cut)
		return len(g.points), g.points[0].t, g.measure(cc)
	}
}

// current is the measured value without a new event.
func (g *group) current(cc *compiledCorrelation) float64 {
	switch cc.kind {
	case "event_count":
		return float64(len(g.times))
	case "value_count":
		return float64(len(g.points))
	case "temporal", "temporal_ordered":
		return float64(cc.keep)
	}
	return g.measure(cc)
}

func (g *group) measure(cc *compiledCorrelation) float64 {
	if len(g.points) == 0 {
		return 0
	}
	switch cc.kind {
	case "value_sum", "value_avg":
		sum := 0.0
		for _, p := range g.points {
			sum += math.Float64frombits(p.h)
		}
		if cc.kind == "value_avg" {
			sum /= float64(len(g.points))
		}
		return sum
	}
	values := make([]float64, len(g.points))
	for i, p := range g.points {
		values[i] = math.Float64frombits(p.h)
	}
	slices.Sort(values)
	share := 0.5
	if cc.kind == "value_percentile" {
		share = cc.cor.Percentile / 100
	}
	at := share * float64(len(values)-1) // linear between ranks
	lo := int(at)
	if lo+1 >= len(values) {
		return values[len(values)-1]
	}
	return values[lo] + (at-float64(lo))*(values[lo+1]-values[lo])
}

func (cc *compiledCorrelation) holds(v float64) bool {
	if len(cc.cor.Bounds) == 0 {
		return v >= float64(cc.keep) // temporal: all rules
	}
	for _, b := range cc.cor.Bounds {
		ok := false
		switch b.Op {
		case "gt":
			ok = v > b.Value
		case "gte":
			ok = v >= b.Value
		case "lt":
			ok = v < b.Value
		case "lte":
			ok = v <= b.Value
		case "eq":
			ok = v == b.Value
		case "neq":
			ok = v != b.Value
		}
		if !ok {
			return false
		}
	}
	return true
}

func (c *Correlator) alloc(key [2]uint64, cor int32, scope uint32, now int64) int32 {
	c.expire(now)
	if s := c.byScope[scope]; s != nil && s.n >= c.opts.ScopeGroups {
		c.evict(s.head - 1)
	}
	if len(c.table) >= c.opts.MaxGroups {
		// The scope that holds most gives way, whoever asks.
		var most *scopeList
		for _, s := range c.byScope {
			if most == nil || s.n > most.n || s.n == most.n && c.groups[s.head-1].seen < c.groups[most.head-1].seen {
				most = s
			}
		}
		c.evict(most.head - 1)
	}
	var i int32
	if n := len(c.free); n > 0 {
		i = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		i = int32(len(c.groups))
		c.groups = append(c.groups, group{})
	}
	c.groups[i] = group{key: key, cor: cor, scope: scope}
	c.table[key] = i
	return i
}

func (c *Correlator) evict(i int32) {
	c.stats.Evicted++
	c.evicted[c.groups[i].scope]++
	c.remove(i)
}

func (c *Correlator) remove(i int32) {
	c.unlink(i)
	g := &c.groups[i]
	delete(c.table, g.key)
	*g = group{}
	c.free = append(c.free, i)
}

// expire frees a few groups whose time is over: at most two for each event, so that the cost of one event is bounded.
func (c *Correlator) expire(now int64) {
	for cor := range c.byCor {
		for range 2 {
			h := c.byCor[cor].head
			if h == 0 || now-c.groups[h-1].seen <= c.e.cors[cor].span+int64(c.opts.Lateness) {
				break
			}
			c.stats.Expired++
			c.remove(h - 1)
		}
	}
}

func (c *Correlator) link(i int32) {
	g := &c.groups[i]
	l := &c.byCor[g.cor]
	g.corPrev, g.corNext = l.tail, 0
	if l.tail != 0 {
		c.groups[l.tail-1].corNext = i + 1
	} else {
		l.head = i + 1
	}
	l.tail = i + 1
	s := c.byScope[g.scope]
	if s == nil {
		s = &scopeList{}
		c.byScope[g.scope] = s
	}
	s.n++
	g.scopePrev, g.scopeNx = s.tail, 0
	if s.tail != 0 {
		c.groups[s.tail-1].scopeNx = i + 1
	} else {
		s.head = i + 1
	}
	s.tail = i + 1
}

func (c *Correlator) unlink(i int32) {
	g := &c.groups[i]
	l := &c.byCor[g.cor]
	if g.corPrev != 0 {
		c.groups[g.corPrev-1].corNext = g.corNext
	} else {
		l.head = g.corNext
	}
	if g.corNext != 0 {
		c.groups[g.corNext-1].corPrev = g.corPrev
	} else {
		l.tail = g.corPrev
	}
	s := c.byScope[g.scope]
	if g.scopePrev != 0 {
		c.groups[g.scopePrev-1].scopeNx = g.scopeNx
	} else {
		s.head = g.scopeNx
	}
	if g.scopeNx != 0 {
		c.groups[g.scopeNx-1].scopePrev = g.scopePrev
	} else {
		s.tail = g.scopePrev
	}
	if s.n--; s.n == 0 {
		delete(c.byScope, g.scope)
	}
}

// Snapshot format: a version byte, the hash key, the tick, then groups in order of use. Numbers are varints, times are signed.
const snapshotVersion = 1

// Snapshot writes the whole state. It can be restored into an engine with the same or other rules: groups of rules that have changed
// are left out and counted.
func (c *Correlator) Snapshot() []byte {
	b := []byte{snapshotVersion}
	b = append(b, c.opts.HashKey[:]...)
	b = binary.AppendVarint(b, c.tick)
	b = binary.AppendUvarint(b, uint64(len(c.table)))
	for cor := range c.byCor {
		for at := c.byCor[cor].head; at != 0; at = c.groups[at-1].corNext {
			g := &c.groups[at-1]
			b = binary.LittleEndian.AppendUint64(b, c.e.cors[cor].fingerprint)
			b = binary.LittleEndian.AppendUint64(b, g.key[0])
			b = binary.LittleEndian.AppendUint64(b, g.key[1])
			flags := byte(0)
			for i, f := range []bool{g.late, g.saturated, g.inActive} {
				if f {
					flags |= 1 << i
				}
			}
			b = append(b, flags)
			for _, v := range []uint64{uint64(g.scope), uint64(g.n), uint64(g.since), uint64(g.total)} {
				b = binary.AppendUvarint(b, v)
			}
			for _, v := range []int64{g.seen, g.last, g.episode, g.firedAt, g.emitted, g.sinceFirst} {
				b = binary.AppendVarint(b, v)
			}
			b = binary.AppendUvarint(b, uint64(len(g.times)))
			for _, t := range g.times {
				b = binary.AppendVarint(b, t)
			}
			b = binary.AppendUvarint(b, uint64(len(g.points)))
			for _, p := range g.points {
				b = binary.AppendVarint(b, p.t)
				b = binary.LittleEndian.AppendUint64(b, p.h)
			}
			b = binary.AppendUvarint(b, uint64(len(g.refs)))
			for i := range g.refs {
				b = append(b, g.refs[i][:]...)
			}
			b = binary.AppendUvarint(b, uint64(len(g.names)))
			for _, s := range g.names {
				b = binary.AppendUvarint(b, uint64(len(s)))
				b = append(b, s...)
			}
		}
	}
	return b
}

var errSnapshot = errors.New("sigma: the correlation snapshot is damaged")

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, max(0, min(n, 64)))
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// length reads a count of things of at least size bytes each, which cannot be more than what is left.
func (r *reader) length(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

// Restore replaces the state with that of a snapshot. On an error the state is as it was.
func (c *Correlator) Restore(snapshot []byte) error {
	if len(snapshot) < 1 || snapshot[0] != snapshotVersion {
		return fmt.Errorf("sigma: the correlation snapshot has an unknown version")
	}
	byPrint := map[uint64]int32{}
	for i, cc := range c.e.cors {
		byPrint[cc.fingerprint] = int32(i)
	}
	r := &reader{b: snapshot[1:]}
	opts := c.opts
	copy(opts.HashKey[:], r.take(32))
	out := NewCorrelator(c.e, opts)
	out.stats, out.evicted = c.stats, c.evicted
	out.tick = r.varint()
	for n := r.length(32); n > 0 && !r.bad; n-- {
		print := r.u64()
		g := group{key: [2]uint64{r.u64(), r.u64()}}
		flags := r.take(1)[0]
		g.late, g.saturated, g.inActive = flags&1 != 0, flags&2 != 0, flags&4 != 0
		g.scope, g.n, g.since, g.total = uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint())
		for _, p := range []*int64{&g.seen, &g.last, &g.episode, &g.firedAt, &g.emitted, &g.sinceFirst} {
			*p = r.varint()
		}
		for k := r.length(1); k > 0; k-- {
			g.times = append(g.times, r.varint())
		}
		for k := r.length(9); k > 0; k-- {
			g.points = append(g.points, point{r.varint(), r.u64()})
		}
		for k := r.length(len(Ref{})); k > 0; k-- {
			g.refs = append(g.refs, Ref(r.take(len(Ref{}))))
		}
		for k := r.length(1); k > 0; k-- {
			g.names = append(g.names, string(r.take(int(min(r.uvarint(), 1<<20)))))
		}
		if r.bad {
			break
		}
		cor, ok := byPrint[print]
		cc := (*compiledCorrelation)(nil)
		if ok {
			cc = c.e.cors[cor]
		}
		// What the evaluation relies on must hold, whoever wrote the snapshot.
		temporal := ok && strings.HasPrefix(cc.kind, "temporal")
		if !ok || len(g.times) > cc.keep || len(g.points) > max(cc.keep, maxNumbers) || temporal && len(g.times) != 0 && len(g.times) != cc.keep ||
			len(g.names) > len(cc.cor.GroupBy) || g.episode != 0 && len(g.names) != len(cc.cor.GroupBy) || len(g.refs) > c.opts.MaxRefs {
			out.stats.Dropped++
			continue
		}
		if _, dup := out.table[g.key]; dup || len(out.table) >= out.opts.MaxGroups {
			out.stats.Dropped++
			continue
		}
		if !temporal && !slices.IsSorted(g.times) {
			slices.Sort(g.times)
		}
		g.cor = cor
		i := int32(len(out.groups))
		out.groups = append(out.groups, g)
		out.table[g.key] = i
		out.link(i)
		if g.inActive {
			out.active = append(out.active, i)
		}
	}
	if r.bad || len(r.b) > 0 {
		return errSnapshot
	}
	*c = *out
	return nil
}
