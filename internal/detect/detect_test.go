package detect

import (
	"fmt"
	"io/fs"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/event"
	"tocsin/rules"
)

func TestOurRules(t *testing.T) {
	c := ours(t)
	for _, err := range c.Errors {
		t.Error(err)
	}
	for _, w := range []Where{Site, Hub} {
		e, err := New(Options{Catalogue: c, Where: w})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range e.Errors() {
			t.Error(err)
		}
	}
	results, err := c.Test(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%s: %s: %v", r.File, r.Case, r.Err)
		}
	}
	t.Logf("%d rules, %d cases", len(c.Infos()), len(results))
}

const start = testStart

var loadOurs = sync.OnceValues(func() (*Catalogue, error) { return Load(rules.FS) })

// ours is the catalogue of our own rules, loaded once for all tests.
func ours(t testing.TB) *Catalogue {
	t.Helper()
	c, err := loadOurs()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestEveryRuleIsLoud: a rule with the attribute makes detections at its place. One that a correlation names without `generate: true` would
// be silenced without a word.
func TestEveryRuleIsLoud(t *testing.T) {
	c := ours(t)
	for _, w := range []Where{Site, Hub} {
		e := engine(t, w, Options{})
		loud := map[string]bool{}
		for i, a := range e.attrs {
			if a != nil {
				loud[e.metas[i].ID] = true
			}
		}
		for _, r := range c.Infos() {
			if (r.Runs == w || r.Runs == both) && !loud[r.ID] {
				t.Errorf("%s: %s (%s) makes no detections at the %s: does a correlation name it without generate?", r.File, r.ID, r.Title, w)
			}
		}
	}
}

func engine(t testing.TB, w Where, opts Options) *Engine {
	t.Helper()
	opts.Catalogue, opts.Where = ours(t), w
	e, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func vpnEvent(tenant event.TenantID, source, user, outcome string, at int64) *event.Event {
	e := &event.Event{Tenant: tenant, Created: at, Time: at}
	e.AddString(event.EventCategory, "authentication")
	e.SetString(event.EventOutcome, outcome)
	e.SetString(event.TocsinService, "vpn")
	e.SetIP(event.SourceIP, netip.MustParseAddr(source))
	e.SetString(event.UserName, user)
	return e
}

func denied(tenant event.TenantID, source string, port, at int64) *event.Event {
	e := &event.Event{Tenant: tenant, Created: at, Time: at}
	e.AddString(event.EventCategory, "network")
	e.AddString(event.EventType, "connection")
	e.AddString(event.EventType, "denied")
	e.SetString(event.NetworkDirection, "inbound")
	e.SetString(event.EventDataset, "fortinet.fortigate")
	e.SetIP(event.SourceIP, netip.MustParseAddr(source))
	e.SetInt(event.SourcePort, 41234)
	e.SetIP(event.DestinationIP, netip.MustParseAddr("198.51.100.2"))
	e.SetInt(event.DestinationPort, port)
	return e
}

// attack is a day in which two members are attacked at once, with noise around it.
func attack() []*event.Event {
	var out []*event.Event
	for i := range int64(400) {
		at := start + i*int64(time.Second)
		out = append(out, vpnEvent(event.TenantID(1+i%2), "203.0.113.66", fmt.Sprintf("u%d", i%6), "failure", at))
		out = append(out, denied(1, "203.0.113.66", i%30, at+1))
		out = append(out, denied(2, fmt.Sprintf("192.0.2.%d", i%200), 23, at+2))
		out[len(out)-1].ID.Seq = uint64(i + 1)
	}
	return append(out, vpnEvent(1, "203.0.113.66", "j.moss", "success", start+401e9))
}

func all(e *Engine, events []*event.Event) []event.Detection {
	var out []event.Detection
	for _, ev := range events {
		out = append(out, e.Process(ev, ev.Created)...)
	}
	return append(out, e.Flush(start+3600e9)...)
}

func summary(list []event.Detection) string {
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, "%s %d %s %d\n", d.Key, d.Tenant, d.RuleTitle, d.Count)
	}
	return b.String()
}

