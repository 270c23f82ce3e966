package sigma

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unsafe"
)

// litSet seeks many literals in a value at once. Equal values, beginnings and ends are found by a hash of their length or outer bytes.
// Substrings are found by four-byte grams, a bitmap first and an exact table behind it: of every literal as many consecutive grams are
// entered as the scan steps forward, so that each place where it can be has one of them where the scan looks. Everything is compared in
// full before it counts.
type litSet struct {
	lits    []literal
	trigs   []int32   // by literal; what finding it means to the owner
	eqLens  uint64    // lengths of equal literals, those above 62 together
	eq      gramTable // by hashName
	prefix  gramTable // by the first four bytes
	suffix  gramTable // by the last four
	prefix8 gramTable // by a hash of the first eight, of literals that are long enough: thousands end in .exe
	suffix8 gramTable
	inner   gramTable
	bitmap  []uint64
	shift   uint
	step    int
	pairs   *pairSet // literals too short for grams, or for the step, if there are many
	single  []single // those that are sought one by one
	quick   *[8]byte // if those are few: each of them has one of these four pairs of bytes, see findPairs
	longest int      // of them
	minimum int      // length of the shortest in inner
	worth   bool     // a value that was searched before is worth looking up
}

// single is a literal that is sought by its rarest byte.
type single struct {
	lit    int32
	offset int32
}

// pairSet finds literals of two bytes and more by a pair of bytes in them.
type pairSet struct {
	bitmap [1 << 16 / 64]uint64
	table  gramTable
}

func pairAt(s string, i int) uint32 { return uint32(s[i]) | uint32(s[i+1])<<8 }

// gramTable finds the literals that have a gram at a place.
type gramTable struct {
	slots   []gramSlot
	mask    uint32
	entries []gramEntry
}

type gramSlot struct {
	gram   uint32
	lo, hi int32 // in entries; equal in a free slot
}

type gramEntry struct {
	gram   uint32
	lit    int32
	offset int32 // of the gram in the literal
}

const gramMul = 0x9E3779B1

func gramAt(s string, i int) uint32 {
	return *(*uint32)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), i))
}

// gram8 mixes eight bytes into four. Literals are compared in full behind it.
func gram8(s string, i int) uint32 {
	return uint32(load64(s, i) * 0x9E3779B97F4A7C15 >> 32)
}

func newLitSet() *litSet { return &litSet{} }

func (l *litSet) add(lit *literal, trig int32) {
	l.lits = append(l.lits, *lit)
	l.trigs = append(l.trigs, trig)
}

// commonness is about how many of a thousand bytes of folded Windows telemetry are this one, at least 1. Grams of rare bytes make better
// filters.
var commonness = func() (f [256]float64) {
	for i := range f {
		f[i] = 1
	}
	for _, class := range []struct {
		bytes string
		f     float64
	}{{"0", 85}, {"se", 52}, {"o-2", 43}, {"tiac", 35}, {"1nd3", 30}, {"r54w8m", 24}, {"f6\\9l 7", 20}, {".:b", 15}, {"yph", 11}, {"uxvg", 7}, {"k{}", 3}, {"%+/=z|", 2}} {
		for _, c := range []byte(class.bytes) {
			f[c] = class.f
		}
	}
	return f
}()

// commonGrams are in most paths, command lines and addresses.
var commonGrams = func() map[uint32]bool {
	m := map[uint32]bool{}
	for _, text := range []string{"c:\\windows\\system32\\", ".exe", ".dll", "powershell", "microsoft", "software", "users", "programdata", "https://", "http://", "\\appdata\\", "file", "version"} {
		for i := 0; i+4 <= len(text); i++ {
			m[gramAt(text, i)] = true
		}
	}
	return m
}()

// gramCounts is how often grams, and pairs of bytes, were seen in values of the kind that will be searched, by a hash; behind them single
// bytes. It is nil before anything was seen.
type gramCounts []uint16

func newGramCounts() gramCounts { return make(gramCounts, 1<<gramCountBits+256) }

const gramCountBits = 15

func (c gramCounts) note(s string) {
	for i := 0; i+2 <= len(s); i++ {
		c.add(1<<gramCountBits + uint32(s[i]))
		c.add(pairAt(s, i) * gramMul >> (32 - gramCountBits))
		if i+4 <= len(s) {
			c.add(gramAt(s, i) * gramMul >> (32 - gramCountBits))
		}
	}
}

