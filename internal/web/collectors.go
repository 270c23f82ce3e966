package web

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/chart"
	"tocsin/internal/member"
)

// collectorsShown bounds the list; a search finds the others.
const collectorsShown = 200

// clockSlack is how far a collector's clock may be off before its page says so;
// the hub corrects for it in any case.
const clockSlack = 5 * time.Second

func (s *server) collectors(w http.ResponseWriter, r *request) error {
	list, err := s.o.Members.Collectors(r.Context(), r.scope)
	if err != nil {
		return err
	}
	v := collectorsView{Wide: r.staff(), CanEnrol: r.principal.Role == access.Operator, Organisation: r.organisation}
	v.Text, v.All = strings.TrimSpace(r.FormValue("q")), len(list)
	want := strings.ToLower(v.Text)
	for i := range list {
		c := &list[i]
		if want == "" || strings.Contains(strings.ToLower(c.Name+"\n"+c.Organisation+"\n"+c.Site+"\n"+c.ID), want) {
			v.Collectors = append(v.Collectors, s.collectorView(c, r))
		}
	}
	v.Found = len(v.Collectors)
	// What needs somebody stands first.
	urgency := map[string]int{"bad": 0, "warn": 1, "good": 2}
	slices.SortStableFunc(v.Collectors, func(a, b collectorView) int { return urgency[a.Tone] - urgency[b.Tone] })
	v.Collectors = v.Collectors[:min(len(v.Collectors), collectorsShown)]
	return s.show(w, r, "collectors", s.page(r, "Collectors", "/collectors", v))
}

func (s *server) collector(w http.ResponseWriter, r *request) error {
	return s.showCollector(w, r, http.StatusOK, nil)
}