func TestReplayGivesTheSameKeys(t *testing.T) {
	events := attack()
	for _, w := range []Where{Hub, Site} {
		want := summary(all(engine(t, w, Options{Origin: "c"}), events))
		if want == "" {
			t.Fatal("no detection")
		}
		for _, cut := range []int{0, 1, 33, 600, len(events)} {
			first := engine(t, w, Options{Origin: "c"})
			var got []event.Detection
			for _, ev := range events[:cut] {
				got = append(got, first.Process(ev, ev.Created)...)
			}
			snap, err := first.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			for _, ev := range events[cut:min(cut+50, len(events))] { // goes on after the snapshot, then dies
				first.Process(ev, ev.Created)
			}
			second := engine(t, w, Options{Origin: "c"})
			if err := second.Restore(snap); err != nil {
				t.Fatal(err)
			}
			got = append(got, all(second, events[cut:])...)
			if summary(got) != want {
				t.Errorf("%s, killed after %d events:\n%swant\n%s", w, cut, summary(got), want)
			}
			snap[len(snap)/2] ^= 1
			if err := second.Restore(snap); err == nil {
				t.Error("a damaged snapshot was taken")
			}
		}
	}
}

func TestOneAttackIsOneDetectionWithEveryEventCounted(t *testing.T) {
	counts := map[string]int{}
	for _, d := range all(engine(t, Hub, Options{}), attack()) {
		if d.Family == "password-guessing" {
			counts[fmt.Sprint(d.Tenant, " ", d.Key)] = d.Count
		}
	}
	if len(counts) != 2 {
		t.Fatalf("detections: %v", counts)
	}
	for k, n := range counts {
		if n != 200 {
			t.Errorf("%s counts %d, want 200", k, n)
		}
	}
}

func TestSitesHaveKeysOfTheirOwn(t *testing.T) {
	a, b := all(engine(t, Site, Options{Origin: "a"}), attack()), all(engine(t, Site, Options{Origin: "b"}), attack())
	if len(a) == 0 || a[0].Key == b[0].Key {
		t.Error("two sites made the same key")
	}
}

func TestWithheldUserStaysOnTheSite(t *testing.T) {
	found := false
	for _, d := range all(engine(t, Site, Options{Withhold: func(f string) bool { return f == "user.name" }}), attack()) {
		found = found || d.Family == "account-takeover"
		if strings.Contains(fmt.Sprintf("%+v", d), "j.moss") {
			t.Errorf("the name left the site: %+v", d)
		}
	}
	if !found {
		t.Error("no detection")
	}
}

func TestLateEventsAreMarked(t *testing.T) {
	e := engine(t, Hub, Options{})
	var got []event.Detection
	for i := range int64(30) {
		at := start + i*int64(time.Second)
		got = append(got, e.Process(vpnEvent(1, "203.0.113.66", "a", "failure", at), at+int64(5*time.Hour))...)
	}
	if len(got) == 0 || !got[0].Late || !strings.Contains(got[0].Reason, "late") || got[0].First != start {
		t.Fatalf("%+v", got)
	}
	if e.Stats().Late != 30 {
		t.Errorf("%d late", e.Stats().Late)
	}
}

// TestForgedTenant: the tenant comes from the registration; a field that claims another is not believed.
func TestForgedTenant(t *testing.T) {
	e := engine(t, Hub, Options{})
	for i := range int64(200) {
		ev := denied(1, "203.0.113.66", i, start+i*1e9)
		ev.SetInt(event.TocsinTenant, i)
		for _, d := range e.Process(ev, ev.Created) {
			if d.Family == "campaign" || d.Tenant != 1 {
				t.Fatalf("%+v", d)
			}
		}
	}
}

func TestFloodOfOneMemberDoesNotBlindAnother(t *testing.T) {
	e := engine(t, Hub, Options{MaxGroups: 2000})
	found := false
	for i := range int64(60_000) {
		at := start + i*int64(time.Millisecond)
		e.Process(denied(1, netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String(), 23, at), at)
		if i%5000 == 0 {
			for _, d := range e.Process(vpnEvent(2, "203.0.113.66", "a", "failure", at), at) {
				found = found || d.Tenant == 2
			}
		}
	}
	if s := e.Stats(); !found || s.Evicted == 0 || s.EvictedBy[1] == 0 || s.EvictedBy[2] != 0 {
		t.Errorf("found %v, stats %+v", found, s)
	}
}

