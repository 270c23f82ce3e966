package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// What the member reads and decides on a running collector.

// newMatcher compiles the rule of a question about the past.
func newMatcher(rule string) (func(*event.Event) bool, error) {
	m, err := detect.NewMatcher(rule)
	if err != nil {
		return nil, err
	}
	return m.Matches, nil
}

// begin reads a command's options and settings.
func begin(e *env, name string, args []string, define func(*flag.FlagSet)) (s settings, c collector.Config, rest []string, err error) {
	rest, err = parseFlags(name, args, func(fs *flag.FlagSet) {
		s.define(fs)
		if define != nil {
			define(fs)
		}
	})
	if err == nil {
		c, err = s.load(e)
	}
	return s, c, rest, err
}

func questionsCommand(ctx context.Context, e *env, args []string) error {
	s, c, rest, err := begin(e, "questions", args, nil)
	if err != nil {
		return err
	}
	if len(rest) == 2 && (rest[0] == "allow" || rest[0] == "deny") {
		if err := collector.DecideQuestion(ctx, &c, rest[1], rest[0] == "allow"); err != nil {
			return err
		}
		if s.json {
			return printJSON(e.stdout, map[string]string{"question": rest[1], "decision": rest[0]})
		}
		if rest[0] == "allow" {
			fmt.Fprintln(e.stdout, "Allowed. The archive on this machine is searched now; only lines that match leave, without their content. tocsin-collector questions shows how it ended.")
		} else {
			fmt.Fprintln(e.stdout, "Denied. Whoever asked learns that it was denied, and nothing else.")
		}
		return nil
	}
	if len(rest) > 1 || len(rest) == 1 && rest[0] != "list" {
		return fmt.Errorf("%w: questions wants list, allow ID or deny ID", errUsage)
	}
	list, err := collector.FetchQuestions(ctx, &c)
	if err != nil {
		return err
	}
	if s.json {
		for _, q := range list {
			if err := printJSON(e.stdout, q); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		fmt.Fprintln(e.stdout, "The hub has asked nothing about the past.")
	}
	for _, q := range list {
		fmt.Fprintf(e.stdout, "%s  %s", q.ID, strings.ToUpper(q.State))
		if q.By != "" {
			fmt.Fprintf(e.stdout, ", by %s", q.By)
		}
		what := "touch " + strings.Join(q.Indicators, ", ")
		if q.Rule != "" {
			what = "match the rule below"
		}
		fmt.Fprintf(e.stdout, "\n  asked by %s, until %s\n  why: %s\n  under: %s, %s, %s, approved by %s\n  lines received from %s to %s that %s\n", q.Question.By, q.Expires.Local().Format(time.DateTime), q.Purpose,
			q.Authority.Regime, q.Authority.Basis, q.Authority.Reference, q.Authority.Approver, q.From.Local().Format(time.DateTime), q.To.Local().Format(time.DateTime), what)
		for l := range strings.Lines(q.Rule) {
			fmt.Fprintf(e.stdout, "    | %s", l)
		}
		switch q.State {
		case collector.QuestionWaiting:
			fmt.Fprintf(e.stdout, "  to decide: tocsin-collector questions allow %s, or deny\n", q.ID)
		case collector.QuestionAnswered:
			fmt.Fprintf(e.stdout, "  %d lines looked at, %d matched; %d events left, %d the hub had before\n", q.Read, q.Hits, q.Sent, q.Known)
		case collector.QuestionFailed:
			fmt.Fprintf(e.stdout, "  %s\n", q.Problem)
		}
		fmt.Fprintln(e.stdout)
	}
	return nil
}

func sendersCommand(ctx context.Context, e *env, args []string) error {
	s, c, rest, err := begin(e, "senders", args, nil)
	if err != nil {
		return err
	}
	if len(rest) == 2 && rest[0] == "accept" {
		addr, err := netip.ParseAddr(rest[1])
		if err != nil {
			return fmt.Errorf("%w: %q is not an address", errUsage, rest[1])
		}
		products, err := collector.AcceptSender(ctx, &c, addr)
		if err != nil {
			return err
		}
		if s.json {
			return printJSON(e.stdout, map[string]any{"sender": addr, "accepted": products})
		}
		if len(products) == 0 {
			fmt.Fprintf(e.stdout, "%s sends nothing that was not accepted.\n", addr)
		} else {
			fmt.Fprintf(e.stdout, "Accepted: %s may send lines of %s.\n", addr, strings.Join(products, ", "))
		}
		return nil
	}
	if len(rest) > 1 || len(rest) == 1 && rest[0] != "list" {
		return fmt.Errorf("%w: senders wants list or accept ADDRESS", errUsage)
	}
	list, err := collector.FetchSenders(ctx, &c)
	if err != nil {
		return err
	}
	for _, d := range list {
		if s.json {
			if err := printJSON(e.stdout, d); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(e.stdout, "%-39s %9d lines, %d not understood, last %s  %s\n", d.Address, d.Lines, d.NotUnderstood, d.Last.Local().Format(time.DateTime), strings.Join(d.Products, ", "))
		if len(d.Refused) > 0 {
			fmt.Fprintf(e.stdout, "    LOOK: it now sends lines of %s too, %d so far. They are marked and not believed until you look at the device and run: tocsin-collector senders accept %s\n", strings.Join(d.Refused, ", "), d.Changed, d.Address)
		}
	}
	if len(list) == 0 && !s.json {
		fmt.Fprintln(e.stdout, "Nobody has sent a line yet.")
	}
	return nil
}

func unknownCommand(ctx context.Context, e *env, args []string) error {
	s, c, rest, err := begin(e, "unknown", args, nil)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: unknown takes no arguments, only options", errUsage)
	}
	st, err := collector.FetchStatus(ctx, &c)
	if err != nil {
		return err
	}
	for _, u := range st.Unknown {
		if s.json {
			if err := printJSON(e.stdout, u); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(e.stdout, "%s: %d lines that we do not understand yet, the last at %s\n", u.Sender, u.Lines, u.Last.Local().Format(time.DateTime))
		for _, k := range u.Kinds {
			fmt.Fprintf(e.stdout, "  %7d like  %q\n", k.Lines, k.Text)
			if len(k.Found) > 0 {
				fmt.Fprintf(e.stdout, "                addresses in it: %s\n", strings.Join(k.Found, ", "))
			}
		}
	}
	if len(st.Unknown) == 0 && !s.json {
		fmt.Fprintln(e.stdout, "Every line since the start was understood.")
	}
	return nil
}

func troubleshootCommand(ctx context.Context, e *env, args []string) error {
	var span time.Duration
	var from string
	s, c, rest, err := begin(e, "troubleshoot", args, func(fs *flag.FlagSet) {
		fs.DurationVar(&span, "for", 30*time.Minute, "how long raw lines leave, at most 24h")
		fs.StringVar(&from, "sender", "", "only the lines of this address")
	})
	if err != nil {
		return err
	}
	if len(rest) != 1 || rest[0] != "on" && rest[0] != "off" {
		return fmt.Errorf("%w: troubleshoot wants on or off", errUsage)
	}
	var sender netip.Addr
	if from != "" {
		if sender, err = netip.ParseAddr(from); err != nil {
			return fmt.Errorf("%w: --sender: %q is not an address", errUsage, from)
		}
	}
	if rest[0] == "off" {
		span = 0
	} else if span <= 0 {
		return fmt.Errorf("%w: --for must be a time such as 30m", errUsage)
	}
	if err := collector.Troubleshoot(ctx, &c, span, sender); err != nil {
		return err
	}
	if s.json {
		return printJSON(e.stdout, map[string]any{"troubleshooting": rest[0] == "on", "seconds": int(span.Seconds())})
	}
	if rest[0] == "off" {
		fmt.Fprintln(e.stdout, "Off. Raw lines stay on this machine again.")
		return nil
	}
	fmt.Fprintf(e.stdout, "ON for %s: raw lines leave this machine, with everything that is in them. The log, the page and doctor say so until it ends.\nTo end it now: tocsin-collector troubleshoot off\n", span)
	return nil
}

func pageCommand(ctx context.Context, e *env, args []string) error {
	s, c, rest, err := begin(e, "page", args, nil)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: page takes no arguments, only options", errUsage)
	}
	url, err := collector.FetchPage(ctx, &c)
	if err != nil {
		return err
	}
	if s.json {
		return printJSON(e.stdout, map[string]string{"url": url})
	}
	fmt.Fprintf(e.stdout, "Open this on this machine:\n\n    %s\n\nIt signs you in until the collector is started again. From your own machine: ssh -L PORT:127.0.0.1:PORT with the port above, then the same address.\n", url)
	return nil
}
