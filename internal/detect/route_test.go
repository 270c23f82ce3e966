package detect

import (
	"slices"
	"strings"
	"testing"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// Every word of the tables has a number and comes back from it; all others have none.
func TestVocabularies(t *testing.T) {
	list := []*vocabulary{datasetWords, serviceWords, categoryWords, programWords, eveWords, channelWords, providerWords}
	for _, v := range append(list, channelIDs...) {
		if len(v.words) > 255 {
			t.Errorf("%d words; they are numbered in a byte", len(v.words))
		}
		for i, w := range v.words {
			if n := v.number(w); int(n) != i+1 || v.word(n) != w || v.folded(strings.ToUpper(w)) != n || w != strings.ToLower(w) {
				t.Errorf("%s: %d, %s", w, n, v.word(n))
			}
			for _, other := range []string{w + "x", w[1:], "", string(make([]byte, 100))} {
				if n := v.number(other); n != 0 && !slices.Contains(v.words, other) {
					t.Errorf("%q: %d", other, n)
				}
			}
		}
	}
	if len(datasetWords.words) != len(origins) || len(categoryWords.words) != len(categories) {
		t.Error("words are missing")
	}
	// They stand in a route in so many bits.
	if len(channelWords.words) > channelMask {
		t.Errorf("%d channels", len(channelWords.words))
	}
	for _, v := range channelIDs {
		if len(v.words) > idMask {
			t.Errorf("%d events of a channel", len(v.words))
		}
	}
}

func TestRoute(t *testing.T) {
	ev := &event.Event{}
	ev.SetString(event.EventDataset, "cisco.asa")
	ev.SetString(event.TocsinService, "vpn")
	for _, c := range []string{"nonsense", "authentication", "network", "session", "web", "email"} {
		ev.AddString(event.EventCategory, c)
	}
	keys := newFinerKeys()
	r := keys.routeOf(ev)
	var got []sigma.LogSource
	for _, s := range r.sources() {
		got = append(got, s.LogSource)
	}
	base := sigma.LogSource{Product: "cisco", Service: "asa"}
	want := []sigma.LogSource{base}
	for _, c := range []string{"authentication", "firewall", "session", "proxy", "webserver"} { // of the first four that rules know
		s := base
		s.Category = c
		want = append(want, s)
		s.Service = "vpn"
		want = append(want, s)
	}
	want = append(want, sigma.LogSource{Product: "tocsin"})
	if !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	ev.SetString(event.EventDataset, "invented.by.a.sender")
	ev.SetString(event.TocsinService, "x")
	ev.Del(event.EventCategory)
	if r := keys.routeOf(ev); r != 0 {
		t.Errorf("data made a route: %x", r)
	}
}

// The order of categories, and how often each is there, makes no other route.
func TestRouteOfCategories(t *testing.T) {
	keys := newFinerKeys()
	var want route
	for i, list := range [][]string{{"network", "web"}, {"web", "network"}, {"web", "web", "nonsense", "network", "web", "network", "web"}} {
		ev := &event.Event{}
		ev.SetString(event.EventDataset, "cisco.asa")
		for _, c := range list {
			ev.AddString(event.EventCategory, c)
		}
		if i == 0 {
			want = keys.routeOf(ev)
		}
		if r := keys.routeOf(ev); r != want || r.part(3) == 0 || r.part(4) != 0 {
			t.Errorf("%q: %x, want %x", list, r, want)
		}
	}
}

// A member that invents kinds of events has them read by their data set, and takes nothing from the others.
func TestTooManyRoutes(t *testing.T) {
	e := namingEngine(t)
	words := categoryWords.words
	send := func(member event.TenantID, service string, list ...string) *reading {
		ev := &event.Event{Tenant: member}
		ev.SetString(event.EventDataset, "cisco.asa")
		ev.SetString(event.TocsinService, service)
		for _, c := range list {
			ev.AddString(event.EventCategory, c)
		}
		return e.reading(ev)
	}
	plain := send(2, "")
	for _, s := range append([]string{""}, services...) {
		for a := range words {
			for b := range a {
				for c := range b {
					for d := range c {
						send(1, s, words[a], words[b], words[c], words[d])
					}
				}
			}
		}
	}
	if n := len(e.routes); n != maxRoutesOfOne+1 {
		t.Fatalf("%d routes", n)
	}
	if s := e.Stats(); e.coarse[1] == 0 || e.coarse[2] != 0 || s.Coarse != s.CoarseBy[1] || s.Kinds != len(e.routes) || send(1, "vpn", "web") != plain {
		t.Error("the one that made too many is not read by its data set")
	}
	if g := send(2, "vpn", "web"); g == plain || g != send(2, "vpn", "web") || g != send(1, "vpn", "web") {
		t.Error("another one's new kind is not read as what it is")
	}
}

// What an event says of its log source beside the name of its data set.
func TestFiner(t *testing.T) {
	if _, err := event.RegisterAll("EventType", "event_data.EventType", "endpoint", "certificate.serial"); err != nil {
		t.Fatal(err)
	}
	keys := newFinerKeys()
	for _, c := range []struct {
		dataset string
		fields  string // name=value;...
		want    string // a reading, as sigma writes it
	}{
		{"windows.json", "log.logger=Security;event.code=4688", "category=process_creation,product=windows,service=security"},
		{"windows.json", "log.logger=Security;event.code=4624", "product=windows,service=security"},
		{"windows.event", "log.logger=Microsoft-Windows-Sysmon/Operational;event.code=1", "category=process_creation,product=windows,service=sysmon"},
		{"windows.event", "log.logger=Microsoft-Windows-Sysmon/Operational;event.code=12;event_data.EventType=CreateKey", "category=registry_add,product=windows,service=sysmon"},
		{"windows.event", "log.logger=Microsoft-Windows-Sysmon/Operational;event.code=12;EventType=DeleteValue", "category=registry_delete,product=windows,service=sysmon"},
		{"windows.event", "event.provider=Microsoft-Windows-Sysmon;event.code=22", "category=dns_query,product=windows,service=sysmon"},
		{"windows.event", "log.logger=Linux-Sysmon/Operational;event.provider=Linux-Sysmon;event.code=11", "category=file_event,product=linux,service=sysmon"},
		{"windows.text", "event.code=4688", "category=process_creation,product=windows,service=security"},
		{"windows.event", "log.logger=MICROSOFT-WINDOWS-WINDOWS DEFENDER/OPERATIONAL;event.code=1116", "category=antivirus,product=windows,service=windefend"},
		{"windows.event", "log.logger=Something else;event.code=1", "product=windows"},
		{"windows.event", "log.logger=RPCFW;event.code=3", "category=application,product=rpc_firewall"},
		{"system.auth", "log.syslog.appname=CROND", "product=linux,service=cron"},
		{"system.auth", "log.syslog.appname=sudo", "product=linux,service=sudo"},
		{"suricata.eve", "event.action=dcerpc", "product=zeek,service=dce_rpc"},
		{"suricata.eve", "event.action=dns;dns.question.name=a.example", "category=dns,product=suricata"},
		{"zeek.json", "endpoint=svcctl", "product=zeek,service=dce_rpc"},
		{"zeek.json", "certificate.serial=00", "product=zeek,service=x509"},
		{"azure.signinlogs", "", "product=azure,service=signinlogs"},
		{"o365.audit", "", "product=m365,service=threat_management"},
		{"google_workspace.activity", "", "product=gcp,service=google_workspace.login"},
	} {
		ev := &event.Event{}
		ev.SetString(event.EventDataset, c.dataset)
		for f := range strings.SplitSeq(c.fields, ";") {
			if name, v, ok := strings.Cut(f, "="); ok {
				ev.SetNamed(name, v)
			}
		}
		r := keys.routeOf(ev)
		var got []string
		for _, s := range r.sources() {
			got = append(got, s.LogSource.String())
		}
		if !slices.Contains(got, c.want) {
			t.Errorf("%s %s: %q, want %s", c.dataset, c.fields, got, c.want)
		}
	}
}

// Every line of the namings can be read, and names what can have a key.
func TestNamings(t *testing.T) {
	for i, n := range namings {
		for name, list := range parsed()[i] {
			if len(list) == 0 {
				t.Errorf("%v: %s has nothing", n.of, name)
			}
			for _, c := range list {
				if c.field == "" && c.text == "" || strings.ContainsAny(c.field+c.with, " |,;=?*+") || c.rank > 3 {
					t.Errorf("%v: %s: %+v", n.of, name, c)
				}
			}
		}
	}
}
