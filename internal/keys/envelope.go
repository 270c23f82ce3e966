package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// Errors of OpenEnvelope. Callers tell a damaged envelope from a wrong signer.
var (
	ErrEnvelope  = errors.New("not a DSSE envelope in canonical form")
	ErrSignature = errors.New("the signature does not verify")
)

// A Signer signs DSSE envelopes with one Ed25519 key. It is safe for concurrent use.
type Signer struct {
	id  string
	key ed25519.PrivateKey
}

// NewSigner returns a Signer for key.
func NewSigner(key ed25519.PrivateKey) *Signer {
	return &Signer{id: KeyID(key.Public().(ed25519.PublicKey)), key: key}
}

// Public returns the signer's public key.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// ID returns the signer's key id.
func (s *Signer) ID() string { return s.id }

// SignEnvelope returns payload in a DSSE envelope: one line of JSON without a newline. Ed25519 is deterministic, so the same payload always
// gives the same bytes.
func (s *Signer) SignEnvelope(payloadType string, payload []byte) ([]byte, error) {
	return SignEnvelope(payloadType, payload, s)
}

// SignEnvelope returns payload in a DSSE envelope signed by each of signers, in that order.
func SignEnvelope(payloadType string, payload []byte, signers ...*Signer) ([]byte, error) {
	if len(signers) == 0 {
		return nil, errors.New("sign envelope: no signer given")
	}
	env := dsse.Envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(payload)}
	pae := dsse.PAE(payloadType, payload)
	for _, s := range signers {
		env.Signatures = append(env.Signatures, dsse.Signature{KeyID: s.id, Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, pae))})
	}
	b, err := json.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("sign envelope: %w", err)
	}
	return b, nil
}

// OpenEnvelope returns the payload of an envelope of the given type that carries exactly one signature by each of pubs, in that order.
//
// Only the canonical form is taken: the bytes must be those which [SignEnvelope] writes for this payload and these keys. So an envelope
// cannot be respelled by someone without the key, and its SHA-256 is a name for the signed content.
func OpenEnvelope(envelope []byte, payloadType string, pubs ...ed25519.PublicKey) ([]byte, error) {
	env, payload, err := parseEnvelope(envelope, payloadType)
	if err != nil {
		return nil, err
	}
	if len(env.Signatures) != len(pubs) || len(pubs) == 0 {
		return nil, fmt.Errorf("%w: %d signatures where %d are asked for", ErrSignature, len(env.Signatures), len(pubs))
	}
	pae := dsse.PAE(payloadType, payload)
	for i, pub := range pubs {
		sig, err := base64.StdEncoding.Strict().DecodeString(env.Signatures[i].Sig)
		if err != nil || len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
			return nil, fmt.Errorf("%w: signature %d is not one of Ed25519", ErrSignature, i+1)
		}
		if env.Signatures[i].KeyID != KeyID(pub) {
			return nil, fmt.Errorf("%w: it is by key %.16s, not by %.16s", ErrSignature, env.Signatures[i].KeyID, KeyID(pub))
		}
		if !ed25519.Verify(pub, pae, sig) {
			return nil, ErrSignature
		}
	}
	return payload, nil
}

// PeekEnvelope returns the payload of an envelope without checking any signature. It is for documents that carry the key they are to be
// verified with (an enrolment request, a trust list); the caller must call [OpenEnvelope] with that key before it believes anything.
func PeekEnvelope(envelope []byte, payloadType string) ([]byte, error) {
	_, payload, err := parseEnvelope(envelope, payloadType)
	return payload, err
}

func parseEnvelope(envelope []byte, payloadType string) (*dsse.Envelope, []byte, error) {
	var env dsse.Envelope
	if err := json.Unmarshal(envelope, &env); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if again, err := json.Marshal(env); err != nil || !bytes.Equal(again, envelope) {
		return nil, nil, fmt.Errorf("%w: it is spelled differently (order, spaces, repeated or unknown members)", ErrEnvelope)
	}
	if env.PayloadType != payloadType {
		return nil, nil, fmt.Errorf("%w: the payload type is %.80q, not %q", ErrEnvelope, env.PayloadType, payloadType)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(env.Payload)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the payload is not base64: %w", ErrEnvelope, err)
	}
	return &env, payload, nil
}

// KeyID returns the hexadecimal SHA-256 of a public key's DER SubjectPublicKeyInfo.
func KeyID(pub ed25519.PublicKey) string {
	fp := Fingerprint(pub)
	return hex.EncodeToString(fp[:])
}

// Fingerprint returns the SHA-256 of an Ed25519 key's DER SubjectPublicKeyInfo.
func Fingerprint(pub ed25519.PublicKey) [32]byte { return sha256.Sum256(SPKI(pub)) }

// spkiPrefix is the DER of SEQUENCE{SEQUENCE{OID 1.3.101.112}, BIT STRING} before the 32 bytes of an Ed25519 key (RFC 8410, section 4).
var spkiPrefix = []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}

// SPKI returns the DER SubjectPublicKeyInfo of an Ed25519 public key.
func SPKI(pub ed25519.PublicKey) []byte {
	return append(append(make([]byte, 0, len(spkiPrefix)+len(pub)), spkiPrefix...), pub...)
}

// ParseSPKI is the inverse of [SPKI]; any other kind of key is an error.
func ParseSPKI(der []byte) (ed25519.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	pub, ok := k.(ed25519.PublicKey)
	if !ok || !bytes.Equal(SPKI(pub), der) {
		return nil, fmt.Errorf("public key: a %T where an Ed25519 key is needed", k)
	}
	return pub, nil
}
