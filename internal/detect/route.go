package detect

import (
	"maps"
	"slices"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// products maps event.dataset to the product and service that Sigma rules name.
var products = map[string]sigma.LogSource{
	"fortinet.fortigate": {Product: "fortigate"},
	"cisco.asa":          {Product: "cisco", Service: "asa"},
	"cisco.ios":          {Product: "cisco", Service: "ios"},
	"netfilter.iptables": {Product: "linux", Service: "iptables"},
	"pfsense.filterlog":  {Product: "pfsense"},
	"draytek.vigor":      {Product: "draytek"},
	"suricata.eve":       {Product: "suricata"},
	"openssh.sshd":       {Product: "linux", Service: "sshd"},
}

// categories maps event.category to Sigma's. One event can be of several.
var categories = map[string]string{
	"network": "firewall", "authentication": "authentication", "intrusion_detection": "ids", "malware": "antivirus", "web": "proxy",
	"email": "email", "configuration": "configuration", "session": "session",
}

// renames lets rules written with the firewall and proxy names of Sigma's taxonomy work on events that carry ECS names.
var renames = map[string]map[string]string{
	"firewall": {"src_ip": "source.ip", "src_port": "source.port", "dst_ip": "destination.ip", "dst_port": "destination.port", "action": "event.action"},
	"proxy": {"c-uri": "url.original", "c-uri-query": "url.query", "c-useragent": "user_agent.original", "cs-host": "url.domain", "cs-method": "http.request.method",
		"r-dns": "url.domain", "sc-status": "http.response.status_code", "cs-uri-query": "url.query", "cs-uri-stem": "url.path", "cs-user-agent": "user_agent.original"},
	"dns": {"query": "dns.question.name", "record_type": "dns.question.type", "answer": "dns.answers.data"},
}

// services are what a sign-in can be to, as parsers name it and rules know it.
var services = []string{"vpn", "ssh", "rdp", "web", "mail", "admin"}

// route is what decides which rules apply to an event: from the lowest byte on the numbers of its dataset, its service and its first four
// categories in the vocabularies below, 0 for one that is not there or says nothing to rules. Data cannot make new ones.
type route uint64

const (
	maxRoutes     = 1024
	maxCategories = 4
)

// part is the i-th number of a route: the dataset, the service, the categories.
func (r route) part(i int) uint8 { return uint8(r >> (8 * i)) }

var (
	datasetWords  = newVocabulary(slices.Sorted(maps.Keys(products)))
	serviceWords  = newVocabulary(services)
	categoryWords = newVocabulary(slices.Sorted(maps.Keys(categories)))
)

// vocabulary numbers a few words, from 1. It is asked for every event.
type vocabulary struct {
	words []string
	byLen [32][]uint8
}

func newVocabulary(words []string) *vocabulary {
	v := &vocabulary{words: words}
	for i, w := range words {
		v.byLen[len(w)] = append(v.byLen[len(w)], uint8(i+1))
	}
	return v
}

func (v *vocabulary) number(s string) uint8 {
	if len(s) < len(v.byLen) {
		for _, n := range v.byLen[len(s)] {
			if v.words[n-1] == s {
				return n
			}
		}
	}
	return 0
}

// word is the reverse of number, "" for 0.
func (v *vocabulary) word(n uint8) string {
	if n == 0 {
		return ""
	}
	return v.words[n-1]
}

// sources gives the readings of an event's log source: one for its product alone and one for each of its categories.
func (r route) sources() []sigma.Source {
	base, service := products[datasetWords.word(r.part(0))], serviceWords.word(r.part(1))
	if service != "" && base.Service == "" {
		base.Service = service // vpn, ssh, rdp, web: what the sign-in was to
	}
	out := []sigma.Source{{LogSource: base}}
	for i := range maxCategories {
		n := r.part(2 + i)
		if n == 0 {
			break
		}
		category := categories[categoryWords.word(n)]
		s := sigma.Source{LogSource: base, Rename: renames[category]}
		s.Category = category
		out = append(out, s)
		if service != "" && base.Service != service {
			s.Service = service
			out = append(out, s)
		}
	}
	// Every event can be read as one of ours, whatever made it.
	return append(out, sigma.Source{LogSource: sigma.LogSource{Product: "tocsin"}})
}

func routeOf(ev *event.Event) route {
	r := route(datasetWords.number(ev.Str(event.EventDataset))) | route(serviceWords.number(ev.Str(event.TocsinService)))<<8
	n := 0
	for i := ev.Find(event.EventCategory); i >= 0 && i < ev.Len() && ev.Keys()[i] == event.EventCategory && n < maxCategories; i++ {
		if c := categoryWords.number(ev.StrAt(i)); c != 0 {
			r |= route(c) << (16 + 8*n)
			n++
		}
	}
	return r
}

// reading is what applies to the events of a route.
type reading struct {
	set      *sigma.Set
	asked    []bool // by event key: rules of the set look at it
	keywords bool   // or at everything
}

func newReading(set *sigma.Set) *reading {
	g := &reading{set: set, keywords: set.Keywords(), asked: make([]bool, event.TocsinTenant+1)}
	for _, k := range set.Keys() {
		for int(k) >= len(g.asked) {
			g.asked = append(g.asked, false)
		}
		g.asked[k] = true
	}
	return g
}

func (e *Engine) reading(ev *event.Event) *reading {
	r := routeOf(ev)
	if g, ok := e.routes[r]; ok {
		return g
	}
	g := newReading(e.rules.Set(r.sources()...))
	if len(e.routes) < maxRoutes {
		e.routes[r] = g
	}
	return g
}
