package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"tocsin/internal/access"
	"tocsin/internal/app"
	"tocsin/internal/batch"
	"tocsin/internal/collector/send"
	"tocsin/internal/config"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// Everything a collector, a thief or a broken link can send to the gate: refused with a reason and a next step, counted where the operator
// sees it, and the next good batch is taken.
func TestBadInputAtTheGate(t *testing.T) {
	t.Parallel()
	h := newHub(t)

	// refused sends b and demands the refusal, its count, and that the line goes on.
	refused := func(t *testing.T, s *site, c *http.Client, b []byte, status int, code string) batch.Problem {
		t.Helper()
		before := h.failed(t, "gate", code)
		a := post(t, c, h.gate, b)
		if a.status != status || a.problem.Code != code {
			t.Fatalf("answered %d %+v, want %d %s", a.status, a.problem, status, code)
		}
		if a.kind != "application/problem+json" || a.problem.Title == "" || a.problem.Detail == "" || a.problem.Next == "" {
			t.Errorf("no clear reason with a next step: %s %+v", a.kind, a.problem)
		}
		if n := h.failed(t, "gate", code) - before; n != 1 {
			t.Errorf("counted %d times in stages.gate.failed.%s", n, code)
		}
		s.good(s.own(), 3)
		return a.problem
	}

	t.Run("no certificate", func(t *testing.T) {
		s := h.join(t)
		refused(t, s, s.client(nil), s.batch(1, nil).Submission(), http.StatusUnauthorized, batch.CodeNoCert)
	})
	t.Run("unknown certificate", func(t *testing.T) {
		s := h.join(t)
		refused(t, s, s.client(stranger(t, s.id)), s.batch(1, nil).Submission(), http.StatusUnauthorized, batch.CodeUnknownCert)
	})
	t.Run("not a batch", func(t *testing.T) {
		s := h.join(t)
		refused(t, s, s.own(), []byte("GARBAGE \xff\xfe\x00 no newline"), http.StatusBadRequest, "malformed")
		refused(t, s, s.own(), []byte("{}\n"), http.StatusBadRequest, "malformed")
		b := s.batch(5, nil).Submission()
		refused(t, s, s.own(), b[:len(b)-20], http.StatusUnprocessableEntity, "bad_digest") // cut short
	})
	t.Run("wrong signature", func(t *testing.T) {
		s := h.join(t)
		other, err := keys.CreateCollector(filepath.Join(folder(t), "k"))
		if err != nil {
			t.Fatal(err)
		}
		w := batch.NewWriter()
		if err := w.Add(line(1)); err != nil {
			t.Fatal(err)
		}
		sealed, err := w.Seal(batch.Manifest{Stream: s.stream, Seq: 1, Created: time.Now().UTC(), Counts: map[string]uint64{"sent": 1}}, other.Batch())
		if err != nil {
			t.Fatal(err)
		}
		kept := h.failed(t, "gate", "aside_kept")
		refused(t, s, s.own(), sealed.Submission(), http.StatusForbidden, "bad_signature")
		if n := h.failed(t, "gate", "aside_kept") - kept; n != 1 {
			t.Errorf("%d batches kept aside as evidence, want 1", n)
		}
	})
	t.Run("wrong digest", func(t *testing.T) {
		s := h.join(t)
		b := s.batch(5, nil).Submission()
		b[len(b)-10] ^= 1
		refused(t, s, s.own(), b, http.StatusUnprocessableEntity, "bad_digest")
	})
	t.Run("wrong collector and member", func(t *testing.T) {
		s, other := h.join(t), h.join(t)
		refused(t, s, s.own(), s.batch(1, func(m *batch.Manifest) { m.Stream.Collector = other.id }).Submission(), http.StatusForbidden, "wrong_collector")
		refused(t, s, s.own(), s.batch(1, func(m *batch.Manifest) { m.Stream.Tenant = other.tenant }).Submission(), http.StatusForbidden, "wrong_member")
		if c := h.collector(t, other.id); c.Batches != 0 || c.Acknowledged != 0 {
			t.Errorf("another member was charged: %+v", c)
		}
	})
	t.Run("wrong sequence", func(t *testing.T) {
		s := h.join(t)
		s.good(s.own(), 3)
		p := refused(t, s, s.own(), s.batch(1, func(m *batch.Manifest) { m.Seq, m.Prev = 7, [32]byte{1} }).Submission(), http.StatusConflict, batch.CodeOutOfSequence)
		if p.Head == nil || p.Head.Seq != 1 {
			t.Errorf("the refusal does not say where the stream stands: %+v", p.Head)
		}
	})
	t.Run("repeated batch", func(t *testing.T) {
		s := h.join(t)
		sealed := s.batch(4, nil)
		first := s.accepted(s.own(), sealed)
		for range 3 {
			if again := s.accepted(s.own(), sealed); !bytes.Equal(first, again) {
				t.Error("a repeat got another receipt")
			}
		}
		s.seq, s.prev = 1, sealed.Digest
		s.good(s.own(), 2)
		eventually(t, time.Minute, "storing", func() error {
			if c := h.collector(t, s.id); c.Stored != 6 || c.Acknowledged != 6 || c.Batches != 2 {
				return fmt.Errorf("%+v", c)
			}
			return nil
		})
	})
	t.Run("forked stream", func(t *testing.T) {
		s := h.join(t)
		s.good(s.own(), 2)
		s.good(s.own(), 2)
		fork := s.batch(9, func(m *batch.Manifest) { m.Seq, m.Prev = 2, [32]byte{2} })
		p := refused(t, s, s.own(), fork.Submission(), http.StatusConflict, batch.CodeFork)
		if p.Head == nil || p.Head.Seq != 2 {
			t.Errorf("head %+v", p.Head)
		}
		// People hear of it, once, however often it is sent.
		refused(t, s, s.own(), fork.Submission(), http.StatusConflict, batch.CodeFork)
		eventually(t, 20*time.Second, "an alert", func() error {
			n := 0
			for _, a := range h.status(t).Alerts {
				if a.Tenant == uint32(s.tenant) && a.Family == "collector-integrity" {
					n++
				}
			}
			if n != 1 {
				return fmt.Errorf("%d alerts of the fork, want 1", n)
			}
			return nil
		})
		// What the fork held is sent anew, in a new epoch.
		s.epoch()
		s.good(s.own(), 9)
	})
	t.Run("two machines with one identity", func(t *testing.T) {
		s := h.join(t)
		s.good(s.own(), 2)
		original := *s
		s.epoch() // the copy begins a stream of its own …
		s.good(s.own(), 2)
		original.good(original.own(), 2) // … and the original goes on: nothing is refused, and people hear of it
		if h.failed(t, "gate", "clone") == 0 {
			t.Error("stages.gate.failed.clone is not counted")
		}
		eventually(t, 20*time.Second, "an alert", func() error {
			for _, a := range h.status(t).Alerts {
				if a.Tenant == uint32(s.tenant) && a.Rule == "tocsin-collector-clone" {
					return nil
				}
			}
			return errors.New("no alert of the clone")
		})
	})
	t.Run("compression bomb", func(t *testing.T) {
		s := h.join(t)
		before := peak(t, h.cmd.Process.Pid)
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(z, "%064x\n", 7)
		if _, err := io.CopyN(z, zeros{}, 256<<20); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		refused(t, s, s.own(), s.forge(b.Bytes(), nil), http.StatusUnprocessableEntity, "bad_frame")
		// A frame whose window is larger than any collector's.
		b.Reset()
		if z, err = zstd.NewWriter(&b, zstd.WithWindowSize(64<<20)); err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, 512<<10)
		_, _ = rand.Read(noise)
		_, _ = z.Write(noise)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		refused(t, s, s.own(), s.forge(b.Bytes(), nil), http.StatusUnprocessableEntity, "bad_frame")
		if grown := peak(t, h.cmd.Process.Pid) - before; grown > 128<<20 {
			t.Errorf("the hub grew by %d MiB", grown>>20)
		}
	})
	t.Run("events that are not as announced", func(t *testing.T) {
		s := h.join(t)
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"no salt\n{}\n", fmt.Sprintf("{\"salt\":\"%064x\"}\nnot json \xff\n", 9), fmt.Sprintf("{\"salt\":\"%064x\"}\n{\"a\":1,\"a\":2}\n", 9), fmt.Sprintf("{\"salt\":\"%064x\"}\n{}\n{}\n", 9)} {
			p := refused(t, s, s.own(), s.forge(z.EncodeAll([]byte(text), nil), func(m map[string]any) { m["expanded"] = len(text) }), http.StatusUnprocessableEntity, "bad_body")
			t.Log(p.Detail)
		}
		// The right form, but not the events that were signed.
		text := fmt.Sprintf("{\"salt\":\"%064x\"}\n{\"message\":\"other\"}\n", 9)
		refused(t, s, s.own(), s.forge(z.EncodeAll([]byte(text), nil), func(m map[string]any) { m["expanded"] = len(text) }), http.StatusUnprocessableEntity, "bad_root")
	})
	t.Run("a newer manifest", func(t *testing.T) {
		s := h.join(t)
		refused(t, s, s.own(), s.batch(1, func(m *batch.Manifest) { m.Crit = []string{"from_the_future"} }).Submission(), http.StatusUnprocessableEntity, "version")
	})
	t.Run("over its limit", func(t *testing.T) {
		s := h.join(t)
		refused(t, s, s.own(), make([]byte, batch.MaxSubmission+1), http.StatusRequestEntityTooLarge, "too_big")
	})
	t.Run("too fast", func(t *testing.T) {
		s := h.join(t)
		c := s.own()
		before := h.failed(t, "gate", batch.CodeTooFast)
		var slowed answer
		for n := 0; slowed.problem.Code == ""; n++ {
			if n > 100 {
				t.Fatal("a hundred batches of one stream were taken at once")
			}
			sealed := s.batch(1, nil)
			a, err := try(t.Context(), c, h.gate, sealed.Submission())
			if err != nil {
				t.Fatal(err)
			}
			if a.status == http.StatusOK {
				s.seq, s.prev = s.seq+1, sealed.Digest
			} else {
				slowed = a
			}
		}
		if slowed.status != http.StatusTooManyRequests || slowed.problem.Code != batch.CodeTooFast || slowed.problem.Retry < 1 || slowed.problem.Next == "" {
			t.Errorf("%d %+v", slowed.status, slowed.problem)
		}
		if n := h.failed(t, "gate", batch.CodeTooFast) - before; n != 1 {
			t.Errorf("counted %d times", n)
		}
		s.good(c, 2) // after the wait that it was told
	})
	t.Run("noise on the port", func(t *testing.T) {
		s := h.join(t)
		before := h.failed(t, "gate", "handshake")
		for _, noise := range []string{"GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\xff\xff\x01", strings.Repeat("\x00", 4096), ""} {
			c, err := net.Dial("tcp", h.gate)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, noise) // the gate may hang up in the middle
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		eventually(t, 20*time.Second, "the count", func() error {
			if n := h.failed(t, "gate", "handshake") - before; n != 4 {
				return fmt.Errorf("%d broken handshakes counted, want 4", n)
			}
			return nil
		})
		s.good(s.own(), 1)
	})
	t.Run("revoked", func(t *testing.T) {
		s := h.join(t)
		c := s.own()
		s.good(c, 1)
		h.admin(t, "collector", "revoke", s.id, "--why", "test")
		// On the connection that is open, and on a new one.
		if a := post(t, c, h.gate, s.batch(1, nil).Submission()); a.status != http.StatusForbidden || a.problem.Code != batch.CodeRevoked || a.problem.Next == "" {
			t.Errorf("%+v", a)
		}
		if a, err := try(t.Context(), s.own(), h.gate, s.batch(1, nil).Submission()); err == nil {
			t.Errorf("a revoked collector came in: %+v", a)
		}
		if n := h.failed(t, "gate", batch.CodeRevoked); n < 2 {
			t.Errorf("counted %d times", n)
		}
	})
	t.Run("where the member sees it", func(t *testing.T) {
		s := h.join(t)
		b := s.batch(5, nil).Submission()
		b[len(b)-10] ^= 1
		refused(t, s, s.own(), b, http.StatusUnprocessableEntity, "bad_digest")
		eventually(t, 30*time.Second, "the member's count", func() error {
			var list []member.Collector
			if err := json.Unmarshal([]byte(h.admin(t, "collector", "list")), &list); err != nil {
				return err
			}
			for _, c := range list {
				if c.ID == s.id {
					if n := c.Balance.TurnedAway["bad_digest"]; n != 1 {
						return fmt.Errorf("turned away %v", c.Balance.TurnedAway)
					}
					return nil
				}
			}
			return errors.New("not listed")
		})
	})
	// All that was taken is stored, once; nothing that was refused is.
	eventually(t, time.Minute, "storing", func() error {
		for _, m := range h.status(t).Members {
			for _, c := range m.Collectors {
				if c.Stored != c.Acknowledged || c.Dead != 0 {
					return fmt.Errorf("%+v", c)
				}
			}
		}
		return nil
	})
	var want uint64
	for _, m := range h.status(t).Members {
		for _, c := range m.Collectors {
			want += c.Acknowledged
		}
	}
	got := query(t, h.dir, "SELECT count(), uniqExact(stream, seq, idx) FROM tocsin.events")
	if number(t, got[0]) != want || number(t, got[1]) != want {
		t.Errorf("%d events acknowledged, %s rows of %s events stored", want, got[0], got[1])
	}
	deadLetter(t, h)
}

