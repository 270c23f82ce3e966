package collector

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Explain reads lines from r and writes what would become of each to w: text for people, or one JSON object a line. Empty lines are passed over.
// Lines longer than maxLine bytes are cut, as a listener cuts them.
func Explain(r io.Reader, w io.Writer, x *Explainer, maxLine int, asJSON bool) error {
	in := bufio.NewReaderSize(r, maxLine+2)
	out := bufio.NewWriter(w)
	defer out.Flush()
	if !asJSON {
		for _, n := range x.notes {
			fmt.Fprintf(out, "note: %s\n", n)
		}
	}
	totals := map[string]int{}
	number, lines, later := 0, 0, 0
	for {
		text, more, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		number++
		cut := false
		text = slices.Clone(text)
		for more {
			cut = true
			if _, more, err = in.ReadLine(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
		if len(text) > maxLine {
			text, cut = text[:maxLine], true
		}
		if len(strings.TrimSpace(string(text))) == 0 {
			continue
		}
		ex := x.explain(text, number)
		if cut {
			ex.Notes = append(ex.Notes, fmt.Sprintf("the line is longer than %d bytes and was cut", maxLine))
		}
		totals[ex.Reason]++
		later += len(ex.Earlier)
		lines++
		if !asJSON {
			writeExplained(out, text, ex)
			continue
		}
		if lines == 1 {
			ex.Notes = append(slices.Clone(x.notes), ex.Notes...)
		}
		b, err := json.Marshal(ex)
		if err != nil {
			return err
		}
		out.Write(b)
		out.WriteByte('\n')
	}
	if !asJSON && lines > 1 {
		fmt.Fprintf(out, "%d lines:\n", lines)
		for _, k := range slices.Sorted(maps.Keys(totals)) {
			fmt.Fprintf(out, "  %7d  %s\n", totals[k], k)
		}
		if later > 0 {
			fmt.Fprintf(out, "Of those kept, %d would leave after all, because a rule on this site fired on a later line.\n", later)
		}
	}
	return out.Flush()
}

func writeExplained(w io.Writer, text []byte, ex *Explained) {
	shown := fmt.Sprintf("%.160q", text)
	fmt.Fprintf(w, "line %d: %s\n", ex.Line, shown)
	switch {
	case !ex.Understood:
		fmt.Fprintf(w, "  NOT UNDERSTOOD, stays: %s.\n", ex.Because)
	case ex.Leaves:
		when := ""
		if ex.Urgent {
			when = ", at once"
		}
		fmt.Fprintf(w, "  LEAVES%s, as %s, because %s.\n", when, ex.Reason, ex.Because)
	default:
		fmt.Fprintf(w, "  STAYS, as %s, because it is %s.\n", ex.Reason, ex.Because)
	}
	if ex.Understood {
		fmt.Fprintf(w, "  understood as %s: %s\n", ex.Format, pretty(ex.Event))
	}
	if ex.Sent != nil {
		fmt.Fprintf(w, "  would leave: %s\n", pretty(ex.Sent))
		if len(ex.Stays) > 0 {
			fmt.Fprintf(w, "  of it stay: %s\n", strings.Join(ex.Stays, ", "))
		}
		if len(ex.Changed) > 0 {
			fmt.Fprintf(w, "  leave changed, as a pseudonym or without names that stay: %s\n", strings.Join(ex.Changed, ", "))
		}
	}
	for _, d := range ex.Detections {
		fmt.Fprintf(w, "  a rule on this site fired; would leave too: %s\n", pretty(d))
	}
	if len(ex.Earlier) > 0 {
		fmt.Fprintf(w, "  would leave with it, as the events behind it, though kept until now: %s\n", numbers(ex.Earlier))
	}
	for _, n := range ex.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	fmt.Fprintln(w)
}

// numbers writes "line 3" or "lines 3, 4 and 7".
func numbers(list []int) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = strconv.Itoa(n)
	}
	if len(text) == 1 {
		return "line " + text[0]
	}
	last := len(text) - 1
	return "lines " + strings.Join(text[:last], ", ") + " and " + text[last]
}

// pretty writes a flat JSON object as name=value pairs.
func pretty(js []byte) string {
	var m map[string]json.RawMessage
	if json.Unmarshal(js, &m) != nil {
		return string(js)
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := string(m[k])
		var s string
		if json.Unmarshal(m[k], &s) == nil && !strings.ContainsAny(s, " \t\"\\") {
			v = s
		}
		fmt.Fprintf(&b, " %s=%s", k, v)
	}
	return strings.TrimSpace(b.String())
}
