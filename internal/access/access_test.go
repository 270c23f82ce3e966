package access

import (
	"errors"
	"testing"

	"tocsin/internal/event"
)

func TestScope(t *testing.T) {
	people := []struct {
		p        Principal
		national bool
		denied   bool
	}{
		{Principal{UserID: "1", Role: Operator}, true, false},
		{Principal{UserID: "2", Role: Analyst}, true, false},
		{Principal{UserID: "3", Role: Member, Tenant: 7}, false, false},
		{Principal{UserID: "4", Role: Member}, false, true}, // a member without a tenant
		{Principal{UserID: "5", Role: "root"}, false, true},
		{Principal{Role: Operator}, false, true}, // nobody
		{Principal{}, false, true},
	}
	for _, tc := range people {
		s, err := Of(tc.p)
		if (err != nil) != tc.denied || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%+v: %v", tc.p, err)
		}
		if s.National() != tc.national || s.Covers(8) != tc.national || s.Covers(Centre) != tc.national {
			t.Errorf("%+v: scope %v", tc.p, s)
		}
		if tc.p.Tenant == 7 && !s.Covers(7) {
			t.Errorf("%+v does not see its own", tc.p)
		}
		n, err := National(tc.p)
		if (err == nil) != tc.national || n.National() != tc.national {
			t.Errorf("National(%+v) = %v, %v", tc.p, n, err)
		}
	}
	var zero Scope
	for _, s := range []Scope{zero, Only(Centre), Only(7).Narrow(8), Only(7).Narrow()} {
		if ts, all := s.Tenants(); all || len(ts) != 0 || s.Covers(7) || s.Covers(0) {
			t.Errorf("%v covers something", s)
		}
	}
	s := System("test").Narrow(3, 4, 3)
	if ts, all := s.Tenants(); all || len(ts) != 2 || !s.Covers(3) || s.Covers(5) {
		t.Errorf("narrowed to %v", s)
	}
	ts, _ := Only(7).Tenants()
	ts[0] = 9
	own := Only(7)
	got, _ := own.Tenants()
	got[0] = 9
	if own.Covers(9) || !own.Covers(7) {
		t.Error("a caller widened a scope")
	}
}

func TestFigure(t *testing.T) {
	tests := []struct {
		name   string
		counts map[event.TenantID]uint64
		want   uint64
		ok     bool
	}{
		{"five others", map[event.TenantID]uint64{1: 900, 2: 3, 3: 3, 4: 3, 5: 3, 6: 2}, 15, true},
		{"four others", map[event.TenantID]uint64{1: 900, 2: 3, 3: 3, 4: 3, 5: 3}, 0, false},
		{"one over half", map[event.TenantID]uint64{2: 30, 3: 3, 4: 3, 5: 3, 6: 2}, 0, false},
		{"zeros do not count", map[event.TenantID]uint64{2: 3, 3: 3, 4: 3, 5: 3, 6: 0, 0: 5}, 0, false},
		{"rounded down", map[event.TenantID]uint64{2: 1, 3: 1, 4: 2, 5: 1, 6: 2}, 5, true},
		{"nothing", nil, 0, false},
	}
	for _, tc := range tests {
		if got, ok := Figure(1, tc.counts); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %d, %v; want %d, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}
