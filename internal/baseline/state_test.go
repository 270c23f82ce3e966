package baseline

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// traffic makes observations of all sorts, the same for the same seed, about 40 an hour.
func traffic(seed uint64, hours int) []Observation {
	r := rand.New(rand.NewPCG(seed, 2))
	var out []Observation
	addr := func(n int) netip.Addr {
		return netip.AddrFrom4([4]byte{198, 51, byte(r.IntN(n) >> 8), byte(r.IntN(n))})
	}
	for h := range hours {
		for range 20 + r.IntN(40) {
			o := Observation{Tenant: event.TenantID(1 + r.IntN(12)), At: monday.Add(time.Duration(h)*time.Hour + time.Duration(r.IntN(3600))*time.Second).UnixNano(), N: uint32(1 + r.IntN(20)),
				ID: id(h), Proven: r.IntN(4) > 0, Session: true, Source: addr(300), Destination: netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(9))}), Port: uint16(20 + r.IntN(8))}
			switch r.IntN(7) {
			case 0:
				o.What = DeniedInbound
				if h%333 == 332 {
					o.N = 5000
				}
			case 1:
				o.What, o.User, o.Country, o.Network = SignIn, fmt.Sprint("user", r.IntN(30)), []string{"GB", "GB", "GB", "FR", "AU"}[r.IntN(5)], uint32(r.IntN(8))
			case 2:
				o.What = FailedSignIn | Suspicious
			case 3:
				o.What, o.Signature = Intrusion|Suspicious, fmt.Sprint(r.IntN(10+h/60))
			case 4, 5:
				o.What, o.Source, o.Destination, o.Bytes = Outbound, o.Destination, o.Source, uint64(r.IntN(1e7))
			case 6:
				o.What, o.URL, o.JA3 = Suspicious, fmt.Sprintf("/a/%c", 'a'+r.IntN(20)), fmt.Sprint(r.IntN(9))
				if r.IntN(2) == 0 {
					o.What = AllowedInbound
				}
			}
			out = append(out, o)
		}
	}
	return out
}

// A restored engine says what the first one says, word for word, and its state is the same byte for byte.
func TestRestoredIsEqual(t *testing.T) {
	for _, where := range []Where{Hub, Site} {
		for _, folder := range []bool{false, true} {
			o := Options{Where: where, Warm: 48 * time.Hour}
			if folder {
				o.Dir = t.TempDir()
			}
			list := traffic(1, 14*24)
			a := engine(t, o)
			o.Key = &sketch.Key{A: 77, B: 78} // must come from the state
			told, restarts := 0, 0
			var live *Engine = a
			for i := range list {
				now := list[i].At
				if i%1700 == 1699 {
					s, err := live.Snapshot()
					if err != nil {
						t.Fatal(err)
					}
					b := engine(t, o)
					if err := b.Restore(s); err != nil {
						t.Fatalf("%s, folder %t: %v", where, folder, err)
					}
					if folder { // both write whole ones: into folders of their own from here on
						b.opts.Dir = t.TempDir()
						a.opts.Dir, a.base = t.TempDir(), fullFile{}
						o.Dir = b.opts.Dir
					}
					live = b
					restarts++
				}
				want := a.Observe(&list[i], now)
				if live != a {
					got := live.Observe(&list[i], now)
					if !reflect.DeepEqual(got, want) {
						t.Fatalf("%s, folder %t, event %d: restored it says\n%+v\nnot\n%+v", where, folder, i, got, want)
					}
				}
				told += len(want)
			}
			x, err := a.encode(whole)
			if err != nil {
				t.Fatal(err)
			}
			live.gen = a.gen
			y, err := live.encode(whole)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(x, y) {
				t.Errorf("%s, folder %t: the states differ after %d restarts", where, folder, restarts)
			}
			t.Logf("%s, folder %t: %d observations, %d restarts, %d detections, state %d bytes", where, folder, len(list), restarts, told, len(x))
			if told < 20 {
				t.Errorf("%d detections are too few to compare", told)
			}
		}
	}
}

