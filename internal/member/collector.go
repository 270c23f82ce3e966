package member

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// What a collector's registration may be.
const (
	Quarantined = "quarantined" // stored, not counted towards anything shared, until the check words are confirmed
	Live        = "live"
	Revoked     = "revoked"
)

// Refusals of enrolment, renewal and requests. Each says what to do next.
var (
	ErrToken     = errors.New("this enrolment token is not known here, was cancelled or has been used; ask for a new one")
	ErrExpired   = errors.New("this enrolment token is older than 24 hours; ask for a new one")
	ErrKnownKey  = errors.New("a collector with this key is registered already; a copied folder must make its own keys: run enrol in an empty folder")
	ErrUnknown   = errors.New("this collector is not registered here; enrol it with a token")
	ErrRevoked   = errors.New("this collector was revoked; ask your organisation's contact, then enrol it again")
	ErrRetired   = errors.New("this certificate was replaced; renew it")
	ErrReplay    = errors.New("this renewal is not newer than the last one; check the collector's clock")
	ErrWords     = errors.New("the check words are not the ones the collector shows; read them again, and if they still differ, revoke this collector")
	ErrWordTries = errors.New("the check words were wrong too often; revoke this collector and enrol it again")
)

// TokenLife is how long an enrolment token may be used.
const TokenLife = 24 * time.Hour

const wordTries = 10

// Registration is what the gate needs to know about a collector.
type Registration struct {
	ID           string // UUIDv7
	Tenant       event.TenantID
	Organisation string
	Site         string
	SiteID       string
	Name         string
	State        string
	BatchKey     ed25519.PublicKey
	Words        string // four check words, separated by spaces
	Policy       string // ceiling agreed with the member: metadata or full
	RenewCounter uint64
}

type collectorRow struct {
	bun.BaseModel `bun:"table:collectors,alias:c"`

	ID            string         `bun:"id,pk"`
	Tenant        event.TenantID `bun:"tenant"`
	Site          string         `bun:"site"`
	Name          string         `bun:"name"`
	State         string         `bun:"state"`
	BatchKey      []byte         `bun:"batch_key"`
	Words         string         `bun:"words"`
	WordTries     int            `bun:"word_tries"`
	RenewCounter  int64          `bun:"renew_counter"`
	Policy        string         `bun:"policy"`
	Version       string         `bun:"version"`
	ParserPack    string         `bun:"parser_pack"`
	RulePack      string         `bun:"rule_pack"`
	IndicatorSet  string         `bun:"indicator_set"`
	ClockOffsetNS int64          `bun:"clock_offset_ns"`
	RegisteredNS  int64          `bun:"registered_ns"`
	ConfirmedNS   int64          `bun:"confirmed_ns"`
	ConfirmedBy   string         `bun:"confirmed_by"`
	RevokedNS     int64          `bun:"revoked_ns"`
	RevokedBy     string         `bun:"revoked_by"`
	RevokeReason  string         `bun:"revoke_reason"`
	LastSeenNS    int64          `bun:"last_seen_ns"`
	LastBatchNS   int64          `bun:"last_batch_ns"`
	LastCreatedNS int64          `bun:"last_created_ns"`
}

// Token is an enrolment token as it is listed: never with its secret.
type Token struct {
	bun.BaseModel `bun:"table:tokens,alias:k" json:"-"`

	ID          string         `bun:"id,pk" json:"id"`
	SecretHash  []byte         `bun:"secret_hash" json:"-"`
	Tenant      event.TenantID `bun:"tenant" json:"tenant"`
	Site        string         `bun:"site" json:"site"`
	CreatedNS   int64          `bun:"created_ns" json:"created_ns,string"`
	CreatedBy   string         `bun:"created_by" json:"created_by"`
	ExpiresNS   int64          `bun:"expires_ns" json:"expires_ns,string"`
	UsedNS      int64          `bun:"used_ns" json:"used_ns,string"`
	UsedBy      string         `bun:"used_by" json:"used_by"`
	CancelledNS int64          `bun:"cancelled_ns" json:"-"`
}

