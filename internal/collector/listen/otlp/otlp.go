// Package otlp takes OpenTelemetry logs: OTLP over HTTP (protobuf and JSON) and over gRPC, on one port. Each log record goes to the sink as one
// line of JSON:
//
//	{"@timestamp":…,"observed_timestamp":…,"severity_text":…,"severity_number":N,"message":"the body, when it is text","body":{…when it is not},
//	 "resource":{…},"scope":{"name":…},"attributes":{…},"trace_id":…,"span_id":…}
//
// The server is that of package httpin, with its tokens and bounds; a request is acknowledged when the sink has every record for good. Records
// that are too long are refused and named in a partial success; everything else that is wrong refuses the request. 503 (gRPC: UNAVAILABLE) is
// what SDKs and collectors answer with another try.
//
// The reader of the messages is our own: four message types, against the megabytes of generated code and the unbounded recursion of the
// libraries. gRPC here is one unary call, which HTTP/2 of the standard library carries.
package otlp

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/listen/httpin"
)

// Path and Method are where senders send.
const (
	Path   = "/v1/logs"
	Method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
)

const maxDepth = 24

// Server is an OTLP port.
type Server struct {
	*httpin.Server
	maxLine int
	tooLong atomic.Uint64
}

// Listen opens a port for OTLP over HTTP and gRPC.
func Listen(addr string, o httpin.Options) (*Server, error) {
	o.Options = o.Defaults()
	s := &Server{maxLine: max(o.MaxLine, 256<<10)}
	o.NoLines = true
	o.Routes = map[string]httpin.Handler{Path: s.http}
	o.GRPC = map[string]httpin.Handler{Method: s.grpc}
	var err error
	s.Server, err = httpin.Listen(addr, o)
	return s, err
}

// Stats are the counters so far.
func (s *Server) Stats() listen.Stats {
	st := s.Server.Stats()
	st.By["refused_too_long"] += s.tooLong.Load()
	return st
}

func (s *Server) http(_ context.Context, r *httpin.Request) (string, []byte, error) {
	var records [][]byte
	var err error
	switch r.Type {
	case "application/x-protobuf", "application/protobuf":
		records, err = readProto(r.Body)
	case "application/json":
		records, err = readJSON(r.Body)
	default:
		return "", nil, &httpin.Problem{Status: 415, Code: "type", Title: "Unknown kind of body", Detail: fmt.Sprintf("Content-Type %.60q is not known here.", r.Type), Next: "Use application/x-protobuf or application/json."}
	}
	if err != nil {
		return "", nil, err
	}
	rejected, err := s.keep(r, records)
	if err != nil {
		return "", nil, err
	}
	if r.Type == "application/json" {
		answer := map[string]any{}
		if rejected > 0 {
			answer["partialSuccess"] = map[string]any{"rejectedLogRecords": strconv.Itoa(rejected), "errorMessage": s.tooLongText()}
		}
		b, err := json.Marshal(answer)
		return "application/json", b, err
	}
	return "application/x-protobuf", s.answer(rejected), nil
}

func (s *Server) grpc(_ context.Context, r *httpin.Request) (string, []byte, error) {
	records, err := readProto(r.Body)
	if err != nil {
		return "", nil, err
	}
	rejected, err := s.keep(r, records)
	return "", s.answer(rejected), err
}

func (s *Server) tooLongText() string {
	return fmt.Sprintf("log records longer than %d bytes as JSON are not taken", s.maxLine)
}

// answer is an ExportLogsServiceResponse.
func (s *Server) answer(rejected int) []byte {
	if rejected == 0 {
		return nil
	}
	text := s.tooLongText()
	p := appendVarint([]byte{1 << 3}, uint64(rejected))
	p = append(appendVarint(append(p, 2<<3|2), uint64(len(text))), text...)
	return append(appendVarint([]byte{1<<3 | 2}, uint64(len(p))), p...)
}

func appendVarint(b []byte, n uint64) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func (s *Server) keep(r *httpin.Request, records [][]byte) (rejected int, err error) {
	lines := make([]listen.Line, 0, len(records))
	for _, t := range records {
		if len(t) > s.maxLine {
			rejected++
			continue
		}
		lines = append(lines, listen.Line{Created: r.Now, Sender: r.Sender, Via: r.Via, Text: t})
	}
	s.tooLong.Add(uint64(rejected))
	if len(lines) == 0 {
		return rejected, nil
	}
	return rejected, r.Keep(lines)
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

// Protobuf.

var errProto = errors.New("not an OTLP logs request in protobuf")

// walk calls f for each field of a message: number, and the value as bytes (type 2) or as a number (types 0, 1, 5).
func walk(b []byte, f func(n int, v []byte, x uint64, isBytes bool) error) error {
	for len(b) > 0 {
		tag, k := varint(b)
		if k == 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
			return errProto
		}
		b = b[k:]
		var v []byte
		var x uint64
		isBytes := false
		switch tag & 7 {
		case 0:
			if x, k = varint(b); k == 0 {
				return errProto
			}
			b = b[k:]
		case 1:
			if len(b) < 8 {
				return errProto
			}
			x = uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
			b = b[8:]
		case 2:
			n, k := varint(b)
			if k == 0 || n > uint64(len(b)-k) {
				return errProto
			}
			v, isBytes = b[k:k+int(n)], true
			b = b[k+int(n):]
		case 5:
			if len(b) < 4 {
				return errProto
			}
			x = uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
			b = b[4:]
		default:
			return errProto
		}
		if err := f(int(tag>>3), v, x, isBytes); err != nil {
			return err
		}
	}
	return nil
}

