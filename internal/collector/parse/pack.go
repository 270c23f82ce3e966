package parse

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// The parsers that are data (package packs): which of them a line belongs to, and what becomes of the line's values.

// Library holds the packs in use. Any number of Sets share one, in any goroutines; Use exchanges all packs between two lines.
type Library struct{ set atomic.Pointer[packs.Set] }

// NewLibrary makes a library of the packs that are part of the program.
func NewLibrary() *Library {
	l := &Library{}
	l.Use(packs.Builtin())
	return l
}

var builtinLibrary = sync.OnceValue(NewLibrary)

// Use puts other packs in use. A line that is being read at this moment is finished with the old ones.
func (l *Library) Use(set *packs.Set) { l.set.Store(set) }

// Packs are the packs in use.
func (l *Library) Packs() *packs.Set { return l.set.Load() }

// pair is a name and a value that a pack does not speak of.
type pair struct {
	name, value string
	leaf        int    // where the last part of a JSON path starts
	plain       bool   // the name is known to be good for an extra
	norm        []byte // of a plain name: as the dictionary writes it
	fresh       bool   // no other pair of the line has that name, nor can an extra that a pack has made
}

// run is what reading one line with one pack needs.
type run struct {
	pack   *packs.Pack // nil when the line is not read by a pack
	slots  packs.Values
	todo   packs.Todo
	find   packs.Finder
	others [packMaxOthers]pair
	n      int // others
	odd    int // others whose names may be fields
	fuel   int
	head   *head  // the header that announced the line
	header bool   // the line is a header itself
	cef    string // the extension and the name of a CEF or LEEF message
	name   string
	words  string // a sentence to search

	marks    find.Marks
	limit    int     // of marks
	turn     uint32  // counts what is read
	memory   *memory // of the pack at work
	memories map[*packs.Pack]*memory
	last     *packs.Pack // whose memory it is
	treads
}

// packMaxOthers bounds the names of one line that a pack does not speak of.
const packMaxOthers = 128

// byPack tries the packs whose mark is in the line's header or at the start of its message.
func (s *Set) byPack(msg string) (string, bool) {
	line := packs.Line{Message: msg, Program: s.h.app, Host: s.h.host, ID: s.h.id, Data: s.h.sd}
	if s.h.app != "" {
		if name, ok := s.tryRefs(s.packs.ByProgram(s.h.app), &line); ok {
			return name, true
		}
		if name, ok := s.tryRefs(s.packs.ByProgramStart(s.h.app), &line); ok {
			return name, true
		}
	}
	if name, ok := s.tryRefs(s.packs.ByStart(msg[0], msg[1]), &line); ok {
		return name, true
	}
	if i := jsonStart(msg); i >= 0 {
		line.Message = msg[i:]
		s.packs.JSON(&s.run.find, line.Message)
		return s.tryFound(&line)
	}
	return "", false
}

// byPackInside tries the packs whose mark stands anywhere in the message. code says which of the texts packs.Code may stand in it, a bit each.
func (s *Set) byPackInside(msg string) (name string, code uint64, ok bool) {
	line := packs.Line{Message: msg, Program: s.h.app, Host: s.h.host, ID: s.h.id, Data: s.h.sd}
	s.packs.Inside(&s.run.find, msg, s.h.sd)
	code = s.run.find.Code()
	name, ok = s.tryFound(&line)
	return name, code, ok
}

func (s *Set) tryFound(line *packs.Line) (string, bool) {
	for f := s.run.find.Next(line); f != nil; f = s.run.find.Next(line) {
		if s.runPack(f.Pack, line.Message) {
			return f.Pack.Name, true
		}
	}
	return "", false
}

func (s *Set) tryRefs(refs []*packs.Ref, line *packs.Line) (string, bool) {
	for _, f := range refs {
		if f.Fits(line) && s.runPack(f.Pack, line.Message) {
			return f.Pack.Name, true
		}
	}
	return "", false
}

