package worker

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/uptrace/bun"

	"tocsin/internal/bus"
	"tocsin/internal/event"
)

// What could not be processed lies in worker_dead, one letter for a batch, for one event of it, or for several. When the fault is mended
// somebody asks for another try (Plans.Ask): the letter is given the name of the try, durably, and the batch's notice is published once more
// under that name. The worker takes such a notice for what its letter stands for, beside the order of the stream, and only while the letter
// asks for this very try; the plan that stores the rows takes the letter away or gives it its new reason, in the transaction that marks it
// done. So a notice that is published twice, and a crash at any moment, change nothing.

// Dead is one thing that could not be processed: a batch, one event of it, or several.
type Dead struct {
	BusSeq    uint64 // of the message; 0 once that bus is gone
	Index     int    // of the event in its batch; -1: the whole batch, or Places
	Places    []uint32
	At        int64
	Stream    event.StreamID // zero when the message could not be read
	Seq       uint64         // of the batch in its stream
	Tenant    event.TenantID
	Collector string
	Digest    string
	Events    int
	Reason    string
	Notice    []byte
	Detected  bool   // the rules have seen these events
	Try       string // the try that was asked for and is not done; "" when none is
	Tries     int    // that failed

	shard string
	key   int64 // BusSeq as the table has it: below 0 once that bus is gone
}

// ID names a letter for people, for as long as it lies there; see nameForm.
func (d *Dead) ID() string {
	place := "all"
	if d.Index >= 0 {
		place = strconv.Itoa(d.Index)
	}
	if d.Stream == (event.StreamID{}) {
		return fmt.Sprintf("unreadable-%d/%s", d.BusSeq, place)
	}
	return fmt.Sprintf("%.12s/%s", d.Digest, place)
}

// wanted are the indices that the letter stands for; nil: the whole batch.
func (d *Dead) wanted() []uint32 {
	if len(d.Places) > 0 || d.Index < 0 {
		return d.Places
	}
	return []uint32{uint32(d.Index)}
}

// Retriable says why there can be no other try; "" when there can.
func (d *Dead) Retriable() string {
	n, err := bus.ParseNotice(d.Notice)
	switch {
	case err != nil || d.Stream == (event.StreamID{}):
		return "its message cannot be read, or an older version of this program put it aside without saying which events it stands for"
	case d.Index >= n.Events && len(d.Places) == 0:
		return "an older version of this program put it aside without saying which events it stands for"
	}
	return ""
}

// Again is the notice that asks for the letter's try.
func (d *Dead) Again() (bus.Notice, error) {
	n, err := bus.ParseNotice(d.Notice)
	n.Retry = &bus.Retry{ID: d.Try, Places: d.wanted(), Detected: d.Detected}
	return n, err
}

func (d *Dead) insert(ctx context.Context, tx bun.IDB, shard string, at int64) error {
	_, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO worker_dead (shard, bus_seq, place, at_ns, tenant, collector, digest, events, reason, notice, stream, seq, places, detected) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		shard, d.BusSeq, d.Index, at, d.Tenant, d.Collector, d.Digest, d.Events, d.Reason, d.Notice, streamBytes(d.Stream), int64(d.Seq), placesText(d.Places), d.Detected)
	return err
}

func streamBytes(s event.StreamID) []byte {
	if s == (event.StreamID{}) {
		return []byte{}
	}
	return s[:]
}

func placesText(p []uint32) string {
	if len(p) == 0 {
		return ""
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // numbers always marshal
	}
	return string(b)
}

// Tried is what became of another try.
type Tried struct {
	ID       string // of the try
	Stream   event.StreamID
	Stored   int
	Left     []uint32 // what failed again
	All      bool     // all of it did: what the letter stands for stays as it was
	Detected bool     // the rules have seen these events now
	Reason   string
}

// refuse turns it into one that failed after all, when its events had been decoded and seen.
func (t *Tried) refuse(reason string) {
	t.Stored, t.Left, t.All, t.Detected, t.Reason = 0, nil, true, true, reason
}

