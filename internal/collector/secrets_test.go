package collector

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/rules"
)

// secretMark stands in every planted secret; no sample holds it.
const secretMark = "zqx"

// fixtureLines gives the samples of every parser, by folder.
func fixtureLines(t testing.TB) map[string][][]byte {
	t.Helper()
	var dirs []string
	for _, pattern := range []string{"packs", "testdata"} { // a pack's fixtures lie in its folder
		found, err := filepath.Glob(filepath.Join("parse", pattern, "*", "*input.log"))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, found...)
	}
	if len(dirs) < 30 {
		t.Fatalf("only %d files of samples", len(dirs))
	}
	out := map[string][][]byte{}
	for _, name := range dirs {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(bytes.ToLower(b), []byte(secretMark)) {
			t.Fatalf("%s holds the mark of secrets", name)
		}
		product := filepath.Base(filepath.Dir(name))
		out[product] = append(out[product], bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))...)
	}
	return out
}

// contentFields are those that hold what somebody wrote, read, opened or is called. The metadata policy keeps every one of them.
var contentFields = regexp.MustCompile(`^(message|error\.message|event\.reason|url\.(full|original|path|query|fragment|username|password|extension)|http\.(request|response)\.(body\.content|referrer)|user_agent\.|` +
	`email\.(subject|attachments|from|to|message_id)|file\.(name|path|directory|extension)|(source\.|destination\.|client\.)?user\.|group\.|process\.|registry\.|host\.(name|hostname|domain)|` +
	`observer\.(name|hostname|serial_number)|related\.(user|hosts)|organization\.|source\.mac|destination\.mac|host\.mac|rule\.description|log\.syslog\.(hostname|procid)|x509\.|tls\.(client|server)\.(subject|issuer))`)

// secretOf writes a secret in the shape of v: every word is replaced, but for the host of a web address, which may leave, and for words that
// allowed says mean something else too, such as the zone that stands in the sentence of a message.
func secretOf(v string, n int, allowed func(word string) bool) string {
	keep := 0
	if at := strings.Index(v, "://"); at >= 0 {
		keep = len(v)
		if slash := strings.IndexAny(v[at+3:], "/?"); slash >= 0 {
			keep = at + 3 + slash
		}
	} else if hostLike.MatchString(v) {
		keep = len(hostLike.FindString(v))
	}
	changed := false
	out := v[:keep] + regexp.MustCompile(`[A-Za-z][A-Za-z0-9_]{2,}`).ReplaceAllStringFunc(v[keep:], func(word string) string {
		if allowed != nil && allowed(strings.ToLower(word)) {
			return word
		}
		changed = true
		return fmt.Sprintf("%s%dk", secretMark, n)
	})
	if !changed {
		return ""
	}
	return out
}

