package member

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/event"
)

// Head is where a reader stands in a stream: the last batch it took.
type Head struct {
	Stream    event.StreamID
	Collector string
	Tenant    event.TenantID
	Lane      string
	Epoch     string
	Seq       uint64
	Digest    [32]byte // of that batch's envelope
	Position  string   // that manifest's Position, verbatim
	Receipt   []byte   // its signed receipt
	StartedNS int64    // when the stream's first batch came
	CreatedNS int64    // when that batch was sealed, by the collector's clock
	UpdatedNS int64
}

// Batch is one batch as the gate accepts it.
type Batch struct {
	Head                       // Seq, Digest, Position and Receipt are this batch's
	Prev         [32]byte      // digest the manifest names as the one before
	Events       int           // events in it
	Size         int           // bytes of the submission
	ClockOffset  time.Duration // collector's clock minus the hub's, as it measured
	Counts       map[string]uint64
	Version      string // of the collector program
	Policy       string // digest of its local policy
	ParserPack   string
	RulePack     string
	IndicatorSet string
}

// Sequence says how a batch stands to what was accepted before.
type Sequence int

// What a batch can be.
const (
	Next          Sequence = iota + 1 // the one that was due
	Repeat                            // accepted before, same digest
	Fork                              // this sequence was accepted with another digest
	OutOfSequence                     // a gap, or its Prev is not the head's digest
	Opening                           // the first of a stream
)

// Verdict is the answer to Judge and Accept.
type Verdict struct {
	Sequence Sequence
	Head     Head   // the head after the call; zero for an unknown stream
	Receipt  []byte // Repeat: the receipt given then
	// Clone: the stream was followed by a newer epoch of the same lane and now
	// goes on all the same. Two collectors hold the same keys.
	Clone bool
	// First is true when this fork or clone had not been seen before.
	First bool
}

// GateReader is the reader name under which the gate keeps its heads.
const GateReader = "gate"

const headColumns = "stream, collector, tenant, lane, epoch, seq, digest, position, receipt, started_ns, created_ns, updated_ns"

func scanHead(scan func(...any) error) (Head, error) {
	var h Head
	var stream, digest []byte
	if err := scan(&stream, &h.Collector, &h.Tenant, &h.Lane, &h.Epoch, &h.Seq, &digest, &h.Position, &h.Receipt, &h.StartedNS, &h.CreatedNS, &h.UpdatedNS); err != nil {
		return Head{}, err
	}
	if len(stream) != 16 || len(digest) != 32 {
		return Head{}, errors.New("a stream head in the database is damaged")
	}
	h.Stream, h.Digest = event.StreamID(stream), [32]byte(digest)
	return h, nil
}

// Heads returns a reader's heads, of one collector or of all ("").
func (s *Store) Heads(ctx context.Context, reader, collector string) ([]Head, error) {
	q := "SELECT " + headColumns + " FROM stream_heads WHERE reader = ?"
	args := []any{reader}
	if collector != "" {
		q += " AND collector = ?"
		args = append(args, collector)
	}
	rows, err := s.db.Read().QueryContext(ctx, q+" ORDER BY started_ns, stream", args...)
	if err != nil {
		return nil, fmt.Errorf("reading stream heads: %w", err)
	}
	defer rows.Close()
	var out []Head
	for rows.Next() {
		h, err := scanHead(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("reading stream heads: %w", err)
		}
		out = append(out, h)
	}
	return out, rows.Err()
}

// Head returns one head of a reader; ok is false when the stream is new to it.
func (s *Store) Head(ctx context.Context, reader string, stream event.StreamID) (Head, bool, error) {
	return head(ctx, s.db.Read(), reader, stream)
}

func head(ctx context.Context, tx bun.IDB, reader string, stream event.StreamID) (Head, bool, error) {
	h, err := scanHead(db.Bound(tx).QueryRowContext(ctx, "SELECT "+headColumns+" FROM stream_heads WHERE reader = ? AND stream = ?", reader, stream[:]).Scan)
	if db.NotFound(err) {
		return Head{}, false, nil
	}
	return h, err == nil, err
}

// ErrMoved says that the head is not where the caller thought: somebody else
// moved it.
var ErrMoved = errors.New("the stream's head has moved")

// Advance moves a reader's head from one batch to the next by compare and set:
// it fails with ErrMoved unless the head is (seq, digest) of from, or there is
// none and from is the zero Head. The ledger and others that follow streams use
// it; the gate uses Accept.
func (s *Store) Advance(ctx context.Context, reader string, from, to Head) error {
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		h, known, err := head(ctx, tx, reader, to.Stream)
		if err != nil {
			return err
		}
		if known && (h.Seq != from.Seq || h.Digest != from.Digest) || !known && from.Seq != 0 {
			return ErrMoved
		}
		return s.setHead(ctx, tx, reader, to)
	})
}

