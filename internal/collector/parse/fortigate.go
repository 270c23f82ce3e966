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
	policyid                  string
	user, ui, msg, trandisp   string
	eventtype, hostname, url  string
	vpn, tunneltype, dir      string
	logid, client, reason     string
}

// fgtKey is the number of a key of FortiGate's lines; 0 is an unknown one. Keys that are known and not used have numbers too, so
// that the walk may predict them.
type fgtKey uint8

const (
	_ fgtKey = iota
	fkDate
	fkTime
	fkTz
	fkTimezone
	fkEventtime
	fkLogid
	fkLogId
	fkType
	fkSubtype
	fkEventtype
	fkLevel
	fkPri
	fkDevname
	fkDevid
	fkDeviceId
	fkSrcip
	fkSrc
	fkSrcIp
	fkSrcport
	fkSrcPort
	fkDstip
	fkDst
	fkDstIp
	fkDstport
	fkDstPort
	fkSrcintf
	fkSrcInt
	fkDstintf
	fkDstInt
	fkSrcmac
	fkDstmac
	fkMasterdstmac
	fkSrcname
	fkDstname
	fkProto
	fkService
	fkApp
	fkAction
	fkUtmaction
	fkStatus
	fkPolicyid
	fkPolicyId
	fkPolicyname
	fkPolicy
	fkPolicyName
	fkPoluuid
	fkPolicytype
	fkSentbyte
	fkSent
	fkRcvdbyte
	fkRcvd
	fkHttpRequestBytes
	fkHttpResponseBytes
	fkSentpkt
	fkRcvdpkt
	fkDuration
	fkTrandisp
	fkTransip
	fkTransport
	fkTranip
	fkTranport
	fkUser
	fkUnauthuser
	fkUserName
	fkXauthuser
	fkInitiator
	fkGroup
	fkUi
	fkMsg
	fkLogdesc
	fkReason
	fkErrorReason
	fkRemip
	fkRemote
	fkRemIp
	fkRemport
	fkRemPort
	fkLocip
	fkLocIp
	fkLocport
	fkLocPort
	fkClientIp
	fkClientName
	fkTunneltype
	fkVpntunnel
	fkTunnelip
	fkUrl
	fkHttpUrl
	fkHostname
	fkHttpHost
	fkQname
	fkQtype
	fkIpaddr
	fkMethod
	fkHttpMethod
	fkHttpmethod
	fkHttpRetcode
	fkAgent
	fkHttpAgent
	fkReferralurl
	fkHttpRefer
	fkAttack
	fkAttackid
	fkSignatureId
	fkVirus
	fkRef
	fkSeverity
	fkCrlevel
	fkSeverityLevel
	fkApprisk
	fkCatdesc
	fkSignatureSubclass
	fkFilename
	fkFile
	fkFilesize
	fkFilehash
	fkAnalyticscksum
	fkDirection
	fkDir
	fkSessionid
	fkFrom
	fkSender
	fkTo
	fkRecipient
	fkSubject
	fkSn
	fkIp
	fkMac
	fkDstcountry
	fkSrccountry
	fkCrscore
	fkCraction
	fkAppcat
	fkCountapp
	fkSrcintfrole
	fkDstintfrole
	fkProfile
	fkCfgtid
	fkCfgpath
	fkCfgobj
	fkCfgattr
	fkIncidentserialno
	fkViruscat
	fkDtype
	fkQuarskip
	fkReqtype
	fkCat
	fkVd
	fkAppid
	fkApplist
	fkAppact
	fkSrcserver
	fkDstserver
	fkSrcfamily
	fkDstfamily
	fkSrcswversion
	fkDsthwvendor
	fkSrchwvendor
	fkOsname
	fkDevtype
	fkDevcategory
	fkMastersrcmac
	fkSentdelta
	fkRcvddelta
	fkCountweb
	fkCountips
	fkCountav
	fkTunnelid
	fkDstHost
	fkEventsubtype
	fkXid
	fkQtypeval
	fkQclass
	fkCpu
	fkMem
	fkTotalsession
	fkDisk
	fkBandwidth
	fkSetuprate
	fkDisklograte
	fkFazlograte
	fkVwlid
	fkVwlname
	fkLanin
	fkLanout
	fkWanin
	fkWanout
	fkSrcuuid
	fkDstuuid
	fkLogver
	fkItime
	fkCollectedemail
	fkCrdb
	fkPoluid
	fkDstregion
	fkSrcregion
	fkDstinetsvc
	fkHostid
	fkTzX
	fkForwardedfor
	fkAuthserver
	fkSslaction
	fkUnauthusersource
	fkMsgId
	fkTriggerPolicy
	fkSrcreputation
	fkDstreputation
	fkCentralnatid
	fkShapingpolicyid
	fkShaperdropsentbyte
	fkThreats
	fkThreatwgts
	fkThreatcnts
	fkThreatlvls
	fkThreattyps
	fgtKeyEnd
)

