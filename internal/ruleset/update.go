package ruleset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/durable"
	"tocsin/sigma"
)

// UpdateOptions say what is taken in, and under which conditions.
type UpdateOptions struct {
	Name  string // of the set
	From  string // folder, archive or https address
	Proof Proof
	Only  []string // folders of the archive; none: all, or those named rules… where there are such
	// MinLevel leaves out rules below a level; "" takes all.
	MinLevel string
	// BuiltIn are the rules that run beside the set: an id that both have is refused.
	BuiltIn []detect.Source
	Client  *http.Client // nil: the default one
	Now     time.Time
}

// Rule is one rule in a list of changes.
type Rule struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Level string `json:"level"`
	File  string `json:"file"`
}

// Changes are what an update does to a set.
type Changes struct {
	Added   []Rule    `json:"added"`
	Changed []Rule    `json:"changed"`
	Removed []Rule    `json:"removed"`
	Same    int       `json:"same"`
	LeftOut []LeftOut `json:"left_out"` // files that cannot be used, with the reason
	Skipped int       `json:"skipped"`  // rules below the level
}

// Staged is an update that was proved and compiled and waits for a yes.
type Staged struct {
	store    *Store
	set      string
	files    files
	Manifest Manifest
	Before   *Manifest // in force now
	Changes  Changes
}

// Stage reads, proves and compiles, and writes nothing.
func (s *Store) Stage(ctx context.Context, o UpdateOptions) (*Staged, error) {
	if !validName.MatchString(o.Name) || o.Name == "local" || o.Name == "built-in" {
		return nil, fmt.Errorf("%w: the name of a set is %q; it must be lower-case letters, digits and hyphens, such as sigmahq", ErrInvalid, o.Name)
	}
	least, err := levelOf(o.MinLevel)
	if err != nil {
		return nil, err
	}
	g, err := read(ctx, o.From, o.Client, o.Proof.Signature == nil && len(o.Proof.Keys) > 0)
	if err != nil {
		return nil, err
	}
	if o.Proof.Signature == nil {
		o.Proof.Signature = g.signature
	}
	if g.archive == nil && o.Proof.Signature != nil {
		return nil, fmt.Errorf("%w: a folder cannot be signed; pack it as tar.gz, or give --sha256", ErrInvalid)
	}
	by, issued, err := o.Proof.check(g.archive, g.sum)
	if errors.Is(err, ErrUnproved) {
		what := "archive"
		if g.archive == nil {
			what = "folder's files of rules"
		}
		return nil, fmt.Errorf("%w. Give --sha256 with the checksum that their maker publishes, or --key with the key that signs them. The SHA-256 of this %s is %s: compare it with the maker's own before you use it", ErrUnproved, what, g.sum)
	}
	if err != nil {
		return nil, err
	}
	if g.archive != nil {
		if g.files, err = unpack(g.archive, usual); err != nil {
			return nil, err
		}
	}
	st := &Staged{store: s, set: o.Name, files: g.files.only(o.Only)}
	if len(st.files) == 0 {
		return nil, fmt.Errorf("%w: there is no file of rules (.yml or .yaml) in it", ErrInvalid)
	}
	switch x, err := s.Get(o.Name); {
	case errors.Is(err, ErrNoSet):
	case err != nil:
		return nil, err
	default:
		st.Before = &x.Current
		if !issued.IsZero() && issued.Before(x.Current.Issued) {
			return nil, fmt.Errorf("%w: these were signed on %s, those in force on %s. To go back, use `tocsin rules rollback %s`", ErrOlder, issued.Format(time.DateTime), x.Current.Issued.Format(time.DateTime), o.Name)
		}
	}
	st.Manifest = Manifest{Name: o.Name, From: g.from, SHA256: g.sum, SignedBy: by, Issued: issued, Installed: o.Now.UTC()}
	if err := st.compile(least, o.BuiltIn); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(st.files.tree()))
	st.Manifest.Version, st.Manifest.Files = hex.EncodeToString(sum[:8]), len(st.files)
	return st, st.compare()
}

var levels = []string{"", "informational", "low", "medium", "high", "critical"}

func levelOf(s string) (int, error) {
	i := slices.Index(levels, s)
	if i < 0 {
		return 0, fmt.Errorf("%w: %q is no level: use informational, low, medium, high or critical", ErrInvalid, s)
	}
	return i, nil
}

// maxRounds bounds how often rules are compiled without those that failed. A chain of correlations costs one round for each link.
const maxRounds = 16

