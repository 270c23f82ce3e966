package parse

import (
	"net/netip"
	"strings"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// Logs in columns that say themselves what stands in which: "#Fields: date time s-ip" of the W3C form (IIS), "#fields<TAB>ts<TAB>uid" of
// Zeek, the first line of a CSV file. The names hold for the lines behind, from the same origin, until the next header. They are remembered
// in memory: after a restart, and for an origin that sent none, the pack's own order holds.

// Origin is where a line came from, as far as the collector can tell lines of one stream from those of another.
type Origin struct {
	Listener uint8
	Stream   uint32 // a file among those of one listener; 0: none
	Sender   netip.Addr
}

// head is what a header said.
type head struct {
	pack  *packs.Pack
	step  *packs.Step
	cols  []headColumn
	marks []headColumn

	address []bool // by slot: the pack takes its value for an address
}

// headColumn is a column, or the value of a mark.
type headColumn struct {
	slot int // -1: the pack does not speak of it
	name string
}

// Bounds of what is remembered: anybody who may send lines may send headers.
const (
	maxOrigins = 1024
	maxHeads   = 8 // of one origin: files of several kinds that are read side by side, told apart by their number of columns
	maxColumns = 256
	maxName    = 64
)

// origin is what is remembered of one.
type origin struct {
	heads []*head           // the newest first
	marks map[string]string // since the last header, by the mark's text
}

// header takes up a line that speaks of those behind it. It answers whether the text is one.
func (s *Set) header(st *packs.Step, t string) bool {
	for i := range st.Marks {
		if rest, ok := strings.CutPrefix(t, st.Marks[i].Text); ok {
			if rest = trim(strings.TrimLeft(rest, string(st.Delimiter)+": ")); len(rest) <= maxName {
				if o := s.origin(); len(o.marks) < maxHeads {
					o.marks[st.Marks[i].Text] = strings.Clone(rest)
				}
			}
			return true
		}
	}
	rest := ""
	for _, h := range st.Header {
		if r, ok := strings.CutPrefix(t, h); ok {
			rest = strings.TrimLeft(r, string(st.Delimiter)+": ")
		}
	}
	for _, h := range st.Titles {
		if strings.HasPrefix(t, h) {
			rest = t
		}
	}
	if rest == "" {
		return false
	}
	h := &head{pack: s.run.pack, step: st}
	for more := true; more && len(h.cols) < maxColumns; {
		var name string
		name, rest, more = cutColumn(rest, st.Delimiter, st.Quote)
		if name = trim(name); len(name) > maxName {
			name = name[:maxName]
		}
		if name == "" && !more { // a delimiter at the end
			break
		}
		c := headColumn{slot: -1, name: strings.Clone(name)}
		if slot, ok := h.pack.Names.Slot(name); ok {
			c.slot = int(slot)
		}
		h.cols = append(h.cols, c)
	}
	h.address = make([]bool, len(h.pack.Slots))
	for i := range h.pack.Fields.List {
		switch op := &h.pack.Fields.List[i]; op.Verb {
		case packs.VerbIP, packs.VerbSource, packs.VerbDestination, packs.VerbSourceNAT, packs.VerbDestinationNAT:
			if op.Plain && op.Slot >= 0 {
				h.address[op.Slot] = true
			}
		}
	}
	o := s.origin()
	for _, m := range st.Marks {
		if v := o.marks[m.Text]; v != "" {
			h.marks = append(h.marks, headColumn{m.Slot, v})
		}
	}
	clear(o.marks)
	heads := []*head{h}
	for _, old := range o.heads {
		if len(heads) < maxHeads && (old.pack != h.pack || len(old.cols) != len(h.cols)) {
			heads = append(heads, old)
		}
	}
	o.heads = heads
	return true
}

func (s *Set) origin() *origin {
	o := s.origins[s.from]
	if o == nil {
		if s.origins == nil || len(s.origins) >= maxOrigins { // the others begin anew with their next header
			s.origins = map[Origin]*origin{}
		}
		o = &origin{marks: map[string]string{}}
		s.origins[s.from] = o
	}
	return o
}

// announced reads a line in columns that its origin has announced: one with as many columns, addresses where the header says so and a
// time that can be read. A forwarder may send other files' lines between, and some have as many columns.
func (s *Set) announced() (string, bool) {
	o := s.origins[s.from]
	if o == nil {
		return "", false
	}
	line := trimLine(s.e.Raw())
	if line == "" || line[0] == '#' || line[0] == '{' {
		return "", false
	}
	outer := s.h
	for _, h := range o.heads {
		if s.packs.Pack(h.pack.Name) != h.pack || columnCount(line, h.step) != len(h.cols) {
			continue
		}
		s.h = header{pri: -1, msg: line} // its first columns were taken for a syslog header
		s.run.head = h
		ok := s.runPack(h.pack, line)
		s.run.head = nil
		if ok {
			if s.e.Time != 0 {
				return h.pack.Name, true
			}
			s.undo()
		}
		s.h = outer
	}
	return "", false
}

func columnCount(t string, st *packs.Step) int {
	n := 0
	for more := true; more && n <= maxColumns; n++ {
		_, t, more = cutColumn(t, st.Delimiter, st.Quote)
	}
	return n
}

// headed reads the columns of a line by the header that announced it.
func (s *Set) headed(h *head, st *packs.Step, t string) bool {
	for _, m := range h.marks {
		s.run.slots.Put(m.slot, m.name)
	}
	more := true
	for i := 0; i < len(h.cols) && more; i++ {
		var v string
		v, t, more = cutColumn(t, st.Delimiter, st.Quote)
		switch c := &h.cols[i]; {
		case v == "":
		case c.slot >= 0 && h.address[c.slot] && !empty(v) && !startsAddress(v):
			return false
		case c.slot >= 0:
			s.run.slots.First(c.slot, v)
			if !s.run.pack.Mapped[c.slot] {
				s.other(c.name, v, 0)
			}
		default:
			s.other(c.name, v, 0)
		}
	}
	return true
}

// startsAddress says whether an address stands at the start of v.
func startsAddress(v string) bool {
	_, _, ok := ipPort(v)
	return ok
}

// headerDone is what becomes of a header line itself: it is understood and says nothing.
func (s *Set) headerDone(p *packs.Pack) {
	s.device(p.Vendor, p.Product, p.Kind)
	s.dataset(p.Dataset)
	s.str(event.EventKind, "event")
}
