package parse

import (
	"net/netip"
	"strings"

	"tocsin/internal/event"
)

// Cisco ASA, PIX, FWSM and FTD: "%ASA-6-302013: text". The message number decides how the text is read; forms are those of
// "Cisco Secure Firewall ASA Series Syslog Messages". FTD's 430001 to 430005 are "Key: value, Key: value" (ftd.go). IOS, IOS-XE
// and NX-OS share the "%FACILITY-SEVERITY-MNEMONIC:" dress and are read in ios.go.
func (s *Set) asa(msg string) bool {
	i := ciscoMark(msg)
	if i < 0 {
		return false
	}
	m := msg[i+1:]
	var product string
	switch {
	case strings.HasPrefix(m, "ASA-"):
		product, m = "ASA", m[4:]
	case strings.HasPrefix(m, "FTD-"):
		product, m = "FTD", m[4:]
	case strings.HasPrefix(m, "PIX-"):
		product, m = "PIX", m[4:]
	case strings.HasPrefix(m, "FWSM-"):
		product, m = "FWSM", m[5:]
	case strings.HasPrefix(m, "NGIPS-"):
		product, m = "FTD", m[6:]
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
	s.device("Cisco", product, "firewall")
	if product == "FTD" {
		s.dataset("cisco.ftd")
	} else {
		s.dataset("cisco.asa")
	}
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
	i := 0
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
	w = strings.TrimSuffix(w, ".")
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
			if w[i] == '/' {
				p.name, p.port = w[:j], w[j+1:]
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
		s.port(event.DestinationPort, servicePort(p.port))
	}
	s.str(event.ObserverEgressInterfaceName, p.ifc)
	if p.nat.IsValid() && p.nat != p.addr {
		s.addr(event.DestinationNATIP, p.nat)
	}
	if p.np != p.port {
		s.port(event.DestinationNATPort, p.np)
	}
	if p.user != "" && !strings.Contains(p.user, " ") {
		s.asaUser(p.user)
	}
}

// servicePort turns the few service names that ASA writes for a port into its number.
func servicePort(v string) string {
	switch v {
	case "ssh":
		return "22"
	case "telnet":
		return "23"
	case "https":
		return "443"
	case "http":
		return "80"
	case "snmp":
		return "161"
	case "domain":
		return "53"
	}
	return ""
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
	i := strings.Index(t, a)
	if i < 0 {
		return false
	}
	src, rest := asaEndpoint(t[i+len(a):])
	j := strings.Index(rest, b)
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
	if !e.Has(event.SourceIP) && !e.Has(event.DestinationIP) && strings.Contains(t, " flow ") {
		s.asaPair(t, " flow ", "to ")
	}
	if i := strings.Index(t, "server = "); i >= 0 {
		s.ip(event.DestinationIP, wordOf(t[i+9:]))
	}
	if !e.Has(event.SourceIP) {
		for _, cue := range [...]string{"user IP = ", "Remote:", "Peer IP = ", " IP = ", "IP = ", " IP <", "IP <", " IP ", "Assigned IP=", "client ", "peer ", "onfiguration: ", "pool address ", " from "} {
			i := strings.Index(t, cue)
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
		for _, cue := range [...]string{"Username = ", "Username:", "User = ", "user = ", "User <", "user <", "User=", "client user ", "Username <"} {
			i := strings.Index(t, cue)
			if i < 0 {
				continue
			}
			w := t[i+len(cue):]
			if j := strings.IndexAny(w, ",>: "); j >= 0 {
				w = w[:j]
			}
			if w = strings.TrimRight(w, "."); w != "" && !notName(w) {
				s.asaUser(w)
				break
			}
		}
	}
}

func (s *Set) asaText(code, t string) {
	e := s.e
	n, _ := atoi(code)
	switch n {
	case 302013, 302015, 302017, 302303:
		s.asaBuilt(t)
	case 302014, 302016, 302018, 302304, 302023, 302025, 302027:
		s.asaTeardown(t)
	case 302020, 302021:
		s.asaICMP(t)
	case 106023, 106010, 106014:
		s.action("deny", deny)
		w := strings.TrimPrefix(strings.TrimPrefix(t, "Deny "), "inbound ")
		w = strings.TrimPrefix(w, "protocol ")
		p, _ := cutSpace(w)
		s.transport(p)
		s.asaPair(t, " src ", "dst ")
		if acl, ok := between(t, `access-group "`, `"`); ok {
			s.str(event.RuleName, acl)
		}
		s.network()
	case 106100, 106102, 106103:
		s.asaACL(t)
	case 106001, 106006, 106007, 106015, 106016, 106017, 106020, 106021, 106022, 710003, 313001, 313004, 313008:
		s.action("deny", deny)
		for w, r := cutSpace(t); w != ""; w, r = cutSpace(r) {
			if tn := transportName(w); tn != "" && !isDigit(w[0]) {
				s.str(event.NetworkTransport, tn)
				break
			}
		}
		if !s.asaPair(t, " from laddr ", " to ") {
			s.asaPair(t, " from ", "to ")
		}
		s.str(event.ObserverIngressInterfaceName, after(t, "on interface "))
		s.network()
	case 106018:
		s.action("deny", deny)
		s.transport("icmp")
		s.asaPair(t, " src ", "dest ")
		s.str(event.RuleName, after(t, "list "))
		s.network()
	case 710001, 710002, 710004, 710005, 710006:
		w, _ := cutSpace(t)
		s.transport(w)
		switch n {
		case 710002:
			s.action("permitted", allow)
		case 710005:
			s.action("discarded", deny)
		default:
			s.str(event.EventAction, "requested")
		}
		s.asaPair(t, " from ", "to ")
		s.network()
	case 305011, 305012, 305009, 305010:
		if strings.HasPrefix(t, "Built") {
			s.str(event.EventAction, "built")
			s.kind("start")
		} else {
			s.str(event.EventAction, "teardown")
			s.kind("end")
		}
		if w, ok := between(t, " ", " translation"); ok {
			_, p := cutSpace(w)
			s.transport(p)
		}
		if i := strings.Index(t, " from "); i >= 0 {
			src, rest := asaEndpoint(t[i+6:])
			s.asaSource(&src)
			if j := strings.Index(rest, "to "); j >= 0 {
				dst, _ := asaEndpoint(rest[j+3:])
				if dst.addr.IsValid() {
					s.addr(event.SourceNATIP, dst.addr)
					s.port(event.SourceNATPort, dst.port)
				}
				s.str(event.ObserverEgressInterfaceName, dst.ifc)
			}
		}
		s.asaDuration(t)
		s.network()
	case 304001:
		// "[user@]10.1.1.1 Accessed URL 203.0.113.5:http://..."
		s.str(event.EventAction, "accessed url")
		s.decide(allow)
		w, rest := cutSpace(t)
		if i := strings.LastIndexByte(w, '@'); i >= 0 {
			s.asaUser(w[:i])
			w = w[i+1:]
		}
		src, _ := asaEndpoint(w)
		s.asaSource(&src)
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, "Accessed "), "JAVA ")
		rest = strings.TrimPrefix(rest, "URL ")
		if a, l := ipv4Prefix(rest); l > 0 {
			s.addr(event.DestinationIP, a)
			rest = rest[l:]
		}
		s.urlText(strings.TrimLeft(rest, ": "))
		s.category("web")
		s.network()
	case 304002:
		s.action("denied", deny)
		if u, ok := between(t, "URL ", " SRC "); ok {
			s.urlText(u)
		}
		s.asaPair(t, "SRC ", "DEST ")
		s.category("web")
		s.network()
	case 430001, 430002, 430003, 430004, 430005:
		s.ftd(n, t)
	case 605004, 605005:
		s.asaPair(t, " from ", "to ")
		if u, ok := between(t, `user "`, `"`); ok {
			s.asaUser(u)
		} else {
			s.asaUser(after(t, "for user "))
		}
		s.str(event.EventAction, "login")
		svc := e.Str(event.NetworkProtocol)
		if svc == "https" || svc == "http" {
			svc = "web"
		}
		s.signIn(svc, n == 605005)
	case 611101, 611102, 611103:
		s.ip(event.SourceIP, strings.TrimSuffix(after(t, "IP address: "), ","))
		s.asaUser(after(t, "Uname: "))
		if n == 611103 {
			s.str(event.EventAction, "logged out")
			s.category("session")
			s.kind("end")
			break
		}
		s.str(event.EventAction, "user authentication")
		s.signIn("", n == 611101)
	case 113004, 113005, 113006, 113008, 113012, 113014, 113015, 113016, 113017:
		s.asaUser(asaAfterEq(t, "user"))
		s.ip(event.SourceIP, asaAfterEq(t, "user IP"))
		s.str(event.EventReason, asaAfterEq(t, "reason"))
		s.str(event.EventAction, "aaa user authentication")
		switch n {
		case 113004, 113008, 113012:
			s.signIn("vpn", true)
		case 113005, 113015, 113016, 113017, 113006:
			s.signIn("vpn", false)
		default:
			s.signIn("vpn", false)
		}
	case 113019:
		s.asaGroup(t)
		s.str(event.EventAction, "session disconnected")
		s.int(event.SourceBytes, strings.TrimSuffix(after(t, "Bytes rcv: "), ","))
		s.int(event.DestinationBytes, strings.TrimSuffix(after(t, "Bytes xmt: "), ","))
		if i := strings.Index(t, "Reason: "); i >= 0 {
			s.str(event.EventReason, t[i+8:])
		}
		s.str(event.TocsinService, "vpn")
		s.category("session")
		s.kind("end")
	case 109005, 109006, 109007, 109008:
		if u, ok := between(t, "user '", "'"); ok {
			s.asaUser(u)
		} else {
			s.asaUser(after(t, "user "))
		}
		s.asaPair(t, " from ", "to ")
		s.str(event.EventAction, "authentication")
		s.signIn("", n == 109005 || n == 109007)
	case 111008, 111009, 111010:
		if u, ok := between(t, "User '", "'"); ok {
			s.asaUser(u)
		}
		if i := strings.Index(t, "from IP "); i >= 0 {
			s.ip(event.SourceIP, wordOf(t[i+8:]))
		}
		if i := strings.Index(t, "executed "); i >= 0 {
			c := trim(strings.TrimPrefix(t[i+9:], "the "))
			c = strings.TrimSuffix(strings.TrimSuffix(c, "."), " command")
			s.str(event.ProcessCommandLine, unquote(c))
		}
		s.str(event.EventAction, "command executed")
		s.category("configuration")
		if n != 111009 {
			s.kind("change")
		}
	case 716001, 716002, 716003, 716038, 716039, 722022, 722023, 722028, 722032, 722033, 722034, 722036, 722037, 722041, 722051, 722053, 722055,
		113039, 716058, 716059, 725001, 725002, 725007:
		s.asaGroup(t)
		s.str(event.TocsinService, "vpn")
		switch n {
		case 716001, 113039, 716038, 722022, 722033, 722034:
			s.str(event.EventAction, "session started")
			s.signIn("vpn", true)
		case 716039:
			s.str(event.EventAction, "authentication rejected")
			s.signIn("vpn", false)
		case 716002, 722023, 722037:
			s.str(event.EventAction, "session terminated")
			s.category("session")
			s.kind("end")
		case 722051:
			if a := after(t, "IPv4 Address <"); a != "" {
				s.ip(event.SourceNATIP, a)
			}
			s.category("session")
			s.kind("start")
		case 725001, 725002, 725007:
			if i := strings.Index(t, "client "); i >= 0 {
				s.asaPair(t[i:], "client ", "to ")
			}
			s.network()
		default:
			s.category("session")
			s.kind("info")
		}
	case 338001, 338002, 338003, 338004, 338005, 338006, 338007, 338008, 338201, 338202, 338203, 338204:
		switch {
		case strings.Contains(t, "dropped"):
			s.action("dropped", deny)
		case strings.Contains(t, "monitored"):
			s.action("monitored", detect)
		default:
			s.action("permitted", allow)
		}
		s.asaProto(t)
		s.asaPair(t, " from ", "to ")
		s.alert("intrusion_detection")
		s.network()
	case 733100, 733101, 733102, 733103, 733104, 733105:
		s.alert("intrusion_detection")
		if v, ok := between(t, "host ", " "); ok {
			s.ip(event.SourceIP, v)
		} else if v, ok := between(t, "[", "]"); ok {
			s.ip(event.SourceIP, strings.TrimSpace(v))
		}
		if n == 733102 {
			s.action("shun", deny)
		}
	case 609001, 609002:
		if i := strings.Index(t, "local-host "); i >= 0 {
			src, _ := asaEndpoint(t[i+11:])
			s.asaSource(&src)
		}
		if n == 609001 {
			s.str(event.EventAction, "built")
		} else {
			s.str(event.EventAction, "teardown")
		}
		s.network()
	case 402117, 402119, 402116:
		s.action("discard", deny)
		s.asaPair(t, " from ", "to ")
		s.asaUser(strings.TrimSuffix(after(t, "user= "), ")"))
		s.network()
	case 305006, 305005, 305013:
		s.action("failed", deny)
		s.asaProto(t)
		if !s.asaPair(t, " src ", "dst ") {
			s.asaPair(t, " from ", "to ")
		}
		s.network()
	case 313005:
		s.action("no matching connection", deny)
		s.transport("icmp")
		s.asaPair(t, " src ", "dst ")
		s.network()
	case 303002:
		s.asaPair(t, " from ", "to ")
		s.transport("tcp")
		s.asaUser(after(t, "user "))
		if i := strings.Index(t, " file "); i >= 0 {
			s.str(event.FileName, wordOf(t[i+6:]))
		}
		w := after(t, "user ")
		if i := strings.Index(t, "user "+w+" "); w != "" && i >= 0 {
			s.low(event.EventAction, wordOf(t[i+len(w)+6:]))
		}
		s.network()
	default:
		s.asaOther(t)
	}
}

