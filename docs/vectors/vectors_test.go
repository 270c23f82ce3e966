// Package vectors checks the published test vectors of the batch format (docs/batch-format.md). They are made here by a second, small
// implementation of the description, which shares no code with package batch: what it writes, package batch must take, and what it breaks,
// package batch must refuse for the reason that the list gives. "go test ./docs/vectors -write" makes them again: the same bytes.
package vectors

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"tocsin/internal/batch"
	"tocsin/internal/keys"

	"github.com/klauspost/compress/zstd"
)

var writeThem = flag.Bool("write", false, "make the vectors again")

// vector is a row of vectors.json.
type vector struct {
	File   string `json:"file"`
	What   string `json:"what"`
	Reason string `json:"reason,omitempty"` // why it must be refused; none: it must be taken
	Events int    `json:"events,omitempty"`
	Digest string `json:"digest,omitempty"`
	Stream string `json:"stream_id,omitempty"`
	Root   string `json:"root,omitempty"`
	bytes  []byte
}

type file struct {
	About   string   `json:"about"`
	Seed    string   `json:"ed25519_seed"` // a key for tests only
	SPKI    string   `json:"public_key_spki"`
	KeyID   string   `json:"keyid"`
	Vectors []vector `json:"vectors"`
}

// reasons maps the names of the list to what package batch says.
var reasons = map[string]error{
	"submission": batch.ErrSubmission, "envelope": keys.ErrEnvelope, "signature": keys.ErrSignature, "version": batch.ErrVersion, "crit": batch.ErrCrit, "manifest": batch.ErrManifest,
	"too_big": batch.ErrTooBig, "body_digest": batch.ErrBodyDigest, "frame": batch.ErrFrame, "body": batch.ErrBody, "root": batch.ErrRoot,
}

// The second implementation.

func seed(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

// spki is the DER of an Ed25519 public key (RFC 8410).
func spki(k ed25519.PrivateKey) []byte {
	return append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, k.Public().(ed25519.PublicKey)...)
}

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

const payloadType = "application/vnd.tocsin.batch.v1+json"

// envelope is DSSE (v1) in the canonical spelling.
func envelope(k ed25519.PrivateKey, payload string) string {
	pae := fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	return fmt.Sprintf(`{"payloadType":"%s","payload":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}`, payloadType, base64.StdEncoding.EncodeToString([]byte(payload)), hexSum(spki(k)),
		base64.StdEncoding.EncodeToString(ed25519.Sign(k, []byte(pae))))
}

// merkle is MTH of RFC 6962, section 2.1.
func merkle(leaves [][]byte) []byte {
	switch n := len(leaves); n {
	case 0:
		s := sha256.Sum256(nil)
		return s[:]
	case 1:
		return leaves[0]
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		s := sha256.Sum256(append(append([]byte{1}, merkle(leaves[:k])...), merkle(leaves[k:])...))
		return s[:]
	}
}

var salt = bytes.Repeat([]byte{0xa5}, 32)

func root(lines []string) string {
	var leaves [][]byte
	for i, l := range lines {
		m := hmac.New(sha256.New, salt)
		m.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
		s := sha256.Sum256(append(append([]byte{0}, m.Sum(nil)...), l...))
		leaves = append(leaves, s[:])
	}
	return hex.EncodeToString(merkle(leaves))
}

func plain(lines []string) []byte {
	b := fmt.Appendf(nil, "{\"salt\":\"%x\"}\n", salt)
	for _, l := range lines {
		b = append(append(b, l...), '\n')
	}
	return b
}

// raw is a zstd frame of raw blocks (RFC 8878), which needs no compressor: one is not part of the format.
func raw(content []byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0} // single segment, content size in 4 bytes
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	for first := true; first || len(content) > 0; first = false {
		n := min(len(content), 128<<10)
		head := uint32(n) << 3
		if n == len(content) {
			head |= 1
		}
		b = append(b, byte(head), byte(head>>8), byte(head>>16))
		b = append(b, content[:n]...)
		content = content[n:]
	}
	return b
}