func (c gramCounts) add(i uint32) {
	if c[i] < math.MaxUint16 {
		c[i]++
	}
}

// score is low for grams that are seldom met: what was seen decides, a guess from the characters breaks ties.
func (c gramCounts) score(g string) float64 {
	guess := gramGuess(g)
	if c == nil {
		return guess
	}
	return float64(c[gramAt(g, 0)*gramMul>>(32-gramCountBits)])*1e4 + guess
}

func gramGuess(g string) float64 {
	f := commonness[g[0]] * commonness[g[1]] * commonness[g[2]] * commonness[g[3]]
	if commonGrams[gramAt(g, 0)] {
		f *= 100
	}
	return f
}

// typicalValue is the length of values that is reckoned with when none has been seen.
const typicalValue = 50

// chooseStep weighs the probes of a scan against literals too short for its step. length is that of usual values. The unit is about a
// nanosecond. It also says whether the short ones are so many that they are sought by pairs of bytes. few are those shorter than any step.
func chooseStep(lens []int, few int, length float64) (step int, pairs bool) {
	cheapest := math.MaxFloat64
	for _, try := range []int{1, 2, 4, 8} {
		scan := 1.2 * length / float64(try)
		if len(lens) == 0 {
			scan = 0
		}
		n := few
		for _, l := range lens {
			if l < try+3 {
				n++
			}
		}
		oneByOne, together := float64(n)*(8+length/12), 5+0.8*length+float64(n)*(0.2+length/200)
		if c := scan + min(oneByOne, together); c < cheapest {
			step, pairs, cheapest = try, together < oneByOne, c
		}
	}
	return step, pairs
}

// build prepares l for values of about the given length, 0 if not known.
func (l *litSet) build(seen gramCounts, length float64) {
	var eq, prefix, suffix, prefix8, suffix8, inner []gramEntry
	var lens []int
	few := 0
	for i := range l.lits {
		if lit := &l.lits[i]; lit.op != opContains || len(lit.text) < 2 {
			continue
		} else if len(lit.text) >= 4 {
			lens = append(lens, len(lit.text))
		} else {
			few++
		}
	}
	if length == 0 {
		length = typicalValue
	}
	var inPairs bool
	l.step, inPairs = chooseStep(lens, few, length)
	var pairs []gramEntry
	l.minimum = math.MaxInt
	for i := range l.lits {
		n := int32(i)
		lit := &l.lits[i]
		t := lit.text
		switch {
		case lit.op == opEq:
			l.eqLens |= 1 << min(len(t), 63)
			eq = append(eq, gramEntry{hashName(t), n, 0})
		case inPairs && lit.op == opContains && len(t) >= 2 && len(t) < l.step+3:
			at := seen.rarestPair(t)
			pairs = append(pairs, gramEntry{pairAt(t, at), n, int32(at)})
		case len(t) < 4 || lit.op == opContains && len(t) < l.step+3:
			l.single = append(l.single, single{n, int32(seen.rarestByte(t))})
		case lit.op == opPrefix && len(t) >= 8:
			prefix8 = append(prefix8, gramEntry{gram8(t, 0), n, 0})
		case lit.op == opSuffix && len(t) >= 8:
			suffix8 = append(suffix8, gramEntry{gram8(t, len(t)-8), n, 0})
		case lit.op == opPrefix:
			prefix = append(prefix, gramEntry{gramAt(t, 0), n, 0})
		case lit.op == opSuffix:
			suffix = append(suffix, gramEntry{gramAt(t, len(t)-4), n, 0})
		default:
			l.minimum = min(l.minimum, len(t))
			inner = appendGrams(inner, t, n, l.step, seen)
		}
	}
	l.eq, l.prefix, l.suffix, l.prefix8, l.suffix8, l.inner = fillGrams(eq), fillGrams(prefix), fillGrams(suffix), fillGrams(prefix8), fillGrams(suffix8), fillGrams(inner)
	if hasAVX2 {
		l.chooseQuick(seen)
	}
	l.worth = len(inner)+len(pairs)+len(l.single) > 0
	if len(inner) > 0 {
		l.bitmap, l.shift = gramBitmap(inner)
	}
	if len(pairs) > 0 {
		l.pairs = &pairSet{table: fillGrams(pairs)}
		for _, e := range pairs {
			l.pairs.bitmap[e.gram>>6] |= 1 << (e.gram & 63)
		}
	}
}

