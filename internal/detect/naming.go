package detect

import (
	"slices"
	"strings"
	"sync"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// Sigma's rules name fields as their log source does: W3C names for proxies, Windows' own for Windows, the names in a cloud's JSON. Events carry ECS
// names, and for Windows and clouds the source's own beside (packs with others: native; Windows' XML). A naming says where the value of a rule's
// field is found in an event. It is resolved when the rules that apply to a kind of event are put together; an event is then filled in by a table.

// naming is the names of the rules of some log sources.
type naming struct {
	of      sigma.LogSource // whose rules; what is empty fits any
	natives []string        // prefixes under which a name may stand in an event beside its own
	fields  map[string]string
}

// Fields: what stands behind a | is taken when nothing before it was there; parts with a comma between them are all taken. A part is a field, or
//
//	a+b          two texts, one behind the other
//	a.*          a, and the names and values of all fields below it
//	a?x=y;z=w    y when a is x, w when it is z
//	=x           x
var namings = []naming{
	{of: sigma.LogSource{Category: "firewall"}, fields: map[string]string{
		"src_ip": "source.ip", "src_port": "source.port", "dst_ip": "destination.ip", "dst_port": "destination.port",
		"action": "event.action,tocsin.verdict?allow=accept;deny=deny", "blocked": "tocsin.verdict?allow=false;deny=true",
	}},
	{of: sigma.LogSource{Category: "proxy"}, fields: map[string]string{
		"c-uri": "url.full,url.original,url.domain+url.original", "cs-uri": "url.original,url.full,url.domain+url.original", "c-uri-query": "url.query", "cs-uri-query": "url.query",
		"c-uri-stem": "url.path", "cs-uri-stem": "url.path", "c-uri-extension": "url.extension",
		"c-useragent": "user_agent.original", "cs-user-agent": "user_agent.original", "cs-host": "url.domain|destination.domain|tls.client.server_name|destination.ip",
		"r-dns": "url.domain|destination.domain", "cs-method": "http.request.method", "sc-status": "http.response.status_code", "cs-referer": "http.request.referrer",
		"cs-referrer": "http.request.referrer", "cs-username": "user.name", "c-ip": "source.ip", "src_ip": "source.ip", "dst_ip": "destination.ip", "r-ip": "destination.ip",
		"cs-mime-type": "http.response.mime_type", "sc-bytes": "destination.bytes", "cs-bytes": "source.bytes",
	}},
	{of: sigma.LogSource{Category: "webserver"}, fields: map[string]string{ // upstream's rules mean path and query by cs-uri-query
		"cs-uri-query": "url.original,url.query|url.path", "cs-uri-stem": "url.path|url.original", "cs-uri": "url.original|url.path", "c-uri": "url.original|url.full",
		"cs-user-agent": "user_agent.original", "c-useragent": "user_agent.original", "cs-host": "url.domain", "cs-method": "http.request.method", "sc-status": "http.response.status_code",
		"cs-referer": "http.request.referrer", "cs-referrer": "http.request.referrer", "cs-username": "user.name", "c-ip": "source.ip", "s-ip": "destination.ip", "s-port": "destination.port",
		"cs-content-type": "http.request.mime_type",
	}},
	{of: sigma.LogSource{Category: "dns"}, fields: map[string]string{"query": "dns.question.name", "record_type": "dns.question.type", "answer": "dns.answers.data"}},
	{of: sigma.LogSource{Category: "antivirus"}, natives: windowsNatives, fields: map[string]string{
		"Signature": "ThreatName,event_data.ThreatName|threat.software.name|rule.name", "Filename": "Path,event_data.Path|file.path|file.name", "Action": "event.action",
	}},
	{of: sigma.LogSource{Product: "zeek"}, fields: map[string]string{
		"id.orig_h": "source.ip", "id.orig_p": "source.port", "id.resp_h": "destination.ip", "id.resp_p": "destination.port", "query": "dns.question.name", "qtype_name": "dns.question.type",
		"answers": "dns.answers.data", "method": "http.request.method", "uri": "url.original|url.path", "host": "url.domain", "user_agent": "user_agent.original", "c-useragent": "user_agent.original",
		"c-uri": "url.full,url.original,url.domain+url.original", "status_code": "http.response.status_code", "request_body_len": "http.request.body.bytes|source.bytes",
		"resp_mime_types": "http.response.mime_type", "name": "file.path|file.name", "operation": "event.action", "cipher": "tls.cipher", "service": "network.protocol", "note": "rule.name",
		"certificate.serial": "tls.serial",
	}},
	{of: sigma.LogSource{Product: "windows"}, natives: windowsNatives, fields: windowsFields},
	{of: sigma.LogSource{Product: "rpc_firewall"}, natives: windowsNatives, fields: map[string]string{"EventID": "event.code", "EventLog": "log.logger,event.provider"}},
	{of: sigma.LogSource{Product: "linux"}, natives: windowsNatives, fields: map[string]string{ // Sysmon's own; what auditd says is named in its rules as it stands
		"EventID": "event.code", "Provider_Name": "event.provider", "Channel": "log.logger", "Computer": "host.name", "Image": "process.executable", "CommandLine": "process.command_line",
		"ParentImage": "process.parent.executable", "ParentCommandLine": "process.parent.command_line", "CurrentDirectory": "process.working_directory", "User": "user.name",
		"TargetFilename": "file.path", "DestinationIp": "destination.ip", "DestinationPort": "destination.port", "DestinationHostname": "destination.domain", "SourceIp": "source.ip",
		"exe": "process.executable", "comm": "process.name", "name": "file.path", "key": "rule.name", "unit": "service.name", "USER": "user.effective.name",
	}},
	{of: sigma.LogSource{Product: "aws"}, fields: map[string]string{
		"eventName": "event.action", "eventSource": "event.provider", "errorCode": "error.code", "errorMessage": "error.message", "userAgent": "user_agent.original",
		"sourceIPAddress": "source.ip|source.domain", "src_ip": "source.ip", "src_country": "source.geo.country_iso_code", "awsRegion": "cloud.region", "status": "event.outcome",
		"requestParameters": "requestParameters.*", "responseElements": "responseElements.*",
	}},
	{of: sigma.LogSource{Product: "azure"}, fields: azureFields},
	{of: sigma.LogSource{Product: "m365"}, fields: map[string]string{
		// The names are those of Defender for Cloud Apps; the records of the unified audit log say the same under others.
		"eventSource": "Workload,event.provider", "eventName": "Name,Operation,data.an|event.action", "status": "event.outcome|=success", "Payload": "Parameters.*,ExtendedProperties.*,Data",
		"Operation": "event.action", "Workload": "event.provider", "Parameters": "Parameters.*", "OperationProperties": "OperationProperties.*", "ResultStatus": "event.outcome",
		"RequestType": "ExtendedProperties.RequestType", "DeliveryAction": "event.action",
	}},
	{of: sigma.LogSource{Product: "okta"}, fields: map[string]string{
		"eventType": "event.action", "eventtype": "eventType,event.action", "displayMessage": "message", "displaymessage": "message", "actor.alternateId": "user.name",
		"outcome.reason": "event.reason", "outcome.result": "event.outcome", "debugContext.debugData.requestUri": "url.original", "target.alternateId": "user.target.name",
	}},
	{of: sigma.LogSource{Product: "gcp"}, fields: map[string]string{
		"gcp.audit.method_name": "protoPayload.methodName|event.action", "data.protoPayload.methodName": "protoPayload.methodName|event.action",
		"data.protoPayload.serviceName": "protoPayload.serviceName|event.provider", "data.protoPayload.logName": "protoPayload.logName,logName", "data.protoPayload.resource.type": "protoPayload.resource.type,resource.type",
		"data.protoPayload.authorizationInfo.granted":    "protoPayload.authorizationInfo.granted",
		"data.protoPayload.authorizationInfo.permission": "protoPayload.authorizationInfo.permission",
		"eventService":                          "protoPayload.serviceName,event.provider?admin=admin.googleapis.com;login=login.googleapis.com",
		"eventName":                             "protoPayload.metadata.event.eventName,events.name,name|event.action",
		"setting_name":                          "events.parameters.SETTING_NAME,parameters.SETTING_NAME,protoPayload.metadata.event.parameter.SETTING_NAME",
		"new_value":                             "events.parameters.NEW_VALUE,parameters.NEW_VALUE,protoPayload.metadata.event.parameter.NEW_VALUE",
		"protoPayload.metadata.event.eventName": "events.name,name|event.action",
		"protoPayload.serviceName":              "event.provider?admin=admin.googleapis.com;login=login.googleapis.com|event.provider",
		"protoPayload.Servicename":              "protoPayload.serviceName,event.provider?admin=admin.googleapis.com;login=login.googleapis.com",
	}},
	{of: sigma.LogSource{Product: "kubernetes"}, fields: map[string]string{"verb": "event.action", "userAgent": "user_agent.original", "responseStatus.code": "http.response.status_code",
		"apiGroup": "objectRef.apiGroup", "capabilities": "requestObject.spec.containers.securityContext.capabilities.add", "hostPath": "requestObject.spec.volumes.hostPath.path"}},
	{of: sigma.LogSource{Product: "github"}, fields: map[string]string{"action": "event.action"}},
	{of: sigma.LogSource{Product: "bitbucket"}, fields: map[string]string{"auditType.action": "event.action", "auditType.category": "event.category_name"}},
	{of: sigma.LogSource{Product: "onelogin"}, fields: map[string]string{"event_type_id": "event.code"}},
	{of: sigma.LogSource{Product: "cisco", Service: "duo"}, fields: map[string]string{"reason": "event.reason", "event_type": "event.action"}},
	{of: sigma.LogSource{Product: "fortigate"}, fields: map[string]string{"action": "event.action"}},
}

// windowsNatives: EventData as winlogbeat has it; by its own name it stands in what others send.
var windowsNatives = []string{"event_data.", "user_data."}

// windowsFields are the names of the system part, those that one event calls so and another otherwise, and what of ECS is the same for lines that
// came as sentences and have no native names.
var windowsFields = map[string]string{
	"EventID": "event.code", "Provider_Name": "event.provider", "SourceName": "event.provider", "Channel": "log.logger", "Computer": "host.name", "ComputerName": "host.name",
	"Level": "level", "Message": "message",
	"Image":       "NewProcessName,event_data.NewProcessName|process.executable", // of Security 4688
	"ParentImage": "ParentProcessName,event_data.ParentProcessName|process.parent.executable",
	"CommandLine": "process.command_line", "ParentCommandLine": "process.parent.command_line",
	"IpAddress": "source.ip", "DestinationIp": "destination.ip", "DestinationPort": "destination.port", "DestinationHostname": "destination.domain", "DestPort": "destination.port",
	"SourceIp": "source.ip", "SourcePort": "source.port", "QueryName": "dns.question.name", "TargetFilename": "file.path", "ScriptBlockText": "powershell.script",
	"Data": "param1,param2,param3,param4,param5,param6,param7,param8,param9,param10,param11,param12," +
		"event_data.param1,event_data.param2,event_data.param3,event_data.param4,event_data.param5,event_data.param6,event_data.param7,event_data.param8,event_data.param9,event_data.param10,event_data.param11,event_data.param12",
}

var azureFields = map[string]string{
	"operationName": "event.action", "OperationName": "operationName|event.action", "OperationNameValue": "operationName,operationName.value|event.action",
	"ActivityDisplayName": "properties.activityDisplayName,operationName|event.action", "properties.message": "properties.activityDisplayName,operationName|message|event.action",
	"Category": "properties.category,category,category.value|event.category_name", "category": "event.category_name", "CategoryValue": "category,category.value|event.category_name",
	"ResourceId": "resourceId|cloud.resource.id", "ResourceProviderValue": "resourceProviderName.value,resourceProvider,properties.resourceProviderValue,properties.resource",
	"ResultType": "resultType,properties.status.errorCode|event.code", "resultType": "properties.status.errorCode|event.code",
	"ResultDescription": "resultDescription,properties.status.failureReason|event.reason", "Resultdescription": "resultDescription,properties.status.failureReason|event.reason",
	"failure_status_reason": "resultDescription,properties.status.failureReason|event.reason",
	"Status":                "properties.result,status|event.outcome", "properties.result": "event.outcome",
	"AuthenticationRequirement": "properties.authenticationRequirement", "userAgent": "properties.userAgent|user_agent.original", "callerIpAddress": "source.ip",
	"location": "properties.location.countryOrRegion|cloud.region", "ClientApp": "properties.clientAppUsed", "Username": "properties.userPrincipalName|user.name",
	"conditionalAccessStatus": "properties.conditionalAccessStatus", "RiskState": "properties.riskState", "ResourceDisplayName": "properties.resourceDisplayName",
	"homeTenantId": "properties.homeTenantId", "resourceTenantId": "properties.resourceTenantId", "NetworkLocationDetails": "properties.networkLocationDetails.*",
	"DeviceDetail.deviceId": "properties.deviceDetail.deviceId", "DeviceDetail.trusttype": "properties.deviceDetail.trustType", "DeviceDetail.isCompliant": "properties.deviceDetail.isCompliant",
	"LoggedByService": "properties.loggedByService", "ActivityType": "properties.activityDisplayName", "activityType": "properties.activityDisplayName",
	"ActivityDetails": "properties.activityDisplayName,operationName", "additionalDetails.additionalInfo": "properties.additionalDetails.value",
	"TargetResources": "properties.targetResources.*", "Target": "properties.targetResources.*", "properties.targetResources": "properties.targetResources.*",
	"TargetResources.modifiedProperties":             "properties.targetResources.modifiedProperties.*",
	"TargetResources.modifiedProperties.newValue":    "properties.targetResources.modifiedProperties.newValue",
	"TargetResources.ModifiedProperties.NewValue":    "properties.targetResources.modifiedProperties.newValue",
	"TargetResources.ModifiedProperties.DisplayName": "properties.targetResources.modifiedProperties.displayName",
	"targetResources.type":                           "properties.targetResources.type",
	"Initiatied.By":                                  "properties.initiatedBy.*", "Initiatedby": "properties.initiatedBy.*", "properties.initiatedBy": "properties.initiatedBy.*",
	"riskEventType": "properties.riskEventType,properties.alertType|event.action|rule.name",
}

// candidate is a part of what says where a field's value is found.
type candidate struct {
	rank  int
	field string // "" with text: a constant
	with  string // joined behind field
	tree  bool   // all fields below field
	pairs []pair
	text  string
}

// pair replaces a value.
type pair struct{ is, becomes string }

// candidatesOf reads a line of a naming.
func candidatesOf(text string) (out []candidate) {
	for rank, alternatives := range strings.Split(text, "|") {
		for part := range strings.SplitSeq(alternatives, ",") {
			c := candidate{rank: rank, field: part}
			if name, pairs, ok := strings.Cut(part, "?"); ok {
				c.field = name
				for p := range strings.SplitSeq(pairs, ";") {
					is, becomes, _ := strings.Cut(p, "=")
					c.pairs = append(c.pairs, pair{is, becomes})
				}
			} else if text, ok := strings.CutPrefix(part, "="); ok {
				c.field, c.text = "", text
			} else if name, ok := strings.CutSuffix(part, ".*"); ok {
				c.field, c.tree = name+".", true
			} else if a, b, ok := strings.Cut(part, "+"); ok {
				c.field, c.with = a, b
			}
			out = append(out, c)
		}
	}
	return out
}

// parsed are the candidates of all namings, by naming and field.
var parsed = sync.OnceValue(func() []map[string][]candidate {
	out := make([]map[string][]candidate, len(namings))
	for i := range namings {
		out[i] = make(map[string][]candidate, len(namings[i].fields))
		for name, text := range namings[i].fields {
			out[i][name] = candidatesOf(text)
		}
	}
	return out
})

// fits says whether a naming is of the rules of a log source.
func (n *naming) fits(l sigma.LogSource) bool {
	return (n.of.Category == "" || n.of.Category == l.Category) && (n.of.Product == "" || n.of.Product == l.Product) && (n.of.Service == "" || n.of.Service == l.Service)
}

// candidates are the places beside the field of that name itself where the rules of a log source find it.
func candidates(l sigma.LogSource, name string) (out []candidate) {
	for i := range namings {
		n := &namings[i]
		if !n.fits(l) {
			continue
		}
		for _, p := range n.natives {
			out = append(out, candidate{field: p + name})
		}
		for _, c := range parsed()[i][name] {
			c.rank++ // the field of that name itself comes first, where there is one
			out = append(out, c)
		}
	}
	return out
}

// registerNames gives keys to all fields that candidates of the rules speak of, before events are decoded: a field without a key cannot be looked at.
func registerNames(rules *sigma.Engine) error {
	agree := func(a, b string) bool { return a == "" || b == "" || a == b }
	var names []string
	for i := range namings {
		n := &namings[i]
		if !slices.ContainsFunc(rules.Rules, func(r *sigma.Rule) bool {
			l := r.LogSource
			return l != (sigma.LogSource{}) && agree(l.Product, n.of.Product) && agree(l.Category, n.of.Category) && agree(l.Service, n.of.Service)
		}) {
			continue
		}
		switch n.of.Product {
		case "windows":
			names = append(names, eventTypeNames...)
		case "zeek":
			for _, z := range zeekKinds {
				names = append(names, z.field)
			}
		}
		for _, f := range rules.FieldNames() {
			for _, p := range n.natives {
				if strings.IndexByte(f, '.') < 0 {
					names = append(names, p+f)
				}
			}
			for _, c := range parsed()[i][f] {
				if c.field != "" {
					names = append(names, strings.TrimSuffix(c.field, "."))
				}
				if c.with != "" {
					names = append(names, c.with)
				}
			}
		}
	}
	slices.Sort(names)
	_, err := event.RegisterAll(slices.Compact(names)...)
	return err
}

// found says whether an event that has some fields could have one that a rule names.
func found(l sigma.LogSource, name string, has func(string) bool) bool {
	if has(name) {
		return true
	}
	for _, c := range candidates(l, name) {
		if c.field == "" || !c.tree && has(c.field) && (c.with == "" || has(c.with)) {
			return true
		}
		if c.tree {
			if has(strings.TrimSuffix(c.field, ".")) {
				return true
			}
			for k := event.Key(1); int(k) < event.NumKeys(); k++ {
				if n := k.Name(); strings.HasPrefix(n, c.field) && has(n) {
					return true
				}
			}
		}
	}
	return false
}
