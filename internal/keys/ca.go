package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"
)

// DefaultCertificateLife is how long a collector's certificate lasts. Collectors renew when two thirds have gone.
const DefaultCertificateLife = 72 * time.Hour

// clockSlack is how far before now a certificate begins, for members' machines whose clocks run behind.
const clockSlack = 24 * time.Hour

// Reasons for not taking a peer's certificate. An expired one still names its owner.
var (
	ErrUnknownCertificate = errors.New("the certificate was not issued by this scheme's collector authority")
	ErrExpiredCertificate = errors.New("the certificate has expired")
)

// CA issues the client certificates of collectors and nothing else.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Certificate returns the authority's own certificate.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// ParseCSR checks a PEM certificate request: signed by its own key, ECDSA P-256. Names in it are ignored, the hub gives them. It returns the
// key's SPKI.
func ParseCSR(csr []byte) (pub *ecdsa.PublicKey, spki []byte, err error) {
	p, rest := pem.Decode(csr)
	if p == nil || p.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, errors.New("certificate request: not one PEM block CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(p.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("certificate request: %w", err)
	}
	pub, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, nil, fmt.Errorf("certificate request: a %T where an ECDSA P-256 key is needed", r.PublicKey)
	}
	return pub, r.RawSubjectPublicKeyInfo, nil
}

// Issue issues a client certificate for the key of csr (PEM) in the name of collector (a UUID). life 0 means [DefaultCertificateLife].
func (c *CA) Issue(csr []byte, collector string, now time.Time, life time.Duration) (certPEM []byte, notAfter time.Time, err error) {
	pub, _, err := ParseCSR(csr)
	if err != nil {
		return nil, time.Time{}, err
	}
	if life <= 0 {
		life = DefaultCertificateLife
	}
	serial, err := newSerial()
	if err != nil {
		return nil, time.Time{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: collector},
		URIs:         []*url.URL{{Scheme: "urn", Opaque: "uuid:" + collector}},
		NotBefore:    now.Add(-clockSlack).UTC(),
		NotAfter:     now.Add(life).UTC().Truncate(time.Second),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, c.cert, pub, c.key)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("issue certificate: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), t.NotAfter, nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func selfSignCA(k *ecdsa.PrivateKey, scheme string, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Collector authority", Organization: []string{scheme}},
		NotBefore:             now.Add(-clockSlack).UTC(),
		NotAfter:              now.AddDate(20, 0, 0).UTC(),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
}

func selfSignHub(k *ecdsa.PrivateKey, scheme string, hosts []string, now time.Time) (tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Tocsin hub", Organization: []string{scheme}},
		NotBefore:    now.Add(-clockSlack).UTC(),
		NotAfter:     now.AddDate(10, 0, 0).UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("hub certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("hub certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}, nil
}

func readCert(path string) (*x509.Certificate, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, _ := pem.Decode(b)
	if p == nil || p.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s is not a PEM certificate", path)
	}
	return x509.ParseCertificate(p.Bytes)
}

// A Peer is who a client certificate says is calling.
type Peer struct {
	Collector string    // UUID
	TLSKey    [32]byte  // SHA-256 of the certificate's SPKI
	NotAfter  time.Time // end of the certificate
}

// Identify says whose certificate cert is. An error is [ErrUnknownCertificate] or, with the Peer filled in, [ErrExpiredCertificate].
func Identify(cert, ca *x509.Certificate, now time.Time) (Peer, error) {
	// The chain is always of two, so the steps of x509.Verify that matter are spelled out: the expired must still be named, to be told.
	if err := cert.CheckSignatureFrom(ca); err != nil || cert.IsCA || len(cert.URIs) != 1 ||
		len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(cert.UnhandledCriticalExtensions) > 0 ||
		cert.URIs[0].String() != "urn:uuid:"+cert.Subject.CommonName {
		return Peer{}, ErrUnknownCertificate
	}
	p := Peer{Collector: cert.Subject.CommonName, TLSKey: sha256.Sum256(cert.RawSubjectPublicKeyInfo), NotAfter: cert.NotAfter}
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return p, fmt.Errorf("%w (%s)", ErrExpiredCertificate, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return p, nil
}
