package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Purpose is the one thing a key may be used for.
type Purpose string

// The purposes of a trust list. The first five are the hub's; the last three are signed with away from the hub (except in the demo).
const (
	HubTLS        Purpose = "hub-tls"        // ECDSA P-256: the gate's TLS key
	CollectorCA   Purpose = "collector-ca"   // ECDSA P-256: issues collectors' client certificates
	Receipts      Purpose = "receipts"       // Ed25519: acknowledgements
	Checkpoints   Purpose = "checkpoints"    // Ed25519: the ledger's tree heads
	IndicatorSets Purpose = "indicator-sets" // Ed25519: what collectors match against
	Packs         Purpose = "packs"          // Ed25519: rule and parser packs
	Questions     Purpose = "questions"      // Ed25519: look-backs
	Commands      Purpose = "commands"       // Ed25519: everything else asked of a collector
)

// HubPurposes lists the keys kept on the hub, OfflinePurposes those kept away from it, both without the scheme root.
var (
	HubPurposes     = []Purpose{HubTLS, CollectorCA, Receipts, Checkpoints, IndicatorSets}
	OfflinePurposes = []Purpose{Packs, Questions, Commands}
)

func (p Purpose) ecdsa() bool { return p == HubTLS || p == CollectorCA }

func (p Purpose) known() bool {
	return slices.Contains(HubPurposes, p) || slices.Contains(OfflinePurposes, p)
}

// TrustType is the DSSE payload type of a trust list.
const TrustType = "application/vnd.tocsin.trust.v1+json"

// MaxTrust is the largest trust document taken from outside, bundle included, in bytes.
const MaxTrust = 1 << 20

// Reasons for refusing a trust list.
var (
	ErrTrustOlder   = errors.New("the trust list is older than the one already held")
	ErrTrustForked  = errors.New("two trust lists carry the same version")
	ErrTrustRoot    = errors.New("the trust list is not signed by the scheme root that this side knows")
	ErrTrustInvalid = errors.New("the trust list is not valid")
)

// TrustList is the document the scheme root signs.
type TrustList struct {
	Format       int          `json:"format"`                  // 1
	Scheme       string       `json:"scheme"`                  // the scheme's name, for people
	Version      uint64       `json:"version"`                 // rises by at least one with every list
	Created      time.Time    `json:"created"`                 // UTC
	Root         []byte       `json:"root"`                    // SPKI of the root that signs this list
	PreviousRoot []byte       `json:"previous_root,omitempty"` // SPKI of the root before, in a rotation only: both sign it
	Keys         []TrustedKey `json:"keys"`
	Crit         []string     `json:"crit,omitempty"` // members a reader must understand or refuse the list
}

