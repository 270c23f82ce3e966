package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector"
)

// peakMemory is the most memory the process has had, in bytes.
func peakMemory(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// The real program under UDP load: every datagram is received or counted as dropped by the kernel, and memory stays within its bound.
// TOCSIN_UDP_RATE and TOCSIN_UDP_SECONDS set the load; the short form is small, as other tests share the machine.
func TestUDPLoad(t *testing.T) {
	rate, seconds := 20000, 2
	if n, err := strconv.Atoi(os.Getenv("TOCSIN_UDP_RATE")); err == nil {
		rate = n
	}
	if n, err := strconv.Atoi(os.Getenv("TOCSIN_UDP_SECONDS")); err == nil {
		seconds = n
	}
	h := newHub(t)
	s := newSite(t, h, "Load")
	udp, tcp := ports(t)
	c := s.spawn(s.writeConfig(udp, tcp))
	up(t, s)
	conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", udp))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var lines []string
	for i := range 1000 {
		if i%10 == 3 {
			lines = append(lines, traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
		} else {
			lines = append(lines, traffic("accept", "10.0.0.5", "203.0.113.200", i))
		}
	}
	began := time.Now()
	sent := uint64(0)
	for i := range rate * seconds {
		if i%100 == 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		if _, err := conn.Write([]byte(lines[i%1000])); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	took := time.Since(began)
	deadline := time.Now().Add(time.Minute)
	var st *collector.Status
	for {
		if st, err = collector.FetchStatus(t.Context(), &s.cfg); err == nil && st.Counts["received"]+st.Listeners[0].KernelDrops >= sent && st.Waiting == 0 && st.Sent == st.Acknowledged {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("sent %d: %v %+v", sent, err, st)
		}
		time.Sleep(50 * time.Millisecond)
	}
	worked := time.Since(began)
	memory := peakMemory(t, c.cmd.Process.Pid)
	t.Logf("%d lines in %v (%.0f/s), all worked on and confirmed after %v; kernel dropped %d; peak memory %.1f MiB; buffer %d KiB", sent, took.Round(time.Millisecond), float64(sent)/took.Seconds(),
		worked.Round(time.Millisecond), st.Listeners[0].KernelDrops, float64(memory)/(1<<20), st.Listeners[0].ReadBuffer>>10)
	endLoad(t, h, s, c, memory, sent)
}

// endLoad ends a program that was under load: its memory was within the bound, and every line that was sent is accounted for.
func endLoad(t *testing.T, h *hub, s *site, c *child, memory int64, sent uint64) {
	t.Helper()
	if memory > 64<<20 {
		t.Errorf("peak memory %.1f MiB, at most 64", float64(memory)/(1<<20))
	}
	settledChild(t, s)
	c.term()
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"]+k.counts["udp_dropped"] != sent {
		t.Errorf("sent %d, received %d, dropped %d", sent, k.counts["received"], k.counts["udp_dropped"])
	}
}

func up(t *testing.T, s *site) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		if _, err := collector.FetchStatus(t.Context(), &s.cfg); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