// asaProto finds "TCP" or "UDP" as a word near the start.
func (s *Set) asaProto(t string) {
	for i := 0; i < 8; i++ {
		w, r := cutSpace(t)
		if w == "" {
			return
		}
		if !isDigit(w[0]) {
			if tn := transportName(w); tn != "" {
				s.str(event.NetworkTransport, tn)
				return
			}
		}
		t = r
	}
}

// asaAfterEq reads "key = value" from "a : key = value : key = value".
func asaAfterEq(t, key string) string {
	at := 0
	for {
		i := strings.Index(t[at:], key)
		if i < 0 {
			return ""
		}
		i += at
		j := i + len(key)
		for j < len(t) && t[j] == ' ' {
			j++
		}
		if j < len(t) && t[j] == '=' && (i == 0 || t[i-1] == ' ') {
			v := trimLeft(t[j+1:])
			if k := strings.Index(v, " : "); k >= 0 {
				v = v[:k]
			}
			return trim(v)
		}
		at = i + 1
	}
}

// asaGroup reads "Group <g> User <u> IP <a>" and "Group = g, Username = u, IP = a,".
func (s *Set) asaGroup(t string) {
	if v, ok := between(t, "User <", ">"); ok {
		s.asaUser(v)
		if v, ok := between(t, "IP <", ">"); ok {
			s.ip(event.SourceIP, v)
		}
		if v, ok := between(t, "Group <", ">"); ok {
			s.str(event.SourceUserGroupName, v)
		}
		return
	}
	if v, ok := between(t, "Username = ", ","); ok {
		s.asaUser(v)
	}
	if v, ok := between(t, "IP = ", ","); ok {
		s.ip(event.SourceIP, v)
	}
	if v, ok := between(t, "Group = ", ","); ok {
		s.str(event.SourceUserGroupName, v)
	}
}

