package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/keys"
)

// sinceValue is a duration that may be in days.
type sinceValue time.Duration

func (v *sinceValue) String() string { return time.Duration(*v).String() }

func (v *sinceValue) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 {
			return errors.New("write it like 24h or 7d")
		}
		*v = sinceValue(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errors.New("write it like 24h or 7d")
	}
	*v = sinceValue(d)
	return nil
}

func sentCommand(ctx context.Context, e *env, args []string) error {
	var s settings
	var events bool
	var since, until sinceValue
	var kind string
	var compare, statement bool
	var extract string
	rest, err := parseFlags("sent", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.BoolVar(&events, "events", false, "show every event that left, as it left")
		fs.Var(&since, "since", "only batches sealed in the last so many hours (24h) or days (7d)")
		fs.Var(&until, "until", "only batches sealed more than so long ago (24h, 7d)")
		fs.StringVar(&kind, "kind", "", "with --events: only events that left for this reason, such as denied_inbound")
		fs.BoolVar(&compare, "compare", false, "compare the record with the hub's signed statement of what it holds")
		fs.BoolVar(&statement, "statement", false, "with --compare: print the hub's statement as it was signed")
		fs.StringVar(&extract, "extract", "", "write the batch of this digest, byte for byte as it was sent, to standard output")
	})
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: sent takes no arguments, only options", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	if compare || statement {
		return sentCompare(ctx, e, &c, s.json, statement)
	}
	k, err := keys.OpenCollector(c.KeyDir())
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.stdout)
	defer out.Flush()
	var from time.Time
	if since > 0 {
		from = time.Now().Add(-time.Duration(since))
	}
	to := time.Now().Add(-time.Duration(until))
	wanted := []byte(`"tocsin.left.reason":"` + kind + `"`)
	var total collector.Totals
	found, shown := false, 0
	err = collector.ReadSent(&c, func(b *collector.SentBatch) (bool, error) {
		if extract != "" {
			if !strings.HasPrefix(b.Digest, strings.ToLower(extract)) {
				return true, nil
			}
			found = true
			_, err := out.Write(b.Submission())
			return false, err
		}
		if b.Sealed.Before(from) || until > 0 && b.Sealed.After(to) {
			return true, nil
		}
		total.Add(b)
		switch {
		case events || kind != "":
			lines, err := b.Lines(k)
			if err != nil {
				return false, err
			}
			for _, l := range lines {
				if kind != "" && !bytes.Contains(l, wanted) {
					continue
				}
				out.Write(l)
				out.WriteByte('\n')
				shown++
			}
		case s.json:
			if err := printJSON(out, b); err != nil {
				return false, err
			}
		default:
			received := "no receipt yet"
			if b.Receipt == "valid" {
				received = "receipt of " + b.Received.Local().Format(time.DateTime)
			} else if b.Receipt != "missing" {
				received = "receipt not valid: " + b.Receipt
			}
			fmt.Fprintf(out, "%s  %-8s %6d  %5d events  %7d bytes  %.12s  %s\n", b.Sealed.Local().Format(time.DateTime), b.Lane, b.Seq, b.Events, b.Bytes, b.Digest, received)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	if extract != "" {
		if !found {
			return fmt.Errorf("there is no batch %s in the record (batches are kept %d days)", extract, c.Sent.Days)
		}
		return out.Flush()
	}
	if (events || kind != "") && shown == 0 && !s.json { // on standard error: standard output is for events
		reason := ""
		if kind != "" {
			reason = " for the reason " + kind + " (tocsin-collector sent lists the reasons)"
		}
		fmt.Fprintf(e.stderr, "No event has left%s, or not in that time.\n", reason)
	}
	if s.json || events || kind != "" {
		return out.Flush()
	}
	if total.Batches == 0 {
		fmt.Fprintln(out, "Nothing has left this machine yet, or not in that time.")
		return out.Flush()
	}
	fmt.Fprintf(out, "\n%d batches with %d events (%d bytes) left between %s and %s; %d are confirmed by the hub's receipt.\n", total.Batches, total.Events, total.Bytes,
		total.First.Local().Format(time.DateTime), total.Last.Local().Format(time.DateTime), total.Confirmed)
	fmt.Fprintln(out, "Counted in them:")
	for _, name := range slices.Sorted(maps.Keys(total.Counts)) {
		fmt.Fprintf(out, "  %9d  %s\n", total.Counts[name], name)
	}
	fmt.Fprintln(out, "See the events themselves with --events, a batch as it was sent with --extract DIGEST.")
	return out.Flush()
}

// sentCompare compares the record with the hub's statement. A difference is an exit code of its own.
func sentCompare(ctx context.Context, e *env, c *collector.Config, asJSON, statement bool) error {
	r, err := collector.Reconcile(ctx, c, programVersion())
	if err != nil {
		return err
	}
	switch {
	case statement:
		fmt.Fprintf(e.stdout, "%s\n", bytes.TrimSpace(r.Envelope))
	case asJSON:
		if err := printJSON(e.stdout, r); err != nil {
			return err
		}
	default:
		fmt.Fprintf(e.stdout, "The hub's signed statement of %s:\n", r.HubTime.Local().Format(time.DateTime))
		for _, x := range r.Streams {
			mark := "  ok "
			if !x.Match {
				mark = "LOOK "
			}
			fmt.Fprintf(e.stdout, "%s %-8s %.8s  here %d batches with %d events, at the hub %d with %d: %s\n", mark, x.Lane, x.Epoch, x.Here, x.Events[0], x.Hub, x.Events[1], x.Verdict)
		}
		if r.Match {
			fmt.Fprintf(e.stdout, "The two agree: the hub holds %d batches with %d events of this collector, and this record says the same.\n", r.Batches[1], r.Events[1])
		} else {
			fmt.Fprintln(e.stdout, "THE TWO DO NOT AGREE. What differs is named above. Keep this folder as it is, save the hub's statement (--compare --statement), and show both to your data protection officer and your contact at the scheme.")
		}
	}
	if !r.Match {
		return saidError(exitDiffers)
	}
	return nil
}
