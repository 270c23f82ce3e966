package parse

import (
	"strings"

	"tocsin/internal/event"
)

// sophos reads Sophos Firewall (XG, XGS): device="SFW" date= time= timezone="BST" ..., or, newer, timestamp="2026-11-12T08:50:01+0100"
// device_model="XGS2100" .... log_subtype is the action. Unquoted values may hold blanks ("ether_type=Unknown (0x0000)").
// Zone abbreviations are ambiguous (CDT, IST): only GMT, UTC and BST are used, otherwise the syslog header's or the configured zone.
func (s *Set) sophos(msg string) bool {
	if !strings.Contains(msg, `device_model=`) && !strings.Contains(msg, `device="SFW"`) && !strings.Contains(msg, "device=\"SF") && !strings.Contains(msg, "device_name=\"SFW\"") {
		return false
	}
	if !strings.Contains(msg, "log_type=") {
		return false
	}
	e := s.e
	var date, clock, zone, typ, comp, sub, status, stamp string
	w := kv{s: msg, bare: true}
	for pairs := 0; pairs < 300; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v == "" {
			continue
		}
		switch key {
		case "date":
			date = v
		case "time":
			clock = v
		case "timezone":
			zone = v
		case "timestamp":
			stamp = v
		case "device", "device_model", "iap", "policy_type", "hb_health", "hb_status", "connevent", "con_event", "vconnid", "priority", "severity":
			if key == "priority" || key == "severity" {
				s.str(event.LogLevel, v)
			}
		case "device_name":
			s.str(event.ObserverName, v)
		case "device_id", "device_serial_id":
			s.str(event.ObserverSerialNumber, v)
		case "log_id":
			s.str(event.EventCode, v)
		case "log_type":
			typ = v
		case "log_component":
			comp = v
		case "log_subtype":
			sub = v
		case "status":
			status = v
		case "fw_rule_id":
			s.str(event.RuleID, v)
		case "fw_rule_name":
			s.str(event.RuleName, v)
		case "signature_msg":
			e.Del(event.RuleName)
			s.str(event.RuleName, v)
		case "signature_id":
			if v != "0" {
				e.Del(event.RuleID)
				s.str(event.RuleID, v)
			}
		case "virus", "malware", "threatname":
			e.Del(event.RuleName)
			s.str(event.RuleName, v)
		case "user_name", "user", "name":
			if key != "name" || typ == "Event" {
				s.user(v)
			}
		case "user_gp", "user_group":
			s.str(event.SourceUserGroupName, v)
		case "src_ip", "localip", "source_ip":
			s.ip(event.SourceIP, v)
		case "ip":
			s.ip(event.SourceIP, v)
		case "dst_ip":
			s.ip(event.DestinationIP, v)
		case "tran_src_ip", "src_trans_ip":
			s.ip(event.SourceNATIP, v)
		case "tran_src_port", "src_trans_port":
			s.port(event.SourceNATPort, v)
		case "tran_dst_ip", "dst_trans_ip":
			s.ip(event.DestinationNATIP, v)
		case "tran_dst_port", "dst_trans_port":
			s.port(event.DestinationNATPort, v)
		case "srczone", "src_zone":
			s.str(event.ObserverIngressZone, v)
		case "dstzone", "dst_zone":
			s.str(event.ObserverEgressZone, v)
		case "sent_bytes", "bytes_sent":
			s.int(event.SourceBytes, v)
		case "recv_bytes", "bytes_received":
			s.int(event.DestinationBytes, v)
		case "sent_pkts", "packets_sent":
			s.int(event.SourcePackets, v)
		case "recv_pkts", "packets_received":
			s.int(event.DestinationPackets, v)
		case "domainname", "domain", "sslvpn_domain":
			s.domain(event.URLDomain, v)
		case "category":
			s.str(event.RuleCategory, v)
		case "httpresponsecode", "status_code", "http_status":
			s.int(event.HTTPResponseStatusCode, v)
		case "connid", "con_id":
			s.str(event.EventID, v)
		case "app_name", "application_name", "application":
			s.low(event.NetworkApplication, v)
		case "sender", "from_email_address":
			s.str(event.EmailFromAddress, v)
		case "recipient", "to_email_address":
			s.str(event.EmailToAddress, v)
		case "mailsubject", "email_subject":
			s.str(event.EmailSubject, v)
		case "FTP_url", "ftp_url":
			s.urlText(v)
		case "message", "msg":
			s.str(event.Message, v)
		case "log_occurrence", "client_used", "action", "rule_priority", "platform", "target", "hostname":
		default:
			s.generic(key, v)
		}
	}
	switch {
	case stamp != "":
		s.setTime(stamp)
	case len(date) == 10 && len(clock) >= 8:
		var c civil
		c.year, c.month, c.day = two(date, 0)*100+two(date, 2), two(date, 5), two(date, 8)
		if clockAt(clock, &c) > 0 && c.year > 1970 {
			zoneAt(zone, &c)
			if t, ok := s.unix(&c); ok {
				e.Time = t
			}
		}
	}
	s.device("Sophos", "Firewall", "firewall")
	s.dataset("sophos.xg")
	if sub != "" {
		s.low(event.EventAction, sub)
	}
	switch typ {
	case "Firewall", "SSL", "Wireless Protection", "Security policy":
		s.decide(verdictOf(sub))
		s.decide(verdictOf(status))
		s.network()
	case "IDP", "ATP", "Anti-Virus", "WAF", "Sandbox", "Sandstorm", "Threat intelligence", "Zero-day protection":
		cat := "intrusion_detection"
		if typ == "Anti-Virus" || typ == "Sandbox" || typ == "Sandstorm" {
			cat = "malware"
		}
		s.alert(cat)
		s.decide(verdictOf(sub))
		s.network()
	case "Content Filtering", "Content filter", "Web filter", "Application filter":
		s.category("web")
		s.decide(verdictOf(sub))
		s.network()
	case "Anti-Spam", "Email":
		s.category("email")
		s.decide(verdictOf(sub))
	case "Event", "System", "Admin", "Authentication":
		s.outcome(status)
		m := e.Str(event.Message)
		service := ""
		switch {
		case strings.Contains(comp, "VPN") || strings.Contains(sub, "VPN") || strings.Contains(comp, "IPSec"):
			service = "vpn"
		case comp == "GUI" || strings.Contains(comp, "Portal"):
			service = "web"
		case comp == "CLI":
			service = "ssh"
		}
		if service != "" {
			s.str(event.TocsinService, service)
		}
		if sub == "Authentication" || strings.Contains(comp, "Authentication") || ((service != "") && (containsFold(m, "log") && containsFold(m, " in"))) {
			if o := e.Str(event.EventOutcome); o != "" {
				s.signIn(service, o == "success")
			} else {
				s.signInWords(m)
			}
		}
		s.kind("info")
	default:
		s.decide(verdictOf(sub))
		s.decide(verdictOf(status))
	}
	s.str(event.EventKind, "event")
	return true
}

