package parse

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// disturb changes the order, the names and the values of a line of key=value as devices, and people who mean harm, might.
func disturb(r *rand.Rand, line []byte, others [][]byte) []byte {
	pairs := bytes.Split(line, []byte(" "))
	for range 1 + r.IntN(3) {
		i, j := r.IntN(len(pairs)), r.IntN(len(pairs))
		name, value, ok := bytes.Cut(pairs[i], []byte("="))
		set := func(form string) { pairs[i] = fmt.Appendf(nil, form, name, bytes.Trim(value, `"`)) }
		switch k := r.IntN(18); {
		case k == 0: // another order
			pairs[i], pairs[j] = pairs[j], pairs[i]
		case k == 1: // a name is missing
			pairs = append(append([][]byte(nil), pairs[:i]...), pairs[i+1:]...)
		case k == 2: // and one comes twice
			pairs = append(pairs[:i:i], append([][]byte{pairs[j]}, pairs[i:]...)...)
		case k == 3: // the rest is another line's
			rest := bytes.Split(others[r.IntN(len(others))], []byte(" "))
			pairs = append(pairs[:i:i], rest[r.IntN(len(rest)+1):]...)
		case !ok:
		case k == 4:
			set(`%s=%.0s`)
		case k == 5:
			set(`%s="%.0s"`)
		case k == 6:
			set(`%s="\"%s\" x=y \\"`)
		case k == 7:
			set(`%s='%s'`)
		case k == 8:
			set(`%s="%s`)
		case k == 9:
			set(`%sx=%s`)
		case k == 10:
			pairs[i] = fmt.Appendf(nil, "%s=%s", name[:r.IntN(len(name)+1)], value)
		case k == 11:
			set(" %s=%s ")
		case k == 12:
			set("%s=%s,")
		case k == 13:
			pairs[i] = fmt.Appendf(nil, "%s=%s", name, bytes.Repeat([]byte("v w"), r.IntN(40)))
		case k == 14:
			pairs[i] = fmt.Appendf(nil, `%s="%s"`, name, bytes.Repeat([]byte("v=w, "), r.IntN(40)))
		case k == 15:
			set([]string{"%s=a|b|c|d|e|f|g|%s", "%s=%s\t", "%s=%s;", "%s=%s\r", "%s=%s\\", ".message=%s %s=1", "%s==%s"}[r.IntN(7)])
		case k == 16:
			set([]string{`%s="%s""x=y"`, `%s="%s"x=y`, `%s='%s'x=y`}[r.IntN(3)])
		case k == 17 && j > 0: // nothing, or a quote, between two pairs
			pairs[j-1] = fmt.Appendf(nil, `%s%s%s`, pairs[j-1], []string{``, `"`, `""`, `'`}[r.IntN(4)], pairs[j])
			pairs = append(pairs[:j:j], pairs[j+1:]...)
		}
		if len(pairs) == 0 {
			return line
		}
	}
	return bytes.Join(pairs, []byte([]string{" ", " ", " ", " ", ",", ", ", "  "}[r.IntN(7)]))
}

// kvLines are those of testdata that packs read as key=value.
func kvLines(t testing.TB) (lines [][]byte) {
	for _, name := range []string{"fortigate/traffic.", "fortigate/", "sonicwall/", "sophos/", "zyxel/", "stormshield/", "forcepoint/", "sophos-utm/", "gta/", "peplink/"} {
		lines = append(lines, readLines(t, "packs/"+name+"input.log")...)
	}
	return lines
}

// TestTrails: going along trails changes no answer, whatever becomes of names, order and values. One Set has seen all lines before, the other none.
func TestTrails(t *testing.T) {
	x := newTwins(t)
	r := rand.New(rand.NewPCG(23, 24))
	lines := kvLines(t)
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	for range rounds {
		for _, line := range lines {
			for _, l := range [][]byte{line, disturb(r, line, lines), vary(r, line)} {
				x.without.run.memories, x.without.run.memory, x.without.run.last = nil, nil, nil
				x.same(t, l, "")
			}
		}
		x.with.run.credit = trailCredit
	}
	direct := 0
	for _, m := range x.with.run.memories {
		direct += m.places
	}
	if direct == 0 || direct != x.with.run.places || direct > maxPlaces {
		t.Errorf("%d places on trails, said to be %d", direct, x.with.run.places)
	}
}

