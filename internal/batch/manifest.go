package batch

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Type is the DSSE payload type of a manifest.
const Type = "application/vnd.tocsin.batch.v1+json"

// Limits. A batch over any of them is refused.
const (
	MaxCompressed = 1 << 20   // bytes of the body as sent
	MaxExpanded   = 16 << 20  // bytes of the body decompressed, salt line included
	MaxEvents     = 10_000    // events in a body
	MaxLine       = 512 << 10 // bytes of one event
	MaxEnvelope   = 64 << 10  // bytes of the manifest's envelope
	MaxWindow     = 8 << 20   // bytes of the zstd window
	MaxSubmission = MaxEnvelope + 1 + MaxCompressed

	maxCounts     = 256
	maxCountName  = 80
	maxText       = 200
	maxCheckpoint = 4096
	maxPosition   = 2048
	maxSafeInt    = 1<<53 - 1 // RFC 7493, section 2.2
)

// Reasons for refusing a batch. Signature and envelope errors are those of package keys.
var (
	ErrTooBig     = errors.New("the batch is over its limit")
	ErrSubmission = errors.New("not an envelope, a newline and a body")
	ErrManifest   = errors.New("the manifest is not valid")
	ErrVersion    = errors.New("the manifest is of a version this program does not know")
	ErrCrit       = errors.New("the manifest asks for something this program does not understand")
	ErrBodyDigest = errors.New("the body is not the one the manifest signs")
	ErrFrame      = errors.New("the body is not one zstd frame within its limits")
	ErrBody       = errors.New("the body's lines are not as the manifest says")
	ErrRoot       = errors.New("the events do not give the root that the manifest signs")
)

// A Lane separates what must not wait for each other.
type Lane string

// The lanes.
const (
	Live     Lane = "live"     // as it happens
	Backlog  Lane = "backlog"  // what an outage held back
	LookBack Lane = "lookback" // answers to questions about the past
	Raw      Lane = "raw"      // raw lines given under authority
)

// Lanes lists them all.
var Lanes = []Lane{Live, Backlog, LookBack, Raw}

// A Stream is what has its own numbered chain of batches.
type Stream struct {
	Collector string         // UUIDv7, given at enrolment
	Tenant    event.TenantID // whose events: a relay has a stream for each member
	Lane      Lane
	Epoch     string // 32 hexadecimal digits, random; new after any restore or doubt
}

// ID is the first 16 bytes of the SHA-256 over "tocsin-stream-v1", collector, tenant in decimal, lane and epoch, each ended by a newline.
func (s Stream) ID() event.StreamID {
	sum := sha256.Sum256(fmt.Appendf(nil, "tocsin-stream-v1\n%s\n%d\n%s\n%s\n", s.Collector, s.Tenant, s.Lane, s.Epoch))
	return event.StreamID(sum[:16])
}

// Validate says whether the fields are of their forms.
func (s Stream) Validate() error {
	switch {
	case !isUUID(s.Collector):
		return errors.New("the collector is not a UUID")
	case s.Tenant == 0:
		return errors.New("the tenant is missing")
	case !slices.Contains(Lanes, s.Lane):
		return fmt.Errorf("there is no lane %.20q", string(s.Lane))
	case len(s.Epoch) != 32 || !isHex(s.Epoch):
		return errors.New("the epoch is not 32 hexadecimal digits")
	}
	return nil
}

// Manifest is what a collector signs of each batch. Counts are deltas since the stream's previous batch, so that they add up along the
// stream: received, parsed, not_understood, kept.REASON, left.REASON, sent, dropped.REASON.
type Manifest struct {
	Version          int // 1
	Stream           Stream
	Seq              uint64    // from 1, without gaps
	Prev             [32]byte  // Digest of the batch before; of batch 1, LastReceipt
	LastReceipt      [32]byte  // batch 1 only: SHA-256 of the newest receipt envelope the collector holds from an earlier epoch; zero if none
	Created          time.Time // UTC, by the collector's clock
	CollectorVersion string
	PolicyDigest     string
	ParserPack       string
	RulePack         string
	IndicatorSet     string
	ClockOffset      time.Duration // hub's clock minus the collector's, as last measured
	Checkpoint       string        // the last ledger checkpoint seen, whole; empty if none
	Position         string        // the collector's own note of what it has sealed, given back to it with the stream's head; at most 2 KiB
	Counts           map[string]uint64
	Events           int
	BodySize         int // bytes compressed
	Expanded         int // bytes decompressed
	BodySHA256       [32]byte
	Root             [32]byte // RFC 6962 tree head over the events
	Urgent           bool     // sent at once, not at the next interval
	Crit             []string // members a reader must understand
}

