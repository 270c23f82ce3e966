package health

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/rules"
)

type rig struct {
	t     *testing.T
	db    *db.DB
	cat   *detect.Catalogue
	clock time.Time
	w     *Watch
}

var ours = sync.OnceValues(func() (*detect.Catalogue, error) { return detect.Load(rules.FS) })

func newRig(t *testing.T) *rig {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	cat, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, db: d, cat: cat, clock: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)}
	r.open()
	return r
}

// open is a start of the hub.
func (r *rig) open() {
	r.t.Helper()
	w, err := New(r.t.Context(), Options{DB: r.db, Rules: func() *detect.Catalogue { return r.cat }, Now: func() time.Time { return r.clock }})
	if err != nil {
		r.t.Fatal(err)
	}
	r.w = w
}

// denied is a refused connection as a firewall writes it, without the fields named.
func (r *rig) denied(without ...string) {
	var ev event.Event
	ev.Tenant, ev.Created = 1, r.clock.UnixNano()
	for name, v := range map[string]string{"event.dataset": "fortinet.fortigate", "event.category": "network", "event.type": "denied", "network.direction": "inbound", "source.ip": "203.0.113.7", "destination.ip": "198.51.100.7",
		"destination.port": "3389", "network.transport": "tcp"} {
		k, ok := event.Lookup(name)
		if !ok {
			r.t.Fatal(name)
		}
		if !strings.Contains(" "+strings.Join(without, " ")+" ", " "+name+" ") {
			ev.SetText(k, v)
		}
	}
	ev.SetString(event.TocsinCollectorID, "c1")
	r.w.Observe(&ev)
}

// check asks about the collector c1, which is heard, or about those given.
func (r *rig) check(c ...Collector) map[string]event.Detection {
	if len(c) == 0 {
		c = []Collector{{Tenant: 1, ID: "c1", Name: "site", Seen: r.clock.UnixNano()}}
	}
	out := map[string]event.Detection{}
	for _, d := range r.w.Check(Asked{Collectors: c}) {
		out[d.RuleID] = d
	}
	return out
}

// until lets time pass as it does for a hub that runs: it checks now and then.
func (r *rig) until(at time.Time, c ...Collector) {
	r.t.Helper()
	for r.clock.Before(at) {
		if r.clock = r.clock.Add(10 * time.Minute); r.clock.After(at) {
			r.clock = at
		}
		if r.clock.Before(at) {
			r.check(c...)
		}
	}
}

