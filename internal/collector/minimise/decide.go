package minimise

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/indicator"
)

// How a policy's clauses decide. All clauses together ask about few fields, so an event's answers are gathered field by field, as bits, and
// a clause compares bits.

type clause struct {
	conds  []cond
	leave  bool
	urgent bool
	first  bool
}

// cond holds when one of the question's answers is among those wanted.
type cond struct {
	question int
	wanted   []uint64
}

// question is a field that clauses ask about and the values they name. The answer has a bit for each value that stands in the field; bit 0
// says that the field is there at all.
type question struct {
	key  event.Key
	vals []string
}

// compile makes questions and clauses of the policy.
func (m *Minimiser) compile() error {
	places := map[event.Key]int{}
	for i := range m.o.Policy.Events {
		pc := &m.o.Policy.Events[i]
		c := clause{leave: pc.Leave != "", urgent: pc.Urgent == "true", first: pc.Urgent == "first"}
		for name, values := range pc.When {
			k, ok := event.Lookup(name)
			if !ok {
				return fmt.Errorf("policy clause %s: unknown field %s", pc.Reason(), name)
			}
			at, ok := places[k]
			if !ok {
				at = len(m.questions)
				places[k] = at
				m.questions = append(m.questions, question{key: k, vals: []string{""}})
			}
			q := &m.questions[at]
			want := cond{question: at}
			for _, v := range values {
				bit := 0
				if v != "*" {
					if bit = slices.Index(q.vals[1:], v) + 1; bit == 0 {
						bit = len(q.vals)
						q.vals = append(q.vals, v)
					}
				}
				want.wanted = setBit(want.wanted, bit)
			}
			c.conds = append(c.conds, want)
		}
		m.clauses = append(m.clauses, c)
	}
	m.answers = make([]answer, len(m.questions))
	return nil
}

func setBit(s []uint64, bit int) []uint64 {
	for len(s) <= bit>>6 {
		s = append(s, 0)
	}
	s[bit>>6] |= 1 << (bit & 63)
	return s
}

// answer is what an event says to a question.
type answer struct {
	known bool
	bits  []uint64
}

// ask answers a question.
func (q *question) ask(e *event.Event, to *answer) {
	to.known = true
	clear(to.bits)
	i := e.Find(q.key)
	if i < 0 {
		return
	}
	to.bits = setBit(to.bits, 0)
	for ; i < e.Len(); i++ {
		k, v := e.At(i)
		if k != q.key {
			return
		}
		text := v.Str()
		if v.Kind() != event.String {
			text = v.Text()
		}
		if bit := slices.Index(q.vals[1:], text) + 1; bit > 0 {
			to.bits = setBit(to.bits, bit)
		}
	}
}

// Decision is what the policy says of an event.
type Decision struct {
	Clause int  // index in Policy().Events
	Leave  bool // it leaves
	Urgent bool // and at once
	First  bool // it is the first denial of its source in a day
}

// Decide finds the first clause that fits.
func (m *Minimiser) Decide(e *event.Event) Decision {
	for i := range m.answers {
		m.answers[i].known = false
	}
next:
	for i := range m.clauses {
		c := &m.clauses[i]
		for j := range c.conds {
			if !m.fits(&c.conds[j], e) {
				continue next
			}
		}
		d := Decision{Clause: i, Leave: c.leave, Urgent: c.urgent}
		if c.first {
			if a, ok := e.IP(event.SourceIP); ok && m.denied.add(a, e.Created) {
				d.Urgent, d.First = true, true
			}
		}
		if e.Has(event.TocsinSenderProductChanged) {
			d.Urgent = false
		}
		return d
	}
	return Decision{Clause: len(m.clauses) - 1} // not reached: the last clause has no conditions
}

func (m *Minimiser) fits(c *cond, e *event.Event) bool {
	a := &m.answers[c.question]
	if !a.known {
		m.questions[c.question].ask(e, a)
	}
	for w := range min(len(a.bits), len(c.wanted)) {
		if a.bits[w]&c.wanted[w] != 0 {
			return true
		}
	}
	return false
}

// ByIndicator says whether the clause that decided asks for nothing but an indicator.
func (m *Minimiser) ByIndicator(d Decision) bool {
	c := &m.clauses[d.Clause]
	return len(c.conds) == 1 && m.questions[c.conds[0].question].key == event.TocsinIndicatorID
}

// MatchSet says whether the event touches an indicator of a set that is not the one in force, such as that of a question.
func (m *Minimiser) MatchSet(e *event.Event, set *indicator.Set) bool {
	for _, k := range [...]event.Key{event.TocsinIndicatorID, event.TocsinIndicatorKind, event.TocsinIndicatorMatched} {
		e.Del(k)
	}
	m.match(e, set)
	return e.Has(event.TocsinIndicatorID)
}

// Reason gives the clause's counter name without its prefix, and its plain words.
func (m *Minimiser) Reason(clause int) (word, text string) {
	c := &m.o.Policy.Events[clause]
	return c.Reason(), c.Text
}

// firstSeen remembers which sources have been seen in the last day or two, in two generations, so that it neither grows nor needs a timer.
// IPv6 sources count by /64. A full generation is begun anew: some sources are then "first" again, which costs an early batch.
type firstSeen struct {
	now, before map[netip.Addr]struct{}
	began       int64
}

const (
	maxFirstSeen  = 1 << 16
	firstSeenSpan = int64(24 * time.Hour)
)

// add says whether a is new.
func (f *firstSeen) add(a netip.Addr, at int64) bool {
	if a.Is6() {
		p, _ := a.Prefix(64)
		a = p.Addr()
	}
	if f.now == nil || at-f.began > firstSeenSpan || len(f.now) >= maxFirstSeen {
		f.before, f.now, f.began = f.now, map[netip.Addr]struct{}{}, at
	}
	if _, ok := f.now[a]; ok {
		return false
	}
	f.now[a] = struct{}{}
	_, ok := f.before[a]
	return !ok
}
