package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/send"
	"tocsin/internal/collector/spool"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Options are what an Agent is made of. Config, Version and Logger are needed.
type Options struct {
	Config  Config
	Version string
	// Detector makes the engine of the on-site rules; nil: none.
	Detector func(DetectorOptions) (Detector, error)
	// Matcher compiles one Sigma rule of a question about the past; nil: only indicators are answered.
	Matcher func(rule string) (func(*event.Event) bool, error)
	// HouseEvery is how often the hub is asked for what is new; default about half a minute.
	HouseEvery time.Duration
	RulePack   string // names the rules, in every manifest
	Logger     *slog.Logger
	Now        func() time.Time
	// HoldStart is how long lines that were on the disk at the start wait for the hub to say whether it knows them already (from another
	// copy of this folder). Default 10 s.
	HoldStart time.Duration
	// OnTrial says that this program may be taken back: it then writes nothing that the one before it cannot read (Format); nil: it is not on trial.
	OnTrial func() bool
	// OpenFile opens the files of archive, spool, batches and state; tests put failing ones in their place.
	OpenFile func(name string) (spool.File, error)
}

// DetectorOptions are what the engine of the on-site rules needs to know.
type DetectorOptions struct {
	Collector string                  // the collector's id, which tells the detections of two sites apart
	Rules     fs.FS                   // a folder of rules; nil: those that are built in
	Withhold  func(field string) bool // fields that must not stand in sentences: they do not leave
	// Exceptions are those in force, asked for each event; nil: there are none.
	Exceptions func() detect.Exceptions
	Logger     *slog.Logger
}

// enrolled is who this collector is.
type enrolled struct{ send.Enrolment }

func (e *enrolled) tenant() event.TenantID { return event.TenantID(e.Tenant) }

// Agent is a running collector.
type Agent struct {
	o       Options
	log     *slog.Logger
	id      enrolled
	keys    *keys.Collector
	client  *send.Client
	lock    *os.File
	archive *archive.Archive
	spool   *spool.Log
	batches *spool.Log
	journal *spool.Journal
	memory  *spool.Journal // the detector's
	min     *minimise.Minimiser
	pipe    *pipeline
	writer  *batch.Writer

	listeners  []input
	addrs      []net.Addr     // of listeners, in the order of the settings; UDP, TCP, TLS
	cert       *keys.Listener // what TLS ports show; nil: there are none
	syncing    together       // of the archive, for inputs that acknowledge
	handshakes sync.Mutex     // one signature at a time for senders' TLS sessions

	// The loop's own, below; no other goroutine touches it.
	st         *state
	reader     *archive.Reader
	lost       uint64 // of the reader, as counted so far
	began      time.Time
	checked    bool // the hub's heads have been compared
	lastCommit time.Time
	dirty      bool // worked since the last commit
	lastBound  time.Time
	committed  bool      // since the bounds were looked at
	done       spool.Pos // the state's cursor, as the last commit has it
	fatal      error     // of a commit: the loop must end
	// When the memory was last saved, and what it then had seen.
	snapAt                              time.Time
	snapLine, snapFlushes, snapReceived uint64
	live, back                          *lane
	lanes                               []*lane // all: live, backlog, look-back, raw
	lookback                            *lane
	raw                                 *lane
	answers                             chan result   // of the lanes' senders
	calls                               chan func()   // what the socket and the page ask of the loop
	ended                               chan struct{} // closed when the loop has returned
	sent                                *sentIndex
	epochs                              []time.Time               // when new epochs were begun in this run because of another copy
	hold                                time.Time                 // do not seal before: another copy seems to run
	saidFull                            time.Time                 // when a full disk was last logged
	gap                                 bool                      // the spool ended before the state's place at the start
	flushed                             time.Time                 // when the on-site rules were last asked without a line
	idle                                bool                      // the last look at the archive found nothing
	inputs                              map[int]map[string]uint64 // counters of the listeners, as counted so far
	draining                            bool
	drainBy                             time.Time
	broken                              []Warning // inputs that have ended by themselves

	packs     packState
	questions map[string]*QuestionStatus
	job       *lookBackJob                    // the question being answered
	answerAt  time.Time                       // answers wait until then, as there was no room on the disk
	worth     map[uint64][valueHigh + 1]int64 // bytes of each value in files of the spool, as far as they were looked at
	chunk     int                             // bytes of one file of the spool
	shedded   uint64                          // events let go for want of room that no log line has named
	saidShed  time.Time
	now       time.Time       // when the loop last looked at the clock
	tight     bool            // the disk is full and the reserve is given up
	roomAt    time.Time       // when it was last looked for room
	stopping  <-chan struct{} // closed when the collector is to end
	rawEvent  event.Event     // of troubleshooting
	rawFrames []byte
	rawCount  int
	saidRaw   time.Time

	formatAt   time.Time   // when it was last looked whether a trial is over
	formatSaid bool        // it was logged that the form cannot be written
	modern     atomic.Bool // what is written may be of the newest form (format.go)

	set     atomic.Pointer[loadedSet] // indicator set in force
	status  atomic.Pointer[Status]
	shown   time.Time              // when the status was last made; the loop's own
	noRoom  atomic.Bool            // the loop waits for room on the disk
	trouble atomic.Pointer[string] // why the hub is not reached; nil: it answers
	hub     atomic.Pointer[batch.Self]
	page    atomic.Pointer[page]
	daily   atomic.Pointer[dailyLine] // the newest test that was sent to a listener; nil: none yet
	tested  string                    // the last test's number; housekeeping's own
	wake    chan struct{}
	forgive atomic.Bool // a newer indicator set is in force: what was switched off gets another chance
}

