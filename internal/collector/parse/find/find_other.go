//go:build !amd64

package find

// wide says whether pairAt may be asked.
const wide = false

func pairAt(*byte, int, int, byte, byte, byte) int { return -1 }

func masks(p *byte, blocks int, c byte, out *uint64) { masksPlain(p, blocks, c, out) }

func marks(p *byte, blocks int, one byte, any uint32, ones, anys *uint64) {
	marksPlain(p, blocks, one, any, ones, anys)
}
