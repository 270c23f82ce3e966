package spool

import "fmt"

// View gives a reader of a log that another process may be writing: it changes nothing, and ends where whole frames end.
func View(dir string) (*Reader, error) { return ViewNewest(dir, 1<<62) }

// ViewNewest is View from the segment on that holds the newest bytes on disk, so many of them at most, and at least the newest segment.
func ViewNewest(dir string, bytes int64) (*Reader, error) {
	segments, _, err := segmentsIn(dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	l := &Log{dir: dir, segments: segments}
	from := Pos{}
	for i := len(segments) - 1; i >= 0 && (i == len(segments)-1 || bytes >= segments[i].Size); i-- {
		bytes -= segments[i].Size
		from.Segment = segments[i].Base
	}
	return l.Reader(from), nil
}
