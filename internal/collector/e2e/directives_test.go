package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/ledger"
	"tocsin/internal/member"

	"golang.org/x/mod/sumdb/note"
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
	h.openLedger()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.directives = append(h.directives, env)
}

// openLedger opens the hub's own ledger, in which its directives are entered.
func (h *hub) openLedger() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ledger == nil {
		h.ledger = h.newLedger("ledger", h.db, h.store, func() (out [][32]byte) {
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, env := range h.directives {
				out = append(out, sha256.Sum256(env))
			}
			return out
		})
	}
}

// newLedger runs a ledger under the scheme's name and key until the test ends.
func (h *hub) newLedger(name string, d *db.DB, register ledger.Register, entries func() [][32]byte) *ledger.Ledger {
	h.t.Helper()
	feed, err := h.bus.Consumer(context.Background(), name, "batch.*")
	if err != nil {
		h.t.Fatal(err)
	}
	// Not below the test's own folder: Tessera may write a last time after it was closed, and would be in the way of that folder's removal.
	dir, err := os.MkdirTemp("", "tocsin-"+name)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		for range 3 {
			if os.RemoveAll(dir) == nil {
				break
			}
		}
	})
	l, err := ledger.Open(context.Background(), ledger.Options{
		Dir: dir, Signer: must(h.ring.NoteSigner(directive.LedgerOrigin(h.ring.Trust().RootFingerprint()))), DB: d, Messages: feed, Register: register,
		Directives: entries, DirectivesEvery: 10 * time.Millisecond, CheckpointEvery: 100 * time.Millisecond,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		err := <-done
		closing, stop := context.WithTimeout(context.Background(), 20*time.Second)
		defer stop()
		if err := errors.Join(err, l.Close(closing)); err != nil {
			h.t.Errorf("ledger: %v", err)
		}
	})
	return l
}

// joined is all envelopes one after another.
func joined(envelopes []json.RawMessage) (all []byte) {
	for _, e := range envelopes {
		all = append(all, e...)
	}
	return all
}

// handOut answers for the hub's directives: those that its ledger covers, with their proofs; or what a hostile hub makes of that.
func (h *hub) handOut(ctx context.Context, _, have string, seen batch.Tree) (out batch.Directives, tag string, err error) {
	h.mu.Lock()
	envelopes, l, tamper := slices.Clone(h.directives), h.ledger, h.tamper
	h.mu.Unlock()
	if l == nil {
		return out, "none", nil
	}
	cp, err := l.Latest(ctx)
	if err != nil {
		return out, "", err
	}
	for _, env := range envelopes {
		p, err := l.ProveAt(ctx, sha256.Sum256(env), cp)
		if errors.Is(err, ledger.ErrNotFound) {
			continue
		}
		if err != nil {
			return out, "", err
		}
		out.Directives, out.Proofs = append(out.Directives, env), append(out.Proofs, batch.Inclusion{Index: p.Index, Hashes: p.Hashes})
	}
	if tag = fmt.Sprintf("%x", sha256.Sum256(joined(out.Directives))); tag == have && tamper == nil {
		return batch.Directives{}, tag, nil
	}
	out.Checkpoint = string(cp)
	out.Consistency, err = l.Consistency(ctx, seen.Size, cp)
	if tamper != nil && len(out.Directives) == len(envelopes) {
		tamper(&out, envelopes[len(envelopes)-1])
		tag = "tampered"
	}
	return out, tag, err
}

