package baseline

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/durable"
	"tocsin/internal/event"
)

// A snapshot is a head, what is kept across members, and the members one by one:
//
//	magic, 1 byte whole or changes, 4 generation, [8 of the whole one's checksum], secret key, clocks, keys across members, members; checksum
//
// With a folder, Snapshot writes a whole one into a file once an hour of event time, when nearly everything has changed since hours were
// closed, and gives only what changed since. So ten thousand members cost some megabytes each half minute, not a hundred. The two newest
// files are kept: the one that the snapshot saved last names is always among them.

const (
	magic    = "tocsin-baseline-2\n"
	whole    = 'W'
	changes  = 'C'
	sumBytes = 8
)

// fullFile is the whole snapshot that changes build on.
type fullFile struct {
	gen    uint32
	sum    [sumBytes]byte
	closed int32
}

func seal(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(b, sum[:sumBytes]...)
}

// unseal checks the checksum and gives what is before it.
func unseal(b []byte) ([]byte, error) {
	if len(b) < len(magic)+5+sumBytes || string(b[:len(magic)]) != magic {
		return nil, errNoSnapshot
	}
	body := b[:len(b)-sumBytes]
	if sum := sha256.Sum256(body); string(sum[:sumBytes]) != string(b[len(body):]) {
		return nil, errors.New("baseline: restore: the snapshot is damaged (its checksum differs)")
	}
	return body, nil
}

// Snapshot is the state. It belongs with the position in the stream up to which events were processed. With Options.Dir it may write a
// file there, which is durable when it returns.
func (e *Engine) Snapshot() ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.opts.Dir == "" {
		return e.encode(whole)
	}
	if e.base.gen == 0 || e.base.closed != e.closed {
		if err := e.writeWhole(); err != nil {
			return nil, err
		}
	}
	return e.encode(changes)
}

func (e *Engine) encode(form byte) ([]byte, error) {
	// What it was the last time, and some more: growing would hold the hundred megabytes of a large hub twice.
	last := &e.sizes[0]
	if form == whole {
		last = &e.sizes[1]
	}
	c := sketch.Writer(append(make([]byte, 0, *last+*last/16+len(magic)+sumBytes), magic...))
	c.U8(&form)
	c.U32(&e.gen)
	if form == changes {
		c.U32(&e.base.gen)
		c.Raw(e.base.sum[:])
	}
	e.code(c, form)
	if c.Err() != nil {
		return nil, fmt.Errorf("baseline: snapshot: %w", c.Err())
	}
	b := seal(c.Bytes())
	*last = len(b)
	return b, nil
}

func (e *Engine) file(gen uint32) string {
	return filepath.Join(e.opts.Dir, "baseline-"+strconv.FormatUint(uint64(gen), 10)+".state")
}

func (e *Engine) writeWhole() error {
	b, err := e.encode(whole)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(e.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("baseline: snapshot: %w", err)
	}
	if err := durable.Replace(e.file(e.gen), b, 0o600); err != nil {
		return fmt.Errorf("baseline: snapshot: %w", err)
	}
	e.base = fullFile{gen: e.gen, sum: [sumBytes]byte(b[len(b)-sumBytes:]), closed: e.closed}
	e.gen++
	e.sweep()
	return nil
}

// sweep removes all whole snapshots but the two newest.
func (e *Engine) sweep() {
	list, err := os.ReadDir(e.opts.Dir)
	if err != nil {
		e.opts.Logger.Warn("old baselines cannot be listed", "error", err)
		return
	}
	for _, f := range list {
		s, ok := strings.CutPrefix(f.Name(), "baseline-")
		s, ok2 := strings.CutSuffix(s, ".state")
		gen, err := strconv.ParseUint(s, 10, 32)
		if !ok || !ok2 || err != nil || uint32(gen)+1 >= e.base.gen && uint32(gen) <= e.base.gen {
			continue
		}
		if err := os.Remove(filepath.Join(e.opts.Dir, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			e.opts.Logger.Warn("an old baseline cannot be removed", "file", f.Name(), "error", err)
		}
	}
}

// Restore takes the state of a snapshot. On an error nothing is learnt yet.
func (e *Engine) Restore(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	told := e.stats.Told
	e.forget()
	e.stats.Told = told
	err := e.restore(b)
	switch {
	case err != nil:
		e.forget()
		e.beginAnew(time.Now())
	case e.lost: // an older state was good
		e.beginAnew(time.Time{})
	}
	return err
}

// Forgotten says that there is no state to restore though there should be one, so that it is told.
func (e *Engine) Forgotten() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.beginAnew(time.Now())
}