// How the loop works.
const (
	maxBatchEvents = 4000             // of one sealed batch: well below the format's limits, so that a group of records always fits
	maxBatchBytes  = 8 << 20          // of its events
	minGap         = send.MinInterval // between two batches of a lane
	commitEvery    = time.Second
	snapshotEvery  = time.Minute
	snapshotLines  = 1_000_000
	heartbeat      = time.Minute
	slice          = 2048 // lines between two looks at everything else
	drainTime      = 8 * time.Second
	maxRanges      = 64
	flushEvery     = 10 * time.Second
)

// ErrRunning means that another process works in the same folder.
var ErrRunning = errors.New("another collector is running in this folder")

// Run receives, works and sends until ctx ends; then it stops listening, works off what was received, sends what it can in some seconds,
// and closes everything. It returns nil after an orderly end.
func (a *Agent) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx)) // senders and helpers outlive listening
	defer cancel()
	var wg sync.WaitGroup
	listening, stopListening := context.WithCancel(run)
	defer stopListening()
	var listeners sync.WaitGroup
	failed := make(chan error, len(a.listeners)+1)
	for i := range a.listeners {
		in := &a.listeners[i]
		listeners.Go(func() {
			err := in.Serve(listening, &sink{a: a, slot: in.slot})
			if err == nil && listening.Err() == nil {
				err = errors.New("it has ended by itself")
			}
			if err != nil {
				failed <- fmt.Errorf("what comes in by %s %s is not taken any more: %w", in.kind, in.Addr(), err)
			}
		})
	}
	stopStatus, err := a.serveStatus()
	if err != nil {
		a.log.Warn("the status socket is not served", "error", err)
	} else {
		defer stopStatus()
	}
	defer a.servePage()()
	for _, l := range a.lanes {
		l.work = make(chan outgoing, 1)
		wg.Go(func() { a.sender(run, l) })
	}
	heads := make(chan []batch.Head, 1)
	ask := make(chan struct{}, 1)
	ask <- struct{}{}
	wg.Go(func() { a.askHeads(run, ask, heads) })
	wg.Go(func() { a.housekeeping(run) })
	a.log.Info("collecting", "collector", a.id.Collector, "organisation", a.id.Organisation, "site", a.id.Site, "listening", fmt.Sprint(a.addrs), "waiting_events", a.st.waiting())

	a.reader = a.archive.Reader(a.st.Cursor)
	defer a.reader.Close()
	// The end comes in three steps: stop listening and wait for what the kernel holds; then drain; then give up.
	ended := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-run.Done():
		}
		stopListening()
		listeners.Wait()
		close(ended)
	}()
	a.stopping = ctx.Done()
	a.openReserve()
	err = a.loop(ended, failed, ask, heads)
	close(a.ended)
	cancel()
	<-ended
	a.client.Close()
	wg.Wait()
	// Answers that came while the loop was ending.
	for more := true; more; {
		select {
		case r := <-a.answers:
			a.answer(r.lane, r, nil)
		default:
			more = false
		}
	}
	if err == nil || !errors.Is(err, errState) {
		err = errors.Join(err, a.commit(true))
		if err == nil {
			err = a.saveDetector()
		}
	}
	err = errors.Join(err, a.Close())
	if err == nil {
		a.log.Info("stopped", "received", a.st.Counts["received"], "acknowledged", a.st.Acknowledged, "waiting", a.st.waiting()+a.st.sealed())
	}
	return err
}

