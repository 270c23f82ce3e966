package parse

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// Logs in columns that say themselves what stands in which: "#Fields: date time s-ip" of the W3C form (IIS), "#fields<TAB>ts<TAB>uid" of
// Zeek, the first line of a CSV file. The names hold for the lines behind, from the same origin, until the next header. For an origin that
// sent none, the pack's own order holds. Headers and RestoreHeaders carry what is remembered over a restart.

// Origin is where a line came from, as far as the collector can tell lines of one stream from those of another.
type Origin struct {
	Listener uint8
	Stream   uint32 // a file among those of one listener; 0: none
	Sender   netip.Addr
}

// Header is what the lines of an origin have said of their columns, as it is kept over a restart.
type Header struct {
	Listener uint8             `json:"listener"`
	Stream   uint32            `json:"stream,omitempty"`
	Sender   netip.Addr        `json:"sender,omitzero"`
	Format   string            `json:"format"`         // name of the pack
	Step     int               `json:"step,omitempty"` // which of its steps that know headers
	Columns  []string          `json:"columns"`
	Marks    map[string]string `json:"marks,omitempty"` // values that hold for all lines, by the text that announced them
}

// size is about what the header takes in memory, in bytes.
func (h *Header) size() int {
	n := 200 + 48*len(h.Columns)
	for _, c := range h.Columns {
		n += len(c)
	}
	for k, v := range h.Marks {
		n += 64 + len(k) + len(v)
	}
	return n
}

// head is a header made ready for a pack.
type head struct {
	said  Header
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
	maxOrigins   = 1024
	maxHeads     = 8       // of one origin: files of several kinds that are read side by side, told apart by their number of columns
	maxHeadBytes = 1 << 20 // of all origins; those that were silent for longest are forgotten first
	maxColumns   = 256
	maxName      = 64
)

// origin is what is remembered of one.
type origin struct {
	heads []*head           // the newest first
	marks map[string]string // since the last header, by the mark's text
	bytes int               // that its heads take
	used  uint64            // when a line came by them, in lines
}

