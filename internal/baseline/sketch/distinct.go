package sketch

import (
	"encoding/binary"
	"slices"

	"github.com/axiomhq/hyperloglog"
	"github.com/dchest/siphash"
)

// Key is the secret of Hash. It is part of the saved state: hashes of different keys do not compare.
type Key struct{ A, B uint64 }

// Hash is the hash of a text.
func (k Key) Hash(s string) uint64 { return siphash.Hash(k.A, k.B, []byte(s)) }

// Hash128 is the hash of 16 bytes, as of an address, with a word beside them.
func (k Key) Hash128(b [16]byte, with uint64) uint64 {
	var x [24]byte
	copy(x[:], b[:])
	binary.LittleEndian.PutUint64(x[16:], with)
	return siphash.Hash(k.A, k.B, x[:])
}

// Distinct counts distinct keys: exactly up to exactMost, beyond with HyperLogLog of 1,024 registers, whose standard error is 3.25 %.
// It needs at most about DistinctBytes.
type Distinct struct {
	exact []uint64 // sorted
	hll   *hyperloglog.Sketch
	n     uint32 // the last estimate
	since uint32 // keys added after it
}

const (
	exactMost     = 32
	hllPrecision  = 10
	DistinctBytes = 1<<hllPrecision + 8*exactMost + 96 // the most memory of a Distinct
)

// Add counts a key.
func (d *Distinct) Add(h uint64) {
	if d.hll != nil {
		d.hll.InsertHash(h)
		d.since++
		return
	}
	at, found := slices.BinarySearch(d.exact, h)
	if found {
		return
	}
	if len(d.exact) < exactMost {
		d.exact = slices.Insert(d.exact, at, h)
		return
	}
	d.hll = newHLL()
	for _, x := range d.exact {
		d.hll.InsertHash(x)
	}
	d.hll.InsertHash(h)
	d.exact, d.since = nil, 1
}

func newHLL() *hyperloglog.Sketch {
	s, err := hyperloglog.NewSketch(hllPrecision, false)
	if err != nil {
		panic(err) // the precision is a constant that it takes
	}
	return s
}

// N is how many.
func (d *Distinct) N() uint64 {
	if d.hll == nil {
		return uint64(len(d.exact))
	}
	if d.since > 0 {
		d.n, d.since = uint32(min(d.hll.Estimate(), 1<<32-1)), 0
	}
	return uint64(d.n)
}

// Quick is N, or what it was before the last 1.6 % of additions: it costs next to nothing.
func (d *Distinct) Quick() uint64 {
	if d.hll != nil && d.since <= d.n>>6 {
		return uint64(d.n)
	}
	return d.N()
}

// Exact says whether N is exact.
func (d *Distinct) Exact() bool { return d.hll == nil }

// AtMost is a number that N does not exceed: the last estimate and all additions since. It costs nothing.
func (d *Distinct) AtMost() uint64 {
	if d.hll == nil {
		return uint64(len(d.exact))
	}
	return uint64(d.n) + uint64(d.since) + exactMost
}

// Merge counts the keys of another one too.
func (d *Distinct) Merge(o *Distinct) {
	if o.hll == nil {
		for _, h := range o.exact {
			d.Add(h)
		}
		return
	}
	if d.hll == nil {
		d.hll = newHLL()
		for _, x := range d.exact {
			d.hll.InsertHash(x)
		}
		d.exact = nil
	}
	if d.hll.Merge(o.hll) == nil {
		d.since++
	}
}

// Reset empties it and keeps its memory only if it is small.
func (d *Distinct) Reset() { *d = Distinct{exact: d.exact[:0]} }

// Bytes is the memory in use.
func (d *Distinct) Bytes() int {
	if d.hll != nil {
		return 96 + 1<<hllPrecision
	}
	return 8 * cap(d.exact)
}

// Code saves or restores it.
func (d *Distinct) Code(c *Codec) {
	big := d.hll != nil
	c.Bool(&big)
	if !big {
		n := c.Len(len(d.exact), exactMost)
		if c.Reading() {
			*d = Distinct{exact: make([]uint64, n)}
		}
		for i := range d.exact {
			c.U64(&d.exact[i])
		}
		if c.Reading() && !slices.IsSorted(d.exact) {
			d.exact = nil
			c.Fail("a set of keys is not in order")
		}
		return
	}
	// The estimate is part of the state: without it AtMost and Quick would say something else after a restore.
	n, since := d.n, d.since
	c.U32(&n)
	c.U32(&since)
	var b []byte
	if !c.Reading() {
		var err error
		if b, err = d.hll.MarshalBinary(); err != nil {
			c.Fail("%v", err)
		}
	}
	c.Blob(&b, 4<<hllPrecision)
	if !c.Reading() || c.Err() != nil {
		return
	}
	s, like := &hyperloglog.Sketch{}, newHLL()
	if err := s.UnmarshalBinary(b); err != nil {
		c.Fail("%v", err)
		return
	}
	// Another precision does not merge: so it is found out.
	if err := like.Merge(s); err != nil {
		c.Fail("%v", err)
		return
	}
	d.exact, d.hll, d.n, d.since = nil, like, n, since
}
