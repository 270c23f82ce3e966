package eventstore

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/event"
	"tocsin/internal/eventstore/engine/enginetest"
)

// noon is yesterday's: the engine's own clock decides what has expired, so a fixed date would not stay.
var noon = time.Now().Truncate(24 * time.Hour).Add(-12 * time.Hour).UnixNano()

// openStore gives a store on the real engine in a child process.
func openStore(t testing.TB) *Store {
	t.Helper()
	e := enginetest.Start(t, enginetest.Dir(t))
	return openAt(t, Options{Address: e.Address(), Ready: e.Ready})
}

func openAt(t testing.TB, o Options) *Store {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// stores runs f on the embedded engine and, if TOCSIN_TEST_CLICKHOUSE names one, on a ClickHouse server.
func stores(t *testing.T, f func(t *testing.T, s *Store)) {
	t.Run("embedded", func(t *testing.T) { f(t, openStore(t)) })
	t.Run("server", func(t *testing.T) {
		addr := os.Getenv("TOCSIN_TEST_CLICKHOUSE")
		if addr == "" {
			t.Skip("SKIPPED: no ClickHouse server given in TOCSIN_TEST_CLICKHOUSE")
		}
		db := fmt.Sprintf("tocsin_test_%d", rand.Uint32())
		s := openAt(t, Options{Address: addr, Database: db})
		t.Cleanup(func() { s.c.exec(context.Background(), "DROP DATABASE "+db, nil) })
		f(t, s)
	})
}

type maker struct {
	rng    *rand.Rand
	stream map[event.TenantID]event.StreamID
	e      event.Event
}

func newMaker(seed uint64) *maker {
	return &maker{rng: rand.New(rand.NewPCG(seed, 1)), stream: map[event.TenantID]event.StreamID{}}
}

func streamOf(t event.TenantID) event.StreamID {
	var s event.StreamID
	copy(s[:], fmt.Sprintf("stream-%09d", t))
	return s
}

var countries = []string{"CN", "RU", "US", "NL", "BR", "VN", "GB", "DE", "IN", "FR"}

// firewall fills e as a minimised firewall denial, the most frequent event by far.
func (m *maker) firewall(tenant event.TenantID, seq uint64, index int, at int64) *event.Event {
	e, r := &m.e, m.rng
	e.Reset()
	e.Tenant, e.ID = tenant, event.ID{Stream: streamOf(tenant), Seq: seq, Index: uint32(index)}
	e.Created = at
	e.Time = at/1e9*1e9 - 1e9
	e.Ingested = at + 300e6
	src := netip.AddrFrom4([4]byte{203, 0, byte(113 + r.IntN(2)), byte(r.IntN(256))})
	e.SetIP(event.SourceIP, src)
	e.SetInt(event.SourcePort, int64(1024+r.IntN(60000)))
	e.SetIP(event.DestinationIP, netip.AddrFrom4([4]byte{198, 51, 100, byte(tenant)}))
	ports := []int64{22, 23, 80, 443, 445, 3389, 8080, 5060, 1433, 6379}
	port := ports[r.IntN(len(ports))]
	if r.IntN(4) == 0 {
		port = int64(1 + r.IntN(65535))
	}
	e.SetInt(event.DestinationPort, port)
	e.SetString(event.NetworkTransport, "tcp")
	e.SetString(event.NetworkDirection, "inbound")
	e.SetString(event.EventKind, "event")
	e.SetString(event.EventCategory, "network")
	e.AddString(event.EventType, "connection")
	e.AddString(event.EventType, "denied")
	e.SetString(event.EventAction, "deny")
	e.SetString(event.EventOutcome, "failure")
	e.SetString(event.EventDataset, "fortinet.fortigate")
	e.SetString(event.EventModule, "fortinet")
	e.SetString(event.EventCode, "0000000013")
	e.SetString(event.ObserverVendor, "Fortinet")
	e.SetString(event.ObserverProduct, "FortiGate")
	e.SetString(event.ObserverType, "firewall")
	e.SetString(event.ObserverName, "edge-1")
	e.SetString(event.RuleID, "0")
	e.SetString(event.RuleName, "implicit deny")
	b4 := src.As4()
	e.SetString(event.SourceGeoCountryISOCode, countries[int(b4[3])%len(countries)])
	e.SetInt(event.SourceASNumber, int64(64496+int(b4[3])%16))
	e.SetString(event.SourceASOrganizationName, "Example Transit")
	e.SetString(event.TocsinSenderAssurance, "udp")
	e.SetString(event.TocsinSourceProof, "none")
	e.SetString(event.TocsinFormat, "fortigate")
	e.SetString(event.TocsinLeftReason, "inbound_denied")
	e.SetString(event.TocsinCollectorID, "0190a3c2-0000-7000-8000-000000000001")
	return e
}

func fill(t testing.TB, b *Block, m *maker, tenants []event.TenantID, seq uint64, per int, at int64) {
	t.Helper()
	for _, tn := range tenants {
		for i := range per {
			if !b.Add(m.firewall(tn, seq, i, at+int64(i)*1e6), Meta{}) {
				t.Fatal("block full")
			}
		}
	}
}

func total(t testing.TB, s *Store, sc access.Scope) uint64 {
	t.Helper()
	sum, err := s.Summary(context.Background(), sc, noon-100*24*int64(time.Hour), noon+100*24*int64(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return sum.Events
}

func rowCount(t testing.TB, s *Store) uint64 {
	t.Helper()
	list, err := s.CollectorCounts(context.Background(), access.System("test"), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for _, c := range list {
		n += c.Events
	}
	return n
}

func TestRoundTrip(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		b := NewBlock()
		m := newMaker(1)
		var want []*event.Event
		add := func(e *event.Event) {
			if !b.Add(e, Meta{ClockOffset: 1500 * time.Millisecond}) {
				t.Fatal("block full")
			}
			want = append(want, e.Clone())
		}
		add(m.firewall(7, 1, 0, noon))

		// Values that no column can hold as they are.
		e := m.firewall(7, 1, 1, noon+1e6)
		e.SetInt(event.SourcePort, 0)
		e.SetInt(event.DestinationPort, 70000)
		e.SetInt(event.SourceBytes, -1)
		e.SetIP(event.SourceIP, netip.MustParseAddr("::"))
		e.SetIP(event.DestinationIP, netip.MustParseAddr("2001:db8::1"))
		e.SetString(event.UserName, "")
		e.AddString(event.RuleName, "second name")
		e.AddString(event.EventCategory, "with,comma")
		e.SetFloat(event.EventRiskScore, 12.25)
		e.SetBool(event.TocsinLate, true)
		e.SetTime(event.EventStart, noon-5)
		e.AddString(event.Tags, "a")
		e.AddString(event.Tags, "b")
		e.AddString(event.Tags, "a")
		e.SetIP(event.HostIP, netip.MustParseAddr("192.0.2.9"))
		e.SetText(event.EventSeverity, "not a number")
		e.SetNamed("vendor.odd field", "tab\tnewline\nquote'backslash\\ \x00 ü")
		e.SetRaw([]byte("<134>raw 'line' \xff with \\ bytes"))
		e.SetString(event.Message, "it's a \\ message")
		add(e)

		// A detection of the site.
		e = &event.Event{Tenant: 7, ID: event.ID{Stream: streamOf(7), Seq: 2}, Created: noon + 2e6, Ingested: noon + 9e6}
		event.FromDetection(e, &event.Detection{RuleID: "r1", RuleTitle: "Title", Family: "scan", Level: "high", Entity: event.Entity{Kind: "source", Value: "203.0.113.5"}, First: noon, Last: noon + 1, Count: 3, Key: "k", Reason: "because", Tags: []string{"attack.t1110.003"}, Events: []event.ID{{Stream: streamOf(7), Seq: 1}}, Steps: []event.Step{{Time: noon, Text: "one"}}, Source: "203.0.113.5"})
		add(e)
		if err := s.Insert(ctx, "t1", b); err != nil {
			t.Fatal(err)
		}
		ids := make([]event.ID, len(want))
		for i, w := range want {
			ids[i] = w.ID
		}
		got, err := s.ByIDs(ctx, access.Only(7), ids)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("got %d events, want %d", len(got), len(want))
		}
		for i, w := range want {
			w.Time = w.Time / 1e3 * 1e3 // kept to the microsecond
			w.IncludeRaw(true)
			got[i].IncludeRaw(true)
			if g, w := sortedJSON(t, got[i].Event), sortedJSON(t, w); g != w {
				t.Errorf("event %d came back changed\n got %s\nwant %s", i, g, w)
			}
			if got[i].Tenant != 7 || got[i].ID != w.ID || got[i].StoredAt != w.Created+1500e6 {
				t.Errorf("event %d: header %v %v %v", i, got[i].Tenant, got[i].ID, got[i].StoredAt)
			}
		}
		if got[2].Class != ClassDetection || got[2].Level != "high" {
			t.Errorf("detection stored as %s %s", got[2].Class, got[2].Level)
		}
		if d, err := event.ToDetection(got[2].Event); err != nil || d.Key != "k" || len(d.Events) != 1 {
			t.Errorf("detection came back as %+v, %v", d, err)
		}
	})
}

func TestInsertTwiceStoresOnce(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		b := NewBlock()
		fill(t, b, newMaker(1), []event.TenantID{1, 2, 3}, 1, 100, noon)
		fill(t, b, newMaker(2), []event.TenantID{1, 2, 3}, 2, 50, noon-3*24*int64(time.Hour))
		for range 3 {
			if err := s.Insert(ctx, "plan-1", b); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Redo(ctx, "plan-1", b); err != nil {
			t.Fatal(err)
		}
		if got := rowCount(t, s); got != 450 {
			t.Fatalf("%d rows, want 450", got)
		}
		if got := total(t, s, access.System("test")); got != 450 {
			t.Fatalf("roll-up says %d, want 450", got)
		}
		if off, err := s.rollupsOff(ctx, b.tenants(), b.dayList()); err != nil || off {
			t.Fatalf("roll-ups differ: %v %v", off, err)
		}
		if st := s.Stats(); st.Repairs != 0 {
			t.Fatalf("repairs without a cause: %+v", st)
		}
		// A mark is known that was given, and no other.
		if err := s.Mark(ctx, 7_000_000_000_000_000_007); err != nil {
			t.Fatal(err)
		}
		for mark, want := range map[int64]bool{7_000_000_000_000_000_007: true, 7_000_000_000_000_000_008: false} {
			if there, err := s.Marked(ctx, mark); err != nil || there != want {
				t.Errorf("mark %d: %v, %v", mark, there, err)
			}
		}
	})
}

