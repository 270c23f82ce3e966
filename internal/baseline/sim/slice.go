package sim

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"tocsin/internal/baseline"
	"tocsin/internal/durable"
)

// ErrCut says that a run was cut after Options.Slice and goes on from there when it is called again with the same options.
var ErrCut = errors.New("cut, and to be gone on with")

// cut is where a run is cut. A long one would otherwise hold a shared machine for an hour, and begin anew after each interruption.
type cut struct {
	o     Options
	file  string
	until time.Time
}

// saved is a run between two slices. What was planted is the same again from the seed; what was found of it is not.
type saved struct {
	Options
	Next   int // the hour or member that is next
	Over   bool
	Result Result
	Found  map[string]int64 // when, by member and place in its list
	Keys   map[string]bool
	Engine []byte
}

func newCut(o Options, where string) *cut {
	c := &cut{o: o}
	if o.State != "" && o.Slice > 0 {
		c.file, c.until = o.State+"."+where, time.Now().Add(o.Slice)
	}
	return c
}

func (c *cut) now() bool { return c.file != "" && time.Now().After(c.until) }

// load restores what a former slice saved, and says where to go on, or that all is over. e is nil where engines do not live over slices.
func (c *cut) load(j *judge, e *baseline.Engine) (next int, over bool, err error) {
	if c.file == "" {
		return 0, false, nil
	}
	b, err := os.ReadFile(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	s := saved{Result: *newResult(c.o), Keys: map[string]bool{}} // what is empty is not written
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&s); err != nil {
		return 0, false, fmt.Errorf("%s: %w", c.file, err)
	}
	if s.Seed != c.o.Seed || s.Members != c.o.Members || s.Days != c.o.Days || s.Warm != c.o.Warm {
		return 0, false, fmt.Errorf("%s is of another run (seed %d, %d members, %d days); remove it or name another file", c.file, s.Seed, s.Members, s.Days)
	}
	*j.res = s.Result
	j.res.Options = c.o
	for m, list := range j.by {
		for i, a := range list {
			a.found = s.Found[place(int(m), i)]
		}
	}
	if e != nil && !s.Over {
		j.keys = s.Keys
		if err := e.Restore(s.Engine); err != nil {
			return 0, false, err
		}
	}
	return s.Next, s.Over, nil
}

func place(member, i int) string { return fmt.Sprintf("%d/%d", member, i) }

// cutAt keeps a run for its next slice. The error that it gives wraps ErrCut if it did.
func (c *cut) cutAt(next int, where string, j *judge, e *baseline.Engine) error {
	s := saved{Options: c.o, Next: next, Result: *j.res, Found: map[string]int64{}, Keys: j.keys}
	for m, list := range j.by {
		for i, a := range list {
			if a.found != 0 {
				s.Found[place(int(m), i)] = a.found
			}
		}
	}
	if e != nil {
		var err error
		if s.Engine, err = e.Snapshot(); err != nil {
			return err
		}
	}
	if err := c.write(&s); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s, %d observations so far", ErrCut, where, j.res.Events)
}

// over keeps the result of a run, so that it is not begun anew while another part of it goes on.
func (c *cut) over(res *Result) error {
	if c.file == "" {
		return nil
	}
	return c.write(&saved{Options: c.o, Over: true, Result: *res})
}

func (c *cut) write(s *saved) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s); err != nil {
		return err
	}
	return durable.Replace(c.file, b.Bytes(), 0o600)
}
