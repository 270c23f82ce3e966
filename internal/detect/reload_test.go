package detect

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/event"
)

// reloadRules counts three of a word from one source, and says each of another word at once. Both carry the set's mark in their titles.
func reloadRules(mark, gte string) fstest.MapFS {
	return fstest.MapFS{"rules.yml": {Data: []byte(`title: Word
id: 00000000-0000-4000-8000-000000000001
name: word
logsource: {category: proxy}
detection:
  selection: {url.path: /counted}
  condition: selection
---
title: Counted ` + mark + `
id: 00000000-0000-4000-8000-000000000002
level: high
correlation: {type: event_count, rules: [word], group-by: [source.ip], timespan: 10m, condition: {gte: ` + gte + `}}
tocsin: {runs: hub, family: counted, entity: source, reason: "{count}", member: {title: t, what: w, do: d}}
---
title: First ` + mark + `
id: 00000000-0000-4000-8000-000000000003
level: high
logsource: {category: proxy}
detection:
  selection: {url.path: /each}
  condition: selection
tocsin: {runs: hub, family: first, entity: source, reason: "{count}", member: {title: t, what: w, do: d}}
---
title: Second ` + mark + `
id: 00000000-0000-4000-8000-000000000004
level: high
logsource: {category: proxy}
detection:
  selection: {url.path: /each}
  condition: selection
tocsin: {runs: hub, family: second, entity: source, reason: "{count}", member: {title: t, what: w, do: d}}
`)}}
}

func load(t testing.TB, files fstest.MapFS) *Catalogue {
	t.Helper()
	c, err := Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func webEvent(ev *event.Event, n int, source netip.Addr, path string, at int64) {
	ev.Reset()
	ev.Tenant, ev.Created, ev.Time = 1, at, at
	ev.ID.Seq = uint64(n + 1)
	ev.SetString(event.EventCategory, "web")
	ev.SetIP(event.SourceIP, source)
	ev.SetString(event.URLPath, path)
}

// What was counted is kept for rules that did not change, also when others did, came or went.
func TestReloadKeepsState(t *testing.T) {
	e, err := New(Options{Catalogue: load(t, reloadRules("a", "3")), Where: Hub})
	if err != nil {
		t.Fatal(err)
	}
	var ev event.Event
	src, now := netip.MustParseAddr("192.0.2.1"), testStart
	feed := func(n int) (out []event.Detection) {
		now += int64(time.Second)
		webEvent(&ev, n, src, "/counted", now)
		return e.Process(&ev, now)
	}
	feed(0)
	feed(1)
	more := reloadRules("b", "3")
	more["new.yml"] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(strings.Split(string(reloadRules("new", "3")["rules.yml"].Data), "---\n")[2], "000000000003", "000000000009"))}
	r, err := e.Reload(load(t, more))
	if err != nil || r.Rules != 4 || r.Groups == 0 || r.Lost != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	got := feed(2)
	if len(got) != 1 || got[0].Count != 3 || got[0].RuleTitle != "Counted b" {
		t.Fatalf("what was counted before was lost: %+v", got)
	}
	if s := e.Stats(); s.Events != 3 || s.Detections != 1 || s.Rules != 4 {
		t.Errorf("%+v", s)
	}
	// Another condition is another rule: it counts from nothing, and says so.
	feed(3)
	if r, err = e.Reload(load(t, reloadRules("c", "4"))); err != nil || r.Lost == 0 {
		t.Errorf("%+v %v", r, err)
	}
	for n := range 3 {
		if got := feed(10 + n); len(got) > 0 {
			t.Errorf("a changed rule kept what it had counted: %+v", got)
		}
	}
	if got := feed(20); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

// Anything wrong leaves what ran, as it was.
func TestReloadRefuses(t *testing.T) {
	e, err := New(Options{Catalogue: load(t, reloadRules("a", "3")), Where: Hub})
	if err != nil {
		t.Fatal(err)
	}
	rules := string(reloadRules("b", "3")["rules.yml"].Data)
	for name, text := range map[string]string{
		"no YAML":                rules + "---\ntitle: [",
		"unknown modifier":       strings.Replace(rules, "url.path: /each", "url.path|sounds: /each", 1),
		"rule that is not there": strings.Replace(rules, "rules: [word]", "rules: [wrd]", 1),
		"an id twice":            strings.Replace(rules, "000000000004", "000000000003", 1),
		"attribute":              strings.Replace(rules, "family: first", "family: first words", 1),
	} {
		_, err := e.Reload(load(t, fstest.MapFS{"rules.yml": {Data: []byte(text)}}))
		var bad *BadRules
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "rules.yml") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := e.Reload(load(t, fstest.MapFS{})); err == nil {
		t.Error("a set without any rule was taken")
	}
	var ev event.Event
	webEvent(&ev, 1, netip.MustParseAddr("192.0.2.1"), "/each", testStart)
	if got := e.Process(&ev, testStart); len(got) != 2 || got[0].RuleTitle != "First a" || got[1].RuleTitle != "Second a" {
		t.Errorf("%+v", got)
	}
}

