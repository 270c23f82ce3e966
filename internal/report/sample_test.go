package report

import (
	"time"

	"tocsin/internal/member"
)

// sample is a full report, all of it invented.
func sample() *Report {
	w := Week{2026, 47}
	r := &Report{
		Tenant: 7, Organisation: "Millbrook College, Coleg y Felin Wen ŵ ŷ", Area: "Northshire Police area", Scheme: "Northshire Cyber Alarm", PublicURL: "https://alarm.example.org", Week: w,
		From: w.Start(), To: w.End(), Made: time.Date(2026, 11, 23, 7, 0, 0, 0, london),
		Events: Figure{Now: 48210, Before: 43044}, Sources: Figure{Now: 3914, Before: 4077}, SignInFailed: Figure{Now: 212, Before: 12}, Recognised: Figure{Now: 3}, NewAlerts: Figure{Now: 5, Before: 2},
		OpenAlerts: 2, OpenGrave: 1, AllAlerts: 5, Quiet: nil, Standing: member.Standing{Critical: 1, Well: 1, Unwell: 1},
	}
	for i, n := range []int64{5300, 6120, 5874, 6010, 17320, 4102, 3484} {
		r.Days = append(r.Days, Day{Date: r.From.AddDate(0, 0, i), Low: n - n/3 - n/40, Medium: n / 3, High: n / 50, Critical: n/40 - n/50, Before: 5200 + 400*int64(i%4)})
	}
	for _, t := range []struct {
		key    string
		n, was int64
	}{{"remote_desktop", 18802, 12010}, {"other", 13499, 13822}, {"ssh", 7231, 7100}, {"vpn", 5303, 411}, {"web", 2975, 2984}, {"telnet", 400, 0}} {
		s := serviceOf(t.key)
		r.Tried = append(r.Tried, Line{s.name, s.what, Figure{Now: t.n, Before: t.was}, float64(t.n) / 48210})
	}
	for _, c := range []struct {
		name   string
		n, was int64
	}{{"Netherlands", 17320, 2010}, {"China", 12404, 14001}, {"United States", 8101, 7920}, {"Bulgaria", 4240, 4200}, {"Brazil", 2020, 3000}, {"Côte d’Ivoire", 122, 0}} {
		r.Countries = append(r.Countries, Line{Name: c.name, Figure: Figure{Now: c.n, Before: c.was}, Share: float64(c.n) / 48210})
	}
	r.Addresses = []Line{
		{Name: "203.0.113.77", Note: "Netherlands, Example Hosting BV", Figure: Figure{Now: 11240}, Share: 0.233},
		{Name: "198.51.100.9", Note: "China, Example Telecom", Figure: Figure{Now: 2120}, Share: 0.044},
		{Name: "2001:db8:a:b:c:d:e:f", Note: "Bulgaria", Figure: Figure{Now: 812}, Share: 0.017},
	}
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, london) }
	r.Alerts = []Alert{
		{Ref: "AL-7K3M9QX", Severity: "Critical", Tone: "critical", Title: "Somebody may have got in through your VPN", What: "Someone tried many passwords on your VPN and then signed in with one of them.",
			Do:      []string{"Telephone the person whose account it is.", "If it was not them, reset the password, end all VPN sessions of the account, and call us.", "Look at what the account was used for since."},
			Subject: "j.marlowe", State: "Open; an analyst is on it", Open: true, First: at(20, 2, 11), Last: at(20, 2, 19), Events: 213},
		{Ref: "AL-2F8TRW4", Severity: "High", Tone: "high", Title: "Your security sensor saw an attack", What: "A device that watches your network recognised traffic that belongs to a known attack, and it was not blocked.",
			Do: []string{"Ask your IT support to look at the computers named in this alert today."}, Subject: "10.22.200.5", State: "You have dealt with it", First: at(20, 2, 31), Last: at(20, 2, 32), Events: 3},
		{Ref: "AL-9QHD5ZC", Severity: "Medium", Tone: "medium", Title: "Someone is guessing passwords on your VPN", What: "A computer on the Internet tries to sign in to your VPN with one password after another. The attempts that this alert counts have failed.",
			Do: []string{"Make sure that everybody who uses the VPN has two-step sign-in."}, Subject: "203.0.113.77", State: "Closed: it was an attack", First: at(14, 22, 0), Last: at(20, 2, 19), Events: 1212, Older: true},
		{Ref: "AL-4VJX1PN", Severity: "Low", Tone: "low", Title: "Someone is looking for open doors", What: "A computer on the Internet tried one port after another on your connection, to find something that answers. Your firewall turned these attempts away.",
			Do: []string{"Nothing urgent. Check that the services you offer to the Internet are the ones you mean to offer, and that they are up to date."}, Subject: "198.51.100.9", State: "Open", Open: true, First: at(18, 12, 4), Last: at(18, 12, 5), Events: 61},
	}
	r.Lines = Lines{Received: Figure{Now: 12840113, Before: 12700221}, Kept: Figure{Now: 12790004, Before: 12655000}, Left: Figure{Now: 48210, Before: 43044}, NotUnderstood: Figure{Now: 1899, Before: 2177}}
	r.Reporters = []Collector{{"server room", "Main site", "Healthy", "good", "last heard of on Monday 23 November at 06:59 GMT"}, {"annexe", "Sixth form centre", "Silent", "bad", "last heard of on Sunday 22 November at 17:12 GMT"}}
	r.judge()
	r.Advice = []Advice{
		{"Turn on two-step sign-in for everybody who signs in from outside", "212 sign-ins from outside failed this week; some of them are attackers who try passwords.", []string{"Turn it on for the VPN, for e-mail and for every administrator. A stolen password alone is then not enough.", "Close the accounts of people who have left.", "Ask staff to use three random words as a password, and a different one for each service."}},
		{"Do not let remote desktop be reached from the internet", "18,802 events looked for remote desktop. It is how much ransomware gets in.", []string{"Ask your IT support whether it can be reached from outside, and to close it if it can.", "Who needs it from home should go through the VPN first."}},
		{"Install updates within 14 days", "Your sensor recognised 3 known attacks. Most work only against software that is out of date.", []string{"Start with what can be reached from outside: firewall, VPN, web site, mail.", "Replace devices whose maker gives no more updates.", "Turn on automatic updates wherever there is such a setting."}},
	}
	return r
}
