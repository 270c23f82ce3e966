package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/detect/layers"
	"tocsin/internal/directive"
	"tocsin/internal/keys"
	"tocsin/internal/layer"
	"tocsin/internal/member"
)

// Layers of rules that run on sites are published to those they are for: for the scheme to all, a member's and a region's to its own collectors, what only the
// hub runs to nobody. What is not published, or over and still there, is said.
func TestPublishChanges(t *testing.T) {
	h := part(t, keysOf, recordsOf)
	ctx, o := t.Context(), h.office
	cat, err := LoadRules(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	known, now := Known{cat}, time.Now()
	const one, two, gone = "0193a5b0-0000-7000-8000-000000000001", "0193a5b0-0000-7000-8000-000000000002", "0193a5b0-0000-7000-8000-000000000003"
	for i, x := range []struct{ id, area, state string }{{one, "North", member.Live}, {two, "South", member.Quarantined}, {gone, "North", member.Revoked}} {
		org, err := o.Members.AddOrganisation(ctx, "test", member.Organisation{Name: fmt.Sprint("School ", i), Area: x.area})
		if err != nil {
			t.Fatal(err)
		}
		site, err := o.Members.AddSite(ctx, access.System("test"), "test", org.ID, "Main")
		if err != nil {
			t.Fatal(err)
		}
		if err := o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			_, err := db.Bound(tx).ExecContext(ctx, "INSERT INTO collectors (id, tenant, site, name, state, batch_key, words, registered_ns) VALUES (?, ?, ?, 'c', ?, ?, 'w', 1)", x.id, org.ID, site.ID, x.state, []byte(x.id))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	add := func(l layer.Layer) int64 {
		t.Helper()
		l.Reason, l.Owner = "it is only a test", "IT support"
		if l.Kind == layer.Except {
			l.Expires = now.Add(time.Hour).UnixNano()
		}
		l, err := o.Layers.Add(ctx, "system:test", l, known)
		if err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	all := add(layer.Layer{Kind: layer.Off, Rule: "vpn_takeover", Scope: layer.Scheme})
	add(layer.Layer{Kind: layer.Off, Rule: "vpn_guessing", Scope: layer.Scheme}) // runs at the hub
	names := add(layer.Layer{Kind: layer.Except, Rule: "mail_success", Scope: layer.Member, Tenant: 1, Field: "user.name", Value: "probe"})
	north := add(layer.Layer{Kind: layer.Except, Rule: "baseline-beacon", Scope: layer.Region, Region: "north", Field: "source.ip", Value: "192.0.2.0/24"})
	signer, err := keys.OfflineSigner(offline(h.cfg), o.Trust, keys.Packs)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(at time.Time) PublishedChanges {
		t.Helper()
		got, err := o.PublishChanges(ctx, known, signer, at, 30)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// gets is what a collector is handed: the newest for it.
	gets := func(collector string) (ids []int64) {
		t.Helper()
		list, err := ListDirectives(o.Dir, o.Trust, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			if d.Type == directive.RuleChanges && (d.Audience == keys.Everybody || d.Audience == collector) {
				got, err := layers.Decode(d.Content)
				if err != nil {
					t.Fatal(err)
				}
				ids = nil
				for _, x := range got {
					ids = append(ids, x.ID)
				}
			}
		}
		return ids
	}
	state := func() Unpublished {
		t.Helper()
		u, err := o.UnpublishedChanges(ctx, known, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := state(); len(u.Missing) != 3 || u.Missing[all] != 2 || u.Missing[names] != 1 || u.Missing[north] != 1 || len(u.Ended) != 0 {
		t.Errorf("before: %+v", u)
	}
	if got := publish(now); got.Everybody != 1 || got.Collectors != 1 {
		t.Errorf("%+v", got)
	}
	if a, b := gets(one), gets(two); !slices.Equal(a, []int64{all, names, north}) || !slices.Equal(b, []int64{all}) {
		t.Errorf("one gets %v, two %v", a, b)
	}
	if u := state(); len(u.Missing)+len(u.Ended) != 0 {
		t.Errorf("published: %+v", u)
	}
	// A member's layers end: what is said to all is newer and takes them back. The clock was put back meanwhile.
	for _, id := range []int64{names, north} {
		if _, err := o.Layers.End(ctx, "system:test", id, "over"); err != nil {
			t.Fatal(err)
		}
	}
	if u := state(); len(u.Missing) != 0 || !slices.Equal(u.Ended, []int64{names, north}) {
		t.Errorf("ended: %+v", u)
	}
	publish(now.Add(-time.Hour))
	if a, b := gets(one), gets(two); !slices.Equal(a, []int64{all}) || !slices.Equal(b, []int64{all}) {
		t.Errorf("one gets %v, two %v", a, b)
	}
	if u := state(); len(u.Missing)+len(u.Ended) != 0 {
		t.Errorf("published again: %+v", u)
	}
	if list, err := ListDirectives(o.Dir, o.Trust, time.Time{}); err != nil || len(list) != 1 {
		t.Errorf("%d files lie there, %v", len(list), err)
	}
	// It has expired. The sites keep what they took: a layer that ends now is still there, and who comes later has none.
	clear := func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(DirectiveDir(o.Dir)), os.Mkdir(DirectiveDir(o.Dir), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	clear()
	content, err := layers.Encode([]layers.Sited{{ID: all, Kind: layer.Off, Rule: "vpn_takeover"}})
	if err != nil {
		t.Fatal(err)
	}
	env, err := keys.SignDirective(signer, keys.Directive{Type: directive.RuleChanges, Audience: keys.Everybody, Version: 1, Issued: now.AddDate(0, 0, -2), Expires: now.AddDate(0, 0, -1), Content: content})
	if err := errors.Join(err, os.WriteFile(filepath.Join(DirectiveDir(o.Dir), "expired.json"), env, 0o600)); err != nil {
		t.Fatal(err)
	}
	if u := state(); u.Missing[all] != 2 || len(u.Ended) != 0 {
		t.Errorf("expired: %+v", u)
	}
	if _, err := o.Layers.End(ctx, "system:test", all, "over"); err != nil {
		t.Fatal(err)
	}
	if u := state(); len(u.Missing) != 0 || !slices.Equal(u.Ended, []int64{all}) {
		t.Errorf("expired and ended: %+v", u)
	}
	publish(now)
	if u := state(); len(u.Missing)+len(u.Ended) != 0 {
		t.Errorf("taken back: %+v", u)
	}
	if list, err := ListDirectives(o.Dir, o.Trust, time.Time{}); err != nil || len(list) != 1 {
		t.Errorf("the sweep left %d files, %v", len(list), err)
	}
	// Each publication is in the audit trail twice, and the first time before anything is handed out.
	clear()
	if err := os.MkdirAll(filepath.Join(DirectiveDir(o.Dir), fmt.Sprintf("%s-%020d-all.json", directive.RuleChanges, now.UnixMicro()), "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := o.PublishChanges(ctx, known, signer, now, 30); err == nil {
		t.Error("published where nothing can be written")
	}
	var begun, done int
	if err := db.Bound(o.DB.Read()).QueryRowContext(ctx, "SELECT SUM(action = 'publishing rule layers'), SUM(action = 'rule layers published') FROM audit").Scan(&begun, &done); err != nil || begun != 4 || done != 3 {
		t.Errorf("%d begun, %d done, %v", begun, done, err)
	}
}
