package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// ftd reads Firepower's "Key: value, Key: value": intrusion (430001), connection start and end (430002, 430003), file (430004)
// and malware (430005). Values may hold commas, so a comma ends a value only before "Key:". eStreamer's syslog (SFIMS) has the
// same form.
func (s *Set) ftd(code int64, t string) {
	e := s.e
	fw, inline := "", ""
	for i := 0; i < len(t); {
		for i < len(t) && (t[i] == ' ' || t[i] == ',') {
			i++
		}
		start := i
		k := strings.IndexByte(t[i:], ':')
		if k < 0 {
			break
		}
		i += k
		key := t[start:i]
		i++
		end := ftdEnd(t, i)
		v := trim(t[i:end])
		i = end
		if strings.IndexByte(key, ',') >= 0 {
			if j := strings.LastIndex(key, ", "); j >= 0 {
				key = key[j+2:]
			}
		}
		switch key {
		case "SrcIP":
			s.ip(event.SourceIP, v)
		case "DstIP":
			s.ip(event.DestinationIP, v)
		case "SrcPort":
			s.port(event.SourcePort, v)
		case "DstPort":
			s.port(event.DestinationPort, v)
		case "Protocol":
			s.transport(v)
		case "AccessControlRuleAction":
			fw = v
		case "InlineResult", "IntrusionAction":
			inline = v
		case "AccessControlRuleName":
			s.str(event.RuleName, v)
		case "ACPolicy", "Policy", "IntrusionPolicy":
			s.str(event.RuleRuleset, v)
		case "Message":
			v = unquote(v)
			s.str(event.Message, v)
			if code == 430001 { // the signature, which says more than the access rule
				e.Del(event.RuleName)
				s.str(event.RuleName, v)
			}
		case "SID":
			s.str(event.RuleID, v)
		case "Classification":
			s.str(event.RuleCategory, v)
		case "Priority":
			s.int(event.EventSeverity, v)
		case "IngressInterface":
			s.str(event.ObserverIngressInterfaceName, v)
		case "EgressInterface":
			s.str(event.ObserverEgressInterfaceName, v)
		case "IngressZone":
			s.str(event.ObserverIngressZone, v)
		case "EgressZone":
			s.str(event.ObserverEgressZone, v)
		case "User":
			if !strings.HasPrefix(v, "No Authentication") && !strings.HasPrefix(v, "Not Found") && !strings.HasPrefix(v, "Special Identities") {
				s.asaUser(v)
			}
		case "Client", "ClientApplication":
		case "ApplicationProtocol":
			s.low(event.NetworkProtocol, v)
		case "WebApplication":
			s.low(event.NetworkApplication, v)
		case "InitiatorBytes":
			s.int(event.SourceBytes, v)
		case "ResponderBytes":
			s.int(event.DestinationBytes, v)
		case "InitiatorPackets":
			s.int(event.SourcePackets, v)
		case "ResponderPackets":
			s.int(event.DestinationPackets, v)
		case "ConnectionDuration":
			s.seconds(v)
		case "URL":
			s.urlText(v)
		case "ReferencedHost", "HTTPReferer":
			if key == "ReferencedHost" {
				s.domain(event.URLDomain, v)
			} else {
				s.str(event.HTTPRequestReferrer, v)
			}
		case "DNSQuery":
			s.domain(event.DNSQuestionName, v)
		case "DNSRecordType":
			s.str(event.DNSQuestionType, v)
		case "HTTPResponse":
			s.int(event.HTTPResponseStatusCode, v)
		case "UserAgent":
			s.str(event.UserAgentOriginal, v)
		case "FileName":
			s.str(event.FileName, v)
		case "FileSize":
			s.int(event.FileSize, v)
		case "FileSHA256":
			s.str(event.FileHashSHA256, v)
		case "FileAction":
			fw = v
		case "FileType":
			s.str(event.FileMimeType, v)
		case "ThreatName":
			s.str(event.RuleName, v)
		case "NAT_InitiatorIP":
			s.ip(event.SourceNATIP, v)
		case "NAT_InitiatorPort":
			s.port(event.SourceNATPort, v)
		case "NAT_ResponderIP":
			s.ip(event.DestinationNATIP, v)
		case "NAT_ResponderPort":
			s.port(event.DestinationNATPort, v)
		case "FirstPacketSecond", "EventSecond":
			if t, ok := s.anyTime(v); ok && e.Time == 0 {
				e.Time = t
			}
		case "ServerName", "SSLServerName":
			s.domain(event.TLSClientServerName, v)
		case "ConnectionID":
			s.str(event.EventID, v)
		}
	}
	switch {
	case code == 430001:
		s.alert("intrusion_detection")
		if inline != "" {
			s.act(inline)
		}
		s.decide(detect)
	case code == 430005:
		s.alert("malware")
	case code == 430004:
		s.category("file")
	case code == 430002:
		s.kind("start")
	case code == 430003:
		s.kind("end")
	}
	if fw != "" {
		s.low(event.EventAction, fw)
		switch {
		case hasFold(fw, "block"), hasFold(fw, "malware block"), hasFold(fw, "custom detection block"), hasFold(fw, "interactive block"):
			s.decide(deny)
		case hasFold(fw, "monitor"), hasFold(fw, "detect"):
			s.decide(detect)
		default:
			s.decide(verdictOf(fw))
		}
	}
	s.network()
}

// firepower reads the same pairs in eStreamer's syslog, which has no message number.
func (s *Set) firepower(msg string) bool {
	if !find.Has(msg, "SrcIP: ") {
		return false
	}
	s.device("Cisco", "Firepower", "firewall")
	s.dataset("cisco.ftd")
	s.ftd(0, msg)
	return true
}

// ftdName says which bytes a key may have.
var ftdName = func() (t [256]bool) {
	for i := range t {
		c := byte(i)
		t[i] = isAlpha(c) || isDigit(c) || c == '_' || c == ' ' || c == '-'
	}
	return t
}()

// ftdEnd gives the index of the comma that ends the value at t[i].
func ftdEnd(t string, i int) int {
	for {
		k := strings.IndexByte(t[i:], ',')
		if k < 0 {
			return len(t)
		}
		i += k
		j := i + 1
		for j < len(t) && t[j] == ' ' {
			j++
		}
		n := j
		for n < len(t) && n-j < 40 && ftdName[t[n]] {
			n++
		}
		if n > j && n < len(t) && t[n] == ':' {
			return i
		}
		i++
	}
}
