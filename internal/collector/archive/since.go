package archive

import (
	"errors"
	"fmt"
	"io"

	"tocsin/internal/collector/spool"
)

// Next is a number that no line has yet: every line from now on has this one or a higher one. It is never 0.
func (a *Archive) Next() uint64 { return max(a.log.Next(), a.first, 1) }

// Since gives f the lines whose numbers are from on, in order; l.Text is valid during the call.
func (a *Archive) Since(from uint64, f func(l *Line)) error {
	var start spool.Pos
	for _, s := range a.log.Segments() {
		if s.Base <= from {
			start = spool.Pos{Segment: s.Base}
		}
	}
	r := a.Reader(start)
	defer r.Close()
	for {
		var l Line
		err := r.Next(&l)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if l.Number >= from {
			f(&l)
		}
	}
}
