package sigma

import (
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// load64 reads eight bytes of s at i, which must be there.
func load64(s string, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))
}

// hex4, escapes and appendUnescaped are like those of the program's own events: this package imports nothing of the program, so that it can be
// used without it.
func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var u rune
	for i := range 4 {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

// escapes gives what the character behind a backslash stands for.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// appendUnescaped appends what the JSON string s, which was checked, stands for. The result is never longer than s. A half of a surrogate
// pair alone becomes U+FFFD.
func appendUnescaped(dst []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		c := s[i+1]
		s = s[i+2:]
		if c != 'u' {
			dst = append(dst, escapes[c])
			continue
		}
		u, _ := hex4(s)
		s = s[4:]
		if utf16.IsSurrogate(u) {
			pair := rune(utf8.RuneError)
			if strings.HasPrefix(s, `\u`) {
				v, _ := hex4(s[2:])
				pair = utf16.DecodeRune(u, v)
			}
			if u = pair; u != utf8.RuneError {
				s = s[6:]
			}
		}
		dst = utf8.AppendRune(dst, u)
	}
}

// longText is from when on the wide registers pay.
const longText = 256

// lowUnescaped writes what the JSON string s stands for, in lower case, into dst, which has room for it and eight bytes more. It gives
// up, with ok false, at what is not ASCII or is written as \u.
func lowUnescaped(dst []byte, s string) (n int, ok bool) {
	const backslash = '\\' * swarOnes
	dst = dst[:cap(dst)]
	out := unsafe.Pointer(unsafe.SliceData(dst))
	i := 0
	// Long texts such as scripts are copied in whole blocks from escape to escape.
	for longText <= len(s)-i {
		k := lowerBlocks((*byte)(unsafe.Add(out, n)), (*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i)), (len(s)-i)/32)
		if i, n = i+k, n+k; i == len(s) || s[i] != '\\' {
			break // an end, or something that is not ASCII
		}
		for i < len(s) && s[i] == '\\' {
			c := escapes[s[i+1]]
			if c == 0 {
				return 0, false
			}
			dst[n] = c
			i, n = i+2, n+1
		}
	}
	for i+8 <= len(s) {
		x := load64(s, i)
		if x&swarHighs != 0 {
			return 0, false
		}
		*(*uint64)(unsafe.Add(out, n)) = lower8(x)
		m := ((x ^ backslash) - swarOnes) & ^(x ^ backslash) & swarHighs
		if m == 0 {
			i, n = i+8, n+8
			continue
		}
		t := bits.TrailingZeros64(m) >> 3
		i, n = i+t, n+t
		c := escapes[s[i+1]]
		if c == 0 {
			return 0, false
		}
		dst[n] = c
		i, n = i+2, n+1
	}
	for i < len(s) {
		c := s[i]
		i++
		switch {
		case c >= utf8.RuneSelf:
			return 0, false
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '\\':
			if c = escapes[s[i]]; c == 0 {
				return 0, false
			}
			i++
		}
		dst[n] = c
		n++
	}
	return n, true
}