func TestAttackersTextStaysOnOneLine(t *testing.T) {
	e := engine(t, Hub, Options{})
	ev := &event.Event{Tenant: 1, Created: start}
	ev.AddString(event.EventCategory, "intrusion_detection")
	ev.SetString(event.TocsinSeverity, "high")
	ev.SetString(event.RuleName, "a\r\nBcc: x\u202e"+strings.Repeat("long ", 100))
	d := e.Process(ev, start)
	if len(d) != 1 || strings.ContainsAny(d[0].Reason, "\r\n\u202e") || len(d[0].Reason) > 400 {
		t.Fatalf("%+v", d)
	}
}

// BenchmarkProcess measures the hub's rules over a mix: one event in eight is denied noise, the rest allowed traffic that matches nothing.
func BenchmarkProcess(b *testing.B) {
	for _, w := range []Where{Hub, Site} {
		b.Run(string(w), func(b *testing.B) {
			e := engine(b, w, Options{})
			var events []*event.Event
			for i := range int64(8192) {
				ev := denied(event.TenantID(i%50+1), netip.AddrFrom4([4]byte{203, 0, byte(i >> 6), byte(i)}).String(), i%1000, 0)
				if i%8 != 0 {
					ev.Del(event.EventType)
					ev.AddString(event.EventType, "allowed")
				}
				events = append(events, ev)
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				ev := events[n%len(events)]
				ev.Created = start + int64(n)*50_000
				e.Process(ev, ev.Created)
				n++
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// FuzzRules: any rule text with attributes is taken or refused with a reason, and what was taken can run.
func FuzzRules(f *testing.F) {
	for _, name := range []string{"vpn.yml", "ids.yml", "campaign.yml"} {
		b, err := fs.ReadFile(rules.FS, name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	ev := vpnEvent(1, "203.0.113.66", "a", "failure", start)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Load(fstest.MapFS{"x.yml": {Data: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		e, err := New(Options{Catalogue: c, Where: Hub})
		if err != nil {
			return
		}
		for i := range int64(25) {
			for _, d := range e.Process(ev, start+i) {
				if d.Key == "" || d.Entity.Kind == "" || d.Entity.Value == "" || d.Family == "" || d.Reason == "" {
					t.Fatalf("incomplete: %+v", d)
				}
			}
		}
	})
}

// TestSiteMemory: a collector under a scan from more sources than fit keeps its state within what a small machine has to spare, and says
// what it had to push out.
func TestSiteMemory(t *testing.T) {
	e, err := New(Options{Catalogue: ours(t), Where: Site, Origin: "c"})
	if err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var ev event.Event
	now := int64(1_800_000_000e9)
	n := siteGroups * 5 / 4
	for i := range n {
		ev.Reset()
		ev.Tenant, ev.Created = 1, now+int64(i)*1e6
		ev.SetString(event.EventDataset, "openssh.sshd")
		ev.Add(event.EventCategory, event.StringValue("authentication"))
		ev.SetString(event.EventOutcome, "failure")
		ev.SetString(event.TocsinService, "ssh")
		ev.SetString(event.NetworkDirection, "inbound")
		ev.SetString(event.UserName, "root")
		ev.SetIP(event.SourceIP, netip.AddrFrom4([4]byte{byte(1 + i>>24), byte(i >> 16), byte(i >> 8), byte(i)}))
		e.Process(&ev, ev.Created)
	}
	s, used := e.Stats(), heap()-before
	t.Logf("%d events: %d groups, state %d bytes (%d a group), heap %d bytes, %d pushed out", n, s.Groups, s.StateBytes, s.StateBytes/max(s.Groups, 1), used, s.Evicted)
	if s.Groups < siteGroups*9/10 || s.Evicted == 0 {
		t.Errorf("%d groups, %d pushed out: the flood did not fill the state", s.Groups, s.Evicted)
	}
	if used > 20<<20 {
		t.Errorf("%d bytes of heap", used)
	}
	runtime.KeepAlive(e)
}
