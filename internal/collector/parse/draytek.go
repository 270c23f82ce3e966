package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

var vigor = newProduct("DrayTek", "Vigor", "firewall", "draytek.vigor")

// DrayTek Vigor: firewall lines "[FILTER][Block][WAN->LAN/RT/VPN, uptime][@S:R=2:4, a:p->b:p][TCP][HLen=..]" with no ports for
// ICMP and "[PR 47]" for other protocols, and content filter lines [CSM_UF], [CSM_WF], [CSM_DNSF], [CSM_AE] whose destination
// is a URL followed by its port. Other facilities are plain text: user access, call, WAN and VPN.
func (s *Set) draytek(msg string) bool {
	i := find.Index(msg, "[FILTER]")
	if i < 0 {
		i = find.Index(msg, "[CSM_")
	}
	if i < 0 || i > 80 {
		return s.draytekText(msg)
	}
	e := s.e
	var tag string
	rest := msg[i:]
	part := 0
	csm := false
	for rest != "" && rest[0] == '[' {
		end := strings.IndexByte(rest, ']')
		body := ""
		// An IPv6 endpoint stands in brackets of its own.
		if strings.HasPrefix(rest, "[@S") || strings.HasPrefix(rest, "[S:R") {
			end = matching(rest)
		}
		if end < 0 {
			body, rest = rest[1:], ""
		} else {
			body, rest = rest[1:end], trimLeft(rest[end+1:])
		}
		switch {
		case part == 0:
			tag = body
			csm = strings.HasPrefix(tag, "CSM")
		case part == 1:
			s.act(body)
		case strings.HasPrefix(body, "@") || strings.HasPrefix(body, "S:R="):
			s.draytekFlow(body, csm)
		case !e.Has(event.ObserverIngressZone) && find.Has(body, "->"):
			s.draytekZones(body)
		case strings.HasPrefix(body, "PR "):
			s.transport(trim(body[3:]))
		case strings.HasPrefix(body, "HLen="):
			s.int(event.NetworkBytes, after(body, "TLen="))
		case strings.HasPrefix(body, "Category"):
			s.str(event.RuleCategory, trim(strings.TrimLeft(body[8:], ":= ")))
		default:
			if t := transportName(body); t != "" {
				s.str(event.NetworkTransport, t)
			} else if w, _ := cutSpace(body); transportName(w) != "" {
				s.transport(w)
			}
		}
		part++
	}
	if part < 2 {
		return false
	}
	s.of(vigor)
	if csm {
		s.category("web")
		s.str(event.RuleRuleset, tag)
	}
	s.draytekHost()
	s.network()
	return true
}

// draytekHost takes "Vigor2927: " for the device's name, which the envelope read as a program.
func (s *Set) draytekHost() {
	if s.h.host == "" && s.h.app != "" {
		s.h.host, s.h.app = s.h.app, ""
	}
	s.str(event.ObserverName, s.h.host)
}

// matching gives the index of the ] that closes the [ at s[0], or -1.
func matching(s string) int {
	if i := strings.IndexByte(s, ']'); i < 0 || strings.IndexByte(s[1:i], '[') < 0 {
		return i
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[':
			depth++
		case ']':
			depth--
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// draytekZones reads "WAN->LAN/RT/VPN, 12:04:51"; the time is the router's uptime and is not used.
func (s *Set) draytekZones(body string) {
	if i := strings.IndexByte(body, ','); i >= 0 {
		body = body[:i]
	}
	i := find.Index(body, "->")
	if i < 0 {
		return
	}
	from, to := trim(body[:i]), trim(body[i+2:])
	s.str(event.ObserverIngressZone, from)
	s.str(event.ObserverEgressZone, to)
	switch {
	case strings.HasPrefix(from, "WAN") && !strings.HasPrefix(to, "WAN"):
		s.str(event.NetworkDirection, "inbound")
	case strings.HasPrefix(to, "WAN"):
		s.str(event.NetworkDirection, "outbound")
	}
}

// draytekFlow reads "@S:R=2:4, 203.0.113.77:51514->198.51.100.20:3389".
func (s *Set) draytekFlow(body string, csm bool) {
	flow := body
	if i := strings.IndexByte(body, ','); i >= 0 {
		rule := body[:i]
		flow = trim(body[i+1:])
		if j := find.Index(rule, "S:R="); j >= 0 {
			s.str(event.RuleID, rule[j+4:])
		}
	}
	i := find.Index(flow, "->")
	if i < 0 {
		return
	}
	from, to := trim(flow[:i]), trim(flow[i+2:])
	s.endpoint(event.SourceIP, event.SourcePort, from)
	if s.endpoint(event.DestinationIP, event.DestinationPort, to) {
		return
	}
	if j := strings.LastIndexByte(to, ':'); csm && j > 0 && allDigits(to[j+1:]) { // http://bets.example:80/home or bets.example:53
		s.port(event.DestinationPort, to[j+1:])
		if !find.Has(to, "://") {
			to = to[:j]
		}
	}
	if s.e.Text(event.DestinationPort) == "53" {
		name := to[find.Index(to, "//")+1:]
		s.domain(event.DNSQuestionName, hostOf(strings.TrimPrefix(name, "/")))
	}
	if find.Has(to, "://") {
		s.urlText(to)
		if n, ok := s.e.Int(event.URLPort); ok && !s.e.Has(event.DestinationPort) {
			s.e.SetInt(event.DestinationPort, n)
		}
	} else {
		s.domain(event.URLDomain, to)
	}
}

// hostOf cuts a port and a path off a host name.
func hostOf(v string) string {
	if i := strings.IndexAny(v, ":/"); i >= 0 {
		return v[:i]
	}
	return v
}

// draytekText reads the plain lines of other facilities; they are recognised by the device's name.
func (s *Set) draytekText(msg string) bool {
	name := s.h.host
	if s.h.app != "" {
		name = s.h.app
	}
	if !hasFold(name, "vigor") && !hasFold(s.h.host, "draytek") && !hasFold(name, "draytek") {
		return false
	}
	s.draytekHost()
	s.of(vigor)
	s.str(event.Message, msg)
	// "Local User (MAC=00-1D-AA-11-22-33): 192.168.1.10:50122 -> 203.0.113.8:443 (TCP)Web"
	if i := find.Index(msg, "->"); i > 0 {
		from := trim(msg[:i])
		if j := strings.LastIndexByte(from, ' '); j >= 0 {
			from = from[j+1:]
		}
		to, _ := cutSpace(trimLeft(msg[i+2:]))
		if s.endpoint(event.SourceIP, event.SourcePort, from) {
			s.endpoint(event.DestinationIP, event.DestinationPort, strings.TrimRight(to, ",;"))
			if p, ok := between(msg, "(", ")"); ok && strings.HasPrefix(p, "MAC=") {
				s.mac(event.SourceMAC, p[4:])
			}
			for _, p := range [...]string{"(TCP)", "(UDP)", "(ICMP)"} {
				if find.Has(msg, p) {
					s.transport(p[1 : len(p)-1])
				}
			}
			s.network()
			return true
		}
	}
	s.words(msg)
	return true
}
