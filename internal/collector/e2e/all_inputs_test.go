package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	lumber "github.com/elastic/go-lumber/client/v2"

	"tocsin/internal/collector"
	"tocsin/internal/collector/listen/httpin"
)

// The real program with every input switched on and lines coming in by all of them at once: nothing is lost, and memory stays within its bound.
// TOCSIN_UDP_RATE sets the lines a second over UDP, TOCSIN_ALL_RATE those over each of the other six, TOCSIN_UDP_SECONDS the time; the short form
// is small, as other tests share the machine.
func TestAllInputsLoad(t *testing.T) {
	env := func(name string, n int) int {
		if x, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return x
		}
		return n
	}
	udpRate, rate, seconds := env("TOCSIN_UDP_RATE", 2000), env("TOCSIN_ALL_RATE", 300), env("TOCSIN_UDP_SECONDS", 1)
	h := newHub(t)
	s := newSite(t, h, "Everything")
	port := map[string]int{}
	var tcp [4]int
	for i, name := range []string{"syslog", "http", "otlp", "beats"} {
		port[name+"-udp"], tcp[i] = ports(t)
		port[name] = tcp[i]
	}
	logs := t.TempDir()
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `dir: %s
listen:
  syslog: [{udp: "127.0.0.1:%d", tcp: "127.0.0.1:%d", tls: "127.0.0.1:0", timezone: UTC}]
  files: [{paths: ["%s/*.log"], drop: "%s/drop", timezone: UTC}]
  http: [{tcp: "127.0.0.1:%d", timezone: UTC}]
  otlp: [{tcp: "127.0.0.1:%d", timezone: UTC}]
  beats: [{tcp: "127.0.0.1:%d", timezone: UTC}]
  flows: [{udp: "127.0.0.1:%d"}]
own_ranges: [198.51.100.0/24]
retry_max: 1s
`, s.cfg.Dir, port["syslog-udp"], port["syslog"], logs, logs, port["http"], port["otlp"], port["beats"], port["http-udp"]), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := httpin.NewToken(s.cfg.TokensFile(), "test")
	if err != nil {
		t.Fatal(err)
	}
	c := s.spawn(config)
	up(t, s)
	line := func(i int) string {
		if i%10 == 3 {
			return traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i)
		}
		return traffic("accept", "10.0.0.5", "203.0.113.200", i)
	}
	var wg sync.WaitGroup
	began := time.Now()
	run := func(rate, chunk int, send func(from, n int) error) {
		wg.Go(func() {
			for i := 0; i < rate*seconds; i += chunk {
				time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate)))) // the pace
				if err := send(i, min(chunk, rate*seconds-i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	dial := func(network string, port int) net.Conn {
		conn, err := net.Dial(network, fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	var text [1000]string
	for i := range text {
		text[i] = line(i)
	}
	udp := dial("udp", port["syslog-udp"])
	run(udpRate, 100, func(from, n int) error {
		for i := range n {
			if _, err := udp.Write([]byte(text[(from+i)%1000])); err != nil {
				return err
			}
		}
		return nil
	})
	stream := dial("tcp", port["syslog"])
	run(rate, 100, func(from, n int) error {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintln(&b, text[(from+i)%1000])
		}
		_, err := stream.Write(b.Bytes())
		return err
	})
	f, err := os.Create(filepath.Join(logs, "fw.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run(rate, 100, func(from, n int) error {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintln(&b, text[(from+i)%1000])
		}
		_, err := f.Write(b.Bytes())
		return err
	})
	post := func(port int, kind string, body []byte) error {
		req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/v1/logs", port), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", kind)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			return fmt.Errorf("%s: %s", kind, res.Status)
		}
		return nil
	}
	run(rate, 100, func(from, n int) error {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintln(&b, text[(from+i)%1000])
		}
		return post(port["http"], "text/plain", b.Bytes())
	})
	run(rate, 100, func(from, n int) error {
		b := []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[`)
		for i := range n {
			if i > 0 {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, `{"body":{"stringValue":%q}}`, text[(from+i)%1000])
		}
		return post(port["otlp"], "application/json", append(b, `]}]}]}`...))
	})
	client, err := lumber.SyncDial(fmt.Sprintf("127.0.0.1:%d", port["beats"]))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	run(rate, 100, func(from, n int) error {
		var events []any
		for i := range n {
			events = append(events, map[string]any{"@timestamp": "2026-11-22T10:00:00Z", "message": text[(from+i)%1000], "agent": map[string]any{"type": "filebeat"}})
		}
		_, err := client.Send(events)
		return err
	})
	flow := dial("udp", port["http-udp"])
	run(rate, 20, func(from, n int) error { // IPFIX: the template of three fields, and n flows
		b := []byte{0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 20, 1, 0, 0, 3, 0, 8, 0, 4, 0, 12, 0, 4, 0, 233, 0, 1, 1, 0, 0, byte(4 + 9*n)}
		for i := range n {
			b = append(b, 10, 0, 0, byte(i), 203, 0, 113, 200, 1)
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint32(b[4:], uint32(time.Now().Unix()))
		binary.BigEndian.PutUint32(b[8:], uint32(from))
		_, err := flow.Write(b)
		return err
	})
	wg.Wait()
	took := time.Since(began)
	sent := uint64((udpRate + 6*rate) * seconds)
	var st *collector.Status
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // until the program says that it has all of it
		if st, err = collector.FetchStatus(t.Context(), &s.cfg); err == nil && st.Counts["received"]+st.Counts["udp_dropped"] >= sent && st.Waiting == 0 && st.Sent == st.Acknowledged {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("sent %d: %v %+v", sent, err, st)
		}
	}
	memory := peakMemory(t, c.cmd.Process.Pid)
	t.Logf("%d lines in %v (%.0f/s) by seven ways, all worked on and confirmed after %v; kernel dropped %d; peak memory %.1f MiB", sent, took.Round(time.Millisecond), float64(sent)/took.Seconds(),
		time.Since(began).Round(time.Millisecond), st.Counts["udp_dropped"], float64(memory)/(1<<20))
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
