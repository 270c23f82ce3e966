package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/chart"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/member"
	"tocsin/internal/report"
)

// engineTime is how long a page waits for the event store before it shows the
// rest without it: the analyst must be able to work when the engine cannot.
const engineTime = 3 * time.Second

// shownEvents is how many events an alert's page lists; paneEvents how many the
// queue's right pane does.
const (
	shownEvents = 100
	paneEvents  = 6
	besideShown = 5 // other alerts of the same source
)

var verdicts = []option{{Value: "true_positive", Text: "A real attack"}, {Value: "benign", Text: "Real, but harmless"}, {Value: "false_positive", Text: "False alarm"}, {Value: "duplicate", Text: "Already known"}}

func verdictWord(v string) string {
	for _, o := range verdicts {
		if o.Value == v {
			return o.Text
		}
	}
	return sentence(strings.ReplaceAll(v, "_", " "))
}

// alertRow turns an alert into a line of a list.
func (s *server) alertRow(a *alert.Alert) alertRow {
	row := alertRow{
		ID: a.ID, Number: a.Ref, Severity: a.Severity.String(), Risk: a.Score, FirstSeen: instant(a.FirstNS), LastSeen: instant(a.LastNS), Title: a.Title,
		Organisation: a.Organisation, Events: a.Count, Assignee: a.AssigneeName, Sort: sortKey(a), PlainTitle: a.Title,
	}
	if a.Tenant == access.Centre {
		row.Organisation = "Several members"
	}
	switch {
	case a.EntityKind == "source" && strings.Contains(a.Entity, "/") && a.Source != "": // an IPv6 network
		row.Subject = a.Entity
	case a.EntityKind == "source", a.EntityKind == "user", a.EntityKind == "host":
		row.Subject = a.Entity
	case a.Source != "":
		row.Subject = a.Source
	default:
		row.Subject = a.User
	}
	if len(a.Details.Techniques) > 0 {
		row.Technique = a.Details.Techniques[0]
	}
	switch {
	case a.State == alert.StateClosed:
		row.StateText = "Closed: " + lower(verdictWord(a.Verdict))
	case a.State == alert.StateSuppressed:
		row.StateText = "Suppressed"
	case a.EscalatedNS > 0:
		row.StateText = "Escalated"
	case a.AcknowledgedNS > 0:
		row.StateText = "Member has dealt with it"
	case a.State == alert.StateAssigned:
		row.StateText = "Assigned"
	}
	switch {
	case a.State == alert.StateClosed:
		row.PlainState = "Over"
	case a.State == alert.StateSuppressed:
		row.PlainState = "Set aside"
	case a.AcknowledgedNS > 0:
		row.PlainState = "Dealt with"
	case a.Assignee != "":
		row.PlainState = "An analyst is on it"
	}
	if t := a.Details.Text; t.Title != "" {
		row.PlainTitle = t.Title
	}
	row.Over, row.Done = !a.Open, a.AcknowledgedNS > 0
	if t := a.Details.Text; t.What != "" || t.Do != "" {
		row.Advice = &advice{What: t.What, Do: t.Do}
	}
	return row
}

// sortKey orders rows as the queue does: graver first, then newer.
func sortKey(a *alert.Alert) string { return fmt.Sprintf("%03d-%020d-%012d", a.Score, a.LastNS, a.Num) }

