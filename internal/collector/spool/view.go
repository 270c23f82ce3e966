package spool

import (
	"fmt"
	"os"
	"slices"
)

// View gives a reader of a log that another process may be writing: it changes nothing, and ends where whole frames end.
func View(dir string) (*Reader, error) {
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
	return l.Reader(Pos{}), nil
}
