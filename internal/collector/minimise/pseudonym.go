package minimise

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"tocsin/internal/event"
)

// PseudonymIP is the address in fd00::/8 that stands for an own address: 120 bits of HMAC-SHA256 under the member's key. The same address
// always has the same pseudonym, and it stays an inside address for everybody who sees it.
func (m *Minimiser) PseudonymIP(a netip.Addr) netip.Addr {
	b := a.Unmap().As16()
	known := &m.aliases[(b[15]^b[14]*31^b[13]*17)%(1<<aliasBits)]
	if known.of != b || known.as[0] == 0 {
		sum := m.mac("address", b[:])
		known.of, known.as[0] = b, 0xfd
		copy(known.as[1:], sum[:])
	}
	return netip.AddrFrom16(known.as)
}

// alias is the pseudonym of an address, kept because the same few stand in line after line. as[0] is 0 while there is none.
type alias struct{ of, as [16]byte }

const aliasBits = 6

// hideAddresses gives s with the pseudonym in place of each own address that is written out in it, if such pseudonyms are asked for.
func (m *Minimiser) hideAddresses(s string) string {
	if !m.o.PseudonymAddresses {
		return s
	}
	var out []byte
	from := 0
	veil := func(a netip.Addr, i, end int) {
		out = append(append(out, s[from:i]...), m.PseudonymIP(a).String()...)
		from = end
	}
	for i := 0; i < len(s); {
		if i > 0 && (isDigit(s[i-1]) || s[i-1] == '.' && i > 1 && isDigit(s[i-2])) { // in the middle of one
			i++
			continue
		}
		if n := numbersAt(s, i); n > 0 {
			for end := i + n; i < end; {
				if a, n := quad(s[i:end]); n > 0 && m.IsOwn(a) {
					veil(a, i, i+n)
					i += n
				}
				for ; i < end && isDigit(s[i]); i++ {
				}
				for ; i < end && s[i] == '.'; i++ {
				}
			}
			continue
		}
		n := address6At(s, i)
		if n == 0 {
			i++
			continue
		}
		if a, err := netip.ParseAddr(s[i : i+n]); err == nil {
			if m.IsOwn(a) {
				veil(a, i, i+n)
			}
			i += n
			continue
		}
		// No address as a whole, but one may stand between its colons, such as behind "0:1:".
		for end := i + n; i < end; {
			a, n := m.ownWithin(s[i:min(end, i+maxAddress)])
			if n > 0 {
				veil(a, i, i+n)
				i += n
				continue
			}
			for i++; i < end && s[i-1] != ':'; i++ {
			}
		}
	}
	if out == nil {
		return s
	}
	return string(append(out, s[from:]...))
}

// maxAddress is the longest that an address is written.
const maxAddress = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")

// ownWithin is the longest own address at the beginning of s that ends with it or before a colon; 0: there is none.
func (m *Minimiser) ownWithin(s string) (netip.Addr, int) {
	for n := len(s); n > 1; n-- {
		if n < len(s) && s[n] != ':' {
			continue
		}
		if a, err := netip.ParseAddr(s[:n]); err == nil && m.IsOwn(a) {
			return a, n
		}
	}
	return netip.Addr{}, 0
}

// numbersAt is the length of four or more numbers joined by dots at i, or 0: an IPv4 address, one with its port behind a dot as tcpdump, BSD
// and Juniper write it, or something else, in which an address is looked for all the same.
func numbersAt(s string, i int) int {
	end, dots := i, 0
	for ; end < len(s) && (isDigit(s[end]) || end > i && s[end] == '.' && end+1 < len(s) && isDigit(s[end+1])); end++ {
		if s[end] == '.' {
			dots++
		}
	}
	if dots < 3 {
		return 0
	}
	return end - i
}

// quad reads the first four numbers of a row as an address, with leading zeros or not, and says how long they are; 0: they are none.
func quad(s string) (netip.Addr, int) {
	var b [4]byte
	i := 0
	for k := range b {
		from, n := i, 0
		for ; i < len(s) && isDigit(s[i]) && i-from < 4; i++ {
			n = n*10 + int(s[i]-'0')
		}
		if i == from || i-from > 3 || n > 255 {
			return netip.Addr{}, 0
		}
		b[k] = byte(n)
		if k < 3 {
			if i == len(s) {
				return netip.Addr{}, 0
			}
			i++ // the dot
		}
	}
	return netip.AddrFrom4(b), i
}

