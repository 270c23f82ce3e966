package parse

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// twins are two parsers, one of which writes and uses recipes.
type twins struct {
	with, without *Set
	a, b          event.Event
}

func newTwins(t testing.TB) *twins {
	x := &twins{with: testSet(t), without: testSet(t)}
	x.without.recipes.off = true
	return x
}

// same reads a line with both and fails when they differ.
func (x *twins) same(t testing.TB, line []byte, hint string) {
	t.Helper()
	read := func(s *Set, e *event.Event) (string, bool, []byte) {
		e.Reset()
		e.SetRaw(line)
		e.Created = received.UnixNano()
		name, ok := s.Parse(e, hint)
		return name, ok, e.AppendJSON(nil)
	}
	name, ok, got := read(x.with, &x.a)
	name2, ok2, want := read(x.without, &x.b)
	if name != name2 || ok != ok2 || !bytes.Equal(got, want) {
		t.Fatalf("%.600s\nby recipe %q %v %s\n      else %q %v %s", line, name, ok, got, name2, ok2, want)
	}
}

// vary changes what stands in a line as a device would from one event to the next, and a little more: digits, single words, empty values.
func vary(r *rand.Rand, line []byte) []byte {
	out := append([]byte(nil), line...)
	switch r.IntN(4) {
	case 0: // other numbers
		for i, c := range out {
			if isDigit(c) && r.IntN(8) == 0 {
				out[i] = '0' + byte(r.IntN(10))
			}
		}
	case 1: // one byte is another of the line
		if len(out) > 0 {
			out[r.IntN(len(out))] = line[r.IntN(len(line))]
		}
	case 2: // a value is gone, or of one byte
		if i := bytes.IndexByte(out[r.IntN(len(out)+1):], '='); i >= 0 {
			end := i + 1
			for end < len(out) && out[end] != ' ' && out[end] != ',' {
				end++
			}
			out = append(append(append([]byte(nil), out[:i+1]...), "-0"[:r.IntN(2)]...), out[end:]...)
		}
	case 3: // cut
		out = out[:r.IntN(len(out)+1)]
	}
	return out
}

// TestRecipes reads every sample and variants of it with and without recipes: no answer may differ. Most lines like one before must be done by
// a recipe.
func TestRecipes(t *testing.T) {
	x := newTwins(t)
	r := rand.New(rand.NewPCG(7, 8))
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	n := 0
	for _, sample := range samples(t) {
		lines := readLines(t, sample.input)
		for range rounds {
			for _, line := range lines {
				x.same(t, line, "")
				x.same(t, vary(r, line), "")
				n += 2
			}
		}
	}
	t.Logf("%d lines", n)
}

// TestRecipeBounds: what senders can make a Set remember is bounded, and lines that are all different cost no more than without recipes.
func TestRecipeBounds(t *testing.T) {
	s := testSet(t)
	var e event.Event
	lines := readLines(t, "packs/fortigate/traffic.input.log")
	var all [][]byte
	for i := range 4000 {
		line := append([]byte(nil), lines[i%len(lines)]...)
		line = append(line, " vwlname="...)
		for b := range 12 { // 4,096 sets of names, each of the pack's own
			if i>>b&1 == 1 {
				line = append(line, ' ')
				line = append(line, []string{"user", "group", "mac", "app", "url", "msg", "virus", "attack", "agent", "method", "qname", "sender"}[b]...)
				line = append(line, '=', 'a'+byte(i%26))
			}
		}
		all = append(all, line)
	}
	read := func(s *Set) time.Duration {
		began := time.Now()
		for _, l := range all {
			oneLine(s, &e, l)
		}
		return time.Since(began)
	}
	read(s)
	count := 0
	for _, sh := range s.recipes.shapes {
		if sh == nil {
			continue
		}
		if len(sh.recipes) > maxShapeWays {
			t.Errorf("%d recipes of one shape", len(sh.recipes))
		}
		count += len(sh.recipes)
	}
	if count > maxRecipes || count != s.recipes.count {
		t.Errorf("%d recipes, said to be %d, at most %d", count, s.recipes.count, maxRecipes)
	}
	if count == 0 {
		t.Error("no recipe at all")
	}
}

