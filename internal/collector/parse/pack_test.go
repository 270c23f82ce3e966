package parse

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// harbour is a product that nobody knows.
const harbour = `format: 1
name: harbour
version: 1
vendor: Harbour Works
product: Lock Gate
type: firewall
dataset: harbour.gate
recognise:
  - program: lockgate
  - contains: 'gate<'
tables:
  words: {opened: allow, shut: deny, rang: detect}
read:
  - line: 'gate<{gate:int}> {what:word} for {who:name}[[ of {crew}]] from {from:ip}[[:{fport:int}]] to {to:ip}:{tport:int}/{proto:word}; {rest}'
  - kv: {pairs: '; ', equals: ': '}
    in: rest
    optional: true
fields:
  what: {to: action, map: words}
  who: user
  crew: user.roles
  from: source.ip
  fport: source.port
  to: destination.ip
  tport: destination.port
  proto: transport
  since: {to: time, zone: clock}
  by rule: rule.name
  gate: observer.egress.interface.name
rules:
  - when: {what: shut, tport: {from: 3389, to: 3389}}
    set: {tocsin.severity: high, tags: [remote-desktop]}
`

const harbourLine = `<134>Nov 12 08:41:07 quay lockgate: gate<3> shut for mate of night watch from 203.0.113.77:51514 to 198.51.100.20:3389/tcp; since: 2026-11-12 08:41:06; clock: +0100; by rule: no strangers; mood: foul`

func packFS(name, text string) fstest.MapFS {
	return fstest.MapFS{name + "/parser.yaml": {Data: []byte(text)}, name + "/README.md": {Data: []byte("# " + name + "\n")}}
}

func mustLoad(t *testing.T, text string) *packs.Set {
	t.Helper()
	_, name, _ := strings.Cut(text, "name: ")
	name, _, _ = strings.Cut(name, "\n")
	set, err := packs.Load(packFS(name, text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestNewProduct gives a product that nobody knew to a parser that is running, and takes the answer apart; then a newer version of it.
func TestNewProduct(t *testing.T) {
	lib := NewLibrary()
	s := New(Options{Location: time.UTC, Library: lib, Now: func() time.Time { return received }})
	s.rethrow = true
	var e event.Event
	name, _, out := oneLine(s, &e, []byte(harbourLine))
	if name == "harbour" || strings.Contains(string(out), "Harbour") {
		t.Fatalf("known before it was told: %s %s", name, out)
	}
	more, err := lib.Packs().With(mustLoad(t, harbour).Packs()...)
	if err != nil {
		t.Fatal(err)
	}
	lib.Use(more)
	name, ok, out := oneLine(s, &e, []byte(harbourLine))
	want := `{"@timestamp":"2026-11-12T07:41:06Z","event.action":"shut","tocsin.verdict":"deny","event.type":["denied","connection"],"event.outcome":"failure","user.name":"mate",` +
		`"user.roles":"night watch","source.ip":"203.0.113.77","source.port":51514,"destination.ip":"198.51.100.20","destination.port":3389,"network.transport":"tcp","rule.name":"no strangers",` +
		`"observer.egress.interface.name":"3","tocsin.severity":"high","tags":"remote-desktop","observer.vendor":"Harbour Works","observer.product":"Lock Gate","observer.type":"firewall",` +
		`"event.dataset":"harbour.gate","event.module":"harbour","event.category":"network","event.kind":"event","log.syslog.priority":134,"host.name":"quay","process.name":"lockgate","tocsin.format":"harbour","mood":"foul"}`
	if !ok || name != "harbour" || string(out) != want {
		t.Fatalf("%q %v\n got %s\nwant %s", name, ok, out, want)
	}
	// An update: shutting the gate is now only an alarm.
	newer := strings.Replace(strings.Replace(harbour, "version: 1", "version: 2", 1), "shut: deny", "shut: detect", 1)
	if more, err = lib.Packs().With(mustLoad(t, newer).Packs()...); err != nil {
		t.Fatal(err)
	}
	lib.Use(more)
	if _, _, out = oneLine(s, &e, []byte(harbourLine)); e.Str(event.TocsinVerdict) != "detect" {
		t.Fatalf("the newer pack is not in use: %s", out)
	}
	if v := more.Versions(); !strings.Contains(strings.Join(v, " "), "harbour=2") {
		t.Errorf("versions %v", v)
	}
	// What the hub may have sent by mistake can be taken back.
	lib.Use(packs.Builtin())
	if name, _, _ = oneLine(s, &e, []byte(harbourLine)); name == "harbour" {
		t.Error("still known")
	}
	// An unknown message of the product is still the product's, unless the description is strict about it.
	if _, ok := s.runPackNamed(&e, more.Pack("harbour"), "nothing like it"); ok {
		t.Error("a line of another form was taken")
	}
}

func (s *Set) runPackNamed(e *event.Event, p *packs.Pack, line string) (string, bool) {
	e.Reset()
	e.SetRaw([]byte(line))
	s.e, s.line, s.packs, s.fuelFor = e, e.Raw(), s.lib.Packs(), nil
	s.h = header{pri: -1}
	return p.Name, s.runPack(p, e.Raw())
}

// TestSwap exchanges packs while several goroutines parse: every line is read whole by the one set or the other.
func TestSwap(t *testing.T) {
	lib := NewLibrary()
	with, err := lib.Packs().With(mustLoad(t, harbour).Packs()...)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			s := New(Options{Location: time.UTC, Library: lib})
			var e event.Event
			for {
				select {
				case <-stop:
					return
				default:
				}
				name, _, out := oneLine(s, &e, []byte(harbourLine))
				if (name == "harbour") != strings.Contains(string(out), `"observer.vendor":"Harbour Works"`) {
					t.Errorf("half a pack: %s %s", name, out)
					return
				}
			}
		})
	}
	for i := range 2000 {
		if i%2 == 0 {
			lib.Use(with)
		} else {
			lib.Use(packs.Builtin())
		}
	}
	close(stop)
	wg.Wait()
}