// rarestByte gives the place in t of the byte which makes the best filter.
func (c gramCounts) rarestByte(t string) int {
	best, at := math.MaxFloat64, 0
	for i := range len(t) {
		score := commonness[t[i]]
		if c != nil {
			score += float64(c[1<<gramCountBits+int(t[i])])
		}
		if score < best {
			best, at = score, i
		}
	}
	return at
}

// rarestPair gives the place in t of the two bytes which make the best filter.
func (c gramCounts) rarestPair(t string) int {
	best, at := math.MaxFloat64, 0
	for i := 0; i+2 <= len(t); i++ {
		score := commonness[t[i]] * commonness[t[i+1]]
		if c != nil {
			score += 1e3 * float64(c[pairAt(t, i)*gramMul>>(32-gramCountBits)])
		}
		if score < best {
			best, at = score, i
		}
	}
	return at
}

// containsAt is strings.Contains for a text of which the byte at offset is known to be rare.
func containsAt(s, text string, offset int) bool {
	if text == "" || len(s) < len(text) {
		return text == ""
	}
	c := text[offset]
	last := len(s) - len(text) + offset
	for at, fails := offset, 0; at <= last; at++ {
		i := strings.IndexByte(s[at:last+1], c)
		if i < 0 {
			return false
		}
		at += i
		if from := at - offset; s[from:from+len(text)] == text {
			return true
		}
		if fails++; fails > 8+(at>>4) { // not so rare in this one
			return strings.Contains(s[at-offset+1:], text)
		}
	}
	return false
}

// collect appends the literals found in s to dst.
func (p *pairSet) collect(lits []literal, s string, dst []int32) []int32 {
	bm := &p.bitmap
	i := 0
	for ; i+8 <= len(s); i += 7 { // eight bytes hold seven pairs
		x := load64(s, i)
		hit := uint64(0)
		for k := 0; k < 56; k += 8 {
			g := uint16(x >> k)
			hit |= bm[g>>6] >> (g & 63)
		}
		if hit&1 == 0 {
			continue
		}
		for j := i; j < i+7; j++ {
			dst = p.verify(lits, s, j, dst)
		}
	}
	for ; i+2 <= len(s); i++ {
		dst = p.verify(lits, s, i, dst)
	}
	return dst
}

func (p *pairSet) verify(lits []literal, s string, i int, dst []int32) []int32 {
	g := pairAt(s, i)
	if p.bitmap[g>>6]>>(g&63)&1 == 0 {
		return dst
	}
	for _, e := range p.table.find(g) {
		t := lits[e.lit].text
		if from := i - int(e.offset); from >= 0 && from+len(t) <= len(s) && s[from:from+len(t)] == t {
			dst = append(dst, e.lit)
		}
	}
	return dst
}

// appendGrams enters step consecutive grams of t: those which are rarest together.
func appendGrams(list []gramEntry, t string, lit int32, step int, seen gramCounts) []gramEntry {
	at := 0
	if len(t) > step+3 {
		var room [64]float64
		scores := room[:0]
		for j := 0; j+4 <= len(t); j++ {
			scores = append(scores, seen.score(t[j:j+4]))
		}
		best := math.MaxFloat64
		for j := 0; j+step <= len(scores); j++ {
			score := 0.0
			for _, s := range scores[j : j+step] {
				score += s
			}
			if score < best {
				best, at = score, j
			}
		}
	}
	for k := range step {
		list = append(list, gramEntry{gramAt(t, at+k), lit, int32(at + k)})
	}
	return list
}

