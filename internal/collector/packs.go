package collector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/directive"
	"tocsin/internal/keys"
)

// Directives come signed, by keys that are not on the hub, and each is checked here again: its signature under the purpose that its type has,
// whom it is for, that it has not expired, that its version does not go back, and what it would do. It must stand in the hub's ledger, under a
// checkpoint that goes on from the one seen last: whoever holds the signing keys cannot ask something of one site without leaving a trace that
// others can find. What is refused leaves everything as it was, and is said: in the log, in the status, and as a count at the hub.
//
//	DIR/directives/versions.json   the highest version taken of each type
//	DIR/directives/TYPE            the pack in force, as it was signed

// Refusal is a directive that the collector did not obey.
type Refusal struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
	Why  string    `json:"why"`
}

const (
	maxRefusals = 20   // shown
	maxRefused  = 1000 // remembered, so that each is said once
)

// packState is what is known of packs. It is the loop's, but for the housekeeper's own reading at the start.
type packState struct {
	versions map[string]uint64
	rules    string // names of the packs in force, for manifests
	parsers  string
	refusals []Refusal
	refused  map[[32]byte]bool // what was refused, so that each is said once
}

func (a *Agent) directiveFile(name string) string {
	return a.o.Config.path(filepath.Join("directives", name))
}