// alertView is everything an alert's page shows. Only a missing alert is an
// error; what the event store cannot say is said instead.
func (s *server) alertView(r *request, a *alert.Alert, pane bool) (*alertView, error) {
	ctx := r.Context()
	v := &alertView{
		alertRow: s.alertRow(a), Pane: pane, Back: "/queue", Reason: a.Details.Reason, Family: a.Family, Source: a.Source, User: a.User, Host: a.Host,
		CanAct: r.staff(), CanNote: true, CanAcknowledge: !r.staff() && a.Open && a.AcknowledgedNS == 0,
		Mine: a.Assignee == r.principal.UserID, Escalated: a.EscalatedNS > 0, Closed: !a.Open, Late: a.Late, Verdicts: verdicts, EventsInt: int(min(a.Count, 1<<31)),
	}
	if r.staff() && a.Tenant != access.Centre {
		v.MemberHref = fmt.Sprintf("/members/%d", a.Tenant)
	}
	for i, rule := range a.Details.Rules {
		if i == 0 {
			v.Rule, v.RuleID = rule.Title, rule.ID
			continue
		}
		v.OtherRules = append(v.OtherRules, rule.Title)
	}
	v.Scoring = a.Details.Scoring
	if a.Open || r.staff() { // a member is not sent running for what is over
		v.Guides = s.guides(a)
	}
	for _, st := range a.Details.Steps {
		if st.Text == a.Details.Reason {
			continue // it stands right above
		}
		v.Steps = append(v.Steps, step{instant(st.Time), st.Text})
	}
	slices.SortStableFunc(v.Steps, func(a, b step) int { return a.Time.Compare(b.Time) })
	if len(v.Steps) == 1 {
		v.Steps = nil // a list of one says no more than when it began
	}
	v.Techniques = techniquesOf(a.Details.Tags)
	if len(v.Techniques) == 0 {
		for _, id := range a.Details.Techniques {
			v.Techniques = append(v.Techniques, technique{id, techniqueNames[id]})
		}
	}
	else_, err := s.o.Alerts.AlsoSeen(ctx, r.scope, a.ID)
	if err != nil {
		return nil, err
	}
	if else_.Known && else_.Members > 0 {
		v.AlsoSeenLabel, v.AlsoSeen = "Also seen at", fmt.Sprintf("%s other %s around the same day", chart.Number(else_.Members), plural(else_.Members, "member"))
		if a.Tenant == access.Centre { // it is about them all
			v.AlsoSeenLabel, v.AlsoSeen = "Seen at", fmt.Sprintf("%s %s around the same day", chart.Number(else_.Members), plural(else_.Members, "member"))
		}
		if !r.staff() {
			v.AlsoSeen = "about " + v.AlsoSeen
		}
		for i := range else_.Alerts {
			v.Elsewhere = append(v.Elsewhere, actionLink{Text: else_.Alerts[i].Organisation, Href: "/alerts/" + else_.Alerts[i].ID, Link: else_.Alerts[i].Ref})
		}
	}
	beside, err := s.o.Alerts.Beside(ctx, r.scope, a.ID, besideShown)
	if err != nil {
		return nil, err
	}
	for i := range beside {
		row := s.alertRow(&beside[i])
		title := row.Title
		if !r.staff() {
			title = row.PlainTitle
		}
		v.Beside = append(v.Beside, besideAlert{row.Severity, title, "/alerts/" + row.ID})
	}
	v.Graver = a.Open && len(beside) > 0 && beside[0].Severity > a.Severity
	history, err := s.o.Alerts.Timeline(ctx, r.scope, a.ID)
	if err != nil {
		return nil, err
	}
	for _, h := range history {
		v.Timeline = append(v.Timeline, activity(h))
	}
	v.Tone, v.VerdictHeading, v.VerdictText = memberVerdict(a)
	ids, err := s.o.Alerts.Events(ctx, r.scope, a.ID)
	if err != nil {
		return nil, err
	}
	s.evidence(r, a, v, ids)
	return v, nil
}

