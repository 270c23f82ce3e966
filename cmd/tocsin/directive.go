package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/app"
	"tocsin/internal/directive"
	"tocsin/internal/keys"
)

// Packs and questions are signed here with keys that are not on the hub: --offline names the medium they are on.

// words is an option that may be given again.
type words []string

func (w *words) String() string     { return strings.Join(*w, ",") }
func (w *words) Set(s string) error { *w = append(*w, s); return nil }

// directiveOptions say with which keys a directive is signed, for which collector it is (one, or all), and how long it may be handed out.
type directiveOptions struct {
	offline, collector string
	days               int
}

func (d *directiveOptions) define(f *flag.FlagSet, days int) {
	f.StringVar(&d.offline, "offline", "", "")
	f.StringVar(&d.collector, "collector", keys.Everybody, "")
	f.IntVar(&d.days, "days", days, "")
}

// issue signs content and puts it where the hub hands it out.
func (a *admin) issue(ctx context.Context, o *app.Office, d directiveOptions, kind string, content []byte) (keys.Directive, error) {
	if d.offline == "" {
		return keys.Directive{}, fmt.Errorf("%w: --offline FOLDER is needed: the medium with the scheme's offline keys. They must not be on the hub", errUsage)
	}
	if d.days < 1 || d.days > 1000 {
		return keys.Directive{}, fmt.Errorf("%w: --days is 1 to 1000", errUsage)
	}
	if d.collector != keys.Everybody {
		if _, err := o.Members.Collector(ctx, access.System("admin"), d.collector); err != nil {
			return keys.Directive{}, fmt.Errorf("%w: --collector %.60q: there is no such collector; tocsin admin collector list names them", errUsage, d.collector)
		}
	}
	p, _ := directive.Purpose(kind)
	signer, err := keys.OfflineSigner(d.offline, o.Trust, p)
	if err != nil {
		return keys.Directive{}, err
	}
	now := time.Now()
	env, err := keys.SignDirective(signer, keys.Directive{Type: kind, Audience: d.collector, Version: uint64(now.UnixMicro()), Issued: now, Expires: now.AddDate(0, 0, d.days), Content: content})
	if err != nil {
		return keys.Directive{}, err
	}
	return app.AddDirective(o.Dir, o.Trust, kind, env)
}

func (a *admin) packPublish(ctx context.Context, o *app.Office, args []string) error {
	var d directiveOptions
	names, err := a.flags("pack publish", args, func(f *flag.FlagSet) { d.define(f, 365) }, "rules|parsers", "FOLDER")
	if err != nil {
		return err
	}
	kind := map[string]string{"rules": directive.Rules, "parsers": directive.Parsers}[names[0]]
	if kind == "" {
		return fmt.Errorf("%w: pack publish wants rules or parsers, then the folder with the files", errUsage)
	}
	content, err := directive.Pack(os.DirFS(names[1]))
	if err != nil {
		return err
	}
	got, err := a.issue(ctx, o, d, kind, content)
	if err != nil {
		return err
	}
	a.say(map[string]any{"type": got.Type, "version": got.Version, "bytes": len(content), "expires": got.Expires},
		"%s %d is published (%d bytes), for %s until %s. Collectors fetch it within about a minute, check it, and go on with the one before if it is not good.\n",
		got.Type, got.Version, len(content), forWhom(got.Audience), got.Expires.Local().Format("2 January 2006"))
	return nil
}

func forWhom(audience string) string {
	if audience == keys.Everybody {
		return "all collectors"
	}
	return "collector " + audience
}

func (a *admin) lookBackAsk(ctx context.Context, o *app.Office, args []string) error {
	var d directiveOptions
	var indicators words
	var from, to, rule string
	q := directive.Question{ID: directive.NewID(), Asked: time.Now().UTC()}
	if _, err := a.flags("look-back ask", args, func(f *flag.FlagSet) {
		d.define(f, 7)
		f.Var(&indicators, "indicator", "")
		f.StringVar(&rule, "rule", "", "")
		f.StringVar(&from, "from", "", "")
		f.StringVar(&to, "to", "", "")
		f.StringVar(&q.By, "by", "", "")
		f.StringVar(&q.Purpose, "purpose", "", "")
		f.StringVar(&q.Authority.Regime, "regime", "", "")
		f.StringVar(&q.Authority.Basis, "basis", "", "")
		f.StringVar(&q.Authority.Reference, "reference", "", "")
		f.StringVar(&q.Authority.Approver, "approver", "", "")
		f.IntVar(&q.MaxHits, "max", 0, "")
	}); err != nil {
		return err
	}
	q.Indicators = indicators
	if rule != "" {
		b, err := os.ReadFile(rule)
		if err != nil {
			return err
		}
		q.Rule = string(b)
	}
	var err1, err2 error
	q.From, err1 = when(from, q.Asked.AddDate(0, 0, -30))
	q.To, err2 = when(to, q.Asked)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	content, err := q.Encode()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	got, err := a.issue(ctx, o, d, directive.LookBack, content)
	if err != nil {
		return err
	}
	a.say(map[string]any{"id": q.ID, "version": got.Version, "expires": got.Expires},
		"Question %s is asked of %s until %s.\nEach member sees it as it stands, with its purpose, and answers under its own consent; only hits leave, as events with tocsin.left.reason look_back and tocsin.question.id %s.\n",
		q.ID, forWhom(got.Audience), got.Expires.Local().Format("2 January 2006"), q.ID)
	return nil
}

func (a *admin) lookBackList(_ context.Context, o *app.Office, args []string) error {
	if _, err := a.flags("look-back list", args, func(*flag.FlagSet) {}); err != nil {
		return err
	}
	list, err := app.ListDirectives(o.Dir, o.Trust, time.Now())
	if err != nil {
		return err
	}
	var qs []*directive.Question
	var ds []app.Directive
	for _, d := range list {
		if d.Type != directive.LookBack {
			continue
		}
		if q, err := directive.ParseQuestion(d.Content); err == nil {
			qs, ds = append(qs, q), append(ds, d)
		}
	}
	return a.table(qs, "ID\tASKED\tOF\tUNTIL\tBY\tREFERENCE\tPURPOSE", func(w io.Writer) {
		for i, q := range qs {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", q.ID, q.Asked.Local().Format("2 Jan 15:04"), forWhom(ds[i].Audience), ds[i].Expires.Local().Format("2 Jan"), q.By, q.Authority.Reference, q.Purpose)
		}
	})
}

// when reads a time: RFC 3339, a date, or empty for the default.
func when(s string, otherwise time.Time) (time.Time, error) {
	if s == "" {
		return otherwise, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%w: %q is not a time: write 2026-11-22 or 2026-11-22T14:00:00Z", errUsage, s)
}
