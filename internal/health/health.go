// Package health is the health of detection: whether the sources of each member still say what rules need, which rules can fire on them and why
// others cannot, and an alert when something that detected cannot any more. A sensor that is blind must say so itself.
//
// A source is what one collector gets of one kind of device (event.dataset); of a source with a few senders (tocsin.sender.ip) each is listened
// for by itself, so that one of two firewalls is missed.
//
// It is given every event that the hub's worker reads (Observe; of a source it looks closely at a few in each stretch of time), the counts of
// collectors and what is wrong with the detector (Check). It writes what it learnt to the table detection_seen: what changed in kind with the next
// Save, mere counts every few minutes. A crash loses a few minutes of learning, which are learnt again. What it raises are detections of the families
// health-…, with keys that name the episode: asking again makes no second alert, nor does a restart, but for a fault of the detector itself. It counts the
// sources it knows, those that are silent or lost fields, and those it had no room for (Stats).
//
// Within which time (Times, the settings health.*; here their defaults):
//
//   - fields vanish: a field that at least 80 % of a source's events of one category had and that rules need, in at most 5 % of two windows, plus one
//     check (30 s). A window is 128 events that were looked at closely (at most 480 in a quarter of an hour) and at least a quarter of an hour: a burst of
//     one kind of event, such as guessing or a flood, must not look like a fault;
//   - lines not understood: a collector of whose lines at least 80 % were understood, below 50 % of the next 200 or more, plus one check;
//   - lines of one device not understood while those of others are: the collector itself says so, under the same rule (detect.LinesRule), after 200 lines;
//   - a source is silent: three times the longest pause of its last week, at least one hour and at most 26, from its second day on. The time counts while
//     its collector is heard and the hub is not behind with what came;
//   - a collector is silent: 30 minutes. When this machine slept, so that Check was not called for half of that time, every silence counts from its
//     waking on. When the clock was put back, what was heard last at a time that now lies ahead is waited for from that time on: it is told later;
//   - the detector cannot run as it should: two checks.
//
// A source that was silent for five weeks is forgotten, and so is one of its senders.
package health

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Times are within which time is told what the package comment names. The zero value stands for the defaults.
type Times struct {
	Window          time.Duration // the least time of a window, default 15m
	SourceSilent    time.Duration // the least silence of a source that is told, default 1h
	SourceKnown     time.Duration // how long a source must have been there before its silence is told, default 24h
	CollectorSilent time.Duration // default 30m
}

func (t Times) complete() Times {
	for _, x := range []struct {
		d    *time.Duration
		none time.Duration
	}{{&t.Window, 15 * time.Minute}, {&t.SourceSilent, time.Hour}, {&t.SourceKnown, 24 * time.Hour}, {&t.CollectorSilent, 30 * time.Minute}} {
		if *x.d <= 0 {
			*x.d = x.none
		}
	}
	return t
}

// Every is how often Check should be called: each 30 s, oftener where the times are shorter.
func (t Times) Every() time.Duration {
	t = t.complete()
	return min(30*time.Second, max(200*time.Millisecond, min(t.Window, t.SourceSilent, t.CollectorSilent)/5))
}

// silentMost is the longest silence that is waited for, unless SourceSilent is longer.
const silentMost = 26 * time.Hour

// Bounds and thresholds; the package comment says them in words.
const (
	aSlice       = 32 // events of a source that are looked at closely in a fifteenth of a window
	slices15     = 15
	windowSize   = 128
	learnWindows = 2
	maxSources   = 100_000
	maxOfTenant  = 128
	maxFieldsOf  = 16_384 // of one member, in all profiles of its sources: some 400 KB
	maxSenders   = 8      // of one source; with more they are many machines, and come and go
	maxFields    = 256
	maxProfiles  = 16
	maxServices  = 32
	maxDataset   = 100 // bytes, as of a category or service

	usualShare, goneShare, backShare = 0.8, 0.05, 0.5
	parsedUsual, parsedGone          = 0.8, 0.5
	parsedLines                      = 200
	knownEvents                      = 50 // of a source or sender whose silence is told
	forgetAfter                      = 35 * 24 * time.Hour
)

