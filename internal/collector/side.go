package collector

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"tocsin/internal/batch"
	"tocsin/internal/collector/spool"
)

// Look-backs and raw lines leave in lanes of their own, each with a spool of its own: they are asked for or switched on by the member, come in
// heaps, and must neither wait for nor hold up what is live. Their events are counted as made.look_back and made.raw in the live lane.

// sideState is where such a lane stands.
type sideState struct {
	Lane laneState `json:"lane"`
	End  mark      `json:"end"` // of its spool
}

// lanes are all lanes' states.
func (s *state) lanes() []*laneState {
	out := []*laneState{&s.Live, &s.Backlog}
	for _, name := range []batch.Lane{batch.LookBack, batch.Raw} {
		if d := s.Side[name]; d != nil {
			out = append(out, &d.Lane)
		}
	}
	return out
}

// openSide opens a lane with its spool, and cuts off what a crash left behind the last commit.
func (a *Agent) openSide(name batch.Lane) (*lane, error) {
	l, err := spool.Open(spool.Options{Dir: a.o.Config.path("spool-" + string(name)), SegmentBytes: 1 << 20, OpenFile: a.o.OpenFile})
	if err != nil {
		return nil, fmt.Errorf("spool of %s: %w", name, err)
	}
	d := a.st.Side[name]
	if d == nil {
		d = &sideState{}
		a.st.newEpoch(&d.Lane)
		d.End = mark{Pos: l.End(), Num: l.Next()}
		d.Lane.At = d.End
		if a.st.Side == nil {
			a.st.Side = map[batch.Lane]*sideState{}
		}
		a.st.Side[name] = d
	} else {
		_, err := l.Truncate(d.End.Pos)
		if err == nil && l.Next() < d.End.Num { // a power cut took some: the gap in the numbers is counted when it is sealed
			err = l.Rotate(d.End.Num)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("spool of %s: %w", name, err), l.Close())
		}
	}
	return &lane{name: name, st: &d.Lane, log: l, side: d}, nil
}

// addSide adds records to a lane's spool. They wait from the next commit on.
func (a *Agent) addSide(l *lane, frames []byte, n int) error {
	if n == 0 {
		return nil
	}
	if _, err := l.log.AppendFrames(frames, n); err != nil {
		return fmt.Errorf("spool of %s: %w", l.name, err)
	}
	l.side.End = mark{Pos: l.log.End(), Num: l.log.Next()}
	a.dirty = true
	return nil
}

func (a *Agent) syncSides() error {
	var errs []error
	for _, l := range a.lanes {
		if l.side != nil {
			errs = append(errs, l.log.Sync())
		}
	}
	return errors.Join(errs...)
}

// trimSide deletes the files of a lane's spool that nothing waits in.
func (a *Agent) trimSide(l *lane) {
	for _, s := range l.log.Segments() {
		if s.Base >= l.st.At.Pos.Segment {
			return
		}
		if err := l.log.Remove(s.Base); err != nil {
			a.log.Error("cannot delete what was sent", "lane", l.name, "error", err)
			return
		}
	}
}

// StreamTotal is what the hub has confirmed in one stream, by its receipts.
type StreamTotal struct {
	Lane    batch.Lane `json:"lane"`
	Epoch   string     `json:"epoch"`
	Batches uint64     `json:"batches"` // the last one's number
	Events  uint64     `json:"events"`
	Digest  string     `json:"digest"` // of the last one; it stands for all before it, which it is chained to
}

// total notes that a batch has been confirmed.
func (s *state) total(name batch.Lane, epoch string, p *pending) {
	digest := hex.EncodeToString(p.Digest[:])
	for i := range s.Totals {
		if t := &s.Totals[i]; t.Epoch == epoch && t.Lane == name {
			t.Batches, t.Digest = p.Seq, digest
			t.Events += uint64(p.Events)
			return
		}
	}
	if p.Seq != 1 { // a state from before totals were kept: the sum would not be the stream's
		return
	}
	s.Totals = append(s.Totals, StreamTotal{Lane: name, Epoch: epoch, Batches: p.Seq, Events: uint64(p.Events), Digest: digest})
	if n := len(s.Totals); n > maxEpochs {
		s.Totals = append([]StreamTotal(nil), s.Totals[n-maxEpochs:]...)
	}
}

// ErrEnding means that the collector is ending and does nothing more.
var ErrEnding = errors.New("the collector is ending")

// inLoop runs f in the goroutine that owns everything, and waits for it.
func (a *Agent) inLoop(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case a.calls <- func() { done <- f() }:
	case <-a.ended:
		return ErrEnding
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
