// Package enginetest starts the real event store engine for tests: it builds tocsin-engine once, finds libchdb, and runs the
// child on a folder of its own. A test that needs the engine is skipped, aloud, where the library is not installed.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tocsin/internal/eventstore/engine"
	"tocsin/internal/eventstore/library"
)

var build = sync.OnceValues(func() (string, error) {
	// Beside Go's own cache, not in the test's folder: all tests of all packages share it, and the last build wins whole.
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tocsin-test")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	tmp := filepath.Join(dir, fmt.Sprintf("tocsin-engine.%d", os.Getpid()))
	defer os.Remove(tmp)
	b, err := exec.Command("go", "build", "-o", tmp, "tocsin/cmd/tocsin-engine").CombinedOutput()
	if err != nil {
		return "", errors.New("build tocsin-engine: " + string(b))
	}
	out := filepath.Join(dir, "tocsin-engine")
	return out, os.Rename(tmp, out)
})

// Program gives the path of a freshly built tocsin-engine.
func Program(t testing.TB) string {
	t.Helper()
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Library gives the path of libchdb, or skips the test.
func Library(t testing.TB) string {
	t.Helper()
	p, err := library.Find("")
	if err != nil {
		t.Skip("SKIPPED, the real engine is not installed: ", err)
	}
	return p
}

// Dir makes a folder with a path short enough for a unix socket in it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Start runs the engine on dir (see Dir) until the test ends.
func Start(t testing.TB, dir string) *engine.Engine {
	t.Helper()
	lib := Library(t)
	o := engine.Options{Program: Program(t), Library: lib, Dir: filepath.Join(dir, "engine"), Socket: filepath.Join(dir, "e.sock"), Logger: slog.New(slog.DiscardHandler),
		Pause: 50 * time.Millisecond} // a test that kills it again and again need not wait longer each time
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := engine.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}