// header takes up a line that speaks of those behind it. It answers whether the text is one.
func (s *Set) header(st *packs.Step, t string) bool {
	for i := range st.Marks {
		if rest, ok := strings.CutPrefix(t, st.Marks[i].Text); ok {
			if rest = trim(strings.TrimLeft(rest, string(st.Delimiter)+": ")); len(rest) <= maxName {
				if o := s.origin(s.from); len(o.marks) < maxHeads {
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
	p := s.run.pack
	said := Header{Listener: s.from.Listener, Stream: s.from.Stream, Sender: s.from.Sender, Format: p.Name, Step: slices.Index(headerSteps(p), st)}
	for more := true; more && len(said.Columns) < maxColumns; {
		var name string
		name, rest, more = cutColumn(rest, st.Delimiter, st.Quote)
		if name = trim(name); len(name) > maxName {
			name = name[:maxName]
		}
		if name == "" && !more { // a delimiter at the end
			break
		}
		said.Columns = append(said.Columns, strings.Clone(name))
	}
	o := s.origin(s.from)
	for _, m := range st.Marks {
		if v := o.marks[m.Text]; v != "" {
			if said.Marks == nil {
				said.Marks = map[string]string{}
			}
			said.Marks[m.Text] = v
		}
	}
	clear(o.marks)
	if h := newHead(p, said); h != nil {
		s.announce(o, h)
	}
	return true
}

// headerSteps are the steps of a pack that know headers, in order.
func headerSteps(p *packs.Pack) []*packs.Step {
	var out []*packs.Step
	var walk func([]packs.Step)
	walk = func(steps []packs.Step) {
		for i := range steps {
			if st := &steps[i]; len(st.Header)+len(st.Titles) > 0 {
				out = append(out, st)
			}
			walk(steps[i].Any)
		}
	}
	walk(p.Read)
	for i := range p.Messages {
		walk(p.Messages[i].Read)
	}
	return out
}

// newHead makes a header ready; nil when the pack does not know such headers, or there are no columns.
func newHead(p *packs.Pack, said Header) *head {
	steps := headerSteps(p)
	if said.Step < 0 || said.Step >= len(steps) || len(said.Columns) == 0 || len(said.Columns) > maxColumns {
		return nil
	}
	h := &head{said: said, pack: p, step: steps[said.Step]}
	for _, name := range said.Columns {
		c := headColumn{slot: -1, name: name}
		if slot, ok := p.Names.Slot(name); ok {
			c.slot = int(slot)
		}
		h.cols = append(h.cols, c)
	}
	h.address = make([]bool, len(p.Slots))
	for i := range p.Fields.List {
		switch op := &p.Fields.List[i]; op.Verb {
		case packs.VerbIP, packs.VerbSource, packs.VerbDestination, packs.VerbSourceNAT, packs.VerbDestinationNAT:
			if op.Plain && op.Slot >= 0 {
				h.address[op.Slot] = true
			}
		}
	}
	for _, m := range h.step.Marks {
		if v := said.Marks[m.Text]; v != "" {
			h.marks = append(h.marks, headColumn{m.Slot, v})
		}
	}
	return h
}

// announce puts a header first among those of an origin, in place of one with as many columns.
func (s *Set) announce(o *origin, h *head) {
	heads := []*head{h}
	for _, old := range o.heads {
		if len(heads) < maxHeads && (old.pack.Name != h.pack.Name || len(old.cols) != len(h.cols)) {
			heads = append(heads, old)
		}
	}
	s.headBytes -= o.bytes
	o.heads, o.bytes = heads, 0
	for _, x := range heads {
		o.bytes += x.said.size()
	}
	s.headBytes += o.bytes
	for s.headBytes > maxHeadBytes && s.forgetOrigins(o) {
	}
}

func (s *Set) origin(from Origin) *origin {
	o := s.origins[from]
	if o == nil {
		if s.origins == nil {
			s.origins = map[Origin]*origin{}
		}
		o = &origin{marks: map[string]string{}}
		if len(s.origins) >= maxOrigins {
			s.forgetOrigins(o)
		}
		s.origins[from] = o
	}
	s.turn++
	o.used = s.turn
	return o
}

// forgetOrigins forgets the eighth that was silent for longest, so that a flood of new ones costs little each, but not keep. It answers
// whether there were any.
func (s *Set) forgetOrigins(keep *origin) bool {
	var used []uint64
	for _, o := range s.origins {
		if o != keep {
			used = append(used, o.used)
		}
	}
	if len(used) == 0 {
		return false
	}
	slices.Sort(used)
	last := used[len(used)/8]
	for from, o := range s.origins {
		if o != keep && o.used <= last {
			s.headBytes -= o.bytes
			delete(s.origins, from)
		}
	}
	return true
}

// maxKeptHeaders bounds the bytes of headers that Headers gives.
const maxKeptHeaders = 64 << 10

// Headers gives what lines have said of their columns, for RestoreHeaders: the newest of those origins whose lines came last, about 64 KiB.
func (s *Set) Headers() []Header {
	list := slices.Collect(maps.Values(s.origins))
	slices.SortFunc(list, func(a, b *origin) int { return cmp.Compare(b.used, a.used) })
	var out []Header
	left := maxKeptHeaders
	for _, o := range list {
		for _, h := range o.heads {
			if left -= h.said.size(); left < 0 {
				return out
			}
			out = append(out, h.said)
		}
	}
	return out
}

// RestoreHeaders takes up what Headers gave. What does not fit the packs in use is left out.
func (s *Set) RestoreHeaders(list []Header) {
	set := s.lib.Packs()
	for _, said := range slices.Backward(list) {
		p := set.Pack(said.Format)
		if p == nil || p.Code != "" || slices.ContainsFunc(said.Columns, func(c string) bool { return len(c) > maxName }) {
			continue
		}
		if h := newHead(p, said); h != nil {
			s.announce(s.origin(Origin{Listener: said.Listener, Stream: said.Stream, Sender: said.Sender}), h)
		}
	}
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
	s.turn++
	o.used = s.turn
	for i, h := range o.heads {
		if p := s.packs.Pack(h.pack.Name); p != h.pack { // the pack was exchanged; what the line said stands
			if p == nil || p.Code != "" {
				continue
			}
			if h = newHead(p, h.said); h == nil {
				continue
			}
			o.heads[i] = h
		}
		if columnCount(line, h.step) != len(h.cols) {
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
