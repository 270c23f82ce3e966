// Package db is the scheme's database: members, people, alerts and whatever
// else is neither an event nor a batch. It is SQLite in WAL mode with
// synchronous=FULL; the queries of the packages above it go through bun, so
// that PostgreSQL can take its place.
//
// It reads and writes one file (with its -wal, -shm and .lock beside it, mode
// 0600). What Write returned nil for survives a crash and a power cut; what it
// did not return yet is either whole or not there. Migrations in
// migrations/sqlite run at Open, forward only, under a file lock, and a newer
// database opened by an older program is left as it is (that is the roll-back).
//
// Several programs may have the file open: the hub, and `tocsin admin` beside
// it. Writers wait for each other up to ten seconds.
package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// Options says which database to open.
type Options struct {
	Path    string       // the file; its folder is made when missing
	Logger  *slog.Logger // default: discards
	Readers int          // connections that read; default 4
}

// ErrBusy says that another program held the database longer than ten seconds.
var ErrBusy = errors.New("the database is busy")

// ErrClosed says that the database was closed.
var ErrClosed = errors.New("the database is closed")

// DB is an open database. Any number of goroutines may use it.
type DB struct {
	path   string
	log    *slog.Logger
	writer *bun.DB // one connection; only the write loop uses it
	reader *bun.DB

	requests chan *request
	stop     chan struct{}
	stopped  chan struct{}
	once     sync.Once

	writes, groups, failed atomic.Uint64
}

// Stats counts what happened since Open.
type Stats struct {
	Writes uint64 // functions given to Write that were committed
	Groups uint64 // commits, each of one or more writes
	Failed uint64 // functions given to Write that were rolled back
}

// Open opens the database, making it and bringing it to this program's schema
// when needed.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Path == "" {
		return nil, errors.New("db: no path given")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Readers <= 0 {
		o.Readers = 4
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("db: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("db: making the folder of the database: %w", err)
	}
	// SQLite gives -wal and -shm the mode of the database file.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("db: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("db: %w", err)
	}
	w, err := connect(dsn(path, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)", "_pragma=journal_size_limit(67108864)", "_pragma=cache_size(-32768)"))
	if err != nil {
		return nil, fmt.Errorf("db: %w", err)
	}
	w.SetMaxOpenConns(1)
	w.SetMaxIdleConns(1)
	if err := migrate(ctx, w, path, o.Logger); err != nil {
		return nil, errors.Join(fmt.Errorf("db: %s: %w", path, err), w.Close())
	}
	r, err := connect(dsn(path, "_pragma=query_only(1)", "_pragma=cache_size(-16384)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("db: %w", err), w.Close())
	}
	r.SetMaxOpenConns(o.Readers)
	r.SetMaxIdleConns(o.Readers)
	d := &DB{
		path: path, log: o.Logger,
		writer:   bun.NewDB(w, sqlitedialect.New()),
		reader:   bun.NewDB(r, sqlitedialect.New()),
		requests: make(chan *request, 256), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go d.writeLoop()
	return d, nil
}

func connect(dsn string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(keeping{c}), nil
}

func dsn(path string, params ...string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	q := "_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=temp_store(2)"
	for _, p := range params {
		q += "&" + p
	}
	u.RawQuery = q
	return u.String()
}

// migrate runs what is missing, one program at a time.
func migrate(ctx context.Context, w *sql.DB, path string, log *slog.Logger) error {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // also unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking for migration: %w", err)
	}
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, w, dir, goose.WithAllowOutofOrder(true), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	done, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrating: %w", err)
	}
	for _, m := range done {
		log.InfoContext(ctx, "migrated the database", "version", m.Source.Version, "took", m.Duration)
	}
	return nil
}

// Close finishes the writes under way and closes the file.
func (d *DB) Close() error {
	d.once.Do(func() { close(d.stop) })
	<-d.stopped
	return errors.Join(d.reader.Close(), d.writer.Close())
}

// Path is the database's file.
func (d *DB) Path() string { return d.path }

// Stats returns what was counted since Open.
func (d *DB) Stats() Stats {
	return Stats{Writes: d.writes.Load(), Groups: d.groups.Load(), Failed: d.failed.Load()}
}

// Read is for queries; each runs on its own snapshot. Writing through it fails.
func (d *DB) Read() *bun.DB { return d.reader }

// View runs several queries on one snapshot.
func (d *DB) View(ctx context.Context, fn func(ctx context.Context, tx bun.IDB) error) error {
	return d.reader.RunInTx(ctx, &sql.TxOptions{ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error { return fn(ctx, tx) })
}

// Backup writes a consistent copy of the database to a new file while it is in
// use.
func (d *DB) Backup(ctx context.Context, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("db: %s exists already: a backup never overwrites", to)
	}
	c, err := d.reader.DB.Conn(ctx)
	if err != nil {
		return fmt.Errorf("db: %w", err)
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "PRAGMA query_only(0)"); err != nil {
		return fmt.Errorf("db: %w", err)
	}
	_, err = c.ExecContext(ctx, "VACUUM INTO ?", to)
	if _, err := c.ExecContext(context.WithoutCancel(ctx), "PRAGMA query_only(1)"); err != nil {
		return fmt.Errorf("db: %w", err)
	}
	if err != nil {
		return fmt.Errorf("db: writing the copy %s: %w", to, err)
	}
	if err := os.Chmod(to, 0o600); err != nil {
		return fmt.Errorf("db: %w", err)
	}
	f, err := os.Open(to)
	if err != nil {
		return fmt.Errorf("db: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// Check reads the whole file and reports what is wrong with it; nil means it is
// sound.
func (d *DB) Check(ctx context.Context) error {
	var faults []string
	if err := d.reader.NewRaw("PRAGMA integrity_check(20)").Scan(ctx, &faults); err != nil {
		return fmt.Errorf("db: checking %s: %w", d.path, err)
	}
	if len(faults) == 1 && faults[0] == "ok" {
		faults = nil
	}
	rows, err := d.reader.DB.QueryContext(ctx, "PRAGMA foreign_key_check")
	if err != nil {
		return fmt.Errorf("db: checking %s: %w", d.path, err)
	}
	defer rows.Close()
	for rows.Next() {
		var table, parent string
		var row, key sql.NullInt64
		if err := rows.Scan(&table, &row, &parent, &key); err != nil {
			return fmt.Errorf("db: checking %s: %w", d.path, err)
		}
		faults = append(faults, fmt.Sprintf("row %d of %s points at a row of %s that is not there", row.Int64, table, parent))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("db: checking %s: %w", d.path, err)
	}
	if len(faults) > 0 {
		return fmt.Errorf("db: %s is damaged (restore a backup): %q", d.path, faults)
	}
	return nil
}

// Version is the newest migration that ran.
func (d *DB) Version(ctx context.Context) (int64, error) {
	var v int64
	err := d.reader.NewRaw("SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(ctx, &v)
	return v, err
}

// NotFound says whether an error means that no row was found.
func NotFound(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// Duplicate says whether an error means that a unique value is taken.
func Duplicate(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

func busy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}

// Now is the clock of the tables: UTC nanoseconds.
func Now() int64 { return time.Now().UnixNano() }