// deadLetter sends a batch with an event that the hub cannot read: the others are stored, the sum names it, and the operator is told why.
func deadLetter(t *testing.T, h *hub) {
	s := h.join(t)
	w := batch.NewWriter()
	for _, b := range [][]byte{line(1), []byte(`{"event.kind":"event","source.ip":{"nested":1}}`), line(2)} {
		if err := w.Add(b); err != nil {
			t.Fatal(err)
		}
	}
	m := s.batch(3, nil).Manifest
	sealed, err := w.Seal(m, s.keys.Batch())
	if err != nil {
		t.Fatal(err)
	}
	s.accepted(s.own(), sealed)
	eventually(t, time.Minute, "the sum with a dead letter", func() error {
		for _, m := range h.status(t).Members {
			for _, c := range m.Collectors {
				if c.ID == s.id && (c.Acknowledged != 3 || c.Stored != 2 || c.Dead != 1) {
					return fmt.Errorf("%+v", c)
				}
			}
		}
		return nil
	})
	text := must(t, "", "tocsin", "admin", "--config", h.config, "dead-letters", "list")
	t.Logf("dead-letters list:\n%s", text)
	name := fmt.Sprintf("%x/1", sealed.Digest[:6])
	for _, want := range []string{"PUT ASIDE", s.id, name, "nested object"} {
		if !strings.Contains(text, want) {
			t.Errorf("the list of dead letters does not say %q:\n%s", want, text)
		}
	}
	if text := h.admin(t, "dead-letters", "list"); strings.Count(text, "\n") != 1 || !strings.Contains(text, `"events":1`) {
		t.Errorf("for programs: %s", text)
	}
	// Nothing is mended: tried again it fails again, and stays, and whoever asked is told and noted.
	code, out, errs := run(t, "", "tocsin", "admin", "--config", h.config, "dead-letters", "retry", name)
	if code != 1 || !strings.Contains(out, "1 letter tried again: 0 processed, with 0 events stored; 1 failed again") || !strings.Contains(errs, "mend what the reason names") {
		t.Errorf("another try: exit code %d\n%s%s", code, out, errs)
	}
	if text := h.admin(t, "dead-letters", "list"); !strings.Contains(text, `"tries":1`) || !strings.Contains(text, `"trying":""`) {
		t.Errorf("after another try: %s", text)
	}
	if code, _, errs := run(t, "", "tocsin", "admin", "--config", h.config, "dead-letters", "retry", "ffffffffffff/1"); code != 1 || !strings.Contains(errs, "dead-letters list") {
		t.Errorf("a name that is not there: exit code %d, %s", code, errs)
	}
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(h.dir, "db", "tocsin.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var who string
	if err := d.Read().NewRaw("SELECT who FROM audit WHERE action = 'dead_letter.retry' AND object = ? AND tenant = ?", name, s.tenant).Scan(t.Context(), &who); err != nil || who == "" {
		t.Errorf("the trail does not say who asked: %q, %v", who, err)
	}
}

// Tokens that must not work, tried with the program a member would use.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	enrol := func(token string, args ...string) (int, string) {
		t.Helper()
		code, out, errs := run(t, token, "tocsin-collector", append([]string{"enrol"}, args...)...)
		return code, out + errs
	}
	says := func(code, want int, text, phrase string) {
		t.Helper()
		if code != want || !strings.Contains(words(text), phrase) {
			t.Errorf("exit code %d, want %d with %q:\n%s", code, want, phrase, text)
		}
	}
	_, token := h.token(t)

	code, text := enrol("tocsin1.nonsense", "--dir", filepath.Join(folder(t), "c"))
	says(code, 2, text, "not a complete enrolment token")
	code, text = enrol(token[:len(token)-6], "--dir", filepath.Join(folder(t), "c"))
	says(code, 2, text, "not a complete enrolment token")

	// Another hub's fingerprint: the secret is not sent.
	k, err := keys.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	wrong := k
	wrong.Root[0] ^= 1
	code, text = enrol(wrong.String(), "--dir", filepath.Join(folder(t), "c"))
	says(code, 6, text, "not the hub this token is for")
	guessed := k
	guessed.Secret[0] ^= 1
	code, text = enrol(guessed.String(), "--dir", filepath.Join(folder(t), "c"))
	says(code, 5, text, "Make a new token in the portal")

	dir := filepath.Join(folder(t), "c")
	if code, text = enrol(token, "--dir", dir); code != 0 {
		t.Fatalf("exit code %d\n%s", code, text)
	}
	code, text = enrol(token, "--dir", dir)
	says(code, 4, text, "--again")
	code, text = enrol(token, "--dir", filepath.Join(folder(t), "c"))
	says(code, 5, text, "has been used already")

	// Made more than a day ago, by an office whose clock says so.
	hubConfig := config.DefaultHub()
	hubConfig.DataDir, hubConfig.Gate.Address = h.dir, h.gate
	o, err := app.OpenOffice(t.Context(), hubConfig, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	yesterday := member.New(o.DB, member.Options{Address: h.gate, Root: k.Root, Now: func() time.Time { return time.Now().Add(-25 * time.Hour) }})
	sites, err := yesterday.Sites(t.Context(), access.System("test"))
	if err != nil || len(sites) == 0 {
		t.Fatal(sites, err)
	}
	old, _, err := yesterday.MakeToken(t.Context(), access.System("test"), "test", sites[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	code, text = enrol(old.String(), "--dir", filepath.Join(folder(t), "c"))
	says(code, 5, text, "A token works for 24 hours")

	// Nobody there.
	gone := k
	gone.Address = net.JoinHostPort("127.0.0.1", fmt.Sprint(freePort(t)))
	code, text = enrol(gone.String(), "--dir", filepath.Join(folder(t), "c"))
	says(code, 6, text, "refused")
	for _, reason := range []string{"token_unknown", "token_expired"} {
		if h.failed(t, "gate", reason) == 0 {
			t.Errorf("stages.gate.failed.%s is not counted", reason)
		}
	}
}

// Two hundred collectors come back at the same moment, while strangers hold connections open that never say anything: each collector's
// batch is taken in the end, and one that was there before is not held up for long.
func TestReconnectStorm(t *testing.T) {
	t.Parallel()
	const collectors, silent = 200, 300
	h := newHub(t)
	quiet := h.join(t)
	own := quiet.own()
	quiet.good(own, 1)

	// Enrolled beforehand, a few at a time, as over the months before.
	sites := make([]*site, collectors)
	var wg sync.WaitGroup
	tenant, err := h.centre.AddMember(t.Context(), "Supplier of many", "education", "North")
	if err != nil {
		t.Fatal(err)
	}
	base := folder(t)
	slots := make(chan struct{}, 8)
	fail := make(chan error, collectors)
	for i := range collectors {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			fail <- func() error {
				text, err := h.centre.AddToken(t.Context(), tenant, fmt.Sprintf("Site %d", i))
				if err != nil {
					return err
				}
				token, err := keys.ParseToken(text)
				if err != nil {
					return err
				}
				dir := filepath.Join(base, fmt.Sprint(i))
				for attempt := 0; ; attempt++ {
					e, err := send.Enrol(t.Context(), token, dir, fmt.Sprintf("c%d", i), "test", time.Now())
					var p *send.Problem
					if errors.As(err, &p) && p.Temporary() {
						time.Sleep(send.Backoff(attempt, p.After(), 5*time.Second))
						continue
					}
					if err != nil {
						return err
					}
					s := &site{t: t, hub: h, dir: dir, id: e.Collector, tenant: event.TenantID(e.Tenant)}
					if s.keys, err = keys.OpenCollector(dir); err != nil {
						return err
					}
					if s.trust, err = s.keys.Trust(); err != nil {
						return err
					}
					s.epoch()
					sites[i] = s
					return nil
				}
			}()
		})
	}
	wg.Wait()
	for range collectors {
		if err := <-fail; err != nil {
			t.Fatal(err)
		}
	}

	for range silent {
		c, err := net.Dial("tcp", h.gate)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	crowd := crowding(t)
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience*90*time.Second)
	defer cancel()
	for _, s := range sites {
		sealed, client := s.batch(20, nil), s.own()
		wg.Go(func() {
			for attempt := 0; ; attempt++ {
				a, err := try(ctx, client, h.gate, sealed.Submission())
				if err == nil && a.status == http.StatusOK {
					fail <- nil
					return
				}
				if err == nil && a.problem.Retry == 0 {
					fail <- fmt.Errorf("refused for good: %d %+v", a.status, a.problem)
					return
				}
				select {
				case <-ctx.Done():
					fail <- fmt.Errorf("not taken in time: %w, %+v", err, a.problem)
					return
				case <-time.After(send.Backoff(min(attempt, 3), time.Duration(a.problem.Retry)*time.Millisecond, 5*time.Second)):
				}
			}
		})
	}
	waited := time.Now()
	quiet.good(own, 5)
	held := time.Since(waited)
	wg.Wait()
	for range collectors {
		if err := <-fail; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d collectors came at once, with %d silent connections open: all batches taken after %s; one that was connected waited %s", collectors, silent, time.Since(began).Round(time.Millisecond), held.Round(time.Millisecond))
	if held > time.Duration(20*max(crowd, crowding(t))*float64(time.Second)) {
		t.Errorf("a collector that was connected waited %s", held)
	}
	eventually(t, time.Minute, "storing", func() error {
		got := query(t, h.dir, "SELECT count(), uniqExact(stream, seq, idx) FROM tocsin.events")
		if got[0] != got[1] || number(t, got[0]) != collectors*20+6 {
			return fmt.Errorf("%s rows, %s events, want %d", got[0], got[1], collectors*20+6)
		}
		return nil
	})
}

// Everything a device can send wrong, to a real collector's UDP and TCP ports. Each line is counted, none stops the next, and what is
// understood is stored with a time that can be believed.
func TestBadLinesAtTheCollector(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	c := h.join(t).collect(t)
	n := uint64(0)
	tcp := func(chunks ...string) {
		t.Helper()
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, chunk := range chunks {
			if _, err := io.WriteString(conn, chunk); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	udp, err := net.Dial("udp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	now := time.Now()
	good := 0
	for _, text := range []string{
		"complete garbage \xff\xfe\x01\x00\x02 with bytes of every kind",
		"{\"timestamp\":\"" + now.UTC().Format("2006-01-02T15:04:05.000000+0000") + "\",\"event_type\":\"alert\",\"src_ip\":\"203.0.113.9\",\"ale", // cut in the middle
		"<189>date=2026-11-22 time=13:00:00 devname=\"\xc3\x28 not UTF-8",
		"<999999999999>", "<>", "%ASA-", "CEF:0|||||||", "{", "{}", "[]", "null", "\x1b[2J\x1b[31mred", strings.Repeat("(", 5000), strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 2000),
	} {
		for _, way := range []func(){func() { tcp(text + "\n") }, func() {
			if _, err := io.WriteString(udp, text); err != nil {
				t.Fatal(err)
			}
		}} {
			way()
			n++
		}
		if strings.Contains(text, "\x00") {
			n++ // over TCP a NUL ends a message, as a line feed does
		}
		// A good one after each, over the same ways in turn.
		tcp(deny(good, now) + "\n")
		good++
		n++
	}
	tcp(strings.Repeat("x", 1<<20)+"\n", deny(good, now)+"\n") // 1 MiB, and the line behind it on the same connection
	n, good = n+2, good+1
	if _, err := io.WriteString(udp, strings.Repeat("y", 65000)); err != nil {
		t.Fatal(err)
	}
	n++
	tcp("99999999 " + deny(good, now) + "\n") // a count that is none: the line is taken as a line
	n++
	tcp("64 <189>a counted message that its sender breaks off in the middle") // ends with the connection
	n++
	tcp("\n\n\r\n\x00\n") // nothing at all
	// Clocks.
	wrongClocks := []time.Time{time.Date(1999, 2, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), now.Add(90 * 24 * time.Hour), now.AddDate(-20, 0, 0)}
	for _, at := range wrongClocks {
		tcp(deny(good, at) + "\n")
		good++
		n++
	}
	on, at := c.settled(t, n)
	t.Logf("%d lines: on site %v; at the hub not understood %d, kept %v, left %v", n, on.Counts, at.NotUnderstood, at.Kept, at.Left)
	if on.Counts["oversized"] < 2 {
		t.Errorf("oversized lines are not counted: %v", on.Counts)
	}
	if on.Counts["clock_replaced"] < uint64(len(wrongClocks)) {
		t.Errorf("wrong clocks are not counted: %v", on.Counts)
	}
	if at.NotUnderstood < 20 || at.Left["denied_inbound"] < uint64(good) {
		t.Errorf("not understood %d, left %v, want %d good lines", at.NotUnderstood, at.Left, good)
	}
	got := query(t, h.dir, "SELECT count(), uniqExact(stream, seq, idx), countIf(abs(time - now64(6)) > 600), countIf(abs(timestamp - now64(6)) > 600), countIf(source_ip != toIPv6('::')) FROM tocsin.events")
	if got[0] != got[1] || number(t, got[0]) != at.Stored {
		t.Errorf("%s rows of %s events, %d counted as stored", got[0], got[1], at.Stored)
	}
	if got[2] != "0" || got[3] != "0" {
		t.Errorf("%s events are stored under a time that is wrong, %s carry one", got[2], got[3])
	}
	if number(t, got[4]) < uint64(good) {
		t.Errorf("%s good lines stored, want %d", got[4], good)
	}
	c.stop()
	if text := c.log.String(); strings.Contains(text, "panic") || strings.Contains(text, "\x1b[2J") {
		t.Errorf("the log: %s", text)
	}
}

// A collector that was away until its certificate had ended: its batches are refused with that reason, the program renews by itself when it
// is started again, and what its devices say then arrives.
func TestTortureExpiredCertificate(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_TORTURE") != "long" {
		t.Skip("SKIPPED: set TOCSIN_TEST_TORTURE=long (make torture); a certificate lives at least a minute")
	}
	t.Parallel()
	h := newHub(t, "gate.certificate_life=1m")
	s := h.join(t)
	cert, err := s.keys.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	old := s.own()
	s.good(old, 3)
	time.Sleep(time.Until(cert.Leaf.NotAfter.Add(time.Second))) // a lifetime is what is tested
	for _, c := range []*http.Client{old, s.own()} {            // on the connection that is open, and on a new one
		if a := post(t, c, h.gate, s.batch(1, nil).Submission()); a.status != http.StatusUnauthorized || a.problem.Code != batch.CodeExpired || a.problem.Next == "" {
			t.Errorf("%d %+v", a.status, a.problem)
		}
	}
	if n := h.failed(t, "gate", batch.CodeExpired); n != 2 {
		t.Errorf("counted %d times in stages.gate.failed.%s", n, batch.CodeExpired)
	}
	c := h.join(t).collect(t)
	c.stop()
	if cert, err = c.keys.Certificate(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(cert.Leaf.NotAfter.Add(time.Second)))
	again := c.collect(t)
	if err := sendTCP(again.addr, deny(1, time.Now())+"\n"); err != nil {
		t.Fatal(err)
	}
	again.settled(t, 1)
	if renewed, err := again.keys.Certificate(); err != nil || !renewed.Leaf.NotAfter.After(cert.Leaf.NotAfter) {
		t.Errorf("the certificate ends at %v as before, %v", cert.Leaf.NotAfter, err)
	}
}

// stranger is a certificate from nowhere in the name of an enrolled collector.
func stranger(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// forge makes a submission of any body, with the digest and size that fit it, signed by the collector: what a member's own, changed
// program could send.
func (s *site) forge(body []byte, change func(map[string]any)) []byte {
	s.t.Helper()
	payload, err := keys.PeekEnvelope(s.batch(1, nil).Envelope, batch.Type)
	if err != nil {
		s.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(payload, &m); err != nil {
		s.t.Fatal(err)
	}
	digest := sha256.Sum256(body)
	m["body_size"], m["body_sha256"] = len(body), hex.EncodeToString(digest[:])
	if change != nil {
		change(m)
	}
	if payload, err = json.Marshal(m); err != nil {
		s.t.Fatal(err)
	}
	envelope, err := s.keys.Batch().SignEnvelope(batch.Type, payload)
	if err != nil {
		s.t.Fatal(err)
	}
	return batch.Sealed{Envelope: envelope, Body: body}.Submission()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// peak is the most memory that a process has held, in bytes.
func peak(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
