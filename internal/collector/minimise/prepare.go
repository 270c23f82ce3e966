package minimise

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/indicator"
)

// Sender is what the collector knows of whoever sent a line.
type Sender struct {
	Addr      netip.Addr
	Assurance string // udp, tcp, tls, mutual, local
	Changed   bool   // the sender has begun to send the lines of another product
}

// part is a field that Prepare looks at.
type part uint8

const (
	noPart part = iota
	source
	destination
	direction
	category
	transport
	verdict
	outcome
	web // of an HTTP request
	module
	dataset
	ours // only the collector, the engine and the hub may set it
	parts
)

// partOf is the part that each key of the schema is.
var partOf = func() []part {
	t := make([]part, event.NumKeys())
	for k := event.Key(1); int(k) < len(t); k++ {
		if oursAlone(k) {
			t[k] = ours
		}
	}
	for k, p := range map[event.Key]part{event.SourceIP: source, event.DestinationIP: destination, event.NetworkDirection: direction, event.EventCategory: category,
		event.NetworkTransport: transport, event.TocsinVerdict: verdict, event.EventOutcome: outcome, event.HTTPRequestMethod: web, event.HTTPResponseStatusCode: web,
		event.EventModule: module, event.EventDataset: dataset} {
		t[k] = p
	}
	return t
}()

// partAt is the part that a key is, also one that rules or packs have registered since.
func partAt(k event.Key) part {
	if int(k) < len(partOf) {
		return partOf[k]
	}
	if oursAlone(k) {
		return ours
	}
	return noPart
}

// oursAlone says whether only the collector, the engine and the hub may set a field: a sender who writes it into a line must not be believed.
func oursAlone(k event.Key) bool {
	switch k {
	case event.TocsinFormat, event.TocsinService, event.TocsinSeverity, event.TocsinVerdict: // the parser's
		return false
	case event.EventSequence: // the number of the line in the archive stands there
		return true
	}
	return strings.HasPrefix(k.Name(), "tocsin.")
}

// view is where the parts stand in an event: one more than the index of the first value, 0 when there is none. Adding fields does not
// change it.
type view [parts]int16

// look finds all parts of a row of keys.
func look(keys []event.Key) (v view) {
	for i := len(keys) - 1; i >= 0; i-- { // backwards, so that the first of several values is what remains
		v[partAt(keys[i])] = int16(i + 1)
	}
	return v
}

func (v *view) has(p part) bool { return v[p] != 0 }

// str is the part as a string, "" when there is none.
func (v *view) str(e *event.Event, p part) string {
	if v[p] == 0 {
		return ""
	}
	return e.StrAt(int(v[p]) - 1)
}

// addr is the index of a part that is an address, and whether it is the member's own; -1 when there is none.
func (m *Minimiser) addr(e *event.Event, v *view, p part) (at int, own bool) {
	i := int(v[p]) - 1
	if i < 0 {
		return -1, false
	}
	a := e.Ref(i)
	if n, ok := a.IPv4(); ok {
		return i, m.own.has4(n)
	}
	if a.Kind() != event.IP {
		return -1, false
	}
	return i, m.own.has(a.IP())
}

// Prepare adds what the collector knows to a parsed event. clock says that the device's time was not believed and was replaced.
func (m *Minimiser) Prepare(e *event.Event, s Sender) (clock bool) {
	shape := m.shapeOf(e)
	v := &shape.view
	if v.has(ours) || v.str(e, module) == "tocsin" || strings.HasPrefix(v.str(e, dataset), "tocsin.") || pretend(e.Extras()) {
		clean(e)
		shape = m.shapeOf(e)
		v = &shape.view
	}
	if ahead := e.Time - e.Created; ahead > int64(5*time.Minute) || -ahead > int64(m.o.OldestDeviceTime) {
		e.SetTime(event.TocsinDeviceTime, e.Time)
		e.Time = e.Created
		clock = true
	}
	e.SetString(event.TocsinSenderAssurance, s.Assurance)
	if s.Addr.IsValid() {
		e.SetIP(event.TocsinSenderIP, s.Addr)
	}
	if s.Changed {
		e.SetBool(event.TocsinSenderProductChanged, true)
	}
	src, srcOwn := m.addr(e, v, source)
	dst, dstOwn := m.addr(e, v, destination)
	if d := directionOf(src >= 0, dst >= 0, srcOwn, dstOwn, v.has(direction)); d != "" {
		n := e.Len()
		e.SetString(event.NetworkDirection, d)
		if e.Len() < n { // a list became one value, and what stood behind it has moved
			shape = m.shapeOf(e)
			v = &shape.view
			src, srcOwn = m.addr(e, v, source)
			dst, dstOwn = m.addr(e, v, destination)
		}
	}
	if set := m.indicators.Load(); set != nil {
		if srcOwn {
			src = -1
		}
		if dstOwn {
			dst = -1
		}
		match(e, set, src, dst, shape.named)
	}
	e.SetString(event.TocsinSourceProof, proof(e, v))
	return clock
}

// clean removes what a line must not say of itself.
func clean(e *event.Event) {
	for i := 0; i < e.Len(); {
		if k := e.Keys()[i]; partAt(k) == ours {
			e.Del(k)
		} else {
			i++
		}
	}
	if e.Str(event.EventModule) == "tocsin" {
		e.Del(event.EventModule)
	}
	if strings.HasPrefix(e.Str(event.EventDataset), "tocsin.") {
		e.Del(event.EventDataset)
	}
	for i := 0; i < len(e.Extras()); {
		if x := e.Extras()[i]; pretends(x) {
			e.DelExtra(x.Name)
		} else {
			i++
		}
	}
}