// TrustedKey is one key and its purpose. A key with Until set is retired: it verifies what was signed before then, and is never used for TLS.
type TrustedKey struct {
	Purpose Purpose    `json:"purpose"`
	SPKI    []byte     `json:"spki"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
}

// TrustBundle is the trust list in force with the root rotations that lead to it, oldest first, as envelopes. It is the answer to
// GET /v1/trust and the file trust.json.
type TrustBundle struct {
	Rotations []json.RawMessage `json:"rotations"`
	Current   json.RawMessage   `json:"current"`
}

// Trust is a verified trust list together with the bundle it came in. Values are immutable.
type Trust struct {
	List   TrustList
	Bundle []byte   // the bundle's bytes as received
	Digest [32]byte // of the current envelope
	root   ed25519.PublicKey
}

// Root returns the scheme root's public key.
func (t *Trust) Root() ed25519.PublicKey { return t.root }

// RootFingerprint returns the SHA-256 of the root's SPKI, as an enrolment token carries it.
func (t *Trust) RootFingerprint() [32]byte { return Fingerprint(t.root) }

// Ed25519 returns the keys of a purpose, the active one first, then the retired ones.
func (t *Trust) Ed25519(p Purpose) []ed25519.PublicKey {
	var out []ed25519.PublicKey
	for _, k := range t.List.Keys {
		if k.Purpose != p || p.ecdsa() {
			continue
		}
		pub, err := ParseSPKI(k.SPKI)
		if err != nil {
			continue // parseTrust has checked them all
		}
		if k.Until == nil {
			out = slices.Insert(out, 0, pub)
		} else {
			out = append(out, pub)
		}
	}
	return out
}

// ActiveSPKI returns the SPKI of the active key of a purpose.
func (t *Trust) ActiveSPKI(p Purpose) []byte {
	for _, k := range t.List.Keys {
		if k.Purpose == p && k.Until == nil {
			return k.SPKI
		}
	}
	return nil
}

// Verify opens an envelope that one of the keys of purpose p signed, retired ones included.
func (t *Trust) Verify(envelope []byte, payloadType string, p Purpose) ([]byte, error) {
	err := fmt.Errorf("%w: the trust list has no key for %s", ErrSignature, p)
	for _, pub := range t.Ed25519(p) {
		var payload []byte
		if payload, err = OpenEnvelope(envelope, payloadType, pub); err == nil {
			return payload, nil
		}
	}
	return nil, err
}

func parseTrust(payload []byte) (*TrustList, error) {
	var l TrustList
	if err := decodeStrict(payload, &l, true); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrustInvalid, err)
	}
	if l.Format != 1 {
		return nil, fmt.Errorf("%w: format %d is not known to this program; upgrade it", ErrTrustInvalid, l.Format)
	}
	if len(l.Crit) > 0 {
		return nil, fmt.Errorf("%w: it needs %.200q to be understood; upgrade this program", ErrTrustInvalid, l.Crit)
	}
	if l.Version == 0 || len(l.Scheme) > 200 || len(l.Keys) > 1000 {
		return nil, fmt.Errorf("%w: version, scheme or number of keys out of range", ErrTrustInvalid)
	}
	active := map[Purpose]bool{}
	for _, k := range l.Keys {
		if k.Purpose.ecdsa() {
			pub, err := x509.ParsePKIXPublicKey(k.SPKI)
			if err != nil {
				return nil, fmt.Errorf("%w: key for %s: %w", ErrTrustInvalid, k.Purpose, err)
			}
			if e, ok := pub.(*ecdsa.PublicKey); !ok || e.Curve != elliptic.P256() {
				return nil, fmt.Errorf("%w: key for %s is not ECDSA P-256", ErrTrustInvalid, k.Purpose)
			}
		} else if k.Purpose.known() {
			if _, err := ParseSPKI(k.SPKI); err != nil {
				return nil, fmt.Errorf("%w: key for %s: %w", ErrTrustInvalid, k.Purpose, err)
			}
		}
		if k.Until == nil {
			if active[k.Purpose] {
				return nil, fmt.Errorf("%w: two active keys for %s", ErrTrustInvalid, k.Purpose)
			}
			active[k.Purpose] = true
		}
	}
	return &l, nil
}

// openList verifies one envelope: by the root it names and, in a rotation, by the root before as well.
func openList(envelope []byte) (list *TrustList, root, previous ed25519.PublicKey, err error) {
	payload, err := PeekEnvelope(envelope, TrustType)
	if err != nil {
		return nil, nil, nil, err
	}
	if list, err = parseTrust(payload); err != nil {
		return nil, nil, nil, err
	}
	if root, err = ParseSPKI(list.Root); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: root: %w", ErrTrustInvalid, err)
	}
	if len(list.PreviousRoot) == 0 {
		_, err = OpenEnvelope(envelope, TrustType, root)
		return list, root, nil, err
	}
	if previous, err = ParseSPKI(list.PreviousRoot); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: previous root: %w", ErrTrustInvalid, err)
	}
	_, err = OpenEnvelope(envelope, TrustType, previous, root)
	return list, root, previous, err
}

// FirstTrust verifies a bundle against a root fingerprint, at first contact or when opening one's own file.
func FirstTrust(bundle []byte, root [32]byte) (*Trust, error) {
	return openBundle(bundle, root, nil)
}

// Advance verifies a bundle against the trust already held and returns the newer one. It is an error if the bundle is older
// ([ErrTrustOlder]), has the same version with another content ([ErrTrustForked]), or does not descend from the known root ([ErrTrustRoot]).
func (t *Trust) Advance(bundle []byte) (*Trust, error) {
	return openBundle(bundle, t.RootFingerprint(), t)
}

func openBundle(bundle []byte, known [32]byte, held *Trust) (*Trust, error) {
	if len(bundle) > MaxTrust {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTrustInvalid, len(bundle), MaxTrust)
	}
	var b TrustBundle
	if err := decodeStrict(bundle, &b, true); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrustInvalid, err)
	}
	if len(b.Rotations) > 64 {
		return nil, fmt.Errorf("%w: %d rotations, at most 64", ErrTrustInvalid, len(b.Rotations))
	}
	var last uint64
	for _, env := range b.Rotations {
		list, root, previous, err := openList(env)
		if err != nil {
			return nil, err
		}
		if previous == nil || list.Version <= last {
			return nil, fmt.Errorf("%w: its rotations are not in order", ErrTrustInvalid)
		}
		last = list.Version
		if Fingerprint(previous) == known {
			known = Fingerprint(root)
		}
	}
	list, root, previous, err := openList(b.Current)
	if err != nil {
		return nil, err
	}
	if list.Version <= last {
		return nil, fmt.Errorf("%w: its rotations are not in order", ErrTrustInvalid)
	}
	if fp := Fingerprint(root); fp != known && (previous == nil || Fingerprint(previous) != known) {
		return nil, ErrTrustRoot
	}
	t := &Trust{List: *list, Bundle: bytes.Clone(bundle), Digest: sha256.Sum256(b.Current), root: root}
	if held != nil {
		if list.Version < held.List.Version {
			return nil, fmt.Errorf("%w: version %d, held is %d", ErrTrustOlder, list.Version, held.List.Version)
		}
		if list.Version == held.List.Version && t.Digest != held.Digest {
			return nil, fmt.Errorf("%w: version %d", ErrTrustForked, list.Version)
		}
	}
	return t, nil
}

// decodeStrict decodes one JSON value without trailing data. Unknown members are refused unless lax.
func decodeStrict(b []byte, v any, lax bool) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if !lax {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() || len(bytes.TrimSpace(b[d.InputOffset():])) > 0 {
		return errors.New("more after the end of the document")
	}
	return nil
}
