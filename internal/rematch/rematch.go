// Package rematch asks the stored history about something that was not known then: who saw this address in the last 90 days, where would this rule
// have matched?
//
// It reads the event store through its query interface, one day after the other, the newest first, and writes jobs to the table rematch_jobs: after
// each day what was found so far and how far it is. A job that a crash cut short goes on with the day it was at; what that day had found is counted
// again from nothing, so that no hit is counted twice. One job runs at a time. What is found are counts by member and some events each; nothing is
// raised as an alert by itself. It counts looked and hits, in the job.
package rematch

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
)

// Errors a caller decides on.
var (
	ErrInvalid  = errors.New("invalid")
	ErrNotFound = errors.New("not found")
)

// Bounds.
const (
	maxDays   = 3650
	maxOpen   = 20
	maxRule   = 64 << 10
	maxEvents = 10 // of one member, in what is found
	maxList   = 10_000
	step      = 24 * time.Hour
)

// States of a job.
const (
	Waiting = "waiting" // it runs, or will
	Done    = "done"
	Failed  = "failed"
	Stopped = "stopped"
)

// Found is what one member has.
type Found struct {
	Hits        int64    `json:"hits"`
	First, Last int64    // UTC ns, by storage time
	Events      []string `json:"events"` // ids of some, the newest first
}

// Job is one question.
type Job struct {
	ID      int64                     `json:"id"`
	What    string                    `json:"what"`
	Rule    string                    `json:"rule,omitempty"`
	Reason  string                    `json:"reason"`
	MadeBy  string                    `json:"made_by"`
	Made    int64                     `json:"made_ns,string"`
	From    int64                     `json:"from_ns,string"`
	To      int64                     `json:"to_ns,string"`
	Place   int64                     `json:"place_ns,string"`
	State   string                    `json:"state"`
	Problem string                    `json:"problem,omitempty"`
	Looked  int64                     `json:"looked"`
	Hits    int64                     `json:"hits"`
	Found   map[event.TenantID]*Found `json:"found"`
	Ended   int64                     `json:"ended_ns,string"`
}

// Progress is the share that is done, 0 to 1.
func (j *Job) Progress() float64 {
	if j.State == Done || j.To <= j.From {
		return 1
	}
	return float64(j.To-j.Place) / float64(j.To-j.From)
}

// Events is what is asked of the event store.
type Events interface {
	Events(ctx context.Context, scope access.Scope, f eventstore.Filter, limit int, from eventstore.Cursor) ([]eventstore.Stored, eventstore.Cursor, error)
}

// Store is the jobs. Any number of goroutines may use it; Run belongs to one.
type Store struct {
	db     *db.DB
	events Events
	log    *slog.Logger
	now    func() time.Time
	wake   chan struct{}
}

// New uses the table rematch_jobs. events may be nil where nothing runs.
func New(d *db.DB, events Events, log *slog.Logger, now func() time.Time) *Store {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return &Store{db: d, events: events, log: log, now: now, wake: make(chan struct{}, 1)}
}

// question is a job made ready: what the store can choose by itself, and the rest.
type question struct {
	filter eventstore.Filter
	match  func(*event.Event) bool // nil: what the filter chooses are the hits
}

