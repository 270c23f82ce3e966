package member

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"tocsin/internal/event"
)

// Accepted is one accepted batch, as it was noted.
type Accepted struct {
	Seq        uint64
	Digest     [32]byte
	ReceivedNS int64
	Events     int
	Size       int
}

// AcceptedAfter lists a stream's accepted batches after a sequence, in order, up
// to n. Those older than what is kept (Prune) are not there.
func (s *Store) AcceptedAfter(ctx context.Context, stream event.StreamID, seq uint64, n int) ([]Accepted, error) {
	rows, err := s.db.Read().QueryContext(ctx, "SELECT seq, digest, received_ns, events, size FROM batches WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?", stream[:], int64(seq), n)
	if err != nil {
		return nil, fmt.Errorf("reading accepted batches: %w", err)
	}
	defer rows.Close()
	var out []Accepted
	for rows.Next() {
		var a Accepted
		var digest []byte
		if err := rows.Scan(&a.Seq, &digest, &a.ReceivedNS, &a.Events, &a.Size); err != nil {
			return nil, fmt.Errorf("reading accepted batches: %w", err)
		}
		if len(digest) != 32 {
			return nil, fmt.Errorf("the digest of batch %d of stream %x is damaged", a.Seq, stream)
		}
		a.Digest = [32]byte(digest)
		out = append(out, a)
	}
	return out, rows.Err()
}

// SetBack makes the gate forget what it accepted of a stream after a sequence,
// because it is lost here: the collector, which keeps what left for 14 days, then
// sends it again. What it counted is not counted twice.
func (s *Store) SetBack(ctx context.Context, stream event.StreamID, seq uint64) error {
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if _, err := tx.NewRaw("DELETE FROM batches WHERE stream = ? AND seq > ?", stream[:], int64(seq)).Exec(ctx); err != nil {
			return err
		}
		// Which lines the head holds is not known for an older batch: what says so is emptied.
		res, err := tx.NewRaw(`UPDATE stream_heads SET seq = b.seq, digest = b.digest, receipt = b.receipt, position = '', updated_ns = b.received_ns
			FROM batches b WHERE b.stream = stream_heads.stream AND b.seq = ? AND stream_heads.reader = ? AND stream_heads.stream = ?`, int64(seq), GateReader, stream[:]).Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		// Nothing of it is known any more: the stream is new.
		_, err = tx.NewRaw("DELETE FROM stream_heads WHERE reader = ? AND stream = ?", GateReader, stream[:]).Exec(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("setting stream %x back to batch %d: %w", stream, seq, err)
	}
	return nil
}
