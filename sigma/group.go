package sigma

func (c *Correlator) alloc(key [2]uint64, cor int32, scope uint32, now int64) int32 {
	c.expire(now)
	if s := c.byScope[scope]; s != nil && s.n >= c.opts.ScopeGroups {
		c.evict(s.head - 1)
	}
	if len(c.table) >= c.opts.MaxGroups {
		// The scope that holds most gives way, whoever asks.
		var most *scopeList
		for _, s := range c.byScope {
			if most == nil || s.n > most.n || s.n == most.n && c.groups[s.head-1].seen < c.groups[most.head-1].seen {
				most = s
			}
		}
		c.evict(most.head - 1)
	}
	var i int32
	if n := len(c.free); n > 0 {
		i = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		i = int32(len(c.groups))
		c.groups = append(c.groups, group{})
	}
	c.groups[i] = group{key: key, cor: cor, scope: scope}
	c.table[key] = i
	return i
}

func (c *Correlator) evict(i int32) {
	c.stats.Evicted++
	c.evicted[c.groups[i].scope]++
	c.remove(i)
}

func (c *Correlator) remove(i int32) {
	c.unlink(i)
	g := &c.groups[i]
	delete(c.table, g.key)
	*g = group{}
	c.free = append(c.free, i)
}

// expire frees a few groups whose time is over: at most two for each event, so that the cost of one event is bounded.
func (c *Correlator) expire(now int64) {
	for cor := range c.byCor {
		for range 2 {
			h := c.byCor[cor].head
			if h == 0 || now-c.groups[h-1].seen <= c.e.cors[cor].span+int64(c.opts.Lateness) {
				break
			}
			c.stats.Expired++
			c.remove(h - 1)
		}
	}
}

func (c *Correlator) link(i int32) {
	g := &c.groups[i]
	l := &c.byCor[g.cor]
	g.corPrev, g.corNext = l.tail, 0
	if l.tail != 0 {
		c.groups[l.tail-1].corNext = i + 1
	} else {
		l.head = i + 1
	}
	l.tail = i + 1
	s := c.byScope[g.scope]
	if s == nil {
		s = &scopeList{}
		c.byScope[g.scope] = s
	}
	s.n++
	g.scopePrev, g.scopeNx = s.tail, 0
	if s.tail != 0 {
		c.groups[s.tail-1].scopeNx = i + 1
	} else {
		s.head = i + 1
	}
	s.tail = i + 1
}

func (c *Correlator) unlink(i int32) {
	g := &c.groups[i]
	l := &c.byCor[g.cor]
	if g.corPrev != 0 {
		c.groups[g.corPrev-1].corNext = g.corNext
	} else {
		l.head = g.corNext
	}
	if g.corNext != 0 {
		c.groups[g.corNext-1].corPrev = g.corPrev
	} else {
		l.tail = g.corPrev
	}
	s := c.byScope[g.scope]
	if g.scopePrev != 0 {
		c.groups[g.scopePrev-1].scopeNx = g.scopeNx
	} else {
		s.head = g.scopeNx
	}
	if g.scopeNx != 0 {
		c.groups[g.scopeNx-1].scopePrev = g.scopePrev
	} else {
		s.tail = g.scopePrev
	}
	if s.n--; s.n == 0 {
		delete(c.byScope, g.scope)
	}
}
