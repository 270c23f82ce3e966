package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// chunk is some whole lines of a file, and what a worker made of them. Each worker has one and fills it again and again.
type chunk struct {
	n     int // which of all chunks it is, from 0
	file  string
	line  int // of the first line, from 0
	buf   []byte
	lines []byte // of buf
	made
}

// made is what a worker made of a chunk.
type made struct {
	out    []byte
	errs   []string
	events int
	routed int
}

const (
	chunkSize    = 256 << 10
	keepChunk    = 4 << 20  // one huge line must not pin its memory
	maxEventLine = 64 << 20 // bounds one event
)

// eventSource cuts files into chunks. Workers take them by themselves: a goroutine that reads for all of them would be what they wait for.
type eventSource struct {
	mu    sync.Mutex // held while a chunk is read
	names []string   // of files that come yet
	stdin io.Reader  // for the name -
	size  int

	in   io.Reader // nil: between files
	file *os.File
	name string
	line int
	rest []byte // begun line behind the last chunk
	n    int
	err  error
}

// next reads the next chunk into c; false: there is none, or none can be read (Err).
func (s *eventSource) next(ctx context.Context, c *chunk) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && ctx.Err() == nil {
		if s.in == nil && !s.open() {
			return false
		}
		if len(s.rest) > maxEventLine {
			s.err = fmt.Errorf("%s:%d: a line is longer than %d MiB", s.name, s.line, maxEventLine>>20)
			break
		}
		want := min(max(s.size, len(s.rest))+len(s.rest), maxEventLine+s.size) // a long line is read in few steps
		if cap(c.buf) < want || cap(c.buf) > keepChunk && want < keepChunk/2 {
			c.buf = make([]byte, want+want/4)
		}
		buf := c.buf[:want]
		copy(buf, s.rest)
		n, err := io.ReadFull(s.in, buf[len(s.rest):])
		buf = buf[:len(s.rest)+n]
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			s.err = fmt.Errorf("reading %s: %w", s.name, err)
			break
		}
		cut := len(buf)
		if !end {
			cut = bytes.LastIndexByte(buf, '\n') + 1
		}
		s.rest = append(s.rest[:0], buf[cut:]...)
		c.n, c.file, c.line, c.lines = s.n, s.name, s.line, buf[:cut]
		if end {
			s.close()
		}
		if cut == 0 {
			continue
		}
		s.line += bytes.Count(c.lines, []byte{'\n'})
		s.n++
		return true
	}
	s.close()
	return false
}

// open goes on to the next file; false: there is none.
func (s *eventSource) open() bool {
	if len(s.names) == 0 {
		return false
	}
	s.name, s.names, s.line, s.rest = s.names[0], s.names[1:], 0, s.rest[:0]
	if s.name == "-" {
		s.in = s.stdin
		return true
	}
	if s.file, s.err = os.Open(s.name); s.err != nil {
		return false
	}
	s.in = s.file
	return true
}

func (s *eventSource) close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	s.in = nil
}

// Err is why no more chunks come, nil at the end of the last file.
func (s *eventSource) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// orderedOutput writes what workers made of chunks, in the order of the chunks. Whoever has made the next one writes it, and what others have made
// behind it: they went on meanwhile.
type orderedOutput struct {
	out, errs io.Writer
	ahead     int    // how many chunks may wait
	stop      func() // called when nothing more can be written

	mu                  sync.Mutex // held while chunks are written
	moved               *sync.Cond // next is another
	next                int
	ready               map[int]made
	free                []made
	events, routed, bad int
	err                 error
}

func newOrderedOutput(out, errs io.Writer, ahead int, stop func()) *orderedOutput {
	o := &orderedOutput{out: out, errs: errs, ahead: ahead, stop: stop, ready: map[int]made{}}
	o.moved = sync.NewCond(&o.mu)
	return o
}

// put takes what was made of c and gives c other memory to make something in.
func (o *orderedOutput) put(c *chunk) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c.n > o.next+o.ahead {
		o.moved.Wait()
	}
	o.ready[c.n] = c.made
	c.made = made{}
	for {
		m, ok := o.ready[o.next]
		if !ok {
			break
		}
		delete(o.ready, o.next)
		o.next++
		o.write(&m)
		if cap(m.out) < keepChunk {
			o.free = append(o.free, m)
		}
	}
	o.moved.Broadcast()
	if n := len(o.free); n > 0 {
		c.made, o.free = o.free[n-1], o.free[:n-1]
	}
}

func (o *orderedOutput) write(m *made) {
	o.events, o.routed, o.bad = o.events+m.events, o.routed+m.routed, o.bad+len(m.errs)
	for _, e := range m.errs {
		fmt.Fprintln(o.errs, e)
	}
	if o.err == nil {
		if _, o.err = o.out.Write(m.out); o.err != nil {
			o.stop()
		}
	}
}
