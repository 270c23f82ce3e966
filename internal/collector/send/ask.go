package send

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

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

// Directives fetches the signed directives for this collector with the proofs that they stand in the hub's ledger; the caller verifies both.
// seen is the ledger's state that was seen last. etag is that of the answer before; changed is false when it is still the same.
func (c *Client) Directives(ctx context.Context, etag string, seen batch.Tree) (d batch.Directives, newTag string, changed bool, err error) {
	path := "/v1/directives"
	if seen.Origin != "" {
		path += "?" + url.Values{"origin": {seen.Origin}, "size": {strconv.FormatUint(seen.Size, 10)}}.Encode()
	}
	b, newTag, changed, err := c.Directive(ctx, path, etag)
	if err != nil || !changed {
		return d, newTag, false, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, "", false, fmt.Errorf("fetch directives: the hub's answer is not understood: %w", err)
	}
	return d, newTag, true, nil
}
