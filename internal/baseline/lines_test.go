package baseline_test

import (
	"net/netip"
	"testing"
	"time"

	"tocsin/internal/baseline"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
)

const forti = `<189>date=2026-11-12 time=08:52:01 devname="fw" devid="FG100FEXAMPLE001" vd="root" tz="+0000" `

// Lines as devices write them, constructed after the vendors' log references with documentation addresses: what each is to the baselines.
func TestLines(t *testing.T) {
	policy, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	reduce, err := minimise.New(minimise.Options{Policy: policy, Own: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	p := parse.New(parse.Options{Location: time.UTC})
	for name, c := range map[string]struct {
		line string
		what baseline.What
		also func(o baseline.Observation) bool
	}{
		"refused from outside": {forti + `logid="0000000013" type="traffic" subtype="forward" srcip=203.0.113.50 srcport=50122 srcintf="wan1" dstip=198.51.100.7 dstport=3389 dstintf="dmz" policyid=0 sessionid=92 proto=6 action="deny" service="RDP" sentbyte=0 rcvdbyte=0`,
			baseline.DeniedInbound, func(o baseline.Observation) bool {
				return o.Port == 3389 && !o.Session && o.Source == netip.MustParseAddr("203.0.113.50")
			}},
		"let in": {forti + `logid="0000000013" type="traffic" subtype="forward" srcip=203.0.113.50 srcport=50122 srcintf="wan1" dstip=198.51.100.7 dstport=3389 dstintf="dmz" policyid=7 sessionid=92 proto=6 action="close" service="RDP" duration=30 sentbyte=9000 rcvdbyte=8000 sentpkt=20 rcvdpkt=20`,
			baseline.AllowedInbound, func(o baseline.Observation) bool { return o.Destination == netip.MustParseAddr("198.51.100.7") }},
		"out": {forti + `logid="0000000013" type="traffic" subtype="forward" srcip=10.0.0.5 srcport=50122 srcintf="lan" dstip=203.0.113.80 dstport=443 dstintf="wan1" policyid=7 sessionid=92 proto=6 action="close" service="HTTPS" duration=30 sentbyte=123456 rcvdbyte=8000`,
			baseline.Outbound, func(o baseline.Observation) bool { return o.Bytes == 123456 && o.Port == 443 }},
		"refused to outside": {forti + `logid="0000000013" type="traffic" subtype="forward" srcip=10.0.0.5 srcport=50122 srcintf="lan" dstip=203.0.113.80 dstport=445 dstintf="wan1" policyid=0 sessionid=92 proto=6 action="deny" sentbyte=0`, 0, nil},
		"VPN password wrong": {forti + `logid="0101039426" type="event" subtype="vpn" level="alert" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=203.0.113.77 user="ann" reason="sslvpn_login_permission_denied" msg="SSL user failed to logged in"`,
			baseline.FailedSignIn | baseline.Suspicious, nil},
		"VPN sign-in": {forti + `logid="0101039424" type="event" subtype="vpn" level="information" logdesc="SSL VPN tunnel up" action="tunnel-up" tunneltype="ssl-web" tunnelid=1421 remip=203.0.113.77 user="ann" msg="SSL tunnel established"`,
			baseline.SignIn, func(o baseline.Observation) bool { return o.User == "ann" && o.Session }},
		"intrusion": {`{"timestamp":"2026-11-12T08:52:01.000000+0000","flow_id":1,"event_type":"alert","src_ip":"203.0.113.9","src_port":40000,"dest_ip":"198.51.100.7","dest_port":80,"proto":"TCP","alert":{"action":"allowed","gid":1,"signature_id":2001219,"rev":1,"signature":"ET SCAN Potential SSH Scan","category":"Attempted Information Leak","severity":2}}`,
			baseline.Intrusion | baseline.Suspicious, func(o baseline.Observation) bool { return o.Signature == "2001219" && o.SignatureName != "" }},
	} {
		for _, via := range []string{"udp", "tls"} {
			var e event.Event
			e.SetRaw([]byte(c.line))
			e.Created = time.Date(2026, 11, 12, 8, 52, 2, 0, time.UTC).UnixNano()
			if _, ok := p.Parse(&e, ""); !ok {
				t.Errorf("%s: not understood", name)
				break
			}
			reduce.Prepare(&e, minimise.Sender{Addr: netip.MustParseAddr("10.0.0.1"), Assurance: via})
			o, ok := baseline.Read(&e)
			if ok != (c.what != 0) || o.What != c.what {
				t.Errorf("%s: it is %b, want %b", name, o.What, c.what)
			} else if ok && (o.Proven != (via == "tls") || o.At != e.Created || c.also != nil && !c.also(o)) {
				t.Errorf("%s over %s: %+v", name, via, o)
			}
			// A sender that has begun to send another product's lines teaches nothing, nor does what a detection brought along.
			e.SetBool(event.TocsinSenderProductChanged, true)
			if _, ok := baseline.Read(&e); ok {
				t.Errorf("%s: of a sender that has changed", name)
			}
			e.Del(event.TocsinSenderProductChanged)
			e.SetString(event.TocsinLeftReason, "site_detection")
			if _, ok := baseline.Read(&e); ok {
				t.Errorf("%s: evidence of a detection is counted again", name)
			}
		}
	}
}

// A detection of a site leaves as the policy says: no account's name, no address of the member's own when it has pseudonyms.
func TestWhatLeaves(t *testing.T) {
	policy, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	reduce, err := minimise.New(minimise.Options{Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	e, err := baseline.New(baseline.Options{Where: baseline.Site, Origin: "c1", Withhold: func(field string) bool {
		k, ok := event.Lookup(field)
		leave, _ := reduce.MayLeave(k)
		return ok && !leave
	}})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 1, 5, 9, 0, 0, 0, time.UTC)
	o := baseline.Observation{What: baseline.SignIn, Proven: true, Session: true, User: "ann.example", Source: netip.MustParseAddr("192.0.2.10"), Country: "GB"}
	for day := range 20 {
		o.At = begin.AddDate(0, 0, day).UnixNano()
		e.Observe(&o, o.At)
	}
	o.At, o.Country, o.Source = begin.AddDate(0, 0, 21).UnixNano(), "BR", netip.MustParseAddr("203.0.113.9")
	told := e.Observe(&o, o.At)
	if len(told) != 1 {
		t.Fatalf("%d detections", len(told))
	}
	var out event.Event
	reduce.Detection(&out, &told[0])
	left := string(out.AppendJSON(nil))
	d, err := event.ToDetection(&out)
	if err != nil {
		t.Fatal(err)
	}
	if want := "An account signed in from BR for the first time; in the 21 days before, the account signed in on 20 days, from GB."; d.Reason != want {
		t.Errorf("got  %s\nwant %s", d.Reason, want)
	}
	for _, secret := range []string{"ann.example", "ann"} {
		if containsWord(left, secret) {
			t.Errorf("%q left: %s", secret, left)
		}
	}
}

func containsWord(s, w string) bool {
	for i := 0; i+len(w) <= len(s); i++ {
		if s[i:i+len(w)] == w && (i == 0 || s[i-1] < 'a' || s[i-1] > 'z') && (i+len(w) == len(s) || s[i+len(w)] < 'a' || s[i+len(w)] > 'z') {
			return true
		}
	}
	return false
}

// What exceptions can be made by is a field of events.
func TestEntityFields(t *testing.T) {
	for _, k := range baseline.Infos() {
		for _, f := range k.EntityFields {
			if _, ok := event.Lookup(f); !ok {
				t.Errorf("%s: there is no field %s", k.ID, f)
			}
		}
	}
}
