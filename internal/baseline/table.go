package baseline

import (
	"tocsin/internal/baseline/sketch"
)

// table holds entries by hash in buckets of eight, so that finding and evicting look at one bucket. It grows by doubling up to a bound;
// beyond, the least worth entry of the bucket goes.
type table[E any, P interface {
	*E
	entry
}] struct {
	slots   []E
	used    int
	Evicted uint32 // entries pushed out that were still worth something
	changed uint32 // generation of the snapshot in which it last changed
}

// entry is what a table needs of its entries.
type entry interface {
	key() uint64 // 0: free
	// worth of keeping it; the lowest goes first. Not positive: nothing is lost with it.
	worth(now uint32) int64
	code(*sketch.Codec)
}

const bucket = 8

// bucketOf is where the bucket of a hash begins in a table of n. The hash's lowest bit is always set, so others choose.
func bucketOf(h uint64, n int) int { return int((h>>16)%uint64(n/bucket)) * bucket }

func (t *table[E, P]) find(h uint64) P {
	if len(t.slots) == 0 {
		return nil
	}
	at := bucketOf(h, len(t.slots))
	for i := at; i < at+bucket; i++ {
		if p := P(&t.slots[i]); p.key() == h {
			return p
		}
	}
	return nil
}

// place gives the place for a new entry, cleared. most is the bound.
func (t *table[E, P]) place(h uint64, now uint32, most int) P {
	var zero E
	most = max(most/bucket*bucket, bucket)
	for {
		if len(t.slots) > 0 {
			at := bucketOf(h, len(t.slots))
			least, worth := P(nil), int64(0)
			for i := at; i < at+bucket; i++ {
				p := P(&t.slots[i])
				if p.key() == 0 {
					t.used++
					*p = zero
					return p
				}
				if w := p.worth(now); least == nil || w < worth {
					least, worth = p, w
				}
			}
			if len(t.slots) >= most || worth <= 0 {
				if worth > 0 {
					t.Evicted++
				}
				*least = zero
				return least
			}
		}
		old := t.slots
		t.slots = make([]E, min(max(2*len(old), 2*bucket), most))
		t.used = 0
		for i := range old {
			if p := P(&old[i]); p.key() != 0 {
				*t.place(p.key(), now, len(t.slots)) = old[i]
			}
		}
	}
}

func (t *table[E, P]) codeAll(c *sketch.Codec, most int) {
	c.U32(&t.Evicted)
	n := c.Len(len(t.slots), max(most/bucket*bucket, bucket))
	if n%bucket != 0 {
		c.Fail("a table of %d", n)
	}
	used := c.Len(t.used, n)
	if c.Err() != nil {
		return
	}
	if !c.Reading() {
		for i := range t.slots {
			if p := P(&t.slots[i]); p.key() != 0 {
				at := uint32(i)
				c.U32(&at)
				p.code(c)
			}
		}
		return
	}
	if n > 0 && used > n || used > 0 && len(c.Bytes()) < 4*used {
		c.Fail("a table of %d with %d entries", n, used)
		return
	}
	t.slots, t.used = make([]E, n), used
	for range used {
		var at uint32
		c.U32(&at)
		if c.Err() != nil || int(at) >= n {
			c.Fail("an entry at %d of %d", at, n)
			break
		}
		p := P(&t.slots[at])
		if p.key() != 0 {
			c.Fail("two entries at %d", at)
		}
		p.code(c)
		if h := p.key(); c.Err() == nil && (h == 0 || bucketOf(h, n) != int(at)/bucket*bucket) {
			c.Fail("an entry stands where it does not belong")
		}
	}
	if c.Err() != nil {
		t.slots, t.used = nil, 0
	}
}
