package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// netscaler reads Citrix ADC: "GUI CMD_EXECUTED : User nsroot - Remote_ip 192.0.2.1 - Command ..", "TCP CONN_TERMINATE 12 0 : Source
// a:p - Destination b:p - ...", "SSLVPN LOGIN 12 : Context user@192.0.2.1 - ... Client_ip ..".
func (s *Set) netscaler(msg string) bool {
	i := find.Index(msg, "-PPE-")
	if i < 0 {
		if i = find.Index(msg, "SSLVPN "); i < 0 {
			return false
		}
	}
	t := msg[i:]
	k := find.Index(t, " : ")
	if k < 0 {
		return false
	}
	if strings.HasPrefix(t, "-PPE-") {
		t = t[k+3:]
	}
	head := t
	if k := find.Index(t, " : "); k >= 0 {
		head, t = t[:k], t[k+3:]
	}
	feature, r := cutSpace(strings.TrimPrefix(head, "default "))
	ev, _ := cutSpace(r)
	if ev == "" || len(ev) > 60 {
		return false
	}
	s.low(event.EventAction, ev)
	s.endpoint(event.SourceIP, event.SourcePort, after(t, "Source "))
	s.endpoint(event.SourceIP, event.SourcePort, after(t, "Client_ip "))
	s.endpoint(event.SourceIP, event.SourcePort, after(t, "Remote_ip "))
	s.endpoint(event.SourceIP, event.SourcePort, after(t, "ClientIP "))
	s.endpoint(event.DestinationIP, event.DestinationPort, after(t, "Destination "))
	s.endpoint(event.SourceNATIP, event.SourceNATPort, after(t, "NatIP ")) // the address with which the ADC asks the server
	s.port(event.SourcePort, after(t, "ClientPort "))
	s.ip(event.DestinationIP, after(t, "VserverServiceIP "))
	s.port(event.DestinationPort, after(t, "VserverServicePort "))
	if v := after(t, "Context "); v != "" {
		if j := strings.LastIndexByte(v, '@'); j > 0 {
			s.user(v[:j])
			s.ip(event.SourceIP, strings.TrimSuffix(v[j+1:], "-"))
		}
	}
	s.netscalerFeature(feature, t)
	if v := after(t, "User "); v != "" && v != "-" {
		s.user(v)
	}
	s.int(event.SourceBytes, after(t, "Total_bytes_send "))
	s.int(event.DestinationBytes, after(t, "Total_bytes_recv "))
	switch {
	case feature == "APPFW":
		s.alert("intrusion_detection")
		s.str(event.RuleName, ev)
		w, _ := cutSpace(trimLeft(t))
		s.ip(event.SourceIP, w)
		if u := after(t, "URL: "); u != "" {
			s.urlText(u)
		}
		if find.Has(t, "<blocked>") {
			s.decide(deny)
		} else if find.Has(t, "<not blocked>") {
			s.decide(detect)
		}
	case feature == "SSLVPN" && (ev == "LOGIN" || ev == "LOGOUT"):
		s.signIn("vpn", true)
	case find.Has(ev, "LOGIN_FAILED"):
		s.signIn("vpn", false)
	case feature == "TCP" || feature == "UDP":
		s.transport(feature)
		s.network()
	case feature == "ACL" || feature == "ACL6":
		s.transport(after(t, "Protocol "))
		s.str(event.RuleName, aclRule(t))
		s.decide(verdictOf(after(t, "Action ")))
		s.network()
	}
	if v, ok := between(t, `Status "`, `"`); ok {
		if v == "Success" || v == "Done" {
			s.str(event.EventOutcome, "success")
		} else {
			s.outcome(strings.TrimPrefix(v, "ERROR: "))
		}
	}
	s.device("Citrix", "ADC", "")
	s.dataset("citrix.adc")
	s.str(event.EventKind, "event")
	return true
}

