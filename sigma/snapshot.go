package sigma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

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
