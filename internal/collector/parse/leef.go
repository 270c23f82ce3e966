package parse

import (
	"strings"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// leef reads IBM's Log Event Extended Format: "LEEF:1.0|vendor|product|version|id|key=value<TAB>..." and LEEF:2.0 with its own
// delimiter. Pipes and blanks instead of tabs are forgiven, as PAN-OS's and others' templates have them.
func (s *Set) leef(msg string) bool {
	t := trimLeft(strings.TrimPrefix(msg, "LEEF:"))
	var head [5]string
	rest, n := cefHeader(t, head[:])
	if n < 5 || len(head[0]) > 4 {
		return false
	}
	if strings.IndexByte(rest, '\t') < 0 && strings.Contains(rest, "#011") { // rsyslog writes control characters so
		t = s.tabs(t)
		rest, _ = cefHeader(t, head[:])
	}
	if s.h.app == "LEEF" {
		s.h.app = ""
	}
	line := packs.Line{Message: msg, Program: s.h.app, Host: s.h.host, ID: s.h.id, Data: s.h.sd}
	if p := s.packs.ByVendor(true, head[1], head[2], &line); p != nil && s.runPack(p, t) {
		s.as = p.Name
		return true
	}
	e := s.e
	s.str(event.ObserverVendor, head[1])
	s.str(event.ObserverProduct, head[2])
	s.str(event.ObserverVersion, head[3])
	s.str(event.EventCode, head[4])
	s.weak = ""
	w := leefPairs(head[0], rest)
	for pairs := 0; pairs < 1000; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v = unquote(trim(v)); v != "" {
			s.leefField(key, v)
		}
	}
	if !e.Has(event.TocsinVerdict) {
		s.decide(verdictOf(head[4]))
		if !e.Has(event.EventAction) {
			s.low(event.EventAction, head[4])
		}
	}
	s.dataset("leef.generic")
	s.genericDone("leef.generic")
	return true
}

// tabs puts tabs where rsyslog wrote #011.
func (s *Set) tabs(t string) string {
	b := s.buf[:0]
	for {
		i := strings.Index(t, "#011")
		if i < 0 {
			break
		}
		b = append(append(b, t[:i]...), '\t')
		t = t[i+4:]
	}
	s.buf = append(b, t...)
	return s.e.Copy(s.buf)
}

// leefPairs gives the walk over the pairs behind a LEEF header.
func leefPairs(version, rest string) kv {
	sep := byte('\t')
	if version == "2.0" {
		if i := strings.IndexByte(rest, '|'); i >= 0 && i <= 6 && strings.IndexByte(rest[:i], '=') < 0 {
			d := rest[:i]
			rest = rest[i+1:]
			switch {
			case len(d) == 1:
				sep = d[0]
			case len(d) >= 2 && (d[0] == 'x' || strings.HasPrefix(d, "0x")):
				h := strings.TrimPrefix(strings.TrimPrefix(d, "0x"), "x")
				if len(h) == 2 && isHex(h[0]) && isHex(h[1]) {
					sep = hexNibble(h[0])<<4 | hexNibble(h[1])
				}
			}
		}
	}
	w := kv{s: rest, sep: sep}
	if sep == '\t' && strings.IndexByte(rest, '\t') < 0 {
		switch {
		case strings.Count(rest, "|") > 2:
			w.sep = '|'
		case strings.Count(rest, "^") > 2 && strings.IndexByte(rest, '^') > strings.IndexByte(rest, '='): // FireEye
			w.sep = '^'
		default:
			w.sep, w.bare = 0, true
		}
	}
	return w
}

// leefField maps one of LEEF's own names, or any other through the dictionary.
func (s *Set) leefField(key, v string) {
	switch key {
	case "devTime":
		s.setTime(v)
	case "srcPostNAT":
		s.ip(event.SourceNATIP, v)
	case "dstPostNAT":
		s.ip(event.DestinationNATIP, v)
	case "srcPostNATPort":
		s.port(event.SourceNATPort, v)
	case "dstPostNATPort":
		s.port(event.DestinationNATPort, v)
	case "usrName", "accountName":
		s.user(v)
	case "cat":
		s.str(event.RuleCategory, v)
	case "sev":
		s.cefSeverity(v)
	case "srcBytes":
		s.int(event.SourceBytes, v)
	case "dstBytes":
		s.int(event.DestinationBytes, v)
	case "devTimeFormat":
	case "totalBytes":
		s.int(event.NetworkBytes, v)
	case "identSrc":
		s.ip(event.SourceIP, v)
	default:
		if !s.generic(key, v) {
			s.extra(key, v)
		}
	}
}

func hexNibble(c byte) byte {
	switch {
	case isDigit(c):
		return c - '0'
	default:
		return c | 0x20 - 'a' + 10
	}
}
