package batch

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"

	"tocsin/internal/keys"
)

var update = flag.Bool("update", false, "write the golden vectors anew; the format has then changed")

var signer = keys.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{42}, 32)))

func testManifest() Manifest {
	return Manifest{
		Stream: Stream{Collector: "019aa0b4-7c00-7000-8000-000000000001", Tenant: 7, Lane: Live, Epoch: "00112233445566778899aabbccddeeff"},
		Seq:    1, Created: time.Date(2026, 11, 22, 13, 43, 58, 123456789, time.UTC), CollectorVersion: "0.1.0", PolicyDigest: "metadata",
		ParserPack: "p1", RulePack: "r1", IndicatorSet: "3", ClockOffset: -1500 * time.Microsecond,
		Counts: map[string]uint64{"received": 100, "parsed": 99, "not_understood": 1, "kept.policy": 97, "left.denied": 2},
	}
}

// testLines makes n firewall events that differ as real ones do: time, addresses, ports, counters.
func testLines(n int) [][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([][]byte, n)
	for i := range out {
		out[i] = fmt.Appendf(nil, `{"@timestamp":"2026-11-22T13:43:%02d.%09dZ","event.created":"2026-11-22T13:43:%02d.%09dZ","event.hash":"%016x%016x%016x%016x",`+
			`"event.dataset":"fortinet.fortigate","event.module":"fortinet","event.kind":"event","event.category":["network"],"event.type":["denied","connection"],`+
			`"event.action":"deny","event.outcome":"failure","observer.vendor":"Fortinet","observer.product":"FortiGate","observer.type":"firewall","observer.name":"FGT-HQ",`+
			`"source.ip":"203.0.113.%d","source.port":%d,"destination.ip":"198.51.100.%d","destination.port":%d,"network.transport":"tcp","network.direction":"inbound",`+
			`"rule.id":"%d","source.bytes":%d,"tocsin.sender.assurance":"tls","tocsin.source.proof":"none"}`,
			i/200%60, rnd.Uint64N(1e9), i/200%60, rnd.Uint64N(1e9), rnd.Uint64(), rnd.Uint64(), rnd.Uint64(), rnd.Uint64(), rnd.IntN(256), 1024+rnd.IntN(60000), rnd.IntN(256),
			[]int{22, 23, 80, 443, 445, 3389, 8080}[rnd.IntN(7)], rnd.IntN(40), rnd.IntN(1e6))
	}
	return out
}

