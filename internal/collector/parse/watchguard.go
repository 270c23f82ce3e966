package parse

import (
	"strings"

	"tocsin/internal/event"
)

// watchguard reads WatchGuard Firebox. Traffic is positional behind msg_id="3000-0148": action, in and out interface, length,
// protocol, header length, TTL, source, destination, ports (absent for ICMP), and the policy in brackets at the end. Proxy lines
// leave out the lengths and go on with key="value". Dimension re-exports "name/protocol".
func (s *Set) watchguard(msg string) bool {
	i := strings.Index(msg, `msg_id="`)
	t := ""
	if i >= 0 {
		j := strings.IndexByte(msg[i+8:], '"')
		if j < 0 {
			return false
		}
		s.str(event.EventCode, msg[i+8:i+8+j])
		t = trimLeft(msg[i+8+j+1:])
	} else {
		// "firewall: Deny 0-External ..." of older versions.
		for _, w := range [...]string{"Deny ", "Allow "} {
			if strings.HasPrefix(msg, w) && strings.HasSuffix(msg, ")") && strings.Count(msg, "-") > 0 {
				t = msg
			}
		}
		if t == "" || s.h.app != "firewall" && !strings.HasSuffix(s.h.app, "-proxy") {
			return false
		}
	}
	e := s.e
	s.device("WatchGuard", "Firebox", "firewall")
	s.dataset("watchguard.firebox")
	// The UTC time in brackets: "(2026-11-12T08:41:07)".
	raw := e.Raw()
	if k := strings.Index(raw, " (20"); k >= 0 && k < 120 {
		var c civil
		if isoAt(raw[k+2:], &c) > 0 {
			if !c.zoned {
				c.zoned = true
			}
			if ns, ok := s.unix(&c); ok {
				e.Time = ns
			}
		}
	}
	act, r := cutSpace(t)
	v := verdictOf(act)
	if v == noVerdict || strings.IndexByte(act, '=') >= 0 {
		s.watchguardEvent(t)
		return true
	}
	s.low(event.EventAction, act)
	s.decide(v)
	in, r := s.wgInterface(r)
	out, r := s.wgInterface(r)
	s.str(event.ObserverIngressInterfaceName, in)
	s.str(event.ObserverEgressInterfaceName, out)
	w, r := cutSpace(r)
	if _, ok := atoi(w); ok { // length, protocol, header length, TTL
		s.int(event.NetworkBytes, w)
		var p string
		p, r = cutSpace(r)
		s.wgProto(p)
		for k := 0; k < 2; k++ {
			if x, r2 := cutSpace(r); allDigits(x) {
				r = r2
			}
		}
	} else {
		s.wgProto(w)
	}
	src, r := cutSpace(r)
	dst, r := cutSpace(r)
	s.ip(event.SourceIP, src)
	s.ip(event.DestinationIP, dst)
	p1, r1 := cutSpace(r)
	p2, _ := cutSpace(r1)
	if tr := e.Str(event.NetworkTransport); tr != "icmp" && tr != "ipv6-icmp" && allDigits(p1) && allDigits(p2) {
		s.port(event.SourcePort, p1)
		s.port(event.DestinationPort, p2)
	}
	if k := strings.LastIndex(t, "("); k > 0 && strings.HasSuffix(trim(t), ")") {
		s.str(event.RuleName, strings.TrimSuffix(trim(t)[k+1:], ")"))
	}
	s.wgPairs(r)
	s.network()
	return true
}

// wgInterface reads an interface's name, which holds blanks only when it is quoted.
func (s *Set) wgInterface(r string) (name, rest string) {
	if len(r) > 0 && r[0] == '"' {
		if j := strings.IndexByte(r[1:], '"'); j >= 0 {
			return r[1 : 1+j], trimLeft(r[j+2:])
		}
	}
	return cutSpace(r)
}

func (s *Set) wgProto(p string) {
	if i := strings.IndexByte(p, '/'); i > 0 {
		s.low(event.NetworkProtocol, p[:i])
		p = p[i+1:]
	}
	s.transport(p)
}

func (s *Set) wgPairs(r string) {
	e := s.e
	w := kv{s: r}
	url := ""
	for pairs := 0; pairs < 100; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v == "" {
			continue
		}
		switch key {
		case "src_ip_nat":
			s.ip(event.SourceNATIP, v)
		case "src_port_nat":
			s.port(event.SourceNATPort, v)
		case "dst_ip_nat":
			s.ip(event.DestinationNATIP, v)
		case "dst_port_nat":
			s.port(event.DestinationNATPort, v)
		case "src_user":
			s.user(v)
		case "dstname":
			s.domain(event.URLDomain, v)
		case "arg":
			url = v
		case "op":
			s.method(v)
		case "sent_bytes":
			s.int(event.SourceBytes, v)
		case "rcvd_bytes":
			s.int(event.DestinationBytes, v)
		case "msg":
			s.str(event.Message, v)
		case "app_name":
			s.low(event.NetworkApplication, v)
		case "cats", "app_cat_name":
			s.str(event.RuleCategory, v)
		case "sni", "cn":
			s.domain(event.TLSClientServerName, v)
		case "signature_name", "virus":
			e.Del(event.RuleName)
			s.str(event.RuleName, v)
			s.alert("intrusion_detection")
		case "signature_id":
			s.str(event.RuleID, v)
		case "sender":
			s.str(event.EmailFromAddress, v)
		case "recipients":
			s.str(event.EmailToAddress, v)
		case "query_name", "question":
			s.domain(event.DNSQuestionName, v)
		case "query_type":
			s.str(event.DNSQuestionType, v)
		case "duration", "elapsed_time":
			s.seconds(v)
		}
	}
	if url != "" && url[0] == '/' {
		s.category("web")
		s.urlText(url)
	}
}

// watchguardEvent reads sign-ins and other sentences.
func (s *Set) watchguardEvent(t string) {
	s.str(event.Message, t)
	s.wgPairs(t)
	if u, ok := between(t, "user [", "]"); ok {
		s.user(u)
	} else if u := after(t, "user "); u != "" && !notName(u) {
		s.user(u)
	}
	s.cue(t, " from ")
	switch {
	case strings.Contains(t, "was rejected"), strings.Contains(t, "failed"):
		s.str(event.EventAction, "authentication")
		s.signIn(wgService(t), false)
	case strings.Contains(t, "was accepted"), strings.Contains(t, "logged in"):
		s.str(event.EventAction, "authentication")
		s.signIn(wgService(t), true)
	case strings.Contains(t, "logged out"):
		s.str(event.EventAction, "logged out")
		s.category("session")
		s.kind("end")
	}
	s.str(event.EventKind, "event")
}

func wgService(t string) string {
	if strings.Contains(t, "VPN") {
		return "vpn"
	}
	return ""
}