// errState means that what is on disk and what is in memory may differ: the process must end, and the next one finds the truth.
var errState = errors.New("stored state is in doubt")

// loop is the one goroutine that works. It returns when everything is drained, or can be no further.
func (a *Agent) loop(ended <-chan struct{}, failed <-chan error, ask chan<- struct{}, heads <-chan []batch.Head) error {
	tick := time.NewTimer(0)
	defer tick.Stop()
	atOnce := make(chan struct{})
	close(atOnce)
	for {
		now := a.o.Now()
		a.clock(now)
		grown := a.archive.Grown() // before reading, so that nothing between is missed
		worked := 0
		if a.mayWork(now) {
			var err error
			if worked, err = a.work(slice); err != nil {
				return err
			}
			a.idle = worked == 0
		}
		if a.forgive.Swap(false) {
			a.pipe.guard.forgive("indicator")
		}
		more := a.checked && !a.draining && a.lookBack(now)
		if err := a.seal(a.o.Now()); err != nil {
			return err
		}
		now = a.o.Now()
		if a.dirty && now.Sub(a.lastCommit) >= commitEvery {
			if err := a.commit(false); err != nil {
				return err
			}
		}
		if err := a.keepMemory(now); err != nil { // whoever committed
			return err
		}
		if a.committed && now.Sub(a.lastBound) >= commitEvery { // whoever committed: a sealed batch too may be the last to do so for long
			a.committed, a.lastBound = false, now
			if err := a.bound(now); err != nil {
				return err
			}
		}
		if err := a.room(now); err != nil {
			return err
		}
		a.keepFormat(now)
		if a.idle && now.Sub(a.flushed) >= flushEvery && a.mayWork(now) {
			a.flushed = now
			if m := (flushMark{Line: a.st.Line, At: now.UnixNano()}); a.pipe.flushDetector(m.Line, m.At, full) > 0 {
				a.st.Flushes.add(m)
				a.dirty = true
			}
		}
		a.publish()
		select {
		case <-ended:
			if ended = nil; !a.draining {
				a.draining, a.drainBy = true, a.o.Now().Add(drainTime)
			}
			continue // with the lines that came while the listeners ended
		default:
		}
		if a.draining && a.drained(now) {
			return nil
		}
		var busy <-chan struct{}
		if worked == slice || more {
			busy, grown = atOnce, nil
		} else {
			tick.Reset(a.pause(now))
		}
		select {
		case <-busy:
		case <-grown:
		case r := <-a.answers:
			a.answer(r.lane, r, ask)
		case call := <-a.calls:
			if call(); a.fatal != nil {
				return a.fatal
			}
		case h := <-heads:
			if err := a.compare(h); err != nil {
				return err
			}
		case err := <-failed:
			a.listenerFailed(err)
		case <-a.wake:
		case <-ended: // seen above, so that it is not chance that chooses
		case <-tick.C:
		}
	}
}

// listenerFailed says that an input has ended by itself, in the log and, until the next start, to whoever looks. The others go on.
func (a *Agent) listenerFailed(err error) {
	a.log.Error("an input has failed; the others go on", "error", err)
	a.broken = append(a.broken, Warning{Code: "listener_failed", Text: err.Error(),
		Next: "Start the collector again: systemctl restart tocsin-collector. If that does not help, run tocsin-collector doctor on this machine."})
}

// clock notices that the clock was put back: what was timed by it begins anew, or everything would wait for the time that was. Without Round two
// times of one process are compared by the kernel's other clock, which is never put back.
func (a *Agent) clock(now time.Time) {
	if back := a.now.Round(0).Sub(now.Round(0)); back >= time.Second {
		a.log.Warn("the clock was put back", "by", back.Round(time.Second))
		a.st.Counts["clock_put_back"]++
		for _, l := range a.lanes {
			l.last = now
		}
		a.lastCommit, a.lastBound, a.flushed, a.snapAt, a.shown, a.saidFull, a.roomAt, a.answerAt = now, now, now, now, time.Time{}, time.Time{}, now, now
		if limit := now.Add(30 * time.Minute); a.hold.After(limit) {
			a.hold = limit
		}
		if limit := now.Add(drainTime); a.drainBy.After(limit) {
			a.drainBy = limit
		}
		if a.began.After(now) {
			a.began = now
		}
	}
	a.now = now
}

