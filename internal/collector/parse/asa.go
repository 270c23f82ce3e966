package parse

import (
	"math/bits"
	"net/netip"
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

var (
	ciscoASA  = newProduct("Cisco", "ASA", "firewall", "cisco.asa")
	ciscoPIX  = newProduct("Cisco", "PIX", "firewall", "cisco.asa")
	ciscoFWSM = newProduct("Cisco", "FWSM", "firewall", "cisco.asa")
	ciscoFTD  = newProduct("Cisco", "FTD", "firewall", "cisco.ftd")
)

// What the commonest messages mean. All of them end with Set.network, whose "connection" is in them already.
var (
	asaBuiltGroup    = newAction([]string{"start", "allowed", "connection"}, "built", "allow", "success")
	asaTeardownGroup = newAction([]string{"end", "allowed", "connection"}, "teardown", "allow", "success")
	asaDenyGroup     = event.NewGroup([]event.Key{event.EventAction, event.TocsinVerdict, event.EventType, event.EventType, event.EventOutcome},
		"deny", "deny", "denied", "connection", "failure")
)

func newAction(types []string, action, verdict, outcome string) *event.Group {
	return event.NewGroup([]event.Key{event.EventAction, event.EventType, event.EventType, event.EventType, event.TocsinVerdict, event.EventOutcome},
		action, types[0], types[1], types[2], verdict, outcome)
}

// asaDeny is action("deny", deny) before what ends with network.
func (s *Set) asaDeny() {
	if !s.e.SetGroup(asaDenyGroup) {
		s.action("deny", deny)
	}
}

// Cisco ASA, PIX, FWSM and FTD: "%ASA-6-302013: text". The message number decides how the text is read; forms are those of
// "Cisco Secure Firewall ASA Series Syslog Messages". FTD's 430001 to 430005 are "Key: value, Key: value" (ftd.go). IOS, IOS-XE
// and NX-OS share the "%FACILITY-SEVERITY-MNEMONIC:" dress and are read in ios.go.
func (s *Set) asa(msg string) bool {
	i := ciscoMark(msg)
	if i < 0 {
		return false
	}
	m := msg[i+1:]
	product := ciscoASA
	switch {
	case strings.HasPrefix(m, "ASA-"):
		m = m[4:]
	case strings.HasPrefix(m, "FTD-"):
		product, m = ciscoFTD, m[4:]
	case strings.HasPrefix(m, "PIX-"):
		product, m = ciscoPIX, m[4:]
	case strings.HasPrefix(m, "FWSM-"):
		product, m = ciscoFWSM, m[5:]
	case strings.HasPrefix(m, "NGIPS-"):
		product, m = ciscoFTD, m[6:]
	default:
		return s.ios(msg[i+1:])
	}
	// "%ASA-session-6-302013" names a class before the level.
	for len(m) > 0 && !isDigit(m[0]) {
		j := strings.IndexByte(m, '-')
		if j < 0 || j > 20 {
			return false
		}
		m = m[j+1:]
	}
	if len(m) < 8 || m[1] != '-' {
		return false
	}
	level := int64(m[0] - '0')
	code := m[2:]
	_, l := digits(code)
	if l < 5 || l > 7 {
		return false
	}
	text := trimLeft(strings.TrimPrefix(trimLeft(code[l:]), ":"))
	code = code[:l]
	e := s.e
	e.SetString(event.EventCode, code)
	e.SetInt(event.EventSeverity, level)
	s.of(product)
	if s.h.app != "" && s.h.host == "" { // "asa1: %ASA-": the tag is the device
		s.h.host, s.h.app = s.h.app, ""
	}
	s.asaText(code, text)
	if !e.Has(event.SourceIP) || !e.Has(event.UserName) && !e.Has(event.DestinationIP) {
		s.asaLoose(text)
	}
	if !e.Has(event.EventKind) {
		e.SetString(event.EventKind, "event")
	}
	return true
}

// ciscoMark finds the % of "%FACILITY-n-MNEMONIC", or -1.
func ciscoMark(msg string) int {
	at := 0
	for {
		k := strings.IndexByte(msg[at:], '%')
		if k < 0 || at+k > 200 {
			return -1
		}
		i := at + k
		j := i + 1
		for j < len(msg) && j < i+60 && (msg[j]-'A' <= 25 || msg[j] == '_' || isDigit(msg[j]) || (msg[j]|0x20 >= 'a' && msg[j]|0x20 <= 'z')) {
			j++
		}
		if j > i+2 && j < len(msg) && msg[j] == '-' {
			return i
		}
		at = i + 1
	}
}

// endpoint is "interface:address/port (nat/port)(user)" as ASA writes it.
type asaEnd struct {
	ifc  string
	addr netip.Addr
	name string // a host name instead of an address
	port string
	nat  netip.Addr
	np   string
	user string
}

// asaEndpoint reads one endpoint at the start of t and returns what follows.
func asaEndpoint(t string) (p asaEnd, rest string) {
	t = trimLeft(t)
	t = strings.TrimPrefix(t, "NP Identity ") // the one interface whose name holds blanks: "NP Identity Ifc:192.0.2.1/161"
	i := 0
	for i+8 <= len(t) {
		x := load(t, i)
		if f := zeroBytes(x^' '*ones) | zeroBytes(x^'('*ones) | zeroBytes(x^','*ones); f != 0 {
			i += bits.TrailingZeros64(f) >> 3
			break
		}
		i += 8
	}
	for i < len(t) && t[i] != ' ' && t[i] != '(' && t[i] != ',' {
		i++
	}
	w := t[:i]
	rest = t[i:]
	if w == "" && len(rest) > 0 && rest[0] == '(' { // "from (10.0.0.1) to"
		if j := strings.IndexByte(rest, ')'); j > 0 {
			w, rest = rest[1:j], rest[j+1:]
		}
	}
	if n := len(w); n > 0 && (w[n-1] == '.' || w[n-1] == ',') {
		w = strings.TrimRight(w, ".,")
	}
	if !strings.HasSuffix(w, "::") { // of the sentence: "to 192.0.2.1: no matching session"
		w = strings.TrimSuffix(w, ":")
	}
	p.read(w)
	for len(rest) > 1 && (rest[0] == '(' || (rest[0] == ' ' && rest[1] == '(')) {
		r := rest
		if r[0] == ' ' {
			r = r[1:]
		}
		j := strings.IndexByte(r, ')')
		if j < 0 {
			break
		}
		in := r[1:j]
		if a, q, ok := ipPort(in); ok {
			if !p.nat.IsValid() {
				p.nat, p.np = a, q
			}
		} else if allDigits(in) && p.port == "" {
			p.port = in
		} else if strings.HasPrefix(in, "type ") || strings.HasPrefix(in, "no ") {
			break
		} else if p.user == "" {
			p.user = in
		}
		rest = r[j+1:]
	}
	return p, trimLeft(rest)
}

// read takes "ifc:addr/port", "addr/port", "ifc/addr", "addr".
func (p *asaEnd) read(w string) {
	if a, n := ipv4Prefix(w); n > 0 && (n == len(w) || w[n] == '/') { // most lines
		p.addr = a
		if n < len(w) {
			p.port = w[n+1:]
		}
		return
	}
	i := 0
	for i < len(w) && w[i] != ':' && w[i] != '/' {
		i++
	}
	if i > 0 && i < len(w) {
		if w[i] == ':' && isHex(w[0]) { // v6addr/port, before an address's first group is taken for an interface
			host, port := w, ""
			if j := strings.LastIndexByte(w, '/'); j > 0 {
				host, port = w[:j], w[j+1:]
			}
			if a, ok := parseIP(host); ok {
				p.addr, p.port = a, port
				return
			}
		}
		tail := w[i+1:]
		if a, n := ipv4Prefix(tail); n > 0 && (n == len(tail) || tail[n] == '/') {
			p.ifc, p.addr = w[:i], a
			if n < len(tail) {
				p.port = tail[n+1:]
			}
			return
		}
		if a, ok := parseIP(w); ok {
			p.addr = a
			return
		}
		slash := strings.LastIndexByte(tail, '/')
		host, port := tail, ""
		if slash >= 0 {
			host, port = tail[:slash], tail[slash+1:]
		}
		if a, ok := parseIP(host); ok {
			p.ifc, p.addr, p.port = w[:i], a, port
			return
		}
		if w[i] == ':' && domainLike(host) && host != "" {
			p.ifc, p.name, p.port = w[:i], host, port
			return
		}
		if j := strings.LastIndexByte(w, '/'); j > 0 {
			if a, ok := parseIP(w[:j]); ok { // v6addr/port
				p.addr, p.port = a, w[j+1:]
				return
			}
			switch {
			case w[i] != '/':
			case allDigits(w[j+1:]):
				p.name, p.port = w[:j], w[j+1:]
			case i == j && domainLike(w[j+1:]): // interface/name(port), where names are shown for addresses
				p.ifc, p.name = w[:i], w[j+1:]
			}
		}
		return
	}
	if strings.IndexByte(w, '.') > 0 && domainLike(w) {
		p.name = w
	}
}

func (s *Set) asaSource(p *asaEnd) {
	if p.addr.IsValid() {
		s.addr(event.SourceIP, p.addr)
	} else {
		s.domain(event.SourceDomain, p.name)
	}
	s.port(event.SourcePort, p.port)
	s.str(event.ObserverIngressInterfaceName, p.ifc)
	if p.nat.IsValid() && p.nat != p.addr {
		s.addr(event.SourceNATIP, p.nat)
	}
	if p.np != p.port {
		s.port(event.SourceNATPort, p.np)
	}
	if p.user != "" {
		s.asaUser(p.user)
	}
}

func (s *Set) asaDestination(p *asaEnd) {
	if p.addr.IsValid() {
		s.addr(event.DestinationIP, p.addr)
	} else {
		s.domain(event.DestinationDomain, p.name)
	}
	if allDigits(p.port) {
		s.port(event.DestinationPort, p.port)
	} else if p.port != "" {
		s.low(event.NetworkProtocol, p.port)
	}
	s.str(event.ObserverEgressInterfaceName, p.ifc)
	if p.nat.IsValid() && p.nat != p.addr {
		s.addr(event.DestinationNATIP, p.nat)
	}
	if p.np != p.port {
		s.port(event.DestinationNATPort, p.np)
	}
	if p.user != "" && !find.Has(p.user, " ") {
		s.asaUser(p.user)
	}
}

// asaUser takes "LOCAL\jane", "DOMAIN\jane", "jane".
func (s *Set) asaUser(u string) {
	u = trim(u)
	if i := strings.LastIndexByte(u, ','); i >= 0 {
		u = trim(u[:i])
	}
	if i := strings.IndexByte(u, '\\'); i >= 0 {
		if d := u[:i]; d != "LOCAL" {
			s.str(event.UserDomain, d)
		}
		u = u[i+1:]
	}
	s.user(u)
}

// pair reads "A to B" or "A dst B" or "A -> B" with the given words and sets source and destination.
func (s *Set) asaPair(t, a, b string) bool {
	i := find.Index(t, a)
	if i < 0 {
		return false
	}
	src, rest := asaEndpoint(t[i+len(a):])
	j := find.Index(rest, b)
	if j < 0 {
		s.asaSource(&src)
		return src.addr.IsValid() || src.name != ""
	}
	dst, _ := asaEndpoint(rest[j+len(b):])
	s.asaSource(&src)
	s.asaDestination(&dst)
	return true
}

// asaLoose takes what the families of messages have in common, from those that asaText does not read: "flow A to B", "server = A",
// "IP = A", "client interface:A/port", "user = x".
func (s *Set) asaLoose(t string) {
	e := s.e
	if !e.Has(event.SourceIP) && !e.Has(event.DestinationIP) && find.Has(t, " flow ") {
		s.asaPair(t, " flow ", "to ")
	}
	if i := find.Index(t, "server = "); i >= 0 {
		s.ip(event.DestinationIP, wordOf(t[i+9:]))
	}
	if !e.Has(event.SourceIP) {
		for _, cue := range [...]string{"user IP = ", "Remote:", "Peer IP = ", " IP = ", "IP = ", " IP <", "IP <", " IP ", "Assigned IP=", "client ", "peer ", "onfiguration: ", "pool address ", " from "} {
			i := find.Index(t, cue)
			if i < 0 {
				continue
			}
			w := trimLeft(t[i+len(cue):])
			if j := strings.IndexAny(w, " ,>"); j >= 0 {
				w = w[:j]
			}
			var p asaEnd
			p.read(strings.TrimRight(w, ".:"))
			if !p.addr.IsValid() {
				if a, port, ok := ipPort(w); ok {
					p.addr, p.port = a, port
				}
			}
			if p.addr.IsValid() {
				s.addr(event.SourceIP, p.addr)
				s.port(event.SourcePort, p.port)
				break
			}
		}
	}
	if !e.Has(event.UserName) {
		for _, cue := range [...]string{"Username = ", "Username:", "User = ", "user = ", "User <", "user <", "User=", "client user ", "Username <", "(user= ", "Uname: ", " for user ", "User "} {
			i := find.Index(t, cue)
			if i < 0 {
				continue
			}
			w := t[i+len(cue):]
			if j := strings.IndexAny(w, ",>:) "); j >= 0 {
				w = w[:j]
			}
			if w = strings.TrimRight(w, "."); w != "" && !notName(w) {
				s.asaUser(w)
				break
			}
		}
	}
}
