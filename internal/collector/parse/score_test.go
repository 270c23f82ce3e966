package parse

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"tocsin/internal/event"
)

var showMisses = flag.String("misses", "", "print the misses of the files whose name contains this")

// sharedLogs is the folder of samples beside the repository; tests that need it are skipped where it is absent.
func sharedLogs(t testing.TB) string {
	t.Helper()
	dir := filepath.Join("..", "..", "..", "..", "shared", "data", "logs")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no folder of shared samples at %s: scores are not measured here", dir)
	}
	return dir
}

// lines splits a file at line ends.
func readLines(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.TrimSuffix(b, []byte("\n"))
	return bytes.Split(b, []byte("\n"))
}

// comparable brings a value to the form in which two answers are compared (see docs/parsers.md).
func comparable(field, v string) string {
	v = strings.TrimSpace(v)
	switch {
	case strings.HasSuffix(field, ".ip"):
		if a, err := netip.ParseAddr(v); err == nil {
			return a.WithZone("").Unmap().String()
		}
		return v
	case field == "network.transport":
		if t := transportName(v); t != "" {
			return t
		}
		return strings.ToLower(v)
	case field == "event.action":
		switch verdictOf(v) {
		case allow:
			return "allow"
		case deny:
			return "deny"
		case detect:
			return "detect"
		}
		return strings.ToLower(v)
	case field == "user.name":
		v = strings.ToLower(v)
		if i := strings.LastIndexByte(v, '\\'); i >= 0 {
			v = v[i+1:]
		}
		if i := strings.IndexByte(v, '@'); i > 0 {
			v = v[:i]
		}
		return v
	}
	return v
}

type tally struct{ expected, got, hit, wrong int }

// score is one file of samples: what was expected of it and what came.
type score struct {
	name       string
	lines      int
	format     map[string]int
	fields     map[string]*tally
	expected   int
	hit        int
	wrong      int
	understood int
}

// scoreFile parses one file of samples and compares it with what is expected. An answer that differs from what is expected is
// wrong only when the line does not hold it either.
func scoreFile(t *testing.T, s *Set, dir, base string) *score {
	lines := readLines(t, filepath.Join(dir, base+".log"))
	want := readLines(t, filepath.Join(dir, base+".expected.ndjson"))
	r := &score{name: base, lines: len(lines), format: map[string]int{}, fields: map[string]*tally{}}
	if len(lines) != len(want) {
		t.Errorf("%s: %d lines, %d expectations", base, len(lines), len(want))
		return r
	}
	var e event.Event
	for i, line := range lines {
		var exp map[string]any
		if err := json.Unmarshal(want[i], &exp); err != nil {
			t.Errorf("%s:%d: %v", base, i+1, err)
			continue
		}
		format, ok, out := oneLine(s, &e, line)
		r.format[format]++
		if ok {
			r.understood++
		}
		var got map[string]any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s:%d: %v: %s", base, i+1, err, out)
		}
		for f, v := range exp {
			if f == "sc4s.sourcetype" {
				continue
			}
			w := comparable(f, fmt.Sprint(v))
			if w == "" {
				continue
			}
			x := r.fields[f]
			if x == nil {
				x = &tally{}
				r.fields[f] = x
			}
			x.expected++
			r.expected++
			g, have := got[f]
			if f == "event.action" && have && comparable(f, fmt.Sprint(g)) != w {
				if v, ok := got["tocsin.verdict"]; ok {
					g = v
				}
			}
			if !have {
				if *showMisses != "" && strings.Contains(base, *showMisses) {
					t.Logf("%s:%d [%s] %s: want %v, got nothing\n  %.400s", base, i+1, format, f, v, line)
				}
				continue
			}
			x.got++
			if comparable(f, fmt.Sprint(g)) == w {
				x.hit++
				r.hit++
				continue
			}
			if !bytes.Contains(line, []byte(fmt.Sprint(g))) {
				x.wrong++
				r.wrong++
			}
			if *showMisses != "" && strings.Contains(base, *showMisses) {
				t.Logf("%s:%d [%s] %s: want %v, got %v\n  %.400s", base, i+1, format, f, v, g, line)
			}
		}
	}
	return r
}

// atLeast is what the files of the collector's own formats must reach, as a share of their expected values.
var atLeast = map[string]float64{
	"pf-logs": 1, "sshd-logs": 1, "sshd-invalid-bf": 1, "suricata-logs-evelog": 1, "unifi-cef": 1, "draytek": 1, "zyxel": 0.94, "smoothwall": 1,
	"mikrotik-logs": 1, "iptables-logs": 0.88, // two of its lines have no prefix, so no action can be read from them
}

// fieldsAtLeast is what all files together must reach.
var fieldsAtLeast = map[string]float64{
	"source.ip": 0.73, "source.port": 0.87, "destination.ip": 0.60, "destination.port": 0.60, "event.outcome": 0.70, "user.name": 0.66, "event.action": 0.74,
}

