package archive

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"testing"
)

// The digest that is made line after line is the one that a stranger makes with a revealed key.
func TestLineMAC(t *testing.T) {
	var m lineMAC
	for i, n := range []int{0, 1, 55, 56, 64, 1000, 200_000, 3} {
		key, text := [32]byte{byte(i), 31: 7}, bytes.Repeat([]byte{byte(i)}, n)
		if m.sum(key, text) != DigestWith(key, text) {
			t.Errorf("%d bytes: the digest differs", n)
		}
		if cap(m.inner) > keepText {
			t.Errorf("%d bytes are kept", cap(m.inner))
		}
	}
	secret := Secret{5}
	d := secret.Digester()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("tocsin line key v1\x00\x00\x00\x00\x00\x00\x00\x01\x02"))
	if key := d.LineKey(0x102); !bytes.Equal(key[:], mac.Sum(nil)) || d.LineKey(0x102) != key {
		t.Error("the key of a line is not the one that archives of before have")
	}
	text := make([]byte, 500)
	if n := testing.AllocsPerRun(100, func() { d.Digest(7, text) }); n > 0 {
		t.Errorf("%v allocations a line", n)
	}
}
