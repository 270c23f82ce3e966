package intel

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/indicator"
)

// Limits of a list.
const (
	MaxList    = 32 << 20 // bytes
	MaxLines   = 500_000
	maxRefused = 200 // refusals told one by one; the rest are counted
)

// ImportOptions say what holds for all lines of a list that do not say otherwise.
type ImportOptions struct {
	Source     string    // where the list comes from; needed
	TLP        string    // default amber
	Push       bool      // give to collectors, as far as the TLP allows
	ValidUntil time.Time // zero: without end
	Confidence int       // 0 to 100; default 50
}

// ImportResult says what became of a list.
type ImportResult struct {
	Added, Updated int
	RefusedCount   int
	Refused        []Refusal // the first of them
	NotPushed      int       // taken, but kept from collectors by their TLP
}

// Refusal is one line that was not taken.
type Refusal struct {
	Line      int // from 1
	Text, Why string
}

// Import takes a list: one value a line with anything after # or a blank as a remark, or CSV with a header that names value and may name
// type, note, tlp and confidence. Good lines are taken even if others are refused; each refused line is told with its reason. A value that
// the same source gave before is brought up to date. Analysts and operators only.
func (s *Store) Import(ctx context.Context, by access.Principal, r io.Reader, o ImportOptions) (ImportResult, error) {
	var res ImportResult
	if _, err := access.National(by); err != nil {
		return res, err
	}
	o.Source = strings.TrimSpace(o.Source)
	if o.Source == "" || len(o.Source) > 200 {
		return res, fmt.Errorf("%w: say where the list comes from, in at most 200 characters", ErrInvalid)
	}
	if o.TLP == "" {
		o.TLP = "amber"
	}
	if !slices.Contains(TLPs, o.TLP) {
		return res, fmt.Errorf("%w: TLP %q: want %s", ErrInvalid, o.TLP, strings.Join(TLPs, ", "))
	}
	if o.Confidence == 0 {
		o.Confidence = 50
	}
	if o.Confidence < 0 || o.Confidence > 100 {
		return res, fmt.Errorf("%w: confidence %d: want 1 to 100", ErrInvalid, o.Confidence)
	}
	now := s.o.Now()
	if !o.ValidUntil.IsZero() && !o.ValidUntil.After(now) {
		return res, fmt.Errorf("%w: the list would have expired already", ErrInvalid)
	}
	items, err := readList(r, o, &res)
	if err != nil {
		return res, err
	}
	if len(items) == 0 && res.RefusedCount == 0 {
		return res, fmt.Errorf("%w: the list is empty", ErrInvalid)
	}
	base := Indicator{Source: o.Source, ValidFromNS: now.UnixNano(), AddedNS: now.UnixNano(), UpdatedNS: now.UnixNano(), AddedBy: by.UserID}
	if !o.ValidUntil.IsZero() {
		base.ValidUntilNS = o.ValidUntil.UnixNano()
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		res.Added, res.Updated = 0, 0 // the function may run twice
		for from := 0; from < len(items); from += 500 {
			rows := make([]Indicator, 0, 500)
			values := make([]string, 0, 500)
			for _, it := range items[from:min(from+500, len(items))] {
				row := base
				row.ID, row.Kind, row.Value, row.Note, row.TLP, row.Confidence, row.Push = newID(), it.kind.String(), it.value, it.note, it.tlp, it.confidence, it.push
				rows = append(rows, row)
				values = append(values, row.Value)
			}
			var known int
			if err := tx.NewSelect().Model((*Indicator)(nil)).Where("source = ? AND removed_ns = 0 AND value IN (?)", o.Source, bun.List(values)).ColumnExpr("count(*)").Scan(ctx, &known); err != nil {
				return err
			}
			_, err := tx.NewInsert().Model(&rows).On("CONFLICT (kind, value, source) DO UPDATE").
				Set("confidence = EXCLUDED.confidence, tlp = EXCLUDED.tlp, push = EXCLUDED.push, note = EXCLUDED.note, valid_from_ns = EXCLUDED.valid_from_ns, valid_until_ns = EXCLUDED.valid_until_ns, updated_ns = EXCLUDED.updated_ns, removed_ns = 0").
				Exec(ctx)
			if err != nil {
				return err
			}
			res.Updated += known
			res.Added += len(rows) - known
		}
		return audit(ctx, tx, now.UnixNano(), by, "indicator.import", o.Source, fmt.Sprintf("%d added, %d updated, %d refused", res.Added, res.Updated, res.RefusedCount))
	})
	if err != nil {
		return res, fmt.Errorf("importing indicators: %w", err)
	}
	return res, nil
}

type item struct {
	kind       indicator.Kind
	value      string
	note       string
	tlp        string
	confidence int
	push       bool
}