func (s *Set) asaBuilt(t string) {
	s.str(event.EventAction, "built")
	s.kind("start")
	s.decide(allow)
	r := strings.TrimPrefix(t, "Built ")
	if !strings.HasPrefix(r, "inbound ") && !strings.HasPrefix(r, "outbound ") { // "Built TCP state-bypass ..." or "Built {Probe|...}"
		_, r2 := cutSpace(r)
		if strings.HasPrefix(r2, "inbound ") || strings.HasPrefix(r2, "outbound ") {
			r = r2
		}
	}
	dir, r := cutSpace(r)
	proto, r := cutSpace(r)
	s.transport(proto)
	i := strings.Index(r, " for ")
	if i < 0 {
		s.network()
		return
	}
	if w, id := cutSpace(r); w == "connection" {
		id, _ = cutSpace(id)
		s.str(event.EventID, id)
	}
	a, rest := asaEndpoint(r[i+5:])
	j := strings.Index(rest, "to ")
	if j < 0 {
		s.asaSource(&a)
		s.network()
		return
	}
	b, _ := asaEndpoint(rest[j+3:])
	if dir == "outbound" { // the initiator is the second endpoint
		s.asaSource(&b)
		s.asaDestination(&a)
		s.str(event.NetworkDirection, "outbound")
	} else {
		s.asaSource(&a)
		s.asaDestination(&b)
		s.str(event.NetworkDirection, "inbound")
	}
	s.network()
}

