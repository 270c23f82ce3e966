package parse

import (
	"strings"

	"tocsin/internal/event"
)

// eveTypes are Suricata's own event types ("Eve JSON Format", Suricata User Guide, and the protocol loggers of Suricata 4 to 8). Others
// write an event_type too.
var eveTypes = map[string]bool{
	"alert": true, "anomaly": true, "arp": true, "bittorrent_dht": true, "dcerpc": true, "dhcp": true, "dnp3": true, "dns": true, "doh2": true, "drop": true, "email": true,
	"engine": true, "enip": true, "fileinfo": true, "files": true, "flow": true, "frame": true, "ftp": true, "ftp_data": true, "http": true, "http2": true, "igmp": true, "ike": true,
	"ikev2": true, "krb5": true, "ldap": true, "mdns": true, "metadata": true, "modbus": true, "mqtt": true, "netflow": true, "nfs": true, "packet": true, "pgsql": true,
	"pop3": true, "quic": true, "rdp": true, "rfb": true, "sip": true, "smb": true, "smtp": true, "snmp": true, "ssh": true, "stats": true, "telnet": true, "template": true,
	"tftp": true, "tls": true, "verdict": true, "websocket": true,
}

// eveLine says whether a JSON object is one of Suricata's.
func eveLine(msg string) bool {
	i := strings.Index(msg, `"event_type"`)
	if i < 0 || !strings.Contains(msg, `"timestamp"`) {
		return false
	}
	t := trimLeft(msg[i+len(`"event_type"`):])
	if t == "" || t[0] != ':' {
		return false
	}
	if t = trimLeft(t[1:]); t == "" || t[0] != '"' {
		return false
	}
	t = t[1:]
	j := strings.IndexByte(t[:min(len(t), 24)], '"')
	if j < 0 || !eveTypes[t[:j]] {
		return false
	}
	return strings.Contains(msg, `"flow_id"`) || strings.Contains(msg, `"src_ip"`) || strings.Contains(msg, `"stats"`) || strings.Contains(msg, `"engine"`)
}

