package e2e

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"
)

// From the start of the real program to the first TCP connection it takes. The bar is 100 ms on a quiet machine; the log has the figures.
func TestStartToListening(t *testing.T) {
	h := newHub(t)
	s := newSite(t, h, "Start")
	var took []time.Duration
	for range 5 {
		udp, tcp := ports(t)
		config := s.writeConfig(udp, tcp)
		if _, err := program(); err != nil { // built before the clock starts
			t.Fatal(err)
		}
		began := time.Now()
		c := s.spawn(config)
		for {
			conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp))
			if err == nil {
				took = append(took, time.Since(began))
				conn.Close()
				break
			}
			if time.Since(began) > 30*time.Second {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // how finely it is measured
		}
		c.kill()
	}
	slices.Sort(took)
	t.Logf("start to listening: %v", took)
}
