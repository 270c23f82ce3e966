package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tocsin/internal/alert"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/detect"
	"tocsin/internal/directive"
	"tocsin/internal/enrich"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/eventstore/engine"
	"tocsin/internal/gate"
	"tocsin/internal/health"
	"tocsin/internal/keys"
	"tocsin/internal/ledger"
	"tocsin/internal/notify"
	"tocsin/internal/outbox"
	"tocsin/internal/people"
	"tocsin/internal/rematch"
	"tocsin/internal/web"
	"tocsin/internal/worker"
	"tocsin/sigma"
)

// open builds the line of docs/design.md section 3, from what everything stands on to the listeners. It reads like the drawing, from the
// right: each stage is given what it hands on to. Nothing comes in before all of it stands.
func (h *hub) open(ctx context.Context) error {
	for _, step := range []struct {
		name string
		open func(context.Context) error
	}{
		{"keys", h.openKeys},
		{"records", h.openRecords},
		{"bus", h.openBus},
		{"blobs", h.openBlobs},
		{"event store", h.openStore},
		{"what a copy lacks", h.makeWhole},
		{"outbox and alerts", h.openAlerts},
		{"rules", h.openRules},
		{"places", h.openPlaces},
		{"worker", h.openWorker},
		{"ledger", h.openLedger},
		{"gate", h.openGate},
		{"reports", h.openReports},
		{"pages", h.openPages},
	} {
		begun := time.Now()
		if err := step.open(ctx); err != nil {
			return fmt.Errorf("opening %s: %w", step.name, err)
		}
		h.log.DebugContext(ctx, "opened", "part", step.name, "took", time.Since(begun).Round(time.Millisecond))
	}
	return nil
}

func (h *hub) openKeys(context.Context) (err error) {
	for _, dir := range []string{h.cfg.DataDir, h.path("run")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	h.ring, err = keys.Open(keyDir(h.cfg.DataDir), keys.HubPurposes...)
	if errors.Is(err, keys.ErrNoScheme) {
		return fmt.Errorf("%s holds no scheme yet: run `tocsin admin --data %s init --offline FOLDER` first", h.cfg.DataDir, h.cfg.DataDir)
	}
	if err != nil {
		return err
	}
	h.tenants, err = keys.OpenTenantKeys(filepath.Join(keyDir(h.cfg.DataDir), "tenants"), nil)
	return err
}

func (h *hub) openRecords(ctx context.Context) error {
	signer, err := h.ring.Signer(keys.IndicatorSets)
	if err != nil {
		return err
	}
	if h.office, err = OpenOffice(ctx, h.cfg, signer, h.log); err != nil {
		return err
	}
	h.onClose("database", func(context.Context) error { return h.office.Close() })
	h.sightings = newSightings(h.office.Intel)
	h.directives = &directives{dir: h.cfg.DataDir, trust: h.ring.Trust, ledger: h.ledger.Load, log: h.log}
	// The set must be there before the first event: the hub matches with it too.
	return h.office.Intel.Publish(ctx)
}

// followers are those who must have seen a message before the bus forgets it.
const workerFollower = "worker"

func (h *hub) openBus(ctx context.Context) (err error) {
	if h.bus, err = h.newBus(); err != nil {
		return err
	}
	h.onClose("bus", func(context.Context) error { return h.bus.Close() })
	h.plans = worker.NewPlans(h.office.DB)
	return h.noticeRestore(ctx)
}

func (h *hub) newBus() (*bus.Bus, error) {
	return bus.Open(bus.Options{Dir: h.path("bus"), URL: h.cfg.Bus.URL, MaxBytes: h.cfg.Bus.MaxBytes << 20, Followers: []string{ledger.Follower, workerFollower}, Logger: h.log})
}

func (h *hub) openBlobs(context.Context) (err error) {
	h.blobs, err = blob.Open(blob.Options{Dir: h.path("blobs"), Keys: h.tenants, Logger: h.log})
	if err != nil {
		return err
	}
	h.onClose("blobs", func(context.Context) error { return h.blobs.Close() })
	return nil
}

func (h *hub) openStore(ctx context.Context) (err error) {
	h.engine, err = engine.Start(ctx, engine.Options{
		Program: h.cfg.Engine.Program, Library: h.cfg.Engine.Library, Dir: h.path("engine"), Socket: h.path("run", "engine.sock"),
		Memory: int64(h.cfg.Engine.Memory) << 20, Logger: h.log,
	})
	if err != nil {
		return err
	}
	h.onClose("engine", func(context.Context) error { h.engine.Close(); return nil })
	h.store, err = eventstore.Open(ctx, eventstore.Options{Address: h.engine.Address(), Ready: h.engine.Ready, Logger: h.log})
	if err != nil {
		return err
	}
	h.onClose("event store", func(context.Context) error { h.store.Close(); return nil })
	return nil
}

func (h *hub) openRules(ctx context.Context) error {
	h.rules = &ruleKeeper{dir: h.cfg.DataDir, log: h.log.With("part", "rules"), layers: h.office.Layers, apply: func(c *detect.Catalogue) (detect.Reloaded, error) { return h.detector.Load().Reload(c) },
		left: func() []*sigma.Error {
			if e := h.detector.Load(); e != nil {
				return e.Errors()
			}
			return h.rules.cat.Load().Errors // the worker is not made yet
		}}
	cat, err := LoadRules(h.cfg.DataDir)
	if err != nil {
		return err
	}
	for _, e := range cat.Errors {
		h.log.Error("a rule was left out", "err", e)
	}
	h.rules.cat.Store(cat)
	h.metrics.MustRegister(h.rules)
	c := h.cfg.Health
	h.watch, err = health.New(ctx, health.Options{DB: h.office.DB, Rules: h.rules.cat.Load, Logger: h.log.With("part", "detection health"),
		Times: health.Times{Window: c.Window, SourceSilent: c.SourceSilent, SourceKnown: c.SourceKnown, CollectorSilent: c.CollectorSilent}})
	if err != nil {
		return err
	}
	if h.daily, err = h.newDaily(); err != nil {
		return err
	}
	h.office.Rematch = rematch.New(h.office.DB, h.store, h.log.With("part", "rematch"), nil)
	return h.rules.layers.Refresh(ctx, Known{cat})
}

func (h *hub) openAlerts(context.Context) error {
	h.box = outbox.New(h.office.DB, outbox.Options{Logger: h.log})
	h.budget = notify.NewBudget(h.office.DB, h.box, h.cfg.Alerts.MailBudget, nil)
	if err := h.openChannels(); err != nil {
		return err
	}
	h.metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tocsin_notices_held_total", Help: "Notices that were kept for a summary because their contact had got its mails of the hour (alerts.mail_budget)."},
		func() float64 { return float64(h.budget.Held()) }))
	h.alerts = alert.New(h.office.DB, alert.Options{Outbox: h.budget, Entries: h.entries, Text: h.ruleText, Confidence: h.office.Intel.Confidence, Logger: h.log})
	return nil
}

