package parse

import (
	"strings"

	"tocsin/internal/event"
)

// header is what stands before the message of a syslog line. Strings are parts of the line.
type header struct {
	pri  int // -1 when absent
	host string
	app  string
	pid  string
	id   string // RFC 5424 MSGID
	sd   string // RFC 5424 structured data, brackets included
	msg  string
	time int64
	has  bool // time is set
}

// envelope reads the syslog header of a line in any of the framings devices use: RFC 5424, RFC 3164 with and without host or
// time, a bare <PRI>, an octet count left in the line, a doubled host name, a whole header doubled by a relay, a year after the time, an epoch with a fraction,
// ISO times, Cisco's sequence numbers. What it cannot read stays in msg: it never fails.
func (s *Set) envelope(line string) {
	h := &s.h
	*h = header{pri: -1}
	line = trimLine(line)
	p := line
	// An octet count (RFC 6587) that the transport left in the line.
	if len(p) > 4 && isDigit(p[0]) {
		if _, l := digits(p); l > 0 && l < 8 && l+1 < len(p) && p[l] == ' ' && p[l+1] == '<' {
			p = p[l+1:]
		}
	}
	for twice := 0; twice < 2; twice++ {
		if len(p) < 3 || p[0] != '<' {
			break
		}
		n, l := digits(p[1:])
		if l < 1 || l > 3 || 1+l >= len(p) || p[1+l] != '>' {
			break
		}
		if h.pri < 0 && n < 192 {
			h.pri = int(n)
		}
		p = trimLeft(p[2+l:])
	}
	// Some relays leave the version and drop the priority.
	if len(p) > 2 && p[0] == '1' && p[1] == ' ' && (h.pri >= 0 || len(p) > 30 && p[6] == '-' && p[9] == '-' && p[12] == 'T') {
		if s.rfc5424(p[2:]) {
			s.relayed()
			return
		}
	}
	switch s.opened(p) {
	case openedTag:
		return
	case openedHost:
		s.tagged = false
		if s.behindHost(h.host, h.msg); s.tagged {
			s.open(p)
			return
		}
		s.relayed()
		return
	}
	rest, ok := s.stamp(p)
	if !ok {
		h.msg = p
		s.tagOnly(p)
		return
	}
	s.tagged = false
	if s.hostTag(rest); s.tagged {
		s.open(p)
		return
	}
	s.openHost(p)
	s.relayed()
}

// relayed reads the device's own header where a relay put another before it: "Nov 12 08:50:02 relay Nov 12 08:50:01 fw kernel: ...". It counts
// only with a program's tag behind it: else the date is the message's.
func (s *Set) relayed() {
	h := &s.h
	p := h.msg
	if h.app != "" || len(p) < 20 {
		return
	}
	if p[0] == '<' {
		n, l := digits(p[1:])
		if l < 1 || l > 3 || n > 191 || p[1+l] != '>' || len(p) < 20+l {
			return
		}
		p = p[2+l:]
	}
	if p[3] != ' ' || p[6] != ' ' || p[9] != ':' || p[12] != ':' || p[15] != ' ' || month(p) == 0 {
		return
	}
	outer := *h
	rest, ok := s.stamp(p)
	s.tagged = false
	if ok {
		s.hostTag(rest)
	}
	if !s.tagged {
		*h = outer
	}
}

// trimLine drops what transports leave around a line: blanks, line ends, NUL, a byte order mark.
func trimLine(s string) string {
	if len(s) >= 3 && s[0] == 0xEF && s[1] == 0xBB && s[2] == 0xBF {
		s = s[3:]
	}
	i, j := 0, len(s)
	for i < j && (s[i] <= ' ') {
		i++
	}
	for j > i && (s[j-1] <= ' ') {
		j--
	}
	return s[i:j]
}

