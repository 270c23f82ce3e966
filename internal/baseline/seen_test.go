package baseline

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

var places = map[string]string{"GB": "United Kingdom", "BR": "Brazil", "AU": "Australia", "FR": "France", "US": "United States"}

func signIn(tenant event.TenantID, at int64, user, source, country string, as uint32) *Observation {
	return &Observation{Tenant: tenant, ID: id(2), At: at, What: SignIn, Proven: true, Session: true, User: user, Source: netip.MustParseAddr(source), Country: country, Network: as}
}

// days calls f on so many days, at nine o'clock.
func days(from, to int, f func(day int, at int64)) {
	for d := from; d < to; d++ {
		f(d, monday.AddDate(0, 0, d).Add(9*time.Hour).UnixNano())
	}
}

func ids(list []event.Detection) string {
	var out []string
	for _, d := range list {
		out = append(out, strings.TrimPrefix(d.RuleID, "baseline-"))
	}
	return strings.Join(out, " ")
}

func TestNewCountry(t *testing.T) {
	e := engine(t, Options{Country: func(c string) string { return places[c] }})
	days(0, 20, func(d int, at int64) {
		if d%2 == 0 {
			if out := e.Observe(signIn(3, at, "ann", "192.0.2.10", "GB", 64500), at); len(out) > 0 {
				t.Fatalf("day %d: %s", d, out[0].Reason)
			}
		}
	})
	at := weekday(3, 0, 9*time.Hour)
	out := e.Observe(signIn(3, at, "Ann", "198.51.100.9", "BR", 64501), at)
	if ids(out) != "account-country" {
		t.Fatalf("told: %s", ids(out))
	}
	d := out[0]
	if want := "Ann signed in from Brazil for the first time; in the 21 days before, the account signed in on 10 days, from United Kingdom."; d.Reason != want {
		t.Errorf("got  %s\nwant %s", d.Reason, want)
	}
	if d.Entity != (event.Entity{Kind: "user", Value: "Ann"}) || d.User != "Ann" || d.Source != "198.51.100.9" || d.Level != "medium" || len(d.Events) != 1 {
		t.Errorf("%+v", d)
	}
	if out := e.Observe(signIn(3, at+1e9, "ann", "198.51.100.9", "BR", 64501), at+1e9); len(out) > 0 {
		t.Errorf("told twice: %s", ids(out))
	}
	// An account that nobody knew yet is not judged, nor one that signed in on four days only.
	if out := e.Observe(signIn(3, at, "bob", "198.51.100.9", "BR", 64501), at); len(out) > 0 {
		t.Errorf("a new account: %s", ids(out))
	}
}

func TestTravel(t *testing.T) {
	e := engine(t, Options{Country: func(c string) string { return places[c] }})
	days(0, 20, func(d int, at int64) { e.Observe(signIn(3, at, "ann", "192.0.2.10", "GB", 64500), at) })
	at := weekday(3, 0, 9*time.Hour)
	e.Observe(signIn(3, at, "ann", "192.0.2.10", "GB", 64500), at)
	two := at + int64(2*time.Hour)
	out := e.Observe(signIn(3, two, "ann", "198.51.100.9", "AU", 64501), two)
	if ids(out) != "travel" || out[0].Level != "high" {
		t.Fatalf("told: %s", ids(out))
	}
	if got := out[0].Reason; !strings.HasPrefix(got, "ann signed in from Australia 2 hours after a sign-in from United Kingdom; the two are at least ") || !strings.HasSuffix(got, " hours by air.") {
		t.Errorf("reason: %s", got)
	}
	// Neighbours are no journey, but a country that is new.
	three := at + int64(30*time.Hour)
	e.Observe(signIn(3, three, "ann", "192.0.2.10", "GB", 64500), three)
	out = e.Observe(signIn(3, three+1e9, "ann", "203.0.113.4", "FR", 64502), three+1e9)
	if ids(out) != "account-country" {
		t.Errorf("from Dover to Calais: %s", ids(out))
	}
	// Somebody who works over a foreign line every day is known in both places.
	e = engine(t, Options{})
	days(0, 30, func(d int, at int64) {
		for i, c := range []string{"GB", "US", "GB", "US"} {
			now := at + int64(i)*int64(20*time.Minute)
			if out := e.Observe(signIn(3, now, "cat", "192.0.2.10", c, uint32(64500+i%2)), now); len(out) > 0 {
				t.Errorf("day %d: %s", d, out[0].Reason)
			}
		}
	})
}

