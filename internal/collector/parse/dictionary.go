package parse

import (
	"strings"

	"tocsin/internal/event"
)

// The dictionary of names that products without a parser of their own use in key=value, JSON, CEF and LEEF. Names are compared in lower
// case without separators, so that src_ip, srcIp and "Source IP" are one.

// norm writes key in that form into dst.
func norm(dst []byte, key string) []byte {
	for i := 0; i < len(key) && len(dst) < 40; i++ {
		c := key[i]
		switch {
		case c-'A' <= 25:
			dst = append(dst, c|0x20)
		case c-'a' <= 25 || isDigit(c):
			dst = append(dst, c)
		}
	}
	return dst
}

// generic takes one pair of an unknown product. It answers whether the name meant something.
func (s *Set) generic(key, v string) bool {
	if s.owns(key) {
		return true
	}
	var a [40]byte
	return s.genericNorm(norm(a[:0], key), v)
}

// genericPath takes one scalar of an unknown JSON object: first by its last two keys, then by its last.
// It answers whether the name meant something.
func (s *Set) genericPath(path, leaf string, val jsonValue) bool {
	var a, b [40]byte
	l := norm(a[:0], leaf)
	full := l
	if len(path) > len(leaf)+1 && len(path) < 60 {
		full = norm(b[:0], path)
	}
	v := val.raw
	if val.kind == 's' && val.esc {
		v = s.jstr(val)
	}
	if len(full) != len(l) {
		if s.genericNorm(full, v) {
			return true
		}
		// The last key alone, below something else, is taken for the unmistakable names only.
		switch string(l) {
		case "type", "name", "id", "status", "action", "user", "host", "domain", "message", "time", "date", "result", "version", "ip", "method", "url", "rule", "app",
			"port", "size", "description", "reason", "severity", "category", "hostname", "email", "address", "login", "path", "query", "request", "service", "source", "src", "dst":
			n := s.e.Len()
			s.genericNested(path, l, v)
			return s.e.Len() > n
		}
	}
	return s.genericNorm(l, v)
}

// genericNested reads a vague name by the object it stands in: actor.email, client.ip, rule.name, source.port.
func (s *Set) genericNested(path string, leaf []byte, v string) {
	var a [40]byte
	p := path[:max(len(path)-len(leaf)-1, 0)]
	for i := len(p) - 1; i >= 0; i-- { // the parent's own name
		if p[i] == '.' {
			p = p[i+1:]
			break
		}
	}
	parent := string(norm(a[:0], p))
	switch string(leaf) {
	case "ip", "address", "src":
		switch parent {
		case "client", "source", "src", "actor", "remote", "user", "clientinfo", "origin", "attacker", "request", "initiator", "securitycontext", "network":
			s.endpoint(event.SourceIP, event.SourcePort, v)
		case "destination", "dest", "dst", "server", "target", "responder":
			s.endpoint(event.DestinationIP, event.DestinationPort, v)
		}
	case "port":
		switch parent {
		case "client", "source", "src", "remote":
			s.port(event.SourcePort, v)
		case "destination", "dest", "dst", "server":
			s.port(event.DestinationPort, v)
		}
	case "name", "email", "login", "id", "user":
		switch parent {
		case "user", "actor", "account", "principal", "member", "subject", "useridentity":
			if string(leaf) != "id" {
				s.user(v)
			}
		case "rule", "policy", "signature", "detection", "alert", "matchedrule":
			if string(leaf) == "id" {
				s.str(event.RuleID, v)
			} else {
				s.str(event.RuleName, v)
			}
		case "file":
			s.str(event.FileName, baseName(v))
		case "event":
			if string(leaf) == "name" {
				s.low(event.EventAction, v)
			}
		}
	case "action", "result", "status":
		switch parent {
		case "event", "rule", "policy", "outcome", "verdict", "decision":
			if string(leaf) == "action" {
				s.act(v)
			} else {
				s.outcome(v)
			}
		}
	case "url", "path", "request":
		if parent == "http" || parent == "request" || parent == "httprequest" {
			s.urlText(v)
		}
	case "method":
		if parent == "http" || parent == "request" || parent == "httprequest" {
			s.method(v)
		}
	case "domain", "hostname", "host":
		switch parent {
		case "destination", "dest", "dst", "url", "http", "request":
			s.domain(event.DestinationDomain, v)
		case "source", "src", "client":
			s.domain(event.SourceDomain, v)
		}
	}
}

