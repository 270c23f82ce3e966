package collector

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/spool"
)

// state is where everything stands after a commit. It is written as a whole; see doc.go for the order.
type state struct {
	Version   int               `json:"version"`
	Collector string            `json:"collector"`
	Cursor    spool.Pos         `json:"cursor"`      // in the archive: the next line to work on
	Line      uint64            `json:"line,string"` // number of the last line worked on
	Counts    map[string]uint64 `json:"counts"`      // all that was ever counted
	Spool     mark              `json:"spool"`       // end of the spool
	Batches   spool.Pos         `json:"batches"`     // end of the record of batches
	Live      laneState         `json:"live"`
	Backlog   laneState         `json:"backlog"`
	Ranges    []span            `json:"ranges"` // of the spool, that the backlog lane has still to send; ascending
	// Gone are records of the spool, in places that lanes have still to pass, that were let go for want of room; Thin is that at work.
	Gone uint64    `json:"gone,string,omitempty"`
	Thin *thinning `json:"thin,omitempty"`
	// LastReceipt is the SHA-256 of the newest receipt's envelope, ReceiptTime the hub's time in it.
	LastReceipt  digest        `json:"last_receipt"`
	ReceiptTime  time.Time     `json:"receipt_time"`
	Checkpoint   string        `json:"checkpoint"`
	Interval     time.Duration `json:"interval_ns"`
	Offset       time.Duration `json:"offset_ns"` // hub's clock minus ours
	Acknowledged uint64        `json:"acknowledged,string"`
	Epochs       []string      `json:"epochs"` // begun by this collector, newest last
	// Covered are numbers of lines that the hub had from another copy of this collector when that was noticed: their events are passed over.
	Covered intervals `json:"covered"`
	// Side are the lanes with spools of their own.
	Side map[batch.Lane]*sideState `json:"side,omitempty"`
	// Totals are what the hub has confirmed in each stream, newest last: what the member's statement is compared with.
	Totals   []StreamTotal    `json:"totals,omitempty"`
	Answered []string         `json:"answered,omitempty"` // questions whose answers are in the spool or left
	Raw      *Troubleshooting `json:"raw,omitempty"`      // raw lines leave; nil: they do not
	Flushes  flushes          `json:"flushes,omitzero"`
	// CoveredLine: lines up to it were counted by that other copy.
	CoveredLine uint64 `json:"covered_line,string"`
}

// mark is a place in the spool: the position, the number of the record at it, and the number of the last line before it.
type mark struct {
	Pos  spool.Pos `json:"pos"`
	Num  uint64    `json:"num,string"`
	Line uint64    `json:"line,string"`
}

type span struct {
	From mark `json:"from"`
	To   mark `json:"to"`
}

// laneState is where a lane stands.
type laneState struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq,string"` // of the last batch with a receipt; 0: none in this epoch
	Prev  digest `json:"prev"`       // its digest
	At    mark   `json:"at"`         // live: everything before it has a receipt or belongs to the backlog
	// Reported are the counts that batches with receipts have carried, and Cursor and Line the place in the archive that they belong to.
	Reported map[string]uint64 `json:"reported,omitempty"`
	Cursor   spool.Pos         `json:"cursor"`
	Line     uint64            `json:"line,string"`
	Done     intervals         `json:"done"` // numbers of lines in batches with receipts, of this epoch
	Pending  *pending          `json:"pending,omitempty"`
}

// pending is a sealed batch without a receipt. Its fields become the lane's when the receipt comes.
type pending struct {
	Seq      uint64            `json:"seq,string"`
	Digest   digest            `json:"digest"`
	At       spool.Pos         `json:"at"` // in the record of batches
	Events   int               `json:"events"`
	Skipped  int               `json:"skipped"`               // records passed over as covered
	Gone     uint64            `json:"gone,string,omitempty"` // records that had been let go
	From     mark              `json:"from"`                  // of the spool
	To       mark              `json:"to"`
	Next     *mark             `json:"next,omitempty"` // live: where the lane goes on, when what followed the batch became backlog; nil: at To
	Reported map[string]uint64 `json:"reported,omitempty"`
	Cursor   spool.Pos         `json:"cursor"`
	Line     uint64            `json:"line,string"`
	Done     intervals         `json:"done"`
	Sealed   time.Time         `json:"sealed"`
	Urgent   bool              `json:"urgent"`
}