// Options for New.
type Options struct {
	DB     *db.DB
	Rules  func() *detect.Catalogue // in force
	Times  Times
	Logger *slog.Logger
	Now    func() time.Time // nil: the clock
}

// Watch observes. Observe belongs to the worker's goroutine; everything may be called beside it.
type Watch struct {
	db    *db.DB
	log   *slog.Logger
	now   func() time.Time
	rules func() *detect.Catalogue
	times Times

	saving sync.Mutex // held by Save

	mu      sync.Mutex // guards the rest; held shortly: the worker waits for it with each event
	sources map[key]*source
	of      map[event.TenantID]*usage
	last    *source
	lastKey key
	counts  map[string]*counted // by collector
	up      map[string]int64    // since when each collector is heard without a break, ns
	behind  int64               // since when the hub is not behind, ns
	checked int64               // when Check was called last, ns
	pauses  uint64              // times that it was long ago
	trouble map[string]int64    // since when, ns
	gone    []key               // forgotten, to be deleted
	refused uint64              // events of sources beyond the bounds
}

// usage is what one member takes up.
type usage struct {
	sources, fields int
	refused         uint64 // fields of events for which there was no room
}

// usageOf finds or makes a member's.
func (w *Watch) usageOf(t event.TenantID) *usage {
	u := w.of[t]
	if u == nil {
		u = &usage{}
		w.of[t] = u
	}
	return u
}

type key struct {
	tenant             event.TenantID
	collector, dataset string
}

// source is what is known of one source.
type source struct {
	key
	rhythm
	usage    *usage // of its member
	services []string
	senders  []sender
	fleet    bool // more senders than are listened for one by one
	profiles map[string]*profile

	slice  int64 // of the last event that was looked at closely
	looked int   // in it
	dirty  bool  // something changed
	kept   int64 // when it was written last, ns
	urgent bool  // what changed is not to be learnt anew: the next Save writes it
	lost   verdict
}

// sender is one device of a source.
type sender struct {
	addr netip.Addr
	rhythm
}

// rhythm is when events came.
type rhythm struct {
	first, last int64 // UTC ns
	events      uint64
	gaps        [7]int64 // the longest pause of each day of the week, ns
	day         int64    // the newest of these days, since 1970
}

func (r *rhythm) see(at int64) {
	if r.events++; r.events == 1 {
		r.first, r.last = at, at
	}
	if gap := at - r.last; gap > 0 {
		day := at / int64(24*time.Hour)
		if day != r.day {
			for d := max(r.day+1, day-6); d <= day; d++ {
				r.gaps[d%7] = 0
			}
			r.day = day
		}
		r.gaps[day%7] = max(r.gaps[day%7], gap)
	}
	r.last, r.first = max(r.last, at), min(r.first, at)
}

// patience is how long it may be silent; 0: it is too new to say.
func (r *rhythm) patience(t Times) time.Duration {
	if r.last-r.first < int64(t.SourceKnown) || r.events < knownEvents {
		return 0
	}
	return min(max(3*time.Duration(slices.Max(r.gaps[:])), t.SourceSilent), max(silentMost, t.SourceSilent))
}

// New reads what was learnt.
func New(ctx context.Context, o Options) (*Watch, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	w := &Watch{db: o.DB, log: o.Logger, now: o.Now, rules: o.Rules, times: o.Times.complete(), sources: map[key]*source{}, of: map[event.TenantID]*usage{}, counts: map[string]*counted{},
		up: map[string]int64{}, trouble: map[string]int64{}}
	w.behind = w.now().UnixNano()
	return w, w.load(ctx)
}

// Times are those in force.
func (w *Watch) Times() Times { return w.times }

