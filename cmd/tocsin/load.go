package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"tocsin/internal/load"
)

// exitLoad is the code of `tocsin load` when the hub took the load but something is lost, stored twice or unaccounted for.
const exitLoad = 3

func runLoad(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tocsin load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var opt load.Options
	var asJSON, presigned bool
	flags.IntVar(&opt.Members, "members", 100, "members, each with one collector: 1 to 10000, with --collectors to 100")
	flags.Float64Var(&opt.Rate, "rate", 5000, "events a second over all members; with --collectors lines a second, of which four in five stay at home")
	flags.DurationVar(&opt.Duration, "duration", 30*time.Second, "how long to send")
	flags.Uint64Var(&opt.Seed, "seed", 1, "seed of the lines: the same seed makes the same lines")
	flags.BoolVar(&presigned, "presigned", false, "post batches that were signed beforehand (this is the default)")
	flags.BoolVar(&opt.Collectors, "collectors", false, "send raw lines to real collectors instead")
	flags.DurationVar(&opt.Interval, "interval", 0, "time between a member's batches, 200ms to 30s (default 1s, longer where a batch would have under 50 events)")
	flags.Float64Var(&opt.Incidents, "incidents", 1, "lines a second that must become alerts, to measure how long that takes")
	flags.StringVar(&opt.Hub, "hub", "", "address of the gate, host:port on this machine (default: the one the hub names)")
	flags.StringVar(&opt.Admin, "admin", "", "admin socket of a running hub, DATA_DIR/run/admin.sock (default: start a hub for this run)")
	flags.StringVar(&opt.Dir, "dir", "", "folder for this run's files; they stay (default: a new one that is removed afterwards)")
	flags.BoolVar(&asJSON, "json", false, "print the result as JSON")
	flags.Usage = func() {
		fmt.Fprint(stderr, `Usage: tocsin load [OPTIONS]

Makes load against a hub on this machine and reports latency, loss and cost. Only loopback addresses are accepted.
With --admin it enrols new members in that hub, which stay there: use it on a hub made for tests.

`)
		flags.PrintDefaults()
		fmt.Fprintf(stderr, "\nExit codes: 0 done and every event accounted for, 1 it could not run, 2 the arguments are wrong, %d events lost, doubled or without their alert.\n", exitLoad)
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "tocsin load: %q is not an option; `tocsin load --help` lists them\n", flags.Arg(0))
		return 2
	}
	if presigned && opt.Collectors {
		fmt.Fprintln(stderr, "tocsin load: choose --presigned or --collectors")
		return 2
	}
	if err := opt.Validate(); err != nil {
		fmt.Fprintln(stderr, "tocsin load:", err)
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(stderr, "tocsin load:", err)
		return 1
	}
	if opt.Dir == "" {
		dir, err := os.MkdirTemp("", "tocsin-load-")
		if err != nil {
			return fail(err)
		}
		defer os.RemoveAll(dir)
		opt.Dir = dir
	} else if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return fail(err)
	}
	var err error
	if opt.Tocsin, opt.Collector, err = programs(); err != nil {
		return fail(err)
	}
	if f, ok := stderr.(*os.File); ok && isTerminal(f) {
		opt.Progress = stderr
	}
	result, err := load.Run(ctx, opt)
	if err != nil {
		return fail(err)
	}
	write := result.WriteText
	if asJSON {
		write = result.WriteJSON
	}
	if err := write(stdout); err != nil {
		return fail(err)
	}
	if !result.Balanced {
		return exitLoad
	}
	return 0
}
