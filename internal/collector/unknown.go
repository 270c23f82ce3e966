package collector

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/collector/archive"
)

// Lines that no parser understands stay at home; the hub learns only how many there were. A few of each sender are kept in memory to be shown
// on the collector's page and by `tocsin-collector unknown`, with the addresses and ports that stand in them beyond doubt.

const (
	maxUnknownSenders = 256
	maxUnknownKinds   = 5    // different lines kept of one sender
	maxUnknownText    = 1000 // bytes of one that are kept
)

// Unknown is what is not understood yet of one sender.
type Unknown struct {
	Sender string        `json:"sender"`
	Lines  uint64        `json:"lines"`
	Last   time.Time     `json:"last"`
	Kinds  []UnknownKind `json:"kinds"`
}

// UnknownKind is a line, standing for those that differ from it in numbers only.
type UnknownKind struct {
	Text  string   `json:"text"`
	Lines uint64   `json:"lines"`
	Found []string `json:"found,omitempty"` // addresses, with ports where they are written behind them
	shape string
}

type unknowns struct {
	table map[netip.Addr]*Unknown
	other Unknown // of senders beyond the bound
}

func newUnknowns() *unknowns { return &unknowns{table: map[netip.Addr]*Unknown{}} }

func (u *unknowns) add(l *archive.Line) {
	s := u.table[l.Sender]
	if s == nil {
		if len(u.table) >= maxUnknownSenders {
			s = &u.other
			s.Sender = "others"
		} else {
			s = &Unknown{Sender: "this machine"}
			if l.Sender.IsValid() {
				s.Sender = l.Sender.String()
			}
			u.table[l.Sender] = s
		}
	}
	s.Lines++
	s.Last = time.Unix(0, l.Created).UTC()
	if s.Lines > 10_000 && s.Lines%64 != 0 { // the shapes are known by then; the count goes on
		return
	}
	text := strings.ToValidUTF8(string(l.Text[:min(len(l.Text), maxUnknownText)]), "�")
	shape := shapeOf(text)
	for i := range s.Kinds {
		if s.Kinds[i].shape == shape {
			s.Kinds[i].Lines++
			return
		}
	}
	if len(s.Kinds) < maxUnknownKinds {
		s.Kinds = append(s.Kinds, UnknownKind{Text: text, Lines: 1, Found: Extract(text), shape: shape})
	}
}

// shapeOf is a line without its numbers and long words, so that a thousand lines of one kind are one.
func shapeOf(s string) string {
	var b strings.Builder
	last := byte(0)
	for i := 0; i < len(s) && b.Len() < 60; i++ {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c = '0'
		case c == ' ' && last == ' ':
			continue
		}
		if c == '0' && last == '0' {
			continue
		}
		b.WriteByte(c)
		last = c
	}
	return b.String()
}

func (u *unknowns) list() []Unknown {
	out := make([]Unknown, 0, len(u.table)+1)
	for _, s := range u.table {
		c := *s
		c.Kinds = slices.Clone(s.Kinds)
		out = append(out, c)
	}
	if u.other.Lines > 0 {
		out = append(out, u.other)
	}
	slices.SortFunc(out, func(a, b Unknown) int {
		if a.Lines != b.Lines {
			return cmp.Compare(b.Lines, a.Lines)
		}
		return cmp.Compare(a.Sender, b.Sender)
	})
	return out
}

var (
	v4Port = regexp.MustCompile(`(?:^|[^0-9.])((?:[0-9]{1,3}\.){3}[0-9]{1,3})(?:[:/(](?:port )?([0-9]{1,5})\)?)?(?:[^0-9.]|\.?$|\. )`)
	v6Port = regexp.MustCompile(`(?:^|[\s=(\[",])\[?([0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{0,4}){2,7})\]?(?:[/]([0-9]{1,5}))?(?:[\s,)\]"]|$)`)
)

// Extract gives the addresses that stand in a text beyond doubt, each with the port written right behind it, at most 8 of them. Which is the
// source is not guessed, and version numbers, dates and times are not addresses: four numbers must be an address that a machine may have, and
// six of hexadecimal pairs are a network card's.
func Extract(s string) []string {
	var out []string
	add := func(addr, port string) {
		a, err := netip.ParseAddr(addr)
		if err != nil || a.IsUnspecified() || len(out) >= 8 {
			return
		}
		if a.Is4() && (a.As4()[0] == 0 || strings.Contains("."+addr, ".0.0.") && a.As4()[0] < 10) { // 2.0.0.1 is a version
			return
		}
		v := a.String()
		if n, err := strconv.Atoi(port); err == nil && n > 0 && n <= 65535 {
			v = netip.AddrPortFrom(a, uint16(n)).String()
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	for rest := s; ; {
		m := v4Port.FindStringSubmatchIndex(rest)
		if m == nil {
			break
		}
		port := ""
		if m[4] >= 0 {
			port = rest[m[4]:m[5]]
		}
		add(rest[m[2]:m[3]], port)
		rest = rest[m[3]:]
	}
	for _, m := range v6Port.FindAllStringSubmatch(s, 16) {
		if strings.Contains(m[1], "::") || strings.Count(m[1], ":") == 7 { // a time has neither
			add(m[1], m[2])
		}
	}
	return out
}
