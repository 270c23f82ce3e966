package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/chart"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// Questions is what the pages need of look-backs: what has been asked of the
// archives on members' sites, and what came back.
type Questions interface {
	// Asked are the questions that reach collectors in the scope, newest first,
	// those that have ended too.
	Asked(ctx context.Context, scope access.Scope) ([]Asked, error)
	Outcomes(ctx context.Context, scope access.Scope, since int64) ([]eventstore.Outcome, error)
	Answers(ctx context.Context, scope access.Scope, question string, since int64, limit int) ([]eventstore.Stored, error)
	Hits(ctx context.Context, scope access.Scope, question string, since int64, limit int) ([]eventstore.Stored, error)
}

// Asked is one question as it was signed.
type Asked struct {
	directive.Question
	Audience string // keys.Everybody or a collector's id
	Expires  time.Time
}

// What the pages of questions show at most.
const (
	questionsShown = 100
	answersShown   = 500
	hitsShown      = 200
)

type questionsView struct {
	Wide         bool // of all members
	Organisation string
	Rows         []questionRow
	More         int64 // older ones
	Away         bool  // the event store does not answer: no counts
}

// questionRow is one question in the list, and the head of its own page.
type questionRow struct {
	ID, By, Why string
	What        string // which lines are asked for, in a sentence
	Asked, Ends time.Time
	Over        bool
	Answered    int64 // collectors
	Denied      int64
	Without     int64 // that could not answer, or nobody decided in time
	Events      int64 // that came
	Status      string
	Tone        string
}

type questionView struct {
	questionRow
	Wide         bool
	Organisation string
	Of           string // whom it was asked of
	Indicators   []string
	Rule         string
	Facts        []fact
	Answers      []answerRow
	Silent       int64 // collectors it reaches that have not answered
	Hits         []hitRow
	Came         int64 // of them
	More         bool  // there are more hits than are shown
	Away         bool
}

type answerRow struct {
	Organisation, Collector, Site string
	CollectorID                   string
	At                            time.Time
	Consent, Tone                 string
	Lines, Matched, Known, Sent   int64
	Answered, Capped              bool
}

type hitRow struct {
	At                 time.Time
	Organisation       string
	From, To           string
	What, Device, Name string
}

func (s *server) questions(w http.ResponseWriter, r *request) error {
	v := questionsView{Wide: r.staff(), Organisation: r.organisation}
	asked, err := s.asked(r)
	if err != nil {
		return err
	}
	if len(asked) > questionsShown {
		asked, v.More = asked[:questionsShown], int64(len(asked)-questionsShown)
	}
	var outcomes []eventstore.Outcome
	if len(asked) > 0 {
		if outcomes, err = s.o.Questions.Outcomes(r.Context(), r.scope, asked[len(asked)-1].since()); err != nil {
			s.o.Logger.WarnContext(r.Context(), "the answers to questions cannot be counted", "err", err)
			v.Away = true
		}
	}
	for i := range asked {
		v.Rows = append(v.Rows, s.questionRow(&asked[i], outcomes, v.Away, r))
	}
	return s.show(w, r, "look_backs", s.page(r, "Questions about the past", "/questions", v))
}

// asked are the questions that whoever asks may see.
func (s *server) asked(r *request) ([]Asked, error) {
	if s.o.Questions == nil {
		return nil, nil
	}
	return s.o.Questions.Asked(r.Context(), r.scope)
}

// since is from when on there may be answers, UTC nanoseconds. A collector's
// clock may be a little behind.
func (a *Asked) since() int64 { return a.Asked.Add(-time.Hour).UnixNano() }

func (s *server) questionRow(a *Asked, outcomes []eventstore.Outcome, away bool, r *request) questionRow {
	q := questionRow{ID: a.ID, By: a.By, Why: a.Purpose, What: a.what(), Asked: a.Asked, Ends: a.Expires, Over: !s.o.Now().Before(a.Expires)}
	for _, o := range outcomes {
		if o.Question != a.ID {
			continue
		}
		q.Events += int64(o.Events)
		switch o.State {
		case "answered":
			q.Answered += int64(o.Collectors)
		case "denied":
			q.Denied += int64(o.Collectors)
		default:
			q.Without += int64(o.Collectors)
		}
	}
	q.Status, q.Tone = "Open", "info"
	switch {
	case away:
		q.Status, q.Tone = "Not known now", "warn"
	case q.Events > 0:
		q.Status, q.Tone = "Found", "bad"
	case q.Answered > 0:
		q.Status, q.Tone = "Nothing found", "good"
	case q.Denied > 0 && !r.staff():
		q.Status, q.Tone = "Denied", "info"
	case q.Over:
		q.Status, q.Tone = "Ended", "info"
	}
	return q
}

// what says in a sentence which lines are asked for.
func (a *Asked) what() string {
	span := fmt.Sprintf("received from %s to %s", full(a.From), full(a.To))
	if a.Rule != "" {
		return "Lines " + span + " that match a rule"
	}
	if n := len(a.Indicators); n > 3 {
		return fmt.Sprintf("Lines %s that touch one of %s indicators", span, chart.Number(int64(n)))
	}
	return "Lines " + span + " that touch " + strings.Join(a.Indicators, " or ")
}

