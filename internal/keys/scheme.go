package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	trustFile = "trust.json"
	rootFile  = "root.key"
	caFile    = "collector-ca.crt"

	nextRootFile = "root.next.key"
)

// ErrNoScheme means that a key folder holds no scheme yet.
var ErrNoScheme = errors.New("no scheme has been created here")

// SchemeOptions says where a new scheme's keys go.
type SchemeOptions struct {
	Dir     string    // the hub's key folder
	Offline string    // the folder of the scheme root, packs, questions and commands: another medium, except in the demo
	Name    string    // the scheme's name, shown to people
	Now     time.Time // when the keys begin
}

// CreateScheme makes every key of a new scheme and its first trust list. It refuses a folder that already holds a scheme. A crash leaves a
// folder without trust.json; calling again begins anew.
func CreateScheme(o SchemeOptions) (*Trust, error) {
	if o.Name == "" || o.Dir == "" || o.Offline == "" || o.Now.IsZero() {
		return nil, errors.New("create scheme: the name, both folders and the time must be given")
	}
	if err := makeDir(o.Dir); err != nil {
		return nil, fmt.Errorf("create scheme: %w", err)
	}
	if err := makeDir(o.Offline); err != nil {
		return nil, fmt.Errorf("create scheme: %w", err)
	}
	if ok, err := exists(filepath.Join(o.Dir, trustFile)); err != nil {
		return nil, fmt.Errorf("create scheme: %w", err)
	} else if ok {
		return nil, fmt.Errorf("create scheme: %s already holds a scheme; its keys are never replaced by creating another", o.Dir)
	}
	root, err := newEd25519()
	if err != nil {
		return nil, fmt.Errorf("create scheme: %w", err)
	}
	if err := writeKey(filepath.Join(o.Offline, rootFile), root); err != nil {
		return nil, fmt.Errorf("create scheme: %w", err)
	}
	list := TrustList{Format: 1, Scheme: o.Name, Version: 1, Created: o.Now.UTC(), Root: SPKI(root.Public().(ed25519.PublicKey))}
	for _, p := range append(slices.Clone(HubPurposes), OfflinePurposes...) {
		dir := o.Dir
		if slices.Contains(OfflinePurposes, p) {
			dir = o.Offline
		}
		spki, err := makePurpose(dir, p, o.Name, o.Now)
		if err != nil {
			return nil, fmt.Errorf("create scheme: %w", err)
		}
		list.Keys = append(list.Keys, TrustedKey{Purpose: p, SPKI: spki, Since: o.Now.UTC()})
	}
	t, err := publish(o.Dir, nil, list, NewSigner(root))
	if err != nil {
		return nil, fmt.Errorf("create scheme: %w", err)
	}
	return t, nil
}

// makePurpose makes and writes the key of one purpose and returns its SPKI.
func makePurpose(dir string, p Purpose, scheme string, now time.Time) ([]byte, error) {
	var k crypto.Signer
	var err error
	if p.ecdsa() {
		k, err = newECDSA()
	} else {
		k, err = newEd25519()
	}
	if err != nil {
		return nil, err
	}
	if p == CollectorCA {
		der, err := selfSignCA(k.(*ecdsa.PrivateKey), scheme, now)
		if err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(dir, caFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
			return nil, err
		}
	}
	if err := writeKey(filepath.Join(dir, string(p)+".key"), k); err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(k.Public())
}

// publish signs list, adds it to the bundle of held (nil at first) and writes trust.json.
func publish(dir string, held *Trust, list TrustList, signers ...*Signer) (*Trust, error) {
	payload, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	env, err := SignEnvelope(TrustType, payload, signers...)
	if err != nil {
		return nil, err
	}
	b := TrustBundle{Rotations: []json.RawMessage{}, Current: env}
	if held != nil {
		var old TrustBundle
		if err := decodeStrict(held.Bundle, &old, true); err != nil {
			return nil, err
		}
		b.Rotations = append(b.Rotations, old.Rotations...)
		if len(held.List.PreviousRoot) > 0 { // the list now replaced was a rotation: those who missed it need it
			b.Rotations = append(b.Rotations, old.Current)
		}
	}
	bundle, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	var t *Trust
	if held == nil {
		t, err = FirstTrust(bundle, Fingerprint(signers[0].Public()))
	} else {
		t, err = held.Advance(bundle)
	}
	if err != nil {
		return nil, err
	}
	return t, writeFile(filepath.Join(dir, trustFile), bundle)
}