// jsonStart gives the place of the JSON object that a message is, or that follows a few words; -1 when there is none.
func jsonStart(msg string) int {
	if msg[0] == '{' {
		return 0
	}
	i := strings.IndexByte(msg[:min(len(msg), 300)], '{')
	if i < 0 || i+1 >= len(msg) || msg[i+1] != '"' && msg[i+1] != ' ' && msg[i+1] != '\n' {
		return -1
	}
	return i
}

// runPack reads a message with a pack. When it answers false the event is as it was before.
func (s *Set) runPack(p *packs.Pack, msg string) bool {
	if p.Code != "" {
		return false
	}
	r := &s.run
	r.slots.Clear()
	r.turn++
	r.direct, r.extra = false, 0
	r.pack, r.n, r.odd, r.header, r.cef, r.name, r.words = p, 0, 0, false, "", "", ""
	// What a line may cost grows with its length alone, however many packs and patterns there are (see package packs).
	if s.fuelFor != s.e {
		r.fuel, s.fuelFor = packFuel+len(msg), s.e
	}
	s.weak = ""
	ok := false
	if p.Zone == nil {
		ok = s.packRead(p, msg)
	} else {
		ok = s.packReadIn(p, msg)
	}
	r.pack = nil
	if !ok {
		s.undo()
	}
	return ok
}

// packReadIn is packRead for a pack whose times without a zone are of one that it names.
func (s *Set) packReadIn(p *packs.Pack, msg string) bool {
	utc, loc, zone, past := s.utc, s.loc, s.zone, s.past
	if p.Zone == time.UTC {
		s.utc = true
	} else {
		s.loc, s.zone, s.past = p.Zone, zoneCache{}, zoneCache{}
	}
	ok := s.packRead(p, msg)
	s.utc, s.loc, s.zone, s.past = utc, loc, zone, past
	return ok
}

// packFuel is what all patterns and conditions together may cost on one line, in units of 32 bytes looked at.
const packFuel = 40000

func (s *Set) packRead(p *packs.Pack, msg string) bool {
	r := &s.run
	for i := range p.Special {
		x := &p.Special[i]
		if v := s.special(x.From, msg); v != "" {
			r.slots.Put(x.Slot, v)
			r.spans[x.Slot&(maxSpans-1)] = span{1, 0}
			r.extra |= 1 << (i & 63)
		}
	}
	s.recipes.notes.written = nil
	steps, done, whole := p.Read, false, false
	var end *trailEnd
	if mayTrail(p) {
		var ok, read bool
		if end, ok, read = s.trail(p, msg); read {
			if !ok && !p.Read[0].Optional {
				return false
			}
			steps = steps[1:]
		}
	}
	if end != nil {
		if done, whole = s.recallTrail(p, msg, end); whole {
			return true
		}
		if !done {
			s.spreadAll(msg, end)
		}
		steps = nil // what they would read is not there
	}
	for i := range steps {
		st := &steps[i]
		if st.Optional && r.slots.Get(st.In) == "" { // nothing to take apart
			continue
		}
		if !s.step(st, msg) && !st.Optional {
			return false
		}
	}
	if r.header {
		s.headerDone(p)
		return true
	}
	e := s.e
	if end == nil {
		if done, whole = s.recall(p); whole {
			s.packOthers(p)
			return true
		}
	}
	if !done && !s.decideAll(p, msg) {
		return false
	}
	if !e.SetGroup(p.About) {
		s.device(p.Vendor, p.Product, p.Kind)
		if !e.Has(event.EventDataset) {
			e.SetString(event.EventDataset, p.Dataset)
		}
		e.SetString(event.EventModule, p.Module)
	}
	if r.words != "" && !(e.Has(event.SourceIP) && e.Has(event.UserName)) {
		s.words(r.words)
		s.signInWords(r.words)
	}
	s.packOthers(p)
	alike := r.odd == 0 && r.words == "" && (p.Others == packs.OthersKeep || p.Others == packs.OthersDrop)
	if e.Has(event.TocsinVerdict) && e.Has(event.DestinationIP) && !e.Has(event.EventCategory) {
		s.network()
		alike = false
	}
	s.str(event.EventKind, "event")
	if s.recipes.notes.written != nil {
		s.learn(p, alike)
	}
	return true
}

