package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tocsin/internal/alert"
	"tocsin/internal/chart"
	"tocsin/internal/event"
)

// rowsPerPage of the queue; a screen shows about thirty.
const rowsPerPage = 60

var queueViews = []struct{ key, text, one, many, emptyHeading, emptyText string }{
	{alert.ViewUnassigned, "Unassigned", "unassigned alert", "unassigned alerts", "Nothing waits", "Every open alert is somebody's. New ones appear here by themselves."},
	{alert.ViewMine, "Mine", "alert of mine", "alerts of mine", "Nothing is yours", "An alert that you assign to yourself stands here until it is closed."},
	{alert.ViewEscalated, "Escalated", "escalated alert", "escalated alerts", "Nothing is escalated", "Alerts that need more than one analyst stand here."},
	{alert.ViewOpen, "All open", "open alert", "open alerts", "No open alerts", "New ones appear here by themselves."},
	{alert.ViewClosed, "Closed", "closed alert", "closed alerts", "Nothing is closed yet", "Alerts that are over are kept here."},
	{alert.ViewSuppressed, "Suppressed", "suppressed alert", "suppressed alerts", "Nothing is suppressed", "What was set aside is counted here."},
}

// queueFilter reads the filters of a queue's address. Values that mean nothing
// are dropped; the store checks the rest.
func queueFilter(r *request) alert.Filter {
	q := r.URL.Query()
	f := alert.Filter{View: alert.ViewUnassigned, Me: r.principal.UserID, Text: q.Get("q"), After: q.Get("after"), Limit: rowsPerPage, Family: values(q, "family"), Sector: values(q, "sector"), Technique: values(q, "technique")}
	for _, v := range queueViews {
		if v.key == q.Get("view") {
			f.View = v.key
		}
	}
	for _, v := range values(q, "severity") {
		if sev, err := alert.ParseSeverity(v); err == nil && !slices.Contains(f.Severity, sev) {
			f.Severity = append(f.Severity, sev)
		}
	}
	for _, v := range values(q, "tenant") {
		if n, err := strconv.ParseUint(v, 10, 32); err == nil {
			f.Tenants = append(f.Tenants, event.TenantID(n))
		}
	}
	return f
}

