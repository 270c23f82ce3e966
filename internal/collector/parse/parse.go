package parse

import (
	"slices"
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/collector/parse/packs"
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
	{"asa", (*Set).asa},
	{"netfilter", (*Set).netfilter},
	{"filterlog", (*Set).filterlog},
	{"draytek", (*Set).draytek},
	{"eve", (*Set).eve},
	{"sshd", (*Set).sshd},
	{"meraki", (*Set).meraki},
	{"panos", (*Set).panos},
	{"mikrotik", (*Set).mikrotik},
	{"barracuda", (*Set).barracuda},
	{"checkpoint", (*Set).checkpoint},
	{"junos", (*Set).junos},
	{"netscreen", (*Set).netscreen},
	{"snort", (*Set).snort},
	{"squid", (*Set).squid},
	{"haproxy", (*Set).haproxy},
	{"web", (*Set).access},
	{"nginx-error", (*Set).nginxError},
	{"bind", (*Set).bind},
	{"dhcp", (*Set).dhcp},
	{"netscaler", (*Set).netscaler},
	{"pulse", (*Set).pulse},
	{"ise", (*Set).ise},
	{"vpcflow", (*Set).vpcFlow},
	{"alb", (*Set).alb},
	{"windows", (*Set).windowsXML},
	{"cef", (*Set).cefEvent},
	{"leef", (*Set).leef},
	{"json", (*Set).genericJSON},
	{"kv", (*Set).genericKV},
	{"text", (*Set).text},
}

// Formats gives the names that Parse takes as a hint, in the order of documentation.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	for _, p := range packs.Builtin().Packs() {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return names
}

// Parse reads the line in e.Raw() and fills e's fields and e.Time (which becomes e.Created when the line has no time).
// hint names a format to try first ("" or "auto": none). It answers the name of the format that understood the line; ok is
// false when none did: then e holds at most what the envelope and the careful search of words.go found. All lines count as of one origin.
func (s *Set) Parse(e *event.Event, hint string) (name string, ok bool) {
	return s.ParseFrom(e, hint, Origin{})
}

// ParseFrom is Parse for a line of several origins', which may have announced what stands in which column of their lines.
func (s *Set) ParseFrom(e *event.Event, hint string, from Origin) (name string, ok bool) {
	s.e, s.ref, s.from = e, e.Created, from
	s.fuelFor = nil
	if set := s.lib.set.Load(); set != s.packs {
		s.packs = set
		s.code.asa, s.code.netfilter, s.code.eve = isCode(set, "asa"), isCode(set, "netfilter"), isCode(set, "eve")
	}
	e.Time = 0
	name, ok = s.guarded(hint)
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
	if len(s.line) > forgetFrom || len(e.Raw()) > forgetFrom {
		s.forget()
	}
	s.e, s.line = nil, ""
	return name, ok
}

// forgetFrom is the length of a line from which on scratch memory must not point to it longer than needed.
const forgetFrom = 4096

func (s *Set) forget() {
	s.run.slots.Forget()
	clear(s.run.others[:])
	clear(s.cols[:])
	s.cef, s.json.s, s.json.val = cefWalk{}, "", jsonValue{}
}

// isCode says whether a format is read by its parser in Go, and not by a pack that took its name.
func isCode(set *packs.Set, name string) bool {
	p := set.Pack(name)
	return p == nil || p.Code == name
}

// guarded reads one line. A parser's mistake (a panic) costs that line, which then counts as not understood, never the collector.
func (s *Set) guarded(hint string) (name string, ok bool) {
	if !s.rethrow {
		defer func() {
			if recover() != nil {
				s.undo()
				s.afterPanic()
				name, ok = "", false
			}
		}()
	}
	s.utc, s.weak, s.weakTime = false, "", ""
	s.line = s.e.Raw()
	s.envelope(s.line)
	return s.pick(hint)
}

// afterPanic puts back what a parser that was broken off would have put back itself.
func (s *Set) afterPanic() {
	s.h = header{pri: -1}
	s.loc, s.zone, s.past = s.home, zoneCache{}, zoneCache{}
	s.run.pack, s.run.head, s.run.last = nil, nil, nil
	s.recipes.notes.on, s.inside = false, false
}

func (s *Set) pick(hint string) (string, bool) {
	if len(s.origins) > 0 {
		if name, ok := s.announced(); ok {
			return name, true
		}
	}
	msg := s.h.msg
	if hint != "" && hint != "auto" {
		if p := s.packs.Pack(hint); p != nil && len(msg) > 1 && s.runPack(p, msg) {
			return hint, true
		}
		for i := range formats {
			if formats[i].name == hint && s.try(&formats[i], msg) {
				return hint, true
			}
		}
	}
	s.as = ""
	name, ok := s.dispatch(msg)
	if !ok && s.e.Len() == 0 {
		return "", false
	}
	if ok && s.as != "" {
		name = s.as
	}
	return name, ok
}

