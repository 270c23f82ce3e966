package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/send"
	"tocsin/internal/collector/spool"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Opening and closing: what is on the disk becomes an Agent, and what a crash left behind the last commit is cut off.

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
	if err = a.openFormat(); err != nil {
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
	// The ports first: lines are taken from the first moment, and a port in use is the commonest fault. Compiling the
	// on-site rules takes longer than all that comes before.
	if err = a.openListeners(); err != nil {
		return a, err
	}
	var det Detector
	changed := &changes{}
	if o.Detector != nil {
		if det, err = o.Detector(DetectorOptions{Collector: a.id.Collector, Withhold: withhold(a.min), Exceptions: changed.exceptions, Logger: o.Logger}); err != nil {
			return a, err
		}
	}
	if a.archive, err = archive.Open(archive.Options{Dir: c.path("archive"), MaxBytes: c.Archive.MaxBytes, MaxAge: time.Duration(c.Archive.MaxDays) * 24 * time.Hour,
		Old: !a.modern.Load(), Now: o.Now, Logger: o.Logger, OpenFile: o.OpenFile}); err != nil {
		return a, err
	}
	if a.pipe, err = newPipeline(c, a.min, det, archiveSecret, a.archive); err != nil {
		return a, err
	}
	a.pipe.log, a.pipe.changes, a.pipe.origin = a.log, changed, a.id.Collector
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
	a.done = a.st.Cursor
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
		return e, fmt.Errorf("%w: run: tocsin-collector enrol TOKEN --dir %s (the centre gives you the token)", keys.ErrNotEnrolled, c.Dir)
	}
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e.Enrolment); err != nil || e.Collector == "" || e.Tenant == 0 {
		return e, fmt.Errorf("%s is damaged: enrol again with a new token; the centre gives you one", filepath.Base(c.enrolmentFile()))
	}
	return e, nil
}
