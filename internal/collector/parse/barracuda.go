package parse

import (
	"strings"

	"tocsin/internal/event"
)

// barracuda reads Barracuda CloudGen Firewall activity: "Info host Allow: FWD|TCP|eth1|10.0.0.5|50400|mac|203.0.113.4|443|https|eth0|
// rule|0|..." or the same as "type=FWD|proto=TCP|srcIF=eth1|srcIP=...". Words: Allow, Block, Deny, Drop, Detect, Remove, LocalAllow, LocalBlock.
func (s *Set) barracuda(msg string) bool {
	bar := strings.IndexByte(msg, '|')
	if bar < 0 {
		return false
	}
	word, body := s.h.app, msg // "Block: type=FWD|...", whose word the header took for a program
	colon := strings.LastIndex(msg[:bar], ": ")
	if colon >= 0 {
		word, body = msg[:colon], msg[colon+2:]
		if i := strings.LastIndexByte(word, ' '); i >= 0 {
			word = word[i+1:]
		}
	}
	switch word {
	case "Allow", "Block", "Deny", "Drop", "Detect", "Remove", "Fail", "Terminate", "LocalAllow", "LocalBlock", "LocalDeny", "Discard", "ARP", "Flood", "Scan", "Accept":
	default:
		if colon < 0 || !strings.HasPrefix(body, "type=") {
			return false
		}
	}
	keyed := strings.HasPrefix(body, "type=")
	if !keyed && strings.Count(body, "|") < 9 {
		return false
	}
	names := [...]string{"type", "proto", "srcIF", "srcIP", "srcPort", "srcMAC", "dstIP", "dstPort", "dstService", "dstIF", "rule", "info", "srcNAT", "dstNAT", "duration", "count",
		"receivedBytes", "sentBytes", "receivedPackets", "sentPackets", "user", "protocol", "application", "target", "content", "urlcat"}
	for i := 0; body != "" && i < 40; i++ {
		part := body
		if j := strings.IndexByte(body, '|'); j >= 0 {
			part, body = body[:j], body[j+1:]
		} else {
			body = ""
		}
		key := ""
		if keyed {
			j := strings.IndexByte(part, '=')
			if j < 0 {
				continue
			}
			key, part = part[:j], part[j+1:]
		} else if i < len(names) {
			key = names[i]
		}
		s.cudaField(key, trim(part))
	}
	if colon < 0 {
		s.h.app = ""
	}
	s.device("Barracuda", "CloudGen Firewall", "firewall")
	s.dataset("barracuda.cloudgen_firewall")
	s.low(event.EventAction, word)
	switch word {
	case "Allow", "LocalAllow", "Remove", "Accept":
		s.decide(allow)
	case "Detect", "Scan":
		s.decide(detect)
	default:
		s.decide(deny)
	}
	s.network()
	return true
}

func (s *Set) cudaField(key, v string) {
	if v == "" {
		return
	}
	switch key {
	case "proto":
		v, _, _ = strings.Cut(v, "(") // "IGMP(2)"
		s.transport(v)
	case "srcIF":
		s.str(event.ObserverIngressInterfaceName, v)
	case "srcIP":
		s.ip(event.SourceIP, v)
	case "srcPort":
		s.port(event.SourcePort, v)
	case "srcMAC":
		s.mac(event.SourceMAC, v)
	case "dstIP":
		s.ip(event.DestinationIP, v)
	case "dstPort":
		s.port(event.DestinationPort, v)
	case "dstService":
		s.low(event.NetworkProtocol, v)
	case "dstIF":
		s.str(event.ObserverEgressInterfaceName, v)
	case "rule":
		s.str(event.RuleName, v)
	case "info":
		if v != "0" {
			s.str(event.EventReason, v)
		}
	case "srcNAT":
		if v != "0.0.0.0" {
			s.ip(event.SourceNATIP, v)
		}
	case "dstNAT":
		if v != "0.0.0.0" {
			s.ip(event.DestinationNATIP, v)
		}
	case "receivedBytes":
		s.int(event.SourceBytes, v)
	case "sentBytes":
		s.int(event.DestinationBytes, v)
	case "receivedPackets":
		s.int(event.SourcePackets, v)
	case "sentPackets":
		s.int(event.DestinationPackets, v)
	case "duration":
		if n, ok := atoi(v); ok && !s.e.Has(event.EventDuration) {
			s.e.SetInt(event.EventDuration, n*1e6)
		}
	case "user":
		s.user(v)
	case "application":
		s.low(event.NetworkApplication, v)
	case "target":
		s.domain(event.URLDomain, v)
	}
}
