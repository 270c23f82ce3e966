package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"tocsin/internal/collector/doctor"
)

func doctorCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	var watch time.Duration
	rest, err := parseFlags("doctor", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.DurationVar(&watch, "watch", 5*time.Second, "how long to look at the network when no lines come; 0: not at all")
	})
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: doctor takes no arguments, only options", errUsage)
	}
	if watch < 0 || watch > time.Hour {
		return fmt.Errorf("%w: --watch is between 0 and 1h", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	var printed error
	found := doctor.Run(ctx, doctor.Options{Config: &c, Version: programVersion(), Watch: watch, Environ: e.environ, Found: func(f doctor.Finding) {
		if s.json {
			if err := printJSON(e.stdout, f); err != nil {
				printed = err
			}
			return
		}
		mark := map[string]string{doctor.OK: "  ok ", doctor.Warn: "LOOK ", doctor.Fail: "MEND ", doctor.Skip: "  ?  "}[f.Level]
		if _, err := fmt.Fprintf(e.stdout, "%s %s: %s\n", mark, f.Check, f.Detail); err != nil {
			printed = err
		}
		if f.Next != "" {
			fmt.Fprintf(e.stdout, "      → %s\n", f.Next)
		}
	}})
	if printed != nil {
		return printed
	}
	if !s.json {
		mend, look := 0, 0
		for _, f := range found {
			switch f.Level {
			case doctor.Fail:
				mend++
			case doctor.Warn:
				look++
			}
		}
		switch {
		case mend+look == 0:
			fmt.Fprintln(e.stdout, "Nothing is wrong.")
		default:
			fmt.Fprintf(e.stdout, "%d to mend, %d to look at.\n", mend, look)
		}
	}
	if doctor.Failed(found) {
		return saidError(exitUnhealth)
	}
	return nil
}
