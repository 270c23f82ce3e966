package minimise

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"tocsin/internal/event"
)

// How a policy's clauses decide. All clauses together ask about few fields. Each field and each value that a clause names has a bit; one pass
// over an event sets those that are true of it, and a clause compares bits. Most events of a site answer alike, so what
// was decided of a row of keys and the values that are asked about is remembered.

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

// known is what was decided of one set of the values that are asked about.
type known struct {
	clause int32 // one more than its index; 0: nothing is known here
	words  [maxKnown]word
}

// maxKnown is of how many values what was decided is remembered.
const maxKnown = 6

// word is a short string, or one that a question names, made ready to be compared.
type word struct {
	first, last uint64 // see ends; of one of at most 16 bytes they are all of it
	s           string // its bytes when it is longer
	n           int
}

// ends are the first and the last bytes of a string, as many of each as a number takes, less when it is shorter.
func ends(s string) (first, last uint64) {
	p := unsafe.Slice(unsafe.StringData(s), len(s))
	switch n := len(p); {
	case n >= 8:
		return binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[n-8:])
	case n >= 4:
		return uint64(binary.LittleEndian.Uint32(p)), uint64(binary.LittleEndian.Uint32(p[n-4:]))
	case n > 0:
		return uint64(p[0]), uint64(p[n/2])<<8 | uint64(p[n-1])
	}
	return 0, 0
}

// fits says whether what is known is of the values that e has.
func (k *known) fits(e *event.Event, at []asked) bool {
	words := k.words[:len(at)]
	for i := range at {
		w, s := &words[i], e.StrAt(int(at[i].at))
		if len(s) != w.n {
			return false
		}
		if first, last := ends(s); first != w.first || last != w.last || w.n > 16 && s != w.s {
			return false
		}
	}
	return true
}

// fitting is the index of the first clause that fits an event.
func (m *Minimiser) fitting(e *event.Event) int {
	s := m.shapeOf(e)
	if s.known != nil {
		for i := range uint8(len(s.known)) {
			at := (s.turn + i) % uint8(len(s.known))
			if k := &s.known[at]; k.clause != 0 && k.fits(e, s.asked) {
				s.turn = at
				return int(k.clause - 1)
			}
		}
	}
	copy(m.answer, s.answer)
	var k known
	all := len(s.asked) <= maxKnown // the values can be remembered
	for i, a := range s.asked {
		v := m.compare(e, int(a.at), &m.questions[a.question])
		if all = all && v != ""; all {
			w := &k.words[i]
			w.first, w.last = ends(v)
			if w.n = len(v); w.n > 16 {
				w.s = v
			}
		}
	}
	clause := m.firstClause()
	if all {
		if s.known == nil {
			s.known = new([4]known)
		}
		k.clause = int32(clause + 1)
		s.turn = (s.turn + 1) % uint8(len(s.known))
		s.known[s.turn] = k
	}
	return clause
}

// compare sets the bit of the i-th value if the question names it. The answer is the value if it can be remembered: a string that is short, or one
// of the question's.
func (m *Minimiser) compare(e *event.Event, i int, q *question) string {
	s := e.StrAt(i)
	text := e.KindAt(i) == event.String
	if !text {
		s = m.textOf(e.Ref(i))
	}
	n := q.named(s)
	if n > 0 {
		bit := uint(q.base + n)
		m.answer[bit/64] |= 1 << (bit % 64)
	}
	switch {
	case !text:
		return ""
	case n > 0:
		return q.vals[n-1]
	case len(s) <= 16:
		return s
	}
	return ""
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
	i := m.fitting(e)
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

// Leaves is Decide for an event that was decided before: it says whether it leaves, and remembers no first denial.
func (m *Minimiser) Leaves(e *event.Event) bool {
	return m.clauses[m.fitting(e)].leave
}

// firstClause is the index of the first clause that fits the answer.
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
