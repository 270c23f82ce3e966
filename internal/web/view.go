package web

import (
	"html/template"
	"time"

	"tocsin/internal/chart"
	"tocsin/internal/steps"
)

// What the templates are given. Handlers fill these from the records and the
// event store; nothing here reads anything, so that every page can be shown from
// a table of examples too.

// page is what every template gets.
type page struct {
	Title     string
	Path      string // of this page, to come back to
	Theme     string // "", light or dark
	Scheme    string // who runs this installation
	BodyClass string
	Width     string // of the sheet in the console frame: "" or medium
	Console   bool   // the analysts' and operators' frame instead of the members'
	Live      bool
	User      *account
	Nav       []navItem
	Flash     *flash
	Problem   []problem
	Data      any
}

// ErrorFor is what is wrong with one field of a form, "" when nothing.
func (p *page) ErrorFor(field string) string {
	for _, e := range p.Problem {
		if e.Field == field {
			return e.Text
		}
	}
	return ""
}

type account struct {
	Name         string
	Role         string // in words
	Organisation string // a member's own; "" for people of the centre
	Current      bool   // the page is their account's
}

type navItem struct {
	Text, Href string
	Current    bool
}

// flash is shown once, on the next page.
type flash struct {
	Bad  bool
	Text string
}

// problem is one thing wrong with a form: the field's id and what to do.
type problem struct {
	Field string
	Text  string
}

type option struct {
	Value string
	Text  string
	Count int64
	On    bool
}

type link struct {
	Key     string
	Text    string
	Href    string
	Count   int64
	Current bool
}

type signInView struct{ Email, Next string }

type invitationView struct {
	Name, Email, Organisation string
	QR                        template.URL
	SecretText                string
	MinPassword               int
}

// accountView is a person's own page.
type accountView struct {
	Name, Email, Role, Organisation string
	MinPassword                     int
	Sessions                        []sessionRow // this one first
	Others                          int64
}

type sessionRow struct {
	ID, Browser, Place string
	Began, Seen        time.Time
	Here               bool
}

type errorView struct {
	Heading    string
	Paragraphs []string
	Reference  string
}

// alertRow is one line of the queue.
type alertRow struct {
	ID           string
	Number       string // to say on the telephone
	Severity     string // informational … critical
	Risk         int
	FirstSeen    time.Time
	LastSeen     time.Time
	Title        string
	Organisation string
	Subject      string // what it is about: the source, account or host
	Technique    string // the first of them
	Events       int64
	Assignee     string
	StateText    string // "" when it is simply open
	Sort         string // the row's place: greater stands higher
	Current      bool
	Fresh        bool // came while the page was open
	ShowAssignee bool
	Mark         string // of its state, in the queue

	// For members, in plain words.
	PlainTitle string
	PlainState string
	Advice     *advice
	Over, Done bool // closed or set aside; the member has dealt with it: then nobody is told to do it
}

// advice is what a rule's author wrote for people without technical skill.
type advice struct{ What, Do string }

type facet struct {
	Name    string // of the form field
	Title   string
	Options []option
}

type queueView struct {
	View         string
	Views        []link
	Text         string
	Facets       []facet
	Filtered     bool
	ClearHref    string
	Href         string // this page, to come back to
	LiveHref     string
	NextHref     string
	FirstHref    string
	Total        int64
	More         bool   // Total is only what is shown: more were found
	One, Many    string // what Total counts
	CanBulk      bool   // there is something to do about ticked alerts
	Oldest       string
	Verdicts     []option
	Rows         []alertRow
	ShowAssignee bool
	EmptyHeading string
	EmptyText    string
	Selected     *alertView
}

type step struct {
	Time time.Time
	Text string
}

type technique struct{ ID, Name string }

type network struct{ AS, Name string }

type activityEntry struct {
	Time time.Time
	Who  string
	What string
	Note string
}

// evidence is one event behind an alert.
type evidence struct {
	Time        time.Time
	Source      string
	Country     string // ISO 3166-1 alpha-2
	Destination string
	Port        string
	Action      string // in words
	ActionRaw   string // as the device wrote it
	User        string
	Device      string
	Summary     string
}

// Shows says which columns of the events have anything in them: what a policy
// keeps at home would be empty all the way down.
func (v *alertView) Shows() evidence {
	var out evidence
	for _, e := range v.Evidence {
		out.Destination += e.Destination
		out.Port += e.Port
		out.User += e.User
	}
	return out
}

type alertView struct {
	alertRow
	Pane            bool // in the queue's right pane
	Back            string
	Reason          string
	Steps           []step
	Guides          []steps.Guide // what to do on the products that the member has
	Rule, RuleID    string
	Family          string
	Source          string
	User            string
	Host            string
	Country         string
	Network         *network
	Techniques      []technique
	AlsoSeen        string
	AlsoSeenLabel   string
	Beside          []besideAlert // other open alerts about the same source at the member, the gravest first
	Graver          bool          // the first of Beside is graver than this one
	Elsewhere       []actionLink  // the alerts of the same source at other members, for the centre
	OtherRules      []string
	Scoring         []string // what the risk is made of
	ProofText       string
	MemberHref      string
	Activity        template.HTML
	Evidence        []evidence
	EvidenceProblem string
	NoEvidence      string
	Raw             []string
	Timeline        []activityEntry
	Verdicts        []option
	ActError        string

	CanAct, CanNote, CanAcknowledge   bool
	Mine, Escalated, Closed, Late     bool
	Tone, VerdictHeading, VerdictText string
	EventsInt                         int
}

