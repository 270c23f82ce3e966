package collector

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
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
	Detections []json.RawMessage `json:"detections,omitempty"` // what the on-site rules say, as it would leave
	Notes      []string          `json:"notes,omitempty"`
}

// Explainer answers what would become of lines. It keeps nothing and sends nothing.
type Explainer struct {
	p    *pipeline
	min  *minimise.Minimiser
	sent event.Event
	n    int
	now  func() time.Time
}

// NewExplainer makes one from the settings. In an enrolled collector's folder it uses that collector's pseudonyms and indicator set;
// elsewhere it makes do without.
func NewExplainer(c *Config, detector func(DetectorOptions) (Detector, error)) (*Explainer, error) {
	var pseudonyms [32]byte
	var set *indicator.Set
	var note error
	if k, err := keys.OpenCollector(c.KeyDir()); err == nil {
		if pseudonyms, err = secret(c.KeyDir(), "pseudonyms"); err != nil {
			return nil, err
		}
		set, note = keptIndicators(c, k)
	}
	if note != nil && !errors.Is(note, fs.ErrNotExist) {
		return nil, fmt.Errorf("the kept indicator set: %w", note)
	}
	min, err := c.minimiser(pseudonyms)
	if err != nil {
		return nil, err
	}
	min.SetIndicators(set)
	var det Detector
	if detector != nil {
		if det, err = detector(DetectorOptions{Collector: "explain", Withhold: withhold(min), Logger: slog.New(slog.DiscardHandler)}); err != nil {
			return nil, err
		}
	}
	p, err := newPipeline(c, min, det, archive.Secret{}, nil)
	if err != nil {
		return nil, err
	}
	return &Explainer{p: p, min: min, now: time.Now}, nil
}

// Line explains one line.
func (x *Explainer) Line(text []byte) *Explained {
	x.n++
	out := &Explained{Line: x.n}
	l := archive.Line{Number: uint64(x.n), Created: x.now().UnixNano(), Via: archive.Local, Sender: netip.Addr{}, Text: text}
	e := &x.p.e
	out.Understood = x.p.understand(e, &l)
	if !out.Understood {
		out.Reason, out.Because = "not_understood", "no parser knows a line like this; it stays in the archive, and the hub learns only that there was one"
		return out
	}
	out.Format = e.Str(event.TocsinFormat)
	d := x.min.Decide(e)
	word, text2 := x.min.Reason(d.Clause)
	out.Leaves, out.Urgent, out.Because = d.Leave, d.Urgent, text2
	out.Reason = map[bool]string{true: "left.", false: "kept."}[d.Leave] + word
	detections := x.p.det.Process(e, l.Created)
	out.Event = e.AppendJSON(nil)
	for i := range detections {
		det := detections[i]
		for _, id := range det.Events {
			if id.Seq == l.Number && !out.Leaves {
				out.Leaves, out.Urgent, out.Reason, out.Because = true, true, "left.site_detection", "a rule on this site fired on it"
			}
		}
		det.Events = nil
		var de event.Event
		x.min.Detection(&de, &det)
		de.Created = l.Created
		out.Detections = append(out.Detections, de.AppendJSON(nil))
	}
	if v, ok := e.Get(event.TocsinDeviceTime); ok {
		out.Notes = append(out.Notes, fmt.Sprintf("the device's clock says %s, which is not believed; the time of receipt is used", v.Text()))
	}
	if !out.Leaves {
		return out
	}
	x.min.Mark(e, d)
	if out.Reason == "left.site_detection" {
		e.SetString(event.TocsinLeftReason, "site_detection")
	}
	x.min.Reduce(&x.sent, e)
	out.Sent = x.sent.AppendJSON(nil)
	stays := map[string]bool{}
	for i := range e.Len() {
		k, _ := e.At(i)
		if leave, _ := x.min.MayLeave(k); !leave {
			stays[k.Name()] = true
		}
	}
	for _, f := range e.Extras() {
		if !strings.Contains(string(out.Sent), `"`+f.Name+`":`) {
			stays[f.Name] = true
		}
	}
	out.Stays = slices.Sorted(maps.Keys(stays))
	return out
}

