package detect

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"tocsin/sigma"
)

// An event made of a rule: the least that it matches. It shows whether what a rule looks at arrives at the hub; what real events look like the other
// tests show.

// making puts together what a rule's selections want of each field.
type making struct {
	fields map[string]*wish
	words  []string
}

type wish struct {
	whole            string
	starts, ends     string
	has              []string
	isWhole, present bool
}

func (w *wish) text() string {
	if w.isWhole {
		return w.whole
	}
	s := w.starts
	for _, h := range w.has {
		if !strings.Contains(s, h) {
			s += h
		}
	}
	if w.ends != "" && (s == "" || !strings.HasSuffix(s, w.ends)) {
		s += w.ends
	}
	return s
}

// plainText is a text that a pattern with wildcards matches.
func plainText(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`\*?`, s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '*':
		case c == '?':
			b.WriteByte('a')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// matching is a text that a regular expression matches.
func matching(x *syntax.Regexp) string {
	var b strings.Builder
	switch x.Op {
	case syntax.OpLiteral:
		return string(x.Rune)
	case syntax.OpCharClass:
		for _, c := range "a1/xZ0 -." {
			for i := 0; i+1 < len(x.Rune); i += 2 {
				if x.Rune[i] <= c && c <= x.Rune[i+1] {
					return string(c)
				}
			}
		}
		if len(x.Rune) > 0 {
			return string(x.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "a"
	case syntax.OpCapture, syntax.OpPlus:
		return matching(x.Sub[0])
	case syntax.OpRepeat:
		return strings.Repeat(matching(x.Sub[0]), x.Min)
	case syntax.OpConcat:
		for _, s := range x.Sub {
			b.WriteString(matching(s))
		}
	case syntax.OpAlternate:
		return matching(x.Sub[0])
	}
	return b.String()
}

// item takes one line of a selection, the n-th of its values where one is enough. It answers false for what is not made.
func (m *making) item(key string, v any, nth int) bool {
	name, rest, _ := strings.Cut(key, "|")
	mods := strings.Split(rest, "|")
	if rest == "" {
		mods = nil
	}
	all := slices.Contains(mods, "all")
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	if !all && len(list) > 1 {
		list = list[nth%len(list) : nth%len(list)+1]
	}
	w := m.fields[name]
	if w == nil {
		w = &wish{}
		m.fields[name] = w
	}
	for _, x := range list {
		if x == nil {
			if len(list) == 1 && !w.present {
				delete(m.fields, name)
			}
			continue
		}
		s := fmt.Sprint(x)
		op := "eq"
		for _, mod := range mods {
			switch mod {
			case "contains", "startswith", "endswith", "re", "cidr":
				op = mod
			case "all", "windash", "i", "m", "s", "cased":
			case "exists":
				op = "exists"
			default:
				return false // base64offset, fieldref, expand, wide
			}
		}
		w.present = true
		switch op {
		case "re":
			x, err := syntax.Parse(s, syntax.Perl)
			if err != nil {
				return false
			}
			t := matching(x.Simplify())
			if w.isWhole || w.whole != "" {
				return false
			}
			w.has = append(w.has, t)
		case "cidr":
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return false
			}
			w.whole, w.isWhole = p.Addr().Next().String(), true
		case "exists":
			if s == "true" && len(w.has) == 0 {
				w.has = append(w.has, "x")
			}
		case "eq":
			first, last := strings.HasPrefix(s, "*"), strings.HasSuffix(s, "*") && !strings.HasSuffix(s, `\*`)
			t := plainText(s)
			switch {
			case first && last:
				w.has = append(w.has, t)
			case first:
				w.ends = t
			case last:
				w.starts = t
			default:
				w.whole, w.isWhole = t, true
			}
		case "contains":
			w.has = append(w.has, plainText(s))
		case "startswith":
			w.starts = plainText(s)
		case "endswith":
			w.ends = plainText(s)
		}
	}
	return true
}

func (m *making) search(v any, nth int) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if strings.HasPrefix(k, "|") || k == "" {
				l, _ := x.([]any)
				for _, y := range l {
					m.words = append(m.words, plainText(fmt.Sprint(y)))
				}
				continue
			}
			if !m.item(k, x, nth) {
				return false
			}
		}
	case []any:
		if len(v) == 0 {
			return false
		}
		x := v[nth%len(v)]
		if sub, ok := x.(map[string]any); ok {
			return m.search(sub, nth)
		}
		m.words = append(m.words, plainText(fmt.Sprint(x)))
	default:
		m.words = append(m.words, plainText(fmt.Sprint(v)))
	}
	return true
}

