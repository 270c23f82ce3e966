package db

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/uptrace/bun"
)

// TestBound runs the same statement again and again in every way in which a connection that keeps it could go wrong.
func TestBound(t *testing.T) {
	d, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "t.db"), Readers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	write := func(fn func(ctx context.Context, q Querier) error) error {
		return d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error { return fn(ctx, Bound(tx)) })
	}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	const insert = "INSERT INTO counters (name, value) VALUES (?, ?)"
	must("insert", write(func(ctx context.Context, q Querier) error {
		for i := range 10 {
			if _, err := q.ExecContext(ctx, insert, fmt.Sprint("n", i), i); err != nil {
				return err
			}
		}
		return nil
	}))
	// One that fails takes only itself back, and the statement works again.
	if err := write(func(ctx context.Context, q Querier) error {
		_, err := q.ExecContext(ctx, insert, "n1", 1)
		return err
	}); err == nil {
		t.Error("the same key twice")
	}
	must("after the failure", write(func(ctx context.Context, q Querier) error {
		_, err := q.ExecContext(ctx, insert, "after", 1)
		return err
	}))

	// The same query while the rows of the first are still read, on one connection.
	const ask = "SELECT name FROM counters WHERE value >= ? AND name LIKE 'n%' ORDER BY value"
	seen := 0
	must("nested", d.View(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		rows, err := Bound(tx).QueryContext(ctx, ask, 7)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var outer, inner string
			if err := rows.Scan(&outer); err != nil {
				return err
			}
			if err := Bound(tx).QueryRowContext(ctx, ask, 9).Scan(&inner); err != nil || inner != "n9" {
				return errors.Join(err, fmt.Errorf("inside %s: %q", outer, inner))
			}
			seen++
		}
		return rows.Err()
	}))
	if seen != 3 {
		t.Errorf("%d rows, want 3", seen)
	}
	// Rows that are not read to their end, and a query whose context ends.
	for range 3 {
		rows, err := d.Read().DB.QueryContext(t.Context(), ask, 0)
		must("half read", err)
		rows.Next()
		must("closing", rows.Close())
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Read().DB.QueryContext(done, ask, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is done: %v", err)
	}
	// More statements than are kept, and one whose table changes.
	for i := range 3 * keepStatements {
		var n int
		must("many", d.Read().DB.QueryRowContext(t.Context(), fmt.Sprintf("SELECT count(*) + %d FROM counters WHERE value >= ? AND name LIKE 'n_'", i), 0).Scan(&n))
		if n != 10+i {
			t.Fatalf("%d, want %d", n, 10+i)
		}
	}
	must("the table changes", write(func(ctx context.Context, q Querier) error {
		if _, err := q.ExecContext(ctx, "ALTER TABLE counters ADD COLUMN more TEXT NOT NULL DEFAULT 'x'"); err != nil {
			return err
		}
		_, err := q.ExecContext(ctx, insert, "changed", 99)
		return err
	}))
	var name string
	must("after the change", d.Read().DB.QueryRowContext(t.Context(), ask, 9).Scan(&name))
	if name != "n9" {
		t.Errorf("%q", name)
	}
	if _, err := d.Read().DB.ExecContext(t.Context(), insert, "z", 1); err == nil {
		t.Error("a reader wrote")
	}
}

func BenchmarkBound(b *testing.B) {
	d, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "t.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	const q = "INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
	for name, f := range map[string]func(tx bun.IDB) Querier{"bound": Bound, "written": func(tx bun.IDB) Querier { return tx }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			err := d.Write(b.Context(), func(ctx context.Context, tx bun.IDB) error {
				for i := 0; b.Loop(); i++ {
					if _, err := f(tx).ExecContext(ctx, q, "n", i); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