func (s *server) question(w http.ResponseWriter, r *request) error {
	asked, err := s.asked(r)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(asked, func(a Asked) bool { return a.ID == r.PathValue("id") })
	if at < 0 {
		return errNotFound
	}
	a := &asked[at]
	list, err := s.o.Members.Collectors(r.Context(), r.scope)
	if err != nil {
		return err
	}
	collectors := map[string]*member.Collector{}
	for i := range list {
		collectors[list[i].ID] = &list[i]
	}
	v := questionView{Wide: r.staff(), Organisation: r.organisation, Indicators: a.Indicators, Rule: a.Rule, Of: "every collector of the scheme"}
	if a.Audience != keys.Everybody {
		v.Of = "one collector"
		if c := collectors[a.Audience]; c != nil {
			v.Of = "the collector " + c.Name + " of " + c.Organisation
		}
	}
	answers, aerr := s.o.Questions.Answers(r.Context(), r.scope, a.ID, a.since(), answersShown)
	hits, herr := s.o.Questions.Hits(r.Context(), r.scope, a.ID, a.since(), hitsShown+1)
	if aerr != nil || herr != nil {
		s.o.Logger.WarnContext(r.Context(), "the answers to a question cannot be shown", "answers", aerr, "hits", herr)
		v.Away = true
	}
	outcomes := map[string]*eventstore.Outcome{}
	answered := map[string]bool{}
	for i := range answers {
		e := &answers[i]
		row := answerOf(e, collectors)
		if answered[row.CollectorID] {
			continue // its word came again, as after a restore
		}
		answered[row.CollectorID] = true
		v.Answers = append(v.Answers, row)
		state := named(e.Event, "tocsin.question.state")
		o := outcomes[state]
		if o == nil {
			o = &eventstore.Outcome{Question: a.ID, State: state}
			outcomes[state] = o
		}
		o.Collectors++
		o.Events += uint64(row.Sent)
	}
	var counted []eventstore.Outcome
	for _, o := range outcomes {
		counted = append(counted, *o)
	}
	v.questionRow = s.questionRow(a, counted, v.Away, r)
	for id, c := range collectors {
		if c.State != member.Revoked && !answered[id] && (a.Audience == keys.Everybody || a.Audience == id) {
			v.Silent++
		}
	}
	if len(hits) > hitsShown {
		hits, v.More = hits[:hitsShown], true
	}
	for i := range hits {
		v.Hits = append(v.Hits, hitOf(&hits[i], collectors))
	}
	v.Came = int64(len(v.Hits))
	v.Facts = []fact{
		{"Asked by", a.By, false}, {"Asked on", full(a.Asked), false}, {"Asked of", v.Of, false}, {"Answered until", full(a.Expires), false}, {"Lines received", "from " + full(a.From) + " to " + full(a.To), false},
		{"Legal regime", regimeWords(a.Authority.Regime), false}, {"Basis", a.Authority.Basis, false}, {"Reference", a.Authority.Reference, false}, {"Approved by", a.Authority.Approver, false},
		{"One answer holds at most", chart.Number(int64(a.Hits())) + " events", false}, {"Number", a.ID, true},
	}
	p := s.page(r, "A question about the past", "/questions", v)
	p.Width = "medium"
	return s.show(w, r, "look_back", p)
}

func regimeWords(s string) string {
	switch s {
	case "uk-gdpr":
		return "UK GDPR"
	case "dpa2018-part3":
		return "Data Protection Act 2018, Part 3 (law enforcement)"
	}
	return s
}

// named is a field that the schema does not know.
func named(e *event.Event, name string) string {
	for _, x := range e.Extras() {
		if x.Name == name {
			return x.Value
		}
	}
	return ""
}

func answerOf(e *eventstore.Stored, collectors map[string]*member.Collector) answerRow {
	count := func(name string) int64 {
		n, err := strconv.ParseInt(named(e.Event, "tocsin.question."+name), 10, 64)
		if err != nil {
			return 0 // a refusal names no figures
		}
		return n
	}
	row := answerRow{CollectorID: e.Str(event.TocsinCollectorID), At: time.Unix(0, e.StoredAt), Lines: count("lines_read"), Matched: count("hits"), Known: count("known"), Sent: count("sent"), Capped: named(e.Event, "tocsin.question.capped") == "true"}
	if c := collectors[row.CollectorID]; c != nil {
		row.Organisation, row.Collector, row.Site = c.Organisation, c.Name, c.Site
	}
	switch named(e.Event, "tocsin.question.state") {
	case "answered":
		row.Consent, row.Tone, row.Answered = "Allowed", "good", true
		switch named(e.Event, "tocsin.question.consent") {
		case "standing":
			row.Consent = "Allowed, by standing consent"
		case "single":
			row.Consent = "Allowed, this once"
		}
	case "denied":
		row.Consent, row.Tone = "Denied", "info"
	case "expired":
		row.Consent, row.Tone = "Nobody decided in time", "warn"
	default:
		row.Consent, row.Tone = "Could not be answered", "warn"
	}
	return row
}

func hitOf(e *eventstore.Stored, collectors map[string]*member.Collector) hitRow {
	end := func(ip, port event.Key) string {
		a, ok := e.IP(ip)
		if !ok {
			return "–"
		}
		if n, ok := e.Int(port); ok && n > 0 {
			if a.Is6() {
				return fmt.Sprintf("[%s]:%d", a, n)
			}
			return fmt.Sprintf("%s:%d", a, n)
		}
		return a.String()
	}
	h := hitRow{At: time.Unix(0, e.StoredAt), From: end(event.SourceIP, event.SourcePort), To: end(event.DestinationIP, event.DestinationPort), What: e.Str(event.EventAction),
		Device: strings.TrimSpace(e.Str(event.ObserverVendor) + " " + e.Str(event.ObserverProduct)), Name: e.Str(event.URLDomain)}
	if h.Name == "" {
		h.Name = e.Str(event.DNSQuestionName)
	}
	if c := collectors[e.Str(event.TocsinCollectorID)]; c != nil {
		h.Organisation = c.Organisation
	}
	return h
}
