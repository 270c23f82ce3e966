package report

import (
	"fmt"
	"slices"
	"strings"

	"tocsin/internal/chart"
)

// The sentences that HTML, PDF and mail share.

const (
	triedText   = "What the events were aimed at. Most come from machines that try every address on the internet, one after another; they do not mean that somebody chose you."
	noneTried   = "Nothing suspicious was reported in this week."
	placesText  = "The country of a network address does not show who is behind an attack: attackers use computers that they have taken over anywhere."
	nonePlaces  = "No address outside was reported in this week."
	adviceText  = "Chosen for what was seen at your connection, the most useful first. If you do only one thing, do the first."
	noCollector = "None is in service. Without one we see nothing of your connection; the page “Collectors” in the portal says how to set one up."
)

// subtitle names the member, with its area.
func (r *Report) subtitle() string {
	if r.Area != "" {
		return r.Organisation + " · " + r.Area
	}
	return r.Organisation
}

// Subtitle names the member, with its area.
func (r *Report) Subtitle() string { return r.subtitle() }

// Period says which days the report is about.
func (r *Report) Period() string {
	s := "Monday " + strings.Replace(r.Week.Words(), " to ", " to Sunday ", 1) + " (week " + fmt.Sprint(r.Week.Number) + ")"
	if r.Partial {
		to := r.To // the end of the hour that runs
		if r.Made.Before(to) {
			to = r.Made
		}
		s += ", which is not over: figures up to " + to.In(london).Format("Monday 2 January, 15:04 MST") + ", compared with the same part of the week before"
	}
	return s + "."
}

// InventedNote says that the figures are made up; "" when they are not.
func (r *Report) InventedNote() string {
	if !r.Invented {
		return ""
	}
	return "Some or all of this report shows a made-up past, for a demonstration. Nothing of it happened, and no organisation named here is meant."
}

// before writes the figure of the week before.
func (r *Report) before(n int64) string {
	if !r.hasBefore() {
		return "–"
	}
	return chart.Number(n)
}

// dayBefore is what the same day a week before had, in the table of days.
func (r *Report) dayBefore(d *Day) string {
	if r.hasBefore() && d.NoBefore {
		return "no data yet"
	}
	return r.before(d.Before)
}

// hasBefore says whether there is a week before to compare with.
func (r *Report) hasBefore() bool { return !r.Events.First }

// Tile is one figure at a glance.
type Tile struct{ Label, Figure, Note, Tone string }

// Tiles are the figures at a glance.
func (r *Report) Tiles() []Tile {
	tone := func(f Figure) string {
		if f.Way() == "down" {
			return "good"
		}
		return ""
	}
	t := []Tile{
		{"Suspicious events", r.Events.Number(), r.Events.Compared(), tone(r.Events)},
		{"Attacking addresses", r.Sources.Number(), r.Sources.Compared(), tone(r.Sources)},
		{"New alerts", r.NewAlerts.Number(), r.NewAlerts.Compared(), ""},
	}
	switch {
	case r.OpenGrave > 0:
		t[2].Note, t[2].Tone = chart.Number(int64(r.OpenGrave))+" serious, still open", "bad"
	case r.OpenAlerts > 0:
		t[2].Note, t[2].Tone = chart.Number(int64(r.OpenAlerts))+" still open", "warn"
	}
	var bad []Collector
	all := 0 // without those taken out of service
	for _, c := range r.Reporters {
		if c.State == outOfService {
			continue
		}
		if all++; c.Tone != "good" {
			bad = append(bad, c)
		}
	}
	c := Tile{Label: "Collector", Figure: "Healthy", Note: "sends and is heard", Tone: "good"}
	if all > 1 {
		c.Label, c.Note = "Collectors", fmt.Sprintf("all %d send and are heard", all)
	}
	switch {
	case all == 0:
		c.Figure, c.Note, c.Tone = "None", "see how to join", "warn"
	case len(bad) > 0 && all == 1:
		c.Figure, c.Note, c.Tone = bad[0].State, "needs a look", bad[0].Tone
	case len(bad) > 0:
		c.Figure, c.Note, c.Tone = "Needs a look", fmt.Sprintf("%d of %d not well", len(bad), all), "bad"
		if len(bad) == r.Standing.Waiting {
			c.Figure, c.Note, c.Tone = "One step left", count(int64(len(bad)), "collector")+": compare the check words", "warn"
		}
	case r.Unserved:
		c.Note = "joined after this week"
	case len(r.Quiet) > 0:
		c.Note, c.Tone = "again, after silence", "warn"
	}
	return append(t, c)
}

