package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"tocsin/internal/durable"
)

// Files keeps snapshots as one file for each shard in a folder: "tocsin-snapshot-1\n", the sequence, the state and a CRC-32C
// over all before it. A save replaces the file as a whole.
type Files struct{ Dir string }

const snapshotMagic = "tocsin-snapshot-1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (f Files) path(shard string) string { return filepath.Join(f.Dir, shard+".snapshot") }

// Save is durable on return.
func (f Files) Save(_ context.Context, shard string, seq uint64, state []byte) error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	b := make([]byte, 0, len(snapshotMagic)+12+len(state))
	b = append(b, snapshotMagic...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, state...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if err := durable.Replace(f.path(shard), b, 0o600); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// Load reads the file back; a damaged one is an error.
func (f Files) Load(_ context.Context, shard string) (seq uint64, state []byte, ok bool, err error) {
	b, err := os.ReadFile(f.path(shard))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, false, nil
	}
	if err != nil {
		return 0, nil, false, fmt.Errorf("load snapshot: %w", err)
	}
	n := len(b) - 4
	if n < len(snapshotMagic)+8 || string(b[:len(snapshotMagic)]) != snapshotMagic || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return 0, nil, false, fmt.Errorf("load snapshot: %s is damaged", f.path(shard))
	}
	return binary.BigEndian.Uint64(b[len(snapshotMagic):]), b[len(snapshotMagic)+8 : n], true, nil
}

// cut is the detector's state between two groups. The detector must not be ahead of what is done, for a plan under way is redone with its
// detections: so the state is taken at once and kept when the plans before it are done.
type cut struct {
	seq   uint64 // of the bus, that the state covers
	state []byte
}

// cut takes the detector's state; nil when nothing has come since the last one was kept. No group may be open.
func (w *Worker) cut() (*cut, error) {
	// Not the position: after a start the detector may still be behind it, replaying.
	c := &cut{seq: w.seen}
	if c.seq <= w.covered {
		clear(w.tried) // all is done: their letters are gone, or ask no more
		return nil, nil
	}
	if w.o.Detect != nil {
		var err error
		if c.state, err = w.o.Detect.Snapshot(); err != nil {
			return nil, fmt.Errorf("snapshot of the detector: %w", err)
		}
	}
	w.triedOnce, w.tried = w.tried, map[string]bool{}
	return c, nil
}

// keep saves the state and lets the bus forget what it covers. The plans before it are done.
func (w *Worker) keep(ctx context.Context, c *cut) result {
	r := result{cut: c}
	if w.o.Detect != nil {
		if r.err = w.step("snapshot before"); r.err != nil {
			return r
		}
		if err := w.o.Snapshots.Save(ctx, w.o.Shard, c.seq, c.state); err != nil {
			// The bus keeps more for longer; nothing is lost.
			w.log.Warn("the detector's snapshot cannot be saved", "error", err)
			return r
		}
		if r.err = w.step("snapshot after"); r.err != nil {
			return r
		}
	}
	r.kept = true
	if r.err = w.step("ack before"); r.err != nil {
		return r
	}
	w.ack(ctx, c.seq)
	r.err = w.step("ack after")
	return r
}

// settled notes what became of a cut: all before it is done.
func (w *Worker) settled(r result) {
	w.triedOnce = nil // their letters are gone, or ask no more
	if r.kept {
		w.covered = r.cut.seq
	}
}