// TestRepair loses and doubles rows behind the store's back, as a lost replay and a lost deduplication record would, and
// damages a roll-up. Redo must find and mend all three.
func TestRepair(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		b, other := NewBlock(), NewBlock()
		fill(t, b, newMaker(1), []event.TenantID{1, 2}, 1, 100, noon)
		fill(t, b, newMaker(2), []event.TenantID{1, 2}, 2, 50, noon-2*24*int64(time.Hour))
		fill(t, other, newMaker(3), []event.TenantID{1, 3}, 5, 70, noon)
		check := func(what string) {
			t.Helper()
			if got := rowCount(t, s); got != 440 {
				t.Fatalf("%s: %d rows, want 440", what, got)
			}
			if off, err := s.rollupsOff(ctx, []uint32{1, 2, 3}, b.dayList()); err != nil || off {
				t.Fatalf("%s: roll-ups differ: %v %v", what, off, err)
			}
		}
		if err := s.Insert(ctx, "p1", b); err != nil {
			t.Fatal(err)
		}
		if err := s.Insert(ctx, "p2", other); err != nil {
			t.Fatal(err)
		}
		check("after inserts")
		sync2 := args{"mutations_sync": "2"}
		for _, c := range []struct{ what, sql string }{
			{"rows lost", "ALTER TABLE " + s.db + ".events DELETE WHERE tenant = 2 AND seq = 2"},
			{"rows doubled", "INSERT INTO " + s.db + ".events SELECT * FROM " + s.db + ".events WHERE tenant = 1 AND seq = 1"},
			{"a roll-up's part lost", "ALTER TABLE " + s.db + ".source_day DELETE WHERE day = toDate('" + dayString(int32(noon/86400e9)) + "')"},
			{"a roll-up doubled", "INSERT INTO " + s.db + ".tenant_hour SELECT * FROM " + s.db + ".tenant_hour WHERE tenant = 1"},
		} {
			if err := s.c.exec(ctx, c.sql, sync2); err != nil {
				t.Fatal(err)
			}
			if err := s.Redo(ctx, "p1", b); err != nil {
				t.Fatal(err)
			}
			check(c.what)
		}
		if st := s.Stats(); st.Repairs != 4 {
			t.Errorf("%d repairs, want 4", st.Repairs)
		}
		// A repair that was cut short is finished at the next start.
		if err := s.c.exec(ctx, "ALTER TABLE "+s.db+".tenant_hour DELETE WHERE 1", sync2); err != nil {
			t.Fatal(err)
		}
		if err := s.c.exec(ctx, "INSERT INTO "+s.db+".repairs SELECT 'x', now('UTC'), [1, 2, 3], "+dayList(b.dayList())+", 0", nil); err != nil {
			t.Fatal(err)
		}
		if err := s.finishRepairs(ctx); err != nil {
			t.Fatal(err)
		}
		check("repair finished at start")
	})
}

