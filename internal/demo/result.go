package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"tocsin/internal/app/status"
	"tocsin/internal/load/local"
)

// Result is what `tocsin demo --once` reports.
type Result struct {
	OK         bool                        `json:"ok"` // every expected alert, no other, every line accounted for
	Seconds    float64                     `json:"seconds"`
	FirstAlert float64                     `json:"first_alert_seconds"` // from the start of the program; 0 when there was none
	Balanced   bool                        `json:"balanced"`
	Members    []MemberResult              `json:"members"`
	Expected   []Expectation               `json:"expected"`
	Missing    []Expectation               `json:"missing"`
	Unexpected []status.Alert              `json:"unexpected"`
	Alerts     []status.Alert              `json:"alerts"`
	Latency    map[string]status.Quantiles `json:"latency"` // receipt_to_alert_ms and others, as the hub measured since it started
	Restarts   int                         `json:"restarts"`
}

// MemberResult says where each line of a member went. Lines: Devices = Received + Lost. Received = NotUnderstood + ΣKept + ΣLeft.
// Events: ΣLeft + ΣMade = Sent + Waiting + ΣDropped; Sent = Acknowledged; Acknowledged = Stored + Dead.
type MemberResult struct {
	Name    string `json:"name"`
	Devices uint64 `json:"sent_by_devices"`
	// Lost are lines that were with the operating system, in a socket of the collector, when the collector was killed: nobody had
	// received them. NotSent are datagrams that it refused because nobody listened.
	Lost          map[string]uint64 `json:"lost_on_the_way"`
	NotSent       uint64            `json:"not_sent"`
	Received      uint64            `json:"received"`
	NotUnderstood uint64            `json:"not_understood"`
	Kept          map[string]uint64 `json:"kept_at_home"`
	Left          map[string]uint64 `json:"left"`
	Made          map[string]uint64 `json:"made_on_site"`
	Dropped       map[string]uint64 `json:"dropped"`
	Waiting       uint64            `json:"waiting"`
	Sent          uint64            `json:"sent"`
	Acknowledged  uint64            `json:"acknowledged"`
	Stored        uint64            `json:"stored"`
	Dead          uint64            `json:"dead"`
	Gaps          []string          `json:"gaps"` // what does not add up, in words
}

// settleTime is how long after the last line a collector must have said that nothing more came.
const settleTime = 3 * time.Second

// maxInSockets is how many lines one kill may cost: more than that was not in a socket at that moment, and stays unaccounted for.
const maxInSockets = 100

// result takes stock.
func (d *demo) result(ctx context.Context, st status.Status) *Result {
	alerts := d.fresh(st)
	sort.Slice(alerts, func(i, j int) bool { return alerts[i].Raised < alerts[j].Raised })
	d.mu.Lock()
	first := d.first
	d.mu.Unlock()
	r := &Result{Seconds: time.Since(d.start).Seconds(), FirstAlert: first.Seconds(), Expected: expectations(), Alerts: alerts, Latency: st.Latency, Balanced: true}
	r.Unexpected = compare(r.Expected, alerts, d.name, d.began.UnixNano())
	r.Missing = missing(r.Expected)
	r.Restarts = d.hub.Restarts()
	for _, m := range d.members {
		r.Restarts += m.child.Restarts()
		c, known := collectorOf(st, m.tenant)
		x := MemberResult{
			Name: m.name, Devices: m.feeder.sent.Load(), NotSent: m.feeder.refused.Load(), Lost: map[string]uint64{}, Received: c.Received - m.base.Received, NotUnderstood: c.NotUnderstood - m.base.NotUnderstood,
			Kept: minus(c.Kept, m.base.Kept), Left: minus(c.Left, m.base.Left), Made: minus(c.Made, m.base.Made), Dropped: minus(c.Dropped, m.base.Dropped),
			Sent: c.Sent - m.base.Sent, Acknowledged: c.Acknowledged - m.base.Acknowledged, Stored: c.Stored - m.base.Stored, Dead: c.Dead - m.base.Dead,
		}
		site, err := local.SiteStatus(ctx, &m.socket)
		x.Waiting = site.Waiting
		// Only when the collector has reported all that it has is the difference what was lost; before, it is on its way.
		settled := err == nil && !d.stopped.IsZero() && time.Since(d.stopped) > settleTime && site.Counts["received"] == c.Received
		if lost := x.Devices - x.Received; settled && x.Devices > x.Received && lost <= uint64(m.child.Restarts())*maxInSockets {
			x.Lost["collector_killed"] = lost
		}
		x.check(known, err)
		if n := site.Counts["udp_dropped"]; n > 0 && x.Devices != x.Received {
			x.Gaps = append(x.Gaps, fmt.Sprintf("the kernel has dropped %d datagrams before the collector could read them", n))
		}
		r.Balanced = r.Balanced && len(x.Gaps) == 0
		r.Members = append(r.Members, x)
	}
	r.OK = r.Balanced && len(r.Missing) == 0 && len(r.Unexpected) == 0
	return r
}

