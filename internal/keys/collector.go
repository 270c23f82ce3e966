package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Payload types of what a collector signs before it has a certificate or without showing it.
const (
	EnrolType = "application/vnd.tocsin.enrol.v1+json"
	RenewType = "application/vnd.tocsin.renew.v1+json"
)

// MaxEnrol is the largest enrolment or renewal request, in bytes.
const MaxEnrol = 16 << 10

// Enrol is the signed body of POST /v1/enrol: a DSSE envelope by the batch key it carries. The CSR proves the TLS key.
type Enrol struct {
	Secret   []byte `json:"secret"`    // of the token, 16 bytes
	CSR      string `json:"csr"`       // PEM
	BatchKey []byte `json:"batch_key"` // SPKI
	Name     string `json:"name"`      // the machine's name, for people; at most 200 bytes
	Version  string `json:"version"`   // the collector program's version; at most 100 bytes
}

// Renew is the signed body of POST /v1/renew: a DSSE envelope by the registered batch key. Counter must be higher than in any renewal
// before, so that an old request cannot bring back an old TLS key; Unix seconds do, unless the clock went backwards.
type Renew struct {
	Collector string `json:"collector"`
	CSR       string `json:"csr"`
	Counter   uint64 `json:"counter,string"`
	Version   string `json:"version"`
}

// EnrolAnswer is the answer to both.
type EnrolAnswer struct {
	Collector    string    `json:"collector"` // UUIDv7 given by the hub
	Tenant       uint32    `json:"tenant"`
	Organisation string    `json:"organisation"`
	Site         string    `json:"site"`
	State        string    `json:"state"`       // quarantined or live
	Certificate  string    `json:"certificate"` // PEM
	NotAfter     time.Time `json:"not_after"`
}

// OpenEnrol verifies an enrolment request and returns it with the CSR's SPKI.
func OpenEnrol(envelope []byte) (*Enrol, []byte, error) {
	if len(envelope) > MaxEnrol {
		return nil, nil, fmt.Errorf("enrolment request: %d bytes, at most %d", len(envelope), MaxEnrol)
	}
	payload, err := PeekEnvelope(envelope, EnrolType)
	if err != nil {
		return nil, nil, fmt.Errorf("enrolment request: %w", err)
	}
	var e Enrol
	if err := decodeStrict(payload, &e, true); err != nil {
		return nil, nil, fmt.Errorf("enrolment request: %w", err)
	}
	pub, err := ParseSPKI(e.BatchKey)
	if err != nil {
		return nil, nil, fmt.Errorf("enrolment request: batch key: %w", err)
	}
	if _, err := OpenEnvelope(envelope, EnrolType, pub); err != nil {
		return nil, nil, fmt.Errorf("enrolment request: %w", err)
	}
	_, spki, err := ParseCSR([]byte(e.CSR))
	if err != nil {
		return nil, nil, fmt.Errorf("enrolment request: %w", err)
	}
	if len(e.Secret) != 16 || len(e.Name) > 200 || len(e.Version) > 100 {
		return nil, nil, errors.New("enrolment request: secret, name or version out of range")
	}
	return &e, spki, nil
}

// PeekRenew returns the collector that a renewal request claims to be from, before its key is known.
func PeekRenew(envelope []byte) (collector string, err error) {
	if len(envelope) > MaxEnrol {
		return "", fmt.Errorf("renewal request: %d bytes, at most %d", len(envelope), MaxEnrol)
	}
	payload, err := PeekEnvelope(envelope, RenewType)
	if err != nil {
		return "", fmt.Errorf("renewal request: %w", err)
	}
	var r Renew
	if err := decodeStrict(payload, &r, true); err != nil {
		return "", fmt.Errorf("renewal request: %w", err)
	}
	if len(r.Collector) > 64 {
		return "", errors.New("renewal request: the collector's id is too long")
	}
	return r.Collector, nil
}

// OpenRenew verifies a renewal request by the registered batch key and returns it with the CSR's SPKI.
func OpenRenew(envelope []byte, batchKey ed25519.PublicKey) (*Renew, []byte, error) {
	payload, err := OpenEnvelope(envelope, RenewType, batchKey)
	if err != nil {
		return nil, nil, fmt.Errorf("renewal request: %w", err)
	}
	var r Renew
	if err := decodeStrict(payload, &r, true); err != nil {
		return nil, nil, fmt.Errorf("renewal request: %w", err)
	}
	_, spki, err := ParseCSR([]byte(r.CSR))
	if err != nil {
		return nil, nil, fmt.Errorf("renewal request: %w", err)
	}
	if len(r.Version) > 100 {
		return nil, nil, errors.New("renewal request: version out of range")
	}
	return &r, spki, nil
}

const (
	batchKeyFile = "batch.key"
	tlsKeyFile   = "tls.key"
	tlsCertFile  = "tls.crt"
)

// ErrNotEnrolled means that a collector's folder holds no keys, or keys without a trust list.
var ErrNotEnrolled = errors.New("this collector has not been enrolled")

// Collector holds a collector's two keys. It is safe for concurrent use.
type Collector struct {
	dir   string
	batch *Signer
	tls   *ecdsa.PrivateKey
}

