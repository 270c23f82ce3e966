package demo

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/internal/load/sample"
	"tocsin/rules"
)

// line1 is the line as the collectors and the hub treat it, without sockets, store and pages: parse, detect on the site, minimise, detect at the hub.
type line1 struct {
	t      *testing.T
	parse  *parse.Set
	min    *minimise.Minimiser
	site   *detect.Engine
	hub    *detect.Engine
	tenant event.TenantID
	seq    uint32
	in     event.Event
	out    event.Event
	left   map[string]int
	kept   map[string]int
}

func (l *line1) process(line []byte, from netip.Addr, at time.Time) (found []event.Detection) {
	l.t.Helper()
	now := at.UnixNano()
	e := &l.in
	e.Reset()
	e.Created = now
	e.SetRaw(line)
	if _, ok := l.parse.Parse(e, ""); !ok {
		l.t.Fatalf("not understood: %s", line)
	}
	l.min.Prepare(e, minimise.Sender{Addr: from, Assurance: "udp"})
	l.seq++
	e.Tenant = l.tenant
	e.ID = event.ID{Stream: event.StreamID{byte(l.tenant)}, Seq: 1, Index: l.seq}
	found = append(found, l.site.Process(e, now)...)
	for i := range found {
		found[i].Tenant = l.tenant
	}
	d := l.min.Decide(e)
	word, _ := l.min.Reason(d.Clause)
	if !d.Leave {
		l.kept[word]++
		return found
	}
	l.left[word]++
	l.min.Mark(e, d)
	l.min.Reduce(&l.out, e)
	// Over the wire, as the hub would read it.
	var at2 event.Event
	if err := event.DecodeJSON(&at2, l.out.AppendJSON(nil)); err != nil {
		l.t.Fatalf("%v: %s", err, l.out.AppendJSON(nil))
	}
	at2.Tenant, at2.ID = l.tenant, e.ID
	return append(found, l.hub.Process(&at2, now)...)
}

// The story raises exactly the alerts that are expected of it, with ten minutes of ordinary traffic before, during and after it, and the
// ordinary traffic alone raises none.
func TestStoryAgainstTheRules(t *testing.T) {
	var entries []indicator.Entry
	for row := range strings.Lines(indicators()) {
		value, _, _ := strings.Cut(strings.TrimSpace(row), ",")
		if kind, err := indicator.Guess(value); err == nil {
			entries = append(entries, indicator.Entry{Kind: kind, Value: value})
		}
	}
	set, err := buildSet(entries)
	if err != nil {
		t.Fatal(err)
	}
	engine := func(where detect.Where, origin string) *detect.Engine {
		e, err := detect.New(detect.Options{Rules: rules.FS, Where: where, Origin: origin})
		if err != nil {
			t.Fatal(err)
		}
		if errs := e.Errors(); len(errs) > 0 {
			t.Fatal(errs[0])
		}
		return e
	}
	hub := engine(detect.Hub, "")
	policy, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	var lines []*line1
	var gens []*generator
	for i, m := range cast {
		min, err := minimise.New(minimise.Options{Policy: policy, Own: []netip.Prefix{m.public, m.inside, netip.MustParsePrefix(fmt.Sprintf("2001:db8:10%d::/48", m.number))}})
		if err != nil {
			t.Fatal(err)
		}
		min.SetIndicators(set)
		lines = append(lines, &line1{t: t, parse: parse.New(parse.Options{Location: time.UTC}), min: min, site: engine(detect.Site, m.key), hub: hub, tenant: event.TenantID(i + 1), left: map[string]int{}, kept: map[string]int{}})
		gens = append(gens, newGenerator(m, 1))
	}

	const rate = 25
	const before, after = 10 * time.Minute, 10 * time.Minute
	begin := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	scenes := story()
	groups := map[string]int{}
	note := func(ds []event.Detection) {
		for _, d := range ds {
			groups[fmt.Sprintf("%d %s %s", d.Tenant, d.Family, d.Entity.Value)]++
			if d.Reason == "" || strings.Contains(d.Reason, "{") {
				t.Errorf("%s gives no reason: %q", d.RuleTitle, d.Reason)
			}
		}
	}
	var buf []byte
	total := before + after
	for n := range int(total.Seconds() * rate) {
		at := begin.Add(time.Duration(n) * time.Second / rate)
		for i, g := range gens {
			var device int
			buf, device = g.next(buf[:0], at)
			note(lines[i].process(buf, g.m.devices[device].addr, at))
		}
		if at.Sub(begin) < before {
			if len(groups) > 0 {
				t.Fatalf("ordinary traffic alone raised %v", groups)
			}
			continue
		}
		for len(scenes) > 0 && scenes[0].at <= at.Sub(begin)-before {
			s := scenes[0]
			scenes = scenes[1:]
			s.values.Time = at
			buf = sample.All().Template(s.template).Append(buf[:0], &s.values)
			note(lines[s.member.number-1].process(buf, s.member.devices[s.device].addr, at))
		}
	}
	want := map[string]bool{}
	for _, w := range expectations() {
		tenant := 0
		for i, m := range cast {
			if m.name == w.Member {
				tenant = i + 1
			}
		}
		key := fmt.Sprintf("%d %s %s", tenant, w.Family, w.Entity)
		want[key] = true
		if groups[key] == 0 {
			t.Errorf("missing: %s", w)
		}
	}
	for key, n := range groups {
		if !want[key] {
			t.Errorf("unexpected: %s, %d times", key, n)
		}
		if n > 60 {
			t.Errorf("%s: %d detections are a flood", key, n)
		}
	}
	for i, l := range lines {
		kept, left := 0, 0
		for _, n := range l.kept {
			kept += n
		}
		for _, n := range l.left {
			left += n
		}
		t.Logf("%s: kept %v, left %v", cast[i].name, l.kept, l.left)
		if share := float64(left) / float64(kept+left); share > 0.15 {
			t.Errorf("%s: %.0f %% of the lines leave; ordinary traffic should mostly stay at home", cast[i].name, 100*share)
		}
	}
	t.Logf("detections: %v", groups)
}

func buildSet(entries []indicator.Entry) (*indicator.Set, error) {
	b, err := indicator.Build([16]byte{1}, entries)
	if err != nil {
		return nil, err
	}
	return indicator.Open(b)
}
