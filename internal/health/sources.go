package health

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// State is how a source stands.
type State struct {
	Tenant    event.TenantID `json:"tenant"`
	Collector string         `json:"collector"`
	Dataset   string         `json:"dataset"`
	Product   string         `json:"product"` // what people call it; the dataset where no name is known
	First     time.Time      `json:"first"`
	Last      time.Time      `json:"last"`
	Events    uint64         `json:"events"`           // that reached the hub
	Mapped    float64        `json:"mapped"`           // share of events that have a category, so that rules look at them
	Gone      []string       `json:"gone"`             // fields that came and come no more
	Silent    bool           `json:"silent"`           // all of it
	Quiet     []string       `json:"quiet"`            // addresses of senders that are silent, while others speak
	Senders   int            `json:"senders"`          // that are listened for one by one
	Parsed    float64        `json:"parsed,omitempty"` // share of its collector's lines that are understood, as usual; 0: not known yet
}

// Well says whether nothing is wrong with it.
func (s *State) Well() bool { return !s.Silent && len(s.Quiet)+len(s.Gone) == 0 }

// Source is a source with what rules can make of it.
type Source struct {
	State
	Can       []detect.Verdict `json:"-"`
	Cannot    []detect.Verdict `json:"-"`     // of its kind, with what is missing
	OtherKind int              `json:"other"` // rules that look at other kinds of sources
}

// state is called with the lock held.
func (w *Watch) state(s *source, now int64) State {
	x := State{Tenant: s.tenant, Collector: s.collector, Dataset: s.dataset, Product: product(s.dataset), First: time.Unix(0, s.first), Last: time.Unix(0, s.last), Events: s.events, Senders: len(s.senders), Gone: []string{}, Quiet: []string{}}
	if p := s.profiles[everything]; p != nil {
		if f := p.find(event.EventCategory); f != nil && f.gone == 0 {
			x.Mapped = float64(f.share)
			if p.windows == 0 {
				x.Mapped = float64(f.n) / float64(max(1, p.n))
			}
		}
	}
	for _, p := range s.profiles {
		for i := range p.fields {
			if f := &p.fields[i]; f.gone != 0 && !slices.Contains(x.Gone, f.key.Name()) {
				x.Gone = append(x.Gone, f.key.Name())
			}
		}
	}
	slices.Sort(x.Gone)
	silent, whole := w.silent(s, now)
	x.Silent = whole
	for _, r := range silent {
		if !whole {
			x.Quiet = append(x.Quiet, r.addr.String())
		}
	}
	if c := w.counts[s.collector]; c != nil {
		x.Parsed = c.usual
	}
	return x
}

// Unwell lists the sources of all members that are silent or lost fields; the longest silent first.
func (w *Watch) Unwell() []State {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now().UnixNano()
	var out []State
	for _, s := range w.sources {
		if silent, _ := w.silent(s, now); len(silent) > 0 || s.blind() {
			out = append(out, w.state(s, now))
		}
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Or(a.Last.Compare(b.Last), compare(&a, &b)) })
	return out
}

func compare(a, b *State) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), strings.Compare(a.Dataset, b.Dataset), strings.Compare(a.Collector, b.Collector))
}

// Sources says how the sources of a member stand, and which rules can fire on each. Of a rule that runs on the site the answer is about what
// reached the hub: fields that the member's policy keeps at home count as missing there, though the site has them.
func (w *Watch) Sources(t event.TenantID) []Source {
	cat := w.rules()
	var (
		out    []Source
		shapes []shape
	)
	w.mu.Lock()
	now := w.now().UnixNano()
	for k, s := range w.sources {
		if k.tenant == t {
			out, shapes = append(out, Source{State: w.state(s, now)}), append(shapes, s.shape())
		}
	}
	w.mu.Unlock()
	for i := range out { // some milliseconds each, so not while the worker waits
		x := &out[i]
		for _, v := range shapes[i].judge(cat, (*profile).has) {
			switch {
			case v.Can:
				x.Can = append(x.Can, v)
			case v.Kind:
				x.OtherKind++
			default:
				x.Cannot = append(x.Cannot, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b Source) int { return compare(&a.State, &b.State) })
	return out
}

// Technique is one technique of ATT&CK and the rules that could see it at a member.
type Technique struct {
	ID    string   `json:"id"`
	Rules []string `json:"rules"` // titles of rules that can fire on a source of the member
	Blind int      `json:"blind"` // rules about it that can fire on none
}

// Coverage says which techniques the rules could see, given the sources of a member. Rules of the site count where the hub cannot know better:
// they look at what stays there. dead says of which rules it is known that they are silent at this member for another reason: switched off, or in need of
// what its policy keeps at home.
func (w *Watch) Coverage(t event.TenantID, dead func(*detect.Info) bool) []Technique {
	can := map[string]bool{}
	for _, s := range w.Sources(t) {
		for i := range s.Can {
			can[s.Can[i].ID] = !dead(&s.Can[i].Info)
		}
		for i := range s.Cannot {
			if v := &s.Cannot[i]; v.Runs == detect.Site && !dead(&v.Info) {
				can[v.ID] = true
			}
		}
	}
	by := map[string]*Technique{}
	for _, r := range w.rules().Infos() {
		if r.Across {
			continue
		}
		for _, tag := range r.Tags {
			id, ok := strings.CutPrefix(tag, "attack.t")
			if !ok {
				continue
			}
			x := by["T"+id]
			if x == nil {
				x = &Technique{ID: "T" + id, Rules: []string{}}
				by[x.ID] = x
			}
			if can[r.ID] {
				x.Rules = append(x.Rules, r.Title)
			} else {
				x.Blind++
			}
		}
	}
	out := make([]Technique, 0, len(by))
	for _, x := range by {
		slices.Sort(x.Rules)
		out = append(out, *x)
	}
	slices.SortFunc(out, func(a, b Technique) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
