package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/uptrace/bun"
)

// Bounds of one commit: enough to share a sync of the disk among many, short
// enough that nobody waits for the others.
const (
	groupMax  = 256
	groupTime = 20 * time.Millisecond
)

type request struct {
	ctx  context.Context
	fn   func(ctx context.Context, tx bun.IDB) error
	done chan error
	err  error
}

// Write runs fn in a transaction and returns when it is durable. Writes are
// serial. Those that wait at the same time share one transaction and one sync
// of the disk, each under its own savepoint, so one that fails takes only
// itself back.
//
// fn must touch nothing but the database, or bear being run twice: when the
// shared commit fails, each is tried again alone. It must not wait for another
// Write. Its context is not cancelled half-way (SQLite would take the whole
// transaction back); a ctx that is done before fn starts ends Write with its
// error.
func (d *DB) Write(ctx context.Context, fn func(ctx context.Context, tx bun.IDB) error) error {
	r := &request{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case <-d.stop:
		return ErrClosed
	default:
	}
	select {
	case d.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stopped:
		return ErrClosed
	}
	select {
	case err := <-r.done:
		return err
	case <-d.stopped:
		select {
		case err := <-r.done:
			return err
		default:
			return ErrClosed
		}
	}
}

func (d *DB) writeLoop() {
	defer close(d.stopped)
	for {
		select {
		case r := <-d.requests:
			d.group(r)
		case <-d.stop:
			for { // what was handed in before is still done
				select {
				case r := <-d.requests:
					d.group(r)
				default:
					return
				}
			}
		}
	}
}

// group commits first and whatever else waits.
func (d *DB) group(first *request) {
	var members []*request
	start := time.Now()
	next := func() *request {
		if first != nil {
			r := first
			first = nil
			return r
		}
		if len(members) >= groupMax || time.Since(start) > groupTime {
			return nil
		}
		select {
		case r := <-d.requests:
			return r
		default:
			return nil
		}
	}
	err := d.transact(func(tx bun.Tx) error {
		for r := next(); r != nil; r = next() {
			members = append(members, r)
			if err := d.run(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		d.groups.Add(1)
	}
	for _, r := range members {
		switch {
		case err != nil && len(members) > 1:
			// The transaction is gone; nobody's work is there. Whose fault it
			// was shows when each is run alone.
			r.err = nil
			if alone := d.transact(func(tx bun.Tx) error { return d.run(tx, r) }); alone != nil {
				r.err = alone
			} else {
				d.groups.Add(1)
			}
		case err != nil:
			r.err = err
		}
		if r.err != nil {
			d.failed.Add(1)
		} else {
			d.writes.Add(1)
		}
		r.done <- r.err
	}
	if len(members) == 0 && first != nil { // not even begun
		d.failed.Add(1)
		first.done <- err
	}
}

func (d *DB) transact(fn func(tx bun.Tx) error) error {
	tx, err := d.writer.BeginTx(context.Background(), nil)
	if err != nil {
		if busy(err) {
			return fmt.Errorf("%w: another program holds it", ErrBusy)
		}
		return fmt.Errorf("db: %w", err)
	}
	if err := fn(tx); err != nil {
		if rollback := tx.Rollback(); rollback != nil {
			err = errors.Join(err, rollback)
		}
		return err
	}
	if err := tx.Commit(); err != nil {
		// A failed commit may leave the transaction open on the connection.
		return errors.Join(fmt.Errorf("db: committing: %w", err), ignoreDone(tx.Rollback()))
	}
	return nil
}

// run runs one request under a savepoint. Its result goes to r.err; the error
// returned means that the transaction as a whole is lost.
func (d *DB) run(tx bun.Tx, r *request) error {
	if r.err = r.ctx.Err(); r.err != nil {
		return nil
	}
	ctx := context.WithoutCancel(r.ctx)
	if _, err := tx.Tx.ExecContext(ctx, "SAVEPOINT w"); err != nil {
		r.err = fmt.Errorf("db: %w", err)
		return r.err
	}
	r.err = call(ctx, tx, r.fn)
	end := "RELEASE w"
	if r.err != nil {
		end = "ROLLBACK TO w"
	}
	if _, err := tx.Tx.ExecContext(ctx, end); err != nil {
		// A full disk ends the transaction by itself; the savepoint is gone.
		err = fmt.Errorf("db: %w", err)
		if r.err == nil {
			r.err = err
		}
		return errors.Join(r.err, err)
	}
	if r.err != nil {
		if _, err := tx.Tx.ExecContext(ctx, "RELEASE w"); err != nil {
			return fmt.Errorf("db: %w", err)
		}
	}
	return nil
}

// call turns a panic into an error: it must not take the writer of everybody
// else with it.
func call(ctx context.Context, tx bun.IDB, fn func(ctx context.Context, tx bun.IDB) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("db: a write panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx, tx)
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
