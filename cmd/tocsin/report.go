package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", app.AdminSocket(o.Dir))
	}}}
	defer client.CloseIdleConnections()
	q := url.Values{"member": {fmt.Sprint(m.ID)}, "week": {week}, "format": {format}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hub/admin/report?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			return fmt.Errorf("no hub runs on %s: start `tocsin hub` first; the report's figures are in its event store", o.Dir)
		}
		return fmt.Errorf("asking the hub for the report: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("reading the report from the hub: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var problem struct{ Title string }
		if json.Unmarshal(body, &problem) != nil || problem.Title == "" {
			problem.Title = res.Status
		}
		return errors.New(problem.Title)
	}
	if err := os.WriteFile(out, body, 0o600); err != nil {
		return err
	}
	week = res.Header.Get("Tocsin-Week")
	a.say(map[string]any{"file": out, "tenant": m.ID, "week": week, "bytes": len(body)}, "The report of %s for week %s is in %s.\n", m.Name, week, out)
	return nil
}