// parts are what a batch is put together from; changes break them one by one.
type parts struct {
	lines    []string
	content  []byte // the body decompressed; nil: from lines
	body     []byte // nil: from content
	manifest map[string]any
	payload  string // "": from manifest
	key      ed25519.PrivateKey
	env      string // "": from payload
	after    func([]byte) []byte
}

// order of the manifest's members, as a collector writes them; readers take any.
var order = []string{"version", "collector", "tenant", "lane", "epoch", "seq", "prev", "last_receipt", "created", "collector_version", "policy_digest", "parser_pack", "rule_pack", "indicator_set",
	"clock_offset_ns", "position", "counts", "events", "body_size", "expanded", "body_sha256", "root", "urgent", "x_future", "crit"}

func build(change func(*parts)) []byte {
	p := parts{key: seed(1), lines: twoLines, manifest: map[string]any{
		"version": 1, "collector": "019aa0b4-7c00-7000-8000-000000000001", "tenant": 7, "lane": "live", "epoch": "00112233445566778899aabbccddeeff", "seq": "1", "prev": strings.Repeat("0", 64),
		"created": "2026-11-22T13:43:58.123456789Z", "collector_version": "example 1.0", "policy_digest": "metadata", "parser_pack": "", "rule_pack": "", "indicator_set": "", "clock_offset_ns": "-1500000",
		"counts": map[string]any{"kept.allowed": 97, "left.denied_inbound": 2, "not_understood": 1, "received": 100, "sent": 2},
	}}
	first := p
	change(&first) // what the change says of lines and body is needed before the manifest
	p.lines = first.lines
	content := first.content
	if content == nil {
		content = plain(first.lines)
	}
	body := first.body
	if body == nil {
		body = raw(content)
	}
	for k, v := range map[string]any{"events": len(first.lines), "body_size": len(body), "expanded": len(content), "body_sha256": hexSum(body), "root": root(first.lines)} {
		p.manifest[k] = v
	}
	change(&p)
	if p.payload == "" {
		var b strings.Builder
		for _, k := range order {
			if v, ok := p.manifest[k]; ok {
				j, err := json.Marshal(v)
				if err != nil {
					panic(err)
				}
				fmt.Fprintf(&b, `,"%s":%s`, k, j)
			}
		}
		p.payload = "{" + b.String()[1:] + "}"
	}
	if p.env == "" {
		p.env = envelope(p.key, p.payload)
	}
	out := append(append([]byte(p.env), '\n'), body...)
	if p.after != nil {
		out = p.after(out)
	}
	return out
}

var twoLines = []string{
	`{"@timestamp":"2026-11-22T13:43:57Z","event.created":"2026-11-22T13:43:58.1Z","event.action":"deny","event.sequence":"9007199254740993","source.ip":"203.0.113.5","destination.ip":"198.51.100.7","destination.port":22,"network.transport":"tcp","tocsin.left_reason":"denied_inbound"}`,
	`{"@timestamp":"2026-11-22T13:43:58Z","event.action":"ssl-login-fail","source.ip":"2001:db8::5","user.name":"Zoë \"Z\" \u0001"}`,
}

func many(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf(`{"@timestamp":"2026-11-22T13:43:58Z","event.action":"deny","source.port":%d}`, i))
	}
	return lines
}

func set(k string, v any) func(*parts) { return func(p *parts) { p.manifest[k] = v } }

