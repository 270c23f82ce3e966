package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// Name servers and address servers: BIND, ISC DHCP.

// bind reads BIND's query and security messages (named; Infoblox runs it too): "client @0x7f.. 192.0.2.1#53012 (www.example): query:
// www.example IN A + (198.51.100.53)", "... query (cache) 'example.com/ANY/IN' denied", "... UDP: query: x IN A response: NXDOMAIN".
func (s *Set) bind(msg string) bool {
	if s.bindResolver(msg) {
		return true
	}
	i := find.Index(msg, "client ")
	if i < 0 || i > 120 || !find.Has(msg, "query") && !find.Has(msg, "): answer: ") && !find.Has(msg, "): rpz ") && !find.Has(msg, "update") && !find.Has(msg, "zone transfer") && !find.Has(msg, "rate limit") {
		return false
	}
	r := msg[i+7:]
	if strings.HasPrefix(r, "@0x") {
		_, r = cutSpace(r)
	}
	w, rest := cutSpace(r)
	h := strings.IndexByte(w, '#')
	if h <= 0 {
		return false
	}
	a, ok := parseIP(w[:h])
	if !ok {
		return false
	}
	s.addr(event.SourceIP, a)
	port := w[h+1:]
	if _, l := digits(port); l > 0 {
		s.port(event.SourcePort, port[:l])
	}
	name, class, typ := "", "", ""
	if k := find.Index(rest, "query: "); k >= 0 {
		name, rest = cutSpace(rest[k+7:])
		class, rest = cutSpace(rest)
		typ, rest = cutSpace(rest)
		s.str(event.EventAction, "query")
		if flags, _ := cutSpace(rest); len(flags) > 1 && (flags[0] == '+' || flags[0] == '-') && strings.IndexByte(flags, 'T') > 0 {
			s.transport("tcp")
		}
		if k := find.Index(rest, "response: "); k >= 0 {
			s.str(event.DNSResponseCode, wordOf(rest[k+10:]))
		}
		if k := strings.LastIndexByte(rest, '('); k >= 0 && strings.HasSuffix(rest, ")") {
			s.ip(event.DestinationIP, rest[k+1:len(rest)-1])
		}
	} else if k := find.Index(rest, "answer: "); k >= 0 {
		name, rest = cutSpace(rest[k+8:])
		class, rest = cutSpace(rest)
		typ, rest = cutSpace(rest)
		s.str(event.EventAction, "answer")
		if k := find.Index(rest, "-> "); k >= 0 {
			s.str(event.DNSResponseCode, wordOf(rest[k+3:]))
		}
		if v, ok := between(rest, "(", ")"); ok {
			s.ip(event.DestinationIP, v)
		}
	} else if k := find.Index(rest, " rewrite "); k >= 0 && find.Has(rest, "rpz ") {
		s.str(event.EventAction, "rewrite")
		name, _ = cutSpace(rest[k+9:])
		name, _, _ = strings.Cut(name, "/")
	} else if v, ok := between(rest, "'", "'"); ok {
		name = v
		if k := strings.IndexByte(v, '/'); k > 0 {
			name = v[:k]
			typ, class = v[k+1:], ""
			if k := strings.IndexByte(typ, '/'); k > 0 {
				typ, class = typ[:k], typ[k+1:]
			}
		}
	} else if v, ok := between(rest, "(", ")"); ok {
		name = v
	}
	s.domain(event.DNSQuestionName, name)
	if len(class) < 8 {
		s.str(event.DNSQuestionClass, class)
	}
	if len(typ) < 12 {
		s.str(event.DNSQuestionType, typ)
	}
	if find.Has(rest, " denied") || strings.HasSuffix(rest, "denied") {
		s.e.Del(event.EventAction)
		s.action("denied", deny)
	}
	if find.Has(msg, ": UDP:") {
		s.transport("udp")
	}
	s.str(event.NetworkProtocol, "dns")
	s.device("ISC", "BIND", "")
	s.dataset("isc.bind")
	s.category("network")
	s.kind("protocol")
	s.setClock(msg)
	s.str(event.EventKind, "event")
	return true
}