// stamp reads a time at the start of p, and what follows it up to the host. ok is false when there is none.
func (s *Set) stamp(p string) (rest string, ok bool) {
	if len(p) < 10 {
		return p, false
	}
	h := &s.h
	var c civil
	s.stamped = c
	n := 0
	switch {
	case isDigit(p[0]):
		if p[4] == '-' || p[4] == '/' || p[4] == ':' {
			n = isoAt(p, &c)
		} else if p[4] == ' ' {
			n = bsdAt(p, &c)
		}
		if n == 0 && p[2] == '/' { // Suricata's fast.log
			c = civil{}
			n = usAt(p, &c)
		}
		if n == 0 {
			c = civil{}
			if _, l := digits(p); l == 10 && (p[0] == '1' || p[0] == '2') && l < len(p) && (p[l] == '.' || p[l] == ' ') {
				w, r := cutSpace(p)
				// Squid's access log starts with an epoch and its own number.
				next, _ := cutSpace(r)
				if t, ok := epoch(w); ok && r != "" && !allDigits(next) {
					h.time, h.has = t, true
					return r, true
				}
			}
			n = dmyAt(p, &c)
		}
	case p[0] == '*' || p[0] == '.': // Cisco: clock not set or not synchronised
		if m := bsdAt(p[1:], &c); m > 0 {
			n = m + 1
		}
	case p[0] == ':': // "<134>:Apr 25 15:27:08 UTC: %ASA-..."
		q := trimLeft(p[1:])
		if m := bsdAt(q, &c); m > 0 {
			n = m + len(p) - len(q)
		}
	case isAlpha(p[0]):
		n = bsdAt(p, &c)
		if n == 0 && p[3] == ' ' && month(p) == 0 { // Mon Nov 12 08:50:01 2026
			if m := bsdAt(p[4:], &c); m > 0 {
				n = m + 4
			}
		}
	}
	if n == 0 {
		return p, false
	}
	if n < len(p) && p[n] != ' ' && p[n] != ':' && p[n] != '\t' && p[n] != ',' && p[n] != ']' {
		// "Apr 25 15:27:08gw-test-01": a relay lost the blank. Anything else that is glued on was no time.
		if !isAlpha(p[n]) {
			return p, false
		}
	}
	s.stamped = c
	if t, ok := s.unix(&c); ok {
		h.time, h.has = t, true
	}
	rest = p[n:]
	for rest != "" && (rest[0] == ' ' || rest[0] == ':' || rest[0] == '\t' || rest[0] == ',') {
		rest = rest[1:]
	}
	// A zone word, as in "15:27:08 CET: %ASA-".
	if len(rest) > 5 && rest[3] == ':' && rest[4] == ' ' && rest[5] == '%' {
		rest = rest[5:]
	}
	return rest, true
}

// rfc5424 reads "TIME HOST APP PROCID MSGID SD MSG" behind the version.
func (s *Set) rfc5424(p string) bool {
	h := &s.h
	rest := p
	if len(p) > 1 && p[0] == '-' && p[1] == ' ' {
		rest = trimLeft(p[2:])
	} else if r, ok := s.stamp(p); ok {
		rest = r
	} else {
		// An unreadable time, but only where the shape behind it is right.
		w, r := cutSpace(p)
		if w == "" || strings.Count(r[:min(len(r), 200)], " ") < 4 || strings.IndexByte(w, ':') >= 0 || strings.IndexByte(w, '=') >= 0 {
			return false
		}
		rest = r
	}
	return s.tail5424(h, rest)
}

