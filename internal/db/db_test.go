package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/uptrace/bun"
)

func open(t testing.TB, path string) *DB {
	t.Helper()
	d, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func put(ctx context.Context, d *DB, name string, v int) error {
	return d.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO counters (name, value) VALUES (?, ?)", name, v)
		return err
	})
}

func count(t testing.TB, d *DB, where string) (n int) {
	t.Helper()
	if err := d.Read().NewRaw("SELECT count(*) FROM counters WHERE "+where).Scan(context.Background(), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpenSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new folder", "to csin?#.db")
	d := open(t, path)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000"} {
		var got string
		if err := d.writer.NewRaw("PRAGMA "+pragma).Scan(t.Context(), &got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", pragma, got, err, want)
		}
	}
	if _, err := d.Read().ExecContext(t.Context(), "INSERT INTO counters VALUES ('x', 1)"); err == nil {
		t.Error("a reader could write")
	}
	if err := d.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if v, err := d.Version(t.Context()); err != nil || v < 1 {
		t.Errorf("version %d, %v", v, err)
	}
}

func TestWriteGroups(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			err := d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO counters (name, value) VALUES (?, 1)", fmt.Sprint("g", i)); err != nil {
					return err
				}
				switch i % 10 {
				case 3:
					return boom
				case 4:
					panic("oh")
				}
				return nil
			})
			switch {
			case i%10 == 3 && !errors.Is(err, boom):
				t.Errorf("%d: got %v", i, err)
			case i%10 == 4 && (err == nil || !strings.Contains(err.Error(), "panicked: oh")):
				t.Errorf("%d: got %v", i, err)
			case i%10 != 3 && i%10 != 4 && err != nil:
				t.Errorf("%d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := count(t, d, "name LIKE 'g%'"); n != 160 {
		t.Errorf("%d rows, want 160", n)
	}
	st := d.Stats()
	if st.Writes != 160 || st.Failed != 40 || st.Groups >= 160 {
		t.Errorf("%+v: expected 160 writes in fewer commits, 40 failed", st)
	}
}

// When the shared transaction is lost, each write is run again by itself and
// only the guilty one fails.
func TestWriteGroupLost(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	block := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // holds the loop so that the others queue up
		if err := d.Write(t.Context(), func(context.Context, bun.IDB) error { <-block; return nil }); err != nil {
			t.Error(err)
		}
	})
	errs := make([]error, 5)
	ready := make(chan struct{}, 5)
	for i := range errs {
		wg.Go(func() {
			ready <- struct{}{}
			errs[i] = d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
				if i == 2 { // takes the whole transaction down, as a full disk does
					_, err := tx.ExecContext(ctx, "ROLLBACK")
					return err
				}
				_, err := tx.ExecContext(ctx, "INSERT INTO counters (name, value) VALUES (?, 1)", fmt.Sprint("l", i))
				return err
			})
		})
	}
	for range errs {
		<-ready
	}
	close(block)
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i == 2) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := count(t, d, "name LIKE 'l%'"); n != 4 {
		t.Errorf("%d rows, want 4", n)
	}
}

func TestWriteCancelled(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := put(ctx, d, "c", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	err := d.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		cancel() // half-way: the write still ends
		_, err := tx.ExecContext(ctx, "INSERT INTO counters VALUES ('half', 1)")
		return err
	})
	if err != nil || count(t, d, "name = 'half'") != 1 {
		t.Errorf("cancelled half-way: %v", err)
	}
}

func TestTwoPrograms(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	var dbs []*DB
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 { // migrate at the same time
		wg.Go(func() {
			d, err := Open(t.Context(), Options{Path: path})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			dbs = append(dbs, d)
			mu.Unlock()
		})
	}
	wg.Wait()
	for i, d := range dbs {
		wg.Go(func() {
			for j := range 30 {
				if err := put(t.Context(), d, fmt.Sprintf("p%d-%d", i, j), j); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, dbs[0], "name LIKE 'p%'"); n != 90 {
		t.Errorf("%d rows, want 90", n)
	}
	for _, d := range dbs {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := put(t.Context(), dbs[0], "late", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestNewerSchemaIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	d := open(t, path)
	if _, err := d.writer.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), d, "kept", 1); err != nil {
		t.Fatal(err)
	}
	again := open(t, path)
	if n := count(t, again, "name = 'kept'"); n != 1 {
		t.Error("row is gone")
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "t.db"))
	if err := put(t.Context(), d, "kept", 1); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "copy.db")
	if err := d.Backup(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if err := d.Backup(t.Context(), to); err == nil {
		t.Error("a backup was overwritten")
	}
	c := open(t, to)
	if n := count(t, c, "name = 'kept'"); n != 1 {
		t.Error("the copy lacks a row")
	}
	if st, _ := os.Stat(to); st.Mode().Perm() != 0o600 {
		t.Errorf("the copy has mode %v", st.Mode())
	}
}

func TestDuplicate(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	if err := put(t.Context(), d, "x", 1); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), d, "x", 1); !Duplicate(err) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	d := open(b, filepath.Join(b.TempDir(), "t.db"))
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprintf("callers=%d", parallel), func(b *testing.B) {
			b.SetParallelism(parallel)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := d.Write(b.Context(), func(ctx context.Context, tx bun.IDB) error {
						_, err := tx.ExecContext(ctx, "UPDATE counters SET value = value + 1 WHERE name = 'alert.rev'")
						return err
					}); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}
