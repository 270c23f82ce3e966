// Package httpin takes log lines over HTTP and HTTPS from senders that show a token: JSON lines, JSON objects, arrays of them, or plain text.
//
//	POST /v1/logs   Authorization: Bearer TOKEN
//	Content-Type    application/x-ndjson (also application/jsonl), application/json, text/plain
//	Content-Encoding: gzip or zstd, or none
//
// A request is taken whole or not at all: 200 {"accepted":N} when the sink has every line for good (listen.Keep), else a problem (RFC 9457) that
// says what to do. 503 means: the same again later. Other inputs over HTTP (OTLP) share the server: see Handler.
//
// Tokens are known by their SHA-256 only, and compared in constant time. What strangers can take is bounded: connections, header, time, bytes of
// a body as sent and expanded, and bodies in work at once. It counts lines, bytes, and what it refused, by reason.
package httpin

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"tocsin/internal/collector/listen"
)

// Options bound a server. Tokens is needed.
type Options struct {
	listen.Options
	Tokens  *Tokens
	MaxBody int           // bytes of a body, as sent and expanded; default 4 MiB
	Bodies  int           // bodies in work at once; default 3
	Queue   time.Duration // how long a request waits for its turn; default 5 s
	// Routes are further paths. POST only; the token has been checked and the body read and expanded.
	Routes map[string]Handler
	// GRPC are unary gRPC methods by path; Request.Body is the message, the answer another. With any the server speaks HTTP/2, without TLS too.
	GRPC map[string]Handler
	// NoLines takes the path for lines away.
	NoLines bool
}

// Handler takes one body. It gives what to answer, as type and content, or a Problem.
type Handler func(ctx context.Context, r *Request) (contentType string, answer []byte, err error)

// Request is one body with what is known of its sender.
type Request struct {
	Type   string // media type, lower case, without parameters
	Body   []byte // valid until the handler returns
	Sender netip.Addr
	Via    listen.Via
	Now    int64
	Keep   func([]listen.Line) error // listen.Keep; an error is a Problem that says to try again
}

// Problem is an answer that is not 200.
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"` // names the counter: refused_CODE
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
}

// Error is what it says.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// Server is an HTTP port.
type Server struct {
	o     Options
	guard *listen.Guard
	turns chan struct{}

	mu      sync.Mutex // guards what follows
	lines   uint64
	bytes   uint64
	shakes  uint64
	refused map[string]uint64
}

// Listen opens a port. With o.TLS it is HTTPS.
func Listen(addr string, o Options) (*Server, error) {
	if o.MaxBody <= 0 {
		o.MaxBody = 4 << 20
	}
	if o.Bodies <= 0 {
		o.Bodies = 3
	}
	if o.Queue <= 0 {
		o.Queue = 5 * time.Second
	}
	o.Options = o.Defaults()
	g, err := listen.NewGuard(addr, o.Options)
	if err != nil {
		return nil, err
	}
	return &Server{o: o, guard: g, turns: make(chan struct{}, o.Bodies), refused: map[string]uint64{}}, nil
}

// Addr is the address it listens on.
func (s *Server) Addr() net.Addr { return s.guard.Addr() }

// Close closes the port.
func (s *Server) Close() error { return s.guard.Close() }

// Stats are the counters so far.
func (s *Server) Stats() listen.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return listen.Stats{Lines: s.lines, Bytes: s.bytes, Refused: s.guard.Refused(), Handshake: s.shakes, Conns: s.guard.Conns(), By: maps.Clone(s.refused)}
}

// Serve answers until ctx ends, then lets the requests in work end.
func (s *Server) Serve(ctx context.Context, sink listen.Sink) error {
	mux := http.NewServeMux()
	if !s.o.NoLines {
		mux.HandleFunc("/v1/logs", s.handler(sink, s.takeLines))
	}
	for path, h := range s.o.Routes {
		mux.HandleFunc(path, s.handler(sink, h))
	}
	for path, h := range s.o.GRPC {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			s.grpc(w, r, func(r *http.Request) (answer []byte, p *Problem) {
				_, answer, p = s.work(r, sink, h, true)
				return answer, p
			})
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.problem(w, &Problem{Status: 404, Code: "path", Title: "There is nothing here", Detail: fmt.Sprintf("%.100q is not a path of this collector.", r.URL.Path), Next: "Send logs with POST to " + s.paths() + "."})
	})
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, WriteTimeout: 3 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		TLSConfig: s.o.TLS, ErrorLog: log.New(shakeLog{s}, "", 0),
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	if len(s.o.GRPC) > 0 {
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(true)
		srv.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 64}
	}
	srv.Protocols = &protocols
	done := make(chan error, 1)
	go func() {
		if s.o.TLS != nil {
			srv.TLSConfig = s.o.TLS.Clone()
			done <- srv.ServeTLS(s.guard, "", "")
		} else {
			done <- srv.Serve(s.guard)
		}
	}()
	select {
	case err := <-done:
		if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.Drain)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		srv.Close() // who was not answered sends it again
	}
	<-done
	return nil
}

