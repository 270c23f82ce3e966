package indicator

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/dchest/siphash"
	"github.com/gaissmai/bart"
)

const (
	magic      = "TOCSINI\x01"
	headerSize = 48
	size4      = 5
	size6      = 17
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrFormat marks bytes that are not a whole, well-formed set of a format this
// program reads.
var ErrFormat = errors.New("not a readable indicator set")

// MaxSize is the largest set Open accepts, in bytes.
const MaxSize = headerSize + 8*MaxEntries + size6*MaxPrefixes + 4

// sub is the SipHash key of one kind.
type sub struct{ k0, k1 uint64 }

func (s sub) hash(b []byte) uint64 { return siphash.Hash(s.k0, s.k1, b) }

func subKey(key [16]byte, kind Kind) sub {
	k0, k1 := binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
	return sub{
		siphash.Hash(k0, k1, []byte{byte(kind), 0}),
		siphash.Hash(k0, k1, []byte{byte(kind), 1}),
	}
}

// Hash returns the number a set with this key uses for a value: the ID of the
// Hit when something matches it.
func Hash(key [16]byte, kind Kind, value string) (uint64, error) {
	kind, v, err := Canonical(kind, value)
	if err != nil {
		return 0, err
	}
	return hashCanonical(subKey(key, kind), kind, v), nil
}

func hashCanonical(s sub, kind Kind, v string) uint64 {
	switch kind {
	case IP:
		a := netip.MustParseAddr(v).As16()
		return s.hash(a[:])
	case Prefix:
		return hashPrefix(s, netip.MustParsePrefix(v))
	case File:
		raw, _ := hex.DecodeString(v) // Canonical let only hexadecimal through
		return s.hash(raw)
	}
	return s.hash([]byte(v))
}

func hashPrefix(s sub, p netip.Prefix) uint64 {
	var b [17]byte
	a := p.Addr().As16()
	copy(b[:], a[:])
	b[16] = byte(p.Bits())
	if p.Addr().Is4() {
		b[16] += 96
	}
	return s.hash(b[:])
}

// EntryError says which entry Build refused.
type EntryError struct {
	Index int
	Entry Entry
	Err   error
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("indicator %d: %v", e.Index+1, e.Err)
}

func (e *EntryError) Unwrap() error { return e.Err }

// Build makes a set of the entries; equal ones are kept once. The key should be
// random for every set. The first entry that is wrong or too wide ends it with
// an *EntryError: check entries with Canonical when they arrive.
func Build(key [16]byte, entries []Entry) ([]byte, error) {
	if len(entries) > MaxEntries {
		return nil, fmt.Errorf("%d indicators are more than the %d one set can hold", len(entries), MaxEntries)
	}
	var subs [Prefix + 1]sub
	for k := IP; k <= Prefix; k++ {
		subs[k] = subKey(key, k)
	}
	var hashes [File + 1][]uint64
	var p4, p6 [][]byte
	for i, e := range entries {
		kind, v, err := Canonical(e.Kind, e.Value)
		if err != nil {
			return nil, &EntryError{i, e, err}
		}
		if kind != Prefix {
			hashes[kind] = append(hashes[kind], hashCanonical(subs[kind], kind, v))
			continue
		}
		p := netip.MustParsePrefix(v)
		rec := append(p.Addr().AsSlice(), byte(p.Bits()))
		if p.Addr().Is4() {
			p4 = append(p4, rec)
		} else {
			p6 = append(p6, rec)
		}
	}
	unique := func(p [][]byte) [][]byte {
		slices.SortFunc(p, bytes.Compare)
		return slices.CompactFunc(p, bytes.Equal)
	}
	p4, p6 = unique(p4), unique(p6)
	if n := len(p4) + len(p6); n > MaxPrefixes {
		return nil, fmt.Errorf("%d address ranges are more than the %d one set can hold", n, MaxPrefixes)
	}
	out := make([]byte, 0, headerSize+8*len(entries)+4)
	out = append(out, magic...)
	out = append(out, key[:]...)
	for k := IP; k <= File; k++ {
		slices.Sort(hashes[k])
		hashes[k] = slices.Compact(hashes[k])
		out = binary.LittleEndian.AppendUint32(out, uint32(len(hashes[k])))
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(len(p4)))
	out = binary.LittleEndian.AppendUint32(out, uint32(len(p6)))
	for k := IP; k <= File; k++ {
		for _, h := range hashes[k] {
			out = binary.LittleEndian.AppendUint64(out, h)
		}
	}
	for _, p := range slices.Concat(p4, p6) {
		out = append(out, p...)
	}
	return appendSum(out), nil
}

// section is one kind's sorted hashes with an index over their leading bits, so
// that a look-up touches the index once and then a handful of neighbours.
type section struct {
	sub    sub
	hashes []uint64
	index  []uint32 // index[b] is where hashes with leading bits b begin
	shift  uint
	// maybe has a bit for the leading bits of each hash, sixteen to thirty-two times as many as there are hashes: nearly every look-up of what is not
	// listed, and nearly nothing is, ends at one byte of some 64 KiB. It has at least one word, so that asking needs no other question.
	maybe  []uint64
	narrow uint // how far a hash is shifted to give its bit
}

func (s *section) build() {
	n := max(6, bits.Len(uint(len(s.hashes)))+4)
	s.maybe, s.narrow = make([]uint64, 1<<(n-6)), uint(64-n)
	for _, h := range s.hashes {
		s.maybe[h>>s.narrow>>6] |= 1 << (h >> s.narrow & 63)
	}
	if len(s.hashes) == 0 {
		return
	}
	b := bits.Len(uint(len(s.hashes) / 4)) // about four hashes to a bucket
	s.shift = uint(64 - b)
	s.index = make([]uint32, (1<<b)+1)
	at := 0
	for i := range s.index[:1<<b] {
		for at < len(s.hashes) && s.bucket(s.hashes[at]) < uint64(i) {
			at++
		}
		s.index[i] = uint32(at)
	}
	s.index[1<<b] = uint32(len(s.hashes))
}

func (s *section) bucket(h uint64) uint64 { return h >> s.shift }

func (s *section) has(h uint64) bool {
	at := h >> (s.narrow & 63)
	return s.maybe[at>>6]&(1<<(at&63)) != 0 && s.listed(h)
}

func (s *section) listed(h uint64) bool {
	b := s.bucket(h)
	for _, x := range s.hashes[s.index[b]:s.index[b+1]] {
		if x >= h {
			return x == h
		}
	}
	return false
}

// Set is an opened indicator set. It is immutable.
type Set struct {
	key      [16]byte
	sections [File + 1]section
	prefixes bart.Lite
	wide     [1 << 10]uint64 // a bit for each first half of an IPv4 address in which a range lies
	four     halfway         // of the hash of an IPv4 address
	prefix   sub
	n        [Prefix + 1]int
}

// Open reads a set. b is not kept. Errors wrap ErrFormat, or ErrTooWide when
// the set holds a range no set may hold: the collector's own check, whoever
// signed it.
func Open(b []byte) (*Set, error) {
	bad := func(format string, args ...any) (*Set, error) {
		return nil, fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if len(b) < headerSize+4 {
		return bad("%d bytes are too few", len(b))
	}
	if !bytes.HasPrefix(b, []byte(magic[:7])) {
		return bad("it does not begin as one")
	}
	if b[7] != magic[7] {
		return bad("it has format %d and this program reads format 1: update it", b[7])
	}
	if len(b) > MaxSize {
		return bad("%d bytes are more than the %d allowed", len(b), MaxSize)
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return bad("the checksum is wrong, so it was cut short or changed on the way")
	}
	s := &Set{key: [16]byte(b[8:24])}
	s.prefix = subKey(s.key, Prefix)
	var counts [6]uint64
	for i := range counts {
		counts[i] = uint64(binary.LittleEndian.Uint32(b[24+4*i:]))
	}
	total := counts[0] + counts[1] + counts[2] + counts[3]
	if total+counts[4]+counts[5] > MaxEntries || counts[4]+counts[5] > MaxPrefixes {
		return bad("it announces more entries than the %d allowed", MaxEntries)
	}
	if want := headerSize + 8*total + size4*counts[4] + size6*counts[5]; want != uint64(len(body)) {
		return bad("its %d bytes do not fit the %d its header announces", len(body), want)
	}
	rest := body[headerSize:]
	for k := IP; k <= File; k++ {
		n := int(counts[k-IP])
		sec := &s.sections[k]
		sec.sub = subKey(s.key, k)
		sec.hashes = make([]uint64, n)
		for i := range sec.hashes {
			sec.hashes[i] = binary.LittleEndian.Uint64(rest[8*i:])
			if i > 0 && sec.hashes[i] <= sec.hashes[i-1] {
				return bad("its %s hashes are not in order", k)
			}
		}
		rest = rest[8*n:]
		sec.build()
		s.n[k] = n
	}
	for _, size := range []int{size4, size6} {
		n := int(counts[4])
		if size == size6 {
			n = int(counts[5])
		}
		var last []byte
		for range n {
			rec := rest[:size]
			rest = rest[size:]
			if last != nil && bytes.Compare(rec, last) <= 0 {
				return bad("its address ranges are not in order")
			}
			last = rec
			addr, _ := netip.AddrFromSlice(rec[:size-1])
			p := netip.PrefixFrom(addr, int(rec[size-1]))
			if !p.IsValid() || p != p.Masked() || addr.Is4In6() || p.IsSingleIP() {
				return bad("%s is not a proper address range", p)
			}
			if err := checkPrefix(p); err != nil {
				return nil, err
			}
			s.prefixes.Insert(p)
			if addr.Is4() {
				from := uint(rec[0])<<8 | uint(rec[1])
				for half := range uint(1) << max(0, 16-p.Bits()) {
					s.wide[(from+half)>>6] |= 1 << ((from + half) & 63)
				}
			}
		}
	}
	s.n[Prefix] = s.prefixes.Size()
	s.four = begin4(s.sections[IP].sub)
	return s, nil
}

// Key returns the set's hash key, which with Hash finds a Hit's indicator again.
func (s *Set) Key() [16]byte { return s.key }

// Len returns how many indicators of a kind the set holds; kind 0 counts all.
func (s *Set) Len(kind Kind) int {
	if kind == 0 {
		n := 0
		for _, m := range s.n {
			n += m
		}
		return n
	}
	if int(kind) >= len(s.n) {
		return 0
	}
	return s.n[kind]
}

// MatchIP looks an address up, alone and in the ranges (the longest counts).
// An IPv4 address mapped into IPv6 is taken as the IPv4 address.
func (s *Set) MatchIP(a netip.Addr) (Hit, bool) {
	if !a.IsValid() {
		return Hit{}, false
	}
	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		return s.MatchIPv4(binary.BigEndian.Uint32(b[:]))
	}
	if sec := &s.sections[IP]; len(sec.hashes) > 0 {
		b := a.As16()
		if h := sec.sub.hash(b[:]); sec.has(h) {
			return Hit{h, IP}, true
		}
	}
	if s.n[Prefix] > 0 && s.prefixes.Contains(a) {
		bits := a.BitLen()
		p, ok := s.prefixes.LookupPrefixLPM(netip.PrefixFrom(a.WithZone(""), bits))
		if ok {
			return Hit{hashPrefix(s.prefix, p), Prefix}, true
		}
	}
	return Hit{}, false
}

// MatchIPv4 is MatchIP for an IPv4 address, the first byte the highest.
func (s *Set) MatchIPv4(a uint32) (Hit, bool) {
	if sec := &s.sections[IP]; len(sec.hashes) > 0 {
		if h := s.four.hash(a); sec.has(h) {
			return Hit{h, IP}, true
		}
	}
	if half := a >> 16; s.wide[half>>6]&(1<<(half&63)) == 0 {
		return Hit{}, false
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], a)
	p, ok := s.prefixes.LookupPrefixLPM(netip.PrefixFrom(netip.AddrFrom4(b), 32))
	if !ok {
		return Hit{}, false
	}
	return Hit{hashPrefix(s.prefix, p), Prefix}, true
}

