package outbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TOCSIN_OUTBOX_CRASH"); dir != "" {
		crashChild(dir, os.Getenv("TOCSIN_OUTBOX_URL"), os.Getenv("TOCSIN_OUTBOX_ROUND"))
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, path string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), db.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func start(t testing.TB, b *Box) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // a poll, bounded by end
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func stats(t testing.TB, b *Box) Stats {
	t.Helper()
	st, err := b.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestRunsOncePerKey(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	b := New(d, Options{Base: time.Millisecond, Max: 4 * time.Millisecond, Poll: 5 * time.Millisecond, Attempts: 4})
	var mu sync.Mutex
	ran := map[string]int{}
	b.Handle("good", Kind{Parallel: 8, Handler: func(_ context.Context, e Entry) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		ran[e.Key]++
		return "did " + string(e.Payload), nil
	}})
	b.Handle("flaky", Kind{Handler: func(_ context.Context, e Entry) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if ran[e.Key]++; e.Attempts < 3 {
			return "", errors.New("not now")
		}
		return "at last", nil
	}})
	b.Handle("bad", Kind{Handler: func(_ context.Context, e Entry) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		ran[e.Key]++
		return "", errors.New("the relay says no")
	}})
	b.Handle("never", Kind{Handler: func(_ context.Context, e Entry) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if ran[e.Key]++; e.Key == "panic" {
			panic("oh")
		}
		return "", fmt.Errorf("no such address: %w", ErrPermanent)
	}})
	boom := errors.New("boom")
	if err := d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error {
		if _, err := b.Record(ctx, tx, Entry{Key: "taken-back", Kind: "good"}); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	start(t, b)
	for range 3 {
		for i := range 30 {
			if err := b.Add(t.Context(), Entry{Key: fmt.Sprint("g", i), Kind: "good", Tenant: 7, Payload: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Add(t.Context(), Entry{Key: "f", Kind: "flaky"}, Entry{Key: "b", Kind: "bad", Tenant: 7}, Entry{Key: "n", Kind: "never"}, Entry{Key: "panic", Kind: "never"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add(t.Context(), Entry{Kind: "good"}); err == nil {
		t.Error("an entry without a key was recorded")
	}
	waitFor(t, "all entries", func() bool { st := stats(t, b); return st.Done == 31 && st.Dead == 3 })
	mu.Lock()
	for i := range 30 {
		if n := ran[fmt.Sprint("g", i)]; n != 1 {
			t.Errorf("g%d ran %d times", i, n)
		}
	}
	if ran["f"] != 3 || ran["b"] != 4 || ran["n"] != 1 || ran["panic"] != 1 || ran["taken-back"] != 0 {
		t.Errorf("%v", ran)
	}
	mu.Unlock()
	dead, err := b.List(t.Context(), access.Only(7), Filter{State: Dead})
	if err != nil || len(dead) != 1 || dead[0].Error != "the relay says no" || dead[0].Attempts != 4 || dead[0].EndedNS == 0 {
		t.Fatalf("%+v, %v", dead, err)
	}
	for _, scope := range []access.Scope{access.Only(8), {}} {
		if l, err := b.List(t.Context(), scope, Filter{}); err != nil || len(l) != 0 {
			t.Errorf("%v sees %v, %v", scope, l, err)
		}
		if err := b.Retry(t.Context(), scope, dead[0].ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: %v", scope, err)
		}
	}
	if err := b.Retry(t.Context(), access.Only(7), dead[0].ID); err != nil {
		t.Error(err)
	}
	waitFor(t, "the retry", func() bool { mu.Lock(); defer mu.Unlock(); return ran["b"] == 8 })
}

func TestLater(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	b := New(d, Options{Poll: 5 * time.Millisecond})
	var at atomic.Int64
	b.Handle("k", Kind{Handler: func(context.Context, Entry) (string, error) { at.Store(time.Now().UnixNano()); return "", nil }})
	start(t, b)
	due := time.Now().Add(100 * time.Millisecond).UnixNano()
	if err := b.Add(t.Context(), Entry{Key: "k", Kind: "k", DueNS: due}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the entry", func() bool { return at.Load() != 0 })
	if at.Load() < due {
		t.Error("ran too early")
	}
}

// Stopping while a handler runs gives the entry back, uncounted, and waits for it.
func TestStop(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	b := New(d, Options{Poll: 5 * time.Millisecond})
	started := make(chan struct{})
	b.Handle("slow", Kind{Parallel: 1, Handler: func(ctx context.Context, e Entry) (string, error) {
		close(started)
		<-ctx.Done()
		return "", ctx.Err()
	}})
	stop := start(t, b)
	if err := b.Add(t.Context(), Entry{Key: "s", Kind: "slow"}, Entry{Key: "t", Kind: "slow"}, Entry{Key: "u", Kind: "slow"}); err != nil {
		t.Fatal(err)
	}
	<-started
	stop()
	l, err := b.List(t.Context(), access.System("test"), Filter{})
	if err != nil || len(l) != 3 {
		t.Fatalf("%+v, %v", l, err)
	}
	for _, e := range l { // the one that ran, and those that were taken behind it
		if e.State != Waiting || e.Attempts != 0 || e.Runner != "" {
			t.Errorf("%+v", e)
		}
	}
}

// TestStoppedBeforeItBegan: Run told to stop at once is no fault, whichever of its first steps it had come to.
func TestStoppedBeforeItBegan(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"))
	b := New(d, Options{})
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// An entry that was running when the hub died runs again at once, or, of a kind
// registered as Once, lies dead.
func TestOrphans(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	b := New(d, Options{Poll: 5 * time.Millisecond})
	if err := b.Add(t.Context(), Entry{Key: "a", Kind: "mail"}, Entry{Key: "b", Kind: "once"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.claim(t.Context(), "mail", Kind{Timeout: time.Hour}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.claim(t.Context(), "once", Kind{Timeout: time.Hour}, 1); err != nil {
		t.Fatal(err)
	}
	b2 := New(d, Options{Poll: 5 * time.Millisecond})
	var n atomic.Int32
	h := func(context.Context, Entry) (string, error) { n.Add(1); return "", nil }
	b2.Handle("mail", Kind{Handler: h})
	b2.Handle("once", Kind{Handler: h, Once: true})
	start(t, b2)
	waitFor(t, "the orphan", func() bool { st := stats(t, b2); return st.Done == 1 && st.Dead == 1 })
	if n.Load() != 1 {
		t.Errorf("%d ran", n.Load())
	}
}

// What cannot be taken, because the disk is full, is not sent; when there is room again, each entry is sent once.
func TestNotTaken(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	var looked, ran atomic.Int32
	b := New(d, Options{Poll: time.Millisecond, Now: func() time.Time { looked.Add(1); return time.Now() }})
	exec := func(sql string) {
		t.Helper()
		if err := d.Write(t.Context(), func(ctx context.Context, tx bun.IDB) error { _, err := tx.ExecContext(ctx, sql); return err }); err != nil {
			t.Fatal(err)
		}
	}
	b.Handle("mail", Kind{Parallel: 2, Handler: func(context.Context, Entry) (string, error) { ran.Add(1); return "", nil }})
	if err := b.Add(t.Context(), Entry{Key: "a", Kind: "mail"}, Entry{Key: "b", Kind: "mail"}); err != nil {
		t.Fatal(err)
	}
	// The second of two fails, so that the first is there already.
	exec("CREATE TRIGGER full BEFORE UPDATE ON outbox WHEN NEW.key = 'b' BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
	start(t, b)
	waitFor(t, "ten tries", func() bool { return looked.Load() > 20 })
	if ran.Load() != 0 {
		t.Errorf("%d sent that were not taken", ran.Load())
	}
	exec("DROP TRIGGER full")
	waitFor(t, "both", func() bool { return stats(t, b).Done == 2 })
	if ran.Load() != 2 {
		t.Errorf("%d sent, want 2", ran.Load())
	}
}

// A runner whose lease was taken over must not write the result of its attempt
// over the other's.
func TestStaleRunner(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	b := New(d, Options{})
	if err := b.Add(t.Context(), Entry{Key: "a", Kind: "mail"}); err != nil {
		t.Fatal(err)
	}
	es, err := b.claim(t.Context(), "mail", Kind{}, 1)
	if err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
	b2 := New(d, Options{})
	b2.Handle("mail", Kind{})
	if err := b2.reclaim(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := b2.claim(t.Context(), "mail", Kind{}, 1); err != nil {
		t.Fatal(err)
	}
	b.ended(t.Context(), Kind{Timeout: time.Second, Attempts: 1}, es[0], "", errors.New("late"))
	l, _ := b.List(t.Context(), access.System("test"), Filter{})
	if len(l) != 1 || l[0].State != Running || l[0].Runner != b2.runner {
		t.Errorf("%+v", l)
	}
}

func TestPrune(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "t.db"))
	now := time.Now()
	b := New(d, Options{Now: func() time.Time { return now }})
	b.Handle("k", Kind{Handler: func(context.Context, Entry) (string, error) { return "", nil }})
	if err := b.Add(t.Context(), Entry{Key: "a", Kind: "k"}); err != nil {
		t.Fatal(err)
	}
	es, err := b.claim(t.Context(), "k", Kind{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	b.ended(t.Context(), b.kinds["k"], es[0], "", nil)
	if n, err := b.Prune(t.Context(), time.Hour); n != 0 || err != nil {
		t.Error(n, err)
	}
	now = now.Add(2 * time.Hour)
	if n, err := b.Prune(t.Context(), time.Hour); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// The hub is killed again and again, at any moment, while it records and
// delivers. Every entry whose recording was confirmed arrives; every delivery
// of one entry carries the same key; and only deliveries that a kill cut off
// are seen twice.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for several seconds")
	}
	const rounds, parallel = 6, 4
	var mu sync.Mutex
	seen := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen[string(body)]++
		mu.Unlock()
	}))
	defer srv.Close()
	dir := t.TempDir()
	confirmed := map[string]bool{}
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TOCSIN_OUTBOX_CRASH="+dir, "TOCSIN_OUTBOX_URL="+srv.URL, fmt.Sprint("TOCSIN_OUTBOX_ROUND=", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			confirmed[sc.Text()] = true
			if n == 100+17*round { // a different moment each time
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
	}
	d := open(t, filepath.Join(dir, "t.db"))
	if err := d.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := New(d, Options{Poll: 5 * time.Millisecond})
	b.Handle("post", Kind{Parallel: parallel, Handler: poster(srv.URL)})
	start(t, b)
	waitFor(t, "the rest", func() bool { st := stats(t, b); return st.Waiting == 0 && st.Running == 0 })
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for key := range confirmed {
		if seen[key] == 0 {
			t.Errorf("%s was recorded and never delivered", key)
		}
	}
	for _, n := range seen {
		twice += n - 1
	}
	if twice > rounds*parallel {
		t.Errorf("%d repeated deliveries; %d kills can explain at most %d", twice, rounds, rounds*parallel)
	}
	if len(confirmed) < rounds*100 {
		t.Errorf("only %d were recorded", len(confirmed))
	}
	t.Logf("%d kills, %d recorded, %d delivered, %d of them twice", rounds, len(confirmed), len(seen), twice)
}

func poster(url string) Handler {
	return func(ctx context.Context, e Entry) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(e.Key))
		if err != nil {
			return "", err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		return res.Status, res.Body.Close()
	}
}

// crashChild records and delivers until it is killed. It prints each key once
// its recording is durable.
func crashChild(dir, url, round string) {
	ctx := context.Background()
	d, err := db.Open(ctx, db.Options{Path: filepath.Join(dir, "t.db")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	b := New(d, Options{Poll: 5 * time.Millisecond})
	b.Handle("post", Kind{Parallel: 4, Handler: poster(url)})
	go func() {
		if err := b.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	for i := 0; ; i++ {
		key := fmt.Sprintf("r%s-%d", round, i)
		if err := b.Add(ctx, Entry{Key: key, Kind: "post", Tenant: event.TenantID(1)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(key)
	}
}

func BenchmarkRecordAndRun(b *testing.B) {
	d := open(b, filepath.Join(b.TempDir(), "t.db"))
	box := New(d, Options{})
	var n atomic.Int64
	done := make(chan struct{})
	box.Handle("k", Kind{Parallel: 16, Handler: func(context.Context, Entry) (string, error) {
		if n.Add(1) == int64(b.N) {
			close(done)
		}
		return "", nil
	}})
	stop := start(b, box)
	b.ResetTimer()
	for i := range b.N {
		if err := box.Add(b.Context(), Entry{Key: fmt.Sprint(i), Kind: "k"}); err != nil {
			b.Fatal(err)
		}
	}
	<-done
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	stop()
}
