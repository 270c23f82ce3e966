package batch

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// leafHasher makes the leaves of one body. It belongs to one goroutine.
type leafHasher struct {
	mac, sum hash.Hash
	idx      [8]byte
	buf      [sha256.Size]byte
}

var leafPrefix = []byte{0x00}

func newLeafHasher(salt [32]byte) *leafHasher {
	return &leafHasher{mac: hmac.New(sha256.New, salt[:]), sum: sha256.New()}
}

// mask is HMAC-SHA256(salt, index): what blinds one leaf, disclosed with its line.
func (h *leafHasher) mask(index uint64) [32]byte {
	h.mac.Reset()
	binary.BigEndian.PutUint64(h.idx[:], index)
	h.mac.Write(h.idx[:])
	h.mac.Sum(h.buf[:0])
	return h.buf
}

func (h *leafHasher) leaf(index uint64, line []byte) [32]byte {
	h.mask(index)
	h.sum.Reset()
	h.sum.Write(leafPrefix)
	h.sum.Write(h.buf[:])
	h.sum.Write(line)
	h.sum.Sum(h.buf[:0]) // a field, not a variable: what goes through an interface is put on the heap
	return h.buf
}

func node(l, r *[32]byte) [32]byte {
	var b [65]byte
	b[0] = 0x01
	copy(b[1:], l[:])
	copy(b[33:], r[:])
	return sha256.Sum256(b[:])
}

// treeRoot is the Merkle tree hash of RFC 6962, section 2.1. It overwrites leaves. Joining neighbours level by level and lifting an odd last
// one gives the same tree as the RFC's split at the largest power of two.
func treeRoot(leaves [][32]byte) [32]byte {
	if len(leaves) == 0 {
		return sha256.Sum256(nil)
	}
	for n := len(leaves); n > 1; n = (n + 1) / 2 {
		for i := 0; i < n/2; i++ {
			leaves[i] = node(&leaves[2*i], &leaves[2*i+1])
		}
		if n%2 == 1 {
			leaves[n/2] = leaves[n-1]
		}
	}
	return leaves[0]
}

// treePath is the audit path of RFC 6962, section 2.1.1, lowest first. It overwrites leaves.
func treePath(leaves [][32]byte, index int) [][32]byte {
	var path [][32]byte
	for n := len(leaves); n > 1; n = (n + 1) / 2 {
		if sibling := index ^ 1; sibling < n {
			path = append(path, leaves[sibling])
		}
		for i := 0; i < n/2; i++ {
			leaves[i] = node(&leaves[2*i], &leaves[2*i+1])
		}
		if n%2 == 1 {
			leaves[n/2] = leaves[n-1]
		}
		index /= 2
	}
	return path
}