func (s *Set) method(v string) {
	switch v {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PROPFIND", "get", "post", "head", "put", "delete", "connect":
		s.str(event.HTTPRequestMethod, v)
	}
}

// genericNorm maps one normalised name. Address and port names are only taken when the value is one.
func (s *Set) genericNorm(k []byte, v string) bool {
	e := s.e
	if len(v) == 0 {
		return false
	}
	switch string(k) {
	case "src", "srcip", "sourceip", "srcaddr", "sourceaddr", "sourceaddress", "sourceipaddress", "srcipaddress", "srcaddress", "clientip", "clientaddr", "clientaddress",
		"clientipaddress", "cip", "remoteip", "remoteaddr", "remoteaddress", "ipaddress", "ipaddr", "ip", "callerip", "calleripaddress", "actorip", "userip", "useripaddress",
		"srcipv4", "srcipv6", "sourceipv4", "sourceipv6", "attackerip", "attackeraddress", "saddr", "fromip", "peerip", "clientpublicip", "realip", "clientrealip",
		"actoripaddress", "idorigh", "initiatorip", "useraddress", "userhostaddress", "rhost", "remip", "sip", "srchost", "clienthost", "client", "caip", "originip",
		"originalclientip", "clientsourceip", "sourcehost", "actualclientip", "xrealip", "publicip", "sourcetransportaddress", "attackingip", "attackinghostip",
		"nasipaddress", "framedipaddress", "callingstationid", "trueclientip", "ipsource", "whoip", "hostip", "deviceip", "endpointip", "ip4", "localip", "lanip",
		"internalip", "agentip", "machineip", "computerip", "sourcenetworkaddress", "downstreamremoteaddress", "httpxforwardedfor", "xforwardedfor", "rip", "ipaddressv4", "senderip", "requestip", "srcendpointip", "cclientaddr", "connsrcip", "sourceips", "callerip4", "internalipaddress",
		"deviceexternalip", "reqip", "clientipport", "hostipaddress", "initiatingipaddress", "ipv4srcaddr", "ipv6srcaddr", "sourceipv4address", "sourceipv6address":
		if e.Has(event.SourceIP) {
			return true
		}
		if i := strings.IndexAny(v, ", "); i > 0 {
			v = v[:i]
		}
		if (strings.HasPrefix(v, "IPV4/") || strings.HasPrefix(v, "IPV6/")) && len(v) > 9 { // Asterisk: IPV4/UDP/192.0.2.1/5060
			s.transport(v[5:8])
			v = v[9:]
		}
		switch string(k) {
		case "nasipaddress", "deviceip", "localip", "hostip", "agentip", "lanip":
			return false
		case "sip": // W3C logs: the server's
			if strings.IndexByte(s.e.Raw(), '=') < 0 {
				return false
			}
		}
		return s.endpoint(event.SourceIP, event.SourcePort, v)
	case "dst", "dstip", "destip", "destinationip", "dstaddr", "destaddr", "destinationaddr", "destinationaddress", "destinationipaddress", "dstipaddress", "destipaddress",
		"dstaddress", "destaddress", "serverip", "serveraddr", "serveraddress", "targetip", "targetaddress", "daddr", "toip", "dip", "idresph", "responderip", "dstipv4", "dstipv6", "ipv4dstaddr", "ipv6dstaddr", "destinationipv4address", "destinationipv6address", "vsip",
		"destinationipv4", "victimip", "dsthost", "desthost", "destinationhost", "remotedestinationip", "attackedhostip", "targethostip", "serveripaddress", "lip", "dstendpointip", "sserveraddr", "conndestip", "remotehostip", "localaddress":
		if s.endpoint(event.DestinationIP, event.DestinationPort, v) {
			return true
		}
		switch string(k) {
		case "dsthost", "desthost", "destinationhost":
			if strings.IndexByte(v, '.') > 0 {
				s.domain(event.DestinationDomain, v)
			}
		}
		return false
	case "spt", "srcport", "sourceport", "sport", "clientport", "cport", "remoteport", "idorigp", "initiatorport", "sourcetransportport", "l4srcport", "clientsrcport", "peerport", "cclientport", "connsrcport", "srcendpointport",
		"sourceportnumber", "srcportnum":
		s.port(event.SourcePort, v)
	case "dpt", "dstport", "destport", "dport", "destinationport", "serverport", "idrespp", "targetport", "responderport", "service_port", "serviceport", "destinationtransportport", "l4dstport",
		"clientdestport", "vsport", "sserverport", "conndestport", "dstendpointport":
		s.port(event.DestinationPort, v)
	case "proto", "protocol", "ipprotocol", "ipproto", "transport", "transportprotocol", "networkprotocol", "protocolname", "protocolid", "protoid", "protocolnumber", "l4proto",
		"networktransport", "iptransport":
		t := transportName(v)
		if t == "" {
			if i := strings.IndexAny(v, "/ "); i > 0 { // "tcp/https"
				if t = transportName(v[:i]); t != "" && v[i] == '/' {
					s.low(event.NetworkProtocol, v[i+1:])
				}
			}
		}
		if t != "" {
			s.str(event.NetworkTransport, t)
			return true
		}
		if domainLike(v) && len(v) < 20 && !isDigit(v[0]) {
			s.low(event.NetworkProtocol, v)
		}
	case "service", "svc", "applicationprotocol", "appprotocol", "servicename", "l7protocol":
		if domainLike(v) && len(v) < 40 {
			s.low(event.NetworkProtocol, v)
		}
	case "app", "application", "appname", "applicationname", "appid", "appcategory":
		if string(k) != "appid" && string(k) != "appcategory" {
			s.low(event.NetworkApplication, v)
		}
	case "act", "action", "deviceaction", "actiontaken", "disposition", "verdict", "ruleaction", "fwaction", "firewallaction", "policyaction", "aclaction", "filteraction",
		"securityaction", "actionresult", "responseaction", "connectionverdict", "acceessaction", "accesscontrolruleaction", "finalaction":
		if !e.Has(event.EventAction) {
			s.act(v)
		} else {
			s.decide(verdictOf(v))
		}
	case "user", "username", "usrname", "usr", "srcuser", "srcusername", "sourceuser", "sourceusername", "accountname", "account", "login", "loginname", "loginid", "userprincipalname",
		"useremail", "suser", "duser", "userid", "uid", "actor", "actorname", "actoremail", "principal", "targetusername", "targetuser", "principalname", "subjectusername",
		"callerusername", "uname", "usernameoremail", "userinfo", "identity", "administrator", "admin", "email", "emailaddress", "requestuser", "authuser", "remoteuser",
		"loggedinuser", "perpetrator", "clientuser", "userlogin", "aduser", "adminuser", "useridentityusername", "dstuser", "destinationusername", "owner", "acct", "identifier",
		"targetaccount", "initiatedby", "actoralternateid", "upn", "actorupn", "actorprincipalname", "actorloginname", "creatoremail", "callerid", "clientusername", "csusername", "accountid":
		if strings.HasPrefix(v, "S-1-") && !strings.Contains(v, "\\") { // a Windows security identifier, not a name
			s.str(event.UserID, v)
			return true
		}
		switch string(k) {
		case "uid", "userid", "accountid", "owner":
			if s.weak == "" && (!allDigits(v) || string(k) == "accountid" && len(v) < 9) && len(v) <= 64 && !(len(v) == 36 && v[8] == '-') {
				s.weak = v
			}
			return true
		case "account", "accountname":
			if s.weak == "" {
				s.weak = v
			}
			return true
		}
		s.user(v)
	case "userdomain", "accountdomain", "ntdomain", "targetdomainname", "addomain":
		s.str(event.UserDomain, v)
	case "url", "uri", "request", "requesturl", "requesturi", "fullurl", "urlfull", "csuri", "requestedurl", "destinationurl", "accessedurl", "httpurl", "targeturl", "blockedurl", "clientrequesturi", "clientrequestpath", "rawurl", "originalurl", "requestpathandquery":
		if len(v) > 2 && strings.IndexByte(v, ' ') < 0 {
			s.urlText(v)
		} else if i := strings.IndexByte(v, ' '); i > 2 && i < 9 && v[0]-'A' <= 25 { // "GET /path HTTP/1.1"
			s.method(v[:i])
			p, _ := cutSpace(v[i+1:])
			s.urlText(p)
		} else {
			return false
		}
	case "path", "uripath", "urlpath", "requestpath", "csuripath", "csuristem", "urlstem":
		if v[0] == '/' {
			s.path(v)
		} else {
			return false
		}
	case "domain", "urldomain", "host", "httphost", "urlhost", "requesthost", "dhost", "dstname", "dstdomain", "destinationdomain", "destinationhostname", "desthostname",
		"dsthostname", "cshost", "sitename", "fqdn", "website", "domainname", "site", "serverhostname", "requestedhost", "authority", "dstdnsname", "vhost", "clientrequesthost", "queryhostname":
		if strings.IndexByte(v, '.') > 0 && domainLike(v) {
			if _, _, isIP := ipPort(v); !isIP {
				s.domain(event.URLDomain, v)
				return true
			}
		}
		return false
	case "sni", "servername", "tlssni", "tlsservername", "sslservername":
		if strings.IndexByte(v, '.') > 0 {
			s.domain(event.TLSClientServerName, v)
		}
	case "query", "queryname", "dnsquery", "qname", "dnsname", "questionname", "dnsqname", "rrname", "dnsqueryname", "querydomain", "dnsquestionname":
		if strings.IndexByte(v, '.') > 0 && strings.IndexByte(v, ' ') < 0 && strings.IndexByte(v, '=') < 0 && len(v) < 256 {
			s.domain(event.DNSQuestionName, v)
		}
	case "qtype", "qtypename", "querytype", "rrtype", "dnsquerytype", "recordtype":
		if len(v) < 10 && domainLike(v) {
			s.str(event.DNSQuestionType, v)
		}
	case "rcodename", "rcode", "responsecode":
		if string(k) == "responsecode" && allDigits(v) && len(v) == 3 {
			s.int(event.HTTPResponseStatusCode, v)
		} else if len(v) < 12 {
			s.str(event.DNSResponseCode, v)
		}
	case "sent", "sentbytes", "sentbyte", "bytesout", "srcbytes", "sourcebytes", "bytessent", "outbytes", "origbytes", "initiatorbytes", "bytesfromclient", "clientbytes", "requestsize", "txbytes",
		"csbytes", "bytestoserver", "out", "upload", "uploadbytes", "requestbytes", "originbytes", "sentdata":
		s.int(event.SourceBytes, v)
	case "rcvd", "rcvdbytes", "rcvdbyte", "bytesin", "dstbytes", "destbytes", "destinationbytes", "bytesrcvd", "bytesreceived", "receivedbytes", "recvbytes", "respbytes",
		"responderbytes", "inbytes", "serverbytes", "responsesize", "rxbytes", "scbytes", "bytestoclient", "in", "download", "downloadbytes", "responsebytes", "receivedata":
		s.int(event.DestinationBytes, v)
	case "bytes", "totalbytes", "networkbytes", "bytestotal":
		s.int(event.NetworkBytes, v)
	case "sentpkts", "srcpkts", "packetssent", "origpkts", "sentpackets", "pktssent":
		s.int(event.SourcePackets, v)
	case "rcvdpkts", "recvpkts", "dstpkts", "packetsreceived", "resppkts", "receivedpackets", "pktsreceived":
		s.int(event.DestinationPackets, v)
	case "rule", "rulename", "policy", "policyname", "acl", "aclname", "firewallrule", "signature", "sig", "signaturename", "threatname", "threat", "attackname", "attack", "virusname", "virus",
		"malwarename", "malware", "alertname", "detectionname", "sname", "securityrule", "accesscontrolrulename", "signame", "matchedrulename", "policies", "ipssignature", "intrusionname",
		"alertsignature", "rulemessage", "fwrule", "dtypevname", "rulelabel", "matchedrule":
		if !empty(v) && v[0] != '{' && v[0] != '[' && len(v) < 512 {
			s.str(event.RuleName, v)
		}
	case "ruleid", "policyid", "fwruleid", "signatureid", "sid", "sigid", "rulenumber", "attackid", "threatid", "aclid", "ruleuid", "rulenum", "detectionid", "firewallruleid":
		if string(k) != "sid" || len(v) < 20 {
			s.str(event.RuleID, v)
		}
	case "ruleset", "policygroup", "rulegroup":
		s.str(event.RuleRuleset, v)
	case "category", "threatcategory", "attackcategory", "urlcategory", "webcategory", "cat", "classification":
		s.str(event.RuleCategory, v)
	case "outcome", "result", "eventoutcome", "eventstatus", "eventresult", "loginresult", "authresult", "status", "loginstatus", "authenticationresult", "auditresult", "actionstatus",
		"outcomeresult", "resultstatus", "operationresult", "requestresult", "authstatus", "requeststatus":
		s.outcome(v)
		if string(k) == "status" && len(v) == 3 && allDigits(v) {
			s.int(event.HTTPResponseStatusCode, v)
		}
	case "errorcode":
		if v != "0" && v != "None" && len(v) < 80 {
			s.str(event.ErrorCode, v)
			s.str(event.EventOutcome, "failure")
		}
	case "responseelementsconsolelogin":
		s.outcome(v)
	case "success", "succeeded", "issuccess", "successful":
		switch v {
		case "true", "True", "yes", "1":
			s.str(event.EventOutcome, "success")
		case "false", "False", "no", "0":
			s.str(event.EventOutcome, "failure")
		}
	case "timestamp", "time", "eventtime", "datetime", "ts", "eventtimestamp", "receivetime", "starttime", "logtime", "creationtime", "devtime", "utctime", "occurredat", "createdat",
		"generatedtime", "timegenerated", "eventcreationtime", "eventdate", "date", "when", "rt", "activitydatetime", "published", "timecreated", "eventdatetime", "requesttime", "t",
		"startedat", "occurred", "generatedat", "observedtimestamp", "createddatetime", "requesttimestamp", "alerttime", "attacktime", "detecttime", "timelocal", "timeiso8601", "clienttimeutc",
		"timemillis", "occurtime", "entrytime", "eventtimeutc", "detectiontime", "detectedat", "timegeneratedutc", "eventtimestampms", "headertimesecondsepoch", "auditentrytime", "tdate",
		"localtime", "utctimestamp", "eventutctimestamp", "detectiontimestamp", "timestampdetected":
		if e.Time == 0 {
			s.setTime(v)
		}
		return e.Time != 0
	case "created", "createdtime", "modified", "lastseen", "updatedat", "lastupdated", "firstseen", "detecttimeutc", "createtime", "creationdate", "addedat", "lastupdatetime", "lastupdatedate",
		"lastupdatedatetime", "statusupdatetime", "modifiedtime", "modificationtime", "updatetime", "updatedtime", "lastupdateddatetime", "updateddatetime", "lastcheck", "eventcreated": // when nothing says when it happened
		if s.weakTime == "" {
			s.weakTime = v
		}
		return false // it is kept under its own name as well
	case "msg", "message", "description", "eventmessage", "details", "summary":
		if len(v) < 4096 {
			s.str(event.Message, v)
		}
	case "reason", "failurereason", "errormessage", "failreason", "errorreason":
		s.str(event.EventReason, v)
	case "eventname", "eventaction", "activity", "operation", "activityname", "eventtype", "activitytype", "operationname", "event", "eventtypename", "eventclass", "methodname",
		"displaymessage", "auditaction", "activitydisplayname", "securityevent":
		if len(v) < 96 {
			s.low(event.EventAction, v)
			if string(k) == "securityevent" {
				switch {
				case failWords(v):
					s.signIn("voip", false)
				case goodWords(v):
					s.signIn("voip", true)
				}
			}
			if strings.IndexByte(v, ' ') < 0 && len(v) < 20 {
				s.decide(verdictOf(v))
			}
		}
	case "eventid", "messageid", "msgid", "eventcode", "logid", "eventidentifier", "winlogeventid":
		s.str(event.EventCode, v)
	case "method", "requestmethod", "httpmethod", "httprequestmethod", "verb", "csmethod", "clientrequestmethod":
		s.method(v)
	case "statuscode", "httpstatus", "httpstatuscode", "responsestatus", "httpresponse", "httpcode", "scstatus", "httpresponsecode", "edgeresponsestatus", "elbstatuscode":
		if len(v) == 3 {
			s.int(event.HTTPResponseStatusCode, v)
		}
	case "useragent", "ua", "httpuseragent", "requestuseragent", "csuseragent", "agent", "clientuseragent", "useragentoriginal", "userbrowser", "rawuseragent", "clientrequestuseragent":
		if len(v) > 2 {
			s.str(event.UserAgentOriginal, v)
		}
	case "referer", "referrer", "refererurl", "httpreferrer", "httpreferer", "csreferer", "requestreferer":
		s.str(event.HTTPRequestReferrer, v)
	case "filename", "fname", "file", "attachment", "attachfilename", "objectfilename":
		s.str(event.FileName, baseName(v))
	case "filepath", "targetfilename":
		s.str(event.FilePath, v)
		s.str(event.FileName, baseName(v))
	case "filehash", "sha256", "filesha256", "hash", "md5", "filemd5", "sha1", "filesha1":
		s.hash(v)
	case "filesize":
		s.int(event.FileSize, v)
	case "srcmac", "smac", "sourcemac", "mac", "clientmac", "macaddress", "srcmacaddress", "endpointmacaddress", "sourcemacaddress":
		s.mac(event.SourceMAC, v)
	case "dstmac", "dmac", "destinationmac", "destmac":
		s.mac(event.DestinationMAC, v)
	case "inif", "ininterface", "srcintf", "ingressinterface", "inboundinterface", "ifname", "inputinterface", "sourceinterface", "iniface", "srcif", "srciface":
		s.str(event.ObserverIngressInterfaceName, v)
	case "outif", "outinterface", "dstintf", "egressinterface", "outboundinterface", "outputinterface", "destinationinterface", "outiface", "dstif", "dstiface":
		s.str(event.ObserverEgressInterfaceName, v)
	case "srczone", "sourcezone", "ingresszone", "fromzone", "inzone":
		s.str(event.ObserverIngressZone, v)
	case "dstzone", "destinationzone", "egresszone", "tozone", "outzone", "destzone":
		s.str(event.ObserverEgressZone, v)
	case "srcnatip", "natsrcip", "natsourceaddress", "sourcetranslatedaddress", "xlatesrc", "sourcenatip", "srctransip", "transsrcip", "natip", "natsourceip", "transip", "srcxlatedip":
		if v != "0.0.0.0" && v != "::" {
			s.ip(event.SourceNATIP, v)
		}
	case "srcnatport", "natsrcport", "natsourceport", "sourcetranslatedport", "xlatesport", "srctransport", "sourcenatport":
		s.port(event.SourceNATPort, v)
	case "dstnatip", "natdstip", "natdestinationaddress", "destinationtranslatedaddress", "xlatedst", "destinationnatip", "dsttransip", "natdestinationip", "dstxlatedip":
		if v != "0.0.0.0" && v != "::" {
			s.ip(event.DestinationNATIP, v)
		}
	case "dstnatport", "natdstport", "natdestinationport", "destinationtranslatedport", "xlatedport", "dsttransport", "destinationnatport":
		s.port(event.DestinationNATPort, v)
	case "duration", "elapsed", "elapsedtime", "sessionduration", "connduration":
		s.seconds(v)
	case "devname", "devicename", "sensorname", "gatewayname", "sensor", "nodename", "applianceid", "appliance", "observername", "dvchost":
		if len(v) < 256 {
			s.str(event.ObserverName, v)
		}
	case "hostname", "computer", "computername", "machinename", "machine", "shost", "sourcehostname", "srchostname", "devicehostname", "workstation", "workstationname":
		if domainLike(v) {
			s.str(event.HostHostname, v)
			if string(k) == "shost" || string(k) == "sourcehostname" || string(k) == "srchostname" {
				s.domain(event.SourceDomain, v)
			}
		}
	case "vendor", "devicevendor", "vendorname", "observervendor":
		s.str(event.ObserverVendor, v)
	case "product", "deviceproduct", "productname", "observerproduct":
		s.str(event.ObserverProduct, v)
	case "devid", "deviceid", "serial", "serialnumber", "deviceserial":
		if len(v) < 80 {
			s.str(event.ObserverSerialNumber, v)
		}
	case "severity", "level", "sev", "alertseverity", "priority", "loglevel", "threatseverity":
		if s.severity(v) {
			return true
		}
		s.str(event.LogLevel, v)
	case "mailfrom", "sender", "from", "fromaddress", "senderaddress", "srcmail", "hfrom":
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailFromAddress, strings.Trim(v, "<>"))
		}
	case "mailto", "recipient", "to", "toaddress", "recipientaddress", "rcpt", "recipients", "rcpts", "dstmail":
		if strings.IndexByte(v, '@') > 0 {
			s.str(event.EmailToAddress, strings.Trim(v, "<>"))
		}
	case "subject":
		s.str(event.EmailSubject, v)
	case "direction", "trafficdirection":
		switch {
		case equalFold(v, "inbound"), equalFold(v, "incoming"), equalFold(v, "ingress"):
			s.str(event.NetworkDirection, "inbound")
		case equalFold(v, "outbound"), equalFold(v, "outgoing"), equalFold(v, "egress"):
			s.str(event.NetworkDirection, "outbound")
		}
	case "sessionid", "connectionid", "connid", "flowid", "transactionid", "requestid":
		s.str(event.EventID, v)
	case "processname", "process", "image", "exe":
		s.str(event.ProcessExecutable, v)
	case "commandline", "cmdline", "processcommandline":
		s.str(event.ProcessCommandLine, v)
	case "communityid":
		s.str(event.NetworkCommunityID, v)
	case "jaclient", "ja3":
		s.str(event.TLSClientJA3, v)
	default:
		return false
	}
	return true
}

// severity reads a level in words.
func (s *Set) severity(v string) bool {
	word := severityOf(v)
	if word != "" {
		s.str(event.TocsinSeverity, word)
	}
	return word != ""
}

// severityOf gives the word of tocsin.severity for a device's; "" when there is none.
func severityOf(v string) string {
	switch {
	case equalFold(v, "critical"), equalFold(v, "very high"), equalFold(v, "very-high"):
		return "critical"
	case equalFold(v, "high"):
		return "high"
	case equalFold(v, "medium"), equalFold(v, "moderate"):
		return "medium"
	case equalFold(v, "low"):
		return "low"
	}
	return ""
}
