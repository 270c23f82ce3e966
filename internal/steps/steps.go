// Package steps is what is to be done about an alert on the member's own firewall, in plain words with the menu or the command: for each of the
// products that most members have, and each family of our rules.
//
// It reads content files (rules/steps) that people review: one for each product, with the tasks that a firewall can do, and families.yml, which says
// which tasks a family wants and what is to be done elsewhere. It writes nothing and counts nothing.
package steps

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"tocsin/rules"
)

// Step is one thing to do.
type Step struct {
	Task string // its name, from tasks
	What string // a short line: what it is for
	How  string // where on the product: a menu path or a command
}

// Guide is what is to be done about one family of alerts on one product.
type Guide struct {
	Product   string // as people call it
	Version   string // what the paths were written for
	Steps     []Step
	Elsewhere string // what is to be done besides, or instead
}

// task is what a firewall can do. title is what it is for.
type task struct{ name, title string }

// tasks are all of them, in no order that matters.
var tasks = []task{
	{"block-source", "Block the address the attack comes from"},
	{"block-destination", "Block the address that was contacted"},
	{"open-services", "See what is open to the Internet, and close what is not needed"},
	{"close-outbound", "Close this way out"},
	{"see-traffic", "See what the address did, before and after"},
	{"find-device", "Find the computer or device behind an inside address"},
	{"isolate-device", "Cut that computer off"},
	{"vpn-user", "End the session and lock the VPN account"},
	{"two-step", "Turn on two-step sign-in"},
	{"admin-access", "Close the firewall's own pages to the Internet"},
	{"admin-accounts", "Check the firewall's accounts"},
	{"config-changes", "See who changed what on the firewall"},
	{"update", "Update the firewall"},
	{"logging", "Make sure that the firewall's records reach the collector"},
	{"ips", "Look at what the firewall's attack detection says"},
	{"flood", "Limit floods, and see what fills the line"},
}

type productFile struct {
	Name     string            `yaml:"name"`
	Datasets []string          `yaml:"datasets"`
	Version  string            `yaml:"version"`
	Tasks    map[string]string `yaml:"tasks"`
}

type family struct {
	Tasks     []string `yaml:"tasks"`
	Elsewhere string   `yaml:"elsewhere"`
}

// Book is the content.
type Book struct {
	products  map[string]*productFile // by key
	byDataset map[string]string
	families  map[string]family
}

const familyFile = "families.yml"

// Read reads content files. Anything missing or unknown in them is an error that names it: an alert must not appear without its steps.
func Read(fsys fs.FS) (*Book, error) {
	b := &Book{products: map[string]*productFile{}, byDataset: map[string]string{}}
	names, err := fs.Glob(fsys, "*.yml")
	if err != nil {
		return nil, err
	}
	strict := func(name string, into any) error {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		dec := yaml.NewDecoder(bytes.NewReader(text))
		dec.KnownFields(true)
		if err := dec.Decode(into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if err := strict(familyFile, &b.families); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, t := range tasks {
		known[t.name] = true
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for name, f := range b.families {
		if len(f.Tasks) == 0 && f.Elsewhere == "" {
			bad("%s: %s says nothing to do", familyFile, name)
		}
		for i, t := range f.Tasks {
			if !known[t] {
				bad("%s: %s: there is no task %q", familyFile, name, t)
			}
			if slices.Contains(f.Tasks[:i], t) {
				bad("%s: %s: %s stands twice", familyFile, name, t)
			}
		}
	}
	for _, name := range names {
		if name == familyFile {
			continue
		}
		p := &productFile{}
		if err := strict(name, p); err != nil {
			return nil, err
		}
		key := strings.TrimSuffix(path.Base(name), ".yml")
		b.products[key] = p
		if p.Name == "" || p.Version == "" || len(p.Datasets) == 0 {
			bad("%s: name, version or datasets are missing", name)
		}
		for _, d := range p.Datasets {
			if other := b.byDataset[d]; other != "" {
				bad("%s: the data set %s belongs to %s", name, d, other)
			}
			b.byDataset[d] = key
		}
		for t, how := range p.Tasks {
			if !known[t] {
				bad("%s: there is no task %q", name, t)
			}
			if n := len(strings.TrimSpace(how)); n < 40 || n > 700 {
				bad("%s: %s has %d characters; 40 to 700 can be read", name, t, n)
			}
		}
		for _, t := range tasks {
			if p.Tasks[t.name] == "" {
				bad("%s: %s is missing", name, t.name)
			}
		}
	}
	return b, errors.Join(errs...)
}

// Default is the content that is built in.
var Default = sync.OnceValues(func() (*Book, error) {
	sub, err := fs.Sub(rules.Steps, "steps")
	if err != nil {
		return nil, err
	}
	return Read(sub)
})

// Products are the keys of the products, in order.
func (b *Book) Products() []string {
	var out []string
	for k := range b.products {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Families are those that have steps, in order.
func (b *Book) Families() []string {
	var out []string
	for k := range b.families {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Product is the product whose lines have this event.dataset; "" when there are no steps for it.
func (b *Book) Product(dataset string) string { return b.byDataset[dataset] }

// Name is what people call the product whose lines have this event.dataset; "" when there are no steps for it.
func (b *Book) Name(dataset string) string {
	if p := b.products[b.byDataset[dataset]]; p != nil {
		return p.Name
	}
	return ""
}

// upstream are the families of rules that others wrote: they say so little that only the general tasks fit.
var upstream = map[string][]string{
	"upstream-web": {"see-traffic", "block-source", "open-services"}, "upstream-antivirus": {"find-device", "isolate-device", "see-traffic"},
	"upstream-network": {"find-device", "see-traffic", "block-destination"}, "upstream-cloud": {}, "upstream-host": {"find-device", "isolate-device", "see-traffic"},
}

// Guide gives the steps for a family of alerts on a product. ok is false when one of them is not known.
func (b *Book) Guide(family, product string) (g Guide, ok bool) {
	p, ok := b.products[product]
	if !ok {
		return Guide{}, false
	}
	f, ok := b.families[family]
	if t, is := upstream[family]; is && !ok {
		f.Tasks, f.Elsewhere, ok = t, "Ask your IT support to look at the computer or account that the alert names.", true
	}
	if !ok {
		return Guide{}, false
	}
	g = Guide{Product: p.Name, Version: p.Version, Elsewhere: f.Elsewhere}
	for _, name := range f.Tasks {
		i := slices.IndexFunc(tasks, func(t task) bool { return t.name == name })
		g.Steps = append(g.Steps, Step{name, tasks[i].title, strings.TrimSpace(p.Tasks[name])})
	}
	return g, true
}
