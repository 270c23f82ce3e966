package load

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"math"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"tocsin/internal/app/status"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// The same seed gives the same lines, another seed others.
func TestGeneratorIsDeterministic(t *testing.T) {
	digest := func(seed uint64, raw bool) (sum string) {
		var b []byte
		for member := range 12 {
			g := newGenerator(seed, member, raw)
			for i := range 500 {
				b = append(g.next(b, noon.Add(time.Duration(i)*time.Millisecond)), '\n')
			}
			b = append(g.incident(b, noon, member), '\n')
		}
		return string(b)
	}
	for _, raw := range []bool{false, true} {
		if first, again := digest(1, raw), digest(1, raw); first != again {
			t.Error("the same seed gives other lines")
		}
		if digest(1, raw) == digest(2, raw) {
			t.Error("another seed gives the same lines")
		}
	}
}

// No line comes twice, within a member (60,000 within one second) or between members.
func TestNoLineTwice(t *testing.T) {
	seen := map[uint64]bool{}
	seed := maphash.MakeSeed()
	lines := 0
	count := func(line []byte) {
		lines++
		seen[maphash.Bytes(seed, line)] = true
	}
	var buf []byte
	for member, n := range []int{60000, 20000, 20000, 20000, 20000, 20000} {
		g := newGenerator(1, member, member%2 == 1)
		for range n {
			buf = g.next(buf[:0], noon)
			count(buf)
		}
		for i := range 50 {
			buf = g.incident(buf[:0], noon, member*50+i)
			count(buf)
		}
	}
	if len(seen) != lines {
		t.Errorf("%d lines, %d different", lines, len(seen))
	}
}

// Every line is understood; in presigned mode every event would leave under the default policy; sources are benchmarking addresses only.
func TestLinesLeave(t *testing.T) {
	enc, err := newEncoder()
	if err != nil {
		t.Fatal(err)
	}
	benchmarking := netip.MustParsePrefix("198.18.0.0/15")
	var line, out []byte
	reasons := map[string]int{}
	for member := range 10 {
		g := newGenerator(3, member, false)
		for i := range 300 {
			if i%100 == 99 {
				line = g.incident(line[:0], noon, i)
			} else {
				line = g.next(line[:0], noon)
			}
			var reason string
			if out, reason, _, err = enc.encode(out[:0], line, noon); err != nil {
				t.Fatal(err)
			}
			reasons[reason]++
			var e event.Event
			if err := event.DecodeJSON(&e, out); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if a, _ := e.IP(event.SourceIP); !benchmarking.Contains(a) {
				t.Fatalf("source %v in %s", a, out)
			}
			if e.Created != noon.UnixNano() || e.Str(event.NetworkDirection) == "" && !strings.Contains(string(line), "sshd") {
				t.Fatalf("no time or direction: %s", out)
			}
		}
	}
	for _, want := range []string{"denied_inbound", "failed_authentication", "ids"} {
		if reasons[want] == 0 {
			t.Errorf("nothing leaves for %s: %v", want, reasons)
		}
	}
	set := parse.New(parse.Options{Location: time.UTC})
	var e event.Event
	for member := range 10 {
		g := newGenerator(3, member, true)
		for range 300 {
			line = g.next(line[:0], noon)
			e.Reset()
			e.Created = noon.UnixNano()
			e.SetRaw(line)
			if _, ok := set.Parse(&e, ""); !ok {
				t.Fatalf("not understood: %s", line)
			}
		}
	}
}

// The plan has the events asked for, evenly, within limits.
func TestPlan(t *testing.T) {
	for _, o := range []Options{
		{Members: 3, Rate: 1000, Duration: 10 * time.Second, Interval: time.Second},
		{Members: 100, Rate: 50, Duration: 60 * time.Second, Interval: 10 * time.Second},
		{Members: 1, Rate: 50000, Duration: 3 * time.Second, Interval: time.Second},
		{Members: 7, Rate: 1, Duration: 300 * time.Second, Interval: 30 * time.Second},
	} {
		all := 0
		for m := range o.Members {
			due, events := plan(&o, m)
			for i, n := range events {
				all += n
				if n < 1 || n > 10000 || due[i] < 0 || due[i] >= o.Duration || i > 0 && due[i] < due[i-1] {
					t.Fatalf("%+v: member %d batch %d: %d events due %s", o, m, i, n, due[i])
				}
			}
		}
		want := o.Rate * o.Duration.Seconds()
		if math.Abs(float64(all)-want) > 0.1*want+float64(o.Members) {
			t.Errorf("%+v: %d events, want about %.0f", o, all, want)
		}
	}
	o := Options{Members: 4, Duration: 10 * time.Second, Incidents: 2}
	all := 0
	for m := range o.Members {
		all += len(incidents(&o, m))
	}
	if all != 20 {
		t.Errorf("%d incidents, want 20", all)
	}
}