func (s *Set) asaTeardown(t string) {
	s.str(event.EventAction, "teardown")
	s.kind("end")
	s.decide(allow)
	r := strings.TrimPrefix(t, "Teardown ")
	proto, r := cutSpace(r)
	s.transport(proto)
	if w, id := cutSpace(r); w == "connection" {
		id, _ = cutSpace(id)
		s.str(event.EventID, id)
	}
	if i := strings.Index(r, " for "); i >= 0 {
		a, rest := asaEndpoint(r[i+5:])
		s.asaSource(&a)
		if j := strings.Index(rest, "to "); j >= 0 {
			b, tail := asaEndpoint(rest[j+3:])
			s.asaDestination(&b)
			rest = tail
		}
		s.asaDuration(rest)
		if k := strings.Index(rest, "bytes "); k >= 0 {
			v := rest[k+6:]
			n, l := digits(v)
			if l > 0 {
				s.e.SetInt(event.NetworkBytes, n)
			}
			if why := trim(v[l:]); why != "" && why[0] != '(' {
				if j := strings.Index(why, " ("); j > 0 {
					why = why[:j]
				}
				s.str(event.EventReason, why)
			}
		}
	}
	s.network()
}

// asaDuration reads "duration 1:02:03".
func (s *Set) asaDuration(t string) {
	i := strings.Index(t, "duration ")
	if i < 0 {
		return
	}
	t = t[i+9:]
	var total int64
	for range 3 {
		n, l := digits(t)
		if l == 0 || l > 7 {
			return
		}
		total = total*60 + n
		t = t[l:]
		if len(t) == 0 || t[0] != ':' {
			break
		}
		t = t[1:]
	}
	if !s.e.Has(event.EventDuration) {
		s.e.SetInt(event.EventDuration, total*1e9)
	}
}

