// Package alert turns detections into what people see: alerts, each holding
// all detections of one tenant, rule family and entity until somebody closes
// it.
//
// It reads detections (Apply) and what people do (Assign, Close …), and writes
// alerts, their history and the notices for the outbox, each call in one
// transaction. What a call returned for is durable. Applying the same
// detections again changes nothing, whatever plan they come in: each is known
// by its Key. A kill at any moment leaves all of a call's effects or none.
//
// The first detection of a group gives a notice at once, a rise of severity
// too; what follows is counted and told at growing intervals (Options.Pace), so
// a flood of detections is one line with a number. Successes and attempts do
// not meet in one alert because their rules belong to different families.
//
// Counts by state, severity, family, technique and member are kept beside the
// alerts, so no page counts a million rows; Stats counts what Apply did. Patterns across members belong to
// the tenant access.Centre and are seen with a national scope only.
package alert

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/outbox"
)

// States of an alert. New and assigned ones are open.
const (
	StateNew        = "new"
	StateAssigned   = "assigned"
	StateClosed     = "closed"
	StateSuppressed = "suppressed"
)

// Verdicts an alert is closed with.
var Verdicts = []string{"true_positive", "benign", "false_positive", "duplicate"}

// Severity is how bad it is if the alert is right.
type Severity int

// Severities, as Sigma's levels.
const (
	Informational Severity = iota
	Low
	Medium
	High
	Critical
)

var severityNames = [...]string{"informational", "low", "medium", "high", "critical"}

// String is Sigma's word for it.
func (s Severity) String() string {
	if s >= 0 && int(s) < len(severityNames) {
		return severityNames[s]
	}
	return "unknown"
}

// MarshalText writes the word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the word.
func (s *Severity) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSeverity(string(b))
	return err
}

// ParseSeverity reads the word.
func ParseSeverity(s string) (Severity, error) {
	if i := slices.Index(severityNames[:], s); i >= 0 {
		return Severity(i), nil
	}
	return 0, fmt.Errorf("%w: %q is not a severity: use informational, low, medium, high or critical", ErrInvalid, s)
}

// Errors a caller decides on; what is returned wraps them in a sentence.
var (
	ErrNotFound  = errors.New("not found") // or not within the scope: told alike
	ErrInvalid   = errors.New("invalid")
	ErrClosed    = errors.New("the alert is closed")
	ErrNotClosed = errors.New("the alert is open")
	ErrDenied    = errors.New("not allowed")
)

// Text is what a rule says to the member, who may have no technical skill.
type Text struct {
	Title string `json:"title"`
	What  string `json:"what"`
	Do    string `json:"do"`
}

// Rule is one rule that took part in an alert.
type Rule struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Level string `json:"level"`
	Count int64  `json:"count"` // detections
}

// Details is the part of an alert that its page shows and the queue does not
// search.
type Details struct {
	Rules      []Rule       `json:"rules"`
	Tags       []string     `json:"tags,omitempty"`
	Techniques []string     `json:"techniques,omitempty"` // T1110.003
	Reason     string       `json:"reason"`               // of the gravest detection, newest first
	Steps      []event.Step `json:"steps,omitempty"`
	Text       Text         `json:"text"`
	Scoring    []string     `json:"scoring"`              // what the risk score is made of
	Confidence int          `json:"confidence,omitempty"` // of the indicators touched, the highest, 0 to 100
	Across     bool         `json:"across,omitempty"`     // its source is at work at five other members or more
}