func values(q url.Values, name string) []string {
	var out []string
	for _, v := range q[name] {
		if v = strings.TrimSpace(v); v != "" && len(v) <= 120 && len(out) < 50 && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// query writes the filters back as an address, without the page's mark.
func queryOf(f alert.Filter) url.Values {
	q := url.Values{}
	if f.View != alert.ViewUnassigned {
		q.Set("view", f.View)
	}
	if f.Text != "" {
		q.Set("q", f.Text)
	}
	for _, s := range f.Severity {
		q.Add("severity", s.String())
	}
	for _, t := range f.Tenants {
		q.Add("tenant", fmt.Sprint(t))
	}
	for name, list := range map[string][]string{"family": f.Family, "sector": f.Sector, "technique": f.Technique} {
		for _, v := range list {
			q.Add(name, v)
		}
	}
	return q
}

func href(path string, q url.Values) string {
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

func (s *server) queue(w http.ResponseWriter, r *request) error {
	f := queueFilter(r)
	list, err := s.o.Alerts.Queue(r.Context(), r.scope, f)
	if errors.Is(err, alert.ErrInvalid) && f.After != "" {
		// An old mark: the top of the queue is what was meant.
		f.After = ""
		list, err = s.o.Alerts.Queue(r.Context(), r.scope, f)
	}
	if err != nil {
		return err
	}
	facets, err := s.o.Alerts.Facets(r.Context(), r.scope, f)
	if err != nil {
		return err
	}
	base := queryOf(f)
	v := queueView{View: f.View, Text: f.Text, Href: href("/queue", base), Total: list.Total, Verdicts: verdicts,
		Filtered: f.Text != "" || len(f.Severity)+len(f.Tenants)+len(f.Family)+len(f.Sector)+len(f.Technique) > 0, ShowAssignee: showsAssignee(f),
		CanBulk: f.View != alert.ViewClosed && f.View != alert.ViewSuppressed}
	if v.Total < 0 { // only a search could tell, and this is its page
		v.Total = int64(len(list.Alerts))
		v.More = list.Next != ""
	}
	clear := url.Values{}
	if f.View != alert.ViewUnassigned {
		clear.Set("view", f.View)
	}
	v.ClearHref = href("/queue", clear)
	counts := map[string]int64{}
	for _, x := range facets.Views {
		counts[x.Value] = x.Count
	}
	for _, q := range queueViews {
		to := url.Values{}
		for k, list := range base {
			to[k] = list
		}
		to.Del("view")
		if q.key != alert.ViewUnassigned {
			to.Set("view", q.key)
		}
		v.Views = append(v.Views, link{Key: q.key, Text: q.text, Href: href("/queue", to), Count: counts[q.key], Current: q.key == f.View})
		if q.key == f.View {
			v.One, v.Many, v.EmptyHeading, v.EmptyText = q.one, q.many, q.emptyHeading, q.emptyText
		}
	}
	if v.Filtered && len(list.Alerts) == 0 {
		v.EmptyHeading, v.EmptyText = "No alert fits these filters", "Take some of them away, or look in another view."
	}
	v.Facets = facetViews(facets, f)
	for i := range list.Alerts {
		row := s.alertRow(&list.Alerts[i])
		row.ShowAssignee, row.Mark = v.ShowAssignee, markOf(&list.Alerts[i], f)
		v.Rows = append(v.Rows, row)
	}
	if oldest := oldestOf(list.Alerts); !oldest.IsZero() && list.Next == "" && f.After == "" {
		v.Oldest = strings.TrimSuffix(relative(s.o.Now().Sub(oldest)), " ago")
	}
	if list.Next != "" {
		next := queryOf(f)
		next.Set("after", list.Next)
		v.NextHref = href("/queue", next)
	}
	if f.After != "" {
		v.FirstHref = href("/queue", base)
	} else {
		v.LiveHref = href("/queue/live", base)
	}
	if len(list.Alerts) > 0 {
		at := 0
		for i := range list.Alerts {
			if list.Alerts[i].ID == r.FormValue("selected") {
				at = i
			}
		}
		v.Rows[at].Current = true
		if v.Selected, err = s.alertView(r, &list.Alerts[at], true); err != nil {
			return err
		}
		v.Selected.Back = v.Href
	}
	p := s.page(r, fmt.Sprintf("Queue (%s)", chart.Number(v.Total)), "/queue", v)
	p.BodyClass, p.Live = "queue", v.LiveHref != ""
	return s.show(w, r, "queue", p)
}

// showsAssignee says whether a view has alerts of several people.
func showsAssignee(f alert.Filter) bool {
	return f.View == alert.ViewOpen || f.View == alert.ViewEscalated
}

// markOf is what a line of the queue must show of an alert's state, beyond what its view says already.
func markOf(a *alert.Alert, f alert.Filter) string {
	switch {
	case !a.Open:
		return ""
	case a.EscalatedNS > 0 && f.View != alert.ViewEscalated:
		return "Escalated"
	case a.AcknowledgedNS > 0:
		return "Dealt with"
	}
	return ""
}

func oldestOf(list []alert.Alert) time.Time {
	var oldest int64
	for i := range list {
		if oldest == 0 || list[i].CreatedNS < oldest {
			oldest = list[i].CreatedNS
		}
	}
	return instant(oldest)
}

// facetViews lists the filters with their counts. A value that is chosen stays
// listed when nothing has it, so that it can be taken away.
func facetViews(f alert.Facets, chosen alert.Filter) []facet {
	var severities, tenants []string
	for _, s := range chosen.Severity {
		severities = append(severities, s.String())
	}
	for _, t := range chosen.Tenants {
		tenants = append(tenants, fmt.Sprint(t))
	}
	make := func(name, title string, list []alert.Facet, on []string, most int, text func(alert.Facet) string) facet {
		out := facet{Name: name, Title: title}
		for _, x := range list {
			if x.Value == "" {
				continue
			}
			o := option{Value: x.Value, Text: text(x), Count: x.Count, On: slices.Contains(on, x.Value)}
			if len(out.Options) < most || o.On {
				out.Options = append(out.Options, o)
			}
		}
		for _, value := range on {
			if !slices.ContainsFunc(out.Options, func(o option) bool { return o.Value == value }) {
				out.Options = append(out.Options, option{Value: value, Text: text(alert.Facet{Value: value, Label: value}), On: true})
			}
		}
		return out
	}
	label := func(x alert.Facet) string { return wordOr(x.Label, x.Value) }
	word := func(x alert.Facet) string { return familyWord(x.Value) }
	return []facet{
		make("severity", "Severity", f.Severity, severities, 5, func(x alert.Facet) string { return severityWord(x.Value) }),
		make("sector", "Sector", f.Sector, chosen.Sector, 8, func(x alert.Facet) string { return sentence(label(x)) }),
		make("family", "Kind", f.Family, chosen.Family, 10, word),
		make("technique", "Technique", f.Technique, chosen.Technique, 8, func(x alert.Facet) string {
			if n := techniqueNames[x.Value]; n != "" {
				return n
			}
			return x.Value
		}),
		make("tenant", "Organisation", f.Tenant, tenants, 10, label),
	}
}

// bulk does one thing to every ticked alert and says how many it was done to.
func (s *server) bulk(w http.ResponseWriter, r *request) error {
	back := local(r.PostFormValue("back"), "/queue")
	ids := slices.Compact(slices.Sorted(slices.Values(r.PostForm["id"])))
	if len(ids) == 0 {
		s.flashBad(r, "Tick at least one alert first (key x).")
		return redirect(w, r, back)
	}
	if len(ids) > 200 {
		return fmt.Errorf("%w: at most 200 alerts at once", alert.ErrInvalid)
	}
	var act func(id string) error
	var did string
	switch r.PostFormValue("action") {
	case "assign":
		did = "now yours"
		act = func(id string) error {
			_, err := s.o.Alerts.Assign(r.Context(), r.principal, id, r.principal.UserID)
			return err
		}
	case "escalate":
		did = "escalated"
		act = func(id string) error { _, err := s.o.Alerts.Escalate(r.Context(), r.principal, id, ""); return err }
	case "close":
		if r.PostFormValue("verdict") == "" {
			s.flashBad(r, "Choose what the ticked alerts were, then close them.")
			return redirect(w, r, back)
		}
		did = "closed"
		act = func(id string) error {
			_, err := s.o.Alerts.Close(r.Context(), r.principal, id, r.PostFormValue("verdict"), r.PostFormValue("note"))
			return err
		}
	default:
		return fmt.Errorf("%w: choose what to do with the ticked alerts", alert.ErrInvalid)
	}
	var n int64
	var refused []string
	for _, id := range ids {
		switch err := act(id); {
		case err == nil:
			n++
		case errors.Is(err, alert.ErrInvalid), errors.Is(err, alert.ErrClosed), errors.Is(err, alert.ErrNotFound):
			refused = append(refused, refusal(err))
		default:
			return err
		}
	}
	text := fmt.Sprintf("%d %s %s.", n, plural(n, "alert"), did)
	if len(refused) > 0 {
		s.flashBad(r, fmt.Sprintf("%s %d not done. %s", text, len(refused), refused[0]))
	} else {
		s.flash(r, text)
	}
	return redirect(w, r, back)
}

// Pace of the live stream: changes are gathered so that a storm is a few updates
// a second, and the account is looked at again so that a disabled one loses its
// stream.
const (
	livePace  = 300 * time.Millisecond
	livePulse = 20 * time.Second
)

// streams counts the live streams that are open, so that nobody holds connections and queries without end.
type streams struct {
	mu  sync.Mutex
	by  map[string]int // by account
	all int
}

// At most so many streams at once: of one person, who may have a window on each screen, and of all.
const (
	streamsEach = 20
	streamsAll  = 2000
)

var errStreams = errors.New("too many live streams")

func (s *streams) open(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[string]int{}
	}
	if s.by[user] >= streamsEach || s.all >= streamsAll {
		return false
	}
	s.by[user]++
	s.all++
	return true
}

func (s *streams) close(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[user]--; s.by[user] == 0 {
		delete(s.by, user)
	}
}

// live streams the queue's changes to one page, as htmx pieces: rows to put in
// or renew, rows that leave, and the counts.
func (s *server) live(w http.ResponseWriter, r *request) error {
	f := queueFilter(r)
	if !s.streams.open(r.principal.UserID) {
		return errStreams
	}
	defer s.streams.close(r.principal.UserID)
	token := s.sessions.Token(r.Context())
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(s.stopping, cancel)
	defer stop()
	changes, err := s.o.Alerts.Watch(ctx, r.scope)
	if err != nil {
		return err
	}
	out := http.NewResponseController(w)
	if err := errors.Join(out.SetWriteDeadline(time.Time{}), out.SetReadDeadline(time.Time{})); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("opening the live stream: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	send := func(event, data string) error {
		var b strings.Builder
		if event != "" {
			b.WriteString("event: " + event + "\n")
		}
		for line := range strings.SplitSeq(data, "\n") {
			b.WriteString("data: " + line + "\n")
		}
		b.WriteString("\n")
		if _, err := w.Write([]byte(b.String())); err != nil {
			return err
		}
		return out.Flush()
	}
	if _, err := w.Write([]byte(": live\n\n")); err != nil {
		return nil // the reader went away
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("opening the live stream: %w", err)
	}
	pulse, pace := time.NewTicker(s.pulse), time.NewTicker(livePace)
	defer pulse.Stop()
	defer pace.Stop()
	gathered := map[string]alert.Change{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pulse.C:
			if time.Now().After(s.sessions.Deadline(ctx)) {
				return nil
			}
			if p, err := s.o.People.Principal(ctx, r.principal.UserID, s.sessions.GetInt64(ctx, keyGeneration)); err != nil || p.Role != r.principal.Role || p.Tenant != r.principal.Tenant {
				return nil // the page asks again and is sent to sign in
			}
			if _, found, err := s.sessions.Store.Find(token); err != nil || !found {
				return nil // signed out in another window, or ended from the account's page
			}
			if err := send("pulse", ""); err != nil {
				return nil
			}
		case c, open := <-changes:
			if !open {
				return nil
			}
			if c.Kind == alert.Resync {
				if err := send("resync", ""); err != nil {
					return nil
				}
				continue
			}
			gathered[c.Alert.ID] = c
		case <-pace.C:
			if len(gathered) == 0 {
				continue
			}
			if err := s.sendChanges(ctx, r, f, gathered, send); err != nil {
				s.o.Logger.DebugContext(ctx, "a live stream ended", "error", err)
				return nil
			}
			clear(gathered)
		}
	}
}

func (s *server) sendChanges(ctx context.Context, r *request, f alert.Filter, gathered map[string]alert.Change, send func(event, data string) error) error {
	var rows bytes.Buffer
	changes := make([]alert.Change, 0, len(gathered))
	for _, c := range gathered {
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b alert.Change) int { return compare(sortKey(&b.Alert), sortKey(&a.Alert)) })
	for _, c := range changes {
		if !matches(f, &c.Alert) {
			if err := send("gone", c.Alert.ID); err != nil {
				return err
			}
			continue
		}
		row := s.alertRow(&c.Alert)
		row.Fresh = true
		row.ShowAssignee, row.Mark = showsAssignee(f), markOf(&c.Alert, f)
		if err := s.render.execute(&rows, "queue", "row", row); err != nil {
			return err
		}
	}
	if rows.Len() > 0 {
		if err := send("", `<hx-upsert hx-target="#rows" key="data-sort" sort="desc">`+rows.String()+`</hx-upsert>`); err != nil {
			return err
		}
	}
	facets, err := s.o.Alerts.Facets(ctx, r.scope, f)
	if err != nil {
		return err
	}
	counts := map[string]string{}
	for _, x := range facets.Views {
		counts["view-"+x.Value] = chart.Number(x.Count)
		if x.Value == f.View && f.Text == "" {
			counts["total"] = chart.Number(x.Count)
		}
	}
	for name, list := range map[string][]alert.Facet{"severity": facets.Severity, "family": facets.Family, "technique": facets.Technique, "sector": facets.Sector, "tenant": facets.Tenant} {
		for _, x := range list {
			counts[name+"-"+x.Value] = chart.Number(x.Count)
		}
	}
	b, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	return send("counts", string(b))
}

