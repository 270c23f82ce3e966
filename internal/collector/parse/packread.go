package parse

import (
	"strconv"
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/collector/parse/packs"
)

// How a pack's read steps take a text apart. Each fills slots with parts of the line and answers whether the text had its form.

func (s *Set) step(st *packs.Step, msg string) bool {
	t := s.run.slots.Get(st.In)
	if st.After != "" {
		i := find.Index(t, st.After)
		if i < 0 {
			return false
		}
		t = t[i+len(st.After):]
	}
	if t == "" {
		return false
	}
	switch st.Kind {
	case packs.StepAny:
		for i := range st.Any {
			if s.step(&st.Any[i], msg) {
				return true
			}
		}
		return false
	case packs.StepLine:
		for i := range st.Patterns {
			if st.Patterns[i].Match(t, &s.run.slots, &s.run.fuel) {
				return true
			}
		}
		return false
	case packs.StepKV:
		return s.stepKV(st, t)
	case packs.StepColumns:
		return s.stepColumns(st, t)
	case packs.StepJSON:
		return s.stepJSON(st, t)
	case packs.StepCEF:
		return s.stepCEF(st, t)
	case packs.StepLEEF:
		return s.stepLEEF(t)
	case packs.StepXML:
		return s.stepXML(t)
	}
	return false
}

// maxPairs bounds the pairs that are looked at in one line.
const maxPairs = 1000

func (s *Set) stepKV(st *packs.Step, t string) bool {
	n := 0
	if st.Pairs == "" && st.Equals == "=" {
		if st.Prefix == "" {
			return s.stepPairs(t, st.Bare)
		}
		w := kv{s: t, bare: st.Bare}
		for ; n < maxPairs; n++ {
			key, v, ok := w.next()
			if !ok {
				break
			}
			s.pair(st, key, v)
		}
		return n > 0
	}
	for n < maxPairs && t != "" {
		var item string
		item, t = cutPair(t, st.Pairs)
		key, v, ok := strings.Cut(item, st.Equals)
		if !ok {
			continue
		}
		key = trim(key)
		if key == "" || len(key) > 64 {
			continue
		}
		n++
		s.pair(st, key, unquote(trim(v)))
	}
	return n > 0
}

// pairEnds are the bytes that end a value without quotes.
const pairEnds = ';'<<24 | ','<<16 | '\t'<<8 | ' '

// stepPairs is the walk of kv over key=value for a pack, with the names that it remembers.
func (s *Set) stepPairs(t string, bare bool) bool {
	r := &s.run
	s.memoryFor(r.pack)
	r.known = false
	return s.pairs(t, 0, &r.memory.start, maxPairs, bare)
}

// pairs is stepPairs from t[i:] on, behind the value of the name last. left is how many pairs may still be looked at.
func (s *Set) pairs(t string, i int, last *name, left int, bare bool) bool {
	r := &s.run
	m, slots := r.memory, &r.slots
	r.limit = r.marks.Find(t, '"', pairEnds)
	for ; left > 0; left-- {
		if i, last, left = s.walk(t, i, last, left, bare); left == 0 {
			break
		}
		var x *name
		text, gap := "", byte(0)
		if i+8 <= len(t) { // the names expected here
			gap = t[i]
			if x = last.expected(t, i, load(t, i)^m.gap); x != nil {
				i += x.size
			}
		}
		if x == nil {
			from := i
			for i < len(t) && (t[i] == ' ' || t[i] == ',') {
				i++
			}
			end := 0
			if x, end = m.at(t, i); x == nil {
				w := kv{s: t, i: i, bare: bare}
				var ok bool
				if text, ok = w.key(); !ok {
					r.known = r.known && from == len(t)
					break
				}
				r.known = r.known && w.i == i+len(text)+1 // with nothing else before it
				x, end = m.meet(r.pack, text), w.i
			}
			r.known = r.known && (r.depth > 0 && i > from || r.depth == 0 && i == 0) // directly behind a quote it is no text to compare
			if x != nil {
				if i == from+1 {
					m.gap = uint64(t[from] ^ ' ')
				}
				last.after(x)
			}
			if i > 0 {
				gap = t[i-1]
			}
			i = end
		}
		if x != nil {
			last = x
			r.pass(x, gap)
		} else {
			r.known = false
		}
		if i >= len(t) {
			continue
		}
		var v string
		if v, i = pairValue(t, i, bare); v == "" {
			continue
		}
		if x != nil && x.slot >= 0 {
			slots.First(x.slot, v)
			if x.mapped {
				continue
			}
		}
		if x != nil {
			if text == "" {
				text = x.text
			}
			n := r.n
			if s.otherName(x, v); r.n > n {
				r.others[n].name = text
			}
		} else {
			s.other(text, v, 0)
		}
	}
	if r.known && left > 0 && r.depth > 0 {
		s.keepTrail(m)
	}
	return left < maxPairs
}

