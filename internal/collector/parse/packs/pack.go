package packs

import (
	"slices"
	"time"

	"tocsin/internal/event"
)

// Pack is one product's compiled description. It is never changed after it was loaded, so any number of goroutines may use it.
type Pack struct {
	Name    string       // of the format, as hints and docs write it
	Version int          // rises with every change
	Vendor  string       // observer.vendor
	Product string       // observer.product
	Kind    string       // observer.type
	Dataset string       // event.dataset
	Module  string       // event.module: the dataset up to its dot
	About   *event.Group // the five above
	Code    string       // name of the parser in Go that reads this product; then there is nothing else but documentation
	Readme  string
	Digest  [32]byte // SHA-256 of parser.yaml
	Seed    uint64   // a number of its own, for hashing

	Zone *time.Location // of times without one; nil: the sender's

	Slots    []string // native names by number
	Mapped   []bool   // whether an op uses the slot, by number
	Names    *Names
	Read     []Step
	Fields   Ops
	Rules    []Rule
	Messages []Message
	Others   Others
	Strict   bool // a line that fits no message is not this product's
	Special  []Special
	Natives  []Native // with OthersNative: the names that are mapped

	recognise []*Ref
}

// Native is the name of a slot.
type Native struct {
	Name string // without blanks
	Slot int
}

// Others says what becomes of names that the description does not speak of.
type Others uint8

// The choices for Others.
const (
	OthersKeep       Others = iota // kept under their own name, at most 64 an event
	OthersDictionary               // read through the dictionary of common names, else kept
	OthersDrop                     // left out
	OthersNative                   // as with the dictionary, and every name, a mapped one too, is kept beside: for sources whose rules name them
)

// Message is one variant of a product's lines.
type Message struct {
	Name   string
	When   Conds
	Read   []Step
	Fields Ops
	Rules  []Rule
}

// StepKind is a form of text.
type StepKind uint8

// The forms a step can read.
const (
	StepLine StepKind = iota
	StepKV
	StepColumns
	StepJSON
	StepCEF
	StepLEEF
	StepXML
	StepAny
)

// Step reads one text (the message, or a value read before) into slots.
type Step struct {
	Kind     StepKind
	In       int    // slot of the text to read
	After    string // the text begins behind the first of these
	Optional bool   // goes on when the text has another form

	Any []Step // any: the first that fits

	Patterns []Pattern // line

	Pairs    string   // kv: what separates pairs, "" for blanks, commas and semicolons
	Equals   string   // kv: what stands between name and value
	Bare     bool     // kv: values without quotes may hold blanks
	Prefix   string   // kv, json: cut from the names
	Prefixes []string // cef: cut from the names
	Mark     string   // cef: put before names that had none of Prefixes, where the description knows the name so

	Delimiter byte     // columns
	Quote     byte     // columns; 0 for none
	Columns   []int    // slot by column; -1 when it is not wanted
	Min       int      // columns that must be there
	Header    []string // starts of a line whose rest names the columns of those behind it
	Titles    []string // starts of a line that is itself the list of names
	Marks     []Mark   // lines that give a value to those behind them

	Lists []NameValue // json: arrays of name and value
}

// Mark is the start of a line whose rest is a value of all lines behind it ("#path<TAB>conn").
type Mark struct {
	Text string
	Slot int
}

// NameValue is a JSON array of {"name": n, "value": v}, read as if it were an object at Path.
type NameValue struct{ Path, Name, Value string }

// Verb says what an Op does with a value.
type Verb uint8

// The verbs. VerbField sets one field as its kind asks; the others know more of what a value means.
const (
	VerbField Verb = iota
	VerbText       // a string as it stands
	VerbLower      // a string in lower case
	VerbInt
	VerbIP   // an address, perhaps with a port that is left out
	VerbPort // 1 to 65535
	VerbDomain
	VerbMAC
	VerbTime
	VerbTimeField // a time into a field of that kind
	VerbAction
	VerbVerdict
	VerbOutcome
	VerbUser   // of any user field: the words that mean nobody are left out
	VerbSource // address and port in one
	VerbDestination
	VerbSourceNAT
	VerbDestinationNAT
	VerbTransport // name or IANA number; a name that is none becomes network.protocol
	VerbService   // "tcp/https"
	VerbURL
	VerbMethod
	VerbHash
	VerbLevel // words for a severity
	VerbDuration
	VerbDurationMS
	VerbFile     // name, or path and name
	VerbSentence // event message, searched for who signed in from where
	VerbKeep     // under its own name
	VerbDrop
	// Only with constants.
	VerbSignIn
	VerbAlert
	VerbNetwork
	VerbSession
	VerbAdd // one more value of a list field
	VerbConst
)

