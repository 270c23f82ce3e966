package collector

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse/parsetest"
	"tocsin/internal/collector/spool"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/rules"
)

// cpu is the processor time this process has used, which a busy machine does not stretch.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mix is a firewall's traffic: most allowed, some refused, a few sign-ins.
func mix() [][]byte {
	now := time.Now().UTC()
	d, at := now.Format(time.DateOnly), now.Format(time.TimeOnly)
	var lines [][]byte
	for i := range 1000 {
		action, src, dst := "accept", "10.0.0.5", "203.0.113.200"
		if i%10 == 3 {
			action, src, dst = "deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7"
		}
		l := fmt.Sprintf(`<189>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=%s srcport=%d srcintf="wan1" srcintfrole="wan" dstip=%s dstport=443 dstintf="lan" dstintfrole="lan" sessionid=%d proto=6 action="%s" policyid=1 policytype="policy" service="HTTPS" dstcountry="Reserved" srccountry="Reserved" trandisp="noop" duration=5 sentbyte=60 rcvdbyte=40 sentpkt=1 rcvdpkt=1 appcat="unscanned"`,
			d, at, src, 1024+i, dst, i, action)
		if i%100 == 7 {
			l = fmt.Sprintf(`<189>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0101039426" type="event" subtype="vpn" level="alert" vd="root" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=203.0.113.%d user="someone" reason="sslvpn_login_permission_denied" msg="SSL user failed to logged in"`, d, at, i%250+1)
		}
		lines = append(lines, []byte(l))
	}
	return lines
}

