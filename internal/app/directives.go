package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/directive"
	"tocsin/internal/durable"
	"tocsin/internal/keys"
	"tocsin/internal/ledger"
)

// directives are the signed packs and questions in DATA_DIR/directives, one envelope a file. They are signed away from the hub and put there
// by `tocsin admin`; the hub enters them in the ledger and hands them out, each to the collectors it is for, until it expires. A collector
// takes none without the proof that it stands in the ledger, so that nothing can be asked of one site in secret; what is not under a
// checkpoint yet waits. A file that does not verify is passed over. It is safe for concurrent use.
type directives struct {
	dir    string
	trust  func() *keys.Trust
	ledger func() *ledger.Ledger
	log    *slog.Logger

	mu      sync.Mutex
	looked  time.Time // at the folder
	changed time.Time // the folder's own time when it was read
	read    time.Time // when that was
	list    []Directive
	entered map[[32]byte]bool // envelopes that a checkpoint of the ledger called origin covers
	origin  string
}

// Directive is one of them.
type Directive struct {
	keys.Directive
	File     string
	Envelope []byte   `json:"-"`
	digest   [32]byte // of the envelope: its entry in the ledger
}

// DirectiveDir is the folder of signed directives.
func DirectiveDir(dataDir string) string { return filepath.Join(dataDir, "directives") }

// audience is what a collector's id looks like; a file is named after it.
var audience = regexp.MustCompile(`^[0-9a-f-]{36}$`)

// AddDirective verifies a signed directive against the scheme's trust list and puts it where the running hub finds it.
func AddDirective(dataDir string, t *keys.Trust, kind string, envelope []byte) (keys.Directive, error) {
	p, ok := directive.Purpose(kind)
	if !ok {
		return keys.Directive{}, fmt.Errorf("there is no directive %q", kind)
	}
	d, err := openFor(t, p, envelope, time.Now())
	if err != nil {
		return d, err
	}
	if d.Audience != keys.Everybody && !audience.MatchString(d.Audience) {
		return d, fmt.Errorf("%w: %.60q is not a collector's id", keys.ErrDirective, d.Audience)
	}
	if err := os.MkdirAll(DirectiveDir(dataDir), 0o700); err != nil {
		return d, err
	}
	name := filepath.Join(DirectiveDir(dataDir), fmt.Sprintf("%s-%020d-%s.json", d.Type, d.Version, strings.ReplaceAll(d.Audience, "*", "all")))
	return d, durable.Replace(name, envelope, 0o600)
}

// openFor opens an envelope whoever it is for. At the zero time none has expired.
func openFor(t *keys.Trust, p keys.Purpose, envelope []byte, now time.Time) (keys.Directive, error) {
	audience, err := keys.PeekAudience(envelope)
	if err != nil {
		return keys.Directive{}, err
	}
	return t.OpenDirective(envelope, p, audience, now)
}

// ListDirectives reads and verifies all that are in force at a time, oldest version first. At the zero time none has expired.
func ListDirectives(dataDir string, t *keys.Trust, now time.Time) ([]Directive, error) {
	entries, err := os.ReadDir(DirectiveDir(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Directive
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		info, err := e.Info()
		if err != nil || info.Size() > 2*directive.MaxPack {
			continue
		}
		b, err := os.ReadFile(filepath.Join(DirectiveDir(dataDir), e.Name()))
		if err != nil {
			continue
		}
		b = bytes.TrimSpace(b)
		for _, p := range []keys.Purpose{keys.Packs, keys.Questions} {
			d, err := openFor(t, p, b, now)
			if want, ok := directive.Purpose(d.Type); err != nil || !ok || want != p {
				continue
			}
			out = append(out, Directive{Directive: d, File: e.Name(), Envelope: b, digest: sha256.Sum256(b)})
		}
	}
	slices.SortStableFunc(out, func(a, b Directive) int { return cmp.Compare(a.Version, b.Version) })
	return out, nil
}

// The folder is looked at every second, and its files are read and verified when it has changed, and now and then in any case.
const (
	rescan = time.Second
	reread = time.Minute
)

// Digests are the SHA-256 of the envelopes in force, for the ledger to enter.
func (d *directives) Digests() [][32]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	out := make([][32]byte, len(d.list))
	for i := range d.list {
		out[i] = d.list[i].digest
	}
	return out
}

// look reads the folder again when it is time.
func (d *directives) look() {
	now := time.Now()
	if now.Sub(d.looked).Abs() < rescan {
		return
	}
	d.looked = now
	var changed time.Time // zero: there is no folder
	if i, err := os.Stat(DirectiveDir(d.dir)); err == nil {
		changed = i.ModTime()
	}
	if changed.Equal(d.changed) && now.Sub(d.read).Abs() < reread {
		return
	}
	list, err := ListDirectives(d.dir, d.trust(), now)
	if err != nil {
		d.log.Error("the folder of directives cannot be read; what was read before is handed out", "err", err)
		return
	}
	d.list, d.changed, d.read = list, changed, now
}

// inForce gives those for a collector that the ledger's newest checkpoint covers: the newest pack of each kind, and every question.
func (d *directives) inForce(ctx context.Context, l *ledger.Ledger, collector string) ([]Directive, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	if d.entered == nil || d.origin != l.Origin() {
		d.entered, d.origin = map[[32]byte]bool{}, l.Origin()
	}
	newest := map[string]int{}
	var chosen []int
	for i := range d.list {
		x := &d.list[i]
		if x.Audience != keys.Everybody && x.Audience != collector || !time.Now().Before(x.Expires) {
			continue
		}
		if !d.entered[x.digest] {
			if _, err := l.Prove(ctx, x.digest); errors.Is(err, ledger.ErrNotFound) {
				continue // at the next look
			} else if err != nil {
				return nil, err
			}
			d.entered[x.digest] = true
		}
		if x.Type == directive.LookBack {
			chosen = append(chosen, i)
			continue
		}
		newest[x.Type] = i // the list is in the order of versions
	}
	for _, i := range newest {
		chosen = append(chosen, i)
	}
	slices.Sort(chosen)
	out := make([]Directive, len(chosen))
	for n, i := range chosen {
		out[n] = d.list[i]
	}
	return out, nil
}

// For gives the envelopes for a collector with their proofs, and a tag that changes with them; only the tag when it is have.
func (d *directives) For(ctx context.Context, collector, have string, seen batch.Tree) (out batch.Directives, tag string, err error) {
	l := d.ledger()
	list, err := d.inForce(ctx, l, collector)
	if err != nil {
		return out, "", err
	}
	h := sha256.New()
	h.Write([]byte(l.Origin()))
	for i := range list {
		h.Write(list[i].digest[:])
	}
	if tag = hex.EncodeToString(h.Sum(nil)[:16]); tag == have || len(list) == 0 {
		return out, tag, nil
	}
	checkpoint, err := l.Latest(ctx)
	if err != nil {
		return out, "", err
	}
	for i := range list {
		p, err := l.ProveAt(ctx, list[i].digest, checkpoint)
		if err != nil {
			return out, "", err
		}
		out.Directives = append(out.Directives, list[i].Envelope)
		out.Proofs = append(out.Proofs, batch.Inclusion{Index: p.Index, Hashes: p.Hashes})
	}
	out.Checkpoint = string(checkpoint)
	if seen.Origin == l.Origin() {
		out.Consistency, err = l.Consistency(ctx, seen.Size, checkpoint)
	}
	return out, tag, err
}
