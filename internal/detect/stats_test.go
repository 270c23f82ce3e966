package detect

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// The hub asks for the counters while the worker processes: without a lock the maps in them end the whole program.
func TestStatsWhileProcessing(t *testing.T) {
	e := engine(t, Hub, Options{})
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				e.Stats()
			}
		}
	})
	at := int64(start)
	for source := range 300 {
		for range 12 {
			at += int64(time.Second)
			e.Process(vpnEvent(1, fmt.Sprintf("203.0.113.%d", source%250), "j.moss", "failure", at), at)
		}
	}
	close(done)
	wg.Wait()
	if s := e.Stats(); s.Events != 3600 || s.Detections == 0 {
		t.Errorf("%+v", s)
	}
}
