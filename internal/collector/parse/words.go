package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// The careful search in plain sentences, and what a line read through the dictionary means as a whole.

// genericDone derives categories from what was found.
func (s *Set) genericDone(dataset string) {
	e := s.e
	s.dataset(dataset)
	if s.weak != "" {
		s.user(s.weak)
		s.weak = ""
	}
	if s.weakTime != "" {
		if e.Time == 0 && !s.h.has {
			s.setTime(s.weakTime)
		}
		s.weakTime = ""
	}
	if e.Has(event.DestinationIP) || (e.Has(event.SourceIP) && e.Has(event.NetworkTransport)) {
		s.network()
	}
	if e.Has(event.HTTPRequestMethod) || e.Has(event.URLOriginal) {
		s.category("web")
	}
	if m := e.Str(event.Message); m != "" && (!e.Has(event.SourceIP) || !e.Has(event.UserName)) && len(m) > 12 {
		s.words(m) // the sentence inside says what the fields did not
	}
	if n := e.Str(event.EventCode); len(n) == 4 && find.Has(e.Raw()[:min(len(e.Raw()), 4096)], "Microsoft-Windows-") {
		s.windowsMeaning()
	}
	s.signInWords(e.Str(event.EventAction))
	s.signInWords(e.Str(event.EventReason))
	s.signInWords(e.Str(event.Message))
	s.identify()
	s.str(event.EventKind, "event")
}

// signInWords marks an authentication when a short text says so.
func (s *Set) signInWords(t string) {
	if t == "" || len(t) > 300 || s.e.HasString(event.EventCategory, "authentication") {
		return
	}
	if !mayBeSignIn(t) {
		return
	}
	if !find.HasFold(t, "login") && !find.HasFold(t, "logon") && !find.HasFold(t, "log in") && !find.HasFold(t, "logged in") && !find.HasFold(t, "signed in") &&
		!find.HasFold(t, "sign in") && !find.HasFold(t, "signin") && !find.HasFold(t, "sign-in") && !find.HasFold(t, "authenticat") && !find.HasFold(t, "password") {
		return
	}
	fail, good := failWords(t), goodWords(t)
	if !fail && !good {
		if s.e.Has(event.EventOutcome) && find.HasFold(t, "log") {
			s.category("authentication")
		}
		return
	}
	if fail {
		s.signIn("", false)
	} else {
		s.signIn("", true)
	}
}

// mayBeSignIn says whether one of the parts stands in a text without which it says nothing of a sign-in.
func mayBeSignIn(t string) bool {
	return find.HasFold(t, "log") || find.HasFold(t, "sign") || find.HasFold(t, "auth") || find.HasFold(t, "pass")
}

func failWords(t string) bool {
	for _, w := range [...]string{"fail", "invalid", "incorrect", "denied", "unsuccess", "wrong", "bad ", "not present", "rejected", "locked", "unknown user", "error",
		"nonexistent", "no matching", "not allowed", "mismatch"} {
		if find.HasFold(t, w) {
			return true
		}
	}
	return false
}

func goodWords(t string) bool {
	for _, w := range [...]string{"success", "succeed", "accepted", "logged in", "signed in", "authenticated", "login ok"} {
		if find.HasFold(t, w) {
			return true
		}
	}
	return false
}

// words searches a plain sentence for what is safe to take: the address behind "from" and its relatives, a named user, and
// whether a sign-in failed. It answers whether it found an address or a sign-in.
func (s *Set) words(t string) bool {
	e := s.e
	if len(t) > 8192 {
		t = t[:8192]
	}
	found := false
	if !e.Has(event.SourceIP) {
		for _, cue := range [...]string{" from ", "from=", "[remote ", "[client ", "client: ", "client=", "rip=", "clientip=", "RemoteAddress=\"", "ip_address=", "client ", " IP: ", "IP=", "ip=", " IP ", " ip ", "rhost=", "remote_addr=", "src=", "SRC=", "by ", "address ", "addr=", "host="} {
			if s.cue(t, cue) {
				found = true
				break
			}
		}
	}
	fail, good := false, false
	if (mayBeSignIn(t) || find.HasFold(t, "credential") || find.HasFold(t, "user")) && (find.HasFold(t, "login") || find.HasFold(t, "logon") || find.HasFold(t, "logged in") || find.HasFold(t, "authenticat") || find.HasFold(t, "password") ||
		find.HasFold(t, "sign in") || find.HasFold(t, "sign-in") || find.HasFold(t, "auth ") || find.HasFold(t, "credential") || find.HasFold(t, "auth-") || find.HasFold(t, "user")) {
		fail, good = failWords(t), goodWords(t)
	}
	if u := s.namedUser(t); u != "" && (fail || good || found) {
		s.user(u)
		found = true
	}
	if (fail || good) && (found || e.Has(event.UserName)) {
		if !e.Has(event.SourceIP) {
			s.loneIP(t)
		}
		s.signIn("", !fail)
		found = true
	}
	return found
}

