package main

import (
	"context"
	"fmt"

	"tocsin/internal/collector"
)

func explainCommand(_ context.Context, e *env, args []string) error {
	var s settings
	rest, err := parseFlags("explain", args, s.define)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: explain reads lines from standard input", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	x, err := collector.NewExplainer(&c, newDetector)
	if err != nil {
		return err
	}
	return collector.Explain(e.stdin, e.stdout, x, c.Listen.MaxLine, s.json)
}
