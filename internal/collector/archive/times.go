package archive

import (
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tocsin/internal/collector/spool"
)

// times is the index of when the lines of each finished file were received, so that a question about an hour reads that hour's files. It is a
// journal in the folder "times" of the archive: for each file 24 bytes, little-endian: number of its first line, receive time of its
// earliest and of its latest line (UTC nanoseconds). It is made from the files and made again when it is missing, old or damaged; a file that
// it does not know yet is read.
type times struct {
	mu      sync.Mutex // guards what follows
	spans   map[uint64]span
	journal *spool.Journal
}

type span struct{ first, last int64 }

const timesEntry = 24

// openTimes reads the index, but for the newest file: that one may grow.
func (a *Archive) openTimes() error {
	a.times.spans = map[uint64]span{}
	j, err := spool.OpenJournal(spool.Options{Dir: filepath.Join(a.o.Dir, "times"), OpenFile: a.o.OpenFile})
	if err != nil {
		return err
	}
	a.times.journal = j
	segs := a.log.Segments()
	for b := j.Last(); len(b) >= timesEntry; b = b[timesEntry:] {
		base := binary.LittleEndian.Uint64(b)
		if slices.ContainsFunc(segs[:max(len(segs)-1, 0)], func(s spool.Segment) bool { return s.Base == base }) {
			a.times.spans[base] = span{int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:]))}
		}
	}
	return nil
}

// toIndex is the oldest finished file that the index does not know, of those whose number is above after.
func (a *Archive) toIndex(after uint64) (base uint64, ok bool) {
	segs := a.log.Segments()
	a.times.mu.Lock()
	defer a.times.mu.Unlock()
	for i := 0; i+1 < len(segs); i++ {
		if _, known := a.times.spans[segs[i].Base]; !known && segs[i].Base > after {
			return segs[i].Base, true
		}
	}
	return 0, false
}

// index reads one finished file and enters when its lines were received.
func (a *Archive) index(base uint64) error {
	s := span{math.MaxInt64, math.MinInt64} // of a file without lines: no time is within
	var l Line
	if err := a.log.Records(base, func(b []byte) bool {
		if l.decode(b) == nil {
			s.first, s.last = min(s.first, l.Created), max(s.last, l.Created)
		}
		return true
	}); err != nil {
		return err
	}
	segs := a.log.Segments()
	t := &a.times
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans[base] = s
	var b []byte
	known := make(map[uint64]span, len(segs))
	for i := range segs { // what was deleted goes
		base := segs[i].Base
		if s, ok := t.spans[base]; ok {
			known[base] = s
			b = binary.LittleEndian.AppendUint64(b, base)
			b = binary.LittleEndian.AppendUint64(b, uint64(s.first))
			b = binary.LittleEndian.AppendUint64(b, uint64(s.last))
		}
	}
	t.spans = known
	return t.journal.Save(b, false) // what a power cut takes is read again
}

func (t *times) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.journal.Sync(), t.journal.Close())
}

// Between gives a reader of the lines received between two times. It passes over files that hold none; of the others it gives every line.
func (a *Archive) Between(from, to time.Time) *Reader {
	first, last := from.UnixNano(), to.UnixNano()
	return &Reader{r: a.log.ReaderOf(a.log.Start(), func(base uint64) bool {
		a.times.mu.Lock()
		defer a.times.mu.Unlock()
		s, known := a.times.spans[base]
		return !known || s.first <= last && s.last >= first
	})}
}
