package eventstore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// world is a set of events stored and, beside it, the same events in memory to compute every answer a second way.
type world struct {
	s   *Store
	all []Stored
}

const day = 24 * int64(time.Hour)

func makeWorld(t testing.TB, s *Store) *world {
	t.Helper()
	w := &world{s: s}
	b := NewBlock()
	m := newMaker(9)
	seq := map[event.TenantID]uint64{}
	add := func(e *event.Event, quarantined bool) {
		if !b.Add(e, Meta{Quarantined: quarantined}) {
			t.Fatal("block full")
		}
		class, service, level := Classify(e)
		w.all = append(w.all, Stored{Event: e.Clone(), StoredAt: e.Created / 1e3 * 1e3, Class: class, Service: service, Level: level, Quarantined: quarantined})
	}
	for d := range int64(10) {
		for _, tn := range []event.TenantID{1, 2, 3, 4} {
			seq[tn]++
			for i := range 40 {
				at := noon - d*day + int64(i)*13*int64(time.Minute) + int64(tn)*1e9
				e := m.firewall(tn, seq[tn], i, at)
				switch i % 8 {
				case 5:
					e.SetString(event.EventCategory, "intrusion_detection")
					e.SetString(event.EventKind, "alert")
					e.SetString(event.RuleID, fmt.Sprint(2000000+i))
					e.SetString(event.RuleName, "ET SCAN something "+fmt.Sprint(i))
					e.SetString(event.TocsinSeverity, []string{"low", "medium", "high", "critical"}[i/8%4])
				case 6:
					e.SetString(event.EventCategory, "authentication")
					e.SetString(event.UserName, "o'brien\\"+fmt.Sprint(i%3))
					e.SetString(event.EventOutcome, []string{"failure", "success"}[i/8%2])
					e.SetString(event.TocsinService, "vpn")
					e.SetString(event.Message, "SSL VPN login fail for user o'brien")
				case 7:
					e.SetString(event.TocsinIndicatorID, "ind-1")
					e.SetString(event.URLDomain, "bad.example.com")
				}
				add(e, tn == 4)
			}
		}
	}
	if err := s.Insert(context.Background(), "world", b); err != nil {
		t.Fatal(err)
	}
	return w
}

// visible are the events a scope may see, as national figures count them.
func (w *world) visible(scope access.Scope, f func(Stored) bool) []Stored {
	var out []Stored
	for _, e := range w.all {
		if !scope.Covers(e.Tenant) || scope.National() && e.Quarantined {
			continue
		}
		if f == nil || f(e) {
			out = append(out, e)
		}
	}
	return out
}

var scopes = map[string]access.Scope{"national": access.System("test"), "member 1": access.Only(1), "member 4, quarantined": access.Only(4), "member 9, empty": access.Only(9), "nothing": {}}

