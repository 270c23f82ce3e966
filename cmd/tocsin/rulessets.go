package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"tocsin/internal/app"
	"tocsin/internal/layer"
	"tocsin/internal/member"
	"tocsin/internal/rematch"
	"tocsin/internal/ruleset"
)

// rulesOffice runs the commands that work on a hub's data folder, beside a running hub or without one.
func rulesOffice(ctx context.Context, words int, args []string, stdout, stderr io.Writer) int {
	a := &admin{set: settings{}, stdout: stdout, stderr: stderr}
	action := strings.Join(args[:words], " ")
	for _, word := range args[words:] {
		if word == "-h" || word == "-help" || word == "--help" {
			fmt.Fprint(stdout, rulesUsage)
			return 0
		}
	}
	// The folder's options may stand anywhere, as the others do.
	common := func(f *flag.FlagSet) {
		f.StringVar(&a.config, "config", "", "the hub's settings `file`")
		f.Func("data", "", func(s string) error { a.set["data_dir"] = s; return nil })
		f.Var(a.set, "set", "`key=value` over the settings file")
		f.BoolVar(&a.json, "json", false, "print JSON")
	}
	table := map[string]func(context.Context, func(*flag.FlagSet), []string) error{
		"update": a.rulesUpdate, "rollback": a.rulesRollBack, "remove": a.rulesRemove, "sets": a.rulesSets, "reload": a.rulesReload,
		"except": a.rulesExcept, "suppressed": a.rulesSuppressed, "health": a.rulesHealth, "coverage": a.rulesCoverage, "daily": a.rulesDaily, "rematch": a.rulesRematch, "rematch list": a.rematchList, "rematch stop": a.rematchStop, "layer list": a.layerList, "layer off": a.layerOff, "layer level": a.layerLevel, "layer end": a.layerEnd, "layer publish": a.layerPublish,
	}
	f, ok := table[action]
	if !ok {
		fmt.Fprintf(stderr, "tocsin rules: layer wants a second word: list, off, level, end, publish\n")
		return 2
	}
	if err := f(ctx, common, args[words:]); err != nil {
		if a.json {
			a.print(map[string]string{"error": err.Error()})
		}
		fmt.Fprintf(stderr, "tocsin rules %s: %v\n", action, err)
		if errors.Is(err, errUsage) || errors.Is(err, layer.ErrInvalid) || errors.Is(err, ruleset.ErrInvalid) || errors.Is(err, member.ErrInvalid) || errors.Is(err, rematch.ErrInvalid) {
			return 2
		}
		return 1
	}
	return 0
}

// withOffice opens the records for one command. The folder's options are parsed with its own.
func (a *admin) withOffice(ctx context.Context, f func(o *app.Office) error) error {
	o, err := a.office(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(o), o.Close())
}

// takeIn has a running hub take in what changed. Without one it is taken in at its start.
func (a *admin) takeIn(ctx context.Context, o *app.Office) error {
	if _, err := os.Stat(app.AdminSocket(o.Dir)); err != nil {
		a.progress("No hub runs on this folder: the rules are in force from its next start.\n")
		return nil
	}
	body, _, err := askHub(ctx, o, http.MethodPost, "/admin/rules/reload", nil, "")
	if err != nil {
		if errors.Is(err, errNoHub) {
			a.progress("No hub runs on this folder: the rules are in force from its next start.\n")
			return nil
		}
		return fmt.Errorf("the running hub did not take the rules in: %w", err)
	}
	return a.taken(body)
}

