package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// sshd reads OpenSSH's messages (sshd and sshd-session; "auth" and "authpriv"): sign-ins, refused sign-ins, connections that
// ended before one, PAM. Forms are those of OpenSSH 6 to 10 and of Debian's, Red Hat's and pfSense's builds.
func (s *Set) sshd(msg string) bool {
	e := s.e
	t := msg
	// "error: ", "fatal: ", "ssh_dispatch_run_fatal: " before the sentence.
	for {
		w, r := cutSpace(t)
		if w == "error:" || w == "fatal:" || w == "ssh_dispatch_run_fatal:" || w == "debug1:" || w == "[auth.info]" {
			t = r
			continue
		}
		break
	}
	t = strings.TrimSuffix(trim(t), " [preauth]")
	auth, fail := false, false
	user, from := "", ""
	action := ""
	switch {
	case strings.HasPrefix(t, "Failed "), strings.HasPrefix(t, "Accepted "), strings.HasPrefix(t, "Postponed "), strings.HasPrefix(t, "Partial "):
		// "Failed password for invalid user root from 192.0.2.1 port 51182 ssh2"
		w, r := cutSpace(t)
		method, r := cutSpace(r)
		auth, fail = true, w == "Failed"
		action = "ssh_login"
		s.str(event.EventReason, method)
		r = strings.TrimPrefix(r, "for ")
		r = strings.TrimPrefix(r, "invalid user ")
		user, from = sshFrom(r)
		if w == "Postponed" || w == "Partial" {
			auth = false
		}
	case strings.HasPrefix(t, "Invalid user "), strings.HasPrefix(t, "Illegal user "):
		user, from = sshFrom(t[13:])
		auth, fail, action = true, true, "invalid user"
	case strings.HasPrefix(t, "input_userauth_request: invalid user "):
		user, _ = cutSpace(t[len("input_userauth_request: invalid user "):])
		auth, fail, action = true, true, "invalid user"
	case strings.HasPrefix(t, "Connection closed by "), strings.HasPrefix(t, "Connection reset by "), strings.HasPrefix(t, "Disconnected from "):
		r := t[strings.Index(t, " ")+1:]
		r = r[strings.Index(r, " ")+1:]
		if strings.HasPrefix(t, "Connection") {
			_, r = cutSpace(r) // "by"
		}
		action = "connection closed"
		pre := strings.Contains(msg, "[preauth]")
		switch {
		case strings.HasPrefix(r, "authenticating user "):
			r, auth, fail = r[20:], true, true
		case strings.HasPrefix(r, "invalid user "):
			r, auth, fail = r[13:], true, true
		case strings.HasPrefix(r, "authenticated user "):
			r, auth, fail = r[19:], pre, pre
		case strings.HasPrefix(r, "user "):
			r = r[5:]
		default:
			if pre {
				fail = true
				s.str(event.EventOutcome, "failure")
			}
			from = r
			r = ""
		}
		if r != "" {
			// "root 203.0.113.9 port 45362"; a user name may hold blanks or be empty.
			if i := strings.LastIndex(r, " port "); i >= 0 {
				head := r[:i]
				if j := strings.LastIndexByte(head, ' '); j >= 0 {
					user, from = head[:j], head[j+1:]+r[i:]
				} else {
					from = r
				}
			}
		}
		s.kind("end")
	case strings.HasPrefix(t, "User ") && strings.Contains(t, " not allowed because"):
		user, from = sshFrom(t[5:])
		auth, fail, action = true, true, "user not allowed"
		if i := strings.Index(t, " because "); i >= 0 {
			s.str(event.EventReason, t[i+9:])
		}
	case strings.HasPrefix(t, "pam_unix("), strings.HasPrefix(t, "pam_sss("), strings.HasPrefix(t, "PAM "), strings.HasPrefix(t, "pam_"):
		s.pam(t)
		return s.sshDone("", "", false, false, "")
	case strings.HasPrefix(t, "maximum authentication attempts exceeded for "):
		r := strings.TrimPrefix(t[len("maximum authentication attempts exceeded for "):], "invalid user ")
		user, from = sshFrom(r)
		auth, fail, action = true, true, "maximum attempts exceeded"
	case strings.HasPrefix(t, "ROOT LOGIN REFUSED FROM "):
		user, from = "root", t[len("ROOT LOGIN REFUSED FROM "):]
		auth, fail, action = true, true, "root login refused"
	case strings.HasPrefix(t, "Did not receive identification"), strings.HasPrefix(t, "Bad protocol version"), strings.HasPrefix(t, "Unable to negotiate with "),
		strings.HasPrefix(t, "Received disconnect from "), strings.HasPrefix(t, "Connection from "), strings.HasPrefix(t, "Timeout before authentication for "),
		strings.HasPrefix(t, "banner exchange: Connection from "), strings.HasPrefix(t, "kex_exchange_identification: "), strings.HasPrefix(t, "Magic value check failed"),
		strings.HasPrefix(t, "refused connect from "), strings.HasPrefix(t, "reverse mapping checking"), strings.HasPrefix(t, "Address "),
		strings.HasPrefix(t, "Protocol major versions differ for "), strings.HasPrefix(t, "drop connection "):
		own := t // without the words of the visitor, who may write any address into them
		switch {
		case strings.HasPrefix(t, "Bad protocol version"):
			own = t[max(strings.LastIndex(t, " from "), 0):]
		case strings.HasPrefix(t, "kex_exchange_identification: "):
			own, _, _ = strings.Cut(t, "\"")
		case strings.HasPrefix(t, "Unable to negotiate with "):
			own, _, _ = strings.Cut(t, ": ")
		}
		for _, cue := range [...]string{" from ", " with ", "getaddrinfo for ", "differ for ", "authentication for ", "Address ", " for "} {
			if i := strings.Index(own, cue); i >= 0 {
				from = own[i+len(cue):]
				if s.sshAddr(from) {
					break
				}
			}
		}
		if !e.Has(event.SourceIP) {
			if v, ok := between(own, "[", "]"); ok { // "reverse mapping ... for host [192.0.2.1] failed"
				s.sshAddr(v)
			}
			if v, ok := between(own, "(", ")"); ok { // "refused connect from name (192.0.2.1)"
				s.sshAddr(v)
			}
		}
		from = ""
		switch {
		case strings.HasPrefix(t, "refused"), strings.HasPrefix(t, "drop"):
			action = "refused connect"
			s.decide(deny)
		case strings.HasPrefix(t, "Received disconnect"):
			action = "disconnect"
			s.kind("end")
		case strings.HasPrefix(t, "Connection from"):
			action = "connection"
			s.kind("start")
		default:
			action = "connection refused"
			if strings.HasPrefix(t, "Magic") || strings.HasPrefix(t, "Bad protocol") {
				s.str(event.EventOutcome, "failure")
			}
		}
	case strings.HasPrefix(t, "Server listening"), strings.HasPrefix(t, "Received signal"), strings.HasPrefix(t, "Starting session"), strings.HasPrefix(t, "Connection "),
		strings.HasPrefix(t, "Disconnecting "), strings.HasPrefix(t, "Close session"), strings.HasPrefix(t, "subsystem request"):
		s.words(t)
		action = ""
	default:
		s.words(t)
	}
	return s.sshDone(user, from, auth, fail, action)
}

