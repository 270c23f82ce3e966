// Package ledger is the tamper-evident log of what the hub took and of what it may ask: one entry for each batch, in the order of the bus,
// one for each registration, confirmation, revocation, fork and clone, and one for each signed directive before a collector sees it.
//
// It reads the bus, the register of members and the folder of directives, and writes a Tessera log (tiles, entry bundles and signed checkpoints in files, in the
// tlog-tiles format that others can read) and, in the database, where each entry stands. An entry is 32 bytes: the SHA-256 of a batch's or directive's
// envelope, or of a line of the register. It says nothing to who does not hold what was digested.
//
// The log's files are the truth. An entry is in them before it is in the database, and in the database before the bus is told. After a
// crash in between, Open reads from the files what the database lacks, and what the bus brings again is known and dropped.
//
// There is one writer, held by a lock on the folder. Counted: entries added, repeats dropped, failures, messages behind (Stats).
package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/storage/posix"
	"github.com/uptrace/bun"
	"golang.org/x/mod/sumdb/note"

	"tocsin/internal/batch"
	"tocsin/internal/bus"
	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/member"
)

// Follower is the ledger's name on the bus.
const Follower = "ledger"

// ErrBusy says that another process writes this ledger.
var ErrBusy = errors.New("another process writes this ledger")

// ErrNotFound says that a digest is not in the ledger.
var ErrNotFound = errors.New("not in the ledger")

// Register is what the ledger follows besides the bus: member.Store.
type Register interface {
	// Log returns up to n lines after a number, in order.
	Log(ctx context.Context, after int64, n int) ([]member.LogEntry, error)
}

// Messages is the ledger's place on the bus: *bus.Consumer.
type Messages interface {
	Fetch(ctx context.Context, limit int, wait time.Duration) ([]bus.Msg, error)
	AckThrough(ctx context.Context, seq uint64) error
	Lag(ctx context.Context) (uint64, error)
}

// Options say where the ledger stands and what it follows.
type Options struct {
	Dir      string
	Signer   note.Signer // of checkpoints; its name is the log's origin
	DB       *db.DB
	Messages Messages
	Register Register
	// Directives gives the SHA-256 of every directive's envelope that is to be handed out; asked every DirectivesEvery (default 2 s). nil: none.
	Directives      func() [][32]byte
	DirectivesEvery time.Duration
	Logger          *slog.Logger
	Now             func() time.Time // default time.Now
	// Predecessor is the newest checkpoint of the log before this one, whose copy was restored and which therefore must not grow any more:
	// its SHA-256 is this log's first entry. Empty when there was none.
	Predecessor []byte
	// CheckpointEvery is how often a checkpoint is signed while entries come; default 1 s.
	CheckpointEvery time.Duration
	// After is the ledger, now closed, whose place this one takes in the same process: its counts go on.
	After *Ledger
}

// Ledger is an open ledger. Run belongs to one goroutine; everything else is safe for concurrent use.
type Ledger struct {
	o        Options
	log      *slog.Logger
	lock     *os.File
	appender *tessera.Appender
	shutdown func(context.Context) error
	reader   tessera.LogReader
	stop     context.CancelFunc // ends the appender's own goroutines

	latestMu sync.Mutex
	latest   []byte
	latestAt time.Time

	closing  sync.Once
	closeErr error
	ended    atomic.Bool // Run has returned
	c        *counts

	// Run's own.
	directivesAt time.Time
	directives   map[[32]byte]bool // entered, as far as this process knows
}

type counts struct{ added, repeated, failed, restarts atomic.Uint64 }

// Stats counts since Open, and since the Open of those before it in this process (Options.After).
type Stats struct {
	Added, Repeated, Failed uint64
	Restarts                uint64 // how often another took the place of one that had failed
	Running                 bool   // Run has not ended
	Lag                     uint64 // bus messages not yet in the ledger
}

const (
	fetchLimit  = 1024
	fetchWait   = 200 * time.Millisecond
	batchShare  = 5 // Tessera waits this part of the time between checkpoints for more entries before it writes
	registerMax = 256
)

