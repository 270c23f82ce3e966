package baseline

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
	_ "time/tzdata" // a machine without zones learns the same hours

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

type eventID = event.ID

const (
	hourNS    = int64(time.Hour)
	lateAfter = int64(15 * time.Minute) // how long an hour stays open after its end
)

// Options for New.
type Options struct {
	Where Where
	// Origin tells the keys of detections made on different sites apart: the collector's id. At the hub it is empty.
	Origin string
	// Dir is a folder of the engine's own where whole snapshots are kept, so that Snapshot need only give what changed since the last hour.
	// "": Snapshot gives everything, as on a site.
	Dir string
	// Location is the zone whose hours and weekdays people live by; default Europe/London.
	Location *time.Location
	// Country gives the name of a country by its code; nil: the code is shown.
	Country func(code string) string
	// Area gives a member's region, "" when it has none; nil: none has. It is called for detections only.
	Area func(event.TenantID) string
	// Withhold says which fields must not be in a sentence; the policy of a site decides. nil: none.
	Withhold func(field string) bool
	// Share gives how many times the usual room a member has: an estate whose every event comes here needs more. nil: 1.
	Share func(event.TenantID) int
	// Warm is how long something must have been learnt before anything new is told; default 14 days.
	Warm time.Duration
	// AcrossAt is at how many members something is told to the centre; default 3, and never fewer than one in a thousand of all members.
	AcrossAt   int
	MaxTenants int // default 20,000 at the hub, 200 on a site
	Logger     *slog.Logger

	key *sketch.Key // for tests: the secret of the hashes
}

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
	n, filters, rates := 512, 0, 0
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
	return l.keys*crossingBytes + l.big*votesBytes + sketch.FilterBytes(l.patterns) + spreadMost*32
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

// Engine learns and tells. It belongs to one goroutine, but for Stats.
type Engine struct {
	mu          sync.Mutex // held by every call that touches the state; waited for only by who asks for Stats
	opts        Options
	lim         limits
	key         sketch.Key
	warmSeconds uint32

	tenants map[event.TenantID]*tenant
	order   []*tenant // by number
	centre  tenant    // budgets of what is told to the centre
	clock   int64
	closed  int32 // every hour up to here is closed
	started uint32
	slots   [64]struct {
		hour  int32
		slot  uint8
		known bool
	}
	crossings  table[crossing, *crossing]
	big        int    // keys with more members than have their place
	swept      uint32 // when they were last counted
	patterns   sketch.Filter
	signatures spread

	gen   uint32 // of the whole snapshot that is next
	base  fullFile
	out   []event.Detection
	stats Stats
}

// Stats counts since the engine was made.
type Stats struct {
	Events     uint64 // looked at
	Observed   uint64 // of them, of a kind that baselines are made of
	Late       uint64 // came after their hour was closed: not counted
	Refused    uint64 // new members beyond the most, and new keys of one member beyond its share
	Untaught   uint64 // over UDP, where a known sender teaches the same
	Detections uint64
	Updates    uint64
	Suppressed uint64 // beyond what a member may be told of one kind in a day
	Evicted    uint64 // accounts, machines, beats and keys pushed out that were still worth keeping
	Tenants    int
	Keys       int               // across members
	Bytes      int               // in use, about
	Told       map[string]uint64 // by kind
}