// pairValue reads the value at t[i:], which is not the end, and gives the place behind it.
func pairValue(t string, i int, bare bool) (v string, end int) {
	switch c := t[i]; {
	case c == '"' || c == '\'' && !bare:
		if c == '"' {
			if q := quoteAt(t, i+1); q >= 0 && t[q-1] != '\\' {
				return t[i+1 : q], q + 1
			}
		}
	case !bare:
		end = valueEnd(t, i)
		return t[i:end], end
	}
	w := kv{s: t, i: i, bare: bare}
	v = w.value()
	return v, w.i
}

func (s *Set) pair(st *packs.Step, key, v string) {
	if st.Prefix != "" {
		key = strings.TrimPrefix(key, st.Prefix)
	}
	if v != "" && !s.take(key, v) {
		s.other(key, v, 0)
	}
}

// cutPair cuts the next item off at sep, which inside double quotes does not count.
func cutPair(t, sep string) (item, rest string) {
	if sep == "" {
		sep = " "
	}
	at := 0
	for {
		i := find.Index(t[at:], sep)
		if i < 0 {
			return t, ""
		}
		i += at
		// A quote that is open at the separator is looked for its end.
		q := strings.IndexByte(t[at:i], '"')
		if q < 0 {
			return t[:i], t[i+len(sep):]
		}
		end := strings.IndexByte(t[at+q+1:], '"')
		if end < 0 {
			return t[:i], t[i+len(sep):]
		}
		at += q + 1 + end + 1
		if at >= i {
			continue
		}
	}
}

func (s *Set) stepColumns(st *packs.Step, t string) bool {
	if h := s.run.head; h != nil && h.step == st {
		return s.headed(h, st, t)
	}
	if len(st.Header)+len(st.Titles) > 0 && s.header(st, t) {
		s.run.header = true
		return true
	}
	n := 0
	more := true
	for i := 0; i < len(st.Columns) && more; i++ {
		var v string
		v, t, more = cutColumn(t, st.Delimiter, st.Quote)
		n++
		if slot := st.Columns[i]; slot >= 0 && v != "" {
			s.run.slots.Put(slot, v)
		}
	}
	return n >= st.Min
}

// cutColumn cuts the first column off; a quoted one may hold the delimiter, and doubled quotes, which stay as they are.
func cutColumn(t string, delimiter, quote byte) (v, rest string, more bool) {
	if quote != 0 && len(t) > 2 && t[0] == ' ' && t[1] == quote && delimiter != ' ' { // "a", "b"
		t = t[1:]
	}
	if quote != 0 && len(t) > 1 && t[0] == quote {
		for i := 1; i < len(t); i++ {
			k := strings.IndexByte(t[i:], quote)
			if k < 0 {
				break
			}
			i += k
			if i+1 < len(t) && t[i+1] == quote {
				i++
				continue
			}
			v = t[1:i]
			j := strings.IndexByte(t[i:], delimiter)
			if j < 0 {
				return v, "", false
			}
			return v, t[i+j+1:], true
		}
	}
	i := strings.IndexByte(t, delimiter)
	if i < 0 {
		return t, "", false
	}
	return t[:i], t[i+1:], true
}

