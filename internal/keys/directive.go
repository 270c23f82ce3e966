package keys

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// DirectiveType is the DSSE payload type of everything the hub may make a collector do.
const DirectiveType = "application/vnd.tocsin.directive.v1+json"

// Directive types of this version.
const IndicatorSet = "indicator-set" // Content: a set of format 1 (package indicator)

// Everybody is the audience of a directive for all collectors.
const Everybody = "*"

// Reasons for refusing a directive.
var (
	ErrDirective        = errors.New("the directive is not valid")
	ErrDirectiveExpired = errors.New("the directive has expired")
)

// Directive is the one signed envelope in which packs, sets, questions and commands come to collectors.
type Directive struct {
	Type     string    `json:"type"`
	Audience string    `json:"audience"`       // Everybody or a collector's UUID
	Version  uint64    `json:"version,string"` // rises with each directive of a type
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Content  []byte    `json:"content"`
}

// SignDirective returns d in an envelope.
func SignDirective(s *Signer, d Directive) ([]byte, error) {
	if d.Type == "" || d.Audience == "" || d.Version == 0 || !d.Expires.After(d.Issued) {
		return nil, fmt.Errorf("%w: type, audience, version and a time to live must be there", ErrDirective)
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return SignEnvelope(DirectiveType, payload, s)
}

// OpenDirective verifies a directive by the active key of a purpose and checks that it is for this collector and in force. That its version
// does not go back is for the caller to check, who knows the one before.
func (t *Trust) OpenDirective(envelope []byte, p Purpose, collector string, now time.Time) (Directive, error) {
	// Only the active key: one that was retired, perhaps because it was lost, must not make a collector do anything any more.
	pub, err := ParseSPKI(t.ActiveSPKI(p))
	if err != nil {
		return Directive{}, fmt.Errorf("%w: the trust list has no key for %s", ErrSignature, p)
	}
	payload, err := OpenEnvelope(envelope, DirectiveType, pub)
	if err != nil {
		return Directive{}, err
	}
	var d Directive
	if err := json.Unmarshal(payload, &d); err != nil {
		return Directive{}, fmt.Errorf("%w: %w", ErrDirective, err)
	}
	switch {
	case d.Type == "" || d.Version == 0:
		return Directive{}, fmt.Errorf("%w: it has no type or version", ErrDirective)
	case d.Audience != Everybody && d.Audience != collector:
		return Directive{}, fmt.Errorf("%w: it is for another collector", ErrDirective)
	case !now.Before(d.Expires):
		return Directive{}, fmt.Errorf("%w on %s", ErrDirectiveExpired, d.Expires.UTC().Format(time.RFC3339))
	}
	return d, nil
}

// PeekAudience says whom a directive claims to be for, before its signature is looked at.
func PeekAudience(envelope []byte) (string, error) {
	payload, err := PeekEnvelope(envelope, DirectiveType)
	if err != nil {
		return "", err
	}
	var d Directive
	if err := json.Unmarshal(payload, &d); err != nil {
		return "", fmt.Errorf("%w: %w", ErrDirective, err)
	}
	return d.Audience, nil
}
