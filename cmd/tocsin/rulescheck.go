package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"tocsin/internal/baseline"
	"tocsin/internal/detect"
	"tocsin/internal/health"
	"tocsin/rules"
	"tocsin/sigma"
)

func rulesCheck(args []string, stdout, stderr io.Writer) int {
	var pipelines []string
	dirs, code, done := rulesFlags("check", args, stdout, stderr, func(f *flag.FlagSet) {
		f.Func("pipeline", "", func(s string) error { pipelines = append(pipelines, s); return nil })
	})
	if done {
		return code
	}
	began := time.Now()
	c, errs, err := readPiped(dirs, pipelines)
	if err != nil {
		fmt.Fprintf(stderr, "tocsin rules check: %v\n", err)
		return 1
	}
	e, err := sigma.Compile(c, sigma.Options{Schema: &sigma.Names{}})
	if err != nil {
		fmt.Fprintf(stderr, "tocsin rules check: %v\n", err)
		return 1
	}
	errs = append(errs, e.Errors...)
	if ours(c) {
		for _, dir := range dirsOrBuiltIn(dirs) {
			cat, err := detect.Load(dir.fs)
			if err != nil {
				fmt.Fprintf(stderr, "tocsin rules check: %v\n", err)
				return 1
			}
			for _, x := range cat.Errors {
				x.File = filepath.Join(dir.name, filepath.FromSlash(x.File))
				if !slices.ContainsFunc(errs, func(y *sigma.Error) bool { return x.Error() == y.Error() }) {
					errs = append(errs, x)
				}
			}
		}
	}
	for _, x := range errs {
		fmt.Fprintln(stdout, x)
	}
	for _, r := range e.Unexpanded {
		fmt.Fprintf(stdout, "%s:%d: note: rule %s has a placeholder that nobody supplies: it never matches\n", r.File, r.Line, r.Label())
	}
	fmt.Fprintf(stderr, "%d rules, %d correlations, %d filters; %d errors; %.2f s\n", len(e.Rules), len(e.Correlations), len(c.Filters), len(errs), time.Since(began).Seconds())
	if len(errs) > 0 {
		return 1
	}
	return 0
}

type namedFS struct {
	name string
	fs   fs.FS
}

func dirsOrBuiltIn(dirs []string) []namedFS {
	if len(dirs) == 0 {
		return []namedFS{{"built-in", rules.FS}}
	}
	var out []namedFS
	for _, d := range dirs {
		if info, err := os.Stat(d); err == nil && info.IsDir() {
			out = append(out, namedFS{d, os.DirFS(d)})
		}
	}
	return out
}

func rulesList(args []string, stdout, stderr io.Writer) int {
	var asJSON bool
	dirs, code, done := rulesFlags("list", args, stdout, stderr, func(f *flag.FlagSet) { f.BoolVar(&asJSON, "json", false, "") })
	if done {
		return code
	}
	c, _, err := readRules(dirs)
	if err != nil {
		fmt.Fprintf(stderr, "tocsin rules list: %v\n", err)
		return 1
	}
	type row struct {
		ID     string   `json:"id"`
		Level  string   `json:"level"`
		Runs   string   `json:"runs,omitempty"`
		Family string   `json:"family,omitempty"`
		Source string   `json:"logsource,omitempty"`
		Title  string   `json:"title"`
		Tags   []string `json:"tags,omitempty"`
		File   string   `json:"file"`
	}
	var rows []row
	if ours(c) {
		for _, dir := range dirsOrBuiltIn(dirs) {
			cat, err := detect.Load(dir.fs)
			if err != nil {
				fmt.Fprintf(stderr, "tocsin rules list: %v\n", err)
				return 1
			}
			for _, r := range cat.Infos() {
				rows = append(rows, row{r.ID, r.Level, string(r.Runs), r.Family, "", r.Title, r.Tags, filepath.Join(dir.name, r.File)})
			}
		}
		if len(dirs) == 0 {
			for _, b := range baseline.Infos() {
				runs := "both"
				switch {
				case !b.Site:
					runs = "hub"
				case !b.Hub:
					runs = "site"
				}
				rows = append(rows, row{b.ID, b.Level, runs, b.Family, "", b.Title, b.Tags, "baseline"})
			}
			for _, r := range health.Rules() {
				rows = append(rows, row{r.ID, r.Level, "hub", r.Family, "", r.Title, nil, "detection health"})
			}
		}
	} else {
		for _, r := range c.Rules {
			rows = append(rows, row{r.ID, r.Level, "", "", r.LogSource.String(), r.Title, r.Tags, r.File})
		}
		for _, r := range c.Correlations {
			rows = append(rows, row{r.ID, r.Level, "", "", "correlation=" + r.Type, r.Title, r.Tags, r.File})
		}
	}
	out := bufio.NewWriter(stdout)
	defer out.Flush()
	if asJSON {
		enc := json.NewEncoder(out)
		for _, r := range rows {
			enc.Encode(r)
		}
		return 0
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.Level, r.Runs, r.Family+r.Source, r.Title)
	}
	w.Flush()
	return 0
}

func rulesTest(args []string, stdout, stderr io.Writer) int {
	var verbose bool
	dirs, code, done := rulesFlags("test", args, stdout, stderr, func(f *flag.FlagSet) { f.BoolVar(&verbose, "v", false, "") })
	if done {
		return code
	}
	failed, cases := 0, 0
	for _, dir := range dirsOrBuiltIn(dirs) {
		cat, err := detect.Load(dir.fs)
		if err != nil {
			fmt.Fprintf(stderr, "tocsin rules test: %v\n", err)
			return 1
		}
		for _, x := range cat.Errors {
			fmt.Fprintln(stdout, x)
			failed++
		}
		results, err := cat.Test(dir.fs)
		if err != nil {
			fmt.Fprintf(stderr, "tocsin rules test: %v\n", err)
			return 1
		}
		for _, r := range results {
			cases++
			switch {
			case r.Err != nil:
				failed++
				fmt.Fprintf(stdout, "FAIL  %s: %s: %s: %v\n", r.File, r.Title, r.Case, r.Err)
			case verbose:
				fmt.Fprintf(stdout, "ok    %s: %s: %s\n", r.File, r.Title, r.Case)
			}
		}
	}
	fmt.Fprintf(stdout, "%d cases, %d failed\n", cases, failed)
	if failed > 0 || cases == 0 {
		return 1
	}
	return 0
}