func fillGrams(list []gramEntry) gramTable {
	var t gramTable
	if len(list) == 0 {
		return t
	}
	slices.SortFunc(list, func(a, b gramEntry) int {
		if x, y := uint64(a.gram)<<32|uint64(a.lit), uint64(b.gram)<<32|uint64(b.lit); x != y {
			if x < y {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.offset, b.offset)
	})
	size := uint32(4)
	for size < uint32(len(list))*2 {
		size *= 2
	}
	t.slots, t.mask, t.entries = make([]gramSlot, size), size-1, list
	for lo := 0; lo < len(list); {
		hi := lo
		for hi < len(list) && list[hi].gram == list[lo].gram {
			hi++
		}
		h := list[lo].gram * gramMul >> 7 & t.mask
		for t.slots[h].hi != t.slots[h].lo {
			h = (h + 1) & t.mask
		}
		t.slots[h] = gramSlot{list[lo].gram, int32(lo), int32(hi)}
		lo = hi
	}
	return t
}

// gramBitmap makes a bitmap of 512 to 262,144 bits, at most about a thirtieth of them set if that suffices.
func gramBitmap(list []gramEntry) (bitmap []uint64, shift uint) {
	bits := uint(9)
	for bits < 18 && 1<<bits < len(list)*32 {
		bits++
	}
	bitmap, shift = make([]uint64, 1<<bits/64), 32-bits
	for _, e := range list {
		h := e.gram * gramMul >> shift
		bitmap[h>>6] |= 1 << (h & 63)
	}
	return bitmap, shift
}

func (t *gramTable) find(gram uint32) []gramEntry {
	for h := gram * gramMul >> 7 & t.mask; ; h = (h + 1) & t.mask {
		s := &t.slots[h]
		if s.lo == s.hi {
			return nil
		}
		if s.gram == gram {
			return t.entries[s.lo:s.hi]
		}
	}
}

// collect appends the numbers of literals found in s, folded, to dst; with first it stops at the first. One may be there more than once.
func (l *litSet) collect(s string, dst []int32, first bool) []int32 {
	if l.eqLens>>min(len(s), 63)&1 != 0 {
		for _, e := range l.eq.find(hashName(s)) {
			if s == l.lits[e.lit].text {
				dst = append(dst, e.lit)
				if first {
					return dst
				}
			}
		}
	}
	quick := l.quick != nil && len(s) > longText
	if quick {
		if dst = l.collectQuick(s, dst); first && len(dst) > 0 {
			return dst
		}
	}
	for _, x := range l.single {
		if quick && l.lits[x.lit].op == opContains {
			continue
		}
		if lit := &l.lits[x.lit]; lit.op == opContains && containsAt(s, lit.text, int(x.offset)) || lit.op != opContains && lit.match(s) {
			dst = append(dst, x.lit)
			if first {
				return dst
			}
		}
	}
	if l.pairs != nil {
		if dst = l.pairs.collect(l.lits, s, dst); first && len(dst) > 0 {
			return dst
		}
	}
	if len(s) < 4 {
		return dst
	}
	if len(s) >= 8 {
		if l.prefix8.slots != nil {
			for _, e := range l.prefix8.find(gram8(s, 0)) {
				if strings.HasPrefix(s, l.lits[e.lit].text) {
					dst = append(dst, e.lit)
				}
			}
		}
		if l.suffix8.slots != nil {
			for _, e := range l.suffix8.find(gram8(s, len(s)-8)) {
				if strings.HasSuffix(s, l.lits[e.lit].text) {
					dst = append(dst, e.lit)
				}
			}
		}
	}
	if l.prefix.slots != nil {
		for _, e := range l.prefix.find(gramAt(s, 0)) {
			if strings.HasPrefix(s, l.lits[e.lit].text) {
				dst = append(dst, e.lit)
			}
		}
	}
	if l.suffix.slots != nil {
		for _, e := range l.suffix.find(gramAt(s, len(s)-4)) {
			if strings.HasSuffix(s, l.lits[e.lit].text) {
				dst = append(dst, e.lit)
			}
		}
	}
	if first && len(dst) > 0 || len(s) < l.minimum {
		return dst
	}
	// The scan. Four places are looked at together, so that the processor need not wait for one after the other.
	shift, bitmap, step := l.shift, l.bitmap, l.step
	i := 0
	if hasAVX512 && len(s) >= 64+3 {
		if dst, i = l.collectWide(s, dst, first); i < 0 {
			return dst
		}
	}
	for ; i+3*step+4 <= len(s); i += 4 * step {
		h0 := gramAt(s, i) * gramMul >> shift
		h1 := gramAt(s, i+step) * gramMul >> shift
		h2 := gramAt(s, i+2*step) * gramMul >> shift
		h3 := gramAt(s, i+3*step) * gramMul >> shift
		if (bitmap[h0>>6]>>(h0&63)|bitmap[h1>>6]>>(h1&63)|bitmap[h2>>6]>>(h2&63)|bitmap[h3>>6]>>(h3&63))&1 == 0 {
			continue
		}
		for j := i; j <= i+3*step; j += step {
			dst = l.verify(s, j, dst)
		}
		if first && len(dst) > 0 {
			return dst
		}
	}
	for ; i+4 <= len(s); i += step {
		dst = l.verify(s, i, dst)
	}
	return dst
}

// collectWide does the scan of collect by the widest registers, up to a place that it gives; with first it gives -1 when it found something.
func (l *litSet) collectWide(s string, dst []int32, first bool) ([]int32, int) {
	blocks := (len(s) - 3) / 64
	lanes := uint32(0xffff)
	if l.step == 8 {
		lanes = 0x5555
	}
	for b := 0; b < blocks; b++ {
		n, hits := gramsAVX512((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), b*64)), blocks-b, &l.bitmap[0], uint32(l.shift), lanes, l.step)
		b += n
		for ; hits != 0; hits &= hits - 1 {
			bit := bits.TrailingZeros64(hits)
			dst = l.verify(s, b*64+bit&15*4+bit>>4*l.step, dst)
		}
		if first && len(dst) > 0 {
			return dst, -1
		}
	}
	return dst, blocks * 64
}

