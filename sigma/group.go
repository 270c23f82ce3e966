package sigma

import "unsafe"

type list struct{ head, tail int32 } // positions plus one

type scopeList struct {
	list
	scope uint32
	n     int
	at    int // in Correlator.largest
}

type point struct {
	t int64
	h uint64 // hash of a value, or bits of a number
}

// group is the state of one group of one correlation. There can be millions: a quiet one takes groupBytes, and a few bytes more for each
// instant, value and reference that it keeps.
type group struct {
	key       [2]uint64
	series          // event_count: instants; value_*: instants with values; temporal types: see slots
	last      int64 // event time of the latest event, also the last of series
	ep        *episode
	refs      refList // first and latest events
	cor       uint16
	flags     groupFlags
	seen      uint32 // processing time of the last event, in seconds, rounded up
	scope     uint32
	corPrev   int32 // positions plus one
	corNext   int32
	scopePrev int32
	scopeNext int32
}

type groupFlags uint8

const (
	isLate      groupFlags = 1 << iota // of events that came long after their time
	isSaturated                        // what was measured is at least so much
	isListed                           // in Correlator.active
	isWaiting                          // in Correlator.waiting
	isUsedCor                          // since its place in the list of the correlation was given
	isUsedScope                        // likewise
)

func (g *group) is(f groupFlags) bool { return g.flags&f != 0 }

func (g *group) mark(f groupFlags, on bool) {
	if g.flags &^= f; on {
		g.flags |= f
	}
}

// seconds is a processing time as groups keep it.
func seconds(ns int64) uint32 { return uint32(max(0, (ns+1e9-1)/1e9)) }

// episode is a run of events for which the condition held at least once in each timespan.
type episode struct {
	start      int64 // event time of the first event of the window that fired
	firedAt    int64 // event time of the latest event for which the condition held
	emitted    int64
	sinceFirst int64
	since      uint32 // events since the last hit
	total      uint32
	n          uint32   // hits
	names      []string // group texts, so that Tick can report
}

const (
	groupBytes   = int(unsafe.Sizeof(group{}))
	episodeBytes = int(unsafe.Sizeof(episode{}))
)

// size is what g holds beside itself, in bytes.
func (g *group) size() int {
	n := int(g.series.cap) + int(g.refs.cap)
	if g.ep != nil {
		n += episodeBytes
		for _, s := range g.ep.names {
			n += len(s) + 16
		}
	}
	return n
}

// groupStore keeps groups by number and finds them by key. Groups never move.
type groupStore struct {
	slabs [][]group
	used  int32 // numbers given so far
	free  []int32
	table []int32 // number plus one, by key; open addressing
	live  int
}

const slabSize = 512

func (s *groupStore) at(i int32) *group { return &s.slabs[i/slabSize][i%slabSize] }

func (s *groupStore) bytes() int {
	return len(s.slabs)*slabSize*groupBytes + 4*len(s.table) + 4*cap(s.free)
}

func (s *groupStore) find(key [2]uint64) (int32, bool) {
	if len(s.table) == 0 {
		return 0, false
	}
	mask := uint64(len(s.table) - 1)
	for h := key[0] & mask; ; h = (h + 1) & mask {
		i := s.table[h]
		if i == 0 {
			return 0, false
		}
		if s.at(i-1).key == key {
			return i - 1, true
		}
	}
}

// add makes a group with a key that is not there yet.
func (s *groupStore) add(key [2]uint64) int32 {
	if 4*(s.live+1) > 3*len(s.table) {
		old := s.table
		s.table = make([]int32, max(64, 2*len(old)))
		for _, i := range old {
			if i != 0 {
				s.enter(s.at(i-1).key, i)
			}
		}
	}
	var i int32
	if n := len(s.free); n > 0 {
		i = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		i = s.used
		s.used++
		if int(i)/slabSize == len(s.slabs) {
			s.slabs = append(s.slabs, make([]group, slabSize))
		}
	}
	s.live++
	s.at(i).key = key
	s.enter(key, i+1)
	return i
}

func (s *groupStore) enter(key [2]uint64, i int32) {
	mask := uint64(len(s.table) - 1)
	h := key[0] & mask
	for s.table[h] != 0 {
		h = (h + 1) & mask
	}
	s.table[h] = i
}

// remove frees group i. Entries behind its own move up, so that none is cut off from its place.
func (s *groupStore) remove(i int32) {
	mask := uint64(len(s.table) - 1)
	h := s.at(i).key[0] & mask
	for s.table[h] != i+1 {
		h = (h + 1) & mask
	}
	for next := (h + 1) & mask; s.table[next] != 0; next = (next + 1) & mask {
		home := s.at(s.table[next] - 1).key[0] & mask
		if (next-home)&mask >= (next-h)&mask {
			s.table[h] = s.table[next]
			h = next
		}
	}
	s.table[h] = 0
	*s.at(i) = group{}
	s.free = append(s.free, i)
	s.live--
}

func (c *Correlator) alloc(key [2]uint64, cor int32, scope uint32, now int64) int32 {
	c.expire(int(cor), now, 2)
	if s := c.byScope[scope]; s != nil && s.n >= c.opts.ScopeGroups {
		c.evict(s)
	}
	if c.groups.live >= c.opts.MaxGroups {
		c.evict(c.largest[0]) // the scope that holds most gives way, whoever asks
	}
	i := c.groups.add(key)
	g := c.groups.at(i)
	g.cor, g.scope = uint16(cor), scope
	c.link(i)
	return i
}