// note takes the letter away, or says why it stays, and moves what was stored from one of its collector's sums to the other.
func (t *Tried) note(ctx context.Context, tx bun.IDB) error {
	q, args := "DELETE FROM worker_dead WHERE retry = ?", []any{t.ID}
	switch {
	case t.All:
		q, args = "UPDATE worker_dead SET retry = '', tries = tries + 1, reason = ?, detected = max(detected, ?) WHERE retry = ?", []any{t.Reason, t.Detected, t.ID}
	case len(t.Left) > 0:
		q, args = "UPDATE worker_dead SET retry = '', tries = tries + 1, reason = ?, events = ?, places = ? WHERE retry = ?", []any{t.Reason, len(t.Left), placesText(t.Left), t.ID}
	}
	res, err := tx.ExecContext(ctx, q, args...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 || t.Stored == 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE worker_heads SET events = events + ?, dead = max(0, dead - ?) WHERE stream = ?", t.Stored, t.Stored, t.Stream[:])
	return err
}

// DeadLetters lists what could not be processed, newest first.
func (p *Plans) DeadLetters(ctx context.Context, limit int) ([]Dead, error) {
	return letters(ctx, p.db.Read().DB, "ORDER BY at_ns DESC, bus_seq DESC, place LIMIT ?", limit)
}

// Aside counts the dead letters, and the events that they stand for.
func (p *Plans) Aside(ctx context.Context) (letters, events uint64, err error) {
	if err := p.db.Read().DB.QueryRowContext(ctx, "SELECT count(*), COALESCE(sum(events), 0) FROM worker_dead").Scan(&letters, &events); err != nil {
		return 0, 0, fmt.Errorf("count the dead letters: %w", err)
	}
	return letters, events, nil
}

// Asked lists the letters whose try was asked for and is not done.
func (p *Plans) Asked(ctx context.Context) ([]Dead, error) {
	return letters(ctx, p.db.Read().DB, "WHERE retry <> '' ORDER BY at_ns, bus_seq, place")
}

// asker is a database or a transaction.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func letters(ctx context.Context, db asker, which string, args ...any) ([]Dead, error) {
	rows, err := db.QueryContext(ctx, "SELECT shard, bus_seq, place, at_ns, tenant, collector, digest, events, reason, notice, stream, seq, places, detected, retry, tries FROM worker_dead "+which, args...)
	if err != nil {
		return nil, fmt.Errorf("list the dead letters: %w", err)
	}
	defer rows.Close()
	var out []Dead
	for rows.Next() {
		var d Dead
		var stream []byte
		var places string
		err := rows.Scan(&d.shard, &d.key, &d.Index, &d.At, &d.Tenant, &d.Collector, &d.Digest, &d.Events, &d.Reason, &d.Notice, &stream, &d.Seq, &places, &d.Detected, &d.Try, &d.Tries)
		if err == nil && places != "" {
			err = json.Unmarshal([]byte(places), &d.Places)
		}
		if err != nil {
			return nil, fmt.Errorf("list the dead letters: %w", err)
		}
		d.BusSeq = uint64(max(d.key, 0))
		copy(d.Stream[:], stream)
		out = append(out, d)
	}
	return out, rows.Err()
}

// ErrNoLetter says that no dead letter has a name.
var ErrNoLetter = errors.New("there is no such dead letter")

// AskMost is how many letters one call of Ask takes.
const AskMost = 10_000

// nameForm is a letter's name, or the beginning of its batch's digest, which names all letters of that batch.
var nameForm = regexp.MustCompile(`^([0-9a-f]{6,64})(?:/(all|[0-9]{1,5}))?$`)

// Ask asks for another try of the letters with these names, or of all when none is named: the oldest AskMost of them. It gives those that
// were asked for, each with its try, for their notices to be published; and those that can have none, see Retriable. A letter whose
// try was asked for before keeps that try: publishing its notice again does no harm. A name that is not there is ErrNoLetter, and
// then nothing is asked for. Durable on return.
func (p *Plans) Ask(ctx context.Context, names []string, mint func() string) (asked, never []Dead, err error) {
	err = p.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		asked, never = nil, nil
		var chosen []Dead
		if len(names) == 0 {
			if chosen, err = letters(ctx, tx, "ORDER BY at_ns, bus_seq, place LIMIT ?", AskMost); err != nil {
				return err
			}
		}
		for _, name := range names {
			m := nameForm.FindStringSubmatch(name)
			if m == nil {
				return fmt.Errorf("%w: %.80q", ErrNoLetter, name)
			}
			which, args := "WHERE digest LIKE ? || '%'", []any{m[1]}
			switch {
			case m[2] == "all":
				which += " AND place = -1"
			case m[2] != "":
				which, args = which+" AND place = ?", append(args, m[2])
			}
			found, err := letters(ctx, tx, which+" ORDER BY at_ns, bus_seq, place LIMIT ?", append(args, AskMost)...)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return fmt.Errorf("%w: %.80q", ErrNoLetter, name)
			}
			for _, d := range found {
				if !slices.ContainsFunc(chosen, func(c Dead) bool { return c.shard == d.shard && c.key == d.key && c.Index == d.Index }) {
					chosen = append(chosen, d)
				}
			}
		}
		for _, d := range chosen {
			if d.Retriable() != "" {
				never = append(never, d)
				continue
			}
			if d.Try == "" {
				d.Try = mint()
				if _, err := tx.ExecContext(ctx, "UPDATE worker_dead SET retry = ? WHERE shard = ? AND bus_seq = ? AND place = ?", d.Try, d.shard, d.key, d.Index); err != nil {
					return err
				}
			}
			asked = append(asked, d)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("ask for another try of dead letters: %w", err)
	}
	return asked, never, nil
}

