package minimise

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/indicator"
)

// Options are a policy and what the member adds to it.
type Options struct {
	Policy    *Policy
	Own       []netip.Prefix // the member's public ranges; private ranges count as own without being named
	AlsoLeave []string       // fields that the member lets go beyond the policy
	AlsoKeep  []string       // fields that the member keeps beyond the policy; stronger than AlsoLeave
	// Pseudonyms asked for: of own addresses, of users (who then leave although the policy keeps them, but only as pseudonyms).
	PseudonymAddresses, PseudonymUsers bool
	PseudonymKey                       [32]byte
	OldestDeviceTime                   time.Duration // a device time further back is not believed; default 30 days
}

// Minimiser applies a policy. It belongs to one goroutine, but for SetIndicators.
type Minimiser struct {
	o          Options
	own        *ranges
	digest     string
	indicators atomic.Pointer[indicator.Set]

	// What is remembered of rows of keys, see shape.go.
	shapes [1 << shapeBits]*shape
	long   *shape // of a row that is too long to be remembered with the others
	last   *shape // that shapeOf gave, at first one of no row
	turn   bool   // which of its two places a new row takes next

	// What Decide goes by, see decide.go.
	clauses   []clause
	questions []question
	asked     []uint16 // by event.Key: one more than the index of its question
	answer    []uint64 // of the event at hand
	text      []byte
	denied    firstSeen

	// What Reduce goes by.
	treat     []treatment                 // by event.Key; for keys beyond it see late.go
	late      atomic.Pointer[[]treatment] // of those
	extras    []string                    // patterns of extras that may leave
	maybe     filter                      // of extras
	staying   event.KeySet                // of tidied: those that do not leave as they are
	sentences bool                        // what a device says in a sentence may leave
	aliases   [1 << aliasBits]alias       // pseudonyms of addresses made lately
}

// treatment is what becomes of a field.
type treatment uint8

const (
	stays   treatment = iota
	leaves            // as it is
	worded            // as it is, unless it is a sentence
	tidied            // as it is, without what stays of other fields
	address           // as it is, but for own addresses, which leave as pseudonyms
	user              // as a pseudonym
)

// userFields name people. With pseudonyms of users they leave as such.
var userFields = []string{"user.name", "source.user.name", "destination.user.name", "user.target.name", "client.user.name"}

