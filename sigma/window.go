package sigma

import (
	"math"
	"slices"
)

// maxOlder bounds the instants that a group keeps beside those of its newest window.
const maxOlder = 1024

// count enters one event of g and gives the events in the window, the time of the first of them, and what the condition compares. last is
// the event time of the latest event before.
//
// Whatever the order in which events come: event_count is exact for events that are at most a timespan behind the latest one of their
// group (and fewer than maxOlder older ones are near). Of values and of rules only the latest time is kept, so an event behind others
// may count fewer of them, never more.
func (c *Correlator) count(g *group, cc *compiledCorrelation, order int, value uint64, at, last int64) (n int, first int64, measured float64) {
	from := at - cc.span
	switch cc.kind {
	case "event_count":
		for g.n > 0 && g.first < g.last-2*cc.span { // an event behind others can need as much again as the newest window
			g.pop(false)
		}
		behind := g.n > 0 && at < last
		if behind {
			c.points = g.points(false, c.points[:0])
			p := len(c.points)
			for p > 0 && c.points[p-1].t > at {
				p--
			}
			c.points = slices.Insert(c.points, p, point{t: at})
			n, first = fullest(c.points, p, cc.span)
			g.series.set(c.points, false)
		} else {
			g.push(last, at, false, 0)
		}
		newest, begins := g.since(g.last-cc.span, false)
		if newest >= cc.keep { // so many decide the condition for every window that they are in
			for int(g.n) > cc.keep {
				g.pop(false)
			}
			newest, begins = cc.keep, g.first
		}
		for int(g.n)-newest > min(cc.keep, maxOlder) {
			g.pop(false)
		}
		if behind {
			return n, first, float64(n)
		}
		g.mark(isSaturated, newest >= cc.keep)
		return newest, begins, float64(newest)
	case "temporal", "temporal_ordered":
		data := g.slots(cc.keep)
		if cc.kind == "temporal" {
			if at >= g.last {
				data[order] = max(data[order], at)
				first = at
				for _, t := range data {
					if t != 0 && t >= from {
						n++
						first = min(first, t)
					}
				}
				return n, first, float64(n)
			}
			// An event behind others: it counts with those that one window can hold together with it.
			times := make([]int64, 0, 64)
			for o, t := range data {
				if o != order && t != 0 {
					times = append(times, t)
				}
			}
			data[order] = max(data[order], at)
			n, first = fullestWith(times, at, cc.span)
			return n, first, float64(n)
		}
		// data[i] is the latest start of a chain of the rules 0 to i: later starts leave the window later, so only the best matters.
		if order == 0 {
			data[0] = max(data[0], at)
		} else if start := data[order-1]; start != 0 && start >= from && start <= at {
			data[order] = max(data[order], start)
		}
		if order == cc.keep-1 && data[order] != 0 && data[order] >= from {
			first = data[order]
			data[order] = 0 // the chain is used up
			return cc.keep, first, float64(cc.keep)
		}
		return 0, at, 0
	case "value_count":
		for g.n > 0 && g.first < from { // out of the window
			g.pop(true)
		}
		behind := g.n > 0 && at < last
		known := false
		for w := g.walk(true); w.next(); {
			if w.value != value {
				continue
			}
			if known = w.at >= at; !known {
				last = g.remove(&w, last, true)
			}
			break
		}
		if !known {
			if int(g.n) >= cc.keep {
				g.pop(true)
				g.mark(isSaturated, true)
			}
			if g.n > 0 && at < last {
				c.insert(g, at, value)
			} else {
				g.push(last, at, true, value)
			}
		}
		n, first = int(g.n), g.first
		if behind {
			// An event behind others: it counts with the values that one window can hold together with it.
			times := make([]int64, 0, 64)
			for w := g.walk(true); w.next(); {
				if w.value != value {
					times = append(times, w.at)
				}
			}
			n, first = fullestWith(times, at, cc.span)
		}
		return max(n, int(g.refs.n)), first, float64(n)
	default:
		if g.n > 0 && at < last {
			c.insert(g, at, value)
		} else {
			g.push(last, at, true, value)
		}
		for g.n > 0 && g.first < g.last-cc.span {
			g.pop(true)
		}
		for int(g.n) > cc.keep {
			g.pop(true)
			g.mark(isSaturated, true)
		}
		return int(g.n), g.first, c.measure(g, cc)
	}
}

// insert enters an instant with a value before later ones.
func (c *Correlator) insert(g *group, at int64, value uint64) {
	c.points = g.points(true, c.points[:0])
	p := len(c.points)
	for p > 0 && c.points[p-1].t > at {
		p--
	}
	c.points = slices.Insert(c.points, p, point{at, value})
	g.series.set(c.points, true)
}

// fullest gives how many of the sorted points the fullest window that holds list[p] has, and its first.
func fullest(list []point, p int, span int64) (n int, first int64) {
	first = list[p].t
	for lo, hi := 0, 0; lo <= p; lo++ {
		for hi < len(list) && list[hi].t <= list[lo].t+span {
			hi++
		}
		if hi > p && hi-lo > n {
			n, first = hi-lo, list[lo].t
		}
	}
	return n, first
}

// fullestWith is fullest for at among times in any order, which it sorts.
func fullestWith(times []int64, at, span int64) (n int, first int64) {
	slices.Sort(times)
	list := make([]point, 0, 64)
	p, _ := slices.BinarySearch(times, at)
	for i, t := range times {
		if i == p {
			list = append(list, point{t: at})
		}
		list = append(list, point{t: t})
	}
	if p == len(times) {
		list = append(list, point{t: at})
	}
	return fullest(list, p, span)
}

// current is the measured value without a new event.
func (c *Correlator) current(g *group, cc *compiledCorrelation) float64 {
	switch cc.kind {
	case "event_count":
		n, _ := g.since(g.last-cc.span, false)
		return float64(n)
	case "value_count":
		return float64(g.n)
	case "temporal", "temporal_ordered":
		return float64(len(cc.cor.Rules))
	}
	return c.measure(g, cc)
}

// measure is the sum, average or percentile of the values of g.
func (c *Correlator) measure(g *group, cc *compiledCorrelation) float64 {
	if g.n == 0 {
		return 0
	}
	if cc.kind == "value_sum" || cc.kind == "value_avg" {
		sum := 0.0
		for w := g.walk(true); w.next(); {
			sum += math.Float64frombits(w.value)
		}
		if cc.kind == "value_avg" {
			sum /= float64(g.n)
		}
		return sum
	}
	values := c.numbers[:0]
	for w := g.walk(true); w.next(); {
		values = append(values, math.Float64frombits(w.value))
	}
	c.numbers = values
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
	if cc.terms != nil {
		return v > 0
	}
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
