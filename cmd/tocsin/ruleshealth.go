package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"tocsin/internal/access"
	"tocsin/internal/app"
	"tocsin/internal/health"
)

// ofMember parses the options of a command about one member, and asks the running hub.
func (a *admin) ofMember(ctx context.Context, name, path string, common func(*flag.FlagSet), args []string, more func(*flag.FlagSet), into any) error {
	memberName := ""
	if _, err := a.flags(name, args, func(f *flag.FlagSet) {
		common(f)
		f.StringVar(&memberName, "member", "", "")
		more(f)
	}); err != nil {
		return err
	}
	if memberName == "" {
		return fmt.Errorf("%w: %s needs --member, a name or number; `tocsin admin member list` shows them", errUsage, name)
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		m, err := o.Members.FindOrganisation(ctx, access.System("admin"), memberName)
		if err != nil {
			return err
		}
		body, _, err := askHub(ctx, o, http.MethodGet, path+"?tenant="+strconv.FormatUint(uint64(m.ID), 10), nil, "it is the one that sees the events")
		if err != nil {
			return err
		}
		if err := json.Unmarshal(body, into); err != nil {
			return fmt.Errorf("reading the hub's answer: %w", err)
		}
		return nil
	})
}

// rulesHealth shows which rules can fire on the sources of a member, and why others cannot.
func (a *admin) rulesHealth(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	var list []app.SourceHealth
	verbose := false
	if err := a.ofMember(ctx, "health", "/admin/rules/health", common, args, func(f *flag.FlagSet) { f.BoolVar(&verbose, "v", false, "") }, &list); err != nil {
		return err
	}
	if a.json {
		a.print(list)
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintln(a.stdout, "No events of this member have reached the hub yet, so nothing can be said.")
		return nil
	}
	for _, s := range list {
		state := "well"
		switch {
		case s.Silent:
			state = "SILENT"
		case len(s.Gone) > 0:
			state = "fields came before and come no more: " + strings.Join(s.Gone, ", ")
		case len(s.Quiet) > 0:
			state = "SILENT from " + strings.Join(s.Quiet, ", ")
		}
		parsed := ""
		if s.Parsed > 0 {
			parsed = fmt.Sprintf("; of the lines that its collector receives, %.1f in a hundred are understood", 100*s.Parsed)
		}
		fmt.Fprintf(a.stdout, "\n%s at %s: %s. %d events at the hub, the last on %s; %.0f in a hundred of a kind that rules know%s.\n  %d rules can fire on it, %d of its kind cannot, %d look at other kinds of sources.\n",
			s.Product, s.Name, state, s.Events, s.Last.Local().Format("2 Jan 2006 15:04"), 100*s.Mapped, parsed, len(s.Rules), len(s.Cannot), s.OtherKind)
		for i, c := range s.Cannot {
			if !verbose && i == fewChanges {
				fmt.Fprintf(a.stdout, "  … and %d more; -v names all\n", len(s.Cannot)-i)
				break
			}
			fmt.Fprintf(a.stdout, "  cannot: %s: %s\n", c.Rule, c.Why)
		}
	}
	return nil
}

// rulesCoverage shows the techniques of ATT&CK that the rules could see at a member.
func (a *admin) rulesCoverage(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	var list []health.Technique
	if err := a.ofMember(ctx, "coverage", "/admin/rules/coverage", common, args, func(*flag.FlagSet) {}, &list); err != nil {
		return err
	}
	return a.table(list, "TECHNIQUE\tRULES THAT CAN FIRE\tBLIND\tSUCH AS", func(w io.Writer) {
		for _, t := range list {
			example := ""
			if len(t.Rules) > 0 {
				example = t.Rules[0]
			}
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", t.ID, len(t.Rules), t.Blind, example)
		}
	})
}
