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
)

// ipfix is a datagram with the template of three fields (from, to, and what the firewall did: it let it through) and n flows.
func ipfix(n int, sequence uint32) []byte {
	b := []byte{0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 20, 1, 0, 0, 3, 0, 8, 0, 4, 0, 12, 0, 4, 0, 233, 0, 1}
	b = binary.BigEndian.AppendUint16(append(b, 1, 0), uint16(4+9*n))
	for i := range n {
		b = append(b, 10, 0, 0, byte(i), 203, 0, 113, 200, 1)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint32(b[4:], uint32(time.Now().Unix()))
	binary.BigEndian.PutUint32(b[8:], sequence)
	return b
}

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
	all := newKillLoad(t, s)
	c := s.spawn(all.config)
	up(t, s)
	line := func(i int) string {
		if i%10 == 3 {
			return traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i)
		}
		return traffic("accept", fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), fmt.Sprintf("192.0.%d.%d", i/250, i%250+1), i) // a site of a thousand computers
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
	dial := func(network string, way int) net.Conn {
		conn, err := net.Dial(network, all.address(way))
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
	udp := dial("udp", byUDP)
	run(udpRate, 100, func(from, n int) error {
		for i := range n {
			if _, err := udp.Write([]byte(text[(from+i)%1000])); err != nil {
				return err
			}
		}
		return nil
	})
	stream := dial("tcp", bySyslog)
	run(rate, 100, func(from, n int) error {
		var b bytes.Buffer
		for i := range n {
			fmt.Fprintln(&b, text[(from+i)%1000])
		}
		_, err := stream.Write(b.Bytes())
		return err
	})
	f, err := os.Create(filepath.Join(all.logs, "fw.log"))
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
	post := func(way int, kind string, body []byte) error {
		req, err := http.NewRequest(http.MethodPost, "http://"+all.address(way)+"/v1/logs", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+all.token)
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
		return post(byHTTP, "text/plain", b.Bytes())
	})
	run(rate, 100, func(from, n int) error {
		var lines []string
		for i := range n {
			lines = append(lines, text[(from+i)%1000])
		}
		return post(byOTLP, "application/json", otlpRequest(lines))
	})
	client, err := lumber.SyncDial(all.address(byBeats))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	run(rate, 100, func(from, n int) error {
		var events []any
		for i := range n {
			events = append(events, filebeat(text[(from+i)%1000]))
		}
		_, err := client.Send(events)
		return err
	})
	flow := dial("udp", byFlows)
	run(rate, 20, func(from, n int) error {
		_, err := flow.Write(ipfix(n, uint32(from)))
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
	endLoad(t, h, s, c, memory, sent)
}