// decideAll chooses the message and does what it and the pack say of the values. It answers false when the line is not the pack's.
func (s *Set) decideAll(p *packs.Pack, msg string) bool {
	r := &s.run
	s.note()
	var m *packs.Message
search:
	for i := range p.Messages {
		c := &p.Messages[i]
		if !s.conds(c.When) {
			continue
		}
		if len(c.Read) > 0 { // it may give values that the next line does not have before a message is chosen
			s.recipes.notes.on = false
		}
		for j := range c.Read {
			if !s.step(&c.Read[j], msg) && !c.Read[j].Optional {
				continue search
			}
		}
		m = c
		break
	}
	if m == nil && p.Strict || r.fuel < 0 {
		s.recipes.notes.on = false
		return false
	}
	if m != nil {
		s.ops(&m.Fields)
	}
	s.ops(&p.Fields)
	if m != nil {
		s.rules(m.Rules)
	}
	s.rules(p.Rules)
	if n := &s.recipes.notes; n.on {
		n.on, n.written = false, s.write()
	}
	return true
}

func (s *Set) special(k packs.SpecialKind, msg string) string {
	switch k {
	case packs.SpecialMessage:
		return msg
	case packs.SpecialProgram:
		return s.h.app
	case packs.SpecialHost:
		return s.h.host
	case packs.SpecialPID:
		return s.h.pid
	case packs.SpecialID:
		return s.h.id
	case packs.SpecialData:
		return s.h.sd
	}
	return trimLine(s.line)
}

// packOthers deals with the names that the pack does not speak of.
func (s *Set) packOthers(p *packs.Pack) {
	r := &s.run
	if p.Others == packs.OthersDictionary || p.Others == packs.OthersNative {
		if p.Others == packs.OthersNative {
			s.natives(p)
		}
		if r.cef != "" {
			s.cefExtension(r.cef, r.name)
			return
		}
		first := len(s.e.Extras()) == 0
		for i := range r.others[:r.n] {
			o := &r.others[i]
			if o.leaf > 0 {
				if !s.genericPath(o.name, o.name[o.leaf:], jsonValue{raw: o.value, kind: 's'}) {
					s.extra(o.name, o.value)
				}
			} else if !o.plain {
				if !s.generic(o.name, o.value) {
					s.extra(o.name, o.value)
				}
			} else if !s.genericNorm(o.norm, o.value) {
				s.plainExtra(o, first)
			}
		}
		s.genericDone(p.Dataset)
		return
	}
	first := len(s.e.Extras()) == 0 // nothing can have taken a name before
	for i := range r.others[:r.n] {
		if o := &r.others[i]; o.plain {
			s.plainExtra(o, first)
		} else {
			s.extra(o.name, o.value)
		}
	}
}

// plainExtra is extra for a name that is known to be good for one. first says that all extras are of names that the pack does not speak of.
func (s *Set) plainExtra(o *pair, first bool) {
	switch {
	case empty(o.value):
	case first && o.fresh:
		s.e.AddExtra(o.name, o.value)
	default:
		s.e.SetExtra(o.name, o.value)
	}
}

// natives keeps every name of the line as it stood, also those that the pack maps or the dictionary knows. Sigma's rules for such sources name
// them, without the blanks that some have.
func (s *Set) natives(p *packs.Pack) {
	e, r := s.e, &s.run
	keep := func(name, v string) {
		if v != "" && len(e.Extras()) < event.MaxExtras && extraName(name) {
			e.SetNamed(name, v)
		}
	}
	for i := range p.Natives {
		n := &p.Natives[i]
		keep(n.Name, r.slots.Get(n.Slot))
	}
	for i := range r.others[:r.n] {
		o := &r.others[i]
		name := o.name
		if strings.IndexByte(name, ' ') >= 0 {
			name = strings.ReplaceAll(name, " ", "")
		}
		keep(name, o.value)
	}
}

