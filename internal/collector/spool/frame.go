package spool

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	headerSize  = 16
	frameHeader = 8

	// FrameSize is what a record takes on disk beside its payload, in bytes.
	FrameSize = frameHeader

	// MaxRecord is the longest payload of one frame, in bytes. Larger lengths are damage.
	MaxRecord = 32 << 20
)

var (
	magic      = [8]byte{'T', 'O', 'C', 'S', 'E', 'G', 0, 1}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// A thinned segment has another magic, the number after its last record behind the base, and before each payload the record's number. Its
// checksums begin with another value, so that a program that does not know it passes it over as damaged instead of misreading it.
var thinMagic = [8]byte{'T', 'O', 'C', 'S', 'E', 'G', 0, 2}

const (
	thinHeader = 24
	thinSeed   = 0x7468696e
)

// AppendFrame appends payload as one frame to dst.
func AppendFrame(dst, payload []byte) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, payload...)
	SealFrame(dst, at)
	return dst
}

// BeginFrame reserves a frame's header in dst; append the payload and call SealFrame with the offset it gives.
func BeginFrame(dst []byte) (b []byte, at int) {
	at = len(dst)
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0), at
}

// SealFrame fills in the header of the frame that begins at offset at and ends with b.
func SealFrame(b []byte, at int) { seal(b, at, 0) }

func seal(b []byte, at int, seed uint32) {
	n := len(b) - at - frameHeader
	binary.LittleEndian.PutUint32(b[at:], uint32(n))
	crc := crc32.Update(seed, castagnoli, b[at:at+4])
	crc = crc32.Update(crc, castagnoli, b[at+frameHeader:])
	binary.LittleEndian.PutUint32(b[at+4:], crc)
}

// frameAt reads the frame at the start of b. n is the frame's whole size; n > len(b) with ok false means that more bytes are needed, n == 0
// that b holds no frame.
func frameAt(b []byte, seed uint32) (payload []byte, n int, ok bool) {
	if len(b) < frameHeader {
		return nil, frameHeader, false
	}
	size := binary.LittleEndian.Uint32(b)
	if size > MaxRecord+8 { // with the number of a thinned segment's record
		return nil, 0, false
	}
	n = frameHeader + int(size)
	if len(b) < n {
		return nil, n, false
	}
	crc := crc32.Update(seed, castagnoli, b[:4])
	crc = crc32.Update(crc, castagnoli, b[frameHeader:n])
	if crc != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, false
	}
	return b[frameHeader:n], n, true
}

func appendHeader(dst []byte, base uint64) []byte {
	dst = append(dst, magic[:]...)
	return binary.LittleEndian.AppendUint64(dst, base)
}

func headerAt(b []byte) (base uint64, ok bool) {
	if len(b) < headerSize || [8]byte(b[:8]) != magic {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), true
}
