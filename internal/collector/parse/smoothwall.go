package parse

import (
	"strings"

	"tocsin/internal/event"
)

// smoothwall reads the JSON firewall lines: {"action":"drop","date":1794474060,"dpt":445,"dst":"..","proto":6,"spt":40112,"src":".."}.
func (s *Set) smoothwall(msg string) bool {
	if msg[0] != '{' || !strings.Contains(msg, `"action"`) || !strings.Contains(msg, `"src"`) || !strings.Contains(msg, `"proto"`) {
		return false
	}
	if !strings.Contains(msg, `"rule_type"`) && !hasFold(s.h.host, "smoothwall") {
		return false
	}
	w := &s.json
	w.start(msg)
	for pairs := 0; pairs < 200 && w.next(); pairs++ {
		v := s.jstr(w.val)
		switch string(w.path[:w.n]) {
		case "action":
			s.act(v)
		case "date":
			s.setTime(v)
		case "src":
			s.ip(event.SourceIP, v)
		case "dst":
			s.ip(event.DestinationIP, v)
		case "spt":
			s.port(event.SourcePort, v)
		case "dpt":
			s.port(event.DestinationPort, v)
		case "proto":
			s.transport(v)
		case "rule", "rule_id":
			s.str(event.RuleID, v)
		case "rule_type":
			s.str(event.RuleRuleset, v)
		case "in":
			s.str(event.ObserverIngressInterfaceName, v)
		case "out":
			s.str(event.ObserverEgressInterfaceName, v)
		case "smac", "src_mac":
			s.mac(event.SourceMAC, v)
		}
	}
	s.device("Smoothwall", "Smoothwall", "firewall")
	s.dataset("smoothwall.firewall")
	s.network()
	return true
}

// stormshield reads Stormshield SNS: id=firewall time="..." fw="..." tz=+0100 startime="..." pri=5 ... action=block logtype="filter".
func (s *Set) stormshield(msg string) bool {
	if !strings.Contains(msg, "id=firewall") || !strings.Contains(msg, "logtype=") && !strings.Contains(msg, "slotlevel=") {
		return false
	}
	e := s.e
	var clock, zone, logtype, user string
	w := kv{s: msg}
	for pairs := 0; pairs < 200; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v == "" {
			continue
		}
		switch key {
		case "id", "pri", "confid", "slotlevel", "alarmid", "srcportname", "modsrcport", "dstportname":
		case "time":
			clock = v
		case "tz":
			zone = v
		case "fw":
			s.str(event.ObserverName, v)
		case "ruleid":
			s.str(event.RuleID, v)
		case "rulename":
			s.str(event.RuleName, v)
		case "srcif", "srcifname":
			s.str(event.ObserverIngressInterfaceName, v)
		case "dstif", "dstifname":
			s.str(event.ObserverEgressInterfaceName, v)
		case "ipproto":
			s.transport(v)
		case "proto":
			s.low(event.NetworkProtocol, v)
		case "modsrc":
			s.ip(event.SourceNATIP, v)
		case "origdst":
			s.ip(event.DestinationNATIP, v)
		case "srcname":
			s.domain(event.SourceDomain, v)
		case "dstname":
			s.domain(event.DestinationDomain, v)
		case "user":
			user = v
		case "logtype":
			logtype = v
		case "result":
			if len(v) == 3 && allDigits(v) {
				s.int(event.HTTPResponseStatusCode, v)
			}
		case "op":
			s.method(v)
		case "arg":
			if len(v) > 0 && v[0] == '/' {
				s.urlText(v)
			}
		case "cat_site":
			s.str(event.RuleCategory, v)
		case "class", "classification":
			s.str(event.RuleCategory, v)
		default:
			s.generic(key, v)
		}
	}
	s.user(user)
	if clock != "" {
		var c civil
		if isoAt(clock, &c) > 0 {
			zoneAt(zone, &c)
			if t, ok := s.unix(&c); ok {
				e.Time = t
			}
		}
	}
	s.device("Stormshield", "SNS", "firewall")
	s.dataset("stormshield.sns")
	if logtype == "alarm" {
		s.alert("intrusion_detection")
	}
	s.network()
	return true
}
