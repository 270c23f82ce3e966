// The program tocsin-engine is the event store's child process: it loads libchdb, ClickHouse as a library, and answers
// ClickHouse's HTTP interface on a unix socket that only its own user may open. It is a program of its own because
// loading a C library makes the whole binary dynamic, and because an engine that dies must not take the hub with it.
//
// It reads the data folder and the library; it writes the data folder and the socket; it opens no network. It exits when
// its standard input ends, that is, when the hub that started it is gone. Before the engine opens a data folder it takes
// the folder's lock and repairs the deduplication logs that a kill may have left (package dedup), so that replaying an
// insert after a crash stores every row exactly once.
package main

import (
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"tocsin/internal/eventstore/dedup"
	"tocsin/internal/eventstore/library"
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		log.Error("event store engine stopped", "error", err)
		os.Exit(1)
	}
}

type options struct {
	library, data, socket string
	memory                int64
	threads               int
	skipDigest            bool
}

func run(log *slog.Logger) error {
	var o options
	flag.StringVar(&o.library, "library", "", "path of libchdb.so; empty: sought in the usual places")
	flag.StringVar(&o.data, "data", "", "folder of the engine's data")
	flag.StringVar(&o.socket, "socket", "", "unix socket to answer on")
	flag.Int64Var(&o.memory, "memory", 1<<30, "bytes of memory the engine may use")
	flag.IntVar(&o.threads, "threads", 0, "threads for merges and other background work; 0: the engine decides")
	flag.BoolVar(&o.skipDigest, "any-library", false, "accept a library whose digest is not in the committed list")
	flag.Parse()
	if o.data == "" || o.socket == "" || flag.NArg() > 0 {
		return errors.New("usage: tocsin-engine --data DIR --socket PATH [--library PATH] [--memory BYTES]; it is started by tocsin hub")
	}
	// Go's heap is small here; the engine's is what counts.
	debug.SetMemoryLimit(256 << 20)

	// The engine resolves relative paths against its own ideas and then fails to sync them.
	for _, p := range []*string{&o.data, &o.socket, &o.library} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	unlock, err := lock(filepath.Join(o.data, "tocsin-engine.lock"))
	if err != nil {
		return err
	}
	defer unlock()

	lib, err := library.Find(o.library)
	if err != nil {
		return err
	}
	if !o.skipDigest {
		if err := library.Verify(lib, filepath.Join(o.data, "library.verified")); err != nil {
			return err
		}
	}
	// Only now, with the lock held and no engine running, are the logs ours to mend.
	report, err := dedup.Repair(filepath.Join(o.data, "ch"))
	if err != nil {
		return fmt.Errorf("repair the deduplication logs: %w", err)
	}
	if report.Dropped > 0 || report.Torn > 0 {
		log.Warn("deduplication records without their part were dropped; the hub will insert those rows again",
			"dropped", report.Dropped, "torn lines", report.Torn, "logs", report.Logs, "parts", report.Examples)
	}

	c, err := loadLibrary(lib)
	if err != nil {
		return err
	}
	c.setSignalHandlers(0) // before connecting: Go's own handlers must keep working
	config, err := writeConfig(o)
	if err != nil {
		return err
	}
	// A config.xml in the working directory or in HOME would be picked up.
	if err := os.Chdir(o.data); err != nil {
		return err
	}
	os.Setenv("HOME", o.data)
	c.baseArgs = []string{"clickhouse", "--path=" + filepath.Join(o.data, "ch"), "--config-file=" + config,
		"--max_server_memory_usage=" + strconv.FormatInt(o.memory, 10)}
	keeper, err := c.open() // held to the end: closing the last connection shuts the engine down
	if err != nil {
		return fmt.Errorf("open the data in %s: %w", o.data, err)
	}

	os.Remove(o.socket) // ours alone: the folder's lock is held
	ln, err := listenUnix(o.socket)
	if err != nil {
		return err
	}
	srv := newServer(c, log, 64)
	hs := &http.Server{Handler: srv, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()

	stop := make(chan string, 2)
	go func() { // the hub holds the other end of our standard input
		io.Copy(io.Discard, os.Stdin)
		stop <- "the hub closed standard input"
	}()
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGTERM, syscall.SIGINT)
	go func() { stop <- "signal " + (<-sig).String() }()

	log.Info("event store engine ready", "version", c.version(), "memory_limit", o.memory)
	fmt.Println("ready") // the supervisor waits for this line
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case why := <-stop:
		log.Info("event store engine stopping", "why", why)
	}
	// Statements get three seconds, then the process ends: the engine survives being killed at any point.
	hard := time.AfterFunc(8*time.Second, func() { os.Exit(3) })
	defer hard.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := hs.Shutdown(ctx); err != nil {
		hs.Close()
	}
	done := make(chan struct{})
	go func() { srv.active.Wait(); close(done) }()
	select {
	case <-done:
		keeper.close()
	case <-time.After(3 * time.Second):
	}
	os.Remove(o.socket)
	return nil
}

// lock makes sure that no other tocsin-engine has the folder open. The kernel drops it when the process dies.
func lock(path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the data folder's lock: %w", err)
	}
	// A killed predecessor holds the lock until the kernel has torn its memory down.
	deadline := time.Now().Add(10 * time.Second)
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("another tocsin-engine has %s open: stop it first", filepath.Dir(path))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// listenUnix makes the socket with mode 0600 from its first moment.
func listenUnix(path string) (net.Listener, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

// writeConfig writes the engine's own configuration file: no network, no log of its own (a
// logger entry makes it trace every statement), small caches, UTC.
func writeConfig(o options) (string, error) {
	type conf struct {
		XMLName                     xml.Name `xml:"clickhouse"`
		Timezone                    string   `xml:"timezone"`
		MarkCache                   int64    `xml:"mark_cache_size"`
		UncompressedCache           int64    `xml:"uncompressed_cache_size"`
		IndexMarkCache              int64    `xml:"index_mark_cache_size"`
		BackgroundPool              int      `xml:"background_pool_size,omitempty"`
		BackgroundSchedulePool      int      `xml:"background_schedule_pool_size,omitempty"`
		BackgroundCommonPool        int      `xml:"background_common_pool_size,omitempty"`
		BackgroundMovePool          int      `xml:"background_move_pool_size,omitempty"`
		BackgroundFetchesPool       int      `xml:"background_fetches_pool_size,omitempty"`
		BackgroundMessageBrokerPool int      `xml:"background_message_broker_schedule_pool_size,omitempty"`
		BackgroundDistributedPool   int      `xml:"background_distributed_schedule_pool_size,omitempty"`
		BackgroundBufferPool        int      `xml:"background_buffer_flush_schedule_pool_size,omitempty"`
	}
	c := conf{Timezone: "UTC", MarkCache: 64 << 20, UncompressedCache: 0, IndexMarkCache: 16 << 20}
	if o.threads > 0 {
		c.BackgroundPool = o.threads
		c.BackgroundSchedulePool = max(4, o.threads)
		c.BackgroundCommonPool = max(2, o.threads)
		c.BackgroundMovePool, c.BackgroundFetchesPool, c.BackgroundMessageBrokerPool = 1, 1, 1
		c.BackgroundDistributedPool, c.BackgroundBufferPool = 1, 1
	}
	b, err := xml.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(o.data, "engine.xml")
	if err := os.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	return path, nil
}