// mayWork says whether lines may be worked on: at the start that waits a little for the hub's heads, because in a restored copy some lines
// are counted at the hub already.
func (a *Agent) mayWork(now time.Time) bool {
	return !a.tight && (a.checked || now.Sub(a.began) >= a.o.HoldStart || a.draining)
}

// drained says whether the end has come: all lines worked, all events with receipts; or no more time. Lines that were not worked on are in the
// archive for the next start.
func (a *Agent) drained(now time.Time) bool {
	if now.After(a.drainBy) {
		return true
	}
	if a.reader.Pos().Before(a.archive.End()) && !a.idle {
		return false
	}
	if a.trouble.Load() != nil { // the hub does not answer: what waits is on disk
		return true
	}
	return a.checked && a.st.waiting() == 0 && a.st.sealed() == 0 && !a.uncounted()
}

// uncounted says whether there are counts that no batch has carried.
func (a *Agent) uncounted() bool {
	if a.pipe.tally.received > 0 {
		return true
	}
	for k, v := range a.st.Counts {
		if v > a.st.Live.Reported[k] {
			return true
		}
	}
	return false
}

// pause is how long the loop may sleep when nothing happens.
func (a *Agent) pause(now time.Time) time.Duration {
	d := time.Second
	if a.dirty {
		d = min(d, max(commitEvery-now.Sub(a.lastCommit), time.Millisecond))
	}
	if a.draining {
		d = min(d, 20*time.Millisecond)
	}
	if !a.mayWork(now) { // or there is no room
		d = min(d, 100*time.Millisecond)
	}
	if due, ok := a.due(now); ok {
		d = min(d, max(due.Sub(now), time.Millisecond))
	}
	return d
}

// work works on at most n lines and gives how many there were.
func (a *Agent) work(n int) (worked int, err error) {
	var l archive.Line
	for worked < n {
		err := a.reader.Next(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return worked, err
		}
		worked++
		f := full
		if l.Number <= a.st.CoveredLine {
			f = silent
		}
		a.pipe.line(&l, f)
		a.rawLine(&l)
		a.st.Line = l.Number
		a.dirty = true
		if len(a.pipe.frames) > min(a.chunk, 1<<20) {
			if err := a.flushSpool(); err != nil {
				return worked, err
			}
		}
		if a.pipe.urgent && !a.live.urgent {
			a.live.urgent = true
			if a.sealable(a.o.Now()) {
				break // what is urgent is not to wait for a full slice
			}
		}
	}
	a.st.Cursor = a.reader.Pos()
	a.rawDone(a.o.Now())
	if lost := a.reader.Lost(); lost > a.lost {
		a.st.Counts["lost.archive_damage"] += lost - a.lost
		a.log.Error("raw lines in a damaged file could not be read", "lines", lost-a.lost)
		a.lost = lost
	}
	return worked, nil
}

// flushSpool writes the gathered records to the spool. A full disk is waited for: the lines are in the archive, and nothing goes on before
// their events have a place.
func (a *Agent) flushSpool() error {
	for a.pipe.n > 0 {
		_, err := a.spool.AppendFrames(a.pipe.frames, a.pipe.n)
		if err == nil {
			break
		}
		if !a.waitForRoom("spool", err) {
			return fmt.Errorf("spool: %w", err)
		}
	}
	a.pipe.frames, a.pipe.n, a.pipe.urgent = a.pipe.frames[:0], 0, false
	if cap(a.pipe.frames) > 4<<20 {
		a.pipe.frames = nil
	}
	a.st.Spool = mark{Pos: a.spool.End(), Num: a.spool.Next(), Line: a.st.Line}
	return nil
}

// commit makes what has been worked on durable and the state name it.
func (a *Agent) commit(last bool) error {
	if err := a.flushSpool(); err != nil {
		return err
	}
	a.pipe.flush(a.st.Counts)
	a.inputCounts()
	a.st.Batches = a.batches.End()
	b, err := a.st.encode()
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	for {
		err := errors.Join(a.spool.Sync(), a.archive.Sync(), a.syncSides())
		if err == nil {
			err = a.journal.Save(b, true)
		}
		if err == nil {
			break
		}
		if last || !a.waitForRoom("state", err) {
			return fmt.Errorf("%w: %w", errState, err)
		}
	}
	a.done = a.st.Cursor
	a.archive.Done(a.done)
	a.lastCommit, a.dirty, a.committed = a.o.Now(), false, true
	return nil
}
