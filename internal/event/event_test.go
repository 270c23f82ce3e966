package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSetAddDel(t *testing.T) {
	var e Event
	e.SetString(UserName, "a")
	e.AddString(EventCategory, "network")
	e.SetInt(SourcePort, 443)
	e.AddString(EventCategory, "intrusion_detection")
	e.SetIP(SourceIP, netip.MustParseAddr("::ffff:192.0.2.1"))
	e.AddString(EventCategory, "malware")
	want := `{"user.name":"a","event.category":["network","intrusion_detection","malware"],"source.port":443,"source.ip":"192.0.2.1"}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !e.HasString(EventCategory, "malware") || e.HasString(EventCategory, "web") || e.HasString(UserEmail, "") {
		t.Error("HasString is wrong")
	}
	e.SetString(EventCategory, "web")
	e.Del(UserName)
	e.SetIP(SourceIP, netip.Addr{})
	want = `{"event.category":"web","source.port":443}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if e.Has(UserName) || e.Has(SourceIP) || !e.Has(SourcePort) {
		t.Error("Has is wrong after Del")
	}
}

func TestLateKeys(t *testing.T) {
	names := make([]string, 600)
	for i := range names {
		names[i] = "test.late." + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26)
	}
	if _, err := RegisterAll(names...); err != nil {
		t.Fatal(err)
	}
	var e Event
	for _, n := range names {
		if !e.SetNamed(n, "v:"+n) {
			t.Fatalf("%s was not taken", n)
		}
	}
	for _, n := range names {
		k, ok := Lookup(n)
		if !ok || k.Name() != n || e.Str(k) != "v:"+n || k.Kind() != String {
			t.Fatalf("%s: key %v, value %q", n, k, e.Str(k))
		}
	}
	if _, err := Register("@timestamp"); err == nil {
		t.Error("a header was registered as a field")
	}
	if _, err := Register(""); err == nil {
		t.Error("an empty name was registered")
	}
}

func TestExtrasAreBoundedAndFirstWins(t *testing.T) {
	var e Event
	for i := range MaxExtras + 10 {
		took := e.SetNamed("data.only."+string(rune('A'+i%64))+strings.Repeat("z", i/64), "v")
		if took != (i < MaxExtras) {
			t.Fatalf("extra %d taken: %v", i, took)
		}
	}
	if !e.SetNamed("data.only.A", "other") || e.Extras()[0].Value != "v" {
		t.Error("the first of two equal names must win")
	}
	if _, ok := Lookup("data.only.A"); ok {
		t.Error("a name from data became a key")
	}
	if !e.SetNamed("source.port", "not a port") || e.Str(SourcePort) != "not a port" {
		t.Error("a value that does not fit its kind must be kept as a string")
	}
}

func TestCopiesSurviveReset(t *testing.T) {
	var e Event
	raw := e.SetRaw([]byte("Nov 12 08:00:00 fw drop"))
	e.SetString(HostName, raw[16:18])
	e.SetNamed("odd", raw[19:])
	c := e.Clone()
	e.Reset()
	e.SetRaw(bytes.Repeat([]byte{'#'}, 23))
	if c.Raw() != "Nov 12 08:00:00 fw drop" || c.Str(HostName) != "fw" || c.Extras()[0].Value != "drop" {
		t.Errorf("clone changed: %q %q %v", c.Raw(), c.Str(HostName), c.Extras())
	}
	if e.Len() != 0 || len(e.Extras()) != 0 || e.Has(HostName) {
		t.Error("Reset left something")
	}
}

