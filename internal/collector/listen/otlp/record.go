package otlp

import (
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"tocsin/internal/collector/listen/httpin"
)

// lines are what a request becomes. A record says its resource again in its line, so a small request can be many lines: what would be too much
// is refused before it is written.
type lines struct {
	maxLine int
	now     uint64 // of receipt, UTC nanoseconds: when a record was observed that says nothing of time
	texts   [][]byte
	size    int
	tooLong int // records
}

func (l *lines) add(r *record, resource []byte, scope string) error {
	if len(r.body)+len(r.attributes)+len(resource)+len(r.severityText)+len(scope) > l.maxLine {
		l.tooLong++
		return nil
	}
	if r.time == 0 && r.observed == 0 {
		r.observed = l.now
	}
	text := r.line(resource, scope)
	if len(text) > l.maxLine {
		l.tooLong++
		return nil
	}
	if l.size += cap(text) + perLine; l.size > maxLines {
		return tooMuch(fmt.Sprintf("As lines, each with its resource, this request is more than %d bytes.", maxLines))
	}
	l.texts = append(l.texts, text)
	return nil
}

const perLine = 128 // bytes that a line takes beside its text

func tooMuch(detail string) error {
	return &httpin.Problem{Status: 413, Code: "too_big", Title: "Too much at once", Detail: detail, Next: "Send smaller batches. Nothing of it was taken."}
}

// record is one log record on its way to a line.
type record struct {
	time, observed   uint64
	severity         int64
	severityText     string
	body, attributes []byte // JSON
	bodyText         bool
	trace, span      string
}

// line writes a record with what its resource and scope say (JSON, or nil).
func (r *record) line(resource []byte, scope string) []byte {
	b := make([]byte, 0, 200+len(r.body)+len(r.attributes)+len(resource))
	b = append(b, '{')
	member := func(name string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), '"', ':')
	}
	at := func(name string, ns uint64) {
		if ns == 0 || ns > math.MaxInt64 {
			return
		}
		member(name)
		b = append(time.Unix(0, int64(ns)).UTC().AppendFormat(append(b, '"'), "2006-01-02T15:04:05.999999999Z"), '"')
	}
	text := func(name, v string) {
		if v != "" {
			member(name)
			b = appendString(b, v)
		}
	}
	if r.time == 0 {
		at("@timestamp", r.observed)
	} else {
		at("@timestamp", r.time)
	}
	at("observed_timestamp", r.observed)
	text("severity_text", r.severityText)
	if r.severity != 0 {
		member("severity_number")
		b = strconv.AppendInt(b, r.severity, 10)
	}
	if len(r.body) > 0 {
		if r.bodyText {
			member("message")
		} else {
			member("body")
		}
		b = append(b, r.body...)
	}
	if len(resource) > 2 {
		member("resource")
		b = append(b, resource...)
	}
	if scope != "" {
		member("scope")
		b = append(appendString(append(b, `{"name":`...), scope), '}')
	}
	if len(r.attributes) > 2 {
		member("attributes")
		b = append(b, r.attributes...)
	}
	text("trace_id", r.trace)
	text("span_id", r.span)
	return append(b, '}')
}

// appendString writes a JSON string without line breaks; what is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r < ' ' || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) { // not in JSON
		return appendString(b, strconv.FormatFloat(f, 'g', -1, 64))
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}