var hostLike = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\.?(:\d+)?(/|\?|$)`)

// sentences are the fields and keys that hold a device's own words, of which parsers take zones, signatures, codes and actions.
var sentences = regexp.MustCompile(`^(message|rule\.description|event\.reason|process\.name|host\.name|host\.hostname|msg|message|reason|note|extra .*)$`)

// notContent are words of the device, not of people: the word before an access list's name, without which the parser takes the next one for
// it, and the zones and commands of PAN-OS, which stand under the names that mail has.
var notContent = map[string]bool{"asa message": true, "panos-kv key from": true, "panos-kv key to": true, "panos-kv key cmd": true}

// elsewhere says of a word whether a field that may leave holds it.
func elsewhere(e *event.Event, m *minimise.Minimiser) func(string) bool {
	var all strings.Builder
	for i := range e.Len() {
		if k, v := e.At(i); v.Kind() == event.String {
			if leave, _ := m.MayLeave(k); leave {
				all.WriteString(strings.ToLower(v.Str()) + "\n")
			}
		}
	}
	text := all.String()
	return func(word string) bool { return strings.Contains(text, word) }
}

// planted is one line with a secret in it.
type planted struct {
	product, field string
	line           []byte
}

// plantByField puts a secret into each place of a line from which a parser takes a field that stays, one place at a time.
func plantByField(set *sampleParser, product string, line []byte, m *minimise.Minimiser) (out []planted) {
	var e event.Event
	if !set.parse(&e, line) {
		return nil
	}
	type target struct{ field, value string }
	var targets []target
	for i := range e.Len() {
		k, v := e.At(i)
		if leave, _ := m.MayLeave(k); !leave && v.Kind() == event.String {
			targets = append(targets, target{k.Name(), strings.Clone(v.Str())})
		}
	}
	for _, x := range e.Extras() {
		targets = append(targets, target{"extra " + x.Name, strings.Clone(x.Value)})
	}
	words := elsewhere(&e, m)
	for i, tg := range targets {
		for from := 0; len(tg.value) >= 3; {
			at := bytes.Index(line[from:], []byte(tg.value))
			if at < 0 {
				break
			}
			at += from
			from = at + 1
			var allowed func(string) bool
			if sentences.MatchString(tg.field) {
				allowed = words
			}
			secret := secretOf(tg.value, i, allowed)
			if strings.HasPrefix(tg.field, "url.") && !strings.ContainsAny(tg.value, "/?&= ") {
				secret = "" // only a host
			}
			if secret == "" {
				break
			}
			mutated := slices.Concat(line[:at], []byte(secret), line[at+len(tg.value):])
			var again event.Event
			if !set.parse(&again, mutated) {
				continue
			}
			// Only where the secret is what the parser now takes for that field: elsewhere the same letters mean something else.
			hit := false
			for j := range again.Len() {
				if k, v := again.At(j); k.Name() == tg.field && v.Kind() == event.String && strings.Contains(v.Str(), secretMark) {
					hit = true
				}
			}
			for _, x := range again.Extras() {
				hit = hit || "extra "+x.Name == tg.field && strings.Contains(x.Value, secretMark)
			}
			// The name in CEF's header is the product's own, for a kind of event.
			named := tg.field == "rule.description" && bytes.Contains(line[:at], []byte("CEF:"))
			if hit && !named && !notContent[product+" "+tg.field] {
				out = append(out, planted{product, tg.field, mutated})
			}
		}
	}
	return out
}

// contentKeys are the names under which devices write content, in key=value, CEF and JSON.
var contentKeys = regexp.MustCompile(`(?i)(^|[\s,{|"])"?((?:c?s?_?user(?:name)?|suser|duser|srcuser|usr|account(?:name)?|login|from|to|sender|recipient|rcpt|subject|file(?:_?name)?|fname|filepath|path|` +
	`payload(?:_printable)?|rawdata|body|http_request_body_printable|http_response_body_printable|query(?:_?string)?|referr?er|http_refer|agent|http_user_agent|useragent|msg|message|reason|note|comment|command(?:line)?|cmd|request))"?([=:])\s?("?)([^"\s,|}]{3,})`)

// plantByKey puts a secret behind each name of contentKeys.
func plantByKey(set *sampleParser, product string, line []byte, m *minimise.Minimiser) (out []planted) {
	var e event.Event
	if !set.parse(&e, line) {
		return nil
	}
	words := elsewhere(&e, m)
	for i, at := range contentKeys.FindAllSubmatchIndex(line, -1) {
		value, key := string(line[at[10]:at[11]]), strings.ToLower(string(line[at[4]:at[5]]))
		var allowed func(string) bool
		if sentences.MatchString(key) {
			allowed = words
		}
		secret := secretOf(value, 500+i, allowed)
		if secret == "" || notContent[product+" key "+key] {
			continue
		}
		out = append(out, planted{product, "key " + key, slices.Concat(line[:at[10]], []byte(secret), line[at[11]:])})
	}
	return out
}

// sampleParser parses as the collector does.
type sampleParser struct{ p *pipeline }

func (s *sampleParser) parse(e *event.Event, line []byte) bool {
	l := archive.Line{Number: 1, Created: time.Now().UnixNano(), Via: archive.TCP, Sender: netip.MustParseAddr("10.0.0.1"), Text: line}
	ok := s.p.understand(&s.p.e, &l)
	s.p.e.CopyTo(e)
	return ok
}

// leftBytes sends the lines through the whole line to a sealed batch, opens that as a stranger would, and gives what is in it.
func leftBytes(t testing.TB, c Config, lines [][]byte) ([]byte, int) {
	t.Helper()
	min, err := c.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	det, err := detect.New(detect.Options{Rules: rules.FS, Where: detect.Site, Origin: "secrets", Withhold: withhold(min)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(archive.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	p, err := newPipeline(&c, min, det, archive.Secret{1}, a)
	if err != nil {
		t.Fatal(err)
	}
	signer := keys.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)))
	w := batch.NewWriter()
	var all bytes.Buffer
	events, seq := 0, uint64(0)
	seal := func() {
		seq++
		man := batch.Manifest{Stream: batch.Stream{Collector: "019aa0b4-7c00-7000-8000-000000000001", Tenant: 7, Lane: batch.Live, Epoch: strings.Repeat("0", 32)}, Seq: seq, Created: time.Now(),
			PolicyDigest: min.Digest(), Counts: map[string]uint64{}}
		p.flush(man.Counts)
		s, err := w.Seal(man, signer)
		if err != nil {
			t.Fatal(err)
		}
		w.Reset()
		env, body, err := batch.SplitSubmission(s.Submission())
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := batch.Verify(env, signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		b, err := batch.Open(got, body)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%+v\n", got)
		for _, l := range b.Lines() {
			all.Write(l)
			all.WriteByte('\n')
			events++
		}
	}
	rest := func() {
		for off := 0; off < len(p.frames); {
			n := 8 + int(uint32(p.frames[off])|uint32(p.frames[off+1])<<8|uint32(p.frames[off+2])<<16|uint32(p.frames[off+3])<<24)
			var r record
			if err := r.decode(p.frames[off+8 : off+n]); err != nil {
				t.Fatal(err)
			}
			if err := w.Add(r.json); err != nil {
				seal()
				if err := w.Add(r.json); err != nil {
					t.Fatal(err)
				}
			}
			off += n
		}
		p.frames, p.n = p.frames[:0], 0
	}
	for i, l := range lines {
		line := archive.Line{Number: uint64(i + 1), Created: time.Now().UnixNano(), Via: archive.TCP, Sender: netip.MustParseAddr("10.0.0.1"), Text: l}
		p.line(&line, full)
		rest()
	}
	seal()
	return all.Bytes(), events
}

// everything is the metadata policy's list of fields under a policy that lets every event leave: the harder question.
func everything(t testing.TB) string {
	t.Helper()
	p, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "everything.yaml")
	text := "policy: everything\nversion: 1\ntitle: every event, without content\nraw: false\nevents: [{leave: all, text: it is an event}]\nfields: {leave: [" +
		"\"" + strings.Join(p.Fields.Leave, "\", \"") + "\"], address: [" + strings.Join(p.Fields.Address, ", ") + "]}\n"
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A secret in every content field of every sample of every parser, one at a time: in what left there is none. What left is read from the
// bytes of the batches, unpacked, manifests and the sentences of the on-site rules included.
func TestPlantedSecretsStay(t *testing.T) {
	c := DefaultConfig()
	c.Policy.Name = everything(t)
	c.OwnRanges = []string{"198.51.100.0/24"}
	min, err := c.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPipeline(&c, min, nil, archive.Secret{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []planted
	samples := fixtureLines(t)
	for product, lines := range samples {
		for _, l := range lines {
			all = append(all, plantByField(&sampleParser{p}, product, l, min)...)
			all = append(all, plantByKey(&sampleParser{p}, product, l, min)...)
		}
	}
	products, fields := map[string]int{}, map[string]int{}
	var lines [][]byte
	for _, pl := range all {
		lines = append(lines, pl.line)
		products[pl.product]++
		fields[pl.field]++
	}
	for _, want := range []string{"url.full", "url.query", "url.path", "user.name", "file.name", "email.subject", "message", "user_agent.original", "key user", "key msg", "key filename", "key subject"} {
		if fields[want] == 0 {
			t.Errorf("no secret was planted in %s: %v", want, slices.Sorted(maps.Keys(fields)))
		}
	}
	if len(all) < 2000 {
		t.Errorf("%d secrets: too few to say anything", len(all))
	}
	// Some products write nothing but addresses and words of their own; they are few.
	var without []string
	for product := range samples {
		if products[product] == 0 {
			without = append(without, product)
		}
	}
	slices.Sort(without)
	t.Logf("no content in the samples of %d of %d products: %v", len(without), len(samples), without)
	if len(without) > len(samples)/20 {
		t.Errorf("no secret could be planted in the samples of %d products: %v", len(without), without)
	}
	got, events := leftBytes(t, c, lines)
	if events < len(all)*9/10 {
		t.Errorf("of %d lines only %d left", len(all), events)
	}
	leaks := map[string]string{}
	leaf := regexp.MustCompile(`"([a-z0-9_.@]+)":\[?"[^"]*` + secretMark)
	for l := range bytes.Lines(got) {
		for _, f := range leaf.FindAllSubmatch(bytes.ToLower(l), -1) {
			number, _ := strconv.Atoi(string(regexp.MustCompile(`"event.sequence":(\d+)`).FindSubmatch(l)[1]))
			pl := all[number-1]
			leaks[pl.product+" "+pl.field+" in "+string(f[1])] = string(pl.line)
		}
	}
	for f, l := range leaks {
		t.Errorf("planted and left: %s: %s", f, l)
	}
	if bytes.Contains(bytes.ToLower(got), []byte(secretMark)) && len(leaks) == 0 {
		t.Error("a secret left")
	}
	t.Logf("%d secrets in %d fields and keys of the samples of %d products; %d events left (%d bytes), none holds one", len(all), len(fields), len(products), events, len(got))

	// Under the policy as it is, with a user let go: the search does find a secret where one may be.
	c.Policy.AlsoLeave = []string{"user.name"}
	if got, _ := leftBytes(t, c, lines); !bytes.Contains(got, []byte(secretMark)) {
		t.Error("a field that was let go was not found: the search proves nothing")
	}
}

// Under every policy that is built in but full, every field that holds content stays.
func TestContentFieldsStay(t *testing.T) {
	c := DefaultConfig()
	min, err := c.minimiser([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for k := event.Key(1); int(k) < event.NumKeys(); k++ {
		if !contentFields.MatchString(k.Name()) {
			continue
		}
		n++
		if leave, _ := min.MayLeave(k); leave {
			t.Errorf("%s leaves under metadata", k.Name())
		}
	}
	if n < 40 {
		t.Errorf("only %d fields hold content", n)
	}
}
