// Package health is the health of detection: whether the sources of each member still say what rules need, which rules can fire on them and why
// others cannot, and an alert when something that detected cannot any more. A sensor that is blind must say so itself.
//
// It is given every event that the hub's worker reads (Observe; of a source it looks closely at 32 a minute at most), the counts of collectors and
// what is wrong with the detector (Check). It writes what it learnt to the table detection_sources now and then: a crash loses at most a minute of
// it, which is learnt again. What it raises are detections of the family detection-health with keys that name the episode, so that asking again, or
// after a restart, makes no second alert.
//
// Within which time:
//
//   - fields vanish: a field that at least 80 % of a source's events of one category had and that rules need, in at most 5 % of two windows, plus one
//     check (30 s). A window is 128 events that were looked at closely (at most 32 a minute of a source) and at least a quarter of an hour: a burst of
//     one kind of event, such as guessing or a flood, must not look like a fault;
//   - lines not understood: a collector of whose lines at least 80 % were understood, below 50 % of the next 200 or more, plus one check;
//   - a source is silent: three times the longest pause of its last week, at least one hour and at most 26, from its second day on;
//   - a collector is silent: 30 minutes;
//   - the detector cannot run as it should: two checks.
package health

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Every is how often Check should be called.
const Every = 30 * time.Second

// Bounds and thresholds; the package comment says them in words.
const (
	aMinute      = 32 // events of a source that are looked at closely
	windowSize   = 128
	windowTime   = 15 * time.Minute
	learnWindows = 2
	maxSources   = 100_000
	maxOfTenant  = 64
	maxFields    = 256
	maxProfiles  = 16

	usualShare, goneShare, backShare = 0.8, 0.05, 0.5
	parsedUsual, parsedGone          = 0.8, 0.5
	parsedLines                      = 200
	silentLeast, silentMost          = time.Hour, 26 * time.Hour
	collectorSilent                  = 30 * time.Minute
)

// source is what is known of one member's source. It is its own stored form: fields may be added.
type source struct {
	Tenant  event.TenantID `json:"-"`
	Dataset string         `json:"-"`
	First   int64          `json:"first"` // UTC ns
	Last    int64          `json:"last"`
	Events  uint64         `json:"events"`
	Gaps    [7]int64       `json:"gaps"` // the longest pause of each day of the week, ns
	GapDay  int64          `json:"gap_day"`
	// Profiles are what events of one category look like, by the first event.category; "" those without, "*" all: of those only that they have a
	// category is counted.
	Profiles map[string]*profile `json:"profiles"`
	Services map[string]bool     `json:"services"`

	minute int64 // of the last event that was looked at closely
	looked int   // in that minute
	dirty  bool
}

// profile is what events of one category look like.
type profile struct {
	Windows int               `json:"windows"`
	Fields  map[string]*field `json:"fields"`

	n     int   // in this window
	begun int64 // when it began, ns
}

type field struct {
	Share float64 `json:"share"`          // as usual
	Low   int     `json:"low,omitempty"`  // windows in a row without it
	Gone  int64   `json:"gone,omitempty"` // since when, ns; 0: it comes
	n     int     // in this window
}

// Collector is what Check wants to know of a collector.
type Collector struct {
	Tenant           event.TenantID
	ID, Name         string
	Received, Parsed uint64 // lines, since it began
	Seen             int64  // last request, UTC ns
}

// Watch observes. Observe belongs to the worker's goroutine; everything may be called beside it.
type Watch struct {
	db  *db.DB
	log *slog.Logger
	now func() time.Time
	cat func() *detect.Catalogue

	mu      sync.Mutex // guards the rest; held shortly
	begun   time.Time
	sources map[key]*source
	of      map[event.TenantID]int
	last    *source
	lastKey key
	counts  map[string]*counted
	trouble map[string]int64 // since when, ns
	refused uint64           // sources beyond the bounds
}

type key struct {
	tenant  event.TenantID
	dataset string
}

