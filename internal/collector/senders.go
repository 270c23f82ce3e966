package collector

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tocsin/internal/event"
)

// sender is what is known of one device that sends logs.
type sender struct {
	Addr          netip.Addr `json:"addr"`
	First         int64      `json:"first,string"` // receive times of its first and last line
	Last          int64      `json:"last,string"`
	Lines         uint64     `json:"lines"`
	NotUnderstood uint64     `json:"not_understood"`
	Changed       uint64     `json:"product_changed"` // lines of a product it did not send while it was learnt
	Products      []string   `json:"products"`
	Kinds         []kind     `json:"kinds,omitempty"`    // of Products, in their order; there may be fewer: learnt by an older program
	Seen          uint8      `json:"seen,omitempty"`     // by bits: of Products, those seen since parsers and program are what they are
	Refused       []string   `json:"refused,omitempty"`  // products that it sent after it was learnt, and that nobody has accepted
	Hostdown      string     `json:"hostdown,omitempty"` // see hostdownWarned
	understood
}

// kind is who made a product, and which parser understood it: what stays when a newer program or pack names the product otherwise.
type kind struct {
	Format string `json:"format,omitempty"`
	Vendor string `json:"vendor,omitempty"`
}

// senders is the table of devices. It is bounded, because anybody can invent UDP senders: beyond the bound all share one entry.
type senders struct {
	table map[netip.Addr]*sender
	other sender
	last  *sender // of the last line: most lines come from the same one as before
}

const (
	maxSenders  = 1024
	maxProducts = 8
	// A sender's products are learnt for a day and at least so many lines; then they are pinned.
	learnTime  = int64(24 * time.Hour)
	learnLines = 1000
)

func newSenders() *senders { return &senders{table: map[netip.Addr]*sender{}} }

func (t *senders) seen(a netip.Addr, at int64) *sender {
	s := t.last
	if s == nil || s.Addr != a {
		s = t.table[a]
		if s == nil {
			if len(t.table) >= maxSenders {
				s = &t.other
			} else {
				s = &sender{Addr: a, First: at}
				t.table[a] = s
			}
		}
		t.last = s
	}
	s.Lines++
	s.Last = at
	return s
}

// repeats is the format of "last message repeated 5 times".
const repeats = "syslog-repeats"

// product says whether the line is of a product that this sender did not send while it was learnt, and of a learnt product that a newer program or pack
// names otherwise what it was called.
func (s *sender) product(e *event.Event, format string, at int64) (changed bool, was string) {
	if format == repeats { // any device's sender writes it: it says nothing of what the device is
		return false, ""
	}
	name := e.Str(event.ObserverProduct)
	if name == "" {
		name = format
	}
	if i := slices.Index(s.Products, name); i >= 0 {
		if s.Seen>>i&1 == 0 {
			s.see(i, e, format)
		}
		return false, ""
	}
	if !s.Addr.IsValid() {
		return false, ""
	}
	return s.unknown(short(name), e, format, at)
}

// short is a product's name as it is kept.
func short(name string) string {
	if len(name) > 60 {
		name = strings.ToValidUTF8(name[:60], "")
	}
	return strings.Clone(name)
}

// unknown is product for a name that is not among those learnt.
func (s *sender) unknown(name string, e *event.Event, format string, at int64) (changed bool, was string) {
	if i := slices.Index(s.Products, name); i >= 0 { // it is longer than what is kept of it
		if s.Seen>>i&1 == 0 {
			s.see(i, e, format)
		}
		return false, ""
	}
	if len(s.Products) < maxProducts && (at-s.First < learnTime || s.Lines < learnLines) {
		s.Products = append(s.Products, name)
		s.see(len(s.Products)-1, e, format)
		return false, ""
	}
	if i := s.renamed(e, format); i >= 0 {
		was = s.Products[i]
		s.Seen |= 1 << i
		if len(s.Products) < maxProducts {
			s.Products = append(s.Products, name)
			i = len(s.Products) - 1
		}
		s.Products[i] = name
		s.see(i, e, format)
		s.Refused = slices.DeleteFunc(s.Refused, func(r string) bool { return r == name })
		return false, was
	}
	s.Changed++
	if len(s.Refused) < maxProducts && !slices.Contains(s.Refused, name) {
		s.Refused = append(s.Refused, name)
	}
	return true, ""
}