// MakeToken makes an enrolment token for one collector at one site. The token's
// text is returned this once; only the digest of its secret is kept.
func (s *Store) MakeToken(ctx context.Context, scope access.Scope, by, site string) (keys.Token, time.Time, error) {
	var row Site
	q := s.db.Read().NewSelect().Model(&row).Where("s.id = ?", site)
	if err := within(q, scope, "s.tenant").Scan(ctx); err != nil {
		if db.NotFound(err) {
			err = fmt.Errorf("site %s: %w", site, ErrNotFound)
		}
		return keys.Token{}, time.Time{}, err
	}
	if s.o.Address == "" || s.o.Root == [32]byte{} {
		return keys.Token{}, time.Time{}, errors.New("making a token: the gate's address or the scheme's keys are not there yet; start the hub once, or give --config")
	}
	t, err := keys.NewToken(s.o.Address, s.o.Root)
	if err != nil {
		return keys.Token{}, time.Time{}, err
	}
	now := s.o.Now()
	hash := t.SecretHash()
	k := Token{ID: newID(), SecretHash: hash[:], Tenant: row.Tenant, Site: row.ID, CreatedNS: now.UnixNano(), CreatedBy: by, ExpiresNS: now.Add(TokenLife).UnixNano()}
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if _, err := tx.NewInsert().Model(&k).Exec(ctx); err != nil {
			return err
		}
		return db.Audit(ctx, tx, k.CreatedNS, by, "token.make", row.Name, row.Tenant, "token "+k.ID)
	})
	if err != nil {
		return keys.Token{}, time.Time{}, fmt.Errorf("making a token: %w", err)
	}
	return t, now.Add(TokenLife), nil
}

// Tokens lists the tokens that can still be used.
func (s *Store) Tokens(ctx context.Context, scope access.Scope) ([]Token, error) {
	var out []Token
	q := s.db.Read().NewSelect().Model(&out).Where("used_ns = 0 AND cancelled_ns = 0 AND expires_ns > ?", s.now()).Order("created_ns")
	if err := within(q, scope, "k.tenant").Scan(ctx); err != nil {
		return nil, fmt.Errorf("listing the tokens: %w", err)
	}
	return out, nil
}

// CancelToken makes an unused token useless.
func (s *Store) CancelToken(ctx context.Context, scope access.Scope, by, id string) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var k Token
		err := within(tx.NewSelect().Model(&k).Where("k.id = ? AND used_ns = 0", id), scope, "k.tenant").Scan(ctx)
		if db.NotFound(err) {
			return fmt.Errorf("token %s: %w, or used already", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if _, err := tx.NewRaw("UPDATE tokens SET cancelled_ns = ? WHERE id = ?", s.now(), id).Exec(ctx); err != nil {
			return err
		}
		return db.Audit(ctx, tx, s.now(), by, "token.cancel", id, k.Tenant, "")
	})
}

// Enrolment is what a collector asks to be registered with. The gate has
// verified its signatures.
type Enrolment struct {
	Secret    []byte // of the token
	BatchKey  ed25519.PublicKey
	TLSKey    [32]byte  // SHA-256 of the certificate's public key
	Words     [4]string // keys.CheckWords
	Name      string
	Version   string
	NotBefore time.Time
}

// Issue makes the certificate of a collector that has just been given its id.
type Issue func(collector string) (certificate []byte, notAfter time.Time, err error)

