package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Listener is the certificate that a collector shows to the devices of its own site. It has nothing to do with the scheme's keys: the site
// is its own authority here, or brings a certificate of its own.
type Listener struct {
	dir, cert, key string
	names          []string
	now            func() time.Time

	mu    sync.Mutex // guards what follows
	held  *tls.Certificate
	until time.Time // look at the files again after this
}

const (
	listenerLife   = 397 * 24 * time.Hour // more is refused by some devices
	listenerRenew  = 45 * 24 * time.Hour  // before the end
	listenerReload = time.Minute
)

// OpenListener makes what is missing in dir: authority.key and authority.crt (20 years; devices are given the latter), server.key and
// server.crt (about a year, made anew in time, and when names are added). names are the host names and addresses that devices are told.
func OpenListener(dir string, names []string, now func() time.Time) (*Listener, error) {
	l := &Listener{dir: dir, names: names, now: now}
	_, err := l.Certificate(nil)
	return l, err
}

// OpenListenerFiles takes a certificate (a PEM file, with the authorities between it and the root behind it) and its key (PEM). Both are
// read again when they change.
func OpenListenerFiles(cert, key string, now func() time.Time) (*Listener, error) {
	l := &Listener{cert: cert, key: key, now: now}
	_, err := l.Certificate(nil)
	return l, err
}

// Authority is the file that devices need to recognise the certificate; "" when it was brought.
func (l *Listener) Authority() string {
	if l.dir == "" {
		return ""
	}
	return filepath.Join(l.dir, "authority.crt")
}

// Fingerprint is the SHA-256 of the certificate in use, in hexadecimal, for devices that are told that.
func (l *Listener) Fingerprint() string {
	c, err := l.Certificate(nil)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(c.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// Certificate is for tls.Config.GetCertificate. While the files cannot be read the certificate before stays in use.
func (l *Listener) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.held != nil && now.Before(l.until) {
		return l.held, nil
	}
	l.until = now.Add(listenerReload)
	c, err := l.load(now)
	if err != nil {
		if l.held != nil {
			return l.held, nil
		}
		return nil, err
	}
	l.held = c
	return c, nil
}

func (l *Listener) load(now time.Time) (*tls.Certificate, error) {
	if l.dir == "" {
		c, err := tls.LoadX509KeyPair(l.cert, l.key)
		if err != nil {
			return nil, fmt.Errorf("certificate for listening: %w", err)
		}
		return &c, nil
	}
	c, err := l.made(now)
	if err != nil {
		return nil, fmt.Errorf("certificate for listening: %w", err)
	}
	return c, nil
}

// made gives the certificate in the folder, made anew when there is none that will do.
func (l *Listener) made(now time.Time) (*tls.Certificate, error) {
	if err := makeDir(l.dir); err != nil {
		return nil, err
	}
	authority, key := l.Authority(), filepath.Join(l.dir, "authority.key")
	if have, err := exists(authority); err != nil {
		return nil, err
	} else if !have {
		k, err := newECDSA()
		if err != nil {
			return nil, err
		}
		serial, err := newSerial()
		if err != nil {
			return nil, err
		}
		t := &x509.Certificate{
			SerialNumber: serial, Subject: pkix.Name{CommonName: "Tocsin collector, authority of this site"},
			NotBefore: now.Add(-clockSlack).UTC(), NotAfter: now.AddDate(20, 0, 0).UTC(),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, t, t, k.Public(), k)
		if err != nil {
			return nil, err
		}
		if err := writeKey(key, k); err != nil {
			return nil, err
		}
		if err := writeFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil { // last: without it all is begun anew
			return nil, err
		}
	}
	certFile, keyFile := filepath.Join(l.dir, "server.crt"), filepath.Join(l.dir, "server.key")
	ca, err := readCert(authority)
	if err != nil {
		return nil, err
	}
	if c, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && l.good(&c, ca, now) {
		return &c, nil
	}
	signer, err := readECDSA(key)
	if err != nil {
		return nil, err
	}
	k, err := newECDSA()
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Tocsin collector"},
		NotBefore: now.Add(-clockSlack).UTC(), NotAfter: now.Add(listenerLife).UTC(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range l.names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, k.Public(), signer)
	if err != nil {
		return nil, err
	}
	if err := writeKey(keyFile, k); err != nil {
		return nil, err
	}
	if err := writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}, nil
}

// good says whether a certificate may go on being used.
func (l *Listener) good(c *tls.Certificate, ca *x509.Certificate, now time.Time) bool {
	if c.Leaf == nil || c.Leaf.CheckSignatureFrom(ca) != nil || now.Before(c.Leaf.NotBefore) || now.Add(listenerRenew).After(c.Leaf.NotAfter) {
		return false
	}
	for _, n := range l.names {
		if c.Leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	return true
}

// ReadAuthorities reads the certificates in a PEM file: those whose clients are let in.
func ReadAuthorities(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(bytes.TrimSpace(b)) {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return p, nil
}
