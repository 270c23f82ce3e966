package event

import (
	"encoding/hex"
	"math"
	"unicode/utf8"
)

// maxExactInt is the largest integer that every JSON reader keeps exactly (RFC 7493, I-JSON); larger ones travel as strings.
const maxExactInt = 1<<53 - 1

// AppendJSON appends the event as one flat JSON object with dotted names and no line end. Times are RFC 3339 strings in UTC, a list is an
// array, integers beyond 2^53 are strings. Bytes that are not UTF-8 become U+FFFD. The raw line is written only after IncludeRaw(true).
// Where the event stands (ID, Tenant) is not written: the stream says it.
func (e *Event) AppendJSON(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, '{')
	if e.Time != 0 {
		dst = append(dst, `,"@timestamp":"`...)
		dst = append(appendTime(dst, e.Time), '"')
	}
	if e.Created != 0 {
		dst = append(dst, `,"event.created":"`...)
		dst = append(appendTime(dst, e.Created), '"')
	}
	if e.Ingested != 0 {
		dst = append(dst, `,"event.ingested":"`...)
		dst = append(appendTime(dst, e.Ingested), '"')
	}
	quoted := registry.Load().quoted
	for i := 0; i < len(e.keys); {
		dst = append(dst, quoted[e.keys[i]]...)
		j := e.after(i)
		if j == i+1 {
			dst = appendValue(dst, e.vals[i])
			i = j
			continue
		}
		dst = append(dst, '[')
		for ; i < j; i++ {
			dst = append(appendValue(dst, e.vals[i]), ',')
		}
		dst[len(dst)-1] = ']'
	}
	for i := range e.extras {
		dst = append(dst, ',')
		dst = append(appendString(dst, e.extras[i].Name), ':')
		dst = appendString(dst, e.extras[i].Value)
	}
	if e.HasRawDigest {
		dst = append(dst, `,"event.hash":"`...)
		dst = append(hex.AppendEncode(dst, e.RawDigest[:]), '"')
	}
	if e.sendRaw {
		dst = append(dst, `,"event.original":`...)
		dst = appendString(dst, e.raw)
	}
	if len(dst) > start+1 { // every member was written with a comma before it
		copy(dst[start+1:], dst[start+2:])
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

func appendValue(dst []byte, v Value) []byte {
	switch v.kind() {
	case String:
		return appendString(dst, v.str())
	case Int:
		if n := int64(v.n); n > maxExactInt || n < -maxExactInt {
			dst = append(dst, '"')
			return append(v.AppendText(dst), '"')
		}
		return v.AppendText(dst)
	case Float:
		if f := v.Float(); math.IsInf(f, 0) || math.IsNaN(f) {
			return append(dst, "null"...)
		}
		return v.AppendText(dst)
	case Bool:
		return v.AppendText(dst)
	case IP, Time:
		dst = append(dst, '"')
		return append(v.AppendText(dst), '"')
	}
	return append(dst, "null"...)
}

// plain marks the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\' && c != 0x7f
	}
	return t
}()

const hexDigits = "0123456789abcdef"

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(dst, s[from:i]...)
			dst = append(dst, `�`...)
		} else {
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
