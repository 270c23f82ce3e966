package collector

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/spool"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

// Look-back: a signed question about the past is shown to the member, answered from this site's archive under the member's consent, standing
// or for the one question, and only hits leave, under the same policy of fields as everything. A question is one file below DIR/questions; the
// answer is in the spool of its lane before the file says so, and the state names the answered ones, so that none is answered twice.

// Question states.
const (
	QuestionWaiting  = "waiting"  // for the member
	QuestionAllowed  = "allowed"  // and being answered
	QuestionDenied   = "denied"   //
	QuestionAnswered = "answered" //
	QuestionExpired  = "expired"  // nobody decided in time
	QuestionFailed   = "failed"   // it could not be answered
)

// QuestionStatus is a question and what became of it.
type QuestionStatus struct {
	directive.Question
	Version  uint64    `json:"version,string"`
	Expires  time.Time `json:"expires"`
	Received time.Time `json:"received"`
	State    string    `json:"state"`
	Decided  time.Time `json:"decided,omitzero"`
	By       string    `json:"decided_by,omitempty"` // the member on this machine, or its standing consent
	Finished time.Time `json:"finished,omitzero"`
	Read     uint64    `json:"lines_read"` // lines of the time range that were looked at
	Hits     int       `json:"hits"`
	Known    int       `json:"known"`  // of them, lines that the hub had before: they do not leave again
	Sent     int       `json:"sent"`   // events that left
	Capped   bool      `json:"capped"` // there were more hits than an answer may hold
	Problem  string    `json:"problem,omitempty"`
}

// Consents.
const (
	ConsentAsk      = "ask"
	ConsentStanding = "standing"
	ConsentNever    = "never"
)

const maxQuestions = 500

// byStandingConsent is who allowed a question that nobody was asked about.
const byStandingConsent = "standing consent (look_back.consent)"

var questionID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ErrNoQuestion means that there is no such question here.
var ErrNoQuestion = errors.New("there is no such question; tocsin-collector questions lists them")

func (a *Agent) questionFile(id string) string {
	return a.o.Config.path(filepath.Join("questions", id+".json"))
}

// loadQuestions reads the questions of before the restart.
func (a *Agent) loadQuestions() error {
	a.questions = map[string]*QuestionStatus{}
	dir := a.o.Config.path("questions")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("questions: %w", err)
		}
		var q QuestionStatus
		if err := json.Unmarshal(b, &q); err != nil || !questionID.MatchString(q.ID) {
			a.log.Warn("a question's file is damaged and is left alone", "file", filepath.Base(name))
			continue
		}
		if slices.Contains(a.st.Answered, q.ID) && q.Finished.IsZero() { // a crash came between the two
			if q.Finished = a.o.Now().UTC(); q.State == QuestionAllowed {
				q.State = QuestionAnswered
			}
		}
		a.questions[q.ID] = &q
	}
	return nil
}

func (a *Agent) keepQuestion(q *QuestionStatus) {
	b, err := json.MarshalIndent(q, "", "  ")
	if err == nil {
		err = writeFile(a.questionFile(q.ID), b)
	}
	if err != nil {
		a.log.Error("cannot keep a question", "question", q.ID, "error", err)
	}
	a.shown = time.Time{}
}

// takeQuestion takes a question that the hub hands out, once.
func (a *Agent) takeQuestion(d keys.Directive) error {
	q, err := directive.ParseQuestion(d.Content)
	if err != nil {
		return err
	}
	if a.questions[q.ID] != nil {
		return nil // asked again: the answer stands
	}
	if len(a.questions) >= maxQuestions {
		a.forgetQuestions()
	}
	if len(a.questions) >= maxQuestions {
		return fmt.Errorf("there are %d questions that have not expired, and no room for more", maxQuestions)
	}
	if q.Rule != "" {
		if _, err := a.matcher(q.Rule); err != nil {
			return err
		}
	}
	now := a.o.Now().UTC()
	s := &QuestionStatus{Question: *q, Version: d.Version, Expires: d.Expires, Received: now, State: QuestionWaiting}
	a.questions[q.ID] = s
	a.log.Warn("the hub asks about the past; see tocsin-collector questions", "question", q.ID, "by", q.By, "purpose", q.Purpose, "consent", a.o.Config.LookBack.Consent)
	switch a.o.Config.LookBack.Consent {
	case ConsentStanding:
		a.decide(s, true, byStandingConsent)
	case ConsentNever:
		a.decide(s, false, "standing refusal (look_back.consent)")
	default:
		a.keepQuestion(s)
	}
	return nil
}

// forgetQuestions drops the oldest that are over. One that the hub may still hand out is kept: it would be taken for a new one.
func (a *Agent) forgetQuestions() {
	list := a.questionList()
	slices.Reverse(list)
	now := a.o.Now()
	for _, q := range list {
		if q.State != QuestionWaiting && q.State != QuestionAllowed && now.After(q.Expires) && len(a.questions) >= maxQuestions-50 {
			delete(a.questions, q.ID)
			os.Remove(a.questionFile(q.ID))
		}
	}
}

