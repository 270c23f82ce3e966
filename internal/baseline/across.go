package baseline

import (
	"fmt"
	"slices"
	"strings"

	"tocsin/internal/access"
	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// Across members: per source, signature, URL pattern and TLS fingerprint, which members had it within the window. Up to exactVotes members
// are known one by one; beyond, how many is estimated (sketch.Distinct), in quarters of the window.
//
// Who they are is told to nobody but the centre, and there only by number: a member is told how many others in its own area, or else in the scheme, have it,
// through access.Figure (at least five others, rounded to five).

const (
	window     = 24 * 3600 // seconds
	quarters   = 4
	fewVotes   = 6
	exactVotes = 32
	keysAnHour = 2000 // new keys that one member may bring in an hour
	commonAt   = 5    // members with a signature from which on it is common
	acrossAge  = 60   // days for which a pattern that was told stays known
)

// vote is one member's.
type vote struct {
	tenant uint32
	at     uint32 // seconds; 0: free
	told   bool
}

// crossing is one key.
type crossing struct {
	h     uint64
	first uint32
	last  uint32
	told  uint32 // members when the centre was last told
	since uint32 // first of the votes when the centre was first told: the key of the detection
	known bool   // one over a line that names its sender
	few   [fewVotes]vote
	more  *votes
}

type votes struct {
	exact []vote
	parts [quarters]sketch.Distinct
	part  [quarters]uint32 // number of the quarter that a part counts
	est   uint32           // the last estimate, and how many votes came after it: an estimate costs ten microseconds
	since uint32
}

const (
	crossingBytes = 40 + fewVotes*12
	votesBytes    = exactVotes*12 + quarters*(sketch.DistinctBytes+16)
)

func (x *crossing) key() uint64 { return x.h }

func (x *crossing) worth(now uint32) int64 {
	if now > x.last && now-x.last > window {
		return 0
	}
	n := int64(0)
	for _, v := range x.few {
		if v.at != 0 {
			n++
		}
	}
	if x.more != nil {
		n = 1000
	}
	return n<<32 + int64(x.last)
}

func (x *crossing) code(c *sketch.Codec) {
	c.U64(&x.h)
	c.U32(&x.first)
	c.U32(&x.last)
	c.U32(&x.told)
	c.U32(&x.since)
	c.Bool(&x.known)
	codeVote := func(v *vote) {
		c.U32(&v.tenant)
		c.U32(&v.at)
		c.Bool(&v.told)
	}
	for i := range x.few {
		codeVote(&x.few[i])
	}
	big := x.more != nil
	c.Bool(&big)
	if !big || c.Err() != nil {
		return
	}
	if c.Reading() {
		x.more = &votes{}
	}
	n := c.Len(len(x.more.exact), exactVotes)
	if c.Reading() {
		x.more.exact = make([]vote, n)
	}
	for i := range x.more.exact {
		codeVote(&x.more.exact[i])
	}
	c.U32(&x.more.est)
	c.U32(&x.more.since)
	for i := range x.more.parts {
		c.U32(&x.more.part[i])
		x.more.parts[i].Code(c)
	}
}

// list gives the votes that are known one by one and within the window.
func (x *crossing) list(now uint32) []*vote {
	out := make([]*vote, 0, exactVotes)
	all := x.few[:]
	if x.more != nil {
		all = x.more.exact
	}
	for i := range all {
		if v := &all[i]; v.at != 0 && now-min(v.at, now) < window {
			out = append(out, v)
		}
	}
	return out
}

// members is how many have it within the window, and whether that is exact.
func (x *crossing) members(now uint32) (n int, exact bool) {
	known := len(x.list(now))
	if x.more == nil || len(x.more.exact) < exactVotes {
		return known, true
	}
	var all sketch.Distinct
	q := now / (window / quarters)
	for i := range x.more.parts {
		if p := x.more.part[i]; p != 0 && q-min(p, q) < quarters {
			all.Merge(&x.more.parts[i])
		}
	}
	return max(int(all.N()), known), all.Exact()
}

// add notes a member's vote; fresh says that it had none within the window. v is nil when members are no longer known one by one.
func (e *Engine) vote(x *crossing, id event.TenantID, now uint32) (v *vote, fresh bool) {
	put := func(list []vote) (*vote, bool, bool) {
		var room *vote
		for i := range list {
			v := &list[i]
			switch {
			case v.at != 0 && v.tenant == uint32(id):
				fresh := now-min(v.at, now) >= window
				if fresh {
					v.told = false
				}
				v.at = max(v.at, now)
				return v, fresh, true
			case room == nil && (v.at == 0 || now-min(v.at, now) >= window):
				room = v
			}
		}
		if room != nil {
			*room = vote{uint32(id), now, false}
			return room, true, true
		}
		return nil, false, false
	}
	if x.more == nil {
		if v, fresh, ok := put(x.few[:]); ok {
			return v, fresh
		}
		if e.big >= e.lim.big {
			e.sweepBig(now)
		}
		if e.big >= e.lim.big {
			e.stats.Evicted++
			return nil, false
		}
		e.big++
		x.more = &votes{exact: append(make([]vote, 0, exactVotes), x.few[:]...)}
		for _, v := range x.few {
			e.part(x, v.tenant, v.at)
		}
	}
	e.part(x, uint32(id), now)
	if v, fresh, ok := put(x.more.exact); ok {
		return v, fresh
	}
	if len(x.more.exact) < exactVotes {
		x.more.exact = append(x.more.exact, vote{uint32(id), now, false})
		return &x.more.exact[len(x.more.exact)-1], true
	}
	return nil, true
}

// sweepBig counts the keys with many members anew and lets go of those that are over, at most once in ten minutes.
func (e *Engine) sweepBig(now uint32) {
	if e.swept != 0 && now-min(e.swept, now) < 600 {
		return
	}
	e.swept, e.big = now, 0
	for i := range e.crossings.slots {
		x := &e.crossings.slots[i]
		switch {
		case x.more == nil:
		case now-min(x.last, now) > window:
			*x = crossing{}
			e.crossings.used--
		default:
			e.big++
		}
	}
}

func (e *Engine) part(x *crossing, tenant, at uint32) {
	q := at / (window / quarters)
	i := q % quarters
	if x.more.part[i] != q {
		if x.more.part[i] > q {
			return
		}
		x.more.part[i] = q
		x.more.parts[i].Reset()
	}
	x.more.parts[i].Add(e.key.Hash128([16]byte{5}, uint64(tenant)))
}

// pattern is a URL's path with what differs from one attempt to the next taken out: numbers, and hexadecimal or random parts.
func pattern(path string) string {
	if i := strings.IndexAny(path, "?#;"); i >= 0 {
		path = path[:i]
	}
	if _, rest, ok := strings.Cut(path, "://"); ok {
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			path = rest[i:]
		} else {
			path = "/"
		}
	}
	if len(path) > 256 {
		path = path[:256]
	}
	parts := strings.Split(strings.ToLower(path), "/")
	for i, p := range parts {
		digits, hex := 0, 0
		for _, c := range []byte(p) {
			switch {
			case c >= '0' && c <= '9':
				digits++
				hex++
			case c >= 'a' && c <= 'f' || c == '-':
				hex++
			}
		}
		switch {
		case p == "":
		case digits == len(p):
			parts[i] = "#"
		case hex == len(p) && len(p) >= 12, digits >= 6 && 2*digits >= len(p):
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

// common paths say nothing.
func plainPath(p string) bool {
	switch p {
	case "", "/", "/robots.txt", "/favicon.ico", "/index.html", "/index.php":
		return true
	}
	return false
}

// cross counts what the observation has in common with other members' ones.
func (e *Engine) cross(t *tenant, o *Observation) {
	if o.What&Suspicious == 0 || e.opts.Where != Hub {
		return
	}
	if o.Source.IsValid() && o.Session {
		a := o.Source.Unmap()
		name := a.String()
		b := a.As16()
		if a.Is6() {
			clear(b[8:])
			if p, err := a.Prefix(64); err == nil {
				name = p.String()
			}
		}
		e.crossing(t, o, acrossSource, e.key.Hash128(b, 6)|1, name)
	}
	if o.URL != "" {
		if p := pattern(o.URL); !plainPath(p) {
			e.crossing(t, o, acrossURL, e.key.Hash("url\x00"+p)|1, p)
		}
	}
	if o.JA3 != "" {
		e.crossing(t, o, acrossJA3, e.key.Hash("ja3\x00"+o.JA3)|1, o.JA3)
	}
	// A member that has just come has all its signatures for the first time. While nobody is known yet, what is usual is learnt.
	if o.Signature != "" && (t.warm(lessonIntrusion, o.At) || e.started+e.warmSeconds > uint32(o.At/1e9)) {
		name := o.SignatureName
		if name == "" {
			name = o.Signature
		}
		e.crossing(t, o, acrossSignature, e.key.Hash("signature\x00"+o.Signature)|1, name)
	}
}

// crossingAt is how many members it takes: the option, and one in a thousand of all that are there.
func (e *Engine) crossingAt() int { return max(e.opts.AcrossAt, len(e.tenants)/1000) }

func (e *Engine) crossing(t *tenant, o *Observation, k kind, h uint64, name string) {
	now, day := uint32(o.At/1e9), dayOf(o.At)
	x := e.crossings.find(h)
	if x == nil {
		if hr := int32(o.At / hourNS); hr > t.keysHour {
			t.keysHour, t.keys = hr, 0
		}
		if t.keys >= keysAnHour {
			e.stats.Refused++
			return
		}
		t.keys++
		x = e.crossings.place(h, now, e.lim.keys)
		*x = crossing{h: h, first: now}
	}
	x.last = max(x.last, now)
	x.known = x.known || o.Proven
	v, fresh := e.vote(x, t.id, now)
	if !fresh {
		return // nothing has changed: a flood from one source must cost no more than this
	}
	n, exact := 0, false
	if v != nil {
		n, exact = x.members(now)
	} else if m := x.more; m != nil {
		if m.since++; m.est == 0 || m.since > m.est/16 {
			n, _ = x.members(now)
			m.est, m.since = uint32(n), 0
		}
		n = int(m.est)
	}
	if at := e.crossingAt(); n < at {
		if 2*n <= at+1 {
			x.told = 0 // over, though it may go on at some: what comes next is new
		}
		return
	}
	// A pattern that members have every day is told once; a source whenever it comes again.
	usual := false
	if k != acrossSource && x.told == 0 {
		usual = e.patterns.Add(h, day, acrossAge, e.lim.patterns) || e.started+e.warmSeconds > now
		if usual {
			return
		}
	}
	if x.told == 0 {
		x.since = now
	}
	if x.told == 0 || n >= 2*int(x.told) {
		x.told = uint32(n)
		e.tellCentre(x, o, k, name, n, exact, now)
	}
	if x.told == 0 {
		return
	}
	// Members: those that have it and have not been told. One that joins late is told when it comes.
	for _, w := range x.list(now) {
		if w.told {
			continue
		}
		id := event.TenantID(w.tenant)
		m := e.tenants[id]
		if m == nil {
			continue
		}
		w.told = e.tellMember(x, m, k, name, n, now, w.at, o)
	}
	if v == nil && !e.patterns.Add(e.key.Hash128([16]byte{8}, x.h^uint64(t.id)<<32^uint64(x.since)), day, acrossAge, e.lim.patterns) {
		e.tellMember(x, t, k, name, n, now, now, o)
	}
}

var whatIsShared = map[kind]string{acrossSource: "The source", acrossSignature: "The intrusion signature", acrossURL: "The URL pattern", acrossJA3: "The TLS fingerprint (JA3)"}

func (e *Engine) tellCentre(x *crossing, o *Observation, k kind, name string, n int, exact bool, now uint32) {
	s := subject{kind: "rule", value: infos[k].ID + " " + clipText(name)}
	if k == acrossSource {
		s = subject{kind: "source", value: name, source: name}
	}
	about24 := ""
	if !exact {
		about24 = "about "
	}
	proof := ""
	if !x.known {
		proof = " All of it was reported over UDP, which proves no sender."
	}
	verb := "was reported by"
	if k == acrossSource {
		verb = "attacked"
	}
	first := x.since
	for _, v := range x.list(now) {
		first = min(first, v.at)
	}
	e.emit(&e.centre, k, true, s, fmt.Sprintf("%x/%d", x.h, x.since), int64(first)*1e9, o.At, n, []eventID{o.ID},
		fmt.Sprintf("%s %s %s %s%d members within %s.%s", whatIsShared[k], clipText(name), verb, about24, n, about(int64(now-first)), proof))
}

// tellMember tells one member that others have it too, if the figure may be shown. It says whether it did.
func (e *Engine) tellMember(x *crossing, t *tenant, k kind, name string, n int, now, at uint32, o *Observation) bool {
	others := map[event.TenantID]uint64{}
	near := map[event.TenantID]uint64{}
	list := x.list(now)
	area := e.area(t.id)
	for _, w := range list {
		id := event.TenantID(w.tenant)
		// A member that came lately has no voice in what others are shown: sham members must not unmask anybody.
		if m := e.tenants[id]; m == nil || id == t.id || now-min(m.since, now) < e.warmSeconds {
			continue
		}
		others[id] = 1
		if area != "" && e.area(id) == area {
			near[id] = 1
		}
	}
	where := "of the scheme"
	figure, ok := access.Figure(t.id, near)
	if ok {
		where = "in your region"
	} else if figure, ok = access.Figure(t.id, others); !ok {
		return false
	}
	roughly := "about"
	if n > len(list) { // more than are known one by one
		roughly = "at least about"
	}
	e.emit(t, elsewhere, true, subject{kind: "rule", value: infos[k].ID + " " + clipText(name)}, fmt.Sprintf("%d/%x/%d", t.id, x.h, x.since), int64(at)*1e9, int64(at)*1e9, 1, nil,
		fmt.Sprintf("%s %s, which was seen here, was also seen at %s %d other organisations %s within a day.", whatIsShared[k], clipText(name), roughly, figure, where))
	return true
}

// spread remembers at how many members a signature was seen in the last weeks.
type spread struct {
	table[spreadEntry, *spreadEntry]
}

type spreadEntry struct {
	h       uint64
	last    uint16
	tenants [commonAt]uint32
}

func (s *spreadEntry) key() uint64 { return s.h }

func (s *spreadEntry) worth(now uint32) int64 {
	if day := now / 86400; day > uint32(s.last) && day-uint32(s.last) > filterAge {
		return 0
	}
	return int64(s.last) + 1
}

func (s *spreadEntry) code(c *sketch.Codec) {
	c.U64(&s.h)
	c.U16(&s.last)
	for i := range s.tenants {
		c.U32(&s.tenants[i])
	}
}

// note adds a member and says how many others have had it, at most commonAt.
func (s *spread) note(h uint64, id event.TenantID, day uint16) int {
	h |= 1
	p := s.find(h)
	if p == nil {
		p = s.place(h, uint32(day)*86400, spreadMost)
		*p = spreadEntry{h: h}
	}
	p.last = day
	if !slices.Contains(p.tenants[:], uint32(id)+1) {
		if i := slices.Index(p.tenants[:], 0); i >= 0 {
			p.tenants[i] = uint32(id) + 1
		}
	}
	n := 0
	for _, x := range p.tenants {
		if x != 0 && x != uint32(id)+1 {
			n++
		}
	}
	if !slices.Contains(p.tenants[:], uint32(id)+1) {
		n = commonAt
	}
	return n
}

const (
	spreadMost  = 16_384
	spreadBytes = 32
)
