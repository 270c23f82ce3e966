package collector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/parse"
	"tocsin/internal/collector/spool"
)

// The memory of the on-site rules, and of what is learnt of the devices, is saved about once a minute and whenever what it depends on changes. It is
// always saved behind a commit and names the place of that commit. So it is never ahead of the state: what a crash leaves is a state, and a memory that
// is as old or older, and the lines between the two are shown to it again; what it says of them is in the spool already. What the rules were asked
// without a line (flushDetector) and had an answer to stands in the state and is asked again at the same place.
//
// What the memory depends on, packs and changes of rules, is renewed in this order: commit, save the memory, write the directive, put it in force, save the
// memory again. Killed before the directive is written, the next start has the old rules and a memory of theirs; killed after it, the new rules, and
// of the old ones' memory what outlives them. No line stands between the two, so none is counted by the wrong one.

// memoryHead stands before the detector's snapshot.
type memoryHead struct {
	Cursor   spool.Pos            `json:"cursor"`
	Line     uint64               `json:"line,string"`
	Flushed  uint64               `json:"flushed,string,omitempty"` // of the state's flushes, how many it has seen
	RulePack string               `json:"rule_pack"`
	Naming   string               `json:"naming,omitempty"` // of the program and its parsers, which name products
	Senders  []sender             `json:"senders"`
	Heard    heard                `json:"heard,omitzero"`
	Evidence []uint64             `json:"evidence"`
	Guard    map[string]time.Time `json:"guard,omitempty"` // what is switched off
	Headers  []parse.Header       `json:"headers,omitempty"`
}

// flushes are the times when the rules were asked without a line and had an answer, the last few of all that there were.
type flushes struct {
	N    uint64      `json:"n,string"`
	Last []flushMark `json:"last"`
}

// flushMark is one: after which line, and when.
type flushMark struct {
	Line uint64 `json:"line,string"`
	At   int64  `json:"at,string"`
}

// maxFlushes is far more than come between two savings of the memory.
const maxFlushes = 64

func (f *flushes) add(m flushMark) {
	f.N++
	f.Last = append(f.Last, m)
	if n := len(f.Last); n > maxFlushes {
		f.Last = append([]flushMark(nil), f.Last[n-maxFlushes:]...)
	}
}

// since gives those that a memory has not seen that saw the first n.
func (f *flushes) since(n uint64) []flushMark {
	if n >= f.N {
		return nil
	}
	return f.Last[len(f.Last)-int(min(f.N-n, uint64(len(f.Last)))):]
}

// naming is the version of all that gives products their names.
func (a *Agent) naming() string { return a.o.Version + ", " + a.packs.parsers }

// restoreDetector gives the detector its memory back and shows it the lines between that and the state.
func (a *Agent) restoreDetector() error {
	from, flushed := a.st.Cursor, a.st.Flushes.N
	restored := false
	if b := a.memory.Last(); b != nil {
		head, rest, _ := bytes.Cut(b, []byte{'\n'})
		var h memoryHead
		if err := json.Unmarshal(head, &h); err != nil {
			a.log.Warn("the on-site rules' memory is damaged; they begin anew", "error", err)
		} else if restored = a.restoreMemory(&h, rest); restored {
			from, flushed = h.Cursor, h.Flushed
		}
	}
	r := a.archive.Reader(from)
	defer r.Close()
	shown := 0
	again := a.st.Flushes.since(flushed)
	for r.Pos().Before(a.st.Cursor) {
		var l archive.Line
		if err := r.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if a.st.Cursor.Before(r.Pos()) {
			break
		}
		for len(again) > 0 && again[0].Line < l.Number {
			a.pipe.flushDetector(again[0].Line, again[0].At, replay)
			again = again[1:]
		}
		a.pipe.line(&l, replay)
		shown++
	}
	for _, m := range again {
		a.pipe.flushDetector(m.Line, m.At, replay)
	}
	if shown > 0 {
		a.log.Info("showed the on-site rules again what came after their memory was saved", "lines", shown)
		return nil // it is saved at once
	}
	if !restored { // without a memory of these rules, what comes before the first would not be shown again
		return a.trySaveDetector()
	}
	a.snapAt, a.snapLine, a.snapFlushes, a.snapReceived = a.o.Now(), a.st.Line, a.st.Flushes.N, a.st.Counts["received"]
	return nil
}