// bindResolver reads what BIND says of names that it looks up itself: "timed out resolving 'example.org/A/IN': 192.0.2.1#53", "validating
// example.org/A: no valid signature found".
func (s *Set) bindResolver(msg string) bool {
	name, rest := "", ""
	if i := find.Index(msg, " resolving '"); i > 0 && i < 80 {
		name, rest, _ = strings.Cut(msg[i+12:], "'")
		s.str(event.EventAction, strings.TrimPrefix(trim(msg[:i]), "error "))
	} else if i := find.Index(msg, "validating "); i >= 0 && i < 40 && find.Has(msg, ": ") {
		name, rest, _ = strings.Cut(msg[i+11:], ":")
		s.str(event.EventAction, "validating")
		s.str(event.EventReason, trim(rest))
	} else {
		return false
	}
	name, typ, ok := strings.Cut(name, "/")
	if !ok && rest == "" || strings.IndexByte(name, ' ') >= 0 || strings.IndexByte(name, '.') < 0 {
		return false
	}
	s.domain(event.DNSQuestionName, name)
	typ, _, _ = strings.Cut(typ, "/")
	if len(typ) < 12 {
		s.str(event.DNSQuestionType, typ)
	}
	s.str(event.NetworkProtocol, "dns")
	s.device("ISC", "BIND", "")
	s.dataset("isc.bind")
	s.category("network")
	s.kind("protocol")
	s.str(event.EventKind, "event")
	return true
}

// setClock takes a time that stands at the start of the message when the syslog header had none.
func (s *Set) setClock(msg string) {
	if !s.h.has {
		s.setTime(msg)
	}
}

// dhcp reads ISC dhcpd and dnsmasq: "DHCPACK on 192.0.2.31 to 02:00:5e:10:00:07 (laptop) via eth0".
func (s *Set) dhcp(msg string) bool {
	if !strings.HasPrefix(msg, "DHCP") {
		return false
	}
	w, r := cutSpace(msg)
	if i := strings.IndexByte(w, '('); i > 0 {
		w = w[:i]
	}
	switch w {
	case "DHCPACK", "DHCPREQUEST", "DHCPDISCOVER", "DHCPOFFER", "DHCPNAK", "DHCPRELEASE", "DHCPDECLINE", "DHCPINFORM", "DHCPEXPIRE":
	default:
		return false
	}
	s.low(event.EventAction, w)
	for r != "" {
		w, r = cutSpace(r)
		w = strings.Trim(w, "(),:")
		if len(w) == 17 && w[2] == ':' {
			s.mac(event.SourceMAC, w)
		} else if w == "via" { // an interface, or the relay that passed it on
			w, r = cutSpace(r)
			w = strings.TrimSuffix(w, ":")
			if a, isIP := parseIP(w); isIP {
				s.addr(event.DestinationIP, a)
			} else {
				s.str(event.ObserverIngressInterfaceName, w)
			}
		} else {
			s.ip(event.SourceIP, w)
		}
	}
	if v, ok := between(msg, "(", ")"); ok && domainLike(v) && v != "eth0" && !find.Has(v, ":") {
		if a, isIP := parseIP(v); isIP { // "DHCPREQUEST for 192.0.2.56 (192.0.2.1)": the server that is asked
			s.addr(event.DestinationIP, a)
		} else {
			s.domain(event.SourceDomain, v)
		}
	}
	s.device("ISC", "DHCP", "")
	s.dataset("isc.dhcp")
	s.category("network")
	s.kind("info")
	s.str(event.NetworkProtocol, "dhcp")
	s.transport("udp")
	s.str(event.EventKind, "event")
	return true
}
