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

// tidy says what of a device's words, the i-th value of e, may leave: all (leaves), v instead (tidied), or nothing: sentences stay. staying says
// whether e has one of the fields whose values are taken out.
func (m *Minimiser) tidy(e *event.Event, k event.Key, i int, staying bool) (v event.Value, as treatment) {
	if e.KindAt(i) != event.String {
		return v, leaves
	}
	s := e.StrAt(i)
	if k == event.EventAction && !m.sentences && sentence(s) {
		return v, stays
	}
	out := m.hideAddresses(s)
	for _, n := range told {
		if !staying {
			break
		}
		if !e.Has(n) {
			continue
		}
		t := m.treatment(n)
		if t == leaves {
			continue
		}
		for j := e.Find(n); j >= 0 && j < e.Len() && e.Keys()[j] == n; j++ {
			name := e.StrAt(j)
			if len(name) < 3 || !containsFold(out, name) {
				continue
			}
			with := "…"
			if t == user {
				with = m.PseudonymUser(name)
			}
			out = replaceWord(out, name, with)
		}
	}
	if out == s {
		return v, leaves
	}
	return event.StringValue(out), tidied
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