type counted struct {
	received, parsed uint64 // at the last window
	usual            float64
	bad              int64 // since when
}

// New reads what was learnt. cat gives the rules in force.
func New(ctx context.Context, d *db.DB, cat func() *detect.Catalogue, log *slog.Logger, now func() time.Time) (*Watch, error) {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &Watch{db: d, log: log, now: now, cat: cat, begun: now(), sources: map[key]*source{}, of: map[event.TenantID]int{}, counts: map[string]*counted{}, trouble: map[string]int64{}}
	rows, err := db.Bound(d.Read()).QueryContext(ctx, "SELECT tenant, dataset, state FROM detection_sources LIMIT ?", maxSources)
	if err != nil {
		return nil, fmt.Errorf("detection health: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		s := &source{}
		var state string
		if err := rows.Scan(&s.Tenant, &s.Dataset, &state); err != nil {
			return nil, fmt.Errorf("detection health: %w", err)
		}
		if err := json.Unmarshal([]byte(state), s); err != nil {
			log.WarnContext(ctx, "what was known of a source cannot be read; it is learnt anew", "tenant", s.Tenant, "dataset", s.Dataset, "err", err)
			continue
		}
		s.complete()
		w.sources[key{s.Tenant, s.Dataset}] = s
		w.of[s.Tenant]++
	}
	return w, rows.Err()
}

func (s *source) complete() {
	if s.Profiles == nil {
		s.Profiles = map[string]*profile{}
	}
	for _, p := range s.Profiles {
		if p.Fields == nil {
			p.Fields = map[string]*field{}
		}
	}
	if s.Services == nil {
		s.Services = map[string]bool{}
	}
}

// Observe takes one event. Detections of sites, and what the collector says of itself, are no source.
func (w *Watch) Observe(ev *event.Event) {
	dataset := ev.Str(event.EventDataset)
	if dataset == "" || strings.HasPrefix(dataset, "tocsin.") {
		return
	}
	at := ev.Created
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.last
	if s == nil || w.lastKey.tenant != ev.Tenant || w.lastKey.dataset != dataset {
		if s = w.source(ev.Tenant, dataset, at); s == nil {
			return
		}
	}
	s.see(at)
	if m := at / int64(time.Minute); m != s.minute {
		s.minute, s.looked = m, 0
	}
	if s.looked++; s.looked <= aMinute {
		s.look(ev, at)
	}
}

func (w *Watch) source(t event.TenantID, dataset string, at int64) *source {
	s := w.sources[key{t, dataset}]
	if s == nil {
		if len(w.sources) >= maxSources || w.of[t] >= maxOfTenant || len(dataset) > 100 {
			w.refused++
			return nil
		}
		dataset = strings.Clone(dataset) // it points into the event
		s = &source{Tenant: t, Dataset: dataset, First: at, Last: at}
		s.complete()
		w.sources[key{t, dataset}] = s
		w.of[t]++
	}
	w.last, w.lastKey = s, key{s.Tenant, s.Dataset}
	return s
}

func (s *source) see(at int64) {
	s.Events++
	s.dirty = true
	if gap := at - s.Last; gap > 0 {
		day := at / int64(24*time.Hour)
		if day != s.GapDay {
			for d := max(s.GapDay+1, day-6); d <= day; d++ {
				s.Gaps[d%7] = 0
			}
			s.GapDay = day
		}
		s.Gaps[day%7] = max(s.Gaps[day%7], gap)
	}
	s.Last = max(s.Last, at)
	s.First = min(s.First, at)
}

// everything is the profile of all events of a source, of whatever category.
const everything = "*"

func (s *source) profile(category string) *profile {
	p := s.Profiles[category]
	if p == nil {
		if len(s.Profiles) >= maxProfiles {
			return nil
		}
		p = &profile{Fields: map[string]*field{}}
		s.Profiles[strings.Clone(category)] = p // it points into the event
	}
	return p
}

// look counts the fields of an event.
func (s *source) look(ev *event.Event, at int64) {
	category := ev.Str(event.EventCategory)
	if all := s.profile(everything); all != nil {
		if category != "" {
			all.count(event.EventCategory.Name())
		}
		all.end(at)
	}
	p := s.profile(category)
	if p == nil {
		return
	}
	before := event.Key(0)
	for i := range ev.Len() {
		k, v := ev.At(i)
		if k == before && i > 0 {
			continue // another value of the same field
		}
		before = k
		p.count(k.Name())
		if k == event.TocsinService && len(s.Services) < 32 && !s.Services[v.Str()] {
			s.Services[strings.Clone(v.Str())] = true
		}
	}
	p.end(at)
}

func (p *profile) count(name string) {
	f := p.Fields[name]
	if f == nil {
		if len(p.Fields) >= maxFields {
			return
		}
		f = &field{}
		p.Fields[name] = f
	}
	f.n++
}

// end counts an event, and judges the window when it is full.
func (p *profile) end(at int64) {
	if p.n == 0 {
		p.begun = at
	}
	if p.n++; p.n < windowSize || at-p.begun < int64(windowTime) {
		return
	}
	p.Windows++
	for _, f := range p.Fields {
		share := float64(f.n) / float64(p.n)
		f.n = 0
		switch {
		case p.Windows <= learnWindows:
			f.Share += (share - f.Share) / float64(p.Windows)
		case f.Share >= usualShare && share <= goneShare:
			if f.Low++; f.Low >= 2 && f.Gone == 0 {
				f.Gone = at
			}
		case f.Gone != 0 && share < backShare:
			// Still away.
		default:
			f.Low, f.Gone = 0, 0
			f.Share += (share - f.Share) / 5
		}
	}
	p.n = 0
}

// had says whether a field comes, or came; has whether it comes.
func (p *profile) had(name string) bool {
	f := p.Fields[name]
	return f != nil && (f.Share > 0 || f.n > 0)
}

func (p *profile) has(name string) bool { return p.had(name) && p.Fields[name].Gone == 0 }

func (s *source) sight(category string, has func(string) bool) detect.Sight {
	x := detect.Sight{Dataset: s.Dataset, Services: slices.Sorted(maps.Keys(s.Services)), Has: has}
	if category != "" {
		x.Categories = []string{category}
	}
	return x
}

// judge says which rules can fire on a source: on any kind of its events.
func (s *source) judge(cat *detect.Catalogue, has func(*profile, string) bool) []detect.Verdict {
	var out []detect.Verdict
	for category, p := range s.Profiles {
		if category == everything {
			continue
		}
		list := cat.Judge(s.sight(category, func(f string) bool { return has(p, f) }))
		if out == nil {
			out = list
			continue
		}
		for i, v := range list {
			o := &out[i]
			if v.Can && !o.Can || !o.Can && !v.Kind && (o.Kind || len(v.Missing) < len(o.Missing)) {
				*o = v
			}
		}
	}
	return out
}

// silentAfter is how long a source may be silent; 0: it is too new to say.
func (s *source) silentAfter() time.Duration {
	if s.Last-s.First < int64(24*time.Hour) || s.Events < 50 {
		return 0
	}
	return min(max(3*time.Duration(slices.Max(s.Gaps[:])), silentLeast), silentMost)
}

// Datasets are the kinds of devices that a member has, by their event.dataset.
func (w *Watch) Datasets(t event.TenantID) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for k := range w.sources {
		if k.tenant == t {
			out = append(out, k.dataset)
		}
	}
	slices.Sort(out)
	return out
}