// Op is one thing done with one value.
type Op struct {
	Verb Verb
	Key  event.Key
	Slot int     // where the value is; -1: Const or Join
	Join []Piece // pieces of a value made of several

	After, Before string // the value is cut to what stands behind, and before, these
	Last          bool   // behind the last After instead of the first
	Table         *Table
	When          Conds
	Plain         bool // nothing is to be done with the value before the verb
	Free          bool // it only sets fields from its values, and no other op or rule asks what they are (see newOps)
	Layout        Layout
	ZoneSlot      int // slot with the zone of a time; -1
	Const         event.Value
	Text          string // constant of a verb
	Name          string // native name, for VerbKeep
}

// Piece is a literal or a slot.
type Piece struct {
	Text string
	Slot int // -1 for a literal
}

// Layout is how a time is written.
type Layout struct {
	Kind LayoutKind
	Go   string
}

// LayoutKind is a family of time notations.
type LayoutKind uint8

// The families. LayoutAuto knows the notations that devices use.
const (
	LayoutAuto LayoutKind = iota
	LayoutUnix
	LayoutUnixMS
	LayoutUnixUS
	LayoutUnixNS
	LayoutFileTime
	LayoutDayFirst
	LayoutMonthFirst
	LayoutGo
)

// Rule does its ops when its conditions hold.
type Rule struct {
	When Conds
	Ops  Ops
}

// Conds is an "any of" of "all of"; none at all holds always.
type Conds [][]Cond

// CondKind is how a value is compared; letters without regard to case.
type CondKind uint8

// The comparisons.
const (
	CondIs CondKind = iota
	CondStarts
	CondEnds
	CondContains
	CondPresent
	CondRange
)

// Cond is one comparison of a slot or a field.
type Cond struct {
	Slot   int       // -1: Key
	Key    event.Key // a field as it stands by then
	Kind   CondKind
	Values []string // any of
	Lo, Hi int64
	Not    bool
	Absent bool   // whether it holds when there is no value
	set    *Names // of CondIs with many values
}

// Holds says whether v fulfils the comparison.
func (c *Cond) Holds(v string) bool {
	if v == "" {
		return c.Absent
	}
	return c.holds(v) != c.Not
}

func (c *Cond) holds(v string) bool {
	switch c.Kind {
	case CondPresent:
		return v != ""
	case CondRange:
		n, ok := number(v)
		return ok && n >= c.Lo && n <= c.Hi
	}
	if c.set != nil {
		_, ok := c.set.Slot(v)
		return ok
	}
	for _, w := range c.Values {
		switch c.Kind {
		case CondIs:
			if foldEqual(v, w) {
				return true
			}
		case CondStarts:
			if foldPrefix(v, w) {
				return true
			}
		case CondEnds:
			if len(v) >= len(w) && foldEqual(v[len(v)-len(w):], w) {
				return true
			}
		case CondContains:
			if foldContains(v[:min(len(v), 4096)], w) {
				return true
			}
		}
	}
	return false
}

// finish makes the comparison ready to be asked.
func (c *Cond) finish() {
	c.Absent = c.holds("") != c.Not
	if c.Kind == CondIs && len(c.Values) > 3 {
		c.set = newNames(true)
		for _, w := range c.Values {
			if _, ok := c.set.Slot(w); !ok {
				c.set.add(w, 0)
			}
		}
	}
}

func number(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	n := int64(0)
	for i := 0; i < len(s); i++ {
		d := s[i] - '0'
		if d > 9 {
			return 0, false
		}
		n = n*10 + int64(d)
	}
	return n, true
}

// Table turns a device's words into others, without regard to case.
type Table struct {
	names  *Names
	values []string
	other  string // for words that it does not have
	keep   bool   // such words stay as they are
}

// Get gives what a word becomes; "" leaves the value out.
func (t *Table) Get(v string) string {
	if i, ok := t.names.Slot(v); ok {
		return t.values[i]
	}
	if t.keep {
		return v
	}
	return t.other
}

// Words are all that Get can give beside the words it is asked for.
func (t *Table) Words() []string { return append(slices.Clone(t.values), t.other) }

// Special is a slot that the line's envelope fills.
type Special struct {
	Slot int
	From SpecialKind
}

// SpecialKind names a part of the envelope.
type SpecialKind uint8

// The parts of an envelope that a description may speak of.
const (
	SpecialMessage SpecialKind = iota // .message
	SpecialProgram
	SpecialHost
	SpecialPID
	SpecialID // RFC 5424 MSGID
	SpecialData
	SpecialLine
)

var specials = map[string]SpecialKind{
	".message": SpecialMessage, ".program": SpecialProgram, ".host": SpecialHost, ".pid": SpecialPID, ".id": SpecialID, ".data": SpecialData, ".line": SpecialLine,
}