// MatchDomain looks a name up with every parent of at least two labels:
// evil.example matches mail.evil.example, not notevil.example. Case and a
// trailing dot do not matter. A listed public suffix never matches.
func (s *Set) MatchDomain(name string) (Hit, bool) {
	sec := &s.sections[Domain]
	if len(sec.hashes) == 0 {
		return Hit{}, false
	}
	name = strings.TrimSuffix(name, ".")
	if len(name) == 0 || len(name) > maxDomain {
		return Hit{}, false
	}
	var buf [maxDomain]byte
	last := -1 // the last dot; a suffix must begin before it
	for i := 0; i < len(name); i++ {
		buf[i] = lower(name[i])
		if name[i] == '.' {
			last = i
		}
	}
	d := buf[:len(name)]
	for at := 0; at <= last; {
		if h := sec.sub.hash(d[at:]); sec.has(h) && !tooBroad(string(d[at:])) {
			return Hit{h, Domain}, true
		}
		dot := bytes.IndexByte(d[at:], '.')
		if dot < 0 {
			break
		}
		at += dot + 1
	}
	return Hit{}, false
}

// MatchURL looks a URL up as it is and without its query. It does not look at
// the host alone: that is MatchDomain's or MatchIP's.
func (s *Set) MatchURL(u string) (Hit, bool) {
	sec := &s.sections[URL]
	if len(sec.hashes) == 0 {
		return Hit{}, false
	}
	var buf [maxURL]byte
	n, ok := canonicalURL(&buf, u)
	if !ok {
		return Hit{}, false
	}
	if h := sec.sub.hash(buf[:n]); sec.has(h) {
		return Hit{h, URL}, true
	}
	if q := bytes.IndexByte(buf[:n], '?'); q >= 0 {
		if h := sec.sub.hash(buf[:q]); sec.has(h) {
			return Hit{h, URL}, true
		}
	}
	return Hit{}, false
}

// MatchHash looks up the hexadecimal digest of a file (MD5, SHA-1, SHA-256 or
// SHA-512); case does not matter.
func (s *Set) MatchHash(digest string) (Hit, bool) {
	sec := &s.sections[File]
	if len(sec.hashes) == 0 || len(digest) > 128 || len(digest)%2 != 0 || len(digest) < 32 {
		return Hit{}, false
	}
	var raw [64]byte
	for i := 0; i < len(digest); i += 2 {
		hi, lo := nibble(digest[i]), nibble(digest[i+1])
		if hi > 15 || lo > 15 {
			return Hit{}, false
		}
		raw[i/2] = hi<<4 | lo
	}
	h := sec.sub.hash(raw[:len(digest)/2])
	return Hit{h, File}, sec.has(h)
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

func appendSum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}
