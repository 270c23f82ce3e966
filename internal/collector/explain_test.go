package collector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/detect"
	"tocsin/rules"
)

func explainer(t *testing.T, change func(*Config)) *Explainer {
	t.Helper()
	c := DefaultConfig()
	c.Dir = t.TempDir()
	c.OwnRanges = []string{"198.51.100.0/24"}
	if change != nil {
		change(&c)
	}
	x, err := NewExplainer(&c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// secretLines are lines that leave, of each family, with a secret wherever a device writes content: payload, body, query, subject, file,
// user, message.
func secretLines() []string {
	d, at := time.Now().UTC().Format(time.DateOnly), time.Now().UTC().Format(time.TimeOnly)
	iso := time.Now().UTC().Format("2006-01-02T15:04:05.000000-0700")
	stamp := time.Now().UTC().Format(time.Stamp)
	forti := fmt.Sprintf(`<185>date=%s time=%s devname="SECRETdev" devid="FG100" tz="+0000" vd="root" `, d, at)
	return []string{
		forti + `logid="0419016384" type="utm" subtype="ips" eventtype="signature" level="alert" severity="critical" srcip=203.0.113.5 dstip=198.51.100.20 srcport=4000 dstport=80 proto=6 action="dropped" service="HTTP" attack="Web.Shell" attackid=12345 hostname="198.51.100.20" url="/login?password=SECRETquery" agent="SECRETagent" user="SECRETuser" msg="web_server: SECRETmsg" rawdata="SECRETpayload"`,
		forti + `logid="0211008192" type="utm" subtype="virus" eventtype="infected" level="warning" srcip=203.0.113.5 dstip=198.51.100.20 srcport=4000 dstport=80 proto=6 action="blocked" service="HTTP" filename="SECRETfile.docx" virus="EICAR" url="http://evil.example/x?SECRETquery" user="SECRETuser" from="SECRETfrom@example.org" to="SECRETto@example.org" subject="SECRETsubject" msg="SECRETmsg"`,
		forti + `logid="0101039426" type="event" subtype="vpn" level="alert" action="ssl-login-fail" remip=203.0.113.9 user="SECRETuser" group="SECRETgroup" reason="SECRETreason" msg="SECRETmsg"`,
		`<38>` + stamp + ` SECREThost sshd[1]: Failed password for invalid user SECRETuser from 203.0.113.9 port 4711 ssh2`,
		fmt.Sprintf(`{"timestamp":"%s","event_type":"alert","src_ip":"203.0.113.5","src_port":4000,"dest_ip":"198.51.100.20","dest_port":80,"proto":"TCP","alert":{"action":"allowed","signature_id":2000001,"signature":"ET WEB_SERVER Shell","category":"Web Attack","severity":1},"http":{"hostname":"www.example.org","url":"/a?pw=SECRETquery","http_user_agent":"SECRETagent","http_refer":"http://SECRETref/","http_method":"POST","status":200,"http_request_body_printable":"SECRETbody"},"payload_printable":"SECRETpayload","payload":"U0VDUkVU","email":{"subject":"SECRETsubject","from":"SECRETfrom"},"fileinfo":{"filename":"SECRETfile"}}`, iso),
		`<134>` + stamp + ` gw CEF:0|Vendor|IPS|1.0|100|Attack seen|9|src=203.0.113.5 dst=198.51.100.20 spt=4000 dpt=80 proto=TCP act=blocked cat=ips request=http://www.example.org/a?SECRETquery suser=SECRETuser duser=SECRETuser2 fname=SECRETfile msg=SECRETmsg cs1=SECRETcs1 cs1Label=Note requestClientApplication=SECRETagent`,
		`<164>` + stamp + ` fw : %ASA-4-106023: Deny tcp src outside:203.0.113.5/4000 dst inside:198.51.100.20/22 by access-group "acl_outside" [0x0, 0x0]`,
		`<4>` + stamp + ` SECREThost kernel: [UFW BLOCK] IN=eth0 OUT= MAC=aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:08:00 SRC=203.0.113.5 DST=198.51.100.20 LEN=60 TOS=0x00 PREC=0x00 TTL=50 ID=1 PROTO=TCP SPT=4000 DPT=23 WINDOW=1024 RES=0x00 SYN URGP=0`,
		`<134>` + stamp + ` Vigor: [FILTER][Block][WAN->LAN/RT/VPN, 12:04:51    ][@S:R=2:4, 203.0.113.77:51514->198.51.100.20:3389][TCP][HLen=20, TLen=52, Flag=S]`,
		`<134>1 - - filterlog - - - 5,,,1000000103,igb0,match,block,in,4,0x0,,64,1,0,DF,6,tcp,60,203.0.113.5,198.51.100.20,4000,22,0,S,1,,1024,,mss`,
		`type=traffic action=deny srcip=203.0.113.5 dstip=198.51.100.20 srcport=4000 dstport=22 proto=tcp user=SECRETuser note="SECRETnote" SECRETkey=SECRETvalue`,
	}
}

// A secret in every content field of every family: none of them leaves, and nothing of the raw line does.
func TestSecretsInLines(t *testing.T) {
	x := explainer(t, nil)
	left := 0
	for _, l := range secretLines() {
		ex := x.Line([]byte(l))
		if !ex.Understood {
			t.Errorf("not understood: %s", l)
			continue
		}
		if !ex.Leaves {
			t.Errorf("stays as %s (nothing is tested by it): %s\n%s", ex.Reason, l, ex.Event)
			continue
		}
		left++
		if s := string(ex.Sent); strings.Contains(s, "SECRET") || strings.Contains(s, "U0VDUkVU") || strings.Contains(s, "aa:bb:cc") {
			t.Errorf("content leaves: %s", s)
		}
		if strings.Contains(string(ex.Event), "SECRET") && len(ex.Stays) == 0 {
			t.Errorf("not said what stays: %s", ex.Event)
		}
	}
	if left == 0 {
		t.Error("nothing left")
	}
	// What the member lets go, goes; the rest does not.
	x = explainer(t, func(c *Config) { c.Policy.AlsoLeave = []string{"user.name"} })
	s := string(x.Line([]byte(secretLines()[2])).Sent)
	if !strings.Contains(s, `"user.name":"SECRETuser"`) || strings.Count(s, "SECRET") != 1 {
		t.Errorf("also_leave user.name: %s", s)
	}
	x = explainer(t, func(c *Config) { c.Policy.Pseudonyms = []string{"users"} })
	s = string(x.Line([]byte(secretLines()[2])).Sent)
	if !strings.Contains(s, `"user.name":"user-`) || strings.Contains(s, "SECRET") {
		t.Errorf("pseudonyms of users: %s", s)
	}
}

func TestExplain(t *testing.T) {
	var out bytes.Buffer
	input := strings.Join(secretLines(), "\n") + "\n\ngarbage\n" + strings.Repeat("x", 100000) + "\nlast without end"
	if err := Explain(strings.NewReader(input), &out, explainer(t, nil), 64<<10, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"LEAVES, at once, as left.ids, because", "NOT UNDERSTOOD, stays:", "of it stay: ", "  not_understood\n", "14 lines:", "longer than 65536 bytes and was cut"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := Explain(strings.NewReader(input), &out, explainer(t, nil), 64<<10, true); err != nil {
		t.Fatal(err)
	}
	var got []int
	for l := range strings.Lines(out.String()) {
		var ex Explained
		if err := json.Unmarshal([]byte(l), &ex); err != nil || ex.Reason == "" || ex.Because == "" {
			t.Fatalf("%v %s", err, l)
		}
		got = append(got, ex.Line)
	}
	if want := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15}; !slices.Equal(got, want) { // the twelfth is empty
		t.Fatalf("answers for lines %v, want %v", got, want)
	}
}

// What a rule on the site makes of lines that stayed, and what leaves otherwise than it is, is said too.
func TestExplainDetections(t *testing.T) {
	c := DefaultConfig()
	c.Dir = t.TempDir()
	c.Policy.Pseudonyms = []string{"addresses"}
	x, err := NewExplainer(&c, func(o DetectorOptions) (Detector, error) {
		return detect.New(detect.Options{Rules: rules.FS, Where: detect.Site, Origin: o.Collector, Withhold: o.Withhold, Logger: o.Logger})
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	var last *Explained
	for i := range 6 { // a miner's port, again and again
		if last != nil && (last.Leaves || len(last.Earlier) > 0) {
			t.Fatalf("line %d leaves: %+v", i, last)
		}
		last = x.Line(fmt.Appendf(nil, `<189>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=10.1.2.3 srcport=%d dstip=203.0.113.9 dstport=3333 proto=6 action="accept" policyid=1 service="HTTPS" user="SECRETuser"`,
			now.Format(time.DateOnly), now.Format(time.TimeOnly), 5000+i))
	}
	if !last.Leaves || last.Reason != "left.site_detection" || !slices.Equal(last.Earlier, []int{1, 2, 3, 4, 5}) || len(last.Detections) == 0 {
		t.Fatalf("%+v", last)
	}
	if !slices.Contains(last.Stays, "user.name") || !slices.Contains(last.Changed, "source.ip") || slices.Contains(last.Changed, "destination.ip") {
		t.Errorf("stays %v, changed %v", last.Stays, last.Changed)
	}
	for _, js := range append(last.Detections, last.Sent) {
		if strings.Contains(string(js), "10.1.2.3") || strings.Contains(string(js), "SECRET") {
			t.Errorf("leaves: %s", js)
		}
	}
	var out bytes.Buffer
	writeExplained(&out, []byte("x"), last)
	for _, want := range []string{"would leave with it, as the events behind it, though kept until now: lines 1, 2, 3, 4 and 5", "leave changed, as a pseudonym or without names that stay: source.ip"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Config)
	}{
		{"dir", func(c *Config) { c.Dir = "" }},
		{"hub", func(c *Config) { c.Hub = "nowhere" }},
		{"listen.syslog[0]", func(c *Config) { c.Listen.Syslog = []Syslog{{}} }},
		{"listen.syslog[0]", func(c *Config) { c.Listen.Syslog = []Syslog{{UDP: "514"}} }},
		{"Mars/Base", func(c *Config) { c.Listen.Syslog = []Syslog{{UDP: ":514", Timezone: "Mars/Base"}} }},
		{"no format", func(c *Config) { c.Listen.Syslog = []Syslog{{UDP: ":514", Format: "abacus"}} }},
		{"own_ranges", func(c *Config) { c.OwnRanges = []string{"198.51.100"} }},
		{"policy.name", func(c *Config) { c.Policy.Name = "none" }},
		{"policy.pseudonyms", func(c *Config) { c.Policy.Pseudonyms = []string{"names"} }},
		{"listen.max_line", func(c *Config) { c.Listen.MaxLine = 10 }},
		{"spool.max_bytes", func(c *Config) { c.Spool.MaxBytes = 10 }},
		{"retry_max", func(c *Config) { c.RetryMax = 0 }},
		{"log.level", func(c *Config) { c.Log.Level = "loud" }},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: %v", c.key, err)
		}
	}
	cfg := DefaultConfig()
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
	if _, _, err := LoadConfig("", []string{"TOCSIN_COLLECTOR_POLICY_NAME=full", "TOCSIN_COLLECTOR_DIR=/tmp/x"}, nil); err != nil {
		t.Error(err)
	}
}
