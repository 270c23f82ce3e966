package detect

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"tocsin/sigma"
)

// Where a rule runs.
type Where string

// Places. A rule with runs: both works at both; whoever has the events detects.
const (
	Site Where = "site"
	Hub  Where = "hub"
	both Where = "both"
)

// Text is what people without technical skill read.
type Text struct {
	Title string `yaml:"title"` // a short line: what it is
	What  string `yaml:"what"`  // what happened, in plain words
	Do    string `yaml:"do"`    // what to do now
}

// attributes is the custom attribute `tocsin` of a rule file.
type attributes struct {
	Runs   Where  `yaml:"runs"`
	Family string `yaml:"family"`
	Entity string `yaml:"entity"` // source, user, host, rule
	// EntityFields are fields whose value names the entity; the first that is there. Default: of the entity's kind.
	EntityFields list          `yaml:"entity_fields"`
	GroupBy      list          `yaml:"group_by"` // of a rule that is no correlation: more fields that keep episodes apart
	Window       time.Duration `yaml:"window"`   // of a rule that is no correlation: how long one episode waits for the next event, default 1h
	Needs        string        `yaml:"needs"`    // full: of a rule of the hub that needs what the policy metadata keeps at home
	Across       bool          `yaml:"across"`   // over all members: only at the hub, for the centre
	Reason       string        `yaml:"reason"`   // one sentence with {placeholders}
	Member       Text          `yaml:"member"`
	Analyst      string        `yaml:"analyst"`
}

type list []string

// Info is what is known about a rule, for pages and mails.
type Info struct {
	ID, Title, Level, Family, Description string
	Runs                                  Where
	Entity                                string
	Across                                bool
	Tags, FalsePositives                  []string
	Member                                Text
	Analyst                               string
	File                                  string
	NeedsFull                             bool // silent but for estates under the policy full: what it looks at stays at home elsewhere
	Upstream                              bool // it has no texts of its own: they are made from its log source
}

// Catalogue is what some folders of rules hold, with the attributes that make detections of matches.
type Catalogue struct {
	infos  []Info
	byID   map[string]int
	coll   *sigma.Collection
	attrs  map[string]*attributes // by rule id
	digest string
	found  map[string]*Found // by id, name and title in lower case
	all    []*Found
	Errors []*sigma.Error // rules that were left out, with reasons
}

// Source is a folder of rules.
type Source struct {
	Name string // stands before the names of its files; "" for the only one
	FS   fs.FS
	// Upstream says that the rules are written for anybody: one without the attribute tocsin gets one (see adopt).
	Upstream bool
	// Skip are files that are known not to work and are left out: what updates them lists them (package ruleset).
	Skip map[string]bool
}

// Bounds of what is read.
const (
	maxRuleFile  = 4 << 20
	maxRuleFiles = 50_000
)

// Load reads every .yml and .yaml file of fsys. Rules with errors are left out and listed in Errors; the error returned is about
// reading only.
func Load(fsys fs.FS) (*Catalogue, error) {
	if fsys == nil {
		return nil, errors.New("detect: no rules given")
	}
	return LoadAll([]Source{{FS: fsys}})
}

// LoadAll reads several folders as one set of rules. An id may be used once in all of them.
func LoadAll(sources []Source) (*Catalogue, error) {
	c := &Catalogue{byID: map[string]int{}, coll: &sigma.Collection{}, attrs: map[string]*attributes{}}
	sum, files := sha256.New(), 0
	upstream := map[string]bool{} // files
	for _, src := range sources {
		err := fs.WalkDir(src.FS, ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && NotRules(name) {
				return fs.SkipDir
			}
			if err != nil || d.IsDir() {
				return err
			}
			if ext := path.Ext(name); ext != ".yml" && ext != ".yaml" || src.Skip[name] {
				return nil
			}
			if files++; files > maxRuleFiles {
				return fmt.Errorf("more than %d files of rules", maxRuleFiles)
			}
			if i, err := d.Info(); err != nil {
				return err
			} else if i.Size() > maxRuleFile {
				return fmt.Errorf("%s has %d MiB; a file of rules may have %d", path.Join(src.Name, name), i.Size()>>20, maxRuleFile>>20)
			}
			b, err := fs.ReadFile(src.FS, name)
			if err != nil {
				return err
			}
			file := path.Join(src.Name, name)
			upstream[file] = src.Upstream
			fmt.Fprintf(sum, "%s\x00%d\x00%t\x00", file, len(b), src.Upstream)
			sum.Write(b)
			c.Errors = append(c.Errors, c.coll.Parse(file, b)...)
			return nil
		})
		if err != nil {
			if src.Name != "" {
				err = fmt.Errorf("the set %s: %w", src.Name, err)
			}
			return nil, fmt.Errorf("detect: reading rules: %w", err)
		}
	}
	c.digest = hex.EncodeToString(sum.Sum(nil))
	c.collect(upstream)
	c.index()
	return c, nil
}

// Digest names the set: it changes when any of its files does.
func (c *Catalogue) Digest() string { return c.digest }

