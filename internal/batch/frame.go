package batch

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxBlock is the most a zstd block can hold (RFC 8878, section 3.1.1.2.4).
const maxBlock = 128 << 10

// checkFrame walks the headers of a zstd body without decompressing it: exactly one frame and nothing after it, no dictionary, a window of
// at most MaxWindow, and blocks that could hold expanded bytes. So a small body cannot make us set aside a large buffer for nothing.
func checkFrame(b []byte, expanded int) error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrFrame, what) }
	if len(b) < 6 || binary.LittleEndian.Uint32(b) != 0xFD2FB528 {
		return bad("it does not begin with a zstd frame")
	}
	desc := b[4]
	i := 5
	if desc&0x08 != 0 {
		return bad("a reserved bit is set")
	}
	if desc&0x03 != 0 {
		return bad("it asks for a dictionary")
	}
	single := desc&0x20 != 0
	var window uint64
	if !single {
		e, m := b[i]>>3, uint64(b[i]&7)
		base := uint64(1) << (10 + e)
		window = base + base/8*m
		i++
	}
	size, hasSize := uint64(0), true
	switch n := int(desc >> 6); {
	case n == 0 && !single:
		hasSize = false
	case n == 0 && i+1 <= len(b):
		size = uint64(b[i])
		i++
	case n == 1 && i+2 <= len(b):
		size = uint64(binary.LittleEndian.Uint16(b[i:])) + 256
		i += 2
	case n == 2 && i+4 <= len(b):
		size = uint64(binary.LittleEndian.Uint32(b[i:]))
		i += 4
	case n == 3 && i+8 <= len(b):
		size = binary.LittleEndian.Uint64(b[i:])
		i += 8
	default:
		return bad("its header is cut")
	}
	if single {
		window = size
	}
	if window > MaxWindow {
		return bad(fmt.Sprintf("its window is %d bytes, at most %d", window, MaxWindow))
	}
	if hasSize && size != uint64(expanded) {
		return bad(fmt.Sprintf("it announces %d bytes, the manifest %d", size, expanded))
	}
	capacity := 0
	for last := false; !last; {
		if i+3 > len(b) {
			return bad("it is cut")
		}
		h := int(b[i]) | int(b[i+1])<<8 | int(b[i+2])<<16
		i += 3
		last = h&1 == 1
		n := h >> 3
		if n > maxBlock {
			return bad("a block is too large")
		}
		switch h >> 1 & 3 {
		case 0: // as is
			i += n
			capacity += n
		case 1: // one byte, n times
			i++
			capacity += n
		case 2: // compressed
			i += n
			capacity += maxBlock
		default:
			return bad("a block is of a reserved kind")
		}
		if i > len(b) {
			return bad("it is cut")
		}
	}
	if desc&0x04 != 0 {
		i += 4
	}
	if i != len(b) {
		return bad("it is cut, or something follows it")
	}
	if capacity < expanded {
		return bad(fmt.Sprintf("its blocks cannot hold the %d bytes the manifest announces", expanded))
	}
	return nil
}

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(MaxExpanded),
		zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

// expand decompresses into a buffer of exactly n bytes.
func expand(b, buf []byte, n int) ([]byte, error) {
	if cap(buf) < n {
		buf = make([]byte, 0, n)
	}
	out, err := decoder().DecodeAll(b, buf[:0:n])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if len(out) != n {
		return nil, fmt.Errorf("%w: it holds %d bytes, the manifest says %d", ErrFrame, len(out), n)
	}
	return out, nil
}
