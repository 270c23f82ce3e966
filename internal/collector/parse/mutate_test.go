package parse

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// allSamples is every line of testdata, and behind the first own lines those of the shared samples where they are.
func allSamples(t testing.TB) (lines [][]byte, own int) {
	for _, f := range samples(t) {
		lines = append(lines, readLines(t, f.input)...)
	}
	own = len(lines)
	files, _ := filepath.Glob(filepath.Join("..", "..", "..", "..", "shared", "data", "logs", "*", "*.log"))
	if len(files) == 0 {
		t.Log("no folder of shared samples: testdata alone is mutated")
	}
	for _, f := range files {
		lines = append(lines, readLines(t, f)...)
	}
	return lines, own
}

var everyByte = flag.Bool("every-byte", false, "cut every sample at every byte, not only at every third")

// TestTruncated cuts every sample at every third byte (shared ones at every eighteenth; all at every byte with -every-byte): no crash, no
// hang, and nothing in the event that is not in the line.
func TestTruncated(t *testing.T) {
	s := testSet(t)
	var e event.Event
	n := 0
	lines, own := allSamples(t)
	for i, line := range lines {
		step := 3 // each line begins at another byte, so that lines of one kind cover all between them
		switch {
		case *everyByte:
			step = 1
		case i >= own || testing.Short():
			step = 18
		}
		for cut := i % step; cut <= len(line); cut += step {
			e.Reset()
			e.SetRaw(line[:cut])
			e.Created = received.UnixNano()
			s.Parse(&e, "")
			checkDerived(t, &e, line[:cut])
			n++
		}
	}
	t.Logf("%d cut lines", n)
}

