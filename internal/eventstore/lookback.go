package eventstore

import (
	"context"
	"strconv"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/access"
)

// What came back to questions about the past: each collector's word on how it ended (dataset tocsin.look_back), and the events that matched
// (any other dataset), all of them with tocsin.question.id.

const (
	lookBackRows = "left_reason = 'look_back'"
	lookBackWord = "event_dataset = 'tocsin.look_back'"
	questionID   = "fields['tocsin.question.id']"
)

// Outcome is how many collectors ended a question in one way, and how many events they sent.
type Outcome struct {
	Question   string
	State      string // answered, denied, expired or failed
	Collectors uint64
	Events     uint64
}

// lookBack makes the conditions that all these queries share: what left since a time (UTC nanoseconds) in answer to a question, or to any.
func (s *Store) lookBack(scope access.Scope, question string, since int64) *reader {
	r := s.reader(scope)
	r.where(lookBackRows).where("time >= {since:DateTime64(6, 'UTC')}", "since", timeParam(since))
	if r.all {
		r.where("quarantined = 0")
	}
	if question != "" {
		r.where(questionID+" = {question:String}", "question", escapeParam(question))
	}
	return r
}

// Outcomes counts the collectors' words since a time, by question and state.
func (s *Store) Outcomes(ctx context.Context, scope access.Scope, since int64) (out []Outcome, err error) {
	r := s.lookBack(scope, "", since).where(lookBackWord)
	var (
		question, state proto.ColStr
		n, sent         proto.ColUInt64
	)
	sql := "SELECT CAST(" + questionID + ", 'String') AS q, CAST(fields['tocsin.question.state'], 'String') AS st, uniqExact(collector) AS n, sum(toUInt64OrZero(fields['tocsin.question.sent'])) AS sent FROM " + s.db + ".events" +
		r.sqlWhere() + " GROUP BY q, st ORDER BY q, st LIMIT 10000"
	err = s.run(ctx, r, sql, proto.Results{{Data: &question}, {Data: &state}, {Data: &n}, {Data: &sent}}, func() { out = out[:0] }, func(rows int) error {
		for i := range rows {
			out = append(out, Outcome{Question: question.Row(i), State: state.Row(i), Collectors: n[i], Events: sent[i]})
		}
		return nil
	})
	return out, err
}

// Answers gives the collectors' words on one question, newest first, at most limit.
func (s *Store) Answers(ctx context.Context, scope access.Scope, question string, since int64, limit int) ([]Stored, error) {
	return s.lookBackEvents(ctx, s.lookBack(scope, question, since).where(lookBackWord), limit)
}

// Hits gives the events that came in answer to one question, newest first, at most limit.
func (s *Store) Hits(ctx context.Context, scope access.Scope, question string, since int64, limit int) ([]Stored, error) {
	return s.lookBackEvents(ctx, s.lookBack(scope, question, since).where("NOT ("+lookBackWord+")"), limit)
}

func (s *Store) lookBackEvents(ctx context.Context, r *reader, limit int) ([]Stored, error) {
	if limit <= 0 || limit > MaxEvents {
		limit = MaxEvents
	}
	return s.events(ctx, r, "SELECT "+eventColumns+" FROM "+s.db+".events"+r.sqlWhere()+" ORDER BY time DESC, stream DESC, seq DESC, idx DESC LIMIT "+strconv.Itoa(limit))
}