func TestValidate(t *testing.T) {
	good := Options{Members: 10, Rate: 100, Duration: 10 * time.Second}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"--members":             func(o *Options) { o.Members = 0 },
		"from 1 to 100":         func(o *Options) { o.Members, o.Collectors = 101, true },
		"--rate":                func(o *Options) { o.Rate = math.NaN() },
		"--duration":            func(o *Options) { o.Duration = 2 * time.Hour },
		"at most 100000000":     func(o *Options) { o.Rate, o.Duration = 100_000, time.Hour },
		"--interval":            func(o *Options) { o.Interval = time.Minute },
		"--incidents":           func(o *Options) { o.Incidents = -1 },
		"not on this machine":   func(o *Options) { o.Hub = "192.0.2.1:8443" },
		"want host:port":        func(o *Options) { o.Hub = "localhost" },
		"is not on this machin": func(o *Options) { o.Hub = "hub.example.org:8443" },
	} {
		o := good
		spoil(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, ok := range []string{"127.0.0.1:1", "localhost:8443", "[::1]:8443", "127.3.2.1:9"} {
		o := good
		o.Hub = ok
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var ms []float64
	for i := range 100 {
		ms = append(ms, float64(100-i))
	}
	if q := quantiles(ms); q.P50 != 50 || q.P95 != 95 || q.P99 != 99 || q.Max != 100 || q.N != 100 {
		t.Errorf("%+v", q)
	}
	if q := quantiles([]float64{7}); q.P50 != 7 || q.P99 != 7 {
		t.Errorf("%+v", q)
	}
	if q := quantiles(nil); q.N != 0 {
		t.Errorf("%+v", q)
	}
}

// Our own process can be read, and is found behind a socket of its own.
func TestProcess(t *testing.T) {
	p, err := readProcess(os.Getpid())
	if err != nil || p.rss < 1 || p.name == "" {
		t.Fatalf("%+v %v", p, err)
	}
	if f := family(os.Getpid()); f[p.name].rss < 1 {
		t.Errorf("family: %v", f)
	}
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if pid, err := peer(context.Background(), path); err != nil || pid != os.Getpid() {
		t.Errorf("peer %d %v, want %d", pid, err, os.Getpid())
	}
}

func TestResultJSON(t *testing.T) {
	var b strings.Builder
	r := Result{Refused: map[string]uint64{"busy": 2}, Gaps: []string{"x"}}
	if err := r.WriteJSON(&b); err != nil || !json.Valid([]byte(b.String())) || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("%v %q", err, b.String())
	}
	b.Reset()
	if err := r.WriteText(&b); err != nil || !strings.Contains(b.String(), "NOT ACCOUNTED FOR: x") {
		t.Errorf("%v %q", err, b.String())
	}
}

// An alert that was made and not handed over is not accounted for, and is said where none was.
func TestHandedOver(t *testing.T) {
	for _, handed := range []int{0, 1} {
		r := &run{outside: &receiver{got: map[string]int64{}}}
		r.res = Result{Incidents: 1, Acked: 5}
		for i := range handed {
			r.outside.got[fmt.Sprint(i)] = 1
		}
		r.alerts(status.Status{})
		r.res.Alerts = 1
		r.account(status.Collector{Acknowledged: 5, Stored: 5})
		var b strings.Builder
		if err := r.res.WriteText(&b); err != nil || r.res.Balanced != (handed == 1) || len(r.res.Gaps) != 1-handed || !strings.Contains(b.String(), fmt.Sprintf("handed over %d of 1 incidents", handed)) {
			t.Errorf("%d handed over: %v, %q, %v\n%s", handed, r.res.Balanced, r.res.Gaps, err, b.String())
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	g := newGenerator(1, 0, false)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = g.next(buf[:0], noon)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

func BenchmarkEncode(b *testing.B) {
	enc, err := newEncoder()
	if err != nil {
		b.Fatal(err)
	}
	g := newGenerator(1, 0, false)
	var line, out []byte
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		line = g.next(line[:0], noon)
		if out, _, _, err = enc.encode(out[:0], line, noon); err != nil {
			b.Fatal(err)
		}
		n += len(out)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(n)/float64(b.N), "B/event")
}
