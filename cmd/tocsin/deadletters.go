package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"tocsin/internal/app"
)

// deadLetterList shows what the worker put aside.
func (a *admin) deadLetterList(ctx context.Context, o *app.Office, args []string) error {
	limit := 100
	if _, err := a.flags("dead-letters list", args, func(f *flag.FlagSet) { f.IntVar(&limit, "limit", limit, "how many, the newest first") }); err != nil {
		return err
	}
	if limit < 1 || limit > 100_000 {
		return fmt.Errorf("%w: --limit must be 1 to 100000", errUsage)
	}
	list, err := o.DeadLetters(ctx, limit)
	if err != nil {
		return err
	}
	if len(list) == 0 && !a.json {
		fmt.Fprintln(a.stdout, "Nothing lies aside: all that was received could be processed.")
		return nil
	}
	return a.letters(list)
}

func (a *admin) letters(list []app.DeadLetter) error {
	return a.table(list, "NAME\tPUT ASIDE\tMEMBER\tCOLLECTOR\tEVENTS\tTRIES\tREASON", func(w io.Writer) {
		for _, d := range list {
			tries := strconv.Itoa(d.Tries)
			if d.Trying != "" {
				tries += ", one under way"
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%s\n", d.ID, d.At.Local().Format("2 Jan 15:04:05"), d.Tenant, d.Collector, d.Events, tries, d.Reason)
		}
	})
}

// deadLetterRetry has what was put aside tried again, and waits to see what becomes of it.
func (a *admin) deadLetterRetry(ctx context.Context, o *app.Office, args []string) error {
	all, wait := false, time.Minute
	define := func(f *flag.FlagSet) {
		f.BoolVar(&all, "all", false, "")
		f.DurationVar(&wait, "wait", wait, "")
	}
	names, err := a.anyWords("dead-letters retry", args, define)
	if err != nil {
		return err
	}
	switch {
	case all == (len(names) > 0):
		return fmt.Errorf("%w: dead-letters retry wants --all, or the names of letters as `tocsin admin dead-letters list` shows them", errUsage)
	case wait < 0 || wait > time.Hour:
		return fmt.Errorf("%w: --wait must be 0 to 1h", errUsage)
	}
	body, _, err := askHub(ctx, o, http.MethodPost, "/admin/dead-letters/retry", struct{ Names []string }{names}, "it is the one that tries again")
	if err != nil {
		return err
	}
	var r app.Retried
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("reading the hub's answer: %w", err)
	}
	waiting, err := a.untilTried(ctx, o, r.Asked, wait)
	if err != nil {
		return err
	}
	return a.tried(ctx, o, r, waiting)
}

// untilTried waits until none of the tries is under way, and gives the letters whose try still is.
func (a *admin) untilTried(ctx context.Context, o *app.Office, asked []app.DeadLetter, wait time.Duration) ([]app.DeadLetter, error) {
	until := time.Now().Add(wait)
	for {
		open, err := o.Trying(ctx)
		if err != nil {
			return nil, err
		}
		open = slices.DeleteFunc(open, func(d app.DeadLetter) bool {
			return !slices.ContainsFunc(asked, func(q app.DeadLetter) bool { return q.Trying == d.Trying })
		})
		if len(open) == 0 || time.Now().After(until) {
			return open, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond): // between two looks
		}
	}
}

// tried says what became of the letters. Some that stay are an error.
func (a *admin) tried(ctx context.Context, o *app.Office, r app.Retried, waiting []app.DeadLetter) error {
	list, err := o.DeadLetters(ctx, 100_000)
	if err != nil {
		return err
	}
	var done, failed []app.DeadLetter
	events := 0
	for _, q := range r.Asked {
		i := slices.IndexFunc(list, func(d app.DeadLetter) bool { return d.ID == q.ID && d.At.Equal(q.At) })
		switch {
		case i < 0:
			done = append(done, q)
			events += q.Events
		case list[i].Trying == "":
			failed = append(failed, list[i])
			events += q.Events - list[i].Events // some of it
		}
	}
	if a.json {
		a.print(map[string]any{"processed": orNone(done), "failed": orNone(failed), "waiting": orNone(waiting), "never": orNone(r.Never)})
	} else {
		if len(r.Asked)+len(r.Never) == 0 {
			fmt.Fprintln(a.stdout, "Nothing lies aside: there is nothing to try again.")
			return nil
		}
		fmt.Fprintf(a.stdout, "%s tried again: %d processed, with %s stored; %d failed again; %d still under way.\n", count(len(r.Asked), "letter"), len(done), count(events, "event"), len(failed), len(waiting))
		for _, d := range r.Never {
			fmt.Fprintf(a.stdout, "%s cannot be tried again: %s.\n", d.ID, d.Never)
		}
		if len(failed) > 0 {
			fmt.Fprintln(a.stdout)
			if err := a.letters(failed); err != nil {
				return err
			}
		}
	}
	switch {
	case len(failed) > 0:
		return errors.New("some failed again: mend what the reason names, then try again")
	case len(waiting) > 0:
		return errors.New("some are still under way: the worker has not come to them yet; look again with `tocsin admin dead-letters list`")
	case len(r.Never) > 0:
		return errors.New("some cannot be tried again")
	}
	return nil
}

// orNone makes an empty list of none, for programs.
func orNone(list []app.DeadLetter) []app.DeadLetter {
	if list == nil {
		return []app.DeadLetter{}
	}
	return list
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
