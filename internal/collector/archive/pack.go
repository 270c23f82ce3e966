package archive

import (
	"time"

	"tocsin/internal/collector/spool"
)

const keepShare = 5 // the keeper works at most one part in so many of the time

// keep enters finished files in the index of times, and packs them, until the archive is closed.
func (a *Archive) keep() {
	said := map[string]bool{}
	for {
		rest := time.Duration(0)
		began := time.Now()
		what, some, err := a.keepOne()
		switch {
		case err != nil:
			rest = time.Minute // as on a full disk, where room is made by deleting
			if !said[what] {
				said[what] = true
				a.o.Logger.Error("cannot "+what+" a file of the archive; it stays as it is for now", "error", err)
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

// keepOne does what there is to do to one file. some is false when there was none.
func (a *Archive) keepOne() (what string, some bool, err error) {
	if base, ok := a.toIndex(); ok {
		return "index", true, a.index(base)
	}
	if base, ok := a.toPack(); ok {
		if a.packer == nil {
			if a.packer, err = spool.NewPacker(); err != nil {
				return "pack", true, err
			}
		}
		return "pack", true, a.packer.Pack(a.log, base)
	}
	return "", false, nil
}

// toPack is the oldest file that is to be packed.
func (a *Archive) toPack() (base uint64, ok bool) {
	if a.o.Plain < 0 || a.old.Load() {
		return 0, false
	}
	a.mu.Lock()
	done := a.done.Segment
	a.mu.Unlock()
	segs := a.log.Segments()
	for i := 0; i+1+a.o.Plain < len(segs); i++ {
		if s := &segs[i]; !s.Packed && s.Base < done {
			return s.Base, true
		}
	}
	return 0, false
}
