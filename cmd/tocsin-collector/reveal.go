package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tocsin/internal/collector"
)

func revealCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	rest, err := parseFlags("reveal", args, s.define)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return fmt.Errorf("%w: name at least one pseudonym, such as fd12:3456:… or user-0123456789ab", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	got, err := collector.Reveal(ctx, &c, rest)
	if errors.Is(err, collector.ErrPseudonym) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if err != nil {
		return err
	}
	missing := false
	for _, r := range got {
		missing = missing || !r.Found
		switch {
		case s.json:
			if err := printJSON(e.stdout, r); err != nil {
				return err
			}
		case !r.Found:
			fmt.Fprintf(e.stdout, "%s  not found: no address of your IPv4 ranges has it, nor any line in the archive (%d days at most). Was it made by this machine, with this folder's key?\n", r.Pseudonym, c.Archive.MaxDays)
		case r.How == "archive":
			fmt.Fprintf(e.stdout, "%s  is %s (as in line %d of the archive, received %s)\n", r.Pseudonym, r.Value, r.Line, r.Seen.Local().Format(time.DateTime))
		default:
			fmt.Fprintf(e.stdout, "%s  is %s\n", r.Pseudonym, r.Value)
		}
	}
	if missing {
		return saidError(exitFailed)
	}
	return nil
}
