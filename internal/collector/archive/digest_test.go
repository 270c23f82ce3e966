package archive

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

// The keys and digests of lines are those that archives and hubs of before have: a stranger makes them again with a revealed key.
func TestLineKeys(t *testing.T) {
	secret := Secret{5}
	d := secret.Digester()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("tocsin line key v1\x00\x00\x00\x00\x00\x00\x00\x01\x02"))
	key := d.LineKey(0x102)
	if !bytes.Equal(key[:], mac.Sum(nil)) || d.LineKey(0x102) != key {
		t.Error("the key of a line is not the one that archives of before have")
	}
	// Computed with Python's hmac module, for the secret above.
	const want = "7d21a0f5b1a5aff87e08fd2bf2167fc8c8805715a83e8880d853d3b1429d48d9"
	text := []byte("<13>a line")
	if got := d.Digest(0x102, text); got != DigestWith(key, text) || hex.EncodeToString(got[:]) != want {
		t.Errorf("%x", got)
	}
}