func TestTimes(t *testing.T) {
	for _, s := range []string{"2026-11-22T13:00:00Z", "2026-02-28T23:59:59.5Z", "2024-02-29T00:00:00.000000001Z", "1969-12-31T23:59:59.123456Z", "2000-03-01T00:00:00.12Z"} {
		want, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := parseTime(s)
		if !ok || got != want.UnixNano() {
			t.Errorf("%s: got %d, want %d", s, got, want.UnixNano())
		}
		back, err := time.Parse(time.RFC3339Nano, string(appendTime(nil, got)))
		if err != nil || !back.Equal(want) {
			t.Errorf("%s: written as %s (%v)", s, appendTime(nil, got), err)
		}
	}
	for _, s := range []string{"", "2026-11-22", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22 13:00:00Z", "2026-11-22T13:00:00", "9999-01-01T00:00:00Z"} {
		if ns, ok := parseTime(s); ok {
			t.Errorf("%q was read as %d", s, ns)
		}
	}
	for ns := int64(-4e18); ns < 4e18; ns += 123456789123456789 {
		want := time.Unix(0, ns).UTC()
		back, err := time.Parse(time.RFC3339Nano, string(appendTime(nil, ns)))
		if err != nil || !back.Equal(want) {
			t.Fatalf("%v: written as %s", want, appendTime(nil, ns))
		}
	}
}

func TestParseIP(t *testing.T) {
	for _, s := range []string{"192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::ffff:203.0.113.9", "fe80::1%eth0", "::"} {
		want := netip.MustParseAddr(s).WithZone("").Unmap()
		if got, ok := ParseIP(s); !ok || got != want {
			t.Errorf("%s: got %v", s, got)
		}
		if back := IPValue(want).IP(); back != want {
			t.Errorf("%s: came back as %v", s, back)
		}
	}
	for _, s := range []string{"", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4:80", "a.b.c.d", "1..2.3", "1.2.3.", "12345678", "::g"} {
		if got, ok := ParseIP(s); ok {
			t.Errorf("%q was read as %v", s, got)
		}
	}
}

func TestID(t *testing.T) {
	id := ID{Stream: StreamID{1, 2, 255}, Seq: 18446744073709551615, Index: 9999}
	back, err := ParseID(id.String())
	if err != nil || back != id {
		t.Errorf("%s came back as %v, %v", id, back, err)
	}
	for _, s := range []string{"", "x", "00-1-1", strings.Repeat("0", 32) + "-1", strings.Repeat("g", 32) + "-1-1", strings.Repeat("0", 32) + "-1-4294967296"} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	many := func(n int, f string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.ReplaceAll(f, "#", strings.Repeat("k", i+1)))
		}
		return b.String() + "}"
	}
	for _, c := range []struct {
		in   string
		want error
	}{
		{`{"user.name":"a","user.name":"b"}`, ErrDuplicate},
		{`{"user.name":null,"user.name":"b"}`, ErrDuplicate},
		{`{"x.y":"a","x.y":"b"}`, ErrDuplicate},
		{`{"@timestamp":"2026-11-22T13:00:00Z","@timestamp":"2026-11-22T13:00:00Z"}`, ErrDuplicate},
		{`{"user.\u006eame":"a","user.name":"b"}`, ErrDuplicate},
		{`{"user":{"name":"a"}}`, ErrNested},
		{`{"user.name":[["a"]]}`, ErrNested},
		{many(MaxExtras+1, `"#":1`), ErrTooMany},
		{`{"tags":[` + strings.Repeat(`"a",`, MaxValues) + `"a"]}`, ErrTooMany},
		{`{"user.name":"` + strings.Repeat("a", MaxLine) + `"}`, ErrTooLong},
		{`{"user.name":"a"`, errEnd}, {`{"user.name":`, errEnd}, {``, errEnd}, {`[]`, errSyntax}, {`{} {}`, errSyntax}, {`{"user.name":"a",}`, errKind},
		{`{"user.name":tru}`, errSyntax}, {"{\"user.name\":\"a\x01\"}", errString}, {"{\"user.name\":\"\xff\"}", errString}, {`{"user.name":"\ud800"}`, errString},
		{`{"user.name":"\udc00\ud800"}`, errString}, {`{"user.name":"\x"}`, errString}, {`{"source.port":01}`, errNumber}, {`{"source.port":1e999}`, errNumber},
		{`{"@timestamp":5}`, errKind}, {`{"event.hash":"zz"}`, errKind},
	} {
		var e Event
		if err := DecodeJSON(&e, []byte(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%.60s: got %v, want %v", c.in, err, c.want)
		}
	}
}

