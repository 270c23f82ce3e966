package parse

import (
	"bufio"
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

type tally struct{ expected, got, hit int }

// scoreFile parses one file of samples and compares it with what is expected.
func scoreFile(t *testing.T, s *Set, dir, base string, per map[string]*tally) {
	lines := readLines(t, filepath.Join(dir, base+".log"))
	want := readLines(t, filepath.Join(dir, base+".expected.ndjson"))
	if len(lines) != len(want) {
		t.Errorf("%s: %d lines, %d expectations", base, len(lines), len(want))
		return
	}
	var e event.Event
	for i, line := range lines {
		var exp map[string]any
		if err := json.Unmarshal(want[i], &exp); err != nil {
			t.Errorf("%s:%d: %v", base, i+1, err)
			continue
		}
		e.Reset()
		e.SetRaw(line)
		format, _ := s.Parse(&e, "")
		var got map[string]any
		out := e.AppendJSON(nil)
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%s:%d: %v: %s", base, i+1, err, out)
		}
		for f, v := range exp {
			if f == "sc4s.sourcetype" {
				continue
			}
			x := per[f]
			if x == nil {
				x = &tally{}
				per[f] = x
			}
			w := comparable(f, fmt.Sprint(v))
			if w == "" {
				continue
			}
			x.expected++
			g, have := got[f]
			if f == "event.action" && have && comparable(f, fmt.Sprint(g)) != w {
				if v, ok := got["tocsin.verdict"]; ok {
					g = v
				}
			}
			if have {
				x.got++
			}
			if have && comparable(f, fmt.Sprint(g)) == w {
				x.hit++
			} else if *showMisses != "" && strings.Contains(base, *showMisses) {
				t.Logf("%s:%d [%s] %s: want %v got %v\n  %.400s", base, i+1, format, f, v, g, line)
			}
		}
	}
}

// TestScore measures every file with expected values and holds the level reached.
func TestScore(t *testing.T) {
	dir := sharedLogs(t)
	s := New(Options{})
	total := map[string]*tally{}
	type row struct {
		name     string
		exp, hit int
	}
	var rows []row
	for _, folder := range []string{"crowdsec", "constructed"} {
		files, _ := filepath.Glob(filepath.Join(dir, folder, "*.expected.ndjson"))
		for _, f := range files {
			per := map[string]*tally{}
			base := strings.TrimSuffix(filepath.Base(f), ".expected.ndjson")
			scoreFile(t, s, filepath.Join(dir, folder), base, per)
			r := row{name: base}
			for k, x := range per {
				r.exp += x.expected
				r.hit += x.hit
				if total[k] == nil {
					total[k] = &tally{}
				}
				total[k].expected += x.expected
				total[k].got += x.got
				total[k].hit += x.hit
			}
			rows = append(rows, r)
		}
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].exp-rows[i].hit > rows[j].exp-rows[j].hit })
	for _, r := range rows {
		if r.exp > r.hit && testing.Verbose() {
			t.Logf("%-36s %d of %d", r.name, r.hit, r.exp)
		}
	}
	var keys []string
	for k := range total {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		x := total[k]
		t.Logf("%-20s recall %.3f (%d of %d), answered %d", k, float64(x.hit)/float64(x.expected), x.hit, x.expected, x.got)
	}
}

// TestFormats prints how the lines of products without expected values are recognised.
func TestFormats(t *testing.T) {
	dir := sharedLogs(t)
	if *showMisses == "" {
		t.Skip("only with -misses")
	}
	s := New(Options{})
	files, _ := filepath.Glob(filepath.Join(dir, "*", "*.log"))
	var e event.Event
	for _, f := range files {
		if !strings.Contains(f, *showMisses) {
			continue
		}
		w := bufio.NewScanner(bytes.NewReader(nil))
		_ = w
		for i, line := range readLines(t, f) {
			e.Reset()
			e.SetRaw(line)
			format, _ := s.Parse(&e, "")
			t.Logf("%s:%d [%s]\n  %.600s\n  %s", filepath.Base(f), i+1, format, line, e.AppendJSON(nil))
		}
	}
}
