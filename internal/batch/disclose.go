package batch

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// ErrDisclosure means that a disclosure does not prove what it shows.
var ErrDisclosure = errors.New("the disclosure does not prove this event")

// A Disclosure shows one event of a batch and proves that the collector signed it, without its neighbours and without the salt.
type Disclosure struct {
	Format   int             `json:"format"` // 1
	Envelope json.RawMessage `json:"envelope"`
	Index    int             `json:"index"` // of the event in its batch, from 0
	Line     string          `json:"line"`  // the event as sent
	Mask     string          `json:"mask"`  // hexadecimal HMAC-SHA256(salt, index)
	Path     []string        `json:"path"`  // hexadecimal audit path, RFC 6962 section 2.1.1
}

// Disclose makes the disclosure of event index. b must be the opened body of envelope.
func Disclose(envelope []byte, b *Body, index int) (Disclosure, error) {
	if index < 0 || index >= len(b.lines) {
		return Disclosure{}, fmt.Errorf("disclose event: the batch has events 0 to %d, not %d", len(b.lines)-1, index)
	}
	h := newLeafHasher(b.salt)
	leaves := make([][32]byte, len(b.lines))
	for i, l := range b.lines {
		leaves[i] = h.leaf(uint64(i), l)
	}
	mask := h.mask(uint64(index))
	d := Disclosure{Format: 1, Envelope: envelope, Index: index, Line: string(b.lines[index]), Mask: hex.EncodeToString(mask[:]), Path: []string{}}
	for _, p := range treePath(leaves, index) {
		d.Path = append(d.Path, hex.EncodeToString(p[:]))
	}
	return d, nil
}

// VerifyDisclosure checks a disclosure by the collector's batch key and returns the manifest its event belongs to.
func VerifyDisclosure(d Disclosure, pub ed25519.PublicKey) (Manifest, error) {
	if d.Format != 1 {
		return Manifest{}, fmt.Errorf("verify disclosure: %w: format %d", ErrVersion, d.Format)
	}
	m, _, err := Verify(d.Envelope, pub)
	if err != nil {
		return Manifest{}, fmt.Errorf("verify disclosure: %w", err)
	}
	mask, err := hex.DecodeString(d.Mask)
	if err != nil || len(mask) != sha256.Size || d.Index < 0 || d.Index >= m.Events || len(d.Path) > 64 || len(d.Line) > MaxLine {
		return Manifest{}, fmt.Errorf("verify disclosure: %w", ErrDisclosure)
	}
	path := make([][]byte, len(d.Path))
	for i, p := range d.Path {
		if path[i], err = hex.DecodeString(p); err != nil || len(path[i]) != sha256.Size {
			return Manifest{}, fmt.Errorf("verify disclosure: %w", ErrDisclosure)
		}
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(append(mask, d.Line...))
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(d.Index), uint64(m.Events), leaf, path, m.Root[:]); err != nil {
		return Manifest{}, fmt.Errorf("verify disclosure: %w", ErrDisclosure)
	}
	return m, nil
}
