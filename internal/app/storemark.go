package app

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"time"

	"tocsin/internal/durable"
)

// An event store that alone is put back from an older copy, while records and bus are those of today, contradicts neither: nothing would be
// missed, and what was stored since would be gone. So the store is marked, at every start before anything is stored and every minute in
// which something was, and the newest mark is noted in the records. A store without it is an older copy, or another one. Marks are chosen by
// chance: a copy of another past does not have them either.

// storeMark is the counter of the records that holds the newest mark; 0 or none: the store was never marked.
const storeMark = "store.mark"

// markTime bounds how long marking waits for an engine that is away.
const markTime = 30 * time.Second

func (h *hub) markStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, markTime)
	defer cancel()
	h.marked = h.store.Stats().Rows
	mark := rand.Int64N(math.MaxInt64) + 1
	// The store first: a mark that only the store knows does no harm.
	if err := h.store.Mark(ctx, mark); err != nil {
		return err
	}
	return h.setCounters(ctx, map[string]int64{storeMark: mark})
}

// markStored marks the store again when something was stored since.
func (h *hub) markStored(ctx context.Context) error {
	if h.store.Stats().Rows == h.marked {
		return nil
	}
	return h.markStore(ctx)
}

func (h *hub) storeIsOlder(ctx context.Context) (bool, error) {
	mark, err := h.counter(ctx, storeMark)
	if err != nil || mark == 0 {
		return false, err
	}
	there, err := h.store.Marked(ctx, mark)
	return !there, err
}

// skipBus has the worker begin at the bus's end, with rules that remember nothing: all that the store lacks comes again from there, in the
// order of each stream, and is counted by the rules anew. The ledger goes on where it was. Only then the restore is noted: until
// the store has its mark again, whatever interrupts this has it done again.
func (h *hub) skipBus(ctx context.Context) error {
	last, err := h.bus.LastSeq(ctx)
	if err != nil {
		return err
	}
	follower, err := h.bus.Consumer(ctx, workerFollower, "batch.*")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(h.path("snapshots")); err != nil {
		return err
	}
	learnt, err := h.withBaselines(nil)
	if err != nil {
		return err
	}
	learnt.Forgotten() // what took weeks to learn is not on the bus; the worker's baselines read it from the folder
	if err := durable.SyncDir(h.cfg.DataDir); err != nil {
		return err
	}
	if err := h.plans.Skip(ctx, shard, last); err != nil {
		return err
	}
	if err := follower.AckThrough(ctx, last); err != nil {
		return err
	}
	return h.setCounters(ctx, map[string]int64{restoredAt: time.Now().UnixNano(), restoring: 1})
}
