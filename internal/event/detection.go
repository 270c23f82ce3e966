package event

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Entity is what a detection is about: the thing that its alert is grouped by.
type Entity struct {
	Kind  string // source, user, host, rule
	Value string
}

// Step is one line of "why it fired": an instant and a sentence.
type Step struct {
	Time int64  `json:"time,string"` // UTC nanoseconds, 0 when it has none
	Text string `json:"text"`
}

// MaxDetectionEvents bounds the sample of events that a detection points at.
const MaxDetectionEvents = 100

// Detection is one rule matched. It is made by the detection engine, on the site or at the hub, and becomes an alert or a part of one.
type Detection struct {
	Tenant    TenantID // 0: a pattern across members, which only the centre sees
	RuleID    string
	RuleTitle string
	Family    string // alerts are grouped by tenant, family and entity
	Level     string // informational, low, medium, high, critical
	Tags      []string
	Entity    Entity
	// Indicator names the indicator that the newest event touched, "ip:00c0ffee00c0ffee" (kind and hash), "" when none. It does not travel:
	// the hub looks itself.
	Indicator string
	// EntityField is the field that the entity's value stood in. It does not travel: it is for whoever decides on the site what may leave.
	EntityField string
	First       int64 // event time of the first and last event that made it, UTC nanoseconds
	Last        int64
	Count       int  // events (or distinct values) behind it
	Events      []ID // at most MaxDetectionEvents of them
	Reason      string
	Steps       []Step
	Source      string // as text, "" when it has none
	User        string
	Host        string
	Site        bool // made by a collector, not at the hub
	Late        bool // made from events that came after their time
	// Key names the detection by tenant, rule, entity and event-time window: a replay makes the same key, so nothing twice.
	Key string
}

// maxClip is how many characters of a value stand in a sentence.
const maxClip = 80

// Clip bounds a value that an attacker chose and keeps it on one line, as it stands in the sentences of detections.
func Clip(v string) string {
	v = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' ' // control characters, line breaks and marks that turn the reading direction
		}
		return r
	}, v)
	if r := []rune(v); len(r) > maxClip {
		v = string(r[:maxClip-1]) + "…"
	}
	return v
}

// DetectionDataset is the event.dataset of a detection on the wire.
const DetectionDataset = "tocsin.detection"

// FromDetection writes d into e as an ordinary event, the form in which a collector sends it.
func FromDetection(e *Event, d *Detection) {
	e.SetString(EventKind, "alert")
	e.SetString(EventModule, "tocsin")
	e.SetString(EventDataset, DetectionDataset)
	e.SetString(RuleID, d.RuleID)
	e.SetString(RuleName, d.RuleTitle)
	e.SetString(TocsinDetectionFamily, d.Family)
	e.SetString(TocsinDetectionLevel, d.Level)
	e.SetString(TocsinDetectionEntityKind, d.Entity.Kind)
	e.SetString(TocsinDetectionEntity, d.Entity.Value)
	e.SetInt(TocsinDetectionCount, int64(d.Count))
	e.SetTime(TocsinDetectionFirst, d.First)
	e.SetTime(TocsinDetectionLast, d.Last)
	e.SetString(TocsinDetectionKey, d.Key)
	e.SetString(TocsinDetectionReason, d.Reason)
	if d.Late {
		e.SetBool(TocsinDetectionLate, true)
	}
	for _, t := range d.Tags {
		e.AddString(TocsinDetectionTags, t)
	}
	for _, id := range d.Events {
		e.AddString(TocsinDetectionEvents, id.String())
	}
	if len(d.Steps) > 0 {
		b, err := json.Marshal(d.Steps)
		if err == nil { // strings and integers always marshal
			e.SetString(TocsinDetectionSteps, string(b))
		}
	}
	if d.Source != "" {
		e.SetText(SourceIP, d.Source)
	}
	if d.User != "" {
		e.SetString(UserName, d.User)
	}
	if d.Host != "" {
		e.SetText(HostIP, d.Host)
	}
	if e.Time == 0 {
		e.Time = d.Last
	}
}

// IsDetection says whether e carries a detection made on the site.
func (e *Event) IsDetection() bool { return e.Str(EventDataset) == DetectionDataset }

// Indicator names the indicator that e touched, as Detection.Indicator does; "" when none.
func (e *Event) Indicator() string {
	id := e.Str(TocsinIndicatorID)
	if id == "" {
		return ""
	}
	return e.Str(TocsinIndicatorKind) + ":" + id
}

// ToDetection reads back what FromDetection wrote. The strings are copies. The tenant is the event's own, whatever the event says: a
// collector speaks only for its own member.
func ToDetection(e *Event) (Detection, error) {
	if !e.IsDetection() {
		return Detection{}, fmt.Errorf("event %s is not a detection", e.ID)
	}
	text := func(k Key) string { return strings.Clone(e.Text(k)) }
	instant := func(k Key) int64 { v, _ := e.Get(k); return v.Time() }
	d := Detection{
		Tenant: e.Tenant, RuleID: text(RuleID), RuleTitle: text(RuleName), Family: text(TocsinDetectionFamily), Level: text(TocsinDetectionLevel),
		Entity: Entity{text(TocsinDetectionEntityKind), text(TocsinDetectionEntity)},
		First:  instant(TocsinDetectionFirst), Last: instant(TocsinDetectionLast),
		Reason: text(TocsinDetectionReason), Source: text(SourceIP), User: text(UserName), Host: text(HostIP), Key: text(TocsinDetectionKey), Site: true, Indicator: e.Indicator(),
	}
	if v, ok := e.Get(TocsinDetectionLate); ok {
		d.Late = v.Bool()
	}
	if n, ok := e.Int(TocsinDetectionCount); ok && n >= 0 && n <= 1<<31 {
		d.Count = int(n)
	}
	switch d.Level {
	case "informational", "low", "medium", "high", "critical":
	default:
		return Detection{}, fmt.Errorf("detection %q: unknown level %q", d.RuleID, d.Level)
	}
	if d.RuleID == "" || d.Family == "" || d.Entity.Kind == "" || d.Key == "" {
		return Detection{}, fmt.Errorf("detection of rule %q: rule, family, entity and key must all be there", d.RuleID)
	}
	for i := 0; i < e.Len(); i++ {
		k, v := e.At(i)
		switch k {
		case TocsinDetectionTags:
			if len(d.Tags) < 32 {
				d.Tags = append(d.Tags, strings.Clone(v.Str()))
			}
		case TocsinDetectionEvents:
			id, err := ParseID(v.Str())
			if err != nil {
				return Detection{}, fmt.Errorf("detection of rule %q: %w", d.RuleID, err)
			}
			if len(d.Events) < MaxDetectionEvents {
				d.Events = append(d.Events, id)
			}
		}
	}
	if s := e.Str(TocsinDetectionSteps); s != "" {
		if err := json.Unmarshal([]byte(s), &d.Steps); err != nil {
			return Detection{}, fmt.Errorf("detection of rule %q: steps: %w", d.RuleID, err)
		}
		if len(d.Steps) > 32 {
			d.Steps = d.Steps[:32]
		}
	}
	return d, nil
}
