package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ReleaseKeyFile is the file of a key that signs releases, away from every machine that is on a network.
const ReleaseKeyFile = "release.key"

// CreateReleaseKey makes a release key in dir and its public half, base64 of the SPKI, in release.pub beside it. It never replaces a key.
func CreateReleaseKey(dir string) (*Signer, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("create release key: %w", err)
	}
	path := filepath.Join(dir, ReleaseKeyFile)
	if ok, err := exists(path); err != nil {
		return nil, fmt.Errorf("create release key: %w", err)
	} else if ok {
		return nil, fmt.Errorf("create release key: %w: %s holds one already; name another folder", os.ErrExist, path)
	}
	k, err := newEd25519()
	if err != nil {
		return nil, fmt.Errorf("create release key: %w", err)
	}
	if err := writeKey(path, k); err != nil {
		return nil, fmt.Errorf("create release key: %w", err)
	}
	s := NewSigner(k)
	pub := base64.StdEncoding.EncodeToString(SPKI(s.Public())) + "\n"
	if err := writeFile(filepath.Join(dir, "release.pub"), []byte(pub)); err != nil {
		return nil, fmt.Errorf("create release key: %w", err)
	}
	return s, nil
}

// OpenReleaseKey opens the release key in dir.
func OpenReleaseKey(dir string) (*Signer, error) {
	k, err := readEd25519(filepath.Join(dir, ReleaseKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open release key: %w: is the medium with the release key in the machine?", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open release key: %w", err)
	}
	return NewSigner(k), nil
}
