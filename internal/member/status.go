package member

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/event"
)

// Balance is the account of what a collector received, as far as the hub has
// been told: every line must be in one of its places.
//
//	Received    = NotUnderstood + Σ Kept + Σ Left   (lines)
//	Σ Left + Σ Made = Sent + Waiting + Σ Dropped    (events)
//	Sent        = Accepted                          (events)
//	Accepted    = Stored + Refused + what is on its way through the hub
type Balance struct {
	Received      uint64            `json:"received"`
	Parsed        uint64            `json:"parsed"`
	NotUnderstood uint64            `json:"not_understood"`
	Kept          map[string]uint64 `json:"kept"`    // lines that stayed on the site, by reason
	Left          map[string]uint64 `json:"left"`    // lines allowed to leave, by reason
	Made          map[string]uint64 `json:"made"`    // events the collector made itself
	Dropped       map[string]uint64 `json:"dropped"` // events lost on the site, by reason
	Sent          uint64            `json:"sent"`
	Accepted      uint64            `json:"acknowledged"` // events in batches the gate took
	Stored        uint64            `json:"stored"`       // rows in the event store
	Refused       uint64            `json:"refused"`      // events the hub could not take in, kept aside
	Batches       uint64            `json:"batches"`
	Bytes         uint64            `json:"bytes"` // as received, compressed
	// Waiting are events allowed to leave and not sent when the last batch was
	// made; InFlight are accepted and not yet stored.
	Waiting  int64 `json:"waiting"`
	InFlight int64 `json:"in_flight"`
	// Gap is what cannot be accounted for: lines received that are in none of
	// the places above, plus accepted events that differ from those sent. It is
	// zero, or something is wrong.
	Gap int64 `json:"gap"`
	// TurnedAway are requests that the gate refused, by reason.
	TurnedAway map[string]uint64 `json:"turned_away"`
	// Other holds counters of the collector that are in no sum: udp_dropped,
	// oversized, clock_replaced …
	Other map[string]uint64 `json:"other"`
}

// NewBalance sorts sums of counters into a Balance.
func NewBalance(counts map[string]uint64) Balance {
	b := Balance{Kept: map[string]uint64{}, Left: map[string]uint64{}, Made: map[string]uint64{}, Dropped: map[string]uint64{}, TurnedAway: map[string]uint64{}, Other: map[string]uint64{}}
	var kept, left, made, dropped uint64
	for name, n := range counts {
		switch group, reason, _ := strings.Cut(name, "."); {
		case name == "received":
			b.Received = n
		case name == "parsed":
			b.Parsed = n
		case name == "not_understood":
			b.NotUnderstood = n
		case name == "sent":
			b.Sent = n
		case name == "hub.accepted":
			b.Accepted = n
		case name == "hub.stored":
			b.Stored = n
		case name == "hub.refused":
			b.Refused = n
		case name == "hub.batches":
			b.Batches = n
		case name == "hub.bytes":
			b.Bytes = n
		case strings.HasPrefix(name, "hub.turned_away."):
			b.TurnedAway[strings.TrimPrefix(name, "hub.turned_away.")] = n
		case group == "kept":
			b.Kept[reason] = n
			kept += n
		case group == "left":
			b.Left[reason] = n
			left += n
		case group == "made":
			b.Made[reason] = n
			made += n
		case group == "dropped":
			b.Dropped[reason] = n
			dropped += n
		default:
			b.Other[name] = n
		}
	}
	b.Waiting = int64(left+made) - int64(b.Sent+dropped)
	b.InFlight = int64(b.Accepted) - int64(b.Stored+b.Refused)
	b.Gap = int64(b.Received) - int64(b.NotUnderstood+kept+left)
	if b.Sent != b.Accepted {
		b.Gap += int64(b.Sent) - int64(b.Accepted)
	}
	return b
}

// Collector is a collector as pages and the command line show it.
type Collector struct {
	ID            string         `json:"id"`
	Tenant        event.TenantID `json:"tenant"`
	Organisation  string         `json:"organisation"`
	SiteID        string         `json:"site_id"`
	Site          string         `json:"site"`
	Name          string         `json:"name"`
	State         string         `json:"state"`
	Words         string         `json:"check_words"`
	Version       string         `json:"version"`
	Policy        string         `json:"policy"` // digest of the local policy
	ParserPack    string         `json:"parser_pack"`
	RulePack      string         `json:"rule_pack"`
	IndicatorSet  string         `json:"indicator_set"`
	ClockOffset   time.Duration  `json:"clock_offset_ns"` // its clock minus the hub's
	RegisteredNS  int64          `json:"registered_ns,string"`
	ConfirmedNS   int64          `json:"confirmed_ns,string"`
	ConfirmedBy   string         `json:"confirmed_by"`
	RevokedNS     int64          `json:"revoked_ns,string"`
	RevokedBy     string         `json:"revoked_by"`
	RevokeReason  string         `json:"revoke_reason"`
	LastSeenNS    int64          `json:"last_seen_ns,string"`  // any request
	LastBatchNS   int64          `json:"last_batch_ns,string"` // last batch accepted
	Lag           time.Duration  `json:"lag_ns"`               // from sealing the last batch to its arrival, by corrected clocks
	CertificateNS int64          `json:"certificate_until_ns,string"`
	Streams       int            `json:"streams"`
	Forks         int            `json:"forks"`
	LastSeq       uint64         `json:"last_seq,string"` // of the stream heard last
	Balance       Balance        `json:"balance"`
}

