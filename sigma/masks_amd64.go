package sigma

import "golang.org/x/sys/cpu"

// masksAVX2 does what masksGeneric does; blocks must not be 0.
//
//go:noescape
func masksAVX2(p *byte, blocks int, out *blockMasks) (high uint32)

// pairsAVX2 gives the first block of 32 bytes in which one of four pairs of bytes begins, or blocks. Bytes are compared after 0x20 was set
// in them. One byte behind the last block is read too; blocks must not be 0.
//
//go:noescape
func pairsAVX2(p *byte, blocks int, pairs *[8]byte) (at int)

var hasAVX2 = cpu.X86.HasAVX2

func masks(p *byte, blocks int, out *blockMasks) (high bool) {
	if hasAVX2 {
		return masksAVX2(p, blocks, out) != 0
	}
	return masksGeneric(p, blocks, out)
}

// findPairs is pairsAVX2 where there are such registers, and otherwise sees a pair in every block.
func findPairs(p *byte, blocks int, pairs *[8]byte) (at int) {
	if hasAVX2 {
		return pairsAVX2(p, blocks, pairs)
	}
	return 0
}
