package web

import (
	"fmt"
	"html/template"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"tocsin/internal/chart"
)

// The examples that every page is looked at with. All names are invented and all
// addresses are documentation addresses; the same seed gives the same pages.

type example struct {
	name string // of the picture
	page string // template
	data *page
}

func exampleNav(console bool, current string) []navItem {
	items := []navItem{{Text: "Attack picture", Href: "/picture"}, {Text: "Alerts", Href: "/alerts"}, {Text: "Reports", Href: "/reports"}, {Text: "Collectors", Href: "/collectors"}, {Text: "Questions", Href: "/questions"}}
	if console {
		items = []navItem{{Text: "Queue", Href: "/queue"}, {Text: "Members", Href: "/members"}, {Text: "Collectors", Href: "/collectors"}, {Text: "Detection", Href: "/detection"}, {Text: "Indicators", Href: "/indicators"}, {Text: "Questions", Href: "/questions"}, {Text: "Health", Href: "/health"}}
	}
	for i := range items {
		items[i].Current = items[i].Text == current
	}
	return items
}

func exampleMember(title, current string, data any) *page {
	return &page{Title: title, Path: "/", Scheme: "Northshire Cyber Alarm", User: &account{Name: "Jo Marsh", Role: "Member", Organisation: "Millbrook College"}, Nav: exampleNav(false, current), Data: data}
}

func exampleConsole(title, current string, data any) *page {
	return &page{Title: title, Path: "/", Scheme: "Northshire Cyber Alarm", Console: true, User: &account{Name: "A. Okafor", Role: "Analyst"}, Nav: exampleNav(true, current), Data: data}
}

func exampleRows(now time.Time) []alertRow {
	rnd := rand.New(rand.NewPCG(7, 11))
	kinds := []struct{ title, severity, technique string }{
		{"VPN sign-in after many failures", "critical", "T1078"},
		{"Inside host talks to a listed address", "critical", "T1071.001"},
		{"Password guessing on the VPN", "high", "T1110.003"},
		{"IDS: exploit attempt against a web server", "high", "T1190"},
		{"SSH password guessing from one source", "high", "T1110.001"},
		{"One source scans many ports", "medium", "T1046"},
		{"One source scans several members", "medium", "T1595.001"},
		{"Configuration changed outside working hours", "medium", "T1562"},
		{"Sign-in from a new country", "low", "T1078.004"},
	}
	orgs := []string{"Millbrook College", "Hartley Engineering Ltd", "Kirkdale Borough Council", "Southvale Academy Trust", "Eastmoor Housing", "Wessbrook Legal LLP"}
	var rows []alertRow
	for i := range 44 {
		k := kinds[min(len(kinds)-1, i/6+rnd.IntN(2))]
		seen := now.Add(-time.Duration(i*i*9+rnd.IntN(40)) * time.Second)
		rows = append(rows, alertRow{
			ID: fmt.Sprintf("0199%04d", i), Number: fmt.Sprintf("AL-%s", []string{"7K3M9QX", "2F8TRW4", "9QHD5ZC", "4VJX1PN"}[i%4]), Severity: k.severity,
			Risk: map[string]int{"critical": 92, "high": 74, "medium": 52, "low": 31}[k.severity] - rnd.IntN(9), FirstSeen: seen.Add(-41 * time.Minute), LastSeen: seen,
			Title: k.title, Organisation: orgs[rnd.IntN(len(orgs))], Subject: fmt.Sprintf("203.0.113.%d", rnd.IntN(254)+1), Technique: k.technique,
			Events: int64(12 + rnd.IntN(2400)), Fresh: i < 2, Current: i == 2, PlainTitle: k.title,
		})
	}
	return rows
}

func exampleActivity(now time.Time, hours int, what string) template.HTML {
	rnd := rand.New(rand.NewPCG(3, uint64(hours)))
	h := chart.Histogram{What: what, Height: 92, Labels: 5, Series: exampleSeries()}
	start := now.In(london).Truncate(time.Hour).Add(-23 * time.Hour)
	for i := range 24 {
		at := start.Add(time.Duration(i) * time.Hour)
		n := int64(40 + rnd.IntN(50))
		if i > 18 && i < 22 {
			n *= 5
		}
		h.Columns = append(h.Columns, chart.Column{Label: at.Format("15:04"), Title: at.Format("2 Jan 15:04"), Values: []int64{n, n / 2, n / 5, n / 20}})
	}
	return h.SVG()
}

