package e2e

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
	"tocsin/internal/collector/spool"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// A question that nobody decides expires, and the hub is told so, once. A denial stays a denial when there is no room to say it: it is said when
// there is, and nothing is looked up.
func TestQuestionUndecided(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Vestry")
	var off atomic.Int64
	var full atomic.Bool
	options := func(o *collector.Options) {
		withMatcher(o)
		o.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
		o.OpenFile = func(name string) (spool.File, error) {
			f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
			if err != nil || !strings.Contains(name, "spool-lookback") {
				return f, err
			}
			return &readOnlyFile{f, &full}, nil
		}
	}
	r := s.start(options)
	c := r.tcp()
	for i := range 3 {
		fmt.Fprintf(c, "%s\n", traffic("accept", "10.0.0.5", "203.0.113.200", i))
	}
	r.settled(3)
	ask := func(version uint64) string {
		t.Helper()
		q := question(nil)
		b, err := q.Encode()
		if err != nil {
			t.Fatal(err)
		}
		h.direct(directive.LookBack, keys.Questions, version, b, func(d *keys.Directive) { d.Expires = time.Now().Add(10 * time.Minute) })
		r.until("the question waits for the member", func(st *collector.Status) bool { return st.Questions == 1 })
		return q.ID
	}
	state := func(id string) string {
		t.Helper()
		list, err := collector.FetchQuestions(t.Context(), &s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range list {
			if q.ID == id {
				return q.State
			}
		}
		return "unknown"
	}
	denied := ask(1)
	full.Store(true)
	if err := collector.DecideQuestion(t.Context(), &s.cfg, denied, false); err != nil {
		t.Fatal(err)
	}
	if got := state(denied); got != collector.QuestionDenied {
		t.Errorf("denied without room: %s", got)
	}
	off.Store(int64(time.Minute)) // tried again, and there is still no room
	r.until("it was tried again", func(*collector.Status) bool {
		return strings.Count(s.logs.String(), "cannot keep the answer to a question") > 1
	})
	full.Store(false)
	off.Store(int64(2 * time.Minute))
	r.until("the denial is told", func(st *collector.Status) bool { return st.Counts["made.look_back"] > 0 })
	undecided := ask(2)
	off.Store(int64(20 * time.Minute))
	r.until("the end is told", func(st *collector.Status) bool { return st.Counts["made.look_back"] > 1 })
	r.settled(3)
	r.end()
	r = s.start(options)
	r.until("the hub is reached again", func(st *collector.Status) bool { return st.State != "" })
	if d, u := state(denied), state(undecided); d != collector.QuestionDenied || u != collector.QuestionExpired {
		t.Errorf("the one is %s, the other %s", d, u)
	}
	r.end()
	k := h.take(s.id)
	k.balance(t)
	told := map[string]int{}
	for i := range k.events {
		if e := &k.events[i]; e.Str(event.EventDataset) == "tocsin.look_back" {
			told[e.Str(event.EventAction)]++
		}
		if strings.Contains(k.raw[i], "lines_read") || strings.Contains(k.raw[i], "203.0.113.200") {
			t.Errorf("it says more than that: %s", k.raw[i])
		}
	}
	if told["look-back-denied"] != 1 || told["look-back-expired"] != 1 || k.lanes[batch.LookBack] != 2 {
		t.Errorf("the hub was told %v, lanes %v", told, k.lanes)
	}
}