// readList reads a whole list, each value once.
func readList(r io.Reader, o ImportOptions, res *ImportResult) ([]item, error) {
	limited := &io.LimitedReader{R: r, N: MaxList + 1}
	in := bufio.NewReaderSize(limited, 64<<10)
	head, err := in.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("reading the list: %w", err)
	}
	refuse := func(line int, text, why string) {
		res.RefusedCount++
		if len(res.Refused) < maxRefused {
			if len(text) > 200 {
				text = text[:200] + "…"
			}
			res.Refused = append(res.Refused, Refusal{line, strings.ToValidUTF8(text, "�"), why})
		}
	}
	seen := map[string]bool{}
	var items []item
	take := func(line int, text string, it item, kind string) {
		var err error
		if kind != "" {
			it.kind, err = indicator.ParseKind(kind)
		} else {
			it.kind, err = indicator.Guess(text)
		}
		if err == nil {
			it.kind, it.value, err = indicator.Canonical(it.kind, text)
		}
		if err != nil {
			refuse(line, text, err.Error())
			return
		}
		if key := it.kind.String() + " " + it.value; !seen[key] {
			seen[key] = true
			it.push = o.Push && mayPush(it.tlp)
			if o.Push && !it.push {
				res.NotPushed++
			}
			items = append(items, it)
		}
	}
	if isCSV(head) {
		err = readCSV(in, o, take, refuse)
	} else {
		err = readPlain(in, o, take, refuse)
	}
	if err != nil {
		return nil, err
	}
	if limited.N <= 0 {
		return nil, fmt.Errorf("%w: the list is larger than %d MiB; send it in parts", ErrInvalid, MaxList>>20)
	}
	return items, nil
}

// isCSV says whether a list begins with a header that names a value column.
func isCSV(head []byte) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(string(head), "\ufeff"), "\n")
	for _, f := range strings.Split(first, ",") {
		switch strings.ToLower(strings.Trim(f, " \r\"")) {
		case "value", "indicator", "ioc":
			return true
		}
	}
	return false
}

var errLines = fmt.Errorf("%w: the list has more than %d lines; send it in parts", ErrInvalid, MaxLines)

func readPlain(in *bufio.Reader, o ImportOptions, take func(int, string, item, string), refuse func(int, string, string)) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 4096), 64<<10)
	n := 0
	for sc.Scan() {
		if n++; n > MaxLines {
			return errLines
		}
		text := strings.TrimPrefix(sc.Text(), "\ufeff")
		value, note, _ := strings.Cut(text, "#")
		if value = strings.TrimSpace(value); value == "" {
			continue
		}
		if at := strings.IndexAny(value, " \t,;"); at >= 0 {
			if rest := strings.Trim(value[at:], " \t,;"); note == "" {
				note = rest
			}
			value = value[:at]
		}
		if !utf8.ValidString(value) {
			refuse(n, value, "is not text (UTF-8)")
			continue
		}
		take(n, value, item{note: clip(note), tlp: o.TLP, confidence: o.Confidence}, "")
	}
	if errors.Is(sc.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("%w: line %d is longer than 64 KiB, so this is not a list of indicators", ErrInvalid, n+1)
	}
	return sc.Err()
}

func readCSV(in *bufio.Reader, o ImportOptions, take func(int, string, item, string), refuse func(int, string, string)) error {
	rd := csv.NewReader(in)
	rd.FieldsPerRecord = -1
	rd.TrimLeadingSpace = true
	rd.ReuseRecord = true
	header, err := rd.Read()
	if err != nil {
		return fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	column := map[string]int{}
	for i, h := range header {
		name := strings.ToLower(strings.Trim(h, " \ufeff"))
		switch name {
		case "indicator", "ioc":
			name = "value"
		case "kind":
			name = "type"
		case "remark", "description", "comment":
			name = "note"
		}
		if _, ok := column[name]; !ok {
			column[name] = i
		}
	}
	for n := 0; ; n++ {
		rec, err := rd.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if n >= MaxLines {
			return errLines
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			refuse(bad.Line, "", bad.Err.Error())
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the list: %w", err)
		}
		line, _ := rd.FieldPos(0)
		get := func(name string) string {
			if i, ok := column[name]; ok && i < len(rec) {
				return strings.TrimSpace(rec[i])
			}
			return ""
		}
		it := item{note: clip(get("note")), tlp: o.TLP, confidence: o.Confidence}
		if tlp := strings.TrimPrefix(strings.ToLower(get("tlp")), "tlp:"); tlp != "" {
			if tlp == "white" { // TLP 1.0
				tlp = "clear"
			}
			if !slices.Contains(TLPs, tlp) {
				refuse(line, get("value"), fmt.Sprintf("TLP %q: want %s", tlp, strings.Join(TLPs, ", ")))
				continue
			}
			it.tlp = tlp
		}
		if c := get("confidence"); c != "" {
			v, err := strconv.Atoi(c)
			if err != nil || v < 0 || v > 100 {
				refuse(line, get("value"), fmt.Sprintf("confidence %q: want a whole number from 0 to 100", c))
				continue
			}
			it.confidence = v
		}
		value := get("value")
		if value == "" {
			refuse(line, strings.Join(rec, ","), "has no value")
			continue
		}
		if !utf8.ValidString(value) {
			refuse(line, value, "is not text (UTF-8)")
			continue
		}
		take(line, value, it, get("type"))
	}
}

func clip(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "�")
	if r := []rune(s); len(r) > 500 {
		s = string(r[:500])
	}
	return s
}
