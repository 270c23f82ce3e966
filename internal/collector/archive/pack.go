package archive

import (
	"time"

	"tocsin/internal/collector/spool"
)

const packShare = 5 // the packer works at most one part in so many of the time

// pack packs files until the archive is closed.
func (a *Archive) pack() {
	p, err := spool.NewPacker()
	if err != nil {
		a.o.Logger.Error("the archive's files are not packed", "error", err)
		return
	}
	said := false
	for {
		rest := time.Duration(0)
		if base, ok := a.toPack(); ok {
			began := time.Now()
			if err := p.Pack(a.log, base); err == nil {
				rest, said = (packShare-1)*time.Since(began), false
			} else {
				rest = time.Minute // as on a full disk, where room is made by deleting
				if !said {
					said = true
					a.o.Logger.Error("cannot pack a file of the archive; it stays as it is for now", "error", err)
				}
			}
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

// toPack is the oldest file that is to be packed.
func (a *Archive) toPack() (base uint64, ok bool) {
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
