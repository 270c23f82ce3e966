package send

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
)

// Options say who speaks with whom.
type Options struct {
	Address   string // host:port of the gate
	Collector string // id given at enrolment
	Version   string // of this program
	Keys      *keys.Collector
	Now       func() time.Time
	Timeout   time.Duration // for one request; default 30 s
}

// Client is a connection to the gate. It is safe for concurrent use.
type Client struct {
	o     Options
	http  *http.Client
	trust atomic.Pointer[keys.Trust]
	cert  atomic.Pointer[tls.Certificate]
	renew sync.Mutex // one renewal at a time
}

const (
	maxAnswer    = 1 << 20
	maxDirective = 64 << 20 // an indicator set with its envelope
)

// New opens the connection's keys. The error is keys.ErrNotEnrolled when there are none.
func New(o Options) (*Client, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	c := &Client{o: o}
	trust, err := o.Keys.Trust()
	if err != nil {
		return nil, err
	}
	c.trust.Store(trust)
	cert, err := o.Keys.Certificate()
	if err != nil {
		return nil, err
	}
	c.cert.Store(cert)
	c.http = newHTTP(c.trust.Load, c.cert.Load)
	return c, nil
}

func newHTTP(trust func() *keys.Trust, cert func() *tls.Certificate) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       keys.ClientConfig(trust, cert),
			TLSHandshakeTimeout:   20 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			MaxIdleConns:          4,
			MaxIdleConnsPerHost:   4,
			IdleConnTimeout:       90 * time.Second,
			DisableCompression:    true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Trust is the trust list in force.
func (c *Client) Trust() *keys.Trust { return c.trust.Load() }

// NotAfter is the end of the certificate in use.
func (c *Client) NotAfter() time.Time { return c.cert.Load().Leaf.NotAfter }

// Problem is a refusal by the hub.
type Problem struct {
	Status int
	batch.Problem
}

// Error is the hub's sentence and its advice.
func (p *Problem) Error() string {
	s := strings.TrimRight(p.Title, ".")
	if s == "" {
		s = fmt.Sprintf("the hub answered with status %d", p.Status)
	}
	if p.Detail != "" {
		s += ". " + p.Detail
	}
	if p.Next != "" {
		s += " " + p.Next
	}
	return s
}

// After is how long the hub asks to wait; 0: it did not say.
func (p *Problem) After() time.Duration { return time.Duration(p.Retry) * time.Millisecond }

// Temporary says whether time alone may heal the refusal.
func (p *Problem) Temporary() bool {
	return p.Retry > 0 || p.Status >= 500 || p.Status == http.StatusTooManyRequests || p.Code == batch.CodeBusy || p.Code == batch.CodeTooFast
}

// CodeOf is the problem code of an error, "" when it is no refusal.
func CodeOf(err error) string {
	var p *Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, header http.Header, limit int64) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	return roundTrip(ctx, c.http, method, "https://"+c.o.Address+path, contentType, body, header, limit)
}

func roundTrip(ctx context.Context, client *http.Client, method, url, contentType string, body []byte, header http.Header, limit int64) (*http.Response, []byte, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the hub's answer: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, nil, fmt.Errorf("the hub's answer is longer than %d bytes", limit)
	}
	if res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNotModified {
		return res, b, nil
	}
	p := &Problem{Status: res.StatusCode}
	if json.Unmarshal(b, &p.Problem) != nil {
		p.Problem = batch.Problem{}
	}
	if p.Title == "" {
		p.Title = "the hub answered " + res.Status
	}
	return nil, nil, p
}

// Refused says whether the hub broke off the handshake because of our certificate: it has been revoked, or has expired. The alert's type
// is not exported by crypto/tls, so its text is looked at: all alerts about a certificate name it (RFC 8446, 6.2).
func Refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// Ack is what the hub says to a batch it holds.
type Ack struct {
	Receipt    batch.Receipt
	Envelope   []byte        // the receipt as signed
	Interval   time.Duration // wait this long before the next batch that is not urgent
	Checkpoint string
	Offset     time.Duration // hub's clock minus ours, half the round trip allowed for
}

// Bounds of the pace that a hub may ask for.
const (
	MinInterval = 200 * time.Millisecond
	MaxInterval = 30 * time.Second
)

// ErrWrongReceipt means that the hub's receipt is not for the batch that was sent. The batch counts as not received.
var ErrWrongReceipt = errors.New("the hub's receipt is not for this batch")

