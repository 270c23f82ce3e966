// Package otlp takes OpenTelemetry logs: OTLP over HTTP (protobuf and JSON) and over gRPC, on one port. Each log record goes to the sink as one
// line of JSON:
//
//	{"@timestamp":…,"observed_timestamp":…,"severity_text":…,"severity_number":N,"message":"the body, when it is text","body":{…when it is not},
//	 "resource":{…},"scope":{"name":…},"attributes":{…},"trace_id":…,"span_id":…}
//
// The server is that of package httpin, with its tokens and bounds; a request is acknowledged when the sink has every record for good. Records
// that are too long are refused and named in a partial success; everything else that is wrong refuses the request, and so does a request that
// would be more than 16 MiB of lines, as each record's line says its resource again. 503 (gRPC: UNAVAILABLE)
// is what SDKs and collectors answer with another try.
//
// The reader of the messages is our own: four message types, against the megabytes of generated code and the unbounded recursion of the
// libraries. gRPC here is one unary call, which HTTP/2 of the standard library carries.
package otlp

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"

	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/listen/httpin"
)

// Path and Method are where senders send.
const (
	Path   = "/v1/logs"
	Method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
)

const (
	maxDepth = 24       // of values in values
	maxLines = 16 << 20 // bytes of all lines of one request
)

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
	out := lines{maxLine: s.maxLine, now: uint64(max(r.Now, 0))}
	var err error
	switch r.Type {
	case "application/x-protobuf", "application/protobuf":
		err = readProto(r.Body, &out)
	case "application/json":
		err = readJSON(r.Body, &out)
	default:
		return "", nil, &httpin.Problem{Status: 415, Code: "type", Title: "Unknown kind of body", Detail: fmt.Sprintf("Content-Type %.60q is not known here.", r.Type), Next: "Use application/x-protobuf or application/json."}
	}
	if err != nil {
		return "", nil, err
	}
	if err := s.keep(r, &out); err != nil {
		return "", nil, err
	}
	if r.Type == "application/json" {
		answer := map[string]any{}
		if out.tooLong > 0 {
			answer["partialSuccess"] = map[string]any{"rejectedLogRecords": strconv.Itoa(out.tooLong), "errorMessage": s.tooLongText()}
		}
		b, err := json.Marshal(answer)
		return "application/json", b, err
	}
	return "application/x-protobuf", s.answer(out.tooLong), nil
}

func (s *Server) grpc(_ context.Context, r *httpin.Request) (string, []byte, error) {
	out := lines{maxLine: s.maxLine, now: uint64(max(r.Now, 0))}
	if err := readProto(r.Body, &out); err != nil {
		return "", nil, err
	}
	return "", s.answer(out.tooLong), s.keep(r, &out)
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

func (s *Server) keep(r *httpin.Request, out *lines) error {
	s.tooLong.Add(uint64(out.tooLong))
	if len(out.texts) == 0 {
		return nil
	}
	kept := make([]listen.Line, len(out.texts))
	for i, t := range out.texts {
		kept[i] = listen.Line{Created: r.Now, Sender: r.Sender, Via: r.Via, Text: t}
	}
	return r.Keep(kept)
}
