package eventstore

import (
	"context"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// rawLine makes e one of the lines that left while troubleshooting was on.
func rawLine(e *event.Event, text string, expires time.Time) *event.Event {
	e.SetString(event.TocsinLeftReason, "troubleshooting")
	e.SetString(event.EventDataset, "tocsin.raw")
	e.SetRaw([]byte(text))
	if !expires.IsZero() {
		e.SetNamed(expiresField, expires.UTC().Format(time.RFC3339))
	}
	return e
}

func TestRowKeep(t *testing.T) {
	m := newMaker(1)
	when := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *event.Event {
		return rawLine(m.firewall(1, 1, 0, when.UnixNano()), "x", when.Add(d))
	}
	ordinary := m.firewall(1, 1, 0, when.UnixNano())
	ordinary.SetNamed(expiresField, when.Format(time.RFC3339))
	if got := rowKeep(ordinary, Meta{Keep: 90}, when.UnixNano()); got != 90 {
		t.Errorf("an ordinary row is kept %d days", got)
	}
	for _, c := range []struct {
		left time.Duration
		want uint16
	}{
		{7*24*time.Hour + 6*time.Hour, 7}, {7*24*time.Hour + 5*time.Hour, 6}, {8*24*time.Hour + 7*time.Hour, 8}, {time.Hour, 0}, {-400 * 24 * time.Hour, 0}, {400 * 24 * time.Hour, 90},
	} {
		if got := rowKeep(at(c.left), Meta{Keep: 90}, when.UnixNano()); got != c.want {
			t.Errorf("to be gone in %s: kept %d days, want %d", c.left, got, c.want)
		}
	}
	if got := rowKeep(rawLine(m.firewall(1, 1, 0, when.UnixNano()), "x", time.Time{}), Meta{}, when.UnixNano()); got != 0 {
		t.Errorf("a raw line that does not say until when is kept %d days", got)
	}
}

// The engine itself deletes a raw line that has expired, and nothing beside it.
func TestRawLinesExpire(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		m := newMaker(2)
		ctx := context.Background()
		at := time.Now().Add(-12 * 24 * time.Hour).Truncate(time.Second).UnixNano()
		b := NewBlock()
		for i, e := range []func(*event.Event){
			func(*event.Event) {},
			func(e *event.Event) { rawLine(e, "SECRET gone", time.Now().Add(-2*24*time.Hour)) },
			func(e *event.Event) { rawLine(e, "SECRET kept", time.Now().Add(3*24*time.Hour)) },
		} {
			x := m.firewall(1, 1, i, at)
			x.Ingested = at + 1e9
			e(x)
			if !b.Add(x, Meta{Keep: 90}) {
				t.Fatal("the block is full")
			}
		}
		if err := s.Insert(ctx, "expiry", b); err != nil {
			t.Fatal(err)
		}
		// The engine merges when it pleases, within hours; here it is told to.
		if err := s.c.exec(ctx, "OPTIMIZE TABLE "+s.db+".events FINAL", nil); err != nil {
			t.Fatal(err)
		}
		var n, secret, fields proto.ColUInt64
		if err := s.c.query(ctx, "SELECT count(), countIf(raw LIKE '%SECRET gone%'), countIf(raw LIKE '%SECRET kept%') FROM "+s.db+".events", nil, proto.Results{{Data: &n}, {Data: &secret}, {Data: &fields}}, func() {}, func(int) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if n[0] != 2 || secret[0] != 0 || fields[0] != 1 {
			t.Errorf("%d rows, %d with the expired line, %d with the other; want 2, 0, 1", n[0], secret[0], fields[0])
		}
		list, _, err := s.Events(ctx, access.System("test"), Filter{}, 10, "")
		if err != nil || len(list) != 2 {
			t.Errorf("%d events can be read: %v", len(list), err)
		}
	})
}

// Raw lines can be read, and stand in no figure.
func TestRawLinesAreInNoFigure(t *testing.T) {
	stores(t, func(t *testing.T, s *Store) {
		m := newMaker(3)
		ctx, sc := context.Background(), access.Only(1)
		at := time.Now().Truncate(time.Hour).Add(-90 * time.Minute).UnixNano()
		b := NewBlock()
		for i := range 5 {
			x := m.firewall(1, 1, i, at)
			if i >= 2 {
				rawLine(x, "SECRET", time.Now().Add(7*24*time.Hour))
			}
			if !b.Add(x, Meta{}) {
				t.Fatal("the block is full")
			}
		}
		if err := s.Insert(ctx, "figures", b); err != nil {
			t.Fatal(err)
		}
		from, to := time.Unix(0, at).Truncate(time.Hour).UnixNano(), time.Unix(0, at).Truncate(time.Hour).Add(time.Hour).UnixNano()
		sum, err := s.Summary(ctx, sc, from, to)
		if err != nil || sum.Events != 2 {
			t.Errorf("summary: %d events, %v", sum.Events, err)
		}
		for _, step := range []time.Duration{time.Hour, time.Minute} { // from the roll-up, and from the events
			for class, want := range map[string]uint64{"": 2, ClassRaw: 3, ClassDenied: 2} {
				buckets, err := s.Histogram(ctx, sc, Filter{From: from, To: to, Class: class}, step)
				n := uint64(0)
				for _, x := range buckets {
					n += x.Total()
				}
				if err != nil || n != want {
					t.Errorf("histogram of class %q by %s: %d, want %d, %v", class, step, n, want, err)
				}
			}
		}
		for _, field := range []Field{ByClass, ByLevel, ByTenant, ByProduct} {
			top, err := s.Top(ctx, sc, field, Filter{From: from, To: to}, 10)
			if err != nil || len(top) != 1 || top[0].Count != 2 {
				t.Errorf("top by %s: %+v %v", field, top, err)
			}
		}
		if list, _, err := s.Events(ctx, sc, Filter{}, 10, ""); err != nil || len(list) != 5 {
			t.Errorf("%d events can be read: %v", len(list), err)
		}
	})
}
