package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

var (
	mikrotikFirewall = newProduct("MikroTik", "RouterOS", "firewall", "mikrotik.firewall")
	mikrotikLog      = newProduct("MikroTik", "RouterOS", "firewall", "mikrotik.system")
)

// mikrotik reads RouterOS: "firewall,info PREFIX forward: in:ether1 out:bridge LAN, connection-state:new,snat src-mac ..,
// proto TCP (SYN), a:p->b:p, NAT (a:p->x:p)->b:p, len 60", often without any syslog header and without the topics. The action is
// only what the administrator wrote in the prefix. Interface names hold blanks.
func (s *Set) mikrotik(msg string) bool {
	if topics, r := cutSpace(msg); topicList(topics) {
		return s.mikrotikText(topics, r)
	}
	return s.mikrotikText("", msg)
}

// mikrotikCEF reads what RouterOS 7 writes as CEF: the topics are the event's name, "msg" the text. Newer versions name the ends of some events
// as well.
func (s *Set) mikrotikCEF(topics, ext string) bool {
	text := ""
	for w := s.cefPairs(ext); w.next(s); {
		if w.key == "msg" && text == "" {
			text = trim(w.val)
		}
	}
	if text == "" || !topicList(topics) && !topic(topics) || !s.mikrotikText(topics, text) {
		return s.undo()
	}
	for w := s.cefPairs(ext); w.next(s); {
		switch v := w.val; w.key {
		case "src":
			s.endpoint(event.SourceIP, event.SourcePort, v)
		case "dst":
			s.endpoint(event.DestinationIP, event.DestinationPort, v)
		case "spt":
			s.port(event.SourcePort, v)
		case "dpt":
			s.port(event.DestinationPort, v)
		case "proto":
			s.transport(v)
		case "suser", "duser":
			s.user(v)
		case "act":
			if !s.e.Has(event.TocsinVerdict) {
				s.act(v)
			}
		case "dvchost":
			s.str(event.ObserverName, v)
		}
	}
	return true
}

// mikrotikText reads the text of a line; topics are "" where the line had none.
func (s *Set) mikrotikText(topics, t string) bool {
	e := s.e
	hasTopics := topics != ""
	i := find.Index(t, "in:")
	if i < 0 || i > 0 && t[i-1] != ' ' || !find.Has(t, " out:") || !find.Has(t, "proto ") {
		if i == 0 && find.Has(t, " out:") {
			// no prefix
		} else {
			return hasTopics && s.mikrotikSystem(topics, t)
		}
	}
	head := trim(t[:i])
	flow := t[i:]
	if head == "" && s.h.app != "" { // "forward: in:" whose chain was taken for a tag
		head = s.h.app
		s.h.app = ""
	}
	head = strings.TrimSuffix(head, ":")
	chain := head
	prefix := ""
	if j := strings.LastIndexByte(head, ' '); j >= 0 {
		prefix, chain = trim(head[:j]), head[j+1:]
	}
	switch chain {
	case "input", "output", "forward", "prerouting", "postrouting", "srcnat", "dstnat":
	default: // a chain of the administrator's own
		if prefix == "" {
			prefix = chain
		}
	}
	if j := find.Index(flow, " out:"); j >= 0 {
		s.mtInterface(event.ObserverIngressInterfaceName, flow[3:j])
		out := flow[j+5:]
		if k := strings.IndexByte(out, ','); k >= 0 {
			s.mtInterface(event.ObserverEgressInterfaceName, out[:k])
		}
	}
	if j := find.Index(flow, "src-mac "); j >= 0 {
		s.mac(event.SourceMAC, wordOf(flow[j+8:]))
	}
	if j := find.Index(flow, "proto "); j >= 0 {
		p := flow[j+6:]
		if k := strings.IndexAny(p, ", "); k > 0 {
			s.transport(p[:k])
			rest := p[k:]
			if k := strings.IndexByte(p, ','); k >= 0 {
				rest = p[k+1:]
			}
			if strings.HasPrefix(trimLeft(rest), "type ") || strings.HasPrefix(trimLeft(rest), "code ") {
				if k := find.Index(rest, "), "); k >= 0 {
					rest = rest[k+2:]
				}
			}
			s.mtFlow(rest)
		}
	}
	if j := find.Index(flow, ", len "); j >= 0 {
		n, l := digits(flow[j+6:])
		if l > 0 && !e.Has(event.NetworkBytes) {
			e.SetInt(event.NetworkBytes, n)
		}
	}
	if j := find.Index(flow, "NAT "); j >= 0 {
		s.mtNAT(flow[j+4:])
	}
	s.of(mikrotikFirewall)
	if prefix != "" && len(prefix) < 64 {
		s.str(event.RuleName, prefix)
		if w, v := actionWord(prefix); v != noVerdict {
			s.str(event.EventAction, w)
			s.packet(v)
			return true
		}
	}
	s.network()
	return true
}

