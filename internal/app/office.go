package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/config"
	"tocsin/internal/db"
	"tocsin/internal/intel"
	"tocsin/internal/keys"
	"tocsin/internal/layer"
	"tocsin/internal/member"
	"tocsin/internal/people"
	"tocsin/internal/rematch"
)

// Operator is who the machine's administrator is, on the command line and the admin socket: whoever may open the data folder may do what
// an operator may.
var Operator = access.Principal{UserID: "system:admin", Name: "Administrator of this machine", Role: access.Operator}

// Office is the records of a data folder: what `tocsin admin` works on, beside a running hub or without one.
type Office struct {
	Dir     string
	DB      *db.DB
	Members *member.Store
	People  *people.Store
	Intel   *intel.Store
	Layers  *layer.Store
	Rematch *rematch.Store // of a hub with its event store; else it takes questions and works none off
	Trust   *keys.Trust
}

// paths below the data folder.
func keyDir(dir string) string       { return filepath.Join(dir, "keys") }
func databaseFile(dir string) string { return filepath.Join(dir, "db", "tocsin.db") }

// AdminSocket is the unix socket on which a running hub answers its operator.
func AdminSocket(dir string) string { return filepath.Join(dir, "run", "admin.sock") }

// CreateScheme makes the keys of a new scheme. offline is where the root and the keys that are used away from the hub go.
func CreateScheme(dir, offline, name string, now time.Time) (*keys.Trust, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if _, err := keys.ReadTrust(keyDir(dir)); err == nil {
		return nil, fmt.Errorf("%s holds a scheme already; its keys are never overwritten", dir)
	} else if !errors.Is(err, keys.ErrNoScheme) && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return keys.CreateScheme(keys.SchemeOptions{Dir: keyDir(dir), Offline: offline, Name: name, Now: now})
}

// OpenOffice opens the records of a data folder. Close them when done. intelSigner may be nil where nothing is published.
func OpenOffice(ctx context.Context, h config.Hub, signer *keys.Signer, log *slog.Logger) (*Office, error) {
	trust, err := keys.ReadTrust(keyDir(h.DataDir))
	if errors.Is(err, keys.ErrNoScheme) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no scheme yet: run `tocsin admin --data %s init --offline FOLDER` first", h.DataDir, h.DataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("trust list: %w", err)
	}
	sealing, err := keys.RecordsKey(keyDir(h.DataDir))
	if err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, db.Options{Path: databaseFile(h.DataDir), Logger: log})
	if err != nil {
		return nil, err
	}
	persons, err := people.New(d, people.Options{Key: sealing, Issuer: h.Scheme, Logger: log})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &Office{
		Dir: h.DataDir, DB: d, Trust: trust, People: persons,
		Members: member.New(d, member.Options{Address: h.Gate.Address, Root: trust.RootFingerprint(), Logger: log}),
		Intel:   intel.New(d, intel.Options{Signer: signer, Logger: log}),
		Layers:  layer.New(d, layer.Options{Logger: log}),
		Rematch: rematch.New(d, nil, log, nil),
	}, nil
}

// Close closes the records.
func (o *Office) Close() error { return o.DB.Close() }

// scope is the administrator's.
func (o *Office) scope() access.Scope { return access.System("admin") }

// AddMember adds an organisation and makes the enrolment token of its first site.
func (o *Office) AddMember(ctx context.Context, org member.Organisation) (member.Organisation, error) {
	return o.Members.AddOrganisation(ctx, Operator.UserID, org)
}

// Token makes an enrolment token for a site of a member, by name; "" is its first site. A new name makes a new site.
func (o *Office) Token(ctx context.Context, org member.Organisation, site string) (keys.Token, time.Time, error) {
	s, err := o.Members.FindSite(ctx, o.scope(), org.ID, site)
	if errors.Is(err, member.ErrNotFound) && site != "" {
		s, err = o.Members.AddSite(ctx, o.scope(), Operator.UserID, org.ID, site)
	}
	if err != nil {
		return keys.Token{}, time.Time{}, err
	}
	return o.Members.MakeToken(ctx, o.scope(), Operator.UserID, s.ID)
}

// Import takes a list of indicators.
func (o *Office) Import(ctx context.Context, list io.Reader, opts intel.ImportOptions) (intel.ImportResult, error) {
	return o.Intel.Import(ctx, Operator, list, opts)
}