func (s *Server) paths() string {
	var p []string
	if !s.o.NoLines {
		p = append(p, "/v1/logs")
	}
	for path := range s.o.Routes {
		p = append(p, path)
	}
	return strings.Join(p, ", ")
}

// shakeLog takes what net/http says of connections that came to nothing.
type shakeLog struct{ s *Server }

func (l shakeLog) Write(b []byte) (int, error) {
	text := strings.TrimSpace(string(b))
	if strings.Contains(text, "TLS handshake error") {
		l.s.mu.Lock()
		l.s.shakes++
		l.s.mu.Unlock()
	}
	l.s.o.Logger.Warn("an HTTP connection came to nothing", "error", text)
	return len(b), nil
}

func (s *Server) problem(w http.ResponseWriter, p *Problem) {
	s.mu.Lock()
	s.refused["refused_"+p.Code]++
	s.mu.Unlock()
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.Status == 503 || p.Status == 429 {
		h.Set("Retry-After", "1")
	}
	if p.Status == 401 {
		h.Set("WWW-Authenticate", `Bearer realm="tocsin-collector"`)
	}
	w.WriteHeader(p.Status)
	b, _ := json.Marshal(p) // strings and a number
	_, _ = w.Write(append(b, '\n'))
}

func busy(detail string) *Problem {
	return &Problem{Status: 503, Code: "busy", Title: "Not now", Detail: detail, Next: "Send the same again after the time in Retry-After. Nothing of it was taken."}
}

// handler checks a request from the outside in, and gives h its body.
func (s *Server) handler(sink listen.Sink, h Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p := s.serve(w, r, sink, h); p != nil {
			// The rest of the body is not wanted: without this the server would read it to keep the connection.
			w.Header().Set("Connection", "close")
			s.problem(w, p)
		}
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, sink listen.Sink, h Handler) *Problem {
	contentType, answer, p := s.work(r, sink, h, false)
	if p != nil {
		if p.Status == 405 {
			w.Header().Set("Allow", "POST")
		}
		return p
	}
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(answer) // if it does not arrive the sender sends again
	return nil
}

// work checks a request from the outside in, and gives h its body, or, of a gRPC call, its message.
func (s *Server) work(r *http.Request, sink listen.Sink, h Handler, isGRPC bool) (contentType string, answer []byte, p *Problem) {
	if !s.o.Tokens.Check(bearer(r.Header.Get("Authorization"))) {
		return "", nil, &Problem{Status: 401, Code: "token", Title: "Not a token of this collector", Detail: "The header Authorization: Bearer TOKEN is missing, or its token is not known here.",
			Next: "Make a token on the collector's machine with: tocsin-collector token --name SENDER"}
	}
	if r.Method != http.MethodPost {
		return "", nil, &Problem{Status: 405, Code: "method", Title: "Only POST", Detail: "Logs are sent with POST.", Next: "Change the sender's method to POST."}
	}
	if r.ContentLength > int64(s.o.MaxBody) {
		return "", nil, s.tooBig()
	}
	turn := time.NewTimer(s.o.Queue)
	defer turn.Stop()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-turn.C:
		return "", nil, busy("Too many requests are in work.")
	case <-r.Context().Done():
		return "", nil, busy("The request was given up.")
	}
	body, p := s.body(r)
	if p != nil {
		return "", nil, p
	}
	if isGRPC {
		var err error
		if body, err = message(body, r.Header.Get("Grpc-Encoding"), s.expand); errors.As(err, &p) {
			return "", nil, p
		} else if err != nil {
			return "", nil, badBody(err)
		}
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	req := &Request{Type: kind, Body: body, Sender: listen.ParseAddr(r.RemoteAddr), Via: listen.ViaOf(r.TLS), Now: s.o.Now().UnixNano()}
	req.Keep = func(lines []listen.Line) error {
		size := 0
		for i := range lines {
			size += len(lines[i].Text)
		}
		if err := listen.Keep(r.Context(), sink, lines); err != nil {
			return busy("The lines cannot be written to the disk now.")
		}
		s.mu.Lock()
		s.lines += uint64(len(lines))
		s.bytes += uint64(size)
		s.mu.Unlock()
		return nil
	}
	contentType, answer, err = h(r.Context(), req)
	if errors.As(err, &p) {
		return "", nil, p
	} else if err != nil {
		return "", nil, badBody(err)
	}
	return contentType, answer, nil
}

func badBody(err error) *Problem {
	return &Problem{Status: 400, Code: "body", Title: "The body cannot be read", Detail: err.Error(), Next: "Mend the sender: look whether it says rightly how the body is written and compressed. Nothing of it was taken."}
}

