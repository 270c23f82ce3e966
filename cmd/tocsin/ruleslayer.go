package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/app"
	"tocsin/internal/detect/layers"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/layer"
)

// layerFlags are the options of everything that makes a layer.
func (a *admin) layerFlags(common func(*flag.FlagSet), l *layer.Layer, memberName, until *string) func(*flag.FlagSet) {
	return func(f *flag.FlagSet) {
		common(f)
		f.StringVar(memberName, "member", "", "")
		f.StringVar(&l.Region, "region", "", "")
		f.StringVar(&l.Reason, "reason", "", "")
		f.StringVar(&l.Owner, "owner", "", "")
		f.StringVar(until, "until", "", "")
	}
}

// addLayer makes a layer and says what it does.
func (a *admin) addLayer(ctx context.Context, l layer.Layer, memberName, until string) error {
	switch {
	case memberName != "" && l.Region != "":
		return fmt.Errorf("%w: give --member or --region, not both; neither means the whole scheme", errUsage)
	case memberName != "":
		l.Scope = layer.Member
	case l.Region != "":
		l.Scope = layer.Region
	default:
		l.Scope = layer.Scheme
	}
	if l.Reason == "" || l.Owner == "" {
		return fmt.Errorf("%w: give --reason (why) and --owner (who answers for it): somebody will ask", errUsage)
	}
	if until != "" {
		end, err := untilTime(until, time.Now())
		if err != nil {
			return err
		}
		l.Expires = end.UnixNano()
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		if memberName != "" {
			m, err := o.Members.FindOrganisation(ctx, access.System("admin"), memberName)
			if err != nil {
				return err
			}
			l.Tenant = m.ID
		}
		cat, err := app.LoadRules(o.Dir)
		if err != nil {
			return err
		}
		known := app.Known{Catalogue: cat}
		l, err := o.Layers.Add(ctx, app.Operator.UserID, l, known)
		if err != nil {
			return err
		}
		a.say(l, "Layer %d: %s. A running hub follows within seconds; `tocsin rules layer end %d` ends it.\n%s", l.ID, l.Sentence(), l.ID, onSites(&l, known))
		return nil
	})
}

// onSites says what a layer of a rule that runs on sites needs.
func onSites(l *layer.Layer, known app.Known) string {
	if !layers.OnSite(l, known) {
		return ""
	}
	what := "the hub alone applies it, to what the sites report"
	if f, ok := known.Find(l.Rule); ok && !f.AtHub && f.Silent {
		what = "it does nothing: only the sites count this rule"
	}
	return "This rule runs on the members' sites. `tocsin rules layer publish --offline FOLDER` takes the layer there, signed with the key for packs; until then " + what + ". The hub has no such key, so that nobody who breaks into it can blind the sites.\n"
}

// layerPublish hands the layers of on-site rules to the sites.
func (a *admin) layerPublish(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	offline, days := "", 365
	if _, err := a.flags("layer publish", args, func(f *flag.FlagSet) {
		common(f)
		f.StringVar(&offline, "offline", "", "")
		f.IntVar(&days, "days", days, "")
	}); err != nil {
		return err
	}
	if offline == "" {
		return fmt.Errorf("%w: --offline FOLDER is needed: the medium with the scheme's offline keys. They must not be on the hub", errUsage)
	}
	if days < 1 || days > 1000 {
		return fmt.Errorf("%w: --days is 1 to 1000", errUsage)
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		cat, err := app.LoadRules(o.Dir)
		if err != nil {
			return err
		}
		signer, err := keys.OfflineSigner(offline, o.Trust, keys.Packs)
		if err != nil {
			return err
		}
		got, err := o.PublishChanges(ctx, app.Known{Catalogue: cat}, signer, time.Now(), days)
		if err != nil {
			return err
		}
		a.say(got, "Published: %d changes of on-site rules for every collector; collectors with more of their own: %d. They fetch them within about a minute, until %s, and show them to their members.\n", got.Everybody, got.Collectors, got.Expires.Local().Format("2 January 2006"))
		return nil
	})
}

// untilTime reads an end: a date, which means the end of that day, or a number of days such as 30d.
func untilTime(s string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		if _, err := fmt.Sscanf(days, "%d", &n); err == nil && n > 0 && n <= 3660 && fmt.Sprint(n) == days {
			return now.AddDate(0, 0, n), nil
		}
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	if err != nil {
		return t, fmt.Errorf("%w: --until wants a date such as 2027-03-31, or days such as 30d", errUsage)
	}
	return t.AddDate(0, 0, 1), nil
}

func (a *admin) rulesExcept(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	l := layer.Layer{Kind: layer.Except}
	var name, until string
	words, err := a.flags("except", args, a.layerFlags(common, &l, &name, &until), "RULE", "FIELD=VALUE")
	if err != nil {
		return err
	}
	l.Rule = words[0]
	field, value, ok := strings.Cut(words[1], "=")
	if !ok {
		return fmt.Errorf("%w: %q: want FIELD=VALUE, such as source.ip=192.0.2.7 or source.ip=192.0.2.0/24", errUsage, words[1])
	}
	l.Field, l.Value = strings.TrimSpace(field), value
	if until == "" {
		return fmt.Errorf("%w: an exception needs --until, a date or days such as 90d: what nobody looks at again hides attacks", errUsage)
	}
	return a.addLayer(ctx, l, name, until)
}

func (a *admin) layerOff(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	l := layer.Layer{Kind: layer.Off}
	var name, until string
	words, err := a.flags("layer off", args, a.layerFlags(common, &l, &name, &until), "RULE")
	if err != nil {
		return err
	}
	l.Rule = words[0]
	return a.addLayer(ctx, l, name, until)
}

