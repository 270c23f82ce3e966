package web

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Health is what the hub says about itself to its operator.
type Health struct {
	Version   string
	Checks    []Check
	Stages    []Stage
	Latencies []Latency
}

func (s *server) health(w http.ResponseWriter, r *request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	h := s.o.Health(ctx)
	v := healthView{Now: s.o.Now(), Version: h.Version, Tone: "good", Heading: "Everything works", Text: "Every part answers.", Checks: h.Checks, Stages: h.Stages, Latencies: h.Latencies}
	var ill []string
	for _, c := range h.Checks {
		if !c.OK {
			ill = append(ill, c.Name)
		}
	}
	if len(ill) > 0 {
		v.Tone, v.Heading = "bad", fmt.Sprintf("%d %s attention", len(ill), plural(int64(len(ill)), "part needs", "parts need"))
		v.Text = strings.Join(ill, ", ") + ". The table says what to do."
	}
	p := s.page(r, "Health", "/health", v)
	p.Width = "medium"
	return s.show(w, r, "health", p)
}
