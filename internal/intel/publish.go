package intel

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

// keepSets is how many versions can still be resolved: a collector may match against an older one for a while.
const keepSets = 20

// pollEvery is how often Run looks for changes that other programs made.
const pollEvery = time.Second

// VersionFloor names the counter in the database above which the next version of the set must be.
const VersionFloor = "indicators.version_floor"

// Run keeps the published set true to the table until ctx is done: after each change, when something begins or expires, and before the set
// itself expires.
func (s *Store) Run(ctx context.Context) error {
	var state string
	for {
		next, err := s.state(ctx)
		if err == nil && (next != state || s.due()) {
			if err = s.Publish(ctx); err == nil {
				state = next
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "publishing indicators; the set before stays in force", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollEvery):
		}
	}
}

// state is a text that differs when the set would.
func (s *Store) state(ctx context.Context) (string, error) {
	now := s.o.Now().UnixNano()
	var rows, updated, live int64
	err := s.db.Read().NewRaw(`SELECT count(*), coalesce(max(updated_ns), 0), coalesce(sum(removed_ns = 0 AND valid_from_ns <= ? AND (valid_until_ns = 0 OR valid_until_ns > ?)), 0) FROM indicators`, now, now).Scan(ctx, &rows, &updated, &live)
	return fmt.Sprint(rows, updated, live), err
}

func (s *Store) due() bool {
	p := s.now.Load()
	return p != nil && s.o.Now().UnixNano() > p.created+(p.expires-p.created)/2
}

// Publish makes the set of what is in force, signs and keeps it under the next version, unless it is the one published last and that has
// not lived half its time.
func (s *Store) Publish(ctx context.Context) error {
	now := s.o.Now()
	var live []Indicator
	err := s.db.Read().NewSelect().Model(&live).Column("id", "kind", "value", "push", "tlp", "source").
		Where("removed_ns = 0 AND valid_from_ns <= ? AND (valid_until_ns = 0 OR valid_until_ns > ?)", now.UnixNano(), now.UnixNano()).
		OrderExpr("kind, value, id").Scan(ctx)
	if err != nil {
		return fmt.Errorf("indicators in force: %w", err)
	}
	var all, push []indicator.Entry
	var pushed []Indicator
	digest := sha256.New()
	kept := live[:0]
	for _, i := range live {
		k, err := indicator.ParseKind(i.Kind)
		if err == nil {
			_, _, err = indicator.Canonical(k, i.Value)
		}
		if err != nil { // taken by an earlier version of this program, or put there by hand: one must not keep all others from collectors
			s.log.WarnContext(ctx, "indicator left out of the set", "id", i.ID, "kind", i.Kind, "value", i.Value, "source", i.Source, "reason", err)
			continue
		}
		kept = append(kept, i)
		e := indicator.Entry{Kind: k, Value: i.Value}
		all = append(all, e)
		if i.Push && mayPush(i.TLP) {
			push = append(push, e)
			pushed = append(pushed, i)
			fmt.Fprintf(digest, "%s %s %s\n", i.Kind, i.Value, i.ID)
		}
	}
	live = kept
	content := digest.Sum(nil)
	current := s.now.Load()
	if current == nil {
		if current, err = s.newest(ctx); err != nil {
			return err
		}
	}
	// A hub that was restored from an older copy has forgotten versions that collectors hold, and they refuse lower ones: its next set stands
	// above the floor, which is the time of the restore in Unix seconds.
	var floor int64
	if err := s.db.Read().NewRaw("SELECT coalesce(max(value), 0) FROM counters WHERE name = ?", VersionFloor).Scan(ctx, &floor); err != nil {
		return fmt.Errorf("floor of the set's version: %w", err)
	}
	fresh := current != nil && current.version > uint64(floor) && bytes.Equal(current.content, content) && now.UnixNano() < current.created+(current.expires-current.created)/2 && s.signedByUs(current)
	var key [16]byte
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	if fresh {
		s.now.Store(current)
		if err := s.db.Read().NewRaw("SELECT key FROM indicator_sets WHERE version = ?", int64(current.version)).Scan(ctx, (*keyBytes)(&key)); err != nil {
			return fmt.Errorf("key of the set in force: %w", err)
		}
	}
	// The hub matches with the key of the published set, so that a hit has the same number wherever it was seen.
	set, err := buildSet(key, all)
	if err != nil {
		return err
	}
	if fresh {
		s.all.Store(set)
		return nil
	}
	body, err := indicator.Build(key, push)
	if err != nil {
		return fmt.Errorf("building the set: %w", err)
	}
	next := &published{version: 1, content: content, entries: len(push), created: now.UnixNano(), expires: now.Add(s.o.SetLife).UnixNano()}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var last int64
		if err := tx.NewRaw("SELECT coalesce(max(version), 0) FROM indicator_sets").Scan(ctx, &last); err != nil {
			return err
		}
		next.version = uint64(max(last, floor)) + 1
		if s.o.Signer != nil {
			var err error
			next.envelope, err = keys.SignDirective(s.o.Signer, keys.Directive{Type: keys.IndicatorSet, Audience: keys.Everybody, Version: next.version, Issued: now, Expires: now.Add(s.o.SetLife), Content: body})
			if err != nil {
				return err
			}
		}
		sum := sha256.Sum256(body)
		_, err := tx.NewRaw("INSERT INTO indicator_sets (version, created_ns, expires_ns, entries, content, digest, key, envelope) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			int64(next.version), next.created, next.expires, len(push), content, sum[:], key[:], next.envelope).Exec(ctx)
		if err != nil {
			return err
		}
		// Hashes of all, not only of what is pushed: the hub's own hits are resolved the same way.
		for _, i := range live {
			k, err := indicator.ParseKind(i.Kind)
			if err != nil {
				return err
			}
			h, err := indicator.Hash(key, k, i.Value)
			if err != nil {
				return fmt.Errorf("indicator %s: %w", i.ID, err)
			}
			if _, err := tx.NewRaw("INSERT OR IGNORE INTO indicator_hashes (version, kind, hash, indicator) VALUES (?, ?, ?, ?)", int64(next.version), k.String(), int64(h), i.ID).Exec(ctx); err != nil {
				return err
			}
		}
		old := int64(next.version) - keepSets
		if _, err := tx.NewRaw("DELETE FROM indicator_hashes WHERE version <= ?", old).Exec(ctx); err != nil {
			return err
		}
		// The row stays, so that its version is never given again; only the bytes go.
		_, err = tx.NewRaw("UPDATE indicator_sets SET envelope = x'' WHERE version <= ? AND length(envelope) > 0", old).Exec(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("publishing the set: %w", err)
	}
	s.now.Store(next)
	s.all.Store(set)
	s.log.InfoContext(ctx, "published an indicator set", "version", next.version, "indicators", len(pushed), "bytes", len(body))
	return nil
}

// signedByUs says whether a set carries the signature of the key in use: after a rotation collectors take no set of the key before.
func (s *Store) signedByUs(p *published) bool {
	if s.o.Signer == nil {
		return true
	}
	_, err := keys.OpenEnvelope(p.envelope, keys.DirectiveType, s.o.Signer.Public())
	return err == nil
}

// keyBytes scans a BLOB of 16 bytes.
type keyBytes [16]byte

// Scan implements sql.Scanner.
func (k *keyBytes) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != 16 {
		return fmt.Errorf("a set's key is %T of the wrong length", v)
	}
	copy(k[:], b)
	return nil
}

