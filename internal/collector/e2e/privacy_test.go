package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
	"tocsin/internal/detect"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// directives of a hub: signed with the offline keys, or with whatever a hostile hub has.
func (h *hub) direct(kind string, purpose keys.Purpose, version uint64, content []byte, change ...func(*keys.Directive)) {
	h.t.Helper()
	var s *keys.Signer
	var err error
	if purpose == keys.IndicatorSets || purpose == keys.Receipts {
		s, err = h.ring.Signer(purpose)
	} else {
		s, err = keys.OfflineSigner(filepath.Join(h.dir, "offline"), h.ring.Trust(), purpose)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	d := keys.Directive{Type: kind, Audience: keys.Everybody, Version: version, Issued: time.Now(), Expires: time.Now().Add(time.Hour), Content: content}
	for _, c := range change {
		c(&d)
	}
	env, err := keys.SignDirective(s, d)
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.directives = append(h.directives, env)
}

func matcher(rule string) (func(*event.Event) bool, error) {
	m, err := detect.NewMatcher(rule)
	if err != nil {
		return nil, err
	}
	return m.Matches, nil
}

func withMatcher(o *collector.Options) { o.Matcher, o.HouseEvery = matcher, 50*time.Millisecond }

func question(change func(*directive.Question)) *directive.Question {
	now := time.Now()
	q := &directive.Question{ID: directive.NewID(), Asked: now, By: "Regional SOC", Purpose: "who else was visited", Indicators: []string{"203.0.113.200"},
		Authority: directive.Authority{Regime: "uk-gdpr", Basis: "legitimate interests", Reference: "REF-7", Approver: "J. Duty"}, From: now.Add(-time.Hour), To: now.Add(time.Hour)}
	if change != nil {
		change(q)
	}
	return q
}

func (h *hub) ask(version uint64, q *directive.Question) {
	h.t.Helper()
	b, err := q.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	h.direct(directive.LookBack, keys.Questions, version, b)
}

// A question about the past is shown to the member, and answered only when the member allows it: only hits leave, without content, once.
// What was sent before does not leave again. The hub's statement and the record agree throughout.
func TestLookBack(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Abbey")
	r := s.start(withMatcher)
	c := r.tcp()
	n := uint64(0)
	for i := range 300 {
		dst := "203.0.113.201"
		if i%100 == 5 {
			dst = "203.0.113.200" // benign then, asked for now
		}
		fmt.Fprintf(c, "%s\n", traffic("accept", "10.0.0.5", dst, i))
		n++
	}
	for i := range 4 {
		fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.200", "198.51.100.7", i)) // has left already
		n++
	}
	r.settled(n)
	before := len(h.take(s.id).events)
	asked, denied, rule := question(nil), question(nil), question(func(q *directive.Question) {
		q.Indicators = nil
		q.Rule = "title: To the listed address\nid: 0b6b6c2e-6f8a-4a4e-9a52-222222222222\nlogsource: {category: firewall}\ndetection:\n  s: {destination.ip: 203.0.113.200}\n  condition: s\n"
	})
	h.ask(1, asked)
	h.ask(2, denied)
	st := r.until("the questions wait for the member", func(st *collector.Status) bool { return st.Questions == 2 })
	if st.Counts["made.look_back"] != 0 {
		t.Error("something left before the member said anything")
	}
	ctx := context.Background()
	if err := collector.DecideQuestion(ctx, &s.cfg, asked.ID, true); err != nil {
		t.Fatal(err)
	}
	if err := collector.DecideQuestion(ctx, &s.cfg, denied.ID, false); err != nil {
		t.Fatal(err)
	}
	if err := collector.DecideQuestion(ctx, &s.cfg, denied.ID, true); err == nil {
		t.Error("a denied question was allowed afterwards")
	}
	r.until("answered", func(st *collector.Status) bool { return st.Counts["made.look_back"] == 3+1+1 })
	h.ask(3, rule)
	r.until("another question", func(st *collector.Status) bool { return st.Questions == 1 })
	if err := collector.DecideQuestion(ctx, &s.cfg, rule.ID, true); err != nil {
		t.Fatal(err)
	}
	r.until("answered too", func(st *collector.Status) bool { return st.Counts["made.look_back"] == 5+3+1 })
	r.settled(n)
	list, err := collector.FetchQuestions(ctx, &s.cfg)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d questions: %v", len(list), err)
	}
	for _, q := range list {
		switch q.ID {
		case asked.ID:
			if q.State != collector.QuestionAnswered || q.Hits != 7 || q.Known != 4 || q.Sent != 3 || q.Read < 304 {
				t.Errorf("asked: %+v", q)
			}
		case denied.ID:
			if q.State != collector.QuestionDenied || q.Sent != 0 {
				t.Errorf("denied: %+v", q)
			}
		case rule.ID:
			if q.State != collector.QuestionAnswered || q.Sent != 3 {
				t.Errorf("rule: %+v", q)
			}
		}
	}
	k := h.take(s.id)
	if len(k.events) != before+9 || k.lanes[batch.LookBack] != 9 {
		t.Errorf("%d events before, %d now; lanes %v", before, len(k.events), k.lanes)
	}
	hits := 0
	for i, e := range k.events {
		if e.Str(event.TocsinLeftReason) != "look_back" {
			continue
		}
		if dst, ok := e.IP(event.DestinationIP); ok {
			hits++
			if dst != netip.MustParseAddr("203.0.113.200") || !strings.Contains(k.raw[i], "tocsin.question.id") || !e.HasRawDigest {
				t.Errorf("answer: %s", k.raw[i])
			}
		} else if e.Str(event.EventDataset) != "tocsin.look_back" {
			t.Errorf("not an answer: %s", k.raw[i])
		}
	}
	if hits != 6 {
		t.Errorf("%d hits left", hits)
	}
	// Sums: of lines as ever; of events with what was made.
	counts := k.counts
	if made, gone := sum(counts, "left.")+sum(counts, "made."), counts["sent"]; made != gone || gone != uint64(len(k.events)) {
		t.Errorf("%d made, %d sent, %d at the hub", made, gone, len(k.events))
	}
	rec, err := collector.Reconcile(ctx, &s.cfg, "test")
	if err != nil || !rec.Match || rec.Events[0] != uint64(len(k.events)) || rec.Events != [2]uint64{rec.Events[0], rec.Events[0]} {
		t.Errorf("reconciled: %+v %v", rec, err)
	}
	// After a restart nothing is answered again.
	r.end()
	r = s.start(withMatcher)
	r.until("reached again", func(st *collector.Status) bool { return st.State != "" })
	if got := r.Status().Counts["made.look_back"]; got != 9 {
		t.Errorf("after a restart %d", got)
	}
}

