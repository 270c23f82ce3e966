package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// access reads the access logs of web servers in NCSA form: host ident user [time] "request" status bytes "referrer" "agent", with
// an optional virtual host before it. nginx, Apache, LiteSpeed, Traefik, cPanel and others write it.
func (s *Set) access(msg string) bool {
	open := strings.IndexByte(msg, '[')
	if open < 4 || open > 300 {
		return false
	}
	var c civil
	n := dmyAt(msg[open+1:], &c)
	if n == 0 {
		c = civil{}
		if n = usAt(msg[open+1:], &c); n == 0 {
			return false
		}
		if open+1+n < len(msg) && msg[open+1+n] == ' ' {
			n += 1 + zoneAt(msg[open+2+n:], &c)
		}
	}
	if open+1+n >= len(msg) || msg[open+1+n] != ']' {
		return false
	}
	head := trim(msg[:open])
	w, r := cutSpace(head)
	if !s.endpoint(event.SourceIP, event.SourcePort, strings.TrimSuffix(w, ",")) {
		vhost := w
		w, r = cutSpace(r)
		if !s.endpoint(event.SourceIP, event.SourcePort, w) {
			if strings.IndexByte(vhost, '.') < 0 && vhost != "localhost" {
				return false
			}
			s.domain(event.SourceDomain, vhost)
		} else {
			if i := strings.LastIndexByte(vhost, ':'); i > 0 && allDigits(vhost[i+1:]) {
				s.port(event.DestinationPort, vhost[i+1:])
				vhost = vhost[:i]
			}
			s.domain(event.URLDomain, vhost)
		}
	}
	_, u := cutSpace(r)
	u, _ = cutSpace(u)
	if len(u) < 32 || strings.IndexByte(u, '@') > 0 { // a request id is no user
		s.user(u)
	}
	if t, ok := s.unix(&c); ok {
		s.e.Time = t
	}
	rest := trimLeft(msg[open+2+n:])
	if len(rest) > 0 && rest[0] == '"' {
		end := quoteEnd(rest, 0)
		s.request(strings.TrimSuffix(rest[1:max(1, end)], `"`))
		rest = trimLeft(rest[end:])
		status, r2 := cutSpace(rest)
		if len(status) == 3 {
			s.int(event.HTTPResponseStatusCode, status)
		}
		size, r2 := cutSpace(r2)
		s.int(event.HTTPResponseBodyBytes, size)
		s.int(event.DestinationBytes, size)
		if len(r2) > 0 && r2[0] == '"' {
			end := quoteEnd(r2, 0)
			s.str(event.HTTPRequestReferrer, strings.TrimSuffix(r2[1:max(1, end)], `"`))
			r2 = trimLeft(r2[end:])
			if len(r2) > 0 && r2[0] == '"' {
				end := quoteEnd(r2, 0)
				s.str(event.UserAgentOriginal, strings.TrimSuffix(r2[1:max(1, end)], `"`))
			}
		}
	}
	s.httpOutcome()
	s.dataset("web.access")
	s.category("web")
	s.kind("access")
	s.str(event.EventKind, "event")
	return true
}

// request reads "GET /path HTTP/1.1".
func (s *Set) request(v string) {
	m, r := cutSpace(v)
	if len(m) > 12 || r == "" {
		return
	}
	s.method(m)
	if i := strings.LastIndex(r, " HTTP/"); i >= 0 {
		s.str(event.HTTPVersion, r[i+6:])
		r = trim(r[:i])
	}
	s.urlText(r)
}

// httpOutcome derives success or failure from the status code.
func (s *Set) httpOutcome() {
	if n, ok := s.e.Int(event.HTTPResponseStatusCode); ok && !s.e.Has(event.EventOutcome) {
		switch {
		case n >= 400:
			s.e.SetString(event.EventOutcome, "failure")
		case n >= 100:
			s.e.SetString(event.EventOutcome, "success")
		}
	}
}

