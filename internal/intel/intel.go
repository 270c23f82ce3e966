// Package intel keeps the scheme's indicators: addresses, networks, domains, web addresses and files that it has been warned of. It takes
// lists in, and makes of those that may be pushed the signed set that collectors match against on their own sites.
//
// It reads and writes the database. An import is one transaction. A published set keeps its version for ever: versions rise by one with
// each change and are never used twice, because collectors refuse to go back. Indicators of AMBER+STRICT and RED, and those of live
// investigations, are never in a set.
package intel

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

// Sentinels a caller decides on; what is returned wraps them in a sentence.
var (
	ErrInvalid  = errors.New("invalid")
	ErrNotFound = errors.New("not found")
)

// TLPs are the markings of FIRST's Traffic Light Protocol 2.0, the most open first.
var TLPs = []string{"clear", "green", "amber", "amber+strict", "red"}

// mayPush says whether a marking lets an indicator leave the centre at all.
func mayPush(tlp string) bool { return tlp == "clear" || tlp == "green" || tlp == "amber" }

// Indicator is one thing to look for. Times are UTC nanoseconds.
type Indicator struct {
	bun.BaseModel `bun:"table:indicators,alias:i" json:"-"`

	ID           string `bun:"id,pk" json:"id"` // UUIDv7
	Kind         string `bun:"kind" json:"kind"`
	Value        string `bun:"value" json:"value"` // canonical
	Source       string `bun:"source" json:"source"`
	Confidence   int    `bun:"confidence" json:"confidence"` // 0 to 100, as in STIX
	TLP          string `bun:"tlp" json:"tlp"`
	Push         bool   `bun:"push" json:"push"`
	Note         string `bun:"note" json:"note"`
	ValidFromNS  int64  `bun:"valid_from_ns" json:"valid_from_ns,string"`
	ValidUntilNS int64  `bun:"valid_until_ns" json:"valid_until_ns,string"` // 0: without end
	AddedNS      int64  `bun:"added_ns" json:"added_ns,string"`
	AddedBy      string `bun:"added_by" json:"added_by"`
	UpdatedNS    int64  `bun:"updated_ns" json:"updated_ns,string"`
	RemovedNS    int64  `bun:"removed_ns" json:"-"`
	Hits         int64  `bun:"hits" json:"hits"`
	LastHitNS    int64  `bun:"last_hit_ns" json:"last_hit_ns,string"`
}

// Options configure a Store.
type Options struct {
	Signer *keys.Signer // purpose indicator-sets; nil: nothing is published here
	Now    func() time.Time
	Logger *slog.Logger
	// SetLife is how long a published set may be used; it is renewed at half of it. Default 14 days, so that a site that is cut off from the
	// hub goes on matching for that long.
	SetLife time.Duration
}

// Store is the indicators. Any number of goroutines may use it.
type Store struct {
	db  *db.DB
	o   Options
	log *slog.Logger
	now atomic.Pointer[published]
	all atomic.Pointer[indicator.Set] // everything in force, also what is not pushed, for matching at the hub
}

// published is the set in force.
type published struct {
	version  uint64
	envelope []byte
	content  []byte
	entries  int
	created  int64
	expires  int64
}

// New returns a Store on an open database.
func New(d *db.DB, o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SetLife == 0 {
		o.SetLife = 14 * 24 * time.Hour
	}
	return &Store{db: d, o: o, log: o.Logger.With("part", "intel")}
}

// Filter narrows List.
type Filter struct {
	Kind  string // "" any: ip, cidr, domain, url, hash and the other names that indicator.ParseKind knows
	Text  string // in value, source or note
	After string // Page.Next
	Limit int    // default 100, at most 1,000
}

// Page is one page of indicators, the newest first.
type Page struct {
	Indicators []Indicator
	Next       string // "" at the end
	Total      int64  // in force, whatever the filter
	Pushed     int64  // of those, in the set for collectors
}