func (s *Set) mtInterface(k event.Key, v string) {
	v = trim(v)
	if !strings.HasPrefix(v, "(unknown") {
		s.str(k, v)
	}
}

// mtFlow finds "a:p->b:p" in the parts between commas.
func (s *Set) mtFlow(r string) {
	for r != "" {
		part := r
		if k := strings.IndexByte(r, ','); k >= 0 {
			part, r = r[:k], r[k+1:]
		} else {
			r = ""
		}
		part = trim(part)
		k := find.Index(part, "->")
		if k <= 0 || strings.HasPrefix(part, "NAT") {
			continue
		}
		s.endpoint(event.SourceIP, event.SourcePort, part[:k])
		s.endpoint(event.DestinationIP, event.DestinationPort, part[k+2:])
		return
	}
}

// mtNAT reads "(a:p->x:p)->b:p" (source translated to x) and "a:p->(b:p->y:p)" (destination translated to y).
func (s *Set) mtNAT(r string) {
	if k := find.Index(r, ", "); k >= 0 {
		r = r[:k]
	}
	open, end := strings.IndexByte(r, '('), strings.IndexByte(r, ')')
	if open < 0 || end < open {
		return
	}
	in := r[open+1 : end]
	k := find.Index(in, "->")
	if k < 0 {
		return
	}
	if open == 0 {
		s.endpoint(event.SourceNATIP, event.SourceNATPort, in[k+2:])
	} else {
		s.endpoint(event.DestinationNATIP, event.DestinationNATPort, in[k+2:])
	}
}

// mikrotikSystem reads other topics: sign-ins above all.
func (s *Set) mikrotikSystem(topics, t string) bool {
	s.of(mikrotikLog)
	s.str(event.Message, t)
	svc := after(t, " via ")
	switch {
	case strings.HasPrefix(t, "login failure for user "):
		u, from := sshFrom(t[len("login failure for user "):])
		s.user(u)
		s.sshAddr(from)
		s.str(event.EventAction, "login failure")
		s.signIn(svc, false)
	case find.Has(t, " logged in"):
		if strings.HasPrefix(t, "user ") {
			u, _ := cutSpace(t[5:])
			s.user(u)
			s.cue(t, " from ")
		} else {
			u := t[:find.Index(t, " logged in")]
			s.user(strings.TrimPrefix(strings.Trim(u, "<> "), "user "))
			s.cue(t, " from ") // "anna logged in, 10.0.0.2 from 203.0.113.5"
			svc = "vpn"
		}
		s.str(event.EventAction, "logged in")
		s.signIn(svc, true)
	case find.Has(t, " logged out"):
		s.str(event.EventAction, "logged out")
		if strings.HasPrefix(t, "user ") {
			u, _ := cutSpace(t[5:])
			s.user(u)
			s.cue(t, " from ")
		}
		s.category("session")
		s.kind("end")
	case strings.HasPrefix(topics, "ipsec"):
		s.mtTunnel(t)
	case strings.HasPrefix(topics, "dhcp"):
		s.mtLease(t)
	case strings.HasPrefix(topics, "wireless") || strings.HasPrefix(topics, "caps"):
		s.mtStation(t)
	case strings.HasPrefix(topics, "system,info") && s.mtChange(t):
	default:
		if u, ok := between(t, "<", ">"); ok && find.Has(topics, "ppp") { // "<l2tp-anna>: connected"
			if k := strings.IndexByte(u, '-'); k > 0 {
				s.user(u[k+1:])
				s.low(event.EventAction, after(t, ">: "))
			}
		}
		s.words(t)
	}
	s.str(event.EventKind, "event")
	return true
}

