// Package ruleset keeps sets of detection rules that others write, beside those that are built in: it takes them in only when they are proved
// to be what the operator means, shows what changes, and can go back.
//
// It reads archives, folders and addresses it is given, and writes below one folder:
//
//	local/                    the operator's own rules, YAML; nothing here writes it
//	sets/NAME/set.json        which version is in force, and which was before
//	sets/NAME/VERSION/        the files of one version, and its manifest.json
//
// A version's folder is complete before set.json names it, and set.json is replaced as a whole: a crash at any moment leaves the version that
// was in force. What a crash leaves beside it (a folder named .new-*) is removed by the next update. It counts nothing.
package ruleset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/durable"
)

// Errors a caller decides on; what is returned wraps them in a sentence.
var (
	ErrInvalid  = errors.New("invalid")
	ErrUnproved = errors.New("nothing proves where these rules come from")
	ErrProof    = errors.New("the proof does not hold")
	ErrArchive  = errors.New("the archive is not one that can be taken")
	ErrNoSet    = errors.New("there is no such set of rules")
	ErrOlder    = errors.New("the rules are older than those that are in force")
)

// Manifest is what is known of one version.
type Manifest struct {
	Name      string    `json:"name"`
	Version   string    `json:"version"` // from the digest of its files
	From      string    `json:"from"`    // the file, folder or address it came from
	SHA256    string    `json:"sha256"`  // of what was given: the archive, or names and contents of the folder's files of rules
	SignedBy  string    `json:"signed_by,omitempty"`
	Issued    time.Time `json:"issued,omitzero"` // by the signer
	Installed time.Time `json:"installed"`
	Files     int       `json:"files"`
	Rules     int       `json:"rules"`
	LeftOut   []LeftOut `json:"left_out,omitempty"` // files that cannot be used
}

// LeftOut is a file that cannot be used.
type LeftOut struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// Set is one set as it stands.
type Set struct {
	Name     string    `json:"name"`
	Current  Manifest  `json:"current"`
	Previous *Manifest `json:"previous,omitempty"` // what a roll-back puts in force
}

// pointer is set.json.
type pointer struct {
	Current  string `json:"current"`
	Previous string `json:"previous,omitempty"`
}

// Store is the folder. Its methods may be called by one program at a time; the running hub only reads (Sources).
type Store struct{ dir string }

// Open gives the store in dir, which need not exist yet.
func Open(dir string) *Store { return &Store{dir} }

// Local is where the operator's own rules lie.
func (s *Store) Local() string { return filepath.Join(s.dir, "local") }

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (s *Store) set(name string) string { return filepath.Join(s.dir, "sets", name) }

// Sources are the folders that the hub's rules come from, besides those built in: each set's version in force, then the operator's own.
func (s *Store) Sources() ([]detect.Source, error) {
	sets, err := s.Sets()
	if err != nil {
		return nil, err
	}
	var out []detect.Source
	for _, x := range sets {
		out = append(out, s.source(x.Current))
	}
	if st, err := os.Stat(s.Local()); err == nil && st.IsDir() {
		out = append(out, detect.Source{Name: "local", FS: os.DirFS(s.Local()), Upstream: true})
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return out, nil
}

func (s *Store) source(m Manifest) detect.Source {
	skip := map[string]bool{}
	for _, x := range m.LeftOut {
		skip[x.File] = true
	}
	return detect.Source{Name: m.Name, FS: os.DirFS(filepath.Join(s.set(m.Name), m.Version)), Upstream: true, Skip: skip}
}

// Sets lists the sets, by name.
func (s *Store) Sets() ([]Set, error) {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "sets"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Set
	for _, d := range dirs {
		if !d.IsDir() || !validName.MatchString(d.Name()) {
			continue
		}
		x, err := s.Get(d.Name())
		if errors.Is(err, ErrNoSet) {
			continue // its first update was cut short
		}
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// Get gives one set.
func (s *Store) Get(name string) (Set, error) {
	if !validName.MatchString(name) {
		return Set{}, fmt.Errorf("%w: the name of a set is %q; it must be lower-case letters, digits and hyphens, such as sigmahq", ErrInvalid, name)
	}
	p, err := s.pointer(name)
	if err != nil {
		return Set{}, err
	}
	x := Set{Name: name}
	if x.Current, err = s.manifest(name, p.Current); err != nil {
		return Set{}, err
	}
	if p.Previous != "" {
		// Without it there is only nothing to go back to.
		if m, err := s.manifest(name, p.Previous); err == nil {
			x.Previous = &m
		}
	}
	return x, nil
}

func (s *Store) pointer(name string) (pointer, error) {
	var p pointer
	b, err := os.ReadFile(filepath.Join(s.set(name), "set.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("%w: %s", ErrNoSet, name)
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil || !validVersion.MatchString(p.Current) || p.Previous != "" && !validVersion.MatchString(p.Previous) {
		return p, fmt.Errorf("%s is damaged; take the set in again with `tocsin rules update`", filepath.Join(s.set(name), "set.json"))
	}
	return p, nil
}

var validVersion = regexp.MustCompile(`^[0-9a-f]{16}$`)

const manifestFile = "manifest.json"

func (s *Store) manifest(name, version string) (Manifest, error) {
	path := filepath.Join(s.set(name), version, manifestFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil || m.Name != name || m.Version != version {
		return Manifest{}, fmt.Errorf("%s is damaged; take the set in again with `tocsin rules update`", path)
	}
	return m, nil
}

func (s *Store) point(name string, p pointer) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(s.set(name), "set.json"), append(b, '\n'), 0o600)
}

// RollBack puts the version before in force again, and the one in force in its place: a second roll-back undoes the first.
func (s *Store) RollBack(name string) (now, before Manifest, err error) {
	x, err := s.Get(name)
	if err != nil {
		return now, before, err
	}
	if x.Previous == nil {
		return now, before, fmt.Errorf("%w: %s has only one version; take it out with `tocsin rules remove %s` if it does harm", ErrInvalid, name, name)
	}
	return *x.Previous, x.Current, s.point(name, pointer{Current: x.Previous.Version, Previous: x.Current.Version})
}

// Remove takes a set out, with all its versions.
func (s *Store) Remove(name string) (Set, error) {
	x, err := s.Get(name)
	if err != nil {
		return x, err
	}
	if err := os.Remove(filepath.Join(s.set(name), "set.json")); err != nil { // from here on it is not in force
		return x, err
	}
	return x, os.RemoveAll(s.set(name))
}

// tidy removes versions that nothing names.
func (s *Store) tidy(name string) error {
	p, err := s.pointer(name)
	if err != nil {
		return err
	}
	dirs, err := os.ReadDir(s.set(name))
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range dirs {
		if d.IsDir() && !slices.Contains([]string{p.Current, p.Previous}, d.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.set(name), d.Name())))
		}
	}
	return errors.Join(errs...)
}
