package baseline

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tocsin/internal/event"
)

func attack(tenant event.TenantID, at int64, source string) *Observation {
	return &Observation{Tenant: tenant, ID: id(6), At: at, What: FailedSignIn | Suspicious, Proven: true, Session: true, Source: netip.MustParseAddr(source)}
}

// scheme is a hub that knows n members for weeks; members with an odd number are in the region "north".
func scheme(t testing.TB, n int) *Engine {
	e := engine(t, Options{Area: func(id event.TenantID) string { return []string{"south", "north"}[id%2] }})
	days(0, 20, func(d int, at int64) {
		if d%5 == 0 {
			for m := range n {
				o := denied(event.TenantID(m+1), at, 1, "192.0.2.1")
				e.Observe(o, at)
			}
		}
	})
	return e
}

func TestAcrossMembers(t *testing.T) {
	e := scheme(t, 40)
	at := weekday(3, 0, 10*time.Hour)
	var centre, members []event.Detection
	see := func(m event.TenantID, at int64) {
		for _, d := range e.Observe(attack(m, at, "198.51.100.7"), at) {
			if d.Tenant == 0 {
				centre = append(centre, d)
			} else if d.RuleID != "baseline-signins-failed" { // so many are unusual by themselves
				members = append(members, d)
			}
		}
	}
	see(1, at)
	see(2, at+int64(time.Hour))
	for range 50 { // one vote each
		see(2, at+int64(time.Hour))
	}
	if len(centre) != 0 {
		t.Fatalf("two members: %s", centre[0].Reason)
	}
	see(3, at+int64(2*time.Hour))
	if len(centre) != 1 || len(members) != 0 {
		t.Fatalf("three members: %d and %d detections", len(centre), len(members))
	}
	if want := "The source 198.51.100.7 attacked 3 members within 2 hours."; centre[0].Reason != want || centre[0].Entity != (event.Entity{Kind: "source", Value: "198.51.100.7"}) || centre[0].Family != "campaign" {
		t.Errorf("got %+v", centre[0])
	}
	// With five others each may hear that it is not alone, and only then.
	see(4, at+int64(3*time.Hour))
	see(5, at+int64(3*time.Hour))
	if len(members) != 0 {
		t.Fatalf("with four others: %s", members[0].Reason)
	}
	see(6, at+int64(3*time.Hour))
	if len(members) != 6 {
		t.Fatalf("six members, %d of them told", len(members))
	}
	seen := map[event.TenantID]bool{}
	for _, d := range members {
		seen[d.Tenant] = true
		if want := "The source 198.51.100.7, which was seen here, was also seen at about 5 other organisations of the scheme within a day."; d.Reason != want {
			t.Errorf("got  %s\nwant %s", d.Reason, want)
		}
		for _, f := range []string{d.Entity.Value, d.Source, d.User, d.Host, d.Reason, d.Steps[0].Text} {
			if strings.Contains(f, "member") {
				t.Errorf("it names members: %s", f)
			}
		}
		if len(d.Events) != 0 {
			t.Error("it points at events, which may be another member's")
		}
	}
	if len(seen) != 6 {
		t.Errorf("told to %v", seen)
	}
	// The centre hears again when it has doubled, under the same key.
	if len(centre) != 2 || centre[1].Key != centre[0].Key || centre[1].Count != 6 {
		t.Errorf("%d words to the centre", len(centre))
	}
	// Those who come later are told at once; the region's figure is used when it may be.
	members = nil
	for m := event.TenantID(7); m <= 31; m += 2 {
		see(m, at+int64(4*time.Hour))
	}
	if len(members) != 13 || !strings.HasSuffix(members[12].Reason, "at about 15 other organisations in your region within a day.") {
		t.Errorf("%d told, the last: %s", len(members), members[len(members)-1].Reason)
	}
	// Over: after a day of quiet it begins anew.
	centre = nil
	late := at + int64(40*time.Hour)
	for m := event.TenantID(1); m <= 3; m++ {
		see(m, late)
	}
	if len(centre) != 1 {
		t.Errorf("a day later: %d", len(centre))
	}
}

