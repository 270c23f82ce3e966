package report

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine/enginetest"
	"tocsin/internal/member"
	"tocsin/internal/outbox"
)

// world is a scheme of two members in real records and the real event store, with two weeks of the past. The week is the last whole one by
// the machine's clock, because the engine's own clock decides what has expired; now is the Monday after it, at seven.
type world struct {
	t       testing.TB
	week    Week
	mu      sync.Mutex
	now     time.Time // guarded by mu while something runs
	path    string
	db      *db.DB
	members *member.Store
	alerts  *alert.Store
	events  Events
	tenants []event.TenantID
	maker   *Maker
	box     *outbox.Box
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// pass lets time pass while others look at the clock.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// newWorld makes the members; engine says whether the real event store is started, or one that is empty stands in.
func newWorld(t testing.TB, engine bool) *world {
	t.Helper()
	w := &world{t: t, week: WeekOf(time.Now()).Before(), path: filepath.Join(t.TempDir(), "t.db"), events: empty{}}
	w.now = w.week.Before().Start().AddDate(0, 0, -20) // the members joined before both weeks
	w.open()
	for i, name := range []string{"Ashgrove School", "Brindle Engineering Ltd"} {
		o, err := w.members.AddOrganisation(t.Context(), "test", member.Organisation{Name: name, Area: "Northshire Police area", ContactName: "Jo Marsh", ContactEmail: fmt.Sprintf("head%d@member.example", i+1)})
		if err != nil {
			t.Fatal(err)
		}
		w.tenants = append(w.tenants, o.ID)
	}
	if engine {
		e := enginetest.Start(t, enginetest.Dir(t))
		s, err := eventstore.Open(t.Context(), eventstore.Options{Address: e.Address(), Ready: e.Ready, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		w.events = s
	}
	w.now = w.week.End().Add(7 * time.Hour)
	w.make()
	return w
}

// open opens the records; reopen does what a crash and a new start do.
func (w *world) open() {
	w.t.Helper()
	d, err := db.Open(w.t.Context(), db.Options{Path: w.path})
	if err != nil {
		w.t.Fatal(err)
	}
	w.db = d
	w.t.Cleanup(func() { d.Close() })
	w.members = member.New(d, member.Options{Address: "hub.example:8443", Root: [32]byte{1}, Now: w.clock})
	w.alerts = alert.New(d, alert.Options{Now: w.clock, Text: func(id string) alert.Text {
		if id == "vpn" {
			return alert.Text{Title: "Somebody may have got in through your VPN", What: "Someone tried many passwords, then signed in.", Do: "- Telephone the person.\n- Reset the password."}
		}
		return alert.Text{}
	}})
	w.box = outbox.New(d, outbox.Options{Base: time.Millisecond, Max: 5 * time.Millisecond, Poll: 5 * time.Millisecond, Now: w.clock})
}

func (w *world) reopen() {
	w.t.Helper()
	if err := w.db.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
	w.make()
}

func (w *world) make() {
	w.t.Helper()
	m, err := New(Options{Events: w.events, Alerts: w.alerts, Members: w.members, Scheme: "Northshire Cyber Alarm", PublicURL: "https://alarm.example.org/", Now: w.clock, Invented: w.members.Invented})
	if err != nil {
		w.t.Fatal(err)
	}
	w.maker = m
}

// at has something happen at an instant of the hub's clock.
func (w *world) at(t time.Time, f func()) {
	was := w.now
	w.now = t
	f()
	w.now = was
}

// collector enrols one and counts lines on each of the given days.
func (w *world) collector(i int, days map[time.Time]uint64) {
	w.t.Helper()
	ctx, scope, tenant := w.t.Context(), access.Only(w.tenants[i]), w.tenants[i]
	site, err := w.members.FindSite(ctx, scope, tenant, "")
	if err != nil {
		w.t.Fatal(err)
	}
	words := [4]string{"apple", "river", "stone", []string{"lamp", "chair"}[i]}
	var r member.Registration
	w.at(w.week.Before().Start().AddDate(0, 0, -10), func() {
		token, _, err := w.members.MakeToken(ctx, scope, "test", site.ID)
		if err != nil {
			w.t.Fatal(err)
		}
		seed := sha256.Sum256([]byte{byte(i), 77})
		if r, _, _, err = w.members.Redeem(ctx, member.Enrolment{Secret: token.Secret[:], BatchKey: ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey), TLSKey: [32]byte{byte(i + 1)}, Words: words, Name: "server room", Version: "1.0.0"},
			func(string) ([]byte, time.Time, error) { return []byte("cert"), w.now.Add(72 * time.Hour), nil }); err != nil {
			w.t.Fatal(err)
		}
		if err := w.members.ConfirmWords(ctx, scope, "test", r.ID, words[0]+" "+words[1]+" "+words[2]+" "+words[3]); err != nil {
			w.t.Fatal(err)
		}
	})
	var prev [32]byte
	seq := uint64(0)
	for d := w.week.Before().Start(); d.Before(w.week.End().Add(time.Hour)); d = d.AddDate(0, 0, 1) {
		n := days[d]
		if n == 0 {
			continue
		}
		seq++
		w.at(d.Add(12*time.Hour), func() {
			if d.Equal(w.week.End()) {
				w.now = d.Add(6*time.Hour + 59*time.Minute) // heard of a minute before the report
			}
			digest := sha256.Sum256(fmt.Appendf(nil, "%d/%d", i, seq))
			b := &member.Batch{Head: member.Head{Stream: event.StreamID{byte(i + 1), 0xab}, Collector: r.ID, Tenant: tenant, Lane: "live", Epoch: "e", Seq: seq, Digest: digest, Receipt: []byte("receipt"), CreatedNS: w.now.UnixNano()},
				Prev: prev, Events: 0, Size: 100, Version: "1.0.0", Counts: map[string]uint64{"received": n, "parsed": n - 2, "not_understood": 2, "kept.allowed": n - 12, "left.denied_inbound": 10, "sent": 0, "dropped.disk": 10}}
			if v, err := w.members.Accept(ctx, b); err != nil || (v.Sequence != member.Opening && v.Sequence != member.Next) {
				w.t.Fatalf("batch %d: %+v, %v", seq, v, err)
			}
			prev = digest
		})
	}
}

// seeded is one event of the store, to count a second way.
type seeded struct {
	tenant  event.TenantID
	at      time.Time
	source  netip.Addr
	country string
	service string
	level   string
}

// attack stores two weeks of events for both members and returns them.
func (w *world) attack() []seeded {
	w.t.Helper()
	store, ok := w.events.(*eventstore.Store)
	if !ok {
		w.t.Fatal("no event store")
	}
	var all []seeded
	b := eventstore.NewBlock()
	places := []string{"NL", "CN", "US", "BG"}
	index := uint32(0)
	for ti, tenant := range w.tenants {
		for h := range 14 * 24 {
			at := w.week.Before().Start().Add(time.Duration(h)*time.Hour + 17*time.Minute)
			n := 1 + h%3 + ti
			if w.week.Start().Before(at) {
				n++
			}
			for k := range n {
				var e event.Event
				index++
				e.Tenant, e.ID = tenant, event.ID{Stream: event.StreamID{byte(ti + 1), 0xab}, Seq: 1, Index: index}
				ns := at.Add(time.Duration(k) * time.Second).UnixNano()
				e.Time, e.Created, e.Ingested = ns, ns, ns
				s := seeded{tenant: tenant, at: at, source: netip.AddrFrom4([4]byte{203, 0, 113, byte(h%40 + 50*ti)}), country: places[(h+k)%len(places)], service: "remote_desktop", level: "low"}
				e.SetIP(event.SourceIP, s.source)
				e.SetString(event.SourceGeoCountryISOCode, s.country)
				e.SetString(event.SourceASOrganizationName, "Example Hosting BV")
				switch k {
				case 1:
					s.service, s.level = "vpn", "medium"
					e.SetString(event.EventCategory, "authentication")
					e.SetString(event.EventOutcome, "failure")
					e.SetString(event.TocsinService, "vpn")
				default:
					e.SetString(event.EventCategory, "network")
					e.SetString(event.EventType, "denied")
					e.SetInt(event.DestinationPort, 3389)
				}
				if !b.Add(&e, eventstore.Meta{}) {
					w.t.Fatal("block full")
				}
				all = append(all, s)
			}
		}
	}
	if err := store.Insert(w.t.Context(), "world", b); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// detect raises alerts: a grave one and a scan in the week, one in the week before.
func (w *world) detect() {
	w.t.Helper()
	for i, d := range []struct {
		at                 time.Time
		rule, title, level string
		tenant             event.TenantID
	}{
		{w.week.Before().Start().Add(30 * time.Hour), "scan", "Port scan", "low", w.tenants[0]},
		{w.week.Start().Add(50 * time.Hour), "vpn", "VPN sign-in after many failures", "critical", w.tenants[0]},
		{w.week.Start().Add(60 * time.Hour), "scan2", "Port <b>scan</b>", "medium", w.tenants[0]},
		{w.week.Start().Add(60 * time.Hour), "other", "Only Brindle's", "high", w.tenants[1]},
	} {
		w.at(d.at, func() {
			_, err := w.alerts.Apply(w.t.Context(), fmt.Sprint("plan", i), []event.Detection{{Tenant: d.tenant, RuleID: d.rule, RuleTitle: d.title, Family: d.rule, Level: d.level,
				Entity: event.Entity{Kind: "source", Value: fmt.Sprintf("203.0.113.%d", i)}, First: d.at.Add(-time.Minute).UnixNano(), Last: d.at.UnixNano(), Count: 7, Key: fmt.Sprint("d", i), Reason: "7 events"}})
			if err != nil {
				w.t.Fatal(err)
			}
		})
	}
}

// empty is an event store without events.
type empty struct{}

func (empty) Histogram(context.Context, access.Scope, eventstore.Filter, time.Duration) ([]eventstore.Bucket, error) {
	return nil, nil
}
func (empty) Summary(context.Context, access.Scope, int64, int64) (eventstore.Summary, error) {
	return eventstore.Summary{}, nil
}
func (empty) Top(context.Context, access.Scope, eventstore.Field, eventstore.Filter, int) ([]eventstore.Count, error) {
	return nil, nil
}