// taken says what the hub answers after it has taken rules in.
func (a *admin) taken(body []byte) error {
	var r struct {
		Rules  int     `json:"rules"`
		Lost   int     `json:"groups_lost"`
		Paused float64 `json:"paused_ms"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("reading the hub's answer: %w", err)
	}
	counts := "what unchanged rules had counted stays counted"
	if r.Lost > 0 {
		counts += fmt.Sprintf(", what changed ones had (%d groups) begins anew", r.Lost)
	}
	a.progress("The running hub has taken the rules in: %d are in force there. It paused for %.1f ms; %s.\n", r.Rules, r.Paused, counts)
	return nil
}

// progress tells people what happens; programs get the result alone.
func (a *admin) progress(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.stdout, format, args...)
	}
}

func (a *admin) rulesUpdate(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	o := ruleset.UpdateOptions{Name: "upstream", Now: time.Now()}
	dry, verbose := false, false
	var keyTexts []string
	signature := ""
	words, err := a.flags("update", args, func(f *flag.FlagSet) {
		common(f)
		f.StringVar(&o.Name, "name", o.Name, "")
		f.StringVar(&o.Proof.SHA256, "sha256", "", "")
		f.Func("key", "", func(s string) error { keyTexts = append(keyTexts, s); return nil })
		f.StringVar(&signature, "signature", "", "")
		f.Func("only", "", func(s string) error { o.Only = append(o.Only, s); return nil })
		f.StringVar(&o.MinLevel, "min-level", "", "")
		f.BoolVar(&dry, "dry-run", false, "")
		f.BoolVar(&verbose, "v", false, "")
	}, "FILE|FOLDER|URL")
	if err != nil {
		return err
	}
	h, _, err := loadHub(a.config, a.set)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	o.From = words[0]
	if o.Proof.SHA256 == "" {
		keyTexts = append(keyTexts, h.Rules.Keys...)
	}
	for _, t := range keyTexts {
		k, err := ruleset.ParseKey(t)
		if err != nil {
			return err
		}
		o.Proof.Keys = append(o.Proof.Keys, k)
	}
	if signature != "" {
		if o.Proof.Signature, err = os.ReadFile(signature); err != nil {
			return err
		}
	}
	store := app.Rules(h.DataDir)
	o.BuiltIn = append(o.BuiltIn, app.BuiltInRules())
	others, err := store.Sources()
	if err != nil {
		return err
	}
	for _, s := range others {
		if s.Name != o.Name {
			o.BuiltIn = append(o.BuiltIn, s)
		}
	}
	st, err := store.Stage(ctx, o)
	if err != nil {
		return err
	}
	if !a.json {
		a.changes(st, verbose)
	}
	done := func() {
		if a.json {
			a.print(map[string]any{"manifest": st.Manifest, "before": st.Before, "changes": st.Changes, "installed": !dry})
		}
	}
	if dry {
		done()
		a.progress("Nothing was changed (--dry-run).\n")
		return nil
	}
	return a.withOffice(ctx, func(office *app.Office) error {
		if err := st.Install(); err != nil {
			return err
		}
		m := st.Manifest
		if err := office.NoteRules(ctx, "rules updated", m.Name, fmt.Sprintf("version %s from %s, SHA-256 %s, signed by %q: %d added, %d changed, %d removed", m.Version, m.From, m.SHA256, m.SignedBy, len(st.Changes.Added), len(st.Changes.Changed), len(st.Changes.Removed))); err != nil {
			return err
		}
		done()
		return a.takeIn(ctx, office)
	})
}

// fewChanges is how many of each kind are named when nobody asked for all.
const fewChanges = 10

func (a *admin) changes(st *ruleset.Staged, all bool) {
	m, c := st.Manifest, st.Changes
	proof := "its SHA-256, " + m.SHA256 + ", is the one you gave"
	if m.SignedBy != "" {
		proof = fmt.Sprintf("signed on %s by the key %.16s", m.Issued.Format("2 January 2006"), m.SignedBy)
	}
	fmt.Fprintf(a.stdout, "%s, version %s: %s.\n", m.Name, m.Version, proof)
	fmt.Fprintf(a.stdout, "%d rules: %d new, %d changed, %d gone, %d as before.\n", m.Rules, len(c.Added), len(c.Changed), len(c.Removed), c.Same)
	if c.Skipped > 0 {
		fmt.Fprintf(a.stdout, "%d are below the level that --min-level asks for and are not taken.\n", c.Skipped)
	}
	name := func(what string, list []ruleset.Rule) {
		for i, r := range list {
			if !all && i == fewChanges {
				fmt.Fprintf(a.stdout, "  … and %d more %s; -v names all\n", len(list)-i, what)
				return
			}
			fmt.Fprintf(a.stdout, "  %-8s %s (%s, %s)\n", what, r.Title, r.Level, r.File)
		}
	}
	if st.Before != nil || all { // the first time everything is new
		name("new", c.Added)
	}
	name("changed", c.Changed)
	name("gone", c.Removed)
	if n := len(c.LeftOut); n > 0 {
		fmt.Fprintf(a.stdout, "%s cannot be used and %s left out; the rest works:\n", count(n, "file"), map[bool]string{true: "is", false: "are"}[n == 1])
		for i, x := range c.LeftOut {
			if !all && i == fewChanges {
				fmt.Fprintf(a.stdout, "  … and %d more; -v names all\n", n-i)
				break
			}
			fmt.Fprintf(a.stdout, "  %s: %s\n", x.File, x.Reason)
		}
	}
}

func (a *admin) rulesRollBack(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	words, err := a.flags("rollback", args, common, "NAME")
	if err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		now, before, err := app.Rules(o.Dir).RollBack(words[0])
		if err != nil {
			return err
		}
		a.say(map[string]any{"now": now, "before": before}, "%s is back at version %s, taken in on %s. Version %s stays here: another rollback puts it in force again.\n", now.Name, now.Version, now.Installed.Format("2 January 2006 15:04"), before.Version)
		return errors.Join(o.NoteRules(ctx, "rules rolled back", now.Name, fmt.Sprintf("from version %s to %s", before.Version, now.Version)), a.takeIn(ctx, o))
	})
}

func (a *admin) rulesRemove(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	words, err := a.flags("remove", args, common, "NAME")
	if err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		x, err := app.Rules(o.Dir).Remove(words[0])
		if err != nil {
			return err
		}
		a.say(x, "%s is taken out, with its %d rules. Changes made for its rules stay, and work again if it comes back.\n", x.Name, x.Current.Rules)
		return errors.Join(o.NoteRules(ctx, "rules removed", x.Name, "version "+x.Current.Version), a.takeIn(ctx, o))
	})
}

func (a *admin) rulesSets(_ context.Context, common func(*flag.FlagSet), args []string) error {
	if _, err := a.flags("sets", args, common); err != nil {
		return err
	}
	h, _, err := loadHub(a.config, a.set)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	store := app.Rules(h.DataDir)
	list, err := store.Sets()
	if err != nil {
		return err
	}
	if len(list) == 0 && !a.json {
		fmt.Fprintf(a.stdout, "No set was taken in: only the rules that are built in run, and your own in %s.\n", store.Local())
		return nil
	}
	return a.table(list, "NAME\tVERSION\tRULES\tLEFT OUT\tTAKEN IN\tPROOF\tBEFORE", func(w io.Writer) {
		for _, s := range list {
			proof, before := "checksum", ""
			if s.Current.SignedBy != "" {
				proof = fmt.Sprintf("signed by %.16s", s.Current.SignedBy)
			}
			if s.Previous != nil {
				before = s.Previous.Version
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", s.Name, s.Current.Version, s.Current.Rules, len(s.Current.LeftOut), s.Current.Installed.Local().Format("2 Jan 2006 15:04"), proof, before)
		}
	})
}

func (a *admin) rulesReload(ctx context.Context, common func(*flag.FlagSet), args []string) error {
	if _, err := a.flags("reload", args, common); err != nil {
		return err
	}
	return a.withOffice(ctx, func(o *app.Office) error {
		body, _, err := askHub(ctx, o, http.MethodPost, "/admin/rules/reload", nil, "at its start it reads all rules by itself")
		if err != nil {
			return err
		}
		if a.json {
			_, err = a.stdout.Write(body)
			return err
		}
		return a.taken(body)
	})
}

// rulesSign makes a detached signature over an archive of rules.
func rulesSign(args []string, stdout, stderr io.Writer) int {
	dir := ""
	a := &admin{stdout: stdout, stderr: stderr}
	words, err := a.flags("sign", args, func(f *flag.FlagSet) { f.StringVar(&dir, "key-dir", "", "") }, "FILE")
	if err == nil && dir == "" {
		err = fmt.Errorf("%w: sign needs --key-dir, the folder with release.key; it is kept away from every machine that is on a network", errUsage)
	}
	if err == nil {
		err = app.SignRules(dir, words[0], time.Now())
	}
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "tocsin rules sign: %v\n", err)
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "tocsin rules sign: %v\n", err)
		return 1
	}
	fmt.Fprintf(stdout, "%s.sig is the signature. Give both to those who use the rules, and the key in %s/release.pub another way.\n", words[0], dir)
	return 0
}