func (s *Set) stepJSON(st *packs.Step, t string) bool {
	i := strings.IndexByte(t, '{')
	w := &s.json
	if i < 0 || !w.start(t[i:]) {
		return false
	}
	n := 0
	var listName string // the name of the list element at hand
	for ; n < 2000 && w.next(); n++ {
		if w.val.kind == '0' || len(w.val.raw) == 0 {
			continue
		}
		path, leaf := w.path[:w.n], w.leaf
		if st.Prefix != "" && strings.HasPrefix(string(path), st.Prefix) {
			path = path[len(st.Prefix):]
			leaf = max(leaf-len(st.Prefix), 0)
		}
		if len(st.Lists) > 0 && s.listPair(st, path, &listName) {
			continue
		}
		slot, ok := s.run.pack.Names.SlotBytes(path)
		if ok {
			if s.run.slots.Get(int(slot)) == "" {
				s.run.slots.Put(int(slot), s.jstr(w.val))
			}
			if s.run.pack.Mapped[slot] {
				continue
			}
		}
		if s.run.n < packMaxOthers && s.run.pack.Others != packs.OthersDrop {
			s.other(s.e.Copy(path), s.jstr(w.val), leaf)
		}
	}
	return n > 0
}

// listPair reads one member of an array of {"name": n, "value": v} as PATH.n = v. It answers whether the member was one.
func (s *Set) listPair(st *packs.Step, path []byte, name *string) bool {
	for i := range st.Lists {
		l := &st.Lists[i]
		if len(path) <= len(l.Path)+1 || string(path[:len(l.Path)]) != l.Path || path[len(l.Path)] != '.' {
			continue
		}
		rest := path[len(l.Path)+1:]
		switch {
		case string(rest) == l.Name:
			*name = s.jstr(s.json.val)
			return true
		case string(rest) == l.Value || len(rest) > len(l.Value) && string(rest[:len(l.Value)]) == l.Value && rest[len(l.Value)] == '.':
			if *name == "" || len(*name) > 100 {
				return true
			}
			b := append(append(append(s.buf[:0], l.Path...), '.'), *name...)
			s.buf = b
			full := s.e.Copy(b)
			if v := s.jstr(s.json.val); !s.take(full, v) {
				s.other(full, v, len(l.Path)+1)
			}
			return true
		}
	}
	return false
}

func (s *Set) stepCEF(st *packs.Step, t string) bool {
	t = trimLeft(strings.TrimPrefix(t, "CEF:"))
	var head [7]string
	rest, n := cefHeader(t, head[:])
	if n < 6 {
		return false
	}
	for i, name := range [...]string{"", "cef.vendor", "cef.product", "cef.version", "cef.id", "cef.name", "cef.severity"} {
		if i > 0 && head[i] != "" {
			s.take(name, head[i])
		}
	}
	s.run.cef, s.run.name = rest, head[5]
	s.cefHead(head[3], head[4], head[6])
	w := s.cefPairs(rest)
	for w.next(s) {
		if w.label {
			continue
		}
		key, v := w.key, w.val
		if (len(st.Prefixes) > 0 || st.Mark != "") && s.takeMarked(st, &key, v) {
			continue
		}
		if !s.take(key, v) && s.run.pack.Others == packs.OthersKeep {
			s.other(key, v, 0)
		}
	}
	w.labelled(func(label, v string) { s.take(label, v) })
	return true
}

// takeMarked cuts a vendor's prefix from a CEF name, or puts the mark before a name that has none. It answers whether the value was taken.
func (s *Set) takeMarked(st *packs.Step, key *string, v string) bool {
	for _, p := range st.Prefixes {
		if k, ok := strings.CutPrefix(*key, p); ok && k != "" {
			*key = k
			return false
		}
	}
	if st.Mark == "" {
		return false
	}
	s.buf = append(append(s.buf[:0], st.Mark...), *key...)
	slot, ok := s.run.pack.Names.SlotBytes(s.buf)
	if ok {
		s.run.slots.First(int(slot), v)
	}
	return ok
}

