package sigma

import (
	"maps"
	"slices"
	"strings"
)

// windowsServices maps channels, in lower case, to the services of SigmaHQ's rules (its THOR configuration, and the channels that the
// definitions of rules name where that has none).
var windowsServices = map[string]string{
	"application":                "application",
	"security":                   "security",
	"system":                     "system",
	"windows powershell":         "powershell-classic",
	"dns server":                 "dns-server",
	"msexchange management":      "msexchange-management",
	"openssh/operational":        "openssh",
	"powershellcore/operational": "powershell",
	"microsoft-iis-configuration/operational":                                  "iis-configuration",
	"microsoft-servicebus-client/admin":                                        "microsoft-servicebus-client",
	"microsoft-servicebus-client/operational":                                  "microsoft-servicebus-client",
	"microsoft-windows-ntlm/operational":                                       "ntlm",
	"microsoft-windows-sysmon/operational":                                     "sysmon",
	"microsoft-windows-powershell/operational":                                 "powershell",
	"microsoft-windows-taskscheduler/operational":                              "taskscheduler",
	"microsoft-windows-wmi-activity/operational":                               "wmi",
	"microsoft-windows-dhcp-server/operational":                                "dhcp",
	"microsoft-windows-printservice/admin":                                     "printservice-admin",
	"microsoft-windows-printservice/operational":                               "printservice-operational",
	"microsoft-windows-smbclient/security":                                     "smbclient-security",
	"microsoft-windows-smbclient/connectivity":                                 "smbclient-connectivity",
	"microsoft-windows-smbserver/connectivity":                                 "smbserver-connectivity",
	"microsoft-windows-terminalservices-localsessionmanager/operational":       "terminalservices-localsessionmanager",
	"microsoft-windows-codeintegrity/operational":                              "codeintegrity-operational",
	"microsoft-windows-applocker/msi and script":                               "applocker",
	"microsoft-windows-applocker/exe and dll":                                  "applocker",
	"microsoft-windows-applocker/packaged app-deployment":                      "applocker",
	"microsoft-windows-applocker/packaged app-execution":                       "applocker",
	"microsoft-windows-windows defender/operational":                           "windefend",
	"microsoft-windows-windows firewall with advanced security/firewall":       "firewall-as",
	"microsoft-windows-bits-client/operational":                                "bits-client",
	"microsoft-windows-security-mitigations/kernel mode":                       "security-mitigations",
	"microsoft-windows-security-mitigations/user mode":                         "security-mitigations",
	"microsoft-windows-diagnosis-scripted/operational":                         "diagnosis-scripted",
	"microsoft-windows-shell-core/operational":                                 "shell-core",
	"microsoft-windows-ldap-client/debug":                                      "ldap",
	"microsoft-windows-bitlocker/bitlocker management":                         "bitlocker",
	"microsoft-windows-vhdmp/operational":                                      "vhdmp",
	"microsoft-windows-vhdmp-operational":                                      "vhdmp",
	"microsoft-windows-appxdeploymentserver/operational":                       "appxdeployment-server",
	"microsoft-windows-appxdeployment-server/operational":                      "appxdeployment-server",
	"microsoft-windows-lsa/operational":                                        "lsa-server",
	"microsoft-windows-appxpackaging/operational":                              "appxpackaging-om",
	"microsoft-windows-dns client events/operational":                          "dns-client",
	"microsoft-windows-dns-client/operational":                                 "dns-client",
	"microsoft-windows-dns-server/audit":                                       "dns-server-audit",
	"microsoft-windows-dns-server/analytical":                                  "dns-server-analytic",
	"microsoft-windows-driverframeworks-usermode/operational":                  "driver-framework",
	"microsoft-windows-appmodel-runtime/admin":                                 "appmodel-runtime",
	"microsoft-windows-capi2/operational":                                      "capi2",
	"microsoft-windows-certificateservicesclient-lifecycle-system/operational": "certificateservicesclient-lifecycle-system",
	"microsoft-windows-kernel-shimengine/operational":                          "kernel-shimengine",
	"microsoft-windows-kernel-shimengine/diagnostic":                           "kernel-shimengine",
	"microsoft-windows-application-experience/program-telemetry":               "application-experience",
	"microsoft-windows-application-experience/program-compatibility-assistant": "application-experience",
	"microsoft-windows-ntfs/operational":                                       "ntfs",
	"microsoft-windows-hyper-v-worker":                                         "hyper-v-worker",
	"microsoft-windows-kernel-eventtracing":                                    "kernel-event-tracing",
	"microsoft-windows-sense":                                                  "sense",
	"microsoft-windows-sense/operational":                                      "sense",
}

// windowsCategories maps service and event id to the generic category.
var windowsCategories = map[string]map[string][]string{
	"sysmon": {
		"1": {"process_creation"}, "2": {"file_change"}, "3": {"network_connection"}, "4": {"sysmon_status"}, "5": {"process_termination"},
		"6": {"driver_load"}, "7": {"image_load"}, "8": {"create_remote_thread"}, "9": {"raw_access_thread"}, "10": {"process_access"},
		"11": {"file_event"}, "12": {"registry_event"}, "13": {"registry_event", "registry_set"}, "14": {"registry_event", "registry_rename"},
		"15": {"create_stream_hash"}, "16": {"sysmon_status"}, "17": {"pipe_created"}, "18": {"pipe_created"}, "19": {"wmi_event"},
		"20": {"wmi_event"}, "21": {"wmi_event"}, "22": {"dns_query"}, "23": {"file_delete"}, "24": {"clipboard_change"},
		"25": {"process_tampering"}, "26": {"file_delete_detected"}, "27": {"file_block_executable"}, "28": {"file_block_shredding"},
		"29": {"file_executable_detected"}, "255": {"sysmon_error"},
	},
	"security":   {"4688": {"process_creation"}},
	"powershell": {"4103": {"ps_module"}, "4104": {"ps_script"}},
	"powershell-classic": {
		"400": {"ps_classic_start"}, "600": {"ps_classic_provider_start"}, "800": {"ps_classic_script"},
	},
	"windefend": {
		"1006": {"antivirus"}, "1007": {"antivirus"}, "1008": {"antivirus"}, "1009": {"antivirus"}, "1010": {"antivirus"}, "1011": {"antivirus"},
		"1012": {"antivirus"}, "1017": {"antivirus"}, "1018": {"antivirus"}, "1019": {"antivirus"}, "1115": {"antivirus"}, "1116": {"antivirus"},
	},
}