func (s *Set) sshDone(user, from string, auth, fail bool, action string) bool {
	e := s.e
	s.device("OpenBSD", "OpenSSH", "")
	s.dataset("openssh.sshd")
	s.user(user)
	s.sshAddr(from)
	s.str(event.EventAction, action)
	s.str(event.TocsinService, "ssh")
	if auth {
		s.signIn("ssh", !fail)
	} else if !e.Has(event.EventCategory) {
		s.category("session")
	}
	s.str(event.EventKind, "event")
	if h := s.h.host; h != "" {
		s.str(event.Message, s.h.msg)
	}
	return true
}

// sshFrom cuts "NAME from ADDR port N": the last " from " counts, because a name may hold anything.
func sshFrom(r string) (user, from string) {
	i := strings.LastIndex(r, " from ")
	if i < 0 {
		if strings.HasPrefix(r, "from ") {
			return "", r[5:]
		}
		u, _ := cutSpace(r)
		return u, ""
	}
	return r[:i], r[i+6:]
}

// sshAddr reads "ADDR port N" (or "ADDR:N", "UNKNOWN").
func (s *Set) sshAddr(from string) bool {
	w, r := cutSpace(trimLeft(from))
	w = strings.TrimRight(w, ":,;")
	if w == "" || !s.endpoint(event.SourceIP, event.SourcePort, w) {
		return false
	}
	if strings.HasPrefix(r, "port ") {
		n, l := digits(r[5:])
		if l > 0 && n > 0 && n < 65536 && !s.e.Has(event.SourcePort) {
			s.e.SetInt(event.SourcePort, n)
		}
	}
	return true
}