func bearer(h string) string {
	kind, token, _ := strings.Cut(h, " ")
	if !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func (s *Server) tooBig() *Problem {
	return &Problem{Status: 413, Code: "too_big", Title: "Too much at once", Detail: fmt.Sprintf("A request may hold %d bytes, expanded too.", s.o.MaxBody), Next: "Send smaller batches. Nothing of it was taken."}
}

// body reads and expands a request's body.
func (s *Server) body(r *http.Request) ([]byte, *Problem) {
	return s.expand(io.LimitReader(r.Body, int64(s.o.MaxBody)+1), r.Header.Get("Content-Encoding"))
}

// expand reads what is compressed in the way named.
func (s *Server) expand(in io.Reader, encoding string) ([]byte, *Problem) {
	switch enc := strings.ToLower(strings.TrimSpace(encoding)); enc {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, badBody(fmt.Errorf("gzip: %w", err))
		}
		in = z
	case "zstd":
		z, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, badBody(fmt.Errorf("zstd: %w", err))
		}
		defer z.Close()
		in = z
	default:
		return nil, &Problem{Status: 415, Code: "encoding", Title: "Unknown compression", Detail: fmt.Sprintf("The encoding %.40q is not known here.", enc), Next: "Use gzip, zstd or none."}
	}
	b, err := io.ReadAll(io.LimitReader(in, int64(s.o.MaxBody)+1))
	if len(b) > s.o.MaxBody {
		return nil, s.tooBig()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil, &Problem{Status: 408, Code: "slow", Title: "Too slow", Detail: "The body did not come in time.", Next: "Send again, or in smaller batches."}
	}
	if err != nil {
		return nil, badBody(err)
	}
	return b, nil
}

// takeLines is the handler of JSON lines and text.
func (s *Server) takeLines(_ context.Context, r *Request) (string, []byte, error) {
	var texts [][]byte
	var err error
	switch r.Type {
	case "application/json":
		texts, err = jsonValues(r.Body, s.o.MaxLine)
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-lines", "application/x-json-stream":
		texts, err = jsonLines(r.Body, s.o.MaxLine)
	case "text/plain":
		texts = plainLines(r.Body)
	default:
		return "", nil, &Problem{Status: 415, Code: "type", Title: "Unknown kind of body", Detail: fmt.Sprintf("Content-Type %.60q is not known here.", r.Type),
			Next: "Use application/x-ndjson for JSON lines, application/json for one object or an array of them, text/plain for log lines as they are."}
	}
	if err != nil {
		return "", nil, err
	}
	lines := make([]listen.Line, 0, len(texts))
	for _, t := range texts {
		l := listen.Line{Created: r.Now, Sender: r.Sender, Via: r.Via, Text: t}
		if len(t) > s.o.MaxLine {
			l.Text, l.Cut = t[:s.o.MaxLine], true
		}
		lines = append(lines, l)
	}
	if len(lines) > 0 {
		if err := r.Keep(lines); err != nil {
			return "", nil, err
		}
	}
	return "application/json", []byte(`{"accepted":` + strconv.Itoa(len(lines)) + "}\n"), nil
}

func badLine(n int, what string) *Problem {
	return &Problem{Status: 400, Code: "json", Title: "Not JSON lines", Detail: fmt.Sprintf("Line %d %s.", n, what), Next: "Send one JSON object a line, or text/plain for lines as they are. Nothing of this request was taken."}
}

// jsonLines cuts JSON lines and checks that each is an object.
func jsonLines(b []byte, maxLine int) ([][]byte, error) {
	var out [][]byte
	for n := 1; len(b) > 0; n++ {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		b = rest
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
			continue
		case len(line) > maxLine:
			return nil, badLine(n, fmt.Sprintf("is longer than %d bytes", maxLine))
		case line[0] != '{' || !json.Valid(line):
			return nil, badLine(n, "is not a JSON object")
		}
		out = append(out, line)
	}
	return out, nil
}

// jsonValues reads JSON objects one after another, and arrays of objects, and makes each one line.
func jsonValues(b []byte, maxLine int) ([][]byte, error) {
	var out [][]byte
	take := func(v []byte) error {
		var line bytes.Buffer
		if err := json.Compact(&line, v); err != nil || line.Len() == 0 || line.Bytes()[0] != '{' {
			return badLine(len(out)+1, "(counting values) is not a JSON object")
		}
		if line.Len() > maxLine {
			return badLine(len(out)+1, fmt.Sprintf("(counting values) is longer than %d bytes", maxLine))
		}
		out = append(out, line.Bytes())
		return nil
	}
	dec := json.NewDecoder(bufio.NewReader(bytes.NewReader(b)))
	for {
		var v json.RawMessage
		err := dec.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, badLine(len(out)+1, "(counting values) is not JSON: "+err.Error())
		}
		if t := bytes.TrimSpace(v); len(t) > 0 && t[0] == '[' {
			var list []json.RawMessage
			if err := json.Unmarshal(t, &list); err != nil {
				return nil, badLine(len(out)+1, "(counting values) is not JSON: "+err.Error())
			}
			for _, x := range list {
				if err := take(x); err != nil {
					return nil, err
				}
			}
			continue
		}
		if err := take(v); err != nil {
			return nil, err
		}
	}
}

func plainLines(b []byte) (out [][]byte) {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		b = rest
		if line = bytes.Trim(line, "\r\x00"); len(line) > 0 {
			out = append(out, line)
		}
	}
	return out
}
