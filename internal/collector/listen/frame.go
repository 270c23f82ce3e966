package listen

import "bytes"

// framer cuts a TCP stream into messages. Each message says for itself how it is framed: a decimal count, a space and "<" begin an
// octet-counted one (RFC 6587, 3.4.1); anything else ends with LF or NUL (3.4.2). A bare line that begins with a number, as some devices
// send, is therefore a line. Counts are believed to the byte and never "repaired" by looking for line ends inside a counted message: who
// can put text into a message must not be able to make a second message of it.
type framer struct {
	buf     []byte // buf[r:w] is unread
	r, w    int
	max     int
	scanned int  // bytes of buf[r:w] known to hold no line end
	discard int  // bytes still to pass over of a counted message that was cut
	skip    bool // pass over everything up to the next line end
	counted bool // the stream has used octet counting
	broken  bool // the framing is lost and cannot be found again
}

const (
	minBuffer = 4 << 10
	maxCount  = 7 // digits of an octet count
)

// room gives space to read into.
func (f *framer) room() []byte {
	if f.r == f.w {
		f.r, f.w = 0, 0
		if cap(f.buf) > f.max/4 && len(f.buf) > minBuffer*4 { // do not hold a long line's memory for a silent connection
			f.buf = nil
		}
	}
	if f.buf == nil {
		f.buf = make([]byte, minBuffer)
	}
	if f.w == len(f.buf) {
		if f.r > 0 {
			copy(f.buf, f.buf[f.r:f.w])
			f.w -= f.r
			f.r = 0
		}
		if f.w > len(f.buf)/2 {
			grown := make([]byte, min(2*len(f.buf), f.max+64))
			copy(grown, f.buf[:f.w])
			f.buf = grown
		}
	}
	return f.buf[f.w:]
}

// fed says that n bytes were read into room, and gives emit every message that is whole now. The message is valid until the next room.
func (f *framer) fed(n int, emit func(msg []byte, cut bool)) {
	f.w += n
	for f.r < f.w && !f.broken {
		b := f.buf[f.r:f.w]
		if f.discard > 0 {
			n := min(f.discard, len(b))
			f.discard -= n
			f.r += n
			continue
		}
		if f.skip {
			end := lineEnd(b)
			if end < 0 {
				f.r = f.w
				return
			}
			f.r += end + 1
			f.skip = false
			continue
		}
		if b[0] == '\n' || b[0] == '\r' || b[0] == 0 {
			f.r++
			f.scanned = 0
			continue
		}
		head, count, state := octetCount(b)
		if state == needMore {
			return
		}
		if state == isCount {
			f.counted = true
			f.scanned = 0
			want := min(count, f.max)
			if len(b) < head+want {
				return
			}
			emit(trimEnd(b[head:head+want]), count > f.max)
			f.r += head + want
			f.discard = count - want
			continue
		}
		end := lineEnd(b[f.scanned:])
		if end < 0 && len(b) <= f.max { // with one byte more than the limit it is decided, however the bytes come
			f.scanned = len(b)
			return
		}
		if end >= 0 {
			end += f.scanned
		}
		f.scanned = 0
		if end < 0 || end > f.max {
			emit(b[:f.max], true)
			f.r += f.max
			if f.counted { // so long a line in a counted stream: the count before was wrong
				f.broken = true
				return
			}
			f.skip = true
			continue
		}
		emit(trimEnd(b[:end]), false)
		f.r += end + 1
	}
}

// flush gives emit what is left of a stream that has ended, or whose sender has stopped in the middle.
func (f *framer) flush(emit func(msg []byte, cut bool)) {
	b := f.buf[f.r:f.w]
	f.r, f.w, f.scanned = 0, 0, 0
	if len(b) == 0 || f.skip || f.discard > 0 || f.broken {
		return
	}
	if head, _, state := octetCount(b); state == isCount {
		if b = trimEnd(b[head:]); len(b) > 0 {
			emit(b[:min(len(b), f.max)], true)
		}
		return
	}
	if b = trimEnd(b); len(b) > 0 {
		emit(b[:min(len(b), f.max)], false)
	}
}

// partial says whether a message has begun and not ended.
func (f *framer) partial() bool { return f.r < f.w || f.discard > 0 || f.skip }

// counting says whether the unfinished message is an octet-counted one: its rest cannot be told from the next message.
func (f *framer) counting() bool {
	if f.discard > 0 {
		return true
	}
	if f.r == f.w || f.skip {
		return false
	}
	_, _, s := octetCount(f.buf[f.r:f.w])
	return s == isCount
}

type countState uint8

const (
	noCount countState = iota
	isCount
	needMore
)

// octetCount reads "count SP" at the start of b when "<" follows it. head is the length of count and space.
func octetCount(b []byte) (head, count int, s countState) {
	if b[0] < '1' || b[0] > '9' {
		return 0, 0, noCount
	}
	i := 0
	for i < len(b) && i <= maxCount && b[i] >= '0' && b[i] <= '9' {
		count = count*10 + int(b[i]-'0')
		i++
	}
	switch {
	case i > maxCount:
		return 0, 0, noCount
	case i == len(b):
		return 0, 0, needMore
	case b[i] != ' ':
		return 0, 0, noCount
	case i+1 == len(b):
		return 0, 0, needMore
	case b[i+1] != '<':
		return 0, 0, noCount
	}
	return i + 1, count, isCount
}

// lineEnd is the index of the first LF or NUL, or -1.
func lineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if nul := bytes.IndexByte(b, 0); nul >= 0 {
		return nul
	}
	return lf
}
