package web

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"tocsin/internal/chart"
	"tocsin/internal/event"
	"tocsin/internal/member"
)

// Source is a source of a member's events as detection sees it: one kind of device at one collector.
type Source struct {
	Tenant        event.TenantID
	Product       string // what people call the device
	Collector     string // id
	CollectorName string
	Last          time.Time
	Events        uint64  // that reached the centre
	Parsed        float64 // share of the collector's lines that are understood, as usual; 0: not known yet
	Mapped        float64 // share of the events that rules know the kind of
	Silent        bool
	Quiet         []string // addresses of devices that are silent while others of the kind speak
	Gone          []string // fields that came and come no more
	Can           []string // titles of rules that can fire on it
	Cannot        []CannotFire
	Other         int // rules that look at other kinds of sources
}

// CannotFire is a rule that could be of use on a source and cannot fire, and why.
type CannotFire struct{ Rule, Why string }

// Detection is what the pages need of detection health.
type Detection interface {
	// Sources are those of a member, with what the rules can make of them.
	Sources(ctx context.Context, t event.TenantID) ([]Source, error)
	// Unwell are those of all members that are silent or lost fields, without the rules; whoever asks shows them to those alone who may know.
	Unwell(ctx context.Context) ([]Source, error)
	// Coverage are the techniques of ATT&CK that rules of the scheme are about, in order, with what they can see of them at a member.
	Coverage(ctx context.Context, t event.TenantID) ([]Covered, error)
}

// Covered is a technique of ATT&CK at a member.
type Covered struct {
	ID    string
	Rules []string // titles of rules about it that can fire on a source of the member
	Blind int      // how many others are about it and can fire on none
}

// rulesAbout bounds the rules that are named for one technique.
const rulesAbout = 5

// rulesShown bounds a list of rules on a page: with rules of others there are thousands.
const rulesShown = 300

func (s *server) detection(w http.ResponseWriter, r *request) error {
	if !r.staff() {
		return s.showDetection(w, r, r.principal.Tenant, r.organisation)
	}
	orgs, err := s.o.Members.Organisations(r.Context(), r.scope)
	if err != nil {
		return err
	}
	names := map[event.TenantID]string{}
	for _, o := range orgs {
		names[o.ID] = o.Name
	}
	v := detectionView{Overview: true}
	if s.o.Detection != nil {
		list, err := s.o.Detection.Unwell(r.Context())
		if err != nil {
			return err
		}
		for i := range list {
			if name := names[list[i].Tenant]; name != "" && r.scope.Covers(list[i].Tenant) {
				x := sourceOf(&list[i])
				x.Organisation, x.Href = name, fmt.Sprintf("/members/%d/detection", list[i].Tenant)
				v.Sources = append(v.Sources, x)
			}
		}
	}
	v.Tone, v.Heading, v.Text = "good", "Every source can be seen", "No source of any member is silent, and none has lost fields that rules need."
	if heard, err := s.heard(r); err != nil {
		return err
	} else if !heard || s.o.Detection == nil {
		v.Tone, v.Heading = "warn", "There is no source yet"
		v.Text = "A source appears here by itself when a member's collector has sent its first events."
		v.Next = actionLink{Text: "What comes next: a member, a token for its collector, and the firewall's log sent to it.", Href: "/members", Link: "Go to the members"}
	}
	if n := int64(len(v.Sources)); n > 0 {
		v.Tone, v.Heading = "bad", fmt.Sprintf("%s %s be seen as before", chart.Number(n), plural(n, "source cannot", "sources cannot"))
		v.Text = "Each raised an alert when it began. Until it is mended, attacks there may go unnoticed."
	}
	p := s.page(r, "Detection", "/detection", v)
	p.Width = "medium"
	return s.show(w, r, "detection", p)
}

// heard says whether any collector has ever sent events.
func (s *server) heard(r *request) (bool, error) {
	list, err := s.o.Members.Collectors(r.Context(), r.scope)
	return slices.ContainsFunc(list, func(c member.Collector) bool { return c.LastBatchNS > 0 }), err
}

func (s *server) memberDetection(w http.ResponseWriter, r *request) error {
	tenant, err := tenantOf(r)
	if err != nil {
		return err
	}
	org, err := s.o.Members.Organisation(r.Context(), r.scope.Narrow(tenant), tenant)
	if err != nil {
		return err
	}
	return s.showDetection(w, r, tenant, org.Name)
}

