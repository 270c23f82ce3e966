package minimise

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tocsin/internal/event"
)

//go:embed policies/*.yaml
var builtin embed.FS

// Policy says which events leave and what of them. It is data: read from YAML, shown to the member, and named in every batch by its digest.
type Policy struct {
	Name    string   `yaml:"policy" json:"policy"`
	Version int      `yaml:"version" json:"version"`
	Title   string   `yaml:"title" json:"title"`
	Raw     bool     `yaml:"raw" json:"raw"` // the raw line leaves as event.original
	Events  []Clause `yaml:"events" json:"events"`
	Fields  Fields   `yaml:"fields" json:"fields"`
}

// Clause is one line of a policy: what it decides, and for which events. Exactly one of Leave and Keep is set: the reason that is counted.
type Clause struct {
	Leave  string              `yaml:"leave,omitempty" json:"leave,omitempty"`
	Keep   string              `yaml:"keep,omitempty" json:"keep,omitempty"`
	Text   string              `yaml:"text" json:"text"` // the reason in plain words, to end a sentence: "it leaves because …", "it stays because it is …"
	When   map[string][]string `yaml:"when,omitempty" json:"when,omitempty"`
	Urgent string              `yaml:"urgent,omitempty" json:"urgent,omitempty"` // true, first, or nothing
}

// Reason is the word the clause counts under.
func (c *Clause) Reason() string {
	if c.Leave != "" {
		return c.Leave
	}
	return c.Keep
}

// Fields are the names that may leave, as in the policy files.
type Fields struct {
	Leave   []string `yaml:"leave" json:"leave"`
	Address []string `yaml:"address" json:"address"`
}

// maxPolicy bounds a policy file, in bytes.
const maxPolicy = 256 << 10

// Load gives the built-in policy of that name, or reads the file of that name when there is a slash or a dot in it.
func Load(name string) (*Policy, error) {
	if strings.ContainsAny(name, "/.") {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("policy file: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
		if err != nil {
			return nil, fmt.Errorf("policy file: %w", err)
		}
		p, err := Parse(b)
		if err != nil {
			return nil, fmt.Errorf("policy file %s: %w", name, err)
		}
		return p, nil
	}
	b, err := builtin.ReadFile("policies/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no policy %q: use metadata, full, or the path of a policy file", name)
	}
	return Parse(b)
}

var reasonWord = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// Parse reads a policy and checks it.
func Parse(b []byte) (*Policy, error) {
	if len(b) > maxPolicy {
		return nil, fmt.Errorf("longer than %d KiB", maxPolicy>>10)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	var p Policy
	if err := dec.Decode(&p); err != nil {
		return nil, err
	}
	var extra any
	if err := dec.Decode(&extra); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if !reasonWord.MatchString(p.Name) || p.Version < 1 {
		return nil, errors.New("a policy needs a name in lower case (policy:) and a version from 1")
	}
	if len(p.Events) == 0 {
		return nil, errors.New("a policy needs at least one clause under events")
	}
	if len(p.Events) > 200 {
		return nil, errors.New("more than 200 clauses")
	}
	seen := map[string]bool{}
	for i, c := range p.Events {
		if (c.Leave == "") == (c.Keep == "") {
			return nil, fmt.Errorf("clause %d: exactly one of leave and keep must give the reason", i+1)
		}
		if !reasonWord.MatchString(c.Reason()) {
			return nil, fmt.Errorf("clause %d: the reason %q must be a word of small letters, digits and underscores", i+1, c.Reason())
		}
		key := fmt.Sprint(c.Leave != "", c.Reason())
		if seen[key] {
			return nil, fmt.Errorf("clause %d: the reason %s stands twice", i+1, c.Reason())
		}
		seen[key] = true
		if c.Urgent != "" && c.Urgent != "true" && c.Urgent != "first" || c.Urgent != "" && c.Leave == "" {
			return nil, fmt.Errorf("clause %d: urgent may be true or first, on a clause that says leave", i+1)
		}
		for name, values := range c.When {
			if _, ok := event.Lookup(name); !ok {
				return nil, fmt.Errorf("clause %d: unknown field %s", i+1, name)
			}
			if len(values) == 0 {
				return nil, fmt.Errorf("clause %d: %s has no values", i+1, name)
			}
		}
		if len(c.When) == 0 && i != len(p.Events)-1 {
			return nil, fmt.Errorf("clause %d has no conditions, so the clauses after it never apply", i+1)
		}
	}
	if last := p.Events[len(p.Events)-1]; len(last.When) != 0 {
		return nil, errors.New("the last clause must have no conditions, so that every event has a reason")
	}
	for _, name := range slices.Concat(p.Fields.Leave, p.Fields.Address) {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// checkName takes known fields, "prefix.*" and "*". Other names are taken too, as those of extras, but not obvious mistakes.
func checkName(name string) error {
	if name == "*" {
		return nil
	}
	base := strings.TrimSuffix(name, ".*")
	if base == "" || strings.ContainsAny(base, "* \t\n,") || len(base) > 200 {
		return fmt.Errorf("%q is not a field name", name)
	}
	return nil
}

// covers says whether one of the patterns names the field.
func covers(patterns []string, name string) bool {
	for _, p := range patterns {
		if p == "*" || p == name {
			return true
		}
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasSuffix(prefix, ".") && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// filter says of nearly every name that no pattern covers that none does. It is asked about each field that the schema does not know.
type filter [16]uint64

func (f *filter) add(pattern string) {
	if strings.HasSuffix(pattern, "*") {
		for i := range f {
			f[i] = ^uint64(0)
		}
		return
	}
	word, bit := f.place(pattern)
	f[word] |= bit
}

// has says whether a pattern may cover the name.
func (f *filter) has(name string) bool {
	word, bit := f.place(name)
	return f[word]&bit != 0
}

func (f *filter) place(name string) (word int, bit uint64) {
	n := len(name)
	if n == 0 {
		return 0, 1
	}
	h := uint(n)*197 + uint(name[n-1])*31 + uint(name[n/2])*67 + uint(name[0])*7
	return int(h / 64 % 16), 1 << (h % 64)
}

// effective is what a digest is made over: the policy and what the member changed of it.
type effective struct {
	Policy     *Policy  `json:"policy"`
	AlsoLeave  []string `json:"also_leave"`
	AlsoKeep   []string `json:"also_keep"`
	Pseudonyms []string `json:"pseudonyms"`
}

func (e effective) digest() string {
	b, err := json.Marshal(e) // maps are written in the order of their keys
	if err != nil {
		panic(err) // strings, numbers and maps of them always marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Builtin lists the names of the policies that are built in, the default first.
func Builtin() []string { return []string{"metadata", "full"} }

// Source gives a policy as it is written, comments included, so that a member can begin an own one with it.
func Source(name string) ([]byte, error) {
	if strings.ContainsAny(name, "/.") {
		return os.ReadFile(name)
	}
	b, err := builtin.ReadFile("policies/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no policy %q: use metadata, full, or the path of a policy file", name)
	}
	return b, nil
}
