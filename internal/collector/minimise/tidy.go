package minimise

import (
	"slices"
	"strings"
	"unicode/utf8"

	"tocsin/internal/event"
)

// Some devices write a sentence where others write a word: "user ann logged in from ssh" as the action, a file's name in the name of a
// finding. These fields may leave, so what stays must be taken out of them first.

// deviceWords are the fields that hold what a device calls something.
var deviceWords = []event.Key{event.EventAction, event.EventOutcome, event.RuleName, event.RuleCategory, event.RuleRuleset, event.ThreatIndicatorName, event.ThreatSoftwareName,
	event.NetworkApplication, event.NetworkName, event.TocsinService}

// people are the fields that name somebody. told are all fields whose values are looked for in deviceWords.
var (
	people = []event.Key{event.UserName, event.SourceUserName, event.DestinationUserName, event.UserTargetName, event.ClientUserName, event.UserFullName, event.UserEmail, event.UserID}
	told   = slices.Concat(people, []event.Key{event.EmailFromAddress, event.EmailToAddress, event.EmailSubject, event.FileName, event.FilePath, event.URLQuery, event.URLPath})
)

// What an action is at most; longer ones are sentences, and sentences stay.
const (
	maxActionBytes = 48
	maxActionWords = 4
)

// sentence says whether an action is more than a device's word for what it did.
func sentence(s string) bool {
	if len(s) > maxActionBytes {
		return true
	}
	spaces := 0
	for i := range len(s) {
		switch s[i] {
		case ' ':
			spaces++
		case '@', '\\', '/', '"', '\'', '=':
			return true
		}
	}
	return spaces >= maxActionWords
}

// tidy is what of a device's words, the i-th value of e, may leave: all of them, or without what stays of other fields; false for nothing:
// sentences stay.
func (m *Minimiser) tidy(e *event.Event, k event.Key, i int) (v event.Value, ok bool) {
	v = *e.Ref(i)
	if v.Kind() != event.String {
		return v, true
	}
	s := v.Str()
	if k == event.EventAction && !m.sentences && sentence(s) {
		return v, false
	}
	out := m.hideAddresses(s)
	if e.HasAny(&m.staying) {
		out = m.untold(e, out)
	}
	if out == s {
		return v, true
	}
	return event.StringValue(out), true
}

// untold is s without the values of those fields of e that stay, or leave in another form.
func (m *Minimiser) untold(e *event.Event, s string) string {
	for _, n := range told {
		t := m.treatment(n)
		if t == leaves || !e.Has(n) {
			continue
		}
		for j := e.Find(n); j >= 0 && j < e.Len() && e.Keys()[j] == n; j++ {
			name := e.StrAt(j)
			if len(name) < 3 || !containsFold(s, name) {
				continue
			}
			with := "…"
			if t == user {
				with = m.PseudonymUser(name)
			}
			s = replaceWord(s, name, with)
		}
	}
	return s
}

// containsFold says whether part is in s, whatever the case.
func containsFold(s, part string) bool {
	if len(part) > len(s) {
		return false
	}
	if strings.Contains(s, part) {
		return true
	}
	if !ascii(s) || !ascii(part) {
		return strings.Contains(strings.ToLower(s), strings.ToLower(part))
	}
	for ; len(s) >= len(part); s = s[1:] {
		n := 0
		for n < len(part) && lower(s[n]) == lower(part[n]) {
			n++
		}
		if n == len(part) {
			return true
		}
	}
	return false
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