// pam reads "pam_unix(sshd:auth): authentication failure; ... rhost=192.0.2.7 user=root" and "session opened for user x".
func (s *Set) pam(t string) {
	s.ip(event.SourceIP, after(t, "rhost="))
	switch {
	case strings.Contains(t, "authentication failure"), strings.Contains(t, "check pass; user unknown"), strings.Contains(t, "auth could not identify"),
		strings.Contains(t, "conversation failed"), strings.Contains(t, "account expired"):
		s.str(event.EventAction, "authentication failure")
		s.user(pamUser(t))
		svc := ""
		if v, ok := between(t, "(", ":"); ok && v == "sshd" {
			svc = "ssh"
		}
		s.signIn(svc, false)
	case strings.Contains(t, "session opened for user "):
		u := after(t, "session opened for user ")
		if i := strings.IndexByte(u, '('); i > 0 {
			u = u[:i]
		}
		s.user(u)
		s.str(event.EventAction, "session opened")
		s.category("session")
		s.kind("start")
		s.str(event.EventOutcome, "success")
	case strings.Contains(t, "session closed for user "):
		s.user(after(t, "session closed for user "))
		s.str(event.EventAction, "session closed")
		s.category("session")
		s.kind("end")
	}
}

// pamUser reads the last "user=" (the first may be part of "ruser=").
func pamUser(t string) string {
	i := strings.LastIndex(t, " user=")
	if i < 0 {
		return ""
	}
	return wordOf(t[i+6:])
}

// sshdStart says whether a message without a program's name begins as only sshd's do.
func sshdStart(msg string) bool {
	starts := func(p string) bool { return strings.HasPrefix(msg, p) }
	has := func(p string) bool { return find.Has(msg, p) }
	switch msg[0] {
	case 'A':
		return starts("Accepted ") && has(" from ") && has(" port ") || starts("Accepted key ") && has(" SHA256:") || starts("Accepted google_authenticator for ")
	case 'B':
		return starts("Bad protocol version identification ") && has(" port ")
	case 'R':
		return starts("ROOT LOGIN REFUSED FROM ")
	case 'F':
		return starts("Failed ") && has(" for ") && has(" from ") && has(" port ")
	case 'I':
		return starts("Invalid user ") && has(" from ")
	case 'D':
		return (starts("Disconnected from ") || starts("Disconnecting ")) && has(" port ") || starts("Did not receive identification string from ")
	case 'C':
		return (starts("Connection closed by ") || starts("Connection reset by ")) && has(" port ") || starts("Connection from ") && has(" on ") && has(" port ")
	case 'P':
		return starts("PAM ") && (has(" more authentication failure") || has("service(sshd)")) || starts("Postponed ") && has(" from ") && has(" port ")
	case 'p':
		return starts("pam_") && strings.Contains(msg[:min(len(msg), 40)], "(sshd:")
	case 'e':
		return starts("error: maximum authentication attempts exceeded ") || starts("error: kex_exchange_identification: ")
	case 'f':
		return starts("fatal: Timeout before authentication for ") || starts("fatal: userauth_finish: ")
	case 'i':
		return starts("input_userauth_request: invalid user ")
	case 's':
		return starts("ssh_dispatch_run_fatal: ")
	}
	return false
}
