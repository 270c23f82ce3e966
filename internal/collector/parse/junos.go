package parse

import (
	"net/netip"
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// junosStructured reads Juniper's RFC 5424 form: the fields are the structured data [junos@2636.1.1.1.2.39
// source-address=".."]. Relays that hide addresses rewrite the number.
func (s *Set) junosStructured() bool {
	h := &s.h
	text := h.sd
	switch {
	case strings.HasPrefix(text, "[junos@"):
		i := strings.IndexByte(text, ' ')
		if i < 0 {
			s.junosDevice()
			return true
		}
		text = text[i:]
	case len(text) > 1 && text[0] == '[' && junosTag(h.id) && find.Has(text[:min(len(text), 80)], `="`): // a vSRX leaves the name out
		text = text[1:]
	default:
		return false
	}
	e := s.e
	s.junosDevice()
	action, attack := "", ""
	w := kv{s: text}
	for pairs := 0; pairs < 100; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v == "" || v == "N/A" || v == "None" || v == "UNKNOWN" {
			continue
		}
		switch key {
		case "source-address", "source-ip", "client-ip", "client-ip-str", "remote-address":
			s.ip(event.SourceIP, v)
		case "source-port", "client-port":
			s.port(event.SourcePort, v)
		case "destination-address", "destination-ip":
			s.ip(event.DestinationIP, v)
		case "destination-port":
			s.port(event.DestinationPort, v)
		case "nat-source-address":
			if v != "0.0.0.0" {
				s.ip(event.SourceNATIP, v)
			}
		case "nat-source-port":
			s.port(event.SourceNATPort, v)
		case "nat-destination-address":
			if v != "0.0.0.0" {
				s.ip(event.DestinationNATIP, v)
			}
		case "nat-destination-port":
			s.port(event.DestinationNATPort, v)
		case "protocol-id", "protocol-name", "protocol":
			s.transport(v)
		case "service-name":
			s.low(event.NetworkProtocol, v)
		case "application", "application-name":
			s.low(event.NetworkApplication, v)
		case "policy-name", "rule-name":
			s.str(event.RuleName, v)
		case "attack-name", "threat-name", "malware-info", "virus-name":
			attack = v
		case "source-zone-name", "source-zone":
			s.str(event.ObserverIngressZone, v)
		case "destination-zone-name", "destination-zone":
			s.str(event.ObserverEgressZone, v)
		case "packet-incoming-interface", "source-interface-name", "interface-name":
			s.str(event.ObserverIngressInterfaceName, v)
		case "destination-interface-name":
			s.str(event.ObserverEgressInterfaceName, v)
		case "bytes-from-client", "inbytes":
			s.int(event.SourceBytes, v)
		case "bytes-from-server", "outbytes":
			s.int(event.DestinationBytes, v)
		case "packets-from-client", "inpackets":
			s.int(event.SourcePackets, v)
		case "packets-from-server", "outpackets":
			s.int(event.DestinationPackets, v)
		case "elapsed-time":
			s.seconds(v)
		case "username", "user-name":
			s.user(v)
		case "reason":
			s.str(event.EventReason, v)
		case "action":
			action = v
		case "url", "http-host", "hostname", "domain-name":
			if key == "url" {
				s.urlText(v)
			} else {
				s.domain(event.URLDomain, v)
			}
		case "obj":
			s.path(v)
		case "category":
			s.str(event.RuleCategory, v)
		case "threat-severity", "severity":
			s.severity(v)
		case "session-id-32", "session-id":
			s.str(event.EventID, v)
		case "epoch-time":
			if t, ok := epoch(v); ok && e.Time == 0 {
				e.Time = t
			}
		case "file-name", "filename":
			s.str(event.FileName, v)
		case "file-hash-lookup", "sample-sha256":
			if len(v) == 64 {
				s.str(event.FileHashSHA256, v)
			}
		}
	}
	s.junosMeaning(h.id, action, attack)
	if h.msg != "" {
		s.str(event.Message, h.msg)
	}
	return true
}

