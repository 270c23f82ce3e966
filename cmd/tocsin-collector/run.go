package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"tocsin/internal/collector"
	"tocsin/internal/collector/update"
)

func runCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	rest, err := parseFlags("run", args, s.define)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: run takes no arguments, only options", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	log := newLogger(e.stderr, c.Log)
	if len(c.Ports()) == 0 && len(c.Listen.Files) == 0 {
		log.Warn("nothing is set below listen: nothing can arrive; what waits is still sent")
	}
	pack, err := rulePack()
	if err != nil {
		return err
	}
	a, err := collector.Open(collector.Options{Config: c, Version: programVersion(), Detector: newDetector, Matcher: newMatcher, RulePack: pack, Logger: log,
		OnTrial: func() bool {
			k, err := update.Known(c.Update.Dir, programVersion())
			return err != nil || k.Trial == programVersion() // as long as nobody can say, the one before may be wanted back
		}})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

func newLogger(w io.Writer, c collector.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked with the settings
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