// evidence asks the event store for the events behind an alert and what its
// source did around it.
func (s *server) evidence(r *request, a *alert.Alert, v *alertView, ids []event.ID) {
	ctx, cancel := context.WithTimeout(r.Context(), engineTime)
	defer cancel()
	shown := shownEvents
	if v.Pane {
		shown = paneEvents
	}
	slices.Reverse(ids) // newest first
	ids = ids[:min(len(ids), shown)]
	v.NoEvidence = "The events that made this alert are not stored: the finding was made on the member's site, and its policy keeps them there."
	list, err := s.o.Events.ByIDs(ctx, r.scope, ids)
	if err != nil {
		s.o.Logger.ErrorContext(ctx, "reading an alert's events", "alert", a.Ref, "error", err)
		v.EvidenceProblem = "The events cannot be read at the moment. Everything else on this page is complete. Try again in a minute."
	}
	if len(ids) > 0 && len(list) == 0 {
		v.NoEvidence = "The events that made this alert are on their way into the store, or their time there has ended."
	}
	slices.SortStableFunc(list, func(a, b eventstore.Stored) int { return int(min(1, max(-1, b.Time-a.Time))) })
	best := 0
	for i := range list {
		e := list[i]
		v.Evidence = append(v.Evidence, evidenceOf(e))
		if raw := e.Raw(); raw != "" {
			v.Raw = append(v.Raw, raw)
		}
		if n := slices.Index(proofs, e.Str(event.TocsinSourceProof)); n > best && (a.Source == "" || e.Text(event.SourceIP) == a.Source) {
			best = n
		}
		if e.Text(event.SourceIP) == a.Source && a.Source != "" {
			if v.Country == "" {
				v.Country = strings.Clone(e.Str(event.SourceGeoCountryISOCode))
			}
			if n, ok := e.Int(event.SourceASNumber); ok && v.Network == nil {
				v.Network = &network{AS: fmt.Sprintf("AS%d", n), Name: strings.Clone(e.Str(event.SourceASOrganizationName))}
			}
		}
	}
	if len(list) > 0 && a.Source != "" {
		v.ProofText = proofWords[best]
	}
	ip, ipErr := netip.ParseAddr(a.Source)
	if ipErr == nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()) {
		v.Country, v.Network = "", nil // an inside address is in no country of its own
	}
	if err != nil {
		return
	}
	if ipErr == nil && !ip.IsPrivate() && (v.Country == "" || v.Network == nil) {
		c, ok, err := s.o.Events.Address(ctx, r.scope, ip, 0, 0)
		if err != nil {
			s.o.Logger.WarnContext(ctx, "reading what is known of an address", "alert", a.Ref, "error", err)
		} else if ok {
			if v.Country == "" {
				v.Country = c.Country
			}
			if v.Network == nil && c.AS > 0 {
				v.Network = &network{AS: fmt.Sprintf("AS%d", c.AS), Name: c.ASName}
			}
		}
	}
	filter := eventstore.Filter{User: a.User}
	what := "Events of this account each hour"
	switch {
	case ipErr == nil:
		filter = eventstore.Filter{EitherIP: netip.PrefixFrom(ip, ip.BitLen())}
		what = "Events of " + a.Source + " each hour"
	case a.User == "":
		return
	}
	to := instant(a.LastNS).Truncate(time.Hour).Add(time.Hour)
	from := to.Add(-24 * time.Hour)
	filter.From, filter.To = from.UnixNano(), to.UnixNano()
	buckets, err := s.o.Events.Histogram(ctx, r.scope, filter, time.Hour)
	if err != nil {
		s.o.Logger.WarnContext(ctx, "reading what an alert's source did", "alert", a.Ref, "error", err)
		return
	}
	h := chart.Histogram{What: what, Series: severitySeries, Height: 92, Labels: 5, Columns: columns(buckets, from, to, 1)}
	if !v.Pane {
		h.Height, h.Labels = 130, 9
	}
	if h.Total() > 0 {
		v.Activity = h.SVG()
	}
}

// proofs are the ways a source address can be proved, weakest first, and what
// they mean to whoever reads the alert.
var (
	proofs     = []string{"none", "handshake", "session", "authenticated"}
	proofWords = []string{"None: the address may be forged", "A connection was made: the address is real", "A session was seen: the address is real", "Somebody signed in: the address is real"}
)

// evidenceOf is one event as a line of the table. The strings are copies.
func evidenceOf(e eventstore.Stored) evidence {
	text := func(k event.Key) string { return strings.Clone(e.Text(k)) }
	out := evidence{Time: instant(e.Time), Source: text(event.SourceIP), Country: text(event.SourceGeoCountryISOCode), Destination: text(event.DestinationIP), Port: text(event.DestinationPort), ActionRaw: text(event.EventAction), User: text(event.UserName)}
	out.Action = actionWord(out.ActionRaw)
	device := []string{text(event.ObserverVendor), text(event.ObserverProduct), text(event.ObserverName)}
	device = slices.DeleteFunc(device, func(s string) bool { return s == "" })
	out.Device = strings.Join(device, " ")
	who := ""
	if out.User != "" {
		who = " for " + out.User
	}
	service, _ := report.ServiceWords(e.Service)
	if second := strings.TrimLeft(service, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"); len(service)-len(second) == 1 { // not SSH, VPN
		service = lower(service)
	}
	switch e.Class {
	case eventstore.ClassDetection:
		out.Summary = text(event.TocsinDetectionReason)
	case eventstore.ClassIDS:
		out.Summary = strings.TrimSpace(text(event.RuleName))
		if out.Summary == "" {
			out.Summary = "Intrusion detection alert"
		}
	case eventstore.ClassIndicator:
		out.Summary = listedWord(e.Str(event.TocsinIndicatorKind), e.HasString(event.EventType, "denied"))
	case eventstore.ClassMalware:
		out.Summary = wordOr(text(event.RuleName), "Malware found")
	case eventstore.ClassSignInFailed:
		out.Summary = "Sign-in failed" + who
	case eventstore.ClassSignIn:
		out.Summary = "Signed in" + who
	case eventstore.ClassDenied:
		out.Summary = "Refused"
		if e.Service != "" && e.Service != eventstore.ServiceOther {
			out.Summary += " (" + service + ")"
		}
	case eventstore.ClassAllowed:
		out.Summary = "Let through"
	default:
		out.Summary = sentence(out.Action)
	}
	return out
}

