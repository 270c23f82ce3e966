package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"tocsin/internal/alert"
	"tocsin/internal/baseline"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/config"
	"tocsin/internal/detect"
	"tocsin/internal/enrich"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine"
	"tocsin/internal/gate"
	"tocsin/internal/health"
	"tocsin/internal/health/daily"
	"tocsin/internal/keys"
	"tocsin/internal/ledger"
	"tocsin/internal/notify"
	"tocsin/internal/outbox"
	"tocsin/internal/report"
	"tocsin/internal/worker"
)

// Options are what a hub is started with.
type Options struct {
	Config  config.Hub // complete
	Logger  *slog.Logger
	Version string
	// Ready is told the address of the pages once everything answers; may be nil.
	Ready func(url string)
}

// hub is everything that runs. Fields are set by open, in order, and not changed after.
type hub struct {
	o   Options
	cfg config.Hub
	log *slog.Logger

	ring       *keys.Ring
	tenants    *keys.TenantKeys
	office     *Office
	blobs      *blob.Store
	bus        *bus.Bus
	engine     *engine.Engine
	store      *eventstore.Store
	places     *enrich.Enricher
	rules      *ruleKeeper
	watch      *health.Watch
	daily      *daily.Tests
	detector   atomic.Pointer[detect.Engine]
	baselines  atomic.Pointer[baseline.Engine]
	box        *outbox.Box
	budget     *notify.Budget // before box, for alerts
	alerts     *alert.Store
	plans      *worker.Plans
	worker     atomic.Pointer[worker.Worker] // with its detector made anew by keepWorking
	ledger     atomic.Pointer[ledger.Ledger] // made anew by keepLedger
	directives *directives
	gate       *gate.Gate
	reports    *report.Maker
	sender     *report.Sender // nil where no mail goes out
	pages      http.Handler
	metrics    *prometheus.Registry
	sightings  *sightings
	started    time.Time
	behind     atomic.Uint64 // pressure on collectors, float bits; written by watchLag
	marked     uint64        // rows stored when the event store was marked last; of the start, then of housekeep

	gateListener, webListener net.Listener
	stopping                  context.Context // done when the hub begins to drain: live pages end
	stop                      context.CancelFunc

	closers []closer // what open opened, in order; closed last in, first out
}

type closer struct {
	name  string
	close func(ctx context.Context) error
}

// drainTime bounds the whole drain.
const drainTime = 40 * time.Second

// Run opens a hub on the data folder, serves until ctx is done, and drains: intake stops first, stores last.
func Run(ctx context.Context, o Options) (err error) {
	// Tessera reports through klog, on stderr and in its own form; it speaks through ours instead.
	klog.SetSlogLogger(o.Logger.With("part", "tessera"))
	h := &hub{o: o, cfg: o.Config, log: o.Logger, started: time.Now(), metrics: prometheus.NewRegistry()}
	h.stopping, h.stop = context.WithCancel(context.Background())
	defer h.stop()
	defer func() {
		done, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		for i := len(h.closers) - 1; i >= 0; i-- {
			if cerr := h.closers[i].close(done); cerr != nil {
				err = errors.Join(err, fmt.Errorf("closing %s: %w", h.closers[i].name, cerr))
			}
		}
	}()
	if err := h.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop before it had begun
		}
		return err
	}
	h.metrics.MustRegister(stageMetrics{h.stages, h.log})
	return h.serve(ctx)
}

func (h *hub) onClose(name string, f func(ctx context.Context) error) {
	h.closers = append(h.closers, closer{name, f})
}

func (h *hub) path(parts ...string) string {
	return filepath.Join(append([]string{h.cfg.DataDir}, parts...)...)
}