func exampleSeries() []chart.Series {
	return []chart.Series{{Name: "Low", Class: "s-low"}, {Name: "Medium", Class: "s-medium"}, {Name: "High", Class: "s-high"}, {Name: "Critical", Class: "s-critical"}}
}

func exampleSources(now time.Time) []sourceView {
	return []sourceView{
		{Name: "Fortinet FortiGate", Organisation: "Millbrook College", Href: "/members/7/detection", CollectorID: "c1", Collector: "server room", Last: now.Add(-26 * time.Hour), Events: 48210, Parsed: "100 in 100", Mapped: "97 in 100", Status: "silent", Tone: "bad",
			Problem: "Nothing has come from it for much longer than usual. See whether the device is switched on and still sends its records to the collector.", Can: []string{"VPN sign-in after many failures", "Password guessing on the VPN"}, CanAll: 2,
			Cannot: []CannotFire{{"Exploit attempt against a web server", "needs user_agent.original, which this source does not say"}}, CannotAll: 1, Other: 49},
		{Name: "Suricata", Organisation: "Millbrook College", Href: "/members/7/detection", Last: now.Add(-time.Minute), Events: 311, Status: "says less", Tone: "bad", Problem: "Its records no longer have rule.name, source.ip. See whether the device was updated or its logging changed.", Other: 52},
	}
}

func exampleAlert(now time.Time) *alertView {
	row := exampleRows(now)[2]
	row.Severity, row.Title, row.PlainTitle, row.Subject = "critical", "VPN sign-in after many failures", "Somebody may have got in through your VPN", "203.0.113.77"
	row.Events, row.StateText = 483, "Escalated"
	row.Advice = &advice{What: "Someone tried many passwords on your VPN and then signed in with one of them.", Do: "Telephone the person whose account it is. If it was not them, reset the password, end all VPN sessions of the account, and call us."}
	a := &alertView{
		alertRow: row, Back: "/queue", Reason: "212 failed VPN sign-ins from 203.0.113.77 to 61 accounts within 8 minutes, then a successful sign-in as j.marlowe.",
		Steps: []step{
			{now.Add(-52 * time.Minute), "212 failed sign-ins, 61 accounts, one source"}, {now.Add(-44 * time.Minute), "Successful sign-in as j.marlowe"},
			{now.Add(-43 * time.Minute), "First sign-in from this network for the account"}, {now.Add(-39 * time.Minute), "IDS: exploit attempt from the same source"}},
		Rule: "VPN sign-in success after failures", RuleID: "vpn-spray-then-success", Source: "203.0.113.77", User: "j.marlowe", Host: "198.51.100.8", Country: "NL",
		Network:    &network{AS: "AS64511", Name: "Example Hosting BV"},
		Techniques: []technique{{"T1110.003", "Password Spraying"}, {"T1078", "Valid Accounts"}}, AlsoSeenLabel: "Also seen at", AlsoSeen: "2 other members in 24 hours", Beside: []besideAlert{{"critical", "A server of yours was signed in to from the internet", "/alerts/01990009"}, {"low", "Someone is looking for open doors", "/alerts/01990010"}}, Graver: true,
		ProofText: "Signed in: the source is proved", MemberHref: "/members/3", Activity: exampleActivity(now, 24, "Events of 203.0.113.77 each hour"),
		Raw:      []string{`date=2026-11-22 time=02:19:37 devname="fw-edge-1" type="event" subtype="vpn" action="tunnel-up" remip=203.0.113.77 user="j.marlowe" tunneltype="ssl-tunnel"`},
		Timeline: []activityEntry{{now.Add(-38 * time.Minute), "Tocsin", "raised the alert", ""}, {now.Add(-30 * time.Minute), "A. Okafor", "took it on", ""}, {now.Add(-12 * time.Minute), "A. Okafor", "escalated it", "Called the college; the account's owner is on leave."}},
		Verdicts: []option{{Value: "true_positive", Text: "A real attack"}, {Value: "benign", Text: "Real, but harmless"}, {Value: "false_positive", Text: "False alarm"}, {Value: "duplicate", Text: "Already known"}},
		CanAct:   true, CanNote: true, CanAcknowledge: true, Escalated: true, EventsInt: 483,
		Tone: "bad", VerdictHeading: "Please act on this now", VerdictText: "The centre's analysts have seen it too. What to do is below.",
	}
	for i := range 14 {
		e := evidence{Time: now.Add(-time.Duration(44*60-i*7) * time.Second), Source: "203.0.113.77", Country: "NL", Destination: "198.51.100.8", Port: "443", Action: "ssl login fail", ActionRaw: "ssl-login-fail", User: fmt.Sprintf("user%02d", i), Device: "FortiGate fw-edge-1", Summary: "VPN sign-in failed for " + fmt.Sprintf("user%02d", i)}
		if i == 0 {
			e.Action, e.ActionRaw, e.User, e.Summary = "tunnel up", "tunnel-up", "j.marlowe", "VPN sign-in succeeded for j.marlowe"
		}
		a.Evidence = append(a.Evidence, e)
	}
	return a
}

