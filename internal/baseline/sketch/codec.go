package sketch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrState says that bytes are not a saved state.
var ErrState = errors.New("not a saved state of this kind")

// Codec writes or reads a state field by field, so that one function says both. Numbers are little-endian. After an error it does nothing.
type Codec struct {
	buf     []byte
	reading bool
	err     error
}

// Writer appends to buf.
func Writer(buf []byte) *Codec { return &Codec{buf: buf} }

// Reader reads buf.
func Reader(buf []byte) *Codec { return &Codec{buf: buf, reading: true} }

// Reading says which of the two it is.
func (c *Codec) Reading() bool { return c.reading }

// Bytes is what was written, or what is left to read.
func (c *Codec) Bytes() []byte { return c.buf }

// Err is the first error.
func (c *Codec) Err() error { return c.err }

// Fail sets the error, if there is none yet.
func (c *Codec) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrState, fmt.Sprintf(format, args...))
	}
}

func (c *Codec) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.buf) {
		c.Fail("it ends too early")
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

// U8 is one byte.
func (c *Codec) U8(p *uint8) {
	if !c.reading {
		c.buf = append(c.buf, *p)
	} else if b := c.take(1); b != nil {
		*p = b[0]
	}
}

// U16 is two bytes.
func (c *Codec) U16(p *uint16) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint16(c.buf, *p)
	} else if b := c.take(2); b != nil {
		*p = binary.LittleEndian.Uint16(b)
	}
}

// U16s is a list of two bytes each, whose length both sides know.
func (c *Codec) U16s(p []uint16) {
	if !c.reading {
		c.buf = slices.Grow(c.buf, 2*len(p))
		for _, v := range p {
			c.buf = binary.LittleEndian.AppendUint16(c.buf, v)
		}
	} else if b := c.take(2 * len(p)); b != nil {
		for i := range p {
			p[i] = binary.LittleEndian.Uint16(b[2*i:])
		}
	}
}

// U64s is a list of eight bytes each, whose length both sides know.
func (c *Codec) U64s(p []uint64) {
	if !c.reading {
		c.buf = slices.Grow(c.buf, 8*len(p))
		for _, v := range p {
			c.buf = binary.LittleEndian.AppendUint64(c.buf, v)
		}
	} else if b := c.take(8 * len(p)); b != nil {
		for i := range p {
			p[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
	}
}

// U32 is four bytes.
func (c *Codec) U32(p *uint32) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint32(c.buf, *p)
	} else if b := c.take(4); b != nil {
		*p = binary.LittleEndian.Uint32(b)
	}
}

// U64 is eight bytes.
func (c *Codec) U64(p *uint64) {
	if !c.reading {
		c.buf = binary.LittleEndian.AppendUint64(c.buf, *p)
	} else if b := c.take(8); b != nil {
		*p = binary.LittleEndian.Uint64(b)
	}
}

// I64 is a signed number of eight bytes.
func (c *Codec) I64(p *int64) {
	n := uint64(*p)
	c.U64(&n)
	*p = int64(n)
}

// I32 is a signed number of four bytes.
func (c *Codec) I32(p *int32) {
	n := uint32(*p)
	c.U32(&n)
	*p = int32(n)
}

// F32 is a finite floating-point number of four bytes; nothing else is read.
func (c *Codec) F32(p *float32) {
	n := math.Float32bits(*p)
	c.U32(&n)
	if *p = math.Float32frombits(n); math.IsNaN(float64(*p)) || math.IsInf(float64(*p), 0) {
		*p = 0
		c.Fail("a number is not finite")
	}
}

// Bool is one byte, 0 or 1.
func (c *Codec) Bool(p *bool) {
	var n uint8
	if *p {
		n = 1
	}
	c.U8(&n)
	if n > 1 {
		c.Fail("a truth value is %d", n)
	}
	*p = n == 1
}

// Raw is bytes of a length that both sides know.
func (c *Codec) Raw(p []byte) {
	if !c.reading {
		c.buf = append(c.buf, p...)
	} else if b := c.take(len(p)); b != nil {
		copy(p, b)
	}
}

// Blob is bytes with their length; more than most are not read.
func (c *Codec) Blob(p *[]byte, most int) {
	n := c.Len(len(*p), most)
	if c.reading {
		*p = append([]byte(nil), c.take(n)...)
	} else {
		c.buf = append(c.buf, *p...)
	}
}

// Len is a number of elements: n when writing, what stands there when reading, never more than most.
func (c *Codec) Len(n, most int) int {
	v := uint32(n)
	c.U32(&v)
	if c.err != nil {
		return 0
	}
	if int64(v) > int64(most) {
		c.Fail("%d elements, at most %d are possible", v, most)
		return 0
	}
	return int(v)
}