// next is where the lane goes on after the batch.
func (p *pending) next() mark {
	if p.Next != nil {
		return *p.Next
	}
	return p.To
}

const stateVersion = 1

func newState(collector string) *state {
	s := &state{Version: stateVersion, Collector: collector, Counts: map[string]uint64{}, Interval: time.Second}
	for _, l := range []*laneState{&s.Live, &s.Backlog} {
		s.newEpoch(l)
	}
	return s
}

// maxEpochs is how many epochs a collector remembers as its own.
const maxEpochs = 64

// newEpoch begins a lane anew. The sealed batch without a receipt, if there is one, is given up: its events are still in the spool.
func (s *state) newEpoch(l *laneState) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand does not fail on the systems Go supports
	}
	l.Epoch = hex.EncodeToString(b[:])
	l.Seq, l.Prev, l.Done, l.Pending = 0, digest{}, nil, nil
	s.Epochs = append(s.Epochs, l.Epoch)
	if n := len(s.Epochs); n > maxEpochs {
		s.Epochs = slices.Clone(s.Epochs[n-maxEpochs:])
	}
}

func (s *state) encode() ([]byte, error) { return json.Marshal(s) }

// decodeState reads a state and checks that it can be worked from.
func decodeState(b []byte) (*state, error) {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("state: version %d is not known to this program; run a newer one", s.Version)
	}
	if s.Counts == nil {
		s.Counts = map[string]uint64{}
	}
	for _, l := range s.lanes() {
		if b, err := hex.DecodeString(l.Epoch); err != nil || len(b) != 16 {
			return nil, errors.New("state: an epoch is not 32 hexadecimal digits")
		}
		if err := l.Done.check(); err != nil {
			return nil, err
		}
		if p := l.Pending; p != nil {
			if p.Seq != l.Seq+1 || p.To.Pos.Before(p.From.Pos) || p.To.Num < p.From.Num || p.next().Num < p.To.Num {
				return nil, errors.New("state: the sealed batch does not follow its lane")
			}
			if err := p.Done.check(); err != nil {
				return nil, err
			}
		}
	}
	if p := s.Live.Pending; p != nil && p.Next == nil { // of a version that let a batch's end stand for its place
		for _, r := range s.Ranges {
			if r.From.Num >= p.From.Num && r.To.Num <= p.To.Num {
				next := p.To
				p.To, p.Next = r.From, &next
				break
			}
		}
	}
	for i, r := range s.Ranges {
		if r.To.Pos.Before(r.From.Pos) || r.To.Num < r.From.Num || i > 0 && r.From.Num < s.Ranges[i-1].To.Num {
			return nil, errors.New("state: the backlog's ranges are not in order")
		}
	}
	if s.Thin != nil && (s.Thin.Value < valueLow || s.Thin.Value > valueHigh) {
		return nil, errors.New("state: what is being let go has no value")
	}
	if s.Live.At.Num > s.Spool.Num {
		return nil, errors.New("state: the live lane stands behind the end of the spool")
	}
	if err := s.Covered.check(); err != nil {
		return nil, err
	}
	s.Interval = min(max(s.Interval, 200*time.Millisecond), 30*time.Second)
	return &s, nil
}

// waiting is the number of events in the spool that are in no sealed batch.
func (s *state) waiting() uint64 {
	at := s.Live.At
	if p := s.Live.Pending; p != nil {
		at = p.next()
	}
	n := s.Spool.Num - min(at.Num, s.Spool.Num)
	for i, r := range s.Ranges {
		from := r.From.Num
		if p := s.Backlog.Pending; p != nil && i == 0 {
			from = max(from, min(p.To.Num, r.To.Num))
		}
		n += r.To.Num - from
	}
	n -= min(n, s.gone())
	for _, d := range s.Side {
		from := d.Lane.At.Num
		if p := d.Lane.Pending; p != nil {
			from = p.To.Num
		}
		n += d.End.Num - min(from, d.End.Num)
	}
	return n
}

