package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine/enginetest"
	"tocsin/internal/keys"
)

func exampleQuestions(now time.Time) []questionRow {
	return []questionRow{
		{ID: strings.Repeat("a1", 16), By: "Northshire regional desk", Why: "An address that breaks into school firewalls: who else did it visit?", What: "Lines received from 1 November 2026 09:00 to 22 November 2026 09:00 that touch 203.0.113.77 or 203.0.113.78", Asked: now, Ends: now.AddDate(0, 0, 7), Answered: 41, Denied: 3, Without: 1, Events: 112, Status: "Found", Tone: "bad"},
		{ID: strings.Repeat("b2", 16), By: "National desk", Why: "Mail gateways and the web address of a phishing kit", What: "Lines received from 1 October 2026 to 1 November 2026 that touch one of 27 indicators", Asked: now.AddDate(0, 0, -9), Ends: now.AddDate(0, 0, -2), Over: true, Answered: 40, Status: "Nothing found", Tone: "good"},
		{ID: strings.Repeat("c3", 16), By: "Northshire regional desk", Why: "Sign-ins with an account that was sold", What: "Lines received from 1 November 2026 to 22 November 2026 that match a rule", Asked: now.AddDate(0, 0, -1), Ends: now.AddDate(0, 0, 6), Status: "Open", Tone: "info"},
	}
}

func exampleQuestion(now time.Time, wide bool) questionView {
	v := questionView{questionRow: exampleQuestions(now)[0], Wide: wide, Indicators: []string{"203.0.113.77", "203.0.113.78"}, Silent: 2, Came: 3,
		Facts: []fact{{"Asked by", "Northshire regional desk", false}, {"Asked on", full(now), false}, {"Asked of", "every collector of the scheme", false}, {"Legal regime", "UK GDPR", false}, {"Basis", "legitimate interests", false}, {"Reference", "NSR-2026-117", false}, {"Approved by", "J. Duty", false}, {"Number", strings.Repeat("a1", 16), true}}}
	for i, o := range []string{"Millbrook College", "Hartley Engineering Ltd", "Kirkdale Borough Council"} {
		v.Answers = append(v.Answers, answerRow{Organisation: o, Collector: "fw-collector", CollectorID: "x", At: now.Add(-time.Duration(i) * time.Hour), Consent: []string{"Allowed, this once", "Allowed, by standing consent", "Denied"}[i], Tone: []string{"good", "good", "info"}[i], Answered: i < 2, Lines: 4_210_388, Matched: int64(9 - i), Known: 4, Sent: int64(5 - i), Capped: i == 1})
		v.Hits = append(v.Hits, hitRow{At: now.Add(-time.Duration(i) * time.Hour), Organisation: o, From: "10.4.0.17:51514", To: "203.0.113.77:443", What: "accept", Device: "Fortinet FortiGate", Name: []string{"", "updates.badname.example", ""}[i]})
	}
	if !wide {
		v.Organisation, v.Answers, v.Silent = "Millbrook College", v.Answers[:1], 0
	}
	return v
}

// questionsOf is the real store of events with a list of questions.
type questionsOf struct {
	*eventstore.Store
	list []Asked
	fail bool
}

func (q *questionsOf) Asked(context.Context, access.Scope) ([]Asked, error) { return q.list, nil }

func (q *questionsOf) Outcomes(ctx context.Context, s access.Scope, since int64) ([]eventstore.Outcome, error) {
	if q.fail {
		return nil, errors.New("away")
	}
	return q.Store.Outcomes(ctx, s, since)
}

func (q *questionsOf) Answers(ctx context.Context, s access.Scope, id string, since int64, n int) ([]eventstore.Stored, error) {
	if q.fail {
		return nil, errors.New("away")
	}
	return q.Store.Answers(ctx, s, id, since, n)
}

