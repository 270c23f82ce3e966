package baseline

import (
	"fmt"
	"slices"

	"tocsin/internal/baseline/sketch"
)

// beat is one machine's contacts with one destination and port: the last intervals between them. A table of beats keeps what may yet turn
// out to be regular: what is irregular or came once goes first, so that a slow beat is not crowded out by ordinary traffic.
type beat struct {
	h      uint64
	first  uint32 // seconds
	last   uint32
	n      uint32 // contacts
	gaps   [beatGaps]uint32
	state  uint8  // undecided, irregular, regular
	usual  bool   // it was regular while the tenant was learnt
	passed uint32 // contacts when it first passed and has since
}

const (
	undecided = iota
	irregular
	regular
)

const (
	beatGaps    = 24
	beatAgain   = 8
	beatFew     = 12 // intervals that are enough when they are very even
	beatBytes   = 128
	beatBurst   = 5         // seconds: contacts closer than that are one
	beatLeast   = 10        // seconds between contacts
	beatSpan    = 3600      // it must have gone on so long
	beatLongest = 26 * 3600 // a longer pause is not an interval
	pairAge     = 4         // days: a pair that was seen within half of it may come into the table
)

func (b *beat) key() uint64 { return b.h }

func (b *beat) worth(now uint32) int64 {
	quiet := now - min(b.last, now)
	switch {
	case b.state == regular && quiet < 14*86400:
		return 1 << 40
	case b.state == irregular, quiet > beatLongest:
		return 0
	}
	return int64(min(b.n, 100))<<20 - int64(quiet)
}

func (b *beat) code(c *sketch.Codec) {
	c.U64(&b.h)
	c.U32(&b.first)
	c.U32(&b.last)
	c.U32(&b.n)
	for i := range b.gaps {
		c.U32(&b.gaps[i])
	}
	c.U8(&b.state)
	c.Bool(&b.usual)
	c.U32(&b.passed)
}

// regularity looks at the intervals: their median, the largest deviation of most of them from it as a share, and whether that is a beat.
// A beat with a jitter of up to 35 % passes after 12 intervals, one of up to 50 % after 24. Random contacts pass once in some hundred thousand
// times: so what is not very even (within 10 %) must pass again after beatAgain more contacts.
func (b *beat) regularity() (mid uint32, share float64, ok, even bool) {
	var buf [beatGaps]uint32
	n := min(int(b.n)-1, beatGaps)
	if n < beatFew {
		return 0, 0, false, false
	}
	v := buf[:n]
	copy(v, b.gaps[:n])
	slices.Sort(v)
	mid = v[n/2]
	if mid < beatLeast {
		return mid, 0, false, false
	}
	within := func(percent uint32) (k int) {
		d := uint64(mid) * uint64(percent) / 100
		for _, g := range v {
			if uint64(g)+d >= uint64(mid) && uint64(g) <= uint64(mid)+d {
				k++
			}
		}
		return k
	}
	ok = within(35)*12 >= 11*n || n == beatGaps && within(50) >= 20
	even = within(10)*12 >= 11*n
	for i, g := range v {
		v[i] = max(g, mid) - min(g, mid)
	}
	slices.Sort(v)
	return mid, float64(v[n*8/10]) / float64(mid), ok, even
}

// popular counts who contacts a destination or a network: what many machines call is common.
type popular struct {
	h      uint64
	first  uint32
	last   uint32
	voters [popularAt]uint32
}

const (
	popularAt    = 4
	popularAge   = 7 * 86400
	popularBytes = 32
)

func (p *popular) key() uint64 { return p.h }

func (p *popular) worth(now uint32) int64 {
	if now > p.last && now-p.last > 30*86400 {
		return 0
	}
	if p.voters[popularAt-1] != 0 {
		return 1<<40 + int64(p.last)
	}
	return int64(p.last)
}

func (p *popular) code(c *sketch.Codec) {
	c.U64(&p.h)
	c.U32(&p.first)
	c.U32(&p.last)
	for i := range p.voters {
		c.U32(&p.voters[i])
	}
}

// vote counts a machine and says whether enough have called, and since when.
func (t *tenant) vote(h uint64, voter, now uint32, most int) (enough bool, since uint32) {
	p := t.popular.find(h)
	if p == nil {
		p = t.popular.place(h, now, most)
		*p = popular{h: h, first: now}
	}
	p.last = now
	for i, v := range p.voters {
		if v == voter {
			break
		}
		if v == 0 {
			p.voters[i] = voter
			break
		}
	}
	return p.voters[popularAt-1] != 0, p.first
}

// beatOf takes a connection from inside to outside as one contact.
func (e *Engine) beatOf(t *tenant, o *Observation) {
	in := o.inside()
	if !in.IsValid() || !o.Destination.IsValid() || o.Port == 123 || o.Port == 53 || !e.teaches(t, lessonBeat, o) {
		return // time and names are asked for in a beat by nature
	}
	now := uint32(o.At / 1e9)
	t.beats.changed, t.popular.changed = e.gen, e.gen
	voter := uint32(e.key.Hash128(in.As16(), 2)) | 1
	byAddr, _ := t.vote(e.key.Hash128(o.Destination.As16(), 3)|1, voter, now, e.lim.popular*t.share)
	byNet, since := t.vote(e.key.Hash128([16]byte{4}, o.network())|1, voter, now, e.lim.popular*t.share)
	if byAddr && byNet && now-min(since, now) >= popularAge {
		return // common: many machines call it, and have for long
	}
	id := e.key.Hash128(in.As16(), e.key.Hash128(o.Destination.As16(), uint64(o.Port))) | 1
	b := t.beats.find(id)
	// What comes once is most of all traffic: it does not get into the table.
	if b == nil && !t.filter(fPairs, e).Add(id, dayOf(o.At), pairAge, e.lim.filterMost) {
		return
	}
	if b == nil {
		b = t.beats.place(id, now, e.lim.beats*t.share)
		*b = beat{h: id, first: now, last: now, n: 1}
		return
	}
	if now < b.last || now-b.last < beatBurst {
		return
	}
	gap := now - b.last
	b.last = now
	if gap > beatLongest {
		b.first, b.n = now, 1 // begun anew
		if b.state != regular {
			b.state = undecided
		}
		return
	}
	b.gaps[int(b.n-1)%beatGaps] = gap
	b.n++
	if b.state == regular {
		return
	}
	mid, share, ok, even := b.regularity()
	if !ok {
		b.passed = 0
		if b.n > 2*beatGaps {
			b.state = irregular
		}
		return
	}
	if !even && b.passed == 0 {
		b.passed = b.n
	}
	if now-b.first < beatSpan || !even && b.n < b.passed+beatAgain {
		return
	}
	b.state = regular
	if !t.warm(lessonBeat, o.At) {
		b.usual = true // it was there while we learnt
		return
	}
	e.emit(t, beacon, o.Proven, subject{kind: "host", value: in.String(), host: in.String()}, fmt.Sprintf("%d/%x/%d", t.id, id, b.first), int64(b.first)*1e9, o.At, int(b.n), []eventID{o.ID},
		fmt.Sprintf("%s connected to %s port %d %d times in %s, every %s, and four of five times within %.0f %% of that; before, this machine did not call there in a beat, and fewer than %d machines here call there.",
			e.named("source.ip", in.String(), "A machine"), e.named("destination.ip", o.Destination.String(), "an address outside"), o.Port, b.n, about(int64(now-b.first)), about(int64(mid)), max(share*100, 1), popularAt))
}
