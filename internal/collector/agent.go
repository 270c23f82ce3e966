package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/send"
	"tocsin/internal/collector/spool"
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
	// OpenFile opens the files of archive, spool, batches and state; tests put failing ones in their place.
	OpenFile func(name string) (spool.File, error)
}

// DetectorOptions are what the engine of the on-site rules needs to know.
type DetectorOptions struct {
	Collector string                  // the collector's id, which tells the detections of two sites apart
	Rules     fs.FS                   // a folder of rules; nil: those that are built in
	Withhold  func(field string) bool // fields that must not stand in sentences: they do not leave
	Logger    *slog.Logger
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

	listeners []input
	addrs     []net.Addr     // of listeners, in the order of the settings; UDP, TCP, TLS
	cert      *keys.Listener // what TLS ports show; nil: there are none
	syncing   together       // of the archive, for inputs that acknowledge

	// The loop's own, below; no other goroutine touches it.
	st         *state
	reader     *archive.Reader
	lost       uint64 // of the reader, as counted so far
	began      time.Time
	checked    bool // the hub's heads have been compared
	lastCommit time.Time
	dirty      bool // worked since the last commit
	snapAt     time.Time
	snapLines  uint64
	live, back *lane
	lanes      []*lane // all: live, backlog, look-back, raw
	lookback   *lane
	raw        *lane
	answers    chan result   // of the lanes' senders
	calls      chan func()   // what the socket and the page ask of the loop
	ended      chan struct{} // closed when the loop has returned
	sent       *sentIndex
	epochs     []time.Time               // when new epochs were begun in this run because of another copy
	hold       time.Time                 // do not seal before: another copy seems to run
	saidFull   time.Time                 // when a full disk was last logged
	gap        bool                      // the spool ended before the state's place at the start
	flushed    time.Time                 // when the on-site rules were last asked without a line
	idle       bool                      // the last look at the archive found nothing
	inputs     map[int]map[string]uint64 // counters of the listeners, as counted so far
	draining   bool
	drainBy    time.Time

	packs     packState
	questions map[string]*QuestionStatus
	job       *lookBackJob                    // the question being answered
	worth     map[uint64][valueHigh + 1]int64 // bytes of each value in files of the spool, as far as they were looked at
	chunk     int                             // bytes of one file of the spool
	shedded   uint64                          // events let go for want of room that no log line has named
	saidShed  time.Time
	rawEvent  event.Event // of troubleshooting
	rawFrames []byte
	rawCount  int
	saidRaw   time.Time

	set     atomic.Pointer[loadedSet] // indicator set in force
	status  atomic.Pointer[Status]
	shown   time.Time              // when the status was last made; the loop's own
	noRoom  atomic.Bool            // the loop waits for room on the disk
	trouble atomic.Pointer[string] // why the hub is not reached; nil: it answers
	hub     atomic.Pointer[batch.Self]
	page    atomic.Pointer[page]
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

// Open opens an enrolled collector's folder and its ports. Close it, or Run it to its end.
func Open(o Options) (a *Agent, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Config.RetryMax <= 0 {
		o.Config.RetryMax = send.MaxBackoff
	}
	if o.HoldStart <= 0 {
		o.HoldStart = 10 * time.Second
	}
	a = &Agent{o: o, log: o.Logger, wake: make(chan struct{}, 1), inputs: map[int]map[string]uint64{}, began: o.Now()}
	defer func() {
		if err != nil {
			a.Close()
			a = nil
		}
	}()
	c := &o.Config
	if a.id, err = readEnrolment(c); err != nil {
		return a, err
	}
	if a.lock, err = lockDir(c.Dir); err != nil {
		return a, err
	}
	if a.keys, err = keys.OpenCollector(c.KeyDir()); err != nil {
		return a, err
	}
	address := c.Hub
	if address == "" {
		address = a.id.Address
	}
	if a.client, err = send.New(send.Options{Address: address, Collector: a.id.Collector, Version: o.Version, Keys: a.keys, Now: o.Now}); err != nil {
		return a, err
	}
	archiveSecret, err := secret(c.KeyDir(), "archive")
	if err != nil {
		return a, err
	}
	pseudonymKey, err := secret(c.KeyDir(), "pseudonyms")
	if err != nil {
		return a, err
	}
	if a.min, err = c.minimiser(pseudonymKey); err != nil {
		return a, err
	}
	var det Detector
	if o.Detector != nil {
		if det, err = o.Detector(DetectorOptions{Collector: a.id.Collector, Withhold: withhold(a.min), Logger: o.Logger}); err != nil {
			return a, err
		}
	}
	// The ports first: lines are taken from the first moment, and a port in use is the commonest fault.
	if err = a.openListeners(); err != nil {
		return a, err
	}
	if a.archive, err = archive.Open(archive.Options{Dir: c.path("archive"), MaxBytes: c.Archive.MaxBytes, MaxAge: time.Duration(c.Archive.MaxDays) * 24 * time.Hour,
		Now: o.Now, Logger: o.Logger, OpenFile: o.OpenFile}); err != nil {
		return a, err
	}
	if a.pipe, err = newPipeline(c, a.min, det, archiveSecret, a.archive); err != nil {
		return a, err
	}
	a.pipe.log = a.log
	a.pipe.guard.said = func(what, why string) { a.refuse(what, why) }
	if err = a.loadPacks(); err != nil {
		return a, err
	}
	if err = a.openState(); err != nil {
		return a, err
	}
	a.loadIndicators()
	if err = a.loadQuestions(); err != nil {
		return a, err
	}
	a.publish()
	return a, nil
}

// withhold says which fields the policy keeps at home, for the sentences of detections.
func withhold(m *minimise.Minimiser) func(string) bool {
	return func(field string) bool {
		k, ok := event.Lookup(field)
		if !ok {
			return true
		}
		leave, _ := m.MayLeave(k)
		return !leave
	}
}

// Addrs are the addresses listened on.
func (a *Agent) Addrs() []net.Addr { return a.addrs }

// openState opens spool, batches and state, and cuts off what a crash left behind the last commit.
func (a *Agent) openState() (err error) {
	c := &a.o.Config
	open := func(name string, size int64) (*spool.Log, error) {
		l, err := spool.Open(spool.Options{Dir: c.path(name), SegmentBytes: size, OpenFile: a.o.OpenFile})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return l, nil
	}
	if a.journal, err = spool.OpenJournal(spool.Options{Dir: c.path("state"), OpenFile: a.o.OpenFile}); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if a.memory, err = spool.OpenJournal(spool.Options{Dir: c.path("detector"), SegmentBytes: 1, OpenFile: a.o.OpenFile}); err != nil {
		return fmt.Errorf("detector: %w", err)
	}
	a.chunk = min(4<<20, max(64<<10, int(c.Spool.MaxBytes/16)))
	if a.spool, err = open("spool", int64(a.chunk)); err != nil {
		return err
	}
	if a.batches, err = open("batches", 8<<20); err != nil {
		return err
	}
	switch b := a.journal.Last(); {
	case b == nil:
		a.st = newState(a.id.Collector)
		a.st.Cursor = a.archive.Start()
		a.st.Spool = mark{Pos: a.spool.End(), Num: a.spool.Next()}
		a.st.Live.At = a.st.Spool
		a.st.Live.Cursor = a.st.Cursor
		a.st.Batches = a.batches.End()
	default:
		if a.st, err = decodeState(b); err != nil {
			return err
		}
		if a.st.Collector != a.id.Collector { // enrolled anew: other streams, the same lines
			a.log.Info("this folder was enrolled again; what waits will be sent under the new name", "before", a.st.Collector, "now", a.id.Collector)
			a.st.Collector = a.id.Collector
			a.st.LastReceipt, a.st.ReceiptTime, a.st.Checkpoint = digest{}, time.Time{}, ""
			a.st.newEpoch(&a.st.Live)
			a.st.newEpoch(&a.st.Backlog)
		}
	}
	if cut, err := a.spool.Truncate(a.st.Spool.Pos); err != nil {
		return fmt.Errorf("spool: %w", err)
	} else if cut > 0 {
		a.log.Info("events made after the last commit are made again", "bytes", cut)
	}
	if cut, err := a.batches.Truncate(a.st.Batches); err != nil {
		return fmt.Errorf("batches: %w", err)
	} else if cut > 0 {
		a.log.Info("cut off the record of batches what came after the last commit: batches that were never sent, receipts that come again", "bytes", cut)
	}
	if next := a.spool.Next(); next < a.st.Spool.Num { // a power cut took events that the state knows of
		// Sealing finds the gap in the numbers and counts it.
		a.log.Error("events that waited to leave are not on the disk, as after a power cut; they are counted", "events", a.st.Spool.Num-next)
		a.gap = true
		if err := a.spool.Rotate(a.st.Spool.Num); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	if torn := a.archive.CutBytes() + a.spool.CutBytes() + a.batches.CutBytes() + a.journal.CutBytes(); torn > 0 {
		a.log.Info("cut torn ends of files, as a crash leaves them", "bytes", torn)
		a.st.Counts["torn_bytes"] += uint64(torn)
	}
	a.pipe.covered = a.st.Covered
	a.writer = batch.NewWriter()
	a.sent = newSentIndex()
	a.live = &lane{name: batch.Live, st: &a.st.Live, log: a.spool}
	a.back = &lane{name: batch.Backlog, st: &a.st.Backlog, log: a.spool}
	a.lanes = []*lane{a.live, a.back}
	for name, dst := range map[batch.Lane]**lane{batch.LookBack: &a.lookback, batch.Raw: &a.raw} {
		if *dst, err = a.openSide(name); err != nil {
			return err
		}
	}
	a.lanes = append(a.lanes, a.lookback, a.raw)
	a.answers, a.calls, a.ended = make(chan result, len(a.lanes)), make(chan func()), make(chan struct{})
	return a.restoreDetector()
}

// memoryHead stands before the detector's snapshot.
type memoryHead struct {
	Cursor   spool.Pos            `json:"cursor"`
	Line     uint64               `json:"line,string"`
	RulePack string               `json:"rule_pack"`
	Senders  []sender             `json:"senders"`
	Evidence []uint64             `json:"evidence"`
	Guard    map[string]time.Time `json:"guard,omitempty"` // what is switched off
}

// restoreDetector gives the detector its memory back and shows it the lines between that and the state.
func (a *Agent) restoreDetector() error {
	from := a.st.Cursor
	if b := a.memory.Last(); b != nil {
		head, rest, _ := bytes.Cut(b, []byte{'\n'})
		var h memoryHead
		if err := json.Unmarshal(head, &h); err != nil {
			a.log.Warn("the on-site rules' memory is damaged; they begin anew", "error", err)
		} else {
			if h.Guard != nil {
				a.pipe.guard.Off = h.Guard
			}
			switch {
			case a.st.Cursor.Before(h.Cursor):
				a.log.Warn("the on-site rules' memory is newer than the state; they begin anew")
			case h.RulePack != a.packs.rules:
				a.log.Info("the on-site rules have changed; they begin anew", "before", h.RulePack, "now", a.packs.rules)
				a.pipe.senders.restore(h.Senders)
			default:
				if err := a.pipe.det.Restore(rest); err != nil {
					a.log.Warn("the on-site rules cannot use their memory; they begin anew", "error", err)
				} else {
					a.pipe.senders.restore(h.Senders)
					for _, n := range h.Evidence {
						a.pipe.remember(n)
					}
					from = h.Cursor
				}
			}
		}
	}
	r := a.archive.Reader(from)
	defer r.Close()
	shown := 0
	for r.Pos().Before(a.st.Cursor) {
		var l archive.Line
		if err := r.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if a.st.Cursor.Before(r.Pos()) {
			break
		}
		a.pipe.line(&l, replay)
		shown++
	}
	if shown > 0 {
		a.log.Info("showed the on-site rules again what came after their memory was saved", "lines", shown)
	}
	return nil
}

// saveDetector saves the detector's memory. It belongs to the state committed last.
func (a *Agent) saveDetector() error {
	snap, err := a.pipe.det.Snapshot()
	if err != nil {
		return fmt.Errorf("on-site rules: %w", err)
	}
	h, err := json.Marshal(memoryHead{Cursor: a.st.Cursor, Line: a.st.Line, RulePack: a.packs.rules, Senders: a.pipe.senders.list(), Evidence: a.pipe.evidenceQ, Guard: a.pipe.guard.Off})
	if err != nil {
		return err
	}
	b := append(append(h, '\n'), snap...)
	if err := a.memory.Save(b, false); err != nil {
		return fmt.Errorf("on-site rules: %w", err)
	}
	a.snapAt, a.snapLines = a.o.Now(), a.st.Counts["received"]
	return nil
}

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
			if err := in.Serve(listening, &sink{a: a, slot: in.slot}); err != nil {
				failed <- fmt.Errorf("listener %s: %w", in.Addr(), err)
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
	for {
		select {
		case r := <-a.answers:
			a.answer(r.lane, r, ask)
		case call := <-a.calls:
			call()
		case h := <-heads:
			if err := a.compare(h); err != nil {
				return err
			}
		case err := <-failed:
			a.log.Error("a listener failed", "error", err)
		default:
		}
		now := a.o.Now()
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
			if now.Sub(a.snapAt) >= snapshotEvery || a.st.Counts["received"]-a.snapLines >= snapshotLines {
				if err := a.saveDetector(); err != nil {
					a.log.Error("cannot save the on-site rules' memory", "error", err)
					a.snapAt = now
				}
			}
			if err := a.bound(now); err != nil {
				return err
			}
		}
		if a.idle && now.Sub(a.flushed) >= flushEvery && a.mayWork(now) {
			a.flushed = now
			a.pipe.flushDetector(a.st.Line, now)
		}
		a.publish()
		if worked == slice || more {
			continue
		}
		if a.draining {
			if a.drained(now) {
				return nil
			}
			ended = nil
		}
		tick.Reset(a.pause(now))
		select {
		case <-grown:
		case r := <-a.answers:
			a.answer(r.lane, r, ask)
		case call := <-a.calls:
			call()
		case h := <-heads:
			if err := a.compare(h); err != nil {
				return err
			}
		case err := <-failed:
			a.log.Error("a listener failed", "error", err)
		case <-a.wake:
		case <-ended:
			a.draining, a.drainBy = true, a.o.Now().Add(drainTime)
		case <-tick.C:
		}
	}
}

// mayWork says whether lines may be worked on: at the start that waits a little for the hub's heads, because in a restored copy some lines
// are counted at the hub already.
func (a *Agent) mayWork(now time.Time) bool {
	return a.checked || now.Sub(a.began) >= a.o.HoldStart || a.draining
}

// drained says whether the end has come: all lines worked, all events with receipts; or no more time.
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
	if !a.mayWork(now) {
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

// waitForRoom waits a little after a failed write, and says false when it is time to end.
func (a *Agent) waitForRoom(what string, err error) bool {
	now := a.o.Now()
	if now.Sub(a.saidFull) > 30*time.Second {
		a.saidFull = now
		a.log.Error("cannot write; waiting until there is room on the disk", "what", what, "error", err)
	}
	a.noRoom.Store(true)
	defer a.noRoom.Store(false)
	a.shown = time.Time{}
	a.publish()
	if a.archive.MakeRoom() {
		return true
	}
	if a.draining && now.After(a.drainBy) {
		return false
	}
	time.Sleep(100 * time.Millisecond)
	return true
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
	a.archive.Done(a.st.Cursor)
	a.lastCommit, a.dirty = a.o.Now(), false
	return nil
}

// Close closes what Open opened. It is for a collector that is not run to its end.
func (a *Agent) Close() error {
	var errs []error
	for _, l := range a.listeners {
		l.Close()
	}
	if a.job != nil { // its question stays allowed and is answered from the beginning after the next start
		a.job.reader.Close()
		a.job = nil
	}
	for _, l := range []*spool.Log{a.spool, a.batches} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	for _, l := range []*lane{a.lookback, a.raw} {
		if l != nil {
			errs = append(errs, l.log.Close())
		}
	}
	for _, j := range []*spool.Journal{a.journal, a.memory} {
		if j != nil {
			errs = append(errs, j.Close())
		}
	}
	if a.archive != nil {
		errs = append(errs, a.archive.Close())
	}
	if a.client != nil {
		a.client.Close()
	}
	if a.lock != nil {
		errs = append(errs, unlock(a.lock))
		a.lock = nil
	}
	return errors.Join(errs...)
}

func readEnrolment(c *Config) (enrolled, error) {
	var e enrolled
	b, err := os.ReadFile(c.enrolmentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return e, fmt.Errorf("%w: run: tocsin-collector enrol TOKEN --dir %s (the token comes from the portal)", keys.ErrNotEnrolled, c.Dir)
	}
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e.Enrolment); err != nil || e.Collector == "" || e.Tenant == 0 {
		return e, fmt.Errorf("%s is damaged: enrol again with a new token from the portal", filepath.Base(c.enrolmentFile()))
	}
	return e, nil
}