func seal(t testing.TB, m Manifest, lines ...[]byte) Sealed {
	t.Helper()
	w := NewWriter()
	for _, l := range lines {
		if err := w.Add(l); err != nil {
			t.Fatal(err)
		}
	}
	s, err := w.Seal(m, signer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// open does what the gate does.
func open(sub []byte) (Manifest, *Body, error) {
	env, body, err := SplitSubmission(sub)
	if err != nil {
		return Manifest{}, nil, err
	}
	m, _, err := Verify(env, signer.Public())
	if err != nil {
		return m, nil, err
	}
	b, err := Open(m, body)
	return m, b, err
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 100, 1000} {
		lines := testLines(n)
		s := seal(t, testManifest(), lines...)
		m, b, err := open(s.Submission())
		if err != nil {
			t.Fatalf("%d events: %v", n, err)
		}
		if len(b.Lines()) != n || m.Events != n || !m.Created.Equal(s.Manifest.Created) || m.ClockOffset != s.Manifest.ClockOffset || m.Counts["received"] != 100 || m.Stream != s.Manifest.Stream {
			t.Errorf("%d events: manifest or lines changed: %+v", n, m)
		}
		for i, l := range b.Lines() {
			if !bytes.Equal(l, lines[i]) {
				t.Fatalf("event %d is %s, was %s", i, l, lines[i])
			}
		}
		for _, i := range []int{0, n / 2, n - 1} {
			if n == 0 {
				break
			}
			d, err := Disclose(s.Envelope, b, i)
			if err != nil {
				t.Fatal(err)
			}
			j, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			var back Disclosure
			if err := json.Unmarshal(j, &back); err != nil {
				t.Fatal(err)
			}
			if _, err := VerifyDisclosure(back, signer.Public()); err != nil {
				t.Errorf("disclosure of event %d of %d: %v", i, n, err)
			}
			if n > 1 && bytes.Contains(j, lines[(i+1)%n]) {
				t.Error("a disclosure shows a neighbour")
			}
			if bytes.Contains(j, []byte(hex.EncodeToString(b.salt[:]))) {
				t.Error("a disclosure shows the salt")
			}
			back.Line = strings.Replace(back.Line, "203.0.113", "203.0.114", 1)
			if _, err := VerifyDisclosure(back, signer.Public()); !errors.Is(err, ErrDisclosure) {
				t.Errorf("changed line: %v", err)
			}
			back = d
			back.Index = (i + 1) % (n + 1)
			if _, err := VerifyDisclosure(back, signer.Public()); err == nil {
				t.Error("another index was believed")
			}
		}
	}
}

func TestTreeIsRFC6962(t *testing.T) {
	f := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	for n := 0; n <= 130; n++ {
		leaves := make([][32]byte, n)
		r := f.NewEmptyRange(0)
		for i := range leaves {
			leaves[i] = [32]byte(rfc6962.DefaultHasher.HashLeaf([]byte{byte(i)}))
			if err := r.Append(leaves[i][:], nil); err != nil {
				t.Fatal(err)
			}
		}
		want, err := r.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			want = rfc6962.DefaultHasher.EmptyRoot()
		}
		if got := treeRoot(leaves); !bytes.Equal(got[:], want) {
			t.Errorf("root over %d leaves is %x, the library says %x", n, got, want)
		}
	}
}

func TestWriterReset(t *testing.T) {
	w := NewWriter()
	var digests [][32]byte
	var bodies [][]byte
	for range 3 {
		for _, l := range testLines(10) {
			if err := w.Add(l); err != nil {
				t.Fatal(err)
			}
		}
		s, err := w.Seal(testManifest(), signer)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add([]byte(`{}`)); !errors.Is(err, ErrFull) {
			t.Errorf("add after seal: %v", err)
		}
		if _, err := w.Seal(testManifest(), signer); err == nil {
			t.Error("sealed twice")
		}
		if _, _, err := open(s.Submission()); err != nil {
			t.Fatal(err)
		}
		digests, bodies = append(digests, s.Digest), append(bodies, s.Body)
		w.Reset()
	}
	if digests[0] == digests[1] || bytes.Equal(bodies[1], bodies[2]) {
		t.Error("the same events give the same digest: the salt was used again")
	}
	if sha256.Sum256(bodies[0]) == sha256.Sum256(bodies[1]) {
		t.Error("bodies share memory")
	}
}