// What members answered, from the real store of events, as the centre and as each member see it.
func TestQuestions(t *testing.T) {
	w := newWorld(t, false)
	e := enginetest.Start(t, enginetest.Dir(t))
	store, err := eventstore.Open(t.Context(), eventstore.Options{Address: e.Address(), Ready: e.Ready, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	now := time.Now()
	ask := func(why, audience string, indicators ...string) Asked {
		return Asked{Audience: audience, Expires: now.Add(time.Hour), Question: directive.Question{ID: directive.NewID(), Asked: now.Add(-time.Minute), By: "Regional desk", Purpose: why, Indicators: indicators,
			Authority: directive.Authority{Regime: "dpa2018-part3", Basis: "law enforcement", Reference: "REF-7", Approver: "J. Duty"}, From: now.Add(-time.Hour), To: now}}
	}
	seen, quiet := ask("Who was visited?", keys.Everybody, "203.0.113.77"), ask("Nothing yet?", keys.Everybody, "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4")
	b := eventstore.NewBlock()
	n := uint32(0)
	add := func(i int, fill func(*event.Event)) {
		var x event.Event
		x.Tenant, x.ID = w.tenants[i], event.ID{Stream: event.StreamID{byte(i + 1)}, Seq: 1, Index: n}
		n++
		x.Time, x.Created, x.Ingested = now.UnixNano(), now.UnixNano(), now.UnixNano()
		x.SetString(event.TocsinLeftReason, "look_back")
		x.SetString(event.TocsinCollectorID, w.collectors[i])
		x.SetNamed("tocsin.question.id", seen.ID)
		fill(&x)
		if !b.Add(&x, eventstore.Meta{}) {
			t.Fatal("full")
		}
	}
	word := func(state, consent string, sent int) func(*event.Event) {
		return func(x *event.Event) {
			x.SetString(event.EventDataset, "tocsin.look_back")
			x.SetNamed("tocsin.question.state", state)
			if state == "answered" {
				for k, v := range map[string]string{"lines_read": "1234567", "hits": "9", "known": "4", "sent": fmt.Sprint(sent), "capped": "false", "consent": consent} {
					x.SetNamed("tocsin.question."+k, v)
				}
			}
		}
	}
	hit := func(src string) func(*event.Event) {
		return func(x *event.Event) {
			x.SetString(event.EventDataset, "fortinet.fortigate")
			x.SetString(event.EventAction, "accept-"+src)
		}
	}
	add(0, hit("one"))
	add(0, hit("two"))
	add(0, word("answered", "single", 2))
	add(1, word("denied", "", 0))
	if err := store.Insert(t.Context(), "questions", b); err != nil {
		t.Fatal(err)
	}
	questions := &questionsOf{Store: store, list: []Asked{quiet, seen}}
	w.s.o.Questions = questions

	c := w.client("analyst")
	_, body := c.get("/questions")
	contains(t, "the centre's list", body, "Who was visited?", "Regional desk", `badge-bad">Found`, "/questions/"+seen.ID, `badge-info">Open`)
	_, body = c.get("/questions/" + seen.ID)
	contains(t, "the centre's page", body, memberNames[0], memberNames[1], "Allowed, this once", "Denied", "1,234,567", "accept-one", "accept-two", "Data Protection Act 2018, Part 3", "J. Duty", "203.0.113.77")
	_, body = c.get("/questions/" + quiet.ID)
	contains(t, "a question without answers", body, "Nobody has answered yet", "one of 4 indicators", "203.0.113.4")

	for i := range 2 {
		m := w.client(fmt.Sprintf("member%d", i+1))
		_, list := m.get("/questions")
		status, page := m.get("/questions/" + seen.ID)
		if status != http.StatusOK {
			t.Errorf("member %d: %d", i+1, status)
		}
		lacks(t, "member's page", page, memberNames[1-i], w.collectors[1-i])
		if i == 0 {
			contains(t, "who allowed it", list, "You allowed it: 2 events left your site")
			contains(t, "who allowed it", page, "accept-one", "1,234,567")
		} else {
			contains(t, "who denied it", list, "You denied it")
			lacks(t, "who denied it", page, "accept-one", "1,234,567")
		}
	}
	if status, _ := c.get("/questions/" + directive.NewID()); status != http.StatusNotFound {
		t.Errorf("a question that is none: %d", status)
	}
	questions.fail = true
	_, body = c.get("/questions")
	contains(t, "the list without a store", body, "cannot be counted now", "Who was visited?", "Not known now")
	_, body = c.get("/questions/" + seen.ID)
	contains(t, "the page without a store", body, "cannot be shown now", "203.0.113.77")
}
