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
	"slices"

	"tocsin/internal/detect"
	"tocsin/rules"
	"tocsin/sigma"
)

const rulesUsage = `Usage: tocsin rules COMMAND [OPTIONS]

  check [--pipeline FILE…] [DIR…]
                 read and compile rules; every error as file:line: reason
  list  [DIR…]   the rules that make detections, or all when none has the attribute tocsin
  test  [DIR]    run each rule on the events on which it must and must not fire (DIR/tests/*.yml)
  eval  --rules DIR [--pipeline FILE…] [--logsource k=v,…] [--stats] [--workers N] FILE.jsonl…
                 for each event (one JSON object a line) one line {"file","line","rules":[ids]}; "-" reads stdin, lines count from 0

  update FILE|FOLDER|URL --sha256 HEX | --key KEY [--signature FILE]
         [--name NAME] [--only FOLDER…] [--min-level LEVEL] [--dry-run] [-v]
                 take in a set of upstream rules, zip or tar.gz, and show what changes; without a proof it is refused
  sets           the sets that were taken in
  rollback NAME  the version of a set before, in force again
  remove NAME    take a set out
  sign --key-dir DIR FILE
                 sign an archive of rules with the key in DIR
  reload         have the running hub read its rules again now (it does so by itself when a file changes)

  layer off RULE            switch a rule off
  layer level RULE LEVEL    give its detections another level
  except RULE FIELD=VALUE --until DATE|DAYSd
                            leave out events or detections in which a field has a value (a network, * at the ends)
         each with --reason TEXT --owner NAME [--until DATE|DAYSd] [--member NAME | --region NAME]
  layer list [--all]        what is switched off, excepted and changed, by whom, why, until when, and what it kept back
  layer end ID [--reason TEXT]
  layer publish --offline FOLDER [--days N]
                            hand those of rules that run on sites to the sites, signed with the key for packs
  suppressed [--layer ID] [--limit N]
                            detections that a layer kept from becoming alerts

  health --member NAME [-v] which rules can fire on each of a member's sources, and why others cannot
  coverage --member NAME    the techniques of ATT&CK that rules could see there
  daily [--now] [--member NAME]  when the way from the bus to the alerts was tested last with a harmless event, and how long it took; --now tests it

  rematch VALUE | --rule FILE --reason TEXT [--days N]
                            ask the stored history who saw an address, network or name, or where a rule would have matched
  rematch list, rematch stop ID

From update on they work on a hub's folder, as tocsin admin does: [--config FILE | --data DIR] [--set KEY=VALUE] [--json].

Without DIR the rules that are built in are meant. A pipeline is a YAML file that maps fields and values before rules are compiled, as in
pySigma; it may be given again. Exit codes: 0 fine, 1 something is wrong with rules, tests or events, or the
rules were refused, 2 wrong arguments.
`

func runRules(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, rulesUsage)
		return 2
	}
	switch args[0] {
	case "check":
		return rulesCheck(args[1:], stdout, stderr)
	case "list":
		return rulesList(args[1:], stdout, stderr)
	case "test":
		return rulesTest(args[1:], stdout, stderr)
	case "eval":
		return rulesEval(ctx, args[1:], stdin, stdout, stderr)
	case "update", "sets", "rollback", "remove", "reload", "except", "suppressed", "health", "coverage", "daily":
		return rulesOffice(ctx, 1, args, stdout, stderr)
	case "layer":
		return rulesOffice(ctx, min(2, len(args)), args, stdout, stderr)
	case "rematch":
		if len(args) > 1 && (args[1] == "list" || args[1] == "stop") {
			return rulesOffice(ctx, 2, args, stdout, stderr)
		}
		return rulesOffice(ctx, 1, args, stdout, stderr)
	case "sign":
		return rulesSign(args[1:], stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, rulesUsage)
		return 0
	}
	fmt.Fprintf(stderr, "tocsin rules: there is no command %q\n\n%s", args[0], rulesUsage)
	return 2
}

// rulesFlags parses the options of a subcommand. done says that the command is over, with its exit code.
func rulesFlags(name string, args []string, stdout, stderr io.Writer, define func(*flag.FlagSet)) (rest []string, code int, done bool) {
	f := flag.NewFlagSet("tocsin rules "+name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	if define != nil {
		define(f)
	}
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, rulesUsage)
		return nil, 0, true
	case err != nil:
		fmt.Fprintf(stderr, "tocsin rules %s: %v\n\n%s", name, err, rulesUsage)
		return nil, 2, true
	}
	return f.Args(), 0, false
}

// readRules parses every rule file below the given folders; a single file may be given too.
func readRules(dirs []string) (*sigma.Collection, []*sigma.Error, error) {
	c := &sigma.Collection{}
	var errs []*sigma.Error
	read := func(fsys fs.FS, prefix string) error {
		return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				if detect.NotRules(name) {
					return fs.SkipDir
				}
				return nil
			}
			if ext := filepath.Ext(name); ext != ".yml" && ext != ".yaml" {
				return nil
			}
			b, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			errs = append(errs, c.Parse(filepath.Join(prefix, filepath.FromSlash(name)), b)...)
			return nil
		})
	}
	if len(dirs) == 0 {
		return c, errs, read(rules.FS, "built-in")
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, nil, err
		}
		if !info.IsDir() {
			b, err := os.ReadFile(dir)
			if err != nil {
				return nil, nil, err
			}
			errs = append(errs, c.Parse(dir, b)...)
			continue
		}
		if err := read(os.DirFS(dir), dir); err != nil {
			return nil, nil, err
		}
	}
	return c, errs, nil
}

// ours says whether any rule has the attribute that makes detections of matches.
func ours(c *sigma.Collection) bool {
	return slices.ContainsFunc(c.Rules, func(r *sigma.Rule) bool { return r.HasCustom("tocsin") }) ||
		slices.ContainsFunc(c.Correlations, func(r *sigma.Correlation) bool { return r.HasCustom("tocsin") })
}

// readPiped is readRules with the pipelines applied.
func readPiped(dirs, pipelines []string) (*sigma.Collection, []*sigma.Error, error) {
	c, errs, err := readRules(dirs)
	if err != nil {
		return nil, errs, err
	}
	c, more, err := applyPipelines(c, pipelines)
	return c, append(errs, more...), err
}

// applyPipelines reads pipelines and applies them to c.
func applyPipelines(c *sigma.Collection, files []string) (*sigma.Collection, []*sigma.Error, error) {
	if len(files) == 0 {
		return c, nil, nil
	}
	var list []*sigma.Pipeline
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, nil, err
		}
		p, err := sigma.ParsePipeline(f, b)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, p)
	}
	out, errs := c.Apply(list...)
	return out, errs, nil
}