func benchPipeline(b *testing.B) (*pipeline, *archive.Archive, *spool.Log) {
	b.Helper()
	c := DefaultConfig()
	c.OwnRanges = []string{"198.51.100.0/24"}
	c.Listen.Syslog = []Syslog{{UDP: "127.0.0.1:0", Timezone: "UTC"}}
	min, err := c.minimiser([32]byte{1})
	if err != nil {
		b.Fatal(err)
	}
	min.SetIndicators(benchIndicators(b))
	det, err := detect.New(detect.Options{Rules: rules.FS, Where: detect.Site, Origin: "bench", Withhold: withhold(min)})
	if err != nil {
		b.Fatal(err)
	}
	a, err := archive.Open(archive.Options{Dir: b.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { a.Close() })
	s, err := spool.Open(spool.Options{Dir: b.TempDir(), SegmentBytes: 4 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	p, err := newPipeline(&c, min, det, archive.Secret{1}, a)
	if err != nil {
		b.Fatal(err)
	}
	return p, a, s
}

// benchIndicators is a set of 50,000 as a scheme has it; no sample touches one.
func benchIndicators(b *testing.B) *indicator.Set {
	b.Helper()
	var entries []indicator.Entry
	for i := range 30_000 {
		entries = append(entries, indicator.Entry{Kind: indicator.IP, Value: netip.AddrFrom4([4]byte{25, byte(i >> 8), byte(i), 7}).String()})
	}
	for i := range 15_000 {
		entries = append(entries, indicator.Entry{Kind: indicator.Domain, Value: fmt.Sprintf("host%d.listed.example", i)})
	}
	for i := range 4_500 {
		entries = append(entries, indicator.Entry{Kind: indicator.File, Value: fmt.Sprintf("%064x", i)})
	}
	for i := range 500 {
		entries = append(entries, indicator.Entry{Kind: indicator.Prefix, Value: netip.PrefixFrom(netip.AddrFrom4([4]byte{26, byte(i >> 8), byte(i), 0}), 24).String()})
	}
	packed, err := indicator.Build([16]byte{1}, entries)
	if err != nil {
		b.Fatal(err)
	}
	set, err := indicator.Open(packed)
	if err != nil {
		b.Fatal(err)
	}
	return set
}

// BenchmarkSite is the whole line on the site but for the socket and the sealing: archive, read back, parse, detect, indicators, minimise,
// spool.
func BenchmarkSite(b *testing.B) {
	p, a, s := benchPipeline(b)
	lines := mix()
	sink := &sink{a: &Agent{archive: a}}
	now := time.Now().UnixNano()
	var in []listen.Line
	for _, l := range lines {
		in = append(in, listen.Line{Created: now, Text: l})
	}
	r := a.Reader(spool.Pos{})
	defer r.Close()
	b.ReportAllocs()
	began, n := cpu(), 0
	for b.Loop() {
		for at := 0; at < len(in); at += 50 {
			if err := sink.Receive(b.Context(), in[at:at+50]); err != nil {
				b.Fatal(err)
			}
		}
		for range lines {
			var l archive.Line
			if err := r.Next(&l); err != nil {
				b.Fatal(err)
			}
			p.line(&l, full)
		}
		n += len(lines)
		if _, err := s.AppendFrames(p.frames, p.n); err != nil {
			b.Fatal(err)
		}
		p.frames, p.n = p.frames[:0], 0
		a.Done(r.Pos())
		a.Prune()
		for _, seg := range s.Segments() {
			s.Remove(seg.Base)
		}
	}
	used := cpu() - began
	b.ReportMetric(float64(n)/used.Seconds(), "lines/cpu-s")
	b.ReportMetric(float64(used.Nanoseconds())/float64(n), "cpu-ns/line")
}

// BenchmarkStages measures parse, detect and minimise without any disk, each on top of the one before.
func BenchmarkStages(b *testing.B) {
	lines := mix()
	now := time.Now().UnixNano()
	for _, stage := range []string{"parse", "prepare", "decide", "detect", "line"} {
		b.Run(stage, func(b *testing.B) {
			p, _, _ := benchPipeline(b)
			b.ReportAllocs()
			began, n := cpu(), 0
			for b.Loop() {
				for i, text := range lines {
					l := archive.Line{Number: uint64(n + i + 1), Created: now, Text: text}
					if stage == "line" {
						p.line(&l, full)
						continue
					}
					e := &p.e
					e.Reset()
					e.SetRaw(text)
					e.Created = now
					e.ID = event.ID{Seq: l.Number}
					if _, ok := p.read.sets[0].Parse(e, ""); !ok {
						b.Fatal("not understood")
					}
					if stage == "parse" {
						continue
					}
					p.min.Prepare(e, minimise.Sender{Assurance: "udp"})
					if stage == "prepare" {
						continue
					}
					p.min.Decide(e)
					if stage == "detect" {
						p.det.Process(e, now)
					}
				}
				n += len(lines)
				p.frames, p.n = p.frames[:0], 0
			}
			used := cpu() - began
			b.ReportMetric(float64(n)/used.Seconds(), "lines/cpu-s")
			b.ReportMetric(float64(used.Nanoseconds())/float64(n), "cpu-ns/line")
		})
	}
}

// BenchmarkBar is the bar of the collector as it is named: a line parsed with automatic detection, normalised and minimised under the policy
// "metadata", with own ranges and a set of indicators in force, what leaves reduced to the fields that may. 500,000 lines a second and core of the first three, 300,000 of the mix.
// No line comes twice within thousands. What a collector does once, such as learning what a device's lines look like, is done before.
func BenchmarkBar(b *testing.B) {
	for _, bar := range []struct {
		name    string
		samples []string
	}{
		{"fortigate", []string{"fortigate/traffic."}},
		{"asa", []string{"asa/traffic."}},
		{"netfilter", []string{"netfilter/"}},
		{"mix", mixed},
	} {
		b.Run(bar.name, func(b *testing.B) { benchBar(b, bar.samples...) })
	}
}

// mixed are the samples of all firewalls.
var mixed = []string{"fortigate/traffic.", "asa/traffic.", "netfilter/", "filterlog/", "draytek/", "sonicwall/", "sophos/", "zyxel/", "panos/", "meraki/", "mikrotik/"}

// BenchmarkBarOf is BenchmarkBar for each of the mix by itself, to see which of them costs what.
func BenchmarkBarOf(b *testing.B) {
	for _, s := range mixed {
		name, _, _ := strings.Cut(s, "/")
		b.Run(name, func(b *testing.B) { benchBar(b, s) })
	}
}

func benchBar(b *testing.B, files ...string) {
	var samples [][]byte
	for _, s := range files {
		in, err := os.ReadFile(filepath.Join("parse", "packs", filepath.FromSlash(s)+"input.log"))
		if err != nil {
			b.Fatal(err)
		}
		samples = append(samples, bytes.Split(bytes.TrimSuffix(in, []byte("\n")), []byte("\n"))...)
	}
	p, _, _ := benchPipeline(b)
	set, now := p.read.sets[0], time.Now().UnixNano()
	sender := minimise.Sender{Addr: netip.MustParseAddr("192.0.2.1"), Assurance: "udp"}
	e, out := &p.e, &p.out
	parse := func(line []byte) string {
		e.Reset()
		e.SetRaw(line)
		e.Created = now
		format, ok := set.Parse(e, "")
		if !ok {
			b.Fatalf("not understood: %s", line)
		}
		return format
	}
	lines := parsetest.Lines(samples, 4000, func(sample, line []byte) bool {
		format := parse(sample)
		keys := slices.Clone(e.Keys())
		return parse(line) == format && slices.Equal(e.Keys(), keys)
	})
	one := func(line []byte) {
		parse(line)
		p.min.Prepare(e, sender)
		if p.min.Decide(e).Leave {
			p.min.Reduce(out, e)
		}
	}
	for _, line := range lines[len(lines)/2:] {
		one(line)
	}
	runtime.GC()
	i, began := 0, cpu()
	b.ReportAllocs()
	for b.Loop() {
		one(lines[i])
		if i++; i == len(lines) {
			i = 0
		}
	}
	b.ReportMetric(float64(b.N)/(cpu()-began).Seconds(), "lines/cpu-s")
}
