package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/outbox"
)

// The headers of a webhook. The signature is "v1=" and the hex HMAC-SHA256, under the shared secret, of the timestamp, a full stop and the
// body. A receiver should refuse a timestamp more than SignatureWindow from its own clock and a delivery that it has seen.
const (
	HeaderDelivery  = "Tocsin-Delivery"
	HeaderTimestamp = "Tocsin-Timestamp" // Unix seconds
	HeaderSignature = "Tocsin-Signature"
)

// SignatureWindow is how far a webhook's timestamp may be from the receiver's clock.
const SignatureWindow = 5 * time.Minute

// Hook posts webhooks. Safe for concurrent use. It goes wherever the operator's configuration leads, inside the network too, where many a
// receiver is; nobody else can name an address, and no answer sends it elsewhere.
type Hook struct {
	secret []byte
	client http.Client
	now    func() time.Time
}

// NewHook makes a poster that signs with secret, which must have 16 bytes or more. now nil means time.Now.
func NewHook(secret []byte, now func() time.Time) (*Hook, error) {
	if len(secret) < 16 {
		return nil, errors.New("webhook secret: must have at least 16 bytes; `openssl rand -hex 32` makes a good one")
	}
	if now == nil {
		now = time.Now
	}
	return &Hook{secret: secret, now: now, client: http.Client{
		Timeout: 15 * time.Second,
		// A redirect would carry members' alerts to a place that nobody configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Run is the outbox handler of KindWebhook.
func (h *Hook) Run(ctx context.Context, e outbox.Entry) (string, error) {
	var p hookPayload
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return "", fmt.Errorf("%w: the entry cannot be read: %w", outbox.ErrPermanent, err)
	}
	body, err := json.Marshal(p.Message)
	if err != nil {
		return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, bare(err))
	}
	stamp := strconv.FormatInt(h.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tocsin")
	req.Header.Set(HeaderDelivery, e.Key)
	req.Header.Set(HeaderTimestamp, stamp)
	req.Header.Set(HeaderSignature, Sign(h.secret, stamp, body))
	resp, err := h.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("webhook to %s: %w", req.URL.Host, bare(err))
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // only for the operator to read; a cut answer is no fault
	switch {
	case resp.StatusCode/100 == 2:
		return fmt.Sprintf("%s answered %s", req.URL.Host, resp.Status), nil
	case resp.StatusCode == http.StatusGone:
		return "", fmt.Errorf("%w: %s answered %s: it wants no more", outbox.ErrPermanent, req.URL.Host, resp.Status)
	}
	return "", fmt.Errorf("%s answered %s: %s", req.URL.Host, resp.Status, oneLine(string(said), 200))
}

// bare is an error of a request without the address that net/http puts in front: its path may be a secret of the receiver's, and errors
// are kept and logged.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// Sign gives the value of HeaderSignature.
func Sign(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	io.WriteString(mac, timestamp+".")
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// VerifySignature is what a receiver does: it says whether the headers belong to the body and are fresh.
func VerifySignature(secret []byte, h http.Header, body []byte, now time.Time) error {
	stamp := h.Get(HeaderTimestamp)
	sec, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return errors.New("no timestamp")
	}
	if age := now.Sub(time.Unix(sec, 0)); age > SignatureWindow || age < -SignatureWindow {
		return errors.New("the timestamp is more than 5 minutes from now")
	}
	if !hmac.Equal([]byte(Sign(secret, stamp, body)), []byte(strings.TrimSpace(h.Get(HeaderSignature)))) {
		return errors.New("the signature does not match")
	}
	return nil
}
