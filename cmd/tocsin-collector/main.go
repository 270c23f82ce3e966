// The program tocsin-collector is the member's side: it reads a gateway's logs, keeps content and benign traffic at home, and sends signs
// of attack to the scheme's hub. It is static, small, and links none of the hub's engines.
//
// Exit codes: 0 done; 1 something failed; 2 wrong use or wrong settings; 3 not enrolled; 4 enrolled already, or another collector runs in
// the folder; 5 the hub refused; 6 the hub was not reached; 7 doctor found something that must be mended; 8 a newer release is there; 9 the new
// release was not healthy and was taken back; 10 sent --compare found that record and hub differ.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"tocsin/internal/collector"
	"tocsin/internal/collector/send"
	"tocsin/internal/keys"
)

const (
	exitFailed    = 1
	exitUsage     = 2
	exitNotHere   = 3 // not enrolled
	exitTaken     = 4
	exitRefused   = 5
	exitNoHub     = 6
	exitUnhealth  = 7
	exitNewer     = 8
	exitTakenBack = 9
	exitDiffers   = 10 // sent --compare found a difference
)

// version is set by the build.
var version = ""

// env is what a command works with.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	program        bool // this is the program, not a test of it: it may be replaced by a newer one (update.go)
}

type command struct {
	name, args, short string
	run               func(context.Context, *env, []string) error
}

func commands() []command {
	return []command{
		{"run", "[--config FILE] [--dir DIR]", "collect: listen, keep, minimise, send", runCommand},
		{"enrol", "TOKEN [--dir DIR] [--name NAME] [--again] [--json]", "join a scheme with the token that its centre gave you", enrolCommand},
		{"explain", "[--config FILE] [--dir DIR] [--json]", "say for lines on standard input what would leave, what would not, and why", explainCommand},
		{"sent", "[--config FILE] [--dir DIR] [--json] [--events] [--since DURATION] [--until DURATION] [--kind REASON] [--extract DIGEST] [--compare] [--statement]", "show what left, from the member's own record", sentCommand},
		{"policy", "[NAME] [--config FILE] [--dir DIR] [--file] [--json]", "show in plain words what may leave; NAME is metadata, full or a policy file", policyCommand},
		{"questions", "[list | allow ID | deny ID] [--config FILE] [--dir DIR] [--json]", "what the hub asks about the past: see, allow, deny", questionsCommand},
		{"senders", "[list | accept ADDRESS] [--config FILE] [--dir DIR] [--json]", "who sends lines; accept a device that now sends those of another product", sendersCommand},
		{"unknown", "[--config FILE] [--dir DIR] [--json]", "show lines that are not understood yet", unknownCommand},
		{"troubleshoot", "on|off [--for 30m] [--sender ADDRESS] [--config FILE] [--dir DIR] [--json]", "let raw lines leave for a limited time", troubleshootCommand},
		{"page", "[--config FILE] [--dir DIR] [--json]", "print the address of the local page", pageCommand},
		{"reveal", "PSEUDONYM... [--config FILE] [--dir DIR] [--json]", "turn pseudonyms back, with the key that only this machine has", revealCommand},
		{"line", "NUMBER|HASH... [--config FILE] [--dir DIR] [--json]", "show raw lines from the archive, with the key that proves each", lineCommand},
		{"token", "--name NAME [--config FILE] [--dir DIR] [--json]", "make a token for a sender of logs over HTTP", tokenCommand},
		{"doctor", "[--config FILE] [--dir DIR] [--json]", "look for the usual faults and say what to do", doctorCommand},
		{"update", "[--check] [--again] [--config FILE] [--dir DIR] [--json]", "look for a newer signed release and install it; take it back if it is not healthy", updateCommand},
		{"firstboot", "[--config FILE] [--dir DIR] [--https ADDRESS] [--http ADDRESS] [--console FILE]", "on the appliance: a page that asks for the token", firstbootCommand},
		{"version", "", "print the version", versionCommand},
	}
}

func main() {
	// What the program holds is bounded; a lower target keeps a busy collector within its 64 MiB at little cost.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(56 << 20)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, &env{os.Stdin, os.Stdout, os.Stderr, os.Environ(), true}, os.Args[1:])
	stop()
	os.Exit(code)
}

// errUsage wraps what is wrong with a command line, errSettings what is wrong with the settings.
var (
	errUsage    = errors.New("usage")
	errSettings = errors.New("the settings are wrong")
)