// ruleText is what a rule says to people without technical skill.
func (h *hub) ruleText(id string) alert.Text {
	if r, ok := health.Lookup(id); ok {
		return alert.Text{Title: r.Member.Title, What: r.Member.What, Do: r.Member.Do}
	}
	info, ok := h.rules.cat.Load().Info(id)
	if !ok {
		text, _ := baselineText(id)
		return text
	}
	return alert.Text{Title: info.Member.Title, What: info.Member.What, Do: info.Member.Do}
}

func (h *hub) openPlaces(ctx context.Context) (err error) {
	dirs := findBeside(h.cfg.Places.Dir, "share", "tocsin")
	h.places, err = enrich.Open(ctx, enrich.Options{Dirs: dirs, Overlay: h.cfg.Places.Overlay, Logger: h.log})
	if err != nil {
		return err
	}
	for _, s := range h.places.Sources() {
		if s.Missing {
			h.log.WarnContext(ctx, "place data is missing; addresses get no "+s.Role, "next", s.Next)
		}
	}
	return nil
}

func (h *hub) openWorker(ctx context.Context) error {
	feed, err := h.bus.Consumer(ctx, workerFollower, "batch.*")
	if err != nil {
		return err
	}
	doubt, err := h.counter(ctx, restoredAt)
	if err != nil {
		return err
	}
	detector, err := detect.New(detect.Options{Catalogue: h.rules.cat.Load(), Where: detect.Hub, Exceptions: h.rules.exceptions, Logger: h.log})
	if err != nil {
		return err
	}
	joined, err := h.withBaselines(detector)
	if err != nil {
		return err
	}
	w, err := worker.New(worker.Options{
		Shard: shard, Doubt: doubt,
		Feed: feed, Blobs: worker.FromBlobs(h.blobs), Plans: h.plans, Store: rows{h.store},
		Enrich: observing{knowledge{h.places, h.sightings}, h.watch}, Detect: joined, Snapshots: worker.Files{Dir: h.path("snapshots")},
		Apply: func(ctx context.Context, plan string, dets []event.Detection) error {
			dets, err := h.daily.Arrived(ctx, dets)
			if err != nil {
				return err
			}
			if dets, err = h.rules.filter(ctx, dets); err != nil {
				return err
			}
			_, err = h.alerts.Apply(ctx, plan, dets)
			return err
		},
		Keep:    func(event.TenantID) uint16 { return uint16(h.cfg.Retention.Events) },
		LastSeq: h.bus.LastSeq, Logger: h.log, Registerer: h.metrics, After: h.worker.Load(),
	})
	if err != nil {
		return err
	}
	h.detector.Store(detector)
	h.worker.Store(w)
	return nil
}