func (h *hub) newestCheckpoint() string {
	h.mu.Lock()
	l, instead := h.ledger, h.checkpoint
	h.mu.Unlock()
	if instead != "" || l == nil {
		return instead
	}
	cp, err := l.Latest(context.Background())
	if err != nil {
		h.t.Error(err)
	}
	return string(cp)
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
	h, s, r, c := begin(t, "Abbey", withMatcher)
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

// Standing consent answers at once, standing refusal denies at once; nobody sits before the machine.
func TestConsent(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, c := range []struct {
		consent, state, by string
		hits               int
	}{
		{collector.ConsentStanding, collector.QuestionAnswered, "standing consent", 2},
		{collector.ConsentNever, collector.QuestionDenied, "standing refusal", 0},
	} {
		s := newSite(t, h, "Consent "+c.consent)
		s.cfg.LookBack.Consent = c.consent
		r := s.start(withMatcher)
		conn := r.tcp()
		for i := range 100 {
			dst := "203.0.113.201"
			if i%50 == 7 {
				dst = "203.0.113.200"
			}
			fmt.Fprintf(conn, "%s\n", traffic("accept", "10.0.0.5", dst, i))
		}
		r.settled(100)
		q := question(nil)
		h.ask(uint64(time.Now().UnixMicro()), q)
		r.until("it is decided", func(st *collector.Status) bool { return st.Counts["made.look_back"] == uint64(c.hits+1) })
		r.settled(100)
		list, err := collector.FetchQuestions(t.Context(), &s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(list, func(x collector.QuestionStatus) bool { return x.ID == q.ID })
		if at < 0 || list[at].State != c.state || !strings.Contains(list[at].By, c.by) || list[at].Sent != c.hits {
			t.Errorf("%s: %+v", c.consent, list)
		}
		if err := collector.DecideQuestion(t.Context(), &s.cfg, q.ID, true); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("%s: decided a second time: %v", c.consent, err)
		}
		k := h.take(s.id)
		if k.lanes[batch.LookBack] != c.hits+1 {
			t.Errorf("%s: %d events left", c.consent, k.lanes[batch.LookBack])
		}
		for _, raw := range k.raw {
			if c.hits == 0 && (strings.Contains(raw, "lines_read") || strings.Contains(raw, "203.0.113.200")) {
				t.Errorf("a refusal says more than that: %s", raw)
			}
		}
		r.end()
		h.mu.Lock()
		h.directives = nil
		h.mu.Unlock()
	}
}

// empty is a register of members with nothing in it.
type empty struct{}

func (empty) Log(context.Context, int64, int) ([]member.LogEntry, error) { return nil, nil }

// A hub that holds the signing keys too cannot ask one site in secret: what does not stand in the ledger that was seen before is not done.
func TestHostileLedger(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "Deer Park", withMatcher)
	pack := func(i int) []byte {
		b, err := directive.Pack(fstest.MapFS{"milk/parser.yaml": {Data: fmt.Appendf(nil, "format: 1\nname: milk\nversion: 1\nvendor: V\nproduct: P%d\ntype: firewall\ndataset: v.p\nrecognise:\n  - program: milk\nread:\n  - line: 'from {from:ip}'\nfields:\n  from: source.ip\n", i)}, "milk/README.md": {Data: []byte("# Milk\n")}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	h.direct(directive.Parsers, keys.Packs, 1, pack(1))
	r.until("what stands in the ledger is done", func(st *collector.Status) bool { return strings.HasPrefix(st.ParserPack, "1 ") })

	// Another ledger of the same name, signed with the same key, that nobody else is shown.
	var secret atomic.Pointer[[]byte]
	other, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "fork.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	fork := h.newLedger("fork", other, empty{}, func() [][32]byte {
		out := [][32]byte{{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}, {16}}
		if env := secret.Load(); env != nil {
			out = append(out, sha256.Sum256(*env))
		}
		return out
	})
	stranger, err := keys.CreateScheme(keys.SchemeOptions{Dir: filepath.Join(t.TempDir(), "k"), Offline: filepath.Join(t.TempDir(), "o"), Name: "Stranger", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	resign := func(cp, origin string) string {
		_, rest, _ := strings.Cut(cp, "\n")
		body, _, _ := strings.Cut(rest, "\n\n")
		signed, err := note.Sign(&note.Note{Text: origin + "\n" + body + "\n"}, must(h.ring.NoteSigner(origin)))
		if err != nil {
			t.Error(err)
		}
		return string(signed)
	}
	var early batch.Directives // an answer from before
	for i, x := range []struct {
		does   string
		tamper func(*batch.Directives, []byte)
		says   string
	}{
		{"no proofs", func(d *batch.Directives, _ []byte) { early, d.Proofs = *d, nil }, "nothing shows"},
		{"the proof of another", func(d *batch.Directives, _ []byte) { d.Proofs[len(d.Proofs)-1] = d.Proofs[0] }, "nothing shows"},
		{"an index beyond the tree", func(d *batch.Directives, _ []byte) { d.Proofs[len(d.Proofs)-1].Index = 1 << 62 }, "nothing shows"},
		{"no checkpoint", func(d *batch.Directives, _ []byte) { d.Checkpoint = "" }, "nothing shows"},
		{"a checkpoint that is damaged", func(d *batch.Directives, _ []byte) { d.Checkpoint = strings.Replace(d.Checkpoint, "\n", "\n1", 1) }, "not valid"},
		{"a checkpoint of another scheme's ledger", func(d *batch.Directives, _ []byte) {
			d.Checkpoint = resign(d.Checkpoint, directive.LedgerOrigin(stranger.RootFingerprint()))
		}, "not valid"},
		{"an older checkpoint", func(d *batch.Directives, _ []byte) { d.Checkpoint, d.Consistency = early.Checkpoint, nil }, "not the one that was seen"},
		{"no proof that the ledger only grew", func(d *batch.Directives, _ []byte) { d.Consistency = nil }, "not the one that was seen"},
		{"another ledger of the same name", func(d *batch.Directives, env []byte) {
			secret.Store(&env)
			cp, err := fork.Latest(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			d.Checkpoint, d.Consistency = string(cp), nil
			if p, err := fork.ProveAt(context.Background(), sha256.Sum256(env), cp); err == nil {
				d.Proofs[len(d.Proofs)-1] = batch.Inclusion{Index: p.Index, Hashes: p.Hashes}
			}
		}, "not the one that was seen"},
	} {
		version := uint64(i + 2)
		fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.5", "198.51.100.7", i)) // the ledger grows, and an acknowledgement brings its checkpoint
		seen := r.settled(uint64(i + 1))
		h.mu.Lock()
		h.tamper = x.tamper
		h.mu.Unlock()
		h.direct(directive.Parsers, keys.Packs, version, pack(int(version)))
		what := fmt.Sprintf("%s %d", directive.Parsers, version)
		st := r.until("refused: "+x.does, func(st *collector.Status) bool {
			return slices.ContainsFunc(st.Refusals, func(f collector.Refusal) bool { return f.What == what })
		})
		for _, f := range st.Refusals {
			if f.What == what && !strings.Contains(f.Why, x.says) {
				t.Errorf("%s: refused because %q, want %q", x.does, f.Why, x.says)
			}
		}
		if strings.HasPrefix(st.ParserPack, fmt.Sprint(version)+" ") {
			t.Errorf("%s: it is in force", x.does)
		}
		if seen.Counts["directives_refused"] >= st.Counts["directives_refused"] {
			t.Errorf("%s: not counted", x.does)
		}
	}
	// What acknowledgements say of the ledger is believed no further, and holds nothing up.
	h.mu.Lock()
	h.tamper, h.checkpoint = nil, strings.Repeat("x", 5000)
	h.mu.Unlock()
	r.until("the honest answer is taken", func(st *collector.Status) bool { return strings.HasPrefix(st.ParserPack, "10 ") })
	for i := range 5 {
		fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.5", "198.51.100.7", i))
	}
	st := r.settled(14)
	if !slices.ContainsFunc(st.Refusals, func(f collector.Refusal) bool { return strings.Contains(f.What, "ledger") }) {
		t.Errorf("a checkpoint of 5000 bytes is not said: %+v", st.Refusals)
	}
	k := h.take(s.id)
	k.balance(t)
	v, err := directive.OpenCheckpoint(h.ring.Trust(), k.checkpoint)
	if err != nil || v.Size < 10 {
		t.Errorf("the newest manifest names %q: %v", k.checkpoint, err)
	}
	// A ledger with another name, as after a restore of the hub, is taken: and the member is told.
	h.mu.Lock()
	h.checkpoint = resign(k.checkpoint, v.Origin+"/20261122T120000Z")
	h.mu.Unlock()
	fmt.Fprintf(c, "%s\n", traffic("deny", "203.0.113.5", "198.51.100.7", 15))
	r.until("the member is told of another ledger", func(st *collector.Status) bool {
		return slices.ContainsFunc(st.Warnings, func(w collector.Warning) bool {
			return w.Code == "ledger_anew" && strings.Contains(w.Next, "restored from a copy")
		})
	})
}

// A hostile hub: nothing it signs widens what leaves, and everything it tried is said. What is good goes on.
func TestHostileHub(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "Castle", withMatcher)
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
	// Also when the time to take it is over: what was taken goes on until something newer comes.
	r.end()
	a, err := collector.Open(collector.Options{Config: s.cfg, Version: "test", Detector: detector, RulePack: "test", Now: func() time.Time { return time.Now().Add(2 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Status().RulePack; got != inForce {
		t.Errorf("after its end the rules are %q", got)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// milkgate is a parser of a product that nobody makes.
const milkgate = `format: 1
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

// A product that nobody knew is added to a running collector from the hub's side.
func TestNewProductWhileRunning(t *testing.T) {
	t.Parallel()
	h, s, r, c := begin(t, "Dairy", withMatcher)
	const line = "<134>Nov 12 08:41:07 dairy milkgate: gate<3> shut for mate from 203.0.113.77:51514 to 198.51.100.7:3389/tcp"
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
	h.direct(directive.Parsers, keys.Packs, 1, pack(milkgate))
	r.until("the pack is in force", func(st *collector.Status) bool { return strings.HasPrefix(st.ParserPack, "1 ") })
	fmt.Fprintln(c, line)
	r.until("understood, and it leaves", func(st *collector.Status) bool { return st.Counts["left.denied_inbound"] == 1 })
	// A bad one changes nothing.
	h.direct(directive.Parsers, keys.Packs, 2, pack(strings.Replace(milkgate, "user", "no such field!", 1)))
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
	// Whoever asks on this machine what would leave is told by what is in force on it.
	x, err := collector.NewExplainer(&s.cfg, detector)
	if err != nil {
		t.Fatal(err)
	}
	if ex := x.Line([]byte(line)); !ex.Leaves || ex.Format != "milkgate" || !slices.Contains(ex.Stays, "user.name") {
		t.Errorf("explained as %+v", ex)
	}
}
