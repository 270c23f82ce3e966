package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// checkpoint reads Check Point's Log Exporter: syslog ([action:"Accept"; ifdir:"inbound"; src:"..."] and the RFC 5424 form with
// action="Accept"), splunk (time=..|hostname=..|action=Drop|..) and generic. service is the destination port, s_port the source's.
func (s *Set) checkpoint(msg string) bool {
	if !find.Has(msg, "loguid") && !find.Has(msg, "originsicname") && !find.Has(msg, "origin_sic_name") && !find.Has(msg, "product=") && !find.Has(msg, "product:\"") {
		return false
	}
	mode := byte(0)
	t := msg
	switch {
	case strings.Count(msg[:min(len(msg), 300)], "|") >= 3 && strings.IndexByte(msg, '=') >= 0:
		mode = '|'
	case find.Has(msg, `:"`) && find.Has(msg, `";`):
		mode = ':'
	case find.Has(msg, `="`):
		mode = '='
	default:
		return false
	}
	if mode == '=' && !find.Has(msg, "loguid=") && !find.Has(msg, "ifdir=") && !find.Has(msg, "originsicname=") {
		return false
	}
	if mode == '|' && !find.Has(msg, "loguid=") && !find.Has(msg, "ifdir=") {
		return false
	}
	s.device("Check Point", "", "firewall")
	s.dataset("checkpoint.firewall")
	if mode != '|' {
		if i := strings.IndexByte(t, '['); i >= 0 {
			t = t[i+1:]
		}
	}
	var f cpFields
	switch mode {
	case ':':
		// key:"value"; key:"value"
		for t != "" {
			i := find.Index(t, `:"`)
			if i < 0 {
				break
			}
			key := t[:i]
			if j := strings.LastIndexAny(key, "; ["); j >= 0 {
				key = key[j+1:]
			}
			end := quoteEnd(t, i+1)
			v := strings.TrimSuffix(t[i+2:end], `"`)
			t = t[end:]
			s.cpField(&f, key, v)
		}
	default:
		w := kv{s: t}
		if mode == '|' {
			w.sep = '|'
		}
		for pairs := 0; pairs < 300; pairs++ {
			key, v, ok := w.next()
			if !ok {
				break
			}
			s.cpField(&f, key, unquote(v))
		}
	}
	s.cpFinish(&f)
	return true
}

type cpFields struct{ action, product, time, operation, attack, resource, ifname, ifdir, status string }

