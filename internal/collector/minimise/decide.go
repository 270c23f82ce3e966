package minimise

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"tocsin/internal/event"
)

// How a policy's clauses decide. All clauses together ask about few fields. Each field and each value that a clause names has a bit; one pass
// over an event sets those that are true of it, and a clause compares bits. Most events of a site answer alike, so what the bits decide is
// remembered.

type clause struct {
	conds       []cond
	leave       bool
	urgent      bool
	first       bool
	byIndicator bool // it asks for nothing but an indicator
}

// cond holds when one of its bits is set.
type cond []bits

// bits are some of one word of the answer.
type bits struct {
	word int
	mask uint64
}

// question is a field that clauses ask about and the values they name. Its bits begin at base: the first says that the field is there at
// all, those behind it that the values are.
type question struct {
	vals  []string
	first [64]uint16 // by place: one more than the index of the value added last of those that fall on it
	next  []uint16   // by value: the same of the one added before it
	base  int
}

// add takes up a value and gives one more than its index.
func (q *question) add(s string) int {
	q.vals = append(q.vals, s)
	at := &q.first[place(s)]
	q.next = append(q.next, *at)
	*at = uint16(len(q.vals))
	return len(q.vals)
}

// place is where a value falls among those of a question: by its length and its first and last byte.
func place(s string) uint {
	if s == "" {
		return 0
	}
	return (uint(len(s))*5 + uint(s[0])*3 + uint(s[len(s)-1])) % 64
}

// named is one more than the index of s in the question's values, 0 when it is none of them.
func (q *question) named(s string) int {
	n := q.first[place(s)]
	for n != 0 && q.vals[n-1] != s {
		n = q.next[n-1]
	}
	return int(n)
}

// remembered is what an answer of one word decides.
type remembered struct {
	answer uint64
	clause int32 // one more than its index; 0: nothing is remembered here
}

// compile makes questions and clauses of the policy.
func (m *Minimiser) compile() error {
	type ref struct{ question, value int } // value 0: whether the field is there
	places := map[event.Key]int{}
	var refs [][][]ref // by clause and condition
	for i := range m.o.Policy.Events {
		pc := &m.o.Policy.Events[i]
		c := clause{leave: pc.Leave != "", urgent: pc.Urgent == "true", first: pc.Urgent == "first"}
		var conds [][]ref
		for name, values := range pc.When {
			k, ok := event.Lookup(name)
			if !ok {
				return fmt.Errorf("policy clause %s: unknown field %s", pc.Reason(), name)
			}
			at, ok := places[k]
			if !ok {
				at = len(m.questions)
				places[k] = at
				m.questions = append(m.questions, question{})
			}
			q := &m.questions[at]
			var wanted []ref
			for _, v := range values {
				n := 0
				if v != "*" {
					if n = q.named(v); n == 0 {
						n = q.add(v)
					}
				}
				wanted = append(wanted, ref{at, n})
			}
			conds = append(conds, wanted)
			c.byIndicator = len(pc.When) == 1 && k == event.TocsinIndicatorID
		}
		m.clauses = append(m.clauses, c)
		refs = append(refs, conds)
	}
	n := 0
	for i := range m.questions {
		m.questions[i].base = n
		n += 1 + len(m.questions[i].vals)
	}
	m.answer = make([]uint64, max(1, (n+63)/64))
	for i, conds := range refs {
		for _, wanted := range conds {
			var c cond
			for _, r := range wanted {
				bit := m.questions[r.question].base + r.value
				at := slices.IndexFunc(c, func(b bits) bool { return b.word == bit/64 })
				if at < 0 {
					at = len(c)
					c = append(c, bits{word: bit / 64})
				}
				c[at].mask |= 1 << (bit % 64)
			}
			m.clauses[i].conds = append(m.clauses[i].conds, c)
		}
	}
	m.asked = make([]uint16, event.NumKeys())
	for k, at := range places {
		m.asked[k] = uint16(at + 1)
	}
	return nil
}

// questionOf is what clauses ask about a field, nil when they ask nothing.
func (m *Minimiser) questionOf(k event.Key) *question {
	if int(k) >= len(m.asked) || m.asked[k] == 0 {
		return nil
	}
	return &m.questions[m.asked[k]-1]
}

// ask sets the bits that are true of an event.
func (m *Minimiser) ask(e *event.Event) {
	s := m.prepared(e)
	copy(m.answer, s.answer)
	for _, a := range s.asked {
		m.compare(e, int(a.at), &m.questions[a.question])
	}
	for i, k := range e.Keys()[s.n:] {
		if q := m.questionOf(k); q != nil {
			m.answer[q.base/64] |= 1 << (q.base % 64)
			m.compare(e, s.n+i, q)
		}
	}
}

