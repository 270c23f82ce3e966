package archive

import "crypto/sha256"

// lineMAC is HMAC-SHA256 (RFC 2104) written out, because hash.Hash cannot be given another key, and every line has one of its own: it
// keeps its memory from line to line.
type lineMAC struct{ inner, outer []byte }

func (m *lineMAC) sum(key [32]byte, text []byte) [32]byte {
	m.inner, m.outer = m.inner[:0], m.outer[:0]
	for i := range sha256.BlockSize {
		k := byte(0)
		if i < len(key) {
			k = key[i]
		}
		m.inner, m.outer = append(m.inner, k^0x36), append(m.outer, k^0x5c)
	}
	m.inner = append(m.inner, text...)
	sum := sha256.Sum256(m.inner)
	m.outer = append(m.outer, sum[:]...)
	if cap(m.inner) > keepText {
		m.inner = nil
	}
	return sha256.Sum256(m.outer)
}

// keepText bounds what is kept, in bytes: one huge line must not pin a megabyte for ever.
const keepText = 1 << 16
