package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"

	"tocsin/internal/app"
	"tocsin/internal/outbox"
)

// outboxStates are those that can be listed.
var outboxStates = []string{outbox.Dead, outbox.Waiting, outbox.Running, outbox.Done, "any"}

// outboxList shows mails and webhooks, of themselves those that could not be delivered.
func (a *admin) outboxList(ctx context.Context, o *app.Office, args []string) error {
	state, limit := outbox.Dead, 100
	if _, err := a.flags("outbox list", args, func(f *flag.FlagSet) {
		f.StringVar(&state, "state", state, "")
		f.IntVar(&limit, "limit", limit, "")
	}); err != nil {
		return err
	}
	switch {
	case !slices.Contains(outboxStates, state):
		return fmt.Errorf("%w: --state must be one of %v", errUsage, outboxStates)
	case limit < 1 || limit > 100_000:
		return fmt.Errorf("%w: --limit must be 1 to 100000", errUsage)
	}
	which := state
	if state == "any" {
		which = ""
	}
	list, err := o.Notices(ctx, which, limit)
	if err != nil {
		return err
	}
	if len(list) == 0 && !a.json {
		if state == outbox.Dead {
			fmt.Fprintln(a.stdout, "No mail and no webhook is given up: all were delivered, or are still tried.")
		} else {
			fmt.Fprintln(a.stdout, "There are none.")
		}
		return nil
	}
	if list == nil {
		list = []app.Notice{}
	}
	return a.table(list, "ID\tMADE\tMEMBER\tWHAT\tSTATE\tATTEMPTS\tLAST ERROR", func(w io.Writer) {
		for _, n := range list {
			fmt.Fprintf(w, "%d\t%s\t%d\t%s\t%s\t%d\t%s\n", n.ID, n.Made.Local().Format("2 Jan 15:04:05"), n.Tenant, n.Key, n.State, n.Attempts, n.Error)
		}
	})
}

// outboxRetry has mails and webhooks that were given up tried again.
func (a *admin) outboxRetry(ctx context.Context, o *app.Office, args []string) error {
	all := false
	names, err := a.anyWords("outbox retry", args, func(f *flag.FlagSet) { f.BoolVar(&all, "all", false, "") })
	if err != nil {
		return err
	}
	if all == (len(names) > 0) {
		return fmt.Errorf("%w: outbox retry wants --all, or the numbers that `tocsin admin outbox list` shows", errUsage)
	}
	ids := []int64{}
	for _, name := range names {
		id, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %q is not a number of `tocsin admin outbox list`", errUsage, name)
		}
		ids = append(ids, id)
	}
	if all {
		list, err := o.Notices(ctx, outbox.Dead, 100_000)
		if err != nil {
			return err
		}
		for _, n := range list {
			ids = append(ids, n.ID)
		}
	}
	if err := o.RetryNotices(ctx, ids); err != nil {
		return fmt.Errorf("%w; `tocsin admin outbox list` shows those that can be tried again", err)
	}
	a.say(map[string]any{"retried": ids}, "%s will be tried again, within seconds when the hub runs.\n", count(len(ids), "notice"))
	return nil
}