// A source that stays at one member does not make what it does to others a week later a thing of the past.
func TestAcrossAgain(t *testing.T) {
	e := scheme(t, 10)
	at := weekday(3, 0, 10*time.Hour)
	var centre []event.Detection
	see := func(m event.TenantID, at int64) {
		for _, d := range e.Observe(attack(m, at, "198.51.100.7"), at) {
			if d.Tenant == 0 {
				centre = append(centre, d)
			}
		}
	}
	for m := event.TenantID(1); m <= 5; m++ {
		see(m, at)
	}
	for h := range 7 * 24 {
		see(1, at+int64(h)*int64(time.Hour))
	}
	if len(centre) != 1 {
		t.Fatalf("five members: %d words to the centre", len(centre))
	}
	later := at + int64(7*24*time.Hour)
	for m := event.TenantID(6); m <= 8; m++ {
		see(m, later)
	}
	if len(centre) != 2 || centre[1].Key == centre[0].Key || centre[1].Count != 3 {
		t.Errorf("a week later at two others more: %d words, the last of %d members", len(centre), centre[len(centre)-1].Count)
	}
}

// Beyond the exact list the number is estimated, within the sketch's error.
func TestAcrossManyMembers(t *testing.T) {
	const n = 1000
	e := scheme(t, n)
	at := weekday(3, 0, 10*time.Hour)
	last := event.Detection{}
	told := 0
	for m := range n {
		for _, d := range e.Observe(attack(event.TenantID(m+1), at+int64(m)*1e9, "198.51.100.7"), at+int64(m)*1e9) {
			if d.Tenant == 0 {
				last = d
				told++
			}
		}
	}
	if last.Count < 500 || told > 12 {
		t.Errorf("last told at %d, %d times", last.Count, told)
	}
	x := e.crossings.find(e.key.Hash128(netip.MustParseAddr("198.51.100.7").As16(), 6) | 1)
	got, exact := x.members(uint32(at/1e9) + n)
	t.Logf("%d members count as %d; %s", n, got, last.Reason)
	if exact || got < n*87/100 || got > n*113/100 {
		t.Errorf("%d members count as %d", n, got)
	}
	// Sliding: a day after, only what came since counts.
	later := at + int64(30*time.Hour)
	for m := range 100 {
		e.Observe(attack(event.TenantID(m+1), later, "198.51.100.7"), later)
	}
	if got, _ := x.members(uint32(later / 1e9)); got < 80 || got > 120 {
		t.Errorf("30 hours later 100 members count as %d", got)
	}
}

func TestWhatDoesNotVote(t *testing.T) {
	at := weekday(3, 0, 10*time.Hour)
	for name, change := range map[string]func(o *Observation){
		"a refused packet, which proves no source": func(o *Observation) { o.What, o.Session = DeniedInbound, false },
		"no session": func(o *Observation) { o.Session = false },
	} {
		e := scheme(t, 20)
		for m := range 20 {
			o := attack(event.TenantID(m+1), at, "198.51.100.7")
			change(o)
			if out := e.Observe(o, at); len(out) > 0 {
				t.Errorf("%s: %s", name, out[0].Reason)
				break
			}
		}
	}
	// Sham members that have just come are counted for the centre, and show nobody anything.
	e := scheme(t, 1)
	var out []event.Detection
	for m := range 20 {
		out = append(out, e.Observe(attack(event.TenantID(m+1), at, "198.51.100.7"), at)...)
	}
	for _, d := range out {
		if d.Tenant != 0 {
			t.Errorf("member %d is told what sham members say: %s", d.Tenant, d.Reason)
		}
	}
	// IPv6 sources count by /64.
	e = scheme(t, 5)
	out = nil
	for m := range 3 {
		out = append(out, e.Observe(attack(event.TenantID(m+1), at, fmt.Sprintf("2001:db8::%d", m+1)), at)...)
	}
	if len(out) != 1 || !strings.Contains(out[0].Reason, "2001:db8::/64") {
		t.Errorf("three addresses of one /64: %v", out)
	}
}