// mtTunnel reads the two ends of an IPsec tunnel, "198.51.100.2[500]<=>203.0.113.5[500]" or with "-": this end, then the other one.
func (s *Set) mtTunnel(t string) {
	ours, theirs := "", ""
	for r := t; r != "" && ours == ""; {
		var w string
		w, r = cutSpace(r)
		i := strings.IndexByte(w, ']')
		if i < 0 {
			continue
		}
		switch {
		case strings.HasPrefix(w[i+1:], "<=>"):
			ours, theirs = w[:i], w[i+4:]
		case strings.HasPrefix(w[i+1:], "-"):
			ours, theirs = w[:i], w[i+2:]
		}
	}
	if ours == "" {
		if !s.ip(event.SourceIP, wordOf(t)) { // "203.0.113.5 failed to get valid proposal."
			s.words(t)
		}
		return
	}
	if strings.HasPrefix(t, "respond ") || find.Has(t, " SA (R)") {
		ours, theirs = theirs, ours
	}
	s.mtEnd(event.SourceIP, event.SourcePort, ours)
	s.mtEnd(event.DestinationIP, event.DestinationPort, theirs)
	s.str(event.NetworkProtocol, "ipsec")
	if find.Has(t, "failed") {
		s.str(event.EventOutcome, "failure")
	}
	s.network()
}

// mtEnd reads "198.51.100.2[500" and "198.51.100.2[500]".
func (s *Set) mtEnd(ip, port event.Key, v string) {
	i := strings.IndexByte(v, '[')
	if i > 0 && s.ip(ip, v[:i]) {
		s.port(port, strings.TrimSuffix(v[i+1:], "]"))
	}
}

// mtLease reads "dhcp1 assigned 192.0.2.77 to 00:00:5E:00:53:01" and "... for 00:00:5E:00:53:01 name".
func (s *Set) mtLease(t string) {
	_, r := cutSpace(t)
	act, r := cutSpace(r)
	addr, r := cutSpace(r)
	_, r = cutSpace(r)
	if act != "assigned" && act != "deassigned" || !s.ip(event.SourceIP, addr) {
		s.words(t)
		return
	}
	mac, name := cutSpace(r)
	s.str(event.EventAction, act)
	s.mac(event.SourceMAC, mac)
	s.domain(event.SourceDomain, name)
	s.str(event.NetworkProtocol, "dhcp")
	s.category("network")
}

// mtStation reads "00:00:5E:00:53:01@wlan1: connected, signal strength -60".
func (s *Set) mtStation(t string) {
	w, r := cutSpace(t)
	mac, port, ok := strings.Cut(strings.TrimSuffix(w, ":"), "@")
	if !ok || len(mac) != 17 {
		s.words(t)
		return
	}
	s.mac(event.SourceMAC, mac)
	s.str(event.ObserverIngressInterfaceName, port)
	act, _ := cutSpace(r)
	s.low(event.EventAction, strings.TrimSuffix(act, ","))
	s.category("network")
}

// mtChange reads "filter rule changed by admin" and "nat rule added by winbox-3.41/tcp-msg(winbox):admin@192.0.2.5 (*2 = ...)".
func (s *Set) mtChange(t string) bool {
	i := find.Index(t, "ed by ")
	if i < 0 || i > 60 {
		return false
	}
	who, _ := cutSpace(t[i+6:])
	if k := strings.LastIndexByte(who, '@'); k >= 0 {
		s.ip(event.SourceIP, who[k+1:])
		who = who[:k]
	}
	who = who[strings.LastIndexByte(who, ':')+1:]
	s.user(who)
	s.low(event.EventAction, t[strings.LastIndexByte(t[:i], ' ')+1:i+2]) // "changed"; what stands before may be a person's name
	s.category("configuration")
	s.kind("change")
	return true
}
