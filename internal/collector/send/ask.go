package send

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"tocsin/internal/batch"
	"tocsin/internal/keys"
)

// Statement fetches the hub's signed word on what it holds of this collector, and verifies it. envelope is as it was signed.
func (c *Client) Statement(ctx context.Context) (s batch.Statement, envelope []byte, err error) {
	_, b, err := c.do(ctx, http.MethodGet, "/v1/statement", "", nil, nil, maxAnswer)
	if err != nil {
		return s, nil, fmt.Errorf("ask for the hub's statement: %w", err)
	}
	if s, err = batch.VerifyStatement(b, c.trust.Load().Ed25519(keys.Receipts)...); err != nil {
		return s, b, err
	}
	if s.Collector != c.o.Collector {
		return s, b, fmt.Errorf("%w: it is about another collector", batch.ErrStatement)
	}
	return s, b, nil
}

// Directives fetches the signed directives for this collector, each an envelope that the caller verifies. etag is that of the answer before;
// changed is false when it is still the same.
func (c *Client) Directives(ctx context.Context, etag string) (envelopes [][]byte, newTag string, changed bool, err error) {
	b, newTag, changed, err := c.Directive(ctx, "/v1/directives", etag)
	if err != nil || !changed {
		return nil, newTag, false, err
	}
	var d batch.Directives
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, "", false, fmt.Errorf("fetch directives: the hub's answer is not understood: %w", err)
	}
	for _, e := range d.Directives {
		envelopes = append(envelopes, e)
	}
	return envelopes, newTag, true, nil
}