// One member that floods keys neither grows the table nor pushes out what others share.
func TestKeysOfOneMember(t *testing.T) {
	e := scheme(t, 10)
	at := weekday(3, 0, 10*time.Hour)
	e.Observe(attack(1, at, "198.51.100.7"), at)
	e.Observe(attack(2, at, "198.51.100.7"), at)
	for i := range 300_000 {
		o := attack(9, at+int64(i)*1e6, "203.0.113.1")
		o.Source = netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)})
		e.Observe(o, o.At)
	}
	s := e.Stats()
	if s.Keys > keysAnHour+1 || s.Refused < 290_000 {
		t.Errorf("%d keys, %d refused", s.Keys, s.Refused)
	}
	if out := e.Observe(attack(3, at+int64(10*time.Minute), "198.51.100.7"), at+int64(10*time.Minute)); len(out) != 1 {
		t.Errorf("after the flood the third member gives %d detections", len(out))
	}
}

func TestPattern(t *testing.T) {
	for in, want := range map[string]string{
		"/remote/fgt_lang?lang=/../../..//dev": "/remote/fgt_lang", "/api/v1/users/12345/edit": "/api/v1/users/#/edit", "https://Example.org/A/B;x": "/a/b",
		"/x/550e8400-e29b-41d4-a716-446655440000": "/x/*", "/": "/", "": "", "/.env": "/.env", "https://example.org": "/", "/s/8731923a1": "/s/*",
	} {
		if got := pattern(in); got != want {
			t.Errorf("pattern(%q) = %q, want %q", in, got, want)
		}
	}
}

// URL patterns and fingerprints that members have every day are told once, new ones when they come.
func TestPatternsAcross(t *testing.T) {
	e := scheme(t, 30)
	web := func(m event.TenantID, at int64, path string) []event.Detection {
		o := attack(m, at, "198.51.100."+fmt.Sprint(m))
		o.What, o.URL, o.JA3 = Suspicious, path, ""
		return e.Observe(o, at)
	}
	told := map[string]int{}
	for d := range 40 {
		at := monday.AddDate(0, 0, d).Add(12 * time.Hour).UnixNano()
		for m := event.TenantID(1); m <= 10; m++ {
			for _, x := range web(m, at, "/wp-login.php") {
				told[x.RuleID]++
			}
			if d == 30 {
				for _, x := range web(m, at, fmt.Sprintf("/owa/%d/new-flaw", m)) {
					told[x.RuleID+" new"]++
				}
			}
		}
	}
	if told["baseline-across-url"] != 0 || told["baseline-across-url new"] != 2 || told["baseline-elsewhere new"] != 10 {
		t.Errorf("told: %v", told)
	}
}

// Keys with many members are bounded, and those that are over make room.
func TestManyBigKeys(t *testing.T) {
	e := scheme(t, 10)
	e.lim.big = 5
	at := weekday(3, 0, 10*time.Hour)
	wave := func(at int64, from int) {
		for k := range 8 {
			for m := range 10 {
				e.Observe(attack(event.TenantID(m+1), at, fmt.Sprintf("198.51.100.%d", from+k)), at)
			}
		}
	}
	wave(at, 0)
	if e.big != 5 || e.Stats().Evicted == 0 {
		t.Errorf("%d big keys, want 5, and a fault counted", e.big)
	}
	wave(at+int64(50*time.Hour), 100)
	big := 0
	for i := range e.crossings.slots {
		if e.crossings.slots[i].more != nil {
			big++
		}
	}
	if big != 5 || e.big != 5 {
		t.Errorf("two days later %d big keys, counted %d, want 5", big, e.big)
	}
}