// actionWord is a device's own word for what it did, as people read it: "tunnel up" for tunnel-up.
func actionWord(raw string) string {
	return strings.Join(strings.FieldsFunc(raw, func(r rune) bool { return r == '-' || r == '_' || unicode.IsSpace(r) }), " ")
}

// listedWord says what met the threat list: by indicator's kind, and whether it was refused.
func listedWord(kind string, denied bool) string {
	deed, thing := "Talked to", "an address"
	switch kind {
	case "domain":
		deed, thing = "Asked for", "a name"
	case "url":
		deed, thing = "Asked for", "a web address"
	case "file":
		deed, thing = "Met", "a file"
	}
	if denied {
		deed = "Refused:"
	}
	return deed + " " + thing + " on the threat list"
}

func wordOr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// activity says one entry of an alert's history as a sentence.
func activity(h alert.Activity) activityEntry {
	out := activityEntry{Time: instant(h.AtNS), Who: h.Name, Note: h.Text}
	if out.Who == "" {
		out.Who = "Tocsin"
	}
	switch h.Kind {
	case "opened":
		out.What = "raised this alert"
		if strings.HasPrefix(h.Text, "Opened: ") {
			out.Note = "" // the page's title says it
		}
	case "rule", "severity":
		out.What = "added to it"
	case "assigned":
		out.What, out.Note = "gave it to "+strings.TrimPrefix(h.Text, "Assigned to "), ""
		if h.Text == "Assigned to "+h.Name {
			out.What = "took it on"
		}
	case "unassigned":
		out.What, out.Note = "gave it back to the queue", ""
	case "escalated":
		out.What = "escalated it"
	case "acknowledged":
		out.What = "says it is dealt with"
	case "note":
		out.What = "wrote"
	case "closed":
		verdict, note, _ := strings.Cut(h.Text, ": ")
		out.What, out.Note = "closed it ("+lower(verdictWord(strings.ReplaceAll(verdict, " ", "_")))+")", note
	case "reopened":
		out.What = "opened it again"
	case "suppressed":
		out.What = "suppressed it"
	case "notice":
		out.What = "told the people on call"
	default:
		out.What = h.Kind
	}
	return out
}

// memberVerdict says in one line how worried to be.
func memberVerdict(a *alert.Alert) (tone, heading, text string) {
	switch {
	case a.State == alert.StateClosed:
		return "good", "This is over", "The centre closed it: " + lower(verdictWord(a.Verdict)) + ". Nothing more needs doing."
	case a.State == alert.StateSuppressed:
		return "good", "Known, and set aside", "The centre knows about this and counts it quietly."
	case a.AcknowledgedNS > 0:
		return "good", "You have dealt with it", "The centre sees that and closes it when it agrees."
	case a.Severity == alert.Critical:
		return "bad", "Please act on this now", "The centre's analysts see it too. What to do is below."
	case a.Severity == alert.High:
		return "warn", "Please look at this today", "What to do is below. The centre's analysts see it too."
	case a.Severity == alert.Medium:
		return "warn", "Worth a look this week", "It is probably not urgent."
	}
	return "good", "For your information", "Nothing urgent; we tell you so that you know."
}

