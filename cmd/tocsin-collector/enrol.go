package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"tocsin/internal/collector"
	"tocsin/internal/keys"
)

func enrolCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	var name string
	var again bool
	rest, err := parseFlags("enrol", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.StringVar(&name, "name", "", "what to call this machine")
		fs.BoolVar(&again, "again", false, "replace an enrolment that is there")
	})
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		// A token on the command line can be seen in the list of processes; from standard input it cannot.
		b, err := io.ReadAll(io.LimitReader(e.stdin, 8<<10))
		if err != nil || strings.TrimSpace(string(b)) == "" {
			return fmt.Errorf("%w: the token is missing; the centre gives you one", errUsage)
		}
		rest = []string{string(b)}
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	if err := asOwner(c.Dir); err != nil { // keys made by root could not be read by the service
		return err
	}
	got, err := collector.Enrol(ctx, collector.EnrolOptions{Config: c, Token: strings.Join(rest, ""), Name: name, Version: programVersion(), Again: again})
	if errors.Is(err, collector.ErrEnrolled) {
		return fmt.Errorf("%w (%s). To start it: tocsin-collector run. To join anew with another token: add --again", err, c.Dir)
	}
	if errors.Is(err, keys.ErrTrustRoot) || errors.Is(err, keys.ErrNotTheHub) {
		return fmt.Errorf("what answers is not the hub this token is for. The token's secret was not sent. Copy the token again, whole, as the centre gave it to you; if it is right, something on the way answers in the hub's place (%w)", err)
	}
	if err != nil {
		return err
	}
	words := strings.Join(got.CheckWords, " ")
	if s.json {
		return printJSON(e.stdout, map[string]any{
			"collector": got.Collector, "tenant": got.Tenant, "organisation": got.Organisation, "site": got.Site, "state": got.State, "check_words": words,
			"hub": got.Address, "dir": c.Dir,
		})
	}
	fmt.Fprintf(e.stdout, `This machine now belongs to %s, %s.

Check words:

    %s

What to do now:
  1. Open the portal's page of this collector and look whether it shows the same four words.
  2. The same: confirm them there. Other words, or none: somebody else used your token. Do not confirm; ask for a new token.
  3. Start collecting: tocsin-collector run --dir %s

Until you confirm, what this machine sends is kept apart and counts for nothing.
The keys made here are in %s. They never leave this machine: do not copy them to another.
`, got.Organisation, got.Site, words, c.Dir, c.KeyDir())
	if len(c.Ports()) == 0 && len(c.Listen.Files) == 0 {
		name := s.file
		if name == "" {
			name = c.Dir + string(os.PathSeparator) + "collector.yaml"
		}
		fmt.Fprintf(e.stdout, `
No listener is set yet. Write into %s, with your own public addresses:

    listen:
      syslog:
        - udp: 0.0.0.0:5514
          tcp: 0.0.0.0:5514
    own_ranges: [198.51.100.0/24]
`, name)
	}
	return nil
}