// TestTrailQuote: a name directly behind a quote that closes is no part of a trail, because behind another quote it would be text.
func TestTrailQuote(t *testing.T) {
	const form = `<189>date=2026-11-12 time=08:50:01 devname=%sdevid=%s logid="0000000013" type="traffic" subtype="forward" level="notice" srcip=192.0.2.1 dstip=192.0.2.2`
	for _, c := range [][4]string{{`"FW"`, `"F"`, `"FW""`, `ZZZ"`}, {`'FW'`, `"F"`, `'FW''`, `ZZZ'`}, {`"FW" `, `"F"`, `"FW""`, `ZZZ"`}, {`"FW"`, `F`, `"FW"`, `G`}} {
		x := newTwins(t)
		for range 3 {
			for i := 0; i < 4; i += 2 {
				x.without.run.memories, x.without.run.memory, x.without.run.last = nil, nil, nil
				x.same(t, fmt.Appendf(nil, form, c[i], c[i+1]), "")
			}
		}
	}
}

// TestTread compares going along a trail by wide registers with going byte by byte.
func TestTread(t *testing.T) {
	s := testSet(t)
	r := rand.New(rand.NewPCG(25, 26))
	lines := kvLines(t)
	var e event.Event
	for range 3 {
		for _, line := range lines {
			oneLine(s, &e, line)
		}
	}
	var a, b treads
	a.start()
	b.start()
	n := 0
	for range 100 {
		for _, line := range lines {
			if r.IntN(4) > 0 {
				line = disturb(r, line, lines)
			}
			i := bytes.IndexByte(line, '=')
			if i < 0 {
				continue
			}
			for i > 0 && keyByte(line[i-1]) {
				i--
			}
			text := string(line[i:])
			for _, m := range s.run.memories {
				if !m.on {
					continue
				}
				a.holes, b.holes = 0, 0
				bare := m.bare != (r.IntN(10) == 0)
				y, i, ok := tread(&a, text, 0, &m.root, bare)
				y2, i2, ok2 := treadPlain(&b, text, 0, &m.root, bare)
				if y != y2 || i != i2 || ok != ok2 || a.spans != b.spans || a.holes != b.holes || a.hollow != b.hollow {
					t.Fatalf("%q bare %v: %d %v %d holes, byte by byte %d %v %d", text, bare, i, ok, a.holes, i2, ok2, b.holes)
				}
				n += y.depth
			}
		}
	}
	if n < 50000 {
		t.Errorf("only %d names", n)
	}
}

// TestTrailBounds: whatever orders of names senders make, trails are bounded, and the lines of others are soon gone along again.
func TestTrailBounds(t *testing.T) {
	s := testSet(t)
	var e event.Event
	r := rand.New(rand.NewPCG(27, 28))
	lines := readLines(t, "packs/fortigate/traffic.input.log")
	for i := range 4000 {
		pairs := bytes.Split(lines[2+i%4], []byte(" "))
		r.Shuffle(len(pairs)-6, func(i, j int) { pairs[i+6], pairs[j+6] = pairs[j+6], pairs[i+6] })
		oneLine(s, &e, bytes.Join(pairs, []byte(" ")))
		if s.run.places > maxPlaces {
			t.Fatalf("%d places", s.run.places)
		}
	}
	for range 200 * maxTrail {
		oneLine(s, &e, lines[2])
		if m := s.run.memory; s.run.credit > 100 {
			s.run.depth = 0
			if n, _ := s.along(string(lines[2][5:]), m); n.end == nil || !n.end.direct {
				t.Error("the usual order is not known")
			}
			return
		}
	}
	t.Error("the usual order is not taken up again")
}

// TestTrailFull: orders that find no place cost credit, and make a pack forget its own trails only.
func TestTrailFull(t *testing.T) {
	s := testSet(t)
	var e event.Event
	for _, name := range []string{"fortigate/traffic.", "sonicwall/"} {
		for range 3 {
			for _, line := range readLines(t, "packs/"+name+"input.log") {
				oneLine(s, &e, line)
			}
		}
	}
	r := &s.run
	m := r.memory
	others := r.places - m.places
	if m.places == 0 || others == 0 {
		t.Fatalf("%d places, of others %d", m.places, others)
	}
	forgot := 0
	for i := range 2000 {
		places := m.places
		r.depth, r.known = 1, true
		r.path[0], r.gaps[0] = m.names[i%30], 0
		s.keepTrail(m)
		if m.places < places {
			forgot++
		}
		if r.places-m.places != others {
			t.Fatalf("%d places of others, there were %d", r.places-m.places, others)
		}
	}
	if forgot == 0 || r.credit > trailCredit-1000 {
		t.Errorf("forgotten %d times, credit %d", forgot, r.credit)
	}
}

