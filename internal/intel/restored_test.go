package intel

import (
	"context"
	"testing"

	"github.com/uptrace/bun"
)

// After a restore the same set is signed anew, above every version that the lost hub may have given out, and then rises as before.
func TestVersionFloor(t *testing.T) {
	s, _, pub := open(t)
	s.must(t, "203.0.113.9\n", ImportOptions{Source: "open", TLP: "green", Push: true})
	publish := func(want uint64, entries int) {
		t.Helper()
		if err := s.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, set := content(t, s, pub); v != want || set.Len(0) != entries {
			t.Errorf("version %d with %d entries, want %d with %d", v, set.Len(0), want, entries)
		}
	}
	publish(1, 1)
	err := s.db.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("INSERT INTO counters (name, value) VALUES (?, ?)", VersionFloor, 1_800_000_000).Exec(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(1_800_000_001, 1)
	publish(1_800_000_001, 1)
	s.must(t, "203.0.113.10\n", ImportOptions{Source: "open", TLP: "green", Push: true})
	publish(1_800_000_002, 2)
}