func TestNewNetworkOfAccount(t *testing.T) {
	e := engine(t, Options{})
	days(0, 40, func(d int, at int64) {
		if out := e.Observe(signIn(3, at, "ann", "192.0.2.10", "GB", 64500), at); len(out) > 0 {
			t.Fatal(out[0].Reason)
		}
		e.Observe(signIn(3, at, "bob", "203.0.113.10", "GB", 64510), at)
	})
	at := weekday(6, 0, 9*time.Hour)
	if out := e.Observe(signIn(3, at, "ann", "203.0.113.10", "GB", 64510), at); len(out) > 0 {
		t.Errorf("a colleague's network: %s", out[0].Reason)
	}
	o := signIn(3, at, "ann", "198.51.100.9", "GB", 64999)
	o.NetworkName = "Example Hosting"
	out := e.Observe(o, at)
	if ids(out) != "account-network" {
		t.Fatalf("told: %s", ids(out))
	}
	if want := "ann signed in from AS64999 (Example Hosting), a network from which nobody here signed in during the last weeks; the account used 2 networks in 42 days."; out[0].Reason != want {
		t.Errorf("got  %s\nwant %s", out[0].Reason, want)
	}
}

func TestOpenedPort(t *testing.T) {
	e := engine(t, Options{Where: Site})
	in := func(at int64, port uint16) []event.Detection {
		return e.Observe(&Observation{ID: id(3), At: at, What: AllowedInbound, Proven: true, Session: true, Source: netip.MustParseAddr("198.51.100.2"), Destination: netip.MustParseAddr("10.0.0.7"), Port: port}, at)
	}
	days(0, 20, func(d int, at int64) {
		if out := in(at, 443); len(out) > 0 {
			t.Fatal(out[0].Reason)
		}
	})
	out := in(weekday(3, 0, 0), 3389)
	if ids(out) != "port-opened" {
		t.Fatalf("told: %s", ids(out))
	}
	if want := "The firewall let a connection in from 198.51.100.2 to port 3389 of 10.0.0.7; in the 20 days before, nothing was let in there."; out[0].Reason != want {
		t.Errorf("got  %s\nwant %s", out[0].Reason, want)
	}
}

func TestHostOfFixedHabits(t *testing.T) {
	e := engine(t, Options{Where: Site})
	out := func(at int64, host, to string) []event.Detection {
		return e.Observe(&Observation{ID: id(3), At: at, What: Outbound, Proven: true, Session: true, Source: netip.MustParseAddr(host), Destination: netip.MustParseAddr(to), Port: 443}, at)
	}
	days(0, 35, func(d int, at int64) {
		if o := out(at, "10.0.0.5", "192.0.2.80"); len(o) > 0 {
			t.Fatal(o[0].Reason)
		}
		out(at, "10.0.0.6", netip.AddrFrom4([4]byte{20, byte(d), 1, 1}).String()) // a desk: new places every day
	})
	at := weekday(5, 0, 9*time.Hour)
	if o := out(at, "10.0.0.6", "198.51.100.77"); len(o) > 0 {
		t.Errorf("a desk: %s", o[0].Reason)
	}
	o := out(at, "10.0.0.5", "203.0.113.77")
	if ids(o) != "host-network" {
		t.Fatalf("told: %s", ids(o))
	}
	if want := "10.0.0.5 connected to 203.0.113.77 in 203.0.0.0/16; in the 35 days before it spoke with 1 network outside, and with none that was new for 35 days."; o[0].Reason != want {
		t.Errorf("got  %s\nwant %s", o[0].Reason, want)
	}
}

func ids2(tenant event.TenantID, at int64, signature string) *Observation {
	return &Observation{Tenant: tenant, ID: id(4), At: at, What: Intrusion | Suspicious, Proven: true, Session: true, Source: netip.MustParseAddr("198.51.100.2"), Signature: signature, SignatureName: "ET EXPLOIT " + signature}
}

