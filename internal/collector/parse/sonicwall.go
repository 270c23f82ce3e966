package parse

import (
	"strings"

	"tocsin/internal/event"
)

// sonicwall reads SonicWall SonicOS: id=firewall sn= time="..." fw= pri= m= msg="..." src=ip:port:interface:host. The message
// number m decides the meaning ("SonicOS Log Events Reference Guide"); fw_action is "NA" in many lines.
func (s *Set) sonicwall(msg string) bool {
	i := strings.Index(msg, "id=firewall")
	if i < 0 {
		i = strings.Index(msg, "id=sslvpn")
		if i < 0 {
			return false
		}
	}
	msg = msg[i:]
	if strings.Contains(msg, "logtype=") || strings.Contains(msg, "slotlevel=") || !strings.Contains(msg, " m=") && !strings.Contains(msg, " sn=") {
		return false
	}
	var m, text, action, arg, host string
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
		case "id", "c", "n", "f", "gcat", "cdur", "dpi", "sess", "bid", "fw":
			if key == "fw" {
				s.ip(event.ObserverIP, v)
			}
		case "sn":
			s.str(event.ObserverSerialNumber, v)
		case "time":
			s.setTime(v)
		case "pri":
			s.int(event.EventSeverity, v)
		case "m":
			m = v
			s.str(event.EventCode, v)
		case "msg":
			text = v
			s.str(event.Message, v)
		case "src":
			s.sonicEnd(v, event.SourceIP, event.SourcePort, event.ObserverIngressInterfaceName, event.SourceDomain)
		case "dst":
			s.sonicEnd(v, event.DestinationIP, event.DestinationPort, event.ObserverEgressInterfaceName, event.DestinationDomain)
		case "srcV6":
			s.ip(event.SourceIP, v)
		case "dstV6":
			s.ip(event.DestinationIP, v)
		case "natSrc":
			s.sonicEnd(v, event.SourceNATIP, event.SourceNATPort, 0, 0)
		case "natDst":
			s.sonicEnd(v, event.DestinationNATIP, event.DestinationNATPort, 0, 0)
		case "srcMac":
			s.mac(event.SourceMAC, v)
		case "dstMac":
			s.mac(event.DestinationMAC, v)
		case "proto":
			p, svc := v, ""
			if j := strings.IndexByte(v, '/'); j > 0 {
				p, svc = v[:j], v[j+1:]
			}
			s.transport(p)
			if svc != "" && !isDigit(svc[0]) {
				s.low(event.NetworkProtocol, svc)
			}
		case "usr", "user":
			s.user(v)
		case "sent":
			s.int(event.SourceBytes, v)
		case "rcvd":
			s.int(event.DestinationBytes, v)
		case "spkt":
			s.int(event.SourcePackets, v)
		case "rpkt":
			s.int(event.DestinationPackets, v)
		case "rule":
			s.str(event.RuleID, v)
		case "fw_action":
			action = v
		case "dstname":
			host = v
		case "arg":
			arg = v
		case "result", "code":
			if key == "result" && len(v) == 3 {
				s.int(event.HTTPResponseStatusCode, v)
			}
		case "op":
			switch v {
			case "1", "GET":
				s.str(event.HTTPRequestMethod, "GET")
			case "2", "POST":
				s.str(event.HTTPRequestMethod, "POST")
			case "3", "HEAD":
				s.str(event.HTTPRequestMethod, "HEAD")
			}
		case "Category", "category", "ipscat":
			s.str(event.RuleCategory, unquote(v))
		case "sid":
			s.str(event.RuleID, v)
		case "appName":
			s.low(event.NetworkApplication, v)
		case "note":
			s.str(event.EventReason, v)
		case "filename":
			s.str(event.FileName, v)
		case "duration":
			s.seconds(v)
		case "agent":
			s.str(event.UserAgentOriginal, v)
		}
	}
	s.device("SonicWall", "SonicOS", "firewall")
	s.dataset("sonicwall.firewall")
	if host != "" {
		s.domain(event.URLDomain, host)
		if arg != "" && arg[0] == '/' {
			s.join(event.URLOriginal, host, arg)
			s.path(arg)
		}
		s.category("web")
	}
	s.sonicMeaning(m, text, action)
	return true
}

