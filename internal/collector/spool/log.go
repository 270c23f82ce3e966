package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tocsin/internal/durable"
)

// File is what a log needs of a file; *os.File is one. Tests put a failing one in its place.
type File interface {
	io.Writer
	io.ReaderAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Options say where a log lives and how large its segments grow.
type Options struct {
	Dir          string
	SegmentBytes int64 // a segment that has reached this size is followed by a new one; default 8 MiB
	First        uint64
	// OpenFile opens a segment for appending, or creates it; nil: the operating system's. Reading always goes to the operating system.
	OpenFile func(name string) (File, error)
}

// Pos is a place in a log: the segment, by the number of its first record, and the byte offset of a frame in it. The zero Pos is the
// beginning, whichever segment that is.
type Pos struct {
	Segment uint64 `json:"segment,string"`
	Offset  int64  `json:"offset"`
}

// Before says whether p comes before q.
func (p Pos) Before(q Pos) bool {
	return p.Segment < q.Segment || p.Segment == q.Segment && p.Offset < q.Offset
}

// Segment describes one file of a log.
type Segment struct {
	Base    uint64 // number of its first record
	Size    int64  // bytes, header included; of one that was packed before the log was opened, those on disk
	ModTime time.Time
	Packed  bool
	packed  int64 // bytes on disk, when packed since the log was opened
}

// Disk is how many bytes the segment takes on disk.
func (s *Segment) Disk() int64 {
	if s.packed > 0 {
		return s.packed
	}
	return s.Size
}

func sortSegments(s []Segment) {
	slices.SortFunc(s, func(a, b Segment) int { return cmp.Compare(a.Base, b.Base) })
}

// Log is an append-only list of records. Its methods may be called by several goroutines.
type Log struct {
	dir      string
	max      int64
	openFile func(string) (File, error)

	mu       sync.Mutex // held during a write to the active segment
	segments []Segment  // ascending; the last is the active one, if file is not nil
	file     File
	next     uint64 // number of the next record
	cut      int64
	broken   bool // the active segment has a torn end that could not be taken back: the next append begins another
	grown    chan struct{}
}

// ErrClosed is the answer of a closed log.
var ErrClosed = errors.New("log is closed")

// Open opens the log in o.Dir, making the folder when there is none. A torn end of the newest segment is cut off.
func Open(o Options) (*Log, error) {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 8 << 20
	}
	if o.OpenFile == nil {
		o.OpenFile = func(name string) (File, error) {
			return os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	l := &Log{dir: o.Dir, max: o.SegmentBytes, openFile: o.OpenFile, next: o.First, grown: make(chan struct{})}
	segments, temporary, err := segmentsIn(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	for _, name := range temporary {
		if err := os.Remove(name); err != nil {
			return nil, fmt.Errorf("remove what a crash left: %w", err)
		}
	}
	for _, s := range segments {
		if n := len(l.segments); n > 0 && l.segments[n-1].Base == s.Base { // a crash came between packing and removing the original
			if err := os.Remove(segmentName(o.Dir, s.Base)); err != nil {
				return nil, fmt.Errorf("remove what is packed: %w", err)
			}
			if s.Packed {
				l.segments[n-1] = s
			}
			continue
		}
		l.segments = append(l.segments, s)
	}
	for len(l.segments) > 0 {
		if done, err := l.repairNewest(); err != nil {
			return nil, err
		} else if done {
			break
		}
	}
	return l, nil
}

// repairNewest cuts the newest segment after its last whole frame and opens it for appending. A segment without a readable header is
// removed and the one before it becomes the newest: done is false.
func (l *Log) repairNewest() (done bool, err error) {
	s := &l.segments[len(l.segments)-1]
	if ended, end, err := l.finished(s.Base); err != nil {
		return false, fmt.Errorf("read segment %016x: %w", s.Base, err)
	} else if ended { // the next append begins another
		l.next = max(l.next, end)
		return true, nil
	}
	name := l.path(s.Base)
	good, records, err := scan(name, s.Base, 1<<62)
	if err != nil {
		return false, fmt.Errorf("read segment %s: %w", filepath.Base(name), err)
	}
	if good == 0 {
		l.cut += s.Size
		l.next = max(l.next, s.Base)
		if err := os.Remove(name); err != nil {
			return false, fmt.Errorf("remove empty segment: %w", err)
		}
		l.segments = l.segments[:len(l.segments)-1]
		return false, nil
	}
	f, err := l.openFile(name)
	if err != nil {
		return false, fmt.Errorf("open segment: %w", err)
	}
	if good < s.Size {
		l.cut += s.Size - good
		if err := f.Truncate(good); err != nil {
			f.Close()
			return false, fmt.Errorf("cut torn end of segment: %w", err)
		}
	}
	s.Size = good
	l.file = f
	l.next = max(l.next, s.Base+records)
	if l.next > s.Base+records { // a newer segment was there, but empty: its number must not be given again
		l.broken = true
	}
	return true, nil
}

// scan finds the end of the last whole frame before limit, and the number of frames. good is 0 when the header is not that of segment base.
func scan(name string, base uint64, limit int64) (good int64, records uint64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r := chunkReader{f: f, limit: limit}
	head, err := r.peek(headerSize)
	if err != nil {
		return 0, 0, err
	}
	if b, ok := headerAt(head); !ok || b != base {
		return 0, 0, nil
	}
	r.skip(headerSize)
	good = headerSize
	for {
		_, n, err := r.frame()
		if err != nil {
			return 0, 0, err
		}
		if n == 0 {
			return good, records, nil
		}
		good += int64(n)
		records++
	}
}

// finished says whether a segment is one that is never appended to, and the number after its last record.
func (l *Log) finished(base uint64) (yes bool, end uint64, err error) {
	f, err := openSegment(l.dir, base)
	if err != nil {
		return false, 0, err
	}
	defer f.Close()
	switch {
	case f.thin:
		return true, f.end, nil
	case !f.packed:
		return false, 0, nil
	}
	end = base
	r := chunkReader{f: f.data, off: f.head, limit: f.size}
	for {
		_, n, err := r.frame()
		if err != nil || n == 0 {
			return true, end, err
		}
		end++
	}
}

func (l *Log) path(base uint64) string { return segmentName(l.dir, base) }

// index finds a segment. The caller holds mu.
func (l *Log) index(base uint64) (int, bool) {
	return slices.BinarySearchFunc(l.segments, base, func(s Segment, b uint64) int { return cmp.Compare(s.Base, b) })
}

// Append writes the payloads as records and gives the number of the first. All of them are in the log, or none.
func (l *Log) Append(payloads ...[]byte) (first uint64, err error) {
	var b []byte
	for _, p := range payloads {
		if len(p) > MaxRecord {
			return 0, fmt.Errorf("record of %d bytes: at most %d", len(p), MaxRecord)
		}
		b = AppendFrame(b, p)
	}
	return l.AppendFrames(b, len(payloads))
}

// AppendFrames writes n frames made with AppendFrame or SealFrame in one go and gives the number of the first record. All of them are in
// the log, or none. The frames stay in one segment.
func (l *Log) AppendFrames(frames []byte, n int) (first uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown == nil {
		return 0, ErrClosed
	}
	if n == 0 {
		return l.next, nil
	}
	if l.file == nil || l.broken || l.segments[len(l.segments)-1].Size >= l.max {
		if err := l.rotate(l.next); err != nil {
			return 0, err
		}
	}
	s := &l.segments[len(l.segments)-1]
	wrote, err := l.file.Write(frames)
	if err != nil {
		if wrote > 0 {
			if terr := l.file.Truncate(s.Size); terr != nil {
				l.broken = true
			}
		}
		return 0, fmt.Errorf("write segment: %w", err)
	}
	first = l.next
	s.Size += int64(len(frames))
	s.ModTime = time.Now()
	l.next += uint64(n)
	close(l.grown)
	l.grown = make(chan struct{})
	return first, nil
}

// rotate begins a segment whose first record is base. The caller holds mu.
func (l *Log) rotate(base uint64) error {
	name := l.path(base)
	if l.file != nil {
		// The finished segment is made durable here, so that Sync need only look at the active one.
		if err := l.file.Sync(); err != nil {
			return fmt.Errorf("sync finished segment: %w", err)
		}
	}
	if n := len(l.segments); n > 0 && l.segments[n-1].Base == base {
		// An empty segment (only a header, maybe torn) stands where the new one goes.
		if l.file != nil {
			l.file.Close()
			l.file = nil
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace empty segment: %w", err)
		}
		l.segments = l.segments[:n-1]
	}
	f, err := l.openFile(name)
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	if _, err := f.Write(appendHeader(nil, base)); err != nil {
		f.Close()
		os.Remove(name)
		return fmt.Errorf("begin segment: %w", err)
	}
	if err := durable.SyncDir(l.dir); err != nil {
		f.Close()
		os.Remove(name)
		return fmt.Errorf("begin segment: %w", err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.broken = f, false
	l.segments = append(l.segments, Segment{Base: base, Size: headerSize, ModTime: time.Now()})
	l.next = base
	return nil
}

// Rotate begins a new segment whose first record has the number next, or one more than the last when next is lower.
func (l *Log) Rotate(next uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown == nil {
		return ErrClosed
	}
	return l.rotate(max(next, l.next))
}

// Sync makes everything appended so far survive a power cut.
func (l *Log) Sync() error {
	l.mu.Lock()
	f := l.file
	l.mu.Unlock()
	if f == nil {
		return nil
	}
	// Without the lock: appends go on while the disk works. A file that was finished and closed meanwhile has been synced by rotate.
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("sync segment: %w", err)
	}
	return nil
}

// Truncate removes everything from pos on. It is for records that a crash left after the last commit.
func (l *Log) Truncate(pos Pos) (removed int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown == nil {
		return 0, ErrClosed
	}
	for len(l.segments) > 0 {
		s := &l.segments[len(l.segments)-1]
		if ended, _, err := l.finished(s.Base); err != nil {
			return removed, fmt.Errorf("read segment: %w", err)
		} else if ended && s.Base <= pos.Segment { // nothing was appended after the place
			return removed, nil
		}
		if s.Base < pos.Segment || s.Base == pos.Segment && s.Size <= pos.Offset {
			return removed, nil
		}
		if s.Base == pos.Segment && pos.Offset >= headerSize {
			good, records, err := scan(l.path(s.Base), s.Base, pos.Offset)
			if err != nil {
				return removed, fmt.Errorf("read segment: %w", err)
			}
			good = max(good, headerSize)
			if err := l.file.Truncate(good); err != nil {
				return removed, fmt.Errorf("cut segment: %w", err)
			}
			removed += s.Size - good
			s.Size = good
			l.next = s.Base + records
			return removed, nil
		}
		if l.file != nil {
			l.file.Close()
			l.file = nil
		}
		if err := l.unlink(s.Base); err != nil {
			return removed, fmt.Errorf("remove segment: %w", err)
		}
		removed += s.Size - headerSize
		l.next = s.Base
		l.segments = l.segments[:len(l.segments)-1]
		if n := len(l.segments); n > 0 {
			base := l.segments[n-1].Base
			ended, _, err := l.finished(base)
			if err != nil {
				return removed, fmt.Errorf("read segment: %w", err)
			}
			if ended {
				continue
			}
			f, err := l.openFile(l.path(base))
			if err != nil {
				return removed, fmt.Errorf("open segment: %w", err)
			}
			l.file = f
		}
	}
	return removed, nil
}

// unlink deletes a segment's file, however it is kept.
func (l *Log) unlink(base uint64) error {
	for _, name := range []string{segmentName(l.dir, base), packedName(l.dir, base)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Remove deletes the segment that begins with record base. The active segment is kept.
func (l *Log) Remove(base uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, ok := l.index(base)
	if !ok || i == len(l.segments)-1 {
		return nil
	}
	if err := l.unlink(base); err != nil {
		return fmt.Errorf("remove segment: %w", err)
	}
	l.segments = slices.Delete(l.segments, i, i+1)
	return nil
}

// Segments lists the log's files, oldest first.
func (l *Log) Segments() []Segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.segments)
}

// Size is the number of bytes on disk.
func (l *Log) Size() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.segments {
		n += l.segments[i].Disk()
	}
	return n
}

// Next is the number that the next record will get.
func (l *Log) Next() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// End is the place where the next record will be written, unless a new segment begins with it.
func (l *Log) End() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.segments); n > 0 {
		return Pos{l.segments[n-1].Base, l.segments[n-1].Size}
	}
	return Pos{Segment: l.next}
}

// Start is the place of the oldest record.
func (l *Log) Start() Pos {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) > 0 {
		return Pos{l.segments[0].Base, headerSize}
	}
	return Pos{Segment: l.next}
}

// CutBytes is the size of the torn ends that Open cut off.
func (l *Log) CutBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// Grown gives a channel that is closed by the next append.
func (l *Log) Grown() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grown
}

// Close closes the active segment after a Sync. Readers must not be used afterwards.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grown == nil {
		return nil
	}
	close(l.grown)
	l.grown = nil
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}

// after gives the first segment whose base is at least base, and its size so far.
func (l *Log) after(base uint64) (Segment, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := l.index(base)
	if i == len(l.segments) {
		return Segment{}, false
	}
	return l.segments[i], true
}