// wire is the manifest as JSON. It may gain members; none changes its meaning.
type wire struct {
	Version          int               `json:"version"`
	Collector        string            `json:"collector"`
	Tenant           uint32            `json:"tenant"`
	Lane             string            `json:"lane"`
	Epoch            string            `json:"epoch"`
	Seq              string            `json:"seq"`
	Prev             string            `json:"prev"`
	LastReceipt      string            `json:"last_receipt,omitempty"`
	Created          string            `json:"created"`
	CollectorVersion string            `json:"collector_version"`
	PolicyDigest     string            `json:"policy_digest"`
	ParserPack       string            `json:"parser_pack"`
	RulePack         string            `json:"rule_pack"`
	IndicatorSet     string            `json:"indicator_set"`
	ClockOffset      string            `json:"clock_offset_ns"`
	Checkpoint       string            `json:"checkpoint,omitempty"`
	Position         string            `json:"position,omitempty"`
	Counts           map[string]uint64 `json:"counts"`
	Events           int               `json:"events"`
	BodySize         int               `json:"body_size"`
	Expanded         int               `json:"expanded"`
	BodySHA256       string            `json:"body_sha256"`
	Root             string            `json:"root"`
	Urgent           bool              `json:"urgent,omitempty"`
	Crit             []string          `json:"crit,omitempty"`
}

var known = []string{"version", "collector", "tenant", "lane", "epoch", "seq", "prev", "last_receipt", "created", "collector_version", "policy_digest",
	"parser_pack", "rule_pack", "indicator_set", "clock_offset_ns", "checkpoint", "position", "counts", "events", "body_size", "expanded", "body_sha256", "root", "urgent", "crit"}

func (m *Manifest) encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	w := wire{
		Version: m.Version, Collector: m.Stream.Collector, Tenant: uint32(m.Stream.Tenant), Lane: string(m.Stream.Lane), Epoch: m.Stream.Epoch,
		Seq: strconv.FormatUint(m.Seq, 10), Prev: hex.EncodeToString(m.Prev[:]), Created: m.Created.UTC().Format(time.RFC3339Nano),
		CollectorVersion: m.CollectorVersion, PolicyDigest: m.PolicyDigest, ParserPack: m.ParserPack, RulePack: m.RulePack, IndicatorSet: m.IndicatorSet,
		ClockOffset: strconv.FormatInt(int64(m.ClockOffset), 10), Checkpoint: m.Checkpoint, Position: m.Position, Counts: m.Counts, Events: m.Events, BodySize: m.BodySize,
		Expanded: m.Expanded, BodySHA256: hex.EncodeToString(m.BodySHA256[:]), Root: hex.EncodeToString(m.Root[:]), Urgent: m.Urgent, Crit: m.Crit,
	}
	if m.LastReceipt != [32]byte{} {
		w.LastReceipt = hex.EncodeToString(m.LastReceipt[:])
	}
	if w.Counts == nil {
		w.Counts = map[string]uint64{}
	}
	return json.Marshal(w)
}

