package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"tocsin/internal/app"
	"tocsin/internal/report"
)

// report writes one member's weekly report to a file. The running hub makes it: nobody else can ask the event store.
func (a *admin) report(ctx context.Context, o *app.Office, args []string) error {
	var name, week, out string
	if _, err := a.flags("report", args, func(f *flag.FlagSet) {
		f.StringVar(&name, "member", "", "")
		f.StringVar(&week, "week", "", "")
		f.StringVar(&out, "out", "", "")
	}); err != nil {
		return err
	}
	format := strings.TrimPrefix(strings.ToLower(filepath.Ext(out)), ".")
	if format != "pdf" && format != "html" {
		return fmt.Errorf("%w: report needs --out FILE.pdf or --out FILE.html", errUsage)
	}
	if week != "" {
		if _, err := report.ParseWeek(week); err != nil {
			return fmt.Errorf("%w: --week: %w", errUsage, err)
		}
	}
	m, err := a.find(ctx, o, name)
	if err != nil {
		return err
	}
	q := url.Values{"member": {fmt.Sprint(m.ID)}, "week": {week}, "format": {format}}
	body, header, err := askHub(ctx, o, http.MethodGet, "/admin/report?"+q.Encode(), nil, "the report's figures are in its event store")
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, body, 0o600); err != nil {
		return err
	}
	week = header.Get("Tocsin-Week")
	a.say(map[string]any{"file": out, "tenant": m.ID, "week": week, "bytes": len(body)}, "The report of %s for week %s is in %s.\n", m.Name, week, out)
	return nil
}
