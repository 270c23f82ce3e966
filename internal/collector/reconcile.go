package collector

import (
	"context"
	"fmt"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/send"
	"tocsin/internal/keys"
)

// Reconciled is the comparison of the member's own record of what left with the hub's signed statement of what it holds.
type Reconciled struct {
	Collector string               `json:"collector"`
	HubTime   time.Time            `json:"hub_time"`
	Match     bool                 `json:"match"`
	Batches   [2]uint64            `json:"batches"` // here, at the hub
	Events    [2]uint64            `json:"events"`
	Streams   []ReconciledStream   `json:"streams"`
	Statement batch.Statement      `json:"-"`
	Envelope  []byte               `json:"-"` // the statement as the hub signed it
	Record    map[string]*SentSums `json:"-"`
}

// SentSums is what the record of one stream adds up to.
type SentSums struct {
	Lane        batch.Lane
	Epoch       string
	First, Last uint64 // numbers of its batches that are kept
	Events      uint64 // in them
	Digests     map[uint64]string
	EventsTo    map[uint64]uint64 // up to and with a batch, from First on
	Confirmed   uint64            // the last one that the hub gave a receipt for in good time before the statement
}

// ReconciledStream is one stream's comparison.
type ReconciledStream struct {
	Lane    batch.Lane `json:"lane"`
	Epoch   string     `json:"epoch"`
	Here    uint64     `json:"here"` // batches
	Hub     uint64     `json:"hub"`
	Events  [2]uint64  `json:"events"` // here, at the hub; of the batches that both have
	Verdict string     `json:"verdict"`
	Match   bool       `json:"match"`
}

// settle is how long after its receipt's time a batch may take to be in a statement.
const settle = 5 * time.Second

// Reconcile asks the hub for its signed statement and compares it with the record in this folder: to the batch by their chained digests, to
// the event by their counts. What has left and is not at the hub yet, because it is on its way, is no difference.
func Reconcile(ctx context.Context, c *Config, version string) (*Reconciled, error) {
	e, err := readEnrolment(c)
	if err != nil {
		return nil, err
	}
	k, err := keys.OpenCollector(c.KeyDir())
	if err != nil {
		return nil, err
	}
	address := c.Hub
	if address == "" {
		address = e.Address
	}
	client, err := send.New(send.Options{Address: address, Collector: e.Collector, Version: version, Keys: k})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	s, env, err := client.Statement(ctx)
	if err != nil {
		return nil, err
	}
	// The record is read after the statement: it can only be further.
	record := map[string]*SentSums{}
	err = ReadSent(c, func(b *SentBatch) (bool, error) {
		r := record[string(b.Lane)+b.Epoch]
		if r == nil {
			r = &SentSums{Lane: b.Lane, Epoch: b.Epoch, First: b.Seq, Digests: map[uint64]string{}, EventsTo: map[uint64]uint64{}}
			record[string(b.Lane)+b.Epoch] = r
		}
		if b.Receipt == "valid" && b.Received.After(s.HubTime) {
			return true, nil // after the statement
		}
		if b.Receipt == "valid" && b.Received.Before(s.HubTime.Add(-settle)) {
			r.Confirmed = max(r.Confirmed, b.Seq)
		}
		if _, again := r.Digests[b.Seq]; !again {
			r.Events += uint64(b.Events)
		}
		r.Last = max(r.Last, b.Seq)
		r.Digests[b.Seq], r.EventsTo[b.Seq] = b.Digest, r.Events
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	var totals []StreamTotal
	if st, err := FetchStatus(ctx, c); err == nil {
		totals = st.StreamTotals
	}
	r := compareStatement(s, record, totals)
	r.Envelope = env
	return r, nil
}

// compareStatement names every difference.
func compareStatement(s batch.Statement, record map[string]*SentSums, totals []StreamTotal) *Reconciled {
	r := &Reconciled{Collector: s.Collector, HubTime: s.HubTime, Match: true, Statement: s, Record: record}
	seen := map[string]bool{}
	add := func(x ReconciledStream) {
		r.Match = r.Match && x.Match
		r.Batches[0] += x.Here
		r.Batches[1] += x.Hub
		r.Events[0] += x.Events[0]
		r.Events[1] += x.Events[1]
		r.Streams = append(r.Streams, x)
	}
	for _, h := range s.Streams {
		key := string(h.Lane) + h.Epoch
		seen[key] = true
		x := ReconciledStream{Lane: h.Lane, Epoch: h.Epoch, Hub: h.Batches, Events: [2]uint64{0, h.Events}}
		rec := record[key]
		if rec == nil {
			x.Here, x.Verdict = 0, "the record here has none of this stream: it is older than the record is kept, or another copy of this collector sent it"
			for _, t := range totals {
				if t.Lane != h.Lane || t.Epoch != h.Epoch {
					continue
				}
				x.Here, x.Events[0] = t.Batches, t.Events
				if x.Match = t.Batches == h.Batches && t.Digest == h.Digest && t.Events == h.Events; x.Match {
					x.Verdict = "the same, by the receipts; the batches themselves are older than the record is kept"
				}
			}
			add(x)
			continue
		}
		x.Here = rec.Last
		// Events of batches before the record begins: known from the totals of receipts, or not at all.
		before, whole := uint64(0), rec.First == 1
		for _, t := range totals {
			if t.Lane == h.Lane && t.Epoch == h.Epoch && !whole {
				if to, ok := rec.EventsTo[t.Batches]; ok && t.Events >= to {
					before, whole = t.Events-to, true
				}
			}
		}
		digest, have := rec.Digests[h.Batches]
		x.Events[0] = before + rec.EventsTo[h.Batches]
		switch {
		case h.Batches > rec.Last:
			x.Verdict = fmt.Sprintf("the hub holds %d batches that this record does not know: another machine sends with these keys, or this folder is an older copy", h.Batches-rec.Last)
		case !have && h.Batches < rec.First:
			x.Verdict = fmt.Sprintf("the hub stops at batch %d and the record here begins at %d: the hub has lost batches that this machine has receipts for", h.Batches, rec.First)
		case digest != h.Digest:
			x.Verdict = fmt.Sprintf("batch %d is another one at the hub than the one in this record", h.Batches)
		case whole && x.Events[0] != h.Events:
			x.Verdict = fmt.Sprintf("the batches are the same, but the hub counts %d events in them and this record %d", h.Events, x.Events[0])
		default:
			x.Match = true
			x.Verdict = "the same"
			if !whole {
				x.Events[0] = h.Events
				x.Verdict = fmt.Sprintf("the same from batch %d on; what came before is older than the record is kept, and chained to it", rec.First)
			}
			if late := rec.Last - h.Batches; rec.Confirmed > h.Batches {
				x.Match = false
				x.Verdict = fmt.Sprintf("the same up to batch %d; the hub gave receipts for %d more and does not hold them now: it was restored from an older copy, and will get them again", h.Batches, rec.Confirmed-h.Batches)
			} else if late > 0 {
				x.Verdict += fmt.Sprintf("; %d more on the way", late)
			}
		}
		add(x)
	}
	for key, rec := range record {
		if seen[key] {
			continue
		}
		x := ReconciledStream{Lane: rec.Lane, Epoch: rec.Epoch, Here: rec.Last, Events: [2]uint64{0, 0}}
		if rec.Last <= 1 && rec.Confirmed == 0 {
			x.Here, x.Match, x.Verdict = 0, true, "its first batch is on the way"
		} else {
			x.Events[0] = rec.Events
			x.Verdict = "the hub holds nothing of this stream"
		}
		add(x)
	}
	return r
}