func (s *Set) junosDevice() {
	s.device("Juniper", "SRX", "firewall")
	s.dataset("juniper.srx")
}

func (s *Set) junosMeaning(tag, action, attack string) {
	s.str(event.EventCode, tag)
	switch {
	case strings.HasPrefix(tag, "RT_FLOW_SESSION_CREATE"), strings.HasPrefix(tag, "APPTRACK_SESSION_CREATE"):
		s.action("session created", allow)
		s.kind("start")
		s.network()
	case strings.HasPrefix(tag, "RT_FLOW_SESSION_CLOSE"), strings.HasPrefix(tag, "APPTRACK_SESSION_CLOSE"):
		s.action("session closed", allow)
		s.kind("end")
		s.network()
	case strings.HasPrefix(tag, "RT_FLOW_SESSION_DENY"):
		s.action("session denied", deny)
		s.network()
	case strings.HasPrefix(tag, "APPTRACK"):
		s.action("session update", allow)
		s.network()
	case strings.HasPrefix(tag, "RT_SCREEN"):
		s.alert("intrusion_detection")
		if attack == "" {
			attack = tag
		}
		s.str(event.RuleName, attack)
		s.act(action)
		if action == "alarm-without-drop" {
			s.decide(detect)
		}
		s.decide(deny)
		s.network()
	case strings.HasPrefix(tag, "IDP_"):
		s.alert("intrusion_detection")
		if attack != "" {
			if rule := s.e.Str(event.RuleName); rule != "" && !s.e.Has(event.RuleID) { // the number in the rule base
				s.str(event.RuleID, rule)
			}
			s.e.Del(event.RuleName)
			s.str(event.RuleName, attack)
		}
		if action == "NONE" {
			s.action("none", detect)
		} else {
			s.act(action)
		}
		s.network()
	case strings.HasPrefix(tag, "WEBFILTER_URL_BLOCKED"):
		s.action("url blocked", deny)
		s.category("web")
		s.network()
	case strings.HasPrefix(tag, "WEBFILTER_URL_PERMITTED"):
		s.action("url permitted", allow)
		s.category("web")
		s.network()
	case strings.HasPrefix(tag, "AV_"), strings.HasPrefix(tag, "AAMW_"), strings.HasPrefix(tag, "SECINTEL_"):
		s.alert("malware")
		if attack != "" {
			s.e.Del(event.RuleName)
			s.str(event.RuleName, attack)
		}
		if action != "" {
			s.act(action)
		} else {
			s.low(event.EventAction, tag)
			s.decide(detect)
		}
		s.network()
	case strings.HasPrefix(tag, "RT_"):
		if action != "" {
			s.act(action)
		} else {
			s.low(event.EventAction, tag)
		}
		s.network()
	case find.Has(tag, "LOGIN_FAILED"), find.Has(tag, "AUTH_FAIL"):
		s.low(event.EventAction, tag)
		s.signIn("ssh", false)
	case find.Has(tag, "LOGIN"):
		s.low(event.EventAction, tag)
		if !find.Has(tag, "LOGOUT") {
			s.signIn("", true)
		}
	case strings.HasPrefix(tag, "UI_"):
		s.low(event.EventAction, tag)
		s.category("configuration")
	default:
		if action != "" {
			s.act(action)
		} else {
			s.low(event.EventAction, tag)
		}
	}
	s.str(event.EventKind, "event")
}

// junos reads both forms.
func (s *Set) junos(msg string) bool {
	// "RT_FLOW_SESSION_DENY [junos@2636... source-address=...]" whose header a relay took off.
	if i := find.Index(msg[:min(len(msg), 80)], " ["); i > 4 && junosTag(msg[:i]) {
		h := s.h
		s.h.id = msg[:i]
		s.h.sd, s.h.msg = structured(msg[i+1:])
		if s.junosStructured() {
			return true
		}
		s.undo()
		s.h = h
	}
	return s.junosStructured() || s.junosText(msg)
}

