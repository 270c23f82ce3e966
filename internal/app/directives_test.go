package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/batch"
	"tocsin/internal/directive"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// Directives reach only those they are for, not before the ledger holds them, with proofs that fit the tree that was seen before; and the pages
// show to each member the questions that reach its collectors.
func TestDirectives(t *testing.T) {
	h := part(t, keysOf, recordsOf, busOf)
	ctx := t.Context()
	dir, trust := h.cfg.DataDir, h.ring.Trust()
	const one, two = "0193a5b0-0000-7000-8000-000000000001", "0193a5b0-0000-7000-8000-000000000002"
	version := uint64(0)
	add := func(kind, audience string, content []byte, left time.Duration) error {
		p, _ := directive.Purpose(kind)
		signer, err := keys.OfflineSigner(offline(h.cfg), trust, p)
		if err != nil {
			t.Fatal(err)
		}
		version++
		env, err := keys.SignDirective(signer, keys.Directive{Type: kind, Audience: audience, Version: version, Issued: time.Now().Add(-time.Hour), Expires: time.Now().Add(left), Content: content})
		if err != nil {
			t.Fatal(err)
		}
		_, err = AddDirective(dir, trust, kind, env)
		return err
	}
	question := func(audience, purpose string) {
		t.Helper()
		q := directive.Question{ID: directive.NewID(), Asked: time.Now().Add(time.Duration(version) * time.Second), By: "Desk", Purpose: purpose, Indicators: []string{"203.0.113.66"}, From: time.Now().Add(-time.Hour), To: time.Now(),
			Authority: directive.Authority{Regime: "uk-gdpr", Basis: "b", Reference: "r", Approver: "a"}}
		b, err := q.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := add(directive.LookBack, audience, b, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for _, audience := range []string{"../../x", "somebody", strings.ToUpper(one)} {
		if err := add(directive.Parsers, audience, []byte("p"), time.Hour); !errors.Is(err, keys.ErrDirective) {
			t.Errorf("for %q: %v", audience, err)
		}
	}
	if err := add(directive.Parsers, keys.Everybody, []byte("old pack"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := add(directive.Parsers, keys.Everybody, []byte("pack"), time.Hour); err != nil {
		t.Fatal(err)
	}
	question(keys.Everybody, "of all")
	question(one, "of one")
	if err := os.WriteFile(filepath.Join(DirectiveDir(dir), "look-back-x.json"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := h.openLedger(ctx); err != nil {
		t.Fatal(err)
	}
	if d, _, err := h.directives.For(ctx, one, "", batch.Tree{}); err != nil || len(d.Directives) != 0 {
		t.Errorf("before the ledger holds any: %d, %v", len(d.Directives), err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.ledger.Load().Run(running) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	get := func(collector string, n int, seen directive.View) (batch.Directives, string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // a poll of the ledger's goroutine, bounded by deadline
			d, tag, err := h.directives.For(ctx, collector, "", seen.Tree)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Directives) == n && len(d.Proofs) == n {
				return d, tag
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s gets %d directives, want %d", collector, len(d.Directives), n)
			}
		}
	}
	check := func(d batch.Directives, seen directive.View) directive.View {
		t.Helper()
		v, err := directive.OpenCheckpoint(trust, d.Checkpoint)
		if err != nil {
			t.Fatal(err)
		}
		if anew, err := v.Follows(seen, d.Consistency); err != nil || anew {
			t.Errorf("after %d entries: %v %v", seen.Size, anew, err)
		}
		for i, env := range d.Directives {
			if err := v.Includes(env, d.Proofs[i]); err != nil {
				t.Errorf("directive %d: %v", i, err)
			}
		}
		return v
	}
	d, tag := get(one, 3, directive.View{}) // the newest pack and both questions
	seen := check(d, directive.View{})
	other, _ := get(two, 2, directive.View{})
	check(other, directive.View{})
	if again, same, err := h.directives.For(ctx, one, tag, seen.Tree); err != nil || same != tag || len(again.Directives) != 0 {
		t.Errorf("asked again: %q, %d directives, %v", same, len(again.Directives), err)
	}
	old := sha256.Sum256(other.Directives[0])
	question(keys.Everybody, "later")
	d, newer := get(one, 4, seen)
	if newer == tag || sha256.Sum256(d.Directives[0]) != old {
		t.Errorf("the tag stays %q, or the order changes", newer)
	}
	check(d, seen)

	// The pages.
	pages := questions{dir: dir, trust: h.ring.Trust, members: h.office.Members}
	of := func(scope access.Scope) (out []string) {
		t.Helper()
		list, err := pages.Asked(ctx, scope)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			out = append(out, a.Purpose)
		}
		return out
	}
	if got := of(access.System("test")); !slices.Equal(got, []string{"later", "of one", "of all"}) {
		t.Errorf("the centre sees %q", got)
	}
	org, err := h.office.Members.AddOrganisation(ctx, "test", member.Organisation{Name: "School"})
	if err != nil {
		t.Fatal(err)
	}
	if got := of(access.Only(org.ID)); len(got) != 0 {
		t.Errorf("a member without a collector sees %q", got)
	}
}
