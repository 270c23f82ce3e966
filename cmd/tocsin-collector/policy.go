package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"strings"

	"tocsin/internal/collector"
	"tocsin/internal/collector/minimise"
)

func policyCommand(_ context.Context, e *env, args []string) error {
	var s settings
	var asFile bool
	rest, err := parseFlags("policy", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.BoolVar(&asFile, "file", false, "print the policy's file, to begin an own policy with")
	})
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return fmt.Errorf("%w: policy takes one name: metadata, full, or the path of a policy file", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		c.Policy = collector.Policy{Name: rest[0]}
	}
	if asFile {
		b, err := minimise.Source(c.Policy.Name)
		if err != nil {
			return err
		}
		_, err = e.stdout.Write(b)
		return err
	}
	m, err := c.Minimiser()
	if err != nil {
		return fmt.Errorf("%w: %w", errSettings, err)
	}
	p := m.Policy()
	if s.json {
		return printJSON(e.stdout, map[string]any{"policy": p, "digest": m.Digest(), "also_leave": c.Policy.AlsoLeave, "also_keep": c.Policy.AlsoKeep, "pseudonyms": c.Policy.Pseudonyms})
	}
	w := bufio.NewWriter(e.stdout)
	defer w.Flush()
	fmt.Fprintf(w, "Policy %s, version %d: %s\nIts digest, which stands in every batch: %s\n\n", p.Name, p.Version, p.Title, m.Digest())
	fmt.Fprintln(w, "Which events leave. The first that fits decides:")
	for i := range p.Events {
		cl := &p.Events[i]
		does, because := "stays ", "it is "
		if cl.Leave != "" {
			does, because = "LEAVES", ""
		}
		when := ""
		switch cl.Urgent {
		case "true":
			when = ", at once"
		case "first":
			when = ", at once the first time in a day from one source"
		}
		fmt.Fprintf(w, "  %s  %-22s because %s%s%s\n", does, cl.Reason(), because, cl.Text, when)
	}
	raw := "The raw line stays on this machine."
	switch {
	case m.SendsRaw():
		raw = "The raw line leaves too."
	case p.Raw:
		raw = "The raw line stays too, because what you hold back or veil (policy.also_keep, policy.pseudonyms) may stand in it."
	}
	fmt.Fprintf(w, "\nWhat of them leaves. A field that is not named here stays. %s\n", raw)
	fmt.Fprintf(w, "  as it is: %s\n", wrap(p.Fields.Leave))
	as := "as they are"
	for _, x := range c.Policy.Pseudonyms {
		if x == "addresses" {
			as = "your own ones as pseudonyms"
		}
	}
	if len(p.Fields.Address) > 0 {
		fmt.Fprintf(w, "  addresses, %s: %s\n", as, wrap(p.Fields.Address))
	}
	if len(c.Policy.AlsoLeave) > 0 {
		fmt.Fprintf(w, "  let go by you beyond that (policy.also_leave): %s\n", wrap(c.Policy.AlsoLeave))
	}
	if len(c.Policy.AlsoKeep) > 0 {
		fmt.Fprintf(w, "  kept back by you (policy.also_keep): %s\n", wrap(c.Policy.AlsoKeep))
	}
	fmt.Fprintln(w, "\nTry it on lines of your own: tocsin-collector explain < some.log. Begin a policy of your own: tocsin-collector policy metadata --file > my-policy.yaml")
	return nil
}

// wrap writes names with commas, broken into lines.
func wrap(names []string) string {
	var b strings.Builder
	col := 0
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		if col += len(n) + 2; col > 120 {
			b.WriteString("\n      ")
			col = len(n)
		}
		b.WriteString(n)
	}
	return b.String()
}
