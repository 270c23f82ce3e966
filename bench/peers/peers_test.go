package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	peer "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"

	"tocsin/sigma"
)

// data is where the conformance data lies; events may be others, as one JSON object a line in the file that TOCSIN_SIGMA_EVENTS names.
func data(t testing.TB) (rules string, events [][]byte) {
	dir := filepath.Join("..", "..", "..", "shared", "data", "sigma")
	file := os.Getenv("TOCSIN_SIGMA_EVENTS")
	if file == "" {
		file = filepath.Join(dir, "oracle", "otrf_windows.events.jsonl")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("NOT TESTED: the Sigma conformance data is absent (%v)", err)
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<24)
	for sc.Scan() {
		events = append(events, slices.Clone(sc.Bytes()))
	}
	return filepath.Join(dir, "rules"), events
}

// each calls f with every rule file.
func each(t testing.TB, dir string, f func(path string, b []byte)) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".yml") {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			f(path, b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// cpuTime is the processor time used so far: beside other work it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ours is our engine with its router.
type ours struct {
	engine *sigma.Engine
	router *sigma.Router
	dec    sigma.Decoder
}

func newOurs(t testing.TB, dir string) *ours {
	c := &sigma.Collection{}
	each(t, dir, func(path string, b []byte) {
		for _, err := range c.Parse(path, b) {
			t.Error(err)
		}
	})
	names := &sigma.Names{}
	e, err := sigma.Compile(c, sigma.Options{Schema: names})
	if err != nil {
		t.Fatal(err)
	}
	r, err := sigma.NewRouter(e)
	if err != nil {
		t.Fatal(err)
	}
	e.PrepareWindows()
	return &ours{engine: e, router: r, dec: sigma.Decoder{Names: names}}
}

// BenchmarkPeers runs both over the same events and reports events per second of processor time for each, and how many times ours is
// faster. The other engine gets only the rules that our router gives the event too: it has no index of its own.
func BenchmarkPeers(b *testing.B) {
	dir, events := data(b)
	o := newOurs(b, dir)
	evaluators := map[string]*evaluator.RuleEvaluator{}
	refused := 0
	each(b, dir, func(_ string, text []byte) {
		r, err := peer.ParseRule(text)
		if err != nil {
			refused++
			return
		}
		evaluators[r.ID] = evaluator.ForRule(r)
	})
	var m sigma.Matcher
	var rec sigma.Record
	var ids []int32
	mine := func() {
		for _, l := range events {
			if err := o.dec.Decode(&rec, l); err != nil {
				b.Fatal(err)
			}
			if set := o.router.Route(&rec); set != nil {
				ids = m.Match(set, &rec, ids[:0])
			}
		}
	}
	theirs := func() (failed, different int) {
		ctx := context.Background()
		for _, l := range events {
			var event map[string]any
			if err := json.Unmarshal(l, &event); err != nil {
				b.Fatal(err)
			}
			if err := o.dec.Decode(&rec, l); err != nil {
				b.Fatal(err)
			}
			set := o.router.Route(&rec)
			if set == nil {
				continue
			}
			want := map[string]bool{}
			for _, id := range m.Match(set, &rec, ids[:0]) {
				want[o.engine.Rules[id].ID] = true
			}
			for _, n := range set.Rules() {
				id := o.engine.Rules[n].ID
				ev := evaluators[id]
				if ev == nil {
					continue
				}
				r, err := ev.Matches(ctx, event)
				switch {
				case err != nil:
					failed++
				case r.Match != want[id]:
					different++
				}
			}
		}
		return failed, different
	}
	mine() // buffers have grown, automata are made
	var us, them time.Duration
	rounds := 0
	var failed, different int
	for b.Loop() {
		const times = 20
		before := cpuTime()
		for range times {
			mine()
		}
		us += (cpuTime() - before) / times
		before = cpuTime()
		failed, different = theirs()
		them += cpuTime() - before
		rounds++
	}
	n := float64(len(events) * rounds)
	b.ReportMetric(n/us.Seconds(), "ours-events/CPU-s")
	b.ReportMetric(n/them.Seconds(), "sigma-go-events/CPU-s")
	b.ReportMetric(them.Seconds()/us.Seconds(), "times-faster")
	b.Log(fmt.Sprintf("sigma-go: %d rules not parsed, %d evaluations failed, %d results differ from ours (which are those of the oracle)", refused, failed, different))
}
