package spool

import (
	"fmt"
	"os"
	"slices"
)

// View gives a reader of a log that another process may be writing: it changes nothing, and ends where whole frames end.
func View(dir string) (*Reader, error) { return ViewNewest(dir, 1<<62) }

// ViewNewest is View from the segment on that holds the newest bytes, so many of them at most, and at least the newest segment.
func ViewNewest(dir string, bytes int64) (*Reader, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	l := &Log{dir: dir}
	for _, e := range entries {
		base, ok := parseName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil {
			l.segments = append(l.segments, Segment{Base: base, Size: info.Size(), ModTime: info.ModTime()})
		}
	}
	slices.SortFunc(l.segments, func(a, b Segment) int {
		if a.Base < b.Base {
			return -1
		}
		return 1
	})
	from := Pos{}
	for i := len(l.segments) - 1; i >= 0 && (i == len(l.segments)-1 || bytes >= l.segments[i].Size); i-- {
		bytes -= l.segments[i].Size
		from.Segment = l.segments[i].Base
	}
	return l.Reader(from), nil
}
