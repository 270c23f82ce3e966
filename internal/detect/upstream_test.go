package detect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
	"tocsin/sigma"
)

// shared is the folder of the data that all parts of the project share; it is not in the tree.
func shared(t testing.TB, path ...string) string {
	dir := filepath.Join(append([]string{"..", "..", "..", "shared", "data"}, path...)...)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("NOT TESTED: the shared data is absent (%v)", err)
	}
	return dir
}

// upstream are SigmaHQ's rules at the hub, and the same as they would be used straight on a source's own events.
type upstreamRules struct {
	hub   *Engine
	plain *sigma.Engine
	names *sigma.Names
	rules map[string]*sigma.Rule
}

var loadUpstream sync.Once
var theUpstream *upstreamRules

func upstream(t testing.TB) *upstreamRules {
	dir := shared(t, "sigma", "rules")
	loadUpstream.Do(func() {
		cat, err := LoadAll([]Source{{FS: os.DirFS(dir), Upstream: true}})
		if err != nil {
			t.Fatal(err)
		}
		u := &upstreamRules{names: &sigma.Names{}, rules: map[string]*sigma.Rule{}}
		if u.hub, err = New(Options{Catalogue: cat, Where: Hub}); err != nil {
			t.Fatal(err)
		}
		if u.plain, err = sigma.Compile(&sigma.Collection{Rules: cat.coll.Rules}, sigma.Options{Schema: u.names}); err != nil {
			t.Fatal(err)
		}
		for _, r := range u.plain.Rules {
			u.rules[r.ID] = r
		}
		theUpstream = u
	})
	if theUpstream == nil {
		t.Fatal("the rules could not be loaded")
	}
	return theUpstream
}

// way is a line's way from a collector to the rules of the hub: parser, policy, the form in which events travel, the rules.
type way struct {
	set  *parse.Set
	min  *minimise.Minimiser
	u    *upstreamRules
	json []byte
	out  event.Event
}

func newWay(t testing.TB, policy string) *way {
	p, err := minimise.Load(policy)
	if err != nil {
		t.Fatal(err)
	}
	m, err := minimise.New(minimise.Options{Policy: p, OldestDeviceTime: 100 * 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return &way{set: parse.New(parse.Options{Location: time.UTC, Now: func() time.Time { return time.Unix(0, start) }}), min: m, u: upstream(t)}
}

// rules gives the ids of the rules that match a line at the hub, in order, and what the hub got.
func (w *way) rules(t testing.TB, line []byte) (ids []string, at *event.Event) {
	t.Helper()
	var e, less event.Event
	e.SetRaw(line)
	e.Created = start
	if _, ok := w.set.Parse(&e, ""); !ok {
		return nil, &e
	}
	w.min.Prepare(&e, minimise.Sender{})
	if !w.min.Decide(&e).Leave {
		return nil, &e
	}
	w.min.Reduce(&less, &e)
	w.json = less.AppendJSON(w.json[:0])
	if err := event.DecodeJSON(&w.out, w.json); err != nil {
		t.Fatalf("%v: %s", err, w.json)
	}
	w.out.Tenant = 1
	h := w.u.hub
	g := h.reading(&w.out)
	h.fill(&w.out, g)
	h.ids = h.match.Match(g.set, &h.rec, h.ids[:0])
	for _, i := range h.ids {
		ids = append(ids, h.rules.Rules[i].ID)
	}
	slices.Sort(ids)
	return ids, &w.out
}

func eachLine(t testing.TB, file string, do func(n int, line []byte)) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 64<<20)
	n := 0
	for ; s.Scan(); n++ {
		if len(bytes.TrimSpace(s.Bytes())) > 0 {
			do(n, s.Bytes())
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
}

// windowsCase is an event of the conformance data, in Sigma's names, and the rules that must match it.
type windowsCase struct {
	where string
	event map[string]any
	want  []string
}

func windowsCases(t testing.TB) (out []windowsCase) {
	dir := shared(t, "sigma")
	lines := map[string][][]byte{}
	for _, o := range []string{"otrf_windows", "regression"} {
		eachLine(t, filepath.Join(dir, "oracle", o+".expected.jsonl"), func(_ int, b []byte) {
			var x struct {
				EventFile string `json:"event_file"`
				Line      int
				Rules     []string
			}
			if err := json.Unmarshal(b, &x); err != nil {
				t.Fatal(err)
			}
			if lines[x.EventFile] == nil {
				eachLine(t, filepath.Join(dir, x.EventFile), func(_ int, b []byte) { lines[x.EventFile] = append(lines[x.EventFile], bytes.Clone(b)) })
			}
			d := json.NewDecoder(bytes.NewReader(lines[x.EventFile][x.Line]))
			d.UseNumber()
			c := windowsCase{where: fmt.Sprintf("%s:%d", x.EventFile, x.Line), want: x.Rules}
			if err := d.Decode(&c.event); err != nil {
				t.Fatal(err)
			}
			slices.Sort(c.want)
			out = append(out, c)
		})
	}
	return out
}

// system are the names of a Windows event that stand outside its EventData.
var system = []string{"Channel", "Computer", "EventID", "EventRecordID", "Execution_ProcessID", "Execution_ThreadID", "Keywords", "Level", "Opcode", "Provider_Guid", "Provider_Name", "Security_UserID",
	"Task", "TimeCreated_SystemTime", "Version", "Correlation_ActivityID", "Provider_EventSourceName", "EventID_Qualifiers", "@timestamp", "@version", "Hostname", "EventTime", "EventReceivedTime", "SourceName",
	"ProviderGuid", "host", "port", "tags", "SourceModuleName", "SourceModuleType", "RecordNumber", "ThreadID", "OpcodeValue", "SeverityValue", "Severity", "Category", "Correlation_RelatedActivityID"}

func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, text(x))
		}
		return strings.Join(parts, "\n")
	case map[string]any:
		b, _ := json.Marshal(v)
		return string(b)
	}
	return fmt.Sprint(v)
}