func ask(what, rule string) (q question, err error) {
	if rule != "" {
		if len(rule) > maxRule {
			return q, fmt.Errorf("%w: the rule has more than %d KiB", ErrInvalid, maxRule>>10)
		}
		m, err := detect.NewMatcher(rule)
		if err != nil {
			return q, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		q.match = m.Matches
		return q, nil
	}
	if p, err := netip.ParsePrefix(what); err == nil {
		if p.Addr().Is4() && p.Bits() < 16 || p.Addr().Is6() && p.Bits() < 32 {
			return q, fmt.Errorf("%w: %s is too wide to ask for; /16 or smaller, IPv6 /32", ErrInvalid, what)
		}
		q.filter.EitherIP = p.Masked()
		return q, nil
	}
	if a, err := netip.ParseAddr(what); err == nil {
		a = a.Unmap().WithZone("")
		q.filter.EitherIP = netip.PrefixFrom(a, a.BitLen())
		return q, nil
	}
	name := strings.ToLower(strings.TrimSuffix(what, "."))
	if !strings.Contains(name, ".") || strings.ContainsAny(name, " /:@*") || len(name) > 253 {
		return q, fmt.Errorf("%w: %q is neither an address, a network nor a name such as bad.example; for anything else give a rule", ErrInvalid, what)
	}
	q.filter.Domain = name
	return q, nil
}

// Add makes a job. who is a person's id. Of what and rule one is given.
func (s *Store) Add(ctx context.Context, who, what, rule, reason string, days int) (Job, error) {
	reason = strings.Join(strings.Fields(reason), " ")
	switch n := utf8.RuneCountInString(reason); {
	case n < 5 || n > 500:
		return Job{}, fmt.Errorf("%w: say why, in 5 to 500 characters: a question about all members' history is written down", ErrInvalid)
	case days < 1 || days > maxDays:
		return Job{}, fmt.Errorf("%w: days are 1 to %d", ErrInvalid, maxDays)
	case (what == "") == (rule == ""):
		return Job{}, fmt.Errorf("%w: give a value or a rule", ErrInvalid)
	}
	if _, err := ask(what, rule); err != nil {
		return Job{}, err
	}
	if rule != "" {
		what = "rule"
	}
	now := s.now()
	j := Job{What: what, Rule: rule, Reason: reason, MadeBy: who, Made: now.UnixNano(), To: now.UnixNano(), From: now.AddDate(0, 0, -days).UnixNano(), State: Waiting, Found: map[event.TenantID]*Found{}}
	j.Place = j.To
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		q := db.Bound(tx)
		var open int
		if err := q.QueryRowContext(ctx, "SELECT COUNT(*) FROM rematch_jobs WHERE state = ?", Waiting).Scan(&open); err != nil {
			return err
		}
		if open >= maxOpen {
			return fmt.Errorf("%w: %d questions wait already; stop one or wait", ErrInvalid, open)
		}
		res, err := q.ExecContext(ctx, "INSERT INTO rematch_jobs (what, rule, reason, made_by, made_ns, from_ns, to_ns, place_ns, state) VALUES (?,?,?,?,?,?,?,?,?)", j.What, j.Rule, j.Reason, who, j.Made, j.From, j.To, j.Place, j.State)
		if err != nil {
			return err
		}
		if j.ID, err = res.LastInsertId(); err != nil {
			return err
		}
		return db.Audit(ctx, tx, j.Made, who, "history asked", fmt.Sprintf("question %d", j.ID), access.Centre, fmt.Sprintf("%s over %d days. Reason: %s", j.What, days, j.Reason))
	})
	if err == nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return j, err
}

const columns = "id, what, rule, reason, made_by, made_ns, from_ns, to_ns, place_ns, state, problem, looked, hits, found, ended_ns"

func scan(row interface{ Scan(...any) error }) (j Job, err error) {
	var found string
	if err := row.Scan(&j.ID, &j.What, &j.Rule, &j.Reason, &j.MadeBy, &j.Made, &j.From, &j.To, &j.Place, &j.State, &j.Problem, &j.Looked, &j.Hits, &found, &j.Ended); err != nil {
		return j, err
	}
	j.Found = map[event.TenantID]*Found{}
	return j, json.Unmarshal([]byte(found), &j.Found)
}

// List gives the jobs, the newest first.
func (s *Store) List(ctx context.Context, limit int) ([]Job, error) {
	if limit < 1 || limit > maxList {
		return nil, fmt.Errorf("%w: a list has 1 to %d questions", ErrInvalid, maxList)
	}
	rows, err := db.Bound(s.db.Read()).QueryContext(ctx, "SELECT "+columns+" FROM rematch_jobs ORDER BY id DESC LIMIT ?", limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []Job{}
	for rows.Next() {
		j, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, j)
	}
	return out, rows.Err()
}

