package httpin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Codes of gRPC that we answer with.
const (
	grpcInvalid         = 3
	grpcExhausted       = 8
	grpcUnimplemented   = 12
	grpcUnavailable     = 14
	grpcUnauthenticated = 16
)

// grpc serves one unary call: a message of five bytes of head and a body, answered by another and the status in the trailer
// (grpc/doc/PROTOCOL-HTTP2.md). Errors are a status, never a problem.
func (s *Server) grpc(w http.ResponseWriter, r *http.Request, serve func(r *http.Request) ([]byte, *Problem)) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Trailer", "Grpc-Status, Grpc-Message")
	answer, p := serve(r)
	if p != nil {
		s.mu.Lock()
		s.refused["refused_"+p.Code]++
		s.mu.Unlock()
		code := grpcInvalid
		switch p.Status {
		case 401:
			code = grpcUnauthenticated
		case 404, 415:
			code = grpcUnimplemented
		case 413:
			code = grpcExhausted
		case 503, 408:
			code = grpcUnavailable
		}
		h.Set("Grpc-Status", strconv.Itoa(code))
		h.Set("Grpc-Message", percent(p.Title+": "+p.Detail+" "+p.Next))
		w.WriteHeader(http.StatusOK)
		return
	}
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer)))
	_, _ = w.Write(append(b, answer...)) // if it does not arrive the sender sends again
	h.Set("Grpc-Status", "0")
}

// percent escapes a status message as gRPC wants it.
func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// message takes the one message of a unary call out of its frame.
func message(b []byte, encoding string, expand func(io.Reader, string) ([]byte, *Problem)) ([]byte, error) {
	if len(b) < 5 {
		return nil, errors.New("a gRPC message that ends early")
	}
	n := int(binary.BigEndian.Uint32(b[1:]))
	if n != len(b)-5 {
		return nil, fmt.Errorf("a gRPC message that says %d bytes and has %d", n, len(b)-5)
	}
	switch b[0] {
	case 0:
		return b[5:], nil
	case 1:
		out, p := expand(bytes.NewReader(b[5:]), encoding)
		if p != nil {
			return nil, p
		}
		return out, nil
	}
	return nil, errors.New("a gRPC message with an unknown flag")
}
