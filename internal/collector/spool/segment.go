package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// segmentFile is an open segment, whichever way it is kept: as it was written, thinned, or packed. It belongs to one reader.
type segmentFile struct {
	file   *os.File
	data   io.ReaderAt // frames at the offsets they had when they were written
	head   int64       // where the first frame begins
	seed   uint32
	thin   bool
	packed bool
	end    uint64 // of a thinned one: one more than the number of the last record it had
	size   int64  // of a finished one: where its last frame ends
}

// finished says whether nothing is appended any more, as the file itself tells.
func (s *segmentFile) finished() bool { return s.thin || s.packed }

// Close frees the file.
func (s *segmentFile) Close() error { return s.file.Close() }

const (
	suffix       = ".seg"
	packedSuffix = ".seg.zst"
	tempSuffix   = ".new" // a segment that is being written anew; a crash leaves it, Open removes it
)

// parseName reads the name of a segment's file.
func parseName(name string) (base uint64, packed, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok {
		hex, ok = strings.CutSuffix(name, packedSuffix)
		packed = ok
	}
	if !ok || len(hex) != 16 {
		return 0, false, false
	}
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, packed, err == nil
}

func segmentName(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", base, suffix))
}

func packedName(dir string, base uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", base, packedSuffix))
}

// openSegment opens a segment for reading. The error is fs.ErrNotExist when it is gone.
func openSegment(dir string, base uint64) (*segmentFile, error) {
	f, err := os.Open(segmentName(dir, base))
	if errors.Is(err, fs.ErrNotExist) {
		return openPacked(packedName(dir, base))
	}
	if err != nil {
		return nil, err
	}
	s := &segmentFile{file: f, data: f, head: headerSize}
	var head [thinHeader]byte
	if n, err := f.ReadAt(head[:], 0); err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, err
	} else if n == thinHeader && [8]byte(head[:8]) == thinMagic {
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		s.head, s.seed, s.thin, s.end, s.size = thinHeader, thinSeed, true, binary.LittleEndian.Uint64(head[16:]), st.Size()
	}
	return s, nil
}

// segmentsIn lists a log's files in a folder. temporary are names that a crash has left.
func segmentsIn(dir string) (segments []Segment, temporary []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tempSuffix) {
			temporary = append(temporary, filepath.Join(dir, e.Name()))
			continue
		}
		base, packed, ok := parseName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		segments = append(segments, Segment{Base: base, Size: info.Size(), ModTime: info.ModTime(), Packed: packed})
	}
	sortSegments(segments)
	return segments, temporary, nil
}
