package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"

	"github.com/uptrace/bun"
)

// Querier runs statements whose values are bound, not written into their text.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Bound gives what is below bun. bun writes values into a statement's text, so each is another text, and SQLite parses it anew; here the text
// stays the same and is parsed once for each connection. It is for the few statements that run for every batch.
func Bound(tx bun.IDB) Querier {
	switch t := tx.(type) {
	case bun.Tx:
		return t.Tx
	case *bun.DB:
		return t.DB
	case bun.Conn:
		return t.Conn
	}
	return tx
}

// keepStatements is how many statements a connection keeps parsed.
const keepStatements = 128

// keeping opens connections that keep their statements parsed.
type keeping struct{ driver.Connector }

func (k keeping) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := k.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	inner, ok := c.(whole)
	if !ok {
		return nil, errors.Join(errors.New("the database driver lacks what is needed of it"), c.Close())
	}
	return &conn{whole: inner, kept: map[string]*kept{}}, nil
}

// whole is what the SQLite driver's connections can do.
type whole interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// conn is a connection that keeps the statements which come with values: those without are run seldom, or hold their values in their text.
// database/sql lets one goroutine at a time use it.
type conn struct {
	whole
	kept map[string]*kept
}

type kept struct {
	stmt driver.Stmt
	busy bool // its rows are being read
}

// statement gives a parsed statement that is free to be used, or nil: then the driver runs the query as it would without us.
func (c *conn) statement(ctx context.Context, query string, args int) (*kept, error) {
	if args == 0 && !savepoints[query] {
		return nil, nil
	}
	if k := c.kept[query]; k != nil {
		if k.busy {
			return nil, nil
		}
		return k, nil
	}
	if len(c.kept) >= keepStatements {
		if err := c.forget(); err != nil {
			return nil, err
		}
	}
	s, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	k := &kept{stmt: s}
	c.kept[query] = k
	return k, nil
}

// savepoints are run around every write; see DB.run.
var savepoints = map[string]bool{"SAVEPOINT w": true, "RELEASE w": true}

// forget drops what is not being read.
func (c *conn) forget() error {
	var errs []error
	for q, k := range c.kept {
		if !k.busy {
			errs = append(errs, k.stmt.Close())
			delete(c.kept, q)
		}
	}
	return errors.Join(errs...)
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	k, err := c.statement(ctx, query, len(args))
	if err != nil {
		return nil, err
	}
	if k == nil {
		return c.whole.ExecContext(ctx, query, args)
	}
	return k.stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	k, err := c.statement(ctx, query, len(args))
	if err != nil {
		return nil, err
	}
	if k == nil {
		return c.whole.QueryContext(ctx, query, args)
	}
	r, err := k.stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	typed, ok := r.(typedRows)
	if !ok {
		return nil, errors.Join(errors.New("the database driver's rows lack what is needed of them"), r.Close())
	}
	k.busy = true
	return &rows{typed, k}, nil
}

func (c *conn) Close() error {
	var errs []error
	for _, k := range c.kept {
		errs = append(errs, k.stmt.Close())
	}
	c.kept = nil
	return errors.Join(append(errs, c.whole.Close())...)
}

// typedRows is what the SQLite driver's rows can do.
type typedRows interface {
	driver.Rows
	ColumnTypeDatabaseTypeName(index int) string
	ColumnTypeLength(index int) (int64, bool)
	ColumnTypeNullable(index int) (bool, bool)
	ColumnTypePrecisionScale(index int) (int64, int64, bool)
	ColumnTypeScanType(index int) reflect.Type
}

// rows give their statement back when they are closed.
type rows struct {
	typedRows
	k *kept
}

func (r *rows) Close() error {
	err := r.typedRows.Close()
	r.k.busy = false
	return err
}
