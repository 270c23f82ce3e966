package packs

import (
	"strings"
	"testing"
)

// Every description's data set has a name that a person can use, and the heads say what compiling the whole says.
func TestProductName(t *testing.T) {
	for dataset, want := range map[string]string{
		"fortinet.fortigate": "Fortinet FortiGate", "suricata.eve": "Suricata", "cisco.asa": "Cisco ASA", "zeek.json": "Zeek", "linux.netfilter": "Linux firewall",
		"openssh.sshd": "OpenSSH", "windows.event": "Microsoft Windows", "nobody.knows": "nobody.knows",
	} {
		if got := ProductName(dataset); got != want {
			t.Errorf("%s: %q, want %q", dataset, got, want)
		}
	}
	for _, p := range Builtin().Packs() {
		name := ProductName(p.Dataset)
		if name == p.Dataset || strings.TrimSpace(name) != name || strings.ContainsAny(name, "#\"") {
			t.Errorf("%s: %q, of %q and %q", p.Dataset, name, p.Vendor, p.Product)
		}
	}
}