// An hour with many sources that is cut by a restart is told at the same source as without.
func TestRestoredHourOfManySources(t *testing.T) {
	begin := weekday(6, 1, 9*time.Hour)
	tellsAt := func(restart int) int {
		e := engine(t, Options{})
		season(e, 1, 0, 6, func(w, h int) int { return 1 })
		for i := range 600 {
			if i == restart {
				s, err := e.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				e = engine(t, Options{})
				if err := e.Restore(s); err != nil {
					t.Fatal(err)
				}
			}
			o := denied(1, begin+int64(i)*1e9, 1, "192.0.2.1")
			o.Source = netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
			for _, d := range e.Observe(o, o.At) {
				if d.RuleID == "baseline-sources" {
					return i
				}
			}
		}
		return -1
	}
	want := tellsAt(-1)
	if want < 80 || want > 120 {
		t.Fatalf("a hundred sources are unusual; told at %d", want)
	}
	for _, restart := range []int{20, 40, want - 1} {
		if got := tellsAt(restart); got != want {
			t.Errorf("restarted at source %d it is told at %d, otherwise at %d", restart, got, want)
		}
	}
}

// With a folder a snapshot holds what changed, and only the two newest whole ones stay.
func TestChangesOnly(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	e := engine(t, o)
	list := traffic(2, 10*24)
	var changed []byte
	for i := range list {
		e.Observe(&list[i], list[i].At)
		if i%100 == 99 {
			s, err := e.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			changed = s
		}
	}
	files, err := filepath.Glob(filepath.Join(o.Dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("files: %v %v", files, err)
	}
	size, err := os.Stat(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(changed)) > size.Size()*2/3 {
		t.Errorf("changes of %d bytes, the whole has %d", len(changed), size.Size())
	}
	b := engine(t, o)
	if err := b.Restore(changed); err != nil {
		t.Fatal(err)
	}
	// What it builds on is gone, or another: an error that names the file, and an engine that has learnt nothing but works.
	for _, f := range files {
		if err := os.WriteFile(f, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Restore(changed); err == nil {
		t.Error("restored from a damaged file")
	}
	if len(b.tenants) != 0 {
		t.Error("half a state stayed")
	}
	b.Observe(&list[0], list[0].At)
	if _, err := b.Snapshot(); err != nil {
		t.Error(err)
	}
}

func TestDamagedSnapshots(t *testing.T) {
	e := engine(t, Options{})
	for _, o := range traffic(3, 48) {
		e.Observe(&o, o.At)
	}
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		b := bytes.Clone(s)
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		if engine(t, Options{}).Restore(b) == nil {
			t.Fatal("a snapshot with a wrong bit was taken")
		}
	}
	for _, n := range []int{0, 1, 20, len(s) / 2, len(s) - 1} {
		if engine(t, Options{}).Restore(s[:n]) == nil {
			t.Fatalf("%d bytes of %d were taken", n, len(s))
		}
	}
}

func FuzzRestore(f *testing.F) {
	for _, where := range []Where{Hub, Site} {
		e := engine(f, Options{Where: where})
		for _, o := range traffic(4, 24) {
			e.Observe(&o, o.At)
		}
		s, err := e.Snapshot()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s[:len(s)-sumBytes], where == Site)
	}
	next := traffic(5, 72)
	f.Fuzz(func(t *testing.T, body []byte, site bool) {
		o := Options{Where: Hub}
		if site {
			o.Where = Site
		}
		e := engine(t, o)
		if err := e.Restore(seal(bytes.Clone(body))); err != nil { // the checksum is right, whatever the rest is
			return
		}
		for i := range min(len(next), 300) {
			x := next[len(next)-1-i]
			x.At += e.clock
			e.Observe(&x, x.At)
		}
		if _, err := e.Snapshot(); err != nil {
			t.Fatal(err)
		}
	})
}

// The sizes that bounds are made of are those of the structures.
func TestSizes(t *testing.T) {
	for name, c := range map[string]struct {
		have   uintptr
		stated int
	}{
		"account": {reflect.TypeFor[account]().Size(), accountBytes}, "host": {reflect.TypeFor[host]().Size(), hostBytes}, "beat": {reflect.TypeFor[beat]().Size(), beatBytes},
		"popular": {reflect.TypeFor[popular]().Size(), popularBytes}, "crossing": {reflect.TypeFor[crossing]().Size(), crossingBytes}, "rate": {reflect.TypeFor[rate]().Size(), rateBytes},
		"spread": {reflect.TypeFor[spreadEntry]().Size(), spreadBytes}, "tenant": {reflect.TypeFor[tenant]().Size(), tenantBytes}, "votes": {reflect.TypeFor[votes]().Size(), quarters * (sketch.DistinctBytes + 16)},
	} {
		if int(c.have) > c.stated {
			t.Errorf("%s: %d bytes, stated are %d", name, c.have, c.stated)
		}
	}
}

// No member takes more than is stated, whatever it sends.
func TestMemoryBounds(t *testing.T) {
	for _, where := range []Where{Hub, Site} {
		e := engine(t, Options{Where: where})
		r := rand.New(rand.NewPCG(6, 6))
		most := 0
		for i := range 120_000 {
			at := monday.Add(time.Duration(i) * 8 * time.Second).UnixNano()
			o := Observation{Tenant: 5, At: at, N: 1, ID: id(i), Proven: i%2 == 0, Session: true, What: What(r.IntN(128)), Bytes: r.Uint64() >> r.IntN(64), Country: "GB", Network: r.Uint32(), Port: uint16(r.IntN(65536)),
				User: fmt.Sprint(r.Uint32()), Signature: fmt.Sprint(r.Uint32()), URL: fmt.Sprint("/", r.Uint32()), JA3: fmt.Sprint(r.Uint32())}
			o.Source = netip.AddrFrom4([4]byte{byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
			o.Destination = netip.AddrFrom4([4]byte{byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
			e.Observe(&o, at)
			if i%1000 == 0 {
				most = max(most, e.tenants[5].bytes())
			}
		}
		t.Logf("%s: %d bytes, stated %d; across members %d", where, most, TenantBytes(where), AcrossBytes())
		if most > TenantBytes(where) {
			t.Errorf("%s: %d bytes, stated are %d", where, most, TenantBytes(where))
		}
		if where == Hub && TenantBytes(where) > 64<<10 {
			t.Errorf("%d bytes a member at the hub, the bar is 64 kB", TenantBytes(where))
		}
		if where == Site && TenantBytes(where) > 8<<20 {
			t.Errorf("%d bytes on a site, the bar is 8 MB of the collector's 64", TenantBytes(where))
		}
		if s := e.Stats(); s.Evicted == 0 || s.Told["baseline-full"] == 0 {
			t.Errorf("%s: what was pushed out was not told: %d, %v", where, s.Evicted, s.Told)
		}
	}
	// Members beyond the most are refused, and counted.
	e := engine(t, Options{MaxTenants: 10})
	for m := range 50 {
		e.Observe(denied(event.TenantID(m+1), weekday(0, 0, 0), 1, "192.0.2.1"), weekday(0, 0, 0))
	}
	if s := e.Stats(); s.Tenants != 10 || s.Refused != 40 {
		t.Errorf("%d members, %d refused", s.Tenants, s.Refused)
	}
}

func TestForget(t *testing.T) {
	e := engine(t, Options{})
	for _, o := range traffic(7, 24*10) {
		e.Observe(&o, o.At)
	}
	e.Forget(3)
	s, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	b := engine(t, Options{})
	if err := b.Restore(s); err != nil {
		t.Fatal(err)
	}
	for i := range b.signatures.slots {
		if slices.Contains(b.signatures.slots[i].tenants[:], 3+1) {
			t.Fatal("a signature still knows that member 3 had it")
		}
	}
	if b.tenants[3] != nil || b.tenants[4] == nil {
		t.Error("member 3 is still there, or member 4 has gone")
	}
	for i := range b.crossings.slots {
		for _, v := range b.crossings.slots[i].few {
			if v.tenant == 3 {
				t.Fatal("a vote of member 3 is still there")
			}
		}
	}
}

type fakeRules struct {
	state string
	fail  bool
}

func (f *fakeRules) Process(*event.Event, int64) []event.Detection { return nil }
func (f *fakeRules) Snapshot() ([]byte, error)                     { return []byte(f.state), nil }
func (f *fakeRules) Restore(b []byte) error {
	if f.fail {
		return fmt.Errorf("rules have changed")
	}
	f.state = string(b)
	return nil
}

func TestJoined(t *testing.T) {
	e := engine(t, Options{})
	for _, o := range traffic(8, 24*5) {
		e.Observe(&o, o.At)
	}
	a := &Joined{Rules: &fakeRules{state: "windows"}, Baseline: e}
	s, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r := &fakeRules{}
	b := &Joined{Rules: r, Baseline: engine(t, Options{})}
	if err := b.Restore(s); err != nil || r.state != "windows" || len(b.Baseline.tenants) != len(e.tenants) {
		t.Errorf("%v %q %d", err, r.state, len(b.Baseline.tenants))
	}
	// Rules that cannot use theirs do not cost the baselines' weeks, nor the other way round.
	b = &Joined{Rules: &fakeRules{fail: true}, Baseline: engine(t, Options{})}
	if err := b.Restore(s); err != nil || len(b.Baseline.tenants) == 0 {
		t.Errorf("%v, %d members", err, len(b.Baseline.tenants))
	}
	damaged := bytes.Clone(s)
	damaged[len(damaged)-1] ^= 1
	b = &Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{})}
	if err := b.Restore(damaged); err != nil || time.Since(b.Baseline.Stats().Anew) > time.Minute {
		t.Errorf("%v; it is to be said that learning began anew: %v", err, b.Baseline.Stats().Anew)
	}
	if err := b.Restore(s); err != nil || !b.Baseline.Stats().Anew.IsZero() {
		t.Errorf("an older snapshot was good: %v, %v", err, b.Baseline.Stats().Anew)
	}
	// It is said over the next starts too, though what was learnt since is restored well then; and when there was nothing left to restore.
	dir := t.TempDir()
	for _, lose := range []func(j *Joined){func(j *Joined) { _ = j.Restore(damaged) }, func(j *Joined) { j.Forgotten() }, func(j *Joined) { _ = j.Restore(s[:len(joinMagic)+2]) }} {
		first := &Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{Dir: dir})}
		lose(first)
		since, err := first.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			next := &Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{Dir: dir})}
			if err := next.Restore(since); err != nil || time.Since(next.Baseline.Stats().Anew) > time.Minute {
				t.Errorf("after a start: %v, %v", err, next.Baseline.Stats().Anew)
			}
		}
		if err := first.Baseline.Restore(mustSnapshot(t, first.Baseline)); err != nil || !(&Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{Dir: dir})}).Baseline.Stats().Anew.IsZero() {
			t.Errorf("an older state was good: %v", err)
		}
	}
	b = &Joined{Rules: &fakeRules{fail: true}, Baseline: engine(t, Options{})}
	if err := b.Restore(damaged); err == nil {
		t.Error("neither could be restored, and that is no error")
	}
	// From before there were baselines.
	b = &Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{})}
	if err := b.Restore([]byte("old windows")); err != nil || b.Rules.(*fakeRules).state != "old windows" {
		t.Errorf("%v %q", err, b.Rules.(*fakeRules).state)
	}
	for n := range len(joinMagic) + 8 {
		_ = (&Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{})}).Restore(s[:n])
	}
	c := &Joined{Rules: &fakeRules{}, Baseline: engine(t, Options{})}
	c.Inherit(a)
	if c.Baseline != e {
		t.Error("newer rules lost what was learnt")
	}
	if err := (&Joined{Rules: &fakeRules{fail: true}, Baseline: engine(t, Options{})}).RestoreLearnt(s); err != nil {
		t.Error(err)
	}
}

func mustSnapshot(t *testing.T, e *Engine) []byte {
	t.Helper()
	b, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