// chooseQuick looks for pairs of bytes by which the literals that are sought one by one are found together.
func (l *litSet) chooseQuick(seen gramCounts) {
	var pairs [8]byte
	n := 0
	for _, x := range l.single {
		lit := &l.lits[x.lit]
		if lit.op != opContains {
			continue
		}
		if n == len(pairs) || len(lit.text) < 2 {
			return
		}
		at := seen.rarestPair(lit.text)
		for k := n; k < len(pairs); k += 2 { // those that are not needed repeat the last
			pairs[k], pairs[k+1] = lit.text[at]|0x20, lit.text[at+1]|0x20
		}
		n += 2
		l.longest = max(l.longest, len(lit.text))
	}
	if n > 0 {
		l.quick = &pairs
	}
}

// collectQuick does for a long text what collect does with literals that are sought one by one.
func (l *litSet) collectQuick(s string, dst []int32) []int32 {
	const patience = 16
	blocks := (len(s) - 1) / 32
	hits := 0
	for b := 0; ; b++ {
		if b < blocks {
			b += findPairs((*byte)(unsafe.Add(unsafe.Pointer(unsafe.StringData(s)), b*32)), blocks-b, l.quick)
		}
		end := min(b*32+33+l.longest, len(s))
		if hits++; b >= blocks || hits > patience {
			end = len(s)
		}
		part := s[max(b*32-l.longest, 0):end]
		for _, x := range l.single {
			if lit := &l.lits[x.lit]; lit.op == opContains && containsAt(part, lit.text, int(x.offset)) {
				dst = append(dst, x.lit)
			}
		}
		if end == len(s) {
			return dst
		}
	}
}

// verify appends the literals that have the gram at i where it is.
func (l *litSet) verify(s string, i int, dst []int32) []int32 {
	g := gramAt(s, i)
	if h := g * gramMul >> l.shift; l.bitmap[h>>6]>>(h&63)&1 == 0 {
		return dst
	}
	for _, e := range l.inner.find(g) {
		t := l.lits[e.lit].text
		if from := i - int(e.offset); from >= 0 && from+len(t) <= len(s) && s[from:from+len(t)] == t {
			dst = append(dst, e.lit)
		}
	}
	return dst
}

// any says whether any literal is in s.
func (l *litSet) any(s string) bool {
	var room [8]int32
	return len(l.collect(s, room[:0], true)) > 0
}

func (l *literal) match(s string) bool {
	switch l.op {
	case opEq:
		return s == l.text
	case opPrefix:
		return strings.HasPrefix(s, l.text)
	case opSuffix:
		return strings.HasSuffix(s, l.text)
	}
	return strings.Contains(s, l.text)
}
