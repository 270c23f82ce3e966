package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/detect/layers"
	"tocsin/internal/directive"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/layer"
	"tocsin/internal/member"
)

// Changes of rules that run on sites. At the hub a layer works at once, on what the sites report. To the sites it comes as a directive that is signed with a key
// that the hub does not have: a hub that was broken into could otherwise blind every site at once, in silence. Each publication says all that holds, once for
// every collector and again, with a higher version, for those that have more: what is newest holds, so one that was cut off leaves nobody with less.

// siteMember is what decides about the changes that a collector gets.
type siteMember struct {
	collector string
	tenant    event.TenantID
	area      string
}

func (o *Office) siteMembers(ctx context.Context) ([]siteMember, error) {
	scope := access.System("admin")
	orgs, err := o.Members.Organisations(ctx, scope)
	if err != nil {
		return nil, err
	}
	areas := map[event.TenantID]string{}
	for _, m := range orgs {
		areas[m.ID] = m.Area
	}
	list, err := o.Members.Collectors(ctx, scope)
	if err != nil {
		return nil, err
	}
	var out []siteMember
	for _, c := range list {
		if c.State != member.Revoked {
			out = append(out, siteMember{c.ID, c.Tenant, areas[c.Tenant]})
		}
	}
	return out, nil
}