// questionList gives copies, the newest first.
func (a *Agent) questionList() []QuestionStatus {
	out := make([]QuestionStatus, 0, len(a.questions))
	for _, q := range a.questions {
		out = append(out, *q)
	}
	slices.SortFunc(out, func(x, y QuestionStatus) int {
		if c := y.Received.Compare(x.Received); c != 0 {
			return c
		}
		return cmp.Compare(x.ID, y.ID)
	})
	return out
}

// decideQuestion allows or denies a question, in the member's name.
func (a *Agent) decideQuestion(id string, allow bool, by string) error {
	q := a.questions[id]
	if q == nil {
		return ErrNoQuestion
	}
	if q.State != QuestionWaiting {
		return fmt.Errorf("this question is %s already", q.State)
	}
	a.decide(q, allow, by)
	return nil
}

func (a *Agent) decide(q *QuestionStatus, allow bool, by string) {
	q.Decided, q.By = a.o.Now().UTC(), by
	a.log.Info("a question is decided", "question", q.ID, "allowed", allow, "by", by)
	if allow {
		q.State = QuestionAllowed
		a.keepQuestion(q)
		return
	}
	a.endQuestion(q, QuestionDenied, "")
}

// endQuestion ends a question without an answer: only a word of it leaves. How it ended is kept first, so that nothing after it can undo a
// denial.
func (a *Agent) endQuestion(q *QuestionStatus, state, problem string) {
	q.State, q.Problem = state, problem
	a.keepQuestion(q)
	a.finishQuestion(q, nil, 0)
}

// ended says whether a question ended without an answer, and the hub has still to be told.
func (q *QuestionStatus) ended() bool {
	return q.Finished.IsZero() && (q.State == QuestionDenied || q.State == QuestionExpired || q.State == QuestionFailed)
}

// lookBackJob is the answering of one question, a slice at a time.
type lookBackJob struct {
	q       *QuestionStatus
	reader  *archive.Reader
	pipe    *pipeline
	match   func(*event.Event) bool
	limit   int
	numbers []uint64 // of the lines that leave
}

// answerAgain is when an answer that found no room on the disk is tried again.
const answerAgain = 10 * time.Second

// lookBackSlice is how many lines are looked at between two looks at everything else.
const lookBackSlice = 2048

// lookBack goes on with the answer to a question that is allowed. It says whether there is more to do.
func (a *Agent) lookBack(now time.Time) bool {
	j := a.job
	if j == nil {
		if now.Before(a.answerAt) {
			return false
		}
		var next *QuestionStatus
		for _, q := range a.questions {
			switch {
			case q.State == QuestionWaiting && now.After(q.Expires):
				a.endQuestion(q, QuestionExpired, "")
			case q.ended():
				a.finishQuestion(q, nil, 0)
			case q.State == QuestionAllowed && (next == nil || q.Received.Before(next.Received)):
				next = q
			}
		}
		if next == nil {
			return false
		}
		var err error
		if j, err = a.beginLookBack(next); err != nil {
			a.endQuestion(next, QuestionFailed, err.Error())
			return true
		}
		a.job = j
	}
	var l archive.Line
	e := &j.pipe.e
	for range lookBackSlice {
		if !j.reader.Pos().Before(a.st.Cursor) {
			return a.endLookBack(nil)
		}
		err := j.reader.Next(&l)
		if errors.Is(err, io.EOF) || err == nil && a.st.Cursor.Before(j.reader.Pos()) { // what comes behind has not been worked on
			return a.endLookBack(nil)
		}
		if err != nil {
			return a.endLookBack(err)
		}
		if l.Listener == slotDaily { // says nothing of the site
			continue
		}
		if at := time.Unix(0, l.Created); at.Before(j.q.From) || at.After(j.q.To) {
			continue
		}
		j.q.Read++
		if !j.pipe.understandAgain(e, &l) {
			continue
		}
		leaves := a.min.Leaves(e)
		if !j.match(e) {
			continue
		}
		j.q.Hits++
		switch {
		case leaves:
			j.q.Known++
		case len(j.numbers) < j.limit:
			j.numbers = append(j.numbers, l.Number)
		default:
			j.q.Capped = true
		}
	}
	return true
}

func (a *Agent) matcher(rule string) (func(*event.Event) bool, error) {
	if a.o.Matcher == nil {
		return nil, errors.New("this collector cannot answer rules, only indicators")
	}
	match, err := a.o.Matcher(rule)
	if err != nil {
		return nil, fmt.Errorf("its rule: %w", err)
	}
	var nothing event.Event
	if match(&nothing) {
		return nil, errors.New("its rule matches everything")
	}
	return match, nil
}