// The record and the hub's statement: what is missing at the hub, or too much there, is named.
func TestReconcileNamesTheDifference(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Bank")
	r := s.start()
	c := r.tcp()
	for i := range 200 {
		fmt.Fprintf(c, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
	}
	r.settled(200)
	ctx := context.Background()
	rec, err := collector.Reconcile(ctx, &s.cfg, "test")
	if err != nil || !rec.Match || rec.Events != [2]uint64{200, 200} {
		t.Fatalf("%+v %v", rec, err)
	}
	r.end()
	// A record that has lost its batches is found to be that.
	copied := filepath.Join(t.TempDir(), "c")
	copyDir(t, s.cfg.Dir, copied)
	if err := os.RemoveAll(filepath.Join(copied, "batches")); err != nil {
		t.Fatal(err)
	}
	other := s.cfg
	other.Dir = copied
	rec, err = collector.Reconcile(ctx, &other, "test")
	if err != nil || rec.Match {
		t.Errorf("a record without batches agrees: %+v %v", rec, err)
	}
}

// A hostile hub: nothing it signs widens what leaves, and everything it tried is said. What is good goes on.
func TestHostileHub(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Castle")
	r := s.start(withMatcher)
	c := r.tcp()
	pack := func(files fstest.MapFS) []byte {
		b, err := directive.Pack(files)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const head = "title: Everything\nid: 0b6b6c2e-6f8a-4a4e-9a52-333333333333\nstatus: test\nlevel: high\nlogsource: {product: tocsin}\n"
	const tail = "tocsin:\n  runs: site\n  family: ids\n  entity: rule\n  reason: \"{count} events\"\n  member: {title: t, what: w, do: d}\n  analyst: a\n"
	all := pack(fstest.MapFS{"all.yml": {Data: []byte(head + "detection:\n  s: {no.such.field: null}\n  condition: s\n" + tail)}})
	good := pack(fstest.MapFS{"good.yml": {Data: []byte(strings.Replace(head, "Everything", "Something", 1) + "detection:\n  s: {destination.port: 31337}\n  condition: s\n" + tail)}})
	h.direct(directive.Rules, keys.Packs, 10, good)
	r.until("a good pack is in force", func(st *collector.Status) bool { return strings.HasPrefix(st.RulePack, "10 ") })
	inForce := r.Status().RulePack
	everything := question(func(q *directive.Question) {
		q.Indicators = nil
		q.Rule = "title: x\nid: 0b6b6c2e-6f8a-4a4e-9a52-444444444444\nlogsource: {product: tocsin}\ndetection:\n  s: {no.such.field: null}\n  condition: s\n"
	})
	b, err := everything.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range []struct {
		kind    string
		purpose keys.Purpose
		version uint64
		content []byte
		change  func(*keys.Directive)
		says    string
	}{
		{directive.Rules, keys.Packs, 11, all, nil, "matches everything"},
		{directive.Rules, keys.Packs, 9, good, nil, "never goes back"},
		{directive.Rules, keys.Packs, 12, []byte("not a pack"), nil, "not valid"},
		{directive.Rules, keys.Questions, 13, good, nil, "may not sign that"},
		{directive.Rules, keys.IndicatorSets, 14, good, nil, "signature"},
		{directive.Rules, keys.Packs, 15, good, func(d *keys.Directive) {
			d.Expires = time.Now().Add(-time.Minute)
			d.Issued = d.Expires.Add(-time.Hour)
		}, "expired"},
		{directive.Rules, keys.Packs, 16, good, func(d *keys.Directive) { d.Audience = "019aa0b4-7c00-7000-8000-000000000001" }, "another collector"},
		{directive.Parsers, keys.Packs, 17, pack(fstest.MapFS{"x/parser.yaml": {Data: []byte("nonsense: [")}}), nil, "parser.yaml"},
		{"command", keys.Packs, 18, []byte("rm -rf"), nil, "does not know"},
		{directive.LookBack, keys.Questions, 19, b, nil, "matches everything"},
		{directive.LookBack, keys.Packs, 20, b, nil, "may not sign that"},
	} {
		h.direct(d.kind, d.purpose, d.version, d.content, func(x *keys.Directive) {
			if d.change != nil {
				d.change(x)
			}
		})
		st := r.until(fmt.Sprintf("refusal %d (%s)", i, d.says), func(st *collector.Status) bool { return len(st.Refusals) == i+1 })
		if why := st.Refusals[i].Why; !strings.Contains(why, d.says) {
			t.Errorf("%s %d: refused because %q, want %q", d.kind, d.version, why, d.says)
		}
		if st.RulePack != inForce || st.Questions != 0 {
			t.Errorf("%s %d changed something", d.kind, d.version)
		}
	}
	// An indicator that everything touches is switched off: a busy neighbour's address does not empty the site.
	h.indicators(2, "203.0.113.200")
	r.until("indicators in force", func(st *collector.Status) bool { return st.Indicators != "" })
	for i := range 3000 {
		fmt.Fprintf(c, "%s\n", traffic("accept", "10.0.0.5", "203.0.113.200", i))
	}
	st := r.settled(3000)
	if st.Counts["left.indicator"] > 150 || st.Counts["kept.allowed"] < 2800 || len(st.SwitchedOff) != 1 {
		t.Errorf("a set released %d of 3000 lines: %v, off %v", st.Counts["left.indicator"], st.Counts, st.SwitchedOff)
	}
	// What is wider than an indicator may be is not even taken into a set; the pack in force is there after a restart.
	r.end()
	r = s.start(withMatcher)
	if r.Status().RulePack != inForce {
		t.Errorf("after a restart the rules are %q", r.Status().RulePack)
	}
	h.take(s.id).balance(t)
}

// A product that nobody knew is added to a running collector from the hub's side.
func TestNewProductWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Dairy")
	r := s.start(withMatcher)
	c := r.tcp()
	const line = "<134>Nov 12 08:41:07 dairy milkgate: gate<3> shut for mate from 203.0.113.77:51514 to 198.51.100.7:3389/tcp"
	const description = `format: 1
name: milkgate
version: 1
vendor: Dairy Works
product: Milk Gate
type: firewall
dataset: dairy.gate
recognise:
  - program: milkgate
tables:
  words: {opened: allow, shut: deny, rang: detect}
read:
  - line: 'gate<{gate:int}> {what:word} for {who:name} from {from:ip}:{fport:int} to {to:ip}:{tport:int}/{proto:word}'
fields:
  what: {to: action, map: words}
  who: user
  from: source.ip
  fport: source.port
  to: destination.ip
  tport: destination.port
  proto: transport
  gate: observer.egress.interface.name
`
	fmt.Fprintln(c, line)
	st := r.until("not understood, kept and shown", func(st *collector.Status) bool { return len(st.Unknown) == 1 })
	if k := st.Unknown[0].Kinds[0]; !strings.Contains(k.Text, "milkgate") || len(k.Found) != 2 || k.Found[0] != "203.0.113.77:51514" {
		t.Errorf("%+v", st.Unknown[0])
	}
	pack := func(text string) []byte {
		b, err := directive.Pack(fstest.MapFS{"milkgate/parser.yaml": {Data: []byte(text)}, "milkgate/README.md": {Data: []byte("# Milk Gate\n")}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	h.direct(directive.Parsers, keys.Packs, 1, pack(description))
	r.until("the pack is in force", func(st *collector.Status) bool { return strings.HasPrefix(st.ParserPack, "1 ") })
	fmt.Fprintln(c, line)
	r.until("understood, and it leaves", func(st *collector.Status) bool { return st.Counts["left.denied_inbound"] == 1 })
	// A bad one changes nothing.
	h.direct(directive.Parsers, keys.Packs, 2, pack(strings.Replace(description, "user", "no such field!", 1)))
	r.until("a bad pack is refused and said", func(st *collector.Status) bool {
		return len(st.Refusals) == 1 && strings.HasPrefix(st.ParserPack, "1 ")
	})
	fmt.Fprintln(c, line)
	r.settled(3)
	k := h.take(s.id)
	k.balance(t)
	if len(k.events) != 2 || k.events[0].Str(event.ObserverProduct) != "Milk Gate" || k.counts["not_understood"] != 1 {
		t.Errorf("%v\n%s", k.counts, strings.Join(k.raw, "\n"))
	}
	if strings.Contains(strings.Join(k.raw, "\n"), "mate") {
		t.Error("a user left")
	}
}

// Troubleshooting: raw lines leave only while the member lets them, and say until when they may be kept.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Estate")
	r := s.start()
	c := r.tcp()
	line := func(i int) { fmt.Fprintf(c, "%s SECRET%d\n", traffic("accept", "10.0.0.5", "203.0.113.201", i), i) }
	line(0)
	r.settled(1)
	ctx := context.Background()
	if err := collector.Troubleshoot(ctx, &s.cfg, 48*time.Hour, netip.Addr{}); err == nil {
		t.Error("for two days")
	}
	if err := collector.Troubleshoot(ctx, &s.cfg, time.Hour, netip.MustParseAddr("127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	line(1)
	line(2)
	st := r.settled(3)
	if st.Raw == nil || st.Raw.Lines != 2 || !strings.Contains(s.logs.String(), "RAW LINES LEAVE") {
		t.Errorf("%+v", st.Raw)
	}
	if err := collector.Troubleshoot(ctx, &s.cfg, 0, netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	line(3)
	r.settled(4)
	k := h.take(s.id)
	all := strings.Join(k.raw, "\n")
	if k.lanes[batch.Raw] != 2 || strings.Contains(all, "SECRET0") || !strings.Contains(all, "SECRET1") || !strings.Contains(all, "SECRET2") || strings.Contains(all, "SECRET3") || strings.Count(all, "tocsin.expires") != 2 {
		t.Errorf("lanes %v:\n%s", k.lanes, all)
	}
	if k.counts["made.raw"] != 2 || k.counts["kept.allowed"] != 4 {
		t.Errorf("%v", k.counts)
	}
	if rec, err := collector.Reconcile(ctx, &s.cfg, "test"); err != nil || !rec.Match {
		t.Errorf("%+v %v", rec, err)
	}
}

// The local page: for those with the secret, under a literal loopback name, reading only.
func TestPage(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Farm <b>shop</b>")
	r := s.start()
	c := r.tcp()
	for i := range 20 {
		fmt.Fprintf(c, "%s\n", traffic([]string{"deny", "accept"}[i%2], "203.0.113.5", "198.51.100.7", i))
	}
	fmt.Fprintf(c, "<script>alert(1)</script> what is this from 203.0.113.9:99\n")
	r.settled(21)
	url, err := collector.FetchPage(context.Background(), &s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	base, _, _ := strings.Cut(url, "?")
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar}
	get := func(client *http.Client, url, host, method string) (int, string, http.Header) {
		req, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Header
	}
	if code, _, _ := get(http.DefaultClient, base, "", "GET"); code != http.StatusUnauthorized {
		t.Errorf("without the secret: %d", code)
	}
	if code, _, _ := get(http.DefaultClient, base+"?key=00000000000000000000000000000000", "", "GET"); code != http.StatusUnauthorized {
		t.Errorf("with another secret: %d", code)
	}
	for _, host := range []string{"evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.1", "localhost.evil.example"} {
		if code, body, _ := get(http.DefaultClient, url, host, "GET"); code != http.StatusForbidden || strings.Contains(body, "Farm") {
			t.Errorf("as %s: %d", host, code)
		}
	}
	code, body, header := get(client, url, "", "GET")
	if code != 200 {
		t.Fatalf("signed in: %d %s", code, body)
	}
	for _, want := range []string{"Farm &lt;b&gt;shop", "kept.allowed", "left.denied_inbound", "We do not understand these yet", "&lt;script&gt;alert(1)", "203.0.113.9:99", "policy"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing on the page", want)
		}
	}
	if strings.Contains(body, "<script") || strings.Contains(body, "<b>shop") {
		t.Error("what a sender writes is markup")
	}
	csp := header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", header)
	}
	if code, _, _ := get(client, base, "", "POST"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
	code, _, _ = get(client, base+"sent", "localhost:1", "GET")
	if code != 200 && code != http.StatusUnauthorized {
		t.Errorf("as localhost: %d", code)
	}
	if code, body, _ = get(client, base+"sent", "", "GET"); code != 200 || !strings.Contains(body, "/sent?batch=") {
		t.Fatalf("what left: %d %s", code, body)
	}
	_, rest, _ := strings.Cut(body, "/sent?batch=")
	digest, _, _ := strings.Cut(rest, `"`)
	if code, body, _ = get(client, base+"sent?batch="+digest, "", "GET"); code != 200 || !strings.Contains(body, "Byte for byte") {
		t.Errorf("a batch: %d %s", code, body)
	}
}