// Open opens the ledger in o.Dir, making it if there is none, and mends what a crash left between its files and the database.
func Open(ctx context.Context, o Options) (*Ledger, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CheckpointEvery == 0 {
		o.CheckpointEvery = time.Second
	}
	if o.DirectivesEvery == 0 {
		o.DirectivesEvery = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, "writer.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("ledger %s: %w", o.Dir, ErrBusy)
	}
	l := &Ledger{o: o, log: o.Logger.With("stage", "ledger"), lock: lock, c: &counts{}, directives: map[[32]byte]bool{}}
	if o.After != nil {
		l.c, l.o.After = o.After.c, nil
		l.c.restarts.Add(1)
	}
	if err := l.open(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("ledger %s: %w", o.Dir, err)
	}
	if err := l.mend(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", o.Dir, err), l.Close(ctx))
	}
	if err := l.follow(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger %s: %w", o.Dir, err), l.Close(ctx))
	}
	return l, nil
}

// follow puts the predecessor's checkpoint before everything else.
func (l *Ledger) follow(ctx context.Context) error {
	if len(l.o.Predecessor) == 0 {
		return nil
	}
	if size, err := l.reader.IntegratedSize(ctx); err != nil || size > 0 {
		return err
	}
	leaf := sha256.Sum256(l.o.Predecessor)
	return l.add(ctx, []row{{Leaf: leaf[:], Kind: "predecessor"}}, nil)
}

func (l *Ledger) open() error {
	// The appender outlives the context of the one who opens it; Close ends it.
	ctx, stop := context.WithCancel(context.Background())
	driver, err := posix.New(ctx, posix.Config{Path: filepath.Join(l.o.Dir, "log")})
	if err != nil {
		stop()
		return err
	}
	opts := tessera.NewAppendOptions().
		WithCheckpointSigner(l.o.Signer).
		WithCheckpointInterval(l.o.CheckpointEvery).
		WithBatching(fetchLimit, l.o.CheckpointEvery/batchShare).
		WithPushback(4 * fetchLimit)
	l.appender, l.shutdown, l.reader, err = tessera.NewAppender(ctx, driver, opts)
	if err != nil {
		stop()
		return err
	}
	l.stop = stop
	return nil
}

// mend writes into the database what stands in the files and not there.
func (l *Ledger) mend(ctx context.Context) error {
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return fmt.Errorf("size: %w", err)
	}
	var known uint64
	if err := l.o.DB.Read().NewRaw("SELECT coalesce(max(idx) + 1, 0) FROM ledger_entries").Scan(ctx, &known); err != nil {
		return fmt.Errorf("entries known: %w", err)
	}
	if known > size {
		return fmt.Errorf("the database knows %d entries, the log has %d: an older copy of the log was put back. A tree must never grow again at a size that was published; restore the newest copy of the ledger's folder", known, size)
	}
	if known < size {
		l.log.InfoContext(ctx, "reading entries that the database lacks", "from", known, "to", size)
	}
	const width = 256 // entries in a bundle (tlog-tiles)
	for known < size {
		bundle, err := client.GetEntryBundle(ctx, l.reader.ReadEntryBundle, known/width, size)
		if err != nil {
			return err
		}
		start := known / width * width
		var rows []row
		for i, e := range bundle.Entries {
			idx := start + uint64(i)
			if idx < known || idx >= size {
				continue
			}
			if len(e) != sha256.Size {
				return fmt.Errorf("entry %d has %d bytes, want 32: this is not a ledger of ours", idx, len(e))
			}
			rows = append(rows, row{Leaf: e, Idx: int64(idx)})
		}
		if len(rows) == 0 {
			return fmt.Errorf("bundle %d is empty", known/width)
		}
		if err := l.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error { return insert(ctx, tx, rows) }); err != nil {
			return err
		}
		known += uint64(len(rows))
	}
	return nil
}

type row struct {
	bun.BaseModel `bun:"table:ledger_entries"`

	Leaf      []byte `bun:"leaf"`
	Idx       int64  `bun:"idx"`
	Kind      string `bun:"kind"`
	Tenant    int64  `bun:"tenant"`
	Collector string `bun:"collector"`
	Stream    []byte `bun:"stream,nullzero"`
	Seq       int64  `bun:"seq"`
	AddedNS   int64  `bun:"added_ns"`
}