// see notes that a line of a learnt product came under the name that the parsers give it now, and what it is.
func (s *sender) see(i int, e *event.Event, format string) {
	for len(s.Kinds) <= i {
		s.Kinds = append(s.Kinds, kind{})
	}
	s.Kinds[i] = kind{Format: strings.Clone(format), Vendor: short(e.Str(event.ObserverVendor))}
	s.Seen |= 1 << i
}

// renamed finds the learnt product that the parsers now name as this line's, or gives -1. It is one that has not been seen since the parsers or the
// program were changed, each once, of the same maker or understood by the same parser. Of what an older program learnt neither is known: then its
// name must stand in the line, or be that of the parser.
func (s *sender) renamed(e *event.Event, format string) int {
	vendor := short(e.Str(event.ObserverVendor))
	for i, name := range s.Products {
		var k kind
		if i < len(s.Kinds) {
			k = s.Kinds[i]
		}
		switch {
		case s.Seen>>i&1 != 0:
		case k == kind{}:
			if name == format || len(name) >= 3 && hasWord(e.Raw(), name) {
				return i
			}
		case k.Vendor != "" && strings.EqualFold(k.Vendor, vendor), k.Format == format && !anyMaker[format]:
			return i
		}
	}
	return -1
}

// anyMaker are the formats that devices of all makers write: they say nothing of what the device is.
var anyMaker = map[string]bool{"cef": true, "leef": true, "json": true, "kv": true, "text": true, "web": true}

// hasWord says whether word stands in text by itself, and not within a longer word.
func hasWord(text, word string) bool {
	in := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	for at := 0; ; {
		i := strings.Index(text[at:], word)
		if i < 0 {
			return false
		}
		before, _ := utf8.DecodeLastRuneInString(text[:at+i])
		after, _ := utf8.DecodeRuneInString(text[at+i+len(word):])
		if !in(before) && !in(after) {
			return true
		}
		at += i + 1
	}
}

// named says that the parsers or the program are others than before: what they call a product may have changed.
func (t *senders) named() {
	for _, s := range t.table {
		s.Seen = 0
	}
}

// accept lets a sender send the products that it was not known for: the member has looked.
func (t *senders) accept(a netip.Addr) (products []string, ok bool) {
	s := t.table[a]
	if s == nil {
		return nil, false
	}
	products = s.Refused
	for _, p := range products {
		if len(s.Products) >= maxProducts { // the oldest goes: the member says what it sends now
			s.Products = slices.Delete(s.Products, 0, 1)
			s.Kinds = slices.Delete(s.Kinds, 0, min(1, len(s.Kinds)))
			s.Seen >>= 1
		}
		s.Products = append(s.Products, p)
	}
	s.Refused = nil
	return products, true
}

// list gives copies, the busiest first.
func (t *senders) list() []sender {
	out := make([]sender, 0, len(t.table)+1)
	for s := range maps.Values(t.table) {
		c := *s
		c.Products, c.Kinds, c.Refused = slices.Clone(s.Products), slices.Clone(s.Kinds), slices.Clone(s.Refused)
		out = append(out, c)
	}
	if t.other.Lines > 0 {
		out = append(out, t.other)
	}
	slices.SortFunc(out, func(a, b sender) int {
		if a.Lines != b.Lines {
			if a.Lines > b.Lines {
				return -1
			}
			return 1
		}
		return a.Addr.Compare(b.Addr)
	})
	return out
}

// restore takes what list gave.
func (t *senders) restore(list []sender) {
	for i := range list {
		s := list[i]
		if !s.Addr.IsValid() && s.First == 0 {
			t.other = s
			continue
		}
		if len(s.Products) > maxProducts {
			s.Products = s.Products[:maxProducts]
		}
		if len(s.Kinds) > len(s.Products) {
			s.Kinds = s.Kinds[:len(s.Products)]
		}
		if len(t.table) < maxSenders {
			t.table[s.Addr] = &s
		}
	}
}