// eve reads Suricata's EVE JSON, all event types: the common part and the fields of alert, anomaly, drop, http, dns, tls, ssh,
// smtp, fileinfo, flow, netflow, ftp, krb5, rdp, smb, dhcp and the rest as far as ECS names them. A line that was cut gives what it holds.
func (s *Set) eve(msg string) bool {
	if len(msg) < 20 || msg[0] != '{' || !eveLine(msg) {
		return false // before anything else is done: every JSON object comes by here
	}
	w := &s.json
	w.start(msg)
	e := s.e
	var typ, action string
	appProto, host, url, httpMethod := "", "", "", ""
	for pairs := 0; pairs < 4000 && w.next(); pairs++ {
		v := w.val
		if v.kind == '0' || v.raw == "" {
			continue
		}
		switch string(w.path[:w.n]) {
		case "timestamp":
			var c civil
			if isoAt(v.raw, &c) > 0 {
				if t, ok := s.unix(&c); ok {
					e.Time = t
				}
			}
		case "event_type":
			typ = v.raw
		case "src_ip":
			s.ip(event.SourceIP, v.raw)
		case "src_port":
			s.port(event.SourcePort, v.raw)
		case "dest_ip":
			s.ip(event.DestinationIP, v.raw)
		case "dest_port":
			s.port(event.DestinationPort, v.raw)
		case "proto":
			s.transport(v.raw)
		case "app_proto":
			appProto = v.raw
		case "in_iface":
			s.str(event.ObserverIngressInterfaceName, v.raw)
		case "host":
			s.str(event.ObserverHostname, s.jstr(v))
		case "flow_id":
			s.str(event.EventID, v.raw)
		case "community_id":
			if len(v.raw) > 4 {
				s.str(event.NetworkCommunityID, v.raw)
			}
		case "vlan":
			s.str(event.NetworkVLANID, v.raw)
		case "direction":
			// to_server or to_client: not a network direction
		case "alert.action", "drop.reason":
			if w.path[0] == 'a' {
				action = v.raw
			} else {
				s.str(event.EventReason, s.jstr(v))
			}
		case "verdict.action":
			if v.raw == "drop" || v.raw == "reject" {
				action = v.raw
			}
		case "alert.signature_id":
			s.str(event.RuleID, v.raw)
		case "alert.rev":
			s.str(event.RuleVersion, v.raw)
		case "alert.signature":
			s.str(event.RuleName, s.jstr(v))
		case "alert.category":
			s.str(event.RuleCategory, s.jstr(v))
		case "alert.severity":
			s.int(event.EventSeverity, v.raw)
			switch v.raw {
			case "1":
				s.str(event.TocsinSeverity, "high")
			case "2":
				s.str(event.TocsinSeverity, "medium")
			default:
				s.str(event.TocsinSeverity, "low")
			}
		case "alert.metadata.mitre_technique_id":
			s.str(event.ThreatTechniqueID, v.raw)
		case "alert.metadata.mitre_technique_name":
			s.str(event.ThreatTechniqueName, s.jstr(v))
		case "alert.metadata.mitre_tactic_id":
			s.str(event.ThreatTacticID, v.raw)
		case "alert.metadata.mitre_tactic_name":
			s.str(event.ThreatTacticName, s.jstr(v))
		case "flow.bytes_toserver", "netflow.bytes":
			s.int(event.SourceBytes, v.raw)
		case "flow.bytes_toclient":
			s.int(event.DestinationBytes, v.raw)
		case "flow.pkts_toserver", "netflow.pkts":
			s.int(event.SourcePackets, v.raw)
		case "flow.pkts_toclient":
			s.int(event.DestinationPackets, v.raw)
		case "flow.start":
			if t, ok := s.anyTime(v.raw); ok {
				s.e.SetTime(event.EventStart, t)
			}
		case "flow.end":
			if t, ok := s.anyTime(v.raw); ok {
				s.e.SetTime(event.EventEnd, t)
			}
		case "flow.age":
			s.seconds(v.raw)
		case "flow.reason":
			s.str(event.EventReason, v.raw)
		case "flow.action":
			if v.raw == "drop" {
				action = "drop"
			}
		case "http.hostname":
			host = s.jstr(v)
		case "http.url":
			url = s.jstr(v)
		case "http.http_user_agent":
			s.str(event.UserAgentOriginal, s.jstr(v))
		case "http.http_method":
			httpMethod = s.jstr(v)
		case "http.status":
			s.int(event.HTTPResponseStatusCode, v.raw)
		case "http.length":
			s.int(event.HTTPResponseBodyBytes, v.raw)
		case "http.http_refer":
			s.str(event.HTTPRequestReferrer, s.jstr(v))
		case "http.http_content_type":
			s.str(event.HTTPResponseMimeType, s.jstr(v))
		case "dns.rrname", "dns.queries.rrname", "dns.query.rrname":
			s.domain(event.DNSQuestionName, s.jstr(v))
		case "dns.rrtype", "dns.queries.rrtype", "dns.query.rrtype":
			s.str(event.DNSQuestionType, v.raw)
		case "dns.type":
			s.str(event.DNSType, v.raw)
		case "dns.rcode":
			s.str(event.DNSResponseCode, v.raw)
		case "dns.id":
			s.str(event.DNSID, v.raw)
		case "dns.answers.rdata", "dns.rdata", "dns.grouped.A", "dns.grouped.AAAA":
			if w.index < 32 {
				e.AddString(event.DNSAnswersData, s.jstr(v))
			}
		case "tls.sni":
			s.domain(event.TLSClientServerName, s.jstr(v))
		case "tls.version":
			s.str(event.TLSVersion, s.jstr(v))
		case "tls.subject":
			s.str(event.TLSServerSubject, s.jstr(v))
		case "tls.issuerdn":
			s.str(event.TLSServerIssuer, s.jstr(v))
		case "tls.ja3.hash":
			s.str(event.TLSClientJA3, v.raw)
		case "tls.ja3s.hash":
			s.str(event.TLSServerJA3S, v.raw)
		case "fileinfo.filename", "smtp.attachment":
			s.str(event.FileName, baseName(s.jstr(v)))
		case "fileinfo.size":
			s.int(event.FileSize, v.raw)
		case "fileinfo.md5":
			s.str(event.FileHashMD5, v.raw)
		case "fileinfo.sha1":
			s.str(event.FileHashSHA1, v.raw)
		case "fileinfo.sha256":
			s.str(event.FileHashSHA256, v.raw)
		case "email.from":
			s.str(event.EmailFromAddress, s.jstr(v))
		case "email.to":
			s.str(event.EmailToAddress, s.jstr(v))
		case "email.subject":
			s.str(event.EmailSubject, s.jstr(v))
		case "krb5.cname", "smb.ntlmssp.user":
			s.user(s.jstr(v))
		case "smb.ntlmssp.domain":
			s.str(event.UserDomain, s.jstr(v))
		case "ftp.command_data":
			// may be a password: not taken
		case "anomaly.event":
			s.str(event.RuleName, v.raw)
		case "anomaly.type":
			s.str(event.RuleCategory, v.raw)
		case "ether.src_mac":
			s.mac(event.SourceMAC, v.raw)
		case "ether.dest_mac", "ether.dst_mac":
			s.mac(event.DestinationMAC, v.raw)
		}
	}
	if typ == "" {
		if e.Len() == 0 {
			return false
		}
		typ = "event"
	}
	s.device("OISF", "Suricata", "ids")
	s.dataset("suricata.eve")
	if appProto != "" && appProto != "failed" {
		s.low(event.NetworkProtocol, appProto)
	}
	if httpMethod != "" {
		s.str(event.HTTPRequestMethod, httpMethod)
	}
	if host != "" {
		h := host
		if i := strings.LastIndexByte(h, ':'); i > 0 && allDigits(h[i+1:]) {
			h = h[:i]
		}
		s.domain(event.URLDomain, h)
	}
	if url != "" {
		s.urlText(url)
	}
	s.category("network")
	switch typ {
	case "alert":
		s.alert("intrusion_detection")
		s.low(event.EventAction, action)
		switch action {
		case "blocked", "drop", "reject":
			s.decide(deny)
		case "allowed", "pass", "":
			// The packet went on and a signature matched: a detection, on allowed traffic.
			if action != "" {
				s.kind("allowed")
			}
			s.str(event.TocsinVerdict, "detect")
		}
		s.kind("info")
	case "drop":
		s.action("drop", deny)
	case "anomaly":
		s.str(event.EventAction, "anomaly")
		s.kind("info")
	case "stats":
		s.e.Del(event.EventCategory)
		s.str(event.EventKind, "metric")
	default:
		if action == "drop" || action == "reject" {
			s.action(action, deny)
		}
		s.low(event.EventAction, typ)
		switch typ {
		case "flow", "netflow":
			s.kind("connection")
			s.kind("end")
		case "http", "http2":
			s.category("web")
			s.kind("access")
			s.kind("protocol")
		case "fileinfo":
			s.category("file")
		default:
			s.kind("protocol")
		}
	}
	s.str(event.EventKind, "event")
	return true
}

// baseName is what follows the last slash or backslash.
func baseName(p string) string {
	if i := strings.LastIndexAny(p, `/\`); i >= 0 && i+1 < len(p) {
		return p[i+1:]
	}
	return p
}