// loadPacks puts the packs in force that were kept before the restart. What is not good any more is said, and what is built in goes on.
func (a *Agent) loadPacks() error {
	a.packs = packState{versions: map[string]uint64{}, rules: a.o.RulePack, parsers: "built-in " + a.o.Version, refused: map[[32]byte]bool{}}
	if err := os.MkdirAll(a.directiveFile(""), 0o700); err != nil {
		return err
	}
	b, err := os.ReadFile(a.directiveFile("versions.json"))
	if err == nil {
		err = json.Unmarshal(b, &a.packs.versions)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("versions of directives: %w (delete DIR/directives to begin with what is built in)", err)
	}
	for _, kind := range []string{directive.Rules, directive.Parsers, directive.RuleChanges} {
		d, err := openKeptPack(&a.o.Config, a.client.Trust(), a.id.Collector, kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var use func()
		if err == nil {
			use, err = a.pack(d)
		}
		if err == nil {
			use()
			a.packs.versions[kind] = max(a.packs.versions[kind], d.Version) // a kill may come between the two files
		} else {
			a.log.Warn("the kept pack is not used; what is built in goes on, unchanged, until the hub has a newer one", "pack", kind, "error", err)
		}
	}
	return nil
}

// openKeptPack opens the pack that a collector keeps. A directive's end is until when it may be taken. What was taken goes on: a hub that is
// away must not take a site's parsers with it.
func openKeptPack(c *Config, trust *keys.Trust, collector, kind string) (keys.Directive, error) {
	env, err := os.ReadFile(c.path(filepath.Join("directives", kind)))
	if err != nil {
		return keys.Directive{}, err
	}
	d, err := trust.OpenDirective(env, keys.Packs, collector, time.Time{})
	if err == nil && d.Type != kind {
		return keys.Directive{}, fmt.Errorf("%w: it is a %.40q, not a %s", keys.ErrDirective, d.Type, kind)
	}
	return d, err
}

// parserPack reads a pack of parsers, which stand before those that are built in.
func parserPack(files fs.FS) (*packs.Set, error) {
	set, err := packs.Load(files)
	if err != nil {
		return nil, err
	}
	return packs.Builtin().With(set.Packs()...)
}

// fetchDirectives asks for what is new, looks for each directive in the ledger, and hands it to the loop. Called by the housekeeper.
func (a *Agent) fetchDirectives(ctx context.Context, etag *string) error {
	var checkpoint string
	if err := a.inLoop(ctx, func() error { checkpoint = a.st.Checkpoint; return nil }); err != nil {
		return err
	}
	trust := a.client.Trust()
	seen, err := directive.OpenCheckpoint(trust, checkpoint)
	if err != nil {
		seen = directive.View{} // none has been seen
	}
	d, tag, changed, err := a.client.Directives(ctx, *etag, seen.Tree)
	if err != nil || !changed {
		return err
	}
	if len(d.Directives) == 0 {
		*etag = tag
		return nil
	}
	view, wrong := directive.OpenCheckpoint(trust, d.Checkpoint)
	if d.Checkpoint == "" {
		wrong = directive.ErrNoProof
	}
	if wrong == nil {
		_, wrong = view.Follows(seen, d.Consistency) // another name is said by noteCheckpoint
	}
	for i, env := range d.Directives {
		unproved := wrong
		if wrong == nil {
			unproved = directive.ErrNoProof
			if i < len(d.Proofs) {
				unproved = view.Includes(env, d.Proofs[i])
			}
		}
		if err := a.inLoop(ctx, func() error { a.obey(env, unproved); return nil }); err != nil {
			return err
		}
	}
	if wrong != nil {
		return wrong
	}
	*etag = tag
	return a.inLoop(ctx, func() error { a.noteCheckpoint(d.Checkpoint); return nil })
}

// noteCheckpoint keeps the newest state of the hub's ledger, which every manifest names: what two sites were shown can be compared. One that
// does not fit the one before is kept out, and said once.
func (a *Agent) noteCheckpoint(checkpoint string) {
	if checkpoint == "" || checkpoint == a.st.Checkpoint {
		return
	}
	view, err := directive.OpenCheckpoint(a.client.Trust(), checkpoint)
	if err == nil {
		seen, serr := directive.OpenCheckpoint(a.client.Trust(), a.st.Checkpoint)
		switch {
		case serr != nil: // it is the first
		case seen.Origin != view.Origin:
			a.log.Warn("the hub's ledger has another name now, as after the hub was restored from a copy; what stood in the one before can only be shown by the hub's operator", "before", seen.Origin, "now", view.Origin)
			a.st.Counts["ledger_anew"]++
		case view.Size < seen.Size:
			return // an answer that was overtaken by another
		case view.Size == seen.Size && !bytes.Equal(view.Root, seen.Root):
			err = directive.ErrFork
		}
	}
	if err != nil {
		a.refuseOnce(sha256.Sum256([]byte("checkpoint")), "to believe the state of its ledger", err.Error())
		return
	}
	a.st.Checkpoint = checkpoint
	a.dirty = true
}

// obey takes one directive, or says why not. unproved is why it is not known to stand in the ledger.
func (a *Agent) obey(env []byte, unproved error) {
	h := sha256.New()
	h.Write(env)
	if unproved != nil { // it may come again with the proof
		h.Write([]byte("unproved"))
	}
	sum := [32]byte(h.Sum(nil))
	if a.packs.refused[sum] {
		return
	}
	if what, err := a.takeDirective(env, unproved); err != nil && a.fatal == nil {
		a.refuseOnce(sum, what, err.Error())
	}
}

// refuseOnce is refuse for what comes again and again.
func (a *Agent) refuseOnce(id [32]byte, what, why string) {
	if a.packs.refused[id] {
		return
	}
	if len(a.packs.refused) < maxRefused {
		a.packs.refused[id] = true
	}
	a.refuse(what, why)
}

// refuse notes something that the hub asked and that is not done.
func (a *Agent) refuse(what, why string) {
	a.log.Error("refused what the hub asked; everything stays as it was", "what", what, "why", why)
	a.packs.refusals = append(a.packs.refusals, Refusal{At: a.o.Now().UTC(), What: what, Why: why})
	if n := len(a.packs.refusals); n > maxRefusals {
		a.packs.refusals = append([]Refusal(nil), a.packs.refusals[n-maxRefusals:]...)
	}
	a.st.Counts["directives_refused"]++
	a.dirty = true
	a.shown = time.Time{}
}

func (a *Agent) takeDirective(env []byte, unproved error) (what string, err error) {
	trust, now := a.client.Trust(), a.o.Now()
	var d keys.Directive
	for _, p := range []keys.Purpose{keys.Packs, keys.Questions} {
		var perr error
		if d, perr = trust.OpenDirective(env, p, a.id.Collector, now); perr != nil {
			if err == nil || errors.Is(err, keys.ErrSignature) { // the other key says more than that it did not sign
				err = perr
			}
			continue
		}
		err = nil
		if want, ok := directive.Purpose(d.Type); !ok {
			return fmt.Sprintf("%.40q", d.Type), errors.New("this version of the collector does not know what that is")
		} else if want != p {
			return d.Type, fmt.Errorf("it is signed with the key for %s, which may not sign that", p)
		}
		break
	}
	if err != nil {
		return "a directive", err
	}
	what = fmt.Sprintf("%s %d", d.Type, d.Version)
	if unproved != nil {
		return what, unproved
	}
	if d.Type == directive.LookBack {
		return what, a.takeQuestion(d)
	}
	switch have := a.packs.versions[d.Type]; {
	case d.Version == have:
		return what, nil
	case d.Version < have:
		return what, fmt.Errorf("version %d was taken before: a version never goes back", have)
	}
	use, err := a.pack(d)
	if err != nil {
		return what, err
	}
	if err := a.trySaveDetector(); err != nil { // see memory.go for the order
		return what, err
	}
	a.packs.versions[d.Type] = d.Version
	b, err := json.Marshal(a.packs.versions)
	if err == nil {
		err = writeFile(a.directiveFile(d.Type), env)
	}
	if err == nil { // the other way round the hub's next directive of that version would be taken for one that is here
		err = writeFile(a.directiveFile("versions.json"), b)
	}
	if err != nil {
		a.log.Error("cannot keep the pack over a restart", "pack", what, "error", err)
	}
	use()
	return what, a.trySaveDetector()
}

// pack checks a pack and gives what puts it in force between two lines.
func (a *Agent) pack(d keys.Directive) (use func(), err error) {
	in := func() { a.log.Info("a pack is in force", "type", d.Type, "version", d.Version) }
	if d.Type == directive.RuleChanges {
		c, err := a.pipe.changes.read(&d)
		if err != nil {
			return nil, err
		}
		return func() {
			c()
			a.log.Info("changes of on-site rules are in force", "version", d.Version, "changes", len(a.pipe.changes.list))
		}, nil
	}
	files, err := directive.Unpack(d.Content)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(d.Content)
	name := fmt.Sprintf("%d %s", d.Version, hex.EncodeToString(sum[:8]))
	switch d.Type {
	case directive.Rules:
		det, err := a.newRules(files)
		if err != nil {
			return nil, err
		}
		return func() {
			if n, ok := det.(interface{ Inherit(old any) }); ok {
				n.Inherit(a.pipe.det) // what was learnt took weeks: newer rules must not cost it
			}
			a.pipe.det = det
			a.packs.rules = name
			a.pipe.guard.forgive("rule ")
			in()
		}, nil
	case directive.Parsers:
		set, err := parserPack(files)
		if err != nil {
			return nil, err
		}
		return func() {
			a.pipe.lib.Use(set)
			a.packs.parsers = name
			a.pipe.senders.named()
			in()
		}, nil
	}
	return nil, fmt.Errorf("%.40q is no pack", d.Type)
}

// newRules makes the engine of a pack's rules, and refuses a pack with a rule that matches everything.
func (a *Agent) newRules(files fs.FS) (Detector, error) {
	if a.o.Detector == nil {
		return nil, errors.New("this collector runs no on-site rules")
	}
	o := DetectorOptions{Collector: a.id.Collector, Withhold: withhold(a.min), Rules: files, Exceptions: a.pipe.changes.exceptions, Logger: a.log}
	probe, err := a.o.Detector(o)
	if err != nil {
		return nil, err
	}
	if rule, yes := matchAll(probe); yes {
		return nil, fmt.Errorf("its rule %s matches everything", rule)
	}
	return a.o.Detector(o) // another one: the probe has seen events that never were
}
