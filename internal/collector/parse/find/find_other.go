//go:build !amd64

package find

// wide says whether pairAt may be asked.
const wide = false

func pairAt(*byte, int, int, byte, byte, byte) int { return -1 }

func masks(p *byte, blocks int, c byte, out *uint64) { masksPlain(p, blocks, c, out) }

func pairs(p *byte, blocks int, quotes, ends *uint64) { pairsPlain(p, blocks, quotes, ends) }
