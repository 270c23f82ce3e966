package parse

import (
	"math/bits"
	"strings"
	"time"
	"unsafe"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// What becomes of the values that a pack's steps have read.

func (s *Set) rules(rules []packs.Rule) {
	for i := range rules {
		if r := &rules[i]; s.conds(r.When) {
			s.ops(&r.Ops)
		}
	}
}

func (s *Set) ops(ops *packs.Ops) {
	if s.recipes.notes.on {
		s.noteOps(ops)
		return
	}
	if len(ops.List) < 8 {
		for i := range ops.List {
			op := &ops.List[i]
			v := ""
			if op.Slot >= 0 {
				if v = s.run.slots.Get(op.Slot); v == "" {
					continue
				}
			}
			if op.Plain {
				s.op(op, v)
			} else {
				s.due(op, v)
			}
		}
		return
	}
	slots := &s.run.slots
	n := ops.Due(slots, &s.run.todo)
	for w := range n {
		for b := s.run.todo[w]; b != 0; b &= b - 1 {
			i := w<<6 + bits.TrailingZeros64(b)
			if q := &ops.Quick[i]; q.Slot >= 0 {
				s.quick(q, slots.Get(int(q.Slot)))
				continue
			}
			op := &ops.List[i]
			v := ""
			if op.Slot >= 0 {
				v = slots.Get(op.Slot)
			}
			if op.Plain {
				s.op(op, v)
			} else {
				s.due(op, v)
			}
		}
	}
}

// quick does the commonest ops, as op does them.
func (s *Set) quick(q *packs.Quick, v string) {
	if s.e.Has(q.Key) {
		return
	}
	switch q.Verb {
	case packs.VerbText, packs.VerbLower:
		if v[0] <= ' ' || v[len(v)-1] <= ' ' {
			v = trim(v)
		}
		if len(v) <= 4 && empty(v) {
			return
		}
		if q.Verb == packs.VerbLower {
			v = s.lower(v)
		}
		s.e.SetString(q.Key, v)
	case packs.VerbInt:
		if n, ok := atoi(v); ok {
			s.e.SetInt(q.Key, n)
		}
	case packs.VerbPort:
		if n, ok := atoi(v); ok && n > 0 && n < 65536 {
			s.e.SetInt(q.Key, n)
		}
	case packs.VerbIP:
		s.ip(q.Key, v)
	}
}

// due does one op whose value is there.
func (s *Set) due(op *packs.Op, v string) {
	if op.Verb == packs.VerbTime && s.e.Time != 0 || len(op.When) > 0 && !s.conds(op.When) {
		return
	}
	if len(op.Join) > 0 {
		if v = s.joined(op); v == "" {
			return
		}
	}
	if op.After != "" {
		k := -1
		if op.Last {
			k = strings.LastIndex(v, op.After)
		} else {
			k = strings.Index(v, op.After)
		}
		if k < 0 {
			return
		}
		v = v[k+len(op.After):]
	}
	if op.Before != "" {
		if k := strings.Index(v, op.Before); k >= 0 {
			v = v[:k]
		}
	}
	s.op(op, v)
}

// joined makes one text of several values and literals; "" when one of the values is missing. A time is only read, so it stands in scratch
// memory; all others are copied.
func (s *Set) joined(op *packs.Op) string {
	b := s.buf[:0]
	for i := range op.Join {
		p := &op.Join[i]
		if p.Slot < 0 {
			b = append(b, p.Text...)
			continue
		}
		v := s.run.slots.Get(p.Slot)
		if v == "" {
			return ""
		}
		b = append(b, v...)
	}
	s.buf = b
	if op.Verb == packs.VerbTime || op.Verb == packs.VerbTimeField {
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	return s.e.Copy(b)
}

func (s *Set) op(op *packs.Op, v string) {
	e := s.e
	word := "" // what a table makes of the value
	if op.Table != nil && op.Verb != packs.VerbAction {
		if v = op.Table.Get(v); v == "" {
			return
		}
	}
	switch op.Verb {
	case packs.VerbText:
		s.str(op.Key, trim(v))
	case packs.VerbLower:
		s.low(op.Key, trim(v))
	case packs.VerbInt:
		s.int(op.Key, v)
	case packs.VerbIP:
		s.ip(op.Key, v)
	case packs.VerbPort:
		s.port(op.Key, v)
	case packs.VerbDomain:
		if len(v) > 3 && v[0] == '(' {
			v = s.labels(v)
		}
		s.domain(op.Key, v)
	case packs.VerbMAC:
		s.mac(op.Key, v)
	case packs.VerbField:
		if !e.Has(op.Key) {
			if x, ok := event.ParseValue(op.Key.Kind(), v); ok {
				e.Set(op.Key, x)
			}
		}
	case packs.VerbTime:
		if e.Time == 0 {
			if t, ok := s.layout(op, v); ok {
				e.Time = t
			}
		}
	case packs.VerbTimeField:
		if !e.Has(op.Key) {
			if t, ok := s.layout(op, v); ok {
				e.SetTime(op.Key, t)
			}
		}
	case packs.VerbAction:
		if op.Slot < 0 && len(op.Join) == 0 {
			v = op.Text
		}
		v = trim(v)
		if op.Table != nil {
			word = op.Table.Get(v)
		}
		if empty(v) {
			return
		}
		s.low(event.EventAction, v)
		if op.Table == nil {
			word = v
		}
		s.decide(verdictOf(word))
	case packs.VerbVerdict:
		if op.Slot < 0 && op.Text != "" {
			v = op.Text
		}
		s.decide(verdictOf(v))
	case packs.VerbOutcome:
		if op.Slot < 0 && op.Text != "" {
			e.SetString(event.EventOutcome, op.Text)
			return
		}
		s.outcome(v)
	case packs.VerbUser:
		k := op.Key
		if k == 0 {
			k = event.UserName
		}
		if v = person(v); v != "" {
			s.str(k, v)
		}
	case packs.VerbSource:
		s.endpoint(event.SourceIP, event.SourcePort, v)
	case packs.VerbDestination:
		s.endpoint(event.DestinationIP, event.DestinationPort, v)
	case packs.VerbSourceNAT:
		if v != "0.0.0.0" {
			s.endpoint(event.SourceNATIP, event.SourceNATPort, v)
		}
	case packs.VerbDestinationNAT:
		if v != "0.0.0.0" {
			s.endpoint(event.DestinationNATIP, event.DestinationNATPort, v)
		}
	case packs.VerbTransport:
		if t := transportName(trim(v)); t != "" {
			s.str(event.NetworkTransport, t)
		} else if len(v) < 40 && v != "" && isAlpha(v[0]) && domainLike(v) && !e.Has(event.NetworkProtocol) {
			s.low(event.NetworkProtocol, v)
		}
	case packs.VerbService:
		p, svc := v, ""
		if i := strings.IndexAny(v, "/:_"); i > 0 {
			p, svc = v[:i], v[i+1:]
		}
		if t := transportName(p); t != "" {
			s.str(event.NetworkTransport, t)
			if svc != "" && isAlpha(svc[0]) {
				s.low(event.NetworkProtocol, svc)
			}
		} else if len(v) < 40 && isAlpha(v[0]) && domainLike(v) {
			s.low(event.NetworkProtocol, v)
		}
	case packs.VerbURL:
		if strings.IndexByte(v, ' ') < 0 {
			s.urlText(v)
		}
	case packs.VerbMethod:
		s.method(v)
	case packs.VerbHash:
		s.hash(v)
	case packs.VerbLevel:
		s.severity(v)
	case packs.VerbDuration:
		s.seconds(v)
	case packs.VerbDurationMS:
		if n, ok := atoi(v); ok && n < 1<<40 && !e.Has(event.EventDuration) {
			e.SetInt(event.EventDuration, n*1e6)
		}
	case packs.VerbFile:
		s.str(event.FileName, baseName(v))
		if strings.ContainsAny(v, `/\`) {
			s.str(event.FilePath, v)
		}
	case packs.VerbSentence:
		s.str(event.Message, v)
		s.run.words = v
	case packs.VerbKeep:
		if extraName(op.Name) && len(e.Extras()) < event.MaxExtras {
			e.SetNamed(op.Name, v)
		}
	case packs.VerbSignIn:
		s.category("authentication")
		s.kind("start")
		s.str(event.TocsinService, op.Text)
	case packs.VerbAlert:
		s.alert(op.Text)
	case packs.VerbNetwork:
		s.network()
	case packs.VerbSession:
		s.category("session")
		s.kind(op.Text)
	case packs.VerbAdd:
		if !e.HasString(op.Key, op.Text) {
			e.AddString(op.Key, op.Text)
		}
	case packs.VerbConst:
		if !e.Has(op.Key) {
			e.Set(op.Key, op.Const)
		}
	}
}

// layout reads a time as the pack says it is written.
func (s *Set) layout(op *packs.Op, v string) (int64, bool) {
	v = trim(v)
	n, l := digits(v)
	switch op.Layout.Kind {
	case packs.LayoutUnix:
		if l > 0 && l <= 10 && n > 0 {
			ns := n * 1e9
			if l < len(v) && v[l] == '.' {
				mult := int64(100_000_000)
				for i := l + 1; i < len(v) && isDigit(v[i]) && mult > 0; i++ {
					ns += int64(v[i]-'0') * mult
					mult /= 10
				}
			}
			return ns, true
		}
		return 0, false
	case packs.LayoutUnixMS:
		return n * 1e6, l > 0 && l <= 13
	case packs.LayoutUnixUS:
		return n * 1e3, l > 0 && l <= 16
	case packs.LayoutUnixNS:
		return epoch(v)
	case packs.LayoutFileTime: // 100 ns since 1601
		const gap = 116444736000000000
		return (n - gap) * 100, l == 18 && n > gap
	case packs.LayoutDayFirst, packs.LayoutMonthFirst:
		var c civil
		if usAt(v, &c) == 0 {
			return 0, false
		}
		if op.Layout.Kind == packs.LayoutDayFirst && c.day <= 12 && !s.dayFirst(v) {
			c.day, c.month = c.month, c.day
		}
		s.zoneOf(op, &c)
		return s.unix(&c)
	case packs.LayoutGo:
		t, err := time.ParseInLocation(op.Layout.Go, v, s.loc)
		if err != nil {
			return 0, false
		}
		if t.Year() == 0 {
			c := civil{month: int(t.Month()), day: t.Day(), hour: t.Hour(), min: t.Minute(), sec: t.Second()}
			s.zoneOf(op, &c)
			return s.unix(&c)
		}
		if s.utc && t.Location() == s.loc {
			t, _ = time.ParseInLocation(op.Layout.Go, v, time.UTC)
		}
		return max(t.UnixNano(), 1), t.Year() >= 1970 && t.Year() < 2260
	}
	if op.ZoneSlot >= 0 {
		var c civil
		if isoAt(v, &c) > 0 || bsdAt(v, &c) > 0 {
			s.zoneOf(op, &c)
			return s.unix(&c)
		}
	}
	return s.anyTime(v)
}

// dayFirst says whether usAt has exchanged day and month already, because the first number cannot be a month.
func (s *Set) dayFirst(v string) bool {
	n, _ := digits(v)
	return n > 12
}

// zoneOf takes the zone from the slot that the pack names.
func (s *Set) zoneOf(op *packs.Op, c *civil) {
	if op.ZoneSlot >= 0 && !c.zoned {
		// Fortinet's "(GMT-5:00)Eastern Time" and "UTC+2" among the plain forms.
		z := strings.TrimPrefix(trim(s.run.slots.Get(op.ZoneSlot)), "(")
		if t := strings.TrimPrefix(strings.TrimPrefix(z, "GMT"), "UTC"); len(t) > 1 && (t[0] == '+' || t[0] == '-') {
			z = t
			if isDigit(t[1]) && (len(t) == 2 || !isDigit(t[2])) { // one digit for the hour
				c.zoned, c.offset = true, int32(t[1]-'0')*3600
				if len(t) > 4 && t[2] == ':' && two(t, 3) > 0 {
					c.offset += int32(two(t, 3)) * 60
				}
				if t[0] == '-' {
					c.offset = -c.offset
				}
				return
			}
		}
		zoneAt(z, c)
	}
}

// labels reads a name as Windows DNS writes it: (3)www(6)school(7)example(0).
func (s *Set) labels(v string) string {
	b := s.buf[:0]
	for i := 0; i < len(v); i++ {
		if v[i] != '(' {
			b = append(b, v[i])
			continue
		}
		j := strings.IndexByte(v[i:], ')')
		if j < 0 || !allDigits(v[i+1:i+j]) {
			return ""
		}
		if len(b) > 0 && i+j+1 < len(v) {
			b = append(b, '.')
		}
		i += j
	}
	s.buf = b
	return s.e.Copy(b)
}
