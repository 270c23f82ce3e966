package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// merakiType says whether w is a Meraki event type, which stands where a program's tag would be.
func merakiType(w string) bool {
	switch w {
	case "flows", "firewall", "vpn_firewall", "cellular_firewall", "bridge_anyconnect_client_vpn_firewall", "ip_flow_start", "ip_flow_end", "urls", "events", "security_event",
		"ids-alerts", "airmarshal_events", "l7_firewall":
		return true
	}
	return false
}

// merakiRelayed reads a Meraki line whose own header stands behind a relay's, or without a priority: "[1 ]1794474060.123456789 NAME flows
// src=...". The time is the device's.
func (s *Set) merakiRelayed(msg string) bool {
	w, r := cutSpace(strings.TrimPrefix(msg, "1 "))
	if len(w) < 12 || len(w) > 24 || strings.IndexByte(w, '.') < 8 {
		return false
	}
	for i := range len(w) {
		if !isDigit(w[i]) && w[i] != '.' {
			return false
		}
	}
	name, r := cutSpace(r)
	if typ, _ := cutSpace(r); !merakiType(typ) || !s.meraki(r) {
		return false
	}
	s.h.host, s.h.app, s.h.pid = name, "", ""
	s.setTime(w)
	return true
}

var merakiProduct = newProduct("Cisco", "Meraki", "firewall", "cisco_meraki.events")

