package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"tocsin/internal/durable"
)

// ErrActive means that a segment is still being written to.
var ErrActive = errors.New("the segment is still being written to")

// Thin writes a finished segment anew with only those of its records that keep wants; they keep their numbers. A segment with none left is
// removed. It gives how many records were let go. A crash leaves the segment as it was or thinned; doing it again changes nothing more.
//
// No Reader may stand in the segment, and no Pos in it be used afterwards but that of its beginning.
func (l *Log) Thin(base uint64, keep func(payload []byte) bool) (gone int, err error) {
	l.mu.Lock()
	i, ok := l.index(base)
	active := ok && i == len(l.segments)-1
	var end uint64
	if ok && !active {
		end = l.segments[i+1].Base
	}
	l.mu.Unlock()
	if !ok {
		return 0, nil
	}
	if active {
		return 0, fmt.Errorf("thin segment: %w", ErrActive)
	}
	b, kept, gone, err := l.thinned(base, end, keep)
	if err != nil {
		return 0, fmt.Errorf("thin segment %016x: %w", base, err)
	}
	switch {
	case gone == 0:
		return 0, nil
	case kept == 0:
		return gone, l.Remove(base)
	}
	size := int64(len(b))
	name := l.path(base)
	if err := l.writeNew(name+tempSuffix, func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
		return 0, fmt.Errorf("thin segment %016x: %w", base, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok = l.index(base); !ok {
		return gone, os.Remove(name + tempSuffix)
	}
	if err := os.Rename(name+tempSuffix, name); err != nil {
		return 0, fmt.Errorf("thin segment %016x: %w", base, err)
	}
	l.segments[i].Size = size
	return gone, durable.SyncDir(filepath.Dir(name))
}

// thinned is what a segment becomes. What is damaged in it stays lost: the numbers say how much.
func (l *Log) thinned(base, end uint64, keep func([]byte) bool) (b []byte, kept, gone int, err error) {
	r := Reader{log: l, pos: Pos{Segment: base}}
	if ok, err := r.open(); err != nil || !ok {
		return nil, 0, 0, err
	}
	defer r.Close()
	if r.pos.Segment != base {
		return nil, 0, 0, fs.ErrNotExist
	}
	if r.seg.packed {
		return nil, 0, 0, errors.New("it is packed")
	}
	if r.seg.thin {
		end = r.seg.end
	}
	b = append(b, thinMagic[:]...)
	b = binary.LittleEndian.AppendUint64(b, base)
	b = binary.LittleEndian.AppendUint64(b, end)
	for {
		payload, num, n, err := r.frame()
		if err != nil {
			return nil, 0, 0, err
		}
		if n == 0 {
			return b, kept, gone, nil
		}
		if !keep(payload) {
			gone++
			continue
		}
		kept++
		at := 0
		b, at = BeginFrame(b)
		b = binary.LittleEndian.AppendUint64(b, num)
		b = append(b, payload...)
		seal(b, at, thinSeed)
	}
}

// Records gives f the payloads of one segment in order, until f says no more. Damage ends it.
func (l *Log) Records(base uint64, f func(payload []byte) (more bool)) error {
	r := Reader{log: l, pos: Pos{Segment: base}}
	defer r.Close()
	if ok, err := r.open(); err != nil || !ok || r.pos.Segment != base {
		return err
	}
	for {
		payload, _, n, err := r.frame()
		if err != nil || n == 0 || !f(payload) {
			return err
		}
	}
}

// writeNew makes a file durable under a temporary name.
func (l *Log) writeNew(name string, write func(io.Writer) error) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := l.openFile(name)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(name)
	}
	return err
}
