package parse

import (
	"strings"

	"tocsin/internal/event"
)

// Fortinet FortiGate (FortiOS 5 to 7) in key="value" form: traffic, utm, event, dns, ssh and the rest. FortiWeb, FortiMail and
// FortiAnalyzer use the same dress with other keys and are read here too. Keys: "FortiOS Log Message Reference", Fortinet.

// fgt holds what has to be seen together before it means something.
type fgt struct {
	date, time, tz, eventtime string
	typ, subtype, action      string
	utmaction, status, level  string
	attack, attackid, virus   string
	policyid, signature       string
	user, ui, msg, trandisp   string
	eventtype, hostname, url  string
	vpn, tunneltype, dir      string
	logid, client, reason     string
	product                   string
}

func (s *Set) fortigate(msg string) bool {
	if !strings.HasPrefix(msg, "date=") {
		i := strings.Index(msg, "devid=")
		if i < 0 {
			i = strings.Index(msg, "device_id=")
		}
		if i < 0 || strings.Index(msg, "type=") < 0 {
			return false
		}
		if j := strings.Index(msg, "date="); j >= 0 && j < i {
			i = j
		} else if j := strings.Index(msg, "devname="); j >= 0 && j < i {
			i = j
		}
		msg = msg[i:]
	} else if len(msg) < 25 || strings.Index(msg, "type=") < 0 || strings.Index(msg, "id=") < 0 {
		return false
	}
	e := s.e
	var f fgt
	i, n := 0, len(msg)
	for {
		for i < n && (msg[i] == ' ' || msg[i] == ',') {
			i++
		}
		start := i
		for i < n && msg[i] != '=' && msg[i] != ' ' {
			i++
		}
		if i >= n {
			break
		}
		if msg[i] == ' ' {
			continue
		}
		key := msg[start:i]
		i++
		var v string
		if i < n && msg[i] == '"' {
			end := quoteEnd(msg, i)
			if end > i+1 && msg[end-1] == '"' {
				v = msg[i+1 : end-1]
			} else {
				v = msg[i+1 : end]
			}
			i = end
		} else {
			start = i
			for i < n && msg[i] != ' ' && msg[i] != ',' {
				i++
			}
			v = msg[start:i]
		}
		if v == "" {
			continue
		}
		s.fortiField(&f, key, v)
	}
	if f.typ == "" && f.logid == "" {
		if e.Len() == 0 {
			return false
		}
	}
	s.fortiFinish(&f)
	return true
}