// compare sets the bit of the i-th value if the question names it.
func (m *Minimiser) compare(e *event.Event, i int, q *question) {
	if len(q.vals) == 0 {
		return
	}
	s := e.StrAt(i)
	if e.KindAt(i) != event.String {
		s = m.textOf(e.Ref(i))
	}
	if n := q.named(s); n > 0 {
		bit := uint(q.base + n)
		m.answer[bit/64] |= 1 << (bit % 64)
	}
}

// textOf is a value of another kind as text, good until the next one is made.
func (m *Minimiser) textOf(v *event.Value) string {
	m.text = v.AppendText(m.text[:0])
	return unsafe.String(unsafe.SliceData(m.text), len(m.text))
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
	m.ask(e)
	i := m.fitting()
	c := &m.clauses[i]
	d := Decision{Clause: i, Leave: c.leave, Urgent: c.urgent}
	if c.first {
		if a, ok := e.IP(event.SourceIP); ok && m.denied.add(a, e.Created) {
			d.Urgent, d.First = true, true
		}
	}
	if d.Urgent && e.Has(event.TocsinSenderProductChanged) {
		d.Urgent = false
	}
	return d
}

// Leaves is Decide for an event that was decided before: it says whether it leaves, and remembers nothing of it.
func (m *Minimiser) Leaves(e *event.Event) bool {
	m.ask(e)
	return m.clauses[m.fitting()].leave
}

// fitting is the index of the first clause that fits the answer.
func (m *Minimiser) fitting() int {
	if len(m.answer) > 1 {
		return m.firstClause()
	}
	a := m.answer[0]
	r := &m.memory[a*0x9E3779B97F4A7C15>>(64-memoryBits)]
	if r.answer != a || r.clause == 0 {
		*r = remembered{a, int32(m.firstClause() + 1)}
	}
	return int(r.clause - 1)
}

func (m *Minimiser) firstClause() int {
next:
	for i := range m.clauses {
		for _, c := range m.clauses[i].conds {
			if !c.holds(m.answer) {
				continue next
			}
		}
		return i
	}
	return len(m.clauses) - 1 // not reached: the last clause has no conditions
}

func (c cond) holds(answer []uint64) bool {
	for _, b := range c {
		if answer[b.word]&b.mask != 0 {
			return true
		}
	}
	return false
}

// ByIndicator says whether the clause that decided asks for nothing but an indicator.
func (m *Minimiser) ByIndicator(d Decision) bool { return m.clauses[d.Clause].byIndicator }

// Reason gives the clause's counter name without its prefix, and its plain words.
func (m *Minimiser) Reason(clause int) (word, text string) {
	c := &m.o.Policy.Events[clause]
	return c.Reason(), c.Text
}

// Mark writes the decision into the event, so that it leaves with its reason.
func (m *Minimiser) Mark(e *event.Event, d Decision) {
	e.SetString(event.TocsinLeftReason, m.o.Policy.Events[d.Clause].Reason())
	if d.First {
		e.SetBool(event.TocsinFirstDenial, true)
	}
	if d.Urgent {
		e.SetBool(event.TocsinUrgent, true)
	}
}

// firstSeen remembers which sources have been seen in the last day or two, in two generations, so that it neither grows nor needs a timer.
// IPv6 sources count by /64. A full generation is begun anew: some sources are then "first" again, which costs an early batch.
type firstSeen struct {
	now, before map[[16]byte]struct{}
	last        [16]byte // the one seen last, which is in now: a scan is one source again and again
	began       int64
}

const (
	maxFirstSeen  = 1 << 16
	firstSeenSpan = int64(24 * time.Hour)
)

// add says whether a is new.
func (f *firstSeen) add(a netip.Addr, at int64) bool {
	b := a.As16()
	if a.Is6() {
		clear(b[8:])
	}
	apart := max(at-f.began, f.began-at) // the clock may have been ahead and put right
	if f.now == nil || apart > firstSeenSpan || len(f.now) >= maxFirstSeen {
		f.before, f.now, f.began = f.now, map[[16]byte]struct{}{}, at
	} else if b == f.last {
		return false
	}
	f.last = b
	if _, ok := f.now[b]; ok {
		return false
	}
	f.now[b] = struct{}{}
	_, ok := f.before[b]
	return !ok
}