// TestRedoOfACutBatch redoes two blocks that share a batch, as a plan does whose first block was full in the middle of it (very large raw
// lines, or a look-back over months): neither may take the other's rows for its own.
func TestRedoOfACutBatch(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		m := newMaker(1)
		cut := []*Block{NewBlock(), NewBlock(), NewBlock()}
		for i := range 90 {
			if !cut[i/30].Add(m.firewall(7, 1, i, noon+int64(i)*1e6), Meta{}) {
				t.Fatal("block full")
			}
		}
		fill(t, cut[2], m, []event.TenantID{8}, 1, 10, noon)
		redo := func(what string) {
			t.Helper()
			for i, b := range cut {
				if err := s.Redo(ctx, fmt.Sprint("cut-", i), b); err != nil {
					t.Fatal(err)
				}
			}
			if got := rowCount(t, s); got != 100 {
				t.Fatalf("%s: %d rows, want 100", what, got)
			}
			if off, err := s.rollupsOff(ctx, []uint32{7, 8}, cut[0].dayList()); err != nil || off {
				t.Fatalf("%s: roll-ups differ: %v %v", what, off, err)
			}
		}
		for i, b := range cut {
			if err := s.Insert(ctx, fmt.Sprint("cut-", i), b); err != nil {
				t.Fatal(err)
			}
		}
		redo("nothing wrong")
		if st := s.Stats(); st.Repairs != 0 {
			t.Errorf("%d repairs where nothing was wrong", st.Repairs)
		}
		sync2 := args{"mutations_sync": "2"}
		if err := s.c.exec(ctx, "ALTER TABLE "+s.db+".events DELETE WHERE tenant = 7 AND idx BETWEEN 40 AND 44", sync2); err != nil {
			t.Fatal(err)
		}
		redo("rows of the middle lost")
		if err := s.c.exec(ctx, "INSERT INTO "+s.db+".events SELECT * FROM "+s.db+".events WHERE tenant = 7 AND idx < 10", nil); err != nil {
			t.Fatal(err)
		}
		redo("rows of the beginning doubled")
	})
}

// TestRedoOfOldRows redoes rows that are older than what can be mended, as a look-back brings them, when nothing of them was stored: they are
// not taken for stored.
func TestRedoOfOldRows(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		ctx := context.Background()
		b := NewBlock()
		fill(t, b, newMaker(1), []event.TenantID{1, 2}, 1, 30, noon-(MinKeep+10)*24*int64(time.Hour))
		for range 3 { // the second and third find them
			if err := s.Redo(ctx, "old", b); err != nil {
				t.Fatal(err)
			}
			if got := rowCount(t, s); got != 60 {
				t.Fatalf("%d rows, want 60", got)
			}
		}
	})
}
