package baseline

import (
	"time"

	"tocsin/internal/event"
)

// rates counts the observation in the hours of its metrics.
func (e *Engine) rates(t *tenant, o *Observation) {
	n := uint64(max(o.N, 1))
	var src [16]byte
	if o.Source.IsValid() {
		src = o.Source.As16()
	}
	if e.opts.Where == Hub {
		if o.What&DeniedInbound != 0 {
			e.rateOf(t, mDenied, o, n, src)
			if src != ([16]byte{}) {
				e.rateOf(t, mSources, o, n, src)
			}
		}
		if o.What&FailedSignIn != 0 {
			e.rateOf(t, mFailed, o, n, src)
		}
		if o.What&Intrusion != 0 {
			e.rateOf(t, mIDS, o, n, src)
		}
	} else if o.What&Outbound != 0 && o.Bytes > 0 {
		e.rateOf(t, mOutBytes, o, o.Bytes, src)
	}
}

// rateOf counts n in a metric's hour and tells if that makes the hour unusual.
func (e *Engine) rateOf(t *tenant, m metric, o *Observation, n uint64, addr [16]byte) {
	lane := 0
	if !o.Proven {
		lane = 1
	}
	hr := int32(o.At / hourNS)
	if hr <= e.closed {
		return
	}
	r := t.rates[lane][m]
	if r == nil {
		r = &rate{changed: e.gen, phi: 0.1, phi24: 0.02, level: 1}
		t.rates[lane][m] = r
		// What was never there before was there zero times since the member's lines began to come.
		for w := hr - 1; w > hr-weeks*slots && int64(w)*3600 > int64(t.lanes[lane]); w-- {
			r.hist[e.slotOf(w)][int(w/slots)%weeks] = pack(0)
			if w > hr-24 {
				r.last[w%24] = pack(0)
			}
		}
	}
	h := &r.open[hr&1]
	if h.hour != hr {
		*h = hour{hour: hr}
	}
	if m == mSources {
		d := &t.sources[lane][hr&1]
		d.Add(e.key.Hash128(addr, 7))
		if h.limit == 0 {
			h.limit = r.limitOf(m, e.momentOf(hr))
		}
		// An estimate costs some microseconds: it is made when the hour may be unusual, and at its end.
		if h.n = d.AtMost(); h.n >= h.limit {
			h.n = d.Quick()
		}
		if h.first == 0 {
			h.first = o.At
		}
		h.lastAt = max(h.lastAt, o.At)
	} else {
		h.count(n, addr, o.At)
	}
	if h.limit == 0 {
		h.limit = r.limitOf(m, e.momentOf(hr))
	}
	if h.n < h.limit {
		return
	}
	if len(h.ids) < maxIDs && o.ID != (event.ID{}) {
		h.ids = append(h.ids, o.ID)
	}
	if h.told == 0 || h.n/2 >= h.told {
		e.tellRate(t, lane, m, r, h, false)
	}
}

// advance moves the clock and closes the hours that are over.
func (e *Engine) advance(to int64) {
	if e.clock == 0 {
		e.started = uint32(to / 1e9)
		e.closed = int32((to-lateAfter)/hourNS) - 1
	}
	e.clock = to
	last := int32((to-lateAfter)/hourNS) - 1
	if last <= e.closed {
		return
	}
	// After a long silence the weeks that can be remembered are enough.
	for h := max(e.closed+1, last-weeks*slots); h <= last; h++ {
		e.closeHour(h)
	}
	e.closed = last
}

func (e *Engine) closeHour(h int32) {
	at := e.momentOf(h)
	for _, t := range e.order {
		here := t.any[h&1] == h
		for lane := range t.rates {
			alive := t.lanes[lane] != 0 && int64(h+1)*3600-int64(t.laneLast[lane]) <= 86400
			for m, r := range t.rates[lane] {
				if r != nil {
					e.closeRate(t, lane, metric(m), r, at, alive, here)
				}
			}
			t.sources[lane][h&1].Reset()
		}
		if lost := t.lost(); lost > t.evicted && h%24 == 0 {
			e.tellFull(t, lost-t.evicted, h)
			t.evicted = lost
		}
	}
}

func (e *Engine) closeRate(t *tenant, lane int, m metric, r *rate, at *moment, alive, here bool) {
	h := at.hour
	o := &r.open[h&1]
	if o.hour != h {
		*o = hour{hour: h}
	}
	if m == mSources {
		o.n = t.sources[lane][h&1].N()
	}
	if o.limit == 0 {
		o.limit = r.limitOf(m, at)
	}
	unusual := o.n >= o.limit
	if unusual && o.n > o.told {
		e.tellRate(t, lane, m, r, o, true)
	}
	if m == mDenied && here {
		e.drop(t, lane, r, o, at)
	}
	r.learn(at, o.n, alive, unusual)
	r.changed = e.gen
	if alive {
		if d := r.sum24(m, h, e.slotOf); d.unusual {
			if h-r.longest > 24 && (r.ended == 0 || h-r.ended >= 24) {
				e.tellDay(t, lane, m, o, h, d)
			}
			r.longest = h // it is told again when it was over for a day
		}
	}
	*o = hour{}
}

// moment is an hour as people and programs count it.
type moment struct {
	hour  int32
	known bool
	slot  int // hour of the week by the clock on the wall, Monday 0 h = 0
	// Where the clocks were changed within the weeks that are remembered, the same hour by UTC was another one by the wall then: which it was,
	// by how many weeks ago. People keep to the wall, but many a backup keeps to UTC.
	changed bool
	utc     [weeks]int
}

// momentOf looks an hour up. What it gives is good until the hour after the next is asked for.
func (e *Engine) momentOf(h int32) *moment {
	at := &e.moments[h&1]
	if at.hour == h && at.known {
		return at
	}
	*at = moment{hour: h, known: true, slot: e.slotOf(h)}
	for w := range at.utc {
		at.utc[w] = e.slotIn(h - int32(w)*slots)
		at.changed = at.changed || at.utc[w] != at.slot
	}
	return at
}

// slotOf is the hour of the week, Monday 0 h = 0, where people live.
func (e *Engine) slotOf(h int32) int {
	s := &e.slots[uint32(h)%uint32(len(e.slots))]
	if s.hour != h || !s.known {
		s.hour, s.known, s.slot = h, true, uint8(e.slotIn(h))
	}
	return int(s.slot)
}

func (e *Engine) slotIn(h int32) int {
	l := time.Unix(int64(h)*3600, 0).In(e.opts.Location)
	return (int(l.Weekday())+6)%7*24 + l.Hour()
}