func TestQueries(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		w := makeWorld(t, s)
		ctx := context.Background()
		from, to := noon-11*day, noon+2*day
		from -= from % day
		to -= to % day
		for name, sc := range scopes {
			t.Run(name, func(t *testing.T) {
				// Histogram, by roll-up and by events: the same figures.
				for _, f := range []Filter{{From: from, To: to}, {From: from + 1e9, To: to}, {From: from, To: to, Country: "CN"}} {
					got, err := s.Histogram(ctx, sc, f, 24*time.Hour)
					if err != nil {
						t.Fatal(err)
					}
					want := make([]Bucket, len(got))
					start := from
					for i := range want {
						want[i].Start = start + int64(i)*day
					}
					for _, e := range w.visible(sc, nil) {
						if f.Country != "" && e.Str(event.SourceGeoCountryISOCode) != f.Country {
							continue
						}
						b := &want[(e.StoredAt-start)/day]
						switch e.Level {
						case "critical":
							b.Critical++
						case "high":
							b.High++
						case "medium":
							b.Medium++
						default:
							b.Low++
						}
					}
					if !reflect.DeepEqual(got, want) {
						t.Errorf("histogram %+v\n got %+v\nwant %+v", f, got, want)
					}
				}
				// Summary.
				got, err := s.Summary(ctx, sc, from, to)
				if err != nil {
					t.Fatal(err)
				}
				sources, classes := map[string]bool{}, map[string]uint64{}
				vis := w.visible(sc, nil)
				for _, e := range vis {
					sources[e.Text(event.SourceIP)] = true
					classes[e.Class]++
				}
				if got.Events != uint64(len(vis)) || got.Sources != uint64(len(sources)) || len(got.ByClass) != len(classes) || got.Denied != classes[ClassDenied] || got.IDS != classes[ClassIDS] || got.SignInFailed != classes[ClassSignInFailed] {
					t.Errorf("summary %+v, want %d events, %d sources, %v", got, len(vis), len(sources), classes)
				}
				// Top lists, from roll-ups (no filter) and from the events (a filter that chooses all).
				value := map[Field]func(e Stored) string{
					BySourceIP: func(e Stored) string { return e.Text(event.SourceIP) }, ByCountry: func(e Stored) string { return e.Str(event.SourceGeoCountryISOCode) },
					ByPort: func(e Stored) string { return e.Text(event.DestinationPort) }, ByClass: func(e Stored) string { return e.Class }, ByLevel: func(e Stored) string { return e.Level },
					ByService: func(e Stored) string { return e.Service }, ByUser: func(e Stored) string { return e.Str(event.UserName) }, ByAS: func(e Stored) string { return e.Text(event.SourceASNumber) },
					ByTenant: func(e Stored) string { return fmt.Sprint(e.Tenant) }, ByDestinationIP: func(e Stored) string { return e.Text(event.DestinationIP) }, ByDomain: func(e Stored) string { return e.Str(event.URLDomain) },
					ByAction: func(e Stored) string { return e.Str(event.EventAction) }, ByDataset: func(e Stored) string { return e.Str(event.EventDataset) }, ByProduct: func(e Stored) string { return e.Str(event.ObserverProduct) },
				}
				for field, of := range value {
					want := map[string]uint64{}
					for _, e := range vis {
						if v := of(e); v != "" {
							want[v]++
						}
					}
					for how, f := range map[string]Filter{"roll-up": {From: from, To: to}, "events": {From: from, To: to, Collector: "0190a3c2-0000-7000-8000-000000000001"}} {
						got, err := s.Top(ctx, sc, field, f, MaxTop)
						if err != nil {
							t.Fatalf("top %s from %s: %v", field, how, err)
						}
						have := map[string]uint64{}
						for i, c := range got {
							have[c.Value] = c.Count
							if i > 0 && got[i-1].Count < c.Count {
								t.Errorf("top %s from %s is not in order", field, how)
							}
						}
						if len(want) <= MaxTop && !reflect.DeepEqual(have, want) {
							t.Errorf("top %s from %s: %d values, want %d", field, how, len(have), len(want))
						}
					}
				}
				// Rules are listed without the firewall's policy numbers.
				rules, err := s.Top(ctx, sc, ByRule, Filter{From: from, To: to}, 10)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range rules {
					if r.Value == "0" || !strings.HasPrefix(r.Label, "ET SCAN") {
						t.Errorf("rule %+v", r)
					}
				}
				// Filters.
				src := w.all[3].Text(event.SourceIP)
				addr := netip.MustParseAddr(src)
				for what, c := range map[string]struct {
					f    Filter
					want func(Stored) bool
				}{
					"all":       {Filter{}, nil},
					"time":      {Filter{From: noon - 3*day, To: noon - 2*day}, func(e Stored) bool { return e.StoredAt >= noon-3*day && e.StoredAt < noon-2*day }},
					"source":    {Filter{SourceIP: netip.PrefixFrom(addr, 32)}, func(e Stored) bool { return e.Text(event.SourceIP) == src }},
					"network":   {Filter{SourceIP: netip.MustParsePrefix("203.0.113.0/24")}, func(e Stored) bool { return strings.HasPrefix(e.Text(event.SourceIP), "203.0.113.") }},
					"either":    {Filter{EitherIP: netip.MustParsePrefix("198.51.100.0/24")}, func(e Stored) bool { return true }},
					"user":      {Filter{User: `o'brien\1`}, func(e Stored) bool { return e.Str(event.UserName) == `o'brien\1` }},
					"text":      {Filter{Text: "LOGIN o'brien"}, func(e Stored) bool { return e.Str(event.UserName) != "" }},
					"class":     {Filter{Class: ClassIDS, Level: "critical"}, func(e Stored) bool { return e.Class == ClassIDS && e.Level == "critical" }},
					"port":      {Filter{Port: 22}, func(e Stored) bool { return e.Text(event.DestinationPort) == "22" }},
					"domain":    {Filter{Domain: "bad.example.com"}, func(e Stored) bool { return e.Str(event.URLDomain) != "" }},
					"tenants":   {Filter{Tenants: []event.TenantID{2, 3, 77}}, func(e Stored) bool { return e.Tenant == 2 || e.Tenant == 3 }},
					"injection": {Filter{User: "x' OR 1=1 --", Text: "') OR 1=1 --", Country: "\\' OR '1'='1"}, func(e Stored) bool { return false }},
				} {
					want := w.visible(sc, c.want)
					slices.SortFunc(want, func(a, b Stored) int {
						return strings.Compare(orderKey(b), orderKey(a))
					})
					var got []Stored
					var cur Cursor
					pages := 0
					for {
						list, next, err := s.Events(ctx, sc, c.f, 37, cur)
						if err != nil {
							t.Fatalf("%s: %v", what, err)
						}
						got = append(got, list...)
						if pages++; next == "" || pages > 100 {
							break
						}
						cur = next
					}
					if len(got) != len(want) {
						t.Errorf("events %s: %d, want %d", what, len(got), len(want))
						continue
					}
					for i := range got {
						if got[i].ID != want[i].ID {
							t.Errorf("events %s: place %d has %s, want %s", what, i, got[i].ID, want[i].ID)
							break
						}
					}
				}
				// Address.
				var n, members uint64
				seen := map[event.TenantID]bool{}
				for _, e := range w.visible(sc, func(e Stored) bool { return e.Text(event.SourceIP) == src }) {
					n++
					if !seen[e.Tenant] {
						seen[e.Tenant] = true
						members++
					}
				}
				c, ok, err := s.Address(ctx, sc, addr, 0, 0)
				if err != nil || ok != (n > 0) || c.Count != n || sc.National() && c.Members != members || !sc.National() && c.Members != 0 {
					t.Errorf("address %+v %v %v, want %d events at %d members", c, ok, err, n, members)
				}
			})
		}
	})
}

