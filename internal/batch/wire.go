package batch

import (
	"encoding/json"
	"time"
)

// The bodies of the gate's HTTP interface, for both its ends. Enrolment and renewal are in package keys.

// Ack answers POST /v1/batches with status 200.
type Ack struct {
	Receipt        json.RawMessage `json:"receipt"`              // DSSE envelope, see VerifyReceipt
	NextIntervalMS int             `json:"next_interval_ms"`     // wait this long before the next batch that is not urgent: 200 to 30,000
	Checkpoint     string          `json:"checkpoint,omitempty"` // the ledger's newest, a signed note; empty while there is none
	HubTime        time.Time       `json:"hub_time"`             // now, for measuring the clock's offset
}

// Head is where a stream stands at the hub: the last batch it holds.
type Head struct {
	Lane     Lane            `json:"lane"`
	Tenant   uint32          `json:"tenant"`
	Epoch    string          `json:"epoch"`
	Seq      uint64          `json:"seq,string"`
	Digest   string          `json:"digest"` // hexadecimal
	Created  time.Time       `json:"created"`
	Received time.Time       `json:"received"`
	Position string          `json:"position,omitempty"` // of that batch's manifest, verbatim
	Receipt  json.RawMessage `json:"receipt,omitempty"`  // of that batch
}

// Heads answers GET /v1/streams: every stream of the collector that asks, oldest first; empty for a new one.
type Heads struct {
	Streams []Head `json:"streams"`
}

// Directives answers GET /v1/directives: the signed directives that are for the collector that asks, each an envelope as it was signed, and
// the proof that the ledger's tree under Checkpoint holds each of them. The collector names the tree it saw last with the parameters origin
// and size; Consistency shows that Checkpoint's tree is that one with more added.
type Directives struct {
	Directives  []json.RawMessage `json:"directives"`
	Proofs      []Inclusion       `json:"proofs"` // of each of Directives, in the same order
	Checkpoint  string            `json:"checkpoint,omitempty"`
	Consistency [][]byte          `json:"consistency,omitempty"` // RFC 6962, 2.1.2; empty when nothing was seen, or the tree has not grown
}

// Inclusion shows that an envelope's SHA-256 is an entry of the ledger (RFC 6962, 2.1.1).
type Inclusion struct {
	Index  uint64   `json:"index,string"`
	Hashes [][]byte `json:"hashes"`
}

// Tree is a state of the ledger: its name, and how many entries it has. The zero Tree: none is known.
type Tree struct {
	Origin string
	Size   uint64
}

// Self answers GET /v1/self: what the hub knows of the collector that asks.
type Self struct {
	Collector     string    `json:"collector"`
	Tenant        uint32    `json:"tenant"`
	Organisation  string    `json:"organisation"`
	Site          string    `json:"site"`
	State         string    `json:"state"`          // quarantined, live or revoked
	PolicyCeiling string    `json:"policy_ceiling"` // the name of the widest policy agreed with the member
	NotAfter      time.Time `json:"not_after"`      // end of the certificate it came with
	HubTime       time.Time `json:"hub_time"`
	DailyTest     string    `json:"daily_test,omitempty"` // number of the test that the collector is to send through itself: 32 hexadecimal digits; empty: none
}

// Problem is the body of every refusal: application/problem+json (RFC 9457) with a code for programs, plain sentences for people, and what
// to do next.
type Problem struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Next   string `json:"next"`
	Head   *Head  `json:"head,omitempty"`           // with out_of_sequence and fork: where the stream stands
	Higher uint64 `json:"higher_than,omitempty"`    // with stale_counter: a renewal's counter must be higher than this
	Retry  int    `json:"retry_after_ms,omitempty"` // with every refusal that time heals
}

// Codes of problems that a collector acts on. The others are for people.
const (
	CodeFork          = "fork"            // 409: keep the batch, begin a new epoch
	CodeOutOfSequence = "out_of_sequence" // 409: resend from Head
	CodeBusy          = "busy"            // 503: the hub cannot take it now
	CodeTooFast       = "too_fast"        // 429
	CodeExpired       = "certificate_expired"
	CodeNoCert        = "certificate_missing"
	CodeUnknownCert   = "certificate_unknown"
	CodeRevoked       = "revoked"
	CodeStaleCounter  = "stale_counter"
)