// compile finds the files that cannot be used, beside the rules that run with them. Files with nothing but rules below the level go.
func (st *Staged) compile(least int, builtIn []detect.Source) error {
	left, last := map[string]string{}, ""
	for name, b := range st.files {
		c := &sigma.Collection{}
		if errs := c.Parse(name, b); len(errs) > 0 {
			left[name] = reasonOf(errs[0])
			continue
		}
		if n := len(c.Rules); least > 0 && n > 0 && len(c.Correlations)+len(c.Filters) == 0 && !slices.ContainsFunc(c.Rules, func(r *sigma.Rule) bool { i, err := levelOf(r.Level); return err == nil && i >= least }) {
			st.Changes.Skipped += n
			delete(st.files, name)
		}
	}
	if len(st.files) == 0 {
		return fmt.Errorf("%w: no rule is of the level that --min-level asks for", ErrInvalid)
	}
	// What can be read is compiled together with the rest. A file that fails is left out and the others are tried without it: a correlation may
	// lose the rule it counts.
	for round := 0; ; round++ {
		if round == maxRounds {
			return fmt.Errorf("%w: after %d files were left out others still fail that count on them; the last: %s", ErrInvalid, len(left), last)
		}
		cat, err := detect.LoadAll(append(slices.Clone(builtIn), detect.Source{Name: st.set, FS: st.files.fs(), Upstream: true, Skip: keysOf(left)}))
		if err != nil {
			return err
		}
		errs := cat.Errors
		if len(errs) == 0 {
			if len(cat.All()) == 0 {
				break // the sentence below says so
			}
			e, err := detect.New(detect.Options{Catalogue: cat, Where: detect.Hub})
			if err != nil {
				return err
			}
			errs = e.Errors()
		}
		fresh := false
		for _, x := range errs {
			file, ours := strings.CutPrefix(x.File, st.set+"/")
			if !ours {
				return fmt.Errorf("the rules that run beside these have a fault, mend it first: %w", x)
			}
			if _, known := left[file]; !known {
				left[file], fresh, last = reasonOf(x), true, x.Error()
			}
		}
		if !fresh {
			break
		}
	}
	for name := range left {
		st.Manifest.LeftOut = append(st.Manifest.LeftOut, LeftOut{name, left[name]})
	}
	slices.SortFunc(st.Manifest.LeftOut, func(a, b LeftOut) int { return cmp.Compare(a.File, b.File) })
	st.Changes.LeftOut = st.Manifest.LeftOut
	if len(left) == len(st.files) {
		return fmt.Errorf("%w: none of its %d files can be used; the first: %s: %s", ErrInvalid, len(left), st.Manifest.LeftOut[0].File, st.Manifest.LeftOut[0].Reason)
	}
	return nil
}

func reasonOf(e *sigma.Error) string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return e.Reason
}

func keysOf(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// compare says what the update changes, rule by rule.
func (st *Staged) compare() error {
	now := st.files.rules(keysOfLeft(st.Manifest.LeftOut))
	st.Manifest.Rules = len(now)
	before := map[string]ruleOf{}
	if st.Before != nil {
		old, err := readDir(filepath.Join(st.store.set(st.set), st.Before.Version))
		if err != nil {
			return err
		}
		before = old.rules(keysOfLeft(st.Before.LeftOut))
	}
	for id, r := range now {
		switch b, had := before[id]; {
		case !had:
			st.Changes.Added = append(st.Changes.Added, r.Rule)
		case b.text != r.text:
			st.Changes.Changed = append(st.Changes.Changed, r.Rule)
		default:
			st.Changes.Same++
		}
	}
	for id, r := range before {
		if _, has := now[id]; !has {
			st.Changes.Removed = append(st.Changes.Removed, r.Rule)
		}
	}
	for _, l := range [][]Rule{st.Changes.Added, st.Changes.Changed, st.Changes.Removed} {
		slices.SortFunc(l, func(a, b Rule) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.ID, b.ID)) })
	}
	return nil
}

func keysOfLeft(l []LeftOut) map[string]bool {
	out := map[string]bool{}
	for _, x := range l {
		out[x.File] = true
	}
	return out
}

type ruleOf struct {
	Rule
	text [32]byte // digest of the file it stands in
}

// rules lists what the files hold, by id.
func (f files) rules(skip map[string]bool) map[string]ruleOf {
	out := map[string]ruleOf{}
	for name, b := range f {
		if skip[name] {
			continue
		}
		c := &sigma.Collection{}
		c.Parse(name, b) // with faults it would be skipped
		sum := sha256.Sum256(b)
		add := func(m *sigma.Meta) { out[m.ID] = ruleOf{Rule{m.ID, m.Title, m.Level, name}, sum} }
		for _, r := range c.Rules {
			add(&r.Meta)
		}
		for _, r := range c.Correlations {
			add(&r.Meta)
		}
	}
	return out
}

// Install puts the staged version in force. Which was in force stays as the one to go back to.
func (st *Staged) Install() error {
	dir := st.store.set(st.set)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := st.store.manifest(st.set, st.Manifest.Version); err != nil {
		if err := st.place(dir); err != nil {
			return fmt.Errorf("writing the rules: %w", err)
		}
	} else if err := st.manifest(filepath.Join(dir, st.Manifest.Version)); err != nil { // the same files are there; what is said of them may be new
		return err
	}
	p := pointer{Current: st.Manifest.Version}
	if st.Before != nil && st.Before.Version != p.Current {
		p.Previous = st.Before.Version
	} else if old, err := st.store.pointer(st.set); err == nil {
		p.Previous = old.Previous
	}
	if p.Previous == p.Current {
		p.Previous = ""
	}
	if err := st.store.point(st.set, p); err != nil {
		return err
	}
	return st.store.tidy(st.set)
}

// place makes the folder of the version, whole or not at all.
func (st *Staged) place(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil {
		return err
	}
	for _, d := range left { // of updates that were cut short
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // nothing, once it has its name
	if err := st.write(tmp); err != nil {
		return err
	}
	to := filepath.Join(dir, st.Manifest.Version)
	if err := os.RemoveAll(to); err != nil { // it has no manifest that can be read
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

func (st *Staged) write(dir string) error {
	made := map[string]bool{dir: true}
	for name, text := range st.files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if d := filepath.Dir(path); !made[d] {
			if err := os.MkdirAll(d, 0o700); err != nil {
				return err
			}
			made[d] = true
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	// The manifest last, and durable: before it stands, set.json cannot name the folder. One sync of everything is cheaper than thousands.
	syscall.Sync()
	return st.manifest(dir)
}

func (st *Staged) manifest(dir string) error {
	b, err := json.MarshalIndent(st.Manifest, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, manifestFile), b, 0o600)
}