func TestWriterLimits(t *testing.T) {
	w := NewWriter()
	for i := range MaxEvents {
		if err := w.Add([]byte(`{"a":1}`)); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	if err := w.Add([]byte(`{"a":1}`)); !errors.Is(err, ErrFull) {
		t.Errorf("event %d: %v", MaxEvents, err)
	}
	s, err := w.Seal(testManifest(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(s.Submission()); err != nil {
		t.Error(err)
	}

	// What does not compress must stop before 1 MiB, what compresses well before 16 MiB, and both be taken.
	rnd := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 30_000)
	for _, c := range []struct {
		name string
		line func() []byte
	}{
		{"noise", func() []byte { rnd.Read(noise); return fmt.Appendf(nil, `{"a":"%x"}`, noise) }},
		{"same", func() []byte { return fmt.Appendf(nil, `{"a":"%s"}`, strings.Repeat("x", 60_000)) }},
		{"longest noise", func() []byte {
			b := make([]byte, MaxLine)
			rnd.Read(b)
			for i := range b {
				b[i] = '0' + b[i]%75
				if b[i] == '\\' {
					b[i] = '!'
				}
			}
			copy(b, `{"a":"`)
			copy(b[len(b)-2:], `"}`)
			return b
		}},
	} {
		w.Reset()
		n := 0
		for {
			err := w.Add(c.line())
			if errors.Is(err, ErrFull) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		s, err := w.Seal(testManifest(), signer)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		t.Logf("%s: %d events, %d bytes, %d compressed", c.name, n, s.Manifest.Expanded, len(s.Body))
		if len(s.Body) < MaxCompressed*3/10 && s.Manifest.Expanded < MaxExpanded*9/10 {
			t.Errorf("%s: full at %d bytes compressed, %d expanded", c.name, len(s.Body), s.Manifest.Expanded)
		}
		if _, _, err := open(s.Submission()); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	w.Reset()
	for name, l := range map[string]string{"newline": "{\"a\":\n1}", "array": "[1]", "two": `{}{}`, "repeated": `{"a":1,"a":2}`, "repeated in disguise": `{"a":1,"\u0061":2}`,
		"latin1": "{\"a\":\"\xe9\"}", "surrogate": `{"a":"\ud800"}`, "empty": "", "long": `{"a":"` + strings.Repeat("x", MaxLine) + `"}`, "space": ` {}`} {
		if err := w.Add([]byte(l)); !errors.Is(err, ErrLine) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.Len() != 0 {
		t.Error("a refused line was added")
	}
}

// resign signs a manifest changed by hand, as a hostile collector would.
func resign(t testing.TB, s Sealed, change func(map[string]any)) []byte {
	t.Helper()
	p, err := keys.OpenEnvelope(s.Envelope, Type, signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(p, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	p, err = json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	env, err := signer.SignEnvelope(Type, p)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestVerifyRefuses(t *testing.T) {
	s := seal(t, testManifest(), testLines(3)...)
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		want   error
	}{
		{"nothing", func(m map[string]any) {}, nil},
		{"unknown member", func(m map[string]any) { m["future"] = 1 }, nil},
		{"known critical member", func(m map[string]any) { m["crit"] = []string{"urgent"}; m["urgent"] = true }, nil},
		{"unknown critical member", func(m map[string]any) { m["future"] = 1; m["crit"] = []string{"future"} }, ErrCrit},
		{"absent critical member", func(m map[string]any) { m["crit"] = []string{"urgent"} }, ErrCrit},
		{"version 2", func(m map[string]any) { m["version"] = 2 }, ErrVersion},
		{"version 2 of another shape", func(m map[string]any) { m["version"] = 2; m["events"] = "many" }, ErrVersion},
		{"no version", func(m map[string]any) { delete(m, "version") }, ErrVersion},
		{"a long s for an s", func(m map[string]any) { m["\u017feq"] = "7" }, ErrManifest},
		{"the Kelvin sign for a k", func(m map[string]any) { m["chec\u212apoint"] = "another" }, ErrManifest},
		{"misspelled member", func(m map[string]any) { m["Seq"] = m["seq"]; delete(m, "seq") }, ErrManifest},
		{"seq 0", func(m map[string]any) { m["seq"] = "0" }, ErrManifest},
		{"seq as a number", func(m map[string]any) { m["seq"] = 1 }, ErrManifest},
		{"seq too large", func(m map[string]any) { m["seq"] = "18446744073709551616" }, ErrManifest},
		{"tenant 0", func(m map[string]any) { m["tenant"] = 0 }, ErrManifest},
		{"lane", func(m map[string]any) { m["lane"] = "fast" }, ErrManifest},
		{"epoch", func(m map[string]any) { m["epoch"] = "../../etc/passwd" }, ErrManifest},
		{"collector", func(m map[string]any) { m["collector"] = "me" }, ErrManifest},
		{"prev short", func(m map[string]any) { m["prev"] = "00" }, ErrManifest},
		{"prev of the first batch", func(m map[string]any) { m["prev"] = strings.Repeat("11", 32) }, ErrManifest},
		{"receipt in a later batch", func(m map[string]any) { m["seq"] = "2"; m["last_receipt"] = strings.Repeat("11", 32) }, ErrManifest},
		{"created", func(m map[string]any) { m["created"] = "yesterday" }, ErrManifest},
		{"created in the year 0", func(m map[string]any) { m["created"] = "0000-01-01T00:00:00Z" }, ErrManifest},
		{"events", func(m map[string]any) { m["events"] = MaxEvents + 1 }, ErrTooBig},
		{"expanded", func(m map[string]any) { m["expanded"] = MaxExpanded + 1 }, ErrTooBig},
		{"expanded negative", func(m map[string]any) { m["expanded"] = -1 }, ErrManifest},
		{"size", func(m map[string]any) { m["body_size"] = MaxCompressed + 1 }, ErrTooBig},
		{"count negative", func(m map[string]any) { m["counts"] = map[string]int{"received": -1} }, ErrManifest},
		{"count huge", func(m map[string]any) { m["counts"] = map[string]uint64{"received": 1 << 53} }, ErrManifest},
		{"count name", func(m map[string]any) { m["counts"] = map[string]int{"<script>": 1} }, ErrManifest},
		{"long position", func(m map[string]any) { m["position"] = strings.Repeat("x", 2049) }, ErrManifest},
		{"long text", func(m map[string]any) { m["rule_pack"] = strings.Repeat("x", 201) }, ErrManifest},
		{"envelope", func(m map[string]any) { m["future"] = strings.Repeat("x", MaxEnvelope) }, ErrTooBig},
	} {
		_, _, err := Verify(resign(t, s, c.change), signer.Public())
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// A repeated member, which the two readers of one document would read differently.
	p, _ := keys.OpenEnvelope(s.Envelope, Type, signer.Public())
	env, _ := signer.SignEnvelope(Type, bytes.Replace(p, []byte(`{"version"`), []byte(`{"seq":"9","version"`), 1))
	if _, _, err := Verify(env, signer.Public()); !errors.Is(err, ErrManifest) {
		t.Errorf("repeated member: %v", err)
	}
	other := keys.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if _, _, err := Verify(s.Envelope, other.Public()); !errors.Is(err, keys.ErrSignature) {
		t.Errorf("another collector's key: %v", err)
	}
	if _, _, err := Verify([]byte(`{}`), signer.Public()); !errors.Is(err, keys.ErrEnvelope) {
		t.Errorf("no envelope: %v", err)
	}
}

func zstdBytes(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

// forBody makes a manifest that fits a body made by hand, as a hostile collector would.
func forBody(t testing.TB, body []byte, expanded, events int) Manifest {
	s := seal(t, testManifest())
	sum := sha256.Sum256(body)
	env := resign(t, s, func(m map[string]any) {
		m["body_size"], m["expanded"], m["events"], m["body_sha256"] = len(body), expanded, events, hex.EncodeToString(sum[:])
	})
	m, _, err := Verify(env, signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// rle makes a zstd frame of run-length blocks: n bytes in 4 bytes a block, the classic bomb.
func rle(n int, window byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, window}
	for n > 0 {
		k := min(n, maxBlock)
		n -= k
		h := uint32(k)<<3 | 1<<1
		if n == 0 {
			h |= 1
		}
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 'x')
	}
	return b
}

func TestOpenRefuses(t *testing.T) {
	salt := []byte(`{"salt":"` + strings.Repeat("00", 32) + "\"}\n")
	body := func(lines string) []byte { return append(bytes.Clone(salt), lines...) }
	good := zstdBytes(t, body("{}\n"))
	w8 := byte(13 << 3) // 8 MiB window
	for _, c := range []struct {
		name             string
		body             []byte
		expanded, events int
		want             error
	}{
		{"root", good, len(salt) + 3, 1, ErrRoot},
		{"fewer events", good, len(salt) + 3, 0, ErrBody},
		{"more events", good, len(salt) + 3, 2, ErrBody},
		{"size shorter", good, len(salt) + 2, 1, ErrFrame},
		{"size longer", good, len(salt) + 4, 1, ErrFrame},
		{"not zstd", []byte("{\"salt\":\"\"}\n"), 12, 0, ErrFrame},
		{"gzip", []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0}, 12, 0, ErrFrame},
		{"two frames", append(bytes.Clone(good), good...), 2 * (len(salt) + 3), 2, ErrFrame},
		{"a skippable frame first", append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, good...), len(salt) + 3, 1, ErrFrame},
		{"a skippable frame last", append(bytes.Clone(good), 0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0), len(salt) + 3, 1, ErrFrame},
		{"cut", good[:len(good)-1], len(salt) + 3, 1, ErrFrame},
		{"one byte more", append(bytes.Clone(good), 0), len(salt) + 3, 1, ErrFrame},
		{"bomb, honest about 16 MiB", rle(MaxExpanded, w8), MaxExpanded, 1, ErrBody},
		{"bomb, 1 GiB behind 1 KiB", rle(1<<30, w8), 1024, 1, ErrFrame},
		{"window over 8 MiB", rle(1000, w8+1), 1000, 1, ErrFrame},
		{"window of 2 GiB", rle(1000, 21<<3), 1000, 1, ErrFrame},
		{"16 MiB announced, 1 block", rle(1000, w8), MaxExpanded, 1, ErrFrame},
		{"a dictionary", func() []byte { b := rle(1000, w8); b[4] |= 1; return b }(), 1000, 1, ErrFrame},
		{"a block over 128 KiB", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, w8, 0x03, 0x00, 0x20, 'x'}, 1000, 1, ErrFrame},
		{"no salt", zstdBytes(t, []byte("{}\n")), 3, 1, ErrBody},
		{"salt in capitals", zstdBytes(t, bytes.Replace(salt, []byte("00"), []byte("AA"), 1)), len(salt), 0, ErrBody},
		{"no newline at the end", zstdBytes(t, body("{}")), len(salt) + 2, 1, ErrBody},
		{"empty line", zstdBytes(t, body("\n{}\n")), len(salt) + 4, 2, ErrBody},
		{"repeated member", zstdBytes(t, body("{\"a\":1,\"a\":1}\n")), len(salt) + 14, 1, ErrBody},
		{"invalid UTF-8", zstdBytes(t, body("{\"a\":\"\xff\"}\n")), len(salt) + 10, 1, ErrBody},
	} {
		m := forBody(t, c.body, c.expanded, c.events)
		if b, err := Open(m, c.body); !errors.Is(err, c.want) {
			t.Errorf("%s: %v (%v), want %v", c.name, err, b, c.want)
		}
	}
	s := seal(t, testManifest(), testLines(3)...)
	changed := bytes.Clone(s.Body)
	changed[len(changed)/2] ^= 1
	if _, err := Open(s.Manifest, changed); !errors.Is(err, ErrBodyDigest) {
		t.Errorf("changed body: %v", err)
	}
	if _, err := Open(s.Manifest, s.Body[:len(s.Body)-1]); !errors.Is(err, ErrBodyDigest) {
		t.Errorf("cut body: %v", err)
	}
}

// Reopen gives what Open gave, refuses other bytes, and takes no bomb either.
func TestReopen(t *testing.T) {
	s := seal(t, testManifest(), testLines(50)...)
	first, err := Open(s.Manifest, s.Body)
	if err != nil {
		t.Fatal(err)
	}
	var b Body
	for range 2 { // the second time in used memory
		if err := b.Reopen(s.Manifest, s.Body); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(first.Lines(), b.Lines(), bytes.Equal) || b.salt != first.salt {
			t.Fatal("another content the second time")
		}
	}
	changed := bytes.Clone(s.Body)
	changed[len(changed)/2] ^= 1
	if err := b.Reopen(s.Manifest, changed); !errors.Is(err, ErrBodyDigest) || len(b.Lines()) != 0 {
		t.Errorf("changed body: %v, %d lines left", err, len(b.Lines()))
	}
	bomb := rle(1<<30, 13<<3)
	if err := b.Reopen(forBody(t, bomb, 1024, 1), bomb); !errors.Is(err, ErrFrame) {
		t.Errorf("bomb: %v", err)
	}
}

// A bomb must be refused before its memory is taken.
func TestBombTakesNoMemory(t *testing.T) {
	bomb := rle(1000, 13<<3)
	m := forBody(t, bomb, MaxExpanded, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := Open(m, bomb); err == nil {
			t.Fatal("taken")
		}
	}
	runtime.ReadMemStats(&after)
	if per := (after.TotalAlloc - before.TotalAlloc) / 100; per > 8192 {
		t.Errorf("refusing a bomb that announces 16 MiB takes %d bytes", per)
	}
}

func TestSplitSubmission(t *testing.T) {
	s := seal(t, testManifest(), testLines(1)...)
	sub := s.Submission()
	for _, c := range []struct {
		name string
		sub  []byte
		want error
	}{
		{"empty", nil, ErrSubmission}, {"newline", []byte("\n"), ErrSubmission}, {"no body", append(bytes.Clone(s.Envelope), '\n'), ErrSubmission},
		{"no newline", s.Envelope, ErrSubmission}, {"newline too late", append(bytes.Repeat([]byte("x"), MaxEnvelope+1), "\nbody"...), ErrSubmission},
		{"large body", append([]byte("x\n"), make([]byte, MaxCompressed+1)...), ErrTooBig}, {"huge", make([]byte, MaxSubmission+1), ErrTooBig},
	} {
		if _, _, err := SplitSubmission(c.sub); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	env, body, err := SplitSubmission(sub)
	if err != nil || !bytes.Equal(env, s.Envelope) || !bytes.Equal(body, s.Body) {
		t.Errorf("split: %v", err)
	}
}

func TestReceipt(t *testing.T) {
	s := seal(t, testManifest(), testLines(1)...)
	r := Receipt{Stream: s.Manifest.Stream.ID(), Seq: 1, Digest: s.Digest, HubTime: time.Date(2026, 11, 22, 14, 0, 0, 5, time.UTC)}
	env, err := SignReceipt(r, signer)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := SignReceipt(r, signer)
	if !bytes.Equal(env, again) {
		t.Error("the same receipt is spelled in two ways")
	}
	old := keys.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if got, err := VerifyReceipt(env, old.Public(), signer.Public()); err != nil || got != r {
		t.Errorf("receipt = %+v, %v", got, err)
	}
	if _, err := VerifyReceipt(env, old.Public()); !errors.Is(err, keys.ErrSignature) {
		t.Errorf("receipt by another key: %v", err)
	}
	if _, err := VerifyReceipt(s.Envelope, signer.Public()); !errors.Is(err, keys.ErrEnvelope) {
		t.Errorf("a batch as a receipt: %v", err)
	}
	if _, err := VerifyReceipt(env); !errors.Is(err, keys.ErrSignature) {
		t.Errorf("no key: %v", err)
	}
}

var jsonSeeds = []string{
	`{}`, `{"a":1}`, `{"a":[1,2,"x"],"b":null,"c":true,"d":false}`, `{"a":{"a":1}}`, `{"a":1,"a":2}`, `{"\u0061":1,"a":2}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`,
	`{"a":-0.1e+5}`, `{"a":01}`, `{"a":1.}`, `{"a":"é"}`, "{\"a\":\"\xff\"}", `{"a":"\x"}`, `{"a" : 1 , "b" : [ ] }`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":"` + "\t" + `"}`, `{"a":.5}`, `{"é":1,"\u00e9":1}`,
	`{"":1,"":2}`, `{"\\":1,"\u005c":2}`, `{"a":tru}`, `[{}]`, "{\"a\":1}\n", `{"a":1e}`, `{"a":"\udc00\ud800"}`, `{"a":"\uD83D\uDE00","\ud83d\ude00":1,"😀":2}`,
}

func FuzzSplitSubmission(f *testing.F) {
	f.Add(seal(f, testManifest(), testLines(2)...).Submission())
	f.Add([]byte("{}\n\x28\xb5\x2f\xfd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		env, body, err := SplitSubmission(b)
		if err != nil {
			return
		}
		if !bytes.Equal(append(append(bytes.Clone(env), '\n'), body...), b) {
			t.Error("the parts are not the whole")
		}
		if _, _, err := open(b); err != nil {
			return
		}
	})
}

func FuzzVerify(f *testing.F) {
	s := seal(f, testManifest(), testLines(2)...)
	p, _ := keys.OpenEnvelope(s.Envelope, Type, signer.Public())
	f.Add(p)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		// The fuzzer plays a collector with a valid key: every payload is well signed.
		env, err := signer.SignEnvelope(Type, payload)
		if err != nil {
			t.Fatal(err)
		}
		m, digest, err := Verify(env, signer.Public())
		if err != nil {
			return
		}
		if m2, d2, err := Parse(env); err != nil || d2 != digest || m2.Seq != m.Seq {
			t.Errorf("Parse differs: %v", err)
		}
		if digest != sha256.Sum256(env) {
			t.Error("wrong digest")
		}
		again, err := m.encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := decodeManifest(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if fmt.Sprint(back) != fmt.Sprint(m) && !(len(m.Counts) == 0 && len(back.Counts) == 0) {
			t.Errorf("round trip: %+v, %+v", m, back)
		}
	})
}

func FuzzOpen(f *testing.F) {
	s := seal(f, testManifest(), testLines(20)...)
	f.Add(s.Body, uint32(s.Manifest.Expanded), uint16(20))
	f.Add(rle(100000, 13<<3), uint32(100000), uint16(1))
	f.Add(zstdBytes(f, []byte("{}\n"), zstd.WithEncoderCRC(true)), uint32(3), uint16(1))
	f.Fuzz(func(t *testing.T, body []byte, expanded uint32, events uint16) {
		if len(body) > MaxCompressed || expanded > MaxExpanded || events > MaxEvents {
			return
		}
		m := Manifest{Version: 1, BodySize: len(body), Expanded: int(expanded), Events: int(events), BodySHA256: sha256.Sum256(body), Root: s.Manifest.Root}
		b, err := Open(m, body)
		if err != nil {
			return
		}
		// The root is of one certain list of events: nothing else may come out.
		if len(b.lines) != 20 {
			t.Errorf("%d other events under the same root", len(b.lines))
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	lines := testLines(1000)
	w := NewWriter()
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		w.Reset()
		for _, l := range lines {
			if err := w.Add(l); err != nil {
				b.Fatal(err)
			}
		}
		s, err := w.Seal(testManifest(), signer)
		if err != nil {
			b.Fatal(err)
		}
		size = len(s.Body)
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(size)/1000, "B/event")
}

func BenchmarkVerifyOpen(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := seal(b, testManifest(), testLines(n)...)
			sub := s.Submission()
			var body Body
			b.ReportAllocs()
			for b.Loop() {
				env, z, err := SplitSubmission(sub)
				if err != nil {
					b.Fatal(err)
				}
				m, _, err := Verify(env, signer.Public())
				if err != nil {
					b.Fatal(err)
				}
				if err := body.Open(m, z); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkReopen is the worker's side: the envelope's digest is known, the body has been opened by the gate.
func BenchmarkReopen(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := seal(b, testManifest(), testLines(n)...)
			var body Body
			b.ReportAllocs()
			for b.Loop() {
				m, _, err := Parse(s.Envelope)
				if err != nil {
					b.Fatal(err)
				}
				if err := body.Reopen(m, s.Body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// The mask as Python's hmac module computes it: a reader in another language must get the same.
func TestMask(t *testing.T) {
	m := newLeafHasher([32]byte{}).mask(0x0102030405060708)
	if got := hex.EncodeToString(m[:]); got != "c59a063ccd78f8ef7da2e361f5027145c495f0728f0575fe5fe55840daaefa51" {
		t.Errorf("mask is %s", got)
	}
}