// squid reads Squid's native access log: "1794474060.123 200 10.0.0.5 TCP_MISS/200 4567 GET http://.. user DIRECT/203.0.113.4 text/html".
func (s *Set) squid(msg string) bool {
	r := msg
	stamp := ""
	if w, r2 := cutSpace(r); len(w) >= 10 && isDigit(w[0]) {
		if _, ok := epoch(w); ok {
			stamp, r = w, r2
		}
	}
	var c civil
	if n := isoAt(r, &c); n > 0 { // Cisco's web appliance behind its own syslog header
		if t, ok := s.unix(&c); ok && stamp == "" {
			s.e.Time = t
		}
		r = trimLeft(r[n:])
	}
	ms, r := cutSpace(r)
	if !allDigits(ms) {
		return false
	}
	ip, r := cutSpace(r)
	code, r := cutSpace(r)
	slash := strings.IndexByte(code, '/')
	if slash < 3 || !(strings.HasPrefix(code, "TCP_") || strings.HasPrefix(code, "UDP_") || strings.HasPrefix(code, "NONE")) {
		return false
	}
	if !s.ip(event.SourceIP, ip) {
		return false
	}
	if stamp != "" {
		s.setTime(stamp)
	}
	size, r := cutSpace(r)
	method, r := cutSpace(r)
	url, r := cutSpace(r)
	user, r := cutSpace(r)
	peer, r := cutSpace(r)
	s.low(event.EventAction, code[:slash])
	s.int(event.HTTPResponseStatusCode, code[slash+1:])
	s.int(event.DestinationBytes, size)
	s.method(method)
	s.urlText(url)
	s.user(user)
	if i := strings.IndexByte(peer, '/'); i > 0 {
		if !s.ip(event.DestinationIP, peer[i+1:]) {
			s.domain(event.DestinationDomain, peer[i+1:])
		}
	}
	if mime, _ := cutSpace(r); strings.IndexByte(mime, '/') > 0 {
		s.str(event.HTTPResponseMimeType, mime)
	}
	if n, ok := atoi(ms); ok {
		s.e.SetInt(event.EventDuration, n*1e6)
	}
	if find.Has(code, "DENIED") {
		s.decide(deny)
	} else {
		s.decide(allow)
	}
	s.device("Squid", "Squid", "proxy")
	s.dataset("squid.access")
	s.category("web")
	s.kind("access")
	s.str(event.EventKind, "event")
	return true
}

// haproxy reads HAProxy's HTTP and TCP logs ("Log formats", HAProxy Configuration Manual):
//
//	httplog: ip:port [12/Nov/2026:08:50:01.123] frontend backend/server TR/Tw/Tc/Tr/Ta status bytes ... "GET / HTTP/1.1"
//	tcplog:  ip:port [12/Nov/2026:08:50:01.123] frontend backend/server Tw/Tc/Tt bytes state connections queues
func (s *Set) haproxy(msg string) bool {
	w, r := cutSpace(msg)
	if !strings.HasPrefix(r, "[") || strings.LastIndexByte(w, ':') < 2 {
		return false
	}
	end := strings.IndexByte(r, ']')
	if end < 20 {
		return false
	}
	var c civil
	if dmyAt(r[1:end], &c) == 0 {
		return false
	}
	host, port := w[:strings.LastIndexByte(w, ':')], w[strings.LastIndexByte(w, ':')+1:]
	a, ok := parseIP(host)
	if !ok {
		return false
	}
	s.addr(event.SourceIP, a)
	s.port(event.SourcePort, port)
	if t, ok := s.unix(&c); ok {
		s.e.Time = t
	}
	rest := trimLeft(r[end+1:])
	_, rest = cutSpace(rest) // frontend
	_, rest = cutSpace(rest) // backend/server
	timers, rest := cutSpace(rest)
	if strings.Count(timers, "/") == 2 { // three timers are a TCP session's: no status stands behind them
		size, _ := cutSpace(rest)
		s.int(event.DestinationBytes, strings.TrimPrefix(size, "+"))
		s.transport("tcp")
		s.device("HAProxy", "HAProxy", "proxy")
		s.dataset("haproxy.log")
		s.network()
		return true
	}
	status, rest := cutSpace(rest)
	if len(status) == 3 {
		s.int(event.HTTPResponseStatusCode, status)
		size, _ := cutSpace(rest)
		s.int(event.DestinationBytes, strings.TrimPrefix(size, "+"))
	}
	if i := strings.IndexByte(rest, '"'); i >= 0 {
		s.request(strings.TrimSuffix(rest[i+1:], `"`))
	}
	s.httpOutcome()
	s.device("HAProxy", "HAProxy", "proxy")
	s.dataset("haproxy.log")
	s.category("web")
	s.kind("access")
	s.str(event.EventKind, "event")
	return true
}