func exampleQueue(now time.Time) *queueView {
	rows := exampleRows(now)
	a := exampleAlert(now)
	a.Pane = true
	rows[2] = a.alertRow
	rows[2].Current = true
	return &queueView{
		View: "unassigned", Views: []link{{Key: "unassigned", Text: "Unassigned", Href: "/queue", Count: 44, Current: true}, {Key: "mine", Text: "Mine", Href: "/queue?view=mine", Count: 6}, {Key: "escalated", Text: "Escalated", Href: "#", Count: 3}, {Key: "open", Text: "All open", Href: "#", Count: 412}, {Key: "closed", Text: "Closed", Href: "#", Count: 20183}},
		Facets: []facet{
			{"severity", "Severity", []option{{"critical", "Critical", 6, true}, {"high", "High", 12, true}, {"medium", "Medium", 15, false}, {"low", "Low", 5, false}}},
			{"sector", "Sector", []option{{"education", "Education", 21, false}, {"local-government", "Local government", 9, false}, {"manufacturing", "Manufacturing", 8, false}}},
			{"family", "Kind", []option{{"scan", "Scanning", 18, false}, {"vpn-guessing", "VPN password guessing", 9, false}, {"ids", "Intrusion detection", 8, false}, {"indicator", "Listed address", 3, false}}},
			{"tenant", "Organisation", []option{{"1", "Millbrook College", 14, false}, {"2", "Hartley Engineering Ltd", 12, false}, {"3", "Kirkdale Borough Council", 9, false}}},
		},
		Filtered: true, ClearHref: "/queue", Href: "/queue", NextHref: "/queue?after=x", Total: 44, One: "unassigned alert", Many: "unassigned alerts", CanBulk: true, Oldest: "41 min",
		Verdicts: a.Verdicts, Rows: rows, Selected: a,
	}
}

