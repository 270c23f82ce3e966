package load

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tocsin/internal/app/status"
	"tocsin/internal/batch"
	"tocsin/internal/collector/send"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// parcel is one signed batch in the parcel file: where it is and when it is due.
type parcel struct {
	due    time.Duration // after the beginning
	offset int64
	size   int
	seq    uint64
	events int
}

// plan says when a member's batches are due and how many events each has. Members begin at different moments of the interval, so that the load is even.
func plan(o *Options, member int) (due []time.Duration, events []int) {
	rate := o.Rate / float64(o.Members)
	phase := time.Duration(float64(o.Interval) * float64(member) / float64(o.Members))
	made := 0
	for at := phase; at < o.Duration; at += o.Interval {
		// Events up to now, so that rounding does not add up.
		want := int(rate*(at-phase+o.Interval).Seconds()+0.5) - made
		for want > 0 {
			n := min(want, batch.MaxEvents)
			due, events = append(due, at), append(events, n)
			made += n
			want -= n
		}
	}
	return due, events
}

// incidents says when a member's incidents are due.
func incidents(o *Options, member int) (due []time.Duration) {
	if o.Incidents <= 0 {
		return nil
	}
	gap := time.Duration(float64(time.Second) / o.Incidents)
	for n, at := 0, gap/2; at < o.Duration; n, at = n+1, at+gap {
		if n%o.Members == member {
			due = append(due, at)
		}
	}
	return due
}

// signer makes all batches of one member, in order of time.
type signer struct {
	o    *Options
	site *site
	key  *keys.Collector
	enc  *encoder
	w    *batch.Writer
	gen  *generator
	line []byte
	json []byte
	prev [32]byte
	seq  uint64
	live batch.Stream
}

func (s *signer) sign(begin time.Time, due time.Duration, events int, urgent bool, incident int) (batch.Sealed, error) {
	s.w.Reset()
	counts := map[string]uint64{}
	for i := range events {
		at := begin.Add(due)
		if !urgent { // received evenly over the interval before the batch
			at = at.Add(-s.o.Interval + s.o.Interval*time.Duration(i+1)/time.Duration(events))
			s.line = s.gen.next(s.line[:0], at)
		} else {
			s.line = s.gen.incident(s.line[:0], at, incident)
		}
		var reason string
		var err error
		if s.json, reason, _, err = s.enc.encode(s.json[:0], s.line, at); err != nil {
			return batch.Sealed{}, err
		}
		if err := s.w.Add(s.json); err != nil {
			return batch.Sealed{}, err
		}
		counts["left."+reason]++
	}
	n := uint64(events)
	counts["received"], counts["parsed"], counts["sent"] = n, n, n
	s.seq++
	sealed, err := s.w.Seal(batch.Manifest{Stream: s.live, Seq: s.seq, Prev: s.prev, Created: begin.Add(due), CollectorVersion: "load", PolicyDigest: s.enc.minimise.Digest(), Counts: counts, Urgent: urgent}, s.key.Batch())
	s.prev = sealed.Digest
	return sealed, err
}

