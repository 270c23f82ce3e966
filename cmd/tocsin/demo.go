package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tocsin/internal/demo"
)

// exitStory is the code of `tocsin demo --once` when the system ran but not everything was as the story demands.
const exitStory = 3

func runDemo(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tocsin demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var opt demo.Options
	var asJSON, codes bool
	flags.StringVar(&opt.Dir, "dir", "", "folder for everything the demo keeps (default data/demo; with --once a new one that is removed afterwards)")
	flags.IntVar(&opt.Port, "port", 0, "port of the pages on localhost (default 8080, or the next free one)")
	flags.BoolVar(&opt.Once, "once", false, "play the story to its end, judge it and stop")
	flags.BoolVar(&asJSON, "json", false, "with --once: print the result as JSON")
	flags.BoolVar(&codes, "codes", false, "print the present one-time codes of a demo that runs, and stop")
	flags.Float64Var(&opt.Rate, "rate", 25, "ordinary log lines a second for each of the three members, 1 to 1000")
	flags.Uint64Var(&opt.Seed, "seed", 1, "seed of the ordinary traffic")
	flags.Func("history", "invent a past of so many `days` (such as 90d) before the story, so that reports and trends have something to show; all of it is marked as invented", func(v string) (err error) {
		opt.History, err = parseDays(v)
		return err
	})
	flags.Usage = func() {
		fmt.Fprint(stderr, `Usage: tocsin demo [OPTIONS]

Runs the hub and three collectors on this machine, sends them the log lines of invented devices and plays a story: one address
looks for open ports at all three members, tries passwords at two and gets in at one. Ctrl-C stops it; the next start goes on
where it ended.

`)
		flags.PrintDefaults()
		fmt.Fprintf(stderr, "\nExit codes: 0 done, 1 it could not run, 2 the arguments are wrong, %d (--once) an alert is missing or unexpected, or a line is unaccounted for.\n", exitStory)
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	switch {
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "tocsin demo: %q is not an option; `tocsin demo --help` lists them\n", flags.Arg(0))
		return 2
	case asJSON && !opt.Once:
		fmt.Fprintln(stderr, "tocsin demo: --json goes with --once; a demo that goes on has no result")
		return 2
	case opt.Port < 0 || opt.Port > 65535:
		fmt.Fprintln(stderr, "tocsin demo: --port must be from 1 to 65535")
		return 2
	case opt.Rate < 1 || opt.Rate > 1000:
		fmt.Fprintln(stderr, "tocsin demo: --rate must be from 1 to 1000; `tocsin load` is for more")
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "tocsin demo:", err)
		return 1
	}
	if codes {
		if opt.Dir == "" {
			opt.Dir = defaultDemoDir
		}
		if err := demo.Codes(stdout, opt.Dir); err != nil {
			return fail(err)
		}
		return 0
	}
	if opt.Dir == "" {
		opt.Dir = defaultDemoDir
		if opt.Once {
			dir, err := os.MkdirTemp("", "tocsin-")
			if err != nil {
				return fail(err)
			}
			defer os.RemoveAll(dir)
			opt.Dir = dir
		}
	}
	var err error
	if opt.Tocsin, opt.Collector, err = programs(); err != nil {
		return fail(err)
	}
	opt.Progress = stdout
	if opt.Once {
		// The result alone goes to stdout; what happens meanwhile is for a person who watches.
		opt.Progress = io.Discard
		if f, ok := stderr.(*os.File); ok && isTerminal(f) {
			opt.Progress = stderr
		}
	}
	result, err := demo.Run(ctx, opt)
	if err != nil {
		if ctx.Err() != nil && !opt.Once {
			return 0 // Ctrl-C before everything was up is no failure
		}
		return fail(err)
	}
	if !opt.Once {
		return 0
	}
	write := result.WriteText
	if asJSON {
		write = result.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fail(err)
	}
	if !result.OK {
		return exitStory
	}
	return 0
}

// parseDays reads a number of days: 90d, 12w, or the bare number.
func parseDays(v string) (int, error) {
	unit := 1
	digits, ok := strings.CutSuffix(v, "w")
	if ok {
		unit = 7
	} else {
		digits = strings.TrimSuffix(v, "d")
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > demo.MaxHistory || n*unit > demo.MaxHistory {
		return 0, fmt.Errorf("give 1d to %dd, such as 90d", demo.MaxHistory)
	}
	return n * unit, nil
}

// defaultDemoDir is where `tocsin demo` keeps its things, below the folder it is started in.
const defaultDemoDir = "data/demo"

// programs finds this program and tocsin-collector beside it.
func programs() (tocsin, collector string, err error) {
	tocsin, err = os.Executable()
	if err != nil {
		return "", "", err
	}
	if tocsin, err = filepath.EvalSymlinks(tocsin); err != nil {
		return "", "", err
	}
	collector = filepath.Join(filepath.Dir(tocsin), "tocsin-collector")
	if _, err := os.Stat(collector); errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("the program tocsin-collector is not beside %s: build both with `make build`", tocsin)
	}
	return tocsin, collector, nil
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
