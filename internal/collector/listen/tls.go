package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// handshakeTime is how long a sender may take to agree on a session.
const handshakeTime = 10 * time.Second

// handshake makes s a TLS connection, or says why not and answers false.
func (t *TCP) handshake(ctx context.Context, s *stream) bool {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn := tls.Server(s.raw, t.o.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		t.c.handshake.Add(1)
		t.o.Logger.Warn("no TLS session with a syslog sender", "sender", s.sender, "error", HandshakeHint(err))
		return false
	}
	s.conn, s.via = conn, ViaTLS
	if len(conn.ConnectionState().VerifiedChains) > 0 {
		s.via = ViaMutual
	}
	return true
}

// HandshakeHint says in plain words why a sender and we did not agree on a TLS session, and what to do.
func HandshakeHint(err error) error {
	var header tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	var alert tls.AlertError
	switch {
	case errors.As(err, &header):
		return fmt.Errorf("%w: it does not speak TLS; set it to TLS, or send it to a port without", err)
	case errors.As(err, &cert):
		return fmt.Errorf("%w: its certificate was not issued by the authority in client_ca, or is not valid now", err)
	case errors.As(err, &alert):
		return fmt.Errorf("%w: it does not take our certificate; give it the certificate of our authority (tls/authority.crt in the collector's folder)", err)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return fmt.Errorf("%w: it closed the connection", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: it said nothing for %s; perhaps it does not speak TLS", err, handshakeTime)
	}
	return err
}