// Redeem registers a collector for a token, in quarantine, and has its
// certificate issued. The token is used up exactly once: of two that come with
// it at the same moment, one gets ErrToken. The same collector (the same two
// keys) coming again with it, because the answer was lost, gets the same
// registration and a fresh certificate.
//
// issue may run twice; only the last result is returned.
func (s *Store) Redeem(ctx context.Context, e Enrolment, issue Issue) (Registration, []byte, time.Time, error) {
	name, err := line("the collector's name", e.Name, 0, 200)
	if err != nil {
		return Registration{}, nil, time.Time{}, err
	}
	if len(e.BatchKey) != ed25519.PublicKeySize {
		return Registration{}, nil, time.Time{}, fmt.Errorf("%w: batch key of %d bytes", ErrInvalid, len(e.BatchKey))
	}
	if name == "" {
		name = "collector"
	}
	hash := keys.HashSecret(e.Secret)
	var reg Registration
	var cert []byte
	var until time.Time
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		now := s.now()
		var k Token
		// The index is searched with a digest of what the caller sent, so the
		// time it takes tells nothing about the secrets; the comparison below
		// keeps that true of any index.
		if err := tx.NewSelect().Model(&k).Where("secret_hash = ?", hash[:]).Scan(ctx); err != nil {
			if db.NotFound(err) {
				return ErrToken
			}
			return err
		}
		if subtle.ConstantTimeCompare(k.SecretHash, hash[:]) != 1 || k.CancelledNS != 0 {
			return ErrToken
		}
		if k.ExpiresNS <= now {
			return ErrExpired
		}
		id := newID()
		if k.UsedNS != 0 {
			var c collectorRow
			err := tx.NewSelect().Model(&c).Where("c.id = ?", k.UsedBy).Scan(ctx)
			if err != nil || subtle.ConstantTimeCompare(c.BatchKey, e.BatchKey) != 1 || c.Words != strings.Join(e.Words[:], " ") {
				return ErrToken
			}
			if c.State == Revoked {
				return ErrRevoked
			}
			id = c.ID
		} else {
			c := collectorRow{ID: id, Tenant: k.Tenant, Site: k.Site, Name: name, State: Quarantined, BatchKey: e.BatchKey,
				Words: strings.Join(e.Words[:], " "), Version: e.Version, RegisteredNS: now, LastSeenNS: now}
			if _, err := tx.NewInsert().Model(&c).Exec(ctx); err != nil {
				if db.Duplicate(err) {
					return ErrKnownKey
				}
				return err
			}
			if _, err := tx.NewRaw("UPDATE tokens SET used_ns = ?, used_by = ? WHERE id = ?", now, id, k.ID).Exec(ctx); err != nil {
				return err
			}
			body := map[string]any{"batch_key": keys.KeyID(e.BatchKey), "tls_key": fmt.Sprintf("%x", e.TLSKey), "site": k.Site}
			if err := s.register(ctx, tx, "registration", id, k.Tenant, body); err != nil {
				return err
			}
			if err := db.Audit(ctx, tx, now, "collector:"+id, "collector.enrol", name, k.Tenant, "token "+k.ID+" of "+k.CreatedBy); err != nil {
				return err
			}
		}
		var err error
		if cert, until, err = issue(id); err != nil {
			return fmt.Errorf("issuing the certificate: %w", err)
		}
		if err := addCert(ctx, tx, id, e.TLSKey, now, until); err != nil {
			return err
		}
		reg, err = registration(ctx, tx, id)
		return err
	})
	if err != nil {
		return Registration{}, nil, time.Time{}, err
	}
	return reg, cert, until, nil
}

func addCert(ctx context.Context, tx bun.IDB, collector string, tlsKey [32]byte, now int64, until time.Time) error {
	var owner string
	err := tx.NewRaw("SELECT collector FROM collector_certs WHERE tls_key = ?", tlsKey[:]).Scan(ctx, &owner)
	if err == nil && owner != collector {
		return ErrKnownKey
	}
	if err != nil && !db.NotFound(err) {
		return err
	}
	if _, err := tx.NewRaw("DELETE FROM collector_certs WHERE collector = ? AND not_after_ns < ?", collector, now-int64(30*24*time.Hour)).Exec(ctx); err != nil {
		return err
	}
	_, err = tx.NewRaw("INSERT INTO collector_certs (tls_key, collector, not_before_ns, not_after_ns) VALUES (?, ?, ?, ?) ON CONFLICT (tls_key) DO UPDATE SET not_after_ns = excluded.not_after_ns",
		tlsKey[:], collector, now, until.UnixNano()).Exec(ctx)
	return err
}

func registration(ctx context.Context, tx bun.IDB, id string) (Registration, error) {
	var r Registration
	var counter int64
	var key []byte
	err := db.Bound(tx).QueryRowContext(ctx, `SELECT c.id, c.tenant, t.name, s.id, s.name, c.name, c.state, c.batch_key, c.words, t.policy, c.renew_counter
		FROM collectors c JOIN tenants t ON t.id = c.tenant JOIN sites s ON s.id = c.site WHERE c.id = ?`, id).
		Scan(&r.ID, &r.Tenant, &r.Organisation, &r.SiteID, &r.Site, &r.Name, &r.State, &key, &r.Words, &r.Policy, &counter)
	if db.NotFound(err) {
		return Registration{}, ErrUnknown
	}
	r.BatchKey, r.RenewCounter = key, uint64(counter)
	return r, err
}