// cue takes the address that stands behind a cue.
func (s *Set) cue(t, cue string) bool {
	at := 0
	for tries := 0; tries < 8; tries++ {
		i := find.Index(t[at:], cue)
		if i < 0 {
			return false
		}
		at += i + len(cue)
		w := t[at:]
		// "from unknown[192.0.2.1]", "from host.example [192.0.2.1]", "from IP 192.0.2.1": the address stands a little further on.
		if i := strings.IndexByte(w[:min(len(w), 80)], '['); i > 0 && strings.IndexByte(w[:i], ' ') < 0 {
			if j := strings.IndexByte(w[i:], ']'); j > 0 {
				if a, ok := parseIP(w[i+1 : i+j]); ok {
					s.addr(event.SourceIP, a)
					return true
				}
			}
		}
		for _, p := range [...]string{"IP ", "ip ", "IP address ", "host ", "address ", "IPV4/TCP/", "IPV4/UDP/", "IPV6/UDP/", "IPV6/TCP/"} {
			w = strings.TrimPrefix(w, p)
		}
		for w != "" && (w[0] == '`' || w[0] == '[' || w[0] == '(' || w[0] == '\'' || w[0] == '"' || w[0] == '<' || w[0] == ' ') {
			if w[0] == '[' {
				if j := strings.IndexByte(w, ']'); j > 0 {
					if a, ok := parseIP(w[:j+1]); ok {
						s.addr(event.SourceIP, a)
						if n, l := digits(strings.TrimPrefix(w[j+1:], ":")); l > 0 && w[j+1] == ':' && n < 65536 && n > 0 && !s.e.Has(event.SourcePort) {
							s.e.SetInt(event.SourcePort, n)
						}
						return true
					}
				}
			}
			w = w[1:]
		}
		j := 0
		for j < len(w) && w[j] != ' ' && w[j] != ',' && w[j] != ')' && w[j] != ']' && w[j] != '\'' && w[j] != '"' && w[j] != '>' && w[j] != ';' && w[j] != '|' && w[j] != '`' {
			j++
		}
		rest := w[j:]
		w = strings.TrimRight(w[:j], ".:")
		if s.endpoint(event.SourceIP, event.SourcePort, w) {
			if strings.HasPrefix(rest, " to ") {
				d, _ := cutSpace(rest[4:])
				s.endpoint(event.DestinationIP, event.DestinationPort, strings.TrimRight(d, ",.;\""))
			}
			if i := find.Index(rest[:min(len(rest), 24)], "port "); i >= 0 && !s.e.Has(event.SourcePort) {
				if n, l := digits(rest[i+5:]); l > 0 && n > 0 && n < 65536 {
					s.e.SetInt(event.SourcePort, n)
				}
			}
			return true
		}
	}
	return false
}

// loneIP takes the only address of a sentence as its source.
func (s *Set) loneIP(t string) {
	var found string
	for i := 0; i+7 <= len(t); i++ {
		if !isDigit(t[i]) || (i > 0 && (isAlpha(t[i-1]) || isDigit(t[i-1]) || t[i-1] == '.' || t[i-1] == '-' || t[i-1] == '_' || t[i-1] == '/')) {
			continue
		}
		_, n := ipv4Prefix(t[i:])
		if n == 0 {
			continue
		}
		if i+n < len(t) && (t[i+n] == '.' && i+n+1 < len(t) && isDigit(t[i+n+1]) || isAlpha(t[i+n])) {
			continue
		}
		if found != "" && found != t[i:i+n] {
			return
		}
		found = t[i : i+n]
		i += n
	}
	if found != "" {
		s.ip(event.SourceIP, found)
	}
}

// namedUser finds "user 'x'", `username "x"`, "for user x", "user=x", "user <x>", "User x".
func (s *Set) namedUser(t string) string {
	for _, cue := range [...]string{"user name ", "username ", "Username: ", "username: ", "for user ", "user: ", "login: ", "AccountID=", "user=", "usr=", "USER ", "name: ", "User=", "User: ", "account ", "set_id=", " user ", "User ", "for "} {
		at := 0
		for tries := 0; tries < 4; tries++ {
			i := find.Index(t[at:], cue)
			if i < 0 {
				break
			}
			at += i + len(cue)
			if b := at - len(cue) - 1; b >= 0 && isAlpha(t[b]) && cue[len(cue)-1] == '=' { // "ruser="
				continue
			}
			w := trimLeft(t[at:])
			if w == "" {
				break
			}
			quoted := w[0] == '\'' || w[0] == '"' || w[0] == '`' || w[0] == '<' || w[0] == '['
			if quoted {
				end := w[0]
				switch end {
				case '<':
					end = '>'
				case '[':
					end = ']'
				}
				if j := strings.IndexByte(w[1:], end); j > 0 && j < 129 {
					return w[1 : 1+j]
				}
				continue
			}
			if cue == "for " || cue == "account " {
				continue
			}
			j := 0
			for j < len(w) && w[j] != ' ' && w[j] != ',' && w[j] != ';' && w[j] != ')' && w[j] != ']' && w[j] != '(' && w[j] != '"' && w[j] != '\'' {
				j++
			}
			v := strings.TrimRight(w[:j], ".:")
			if v == "" || notName(v) || v[len(v)-1] == '=' { // the next name of a list whose value is empty
				continue
			}
			if _, ok := parseIP(v); ok {
				continue
			}
			return v
		}
	}
	return ""
}

// notName lists words that follow "user" without being a name.
func notName(v string) bool {
	switch v {
	case "is", "has", "was", "from", "not", "name", "agent", "authentication", "failed", "unknown", "account", "with", "login", "does", "input", "logged", "and", "or", "to", "in", "on", "for",
		"credentials", "password", "could", "cannot", "by", "via", "who", "that", "the", "a", "interface", "session", "id", "ID", "group", "EXEC", "Agent", "data", "info", "list",
		"profile", "at", "as", "attempt", "attempted", "attempts", "requested", "request", "service", "mode", "space", "supplied", "input,", "not_found", "database":
		return true
	}
	return false
}
