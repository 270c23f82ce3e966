package eventstore

import (
	"context"
	"fmt"
	"strconv"

	"github.com/ClickHouse/ch-go/proto"
)

// A mark is a number that means nothing but that the store has been there: the hub makes one up, has the store keep it, and notes it in its
// records. A store that does not know the newest mark of the records is an older copy of itself, or another one.

// Mark keeps a mark, durably, for 400 days.
func (s *Store) Mark(ctx context.Context, mark int64) error {
	if err := s.c.exec(ctx, "INSERT INTO "+s.db+".marks (mark, at) SELECT {mark:Int64}, now()", args{"param_mark": strconv.FormatInt(mark, 10)}); err != nil {
		return fmt.Errorf("mark the event store: %w", err)
	}
	return nil
}

// Marked says whether the store was given a mark.
func (s *Store) Marked(ctx context.Context, mark int64) (bool, error) {
	var n proto.ColUInt64
	there := false
	err := s.c.query(ctx, "SELECT count() FROM "+s.db+".marks WHERE mark = {mark:Int64}", args{"param_mark": strconv.FormatInt(mark, 10)}, proto.Results{{Data: &n}}, func() { there = false }, func(rows int) error {
		there = rows > 0 && n[0] > 0
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for the event store's mark: %w", err)
	}
	return there, nil
}
