package archive

import (
	"time"

	"tocsin/internal/collector/spool"
)

const keepShare = 5 // the keeper works at most one part in so many of the time

// keep enters finished files in the index of times, and packs them, until the archive is closed.
func (a *Archive) keep() {
	said := map[string]bool{}
	failed := map[string]uint64{}
	for {
		rest := time.Duration(0)
		began := time.Now()
		what, some, err := a.keepOne(failed)
		switch {
		case err != nil:
			rest = time.Minute // as on a full disk, where room is made by deleting
			if !said[what] {
				said[what] = true
				a.o.Logger.Error("cannot "+what+" a file of the archive; it stays as it is, and is tried again later", "error", err)
			}
		case some:
			rest = (keepShare - 1) * time.Since(began)
			delete(said, what)
		}
		if rest > 0 {
			select {
			case <-time.After(rest):
			case <-a.closing:
				return
			}
			continue
		}
		select {
		case <-a.wake:
		case <-a.closing:
			return
		}
	}
}

// keepOne does what there is to do to one file. some is false when there was none. failed says where it failed last, by what was to be done: those
// behind it come first then, so that one file that cannot be read holds up none.
func (a *Archive) keepOne(failed map[string]uint64) (what string, some bool, err error) {
	for _, job := range []struct {
		what string
		next func(after uint64) (base uint64, ok bool)
		do   func(base uint64) error
	}{{"index", a.toIndex, a.index}, {"pack", a.toPack, a.pack}} {
		if base, ok := job.next(failed[job.what]); ok {
			if err := job.do(base); err != nil {
				failed[job.what] = base
				return job.what, true, err
			}
			return job.what, true, nil
		}
	}
	clear(failed) // with the next file that is finished they are tried again
	return "", false, nil
}

func (a *Archive) pack(base uint64) (err error) {
	if a.packer == nil {
		if a.packer, err = spool.NewPacker(); err != nil {
			return err
		}
	}
	return a.packer.Pack(a.log, base)
}

// toPack is the oldest file that is to be packed, of those whose number is above after.
func (a *Archive) toPack(after uint64) (base uint64, ok bool) {
	if a.o.Plain < 0 || a.old.Load() {
		return 0, false
	}
	a.mu.Lock()
	done := a.done.Segment
	a.mu.Unlock()
	segs := a.log.Segments()
	for i := 0; i+1+a.o.Plain < len(segs); i++ {
		if s := &segs[i]; !s.Packed && s.Base < done && s.Base > after {
			return s.Base, true
		}
	}
	return 0, false
}