// Alert is one alert. Times are UTC nanoseconds; 0 means never.
type Alert struct {
	bun.BaseModel `bun:"table:alerts,alias:a" json:"-"`

	Num            int64          `bun:"num,pk" json:"-"`
	ID             string         `bun:"id" json:"id"`
	Ref            string         `bun:"ref" json:"ref"` // to say on the telephone
	Rev            int64          `bun:"rev" json:"-"`
	Tenant         event.TenantID `bun:"tenant" json:"tenant"`
	Organisation   string         `bun:"organisation,scanonly" json:"organisation"` // "" for the centre's
	Sector         string         `bun:"sector" json:"sector"`
	Family         string         `bun:"family" json:"family"`
	EntityKind     string         `bun:"entity_kind" json:"entity_kind"`
	Entity         string         `bun:"entity" json:"entity"`
	State          string         `bun:"state" json:"state"`
	Open           bool           `bun:"open" json:"open"`
	Severity       Severity       `bun:"severity" json:"severity"`
	Score          int            `bun:"score" json:"score"` // risk, 0 to 100
	Assignee       string         `bun:"assignee" json:"assignee"`
	AssigneeName   string         `bun:"assignee_name,scanonly" json:"assignee_name"`
	EscalatedNS    int64          `bun:"escalated_ns" json:"escalated_ns,string"`
	AcknowledgedNS int64          `bun:"acknowledged_ns" json:"acknowledged_ns,string"`
	FirstNS        int64          `bun:"first_ns" json:"first_ns,string"` // event time
	LastNS         int64          `bun:"last_ns" json:"last_ns,string"`
	CreatedNS      int64          `bun:"created_ns" json:"created_ns,string"` // hub time
	UpdatedNS      int64          `bun:"updated_ns" json:"updated_ns,string"`
	ClosedNS       int64          `bun:"closed_ns" json:"closed_ns,string"`
	Verdict        string         `bun:"verdict" json:"verdict"`
	Title          string         `bun:"title" json:"title"`
	Source         string         `bun:"source" json:"source"`
	User           string         `bun:"user" json:"user"`
	Host           string         `bun:"host" json:"host"`
	Count          int64          `bun:"count" json:"count"` // events behind it, summed over its detections
	Detections     int64          `bun:"detections" json:"detections"`
	Events         int64          `bun:"events" json:"-"`
	Late           bool           `bun:"late" json:"late"` // some of it came after its time
	Site           bool           `bun:"site" json:"site"` // some of it was detected on the member's site
	Notices        int            `bun:"notices" json:"notices"`
	NoticedNS      int64          `bun:"noticed_ns" json:"-"`
	NoticedCount   int64          `bun:"noticed_count" json:"-"`
	DueNS          int64          `bun:"due_ns" json:"-"`
	Previous       string         `bun:"previous" json:"previous,omitempty"` // id of the closed alert of the same group
	Details        Details        `bun:"body" json:"details"`
}

// Change is one step in an alert's life as the stages after it hear of it.
type Change struct {
	Kind  string // opened, updated, escalated (its severity rose), counted (added to a closed or suppressed alert)
	Alert Alert
	New   int // detections added
}

// Kinds of Change.
const (
	Opened    = "opened"
	Updated   = "updated"
	Escalated = "escalated"
	Counted   = "counted"
)

// Notice is one thing that people are to be told.
type Notice struct {
	Kind  string `json:"kind"`  // opened, updated, escalated
	N     int    `json:"n"`     // the alert's how-manieth notice, from 1
	AtNS  int64  `json:"at_ns"` // hub time
	New   int64  `json:"new"`   // events counted since the last notice
	By    string `json:"by,omitempty"`
	Note  string `json:"note,omitempty"`
	Alert Alert  `json:"alert"`
}

// NoticeKind is the outbox kind of notices when Options.Entries is nil.
const NoticeKind = "alert.notice"

// Recorder is the part of the outbox that alerts need: it records entries in the
// caller's transaction, once per key.
type Recorder interface {
	Record(ctx context.Context, tx bun.IDB, entries ...outbox.Entry) (int, error)
	Wake()
}

// Options configure a Store.
type Options struct {
	Outbox Recorder // nil: nobody is told
	// Entries makes the outbox entries of a notice. It runs within the change's
	// transaction, perhaps twice, so it must only compute. Default: one of the kind
	// NoticeKind that holds the notice as JSON.
	Entries func(Notice) ([]outbox.Entry, error)
	Text    func(ruleID string) Text // what a rule says to members; may be nil
	// Confidence says how much each of some indicators (event.Detection.Indicator) is trusted, 0 to 100. It runs within the change's
	// transaction. nil: not known.
	Confidence func(ctx context.Context, tx bun.IDB, indicators []string) (map[string]int, error)
	// Pace is the least time between an alert's notices: after the first, the
	// second … the last value repeats. Default 1 min, 10 min, 1 h, 6 h.
	Pace   []time.Duration
	Poll   time.Duration // how often Watch looks for changes by other programs; default 500 ms
	Now    func() time.Time
	Logger *slog.Logger
}

// Store is the alerts of all tenants. Any number of goroutines may use it.
type Store struct {
	db  *db.DB
	o   Options
	log *slog.Logger

	stats   counters
	changed chan struct{} // of capacity 1: something was committed here

	mu       sync.Mutex // guards the watchers; held for map work only
	watchers map[*watcher]struct{}
	polling  bool
}

type counters struct{ detections, repeats, opened, updated, failed atomic.Uint64 }

// Stats counts what Apply did since the program started.
type Stats struct {
	Detections uint64 // given
	Repeats    uint64 // of them, known already
	Opened     uint64 // alerts
	Updated    uint64 // alerts, counted once for each Apply
	Failed     uint64 // calls
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	return Stats{s.stats.detections.Load(), s.stats.repeats.Load(), s.stats.opened.Load(), s.stats.updated.Load(), s.stats.failed.Load()}
}