// netscalerFeature reads what only some of the ADC's features say, each by its own words.
func (s *Set) netscalerFeature(feature, t string) {
	switch feature {
	case "SSLVPN": // "Vserver 192.0.2.1:443", where the client came in; "Nat_ip", its address towards the inside
		s.endpoint(event.SourceIP, event.SourcePort, after(t, "Client IP "))
		s.endpoint(event.DestinationIP, event.DestinationPort, after(t, "Vserver "))
		s.ip(event.SourceNATIP, after(t, "Nat_ip "))
		if u, _, ok := strings.Cut(after(t, "username:domainname "), ":"); ok {
			s.user(u)
		}
	case "TRANSFORM":
		s.endpoint(event.SourceIP, event.SourcePort, after(t, "Client "))
	case "DNS", "URLFILT", "CI":
		s.user(after(t, "User: "))
		if u := after(t, " URL "); u != "" {
			s.urlText(u)
		}
		for _, cue := range [...]string{" Action: ", "- Action ", "Policyaction "} {
			if v := after(t, cue); v != "" {
				s.decide(verdictOf(v))
				break
			}
		}
		s.network()
	case "ALG":
		s.ip(event.SourceIP, after(t, "Source_IP: "))
		s.port(event.SourcePort, after(t, "Source_port: "))
		s.ip(event.DestinationIP, after(t, "Destination_IP: "))
		s.port(event.DestinationPort, after(t, "Destination_port: "))
		s.transport(after(t, "Transport: "))
		s.network()
	}
}

// aclRule is the name between "Hit Rule " and the next " - ".
func aclRule(t string) string {
	v, _ := between(t, "Hit Rule ", " - ")
	return v
}

// pulse reads Pulse (Ivanti) Connect Secure's standard columns: "ive | time | id | level | node | realm | source | user | ..." and its
// older bracket form "ive - [192.0.2.1] user(realm)[roles] - text".
func (s *Set) pulse(msg string) bool {
	t := msg
	if i := find.Index(t, " | "); i >= 0 && strings.Count(t, " | ") >= 8 {
		var c [12]string
		n := 0
		for n < len(c) {
			part := t
			if j := strings.IndexByte(t, '|'); j >= 0 {
				part, t = t[:j], t[j+1:]
			} else {
				t = ""
			}
			c[n] = trim(part)
			n++
			if t == "" {
				break
			}
		}
		if n < 9 || len(c[1]) < 19 || !isDigit(c[1][0]) {
			return false
		}
		s.setTime(c[1])
		s.str(event.EventCode, c[2])
		s.str(event.LogLevel, c[3])
		s.ip(event.SourceIP, c[6])
		s.user(c[7])
		s.str(event.SourceUserGroupName, c[8])
		last := msg[strings.LastIndex(msg, " | ")+3:]
		s.str(event.Message, last)
		s.signInWords(last)
		s.device("Pulse Secure", "Connect Secure", "vpn")
		s.dataset("pulse_secure.connect")
		s.str(event.TocsinService, "vpn")
		s.str(event.EventKind, "event")
		return true
	}
	i := find.Index(t, " - [")
	if i < 0 || i > 80 {
		return false
	}
	addr, ok := between(t[i:], "[", "]")
	if !ok {
		return false
	}
	a, ok := parseIP(addr)
	if !ok {
		return false
	}
	rest := t[i+4+len(addr):]
	rest = trimLeft(strings.TrimPrefix(rest, "]"))
	p := strings.IndexByte(rest, '(')
	if p <= 0 || find.Index(rest, ")[") < p {
		return false
	}
	s.addr(event.SourceIP, a)
	u := rest[:p]
	if j := strings.LastIndex(u, "::"); j >= 0 {
		u = u[j+2:]
	}
	if j := strings.LastIndexByte(u, '\\'); j >= 0 {
		u = u[j+1:]
	}
	s.user(u)
	if k := find.Index(rest, "] - "); k >= 0 {
		m := rest[k+4:]
		s.str(event.Message, m)
		s.signInWords(m)
	}
	s.device("Pulse Secure", "Connect Secure", "vpn")
	s.dataset("pulse_secure.connect")
	s.str(event.TocsinService, "vpn")
	s.str(event.EventKind, "event")
	return true
}

// vpcFlow reads AWS VPC flow logs (version 2): "2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 start end ACCEPT OK".
func (s *Set) vpcFlow(msg string) bool {
	if !isDigit(msg[0]) || !find.Has(msg[:min(len(msg), 40)], " eni-") {
		return false
	}
	var w [14]string
	n := 0
	for r := msg; n < len(w) && r != ""; n++ {
		w[n], r = cutSpace(r)
	}
	if n < 13 {
		return false
	}
	s.str(event.CloudAccountID, w[1])
	s.str(event.ObserverIngressInterfaceName, w[2])
	s.ip(event.SourceIP, w[3])
	s.ip(event.DestinationIP, w[4])
	s.port(event.SourcePort, w[5])
	s.port(event.DestinationPort, w[6])
	s.transport(w[7])
	s.int(event.SourcePackets, w[8])
	s.int(event.SourceBytes, w[9])
	if t, ok := epoch(w[11]); ok {
		s.e.Time = t
		s.e.SetTime(event.EventEnd, t)
	}
	if t, ok := epoch(w[10]); ok {
		s.e.SetTime(event.EventStart, t)
	}
	s.act(w[12])
	s.str(event.CloudProvider, "aws")
	s.device("AWS", "VPC Flow Logs", "firewall")
	s.dataset("aws.vpcflow")
	s.network()
	return true
}

