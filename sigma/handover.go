package sigma

// Take moves what from has gathered into c, as if c restored a snapshot of it, but without taking it apart: the groups stay where they are. c must be
// new, and made with the options of from (HashKey and Scoped aside); the rules can be others. Groups of correlations that have changed or gone are
// left out and counted. from is empty afterwards and keeps its counts.
//
// It takes a few nanoseconds for each group if the correlations have other numbers now, some hundred for each group that is left out, and nothing for
// all others.
func (c *Correlator) Take(from *Correlator) {
	byPrint := map[uint64]int32{}
	for i, cc := range c.e.cors {
		byPrint[cc.fingerprint] = int32(i)
	}
	old := *from
	*from = *NewCorrelator(old.e, old.opts)
	from.stats, from.evicted = old.stats, old.evicted

	c.opts.HashKey = old.opts.HashKey
	c.groups, c.streams, c.byScope, c.largest = old.groups, old.streams, old.byScope, old.largest
	c.active, c.waiting, c.dues, c.tick, c.bytes = old.active, old.waiting, old.dues, old.tick, old.bytes
	lists := c.byCor
	c.byCor = old.byCor // until the groups have their new numbers
	number := make([]uint16, len(old.e.cors))
	same := true
	for i, cc := range old.e.cors {
		n, ok := byPrint[cc.fingerprint]
		if !ok {
			for c.byCor[i].head != 0 {
				c.stats.Dropped++
				c.remove(c.byCor[i].head - 1)
			}
			continue
		}
		number[i] = uint16(n)
		lists[n] = c.byCor[i]
		same = same && int(n) == i
	}
	if !same {
		for _, slab := range c.groups.slabs {
			for i := range slab {
				slab[i].cor = number[slab[i].cor] // of a free one too: it is set when that is taken
			}
		}
	}
	c.byCor = lists
	for c.groups.live > c.opts.MaxGroups {
		c.stats.Dropped++
		c.remove(c.largest[0].head - 1)
	}
}
