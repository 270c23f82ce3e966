package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/spool"
	"tocsin/internal/detect/layers"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// recorder is an engine that remembers every line it was shown, finds something in each fifth, and when it is asked without a line tells of each that is new.
type recorder struct {
	mu    sync.Mutex
	Pack  bool // not the rules that are built in
	Seen  []uint64
	Told  int // of Seen, when it was last asked without a line
	Found int // all that it ever found
}

func (r *recorder) find(n uint64) []event.Detection {
	r.Found++
	return []event.Detection{{RuleID: "r", RuleTitle: "t", Family: "f", Level: "low", Key: fmt.Sprint(n, r.Found), Entity: event.Entity{Kind: "rule", Value: "r"}, Reason: "it is only a test"}}
}

func (r *recorder) Process(e *event.Event, _ int64) []event.Detection {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Seen = append(r.Seen, e.ID.Seq); len(r.Seen)%5 != 0 {
		return nil
	}
	return r.find(e.ID.Seq)
}

func (r *recorder) Flush(int64) []event.Detection {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Told == len(r.Seen) {
		return nil
	}
	r.Told = len(r.Seen)
	return r.find(0)
}

func (r *recorder) Snapshot() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return json.Marshal(r)
}

func (r *recorder) Restore(b []byte) error { return json.Unmarshal(b, r) }

// camera takes a picture of a collector's folder before each write of its state and of its rules' memory: what a kill there leaves.
type camera struct {
	t     testing.TB
	dir   string
	on    atomic.Bool
	mu    sync.Mutex // nothing else is written meanwhile
	shots []string
}

// elsewhere is a test as goroutines beside its own may use it: they must not end it.
type elsewhere struct{ testing.TB }

func (e elsewhere) Fatal(args ...any) { e.Error(args...) }

type filmed struct {
	*os.File
	c    *camera
	film bool
}

func (c *camera) open(name string) (spool.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	at := filepath.Base(filepath.Dir(name))
	return filmed{f, c, at == "state" || at == "detector"}, err
}

func (f filmed) Write(b []byte) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	f.shoot() // what is there after the write is there before the next
	return f.File.Write(b)
}

func (f filmed) shoot() {
	if !f.film || !f.c.on.Load() {
		return
	}
	dir := filepath.Join(filepath.Dir(f.c.dir), fmt.Sprintf("shot-%03d", len(f.c.shots)))
	copyDir(f.c.t, f.c.dir, dir)
	if n := len(f.c.shots); n > 0 && sameDir(f.c.t, f.c.shots[n-1], dir) {
		os.RemoveAll(dir)
		return
	}
	f.c.shots = append(f.c.shots, dir)
}

