package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// What each message of Cisco ASA says, by its number (see asa.go).

func (s *Set) asaText(code, t string) {
	e := s.e
	n, _ := atoi(code)
	switch n {
	case 302013, 302015, 302017, 302022, 302024, 302026, 302303:
		s.asaBuilt(t)
	case 302014, 302016, 302018, 302304, 302023, 302025, 302027:
		s.asaTeardown(t)
	case 302020, 302021:
		s.asaICMP(t)
	case 106023, 106010, 106014:
		s.asaDeny()
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
		s.asaDeny()
		for w, r := cutSpace(t); w != ""; w, r = cutSpace(r) {
			if tn := transportName(w); tn != "" && !isDigit(w[0]) {
				s.str(event.NetworkTransport, tn)
				break
			}
		}
		if r, ok := strings.CutPrefix(t, "Deny protocol "); ok {
			s.transport(wordOf(r))
		}
		if !s.asaPair(t, " from laddr ", " to ") && !s.asaPair(t, " from ", "to ") {
			s.asaPair(t, " src ", "dst ")
		}
		s.str(event.ObserverIngressInterfaceName, after(t, "on interface "))
		s.network()
	case 106018:
		s.action("deny", deny)
		s.transport("icmp")
		if !s.asaPair(t, " src ", "dest ") {
			s.asaPair(t, " from ", "to ")
		}
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
			switch {
			case find.Has(t, " denied "):
				s.action("denied", deny)
			case find.Has(t, " discarded "):
				s.action("discarded", deny)
			default:
				s.str(event.EventAction, "requested")
			}
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
		if i := find.Index(t, " from "); i >= 0 {
			src, rest := asaEndpoint(t[i+6:])
			s.asaSource(&src)
			if j := find.Index(rest, "to "); j >= 0 {
				dst, _ := asaEndpoint(rest[j+3:])
				if dst.addr.IsValid() { // the mapped address is both, as in Elastic's reading of ECS: people search for it as either
					s.addr(event.SourceNATIP, dst.addr)
					s.port(event.SourceNATPort, dst.port)
					s.addr(event.DestinationIP, dst.addr)
					s.port(event.DestinationPort, dst.port)
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
		if i := strings.IndexByte(rest[:min(len(rest), 80)], '@'); i > 0 && strings.IndexByte(rest[:i], '/') < 0 { // user@address:url
			rest = rest[i+1:]
		}
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
		s.asaSignIn(svc, n == 605005)
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
		s.asaSignIn("", n == 611101)
	case 113004, 113005, 113006, 113008, 113012, 113014, 113015, 113016, 113017:
		s.asaUser(asaAfterEq(t, "user"))
		s.ip(event.SourceIP, asaAfterEq(t, "user IP"))
		s.ip(event.DestinationIP, asaAfterEq(t, "server"))
		s.str(event.EventReason, asaAfterEq(t, "reason"))
		s.str(event.EventAction, "aaa user authentication")
		s.asaSignIn("vpn", n == 113004 || n == 113008 && find.Has(t, "ACCEPT") || n == 113012)
	case 113019:
		s.asaGroup(t)
		s.str(event.EventAction, "session disconnected")
		s.int(event.SourceBytes, strings.TrimSuffix(after(t, "Bytes rcv: "), ","))
		s.int(event.DestinationBytes, strings.TrimSuffix(after(t, "Bytes xmt: "), ","))
		if i := find.Index(t, "Reason: "); i >= 0 {
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
		s.asaSignIn("", n == 109005 || n == 109007)
	case 111001, 111003, 111004, 111005, 111007: // "192.0.2.1 end configuration: OK", "Begin configuration: 192.0.2.1 writing to memory"
		first, what := cutSpace(strings.TrimPrefix(t, "Begin configuration: "))
		s.ip(event.SourceIP, first)
		if len(what) < len(t)-len(first)-1 {
			what = "begin configuration"
		}
		what, how, _ := strings.Cut(what, ":")
		s.low(event.EventAction, what)
		if n == 111004 || n == 111005 {
			s.outcome(trim(how))
		}
		s.category("configuration")
		s.kind("change")
	case 209003, 209004, 209005:
		s.asaDeny()
		s.ip(event.SourceIP, strings.TrimSuffix(asaAfterEq(t, "src"), ","))
		s.transport(wordOf(asaAfterEq(t, "proto")))
		s.ip(event.DestinationIP, strings.TrimSuffix(asaAfterEq(t, "dest"), ","))
		s.network()
	case 308001:
		if a, ok := between(t, "(from ", ")"); ok {
			s.ip(event.SourceIP, a)
		}
		s.str(event.EventAction, "console enable password incorrect")
		s.asaSignIn("", false)
	case 111008, 111009, 111010:
		if u, ok := between(t, "User '", "'"); ok {
			s.asaUser(u)
		}
		if i := find.Index(t, "from IP "); i >= 0 {
			s.ip(event.SourceIP, wordOf(t[i+8:]))
		}
		if i := find.Index(t, "executed "); i >= 0 {
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
			s.asaSignIn("vpn", false)
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
			if i := find.Index(t, "client "); i >= 0 {
				s.asaPair(t[i:], "client ", "to ")
			}
			s.network()
		default:
			switch n {
			case 716003:
				s.action("granted", allow)
			case 716059: // "IP <inner> AnyConnect session resumed connection from IP <outer>"
				if i := strings.LastIndex(t, " from "); i >= 0 {
					v := strings.Trim(strings.TrimPrefix(t[i+6:], "IP "), "<>. ")
					if a, ok := parseIP(v); ok {
						s.e.SetIP(event.SourceIP, a)
					}
				}
			}
			s.category("session")
			s.kind("info")
		}
	case 338001, 338002, 338003, 338004, 338005, 338006, 338007, 338008, 338201, 338202, 338203, 338204:
		switch {
		case find.Has(t, "dropped"):
			s.action("dropped", deny)
		case find.Has(t, "monitored"):
			s.action("monitored", detect)
		default:
			s.action("permitted", allow)
		}
		s.asaProto(t)
		s.asaPair(t, " from ", "to ")
		s.alert("intrusion_detection")
		s.network()
	case 733100, 733101, 733102, 733103, 733104, 733105, 733201:
		s.alert("intrusion_detection")
		if v, ok := between(t, "ost ", " "); ok {
			s.ip(event.SourceIP, v)
		} else if v, ok := between(t, "[", "]"); ok {
			s.ip(event.SourceIP, strings.TrimSpace(v))
		}
		if n == 733102 {
			s.action("shun", deny)
		}
	case 609001, 609002:
		if i := find.Index(t, "local-host "); i >= 0 {
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
		if i := find.Index(t, " file "); i >= 0 {
			s.str(event.FileName, wordOf(t[i+6:]))
		}
		w := after(t, "user ")
		if i := find.Index(t, "user "+w+" "); w != "" && i >= 0 {
			s.low(event.EventAction, wordOf(t[i+len(w)+6:]))
		}
		s.network()
	default:
		s.asaOther(t)
	}
}

// asaSignIn is signIn for the messages in which the device itself says that it let somebody in or turned them away.
func (s *Set) asaSignIn(service string, ok bool) {
	if ok {
		s.decide(allow)
	} else {
		s.decide(deny)
	}
	s.signIn(service, ok)
}

// asaProto finds "TCP" or "UDP" as a word near the start.
func (s *Set) asaProto(t string) {
	for i := 0; i < 16; i++ {
		w, r := cutSpace(t)
		if w == "" {
			return
		}
		w = strings.TrimSuffix(strings.TrimPrefix(w, "protocol="), ",")
		if w != "" && !isDigit(w[0]) {
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
		i := find.Index(t[at:], key)
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
			for _, end := range [...]string{" : ", ": ", " , "} {
				if k := find.Index(v, end); k >= 0 {
					v = v[:k]
				}
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
	if r, ok := strings.CutPrefix(t, "Group "); ok { // "Group g User u IP a text", since 9.16
		g, r := cutSpace(r)
		if r, ok := strings.CutPrefix(r, "User "); ok {
			u, r := cutSpace(r)
			if r, ok := strings.CutPrefix(r, "IP "); ok {
				a, _ := cutSpace(r)
				s.str(event.SourceUserGroupName, g)
				s.asaUser(u)
				s.ip(event.SourceIP, a)
				return
			}
		}
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
	if !s.e.SetGroup(asaBuiltGroup) {
		s.str(event.EventAction, "built")
		s.kind("start")
		s.decide(allow)
	}
	r := strings.TrimPrefix(t, "Built ")
	if !strings.HasPrefix(r, "inbound ") && !strings.HasPrefix(r, "outbound ") { // "Built TCP state-bypass ..." or "Built {Probe|...}"
		_, r2 := cutSpace(r)
		if strings.HasPrefix(r2, "inbound ") || strings.HasPrefix(r2, "outbound ") {
			r = r2
		}
	}
	dir, r := cutSpace(r)
	proto, r := cutSpace(r)
	if proto == "stub" || proto == "Probe" { // "Built director stub TCP connection for ..." of a cluster, "Built inbound Probe TCP ..."
		proto, r = cutSpace(r)
	}
	s.transport(proto)
	i := find.Index(r, " for ")
	if i < 0 {
		s.network()
		return
	}
	if w, id := cutSpace(r); w == "connection" {
		id, _ = cutSpace(id)
		s.str(event.EventID, id)
	}
	a, rest := asaEndpoint(r[i+5:])
	j := find.Index(rest, "to ")
	if j < 0 {
		s.asaSource(&a)
		s.network()
		return
	}
	b, _ := asaEndpoint(rest[j+3:])
	if dir == "outbound" { // the initiator is the second endpoint
		s.asaSource(&b)
		s.asaDestination(&a)
	} else {
		s.asaSource(&a)
		s.asaDestination(&b)
	}
	if dir == "outbound" || dir == "inbound" {
		s.str(event.NetworkDirection, dir)
	}
	s.network()
}

func (s *Set) asaTeardown(t string) {
	if !s.e.SetGroup(asaTeardownGroup) {
		s.str(event.EventAction, "teardown")
		s.kind("end")
		s.decide(allow)
	}
	r := strings.TrimPrefix(t, "Teardown ")
	proto, r := cutSpace(r)
	if proto == "stub" || proto == "Probe" {
		proto, r = cutSpace(r)
	}
	s.transport(proto)
	r = strings.TrimPrefix(r, "state-bypass ")
	if w, id := cutSpace(r); w == "connection" {
		id, _ = cutSpace(id)
		s.str(event.EventID, id)
	}
	i := find.Index(r, " for ")
	if i < 0 {
		i = find.Index(r, " from ") + 1
	}
	if i > 0 {
		a, rest := asaEndpoint(r[i+5:])
		s.asaSource(&a)
		if j := find.Index(rest, "to "); j >= 0 {
			b, tail := asaEndpoint(rest[j+3:])
			s.asaDestination(&b)
			rest = tail
		}
		s.asaDuration(rest)
		if k := find.Index(rest, "bytes "); k >= 0 {
			v := rest[k+6:]
			n, l := digits(v)
			if l > 0 {
				s.e.SetInt(event.NetworkBytes, n)
			}
			if why := trim(v[l:]); why != "" && why[0] != '(' {
				if j := find.Index(why, " ("); j > 0 {
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
	i := find.Index(t, "duration ")
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
	if i := find.Index(t, "faddr "); i >= 0 {
		f, _ = asaEndpoint(t[i+6:])
	}
	if i := find.Index(t, "gaddr "); i >= 0 {
		g, _ = asaEndpoint(t[i+6:])
	}
	if i := find.Index(t, "laddr "); i >= 0 {
		l, _ = asaEndpoint(t[i+6:])
	}
	f.port, g.port, l.port, f.np, l.np = "", "", "", "", ""
	l.nat = g.addr
	switch {
	case find.Has(t[:min(len(t), 24)], "outbound"):
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
	if w, r2 := cutSpace(r); w == "for" { // "for user NAME"
		if w, r2 = cutSpace(r2); w == "user" {
			w, r = cutSpace(r2)
			s.asaUser(w)
		}
	}
	if i := find.Index(r, "-> "); i >= 0 {
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
	case strings.HasPrefix(t, "Dropping "), strings.HasPrefix(t, "Dropped "), find.Has(t, "requested to drop"):
		s.action("drop", deny)
	case find.Has(t, " denied ") && find.Has(t, " from "):
		s.action("denied", deny)
	case strings.HasPrefix(t, "Built "):
		s.action("built", allow)
	case strings.HasPrefix(t, "Teardown "):
		s.action("teardown", allow)
	}
	s.asaProto(t)
	if r, ok := strings.CutPrefix(t, "IDS:"); ok { // 400000 to 400051: "IDS:2001 ICMP unreachable from 203.0.113.9 to 192.0.2.3 on interface outside"
		id, r := cutSpace(r)
		s.str(event.RuleID, id)
		if name, _, ok := strings.Cut(r, " from "); ok {
			s.str(event.RuleName, name)
		}
		s.str(event.EventAction, "alert")
		s.decide(detect)
		s.alert("intrusion_detection")
	}
	if find.Has(t, "Username = ") || find.Has(t, "Group <") || strings.HasPrefix(t, "Group ") || find.Has(t, "IP = ") {
		s.asaGroup(t)
		s.str(event.TocsinService, "vpn")
	} else if find.Has(t, "Local:") && find.Has(t, "Remote:") {
		s.endpoint(event.DestinationIP, event.DestinationPort, after(t, "Local:"))
		s.endpoint(event.SourceIP, event.SourcePort, after(t, "Remote:"))
		if u := after(t, "Username:"); u != "Unknown" {
			s.asaUser(u)
		}
		s.str(event.TocsinService, "vpn")
	} else if find.Has(t, " src ") && find.Has(t, " dst ") {
		s.asaPair(t, " src ", "dst ")
	} else if strings.HasPrefix(t, "Shunned packet: ") {
		s.action("shunned", deny)
		s.asaPair(t, "packet: ", "==> ")
	} else if find.Has(t, ", for ") && find.Has(t, " to ") {
		s.asaPair(t, ", for ", "to ")
	} else if strings.HasPrefix(t, "Embryonic limit ") {
		s.action("dropped", deny)
		s.asaPair(t, " for ", "to ")
	} else if find.Has(t, " for client ") && find.Has(t, " to ") {
		s.asaPair(t, " for client ", "to ")
	} else if i := find.Index(t, ", Addr "); i > 0 && strings.HasPrefix(t, "DAP: User ") {
		s.asaUser(t[len("DAP: User "):i])
		s.ip(event.SourceIP, wordOf(t[i+7:]))
		s.str(event.TocsinService, "vpn")
	} else if strings.HasPrefix(t, "AAA Marking ") {
		s.ip(event.DestinationIP, after(t, " server "))
	} else if i := find.Index(t, " from "); i >= 0 && asaLooksAddr(t[i+6:]) {
		s.asaPair(t, " from ", "to ")
	} else if find.Has(t, " between ") {
		s.asaPair(t, " between ", "and ")
	} else if find.Has(t, "-> ") {
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
