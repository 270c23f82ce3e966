package packs

import (
	"bufio"
	"bytes"
	"io/fs"
	"strings"
	"sync"
)

// ProductName is what people call the devices whose events have this data set: "Fortinet FortiGate" for fortinet.fortigate; the data set
// itself where nobody has named it. It reads the heads of the descriptions only: compiling them all for a title takes a second and 10 MiB.
func ProductName(dataset string) string {
	if name := productNames()[dataset]; name != "" {
		return name
	}
	return dataset
}

// What has no description, or one that names no single product.
var otherNames = map[string]string{
	"text.generic": "Devices that are not known by name", "json.generic": "Devices that are not known by name (JSON)", "kv.generic": "Devices that are not known by name (key=value)",
	"cef.generic": "Devices that are not known by name (CEF)", "leef.generic": "Devices that are not known by name (LEEF)",
	"linux.netfilter": "Linux firewall", "netfilter.iptables": "Linux firewall", "system.auth": "Linux sign-ins", "server.signin": "Server sign-ins", "web.access": "Web server", "database.audit": "Database",
	"database.log": "Database", "application.log": "Application", "ftp.log": "File transfer server", "netflow.log": "NetFlow",
	"windows.event": "Microsoft Windows", "windows.json": "Microsoft Windows", "windows.text": "Microsoft Windows", "snort.alert": "Snort",
	"azure.windows": "Microsoft Windows", "azure.signinlogs": "Microsoft Entra ID", "azure.auditlogs": "Microsoft Entra ID", "azure.risk": "Microsoft Entra ID",
	"zeek.other": "Zeek", "zeek.connection": "Zeek", "zeek.dns": "Zeek", "zeek.http": "Zeek", "zeek.ftp": "Zeek", "zeek.ssh": "Zeek", "zeek.ssl": "Zeek", "suricata.eve": "Suricata",
	"cisco.ios": "Cisco IOS", "cisco.ftd": "Cisco Firepower", "cisco.acs": "Cisco ACS", "pfsense.filterlog": "pfSense or OPNsense", "untangle.ngfw": "Untangle NG Firewall",
	"pulse_secure.connect": "Ivanti Connect Secure", "barracuda.cloudgen_firewall": "Barracuda CloudGen Firewall",
	"openssh.sshd": "OpenSSH", "isc.bind": "ISC BIND", "isc.dhcp": "ISC DHCP", "squid.access": "Squid", "haproxy.log": "HAProxy",
}

var productNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	files, err := fs.Glob(builtin, "*/parser.yaml")
	if err != nil {
		panic(err) // the pattern is of this file
	}
	for _, file := range files {
		text, err := builtin.ReadFile(file)
		if err != nil {
			panic(err) // it is part of the program
		}
		head := map[string]string{}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			key, value, ok := strings.Cut(lines.Text(), ": ")
			if !ok || strings.HasPrefix(key, "#") || strings.HasPrefix(key, " ") {
				break // the head is over
			}
			value, _, _ = strings.Cut(value, " #")
			head[key] = strings.Trim(strings.TrimSpace(value), `"'`)
		}
		name := head["vendor"] + " " + head["product"]
		switch {
		case head["product"] == "":
			continue
		case head["vendor"] == "any", strings.HasPrefix(strings.ToLower(head["product"]), strings.ToLower(head["vendor"])):
			name = head["product"]
		}
		if d := head["dataset"]; names[d] == "" || len(name) < len(names[d]) { // several forms of one product: the plainest
			names[d] = name
		}
	}
	for d, name := range otherNames {
		names[d] = name
	}
	return names
})
