package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

var panosProduct = newProduct("Palo Alto Networks", "PAN-OS", "firewall", "panw.panos")

// panosColumns is how many columns of a line are looked at, one fewer where a relay cut the first.
const panosColumns = 54

// panos reads Palo Alto Networks PAN-OS syslog: CSV whose columns grow with the version but keep their places ("Syslog Field
// Descriptions", PAN-OS Administrator's Guide). Times are local and carry no zone. Types: TRAFFIC, THREAT, SYSTEM, CONFIG, USERID,
// GLOBALPROTECT, DECRYPTION, AUTHENTICATION, HIP-MATCH, CORRELATION and the tunnel inspection types.
func (s *Set) panos(msg string) bool {
	i := strings.IndexByte(msg, ',')
	if i < 0 || i > 30 {
		return false
	}
	c := s.cols[:panosColumns]
	n := split(c, msg)
	if n < 8 {
		return false
	}
	// Some relays cut the first column.
	o := 0
	switch {
	case panosType(c[3]):
	case panosType(c[2]):
		o = -1
	default:
		return false
	}
	e := s.e
	at := func(k int) string {
		if k += o; k >= 0 && k < n {
			return c[k]
		}
		return ""
	}
	typ, sub := at(3), at(4)
	s.of(panosProduct)
	if v := at(2); len(v) > 5 {
		s.str(event.ObserverSerialNumber, v)
	}
	if !s.panosTime(at(6)) {
		s.panosTime(at(1))
	}
	switch typ {
	case "TRAFFIC", "THREAT", "DECRYPTION", "TUNNEL", "GTP", "SCTP", "URL":
		s.ip(event.SourceIP, at(7))
		s.ip(event.DestinationIP, at(8))
		if v := at(9); v != "0.0.0.0" && v != "::" {
			s.ip(event.SourceNATIP, v)
		}
		if v := at(10); v != "0.0.0.0" && v != "::" {
			s.ip(event.DestinationNATIP, v)
		}
		s.str(event.RuleName, at(11))
		s.panosUser(at(12), at(13))
		s.low(event.NetworkApplication, at(14))
		s.str(event.ObserverIngressZone, at(16))
		s.str(event.ObserverEgressZone, at(17))
		s.str(event.ObserverIngressInterfaceName, at(18))
		s.str(event.ObserverEgressInterfaceName, at(19))
		s.str(event.EventID, at(22))
		s.port(event.SourcePort, at(24))
		s.port(event.DestinationPort, at(25))
		s.port(event.SourceNATPort, at(26))
		s.port(event.DestinationNATPort, at(27))
		s.transport(at(29))
		s.act(at(30))
		if typ == "TRAFFIC" || typ == "TUNNEL" {
			s.int(event.NetworkBytes, at(31))
			s.int(event.SourceBytes, at(32))
			s.int(event.DestinationBytes, at(33))
			s.int(event.NetworkPackets, at(34))
			if t, ok := s.anyTime(at(35)); ok {
				e.SetTime(event.EventStart, t)
			}
			s.seconds(at(36))
			s.str(event.RuleCategory, at(37))
			s.int(event.SourcePackets, at(44))
			s.int(event.DestinationPackets, at(45))
			s.str(event.EventReason, at(46))
			switch sub {
			case "end":
				s.kind("end")
			case "start":
				s.kind("start")
			}
			s.panosDevice(at(52))
		} else if typ != "DECRYPTION" {
			s.panosThreat(sub, at)
		}
		s.network()
	case "SYSTEM":
		ev, object, text := at(8), at(9), at(14)
		s.low(event.EventAction, ev)
		s.str(event.LogLevel, at(13))
		s.str(event.Message, text)
		switch {
		case sub == "auth" || strings.HasPrefix(ev, "auth-") || find.Has(ev, "login") || find.Has(ev, "-auth-"):
			if v, ok := between(text, "user '", "'"); ok {
				s.user(v)
			} else if v, ok := between(text, "User name: ", ","); ok {
				s.user(v)
			} else {
				s.user(strings.TrimRight(after(text, "ser "), "."))
			}
			s.panosServer(text)
			switch {
			case find.Has(text, "From: "):
				s.ip(event.SourceIP, strings.TrimSuffix(after(text, "From: "), "."))
			default:
				s.cue(text, " from ")
			}
			fail := find.Has(ev, "fail") || find.Has(text, "fail") || find.Has(text, "invalid") || find.Has(text, "denied")
			s.signIn("", !fail)
		case sub == "globalprotect" || strings.HasPrefix(ev, "globalprotect"):
			if v, ok := between(text, "User name: ", ","); ok {
				s.user(v)
			}
			if v, ok := between(text, "Login from: ", ","); ok {
				s.ip(event.SourceIP, v)
			}
			s.str(event.TocsinService, "vpn")
			switch {
			case find.Has(ev, "auth-succ") || find.Has(ev, "login-succ"):
				s.signIn("vpn", true)
			case find.Has(ev, "auth-fail") || find.Has(ev, "login-fail"):
				s.signIn("vpn", false)
			}
		default:
			s.str(event.RuleName, object)
			s.panosServer(text)
			if i := find.Index(text, "initiated by"); i >= 0 {
				s.ip(event.SourceIP, strings.TrimLeft(text[i+12:], ": "))
			}
			s.words(text)
		}
	case "CONFIG":
		s.low(event.EventAction, at(9))
		if v := at(7); v != "0.0.0.0" {
			s.ip(event.SourceIP, v)
		}
		s.user(at(10))
		s.outcome(at(12))
		s.str(event.ProcessCommandLine, at(13))
		s.category("configuration")
		s.kind("change")
	case "USERID":
		s.ip(event.SourceIP, at(8))
		s.panosUser(at(9), "")
		s.low(event.EventAction, sub)
		s.category("authentication")
		switch sub {
		case "login":
			s.kind("start")
			s.str(event.EventOutcome, "success")
		case "logout":
			s.kind("end")
		}
	case "GLOBALPROTECT":
		s.low(event.EventAction, at(8))
		s.panosUser(at(12), "")
		s.domain(event.HostHostname, at(14))
		if !s.ip(event.SourceIP, at(15)) || at(15) == "0.0.0.0" {
			s.ip(event.SourceIP, at(16))
		}
		if v := at(17); v != "0.0.0.0" {
			s.ip(event.SourceNATIP, v)
		}
		s.str(event.EventReason, at(25))
		s.outcome(at(28))
		s.str(event.TocsinService, "vpn")
		if ev := at(8); find.Has(ev, "auth") || find.Has(ev, "login") || find.Has(ev, "connected") {
			s.category("authentication")
			s.kind("start")
		} else {
			s.category("session")
		}
	case "AUTHENTICATION", "AUTH":
		s.ip(event.SourceIP, at(8))
		s.panosUser(at(9), at(10))
		s.str(event.RuleName, at(12))
		s.str(event.Message, at(18))
		s.low(event.EventAction, at(20))
		s.signInWords(at(20))
		s.category("authentication")
	case "HIPMATCH", "HIP-MATCH":
		s.panosUser(at(7), "")
		s.domain(event.HostHostname, at(9))
		s.ip(event.SourceIP, at(11))
		s.str(event.RuleName, at(12))
		s.str(event.EventAction, "hipmatch")
		s.category("host")
	case "CORRELATION":
		s.ip(event.SourceIP, at(7))
		s.panosUser(at(8), "")
		s.alert("intrusion_detection")
		s.str(event.RuleName, at(16))
	}
	s.str(event.EventCode, typ)
	s.str(event.EventKind, "event")
	return true
}