// TestTrailAllocs: lines that go whole trails cost no memory.
func TestTrailAllocs(t *testing.T) {
	s := testSet(t)
	var e event.Event
	for _, line := range readLines(t, "packs/fortigate/traffic.input.log") {
		one := func() {
			e.Reset()
			e.SetRaw(line)
			s.Parse(&e, "")
		}
		one()
		one()
		credit := s.run.credit - 1
		s.run.credit = credit
		if n := testing.AllocsPerRun(50, one); n > 0 {
			t.Errorf("%v allocations: %s", n, line)
		}
		if s.run.credit <= credit {
			t.Errorf("not along a trail: %s", line)
		}
	}
}

// TestFills compares the reading of numbers, addresses and capitals from their places in a text with that of the value alone.
func TestFills(t *testing.T) {
	r := rand.New(rand.NewPCG(29, 30))
	s := testSet(t)
	for range 100000 {
		b := make([]byte, r.IntN(20))
		for i := range b {
			b[i] = "0123456789012..x-/: Z"[r.IntN(21)]
		}
		if r.IntN(2) == 0 {
			b = fmt.Appendf(nil, "%d.%d.%d.%d", r.IntN(300), r.IntN(256), r.IntN(256), r.IntN(256))
			if r.IntN(4) == 0 {
				b[r.IntN(len(b))] = "0.:x9"[r.IntN(5)]
			}
		}
		before, behind := []string{"a=", "name=1234=", `longer="`}[r.IntN(3)], []string{"", " ", "12345678", ".123.4.5"}[r.IntN(4)]
		v, text := string(b), before+string(b)+behind
		sp := span{uint32(len(before)), uint32(len(before) + len(v))}
		n, ok := digitsAt(text, sp)
		if m, ok2 := atoi(v); ok && (!ok2 || uint64(m) != n) || !ok && ok2 && len(v) <= 8 && sp.to >= 8 {
			t.Fatalf("%q: %d %v, else %d %v", text, n, ok, m, ok2)
		}
		a, ok := ipv4Within(text, sp)
		if c, l := ipv4At(v); ok && (l != len(v) || a != c) || !ok && l > 0 && l == len(v) && behind == ".123.4.5" {
			t.Fatalf("%q: %x %v, else %x %d", text, a, ok, c, l)
		}
	}
	var e event.Event
	s.e = &e
	for c := range 256 {
		for at := range 16 {
			b := []byte("aZ-9@[`{azAZ\x80\xc1bC")
			b[at] = byte(c)
			text := "x=" + string(b) + "behind it some more"
			n := 1 + r.IntN(16)
			s.run.text, s.run.direct = text, true
			s.run.spans[7] = span{2, uint32(2 + n)}
			e.Reset()
			e.SetString(event.EventAction, "")
			ok := s.fillLower(&fill{verb: packs.VerbLower, slot: 7}, 0)
			got := e.Str(event.EventAction)
			if v := trim(string(b[:n])); ok == empty(v) || ok && got != s.lower(v) {
				t.Fatalf("%q: %q %v", b[:n], got, ok)
			}
		}
	}
}

// TestUnmetNames: what a Set remembers of names that packs do not speak of changes no answer. One Set has no room for any.
func TestUnmetNames(t *testing.T) {
	x := newTwins(t)
	x.without.run.memories = map[*packs.Pack]*memory{}
	for _, p := range x.without.lib.Packs().Packs() {
		if mayTrail(p) {
			m := newMemory(p)
			m.names, m.on = slices.Clip(m.names), false
			x.without.run.memories[p] = m
		}
	}
	r := rand.New(rand.NewPCG(31, 32))
	lines := kvLines(t)
	for range 4 {
		for _, line := range lines {
			x.same(t, line, "")
			x.same(t, disturb(r, line, lines), "")
		}
	}
}
