package app

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/intel"
	"tocsin/internal/member"
	"tocsin/internal/worker"
)

// A hub that is put back from copies finds parts that are not equally old: the records of one night, the event store of another, no bus.
// Nothing that has a receipt may be lost by that in silence, and nothing may be stored twice. What makes it whole again, before anything
// comes in:
//
//   - The bus speaks of another past: it is laid aside, and the worker begins at the start of a new one.
//   - Records say that something is stored which the event store does not have: the worker's heads are set back to what is there. An event
//     store that alone was put back is known by a mark that it lacks: storemark.go.
//   - What the gate accepted and the worker has not stored is put on the bus again from the blobs. Where a blob is missing too, the gate's
//     head is set back, and the collector, which keeps what left for 14 days, sends it again.
//   - Rows that the event store has and the records do not know are met when collectors send them again: until then the store counts before
//     it inserts (worker.Options.Doubt).
//   - A tree must never grow a second time at a size that was published: the ledger goes on in a new log, whose first entry is the newest
//     checkpoint of the one that was put back.
//   - Collectors hold newer versions of the indicator set than the records know: the next one stands above all.
//
// Whatever collectors do not have any more stays visible as the difference between accepted and stored, on each collector's page.

// Names of counters in the records.
const (
	restoredAt  = "restored.at"      // UTC ns of the newest restore that was noticed
	restoring   = "restored.pending" // 1 until everything above is done
	ledgerSince = "ledger.since"     // Unix seconds at which the ledger in force was begun; 0 for the first
)

// shard is the worker's.
const shard = "all"

func (h *hub) counter(ctx context.Context, name string) (int64, error) {
	var v int64
	err := h.office.DB.Read().NewRaw("SELECT coalesce(max(value), 0) FROM counters WHERE name = ?", name).Scan(ctx, &v)
	return v, err
}