// check adds up, and names what does not.
func (x *MemberResult) check(known bool, local error) {
	gap := func(ok bool, format string, args ...any) {
		if !ok {
			x.Gaps = append(x.Gaps, fmt.Sprintf(format, args...))
		}
	}
	gap(known, "the hub has heard nothing from the collector")
	gap(local == nil, "the collector does not answer on its own socket: %v", local)
	gap(x.Devices == x.Received+sum(x.Lost), "the devices sent %d lines, the collector reported %d", x.Devices, x.Received)
	gap(x.Received == x.NotUnderstood+sum(x.Kept)+sum(x.Left), "of %d lines received, %d were not understood, %d stayed and %d left", x.Received, x.NotUnderstood, sum(x.Kept), sum(x.Left))
	gap(sum(x.Left)+sum(x.Made) == x.Sent+x.Waiting+sum(x.Dropped), "%d lines left and %d events were made on site, but %d were sent, %d wait and %d were dropped", sum(x.Left), sum(x.Made), x.Sent, x.Waiting, sum(x.Dropped))
	gap(x.Waiting == 0, "%d events still wait on the site", x.Waiting)
	gap(x.Sent == x.Acknowledged, "%d events were sent, %d acknowledged", x.Sent, x.Acknowledged)
	gap(x.Acknowledged == x.Stored+x.Dead, "%d events were acknowledged, %d stored and %d kept aside", x.Acknowledged, x.Stored, x.Dead)
	gap(sum(x.Dropped) == 0, "%d events were dropped on the site", sum(x.Dropped))
	gap(x.Dead == 0, "%d events were kept aside as unreadable", x.Dead)
}

// Gap is the first thing that does not add up, "" when all does.
func (r *Result) Gap() string {
	for _, m := range r.Members {
		if len(m.Gaps) > 0 {
			return m.Name + ": " + m.Gaps[0]
		}
	}
	return ""
}

// minus subtracts an earlier count, leaving out what did not change.
func minus(now, then map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for k, v := range now {
		if v != then[k] {
			out[k] = v - then[k]
		}
	}
	return out
}

// WriteJSON writes the result as one JSON object on one line.
func (r *Result) WriteJSON(w io.Writer) error {
	for _, p := range []*[]Expectation{&r.Missing, &r.Expected} {
		if *p == nil {
			*p = []Expectation{}
		}
	}
	for i := range r.Members {
		if r.Members[i].Gaps == nil {
			r.Members[i].Gaps = []string{}
		}
	}
	if r.Unexpected == nil {
		r.Unexpected = []status.Alert{}
	}
	return json.NewEncoder(w).Encode(r)
}

// WriteText writes the result for people.
func (r *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	b.WriteString("\nWhere every line went\n")
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tfrom devices\treceived\tnot understood\tkept at home\tleft\tmade on site\tsent\tacknowledged\tstored\t\n")
	for _, m := range r.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", m.Name, number(m.Devices), number(m.Received), number(m.NotUnderstood), number(sum(m.Kept)), number(sum(m.Left)), number(sum(m.Made)), number(m.Sent), number(m.Acknowledged), number(m.Stored))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range r.Members {
		fmt.Fprintf(&b, "\n%s: kept at home: %s. Left: %s.\n", m.Name, byReason(m.Kept), byReason(m.Left))
		if n := sum(m.Lost); n > 0 {
			fmt.Fprintf(&b, "  Its collector was killed while %s lines were on their way to it: nobody has received them.\n", number(n))
		}
		for _, g := range m.Gaps {
			fmt.Fprintf(&b, "  NOT ACCOUNTED FOR: %s\n", g)
		}
	}
	b.WriteString("\nAlerts\n")
	t = tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, w := range r.Expected {
		mark := "ok"
		if w.Found == 0 {
			mark = "MISSING"
		}
		who := w.Member
		if who == "" {
			who = "all members"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%d grouped\tafter %.1f s\t%s\n", mark, who, w.Family, w.Entity, w.Count, float64(w.AfterMS)/1000, w.Meaning)
	}
	for _, a := range r.Unexpected {
		fmt.Fprintf(t, "  UNEXPECTED\ttenant %d\t%s\t%s\t%d grouped\t\t%s\n", a.Tenant, a.Family, a.Entity, a.Count, a.Title)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	q := r.Latency["receipt_to_alert_ms"]
	fmt.Fprintf(&b, "\nFrom a line's receipt at the collector to its alert: p50 %.0f ms, p95 %.0f ms, p99 %.0f ms (%d measured). First alert %.1f s after the start.\n", q.P50, q.P95, q.P99, q.N, r.FirstAlert)
	if r.OK {
		b.WriteString("All as it should be: every expected alert, no other, every line accounted for.\n")
	} else {
		fmt.Fprintf(&b, "NOT as it should be: %d alerts missing, %d unexpected, lines accounted for: %v.\n", len(r.Missing), len(r.Unexpected), r.Balanced)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func byReason(m map[string]uint64) string {
	if len(m) == 0 {
		return "nothing"
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return m[keys[i]] > m[keys[j]] || m[keys[i]] == m[keys[j]] && keys[i] < keys[j] })
	var parts []string
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s %s", number(m[k]), strings.ReplaceAll(k, "_", " ")))
	}
	return strings.Join(parts, ", ")
}
