// Package release is the signed list of what a release consists of: the version, and name, size and SHA-256 of every file.
//
// It reads and writes bytes and folders it is given, keeps no state, and opens no connection. The list is a DSSE envelope
// (release.json) in the one canonical form of package keys, signed by one or more release keys that are kept away from every network.
// Which keys those are comes with the packages (release-keys.json: keys and how many of them must sign); a list may name the set that
// follows it, when enough keys of both sets sign it, so that keys can be replaced and a lost one taken out.
//
// What it refuses, and why, follows The Update Framework's threats: a list without enough signatures (arbitrary software), one whose serial
// number is lower than one seen, or equal with other content (roll-back; two faces), one past its date (freeze: somebody holds newer ones
// back), a file of another length or digest (half-written, swapped, endless), and a name that is not one (a path).
package release

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"tocsin/internal/keys"

	"golang.org/x/mod/semver"
)

// Type is the DSSE payload type of a release list.
const Type = "application/vnd.tocsin.release.v1+json"

// Name is the list's file.
const Name = "release.json"

// Limits.
const (
	MaxList    = 256 << 10 // bytes of the envelope
	MaxProgram = 64 << 20  // bytes of a program
	maxFiles   = 256
	maxKeys    = 16
	// Life is how long a list may be believed when its maker says nothing else.
	Life = 180 * 24 * time.Hour
)

// Reasons for refusing a release.
var (
	ErrList      = errors.New("the list of the release is not valid")
	ErrUnsigned  = errors.New("the release is not signed by enough of the keys that may sign it")
	ErrExpired   = errors.New("the list of the release is too old to be believed")
	ErrRollback  = errors.New("the release is older than one that was seen before")
	ErrTwoFaces  = errors.New("another release was seen under the same serial number")
	ErrFile      = errors.New("the file is not the one that the release names")
	ErrNoFile    = errors.New("the release holds nothing for this kind of machine")
	ErrKeySet    = errors.New("the set of release keys is not valid")
	validName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)
	validVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)
)

// Kinds of files.
const (
	Program   = "program"
	Deb       = "deb"
	RPM       = "rpm"
	OCI       = "oci"
	Appliance = "appliance"
)

// File is one file of a release.
type File struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	OS     string `json:"os"`
	Arch   string `json:"arch"` // as Go names it: amd64, arm64
	Size   int64  `json:"size,string"`
	SHA256 string `json:"sha256"`
}

// KeySet are the keys that may sign, and how many of them must.
type KeySet struct {
	Threshold int      `json:"threshold"`
	Keys      []string `json:"keys"` // base64 of the SPKI
}

