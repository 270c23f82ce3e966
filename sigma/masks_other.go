//go:build !amd64

package sigma

func masks(p *byte, blocks int, out *blockMasks) (high bool) { return masksGeneric(p, blocks, out) }

func masksNarrow(p *byte, blocks int, out *blockMasks) (high bool) {
	return masksGeneric(p, blocks, out)
}

const hasAVX2 = false

func findPairs(p *byte, blocks int, pairs *[8]byte) (at int) { return 0 }

func lowerBlocks(dst, src *byte, blocks int) (n int) { return 0 }
