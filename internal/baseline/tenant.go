package baseline

import (
	"cmp"
	"slices"

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// limits are what tables hold.
type limits struct {
	accounts, hosts, beats, popular int // of one member
	filterMost                      int // keys of a filter's layer
	keys, big, patterns             int // across members
}

var limitsAt = map[Where]limits{
	Hub:  {accounts: 192, filterMost: 512, hosts: bucket, beats: bucket, popular: bucket, keys: 65_536, big: 2048, patterns: 65_536},
	Site: {accounts: 8192, filterMost: 65_536, hosts: 8192, beats: 8192, popular: 16_384},
}

// Bytes is the most memory of one member with a share of one; at the hub it is below 64 kB.
func (l limits) bytes(w Where) int {
	n, filters, rates := tenantBytes, 0, 0
	for _, m := range metricOf {
		if m.where == w {
			rates++
		}
	}
	for i := range filterWhere {
		if filterWhere[i] == w || filterWhere[i] == "" {
			filters++
		}
	}
	n += 2*rates*rateBytes + filters*sketch.FilterBytes(l.filterMost)
	if w == Hub {
		n += 2 * 2 * sketch.DistinctBytes
	}
	n += l.accounts * accountBytes
	if w == Site {
		n += l.hosts*hostBytes + l.beats*beatBytes + l.popular*popularBytes
	}
	return n
}

// TenantBytes is the most memory that one member's baselines take at a place.
func TenantBytes(w Where) int { l := limitsAt[w]; return l.bytes(w) }

// AcrossBytes is the most memory of what is kept across members, at the hub.
func AcrossBytes() int {
	l := limitsAt[Hub]
	return l.keys*crossingBytes + l.big*votesBytes + sketch.FilterBytes(l.patterns) + spreadMost*spreadBytes
}

// A filter of a member.
const (
	fSignInNets = iota
	fHostNets
	fPorts
	fSignatures
	fPairs
	filters
)

var filterWhere = [filters]Where{fHostNets: Site, fPorts: Site, fSignatures: Hub, fPairs: Site}

const filterAge = 60 // days: what was not seen for so long is new again; what was seen within half of it never is

// A lesson is something that takes time to learn and is taught by known senders only, where there are any.
const (
	lessonSignIn = iota
	lessonContact
	lessonLetIn
	lessonIntrusion
	lessonBeat
	lessons
)

type lesson struct {
	since  uint32 // seconds; 0: not begun
	proven uint32 // when a known sender last taught it
}

// provenHolds is how long a known sender's lessons keep unknown senders out: a device that changes to UDP is heard after it.
const provenHolds = 14 * 86400

const tenantBytes = 640 // of a member beside its parts

// tenant is one member. Its parts are made when they are first needed.
type tenant struct {
	id      event.TenantID
	share   int
	warmFor uint32 // seconds that a lesson takes
	since   uint32 // seconds: first observation
	last    uint32
	// By lane, 0 for proved senders and 1 for others.
	lanes    [2]uint32 // when the lane was first used
	laneLast [2]uint32
	rates    [2][metrics]*rate
	sources  [2][2]sketch.Distinct // of the open hours
	any      [2]int32              // hours in which something came, by hour modulo 2
	lessons  [lessons]lesson
	filters  [filters]*sketch.Filter
	accounts table[account, *account]
	hosts    table[host, *host]
	beats    table[beat, *beat]
	popular  table[popular, *popular]

	keysHour int32 // new keys across members in the hour
	keys     uint16
	day      uint16 // of the budgets
	spent    [2][kinds]uint8
	evicted  uint32 // evictions and forgotten layers that were told
	fChanged uint32
}

func (t *tenant) bytes() int {
	n := tenantBytes + len(t.accounts.slots)*accountBytes + len(t.hosts.slots)*hostBytes + len(t.beats.slots)*beatBytes + len(t.popular.slots)*popularBytes
	for l := range t.rates {
		for _, r := range t.rates[l] {
			if r != nil {
				n += rateBytes + (cap(r.open[0].ids)+cap(r.open[1].ids))*32
			}
		}
		n += t.sources[l][0].Bytes() + t.sources[l][1].Bytes()
	}
	for _, f := range t.filters {
		if f != nil {
			n += f.Bytes()
		}
	}
	return n
}

// lost is what was pushed out although it was worth keeping.
func (t *tenant) lost() uint32 {
	n := t.accounts.Evicted + t.hosts.Evicted + t.beats.Evicted + t.popular.Evicted
	for i, f := range t.filters {
		if f != nil && i != fPairs { // a pair that is forgotten comes in a contact later
			n += f.Forgot
		}
	}
	return n
}

func (e *Engine) tenant(o *Observation) *tenant {
	now := uint32(o.At / 1e9)
	t := e.tenants[o.Tenant]
	if t == nil {
		if len(e.tenants) >= e.opts.MaxTenants {
			return nil
		}
		t = e.newTenant(o.Tenant)
		t.since = now
		e.tenants[o.Tenant] = t
		at, _ := slices.BinarySearchFunc(e.order, o.Tenant, func(x *tenant, id event.TenantID) int { return cmp.Compare(x.id, id) })
		e.order = slices.Insert(e.order, at, t)
	}
	t.last = max(t.last, now)
	return t
}

func (e *Engine) newTenant(id event.TenantID) *tenant {
	t := &tenant{id: id, share: 1, warmFor: e.warmSeconds}
	if e.opts.Share != nil {
		t.share = min(max(e.opts.Share(id), 1), 1000)
	}
	return t
}

// Forget drops all that was learnt of a member.
func (e *Engine) Forget(id event.TenantID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.tenants[id]; !ok {
		return
	}
	delete(e.tenants, id)
	e.order = slices.DeleteFunc(e.order, func(t *tenant) bool { return t.id == id })
	for i := range e.crossings.slots {
		x := &e.crossings.slots[i]
		for j := range x.few {
			if x.few[j].tenant == uint32(id) {
				x.few[j] = vote{}
			}
		}
		if x.more != nil {
			x.more.exact = slices.DeleteFunc(x.more.exact, func(v vote) bool { return v.tenant == uint32(id) })
		}
	}
	for i := range e.signatures.slots {
		s := &e.signatures.slots[i]
		for j := range s.tenants {
			if s.tenants[j] == uint32(id)+1 {
				s.tenants[j] = 0
			}
		}
	}
	e.base.gen = 0 // the next snapshot is a whole one
}

func (t *tenant) filter(i int, e *Engine) filterOf {
	if t.filters[i] == nil {
		t.filters[i] = &sketch.Filter{}
	}
	t.fChanged = e.gen
	return filterOf{t.filters[i], t.share}
}

// filterOf is a filter with its member's share of room.
type filterOf struct {
	f     *sketch.Filter
	share int
}

func (f filterOf) Add(h uint64, day, age uint16, most int) bool {
	return f.f.Add(h, day, age, most*f.share)
}

// teaches says whether an observation may teach a member's lesson: a sender that is known may, others only where none is.
func (e *Engine) teaches(t *tenant, l int, o *Observation) bool {
	now := uint32(o.At / 1e9)
	s := &t.lessons[l]
	if o.Proven {
		s.proven = max(s.proven, now)
	} else if s.proven != 0 && now-min(s.proven, now) < provenHolds {
		e.stats.Untaught++
		return false
	}
	if s.since == 0 {
		s.since = now
	}
	return true
}

func (t *tenant) lessonDays(l int, at int64) uint32 {
	now := uint32(at / 1e9)
	return (now - min(t.lessons[l].since, now)) / 86400
}
