package sample

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func values() *Values {
	return &Values{
		Time: time.Date(2026, 11, 2, 3, 4, 5, 678901234, time.UTC), Host: "gw-1", User: "a.person",
		Src: netip.MustParseAddr("203.0.113.7"), Dst: netip.MustParseAddr("198.51.100.9"), NAT: netip.MustParseAddr("198.51.100.1"),
		Src6: netip.MustParseAddr("2001:db8::7"), Dst6: netip.MustParseAddr("2001:db8:1::9"),
		SrcPort: 51000, DstPort: 443, NATPort: 33000, Seq: 123456789, Sent: 10, Rcvd: 20, SentPkt: 1, RcvdPkt: 2, Seconds: 30,
	}
}

func TestAppend(t *testing.T) {
	for key, want := range map[string]string{
		"draytek/block":    "<134>Nov  2 03:04:05 Vigor2927: [FILTER][Block][WAN->LAN/RT/VPN, 19:04:05    ][@S:R=2:4, 203.0.113.7:51000->198.51.100.9:443][TCP][HLen=20, TLen=52, Flag=S, Seq=123456789, Ack=0, Win=64240]",
		"filterlog/block":  "<134>Nov  2 03:04:05 gw-1 filterlog: 53,,,1000102631,em0,match,block,in,4,0x0,,64,52501,0,none,6,tcp,44,203.0.113.7,198.51.100.9,51000,443,0,S,123456789,,65535,,mss",
		"asa/deny-acl":     `<134>Nov 02 2026 03:04:05 gw-1 : %ASA-4-106023: Deny tcp src outside:203.0.113.7/51000 dst inside:198.51.100.9/443 by access-group "S_OUTSIDE_TO_INSIDE" [0x54c7fa80, 0x0]`,
		"sshd/accepted":    "<134>Nov  2 03:04:05 gw-1 sshd[7789]: Accepted publickey for a.person from 203.0.113.7 port 51000 ssh2: ED25519 SHA256:EXAMPLEexampleEXAMPLEexampleEXAMPLEexample0",
		"sonicwall/closed": `<134>id=firewall sn=18B169EXAMPLE time="2026-11-02 03:04:05 UTC" fw=198.51.100.1 pri=6 c=1024 m=537 msg="Connection Closed" f=2 n=123456789 src=203.0.113.7:51000:X0 dst=198.51.100.9:443:X1 proto=tcp/443 sent=10 rcvd=20`,
	} {
		if got := string(All().Template(key).Append(nil, values())); got != want {
			t.Errorf("%s\n got %s\nwant %s", key, got, want)
		}
	}
}

// Every template must carry its time and enough of a number that the load generator can make each line unlike any other.
func TestTemplates(t *testing.T) {
	v := values()
	for _, key := range All().Keys() {
		tmpl := All().Template(key)
		line := string(tmpl.Append(nil, v))
		if strings.Contains(line, "@{") {
			t.Errorf("%s: a slot is left: %s", key, line)
		}
		timed := false
		for _, name := range []string{"bsd", "iso", "eve", "asa", "date", "utc"} {
			timed = timed || tmpl.Has(name)
		}
		if !timed {
			t.Errorf("%s has no time", key)
		}
		if line[0] != '<' {
			t.Errorf("%s does not begin with <PRI>: %s", key, line)
		}
	}
	if len(All().Allowed) < 2000 || len(All().Denied) < 1000 {
		t.Errorf("mix: %d allowed, %d denied", len(All().Allowed), len(All().Denied))
	}
}

// No address of anybody's may be in a filled template: documentation and private ranges only.
func TestAddresses(t *testing.T) {
	re := regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}\b`)
	for _, key := range All().Keys() {
		for _, s := range re.FindAllString(string(All().Template(key).Append(nil, values())), -1) {
			a, err := netip.ParseAddr(s)
			if err == nil && !a.IsPrivate() && !strings.HasPrefix(s, "203.0.113.") && !strings.HasPrefix(s, "198.51.100.") && a.As4()[0] != 0 {
				t.Errorf("%s holds %s", key, s)
			}
		}
	}
}

func TestSources(t *testing.T) {
	entries, err := os.ReadDir("lines")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "SOURCES.tsv" && !strings.Contains(Sources(), "\n"+e.Name()+"\t") {
			t.Errorf("%s has no row in SOURCES.tsv", e.Name())
		}
	}
}

// The committed templates are what gen makes of the shared samples, byte for byte.
func TestGenerated(t *testing.T) {
	shared := filepath.Join("..", "..", "..", "..", "shared", "data", "logs")
	if _, err := os.Stat(shared); err != nil {
		t.Skip("skipped: the shared samples are not beside the repository")
	}
	out := t.TempDir()
	cmd := exec.Command("go", "run", "./gen", "-from", shared, "-out", out)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gen: %v\n%s", err, b)
	}
	entries, err := os.ReadDir("lines")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join("lines", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, e.Name()))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from what gen makes: run go generate ./internal/load/sample (%v)", e.Name(), err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	v := values()
	var dst []byte
	keys := All().Keys()
	i, n := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		dst = All().Template(keys[i%len(keys)]).Append(dst[:0], v)
		n += len(dst)
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
	b.ReportMetric(float64(n)/float64(b.N), "B/line")
}
