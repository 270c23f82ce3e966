package detect

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"tocsin/internal/event"
)

// testFolder holds, beside rules, one file for each with events on which it must and must not fire.
const testFolder = "tests"

// NotRules says whether a folder, by its path below a folder of rules, holds something else: what they are tested with, or what to do on each
// product (package steps).
func NotRules(name string) bool { return path.Base(name) == testFolder || name == "steps" }

// ruleTests is a test file.
type ruleTests struct {
	Rule  string     `yaml:"rule"` // id
	Cases []ruleCase `yaml:"cases"`
}

type ruleCase struct {
	Name   string `yaml:"name"`
	Fires  int    `yaml:"fires"`  // how many detections (not counting updates) of this rule
	Entity string `yaml:"entity"` // of the first of them, if given
	Count  int    `yaml:"count"`  // of the last update, if given
	Reason string `yaml:"reason"` // of the first, if given
	Tenant uint32 `yaml:"tenant"` // of the first, if given
	// Quiet names other rules that must not fire on these events.
	Quiet  list         `yaml:"quiet"`
	Events []ruleEvents `yaml:"events"`
}

// ruleEvents makes one event, or many that differ.
type ruleEvents struct {
	After   time.Duration     `yaml:"after"`   // since the last event of the entry before; begins at 0
	Repeat  int               `yaml:"repeat"`  // default 1
	Every   time.Duration     `yaml:"every"`   // between repeats
	Tenants []uint32          `yaml:"tenants"` // each event once for each; default 1
	Event   map[string]values `yaml:"event"`   // text or list; {n} is the number of the repeat, {n+7} and {n%3} reckon with it
}

// values is one text or a list of them.
type values []string

func (v *values) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*v = values{n.Value}
		return nil
	}
	var l []string
	if err := n.Decode(&l); err != nil {
		return err
	}
	*v = l
	return nil
}

// TestResult is the outcome of one case.
type TestResult struct {
	Rule, Title, File, Case string
	MustFire                bool
	Err                     error // nil: as it should be
}

// Test runs the test files that lie beside the rules in fsys. A rule without a case that must fire and one that must not is a failed
// result too.
func (c *Catalogue) Test(fsys fs.FS) ([]TestResult, error) {
	files, err := fs.Glob(fsys, testFolder+"/*.yml")
	if err != nil {
		return nil, err
	}
	var out []TestResult
	engines := map[Where]*Engine{}
	fired, quiet := map[string]bool{}, map[string]bool{}
	for _, f := range files {
		b, err := fs.ReadFile(fsys, f)
		if err != nil {
			return nil, err
		}
		var t ruleTests
		dec := yaml.NewDecoder(strings.NewReader(string(b)))
		dec.KnownFields(true)
		if err := dec.Decode(&t); err != nil {
			out = append(out, TestResult{File: f, Err: fmt.Errorf("the test file cannot be read: %w", err)})
			continue
		}
		info, ok := c.Info(t.Rule)
		if !ok {
			out = append(out, TestResult{File: f, Rule: t.Rule, Err: fmt.Errorf("there is no rule with the id %q", t.Rule)})
			continue
		}
		for i := range t.Cases {
			x := &t.Cases[i]
			fired[t.Rule] = fired[t.Rule] || x.Fires > 0
			quiet[t.Rule] = quiet[t.Rule] || x.Fires == 0
			out = append(out, TestResult{Rule: t.Rule, Title: info.Title, File: f, Case: x.Name, MustFire: x.Fires > 0, Err: c.runCase(&info, x, engines)})
		}
	}
	for _, r := range c.infos {
		var missing []string
		if !fired[r.ID] {
			missing = append(missing, "events on which it must fire")
		}
		if !quiet[r.ID] {
			missing = append(missing, "events on which it must not fire")
		}
		if len(missing) > 0 {
			out = append(out, TestResult{Rule: r.ID, Title: r.Title, File: r.File, Err: errors.New("no test has " + strings.Join(missing, " or "))})
		}
	}
	return out, nil
}

// testStart is when tests begin; any instant would do.
const testStart = 1_780_000_000 * int64(time.Second)

