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
	tmp := f.path(shard) + ".new"
	w, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	_, err = w.Write(b)
	err = errors.Join(err, w.Sync(), w.Close())
	if err == nil {
		err = os.Rename(tmp, f.path(shard))
	}
	if err == nil {
		var d *os.File
		if d, err = os.Open(f.Dir); err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
	}
	if err != nil {
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
