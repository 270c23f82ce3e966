package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// chunkReader reads frames of a file through a buffer that grows only for frames larger than it.
type chunkReader struct {
	f     io.ReaderAt
	off   int64  // offset in the file of buf[at]
	limit int64  // no byte from here on is read
	seed  uint32 // of the checksums
	buf   []byte
	at    int
}

const chunk = 128 << 10

// peek gives at least n bytes from the current offset, or as many as there are.
func (r *chunkReader) peek(n int) ([]byte, error) {
	if have := len(r.buf) - r.at; have >= n {
		return r.buf[r.at:], nil
	}
	rest := copy(r.buf, r.buf[r.at:])
	r.at = 0
	want := max(n, chunk)
	if cap(r.buf) < want {
		grown := make([]byte, rest, want)
		copy(grown, r.buf[:rest])
		r.buf = grown
	}
	r.buf = r.buf[:rest]
	end := min(int64(cap(r.buf)), r.limit-r.off)
	if end <= int64(rest) {
		return r.buf, nil
	}
	got, err := r.f.ReadAt(r.buf[rest:end:end], r.off+int64(rest))
	r.buf = r.buf[:rest+got]
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return r.buf, nil
}

func (r *chunkReader) skip(n int) { r.at += n; r.off += int64(n) }

// frame gives the next frame's payload and size; size 0 means that no whole frame follows before the limit. The payload is valid until the
// next call.
func (r *chunkReader) frame() (payload []byte, n int, err error) {
	b, err := r.peek(frameHeader)
	if err != nil {
		return nil, 0, err
	}
	payload, n, ok := frameAt(b, r.seed)
	if !ok && n > len(b) {
		if int64(n) > r.limit-r.off { // a length that points past the end is damage: do not make room for it
			return nil, 0, nil
		}
		if b, err = r.peek(n); err != nil {
			return nil, 0, err
		}
		if len(b) < n {
			return nil, 0, nil
		}
		payload, n, ok = frameAt(b, r.seed)
	}
	if !ok {
		return nil, 0, nil
	}
	r.skip(n)
	return payload, n, nil
}

// Reader reads a log from a place onwards. It belongs to one goroutine; the log may be appended to meanwhile.
type Reader struct {
	log     *Log
	pos     Pos
	num     uint64 // number of the record at pos, once the segment is open; in a thinned segment it may be lower than that record's
	seg     *segmentFile
	chunks  chunkReader
	damaged int64
	lost    uint64
	wanted  func(base uint64) bool // nil: every segment
}

// Reader gives a reader that begins at pos. When that segment is gone it begins with the next one.
func (l *Log) Reader(pos Pos) *Reader { return &Reader{log: l, pos: pos} }

// ReaderOf is Reader of those segments only whose number of the first record is wanted.
func (l *Log) ReaderOf(pos Pos, wanted func(base uint64) bool) *Reader {
	return &Reader{log: l, pos: pos, wanted: wanted}
}

// Next gives the next record and its number. The bytes are valid until the next call. At the end of the log, for now, it gives io.EOF and
// may be called again after the log has grown.
func (r *Reader) Next() (payload []byte, num uint64, err error) {
	for {
		if r.seg == nil {
			ok, err := r.open()
			if err != nil {
				return nil, 0, err
			}
			if !ok {
				return nil, 0, io.EOF
			}
		}
		seg, ok := r.log.after(r.pos.Segment)
		if ok && seg.Base == r.pos.Segment && !r.seg.finished() {
			r.chunks.limit = seg.Size
		} // else the segment was removed under us; its open file still holds what it held
		payload, num, n, err := r.frame()
		if err != nil {
			return nil, 0, fmt.Errorf("read segment %016x: %w", r.pos.Segment, err)
		}
		if n > 0 {
			return payload, num, nil
		}
		next, ok := r.log.after(r.pos.Segment + 1)
		if !ok {
			return nil, 0, io.EOF
		}
		// The segment is finished. It may have grown between the two looks at the log: only what lies behind the last frame of a finished
		// segment is damage.
		if seg.Base == r.pos.Segment && r.grewBehind() {
			continue
		}
		if bytes := r.chunks.limit - r.pos.Offset; bytes > 0 {
			r.damaged += bytes
			end := next.Base
			if r.seg.thin {
				end = r.seg.end
			}
			// The gap in the numbers says how many records the damaged end held, unless numbers were left out on purpose behind it.
			if gap := end - r.num; gap > 0 && gap <= uint64(bytes)/frameHeader {
				r.lost += gap
			} else {
				r.lost++
			}
		}
		r.close()
		r.pos = Pos{Segment: next.Base}
	}
}

// frame takes the next frame of the open segment; n is 0 when there is none.
func (r *Reader) frame() (payload []byte, num uint64, n int, err error) {
	payload, n, err = r.chunks.frame()
	if err != nil || n == 0 {
		return nil, 0, n, err
	}
	num = r.num
	if r.seg.thin {
		if len(payload) < 8 {
			return nil, 0, 0, nil
		}
		num = binary.LittleEndian.Uint64(payload)
		payload = payload[8:]
	}
	r.num = num + 1
	r.pos.Offset += int64(n)
	return payload, num, n, nil
}

// grewBehind says whether the segment has more bytes now than when its limit was taken.
func (r *Reader) grewBehind() bool {
	seg, ok := r.log.after(r.pos.Segment)
	return ok && seg.Base == r.pos.Segment && !r.seg.finished() && seg.Size > r.chunks.limit
}

func (r *Reader) open() (bool, error) {
	for {
		seg, ok := r.log.after(r.pos.Segment)
		if !ok {
			return false, nil
		}
		if r.wanted != nil && !r.wanted(seg.Base) {
			r.pos = Pos{Segment: seg.Base + 1}
			continue
		}
		f, err := openSegment(r.log.dir, seg.Base)
		if errors.Is(err, fs.ErrNotExist) { // removed since
			r.pos = Pos{Segment: seg.Base + 1}
			continue
		}
		if err != nil {
			return false, fmt.Errorf("open segment: %w", err)
		}
		r.num = seg.Base
		want := r.pos.Offset
		if seg.Base != r.pos.Segment || want < f.head {
			want = f.head
		}
		size := seg.Size
		if f.finished() {
			size = f.size
		}
		r.seg = f
		r.chunks = chunkReader{f: f.data, off: f.head, limit: min(want, size), seed: f.seed, buf: r.chunks.buf[:0]}
		r.pos = Pos{seg.Base, f.head}
		// Count the frames before the place, to know the number of the record at it. A place that is not a frame's end falls back to the
		// frame before it.
		for r.pos.Offset < want {
			_, _, n, err := r.frame()
			if err != nil {
				r.close()
				return false, fmt.Errorf("read segment: %w", err)
			}
			if n == 0 {
				break
			}
		}
		r.chunks.limit = max(r.chunks.limit, size)
		return true, nil
	}
}

// Pos is the place after the last record that Next gave.
func (r *Reader) Pos() Pos { return r.pos }

// Damaged is how many bytes the reader had to pass over.
func (r *Reader) Damaged() int64 { return r.damaged }

// Lost is how many records were in the damaged bytes, as far as the numbers tell: at least one for each damaged segment.
func (r *Reader) Lost() uint64 { return r.lost }

func (r *Reader) close() {
	if r.seg != nil {
		r.seg.Close()
		r.seg = nil
	}
}

// Close frees the reader's file.
func (r *Reader) Close() { r.close() }
