package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrPermissions means that others on the machine could read a private key.
var ErrPermissions = errors.New("a private key is readable by others")

// makeDir makes dir with mode 0700, or checks that it has no more than that. A folder it made is durable on return: what is in a folder is
// lost with the folder's name.
func makeDir(dir string) error {
	there, err := exists(dir)
	if err != nil {
		return fmt.Errorf("make key folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make key folder: %w", err)
	}
	if !there {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("make key folder: %w", err)
		}
	}
	return checkMode(dir)
}

// checkMode refuses a file or folder that group or others may touch: ssh does the same, and for the same reason.
func checkMode(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.Mode().Perm()&0o077 != 0 {
		want := "600"
		if st.IsDir() {
			want = "700"
		}
		return fmt.Errorf("%w: %s has mode %04o. Run: chmod %s %s", ErrPermissions, path, st.Mode().Perm(), want, path)
	}
	return nil
}

// writeFile replaces path by data so that a crash leaves the old file or the new one, and is durable on return.
func writeFile(path string, data []byte) error {
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, data []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func newECDSA() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newEd25519() (ed25519.PrivateKey, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	return k, err
}

func marshalKey(k crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func writeKey(path string, k crypto.PrivateKey) error {
	b, err := marshalKey(k)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := writeFile(path, b); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

func readKey(path string) (crypto.Signer, error) {
	if err := checkMode(path); err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	p, rest := pem.Decode(b)
	if p == nil || p.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("read key: %s is not one PKCS #8 PEM block; restore it from the key backup", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key: %s: %w; restore it from the key backup", path, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read key: %s holds a %T, which cannot sign", path, k)
	}
	return s, nil
}

func readEd25519(path string) (ed25519.PrivateKey, error) {
	s, err := readKey(path)
	if err != nil {
		return nil, err
	}
	k, ok := s.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key: %s holds a %T, not an Ed25519 key", path, s)
	}
	return k, nil
}

func readECDSA(path string) (*ecdsa.PrivateKey, error) {
	s, err := readKey(path)
	if err != nil {
		return nil, err
	}
	k, ok := s.(*ecdsa.PrivateKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, fmt.Errorf("read key: %s holds a %T, not an ECDSA P-256 key", path, s)
	}
	return k, nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Secret returns the 32 random bytes of dir/NAME.secret and makes them if there are none, durable on return. It is for secrets that one side
// keeps for itself and that sign nothing: a collector's digest and pseudonym keys, the hub's key for what it seals in its database.
func Secret(dir, name string) ([32]byte, error) {
	var out [32]byte
	if name == "" || strings.ContainsAny(name, "/\\. ") {
		return out, fmt.Errorf("secret %q: not a name", name)
	}
	if err := makeDir(dir); err != nil {
		return out, fmt.Errorf("secret %s: %w", name, err)
	}
	path := filepath.Join(dir, name+".secret")
	if ok, err := exists(path); err != nil {
		return out, fmt.Errorf("secret %s: %w", name, err)
	} else if !ok {
		if _, err := rand.Read(out[:]); err != nil {
			return out, fmt.Errorf("secret %s: %w", name, err)
		}
		tmp, err := writeTemp(path, fmt.Appendf(nil, "%x\n", out))
		if err != nil {
			return out, fmt.Errorf("secret %s: %w", name, err)
		}
		defer os.Remove(tmp)
		// Of two programs that make it at once, both must go on with the same one.
		if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
			return out, fmt.Errorf("secret %s: %w", name, err)
		}
		if err := syncDir(dir); err != nil {
			return out, fmt.Errorf("secret %s: %w", name, err)
		}
	}
	if err := checkMode(path); err != nil {
		return out, fmt.Errorf("secret %s: %w", name, err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return out, fmt.Errorf("secret %s: %w", name, err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != len(out) {
		return out, fmt.Errorf("secret %s: %s is damaged; restore it from the key backup", name, path)
	}
	return [32]byte(raw), nil
}

// RecordsKey returns the key under which the hub seals secrets in its database (dir/records.secret), made on first use.
func RecordsKey(dir string) ([32]byte, error) { return Secret(dir, "records") }
