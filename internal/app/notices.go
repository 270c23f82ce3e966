package app

import (
	"context"
	"strconv"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/outbox"
	"tocsin/internal/people"
)

// Notice is an entry of the outbox: a mail or a webhook that went out, is to go out, or could not be delivered.
type Notice struct {
	ID       int64          `json:"id"`
	Kind     string         `json:"kind"`
	Key      string         `json:"key"` // what it is about, and for whom
	Tenant   event.TenantID `json:"tenant"`
	State    string         `json:"state"` // waiting, running, done or dead
	Made     time.Time      `json:"made"`
	Attempts int            `json:"attempts"`
	Error    string         `json:"error,omitempty"` // of the last attempt
	Result   string         `json:"result,omitempty"`
}

// Notices lists entries of the outbox, newest first; state "" is any.
func (o *Office) Notices(ctx context.Context, state string, limit int) ([]Notice, error) {
	var out []Notice
	box, before := outbox.New(o.DB, outbox.Options{}), int64(0)
	for len(out) < limit {
		page, err := box.List(ctx, o.scope(), outbox.Filter{State: state, Before: before, Limit: limit - len(out)})
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		for _, e := range page {
			out = append(out, Notice{ID: e.ID, Kind: e.Kind, Key: e.Key, Tenant: e.Tenant, State: e.State, Made: time.Unix(0, e.CreatedNS).UTC(), Attempts: e.Attempts, Error: e.Error, Result: e.Result})
		}
		before = page[len(page)-1].ID
	}
	return out, nil
}

// RetryNotices gives dead entries their attempts again, and notes who asked; the hub that runs, or the next one, makes them. The first that
// is not there or not dead is outbox.ErrNotFound, and those after it are left.
func (o *Office) RetryNotices(ctx context.Context, ids []int64) error {
	box := outbox.New(o.DB, outbox.Options{})
	for _, id := range ids {
		if err := box.Retry(ctx, o.scope(), id); err != nil {
			return err
		}
		if err := o.People.Record(ctx, people.Entry{Who: Operator.UserID, Action: "outbox.retry", Object: strconv.FormatInt(id, 10)}); err != nil {
			return err
		}
	}
	return nil
}
