package db

import (
	"context"

	"github.com/uptrace/bun"

	"tocsin/internal/event"
)

// Audit writes one line of who did what, in the transaction of what was done. at is UTC nanoseconds; who is a person's id, "collector:ID",
// "system:PART", or "" when nobody is known; tenant is whose matter it is, 0 the centre's. People read the trail through package people.
func Audit(ctx context.Context, tx bun.IDB, at int64, who, action, object string, tenant event.TenantID, detail string) error {
	_, err := Bound(tx).ExecContext(ctx, "INSERT INTO audit (at_ns, who, action, object, tenant, detail) VALUES (?, ?, ?, ?, ?, ?)", at, who, action, object, tenant, detail)
	return err
}