// junosText reads the RFC 3164 form: "RT_FLOW_SESSION_CREATE: session created a/p->b/p service na/p->nb/p ...".
func (s *Set) junosText(msg string) bool {
	t := msg
	tag := ""
	if i := strings.IndexByte(t, ':'); i > 4 && i < 60 && junosTag(t[:i]) {
		tag, t = t[:i], trimLeft(t[i+1:])
		if tag == "RT_FLOW" || tag == "RT_IDP" || tag == "RT_UTM" || tag == "RT_IDS" { // the tag of the program
			if i := strings.IndexByte(t, ':'); i > 4 && i < 60 && junosTag(t[:i]) {
				tag, t = t[:i], trimLeft(t[i+1:])
			}
		}
	}
	if tag == "" && junosTag(s.h.app) { // the envelope took the tag for the program
		tag, t = s.h.app, msg
	}
	if tag == "" {
		return false
	}
	switch {
	case strings.HasPrefix(tag, "RT_FLOW_SESSION"), strings.HasPrefix(tag, "APPTRACK_"):
	case strings.HasPrefix(tag, "RT_SCREEN"), strings.HasPrefix(tag, "IDP_ATTACK"), strings.HasPrefix(tag, "WEBFILTER_"), strings.HasPrefix(tag, "AV_"):
	case strings.HasPrefix(tag, "SNMP_TRAP"), strings.HasPrefix(tag, "UI_"), strings.HasPrefix(tag, "ESWD_"), strings.HasPrefix(tag, "SSHD_"), strings.HasPrefix(tag, "KMD_"), strings.HasPrefix(tag, "LOGIN_"):
	default:
		return false
	}
	s.junosDevice()
	if v, ok := between(t, "ssh-connection '", "'"); ok { // address, port, own address, own port
		src, r := cutSpace(v)
		sport, r := cutSpace(r)
		dst, dport := cutSpace(r)
		s.ip(event.SourceIP, src)
		s.port(event.SourcePort, sport)
		s.ip(event.DestinationIP, dst)
		s.port(event.DestinationPort, dport)
	}
	attack, action := "", ""
	switch {
	case strings.HasPrefix(tag, "RT_FLOW_SESSION"), strings.HasPrefix(tag, "APPTRACK_"):
		s.junosFlow(tag, t)
	case strings.HasPrefix(tag, "RT_SCREEN"):
		attack = t
		if i := find.Index(t, " source:"); i > 0 {
			attack = strings.TrimRight(t[:i], "! ")
		}
		s.endpoint(event.SourceIP, event.SourcePort, strings.TrimSuffix(after(t, "source: "), ","))
		s.endpoint(event.DestinationIP, event.DestinationPort, strings.TrimSuffix(after(t, "destination: "), ","))
		s.str(event.ObserverIngressZone, after(t, "zone name: "))
		s.str(event.ObserverIngressInterfaceName, after(t, "interface name: "))
		if a := after(t, "action: "); a != "" {
			action = a
		}
		if strings.HasPrefix(tag, "RT_SCREEN_TCP") {
			s.transport("tcp")
		} else if strings.HasPrefix(tag, "RT_SCREEN_UDP") {
			s.transport("udp")
		} else if strings.HasPrefix(tag, "RT_SCREEN_ICMP") {
			s.transport("icmp")
		}
	case strings.HasPrefix(tag, "IDP_"):
		if v, ok := between(t, "<", "> for"); ok {
			s.junosPair(v)
		}
		if i := find.Index(t, "> for "); i >= 0 {
			s.transport(wordOf(t[i+6:]))
		}
		action = after(t, "action=")
		attack = after(t, ", name=")
		s.severity(after(t, "threat-severity="))
	case strings.HasPrefix(tag, "WEBFILTER_"), strings.HasPrefix(tag, "AV_"):
		for r := t; r != ""; {
			var w string
			w, r = cutSpace(r)
			if find.Has(w, "->") {
				s.junosPair(w)
				break
			}
		}
		if v, ok := between(t, `CATEGORY="`, `"`); ok {
			s.str(event.RuleCategory, v)
		}
		if v, ok := between(t, "URL=", " "); ok {
			s.urlText(v)
		}
		if v := after(t, "username "); v != "" {
			s.user(v)
		}
	default:
		s.words(t)
		if v, ok := between(t, "User '", "'"); ok {
			s.user(v)
		}
	}
	s.junosMeaning(tag, action, attack)
	s.str(event.Message, t)
	return true
}

