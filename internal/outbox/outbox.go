// Package outbox is how anything leaves the hub: a mail, a webhook, a push. The
// wish is recorded in the same transaction as what caused it, under a key, and
// then run once.
//
// It reads and writes the table outbox, and calls the handlers it was given. A
// recorded entry survives a crash. The key is unique for ever: recording it
// again does nothing. An entry whose handler returned nil never runs again. One
// whose handler failed is tried again with growing, jittered pauses, and after
// its last attempt lies dead with its error for the operator to see and to
// retry.
//
// What cannot be known after a crash is whether a handler that was running had
// its effect. Such an entry runs again, with the same key, which handlers hand
// on (a mail's Message-ID, a webhook's Tocsin-Delivery) so that the receiver
// sees one thing; kinds registered as Once lie dead instead.
//
// It counts waiting, running, done and dead entries and the age of the oldest
// that is due.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// States of an entry.
const (
	Waiting = "waiting"
	Running = "running"
	Done    = "done"
	Dead    = "dead"
)

// Entry is one outward effect.
type Entry struct {
	bun.BaseModel `bun:"table:outbox,alias:o" json:"-"`

	ID        int64          `bun:"id,pk,autoincrement" json:"id"`
	Key       string         `bun:"key" json:"key"`
	Kind      string         `bun:"kind" json:"kind"`
	Tenant    event.TenantID `bun:"tenant" json:"tenant"`
	Payload   []byte         `bun:"payload" json:"-"`
	State     string         `bun:"state" json:"state"`
	Attempts  int            `bun:"attempts" json:"attempts"`
	DueNS     int64          `bun:"due_ns" json:"due_ns,string"`
	LeaseNS   int64          `bun:"lease_ns" json:"-"`
	Runner    string         `bun:"runner" json:"-"`
	CreatedNS int64          `bun:"created_ns" json:"created_ns,string"`
	EndedNS   int64          `bun:"ended_ns" json:"ended_ns,string"`
	Result    string         `bun:"result" json:"result"`
	Error     string         `bun:"error" json:"error"`
}

// Handler makes the effect of an entry happen. It must come to an end when the
// context does. The result is kept for people to read. Errors are retried unless
// they wrap ErrPermanent.
type Handler func(ctx context.Context, e Entry) (result string, err error)

// ErrPermanent marks an error that trying again cannot mend.
var ErrPermanent = errors.New("not tried again")

// Kind says how entries of one kind are run.
type Kind struct {
	Handler  Handler
	Parallel int           // entries at the same time; default 2
	Timeout  time.Duration // for one attempt; default 30 s
	Attempts int           // default Options.Attempts
	Once     bool          // after a crash: never run what may have happened already
}

// Options configure a Box.
type Options struct {
	Attempts int           // before an entry is dead; default 12: about a day with the default pauses
	Base     time.Duration // pause after the first failure, doubled each time; default 5 s
	Max      time.Duration // longest pause; default 4 h
	Poll     time.Duration // how often entries recorded by other programs are looked for; default 1 s
	Now      func() time.Time
	Logger   *slog.Logger
}

// Box is the outbox. Record, Add and the queries may be used by any goroutine;
// Handle is for before Run.
type Box struct {
	db     *db.DB
	o      Options
	runner string

	mu    sync.Mutex
	kinds map[string]Kind
	wake  map[string]chan struct{}
}

