package app

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tocsin/internal/directive"
	"tocsin/internal/keys"
)

// directives are the signed packs and questions in DATA_DIR/directives, one envelope a file. They are signed away from the hub and put there
// by `tocsin admin`; the hub only hands them out, each to the collectors it is for, until it expires. A file that does not verify is passed
// over. It is safe for concurrent use.
type directives struct {
	dir   string
	trust func() *keys.Trust

	mu   sync.Mutex
	read time.Time // when the folder was last looked at
	list []Directive
}

// Directive is one of them.
type Directive struct {
	keys.Directive
	File     string
	Envelope []byte `json:"-"`
}

// DirectiveDir is the folder of signed directives.
func DirectiveDir(dataDir string) string { return filepath.Join(dataDir, "directives") }

// AddDirective verifies a signed directive against the scheme's trust list and puts it where the running hub finds it.
func AddDirective(dataDir string, t *keys.Trust, kind string, envelope []byte) (keys.Directive, error) {
	p, ok := directive.Purpose(kind)
	if !ok {
		return keys.Directive{}, fmt.Errorf("there is no directive %q", kind)
	}
	d, err := openFor(t, p, envelope)
	if err != nil {
		return d, err
	}
	if err := os.MkdirAll(DirectiveDir(dataDir), 0o700); err != nil {
		return d, err
	}
	name := filepath.Join(DirectiveDir(dataDir), fmt.Sprintf("%s-%020d-%s.json", d.Type, d.Version, strings.ReplaceAll(d.Audience, "*", "all")))
	if err := os.WriteFile(name+".tmp", envelope, 0o600); err != nil {
		return d, err
	}
	return d, os.Rename(name+".tmp", name)
}

// openFor opens an envelope whoever it is for.
func openFor(t *keys.Trust, p keys.Purpose, envelope []byte) (keys.Directive, error) {
	audience, err := keys.PeekAudience(envelope)
	if err != nil {
		return keys.Directive{}, err
	}
	return t.OpenDirective(envelope, p, audience, time.Now())
}

// ListDirectives reads and verifies all that are in force, oldest version first.
func ListDirectives(dataDir string, t *keys.Trust) ([]Directive, error) {
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
		for _, p := range []keys.Purpose{keys.Packs, keys.Questions} {
			d, err := openFor(t, p, b)
			if want, ok := directive.Purpose(d.Type); err != nil || !ok || want != p {
				continue
			}
			out = append(out, Directive{Directive: d, File: e.Name(), Envelope: b})
		}
	}
	slices.SortStableFunc(out, func(a, b Directive) int { return cmp.Compare(a.Version, b.Version) })
	return out, nil
}

// rescan is how old the view of the folder may be.
const rescan = 5 * time.Second

// For gives the envelopes for a collector: the newest pack of each kind that is for it, and every question, and a tag that changes with them.
func (d *directives) For(collector string) (envelopes [][]byte, tag string) {
	d.mu.Lock()
	if now := time.Now(); now.Sub(d.read).Abs() > rescan {
		if list, err := ListDirectives(d.dir, d.trust()); err == nil {
			d.list = list
		}
		d.read = now
	}
	list := d.list
	d.mu.Unlock()
	newest := map[string]int{}
	var chosen []int
	for i := range list {
		x := &list[i]
		if x.Audience != keys.Everybody && x.Audience != collector || !time.Now().Before(x.Expires) {
			continue
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
	var names []string
	for _, i := range chosen {
		envelopes = append(envelopes, list[i].Envelope)
		names = append(names, list[i].Type[:1]+strconv.FormatUint(list[i].Version, 36))
	}
	return envelopes, "d" + strings.Join(names, ".")
}