// gone is how many records were let go that no sealed batch has passed.
func (s *state) gone() uint64 {
	n := s.Gone
	for _, l := range []*laneState{&s.Live, &s.Backlog} {
		if l.Pending != nil {
			n -= min(n, l.Pending.Gone)
		}
	}
	return n
}

// sealed is the number of events in batches without a receipt.
func (s *state) sealed() (n uint64) {
	for _, l := range s.lanes() {
		if l.Pending != nil {
			n += uint64(l.Pending.Events)
		}
	}
	return n
}

// intervals is a set of line numbers: closed intervals, ascending, apart.
type intervals [][2]uint64

// maxIntervals bounds the notes in manifests. Beyond it the oldest are forgotten: they belong to lines long acknowledged.
const maxIntervals = 40

// add gives the set with from..to in it. from must not be below the last interval's beginning.
func (s intervals) add(from, to uint64) intervals {
	if to < from {
		return s
	}
	s = slices.Clone(s)
	if n := len(s); n > 0 && from <= s[n-1][1]+1 {
		s[n-1][1] = max(s[n-1][1], to)
		return s
	}
	s = append(s, [2]uint64{from, to})
	if len(s) > maxIntervals {
		s = slices.Delete(s, 0, len(s)-maxIntervals)
	}
	return s
}

func (s intervals) contains(n uint64) bool {
	i, ok := slices.BinarySearchFunc(s, n, func(iv [2]uint64, n uint64) int {
		switch {
		case iv[1] < n:
			return -1
		case iv[0] > n:
			return 1
		}
		return 0
	})
	return ok && i < len(s)
}

// union gives the set of both, whole: unlike add it forgets nothing.
func (s intervals) union(t intervals) intervals {
	all := slices.Concat(s, t)
	slices.SortFunc(all, func(a, b [2]uint64) int {
		switch {
		case a[0] < b[0]:
			return -1
		case a[0] > b[0]:
			return 1
		}
		return 0
	})
	var out intervals
	for _, iv := range all {
		if n := len(out); n > 0 && (iv[0] <= out[n-1][1] || iv[0] == out[n-1][1]+1) {
			out[n-1][1] = max(out[n-1][1], iv[1])
			continue
		}
		out = append(out, iv)
	}
	return out
}

func (s intervals) check() error {
	for i, iv := range s {
		if iv[1] < iv[0] || i > 0 && iv[0] <= s[i-1][1] {
			return errors.New("state: a set of line numbers is not in order")
		}
	}
	return nil
}

// position is the note in a manifest that the hub gives back with a stream's head.
type position struct {
	Counted uint64    `json:"l,string,omitempty"` // lines up to this number are counted in this stream or in those before
	Done    intervals `json:"d"`                  // numbers of the lines whose events are in this stream
}

func (p position) encode() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers always marshal
	}
	return string(b)
}

func decodePosition(s string) (p position, err error) {
	if s == "" {
		return p, errors.New("no note of the position")
	}
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return p, err
	}
	return p, p.Done.check()
}

// digest is a SHA-256 in hexadecimal.
type digest [32]byte

// MarshalText writes hexadecimal.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads it.
func (d *digest) UnmarshalText(b []byte) error {
	if len(b) != 64 {
		return errors.New("not a SHA-256 in hexadecimal")
	}
	_, err := hex.Decode(d[:], b)
	return err
}

func (d digest) String() string { return hex.EncodeToString(d[:]) }

func streamOf(e *enrolled, lane batch.Lane, epoch string) batch.Stream {
	return batch.Stream{Collector: e.Collector, Tenant: e.tenant(), Lane: lane, Epoch: epoch}
}