func (s *Set) fortiField(f *fgt, key, v string) {
	e := s.e
	switch key {
	case "date":
		f.date = v
	case "time":
		f.time = v
	case "tz", "timezone":
		f.tz = v
	case "eventtime":
		f.eventtime = v
	case "logid", "log_id":
		f.logid = v
		s.str(event.EventCode, v)
	case "type":
		f.typ = v
	case "subtype":
		f.subtype = v
	case "eventtype":
		f.eventtype = v
	case "level", "pri":
		f.level = v
		s.str(event.LogLevel, v)
	case "devname":
		s.str(event.ObserverName, v)
	case "devid", "device_id":
		s.str(event.ObserverSerialNumber, v)
	case "srcip", "src", "src_ip":
		s.ip(event.SourceIP, v)
	case "srcport", "src_port":
		s.port(event.SourcePort, v)
	case "dstip", "dst", "dst_ip":
		s.ip(event.DestinationIP, v)
	case "dstport", "dst_port":
		s.port(event.DestinationPort, v)
	case "srcintf", "src_int":
		s.str(event.ObserverIngressInterfaceName, v)
	case "dstintf", "dst_int":
		s.str(event.ObserverEgressInterfaceName, v)
	case "srcmac":
		s.mac(event.SourceMAC, v)
	case "dstmac", "masterdstmac":
		s.mac(event.DestinationMAC, v)
	case "srcname":
		s.domain(event.SourceDomain, v)
	case "dstname":
		s.domain(event.DestinationDomain, v)
	case "proto":
		if t := transportName(v); t != "" {
			s.str(event.NetworkTransport, t)
		}
	case "service":
		s.low(event.NetworkProtocol, v)
	case "app":
		s.low(event.NetworkApplication, v)
	case "action":
		if f.action == "" {
			f.action = v
		}
	case "utmaction":
		f.utmaction = v
	case "status":
		f.status = v
	case "policyid", "policy_id":
		f.policyid = v
	case "policyname", "policy", "policy_name":
		s.str(event.RuleName, v)
	case "poluuid":
		s.str(event.RuleUUID, v)
	case "policytype":
		s.str(event.RuleRuleset, v)
	case "sentbyte", "sent":
		s.int(event.SourceBytes, v)
	case "rcvdbyte", "rcvd":
		s.int(event.DestinationBytes, v)
	case "http_request_bytes":
		s.int(event.SourceBytes, v)
		s.int(event.HTTPRequestBytes, v)
	case "http_response_bytes":
		s.int(event.DestinationBytes, v)
		s.int(event.HTTPResponseBytes, v)
	case "sentpkt":
		s.int(event.SourcePackets, v)
	case "rcvdpkt":
		s.int(event.DestinationPackets, v)
	case "duration":
		s.seconds(v)
	case "trandisp":
		f.trandisp = v
	case "transip":
		if v != "0.0.0.0" && v != "::" {
			s.ip(event.SourceNATIP, v)
		}
	case "transport":
		s.port(event.SourceNATPort, v)
	case "tranip":
		if v != "0.0.0.0" && v != "::" {
			s.ip(event.DestinationNATIP, v)
		}
	case "tranport":
		s.port(event.DestinationNATPort, v)
	case "user", "unauthuser", "user_name":
		if f.user == "" && v != "N/A" {
			f.user = v
			s.user(v)
		}
	case "xauthuser", "initiator":
		if f.user == "" && v != "N/A" {
			f.user = v
			s.user(v)
		}
	case "group":
		if v != "N/A" {
			s.str(event.SourceUserGroupName, v)
		}
	case "ui":
		f.ui = v
	case "msg":
		f.msg = v
		s.str(event.Message, v)
	case "logdesc":
		s.str(event.RuleDescription, v)
	case "reason", "error_reason":
		f.reason = v
		s.str(event.EventReason, v)
	case "remip", "remote", "rem_ip":
		s.endpoint(event.SourceIP, event.SourcePort, v)
	case "remport", "rem_port":
		s.port(event.SourcePort, v)
	case "locip", "loc_ip":
		s.ip(event.DestinationIP, v)
	case "locport", "loc_port":
		s.port(event.DestinationPort, v)
	case "client_ip":
		s.ip(event.SourceIP, v)
	case "client_name":
		s.domain(event.SourceDomain, v)
	case "tunneltype":
		f.tunneltype = v
	case "vpntunnel":
		f.vpn = v
	case "tunnelip":
		if v != "N/A" && v != "(null)" {
			s.ip(event.SourceNATIP, v)
		}
	case "url", "http_url":
		f.url = v
	case "hostname", "http_host":
		f.hostname = v
	case "qname":
		s.domain(event.DNSQuestionName, v)
	case "qtype":
		s.str(event.DNSQuestionType, v)
	case "ipaddr":
		s.str(event.DNSAnswersData, v)
	case "method", "http_method":
		if len(v) < 10 && v != "ip" && v != "domain" {
			s.str(event.HTTPRequestMethod, v)
		}
	case "httpmethod":
		s.str(event.HTTPRequestMethod, v)
	case "http_retcode":
		s.int(event.HTTPResponseStatusCode, v)
	case "agent", "http_agent":
		s.str(event.UserAgentOriginal, v)
	case "referralurl", "http_refer":
		s.str(event.HTTPRequestReferrer, v)
	case "attack":
		f.attack = v
	case "attackid", "signature_id":
		f.attackid = v
	case "virus":
		f.virus = v
	case "ref":
		s.str(event.RuleReference, v)
	case "severity", "crlevel", "severity_level", "apprisk":
		s.fortiSeverity(key, v)
	case "catdesc", "signature_subclass":
		s.str(event.RuleCategory, v)
	case "filename", "file":
		s.str(event.FileName, v)
	case "filesize":
		s.int(event.FileSize, v)
	case "filehash", "analyticscksum":
		if len(v) == 64 {
			s.str(event.FileHashSHA256, v)
		}
	case "direction", "dir":
		f.dir = v
	case "sessionid":
		s.str(event.EventID, v)
	case "from", "sender":
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailFromAddress, v)
		}
	case "to", "recipient":
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailToAddress, v)
		}
	case "subject":
		s.str(event.EmailSubject, v)
	case "sn":
		if len(v) > 8 {
			s.str(event.ObserverSerialNumber, v)
		}
	case "ip":
		f.client = v
	case "mac":
		s.mac(event.SourceMAC, v)
	case "dstcountry", "srccountry", "crscore", "craction", "appcat", "countapp":
	default:
		_ = e
	}
}