// alertPage is one alert's page, for analysts or for a member.
func (s *server) alertPage(w http.ResponseWriter, r *request) error {
	a, err := s.o.Alerts.Get(r.Context(), r.scope, r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.showAlert(w, r, http.StatusOK, &a, "")
}

func (s *server) showAlert(w http.ResponseWriter, r *request, status int, a *alert.Alert, wrong string) error {
	pane := r.staff() && (r.FormValue("pane") == "1" || r.htmx() && r.PostFormValue("pane") != "")
	v, err := s.alertView(r, a, pane)
	if err != nil {
		return err
	}
	v.ActError = wrong
	if back := local(r.FormValue("back"), ""); back != "" {
		v.Back = back
	} else if u, err := url.Parse(r.Referer()); err == nil && u.Path == "/queue" && u.RawQuery != "" {
		v.Back = local("/queue?"+u.RawQuery, "/queue")
	}
	if pane {
		// The pane is swapped whatever became of it; the error stands inside.
		return s.render.part(w, http.StatusOK, "queue", "pane", v)
	}
	if !r.staff() {
		p := s.page(r, v.PlainTitle, "/alerts", v)
		if wrong != "" {
			p.Problem = []problem{{"note", wrong}}
		}
		return s.showStatus(w, r, status, "alert_member", p)
	}
	p := s.page(r, a.Title, "/queue", v)
	return s.showStatus(w, r, status, "alert", p)
}

// actOn answers a form about one alert: do it, then show the alert or its pane
// again; a refusal that a person can mend stands beside the form.
func (s *server) actOn(w http.ResponseWriter, r *request, did string, act func(id string) (alert.Alert, error)) error {
	before, err := s.o.Alerts.Get(r.Context(), r.scope, r.PathValue("id"))
	if err != nil {
		return err
	}
	after, err := act(before.ID)
	switch {
	case errors.Is(err, alert.ErrInvalid), errors.Is(err, alert.ErrClosed), errors.Is(err, alert.ErrNotClosed):
		return s.showAlert(w, r, http.StatusUnprocessableEntity, &before, refusal(err))
	case err != nil:
		return err
	}
	if r.htmx() {
		return s.showAlert(w, r, http.StatusOK, &after, "")
	}
	s.flash(r, did)
	to := "/alerts/" + after.ID
	if r.PostFormValue("pane") == "1" {
		to = local(r.PostFormValue("back"), to)
	}
	return redirect(w, r, to)
}

// refusal says why something was not done to an alert, without the operation's
// name in front.
func refusal(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, " the alert: "); ok {
		text = after
	}
	text = strings.ReplaceAll(text, alert.ErrInvalid.Error()+": ", "")
	return sentence(text) + "."
}

func (s *server) assign(w http.ResponseWriter, r *request) error {
	to, did := r.principal.UserID, "The alert is yours."
	if r.PostFormValue("to") == "nobody" {
		to, did = "", "The alert is back in the queue."
	}
	return s.actOn(w, r, did, func(id string) (alert.Alert, error) {
		return s.o.Alerts.Assign(r.Context(), r.principal, id, to)
	})
}

func (s *server) escalate(w http.ResponseWriter, r *request) error {
	return s.actOn(w, r, "The alert is escalated, and the people on call are told.", func(id string) (alert.Alert, error) {
		return s.o.Alerts.Escalate(r.Context(), r.principal, id, r.PostFormValue("note"))
	})
}

// errVerdict says that an alert was to be closed without a word on what it was.
var errVerdict = fmt.Errorf("%w: choose what it was", alert.ErrInvalid)

func (s *server) closeAlert(w http.ResponseWriter, r *request) error {
	return s.actOn(w, r, "The alert is closed.", func(id string) (alert.Alert, error) {
		if r.PostFormValue("verdict") == "" {
			return alert.Alert{}, errVerdict
		}
		return s.o.Alerts.Close(r.Context(), r.principal, id, r.PostFormValue("verdict"), r.PostFormValue("note"))
	})
}

func (s *server) reopen(w http.ResponseWriter, r *request) error {
	return s.actOn(w, r, "The alert is open again.", func(id string) (alert.Alert, error) {
		return s.o.Alerts.Reopen(r.Context(), r.principal, id, r.PostFormValue("note"))
	})
}

func (s *server) note(w http.ResponseWriter, r *request) error {
	did := "Your note is with the alert."
	if !r.staff() {
		did = "Sent. The centre's analysts see it with the alert."
	}
	return s.actOn(w, r, did, func(id string) (alert.Alert, error) {
		return s.o.Alerts.Note(r.Context(), r.principal, id, r.PostFormValue("note"), r.PostFormValue("shared") == "1")
	})
}

func (s *server) acknowledge(w http.ResponseWriter, r *request) error {
	return s.actOn(w, r, "Thank you. The centre sees that you have dealt with it.", func(id string) (alert.Alert, error) {
		return s.o.Alerts.Acknowledge(r.Context(), r.principal, id, r.PostFormValue("note"))
	})
}