var conditionWord = regexp.MustCompile(`\(|\)|[^\s()]+`)

// chosen are the selections that must hold for a condition to hold: of "or" and "1 of" the nth.
func chosen(condition string, names []string, nth int) (out []string) {
	words := conditionWord.FindAllString(condition, -1)
	skip := 0 // depth of a bracket that is negated
	depth := 0
	negated := false
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch strings.ToLower(w) {
		case "(":
			depth++
			if negated && skip == 0 {
				skip = depth
			}
			negated = false
			continue
		case ")":
			if skip == depth {
				skip = 0
			}
			depth--
			continue
		case "not":
			negated = true
			continue
		case "and":
			continue
		case "or":
			if nth%2 == 0 && depth == 0 { // the left is enough
				return out
			}
			continue
		case "1", "all", "any":
			if i+2 < len(words) && strings.ToLower(words[i+1]) == "of" {
				pattern := words[i+2]
				i += 2
				if negated || skip > 0 {
					negated = false
					continue
				}
				var fit []string
				for _, n := range names {
					if pattern == "them" && !strings.HasPrefix(n, "_") || strings.HasSuffix(pattern, "*") && strings.HasPrefix(n, strings.TrimSuffix(pattern, "*")) || n == pattern {
						fit = append(fit, n)
					}
				}
				if strings.ToLower(w) == "all" {
					out = append(out, fit...)
				} else if len(fit) > 0 {
					out = append(out, fit[nth%len(fit)])
				}
				continue
			}
		}
		if !negated && skip == 0 {
			out = append(out, w)
		}
		negated = false
	}
	return out
}

// make tries to make an event that a rule matches; match says whether one does.
func makeEvent(text []byte, nth int) (fields map[string]string, words []string, ok bool) {
	var doc struct{ Detection map[string]any }
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, false
	}
	condition, _ := doc.Detection["condition"].(string)
	var names []string
	for n := range doc.Detection {
		if n != "condition" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	m := &making{fields: map[string]*wish{}}
	for _, n := range chosen(condition, names, nth) {
		if doc.Detection[n] == nil || !m.search(doc.Detection[n], nth) {
			return nil, nil, false
		}
	}
	fields = map[string]string{}
	for n, w := range m.fields {
		if w.present {
			fields[n] = w.text()
		}
	}
	return fields, m.words, true
}

