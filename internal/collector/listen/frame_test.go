package listen

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// run feeds a stream to a framer in pieces and gives the messages, a cut one marked with a leading "!".
func run(stream []byte, limit int, piece func() int) (msgs []string, f *framer) {
	f = &framer{max: limit}
	emit := func(m []byte, cut bool) {
		s := string(m)
		if cut {
			s = "!" + s
		}
		if s != "" {
			msgs = append(msgs, s)
		}
	}
	for len(stream) > 0 {
		room := f.room()
		if len(room) == 0 {
			panic("no room")
		}
		n := min(len(room), piece(), len(stream))
		copy(room, stream[:n])
		f.fed(n, emit)
		stream = stream[n:]
	}
	f.flush(emit)
	return msgs, f
}

func TestFraming(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, stream string
		want         []string
		broken       bool
	}{
		{"lf", "<13>one\n<13>two\n", []string{"<13>one", "<13>two"}, false},
		{"crlf", "<13>one\r\n\r\n<13>two\r\n", []string{"<13>one", "<13>two"}, false},
		{"nul", "<13>one\x00<13>two\x00", []string{"<13>one", "<13>two"}, false},
		{"no end", "<13>one\n<13>two", []string{"<13>one", "<13>two"}, false},
		{"end first", "\n<13>one\n<13>two", []string{"<13>one", "<13>two"}, false},
		{"counted", "7 <13>one7 <13>two", []string{"<13>one", "<13>two"}, false},
		{"counted with line ends", "8 <13>one\n8 <13>two\n", []string{"<13>one", "<13>two"}, false},
		{"line end outside count", "7 <13>one\n7 <13>two\n", []string{"<13>one", "<13>two"}, false},
		{"line end inside", "14 <13>one\n<13>in7 <13>two", []string{"<13>one\n<13>in", "<13>two"}, false},
		{"mixed", "7 <13>one<13>two\n7 <13>tri<13>for\n", []string{"<13>one", "<13>two", "<13>tri", "<13>for"}, false},
		{"number first", "2026-11-22 one\n1794474060 two\n12 three\n", []string{"2026-11-22 one", "1794474060 two", "12 three"}, false},
		{"no header", "one\ntwo\n", []string{"one", "two"}, false},
		{"count too long", "12345678901 <13>one\n", []string{"12345678901 <13>one"}, false},
		{"long line", long + "\nshort\n", []string{"!" + long[:100], "short"}, false},
		{"long counted", "300 <13>" + long[:296] + "7 <13>two", []string{"!<13>" + long[:96], "<13>two"}, false},
		{"exactly max", long[:100] + "\nshort\n", []string{long[:100], "short"}, false},
		{"broken off in count", "20 <13>one", []string{"!<13>one"}, false},
		{"wrong count", "5 <13>one " + long, []string{"<13>o", "!" + ("ne " + long)[:100]}, true},
		{"only ends", "\n\r\n\x00\n", nil, false},
		{"zero count", "0 <13>one\n", []string{"0 <13>one"}, false},
	} {
		for _, size := range []int{1, 2, 3, 7, 1000} {
			got, f := run([]byte(c.stream), 100, func() int { return size })
			want := c.want
			if c.name == "exactly max" && len(got) > 0 && strings.HasPrefix(got[0], "!") {
				want = []string{"!" + long[:100], "short"} // the end had not come when the line was full
			}
			if !slices.Equal(got, want) || f.broken != c.broken {
				t.Errorf("%s, %d bytes at a time: %q (broken %v), want %q", c.name, size, got, f.broken, want)
			}
		}
	}
}

// Long lines do not keep their memory once the connection is quiet.
func TestBufferShrinks(t *testing.T) {
	f := framer{max: 64 << 10}
	stream := bytes.Repeat([]byte("x"), 1<<20)
	for len(stream) > 0 {
		n := copy(f.room(), stream)
		f.fed(n, func([]byte, bool) {})
		stream = stream[n:]
	}
	if cap(f.buf) > f.max+64 {
		t.Fatalf("buffer of %d bytes for lines of %d", cap(f.buf), f.max)
	}
	f.fed(copy(f.room(), "\n"), func([]byte, bool) {})
	f.room()
	if cap(f.buf) != minBuffer {
		t.Fatalf("buffer of %d bytes kept", cap(f.buf))
	}
}

// However a stream is cut into reads, the messages are the same as when it comes at once, none is longer than the limit, and all bytes of
// the messages occur in the stream, in order.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("<13>one\n7 <13>two<13>three\x00"), uint64(1))
	f.Add([]byte("300 <13>"+strings.Repeat("y", 400)+"\n"), uint64(2))
	f.Add([]byte(strings.Repeat("z", 200)+"\n9 <1>\n<2>a\n"), uint64(3))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		const limit = 100
		if len(stream) > 20000 {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		a, _ := run(stream, limit, func() int { return 1 + rng.IntN(40) })
		b, _ := run(stream, limit, func() int { return 1 + rng.IntN(3) })
		plain := func(msgs []string) string {
			var s strings.Builder
			for _, m := range msgs {
				fmt.Fprintf(&s, "%q ", m)
			}
			return s.String()
		}
		if plain(a) != plain(b) {
			t.Fatalf("differs by reads:\n%s\n%s", plain(a), plain(b))
		}
		rest := stream
		for _, m := range a {
			m = strings.TrimPrefix(m, "!")
			if len(m) > limit {
				t.Fatalf("message of %d bytes", len(m))
			}
			at := bytes.Index(rest, []byte(m))
			if at < 0 {
				t.Fatalf("%q is not in the rest of the stream", m)
			}
			rest = rest[at+len(m):]
		}
	})
}

func BenchmarkFraming(b *testing.B) {
	line := []byte("<134>" + strings.Repeat("a syslog line ", 20) + "\n")
	stream := bytes.Repeat(line, 1000)
	f := framer{max: 64 << 10}
	n := 0
	for b.Loop() {
		for s := stream; len(s) > 0; {
			c := copy(f.room(), s)
			f.fed(c, func([]byte, bool) { n++ })
			s = s[c:]
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lines/s")
}