func (a *Agent) beginLookBack(q *QuestionStatus) (*lookBackJob, error) {
	j := &lookBackJob{q: q, limit: min(q.Question.Hits(), a.o.Config.LookBack.MaxEvents)}
	q.Read, q.Hits, q.Known, q.Capped = 0, 0, 0, false
	var err error
	if j.pipe, err = newPipeline(&a.o.Config, a.min, nil, archive.Secret{}, nil); err != nil {
		return nil, err
	}
	j.pipe.lib.Use(a.pipe.lib.Packs())
	if q.Rule != "" {
		if j.match, err = a.matcher(q.Rule); err != nil {
			return nil, err
		}
	} else {
		entries, err := q.Entries()
		if err != nil {
			return nil, err
		}
		b, err := indicator.Build([16]byte([]byte(q.ID)[:16]), entries)
		if err != nil {
			return nil, err
		}
		set, err := indicator.Open(b)
		if err != nil {
			return nil, err
		}
		j.match = func(e *event.Event) bool { return a.min.MatchSet(e, set) }
	}
	j.reader = a.archive.Between(q.From, q.To)
	return j, nil
}

// endLookBack writes the answer.
func (a *Agent) endLookBack(err error) bool {
	j := a.job
	a.job = nil
	j.reader.Close()
	if err == nil {
		// What matches over 1 % of the lines asks for everything: that is no question about an attack.
		if releases := j.q.Hits - j.q.Known; j.q.Read >= guardWindow && releases > int(j.q.Read/100) {
			err = fmt.Errorf("it matches %d of %d lines, over 1 %%: too much for a question", releases, j.q.Read)
		}
	}
	var lines []archive.Line
	if err == nil {
		lines, err = a.archive.FindAll(j.numbers)
	}
	if err != nil {
		a.endQuestion(j.q, QuestionFailed, err.Error())
		return true
	}
	var frames []byte
	n := 0
	var out event.Event
	for i := range lines {
		e := &j.pipe.e
		if !j.pipe.understandAgain(e, &lines[i]) {
			continue
		}
		j.match(e)
		e.RawDigest, e.HasRawDigest = a.pipe.digests.Digest(lines[i].Number, lines[i].Text), true
		e.SetInt(event.EventSequence, int64(lines[i].Number))
		e.SetString(event.TocsinLeftReason, "look_back")
		a.min.Reduce(&out, e)
		out.SetNamed("tocsin.question.id", j.q.ID)
		frames = appendRecord(frames, &record{group: lines[i].Number, line: lines[i].Number, json: out.AppendJSON(nil)})
		n++
	}
	j.q.State, j.q.Sent = QuestionAnswered, n
	a.finishQuestion(j.q, frames, n)
	return true
}

// finishQuestion puts the answer, and a word that it is one, into its lane's spool.
func (a *Agent) finishQuestion(q *QuestionStatus, frames []byte, n int) {
	now := a.o.Now()
	q.Finished = now.UTC()
	var e event.Event
	e.Time, e.Created = now.UnixNano(), now.UnixNano()
	e.SetString(event.EventKind, "state")
	e.SetString(event.EventModule, "tocsin")
	e.SetString(event.EventDataset, "tocsin.look_back")
	e.SetString(event.EventAction, "look-back-"+q.State)
	e.SetString(event.TocsinLeftReason, "look_back")
	consent := "single"
	if q.By == byStandingConsent {
		consent = "standing"
	}
	for _, f := range [][2]string{{"consent", consent}, {"id", q.ID}, {"state", q.State}, {"lines_read", strconv.FormatUint(q.Read, 10)}, {"hits", strconv.Itoa(q.Hits)}, {"known", strconv.Itoa(q.Known)},
		{"sent", strconv.Itoa(q.Sent)}, {"capped", strconv.FormatBool(q.Capped)}} {
		if q.State == QuestionAnswered || f[0] == "id" || f[0] == "state" { // a refusal says no more than that
			e.SetNamed("tocsin.question."+f[0], f[1])
		}
	}
	frames = appendRecord(frames, &record{json: e.AppendJSON(nil)})
	if err := a.addSide(a.lookback, frames, n+1); err != nil {
		a.log.Error("cannot keep the answer to a question; trying again", "question", q.ID, "error", err)
		q.Finished = time.Time{}
		if q.State == QuestionAnswered { // its hits are looked up again
			q.State = QuestionAllowed
		}
		a.answerAt = now.Add(answerAgain)
		return
	}
	a.st.Counts["made.look_back"] += uint64(n + 1)
	if a.st.Answered = append(a.st.Answered, q.ID); len(a.st.Answered) > maxQuestions {
		a.st.Answered = slices.Delete(a.st.Answered, 0, 1)
	}
	a.log.Info("a question is answered", "question", q.ID, "state", q.State, "hits", q.Hits, "sent", q.Sent)
	a.keepQuestion(q)
}

func appendRecord(frames []byte, r *record) []byte {
	frames, at := spool.BeginFrame(frames)
	frames = r.append(frames)
	spool.SealFrame(frames, at)
	return frames
}
