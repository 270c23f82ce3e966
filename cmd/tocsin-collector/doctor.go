package main

import (
	"context"
	"fmt"

	"tocsin/internal/collector"
)

func doctorCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	rest, err := parseFlags("doctor", args, s.define)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: doctor takes no arguments, only options", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	findings := collector.Doctor(ctx, &c, programVersion())
	failed := false
	for _, f := range findings {
		failed = failed || f.Level == "fail"
		if s.json {
			if err := printJSON(e.stdout, f); err != nil {
				return err
			}
			continue
		}
		mark := map[string]string{"ok": "  ok ", "warn": "LOOK ", "fail": "MEND "}[f.Level]
		fmt.Fprintf(e.stdout, "%s %s: %s\n", mark, f.Check, f.Detail)
		if f.Next != "" {
			fmt.Fprintf(e.stdout, "      → %s\n", f.Next)
		}
	}
	if failed {
		return saidError(exitUnhealth)
	}
	return nil
}