// meraki reads Cisco Meraki MX, MS and MR: "flows src= dst= protocol= sport= dport= pattern: allow all" and its relatives. In
// patterns 0 and allow permit, 1 and deny refuse.
func (s *Set) meraki(msg string) bool {
	typ, r := cutSpace(msg)
	if !merakiType(typ) {
		return false
	}
	if !find.Has(r, "=") && typ != "events" {
		return false
	}
	if typ == "firewall" && !find.Has(r, "pattern:") && !strings.HasPrefix(r, "allow src=") && !strings.HasPrefix(r, "deny src=") {
		return false // another product's word
	}
	s.of(merakiProduct)
	first, _ := cutSpace(r)
	head := ""
	if first != "" && strings.IndexByte(first, '=') < 0 {
		head = first // "flows allow src=", "security_event ids_alerted signature=", "events content_filtering_block url="
	}
	var pattern, request, decision, action, disposition, peer string
	w := kv{s: r}
	for pairs := 0; pairs < 100; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v == "" {
			continue
		}
		switch key {
		case "src", "Client":
			s.endpoint(event.SourceIP, event.SourcePort, v)
		case "dst":
			s.endpoint(event.DestinationIP, event.DestinationPort, v)
		case "sport":
			s.port(event.SourcePort, v)
		case "dport":
			s.port(event.DestinationPort, v)
		case "protocol":
			if i := strings.IndexByte(v, '/'); i > 0 {
				v = v[:i]
			}
			s.transport(v)
		case "mac", "client_mac":
			s.mac(event.SourceMAC, v)
		case "translated_src_ip":
			s.ip(event.SourceNATIP, v)
		case "translated_dst_ip":
			s.ip(event.DestinationNATIP, v)
		case "translated_port":
			s.port(event.SourceNATPort, v)
		case "user", "user_name", "identity", "username":
			s.user(v)
		case "agent":
			s.str(event.UserAgentOriginal, v)
		case "url":
			s.urlText(v)
		case "server":
			s.endpoint(event.DestinationIP, event.DestinationPort, v)
		case "category0":
			s.str(event.RuleCategory, v)
		case "signature":
			s.str(event.RuleID, v)
		case "priority":
			s.int(event.EventSeverity, v)
		case "timestamp":
			if !s.h.has {
				s.setTime(v)
			}
		case "decision":
			decision = v
		case "action":
			action = v
		case "disposition":
			disposition = v
		case "dhost":
			s.mac(event.DestinationMAC, v)
		case "direction":
			switch v {
			case "ingress":
				s.str(event.NetworkDirection, "inbound")
			case "egress":
				s.str(event.NetworkDirection, "outbound")
			}
		case "sha256":
			s.str(event.FileHashSHA256, v)
		case "name":
			s.str(event.FileName, v)
		case "type":
			if head == "" { // behind "flows allow" it is ICMP's
				head = v
			}
		case "peer_contact", "peer_ip", "client_ip", "remote_ip", "ip":
			peer = v
		case "ssid", "vap", "channel", "rssi", "aid", "radio", "band":
		}
	}
	if i := find.Index(r, "pattern: "); i >= 0 {
		pattern = r[i+9:]
	}
	if i := find.Index(r, "request: "); i >= 0 {
		request = r[i+9:]
	}
	if i := find.Index(r, "message: "); i >= 0 {
		s.str(event.RuleName, trim(r[i+9:]))
	}
	switch typ {
	case "urls":
		method, u := cutSpace(request)
		s.method(method)
		u, _ = cutSpace(u)
		if method == "UNKNOWN" || u != "" {
			s.urlText(u)
		} else {
			s.urlText(method)
		}
		s.str(event.EventAction, "urls")
		s.category("web")
		s.network()
	case "flows", "firewall", "vpn_firewall", "cellular_firewall", "bridge_anyconnect_client_vpn_firewall", "l7_firewall":
		word, _ := cutSpace(pattern)
		if word == "" {
			word = head
		}
		if word == "" && decision != "" {
			word = decision
		}
		switch word {
		case "0":
			s.str(event.EventAction, "allow")
			s.decide(allow)
		case "1":
			s.str(event.EventAction, "deny")
			s.decide(deny)
		default:
			s.act(word)
		}
		if pattern != "" {
			s.str(event.RuleDescription, trim(pattern))
		}
		s.network()
	case "ip_flow_start", "ip_flow_end":
		s.str(event.EventAction, typ)
		if typ == "ip_flow_start" {
			s.kind("start")
		} else {
			s.kind("end")
		}
		s.decide(allow)
		s.network()
	case "security_event", "ids-alerts":
		s.alert("intrusion_detection")
		if find.Has(head, "file") || disposition != "" {
			s.category("malware")
		}
		switch {
		case decision != "":
			s.act(decision)
		case action != "":
			s.act(action)
		case head != "":
			s.str(event.EventAction, head)
		}
		s.str(event.TocsinVerdict, "detect")
		s.network()
	default:
		name := head
		if name == "" || strings.IndexByte(name, '_') < 0 && !find.Has(r, "type="+name) && name != "dhcp" {
			name = typ
		}
		s.str(event.EventAction, name)
		if peer != "" {
			s.endpoint(event.SourceIP, event.SourcePort, peer)
		}
		if find.Has(name, "vpn") {
			s.merakiVPN(r)
		}
		switch {
		case strings.HasSuffix(name, "_block") || find.Has(name, "blocked"):
			s.decide(deny)
			s.category("web")
		case find.Has(name, "auth_success") || name == "client_vpn_connect" || name == "8021x_auth" || name == "anyconnect_vpn_connect" || name == "splash_auth":
			s.signIn(merakiService(name), true)
		case find.Has(name, "auth_fail") || name == "8021x_eap_failure":
			s.signIn(merakiService(name), false)
		case strings.HasPrefix(r, "Blocked ARP Packet from "):
			s.ip(event.SourceIP, after(r, " with IP "))
		case name == "dhcp" || strings.HasPrefix(r, "dhcp lease of ip "):
			s.ip(event.SourceIP, after(r, "dhcp lease of ip "))
		}
		s.str(event.Message, r)
	}
	s.str(event.EventKind, "event")
	return true
}

// merakiVPN reads the sentences of AnyConnect: "Server IP=192.0.2.1 Server port=1812 Peer IP=198.51.100.7 Peer port=56735 User=jane: ...",
// "User[jane]", "user id 'jane' local ip 192.0.2.9 connected from 198.51.100.7".
func (s *Set) merakiVPN(r string) {
	s.ip(event.SourceIP, after(r, "Peer IP="))
	s.port(event.SourcePort, strings.TrimRight(after(r, "Peer port="), ":."))
	s.ip(event.DestinationIP, after(r, "Server IP="))
	s.port(event.DestinationPort, after(r, "Server port="))
	if i := find.Index(r, "onnected from "); i >= 0 {
		s.endpoint(event.SourceIP, event.SourcePort, strings.Trim(wordOf(r[i+14:]), "'."))
	}
	u := strings.TrimRight(after(r, "User="), ":")
	if u == "" {
		u, _ = between(r, "User[", "]")
	}
	if u == "" {
		u, _ = between(r, "user id '", "'")
	}
	if u == "" {
		u, _ = between(r, "User ID '", "'")
	}
	s.user(u)
}

func merakiService(name string) string {
	if find.Has(name, "vpn") {
		return "vpn"
	}
	return "wireless"
}