// Source is how a source stands.
type Source struct {
	Tenant    event.TenantID   `json:"tenant"`
	Dataset   string           `json:"dataset"`
	First     time.Time        `json:"first"`
	Last      time.Time        `json:"last"`
	Events    uint64           `json:"events"` // that reached the hub
	Mapped    float64          `json:"mapped"` // share of events that have a category, so that rules look at them
	Gone      []string         `json:"gone"`   // fields that came and come no more
	Silent    bool             `json:"silent"`
	Can       []detect.Verdict `json:"-"`
	Cannot    []detect.Verdict `json:"-"`     // of its kind, with what is missing
	OtherKind int              `json:"other"` // rules that look at other kinds of sources
}

// Sources says how the sources of a member stand, and which rules can fire on each. Of a rule that runs on the site the answer is about what
// reached the hub: fields that the member's policy keeps at home count as missing there, though the site has them.
func (w *Watch) Sources(t event.TenantID) []Source {
	cat := w.cat()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Source
	now := w.now().UnixNano()
	for k, s := range w.sources {
		if k.tenant != t {
			continue
		}
		x := Source{Tenant: t, Dataset: s.Dataset, First: time.Unix(0, s.First), Last: time.Unix(0, s.Last), Events: s.Events}
		if p := s.Profiles[everything]; p != nil {
			if f := p.Fields[event.EventCategory.Name()]; f != nil && f.Gone == 0 {
				x.Mapped = f.Share
				if p.Windows == 0 {
					x.Mapped = float64(f.n) / float64(max(1, p.n))
				}
			}
		}
		for _, p := range s.Profiles {
			for name, f := range p.Fields {
				if f.Gone != 0 && !slices.Contains(x.Gone, name) {
					x.Gone = append(x.Gone, name)
				}
			}
		}
		slices.Sort(x.Gone)
		if after := s.silentAfter(); after > 0 && now-s.Last > int64(after) {
			x.Silent = true
		}
		for _, v := range s.judge(cat, (*profile).has) {
			switch {
			case v.Can:
				x.Can = append(x.Can, v)
			case v.Kind:
				x.OtherKind++
			default:
				x.Cannot = append(x.Cannot, v)
			}
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Source) int { return strings.Compare(a.Dataset, b.Dataset) })
	return out
}

