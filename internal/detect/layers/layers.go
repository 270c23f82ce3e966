// Package layers is what a scheme, a region or a member changes about detection rules, as it works on events and detections: a rule switched off, an
// exception (a field and a value), another level. The hub and the sites use the same: at the hub package internal/layer keeps the layers, asks here for each
// event that matched a rule (Excepted) and for each detection (Apply); to a site they come as a signed directive (Encode, Decode), which says of each layer
// what the site needs to apply it without the hub's catalogue of rules.
//
// It reads and writes nothing and keeps nothing over a restart. A layer past its end does nothing from that moment, whether anybody looks or not. Exceptions on
// single events count their hits.
package layers

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// Kinds of layers.
const (
	Off    = "off"    // the rule makes no detections
	Except = "except" // it makes none where a field has a value
	Level  = "level"  // its detections have another level
)

// Scopes, the widest first. Of two levels the narrower scope's holds.
const (
	Scheme = "scheme"
	Region = "region"
	Member = "member"
)

// ErrInvalid wraps a sentence about what is wrong with a layer.
var ErrInvalid = errors.New("invalid")

// Longest ends: an exception is looked at again at least once a year.
const (
	MaxExcept = 366 * 24 * time.Hour
	minReason = 5
	maxText   = 500
)

// Rules knows what can be changed: a detect.Catalogue, or more than one.
type Rules interface {
	// Find finds a rule by its id, its name or its title.
	Find(text string) (detect.Found, bool)
}

// Layer is one change.
type Layer struct {
	ID      int64          `bun:"id,pk,autoincrement" json:"id"`
	Kind    string         `bun:"kind" json:"kind"`
	Rule    string         `bun:"rule" json:"rule"`
	Title   string         `bun:"title" json:"title"`
	Scope   string         `bun:"scope" json:"scope"`
	Region  string         `bun:"region" json:"region,omitempty"`
	Tenant  event.TenantID `bun:"tenant" json:"tenant,omitempty"`
	Field   string         `bun:"field" json:"field,omitempty"`
	Value   string         `bun:"value" json:"value,omitempty"`
	Level   string         `bun:"level" json:"level,omitempty"`
	Reason  string         `bun:"reason" json:"reason"`
	Owner   string         `bun:"owner" json:"owner"`
	MadeBy  string         `bun:"made_by" json:"made_by"`
	Made    int64          `bun:"made_ns" json:"made_ns,string"`
	Expires int64          `bun:"expires_ns" json:"expires_ns,string"` // 0: never
	Ended   int64          `bun:"ended_ns" json:"ended_ns,string"`
	EndedBy string         `bun:"ended_by" json:"ended_by,omitempty"`
	Hits    int64          `bun:"hits" json:"hits"`
	Last    int64          `bun:"last_ns" json:"last_ns,string"`
}

// ByExpiry is who ended a layer that reached its end.
const ByExpiry = "system:expiry"

// State is open, expired or ended.
func (l *Layer) State(now time.Time) string {
	switch {
	case l.EndedBy == ByExpiry, l.Ended == 0 && l.Expires != 0 && l.Expires <= now.UnixNano():
		return "expired"
	case l.Ended != 0:
		return "ended"
	}
	return "open"
}

var levels = []string{"informational", "low", "medium", "high", "critical"}

// Check says whether a layer makes sense for the rules in force, and completes it. The fields it may name depend on where the rule's
// detections are made: see Fields. What the sites would not take is refused here, before anybody relies on it.
func (l *Layer) Check(rules Rules, now time.Time) error {
	if err := l.check(rules, now); err != nil {
		return err
	}
	if err := Unfit(l, rules); err != nil {
		return fmt.Errorf("%w: %q runs on the members' sites, and they would not take this: %w; change that in the rule's own file, or take the rule out there", ErrInvalid, l.Title, err)
	}
	return nil
}