var windowsRenames = map[string]map[string]string{
	"process_creation": {"Image": "NewProcessName", "ParentImage": "ParentProcessName"}, // of Security 4688
	"antivirus":        {"Signature": "ThreatName", "Filename": "Path"},
}

// WindowsSources gives the readings of a Windows event: its channel's service, and the generic categories of its event id. eventType is
// the field EventType of Sysmon's registry events.
func WindowsSources(channel, eventID, eventType string) []Source {
	service := windowsServices[strings.ToLower(channel)]
	out := []Source{{LogSource: LogSource{Product: "windows", Service: service}}}
	categories := windowsCategories[service][eventID]
	if service == "sysmon" && eventID == "12" {
		switch strings.ToLower(eventType) {
		case "createkey":
			categories = []string{"registry_event", "registry_add"}
		case "deletekey", "deletevalue":
			categories = []string{"registry_event", "registry_delete"}
		}
	}
	for _, c := range categories {
		s := Source{LogSource: LogSource{Product: "windows", Service: service, Category: c}}
		if service == "security" || service == "windefend" {
			s.Rename = windowsRenames[c]
		}
		out = append(out, s)
	}
	return out
}

// WindowsChannels lists the channels that have a service, in lower case and in order.
func WindowsChannels() []string { return slices.Sorted(maps.Keys(windowsServices)) }

// WindowsEvents lists the numbers of the events of a channel that have a category, in order.
func WindowsEvents(channel string) []string {
	return slices.Sorted(maps.Keys(windowsCategories[windowsServices[strings.ToLower(channel)]]))
}

// PrepareWindows makes the sets of all Windows events that are known, so that the first event of a kind need not wait for its own.
func (e *Engine) PrepareWindows() {
	for _, channel := range slices.Sorted(maps.Keys(windowsServices)) {
		e.Set(WindowsSources(channel, "", "")...)
		for _, id := range slices.Sorted(maps.Keys(windowsCategories[windowsServices[channel]])) {
			e.Set(WindowsSources(channel, id, "")...)
		}
	}
	const sysmon = "microsoft-windows-sysmon/operational"
	for _, kind := range []string{"CreateKey", "DeleteKey"} {
		e.Set(WindowsSources(sysmon, "12", kind)...)
	}
	e.Set(WindowsSources("", "", "")...)
}

// Router finds the set of a Windows event from its fields Channel, EventID and EventType. It belongs to one goroutine.
type Router struct {
	// Within, if given, is what is known of the log source beforehand: only readings that agree with it are taken. It must be set
	// before the first call of Route.
	Within LogSource

	engine                      *Engine
	channel, eventID, eventType Key
	cache                       map[routeKey]*knownRoute
	recent                      [64]*knownRoute // routes asked for lately: comparing one is cheaper than hashing for the map
}

type knownRoute struct {
	routeKey
	set *Set
}

type routeKey struct{ channel, id, kind string }

// NewRouter must be called before records are decoded with a growing schema: it asks it for the three names.
func NewRouter(e *Engine) (*Router, error) {
	r := &Router{engine: e, cache: map[routeKey]*knownRoute{}}
	var err error
	for name, at := range map[string]*Key{"Channel": &r.channel, "EventID": &r.eventID, "EventType": &r.eventType} {
		if *at, err = e.opts.Schema.Key(name); err != nil {
			return nil, err
		}
	}
	for _, m := range windowsRenames { // sets are made while records are decoded: their names must be known by then
		for _, name := range m {
			if _, err := e.opts.Schema.Key(name); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// maxRoutes bounds the cache: channels and ids are data.
const maxRoutes = 4096

// Route gives the set for rec, or nil when it is not a Windows event.
func (r *Router) Route(rec *Record) *Set {
	channel, ok := rec.Text(r.channel)
	if !ok {
		return nil
	}
	id, _ := rec.Text(r.eventID)
	k := routeKey{channel, id, ""}
	if id == "12" {
		k.kind, _ = rec.Text(r.eventType)
	}
	h := len(channel)*7 + len(k.kind)
	for i := 0; i < len(id); i++ {
		h = h*10 + int(id[i])
	}
	recent := &r.recent[uint(h)%uint(len(r.recent))]
	if x := *recent; x != nil && x.id == id && x.channel == channel && x.kind == k.kind {
		return x.set
	}
	known, ok := r.cache[k]
	if !ok {
		sources := WindowsSources(channel, id, k.kind)
		if r.Within != (LogSource{}) {
			sources = slices.DeleteFunc(sources, func(src Source) bool { return !r.Within.covers(src.LogSource) })
			if len(sources) == 0 {
				sources = []Source{{LogSource: r.Within}}
			}
		}
		s := r.engine.Set(sources...)
		if len(r.cache) >= maxRoutes {
			return s
		}
		known = &knownRoute{routeKey{strings.Clone(k.channel), strings.Clone(k.id), strings.Clone(k.kind)}, s}
		r.cache[known.routeKey] = known
	}
	*recent = known
	return known.set
}