// AlertsText opens the list of alerts.
func (r *Report) AlertsText() string {
	if r.AllAlerts == 0 {
		return "No alert was raised in this week. There is nothing to do."
	}
	s := fmt.Sprintf("%s in this week (%s new; %s).", count(r.AllAlerts, "alert"), r.NewAlerts.Number(), r.NewAlerts.Compared())
	if n := int64(len(r.Alerts)); n < r.AllAlerts {
		s += fmt.Sprintf(" The %d gravest are shown.", n)
	}
	if r.PublicURL != "" {
		s += " You find each one, with its evidence, at " + r.PublicURL + "/alerts."
	}
	return s
}

// badge is the word for how grave it is.
func (a Alert) badge() string { return a.Severity }

// Facts are what is known of an alert in one line.
func (a Alert) Facts() string {
	parts := []string{a.Ref, a.State}
	if a.Subject != "" {
		parts = append(parts, "about "+clip(a.Subject, 80))
	}
	const day, clock = "Mon 2 Jan, ", "15:04"
	when := a.First.Format(day + clock)
	switch {
	case a.Last.Format(day+clock) == when:
	case a.Last.Format(day) == a.First.Format(day):
		when += " to " + a.Last.Format(clock)
	default:
		when += " to " + a.Last.Format(day+clock)
	}
	parts = append(parts, when, count(a.Events, "event"))
	if a.Older {
		parts = append(parts, "began before this week")
	}
	return strings.Join(parts, " · ")
}

// LinesText says in a sentence what stayed and what left.
func (r *Report) LinesText() string {
	l := r.Lines
	if l.Received.Now == 0 {
		if r.Unserved {
			return "No collector of yours was in service in this week, so there are no sums."
		}
		return "Your collector reported no line of your devices in this week."
	}
	share := 100 * l.KeptShare()
	stayed := fmt.Sprintf("%.1f%%", share)
	if share > 99.9 && share < 100 {
		stayed = "more than 99.9%"
	}
	s := fmt.Sprintf("Your devices wrote %s. %s of them never left your site; %s was sent to the centre as a sign of attack. The sums are by days of universal time.", count(l.Received.Now, "line"), stayed, count(l.Left.Now, "line"))
	if l.Left.Now != 1 {
		s = strings.Replace(s, " was sent", " were sent", 1)
	}
	if l.Lost > 0 {
		s += fmt.Sprintf(" %s could not be sent, because the collector's disk was full.", count(l.Lost, "event"))
	}
	return s
}

// QuietText names the days without a line; "" when there was none.
func (r *Report) QuietText() string {
	if len(r.Quiet) == 0 {
		return ""
	}
	days := slices.Clone(r.Quiet)
	last := days[len(days)-1]
	if len(days) > 1 {
		last = strings.Join(days[:len(days)-1], ", ") + " and " + last
	}
	return "No line was reported on " + last + ". Attacks on such days are not in this report."
}

// About says how the report was made and where to ask.
func (r *Report) About() []string {
	by := r.Scheme + " with Tocsin"
	if r.Scheme == "Tocsin" {
		by = "Tocsin"
	}
	out := []string{
		fmt.Sprintf("Made on %s for %s by %s. It is about this organisation only, and for it.", r.Made.In(london).Format("Monday 2 January 2006 at 15:04 MST"), r.Organisation, by),
		"A suspicious event is one line of your devices that shows a sign of attack: traffic that was turned away, a failed sign-in, something that a sensor recognised, or contact with a known attacker's address. Days and times are those of London; addresses and countries are counted by days of universal time. Low, Medium, High and Critical say how bad it is if it is what it looks like.",
		"If you think that somebody is inside your network: call your IT support first, leave the computers switched on but off the network, and write down what you saw. Report a cyber crime to the police on 0300 123 2040 (England, Wales and Northern Ireland) or 101 (Scotland). We never ask for a password.",
	}
	if note := r.InventedNote(); note != "" {
		out = append(out, note)
	}
	return out
}