func (s *Set) fortiSeverity(key, v string) {
	if key == "apprisk" {
		return
	}
	switch {
	case equalFold(v, "critical"):
		s.str(event.TocsinSeverity, "critical")
	case equalFold(v, "high"):
		s.str(event.TocsinSeverity, "high")
	case equalFold(v, "medium"):
		s.str(event.TocsinSeverity, "medium")
	case equalFold(v, "low"), equalFold(v, "info"):
		s.str(event.TocsinSeverity, "low")
	}
}

// fortiTime puts eventtime (when it has a plausible number of digits) before date, time and tz.
func (s *Set) fortiTime(f *fgt) {
	if f.eventtime != "" {
		if t, ok := epoch(f.eventtime); ok {
			s.e.Time = t
			return
		}
	}
	if len(f.date) == 10 && len(f.time) >= 8 {
		var c civil
		if f.date[4] != '-' {
			return
		}
		c.year = two(f.date, 0)*100 + two(f.date, 2)
		c.month, c.day = two(f.date, 5), two(f.date, 8)
		if clockAt(f.time, &c) == 0 || c.year < 1971 {
			return
		}
		if tz := strings.TrimPrefix(strings.TrimPrefix(f.tz, "("), "GMT"); tz != "" {
			zoneAt(tz, &c)
		}
		if t, ok := s.unix(&c); ok {
			s.e.Time = t
		}
	}
}

func (s *Set) fortiFinish(f *fgt) {
	e := s.e
	s.fortiTime(f)
	product, dataset, kind := "FortiGate", "fortinet.fortigate", "firewall"
	if id := e.Str(event.ObserverSerialNumber); len(id) > 3 {
		switch {
		case strings.HasPrefix(id, "FV"):
			product, dataset, kind = "FortiWeb", "fortinet.fortiweb", "waf"
		case strings.HasPrefix(id, "FE"):
			product, dataset, kind = "FortiMail", "fortinet.fortimail", "mail"
		case strings.HasPrefix(id, "FAZ") || strings.HasPrefix(id, "FL-") || strings.HasPrefix(id, "FAZ-"):
			product, dataset, kind = "FortiAnalyzer", "fortinet.fortianalyzer", ""
		case strings.HasPrefix(id, "FMG"):
			product, dataset, kind = "FortiManager", "fortinet.fortimanager", ""
		}
	}
	s.device("Fortinet", product, kind)
	s.dataset(dataset)
	if f.attackid != "" {
		s.str(event.RuleID, f.attackid)
	} else {
		s.str(event.RuleID, f.policyid)
	}
	if f.hostname != "" {
		s.domain(event.URLDomain, f.hostname)
	}
	if f.url != "" {
		s.urlText(f.url)
	}
	switch f.typ {
	case "traffic":
		s.network()
		if f.action != "" {
			s.low(event.EventAction, f.action)
		}
		switch f.action {
		case "accept", "close", "client-rst", "server-rst", "timeout", "ip-conn", "start", "dns", "Accept", "passthrough", "permit", "allow":
			switch f.utmaction {
			case "block", "blocked", "reset", "dropped", "drop", "deny":
				s.decide(deny)
			default:
				s.decide(allow)
			}
		default:
			s.decide(verdictOf(f.action))
		}
		if f.action == "close" || f.action == "timeout" || f.action == "client-rst" || f.action == "server-rst" {
			s.kind("end")
		}
		if product == "FortiWeb" && f.status != "" {
			s.outcome(f.status)
		}
		return
	case "utm", "attack", "virus", "spam", "webfilter", "ips", "app-ctrl", "dlp", "dns", "emailfilter", "anomaly", "waf", "ssl", "ssh", "file-filter", "voip", "cifs":
		s.fortiSecurity(f)
		return
	}
	s.fortiEvent(f)
}

