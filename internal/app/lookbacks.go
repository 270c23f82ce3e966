package app

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/directive"
	"tocsin/internal/eventstore"
	"tocsin/internal/keys"
	"tocsin/internal/member"
	"tocsin/internal/web"
)

// questions is what the pages show of look-backs: the questions from the folder of directives, the answers from the event store.
type questions struct {
	*eventstore.Store
	dir     string
	trust   func() *keys.Trust
	members *member.Store
}

// Asked are the questions that reach a collector in the scope, newest first, those that have ended too.
func (q questions) Asked(ctx context.Context, scope access.Scope) ([]web.Asked, error) {
	_, all := scope.Tenants()
	own := map[string]bool{}
	if !all {
		list, err := q.members.Collectors(ctx, scope)
		if err != nil {
			return nil, err
		}
		for i := range list {
			own[list[i].ID] = true
		}
	}
	names, err := filepath.Glob(filepath.Join(DirectiveDir(q.dir), directive.LookBack+"-*.json"))
	if err != nil {
		return nil, err
	}
	var out []web.Asked
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil || info.Size() > 2*directive.MaxPack {
			continue // it was taken away meanwhile, or is none of ours
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		// The time only says whether it is still handed out; the signature must hold in any case.
		d, err := openFor(q.trust(), keys.Questions, b, time.Time{})
		if err != nil || d.Type != directive.LookBack || !all && d.Audience != keys.Everybody && !own[d.Audience] || !all && len(own) == 0 {
			continue
		}
		if p, err := directive.ParseQuestion(d.Content); err == nil {
			out = append(out, web.Asked{Question: *p, Audience: d.Audience, Expires: d.Expires})
		}
	}
	slices.SortFunc(out, func(a, b web.Asked) int {
		if c := b.Asked.Compare(a.Asked); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}
