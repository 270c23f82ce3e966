package minimise

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"

	"tocsin/internal/event"
)

// Detection writes a detection of the on-site engine into dst as the event that leaves, under the same list of fields as every event: what the
// policy keeps at home leaves neither as a field nor as the entity nor in a sentence, whatever the rule asks for.
func (m *Minimiser) Detection(dst *event.Event, d *event.Detection) {
	dd := *d
	dd.Steps = slices.Clone(d.Steps)
	// say puts what may leave of a value in its place, in every sentence.
	var said []string
	say := func(value, as, instead string) {
		if value == "" || value == as || slices.Contains(said, value) {
			return
		}
		said = append(said, value)
		if as == "" {
			as = instead
		}
		values := []string{value}
		if clipped := event.Clip(value); clipped != value {
			values = append(values, clipped)
		}
		for _, v := range values {
			dd.Reason = replaceWord(dd.Reason, v, as)
			for i := range dd.Steps {
				dd.Steps[i].Text = replaceWord(dd.Steps[i].Text, v, as)
			}
		}
	}
	kind, value, field := dd.Entity.Kind, dd.Entity.Value, dd.EntityField
	if field == "" {
		field = entityFields[kind]
	}
	if kind == "user" && dd.User == "" {
		dd.User = value
	}
	user := m.outside("user.name", dd.User)
	say(dd.User, user, "an account")
	from, host := m.outside("source.ip", dd.Source), m.outside("host.ip", dd.Host)
	if kind == "host" && dd.Host == value {
		host = m.outside(field, value)
	}
	say(dd.Source, from, "an address")
	say(dd.Host, host, "a computer")
	dd.User, dd.Source, dd.Host = user, from, host
	if kind != "rule" || dd.EntityField != "" {
		as := m.outside(field, value)
		say(value, as, "something that stays on the site")
		switch {
		case as != "":
			dd.Entity.Value = as
		case kind != "source" && dd.Source != "":
			dd.Entity = event.Entity{Kind: "source", Value: dd.Source}
		case kind != "host" && dd.Host != "":
			dd.Entity = event.Entity{Kind: "host", Value: dd.Host}
		default:
			dd.Entity = event.Entity{Kind: "rule", Value: dd.RuleID}
		}
	}
	dd.Reason = m.hideAddresses(dd.Reason)
	for i := range dd.Steps {
		dd.Steps[i].Text = m.hideAddresses(dd.Steps[i].Text)
	}
	// The key is made of the values that the rule groups by, which the hub could guess and try. Hashed under the member's key it still is the
	// same for the same detection, and says no more than that.
	sum := m.mac("detection", []byte(d.Key))
	dd.Key = hex.EncodeToString(sum[:16])
	dst.Reset()
	dst.Time = dd.Last
	event.FromDetection(dst, &dd)
	// Source, user and host are settled above; what the policy keeps of the rest goes here.
	for _, k := range [...]event.Key{event.SourceIP, event.UserName, event.HostIP} {
		if leave, _ := m.MayLeave(k); !leave {
			dst.Del(k)
		}
	}
	dst.SetString(event.TocsinLeftReason, "site_detection")
	dst.SetBool(event.TocsinUrgent, true)
}

// entityFields are the fields of entities whose detection does not say which it was.
var entityFields = map[string]string{"user": "user.name", "source": "source.ip", "host": "host.ip"}

// outside is what may leave of the value of a field: itself, a pseudonym, or "".
func (m *Minimiser) outside(field, value string) string {
	k, ok := event.Lookup(field)
	if value == "" || !ok {
		return ""
	}
	switch m.treatment(k) {
	case stays:
		return ""
	case user:
		return m.PseudonymUser(value)
	}
	return m.hideAddresses(value)
}

// replaceWord replaces word in s where it stands alone, whatever its case.
func replaceWord(s, word, with string) string {
	if len(word) == 0 {
		return s
	}
	lower, w := strings.ToLower(s), strings.ToLower(word)
	if len(lower) != len(s) || len(w) != len(word) { // letters whose cases differ in length: compare as they are
		lower, w = s, word
	}
	var b bytes.Buffer
	from := 0
	for at := 0; ; {
		i := strings.Index(lower[at:], w)
		if i < 0 {
			b.WriteString(s[from:])
			return b.String()
		}
		i += at
		end := i + len(w)
		if i > 0 && wordByte(s[i-1]) && wordByte(s[i]) || end < len(s) && wordByte(s[end]) && wordByte(s[end-1]) {
			at = i + 1
			continue
		}
		b.WriteString(s[from:i])
		b.WriteString(with)
		from, at = end, end
	}
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}