// insert writes rows; one that was made again from the files gets what only the messenger knows.
func insert(ctx context.Context, tx bun.IDB, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	_, err := tx.NewInsert().Model(&rows).
		On("CONFLICT (leaf) DO UPDATE").
		Set("kind = EXCLUDED.kind, tenant = EXCLUDED.tenant, collector = EXCLUDED.collector, stream = EXCLUDED.stream, seq = EXCLUDED.seq, added_ns = EXCLUDED.added_ns").
		Where("row.kind = ''").Exec(ctx)
	return err
}

// Run follows the bus and the register until ctx is done. An error means that the ledger's state is unknown: close it and open it again.
func (l *Ledger) Run(ctx context.Context) error {
	defer l.ended.Store(true)
	for ctx.Err() == nil {
		if err := l.register(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("ledger: %w", err)
		}
		if err := l.enterDirectives(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("ledger: %w", err)
		}
		if err := l.batches(ctx); err != nil && ctx.Err() == nil {
			if errors.Is(err, bus.ErrUnavailable) {
				l.c.failed.Add(1)
				l.log.WarnContext(ctx, "the bus is away; trying again", "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
				continue
			}
			return fmt.Errorf("ledger: %w", err)
		}
	}
	return nil
}

// batches takes what the bus has next.
func (l *Ledger) batches(ctx context.Context) error {
	msgs, err := l.o.Messages.Fetch(ctx, fetchLimit, fetchWait)
	if err != nil || len(msgs) == 0 {
		return err
	}
	rows := make([]row, 0, len(msgs))
	for _, m := range msgs {
		n, err := bus.ParseNotice(m.Data)
		if err != nil {
			// The gate wrote it, so this is a fault of ours: it must be seen, and must not stop the line.
			l.c.failed.Add(1)
			l.log.ErrorContext(ctx, "a message cannot be read and is passed over", "bus_seq", m.Seq, "err", err)
			continue
		}
		stream := batch.Stream{Collector: n.Collector, Tenant: n.Tenant, Lane: batch.Lane(n.Lane), Epoch: n.Epoch}.ID()
		rows = append(rows, row{Leaf: bytes.Clone(n.Digest[:]), Kind: "batch", Tenant: int64(n.Tenant), Collector: n.Collector, Stream: stream[:], Seq: int64(n.Seq)})
	}
	if err := l.add(ctx, rows, nil); err != nil {
		return err
	}
	return l.o.Messages.AckThrough(ctx, msgs[len(msgs)-1].Seq)
}

// register takes what the register of members has next.
func (l *Ledger) register(ctx context.Context) error {
	for {
		var after int64
		if err := l.o.DB.Read().NewRaw("SELECT register FROM ledger_cursor WHERE id = 1").Scan(ctx, &after); err != nil {
			return fmt.Errorf("place in the register: %w", err)
		}
		lines, err := l.o.Register.Log(ctx, after, registerMax)
		if err != nil {
			return fmt.Errorf("register: %w", err)
		}
		if len(lines) == 0 {
			return nil
		}
		rows := make([]row, len(lines))
		for i, line := range lines {
			leaf, err := RegisterLeaf(line)
			if err != nil {
				return err
			}
			rows[i] = row{Leaf: leaf[:], Kind: line.Kind, Tenant: int64(line.Tenant), Collector: line.Collector, Seq: line.Seq}
		}
		last := lines[len(lines)-1].Seq
		if err := l.add(ctx, rows, &last); err != nil {
			return err
		}
	}
}

// enterDirectives enters the directives that are not in the log yet.
func (l *Ledger) enterDirectives(ctx context.Context) error {
	now := l.o.Now()
	if l.o.Directives == nil || now.Sub(l.directivesAt).Abs() < l.o.DirectivesEvery {
		return nil
	}
	l.directivesAt = now
	listed := map[[32]byte]bool{}
	var rows []row
	for _, d := range l.o.Directives() {
		if listed[d] {
			continue
		}
		listed[d] = true
		if !l.directives[d] {
			rows = append(rows, row{Leaf: bytes.Clone(d[:]), Kind: "directive"})
		}
	}
	if len(rows) > 0 {
		if err := l.add(ctx, rows, nil); err != nil {
			return err
		}
	}
	l.directives = listed // what is handed out no more need not be remembered
	return nil
}

// RegisterLeaf is the entry that a line of the register makes: the SHA-256 of its JSON with the keys seq, kind, collector, tenant, at and
// body, in that order.
func RegisterLeaf(line member.LogEntry) ([32]byte, error) {
	b, err := json.Marshal(struct {
		Seq       int64           `json:"seq,string"`
		Kind      string          `json:"kind"`
		Collector string          `json:"collector"`
		Tenant    event.TenantID  `json:"tenant"`
		At        int64           `json:"at,string"`
		Body      json.RawMessage `json:"body"`
	}{line.Seq, line.Kind, line.Collector, line.Tenant, line.AtNS, line.Body})
	if err != nil {
		return [32]byte{}, fmt.Errorf("line %d of the register: %w", line.Seq, err)
	}
	return sha256.Sum256(b), nil
}

// add puts rows that are new into the log, then all of them into the database, with the place in the register if that moved.
func (l *Ledger) add(ctx context.Context, rows []row, registerSeq *int64) error {
	places, err := l.places(ctx, rows)
	if err != nil {
		return err
	}
	type pending struct {
		at     int
		future tessera.IndexFuture
	}
	var futures []pending
	now := l.o.Now().UnixNano()
	fresh := rows[:0:0]
	for i := range rows {
		key := string(rows[i].Leaf)
		idx, known := places[key]
		if known && idx >= 0 {
			l.c.repeated.Add(1)
			rows[i].Idx = idx
			rows[i].AddedNS = now
			fresh = append(fresh, rows[i]) // only fills in what a mended row lacks
			continue
		}
		if known {
			l.c.repeated.Add(1) // twice among these rows
			continue
		}
		places[key] = -1
		rows[i].AddedNS = now
		// Entries are added all at once and waited for together: Tessera writes them as one bundle.
		futures = append(futures, pending{len(fresh), l.appender.Add(ctx, tessera.NewEntry(rows[i].Leaf))})
		fresh = append(fresh, rows[i])
	}
	for _, p := range futures {
		index, err := p.future()
		if err != nil {
			l.c.failed.Add(1)
			return fmt.Errorf("adding to the log: %w", err)
		}
		fresh[p.at].Idx = int64(index.Index)
	}
	err = l.o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		if err := insert(ctx, tx, fresh); err != nil {
			return err
		}
		if registerSeq != nil {
			_, err := tx.NewRaw("UPDATE ledger_cursor SET register = ? WHERE id = 1", *registerSeq).Exec(ctx)
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording %d entries: %w", len(fresh), err)
	}
	l.c.added.Add(uint64(len(futures)))
	return nil
}

// places finds which leaves are in the log already.
func (l *Ledger) places(ctx context.Context, rows []row) (map[string]int64, error) {
	out := make(map[string]int64, len(rows))
	for from := 0; from < len(rows); from += 500 { // SQLite's limit on bound values, with room
		leaves := make([][]byte, 0, 500)
		for _, r := range rows[from:min(from+500, len(rows))] {
			leaves = append(leaves, r.Leaf)
		}
		var found []row
		if err := l.o.DB.Read().NewSelect().Model(&found).Column("leaf", "idx").Where("leaf IN (?)", bun.List(leaves)).Scan(ctx); err != nil {
			return nil, fmt.Errorf("looking for known entries: %w", err)
		}
		for _, r := range found {
			out[string(r.Leaf)] = r.Idx
		}
	}
	return out, nil
}

// Origin is the log's name, the first line of its checkpoints.
func (l *Ledger) Origin() string { return l.o.Signer.Name() }

// Latest is the newest signed checkpoint (C2SP tlog-checkpoint), or nothing when none has been signed yet. It is read at most ten times a
// second; the slice must not be changed.
func (l *Ledger) Latest(ctx context.Context) ([]byte, error) {
	l.latestMu.Lock()
	defer l.latestMu.Unlock()
	now := l.o.Now()
	if age := now.Sub(l.latestAt); l.latest != nil && age >= 0 && age < 100*time.Millisecond {
		return l.latest, nil
	}
	cp, err := l.reader.ReadCheckpoint(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: checkpoint: %w", err)
	}
	l.latest, l.latestAt = cp, now
	return cp, nil
}

// Proof shows that a digest is in the log.
type Proof struct {
	Index      uint64
	Size       uint64 // of the tree that Checkpoint signs
	Hashes     [][]byte
	Checkpoint []byte
}

// Prove gives the inclusion proof of an envelope's digest, or of a register leaf, under the newest checkpoint. ErrNotFound when it is not
// in the log, or not yet under a checkpoint.
func (l *Ledger) Prove(ctx context.Context, leaf [32]byte) (Proof, error) {
	cp, err := l.Latest(ctx)
	if err != nil {
		return Proof{}, err
	}
	return l.ProveAt(ctx, leaf, cp)
}

// ProveAt is Prove under a checkpoint that Latest gave.
func (l *Ledger) ProveAt(ctx context.Context, leaf [32]byte, checkpoint []byte) (Proof, error) {
	var idx uint64
	err := l.o.DB.Read().NewRaw("SELECT idx FROM ledger_entries WHERE leaf = ?", leaf[:]).Scan(ctx, &idx)
	if db.NotFound(err) {
		return Proof{}, fmt.Errorf("%x: %w", leaf, ErrNotFound)
	}
	if err != nil {
		return Proof{}, fmt.Errorf("ledger: %w", err)
	}
	size, err := treeSize(checkpoint)
	if err != nil {
		return Proof{}, err
	}
	if idx >= size {
		return Proof{}, fmt.Errorf("%x: no checkpoint covers it yet: %w", leaf, ErrNotFound)
	}
	builder, err := client.NewProofBuilder(ctx, size, l.reader.ReadTile)
	if err != nil {
		return Proof{}, fmt.Errorf("ledger: %w", err)
	}
	hashes, err := builder.InclusionProof(ctx, idx)
	if err != nil {
		return Proof{}, fmt.Errorf("ledger: %w", err)
	}
	return Proof{Index: idx, Size: size, Hashes: hashes, Checkpoint: checkpoint}, nil
}

// Consistency gives the proof that the tree of a checkpoint is the one of an earlier size with more added (RFC 6962, 2.1.2). It is empty when
// there is nothing to prove: for size 0, for the same size, and for a size beyond the checkpoint's, which no proof can explain.
func (l *Ledger) Consistency(ctx context.Context, size uint64, checkpoint []byte) ([][]byte, error) {
	now, err := treeSize(checkpoint)
	if err != nil {
		return nil, err
	}
	if size == 0 || size >= now {
		return nil, nil
	}
	builder, err := client.NewProofBuilder(ctx, now, l.reader.ReadTile)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	hashes, err := builder.ConsistencyProof(ctx, size, now)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return hashes, nil
}

// treeSize reads the second line of a checkpoint.
func treeSize(cp []byte) (uint64, error) {
	lines := strings.SplitN(string(cp), "\n", 3)
	if len(lines) < 3 {
		return 0, fmt.Errorf("no checkpoint has been signed yet: %w", ErrNotFound)
	}
	return strconv.ParseUint(lines[1], 10, 64)
}

// Stats returns the counts.
func (l *Ledger) Stats(ctx context.Context) (Stats, error) {
	lag, err := l.o.Messages.Lag(ctx)
	return Stats{
		Added: l.c.added.Load(), Repeated: l.c.repeated.Load(), Failed: l.c.failed.Load(), Restarts: l.c.restarts.Load(), Running: !l.ended.Load(), Lag: lag,
	}, err
}

// Close waits until a checkpoint covers everything that was added, bounded by ctx, and gives the folder up. A second time does nothing.
func (l *Ledger) Close(ctx context.Context) error {
	l.closing.Do(func() {
		err := l.shutdown(ctx)
		l.stop()
		l.closeErr = errors.Join(err, l.lock.Close())
	})
	return l.closeErr
}