func decodeManifest(payload []byte) (Manifest, error) {
	var m Manifest
	if err := CheckObject(payload); err != nil {
		return m, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return m, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	for k := range members {
		// encoding/json would take "Seq" for "seq", and so "\u017feq" (a long s), which folds to the same; another reader would not. They must
		// not read different manifests.
		if slices.ContainsFunc(known, func(name string) bool { return name != k && strings.EqualFold(name, k) }) {
			return m, fmt.Errorf("%w: member %.40q is misspelled", ErrManifest, k)
		}
	}
	var w wire
	if err := json.Unmarshal(payload, &w); err != nil {
		var v struct {
			Version int `json:"version"`
		}
		if json.Unmarshal(payload, &v) == nil && v.Version > 1 {
			return m, fmt.Errorf("%w: version %d", ErrVersion, v.Version)
		}
		return m, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if w.Version != 1 {
		return m, fmt.Errorf("%w: version %d", ErrVersion, w.Version)
	}
	for _, c := range w.Crit {
		if _, ok := members[c]; !ok || !slices.Contains(known, c) {
			return m, fmt.Errorf("%w: %.80q", ErrCrit, c)
		}
	}
	m = Manifest{
		Version: w.Version, Stream: Stream{Collector: w.Collector, Tenant: event.TenantID(w.Tenant), Lane: Lane(w.Lane), Epoch: w.Epoch},
		CollectorVersion: w.CollectorVersion, PolicyDigest: w.PolicyDigest, ParserPack: w.ParserPack, RulePack: w.RulePack, IndicatorSet: w.IndicatorSet,
		Checkpoint: w.Checkpoint, Position: w.Position, Counts: w.Counts, Events: w.Events, BodySize: w.BodySize, Expanded: w.Expanded, Urgent: w.Urgent, Crit: w.Crit,
	}
	var err error
	if m.Seq, err = strconv.ParseUint(w.Seq, 10, 64); err != nil {
		return m, fmt.Errorf("%w: seq is not a number", ErrManifest)
	}
	if m.Created, err = time.Parse(time.RFC3339Nano, w.Created); err != nil {
		return m, fmt.Errorf("%w: created is not an RFC 3339 time", ErrManifest)
	}
	m.Created = m.Created.UTC()
	off, err := strconv.ParseInt(w.ClockOffset, 10, 64)
	if err != nil {
		return m, fmt.Errorf("%w: clock_offset_ns is not a number", ErrManifest)
	}
	m.ClockOffset = time.Duration(off)
	for _, d := range []struct {
		name, text string
		dst        *[32]byte
		optional   bool
	}{{"prev", w.Prev, &m.Prev, false}, {"last_receipt", w.LastReceipt, &m.LastReceipt, true}, {"body_sha256", w.BodySHA256, &m.BodySHA256, false}, {"root", w.Root, &m.Root, false}} {
		if d.text == "" && d.optional {
			continue
		}
		if len(d.text) != 64 || !isHex(d.text) {
			return m, fmt.Errorf("%w: %s is not 64 hexadecimal digits", ErrManifest, d.name)
		}
		if _, err := hex.Decode(d.dst[:], []byte(d.text)); err != nil {
			return m, fmt.Errorf("%w: %s: %w", ErrManifest, d.name, err)
		}
	}
	return m, m.validate()
}

// validate is the same for writer and reader, so that no collector seals what the gate would refuse.
func (m *Manifest) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrManifest, fmt.Sprintf(format, args...))
	}
	if m.Version != 1 {
		return fmt.Errorf("%w: version %d", ErrVersion, m.Version)
	}
	if err := m.Stream.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if m.Seq == 0 {
		return bad("seq starts at 1")
	}
	if m.Seq == 1 && m.Prev != m.LastReceipt {
		return bad("the first batch's prev must be its last_receipt")
	}
	if m.Seq > 1 && m.LastReceipt != [32]byte{} {
		return bad("last_receipt is for the first batch of an epoch only")
	}
	if y := m.Created.Year(); y < 1970 || y > 2262 {
		return bad("created is out of range")
	}
	if m.Events < 0 || m.BodySize < 0 || m.Expanded < 0 {
		return bad("a size is negative")
	}
	if m.Events > MaxEvents || m.BodySize > MaxCompressed || m.Expanded > MaxExpanded {
		return fmt.Errorf("%w: %d events of at most %d, %d bytes compressed of at most %d, %d expanded of at most %d",
			ErrTooBig, m.Events, MaxEvents, m.BodySize, MaxCompressed, m.Expanded, MaxExpanded)
	}
	if len(m.Counts) > maxCounts {
		return bad("%d counts, at most %d", len(m.Counts), maxCounts)
	}
	for k, v := range m.Counts {
		if !countName(k) {
			return bad("%.80q is not the name of a count", k)
		}
		if v > maxSafeInt {
			return bad("count %s is out of range", k)
		}
	}
	for _, s := range []string{m.CollectorVersion, m.PolicyDigest, m.ParserPack, m.RulePack, m.IndicatorSet} {
		if len(s) > maxText {
			return bad("a text is longer than %d bytes", maxText)
		}
	}
	if len(m.Checkpoint) > maxCheckpoint {
		return bad("the checkpoint is longer than %d bytes", maxCheckpoint)
	}
	if len(m.Position) > maxPosition {
		return bad("the position is longer than %d bytes", maxPosition)
	}
	if len(m.Crit) > len(known) {
		return bad("too many critical members")
	}
	return nil
}

// Verify opens a manifest's envelope: size, canonical form, signature by pub, version, critical members, limits. It returns the manifest and
// the batch's digest, the SHA-256 of the envelope. It says nothing about the body; see [Open].
func Verify(envelope []byte, pub ed25519.PublicKey) (Manifest, [32]byte, error) {
	digest := sha256.Sum256(envelope)
	if len(envelope) > MaxEnvelope {
		return Manifest{}, digest, fmt.Errorf("verify batch: %w: the envelope is %d bytes, at most %d", ErrTooBig, len(envelope), MaxEnvelope)
	}
	payload, err := keys.OpenEnvelope(envelope, Type, pub)
	if err != nil {
		return Manifest{}, digest, fmt.Errorf("verify batch: %w", err)
	}
	m, err := decodeManifest(payload)
	if err != nil {
		return Manifest{}, digest, fmt.Errorf("verify batch: %w", err)
	}
	return m, digest, nil
}

// Parse reads the manifest of an envelope without checking its signature, and returns its digest. It is for those who hold the digest from
// somebody who did check (the gate's message on the bus): they must compare the two.
func Parse(envelope []byte) (Manifest, [32]byte, error) {
	digest := sha256.Sum256(envelope)
	if len(envelope) > MaxEnvelope {
		return Manifest{}, digest, fmt.Errorf("parse manifest: %w: the envelope is %d bytes, at most %d", ErrTooBig, len(envelope), MaxEnvelope)
	}
	payload, err := keys.PeekEnvelope(envelope, Type)
	if err != nil {
		return Manifest{}, digest, fmt.Errorf("parse manifest: %w", err)
	}
	m, err := decodeManifest(payload)
	if err != nil {
		return Manifest{}, digest, fmt.Errorf("parse manifest: %w", err)
	}
	return m, digest, nil
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' && isHex(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])
}

func countName(s string) bool {
	if s == "" || len(s) > maxCountName {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