// alb reads AWS application load balancers: 'https time elb client:port target:port .. .. .. status .. in out "GET url HTTP/1.1" "agent" ..'.
func (s *Set) alb(msg string) bool {
	typ, r := cutSpace(msg)
	switch typ {
	case "http", "https", "h2", "ws", "wss", "grpcs":
	default:
		return false
	}
	stamp, r := cutSpace(r)
	var c civil
	if isoAt(stamp, &c) == 0 {
		return false
	}
	_, r = cutSpace(r)
	client, r := cutSpace(r)
	if !s.endpoint(event.SourceIP, event.SourcePort, client) {
		return false
	}
	if t, ok := s.unix(&c); ok {
		s.e.Time = t
	}
	target, r := cutSpace(r)
	s.endpoint(event.DestinationIP, event.DestinationPort, target)
	for range 3 {
		_, r = cutSpace(r)
	}
	status, r := cutSpace(r)
	if len(status) == 3 {
		s.int(event.HTTPResponseStatusCode, status)
	}
	_, r = cutSpace(r)
	in, r := cutSpace(r)
	out, r := cutSpace(r)
	s.int(event.SourceBytes, in)
	s.int(event.DestinationBytes, out)
	if len(r) > 0 && r[0] == '"' {
		end := quoteEnd(r, 0)
		s.request(strings.TrimSuffix(r[1:max(1, end)], `"`))
		if r = trimLeft(r[end:]); len(r) > 0 && r[0] == '"' {
			end := quoteEnd(r, 0)
			s.str(event.UserAgentOriginal, strings.TrimSuffix(r[1:max(1, end)], `"`))
		}
	}
	s.httpOutcome()
	s.str(event.NetworkProtocol, typ)
	s.str(event.CloudProvider, "aws")
	s.device("AWS", "Elastic Load Balancing", "proxy")
	s.dataset("aws.elb")
	s.category("web")
	s.str(event.EventKind, "event")
	return true
}

// nginxError reads nginx's error log: "2026/11/12 08:50:01 [error] 298#298: *1093 text, client: 192.0.2.1, server: _, request: "GET / HTTP/1.1",
// upstream: .., host: "www.example"".
func (s *Set) nginxError(msg string) bool {
	i := find.Index(msg, ", client: ")
	if i < 0 {
		i = find.Index(msg, "client: ")
		if i < 0 || !find.Has(msg, "server: ") {
			return false
		}
	} else {
		i += 2
	}
	if !s.endpoint(event.SourceIP, event.SourcePort, after(msg[i:], "client: ")) {
		return false
	}
	if v, ok := between(msg, `request: "`, `"`); ok {
		s.request(v)
	}
	if v, ok := between(msg, `host: "`, `"`); ok {
		s.domain(event.URLDomain, hostOf(v))
	}
	if v, ok := between(msg, `login: "`, `"`); ok {
		s.user(v)
	}
	if v := after(msg, "server: "); v != "_" {
		s.endpoint(event.DestinationIP, event.DestinationPort, v)
	}
	s.setClock(msg)
	s.str(event.Message, msg)
	s.words(msg[:min(i, len(msg))])
	s.device("nginx", "nginx", "")
	s.dataset("nginx.error")
	s.category("web")
	s.kind("error")
	s.str(event.EventKind, "event")
	return true
}