// New makes an engine that has learnt nothing.
func New(o Options) (*Engine, error) {
	lim, ok := limitsAt[o.Where]
	if !ok {
		return nil, fmt.Errorf("baseline: where is %q, want site or hub", o.Where)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Location == nil {
		var err error
		if o.Location, err = time.LoadLocation("Europe/London"); err != nil {
			return nil, fmt.Errorf("baseline: %w", err)
		}
	}
	if o.Warm <= 0 {
		o.Warm = 14 * 24 * time.Hour
	}
	if o.AcrossAt <= 0 {
		o.AcrossAt = 3
	}
	if o.MaxTenants <= 0 {
		o.MaxTenants = map[Where]int{Hub: 20_000, Site: 200}[o.Where]
	}
	e := &Engine{opts: o, lim: lim, warmSeconds: uint32(o.Warm / time.Second)}
	e.forget()
	return e, nil
}

func (e *Engine) forget() {
	var b [16]byte
	rand.Read(b[:])
	e.key = sketch.Key{A: binary.LittleEndian.Uint64(b[:]), B: binary.LittleEndian.Uint64(b[8:])}
	if e.opts.key != nil {
		e.key = *e.opts.key
	}
	e.tenants, e.order = map[event.TenantID]*tenant{}, nil
	e.centre = tenant{share: 1}
	e.clock, e.closed, e.started = 0, 0, 0
	e.crossings, e.big, e.swept = table[crossing, *crossing]{}, 0, 0
	e.patterns, e.signatures = sketch.Filter{}, spread{}
	e.gen, e.base = 1, fullFile{}
	e.stats = Stats{Told: map[string]uint64{}}
}

// Stats gives the counters. It may be called from any goroutine.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Told = make(map[string]uint64, len(e.stats.Told))
	for k, n := range e.stats.Told {
		s.Told[k] = n
	}
	s.Tenants, s.Keys = len(e.tenants), e.crossings.used
	s.Bytes = len(e.crossings.slots)*crossingBytes + e.big*votesBytes + e.patterns.Bytes() + len(e.signatures.slots)*32
	s.Evicted += uint64(e.crossings.Evicted) + uint64(e.signatures.Evicted)
	for _, t := range e.order {
		s.Bytes += t.bytes()
		s.Evicted += uint64(t.lost())
	}
	return s
}