func junosTag(v string) bool {
	for i := 0; i < len(v); i++ {
		if v[i]-'A' > 25 && v[i] != '_' && !isDigit(v[i]) {
			return false
		}
	}
	return strings.IndexByte(v, '_') > 0
}

// junosPair reads "a/p->b/p" and "a(p)->b(p)".
func (s *Set) junosPair(v string) bool {
	i := find.Index(v, "->")
	if i < 0 {
		return false
	}
	a, p, ok := junosEnd(v[:i])
	b, q, ok2 := junosEnd(v[i+2:])
	if ok {
		s.addr(event.SourceIP, a)
		s.port(event.SourcePort, p)
	}
	if ok2 {
		s.addr(event.DestinationIP, b)
		s.port(event.DestinationPort, q)
	}
	return ok || ok2
}

func junosEnd(v string) (netip.Addr, string, bool) {
	if i := strings.IndexByte(v, '('); i > 0 && strings.HasSuffix(v, ")") {
		a, ok := parseIP(v[:i])
		return a, v[i+1 : len(v)-1], ok
	}
	if i := strings.LastIndexByte(v, '/'); i > 0 {
		a, ok := parseIP(v[:i])
		return a, v[i+1:], ok
	}
	return ipPort(v)
}

// junosFlow reads the positional text of a session line.
func (s *Set) junosFlow(tag, t string) {
	i := find.Index(t, "->")
	if i < 0 {
		return
	}
	if j := strings.LastIndexByte(t[:i], ' '); j >= 0 {
		if find.Has(tag, "CLOSE") {
			if k := find.Index(t, "session closed "); k >= 0 {
				s.str(event.EventReason, strings.TrimSuffix(trim(t[k+15:j+1]), ":"))
			}
		}
		t = t[j+1:]
	}
	pair, r := cutSpace(t)
	s.junosPair(pair)
	if strings.HasPrefix(r, "0x") { // the connection tag of newer versions
		_, r = cutSpace(r)
	}
	svc, r := cutSpace(r)
	s.low(event.NetworkProtocol, svc)
	if find.Has(tag, "DENY") { // service protocol(icmp-type) policy from-zone to-zone
		p, r := cutSpace(r)
		if k := strings.IndexByte(p, '('); k > 0 {
			p = p[:k]
		}
		s.transport(p)
		pol, r := cutSpace(r)
		from, r := cutSpace(r)
		to, _ := cutSpace(r)
		s.str(event.RuleName, pol)
		s.str(event.ObserverIngressZone, from)
		s.str(event.ObserverEgressZone, to)
		return
	}
	if w, r2 := cutSpace(r); find.Has(w, "->") { // translated
		k := find.Index(w, "->")
		if a, p, ok := junosEnd(w[:k]); ok {
			s.addr(event.SourceNATIP, a)
			s.port(event.SourceNATPort, p)
		}
		if a, p, ok := junosEnd(w[k+2:]); ok {
			s.addr(event.DestinationNATIP, a)
			s.port(event.DestinationNATPort, p)
		}
		r = r2
	}
	if strings.HasPrefix(r, "0x") {
		_, r = cutSpace(r)
	}
	// [src-nat-rule-type] src-nat-rule [dst-nat-rule-type] dst-nat-rule protocol policy from to session ...
	var w [12]string
	n := 0
	for ; n < len(w) && r != ""; n++ {
		w[n], r = cutSpace(r)
	}
	for k := 0; k+3 < n; k++ {
		if tn := transportName(w[k]); tn != "" && isDigit(w[k][0]) {
			s.str(event.NetworkTransport, tn)
			s.str(event.RuleName, w[k+1])
			s.str(event.ObserverIngressZone, w[k+2])
			s.str(event.ObserverEgressZone, w[k+3])
			if find.Has(tag, "CLOSE") && k+6 < n {
				s.junosCount(w[k+5], event.SourcePackets, event.SourceBytes)
				s.junosCount(w[k+6], event.DestinationPackets, event.DestinationBytes)
				if k+7 < n {
					s.seconds(w[k+7])
				}
			}
			break
		}
	}
}

