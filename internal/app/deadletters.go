package app

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"tocsin/internal/bus"
	"tocsin/internal/event"
	"tocsin/internal/people"
	"tocsin/internal/worker"
)

// DeadLetter is a batch, or one event of a batch, or several, that the worker could not process and put aside.
type DeadLetter struct {
	ID        string         `json:"id"` // names it to `tocsin admin dead-letters retry`
	At        time.Time      `json:"at"`
	Tenant    event.TenantID `json:"tenant"`
	Collector string         `json:"collector"`
	Batch     string         `json:"batch"` // digest of its envelope, hexadecimal: the name of its blob
	Place     int            `json:"place"` // index of the event in its batch; -1: the whole batch, or what is left of it
	Events    int            `json:"events"`
	Reason    string         `json:"reason"`
	Tries     int            `json:"tries"`           // that failed since it was put aside
	Trying    string         `json:"trying"`          // the try that was asked for and is not done; "" when none is
	Never     string         `json:"never,omitempty"` // why there can be no other try
}

func deadLetter(d *worker.Dead) DeadLetter {
	return DeadLetter{ID: d.ID(), At: time.Unix(0, d.At).UTC(), Tenant: d.Tenant, Collector: d.Collector, Batch: d.Digest, Place: d.Index, Events: d.Events, Reason: d.Reason, Tries: d.Tries, Trying: d.Try, Never: d.Retriable()}
}

func deadLetters(list []worker.Dead) []DeadLetter {
	out := make([]DeadLetter, len(list))
	for i := range list {
		out[i] = deadLetter(&list[i])
	}
	return out
}

// DeadLetters lists what the worker put aside, newest first.
func (o *Office) DeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	list, err := worker.NewPlans(o.DB).DeadLetters(ctx, limit)
	return deadLetters(list), err
}

// Trying lists the letters whose try was asked for and is not done.
func (o *Office) Trying(ctx context.Context) ([]DeadLetter, error) {
	list, err := worker.NewPlans(o.DB).Asked(ctx)
	return deadLetters(list), err
}

// Retried is the answer to a request for another try: the letters that it was asked for, each with its try, and those that can have none.
type Retried struct {
	Asked []DeadLetter `json:"asked"`
	Never []DeadLetter `json:"never"`
}

// retryLetters asks the worker for another try of the named letters, or of all, and notes who asked.
func (h *hub) retryLetters(ctx context.Context, who string, names []string) (Retried, error) {
	asked, never, err := h.plans.Ask(ctx, names, func() string { return uuid.Must(uuid.NewV7()).String() })
	if err != nil {
		return Retried{}, err
	}
	for i := range asked {
		d := &asked[i]
		// Noted before it is published: what happens is never without somebody who asked for it.
		if err := h.office.People.Record(ctx, people.Entry{Who: who, Action: "dead_letter.retry", Object: d.ID(), Tenant: d.Tenant, Detail: "try " + d.Try}); err != nil {
			return Retried{}, err
		}
	}
	if err := h.publishTries(ctx, asked); err != nil {
		return Retried{}, err
	}
	return Retried{Asked: deadLetters(asked), Never: deadLetters(never)}, nil
}

// publishTries puts the notices of tries on the bus. The worker takes each try once, so one too many does no harm.
func (h *hub) publishTries(ctx context.Context, asked []worker.Dead) error {
	for i := range asked {
		n, err := asked[i].Again()
		if err != nil {
			return err
		}
		if _, err := h.bus.Publish(ctx, bus.Subject(n.Tenant), "try/"+n.Retry.ID, n.Encode()); err != nil {
			return fmt.Errorf("another try of %s was asked for and is not on the bus yet; ask again, or start the hub again: %w", asked[i].ID(), err)
		}
	}
	return nil
}

// resumeTries publishes again what was asked for and is not done: the hub may have stopped in between, or the bus is a new one.
func (h *hub) resumeTries(ctx context.Context) error {
	asked, err := h.plans.Asked(ctx)
	if err != nil {
		return err
	}
	return h.publishTries(ctx, asked)
}

// serveRetry answers POST /admin/dead-letters/retry. No names: all that can be tried again.
func (h *hub) serveRetry(r *http.Request) (any, error) {
	var in struct{ Names []string }
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return h.retryLetters(r.Context(), Operator.UserID, in.Names)
}
