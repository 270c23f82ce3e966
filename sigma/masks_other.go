//go:build !amd64

package sigma

func masks(p *byte, blocks int, out *blockMasks) (high bool) { return masksGeneric(p, blocks, out) }

func masksNarrow(p *byte, blocks int, out *blockMasks) (high bool) {
	return masksGeneric(p, blocks, out)
}

const (
	hasAVX2   = false
	hasQuotes = false
	hasAVX512 = false
)

func quotesAVX512(*byte, int, uint32, uint32, *uint32) (count int, odd, high, over uint64) {
	return 0, 1, 0, 0 // index takes its other way
}

func findPairs(p *byte, blocks int, pairs *[8]byte) (at int) { return 0 }

func lowerBlocks(dst, src *byte, blocks int) (n int) { return 0 }

func gramsAVX512(p *byte, blocks int, bitmap *uint64, shift, lanes uint32, step int) (block int, hits uint64) {
	return blocks, 0 // never called
}

func eightAVX512(p *byte, blocks int, nibbles *[64]byte) (block int, hits uint64) {
	return blocks, 0 // never called
}