// nested makes objects of dotted names.
func nested(base string, fields map[string]string) []byte {
	root := map[string]any{}
	if err := yaml.Unmarshal([]byte(base), &root); err != nil {
		panic(err)
	}
	for n, v := range fields {
		at := root
		parts := strings.Split(n, ".")
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		if _, ok := at[parts[len(parts)-1]].(map[string]any); !ok {
			at[parts[len(parts)-1]] = v
		}
	}
	return marshal(root)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// eve is a line of Suricata's.
func eve(kind string, f map[string]any) []byte {
	m := map[string]any{"timestamp": "2026-11-10T10:00:00.000000+0000", "flow_id": 1, "event_type": kind, "src_ip": "192.0.2.7", "src_port": 50000, "dest_ip": "203.0.113.9", "dest_port": 80, "proto": "TCP"}
	for k, v := range f {
		m[k] = v
	}
	return marshal(m)
}

// channelsOf is where Windows writes what a service or category is about.
var channelsOf = map[string][2]string{}

func init() {
	for _, c := range sigma.WindowsChannels() {
		for _, s := range sigma.WindowsSources(c, "", "") {
			if channelsOf[s.Service][0] == "" {
				channelsOf[s.Service] = [2]string{c, ""}
			}
		}
		for _, id := range sigma.WindowsEvents(c) {
			for _, kind := range []string{"", "CreateKey", "DeleteKey"} {
				for _, s := range sigma.WindowsSources(c, id, kind) {
					if x := channelsOf[s.Category]; s.Category != "" && (x[0] == "" || s.Service == "sysmon" && x[0] != sysmon) {
						channelsOf[s.Category] = [2]string{c, id + "/" + kind}
					}
				}
			}
		}
	}
}

var providersOf = map[string]string{sysmon: "Microsoft-Windows-Sysmon", security: "Microsoft-Windows-Security-Auditing"}

// renderings make a line of the fields of a made event, by the rule's log source. nil: such a source is not read, or not by these fields.
func rendering(l sigma.LogSource, f map[string]string, words []string, form string) []byte {
	said := strings.Join(words, " ")
	switch {
	case l.Product == "windows", l.Category == "antivirus", l.Product == "linux" && l.Category != "", l.Product == "rpc_firewall":
		e := map[string]any{"Computer": "pc1.school.example"}
		for k, v := range f {
			e[k] = v
		}
		at := channelsOf[or(l.Category, l.Service)]
		if l.Category == "antivirus" {
			at = [2]string{"microsoft-windows-windows defender/operational", "1116/"}
			if s, ok := e["Signature"]; ok {
				e["ThreatName"] = s
				delete(e, "Signature")
			}
			if s, ok := e["Filename"]; ok {
				e["Path"] = s
				delete(e, "Filename")
			}
		}
		switch {
		case l.Product == "rpc_firewall":
			at = [2]string{rpcFirewall, "3/"}
		case l.Product == "linux":
			at[0] = linuxSysmon
		case at[0] == "":
			at[0] = security
		}
		id, kind, _ := strings.Cut(at[1], "/")
		if e["Channel"] == nil {
			e["Channel"] = at[0]
		}
		if e["EventID"] == nil && id != "" {
			e["EventID"] = id
		}
		if e["EventID"] == nil {
			e["EventID"] = "1000"
		}
		if kind != "" && e["EventType"] == nil {
			e["EventType"] = kind
		}
		if e["Provider_Name"] == nil {
			e["Provider_Name"] = or(providersOf[at[0]], "Microsoft-Windows-Other")
			if l.Product == "linux" {
				e["Provider_Name"] = "Linux-Sysmon"
			}
		}
		if said != "" {
			e["Data"] = said
		}
		return forms[form](e)
	case l.Category == "proxy" || l.Category == "webserver":
		for _, x := range []string{"c-uri-extension", "cs-cookie", "cs-content-type"} {
			if f[x] != "" {
				return nil // Suricata's usual log has none
			}
		}
		uri := or(or(f["cs-uri"], f["c-uri"]), or(f["cs-uri-query"], or(f["cs-uri-stem"], f["c-uri-query"])))
		if f["cs-uri-stem"] != "" && f["cs-uri-query"] != "" {
			uri = f["cs-uri-stem"] + "?" + f["cs-uri-query"]
		}
		if f["c-uri"] != "" && f["c-uri-query"] != "" {
			uri = f["c-uri"] + "?" + f["c-uri-query"]
		}
		h := map[string]any{"hostname": or(f["cs-host"], or(f["r-dns"], "www.school.example")), "url": or(uri, "/") + said, "http_method": or(f["cs-method"], "GET"), "status": or(f["sc-status"], "200")}
		if v, ok := f["c-useragent"]; ok {
			h["http_user_agent"] = v
		} else if v, ok := f["cs-user-agent"]; ok {
			h["http_user_agent"] = v
		}
		if v, ok := f["cs-referer"]; ok {
			h["http_refer"] = v
		}
		return eve("http", map[string]any{"http": h, "dest_ip": or(f["dst_ip"], "203.0.113.9")})
	case l.Category == "dns":
		return eve("dns", map[string]any{"dest_port": 53, "proto": "UDP", "dns": map[string]any{"type": "answer", "rrname": or(f["query"], "www.school.example"), "rrtype": or(f["record_type"], "A"), "answers": []any{map[string]any{"rdata": or(f["answer"], "203.0.113.1")}}}})
	case l.Category == "firewall":
		return []byte(fmt.Sprintf(`<189>date=2026-11-10 time=10:00:00 devname="fw" devid="FGT60E" logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=%s srcport=50000 dstip=%s dstport=%s policyid=1 proto=6 action="%s"`,
			or(f["src_ip"], "192.0.2.7"), or(f["dst_ip"], "203.0.113.9"), or(f["dst_port"], "80"), or(map[string]string{"forward": "accept"}[f["action"]], or(f["action"], "accept"))))
	case l.Product == "zeek":
		m := map[string]any{"ts": 1794301964.2, "uid": "C8Tful1TvM3Zf5x8fl", "id.orig_h": "203.0.113.77", "id.orig_p": 39681, "id.resp_h": "198.51.100.20", "id.resp_p": 445}
		for _, k := range map[string][]string{"dns": {"query", "qtype_name"}, "http": {"method", "uri", "host"}, "rdp": {"security_protocol"}, "smb_files": {"path", "name"}, "dce_rpc": {"endpoint", "operation"}, "kerberos": {"request_type"}}[l.Service] {
			m[k] = "x"
		}
		for k, v := range f {
			m[or(map[string]string{"c-useragent": "user_agent", "c-uri": "uri"}[k], k)] = v
		}
		return marshal(m)
	case l.Product == "aws":
		return nested(`{eventVersion: "1.08", userIdentity: {accountId: "123456789012", principalId: P}, eventTime: "2026-11-10T10:00:00Z", eventSource: x.amazonaws.com, eventName: Something, awsRegion: eu-west-2, sourceIPAddress: 203.0.113.7, eventID: "1"}`, f)
	case l.Product == "okta":
		return nested(`{actor: {alternateId: a@school.example, displayName: A}, client: {ipAddress: 203.0.113.7}, eventType: user.session.start, outcome: {result: SUCCESS}, published: "2026-11-10T10:00:00.000Z", uuid: u, severity: INFO, legacyEventType: x}`, f)
	case l.Product == "m365" && l.Service != "audit":
		g := map[string]string{}
		for k, v := range f {
			switch k {
			case "eventSource":
				k = "Workload"
			case "eventName":
				k = "Name"
			case "status":
				continue
			case "Payload":
				k = "Parameters"
			}
			g[k] = v
		}
		return nested(`{CreationTime: "2026-11-10T10:00:00", Id: "1", Operation: AlertTriggered, OrganizationId: o, RecordType: 40, UserType: 4, UserKey: k, Workload: SecurityComplianceCenter, UserId: a@school.example, AlertId: "7"}`, g)
	case l.Product == "m365":
		return nested(`{CreationTime: "2026-11-10T10:00:00", Id: "1", Operation: X, OrganizationId: o, RecordType: 15, UserType: 4, UserKey: k, Workload: Exchange, UserId: a@school.example}`, f)
	case l.Service == "gcp.audit":
		g := map[string]string{}
		for k, v := range f {
			if k = strings.TrimPrefix(k, "data."); k == "gcp.audit.method_name" {
				k = "protoPayload.methodName"
			}
			g[k] = v
		}
		return nested(`{insertId: i, logName: projects/p/logs/cloudaudit.googleapis.com%2Factivity, timestamp: "2026-11-10T10:00:00Z", severity: NOTICE, protoPayload: {serviceName: s.googleapis.com, methodName: m, authenticationInfo: {principalEmail: a@school.example}}, resource: {type: t, labels: {project_id: p}}}`, g)
	case l.Service == "google_workspace.admin":
		g := map[string]string{}
		for k, v := range f {
			if k != "eventService" {
				g[map[string]string{"eventName": "name", "setting_name": "parameters.SETTING_NAME", "new_value": "parameters.NEW_VALUE"}[k]] = v
			}
		}
		return nested(`{kind: "admin#reports#activity", id: {time: "2026-11-10T10:00:00.000Z", uniqueQualifier: "1", applicationName: admin, customerId: c}, actor: {email: a@school.example}, ipAddress: 203.0.113.7}`, g)
	case l.Service == "google_workspace.login":
		return nested(`{kind: "admin#reports#activity", id: {time: "2026-11-10T10:00:00.000Z", uniqueQualifier: "1", applicationName: login, customerId: c}, actor: {email: a@school.example}, ipAddress: 203.0.113.7}`, map[string]string{"name": f["protoPayload.metadata.event.eventName"]})
	case l.Product == "kubernetes":
		return nested(`{kind: Event, apiVersion: audit.k8s.io/v1, level: Metadata, auditID: a, stage: ResponseComplete, requestURI: /api, verb: get, user: {username: u}, sourceIPs: [203.0.113.7], objectRef: {resource: pods}, responseStatus: {code: 200}, requestReceivedTimestamp: "2026-11-10T10:00:00Z"}`, f)
	case l.Product == "github":
		return nested(`{"@timestamp": 1794304800000, action: x, actor: a, org: o, created_at: 1794304800000, _document_id: d}`, f)
	case l.Product == "onelogin":
		return nested(`{event_type_id: 5, account_id: 1, user_id: 2, created_at: "2026-11-10T10:00:00.000Z", user_name: A, ipaddr: 203.0.113.7, id: 3, actor_user_id: 1}`, f)
	case l.Product == "azure" && l.Service == "activitylogs":
		g := map[string]string{}
		if said != "" {
			g["operationName"] = said
		}
		for k, v := range f {
			g[or(map[string]string{"CategoryValue": "category", "OperationNameValue": "operationName", "ResourceId": "resourceId", "ResourceProviderValue": "resourceProvider", "properties.message": "operationName"}[k], k)] = v
		}
		return nested(`{time: "2026-11-10T10:00:00.0000000Z", resourceId: /SUBSCRIPTIONS/S, operationName: X, category: Administrative, resultType: Success, callerIpAddress: 203.0.113.7, level: Information, properties: {entity: e}}`, g)
	case l.Product == "azure" && l.Service == "auditlogs":
		g := map[string]string{}
		for k, v := range f {
			g[or(map[string]string{"properties.message": "operationName", "OperationName": "operationName", "Category": "properties.category", "Status": "properties.result", "LoggedByService": "properties.loggedByService",
				"ActivityDisplayName": "properties.activityDisplayName", "ActivityType": "properties.activityDisplayName", "activityType": "properties.activityDisplayName"}[k], strings.Replace(k, "TargetResources", "properties.targetResources", 1))] = v
		}
		if g["category"] == "" {
			g["category"] = "AuditLogs"
		}
		return nested(`{time: "2026-11-10T10:00:00.0000000Z", resourceId: /tenants/t, operationName: X, tenantId: t, resultType: "", callerIpAddress: 203.0.113.7, Level: 4, properties: {id: i, activityDateTime: "2026-11-10T10:00:00Z"}}`, g)
	case l.Product == "azure" && l.Service == "signinlogs":
		g := map[string]string{}
		for k, v := range f {
			g[or(map[string]string{"ResultType": "resultType", "ResultDescription": "resultDescription", "Resultdescription": "resultDescription", "AuthenticationRequirement": "properties.authenticationRequirement",
				"Username": "properties.userPrincipalName", "ClientApp": "properties.clientAppUsed", "userAgent": "properties.userAgent", "location": "properties.location.countryOrRegion", "RiskState": "properties.riskState",
				"ResourceDisplayName": "properties.resourceDisplayName", "conditionalAccessStatus": "properties.conditionalAccessStatus", "homeTenantId": "properties.homeTenantId", "resourceTenantId": "properties.resourceTenantId",
				"DeviceDetail.deviceId": "properties.deviceDetail.deviceId", "DeviceDetail.trusttype": "properties.deviceDetail.trustType", "DeviceDetail.isCompliant": "properties.deviceDetail.isCompliant",
				"properties.message": "operationName", "failure_status_reason": "resultDescription", "ActivityDetails": "operationName"}[k], k)] = v
		}
		return nested(`{time: "2026-11-10T10:00:00.0000000Z", resourceId: /tenants/t, operationName: Sign-in activity, category: SignInLogs, tenantId: t, callerIpAddress: 203.0.113.7, Level: 4, properties: {id: i, createdDateTime: "2026-11-10T10:00:00Z"}}`, g)
	case l.Product == "azure":
		return nested(`{time: "2026-11-10T10:00:00.0000000Z", resourceId: /tenants/t, operationName: User Risk Detection, category: UserRiskEvents, tenantId: t, properties: {id: i, activityDateTime: "2026-11-10T10:00:00Z"}}`, map[string]string{"properties.riskEventType": f["riskEventType"]})
	case l.Service == "auditd":
		var b strings.Builder
		fmt.Fprintf(&b, "type=%s msg=audit(1794304800.000:7): ", or(f["type"], "SYSCALL"))
		for k, v := range f {
			if k != "type" {
				fmt.Fprintf(&b, "%s=%q ", k, v)
			}
		}
		for i, v := range words {
			fmt.Fprintf(&b, "a%d=%q ", 3+i, v)
		}
		return []byte(b.String())
	case l.Service == "apache":
		return []byte("[Tue Nov 10 10:00:00.123456 2026] [core:error] [pid 7:tid 9] [client 203.0.113.7:5000] " + said)
	case l.Service == "nginx":
		return []byte("2026/11/10 10:00:00 [crit] 7#7: *9 " + said + ", client: 203.0.113.7, server: www.school.example")
	case l.Product == "linux" && len(f) == 0:
		program := or(map[string]string{"cron": "CRON", "vsftpd": "vsftpd", "clamav": "clamd", "guacamole": "guacd", "sudo": "sudo", "auth": "sudo"}[l.Service], "sshd")
		return []byte("<38>Nov 10 10:00:00 srv1 " + program + "[77]: " + said)
	case l.Product == "fortigate":
		var b strings.Builder
		b.WriteString(`<189>date=2026-11-10 time=10:00:00 devname="fw" devid="FGT60E" logid="0100044546" type="event" subtype="system" level="information" vd="root" logdesc="Attribute configured" user="admin" ui="https(203.0.113.7)" `)
		for k, v := range f {
			fmt.Fprintf(&b, "%s=%q ", k, v)
		}
		return []byte(b.String())
	case l.Product == "cisco" && len(f) == 0 && l.Service != "duo":
		return []byte("<189>77: Nov 10 10:00:00.000: %PARSER-5-CFGLOG_LOGGEDCMD: User:admin  logged command:" + said)
	}
	return nil
}

// TestEveryRuleOnTheWay makes an event for each of upstream's rules that one can be made for, renders it as programs send such events, and looks whether
// the rule matches at the hub after the whole way. docs/log-sources.md has the table that it logs.
func TestEveryRuleOnTheWay(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_TORTURE") == "" {
		t.Skip("SKIPPED: TOCSIN_TEST_TORTURE is not set (3,780 rules, three forms of Windows' events: half a minute)")
	}
	w, lean := newWay(t, "full"), newWay(t, "metadata")
	u := w.u
	texts := ruleTexts(t)
	type row struct{ rules, made, fired, lean int }
	table := map[string]*row{}
	silent := map[string][]string{}
	dec := &sigma.Decoder{Names: u.names}
	var rec sigma.Record
	var m sigma.Matcher
	for _, r := range u.plain.Rules {
		l := r.LogSource
		name := or(l.Product, "-") + "/" + or(l.Category, "-") + "/" + or(l.Service, "-")
		x := table[name]
		if x == nil {
			x = &row{}
			table[name] = x
		}
		x.rules++
		number := int32(slices.Index(u.plain.Rules, r))
		made, fired, last := false, false, ""
		for nth := 0; nth < 6 && !fired; nth++ {
			fields, words, ok := makeEvent(texts[r.File], nth)
			if !ok {
				continue
			}
			flat := map[string]any{}
			for k, v := range fields {
				flat[k] = v
			}
			if len(words) > 0 {
				flat["message"] = strings.Join(words, " ")
			}
			if err := dec.Decode(&rec, marshal(flat)); err != nil {
				continue
			}
			if !slices.Contains(m.Match(u.plain.Set(sigma.Source{LogSource: l}), &rec, nil), number) {
				continue
			}
			for _, form := range []string{"winlogbeat", "xml", "nxlog"} {
				line := rendering(l, fields, words, form)
				if len(line) == 0 {
					break
				}
				made = true
				got, at := w.rules(t, line)
				if slices.Contains(got, r.ID) {
					if got, _ := lean.rules(t, line); !fired && slices.Contains(got, r.ID) {
						x.lean++
					}
					fired = true
				} else {
					last = fmt.Sprintf("%s: %.500s -> %.900s", form, line, at.AppendJSON(nil))
				}
				if l.Product != "windows" && !(l.Product == "linux" && l.Category != "") {
					break
				}
			}
		}
		if made {
			x.made++
		}
		if fired {
			x.fired++
		} else if made {
			silent[name] = append(silent[name], r.File+": "+last)
		}
	}
	sum := row{}
	for _, name := range sortedKeys(table) {
		x := table[name]
		sum.rules, sum.made, sum.fired, sum.lean = sum.rules+x.rules, sum.made+x.made, sum.fired+x.fired, sum.lean+x.lean
		t.Logf("%-50s %5d rules %5d events made %5d fire, %d under metadata", name, x.rules, x.made, x.fired, x.lean)
	}
	t.Logf("%-50s %5d rules %5d events made %5d fire, %d under metadata", "all", sum.rules, sum.made, sum.fired, sum.lean)
	if sum.made < 3540 || sum.fired < sum.made-60 {
		t.Errorf("of %d events that were made for a rule %d fire; the table above says which do not", sum.made, sum.fired)
	}
	for _, name := range sortedKeys(silent) {
		for i, s := range silent[name] {
			if i < 4 {
				t.Logf("silent %s: %s", name, s)
			}
		}
	}
}
