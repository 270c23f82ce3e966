package packs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"tocsin/internal/collector/parse/find"
)

// Set is packs that are in use together, with what is needed to find the one that a line belongs to. It is never changed.
type Set struct {
	packs  []*Pack
	byName map[string]*Pack

	program  map[string][]*Ref // by the program's name in the header
	programs [256][]*Ref       // by the start of it, by its first byte
	starts   [256]starts       // by the first byte of the message
	cef      map[string][]*Ref // by vendor, in lower case
	leef     map[string][]*Ref
	vendors  []*Ref // CEF and LEEF vendors by the start of their name
	json     *index // messages that hold a JSON object
	inside   *index // by a text anywhere in the message
	digest   string
}

// Code is the texts by which the parsers in Go know messages that are no pack's. The walk that seeks the packs' texts finds them too (Finder.Code).
var Code = [...]string{"SRC=", "CEF:", "LEEF:", "[FILTER]", "[CSM_", "NetScreen device_id=", "RT_", "loguid", "<EventID", "AccessControlRuleAction: ", " proto "}

// starts is the ways to recognise that look at a message's start, of one first byte: lists by the second.
type starts struct {
	lists [][]*Ref
	list  [256]uint16 // by the second byte
}

// Ref is one way to recognise a pack's lines: all its conditions hold.
type Ref struct {
	Pack *Pack

	program   string
	progStart bool
	host      string
	hostStart bool
	id        string
	starts    string
	contains  []string
	lacks     []string
	json      []string // `"name"`
	isJSON    bool
	cef       string // vendor
	leef      string
	product   string
	vendStart bool
	prodStart bool
	priority  int
}

// Line is what Fits looks at.
type Line struct {
	Message, Program, Host, ID, Data string
}

// Fits says whether all conditions hold on the line.
func (f *Ref) Fits(l *Line) bool { return f.head(l) && f.texts(l) }

// head says whether the conditions hold that look at the header and at the message's start.
func (f *Ref) head(l *Line) bool {
	if f.program != "" {
		if f.progStart {
			if !strings.HasPrefix(l.Program, f.program) {
				return false
			}
		} else if l.Program != f.program {
			return false
		}
	}
	if f.starts != "" && !strings.HasPrefix(l.Message, f.starts) {
		return false
	}
	if f.host != "" && (f.hostStart && !foldPrefix(l.Host, f.host) || !f.hostStart && !foldEqual(l.Host, f.host)) {
		return false
	}
	return f.id == "" || l.ID == f.id
}

// texts says whether the conditions hold on what stands in the message.
func (f *Ref) texts(l *Line) bool {
	for _, c := range f.json {
		if !find.Has(l.Message, c) {
			return false
		}
	}
	return f.rest(l, f.contains)
}

// rest is texts where of those that must occur only some are still to be sought.
func (f *Ref) rest(l *Line, contains []string) bool {
	for _, c := range contains {
		if !find.Has(l.Message, c) && (l.Data == "" || !find.Has(l.Data, c)) {
			return false
		}
	}
	for _, c := range f.lacks {
		if find.Has(l.Message, c) {
			return false
		}
	}
	return true
}

// vendor says whether a CEF or LEEF header is the one meant.
func (f *Ref) vendor(vendor, product string) bool {
	v := f.cef + f.leef
	if f.vendStart && !foldPrefix(vendor, v) || !f.vendStart && !foldEqual(vendor, v) {
		return false
	}
	if f.product == "" {
		return true
	}
	return f.prodStart && foldPrefix(product, f.product) || !f.prodStart && foldEqual(product, f.product)
}

