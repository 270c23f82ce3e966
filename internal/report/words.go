package report

import (
	"fmt"
	"slices"
	"strings"

	"tocsin/internal/chart"
	"tocsin/internal/eventstore"
)

// service says what an attacker aimed at: a name, and for a reader who does not know it, what it is.
type service struct{ name, what string }

// services are the words for eventstore's services.
var services = map[string]service{
	"remote_desktop": {"Remote desktop", "working on a computer from far away"},
	"ssh":            {"SSH sign-in", "how administrators reach servers"},
	"vpn":            {"VPN", "how staff reach your network from outside"},
	"web":            {"Web pages and applications", "web sites, portals, the settings pages of devices"},
	"file_sharing":   {"File sharing", "shared folders"},
	"windows":        {"Windows services", "how Windows computers talk to each other"},
	"mail":           {"E-mail", "mail servers"},
	"dns":            {"Name service (DNS)", "turns names into addresses"},
	"database":       {"Databases", "where programs keep their data"},
	"telnet":         {"Telnet", "an old sign-in of routers and cameras, without encryption"},
	"ftp":            {"File transfer (FTP)", "an old way to move files"},
	"directory":      {"Directory service", "the list of your users"},
	"remote_admin":   {"Remote administration", "the settings of servers and network devices"},
	"telephony":      {"Telephony", "telephone systems over the internet"},
	"industrial":     {"Industrial control", "machines, heating, building control"},
	"time":           {"Time service", "how clocks are set"},
	"discovery":      {"Device discovery", "how devices find each other"},
	"iot":            {"Smart devices", "sensors, plugs and the like"},
	"camera":         {"Cameras", "camera recorders and video streams"},
	"icmp":           {"Ping", "asks whether an address answers"},
	"other":          {"Other ports", "doors that no common service uses"},
}

// ServiceWords name what an attacker aimed at, by eventstore's service, and say what that is to whoever does not know it.
func ServiceWords(key string) (name, what string) {
	s := serviceOf(key)
	return s.name, s.what
}

func serviceOf(key string) service {
	if s, ok := services[key]; ok {
		return s
	}
	name := strings.ReplaceAll(key, "_", " ")
	if name == "" {
		name = "no port named"
	}
	return service{name: strings.ToUpper(name[:1]) + name[1:]}
}

// Advice is one thing to do, with the reason why it stands in this report.
type Advice struct {
	Title string   `json:"title"`
	Why   string   `json:"why"`
	Do    []string `json:"do"`
}

// most pieces of advice in one report: what does not fit one page is not done.
const mostAdvice = 5

// advise chooses what fits what was seen, the most pressing first.
func advise(r *Report, sum eventstore.Summary) []Advice {
	var out []Advice
	add := func(title, why string, do ...string) { out = append(out, Advice{title, why, do}) }
	n := func(keys ...string) int64 {
		var total uint64
		for _, k := range keys {
			total += sum.ByService[k]
		}
		return int64(total)
	}
	// A service is worth a word when at least every fiftieth event aimed at it.
	much := func(v int64) bool { return v > 0 && v*50 >= r.Events.Now }

	if sum.Malware > 0 {
		add("Make sure that the harmful software is gone", fmt.Sprintf("Your protection found harmful software %s this week.", times(int64(sum.Malware))),
			"Ask your IT support which computer it was, and whether the software was removed.", "If you cannot be sure, take that computer off the network and leave it switched on.", "Check that protection is on, and up to date, on every computer.")
	}
	if sum.Indicator > 0 {
		add("Find out why one of your computers met a known attacker's address", fmt.Sprintf("%s touched an address that attackers are known to use.", count(int64(sum.Indicator), "event")),
			"Look at the alerts in this report first: they say whether it was a visit from outside or a computer of yours that called out.", "A computer that called out should be taken off the network and looked at, still switched on.")
	}
	if r.silent() {
		add("Get your collector working again", "Attacks in the time when it sent nothing are not in this report.",
			"Ask your IT support to check that the computer it runs on is switched on and has a network.", "The page “Collectors” in the portal says what is wrong and what to do.")
	}
	if v := n("vpn", "ssh", "remote_desktop"); int64(sum.SignInFailed) > 0 || much(v) {
		why := fmt.Sprintf("%s aimed at the ways in which people sign in from outside.", count(v, "event"))
		if sum.SignInFailed > 0 {
			why = fmt.Sprintf("%s from outside failed this week; some of them are attackers who try passwords.", count(int64(sum.SignInFailed), "sign-in"))
		}
		add("Turn on two-step sign-in for everybody who signs in from outside", why,
			"Turn it on for the VPN, for e-mail and for every administrator. A stolen password alone is then not enough.", "Close the accounts of people who have left.", "Ask staff to use three random words as a password, and a different one for each service.")
	}
	if v := n("remote_desktop"); much(v) {
		add("Do not let remote desktop be reached from the internet", fmt.Sprintf("%s looked for remote desktop. It is how much ransomware gets in.", count(v, "event")),
			"Ask your IT support whether it can be reached from outside, and to close it if it can.", "Who needs it from home should go through the VPN first.")
	}
	if v := n("file_sharing", "windows", "directory", "database", "remote_admin"); much(v) {
		add("Keep inside services inside", fmt.Sprintf("%s looked for shared folders, databases or the settings of servers. None of these should answer on the internet.", count(v, "event")),
			"Ask your IT support for the list of what your firewall lets in, and for the reason of each line.", "Close each one that nobody can explain.")
	}
	if v := n("web"); much(v) || sum.IDS > 0 {
		why := fmt.Sprintf("%s aimed at web pages and at the settings pages of devices.", count(v, "event"))
		if sum.IDS > 0 {
			why = fmt.Sprintf("Your sensor recognised %s. Most work only against software that is out of date.", count(int64(sum.IDS), "known attack"))
		}
		add("Install updates within 14 days", why,
			"Start with what can be reached from outside: firewall, VPN, web site, mail.", "Replace devices whose maker gives no more updates.", "Turn on automatic updates wherever there is such a setting.")
	}
	if v := n("telnet", "camera", "iot", "telephony", "industrial"); much(v) {
		add("Look after the devices that nobody thinks of", fmt.Sprintf("%s looked for cameras, telephones, smart devices or machines.", count(v, "event")),
			"Change the password that a device came with.", "Give such devices a network of their own, and no way in from the internet.")
	}
	always := []Advice{
		{"Have a copy of your data that attackers cannot reach", "It is what saves an organisation when everything else has failed.", []string{"Keep one copy off the network, or in a service that does not let it be deleted.", "Restore one file from it this month, so that you know it works."}},
		{"Know whom you would call", "In the first hour of an attack nobody should have to look for a number.", []string{"Write on paper: your IT support, your insurer, your police contact, and who may decide to switch things off.", "Keep it where it can be read when no computer works."}},
		{"Help staff to report what looks odd", "Most break-ins begin with a message to a person.", []string{"Forward suspicious e-mail to report@phishing.gov.uk, and suspicious texts to 7726.", "Thank people who report, even when it was nothing."}},
	}
	for _, a := range always {
		if len(out) >= 3 {
			break
		}
		out = append(out, a)
	}
	return slices.Clip(out[:min(len(out), mostAdvice)])
}

func times(n int64) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return chart.Number(n) + " times"
}

// count writes "1 event", "1,200 events".
func count(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	switch {
	case strings.HasSuffix(one, "ss"):
		return chart.Number(n) + " " + one + "es"
	}
	return chart.Number(n) + " " + one + "s"
}
