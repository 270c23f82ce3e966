package detect

import (
	"slices"
	"strings"
	"unsafe"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// route is what decides which rules apply to an event: from the lowest byte on the numbers of its dataset, its service and its first four different
// categories, sorted, in the vocabularies of origin.go, 0 for one that is not there or says nothing to rules, and in the upper two bytes what the
// dataset's origin finds beside (finer). Data cannot make new ones.
type route uint64

const (
	maxRoutes      = 4096
	maxRoutesOfOne = maxRoutes / 4 // that the events of one member may make: real ones need some hundred
	maxCategories  = 4
	finerAt        = 48
)

// part is the i-th number of a route: the dataset, the service, the categories.
func (r route) part(i int) uint8 { return uint8(r >> (8 * i)) }

// The parts of a Windows event's finer number: the channel, the number of its event among those that have a category, and for events of the
// registry what was done.
const (
	idAt, idMask     = 7, 1<<6 - 1
	kindAt           = idAt + 6
	channelMask      = 1<<idAt - 1
	createdKey       = 1
	deletedKey       = 2
	registryEventsID = "12"
)

// finerKeys are the fields that tell what an event is. They have keys only where rules ask for them.
type finerKeys struct {
	eventTypes []event.Key // of Sysmon's events of the registry
	zeek       []event.Key // by zeekKinds
}

var eventTypeNames = []string{"EventType", "event_data.EventType"}

func newFinerKeys() (f finerKeys) {
	for _, n := range eventTypeNames {
		if k, ok := event.Lookup(n); ok {
			f.eventTypes = append(f.eventTypes, k)
		}
	}
	for _, z := range zeekKinds {
		k, _ := event.Lookup(z.field) // 0, which no event has
		f.zeek = append(f.zeek, k)
	}
	return f
}

func (f *finerKeys) routeOf(ev *event.Event) route {
	d := datasetWords.number(ev.Str(event.EventDataset))
	r := route(d) | route(serviceWords.number(ev.Str(event.TocsinService)))<<8
	// Which categories there are decides, and not their order, so that events of one kind have one route.
	var list [maxCategories]uint8
	found := list[:0]
	for i := ev.Find(event.EventCategory); i >= 0 && i < ev.Len() && ev.Keys()[i] == event.EventCategory && len(found) < maxCategories; i++ {
		if c := categoryWords.number(ev.StrAt(i)); c != 0 && !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	if len(found) < maxCategories && ev.Has(event.DNSQuestionName) && !slices.Contains(found, dnsNumber) {
		found = append(found, dnsNumber)
	}
	slices.Sort(found)
	for i, c := range found {
		r |= route(c) << (16 + 8*i)
	}
	if d != 0 {
		if x := finers[d]; x != nothing {
			r |= route(f.finer(x, ev)) << finerAt
		}
	}
	return r
}

var (
	dnsNumber      = categoryWords.number(dnsCategory)
	securityNumber = channelWords.number(security)
	finers         = func() (list []finer) { // by the number of the dataset
		list = append(list, nothing)
		for _, w := range datasetWords.words {
			list = append(list, origins[w].finer)
		}
		return list
	}()
)

func (f *finerKeys) finer(x finer, ev *event.Event) uint16 {
	switch x {
	case byChannel:
		c := channelWords.folded(ev.Str(event.LogLogger))
		if c == 0 {
			if p := providerWords.folded(ev.Str(event.EventProvider)); p != 0 {
				c = channelWords.number(providers[providerWords.word(p)])
			} else if ev.Str(event.LogLogger) == "" && ev.Str(event.EventProvider) == "" {
				c = securityNumber // what comes as a sentence, mostly
			}
		}
		if c == 0 {
			return 0
		}
		id := ev.Str(event.EventCode)
		n := uint16(c) | uint16(channelIDs[c-1].number(id))<<idAt
		if id == registryEventsID {
			for _, k := range f.eventTypes {
				switch t := ev.Str(k); {
				case len(t) != 9 && len(t) != 11:
				case strings.EqualFold(t, "CreateKey"):
					n |= createdKey << kindAt
				case strings.EqualFold(t, "DeleteKey"), strings.EqualFold(t, "DeleteValue"):
					n |= deletedKey << kindAt
				}
			}
		}
		return n
	case byProgram:
		if n := programWords.folded(ev.Str(event.LogSyslogAppname)); n != 0 {
			return uint16(n)
		}
		return uint16(programWords.folded(ev.Str(event.ProcessName)))
	case byTypeOfEVE:
		return uint16(eveWords.number(ev.Str(event.EventAction)))
	case byKindOfZeek:
		for i, k := range f.zeek {
			if ev.Has(k) {
				return uint16(i + 1)
			}
		}
	}
	return 0
}

// finerSources are the log sources that the finer number of a route means.
func (r route) finerSources(x finer) []sigma.LogSource {
	n := uint16(r >> finerAt)
	if n == 0 {
		return nil
	}
	switch x {
	case byProgram:
		if n := uint8(n); int(n) <= len(programWords.words) {
			return []sigma.LogSource{service("linux", programs[programWords.word(n)])}
		}
	case byTypeOfEVE:
		if n := uint8(n); int(n) <= len(eveWords.words) {
			return []sigma.LogSource{service("zeek", eveTypes[eveWords.word(n)])}
		}
	case byKindOfZeek:
		if int(n) <= len(zeekKinds) {
			return []sigma.LogSource{service("zeek", zeekKinds[n-1].log)}
		}
	case byChannel:
		channel := channelWords.word(uint8(n & channelMask))
		id := channelIDs[n&channelMask-1].word(uint8(n >> idAt & idMask))
		kind := map[uint16]string{createdKey: "CreateKey", deletedKey: "DeleteKey"}[n>>kindAt]
		product, asked := "windows", channel
		switch channel {
		case rpcFirewall:
			return []sigma.LogSource{applications("rpc_firewall")}
		case linuxSysmon:
			product, asked = "linux", sysmon
		}
		var out []sigma.LogSource
		for _, s := range sigma.WindowsSources(asked, id, kind) {
			s.Product = product
			out = append(out, s.LogSource)
		}
		return out
	}
	return nil
}

// sources gives the readings of an event's log source: those of its data set and what is found beside, and one for each of its categories.
func (r route) sources() []sigma.Source {
	o := origins[datasetWords.word(r.part(0))]
	var base sigma.LogSource
	if len(o.sources) > 0 {
		base = o.sources[0]
	}
	service := serviceWords.word(r.part(1))
	if service != "" && base.Service == "" && base.Category == "" {
		base.Service = service // vpn, ssh, rdp, web: what the sign-in was to
	}
	list := []sigma.LogSource{base}
	for i := range maxCategories {
		for _, category := range categories[categoryWords.word(r.part(2+i))] {
			s := base
			s.Category = category
			list = append(list, s)
			if service != "" && base.Service != service {
				s.Service = service
				list = append(list, s)
			}
		}
	}
	if len(o.sources) > 1 {
		list = append(list, o.sources[1:]...)
	}
	list = append(list, r.finerSources(o.finer)...)
	// Every event can be read as one of ours, whatever made it.
	list = append(list, sigma.LogSource{Product: "tocsin"})
	var out []sigma.Source
	for i, l := range list {
		if !slices.Contains(list[:i], l) {
			out = append(out, sigma.Source{LogSource: l})
		}
	}
	return out
}

// reading is what applies to the events of a route, and how their fields are put under the names that its rules have for them.
type reading struct {
	set      *sigma.Set
	asked    []bool // by event key: rules of the set look at it
	keywords bool   // or at everything

	linked []uint16 // by event key: what else its values are, in links; 0 for most
	links  [][]link
	ranks  int // the highest of the links
	joins  []join
	fixed  []fixed
	trees  []tree
	keys   int // how many there were: trees hold those of them that lie below
}

// link puts the values of a field under a name of rules.
type link struct {
	to    sigma.Key
	rank  int    // above 0: only if nothing of a lower rank was there
	pairs []pair // only these values, replaced
	name  string // of the field below a tree, which is a value too
}

// join puts two texts together.
type join struct {
	to         sigma.Key
	first, and event.Key
}

// fixed is a value where there is none.
type fixed struct {
	to   sigma.Key
	text string
}

// tree puts the fields below a name under it, those that have no key.
type tree struct {
	to     sigma.Key
	prefix string
}

// linking is a value that waits for its rank.
type linking struct {
	link  *link
	value int
	take  bool
}

func newReading(set *sigma.Set, sources []sigma.Source, names []string) *reading {
	g := &reading{set: set, keywords: set.Keywords(), asked: make([]bool, event.TocsinTenant+1), links: [][]link{nil}, keys: event.NumKeys()}
	for _, k := range set.Keys() {
		for int(k) >= len(g.asked) {
			g.asked = append(g.asked, false)
		}
		g.asked[k] = true
		names = append(names, event.Key(k).Name())
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		to, ok := event.Lookup(name)
		if !ok {
			continue
		}
		var list []candidate
		for _, s := range sources {
			for _, c := range candidates(s.LogSource, name) {
				if !slices.ContainsFunc(list, c.same) {
					list = append(list, c)
				}
			}
		}
		for _, c := range list {
			g.link(sigma.Key(to), c)
		}
	}
	return g
}

func (c candidate) same(d candidate) bool {
	return c.field == d.field && c.with == d.with && c.tree == d.tree && c.text == d.text && slices.Equal(c.pairs, d.pairs)
}

func (g *reading) link(to sigma.Key, c candidate) {
	from, known := event.Lookup(c.field)
	switch {
	case c.tree:
		g.trees = append(g.trees, tree{to, c.field})
		if k, ok := event.Lookup(strings.TrimSuffix(c.field, ".")); ok && sigma.Key(k) != to {
			g.add(k, link{to: to})
		}
		for k := event.Key(1); int(k) < event.NumKeys(); k++ {
			if below, ok := strings.CutPrefix(k.Name(), c.field); ok {
				g.add(k, link{to: to, name: below})
			}
		}
	case c.field == "":
		g.fixed = append(g.fixed, fixed{to, c.text})
	case !known || sigma.Key(from) == to:
	case c.with != "":
		if and, ok := event.Lookup(c.with); ok {
			g.joins = append(g.joins, join{to, from, and})
		}
	default:
		g.add(from, link{to: to, rank: c.rank, pairs: c.pairs})
	}
}

func (g *reading) add(from event.Key, l link) {
	for int(from) >= len(g.linked) {
		g.linked = append(g.linked, 0)
	}
	if g.linked[from] == 0 {
		g.linked[from] = uint16(len(g.links))
		g.links = append(g.links, nil)
	}
	at := &g.links[g.linked[from]]
	*at = append(*at, l)
	g.ranks = max(g.ranks, l.rank)
}

// reading gives what applies to an event. A member whose events are of more kinds than there can be, which only somebody does who wants to hold up
// the others, has the further ones read by their data set alone: making a reading takes milliseconds, and each is kept.
func (e *Engine) reading(ev *event.Event) *reading {
	r := e.finer.routeOf(ev)
	g, ok := e.routes[r]
	if !ok && (len(e.routes) >= maxRoutes || e.routesOf[ev.Tenant] >= maxRoutesOfOne) {
		if e.coarse == nil {
			e.coarse = map[event.TenantID]uint64{}
		}
		if e.coarse[ev.Tenant]++; e.coarse[ev.Tenant] == 1 && e.opts.Logger != nil {
			e.opts.Logger.Warn("events of too many kinds; further kinds are judged by their data set alone", "tenant", ev.Tenant, "kinds", len(e.routes))
		}
		r = route(r.part(0))
		g, ok = e.routes[r]
	} else if !ok {
		e.routesOf[ev.Tenant]++
	}
	if ok && (len(g.trees) == 0 || g.keys == event.NumKeys()) {
		return g
	}
	return e.newReading(r)
}

// routesFull says whether there are, of one member or of all, as many kinds of events as there can be.
func (p *program) routesFull() bool {
	for _, n := range p.routesOf {
		if n >= maxRoutesOfOne {
			return true
		}
	}
	return len(p.routes) >= maxRoutes
}

func (p *program) newReading(r route) *reading {
	sources := r.sources()
	g := newReading(p.rules.Set(sources...), sources, slices.Clone(p.grouped))
	p.routes[r] = g
	return g
}

// fill makes the record that rules see: the fields that those of this reading look at, under their names, and everything if one of them uses
// keywords. Most events match nothing, and are done with that.
func (e *Engine) fill(ev *event.Event, g *reading) {
	r := &e.rec
	r.Reset()
	e.waiting = e.waiting[:0]
	for i, k := range ev.Keys() {
		if int(k) < len(g.asked) && g.asked[k] {
			if k != event.TocsinTenant {
				add(r, sigma.Key(k), ev.Ref(i))
			}
		} else if g.keywords {
			add(r, sigma.NoKey, ev.Ref(i))
		}
		if int(k) < len(g.linked) && g.linked[k] != 0 {
			list := g.links[g.linked[k]]
			for j := range list {
				if l := &list[j]; l.rank > 0 {
					e.waiting = append(e.waiting, linking{link: l, value: i})
				} else {
					l.put(r, ev, i)
				}
			}
		}
	}
	if g.keywords {
		for _, x := range ev.Extras() {
			r.AddString(sigma.NoKey, x.Value)
		}
		r.SetRaw(ev.Raw())
		r.SetMemory(ev.Memory())
	}
	if len(e.waiting) > 0 {
		e.fillRanks(ev, g)
	}
	if len(g.joins)+len(g.fixed)+len(g.trees) > 0 {
		e.fillMade(ev, g)
	}
	if g.asked[event.TocsinTenant] {
		addTenant(r, ev)
	}
}

// put adds the i-th value of an event under a link's name.
func (l *link) put(r *sigma.Record, ev *event.Event, i int) {
	if l.name != "" {
		r.AddString(l.to, l.name)
	}
	if l.pairs == nil {
		add(r, l.to, ev.Ref(i))
		return
	}
	for _, p := range l.pairs {
		if p.is == ev.StrAt(i) {
			r.AddString(l.to, p.becomes)
		}
	}
}

// fillRanks adds what is taken only where nothing better was there. Of one rank all count.
func (e *Engine) fillRanks(ev *event.Event, g *reading) {
	r := &e.rec
	for rank := 1; rank <= g.ranks; rank++ {
		for i := range e.waiting {
			if w := &e.waiting[i]; w.link.rank == rank {
				w.take = !r.Has(w.link.to)
			}
		}
		for i := range e.waiting {
			if w := &e.waiting[i]; w.link.rank == rank && w.take {
				w.link.put(r, ev, w.value)
			}
		}
	}
}

// fillMade adds what is no field of the event: texts put together, fields without a key below a name, and values where there are none.
func (e *Engine) fillMade(ev *event.Event, g *reading) {
	r := &e.rec
	e.made = e.made[:0]
	for _, j := range g.joins {
		a, b := ev.Str(j.first), ev.Str(j.and)
		n := len(a) + len(b)
		if a == "" || b == "" {
			continue
		}
		if cap(e.made)-len(e.made) < n { // what is full is left to the texts in it
			e.made = make([]byte, 0, max(2*cap(e.made), n, 1024))
		}
		from := len(e.made)
		e.made = append(append(e.made, a...), b...)
		r.AddString(j.to, unsafe.String(&e.made[from], len(e.made)-from))
	}
	for _, t := range g.trees {
		for _, x := range ev.Extras() {
			if below, ok := strings.CutPrefix(x.Name, t.prefix); ok {
				r.AddString(t.to, below)
				r.AddString(t.to, x.Value)
			}
		}
	}
	for _, f := range g.fixed {
		if !r.Has(f.to) {
			r.AddString(f.to, f.text)
		}
	}
}
