package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/member"
	"tocsin/internal/outbox"
)

// Recorder is the part of the outbox that the Sender needs; *outbox.Box is it.
type Recorder interface {
	Record(ctx context.Context, tx bun.IDB, entries ...outbox.Entry) (int, error)
	Wake()
}

// SenderOptions configure a Sender. Maker, DB and Outbox are needed.
type SenderOptions struct {
	Maker   *Maker
	DB      *db.DB
	Outbox  Recorder
	Weekday time.Weekday // when the week before is mailed, London time
	Hour    int          // 0 to 23
	Now     func() time.Time
	// Sleep waits, or returns early with the context's error. Default: a timer.
	Sleep  func(ctx context.Context, d time.Duration) error
	Logger *slog.Logger
}

// Sender makes the weekly reports and hands them to the outbox.
type Sender struct {
	o            SenderOptions
	made, failed atomic.Uint64
}

// NewSender returns a Sender.
func NewSender(o SenderOptions) (*Sender, error) {
	if o.Maker == nil || o.DB == nil || o.Outbox == nil {
		return nil, errors.New("mailing reports needs a maker, the database and the outbox")
	}
	if o.Hour < 0 || o.Hour > 23 {
		return nil, fmt.Errorf("reports cannot go out at %d o'clock", o.Hour)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Sleep == nil {
		o.Sleep = func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
				return nil
			}
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sender{o: o}, nil
}

// SenderStats counts since the program started.
type SenderStats struct {
	Made   uint64 // reports handed to the outbox
	Failed uint64 // attempts to make one
}

// Stats returns the counters.
func (s *Sender) Stats() SenderStats { return SenderStats{s.made.Load(), s.failed.Load()} }

// due is the last instant at which reports went out or should have, and the next.
func (s *Sender) due(now time.Time) (last, next time.Time) {
	l := now.In(london)
	last = time.Date(l.Year(), l.Month(), l.Day(), s.o.Hour, 0, 0, 0, london).AddDate(0, 0, -((int(l.Weekday()) - int(s.o.Weekday) + 7) % 7))
	if last.After(now) {
		last = last.AddDate(0, 0, -7)
	}
	return last, last.AddDate(0, 0, 7)
}

// How often the clock is looked at (it may be set, the machine may sleep), and how soon what failed is tried again.
const (
	lookEvery  = time.Hour
	retryAfter = 5 * time.Minute
)

// Run sends what is due until ctx is done. A hub that was down at the time sends the last week's reports when it is back, those and no
// older ones.
func (s *Sender) Run(ctx context.Context) error {
	for {
		wait := lookEvery
		if _, err := s.Send(ctx); err != nil && ctx.Err() == nil {
			s.o.Logger.WarnContext(ctx, "some weekly reports could not be made and are tried again", "error", err, "in", retryAfter)
			wait = retryAfter
		}
		now := s.o.Now()
		_, next := s.due(now)
		if err := s.o.Sleep(ctx, min(wait, max(next.Sub(now), time.Second))); err != nil {
			return nil
		}
	}
}

// Send makes the reports that are due and not made yet, one for each member with a contact's address, and returns how many. A member whose
// report fails holds up no other: the error names all that did.
func (s *Sender) Send(ctx context.Context) (int, error) {
	last, _ := s.due(s.o.Now())
	week := WeekOf(last).Before()
	scope := access.System("weekly reports")
	orgs, err := s.o.Maker.o.Members.Organisations(ctx, scope)
	if err != nil {
		return 0, err
	}
	done := map[event.TenantID]bool{}
	var tenants []event.TenantID
	if err := s.o.DB.Read().NewRaw("SELECT tenant FROM reports WHERE week = ?", week.String()).Scan(ctx, &tenants); err != nil {
		return 0, fmt.Errorf("reading which reports were made: %w", err)
	}
	for _, t := range tenants {
		done[t] = true
	}
	var errs []error
	n := 0
	for i := range orgs {
		o := &orgs[i]
		if done[o.ID] || o.ContactEmail == "" || o.CreatedNS >= week.End().UnixNano() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return n, errors.Join(append(errs, err)...)
		}
		recorded, err := s.one(ctx, scope, o, week)
		switch {
		case err != nil:
			s.failed.Add(1)
			errs = append(errs, fmt.Errorf("%s: %w", o.Name, err))
		case recorded:
			s.made.Add(1)
			n++
		}
	}
	if n > 0 {
		s.o.Outbox.Wake()
		s.o.Logger.InfoContext(ctx, "weekly reports handed to the outbox", "week", week.String(), "reports", n)
	}
	return n, errors.Join(errs...)
}

// one makes a member's report and records it with its mail in one transaction.
func (s *Sender) one(ctx context.Context, scope access.Scope, o *member.Organisation, week Week) (recorded bool, err error) {
	r, err := s.o.Maker.Build(ctx, scope, o.ID, week)
	if err != nil {
		return false, err
	}
	b, err := json.Marshal(payload{o.ContactEmail, o.ContactName, r})
	if err != nil {
		return false, fmt.Errorf("the report of %s: %w", week, err)
	}
	entry := outbox.Entry{Key: fmt.Sprintf("report/%d/%s", o.ID, week), Kind: Kind, Tenant: o.ID, Payload: b}
	err = s.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		recorded = false
		res, err := tx.NewRaw("INSERT INTO reports (tenant, week, made_ns, mail_to, events, alerts) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
			o.ID, week.String(), s.o.Now().UnixNano(), o.ContactEmail, r.Events.Now, r.AllAlerts).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err // another hub on this database was faster
		}
		if _, err = s.o.Outbox.Record(ctx, tx, entry); err == nil {
			recorded = true
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("recording the report of %s: %w", week, err)
	}
	return recorded, nil
}