// A mapping that breaks, or a field that vanishes after an update of the device: the alert comes within two windows, names fields and rules, and
// is the same one for as long as it lasts, also after a restart. When the field is back it ends, and the next time is another one.
func TestFieldsVanish(t *testing.T) {
	r := newRig(t)
	for range 600 {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied()
	}
	if got := r.check(); len(got) > 0 {
		t.Fatalf("%+v", got)
	}
	n := 0
	var d event.Detection
	for d.Key == "" {
		if n++; n > 3*windowSize {
			t.Fatal("no alert came")
		}
		r.clock = r.clock.Add(10 * time.Second)
		r.denied("source.ip")
		d = r.check()[RuleFields]
	}
	if n > 2*windowSize+windowSize { // the field may vanish in the middle of a window
		t.Errorf("it took %d events", n)
	}
	if !strings.Contains(d.Reason, "source.ip") || !strings.Contains(d.Reason, "rules cannot fire") || d.Tenant != 1 || d.Family != "health-fields" {
		t.Errorf("%+v", d)
	}
	t.Logf("after %d events: %s", n, d.Reason)
	if err := r.w.Save(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	r.open()
	if again := r.check()[RuleFields]; again.Key != d.Key {
		t.Errorf("after a restart the alert is another one: %q, %q", again.Key, d.Key)
	}
	for range 2 * windowSize {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied()
	}
	// A burst of another kind of events, or of the same without ports for some minutes, is no fault.
	for range 5000 {
		var ev event.Event
		ev.Tenant, ev.Created = 1, r.clock.UnixNano()
		ev.SetString(event.EventDataset, "fortinet.fortigate")
		ev.SetString(event.EventCategory, "authentication")
		ev.SetString(event.UserName, "x")
		ev.SetString(event.TocsinCollectorID, "c1")
		r.w.Observe(&ev)
		r.clock = r.clock.Add(time.Second)
	}
	for range 600 {
		r.clock = r.clock.Add(time.Second)
		r.denied("destination.port", "network.transport")
	}
	for range windowSize {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied()
	}
	if got := r.check(); len(got) > 0 {
		t.Errorf("the field is back and the alert stays: %+v", got)
	}
	// A mapping that gives no category leaves every rule blind.
	for range 4 * windowSize {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied("event.category")
	}
	got := r.check()[RuleFields]
	if !strings.Contains(got.Reason, "event.category") || got.Key == d.Key {
		t.Errorf("%+v", got)
	}
}

// Rules that have names of their own for what vanished: the alert says what the source calls it, and is the same one after a restart.
func TestFieldsOfOtherNames(t *testing.T) {
	r := newRig(t)
	const rule = "title: A made rule\nid: 22222222-0000-4000-8000-000000000001\nlevel: high\nlogsource: {category: firewall}\ndetection:\n  selection: {src_ip: 203.0.113.7}\n  condition: selection\n"
	var err error
	if r.cat, err = detect.LoadAll([]detect.Source{{FS: fstest.MapFS{"x.yml": {Data: []byte(rule)}}, Upstream: true}}); err != nil || len(r.cat.Errors) > 0 {
		t.Fatal(err, r.cat.Errors)
	}
	for range 600 {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied()
	}
	for range 4 * windowSize {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied("source.ip")
	}
	d := r.check()[RuleFields]
	if !strings.Contains(d.Reason, "no longer have source.ip, which") || !strings.Contains(d.Reason, "One rule cannot fire") {
		t.Fatalf("%+v", d)
	}
	if err := r.w.Save(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	r.clock = r.clock.Add(time.Minute)
	r.open()
	if again := r.check()[RuleFields]; again.Key != d.Key {
		t.Errorf("after a restart the alert is another one: %q, %q", again.Key, d.Key)
	}
}

// What no rule needs may go.
func TestUnneededField(t *testing.T) {
	r := newRig(t)
	extra := func(with bool) {
		var ev event.Event
		ev.Tenant, ev.Created = 1, r.clock.UnixNano()
		ev.SetString(event.EventDataset, "fortinet.fortigate")
		ev.SetString(event.EventCategory, "network")
		if with {
			k, _ := event.Lookup("destination.mac")
			ev.SetText(k, "00-00-5E-00-53-01")
		}
		ev.SetString(event.TocsinCollectorID, "c1")
		r.w.Observe(&ev)
	}
	for range 400 {
		r.clock = r.clock.Add(10 * time.Second)
		extra(true)
	}
	for range 3 * windowSize {
		r.clock = r.clock.Add(10 * time.Second)
		extra(false)
	}
	if got := r.check(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// A collector whose lines are not understood any more.
func TestLinesNotUnderstood(t *testing.T) {
	r := newRig(t)
	c := Collector{Tenant: 1, ID: "c1", Name: "site", Received: 1000, Parsed: 990, Seen: r.clock.UnixNano()}
	step := func(received, parsed uint64) map[string]event.Detection {
		r.clock = r.clock.Add(r.w.Times().Every())
		c.Received, c.Parsed, c.Seen = c.Received+received, c.Parsed+parsed, r.clock.UnixNano()
		return r.check(c)
	}
	if got := step(0, 0); len(got) > 0 {
		t.Fatal(got)
	}
	if got := step(500, 490); len(got) > 0 {
		t.Fatal(got)
	}
	if got := step(199, 0); len(got) > 0 {
		t.Fatal("too few lines to say", got)
	}
	got := step(1, 0)[RuleLines]
	if got.Key == "" || !strings.Contains(got.Reason, "99 in a hundred") {
		t.Fatalf("%+v", got)
	}
	if again := step(300, 10)[RuleLines]; again.Key != got.Key {
		t.Errorf("another alert: %q", again.Key)
	}
	if err := r.w.Save(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	r.open()
	if again := step(300, 10)[RuleLines]; again.Key != got.Key {
		t.Errorf("after a restart another alert: %q", again.Key)
	}
	if got := step(300, 299); len(got) > 0 {
		t.Errorf("understood again: %+v", got)
	}
}

// A source that sent every few minutes for two days, then nothing; the collector is well.
func TestSilent(t *testing.T) {
	r := newRig(t)
	for range 2 * 24 * 6 {
		r.clock = r.clock.Add(10 * time.Minute)
		r.denied()
	}
	r.check()
	least, last := r.w.Times().SourceSilent, r.clock
	r.until(last.Add(least))
	if got := r.check(); len(got) > 0 {
		t.Fatalf("%+v", got)
	}
	r.until(last.Add(least + 30*time.Second))
	got := r.check()
	d := got[RuleSilent]
	if d.Entity.Value != "fortinet.fortigate, site" || d.Family != "health-silent" || !strings.Contains(d.Reason, "FortiGate at the collector site since 22 November 2026 00:00 UTC; its longest pause in the week before was 10 minutes") {
		t.Fatalf("%+v", got)
	}
	if list := r.w.Unwell(); len(list) != 1 || !list[0].Silent || list[0].Well() || r.w.Stats() != (Stats{Sources: 1, Silent: 1}) {
		t.Errorf("%+v %+v", list, r.w.Stats())
	}
	// The whole collector is away: that is said, and not of each source again. Whoever was revoked is not waited for.
	gone := Collector{Tenant: 1, ID: "c1", Name: "site", Seen: r.clock.UnixNano()}
	r.until(last.Add(least+2*time.Hour), gone)
	if got := r.check(gone); got[RuleCollector].Key == "" || got[RuleSilent].Key != "" {
		t.Errorf("%+v", got)
	}
	if got := r.check(Collector{Tenant: 2, ID: "c2", Name: "other", Seen: r.clock.UnixNano()}); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	// It is back, and its events are on their way: nothing is silent yet.
	if got := r.check(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	// The hub cannot know while it is behind with what came.
	r.clock = r.clock.Add(5 * time.Hour)
	all := Asked{Collectors: []Collector{{Tenant: 1, ID: "c1", Name: "site", Seen: r.clock.UnixNano()}, gone}, Behind: true}
	if got := r.w.Check(all); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	all.Behind = false
	if got := r.w.Check(all); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	// A hub that was down itself says nothing of others for as long.
	if err := r.w.Save(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	r.clock = last.Add(48 * time.Hour)
	r.open()
	r.clock = r.clock.Add(20 * time.Minute)
	if got := r.check(gone); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	r.clock = r.clock.Add(15 * time.Minute)
	if got := r.check(gone); got[RuleCollector].Key == "" {
		t.Errorf("%+v", got)
	}
	// In the end it is forgotten, in the records too.
	r.clock = last.Add(forgetAfter + time.Hour)
	r.check()
	if err := r.w.Save(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	r.open()
	if list := r.w.Sources(1); len(list) > 0 || len(r.w.Datasets(1)) > 0 {
		t.Errorf("%+v", list)
	}
}

// Of two firewalls of one kind behind one collector each is missed by itself. Where there are many senders, they come and go.
func TestSenders(t *testing.T) {
	r := newRig(t)
	from := func(n int) {
		var ev event.Event
		ev.Tenant, ev.Created = 1, r.clock.UnixNano()
		ev.SetString(event.EventDataset, "fortinet.fortigate")
		ev.SetString(event.TocsinCollectorID, "c1")
		ev.SetIP(event.TocsinSenderIP, netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}))
		r.w.Observe(&ev)
	}
	for n := range 2 * 24 * 6 {
		r.clock = r.clock.Add(10 * time.Minute)
		from(1)
		from(2)
		if n < 6 {
			from(100 + n) // somebody's tests, once each
		}
	}
	r.check()
	if list := r.w.Sources(1); len(list) != 1 || list[0].Senders != maxSenders {
		t.Fatalf("%+v", list[0].State)
	}
	for range 3 * 6 {
		r.clock = r.clock.Add(10 * time.Minute)
		from(1)
		r.check()
	}
	got := r.check()[RuleSilent]
	if got.Entity.Value != "192.0.2.2, fortinet.fortigate, site" || !strings.Contains(got.Reason, "at 192.0.2.2 at the collector site") {
		t.Errorf("%+v", got)
	}
	if list := r.w.Unwell(); len(list) != 1 || list[0].Silent || strings.Join(list[0].Quiet, " ") != "192.0.2.2" {
		t.Errorf("%+v", list)
	}
	if err := r.w.Save(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	before := r.w.Sources(1)[0].State
	r.open()
	r.check() // the collector is heard
	if after := r.w.Sources(1)[0].State; after.Senders != before.Senders || after.Events != before.Events || !after.Last.Equal(before.Last) {
		t.Errorf("after a restart %+v, before %+v", after, before)
	}
	for n := range 20 {
		from(200 + n)
	}
	r.until(r.clock.Add(50 * time.Minute))
	from(200)
	r.until(r.clock.Add(50 * time.Minute))
	from(200)
	if got := r.check(); len(got) > 0 {
		t.Errorf("of many machines some are always away: %+v", got)
	}
	// A sender whose clock is a year ahead is not heard tomorrow.
	var ev event.Event
	ev.Tenant, ev.Created = 1, r.clock.AddDate(1, 0, 0).UnixNano()
	ev.SetString(event.EventDataset, "fortinet.fortigate")
	ev.SetString(event.TocsinCollectorID, "c1")
	r.w.Observe(&ev)
	if last := r.w.Sources(1)[0].Last; last.After(r.clock) {
		t.Errorf("heard last at %s, now is %s", last, r.clock)
	}
}

// One of two firewalls is replaced, under another address: the old one is not waited for ever. A time before 1970 is no fault of this program.
func TestSenderIsForgotten(t *testing.T) {
	r := newRig(t)
	from := func(n byte, at int64) {
		var ev event.Event
		ev.Tenant, ev.Created = 1, at
		ev.SetString(event.EventDataset, "fortinet.fortigate")
		ev.SetString(event.TocsinCollectorID, "c1")
		ev.SetIP(event.TocsinSenderIP, netip.AddrFrom4([4]byte{192, 0, 2, n}))
		r.w.Observe(&ev)
	}
	from(1, -int64(100*time.Hour))
	from(1, -int64(50*time.Hour))
	from(2, r.clock.UnixNano())
	for day := range 37 {
		r.clock = r.clock.Add(24 * time.Hour)
		from(1, r.clock.UnixNano())
		r.check()
		if n := r.w.Sources(1)[0].Senders; (n == 2) != (day < 35) {
			t.Fatalf("%d senders after %d days", n, day+1)
		}
	}
}

// The hub's machine sleeps for a night: nobody is silent for that, and whoever stays silent afterwards is told in the usual time. A clock that is
// put back is the same.
func TestMachineSleeps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"sleep": 9 * time.Hour, "clock put back": -9 * time.Hour} {
		r := newRig(t)
		for range 3 * 24 * 60 {
			r.clock = r.clock.Add(time.Minute)
			r.denied()
		}
		seen := r.clock.UnixNano()
		both := func(back bool) map[string]event.Detection {
			c := []Collector{{Tenant: 1, ID: "c1", Name: "site", Seen: r.clock.UnixNano()}, {Tenant: 1, ID: "c2", Name: "other", Seen: seen}}
			if !back {
				c[0].Seen = seen
			}
			return r.check(c...)
		}
		for range 60 {
			r.clock, seen = r.clock.Add(time.Second), seen+int64(time.Second)
			if got := both(true); len(got) != 0 {
				t.Fatalf("%s: before: %+v", name, got)
			}
		}
		r.clock = r.clock.Add(jump)
		for range 29 { // the first minute nobody is back yet
			if got := both(false); len(got) != 0 {
				t.Fatalf("%s: %+v", name, got)
			}
			r.clock = r.clock.Add(2 * time.Second)
		}
		for range 29 {
			if got := both(true); len(got) != 0 {
				t.Fatalf("%s: %+v", name, got)
			}
			r.denied()
			r.clock = r.clock.Add(time.Minute)
		}
		r.clock = r.clock.Add(time.Minute)
		got := both(true)
		if d := got[RuleCollector]; jump > 0 && (len(got) != 1 || !strings.Contains(d.Entity.Value, "c2")) {
			t.Errorf("%s: who stays silent afterwards: %+v", name, got)
		}
		if n := r.w.Stats().Pauses; n != 1 {
			t.Errorf("%s: %d pauses", name, n)
		}
	}
}

// A fault of the detector is raised when it stays for two checks.
func TestDetector(t *testing.T) {
	r := newRig(t)
	if got := r.w.Check(Asked{Troubles: []string{"x"}}); len(got) > 0 {
		t.Error(got)
	}
	got := r.w.Check(Asked{Troubles: []string{"x"}})
	if len(got) != 1 || got[0].Tenant != 0 || got[0].Reason != "x" {
		t.Errorf("%+v", got)
	}
	if got := r.w.Check(Asked{}); len(got) > 0 {
		t.Error(got)
	}
	if got := r.w.Check(Asked{Troubles: []string{"x"}}); len(got) > 0 {
		t.Error("it came back and was not waited for", got)
	}
}

// Rules that can and cannot fire, and why; techniques.
func TestSources(t *testing.T) {
	r := newRig(t)
	for range 300 {
		r.clock = r.clock.Add(10 * time.Second)
		r.denied("destination.port")
	}
	list := r.w.Sources(1)
	if len(list) != 1 || list[0].Mapped < 0.99 || list[0].Events != 300 {
		t.Fatalf("%+v", list)
	}
	find := func(list []detect.Verdict, title string) *detect.Verdict {
		for i := range list {
			if list[i].Title == title {
				return &list[i]
			}
		}
		return nil
	}
	if v := find(list[0].Cannot, "Port scan from one source"); v == nil || strings.Join(v.Missing, " ") != "destination.port" {
		t.Errorf("%+v", v)
	}
	if find(list[0].Can, "Network sweep from one source") == nil {
		t.Error("the sweep needs no port")
	}
	if list[0].OtherKind == 0 || find(list[0].Can, "Malware found") != nil {
		t.Error("a firewall's denials are no verdicts about malware")
	}
	if got := r.w.Sources(2); len(got) > 0 {
		t.Errorf("another member's sources: %+v", got)
	}
	seen := map[string]Technique{}
	for _, x := range r.w.Coverage(1, func(r *detect.Info) bool { return r.Title == "Network sweep from one source" }) {
		seen[x.ID] = x
	}
	if x := seen["T1595.001"]; len(x.Rules) == 0 || slices.Contains(x.Rules, "Network sweep from one source") || x.Blind == 0 {
		t.Errorf("a rule that is switched off covers nothing: %+v", x)
	}
}

// One member's sources cannot fill the memory, and what there is no room for is counted.
func TestBounds(t *testing.T) {
	r := newRig(t)
	for n := range 200 {
		var ev event.Event
		ev.Tenant, ev.Created = 1, int64(n+1)
		ev.SetString(event.EventDataset, fmt.Sprint("x.", n))
		r.w.Observe(&ev)
		ev.SetString(event.EventDataset, strings.Repeat("x", maxDataset+1))
		r.w.Observe(&ev)
	}
	if got := r.w.Sources(1); len(got) != maxOfTenant || r.w.Stats().Refused != 200+200-maxOfTenant {
		t.Errorf("%d sources, %+v", len(got), r.w.Stats())
	}
	// Nor can its fields: a hundred and more of each of sixteen categories of each source.
	var ev event.Event
	ev.Tenant, ev.Created = 1, 1
	for k := event.Key(1); int(k) < min(event.NumKeys(), 150); k++ {
		if k != event.EventDataset && k != event.EventCategory {
			ev.SetText(k, "1")
		}
	}
	for n := range maxOfTenant {
		ev.SetString(event.EventDataset, fmt.Sprint("x.", n))
		for c := range maxProfiles {
			ev.SetString(event.EventCategory, fmt.Sprint(c))
			r.w.Observe(&ev)
		}
	}
	fields := func() (n int) {
		for _, s := range r.w.sources {
			for _, p := range s.profiles {
				n += len(p.fields)
			}
		}
		return n
	}
	if n := fields(); n != maxFieldsOf || r.w.of[1].fields != n || r.w.of[1].refused == 0 {
		t.Errorf("%d fields, %+v", n, r.w.of[1])
	}
	for _, s := range r.w.sources {
		r.w.forget(s)
	}
	if len(r.w.of) != 0 {
		t.Errorf("what was forgotten takes room: %+v", r.w.of[1])
	}
}

func BenchmarkObserve(b *testing.B) {
	w := &Watch{sources: map[key]*source{}, of: map[event.TenantID]*usage{}, now: time.Now, times: Times{}.complete()}
	var ev event.Event
	ev.Tenant, ev.Created = 1, 1
	ev.SetString(event.EventDataset, "fortinet.fortigate")
	ev.SetString(event.EventCategory, "network")
	ev.SetText(event.SourceIP, "203.0.113.7")
	for b.Loop() {
		w.Observe(&ev)
	}
}