// snort reads Snort's and Suricata's fast alerts: "[1:2001219:20] ET SCAN ... [Classification: ..] [Priority: 2] {TCP} a:p -> b:p", and
// Snort's full ones in one line: "[**] [1:2001219:20] ET SCAN ... [**] [Priority: 2] 09/04-21:42:42.860730 a:p -> b:p TCP TTL:127 ...".
func (s *Set) snort(msg string) bool {
	i := strings.IndexByte(msg, '[')
	for i >= 0 && i < 80 {
		n, l := digits(msg[i+1:])
		if l > 0 && i+1+l < len(msg) && msg[i+1+l] == ':' && n < 1000 {
			break
		}
		j := strings.IndexByte(msg[i+1:], '[')
		if j < 0 {
			return false
		}
		i += 1 + j
	}
	if i < 0 || i >= 80 {
		return false
	}
	end := strings.IndexByte(msg[i:], ']')
	if end < 0 {
		return false
	}
	ids := msg[i+1 : i+end]
	rest := trimLeft(msg[i+end+1:])
	brace := find.Index(rest, "{")
	arrow := find.Index(rest, " -> ")
	full := brace < 0 && find.Has(rest, "[**]")
	if full {
		brace = find.Index(rest, "[**]")
	}
	if brace < 0 || arrow < brace {
		return false
	}
	name := rest[:brace]
	if j := find.Index(name, " ["); j > 0 {
		name = name[:j]
	}
	if j := find.Index(name, "[Priority: "); j > 0 {
		name = name[:j]
	}
	parts := ids
	if j := strings.IndexByte(parts, ':'); j >= 0 {
		parts = parts[j+1:]
		if k := strings.IndexByte(parts, ':'); k >= 0 {
			s.str(event.RuleVersion, parts[k+1:])
			parts = parts[:k]
		}
	}
	s.str(event.RuleID, parts)
	s.str(event.RuleName, trim(unquote(trim(strings.TrimSuffix(trim(name), "[**]")))))
	if v, ok := between(rest, "[Classification: ", "]"); ok {
		s.str(event.RuleCategory, v)
	}
	if v, ok := between(rest, "[Priority: ", "]"); ok {
		s.int(event.EventSeverity, v)
	}
	if v, ok := between(rest, "{", "}"); ok {
		s.transport(v)
	}
	from := rest[:arrow]
	k := strings.LastIndexByte(from, ' ') + 1
	stamp := trim(from[:k])
	from = from[k:]
	to, tail := cutSpace(rest[arrow+4:])
	if full {
		proto, _ := cutSpace(tail)
		s.transport(proto)
		stamp = stamp[strings.LastIndexByte(stamp, ' ')+1:]
		if c := (civil{month: two(stamp, 0), day: two(stamp, 3)}); len(stamp) > 6 && stamp[2] == '/' && stamp[5] == '-' && clockAt(stamp[6:], &c) > 0 && !s.h.has {
			if t, ok := s.unix(&c); ok {
				s.e.Time = t
			}
		}
	}
	s.hostPort(event.SourceIP, event.SourcePort, from)
	s.hostPort(event.DestinationIP, event.DestinationPort, to)
	if find.Has(msg, "[Drop]") || find.Has(msg, "[drop]") {
		s.action("drop", deny)
	} else {
		s.action("alert", detect)
	}
	s.device("Snort", "Snort", "ids")
	s.dataset("snort.alert")
	s.alert("intrusion_detection")
	s.network()
	return true
}

// hostPort is endpoint for "v6addr:port" without brackets, whose last colon stands before the port.
func (s *Set) hostPort(ip, port event.Key, v string) {
	if _, n := ipv4Prefix(v); n == 0 && strings.Count(v, ":") > 7 || strings.Count(v, ":") > 2 && !find.Has(v, "::") {
		if i := strings.LastIndexByte(v, ':'); strings.Count(v, ":") == 8 && i > 0 {
			s.ip(ip, v[:i])
			s.port(port, v[i+1:])
			return
		}
	}
	s.endpoint(ip, port, v)
}