// forms are how programs send Windows events: each makes a line of an event in Sigma's names. The values are the event's, the form is constructed.
var forms = map[string]func(map[string]any) []byte{
	"nxlog": func(e map[string]any) []byte {
		e = maps.Clone(e)
		if e["SourceName"] == nil {
			e["SourceName"] = e["Provider_Name"]
		}
		delete(e, "Provider_Name")
		for _, k := range []string{"Execution_ProcessID", "Execution_ThreadID", "Provider_Guid", "Security_UserID", "TimeCreated_SystemTime", "Correlation_ActivityID"} {
			delete(e, k)
		}
		e["SourceModuleName"] = "in"
		return marshal(e)
	},
	"winlogbeat": func(e map[string]any) []byte {
		data := map[string]any{}
		for k, v := range e {
			if !slices.Contains(system, k) {
				if l, ok := v.([]any); ok && k == "Data" {
					for i, x := range l {
						data[fmt.Sprintf("param%d", i+1)] = text(x)
					}
					continue
				}
				if k == "Data" {
					k = "param1"
				}
				data[k] = text(v)
			}
		}
		return marshal(map[string]any{"@timestamp": "2026-11-10T10:00:00.000Z", "event": map[string]any{"code": text(e["EventID"]), "kind": "event", "provider": e["Provider_Name"]}, "host": map[string]any{"name": "pc1"},
			"log": map[string]any{"level": "information"}, "winlog": map[string]any{"api": "wineventlog", "channel": e["Channel"], "provider_name": e["Provider_Name"], "event_id": text(e["EventID"]),
				"computer_name": text(e["Computer"]) + text(e["Hostname"]), "level": text(e["Level"]), "event_data": data}})
	},
	"xml": func(e map[string]any) []byte {
		var b strings.Builder
		esc := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\"", "&quot;", "\r", "&#xD;", "\n", "&#xA;", "\t", "&#x9;").Replace
		fmt.Fprintf(&b, "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><Provider Name='%s' Guid='{0}'/><EventID>%s</EventID><Version>0</Version><Level>%s</Level><TimeCreated SystemTime='2026-11-10T10:00:00.000000000Z'/><Channel>%s</Channel><Computer>%s</Computer></System><EventData>",
			esc(text(e["Provider_Name"])), text(e["EventID"]), text(e["Level"]), esc(text(e["Channel"])), esc(text(e["Computer"])+text(e["Hostname"])))
		for _, k := range slices.Sorted(maps.Keys(e)) {
			if slices.Contains(system, k) {
				continue
			}
			if k == "Data" {
				l, ok := e[k].([]any)
				if !ok {
					l = []any{e[k]}
				}
				for _, x := range l {
					fmt.Fprintf(&b, "<Data>%s</Data>", esc(text(x)))
				}
				continue
			}
			fmt.Fprintf(&b, "<Data Name='%s'>%s</Data>", k, esc(text(e[k])))
		}
		b.WriteString("</EventData></Event>")
		return []byte(b.String())
	},
}

