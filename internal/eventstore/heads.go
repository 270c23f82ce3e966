package eventstore

import (
	"context"
	"fmt"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/event"
)

// Newest returns, for every stream with rows that are not older than since (UTC nanoseconds, storage time), the highest sequence among
// them. It reads two columns of that span whole: it is for a hub that must know whether the store is as new as the records are, not for
// pages.
func (s *Store) Newest(ctx context.Context, since int64) (map[event.StreamID]uint64, error) {
	out := map[event.StreamID]uint64{}
	var (
		stream proto.ColFixedStr
		seq    proto.ColUInt64
	)
	stream.SetSize(16)
	err := s.c.query(ctx, "SELECT stream, max(seq) FROM "+s.db+".events WHERE time >= {since:DateTime64(6, 'UTC')} GROUP BY stream", args{"param_since": timeParam(since)},
		proto.Results{{Data: &stream}, {Data: &seq}}, func() { clear(out) }, func(rows int) error {
			for i := range rows {
				out[event.StreamID(stream.Row(i))] = seq[i]
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("ask how new the event store is: %w", err)
	}
	return out, nil
}
