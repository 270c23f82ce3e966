package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

// Explained is what the collector would do with one line.
type Explained struct {
	Line       int               `json:"line"` // number in the input, from 1
	Understood bool              `json:"understood"`
	Format     string            `json:"format,omitempty"` // the format that understood it
	Leaves     bool              `json:"leaves"`
	Reason     string            `json:"reason"` // the counter's name: left.…, kept.… or not_understood
	Because    string            `json:"because"`
	Urgent     bool              `json:"urgent,omitempty"`
	Event      json.RawMessage   `json:"event,omitempty"`      // what was understood
	Sent       json.RawMessage   `json:"sent,omitempty"`       // what of it would leave
	Stays      []string          `json:"stays,omitempty"`      // fields of an event that leaves which would stay
	Changed    []string          `json:"changed,omitempty"`    // fields that would leave otherwise than they are: as pseudonyms, or without names that stay
	Detections []json.RawMessage `json:"detections,omitempty"` // what the on-site rules say, as it would leave
	Earlier    []int             `json:"earlier,omitempty"`    // lines before this one, kept until then, that would leave with the detections
	Notes      []string          `json:"notes,omitempty"`
}

// Explainer answers what would become of lines. It keeps nothing and sends nothing.
type Explainer struct {
	p     *pipeline
	sent  event.Event
	lines int
	left  map[uint64]bool // lines that would have left
	notes []string        // about all lines
	now   func() time.Time
}

// NewExplainer makes one from the settings. In an enrolled collector's folder it uses what is in force there: that collector's pseudonyms,
// indicators, parsers and on-site rules. Elsewhere, or when one of them cannot be read, it makes do with what is built in, and says so.
func NewExplainer(c *Config, detector func(DetectorOptions) (Detector, error)) (*Explainer, error) {
	var pseudonyms [32]byte
	kept := keptThings{}
	if k, err := keys.OpenCollector(c.KeyDir()); err == nil {
		if pseudonyms, err = secret(c.KeyDir(), "pseudonyms"); err != nil {
			return nil, err
		}
		kept = readKept(c, k, time.Now())
	}
	m, err := c.minimiser(pseudonyms)
	if err != nil {
		return nil, err
	}
	m.SetIndicators(kept.indicators)
	var det Detector
	changed := &changes{}
	if kept.changes != nil {
		if use, err := changed.read(kept.changes); err == nil {
			use()
		} else {
			kept.notes = append(kept.notes, fmt.Sprintf("the hub's changes of on-site rules are not used: %v", err))
		}
	}
	if detector != nil {
		o := DetectorOptions{Collector: kept.collector, Withhold: withhold(m), Rules: kept.rules, Exceptions: changed.exceptions, Logger: slog.New(slog.DiscardHandler)}
		if det, err = detector(o); err != nil && o.Rules != nil {
			kept.notes = append(kept.notes, fmt.Sprintf("the hub's on-site rules are not used, but those that are built in: %v", err))
			o.Rules = nil
			det, err = detector(o)
		}
		if err != nil {
			return nil, err
		}
	}
	p, err := newPipeline(c, m, det, archive.Secret{}, nil)
	if err != nil {
		return nil, err
	}
	p.changes = changed
	if kept.parsers != nil {
		if set, err := parserPack(kept.parsers); err != nil {
			kept.notes = append(kept.notes, fmt.Sprintf("the hub's parsers are not used, but those that are built in: %v", err))
		} else {
			p.lib.Use(set)
		}
	}
	return &Explainer{p: p, left: map[uint64]bool{}, notes: kept.notes, now: time.Now}, nil
}

// keptThings is what the hub has given a collector, as it lies in its folder.
type keptThings struct {
	collector      string
	indicators     *indicator.Set
	rules, parsers fs.FS
	changes        *keys.Directive
	notes          []string
}

// readKept reads what a running collector has kept. What is not there is not in force; what is there and not good is not either, and noted.
func readKept(c *Config, k *keys.Collector, now time.Time) (kept keptThings) {
	note := func(what string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			kept.notes = append(kept.notes, fmt.Sprintf("%s that the hub has sent cannot be used here: %v", what, err))
		}
	}
	trust, err := k.Trust()
	if err == nil {
		var e enrolled
		e, err = readEnrolment(c)
		kept.collector = e.Collector
	}
	if err != nil {
		note("what", err)
		return kept
	}
	env, err := os.ReadFile(c.path("indicators"))
	if err == nil {
		var d keys.Directive
		if d, err = openIndicators(env, trust, kept.collector, now); err == nil {
			kept.indicators, err = indicator.Open(d.Content)
		}
	}
	note("the set of indicators", err)
	pack := func(kind, what string) fs.FS {
		d, err := openKeptPack(c, trust, kept.collector, kind)
		if err == nil {
			var files fs.FS
			if files, err = directive.Unpack(d.Content); err == nil {
				return files
			}
		}
		note(what, err)
		return nil
	}
	kept.rules, kept.parsers = pack(directive.Rules, "the pack of on-site rules"), pack(directive.Parsers, "the pack of parsers")
	if d, err := openKeptPack(c, trust, kept.collector, directive.RuleChanges); err == nil {
		kept.changes = &d
	} else {
		note("the changes of on-site rules", err)
	}
	return kept
}