// New returns a Box on an open database.
func New(d *db.DB, o Options) *Box {
	if o.Attempts <= 0 {
		o.Attempts = 12
	}
	if o.Base <= 0 {
		o.Base = 5 * time.Second
	}
	if o.Max <= 0 {
		o.Max = 4 * time.Hour
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Box{db: d, o: o, runner: uuid.NewString(), kinds: map[string]Kind{}, wake: map[string]chan struct{}{}}
}

func (b *Box) now() int64 { return b.o.Now().UnixNano() }

// Handle registers what runs the entries of a kind.
func (b *Box) Handle(kind string, k Kind) {
	if k.Parallel <= 0 {
		k.Parallel = 2
	}
	if k.Timeout <= 0 {
		k.Timeout = 30 * time.Second
	}
	if k.Attempts <= 0 {
		k.Attempts = b.o.Attempts
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kinds[kind] = k
	b.wake[kind] = make(chan struct{}, 1)
}

// Record writes entries within the caller's transaction; those whose key is
// known already are left out. Key, Kind, Tenant and Payload are taken from
// them, and DueNS if it is to run later. Call Wake after the commit.
func (b *Box) Record(ctx context.Context, tx bun.IDB, entries ...Entry) (recorded int, err error) {
	for _, e := range entries {
		if e.Key == "" || e.Kind == "" {
			return recorded, errors.New("outbox: an entry needs a key and a kind")
		}
		now := b.now()
		if e.Payload == nil {
			e.Payload = []byte{}
		}
		res, err := tx.NewRaw(`INSERT INTO outbox (key, kind, tenant, payload, state, due_ns, created_ns) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING`,
			e.Key, e.Kind, e.Tenant, e.Payload, Waiting, max(e.DueNS, now), now).Exec(ctx)
		if err != nil {
			return recorded, fmt.Errorf("outbox: recording %s: %w", e.Key, err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return recorded, fmt.Errorf("outbox: recording %s: %w", e.Key, err)
		}
		recorded += int(n)
	}
	return recorded, nil
}

// Add records entries in a transaction of their own.
func (b *Box) Add(ctx context.Context, entries ...Entry) error {
	err := b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := b.Record(ctx, tx, entries...)
		return err
	})
	b.Wake()
	return err
}

// Wake has Run look for entries now instead of at the next poll.
func (b *Box) Wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.wake {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Run runs entries until ctx is done, then waits for the handlers under way,
// whose contexts end with it.
func (b *Box) Run(ctx context.Context) error {
	// Whoever holds the lock is the only runner of this database file, so what
	// is marked as running was cut off by a crash and need not wait for its
	// lease to end.
	lock, err := os.OpenFile(b.db.Path()+".outbox", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		if err := b.reclaim(ctx, true); err != nil {
			if ctx.Err() != nil {
				return nil // told to stop before it began: nothing was taken, so nothing is left behind
			}
			return err
		}
	}
	b.mu.Lock()
	kinds := b.kinds
	b.mu.Unlock()
	var wg sync.WaitGroup
	for name, k := range kinds {
		wg.Go(func() { b.dispatch(ctx, name, k) })
	}
	wg.Go(func() {
		t := time.NewTicker(15 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if err := b.reclaim(ctx, false); err != nil && ctx.Err() == nil {
					b.o.Logger.ErrorContext(ctx, "looking for entries whose runner is gone", "error", err)
				}
			}
		}
	})
	wg.Wait()
	return nil
}

// reclaim gives entries back whose runner died: all of them, or those whose
// lease has ended.
func (b *Box) reclaim(ctx context.Context, all bool) error {
	err := b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		now := b.now()
		limit := now
		if all {
			limit = 1<<63 - 1
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for name, k := range b.kinds {
			var err error
			if k.Once {
				_, err = tx.NewRaw("UPDATE outbox SET state = ?, ended_ns = ?, error = ? WHERE state = ? AND kind = ? AND lease_ns < ?", Dead, now,
					"the hub stopped while this ran, so it may have happened; it is not tried again by itself", Running, name, limit).Exec(ctx)
			} else {
				_, err = tx.NewRaw("UPDATE outbox SET state = ?, due_ns = ?, error = ? WHERE state = ? AND kind = ? AND lease_ns < ?", Waiting, now,
					"the hub stopped while this ran", Running, name, limit).Exec(ctx)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// claimAhead is how many entries are taken in one transaction for each that may run: one sync of the disk an entry was what made a burst wait.
const claimAhead = 4

// dispatch runs the entries of one kind. It alone starts their goroutines. An entry's place is free for the next when its handler has returned; writing that
// down goes on beside.
func (b *Box) dispatch(ctx context.Context, name string, k Kind) {
	b.mu.Lock()
	wake := b.wake[name]
	b.mu.Unlock()
	ended := make(chan struct{}, k.Parallel)
	running := 0
	var held []Entry // taken, and not begun
	var all sync.WaitGroup
	defer all.Wait()
	defer func() { b.giveBack(context.WithoutCancel(ctx), held) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-ended:
			running--
		case <-timer.C:
		}
		timer.Reset(b.o.Poll)
		if running == k.Parallel || ctx.Err() != nil {
			continue
		}
		if len(held) == 0 {
			n := claimAhead * k.Parallel
			if k.Once { // what was taken and not begun would lie dead after a crash
				n = k.Parallel - running
			}
			var err error
			if held, err = b.claim(ctx, name, k, n); err != nil {
				if ctx.Err() == nil {
					b.o.Logger.ErrorContext(ctx, "taking entries from the outbox", "kind", name, "error", err)
				}
				continue
			}
		}
		for len(held) > 0 && running < k.Parallel {
			e := held[0]
			held = held[1:]
			running++
			all.Go(func() {
				result, err := b.call(ctx, k, e)
				ended <- struct{}{}
				b.ended(ctx, k, e, result, err)
			})
		}
	}
}

// giveBack lets others have what was taken and not begun. If it cannot be written, the leases end.
func (b *Box) giveBack(ctx context.Context, held []Entry) {
	if len(held) == 0 {
		return
	}
	err := b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for _, e := range held {
			if _, err := tx.NewRaw("UPDATE outbox SET state = ?, attempts = attempts - 1, lease_ns = 0, runner = '' WHERE id = ? AND runner = ?", Waiting, e.ID, b.runner).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.o.Logger.ErrorContext(ctx, "giving back entries that were not begun; they run when their lease has ended", "entries", len(held), "error", err)
	}
}

func (b *Box) claim(ctx context.Context, kind string, k Kind, n int) ([]Entry, error) {
	var due int
	// Looking costs nothing; only when something is due is a write begun.
	if err := b.db.Read().NewRaw("SELECT count(*) FROM (SELECT 1 FROM outbox WHERE state = 'waiting' AND kind = ? AND due_ns <= ? LIMIT 1)", kind, b.now()).Scan(ctx, &due); err != nil || due == 0 {
		return nil, err
	}
	var out []Entry
	err := b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		now := b.now()
		out = nil
		if err := tx.NewRaw("SELECT * FROM outbox WHERE state = 'waiting' AND kind = ? AND due_ns <= ? ORDER BY due_ns, id LIMIT ?", kind, now, n).Scan(ctx, &out); err != nil {
			return err
		}
		for i := range out {
			e := &out[i]
			e.Attempts++
			e.State, e.Runner, e.LeaseNS = Running, b.runner, now+int64((claimAhead+1)*k.Timeout+30*time.Second) // the last of them waits for those before it
			if _, err := tx.NewRaw("UPDATE outbox SET state = ?, attempts = ?, lease_ns = ?, runner = ? WHERE id = ?", Running, e.Attempts, e.LeaseNS, b.runner, e.ID).Exec(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil { // they are not ours: what is tried without that would be tried again and again
		return nil, err
	}
	return out, nil
}

func (b *Box) call(ctx context.Context, k Kind, e Entry) (result string, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.Timeout)
	defer cancel()
	return call(ctx, k.Handler, e)
}

// ended writes down what became of an entry.
func (b *Box) ended(ctx context.Context, k Kind, e Entry, result string, err error) {
	log := b.o.Logger.With("key", e.Key, "kind", e.Kind, "tenant", e.Tenant, "attempt", e.Attempts)
	now := b.now()
	state, due := Done, e.DueNS
	text := ""
	switch {
	case err == nil:
	case ctx.Err() != nil && !errors.Is(err, ErrPermanent):
		// We stop; that was no attempt of the receiver's.
		state, due, text = Waiting, now, clip(err.Error())
		e.Attempts--
	case errors.Is(err, ErrPermanent) || e.Attempts >= k.Attempts:
		state, text = Dead, clip(err.Error())
		log.ErrorContext(ctx, "an outward effect failed for good", "error", err)
	default:
		state, due, text = Waiting, now+int64(b.pause(e.Attempts)), clip(err.Error())
		log.WarnContext(ctx, "an outward effect failed and will be tried again", "error", err, "next", time.Unix(0, due).UTC())
	}
	ended := int64(0)
	if state == Done || state == Dead {
		ended = now
	}
	// The effect has happened: writing that down must not be cut off. If it
	// fails all the same, the lease ends and the entry runs again.
	wctx := context.WithoutCancel(ctx)
	err = b.db.Write(wctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.NewRaw("UPDATE outbox SET state = ?, attempts = ?, due_ns = ?, lease_ns = 0, runner = '', ended_ns = ?, result = ?, error = ? WHERE id = ? AND runner = ?",
			state, e.Attempts, due, ended, clip(result), text, e.ID, b.runner).Exec(ctx)
		return err
	})
	if err != nil {
		log.ErrorContext(wctx, "writing down what became of an outward effect", "error", err)
	}
}

func call(ctx context.Context, h Handler, e Entry) (result string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the handler panicked: %v\n%s", ErrPermanent, p, debug.Stack())
		}
	}()
	return h(ctx, e)
}

// pause is exponential with jitter: between half and all of Base×2ⁿ⁻¹, at most
// Max, so that what failed together does not come back together.
func (b *Box) pause(attempt int) time.Duration {
	d := b.o.Max
	if shift := attempt - 1; shift < 30 && b.o.Base<<shift < b.o.Max {
		d = b.o.Base << shift
	}
	return d/2 + rand.N(d/2+1)
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "…"
	}
	return s
}

// Filter narrows List.
type Filter struct {
	State  string // "" any
	Kind   string // "" any
	Before int64  // entries with a lower ID; 0: from the newest
	Limit  int    // default 50, at most 500
}

// ErrNotFound says that there is no such entry within the scope.
var ErrNotFound = errors.New("not found")

// List returns entries within a scope, newest first.
func (b *Box) List(ctx context.Context, scope access.Scope, f Filter) ([]Entry, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	var out []Entry
	q := b.db.Read().NewSelect().Model(&out).OrderExpr("o.id DESC").Limit(int64(min(f.Limit, 500)))
	if f.State != "" {
		q = q.Where("o.state = ?", f.State)
	}
	if f.Kind != "" {
		q = q.Where("o.kind = ?", f.Kind)
	}
	if f.Before > 0 {
		q = q.Where("o.id < ?", f.Before)
	}
	tenants, all := scope.Tenants()
	if !all {
		if len(tenants) == 0 {
			return nil, nil
		}
		q = q.Where("o.tenant IN (?)", bun.List(tenants))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("outbox: listing: %w", err)
	}
	return out, nil
}

// Retry gives a dead entry its attempts again.
func (b *Box) Retry(ctx context.Context, scope access.Scope, id int64) error {
	defer b.Wake()
	return b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		var tenant event.TenantID
		err := tx.QueryRowContext(ctx, "SELECT tenant FROM outbox WHERE id = ? AND state = 'dead'", id).Scan(&tenant)
		if db.NotFound(err) || err == nil && !scope.Covers(tenant) {
			return fmt.Errorf("outbox: dead entry %d: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		_, err = tx.NewRaw("UPDATE outbox SET state = 'waiting', attempts = 0, due_ns = ?, ended_ns = 0 WHERE id = ?", b.now(), id).Exec(ctx)
		return err
	})
}

// Stats counts entries by state. Oldest is how long the oldest that is due has
// waited.
type Stats struct {
	Waiting, Running, Done, Dead int
	Oldest                       time.Duration
}

// Stats counts the whole outbox; done entries that were pruned are not in it.
func (b *Box) Stats(ctx context.Context) (Stats, error) {
	rows, err := b.db.Read().QueryContext(ctx, "SELECT state, count(*), min(due_ns) FROM outbox GROUP BY state")
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: counting: %w", err)
	}
	defer rows.Close()
	var st Stats
	for rows.Next() {
		var state string
		var n int
		var due int64
		if err := rows.Scan(&state, &n, &due); err != nil {
			return Stats{}, fmt.Errorf("outbox: counting: %w", err)
		}
		switch state {
		case Waiting:
			st.Waiting = n
			st.Oldest = max(0, time.Duration(b.now()-due))
		case Running:
			st.Running = n
		case Done:
			st.Done = n
		case Dead:
			st.Dead = n
		}
	}
	return st, rows.Err()
}

// Prune forgets what was done longer ago than keep, key included: keep must be
// longer than anything can be replayed. Dead entries stay until retried, or ten
// times as long.
func (b *Box) Prune(ctx context.Context, keep time.Duration) (int64, error) {
	var n int64
	err := b.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		now := b.now()
		res, err := tx.NewRaw("DELETE FROM outbox WHERE (state = 'done' AND ended_ns < ?) OR (state = 'dead' AND ended_ns < ?)", now-int64(keep), now-10*int64(keep)).Exec(ctx)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