func orderKey(e Stored) string {
	return fmt.Sprintf("%020d %s %020d", e.StoredAt, e.ID.Stream[:], e.ID.Seq*1e6+uint64(e.ID.Index))
}

// TestIsolation asks every query in every way for what belongs to another member, and looks for it in the answer.
func TestIsolation(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		b := NewBlock()
		m := newMaker(5)
		secret := netip.MustParseAddr("192.0.2.77")
		var ids []event.ID
		for i := range 5 {
			e := m.firewall(2, 1, i, noon+int64(i))
			e.SetIP(event.SourceIP, secret)
			e.SetIP(event.DestinationIP, secret)
			for _, k := range []event.Key{event.UserName, event.RuleID, event.EventAction, event.EventDataset, event.URLDomain, event.HostName, event.ObserverProduct, event.Message, event.SourceGeoCountryISOCode, event.TocsinService} {
				e.SetString(k, "SECRET")
			}
			e.SetString(event.EventCategory, "intrusion_detection")
			e.SetInt(event.DestinationPort, 7777)
			e.SetInt(event.SourceASNumber, 7777)
			ids = append(ids, e.ID)
			b.Add(e, Meta{})
		}
		for i := range 5 {
			b.Add(m.firewall(1, 1, i, noon+int64(i)), Meta{})
		}
		if err := s.Insert(ctx, "x", b); err != nil {
			t.Fatal(err)
		}
		from, to := noon-2*day, noon+2*day
		from, to = from-from%day, to-to%day
		for _, sc := range []access.Scope{access.Only(1), {}, access.Only(3), access.System("t").Narrow(1)} {
			filters := []Filter{{From: from, To: to}, {From: from, To: to, Tenants: []event.TenantID{2}}, {From: from, To: to, Tenants: []event.TenantID{1, 2}, Quarantined: true}, {From: from, To: to, SourceIP: netip.PrefixFrom(secret, 32)},
				{From: from, To: to, User: "SECRET"}, {From: from, To: to, Text: "SECRET"}, {From: from, To: to, Port: 7777}, {From: from, To: to, Text: "x' OR tenant = 2 OR '"}}
			var answers []any
			keep := func(v any, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				answers = append(answers, v)
			}
			for _, f := range filters {
				for field := range topSources {
					keep(s.Top(ctx, sc, field, f, 100))
				}
				keep(s.Top(ctx, sc, BySourceIP, f, 100))
				list, _, err := s.Events(ctx, sc, f, 100, "")
				keep(describe(list), err)
				h, err := s.Histogram(ctx, sc, f, time.Hour)
				var n uint64
				for _, x := range h {
					n += x.Total()
				}
				if n > 5 {
					t.Errorf("%v: a histogram of %d events", sc, n)
				}
				keep(nil, err)
			}
			sum, err := s.Summary(ctx, sc, from, to)
			keep(sum, err)
			if sum.Events > 5 || sum.IDS > 0 {
				t.Errorf("%v: summary %+v", sc, sum)
			}
			list, err := s.ByIDs(ctx, sc, ids)
			keep(describe(list), err)
			c, ok, err := s.Address(ctx, sc, secret, 0, 0)
			keep(c, err)
			if ok || len(list) > 0 {
				t.Errorf("%v sees another member's address or events", sc)
			}
			counts, err := s.CollectorCounts(ctx, sc, 0, 0)
			keep(counts, err)
			for _, c := range counts {
				if c.Tenant != 1 {
					t.Errorf("%v sees tenant %d", sc, c.Tenant)
				}
			}
			text := fmt.Sprintf("%+v", answers)
			for _, bad := range []string{"SECRET", "192.0.2.77", "7777"} {
				if strings.Contains(text, bad) {
					t.Errorf("%v: %s is in an answer", sc, bad)
				}
			}
		}
	})
}