// Collectors lists the collectors within a scope with their state and balance.
func (s *Store) Collectors(ctx context.Context, scope access.Scope) ([]Collector, error) {
	return s.collectors(ctx, scope, "")
}

// Collector returns one collector, or ErrNotFound.
func (s *Store) Collector(ctx context.Context, scope access.Scope, id string) (Collector, error) {
	list, err := s.collectors(ctx, scope, id)
	if err != nil {
		return Collector{}, err
	}
	if len(list) == 0 {
		return Collector{}, fmt.Errorf("collector %s: %w", id, ErrNotFound)
	}
	return list[0], nil
}

func (s *Store) collectors(ctx context.Context, scope access.Scope, id string) ([]Collector, error) {
	var out []Collector
	index := map[string]int{}
	err := s.db.View(ctx, func(ctx context.Context, tx bun.IDB) error {
		q := tx.NewSelect().TableExpr("collectors AS c").Join("JOIN tenants AS t ON t.id = c.tenant").Join("JOIN sites AS s ON s.id = c.site").
			ColumnExpr(`c.id, c.tenant, t.name, s.id, s.name, c.name, c.state, c.words, c.version, c.policy, c.parser_pack, c.rule_pack, c.indicator_set,
				c.clock_offset_ns, c.registered_ns, c.confirmed_ns, c.confirmed_by, c.revoked_ns, c.revoked_by, c.revoke_reason, c.last_seen_ns, c.last_batch_ns, c.last_created_ns,
				(SELECT COALESCE(max(not_after_ns), 0) FROM collector_certs k WHERE k.collector = c.id),
				(SELECT count(*) FROM stream_heads h WHERE h.collector = c.id AND h.reader = 'gate'),
				(SELECT count(*) FROM forks f WHERE f.collector = c.id),
				COALESCE((SELECT seq FROM stream_heads h WHERE h.collector = c.id AND h.reader = 'gate' ORDER BY updated_ns DESC LIMIT 1), 0)`).
			OrderExpr("t.name, s.name, c.registered_ns, c.id")
		if id != "" {
			q = q.Where("c.id = ?", id)
		}
		rows, err := within(q, scope, "c.tenant").Rows(ctx)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c Collector
			var created int64
			if err := rows.Scan(&c.ID, &c.Tenant, &c.Organisation, &c.SiteID, &c.Site, &c.Name, &c.State, &c.Words, &c.Version, &c.Policy, &c.ParserPack, &c.RulePack, &c.IndicatorSet,
				&c.ClockOffset, &c.RegisteredNS, &c.ConfirmedNS, &c.ConfirmedBy, &c.RevokedNS, &c.RevokedBy, &c.RevokeReason, &c.LastSeenNS, &c.LastBatchNS, &created,
				&c.CertificateNS, &c.Streams, &c.Forks, &c.LastSeq); err != nil {
				return err
			}
			if c.LastBatchNS != 0 {
				c.Lag = max(0, time.Duration(c.LastBatchNS-created)+c.ClockOffset)
			}
			index[c.ID] = len(out)
			out = append(out, c)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		sums, err := s.sums(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		for id, i := range index {
			out[i].Balance = NewBalance(sums[id])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the collectors: %w", err)
	}
	return out, nil
}

func (s *Store) sums(ctx context.Context, tx bun.IDB, scope access.Scope, id string) (map[string]map[string]uint64, error) {
	q := tx.NewSelect().TableExpr("stream_counts AS n").ColumnExpr("n.collector, n.name, sum(n.value)").GroupExpr("n.collector, n.name")
	if id != "" {
		q = q.Where("n.collector = ?", id)
	}
	rows, err := within(q, scope, "n.tenant").Rows(ctx)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]map[string]uint64{}
	for rows.Next() {
		var collector, name string
		var n int64
		if err := rows.Scan(&collector, &name, &n); err != nil {
			return nil, err
		}
		if out[collector] == nil {
			out[collector] = map[string]uint64{}
		}
		out[collector][name] = uint64(n)
	}
	return out, rows.Err()
}

// Day is what a scope's collectors counted on one UTC day of the hub's clock.
type Day struct {
	Start   time.Time `json:"start"`
	Balance Balance   `json:"balance"`
}

// Days returns the counts of each day from from to to, summed over the scope's
// collectors, days without any left out. collector "" means all.
func (s *Store) Days(ctx context.Context, scope access.Scope, collector string, from, to time.Time) ([]Day, error) {
	const day = int64(24 * time.Hour)
	q := s.db.Read().NewSelect().TableExpr("day_counts AS n").ColumnExpr("n.day, n.name, sum(n.value)").
		Where("n.day BETWEEN ? AND ?", from.UnixNano()/day, to.UnixNano()/day).GroupExpr("n.day, n.name").OrderExpr("n.day")
	if collector != "" {
		q = q.Where("n.collector = ?", collector)
	}
	rows, err := within(q, scope, "n.tenant").Rows(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the counts by day: %w", err)
	}
	defer rows.Close()
	var out []Day
	var counts map[string]uint64
	last := int64(-1)
	flush := func() {
		if last >= 0 {
			out = append(out, Day{time.Unix(0, last*day).UTC(), NewBalance(counts)})
		}
	}
	for rows.Next() {
		var at, n int64
		var name string
		if err := rows.Scan(&at, &name, &n); err != nil {
			return nil, fmt.Errorf("reading the counts by day: %w", err)
		}
		if at != last {
			flush()
			last, counts = at, map[string]uint64{}
		}
		counts[name] = uint64(n)
	}
	flush()
	return out, rows.Err()
}