// Submit sends one submission of the stream's batch seq. It returns when the hub has confirmed that it holds exactly those bytes.
func (c *Client) Submit(ctx context.Context, stream batch.Stream, seq uint64, submission []byte) (Ack, error) {
	envelope, _, err := batch.SplitSubmission(submission)
	if err != nil {
		return Ack{}, err
	}
	began := c.o.Now()
	_, b, err := c.do(ctx, http.MethodPost, "/v1/batches", "application/vnd.tocsin.batch", submission, nil, maxAnswer)
	if err != nil {
		return Ack{}, fmt.Errorf("send batch: %w", err)
	}
	ended := c.o.Now()
	var w batch.Ack
	if err := json.Unmarshal(b, &w); err != nil {
		return Ack{}, fmt.Errorf("send batch: the hub's answer is not understood: %w", err)
	}
	r, err := batch.VerifyReceipt(w.Receipt, c.trust.Load().Ed25519(keys.Receipts)...)
	if err != nil {
		return Ack{}, fmt.Errorf("send batch: %w", err)
	}
	if r.Stream != stream.ID() || r.Seq != seq || r.Digest != sha256.Sum256(envelope) {
		return Ack{}, fmt.Errorf("send batch: %w", ErrWrongReceipt)
	}
	a := Ack{Receipt: r, Envelope: bytes.Clone(w.Receipt), Checkpoint: w.Checkpoint,
		Interval: min(max(time.Duration(w.NextIntervalMS)*time.Millisecond, MinInterval), MaxInterval)}
	if !w.HubTime.IsZero() {
		a.Offset = w.HubTime.Sub(began.Add(ended.Sub(began) / 2))
	}
	return a, nil
}

// Heads asks where this collector's streams stand at the hub.
func (c *Client) Heads(ctx context.Context) ([]batch.Head, error) {
	_, b, err := c.do(ctx, http.MethodGet, "/v1/streams", "", nil, nil, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("ask for streams: %w", err)
	}
	var h batch.Heads
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("ask for streams: the hub's answer is not understood: %w", err)
	}
	for i := range h.Streams {
		if d, err := hex.DecodeString(h.Streams[i].Digest); err != nil || len(d) != 32 {
			return nil, errors.New("ask for streams: a digest in the hub's answer is not one")
		}
	}
	return h.Streams, nil
}

// Self asks what the hub knows of this collector. With test it also asks for the daily test that is due, which the hub then awaits: only who sends it may ask.
func (c *Client) Self(ctx context.Context, test bool) (batch.Self, error) {
	path := "/v1/self"
	if test {
		path += "?daily=1"
	}
	_, b, err := c.do(ctx, http.MethodGet, path, "", nil, nil, maxAnswer)
	if err != nil {
		return batch.Self{}, fmt.Errorf("ask for state: %w", err)
	}
	var s batch.Self
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("ask for state: the hub's answer is not understood: %w", err)
	}
	return s, nil
}

// Directive fetches a signed directive, such as /v1/indicators. etag is that of the one held; changed is false when it is still the newest.
// The caller verifies the envelope.
func (c *Client) Directive(ctx context.Context, path, etag string) (envelope []byte, newTag string, changed bool, err error) {
	header := http.Header{}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	res, b, err := c.do(ctx, http.MethodGet, path, "", nil, header, maxDirective)
	if err != nil {
		return nil, "", false, fmt.Errorf("fetch %s: %w", path, err)
	}
	if res.StatusCode == http.StatusNotModified {
		return nil, etag, false, nil
	}
	return b, res.Header.Get("ETag"), true, nil
}

// RefreshTrust fetches the trust list and keeps it when it is newer. A lower version, or one that does not descend from the list held, is
// refused.
func (c *Client) RefreshTrust(ctx context.Context) error {
	held := c.trust.Load()
	t, err := keys.FetchTrust(ctx, c.o.Address, held.RootFingerprint(), held)
	if err != nil {
		return err
	}
	if bytes.Equal(t.Bundle, held.Bundle) {
		return nil
	}
	if err := c.o.Keys.SaveTrust(t); err != nil {
		return err
	}
	c.trust.Store(t)
	return nil
}

// RenewDue says whether the certificate's first half has passed.
func (c *Client) RenewDue() bool {
	leaf := c.cert.Load().Leaf
	return !c.o.Now().Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2))
}

