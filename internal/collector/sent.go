package collector

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/spool"
	"tocsin/internal/keys"
)

// SentBatch is one batch from the member's own record of what left.
type SentBatch struct {
	Lane       batch.Lane        `json:"lane"`
	Epoch      string            `json:"epoch"`
	Seq        uint64            `json:"seq"`
	Digest     string            `json:"digest"`
	Sealed     time.Time         `json:"sealed"`
	Received   time.Time         `json:"received"` // the hub's time in the receipt; zero: no receipt yet
	Receipt    string            `json:"receipt"`  // valid, missing, or what is wrong with it
	Events     int               `json:"events"`
	Bytes      int               `json:"bytes"` // as sent
	Policy     string            `json:"policy_digest"`
	Counts     map[string]uint64 `json:"counts"`
	submission []byte
}

// Lines opens the batch: the events as they left, each one JSON object.
func (s *SentBatch) Lines(k *keys.Collector) ([][]byte, error) {
	env, body, err := batch.SplitSubmission(s.submission)
	if err != nil {
		return nil, err
	}
	m, _, err := batch.Verify(env, k.Batch().Public())
	if err != nil {
		return nil, err
	}
	b, err := batch.Open(m, body)
	if err != nil {
		return nil, err
	}
	return b.Lines(), nil
}

// Submission is the batch byte for byte as it was sent.
func (s *SentBatch) Submission() []byte { return s.submission }

// ReadSent reads the record of what left, oldest first, and gives each batch to f until that answers false. It may be called while the
// collector runs. Receipts are verified against the trust list.
func ReadSent(c *Config, f func(*SentBatch) (bool, error)) error { return readSent(c, 1<<62, f) }

// sentTail is how many bytes of the record the page looks at, the newest.
const sentTail = 16 << 20

// readSent reads the newest so many bytes of the record.
func readSent(c *Config, tail int64, f func(*SentBatch) (bool, error)) error {
	k, err := keys.OpenCollector(c.KeyDir())
	if err != nil {
		return err
	}
	trust, err := k.Trust()
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.path("batches")); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing has left yet
	}
	// Receipts come after their batches: one pass to gather them, one to give the batches.
	receipts := map[string]batch.Receipt{}
	bad := map[string]string{}
	walk := func(g func(e entry, body []byte) (bool, error)) error {
		r, err := spool.ViewNewest(c.path("batches"), tail)
		if err != nil {
			return fmt.Errorf("record of what left: %w", err)
		}
		defer r.Close()
		for {
			b, _, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("record of what left: %w", err)
			}
			e, body, err := decodeEntry(b)
			if err != nil {
				return err
			}
			if more, err := g(e, body); err != nil || !more {
				return err
			}
		}
	}
	err = walk(func(e entry, body []byte) (bool, error) {
		if e.Kind == "receipt" {
			rc, err := batch.VerifyReceipt(body, trust.Ed25519(keys.Receipts)...)
			if err != nil {
				bad[e.Digest.String()] = err.Error()
			} else {
				receipts[hex.EncodeToString(rc.Digest[:])] = rc
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	return walk(func(e entry, body []byte) (bool, error) {
		if e.Kind != "batch" {
			return true, nil
		}
		env, _, err := batch.SplitSubmission(body)
		if err != nil {
			return false, err
		}
		m, d, err := batch.Verify(env, k.Batch().Public())
		if err != nil {
			return false, err
		}
		s := &SentBatch{Lane: e.Lane, Epoch: e.Epoch, Seq: e.Seq, Digest: hex.EncodeToString(d[:]), Sealed: m.Created, Events: m.Events, Bytes: len(body), Policy: m.PolicyDigest,
			Counts: m.Counts, submission: bytes.Clone(body), Receipt: "missing"}
		if rc, ok := receipts[s.Digest]; ok && rc.Digest == sha256.Sum256(env) && rc.Stream == m.Stream.ID() && rc.Seq == m.Seq {
			s.Receipt, s.Received = "valid", rc.HubTime
		} else if why, ok := bad[s.Digest]; ok {
			s.Receipt = why
		}
		return f(s)
	})
}

// Totals add up what left.
type Totals struct {
	Batches      int               `json:"batches"`
	Confirmed    int               `json:"confirmed"` // with a valid receipt
	Events       uint64            `json:"events"`
	Bytes        uint64            `json:"bytes"`
	First        time.Time         `json:"first"`
	Last         time.Time         `json:"last"`
	Counts       map[string]uint64 `json:"counts"`
	PolicyDigest map[string]int    `json:"policies"` // batches by the policy they were made under
}

// Add adds a batch.
func (t *Totals) Add(s *SentBatch) {
	if t.Counts == nil {
		t.Counts, t.PolicyDigest = map[string]uint64{}, map[string]int{}
	}
	t.Batches++
	if s.Receipt == "valid" {
		t.Confirmed++
	}
	t.Events += uint64(s.Events)
	t.Bytes += uint64(s.Bytes)
	if t.First.IsZero() || s.Sealed.Before(t.First) {
		t.First = s.Sealed
	}
	if s.Sealed.After(t.Last) {
		t.Last = s.Sealed
	}
	for k, v := range s.Counts {
		t.Counts[k] += v
	}
	t.PolicyDigest[s.Policy]++
}
