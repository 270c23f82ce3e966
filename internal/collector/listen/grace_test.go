package listen

import (
	"context"
	"testing"
	"time"
)

// handed is a sink that says when lines are in its hands, and keeps them once it may.
type handed struct {
	*store
	has chan struct{}
}

func (h *handed) Receive(ctx context.Context, lines []Line) error {
	select {
	case h.has <- struct{}{}:
	default:
	}
	return h.store.Receive(ctx, lines)
}

// TestEndWhileHandingOver ends listening while the sink is still busy: what was read is kept all the same. It was lost once, and counted.
func TestEndWhileHandingOver(t *testing.T) {
	for name, open := range map[string]func() server{
		"udp": func() server { return udp(t, Options{}) },
		"tcp": func() server { return tcp(t, Options{}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := &handed{newStore(), make(chan struct{}, 1)}
			h.gate = make(chan struct{})
			s := open()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- s.Serve(ctx, h) }()
			if _, err := dial(t, s).Write([]byte("<13>one\n")); err != nil {
				t.Fatal(err)
			}
			select {
			case <-h.has:
			case <-time.After(10 * time.Second):
				t.Fatal("the line never came")
			}
			cancel()
			close(h.gate)
			if err := <-done; err != nil || h.count() != 1 {
				t.Fatalf("%d lines kept, %v", h.count(), err)
			}
		})
	}
}
