package detect

import (
	"slices"
	"testing"

	"tocsin/internal/event"
	"tocsin/sigma"
)

// Every word of the tables has a number and comes back from it; all others have none.
func TestVocabularies(t *testing.T) {
	for _, v := range []*vocabulary{datasetWords, serviceWords, categoryWords} {
		for i, w := range v.words {
			if n := v.number(w); int(n) != i+1 || v.word(n) != w {
				t.Errorf("%s: %d, %s", w, n, v.word(n))
			}
			for _, other := range []string{w + "x", w[1:], "", string(make([]byte, 100))} {
				if n := v.number(other); n != 0 && !slices.Contains(v.words, other) {
					t.Errorf("%q: %d", other, n)
				}
			}
		}
	}
	if len(datasetWords.words) != len(products) || len(categoryWords.words) != len(categories) {
		t.Error("words are missing")
	}
}

func TestRoute(t *testing.T) {
	ev := &event.Event{}
	ev.SetString(event.EventDataset, "cisco.asa")
	ev.SetString(event.TocsinService, "vpn")
	for _, c := range []string{"nonsense", "authentication", "network", "session", "web", "email"} {
		ev.AddString(event.EventCategory, c)
	}
	r := routeOf(ev)
	var got []sigma.LogSource
	for _, s := range r.sources() {
		got = append(got, s.LogSource)
	}
	base := sigma.LogSource{Product: "cisco", Service: "asa"}
	want := []sigma.LogSource{base}
	for _, c := range []string{"authentication", "firewall", "session", "proxy"} { // the first four that rules know
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
	if r := routeOf(ev); r != 0 {
		t.Errorf("data made a route: %x", r)
	}
}