// keptIndicators opens the indicator set that a running collector has kept.
func keptIndicators(c *Config, k *keys.Collector) (*indicator.Set, error) {
	env, err := os.ReadFile(c.path("indicators"))
	if err != nil {
		return nil, err
	}
	trust, err := k.Trust()
	if err != nil {
		return nil, err
	}
	e, err := readEnrolment(c)
	if err != nil {
		return nil, err
	}
	d, err := openIndicators(env, trust, e.Collector, time.Now())
	if err != nil {
		return nil, err
	}
	return indicator.Open(d.Content)
}

// Explain reads lines from r and writes what would become of each to w: text for people, or one JSON object a line. Lines longer than
// max_line are cut, as a listener cuts them.
func Explain(r io.Reader, w io.Writer, x *Explainer, maxLine int, asJSON bool) error {
	in := bufio.NewReaderSize(r, maxLine+2)
	out := bufio.NewWriter(w)
	defer out.Flush()
	totals := map[string]int{}
	lines := 0
	for {
		text, more, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		cut := false
		text = slices.Clone(text)
		for more {
			cut = true
			if _, more, err = in.ReadLine(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		if len(text) > maxLine {
			text, cut = text[:maxLine], true
		}
		if len(strings.TrimSpace(string(text))) == 0 {
			continue
		}
		ex := x.Line(text)
		if cut {
			ex.Notes = append(ex.Notes, fmt.Sprintf("the line is longer than %d bytes and was cut", maxLine))
		}
		totals[ex.Reason]++
		lines++
		if asJSON {
			b, err := json.Marshal(ex)
			if err != nil {
				return err
			}
			out.Write(b)
			out.WriteByte('\n')
		} else {
			writeExplained(out, text, ex)
		}
	}
	if !asJSON && lines > 1 {
		fmt.Fprintf(out, "%d lines:\n", lines)
		for _, k := range slices.Sorted(maps.Keys(totals)) {
			fmt.Fprintf(out, "  %7d  %s\n", totals[k], k)
		}
	}
	return out.Flush()
}

func writeExplained(w io.Writer, text []byte, ex *Explained) {
	shown := fmt.Sprintf("%.160q", text)
	fmt.Fprintf(w, "line %d: %s\n", ex.Line, shown)
	switch {
	case !ex.Understood:
		fmt.Fprintf(w, "  NOT UNDERSTOOD, stays: %s.\n", ex.Because)
	case ex.Leaves:
		when := ""
		if ex.Urgent {
			when = ", at once"
		}
		fmt.Fprintf(w, "  LEAVES%s, as %s, because %s.\n", when, ex.Reason, ex.Because)
	default:
		fmt.Fprintf(w, "  STAYS, as %s, because it is %s.\n", ex.Reason, ex.Because)
	}
	if ex.Understood {
		fmt.Fprintf(w, "  understood as %s: %s\n", ex.Format, pretty(ex.Event))
	}
	if ex.Sent != nil {
		fmt.Fprintf(w, "  would leave: %s\n", pretty(ex.Sent))
		if len(ex.Stays) > 0 {
			fmt.Fprintf(w, "  of it stay: %s\n", strings.Join(ex.Stays, ", "))
		}
	}
	for _, d := range ex.Detections {
		fmt.Fprintf(w, "  a rule on this site fired; would leave too: %s\n", pretty(d))
	}
	for _, n := range ex.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	fmt.Fprintln(w)
}

// pretty writes a flat JSON object as name=value pairs.
func pretty(js []byte) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(js, &m) != nil {
		return string(js)
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := string(m[k])
		var s string
		if json.Unmarshal(m[k], &s) == nil && !strings.ContainsAny(s, " \t\"\\") {
			v = s
		}
		fmt.Fprintf(&b, " %s=%s", k, v)
	}
	return strings.TrimSpace(b.String())
}