// RotateKey replaces the key of one purpose and publishes a list that retires the old one. It needs the offline folder. dir is the hub's.
func RotateKey(dir, offline string, p Purpose, now time.Time) (*Trust, error) {
	if !p.known() {
		return nil, fmt.Errorf("rotate key: there is no purpose %q", p)
	}
	held, err := ReadTrust(dir)
	if err != nil {
		return nil, fmt.Errorf("rotate %s key: %w", p, err)
	}
	root, err := openRoot(offline, held)
	if err != nil {
		return nil, fmt.Errorf("rotate %s key: %w", p, err)
	}
	where := dir
	if slices.Contains(OfflinePurposes, p) {
		where = offline
	}
	// A rotation that crashed after its list was out left the active key under the next one's name: it gets its own before that is used again.
	if err := finishRotation(where, p, held); err != nil {
		return nil, fmt.Errorf("rotate %s key: %w", p, err)
	}
	// The new key is written beside the old one and takes its place after the list is out; Open accepts either in between.
	spki, err := makePurposeNext(where, p, held.List.Scheme, now)
	if err != nil {
		return nil, fmt.Errorf("rotate %s key: %w", p, err)
	}
	list := nextList(held, now)
	until := now.UTC()
	for i := range list.Keys {
		if list.Keys[i].Purpose == p && list.Keys[i].Until == nil {
			list.Keys[i].Until = &until
		}
	}
	list.Keys = append(list.Keys, TrustedKey{Purpose: p, SPKI: spki, Since: now.UTC()})
	t, err := publish(dir, held, list, root)
	if err != nil {
		return nil, fmt.Errorf("rotate %s key: %w", p, err)
	}
	if err := adoptNext(where, p); err != nil {
		return nil, fmt.Errorf("rotate %s key: %w", p, err)
	}
	return t, nil
}

// RotateRoot replaces the scheme root. Old and new root sign the list that says so.
func RotateRoot(dir, offline string, now time.Time) (*Trust, error) {
	held, err := ReadTrust(dir)
	if err != nil {
		return nil, fmt.Errorf("rotate root: %w", err)
	}
	old, err := openRoot(offline, held)
	if err != nil {
		return nil, fmt.Errorf("rotate root: %w", err)
	}
	k, err := newEd25519()
	if err != nil {
		return nil, fmt.Errorf("rotate root: %w", err)
	}
	next := filepath.Join(offline, nextRootFile)
	if err := writeKey(next, k); err != nil {
		return nil, fmt.Errorf("rotate root: %w", err)
	}
	list := nextList(held, now)
	list.PreviousRoot, list.Root = held.List.Root, SPKI(k.Public().(ed25519.PublicKey))
	t, err := publish(dir, held, list, old, NewSigner(k))
	if err != nil {
		return nil, fmt.Errorf("rotate root: %w", err)
	}
	if err := os.Rename(next, filepath.Join(offline, rootFile)); err != nil {
		return nil, fmt.Errorf("rotate root: the list is published; rename %s to %s by hand: %w", next, rootFile, err)
	}
	return t, syncDir(offline)
}

func nextList(held *Trust, now time.Time) TrustList {
	l := held.List
	l.Version++
	l.Created = now.UTC()
	l.PreviousRoot = nil
	l.Keys = slices.Clone(l.Keys)
	return l
}

