package load

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// receiver is a program that gets the alerts of the hub which this run started, as a member's own system would, and notes when. So the time to the
// outbox and out of it is measured with entries in it.
type receiver struct {
	server http.Server
	at     string // its address
	secret string

	mu  sync.Mutex
	got map[string]int64 // by alert: nanoseconds from its first event's receipt
}

// maxNotice bounds a notice's body.
const maxNotice = 1 << 20

func startReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a receiver for alerts: %w", err)
	}
	r := &receiver{at: "http://" + l.Addr().String() + "/", secret: rand.Text(), got: map[string]int64{}}
	r.server = http.Server{Handler: http.HandlerFunc(r.take), ReadTimeout: 10 * time.Second}
	go r.server.Serve(l) // until stop
	return r, nil
}

func (r *receiver) take(w http.ResponseWriter, req *http.Request) {
	now := time.Now()
	var m struct {
		Alert  string
		Tenant uint32 // 0: an alert of the centre's own, about several members
		Update int
		Entity string
		First  time.Time
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, maxNotice)).Decode(&m); err != nil {
		http.Error(w, "not a notice", http.StatusBadRequest)
		return
	}
	if m.Tenant == 0 || !incident(m.Entity) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.got[m.Alert]; !again && m.Update == 0 {
		r.got[m.Alert] = int64(now.Sub(m.First))
	}
}

// delivered gives how long incidents took to get here.
func (r *receiver) delivered() Quantiles {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ms []float64
	for _, ns := range r.got {
		ms = append(ms, float64(ns)/1e6)
	}
	return quantiles(ms)
}

// stop closes it; what is under way is cut.
func (r *receiver) stop() { _ = r.server.Close() }
