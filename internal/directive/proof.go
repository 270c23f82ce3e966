package directive

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"tocsin/internal/batch"
	"tocsin/internal/keys"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
)

// Why a directive is not believed to stand in the ledger.
var (
	ErrCheckpoint = errors.New("what the hub shows as the state of its ledger is not valid")
	ErrFork       = errors.New("the hub's ledger is not the one that was seen before with more added: somebody is shown another one")
	ErrNoProof    = errors.New("nothing shows that it stands in the hub's ledger, where everybody could find it")
)

const (
	maxCheckpoint = 4096
	maxProof      = 64 // hashes: of a tree of 2^63 entries
)

// LedgerOrigin is what the names of a scheme's ledgers begin with: the first is called so, and one begun after a restore of the hub has its
// time behind a slash.
func LedgerOrigin(root [32]byte) string { return "tocsin/ledger/" + hex.EncodeToString(root[:8]) }

// View is a state of the ledger whose checkpoint was verified.
type View struct {
	batch.Tree
	Root       []byte
	Checkpoint string // as it was signed (C2SP tlog-checkpoint)
}

// OpenCheckpoint verifies a checkpoint: signed by the scheme's key for checkpoints, of a ledger of this scheme.
func OpenCheckpoint(t *keys.Trust, checkpoint string) (View, error) {
	bad := func(format string, args ...any) (View, error) {
		return View{}, fmt.Errorf("%w: %s", ErrCheckpoint, fmt.Sprintf(format, args...))
	}
	if len(checkpoint) > maxCheckpoint {
		return bad("%d bytes, at most %d", len(checkpoint), maxCheckpoint)
	}
	claimed, _, _ := strings.Cut(checkpoint, "\n")
	if base := LedgerOrigin(t.RootFingerprint()); claimed != base && !strings.HasPrefix(claimed, base+"/") {
		return bad("it is called %.80q, not %s", claimed, base)
	}
	verifiers, err := t.NoteVerifiers(claimed)
	if err != nil {
		return bad("%v", err)
	}
	n, err := note.Open([]byte(checkpoint), note.VerifierList(verifiers...))
	if err != nil {
		return bad("%v", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 { // origin, size, root, and the empty one behind the last line end
		return bad("it has too few lines")
	}
	v := View{Tree: batch.Tree{Origin: claimed}, Checkpoint: checkpoint}
	if v.Size, err = strconv.ParseUint(lines[1], 10, 63); err != nil || strconv.FormatUint(v.Size, 10) != lines[1] {
		return bad("its size is %.40q", lines[1])
	}
	if v.Root, err = base64.StdEncoding.Strict().DecodeString(lines[2]); err != nil || len(v.Root) != sha256.Size {
		return bad("its root is not a SHA-256")
	}
	return v, nil
}

// Includes checks that the ledger in this state holds an envelope.
func (v View) Includes(envelope []byte, in batch.Inclusion) error {
	leaf := sha256.Sum256(envelope)
	if v.Size == 0 || len(in.Hashes) > maxProof || in.Index >= v.Size {
		return ErrNoProof
	}
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, in.Index, v.Size, rfc6962.DefaultHasher.HashLeaf(leaf[:]), in.Hashes, v.Root); err != nil {
		return fmt.Errorf("%w (entry %d of %d)", ErrNoProof, in.Index, v.Size)
	}
	return nil
}

// Follows checks that this state is an earlier one with more added. hashes are the proof of that; none are needed when the tree is the same.
// Of a ledger with another name nothing can be said: anew is true then.
func (v View) Follows(earlier View, hashes [][]byte) (anew bool, err error) {
	switch {
	case earlier.Origin == "":
		return false, nil
	case earlier.Origin != v.Origin:
		return true, nil
	case v.Size < earlier.Size:
		return false, fmt.Errorf("%w: it had %d entries and has %d now", ErrFork, earlier.Size, v.Size)
	case earlier.Size == 0:
		return false, nil
	case len(hashes) > 2*maxProof:
		return false, fmt.Errorf("%w: the proof has %d hashes", ErrFork, len(hashes))
	}
	if err := proof.VerifyConsistency(rfc6962.DefaultHasher, earlier.Size, v.Size, hashes, earlier.Root, v.Root); err != nil {
		return false, fmt.Errorf("%w: from %d entries to %d", ErrFork, earlier.Size, v.Size)
	}
	return false, nil
}