// Renew gets a new certificate for the same key. It needs no valid certificate: the request is signed by the batch key.
func (c *Client) Renew(ctx context.Context) error {
	c.renew.Lock()
	defer c.renew.Unlock()
	counter := uint64(max(c.o.Now().Unix(), 1))
	for range 2 {
		req, err := c.o.Keys.RenewRequest(c.o.Collector, c.o.Version, counter)
		if err != nil {
			return fmt.Errorf("renew certificate: %w", err)
		}
		// Without the old certificate: an expired one may not be shown.
		bare := newHTTP(c.trust.Load, func() *tls.Certificate { return nil })
		ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
		_, b, err := roundTrip(ctx, bare, http.MethodPost, "https://"+c.o.Address+"/v1/renew", "application/json", req, nil, maxAnswer)
		cancel()
		bare.CloseIdleConnections()
		var p *Problem
		if errors.As(err, &p) && p.Code == batch.CodeStaleCounter && p.Higher >= counter { // our clock went backwards
			counter = p.Higher + 1
			continue
		}
		if err != nil {
			return fmt.Errorf("renew certificate: %w", err)
		}
		var a keys.EnrolAnswer
		if err := json.Unmarshal(b, &a); err != nil {
			return fmt.Errorf("renew certificate: the hub's answer is not understood: %w", err)
		}
		if a.Collector != c.o.Collector {
			return errors.New("renew certificate: the hub answered for another collector")
		}
		if err := c.o.Keys.SaveCertificate([]byte(a.Certificate)); err != nil {
			return fmt.Errorf("renew certificate: %w", err)
		}
		cert, err := c.o.Keys.Certificate()
		if err != nil {
			return fmt.Errorf("renew certificate: %w", err)
		}
		c.cert.Store(cert)
		c.http.CloseIdleConnections() // the next handshake shows the new one
		return nil
	}
	return errors.New("renew certificate: the hub refused the counter twice")
}

// Enrolment is what a collector remembers of having joined.
type Enrolment struct {
	Address      string    `json:"address"`
	Root         string    `json:"root"` // hexadecimal fingerprint
	Collector    string    `json:"collector"`
	Tenant       uint32    `json:"tenant"`
	Organisation string    `json:"organisation"`
	Site         string    `json:"site"`
	State        string    `json:"state"`
	Enrolled     time.Time `json:"enrolled"`
	CheckWords   []string  `json:"check_words"`
}

// Enrol joins the scheme: it checks the hub against the token's fingerprint before it sends the secret, makes the keys in keyDir if there
// are none, and saves trust list and certificate there.
func Enrol(ctx context.Context, token keys.Token, keyDir, name, version string, now time.Time) (Enrolment, error) {
	k, err := keys.CreateCollector(keyDir)
	if err != nil {
		return Enrolment{}, err
	}
	trust, err := keys.FetchTrust(ctx, token.Address, token.Root, nil)
	if err != nil {
		return Enrolment{}, err
	}
	req, err := k.EnrolRequest(token.Secret, name, version)
	if err != nil {
		return Enrolment{}, fmt.Errorf("enrol: %w", err)
	}
	client := newHTTP(func() *keys.Trust { return trust }, func() *tls.Certificate { return nil })
	defer client.CloseIdleConnections()
	_, b, err := roundTrip(ctx, client, http.MethodPost, "https://"+token.Address+"/v1/enrol", "application/json", req, nil, maxAnswer)
	if err != nil {
		return Enrolment{}, fmt.Errorf("enrol: %w", err)
	}
	var a keys.EnrolAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return Enrolment{}, fmt.Errorf("enrol: the hub's answer is not understood: %w", err)
	}
	if err := k.SaveTrust(trust); err != nil {
		return Enrolment{}, err
	}
	if err := k.SaveCertificate([]byte(a.Certificate)); err != nil {
		return Enrolment{}, err
	}
	root := trust.RootFingerprint() // not the token's: the root may have been rotated since the token was made
	words := k.CheckWords(root)
	return Enrolment{Address: token.Address, Root: hex.EncodeToString(root[:]), Collector: a.Collector, Tenant: a.Tenant, Organisation: a.Organisation, Site: a.Site,
		State: a.State, Enrolled: now.UTC(), CheckWords: words[:]}, nil
}

// MaxBackoff is the longest wait between two attempts to reach the hub.
const MaxBackoff = time.Minute

// Backoff is how long to wait before the attempt-th retry (from 0): full jitter over a span that doubles from half a second up to longest,
// so that thousands of collectors do not come back at once. asked is what the hub asked for, if it did.
func Backoff(attempt int, asked, longest time.Duration) time.Duration {
	span := longest
	if attempt < 7 {
		span = min(500*time.Millisecond<<max(attempt, 0), longest)
	}
	d := time.Duration(rand.Int64N(int64(max(span, 1))))
	if asked > 0 {
		d = min(asked, longest) + d/4
	}
	return d
}