func TestNewSignature(t *testing.T) {
	e := engine(t, Options{})
	days(0, 20, func(d int, at int64) {
		for tenant := event.TenantID(1); tenant <= 10; tenant++ {
			for _, d := range e.Observe(ids2(tenant, at, "1000"), at) {
				if d.RuleID == "baseline-new-signature" || d.RuleID == "baseline-across-signature" {
					t.Fatal(d.Reason)
				}
			}
		}
	})
	at := weekday(3, 0, 9*time.Hour)
	n := 0
	for tenant := event.TenantID(1); tenant <= 10; tenant++ {
		for _, d := range e.Observe(ids2(tenant, at, "2000"), at) {
			if d.RuleID == "baseline-new-signature" {
				if n++; tenant == 1 && d.Reason != `The intrusion signature "ET EXPLOIT 2000" fired here for the first time in the 21 days that were learnt; no other organisation of the scheme has had it in that time.` {
					t.Error(d.Reason)
				}
			}
		}
	}
	if n != commonAt {
		t.Errorf("%d members told of a signature that all have; the first %d are right", n, commonAt)
	}
}

// Forged lines over UDP must not make an attacker's country, network or open door known where a known sender teaches.
func TestForgedLessons(t *testing.T) {
	e := engine(t, Options{})
	days(0, 20, func(d int, at int64) {
		e.Observe(signIn(3, at, "ann", "192.0.2.10", "GB", 64500), at)
		forged := signIn(3, at+1e9, "ann", "198.51.100.9", "BR", 64501)
		forged.Proven = false
		if out := e.Observe(forged, at+1e9); len(out) > 0 {
			t.Fatalf("a forged sign-in was told: %s", out[0].Reason)
		}
	})
	if n := e.Stats().Untaught; n != 20 {
		t.Errorf("%d forged sign-ins were counted as such, want 20", n)
	}
	at := weekday(3, 0, 9*time.Hour)
	if out := e.Observe(signIn(3, at, "ann", "198.51.100.9", "BR", 64501), at); ids(out) != "travel" && ids(out) != "account-country" {
		t.Errorf("forged sign-ins taught a country: %s", ids(out))
	}
	if out := e.Observe(signIn(3, at+int64(20*time.Hour), "ann", "198.51.100.9", "BR", 64501), at+int64(20*time.Hour)); len(out) > 0 {
		t.Errorf("told twice: %s", ids(out))
	}
}

// Noise must not bury what matters: detections of forged lines have a budget of their own, and each kind its own.
func TestBudgets(t *testing.T) {
	e := engine(t, Options{Where: Site})
	in := func(at int64, port uint16, proven bool) []event.Detection {
		return e.Observe(&Observation{ID: id(3), At: at, What: AllowedInbound, Proven: proven, Session: true, Source: netip.MustParseAddr("198.51.100.2"), Destination: netip.MustParseAddr("10.0.0.7"), Port: port}, at)
	}
	days(0, 20, func(d int, at int64) { in(at, 443, false) })
	at := weekday(3, 0, time.Hour)
	n := 0
	for port := uint16(1000); port < 3000; port++ {
		n += len(in(at, port, false))
	}
	if n != 3 {
		t.Errorf("%d detections of two thousand forged doors, want 3", n)
	}
	if out := in(at, 3389, true); len(out) != 1 {
		t.Errorf("after the flood a real one gives %d detections", len(out))
	}
	// What comes a little late, from before midnight, does not begin the day's account anew.
	midnight := weekday(3, 1, 0)
	n = 0
	for port := uint16(4000); port < 4200; port++ {
		n += len(in(midnight+int64(port%2)*int64(2*time.Minute)-int64(time.Minute), port, true))
	}
	if n != 6 {
		t.Errorf("%d detections of two hundred doors around midnight, want one of the old day and five of the new", n)
	}
	if s := e.Stats(); s.Suppressed < 2094 || s.Suppressed > 2194 {
		t.Errorf("%d were counted as suppressed", s.Suppressed)
	}
}
