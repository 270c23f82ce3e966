package parse

import (
	"strings"

	"tocsin/internal/event"
)

// format is one device family: its name (as hints and Parse use it) and its parser. A parser answers false when the message
// is not its own; it must not have set any field then, except through attempts that reset the event's fields themselves.
type format struct {
	name  string
	parse func(*Set, string) bool
}

// formats lists every family by name, for hints and documentation. Automatic detection is in dispatch.
var formats = []format{
	{"fortigate", (*Set).fortigate},
	{"asa", (*Set).asa},
	{"netfilter", (*Set).netfilter},
	{"filterlog", (*Set).filterlog},
	{"draytek", (*Set).draytek},
	{"eve", (*Set).eve},
	{"sshd", (*Set).sshd},
	{"cef", (*Set).cefEvent},
	{"leef", (*Set).leef},
	{"json", (*Set).genericJSON},
	{"kv", (*Set).genericKV},
}

// Formats gives the names that Parse takes as a hint, in the order of documentation.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

// Parse reads the line in e.Raw() and fills e's fields and e.Time (which becomes e.Created when the line has no time).
// hint names a format to try first ("" or "auto": none). It answers the name of the format that understood the line; ok is
// false when none did: then e holds at most what the envelope and the careful search of words.go found.
func (s *Set) Parse(e *event.Event, hint string) (name string, ok bool) {
	s.e, s.ref = e, e.Created
	e.Time = 0
	s.envelope(e.Raw())
	name, ok = s.pick(hint)
	if name != "" {
		s.syslogFields()
		if !e.Has(event.TocsinFormat) {
			e.SetString(event.TocsinFormat, name)
		}
	}
	if e.Time == 0 {
		if s.h.has {
			e.Time = s.h.time
		} else {
			e.Time = e.Created
		}
	}
	s.e = nil
	return name, ok
}

func (s *Set) pick(hint string) (string, bool) {
	msg := s.h.msg
	if hint != "" && hint != "auto" {
		for i := range formats {
			if formats[i].name == hint && formats[i].parse(s, msg) {
				return hint, true
			}
		}
	}
	return s.dispatch(msg)
}

// dispatch chooses by a few bytes of the message and by the program's name.
func (s *Set) dispatch(msg string) (string, bool) {
	if len(msg) < 2 {
		return "", false
	}
	switch s.h.app {
	case "filterlog", "pf":
		if s.filterlog(msg) {
			return "filterlog", true
		}
	case "sshd", "sshd-session", "sshd-auth":
		if s.sshd(msg) {
			return "sshd", true
		}
	case "kernel":
		if s.netfilter(msg) {
			return "netfilter", true
		}
	}
	switch msg[0] {
	case '{':
		if s.eve(msg) {
			return "eve", true
		}
	case '%':
		if s.asa(msg) {
			return "asa", true
		}
	case 'C':
		if strings.HasPrefix(msg, "CEF:") && s.cefEvent(msg) {
			return "cef", true
		}
	case 'L':
		if strings.HasPrefix(msg, "LEEF:") && s.leef(msg) {
			return "leef", true
		}
	case 'd':
		if s.fortigate(msg) {
			return "fortigate", true
		}
	case '[':
		if s.draytek(msg) {
			return "draytek", true
		}
	}
	return s.search(msg)
}

// search tries the families whose messages carry their mark somewhere inside, the most telling marks first.
func (s *Set) search(msg string) (string, bool) {
	line := s.e.Raw()
	if strings.Contains(msg, " SRC=") && s.netfilter(msg) {
		return "netfilter", true
	}
	if strings.Contains(msg, "logid=") && s.fortigate(msg) {
		return "fortigate", true
	}
	if i := strings.Index(msg, "CEF:"); i >= 0 && s.cefEvent(msg[i:]) {
		return "cef", true
	}
	if i := strings.Index(msg, "LEEF:"); i >= 0 && s.leef(msg[i:]) {
		return "leef", true
	}
	if s.asa(msg) {
		return "asa", true
	}
	if s.draytek(msg) {
		return "draytek", true
	}
	if i := strings.IndexByte(msg, '{'); i >= 0 && i < 200 {
		if s.eve(msg[i:]) {
			return "eve", true
		}
		if s.genericJSON(msg[i:]) {
			return "json", true
		}
	}
	if s.genericKV(msg) {
		return "kv", true
	}
	_ = line
	return "", false
}
