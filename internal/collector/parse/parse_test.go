package parse

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

var update = flag.Bool("update", false, "rewrite the expected events of testdata")

// received is the receipt time of all test lines, so that years are guessed alike for ever.
var received = time.Date(2026, 11, 12, 9, 0, 0, 0, time.UTC)

func testSet(t testing.TB) *Set {
	t.Helper()
	loc, err := time.LoadLocation("Europe/London")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{Location: loc, Now: func() time.Time { return received }})
	s.rethrow = true
	return s
}

// sample is one file of lines with what is expected of them. Its folder is named for the format that must understand them.
type sample struct{ format, input, expected string }

// samples gives the files *input.log of all packs and of testdata.
func samples(t testing.TB) []sample {
	t.Helper()
	var out []sample
	for _, root := range []string{"packs", "testdata"} {
		files, err := filepath.Glob(filepath.Join(root, "*", "*input.log"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no samples in %s: %v", root, err)
		}
		for _, f := range files {
			out = append(out, sample{filepath.Base(filepath.Dir(f)), f, strings.TrimSuffix(f, "input.log") + "expected.ndjson"})
		}
	}
	return out
}

// oneLine parses one line as tocsin parse does.
func oneLine(s *Set, e *event.Event, line []byte) (format string, ok bool, json []byte) {
	e.Reset()
	e.SetRaw(line)
	format, ok = s.Parse(e, "")
	if e.Len() == 0 {
		e.Time = 0
	}
	return format, ok, e.AppendJSON(nil)
}

// TestPacks compares every line of every sample with the event expected of it, and checks that the format of the folder's name
// understood it. -update writes the expectations anew.
func TestPacks(t *testing.T) {
	s := testSet(t)
	for _, sample := range samples(t) {
		t.Run(sample.format, func(t *testing.T) {
			lines := readLines(t, sample.input)
			var out bytes.Buffer
			var e event.Event
			for i, line := range lines {
				format, _, json := oneLine(s, &e, line)
				out.Write(json)
				out.WriteByte('\n')
				if sample.format != "unknown" && format != sample.format && !(common[sample.format] && packs.Builtin().Pack(format) != nil) {
					t.Errorf("line %d: read as %q: %.200s", i+1, format, line)
				}
				if sample.format == "unknown" && string(json) != "{}" {
					t.Errorf("line %d: want {}, got %s: %.200s", i+1, json, line)
				}
			}
			if *update {
				if err := os.WriteFile(sample.expected, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := readLines(t, sample.expected)
			got := bytes.Split(bytes.TrimSuffix(out.Bytes(), []byte("\n")), []byte("\n"))
			if len(got) != len(want) {
				t.Fatalf("%d events, want %d", len(got), len(want))
			}
			for i := range got {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("line %d: %.300s\n got %s\nwant %s", i+1, lines[i], got[i], want[i])
				}
			}
		})
	}
}

// common are forms that many products share: a line may be read by the pack of its product.
var common = map[string]bool{"cef": true, "leef": true, "json": true, "kv": true, "text": true, "web": true}

// TestPackFolders checks that every product's folder has what it must: a description, samples with expectations, where they come from,
// and the device's settings.
func TestPackFolders(t *testing.T) {
	dirs, err := os.ReadDir("packs")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if !d.IsDir() || d.Name() == "testdata" {
			continue
		}
		dir := filepath.Join("packs", d.Name())
		for _, name := range []string{"parser.yaml", "README.md", "SOURCES.tsv", "input.log", "expected.ndjson"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %s is missing or empty", dir, name)
			}
		}
	}
	for _, f := range formats {
		if p := packs.Builtin().Pack(f.name); f.name != "text" && (p == nil || p.Code != f.name) {
			t.Errorf("the parser %s has no folder in packs with code: %s", f.name, f.name)
		}
	}
	for _, p := range packs.Builtin().Packs() {
		if p.Code != "" && !slices.ContainsFunc(formats, func(f format) bool { return f.name == p.Code }) {
			t.Errorf("packs/%s says code: %s, and there is no such parser", p.Name, p.Code)
		}
	}
}

// TestSources checks that each folder of samples names where every file comes from.
func TestSources(t *testing.T) {
	for _, root := range []string{"packs", "testdata"} {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			name := filepath.Base(path)
			ext := filepath.Ext(path)
			if err != nil || d.IsDir() || ext != ".log" && ext != ".ndjson" || strings.HasPrefix(path, filepath.Join("testdata", "fuzz")) {
				return err
			}
			table := filepath.Join(filepath.Dir(path), "SOURCES.tsv")
			if root == "testdata" {
				table, name = filepath.Join(root, "SOURCES.tsv"), filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
			}
			b, err := os.ReadFile(table)
			if err != nil || !strings.Contains(string(b), "\n"+name+"\t") {
				t.Errorf("%s has no row in %s", path, table)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
