package parse

import (
	"net/netip"
	"strings"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// Options says what a line cannot: where its sender stands. The zero value is usable.
type Options struct {
	// Location is the time zone of senders that write none. Default Europe/London, summer time included.
	Location *time.Location
	// Library holds the packs in use. Default: those that are part of the program.
	Library *Library
	// Now is the clock used to guess the year when an event carries no Created time. Default time.Now.
	Now func() time.Time
}

// Set is all parsers with their scratch memory. It belongs to one goroutine; make one per worker, they are cheap.
type Set struct {
	home *time.Location // of senders that write no zone
	loc  *time.Location // the same, or that of the pack at work
	now  func() time.Time
	zone zoneCache
	past zoneCache // the one before

	openings [64]opening
	stamped  civil // the time that stamp read last
	tagged   bool  // hostTag found a program's tag

	ref       int64 // receipt of the line at hand, UTC nanoseconds; 0 until asked for
	refYearOf int64 // day number for which refYear was computed
	refYear   int

	e    *event.Event
	h    header
	as   string // a more telling name of the format, set by a parser
	buf  []byte
	cols [128]string
	json jsonWalk
	cef  cefWalk

	from      Origin // of the line at hand
	origins   map[Origin]*origin
	headBytes int    // what their heads take
	turn      uint64 // counts lines of origins that have heads

	lib     *Library
	packs   *packs.Set                         // of lib, as it was when the line at hand was begun
	code    struct{ asa, netfilter, eve bool } // read in Go, not by a pack of that name
	run     run                                // the pack at work
	recipes recipes
	fuelFor *event.Event // the event for which run.fuel was filled

	utc      bool   // times without a zone are UTC: services that write JSON mean that
	weak     string // an account number, taken as the user when nothing better is there
	weakTime string // a time of the object, not of the event, taken when nothing better is there
	line     string // the line at hand, or the one that was wrapped in it
	inside   bool   // the line at hand was wrapped in another
	rethrow  bool   // tests want to see a panic
}

// New makes a Set.
func New(o Options) *Set {
	s := &Set{loc: o.Location, now: o.Now, lib: o.Library}
	if s.loc == nil {
		s.loc = defaultLocation()
	}
	if s.lib == nil {
		s.lib = builtinLibrary()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.home = s.loc
	s.recipes.credit = maxCredit
	s.run.treads.start()
	return s
}

// defaultLocation is Europe/London, or UTC where the machine has no zone table.
func defaultLocation() *time.Location {
	if l, err := time.LoadLocation("Europe/London"); err == nil {
		return l
	}
	return time.UTC
}

// str sets a string unless the field is set already or v says "nothing" in one of the ways devices do.
func (s *Set) str(k event.Key, v string) {
	if len(v) <= 4 && empty(v) {
		return
	}
	s.e.SetNew(k, v)
}

// empty says whether a device means "no value".
func empty(v string) bool {
	switch len(v) {
	case 0:
		return true
	case 1:
		return v[0] == '-' || v[0] == ' '
	case 2:
		return v == "--" || v == `""`
	case 3:
		return equalFold(v, "n/a")
	case 4:
		return equalFold(v, "null") || v == "None" || v == "(na)"
	}
	return false
}

// user sets user.name, without the words that mean nobody.
func (s *Set) user(v string) {
	if v = person(v); v != "" {
		s.str(event.UserName, v)
	}
}

func person(v string) string {
	v = trim(v)
	if empty(v) || v == "*" || equalFold(v, "unknown") || equalFold(v, "none") || v == "N/A(N/A)" || v == `""` || equalFold(v, "undefined") ||
		equalFold(v, "not available") || equalFold(v, "(none)") || strings.Trim(v, "*-") == "" {
		return ""
	}
	return v
}

// ip sets an address field from text that may carry a port; it answers whether an address was found.
func (s *Set) ip(k event.Key, v string) bool {
	if v == "" || s.e.Has(k) {
		return false
	}
	if a, n := ipv4At(v); n > 0 && n == len(v) {
		s.e.SetIPv4(k, a)
		return true
	}
	a, _, ok := ipPort(v)
	if !ok {
		return false
	}
	s.e.SetIP(k, a)
	return true
}

// endpoint sets address and port from "a:p" in any of the forms that ipPort reads.
func (s *Set) endpoint(ip, port event.Key, v string) bool {
	if v == "" || s.e.Has(ip) {
		return false
	}
	a, p, ok := ipPort(v)
	if !ok {
		return false
	}
	s.e.SetIP(ip, a)
	if p != "" {
		s.port(port, p)
	}
	return true
}

func (s *Set) addr(k event.Key, a netip.Addr) {
	if !s.e.Has(k) {
		s.e.SetIP(k, a)
	}
}

// port sets a port number; 0 is a port that is not there for firewalls (ICMP), so it is dropped.
func (s *Set) port(k event.Key, v string) {
	if n, ok := atoi(v); ok && n > 0 && n < 65536 && !s.e.Has(k) {
		s.e.SetInt(k, n)
	}
}

// int sets a whole number; anything else is ignored.
func (s *Set) int(k event.Key, v string) {
	if n, ok := atoi(v); ok && !s.e.Has(k) {
		s.e.SetInt(k, n)
	}
}

// seconds sets event.duration (nanoseconds) from whole or decimal seconds.
func (s *Set) seconds(v string) {
	if s.e.Has(event.EventDuration) {
		return
	}
	if ns, ok := secondsOf(v); ok {
		s.e.SetInt(event.EventDuration, ns)
	}
}

// secondsOf gives the nanoseconds of whole or decimal seconds.
func secondsOf(v string) (ns int64, ok bool) {
	n, l := digits(v)
	if l == 0 || l > 9 {
		return 0, false
	}
	ns = n * 1e9
	if l < len(v) {
		if v[l] != '.' {
			return 0, false
		}
		mult := int64(100_000_000)
		for i := l + 1; i < len(v) && isDigit(v[i]); i++ {
			ns += int64(v[i]-'0') * mult
			mult /= 10
		}
	}
	return ns, true
}

// lower gives v in ASCII lower case: v itself when it is so already.
func (s *Set) lower(v string) string {
	i := 0
	for ; i+8 <= len(v); i += 8 {
		// A letter between A and Z has its highest bit set by one addition and not by the other.
		if w := load(v, i); ((w&^highs)+ones*(0x80-'A'))&^((w&^highs)+ones*(0x80-'Z'-1))&^w&highs != 0 {
			break
		}
	}
	for ; i < len(v); i++ {
		if v[i]-'A' <= 25 {
			b := s.buf[:0]
			for j := 0; j < len(v); j++ {
				c := v[j]
				if c-'A' <= 25 {
					c |= 0x20
				}
				b = append(b, c)
			}
			s.buf = b
			return s.e.Copy(b)
		}
	}
	return v
}

// low sets a string in lower case.
func (s *Set) low(k event.Key, v string) {
	if empty(v) || s.e.Has(k) {
		return
	}
	s.e.SetString(k, s.lower(v))
}

// transport sets network.transport from a name or an IANA number.
func (s *Set) transport(v string) {
	if v == "" || s.e.Has(event.NetworkTransport) {
		return
	}
	if t := transportName(v); t != "" {
		s.e.SetString(event.NetworkTransport, t)
	}
}

// transportName gives the ECS name of a transport protocol, "" when v is none (a service name, for example).
func transportName(v string) string {
	switch v {
	case "TCP", "tcp":
		return "tcp"
	case "UDP", "udp":
		return "udp"
	case "ICMP", "icmp":
		return "icmp"
	case "6":
		return "tcp"
	case "17":
		return "udp"
	}
	if len(v) == 0 || len(v) > 16 {
		return ""
	}
	if isDigit(v[0]) {
		n, ok := atoi(v)
		if !ok || n > 255 {
			return ""
		}
		return protoNumber(int(n))
	}
	switch v[0] | 0x20 {
	case 't':
		if equalFold(v, "tcp") {
			return "tcp"
		}
		if equalFold(v, "tcp6") {
			return "tcp"
		}
	case 'u':
		if equalFold(v, "udp") || equalFold(v, "udp6") {
			return "udp"
		}
		if equalFold(v, "udplite") {
			return "udplite"
		}
	case 'i':
		switch {
		case equalFold(v, "icmp"):
			return "icmp"
		case equalFold(v, "icmpv6"), equalFold(v, "icmp6"), equalFold(v, "ipv6-icmp"):
			return "ipv6-icmp"
		case equalFold(v, "igmp"):
			return "igmp"
		case equalFold(v, "ipip"), equalFold(v, "ipinip"), equalFold(v, "ipencap"):
			return "ipv4"
		case equalFold(v, "ipv6"):
			return "ipv6"
		}
	case 'g':
		if equalFold(v, "gre") {
			return "gre"
		}
	case 'e':
		if equalFold(v, "esp") {
			return "esp"
		}
		if equalFold(v, "eigrp") {
			return "eigrp"
		}
		if equalFold(v, "egp") {
			return "egp"
		}
	case 'a':
		if equalFold(v, "ah") {
			return "ah"
		}
	case 's':
		if equalFold(v, "sctp") {
			return "sctp"
		}
	case 'o':
		if equalFold(v, "ospf") || equalFold(v, "ospfigp") {
			return "ospf"
		}
	case 'p':
		if equalFold(v, "pim") {
			return "pim"
		}
	case 'v':
		if equalFold(v, "vrrp") {
			return "vrrp"
		}
	case 'd':
		if equalFold(v, "dccp") {
			return "dccp"
		}
	}
	return ""
}

// protoNumber names the IANA protocol numbers that gateways log.
func protoNumber(n int) string {
	switch n {
	case 1:
		return "icmp"
	case 2:
		return "igmp"
	case 4:
		return "ipv4"
	case 6:
		return "tcp"
	case 8:
		return "egp"
	case 17:
		return "udp"
	case 33:
		return "dccp"
	case 41:
		return "ipv6"
	case 47:
		return "gre"
	case 50:
		return "esp"
	case 51:
		return "ah"
	case 58:
		return "ipv6-icmp"
	case 88:
		return "eigrp"
	case 89:
		return "ospf"
	case 103:
		return "pim"
	case 112:
		return "vrrp"
	case 115:
		return "l2tp"
	case 132:
		return "sctp"
	case 136:
		return "udplite"
	}
	return ""
}

// device sets what every event of one product carries.
func (s *Set) device(vendor, product, kind string) {
	if !s.e.Has(event.ObserverVendor) {
		s.e.SetString(event.ObserverVendor, vendor)
	}
	if product != "" && !s.e.Has(event.ObserverProduct) {
		s.e.SetString(event.ObserverProduct, product)
	}
	if kind != "" && !s.e.Has(event.ObserverType) {
		s.e.SetString(event.ObserverType, kind)
	}
}

// product is what every event of one product carries.
type product struct {
	vendor, name, kind, set string
	group                   *event.Group
}

func newProduct(vendor, name, kind, dataset string) *product {
	module, _, _ := strings.Cut(dataset, ".")
	return &product{vendor, name, kind, dataset, event.NewGroup([]event.Key{event.ObserverVendor, event.ObserverProduct, event.ObserverType, event.EventDataset, event.EventModule},
		vendor, name, kind, dataset, module)}
}

// of sets what every event of one product carries: device and dataset in one step.
func (s *Set) of(p *product) {
	if !s.e.SetGroup(p.group) {
		s.device(p.vendor, p.name, p.kind)
		s.dataset(p.set)
	}
}

// dataset sets event.dataset and event.module (the part before the dot).
func (s *Set) dataset(name string) {
	if s.e.Has(event.EventDataset) {
		return
	}
	s.e.SetString(event.EventDataset, name)
	if i := strings.IndexByte(name, '.'); i > 0 {
		s.e.SetString(event.EventModule, name[:i])
	}
}

// category adds one value of event.category; a value is listed once.
func (s *Set) category(v string) {
	if !s.e.Has(event.EventCategory) {
		s.e.SetString(event.EventCategory, v)
	} else if !s.e.HasString(event.EventCategory, v) {
		s.e.AddString(event.EventCategory, v)
	}
}

// kind adds one value of event.type.
func (s *Set) kind(v string) {
	if !s.e.Has(event.EventType) {
		s.e.SetString(event.EventType, v)
	} else if !s.e.HasString(event.EventType, v) {
		s.e.AddString(event.EventType, v)
	}
}

// outcome sets event.outcome from a device's word; words that say neither set nothing.
func (s *Set) outcome(v string) {
	if s.e.Has(event.EventOutcome) {
		return
	}
	if o := outcomeOf(v); o != "" {
		s.e.SetString(event.EventOutcome, o)
	}
}

func outcomeOf(v string) string {
	if v == "" || len(v) > 40 {
		return ""
	}
	switch v[0] | 0x20 {
	case 's':
		if hasFold(v, "succe") || hasFold(v, "succ") {
			return "success"
		}
	case 'f':
		if hasFold(v, "fail") {
			return "failure"
		}
	case 'o':
		if equalFold(v, "ok") {
			return "success"
		}
	case 'a':
		if hasFold(v, "accept") {
			return "success"
		}
	case 'e':
		if hasFold(v, "error") {
			return "failure"
		}
	case 'd':
		if hasFold(v, "denied") || equalFold(v, "done") {
			if v[1]|0x20 == 'o' {
				return "success"
			}
			return "failure"
		}
	case 'u':
		if hasFold(v, "unsucc") {
			return "failure"
		}
	case 'r':
		if hasFold(v, "reject") {
			return "failure"
		}
	case 'i':
		if hasFold(v, "invalid") {
			return "failure"
		}
	}
	return ""
}

// verdict is what a gateway did.
type verdict uint8

const (
	noVerdict verdict = iota
	allow
	deny
	detect
)

// verdictOf maps a device's word for what it did. Words that end a permitted session (close, timeout) mean different things on
// different devices and are left to their parsers.
func verdictOf(v string) verdict {
	switch v { // descriptions' tables and most devices
	case "allow", "accept", "pass":
		return allow
	case "deny", "drop", "block":
		return deny
	case "detect":
		return detect
	}
	v = trim(v)
	if v == "" || len(v) > 48 {
		return noVerdict
	}
	var a [48]byte
	b := a[:len(v)]
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c-'A' <= 25 {
			c |= 0x20
		}
		b[i] = c
	}
	switch string(b) {
	case "accept", "allow", "pass", "permit", "allowed", "accepted", "passed", "permitted", "forward", "forwarded", "passthrough", "passthru",
		"pass through", "exempt", "trust", "trusted", "bypass", "localallow", "local allow", "proxyallow", "acc", "fwd", "url permitted", "encrypt", "decrypt",
		"key install", "fasttrack", "release", "released", "delivered", "deliver":
		return allow
	case "deny", "drop", "block", "reject", "reset", "denied", "dropped", "blocked", "rejected", "discard", "discarded", "prevent", "prevented",
		"quarantine", "quarantined", "terminate", "terminated", "kill", "killed", "ban", "banned", "blacklist", "blacklisted", "sinkhole", "clean", "cleaned",
		"delete", "deleted", "refuse", "refused", "strip", "stripped", "drp", "rej", "blk", "url blocked", "intrusion blocked", "disallow", "disallowed",
		"restrict", "restricted", "shun", "shunned", "abort", "aborted", "hold", "held", "remove", "removed", "malicious":
		return deny
	case "alert", "alerted", "detect", "detected", "monitor", "monitored", "log", "logged", "log only", "notify", "notified", "notice", "warn", "warning",
		"wouldblock", "would block", "learn", "report", "reported", "audit", "intrusion detected", "inspect", "tap", "detectonly", "detect only", "continue":
		return detect
	}
	switch {
	case prefix(b, "block"), prefix(b, "drop"), prefix(b, "deny"), prefix(b, "denied"), prefix(b, "reject"), prefix(b, "reset"), prefix(b, "quarantin"),
		prefix(b, "prevent"), prefix(b, "discard"), prefix(b, "not allowed"), prefix(b, "disallow"), prefix(b, "ips drop"), prefix(b, "sinkhole"):
		return deny
	case prefix(b, "allow"), prefix(b, "accept"), prefix(b, "permit"), prefix(b, "passed"), prefix(b, "pass_"), prefix(b, "pass-"):
		return allow
	case prefix(b, "alert"), prefix(b, "detect"), prefix(b, "monitor"), prefix(b, "would"):
		return detect
	}
	return noVerdict
}

func prefix(b []byte, p string) bool { return len(b) >= len(p) && string(b[:len(p)]) == p }

// act sets event.action to the device's own word, lower-cased, and what follows from it.
func (s *Set) act(word string) {
	word = trim(word)
	if empty(word) {
		return
	}
	s.low(event.EventAction, word)
	s.decide(verdictOf(word))
}

// What a verdict means for an event that has none of the fields yet.
var verdictGroups = [...]*event.Group{
	allow:  event.NewGroup([]event.Key{event.TocsinVerdict, event.EventType, event.EventOutcome}, "allow", "allowed", "success"),
	deny:   event.NewGroup([]event.Key{event.TocsinVerdict, event.EventType, event.EventOutcome}, "deny", "denied", "failure"),
	detect: nil,
}

// decide records a verdict: event.type allowed or denied, tocsin.verdict, and the outcome where nothing else said one.
// The first verdict stands.
func (s *Set) decide(v verdict) {
	if v == noVerdict || s.e.Has(event.TocsinVerdict) {
		return
	}
	if g := verdictGroups[v]; g != nil && s.e.SetGroup(g) {
		return
	}
	switch v {
	case allow:
		s.e.SetString(event.TocsinVerdict, "allow")
		s.kind("allowed")
		if !s.e.Has(event.EventOutcome) {
			s.e.SetString(event.EventOutcome, "success")
		}
	case deny:
		s.e.SetString(event.TocsinVerdict, "deny")
		s.kind("denied")
		if !s.e.Has(event.EventOutcome) {
			s.e.SetString(event.EventOutcome, "failure")
		}
	case detect:
		s.e.SetString(event.TocsinVerdict, "detect")
	}
}

var networkGroup = event.NewGroup([]event.Key{event.EventCategory, event.EventType, event.EventKind}, "network", "connection", "event")

// network is what every parser of a packet or session line ends with.
func (s *Set) network() {
	if s.e.SetGroup(networkGroup) {
		return
	}
	s.category("network")
	s.kind("connection")
	if !s.e.Has(event.EventKind) {
		s.e.SetString(event.EventKind, "event")
	}
}

// alert marks what an intrusion detection, a virus scanner or a reputation list said.
func (s *Set) alert(category string) {
	if !s.e.Has(event.EventKind) {
		s.e.SetString(event.EventKind, "alert")
	}
	s.category(category)
}

// signIn marks a sign-in attempt to a service (vpn, ssh, rdp, web ...).
func (s *Set) signIn(service string, ok bool) {
	s.category("authentication")
	s.kind("start")
	if service != "" {
		s.str(event.TocsinService, service)
	}
	if s.e.Has(event.EventOutcome) {
		return
	}
	if ok {
		s.e.SetString(event.EventOutcome, "success")
	} else {
		s.e.SetString(event.EventOutcome, "failure")
	}
}

// urlText sets url.original and what can be cut from it: url.full when it names a scheme, url.domain, url.path.
func (s *Set) urlText(v string) {
	if empty(v) || len(v) < 2 {
		return
	}
	s.str(event.URLOriginal, v)
	rest := v
	if i := strings.Index(v, "://"); i > 0 && i < 12 {
		s.str(event.URLFull, v)
		s.str(event.URLScheme, v[:i])
		rest = v[i+3:]
	} else if v[0] == '/' {
		s.path(v)
		return
	}
	host := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host = rest[:i]
		if rest[i] == '/' {
			s.path(rest[i:])
		}
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if len(host) > 0 && host[0] == '[' {
		if j := strings.IndexByte(host, ']'); j > 0 {
			s.str(event.URLDomain, host[1:j])
		}
		return
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		s.port(event.URLPort, host[i+1:])
		host = host[:i]
	}
	if domainLike(host) {
		s.str(event.URLDomain, host)
	}
}

func (s *Set) path(v string) {
	if i := strings.IndexAny(v, "?#"); i >= 0 {
		if v[i] == '?' {
			s.str(event.URLQuery, v[i+1:])
		}
		v = v[:i]
	}
	s.str(event.URLPath, v)
}

// domainLike says whether v can be a host name or an address: letters, digits, dots, hyphens, underscores.
func domainLike(v string) bool {
	if v == "" || len(v) > 255 {
		return false
	}
	for i := 0; i < len(v); i++ {
		c := v[i]
		if !isAlpha(c) && !isDigit(c) && c != '.' && c != '-' && c != '_' && c != ':' && c < 0x80 {
			return false
		}
	}
	return true
}

// domain sets a host name in the given field.
func (s *Set) domain(k event.Key, v string) {
	if !empty(v) && domainLike(v) && v != "unknown" {
		s.str(k, strings.TrimSuffix(v, "."))
	}
}

// mac sets a hardware address as written.
func (s *Set) mac(k event.Key, v string) {
	if len(v) < 11 || len(v) > 17 || v == "00:00:00:00:00:00" {
		return
	}
	if len(v) == 17 {
		if !macBytes(load(v, 0)) || !macBytes(load(v, 8)) || !macBytes(load(v, 9)) {
			return
		}
		s.e.SetNew(k, v)
		return
	}
	for i := range len(v) {
		if c := v[i]; hexDigit[c] >= 16 && c != ':' && c != '-' && c != '.' {
			return
		}
	}
	s.str(k, v)
}

// macBytes says whether all of eight bytes may stand in a hardware address: hexadecimal digits, colons, hyphens, dots.
func macBytes(w uint64) bool {
	l := w | ones*0x20
	digits := (w + ones*(0x80-'0')) &^ (w + ones*(0x80-':'-1)) // the colon stands behind the nine
	letters := (l + ones*(0x80-'a')) &^ (l + ones*(0x80-'f'-1))
	others := (w + ones*(0x80-'-')) &^ (w + ones*(0x80-'.'-1))
	return (digits|letters|others)&highs&^w == highs
}

// setTime sets the device's time from text, unless a better one is set.
func (s *Set) setTime(v string) {
	if t, ok := s.anyTime(v); ok {
		s.e.Time = t
	}
}
