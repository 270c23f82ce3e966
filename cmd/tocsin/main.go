// Command tocsin is the centre and its tools: the hub, the demo, and what people run beside them. It turns arguments into options and
// calls the packages; docs/commands.md lists its exit codes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// command is one subcommand. It returns the exit code: 0 done, 1 it failed, 2 the arguments are wrong; a command's own codes start at 3.
type command struct {
	name  string
	short string
	run   func(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int
}

var commands = []command{
	{"demo", "the hub and three collectors on this machine, with a story to watch", runDemo},
	{"hub", "the centre", runHub},
	{"admin", "members, collectors, people, indicators, backup, doctor", runAdmin},
	{"parse", "log lines on stdin to ECS events on stdout", runParse},
	{"rules", "check, test, list and evaluate detection rules", runRules},
	{"load", "load generator: many members, many events", runLoad},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return 2
	}
	switch args[0] {
	case "help", "-h", "--help", "-help":
		usage(stdout)
		return 0
	case "version", "--version":
		fmt.Fprintln(stdout, "tocsin", version())
		return 0
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, args[1:], stdin, stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "tocsin: there is no command %q; `tocsin help` lists them\n", args[0])
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: tocsin COMMAND [OPTIONS]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\n`tocsin COMMAND --help` says more. The member's side is the program tocsin-collector.\n")
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			v = s.Value[:12]
		}
	}
	return v
}