func (s *Set) cpField(f *cpFields, key, v string) {
	if v == "" {
		return
	}
	switch key {
	case "action":
		if f.action == "" {
			f.action = v
		}
	case "product":
		f.product = v
		s.str(event.ObserverProduct, v)
	case "time":
		if f.time == "" {
			f.time = v
		}
	case "src", "client_ip":
		s.ip(event.SourceIP, v)
	case "dst":
		s.ip(event.DestinationIP, v)
	case "s_port":
		s.port(event.SourcePort, v)
	case "service":
		if allDigits(v) {
			s.port(event.DestinationPort, v)
		} else {
			s.low(event.NetworkProtocol, v)
		}
	case "service_id":
		s.low(event.NetworkProtocol, v)
	case "proto":
		s.transport(v)
	case "xlatesrc":
		if v != "0.0.0.0" {
			s.ip(event.SourceNATIP, v)
		}
	case "xlatesport":
		s.port(event.SourceNATPort, v)
	case "xlatedst":
		if v != "0.0.0.0" {
			s.ip(event.DestinationNATIP, v)
		}
	case "xlatedport":
		s.port(event.DestinationNATPort, v)
	case "rule_name", "layer_name", "malware_rule_name", "smartdefense_profile":
		if key == "rule_name" {
			s.str(event.RuleName, v)
		}
	case "rule_uid", "malware_rule_id":
		s.str(event.RuleUUID, v)
	case "rule":
		s.str(event.RuleID, v)
	case "user", "src_user_name", "administrator", "user_name", "src_user":
		if i := find.Index(v, " ("); i > 0 && strings.HasSuffix(v, ")") { // "Jane Doe (jdoe)"
			s.str(event.UserFullName, v[:i])
			v = v[i+2 : len(v)-1]
		}
		s.user(v)
	case "resource", "url":
		if f.resource == "" {
			f.resource = v
		}
	case "dns_query", "domain_name":
		s.domain(event.DNSQuestionName, v)
	case "attack", "protection_name", "malware_family":
		if f.attack == "" {
			f.attack = v
		}
	case "attack_info", "description":
		s.str(event.RuleDescription, v)
	case "appi_name", "app_name":
		s.low(event.NetworkApplication, v)
	case "app_category", "matched_category", "categories":
		s.str(event.RuleCategory, v)
	case "ifname":
		f.ifname = v
	case "ifdir":
		f.ifdir = v // of the interface, not of the site
	case "inzone":
		s.str(event.ObserverIngressZone, v)
	case "outzone":
		s.str(event.ObserverEgressZone, v)
	case "origin":
		s.ip(event.ObserverIP, v)
	case "loguid":
		s.str(event.EventID, v)
	case "client_outbound_bytes", "sent_bytes", "client_inbound_bytes":
		if key == "sent_bytes" || key == "client_inbound_bytes" {
			s.int(event.SourceBytes, v)
		}
	case "server_outbound_bytes", "received_bytes", "server_inbound_bytes":
		if key == "received_bytes" || key == "server_inbound_bytes" {
			s.int(event.DestinationBytes, v)
		}
	case "bytes":
		s.int(event.NetworkBytes, v)
	case "client_inbound_packets", "server_inbound_packets", "packets":
		if key == "packets" {
			s.int(event.NetworkPackets, v)
		}
	case "severity":
		if !s.severity(v) {
			switch v {
			case "4":
				s.str(event.TocsinSeverity, "critical")
			case "3":
				s.str(event.TocsinSeverity, "high")
			case "2":
				s.str(event.TocsinSeverity, "medium")
			case "1", "0":
				s.str(event.TocsinSeverity, "low")
			}
		}
	case "operation", "subject":
		if key == "operation" {
			f.operation = v
		}
	case "auth_status", "status", "audit_status", "login_status", "result":
		f.status = v
	case "reason", "fail_reason":
		s.str(event.EventReason, v)
	case "method":
		s.method(v)
	case "user_agent", "web_client_type":
		s.str(event.UserAgentOriginal, v)
	case "file_name":
		s.str(event.FileName, v)
	case "file_md5":
		s.str(event.FileHashMD5, v)
	case "file_sha1":
		s.str(event.FileHashSHA1, v)
	case "file_sha256":
		s.str(event.FileHashSHA256, v)
	case "file_size":
		s.int(event.FileSize, v)
	case "from", "sender":
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailFromAddress, v)
		}
	case "to", "recipient":
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailToAddress, v)
		}
	case "email_subject":
		s.str(event.EmailSubject, v)
	case "mac_source_address", "src_mac":
		s.mac(event.SourceMAC, v)
	case "mac_destination_address":
		s.mac(event.DestinationMAC, v)
	case "hostname":
		s.str(event.ObserverName, v)
	case "src_machine_name", "machine", "client_name":
		s.domain(event.SourceDomain, v)
	}
}

func (s *Set) cpFinish(f *cpFields) {
	e := s.e
	if f.time != "" {
		s.setTime(f.time)
	}
	if f.attack != "" {
		s.str(event.RuleName, f.attack)
		s.alert("intrusion_detection")
	}
	if f.resource != "" {
		s.urlText(f.resource)
	}
	if f.ifdir == "outbound" {
		s.str(event.ObserverEgressInterfaceName, f.ifname)
	} else {
		s.str(event.ObserverIngressInterfaceName, f.ifname)
	}
	if f.action != "" {
		s.act(f.action)
		switch f.action {
		case "Encrypt", "Decrypt", "Bypass", "Accept", "Allow", "Inspect", "VPN Routing", "Key Install":
			s.decide(allow)
		}
	} else if f.operation != "" {
		s.low(event.EventAction, f.operation)
	}
	switch {
	case f.operation == "Log In" || f.action == "Log In" || f.action == "Failed Log In" || f.action == "Login":
		s.outcome(f.status)
		s.signIn("", !find.HasFold(f.action, "fail"))
	case f.operation != "":
		s.outcome(f.status)
		s.category("configuration")
	}
	if f.status != "" {
		if o := outcomeOf(f.status); o != "" && !e.Has(event.TocsinVerdict) {
			e.SetString(event.EventOutcome, o)
		}
	}
	if e.Has(event.DestinationIP) {
		s.network()
	}
	s.str(event.EventKind, "event")
}
