package report

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/eventstore"
	"tocsin/internal/member"
	"tocsin/internal/notify"
	"tocsin/internal/outbox"
)

// relay is an SMTP server that keeps what it is given.
type relay struct {
	mu    sync.Mutex
	mails [][]byte
	to    []string
	fails int // temporary refusals still to give
}

func (r *relay) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{r: r}, nil }

type session struct {
	r  *relay
	to string
}

func (s *session) Reset()                                    {}
func (s *session) Logout() error                             { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error      { return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error { s.to = to; return nil }
func (s *session) Data(body io.Reader) error {
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.r.fails > 0 {
		s.r.fails--
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "come back later"}
	}
	s.r.mails, s.r.to = append(s.r.mails, b), append(s.r.to, s.to)
	return nil
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mails)
}

func startRelay(t *testing.T) (*relay, *notify.Mailer) {
	t.Helper()
	r := &relay{}
	srv := smtp.NewServer(r)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	m, err := notify.NewMailer(notify.MailOptions{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, TLS: "none", From: "Tocsin <alarm@alarm.example.org>", Scheme: "Northshire Cyber Alarm"})
	if err != nil {
		t.Fatal(err)
	}
	return r, m
}

func (w *world) sender(o SenderOptions) *Sender {
	w.t.Helper()
	o.Maker, o.DB, o.Weekday, o.Hour = w.maker, w.db, time.Monday, 7
	if o.Outbox == nil {
		o.Outbox = w.box
	}
	if o.Now == nil {
		o.Now = w.clock
	}
	s, err := NewSender(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// deliver runs the outbox until n mails have arrived and nothing is left.
func (w *world) deliver(m *notify.Mailer, r *relay, n int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	w.box.Handle(Kind, outbox.Kind{Handler: Handler(m)})
	done := make(chan error, 1)
	go func() { done <- w.box.Run(ctx) }()
	for {
		s, err := w.box.Stats(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if s.Waiting+s.Running == 0 {
			break
		}
		w.pass(10 * time.Millisecond) // pauses between attempts are by this clock
		select {
		case <-ctx.Done():
			w.t.Fatalf("outbox stands at %+v", s)
		case <-time.After(2 * time.Millisecond): // a poll, bounded by ctx
		}
	}
	cancel()
	if err := <-done; err != nil {
		w.t.Fatal(err)
	}
	if got := r.count(); got != n {
		w.t.Fatalf("%d mails arrived, want %d", got, n)
	}
}

func TestDue(t *testing.T) {
	for _, c := range []struct {
		day       time.Weekday
		hour      int
		now, last string
	}{
		{time.Monday, 7, "2026-11-23T07:00:00Z", "2026-11-23T07:00:00Z"},
		{time.Monday, 7, "2026-11-23T06:59:59Z", "2026-11-16T07:00:00Z"},
		{time.Monday, 7, "2026-11-29T23:00:00Z", "2026-11-23T07:00:00Z"},
		{time.Sunday, 0, "2026-11-23T07:00:00Z", "2026-11-22T00:00:00Z"},
		{time.Wednesday, 18, "2026-11-23T07:00:00Z", "2026-11-18T18:00:00Z"},
		{time.Monday, 7, "2026-03-30T06:00:00Z", "2026-03-30T07:00:00+01:00"}, // summer time began the day before
		{time.Monday, 7, "2026-10-26T06:30:00Z", "2026-10-19T07:00:00+01:00"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		s := &Sender{o: SenderOptions{Weekday: c.day, Hour: c.hour}}
		last, next := s.due(now)
		if last.Format(time.RFC3339) != c.last || !next.After(now) || next.In(london).Weekday() != c.day || next.In(london).Hour() != c.hour {
			t.Errorf("%v %d at %s: last %s, next %s", c.day, c.hour, c.now, last.Format(time.RFC3339), next.Format(time.RFC3339))
		}
	}
}

// TestMailedOnce sends the reports of a week through the real outbox and an SMTP server, again and again, and each arrives once.
func TestMailedOnce(t *testing.T) {
	w := newWorld(t, false)
	r, m := startRelay(t)
	r.fails = 1
	w.detect()
	// A member without a contact's address has nobody to mail; one that joined after the week has no report of it.
	w.at(w.week.Start(), func() {
		if _, err := w.members.AddOrganisation(t.Context(), "test", member.Organisation{Name: "No contact"}); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := w.members.AddOrganisation(t.Context(), "test", member.Organisation{Name: "Newcomer", ContactEmail: "new@member.example"}); err != nil {
		t.Fatal(err)
	}
	s := w.sender(SenderOptions{})
	for i, want := range []int{2, 0, 0} {
		if n, err := s.Send(t.Context()); err != nil || n != want {
			t.Fatalf("pass %d: %d reports, %v; want %d", i, n, err, want)
		}
	}
	w.deliver(m, r, 2)
	for i, body := range r.mails {
		if i > 0 && r.to[i] == r.to[0] {
			t.Errorf("both to %s", r.to[i])
		}
		msg, err := mail.ReadMessage(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
		if err != nil || !strings.HasPrefix(subject, "Weekly report of ") {
			t.Errorf("subject %q, %v", subject, err)
		}
		kinds, pdf := parts(t, msg.Header.Get("Content-Type"), msg.Body)
		if got := strings.Join(kinds, " "); got != "text/plain text/html application/pdf" {
			t.Errorf("parts: %s", got)
		}
		if !bytes.HasPrefix(pdf, []byte("%PDF-1.")) || !bytes.Contains(pdf, []byte("StructTreeRoot")) {
			t.Errorf("the attachment is no tagged PDF: %.30q", pdf)
		}
	}
	// The outbox forgets; the table does not.
	w.now = w.now.AddDate(0, 0, 3)
	if _, err := w.box.Prune(t.Context(), time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	w.reopen()
	if n, err := w.sender(SenderOptions{}).Send(t.Context()); err != nil || n != 0 {
		t.Errorf("after the outbox forgot: %d reports, %v", n, err)
	}
	w.deliver(m, r, 2)
}

// parts lists the kinds of a mail's parts and returns the attached PDF.
func parts(t *testing.T, contentType string, body io.Reader) (kinds []string, pdf []byte) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		t.Fatalf("a mail of kind %s", kind)
	}
	mr := multipart.NewReader(body, params["boundary"])
	for {
		p, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return kinds, pdf
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(kind, "multipart/") {
			inner, found := parts(t, p.Header.Get("Content-Type"), p)
			kinds = append(kinds, inner...)
			if found != nil {
				pdf = found
			}
			continue
		}
		kinds = append(kinds, kind)
		if kind == "application/pdf" {
			if pdf, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, p)); err != nil {
				t.Fatal(err)
			}
			if name := p.FileName(); !strings.HasPrefix(name, "tocsin-report-2") || !strings.HasSuffix(name, ".pdf") {
				t.Errorf("the attachment is called %q", name)
			}
		}
	}
}

// breaking is an outbox that fails before or after it recorded.
type breaking struct {
	*outbox.Box
	after bool
	left  int
}

var errBroken = errors.New("the machine went down")

func (b *breaking) Record(ctx context.Context, tx bun.IDB, e ...outbox.Entry) (int, error) {
	if b.left > 0 && !b.after {
		b.left--
		return 0, errBroken
	}
	n, err := b.Box.Record(ctx, tx, e...)
	if b.left > 0 && err == nil {
		b.left--
		return n, errBroken
	}
	return n, err
}

// TestCrashes cuts the sending at each step, starts again from what is on the disk, and each report still goes out once.
func TestCrashes(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("record fails, after it took effect %v", after), func(t *testing.T) {
			w := newWorld(t, false)
			r, m := startRelay(t)
			n, err := w.sender(SenderOptions{Outbox: &breaking{w.box, after, 1}}).Send(t.Context())
			if n != 1 || !errors.Is(err, errBroken) {
				t.Fatalf("%d reports, %v", n, err)
			}
			w.reopen()
			if n, err := w.sender(SenderOptions{}).Send(t.Context()); n != 1 || err != nil {
				t.Fatalf("again: %d reports, %v", n, err)
			}
			w.deliver(m, r, 2)
		})
	}
	t.Run("between the record and the mail", func(t *testing.T) {
		w := newWorld(t, false)
		r, m := startRelay(t)
		if n, err := w.sender(SenderOptions{}).Send(t.Context()); n != 2 || err != nil {
			t.Fatalf("%d reports, %v", n, err)
		}
		w.reopen()
		if n, err := w.sender(SenderOptions{}).Send(t.Context()); n != 0 || err != nil {
			t.Fatalf("again: %d reports, %v", n, err)
		}
		w.deliver(m, r, 2)
	})
	t.Run("the event store is away for one of them", func(t *testing.T) {
		w := newWorld(t, false)
		away := &flaky{}
		away.left.Store(1)
		w.events = away
		w.make()
		s := w.sender(SenderOptions{})
		if n, err := s.Send(t.Context()); n != 1 || !errors.Is(err, errBroken) {
			t.Fatalf("%d reports, %v", n, err)
		}
		if n, err := s.Send(t.Context()); n != 1 || err != nil {
			t.Fatalf("again: %d reports, %v", n, err)
		}
		if got := s.Stats(); got != (SenderStats{Made: 2, Failed: 1}) {
			t.Errorf("stats %+v", got)
		}
	})
}

// flaky is an event store that fails at first.
type flaky struct {
	empty
	left atomic.Int32
}

func (f *flaky) Summary(ctx context.Context, scope access.Scope, from, to int64) (eventstore.Summary, error) {
	if f.left.Add(-1) >= 0 {
		return eventstore.Summary{}, errBroken
	}
	return f.empty.Summary(ctx, scope, from, to)
}

// TestRun lets three weeks pass on a clock of its own.
func TestRun(t *testing.T) {
	w := newWorld(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	start, hops := w.now.Add(-time.Minute), 0 // a minute before the first is due
	w.now = start
	s := w.sender(SenderOptions{Sleep: func(_ context.Context, d time.Duration) error {
		if d <= 0 || d > lookEvery {
			t.Errorf("sleeps for %v", d)
		}
		w.now = w.now.Add(d)
		hops++
		if w.now.After(start.AddDate(0, 0, 16)) {
			cancel()
			return context.Canceled
		}
		return nil
	}})
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	// Two members: the week before the last one at once (the hub had been down), then three Mondays.
	var weeks []string
	if err := w.db.Read().NewRaw("SELECT week || ' ' || count(*) FROM reports GROUP BY week ORDER BY week").Scan(t.Context(), &weeks); err != nil {
		t.Fatal(err)
	}
	first := w.week.Before()
	var want []string
	for k := range 4 {
		want = append(want, WeekOf(first.Start().AddDate(0, 0, 7*k)).String()+" 2")
	}
	if strings.Join(weeks, ",") != strings.Join(want, ",") {
		t.Errorf("reports %v, want %v (after %d looks at the clock)", weeks, want, hops)
	}
}
