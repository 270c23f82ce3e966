package detect

import (
	"slices"
	"testing"
	"testing/fstest"

	"tocsin/internal/event"
)

const namingRules = `title: A program
id: 11111111-0000-4000-8000-000000000001
level: high
logsource: {product: windows, category: process_creation}
detection:
  selection: {Image|endswith: '\evil.exe', ParentImage|endswith: '\winword.exe'}
  condition: selection
---
title: A request
id: 11111111-0000-4000-8000-000000000002
level: high
logsource: {category: proxy}
detection:
  selection: {c-uri|contains: 'bad.example/drop', cs-method: GET}
  condition: selection
---
title: A mailbox's rule
id: 11111111-0000-4000-8000-000000000003
level: high
logsource: {product: m365, service: audit}
detection:
  selection: {Operation: New-InboxRule, Parameters|contains: ForwardTo}
  condition: selection
---
title: An alert of the cloud's
id: 11111111-0000-4000-8000-000000000004
level: high
logsource: {product: m365, service: threat_management}
detection:
  selection: {eventSource: SecurityComplianceCenter, eventName: Impossible travel activity, status: success}
  condition: selection
---
title: A connection let through
id: 11111111-0000-4000-8000-000000000005
level: high
logsource: {category: firewall}
detection:
  selection: {dst_port: 23, blocked: 'false'}
  condition: selection
`

