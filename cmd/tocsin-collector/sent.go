package main

import (
	"bufio"
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

func sentCommand(_ context.Context, e *env, args []string) error {
	var s settings
	var events bool
	var since sinceValue
	var extract string
	rest, err := parseFlags("sent", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.BoolVar(&events, "events", false, "show every event that left, as it left")
		fs.Var(&since, "since", "only batches sealed in the last so many hours (24h) or days (7d)")
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
	var total collector.Totals
	found := false
	err = collector.ReadSent(&c, func(b *collector.SentBatch) (bool, error) {
		if extract != "" {
			if !strings.HasPrefix(b.Digest, strings.ToLower(extract)) {
				return true, nil
			}
			found = true
			_, err := out.Write(b.Submission())
			return false, err
		}
		if b.Sealed.Before(from) {
			return true, nil
		}
		total.Add(b)
		switch {
		case events:
			lines, err := b.Lines(k)
			if err != nil {
				return false, err
			}
			for _, l := range lines {
				out.Write(l)
				out.WriteByte('\n')
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
	if s.json || events {
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