func (t *tenant) bytes() int {
	n := 512 + len(t.accounts.slots)*accountBytes + len(t.hosts.slots)*hostBytes + len(t.beats.slots)*beatBytes + len(t.popular.slots)*popularBytes
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

// Process takes one event and gives what is unusual about it, and what the hours that ended with it held. now is the processing time in UTC
// nanoseconds; after a crash events must be processed again with the times they had. The event is not kept.
func (e *Engine) Process(ev *event.Event, now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Events++
	o, ok := Read(ev)
	if !ok {
		return nil
	}
	return e.observe(&o, now)
}

// Observe is Process for who has no event.
func (e *Engine) Observe(o *Observation, now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.observe(o, now)
}

// Flush ends the hours that are over when no events come.
func (e *Engine) Flush(now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out = nil
	if e.clock != 0 && now-lateAfter > e.clock {
		e.advance(now - lateAfter)
	}
	return e.sorted()
}

func (e *Engine) observe(o *Observation, now int64) []event.Detection {
	e.out = nil
	e.stats.Observed++
	o.At = min(o.At, now) // a collector's clock that goes ahead must not move everybody's
	if o.At <= 0 || o.At > math.MaxInt64/2 {
		return nil
	}
	if o.At > e.clock {
		e.advance(o.At)
	}
	t := e.tenant(o)
	if t == nil {
		e.stats.Refused++
		return e.sorted()
	}
	lane := 0
	if !o.Proven {
		lane = 1
	}
	h := int32(o.At / hourNS)
	if h <= e.closed {
		e.stats.Late++
	} else {
		at := uint32(o.At / 1e9)
		if t.lanes[lane] == 0 {
			t.lanes[lane] = at
		}
		t.laneLast[lane] = max(t.laneLast[lane], at)
		t.any[h&1] = h
		e.rates(t, o)
	}
	if now-o.At <= lateAfter || e.opts.Where == Site { // what comes late is not compared with what came since
		if o.What&SignIn != 0 {
			e.signIn(t, o)
		}
		if o.What&Intrusion != 0 && e.opts.Where == Hub {
			e.intrusion(t, o)
		}
		if e.opts.Where == Site {
			if o.What&Outbound != 0 {
				e.contact(t, o)
				e.beatOf(t, o)
			}
			if o.What&AllowedInbound != 0 {
				e.letIn(t, o)
			}
		}
		e.cross(t, o)
	}
	return e.sorted()
}

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
			h.limit = r.limitOf(m, e.slotOf(hr))
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
		h.limit = r.limitOf(m, e.slotOf(hr))
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
	slot := e.slotOf(h)
	for _, t := range e.order {
		here := t.any[h&1] == h
		for lane := range t.rates {
			alive := t.lanes[lane] != 0 && int64(h+1)*3600-int64(t.laneLast[lane]) <= 86400
			for m, r := range t.rates[lane] {
				if r != nil {
					e.closeRate(t, lane, metric(m), r, h, slot, alive, here)
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

func (e *Engine) closeRate(t *tenant, lane int, m metric, r *rate, h int32, slot int, alive, here bool) {
	o := &r.open[h&1]
	if o.hour != h {
		*o = hour{hour: h}
	}
	if m == mSources {
		o.n = t.sources[lane][h&1].N()
	}
	if o.limit == 0 {
		o.limit = r.limitOf(m, slot)
	}
	unusual := o.n >= o.limit
	if unusual && o.n > o.told {
		e.tellRate(t, lane, m, r, o, true)
	}
	if m == mDenied && here {
		e.drop(t, lane, r, o, slot)
	}
	r.learn(h, slot, o.n, alive, unusual)
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

// slotOf is the hour of the week, Monday 0 h = 0, where people live.
func (e *Engine) slotOf(h int32) int {
	s := &e.slots[uint32(h)%uint32(len(e.slots))]
	if s.hour != h || !s.known {
		l := time.Unix(int64(h)*3600, 0).In(e.opts.Location)
		s.hour, s.known, s.slot = h, true, uint8((int(l.Weekday())+6)%7*24+l.Hour())
	}
	return int(s.slot)
}

func dayOf(ns int64) uint16 { return uint16(min(ns/(24*hourNS), math.MaxUint16)) }

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

// teaches says whether an observation may teach a lesson: a sender that is known may, others only where none is.
func (t *tenant) teaches(l int, o *Observation) bool {
	now := uint32(o.At / 1e9)
	s := &t.lessons[l]
	if o.Proven {
		s.proven = max(s.proven, now)
	} else if s.proven != 0 && now-min(s.proven, now) < provenHolds {
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

// subject is what a detection is about.
type subject struct {
	kind, value, source, user, host string
	field                           string // where the value stood; "": where one of its kind mostly does
}

// spend takes one of the detections of a kind that a member may have in a day.
func (t *tenant) spend(k kind, proven bool, at int64) bool {
	if day := dayOf(at); t.day != day {
		t.day, t.spent = day, [2][kinds]uint8{}
	}
	lane, most := 0, 5
	if !proven {
		lane, most = 1, 3
	}
	switch {
	case infos[k].Across:
		most = 100
	case k == elsewhere:
		most = 10
	}
	if int(t.spent[lane][k]) >= most {
		return false
	}
	t.spent[lane][k]++
	return true
}

// emit makes a detection that is new under its window's text, if the member's budget allows it.
func (e *Engine) emit(t *tenant, k kind, proven bool, s subject, windowText string, first, last int64, count int, ids []eventID, reason string) bool {
	if !t.spend(k, proven, last) {
		e.stats.Suppressed++
		return false
	}
	if !proven && k != full {
		reason += " The line that says so came over UDP, which proves no sender."
	}
	e.stats.Detections++
	e.stats.Told[infos[k].ID]++
	e.add(t, k, s, windowText, first, last, count, ids, reason, nil)
	return true
}

func (e *Engine) add(t *tenant, k kind, s subject, windowText string, first, last int64, count int, ids []eventID, reason string, steps []event.Step) {
	info := &infos[k]
	d := event.Detection{Tenant: t.id, RuleID: info.ID, RuleTitle: info.Title, Family: info.Family, Level: info.Level, Tags: info.Tags,
		Entity: event.Entity{Kind: s.kind, Value: s.value}, First: first, Last: last, Count: max(count, 1), Reason: reason,
		Steps: append(steps, event.Step{Time: last, Text: reason}), Source: s.source, User: s.user, Host: s.host, Site: e.opts.Where == Site}
	if d.EntityField = s.field; s.field == "" {
		d.EntityField = map[string]string{"user": "user.name", "source": "source.ip", "host": "source.ip"}[s.kind]
	}
	for _, id := range ids {
		if id.Seq != 0 {
			d.Events = append(d.Events, id)
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "baseline\x00%d\x00%s\x00%s\x00%s\x00%s\x00%s", t.id, e.opts.Origin, d.RuleID, d.Entity.Kind, d.Entity.Value, windowText))
	d.Key = hex.EncodeToString(sum[:16])
	e.out = append(e.out, d)
}

// sorted gives what was made, in an order that a replay repeats.
func (e *Engine) sorted() []event.Detection {
	slices.SortStableFunc(e.out, func(a, b event.Detection) int {
		return cmp.Or(cmp.Compare(a.RuleID, b.RuleID), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Key, b.Key))
	})
	return e.out
}

var errNoSnapshot = errors.New("baseline: restore: not a snapshot of a known version")