// TestRecipesSettle: when lines of many products come in turn, recipes do not drive one another out: lines cost no memory any more.
func TestRecipesSettle(t *testing.T) {
	s := testSet(t)
	var e event.Event
	var lines [][]byte
	for _, name := range []string{"fortigate/traffic.", "asa/traffic.", "netfilter/", "filterlog/", "draytek/", "sonicwall/", "sophos/", "zyxel/", "panos/", "meraki/", "mikrotik/"} {
		lines = append(lines, readLines(t, "packs/"+name+"input.log")...)
	}
	all := func() {
		for _, l := range lines {
			e.Reset()
			e.SetRaw(l)
			s.Parse(&e, "")
		}
	}
	for range 5 {
		all()
	}
	if n := testing.AllocsPerRun(20, all) / float64(len(lines)); n > 0.25 {
		t.Errorf("%.2f allocations a line", n)
	}
}

// TestAfterPanic: a parser's mistake costs the line at hand and nothing of the next.
func TestAfterPanic(t *testing.T) {
	lib := NewLibrary()
	zone := time.FixedZone("far", 11*3600)
	broken := &packs.Pack{Name: "broken", Dataset: "a.b", Zone: zone, Read: []packs.Step{{Kind: packs.StepKV, In: 1 << 20}}}
	with, err := lib.Packs().With(broken)
	if err != nil {
		t.Fatal(err)
	}
	lib.Use(with)
	s := New(Options{Location: time.UTC, Library: lib, Now: func() time.Time { return received }})
	var e event.Event
	line := readLines(t, "packs/sonicwall/input.log")[0]
	_, _, want := oneLine(s, &e, line)
	e.Reset()
	e.SetRaw(line)
	if name, ok := s.Parse(&e, "broken"); name != "" || ok || e.Len() != 0 {
		t.Errorf("read as %q, %d values", name, e.Len())
	}
	if _, _, got := oneLine(s, &e, line); !bytes.Equal(got, want) {
		t.Errorf("after a panic\n got %s\nwant %s", got, want)
	}
}

// FuzzRecipes reads a line, and then another, with and without recipes.
func FuzzRecipes(f *testing.F) {
	for _, sample := range samples(f) {
		lines := readLines(f, sample.input)
		for i, l := range lines[:min(len(lines), 6)] {
			f.Add(l, lines[(i+1)%len(lines)])
		}
	}
	x := newTwins(f)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x.same(t, a, "")
		x.same(t, a, "")
		x.same(t, b, "")
	})
}

// TestDatedFirst: a Set that has remembered no date yet takes ten bytes of zero for none.
func TestDatedFirst(t *testing.T) {
	x := newTwins(t)
	for _, date := range []string{"2026-11-12", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "2026-11-12", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		x.same(t, []byte(`<189>date=`+date+` time=08:50:01 devname="FW" devid="FGT60F" logid="0000000013" type="traffic" subtype="forward" level="notice" srcip=192.0.2.1 dstip=192.0.2.2 action="close" proto=6`), "")
	}
}

// TestDated: a date, a clock and a zone under names of their own are read alike with what is remembered of the lines before and without.
func TestDated(t *testing.T) {
	x := newTwins(t)
	r := rand.New(rand.NewPCG(17, 18))
	dates := []string{"2026-11-12", "2026-11-13", "2026-11-31", "2026-13-01", "2026-00-12", "1969-12-31", "1970-01-01", "2261-01-01", "2024-02-29", "2026-10-25", "2026-03-29", "2026/11/12", "2026:11:12", "26-11-12", "2026-1-2", " 2026-11-12", "2026-11-1x", "x026-11-12", "2026-11-+2", ""}
	clocks := []string{"08:50:01", "00:00:00", "23:59:60", "24:00:00", "25:00:00", "08:60:01", "01:30:00", "8:50:01", "08:50:01.5", "08-50-01", " 8:50:01", "08:50:1", "08:50:01Z", "08:50:01 ", ""}
	zones := []string{` tz="+0000"`, ` tz="+0100"`, ` tz="-0800"`, ` tz="+0530"`, ` tz="GMT-5:00"`, ` tz="(GMT-5:00)Eastern Time"`, ` tz="UTC"`, ` tz="what"`, ` tz="+9900"`, ` tz=`, ``, ` timezone="+0200"`, ` timezone="x"`, ` eventtime=1794473401`}
	for range 6000 {
		line := `<189>date=` + dates[r.IntN(len(dates))%(1+r.IntN(len(dates)))] + ` time=` + clocks[r.IntN(len(clocks))%(1+r.IntN(len(clocks)))] + ` devname="FW" devid="FGT60F"` + zones[r.IntN(len(zones))] +
			` logid="0000000013" type="traffic" subtype="forward" level="notice" srcip=192.0.2.1 dstip=192.0.2.2 action="close" proto=6`
		x.same(t, []byte(line), "")
	}
}