func (s *Set) stepLEEF(t string) bool {
	t = trimLeft(strings.TrimPrefix(t, "LEEF:"))
	var head [5]string
	rest, n := cefHeader(t, head[:])
	if n < 5 {
		return false
	}
	for i, name := range [...]string{"", "leef.vendor", "leef.product", "leef.version", "leef.id"} {
		if i > 0 && head[i] != "" {
			s.take(name, head[i])
		}
	}
	w := leefPairs(head[0], rest)
	for pairs := 0; pairs < maxPairs; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v = unquote(trim(v)); v != "" && !s.take(key, v) {
			s.other(key, v, 0)
		}
	}
	return true
}

// stepXML reads elements by their own name, attributes as Element.Attribute, and <Data Name="x">v</Data> as x.
func (s *Set) stepXML(t string) bool {
	n := 0
	for ; n < 2*maxPairs; n++ {
		i := strings.IndexByte(t, '<')
		if i < 0 || i+2 >= len(t) {
			break
		}
		t = t[i+1:]
		if t[0] == '/' || t[0] == '?' || t[0] == '!' {
			continue
		}
		j := 0
		for j < len(t) && (isAlpha(t[j]) || isDigit(t[j]) || t[j] == '_' || t[j] == '-' || t[j] == ':' || t[j] == '.') {
			j++
		}
		name := t[:j]
		if k := strings.IndexByte(name, ':'); k >= 0 {
			name = name[k+1:]
		}
		t = t[j:]
		label := ""
		for { // attributes
			t = trimLeft(t)
			k := 0
			for k < len(t) && (isAlpha(t[k]) || isDigit(t[k]) || t[k] == '_' || t[k] == '-' || t[k] == ':') {
				k++
			}
			if k == 0 || k+1 >= len(t) || t[k] != '=' || t[k+1] != '"' && t[k+1] != '\'' {
				break
			}
			attr := t[:k]
			end := strings.IndexByte(t[k+2:], t[k+1])
			if end < 0 {
				break
			}
			v := t[k+2 : k+2+end]
			t = t[k+3+end:]
			switch {
			case name == "Data" && attr == "Name":
				label = v
			case attr == "xmlns":
			case v != "":
				b := append(append(append(s.buf[:0], name...), '.'), attr...)
				s.buf = b
				if slot, ok := s.run.pack.Names.SlotBytes(b); ok {
					s.run.slots.First(int(slot), s.entities(v))
				}
			}
		}
		if t == "" || t[0] != '>' {
			continue
		}
		end := strings.IndexByte(t, '<')
		if end < 0 {
			break
		}
		v := trim(t[1:end])
		if v == "" || !strings.HasPrefix(t[end:], "</") {
			continue
		}
		if label != "" {
			name = label
		}
		if v = s.entities(v); !s.take(name, v) {
			s.other(name, v, 0)
		}
	}
	return n > 1
}

// numericEntity reads "&#39;" or "&#x27;": the character below 128 and the length, 0 when it is none.
func numericEntity(v string) (c byte, n int) {
	if !strings.HasPrefix(v, "&#") {
		return 0, 0
	}
	base, i := 10, 2
	if len(v) > 2 && (v[2] == 'x' || v[2] == 'X') {
		base, i = 16, 3
	}
	end := strings.IndexByte(v[:min(len(v), 12)], ';')
	if end <= i {
		return 0, 0
	}
	x, err := strconv.ParseUint(v[i:end], base, 8)
	if err != nil || x == 0 || x >= 128 {
		return 0, 0
	}
	return byte(x), end + 1
}

// entities undoes the five named XML entities and numeric ones below 128.
func (s *Set) entities(v string) string {
	if strings.IndexByte(v, '&') < 0 {
		return v
	}
	b := s.buf[:0]
	for i := 0; i < len(v); i++ {
		if v[i] == '&' {
			done := false
			for _, x := range [...]struct {
				name string
				c    byte
			}{{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}} {
				if strings.HasPrefix(v[i:], x.name) {
					b = append(b, x.c)
					i += len(x.name) - 1
					done = true
					break
				}
			}
			if c, n := numericEntity(v[i:]); !done && n > 0 {
				b = append(b, c)
				i += n - 1
				done = true
			}
			if done {
				continue
			}
		}
		b = append(b, v[i])
	}
	s.buf = b
	return s.e.Copy(b)
}
