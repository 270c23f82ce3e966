package baseline

import (
	"math"
	"math/bits"
	"slices"

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// metric is something counted by the hour.
type metric uint8

const (
	mDenied metric = iota
	mFailed
	mIDS
	mSources
	mOutBytes
	mNewNets
	metrics
)

var metricOf = [metrics]struct {
	kind  kind
	where Where
	least uint64 // below it an hour is never unusual
}{
	mDenied:   {deniedRate, Hub, 200},
	mFailed:   {failedRate, Hub, 25},
	mIDS:      {idsRate, Hub, 20},
	mSources:  {sourcesRate, Hub, 100},
	mOutBytes: {outBytesRate, Site, 500e6},
	mNewNets:  {newNetsRate, Site, 40},
}

const (
	weeks     = 6   // of the same hour that are remembered
	slots     = 168 // hours of a week
	warmWeeks = 3   // of the same hour that must be known before anything is said
	hotHours  = 48  // unusual hours after which a new level is learnt instead of called unusual
	tops      = 4   // heaviest sources, or machines, of an hour
	sigmas    = 6   // how far out an hour must be, by the spread that this member's hours have
)

// rate is one member's baseline of one metric: 2.9 kB.
//
// A number is kept in two bytes (pack), exact below 2,048 and within 0.1 % above. An hour of the week holds the last six weeks; unknown is
// 0, so weeks in which nothing came from the member teach nothing.
type rate struct {
	hist  [slots][weeks]uint16
	peak  [slots]uint16 // the highest in that hour since, less 2 % a week
	day   [7]uint16     // the highest 24 hours that ended on that weekday since, less 2 % a week
	last  [24]uint16    // the last 24 hours, by hour modulo 24
	phi   float32       // overdispersion of hours: variance = mean + phi mean²
	phi24 float32       // of sums over 24 hours
	level float32       // how far a new level is above the most that is remembered, at least 1
	hot   uint8         // unusual hours lately
	calm  uint8

	open    [2]hour // the current one and the one before, by hour modulo 2
	began   int32   // first hour of the present unusual time, 0: none
	ended   int32   // its last
	longest int32   // last hour in which 24 hours together were unusual
	low     uint8   // hours in a row that are far too quiet
	changed uint32  // generation of the snapshot in which the history last changed
}

// hour is one that is being counted.
type hour struct {
	hour   int32
	n      uint64
	told   uint64 // n when something was last said of it; 0: nothing yet
	limit  uint64 // from here on it is unusual; 0: not worked out yet
	top    [tops]heavy
	ids    []event.ID // of events beyond the limit
	first  int64
	lastAt int64
}

// heavy is one of the addresses that an hour has most of: n is at most what there was, and less by at most a fifth of the hour's whole.
type heavy struct {
	addr [16]byte
	n    uint64
}

const rateBytes = slots*weeks*2 + slots*2 + 7*2 + 24*2 + 2*(tops*24+72) + 64

// pack keeps a number in 16 bits; 0 is left for "unknown".
func pack(n uint64) uint16 {
	if n < 2048 {
		return uint16(n) + 1
	}
	e := bits.Len64(n) - 11
	return uint16(2048+(e-1)*1024+int(n>>e)-1024) + 1
}

// unpack gives it back; ok is false for unknown.
func unpack(c uint16) (n uint64, ok bool) {
	if c == 0 {
		return 0, false
	}
	if c--; c < 2048 {
		return uint64(c), true
	}
	e := (int(c)-2048)/1024 + 1
	return uint64(1024+(int(c)-2048)%1024) << min(e, 53), true
}

// past is what the same hour was in past weeks, each list lowest first. wall goes by the clock on the wall; utc is nil unless that clock was
// changed in these weeks: then it is what the hour was that is the same by UTC.
type past struct {
	wall, utc []uint64
	buf       [2][weeks]uint64
}

func (r *rate) past(at *moment, p *past) {
	n := 0
	for _, c := range r.hist[at.slot] {
		if v, ok := unpack(c); ok {
			p.buf[0][n] = v
			n++
		}
	}
	p.wall, p.utc = p.buf[0][:n], nil
	slices.Sort(p.wall)
	if !at.changed {
		return
	}
	n = 0
	for w := 1; w < weeks; w++ { // six weeks ago is overwritten already where the hour before had that place
		if v, ok := unpack(r.hist[at.utc[w]][(int(at.hour/slots)+weeks-w)%weeks]); ok {
			p.buf[1][n] = v
			n++
		}
	}
	p.utc = p.buf[1][:n]
	slices.Sort(p.utc)
}

// usual is the median that is nearer to n, by the wall or by UTC; 0 while too few weeks are known.
func (p *past) usual(n uint64) float64 {
	mid := 0.0
	if len(p.wall) >= warmWeeks {
		mid = median(p.wall)
		if len(p.utc) >= warmWeeks {
			if other := median(p.utc); math.Abs(float64(n)-other) < math.Abs(float64(n)-mid) {
				mid = other
			}
		}
	}
	return mid
}

// least and most are of all that is known; there must be something.
func (p *past) least() uint64 {
	if len(p.utc) > 0 {
		return min(p.wall[0], p.utc[0])
	}
	return p.wall[0]
}

func (p *past) most() uint64 {
	if n := p.wall[len(p.wall)-1]; len(p.utc) > 0 {
		return max(n, p.utc[len(p.utc)-1])
	} else {
		return n
	}
}

func median(v []uint64) float64 {
	if len(v)%2 == 1 {
		return float64(v[len(v)/2])
	}
	return (float64(v[len(v)/2-1]) + float64(v[len(v)/2])) / 2
}

const never = math.MaxUint64

// limitOf is the number from which the hour is unusual: twice the most of the same hour in the last six weeks (two and a half times while
// three are known), half as much again as ever in that hour, six standard deviations above the median under a negative binomial law whose
// spread is learnt, and never below the metric's least. never while fewer than three weeks are known. After a change of the clocks it must be
// unusual both for that hour by the wall and for that hour by UTC.
func (r *rate) limitOf(m metric, at *moment) uint64 {
	var p past
	r.past(at, &p)
	if len(p.wall) < warmWeeks {
		return never
	}
	out := r.limit(m, p.wall, at.slot)
	if len(p.utc) >= warmWeeks {
		out = max(out, r.limit(m, p.utc, at.utc[weeks-1]))
	}
	return out
}

// limit is limitOf by one of the two clocks; slot is where the highest of that hour stands.
func (r *rate) limit(m metric, v []uint64, slot int) uint64 {
	level := float64(max(r.level, 1))
	mid := median(v) * level
	peak, _ := unpack(r.peak[slot])
	// The most of few weeks says less.
	factor := 2 + 0.5*float64(weeks-len(v))/float64(weeks-warmWeeks)
	out := max(factor*float64(v[len(v)-1])*level, 1.5*float64(peak), mid+sigmas*math.Sqrt(mid+float64(r.phi)*mid*mid), float64(metricOf[m].least))
	if out >= 1<<62 {
		return never
	}
	return uint64(math.Ceil(out))
}

// count adds n to an hour, of which addr is the source or machine.
func (h *hour) count(n uint64, addr [16]byte, at int64) {
	if h.n += n; h.n < n {
		h.n = math.MaxUint64 / 4
	}
	if h.first == 0 || at < h.first {
		h.first = at
	}
	h.lastAt = max(h.lastAt, at)
	h.heaviest(n, addr)
}

// heaviest is the Misra-Gries summary.
func (h *hour) heaviest(n uint64, addr [16]byte) {
	if addr == ([16]byte{}) {
		return
	}
	least := 0
	for i := range h.top {
		t := &h.top[i]
		if t.addr == addr && t.n > 0 {
			t.n += n
			return
		}
		if t.n < h.top[least].n {
			least = i
		}
	}
	if d := h.top[least].n; d == 0 {
		h.top[least] = heavy{addr, n}
	} else if n > d {
		for i := range h.top {
			h.top[i].n -= d
		}
		h.top[least] = heavy{addr, n - d}
	} else {
		for i := range h.top {
			h.top[i].n -= n
		}
	}
}

// most is the heaviest address of an hour, if it has at least a third of it.
func (h *hour) most() (heavy, bool) {
	best := h.top[0]
	for _, t := range h.top[1:] {
		if t.n > best.n {
			best = t
		}
	}
	return best, best.n > 0 && best.n >= h.n/3
}

// learn writes a closed hour into the history. alive is false when nothing came from the member for a day: then it is unknown.
func (r *rate) learn(when *moment, n uint64, alive, unusual bool) {
	h, slot := when.hour, when.slot
	at := &r.hist[slot][int(h/slots)%weeks]
	*at = 0
	r.last[h%24] = 0
	if !alive {
		return
	}
	r.last[h%24] = pack(n)
	var p past
	r.past(when, &p)
	mid := p.usual(n)
	if unusual {
		r.calm = 0
		if r.hot < 255 {
			r.hot++
		}
		if r.hot < hotHours {
			return // an attack is not learnt
		}
	} else {
		if r.calm++; r.calm >= 4 {
			r.calm = 0
			if r.hot > 0 {
				r.hot--
			}
		}
		if mid >= 5 {
			r.phi += float32(0.02 * (dispersion(float64(n), mid, float64(r.phi)) - float64(r.phi)))
		}
	}
	if (r.level > 1 || unusual) && mid > 0 {
		r.level = min(max(0.9*max(r.level, 1)+0.1*float32(float64(n)/max(float64(p.most()), 1)), 1), 64)
	}
	*at = pack(n)
	peak, _ := unpack(r.peak[slot])
	r.peak[slot] = pack(max(n, peak-peak/50))
}

// dispersion is what one count says of a negative binomial law's phi. It is bounded at three standard deviations of what is known, so that the
// beginning of an attack does not widen what is allowed.
func dispersion(n, mid, phi float64) float64 {
	d := n - mid
	d2 := min(d*d, 9*(mid+phi*mid*mid))
	return min(max((d2-mid)/(mid*mid), 0), 4)
}

// day24 compares the last 24 hours with the same hours of past weeks.
type day24 struct {
	sum      uint64
	low, top uint64 // of past weeks
	n        int    // weeks
	unusual  bool
}

// sum24 adds up the 24 hours that ended with hour h. slotOf gives an hour's slot.
func (r *rate) sum24(m metric, h int32, slotOf func(int32) int) day24 {
	var d day24
	var past [weeks]float64
	var have [weeks]int
	hours := 0
	for _, c := range r.last {
		v, _ := unpack(c)
		d.sum += v
	}
	if d.sum < 2*metricOf[m].least {
		return d // too little to be unusual, whatever was before
	}
	d.sum = 0
	for i := h - 23; i <= h; i++ {
		v, ok := unpack(r.last[i%24])
		if !ok {
			continue
		}
		hours++
		d.sum += v
		slot := slotOf(i)
		own := int(i/slots) % weeks
		for w, c := range r.hist[slot] {
			if w == own {
				continue // this very hour
			}
			if x, ok := unpack(c); ok {
				// By how many weeks ago, so that a sum is of one day.
				ago := (own - w + weeks) % weeks
				past[ago] += float64(x)
				have[ago]++
			}
		}
	}
	if hours < 20 {
		return d
	}
	sums := make([]uint64, 0, weeks)
	for w := 1; w < weeks; w++ {
		if have[w] >= hours-4 {
			sums = append(sums, uint64(past[w]*float64(hours)/float64(have[w])))
		}
	}
	if len(sums) < warmWeeks {
		return d
	}
	slices.Sort(sums)
	d.low, d.top, d.n = sums[0], sums[len(sums)-1], len(sums)
	mid := median(sums)
	level := float64(max(r.level, 1))
	day := slotOf(h) / 24
	peak, _ := unpack(r.day[day])
	limit := max(1.5*float64(d.top)*level, 1.25*float64(peak), mid*level+sigmas*math.Sqrt(mid*level+float64(r.phi24)*mid*mid*level*level), 2*float64(metricOf[m].least))
	d.unusual = float64(d.sum) >= limit
	if !d.unusual {
		if mid >= 20 {
			r.phi24 += float32(0.01 * (dispersion(float64(d.sum), mid, float64(r.phi24)) - float64(r.phi24)))
		}
		if slotOf(h)%24 == 23 {
			r.day[day] = pack(max(d.sum, peak-peak/50))
		}
	}
	return d
}

// code saves or restores the history.
func (r *rate) code(c *sketch.Codec) {
	for s := range r.hist {
		c.U16s(r.hist[s][:])
		c.U16(&r.peak[s])
	}
	c.U16s(r.day[:])
	c.U16s(r.last[:])
	c.F32(&r.phi)
	c.F32(&r.phi24)
	c.F32(&r.level)
	c.U8(&r.hot)
	c.U8(&r.calm)
	c.I32(&r.began)
	c.I32(&r.ended)
	c.I32(&r.longest)
	c.U8(&r.low)
}

// codeOpen saves or restores the hours that are being counted.
func (r *rate) codeOpen(c *sketch.Codec) {
	for i := range r.open {
		h := &r.open[i]
		c.I32(&h.hour)
		c.U64(&h.n)
		c.U64(&h.told)
		c.U64(&h.limit)
		c.I64(&h.first)
		c.I64(&h.lastAt)
		used := uint8(0)
		for _, t := range h.top {
			if t.n > 0 {
				used++
			}
		}
		c.U8(&used)
		if used > tops {
			c.Fail("%d heaviest sources", used)
			return
		}
		if !c.Reading() {
			slices.SortStableFunc(h.top[:], func(a, b heavy) int {
				switch {
				case a.n > 0 && b.n == 0:
					return -1
				case a.n == 0 && b.n > 0:
					return 1
				}
				return 0
			})
		} else {
			h.top = [tops]heavy{}
		}
		for j := range int(used) {
			c.Raw(h.top[j].addr[:])
			c.U64(&h.top[j].n)
		}
		n := c.Len(len(h.ids), maxIDs)
		if c.Reading() {
			h.ids = make([]event.ID, n)
		}
		for j := range h.ids {
			c.Raw(h.ids[j].Stream[:])
			c.U64(&h.ids[j].Seq)
			c.U32(&h.ids[j].Index)
		}
	}
}

const maxIDs = 8 // events that a detection of a rate points at