// run is the program.
func run(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		usage(e.stdout)
		if len(args) == 0 {
			return exitUsage
		}
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, e, args[1:])
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(e.stdout, "usage: tocsin-collector %s %s\n%s\n", c.name, c.args, c.short)
			return 0
		}
		code := exitCode(err)
		if err != nil && !errors.Is(err, errSaid) {
			if wantsJSON(args) {
				b, _ := json.Marshal(map[string]any{"error": strings.TrimPrefix(err.Error(), "usage: "), "exit_code": code})
				fmt.Fprintf(e.stdout, "%s\n", b)
			}
			fmt.Fprintf(e.stderr, "tocsin-collector %s: %s\n", c.name, strings.TrimPrefix(err.Error(), "usage: "))
			if code == exitUsage && errors.Is(err, errUsage) {
				fmt.Fprintf(e.stderr, "usage: tocsin-collector %s %s\n", c.name, c.args)
			}
		}
		return code
	}
	fmt.Fprintf(e.stderr, "tocsin-collector: there is no command %q\n", args[0])
	usage(e.stderr)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "tocsin-collector: the member's side of Tocsin")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-12s %s\n", c.name, c.short)
	}
	fmt.Fprintln(w, "tocsin-collector COMMAND --help shows a command's options.")
}

// errSaid means that the command has printed everything itself.
var errSaid = errors.New("said")

// saidError is a failure that has been printed, with its exit code.
type saidError int

func (e saidError) Error() string        { return "said" }
func (e saidError) Is(target error) bool { return target == errSaid }

func exitCode(err error) int {
	var said saidError
	var problem *send.Problem
	var network net.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said):
		return int(said)
	case errors.Is(err, errUsage), errors.Is(err, errSettings), errors.Is(err, keys.ErrToken):
		return exitUsage
	case errors.Is(err, keys.ErrNotEnrolled):
		return exitNotHere
	case errors.Is(err, collector.ErrEnrolled), errors.Is(err, collector.ErrRunning):
		return exitTaken
	case errors.As(err, &problem):
		return exitRefused
	case errors.As(err, &network), errors.Is(err, keys.ErrNotTheHub), errors.Is(err, keys.ErrTrustRoot):
		return exitNoHub
	}
	return exitFailed
}

func wantsJSON(args []string) bool {
	for _, a := range args {
		if a == "--json" || a == "-json" {
			return true
		}
	}
	return false
}

// settings are the options that most commands share.
type settings struct {
	file, dir string
	json      bool
	stay      bool // go on as this program, also when a newer one is installed
}

// parseFlags reads a command's options, which may stand before and behind its arguments.
func parseFlags(name string, args []string, define func(*flag.FlagSet)) (rest []string, err error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	define(fs)
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			return nil, err
		} else if err != nil {
			return nil, fmt.Errorf("%w: %w", errUsage, err)
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

func (s *settings) define(fs *flag.FlagSet) {
	fs.StringVar(&s.file, "config", "", "settings file (YAML)")
	fs.StringVar(&s.dir, "dir", "", "the collector's folder")
	fs.BoolVar(&s.json, "json", false, "answer in JSON")
}

// fileName is the settings file. Without --config the file collector.yaml in the folder is taken, if there is one; without --dir the one in /etc.
func (s *settings) fileName() string {
	name := s.file
	switch {
	case name != "":
		return name
	case s.dir != "":
		name = s.dir + "/collector.yaml"
	default:
		name = "/etc/tocsin/collector.yaml"
	}
	if !exists(name) {
		return ""
	}
	return name
}

// load reads the settings. Where a newer program is installed (update) it does not return: that one goes on from the start.
func (s *settings) load(e *env) (collector.Config, error) {
	s.become(e)
	flags := map[string]string{}
	if s.dir != "" {
		flags["dir"] = s.dir
	}
	file := s.fileName()
	c, _, err := collector.LoadConfig(file, e.environ, flags)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errSettings, err)
	}
	return c, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func printJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// programVersion is what manifests and the hub see.
func programVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				return "devel-" + s.Value[:12]
			}
		}
	}
	return "devel"
}

func versionCommand(_ context.Context, e *env, args []string) error {
	rest, err := parseFlags("version", args, func(*flag.FlagSet) {})
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: version takes no arguments", errUsage)
	}
	_, err = fmt.Fprintln(e.stdout, "tocsin-collector", programVersion())
	return err
}