type besideAlert struct{ Severity, Title, Href string }

type memberAlertsView struct {
	Organisation string
	Views        []link
	Rows         []alertRow
	NextHref     string
	EmptyHeading string
	EmptyText    string
}

type tile struct {
	Label, Figure, Note, Href, Tone string
	Words                           bool  // the figure is words, not a number
	Since                           int64 // Unix milliseconds, for a note that ages
	SinceText                       string
}

type verdict struct{ Tone, Heading, Text string }

type actionLink struct{ Text, Href, Link string }

type pictureView struct {
	Organisation, Area string
	Heading            string
	Periods            []link
	Verdict            verdict
	Actions            []actionLink
	Problem            string
	Invented           bool // some of the figures were made for a demonstration
	Tiles              []tile
	ChartTitle         string
	ColumnName         string
	Chart              chart.Histogram
	Map                template.HTML
	Countries          []chart.Place
	Tried              []chart.Bar
	Alerts             []alertRow
	MoreAlerts         bool
	OpenAlerts         int64
	AlertsHref         string
	LeftHref           string
}

type reason struct {
	Text  string
	Count int64
}

// balance is the account of a collector's lines and events: nothing may be left
// over.
type balance struct {
	Received      int64
	NotUnderstood int64
	Kept, Left    []reason
	KeptAll       int64
	LeftAll       int64
	Made          []reason
	ToSend        int64
	Sent          int64
	Waiting       int64
	WaitingKnown  bool
	Dropped       []reason
	Stored        int64
	StoredKnown   bool
	LineGap       int64 // received - not understood - kept - left
	InFlight      int64 // taken by the centre, not yet stored
	Refused       int64 // kept aside by the centre because it could not read them
	Lost          int64 // on the site, before they could be sent
	Gap           int64 // between what the centre took and what it stored, and lines not accounted for
}

type explained struct {
	Text, Why string
	Leaves    bool
	Count     int64
}

type fact struct {
	Name, Text string
	Mono       bool
}

type collectorView struct {
	ID, Name, Site, Organisation string
	Tenant                       uint32
	Status, StatusText, Tone     string
	VerdictTone, VerdictHeading  string
	LastData                     time.Time
	Clock                        string
	ClockBad                     bool
	Version                      string
	Balance                      balance
	BalanceNote                  string
	Tiles                        []tile
	PolicyText                   string
	Explained                    []explained
	Fields                       []string // that may leave, by ECS name
	Facts                        []fact
	Quarantined                  bool
	CanConfirm, CanRevoke        bool
}

type collectorsView struct {
	Text         string
	Found, All   int
	Organisation string
	Wide         bool
	CanEnrol     bool
	Collectors   []collectorView
}

type memberRow struct {
	Tenant               uint32
	Name, Sector, Area   string
	Collectors           int
	CollectorText, Tone  string
	LastData             time.Time
	Open, Critical, High int64
	Joined               time.Time
}

type membersView struct {
	CanAdd              bool
	Text                string
	All, Found          int64
	NextHref, FirstHref string
	Members             []memberRow
}

type formField struct {
	Name, Label, Hint, Type, Value, List string
	Options                              []option
}

type memberNewView struct{ Fields []formField }

type tokenView struct {
	Text    string
	Expires time.Time
}

type newInvitation struct {
	Name, Email, URL string
	Expires          time.Time
	Again            bool // for somebody who has an account
}

type openToken struct {
	ID, Site, By  string
	Made, Expires time.Time
}

type person struct {
	ID, Name, Email, State string
	LastSignIn             time.Time
}

type siteOption struct{ ID, Name string }

type memberView struct {
	memberRow
	Collectors    []collectorView
	Sites         []siteOption
	Tokens        []openToken
	People        []person
	CanAdd        bool
	NewToken      *tokenView
	NewInvitation *newInvitation
}

type indicatorRow struct {
	ID, Kind, Value, Source, TLP string
	Push                         bool
	Added, Expires               time.Time
	Hits                         int64
}

type refusedLine struct {
	Line      int
	Text, Why string
}

type importResult struct {
	Added, Updated, RefusedCount int64
	NotPushed                    int64 // kept from collectors by their TLP
	Refused                      []refusedLine
}

type importForm struct {
	List, Source string
	Push         bool
}

type indicatorsView struct {
	Text, Kind      string
	Kinds           []option
	Total, Pushed   int64
	SetText         string
	Rows            []indicatorRow
	NextHref        string
	CanChange       bool
	TLPs, Lifetimes []option
	Form            importForm
	Result          *importResult
}

// Check is one part of the hub as its operator sees it on the health page.
type Check struct {
	Name string
	OK   bool
	Text string // what was found
	Next string // what to do, when it is not well
}

// Stage is what one stage of the line has counted since the hub started.
type Stage struct {
	Name            string
	In, Out, Failed int64
	Lag             string // "0 batches", "1.2 s"
}

// Latency is how long one way takes.
type Latency struct {
	Name          string // "collector's receipt to alert"
	P50, P95, P99 time.Duration
	N             int64
}

type healthView struct {
	Now                 time.Time
	Version             string
	Tone, Heading, Text string
	Checks              []Check
	Stages              []Stage
	Latencies           []Latency
}