// asks says whether a letter asks for this try.
func (p *Plans) asks(ctx context.Context, try string) (bool, error) {
	var n int
	if err := p.db.Read().DB.QueryRowContext(ctx, "SELECT count(*) FROM worker_dead WHERE retry = ?", try).Scan(&n); err != nil {
		return false, fmt.Errorf("look for a dead letter: %w", err)
	}
	return n > 0, nil
}

// batchKey is a batch, by its place in its stream.
type batchKey struct {
	stream event.StreamID
	seq    uint64
}

// unseen gives, by batch, the events that lie aside and that the rules have not seen; of a batch that lies there whole, none: nil.
func (p *Plans) unseen(ctx context.Context) (map[batchKey][]uint32, error) {
	list, err := letters(ctx, p.db.Read().DB, "WHERE detected = 0 ORDER BY at_ns DESC LIMIT ?", AskMost)
	if err != nil {
		return nil, err
	}
	out := map[batchKey][]uint32{}
	for i := range list {
		k := batchKey{list[i].Stream, list[i].Seq}
		out[k] = append(out[k], list[i].wanted()...)
	}
	return out, nil
}

// HeldBlobs lists where the blobs of all dead letters are: what could not be processed must not expire while somebody may still ask for it.
func (p *Plans) HeldBlobs(ctx context.Context) ([]string, error) {
	rows, err := p.db.Read().DB.QueryContext(ctx, "SELECT min(notice) FROM worker_dead GROUP BY shard, bus_seq")
	if err != nil {
		return nil, fmt.Errorf("list the blobs of dead letters: %w", err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var data []byte
		if err := rows.Scan(&data); err != nil {
			return nil, fmt.Errorf("list the blobs of dead letters: %w", err)
		}
		if n, err := bus.ParseNotice(data); err == nil && n.Blob != "" { // a letter whose notice cannot be read leads to no blob
			out = append(out, n.Blob)
		}
	}
	return out, rows.Err()
}

// retry takes what a dead letter stands for once more.
func (w *Worker) retry(ctx context.Context, o *opened, j *job) error {
	try := o.n.Retry
	if w.tried[try.ID] || w.triedOnce[try.ID] {
		w.m.repeats.Add(1)
		return nil
	}
	if asks, err := w.o.Plans.asks(ctx, try.ID); err != nil || !asks {
		w.m.repeats.Add(1)
		return err
	}
	// Until its plan is done the letter goes on asking: the same notice must not be taken a second time meanwhile.
	w.tried[try.ID] = true
	t := Tried{ID: try.ID, Stream: o.stream, Reason: o.reason}
	if t.Reason == "" && len(try.Places) > 0 && int(slices.Max(try.Places)) >= len(o.body.Lines()) {
		t.Reason = "the letter names an event that its batch does not have"
	}
	if t.Reason != "" {
		t.All = true
		j.tried = append(j.tried, t)
		return nil
	}
	places := try.Places
	if len(places) == 0 {
		for i := range o.body.Lines() {
			places = append(places, uint32(i))
		}
	}
	// Other rows of the batch may be stored already, and some of these too: they are counted before they are stored. A block that begins
	// and ends in one batch counts its own range alone, so each row of events without a gap has a block of its own.
	j.doubt = true
	meta := w.meta(o)
	var block Block
	for n, at := range places {
		if err := w.row(o, int(at), j, try.Detected); err != nil {
			t.Left, t.Reason, block = append(t.Left, at), err.Error(), nil
			continue
		}
		if n > 0 && places[n-1]+1 != at {
			block = nil
		}
		if block == nil || !block.Add(&w.e, meta) {
			block = w.free.Get().(Block)
			j.blocks = append(j.blocks, block)
			block.Add(&w.e, meta)
		}
		t.Stored++
	}
	j.blocks = append(j.blocks, w.free.Get().(Block)) // what comes next does not share the last one
	t.All = t.Stored == 0
	w.m.retried.Add(uint64(t.Stored))
	w.log.InfoContext(ctx, "what was put aside is tried again", "tenant", o.n.Tenant, "collector", o.n.Collector, "batch", o.n.Seq, "stored", t.Stored, "failed_again", len(t.Left))
	j.tried = append(j.tried, t)
	j.events += uint64(t.Stored)
	j.rows += t.Stored
	return nil
}

// rest are the indices below n that are not among places, which rise.
func rest(n int, places []uint32) []uint32 {
	out := make([]uint32, 0, max(0, n-len(places)))
	for i := range uint32(n) {
		if _, found := slices.BinarySearch(places, i); !found {
			out = append(out, i)
		}
	}
	return out
}