// asaICMP reads "Built inbound ICMP connection for faddr a/p gaddr b/p laddr c/p".
func (s *Set) asaICMP(t string) {
	built := strings.HasPrefix(t, "Built")
	if built {
		s.str(event.EventAction, "built")
		s.kind("start")
	} else {
		s.str(event.EventAction, "teardown")
		s.kind("end")
	}
	s.decide(allow)
	s.transport("icmp")
	var f, g, l asaEnd
	if i := strings.Index(t, "faddr "); i >= 0 {
		f, _ = asaEndpoint(t[i+6:])
	}
	if i := strings.Index(t, "gaddr "); i >= 0 {
		g, _ = asaEndpoint(t[i+6:])
	}
	if i := strings.Index(t, "laddr "); i >= 0 {
		l, _ = asaEndpoint(t[i+6:])
	}
	f.port, g.port, l.port, f.np, l.np = "", "", "", "", ""
	l.nat = g.addr
	switch {
	case strings.Contains(t[:min(len(t), 24)], "outbound"):
		s.asaSource(&l)
		s.asaDestination(&f)
		s.str(event.NetworkDirection, "outbound")
	default:
		s.asaSource(&f)
		s.asaDestination(&l)
		if built {
			s.str(event.NetworkDirection, "inbound")
		}
	}
	s.network()
}