func openRoot(offline string, held *Trust) (*Signer, error) {
	if err := checkMode(offline); err != nil {
		return nil, err
	}
	for _, name := range []string{rootFile, nextRootFile} { // the second after a crash in RotateRoot
		k, err := readEd25519(filepath.Join(offline, name))
		if err == nil && Fingerprint(k.Public().(ed25519.PublicKey)) == held.RootFingerprint() {
			if name == nextRootFile {
				// Its only copy must not stand where the next rotation writes.
				if err := errors.Join(os.Rename(filepath.Join(offline, name), filepath.Join(offline, rootFile)), syncDir(offline)); err != nil {
					return nil, err
				}
			}
			return NewSigner(k), nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s does not hold the root of this scheme (fingerprint %.16x); bring the medium it is kept on", offline, held.RootFingerprint())
}

func nextName(p Purpose) string { return string(p) + ".next" }

func makePurposeNext(dir string, p Purpose, scheme string, now time.Time) ([]byte, error) {
	var k crypto.Signer
	var err error
	if p.ecdsa() {
		k, err = newECDSA()
	} else {
		k, err = newEd25519()
	}
	if err != nil {
		return nil, err
	}
	if p == CollectorCA {
		der, err := selfSignCA(k.(*ecdsa.PrivateKey), scheme, now)
		if err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(dir, nextName(p)+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
			return nil, err
		}
	}
	if err := writeKey(filepath.Join(dir, nextName(p)+".key"), k); err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(k.Public())
}

// finishRotation adopts the next key if it is the one that the list in force names.
func finishRotation(dir string, p Purpose, held *Trust) error {
	k, err := readKey(filepath.Join(dir, nextName(p)+".key"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return err
	}
	if !slices.Equal(spki, held.ActiveSPKI(p)) {
		return nil // of a rotation whose list never came out
	}
	return adoptNext(dir, p)
}

func adoptNext(dir string, p Purpose) error {
	if p == CollectorCA {
		if err := os.Rename(filepath.Join(dir, nextName(p)+".crt"), filepath.Join(dir, caFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(filepath.Join(dir, nextName(p)+".key"), filepath.Join(dir, string(p)+".key")); err != nil {
		return err
	}
	return syncDir(dir)
}

// ReadTrust reads and verifies the hub's own trust.json. The root is taken from the file itself: whoever can write the hub's key folder
// needs no forged list.
func ReadTrust(dir string) (*Trust, error) {
	b, err := os.ReadFile(filepath.Join(dir, trustFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s has no %s", ErrNoScheme, dir, trustFile)
	} else if err != nil {
		return nil, err
	}
	var bundle TrustBundle
	if err := decodeStrict(b, &bundle, true); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", trustFile, ErrTrustInvalid, err)
	}
	_, root, _, err := openList(bundle.Current)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", trustFile, err)
	}
	return FirstTrust(b, Fingerprint(root))
}

// A Ring holds the opened keys of one role and the trust list. It is safe for concurrent use.
type Ring struct {
	trust *Trust
	keys  map[Purpose]crypto.Signer
	ca    *x509.Certificate
}

// Open opens the keys of the given purposes in dir and no others: a role that does not issue certificates cannot, whatever its code does.
// Each key must be the active one of the trust list.
func Open(dir string, purposes ...Purpose) (*Ring, error) {
	if err := checkMode(dir); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open keys: %w: there is no folder %s", ErrNoScheme, dir)
	} else if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	t, err := ReadTrust(dir)
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	r := &Ring{trust: t, keys: map[Purpose]crypto.Signer{}}
	for _, p := range purposes {
		if err := r.open(dir, p); err != nil {
			return nil, fmt.Errorf("open %s key: %w", p, err)
		}
	}
	return r, nil
}

func (r *Ring) open(dir string, p Purpose) error {
	for _, name := range []string{string(p), nextName(p)} { // the second after a crash in RotateKey
		k, err := readKey(filepath.Join(dir, name+".key"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		spki, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			return err
		}
		if !slices.Equal(spki, r.trust.ActiveSPKI(p)) {
			continue
		}
		r.keys[p] = k
		if p == CollectorCA {
			r.ca, err = readCA(dir, spki)
		}
		return err
	}
	return fmt.Errorf("%s has no key that trust list %d names for it; restore it from the key backup or rotate it", dir, r.trust.List.Version)
}

// readCA returns the authority's certificate for its active key. A crash in RotateKey may leave key and certificate under names that do not
// go together, so the key decides.
func readCA(dir string, spki []byte) (*x509.Certificate, error) {
	for _, name := range []string{caFile, nextName(CollectorCA) + ".crt"} {
		c, err := readCert(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		if slices.Equal(c.RawSubjectPublicKeyInfo, spki) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s holds no certificate of the collector authority's key; restore %s from the key backup", dir, caFile)
}

// Trust returns the trust list the ring was opened with.
func (r *Ring) Trust() *Trust { return r.trust }

// Signer returns the DSSE signer of an Ed25519 purpose that the ring was opened for.
func (r *Ring) Signer(p Purpose) (*Signer, error) {
	k, ok := r.keys[p].(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("this role did not open an Ed25519 key for %s", p)
	}
	return NewSigner(k), nil
}

// NoteSigner returns the checkpoints key as a signer of the signed note format (C2SP signed-note) under the given log origin.
func (r *Ring) NoteSigner(origin string) (note.Signer, error) {
	k, ok := r.keys[Checkpoints].(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("this role did not open the checkpoints key")
	}
	return noteSigner(origin, k)
}

// algEd25519 is the signed note format's number for Ed25519.
const algEd25519 = 1

func noteSigner(origin string, k ed25519.PrivateKey) (note.Signer, error) {
	vkey, err := note.NewEd25519VerifierKey(origin, k.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("checkpoint signer: %w", err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("checkpoint signer: %w", err)
	}
	var hash [4]byte
	binary.BigEndian.PutUint32(hash[:], v.KeyHash())
	skey := fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", origin, hash, base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, k.Seed()...)))
	s, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("checkpoint signer: %w", err)
	}
	return s, nil
}

// NoteVerifiers returns verifiers for the checkpoints keys of the trust list under the given origin, the active one first.
func (t *Trust) NoteVerifiers(origin string) ([]note.Verifier, error) {
	var out []note.Verifier
	for _, pub := range t.Ed25519(Checkpoints) {
		vkey, err := note.NewEd25519VerifierKey(origin, pub)
		if err != nil {
			return nil, fmt.Errorf("checkpoint verifier: %w", err)
		}
		v, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, fmt.Errorf("checkpoint verifier: %w", err)
		}
		out = append(out, v)
	}
	return out, nil
}

// HubCertificate makes a self-signed certificate for the hub-tls key. Collectors look at the key, not at names or dates; the names are for
// people who look at the connection with other tools.
func (r *Ring) HubCertificate(hosts []string, now time.Time) (tls.Certificate, error) {
	k, ok := r.keys[HubTLS].(*ecdsa.PrivateKey)
	if !ok {
		return tls.Certificate{}, errors.New("this role did not open the hub-tls key")
	}
	return selfSignHub(k, r.trust.List.Scheme, hosts, now)
}

// CA returns the collector authority.
func (r *Ring) CA() (*CA, error) {
	k, ok := r.keys[CollectorCA].(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("this role did not open the collector-ca key")
	}
	return &CA{cert: r.ca, key: k}, nil
}