// other remembers a name that the pack does not speak of.
func (s *Set) other(name, v string, leaf int) {
	r := &s.run
	if r.n < packMaxOthers && r.pack.Others != packs.OthersDrop && v != "" {
		r.others[r.n] = pair{name: name, value: v, leaf: leaf}
		r.n++
		r.odd++
	}
}

// owns says whether the pack at work has mapped a native name itself, so that the dictionary must leave it alone.
func (s *Set) owns(name string) bool {
	p := s.run.pack
	if p == nil {
		return false
	}
	slot, ok := p.Names.Slot(name)
	return ok && p.Mapped[slot]
}

// take puts a native value where the pack wants it; the first of two with one name counts. It answers whether the pack maps it.
func (s *Set) take(name, v string) bool {
	p := s.run.pack
	slot, ok := p.Names.Slot(name)
	if !ok {
		return false
	}
	s.run.slots.First(int(slot), v)
	return p.Mapped[slot]
}

// conds says whether one of the alternatives holds.
func (s *Set) conds(any packs.Conds) bool {
	if len(any) == 0 {
		return true
	}
	for _, all := range any {
		if s.all(all) {
			return true
		}
	}
	return false
}

func (s *Set) all(all []packs.Cond) bool {
	r := &s.run
	for i := range all {
		c := &all[i]
		v := ""
		if n := &s.recipes.notes; n.on && c.Kind != packs.CondPresent {
			if c.Slot >= 0 {
				n.slots.Add(c.Slot)
			} else {
				n.fields = append(n.fields, c.Key)
			}
		}
		if c.Slot >= 0 {
			v = r.slots.Get(c.Slot)
		} else if c.Kind == packs.CondIs || c.Kind == packs.CondPresent {
			// A list field fulfils the comparison when one of its values does.
			if s.condField(c) {
				continue
			}
			return false
		} else {
			v = s.e.Str(c.Key)
		}
		r.fuel--
		if c.Kind == packs.CondContains {
			for _, w := range c.Values {
				r.fuel -= 1 + min(len(v), 4096)*len(w)>>8
			}
		} else {
			r.fuel -= len(c.Values) >> 2
		}
		if r.fuel < 0 || !c.Holds(v) {
			return false
		}
	}
	return true
}

func (s *Set) condField(c *packs.Cond) bool {
	s.run.fuel -= 1 + len(c.Values)
	if s.run.fuel < 0 {
		return false
	}
	if c.Kind == packs.CondPresent {
		return s.e.Has(c.Key) != c.Not
	}
	v, ok := s.e.Get(c.Key)
	if !ok {
		return c.Not
	}
	t := v.Str()
	if v.Kind() != event.String {
		t = v.Text()
	}
	list := c.Key == event.EventCategory || c.Key == event.EventType || c.Key == event.Tags // what packs can give several values
	for _, w := range c.Values {
		if t == w || list && s.e.HasString(c.Key, w) {
			return !c.Not
		}
	}
	return c.Not
}

// extra keeps a native name that nothing knows, as a string. Names that the collector and the hub vouch for cannot be set so.
func (s *Set) extra(name, v string) {
	if len(s.e.Extras()) < event.MaxExtras && !empty(v) && !s.owns(name) && extraName(name) {
		s.e.SetNamed(name, v)
	}
}

// extraName says whether a name from a line is one that pages and exports can show: printable, no quotes or blanks, and not one for which
// the collector or the hub vouch.
func extraName(name string) bool {
	if name == "" || len(name) > 128 || strings.HasPrefix(name, "event.") || strings.HasPrefix(name, "tocsin") || strings.HasPrefix(name, "observer.") {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c == '"' || c == '\\' || c == '=' || c >= 0x7f {
			return false
		}
	}
	return true
}