func (s *Store) setHead(ctx context.Context, tx bun.IDB, reader string, h Head) error {
	now := s.now()
	if h.Receipt == nil {
		h.Receipt = []byte{}
	}
	_, err := db.Bound(tx).ExecContext(ctx, `INSERT INTO stream_heads (reader, `+headColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (reader, stream) DO UPDATE SET seq = excluded.seq, digest = excluded.digest, position = excluded.position, receipt = excluded.receipt,
		created_ns = excluded.created_ns, updated_ns = excluded.updated_ns`,
		reader, h.Stream[:], h.Collector, h.Tenant, h.Lane, h.Epoch, int64(h.Seq), h.Digest[:], h.Position, h.Receipt, now, h.CreatedNS, now)
	return err
}

// Judge says how a batch stands to what was accepted, without changing
// anything. For a new stream's first batch Prev is not judged: it names the last
// receipt of another epoch.
func (s *Store) Judge(ctx context.Context, b *Batch) (Verdict, error) {
	return s.judge(ctx, s.db.Read(), b)
}

func (s *Store) judge(ctx context.Context, tx bun.IDB, b *Batch) (Verdict, error) {
	if b.Seq == 0 || b.Seq > 1<<62 {
		return Verdict{}, fmt.Errorf("%w: sequence %d", ErrInvalid, b.Seq)
	}
	h, known, err := head(ctx, tx, GateReader, b.Stream)
	if err != nil {
		return Verdict{}, fmt.Errorf("reading the stream's head: %w", err)
	}
	v := Verdict{Head: h}
	switch {
	case !known && b.Seq == 1:
		v.Sequence = Opening
		return v, nil
	case !known, b.Seq > h.Seq+1:
		v.Sequence = OutOfSequence
		return v, nil
	case b.Seq == h.Seq+1 && b.Prev == h.Digest:
		v.Sequence = Next
		return v, nil
	case b.Seq == h.Seq+1:
		// Chained to a batch that is not ours: whoever sent it has another
		// past than the one accepted here.
		v.Sequence = Fork
		return v, nil
	}
	var digest []byte
	err = db.Bound(tx).QueryRowContext(ctx, "SELECT digest, receipt FROM batches WHERE stream = ? AND seq = ?", b.Stream[:], int64(b.Seq)).Scan(&digest, &v.Receipt)
	if db.NotFound(err) { // older than what is kept
		v.Sequence = OutOfSequence
		return v, nil
	}
	if err != nil {
		return Verdict{}, fmt.Errorf("reading an accepted batch: %w", err)
	}
	if len(digest) == 32 && [32]byte(digest) == b.Digest {
		v.Sequence = Repeat
		return v, nil
	}
	v.Sequence, v.Receipt = Fork, nil
	return v, nil
}

// Claim judges a batch again and, if it is Next or Opening, promises its number
// to it, durably. The gate calls it before it publishes the batch: any other
// batch under that number is a Fork from then on, which is recorded, also when
// this one was published and never accepted, because the gate stopped in
// between. The same batch may claim its number again.
func (s *Store) Claim(ctx context.Context, b *Batch) (Verdict, error) {
	var v Verdict
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var err error
		if v, err = s.judge(ctx, tx, b); err != nil {
			return err
		}
		switch v.Sequence {
		case Fork:
			v.First, err = s.recordFork(ctx, tx, b, v)
			return err
		case Repeat, OutOfSequence:
			return nil
		}
		// One row a stream: a claim on a later number replaces the one before, whose batch is the head.
		res, err := db.Bound(tx).ExecContext(ctx, `INSERT INTO stream_claims (stream, seq, digest, at_ns) VALUES (?, ?, ?, ?)
			ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, digest = excluded.digest, at_ns = excluded.at_ns
			WHERE stream_claims.seq <> excluded.seq OR stream_claims.digest = excluded.digest`,
			b.Stream[:], int64(b.Seq), b.Digest[:], s.now())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		v.Sequence = Fork
		v.First, err = s.recordFork(ctx, tx, b, v)
		return err
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("claiming number %d of stream %x: %w", b.Seq, b.Stream, err)
	}
	return v, nil
}

// Accept judges a batch again and, if it is Next or Opening, moves the gate's head,
// keeps its receipt and adds its counts, all in one transaction. The gate calls
// it when the batch is durable in blob and bus, with the receipt it is going to
// send. Anything else changes nothing but the records of forks and clones.
func (s *Store) Accept(ctx context.Context, b *Batch) (Verdict, error) {
	var v Verdict
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var err error
		if v, err = s.judge(ctx, tx, b); err != nil {
			return err
		}
		switch v.Sequence {
		case Fork:
			v.First, err = s.recordFork(ctx, tx, b, v)
			return err
		case Repeat, OutOfSequence:
			return nil
		}
		now := s.now()
		if err := s.setHead(ctx, tx, GateReader, b.Head); err != nil {
			return err
		}
		if _, err := db.Bound(tx).ExecContext(ctx, "INSERT INTO batches (stream, seq, digest, received_ns, events, size, receipt) VALUES (?, ?, ?, ?, ?, ?, ?)",
			b.Stream[:], int64(b.Seq), b.Digest[:], now, b.Events, b.Size, b.Receipt); err != nil {
			return err
		}
		counts := map[string]uint64{"hub.accepted": uint64(b.Events), "hub.batches": 1, "hub.bytes": uint64(b.Size)}
		for name, n := range b.Counts {
			if validCount(name) && !strings.HasPrefix(name, "hub.") {
				counts[name] = n
			} else {
				counts["hub.bad_counter"]++
			}
		}
		if err := s.add(ctx, tx, "manifest", Counted{Stream: b.Stream, Collector: b.Collector, Tenant: b.Tenant, Seq: b.Seq, Counts: counts}); err != nil {
			return err
		}
		if _, err := db.Bound(tx).ExecContext(ctx, `UPDATE collectors SET last_seen_ns = max(last_seen_ns, ?), last_batch_ns = ?, last_created_ns = ?, clock_offset_ns = ?,
			version = ?, policy = ?, parser_pack = ?, rule_pack = ?, indicator_set = ? WHERE id = ?`,
			now, now, b.CreatedNS, int64(b.ClockOffset), b.Version, b.Policy, b.ParserPack, b.RulePack, b.IndicatorSet, b.Collector); err != nil {
			return err
		}
		if v.Clone, v.First, err = s.clone(ctx, tx, b); err != nil {
			return err
		}
		started := v.Head.StartedNS
		if v.Sequence == Opening {
			started = now
		}
		v.Head = b.Head
		v.Head.StartedNS, v.Head.UpdatedNS = started, now
		return nil
	})
	if err != nil {
		return Verdict{}, fmt.Errorf("accepting batch %d of stream %x: %w", b.Seq, b.Stream, err)
	}
	return v, nil
}

func (s *Store) recordFork(ctx context.Context, tx bun.IDB, b *Batch, v Verdict) (first bool, err error) {
	have := v.Head.Digest[:]
	res, err := tx.NewRaw("INSERT INTO forks (stream, collector, tenant, seq, have, got, at_ns) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		b.Stream[:], b.Collector, b.Tenant, int64(b.Seq), have, b.Digest[:], s.now()).Exec(ctx)
	if err != nil {
		return false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	return true, s.register(ctx, tx, "fork", b.Collector, b.Tenant, map[string]any{
		"stream": fmt.Sprintf("%x", b.Stream), "lane": b.Lane, "epoch": b.Epoch, "seq": b.Seq, "head": fmt.Sprintf("%x", have), "got": fmt.Sprintf("%x", b.Digest)})
}

// clone looks for a newer epoch of the same lane: after a restore the old epoch
// falls silent, so if it goes on there are two of this collector.
func (s *Store) clone(ctx context.Context, tx bun.IDB, b *Batch) (clone, first bool, err error) {
	var newer string
	err = db.Bound(tx).QueryRowContext(ctx, `SELECT o.epoch FROM stream_heads o JOIN stream_heads h ON h.reader = o.reader AND h.stream = ?
		WHERE o.reader = ? AND o.collector = ? AND o.lane = ? AND o.tenant = ? AND o.epoch <> ? AND o.started_ns > h.started_ns ORDER BY o.started_ns DESC LIMIT 1`,
		b.Stream[:], GateReader, b.Collector, b.Lane, b.Tenant, b.Epoch).Scan(&newer)
	if db.NotFound(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	res, err := tx.NewRaw("INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", fmt.Sprintf("clone:%x:%s", b.Stream, newer), s.now()).Exec(ctx)
	if err != nil {
		return false, false, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return true, false, err
	}
	return true, true, s.register(ctx, tx, "clone", b.Collector, b.Tenant, map[string]any{"lane": b.Lane, "epoch": b.Epoch, "newer_epoch": newer, "seq": b.Seq})
}

// Counted is what one batch adds to its stream's counters.
type Counted struct {
	Stream    event.StreamID
	Collector string
	Tenant    event.TenantID
	Seq       uint64
	Counts    map[string]uint64
}

// AddCounts adds to the counters of streams, each once per source, stream and
// sequence: what a source counted before, or an older sequence, adds nothing. A
// source must count a stream's batches in order. The worker counts
// "hub.stored" and "hub.refused" under the source "stored".
func (s *Store) AddCounts(ctx context.Context, source string, batches ...Counted) error {
	if source == "manifest" || source == "" {
		return fmt.Errorf("%w: counts of the source %q are added by Accept", ErrInvalid, source)
	}
	for _, c := range batches {
		for name := range c.Counts {
			if !validCount(name) {
				return fmt.Errorf("%w: counter name %q", ErrInvalid, name)
			}
		}
	}
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for _, c := range batches {
			if err := s.add(ctx, tx, source, c); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) add(ctx context.Context, tx bun.IDB, source string, c Counted) error {
	res, err := db.Bound(tx).ExecContext(ctx, `INSERT INTO stream_marks (stream, source, seq) VALUES (?, ?, ?)
		ON CONFLICT (stream, source) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > seq`, c.Stream[:], source, int64(c.Seq))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	return s.sum(ctx, tx, c)
}

// Refused counts requests of a collector that the gate turned away, by reason,
// under the names "hub.turned_away.<reason>". They belong to no stream and to no
// sum. An unknown collector is ErrUnknown.
func (s *Store) Refused(ctx context.Context, collector, reason string, n uint64) error {
	name := "hub.turned_away." + reason
	if !validCount(name) {
		return fmt.Errorf("%w: reason %q", ErrInvalid, reason)
	}
	sum := sha256.Sum256([]byte("turned away\x00" + collector))
	return s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		r, err := registration(ctx, tx, collector)
		if err != nil {
			return err
		}
		return s.sum(ctx, tx, Counted{Stream: event.StreamID(sum[:16]), Collector: r.ID, Tenant: r.Tenant, Counts: map[string]uint64{name: n}})
	})
}

// sum adds to a stream's counters and to the day's.
func (s *Store) sum(ctx context.Context, tx bun.IDB, c Counted) error {
	day := s.now() / int64(24*time.Hour)
	var names []string
	for name, n := range c.Counts {
		if n > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	var rows, days []any
	for _, name := range names {
		v := int64(min(c.Counts[name], mostPerBatch))
		rows = append(rows, c.Stream[:], name, c.Collector, c.Tenant, v)
		days = append(days, c.Collector, day, name, c.Tenant, v)
	}
	// The text depends on the number of names alone, of which there are few.
	values := strings.Repeat(", (?, ?, ?, ?, ?)", len(names))[2:]
	const add = " DO UPDATE SET value = CASE WHEN value > ? THEN value ELSE value + excluded.value END"
	q := db.Bound(tx)
	if _, err := q.ExecContext(ctx, "INSERT INTO stream_counts (stream, name, collector, tenant, value) VALUES "+values+" ON CONFLICT (stream, name)"+add, append(rows, int64(mostPerStream))...); err != nil {
		return err
	}
	_, err := q.ExecContext(ctx, "INSERT INTO day_counts (collector, day, name, tenant, value) VALUES "+values+" ON CONFLICT (collector, day, name)"+add, append(days, int64(mostPerStream))...)
	return err
}

// Bounds of what is summed. No collector reaches them honestly; one that lies
// must not overflow the sums of everybody on a page.
const (
	mostPerBatch  = 1 << 40
	mostPerStream = 1 << 52
)

// validCount bounds what a collector may name: counters become rows and page
// lines.
func validCount(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// Prune forgets accepted batches older than keep; their repeats are then answered
// as out of sequence. Collectors resend for 14 days, so keep at least 30.
func (s *Store) Prune(ctx context.Context, keep time.Duration) (int64, error) {
	if keep < 14*24*time.Hour {
		return 0, fmt.Errorf("%w: collectors resend batches for 14 days, so %s is too short", ErrInvalid, keep)
	}
	var n int64
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		res, err := tx.NewRaw(`DELETE FROM batches WHERE received_ns < ? AND EXISTS
			(SELECT 1 FROM stream_heads h WHERE h.reader = ? AND h.stream = batches.stream AND h.seq > batches.seq)`,
			s.now()-int64(keep), GateReader).Exec(ctx)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
