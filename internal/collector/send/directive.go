package send

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
)

// DirectiveType is the DSSE payload type of what the hub may make a collector do.
const DirectiveType = "application/vnd.tocsin.directive.v1+json"

// IndicatorSet is the type of the directive that carries an indicator set. It is signed with the key for indicator sets.
const IndicatorSet = "indicator-set"

// Directive is the payload. A collector takes one whose type it asked for, that is meant for it or for all, that has not expired, and whose
// version is not lower than that of the one it holds.
type Directive struct {
	Type     string    `json:"type"`
	Audience string    `json:"audience"` // a collector's id, or "*"
	Version  uint64    `json:"version,string"`
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Content  []byte    `json:"content"` // of an indicator set: what package indicator builds
}

// ErrDirective means that a directive is not for this collector, now.
var ErrDirective = errors.New("the directive is refused")

// SignDirective puts a directive into its envelope. The hub calls it.
func SignDirective(d Directive, s batch.Signer) ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return s.SignEnvelope(DirectiveType, b)
}

// OpenDirective verifies a directive: signature by the key of its purpose, type, audience, expiry. The caller compares versions.
func OpenDirective(envelope []byte, trust *keys.Trust, kind, collector string, now time.Time) (Directive, error) {
	purpose := map[string]keys.Purpose{IndicatorSet: keys.IndicatorSets}[kind]
	payload, err := trust.Verify(envelope, DirectiveType, purpose)
	if err != nil {
		return Directive{}, fmt.Errorf("open directive: %w", err)
	}
	if err := batch.CheckObject(payload); err != nil {
		return Directive{}, fmt.Errorf("open directive: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	var d Directive
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("open directive: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return d, fmt.Errorf("open directive: %w: something follows it", ErrDirective)
	}
	switch {
	case d.Type != kind:
		return d, fmt.Errorf("open directive: %w: it is a %.40q, not a %s", ErrDirective, d.Type, kind)
	case d.Audience != "*" && d.Audience != collector:
		return d, fmt.Errorf("open directive: %w: it is for another collector", ErrDirective)
	case d.Version == 0:
		return d, fmt.Errorf("open directive: %w: it has no version", ErrDirective)
	case !now.Before(d.Expires):
		return d, fmt.Errorf("open directive: %w: it expired on %s", ErrDirective, d.Expires.Format(time.DateOnly))
	}
	return d, nil
}
