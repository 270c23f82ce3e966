package sigma

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// shared is where the conformance data lies beside the repository; it is third-party data and not committed.
func shared(t testing.TB) string {
	dir := filepath.Join("..", "..", "shared", "data", "sigma")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("NOT TESTED: the Sigma conformance data is absent (%v)", err)
	}
	return dir
}

var upstreamOnce struct {
	sync.Once
	engine *Engine
	names  *Names
	errs   []*Error
}

// upstream compiles all rules of the conformance data, once for all tests.
func upstream(t testing.TB) (*Engine, *Names) {
	dir := shared(t)
	u := &upstreamOnce
	u.Do(func() {
		c := loadDir(t, filepath.Join(dir, "rules"), &u.errs)
		u.names = &Names{}
		e, err := Compile(c, Options{Schema: u.names})
		if err != nil {
			t.Fatal(err)
		}
		u.engine, u.errs = e, append(u.errs, e.Errors...)
	})
	return u.engine, u.names
}

func loadDir(t testing.TB, dir string, errs *[]*Error) *Collection {
	c := &Collection{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		*errs = append(*errs, c.Parse(path, b)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUpstreamRulesCompile(t *testing.T) {
	e, _ := upstream(t)
	for _, err := range upstreamOnce.errs {
		t.Error(err)
	}
	if len(e.Rules) != 3780 {
		t.Errorf("%d rules compiled, want 3780", len(e.Rules))
	}
	if len(e.Unexpanded) != 25 {
		t.Errorf("%d rules with placeholders, want 25", len(e.Unexpanded))
	}
}

type expected struct {
	File  string   `json:"event_file"`
	Line  int      `json:"line"`
	Rules []string `json:"rules"`
}

func readLines(t testing.TB, path string) [][]byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		out = append(out, slices.Clone(sc.Bytes()))
	}
	return out
}

// TestOracle compares the complete set of rules of every event with what pySigma's rules, evaluated naively, give; and the index with
// the evaluation of every rule.
func TestOracle(t *testing.T) {
	dir := shared(t)
	e, names := upstream(t)
	router, err := NewRouter(e)
	if err != nil {
		t.Fatal(err)
	}
	d := &Decoder{Names: names}
	var rec Record
	var m Matcher
	events, wrong := 0, 0
	for _, oracle := range []string{"otrf_windows", "regression"} {
		files := map[string][][]byte{}
		for _, line := range readLines(t, filepath.Join(dir, "oracle", oracle+".expected.jsonl")) {
			var x expected
			if err := json.Unmarshal(line, &x); err != nil {
				t.Fatal(err)
			}
			if files[x.File] == nil {
				files[x.File] = readLines(t, filepath.Join(dir, x.File))
			}
			if err := d.Decode(&rec, files[x.File][x.Line]); err != nil {
				t.Fatalf("%s:%d: %v", x.File, x.Line, err)
			}
			set := router.Route(&rec)
			ids := func(list []int32) []string {
				out := []string{}
				for _, i := range list {
					out = append(out, e.Rules[i].ID)
				}
				slices.Sort(out)
				return out
			}
			slices.Sort(x.Rules)
			got, all := ids(m.Match(set, &rec, nil)), ids(set.MatchAll(&rec, nil))
			if events++; !slices.Equal(got, x.Rules) {
				wrong++
				t.Errorf("%s:%d: rules %v, want %v", x.File, x.Line, got, x.Rules)
			}
			if !slices.Equal(got, all) {
				t.Errorf("%s:%d: with index %v, without %v", x.File, x.Line, got, all)
			}
		}
	}
	s := m.Stats()
	t.Logf("%d events, %d wrong; of %.1f rules an event %.2f were evaluated", events, wrong, float64(s.Rules)/float64(s.Events), float64(s.Candidates)/float64(s.Events))
}