// Observe takes one event. What a site found, what the collector says of itself, and lines of a sender that changed its product are no source.
func (w *Watch) Observe(ev *event.Event) {
	dataset := ev.Str(event.EventDataset)
	if dataset == "" || strings.HasPrefix(dataset, "tocsin.") || ev.Has(event.TocsinSenderProductChanged) {
		return
	}
	collector := ev.Str(event.TocsinCollectorID)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.last
	if s == nil || w.lastKey.tenant != ev.Tenant || w.lastKey.dataset != dataset || w.lastKey.collector != collector {
		if s = w.source(key{ev.Tenant, collector, dataset}); s == nil {
			w.refused++
			return
		}
	}
	at := max(ev.Created, 0) // before 1970 there are no days to count by
	if at > s.last {         // a clock that is ahead must not make a source be heard tomorrow
		at = min(at, w.now().UnixNano())
	}
	s.see(at)
	if addr, ok := ev.IP(event.TocsinSenderIP); ok && !s.fleet {
		s.seeSender(addr, at)
	}
	if n := at / (int64(w.times.Window) / slices15); n > s.slice {
		s.slice, s.looked = n, 0
	}
	if s.looked++; s.looked <= aSlice {
		s.look(ev, at, int64(w.times.Window))
	}
	s.dirty = true
}

// source finds or makes one; nil when there is no room. The strings of k may point into an event.
func (w *Watch) source(k key) *source {
	s := w.sources[k]
	if s == nil {
		if len(w.sources) >= maxSources || len(k.dataset) > maxDataset {
			return nil
		}
		u := w.usageOf(k.tenant)
		if u.sources >= maxOfTenant {
			return nil
		}
		k.collector, k.dataset = strings.Clone(k.collector), strings.Clone(k.dataset)
		s = &source{key: k, usage: u, profiles: map[string]*profile{}}
		w.sources[k] = s
		u.sources++
	}
	w.last, w.lastKey = s, s.key
	return s
}

func (s *source) seeSender(addr netip.Addr, at int64) {
	for i := range s.senders {
		if s.senders[i].addr == addr {
			s.senders[i].see(at)
			return
		}
	}
	if len(s.senders) >= maxSenders {
		// Somebody's single test must not count for ever.
		i := slices.IndexFunc(s.senders, func(x sender) bool { return x.events < knownEvents && at-x.last > int64(24*time.Hour) })
		if i < 0 {
			s.fleet, s.senders = true, nil
			return
		}
		s.senders = slices.Delete(s.senders, i, i+1)
	}
	x := sender{addr: addr}
	x.see(at)
	s.senders = append(s.senders, x)
}

// forget lets go of a source.
func (w *Watch) forget(s *source) {
	delete(w.sources, s.key)
	u := s.usage
	for _, p := range s.profiles {
		u.fields -= len(p.fields)
	}
	if u.sources--; u.sources == 0 {
		delete(w.of, s.tenant)
	}
	if w.last == s {
		w.last, w.lastKey = nil, key{}
	}
	w.gone = append(w.gone, s.key)
}

// Datasets are the kinds of devices that a member has, by their event.dataset.
func (w *Watch) Datasets(t event.TenantID) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	if w.of[t] == nil {
		return nil
	}
	for k := range w.sources {
		if k.tenant == t && !slices.Contains(out, k.dataset) {
			out = append(out, k.dataset)
		}
	}
	slices.Sort(out)
	return out
}

// Stats is how many sources there are.
type Stats struct {
	Sources, Silent, Blind int    // Blind: lost fields
	Refused                uint64 // events of sources, and fields of events, for which there was no room, since the start
	Pauses                 uint64 // times that this machine slept or its clock was put, since the start
}

// Stats counts.
func (w *Watch) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := Stats{Sources: len(w.sources), Refused: w.refused, Pauses: w.pauses}
	now := w.now().UnixNano()
	for _, u := range w.of {
		out.Refused += u.refused
	}
	for _, s := range w.sources {
		if silent, _ := w.silent(s, now); len(silent) > 0 {
			out.Silent++
		}
		if s.blind() {
			out.Blind++
		}
	}
	return out
}
