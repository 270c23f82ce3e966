package ledger

import (
	"crypto/sha256"
	"path/filepath"
	"testing"
)

// A log that takes over from one that was put back from a copy begins with that one's newest checkpoint, once.
func TestPredecessor(t *testing.T) {
	h := newHouse(t)
	old := []byte("the newest checkpoint of before\n")
	open := func() *Ledger {
		t.Helper()
		c, err := h.bus.Consumer(t.Context(), Follower, "batch.*")
		if err != nil {
			t.Fatal(err)
		}
		l, err := Open(t.Context(), Options{Dir: filepath.Join(h.dir, "ledger", "since"), Predecessor: old, Signer: h.signer, DB: h.db, Messages: c, Register: &h.lines, CheckpointEvery: 1e8})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	digest := h.publish(1)
	l := open()
	h.follow(l, 2)
	if p := h.check(l, sha256.Sum256(old)); p.Index != 0 {
		t.Errorf("the predecessor's checkpoint is entry %d", p.Index)
	}
	if p := h.check(l, digest); p.Index != 1 {
		t.Errorf("the batch is entry %d", p.Index)
	}
	h.close(l)
	l = open()
	h.follow(l, 2)
	h.close(l)
}