func all() []vector {
	compressed := func(lines []string) []byte {
		// As published: another version of the compressor may write other bytes for the same content.
		if b, err := os.ReadFile("thousand-and-one.batch"); err == nil && !*writeThem {
			if _, body, ok := bytes.Cut(b, []byte("\n")); ok {
				return body
			}
		}
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err)
		}
		return e.EncodeAll(plain(lines), nil)
	}
	return []vector{
		{File: "two-events", What: "two events, a body of raw zstd blocks", bytes: build(func(*parts) {})},
		{File: "no-events", What: "counts only", bytes: build(func(p *parts) { p.lines = nil })},
		{File: "thousand-and-one", What: "1,001 events, compressed", bytes: build(func(p *parts) { p.lines, p.body = many(1001), compressed(many(1001)) })},
		{File: "second", What: "the batch after two-events in its stream", bytes: build(func(p *parts) {
			p.manifest["seq"] = "2"
			p.manifest["prev"] = hexSum([]byte(strings.SplitN(string(build(func(*parts) {})), "\n", 2)[0]))
		})},
		{File: "new-epoch", What: "a new epoch that names the last receipt; urgent; a position", bytes: build(func(p *parts) {
			p.manifest["epoch"], p.manifest["prev"], p.manifest["last_receipt"], p.manifest["urgent"], p.manifest["position"] = strings.Repeat("ab", 16), hexSum([]byte("receipt")), hexSum([]byte("receipt")), true, "line 100"
		})},
		{File: "unknown-member", What: "a member that readers do not know, and need not", bytes: build(set("x_future", "ignored"))},
		{File: "critical-member", What: "a known member marked as critical", bytes: build(set("crit", []string{"root"}))},

		{File: "bad-no-newline", What: "no newline behind the envelope", Reason: "submission", bytes: build(func(p *parts) {
			p.after = func(b []byte) []byte { return bytes.Replace(b, []byte("\n"), nil, -1)[:200] }
		})},
		{File: "bad-no-body", What: "the body is missing", Reason: "submission", bytes: build(func(p *parts) { p.after = func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] } })},
		{File: "bad-spelling", What: "the envelope has a space more", Reason: "envelope", bytes: build(func(p *parts) {
			p.after = func(b []byte) []byte { return bytes.Replace(b, []byte(`,"payload"`), []byte(`, "payload"`), 1) }
		})},
		{File: "bad-key", What: "signed by another key", Reason: "signature", bytes: build(func(p *parts) { p.key = seed(2) })},
		{File: "bad-keyid", What: "signed by another key under this key's id", Reason: "signature", bytes: build(func(p *parts) {
			p.key = seed(2)
			p.after = func(b []byte) []byte {
				return bytes.Replace(b, []byte(hexSum(spki(seed(2)))), []byte(hexSum(spki(seed(1)))), 1)
			}
		})},
		{File: "bad-version", What: "version 2", Reason: "version", bytes: build(set("version", 2))},
		{File: "bad-crit", What: "a critical member that is unknown", Reason: "crit", bytes: build(func(p *parts) {
			p.manifest["x_future"], p.manifest["crit"] = "must be understood", []string{"x_future"}
		})},
		{File: "bad-twice", What: "a member twice", Reason: "manifest", bytes: build(func(p *parts) {
			p.payload = ""
			p.manifest["x_future"] = 1
			p.env = envelope(p.key, `{"version":1,"version":1}`)
		})},
		{File: "bad-seq", What: "seq 0", Reason: "manifest", bytes: build(set("seq", "0"))},
		{File: "bad-seq-number", What: "seq as a number, not a string", Reason: "manifest", bytes: build(set("seq", 1))},
		{File: "bad-first-prev", What: "a first batch whose prev is not its last_receipt", Reason: "manifest", bytes: build(set("prev", strings.Repeat("1", 64)))},
		{File: "bad-lane", What: "a lane that does not exist", Reason: "manifest", bytes: build(set("lane", "fast"))},
		{File: "bad-count", What: "a count beyond 2^53-1", Reason: "manifest", bytes: build(set("counts", map[string]any{"received": json.Number("9007199254740992")}))},
		{File: "bad-too-many", What: "more events than a batch may hold", Reason: "too_big", bytes: build(set("events", 10001))},
		{File: "bad-bit", What: "one bit of the body turned", Reason: "body_digest", bytes: build(func(p *parts) { p.after = func(b []byte) []byte { b[len(b)-3] ^= 1; return b } })},
		{File: "bad-cut", What: "the body cut by a byte", Reason: "body_digest", bytes: build(func(p *parts) { p.after = func(b []byte) []byte { return b[:len(b)-1] } })},
		{File: "bad-two-frames", What: "two zstd frames", Reason: "frame", bytes: build(func(p *parts) { p.body = append(raw(plain(twoLines)), raw(nil)...) })},
		{File: "bad-not-zstd", What: "a body without compression", Reason: "frame", bytes: build(func(p *parts) { p.body = plain(twoLines) })},
		{File: "bad-window", What: "a window of 16 MiB", Reason: "frame", bytes: build(func(p *parts) {
			c := plain(twoLines)
			h := uint32(len(c))<<3 | 1
			p.body = append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 14 << 3, byte(h), byte(h >> 8), byte(h >> 16)}, c...)
		})},
		{File: "bad-expanded", What: "expanded says more than the body holds", Reason: "frame", bytes: build(set("expanded", 5000))},
		{File: "bad-salt", What: "the first line is not the salt", Reason: "body", bytes: build(func(p *parts) { p.content = []byte(strings.Join(twoLines, "\n") + "\n") })},
		{File: "bad-last-line", What: "the last line has no end", Reason: "body", bytes: build(func(p *parts) { c := plain(twoLines); p.content = c[:len(c)-1] })},
		{File: "bad-events", What: "fewer events than the manifest says", Reason: "body", bytes: build(set("events", 3))},
		{File: "bad-repeated", What: "an event with a member twice", Reason: "body", bytes: build(func(p *parts) { p.lines = []string{`{"event.action":"deny","event.action":"allow"}`} })},
		{File: "bad-utf8", What: "an event that is not UTF-8", Reason: "body", bytes: build(func(p *parts) { p.lines = []string{"{\"user.name\":\"Zo\xeb\"}"} })},
		{File: "bad-array", What: "an event that is no object", Reason: "body", bytes: build(func(p *parts) { p.lines = []string{`["deny"]`} })},
		{File: "bad-root", What: "a root over other events", Reason: "root", bytes: build(set("root", root([]string{`{}`})))},
		{File: "bad-swapped", What: "two events in the other order than the root says", Reason: "root", bytes: build(func(p *parts) {
			p.content = plain([]string{twoLines[1], twoLines[0]})
		})},
	}
}