// Registration returns a collector whatever its state, or ErrUnknown. It is for
// requests that prove the batch key; those that come with a certificate use
// Authenticate.
func (s *Store) Registration(ctx context.Context, id string) (Registration, error) {
	return registration(ctx, s.db.Read(), id)
}

// Authenticate returns the registration of the collector that a certificate
// names, if it may speak: the certificate's key must be one issued to it and the
// collector not revoked (ErrUnknown, ErrRetired, ErrRevoked). It notes that the
// collector was seen.
func (s *Store) Authenticate(ctx context.Context, id string, tlsKey [32]byte) (Registration, error) {
	r, err := registration(ctx, s.db.Read(), id)
	if err != nil {
		return Registration{}, err
	}
	if r.State == Revoked {
		return r, ErrRevoked
	}
	var n int
	if err := s.db.Read().DB.QueryRowContext(ctx, "SELECT count(*) FROM collector_certs WHERE tls_key = ? AND collector = ?", tlsKey[:], id).Scan(&n); err != nil {
		return Registration{}, err
	}
	if n == 0 {
		return r, ErrRetired
	}
	s.seen(ctx, id)
	return r, nil
}

// lastSeen spares the database a write for each request.
type lastSeen struct {
	mu sync.Mutex
	at map[string]int64
}

func (s *Store) seen(ctx context.Context, id string) {
	now := s.now()
	s.last.mu.Lock()
	if s.last.at == nil {
		s.last.at = map[string]int64{}
	}
	fresh := now-s.last.at[id] < int64(10*time.Second)
	if !fresh {
		s.last.at[id] = now
	}
	s.last.mu.Unlock()
	if fresh {
		return
	}
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("UPDATE collectors SET last_seen_ns = ? WHERE id = ? AND last_seen_ns < ?", now, id, now).Exec(ctx)
		return err
	})
	if err != nil { // a page will show an older time; the request is none the worse
		s.log.WarnContext(ctx, "noting that a collector was seen", "collector", id, "error", err)
	}
}

// Renew records a new certificate for a collector. The certificate before it
// stays good until it expires. counter must rise (ErrReplay), except that the
// very same request, whose answer was lost, may come again.
func (s *Store) Renew(ctx context.Context, id string, tlsKey [32]byte, counter uint64, version string, issue Issue) (Registration, []byte, time.Time, error) {
	var reg Registration
	var cert []byte
	var until time.Time
	if counter > 1<<63-1 {
		return reg, nil, until, fmt.Errorf("%w: counter %d", ErrInvalid, counter)
	}
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var err error
		if reg, err = registration(ctx, tx, id); err != nil {
			return err
		}
		if reg.State == Revoked {
			return ErrRevoked
		}
		now := s.now()
		if counter <= reg.RenewCounter {
			var n int
			if err := tx.NewRaw("SELECT count(*) FROM collector_certs WHERE tls_key = ? AND collector = ?", tlsKey[:], id).Scan(ctx, &n); err != nil {
				return err
			}
			if counter < reg.RenewCounter || n == 0 {
				return ErrReplay
			}
		}
		if cert, until, err = issue(id); err != nil {
			return fmt.Errorf("issuing the certificate: %w", err)
		}
		if err := addCert(ctx, tx, id, tlsKey, now, until); err != nil {
			return err
		}
		_, err = tx.NewRaw("UPDATE collectors SET renew_counter = ?, version = ?, last_seen_ns = ? WHERE id = ?", int64(counter), version, now, id).Exec(ctx)
		return err
	})
	if err != nil {
		return Registration{}, nil, time.Time{}, err
	}
	return reg, cert, until, nil
}