// restoreMemory takes a memory. What was learnt in weeks outlives the rules' own state, which is of hours. It says whether the rules go on: rules that
// begin anew are not shown the lines behind the memory, for what they would find there is neither in the spool nor would it be sent.
func (a *Agent) restoreMemory(h *memoryHead, snapshot []byte) (goOn bool) {
	if h.Guard != nil {
		a.pipe.guard.Off = h.Guard
	}
	a.pipe.read.restoreHeaders(h.Headers)
	a.pipe.senders.restore(h.Senders)
	if h.Naming != a.naming() {
		a.pipe.senders.named()
	}
	a.pipe.heard = h.Heard
	newer := a.st.Cursor.Before(h.Cursor)
	if !newer { // these lines have left, whatever the rules are; what was learnt points at some too
		for _, n := range h.Evidence {
			a.pipe.remember(n)
		}
	}
	switch {
	case newer: // as versions left it that did not commit first
		a.log.Warn("the on-site rules' memory is newer than the state; they begin anew")
	case h.RulePack != a.packs.rules:
		a.log.Info("the on-site rules have changed; they begin anew", "before", h.RulePack, "now", a.packs.rules)
		a.pipe.guard.forgive("rule ")
	default:
		if err := a.pipe.det.Restore(snapshot); err != nil {
			a.log.Warn("the on-site rules cannot use their memory; they begin anew", "error", err)
			return false
		}
		return true
	}
	if l, ok := a.pipe.det.(interface{ RestoreLearnt([]byte) error }); ok {
		if err := l.RestoreLearnt(snapshot); err != nil {
			a.log.Warn("what was learnt on the site cannot be used; it is learnt anew", "error", err)
		}
	}
	return false
}

// settle commits what has been worked on since the last commit. An error of it ends the loop, wherever it was called.
func (a *Agent) settle() error {
	if !a.dirty && a.pipe.n == 0 {
		return nil
	}
	err := a.commit(false)
	if err != nil {
		a.fatal = err
	}
	return err
}

// saveDetector commits and saves the memory, which belongs to that commit.
func (a *Agent) saveDetector() error {
	if err := a.settle(); err != nil {
		return err
	}
	a.snapAt, a.snapLine, a.snapFlushes = a.o.Now(), a.st.Line, a.st.Flushes.N // one that fails is not tried all the time
	a.snapReceived = a.st.Counts["received"]
	snap, err := a.pipe.det.Snapshot()
	if err != nil {
		return fmt.Errorf("on-site rules: %w", err)
	}
	h, err := json.Marshal(memoryHead{Cursor: a.done, Line: a.st.Line, Flushed: a.st.Flushes.N, RulePack: a.packs.rules, Naming: a.naming(), Senders: a.pipe.senders.list(), Heard: a.pipe.heard,
		Evidence: a.pipe.evidenceQ, Guard: a.pipe.guard.Off, Headers: a.pipe.read.headers()})
	if err != nil {
		return err
	}
	if err := a.memory.Save(append(h, '\n'), true, snap); err != nil {
		return fmt.Errorf("on-site rules: %w", err)
	}
	return nil
}

// keepMemory saves the memory when it is time. A memory that cannot be saved is no reason to end.
func (a *Agent) keepMemory(now time.Time) error {
	if a.st.Line == a.snapLine && a.st.Flushes.N == a.snapFlushes || now.Sub(a.snapAt) < snapshotEvery && a.st.Counts["received"]-a.snapReceived < snapshotLines {
		return nil
	}
	return a.trySaveDetector()
}

// trySaveDetector is saveDetector that only logs when the memory cannot be saved.
func (a *Agent) trySaveDetector() error {
	err := a.saveDetector()
	if err != nil && a.fatal == nil {
		a.log.Error("cannot save the on-site rules' memory", "error", err)
	}
	return a.fatal
}