// tail5424 reads "HOST APP PROCID MSGID SD MSG".
func (s *Set) tail5424(h *header, rest string) bool {
	if carriesMessage(rest) {
		h.msg = rest
		return true
	}
	h.host, rest = cutSpace(rest)
	if carriesMessage(rest) {
		h.host = nilDash(h.host)
		h.msg = rest
		return true
	}
	w, after := cutSpace(rest)
	if strings.HasSuffix(w, ":") && len(w) > 1 { // "<134>1 time host tag: text"
		h.app = strings.TrimSuffix(w, ":")
		if i := strings.IndexByte(h.app, '['); i > 0 {
			h.app, h.pid = h.app[:i], strings.TrimSuffix(h.app[i+1:], "]")
		}
		h.msg = after
		// "PulseSecure: - - - text"
		for strings.HasPrefix(h.msg, "- ") {
			h.msg = h.msg[2:]
		}
		h.host = nilDash(h.host)
		return true
	}
	if merakiType(w) { // "<134>1 1794474060.123456789 NAME flows src=..." has the version and nothing else of RFC 5424
		h.msg = rest
		return true
	}
	h.app = w
	h.pid, after = cutSpace(after)
	h.id, after = cutSpace(after)
	h.sd, after = structured(after)
	h.msg = after
	h.host, h.app, h.pid, h.id = nilDash(h.host), nilDash(h.app), nilDash(h.pid), nilDash(h.id)
	if len(h.msg) >= 3 && h.msg[0] == 0xEF && h.msg[1] == 0xBB && h.msg[2] == 0xBF {
		h.msg = h.msg[3:]
	}
	return true
}

func nilDash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

// structured cuts the structured data off: "-" or one or more [..] with quoted values, in which \] and \" are escaped.
func structured(p string) (sd, rest string) {
	if p == "" {
		return "", ""
	}
	if p[0] == '-' && (len(p) == 1 || p[1] == ' ') {
		return "", trimLeft(p[1:])
	}
	if p[0] != '[' || len(p) < 2 || !(isAlpha(p[1]) || isDigit(p[1])) {
		return "", p
	}
	i := 0
	for i < len(p) && p[i] == '[' {
		quoted := false
		j := i + 1
	element:
		for ; j < len(p); j++ {
			switch p[j] {
			case '\\':
				j++
			case '"':
				quoted = !quoted
			case ']':
				if !quoted {
					break element
				}
			}
		}
		if j >= len(p) {
			return p, ""
		}
		i = j + 1
	}
	return p[:i], trimLeft(p[i:])
}

// carriesMessage says whether p starts with something that is a message whatever the header says.
func carriesMessage(p string) bool {
	if len(p) < 4 {
		return false
	}
	switch p[0] {
	case 'C':
		return strings.HasPrefix(p, "CEF:")
	case 'c': // BIND
		return strings.HasPrefix(p, "client ")
	case 'L':
		return strings.HasPrefix(p, "LEEF:")
	case '{':
		return p[1] == '"' || p[1] == ' ' || p[1] == '}'
	case '%':
		return isAlpha(p[1])
	case 'd':
		return strings.HasPrefix(p, "date=") || strings.HasPrefix(p, "device=") || strings.HasPrefix(p, "devname=")
	case 'i':
		return strings.HasPrefix(p, "id=firewall") || strings.HasPrefix(p, "in:")
	case 't':
		return strings.HasPrefix(p, "timestamp=") || strings.HasPrefix(p, "time=")
	case '0':
		return p[1] == '|'
	}
	return false
}

// hostTag reads "HOST TAG[PID]: MSG" with any part missing.
func (s *Set) hostTag(p string) {
	h := &s.h
	h.msg = p
	if carriesMessage(p) || p == "" || p[0] == '[' {
		return
	}
	w, rest := cutSpace(p)
	if rest == "" {
		return
	}
	if i := strings.IndexByte(w, '='); i > 0 {
		return // key=value at once: no host
	}
	if s.tag(w, rest) { // no host: "filterlog: ...", "sshd[12]: ..."
		s.tagged = true
		return
	}
	if i := strings.IndexByte(w, ','); i > 0 && !isDigit(w[0]) {
		if topicList(w) { // MikroTik without a host
			return
		}
	} else if i > 0 && isDigit(w[0]) { // "1,2026/11/12 ..." PAN-OS without a host
		return
	}
	h.host = strings.TrimSuffix(w, ":")
	s.behindHost(w, rest)
}