// try runs one parser and undoes what it set when it refuses the message.
func (s *Set) try(f *format, msg string) bool {
	if len(msg) < 2 {
		return false
	}
	return f.parse(s, msg) || s.undo()
}

// undo empties the event's fields; it answers false so that it can stand behind a refusal.
func (s *Set) undo() bool {
	s.e.Truncate(0)
	s.e.ClearExtras()
	s.e.Time = 0
	return false
}

// dispatch chooses by the program's name and a few bytes of the message; what has no such mark goes to search.
func (s *Set) dispatch(msg string) (string, bool) {
	if sd := s.h.sd; len(sd) > 2 { // the structured data is the message, or most of it
		switch {
		case s.junosStructured() || s.undo():
			return "junos", true
		case find.Has(sd, "loguid") && (s.checkpoint(sd) || s.undo()):
			return "checkpoint", true
		case len(msg) < 2 && (s.structuredData(sd, msg) || s.undo()):
			return "kv", true
		}
	}
	if len(msg) < 2 {
		return "", false
	}
	// The commonest forms with a parser in Go need no look at the packs, unless a pack has taken their name.
	switch {
	case msg[0] == '%' && s.code.asa && (strings.HasPrefix(msg, "%ASA-") || strings.HasPrefix(msg, "%FTD-")):
		if s.asa(msg) || s.undo() {
			return "asa", true
		}
	case s.h.app == "kernel" && s.code.netfilter && find.Has(msg, "SRC="):
		if s.netfilter(msg) || s.undo() {
			return "netfilter", true
		}
	case msg[0] == '{' && s.code.eve:
		if s.eve(msg) || s.undo() {
			return "eve", true
		}
	}
	if name, ok := s.byPack(msg); ok {
		return name, true
	}
	switch msg[0] {
	case 't':
		if strings.HasPrefix(msg, "time=") && strings.IndexByte(msg, '|') > 0 && (s.checkpoint(msg) || s.undo()) {
			return "checkpoint", true
		}
	case '%':
		if s.asa(msg) {
			return "asa", true
		}
		s.undo()
	case 'C':
		if strings.HasPrefix(msg, "CEF:") && (s.cefEvent(msg) || s.undo()) {
			return "cef", true
		}
	case 'L':
		if strings.HasPrefix(msg, "LEEF:") && (s.leef(msg) || s.undo()) {
			return "leef", true
		}
	case '{':
		if name, ok := s.wrapped(msg); ok {
			return name, true
		}
		if s.genericJSON(msg) || s.undo() {
			return "json", true
		}
	case '[':
		if (strings.HasPrefix(msg, "[FILTER]") || strings.HasPrefix(msg, "[CSM_")) && (s.draytek(msg) || s.undo()) {
			return "draytek", true
		}
	case '1', '0':
		if msg[1] == ',' && (s.panos(msg) || s.undo()) {
			return "panos", true
		}
		if msg[1] == '|' && (s.cefEvent(msg) || s.undo()) {
			return "cef", true
		}
		fallthrough
	case '2':
		if len(msg) > 8 && msg[1] == '.' && msg[2] == '0' && msg[3] == '|' && (s.leef(msg) || s.undo()) { // a relay took the mark for a program
			return "leef", true
		}
	}
	switch s.h.app {
	case "filterlog", "pf":
		if s.filterlog(msg) || s.undo() {
			return "filterlog", true
		}
	case "sshd", "sshd-session", "sshd-auth":
		if s.sshd(msg) || s.undo() {
			return "sshd", true
		}
	case "error", "fatal", "ssh_dispatch_run_fatal", "input_userauth_request": // of sshd's own sentence, whose program's name is missing
		if line := trimLine(s.line); sshdStart(line) && (s.sshd(line) || s.undo()) {
			s.h.app = ""
			return "sshd", true
		}
	case "":
		if sshdStart(msg) && (s.sshd(msg) || s.undo()) {
			return "sshd", true
		}
		if find.Has(msg, "SRC=") && (s.netfilter(msg) || s.undo()) {
			return "netfilter", true
		}
	case "kernel", "ulogd":
		if find.Has(msg, "SRC=") && (s.netfilter(msg) || s.undo()) {
			return "netfilter", true
		}
	case "CEF":
		if s.cefEvent(msg) || s.undo() {
			return "cef", true
		}
	}
	if isAlpha(msg[0]) {
		if w, _ := cutSpace(msg); merakiType(w) && (s.meraki(msg) || s.undo()) {
			return "meraki", true
		}
	} else if isDigit(msg[0]) && (s.merakiRelayed(msg) || s.undo()) {
		return "meraki", true
	}
	return s.search(msg)
}

