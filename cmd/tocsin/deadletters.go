package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"

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
	return a.table(list, "PUT ASIDE\tMEMBER\tCOLLECTOR\tBATCH\tEVENT\tEVENTS\tREASON", func(w io.Writer) {
		for _, d := range list {
			place := "all"
			if d.Place >= 0 {
				place = strconv.Itoa(d.Place)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%.16s\t%s\t%d\t%s\n", d.At.Local().Format("2 Jan 15:04:05"), d.Tenant, d.Collector, d.Batch, place, d.Events, d.Reason)
		}
	})
}