var fgtNames = [fgtKeyEnd]string{
	fkDate:               "date",
	fkTime:               "time",
	fkTz:                 "tz",
	fkTimezone:           "timezone",
	fkEventtime:          "eventtime",
	fkLogid:              "logid",
	fkLogId:              "log_id",
	fkType:               "type",
	fkSubtype:            "subtype",
	fkEventtype:          "eventtype",
	fkLevel:              "level",
	fkPri:                "pri",
	fkDevname:            "devname",
	fkDevid:              "devid",
	fkDeviceId:           "device_id",
	fkSrcip:              "srcip",
	fkSrc:                "src",
	fkSrcIp:              "src_ip",
	fkSrcport:            "srcport",
	fkSrcPort:            "src_port",
	fkDstip:              "dstip",
	fkDst:                "dst",
	fkDstIp:              "dst_ip",
	fkDstport:            "dstport",
	fkDstPort:            "dst_port",
	fkSrcintf:            "srcintf",
	fkSrcInt:             "src_int",
	fkDstintf:            "dstintf",
	fkDstInt:             "dst_int",
	fkSrcmac:             "srcmac",
	fkDstmac:             "dstmac",
	fkMasterdstmac:       "masterdstmac",
	fkSrcname:            "srcname",
	fkDstname:            "dstname",
	fkProto:              "proto",
	fkService:            "service",
	fkApp:                "app",
	fkAction:             "action",
	fkUtmaction:          "utmaction",
	fkStatus:             "status",
	fkPolicyid:           "policyid",
	fkPolicyId:           "policy_id",
	fkPolicyname:         "policyname",
	fkPolicy:             "policy",
	fkPolicyName:         "policy_name",
	fkPoluuid:            "poluuid",
	fkPolicytype:         "policytype",
	fkSentbyte:           "sentbyte",
	fkSent:               "sent",
	fkRcvdbyte:           "rcvdbyte",
	fkRcvd:               "rcvd",
	fkHttpRequestBytes:   "http_request_bytes",
	fkHttpResponseBytes:  "http_response_bytes",
	fkSentpkt:            "sentpkt",
	fkRcvdpkt:            "rcvdpkt",
	fkDuration:           "duration",
	fkTrandisp:           "trandisp",
	fkTransip:            "transip",
	fkTransport:          "transport",
	fkTranip:             "tranip",
	fkTranport:           "tranport",
	fkUser:               "user",
	fkUnauthuser:         "unauthuser",
	fkUserName:           "user_name",
	fkXauthuser:          "xauthuser",
	fkInitiator:          "initiator",
	fkGroup:              "group",
	fkUi:                 "ui",
	fkMsg:                "msg",
	fkLogdesc:            "logdesc",
	fkReason:             "reason",
	fkErrorReason:        "error_reason",
	fkRemip:              "remip",
	fkRemote:             "remote",
	fkRemIp:              "rem_ip",
	fkRemport:            "remport",
	fkRemPort:            "rem_port",
	fkLocip:              "locip",
	fkLocIp:              "loc_ip",
	fkLocport:            "locport",
	fkLocPort:            "loc_port",
	fkClientIp:           "client_ip",
	fkClientName:         "client_name",
	fkTunneltype:         "tunneltype",
	fkVpntunnel:          "vpntunnel",
	fkTunnelip:           "tunnelip",
	fkUrl:                "url",
	fkHttpUrl:            "http_url",
	fkHostname:           "hostname",
	fkHttpHost:           "http_host",
	fkQname:              "qname",
	fkQtype:              "qtype",
	fkIpaddr:             "ipaddr",
	fkMethod:             "method",
	fkHttpMethod:         "http_method",
	fkHttpmethod:         "httpmethod",
	fkHttpRetcode:        "http_retcode",
	fkAgent:              "agent",
	fkHttpAgent:          "http_agent",
	fkReferralurl:        "referralurl",
	fkHttpRefer:          "http_refer",
	fkAttack:             "attack",
	fkAttackid:           "attackid",
	fkSignatureId:        "signature_id",
	fkVirus:              "virus",
	fkRef:                "ref",
	fkSeverity:           "severity",
	fkCrlevel:            "crlevel",
	fkSeverityLevel:      "severity_level",
	fkApprisk:            "apprisk",
	fkCatdesc:            "catdesc",
	fkSignatureSubclass:  "signature_subclass",
	fkFilename:           "filename",
	fkFile:               "file",
	fkFilesize:           "filesize",
	fkFilehash:           "filehash",
	fkAnalyticscksum:     "analyticscksum",
	fkDirection:          "direction",
	fkDir:                "dir",
	fkSessionid:          "sessionid",
	fkFrom:               "from",
	fkSender:             "sender",
	fkTo:                 "to",
	fkRecipient:          "recipient",
	fkSubject:            "subject",
	fkSn:                 "sn",
	fkIp:                 "ip",
	fkMac:                "mac",
	fkDstcountry:         "dstcountry",
	fkSrccountry:         "srccountry",
	fkCrscore:            "crscore",
	fkCraction:           "craction",
	fkAppcat:             "appcat",
	fkCountapp:           "countapp",
	fkSrcintfrole:        "srcintfrole",
	fkDstintfrole:        "dstintfrole",
	fkProfile:            "profile",
	fkCfgtid:             "cfgtid",
	fkCfgpath:            "cfgpath",
	fkCfgobj:             "cfgobj",
	fkCfgattr:            "cfgattr",
	fkIncidentserialno:   "incidentserialno",
	fkViruscat:           "viruscat",
	fkDtype:              "dtype",
	fkQuarskip:           "quarskip",
	fkReqtype:            "reqtype",
	fkCat:                "cat",
	fkVd:                 "vd",
	fkAppid:              "appid",
	fkApplist:            "applist",
	fkAppact:             "appact",
	fkSrcserver:          "srcserver",
	fkDstserver:          "dstserver",
	fkSrcfamily:          "srcfamily",
	fkDstfamily:          "dstfamily",
	fkSrcswversion:       "srcswversion",
	fkDsthwvendor:        "dsthwvendor",
	fkSrchwvendor:        "srchwvendor",
	fkOsname:             "osname",
	fkDevtype:            "devtype",
	fkDevcategory:        "devcategory",
	fkMastersrcmac:       "mastersrcmac",
	fkSentdelta:          "sentdelta",
	fkRcvddelta:          "rcvddelta",
	fkCountweb:           "countweb",
	fkCountips:           "countips",
	fkCountav:            "countav",
	fkTunnelid:           "tunnelid",
	fkDstHost:            "dst_host",
	fkEventsubtype:       "eventsubtype",
	fkXid:                "xid",
	fkQtypeval:           "qtypeval",
	fkQclass:             "qclass",
	fkCpu:                "cpu",
	fkMem:                "mem",
	fkTotalsession:       "totalsession",
	fkDisk:               "disk",
	fkBandwidth:          "bandwidth",
	fkSetuprate:          "setuprate",
	fkDisklograte:        "disklograte",
	fkFazlograte:         "fazlograte",
	fkVwlid:              "vwlid",
	fkVwlname:            "vwlname",
	fkLanin:              "lanin",
	fkLanout:             "lanout",
	fkWanin:              "wanin",
	fkWanout:             "wanout",
	fkSrcuuid:            "srcuuid",
	fkDstuuid:            "dstuuid",
	fkLogver:             "logver",
	fkItime:              "itime",
	fkCollectedemail:     "collectedemail",
	fkCrdb:               "crdb",
	fkPoluid:             "poluid",
	fkDstregion:          "dstregion",
	fkSrcregion:          "srcregion",
	fkDstinetsvc:         "dstinetsvc",
	fkHostid:             "hostid",
	fkTzX:                "tz_",
	fkForwardedfor:       "forwardedfor",
	fkAuthserver:         "authserver",
	fkSslaction:          "sslaction",
	fkUnauthusersource:   "unauthusersource",
	fkMsgId:              "msg_id",
	fkTriggerPolicy:      "trigger_policy",
	fkSrcreputation:      "srcreputation",
	fkDstreputation:      "dstreputation",
	fkCentralnatid:       "centralnatid",
	fkShapingpolicyid:    "shapingpolicyid",
	fkShaperdropsentbyte: "shaperdropsentbyte",
	fkThreats:            "threats",
	fkThreatwgts:         "threatwgts",
	fkThreatcnts:         "threatcnts",
	fkThreatlvls:         "threatlvls",
	fkThreattyps:         "threattyps",
}