// asaACL reads "access-list acl denied tcp outside/203.0.113.9(51763) -> inside/192.0.2.3(80) hit-cnt 1".
func (s *Set) asaACL(t string) {
	r := strings.TrimPrefix(t, "access-list ")
	acl, r := cutSpace(r)
	s.str(event.RuleName, acl)
	act, r := cutSpace(r)
	switch act {
	case "permitted", "est-allowed":
		s.action(act, allow)
	case "denied":
		s.action(act, deny)
	}
	proto, r := cutSpace(r)
	s.transport(proto)
	if i := strings.Index(r, "-> "); i >= 0 {
		a, _ := asaEndpoint(trim(r[:i]))
		b, _ := asaEndpoint(r[i+3:])
		s.asaSource(&a)
		s.asaDestination(&b)
	}
	s.network()
}

// asaOther reads messages without a rule of their own, in the few shapes that most of them share.
func (s *Set) asaOther(t string) {
	e := s.e
	switch {
	case strings.HasPrefix(t, "Deny "), strings.HasPrefix(t, "Denied "), strings.HasPrefix(t, "Denying "):
		s.action("deny", deny)
	case strings.HasPrefix(t, "Dropping "), strings.HasPrefix(t, "Dropped "), strings.Contains(t, "requested to drop"):
		s.action("drop", deny)
	case strings.Contains(t, " denied ") && strings.Contains(t, " from "):
		s.action("denied", deny)
	case strings.HasPrefix(t, "Built "):
		s.action("built", allow)
	case strings.HasPrefix(t, "Teardown "):
		s.action("teardown", allow)
	}
	s.asaProto(t)
	if strings.Contains(t, "Username = ") || strings.Contains(t, "Group <") || strings.Contains(t, "IP = ") {
		s.asaGroup(t)
		s.str(event.TocsinService, "vpn")
	} else if strings.Contains(t, "Local:") && strings.Contains(t, "Remote:") {
		s.endpoint(event.DestinationIP, event.DestinationPort, after(t, "Local:"))
		s.endpoint(event.SourceIP, event.SourcePort, after(t, "Remote:"))
		if u := after(t, "Username:"); u != "Unknown" {
			s.asaUser(u)
		}
		s.str(event.TocsinService, "vpn")
	} else if strings.Contains(t, " src ") && strings.Contains(t, " dst ") {
		s.asaPair(t, " src ", "dst ")
	} else if i := strings.Index(t, " from "); i >= 0 && asaLooksAddr(t[i+6:]) {
		s.asaPair(t, " from ", "to ")
	} else if strings.Contains(t, " between ") {
		s.asaPair(t, " between ", "and ")
	} else if strings.Contains(t, "-> ") {
		s.asaACL(t)
	}
	if e.Has(event.SourceIP) || e.Has(event.DestinationIP) {
		s.category("network")
	}
	s.str(event.Message, t)
}

// asaLooksAddr says whether an address stands at the start of t, an interface's name before it allowed.
func asaLooksAddr(t string) bool {
	p, _ := asaEndpoint(t)
	return p.addr.IsValid()
}
