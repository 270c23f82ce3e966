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