// pretends says whether an extra has a name of ours: this version does not know it, and the hub may.
func pretends(x event.Extra) bool { return strings.HasPrefix(x.Name, "tocsin.") }

func pretend(extras []event.Extra) bool {
	for i := range extras {
		if name := extras[i].Name; len(name) >= 7 && name[0] == 't' && pretends(extras[i]) {
			return true
		}
	}
	return false
}

// directionOf is network.direction as the member's ranges decide it; "" where they do not: then the device's own word stands, if it gave one
// (said).
func directionOf(haveSrc, haveDst, srcOwn, dstOwn, said bool) string {
	switch {
	case haveSrc && haveDst && srcOwn && dstOwn:
		return "internal"
	case haveSrc && haveDst && srcOwn:
		return "outbound"
	case haveSrc && !srcOwn && dstOwn:
		return "inbound"
	case said:
		return ""
	case haveSrc && !srcOwn && !haveDst:
		return "inbound" // a stranger at the device itself
	case haveSrc && !srcOwn:
		return "external"
	}
	return ""
}

// listed are the fields of names and digests that an indicator may be about.
var (
	listedNames   = [...]event.Key{event.URLDomain, event.DNSQuestionName, event.TLSClientServerName, event.DestinationDomain}
	listedDigests = [...]event.Key{event.FileHashSHA256, event.FileHashSHA1, event.FileHashMD5}
)

// listed says whether match looks at a field, addresses apart.
func listed(k event.Key) bool {
	return k == event.URLFull || slices.Contains(listedNames[:], k) || slices.Contains(listedDigests[:], k)
}

// match looks the event's foreign addresses, names and digests up in the indicator set. The first hit counts; the destination comes first,
// because an own host that talks to a listed address is graver than a listed address that knocks. src and dst say where the addresses are, -1
// where there is none or an own one; named, whether the event has a field that listed speaks of.
func match(e *event.Event, set *indicator.Set, src, dst int, named bool) {
	for _, i := range [...]int{dst, src} {
		if i < 0 {
			continue
		}
		a := e.Ref(i)
		n, is4 := a.IPv4()
		h, ok := indicator.Hit{}, false
		if is4 {
			h, ok = set.MatchIPv4(n)
		} else {
			h, ok = set.MatchIP(a.IP())
		}
		if ok {
			hit(e, h, e.CopyString(a.Text()))
			return
		}
	}
	if !named {
		return
	}
	if u := e.Str(event.URLFull); u != "" {
		if h, ok := set.MatchURL(u); ok {
			// What matched may hold a query: the address of the page stays home, its host does not.
			host := e.Str(event.URLDomain)
			hit(e, h, host)
			return
		}
	}
	for _, k := range listedNames {
		if name := e.Str(k); name != "" {
			if h, ok := set.MatchDomain(name); ok {
				hit(e, h, name)
				return
			}
		}
	}
	for _, k := range listedDigests {
		if d := e.Str(k); d != "" {
			if h, ok := set.MatchHash(d); ok {
				hit(e, h, d)
				return
			}
		}
	}
}

func hit(e *event.Event, h indicator.Hit, matched string) {
	var id [16]byte
	const digits = "0123456789abcdef"
	for i := range id {
		id[i] = digits[h.ID>>(60-4*i)&15]
	}
	e.SetString(event.TocsinIndicatorID, e.Copy(id[:]))
	e.SetString(event.TocsinIndicatorKind, h.Kind.String())
	if matched != "" {
		e.SetString(event.TocsinIndicatorMatched, matched)
	}
}

// MatchSet says whether the event touches an indicator of a set that is not the one in force, such as that of a question.
func (m *Minimiser) MatchSet(e *event.Event, set *indicator.Set) bool {
	for _, k := range [...]event.Key{event.TocsinIndicatorID, event.TocsinIndicatorKind, event.TocsinIndicatorMatched} {
		e.Del(k)
	}
	shape := m.shapeOf(e)
	src, srcOwn := m.addr(e, &shape.view, source)
	dst, dstOwn := m.addr(e, &shape.view, destination)
	if srcOwn {
		src = -1
	}
	if dstOwn {
		dst = -1
	}
	match(e, set, src, dst, shape.named)
	return e.Has(event.TocsinIndicatorID)
}

// proof says how the source address is proved: whoever only sends a SYN, a datagram or a ping may put any address into it.
func proof(e *event.Event, v *view) string {
	var authentication, request, intrusion bool
	for i := int(v[category]) - 1; i >= 0 && i < e.Len() && e.Keys()[i] == event.EventCategory; i++ {
		switch e.StrAt(i) {
		case "authentication":
			authentication = true
		case "web":
			request = true
		case "intrusion_detection":
			intrusion = true
		}
	}
	over, said := v.str(e, transport), v.str(e, verdict)
	switch {
	case authentication:
		if v.str(e, outcome) == "success" {
			return "authenticated"
		}
		if over == "udp" || said == "deny" && !v.has(outcome) {
			return "none"
		}
		return "session"
	case said == "deny" && !request && !intrusion:
		return "none"
	case over == "udp" || over == "icmp" || over == "ipv6-icmp":
		return "none"
	case request || v.has(web):
		return "session"
	case over != "tcp":
		return "none"
	case intrusion:
		return "session"
	case said == "allow":
		return "handshake"
	}
	return "none"
}