func sameDir(t testing.TB, a, b string) bool {
	files := func(dir string) map[string]string {
		out := map[string]string{}
		err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(name)
			rel, _ := filepath.Rel(dir, name)
			out[rel] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	x, y := files(a), files(b)
	for name := range x {
		if x[name] != y[name] {
			return false
		}
	}
	return len(x) == len(y)
}

// read reads what a journal of a collector's folder holds: JSON, to its first line end.
func read(t testing.TB, dir string, v any) {
	t.Helper()
	j := must(spool.OpenJournal(spool.Options{Dir: dir}))
	defer j.Close()
	if err := json.NewDecoder(bytes.NewReader(j.Last())).Decode(v); err != nil {
		t.Fatal(err)
	}
}

// A kill at each step of what renews the rules' memory: the member accepts what a device sends, the rules are asked while no lines come, and rule changes,
// parsers and rules come from the hub, each right behind a line that no commit has. The next start has a memory that has seen each line once, finds nothing twice,
// and has either what was before or what is new, and the memory that belongs to it.
func TestMemoryOverKills(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Camera")
	cam := &camera{t: elsewhere{t}, dir: s.cfg.Dir}
	quiet := strings.NewReplacer("act=deny", "act=permit", "dst=198.51.100.7", "dst=192.0.2.7").Replace(cef("Gate 7", 1)) // nothing that leaves at once
	var later atomic.Int64
	var last *recorder
	engine := func(o collector.DetectorOptions) (collector.Detector, error) {
		last = &recorder{Pack: o.Rules != nil}
		return last, nil
	}
	options := func(o *collector.Options) {
		o.HouseEvery, o.Detector = 20*time.Millisecond, engine
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	}
	r := s.start(options, func(o *collector.Options) { o.OpenFile = cam.open })
	c, n := r.tcp(), 0
	say := func(lines ...string) {
		t.Helper()
		n += len(lines)
		for _, l := range lines {
			fmt.Fprintln(c, l)
		}
		r.until("they are worked on", func(st *collector.Status) bool { return st.Counts["received"] >= uint64(n) })
	}
	for i := range 8 { // as many products as are learnt
		say(cef(fmt.Sprintf("Gate %d", i), i))
	}
	r.settled(uint64(n))
	cam.on.Store(true)
	say(cef("Impostor", 8))
	if _, err := collector.AcceptSender(t.Context(), &s.cfg, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	cam.mu.Lock()
	accepted := len(cam.shots) // from here on it is
	cam.mu.Unlock()
	say(quiet)
	found := r.Status().Counts["made.detection"]
	later.Store(int64(11 * time.Second))
	r.until("the rules are asked without a line", func(st *collector.Status) bool { return st.Counts["made.detection"] > found })
	pack := func(kind string, content []byte, ok func(st *collector.Status) bool) {
		t.Helper()
		n++
		fmt.Fprintln(c, quiet)
		h.direct(kind, keys.Packs, 1, content)
		r.until(kind, ok)
	}
	files := func(name, text string) []byte { return must(directive.Pack(fstest.MapFS{name: {Data: []byte(text)}})) }
	pack(directive.RuleChanges, must(layers.Encode([]layers.Sited{{Kind: layers.Off, Rule: "x", Title: "x"}})), func(st *collector.Status) bool { return len(st.RuleChanges) == 1 })
	pack(directive.Parsers, files("milkgate/parser.yaml", milkgate), func(st *collector.Status) bool { return strings.HasPrefix(st.ParserPack, "1 ") })
	pack(directive.Rules, files("x.yml", "x"), func(st *collector.Status) bool { return strings.HasPrefix(st.RulePack, "1 ") })
	say(quiet)
	h.away()
	cam.on.Store(false)
	r.end()
	shots := cam.shots
	for i := 1; i < len(cam.shots); i++ { // the two files of a directive are not filmed
		before, err := os.ReadFile(filepath.Join(shots[i-1], "directives", "versions.json"))
		after, _ := os.ReadFile(filepath.Join(shots[i], "directives", "versions.json"))
		if bytes.Equal(before, after) {
			continue
		}
		dir := shots[i] + "-between"
		copyDir(t, shots[i], dir)
		if name := filepath.Join(dir, "directives", "versions.json"); err != nil {
			os.Remove(name)
		} else if err := os.WriteFile(name, before, 0o600); err != nil {
			t.Fatal(err)
		}
		shots = append(shots, dir)
	}
	if len(shots) < 15 {
		t.Errorf("%d places to be killed at", len(shots))
	}
	packed := 0
	for i, dir := range shots {
		copied := *s
		copied.cfg.Dir, copied.logs = dir, &logBuffer{}
		r := copied.start(options, func(o *collector.Options) { o.HoldStart = time.Millisecond })
		var lines []uint64
		a := must(archive.Open(archive.Options{Dir: filepath.Join(dir, "archive")})) // as it is now: nothing is sent to this one
		rd := a.Reader(spool.Pos{})
		for {
			var l archive.Line
			if err := rd.Next(&l); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, l.Number)
		}
		rd.Close()
		a.Close()
		r.until("all lines are worked on", func(st *collector.Status) bool { return st.Counts["received"] >= uint64(len(lines)) })
		r.end()
		var st struct{ Counts map[string]uint64 }
		var memory struct {
			Senders []struct {
				Lines   uint64
				Changed uint64 `json:"product_changed"`
				Refused []string
			}
		}
		read(t, filepath.Join(dir, "state"), &st)
		read(t, filepath.Join(dir, "detector"), &memory)
		at := strings.TrimPrefix(dir, filepath.Dir(s.cfg.Dir))
		if got := st.Counts["received"]; got != uint64(len(lines)) {
			t.Errorf("%s: %d lines are counted as %d", at, len(lines), got)
		}
		switch {
		case last.Pack:
			packed++ // begins with them
			if len(lines) > n || len(last.Seen) > 1 {
				t.Errorf("%s: new rules were shown %d lines", at, len(last.Seen))
			}
		case !slices.Equal(last.Seen, lines):
			t.Errorf("%s: the rules have seen %v of %v", at, last.Seen, lines)
		case uint64(last.Found) != st.Counts["made.detection"]:
			t.Errorf("%s: the rules found %d, %d are to leave", at, last.Found, st.Counts["made.detection"])
		}
		if logs := copied.logs.String(); strings.Contains(logs, "newer than the state") || strings.Contains(logs, "damaged") || !last.Pack && strings.Contains(logs, "anew") {
			t.Errorf("%s: %s", at, logs)
		}
		if d := memory.Senders[0]; i >= accepted && (len(d.Refused) > 0 || d.Changed != 1) || d.Lines != uint64(len(lines)) {
			t.Errorf("%s: %d lines: %+v", at, len(lines), d)
		}
	}
	if packed < 2 {
		t.Errorf("%d of them are of the new rules", packed)
	}
}

// After an update with other rules, and a kill before the memory was saved, the new rules begin behind what has been worked on: what they would find in it
// would be lost.
func TestNewRulesBeginBehind(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Updated")
	var last *recorder
	options := func(o *collector.Options) {
		o.HouseEvery = 20 * time.Millisecond
		o.Detector = func(collector.DetectorOptions) (collector.Detector, error) {
			last = new(recorder)
			return last, nil
		}
	}
	r := s.start(options)
	c := r.tcp()
	for i := range 6 {
		fmt.Fprintln(c, cef("Gate", i))
	}
	r.settled(6)
	h.away()
	copies := map[bool]string{}
	for _, updated := range []bool{false, true} {
		copies[updated] = filepath.Join(filepath.Dir(s.cfg.Dir), fmt.Sprint("updated-", updated))
		copyDir(t, s.cfg.Dir, copies[updated])
	}
	r.end()
	for updated, dir := range copies {
		copied := *s
		copied.cfg.Dir, copied.logs = dir, &logBuffer{}
		r := copied.start(options, func(o *collector.Options) {
			o.HoldStart = time.Millisecond
			if updated {
				o.RulePack = "another"
			}
		})
		r.until("it runs", func(st *collector.Status) bool { return st.Counts["received"] == 6 })
		r.end()
		if want := map[bool]int{false: 6, true: 0}[updated]; len(last.Seen) != want {
			t.Errorf("updated %v: the rules were shown %d lines again, want %d", updated, len(last.Seen), want)
		}
	}
}

// A device is told of that is no longer understood, once, though the collector is killed while its lines are counted.
func TestNotUnderstoodOverKills(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Window")
	udp, tcp := ports(t)
	config := s.writeConfig(udp, tcp)
	c, n, told := s.spawn(config), uint64(0), uint64(0)
	send := func(lines int, second string) {
		t.Helper()
		// The first sends twice as much, so that the hub would see nothing of the second.
		for from, text := range map[string]string{"127.0.0.2": strings.Repeat(traffic("accept", "10.0.0.5", "192.0.2.7", 1)+"\n", 2*lines), "127.0.0.3": strings.Repeat(second+"\n", lines)} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			var conn net.Conn
			var err error
			for range 300 {
				if conn, err = d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp)); err == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, text)
			conn.Close()
		}
		n += 3 * uint64(lines)
		deadline := time.Now().Add(30 * time.Second)
		for {
			st, err := collector.FetchStatus(t.Context(), &s.cfg)
			if err == nil && st.Counts["received"] == n {
				told = st.Counts["made.detection"]
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("%d lines: %v %+v", n, err, st)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	send(200, traffic("accept", "10.0.0.6", "192.0.2.8", 2))
	c.term() // the memory is saved
	c = s.spawn(config)
	send(80, "\x01 nothing that anybody reads")
	c.term()
	c = s.spawn(config)
	send(80, "\x01 nothing that anybody reads")
	c.kill()
	c = s.spawn(config)
	if send(38, "\x01 nothing that anybody reads"); told != 0 {
		t.Errorf("told of after 198 lines: %d", told)
	}
	if send(4, "\x01 nothing that anybody reads"); told != 1 {
		t.Errorf("told of after 202 lines: %d", told)
	}
	c.kill()
	c = s.spawn(config)
	if send(200, "\x01 nothing that anybody reads"); told != 1 {
		t.Errorf("told of %d times", told)
	}
	c.term()
}