// List is a release.
type List struct {
	Format  int       `json:"format"` // 1
	Product string    `json:"product"`
	Version string    `json:"version"` // semantic, without v
	Serial  uint64    `json:"serial,string"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Notes   string    `json:"notes,omitempty"` // what changes, for those who decide whether to install it
	Files   []File    `json:"files"`
	Next    *KeySet   `json:"next,omitempty"` // the set that follows the one in force
}

// Product is the name of what is released here.
const Product = "tocsin-collector"

// pubs are the set's keys.
func (k *KeySet) pubs() ([]ed25519.PublicKey, error) {
	if k == nil || len(k.Keys) == 0 || len(k.Keys) > maxKeys || k.Threshold < 1 || k.Threshold > len(k.Keys) {
		return nil, fmt.Errorf("%w: it needs 1 to %d keys, and a threshold of at most as many", ErrKeySet, maxKeys)
	}
	seen := map[string]bool{}
	var out []ed25519.PublicKey
	for _, s := range k.Keys {
		der, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return nil, fmt.Errorf("%w: a key is not base64", ErrKeySet)
		}
		pub, err := keys.ParseSPKI(der)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKeySet, err)
		}
		if seen[s] {
			return nil, fmt.Errorf("%w: a key stands in it twice", ErrKeySet)
		}
		seen[s] = true
		out = append(out, pub)
	}
	return out, nil
}

// Set makes a key set.
func Set(threshold int, pubs ...ed25519.PublicKey) KeySet {
	k := KeySet{Threshold: threshold}
	for _, p := range pubs {
		k.Keys = append(k.Keys, base64.StdEncoding.EncodeToString(keys.SPKI(p)))
	}
	return k
}

// Encode gives release-keys.json.
func (k KeySet) Encode() ([]byte, error) {
	if _, err := k.pubs(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(k, "", "  ")
	return append(b, '\n'), err
}

// ReadKeySet reads release-keys.json.
func ReadKeySet(path string) (KeySet, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return KeySet{}, fmt.Errorf("release keys: %w", err)
	}
	var k KeySet
	if err := strict(b, &k); err != nil {
		return KeySet{}, fmt.Errorf("release keys: %s: %w: %w", path, ErrKeySet, err)
	}
	if _, err := k.pubs(); err != nil {
		return KeySet{}, fmt.Errorf("release keys: %s: %w", path, err)
	}
	return k, nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// Check says what is wrong with a list.
func (l *List) Check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrList}, args...)...)
	}
	switch {
	case l.Format != 1:
		return bad("it is of format %d, this program knows format 1", l.Format)
	case l.Product != Product:
		return bad("it is of %.40q", l.Product)
	case !validVersion.MatchString(l.Version) || !semver.IsValid("v"+l.Version):
		return bad("%.40q is not a version such as 1.2.3", l.Version)
	case l.Serial == 0:
		return bad("it has no serial number")
	case !l.Expires.After(l.Issued):
		return bad("it ends before it begins")
	case len(l.Files) == 0 || len(l.Files) > maxFiles:
		return bad("it names %d files", len(l.Files))
	case len(l.Notes) > 16<<10:
		return bad("its notes are too long")
	}
	names := map[string]bool{}
	for _, f := range l.Files {
		sum, err := hex.DecodeString(f.SHA256)
		if !validName.MatchString(f.Name) || f.Name == Name || names[f.Name] || err != nil || len(sum) != sha256.Size || f.Size < 1 || f.Kind == Program && f.Size > MaxProgram {
			return bad("the file %.60q: name, size or digest", f.Name)
		}
		names[f.Name] = true
	}
	if l.Next != nil {
		if _, err := l.Next.pubs(); err != nil {
			return bad("the keys that follow: %w", err)
		}
	}
	return nil
}

// Sign gives the list in an envelope.
func Sign(l List, signers ...*keys.Signer) ([]byte, error) {
	if err := l.Check(); err != nil {
		return nil, fmt.Errorf("sign release: %w", err)
	}
	payload, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("sign release: %w", err)
	}
	return keys.SignEnvelope(Type, payload, signers...)
}

// Seen is what is known of the releases before.
type Seen struct {
	Serial uint64 `json:"serial,string"`
	Digest string `json:"digest"` // hexadecimal SHA-256 of that list's envelope
}

// Open verifies a list by the keys in force, and that it is neither older than one seen nor past its date.
func Open(envelope []byte, set KeySet, seen Seen, now time.Time) (List, error) {
	var l List
	if len(envelope) > MaxList {
		return l, fmt.Errorf("release: %w: %d bytes, at most %d", ErrList, len(envelope), MaxList)
	}
	payload, err := keys.PeekEnvelope(envelope, Type)
	if err != nil {
		return l, fmt.Errorf("release: %w", err)
	}
	var claimed List
	if err := strict(payload, &claimed); err != nil {
		return l, fmt.Errorf("release: %w: %w", ErrList, err)
	}
	if err := signed(envelope, set, claimed.Next); err != nil {
		return l, fmt.Errorf("release: %w", err)
	}
	// From here on it is believed to be what the holders of the keys meant.
	if err := claimed.Check(); err != nil {
		return l, fmt.Errorf("release: %w", err)
	}
	digest := sha256.Sum256(envelope)
	switch {
	case claimed.Serial < seen.Serial:
		return l, fmt.Errorf("release %s: %w: number %d, seen was %d", claimed.Version, ErrRollback, claimed.Serial, seen.Serial)
	case claimed.Serial == seen.Serial && seen.Digest != hex.EncodeToString(digest[:]):
		return l, fmt.Errorf("release %s: %w: number %d", claimed.Version, ErrTwoFaces, claimed.Serial)
	case !now.Before(claimed.Expires):
		return l, fmt.Errorf("release %s: %w: it could be believed until %s. Either nothing new has been released, or somebody holds it back", claimed.Version, ErrExpired, claimed.Expires.UTC().Format(time.DateOnly))
	}
	return claimed, nil
}

// signed demands enough signatures of the set, and of the set that follows if there is one; every signature must be by a known key.
func signed(envelope []byte, set KeySet, next *KeySet) error {
	var e struct {
		Signatures []struct {
			KeyID string `json:"keyid"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return err
	}
	if len(e.Signatures) == 0 || len(e.Signatures) > 2*maxKeys {
		return fmt.Errorf("%w: %d signatures", ErrUnsigned, len(e.Signatures))
	}
	type member struct {
		pub       ed25519.PublicKey
		now, then bool
	}
	known := map[string]*member{}
	add := func(k *KeySet, mark func(*member)) error {
		pubs, err := k.pubs()
		if err != nil {
			return err
		}
		for _, p := range pubs {
			m := known[keys.KeyID(p)]
			if m == nil {
				m = &member{pub: p}
				known[keys.KeyID(p)] = m
			}
			mark(m)
		}
		return nil
	}
	if err := add(&set, func(m *member) { m.now = true }); err != nil {
		return err
	}
	if next != nil {
		if err := add(next, func(m *member) { m.then = true }); err != nil {
			return err
		}
	}
	var pubs []ed25519.PublicKey
	now, then := 0, 0
	used := map[string]bool{}
	for _, s := range e.Signatures {
		m := known[s.KeyID]
		if m == nil || used[s.KeyID] {
			return fmt.Errorf("%w: it is signed by the key %.16s, which is not one of them, or twice", ErrUnsigned, s.KeyID)
		}
		used[s.KeyID] = true
		pubs = append(pubs, m.pub)
		if m.now {
			now++
		}
		if m.then {
			then++
		}
	}
	if now < set.Threshold {
		return fmt.Errorf("%w: %d of the %d needed", ErrUnsigned, now, set.Threshold)
	}
	if next != nil && then < next.Threshold {
		return fmt.Errorf("%w: %d of the %d needed of the keys that are to follow", ErrUnsigned, then, next.Threshold)
	}
	if _, err := keys.OpenEnvelope(envelope, Type, pubs...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsigned, err)
	}
	return nil
}

