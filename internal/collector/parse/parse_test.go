package parse

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// folders gives the names of the folders of testdata; each is one format.
func folders(t testing.TB) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join("testdata", "*", "input.log"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for i, d := range dirs {
		dirs[i] = filepath.Base(filepath.Dir(d))
	}
	return dirs
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

// TestSamples compares every line of every folder of testdata with the event expected of it, and checks that the format of the
// folder's name understood it.
func TestSamples(t *testing.T) {
	s := testSet(t)
	for _, name := range folders(t) {
		t.Run(name, func(t *testing.T) {
			lines := readLines(t, filepath.Join("testdata", name, "input.log"))
			var out bytes.Buffer
			var e event.Event
			wantFormat, _, _ := strings.Cut(name, "-")
			if knownFormatName(name) {
				wantFormat = name
			}
			for i, line := range lines {
				format, _, json := oneLine(s, &e, line)
				out.Write(json)
				out.WriteByte('\n')
				if name != "unknown" && format != wantFormat && !knownExceptions[name][i+1] {
					t.Errorf("line %d: read as %q, want %q: %.200s", i+1, format, wantFormat, line)
				}
				if name == "unknown" && string(json) != "{}" {
					t.Errorf("line %d: want {}, got %s: %.200s", i+1, json, line)
				}
			}
			file := filepath.Join("testdata", name, "expected.ndjson")
			if *update {
				if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := readLines(t, file)
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

// knownExceptions are lines of a folder that another format reads: relays that lost a mark.
var knownExceptions = map[string]map[int]bool{}

func knownFormatName(name string) bool {
	for _, f := range formats {
		if f.name == name {
			return true
		}
	}
	return false
}

// TestSources checks that SOURCES.tsv has a row for every file of testdata.
func TestSources(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "SOURCES.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("testdata", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "SOURCES.tsv" || strings.HasPrefix(path, filepath.Join("testdata", "fuzz")) {
			return err
		}
		rel, _ := filepath.Rel("testdata", path)
		if !strings.Contains(string(b), "\n"+filepath.ToSlash(rel)+"\t") {
			t.Errorf("%s has no row in testdata/SOURCES.tsv", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
