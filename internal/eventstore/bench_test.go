package eventstore

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/access"
	"tocsin/internal/event"
	"tocsin/internal/eventstore/engine/enginetest"
)

// BenchmarkBlockAdd: an event of 24 fields into columns.
func BenchmarkBlockAdd(b *testing.B) {
	m := newMaker(1)
	var es []*event.Event
	for i := range 10_000 {
		es = append(es, m.firewall(event.TenantID(1+i%50), uint64(i/1000), i, noon+int64(i)*1e6).Clone())
	}
	blk := NewBlock()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if !blk.Add(es[n%len(es)], Meta{}) {
			blk.Reset()
			blk.Add(es[n%len(es)], Meta{})
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkBlockEncode(b *testing.B) {
	blk := NewBlock()
	fill(b, blk, newMaker(1), []event.TenantID{1, 2, 3, 4, 5}, 1, 10_000, noon)
	var buf proto.Buffer
	n := 0
	for b.Loop() {
		buf.Reset()
		if err := blk.encode(&buf); err != nil {
			b.Fatal(err)
		}
		n += blk.Len()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(len(buf.Buf))/float64(blk.Len()), "wire-B/event")
}

// cpu gives the CPU time of a process in seconds, from /proc.
func cpu(b testing.TB, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
	u, _ := strconv.ParseFloat(f[11], 64)
	s, _ := strconv.ParseFloat(f[12], 64)
	return (u + s) / 100
}

func rss(pid int) (mib float64) {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// BenchmarkInsert: blocks of the given size with all roll-ups and every insert synced, 200 tenants, the real engine.
func BenchmarkInsert(b *testing.B) {
	for _, rows := range []int{1000, 10_000, 50_000} {
		b.Run(strconv.Itoa(rows), func(b *testing.B) {
			e := enginetest.Start(b, enginetest.Dir(b))
			s := openAt(b, Options{Address: e.Address(), Ready: e.Ready})
			m := newMaker(1)
			blk := NewBlock()
			n, seq := 0, uint64(0)
			at := noon
			start := cpu(b, e.PID())
			for b.Loop() {
				seq++
				b.StopTimer()
				blk.Reset()
				for i := range rows {
					blk.Add(m.firewall(event.TenantID(1+i%200), seq, i/200, at+int64(i)*1e5), Meta{})
				}
				at += int64(rows) * 1e5
				b.StartTimer()
				if err := s.Insert(context.Background(), strconv.FormatUint(seq, 10), blk); err != nil {
					b.Fatal(err)
				}
				n += rows
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric((cpu(b, e.PID())-start)/float64(n)*1e6, "engine-cpu-s/M")
			b.ReportMetric(rss(e.PID()), "engine-MiB")
		})
	}
}

// TestSize measures the bytes an event takes after merges, by table. It is a measurement, so it runs only when asked for.
func TestSize(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("TOCSIN_SIZE_EVENTS"))
	if err != nil || n == 0 {
		t.Skip("SKIPPED: a measurement; set TOCSIN_SIZE_EVENTS to the number of events")
	}
	s := openStore(t)
	ctx := context.Background()
	m := newMaker(1)
	blk := NewBlock()
	at := noon - 6*int64(time.Hour)
	perEvent := 12 * int64(time.Hour) / int64(n)
	seqs := map[event.TenantID]uint64{}
	for done := 0; done < n; {
		blk.Reset()
		for i := 0; i < 50_000 && done < n; i++ {
			tn := event.TenantID(1 + m.rng.IntN(1000))
			if m.rng.IntN(20) == 0 {
				seqs[tn]++
			}
			blk.Add(m.firewall(tn, seqs[tn], i%20, at+int64(m.rng.IntN(1e6))), Meta{})
			at += perEvent
			done++
		}
		if err := s.Insert(ctx, strconv.Itoa(done), blk); err != nil {
			t.Fatal(err)
		}
	}
	tables := []string{"events"}
	for _, r := range rollups {
		tables = append(tables, r.name)
	}
	for _, tb := range tables {
		if err := s.c.exec(ctx, "OPTIMIZE TABLE "+s.db+"."+tb+" FINAL", nil); err != nil {
			t.Fatal(err)
		}
		got, err := s.sums(ctx, "SELECT toInt32(sum(rows)), toUInt32(count()), toUInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = '"+s.db+"' AND table = '"+tb+"'", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range got {
			t.Logf("%-18s %9d rows %3d parts %11d bytes  %.1f B/event", tb, k.day, k.tenant, v, float64(v)/float64(n))
		}
	}
	var name proto.ColStr
	var size proto.ColUInt64
	err = s.c.query(ctx, "SELECT name, data_compressed_bytes FROM system.columns WHERE database = '"+s.db+"' AND table = 'events' ORDER BY 2 DESC LIMIT 15", nil, proto.Results{{Data: &name}, {Data: &size}}, func() {}, func(rows int) error {
		for i := range rows {
			t.Logf("  %-20s %.2f B/event", name.Row(i), float64(size[i])/float64(n))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := s.Top(ctx, access.System("bench"), BySourceIP, Filter{From: noon - 10*day, To: noon + day}, 20); err != nil {
		t.Fatal(err)
	}
	t.Logf("top 20 sources of the scheme: %v", time.Since(start))
}