func (e *Engine) anewFile() string { return filepath.Join(e.opts.Dir, "learns-anew") }

// beginAnew notes since when it learns anew, over a restart too: what is learnt from then on is restored as if nothing had been lost. The zero time: it does not.
func (e *Engine) beginAnew(at time.Time) {
	e.anew, e.lost = at, !at.IsZero()
	if e.opts.Dir == "" {
		return
	}
	var err error
	if e.lost {
		if err = os.MkdirAll(e.opts.Dir, 0o700); err == nil {
			err = durable.Replace(e.anewFile(), []byte(at.UTC().Format(time.RFC3339)), 0o600)
		}
	} else if err = os.Remove(e.anewFile()); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		e.opts.Logger.Warn("that the baselines learn anew is said until the next start only", "error", err)
	}
}

func (e *Engine) readAnew() {
	if e.opts.Dir == "" {
		return
	}
	if b, err := os.ReadFile(e.anewFile()); err == nil {
		if at, err := time.Parse(time.RFC3339, string(b)); err == nil {
			e.anew = at
		}
	}
}

func (e *Engine) restore(b []byte) error {
	body, err := unseal(b)
	if err != nil {
		return err
	}
	if body[len(magic)] == changes {
		var base fullFile
		c := sketch.Reader(body[len(magic)+5:])
		c.U32(&base.gen)
		c.Raw(base.sum[:])
		if c.Err() != nil {
			return fmt.Errorf("baseline: restore: %w", c.Err())
		}
		if e.opts.Dir == "" {
			return errors.New("baseline: restore: the snapshot holds changes only, and there is no folder with the whole one")
		}
		f, err := os.ReadFile(e.file(base.gen))
		if err != nil {
			return fmt.Errorf("baseline: restore: %w", err)
		}
		first, err := unseal(f)
		if err != nil {
			return fmt.Errorf("%w: %s", err, e.file(base.gen))
		}
		if first[len(magic)] != whole || string(f[len(f)-sumBytes:]) != string(base.sum[:]) {
			return fmt.Errorf("baseline: restore: %s is not the one that the snapshot builds on (it has %s, wanted %s)", e.file(base.gen), hex.EncodeToString(f[len(f)-sumBytes:]), hex.EncodeToString(base.sum[:]))
		}
		if err := e.decode(first); err != nil {
			return err
		}
	}
	return e.decode(body)
}

// decode reads one body over what is there.
func (e *Engine) decode(body []byte) error {
	c := sketch.Reader(body[len(magic):])
	var form byte
	c.U8(&form)
	c.U32(&e.gen)
	if e.gen == 0 || form != whole && form != changes {
		c.Fail("form %d, generation %d", form, e.gen)
	}
	if form == changes {
		c.U32(&e.base.gen)
		c.Raw(e.base.sum[:])
	}
	e.code(c, form)
	if c.Err() == nil && len(c.Bytes()) != 0 {
		c.Fail("%d bytes too many", len(c.Bytes()))
	}
	if c.Err() != nil {
		return fmt.Errorf("baseline: restore: %w", c.Err())
	}
	if form == whole {
		// Until a whole one is written again there is nothing that changes could build on; with a folder that is at the next snapshot.
		e.base = fullFile{}
	} else {
		e.base.closed = e.closed
	}
	return nil
}

