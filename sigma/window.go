package sigma

import (
	"cmp"
	"math"
	"slices"
)

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
