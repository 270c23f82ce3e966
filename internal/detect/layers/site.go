package layers

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Limits of what a site takes.
const (
	MaxSited     = 5000    // layers
	MaxSiteBytes = 2 << 20 // of their text
	maxEntity    = 16      // fields that name a rule's entity
)

// siteFormat is the version of the text below.
const siteFormat = 1

// Sited is a layer as a site is told of it. The reason and the owner stay at the centre: they may be about another member.
type Sited struct {
	ID      int64  `json:"id"`
	Kind    string `json:"kind"`
	Rule    string `json:"rule"`
	Title   string `json:"title"` // of the rule
	Field   string `json:"field,omitempty"`
	Value   string `json:"value,omitempty"`
	Level   string `json:"level,omitempty"`
	Width   int    `json:"width,omitempty"`   // of the scope, 0 the widest: of two levels the narrower scope's holds
	Expires int64  `json:"expires_ns,string"` // UTC; 0: never
	// Of an exception: Single is whether each event is asked about; else what the detection says counts, and Entity are the fields that name its entity.
	Single bool     `json:"single,omitempty"`
	Entity []string `json:"entity,omitempty"`
}

type sitedText struct {
	Format int     `json:"format"`
	Layers []Sited `json:"layers"`
}

// OnSite says whether a layer changes what happens on sites.
func OnSite(l *Layer, rules Rules) bool {
	found, ok := rules.Find(l.Rule)
	return ok && onSite(l.Kind, &found)
}

// onSite: a single rule is asked about events there; of any other rule its own detections must be made there.
func onSite(kind string, f *detect.Found) bool {
	if kind == Except && !f.Correlation {
		return f.OnSite
	}
	return f.OnSite && !f.Silent && f.Runs != detect.Hub
}

// Unfit says why a layer of a rule that runs on sites cannot be told to them; nil: it can. Such a layer works at the hub alone.
func Unfit(l *Layer, rules Rules) error {
	found, ok := rules.Find(l.Rule)
	if !ok || !onSite(l.Kind, &found) {
		return nil
	}
	_, err := sited(l, &found)
	return err
}

// sited is a layer as sites are told of it.
func sited(l *Layer, found *detect.Found) (Sited, error) {
	x := Sited{ID: l.ID, Kind: l.Kind, Rule: l.Rule, Title: clip(l.Title), Field: l.Field, Value: l.Value, Level: l.Level, Width: width(l.Scope), Expires: l.Expires}
	if l.Kind == Except {
		if x.Single = !found.Correlation; !x.Single {
			x.Entity = found.EntityFields
		}
	}
	return x, x.check()
}

// ForSite gives of the open layers those that a member's sites need: for the member, its area or the whole scheme, and about rules that run there. They
// are in the order of their numbers. What sites do not take (Unfit) is left out: one layer must not hold up the others.
func ForSite(open []Layer, t event.TenantID, area string, rules Rules, now time.Time) []Sited {
	s := &Set{region: map[event.TenantID]string{t: strings.ToLower(strings.TrimSpace(area))}}
	var out []Sited
	for i := range open {
		l := &open[i]
		found, ok := rules.Find(l.Rule)
		if !ok || !onSite(l.Kind, &found) || l.State(now) != "open" || !s.covers(&entry{Layer: *l}, t, now.UnixNano()) {
			continue
		}
		if x, err := sited(l, &found); err == nil {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b Sited) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// clip shortens a title, which rules may have as long as they like, to what a site takes.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Encode writes what a site is told. The same layers give the same bytes.
func Encode(list []Sited) ([]byte, error) {
	if list == nil {
		list = []Sited{}
	}
	b, err := json.Marshal(sitedText{siteFormat, list})
	if err != nil {
		return nil, err
	}
	if _, err := decode(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Decode reads what a hub handed out, and trusts none of it. The fields that exceptions name get keys, so that an exception holds also where no rule or pack
// of this version names its field: they come signed with the key for packs, as packs do. Without room for them the changes are refused, because one that
// does nothing would be shown as in force.
func Decode(b []byte) ([]Sited, error) {
	list, err := decode(b)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range list {
		if list[i].Kind == Except {
			names = append(names, list[i].Field)
		}
	}
	if _, err := event.RegisterAll(names...); err != nil {
		return nil, fmt.Errorf("%w: an exception's field: %w", ErrInvalid, err)
	}
	return list, nil
}

func decode(b []byte) ([]Sited, error) {
	if len(b) > MaxSiteBytes {
		return nil, fmt.Errorf("%w: %d bytes of changes of rules, at most %d", ErrInvalid, len(b), MaxSiteBytes)
	}
	var x sitedText
	if err := json.Unmarshal(b, &x); err != nil {
		return nil, fmt.Errorf("%w: changes of rules: %w", ErrInvalid, err)
	}
	if x.Format != siteFormat {
		return nil, fmt.Errorf("%w: changes of rules of format %d; this version knows %d", ErrInvalid, x.Format, siteFormat)
	}
	if len(x.Layers) > MaxSited {
		return nil, fmt.Errorf("%w: %d changes of rules, at most %d", ErrInvalid, len(x.Layers), MaxSited)
	}
	for i := range x.Layers {
		if err := x.Layers[i].check(); err != nil {
			return nil, fmt.Errorf("%w: change %d: %w", ErrInvalid, x.Layers[i].ID, err)
		}
	}
	return x.Layers, nil
}

func (x *Sited) check() error {
	for _, s := range []struct{ what, text string }{{"the rule's id", x.Rule}, {"the rule's title", x.Title}, {"the field", x.Field}, {"the value", x.Value}} {
		if len(s.text) > maxText {
			return fmt.Errorf("%s is %d bytes long; sites take %d", s.what, len(s.text), maxText)
		}
		if !utf8.ValidString(s.text) {
			return fmt.Errorf("%s is no text in UTF-8", s.what)
		}
	}
	switch {
	case len(x.Entity) > maxEntity:
		return fmt.Errorf("the rule groups by %d fields; sites take %d", len(x.Entity), maxEntity)
	case x.Rule == "" || x.Expires < 0 || x.Width < 0 || x.Width > 2:
		return fmt.Errorf("no rule, or an end that cannot be")
	}
	switch x.Kind {
	case Off:
		return nil
	case Level:
		if !slices.Contains(levels, x.Level) {
			return fmt.Errorf("the level %.40q", x.Level)
		}
		return nil
	case Except:
		if x.Expires == 0 {
			return fmt.Errorf("an exception without an end")
		}
		_, err := compile(x.Value)
		return err
	}
	return fmt.Errorf("the kind %.40q, which this version does not know", x.Kind)
}

// NewSiteSet compiles what Decode gave.
func NewSiteSet(list []Sited) *Set {
	s := &Set{byRule: map[string][]*entry{}, single: map[string][]*entry{}}
	for _, x := range list {
		e := &entry{Layer: Layer{ID: x.ID, Kind: x.Kind, Rule: x.Rule, Title: x.Title, Scope: Scheme, Field: x.Field, Value: x.Value, Level: x.Level, Expires: x.Expires}, width: x.Width, fields: detect.Found{EntityFields: x.Entity}}
		to := s.byRule
		if x.Kind == Except {
			var ok bool
			var err error
			if e.match, err = compile(x.Value); err != nil {
				continue // Decode has refused it
			}
			if e.key, ok = event.Lookup(x.Field); !ok {
				continue // Decode has given it one
			}
			if x.Single {
				to = s.single
			}
		}
		to[x.Rule] = append(to[x.Rule], e)
	}
	return s
}
