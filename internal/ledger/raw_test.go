package ledger

import (
	"context"
	"database/sql"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
)

func rawWrite(d *db.DB, query string) (res sql.Result, err error) {
	err = d.Write(context.Background(), func(ctx context.Context, tx bun.IDB) error {
		res, err = tx.NewRaw(query).Exec(ctx)
		return err
	})
	return res, err
}
