package rematch

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// history is an event store of one event an hour for each of two members, in pages of three. It fails once where it is told to.
type history struct {
	list  []eventstore.Stored // the newest first
	fails int                 // calls until one fails
	calls int
}

func newHistory(days int) *history {
	h := &history{fails: -1}
	for n := range days * 24 {
		for t := range 2 {
			e := &event.Event{}
			e.Tenant = event.TenantID(t + 1)
			e.ID.Seq, e.ID.Index = uint64(n+1), uint32(t)
			e.SetString(event.EventCategory, "web")
			e.SetString(event.URLPath, "/x")
			if n%24 == 0 && t == 0 {
				e.SetString(event.URLPath, "/evil")
				e.SetIP(event.SourceIP, netip.MustParseAddr("203.0.113.7"))
				e.SetString(event.URLDomain, "bad.example")
			}
			h.list = append(h.list, eventstore.Stored{Event: e, StoredAt: now.Add(-time.Duration(n)*time.Hour - time.Minute).UnixNano()})
		}
	}
	return h
}

func (h *history) Events(_ context.Context, scope access.Scope, f eventstore.Filter, limit int, from eventstore.Cursor) (out []eventstore.Stored, next eventstore.Cursor, err error) {
	if h.calls++; h.calls == h.fails {
		return nil, "", errors.New("the engine is away")
	}
	if !scope.National() {
		return nil, "", errors.New("not the centre's scope")
	}
	skip := len(from)
	for _, e := range h.list {
		a, has := e.IP(event.SourceIP)
		if e.StoredAt < f.From || e.StoredAt >= f.To || f.EitherIP.IsValid() && (!has || !f.EitherIP.Contains(a)) || f.Domain != "" && e.Str(event.URLDomain) != f.Domain {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(out) == 3 {
			return out, from + "xxx", nil
		}
		out = append(out, e)
	}
	return out, "", nil
}

func open(t *testing.T, h *history) *Store {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return New(d, h, nil, func() time.Time { return now })
}

func work(t *testing.T, s *Store) (steps int) {
	t.Helper()
	for {
		worked, err := s.next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !worked {
			return steps
		}
		steps++
	}
}

const evil = "title: Evil\nid: 00000000-0000-4000-8000-000000000001\nlogsource: {category: proxy}\ndetection:\n  selection: {url.path: /evil}\n  condition: selection\n"

// The same ten hits, by address, network, name and rule.
func TestQuestions(t *testing.T) {
	for _, x := range []struct{ what, rule string }{{"203.0.113.7", ""}, {"203.0.113.0/24", ""}, {"bad.example", ""}, {"BAD.example.", ""}, {"", evil}} {
		s := open(t, newHistory(10))
		j, err := s.Add(t.Context(), "analyst", x.what, x.rule, "a new indicator", 30)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.next(t.Context()); err != nil {
			t.Fatal(err)
		}
		part, err := s.Get(t.Context(), j.ID)
		if err != nil || part.State != Waiting || part.Progress() < 0.03 || part.Progress() > 0.04 || part.Hits != 1 {
			t.Errorf("%s: after a day %+v, %f, %v", x.what, part, part.Progress(), err)
		}
		if steps := work(t, s); steps != 29 {
			t.Errorf("%d more days", steps)
		}
		got, err := s.Get(t.Context(), j.ID)
		if err != nil || got.State != Done || got.Progress() != 1 || got.Hits != 10 || len(got.Found) != 1 || got.Found[1].Hits != 10 || len(got.Found[1].Events) != 10 || got.Ended == 0 {
			t.Errorf("%s: %+v %v", x.what, got, err)
		}
		if want := int64(480); x.rule != "" && got.Looked != want {
			t.Errorf("looked at %d, want %d", got.Looked, want)
		}
		if d := got.Found[1].Last - got.Found[1].First; d != int64(9*24*time.Hour) {
			t.Errorf("first and last are %v apart", time.Duration(d))
		}
	}
}

// The store fails in the middle of a day, again and again: nothing is counted twice, nothing is left out.
func TestCutShort(t *testing.T) {
	for fails := 1; fails < 40; fails += 8 {
		h := newHistory(3)
		s := open(t, h)
		if _, err := s.Add(t.Context(), "analyst", "", evil, "a new rule", 3); err != nil {
			t.Fatal(err)
		}
		h.fails = fails
		failed := false
		for {
			worked, err := s.next(t.Context())
			if err != nil {
				failed = true
				continue
			}
			if !worked {
				break
			}
		}
		list, err := s.List(t.Context(), 10)
		if err != nil || len(list) != 1 || list[0].Hits != 3 || list[0].Looked != 144 || !failed {
			t.Errorf("failing at call %d: %+v %v", fails, list, err)
		}
	}
}

func TestRefusedAndStopped(t *testing.T) {
	s := open(t, newHistory(1))
	for name, x := range map[string]struct {
		what, rule, reason string
		days               int
	}{
		"nothing": {"", "", "because it is", 1}, "both": {"192.0.2.1", evil, "because it is", 1}, "no reason": {"192.0.2.1", "", "x", 1}, "no days": {"192.0.2.1", "", "because it is", 0}, "wide": {"10.0.0.0/8", "", "because it is", 1},
		"no name": {"hello", "", "because it is", 1}, "a URL": {"https://bad.example/x", "", "because it is", 1}, "a broken rule": {"", "title: [", "because it is", 1}, "a long rule": {"", strings.Repeat("#", maxRule+1), "because it is", 1},
	} {
		if _, err := s.Add(t.Context(), "analyst", x.what, x.rule, x.reason, x.days); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	j, err := s.Add(t.Context(), "analyst", "192.0.2.1", "", "because it is", 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context(), "analyst", j.ID); err != nil {
		t.Fatal(err)
	}
	if steps := work(t, s); steps != 0 {
		t.Error("a stopped question goes on")
	}
	if err := s.Stop(t.Context(), "analyst", j.ID); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
