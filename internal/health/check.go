package health

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Rules that this package stands for. Each has a family of its own: what is to be done differs, and one must not be counted into another's alert.
const (
	RuleFields    = "tocsin-health-fields"
	RuleLines     = detect.LinesRule
	RuleSilent    = "tocsin-health-silent"
	RuleCollector = "tocsin-health-collector"
	RuleDetector  = "tocsin-health-detector"
	RuleDaily     = "tocsin-health-daily" // raised by whoever sends the daily synthetic event
	RuleDailySite = "tocsin-health-daily-site"
)

// Rule is what people read of one of them.
type Rule struct {
	ID, Title, Family, Level string
	Member                   detect.Text
}

var own = []Rule{
	{RuleFields, "Fields that rules need have vanished", "health-fields", "high", detect.Text{
		Title: "Part of your protection has gone blind",
		What:  "The records of one of your devices no longer say something that Tocsin needs. Some attacks would not be noticed. It often happens after an update of the device.",
		Do:    "Ask your IT support whether the device was updated or its logging changed, and to set the logging up as before. Nothing was broken into, as far as this shows."}},
	{RuleLines, detect.LinesTitle, detect.LinesFamily, detect.LinesLevel, detect.Text{
		Title: "Tocsin no longer understands your records",
		What:  "Most lines that your devices send are not understood any more. Attacks in them would not be noticed. It often happens after an update or a change of the log format.",
		Do:    "Ask your IT support what was changed, and to choose the log format that the collector's guide names. On the collector, tocsin-collector unknown shows such lines."}},
	{RuleSilent, "Source is silent", "health-silent", "medium", detect.Text{
		Title: "One of your devices has stopped sending its records",
		What:  "A device that always sent its records has been silent for much longer than in the last week. Without them nobody can see an attack on it. Attackers also turn records off.",
		Do:    "Ask your IT support whether the device was switched off or its logging changed. If nobody did it, call the centre."}},
	{RuleCollector, "Collector is silent", "health-collector", "high", detect.Text{
		Title: "Your Tocsin collector is silent",
		What:  "The collector in your network has not been heard of. It keeps your records and sends them when it is back, but nobody is warned meanwhile.",
		Do:    "See whether the machine is switched on and has a connection to the Internet. On it, tocsin-collector doctor says what is wrong."}},
	{RuleDetector, "Detector cannot run as it should", "health-detector", "high", detect.Text{
		Title: "The centre's detection has a fault",
		What:  "Something in the centre's own detection does not work as it should.",
		Do:    "The centre's operator has to act; the reason says what to look at. Members have nothing to do."}},
	{RuleDaily, "The daily test event raised no alert", "health-daily", "high", detect.Text{
		Title: "The daily test of your protection failed",
		What:  "Once a day the centre sends a harmless test in your name through its own detection, to see that a real attack on you would be noticed. The last one did not come out in time.",
		Do:    "The centre's operator has to act and has been told. You have nothing to do: your collector and your devices have no part in this test."}},
	{RuleDailySite, "The daily test of a collector raised no alert", "health-daily-site", "high", detect.Text{
		Title: "The daily test of your collector failed",
		What:  "Once a day your collector sends a harmless test line through itself to the centre, the whole way that your devices' records go, to see that a real attack on you would be noticed. The last one did not come out in time.",
		Do:    "Ask your IT support to run tocsin-collector doctor on the collector's machine, and to look at its log; both say what is wrong and what to do next. The centre has been told too."}},
}

// Rules lists them.
func Rules() []Rule { return slices.Clone(own) }