func describe(list []Stored) string {
	var b strings.Builder
	for _, e := range list {
		b.Write(e.AppendJSON(nil))
	}
	return b.String()
}

// TestReadersGate sends what a broken query builder might: none of it may change or read anything beyond the tables.
func TestReadersGate(t *testing.T) {
	s := openStore(t)
	ctx := context.Background()
	b := NewBlock()
	fill(t, b, newMaker(1), []event.TenantID{1}, 1, 10, noon)
	if err := s.Insert(ctx, "x", b); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"INSERT INTO tocsin.events SELECT * FROM tocsin.events", "DROP TABLE tocsin.events", "TRUNCATE TABLE tocsin.events", "ALTER TABLE tocsin.events DELETE WHERE 1", "SET readonly=0",
		"SELECT 1 SETTINGS readonly=0", "SELECT 1 SETTINGS max_memory_usage=0", "SELECT * FROM tocsin.events INTO OUTFILE '/tmp/leak'", "KILL QUERY WHERE 1", "SYSTEM SHUTDOWN",
		"SELECT * FROM file('/etc/passwd', 'LineAsString')", "SELECT * FROM url('http://127.0.0.1/', 'LineAsString')", "SELECT * FROM remote('127.0.0.1', 'system.one')", "SELECT * FROM executable('id', 'TabSeparated', 'x String')",
		"SELECT 1; SELECT 2", "foo bar", "CREATE TABLE x (a UInt8) ENGINE = Memory", "BACKUP DATABASE tocsin TO File('/tmp/x')", "EXPLAIN SELECT 1; DROP TABLE tocsin.events", "DETACH TABLE tocsin.events", "ATTACH TABLE x FROM '/tmp'",
	} {
		r := s.reader(access.System("test"))
		err := s.c.do(ctx, sql, r.args, nil, nil)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v, want a refusal by the engine", sql, err)
		}
	}
	for _, a := range []args{{"readonly": "2"}, {"no_such_setting": "1"}, {"allow_ddl": "1"}, {"readonly": "1", "max_memory_usage": "x'; DROP TABLE tocsin.events --"}} {
		if err := s.c.do(ctx, "SELECT 1", a, nil, nil); err == nil {
			t.Errorf("settings %v were taken", a)
		}
	}
	if n := rowCount(t, s); n != 10 {
		t.Fatalf("%d rows left, want 10", n)
	}
}