func (s *server) showCollector(w http.ResponseWriter, r *request, status int, problems []problem) error {
	c, err := s.o.Members.Collector(r.Context(), r.scope, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := s.collectorView(&c, r)
	org, err := s.o.Members.Organisation(r.Context(), r.scope, c.Tenant)
	if err != nil {
		return err
	}
	s.explain(&v, &c, org.Policy)
	p := s.page(r, c.Name, "/collectors", v)
	p.Problem, p.Width = problems, "medium"
	return s.showStatus(w, r, status, "collector", p)
}

func (s *server) confirmCollector(w http.ResponseWriter, r *request) error {
	words := strings.TrimSpace(r.PostFormValue("words"))
	if words == "" {
		return s.showCollector(w, r, http.StatusUnprocessableEntity, []problem{{"words", "Type the words that the collector shows"}})
	}
	err := s.o.Members.ConfirmWords(r.Context(), r.scope, r.principal.UserID, r.PathValue("id"), words)
	switch {
	case errors.Is(err, member.ErrWords):
		return s.showCollector(w, r, http.StatusUnprocessableEntity, []problem{{"words", "These are not the words that the collector shows. Read them again. If they still differ, do not confirm it, and tell the centre"}})
	case errors.Is(err, member.ErrWordTries):
		return s.showCollector(w, r, http.StatusUnprocessableEntity, []problem{{"words", "The words were wrong too often. This collector has to be shut out and enrolled again; ask the centre for a new token"}})
	case errors.Is(err, member.ErrRevoked):
		return s.showCollector(w, r, http.StatusUnprocessableEntity, []problem{{"words", "This collector was shut out. Enrol it again with a new token"}})
	case err != nil:
		return err
	}
	s.flash(r, "The collector is confirmed. What it sends counts from now on.")
	return redirect(w, r, "/collectors/"+r.PathValue("id"))
}

func (s *server) revokeCollector(w http.ResponseWriter, r *request) error {
	why := strings.TrimSpace(r.PostFormValue("why"))
	if len([]rune(why)) < 3 {
		return s.showCollector(w, r, http.StatusUnprocessableEntity, []problem{{"why", "Say why, in a few words; the member can read it"}})
	}
	if err := s.o.Members.Revoke(r.Context(), r.scope, r.principal.UserID, r.PathValue("id"), why); err != nil {
		if errors.Is(err, member.ErrInvalid) {
			return s.showCollector(w, r, http.StatusUnprocessableEntity, []problem{{"why", plainError(err)}})
		}
		return err
	}
	s.flash(r, "The collector is shut out.")
	return redirect(w, r, "/collectors/"+r.PathValue("id"))
}

// collectorView turns a collector's record into what its page shows.
func (s *server) collectorView(c *member.Collector, r *request) collectorView {
	now := s.o.Now()
	_, reasons, _ := policyWords("metadata")
	v := collectorView{
		ID: c.ID, Name: c.Name, Site: c.Site, Organisation: c.Organisation, Tenant: uint32(c.Tenant), Version: c.Version, LastData: instant(c.LastBatchNS),
		Balance: balanceOf(&c.Balance, reasons), Quarantined: c.State == member.Quarantined,
		CanConfirm: r.principal.Role != access.Analyst && c.State == member.Quarantined, CanRevoke: r.principal.Role == access.Operator && c.State != member.Revoked,
	}
	v.Clock, v.ClockBad = clockText(c.ClockOffset)
	seen := instant(c.LastSeenNS)
	state := c.Condition(now)
	v.Status, v.VerdictHeading, v.Tone, v.VerdictTone = state.String(), state.String(), state.Tone(), state.Tone()
	switch state {
	case member.ShutOut:
		v.StatusText = fmt.Sprintf("The centre takes nothing from it since %s: %s", full(instant(c.RevokedNS)), c.RevokeReason)
	case member.Unconfirmed:
		v.StatusText = "It has joined and sends, but nothing is shown or shared until its check words are confirmed."
	case member.Silent:
		v.StatusText = fmt.Sprintf("Nothing has been heard from it since %s (%s). Check that the machine runs and can reach the internet; on it, run tocsin-collector doctor.", full(seen), relative(now.Sub(seen)))
		if c.LastSeenNS == 0 {
			v.StatusText = "Nothing has ever been heard from it. Check that the machine runs and can reach the internet; on it, run tocsin-collector doctor."
		}
	case member.Copied:
		v.VerdictHeading = "There may be a copy of this collector"
		v.StatusText = "Two different records came under one number. Was the machine restored from a backup or cloned? Nothing is lost; the centre looks into it."
	case member.Unbalanced:
		v.VerdictHeading = "Some lines are not accounted for"
		v.StatusText = "The sums below do not meet. The centre looks into it."
	case member.Idle:
		v.StatusText = "It is connected, but no device has sent it a line. Point your firewall's syslog at this machine."
	case member.NotUnderstood:
		v.VerdictHeading = "Many lines are not understood"
		v.StatusText = "More than a fifth of the lines is in a form that is not known yet. They are kept at home. Tell the centre which device sends them."
	default:
		v.VerdictHeading = "Working"
		v.StatusText = "It is heard. What your devices sent it is understood and accounted for, and what should leave has left."
		if r.staff() {
			v.StatusText = "It is heard. What their devices sent it is understood and accounted for, and what should leave has left."
		}
	}
	kept := "–"
	if c.Balance.Received > 0 {
		kept = fmt.Sprintf("%.1f%%", 100*float64(v.Balance.KeptAll+v.Balance.NotUnderstood)/float64(c.Balance.Received))
	}
	last := tile{Label: "Last data", Figure: "none yet", Words: true}
	if c.LastBatchNS > 0 {
		last.Figure, last.Note = short(now.Sub(v.LastData)), full(v.LastData)
	}
	understood := tile{Label: "Not understood", Figure: chart.Number(v.Balance.NotUnderstood), Note: "of " + chart.Number(v.Balance.Received) + " lines"}
	if state == member.NotUnderstood {
		understood.Tone = "bad"
	}
	clock := tile{Label: "Clock", Figure: v.Clock, Words: true, Note: "Fine", Tone: "good"}
	if v.ClockBad {
		clock.Note, clock.Tone = "Set the machine's clock by NTP. The centre corrects for it meanwhile", "bad"
	}
	v.Tiles = []tile{last, {Label: "Kept at home", Figure: kept, Note: chart.Number(v.Balance.KeptAll+v.Balance.NotUnderstood) + " lines", Tone: "good"}, understood, clock}
	v.BalanceNote = "Sums since the collector joined, as its last batch stated them. What waits at home is worked out from them."
	return v
}

// explain fills in what the data protection officer asks: what leaves, why, and
// how often it did.
func (s *server) explain(v *collectorView, c *member.Collector, policy string) {
	title, reasons, fields := policyWords(policy)
	v.Balance = balanceOf(&c.Balance, reasons)
	v.PolicyText = fmt.Sprintf("Agreed as the most that may leave: the policy “%s”. %s The collector's own policy may be stricter, never wider. For each line the first kind that fits decides.", policy, title)
	for _, r := range reasons {
		counts, why := c.Balance.Kept, "Stays, only counted"
		if r.leaves {
			counts, why = c.Balance.Left, "Leaves, without content"
			if policy == "full" {
				why = "Leaves, with the raw line"
			}
		}
		v.Explained = append(v.Explained, explained{Text: r.text, Leaves: r.leaves, Why: why, Count: int64(counts[r.word])})
	}
	v.Explained = append(v.Explained, explained{Text: "Not understood", Why: "Stays, kept in the archive", Count: int64(c.Balance.NotUnderstood)})
	if len(fields) > 0 && fields[0] != "*" {
		v.Fields = fields
	}
	v.Facts = []fact{{"Collector", c.ID, true}, {"Joined", full(instant(c.RegisteredNS)), false}}
	if c.ConfirmedNS > 0 {
		v.Facts = append(v.Facts, fact{"Check words confirmed", full(instant(c.ConfirmedNS)), false})
	}
	v.Facts = append(v.Facts, fact{"Last heard", full(instant(c.LastSeenNS)), false})
	if c.CertificateNS > 0 {
		v.Facts = append(v.Facts, fact{"Certificate", "valid until " + full(instant(c.CertificateNS)) + "; it is renewed without anybody's help", false})
	}
	if c.LastBatchNS > 0 {
		v.Facts = append(v.Facts, fact{"Last batch", fmt.Sprintf("number %s of its stream, %s", chart.Number(int64(c.LastSeq)), sealedAgo(c.Lag)), false})
	}
	v.Facts = append(v.Facts, fact{"Batches", fmt.Sprintf("%s in %d %s, %s", chart.Number(int64(c.Balance.Batches)), c.Streams, plural(int64(c.Streams), "stream"), bytesText(c.Balance.Bytes)), false})
	for _, f := range []fact{{"Version", c.Version, false}, {"Policy it runs", c.Policy, true}, {"Parsers", c.ParserPack, true}, {"Rules on site", c.RulePack, true}, {"Indicators", c.IndicatorSet, true}} {
		if f.Text != "" {
			v.Facts = append(v.Facts, f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Balance.Other)) {
		if n := c.Balance.Other[name]; n > 0 {
			v.Facts = append(v.Facts, fact{otherWord(name), chart.Number(int64(n)), false})
		}
	}
}

func otherWord(name string) string {
	switch name {
	case "udp_dropped":
		return "Lost before they were read (UDP)"
	case "oversized":
		return "Lines cut because they were too long"
	case "clock_replaced":
		return "Lines whose device clock was wrong"
	}
	words := strings.NewReplacer("_", " ", ".", " ")
	if way, ok := strings.CutPrefix(name, "input."); ok {
		if by, what, ok := strings.Cut(way, "."); ok { // input.syslog.lines
			return sentence(words.Replace(what)) + " by " + words.Replace(by)
		}
	}
	return sentence(words.Replace(name))
}

// balanceOf sets out the account. Lines and events are separate sums: one line
// that leaves is one event, and the collector makes some events of its own.
func balanceOf(b *member.Balance, reasons []policyReason) balance {
	out := balance{Received: int64(b.Received), NotUnderstood: int64(b.NotUnderstood), Sent: int64(b.Accepted), Stored: int64(b.Stored), StoredKnown: true, Waiting: b.Waiting, WaitingKnown: true}
	list := func(counts map[string]uint64, leaves bool) (rows []reason, all int64) {
		for _, word := range slices.Sorted(maps.Keys(counts)) {
			if counts[word] > 0 {
				rows = append(rows, reason{reasonText(reasons, word, leaves), int64(counts[word])})
				all += int64(counts[word])
			}
		}
		slices.SortStableFunc(rows, func(a, b reason) int { return int(min(1, max(-1, b.Count-a.Count))) })
		return rows, all
	}
	var made, dropped int64
	out.Kept, out.KeptAll = list(b.Kept, false)
	out.Left, out.LeftAll = list(b.Left, true)
	out.Made, made = list(b.Made, true)
	out.Dropped, dropped = list(b.Dropped, false)
	out.ToSend = out.LeftAll + made
	out.LineGap = out.Received - out.NotUnderstood - out.KeptAll - out.LeftAll
	out.InFlight = b.InFlight
	out.Refused = int64(b.Refused)
	out.Lost = dropped
	out.Gap = b.Gap
	return out
}

func clockText(offset time.Duration) (text string, bad bool) {
	abs := offset.Abs()
	switch {
	case abs < 100*time.Millisecond:
		return "Exact", false
	case abs < time.Minute:
		text = fmt.Sprintf("%.1f s", abs.Seconds())
	case abs < 2*time.Hour:
		text = fmt.Sprintf("%d min", int(abs.Minutes()))
	default:
		text = fmt.Sprintf("%d h", int(abs.Hours()))
	}
	if offset < 0 {
		return text + " slow", abs > clockSlack
	}
	return text + " fast", abs > clockSlack
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// instant is a record's time: UTC nanoseconds, 0 for never.
func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// sealedAgo says how long after its sealing a batch came. Two clocks are compared, so it can be less than nothing.
func sealedAgo(lag time.Duration) string {
	if lag < time.Millisecond {
		return "as soon as it was sealed"
	}
	return took(lag) + " after it was sealed"
}
