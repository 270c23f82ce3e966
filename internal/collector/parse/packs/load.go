package packs

import (
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"tocsin/internal/event"
)

// The descriptions and the documentation of all products that the program knows from the start.
//
//go:embed */parser.yaml */README.md
var builtin embed.FS

var builtinSet = sync.OnceValues(func() (*Set, error) { return Load(builtin) })

// Builtin gives the packs that are part of the program. They are tested, so a fault in one is a fault of the program.
func Builtin() *Set {
	s, err := builtinSet()
	if err != nil {
		panic(err)
	}
	return s
}

// Load reads every folder of fsys that holds a parser.yaml. The first fault is the answer, as *Error: a set is taken whole or not at all.
func Load(fsys fs.FS) (*Set, error) {
	names, err := fs.Glob(fsys, "*/parser.yaml")
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("no folder with a parser.yaml")
	}
	if len(names) > MaxPacks {
		return nil, fmt.Errorf("%d parser packs; at most %d are taken", len(names), MaxPacks)
	}
	list := make([]*Pack, len(names))
	for i, name := range names {
		if list[i], err = LoadOne(fsys, path.Dir(name)); err != nil {
			return nil, err
		}
	}
	return NewSet(list...)
}

// LoadOne reads one folder.
func LoadOne(fsys fs.FS, dir string) (*Pack, error) {
	file := path.Join(dir, "parser.yaml")
	text, err := readFile(fsys, file, maxFile)
	if err != nil {
		return nil, err
	}
	p, err := Compile(file, text)
	if err != nil {
		return nil, err
	}
	if p.Name != path.Base(dir) {
		return nil, &Error{File: file, Reason: fmt.Sprintf("name is %q, but the folder is called %q", p.Name, path.Base(dir))}
	}
	readme, err := readFile(fsys, path.Join(dir, "README.md"), maxReadme)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p.Readme = string(readme)
	return p, nil
}

func readFile(fsys fs.FS, name string, most int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, &Error{File: name, Reason: fmt.Sprintf("has %d bytes; at most %d are taken", info.Size(), most)}
	}
	return fs.ReadFile(fsys, name)
}

// Compile reads one description. The error is an *Error.
func Compile(file string, text []byte) (p *Pack, err error) {
	r := &reader{file: file}
	defer func() {
		if x := recover(); x != nil {
			e, ok := x.(*Error)
			if !ok {
				// A mistake of ours, or of the YAML library, must not take the collector down with a pack.
				e = &Error{File: file, Reason: fmt.Sprintf("cannot be read: %v", x)}
			}
			p, err = nil, e
		}
	}()
	c := &compiler{reader: r, pack: &Pack{Digest: sha256.Sum256(text)}, slots: map[string]int{}, tables: map[string]*Table{}}
	c.pack.Seed = binary.LittleEndian.Uint64(c.pack.Digest[:])
	c.description(r.tree(text))
	return c.pack, nil
}

// compiler turns one description into a Pack.
type compiler struct {
	*reader
	pack   *Pack
	slots  map[string]int
	tables map[string]*Table
	fold   bool
	open   bool // a form with names that the description need not list
	made   map[string]bool
	asked  []asked // names that must have been captured by the end
	ops    int
	rules  int
	rows   int
	fresh  int // names that the schema does not have
}

type asked struct {
	node *yaml.Node
	name string
}

