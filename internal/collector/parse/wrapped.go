package parse

import "strings"

// Lines of text that a forwarder wrapped in JSON: filebeat, an OTLP sender or a container's runtime put them into "message".

// wrapped reads the line of text in a JSON object's "message" (or "log", "body", "event.original", Splunk's "_raw") by automatic detection,
// when the object is a forwarder's and says little itself. The object's @timestamp is used when the line has none.
func (s *Set) wrapped(msg string) (string, bool) {
	if s.inside || !strings.Contains(msg, `"message"`) && !strings.Contains(msg, `"log"`) && !strings.Contains(msg, `"body"`) && !strings.Contains(msg, `"original"`) && !strings.Contains(msg, `"_raw"`) {
		return "", false
	}
	if !strings.Contains(msg, `"@timestamp"`) && !strings.Contains(msg, `"observed_timestamp"`) && !strings.Contains(msg, `"stream"`) && !strings.Contains(msg, `"agent"`) && !strings.Contains(msg, `"_raw"`) {
		return "", false
	}
	w := &s.json
	if !w.start(msg) {
		return "", false
	}
	var inner, stamp, host string
	for pairs := 0; pairs < 500 && w.next(); pairs++ {
		if w.val.kind != 's' {
			continue
		}
		switch string(w.path[:w.n]) {
		case "event.original", "_raw", "result._raw":
			inner = s.jstr(w.val)
		case "message", "log", "body":
			if inner == "" {
				inner = s.jstr(w.val)
			}
		case "@timestamp", "time":
			stamp = s.jstr(w.val)
		case "host.name", "resource.host.name", "host.hostname":
			host = s.jstr(w.val)
		}
	}
	if len(inner) < 20 || strings.IndexByte(inner, ' ') < 0 && inner[0] != '{' {
		return "", false
	}
	outer := s.h
	line := s.line
	s.inside, s.line = true, inner
	defer func() { s.inside = false }()
	s.envelope(inner)
	name, ok := s.dispatch(s.h.msg)
	if !ok || name == "text" || name == "json" && inner[0] != '{' {
		s.undo()
		s.h, s.line = outer, line
		return "", false
	}
	if s.h.host == "" {
		s.h.host = host
	}
	if s.h.pri < 0 {
		s.h.pri = outer.pri
	}
	if s.e.Time == 0 && !s.h.has {
		s.utc = true
		s.setTime(stamp)
		s.utc = false
	}
	return name, true
}
