package detect

import (
	"maps"
	"slices"

	"tocsin/sigma"
)

// How events come to the log sources of Sigma's rules: what a data set is, and what in an event says the rest. How the fields of each are called
// stands in naming.go.

// origin is what the rules' log sources know a data set as.
type origin struct {
	sources []sigma.LogSource // readings of each of its events; the first is joined with the categories
	finer   finer
}

// finer says how more of the log source is found in an event.
type finer uint8

const (
	nothing      finer = iota
	byChannel          // Windows: the channel and the number of the event
	byProgram          // the program that wrote a line
	byKindOfZeek       // the log of Zeek that has such fields
	byTypeOfEVE        // the type of a Suricata event
)

func of(list ...sigma.LogSource) origin   { return origin{sources: list} }
func (o origin) and(f finer) origin       { o.finer = f; return o }
func product(name string) sigma.LogSource { return sigma.LogSource{Product: name} }
func service(product, name string) sigma.LogSource {
	return sigma.LogSource{Product: product, Service: name}
}

// origins maps event.dataset, as the parsers set it, to what Sigma's rules call it. Data sets that are not here are known by event.category alone.
var origins = map[string]origin{
	"fortinet.fortigate": of(product("fortigate"), service("fortigate", "event"), service("fortios", "sslvpnd")),
	"cisco.asa":          of(service("cisco", "asa")),
	"cisco.ios":          of(service("cisco", "ios"), service("cisco", "aaa"), service("cisco", "syslog"), service("cisco", "bgp"), service("cisco", "ldp")),
	"panw.panos":         of(service("paloalto", "globalprotect"), sigma.LogSource{Product: "paloalto", Category: "appliance", Service: "globalprotect"}, sigma.LogSource{Product: "paloalto", Category: "file_event", Service: "globalprotect"}),
	"juniper.junos":      of(service("juniper", "bgp")),
	"juniper.srx":        of(service("juniper", "bgp")),
	"huawei.usg":         of(service("huawei", "bgp")),
	"linux.netfilter":    of(service("", "iptables")), // no product: rules about what is typed on a computer have nothing to find in it
	"netfilter.iptables": of(service("", "iptables")),
	"netflow.log":        of(service("", "netflow")),
	"pfsense.filterlog":  of(product("pfsense")),
	"draytek.vigor":      of(product("draytek")),

	"suricata.eve":    of(product("suricata")).and(byTypeOfEVE),
	"zeek.json":       of(product("zeek")).and(byKindOfZeek),
	"zeek.tsv":        of(product("zeek")).and(byKindOfZeek),
	"zeek.other":      of(product("zeek")).and(byKindOfZeek),
	"zeek.connection": of(service("zeek", "conn")),
	"zeek.dns":        of(service("zeek", "dns")),
	"zeek.http":       of(service("zeek", "http")),
	"zeek.ftp":        of(service("zeek", "ftp")),
	"zeek.ssh":        of(service("zeek", "ssh")),
	"zeek.ssl":        of(service("zeek", "ssl")),

	"windows.event": of(product("windows")).and(byChannel),
	"windows.json":  of(product("windows")).and(byChannel),
	"windows.text":  of(product("windows")).and(byChannel),
	"azure.windows": of(product("windows")).and(byChannel),

	"openssh.sshd":  of(service("linux", "sshd"), service("linux", "auth"), service("linux", "syslog")),
	"dropbear.auth": of(service("linux", "sshd"), service("linux", "auth"), service("linux", "syslog")),
	"system.auth":   of(service("linux", "auth"), service("linux", "syslog")).and(byProgram),
	"auditd.log":    of(service("linux", "auditd")),
	"clamav.log":    of(service("linux", "clamav"), service("linux", "syslog")),
	"ftp.log":       of(service("linux", "vsftpd"), service("linux", "syslog")).and(byProgram),
	"apache.error":  of(service("", "apache")),
	"nginx.error":   of(service("", "nginx")),
	"web.access":    of(service("", "apache"), service("", "nginx")),
	"nginx.access":  of(service("", "nginx")),
	"application.log": of(applications("spring"), applications("jvm"), applications("python"), applications("django"), applications("ruby_on_rails"),
		applications("nodejs"), applications("velocity"), applications("sql")),
	"database.log":              of(sigma.LogSource{Category: "database"}),
	"database.audit":            of(sigma.LogSource{Category: "database"}),
	"postgresql.csvlog":         of(sigma.LogSource{Category: "database"}),
	"mongodb.log":               of(sigma.LogSource{Category: "database"}),
	"opencanary.event":          of(sigma.LogSource{Product: "opencanary", Category: "application"}),
	"kubernetes.audit":          of(service("kubernetes", "audit"), sigma.LogSource{Product: "kubernetes", Category: "application", Service: "audit"}),
	"github.audit":              of(service("github", "audit")),
	"atlassian.audit":           of(service("bitbucket", "audit")),
	"onelogin.events":           of(service("onelogin", "onelogin.events")),
	"duo.log":                   of(service("cisco", "duo")),
	"okta.system":               of(service("okta", "okta")),
	"aws.cloudtrail":            of(service("aws", "cloudtrail")),
	"azure.auditlogs":           of(service("azure", "auditlogs"), service("azure", "pim")),
	"azure.signinlogs":          of(service("azure", "signinlogs")),
	"azure.risk":                of(service("azure", "riskdetection"), service("azure", "pim")),
	"azure.diagnostics":         of(service("azure", "activitylogs"), service("azure", "auditlogs"), service("azure", "signinlogs")), // what the parser cannot tell apart by its category
	"gcp.audit":                 of(service("gcp", "gcp.audit"), service("gcp", "google_workspace.admin"), service("gcp", "google_workspace.login")),
	"o365.audit":                of(service("m365", "audit"), service("m365", "threat_management"), service("m365", "threat_detection"), service("m365", "exchange")),
	"o365.messagetrace":         of(service("m365", "exchange")),
	"google_workspace.activity": of(service("gcp", "google_workspace.admin"), service("gcp", "google_workspace.login")),
}

