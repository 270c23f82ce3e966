package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"tocsin/internal/app"
	"tocsin/internal/config"
)

const hubHelp = `Usage: tocsin hub [--config FILE] [--set KEY=VALUE]... [--print-config]

Runs the centre: receives batches from collectors, keeps, detects, stores, alerts, and serves the pages.
Settings come from their defaults, then the file, then the environment (gate.listen is TOCSIN_GATE_LISTEN), then --set.
SIGTERM or Ctrl-C drains and stops it. docs/configuration.md names every setting.

`

// settings collects --set flags.
type settings map[string]string

func (s settings) String() string { return "" }

func (s settings) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return fmt.Errorf("%q: want KEY=VALUE, such as web.listen=127.0.0.1:8080", text)
	}
	s[key] = value
	return nil
}

// loadHub reads the hub's settings for any command that needs them. File "" means none.
func loadHub(file string, set settings) (config.Hub, config.Origins, error) {
	h := config.DefaultHub()
	origins, err := config.Load(&h, config.Options{File: file, EnvPrefix: "TOCSIN", Environ: os.Environ(), Flags: set})
	if err != nil {
		return h, nil, err
	}
	return h, origins, h.Complete()
}

func runHub(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	set := settings{}
	flags := flag.NewFlagSet("tocsin hub", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "", "settings `file` (YAML)")
	printConfig := flags.Bool("print-config", false, "print the settings in force and where each comes from, then stop")
	flags.Var(set, "set", "`key=value` over file and environment; may be given again")
	flags.Usage = func() {
		fmt.Fprint(stderr, hubHelp)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "tocsin hub: unexpected argument %q\n", flags.Arg(0))
		return 2
	}
	h, origins, err := loadHub(*file, set)
	if err != nil {
		fmt.Fprintf(stderr, "tocsin hub: %v\n", err)
		return 2
	}
	if *printConfig {
		if err := config.Print(stdout, &h, origins); err != nil {
			return 1
		}
		return 0
	}
	log := newLogger(h.Log, stderr)
	for _, name := range config.Unknown(&h, config.Options{EnvPrefix: "TOCSIN", Environ: os.Environ()}, "TEST", "COLLECTOR") {
		log.Warn("an environment variable names no setting and is ignored; see tocsin hub --print-config", "variable", name)
	}
	if err := app.Run(ctx, app.Options{Config: h, Logger: log, Version: version()}); err != nil {
		fmt.Fprintf(stderr, "tocsin hub: %v\n", err)
		return 1
	}
	return 0
}

func newLogger(l config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
