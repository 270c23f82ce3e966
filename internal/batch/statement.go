package batch

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tocsin/internal/keys"
)

// StatementType is the DSSE payload type of a statement.
const StatementType = "application/vnd.tocsin.statement.v1+json"

// MaxStatement is the largest statement envelope, in bytes.
const MaxStatement = 1 << 20

// ErrStatement means that a statement is not valid.
var ErrStatement = errors.New("the hub's statement is not valid")

// Statement is the hub's signed word on what it holds of one collector: the answer to GET /v1/statement. The member compares it with the
// collector's own record. A stream's last digest stands for every batch before it, because each names the digest of the one before.
type Statement struct {
	Version   int               `json:"version"` // 1
	Collector string            `json:"collector"`
	Tenant    uint32            `json:"tenant"`
	HubTime   time.Time         `json:"hub_time"`
	Streams   []StatementStream `json:"streams"` // oldest first
	Batches   uint64            `json:"batches,string"`
	Events    uint64            `json:"events,string"`
}

// StatementStream is what the hub holds of one stream.
type StatementStream struct {
	Lane    Lane      `json:"lane"`
	Epoch   string    `json:"epoch"`
	Batches uint64    `json:"batches,string"` // the last one's number: they are numbered without gaps
	Events  uint64    `json:"events,string"`  // as the manifests counted them
	Digest  string    `json:"digest"`         // of the last batch, hexadecimal
	First   time.Time `json:"first"`          // when the first and last batch came
	Last    time.Time `json:"last"`
}

// SignStatement returns s in an envelope signed with the receipts key.
func SignStatement(s Statement, signer Signer) ([]byte, error) {
	s.Version, s.Batches, s.Events = 1, 0, 0
	for _, t := range s.Streams {
		s.Batches += t.Batches
		s.Events += t.Events
	}
	if s.Streams == nil {
		s.Streams = []StatementStream{}
	}
	p, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	env, err := signer.SignEnvelope(StatementType, p)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	return env, nil
}

// VerifyStatement opens a statement by one of pubs, the receipts keys of the trust list, and checks that its sums are those of its streams.
func VerifyStatement(envelope []byte, pubs ...ed25519.PublicKey) (Statement, error) {
	if len(envelope) > MaxStatement {
		return Statement{}, fmt.Errorf("%w: %d bytes, at most %d", ErrStatement, len(envelope), MaxStatement)
	}
	err := fmt.Errorf("%w: the trust list has no receipts key", keys.ErrSignature)
	var p []byte
	for _, pub := range pubs {
		if p, err = keys.OpenEnvelope(envelope, StatementType, pub); err == nil {
			break
		}
	}
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if err := CheckObject(p); err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	var s Statement
	if err := json.Unmarshal(p, &s); err != nil || s.Version != 1 {
		return Statement{}, fmt.Errorf("%w: version %d", ErrStatement, s.Version)
	}
	var batches, events uint64
	for _, t := range s.Streams {
		batches += t.Batches
		events += t.Events
	}
	if batches != s.Batches || events != s.Events {
		return Statement{}, fmt.Errorf("%w: its sums are not those of its streams", ErrStatement)
	}
	return s, nil
}