// serve runs the stages until ctx is done or one of them fails, then stops them in the order of the line, so that each can finish what the
// one before it handed over.
func (h *hub) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	intake, stopIntake := stage(ctx)
	line, stopLine := stage(ctx)
	defer stopIntake()
	defer stopLine()

	var intakes, stages sync.WaitGroup
	run := func(group *sync.WaitGroup, name string, on context.Context, f func(context.Context) error) {
		group.Go(func() {
			if err := f(on); err != nil && on.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	run(&stages, "worker", line, h.keepWorking)
	run(&stages, "ledger", line, h.keepLedger)
	run(&stages, "alerts", line, h.alerts.Run)
	run(&stages, "rules", line, h.rules.run)
	run(&stages, "detection health", line, h.watchDetection)
	run(&stages, "daily tests", line, h.daily.Run)
	run(&stages, "rematch", line, h.office.Rematch.Run)
	run(&stages, "outbox", line, h.box.Run)
	run(&stages, "weekly reports", line, h.sendReports)
	run(&stages, "indicators", line, h.office.Intel.Run)
	run(&stages, "housekeeping", line, h.housekeep)
	run(&stages, "watch on the lag", line, h.watchLag)
	run(&intakes, "gate", intake, func(ctx context.Context) error { return h.gate.Serve(ctx, h.gateListener) })
	run(&intakes, "pages", intake, h.serveWeb)
	run(&intakes, "admin socket", intake, h.serveAdmin)

	h.log.InfoContext(ctx, "ready", "pages", h.cfg.Web.PublicURL, "gate", h.gateListener.Addr().String(), "took", time.Since(h.started).Round(time.Millisecond))
	if h.o.Ready != nil {
		h.o.Ready(h.cfg.Web.PublicURL)
	}
	<-ctx.Done()
	h.log.Info("draining")
	h.stop()
	stopIntake()
	intakes.Wait()
	stopLine()
	stages.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Bounds of the wait before a worker that ended with an error is started again. One that ran so long is taken to have been well.
const (
	restartLeast = time.Second
	restartMost  = time.Minute
	restartWell  = 5 * time.Minute
)

// keepWorking runs the worker, and another in its place when it ends with an error: what it kept in memory is made anew, what it had begun
// is redone (package worker). Meanwhile the gate goes on taking batches, the pages stay, and health and tocsin_worker_running say what is wrong.
func (h *hub) keepWorking(ctx context.Context) error {
	return keepRunning(ctx, func(ctx context.Context) error { return h.worker.Load().Run(ctx) }, h.openWorker, func(err error, wait time.Duration) {
		h.log.ErrorContext(ctx, "the worker stopped; nothing is stored or alerted until it runs again. No batch is lost: the bus keeps them", "err", err, "again_in", wait)
	})
}

// keepLedger does the same for the ledger. Receipts do not wait for it, so the line goes on; what the bus holds is entered when it runs again.
func (h *hub) keepLedger(ctx context.Context) error {
	return keepRunning(ctx, func(ctx context.Context) error { return h.ledger.Load().Run(ctx) }, h.openLedger, func(err error, wait time.Duration) {
		h.log.ErrorContext(ctx, "the ledger stopped; batches are taken, stored and alerted, and are entered when it runs again: the bus keeps word of them", "err", err, "again_in", wait)
	})
}

// keepRunning runs something until it ends without an error or ctx is done. After an error it waits, longer each time, and has it made anew.
func keepRunning(ctx context.Context, run, renew func(context.Context) error, tell func(err error, wait time.Duration)) error {
	wait := restartLeast
	for {
		begun := time.Now()
		err := run(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Since(begun) > restartWell {
			wait = restartLeast
		}
		for err != nil {
			tell(err, wait)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			wait = min(2*wait, restartMost)
			err = renew(ctx)
		}
	}
}

// stage is a context that ends when it is told to, not with its parent: what a stage has begun is finished in the order of the line.
func stage(parent context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(parent))
}

// serveWeb serves the pages.
func (h *hub) serveWeb(ctx context.Context) error {
	return h.serveHTTP(ctx, h.webListener, h.pages, h.cfg.Web.TLSCertificate, h.cfg.Web.TLSKey)
}

func (h *hub) serveHTTP(ctx context.Context, l net.Listener, handler http.Handler, cert, key string) error {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() {
		if cert != "" {
			ended <- srv.ServeTLS(l, cert, key)
		} else {
			ended <- srv.Serve(l)
		}
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	done, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(done); err != nil {
		return errors.Join(srv.Close(), <-ended) // a page was still being read
	}
	<-ended
	return nil
}

// housekeep does what has to be done now and then.
func (h *hub) housekeep(ctx context.Context) error {
	often := time.NewTicker(5 * time.Second)
	minutely := time.NewTicker(time.Minute)
	seldom := time.NewTicker(time.Hour)
	defer often.Stop()
	defer minutely.Stop()
	defer seldom.Stop()
	expire := func() {
		if err := h.expireBatches(ctx, time.Now()); err != nil && ctx.Err() == nil {
			h.log.WarnContext(ctx, "removing batches older than retention.batches; they stay until the next try", "err", err)
		}
	}
	expire() // a full disk must not wait for the hour
	for {
		select {
		case <-ctx.Done():
			return h.sightings.flush(context.WithoutCancel(ctx))
		case <-often.C:
			if err := h.sightings.flush(ctx); err != nil {
				h.log.WarnContext(ctx, "counting indicator hits", "err", err)
			}
		case <-minutely.C:
			if err := h.markStored(ctx); err != nil && ctx.Err() == nil {
				h.log.WarnContext(ctx, "the event store is not marked; it is tried again in a minute", "err", err)
			}
		case <-seldom.C:
			if err := h.office.People.Prune(ctx); err != nil {
				h.log.WarnContext(ctx, "forgetting ended sessions", "err", err)
			}
			if err := h.budget.Prune(ctx, 7*24*time.Hour); err != nil {
				h.log.WarnContext(ctx, "forgetting what summaries told", "err", err)
			}
			if _, err := h.box.Prune(ctx, 90*24*time.Hour); err != nil {
				h.log.WarnContext(ctx, "forgetting old outbox entries", "err", err)
			}
			if _, err := h.office.Members.Prune(ctx, keepBatches); err != nil {
				h.log.WarnContext(ctx, "forgetting old batches", "err", err)
			}
			if _, err := h.alerts.Prune(ctx, 400*24*time.Hour); err != nil {
				h.log.WarnContext(ctx, "forgetting the keys of old detections", "err", err)
			}
			expire()
			if _, err := h.places.Reload(ctx); err != nil {
				h.log.WarnContext(ctx, "reading place data again; what was read before stays", "err", err)
			}
		}
	}
}

// expireBatches removes the packs of batches that are older than retention.batches says. The bus speaks of batches that the worker may not
// have stored, and dead letters of such as nobody could read: those stay.
func (h *hub) expireBatches(ctx context.Context, now time.Time) error {
	if h.cfg.Retention.Batches == 0 {
		return nil
	}
	before := now.AddDate(0, 0, -h.cfg.Retention.Batches)
	oldest, waits, err := h.bus.Oldest(ctx)
	if err != nil {
		return err
	}
	// The gate writes the batch before it publishes word of it.
	if oldest = oldest.Add(-time.Hour); waits && oldest.Before(before) {
		before = oldest
	}
	refs, err := h.plans.HeldBlobs(ctx)
	if err != nil {
		return err
	}
	held := make(map[string]bool, len(refs))
	for _, ref := range refs {
		held[blob.PackOf(ref)] = true
	}
	n, size, err := h.blobs.Expire(ctx, before, func(pack string) bool { return held[pack] })
	if n > 0 {
		h.log.InfoContext(ctx, "removed batches that are older than retention.batches", "packs", n, "mib", size>>20)
	}
	return err
}

// findBeside looks for a data folder: where the settings say, beside the program's own, then where packages put it.
func findBeside(configured string, parts ...string) []string {
	if configured != "" {
		return []string{configured}
	}
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dirs = append(dirs, filepath.Join(append([]string{filepath.Dir(exe), ".."}, parts...)...))
	}
	return append(dirs, filepath.Join(append([]string{"/usr"}, parts...)...))
}
