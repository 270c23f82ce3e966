package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tocsin/internal/collector/spool"
)

// Options say where the archive lives and how much it may keep.
type Options struct {
	Dir      string
	MaxBytes int64         // bytes on disk; default 4 GiB
	MaxAge   time.Duration // of a line; default 30 days
	// SegmentBytes is the size of one file. What is deleted is deleted by file. Default 8 MiB.
	SegmentBytes int64
	// Plain is how many of the newest finished files are not packed: lines that detections ask for are mostly there. Default 4; below 0: none are packed.
	Plain int
	// Old: nothing is written that programs from before packed files cannot read, until Modern is called.
	Old      bool
	Now      func() time.Time
	Logger   *slog.Logger
	OpenFile func(name string) (spool.File, error) // for tests; see spool.Options
}

// Archive is the store of raw lines. Append may be called by any number of goroutines.
type Archive struct {
	o     Options
	log   *spool.Log
	first uint64 // number of the first line of this run
	prev  uint64 // one after the last line before this run

	full atomic.Bool // an append is waiting for room
	hold atomic.Bool // appends wait: what room there is, is for something else
	mu   sync.Mutex  // guards done, lost and the deletion of segments
	done spool.Pos   // everything before it has been worked on
	lost uint64
	old  atomic.Bool // see Options.Old

	times  times
	packer *spool.Packer // the keeper's own; nil until the first file is packed

	wake    chan struct{} // there may be files to enter in the index, or to pack
	closing chan struct{}
	keeping sync.WaitGroup
	close   sync.Once
}

// Open opens the archive and begins a run: lines appended from now on have numbers from First on.
func Open(o Options) (*Archive, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 4 << 30
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 30 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Plain == 0 {
		o.Plain = 4
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = min(8<<20, max(64<<10, o.MaxBytes/16))
	}
	l, err := spool.Open(spool.Options{Dir: o.Dir, SegmentBytes: o.SegmentBytes, OpenFile: o.OpenFile})
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	a := &Archive{o: o, log: l, prev: l.Next(), first: max(l.Next(), uint64(max(o.Now().Unix(), 0))<<20), wake: make(chan struct{}, 1), closing: make(chan struct{})}
	a.old.Store(o.Old)
	if err := a.openTimes(); err != nil {
		return nil, errors.Join(fmt.Errorf("archive: index of times: %w", err), l.Close())
	}
	a.keeping.Go(a.keep)
	return a, nil
}

var errHold = errors.New("no room on the disk")

// Hold makes appends wait, or ends that.
func (a *Archive) Hold(yes bool) { a.hold.Store(yes) }