// runCase runs one case in the engine of the rule's place, which forgets what other cases left behind.
func (c *Catalogue) runCase(info *Info, x *ruleCase, engines map[Where]*Engine) error {
	where := info.Runs
	if where == both {
		where = Hub
	}
	e := engines[where]
	if e == nil {
		var err error
		if e, err = New(Options{Catalogue: c, Where: where}); err != nil {
			return err
		}
		engines[where] = e
	}
	e.forget()
	var all []event.Detection
	now, err := x.play(func(ev *event.Event, now int64) { all = append(all, e.Process(ev, now)...) })
	if err != nil {
		return err
	}
	all = append(all, e.Flush(now+int64(24*time.Hour))...)
	byKey := map[string][]event.Detection{}
	var keys []string
	for _, d := range all {
		if d.RuleID != info.ID {
			if slices.Contains(x.Quiet, d.RuleID) {
				return fmt.Errorf("the rule %q fired too: %s", d.RuleTitle, d.Reason)
			}
			continue
		}
		if byKey[d.Key] == nil {
			keys = append(keys, d.Key)
		}
		byKey[d.Key] = append(byKey[d.Key], d)
	}
	if len(keys) != x.Fires {
		return fmt.Errorf("it made %d detections, want %d", len(keys), x.Fires)
	}
	if x.Fires == 0 {
		return nil
	}
	first := byKey[keys[0]]
	d, last := first[0], first[len(first)-1]
	switch {
	case x.Entity != "" && d.Entity.Value != x.Entity:
		return fmt.Errorf("the entity is %q, want %q", d.Entity.Value, x.Entity)
	case x.Count != 0 && last.Count != x.Count:
		return fmt.Errorf("the count is %d, want %d", last.Count, x.Count)
	case x.Reason != "" && d.Reason != x.Reason:
		return fmt.Errorf("the reason is %q, want %q", d.Reason, x.Reason)
	case x.Tenant != 0 && uint32(d.Tenant) != x.Tenant:
		return fmt.Errorf("the tenant is %d, want %d", d.Tenant, x.Tenant)
	case d.Entity.Value == "":
		return errors.New("the detection has no entity")
	case strings.Contains(d.Reason, "unknown"):
		return fmt.Errorf("the reason lacks a value: %q", d.Reason)
	}
	return nil
}

// play gives the events of a case in order, and when the last one was.
func (x *ruleCase) play(f func(ev *event.Event, now int64)) (int64, error) {
	now, seq := testStart, uint64(0)
	for _, part := range x.Events {
		now += int64(part.After)
		for n := range max(part.Repeat, 1) {
			if n > 0 {
				now += int64(part.Every)
			}
			tenants := part.Tenants
			if len(tenants) == 0 {
				tenants = []uint32{1}
			}
			for _, tenant := range tenants {
				seq++
				var ev event.Event
				ev.Tenant, ev.Created, ev.Time, ev.ID.Seq = event.TenantID(tenant), now, now, seq
				if err := part.fill(&ev, n); err != nil {
					return now, err
				}
				f(&ev, now)
			}
		}
	}
	return now, nil
}

// Stories gives the events of each case on which a rule must fire: one call of begin for a case, then one of next for each event. They are the
// tests that lie beside the rules in fsys.
func (c *Catalogue) Stories(fsys fs.FS, begin func(Info), next func(ev *event.Event, now int64)) error {
	files, err := fs.Glob(fsys, testFolder+"/*.yml")
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := fs.ReadFile(fsys, f)
		if err != nil {
			return err
		}
		var t ruleTests
		if err := yaml.Unmarshal(b, &t); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		info, ok := c.Info(t.Rule)
		if !ok {
			return fmt.Errorf("%s: there is no rule with the id %q", f, t.Rule)
		}
		for i := range t.Cases {
			if t.Cases[i].Fires == 0 {
				continue
			}
			begin(info)
			if _, err := t.Cases[i].play(next); err != nil {
				return fmt.Errorf("%s: %w", f, err)
			}
		}
	}
	return nil
}

func (p *ruleEvents) fill(ev *event.Event, n int) error {
	names := make([]string, 0, len(p.Event))
	for k := range p.Event {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, name := range names {
		k, ok := event.Lookup(name)
		if !ok {
			return fmt.Errorf("there is no field %q", name)
		}
		for _, v := range p.Event[name] {
			text, err := reckon(v, n)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			val, ok := event.ParseValue(k.Kind(), text)
			if !ok {
				return fmt.Errorf("%s: %q does not fit the field", name, text)
			}
			ev.Add(k, val)
		}
	}
	return nil
}

func reckon(v string, n int) (string, error) {
	var err error
	out := placeholders.ReplaceAllStringFunc(v, func(p string) string {
		body := strings.TrimPrefix(p[1:len(p)-1], "n")
		if body == "" {
			return strconv.Itoa(n)
		}
		by, perr := strconv.Atoi(strings.TrimLeft(body, "+%"))
		switch {
		case perr != nil || len(body) == len(p)-2:
			err = fmt.Errorf("%q: want {n}, {n+NUMBER} or {n%%NUMBER}", p)
		case body[0] == '%' && by > 0:
			return strconv.Itoa(n % by)
		case body[0] == '+':
			return strconv.Itoa(n + by)
		default:
			err = fmt.Errorf("%q: want {n}, {n+NUMBER} or {n%%NUMBER}", p)
		}
		return ""
	})
	return out, err
}