func (c *Catalogue) collect(upstream map[string]bool) {
	counted := c.counted()
	refused := func(m *sigma.Meta, format string, args ...any) {
		c.Errors = append(c.Errors, &sigma.Error{File: m.File, Line: m.Line, Rule: m.Label(), Reason: fmt.Sprintf(format, args...)})
	}
	seen := map[string]bool{}
	take := func(m *sigma.Meta, source *sigma.LogSource, correlation bool, groupBy []string) bool {
		if m.ID == "" {
			refused(m, "the id is missing: detections and their history are kept by it")
			return false
		}
		if seen[m.ID] {
			refused(m, "the id is used twice")
			return false
		}
		seen[m.ID] = true
		a := &attributes{}
		has, err := m.Custom("tocsin", a)
		if err != nil {
			var e *sigma.Error
			if errors.As(err, &e) {
				c.Errors = append(c.Errors, e)
			} else {
				refused(m, "%v", err)
			}
			return false
		}
		switch {
		case has:
		case upstream[m.File] && m.Level != "" && !counted[m.ID] && !(m.Name != "" && counted[m.Name]):
			a = adopt(m, source, correlation, groupBy)
		default:
			return true // only correlations look at it
		}
		if err := a.check(m, groupBy, correlation); err != nil {
			refused(m, "attribute tocsin: %v", err)
			return false
		}
		c.attrs[m.ID] = a
		c.byID[m.ID] = len(c.infos)
		c.infos = append(c.infos, Info{ID: m.ID, Title: m.Title, Level: m.Level, Family: a.Family, Description: strings.TrimSpace(m.Description), Runs: a.Runs, Entity: a.Entity, Across: a.Across,
			Tags: m.Tags, FalsePositives: m.FalsePositives, Member: a.Member, Analyst: strings.TrimSpace(a.Analyst), File: m.File, NeedsFull: a.Needs == "full", Upstream: !has})
		return true
	}
	c.coll.Rules = slices.DeleteFunc(c.coll.Rules, func(r *sigma.Rule) bool { return !take(&r.Meta, &r.LogSource, false, nil) })
	c.coll.Correlations = slices.DeleteFunc(c.coll.Correlations, func(r *sigma.Correlation) bool { return !take(&r.Meta, c.countedSource(r), true, r.GroupBy) })
}

var placeholders = regexp.MustCompile(`\{[^{}]*\}`)

var entityFields = map[string]list{
	"source": {"source.ip"}, "user": {"user.name"}, "host": {"host.name", "host.ip", "destination.ip"}, "rule": {},
}

func (a *attributes) check(m *sigma.Meta, groupBy []string, correlation bool) error {
	switch a.Runs {
	case Site, Hub, both:
	default:
		return fmt.Errorf("runs is %q; it must be site, hub or both", a.Runs)
	}
	if m.Level == "" {
		return errors.New("the rule has no level")
	}
	if a.Family == "" || strings.ContainsAny(a.Family, " \t\n|") {
		return fmt.Errorf("family is %q; it must be one word such as password-guessing", a.Family)
	}
	fields, ok := entityFields[a.Entity]
	if !ok {
		return fmt.Errorf("entity is %q; it must be source, user, host or rule", a.Entity)
	}
	if len(a.EntityFields) == 0 {
		a.EntityFields = fields
	}
	if correlation {
		if a.Window != 0 || len(a.GroupBy) > 0 {
			return errors.New("window and group_by are for rules that are no correlation; a correlation has its own timespan and group-by")
		}
		for _, f := range a.EntityFields {
			if !slices.Contains(groupBy, f) {
				return fmt.Errorf("the entity's field %q must be in group-by", f)
			}
		}
	}
	if a.Window == 0 {
		a.Window = time.Hour
	}
	if a.Window < time.Second || a.Window > 31*24*time.Hour {
		return fmt.Errorf("window is %v; it must be between a second and 31 days", a.Window)
	}
	if a.Needs != "" && (a.Needs != "full" || a.Runs != Hub) {
		return errors.New("needs is full, of a rule that runs at the hub, or is left out")
	}
	if a.Across && a.Runs != Hub {
		return errors.New("a rule across members runs at the hub only")
	}
	if strings.TrimSpace(a.Reason) == "" {
		return errors.New("reason is missing: the sentence that says why it fired")
	}
	if strings.ContainsAny(placeholders.ReplaceAllString(a.Reason, ""), "{}") {
		return errors.New("reason: a brace is not closed or not opened")
	}
	for name, v := range map[string]string{"title": a.Member.Title, "what": a.Member.What, "do": a.Member.Do} {
		if strings.TrimSpace(v) == "" {
			return fmt.Errorf("member.%s is missing: people must be told in plain words", name)
		}
	}
	return nil
}

// Infos lists the rules that make detections, in the order of their files.
func (c *Catalogue) Infos() []Info { return slices.Clone(c.infos) }

// Info finds a rule by its id.
func (c *Catalogue) Info(id string) (Info, bool) {
	i, ok := c.byID[id]
	if !ok {
		return Info{}, false
	}
	return c.infos[i], true
}

// selection is what runs at one place: rules that make detections there, and those that they build on.
func (c *Catalogue) selection(where Where) (*sigma.Collection, map[string]bool) {
	at := func(id string) bool {
		a := c.attrs[id]
		return a != nil && (a.Runs == where || a.Runs == both)
	}
	loud := map[string]bool{}
	need := map[string]bool{} // ids and names
	for _, r := range c.coll.Rules {
		if at(r.ID) {
			loud[r.ID], need[r.ID] = true, true
		}
	}
	for _, r := range c.coll.Correlations {
		if at(r.ID) {
			loud[r.ID], need[r.ID] = true, true
		}
	}
	wanted := func(m *sigma.Meta) bool { return need[m.ID] || m.Name != "" && need[m.Name] }
	for again := true; again; {
		again = false
		for _, r := range c.coll.Correlations {
			if !wanted(&r.Meta) {
				continue
			}
			for _, n := range r.Rules {
				if !need[n] {
					need[n], again = true, true
				}
			}
		}
	}
	out := &sigma.Collection{Filters: c.coll.Filters}
	for _, r := range c.coll.Rules {
		if wanted(&r.Meta) {
			out.Rules = append(out.Rules, r)
		}
	}
	for _, r := range c.coll.Correlations {
		if wanted(&r.Meta) {
			out.Correlations = append(out.Correlations, r)
		}
	}
	return out, loud
}