// behindHost reads what follows the word w that is the host's name.
func (s *Set) behindHost(w, rest string) {
	h := &s.h
	h.msg = rest
	if rest[0] == ':' && len(rest) > 1 && rest[1] == ' ' { // "host : %ASA-..."
		rest = trimLeft(rest[1:])
		h.msg = rest
	}
	if carriesMessage(rest) {
		return
	}
	w2, rest2 := cutSpace(rest)
	if w2 == w || (rest2 != "" && strings.TrimSuffix(w2, ":") == h.host) { // doubled host name
		h.msg = rest2
		if carriesMessage(rest2) {
			return
		}
		w2, rest2 = cutSpace(rest2)
	} else if a, n := ipv4Prefix(w2); n == len(w2) && n > 0 && a.IsValid() && rest2 != "" { // a relay put its own name before the device's
		h.msg = rest2
		if carriesMessage(rest2) {
			return
		}
		w2, rest2 = cutSpace(rest2)
	}
	if rest2 == "" {
		if strings.HasSuffix(w2, ":") {
			return
		}
		return
	}
	if s.tag(w2, rest2) {
		s.tagged = true
		return
	}
	// RFC 5424 whose version got lost: "host app 123 - [sd] msg" or "host app - - - msg".
	if p3, r3 := cutSpace(rest2); (p3 == "-" || allDigits(p3)) && r3 != "" {
		id, r4 := cutSpace(r3)
		if r4 != "" && len(id) < 33 && (r4[0] == '[' || strings.HasPrefix(r4, "- ") || r4 == "-") && strings.IndexByte(w2, '=') < 0 {
			h.app, h.pid, h.id = nilDash(w2), nilDash(p3), nilDash(id)
			h.sd, h.msg = structured(r4)
		}
	}
}

// tagOnly looks for "TAG[PID]: " at the start of a line without a time.
func (s *Set) tagOnly(p string) {
	if p == "" || carriesMessage(p) || !(isAlpha(p[0]) || p[0] == '/' || p[0] == '_') {
		return
	}
	w, rest := cutSpace(p)
	if rest == "" || strings.IndexByte(w, '=') >= 0 || s.tag(w, rest) {
		return
	}
	// "srv01 sshd[12]: ...", a journal's line without its time
	if w2, rest2 := cutSpace(rest); rest2 != "" && strings.HasSuffix(w2, "]:") && hostName(w) {
		if i := strings.IndexByte(w2, '['); i > 0 && allDigits(w2[i+1:len(w2)-2]) && s.tag(w2, rest2) {
			s.h.host = w
		}
	}
}

// tag takes w as a program's tag when it looks like one.
func (s *Set) tag(w, rest string) bool {
	h := &s.h
	n := len(w)
	if n < 2 || n > 80 {
		return false
	}
	if w[n-1] == ':' {
		name := w[:n-1]
		if name[len(name)-1] == ']' {
			i := strings.IndexByte(name, '[')
			if i <= 0 {
				return false
			}
			h.app, h.pid, h.msg = name[:i], name[i+1:len(name)-1], rest
			return true
		}
		if strings.IndexByte(name, ':') >= 0 || strings.IndexByte(name, '[') >= 0 {
			return false // an address, a topic, a prefix of a netfilter rule
		}
		if _, n := ipv4Prefix(name); n == len(name) {
			return false
		}
		h.app, h.msg = name, rest
		return true
	}
	if w[n-1] == ']' {
		if i := strings.IndexByte(w, '['); i > 0 && allDigits(w[i+1:n-1]) { // "audit[123] text"
			h.app, h.pid, h.msg = w[:i], w[i+1:n-1], rest
			return true
		}
	}
	return false
}

// topicList says whether w is two or more of RouterOS's log topics: "firewall,info".
func topicList(w string) bool {
	i := strings.IndexByte(w, ',')
	if i < 0 || !topic(w[:i]) {
		return false
	}
	for i >= 0 {
		w = w[i+1:]
		one := w
		if i = strings.IndexByte(w, ','); i >= 0 {
			one = w[:i]
		}
		if !topic(one) && !laterTopic(one) {
			return false
		}
	}
	return true
}

