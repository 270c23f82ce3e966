package batch

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// ErrFull means that a Writer takes no more: seal it and begin another.
var ErrFull = errors.New("the batch is full")

// ErrLine means that a line can be in no batch: it is too long or no I-JSON object.
var ErrLine = errors.New("the line cannot be sent")

// A Signer signs manifests: a *keys.Signer with the collector's batch key.
type Signer interface {
	SignEnvelope(payloadType string, payload []byte) ([]byte, error)
}

// A Writer makes one batch after another. Events are compressed and hashed as they come, so it holds their compressed form and 32 bytes for
// each, not the lines. It belongs to one goroutine. Its memory (some 3 MiB) is used again after Reset.
type Writer struct {
	salt     [32]byte
	enc      *zstd.Encoder
	out      bytes.Buffer
	leaves   [][32]byte
	hasher   *leafHasher
	expanded int
	sealed   bool
}

// window is the encoder's: a larger one gains under 1 % on batches of this size and costs the collector memory.
const window = 1 << 20

// NewWriter returns a Writer for an empty batch.
func NewWriter() *Writer {
	w := &Writer{}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	if err != nil {
		panic(err) // the options are constants
	}
	w.enc = enc
	w.Reset()
	return w
}

// Reset forgets what was added and begins another batch with a new salt.
func (w *Writer) Reset() {
	if _, err := rand.Read(w.salt[:]); err != nil {
		panic(err) // crypto/rand does not fail on the systems Go supports
	}
	w.begin()
}

func (w *Writer) begin() {
	w.out.Reset()
	w.enc.Reset(&w.out)
	w.leaves = w.leaves[:0]
	w.hasher = newLeafHasher(w.salt)
	w.sealed = false
	line := fmt.Appendf(nil, "{\"salt\":\"%x\"}\n", w.salt)
	w.expanded = len(line)
	if _, err := w.enc.Write(line); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
}

// saltLine is the length of a body's first line with its newline.
const saltLine = len(`{"salt":""}`) + 64 + 1

// Add appends one event, a JSON object without a newline. [ErrFull]: seal first, then add it to the next batch. [ErrLine]: it can never be
// sent; count it.
func (w *Writer) Add(line []byte) error {
	if len(line) > MaxLine {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrLine, len(line), MaxLine)
	}
	if bytes.IndexByte(line, '\n') >= 0 {
		return fmt.Errorf("%w: it holds a newline", ErrLine)
	}
	if err := CheckObject(line); err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	// The encoder holds at most one block back; at worst that and this line stay as long as they are.
	if w.sealed || len(w.leaves) >= MaxEvents || w.expanded+len(line)+1 > MaxExpanded || w.out.Len()+maxBlock+len(line)+1024 > MaxCompressed {
		return ErrFull
	}
	if _, err := w.enc.Write(line); err != nil {
		return fmt.Errorf("add to batch: %w", err)
	}
	if _, err := w.enc.Write(newline); err != nil {
		return fmt.Errorf("add to batch: %w", err)
	}
	w.leaves = append(w.leaves, w.hasher.leaf(uint64(len(w.leaves)), line))
	w.expanded += len(line) + 1
	return nil
}

var newline = []byte{'\n'}

// Len is the number of events added. Expanded is the body's size so far, in bytes.
func (w *Writer) Len() int { return len(w.leaves) }

// Expanded is the size of the body so far, in bytes.
func (w *Writer) Expanded() int { return w.expanded }

// Sealed is a signed batch. Keep Submission and send it byte for byte until a receipt comes.
type Sealed struct {
	Manifest Manifest
	Envelope []byte
	Body     []byte
	Digest   [32]byte // SHA-256 of Envelope
}

// Seal finishes the batch: it fills m's Version, Events, sizes, BodySHA256 and Root, and signs it. The Writer must be Reset before it is
// used again. A batch without events is allowed: it carries counts.
func (w *Writer) Seal(m Manifest, s Signer) (Sealed, error) {
	if w.sealed {
		return Sealed{}, errors.New("seal batch: it is sealed already")
	}
	w.sealed = true
	if err := w.enc.Close(); err != nil {
		return Sealed{}, fmt.Errorf("seal batch: %w", err)
	}
	body := bytes.Clone(w.out.Bytes())
	m.Version, m.Events, m.BodySize, m.Expanded = 1, len(w.leaves), len(body), w.expanded
	m.BodySHA256 = sha256.Sum256(body)
	m.Root = treeRoot(w.leaves)
	payload, err := m.encode()
	if err != nil {
		return Sealed{}, fmt.Errorf("seal batch: %w", err)
	}
	env, err := s.SignEnvelope(Type, payload)
	if err != nil {
		return Sealed{}, fmt.Errorf("seal batch: %w", err)
	}
	if len(env) > MaxEnvelope {
		return Sealed{}, fmt.Errorf("seal batch: %w: the envelope is %d bytes, at most %d", ErrTooBig, len(env), MaxEnvelope)
	}
	return Sealed{Manifest: m, Envelope: env, Body: body, Digest: sha256.Sum256(env)}, nil
}

// Submission returns the envelope, a newline and the body: the HTTP request, the collector's file, the hub's blob.
func (s Sealed) Submission() []byte {
	b := make([]byte, 0, len(s.Envelope)+1+len(s.Body))
	b = append(b, s.Envelope...)
	b = append(b, '\n')
	return append(b, s.Body...)
}