// wantedChanges are those in force: for everybody, and for each collector that has more, all of its.
func (o *Office) wantedChanges(ctx context.Context, rules layer.Rules, now time.Time) (everybody []layers.Sited, own map[string][]layers.Sited, err error) {
	open, err := o.Layers.List(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	members, err := o.siteMembers(ctx)
	if err != nil {
		return nil, nil, err
	}
	everybody, own = layers.ForSite(open, 0, "", rules, now), map[string][]layers.Sited{}
	if !slices.ContainsFunc(open, func(l layer.Layer) bool { return l.Scope != layer.Scheme && layers.OnSite(&l, rules) }) {
		return everybody, own, nil
	}
	for _, m := range members {
		if list := layers.ForSite(open, m.tenant, m.area, rules, now); len(list) > len(everybody) {
			own[m.collector] = list
		}
	}
	return everybody, own, nil
}

// handedChanges are the changes that the hub handed out: of each audience the newest, with its version. Those that have expired are among them: no further
// collector gets them, and those that took them keep them.
func (o *Office) handedChanges() (map[string][]layers.Sited, map[string]Directive, error) {
	list, err := ListDirectives(o.Dir, o.Trust, time.Time{})
	if err != nil {
		return nil, nil, err
	}
	out, from := map[string][]layers.Sited{}, map[string]Directive{}
	for _, d := range list { // in the order of versions
		if d.Type != directive.RuleChanges {
			continue
		}
		if got, err := layers.Decode(d.Content); err == nil {
			out[d.Audience], from[d.Audience] = got, d
		}
	}
	return out, from, nil
}

// PublishedChanges says what was handed out.
type PublishedChanges struct {
	Version    uint64    `json:"version,string"`
	Expires    time.Time `json:"expires"`
	Everybody  int       `json:"everybody"`  // changes that hold everywhere
	Collectors int       `json:"collectors"` // that have more
}

// PublishChanges hands out the changes of on-site rules that are in force, signed by signer, which is the key for packs.
func (o *Office) PublishChanges(ctx context.Context, rules layer.Rules, signer *keys.Signer, now time.Time, days int) (PublishedChanges, error) {
	out := PublishedChanges{Version: uint64(now.UnixMicro()), Expires: now.AddDate(0, 0, days)}
	everybody, own, err := o.wantedChanges(ctx, rules, now)
	if err != nil {
		return out, err
	}
	_, before, err := o.handedChanges()
	if err != nil {
		return out, err
	}
	for _, d := range before { // a clock that was put back must not stop anything
		out.Version = max(out.Version, d.Version+1)
	}
	// All are signed before the first is handed out, so that what cannot be written hands out nothing; and the audit trail has it before a site can.
	type issue struct {
		audience string
		envelope []byte
	}
	var issues []issue
	sign := func(audience string, version uint64, list []layers.Sited) error {
		content, err := layers.Encode(list)
		if err != nil {
			return err
		}
		env, err := keys.SignDirective(signer, keys.Directive{Type: directive.RuleChanges, Audience: audience, Version: version, Issued: now, Expires: out.Expires, Content: content})
		issues = append(issues, issue{audience, env})
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(own)) { // first, and higher: what holds for everybody must not take from them
		if err := sign(id, out.Version+1, own[id]); err != nil {
			return out, fmt.Errorf("for collector %s: %w", id, err)
		}
	}
	if err := sign(keys.Everybody, out.Version, everybody); err != nil {
		return out, err
	}
	out.Everybody, out.Collectors = len(everybody), len(own)
	object, detail := fmt.Sprintf("version %d", out.Version), fmt.Sprintf("%d for every collector, %d collectors with more", out.Everybody, out.Collectors)
	if err := o.NoteRules(ctx, "publishing rule layers", object, detail); err != nil {
		return out, err
	}
	for _, x := range issues {
		if _, err := AddDirective(o.Dir, o.Trust, directive.RuleChanges, x.envelope); err != nil {
			return out, fmt.Errorf("what was handed out until here holds, call it again to hand out the rest: %w", err)
		}
	}
	if err := o.sweepChanges(out.Version); err != nil {
		return out, err
	}
	return out, o.NoteRules(ctx, "rule layers published", object, detail)
}

// sweepChanges removes publications from before.
func (o *Office) sweepChanges(version uint64) error {
	list, err := ListDirectives(o.Dir, o.Trust, time.Time{})
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range list {
		if d.Type != directive.RuleChanges || d.Version >= version {
			continue
		}
		if err := os.Remove(filepath.Join(DirectiveDir(o.Dir), d.File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Unpublished says which layers are not at the sites as they should be.
type Unpublished struct {
	Missing map[int64]int    // layers that some collectors were not handed, and how many
	Ended   []int64          // layers that are over, and that collectors still have
	Unfit   map[int64]string // layers that sites do not take, and why: they work at the hub alone
}

// UnpublishedChanges compares what holds with what was handed out.
func (o *Office) UnpublishedChanges(ctx context.Context, rules layer.Rules, now time.Time) (Unpublished, error) {
	out := Unpublished{Missing: map[int64]int{}, Unfit: map[int64]string{}}
	open, err := o.Layers.List(ctx, false)
	if err != nil {
		return out, err
	}
	for i := range open {
		if err := layers.Unfit(&open[i], rules); err != nil {
			out.Unfit[open[i].ID] = err.Error()
		}
	}
	everybody, own, err := o.wantedChanges(ctx, rules, now)
	if err != nil {
		return out, err
	}
	got, from, err := o.handedChanges()
	if err != nil {
		return out, err
	}
	members, err := o.siteMembers(ctx)
	if err != nil {
		return out, err
	}
	compare := func(want []layers.Sited, audience string) {
		have := got[audience]
		has := func(list []layers.Sited, id int64) bool {
			return slices.ContainsFunc(list, func(x layers.Sited) bool { return x.ID == id })
		}
		over := !now.Before(from[audience].Expires) // who came later, or was away, did not get it
		for _, x := range want {
			if over || !has(have, x.ID) {
				out.Missing[x.ID]++
			}
		}
		for _, x := range have {
			if !has(want, x.ID) && (x.Expires == 0 || x.Expires > now.UnixNano()) && !slices.Contains(out.Ended, x.ID) {
				out.Ended = append(out.Ended, x.ID)
			}
		}
	}
	if len(members) == 0 {
		compare(everybody, keys.Everybody)
	}
	for _, m := range members {
		want, ok := own[m.collector]
		if !ok {
			want = everybody
		}
		audience := keys.Everybody
		if d, ok := from[m.collector]; ok && d.Version > from[audience].Version {
			audience = m.collector
		}
		compare(want, audience)
	}
	slices.SortFunc(out.Ended, cmp.Compare)
	return out, nil
}