var fgtKeys = func() map[string]fgtKey {
	m := make(map[string]fgtKey, len(fgtNames))
	for k, n := range fgtNames {
		if n != "" {
			m[n] = fgtKey(k)
		}
	}
	return m
}()

func (s *Set) fortigate(msg string) bool {
	if !strings.HasPrefix(msg, "date=") {
		i := strings.Index(msg, "devid=")
		if i < 0 {
			i = strings.Index(msg, "device_id=")
		}
		if i < 0 || !strings.Contains(msg, "type=") {
			return false
		}
		if j := strings.Index(msg, "date="); j >= 0 && j < i {
			i = j
		} else if j := strings.Index(msg, "devname="); j >= 0 && j < i {
			i = j
		}
		msg = msg[i:]
	} else if len(msg) < 25 {
		return false
	}
	var f fgt
	sep := byte(' ')
	if len(msg) > 15 && msg[15] == ',' { // "set csv enable"
		sep = ','
	}
	prev := fgtKey(0)
	i, n := 0, len(msg)
	for {
		for i < n && (msg[i] == ' ' || msg[i] == sep) {
			i++
		}
		// A device writes its keys in the same order again and again, so the keys that followed this one last are tried first.
		next := &s.fgtNext[prev]
		k := next[0]
		name := fgtNames[k]
		end := i + len(name)
		if k == 0 || end >= n || msg[end] != '=' || msg[i:end] != name {
			k = next[1]
			name = fgtNames[k]
			end = i + len(name)
		}
		if k == 0 || end >= n || msg[end] != '=' || msg[i:end] != name {
			end = i
			for end < n && msg[end] != '=' && msg[end] != ' ' {
				end++
			}
			if end >= n {
				break
			}
			if msg[end] == ' ' {
				i = end
				continue
			}
			k = fgtKeys[msg[i:end]]
			next[0], next[1] = k, next[0]
		}
		prev = k
		i = end + 1
		var v string
		if i < n && msg[i] == '"' {
			j := strings.IndexByte(msg[i+1:], '"')
			switch {
			case j < 0:
				v = msg[i+1:]
				i = n
			case j > 0 && msg[i+j] == '\\':
				end := quoteEnd(msg, i)
				v = strings.TrimSuffix(msg[i+1:end], `"`)
				i = end
			default:
				v = msg[i+1 : i+1+j]
				i += j + 2
			}
		} else if j := strings.IndexByte(msg[i:], sep); j >= 0 {
			v = msg[i : i+j]
			i += j
		} else {
			v = msg[i:]
			i = n
		}
		if v != "" && k != 0 {
			s.fortiKey(&f, k, v)
		}
	}
	if f.typ == "" && f.logid == "" {
		return false
	}
	s.fortiFinish(&f)
	return true
}