// Technique is one technique of ATT&CK and the rules that could see it at a member.
type Technique struct {
	ID    string   `json:"id"`
	Rules []string `json:"rules"` // titles of rules that can fire on a source of the member
	Blind int      `json:"blind"` // rules about it that can fire on none
}

// Coverage says which techniques the rules could see, given the sources of a member. Rules of the site count where the hub cannot know better:
// they look at what stays there.
func (w *Watch) Coverage(t event.TenantID) []Technique {
	can := map[string]bool{}
	for _, s := range w.Sources(t) {
		for _, v := range s.Can {
			can[v.ID] = true
		}
		for _, v := range s.Cannot {
			if v.Runs == detect.Site {
				can[v.ID] = true
			}
		}
	}
	by := map[string]*Technique{}
	for _, r := range w.cat().Infos() {
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
				x = &Technique{ID: "T" + id}
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

// Save writes what was learnt since the last time.
func (w *Watch) Save(ctx context.Context) error {
	type line struct {
		s    *source
		text string
	}
	var lines []line
	w.mu.Lock()
	for _, s := range w.sources {
		if !s.dirty {
			continue
		}
		b, err := json.Marshal(s)
		if err != nil {
			w.mu.Unlock()
			return fmt.Errorf("detection health: %w", err)
		}
		s.dirty = false
		lines = append(lines, line{s, string(b)})
	}
	w.mu.Unlock()
	for part := range slices.Chunk(lines, 500) {
		err := w.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			for _, l := range part {
				if _, err := db.Bound(tx).ExecContext(ctx, "INSERT INTO detection_sources (tenant, dataset, state, updated_ns) VALUES (?,?,?,?) ON CONFLICT (tenant, dataset) DO UPDATE SET state = excluded.state, updated_ns = excluded.updated_ns",
					l.s.Tenant, l.s.Dataset, l.text, w.now().UnixNano()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			w.mu.Lock()
			for _, l := range part {
				l.s.dirty = true
			}
			w.mu.Unlock()
			return fmt.Errorf("detection health: %w", err)
		}
	}
	return nil
}