func TestDecodeKinds(t *testing.T) {
	in := `{ "@timestamp" : "2026-11-22T14:00:00+01:00", "source.ip":"::ffff:192.0.2.7","source.port":"443","destination.port":8443, "event.risk_score": 7, "tags":["a",1,true,null],` +
		`"user.name":"J\u00fcrgen \ud83d\ude00 \"x\"", "event.end":"2026-11-22T13:00:00.5Z", "destination.ip":"not one", "source.bytes":"9223372036854775807",` +
		`"my.list":[ 1, "b" ], "my.number":1.50, "my.null":null, "my.text":"t\n", "event.original":"raw line" }`
	var e Event
	if err := DecodeJSON(&e, []byte(in)); err != nil {
		t.Fatal(err)
	}
	want := `{"@timestamp":"2026-11-22T13:00:00Z","source.ip":"192.0.2.7","source.port":443,"destination.port":8443,"event.risk_score":7,"tags":["a",1,true],` +
		`"user.name":"Jürgen 😀 \"x\"","event.end":"2026-11-22T13:00:00.500Z","destination.ip":"not one","source.bytes":"9223372036854775807",` +
		`"my.list":"[ 1, \"b\" ]","my.number":"1.50","my.text":"t\n","event.original":"raw line"}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if a, ok := e.IP(SourceIP); !ok || a.String() != "192.0.2.7" {
		t.Errorf("source.ip is %v", a)
	}
	if v, _ := e.Get(EventEnd); v.Kind() != Time {
		t.Errorf("event.end has kind %v", v.Kind())
	}
}

func TestDetectionRoundTrip(t *testing.T) {
	d := Detection{
		Tenant: 7, RuleID: "r", RuleTitle: "Title", Family: "vpn-guessing", Level: "high", Tags: []string{"attack.t1110.001"}, Entity: Entity{"source", "203.0.113.5"},
		First: 1e18, Last: 1e18 + 5e9, Count: 42, Events: []ID{{StreamID{9}, 3, 1}}, Reason: "42 failed sign-ins in 5 minutes", Steps: []Step{{1e18, "first"}}, Source: "203.0.113.5", User: "j.marlowe",
		Host: "192.0.2.8", Site: true, Key: "k",
	}
	var e, back Event
	FromDetection(&e, &d)
	if err := DecodeJSON(&back, e.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
	back.Tenant = 7
	got, err := ToDetection(&back)
	if err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("got  %+v\nwant %+v\n%v", got, d, err)
	}
	back.SetString(TocsinDetectionLevel, "terrible")
	if _, err := ToDetection(&back); err == nil {
		t.Error("an unknown level was taken")
	}
	if _, err := ToDetection(&Event{}); err == nil {
		t.Error("an ordinary event was taken for a detection")
	}
}

// TestGenerated fails when schema_keys.go is not what gen.go makes of schema.txt.
func TestGenerated(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"gen.go", "schema.txt"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "gen.go")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(dir, "schema_keys.go"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("schema_keys.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("schema_keys.go is out of date: run go generate ./internal/event")
	}
}

// asLibrary compares the texts of an event with what the standard library reads in the line.
func asLibrary(t *testing.T, e *Event, line []byte) {
	t.Helper()
	var want map[string]json.RawMessage
	if err := json.Unmarshal(line, &want); err != nil {
		t.Fatalf("the library does not read %q: %v", line, err)
	}
	same := func(name, got string) {
		raw := want[name]
		if len(raw) == 0 || raw[0] != '"' {
			if name != "" && raw != nil && len(raw) > 0 && raw[0] == '[' && got != string(raw) {
				t.Errorf("%s is %q, written %q", name, got, raw)
			}
			return
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil || s != got {
			t.Errorf("%s is %q, the library reads %q (%v)", name, got, s, err)
		}
	}
	for i, k := range e.Keys() {
		if _, v := e.At(i); k.Kind() == String && v.Kind() == String && want[k.Name()] != nil && want[k.Name()][0] == '"' {
			same(k.Name(), v.Str())
		}
	}
	for _, x := range e.Extras() {
		same(x.Name, x.Value)
	}
}

// Strings with escapes are put together in the event's copy of the line: neither what follows nor the caller's line may suffer.
func TestEscapes(t *testing.T) {
	for _, s := range []string{
		`{"a":"\\","b":"C:\\Windows\\System32\\cmd.exe /c \"x\"","process.executable":"C:\\a\\b","\u0063":"d\n","z":"end"}`,
		`{"list":["a\\b","\u00e9\ud83d\ude00",1,null],"after":"\t","event.category":["a\\","\\b","c"]}`,
		`{"a":"é\\ñ and more than eight bytes\u20ac\r\n","b":"\u007f` + "\x7f" + `\b\f\/"}`,
		`{"a":"\u0000\\\\\\\\\\\\\\\\x","b":""}`,
	} {
		line := []byte(s)
		var e Event
		if err := DecodeJSON(&e, line); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		asLibrary(t, &e, line)
		if string(line) != s {
			t.Errorf("the line was changed to %s", line)
		}
	}
	for _, s := range []string{`{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\ud800"}`, `{"a":"\ud800\u0041"}`, `{"a":"\udc00"}`, `{"a":"\`, `{"a":"x\\`, "{\"a\":\"x\\\\\x01\"}", "{\"a\":\"\\\\\xff\"}",
		`{"a":["\x"]}`, `{"a":["x]}`, "{\"a\":[\"\x01\"]}", "{\"a\":[\"\xff\"]}"} {
		if err := DecodeJSON(new(Event), []byte(s)); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"@timestamp":"2026-11-22T13:00:00.123456789Z","source.ip":"192.0.2.1","source.port":443,"event.category":["network","malware"],"x":"\u00e9\ud83d\ude00"}`))
	f.Add([]byte(`{"a":[1,2.5,true,null,"\""],"event.hash":"` + strings.Repeat("ab", 32) + `","event.original":"<13>x"}`))
	f.Add([]byte(`{"event.risk_score":-1.5e3,"tags":[],"source.bytes":"9007199254740993"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		again(t, sampleLine, line)
		var e, back Event
		if DecodeJSON(&e, line) != nil {
			return
		}
		if len(e.Extras()) > MaxExtras || e.Len() > MaxValues {
			t.Fatalf("%d extras, %d values", len(e.Extras()), e.Len())
		}
		asLibrary(t, &e, line)
		// What was read must be written and read again as the same event.
		first := e.AppendJSON(nil)
		if len(first) > MaxLine {
			return // escaping made it longer than a line may be
		}
		if err := DecodeJSON(&back, first); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second := back.AppendJSON(nil); !bytes.Equal(first, second) {
			t.Fatalf("not stable:\n%s\n%s", first, second)
		}
	})
}

// sampleLine is a firewall denial as it stands in a batch.
var sampleLine = []byte(`{"@timestamp":"2026-11-22T13:00:00.123Z","event.created":"2026-11-22T13:00:00.223456789Z","event.dataset":"fortinet.fortigate","observer.vendor":"Fortinet","observer.product":"FortiGate","observer.type":"firewall",` +
	`"event.kind":"event","event.category":"network","event.type":["connection","denied"],"event.action":"deny","source.ip":"203.0.113.77","source.port":51514,"destination.ip":"198.51.100.20","destination.port":3389,"network.transport":"tcp",` +
	`"rule.id":"0","observer.name":"fw-1","source.bytes":0,"network.direction":"inbound","tocsin.source.proof":"none","tocsin.sender.assurance":"udp","event.hash":"` + strings.Repeat("0f", 32) + `","policyid":"0"}`)

func BenchmarkDecodeJSON(b *testing.B) {
	var e Event
	b.SetBytes(int64(len(sampleLine)))
	b.ReportAllocs()
	for b.Loop() {
		if err := DecodeJSON(&e, sampleLine); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkAppendJSON(b *testing.B) {
	var e Event
	if err := DecodeJSON(&e, sampleLine); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(len(buf)), "B/event")
}

// benchKeys are those of a firewall's line.
var benchKeys = []Key{EventDataset, EventCategory, EventKind, EventAction, EventOutcome, EventSeverity, SourceIP, SourcePort, DestinationIP, DestinationPort, NetworkTransport, NetworkDirection,
	ObserverVendor, ObserverProduct, ObserverName, RuleName, UserName, SourceBytes, DestinationBytes, NetworkIANANumber, HostName, EventCode}

// BenchmarkSet measures what a parser does: Reset, then 22 values.
func BenchmarkSet(b *testing.B) {
	var e Event
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		e.Reset()
		for i, k := range benchKeys {
			if i%4 == 3 {
				e.SetInt(k, int64(i))
			} else {
				e.SetString(k, "a value")
			}
		}
		n++
	}
	b.ReportMetric(float64(n*len(benchKeys))/b.Elapsed().Seconds(), "values/s")
}

// TestReset: nothing of an event is left for the next.
func TestReset(t *testing.T) {
	var e Event
	late, err := Register("test.reset." + strings.Repeat("x", 20))
	if err != nil {
		t.Fatal(err)
	}
	e.SetRaw([]byte("line"))
	e.ID, e.Tenant, e.Time, e.Created, e.Ingested = ID{Seq: 1}, 1, 1, 1, 1
	e.RawDigest, e.HasRawDigest = [32]byte{1}, true
	e.IncludeRaw(true)
	e.SetNamed("an.extra", "x")
	for _, k := range append(benchKeys, late) {
		e.SetIP(k, netip.MustParseAddr("2001:db8::1"))
	}
	e.Reset()
	if got := e.AppendJSON(nil); string(got) != string(new(Event).AppendJSON(nil)) {
		t.Errorf("left: %s", got)
	}
	for _, k := range append(benchKeys, late) {
		if e.Has(k) {
			t.Errorf("%v is still there", k)
		}
	}
	// What stood in a place does not show through.
	e.SetString(SourceIP, "x")
	e.SetInt(DestinationPort, 4)
	for i, want := range []Value{StringValue("x"), IntValue(4)} {
		if _, v := e.At(i); !v.Equal(want) {
			t.Errorf("value %d is %+v, want %+v", i, v, want)
		}
	}
}

// TestMaxValues: neither Set nor Add goes beyond the bound.
func TestMaxValues(t *testing.T) {
	var e Event
	for range 2 * MaxValues {
		e.Add(EventCategory, StringValue("x"))
	}
	e.SetString(SourceIP, "y")
	e.Set(HostName, StringValue("z"))
	if e.Len() != MaxValues {
		t.Errorf("%d values", e.Len())
	}
}

func TestKeySet(t *testing.T) {
	var set KeySet
	if !set.Add(SourceIP) || !set.Add(TocsinUrgent) || set.Add(Key(bitsetWords*64)) {
		t.Fatal("what a set can hold")
	}
	var e Event
	e.SetString(UserName, "ann")
	if e.HasAny(&set) {
		t.Error("none of the keys is there")
	}
	e.SetBool(TocsinUrgent, true)
	if !e.HasAny(&set) {
		t.Error("one of the keys is there")
	}
	e.Del(TocsinUrgent)
	if e.HasAny(&set) {
		t.Error("it was taken out")
	}
}
