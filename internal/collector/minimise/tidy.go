package minimise

import (
	"slices"
	"strings"

	"tocsin/internal/event"
)

// Some devices write a sentence where others write a word: "user ann logged in from ssh" as the action, a file's name in the name of a
// finding. These fields may leave, so what stays must be taken out of them first.

// deviceWords are the fields that hold what a device calls something.
var deviceWords = func() (t [1024]bool) {
	for _, k := range []event.Key{event.EventAction, event.EventOutcome, event.RuleName, event.RuleCategory, event.RuleRuleset, event.ThreatIndicatorName, event.ThreatSoftwareName,
		event.NetworkApplication, event.NetworkName, event.TocsinService} {
		t[k] = true
	}
	return t
}()

// people are the fields that name somebody. names are all fields whose values are looked for in deviceWords.
var (
	people = []event.Key{event.UserName, event.SourceUserName, event.DestinationUserName, event.UserTargetName, event.ClientUserName, event.UserFullName, event.UserEmail, event.UserID}
	names  = slices.Concat(people, []event.Key{event.EmailFromAddress, event.EmailToAddress, event.EmailSubject, event.FileName, event.FilePath, event.URLQuery, event.URLPath})
)

// What an action is at most; longer ones are sentences, and sentences stay.
const (
	maxActionBytes = 48
	maxActionWords = 4
)

// tidy gives what of a device's words may leave: the values of fields that stay are taken out, sentences stay altogether (ok is false).
func (m *Minimiser) tidy(e *event.Event, k event.Key, v event.Value) (event.Value, bool) {
	if v.Kind() != event.String {
		return v, true
	}
	s := v.Str()
	if k == event.EventAction && (len(s) > maxActionBytes || strings.Count(s, " ") >= maxActionWords || strings.ContainsAny(s, "@\\/\"'=")) && m.Treatment(event.Message) == stays {
		return v, false
	}
	out := s
	for _, n := range names {
		t := m.Treatment(n)
		if t == leaves || !e.Has(n) {
			continue
		}
		name := e.Str(n)
		if len(name) < 3 || !containsFold(out, name) {
			continue
		}
		with := "…"
		if t == user {
			with = m.PseudonymUser(name)
		}
		out = replaceWord(out, name, with)
	}
	if out == s {
		return v, true
	}
	return event.StringValue(out), true
}

func containsFold(s, part string) bool {
	if len(part) > len(s) {
		return false
	}
	return strings.Contains(s, part) || strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
