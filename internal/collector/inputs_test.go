package collector

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
)

// What is wrong with an input is said with the key to change.
func TestInputSettings(t *testing.T) {
	for yaml, want := range map[string]string{
		"syslog: [{tcp: '0.0.0.0:99999'}]":                    "listen.syslog[0].tcp",
		"syslog: [{udp: '0.0.0.0:-1'}]":                       "there is no port -1",
		"syslog: [{tls: '0.0.0.0:http'}]":                     "there is no port http",
		"syslog: [{udp: '514'}]":                              "not an address and port",
		"syslog: [{timezone: UTC}]":                           "none of udp, tcp and tls",
		"syslog: [{tcp: ':514', client_ca: x}]":               "no effect without tls",
		"syslog: [{tls: ':6514', client_ca: /none}]":          "PEM file",
		"syslog: [{tls: ':6514'}], tls: {certificate: x.pem}": "belong together",
		"http: [{format: json}]":                              "neither tcp nor tls",
		"http: [{tcp: ':8088', token_file: /none}]":           "token_file",
		"beats: [{tcp: ':99999'}]":                            "there is no port 99999",
		"files: [{paths: [relative.log]}]":                    "not an absolute path",
		"files: [{timezone: UTC}]":                            "neither paths nor drop",
		"syslog: [{udp: ':514', timezone: Mars}]":             "no time zone",
		"syslog: [{udp: ':514', format: nonsense}]":           "no format",
	} {
		if _, _, err := LoadConfig(settingsFile(t, "listen: {"+yaml+"}\n"), nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", yaml, err, want)
		}
	}
	if _, _, err := LoadConfig(settingsFile(t, "listen: {syslog: [{udp: ':514', tcp: ':514', tls: ':6514'}], tls: {names: [logs.example]}}\n"), nil, nil); err != nil {
		t.Error(err)
	}
}

// A Cisco ASA that logs over TCP is warned of, once, until it is told (or said) to let traffic pass.
func TestHostdown(t *testing.T) {
	c := DefaultConfig()
	c.Listen.Syslog = []Syslog{{TCP: "127.0.0.1:0"}, {TCP: "127.0.0.1:0", PermitHostdown: true}}
	min, err := c.minimiser([32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(&c, min, nil, archive.Secret{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	line := func(from string, slot uint8, via archive.Transport, text string) {
		n++
		p.line(&archive.Line{Number: n, Created: time.Now().UnixNano(), Listener: slot, Via: via, Sender: netip.MustParseAddr(from), Text: []byte(text)}, full)
	}
	const deny = `<166>Nov 22 2026 10:00:00: %ASA-4-106023: Deny tcp src outside:203.0.113.9/4711 dst inside:198.51.100.7/22 by access-group "out" [0x0, 0x0]`
	const fortigate = `date=2026-11-22 time=10:00:00 devname="f" devid="F" type="traffic" subtype="forward" action="deny" srcip=203.0.113.1 dstip=198.51.100.7`
	for range 3 {
		line("192.0.2.1", 0, archive.TCP, deny)
		line("192.0.2.2", 0, archive.UDP, deny)
		line("192.0.2.3", 1, archive.TCP, deny)
		line("192.0.2.4", 0, archive.TCP, fortigate)
		line("192.0.2.5", 0, archive.Mutual, deny)
	}
	w := p.senders.warnings()
	if len(w) != 2 || w[0].Sender != "192.0.2.1" || w[1].Sender != "192.0.2.5" || !strings.Contains(w[0].Next, "logging permit-hostdown") || p.tally.hostdown != 2 {
		t.Fatalf("%+v, counted %d", w, p.tally.hostdown)
	}
	line("192.0.2.1", 0, archive.TCP, `<165>Nov 22 2026 10:01:00: %ASA-5-111008: User 'admin' executed the 'logging permit-hostdown' command.`)
	line("192.0.2.1", 0, archive.TCP, deny)
	if w := p.senders.warnings(); len(w) != 1 || w[0].Sender != "192.0.2.5" {
		t.Errorf("after the setting was made: %+v", w)
	}
	line("192.0.2.1", 0, archive.TCP, `<165>Nov 22 2026 10:01:00: %ASA-5-111008: User 'admin' executed the 'no logging permit-hostdown' command.`)
	if w := p.senders.warnings(); len(w) != 2 {
		t.Errorf("after the setting was taken back: %+v", w)
	}
	// A line of a listener that is not in the settings any more is read by the first.
	if p.read.of(77) != slotSyslog {
		t.Error("slot")
	}
}

func settingsFile(t *testing.T, yaml string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "collector.yaml")
	if err := os.WriteFile(name, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