// For gives the file of a kind for a machine.
func (l *List) For(kind, goos, arch string) (File, error) {
	for _, f := range l.Files {
		if f.Kind == kind && f.OS == goos && f.Arch == arch {
			return f, nil
		}
	}
	return File{}, fmt.Errorf("release %s: %w: %s for %s/%s", l.Version, ErrNoFile, kind, goos, arch)
}

// Copy copies src to dst as long as it is the file that the release names: never more bytes than named, and an error unless size and digest
// are right at the end. dst holds unverified bytes until Copy returns nil.
func (f *File) Copy(dst io.Writer, src io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(dst, h), io.LimitReader(src, f.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", f.Name, err)
	case n > f.Size:
		return fmt.Errorf("%s: %w: it is longer than %d bytes", f.Name, ErrFile, f.Size)
	case n < f.Size:
		return fmt.Errorf("%s: %w: %d of %d bytes", f.Name, ErrFile, n, f.Size)
	case hex.EncodeToString(h.Sum(nil)) != f.SHA256:
		return fmt.Errorf("%s: %w: its digest is another", f.Name, ErrFile)
	}
	return nil
}

// Check verifies the file in dir.
func (f *File) Check(dir string) error {
	if !validName.MatchString(f.Name) {
		return fmt.Errorf("%w: %q is no file name", ErrFile, f.Name)
	}
	r, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return err
	}
	defer r.Close()
	return f.Copy(io.Discard, r)
}

// Describe gives name, size and digest of the file at path.
func Describe(path, kind, goos, arch string) (File, error) {
	r, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return File{}, err
	}
	return File{Name: filepath.Base(path), Kind: kind, OS: goos, Arch: arch, Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// Newer says whether version a is newer than b. A version that is none, as of a program built by hand, is newer than nothing and older than
// nothing.
func Newer(a, b string) bool {
	return semver.IsValid("v"+a) && semver.IsValid("v"+b) && semver.Compare("v"+a, "v"+b) > 0
}