func namingEngine(t *testing.T) *Engine {
	t.Helper()
	cat, err := LoadAll([]Source{{FS: fstest.MapFS{"x.yml": {Data: []byte(namingRules)}}, Upstream: true}})
	if err != nil || len(cat.Errors) > 0 {
		t.Fatal(err, cat.Errors)
	}
	e, err := New(Options{Catalogue: cat, Where: Hub})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The values of a rule's fields are found where each kind of source has them: under its own name, another native one, ECS's, put together, below a name,
// and where there is none.
func TestFieldsAreFound(t *testing.T) {
	e := namingEngine(t)
	var ev event.Event
	for _, c := range []struct {
		name, line string
		want       []string // the last digit of the rules
	}{
		{"winlogbeat, Sysmon", `{"event.dataset":"windows.json","log.logger":"Microsoft-Windows-Sysmon/Operational","event.code":"1","event_data.Image":"C:\\evil.exe","event_data.ParentImage":"C:\\winword.exe"}`, []string{"1"}},
		{"NXLog, Security", `{"event.dataset":"windows.json","log.logger":"Security","event.code":"4688","NewProcessName":"C:\\evil.exe","ParentProcessName":"C:\\WINWORD.exe"}`, []string{"1"}},
		{"ECS alone", `{"event.dataset":"windows.text","event.code":"4688","process.executable":"C:\\evil.exe","process.parent.executable":"C:\\winword.exe"}`, []string{"1"}},
		{"the native name counts before ECS's", `{"event.dataset":"windows.json","log.logger":"Security","event.code":"4688","NewProcessName":"C:\\good.exe","process.executable":"C:\\evil.exe","ParentProcessName":"C:\\winword.exe"}`, nil},
		{"another event of Windows", `{"event.dataset":"windows.json","log.logger":"Security","event.code":"4689","NewProcessName":"C:\\evil.exe","ParentProcessName":"C:\\winword.exe"}`, nil},
		{"host and path put together", `{"event.dataset":"squid.access","event.category":"web","url.domain":"bad.example","url.original":"/drop","http.request.method":"GET"}`, []string{"2"}},
		{"the whole address", `{"event.dataset":"squid.access","event.category":"web","url.full":"http://bad.example/drop","http.request.method":"GET"}`, []string{"2"}},
		{"below a name", `{"event.dataset":"o365.audit","Operation":"New-InboxRule","Parameters.ForwardTo":"x@example.net"}`, []string{"3"}},
		{"another name below it", `{"event.dataset":"o365.audit","Operation":"New-InboxRule","Parameters.Name":"x"}`, nil},
		{"a value where there is none", `{"event.dataset":"o365.audit","Workload":"SecurityComplianceCenter","Name":"Impossible travel activity"}`, []string{"4"}},
		{"and not where there is one", `{"event.dataset":"o365.audit","Workload":"SecurityComplianceCenter","Name":"Impossible travel activity","event.outcome":"failure"}`, nil},
		{"a value under another word", `{"event.dataset":"cisco.asa","event.category":"network","destination.port":23,"tocsin.verdict":"allow"}`, []string{"5"}},
		{"its opposite", `{"event.dataset":"cisco.asa","event.category":"network","destination.port":23,"tocsin.verdict":"deny"}`, nil},
	} {
		for range 2 { // what the event before left behind must not count
			if err := event.DecodeJSON(&ev, []byte(c.line)); err != nil {
				t.Fatal(c.name, err)
			}
			ev.Tenant, ev.Created = 1, start
			g := e.reading(&ev)
			e.fill(&ev, g)
			var got []string
			for _, i := range e.match.Match(g.set, &e.rec, nil) {
				if id := e.rules.Rules[i].ID; id != DailyRule {
					got = append(got, id[len(id)-1:])
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
}

// What lies below a name is found too when it gets a key, from a question to the history or a set that is refused, after the first event was read.
func TestKeysComeLater(t *testing.T) {
	e := namingEngine(t)
	const name = "Parameters.ForwardToKeyOfLater"
	for _, when := range []string{"before", "after"} {
		var ev event.Event
		if err := event.DecodeJSON(&ev, []byte(`{"event.dataset":"o365.audit","Operation":"New-InboxRule","`+name+`":"x@example.net"}`)); err != nil {
			t.Fatal(err)
		}
		g := e.reading(&ev)
		e.fill(&ev, g)
		if n := len(e.match.Match(g.set, &e.rec, nil)); n != 1 {
			t.Errorf("%s it has a key: %d rules match", when, n)
		}
		if _, err := event.Register(name); err != nil {
			t.Fatal(err)
		}
	}
}

// Putting an event under the names of rules makes no garbage.
func TestFillAllocates(t *testing.T) {
	e := namingEngine(t)
	var ev event.Event
	for _, line := range []string{
		`{"event.dataset":"windows.json","log.logger":"Security","event.code":"4688","event_data.NewProcessName":"C:\\evil.exe","process.parent.executable":"C:\\x.exe"}`,
		`{"event.dataset":"squid.access","event.category":"web","url.domain":"bad.example","url.original":"/drop","http.request.method":"GET"}`,
		`{"event.dataset":"o365.audit","Operation":"New-InboxRule","Parameters.ForwardTo":"x@example.net"}`,
	} {
		if err := event.DecodeJSON(&ev, []byte(line)); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { e.fill(&ev, e.reading(&ev)) }); n != 0 {
			t.Errorf("%v allocations: %s", n, line)
		}
	}
}

// Detection health judges by the same names: a rule can fire on a source that has its fields under any of them.
func TestJudgeByNames(t *testing.T) {
	e := namingEngine(t)
	can := func(s Sight) (out []string) {
		for _, v := range e.cat.Judge(s) {
			if v.Can {
				out = append(out, v.ID[len(v.ID)-1:])
			}
		}
		return out
	}
	has := func(names ...string) func(string) bool {
		return func(n string) bool { return slices.Contains(names, n) }
	}
	for _, c := range []struct {
		name  string
		sight Sight
		want  []string
	}{
		{"Windows, both fields", Sight{Dataset: "windows.json", Has: has("event_data.NewProcessName", "process.parent.executable")}, []string{"1"}},
		{"Windows, one of them", Sight{Dataset: "windows.json", Has: has("event_data.NewProcessName")}, nil},
		{"a proxy", Sight{Dataset: "squid.access", Categories: []string{"web"}, Has: has("url.original", "http.request.method")}, []string{"2"}},
		{"Microsoft 365", Sight{Dataset: "o365.audit", Has: has("event.action", "Parameters", "event.provider", "event.outcome")}, []string{"3", "4"}},
		{"a firewall", Sight{Dataset: "cisco.asa", Categories: []string{"network"}, Has: has("destination.port", "tocsin.verdict")}, []string{"5"}},
		{"another source", Sight{Dataset: "okta.system", Has: func(string) bool { return true }}, nil},
	} {
		if got := can(c.sight); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
