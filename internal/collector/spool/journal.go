package spool

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Journal keeps one value that is replaced often: each Save appends it to a log, and what came before is removed now and then. After a
// crash the value is the last that was saved whole.
type Journal struct {
	log  *Log
	last []byte
}

// OpenJournal opens the journal in o.Dir.
func OpenJournal(o Options) (*Journal, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 1 << 20
	}
	l, err := Open(o)
	if err != nil {
		return nil, err
	}
	j := &Journal{log: l}
	// The value is the last record of the newest segment that has one.
	for _, s := range slices.Backward(l.Segments()) {
		r := l.Reader(Pos{Segment: s.Base})
		for {
			b, _, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				r.Close()
				return nil, errors.Join(err, l.Close())
			}
			j.last = append(j.last[:0], b...)
		}
		r.Close()
		if j.last != nil {
			break
		}
	}
	return j, nil
}

// Last is the value that was there when the journal was opened; nil when there was none, and after a Save: values may be some MiB, and nobody asks
// for what they have just saved.
func (j *Journal) Last() []byte { return j.last }

// Save replaces the value, which is b with more behind it. It survives a killed process at once, and a power cut when sync was asked for. After
// an error the value is the old one.
func (j *Journal) Save(b []byte, sync bool, more ...[]byte) error {
	size := len(b)
	for _, m := range more {
		size += len(m)
	}
	if size > MaxRecord {
		return fmt.Errorf("value of %d bytes: at most %d", size, MaxRecord)
	}
	frame, at := BeginFrame(make([]byte, 0, size+FrameSize))
	frame = append(frame, b...)
	for _, m := range more {
		frame = append(frame, m...)
	}
	SealFrame(frame, at)
	if _, err := j.log.AppendFrames(frame, 1); err != nil {
		return err
	}
	if sync {
		if err := j.log.Sync(); err != nil {
			return err
		}
	}
	j.last = nil
	segs := j.log.Segments()
	for _, s := range segs[:len(segs)-1] {
		if err := j.log.Remove(s.Base); err != nil {
			return err
		}
	}
	return nil
}

// Sync makes the saved value survive a power cut.
func (j *Journal) Sync() error { return j.log.Sync() }

// CutBytes is the size of the torn end that opening cut off.
func (j *Journal) CutBytes() int64 { return j.log.CutBytes() }

// Close closes the journal's file.
func (j *Journal) Close() error { return j.log.Close() }
