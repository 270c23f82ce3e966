package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/member"
)

// meeting holds two writers until both are there.
type meeting struct {
	Blobs
	ch chan struct{}
}

func (m meeting) Put(ctx context.Context, b blob.Blob, data []byte) (string, error) {
	if b.Kind == blob.Batch {
		select {
		case m.ch <- struct{}{}:
		case <-m.ch:
		}
	}
	return m.Blobs.Put(ctx, b, data)
}

// Both gates have judged their batch to be the next one before either goes on: only one may be accepted, and the other must not even have
// been on the bus, where a follower would take whichever comes first.
func TestTwoGatesOneNumber(t *testing.T) {
	ch := make(chan struct{})
	meet := func(o *Options) { o.Blobs = meeting{o.Blobs, ch} }
	h := newHub(t, meet)
	s := newSite(t, h, "Ashgrove School")
	second := h.second(meet)
	for range 10 {
		a, b := s.seal(s.manifest(), 1), s.seal(s.manifest(), 2)
		type result struct {
			b    batch.Sealed
			code int
			body []byte
			err  error
		}
		results := make(chan result, 2)
		for _, c := range []struct {
			b    batch.Sealed
			addr string
		}{{a, h.addr}, {b, second}} {
			go func() {
				code, _, body, err := s.do(http.MethodPost, c.addr, "/v1/batches", c.b.Submission())
				results <- result{c.b, code, body, err}
			}()
		}
		r1, r2 := <-results, <-results
		if r1.err != nil || r2.err != nil {
			t.Fatal(r1.err, r2.err)
		}
		if r1.code != http.StatusOK {
			r1, r2 = r2, r1
		}
		if r1.code != http.StatusOK || r2.code != http.StatusConflict {
			t.Fatalf("two batches under one number at two gates: %d %s, %d %s", r1.code, r1.body, r2.code, r2.body)
		}
		var ack batch.Ack
		if err := json.Unmarshal(r1.body, &ack); err != nil {
			t.Fatal(err)
		}
		s.accepted(r1.b, &ack)
		n := h.notices()
		if len(n) != int(s.seq) || n[len(n)-1].Digest != r1.b.Digest {
			t.Fatalf("%d notices for %d accepted batches, the last %x, accepted %x", len(n), s.seq, n[len(n)-1].Digest, r1.b.Digest)
		}
	}
	if n := len(h.told("fork")); n != 10 {
		t.Errorf("people were told of %d forks of 10", n)
	}
}

// faults stands between the gate and its engines and breaks each commit point before or after it took effect.
type faults struct {
	Records
	Blobs
	Bus
	acceptBefore, acceptAfter, putBefore, putAfter, pubBefore, pubAfter atomic.Bool
}

func (f *faults) Accept(ctx context.Context, b *member.Batch) (member.Verdict, error) {
	if f.acceptBefore.Swap(false) {
		return member.Verdict{}, errFault
	}
	v, err := f.Records.Accept(ctx, b)
	if f.acceptAfter.Swap(false) {
		return member.Verdict{}, errFault
	}
	return v, err
}

func (f *faults) Put(ctx context.Context, b blob.Blob, data []byte) (string, error) {
	if f.putBefore.Swap(false) {
		return "", fmt.Errorf("put: %w", blob.ErrFull)
	}
	ref, err := f.Blobs.Put(ctx, b, data)
	if f.putAfter.Swap(false) {
		return "", errFault
	}
	return ref, err
}

func (f *faults) Publish(ctx context.Context, subject, id string, data []byte) (uint64, error) {
	if f.pubBefore.Swap(false) {
		return 0, fmt.Errorf("publish: %w", bus.ErrFull)
	}
	seq, err := f.Bus.Publish(ctx, subject, id, data)
	if f.pubAfter.Swap(false) {
		return 0, errFault
	}
	return seq, err
}

func TestBrokenCommitPoints(t *testing.T) {
	f := &faults{}
	h := newHub(t, func(o *Options) {
		f.Records, f.Blobs, f.Bus = o.Records, o.Blobs, o.Bus
		o.Records, o.Blobs, o.Bus = f, f, f
	})
	s := newSite(t, h, "Ashgrove School")
	s.send(1)
	for name, c := range map[string]struct {
		fault *atomic.Bool
		code  string
	}{
		"blob full": {&f.putBefore, batch.CodeBusy}, "blob written, answer lost": {&f.putAfter, batch.CodeBusy}, "bus full": {&f.pubBefore, batch.CodeBusy}, "bus written, answer lost": {&f.pubAfter, batch.CodeBusy},
		"head not written": {&f.acceptBefore, "records_unavailable"}, "head written, answer lost": {&f.acceptAfter, "records_unavailable"},
	} {
		b := s.seal(s.manifest(), 2)
		c.fault.Store(true)
		p := s.refused("/v1/batches", b.Submission(), http.StatusServiceUnavailable, c.code)
		if p.Retry == 0 {
			t.Errorf("%s: not told when to come again", name)
		}
		var ack, again batch.Ack
		s.post("/v1/batches", b.Submission(), http.StatusOK, &ack)
		s.post("/v1/batches", b.Submission(), http.StatusOK, &again)
		if !bytes.Equal(ack.Receipt, again.Receipt) {
			t.Errorf("%s: two receipts for one batch", name)
		}
		s.accepted(b, &ack)
	}
	// Every accepted batch is on the bus and in the blob store; none is there twice under another digest.
	digests := map[[32]byte]uint64{}
	for _, n := range h.notices() {
		digests[n.Digest] = n.Seq
		if _, err := h.blobs.Get(t.Context(), n.Tenant, n.Digest, n.Blob); err != nil {
			t.Errorf("notice %d without its blob: %v", n.Seq, err)
		}
	}
	if len(digests) != int(s.seq) {
		t.Errorf("%d batches on the bus, %d accepted", len(digests), s.seq)
	}
}