func (a *admin) layerLevel(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	l := layer.Layer{Kind: layer.Level}
	var name, until string
	words, err := a.flags("layer level", args, a.layerFlags(common, &l, &name, &until), "RULE", "LEVEL")
	if err != nil {
		return err
	}
	l.Rule, l.Level = words[0], words[1]
	return a.addLayer(ctx, l, name, until)
}

func (a *admin) layerList(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	all := false
	if _, err := a.flags("layer list", args, func(f *flag.FlagSet) { common(f); f.BoolVar(&all, "all", false, "") }); err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		list, err := o.Layers.List(ctx, all)
		if err != nil {
			return err
		}
		if len(list) == 0 && !a.json {
			fmt.Fprintln(a.stdout, "No rule is switched off or changed, and there is no exception: all rules work as they are written.")
			return nil
		}
		names, err := memberNames(ctx, o)
		if err != nil {
			return err
		}
		cat, err := app.LoadRules(o.Dir)
		if err != nil {
			return err
		}
		now := time.Now()
		known := app.Known{Catalogue: cat}
		un, err := o.UnpublishedChanges(ctx, known, now)
		if err != nil {
			return err
		}
		type row struct {
			layer.Layer
			Sites string `json:"sites,omitempty"`
		}
		rows := make([]row, len(list))
		for i, l := range list {
			rows[i].Layer = l
			switch {
			case !layers.OnSite(&l, known) || l.State(now) != "open" && !slices.Contains(un.Ended, l.ID):
			case slices.Contains(un.Ended, l.ID):
				rows[i].Sites = "still there"
			case un.Unfit[l.ID] != "":
				rows[i].Sites = "cannot: " + un.Unfit[l.ID]
			case un.Missing[l.ID] > 0:
				rows[i].Sites = "not yet"
			default:
				rows[i].Sites = "published"
			}
		}
		if !a.json && len(un.Missing)+len(un.Ended) > 0 {
			defer fmt.Fprintf(a.stdout, "\n%d layers of rules that run on sites are not at all of them yet, %d that are over still are: `tocsin rules layer publish --offline FOLDER` brings the sites up to date.\n", len(un.Missing), len(un.Ended))
		}
		return a.table(rows, "ID\tSTATE\tRULE\tDOES\tFOR\tSITES\tUNTIL\tKEPT BACK\tLAST\tOWNER\tREASON", func(w io.Writer) {
			when := func(ns int64, none string) string {
				if ns == 0 {
					return none
				}
				return time.Unix(0, ns).Local().Format("2 Jan 2006 15:04")
			}
			for _, l := range rows {
				does := map[string]string{layer.Off: "off", layer.Except: "except " + l.Field + "=" + l.Value, layer.Level: "level " + l.Level}[l.Kind]
				whom := map[string]string{layer.Scheme: "all", layer.Region: "region " + l.Region, layer.Member: names[l.Tenant]}[l.Scope]
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.ID, l.State(now), l.Title, does, whom, cmp.Or(l.Sites, "-"), when(l.Expires, "no end"), l.Hits, when(l.Last, "never"), l.Owner, l.Reason)
			}
		})
	})
}

func (a *admin) layerEnd(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	reason := ""
	words, err := a.flags("layer end", args, func(f *flag.FlagSet) { common(f); f.StringVar(&reason, "reason", "", "") }, "ID")
	if err != nil {
		return err
	}
	var id int64
	if _, err := fmt.Sscanf(words[0], "%d", &id); err != nil || fmt.Sprint(id) != words[0] {
		return fmt.Errorf("%w: %q is no number of a layer; `tocsin rules layer list` shows them", errUsage, words[0])
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		l, err := o.Layers.End(ctx, app.Operator.UserID, id, reason)
		if err != nil {
			return err
		}
		sites := ""
		if cat, err := app.LoadRules(o.Dir); err == nil && layers.OnSite(&l, app.Known{Catalogue: cat}) {
			sites = "This rule runs on the members' sites: where the layer was published, it goes on until `tocsin rules layer publish --offline FOLDER`.\n"
		}
		a.say(l, "Layer %d is ended: %q works as it is written again. It had kept back or changed %d.\n%s", l.ID, l.Title, l.Hits, sites)
		return nil
	})
}

func (a *admin) rulesSuppressed(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	var id int64
	limit := 100
	if _, err := a.flags("suppressed", args, func(f *flag.FlagSet) {
		common(f)
		f.Int64Var(&id, "layer", 0, "")
		f.IntVar(&limit, "limit", limit, "")
	}); err != nil {
		return err
	}
	if limit < 1 || limit > 100_000 {
		return fmt.Errorf("%w: --limit must be 1 to 100000", errUsage)
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		list, err := o.Layers.Lines(ctx, id, limit)
		if err != nil {
			return err
		}
		if len(list) == 0 && !a.json {
			fmt.Fprintln(a.stdout, "Nothing was kept back.")
			return nil
		}
		names, err := memberNames(ctx, o)
		if err != nil {
			return err
		}
		return a.table(list, "WHEN\tLAYER\tMEMBER\tLEVEL\tRULE\tABOUT\tEVENTS\tWHY IT FIRED", func(w io.Writer) {
			for _, l := range list {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t%s\n", time.Unix(0, l.At).Local().Format("2 Jan 15:04:05"), l.Layer, names[l.Tenant], l.Level, l.Title, l.Entity, l.Count, l.Reason)
			}
		})
	})
}

// memberNames are what people call the members.
func memberNames(ctx context.Context, o *app.Office) (map[event.TenantID]string, error) {
	list, err := o.Members.Organisations(ctx, access.System("admin"))
	if err != nil {
		return nil, err
	}
	out := map[event.TenantID]string{access.Centre: "several members"}
	for _, m := range list {
		out[m.ID] = m.Name
	}
	return out, nil
}