// Modern ends what Options.Old said.
func (a *Archive) Modern() {
	a.old.Store(false)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// First is the number of the first line of this run. Lines before it were there when the program started.
func (a *Archive) First() uint64 { return a.first }

// Before is one more than the number of the last line that was there when the program started.
func (a *Archive) Before() uint64 { return a.prev }

// Append keeps the batch's lines, in order. When it returns nil they are received: a killed process does not lose them. While the disk is
// full it waits, and gives an error only when ctx ends or the archive is closed.
func (a *Archive) Append(ctx context.Context, b *Batch) error {
	for {
		err := a.append(b)
		if err == nil {
			a.full.Store(false)
			return nil
		}
		if errors.Is(err, spool.ErrClosed) {
			return err
		}
		if !a.full.Swap(true) {
			a.o.Logger.Error("cannot keep raw lines on disk; listeners wait until there is room", "error", err)
		}
		if !errors.Is(err, errHold) && a.dropOldest() {
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("archive: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (a *Archive) append(b *Batch) error {
	if a.hold.Load() {
		return errHold
	}
	if next := a.log.Next(); next < a.first {
		// The first line of the run begins a segment, so that its number can be higher than the last one's plus one.
		if err := a.begin(); err != nil {
			return err
		}
	}
	_, err := a.log.AppendFrames(b.frames, b.n)
	return err
}

func (a *Archive) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.log.Next() >= a.first {
		return nil
	}
	return a.log.Rotate(a.first)
}

// dropOldest deletes the oldest file whose lines have all been worked on.
func (a *Archive) dropOldest() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	segs := a.log.Segments()
	if len(segs) < 2 || segs[0].Base >= a.done.Segment {
		return false
	}
	return a.log.Remove(segs[0].Base) == nil
}

// Done says that everything before pos has been worked on and may be deleted when room is needed.
func (a *Archive) Done(pos spool.Pos) {
	a.mu.Lock()
	defer a.mu.Unlock()
	more := pos.Segment != a.done.Segment
	a.done = pos
	if more {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// Prune deletes files beyond the bounds of size and age. It gives how many lines among what it deleted had not been worked on.
func (a *Archive) Prune() (lost uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	segs := a.log.Segments()
	var size int64
	for i := range segs {
		size += segs[i].Disk()
	}
	oldest := a.o.Now().Add(-a.o.MaxAge)
	for i := 0; i+1 < len(segs); i++ {
		s := &segs[i]
		unread := s.Base >= a.done.Segment
		if size <= a.o.MaxBytes && (s.ModTime.After(oldest) || unread) {
			break
		}
		gone := uint64(0)
		if unread {
			gone = a.countTo(s, 1<<62)
			if s.Base == a.done.Segment {
				gone -= min(gone, a.countTo(s, a.done.Offset))
			}
		}
		if err := a.log.Remove(s.Base); err != nil {
			a.o.Logger.Error("cannot delete old raw lines", "error", err)
			break
		}
		size -= s.Disk()
		lost += gone
		a.lost += gone
	}
	return lost
}

// countTo counts the lines of a segment up to an offset by reading it: numbers alone do not say it, as runs leave numbers out.
func (a *Archive) countTo(s *spool.Segment, offset int64) (n uint64) {
	r := a.log.Reader(spool.Pos{Segment: s.Base})
	defer r.Close()
	for {
		_, _, err := r.Next()
		if p := r.Pos(); err != nil || p.Segment != s.Base || p.Offset > offset {
			return n
		}
		n++
	}
}

// MakeRoom deletes the oldest file whose lines have all been worked on, for a disk that is full.
func (a *Archive) MakeRoom() bool { return a.dropOldest() }

// Full says whether lines are waiting for room on the disk.
func (a *Archive) Full() bool { return a.full.Load() }

// Lost is how many lines of this run's time were deleted before they were worked on.
func (a *Archive) Lost() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lost
}

// Size is the number of bytes on disk.
func (a *Archive) Size() int64 { return a.log.Size() }

// Behind is about how many bytes lie between pos and the end.
func (a *Archive) Behind(pos spool.Pos) (n int64) {
	for _, s := range a.log.Segments() {
		switch {
		case s.Base > pos.Segment:
			n += s.Size
		case s.Base == pos.Segment:
			n += max(0, s.Size-pos.Offset)
		}
	}
	return n
}

// End is the place behind the newest line.
func (a *Archive) End() spool.Pos { return a.log.End() }

// Start is the place of the oldest line.
func (a *Archive) Start() spool.Pos { return a.log.Start() }

// CutBytes is the size of the torn end that Open cut off.
func (a *Archive) CutBytes() int64 { return a.log.CutBytes() }

// Grown gives a channel that is closed by the next append.
func (a *Archive) Grown() <-chan struct{} { return a.log.Grown() }

// Sync makes what was appended survive a power cut.
func (a *Archive) Sync() error { return a.log.Sync() }

// Close closes the archive; a waiting Append gives an error.
func (a *Archive) Close() error {
	a.close.Do(func() { close(a.closing) })
	a.keeping.Wait()
	return errors.Join(a.times.close(), a.log.Close())
}

// Reader gives the lines from pos on. It belongs to one goroutine.
func (a *Archive) Reader(pos spool.Pos) *Reader { return &Reader{r: a.log.Reader(pos)} }

// Reader reads lines in the order of their numbers.
type Reader struct{ r *spool.Reader }

// View reads the archive in dir from its oldest line, while another process may be writing it. It changes nothing.
func View(dir string) (*Reader, error) {
	r, err := spool.View(dir)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return &Reader{r: r}, nil
}

// Next reads the next line into l. l.Text is valid until the next call. At the end of the archive, for now, it gives io.EOF. A record that
// is no line is passed over.
func (r *Reader) Next(l *Line) error {
	for {
		b, n, err := r.r.Next()
		if err != nil {
			return err
		}
		if l.decode(b) == nil {
			l.Number = n
			return nil
		}
	}
}

// Pos is the place after the last line read.
func (r *Reader) Pos() spool.Pos { return r.r.Pos() }

// Lost is how many lines were in damaged parts of files.
func (r *Reader) Lost() uint64 { return r.r.Lost() }

// Close frees the reader's file.
func (r *Reader) Close() { r.r.Close() }

// ErrGone means that the archive does not hold the line, or not any more.
var ErrGone = errors.New("the line is not in the archive (any more)")

// Find gives the line of that number; its text is a copy.
func (a *Archive) Find(number uint64) (Line, error) {
	found, err := a.FindAll([]uint64{number})
	if err != nil {
		return Line{}, err
	}
	if len(found) == 0 {
		return Line{}, ErrGone
	}
	return found[0], nil
}

// FindAll gives those of the lines that the archive holds, in ascending order; their texts are copies. Each file is read at most once.
func (a *Archive) FindAll(numbers []uint64) ([]Line, error) {
	numbers = slices.Compact(slices.Sorted(slices.Values(numbers)))
	var found []Line
	segs := a.log.Segments()
	for i := 0; i < len(segs) && len(numbers) > 0; i++ {
		if i+1 < len(segs) && segs[i+1].Base <= numbers[0] {
			continue
		}
		r := a.Reader(spool.Pos{Segment: segs[i].Base})
		for len(numbers) > 0 && (i+1 == len(segs) || numbers[0] < segs[i+1].Base) {
			var l Line
			err := r.Next(&l)
			if err != nil && !errors.Is(err, io.EOF) {
				r.Close()
				return nil, fmt.Errorf("archive: %w", err)
			}
			for len(numbers) > 0 && (err != nil || numbers[0] < l.Number) && (i+1 == len(segs) || numbers[0] < segs[i+1].Base) {
				numbers = numbers[1:] // not there (any more)
			}
			if err == nil && len(numbers) > 0 && numbers[0] == l.Number {
				l.Text = slices.Clone(l.Text)
				found = append(found, l)
				numbers = numbers[1:]
			}
		}
		r.Close()
	}
	return found, nil
}