func (s *server) showDetection(w http.ResponseWriter, r *request, tenant event.TenantID, name string) error {
	if !r.scope.Covers(tenant) {
		return errNotFound
	}
	v := detectionView{Organisation: name, Tenant: uint32(tenant)}
	var list []Source
	if s.o.Detection != nil {
		var err error
		if list, err = s.o.Detection.Sources(r.Context(), tenant); err != nil {
			return err
		}
	}
	if len(list) > 0 {
		covered, err := s.o.Detection.Coverage(r.Context(), tenant)
		if err != nil {
			return err
		}
		for _, c := range covered {
			x := coveredView{ID: c.ID, Name: techniqueNames[c.ID], Rules: c.Rules[:min(len(c.Rules), rulesAbout)], More: len(c.Rules) - min(len(c.Rules), rulesAbout), Blind: c.Blind}
			if len(c.Rules) > 0 {
				v.Seen++
			}
			v.Covered = append(v.Covered, x)
		}
		slices.SortStableFunc(v.Covered, func(a, b coveredView) int { return min(len(b.Rules), 1) - min(len(a.Rules), 1) }) // what can be seen stands first
		v.AllCovered = int64(len(v.Covered))
		v.Covered = v.Covered[:min(len(v.Covered), rulesShown)]
	}
	whose := "your"
	if r.staff() {
		whose = "their"
	}
	bad := int64(0)
	for i := range list {
		x := sourceOf(&list[i])
		if x.Tone == "bad" {
			bad++
		}
		v.Sources = append(v.Sources, x)
	}
	slices.SortStableFunc(v.Sources, func(a, b sourceView) int { return strings.Compare(a.Tone, b.Tone) }) // what needs somebody stands first
	switch {
	case len(list) == 0:
		v.Tone, v.Heading, v.Text = "warn", "Nothing can be said yet", "No events of "+whose+" devices have reached the centre."
		v.Next = actionLink{Text: "The page of each collector says whether lines come to it, and what to do if they do not.", Href: "/collectors", Link: "Go to the collectors"}
	case bad > 0:
		v.Tone, v.Heading = "bad", fmt.Sprintf("%s of %s %s cannot be seen as before", chart.Number(bad), chart.Number(int64(len(list))), plural(int64(len(list)), "source"))
		v.Text = "Until that is mended, some attacks may go unnoticed. An alert says what to do."
	default:
		v.Tone, v.Heading = "good", "All sources can be seen"
		v.Text = fmt.Sprintf("All of %s devices that report to the centre do so as usual, and say what the rules need.", whose)
	}
	p := s.page(r, "What can be seen", "/collectors", v) // a member comes here from its collectors
	p.Width = "medium"
	if r.staff() {
		p.Nav = navigation(r.principal.Role, "/members")
	}
	return s.show(w, r, "detection", p)
}

// sourceOf puts a source into words.
func sourceOf(s *Source) sourceView {
	x := sourceView{Name: s.Product, CollectorID: s.Collector, Collector: s.CollectorName, Last: s.Last, Events: int64(s.Events), Status: "works", Tone: "good", Other: int64(s.Other)}
	if s.Parsed > 0 {
		x.Parsed = fmt.Sprintf("%.0f in 100", 100*s.Parsed)
	}
	if s.Events > 0 {
		x.Mapped = fmt.Sprintf("%.0f in 100", 100*s.Mapped)
	}
	switch {
	case s.Silent:
		x.Status, x.Tone, x.Problem = "silent", "bad", "Nothing has come from it for much longer than usual. See whether the device is switched on and still sends its records to the collector."
	case len(s.Gone) > 0:
		x.Status, x.Tone, x.Problem = "says less", "bad", "Its records no longer have "+strings.Join(s.Gone, ", ")+". See whether the device was updated or its logging changed."
	case len(s.Quiet) > 0:
		x.Status, x.Tone, x.Problem = "partly silent", "bad", "Nothing has come from "+strings.Join(s.Quiet, ", ")+" for much longer than usual, while others of the kind speak."
	}
	x.CanAll, x.CannotAll = int64(len(s.Can)), int64(len(s.Cannot))
	x.More, x.MoreCannot = len(s.Can) > rulesShown, len(s.Cannot) > rulesShown
	x.Can = s.Can[:min(len(s.Can), rulesShown)]
	x.Cannot = s.Cannot[:min(len(s.Cannot), rulesShown)]
	return x
}

// detectionView is the page of detection health: of one member, or of what is not well anywhere (Overview).
type detectionView struct {
	Overview            bool
	Organisation        string
	Tenant              uint32
	Tone, Heading, Text string
	Next                actionLink // what to do when there is nothing to show
	Sources             []sourceView
	Covered             []coveredView // techniques of ATT&CK, those that can be seen first
	Seen, AllCovered    int64         // how many of them can be, and how many there are; Covered may be cut
}

type coveredView struct {
	ID, Name    string
	Rules       []string
	More, Blind int
}

type sourceView struct {
	Name, Organisation, Href string // Organisation and Href in the overview
	CollectorID, Collector   string
	Last                     time.Time
	Events                   int64
	Parsed, Mapped           string // "" when not known
	Status, Tone, Problem    string
	Can                      []string
	Cannot                   []CannotFire
	CanAll, CannotAll, Other int64
	More, MoreCannot         bool // lists are cut
}
