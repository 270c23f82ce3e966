package gate

import (
	"context"
	"errors"
	"testing"

	"tocsin/internal/batch"
)

// While as many bodies are open as may be, one that is urgent is opened all the same, and one that is not waits.
func TestUrgentBodiesDoNotWait(t *testing.T) {
	g := &Gate{bodies: make(chan *batch.Body, 1), ahead: make(chan *batch.Body, 1)}
	g.ahead <- new(batch.Body)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := g.open(ctx, batch.Manifest{Urgent: true}, nil); err == nil || errors.Is(err, context.Canceled) || len(g.ahead) != 1 {
		t.Errorf("an empty body, and then room again: %v, %d", err, len(g.ahead))
	}
	cancel()
	if err := g.open(ctx, batch.Manifest{}, nil); !errors.Is(err, context.Canceled) || len(g.ahead) != 1 {
		t.Errorf("%v, %d", err, len(g.ahead))
	}
}
