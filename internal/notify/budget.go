package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/outbox"
)

// KindDigest is the kind of outbox entries that tell a contact together what was too much to be told one by one.
const KindDigest = "mail.digest"

const (
	budgetHour = int64(time.Hour)
	digestSlot = int64(10 * time.Minute)
	digestMost = 100 // alerts that a digest names; the others are counted
)

// Recorder is the part of the outbox that a Budget writes to.
type Recorder interface {
	Record(ctx context.Context, tx bun.IDB, entries ...outbox.Entry) (int, error)
	Wake()
}

// Budget stands before the outbox and keeps any one contact from being flooded by mail: so many notices an hour, and as many again about
// critical alerts. What goes beyond is not lost and not late by much: it is told together, in one mail every ten minutes, each alert with
// its count. Webhooks go to programs and pass as they are.
//
// It reads and writes the tables notice_budgets and notices_held within the caller's transaction; a crash leaves what was committed.
type Budget struct {
	db      *db.DB
	box     Recorder
	perHour int
	now     func() time.Time
	held    atomic.Uint64
}

// NewBudget bounds what goes to box; perHour 0 means no bound. now nil means time.Now.
func NewBudget(d *db.DB, box Recorder, perHour int, now func() time.Time) *Budget {
	if now == nil {
		now = time.Now
	}
	return &Budget{db: d, box: box, perHour: perHour, now: now}
}

// Held is how many notices were kept for a summary since the program started.
func (b *Budget) Held() uint64 { return b.held.Load() }

// Wake has the outbox look for entries now.
func (b *Budget) Wake() { b.box.Wake() }

// Record is outbox.Box.Record within the budget. It returns how many entries were recorded or kept for a summary.
func (b *Budget) Record(ctx context.Context, tx bun.IDB, entries ...outbox.Entry) (int, error) {
	recorded := 0
	for _, e := range entries {
		n, err := b.record(ctx, tx, e)
		if err != nil {
			return recorded, err
		}
		recorded += n
	}
	return recorded, nil
}

func (b *Budget) record(ctx context.Context, tx bun.IDB, e outbox.Entry) (int, error) {
	if e.Kind != KindMail || b.perHour <= 0 {
		return b.box.Record(ctx, tx, e)
	}
	var p mailPayload
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return 0, fmt.Errorf("the budget of a notice: %w", err)
	}
	now, urgent := b.now().UnixNano(), p.Message.Level == "critical"
	start, sent := now, 0
	err := tx.QueryRowContext(ctx, "SELECT start_ns, sent FROM notice_budgets WHERE contact = ? AND urgent = ?", p.To, urgent).Scan(&start, &sent)
	if err != nil && !db.NotFound(err) {
		return 0, fmt.Errorf("the budget of %s: %w", p.To, err)
	}
	if now >= start+budgetHour || now < start { // before it: the clock was put back
		start, sent = now, 0
	}
	if sent >= b.perHour {
		return b.keep(ctx, tx, p, now)
	}
	n, err := b.box.Record(ctx, tx, e)
	if err != nil || n == 0 { // 0: told before
		return n, err
	}
	_, err = tx.NewRaw("INSERT INTO notice_budgets (contact, urgent, start_ns, sent) VALUES (?, ?, ?, ?) ON CONFLICT (contact, urgent) DO UPDATE SET start_ns = EXCLUDED.start_ns, sent = EXCLUDED.sent",
		p.To, urgent, start, sent+1).Exec(ctx)
	if err != nil {
		return n, fmt.Errorf("the budget of %s: %w", p.To, err)
	}
	return n, nil
}

// digestPayload is what the outbox entry of a summary holds: what it says is read when it goes.
type digestPayload struct {
	To   string `json:"to"`
	Slot int64  `json:"slot"` // UTC nanoseconds
}