// Get gives one.
func (s *Store) Get(ctx context.Context, id int64) (Job, error) {
	j, err := scan(db.Bound(s.db.Read()).QueryRowContext(ctx, "SELECT "+columns+" FROM rematch_jobs WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return j, fmt.Errorf("%w: there is no question %d", ErrNotFound, id)
	}
	return j, err
}

// Stop ends a job that is not done. What it found stays.
func (s *Store) Stop(ctx context.Context, who string, id int64) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		res, err := db.Bound(tx).ExecContext(ctx, "UPDATE rematch_jobs SET state = ?, ended_ns = ? WHERE id = ? AND state = ?", Stopped, s.now().UnixNano(), id, Waiting)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("%w: no question %d is waiting or running", ErrNotFound, id))
		}
		return db.Audit(ctx, tx, s.now().UnixNano(), who, "history question stopped", fmt.Sprintf("question %d", id), access.Centre, "")
	})
}

// look is how often Run looks for jobs that another program made.
const look = 2 * time.Second

// Run works the jobs off, the oldest first, until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	every := time.NewTicker(look)
	defer every.Stop()
	warned := false
	for {
		worked, err := s.next(ctx)
		if err != nil && ctx.Err() == nil && !warned {
			s.log.WarnContext(ctx, "asking the stored history; it is tried again every two seconds", "err", err)
		}
		warned = err != nil
		if worked && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-every.C:
		}
	}
}

// next does one day of the oldest job that waits.
func (s *Store) next(ctx context.Context) (bool, error) {
	j, err := scan(db.Bound(s.db.Read()).QueryRowContext(ctx, "SELECT "+columns+" FROM rematch_jobs WHERE state = ? ORDER BY id LIMIT 1", Waiting))
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	q, err := ask(j.What, j.Rule)
	if err != nil { // a rule that an older version took
		j.State, j.Problem = Failed, err.Error()
		return true, s.save(ctx, &j)
	}
	q.filter.To = j.Place
	q.filter.From = max(j.From, j.Place-int64(step))
	if err := s.day(ctx, &j, q); err != nil {
		return false, err
	}
	if j.Place = q.filter.From; j.Place <= j.From {
		j.State = Done
	}
	return true, s.save(ctx, &j)
}

// day adds what one day has to the job in memory.
func (s *Store) day(ctx context.Context, j *Job, q question) error {
	var at eventstore.Cursor
	scope := access.System("rematch")
	for {
		list, next, err := s.events.Events(ctx, scope, q.filter, eventstore.MaxEvents, at)
		if err != nil {
			return err
		}
		for _, e := range list {
			j.Looked++
			if q.match != nil && !q.match(e.Event) {
				continue
			}
			j.Hits++
			f := j.Found[e.Tenant]
			if f == nil {
				f = &Found{First: e.StoredAt, Last: e.StoredAt}
				j.Found[e.Tenant] = f
			}
			f.Hits++
			f.First, f.Last = min(f.First, e.StoredAt), max(f.Last, e.StoredAt)
			if len(f.Events) < maxEvents {
				f.Events = append(f.Events, e.ID.String())
			}
		}
		if at = next; at == "" {
			return nil
		}
	}
}

// save writes how far a job is, unless somebody stopped it meanwhile.
func (s *Store) save(ctx context.Context, j *Job) error {
	found, err := json.Marshal(j.Found)
	if err != nil {
		return err
	}
	if j.State != Waiting {
		j.Ended = s.now().UnixNano()
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := db.Bound(tx).ExecContext(ctx, "UPDATE rematch_jobs SET place_ns = ?, state = ?, problem = ?, looked = ?, hits = ?, found = ?, ended_ns = ? WHERE id = ? AND state = ?",
			j.Place, j.State, j.Problem, j.Looked, j.Hits, string(found), j.Ended, j.ID, Waiting)
		return err
	})
}
