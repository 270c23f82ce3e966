// Package parsetest makes many lines of a few samples, for the benchmarks: a device never sends the same line twice, so a parser that is timed
// with lines that come back byte for byte is timed with whatever it, or the processor, remembers of them.
// Only tests import it.
package parsetest

import (
	"fmt"
	"math/rand/v2"
)

// Lines gives at least n lines: all samples in turn, again and again in another order, each time with other addresses, ports, numbers of sessions
// and clocks. like says whether a line is still understood as its sample is; where it is not, the sample stands as it is. The lines stand behind one
// another in memory, as they do in an archive. The same samples give the same lines.
func Lines(samples [][]byte, n int, like func(sample, line []byte) bool) [][]byte {
	v := vary{r: rand.New(rand.NewPCG(7, 11))}
	var all []byte
	var ends []int
	order := make([]int, len(samples))
	for i := range order {
		order[i] = i
	}
	for len(ends) < n {
		v.pass++
		v.r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			line := v.line(samples[i])
			if !like(samples[i], line) {
				line = samples[i]
			}
			all = append(all, line...)
			ends = append(ends, len(all))
		}
	}
	lines, from := make([][]byte, len(ends)), 0
	for i, end := range ends {
		lines[i], from = all[from:end:end], end
	}
	return lines
}

type vary struct {
	r    *rand.Rand
	pass int
	out  []byte
}

// line gives the sample with other values of the same form.
func (v *vary) line(sample []byte) []byte {
	v.out = v.out[:0]
	for i := 0; i < len(sample); {
		n := 0
		if i == 0 || !word(sample[i-1]) {
			n = v.value(sample, i)
		} else if sample[i-1] == 'T' && clock(sample[i:]) {
			n = v.clock()
		}
		if n == 0 {
			v.out = append(v.out, sample[i])
			n = 1
		}
		i += n
	}
	return v.out
}

// value writes another value in place of the one at i and says how long that is; 0: there is none that may be another.
func (v *vary) value(s []byte, i int) int {
	if n := quad(s[i:]); n > 0 {
		v.address(s[i : i+n])
		return n
	}
	if n := address6(s[i:]); n > 0 {
		v.out = append(v.out, s[i:i+n-4]...)
		v.out = fmt.Appendf(v.out, "%04x", v.r.IntN(1<<16))
		return n
	}
	if clock(s[i:]) && (i == 0 || s[i-1] != ':') {
		return v.clock()
	}
	n := 0
	for i+n < len(s) && digit(s[i+n]) {
		n++
	}
	if n == 0 || i+n < len(s) && word(s[i+n]) || s[i] == '0' {
		return 0
	}
	switch {
	case n == 5 && string(s[i:i+5]) < "65536": // a port
		v.out = fmt.Appendf(v.out, "%d", 10000+v.r.IntN(55000))
	case n >= 6 && n <= 9 && i > 0 && (s[i-1] == '=' || s[i-1] == ' '): // a session, a count of bytes
		for j := range n {
			d := byte('0' + v.r.IntN(10))
			if j == 0 {
				d = s[i]
			}
			v.out = append(v.out, d)
		}
	default:
		return 0
	}
	return n
}

// clock writes the time of the pass over the samples, which lasts a second.
func (v *vary) clock() int {
	v.out = fmt.Appendf(v.out, "%02d:%02d:%02d", 8+v.pass/3600%10, v.pass/60%60, v.pass%60)
	return 8
}

// address writes another address beside the one given: in the same /24 where it is a private one or one kept for documents, else in the same
// /16.
func (v *vary) address(s []byte) {
	var b [4]int
	at := 0
	for _, c := range s {
		if c == '.' {
			at++
		} else {
			b[at] = b[at]*10 + int(c-'0')
		}
	}
	switch {
	case b[0] == 0 || b[0] == 127 || b[0] >= 224 || b[3] == 0 || b[3] == 255: // not of one machine
	case b[0] == 10 || b[0] == 172 || b[0] == 192 || b[0] == 198 || b[0] == 203:
		b[3] = 1 + v.r.IntN(254)
	default:
		b[2], b[3] = v.r.IntN(256), 1+v.r.IntN(254)
	}
	v.out = fmt.Appendf(v.out, "%d.%d.%d.%d", b[0], b[1], b[2], b[3])
}

// quad is the length of an IPv4 address at the start of s, 0 when there is none.
func quad(s []byte) int {
	i := 0
	for part := range 4 {
		n, from := 0, i
		for ; i < len(s) && digit(s[i]) && i-from < 4; i++ {
			n = n*10 + int(s[i]-'0')
		}
		if i == from || n > 255 || s[from] == '0' && i-from > 1 {
			return 0
		}
		if part < 3 {
			if i == len(s) || s[i] != '.' {
				return 0
			}
			i++
		}
	}
	if i < len(s) && word(s[i]) {
		return 0
	}
	return i
}

// address6 is the length of an IPv6 address at the start of s that ends with a group of four digits, 0 when there is none. A hardware address is none.
func address6(s []byte) int {
	i, colons, last, gap := 0, 0, -1, false
	for ; i < len(s) && (digit(s[i]) || s[i] >= 'a' && s[i] <= 'f' || s[i] == ':'); i++ {
		if s[i] == ':' {
			gap = gap || last == i-1
			colons, last = colons+1, i
		}
	}
	if i-last != 5 || colons < 2 || colons != 7 && !gap || i < len(s) && word(s[i]) {
		return 0
	}
	return i
}

// clock says whether s begins with hh:mm:ss.
func clock(s []byte) bool {
	if len(s) < 8 || s[2] != ':' || s[5] != ':' || s[0] > '2' || s[3] > '5' || s[6] > '5' || len(s) > 8 && (word(s[8]) && s[8] != '.' || s[8] == ':') {
		return false
	}
	for _, i := range [...]int{0, 1, 3, 4, 6, 7} {
		if !digit(s[i]) {
			return false
		}
	}
	return true
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func word(c byte) bool {
	return digit(c) || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '_'
}