// keep keeps a notice for the summary of these ten minutes.
func (b *Budget) keep(ctx context.Context, tx bun.IDB, p mailPayload, now int64) (int, error) {
	message, err := json.Marshal(p.Message)
	if err != nil {
		return 0, fmt.Errorf("keeping a notice for %s: %w", p.To, err)
	}
	slot := now - now%digestSlot
	for ; ; slot += digestSlot {
		key := fmt.Sprintf("digest/%s/%d", p.To, slot/int64(time.Second))
		payload, err := json.Marshal(digestPayload{p.To, slot})
		if err != nil {
			return 0, fmt.Errorf("keeping a notice for %s: %w", p.To, err)
		}
		n, err := b.box.Record(ctx, tx, outbox.Entry{Key: key, Kind: KindDigest, Tenant: access.Centre, Payload: payload, DueNS: slot + digestSlot})
		if err != nil {
			return 0, err
		}
		if n == 1 {
			break
		}
		var state string
		if err := tx.QueryRowContext(ctx, "SELECT state FROM outbox WHERE key = ?", key).Scan(&state); err != nil {
			return 0, fmt.Errorf("the summary for %s: %w", p.To, err)
		}
		if state == outbox.Waiting {
			break
		}
		// It has gone or is going, because the clock was put back: the next one tells this.
	}
	res, err := tx.NewRaw(`INSERT INTO notices_held (contact, slot_ns, alert, n, notices, message) VALUES (?, ?, ?, ?, 1, ?)
		ON CONFLICT (contact, slot_ns, alert) DO UPDATE SET n = EXCLUDED.n, notices = notices + 1, message = EXCLUDED.message WHERE EXCLUDED.n > n`,
		p.To, slot, p.Message.Alert, p.Message.Update, string(message)).Exec(ctx)
	if err != nil {
		return 0, fmt.Errorf("keeping a notice for %s: %w", p.To, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("keeping a notice for %s: %w", p.To, err)
	}
	b.held.Add(uint64(n))
	return int(n), nil
}

// digest is what a summary says.
type digest struct {
	Scheme  string
	Notices int64        // that would have been mails
	Alerts  []digestLine // the gravest first
	More    int          // alerts not named
	URL     string       // of the queue
}

type digestLine struct {
	Message
	Notices int64
}

// Digest is the outbox handler of KindDigest: it mails what was kept, through m. publicURL leads to the pages.
func (b *Budget) Digest(m *Mailer, publicURL string) outbox.Handler {
	return func(ctx context.Context, e outbox.Entry) (string, error) {
		var p digestPayload
		if err := json.Unmarshal(e.Payload, &p); err != nil {
			return "", fmt.Errorf("%w: the entry cannot be read: %w", outbox.ErrPermanent, err)
		}
		d := digest{Scheme: m.o.Scheme, URL: publicURL + "/"}
		rows, err := b.db.Read().QueryContext(ctx, "SELECT notices, message FROM notices_held WHERE contact = ? AND slot_ns = ?", p.To, p.Slot)
		if err != nil {
			return "", fmt.Errorf("the summary for %s: %w", p.To, err)
		}
		defer rows.Close()
		all := 0
		for rows.Next() {
			var l digestLine
			var text string
			if err := rows.Scan(&l.Notices, &text); err != nil {
				return "", fmt.Errorf("the summary for %s: %w", p.To, err)
			}
			if err := json.Unmarshal([]byte(text), &l.Message); err != nil {
				return "", fmt.Errorf("%w: the summary for %s: %w", outbox.ErrPermanent, p.To, err)
			}
			l.Message = l.plain()
			d.Notices += l.Notices
			all++
			if d.Alerts = append(d.Alerts, l); len(d.Alerts) >= 4*digestMost { // however many there are, few are in memory
				slices.SortFunc(d.Alerts, graver)
				d.Alerts = slices.Delete(d.Alerts, digestMost, len(d.Alerts))
			}
		}
		if err := rows.Err(); err != nil {
			return "", fmt.Errorf("the summary for %s: %w", p.To, err)
		}
		if len(d.Alerts) == 0 {
			return "", fmt.Errorf("%w: what this summary was to tell is not there any more", outbox.ErrPermanent)
		}
		slices.SortFunc(d.Alerts, graver)
		subject := fmt.Sprintf("[%s] %s more notices about %s", levelWord(d.Alerts[0].Level), number(d.Notices), alerts(all))
		if d.Notices == 1 {
			subject = fmt.Sprintf("[%s] 1 more notice: %s", levelWord(d.Alerts[0].Level), d.Alerts[0].Title)
		}
		if all > digestMost {
			d.More, d.Alerts = all-digestMost, d.Alerts[:digestMost]
		}
		var text, html bytes.Buffer
		if err := m.text.ExecuteTemplate(&text, "digest.txt.tmpl", d); err != nil {
			return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, err)
		}
		if err := m.html.ExecuteTemplate(&html, "digest.html.tmpl", d); err != nil {
			return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, err)
		}
		return m.Send(ctx, e.Key, Letter{To: p.To, Subject: subject, Text: text.String(), HTML: html.String()})
	}
}

// graver sorts what a summary names.
func graver(a, b digestLine) int {
	return cmp.Or(cmp.Compare(rank(b.Level), rank(a.Level)), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Number, b.Number))
}

// Prune forgets what was kept for summaries longer ago than keep, unless the summary waits still or lies dead, so that the operator can have it sent.
func (b *Budget) Prune(ctx context.Context, keep time.Duration) error {
	return b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw(`DELETE FROM notices_held WHERE slot_ns < ? AND NOT EXISTS
			(SELECT 1 FROM outbox WHERE outbox.key = 'digest/' || contact || '/' || (slot_ns / 1000000000) AND state <> ?)`, b.now().Add(-keep).UnixNano(), outbox.Done).Exec(ctx)
		return err
	})
}

func rank(level string) int {
	return slices.Index([]string{"informational", "low", "medium", "high", "critical"}, level)
}

// alerts says how many alerts its arguments are together.
func alerts(n ...int) string {
	sum := 0
	for _, v := range n {
		sum += v
	}
	if sum == 1 {
		return "1 alert"
	}
	return number(int64(sum)) + " alerts"
}

// number writes n with commas between thousands.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
