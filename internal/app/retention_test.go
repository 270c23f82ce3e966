package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uptrace/bun"

	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/ledger"
)

// part opens the named parts of a hub, without what nothing here needs, and closes them with the test.
func part(t *testing.T, steps ...func(*hub) func(context.Context) error) *hub {
	t.Helper()
	cfg := settings(t)
	createScheme(t, cfg)
	h := &hub{cfg: cfg, log: slog.New(slog.DiscardHandler), metrics: prometheus.NewRegistry()}
	t.Cleanup(func() {
		for i := len(h.closers) - 1; i >= 0; i-- {
			if err := h.closers[i].close(context.Background()); err != nil {
				t.Errorf("closing %s: %v", h.closers[i].name, err)
			}
		}
	})
	for _, open := range steps {
		if err := open(h)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func keysOf(h *hub) func(context.Context) error    { return h.openKeys }
func recordsOf(h *hub) func(context.Context) error { return h.openRecords }
func busOf(h *hub) func(context.Context) error     { return h.openBus }

// Old batches go, but not while the bus speaks of any as old, nor while a dead letter needs them.
func TestExpireBatches(t *testing.T) {
	h := part(t, keysOf, recordsOf, busOf)
	ctx := t.Context()
	var notices []bus.Notice
	for i := range 2 {
		// A pack for each: a store's pack ends when it is closed.
		b, err := blob.Open(blob.Options{Dir: h.path("blobs"), Keys: h.tenants, Reserve: 1})
		if err != nil {
			t.Fatal(err)
		}
		n := bus.Notice{Digest: sha256.Sum256([]byte{byte(i)}), Tenant: 1, Collector: "0193a5b0-0000-7000-8000-000000000001", Lane: "live", Epoch: strings.Repeat("ab", 16), Seq: uint64(i + 1), Events: 1, Received: 1}
		if n.Blob, err = b.Put(ctx, blob.Blob{Name: n.Digest, Tenant: 1, Kind: blob.Batch, Received: time.Now()}, []byte("a batch")); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		notices = append(notices, n)
	}
	if err := h.openBlobs(ctx); err != nil {
		t.Fatal(err)
	}
	there := func(n bus.Notice) bool {
		t.Helper()
		_, err := h.blobs.Get(ctx, n.Tenant, n.Digest, n.Blob)
		if err != nil && !errors.Is(err, blob.ErrMissing) {
			t.Fatal(err)
		}
		return err == nil
	}
	expire := func(days int) {
		t.Helper()
		if err := h.expireBatches(ctx, time.Now().AddDate(0, 0, days)); err != nil {
			t.Fatal(err)
		}
	}
	seq, err := h.bus.Publish(ctx, bus.Subject(1), "1", notices[0].Encode())
	if err != nil {
		t.Fatal(err)
	}
	expire(400)
	if !there(notices[0]) || !there(notices[1]) {
		t.Fatal("a batch expired that is as old as one that the worker has not stored")
	}
	for _, name := range []string{workerFollower, ledger.Follower} {
		c, err := h.bus.Consumer(ctx, name, "batch.*")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AckThrough(ctx, seq); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.bus.Trim(ctx); err != nil {
		t.Fatal(err)
	}
	letter := notices[1].Encode()
	if err := h.office.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO worker_dead (shard, bus_seq, place, at_ns, tenant, collector, digest, events, reason, notice) VALUES ('all', 2, 0, 1, 1, 'c', 'd', 1, 'test', ?)", letter)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	expire(89)
	if !there(notices[0]) {
		t.Error("a batch expired before its time")
	}
	h.cfg.Retention.Batches = 0
	expire(4000)
	if !there(notices[0]) {
		t.Error("a batch expired though all are to be kept")
	}
	h.cfg.Retention.Batches = 90
	expire(91)
	if there(notices[0]) || !there(notices[1]) {
		t.Errorf("the old batch is there: %v; the dead letter's: %v, want false and true", there(notices[0]), there(notices[1]))
	}
}

// A ledger that ends with an error is closed and opened again, goes on where it stood, and its counts go on too.
func TestLedgerComesBack(t *testing.T) {
	h := part(t, keysOf, recordsOf, busOf)
	ctx := t.Context()
	exec := func(q string) {
		t.Helper()
		if err := h.office.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
			_, err := tx.ExecContext(ctx, q)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.openLedger(ctx); err != nil {
		t.Fatal(err)
	}
	first := h.ledger.Load()
	exec("ALTER TABLE ledger_cursor RENAME TO mislaid") // the ledger's state cannot be known
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.keepLedger(running) }()
	until := func(what string, good func(ledger.Stats) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			s, err := h.ledger.Load().Stats(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if good(s) {
				return
			}
			select {
			case err := <-ended:
				t.Fatalf("it ended: %v", err)
			case <-time.After(10 * time.Millisecond): // a poll, bounded by the deadline
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v after a minute", what, s)
			}
		}
	}
	until("the ledger stops", func(s ledger.Stats) bool { return !s.Running })
	exec("ALTER TABLE mislaid RENAME TO ledger_cursor")
	n := bus.Notice{Digest: sha256.Sum256(nil), Tenant: 1, Collector: "0193a5b0-0000-7000-8000-000000000001", Lane: "live", Epoch: strings.Repeat("ab", 16), Seq: 1, Events: 1, Received: 1}
	if _, err := h.bus.Publish(ctx, bus.Subject(1), "1", n.Encode()); err != nil {
		t.Fatal(err)
	}
	until("the ledger runs again and enters what came", func(s ledger.Stats) bool { return s.Running && s.Added == 1 && s.Restarts >= 1 && s.Lag == 0 })
	if h.ledger.Load() == first {
		t.Error("the ledger that failed is still there")
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("told to stop it ended with %v", err)
	}
}
