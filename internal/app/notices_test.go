package app

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/outbox"
	"tocsin/internal/people"
)

// A mail that was given up is listed with its error, tried again when somebody asks, and it is noted who did.
func TestRetryNotices(t *testing.T) {
	ctx := t.Context()
	d, err := db.Open(ctx, db.Options{Path: filepath.Join(t.TempDir(), "t.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	persons, err := people.New(d, people.Options{Key: [32]byte{1}, Issuer: "Test"})
	if err != nil {
		t.Fatal(err)
	}
	o := &Office{DB: d, People: persons}
	box := outbox.New(d, outbox.Options{})
	if err := box.Add(ctx, outbox.Entry{Key: "a", Kind: "mail", Tenant: 3}, outbox.Entry{Key: "b", Kind: "mail", Tenant: 3}); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "UPDATE outbox SET state = 'dead', attempts = 12, error = 'the relay refused it' WHERE key = 'b'")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	list, err := o.Notices(ctx, outbox.Dead, 10)
	if err != nil || len(list) != 1 || list[0].Key != "b" || list[0].Error != "the relay refused it" || list[0].Tenant != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	if all, err := o.Notices(ctx, "", 10); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	dead := list[0].ID
	if err := o.RetryNotices(ctx, []int64{dead}); err != nil {
		t.Fatal(err)
	}
	if err := o.RetryNotices(ctx, []int64{dead}); !errors.Is(err, outbox.ErrNotFound) {
		t.Errorf("one that is not dead: %v", err)
	}
	if st, err := box.Stats(ctx); err != nil || st.Waiting != 2 || st.Dead != 0 {
		t.Errorf("%+v, %v", st, err)
	}
	trail, err := persons.Trail(ctx, access.System("test"), 0, 10)
	if err != nil || len(trail) != 1 || trail[0].Action != "outbox.retry" || trail[0].Who != Operator.UserID {
		t.Errorf("%+v, %v", trail, err)
	}
}