// sophosUTM reads Sophos UTM 9: ulogd, httpproxy, snort, smtpd and aua lines with id="2001" sys="SecureNet" sub="packetfilter".
func (s *Set) sophosUTM(msg string) bool {
	if !strings.HasPrefix(msg, `id="`) || !strings.Contains(msg, `sys="Secure`) && !strings.Contains(msg, `sys="System"`) {
		return false
	}
	var sub, name string
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
		case "id":
			s.str(event.EventCode, v)
		case "severity":
			s.str(event.LogLevel, v)
		case "sys":
		case "sub":
			sub = v
		case "name":
			name = v
			s.str(event.Message, v)
		case "action":
			s.act(v)
		case "fwrule":
			s.str(event.RuleID, v)
		case "reason":
			s.str(event.RuleName, v)
		case "sid":
			s.str(event.RuleID, v)
		case "class":
			s.str(event.RuleCategory, v)
		case "initf":
			s.str(event.ObserverIngressInterfaceName, v)
		case "outitf":
			s.str(event.ObserverEgressInterfaceName, v)
		case "categoryname":
			s.str(event.RuleCategory, v)
		case "statuscode":
			s.int(event.HTTPResponseStatusCode, v)
		case "length":
			s.int(event.NetworkBytes, v)
		case "size":
			s.int(event.DestinationBytes, v)
		case "request", "category", "profile", "filteraction", "time", "cached", "error", "host":
			if key == "host" && sub == "" {
				s.domain(event.URLDomain, v)
			}
		default:
			s.generic(key, v)
		}
	}
	s.device("Sophos", "UTM", "firewall")
	s.dataset("sophos.utm")
	switch sub {
	case "packetfilter":
		s.network()
	case "http":
		s.category("web")
		s.network()
	case "ips":
		s.alert("intrusion_detection")
		s.network()
	case "auth":
		s.signIn("", !containsFold(name, "fail"))
	}
	s.str(event.EventKind, "event")
	return true
}