// fortiField takes one pair by its name.
func (s *Set) fortiField(f *fgt, key, v string) {
	if k := fgtKeys[key]; k != 0 {
		s.fortiKey(f, k, v)
	}
}

// fortiKey takes one pair by the number of its name.
func (s *Set) fortiKey(f *fgt, key fgtKey, v string) {
	switch key {
	case fkDate:
		f.date = v
	case fkTime:
		f.time = v
	case fkTz, fkTimezone:
		f.tz = v
	case fkEventtime:
		f.eventtime = v
	case fkLogid, fkLogId:
		f.logid = v
		s.str(event.EventCode, v)
	case fkType:
		f.typ = v
	case fkSubtype:
		f.subtype = v
	case fkEventtype:
		f.eventtype = v
	case fkLevel, fkPri:
		f.level = v
		s.str(event.LogLevel, v)
	case fkDevname:
		s.str(event.ObserverName, v)
	case fkDevid, fkDeviceId:
		s.str(event.ObserverSerialNumber, v)
	case fkSrcip, fkSrc, fkSrcIp:
		s.ip(event.SourceIP, v)
	case fkSrcport, fkSrcPort:
		s.port(event.SourcePort, v)
	case fkDstip, fkDst, fkDstIp:
		s.ip(event.DestinationIP, v)
	case fkDstport, fkDstPort:
		s.port(event.DestinationPort, v)
	case fkSrcintf, fkSrcInt:
		s.str(event.ObserverIngressInterfaceName, v)
	case fkDstintf, fkDstInt:
		s.str(event.ObserverEgressInterfaceName, v)
	case fkSrcmac:
		s.mac(event.SourceMAC, v)
	case fkDstmac, fkMasterdstmac:
		s.mac(event.DestinationMAC, v)
	case fkSrcname:
		s.domain(event.SourceDomain, v)
	case fkDstname:
		s.domain(event.DestinationDomain, v)
	case fkProto:
		if t := transportName(v); t != "" {
			s.str(event.NetworkTransport, t)
		}
	case fkService:
		s.low(event.NetworkProtocol, v)
	case fkApp:
		s.low(event.NetworkApplication, v)
	case fkAction:
		if f.action == "" {
			f.action = v
		}
	case fkUtmaction:
		f.utmaction = v
	case fkStatus:
		f.status = v
	case fkPolicyid, fkPolicyId:
		f.policyid = v
	case fkPolicyname, fkPolicy, fkPolicyName:
		s.str(event.RuleName, v)
	case fkPoluuid:
		s.str(event.RuleUUID, v)
	case fkPolicytype:
		s.str(event.RuleRuleset, v)
	case fkSentbyte, fkSent:
		s.int(event.SourceBytes, v)
	case fkRcvdbyte, fkRcvd:
		s.int(event.DestinationBytes, v)
	case fkHttpRequestBytes:
		s.int(event.SourceBytes, v)
		s.int(event.HTTPRequestBytes, v)
	case fkHttpResponseBytes:
		s.int(event.DestinationBytes, v)
		s.int(event.HTTPResponseBytes, v)
	case fkSentpkt:
		s.int(event.SourcePackets, v)
	case fkRcvdpkt:
		s.int(event.DestinationPackets, v)
	case fkDuration:
		s.seconds(v)
	case fkTrandisp:
		f.trandisp = v
	case fkTransip:
		if v != "0.0.0.0" && v != "::" {
			s.ip(event.SourceNATIP, v)
		}
	case fkTransport:
		s.port(event.SourceNATPort, v)
	case fkTranip:
		if v != "0.0.0.0" && v != "::" {
			s.ip(event.DestinationNATIP, v)
		}
	case fkTranport:
		s.port(event.DestinationNATPort, v)
	case fkUser, fkUnauthuser, fkUserName:
		if f.user == "" && v != "N/A" {
			f.user = v
			s.user(v)
		}
	case fkXauthuser, fkInitiator:
		if f.user == "" && v != "N/A" {
			f.user = v
			s.user(v)
		}
	case fkGroup:
		if v != "N/A" {
			s.str(event.SourceUserGroupName, v)
		}
	case fkUi:
		f.ui = v
	case fkMsg:
		f.msg = v
		s.str(event.Message, v)
	case fkLogdesc:
		s.str(event.RuleDescription, v)
	case fkReason, fkErrorReason:
		f.reason = v
		s.str(event.EventReason, v)
	case fkRemip, fkRemote, fkRemIp:
		s.endpoint(event.SourceIP, event.SourcePort, v)
	case fkRemport, fkRemPort:
		s.port(event.SourcePort, v)
	case fkLocip, fkLocIp:
		s.ip(event.DestinationIP, v)
	case fkLocport, fkLocPort:
		s.port(event.DestinationPort, v)
	case fkClientIp:
		s.ip(event.SourceIP, v)
	case fkClientName:
		s.domain(event.SourceDomain, v)
	case fkTunneltype:
		f.tunneltype = v
	case fkVpntunnel:
		f.vpn = v
	case fkTunnelip:
		if v != "N/A" && v != "(null)" {
			s.ip(event.SourceNATIP, v)
		}
	case fkUrl, fkHttpUrl:
		f.url = v
	case fkHostname, fkHttpHost:
		f.hostname = v
	case fkQname:
		s.domain(event.DNSQuestionName, v)
	case fkQtype:
		s.str(event.DNSQuestionType, v)
	case fkIpaddr:
		s.str(event.DNSAnswersData, v)
	case fkMethod, fkHttpMethod:
		if len(v) < 10 && v != "ip" && v != "domain" {
			s.str(event.HTTPRequestMethod, v)
		}
	case fkHttpmethod:
		s.str(event.HTTPRequestMethod, v)
	case fkHttpRetcode:
		s.int(event.HTTPResponseStatusCode, v)
	case fkAgent, fkHttpAgent:
		s.str(event.UserAgentOriginal, v)
	case fkReferralurl, fkHttpRefer:
		s.str(event.HTTPRequestReferrer, v)
	case fkAttack:
		f.attack = v
	case fkAttackid, fkSignatureId:
		f.attackid = v
	case fkVirus:
		f.virus = v
	case fkRef:
		s.str(event.RuleReference, v)
	case fkSeverity, fkCrlevel, fkSeverityLevel, fkApprisk:
		if key != fkApprisk {
			s.severity(v)
		}
	case fkCatdesc, fkSignatureSubclass:
		s.str(event.RuleCategory, v)
	case fkFilename, fkFile:
		s.str(event.FileName, v)
	case fkFilesize:
		s.int(event.FileSize, v)
	case fkFilehash, fkAnalyticscksum:
		if len(v) == 64 {
			s.str(event.FileHashSHA256, v)
		}
	case fkDirection, fkDir:
		f.dir = v
	case fkSessionid:
		s.str(event.EventID, v)
	case fkFrom, fkSender:
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailFromAddress, v)
		}
	case fkTo, fkRecipient:
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailToAddress, v)
		}
	case fkSubject:
		s.str(event.EmailSubject, v)
	case fkSn:
		if len(v) > 8 {
			s.str(event.ObserverSerialNumber, v)
		}
	case fkIp:
		f.client = v
	case fkMac:
		s.mac(event.SourceMAC, v)
	case fkDstcountry, fkSrccountry, fkCrscore, fkCraction, fkAppcat, fkCountapp:
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
