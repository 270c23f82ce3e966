package alert

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// MaxSuppression is the longest a suppression may last; longer needs a person to
// look again.
const MaxSuppression = 90 * 24 * time.Hour

// Suppression keeps matching detections out of the queue. They are still
// counted, in an alert of the state suppressed. Empty fields match anything, but
// family, rule or entity must be given.
type Suppression struct {
	ID         string         `json:"id"`
	Tenant     event.TenantID `json:"tenant"`
	Everywhere bool           `json:"everywhere"` // all members; analysts only
	Family     string         `json:"family,omitempty"`
	Rule       string         `json:"rule,omitempty"`
	EntityKind string         `json:"entity_kind,omitempty"`
	Entity     string         `json:"entity,omitempty"`
	Reason     string         `json:"reason"`
	Owner      string         `json:"owner"` // id of the person
	OwnerName  string         `json:"owner_name"`
	CreatedNS  int64          `json:"created_ns,string"`
	ExpiresNS  int64          `json:"expires_ns,string"`
	Hits       int64          `json:"hits"`
	LastHitNS  int64          `json:"last_hit_ns,string"`
}

type suppression struct {
	bun.BaseModel `bun:"table:suppressions,alias:x"`
	ID            string `bun:"id,pk"`
	Tenant        int64  `bun:"tenant"`
	Family        string `bun:"family"`
	Rule          string `bun:"rule"`
	EntityKind    string `bun:"entity_kind"`
	Entity        string `bun:"entity"`
	Reason        string `bun:"reason"`
	Owner         string `bun:"owner"`
	CreatedNS     int64  `bun:"created_ns"`
	ExpiresNS     int64  `bun:"expires_ns"`
	EndedNS       int64  `bun:"ended_ns"`
	Hits          int64  `bun:"hits"`
	LastHitNS     int64  `bun:"last_hit_ns"`
	OwnerName     string `bun:"owner_name,scanonly"`
}

func (x *suppression) matches(d *event.Detection, e event.Entity) bool {
	return (x.Family == "" || x.Family == d.Family) && (x.Rule == "" || x.Rule == d.RuleID) &&
		(x.EntityKind == "" || x.EntityKind == d.Entity.Kind) && (x.Entity == "" || strings.EqualFold(x.Entity, e.Value))
}

// suppressedBy finds a suppression that is in force for a detection.
func (w *work) suppressedBy(d *event.Detection, e event.Entity) *suppression {
	for i := range w.rules {
		if x := &w.rules[i]; (x.Tenant == allTenants || x.Tenant == int64(d.Tenant)) && x.matches(d, e) {
			return x
		}
	}
	return nil
}

func (w *work) suppressionHit(ctx context.Context, x *suppression) error {
	_, err := w.tx.NewRaw("UPDATE suppressions SET hits = hits + 1, last_hit_ns = ? WHERE id = ?", w.now, x.ID).Exec(ctx)
	return err
}

func (s *Store) newSuppression(by access.Principal, x Suppression) (suppression, error) {
	x.Reason = strings.TrimSpace(x.Reason)
	switch n := utf8.RuneCountInString(x.Reason); {
	case n < 3 || n > 500:
		return suppression{}, fmt.Errorf("%w: say why, in 3 to 500 characters, so that whoever looks at it later knows", ErrInvalid)
	case x.Family == "" && x.Rule == "" && x.Entity == "":
		return suppression{}, fmt.Errorf("%w: a suppression needs a rule family, a rule or an entity; without, it would hide everything", ErrInvalid)
	}
	now := s.now()
	if x.ExpiresNS <= now {
		return suppression{}, fmt.Errorf("%w: the end of a suppression must lie in the future", ErrInvalid)
	}
	if x.ExpiresNS > now+int64(MaxSuppression) {
		return suppression{}, fmt.Errorf("%w: a suppression may last at most 90 days; renew it then if it is still right", ErrInvalid)
	}
	if x.EntityKind == "source" || x.EntityKind == "" {
		x.Entity = entityOf(event.Entity{Kind: "source", Value: x.Entity}).Value
	}
	row := suppression{ID: uuid.Must(uuid.NewV7()).String(), Tenant: int64(x.Tenant), Family: x.Family, Rule: x.Rule, EntityKind: x.EntityKind, Entity: x.Entity,
		Reason: x.Reason, Owner: by.UserID, CreatedNS: now, ExpiresNS: x.ExpiresNS}
	if x.Everywhere {
		row.Tenant = allTenants
	}
	return row, nil
}

// AddSuppression adds one and returns its id. Analysts and operators only.
func (s *Store) AddSuppression(ctx context.Context, by access.Principal, x Suppression) (string, error) {
	if _, err := access.National(by); err != nil {
		return "", fmt.Errorf("%w: only analysts suppress alerts", ErrDenied)
	}
	row, err := s.newSuppression(by, x)
	if err != nil {
		return "", err
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewInsert().Model(&row).Exec(ctx)
		return err
	})
	return row.ID, err
}

// Suppressions lists those in force within a scope.
func (s *Store) Suppressions(ctx context.Context, scope access.Scope) ([]Suppression, error) {
	var rows []suppression
	q := s.db.Read().NewSelect().Model(&rows).ColumnExpr("x.*, COALESCE(p.name, '') AS owner_name").Join("LEFT JOIN people AS p ON p.id = x.owner").
		Where("x.ended_ns = 0 AND x.expires_ns > ?", s.now()).OrderExpr("x.expires_ns, x.id")
	tenants, all := scope.Tenants()
	if !all {
		if len(tenants) == 0 {
			return nil, nil
		}
		q = q.Where("x.tenant IN (?)", bun.List(tenants))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("listing the suppressions: %w", err)
	}
	out := make([]Suppression, len(rows))
	for i, x := range rows {
		out[i] = Suppression{ID: x.ID, Everywhere: x.Tenant == allTenants, Family: x.Family, Rule: x.Rule, EntityKind: x.EntityKind, Entity: x.Entity, Reason: x.Reason,
			Owner: x.Owner, OwnerName: x.OwnerName, CreatedNS: x.CreatedNS, ExpiresNS: x.ExpiresNS, Hits: x.Hits, LastHitNS: x.LastHitNS}
		if x.Tenant >= 0 {
			out[i].Tenant = event.TenantID(x.Tenant)
		}
	}
	return out, nil
}

// EndSuppression ends one at once. Analysts and operators only.
func (s *Store) EndSuppression(ctx context.Context, by access.Principal, id string) error {
	if _, err := access.National(by); err != nil {
		return fmt.Errorf("%w: only analysts end suppressions", ErrDenied)
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var one string
		err := tx.QueryRowContext(ctx, "UPDATE suppressions SET ended_ns = ? WHERE id = ? AND ended_ns = 0 RETURNING id", s.now(), id).Scan(&one)
		if db.NotFound(err) {
			return fmt.Errorf("suppression %s: %w", id, ErrNotFound)
		}
		return err
	})
}