func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// TestWindowsOnTheWay: the events of the conformance data reach the hub through a collector in the forms that programs send them in, and match there
// the rules that they match where they are.
func TestWindowsOnTheWay(t *testing.T) {
	w := newWay(t, "full")
	cases := windowsCases(t)
	for _, form := range slices.Sorted(maps.Keys(forms)) {
		t.Run(form, func(t *testing.T) {
			both, missing, extra, rules := 0, map[string]int{}, map[string]int{}, map[string]bool{}
			example := map[string]string{}
			for _, c := range cases {
				got, at := w.rules(t, forms[form](c.event))
				for _, id := range c.want {
					if slices.Contains(got, id) {
						both++
						rules[id] = true
					} else {
						missing[id]++
						example[id] = c.where + " " + string(at.AppendJSON(nil))
					}
				}
				for _, id := range got {
					if !slices.Contains(c.want, id) {
						extra[id]++
						example[id] = c.where + " " + string(at.AppendJSON(nil))
					}
				}
			}
			t.Logf("%d events: %d matches of %d rules as in the oracle; missing %d rules, extra %d rules", len(cases), both, len(rules), len(missing), len(extra))
			for _, m := range []map[string]int{missing, extra} {
				for id, n := range m {
					t.Errorf("%s %q: %d times, missing is %t: %.1500s", id, w.u.rules[id].Title, n, missing[id] > 0, example[id])
				}
			}
		})
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// ruleTexts are the files of upstream's rules by the name that a rule has as its file.
func ruleTexts(t testing.TB) map[string][]byte {
	dir := shared(t, "sigma", "rules")
	out := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".yml" {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[filepath.ToSlash(rel)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// clouds are the folders' files of real and near-real cloud events and the log sources that they are of. Where upstream's rules use other names than the
// source does, what fires straight on an event says nothing: mapped says so.
var clouds = []struct {
	file   string
	source []sigma.LogSource
	mapped bool
}{ // (the events are those of detection tests: some have too little in them for a parser to know them)
	{"AWS_CloudTrail", []sigma.LogSource{{Product: "aws", Service: "cloudtrail"}}, false},
	{"Azure_Audit", []sigma.LogSource{{Product: "azure", Service: "auditlogs"}, {Product: "azure", Service: "signinlogs"}, {Product: "azure", Service: "riskdetection"}, {Product: "azure", Service: "activitylogs"}, {Product: "azure", Service: "pim"}}, true},
	{"Azure_MonitorActivity", []sigma.LogSource{{Product: "azure", Service: "activitylogs"}}, true},
	{"GCP_AuditLog", []sigma.LogSource{{Product: "gcp", Service: "gcp.audit"}}, true},
	{"GSuite_ActivityEvent", []sigma.LogSource{{Product: "gcp", Service: "google_workspace.admin"}, {Product: "gcp", Service: "google_workspace.login"}}, true},
	{"GitHub_Audit", []sigma.LogSource{{Product: "github", Service: "audit"}}, false},
	{"Okta_SystemLog", []sigma.LogSource{{Product: "okta", Service: "okta"}}, false},
	{"OneLogin_Events", []sigma.LogSource{{Product: "onelogin", Service: "onelogin.events"}}, false},
	{"Amazon_EKS_Audit", []sigma.LogSource{{Product: "kubernetes", Service: "audit"}, {Product: "kubernetes", Category: "application", Service: "audit"}}, false},
	{"Microsoft365_Audit_AzureActiveDirectory", []sigma.LogSource{{Product: "m365", Service: "audit"}}, true},
	{"Microsoft365_Audit_Exchange", []sigma.LogSource{{Product: "m365", Service: "audit"}}, true},
}

// reads says whether an event at the hub is read as one of a log source.
func (w *way) reads(ev *event.Event, l sigma.LogSource) bool {
	return slices.ContainsFunc(w.u.hub.finer.routeOf(ev).sources(), func(s sigma.Source) bool { return s.Product == l.Product && s.Service == l.Service })
}

// TestCloudsOnTheWay compares, for events of clouds, what upstream's rules find in the event itself with what they find at the hub.
func TestCloudsOnTheWay(t *testing.T) {
	w := newWay(t, "full")
	u := w.u
	dec := &sigma.Decoder{Names: u.names}
	var rec sigma.Record
	var m sigma.Matcher
	for _, c := range clouds {
		var sources []sigma.Source
		for _, s := range c.source {
			sources = append(sources, sigma.Source{LogSource: s})
		}
		set := u.plain.Set(sources...)
		ofSource := map[string]bool{}
		for _, i := range set.Rules() {
			ofSource[u.plain.Rules[i].ID] = true
		}
		events, both, more, unread, missing := 0, 0, 0, 0, 0
		differ := map[string]string{}
		eachLine(t, filepath.Join(shared(t, "logs", "panther"), c.file+".ndjson"), func(_ int, line []byte) {
			var x struct{ Event json.RawMessage }
			if err := json.Unmarshal(line, &x); err != nil || len(x.Event) == 0 {
				return
			}
			events++
			if err := dec.Decode(&rec, x.Event); err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, i := range m.Match(set, &rec, nil) {
				want = append(want, u.plain.Rules[i].ID)
			}
			got, at := w.rules(t, x.Event)
			got = slices.DeleteFunc(got, func(id string) bool { return !ofSource[id] })
			for _, id := range want {
				if slices.Contains(got, id) {
					both++
				} else if at.Str(event.EventDataset) == "json.generic" || len(c.source) > 1 && !w.reads(at, u.rules[id].LogSource) {
					unread++ // or of another of the file's log sources
				} else {
					missing++
					differ[id] = string(at.AppendJSON(nil))
				}
			}
			for _, id := range got {
				if !slices.Contains(want, id) { // under a name that upstream's rule does not know the source's by
					more++
				}
			}
		})
		t.Logf("%s: %d events, %d matches in both, %d at the hub alone, %d missing, %d in events that no parser of the source knows, or of another log source", c.file, events, both, more, missing, unread)
		for id, at := range differ {
			t.Logf("%s: missing %s %q (%s): %.1200s", c.file, id, u.rules[id].Title, u.rules[id].File, at)
		}
		most := both/20 + 2
		if c.mapped {
			most += 3
		}
		if missing > most {
			t.Errorf("%s: %d matches are missing at the hub", c.file, missing)
		}
	}
}