func varint(b []byte) (x uint64, n int) {
	for i := 0; i < len(b) && i < 10; i++ {
		x |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return x, i + 1
		}
	}
	return 0, 0
}

// readProto makes lines of an ExportLogsServiceRequest.
func readProto(b []byte) (lines [][]byte, err error) {
	err = walk(b, func(n int, resourceLogs []byte, _ uint64, is bool) error {
		if n != 1 || !is {
			return nil
		}
		var resource []byte
		// The resource may come behind its logs: first it, then them.
		if err := walk(resourceLogs, func(n int, v []byte, _ uint64, is bool) error {
			if n != 1 || !is {
				return nil
			}
			attributes, err := protoAttributes(v, 1)
			resource = attributes
			return err
		}); err != nil {
			return err
		}
		return walk(resourceLogs, func(n int, scopeLogs []byte, _ uint64, is bool) error {
			if n != 2 || !is {
				return nil
			}
			scope := ""
			if err := walk(scopeLogs, func(n int, v []byte, _ uint64, is bool) error {
				if n != 1 || !is {
					return nil
				}
				return walk(v, func(n int, v []byte, _ uint64, is bool) error {
					if n == 1 && is {
						scope = string(v)
					}
					return nil
				})
			}); err != nil {
				return err
			}
			return walk(scopeLogs, func(n int, v []byte, _ uint64, is bool) error {
				if n != 2 || !is {
					return nil
				}
				var r record
				if err := r.proto(v); err != nil {
					return err
				}
				lines = append(lines, r.line(resource, scope))
				return nil
			})
		})
	})
	return lines, err
}

func (r *record) proto(b []byte) error {
	if err := walk(b, func(n int, v []byte, x uint64, is bool) (err error) {
		switch {
		case n == 1 && !is:
			r.time = x
		case n == 2 && !is:
			r.severity = int64(int32(x))
		case n == 3 && is:
			r.severityText = string(v)
		case n == 5 && is:
			r.body, err = appendAny(nil, v, 0)
			r.bodyText = len(r.body) > 0 && r.body[0] == '"'
		case n == 9 && is:
			r.trace = hex.EncodeToString(v)
		case n == 10 && is:
			r.span = hex.EncodeToString(v)
		case n == 11 && !is:
			r.observed = x
		}
		return err
	}); err != nil {
		return err
	}
	var err error
	r.attributes, err = protoAttributes(b, 6)
	return err
}

// protoAttributes writes the KeyValues in field number of a message as a JSON object. Of equal keys the first wins.
func protoAttributes(b []byte, number int) ([]byte, error) { return appendPairs(nil, b, number, 0) }

func appendPairs(dst, b []byte, number, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: values are nested more than %d deep", errProto, maxDepth)
	}
	dst = append(dst, '{')
	seen := map[string]bool{}
	err := walk(b, func(n int, v []byte, _ uint64, is bool) error {
		if n != number || !is {
			return nil
		}
		key, value := "", []byte(nil)
		if err := walk(v, func(n int, v []byte, _ uint64, is bool) error {
			switch {
			case n == 1 && is:
				key = string(v)
			case n == 2 && is:
				value = v
			}
			return nil
		}); err != nil {
			return err
		}
		if key == "" || seen[key] {
			return nil
		}
		seen[key] = true
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, key), ':')
		var err error
		dst, err = appendAny(dst, value, depth+1)
		return err
	})
	return append(dst, '}'), err
}