// matches says whether a changed alert belongs on a page with this filter: the
// same question that the store answers in SQL.
func matches(f alert.Filter, a *alert.Alert) bool {
	has := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	switch f.View {
	case alert.ViewUnassigned:
		if a.State != alert.StateNew {
			return false
		}
	case alert.ViewMine:
		if !a.Open || a.Assignee != f.Me {
			return false
		}
	case alert.ViewEscalated:
		if !a.Open || a.EscalatedNS == 0 {
			return false
		}
	case alert.ViewOpen:
		if !a.Open {
			return false
		}
	case alert.ViewClosed:
		if a.State != alert.StateClosed {
			return false
		}
	case alert.ViewSuppressed:
		if a.State != alert.StateSuppressed {
			return false
		}
	}
	if len(f.Severity) > 0 && !slices.Contains(f.Severity, a.Severity) || len(f.Tenants) > 0 && !slices.Contains(f.Tenants, a.Tenant) || !has(f.Family, a.Family) || !has(f.Sector, a.Sector) {
		return false
	}
	if len(f.Technique) > 0 && !slices.ContainsFunc(a.Details.Techniques, func(t string) bool { return slices.Contains(f.Technique, t) }) {
		return false
	}
	if f.Text != "" {
		text := strings.ToLower(strings.Join([]string{a.Ref, a.Title, a.Entity, a.Source, a.User, a.Host, a.Organisation}, "\n"))
		return strings.Contains(text, strings.ToLower(strings.TrimSpace(f.Text)))
	}
	return true
}

// familyWord says a rule family in words: vpn_password_guessing as "VPN password
// guessing".
func familyWord(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == '_' || r == '-' || r == '.' || r == ' ' })
	for i, w := range words {
		switch w {
		case "vpn", "ids", "ssh", "rdp", "dns", "c2", "tls", "smb", "sql":
			words[i] = strings.ToUpper(w)
		}
	}
	return sentence(strings.Join(words, " "))
}