// address6At is the length of what may be a whole IPv6 address at i, or 0: hexadecimal digits and colons.
func address6At(s string, i int) int {
	if i > 0 && isWord(s[i-1]) {
		return 0
	}
	end, colons := i, 0
	for ; end < len(s) && (isHex(s[end]) || s[end] == ':' || s[end] == '.' && end+1 < len(s) && isDigit(s[end+1])); end++ {
		if s[end] == ':' {
			colons++
		}
	}
	if colons < 2 {
		return 0
	}
	if end-i > 2 && s[end-1] == ':' && s[end-2] != ':' { // a colon behind it
		end--
	}
	return end - i
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
func isWord(c byte) bool  { return c < utf8.RuneSelf && wordByte(c) }

// PseudonymUser is the word that stands for a user; case, domain and mail suffix do not matter.
func (m *Minimiser) PseudonymUser(name string) string {
	name = strings.ToLower(name)
	if i := strings.LastIndexByte(name, '\\'); i >= 0 {
		name = name[i+1:]
	}
	if i := strings.IndexByte(name, '@'); i > 0 {
		name = name[:i]
	}
	sum := m.mac("user", []byte(name))
	return "user-" + hex.EncodeToString(sum[:6])
}

const (
	pseudonymPrefix  = "tocsin pseudonym v1 "
	pseudonymAddress = pseudonymPrefix + "address\x00"
)

// mac is HMAC-SHA256 under the member's key.
func (m *Minimiser) mac(what string, b []byte) (sum [32]byte) {
	h := hmac.New(sha256.New, m.o.PseudonymKey[:])
	h.Write([]byte(pseudonymPrefix + what + "\x00"))
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

// Pseudonym kinds.
const (
	AddressPseudonym = "address"
	UserPseudonym    = "user"
)

var userPseudonym = regexp.MustCompile(`^user-[0-9a-f]{12}$`)

// PseudonymKind says what a pseudonym stands for; "" when it is none.
func PseudonymKind(s string) string {
	if userPseudonym.MatchString(s) {
		return UserPseudonym
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() && a.As16()[0] == 0xfd {
		return AddressPseudonym
	}
	return ""
}

// Reveal turns a pseudonymous address back by trying every IPv4 address of the member's own ranges and 192.168.0.0/16, or, when wide is asked
// for, of all other private ranges: 17 million in 10.0.0.0/8, some seconds. ok is false when none has that pseudonym, as with IPv6, whose
// ranges nobody can try: RevealIn looks in what was seen.
func (m *Minimiser) Reveal(pseudonym netip.Addr, wide bool) (netip.Addr, bool) {
	ranges := append(prefixes("192.168.0.0/16"), m.own.named...)
	if wide {
		ranges = prefixes("172.16.0.0/12", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")
	}
	want := pseudonym.As16()
	try := newTrier(m.o.PseudonymKey)
	for _, p := range ranges {
		if !p.Addr().Is4() {
			continue
		}
		first := binary.BigEndian.Uint32(p.Masked().Addr().AsSlice())
		for n := range uint32(1) << (32 - p.Bits()) {
			if sum := try.address(first + n); [15]byte(sum[:15]) == [15]byte(want[1:]) {
				var b [4]byte
				binary.BigEndian.PutUint32(b[:], first+n)
				return netip.AddrFrom4(b), true
			}
		}
	}
	return netip.Addr{}, false
}

// trier makes the pseudonyms of many IPv4 addresses. It is HMAC-SHA256 (RFC 2104) as in mac, written so that a try costs two short sums
// and no memory.
type trier struct {
	inner [sha256.BlockSize + len(pseudonymAddress) + 16]byte
	outer [sha256.BlockSize + sha256.Size]byte
}

func newTrier(key [32]byte) *trier {
	t := &trier{}
	for i := range sha256.BlockSize {
		k := byte(0)
		if i < len(key) {
			k = key[i]
		}
		t.inner[i], t.outer[i] = k^0x36, k^0x5c
	}
	at := copy(t.inner[sha256.BlockSize:], pseudonymAddress) + sha256.BlockSize
	t.inner[at+10], t.inner[at+11] = 0xff, 0xff // an IPv4 address in 16 bytes
	return t
}

func (t *trier) address(a uint32) [sha256.Size]byte {
	binary.BigEndian.PutUint32(t.inner[len(t.inner)-4:], a)
	sum := sha256.Sum256(t.inner[:])
	copy(t.outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(t.outer[:])
}

// RevealIn says which value of the event has the pseudonym: an own address, or a user.
func (m *Minimiser) RevealIn(e *event.Event, pseudonym string) (string, bool) {
	kind := PseudonymKind(pseudonym)
	for i := range e.Len() {
		k, v := e.At(i)
		switch {
		case kind == AddressPseudonym && v.Kind() == event.IP && m.IsOwn(v.IP()):
			if a, err := netip.ParseAddr(pseudonym); err == nil && m.PseudonymIP(v.IP()) == a {
				return v.IP().String(), true
			}
		case kind == UserPseudonym && slices.Contains(people, k) && m.PseudonymUser(v.Str()) == pseudonym:
			return strings.Clone(v.Str()), true
		}
	}
	return "", false
}
