package keys

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
)

// OfflineSigner opens one of the keys that are kept away from the hub, in the folder that `tocsin admin init` gave them. It must be the
// active one of the trust list: collectors obey no other.
func OfflineSigner(offline string, t *Trust, p Purpose) (*Signer, error) {
	if !slices.Contains(OfflinePurposes, p) || p.ecdsa() {
		return nil, fmt.Errorf("open %s key: it is not kept offline", p)
	}
	k, err := readEd25519(filepath.Join(offline, string(p)+".key"))
	if err != nil {
		return nil, fmt.Errorf("open %s key: %w", p, err)
	}
	s := NewSigner(k)
	if !bytes.Equal(SPKI(s.Public()), t.ActiveSPKI(p)) {
		return nil, fmt.Errorf("open %s key: the key in %s is not the one that this scheme's collectors obey", p, offline)
	}
	return s, nil
}