// sonicEnd reads "ip:port:interface:host".
func (s *Set) sonicEnd(v string, ip, port, ifc, host event.Key) {
	if _, n := ipv4Prefix(v); n == 0 {
		s.endpoint(ip, port, v)
		return
	}
	s.endpoint(ip, port, v)
	for part := 0; part < 3; part++ {
		j := strings.IndexByte(v, ':')
		if j < 0 {
			return
		}
		v = v[j+1:]
		end := strings.IndexByte(v, ':')
		word := v
		if end >= 0 {
			word = v[:end]
		}
		switch part {
		case 1:
			if ifc != 0 {
				s.str(ifc, word)
			}
		case 2:
			if host != 0 {
				s.domain(host, word)
			}
		}
	}
}

func (s *Set) sonicMeaning(m, text, action string) {
	e := s.e
	n, _ := atoi(m)
	if action != "" && action != "NA" {
		s.act(action)
		if action == "mgmt" {
			s.decide(allow)
		}
	}
	switch n {
	case 14, 36, 37, 38, 39, 40, 41, 173, 174, 175, 23, 22, 25, 26, 27, 522, 524, 580, 652, 1197, 1198, 1199, 1200, 1201, 1373, 1374, 1375, 1376, 1459, 1460, 647, 648, 794, 609, 790, 809, 1155, 1476, 1477,
		713, 714, 708, 709, 712, 760:
		s.decide(deny)
	case 97, 98, 537, 1235, 1153, 526, 1149, 1497, 139, 598, 597:
		s.decide(allow)
	case 82, 83, 608, 789, 793, 1154, 267, 177, 178, 179:
		s.decide(detect)
	}
	switch n {
	case 29, 30, 31, 32, 33, 34, 35, 199, 200, 235, 236, 237, 238, 261, 262, 263, 264, 265, 328, 329, 413, 414, 438, 439, 440, 441, 486, 506, 507, 508, 509, 520, 549, 550, 551, 557, 560, 561, 562, 563, 564,
		583, 744, 745, 746, 747, 748, 749, 750, 751, 754, 755, 756, 757, 758, 759, 986, 987, 988, 989, 990, 991, 992, 993, 994, 1008, 1035, 1048, 1080, 1117, 1118, 1119, 1120, 1243, 140:
		s.low(event.EventAction, text)
		switch n {
		case 261, 263, 264, 265, 328, 413, 414, 506, 507, 520, 583, 986, 1243:
			s.category("session")
		default:
			service := "web"
			if strings.Contains(text, "VPN") || n == 139 || n == 140 {
				service = "vpn"
			}
			s.signIn(service, !failWords(text))
		}
	case 82, 83, 267, 177, 178, 179, 608, 609, 789, 790, 793, 794, 809, 1154, 1155, 25, 23, 22, 27:
		s.alert("intrusion_detection")
		s.str(event.RuleName, text)
	}
	if !e.Has(event.TocsinVerdict) {
		switch {
		case containsFold(text, "dropped"), containsFold(text, "blocked"), containsFold(text, "denied"), containsFold(text, "rejected"), containsFold(text, " drop "):
			if !e.HasString(event.EventCategory, "authentication") {
				s.decide(deny)
			}
		case containsFold(text, "allowed"), containsFold(text, "connection opened"), containsFold(text, "connection closed"), containsFold(text, "web site hit"), containsFold(text, "permitted"):
			s.decide(allow)
		case containsFold(text, "detected"):
			s.decide(detect)
		}
	}
	if !e.Has(event.EventAction) {
		s.low(event.EventAction, text)
	}
	if e.Has(event.DestinationIP) {
		s.network()
	}
	s.str(event.EventKind, "event")
}