// NewSet joins packs. Of two with one name the later counts, so that a pack from the hub takes the place of the one in the program.
func NewSet(list ...*Pack) (*Set, error) {
	s := &Set{byName: map[string]*Pack{}, program: map[string][]*Ref{}, cef: map[string][]*Ref{}, leef: map[string][]*Ref{}}
	for _, p := range list {
		s.byName[p.Name] = p
	}
	if len(s.byName) > MaxPacks {
		return nil, fmt.Errorf("%d parser packs; at most %d are taken", len(s.byName), MaxPacks)
	}
	for _, p := range s.byName {
		s.packs = append(s.packs, p)
	}
	sort.Slice(s.packs, func(i, j int) bool { return s.packs[i].Name < s.packs[j].Name })
	var refs []*Ref
	h := sha256.New()
	for _, p := range s.packs {
		refs = append(refs, p.recognise...)
		h.Write(p.Digest[:])
	}
	s.digest = hex.EncodeToString(h.Sum(nil))
	if len(refs) > MaxPacks*maxRecognise {
		return nil, fmt.Errorf("the parser packs have %d ways to recognise a line; at most %d are taken", len(refs), MaxPacks*maxRecognise)
	}
	sort.SliceStable(refs, func(i, j int) bool { return refs[i].priority > refs[j].priority })
	var json, inside []*Ref
	var byStart [256][]*Ref
	for _, f := range refs {
		switch {
		case f.cef != "" && f.vendStart, f.leef != "" && f.vendStart:
			s.vendors = append(s.vendors, f)
		case f.cef != "":
			v := strings.ToLower(f.cef)
			s.cef[v] = append(s.cef[v], f)
		case f.leef != "":
			v := strings.ToLower(f.leef)
			s.leef[v] = append(s.leef[v], f)
		case f.program != "" && !f.progStart:
			s.program[f.program] = append(s.program[f.program], f)
		case f.program != "":
			s.programs[f.program[0]] = append(s.programs[f.program[0]], f)
		case f.starts != "":
			byStart[f.starts[0]] = append(byStart[f.starts[0]], f)
		case f.isJSON:
			json = append(json, f)
		default:
			inside = append(inside, f)
		}
	}
	for b, list := range byStart {
		s.starts[b].fill(list)
	}
	s.json = newIndex(json, true)
	s.inside = newIndex(inside, false, Code[:]...)
	return s, nil
}

// With gives a set in which the given packs stand beside the old, or in their place where a name is the same.
func (s *Set) With(list ...*Pack) (*Set, error) {
	return NewSet(append(append([]*Pack(nil), s.packs...), list...)...)
}

// Packs are all packs, by name.
func (s *Set) Packs() []*Pack { return s.packs }

// Pack gives the pack of that name, or nil.
func (s *Set) Pack(name string) *Pack { return s.byName[name] }

// Digest names the state of the set: SHA-256 over the descriptions, in hex.
func (s *Set) Digest() string { return s.digest }

// Versions gives name=version of all packs that are data, for manifests and pages.
func (s *Set) Versions() []string {
	var out []string
	for _, p := range s.packs {
		if p.Code == "" {
			out = append(out, p.Name+"="+strconv.Itoa(p.Version))
		}
	}
	return out
}

// ByProgram gives the ways to recognise a line by its program.
func (s *Set) ByProgram(name string) []*Ref {
	if name == "" {
		return nil
	}
	return s.program[name]
}

// ByProgramStart gives those that look at the start of the program's name.
func (s *Set) ByProgramStart(name string) []*Ref {
	if name == "" {
		return nil
	}
	return s.programs[name[0]]
}

// ByStart gives those whose message begins with the two bytes.
func (s *Set) ByStart(a, b byte) []*Ref {
	x := &s.starts[a]
	if len(x.lists) == 0 {
		return nil
	}
	return x.lists[x.list[b]]
}

// fill takes up the refs of one first byte, in the order in which they are to be tried.
func (x *starts) fill(refs []*Ref) {
	if len(refs) == 0 {
		return
	}
	var any []*Ref // those that do not mind the second byte
	for _, f := range refs {
		if len(f.starts) == 1 {
			any = append(any, f)
		}
	}
	x.lists = [][]*Ref{any}
	for _, f := range refs {
		if len(f.starts) == 1 || x.list[f.starts[1]] != 0 {
			continue
		}
		var list []*Ref
		for _, g := range refs {
			if len(g.starts) == 1 || g.starts[1] == f.starts[1] {
				list = append(list, g)
			}
		}
		x.list[f.starts[1]] = uint16(len(x.lists))
		x.lists = append(x.lists, list)
	}
}

// JSON seeks the packs that may know a message that holds a JSON object.
func (s *Set) JSON(f *Finder, msg string) { f.Seek(s.json, msg, "") }

// Inside seeks those that are recognised by a text in the message or in its structured data.
func (s *Set) Inside(f *Finder, msg, data string) { f.Seek(s.inside, msg, data) }

// ByVendor finds the pack for a CEF (or LEEF) header, or nil. line is looked at for further conditions.
func (s *Set) ByVendor(leef bool, vendor, product string, line *Line) *Pack {
	m := s.cef
	if leef {
		m = s.leef
	}
	if len(m) > 0 && len(vendor) <= 64 {
		var a [64]byte
		for i := 0; i < len(vendor); i++ {
			c := vendor[i]
			if c-'A' <= 25 {
				c |= 0x20
			}
			a[i] = c
		}
		for _, f := range m[string(a[:len(vendor)])] {
			if f.vendor(vendor, product) && f.Fits(line) {
				return f.Pack
			}
		}
	}
	for _, f := range s.vendors {
		if (f.leef != "") == leef && f.vendor(vendor, product) && f.Fits(line) {
			return f.Pack
		}
	}
	return nil
}