// List gives a page of the indicators in force. People of one member do not see the list: what is pushed to their collectors is a set of
// hashes, and some lists name others.
func (s *Store) List(ctx context.Context, scope access.Scope, f Filter) (Page, error) {
	var p Page
	if !scope.National() {
		return p, fmt.Errorf("indicators: %w", access.ErrDenied)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	now := s.o.Now().UnixNano()
	q := s.db.Read().NewSelect().Model(&p.Indicators).Where("removed_ns = 0").Where("(valid_until_ns = 0 OR valid_until_ns > ?)", now)
	if f.Kind != "" {
		k, err := indicator.ParseKind(f.Kind)
		if err != nil {
			return p, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		q = q.Where("kind = ?", k.String())
	}
	if f.Text != "" {
		like := "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(f.Text) + "%"
		q = q.Where(`(value LIKE ? ESCAPE '\' OR source LIKE ? ESCAPE '\' OR note LIKE ? ESCAPE '\')`, like, like, like)
	}
	if f.After != "" {
		added, id, err := parseCursor(f.After)
		if err != nil {
			return p, err
		}
		q = q.Where("(added_ns, id) < (?, ?)", added, id)
	}
	if err := q.OrderExpr("added_ns DESC, id DESC").Limit(int64(limit) + 1).Scan(ctx); err != nil {
		return p, fmt.Errorf("indicators: %w", err)
	}
	if len(p.Indicators) > limit {
		p.Indicators = p.Indicators[:limit]
		last := p.Indicators[limit-1]
		p.Next = base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", last.AddedNS, last.ID))
	}
	err := s.db.Read().NewRaw("SELECT count(*), coalesce(sum(push), 0) FROM indicators WHERE removed_ns = 0 AND (valid_until_ns = 0 OR valid_until_ns > ?)", now).Scan(ctx, &p.Total, &p.Pushed)
	if err != nil {
		return p, fmt.Errorf("indicators: %w", err)
	}
	return p, nil
}

func parseCursor(s string) (added int64, id string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		text, rest, ok := strings.Cut(string(b), " ")
		if added, err = strconv.ParseInt(text, 10, 64); err == nil && ok {
			return added, rest, nil
		}
	}
	return 0, "", fmt.Errorf("%w: this is not a place in the list; begin again", ErrInvalid)
}

// Remove takes an indicator out of force. Analysts and operators only.
func (s *Store) Remove(ctx context.Context, by access.Principal, id string) error {
	if _, err := access.National(by); err != nil {
		return err
	}
	now := s.o.Now().UnixNano()
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var i Indicator
		err := tx.NewSelect().Model(&i).Where("id = ? AND removed_ns = 0", id).Scan(ctx)
		if db.NotFound(err) {
			return fmt.Errorf("indicator %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if _, err := tx.NewRaw("UPDATE indicators SET removed_ns = ?, updated_ns = ? WHERE id = ?", now, now, id).Exec(ctx); err != nil {
			return err
		}
		return audit(ctx, tx, now, by, "indicator.remove", i.Value, i.Source)
	})
}

func audit(ctx context.Context, tx bun.IDB, at int64, by access.Principal, action, object, detail string) error {
	return db.Audit(ctx, tx, at, by.UserID, action, object, by.Tenant, detail)
}

// behind is the condition that an indicator stands behind a hit: kind and hash, in the versions whose hashes are kept.
var behind = fmt.Sprintf("id IN (SELECT indicator FROM indicator_hashes WHERE version IN (SELECT version FROM indicator_sets ORDER BY version DESC LIMIT %d) AND kind = ? AND hash = ?)", keepSets)

