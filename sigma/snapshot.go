package sigma

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Snapshot format: a version byte, the hash key, the tick, then groups in order of use. Numbers are varints, times are signed. The second
// version has groups that wait for their window to end; without any the first is written, which older programs read.
const (
	snapshotPlain   = 1
	snapshotWaiting = 2
)

// Snapshot writes the whole state. It can be restored into an engine with the same or other rules: groups of rules that have changed
// are left out and counted.
func (c *Correlator) Snapshot() []byte {
	b := []byte{snapshotPlain}
	if len(c.waiting) > 0 {
		b[0] = snapshotWaiting
	}
	b = append(b, c.opts.HashKey[:]...)
	b = binary.AppendVarint(b, c.tick)
	b = binary.AppendUvarint(b, uint64(c.groups.live))
	for cor := range c.byCor {
		for at := c.byCor[cor].head; at != 0; at = c.groups.at(at - 1).corNext {
			g := c.groups.at(at - 1)
			ep := g.ep
			if ep == nil {
				ep = &episode{}
			}
			b = binary.LittleEndian.AppendUint64(b, c.e.cors[cor].fingerprint)
			b = binary.LittleEndian.AppendUint64(b, g.key[0])
			b = binary.LittleEndian.AppendUint64(b, g.key[1])
			flags := byte(0)
			for i, f := range []groupFlags{isLate, isSaturated, isListed, isWaiting} {
				if g.is(f) {
					flags |= 1 << i
				}
			}
			b = append(b, flags)
			for _, v := range []uint64{uint64(g.scope), uint64(ep.n), uint64(ep.since), uint64(ep.total)} {
				b = binary.AppendUvarint(b, v)
			}
			for _, v := range []int64{int64(g.seen) * 1e9, g.last, ep.start, ep.firedAt, ep.emitted, ep.sinceFirst} {
				b = binary.AppendVarint(b, v)
			}
			switch cc := c.e.cors[cor]; {
			case cc.valued():
				b = binary.AppendUvarint(append(b, 0), uint64(g.n))
				for w := g.walk(true); w.next(); {
					b = binary.AppendVarint(b, w.at)
					b = binary.LittleEndian.AppendUint64(b, w.value)
				}
			case strings.HasPrefix(cc.kind, "temporal"):
				data := g.slots(cc.keep)
				b = binary.AppendUvarint(b, uint64(len(data)))
				for _, t := range data {
					b = binary.AppendVarint(b, t)
				}
				b = append(b, 0)
			default:
				b = binary.AppendUvarint(b, uint64(g.n))
				for w := g.walk(false); w.next(); {
					b = binary.AppendVarint(b, w.at)
				}
				b = append(b, 0)
			}
			b = binary.AppendUvarint(b, uint64(g.refs.n))
			for _, r := range c.streams.unpack(&g.refs) {
				b = append(b, r[:]...)
			}
			b = binary.AppendUvarint(b, uint64(len(ep.names)))
			b = appendTexts(b, ep.names)
			if !g.is(isWaiting) {
				continue
			}
			w := c.waiting[at-1]
			b = binary.AppendUvarint(b, uint64(len(w.names)))
			b = appendTexts(b, w.names)
			b = binary.AppendUvarint(b, uint64(len(w.list)))
			for _, x := range w.list {
				for _, v := range []int64{int64(x.term), x.first, x.last, x.due, int64(x.count)} {
					b = binary.AppendVarint(b, v)
				}
			}
		}
	}
	return b
}