func (h *hub) setCounters(ctx context.Context, values map[string]int64) error {
	return h.office.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for name, v := range values {
			if _, err := tx.NewRaw("INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, v).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
}

// noticeRestore compares bus and records, and lays a bus aside that is newer than they are.
func (h *hub) noticeRestore(ctx context.Context) error {
	position, err := h.plans.Position(ctx, shard)
	if err != nil {
		return err
	}
	followed, err := h.bus.Consumer(ctx, workerFollower, "batch.*")
	if err != nil {
		return err
	}
	last, err := h.bus.LastSeq(ctx)
	if err != nil {
		return err
	}
	var accepted int64
	if err := h.office.DB.Read().NewRaw("SELECT count(*) FROM (SELECT 1 FROM stream_heads WHERE reader = ? LIMIT 1)", member.GateReader).Scan(ctx, &accepted); err != nil {
		return err
	}
	switch {
	case followed.Acked() > position:
		if h.cfg.Bus.URL != "" {
			return fmt.Errorf("the records are an older copy than the bus at %s: remove its streams BATCHES and CURSORS, nothing in them is needed after a restore (docs/backup.md), and start again", h.cfg.Bus.URL)
		}
		aside := h.path("bus.before-" + time.Now().UTC().Format("20060102T150405Z"))
		h.log.WarnContext(ctx, "the records are an older copy than the bus, which is laid aside; remove it when all is well", "folder", aside, "records", position, "bus", followed.Acked())
		if err := errors.Join(h.bus.Close(), os.Rename(h.path("bus"), aside)); err != nil {
			return err
		}
		if h.bus, err = h.newBus(); err != nil {
			return err
		}
	case last < position, last == 0 && accepted > 0:
		h.log.WarnContext(ctx, "the bus is new and the records are not: a copy was put back", "records", position, "bus", last)
	default:
		return nil
	}
	now := time.Now()
	// Marked first: whatever interrupts what follows, it is done again from here.
	if err := h.setCounters(ctx, map[string]int64{restoredAt: now.UnixNano(), restoring: 1, ledgerSince: now.Unix(), intel.VersionFloor: now.Unix()}); err != nil {
		return err
	}
	if err := h.plans.Begin(ctx, shard); err != nil {
		return err
	}
	// Before a collector asks: it would refuse the set of the copy, which is older than its own.
	return h.office.Intel.Publish(ctx)
}

// makeWhole does what the comment above says of streams, when a restore was noticed, or the event store alone was put back. In any case it
// asks the worker again for the tries of dead letters that are not done: word of them may not have come onto the bus, or was on another one.
func (h *hub) makeWhole(ctx context.Context) error {
	pending, err := h.counter(ctx, restoring)
	if err != nil {
		return err
	}
	if pending == 0 {
		older, err := h.storeIsOlder(ctx)
		if err != nil {
			return err
		}
		if older {
			h.log.WarnContext(ctx, "the event store does not know its newest mark: it alone was put back from an older copy, or is another one")
			if err := h.skipBus(ctx); err != nil {
				return err
			}
			pending = 1
		}
	}
	if pending != 0 {
		if err := h.putTogether(ctx); err != nil {
			return err
		}
	}
	// Before anything is stored: a copy of the event store that is made while the hub is stopped lacks the mark of every later start.
	if err := h.markStore(ctx); err != nil {
		return err
	}
	if err := h.resumeTries(ctx); err != nil {
		h.log.WarnContext(ctx, "what was put aside is not tried again yet; `tocsin admin dead-letters retry` asks anew", "err", err)
	}
	return nil
}

func (h *hub) putTogether(ctx context.Context) error {
	heads, err := h.plans.Heads(ctx)
	if err != nil {
		return err
	}
	// What is older than this cannot be told: the records of single batches are kept for 35 days.
	newest, err := h.store.Newest(ctx, time.Now().Add(-keepBatches).UnixNano())
	if err != nil {
		return err
	}
	stored := map[string]uint64{}
	var back []worker.Head
	for _, w := range heads {
		stored[string(w.Stream[:])] = w.Seq
		if newest[w.Stream] >= w.Seq {
			continue
		}
		set, lost, err := h.setBack(ctx, w, newest[w.Stream])
		if err != nil {
			return err
		}
		if lost > 0 {
			back = append(back, set)
			stored[string(w.Stream[:])] = set.Seq
			h.log.WarnContext(ctx, "the event store is an older copy than the records: what it lacks is stored again", "collector", w.Collector, "lane", w.Lane, "from", set.Seq+1, "to", w.Seq, "events", lost)
		}
	}
	if err := h.plans.SetBack(ctx, back); err != nil {
		return err
	}
	gate, err := h.office.Members.Heads(ctx, member.GateReader, "")
	if err != nil {
		return err
	}
	again, asked := 0, 0
	for _, g := range gate {
		if at := stored[string(g.Stream[:])]; at < g.Seq {
			n, missing, err := h.publishAgain(ctx, g, at)
			if err != nil {
				return err
			}
			again, asked = again+n, asked+missing
		}
	}
	h.log.InfoContext(ctx, "what was accepted before the copy was made is complete again", "batches_from_blobs", again, "batches_asked_of_collectors", asked)
	return h.setCounters(ctx, map[string]int64{restoring: 0})
}

// setBack says where a stream's worker stood when the event store was copied, and how many events it stored since.
func (h *hub) setBack(ctx context.Context, w worker.Head, seq uint64) (worker.Head, int, error) {
	out, lost := w, 0
	out.Seq = seq
	for at := seq; at < w.Seq; {
		batches, err := h.office.Members.AcceptedAfter(ctx, w.Stream, at, 1000)
		if err != nil || len(batches) == 0 {
			return out, lost, err
		}
		for _, b := range batches {
			at = b.Seq
			if b.Seq > w.Seq {
				break
			}
			lost += b.Events
			out.Batches -= min(1, out.Batches)
			out.Events -= min(uint64(b.Events), out.Events)
		}
	}
	return out, lost, nil
}

// publishAgain puts a stream's batches after one on the bus again. Where a blob is not there, the gate's head is set back to before it.
func (h *hub) publishAgain(ctx context.Context, g member.Head, after uint64) (published, asked int, err error) {
	reg, err := h.office.Members.Registration(ctx, g.Collector)
	if err != nil {
		return 0, 0, err
	}
	for at := after; at < g.Seq; {
		batches, err := h.office.Members.AcceptedAfter(ctx, g.Stream, at, 1000)
		if err != nil {
			return published, asked, err
		}
		gap := len(batches) == 0
		for _, b := range batches {
			if gap = b.Seq != at+1; gap {
				break
			}
			_, err := h.blobs.Get(ctx, g.Tenant, b.Digest, "")
			if gap = errors.Is(err, blob.ErrMissing) || errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrDeleted); gap {
				break
			}
			if err != nil {
				return published, asked, err
			}
			n := bus.Notice{Digest: b.Digest, Tenant: g.Tenant, Collector: g.Collector, Lane: g.Lane, Epoch: g.Epoch, Seq: b.Seq, Received: b.ReceivedNS, Events: b.Events, Size: b.Size, Quarantined: reg.State == member.Quarantined}
			// Not the digest alone: the bus drops an id that it has heard within two minutes.
			if _, err := h.bus.Publish(ctx, bus.Subject(g.Tenant), "again/"+strconv.FormatInt(time.Now().UnixNano(), 10)+"/"+hex.EncodeToString(b.Digest[:]), n.Encode()); err != nil {
				return published, asked, err
			}
			published++
			at = b.Seq
		}
		if gap {
			h.log.WarnContext(ctx, "batches that were accepted are not in the blobs: the collector is asked for them again", "collector", g.Collector, "lane", g.Lane, "from", at+1, "to", g.Seq)
			return published, asked + int(g.Seq-at), h.office.Members.SetBack(ctx, g.Stream, at)
		}
	}
	return published, asked, nil
}

// ledgerNow says where the ledger in force is and what it is called. After a restore it is a new one, and the old folder stays beside it for
// proofs of what stood there; its newest checkpoint is the first entry of the new.
func (h *hub) ledgerNow(ctx context.Context, origin string) (dir, name string, predecessor []byte, err error) {
	since, err := h.counter(ctx, ledgerSince)
	if err != nil || since == 0 {
		return h.path("ledger"), origin, nil, err
	}
	at := time.Unix(since, 0).UTC().Format("20060102T150405Z")
	name = origin + "/" + at
	dir = h.path("ledger", "since-"+at)
	if predecessor, err = newestCheckpoint(h.path("ledger"), dir); err != nil {
		return "", "", nil, err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, name, predecessor, nil
	}
	h.log.WarnContext(ctx, "a new ledger begins: the one that was put back from a copy must not grow a second time at sizes that were published", "folder", dir)
	// The rows that say where an entry stands are those of the log in force.
	err = h.office.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("DELETE FROM ledger_entries").Exec(ctx)
		return err
	})
	return dir, name, predecessor, err
}

// newestCheckpoint reads the checkpoint of the log before the one in dir: of the newest folder since-… that is older, or of the first log.
func newestCheckpoint(root, dir string) ([]byte, error) {
	older, err := filepath.Glob(filepath.Join(root, "since-*"))
	if err != nil {
		return nil, err
	}
	from := root
	for _, o := range older { // in order of their names, which are times
		if o < dir {
			from = o
		}
	}
	b, err := os.ReadFile(filepath.Join(from, "log", "checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// keepBatches is how long the records of single batches are kept.
const keepBatches = 35 * 24 * time.Hour
