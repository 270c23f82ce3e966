package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"tocsin/internal/app"
	"tocsin/internal/rematch"
)

// rulesRematch asks the stored history about an indicator or a rule.
func (a *admin) rulesRematch(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	ruleFile, reason, days := "", "", 90
	words, err := a.anyWords("rematch", args, func(f *flag.FlagSet) {
		common(f)
		f.StringVar(&ruleFile, "rule", "", "")
		f.StringVar(&reason, "reason", "", "")
		f.IntVar(&days, "days", days, "")
	})
	if err != nil {
		return err
	}
	what, rule := "", ""
	switch {
	case len(words) > 1 || (len(words) == 1) == (ruleFile != ""):
		return fmt.Errorf("%w: rematch wants one address, network or name, or --rule FILE", errUsage)
	case ruleFile != "":
		b, err := os.ReadFile(ruleFile)
		if err != nil {
			return err
		}
		rule = string(b)
	default:
		what = words[0]
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		j, err := o.Rematch.Add(ctx, app.Operator.UserID, what, rule, reason, days)
		if err != nil {
			return err
		}
		a.say(j, "Question %d: %s over the last %d days. The running hub works it off, the newest day first; `tocsin rules rematch list` shows how far it is.\n", j.ID, j.What, days)
		return nil
	})
}

func (a *admin) rematchList(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	limit := 20
	if _, err := a.flags("rematch list", args, func(f *flag.FlagSet) { common(f); f.IntVar(&limit, "limit", limit, "") }); err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		list, err := o.Rematch.List(ctx, limit)
		if err != nil {
			return err
		}
		if len(list) == 0 && !a.json {
			fmt.Fprintln(a.stdout, "The stored history was not asked yet.")
			return nil
		}
		names, err := memberNames(ctx, o)
		if err != nil {
			return err
		}
		return a.table(list, "ID\tSTATE\tDONE\tWHAT\tLOOKED AT\tHITS\tMEMBERS\tREASON", func(w io.Writer) {
			for _, j := range list {
				fmt.Fprintf(w, "%d\t%s\t%.0f %%\t%s\t%d\t%d\t%d\t%s\n", j.ID, j.State, 100*j.Progress(), j.What, j.Looked, j.Hits, len(j.Found), j.Reason)
				if j.Problem != "" {
					fmt.Fprintf(w, "\t\t\t%s\n", j.Problem)
				}
				for _, t := range slices.Sorted(maps.Keys(j.Found)) {
					f := j.Found[t]
					fmt.Fprintf(w, "\t\t\t  %s: %d, first %s, last %s\n", names[t], f.Hits, time.Unix(0, f.First).Local().Format("2 Jan 2006 15:04"), time.Unix(0, f.Last).Local().Format("2 Jan 2006 15:04"))
				}
			}
		})
	})
}

func (a *admin) rematchStop(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	words, err := a.flags("rematch stop", args, common, "ID")
	if err != nil {
		return err
	}
	var id int64
	if _, err := fmt.Sscanf(words[0], "%d", &id); err != nil || fmt.Sprint(id) != words[0] {
		return fmt.Errorf("%w: %q is no number of a question", rematch.ErrInvalid, words[0])
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		if err := o.Rematch.Stop(ctx, app.Operator.UserID, id); err != nil {
			return err
		}
		a.say(map[string]any{"stopped": id}, "Question %d is stopped; what it found so far stays.\n", id)
		return nil
	})
}