// ledgerCloses bounds how long a ledger that failed may take to sign what it holds before another is opened in its place.
const ledgerCloses = 10 * time.Second

func (h *hub) openLedger(ctx context.Context) error {
	before := h.ledger.Load()
	if before != nil {
		closing, cancel := context.WithTimeout(ctx, ledgerCloses)
		defer cancel()
		if err := before.Close(closing); err != nil {
			h.log.WarnContext(ctx, "closing the ledger that stopped", "err", err)
		}
	}
	feed, err := h.bus.Consumer(ctx, ledger.Follower, "batch.*")
	if err != nil {
		return err
	}
	root := h.ring.Trust().RootFingerprint()
	dir, origin, predecessor, err := h.ledgerNow(ctx, directive.LedgerOrigin(root))
	if err != nil {
		return err
	}
	signer, err := h.ring.NoteSigner(origin)
	if err != nil {
		return err
	}
	l, err := ledger.Open(ctx, ledger.Options{Dir: dir, Predecessor: predecessor, Signer: signer, DB: h.office.DB, Messages: feed, Register: h.office.Members, Directives: h.directives.Digests, DirectivesEvery: rescan, Logger: h.log, After: before})
	if err != nil {
		return err
	}
	h.ledger.Store(l)
	if before == nil { // the one that is open at the end
		h.onClose("ledger", func(ctx context.Context) error { return h.ledger.Load().Close(ctx) })
	}
	return nil
}

func (h *hub) openGate(context.Context) error {
	ca, err := h.ring.CA()
	if err != nil {
		return err
	}
	receipts, err := h.ring.Signer(keys.Receipts)
	if err != nil {
		return err
	}
	cert, err := h.ring.HubCertificate(h.cfg.Gate.Names, time.Now())
	if err != nil {
		return err
	}
	h.gate, err = gate.New(gate.Options{
		Records: h.office.Members, Blobs: h.blobs, Bus: h.bus, Receipts: receipts, CA: ca, Certificate: cert, Trust: h.ring.Trust,
		CertificateLife: h.cfg.Gate.CertificateLife, Checkpoint: h.checkpoint, Indicators: h.office.Intel.Current, Releases: filepath.Join(h.cfg.DataDir, "releases"),
		Pressure: h.pressure, Incident: h.incident, Logger: h.log,
		Directives: h.directives.For, DailyTest: h.handDaily,
	})
	if err != nil {
		return err
	}
	h.gateListener, err = listen(h.cfg.Gate.Listen)
	if err != nil {
		return err
	}
	if err := noteAddress(h.cfg.DataDir, h.cfg.Gate.Address); err != nil {
		h.log.Warn("noting the gate's address; commands with --data alone make tokens with the address noted before", "err", err)
	}
	h.onClose("gate's listener", func(context.Context) error { return ignoreClosed(h.gateListener.Close()) })
	return nil
}

func (h *hub) openPages(context.Context) (err error) {
	proxies, err := h.cfg.Web.Proxies()
	if err != nil {
		return err
	}
	if len(proxies) == 0 && h.cfg.Web.TLSCertificate == "" && strings.HasPrefix(h.cfg.Web.PublicURL, "https:") {
		h.log.Warn("the pages seem to stand behind a reverse proxy, and web.trusted_proxies does not name it: everybody counts as one place, so that wrong sign-ins of a stranger hold everybody back")
	}
	h.pages, err = web.New(web.Options{
		Members: accounts{h.office.Members, h.plans}, Events: h.store, Alerts: h.alerts, People: h.office.People, Indicators: h.office.Intel, Reports: h.reports,
		Questions: questions{h.store, h.cfg.DataDir, h.ring.Trust, h.office.Members},
		Sessions:  people.NewSessions(h.office.DB), Health: h.health, Detection: onPages{h}, Products: h.products, Scheme: h.cfg.Scheme, PublicURL: h.cfg.Web.PublicURL, Logger: h.log, Stopping: h.stopping, Proxies: proxies,
	})
	if err != nil {
		return err
	}
	h.webListener, err = listen(h.cfg.Web.Listen)
	if err != nil {
		return err
	}
	h.onClose("pages' listener", func(context.Context) error { return ignoreClosed(h.webListener.Close()) })
	return nil
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; is another hub running, or another program on this port?", err)
	}
	return l, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