func (l *Layer) check(rules Rules, now time.Time) error {
	sentence := func(name, s string, least int) (string, error) {
		s = strings.Join(strings.Fields(s), " ")
		if n := utf8.RuneCountInString(s); n < least || n > maxText {
			return s, fmt.Errorf("%w: %s must have %d to %d characters", ErrInvalid, name, least, maxText)
		}
		return s, nil
	}
	var err error
	if l.Reason, err = sentence("the reason, which somebody will want to know next year,", l.Reason, minReason); err != nil {
		return err
	}
	if l.Owner, err = sentence("the owner, who answers for it,", l.Owner, 2); err != nil {
		return err
	}
	r, ok := rules.Find(l.Rule)
	if !ok {
		return fmt.Errorf("%w: there is no rule %q; `tocsin rules list` shows ids and names, docs/baselines.md those of the baselines", ErrInvalid, l.Rule)
	}
	l.Rule, l.Title = r.ID, r.Title
	switch l.Scope {
	case Scheme:
		l.Region, l.Tenant = "", 0
	case Region:
		l.Tenant = 0
		if l.Region = strings.TrimSpace(l.Region); l.Region == "" {
			return fmt.Errorf("%w: a region needs its name, as it stands at the members", ErrInvalid)
		}
	case Member:
		l.Region = ""
		if l.Tenant == 0 {
			return fmt.Errorf("%w: a member is missing", ErrInvalid)
		}
	default:
		return fmt.Errorf("%w: the scope is %q; it must be scheme, region or member", ErrInvalid, l.Scope)
	}
	if r.Across && l.Scope != Scheme {
		return fmt.Errorf("%w: %q looks over all members together, so it can be changed for the whole scheme only", ErrInvalid, r.Title)
	}
	if l.Expires != 0 && l.Expires <= now.UnixNano() {
		return fmt.Errorf("%w: its end lies in the past", ErrInvalid)
	}
	if l.Kind != Except {
		l.Field, l.Value = "", ""
	}
	if l.Kind != Level {
		l.Level = ""
	}
	silent := fmt.Errorf("%w: %q makes no detections by itself, other rules count it; it can have exceptions, and be switched off or changed there", ErrInvalid, r.Title)
	switch l.Kind {
	case Off:
		if r.Silent {
			return silent
		}
		return nil
	case Level:
		switch {
		case r.Silent:
			return silent
		case !slices.Contains(levels, l.Level):
			return fmt.Errorf("%w: the level is %q; it must be informational, low, medium, high or critical", ErrInvalid, l.Level)
		}
		return nil
	case Except:
	default:
		return fmt.Errorf("%w: the kind is %q; it must be off, except or level", ErrInvalid, l.Kind)
	}
	if l.Expires == 0 || l.Expires > now.Add(MaxExcept).UnixNano() {
		return fmt.Errorf("%w: an exception needs an end, within a year; renew it then if it is still right", ErrInvalid)
	}
	if l.Value = strings.TrimSpace(l.Value); l.Value == "" || len(l.Value) > 300 {
		return fmt.Errorf("%w: an exception needs a value of 1 to 300 characters", ErrInvalid)
	}
	for _, s := range []struct{ what, text string }{{"value", l.Value}, {"field", l.Field}} {
		if !utf8.ValidString(s.text) {
			return fmt.Errorf("%w: the %s of an exception must be text in UTF-8; %.40q is not", ErrInvalid, s.what, s.text)
		}
	}
	if _, err := compile(l.Value); err != nil {
		return err
	}
	if _, known := event.Lookup(l.Field); !known {
		return fmt.Errorf("%w: there is no field %q; fields have ECS names such as source.ip", ErrInvalid, l.Field)
	}
	hint := ""
	if len(r.Counts) > 0 {
		hint = "; except it from what it counts: " + strings.Join(r.Counts, ", ")
	}
	switch {
	case r.Silent && r.Correlation:
		return fmt.Errorf("%w: %q only counts for other rules%s", ErrInvalid, r.Title, hint)
	case r.Silent && !r.AtHub && !r.OnSite:
		return fmt.Errorf("%w: %q makes no detections, and no rule that is in force counts it", ErrInvalid, r.Title)
	}
	if can, single := Fields(r); !single && !slices.Contains(can, l.Field) {
		return fmt.Errorf("%w: %q can have exceptions by %s only%s", ErrInvalid, r.Title, strings.Join(can, ", "), hint)
	}
	return nil
}

// Fields are those by which a rule can have exceptions. A single rule of the hub is asked about each event, so any field will do (single); for
// the others what their detections say counts: where they come from a site, more than that never left it. A rule that only counts on sites is asked there.
func Fields(r detect.Found) (can []string, single bool) {
	if !r.Correlation && (r.Silent || r.Runs == detect.Hub) {
		return nil, true
	}
	can = []string{"source.ip", "user.name", "destination.ip", "host.name", "host.ip"}
	for _, f := range r.EntityFields {
		if !slices.Contains(can, f) {
			can = append(can, f)
		}
	}
	return can, false
}

// Sentence says what a layer does.
func (l *Layer) Sentence() string {
	where := map[string]string{Scheme: "for the whole scheme", Region: "for the region " + l.Region, Member: fmt.Sprintf("for member %d", l.Tenant)}[l.Scope]
	until := ""
	if l.Expires != 0 {
		until = " until " + time.Unix(0, l.Expires).UTC().Format("2 January 2006 15:04")
	}
	what := ""
	switch l.Kind {
	case Off:
		what = fmt.Sprintf("%q is switched off", l.Title)
	case Except:
		what = fmt.Sprintf("%q leaves out %s = %s", l.Title, l.Field, l.Value)
	case Level:
		what = fmt.Sprintf("%q has the level %s", l.Title, l.Level)
	}
	return fmt.Sprintf("%s %s%s. Reason: %s. Owner: %s", what, where, until, l.Reason, l.Owner)
}

// matcher is the value of an exception: a network, a text, or a text with * at its ends. Case does not matter.
type matcher struct {
	net          netip.Prefix
	text         string
	front, after bool // * before, after
}

func compile(value string) (matcher, error) {
	if p, err := netip.ParsePrefix(value); err == nil {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // an IPv4 network in IPv6 writing
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 || p.Addr().Is4In6() {
			return matcher{}, fmt.Errorf("%w: %s is nearly everybody; name a network of /8 or smaller (IPv6 /16)", ErrInvalid, value)
		}
		return matcher{net: p.Masked()}, nil
	}
	m := matcher{text: strings.ToLower(value)}
	m.text, m.front = strings.CutPrefix(m.text, "*")
	m.text, m.after = strings.CutSuffix(m.text, "*")
	if m.text == "" || strings.Contains(m.text, "*") {
		return matcher{}, fmt.Errorf("%w: a value may have * at its beginning or end, and must have something besides", ErrInvalid)
	}
	return m, nil
}

func (m *matcher) matches(v string) bool {
	if m.net.IsValid() {
		if a, err := netip.ParseAddr(v); err == nil {
			return m.net.Contains(a.Unmap().WithZone(""))
		}
		p, err := netip.ParsePrefix(v) // IPv6 sources are grouped by /64
		return err == nil && m.net.Bits() <= p.Bits() && m.net.Contains(p.Addr())
	}
	v = strings.ToLower(v)
	switch {
	case m.front && m.after:
		return strings.Contains(v, m.text)
	case m.front:
		return strings.HasSuffix(v, m.text)
	case m.after:
		return strings.HasPrefix(v, m.text)
	}
	return v == m.text
}
