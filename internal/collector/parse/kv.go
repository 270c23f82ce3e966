package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// kv walks key=value pairs separated by blanks, tabs, commas or semicolons. A value may stand in double or single quotes;
// `\"` inside does not end it. A word without '=' is skipped. Keys are at most 64 bytes of letters, digits and "_-.:/@".
type kv struct {
	s    string
	i    int
	bare bool // an unquoted value runs on until the next "key=", so that it may hold blanks (Sophos, CEF, UniFi)
	sep  byte // when set, only this byte separates pairs
}

var keyBytes = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = isAlpha(b) || isDigit(b) || b == '_' || b == '-' || b == '.' || b == ':' || b == '/' || b == '@'
	}
	return t
}()

func keyByte(c byte) bool { return keyBytes[c] }

// next gives the next pair; ok is false at the end. It always moves on.
func (w *kv) next() (key, val string, ok bool) {
	if key, ok = w.key(); !ok {
		return "", "", false
	}
	return key, w.value(), true
}

// key gives the next pair's name and moves on to its value.
func (w *kv) key() (key string, ok bool) {
	s := w.s
	i := w.i
	for {
		for i < len(s) && (s[i] == ' ' || s[i] == ',' || s[i] == '\t' || s[i] == ';' || s[i] == '|') {
			i++
		}
		if i >= len(s) {
			w.i = i
			return "", false
		}
		start := i
		for i < len(s) && keyByte(s[i]) {
			i++
		}
		if i < len(s) && s[i] == '=' && i > start && i-start <= 64 {
			key = s[start:i]
			i++
			break
		}
		// Not a pair: on to the next separator; a quoted text is passed over as a whole.
		if i < len(s) && s[i] == '"' {
			i = quoteEnd(s, i)
			continue
		}
		if i == start {
			i++
			continue
		}
	}
	w.i = i
	return key, true
}

// value gives the value at w.i, behind the equals sign, and moves on.
func (w *kv) value() string {
	s, i := w.s, w.i
	if i < len(s) && (s[i] == '"' || (s[i] == '\'' && !w.bare)) {
		end := quoteEnd(s, i)
		stop := end
		if stop > i+1 && stop <= len(s) && s[stop-1] == s[i] {
			stop--
		}
		val := s[i+1 : max(stop, i+1)]
		w.i = end
		return val
	}
	start := i
	if w.sep != 0 {
		if j := strings.IndexByte(s[i:], w.sep); j >= 0 {
			i += j
		} else {
			i = len(s)
		}
		w.i = i
		return s[start:i]
	}
	if !w.bare {
		w.i = valueEnd(s, i)
		return s[start:w.i]
	}
	end := nextKey(s, i)
	w.i = end
	return trim(s[start:end])
}

// quoteEnd gives the index behind the quote that closes the one at s[i].
func quoteEnd(s string, i int) int {
	q := s[i]
	j := i + 1
	for {
		k := strings.IndexByte(s[j:], q)
		if k < 0 {
			return len(s)
		}
		j += k
		// An odd number of backslashes before it escapes the quote, unless the value ends there (a Windows path).
		n := 0
		for j-n-1 > i && s[j-n-1] == '\\' {
			n++
		}
		if n%2 == 0 || j+1 == len(s) {
			return j + 1
		}
		if n%2 == 1 && j+2 < len(s) && s[j+1] == ' ' && endsPair(s[j+2:]) {
			return j + 1
		}
		j++
	}
}

// endsPair says whether s starts with key=.
func endsPair(s string) bool {
	i := 0
	for i < len(s) && i < 64 && keyByte(s[i]) {
		i++
	}
	return i > 0 && i < len(s) && s[i] == '='
}

// nextKey gives the index of the blank before the next "key=" at or after i, or len(s). An escaped "\=" is no key's end.
func nextKey(s string, i int) int {
	for {
		k := strings.IndexByte(s[i:], '=')
		if k < 0 {
			return len(s)
		}
		j := i + k
		if j > 0 && s[j-1] == '\\' {
			i = j + 1
			continue
		}
		start := j
		for start > i && keyByte(s[start-1]) {
			start--
		}
		if start < j && start > 0 && (s[start-1] == ' ' || s[start-1] == '\t') && start > i {
			return start - 1
		}
		if start < j && start == i && i > 0 && (s[i-1] == ' ' || s[i-1] == '\t') {
			return i
		}
		i = j + 1
	}
}

// genericKV reads key=value lines of unknown products. At least two pairs must be there, one of them known.
func (s *Set) genericKV(msg string) bool {
	if strings.Count(msg[:min(len(msg), 4096)], "=") < 2 {
		return false
	}
	s.weak = ""
	w := kv{s: msg, bare: bareValues(msg)}
	if strings.Count(msg[:min(len(msg), 400)], "|") > 3 {
		w.sep = '|'
	} else if strings.IndexByte(msg, '\t') >= 0 && strings.Count(msg, "\t") > 3 {
		w.sep = '\t'
	}
	if strings.Count(msg[:min(len(msg), 400)], ";") > 1 && !find.Has(msg, "; ") && w.sep == 0 {
		w.sep = ';'
	}
	known := 0
	for pairs := 0; pairs < 1000; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v = unquote(trim(v)); v == "" {
			continue
		}
		if i := strings.LastIndexByte(key, ':'); i >= 0 && i+1 < len(key) { // "BG[1]: 1427:01:event=logout"
			key = key[i+1:]
		}
		if s.generic(key, v) {
			known++
		} else {
			s.extra(key, v)
		}
	}
	// A time or a message alone is not an understood line.
	if known == 0 || !s.telling() {
		return false
	}
	s.genericDone("kv.generic")
	return true
}

// telling says whether the event has a field that says what happened to whom.
func (s *Set) telling() bool {
	for _, k := range [...]event.Key{event.SourceIP, event.DestinationIP, event.UserName, event.TocsinVerdict, event.URLOriginal, event.URLDomain, event.DNSQuestionName,
		event.EventAction, event.EventOutcome, event.RuleName, event.RuleID, event.FileName, event.SourceMAC, event.HostHostname, event.EmailFromAddress} {
		if s.e.Has(k) {
			return true
		}
	}
	return false
}

// bareValues guesses whether unquoted values hold blanks: when few values are quoted and most words are not pairs.
func bareValues(msg string) bool {
	return strings.IndexByte(msg, '"') < 0 && !find.Has(msg, "='") && strings.Count(msg, ", ") < 3 && strings.IndexByte(msg, '|') < 0 && strings.IndexByte(msg, '\t') < 0
}
