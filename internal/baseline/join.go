package baseline

import (
	"encoding/binary"
	"errors"
	"fmt"

	"tocsin/internal/event"
)

// Rules is the engine of the rules, as the worker and the collector see it; *detect.Engine is one.
type Rules interface {
	Process(e *event.Event, now int64) []event.Detection
	Snapshot() ([]byte, error)
	Restore([]byte) error
}

// Joined is rules and baselines as one detector: both see every event, and their states are saved together. It belongs to one goroutine.
type Joined struct {
	Rules    Rules
	Baseline *Engine
}

const joinMagic = "tocsin-detectors-1\n"

// Process gives what the rules say, then what the baselines say. What comes back to a question about the past is no news: it was judged when it
// happened, and is for whoever asked.
func (j *Joined) Process(e *event.Event, now int64) []event.Detection {
	if e.Str(event.TocsinLeftReason) == "look_back" {
		return nil
	}
	out := j.Rules.Process(e, now)
	if more := j.Baseline.Process(e, now); len(more) > 0 {
		return append(out, more...)
	}
	return out
}

// Flush is for times when no events come.
func (j *Joined) Flush(now int64) []event.Detection {
	var out []event.Detection
	if f, ok := j.Rules.(interface {
		Flush(now int64) []event.Detection
	}); ok {
		out = f.Flush(now)
	}
	return append(out, j.Baseline.Flush(now)...)
}

// Snapshot is both states.
func (j *Joined) Snapshot() ([]byte, error) {
	r, err := j.Rules.Snapshot()
	if err != nil {
		return nil, err
	}
	b, err := j.Baseline.Snapshot()
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(joinMagic)+4+len(r)+len(b))
	out = append(out, joinMagic...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(r)))
	return append(append(out, r...), b...), nil
}

func split(b []byte) (rules, base []byte, err error) {
	if len(b) < len(joinMagic) || string(b[:len(joinMagic)]) != joinMagic {
		return b, nil, nil // from before there were baselines
	}
	b = b[len(joinMagic):]
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, errors.New("baseline: restore: the detectors' snapshot is cut off")
	}
	n := binary.BigEndian.Uint32(b)
	return b[4 : 4+n], b[4+n:], nil
}

// Restore takes both states. What the baselines learnt took weeks, what the rules hold is hours: so one that cannot use its state does not take
// the other's away: that is logged, and an error only when neither can.
func (j *Joined) Restore(b []byte) error {
	rules, base, err := split(b)
	if err != nil {
		j.Baseline.Forgotten()
		return err
	}
	rerr := j.Rules.Restore(rules)
	if base == nil {
		return rerr
	}
	berr := j.Baseline.Restore(base)
	switch {
	case rerr != nil && berr != nil:
		return fmt.Errorf("rules: %w; baselines: %w", rerr, berr)
	case berr != nil:
		j.Baseline.opts.Logger.Error("the baselines cannot use their snapshot and begin to learn anew", "error", berr)
	case rerr != nil:
		j.Baseline.opts.Logger.Warn("the rules cannot use their snapshot and begin anew; the baselines go on", "error", rerr)
	}
	return nil
}

// Forgotten says that the state of both was lost before it could be restored.
func (j *Joined) Forgotten() { j.Baseline.Forgotten() }

// RestoreLearnt takes only what the baselines learnt: for rules that have changed.
func (j *Joined) RestoreLearnt(b []byte) error {
	_, base, err := split(b)
	if err != nil || base == nil {
		return err
	}
	return j.Baseline.Restore(base)
}

// Inherit takes over the baselines of another detector, if it has some: newer rules must not cost what was learnt.
func (j *Joined) Inherit(old any) {
	if o, ok := old.(*Joined); ok {
		j.Baseline = o.Baseline
	}
}