// SplitSubmission parts a submission into envelope and body. Both share b's memory.
func SplitSubmission(b []byte) (envelope, body []byte, err error) {
	if len(b) > MaxSubmission {
		return nil, nil, fmt.Errorf("split submission: %w: %d bytes, at most %d", ErrTooBig, len(b), MaxSubmission)
	}
	i := bytes.IndexByte(b[:min(len(b), MaxEnvelope+1)], '\n')
	if i < 1 {
		return nil, nil, fmt.Errorf("split submission: %w", ErrSubmission)
	}
	envelope, body = b[:i:i], b[i+1:]
	if len(body) == 0 {
		return nil, nil, fmt.Errorf("split submission: %w: the body is empty", ErrSubmission)
	}
	if len(body) > MaxCompressed {
		return nil, nil, fmt.Errorf("split submission: %w: the body is %d bytes, at most %d", ErrTooBig, len(body), MaxCompressed)
	}
	return envelope, body, nil
}

// A Body is a checked, decompressed body.
type Body struct {
	salt  [32]byte
	buf   []byte
	lines [][]byte
	leafs [][32]byte // scratch
}

// Lines returns the events, each a JSON object without its newline. They share the Body's memory.
func (b *Body) Lines() [][]byte { return b.lines }

// Open checks a body against its verified manifest and decompresses it: digest first, then the frame's headers, then the content, then each
// line (one I-JSON object) and the root.
func Open(m Manifest, body []byte) (*Body, error) {
	b := &Body{}
	if err := b.Open(m, body); err != nil {
		return nil, err
	}
	return b, nil
}

// Open does as the function [Open], using the memory of b again. After an error b holds nothing.
func (b *Body) Open(m Manifest, body []byte) error {
	if err := b.open(m, body, true); err != nil {
		return err
	}
	h := newLeafHasher(b.salt)
	b.leafs = b.leafs[:0]
	for i, l := range b.lines {
		b.leafs = append(b.leafs, h.leaf(uint64(i), l))
	}
	if treeRoot(b.leafs) != m.Root {
		b.lines = b.lines[:0]
		return fmt.Errorf("open batch: %w", ErrRoot)
	}
	return nil
}

// Reopen is Open for a body that has passed Open under the same manifest, as the gate's batches have. The digest, which is checked, says
// that these are the same bytes; what follows from the bytes alone (each line's form, the root) is not worked out a second time. The caller
// must hold the manifest's digest from whoever opened it first.
func (b *Body) Reopen(m Manifest, body []byte) error { return b.open(m, body, false) }

// open checks the digest, decompresses and splits; lines are checked one by one when asked to.
func (b *Body) open(m Manifest, body []byte, lines bool) error {
	b.lines = b.lines[:0]
	if err := CheckBody(m, body); err != nil {
		return err
	}
	out, err := expand(body, b.buf, m.Expanded)
	if err != nil {
		return fmt.Errorf("open batch: %w", err)
	}
	b.buf = out
	if err := b.split(m.Events, lines); err != nil {
		b.lines = b.lines[:0]
		return fmt.Errorf("open batch: %w", err)
	}
	return nil
}

// CheckBody does the part of [Open] that needs no decompression: size, digest, frame headers.
func CheckBody(m Manifest, body []byte) error {
	if len(body) != m.BodySize || m.BodySize > MaxCompressed || m.Expanded > MaxExpanded || m.Events > MaxEvents {
		return fmt.Errorf("open batch: %w: %d bytes where the manifest says %d", ErrBodyDigest, len(body), m.BodySize)
	}
	if sum := sha256.Sum256(body); subtle.ConstantTimeCompare(sum[:], m.BodySHA256[:]) != 1 {
		return fmt.Errorf("open batch: %w", ErrBodyDigest)
	}
	if err := checkFrame(body, m.Expanded); err != nil {
		return fmt.Errorf("open batch: %w", err)
	}
	return nil
}

// split parts b.buf into salt and lines, and checks that each is an I-JSON object when asked to.
func (b *Body) split(events int, check bool) error {
	rest := b.buf
	if len(rest) < saltLine || string(rest[:9]) != `{"salt":"` || string(rest[saltLine-3:saltLine]) != "\"}\n" || !isHex(string(rest[9:73])) {
		return fmt.Errorf("%w: the first line is not the salt", ErrBody)
	}
	if _, err := hex.Decode(b.salt[:], rest[9:73]); err != nil {
		return fmt.Errorf("%w: the first line is not the salt", ErrBody)
	}
	rest = rest[saltLine:]
	for len(rest) > 0 {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return fmt.Errorf("%w: the last line has no end", ErrBody)
		}
		if len(b.lines) == events {
			return fmt.Errorf("%w: more than the %d events announced", ErrBody, events)
		}
		if i > MaxLine {
			return fmt.Errorf("%w: event %d is longer than %d bytes", ErrBody, len(b.lines), MaxLine)
		}
		if check {
			if err := CheckObject(rest[:i]); err != nil {
				return fmt.Errorf("%w: event %d: %w", ErrBody, len(b.lines), err)
			}
		}
		b.lines = append(b.lines, rest[:i:i])
		rest = rest[i+1:]
	}
	if len(b.lines) != events {
		return fmt.Errorf("%w: %d events, the manifest says %d", ErrBody, len(b.lines), events)
	}
	return nil
}
