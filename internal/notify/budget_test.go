package notify

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/outbox"
)

// budgeted is a budget before an outbox, with a clock that the test sets.
type budgeted struct {
	*Budget
	t   *testing.T
	box *outbox.Box
	at  atomic.Int64 // UTC nanoseconds
}

func newBudgeted(t *testing.T, perHour int) *budgeted {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	b := &budgeted{t: t}
	b.at.Store(time.Date(2026, 11, 23, 9, 3, 0, 0, time.UTC).UnixNano())
	now := func() time.Time { return time.Unix(0, b.at.Load()) }
	b.box = outbox.New(d, outbox.Options{Poll: 5 * time.Millisecond, Now: now})
	b.Budget = NewBudget(d, b.box, perHour, now)
	return b
}

func (b *budgeted) add(entries ...outbox.Entry) int {
	b.t.Helper()
	var n int
	err := b.db.Write(b.t.Context(), func(ctx context.Context, tx bun.IDB) (err error) {
		n, err = b.Record(ctx, tx, entries...)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// notice is the k-th notice of an alert to one contact.
func (b *budgeted) notice(alert, k int, level, to string) outbox.Entry {
	b.t.Helper()
	m := sample
	m.Alert, m.Number, m.Update, m.Level, m.Count = fmt.Sprintf("id-%d", alert), fmt.Sprintf("AL-%d", alert), k, level, int64(1000*(k+1))
	m.URL = "https://alarm.example.org/alerts/" + m.Number
	e, err := Mail(m, to)
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func (b *budgeted) count(kind string) int {
	b.t.Helper()
	var n int
	if err := b.db.Read().QueryRowContext(b.t.Context(), "SELECT count(*) FROM outbox WHERE kind = ?", kind).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func TestBudget(t *testing.T) {
	b := newBudgeted(t, 5)
	const head, lead = "head@ashdown.example.org", "lead@ashdown.example.org"
	// A flood: 40 alerts, each told three times, and one critical one at its end.
	for k := range 3 {
		for a := range 40 {
			if n := b.add(b.notice(a, k, "high", head)); n != 1 {
				t.Fatalf("notice %d of alert %d: %d recorded", k, a, n)
			}
		}
	}
	b.add(b.notice(99, 0, "critical", head), b.notice(99, 0, "critical", lead), b.notice(1, 0, "high", lead))
	if got := b.count(KindMail); got != 5+1+2 {
		t.Errorf("%d mails, want 5 for the head, one more because it is critical, and 2 for the lead", got)
	}
	if got := b.count(KindDigest); got != 1 || b.Held() != 115 {
		t.Errorf("%d summaries of %d notices, want 1 of 115", got, b.Held())
	}
	// What was told or kept is not told again.
	if n := b.add(b.notice(0, 0, "high", lead), b.notice(39, 2, "high", head), b.notice(99, 0, "critical", head)); n != 1 || b.Held() != 115 {
		t.Errorf("told again: %d, held %d", n, b.Held())
	}
	hook, err := Webhook(sample, "https://hook.example.org/x")
	if err != nil {
		t.Fatal(err)
	}
	if n := b.add(hook); n != 1 || b.count(KindWebhook) != 1 {
		t.Error("a webhook was held back")
	}
	// After an hour there is room again.
	b.at.Add(int64(61 * time.Minute))
	b.add(b.notice(200, 0, "high", head))
	if got := b.count(KindMail); got != 5+1+3+1 {
		t.Errorf("%d mails an hour later, want 10", got)
	}
}

func TestBudgetIsOff(t *testing.T) {
	b := newBudgeted(t, 0)
	for a := range 50 {
		b.add(b.notice(a, 0, "high", "head@ashdown.example.org"))
	}
	if got := b.count(KindMail); got != 50 {
		t.Errorf("%d mails, want all", got)
	}
}

func TestDigest(t *testing.T) {
	r, o := startRelay(t)
	r.fails = 1
	mailer, err := NewMailer(o)
	if err != nil {
		t.Fatal(err)
	}
	b := newBudgeted(t, 1)
	b.box.Handle(KindMail, outbox.Kind{Handler: mailer.Run})
	b.box.Handle(KindDigest, outbox.Kind{Handler: b.Digest(mailer, "https://alarm.example.org")})
	const head = "head@ashdown.example.org"
	for a := range 150 {
		b.add(b.notice(a, 0, "medium", head))
	}
	b.add(b.notice(7, 1, "high", head))
	b.at.Add(int64(8 * time.Minute)) // to 09:11; the ten minutes ended at 09:10
	runUntilAt(t, b, outbox.Stats{Done: 2})
	if len(r.mails) != 2 {
		t.Fatalf("%d mails, want the first and a summary", len(r.mails))
	}
	digest := r.mails[0] // the two kinds run beside one another
	if subject, _ := read(t, digest); !strings.Contains(subject, " more ") {
		digest = r.mails[1]
	}
	subject, bodies := read(t, digest)
	if subject != "[High] 150 more notices about 149 alerts" {
		t.Errorf("the subject is %q", subject)
	}
	for kind, body := range bodies {
		for _, want := range []string{"Someone is guessing passwords on your VPN", "2,000 events", "https://alarm.example.org/alerts/AL-7", "And 49 more", "149 alerts", "never ask for a password"} {
			if !strings.Contains(body, want) {
				t.Errorf("the %s part lacks %q:\n%s", kind, want, body)
			}
		}
		_, first, _ := strings.Cut(body, "/alerts/AL-")
		if number := first[:strings.IndexAny(first, "\"\r\n")]; number != "7" {
			t.Errorf("the gravest alert does not stand first in the %s part but AL-%s", kind, number)
		}
	}
	if err := b.Prune(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	kept := func() (n int) {
		if err := b.db.Read().QueryRowContext(t.Context(), "SELECT count(*) FROM notices_held").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := kept(); n != 149 {
		t.Errorf("%d are kept within the hour, want all 149", n)
	}
	// The clock is put back into the minutes whose summary has gone: the next one tells what comes now.
	b.at.Add(-int64(5 * time.Minute))
	b.add(b.notice(500, 0, "medium", head))
	b.at.Add(int64(30 * time.Minute))
	runUntilAt(t, b, outbox.Stats{Done: 3})
	if subject, _ := read(t, r.mails[2]); subject != "[Medium] 1 more notice: "+sample.Title {
		t.Errorf("the summary after it: %q", subject)
	}
	b.at.Add(int64(2 * time.Hour))
	if err := b.Prune(t.Context(), time.Hour); err != nil || kept() != 0 {
		t.Errorf("%d are kept after all, %v", kept(), err)
	}
}

// runUntilAt is runUntil while the test's clock goes on by itself, so that what failed is tried again.
func runUntilAt(t *testing.T, b *budgeted, want outbox.Stats) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				b.at.Add(int64(100 * time.Millisecond))
			}
		}
	}()
	runUntil(t, b.box, want)
	stop()
	<-gone
}

// read takes a mail apart: its subject, and its parts by kind.
func read(t *testing.T, raw []byte) (subject string, parts map[string]string) {
	t.Helper()
	msg, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if subject, err = new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts = map[string]string{}
	for mr := multipart.NewReader(msg.Body, params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return subject, parts
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		var body io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body = quotedprintable.NewReader(p)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		parts[kind] = string(text)
	}
}

// A summary that lay dead for longer than anything is kept is sent whole when the operator has it tried again; one whose content is gone says so.
func TestDeadSummaryKeepsWhatItTells(t *testing.T) {
	r, o := startRelay(t)
	mailer, err := NewMailer(o)
	if err != nil {
		t.Fatal(err)
	}
	b := newBudgeted(t, 1)
	b.box.Handle(KindMail, outbox.Kind{Handler: mailer.Run})
	b.box.Handle(KindDigest, outbox.Kind{Handler: b.Digest(mailer, "https://alarm.example.org")})
	for a := range 3 {
		b.add(b.notice(a, 0, "medium", "head@ashdown.example.org"))
	}
	set := func(sql string, args ...any) {
		t.Helper()
		if err := b.db.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
			_, err := tx.ExecContext(ctx, sql, args...)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	retry := func(want outbox.Stats) {
		t.Helper()
		list, err := b.box.List(t.Context(), access.System("test"), outbox.Filter{Kind: KindDigest})
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		if err := b.box.Retry(t.Context(), access.System("test"), list[0].ID); err != nil {
			t.Fatal(err)
		}
		runUntil(t, b.box, want)
	}
	const die = "UPDATE outbox SET state = 'dead', ended_ns = ? WHERE kind = ?"
	set(die, b.at.Load(), KindDigest)
	b.at.Add(int64(30 * 24 * time.Hour))
	if err := b.Prune(t.Context(), 7*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	retry(outbox.Stats{Done: 2})
	if len(r.mails) != 2 {
		t.Fatalf("%d mails, want the first and the summary", len(r.mails))
	}
	one, _ := read(t, r.mails[0])
	if two, _ := read(t, r.mails[1]); !strings.Contains(one+two, "[Medium] 2 more notices about 2 alerts") {
		t.Errorf("the summary: %q, %q", one, two)
	}
	if err := b.Prune(t.Context(), 7*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	set(die, b.at.Load(), KindDigest)
	retry(outbox.Stats{Done: 1, Dead: 1})
	if len(r.mails) != 2 {
		t.Error("an empty summary was sent")
	}
}