// Line explains the next line.
func (x *Explainer) Line(text []byte) *Explained {
	x.lines++
	return x.explain(text, x.lines)
}

func (x *Explainer) explain(text []byte, number int) *Explained {
	out := &Explained{Line: number}
	l := archive.Line{Number: uint64(number), Created: x.now().UnixNano(), Via: archive.Local, Text: text}
	e := &x.p.e
	out.Understood = x.p.understand(e, &l)
	if !out.Understood {
		out.Reason, out.Because = "not_understood", "no parser knows a line like this; it stays in the archive, and the hub learns only that there was one"
		return out
	}
	out.Format = e.Str(event.TocsinFormat)
	d := x.p.min.Decide(e)
	word, because := x.p.min.Reason(d.Clause)
	out.Leaves, out.Urgent, out.Because = d.Leave, d.Urgent, because
	out.Reason = map[bool]string{true: "left.", false: "kept."}[d.Leave] + word
	detections := x.p.changes.apply(x.p.det.Process(e, l.Created), l.Created)
	out.Event = e.AppendJSON(nil)
	for i := range detections {
		det := detections[i]
		for _, id := range det.Events {
			switch {
			case id.Seq != l.Number:
				if !x.left[id.Seq] && id.Seq > 0 {
					x.left[id.Seq] = true
					out.Earlier = append(out.Earlier, int(id.Seq))
				}
			case !out.Leaves:
				out.Leaves, out.Urgent, out.Reason, out.Because = true, true, "left.site_detection", "a rule on this site fired on it"
			}
		}
		det.Events = nil
		var de event.Event
		x.p.min.Detection(&de, &det)
		de.Created = l.Created
		out.Detections = append(out.Detections, de.AppendJSON(nil))
	}
	slices.Sort(out.Earlier)
	if v, ok := e.Get(event.TocsinDeviceTime); ok {
		out.Notes = append(out.Notes, fmt.Sprintf("the device's clock says %s, which is not believed; the time of receipt is used", v.Text()))
	}
	if !out.Leaves {
		return out
	}
	if len(x.left) < maxExplained {
		x.left[l.Number] = true
	}
	x.p.min.Mark(e, d)
	if out.Reason == "left.site_detection" {
		e.SetString(event.TocsinLeftReason, "site_detection")
	}
	x.p.min.Reduce(&x.sent, e)
	out.Sent = x.sent.AppendJSON(nil)
	out.Stays, out.Changed = compare(e, &x.sent)
	if m := x.p.min; m.Policy().Raw && !m.SendsRaw() {
		out.Notes = append(out.Notes, "the raw line stays, because the settings hold back or veil something that may stand in it (policy.also_keep, policy.pseudonyms)")
	}
	return out
}

// maxExplained bounds how many lines are remembered to have left.
const maxExplained = 1 << 20

// compare names the fields of e that are not in sent, and those that are there with another value.
func compare(e, sent *event.Event) (stays, changed []string) {
	missing, other := map[string]bool{}, map[string]bool{}
	at := map[event.Key]int{} // of the values of a list, how many have been looked at
	for i := range e.Len() {
		k, v := e.At(i)
		j := sent.Find(k)
		if j < 0 {
			missing[k.Name()] = true
			continue
		}
		j += at[k]
		at[k]++
		if j >= sent.Len() {
			other[k.Name()] = true
		} else if sk, sv := sent.At(j); sk != k || sv.Kind() != v.Kind() || sv.Text() != v.Text() {
			other[k.Name()] = true
		}
	}
	left := map[string]string{}
	for _, x := range sent.Extras() {
		left[x.Name] = x.Value
	}
	for _, x := range e.Extras() {
		if v, ok := left[x.Name]; !ok {
			missing[x.Name] = true
		} else if v != x.Value {
			other[x.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(missing)), slices.Sorted(maps.Keys(other))
}