// fortiSecurity finishes utm and FortiWeb attack lines.
func (s *Set) fortiSecurity(f *fgt) {
	sub := f.subtype
	if sub == "" {
		sub = f.typ
	}
	if f.attack != "" {
		s.e.Del(event.RuleName)
		s.str(event.RuleName, f.attack)
	} else if f.virus != "" {
		s.e.Del(event.RuleName)
		s.str(event.RuleName, f.virus)
	}
	switch {
	case sub == "ips" || sub == "anomaly" || sub == "waf" || f.typ == "attack":
		s.alert("intrusion_detection")
	case sub == "virus":
		s.alert("malware")
	case sub == "webfilter" || sub == "app-ctrl" || sub == "app-ctrl-all":
		s.category("web")
	case sub == "emailfilter" || f.typ == "spam":
		s.category("email")
	}
	s.category("network")
	s.kind("connection")
	if f.action != "" {
		s.low(event.EventAction, f.action)
		switch f.action {
		case "pass_session", "pass", "passthrough", "exempt", "log-only", "log", "detected":
			if f.action == "detected" || f.action == "log-only" || f.action == "log" {
				s.decide(detect)
			} else {
				s.decide(allow)
			}
		case "clear_session", "dropped", "drop_session", "redirect":
			s.decide(deny)
		default:
			s.decide(verdictOf(f.action))
		}
	} else if f.eventtype != "" {
		s.low(event.EventAction, f.eventtype)
		s.decide(verdictOf(f.eventtype))
	}
}

// fortiEvent finishes event logs: administrators, VPN, users, system.
func (s *Set) fortiEvent(f *fgt) {
	e := s.e
	if f.action != "" {
		s.low(event.EventAction, f.action)
	}
	if f.ui != "" && !e.Has(event.SourceIP) { // ui="https(192.0.2.7)"
		if a, ok := between(f.ui, "(", ")"); ok {
			s.ip(event.SourceIP, a)
		}
	}
	switch {
	case f.subtype == "vpn":
		s.category("network")
		ssl := strings.HasPrefix(f.action, "ssl") || strings.HasPrefix(f.tunneltype, "ssl")
		switch f.action {
		case "ssl-login-fail", "xauth-fail":
			s.signIn("vpn", false)
		case "tunnel-up", "ssl-tunnel-up", "ssl-web-login", "ssl-new-con-ok":
			if ssl || f.user != "" {
				s.signIn("vpn", true)
			} else {
				s.kind("start")
				s.outcome("success")
			}
		case "tunnel-down", "ssl-tunnel-down", "phase2-down":
			s.category("session")
			s.kind("end")
			s.str(event.TocsinService, "vpn")
		case "negotiate":
			s.outcome(f.status)
			if o := f.status; o == "negotiate_error" || o == "failure" {
				s.outcome("failure")
			}
			s.str(event.TocsinService, "vpn")
		default:
			s.outcome(f.status)
			s.str(event.TocsinService, "vpn")
		}
	case f.action == "login" || f.action == "Login" || strings.HasSuffix(f.action, "login"):
		svc := "web"
		switch {
		case strings.HasPrefix(f.ui, "ssh"):
			svc = "ssh"
		case strings.HasPrefix(f.ui, "telnet"):
			svc = "telnet"
		case strings.HasPrefix(f.ui, "console") || strings.HasPrefix(f.ui, "jsconsole"):
			svc = "console"
		}
		s.outcome(f.status)
		s.signIn(svc, outcomeOf(f.status) != "failure" && !strings.Contains(f.msg, "fail"))
	case f.action == "logout":
		s.category("session")
		s.kind("end")
		s.outcome(f.status)
	case f.subtype == "user" && (strings.HasPrefix(f.action, "auth") || strings.Contains(f.action, "logon")):
		s.outcome(f.status)
		s.category("authentication")
		s.kind("start")
	case f.subtype == "system":
		s.category("host")
		s.kind("info")
		s.outcome(f.status)
	default:
		s.kind("info")
		s.outcome(f.status)
	}
	if f.client != "" && f.subtype != "system" {
		s.ip(event.SourceIP, f.client)
	}
	switch f.action {
	case "Edit", "Add", "Delete", "Move", "edit", "add", "delete":
		s.category("configuration")
		s.kind("change")
	default:
		if v := verdictOf(f.action); v != noVerdict && (e.Has(event.DestinationIP) || e.Has(event.SourceIP)) {
			s.decide(v)
		}
	}
	if !e.Has(event.EventKind) {
		e.SetString(event.EventKind, "event")
	}
}