// TestMixed joins halves of lines of different devices, flips bytes and puts in control characters, quotes and separators.
func TestMixed(t *testing.T) {
	s := testSet(t)
	lines, _ := allSamples(t)
	r := rand.New(rand.NewPCG(1, 2))
	var e event.Event
	rounds := 20000
	if testing.Short() {
		rounds = 4000
	}
	seps := []string{"", " ", "\x00", "\xff\xfe", `"`, `\`, "|", "=", ",", "{", "[", "<134>", "%ASA-6-", ": "}
	for range rounds {
		a, b := lines[r.IntN(len(lines))], lines[r.IntN(len(lines))]
		m := append([]byte(nil), a[:r.IntN(len(a)+1)]...)
		m = append(m, seps[r.IntN(len(seps))]...)
		m = append(m, b[r.IntN(len(b)+1):]...)
		for range r.IntN(3) {
			if len(m) > 0 {
				m[r.IntN(len(m))] = byte(r.IntN(256))
			}
		}
		e.Reset()
		e.SetRaw(m)
		e.Created = received.UnixNano()
		s.Parse(&e, "")
		checkDerived(t, &e, m)
	}
}

// TestHuge gives a megabyte of each kind of trouble: the time must grow with the length alone.
func TestHuge(t *testing.T) {
	s := testSet(t)
	var e event.Event
	const size = 1 << 20
	pad := func(head, unit string) []byte {
		return append([]byte(head), bytes.Repeat([]byte(unit), size/len(unit))...)
	}
	for name, line := range map[string][]byte{
		"blanks":     pad("", " "),
		"equals":     pad("", "="),
		"quotes":     pad(`a="`, `\"`),
		"backslash":  pad(`{"a":"`, `\`),
		"brackets":   pad("", "["),
		"json depth": pad("", `{"a":`),
		"json flat":  pad(`{"event_type":"alert","timestamp":"x",`, `"a":1,`),
		"pairs":      pad("date=2026-11-12 time=08:50:01 devid=FG type=traffic ", "a=b "),
		"cef":        pad("CEF:0|a|b|c|d|e|5|", "a=b c "),
		"cef equals": pad("CEF:0|a|b|c|d|e|5|a=", `\=`),
		"pipes":      pad("CEF:0", `\|`),
		"commas":     pad("1,2,3,TRAFFIC", ","),
		"percent":    pad("", "%"),
		"words":      pad("Failed login for ", "user from "),
		"netfilter":  pad("kernel: IN=eth0 SRC=192.0.2.1 ", "DST= "),
		"syslog":     pad("", "<1>"),
		"sd":         pad("<13>1 - - - - - [a ", `b="c" `),
		"invalid":    pad("", "\xff\xfe"),
		"arrows":     pad("a in:b out:c proto TCP, ", "->"),
		"colons":     pad("SrcIP: 1.2.3.4 AccessControlRuleAction: x", ", a: b"),
		"ends quote": pad(`id=firewall sn= m=1 src="`, `\" a`),
	} {
		start := time.Now()
		e.Reset()
		e.SetRaw(line)
		s.Parse(&e, "")
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%s: %v for a megabyte", name, d)
		} else {
			t.Logf("%-10s %v", name, d)
		}
	}
}

// checkDerived holds the invariants of every parser: strings come from the line (as they stand, in lower case, or with escapes
// undone) or from the parsers' own vocabulary, numbers fit, the event is bounded.
func checkDerived(t testing.TB, e *event.Event, line []byte) {
	t.Helper()
	if e.Len() > 400 {
		t.Fatalf("%d values from one line: %.200q", e.Len(), line)
	}
	for i := range e.Len() {
		k, v := e.At(i)
		switch v.Kind() {
		case event.String:
			str := v.Str()
			if len(str) > len(line)+64 {
				t.Fatalf("%s longer than the line: %q from %.200q", k.Name(), str, line)
			}
			if !vocabulary(k) && !occurs(line, str) {
				t.Fatalf("%s = %q does not occur in %.300q", k.Name(), str, line)
			}
		case event.Int:
			if k == event.SourcePort || k == event.DestinationPort {
				if v.Int() < 1 || v.Int() > 65535 {
					t.Fatalf("%s = %d from %.200q", k.Name(), v.Int(), line)
				}
			}
		}
	}
}

// vocabulary says which fields hold the parsers' own words.
func vocabulary(k event.Key) bool {
	if _, joined := packVocabulary()[k]; joined {
		return true
	}
	switch k {
	case event.EventCategory, event.EventType, event.EventKind, event.EventOutcome, event.EventDataset, event.EventModule, event.ObserverVendor, event.ObserverProduct,
		event.ObserverType, event.NetworkTransport, event.NetworkDirection, event.TocsinVerdict, event.TocsinService, event.TocsinSeverity, event.TocsinFormat, event.EventAction,
		event.HTTPRequestMethod, event.URLOriginal, event.NetworkProtocol, event.CloudProvider:
		return true
	}
	return false
}

// packVocabulary is the fields that packs make of several values, or give words of their own.
var packVocabulary = sync.OnceValue(func() map[event.Key]bool {
	m := map[event.Key]bool{}
	eachOp(func(op *packs.Op) {
		if len(op.Join) > 0 || op.Table != nil || op.Verb == packs.VerbConst {
			m[op.Key] = true
		}
		if len(op.Join) > 0 && op.Verb == packs.VerbURL {
			m[event.URLFull] = true
		}
	})
	return m
})

// eachOp goes over all that the descriptions say of values.
func eachOp(f func(*packs.Op)) {
	ops := func(o *packs.Ops) {
		for i := range o.List {
			f(&o.List[i])
		}
	}
	rules := func(rules []packs.Rule) {
		for i := range rules {
			ops(&rules[i].Ops)
		}
	}
	for _, p := range packs.Builtin().Packs() {
		ops(&p.Fields)
		rules(p.Rules)
		for i := range p.Messages {
			ops(&p.Messages[i].Fields)
			rules(p.Messages[i].Rules)
		}
	}
}

// occurs says whether str is in the line: byte for byte, in another case, or after escapes are undone.
func occurs(line []byte, str string) bool {
	if bytes.Contains(line, []byte(str)) {
		return true
	}
	low := strings.ToLower(string(line))
	if strings.Contains(low, strings.ToLower(str)) {
		return true
	}
	if !strings.Contains(low, `\`) {
		return false
	}
	// Escapes: the letters and digits of str must be there in order.
	i := 0
	for _, c := range []byte(strings.ToLower(str)) {
		if !isAlpha(c) && !isDigit(c) {
			continue
		}
		j := strings.IndexByte(low[i:], c)
		if j < 0 {
			return strings.Contains(low, `\u`)
		}
		i += j + 1
	}
	return true
}

// FuzzParse runs automatic detection and the invariants on anything.
func FuzzParse(f *testing.F) {
	for _, sample := range samples(f) {
		for i, l := range readLines(f, sample.input) {
			if i < 6 {
				f.Add(l)
			}
		}
	}
	s := testSet(f)
	var e event.Event
	f.Fuzz(func(t *testing.T, line []byte) {
		e.Reset()
		e.SetRaw(line)
		e.Created = received.UnixNano()
		s.Parse(&e, "")
		checkDerived(t, &e, line)
	})
}

// FuzzPacks gives a line to the pack that a number chooses, whatever detection would say.
func FuzzPacks(f *testing.F) {
	var names []string
	for _, p := range packs.Builtin().Packs() {
		if p.Code == "" {
			names = append(names, p.Name)
		}
	}
	for _, sample := range samples(f) {
		if i := slices.Index(names, sample.format); i >= 0 {
			for n, l := range readLines(f, sample.input) {
				if n < 8 {
					f.Add(l, uint16(i))
				}
			}
		}
	}
	s := testSet(f)
	var e event.Event
	f.Fuzz(func(t *testing.T, line []byte, n uint16) {
		e.Reset()
		e.SetRaw(line)
		e.Created = received.UnixNano()
		s.Parse(&e, names[int(n)%len(names)])
		checkDerived(t, &e, line)
	})
}

// fuzzFormat makes a fuzz target of one parser: the message goes to it whatever detection would say.
func fuzzFormat(f *testing.F, name string) {
	for _, sample := range samples(f) {
		if sample.format == name {
			for _, l := range readLines(f, sample.input) {
				f.Add(l)
			}
		}
	}
	s := testSet(f)
	var e event.Event
	f.Fuzz(func(t *testing.T, line []byte) {
		e.Reset()
		e.SetRaw(line)
		e.Created = received.UnixNano()
		s.Parse(&e, name)
		checkDerived(t, &e, line)
	})
}

func FuzzASA(f *testing.F)        { fuzzFormat(f, "asa") }
func FuzzNetfilter(f *testing.F)  { fuzzFormat(f, "netfilter") }
func FuzzFilterlog(f *testing.F)  { fuzzFormat(f, "filterlog") }
func FuzzDrayTek(f *testing.F)    { fuzzFormat(f, "draytek") }
func FuzzEVE(f *testing.F)        { fuzzFormat(f, "eve") }
func FuzzSSHD(f *testing.F)       { fuzzFormat(f, "sshd") }
func FuzzCEF(f *testing.F)        { fuzzFormat(f, "cef") }
func FuzzLEEF(f *testing.F)       { fuzzFormat(f, "leef") }
func FuzzKV(f *testing.F)         { fuzzFormat(f, "kv") }
func FuzzJSON(f *testing.F)       { fuzzFormat(f, "json") }
func FuzzMeraki(f *testing.F)     { fuzzFormat(f, "meraki") }
func FuzzPANOS(f *testing.F)      { fuzzFormat(f, "panos") }
func FuzzMikroTik(f *testing.F)   { fuzzFormat(f, "mikrotik") }
func FuzzBarracuda(f *testing.F)  { fuzzFormat(f, "barracuda") }
func FuzzCheckPoint(f *testing.F) { fuzzFormat(f, "checkpoint") }
func FuzzJunos(f *testing.F)      { fuzzFormat(f, "junos") }
func FuzzNetScreen(f *testing.F)  { fuzzFormat(f, "netscreen") }
func FuzzSnort(f *testing.F)      { fuzzFormat(f, "snort") }
func FuzzSquid(f *testing.F)      { fuzzFormat(f, "squid") }
func FuzzHAProxy(f *testing.F)    { fuzzFormat(f, "haproxy") }
func FuzzWeb(f *testing.F)        { fuzzFormat(f, "web") }
func FuzzNginxError(f *testing.F) { fuzzFormat(f, "nginx-error") }
func FuzzBIND(f *testing.F)       { fuzzFormat(f, "bind") }
func FuzzDHCP(f *testing.F)       { fuzzFormat(f, "dhcp") }
func FuzzNetScaler(f *testing.F)  { fuzzFormat(f, "netscaler") }
func FuzzPulse(f *testing.F)      { fuzzFormat(f, "pulse") }
func FuzzISE(f *testing.F)        { fuzzFormat(f, "ise") }
func FuzzVPCFlow(f *testing.F)    { fuzzFormat(f, "vpcflow") }
func FuzzALB(f *testing.F)        { fuzzFormat(f, "alb") }
func FuzzWindows(f *testing.F)    { fuzzFormat(f, "windows") }
func FuzzText(f *testing.F)       { fuzzFormat(f, "text") }