// panosServer takes the server that a system message names: "server address '192.0.2.1'", "connected to server 192.0.2.1:389".
func (s *Set) panosServer(text string) {
	for _, cue := range [...]string{"erver address ", "erver Address ", "to server ", "connect to address: "} {
		if i := find.Index(text, cue); i >= 0 {
			w := strings.TrimRight(wordOf(text[i+len(cue):]), ".")
			if s.endpoint(event.DestinationIP, event.DestinationPort, w) {
				return
			}
			if strings.IndexByte(w, '.') > 0 {
				s.domain(event.DestinationDomain, w)
			}
		}
	}
}

func panosType(v string) bool {
	switch v {
	case "TRAFFIC", "THREAT", "SYSTEM", "CONFIG", "USERID", "GLOBALPROTECT", "DECRYPTION", "AUTHENTICATION", "AUTH", "HIPMATCH", "HIP-MATCH", "CORRELATION", "TUNNEL", "GTP", "SCTP", "IPTAG", "URL":
		return true
	}
	return false
}

// panosTime reads "2026/11/12 08:50:01".
func (s *Set) panosTime(v string) bool {
	if len(v) < 19 {
		return false
	}
	var c civil
	if isoAt(v, &c) == 0 {
		return false
	}
	t, ok := s.unix(&c)
	if ok {
		s.e.Time = t
	}
	return ok
}

// panosUser takes "domain\name".
func (s *Set) panosUser(src, dst string) {
	for i, u := range [...]string{src, dst} {
		if u = person(u); u == "" {
			continue
		}
		k := event.SourceUserName
		if i == 1 {
			k = event.DestinationUserName
		}
		if j := strings.LastIndexByte(u, '\\'); j >= 0 {
			if i == 0 {
				s.str(event.UserDomain, u[:j])
			}
			u = u[j+1:]
		}
		s.str(k, u)
		s.user(u)
	}
}

func (s *Set) panosDevice(v string) {
	if domainLike(v) {
		s.str(event.ObserverName, v)
	}
}

func (s *Set) panosThreat(sub string, at func(int) string) {
	misc, threat, sev := at(31), at(32), at(34)
	switch {
	case equalFold(sev, "informational"):
		s.str(event.TocsinSeverity, "low")
	default:
		s.severity(sev)
	}
	s.str(event.RuleCategory, at(33))
	if threat != "" && threat != "(9999)" && sub != "url" {
		name, id := threat, ""
		if i := strings.LastIndexByte(threat, '('); i >= 0 && strings.HasSuffix(threat, ")") {
			name, id = threat[:i], threat[i+1:len(threat)-1]
		}
		s.str(event.RuleDescription, name)
		s.str(event.RuleID, id)
	}
	s.str(event.UserAgentOriginal, at(46))
	if v := at(49); strings.HasPrefix(v, "http") {
		s.str(event.HTTPRequestReferrer, v)
	}
	switch sub {
	case "url":
		s.category("web")
		s.urlText(misc)
	case "virus", "wildfire-virus", "wildfire", "ml-virus":
		s.alert("malware")
		s.str(event.FileName, baseName(misc))
	case "file", "data":
		s.category("file")
		s.str(event.FileName, baseName(misc))
	case "spyware", "vulnerability", "scan", "flood", "packet", "dns", "dns-security":
		s.alert("intrusion_detection")
		if misc != "" && find.Has(misc, "/") {
			s.urlText(misc)
		}
	default:
		s.alert("intrusion_detection")
	}
}