// ise reads Cisco ISE and ACS: "CISE_Failed_Attempts 0000001 1 0 2026-11-12 08:50:01.123 +00:00 0042 5400 NOTICE Failed-Attempt:
// Authentication failed, ConfigVersionId=1, Device IP Address=192.0.2.2, UserName=jdoe, Calling-Station-ID=.., ...". A relay may have taken
// the name off; the ten-digit number, how many pieces the message has and which one this is then stand first.
func (s *Set) ise(msg string) bool {
	name := s.h.app
	t := msg
	if strings.HasPrefix(msg, "CISE_") || strings.HasPrefix(msg, "CSCOacs") {
		name, t = cutSpace(msg)
	}
	body, ok := iseBody(t)
	if !strings.HasPrefix(name, "CISE_") && !strings.HasPrefix(name, "CSCOacs") {
		if !ok || !find.Has(body, "=") {
			return false
		}
		name = ""
	}
	if ok {
		t = s.iseHead(body, &name)
	}
	device, devicePort := "", ""
	for rest := t; rest != ""; {
		// Keys hold blanks and hyphens, so each part between commas is cut at its first "=".
		var part string
		part, rest, _ = strings.Cut(rest, ",")
		key, v, ok := strings.Cut(part, "=")
		if key, v = trim(key), trim(v); !ok || key == "" || v == "" {
			continue
		}
		switch key {
		case "UserName", "User-Name", "User", "AdminName", "Administrator":
			s.user(strings.TrimPrefix(v, "host/"))
		case "NetworkDeviceName":
			s.str(event.ObserverName, v)
		case "Device IP Address", "NAS-IP-Address":
			if device == "" {
				device = v
			}
		case "Device Port":
			devicePort = v
		case "Framed-IP-Address", "Remote-Address", "AdminIPAddress", "Tunnel-Client-Endpoint":
			s.ip(event.SourceIP, strings.TrimPrefix(v, "(tag=0) "))
		case "Calling-Station-ID":
			if !s.ip(event.SourceIP, v) {
				s.mac(event.SourceMAC, v)
			}
		case "DestinationIPAddress":
			s.ip(event.DestinationIP, v)
		case "DestinationPort":
			s.port(event.DestinationPort, v)
		case "Protocol":
			s.low(event.NetworkProtocol, v)
		case "FailureReason":
			s.str(event.EventReason, v)
		case "SelectedAuthorizationProfiles", "AuthorizationPolicyMatchedRule":
			s.str(event.RuleName, v)
		}
	}
	// When nothing says where the person sat, the network device asked.
	if !s.e.Has(event.SourceIP) && s.ip(event.SourceIP, device) {
		s.port(event.SourcePort, devicePort)
	}
	s.low(event.EventAction, strings.TrimPrefix(name, "CISE_"))
	switch {
	case find.Has(name, "Passed_Auth"), strings.HasPrefix(name, "Passed-Auth"):
		s.signIn("", true)
	case find.Has(name, "Failed_Att"), strings.HasPrefix(name, "Failed-Att"):
		s.signIn("", false)
	case strings.HasPrefix(name, "Administrator-Login"):
		s.signInWords(s.e.Str(event.Message))
	case find.Has(name, "Administrative"):
		s.category("configuration")
	}
	if strings.HasPrefix(name, "CSCOacs") {
		s.device("Cisco", "ACS", "")
		s.dataset("cisco.acs")
	} else {
		s.device("Cisco", "ISE", "")
		s.dataset("cisco.ise")
	}
	s.str(event.EventKind, "event")
	return true
}

// iseBody gives what follows "0000248509 3 0 ".
func iseBody(t string) (string, bool) {
	w, r := cutSpace(t)
	pieces, r := cutSpace(r)
	which, r := cutSpace(r)
	return r, len(w) == 10 && w[0] == '0' && allDigits(w) && len(pieces) <= 2 && allDigits(pieces) && len(which) <= 2 && allDigits(which)
}

// iseHead reads "2026-11-12 08:50:01.264 +01:00 0005365098 5400 NOTICE Failed-Attempt: Authentication failed, " and gives what follows. The
// class stands for a name that was lost.
func (s *Set) iseHead(t string, name *string) string {
	var c civil
	n := isoAt(t, &c)
	if n == 0 { // a later piece of a message begins with its values
		return t
	}
	if at, ok := s.unix(&c); ok {
		s.e.Time = at
	}
	_, r := cutSpace(trimLeft(t[n:]))
	code, r := cutSpace(r)
	level, r := cutSpace(r)
	class, text, ok := strings.Cut(r, ": ")
	if !ok || !allDigits(code) || len(class) > 60 || strings.IndexByte(class, '=') >= 0 {
		return t
	}
	s.str(event.EventCode, code)
	s.low(event.LogLevel, level)
	if *name == "" {
		*name = class
	}
	text, rest, _ := strings.Cut(text, ",")
	s.str(event.Message, trim(text))
	return rest
}