// judge is what a hub does with a submission, by package batch.
func judge(b []byte, pub ed25519.PublicKey) (m batch.Manifest, digest [32]byte, lines [][]byte, err error) {
	env, body, err := batch.SplitSubmission(b)
	if err != nil {
		return m, digest, nil, err
	}
	if m, digest, err = batch.Verify(env, pub); err != nil {
		return m, digest, nil, err
	}
	open, err := batch.Open(m, body)
	if err != nil {
		return m, digest, nil, err
	}
	return m, digest, open.Lines(), nil
}

func TestVectors(t *testing.T) {
	k := seed(1)
	made := file{About: "Test vectors of the batch format, docs/batch-format.md. The key is for tests only.", Seed: hex.EncodeToString(k.Seed()), SPKI: hex.EncodeToString(spki(k)), KeyID: hexSum(spki(k)), Vectors: all()}
	for i := range made.Vectors {
		v := &made.Vectors[i]
		v.File += ".batch"
		m, digest, lines, err := judge(v.bytes, k.Public().(ed25519.PublicKey))
		if v.Reason == "" {
			if err != nil {
				t.Errorf("%s (%s): refused: %v", v.File, v.What, err)
				continue
			}
			id := m.Stream.ID()
			v.Events, v.Digest, v.Stream, v.Root = len(lines), hex.EncodeToString(digest[:]), hex.EncodeToString(id[:]), hex.EncodeToString(m.Root[:])
			continue
		}
		want, ok := reasons[v.Reason]
		if !ok {
			t.Fatalf("%s: no reason %q", v.File, v.Reason)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s (%s): %v, not for the reason %q", v.File, v.What, err, v.Reason)
		}
	}
	list, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	list = append(list, '\n')
	if *writeThem {
		for _, v := range made.Vectors {
			if err := os.WriteFile(v.File, v.bytes, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile("vectors.json", list, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if b, err := os.ReadFile("vectors.json"); err != nil || !bytes.Equal(b, list) {
		t.Errorf("vectors.json is not what is made here (go test ./docs/vectors -write): %v", err)
	}
	for _, v := range made.Vectors {
		if b, err := os.ReadFile(v.File); err != nil || !bytes.Equal(b, v.bytes) {
			t.Errorf("%s is not what is made here: %v", v.File, err)
		}
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".batch") && !bytes.Contains(list, []byte(`"`+e.Name()+`"`)) {
			t.Errorf("%s is not in the list", e.Name())
		}
	}
}