// evict pushes out a group of s that was not used lately.
func (c *Correlator) evict(s *scopeList) {
	for range 8 { // those used since they were looked at get another turn
		g := c.groups.at(s.head - 1)
		if !g.is(isUsedScope) {
			break
		}
		g.mark(isUsedScope, false)
		i := s.head - 1
		c.cutScope(g, s)
		c.pushScope(i, g, s)
	}
	c.stats.Evicted++
	c.evicted[s.scope]++
	c.remove(s.head - 1)
}

func (c *Correlator) remove(i int32) {
	c.unlink(i)
	delete(c.waiting, i)
	g := c.groups.at(i)
	c.bytes -= g.size()
	c.streams.release(&g.refs)
	c.groups.remove(i)
}

// expire looks at up to limit groups of a correlation that were used longest ago and frees those whose time is over: few at a time, so
// that the cost of one event is bounded. A group that was used again keeps its place until it is looked at here: moving it each time
// would touch its neighbours' memory for every event.
func (c *Correlator) expire(cor int, now int64, limit int) {
	over := c.e.cors[cor].span + int64(c.opts.Lateness)
	for l := &c.byCor[cor]; limit > 0 && l.head != 0; limit-- {
		i := l.head - 1
		g := c.groups.at(i)
		switch {
		case now-int64(g.seen)*1e9 > over && !g.is(isWaiting):
			c.stats.Expired++
			c.remove(i)
		case g.is(isUsedCor | isWaiting):
			g.mark(isUsedCor, false)
			c.cutCor(g)
			c.pushCor(i, g)
		default:
			return // whatever is behind it came later
		}
	}
}

// expireTurn looks at the next few correlations. One that gets new groups frees as many itself.
func (c *Correlator) expireTurn(now int64) {
	for range min(4, len(c.byCor)) {
		if c.turn++; c.turn >= len(c.byCor) {
			c.turn = 0
		}
		c.expire(c.turn, now, 4)
	}
}

// link enters a new group in the lists, as the one used last.
func (c *Correlator) link(i int32) {
	g := c.groups.at(i)
	s := c.byScope[g.scope]
	if s == nil {
		s = &scopeList{scope: g.scope, at: len(c.largest)}
		c.byScope[g.scope] = s
		c.largest = append(c.largest, s)
	}
	s.n++
	c.rise(s.at)
	c.pushCor(i, g)
	c.pushScope(i, g, s)
}

func (c *Correlator) unlink(i int32) {
	g := c.groups.at(i)
	s := c.byScope[g.scope]
	c.cutCor(g)
	c.cutScope(g, s)
	s.n--
	c.sink(s.at)
	if s.n == 0 { // it has sunk to where nothing is below it
		last := c.largest[len(c.largest)-1]
		c.largest[s.at], last.at = last, s.at
		c.largest = c.largest[:len(c.largest)-1]
		if last != s {
			c.rise(last.at)
		}
		delete(c.byScope, g.scope)
	}
}

func (c *Correlator) pushCor(i int32, g *group) {
	l := &c.byCor[g.cor]
	g.corPrev, g.corNext = l.tail, 0
	if l.tail != 0 {
		c.groups.at(l.tail - 1).corNext = i + 1
	} else {
		l.head = i + 1
	}
	l.tail = i + 1
}

func (c *Correlator) cutCor(g *group) {
	l := &c.byCor[g.cor]
	if g.corPrev != 0 {
		c.groups.at(g.corPrev - 1).corNext = g.corNext
	} else {
		l.head = g.corNext
	}
	if g.corNext != 0 {
		c.groups.at(g.corNext - 1).corPrev = g.corPrev
	} else {
		l.tail = g.corPrev
	}
}

func (c *Correlator) pushScope(i int32, g *group, s *scopeList) {
	g.scopePrev, g.scopeNext = s.tail, 0
	if s.tail != 0 {
		c.groups.at(s.tail - 1).scopeNext = i + 1
	} else {
		s.head = i + 1
	}
	s.tail = i + 1
}

func (c *Correlator) cutScope(g *group, s *scopeList) {
	if g.scopePrev != 0 {
		c.groups.at(g.scopePrev - 1).scopeNext = g.scopeNext
	} else {
		s.head = g.scopeNext
	}
	if g.scopeNext != 0 {
		c.groups.at(g.scopeNext - 1).scopePrev = g.scopePrev
	} else {
		s.tail = g.scopePrev
	}
}

// before orders the heap of scopes: most groups first, and for equal ones always the same.
func (c *Correlator) before(i, j int) bool {
	a, b := c.largest[i], c.largest[j]
	return a.n > b.n || a.n == b.n && a.scope < b.scope
}

func (c *Correlator) swap(i, j int) {
	c.largest[i], c.largest[j] = c.largest[j], c.largest[i]
	c.largest[i].at, c.largest[j].at = i, j
}

func (c *Correlator) rise(i int) {
	for i > 0 && c.before(i, (i-1)/2) {
		c.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (c *Correlator) sink(i int) {
	for {
		most := i
		for _, k := range []int{2*i + 1, 2*i + 2} {
			if k < len(c.largest) && c.before(k, most) {
				most = k
			}
		}
		if most == i {
			return
		}
		c.swap(i, most)
		i = most
	}
}
