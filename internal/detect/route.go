package detect

import (
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

// route is what decides which rules apply to an event. Its strings are those of the schema or of parsers, and the cache is bounded.
type route struct {
	dataset, service string
	cats             [4]string
}

const maxRoutes = 1024

// sources gives the readings of an event's log source: one for its product alone and one for each of its categories.
func (r *route) sources() []sigma.Source {
	base := products[r.dataset]
	if r.service != "" && base.Service == "" {
		base.Service = r.service // vpn, ssh, rdp, web: what the sign-in was to
	}
	out := []sigma.Source{{LogSource: base}}
	add := func(category string) {
		s := sigma.Source{LogSource: base, Rename: renames[category]}
		s.Category = category
		out = append(out, s)
		if r.service != "" && base.Service != r.service {
			s.Service = r.service
			out = append(out, s)
		}
	}
	for _, c := range r.cats {
		if name, ok := categories[c]; ok {
			add(name)
		}
	}
	// Every event can be read as one of ours, whatever made it.
	return append(out, sigma.Source{LogSource: sigma.LogSource{Product: "tocsin"}})
}

func (e *Engine) set(ev *event.Event) *sigma.Set {
	r := route{dataset: ev.Str(event.EventDataset), service: ev.Str(event.TocsinService)}
	n := 0
	for i := range ev.Len() {
		if k, v := ev.At(i); k == event.EventCategory && n < len(r.cats) {
			if _, ok := categories[v.Str()]; ok {
				r.cats[n] = v.Str()
				n++
			}
		}
	}
	if _, ok := products[r.dataset]; !ok {
		r.dataset = "" // data: it must not fill the cache
	}
	switch r.service {
	case "vpn", "ssh", "rdp", "web", "mail", "admin":
	default:
		r.service = ""
	}
	if s, ok := e.routes[r]; ok {
		return s
	}
	s := e.rules.Set(r.sources()...)
	if len(e.routes) < maxRoutes {
		// The strings point into the event: the constants of the tables are kept instead.
		c := route{service: map[string]string{"vpn": "vpn", "ssh": "ssh", "rdp": "rdp", "web": "web", "mail": "mail", "admin": "admin"}[r.service]}
		for d := range products {
			if d == r.dataset {
				c.dataset = d
			}
		}
		for i, v := range r.cats {
			for name := range categories {
				if name == v {
					c.cats[i] = name
				}
			}
		}
		e.routes[c] = s
	}
	return s
}
