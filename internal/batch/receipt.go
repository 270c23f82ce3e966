package batch

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// ReceiptType is the DSSE payload type of a receipt.
const ReceiptType = "application/vnd.tocsin.receipt.v1+json"

// MaxReceipt is the largest receipt envelope, in bytes.
const MaxReceipt = 4096

// ErrReceipt means that a receipt is not valid.
var ErrReceipt = errors.New("the receipt is not valid")

// A Receipt is the hub's signed word that it holds a batch durably. The same batch always gets the same receipt: the hub time is when it
// first came. The ledger's newest checkpoint travels beside it (see [Ack]); it is signed itself.
type Receipt struct {
	Stream  event.StreamID
	Seq     uint64
	Digest  [32]byte
	HubTime time.Time // UTC
}

type wireReceipt struct {
	Version int    `json:"version"`
	Stream  string `json:"stream"`
	Seq     string `json:"seq"`
	Digest  string `json:"digest"`
	HubTime string `json:"hub_time"`
}

// SignReceipt returns r in an envelope signed with the receipts key.
func SignReceipt(r Receipt, s Signer) ([]byte, error) {
	p, err := json.Marshal(wireReceipt{Version: 1, Stream: hex.EncodeToString(r.Stream[:]), Seq: strconv.FormatUint(r.Seq, 10), Digest: hex.EncodeToString(r.Digest[:]),
		HubTime: r.HubTime.UTC().Format(time.RFC3339Nano)})
	if err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	env, err := s.SignEnvelope(ReceiptType, p)
	if err != nil {
		return nil, fmt.Errorf("sign receipt: %w", err)
	}
	return env, nil
}

// VerifyReceipt opens a receipt by one of pubs: the receipts keys of the trust list, retired ones included.
func VerifyReceipt(envelope []byte, pubs ...ed25519.PublicKey) (Receipt, error) {
	if len(envelope) > MaxReceipt {
		return Receipt{}, fmt.Errorf("verify receipt: %w: %d bytes, at most %d", ErrReceipt, len(envelope), MaxReceipt)
	}
	err := fmt.Errorf("%w: the trust list has no receipts key", keys.ErrSignature)
	var p []byte
	for _, pub := range pubs {
		if p, err = keys.OpenEnvelope(envelope, ReceiptType, pub); err == nil {
			break
		}
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("verify receipt: %w", err)
	}
	var w wireReceipt
	if err := CheckObject(p); err != nil {
		return Receipt{}, fmt.Errorf("verify receipt: %w: %w", ErrReceipt, err)
	}
	if err := json.Unmarshal(p, &w); err != nil || w.Version != 1 {
		return Receipt{}, fmt.Errorf("verify receipt: %w: version %d", ErrReceipt, w.Version)
	}
	stream, err1 := hex.DecodeString(w.Stream)
	digest, err2 := hex.DecodeString(w.Digest)
	seq, err3 := strconv.ParseUint(w.Seq, 10, 64)
	at, err4 := time.Parse(time.RFC3339Nano, w.HubTime)
	if err := errors.Join(err1, err2, err3, err4); err != nil || len(stream) != 16 || len(digest) != 32 {
		return Receipt{}, fmt.Errorf("verify receipt: %w", ErrReceipt)
	}
	return Receipt{Stream: event.StreamID(stream), Seq: seq, Digest: [32]byte(digest), HubTime: at.UTC()}, nil
}
