package member

import (
	"context"
	"fmt"

	"tocsin/internal/event"
)

// StreamEvents gives for each stream of a collector how many events its accepted batches announced.
func (s *Store) StreamEvents(ctx context.Context, collector string) (map[event.StreamID]uint64, error) {
	rows, err := s.db.Read().QueryContext(ctx, "SELECT stream, value FROM stream_counts WHERE collector = ? AND name = 'sent'", collector)
	if err != nil {
		return nil, fmt.Errorf("reading the sums of streams: %w", err)
	}
	defer rows.Close()
	out := map[event.StreamID]uint64{}
	for rows.Next() {
		var stream []byte
		var n int64
		if err := rows.Scan(&stream, &n); err != nil {
			return nil, fmt.Errorf("reading the sums of streams: %w", err)
		}
		if len(stream) == 16 {
			out[event.StreamID(stream)] = uint64(n)
		}
	}
	return out, rows.Err()
}