func examplePicture(now time.Time) *pictureView {
	rnd := rand.New(rand.NewPCG(5, 5))
	h := chart.Histogram{What: "Suspicious events each day", Series: exampleSeries(), Height: 210}
	for i := range 30 {
		at := now.In(london).AddDate(0, 0, i-29)
		n := int64(300 + rnd.IntN(80))
		if i == 24 {
			n = 960
		}
		if at.Weekday() == time.Saturday || at.Weekday() == time.Sunday {
			n /= 2
		}
		h.Columns = append(h.Columns, chart.Column{Label: at.Format("2 Jan"), Title: at.Format("Monday 2 January"), Values: []int64{n, n / 2, n / 4, int64(rnd.IntN(14))}})
	}
	places := []chart.Place{{Code: "US", Count: 9120}, {Code: "CN", Count: 21044}, {Code: "RU", Count: 9920}, {Code: "BR", Count: 2130}, {Code: "IN", Count: 1460}, {Code: "DE", Count: 812}, {Code: "NL", Count: 640}, {Code: "FR", Count: 212}, {Code: "IR", Count: 97}, {Code: "ID", Count: 61}, {Code: "GB", Count: 23}, {Code: "VN", Count: 144}}
	rows := exampleRows(now)[:3]
	rows[0].PlainTitle, rows[0].Advice, rows[0].Subject = "Somebody may have got in through your VPN", exampleAlert(now).Advice, "203.0.113.77"
	rows[1].PlainTitle, rows[1].Severity, rows[1].Advice = "Someone is trying passwords on your VPN", "high", &advice{"One address tried 61 accounts on your VPN. None of them worked.", "Nothing urgent. Make sure that everybody's VPN sign-in needs a second factor."}
	rows[2].PlainTitle, rows[2].Severity, rows[2].Advice = "Someone is looking for open doors", "medium", &advice{"One address tried 412 ports of your firewall. Your firewall turned all of them away.", "Nothing. This is the background noise of the internet; we watch whether it goes further."}
	return &pictureView{
		Organisation: "Millbrook College", Area: "Northshire Police area", Heading: "Your attack picture",
		Periods: []link{{Key: "7", Text: "Last 7 days"}, {Key: "30", Text: "Last 30 days", Current: true}, {Key: "90", Text: "Last 90 days"}},
		Verdict: verdict{"bad", "Are we all right? Not quite: one thing needs you.", "Your firewall turned away 48,187 attempts. One of them may have got through."},
		Actions: []actionLink{{"Somebody may have got in through your VPN.", "/alerts/01990002", "See what to do"}},
		Tiles: []tile{{Label: "Suspicious events", Figure: "48,210", Note: "↑ 12 % on the 30 days before"}, {Label: "Attacking addresses", Figure: "3,914", Note: "↓ 4 % on the 30 days before", Tone: "good"},
			{Label: "Open alerts", Figure: "7", Note: "2 critical", Tone: "bad"}, {Label: "Collector", Figure: "Healthy", Words: true, Note: "Last data", Since: now.Add(-40 * time.Second).UnixMilli(), SinceText: "40 seconds ago", Tone: "good"}},
		ChartTitle: "Suspicious events each day", ColumnName: "Day", Chart: h, Map: chart.World("Where attacks came from", "/assets/world.svg", places), Countries: places,
		Tried:  []chart.Bar{{Label: "Remote desktop sign-in", Value: 18210}, {Label: "Port scanning", Value: 14603}, {Label: "SSH password guessing", Value: 8049}, {Label: "VPN password guessing", Value: 4107}, {Label: "Web application probes", Value: 2468}, {Label: "File sharing (SMB)", Value: 773}},
		Alerts: rows, MoreAlerts: true, OpenAlerts: 7, AlertsHref: "/alerts", LeftHref: "/collectors",
	}
}

func exampleCollector(now time.Time) collectorView {
	b := balance{Received: 1_284_906, NotUnderstood: 312, KeptAll: 1_236_384, LeftAll: 48_210, ToSend: 48_251, Sent: 48_240, Waiting: 11, WaitingKnown: true, Stored: 48_240, StoredKnown: true,
		Kept: []reason{{"Ordinary traffic that your firewall allowed", 1_201_881}, {"Device housekeeping", 34_503}}, Left: []reason{{"Turned away at the firewall", 47_720}, {"Failed sign-ins", 471}, {"Intrusion detection", 19}},
		Made: []reason{{"Findings made on your site", 9}, {"Events that explain a finding", 32}}}
	return collectorView{
		ID: "0199c0de", Name: "fw-collector", Site: "Main site", Organisation: "Millbrook College", Tenant: 3, Status: "Healthy", Tone: "good", VerdictTone: "good", VerdictHeading: "Working",
		StatusText: "Lines arrive, are understood, and what should leave has left.", LastData: now.Add(-40 * time.Second), Clock: "0.2 s slow", Version: "1.0.0", Balance: b,
		BalanceNote: "Sums since the collector joined. Events waiting at home are known to the collector only; here they are what is left over.",
		Tiles:       []tile{{Label: "Last data", Figure: "40 s ago", Words: true, Note: "22 Nov 2026, 03:13:58 GMT"}, {Label: "Kept at home", Figure: "96.2 %", Note: "1,236,384 lines", Tone: "good"}, {Label: "Not understood", Figure: "312", Note: "0.02 % of all lines"}, {Label: "Clock", Figure: "0.2 s slow", Words: true, Note: "Fine", Tone: "good"}},
		PolicyText:  "Policy “metadata”: only signs of attack leave, and of those only the fields a defender needs: times, addresses, ports, what was done and with which result.",
		Explained:   []explained{{"Turned away at the firewall", "so that the same attacker is recognised elsewhere", true, 47_720}, {"Failed sign-ins", "so that password guessing is seen", true, 471}, {"Intrusion detection", "your IDS raised an alert", true, 19}, {"Ordinary traffic that your firewall allowed", "nobody's business but yours", false, 1_201_881}, {"Device housekeeping", "no sign of attack", false, 34_503}, {"Not understood", "kept so that nothing is lost; tell us the device", false, 312}},
		Facts:       []fact{{"Collector", "0199c0de-7a52-7f60-b0f1-2d9a60f2c1aa", true}, {"Joined", "3 Nov 2026, 10:12 GMT", false}, {"Certificate", "renews by itself; valid until 25 Nov 2026, 10:12 GMT", false}, {"Policy", "metadata, sha256:4be9…a1", true}}, CanRevoke: false,
	}
}