func buildSet(key [16]byte, entries []indicator.Entry) (*indicator.Set, error) {
	b, err := indicator.Build(key, entries)
	if err != nil {
		return nil, fmt.Errorf("building the hub's set: %w", err)
	}
	return indicator.Open(b)
}

// newest reads the set published last, nil when there is none.
func (s *Store) newest(ctx context.Context) (*published, error) {
	var p published
	var version int64
	err := s.db.Read().NewRaw("SELECT version, created_ns, expires_ns, entries, content, envelope FROM indicator_sets ORDER BY version DESC LIMIT 1").
		Scan(ctx, &version, &p.created, &p.expires, &p.entries, &p.content, &p.envelope)
	if db.NotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the set published last: %w", err)
	}
	p.version = uint64(version)
	return &p, nil
}

// Current is the signed set in force and its version as a quoted tag, for the gate; nil before the first.
func (s *Store) Current() (envelope []byte, etag string) {
	p := s.now.Load()
	if p == nil || len(p.envelope) == 0 {
		return nil, ""
	}
	return p.envelope, strconv.Quote(strconv.FormatUint(p.version, 10))
}

// SetInfo describes the set in force, for pages.
type SetInfo struct {
	Version          uint64
	Entries          int
	Created, Expires time.Time
}

// Published describes the set in force; ok is false before the first.
func (s *Store) Published() (info SetInfo, ok bool) {
	p := s.now.Load()
	if p == nil {
		return SetInfo{}, false
	}
	return SetInfo{p.version, p.entries, time.Unix(0, p.created), time.Unix(0, p.expires)}, true
}