func appendTexts(b []byte, list []string) []byte {
	for _, s := range list {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
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
	if len(snapshot) < 1 || snapshot[0] != snapshotPlain && snapshot[0] != snapshotWaiting {
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
	var times, points []point
	for n := r.length(32); n > 0 && !r.bad; n-- {
		print := r.u64()
		g := group{key: [2]uint64{r.u64(), r.u64()}}
		flags := r.take(1)[0]
		g.mark(isLate, flags&1 != 0)
		g.mark(isSaturated, flags&2 != 0)
		g.mark(isListed, flags&4 != 0)
		ep := &episode{}
		g.scope, ep.n, ep.since, ep.total = uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint()), uint32(r.uvarint())
		g.seen = seconds(r.varint())
		for _, p := range []*int64{&g.last, &ep.start, &ep.firedAt, &ep.emitted, &ep.sinceFirst} {
			*p = r.varint()
		}
		times = times[:0]
		for k := r.length(1); k > 0; k-- {
			times = append(times, point{t: r.varint()})
		}
		points = points[:0]
		for k := r.length(9); k > 0; k-- {
			points = append(points, point{r.varint(), r.u64()})
		}
		var refs []Ref
		for k := r.length(len(Ref{})); k > 0; k-- {
			refs = append(refs, Ref(r.take(len(Ref{}))))
		}
		for k := r.length(1); k > 0; k-- {
			ep.names = append(ep.names, string(r.take(int(min(r.uvarint(), 1<<20)))))
		}
		var wait *waiting
		if flags&8 != 0 {
			wait = r.waiting()
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
		if !ok || len(times) > 2*cc.keep || len(points) > cc.keep || temporal && len(times) != 0 && len(times) != cc.keep ||
			cc.valued() && len(times) > 0 || !cc.valued() && len(points) > 0 ||
			ep.start != 0 && len(ep.names) != len(cc.cor.GroupBy) || len(refs) > c.opts.MaxRefs || wait != nil && !wait.fits(cc) {
			out.stats.Dropped++
			continue
		}
		if _, dup := out.groups.find(g.key); dup || out.groups.live >= out.opts.MaxGroups {
			out.stats.Dropped++
			continue
		}
		g.cor = uint16(cor)
		switch list := times; {
		case temporal:
			if len(times) > 0 {
				data := g.slots(cc.keep)
				for i := range data {
					data[i] = times[i].t
				}
			}
		default:
			if cc.valued() {
				list = points
			}
			slices.SortStableFunc(list, func(a, b point) int { return cmp.Compare(a.t, b.t) })
			g.series.set(list, cc.valued())
			if len(list) > 0 {
				g.last = list[len(list)-1].t
			}
		}
		if ep.start != 0 {
			g.ep = ep
		}
		for _, ref := range refs {
			out.streams.add(&g.refs, ref, out.opts.MaxRefs)
		}
		i := out.groups.add(g.key)
		*out.groups.at(i) = g
		out.link(i)
		out.bytes += g.size()
		if g.is(isListed) {
			out.active = append(out.active, i)
		}
		if wait != nil {
			out.groups.at(i).mark(isWaiting, true)
			out.waiting[i] = wait
			for _, x := range wait.list {
				out.pushDue(i, out.groups.at(i), x)
			}
		}
	}
	if r.bad || len(r.b) > 0 {
		return errSnapshot
	}
	*c = *out
	return nil
}

func (r *reader) waiting() *waiting {
	w := &waiting{}
	for k := r.length(1); k > 0; k-- {
		w.names = append(w.names, string(r.take(int(min(r.uvarint(), 1<<20)))))
	}
	for k := r.length(5); k > 0; k-- {
		x := wait{term: int(r.varint()), first: r.varint(), last: r.varint(), due: r.varint()}
		x.count = uint32(r.varint())
		w.list = append(w.list, x)
	}
	return w
}

// fits says whether what a snapshot says of waiting can be true of a group of cc.
func (w *waiting) fits(cc *compiledCorrelation) bool {
	if len(w.names) != len(cc.cor.GroupBy) || len(w.list) == 0 || cc.closes && len(w.list) != 1 {
		return false
	}
	for _, x := range w.list {
		if cc.closes != (x.term == -1) || !cc.closes && (x.term < 0 || x.term >= len(cc.terms)) {
			return false
		}
	}
	return true
}
