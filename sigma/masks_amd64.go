package sigma

import "golang.org/x/sys/cpu"

// masksAVX2 does what masksGeneric does; blocks must not be 0.
//
//go:noescape
func masksAVX2(p *byte, blocks int, out *blockMasks) (high uint32)

// masksAVX512 likewise.
//
//go:noescape
func masksAVX512(p *byte, blocks int, out *blockMasks) (high uint64)

// pairsAVX2 gives the first block of 32 bytes in which one of four pairs of bytes begins, or blocks. Bytes are compared after 0x20 was set
// in them. One byte behind the last block is read too; blocks must not be 0.
//
//go:noescape
func pairsAVX2(p *byte, blocks int, pairs *[8]byte) (at int)

// lowerAVX2 copies blocks of 32 bytes in lower case up to the first backslash or byte that is not ASCII, and gives the number of bytes
// before that one. It writes whole blocks; blocks must not be 0.
//
//go:noescape
func lowerAVX2(dst, src *byte, blocks int) (n int)

// quotesAVX512 writes the places of the quotes in n bytes from p on that no backslash escapes, counted from base, to out, and says how many
// there are. odd is not 0 when there is a control character, or an escape other than those of quotes, backslashes, n, r and t: then the
// places may be wrong. high is not 0 when not all is ASCII. With carry 1 the first byte is escaped; over is the same for the byte behind
// the last, if n is a multiple of 64. It writes up to 64 places more than there are.
//
//go:noescape
func quotesAVX512(p *byte, n int, base, carry uint32, out *uint32) (count int, odd, high, over uint64)

// gramsAVX512 gives the first block of 64 bytes from p on in which one of the grams at each step-th place, 1, 2, 4 or 8 bytes apart, has its bit in
// bitmap, or blocks, and which: bit 16k+n stands for the gram at 4n + k*step. lanes are all 16 bits, or every second if step is 8. Three bytes
// behind the last block are read too; blocks must not be 0.
//
//go:noescape
func gramsAVX512(p *byte, blocks int, bitmap *uint64, shift, lanes uint32, step int) (block int, hits uint64)

// eightAVX512 gives the first block of 64 bytes in which one of eight pairs of bytes begins, or blocks, and at which places. Bytes are compared
// after 0x20 was set in them. nibbles has a bit for each pair, by the low and the high half of its first byte, and of its second. One byte behind
// the last block is read too; blocks must not be 0.
//
//go:noescape
func eightAVX512(p *byte, blocks int, nibbles *[64]byte) (block int, hits uint64)

var (
	hasAVX2   = cpu.X86.HasAVX2
	hasAVX512 = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW
	hasQuotes = hasAVX512 && cpu.X86.HasAVX512VBMI2 && cpu.X86.HasPOPCNT
)

func masks(p *byte, blocks int, out *blockMasks) (high bool) {
	if hasAVX512 {
		return masksAVX512(p, blocks, out) != 0
	}
	return masksNarrow(p, blocks, out)
}

// masksNarrow is masks without the widest registers.
func masksNarrow(p *byte, blocks int, out *blockMasks) (high bool) {
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

// lowerBlocks is lowerAVX2 where there are such registers, and otherwise does nothing.
func lowerBlocks(dst, src *byte, blocks int) (n int) {
	if hasAVX2 {
		return lowerAVX2(dst, src, blocks)
	}
	return 0
}
