// Package member knows the scheme's organisations (each is one tenant), their
// sites and their collectors: enrolment tokens, registrations, check words,
// revocation, where each collector's streams stand, and whether every line it
// received is accounted for.
//
// It reads and writes the database only. Each change is one transaction and
// durable when the call returns. Registrations, confirmations, revocations,
// forks and clones are also written, in the same transaction, to a numbered log
// (Log) which the ledger follows. Of a token only the SHA-256 of its secret is
// kept. Counters are sums along streams, added once per stream, source and
// sequence, so that a replay adds nothing.
package member

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// Sentinels a caller decides on. The errors returned wrap them in a sentence.
var (
	ErrNotFound = errors.New("not found") // or not within the scope: the two are told alike
	ErrExists   = errors.New("exists already")
	ErrInvalid  = errors.New("invalid")
)

// Options configure a Store.
type Options struct {
	Address string           // host:port of the gate, written into tokens
	Root    [32]byte         // SHA-256 of the scheme root's public key, written into tokens
	Now     func() time.Time // default time.Now
	Logger  *slog.Logger     // default: discards
}

// Store is the members' records. Any number of goroutines may use it.
type Store struct {
	db   *db.DB
	o    Options
	log  *slog.Logger
	last lastSeen
}

// New returns a Store on an open database.
func New(d *db.DB, o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{db: d, o: o, log: o.Logger}
}

func (s *Store) now() int64 { return s.o.Now().UnixNano() }

// Organisation is a member of the scheme, and as such a tenant.
type Organisation struct {
	bun.BaseModel `bun:"table:tenants,alias:t" json:"-"`

	ID           event.TenantID `bun:"id,pk,autoincrement" json:"id"`
	Name         string         `bun:"name" json:"name"`
	Sector       string         `bun:"sector" json:"sector"` // education, manufacturing, local government …; free text
	Area         string         `bun:"area" json:"area"`     // police force area or region
	ContactName  string         `bun:"contact_name" json:"contact_name"`
	ContactEmail string         `bun:"contact_email" json:"contact_email"`
	ContactPhone string         `bun:"contact_phone" json:"contact_phone"`
	Policy       string         `bun:"policy" json:"policy"` // the most that may leave its sites: metadata or full
	CreatedNS    int64          `bun:"created_ns" json:"created_ns,string"`
}

// Site is a place of an organisation where a collector may stand.
type Site struct {
	bun.BaseModel `bun:"table:sites,alias:s" json:"-"`

	ID        string         `bun:"id,pk" json:"id"` // UUIDv7
	Tenant    event.TenantID `bun:"tenant" json:"tenant"`
	Name      string         `bun:"name" json:"name"`
	CreatedNS int64          `bun:"created_ns" json:"created_ns,string"`
}

// line checks a text of one line that people gave.
func line(what, v string, least, most int) (string, error) {
	v = strings.TrimSpace(v)
	if n := utf8.RuneCountInString(v); n < least || n > most {
		if v == "" {
			return "", fmt.Errorf("%w: %s is missing", ErrInvalid, what)
		}
		return "", fmt.Errorf("%w: %s must have %d to %d characters", ErrInvalid, what, least, most)
	}
	if !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) {
		return "", fmt.Errorf("%w: %s holds characters that cannot be printed", ErrInvalid, what)
	}
	return v, nil
}

// AddOrganisation adds a member, with a first site called "Main site". The name
// must be new (ErrExists).
func (s *Store) AddOrganisation(ctx context.Context, by string, o Organisation) (Organisation, error) {
	var errs [6]error
	o.ID = 0
	o.Name, errs[0] = line("the organisation's name", o.Name, 2, 120)
	o.Sector, errs[1] = line("the sector", o.Sector, 0, 60)
	o.Area, errs[2] = line("the area", o.Area, 0, 80)
	o.ContactName, errs[3] = line("the contact's name", o.ContactName, 0, 120)
	o.ContactPhone, errs[4] = line("the contact's telephone number", o.ContactPhone, 0, 40)
	o.ContactEmail = strings.TrimSpace(o.ContactEmail)
	if o.ContactEmail != "" {
		if a, err := mail.ParseAddress(o.ContactEmail); err != nil || a.Address != o.ContactEmail {
			errs[5] = fmt.Errorf("%w: %q is not an e-mail address", ErrInvalid, o.ContactEmail)
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return Organisation{}, err
	}
	switch o.Policy {
	case "":
		o.Policy = "metadata"
	case "metadata", "full":
	default:
		return Organisation{}, fmt.Errorf("%w: the policy %q is neither metadata nor full", ErrInvalid, o.Policy)
	}
	o.CreatedNS = s.now()
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		row := o
		if _, err := tx.NewInsert().Model(&row).Returning("id").Exec(ctx); err != nil {
			return err
		}
		if _, err := s.addSite(ctx, tx, row.ID, "Main site"); err != nil {
			return err
		}
		o.ID = row.ID
		return db.Audit(ctx, tx, s.now(), by, "member.add", row.Name, row.ID, "")
	})
	if db.Duplicate(err) {
		return Organisation{}, fmt.Errorf("the organisation %q %w", o.Name, ErrExists)
	}
	if err != nil {
		return Organisation{}, fmt.Errorf("adding the organisation %q: %w", o.Name, err)
	}
	return o, nil
}