func applications(name string) sigma.LogSource {
	return sigma.LogSource{Product: name, Category: "application"}
}

// categories maps event.category to Sigma's. One event can be of several. A request of the web is one to a proxy and one to a server: which of the
// two wrote it down does not change what an attack looks like.
var categories = map[string][]string{
	"network": {"firewall"}, "authentication": {"authentication"}, "intrusion_detection": {"ids"}, "malware": {"antivirus"}, "web": {"proxy", "webserver"},
	"email": {"email"}, "configuration": {"configuration"}, "session": {"session"}, "database": {"database"},
	dnsCategory: {"dns"}, // no category of ECS: an event that names what was asked for
}

const dnsCategory = "dns"

// services are what a sign-in can be to, as parsers name it and rules know it.
var services = []string{"vpn", "ssh", "rdp", "web", "mail", "admin"}

// programs are those whose lines have a service of their own, with it.
var programs = map[string]string{
	"sshd": "sshd", "sudo": "sudo", "cron": "cron", "crond": "cron", "anacron": "cron", "vsftpd": "vsftpd", "clamd": "clamav", "freshclam": "clamav", "guacd": "guacamole",
}

// zeekKinds are the logs of Zeek that rules know, by a field (of Zeek, or as the parsers call it) that no other log has. The first that fits counts.
var zeekKinds = []struct {
	field string
	log   string
}{
	{"endpoint", "dce_rpc"}, {"request_type", "kerberos"}, {"certificate.serial", "x509"}, {"security_protocol", "rdp"}, {"dns.question.name", "dns"}, {"query", "dns"},
	{"http.request.method", "http"}, {"url.original", "http"}, {"user_agent.original", "http"}, {"path", "smb_files"},
}

// eveTypes are the types of Suricata's events (event.action) that are what a log of Zeek is.
var eveTypes = map[string]string{"dns": "dns", "http": "http", "http2": "http", "smb": "smb_files", "dcerpc": "dce_rpc", "krb5": "kerberos", "rdp": "rdp", "tls": "x509"}

// Channels that are Windows' by their form and not by what they tell.
const (
	linuxSysmon = "linux-sysmon/operational"
	rpcFirewall = "rpcfw"
	sysmon      = "microsoft-windows-sysmon/operational"
	security    = "security"
)

// providers are those that have one channel, for lines that do not name it.
var providers = map[string]string{
	"microsoft-windows-sysmon": sysmon, "linux-sysmon": linuxSysmon, "microsoft-windows-security-auditing": security, "rpcfw": rpcFirewall,
}

var (
	datasetWords  = newVocabulary(slices.Sorted(maps.Keys(origins)))
	serviceWords  = newVocabulary(services)
	categoryWords = newVocabulary(slices.Sorted(maps.Keys(categories)))
	programWords  = newVocabulary(slices.Sorted(maps.Keys(programs)))
	eveWords      = newVocabulary(slices.Sorted(maps.Keys(eveTypes)))
	channelWords  = newVocabulary(append(sigma.WindowsChannels(), linuxSysmon, rpcFirewall))
	providerWords = newVocabulary(slices.Sorted(maps.Keys(providers)))
	channelIDs    = func() (list []*vocabulary) { // of the events that have a category, by channel
		for _, c := range channelWords.words {
			if c == linuxSysmon {
				c = sysmon
			}
			list = append(list, newVocabulary(sigma.WindowsEvents(c)))
		}
		return list
	}()
)

// vocabulary numbers a few words in lower case, from 1. It is asked for every event.
type vocabulary struct {
	words []string
	byLen [96][]uint8
}

func newVocabulary(words []string) *vocabulary {
	v := &vocabulary{words: words}
	for i, w := range words {
		v.byLen[len(w)] = append(v.byLen[len(w)], uint8(i+1))
	}
	return v
}

func (v *vocabulary) number(s string) uint8 {
	if len(s) < len(v.byLen) {
		for _, n := range v.byLen[len(s)] {
			if v.words[n-1] == s {
				return n
			}
		}
	}
	return 0
}

// folded is number for a word that may have capitals.
func (v *vocabulary) folded(s string) uint8 {
	if len(s) < len(v.byLen) {
	words:
		for _, n := range v.byLen[len(s)] {
			w := v.words[n-1]
			for i := len(s) - 1; i >= 0; i-- { // they differ at the end
				c := s[i]
				if c-'A' <= 'Z'-'A' {
					c |= 0x20
				}
				if c != w[i] {
					continue words
				}
			}
			return n
		}
	}
	return 0
}

// word is the reverse of number, "" for 0.
func (v *vocabulary) word(n uint8) string {
	if n == 0 {
		return ""
	}
	return v.words[n-1]
}
