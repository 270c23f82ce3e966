package sigma

import (
	"cmp"
	"math"
	"slices"
)

// count enters one event and gives the events in the window, the time of the first of them, and what the condition compares.
func (g *group) count(cc *compiledCorrelation, order int, value uint64, at int64) (n int, first int64, measured float64) {
	from := at - cc.span
	switch cc.kind {
	case "event_count":
		// Sorted by time; in order, which is the rule, this is an append. Those out of the newest window go first.
		if n := len(g.data); n > 0 {
			newest, cut := max(at, g.data[n-1]), 0
			for cut < n && g.data[cut] < newest-2*cc.span { // events behind others can need as much again
				cut++
			}
			if at == newest {
				for cut < n && g.data[cut] < from {
					cut++
				}
			}
			g.data = slices.Delete(g.data, 0, cut)
		}
		if len(g.data) >= cc.keep && at >= g.data[0] { // the oldest gives way
			g.data = slices.Delete(g.data, 0, len(g.data)-cc.keep+1)
		}
		p := len(g.data)
		for p > 0 && g.data[p-1] > at {
			p--
		}
		if p == 0 && len(g.data) >= cc.keep {
			return 0, at, 0 // older than all that decide
		}
		g.data = slices.Insert(roomy(g.data, cc.keep), p, at)
		if p == len(g.data)-1 {
			g.saturated = len(g.data) >= cc.keep
			return len(g.data), g.data[0], float64(len(g.data))
		}
		// An event behind others: the fullest window that holds it decides.
		n, first = fullest(g.data, p, cc.span)
		return n, first, float64(n)
	case "temporal", "temporal_ordered":
		if len(g.data) == 0 {
			g.data = append(g.data, make([]int64, cc.keep)...)
		}
		if cc.kind == "temporal" {
			if at >= g.last {
				g.data[order] = max(g.data[order], at)
				first = at
				for _, t := range g.data {
					if t != 0 && t >= from {
						n++
						first = min(first, t)
					}
				}
				return n, first, float64(n)
			}
			// An event behind others: it counts with those that one window can hold together with it.
			times := make([]int64, 0, 64)
			for o, t := range g.data {
				if o != order && t != 0 {
					times = append(times, t)
				}
			}
			g.data[order] = max(g.data[order], at)
			n, first = fullestWith(times, at, cc.span)
			return n, first, float64(n)
		}
		// times[i] is the latest start of a chain of the rules 0 to i: later starts leave the window later, so only the best matters.
		if order == 0 {
			g.data[0] = max(g.data[0], at)
		} else if start := g.data[order-1]; start != 0 && start >= from && start <= at {
			g.data[order] = max(g.data[order], start)
		}
		if order == cc.keep-1 && g.data[order] != 0 && g.data[order] >= from {
			first = g.data[order]
			g.data[order] = 0 // the chain is used up
			return cc.keep, first, float64(cc.keep)
		}
		return 0, at, 0
	case "value_count":
		points := g.points()
		behind := at < g.last
		found, oldest := false, -1
		first = at
		for i := 0; i < len(points); i++ {
			p := &points[i]
			if p.h == value {
				p.t, found = max(p.t, at), true
			}
			if p.t < from { // out of the window: its place is free
				last := len(points) - 1
				points[i] = points[last]
				points = points[:last]
				i--
				continue
			}
			first = min(first, p.t)
			if oldest < 0 || p.t < points[oldest].t {
				oldest = i
			}
		}
		if !found {
			if len(points) >= cc.keep {
				points[oldest] = point{at, value}
				g.saturated = true
			} else {
				points = append(roomy(points, cc.keep), point{at, value})
			}
		}
		g.setPoints(points)
		if n = len(points); behind {
			// An event behind others: it counts with the values that one window can hold together with it.
			times := make([]int64, 0, 64)
			for _, p := range points {
				if p.h != value {
					times = append(times, p.t)
				}
			}
			n, first = fullestWith(times, at, cc.span)
		}
		return max(n, len(g.refs)), first, float64(n)
	default:
		points := append(roomy(g.points(), cc.keep+1), point{at, value})
		if n := len(points); n > 1 && points[n-2].t > at {
			slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.t, b.t) })
		}
		cut := 0
		newest := points[len(points)-1].t
		for points[cut].t < newest-cc.span {
			cut++
		}
		if len(points)-cut > cc.keep {
			cut, g.saturated = len(points)-cc.keep, true
		}
		points = slices.Delete(points, 0, cut)
		g.setPoints(points)
		return len(points), points[0].t, g.measure(cc)
	}
}

// fullest gives how many of the sorted times the fullest window that holds times[p] has, and its first.
func fullest(times []int64, p int, span int64) (n int, first int64) {
	first = times[p]
	for lo, hi := 0, 0; lo <= p; lo++ {
		for hi < len(times) && times[hi] <= times[lo]+span {
			hi++
		}
		if hi > p && hi-lo > n {
			n, first = hi-lo, times[lo]
		}
	}
	return n, first
}

// fullestWith is fullest for at among times in any order, which it sorts.
func fullestWith(times []int64, at, span int64) (n int, first int64) {
	times = append(times, at)
	slices.Sort(times)
	p, _ := slices.BinarySearch(times, at)
	return fullest(times, p, span)
}

// current is the measured value without a new event.
func (g *group) current(cc *compiledCorrelation) float64 {
	switch cc.kind {
	case "event_count":
		return float64(len(g.data))
	case "value_count":
		return float64(len(g.data) / 2)
	case "temporal", "temporal_ordered":
		return float64(len(cc.cor.Rules))
	}
	return g.measure(cc)
}

func (g *group) measure(cc *compiledCorrelation) float64 {
	points := g.points()
	if len(points) == 0 {
		return 0
	}
	switch cc.kind {
	case "value_sum", "value_avg":
		sum := 0.0
		for _, p := range points {
			sum += math.Float64frombits(p.h)
		}
		if cc.kind == "value_avg" {
			sum /= float64(len(points))
		}
		return sum
	}
	values := make([]float64, len(points))
	for i, p := range points {
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