// Lookup finds one by its id.
func Lookup(id string) (Rule, bool) {
	i := slices.IndexFunc(own, func(r Rule) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return own[i], true
}

// Raise makes the detection of one of the rules. entity is what it is about, in words; since, UTC ns, names the episode: one alert each.
func Raise(rule string, t event.TenantID, entity, reason string, since, now int64) event.Detection {
	r, ok := Lookup(rule)
	if !ok {
		panic("health: no rule " + rule)
	}
	return event.Detection{
		Tenant: t, RuleID: r.ID, RuleTitle: r.Title, Family: r.Family, Level: r.Level, Tags: []string{"attack.defense-evasion", "attack.t1562"}, Entity: event.Entity{Kind: "host", Value: entity},
		Host: entity, First: since, Last: now, Count: 1, Reason: reason, Key: fmt.Sprintf("health/%s/%d/%s/%d", rule, t, entity, since),
	}
}

// Collector is what Check wants to know of a collector.
type Collector struct {
	Tenant           event.TenantID
	ID, Name         string
	Received, Parsed uint64 // lines, since it began
	Seen             int64  // last request, UTC ns
}

// Asked is what Check is told.
type Asked struct {
	Collectors []Collector // those that may send
	Troubles   []string    // what is wrong with the detector itself, each a sentence
	Behind     bool        // the worker has not read all that came: silence means nothing yet
}

// counted is the share of a collector's lines that are understood.
type counted struct {
	tenant           event.TenantID
	received, parsed uint64 // at the last window
	usual            float64
	bad              int64 // since when, ns; 0: well
	dirty            bool
}

// verdict is what lost fields of a source mean to rules, worked out once.
type verdict struct {
	cat  *detect.Catalogue
	mark string // which fields are gone
	d    event.Detection
	bad  bool
}

// Check says what cannot be detected any more.
func (w *Watch) Check(a Asked) []event.Detection {
	cat := w.rules()
	now := w.now().UnixNano()
	names := map[string]string{}
	var (
		out    []event.Detection
		shapes []shape
		gone   []key
	)
	w.mu.Lock()
	// A machine that slept, or whose clock was put, could hear nobody meanwhile: everybody has their time from now on,
	// or, where they were heard at a time that lies ahead now, from then on: no such time goes back.
	paused := w.checked != 0 && (now < w.checked || now-w.checked > int64(w.times.CollectorSilent)/2)
	if w.checked = now; paused {
		w.pauses++
		clear(w.up)
	}
	switch {
	case a.Behind:
		w.behind = 0
	case w.behind == 0 || paused:
		w.behind = now
	}
	known := map[string]bool{}
	for i := range a.Collectors {
		c := &a.Collectors[i]
		known[c.ID], names[c.ID] = true, c.Name
		// An hour's break of the line is no silence of what lies behind it: its events come when it is back.
		if now-c.Seen > int64(w.times.CollectorSilent)/2 {
			delete(w.up, c.ID)
		} else if w.up[c.ID] == 0 {
			w.up[c.ID] = now
		}
		if w.behind == 0 {
			continue // while the hub is behind, or was away, nobody could be heard
		}
		if now-max(c.Seen, w.behind) > int64(w.times.CollectorSilent) {
			out = append(out, Raise(RuleCollector, c.Tenant, c.Name+" ("+c.ID+")", fmt.Sprintf("The collector %s was heard last on %s.", c.Name, stamp(c.Seen)), c.Seen, now))
		}
		if d, bad := w.lines(c, now); bad {
			out = append(out, d)
		}
	}
	for id := range w.up {
		if !known[id] {
			delete(w.up, id)
		}
	}
	for id, c := range w.counts {
		if !known[id] { // revoked, or its member left
			delete(w.counts, id)
			w.gone = append(w.gone, key{c.tenant, id, ""})
		}
	}
	for _, s := range w.sources {
		if now-s.last > int64(forgetAfter) {
			w.forget(s)
			continue
		}
		// A firewall that was replaced, under another address, is not waited for ever.
		if n := len(s.senders); n > 0 {
			if s.senders = slices.DeleteFunc(s.senders, func(x sender) bool { return now-x.last > int64(forgetAfter) }); len(s.senders) < n {
				s.dirty = true
			}
		}
		if !known[s.collector] {
			continue // nobody waits for it
		}
		silent, whole := w.silent(s, now)
		for _, r := range silent {
			out = append(out, w.quiet(s, r, whole, names[s.collector], now))
		}
		if !s.blind() {
			s.lost = verdict{}
			continue
		}
		if mark := s.mark(); s.lost.cat == cat && s.lost.mark == mark {
			if s.lost.bad {
				out = append(out, s.lost.d)
			}
			continue
		}
		shapes, gone = append(shapes, s.shape()), append(gone, s.key)
	}
	out = append(out, w.detector(a.Troubles, now)...)
	w.mu.Unlock()
	for i := range shapes { // some milliseconds each, so not while the worker waits
		v := vanished(cat, &shapes[i], gone[i], names[gone[i].collector], now)
		if v.bad {
			out = append(out, v.d)
		}
		w.mu.Lock()
		if s := w.sources[gone[i]]; s != nil {
			s.lost = v
		}
		w.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b event.Detection) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// silent gives what of a source is silent: its senders, or the source itself (whole).
func (w *Watch) silent(s *source, now int64) (out []sender, whole bool) {
	up := w.up[s.collector]
	if up == 0 || w.behind == 0 {
		return nil, false
	}
	is := func(r *rhythm) bool {
		after := r.patience(w.times)
		return after > 0 && now-max(r.last, up, w.behind) > int64(after)
	}
	if is(&s.rhythm) {
		return []sender{{rhythm: s.rhythm}}, true
	}
	if len(s.senders) > 1 {
		for i := range s.senders {
			if is(&s.senders[i].rhythm) {
				out = append(out, s.senders[i])
			}
		}
	}
	return out, false
}

func (w *Watch) quiet(s *source, r sender, whole bool, collector string, now int64) event.Detection {
	entity := s.entity(collector)
	what := product(s.dataset)
	if !whole {
		entity = r.addr.String() + ", " + entity
		what += " at " + r.addr.String()
	}
	return Raise(RuleSilent, s.tenant, entity, fmt.Sprintf("Nothing came from %s at the collector %s since %s; its longest pause in the week before was %s.", what, collector, stamp(r.last), pause(slices.Max(r.gaps[:]))), r.last, now)
}

// entity is what alerts about a source name.
func (k key) entity(collector string) string { return k.dataset + ", " + collector }

// mark names which fields are gone, and since when.
func (s *source) mark() string {
	var list []string
	for c, p := range s.profiles {
		for i := range p.fields {
			if f := &p.fields[i]; f.gone != 0 {
				list = append(list, fmt.Sprint(c, "/", f.key, "/", f.gone))
			}
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// vanished says which rules a source's lost fields have silenced.
func vanished(cat *detect.Catalogue, x *shape, k key, collector string, now int64) verdict {
	src := source{profiles: x.profiles}
	v := verdict{cat: cat, mark: src.mark()}
	away := map[string]int64{} // since when, the first of any category
	blind := false             // events no longer say what kind they are
	for category, p := range x.profiles {
		for i := range p.fields {
			f := &p.fields[i]
			if f.gone == 0 {
				continue
			}
			if name := f.key.Name(); away[name] == 0 || f.gone < away[name] {
				away[name] = f.gone
			}
			blind = blind || category == everything
		}
	}
	before := map[string]bool{}
	for _, r := range x.judge(cat, (*profile).had) {
		before[r.ID] = r.Can
	}
	var lost, gone []string
	for _, r := range x.judge(cat, func(p *profile, f event.Key) bool { return !blind && p.has(f) }) {
		if !before[r.ID] || r.Can {
			continue
		}
		lost = append(lost, r.Title)
		for _, m := range r.Missing {
			if away[m] != 0 && !slices.Contains(gone, m) {
				gone = append(gone, m)
			}
		}
	}
	if len(lost) == 0 {
		return v // nobody needs them
	}
	switch {
	case blind:
		gone = []string{event.EventCategory.Name()}
	case len(gone) == 0: // rules that name it otherwise (a naming of package detect): say what the source called it
		gone = slices.Collect(maps.Keys(away))
	}
	slices.Sort(gone)
	slices.Sort(lost)
	since := int64(0)
	for _, name := range gone {
		if at := away[name]; since == 0 || at < since {
			since = at
		}
	}
	named := lost[:min(3, len(lost))]
	more := ""
	if n := len(lost) - len(named); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	count := fmt.Sprintf("%d rules", len(lost))
	if len(lost) == 1 {
		count = "One rule"
	}
	v.bad = true
	v.d = Raise(RuleFields, k.tenant, k.entity(collector), fmt.Sprintf("Events of %s at the collector %s no longer have %s, which nearly all of them had. %s cannot fire on them any more: %s%s.", product(k.dataset), collector, strings.Join(gone, ", "), count, strings.Join(named, "; "), more), since, now)
	return v
}

// lines judges the share of a collector's lines that were understood.
func (w *Watch) lines(c *Collector, now int64) (d event.Detection, bad bool) {
	x := w.counts[c.ID]
	if x == nil || c.Received < x.received || c.Parsed < x.parsed { // new, or it began anew
		usual := 0.0
		if c.Received >= parsedLines {
			usual = float64(c.Parsed) / float64(c.Received)
		}
		w.counts[c.ID] = &counted{tenant: c.Tenant, received: c.Received, parsed: c.Parsed, usual: usual, dirty: true}
		return d, false
	}
	n, ok := c.Received-x.received, c.Parsed-x.parsed
	if n >= parsedLines {
		share := min(1, float64(ok)/float64(n))
		x.received, x.parsed, x.dirty = c.Received, c.Parsed, true
		switch {
		case x.usual >= parsedUsual && share < parsedGone:
			if x.bad == 0 {
				x.bad = now
			}
		case x.bad != 0 && share < parsedUsual:
		case x.usual == 0:
			x.usual = share
		default:
			x.bad = 0
			x.usual += (share - x.usual) / 5
		}
	}
	if x.bad == 0 {
		return d, false
	}
	return Raise(RuleLines, c.Tenant, c.Name+" ("+c.ID+")", fmt.Sprintf("Of the lines that the collector %s receives, less than half are understood; %.0f in a hundred were.", c.Name, 100*x.usual), x.bad, now), true
}

// detector raises what is wrong with the detector itself when it stays.
func (w *Watch) detector(troubles []string, now int64) (out []event.Detection) {
	for t := range w.trouble {
		if !slices.Contains(troubles, t) {
			delete(w.trouble, t)
		}
	}
	for _, t := range troubles {
		since, known := w.trouble[t]
		if !known {
			if len(w.trouble) < 100 {
				w.trouble[t] = now
			}
			continue
		}
		out = append(out, Raise(RuleDetector, 0, "detector", t, since, now))
	}
	return out
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("2 January 2006 15:04 UTC") }

func pause(ns int64) string {
	switch d := time.Duration(ns); {
	case d < 2*time.Minute:
		return "less than two minutes"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	default:
		return fmt.Sprintf("%d hours", d/time.Hour)
	}
}