// TestScore measures every file with expected values and holds the level reached. With -scores FILE it rewrites the table in
// that document.
func TestScore(t *testing.T) {
	dir := sharedLogs(t)
	s := testSet(t)
	total := map[string]*tally{}
	var rows []*score
	for _, folder := range []string{"constructed", "crowdsec"} {
		files, _ := filepath.Glob(filepath.Join(dir, folder, "*.expected.ndjson"))
		for _, f := range files {
			r := scoreFile(t, s, filepath.Join(dir, folder), strings.TrimSuffix(filepath.Base(f), ".expected.ndjson"))
			rows = append(rows, r)
			for k, x := range r.fields {
				if total[k] == nil {
					total[k] = &tally{}
				}
				total[k].expected += x.expected
				total[k].got += x.got
				total[k].hit += x.hit
				total[k].wrong += x.wrong
			}
			if min, ok := atLeast[r.name]; ok && float64(r.hit) < min*float64(r.expected) {
				t.Errorf("%s: %d of %d values right, want %.0f %%", r.name, r.hit, r.expected, 100*min)
			}
			if testing.Verbose() && r.expected > r.hit {
				t.Logf("%-36s %d of %d", r.name, r.hit, r.expected)
			}
		}
	}
	var keys []string
	for k := range total {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	wrong, answered := 0, 0
	for _, k := range keys {
		x := total[k]
		wrong += x.wrong
		answered += x.got
		recall := float64(x.hit) / float64(x.expected)
		t.Logf("%-20s recall %.3f (%d of %d), answered %d, not in the line %d", k, recall, x.hit, x.expected, x.got, x.wrong)
		if recall < fieldsAtLeast[k] {
			t.Errorf("%s: recall %.3f, was %.2f", k, recall, fieldsAtLeast[k])
		}
	}
	if 200*wrong > answered {
		t.Errorf("%d of %d values are neither expected nor in their line, want under 0.5 %%", wrong, answered)
	}
	if *scores != "" {
		writeScores(t, rows, keys, total)
	}
}

var scores = flag.String("scores", "", "rewrite the score table of this document")

// writeScores puts the table between the marks of the document.
func writeScores(t *testing.T, rows []*score, keys []string, total map[string]*tally) {
	doc, err := os.ReadFile(*scores)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- scores -->\n", "<!-- end of scores -->\n"
	i, j := bytes.Index(doc, []byte(begin)), bytes.Index(doc, []byte(end))
	if i < 0 || j < i {
		t.Fatalf("%s has no marks for the scores", *scores)
	}
	var b bytes.Buffer
	b.Write(doc[:i+len(begin)])
	b.WriteString("\n| field | expected | right | share | answered with something not in the line |\n|---|---|---|---|---|\n")
	for _, k := range keys {
		x := total[k]
		fmt.Fprintf(&b, "| %s | %d | %d | %.0f %% | %d |\n", k, x.expected, x.hit, 100*float64(x.hit)/float64(x.expected), x.wrong)
	}
	b.WriteString("\n| samples | lines | read as | values expected | right | fields missed |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		var as, missed []string
		for f := range r.format {
			if f == "" {
				f = "not understood"
			}
			as = append(as, f)
		}
		sort.Strings(as)
		for f, x := range r.fields {
			if x.hit < x.expected {
				missed = append(missed, fmt.Sprintf("%s %d of %d", f, x.hit, x.expected))
			}
		}
		sort.Strings(missed)
		fmt.Fprintf(&b, "| %s | %d | %s | %d | %d | %s |\n", r.name, r.lines, strings.Join(as, ", "), r.expected, r.hit, strings.Join(missed, ", "))
	}
	b.WriteString("\n")
	b.Write(doc[j:])
	if err := os.WriteFile(*scores, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRecognised reads every sample line of the other folders: nothing may fail, and the share that some parser understands must hold.
func TestRecognised(t *testing.T) {
	dir := sharedLogs(t)
	s := testSet(t)
	var e event.Event
	lines, known := 0, 0
	files, _ := filepath.Glob(filepath.Join(dir, "sc4s", "*.log"))
	for _, f := range files {
		for i, line := range readLines(t, f) {
			format, ok, json := oneLine(s, &e, line)
			checkDerived(t, &e, line)
			lines++
			if ok {
				known++
			}
			if *showMisses != "" && strings.Contains(f, *showMisses) {
				t.Logf("%s:%d [%s]\n  %.600s\n  %s", filepath.Base(f), i+1, format, line, json)
			}
		}
	}
	t.Logf("%d of %d lines of about 138 products understood", known, lines)
	if float64(known) < 0.50*float64(lines) {
		t.Errorf("%d of %d lines understood, want half", known, lines)
	}
}

// TestEVESamples checks that the signature of every Suricata sample is found.
func TestEVESamples(t *testing.T) {
	dir := sharedLogs(t)
	s := testSet(t)
	var e event.Event
	n := 0
	files, _ := filepath.Glob(filepath.Join(dir, "suricata_eve", "*.ndjson"))
	for _, f := range files {
		for i, line := range readLines(t, f) {
			var want struct {
				Src   string `json:"src_ip"`
				Port  int64  `json:"src_port"`
				Alert struct {
					Signature string
					ID        int64 `json:"signature_id"`
				}
			}
			if err := json.Unmarshal(line, &want); err != nil {
				t.Fatalf("%s:%d: %v", f, i+1, err)
			}
			oneLine(s, &e, line)
			src, _ := e.IP(event.SourceIP)
			port, _ := e.Int(event.SourcePort)
			if e.Str(event.RuleName) != want.Alert.Signature || e.Str(event.RuleID) != fmt.Sprint(want.Alert.ID) || src.String() != want.Src || port != want.Port {
				t.Errorf("%s:%d: got %q %s %s:%d, want %q %d %s:%d", f, i+1, e.Str(event.RuleName), e.Str(event.RuleID), src, port, want.Alert.Signature, want.Alert.ID, want.Src, want.Port)
			}
			n++
		}
	}
	t.Logf("%d alerts", n)
}