// code writes or reads all, or what changed.
func (e *Engine) code(c *sketch.Codec, form byte) {
	c.U64(&e.key.A)
	c.U64(&e.key.B)
	c.I64(&e.clock)
	c.I32(&e.closed)
	c.U32(&e.started)
	if c.Reading() {
		if h := e.clock / hourNS; e.clock < 0 || e.clock > 1<<62 || e.clock != 0 && (int64(e.closed) > h || int64(e.closed) < h-3) || e.closed < -3 {
			c.Fail("clocks that cannot be")
			return
		}
	}
	e.centre.codeBudget(c)
	if e.opts.Where == Hub {
		c.U32(&e.swept)
		e.crossings.codeAll(c, e.lim.keys)
		e.patterns.Code(c, e.lim.patterns)
		e.signatures.codeAll(c, spreadMost)
		if c.Reading() {
			e.big = 0
			for i := range e.crossings.slots {
				if e.crossings.slots[i].more != nil {
					e.big++
				}
			}
		}
	}
	n := c.Len(len(e.order), e.opts.MaxTenants)
	last := int64(-1)
	for i := range n {
		var t *tenant
		var id uint32
		if !c.Reading() {
			t = e.order[i]
			id = uint32(t.id)
		}
		c.U32(&id)
		if c.Reading() {
			if c.Err() != nil || int64(id) <= last {
				c.Fail("members are not in order")
				return
			}
			last = int64(id)
			t = e.restored(event.TenantID(id))
		}
		t.code(c, e, form)
		if c.Err() != nil {
			return
		}
	}
}

// restored finds or makes a member while reading.
func (e *Engine) restored(id event.TenantID) *tenant {
	if t := e.tenants[id]; t != nil {
		return t
	}
	t := e.newTenant(id)
	e.tenants[id] = t
	at, _ := slices.BinarySearchFunc(e.order, id, func(x *tenant, id event.TenantID) int { return int(int64(x.id) - int64(id)) })
	e.order = slices.Insert(e.order, at, t)
	return t
}

func (t *tenant) codeBudget(c *sketch.Codec) {
	c.U16(&t.day)
	for l := range t.spent {
		c.Raw(t.spent[l][:])
	}
}

// code writes or reads one member: what changes with each event always, the rest when it changed or everything is written.
func (t *tenant) code(c *sketch.Codec, e *Engine, form byte) {
	c.U32(&t.since)
	c.U32(&t.last)
	for l := range t.lanes {
		c.U32(&t.lanes[l])
		c.U32(&t.laneLast[l])
	}
	c.I32(&t.any[0])
	c.I32(&t.any[1])
	for i := range t.lessons {
		c.U32(&t.lessons[i].since)
		c.U32(&t.lessons[i].proven)
	}
	c.I32(&t.keysHour)
	c.U16(&t.keys)
	c.U32(&t.evicted)
	t.codeBudget(c)
	part := func(have bool, changed *uint32, f func()) {
		have = have && (form == whole || *changed >= e.gen)
		c.Bool(&have)
		if have && c.Err() == nil {
			if c.Reading() {
				// Changed since the whole one, which it was not part of: it is part of the next changes as well.
				*changed = e.gen
				if form == whole {
					*changed = 0
				}
			}
			f()
		}
	}
	for l := range t.rates {
		for m := range t.rates[l] {
			there := t.rates[l][m] != nil
			c.Bool(&there)
			if !there || c.Err() != nil {
				continue
			}
			if t.rates[l][m] == nil {
				t.rates[l][m] = &rate{}
			}
			r := t.rates[l][m]
			part(true, &r.changed, func() { r.code(c) })
			r.codeOpen(c)
		}
		t.sources[l][0].Code(c)
		t.sources[l][1].Code(c)
	}
	part(len(t.accounts.slots) > 0, &t.accounts.changed, func() { t.accounts.codeAll(c, e.lim.accounts*t.share) })
	part(len(t.hosts.slots) > 0, &t.hosts.changed, func() { t.hosts.codeAll(c, e.lim.hosts*t.share) })
	part(len(t.beats.slots) > 0, &t.beats.changed, func() { t.beats.codeAll(c, e.lim.beats*t.share) })
	part(len(t.popular.slots) > 0, &t.popular.changed, func() { t.popular.codeAll(c, e.lim.popular*t.share) })
	some := false
	for _, f := range t.filters {
		some = some || f != nil
	}
	part(some, &t.fChanged, func() {
		for i := range t.filters {
			there := t.filters[i] != nil
			c.Bool(&there)
			if there && c.Err() == nil {
				if t.filters[i] == nil {
					t.filters[i] = &sketch.Filter{}
				}
				t.filters[i].Code(c, e.lim.filterMost*t.share)
			}
		}
	})
}