// parcels signs everything into one file and returns each member's batches in order.
func (r *run) parcels(ctx context.Context, f *os.File, begin time.Time) ([][]parcel, error) {
	out := make([][]parcel, len(r.fleet))
	var end atomic.Int64 // of the file
	var events, size atomic.Uint64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	pool := sync.Pool{New: func() any { return batch.NewWriter() }}
	for i, site := range r.fleet {
		g.Go(func() error {
			enc, err := newEncoder()
			if err != nil {
				return err
			}
			key, err := keys.OpenCollector(site.dir)
			if err != nil {
				return err
			}
			var epoch [16]byte
			if _, err := rand.Read(epoch[:]); err != nil {
				return err
			}
			w := pool.Get().(*batch.Writer)
			defer pool.Put(w)
			s := &signer{o: &r.o, site: site, key: key, enc: enc, w: w, gen: newGenerator(r.o.Seed, i, false),
				live: batch.Stream{Collector: site.enrol.Collector, Tenant: event.TenantID(site.tenant), Lane: batch.Live, Epoch: hex.EncodeToString(epoch[:])}}
			due, counts := plan(&r.o, i)
			urgent := incidents(&r.o, i)
			keep := func(at time.Duration, sealed batch.Sealed) error {
				b := sealed.Submission()
				offset := end.Add(int64(len(b))) - int64(len(b))
				if _, err := f.WriteAt(b, offset); err != nil {
					return err
				}
				out[i] = append(out[i], parcel{due: at, offset: offset, size: len(b), seq: sealed.Manifest.Seq, events: sealed.Manifest.Events})
				events.Add(uint64(sealed.Manifest.Events))
				size.Add(uint64(len(b)))
				return nil
			}
			next := 0
			for n, at := range due {
				for next < len(urgent) && urgent[next] <= at {
					sealed, err := s.sign(begin, urgent[next], 1, true, next)
					if err == nil {
						err = keep(urgent[next], sealed)
					}
					if err != nil {
						return err
					}
					next++
				}
				if err := gctx.Err(); err != nil {
					return err
				}
				sealed, err := s.sign(begin, at, counts[n], false, 0)
				if err == nil {
					err = keep(at, sealed)
				}
				if err != nil {
					return err
				}
			}
			for ; next < len(urgent); next++ {
				sealed, err := s.sign(begin, urgent[next], 1, true, next)
				if err == nil {
					err = keep(urgent[next], sealed)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("sign the batches: %w", err)
	}
	r.res.Lines, r.res.Bytes = events.Load(), size.Load()
	return out, nil
}

// signingTime measures how long signing everything will take, by signing a little of it.
func (r *run) signingTime() (time.Duration, error) {
	enc, err := newEncoder()
	if err != nil {
		return 0, err
	}
	key, err := keys.OpenCollector(r.fleet[0].dir)
	if err != nil {
		return 0, err
	}
	o := r.o
	s := &signer{o: &o, site: r.fleet[0], key: key, enc: enc, w: batch.NewWriter(), gen: newGenerator(^r.o.Seed, 0, false),
		live: batch.Stream{Collector: r.fleet[0].enrol.Collector, Tenant: event.TenantID(r.fleet[0].tenant), Lane: batch.Live, Epoch: "00000000000000000000000000000000"}}
	due, events := plan(&o, 0)
	began, now, made := time.Now(), time.Now(), 0
	for i := 0; i < len(due) && time.Since(began) < 300*time.Millisecond; i++ {
		if _, err := s.sign(now, due[i], events[i], false, 0); err != nil {
			return 0, err
		}
		made += events[i]
	}
	each := time.Since(began).Seconds() / float64(max(made, 1))
	all := each * o.Rate * o.Duration.Seconds() / float64(runtime.GOMAXPROCS(0))
	return time.Duration((all*1.3 + 2) * float64(time.Second)), nil
}

// presigned signs, connects, sends and settles.
func (r *run) presigned(ctx context.Context, began time.Time) error {
	f, err := os.CreateTemp(r.o.Dir, "parcels-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	ahead, err := r.signingTime()
	if err != nil {
		return err
	}
	begin := time.Now().Add(ahead)
	r.say("Signing %.0f events, about %s.", r.o.Rate*r.o.Duration.Seconds(), ahead.Round(time.Second))
	parcels, err := r.parcels(ctx, f, begin)
	if err != nil {
		return err
	}
	for _, p := range parcels {
		r.res.Batches += uint64(len(p))
	}
	for i := range r.fleet {
		r.res.Incidents += len(incidents(&r.o, i))
	}
	// Every member's connection is made before the measured time, as collectors keep theirs.
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, s := range r.fleet {
		g.Go(func() error {
			_, err := s.client.Self(gctx, false)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("connect the members: %w", err)
	}
	if late := time.Since(begin); late > 0 {
		r.say("Signing took %s longer than thought; the events are that much older than if they came now.", late.Round(time.Millisecond))
		begin = time.Now()
	}
	r.res.PrepareS = time.Until(begin).Seconds() + time.Since(began).Seconds()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(begin)):
	}
	then, err := r.usage(ctx, nil)
	if err != nil {
		return err
	}
	r.say("Sending for %s.", r.o.Duration)
	if err := r.post(ctx, f, parcels, begin); err != nil {
		return err
	}
	r.say("Sent; waiting until all is stored.")
	err = r.settle(ctx, func(sum status.Collector) error {
		if sum.Stored+sum.Dead < r.res.Acked {
			return fmt.Errorf("%d of %d events are stored", sum.Stored, r.res.Acked)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = r.usage(ctx, then)
	r.cost(r.res.Stored)
	return err
}

// tally is what one member's sender saw.
type tally struct {
	acked, failed, late, sent uint64
	refused                   map[string]uint64
	due, request              []float64
}

// attempts bounds how often one batch is sent again; a hub that says 503 for minutes is a finding, not something to wait for.
const attempts = 20

// post sends each member's batches in order, each at its time or, when the one before took longer, at once after it.
func (r *run) post(ctx context.Context, f *os.File, parcels [][]parcel, begin time.Time) error {
	tallies := make([]tally, len(r.fleet))
	var wg sync.WaitGroup
	for i, s := range r.fleet {
		wg.Go(func() { tallies[i] = r.postOne(ctx, f, s, parcels[i], begin) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.res.Seconds = time.Since(begin).Seconds()
	var due, request []float64
	for _, t := range tallies {
		r.res.Sent += t.sent
		r.res.Acked += t.acked
		r.res.Failed += t.failed
		r.res.Late += t.late
		r.res.Refused = plus(r.res.Refused, t.refused)
		due, request = append(due, t.due...), append(request, t.request...)
	}
	r.res.Achieved = float64(r.res.Acked) / r.res.Seconds
	r.res.AckMS, r.res.RequestMS = quantiles(due), quantiles(request)
	if r.res.Failed > 0 {
		r.res.Gaps = append(r.res.Gaps, fmt.Sprintf("%d batches were given up: %v", r.res.Failed, r.res.Refused))
	}
	return nil
}

func (r *run) postOne(ctx context.Context, f *os.File, s *site, parcels []parcel, begin time.Time) tally {
	t := tally{refused: map[string]uint64{}}
	stream := batch.Stream{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var buf []byte
	for _, p := range parcels {
		timer.Reset(time.Until(begin.Add(p.due)))
		select {
		case <-ctx.Done():
			return t
		case <-timer.C:
		}
		if time.Since(begin.Add(p.due)) > time.Second {
			t.late++
		}
		buf = slices.Grow(buf[:0], p.size)[:p.size]
		if _, err := f.ReadAt(buf, p.offset); err != nil {
			t.refused[err.Error()]++
			t.failed++
			return t
		}
		if stream.Collector == "" {
			m, err := manifestOf(buf, s)
			if err != nil {
				t.refused[err.Error()]++
				t.failed++
				return t
			}
			stream = m.Stream
		}
		t.sent += uint64(p.events)
		if !r.deliver(ctx, s, stream, p, buf, &t) {
			t.failed++
			return t // the chain is broken here; later batches would only be refused
		}
		t.acked += uint64(p.events)
		t.due = append(t.due, float64(time.Since(begin.Add(p.due)))/1e6)
	}
	return t
}

// deliver sends one batch until there is a receipt for it.
func (r *run) deliver(ctx context.Context, s *site, stream batch.Stream, p parcel, b []byte, t *tally) bool {
	for n := range attempts {
		began := time.Now()
		_, err := s.client.Submit(ctx, stream, p.seq, b)
		if err == nil {
			t.request = append(t.request, float64(time.Since(began))/1e6)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		var refused *send.Problem
		wait := send.Backoff(min(n, 3), 0, send.MaxBackoff)
		switch {
		case !errors.As(err, &refused):
			t.refused["connection"]++
		case refused.Temporary():
			t.refused[refused.Code]++
			wait = send.Backoff(min(n, 3), refused.After(), send.MaxBackoff)
		default:
			t.refused[refused.Code]++
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	return false
}

// manifestOf reads the manifest of a submission that this program signed.
func manifestOf(submission []byte, s *site) (batch.Manifest, error) {
	envelope, _, err := batch.SplitSubmission(submission)
	if err != nil {
		return batch.Manifest{}, err
	}
	k, err := keys.OpenCollector(filepath.Clean(s.dir))
	if err != nil {
		return batch.Manifest{}, err
	}
	m, _, err := batch.Verify(envelope, k.Batch().Public())
	return m, err
}