// Organisations lists the members within a scope by name.
func (s *Store) Organisations(ctx context.Context, scope access.Scope) ([]Organisation, error) {
	var out []Organisation
	q := s.db.Read().NewSelect().Model(&out).Order("name")
	if err := within(q, scope, "t.id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("listing the organisations: %w", err)
	}
	return out, nil
}

// Organisation returns one member, or ErrNotFound.
func (s *Store) Organisation(ctx context.Context, scope access.Scope, id event.TenantID) (Organisation, error) {
	var o Organisation
	err := within(s.db.Read().NewSelect().Model(&o).Where("t.id = ?", id), scope, "t.id").Scan(ctx)
	if db.NotFound(err) {
		return o, fmt.Errorf("organisation %d: %w", id, ErrNotFound)
	}
	return o, err
}

// FindOrganisation finds a member by its name (case does not matter) or number,
// for the command line.
func (s *Store) FindOrganisation(ctx context.Context, scope access.Scope, name string) (Organisation, error) {
	var o Organisation
	q := s.db.Read().NewSelect().Model(&o).Where("t.name = ? OR CAST(t.id AS TEXT) = ?", strings.TrimSpace(name), strings.TrimSpace(name)).Limit(1)
	err := within(q, scope, "t.id").Scan(ctx)
	if db.NotFound(err) {
		return o, fmt.Errorf("organisation %q: %w; `tocsin admin member list` shows them all", name, ErrNotFound)
	}
	return o, err
}

// AddSite adds a site to a member.
func (s *Store) AddSite(ctx context.Context, scope access.Scope, by string, tenant event.TenantID, name string) (Site, error) {
	name, err := line("the site's name", name, 1, 120)
	if err != nil {
		return Site{}, err
	}
	if _, err := s.Organisation(ctx, scope, tenant); err != nil {
		return Site{}, err
	}
	var site Site
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var err error
		if site, err = s.addSite(ctx, tx, tenant, name); err != nil {
			return err
		}
		return db.Audit(ctx, tx, s.now(), by, "site.add", name, tenant, "")
	})
	if db.Duplicate(err) {
		return Site{}, fmt.Errorf("the site %q %w", name, ErrExists)
	}
	if err != nil {
		return Site{}, fmt.Errorf("adding the site %q: %w", name, err)
	}
	return site, nil
}

func (s *Store) addSite(ctx context.Context, tx bun.IDB, tenant event.TenantID, name string) (Site, error) {
	site := Site{ID: newID(), Tenant: tenant, Name: name, CreatedNS: s.now()}
	_, err := tx.NewInsert().Model(&site).Exec(ctx)
	return site, err
}

// Sites lists the sites within a scope.
func (s *Store) Sites(ctx context.Context, scope access.Scope) ([]Site, error) {
	var out []Site
	q := s.db.Read().NewSelect().Model(&out).Order("tenant", "name")
	if err := within(q, scope, "s.tenant").Scan(ctx); err != nil {
		return nil, fmt.Errorf("listing the sites: %w", err)
	}
	return out, nil
}

// FindSite finds a member's site by name; "" finds its only or first one.
func (s *Store) FindSite(ctx context.Context, scope access.Scope, tenant event.TenantID, name string) (Site, error) {
	var site Site
	q := s.db.Read().NewSelect().Model(&site).Where("s.tenant = ?", tenant).Order("created_ns", "id").Limit(1)
	if name = strings.TrimSpace(name); name != "" {
		q = q.Where("s.name = ? OR s.id = ?", name, name)
	}
	err := within(q, scope, "s.tenant").Scan(ctx)
	if db.NotFound(err) {
		return site, fmt.Errorf("site %q of organisation %d: %w", name, tenant, ErrNotFound)
	}
	return site, err
}

// within narrows a query to a scope.
func within(q *bun.SelectQuery, scope access.Scope, column string) *bun.SelectQuery {
	tenants, all := scope.Tenants()
	switch {
	case all:
		return q
	case len(tenants) == 0:
		return q.Where("1 = 0")
	case len(tenants) == 1:
		return q.Where("? = ?", bun.Safe(column), tenants[0])
	}
	return q.Where("? IN (?)", bun.Safe(column), bun.List(tenants))
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