// CreateCollector opens the keys in dir, or makes them if there are none. It never replaces a key: trying an enrolment again after a crash
// uses the same ones.
func CreateCollector(dir string) (*Collector, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("create collector keys: %w", err)
	}
	for _, f := range []struct {
		name string
		make func() (any, error)
	}{
		{batchKeyFile, func() (any, error) { return newEd25519() }},
		{tlsKeyFile, func() (any, error) { return newECDSA() }},
	} {
		path := filepath.Join(dir, f.name)
		if ok, err := exists(path); err != nil {
			return nil, fmt.Errorf("create collector keys: %w", err)
		} else if ok {
			continue
		}
		k, err := f.make()
		if err != nil {
			return nil, fmt.Errorf("create collector keys: %w", err)
		}
		if err := writeKey(path, k); err != nil {
			return nil, fmt.Errorf("create collector keys: %w", err)
		}
	}
	return OpenCollector(dir)
}

// OpenCollector opens the keys in dir. [ErrNotEnrolled] if there are none.
func OpenCollector(dir string) (*Collector, error) {
	if err := checkMode(dir); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open collector keys: %w: there is no folder %s", ErrNotEnrolled, dir)
	} else if err != nil {
		return nil, fmt.Errorf("open collector keys: %w", err)
	}
	b, err := readEd25519(filepath.Join(dir, batchKeyFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open collector keys: %w: %s holds no keys", ErrNotEnrolled, dir)
	} else if err != nil {
		return nil, fmt.Errorf("open collector keys: %w", err)
	}
	t, err := readECDSA(filepath.Join(dir, tlsKeyFile))
	if err != nil {
		return nil, fmt.Errorf("open collector keys: %w", err)
	}
	return &Collector{dir: dir, batch: NewSigner(b), tls: t}, nil
}

// Batch returns the signer of batches, renewals and the enrolment.
func (c *Collector) Batch() *Signer { return c.batch }

// TLSSPKI returns the SPKI of the TLS key.
func (c *Collector) TLSSPKI() []byte {
	der, err := x509.MarshalPKIXPublicKey(c.tls.Public())
	if err != nil {
		panic(err) // a P-256 key that was read or made can be marshalled
	}
	return der
}

// CheckWords returns the words this collector shows while it is in quarantine.
func (c *Collector) CheckWords(root [32]byte) [4]string {
	return CheckWords(SPKI(c.batch.Public()), c.TLSSPKI(), root)
}

func (c *Collector) csr() (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "tocsin-collector"}}, c.tls)
	if err != nil {
		return "", fmt.Errorf("certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// EnrolRequest returns the body of POST /v1/enrol. Send it only over [ClientConfig] with a trust list from [FetchTrust].
func (c *Collector) EnrolRequest(secret [16]byte, name, version string) ([]byte, error) {
	csr, err := c.csr()
	if err != nil {
		return nil, err
	}
	p, err := json.Marshal(Enrol{Secret: secret[:], CSR: csr, BatchKey: SPKI(c.batch.Public()), Name: name, Version: version})
	if err != nil {
		return nil, err
	}
	return c.batch.SignEnvelope(EnrolType, p)
}

// RenewRequest returns the body of POST /v1/renew. counter must rise; see [Renew].
func (c *Collector) RenewRequest(collector, version string, counter uint64) ([]byte, error) {
	csr, err := c.csr()
	if err != nil {
		return nil, err
	}
	p, err := json.Marshal(Renew{Collector: collector, CSR: csr, Counter: counter, Version: version})
	if err != nil {
		return nil, err
	}
	return c.batch.SignEnvelope(RenewType, p)
}

// SaveCertificate checks that certPEM is for this collector's TLS key and writes it.
func (c *Collector) SaveCertificate(certPEM []byte) error {
	if _, err := c.parseCertificate(certPEM); err != nil {
		return fmt.Errorf("save certificate: %w", err)
	}
	if err := writeFile(filepath.Join(c.dir, tlsCertFile), certPEM); err != nil {
		return fmt.Errorf("save certificate: %w", err)
	}
	return nil
}

// Certificate returns the certificate last saved, expired or not, ready for [ClientConfig]. The error is [ErrNotEnrolled] if there is none.
func (c *Collector) Certificate() (*tls.Certificate, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, tlsCertFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("collector certificate: %w", ErrNotEnrolled)
	} else if err != nil {
		return nil, fmt.Errorf("collector certificate: %w", err)
	}
	cert, err := c.parseCertificate(b)
	if err != nil {
		return nil, fmt.Errorf("collector certificate: %w", err)
	}
	return cert, nil
}

func (c *Collector) parseCertificate(certPEM []byte) (*tls.Certificate, error) {
	p, _ := pem.Decode(certPEM)
	if p == nil || p.Type != "CERTIFICATE" {
		return nil, errors.New("not a PEM certificate")
	}
	leaf, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, c.TLSSPKI()) {
		return nil, errors.New("it is for another key")
	}
	return &tls.Certificate{Certificate: [][]byte{p.Bytes}, PrivateKey: c.tls, Leaf: leaf}, nil
}

// SaveTrust writes the trust list, durable on return.
func (c *Collector) SaveTrust(t *Trust) error {
	if err := writeFile(filepath.Join(c.dir, trustFile), t.Bundle); err != nil {
		return fmt.Errorf("save trust list: %w", err)
	}
	return nil
}

// Trust reads the trust list last saved. The error is [ErrNotEnrolled] if there is none.
func (c *Collector) Trust() (*Trust, error) {
	t, err := ReadTrust(c.dir)
	if errors.Is(err, ErrNoScheme) {
		return nil, fmt.Errorf("collector trust list: %w", ErrNotEnrolled)
	} else if err != nil {
		return nil, fmt.Errorf("collector trust list: %w", err)
	}
	return t, nil
}