// TestHostilePack runs the dearest packs that Load lets through over a megabyte: a line costs bounded time, and nothing panics.
func TestHostilePack(t *testing.T) {
	head := "format: 1\nname: harbour\nversion: 1\nvendor: X\ndataset: x.y\nrecognise:\n  - contains: 'aaa'\n"
	var captures, messages, contains strings.Builder
	for i := range 30 {
		fmt.Fprintf(&captures, "{c%d}a", i)
	}
	for i := range 500 {
		fmt.Fprintf(&messages, "  - read:\n      - line: '%sZ%d'\n", captures.String(), i)
	}
	contains.WriteString("messages:\n")
	for i := range 9 {
		fmt.Fprintf(&contains, "  - when: {.message: {contains: [")
		for j := range 390 {
			fmt.Fprintf(&contains, "aaaaaaaaaaaaaaaaaaaaaaaaaaaa%d-%d, ", i, j)
		}
		fmt.Fprintf(&contains, "z]}}\n    fields: {.message: message}\n")
	}
	long := []byte(strings.Repeat("a", 1<<20))
	for name, text := range map[string]string{"messages": head + "messages:\n" + messages.String(), "contains": head + contains.String()} {
		one := mustLoad(t, text).Packs()[0]
		list := make([]*packs.Pack, 0, 400)
		for i := range 400 {
			p := *one
			p.Name = fmt.Sprint("harbour", i)
			list = append(list, &p)
		}
		set, err := packs.NewSet(list...)
		if err != nil {
			t.Fatal(err)
		}
		lib := &Library{}
		lib.Use(set)
		s := New(Options{Location: time.UTC, Library: lib})
		var e event.Event
		for _, n := range []int{200, 1 << 20} {
			start := cpuTime() // not the clock: the machine may be busy
			oneLine(s, &e, long[:n])
			if d := cpuTime() - start; d > 2*time.Second {
				t.Errorf("%s: %v for %d bytes", name, d, n)
			}
		}
	}
}

// TestBadPacks checks that a description with a fault is refused with file, line and reason.
func TestBadPacks(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"format: 1", "format: 9", "harbour/parser.yaml:1: format 9 is not known here"},
		{"vendor: Harbour Works\n", "", "vendor is missing"},
		{"program: lockgate", "program: [", "is not YAML"},
		{"program: lockgate", "contains: ab", "recognise"},
		{"who: user\n", "who: usr\n", `:20: there is no target "usr"`},
		{"who: user\n", "whom: user\n  who: drop\n  a.b: tocsin.tenant\n", "tocsin.tenant is not for parsers to set"},
		{"map: words", "map: wrds", `there is no table "wrds"`},
		{"{gate:int}", "{gate:number}", `there is no capture type "number"`},
		{"{gate:int}", "{gate}{x}", "two captures need a literal between them"},
		{"{gate:int}", "{gate:int", "there is no capture type"},
		{"to: 3389}}", "to: many}}", "to must be a whole number"},
		{"set: {tocsin", "set: {source.port: high, tocsin", `source.port cannot be "high"`},
		{"version: 1", "version: &a 1", "anchors and aliases are not taken"},
		{"name: harbour", "name: Harbour", "only lower-case letters"},
		{"name: harbour", "name: quay", "the folder is called"},
		{"what: shut,", "whatever: {starts: x, like: y},", `when: there is no "like"`},
		{"read:", "raed:", `there is no "raed" in a description`},
		{"since: {to: time, zone: clock}", "since: {to: time, layout: yyyy-mm-dd}", "layout"},
		{"dataset: harbour.gate\n", "dataset: harbour.gate\ncode: asa\n", "written in Go"},
		{"vendor: Harbour Works", "vendor: " + strings.Repeat("x", 300), "at most 200"},
		{"vendor: Harbour Works", "vendor: Harbour Works\n#" + strings.Repeat("x", 300<<10), "bytes; at most"},
	} {
		text := strings.Replace(harbour, c.old, c.new, 1)
		if text == harbour {
			t.Fatalf("%q is not in the description", c.old)
		}
		_, err := packs.Load(packFS("harbour", text))
		var e *packs.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %v, want %q", c.new, c.old, err, c.want)
		}
	}
	deep := strings.Repeat("{a: ", 30) + "1" + strings.Repeat("}", 30)
	if _, err := packs.Compile("x", []byte(deep)); err == nil || !strings.Contains(err.Error(), "nested deeper") {
		t.Errorf("depth: %v", err)
	}
}

// FuzzCompile reads anything as a description: an answer or an *Error, never a panic, and what it takes can be run.
func FuzzCompile(f *testing.F) {
	f.Add([]byte(harbour))
	s := testSet(f)
	var e event.Event
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := packs.Compile("f/parser.yaml", text)
		if err != nil {
			var x *packs.Error
			if !errors.As(err, &x) {
				t.Fatal(err)
			}
			return
		}
		s.runPackNamed(&e, p, harbourLine)
	})
}