// Resolve finds the indicators behind a hit that a collector reported: kind and hash of the event's tocsin.indicator fields. Sets of the last
// versions are searched, the newest first.
func (s *Store) Resolve(ctx context.Context, kind string, hash uint64) ([]Indicator, error) {
	var out []Indicator
	err := s.db.Read().NewSelect().Model(&out).
		Where(behind, kind, int64(hash)).
		OrderExpr("confidence DESC, added_ns DESC").Limit(20).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("indicator %s %016x: %w", kind, hash, err)
	}
	return out, nil
}

// Confidence says how much each of some hits is trusted, 0 to 100: a hit is named by kind and hash, "ip:00c0ffee00c0ffee" (as detections name
// it). Of several sources the highest counts. Markings that must not leave the centre give nothing away: their indicators are left out, as are
// those that were taken back or have run out. It reads within the caller's transaction.
func (s *Store) Confidence(ctx context.Context, tx bun.IDB, hits []string) (map[string]int, error) {
	out := make(map[string]int, len(hits))
	now := s.o.Now().UnixNano()
	for _, h := range hits {
		kind, hex, ok := strings.Cut(h, ":")
		hash, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil {
			continue // a collector wrote something else there
		}
		var c int
		err = tx.NewRaw(`SELECT coalesce(max(confidence), 0) FROM indicators WHERE `+behind+`
			AND removed_ns = 0 AND (valid_until_ns = 0 OR valid_until_ns > ?) AND tlp IN ('clear', 'green', 'amber')`, kind, int64(hash), now).Scan(ctx, &c)
		if err != nil {
			return nil, fmt.Errorf("the confidence of indicator %s: %w", h, err)
		}
		if c > 0 {
			out[h] = c
		}
	}
	return out, nil
}

// Seen counts what was seen of indicators: hits by (kind, hash), with the time of the newest. It is a count for people, not evidence: a
// replay may count twice.
func (s *Store) Seen(ctx context.Context, hits map[Hit]Count) error {
	if len(hits) == 0 {
		return nil
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for h, c := range hits {
			_, err := tx.NewRaw(`UPDATE indicators SET hits = hits + ?, last_hit_ns = max(last_hit_ns, ?)
				WHERE `+behind, c.N, c.Last, h.Kind, int64(h.Hash)).Exec(ctx)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Hit names what a collector matched.
type Hit struct {
	Kind string
	Hash uint64
}

// Count is how often, and when last (UTC nanoseconds).
type Count struct {
	N    int64
	Last int64
}

// Match marks an event that touches an indicator in force and was not marked on the site: the hub also knows those that are not pushed. The
// answer is true when the event is marked, here or there.
func (s *Store) Match(e *event.Event) bool {
	if e.Has(event.TocsinIndicatorID) {
		return true
	}
	set := s.all.Load()
	if set == nil {
		return false
	}
	for _, k := range [...]event.Key{event.SourceIP, event.DestinationIP} {
		if a, ok := e.IP(k); ok {
			if h, ok := set.MatchIP(a); ok {
				mark(e, h, e.Text(k))
				return true
			}
		}
	}
	for _, k := range [...]event.Key{event.URLDomain, event.DNSQuestionName, event.DestinationDomain} {
		if d := e.Str(k); d != "" {
			if h, ok := set.MatchDomain(d); ok {
				mark(e, h, d)
				return true
			}
		}
	}
	if u := e.Str(event.URLFull); u != "" {
		if h, ok := set.MatchURL(u); ok {
			mark(e, h, u)
			return true
		}
	}
	for _, k := range [...]event.Key{event.FileHashSHA256, event.FileHashSHA1, event.FileHashMD5} {
		if d := e.Str(k); d != "" {
			if h, ok := set.MatchHash(d); ok {
				mark(e, h, d)
				return true
			}
		}
	}
	return false
}

func mark(e *event.Event, h indicator.Hit, matched string) {
	e.SetString(event.TocsinIndicatorID, fmt.Sprintf("%016x", h.ID))
	e.SetString(event.TocsinIndicatorKind, h.Kind.String())
	e.SetString(event.TocsinIndicatorMatched, e.CopyString(matched))
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
