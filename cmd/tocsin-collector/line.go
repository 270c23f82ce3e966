package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"tocsin/internal/collector"
)

func lineCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	rest, err := parseFlags("line", args, s.define)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return fmt.Errorf("%w: %w", errUsage, collector.ErrLineName)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	lines, err := collector.RawLines(ctx, &c, rest)
	if errors.Is(err, collector.ErrLineName) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return err
	}
	missing := false
	for i := range lines {
		l := &lines[i]
		missing = missing || !l.Found
		if s.json {
			if err := printJSON(e.stdout, l); err != nil {
				return err
			}
			continue
		}
		if !l.Found {
			fmt.Fprintf(e.stdout, "%s  is not in the archive of this machine (any more: lines are kept %d days, or until archive.max_bytes is reached)\n", l.Asked, c.Archive.MaxDays)
			continue
		}
		from := l.Sender
		if from == "" {
			from = "this machine"
		}
		fmt.Fprintf(e.stdout, "line %d, received %s from %s by %s\n%s\nevent.hash %s\nkey        %s\n", l.Number, l.Received.Local().Format(time.DateTime), from, l.Via, printable(l.Bytes), l.Hash, l.Key)
		if l.Cut {
			fmt.Fprintln(e.stdout, "The line was longer than listen.max_line: this is its beginning, which is all that was kept.")
		}
		fmt.Fprintln(e.stdout)
	}
	if !s.json {
		fmt.Fprintln(e.stdout, "Whoever gets a line with its key can check it against the event, and no other line: docs/collector.md says how.")
	}
	if missing {
		return saidError(exitFailed)
	}
	return nil
}

// printable is a line for a terminal: what a device wrote must not steer it.
func printable(b []byte) string {
	if utf8.Valid(b) {
		plain := true
		for _, r := range string(b) {
			plain = plain && (r == '\t' || unicode.IsPrint(r))
		}
		if plain {
			return string(b)
		}
	}
	return strconv.Quote(string(b)) + " (quoted: it holds characters that are not for terminals; --json gives its bytes)"
}
