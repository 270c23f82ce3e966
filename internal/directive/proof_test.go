package directive

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"

	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// A tree of three entries by hand, its checkpoints, and what is not believed.
func TestProof(t *testing.T) {
	dir := t.TempDir()
	trust, err := keys.CreateScheme(keys.SchemeOptions{Dir: filepath.Join(dir, "keys"), Offline: filepath.Join(dir, "offline"), Name: "Test", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Open(filepath.Join(dir, "keys"), keys.Checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(origin, body string) string {
		signer, err := ring.NoteSigner(origin)
		if err != nil {
			t.Fatal(err)
		}
		b, err := note.Sign(&note.Note{Text: origin + "\n" + body}, signer)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	origin := LedgerOrigin(trust.RootFingerprint())
	h := rfc6962.DefaultHasher
	var leaves [3][]byte
	for i := range leaves {
		d := sha256.Sum256([]byte{byte(i)})
		leaves[i] = h.HashLeaf(d[:])
	}
	two := h.HashChildren(leaves[0], leaves[1])
	three := h.HashChildren(two, leaves[2])
	at := func(origin string, size int, root []byte) View {
		v, err := OpenCheckpoint(trust, sign(origin, fmt.Sprintf("%d\n%s\n", size, base64.StdEncoding.EncodeToString(root))))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v2, v3 := at(origin, 2, two), at(origin, 3, three)
	if err := v3.Includes([]byte{1}, batch.Inclusion{Index: 1, Hashes: [][]byte{leaves[0], leaves[2]}}); err != nil {
		t.Errorf("entry 1 of 3: %v", err)
	}
	if err := v3.Includes([]byte{2}, batch.Inclusion{Index: 2, Hashes: [][]byte{two}}); err != nil {
		t.Errorf("entry 2 of 3: %v", err)
	}
	for name, err := range map[string]error{
		"another envelope": v3.Includes([]byte{0}, batch.Inclusion{Index: 1, Hashes: [][]byte{leaves[0], leaves[2]}}),
		"another index":    v3.Includes([]byte{1}, batch.Inclusion{Index: 0, Hashes: [][]byte{leaves[0], leaves[2]}}),
		"beyond the tree":  v3.Includes([]byte{1}, batch.Inclusion{Index: 3, Hashes: [][]byte{leaves[0], leaves[2]}}),
		"too many hashes":  v3.Includes([]byte{1}, batch.Inclusion{Index: 1, Hashes: make([][]byte, 1000)}),
		"no hashes":        v3.Includes([]byte{1}, batch.Inclusion{Index: 1}),
		"no tree":          View{}.Includes([]byte{1}, batch.Inclusion{}),
	} {
		if !errors.Is(err, ErrNoProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if anew, err := v3.Follows(v2, [][]byte{leaves[2]}); err != nil || anew {
		t.Errorf("3 after 2: %v %v", anew, err)
	}
	if anew, err := v3.Follows(View{}, nil); err != nil || anew {
		t.Errorf("the first that is seen: %v %v", anew, err)
	}
	if anew, err := at(origin+"/20261122T120000Z", 1, leaves[0]).Follows(v3, nil); err != nil || !anew {
		t.Errorf("a ledger with another name: %v %v", anew, err)
	}
	for name, f := range map[string]func() (bool, error){
		"without a proof":       func() (bool, error) { return v3.Follows(v2, nil) },
		"smaller":               func() (bool, error) { return v2.Follows(v3, nil) },
		"the same size, others": func() (bool, error) { return at(origin, 3, two).Follows(v3, nil) },
		"a proof without end":   func() (bool, error) { return v3.Follows(v2, make([][]byte, 10_000)) },
	} {
		if _, err := f(); !errors.Is(err, ErrFork) {
			t.Errorf("%s: %v", name, err)
		}
	}
	root := base64.StdEncoding.EncodeToString(three)
	for name, cp := range map[string]string{
		"empty": "", "no note": "hello", "another scheme's": sign("tocsin/ledger/0011223344556677", "3\n"+root+"\n"), "longer name without a slash": sign(origin+"x", "3\n"+root+"\n"),
		"a size that is none": sign(origin, "three\n"+root+"\n"), "a size twice over": sign(origin, "03\n"+root+"\n"), "a negative size": sign(origin, "-3\n"+root+"\n"),
		"a root that is short": sign(origin, "3\nAAAA\n"), "no root": sign(origin, "3\n"), "too long": v3.Checkpoint + string(make([]byte, 5000)),
	} {
		if _, err := OpenCheckpoint(trust, cp); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