// laterTopic says whether w is a topic that stands behind another.
func laterTopic(w string) bool {
	switch w {
	case "async", "backup", "bfd", "bgp", "calc", "cloud", "container", "ddns", "dot1x", "dude", "event", "fetch", "gps", "gsm", "health", "igmp-proxy", "iot",
		"isdn", "iscsi", "kvm", "ldp", "lora", "lte", "mme", "mpls", "mqtt", "netwatch", "notice", "ntp", "ospf", "packet", "pim", "poe-out", "ppoe", "pppoe", "ptp", "queue",
		"raw", "read", "rip", "rpki", "rsvp", "sertcp", "simulator", "smb", "snmp", "sntp", "socks", "socksify", "state", "store", "telephony", "telnet", "tftp", "timer",
		"tr069", "update", "upgrade", "upnp", "ups", "vpls", "vrrp", "watchdog", "wireguard", "write", "zerotier", "api", "disk", "firmware":
		return true
	}
	return false
}

// topic says whether w is one of RouterOS's log topics.
func topic(w string) bool {
	switch w {
	case "firewall", "system", "info", "dhcp", "wireless", "l2tp", "pptp", "ipsec", "ppp", "ovpn", "sstp", "hotspot", "account", "radius", "interface",
		"script", "web-proxy", "critical", "error", "warning", "route", "dns", "caps", "manager", "user-manager", "bridge", "certificate", "e-mail", "debug", "ssh":
		return true
	}
	return false
}

// syslogFields puts what the header said into the event.
func (s *Set) syslogFields() {
	h, e := &s.h, s.e
	if h.has && e.Time == 0 {
		e.Time = h.time
	}
	if h.pri >= 0 && !e.Has(event.LogSyslogPriority) {
		e.SetInt(event.LogSyslogPriority, int64(h.pri))
	}
	if hostName(h.host) && !e.Has(event.HostName) {
		e.SetString(event.HostName, h.host)
	}
	if h.app != "" && len(h.app) < 129 && !e.Has(event.ProcessName) && !strings.HasPrefix(h.app, "%%") && strings.IndexByte(h.app, '|') < 0 {
		e.SetString(event.ProcessName, h.app)
	}
	if h.pid != "" && !e.Has(event.ProcessPID) {
		if n, ok := atoi(h.pid); ok {
			e.SetInt(event.ProcessPID, n)
		}
	}
}

// hostName says whether w may name the device that wrote a line: not a column, a level or an endpoint that stands behind a line's own time.
func hostName(w string) bool {
	n := len(w)
	if n < 2 || n > 255 {
		return false
	}
	colons, others := 0, 0
	for i := range n {
		switch hostBytes[w[i]] {
		case 1:
			return false
		case 2:
			colons++
		case 0:
			others++
		}
	}
	if others == 0 && colons == 0 && n < 6 {
		return false // a short number is none; some devices are named by their serial number
	}
	if colons == 1 {
		return false // "192.0.2.7:514"
	}
	if n > 8 {
		return true
	}
	var b [8]byte
	for i := range n {
		b[i] = w[i] | 0x20
	}
	switch string(b[:n]) {
	case "info", "warn", "warning", "error", "debug", "notice", "critical", "allow", "allowed", "deny", "denied", "drop", "dropped", "block", "blocked",
		"accept", "reject", "rejected", "pass", "logon", "logoff":
		return false
	}
	return true
}

// hostBytes says of each byte: 1 in no host's name, 2 a colon, 3 a digit, 0 any other.
var hostBytes = func() (t [256]byte) {
	for i := range t {
		switch {
		case i <= ' ', i == 127, strings.IndexByte("\"'`,;()<>{}[]=%|&?*!$^\\", byte(i)) >= 0:
			t[i] = 1
		case i == ':':
			t[i] = 2
		case '0' <= i && i <= '9':
			t[i] = 3
		}
	}
	return t
}()