// ConfirmWords ends a collector's quarantine if the words are those it was
// registered with. Case, spaces and hyphens do not matter. After ten wrong tries
// only revoking it is left.
func (s *Store) ConfirmWords(ctx context.Context, scope access.Scope, by, id, words string) error {
	given := strings.Join(strings.FieldsFunc(strings.ToLower(words), func(r rune) bool { return r < 'a' || r > 'z' }), " ")
	var wrong error
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		wrong = nil
		c, err := s.find(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		switch {
		case c.State == Revoked:
			return ErrRevoked
		case c.WordTries >= wordTries && c.State == Quarantined:
			return ErrWordTries
		}
		if subtle.ConstantTimeCompare([]byte(given), []byte(c.Words)) != 1 {
			wrong = ErrWords
			_, err := tx.NewRaw("UPDATE collectors SET word_tries = word_tries + 1 WHERE id = ?", c.ID).Exec(ctx)
			return errors.Join(err, db.Audit(ctx, tx, s.now(), by, "collector.words.wrong", c.ID, c.Tenant, ""))
		}
		if c.State == Live {
			return nil
		}
		if _, err := tx.NewRaw("UPDATE collectors SET state = ?, confirmed_ns = ?, confirmed_by = ? WHERE id = ?", Live, s.now(), by, c.ID).Exec(ctx); err != nil {
			return err
		}
		if err := s.register(ctx, tx, "confirmation", c.ID, c.Tenant, map[string]any{"by": by}); err != nil {
			return err
		}
		return db.Audit(ctx, tx, s.now(), by, "collector.confirm", c.ID, c.Tenant, "")
	})
	if err != nil {
		return fmt.Errorf("confirming the check words: %w", err)
	}
	return wrong
}

// Revoke ends a collector's registration for good: its next request is refused.
func (s *Store) Revoke(ctx context.Context, scope access.Scope, by, id, why string) error {
	why, err := line("the reason", why, 3, 500)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		c, err := s.find(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		if c.State == Revoked {
			return nil
		}
		if _, err := tx.NewRaw("UPDATE collectors SET state = ?, revoked_ns = ?, revoked_by = ?, revoke_reason = ? WHERE id = ?", Revoked, s.now(), by, why, c.ID).Exec(ctx); err != nil {
			return err
		}
		if err := s.register(ctx, tx, "revocation", c.ID, c.Tenant, map[string]any{"by": by, "reason": why}); err != nil {
			return err
		}
		return db.Audit(ctx, tx, s.now(), by, "collector.revoke", c.ID, c.Tenant, why)
	})
}

func (s *Store) find(ctx context.Context, tx bun.IDB, scope access.Scope, id string) (collectorRow, error) {
	var c collectorRow
	err := within(tx.NewSelect().Model(&c).Where("c.id = ?", id), scope, "c.tenant").Scan(ctx)
	if db.NotFound(err) {
		return c, fmt.Errorf("collector %s: %w", id, ErrNotFound)
	}
	return c, err
}

// LogEntry is one line of the register: what the ledger must witness about
// collectors. Body is JSON with a random "salt".
type LogEntry struct {
	Seq       int64 // from 1, without gaps that matter: an entry is never changed or removed
	Kind      string
	Collector string
	Tenant    event.TenantID
	AtNS      int64
	Body      []byte
}

// register appends to the log. The salt keeps an entry's digest, which the
// ledger publishes, from being guessed.
func (s *Store) register(ctx context.Context, tx bun.IDB, kind, collector string, tenant event.TenantID, body map[string]any) error {
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails, see crypto/rand
	body["salt"] = hex.EncodeToString(salt[:])
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw("INSERT INTO register_log (kind, collector, tenant, at_ns, body) VALUES (?, ?, ?, ?, ?)", kind, collector, tenant, s.now(), b).Exec(ctx)
	return err
}

// Log returns up to n entries of the register after a sequence number, in
// order: kinds registration, confirmation, revocation, fork and clone.
func (s *Store) Log(ctx context.Context, after int64, n int) ([]LogEntry, error) {
	rows, err := s.db.Read().QueryContext(ctx, "SELECT seq, kind, collector, tenant, at_ns, body FROM register_log WHERE seq > ? ORDER BY seq LIMIT ?", after, n)
	if err != nil {
		return nil, fmt.Errorf("reading the register: %w", err)
	}
	defer rows.Close()
	var out []LogEntry
	for rows.Next() {
		var e LogEntry
		if err := rows.Scan(&e.Seq, &e.Kind, &e.Collector, &e.Tenant, &e.AtNS, &e.Body); err != nil {
			return nil, fmt.Errorf("reading the register: %w", err)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}
