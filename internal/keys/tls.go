package keys

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// ErrNotTheHub means that the other end of a connection does not hold the hub's TLS key.
var ErrNotTheHub = errors.New("the server does not hold the hub's key: it is not the hub, or the connection is intercepted")

// ServerOptions are what the gate's listener needs.
type ServerOptions struct {
	Certificate tls.Certificate
	CA          *x509.Certificate
	Now         func() time.Time
	// Check is asked for every handshake with a certificate of this scheme, resumed ones included; an error ends the handshake. It is where
	// revocation is looked up.
	Check func(Peer) error
}

// ServerConfig returns the gate's TLS settings: TLS 1.3 only, a client certificate asked for but not required. A caller without one, or with
// one that has expired or is of another scheme, is let as far as HTTP so that it can enrol, renew, or be told in words what is wrong; every
// handler that needs a collector asks [Identify] itself. A revoked collector is cut off in the handshake (VerifyConnection: resumption skips
// VerifyPeerCertificate).
func ServerConfig(o ServerOptions) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{o.Certificate},
		ClientAuth:   tls.RequestClientCert,
		ClientCAs:    pool(o.CA), // tells clients which certificate is meant
		Time:         o.Now,
		NextProtos:   []string{"http/1.1"},
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || o.Check == nil {
				return nil
			}
			p, err := Identify(s.PeerCertificates[0], o.CA, o.Now())
			if errors.Is(err, ErrUnknownCertificate) {
				return nil
			}
			return o.Check(p)
		},
	}
}

func pool(c *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c)
	return p
}

// ClientConfig returns a collector's TLS settings. The hub is known by its key alone: the SPKI it presents must be the active hub-tls key
// of the trust list, on every handshake, resumed ones included. trust is asked each time, so that a newer list takes effect; cert returns
// the collector's certificate, or nil before enrolment.
func ClientConfig(trust func() *Trust, cert func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // names and dates prove nothing here; VerifyConnection checks the key
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
		VerifyConnection: func(s tls.ConnectionState) error {
			return checkHub(s, trust())
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := cert(); c != nil {
				return c, nil
			}
			return &tls.Certificate{}, nil
		},
	}
}

func checkHub(s tls.ConnectionState, t *Trust) error {
	if len(s.PeerCertificates) == 0 || t == nil {
		return ErrNotTheHub
	}
	if want := t.ActiveSPKI(HubTLS); len(want) == 0 || !bytes.Equal(s.PeerCertificates[0].RawSubjectPublicKeyInfo, want) {
		return ErrNotTheHub
	}
	return nil
}

// FetchTrust asks the hub at address (host:port) for its trust list over a connection that nothing is sent on. held is the trust already
// known, or nil at first contact, when root, from the token, is what it must descend from. The server must hold the key its own list names
// for hub-tls. Only after this may a secret be sent, with [ClientConfig].
func FetchTrust(ctx context.Context, address string, root [32]byte, held *Trust) (*Trust, error) {
	var state tls.ConnectionState
	tr := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // the answer is signed by the root; the key is checked below
			NextProtos:         []string{"http/1.1"},
			VerifyConnection:   func(s tls.ConnectionState) error { state = s; return nil },
		},
		TLSHandshakeTimeout: 20 * time.Second,
		Proxy:               http.ProxyFromEnvironment, // as the collector's other requests; what is proved is the key at the other end
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/v1/trust", nil)
	if err != nil {
		return nil, fmt.Errorf("fetch trust list from %s: %w", address, err)
	}
	client := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch trust list: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch trust list from %s: the server answered %s: is this a Tocsin hub's collector address?", address, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, MaxTrust+1))
	if err != nil {
		return nil, fmt.Errorf("fetch trust list from %s: %w", address, err)
	}
	var t *Trust
	if held != nil {
		t, err = held.Advance(b)
	} else {
		t, err = FirstTrust(b, root)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch trust list from %s: %w", address, err)
	}
	if err := checkHub(state, t); err != nil {
		return nil, fmt.Errorf("fetch trust list from %s: %w", address, err)
	}
	return t, nil
}
