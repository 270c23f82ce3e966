package detect

import (
	"slices"
	"strings"

	"tocsin/sigma"
)

// counted gives the ids and names of rules that correlations build on: by themselves they say nothing.
func (c *Catalogue) counted() map[string]bool {
	out := map[string]bool{}
	for _, r := range c.coll.Correlations {
		for _, n := range r.Rules {
			out[n] = true
		}
	}
	return out
}

// countedSource is the log source of the first rule that a correlation counts, nil when it counts correlations.
func (c *Catalogue) countedSource(r *sigma.Correlation) *sigma.LogSource {
	for _, x := range c.coll.Rules {
		if slices.Contains(r.Rules, x.ID) || x.Name != "" && slices.Contains(r.Rules, x.Name) {
			return &x.LogSource
		}
	}
	return nil
}

// kinds are the sorts of upstream rules by their log source, the first that fits: what the alert is about, and what to tell people who know
// nothing of log sources. The family says the sort, so that alerts of different ones do not meet.
var kinds = []struct {
	family     string
	categories []string // of the log source
	products   []string
	entity     string
	fields     list
	group      list
	member     Text
}{
	{"upstream-web", []string{"proxy", "webserver"}, []string{"apache", "nginx", "modsecurity"}, "source", list{"source.ip"}, list{"url.domain"}, Text{
		Title: "A suspicious web request was seen",
		What:  "A request to or from one of your web systems matches a known sign of attack. It may have been turned away.",
		Do:    "Ask your IT support to look at the web system that this alert names, and to check that it is up to date."}},
	{"upstream-antivirus", []string{"antivirus"}, nil, "host", list{"host.name", "host.ip", "source.ip", "destination.ip"}, nil, Text{
		Title: "A protection program reports something grave",
		What:  "A protection program on one of your computers reports something that attackers are known to use.",
		Do:    "Take the computer off the network, leave it switched on, and ask your IT support to look at it today."}},
	{"upstream-network", []string{"firewall", "dns", "dns_query", "network_connection", "netflow"}, []string{"zeek", "cisco", "paloalto", "fortios", "juniper", "huawei"}, "source", list{"source.ip", "host.ip"}, list{"destination.ip"}, Text{
		Title: "A suspicious connection was seen",
		What:  "A connection of one of your computers or devices matches a known sign of attack.",
		Do:    "Find the computer by the address in this alert, and ask your IT support which program made the connection."}},
	{"upstream-cloud", nil, []string{"aws", "azure", "gcp", "m365", "o365", "okta", "google_workspace", "onelogin", "github", "bitbucket", "cisco_duo", "saas", "kubernetes"}, "source", list{"source.ip"}, list{"user.name"}, Text{
		Title: "Something unusual happened in your cloud accounts",
		What:  "An action in your cloud accounts matches a known sign of attack. It may have been one of your administrators.",
		Do:    "Ask whoever looks after the cloud accounts whether they did it. If nobody did, change the password of the account, end its sessions and call the centre."}},
	{"upstream-host", nil, nil, "host", list{"host.name", "host.ip", "source.ip"}, nil, Text{
		Title: "A computer did something suspicious",
		What:  "A program or person on one of your computers did something that attackers are known to do.",
		Do:    "Ask your IT support whether it was them. If not, take the computer off the network, leave it switched on, and call the centre."}},
}

// adopt makes the attribute of an upstream rule, which has none. It runs at the hub: on a site there is no room for thousands of rules, and an
// upstream rule does not say whether it needs what a policy keeps at home. Health (package health) says which of them see too little. Of a correlation
// source is that of what it counts.
func adopt(m *sigma.Meta, source *sigma.LogSource, correlation bool, groupBy []string) *attributes {
	a := &attributes{Runs: Hub, Analyst: strings.TrimSpace(m.Description)}
	kind := kinds[len(kinds)-1]
	if source != nil {
		for _, k := range kinds {
			if slices.Contains(k.categories, source.Category) || slices.Contains(k.products, source.Product) {
				kind = k
				break
			}
		}
	}
	if !correlation {
		a.EntityFields, a.GroupBy = kind.fields, kind.group
	} else {
		// A correlation: what it groups by names the alert.
		for _, f := range kind.fields {
			if slices.Contains(groupBy, f) {
				a.EntityFields = append(a.EntityFields, f)
			}
		}
	}
	a.Family, a.Entity, a.Member = kind.family, kind.entity, kind.member
	if correlation && len(a.EntityFields) == 0 {
		a.Entity = "rule"
	}
	a.Reason = "The rule \"" + strings.NewReplacer("{", "(", "}", ")").Replace(m.Title) + "\" matched, {times}."
	return a
}