func (c *compiler) description(n *yaml.Node) {
	p := c.pack
	c.made = map[string]bool{}
	var recognise, read, fields, messages, rules, set, tables *yaml.Node
	format := 0
	for _, kv := range c.pairs(n, "a parser's description") {
		k, v := kv[0], kv[1]
		switch k.Value {
		case "format":
			if format = c.number(v, "format"); format != 1 {
				c.fail(v, "format %d is not known here; this program reads format 1", format)
			}
		case "name":
			p.Name = c.name(v, "name")
		case "version":
			if p.Version = c.number(v, "version"); p.Version < 1 {
				c.fail(v, "version must be 1 or more")
			}
		case "vendor":
			p.Vendor = c.literal(v, "vendor")
		case "product":
			p.Product = c.literal(v, "product")
		case "type":
			p.Kind = c.literal(v, "type")
		case "dataset":
			p.Dataset = c.literal(v, "dataset")
		case "zone":
			p.Zone = c.zone(v)
		case "code":
			p.Code = c.name(v, "code")
		case "ignore-case":
			c.fold = c.yes(v, "ignore-case")
		case "strict":
			p.Strict = c.yes(v, "strict")
		case "others":
			switch c.text(v, "others") {
			case "keep":
				p.Others = OthersKeep
			case "dictionary":
				p.Others = OthersDictionary
			case "drop":
				p.Others = OthersDrop
			case "native":
				p.Others = OthersNative
			default:
				c.fail(v, "others must be keep, dictionary, native or drop")
			}
		case "recognise":
			recognise = v
		case "tables":
			tables = v
		case "read":
			read = v
		case "fields":
			fields = v
		case "messages":
			messages = v
		case "rules":
			rules = v
		case "set":
			set = v
		default:
			c.fail(k, "there is no %q in a description; known are format, name, version, vendor, product, type, dataset, zone, code, ignore-case, strict, others, recognise, tables, read, fields, messages, rules, set", k.Value)
		}
	}
	switch {
	case format == 0:
		c.fail(n, "format: 1 is missing")
	case p.Name == "":
		c.fail(n, "name is missing")
	case p.Version == 0:
		c.fail(n, "version is missing")
	case p.Vendor == "":
		c.fail(n, "vendor is missing")
	}
	if p.Code != "" {
		if read != nil || fields != nil || messages != nil || rules != nil || set != nil || recognise != nil || tables != nil {
			c.fail(n, "code: the parser is written in Go, so the description says nothing but name, version, vendor, product, type and dataset")
		}
		return
	}
	if p.Dataset == "" {
		c.fail(n, "dataset is missing (for example acme.firewall)")
	}
	p.Module = p.Dataset
	for i := range p.Dataset {
		if p.Dataset[i] == '.' {
			p.Module = p.Dataset[:i]
			break
		}
	}
	p.About = event.NewGroup([]event.Key{event.ObserverVendor, event.ObserverProduct, event.ObserverType, event.EventDataset, event.EventModule},
		p.Vendor, p.Product, p.Kind, p.Dataset, p.Module)
	p.Names = newNames(c.fold)
	if recognise == nil {
		c.fail(n, "recognise is missing: say how a line of this product is known")
	}
	c.recognise(recognise)
	if tables != nil {
		c.valueTables(tables)
	}
	if read == nil && messages == nil {
		c.fail(n, "read is missing: say in which form the line is (kv, columns, json, cef, leef, xml or line)")
	}
	p.Read = c.steps(read)
	if fields != nil {
		p.Fields.List = c.fields(fields)
	}
	p.Rules = c.rulesOf(rules, set)
	if messages != nil {
		for _, m := range c.items(messages) {
			p.Messages = append(p.Messages, c.message(m))
		}
		if len(p.Messages) > maxMessages {
			c.fail(messages, "has %d messages; at most %d are taken", len(p.Messages), maxMessages)
		}
	}
	if p.Strict && len(p.Messages) == 0 {
		c.fail(n, "strict: true needs messages; without any, every line would be refused")
	}
	for _, a := range c.asked {
		if !c.open && !c.made[a.name] {
			c.fail(a.node, "nothing reads a value called %q", a.name)
		}
	}
	p.Mapped = make([]bool, len(p.Slots))
	p.finish(&p.Fields, p.Rules)
	for i := range p.Messages {
		p.finish(&p.Messages[i].Fields, p.Messages[i].Rules)
	}
	for name, slot := range c.slots {
		if kind, ok := specials[name]; ok {
			p.Special = append(p.Special, Special{slot, kind})
		} else {
			p.Names.add(name, uint16(slot))
			if p.Others == OthersNative && p.Mapped[slot] {
				p.Natives = append(p.Natives, Native{strings.ReplaceAll(name, " ", ""), slot})
			}
		}
	}
	slices.SortFunc(p.Natives, func(a, b Native) int { return a.Slot - b.Slot })
}

// name is lower-case letters, digits and hyphens.
func (c *compiler) name(n *yaml.Node, what string) string {
	s := c.literal(n, what)
	for i := 0; i < len(s); i++ {
		if b := s[i]; !(b-'a' <= 25 || b-'0' <= 9 || b == '-' && i > 0) {
			c.fail(n, "%s %q: only lower-case letters, digits and hyphens", what, s)
		}
	}
	if len(s) > 40 {
		c.fail(n, "%s %q: at most 40 letters", what, s)
	}
	return s
}

func (c *compiler) zone(n *yaml.Node) *time.Location {
	s := c.text(n, "zone")
	if s == "sender" || s == "" {
		return nil
	}
	if s == "UTC" {
		return time.UTC
	}
	l, err := time.LoadLocation(s)
	if err != nil {
		c.fail(n, "no time zone is called %q; use a name such as Europe/London, UTC or sender", s)
	}
	return l
}

// slot gives the number of a native name.
func (c *compiler) slot(name string) int {
	if i, ok := c.slots[name]; ok {
		return i
	}
	if len(c.slots) >= MaxSlots {
		c.fail(nil, "speaks of more than %d native names", MaxSlots)
	}
	i := len(c.slots)
	c.slots[name] = i
	c.pack.Slots = append(c.pack.Slots, name)
	return i
}

// capture is slot for a name that a step gives a value.
func (c *compiler) capture(name string) int {
	c.made[name] = true
	return c.slot(name)
}

// use is slot for a name that must get its value from somewhere.
func (c *compiler) use(n *yaml.Node, name string) int {
	if name == "" || len(name) > maxLiteral {
		c.fail(n, "a native name must have 1 to %d bytes", maxLiteral)
	}
	if _, ok := specials[name]; !ok {
		if name[0] == '.' {
			c.fail(n, "there is no %q; known are .message, .program, .host, .pid, .id, .data and .line", name)
		}
		c.asked = append(c.asked, asked{n, name})
	}
	return c.slot(name)
}

// finish notes the slots that ops use, and makes the lists ready to be gone through.
func (p *Pack) finish(ops *Ops, rules []Rule) {
	*ops = newOps(ops.List, len(p.Slots))
	for i := range ops.List {
		op := &ops.List[i]
		for _, slot := range [...]int{op.Slot, op.ZoneSlot} {
			if slot >= 0 {
				p.Mapped[slot] = true
			}
		}
		for _, piece := range op.Join {
			if piece.Slot >= 0 {
				p.Mapped[piece.Slot] = true
			}
		}
	}
	for i := range rules {
		p.finish(&rules[i].Ops, nil)
	}
}