// New returns a Store on an open database.
func New(d *db.DB, o Options) *Store {
	if len(o.Pace) == 0 {
		o.Pace = []time.Duration{time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}
	}
	if o.Poll <= 0 {
		o.Poll = 500 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{db: d, o: o, log: o.Logger, changed: make(chan struct{}, 1), watchers: map[*watcher]struct{}{}}
}

func (s *Store) now() int64 { return s.o.Now().UnixNano() }

// Bounds of what one alert keeps.
const (
	maxRules  = 20
	maxTags   = 64
	maxSteps  = 100
	keepFirst = 100 // event ids kept from the beginning
	keepLast  = 100 // and from the end
	maxText   = 2000
)

// entityOf is the entity a detection is grouped by: IPv6 sources by their /64,
// since whoever has one address there has all of them.
func entityOf(e event.Entity) event.Entity {
	if e.Kind == "source" {
		if a, err := netip.ParseAddr(e.Value); err == nil {
			a = a.Unmap().WithZone("")
			e.Value = a.String()
			if a.Is6() {
				e.Value = netip.PrefixFrom(a, 64).Masked().String()
			}
		}
	}
	return e
}

func groupKey(tenant event.TenantID, family string, e event.Entity) []byte {
	h := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s\x00%s", tenant, family, e.Kind, e.Value))
	return h[:16]
}

// techniques picks the ATT&CK techniques out of Sigma tags.
func techniques(tags []string) []string {
	var out []string
	for _, t := range tags {
		t, ok := strings.CutPrefix(strings.ToLower(t), "attack.t")
		if ok && len(t) >= 4 && len(t) <= 8 && strings.Trim(t, "0123456789.") == "" {
			out = append(out, "T"+t)
		}
	}
	return out
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s + " " + what + "s"
}

// merge adds one detection to an alert. count is what it adds to the number of
// events, fresh says that its key was not known.
func (a *Alert) merge(d *event.Detection, sev Severity, text func(string) Text, count int64, fresh bool) {
	first := a.Detections == 0
	a.Count += count
	if d.First != 0 && (a.FirstNS == 0 || d.First < a.FirstNS) {
		a.FirstNS = d.First
	}
	newest := d.Last >= a.LastNS
	a.LastNS = max(a.LastNS, d.Last)
	if fresh {
		a.Detections++
		a.Events += int64(len(d.Events))
	}
	if first || sev > a.Severity || sev == a.Severity && newest {
		if first || sev > a.Severity || a.Title == "" {
			a.Title = clip(d.RuleTitle, 200)
			if text != nil {
				a.Details.Text = text(d.RuleID)
			}
		}
		a.Details.Reason = clip(d.Reason, maxText)
	}
	a.Severity = max(a.Severity, sev)
	i := slices.IndexFunc(a.Details.Rules, func(r Rule) bool { return r.ID == d.RuleID })
	if i < 0 && len(a.Details.Rules) < maxRules {
		a.Details.Rules = append(a.Details.Rules, Rule{ID: d.RuleID, Title: clip(d.RuleTitle, 200), Level: d.Level})
		i = len(a.Details.Rules) - 1
	}
	if i >= 0 && fresh {
		a.Details.Rules[i].Count++
	}
	for _, t := range d.Tags {
		if len(a.Details.Tags) < maxTags && !slices.Contains(a.Details.Tags, t) {
			a.Details.Tags = append(a.Details.Tags, clip(t, 100))
		}
	}
	for _, t := range techniques(d.Tags) {
		if len(a.Details.Techniques) < maxTags && !slices.Contains(a.Details.Techniques, t) {
			a.Details.Techniques = append(a.Details.Techniques, t)
		}
	}
	for _, st := range d.Steps {
		st.Text = clip(st.Text, 500)
		if !slices.Contains(a.Details.Steps, st) {
			a.Details.Steps = append(a.Details.Steps, st)
		}
	}
	slices.SortStableFunc(a.Details.Steps, func(x, y event.Step) int {
		switch {
		case x.Time < y.Time:
			return -1
		case x.Time > y.Time:
			return 1
		}
		return 0
	})
	if n := len(a.Details.Steps); n > maxSteps { // how it began, and how it stands
		a.Details.Steps = slices.Delete(a.Details.Steps, maxSteps/5, n-maxSteps*4/5)
	}
	set := func(p *string, v string) {
		if *p == "" {
			*p = clip(v, 200)
		}
	}
	set(&a.Source, d.Source)
	set(&a.User, d.User)
	set(&a.Host, d.Host)
	a.Late = a.Late || d.Late
	a.Site = a.Site || d.Site
	a.score()
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 { // not inside a character
		n--
	}
	return s[:n] + "…"
}

// words is what the queue's text search looks through.
func (a *Alert) words(organisation string) string {
	return strings.ToLower(strings.Join([]string{a.Ref, a.Title, a.Entity, a.Source, a.User, a.Host, organisation}, "\n"))
}

// pace is the least time after the alert's n-th notice.
func (s *Store) pace(n int) int64 {
	return int64(s.o.Pace[min(max(n, 1), len(s.o.Pace))-1])
}