// search tries the families whose messages carry their mark somewhere inside, the most telling marks first.
func (s *Set) search(msg string) (string, bool) {
	name, code, ok := s.byPackInside(msg)
	if ok {
		return name, true
	}
	for i := range marks {
		m := &marks[i]
		if i < len(packs.Code) && code&(1<<i) == 0 {
			continue
		}
		at := find.Index(msg, m.text)
		if at < 0 {
			continue
		}
		from := 0
		if m.cut {
			from = at
		}
		if m.parse(s, msg[from:]) {
			return m.name, true
		}
		s.undo()
	}
	if ciscoMark(msg) >= 0 {
		if s.asa(msg) {
			return "asa", true
		}
		s.undo()
	}
	for i := range shapes {
		if shapes[i].parse(s, msg) {
			return shapes[i].name, true
		}
		s.undo()
	}
	if sd := s.h.sd; len(sd) > 2 {
		if s.structuredData(sd, msg) {
			return "kv", true
		}
		s.undo()
	}
	if i := find.Index(msg, "{"); i >= 0 && i < 300 && i+1 < len(msg) && (msg[i+1] == '"' || msg[i+1] == ' ' || msg[i+1] == '\n') {
		switch {
		case s.eve(msg[i:]) || s.undo():
			return "eve", true
		case s.genericJSON(msg[i:]) || s.undo():
			return "json", true
		}
	}
	if s.genericKV(msg) {
		return "kv", true
	}
	s.undo()
	if s.words(msg) {
		s.textDone(msg)
		// A refused or granted sign-in with its address is understood; a lone address is not.
		return "text", s.e.Has(event.SourceIP) && s.e.HasString(event.EventCategory, "authentication")
	}
	s.undo()
	return "", false
}

// text is words for a hint.
func (s *Set) text(msg string) bool {
	if !s.words(msg) {
		return false
	}
	s.textDone(msg)
	return true
}

func (s *Set) textDone(msg string) {
	s.identify()
	s.dataset("text.generic")
	s.str(event.Message, msg)
	s.str(event.EventKind, "event")
}

// structuredData reads RFC 5424 structured data of unknown products through the dictionary.
func (s *Set) structuredData(sd, msg string) bool {
	known := 0
	s.weak = ""
	w := kv{s: sd}
	for pairs := 0; pairs < 500; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v != "" && s.generic(key, v) {
			known++
		}
	}
	if known < 2 && !s.e.Has(event.SourceIP) {
		return false
	}
	if msg != "" {
		s.str(event.Message, msg)
	}
	s.genericDone("kv.generic")
	return true
}

// mark is a text that only one family's messages hold; cut says that the message proper starts there.
type mark struct {
	text  string
	cut   bool
	name  string
	parse func(*Set, string) bool
}

// marks are those of packs.Code, and one more.
var marks = [len(packs.Code) + 1]mark{
	{packs.Code[0], false, "netfilter", (*Set).netfilter},
	{packs.Code[1], true, "cef", (*Set).cefEvent},
	{packs.Code[2], true, "leef", (*Set).leef},
	{packs.Code[3], true, "draytek", (*Set).draytek},
	{packs.Code[4], true, "draytek", (*Set).draytek},
	{packs.Code[5], false, "netscreen", (*Set).netscreen},
	{packs.Code[6], false, "junos", (*Set).junos},
	{packs.Code[7], false, "checkpoint", (*Set).checkpoint},
	{packs.Code[8], false, "windows", (*Set).windowsXML},
	{packs.Code[9], false, "asa", (*Set).firepower},
	{packs.Code[10], false, "mikrotik", (*Set).mikrotik},
	{"|", false, "barracuda", (*Set).barracuda},
}

// shapes are tried on what carries no mark; each refuses after a few bytes.
var shapes = []format{
	{"draytek", (*Set).draytek},
	{"mikrotik", (*Set).mikrotik},
	{"panos", (*Set).panos},
	{"junos", (*Set).junos},
	{"filterlog", (*Set).filterlog},
	{"snort", (*Set).snort},
	{"squid", (*Set).squid},
	{"haproxy", (*Set).haproxy},
	{"web", (*Set).access},
	{"bind", (*Set).bind},
	{"dhcp", (*Set).dhcp},
	{"nginx-error", (*Set).nginxError},
	{"netscaler", (*Set).netscaler},
	{"ise", (*Set).ise},
	{"pulse", (*Set).pulse},
	{"vpcflow", (*Set).vpcFlow},
	{"alb", (*Set).alb},
}