func exampleAccount(now time.Time, organisation string) accountView {
	return accountView{Name: "Jo Marsh", Email: "jo.marsh@millbrook.example", Role: "member", Organisation: organisation, MinPassword: 12, Others: 2, Sessions: []sessionRow{
		{"a", "Firefox on Windows", "192.0.2.17", now.Add(-time.Hour), now, true},
		{"b", "Safari on iPhone", "2001:db8:aaaa:bbbb::/64", now.Add(-26 * time.Hour), now.Add(-2 * time.Hour), false},
		{"c", "Unknown browser", "198.51.100.4", time.Time{}, now.Add(-3 * time.Hour), false},
	}}
}

func examples(now time.Time) []example {
	member := memberRow{Tenant: 3, Name: "Millbrook College", Sector: "Education", Area: "Northshire Police", Collectors: 1, CollectorText: "1 healthy", Tone: "good", LastData: now.Add(-40 * time.Second), Open: 7, Critical: 2, High: 3, Joined: now.AddDate(0, -2, 0)}
	second := member
	second.Tenant, second.Name, second.Sector, second.CollectorText, second.Tone, second.LastData = 4, "Hartley Engineering Ltd", "Manufacturing", "1 silent", "bad", now.Add(-5*time.Hour)
	third := memberRow{Tenant: 5, Name: "Kirkdale Borough Council", Sector: "Local government", Area: "Northshire Police", Joined: now.AddDate(0, 0, -1)}
	quarantined := exampleCollector(now)
	quarantined.Quarantined, quarantined.CanConfirm, quarantined.Status, quarantined.Tone = true, true, "Waiting for check words", "warn"
	bad := exampleCollector(now)
	bad.Name, bad.Status, bad.Tone, bad.StatusText, bad.LastData, bad.Balance.LineGap, bad.Balance.Gap = "warehouse", "Silent", "bad", "Nothing has come from it for 5 hours. Is the machine on, and can it reach the internet?", now.Add(-5*time.Hour), 41, 41
	alert := exampleAlert(now)
	queue := exampleConsole("Queue", "Queue", exampleQueue(now))
	queue.BodyClass, queue.Live = "queue", true
	empty := exampleQueue(now)
	empty.Rows, empty.Selected, empty.Total, empty.EmptyHeading, empty.EmptyText = nil, nil, 0, "Nothing waits", "New alerts appear here by themselves."
	emptyPage := exampleConsole("Queue", "Queue", empty)
	emptyPage.BodyClass = "queue"
	signIn := &page{Title: "Sign in", Path: "/sign-in", Data: signInView{}}
	signInBad := &page{Title: "Sign in", Path: "/sign-in", Data: signInView{Email: "head@millbrook.example"}, Problem: []problem{{"email", "The email address, password or code is not right. Start again, and check each of them"}}}
	flashed := exampleConsole("Millbrook College", "Members", memberView{memberRow: member, Collectors: []collectorView{exampleCollector(now)}, Sites: []siteOption{{"1", "Main site"}}, CanAdd: true, Tokens: []openToken{{"t1", "Main site", "A. Okafor", now, now.Add(24 * time.Hour)}},
		NewToken: &tokenView{"tocsin1.eyJhIjoiaHViLm5vcnRoc2hpcmUuZXhhbXBsZTo4NDQzIiwiciI6IjZmM2E5YzEiLCJzIjoiMDEyMzQ1Njc4OWFiY2RlZiJ9", now.Add(24 * time.Hour)}, People: []person{{"0199c0de-7a52-7f60-b0f1-2d9a60f2c1ab", "Jo Marsh", "jo.marsh@millbrook.example", "active", now.Add(-time.Hour)}}})
	flashed.Flash = &flash{Text: "The token is ready."}
	return []example{
		{"sign-in", "signin", signIn},
		{"sign-in-refused", "signin", signInBad},
		{"code", "code", &page{Title: "Enter your code", Path: "/sign-in/code", Data: signInView{}}},
		{"invitation", "invitation", &page{Title: "Set up your sign-in", Path: "/invitation/x", Data: invitationView{Name: "Jo Marsh", Email: "jo.marsh@millbrook.example", Organisation: "Millbrook College", SecretText: "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP", MinPassword: 12}}},
		{"queue", "queue", queue},
		{"queue-empty", "queue", emptyPage},
		{"alert", "alert", exampleConsole("VPN sign-in after many failures", "Queue", alert)},
		{"alert-member", "alert_member", exampleMember(alert.PlainTitle, "Alerts", alert)},
		{"alerts-member", "alerts_member", exampleMember("Alerts", "Alerts", memberAlertsView{Organisation: "Millbrook College", Views: []link{{Key: "open", Text: "Open", Count: 7, Current: true}, {Key: "closed", Text: "Closed", Count: 31}}, Rows: examplePicture(now).Alerts})},
		{"picture", "picture", exampleMember("Your attack picture", "Attack picture", examplePicture(now))},
		{"collectors", "collectors", exampleConsole("Collectors", "Collectors", collectorsView{Wide: true, Collectors: []collectorView{exampleCollector(now), quarantined, bad}})},
		{"collectors-member", "collectors", exampleMember("Collectors", "Collectors", collectorsView{Organisation: "Millbrook College", Collectors: []collectorView{exampleCollector(now), bad}})},
		{"collector", "collector", exampleMember("fw-collector", "Collectors", exampleCollector(now))},
		{"collector-quarantined", "collector", exampleMember("fw-collector", "Collectors", quarantined)},
		{"collector-console", "collector", exampleConsole("fw-collector", "Collectors", exampleCollector(now))},
		{"members", "members", exampleConsole("Members", "Members", membersView{CanAdd: true, Members: []memberRow{member, second, third}})},
		{"member", "member", flashed},
		{"member-new", "member_new", exampleConsole("Add a member", "Members", memberNewView{Fields: []formField{{Name: "name", Label: "Name of the organisation"}, {Name: "sector", Label: "Sector", Options: []option{{Value: "education", Text: "Education"}}}, {Name: "area", Label: "Police force area", Hint: "For example Northshire Police"}}})},
		{"indicators", "indicators", exampleConsole("Indicators", "Indicators", indicatorsView{Total: 3, Pushed: 2, CanChange: true, Kinds: []option{{Text: "All kinds"}, {Value: "ip", Text: "Address"}}, TLPs: []option{{Value: "green", Text: "GREEN"}}, Lifetimes: []option{{Value: "90", Text: "90 days"}},
			Rows: []indicatorRow{{"1", "Address", "203.0.113.77", "NCSC bulletin 12", "GREEN", true, now, now.AddDate(0, 3, 0), 12}, {"2", "Network", "198.51.100.0/24", "Regional desk", "AMBER", true, now, now.AddDate(0, 3, 0), 0}, {"3", "Domain", "updates.badname.example", "Regional desk", "AMBER+STRICT", false, now, time.Time{}, 3}}, Result: &importResult{Added: 2, Updated: 1, RefusedCount: 1, Refused: []refusedLine{{4, "0.0.0.0/0", "wider than /16: it would match far too much"}}}})},
		{"questions", "look_backs", exampleConsole("Questions about the past", "Questions", questionsView{Wide: true, Rows: exampleQuestions(now)})},
		{"questions-member", "look_backs", exampleMember("Questions about the past", "Questions", questionsView{Organisation: "Millbrook College", Rows: exampleQuestions(now)})},
		{"questions-none", "look_backs", exampleMember("Questions about the past", "Questions", questionsView{Organisation: "Millbrook College", Away: true})},
		{"question", "look_back", exampleConsole("A question about the past", "Questions", exampleQuestion(now, true))},
		{"question-member", "look_back", exampleMember("A question about the past", "Questions", exampleQuestion(now, false))},
		{"account", "account", exampleMember("Your account", "", exampleAccount(now, "Millbrook College"))},
		{"account-console", "account", exampleConsole("Your account", "", exampleAccount(now, ""))},
		{"authenticator", "authenticator", exampleMember("Change your authenticator app", "", invitationView{Email: "jo.marsh@millbrook.example", Organisation: "Millbrook College", SecretText: "JBSW Y3DP EHPK 3PXP JBSW Y3DP EHPK 3PXP"})},
		{"reports", "reports", exampleMember("Weekly reports", "Reports", exampleReports("/reports"))},
		{"reports-console", "reports", exampleConsole("Weekly reports", "Members", exampleReports("/members/3/reports"))},
		{"detection", "detection", exampleConsole("Detection", "Detection", detectionView{Overview: true, Tone: "bad", Heading: "2 sources cannot be seen as before", Text: "Each raised an alert when it began.", Sources: exampleSources(now)})},
		{"detection-none", "detection", exampleConsole("Detection", "Detection", detectionView{Overview: true, Tone: "warn", Heading: "There is no source yet", Text: "A source appears here by itself.", Next: actionLink{Text: "What comes next: a member.", Href: "/members", Link: "Go to the members"}})},
		{"detection-of-member", "detection", exampleConsole("What can be seen", "Members", detectionView{Organisation: "Millbrook College", Tenant: 7, Tone: "bad", Heading: "2 of 2 sources cannot be seen as before", Text: "Until that is mended, some attacks may go unnoticed.", Sources: exampleSources(now), Seen: 1, AllCovered: 2, Covered: []coveredView{{"T1110.003", "Password Spraying", []string{"Password guessing on the VPN"}, 0, 3}, {"T1071.004", "DNS", nil, 0, 2}}})},
		{"detection-member", "detection", exampleMember("What can be seen", "Collectors", detectionView{Organisation: "Millbrook College", Tone: "bad", Heading: "2 of 2 sources cannot be seen as before", Text: "Until that is mended, some attacks may go unnoticed.", Sources: exampleSources(now)})},
		{"health", "health", exampleConsole("Health", "Health", healthView{Now: now, Version: "1.0.0", Tone: "good", Heading: "Everything works", Text: "All stages keep up.", Checks: []Check{{"Event store", true, "answers in 2 ms", ""}, {"Disk", false, "12 % free", "Free some space or raise the reserve."}}, Stages: []Stage{{"gate", 48240, 48240, 0, "0 batches"}, {"worker", 48240, 48240, 2, "1 batch"}}, Latencies: []Latency{{"Collector's receipt to alert", 210 * time.Millisecond, 480 * time.Millisecond, 720 * time.Millisecond, 31}}})},
		{"not-found", "error", exampleMember("Page not found", "", errorView{Heading: "Page not found", Paragraphs: []string{"There is no such page, or it is not yours to see."}})},
	}
}

// exampleServer shows the examples at /example/NAME, through the same renderer,
// assets and headers as the real pages.
func exampleServer(t testing.TB) http.Handler {
	t.Helper()
	r, err := newRenderer(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/{name}", r.serveAsset)
	for _, e := range examples(time.Now()) {
		mux.HandleFunc("GET /example/"+e.name, func(w http.ResponseWriter, req *http.Request) {
			p := *e.data
			p.Theme = req.URL.Query().Get("theme")
			if err := r.write(w, http.StatusOK, e.page, &p); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				t.Error(err)
			}
		})
	}
	return secureHeaders(false, mux)
}
