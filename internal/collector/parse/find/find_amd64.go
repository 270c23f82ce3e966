package find

import "golang.org/x/sys/cpu"

// pairAVX2 gives the first place below n at which a stands, and b gap bytes behind it; -1 when there is none. The bits of fold are set in the
// bytes of the text before they are compared. n must be 32 or more, and n+gap bytes readable.
//
//go:noescape
func pairAVX2(p *byte, n, gap int, a, b, fold byte) int

// masksAVX2 sets a bit for each byte c of blocks of 64 bytes; blocks must not be 0.
//
//go:noescape
func masksAVX2(p *byte, blocks int, c byte, out *uint64)

// marksAVX2 sets a bit in ones for each byte one of blocks of 64 bytes, and one in anys for each of the four bytes of any; blocks must not be 0.
// Both may not be 0, which stands behind the end of a text.
//
//go:noescape
func marksAVX2(p *byte, blocks int, one byte, any uint32, ones, anys *uint64)

// wide says whether pairAt may be asked.
var wide = cpu.X86.HasAVX2

func pairAt(p *byte, n, gap int, a, b, fold byte) int { return pairAVX2(p, n, gap, a, b, fold) }

func masks(p *byte, blocks int, c byte, out *uint64) {
	if wide {
		masksAVX2(p, blocks, c, out)
	} else {
		masksPlain(p, blocks, c, out)
	}
}

func marks(p *byte, blocks int, one byte, any uint32, ones, anys *uint64) {
	if wide {
		marksAVX2(p, blocks, one, any, ones, anys)
	} else {
		marksPlain(p, blocks, one, any, ones, anys)
	}
}