func (s *server) suppress(w http.ResponseWriter, r *request) error {
	return s.actOn(w, r, "Suppressed. It goes on being counted.", func(id string) (alert.Alert, error) {
		d, err := time.ParseDuration(r.PostFormValue("for"))
		if err != nil || d <= 0 {
			return alert.Alert{}, fmt.Errorf("%w: choose for how long", alert.ErrInvalid)
		}
		return s.o.Alerts.Suppress(r.Context(), r.principal, id, s.o.Now().Add(d).UnixNano(), r.PostFormValue("note"))
	})
}

// memberAlerts is the member's list in plain words; the centre has the queue.
func (s *server) memberAlerts(w http.ResponseWriter, r *request) error {
	if r.staff() {
		return redirect(w, r, "/queue")
	}
	view := r.FormValue("view")
	if view != alert.ViewClosed {
		view = alert.ViewOpen
	}
	page, err := s.o.Alerts.Queue(r.Context(), r.scope, alert.Filter{View: view, After: r.FormValue("after"), Limit: 20})
	if err != nil {
		return err
	}
	facets, err := s.o.Alerts.Facets(r.Context(), r.scope, alert.Filter{View: view})
	if err != nil {
		return err
	}
	v := memberAlertsView{Organisation: r.organisation, EmptyHeading: "No open alerts", EmptyText: "Nothing needs you. We keep watching."}
	if view == alert.ViewClosed {
		v.EmptyHeading, v.EmptyText = "No closed alerts", "Alerts that are over are kept here."
	}
	for _, f := range facets.Views {
		switch f.Value {
		case alert.ViewOpen:
			v.Views = append(v.Views, link{Key: f.Value, Text: "Open", Count: f.Count, Current: view == f.Value})
		case alert.ViewClosed:
			v.Views = append(v.Views, link{Key: f.Value, Text: "Closed", Count: f.Count, Current: view == f.Value})
		}
	}
	for i := range page.Alerts {
		v.Rows = append(v.Rows, s.alertRow(&page.Alerts[i]))
	}
	if page.Next != "" {
		v.NextHref = "/alerts?view=" + view + "&after=" + url.QueryEscape(page.Next)
	}
	return s.show(w, r, "alerts_member", s.page(r, "Alerts", "/alerts", v))
}

// openAlerts is what a member's picture needs to know of its open alerts.
type openAlerts struct {
	total    int64
	standing member.Standing // what nobody at the member has dealt with
	grave    []alert.Alert   // of it critical and high ones, at most three
	newest   []alert.Alert   // in the queue's order, at most five
}

func (s *server) openAlerts(ctx context.Context, scope access.Scope) (openAlerts, error) {
	page, err := s.o.Alerts.Queue(ctx, scope, alert.Filter{View: alert.ViewOpen, Limit: 50})
	if err != nil {
		return openAlerts{}, err
	}
	counts, err := s.o.Alerts.OpenCounts(ctx, scope)
	if err != nil {
		return openAlerts{}, err
	}
	unanswered, err := s.o.Alerts.Unanswered(ctx, scope)
	if err != nil {
		return openAlerts{}, err
	}
	out := openAlerts{newest: page.Alerts[:min(5, len(page.Alerts))]}
	out.standing = member.Standing{Critical: unanswered[alert.Critical], High: unanswered[alert.High], Medium: unanswered[alert.Medium]}
	for _, n := range counts {
		out.total += n
	}
	for _, a := range page.Alerts {
		if a.AcknowledgedNS == 0 && a.Severity >= alert.High && len(out.grave) < 3 {
			out.grave = append(out.grave, a)
		}
	}
	return out, nil
}

// severityCounts are one member's open alerts.
type severityCounts struct{ all, critical, high int64 }

// openByMember counts the open alerts of each member, by the tenant's number.
func (s *server) openByMember(ctx context.Context, scope access.Scope) (map[string]severityCounts, error) {
	out := map[string]severityCounts{}
	for _, f := range []struct {
		filter alert.Filter
		add    func(c *severityCounts, n int64)
	}{
		{alert.Filter{}, func(c *severityCounts, n int64) { c.all = n }},
		{alert.Filter{Severity: []alert.Severity{alert.Critical}}, func(c *severityCounts, n int64) { c.critical = n }},
		{alert.Filter{Severity: []alert.Severity{alert.High}}, func(c *severityCounts, n int64) { c.high = n }},
	} {
		facets, err := s.o.Alerts.Facets(ctx, scope, f.filter)
		if err != nil {
			return nil, err
		}
		for _, t := range facets.Tenant {
			c := out[t.Value]
			f.add(&c, t.Count)
			out[t.Value] = c
		}
	}
	return out, nil
}
