// Package directive is what stands in the signed directives by which a hub may ask something of collectors: packs of rules and of parsers, and
// questions about the past (look-backs). The envelope around it, its signature, audience, version and end are in package keys; indicator sets
// in package indicator.
//
// Both ends use it: whoever signs, offline, checks with it what the collector will check again, because a collector trusts a hub no further
// than this. It reads and writes bytes only, keeps nothing and counts nothing.
package directive

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

// Types of directives, and the purpose whose key signs each.
const (
	Rules    = "rule-pack"   // keys.Packs; content: a pack of Sigma rules
	Parsers  = "parser-pack" // keys.Packs; content: a pack of product descriptions
	LookBack = "look-back"   // keys.Questions; content: a Question
	// RuleChanges: keys.Packs; content: what is switched off, excepted or changed of the rules on a site (package layers), all of it. Whoever can switch off
	// a site's rules must not be the hub alone.
	RuleChanges = "rule-changes"
)

// Purpose says whose key must have signed a type; ok is false for types this version does not know.
func Purpose(kind string) (p keys.Purpose, ok bool) {
	switch kind {
	case Rules, Parsers, RuleChanges:
		return keys.Packs, true
	case LookBack:
		return keys.Questions, true
	}
	return "", false
}

// Limits.
const (
	MaxPack      = 8 << 20  // bytes of a pack as signed
	maxUnpacked  = 32 << 20 // bytes of its files
	maxFiles     = 8192
	maxFile      = 1 << 20
	maxValues    = 1000 // indicators of one question
	maxRule      = 64 << 10
	maxSentence  = 1000
	maxSpan      = 400 * 24 * time.Hour
	MaxHits      = 10_000 // events that one answer may hold, whatever the question says
	defaultHits  = 1000
	maxReference = 200
)

// ErrPack and ErrQuestion mean that what was signed is not usable.
var (
	ErrPack     = errors.New("the pack is not valid")
	ErrQuestion = errors.New("the question is not valid")
)

// Pack puts the files of a folder into a pack. The same files give the same bytes.
func Pack(files fs.FS) ([]byte, error) {
	var names []string
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the folder: %w", err)
	}
	slices.Sort(names)
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read the folder: %w", err)
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if _, err := Unpack(out.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Unpack opens a pack within its limits.
func Unpack(b []byte) (fs.FS, error) {
	if len(b) > MaxPack {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPack, len(b), MaxPack)
	}
	r, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPack, err)
	}
	if len(r.File) == 0 || len(r.File) > maxFiles {
		return nil, fmt.Errorf("%w: %d files; there may be 1 to %d", ErrPack, len(r.File), maxFiles)
	}
	out := fstest.MapFS{}
	total := 0
	for _, f := range r.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		if !fs.ValidPath(f.Name) || path.Clean(f.Name) != f.Name || !f.Mode().IsRegular() || out[f.Name] != nil {
			return nil, fmt.Errorf("%w: a file's name is %.60q", ErrPack, f.Name)
		}
		rc, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrPack, f.Name, err)
		}
		data, err := io.ReadAll(io.LimitReader(rc, maxFile+1)) // the header's size is only a claim
		rc.Close()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrPack, f.Name, err)
		}
		if total += len(data); len(data) > maxFile || total > maxUnpacked {
			return nil, fmt.Errorf("%w: %s: more than %d bytes in a file or %d in all", ErrPack, f.Name, maxFile, maxUnpacked)
		}
		out[f.Name] = &fstest.MapFile{Data: data, Mode: 0o444}
	}
	return out, nil
}

// Authority is under what right a question is asked. It is shown to the member and kept with the answer.
type Authority struct {
	Regime    string    `json:"regime"` // uk-gdpr or dpa2018-part3
	Basis     string    `json:"basis"`
	Reference string    `json:"reference"`
	Approver  string    `json:"approver"`
	Expires   time.Time `json:"expires,omitzero"`
}

// Question is a look-back: which of the lines that a site still keeps touch an indicator, or match a rule.
type Question struct {
	ID         string    `json:"id"` // 32 hexadecimal digits
	Asked      time.Time `json:"asked"`
	By         string    `json:"by"`      // who asks
	Purpose    string    `json:"purpose"` // why, in plain words for the member
	Authority  Authority `json:"authority"`
	Indicators []string  `json:"indicators,omitempty"` // addresses, ranges, domains, web addresses, file digests; or
	Rule       string    `json:"rule,omitempty"`       // one Sigma rule
	From       time.Time `json:"from"`                 // of receipt at the collector
	To         time.Time `json:"to"`
	MaxHits    int       `json:"max_hits"` // events that an answer may hold; 0: 1000
}

// NewID makes a question's id.
func NewID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand does not fail on the systems Go supports
	}
	return hex.EncodeToString(b[:])
}

// Encode checks a question and writes it.
func (q *Question) Encode() ([]byte, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	return json.Marshal(q)
}

// ParseQuestion reads a question and checks it.
func ParseQuestion(b []byte) (*Question, error) {
	var q Question
	if err := json.Unmarshal(b, &q); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrQuestion, err)
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	return &q, nil
}

func (q *Question) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrQuestion, fmt.Sprintf(format, args...))
	}
	if b, err := hex.DecodeString(q.ID); err != nil || len(b) != 16 {
		return bad("its id is not 32 hexadecimal digits")
	}
	if strings.TrimSpace(q.Purpose) == "" || len(q.Purpose) > maxSentence {
		return bad("it must say in at most %d characters why it is asked", maxSentence)
	}
	if strings.TrimSpace(q.By) == "" || len(q.By) > maxReference {
		return bad("it must say who asks")
	}
	a := q.Authority
	if a.Regime != "uk-gdpr" && a.Regime != "dpa2018-part3" {
		return bad("the authority's regime is uk-gdpr or dpa2018-part3")
	}
	for _, s := range []string{a.Basis, a.Reference, a.Approver} {
		if strings.TrimSpace(s) == "" || len(s) > maxReference {
			return bad("the authority needs a basis, a reference and an approver")
		}
	}
	if !q.To.After(q.From) || q.To.Sub(q.From) > maxSpan {
		return bad("its time range must end after it begins, and span at most 400 days")
	}
	if q.MaxHits < 0 || q.MaxHits > MaxHits {
		return bad("an answer may hold 1 to %d events", MaxHits)
	}
	switch {
	case (len(q.Indicators) == 0) == (q.Rule == ""):
		return bad("it must ask for indicators or with one rule, not both")
	case len(q.Indicators) > maxValues:
		return bad("more than %d indicators", maxValues)
	case len(q.Rule) > maxRule:
		return bad("the rule is longer than %d bytes", maxRule)
	}
	_, err := q.Entries()
	return err
}

// Hits is how many events an answer may hold.
func (q *Question) Hits() int {
	if q.MaxHits == 0 {
		return defaultHits
	}
	return q.MaxHits
}

// Entries are the question's indicators. What would match half the internet, or the member's own networks, is refused.
func (q *Question) Entries() ([]indicator.Entry, error) {
	var out []indicator.Entry
	for _, v := range q.Indicators {
		k, err := indicator.Guess(v)
		if err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrQuestion, v, err)
		}
		out = append(out, indicator.Entry{Kind: k, Value: v})
		if p, err := netip.ParsePrefix(v); err == nil && (p.Addr().Is4() && p.Bits() < 16 || p.Addr().Is6() && p.Bits() < 32) {
			return nil, fmt.Errorf("%w: %s is wider than /16 (IPv6 /32)", ErrQuestion, v)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	if _, err := indicator.Build([16]byte{1}, out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrQuestion, err)
	}
	return out, nil
}
