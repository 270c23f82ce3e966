package app

import (
	"context"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/worker"
)

// DeadLetter is a batch, or one event of a batch, that the worker could not process and put aside.
type DeadLetter struct {
	At        time.Time      `json:"at"`
	Tenant    event.TenantID `json:"tenant"`
	Collector string         `json:"collector"`
	Batch     string         `json:"batch"` // digest of its envelope, hexadecimal: the name of its blob
	Place     int            `json:"place"` // index of the event in its batch; -1: the whole batch
	Events    int            `json:"events"`
	Reason    string         `json:"reason"`
}

// DeadLetters lists what the worker put aside, newest first.
func (o *Office) DeadLetters(ctx context.Context, limit int) ([]DeadLetter, error) {
	list, err := worker.NewPlans(o.DB).DeadLetters(ctx, limit)
	if err != nil {
		return nil, err
	}
	out := make([]DeadLetter, len(list))
	for i, d := range list {
		out[i] = DeadLetter{At: time.Unix(0, d.At).UTC(), Tenant: d.Tenant, Collector: d.Collector, Batch: d.Digest, Place: d.Index, Events: d.Events, Reason: d.Reason}
	}
	return out, nil
}