// junosCount reads "packets(bytes)".
func (s *Set) junosCount(v string, packets, bytes event.Key) {
	i := strings.IndexByte(v, '(')
	if i <= 0 || !strings.HasSuffix(v, ")") {
		return
	}
	s.int(packets, v[:i])
	s.int(bytes, v[i+1:len(v)-1])
}

// netscreen reads ScreenOS: "NetScreen device_id=x [Root]system-notification-00257(traffic): start_time=".." policy_id= service= proto=
// src zone= dst zone= action=Deny sent= rcvd= src= dst= src_port= dst_port=".
func (s *Set) netscreen(msg string) bool {
	i := find.Index(msg, "device_id=")
	if i < 0 || !find.Has(msg[:i], "NetScreen") && !find.Has(msg, "system-") {
		return false
	}
	w := kv{s: msg[i:], bare: true}
	xlated := 0
	for pairs := 0; pairs < 100; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		v = unquote(v)
		switch key {
		case "start_time":
			s.setTime(v)
		case "policy_id":
			s.str(event.RuleID, v)
		case "service":
			if name, _, _ := strings.Cut(v, "("); !strings.Contains(name, "/") { // not "tcp/port:9007"
				s.low(event.NetworkProtocol, trim(name))
			}
		case "zone": // "src zone=Untrust dst zone=Trust"
			v, from := strings.CutSuffix(v, " dst")
			if from {
				s.str(event.ObserverIngressZone, v)
			} else {
				s.str(event.ObserverEgressZone, v)
			}
		case "device_id":
		case "src_port":
			s.port(event.SourcePort, wordOf(v))
		case "dst_port":
			s.port(event.DestinationPort, wordOf(v))
		case "ip", "port": // "src-xlated ip=192.0.2.1 port=43826 dst-xlated ip=198.51.100.1 port=80"
			if key == "ip" {
				xlated++
			}
			switch {
			case key == "ip" && xlated == 1:
				s.ip(event.SourceNATIP, wordOf(v))
			case key == "ip":
				s.ip(event.DestinationNATIP, wordOf(v))
			case xlated == 1:
				s.port(event.SourceNATPort, wordOf(v))
			case xlated == 2:
				s.port(event.DestinationNATPort, wordOf(v))
			}
		default:
			s.generic(key, v)
		}
	}
	// "SYN flood! From 192.0.2.1:4000 to 198.51.100.1:80, proto TCP (zone Untrust int ethernet0/0). Occurred 2 times."
	if at := find.Index(msg, "! From "); at > 0 && !s.e.Has(event.SourceIP) {
		from, to := cutSpace(msg[at+7:])
		s.endpoint(event.SourceIP, event.SourcePort, from)
		if to, ok := strings.CutPrefix(to, "to "); ok {
			s.endpoint(event.DestinationIP, event.DestinationPort, strings.TrimSuffix(wordOf(to), ","))
		}
		s.transport(strings.TrimSuffix(after(msg[at:], "proto "), ","))
		s.low(event.EventAction, trim(msg[strings.LastIndex(msg[:at], ": ")+1:at]))
		s.alert("intrusion_detection")
	}
	s.device("Juniper", "NetScreen", "firewall")
	s.dataset("juniper.netscreen")
	if s.e.Has(event.SourceIP) {
		s.network()
	}
	s.str(event.EventKind, "event")
	return true
}
