package main

import (
	"context"
	"flag"
	"fmt"

	"tocsin/internal/collector/listen/httpin"
)

func tokenCommand(_ context.Context, e *env, args []string) error {
	var s settings
	var name string
	rest, err := parseFlags("token", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.StringVar(&name, "name", "", "what to call it: the sender's name")
	})
	if err != nil {
		return err
	}
	if len(rest) > 0 || name == "" {
		return fmt.Errorf("%w: say who it is for with --name, such as --name webserver-1", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	token, err := httpin.NewToken(c.TokensFile(), name)
	if err != nil {
		return err
	}
	if s.json {
		return printJSON(e.stdout, map[string]string{"name": name, "token": token, "file": c.TokensFile()})
	}
	fmt.Fprintf(e.stdout, `%s

This is the token of %q. It is shown once: only its digest is kept, in %s.
The sender puts it into each request: Authorization: Bearer TOKEN
To take it back, delete its line from that file; a running collector notices within a second.
`, token, name, c.TokensFile())
	return nil
}
