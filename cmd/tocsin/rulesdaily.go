package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"tocsin/internal/access"
	"tocsin/internal/app"
)

// rulesDaily shows when each member's line, and each collector's whole way, was tested last, and with --now tests it.
func (a *admin) rulesDaily(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	memberName, now := "", false
	if _, err := a.flags("daily", args, func(f *flag.FlagSet) {
		common(f)
		f.StringVar(&memberName, "member", "", "")
		f.BoolVar(&now, "now", false, "")
	}); err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		const path, why = "/admin/rules/daily", "it is the one that tests"
		only := uint32(0)
		query := ""
		if memberName != "" {
			m, err := o.Members.FindOrganisation(ctx, access.System("admin"), memberName)
			if err != nil {
				return err
			}
			only, query = uint32(m.ID), "?tenant="+strconv.FormatUint(uint64(m.ID), 10)
		}
		if now {
			body, _, err := askHub(ctx, o, http.MethodPost, path+query, nil, why)
			if err != nil {
				return err
			}
			var sent struct {
				Sent  []uint32 `json:"sent"`
				Asked []string `json:"asked"`
			}
			if err := json.Unmarshal(body, &sent); err != nil {
				return fmt.Errorf("reading the hub's answer: %w", err)
			}
			if a.json {
				a.print(sent)
				return nil
			}
			if len(sent.Sent) == 0 {
				fmt.Fprintln(a.stdout, "No member has a collector that is live, so there is nothing to test.")
				return nil
			}
			fmt.Fprintf(a.stdout, "A test is on its way for %d member(s), mostly there within a second. %d collector(s) are asked for one: each that is connected, and not too old to know the test, sends it when it asks next, within about a minute. `tocsin rules daily` shows what arrived.\n", len(sent.Sent), len(sent.Asked))
			return nil
		}
		body, _, err := askHub(ctx, o, http.MethodGet, path, nil, why)
		if err != nil {
			return err
		}
		var list []app.DailyTest
		show := []app.DailyTest{}
		if err := json.Unmarshal(body, &list); err != nil {
			return fmt.Errorf("reading the hub's answer: %w", err)
		}
		for _, t := range list {
			if only == 0 || uint32(t.Tenant) == only {
				show = append(show, t)
			}
		}
		return a.table(show, "MEMBER\tFROM\tSENT\tARRIVED AFTER\tSTATE", func(w io.Writer) {
			for _, t := range show {
				after, state := "-", "on its way"
				switch {
				case !t.Arrived.IsZero():
					after, state = fmt.Sprintf("%d ms", t.Millis), "well"
					if t.Missed {
						state = "late: an alert told that it was missing"
					}
				case t.Missed:
					state = "MISSING: an alert was raised"
				}
				from := "the centre"
				if t.Collector != "" {
					from = "collector " + t.Name
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.Member, from, t.Sent.Local().Format("2 Jan 2006 15:04:05"), after, state)
			}
		})
	})
}