// New makes a minimiser. It refuses what cannot be meant: own ranges that would make half the internet inside.
func New(o Options) (*Minimiser, error) {
	if o.Policy == nil {
		return nil, fmt.Errorf("no policy")
	}
	if o.OldestDeviceTime <= 0 {
		o.OldestDeviceTime = 30 * 24 * time.Hour
	}
	m := &Minimiser{o: o}
	var own []netip.Prefix
	for _, p := range o.Own {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		if !p.IsValid() || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 {
			return nil, fmt.Errorf("own range %v is too wide to be one member's", p)
		}
		own = append(own, p)
	}
	m.own = newRanges(own)
	for _, name := range slices.Concat(o.AlsoLeave, o.AlsoKeep) {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	if err := m.compile(); err != nil {
		return nil, err
	}
	m.last = &shape{answer: make([]uint64, len(m.answer))}
	m.treat = make([]treatment, len(partOf)) // the schema's; see late.go for others
	for k := 1; k < len(m.treat); k++ {
		m.treat[k] = m.treatmentOf(event.Key(k))
	}
	m.sentences = m.treatment(event.Message) != stays
	for _, k := range told {
		if m.treatment(k) != leaves {
			m.staying.Add(k)
		}
	}
	// Fields that the schema does not know have names that a sender chose: "threat.*" means the schema's, not whatever a device's JSON calls
	// so. They leave by their whole names, under "*", or when the member lets them go.
	for _, name := range o.Policy.Fields.Leave {
		if name == "*" || !strings.HasSuffix(name, "*") {
			m.extras = append(m.extras, name)
		}
	}
	m.extras = append(m.extras, o.AlsoLeave...)
	for _, name := range m.extras {
		m.maybe.add(name)
	}
	var pseudonyms []string
	if o.PseudonymAddresses {
		pseudonyms = append(pseudonyms, "addresses")
	}
	if o.PseudonymUsers {
		pseudonyms = append(pseudonyms, "users")
	}
	m.digest = effective{o.Policy, o.AlsoLeave, o.AlsoKeep, pseudonyms}.digest()
	return m, nil
}

func (m *Minimiser) treatmentOf(k event.Key) treatment {
	p, name := m.o.Policy, k.Name()
	switch {
	case covers(m.o.AlsoKeep, name):
		return stays
	case m.o.PseudonymUsers && slices.Contains(userFields, name):
		return user
	case covers(p.Fields.Address, name), covers(p.Fields.Leave, name), covers(m.o.AlsoLeave, name):
		switch {
		case slices.Contains(deviceWords, k):
			return tidied
		case m.o.PseudonymAddresses && (k.Kind() == event.IP || k.Kind() == event.String):
			return address // one in a text too, such as the host of a web address
		}
		return leaves
	}
	return stays
}

// Digest names the policy as applied here, member's changes included: hexadecimal SHA-256 of its canonical JSON.
func (m *Minimiser) Digest() string { return m.digest }

// Policy is the policy applied.
func (m *Minimiser) Policy() *Policy { return m.o.Policy }

// SetIndicators replaces the scheme's indicator set; nil removes it. Safe to call at any time.
func (m *Minimiser) SetIndicators(s *indicator.Set) { m.indicators.Store(s) }

// Reduce makes dst what of e may leave. dst shares e's strings: it is good as long as e is.
func (m *Minimiser) Reduce(dst, e *event.Event) {
	dst.Reset()
	dst.ID, dst.Time, dst.Created = e.ID, e.Time, e.Created
	dst.RawDigest, dst.HasRawDigest = e.RawDigest, e.HasRawDigest
	s := m.shapeOf(e)
	dst.Begin(s.out, &s.leaving)
	gone := 0 // values of out that stay after all
	for i := range s.steps {
		st := &s.steps[i]
		at := int(st.to) - gone
		if st.as == leaves {
			dst.Fill(at, e, int(st.at), int(st.end))
		} else if v, ok := m.reduced(dst, e, int(st.at), st.as); ok {
			dst.Put(at, v)
		} else {
			dst.Drop(at)
			gone++
		}
	}
	if len(m.extras) > 0 {
		for _, x := range e.Extras() {
			if m.extraLeaves(x.Name) {
				dst.SetNamed(x.Name, m.hideAddresses(x.Value))
			}
		}
	}
	if m.SendsRaw() && e.Raw() != "" {
		dst.SetRaw([]byte(e.Raw()))
		dst.IncludeRaw(true)
	}
}

// reduced is what may leave of the i-th value of e, which may not be simply all of it; false when nothing does.
func (m *Minimiser) reduced(dst, e *event.Event, i int, as treatment) (event.Value, bool) {
	v := e.Ref(i)
	switch as {
	case worded:
		if sentence(v.Str()) {
			return *v, false
		}
	case tidied:
		return m.tidy(e, e.Keys()[i], i)
	case address:
		switch v.Kind() {
		case event.String: // it was no address, but there may be one in it
			return event.StringValue(m.hideAddresses(v.Str())), true
		case event.IP:
			if m.ownAt(e, i) {
				return dst.IPValue(m.PseudonymIP(v.IP())), true
			}
		}
	case user:
		return event.StringValue(m.PseudonymUser(v.Str())), true
	}
	return *v, true
}

// SendsRaw says whether raw lines leave. They hold everything: when the member keeps back or veils anything that the policy lets go, they
// stay too.
func (m *Minimiser) SendsRaw() bool {
	return m.o.Policy.Raw && len(m.o.AlsoKeep) == 0 && !m.o.PseudonymAddresses && !m.o.PseudonymUsers
}

// extraLeaves says whether a field that the schema does not know may leave.
func (m *Minimiser) extraLeaves(name string) bool {
	return m.maybe.has(name) && covers(m.extras, name) && !covers(m.o.AlsoKeep, name)
}

// treatment of a key.
func (m *Minimiser) treatment(k event.Key) treatment {
	if int(k) < len(m.treat) {
		return m.treat[k]
	}
	return m.lateTreatment(k)
}

// MayLeave says whether values of the field leave, as they are or as pseudonyms.
func (m *Minimiser) MayLeave(k event.Key) (leave, pseudonym bool) {
	switch m.treatment(k) {
	case leaves, tidied:
		return true, false
	case address, user:
		return true, true
	}
	return false, false
}