func TestLimits(t *testing.T) {
	s := openStore(t)
	ctx := context.Background()
	s.opt.QueryTime = 300 * time.Millisecond
	r := s.reader(access.System("test"))
	start := time.Now()
	err := s.run(ctx, r, "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", nil, func() {}, func(int) error { return nil })
	if !errors.Is(err, ErrTooLong) || time.Since(start) > 5*time.Second {
		t.Errorf("a query without end: %v after %v", err, time.Since(start))
	}
	s.opt.QueryTime, s.opt.QueryMemory = 10*time.Second, 10<<20
	r = s.reader(access.System("test"))
	err = s.run(ctx, r, "SELECT number, count() FROM numbers(20000000) GROUP BY number FORMAT Null", nil, func() {}, func(int) error { return nil })
	if !errors.Is(err, ErrTooBig) {
		t.Errorf("a query over its memory: %v", err)
	}
	// A reader who leaves stops the engine's work.
	c, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.c.do(c, "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 2", args{"max_execution_time": "60"}, nil, nil)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a query whose caller left: %v", err)
		}
	})
	running := func() bool {
		var n uint64
		got, err := s.sums(ctx, "SELECT toInt32(0), toUInt32(0), count() FROM system.processes WHERE query LIKE '%sipHash64(number) = 2%' AND query NOT LIKE '%system.processes%'", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range got {
			n += v
		}
		return n > 0
	}
	waitFor(t, "the query to run", running)
	cancel()
	wg.Wait()
	waitFor(t, "the query to be killed", func() bool { return !running() })
}

func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestCursorAndFilterErrors(t *testing.T) {
	s := &Store{}
	for _, c := range []Cursor{"x", "AAAA", Cursor(strings.Repeat("A", 47)), "'; DROP"} {
		if _, _, err := s.Events(context.Background(), access.System("t"), Filter{}, 1, c); !errors.Is(err, ErrBadFilter) {
			t.Errorf("cursor %q: %v", c, err)
		}
	}
	if _, err := s.Histogram(context.Background(), access.System("t"), Filter{From: 1, To: noon}, time.Second); !errors.Is(err, ErrBadFilter) {
		t.Errorf("a histogram of a billion steps: %v", err)
	}
	if _, err := s.Top(context.Background(), access.System("t"), "evil", Filter{}, 1); !errors.Is(err, ErrBadFilter) {
		t.Errorf("a list by an unknown field: %v", err)
	}
}
