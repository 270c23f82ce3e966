package enrich

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
)

// Entry is one line of the operator's overlay.
type Entry struct {
	Prefix       netip.Prefix
	Country      string // ISO 3166-1 alpha-2, "" leaves it to the data
	AS           uint32 // 0 leaves it to the data
	Organization string
	Note         string
}

type overlay struct {
	table   bart.Table[Entry]
	entries int
}

// Limits of the overlay: a table of this size loads in well under a second.
const (
	maxOverlayBytes = 32 << 20
	maxOverlayText  = 200
	maxShownErrors  = 20
)

// ParseOverlay reads the operator's own table of places and networks. It is CSV with the columns
//
//	prefix,country,as_number,as_name,note
//
// Columns after the first may be empty or missing; lines that begin with # are comments, and a first line that is
// exactly the header above is skipped. prefix is an address or a prefix of either family, as_number may be
// written AS64500. All that is wrong is reported at once, with line numbers, and nothing is used then.
func ParseOverlay(r io.Reader) ([]Entry, error) {
	limited := &io.LimitedReader{R: r, N: maxOverlayBytes + 1}
	c := csv.NewReader(limited)
	c.Comment = '#'
	c.FieldsPerRecord = -1
	c.TrimLeadingSpace = true
	c.ReuseRecord = true
	var entries []Entry
	var problems []error
	more := 0
	seen := map[netip.Prefix]int{}
	for {
		record, err := c.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			problems = append(problems, err) // it names the line
			break
		}
		line, _ := c.FieldPos(0)
		if len(entries) == 0 && strings.EqualFold(strings.TrimSpace(record[0]), "prefix") {
			continue
		}
		entry, err := parseEntry(record)
		if err == nil {
			if first, dup := seen[entry.Prefix]; dup {
				err = fmt.Errorf("%s is on line %d already; keep one of the two", entry.Prefix, first)
			}
		}
		if err != nil {
			if len(problems) < maxShownErrors {
				problems = append(problems, fmt.Errorf("line %d: %w", line, err))
			} else {
				more++
			}
			continue
		}
		seen[entry.Prefix] = line
		entries = append(entries, entry)
	}
	if limited.N == 0 {
		problems = append(problems, fmt.Errorf("the table is larger than %d MB; split ranges that share a country into one prefix", maxOverlayBytes>>20))
	}
	if more > 0 {
		problems = append(problems, fmt.Errorf("and %d more lines", more))
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return entries, nil
}

func parseEntry(record []string) (Entry, error) {
	field := func(i int) string {
		if i < len(record) {
			return strings.TrimSpace(record[i])
		}
		return ""
	}
	var e Entry
	if len(record) > 5 {
		return e, fmt.Errorf("%d columns, want at most 5: prefix,country,as_number,as_name,note (put text with commas in quotes)", len(record))
	}
	text := field(0)
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return e, fmt.Errorf("%q is not an address or prefix, such as 203.0.113.0/24 or 2001:db8::/32", text)
		}
		a = a.Unmap()
		e.Prefix = netip.PrefixFrom(a, a.BitLen())
	} else {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return e, fmt.Errorf("%q is not an address or prefix, such as 203.0.113.0/24 or 2001:db8::/32", text)
		}
		if p != p.Masked() {
			return e, fmt.Errorf("%s has bits set after its length; did you mean %s or %s/%d?", p, p.Masked(), p.Addr(), p.Addr().BitLen())
		}
		if p.Addr().Is4In6() {
			return e, fmt.Errorf("%s: write IPv4 prefixes as IPv4", p)
		}
		e.Prefix = p
	}
	if s := strings.ToUpper(field(1)); s != "" {
		if !isCountry(s) {
			return e, fmt.Errorf("country %q: want the two letters of ISO 3166, such as GB", field(1))
		}
		e.Country = s
	}
	if s := field(2); s != "" {
		digits := s
		if len(s) > 2 && strings.EqualFold(s[:2], "AS") {
			digits = s[2:]
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n == 0 {
			return e, fmt.Errorf("AS number %q: want a number from 1 to 4294967295", s)
		}
		e.AS = uint32(n)
	}
	e.Organization, e.Note = field(3), field(4)
	for _, s := range []string{e.Organization, e.Note} {
		if len(s) > maxOverlayText {
			return e, fmt.Errorf("text of %d bytes, at most %d are kept", len(s), maxOverlayText)
		}
		if !clean(s) {
			return e, fmt.Errorf("text %q holds control characters or is not UTF-8", s)
		}
	}
	if e.Country == "" && e.AS == 0 && e.Organization == "" && e.Note == "" {
		return e, fmt.Errorf("%s says nothing: give a country, a network or a note, or remove the line", e.Prefix)
	}
	return e, nil
}

func isCountry(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

func newOverlay(entries []Entry) *overlay {
	o := &overlay{entries: len(entries)}
	for _, e := range entries {
		o.table.Insert(e.Prefix, e)
	}
	return o
}