// appendAny writes an AnyValue.
func appendAny(dst, b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("%w: values are nested more than %d deep", errProto, maxDepth)
	}
	start := len(dst)
	err := walk(b, func(n int, v []byte, x uint64, is bool) (err error) {
		dst = dst[:start] // of a oneof the last one counts
		switch {
		case n == 1 && is:
			dst = appendString(dst, string(v))
		case n == 2 && !is:
			dst = strconv.AppendBool(dst, x != 0)
		case n == 3 && !is:
			dst = strconv.AppendInt(dst, int64(x), 10)
		case n == 4 && !is:
			dst = appendFloat(dst, math.Float64frombits(x))
		case n == 5 && is:
			dst = append(dst, '[')
			err = walk(v, func(n int, v []byte, _ uint64, is bool) (err error) {
				if n == 1 && is {
					if dst[len(dst)-1] != '[' {
						dst = append(dst, ',')
					}
					dst, err = appendAny(dst, v, depth+1)
				}
				return err
			})
			dst = append(dst, ']')
		case n == 6 && is:
			dst, err = appendPairs(dst, v, 1, depth+1)
		case n == 7 && is:
			dst = appendString(dst, base64.StdEncoding.EncodeToString(v))
		}
		return err
	})
	if len(dst) == start {
		dst = append(dst, "null"...)
	}
	return dst, err
}

// JSON.

type jsonRequest struct {
	ResourceLogs []struct {
		Resource struct {
			Attributes []jsonPair `json:"attributes"`
		} `json:"resource"`
		ScopeLogs []struct {
			Scope struct {
				Name string `json:"name"`
			} `json:"scope"`
			LogRecords []struct {
				Time         jsonUint   `json:"timeUnixNano"`
				Observed     jsonUint   `json:"observedTimeUnixNano"`
				Severity     int64      `json:"severityNumber"`
				SeverityText string     `json:"severityText"`
				Body         *jsonAny   `json:"body"`
				Attributes   []jsonPair `json:"attributes"`
				Trace        string     `json:"traceId"`
				Span         string     `json:"spanId"`
			} `json:"logRecords"`
		} `json:"scopeLogs"`
	} `json:"resourceLogs"`
}

type jsonPair struct {
	Key   string  `json:"key"`
	Value jsonAny `json:"value"`
}

type jsonAny struct {
	String *string      `json:"stringValue"`
	Bool   *bool        `json:"boolValue"`
	Int    *json.Number `json:"intValue"` // a number, or a string with one
	Double *json.Number `json:"doubleValue"`
	Array  *struct {
		Values []jsonAny `json:"values"`
	} `json:"arrayValue"`
	List *struct {
		Values []jsonPair `json:"values"`
	} `json:"kvlistValue"`
	Bytes *string `json:"bytesValue"`
}

// jsonUint is a number, or a string with one.
type jsonUint uint64

// UnmarshalJSON is json.Unmarshaler.
func (u *jsonUint) UnmarshalJSON(b []byte) error {
	if len(b) > 1 && b[0] == '"' {
		b = b[1 : len(b)-1]
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	*u = jsonUint(n)
	return err
}

func readJSON(b []byte) ([][]byte, error) {
	var q jsonRequest
	if err := json.Unmarshal(b, &q); err != nil { // its depth is bounded by encoding/json
		return nil, fmt.Errorf("not an OTLP logs request in JSON: %w", err)
	}
	var lines [][]byte
	for _, rl := range q.ResourceLogs {
		resource, err := jsonPairs(nil, rl.Resource.Attributes, 0)
		if err != nil {
			return nil, err
		}
		for _, sl := range rl.ScopeLogs {
			for i := range sl.LogRecords {
				x := &sl.LogRecords[i]
				r := record{time: uint64(x.Time), observed: uint64(x.Observed), severity: x.Severity, severityText: x.SeverityText, trace: x.Trace, span: x.Span}
				if x.Body != nil {
					if r.body, err = x.Body.append(nil, 0); err != nil {
						return nil, err
					}
					r.bodyText = r.body[0] == '"'
				}
				if r.attributes, err = jsonPairs(nil, x.Attributes, 0); err != nil {
					return nil, err
				}
				lines = append(lines, r.line(resource, sl.Scope.Name))
			}
		}
	}
	return lines, nil
}

func jsonPairs(dst []byte, pairs []jsonPair, depth int) ([]byte, error) {
	dst = append(dst, '{')
	seen := map[string]bool{}
	for i := range pairs {
		p := &pairs[i]
		if p.Key == "" || seen[p.Key] {
			continue
		}
		seen[p.Key] = true
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, p.Key), ':')
		var err error
		if dst, err = p.Value.append(dst, depth+1); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func (v *jsonAny) append(dst []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	switch {
	case v.String != nil:
		return appendString(dst, *v.String), nil
	case v.Bool != nil:
		return strconv.AppendBool(dst, *v.Bool), nil
	case v.Int != nil:
		n, err := v.Int.Int64()
		return strconv.AppendInt(dst, n, 10), err
	case v.Double != nil:
		f, err := v.Double.Float64()
		return appendFloat(dst, f), err
	case v.Array != nil:
		dst = append(dst, '[')
		for i := range v.Array.Values {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = v.Array.Values[i].append(dst, depth+1); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case v.List != nil:
		return jsonPairs(dst, v.List.Values, depth+1)
	case v.Bytes != nil:
		return appendString(dst, *v.Bytes), nil
	}
	return append(dst, "null"...), nil
}
