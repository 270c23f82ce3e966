package sigma

import (
	"slices"
	"strings"
)

// Some conditions are decided only when their time is over: a count that must stay below a value, a rule that must not match. A group
// with something to decide is waiting. Its window begins with the first event that counts and ends a timespan later; Tick, or the next
// event of the group, decides it as soon as event time has passed the end. What waits does not expire, and is saved in snapshots.

// waiting is what a group waits for.
type waiting struct {
	names []string // group texts
	list  []wait
}

// wait is one window that has not ended.
type wait struct {
	term        int   // of an extended condition; -1: the whole condition
	first, last int64 // event times
	due         int64 // the last instant of the window
	count       uint32
}

// due is when a group has to be looked at. Entries of groups that have gone stay until their time.
type due struct {
	at  int64
	key [2]uint64
	i   int32
}

const waitingBytes = 200 // about, for one group that waits

// closes says whether the condition of c can only be decided when its window is over.
func (c *Correlation) closes() bool {
	if strings.HasPrefix(c.Type, "temporal") {
		return false
	}
	return slices.ContainsFunc(c.Bounds, func(b Bound) bool { return b.Op != "gt" && b.Op != "gte" })
}

// await notes that group i waits, or waits for one thing more.
func (c *Correlator) await(i int32, g *group, w wait) {
	list := c.waiting[i]
	if list == nil {
		list = &waiting{}
		for _, v := range c.values {
			list.names = append(list.names, strings.Clone(v))
		}
		c.waiting[i] = list
		g.mark(isWaiting, true)
	}
	list.list = append(list.list, w)
	c.pushDue(i, g, w)
}

// pushDue notes when w is to be decided. A late group's event time passed long ago: what else comes late is given time to arrive.
func (c *Correlator) pushDue(i int32, g *group, w wait) {
	at := w.due
	if g.is(isLate) {
		at = max(at, int64(g.seen)*1e9) + int64(c.opts.Lateness)
	}
	c.dues = append(c.dues, due{at, g.key, i})
	for k := len(c.dues) - 1; k > 0 && c.dues[k].before(&c.dues[(k-1)/2]); k = (k - 1) / 2 {
		c.dues[k], c.dues[(k-1)/2] = c.dues[(k-1)/2], c.dues[k]
	}
}

func (d *due) before(o *due) bool { return d.at < o.at || d.at == o.at && d.i < o.i }

func (c *Correlator) popDue() due {
	top := c.dues[0]
	last := len(c.dues) - 1
	c.dues[0] = c.dues[last]
	c.dues = c.dues[:last]
	for k := 0; ; {
		least := k
		for _, kid := range []int{2*k + 1, 2*k + 2} {
			if kid < last && c.dues[kid].before(&c.dues[least]) {
				least = kid
			}
		}
		if least == k {
			return top
		}
		c.dues[k], c.dues[least] = c.dues[least], c.dues[k]
		k = least
	}
}

// open enters an event of a condition that is decided at the end of its window.
func (c *Correlator) open(i int32, g *group, cc *compiledCorrelation, at int64) {
	if w := c.waiting[i]; w != nil {
		x := &w.list[0]
		x.last = max(x.last, at)
		x.count++
		return
	}
	c.await(i, g, wait{term: -1, first: at, last: at, due: at + cc.span, count: 1})
}

// negated takes an event of the rule order: it ends waiting for terms that want no such event, and begins to wait for those of done.
func (c *Correlator) negated(i int32, g *group, cc *compiledCorrelation, order int, at int64, done []complete) {
	if w := c.waiting[i]; w != nil {
		w.list = slices.DeleteFunc(w.list, func(x wait) bool {
			return slices.Contains(cc.terms[x.term].neg, order) && at >= x.last-cc.span && at <= x.due
		})
		c.forget(i, g, w)
	}
	data := g.slots(cc.keep)
	for _, d := range done {
		t := &cc.terms[d.term]
		if slices.ContainsFunc(t.neg, func(n int) bool { return data[n] != 0 && data[n] >= at-cc.span && data[n] <= d.first+cc.span }) {
			continue
		}
		if w := c.waiting[i]; w != nil && slices.ContainsFunc(w.list, func(x wait) bool { return x.term == d.term }) {
			continue // one at a time
		}
		c.await(i, g, wait{term: d.term, first: d.first, last: max(at, d.first), due: d.first + cc.span, count: uint32(len(t.pos))})
	}
}

func (c *Correlator) forget(i int32, g *group, w *waiting) {
	if len(w.list) == 0 {
		delete(c.waiting, i)
		g.mark(isWaiting, false)
	}
}

// decide ends the windows of group i that are over before at. What it tells can free groups, this one too.
func (c *Correlator) decide(i int32, at, now int64, dst []Hit) []Hit {
	g, w := c.groups.at(i), c.waiting[i]
	cc := c.e.cors[g.cor]
	from := len(dst)
	w.list = slices.DeleteFunc(w.list, func(x wait) bool {
		if x.due >= at {
			return false
		}
		hit := Hit{Correlation: int32(g.cor), Scope: g.scope, New: true, Late: g.is(isLate), Episode: x.first, First: x.first, Last: x.last, Count: int(x.count), Total: int(x.count), Saturated: g.is(isSaturated)}
		if x.term < 0 {
			hit.Value = c.current(g, cc)
		} else {
			hit.Value = float64(len(cc.terms[x.term].pos))
			for _, o := range cc.terms[x.term].pos {
				hit.Rules = append(hit.Rules, cc.cor.Rules[o])
			}
		}
		if x.term >= 0 || cc.holds(hit.Value) {
			hit.Group, hit.Refs = slices.Clone(w.names), c.streams.unpack(&g.refs)
			dst = append(dst, hit)
		}
		if x.term < 0 { // the next window begins with the next event
			c.empty(g)
			g.last = 0
		}
		return true
	})
	c.forget(i, g, w)
	for _, hit := range slices.Clone(dst[from:]) {
		c.stats.Hits++
		dst = c.feedOthers(hit.Group, &hit, hit.Last, now, Ref{}, dst)
	}
	return dst
}

// decideDue decides what is over at event time at.
func (c *Correlator) decideDue(at, now int64, dst []Hit) []Hit {
	for len(c.dues) > 0 && c.dues[0].at < at {
		d := c.popDue()
		if w := c.waiting[d.i]; w == nil || c.groups.at(d.i).key != d.key {
			continue
		}
		dst = c.decide(d.i, at, now, dst)
	}
	return dst
}