// Under load, with a reload after a reload: every event is looked at, by one whole set. Each event makes two detections, whose titles name the set
// they come from; counts go on over all sets.
func TestReloadUnderLoad(t *testing.T) {
	sets := [2]*Catalogue{load(t, reloadRules("a", "3")), load(t, reloadRules("b", "3"))}
	e, err := New(Options{Catalogue: sets[0], Where: Hub})
	if err != nil {
		t.Fatal(err)
	}
	due := make(chan struct{}, 1)
	var wg sync.WaitGroup
	reloads := 0
	wg.Go(func() {
		for range due {
			reloads++
			if _, err := e.Reload(sets[reloads%2]); err != nil {
				t.Error(err)
				return
			}
			if reloads%3 == 0 { // a bad one in between
				bad := load(t, fstest.MapFS{"x.yml": {Data: []byte("title: [")}})
				if _, err := e.Reload(bad); err == nil {
					t.Error("a bad set was taken")
				}
			}
		}
	})
	const events = 1500
	var ev event.Event
	seen := map[string]int{}
	counted := 0
	for n := range events {
		if n%10 == 0 {
			select {
			case due <- struct{}{}:
			default: // one is under way
			}
		}
		at := testStart + int64(n)*int64(time.Millisecond)
		src := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		webEvent(&ev, n, src, "/each", at)
		got := e.Process(&ev, at)
		if len(got) != 2 || got[0].RuleTitle[len("First "):] != got[1].RuleTitle[len("Second "):] {
			t.Fatalf("event %d was looked at by half a set: %+v", n, got)
		}
		seen[got[0].RuleTitle]++
		// Every source is seen three times, far enough apart that sets change between.
		webEvent(&ev, events+n, netip.AddrFrom4([4]byte{172, 16, byte(n % 500 >> 8), byte(n % 500)}), "/counted", at)
		for _, d := range e.Process(&ev, at) {
			if d.Count != 3 {
				t.Fatalf("%+v", d)
			}
			counted++
		}
	}
	close(due)
	wg.Wait()
	t.Logf("%d reloads; detections by set: %v", reloads, seen)
	if counted != 500 {
		t.Errorf("%d of 500 sources were counted to three", counted)
	}
	if s := e.Stats(); s.Events != 2*events || s.Evicted != 0 {
		t.Errorf("%+v", s)
	}
	if reloads < 2 {
		t.Error("the rules were not reloaded while events came")
	}
}

// Upstream rules get what is needed of an alert; rules that only feed correlations stay silent.
func TestAdopt(t *testing.T) {
	rule := func(n int, source, extra string) string {
		return fmt.Sprintf("title: Rule %d {x}\nid: 00000000-0000-4000-8000-%012d\nname: r%d\ndescription: What it is.\nlevel: high\nlogsource: {%s}\ndetection:\n  selection: {url.path: /x%d}\n  condition: selection\n%s", n, n, n, source, n, extra)
	}
	cat, err := LoadAll([]Source{
		{Name: "built-in", FS: fstest.MapFS{"a.yml": {Data: []byte(rule(1, "category: proxy", ""))}}},
		{Name: "up", FS: fstest.MapFS{
			"b.yml": {Data: []byte(rule(2, "category: proxy", ""))}, "c.yml": {Data: []byte(rule(3, "category: process_creation, product: windows", ""))},
			"d.yml": {Data: []byte(rule(4, "product: okta, service: okta", "") + "---\ntitle: Many\nid: 00000000-0000-4000-8000-000000000005\nlevel: medium\ncorrelation: {type: event_count, rules: [r4], group-by: [source.ip], timespan: 1h, condition: {gte: 2}}\n")},
			"e.yml": {Data: []byte("title: [")},
		}, Upstream: true, Skip: map[string]bool{"e.yml": true}},
	})
	if err != nil || len(cat.Errors) > 0 {
		t.Fatal(err, cat.Errors)
	}
	got := map[string]string{}
	for _, i := range cat.Infos() {
		got[i.Title] = i.Family + " " + i.Entity + " " + i.File
		if !i.Upstream || i.Member.Title == "" || i.Member.What == "" || i.Member.Do == "" || i.Runs != Hub {
			t.Errorf("%+v", i)
		}
	}
	want := map[string]string{"Rule 2 {x}": "upstream-web source up/b.yml", "Rule 3 {x}": "upstream-host host up/c.yml", "Many": "upstream-cloud source up/d.yml"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
	e, err := New(Options{Catalogue: cat, Where: Hub})
	if err != nil {
		t.Fatal(err)
	}
	var ev event.Event
	webEvent(&ev, 1, netip.MustParseAddr("192.0.2.1"), "/x2", testStart)
	if d := e.Process(&ev, testStart); len(d) != 1 || d[0].Entity.Value != "192.0.2.1" || !strings.Contains(d[0].Reason, `"Rule 2 (x)" matched, once`) {
		t.Errorf("%+v", d)
	}
	if f, ok := cat.Find("Rule 4 {x}"); !ok || !f.Silent || !f.AtHub || f.OnSite {
		t.Errorf("%+v", f)
	}
	if _, err := LoadAll([]Source{{FS: fstest.MapFS{"big.yml": {Data: make([]byte, maxRuleFile+1)}}}}); err == nil {
		t.Error("a file without bound was read")
	}
}
