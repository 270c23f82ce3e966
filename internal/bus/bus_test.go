package bus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BUS_TEST_CHILD"); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, o Options) *Bus {
	t.Helper()
	if o.Dir == "" && o.URL == "" {
		o.Dir = t.TempDir()
	}
	o.TrimEvery = -1
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func publish(t testing.TB, b *Bus, subject, id string) uint64 {
	t.Helper()
	seq, err := b.Publish(context.Background(), subject, id, []byte(id))
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func consumer(t testing.TB, b *Bus, name string, subjects ...string) *Consumer {
	t.Helper()
	c, err := b.Consumer(context.Background(), name, subjects...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fetch(t testing.TB, c *Consumer, n int) string {
	t.Helper()
	ms, err := c.Fetch(context.Background(), n, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var s []string
	for _, m := range ms {
		s = append(s, string(m.Data))
	}
	return strings.Join(s, " ")
}

// suite is the contract; embedded and external pass the same.
func suite(t *testing.T, b *Bus) {
	ctx := context.Background()
	for i := range 5 {
		publish(t, b, fmt.Sprintf("batch.%02d", i%2), fmt.Sprint("m", i))
	}
	if a, z := publish(t, b, "batch.00", "m0"), uint64(1); a != z {
		t.Errorf("a repeated id got sequence %d, the first was %d", a, z)
	}
	all, even := consumer(t, b, "all", "batch.*"), consumer(t, b, "even", "batch.00")
	if got := fetch(t, all, 3); got != "m0 m1 m2" {
		t.Errorf("all, first: %q", got)
	}
	if got := fetch(t, all, 10); got != "m3 m4" {
		t.Errorf("all, then: %q", got)
	}
	if got := fetch(t, even, 10); got != "m0 m2 m4" {
		t.Errorf("even: %q", got)
	}
	if got := fetch(t, even, 10); got != "" {
		t.Errorf("nothing is left, yet %q", got)
	}
	if err := all.AckThrough(ctx, 2); err != nil {
		t.Fatal(err)
	}
	// Opened anew, as after a crash: everything past the acknowledgement comes again, what was delivered too.
	all = consumer(t, b, "all", "batch.*")
	if all.Acked() != 2 {
		t.Errorf("cursor is %d", all.Acked())
	}
	if got := fetch(t, all, 10); got != "m2 m3 m4" {
		t.Errorf("after opening anew: %q", got)
	}
	if n, err := all.Lag(ctx); err != nil || n != 3 {
		t.Errorf("lag %d, %v", n, err)
	}
	// Nothing is deleted that somebody has not acknowledged.
	if n, err := b.Trim(ctx); err != nil || n != 0 {
		t.Errorf("trimmed %d, %v", n, err)
	}
	if err := even.AckThrough(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Trim(ctx); err != nil || n != 2 { // even is at 1, its next is 3, all is at 2
		t.Errorf("trimmed %d, %v", n, err)
	}
	if err := all.AckThrough(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if err := even.AckThrough(ctx, 5); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "batch.01", "m5")
	if err := all.AckThrough(ctx, 6); err != nil {
		t.Fatal(err)
	}
	// even has never seen m5: it is not on its subject and must not be kept for it.
	if n, err := b.Trim(ctx); err != nil || n != 4 {
		t.Errorf("trimmed %d, %v", n, err)
	}
	if err := all.AckThrough(ctx, 3); err != nil || all.Acked() != 6 {
		t.Errorf("an older acknowledgement moved the cursor to %d, %v", all.Acked(), err)
	}
	// A waiting fetch returns as soon as something comes.
	got := make(chan string)
	go func() {
		ms, err := all.Fetch(ctx, 10, 20*time.Second)
		if err != nil || len(ms) != 1 {
			got <- fmt.Sprint(ms, err)
			return
		}
		got <- string(ms[0].Data)
	}()
	publish(t, b, "batch.63", "late")
	select {
	case s := <-got:
		if s != "m5" && s != "late" {
			t.Errorf("waiting fetch got %q", s)
		}
	case <-time.After(15 * time.Second):
		t.Error("a waiting fetch does not return when a message comes")
	}
}

func TestEmbedded(t *testing.T) { suite(t, open(t, Options{})) }

func TestExternal(t *testing.T) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, SyncAlways: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server did not start")
	}
	suite(t, open(t, Options{URL: srv.ClientURL()}))
}

func TestEmbeddedOpensNoSocket(t *testing.T) {
	b := open(t, Options{})
	if a := b.srv.Addr(); a != nil {
		t.Errorf("the embedded server listens on %v", a)
	}
}

func TestFull(t *testing.T) {
	b := open(t, Options{MaxBytes: 4096})
	data := make([]byte, 1000)
	var err error
	n := 0
	for ; n < 10 && err == nil; n++ {
		_, err = b.Publish(context.Background(), "batch.00", fmt.Sprint(n), data)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d messages: %v", n, err)
	}
	c := consumer(t, b, "w", "batch.00")
	ms, err := c.Fetch(context.Background(), 10, time.Second)
	if err != nil || len(ms) != n-1 {
		t.Fatalf("%d messages where %d were taken, %v", len(ms), n-1, err)
	}
	if err := c.AckThrough(context.Background(), ms[len(ms)-1].Seq); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Trim(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(context.Background(), "batch.00", "again", data); err != nil {
		t.Errorf("after making room: %v", err)
	}
	if s, err := b.Stats(context.Background()); err != nil || s.Full != 1 || s.Published != uint64(n) {
		t.Errorf("stats %+v, %v", s, err)
	}
}

func TestReserve(t *testing.T) {
	b := open(t, Options{Reserve: 1 << 62})
	if _, err := b.Publish(context.Background(), "batch.00", "x", nil); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "reserve") {
		t.Errorf("a full disk: %v", err)
	}
}

func TestWaitsForFollowers(t *testing.T) {
	b := open(t, Options{Followers: []string{"ledger", "worker"}})
	publish(t, b, "batch.00", "a")
	l := consumer(t, b, "ledger", "batch.*")
	if err := l.AckThrough(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Trim(context.Background()); err != nil || n != 0 {
		t.Errorf("deleted %d messages before the worker ever came, %v", n, err)
	}
	w := consumer(t, b, "worker", "batch.*")
	if got := fetch(t, w, 5); got != "a" {
		t.Errorf("the late follower got %q", got)
	}
	if err := b.Forget(context.Background(), "worker"); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Trim(context.Background()); err != nil || n != 0 {
		t.Errorf("a required follower was forgotten and %d messages went, %v", n, err)
	}
}

func TestInnerConsumerLost(t *testing.T) {
	b := open(t, Options{})
	publish(t, b, "batch.00", "a")
	c := consumer(t, b, "w", "batch.*")
	if got := fetch(t, c, 1); got != "a" {
		t.Fatal(got)
	}
	if err := b.js.DeleteConsumer(context.Background(), streamName, c.inner.CachedInfo().Name); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "batch.00", "b")
	for range 3 { // the first fetch may report the loss, then it heals by itself
		ms, err := c.Fetch(context.Background(), 5, time.Second)
		if err != nil {
			continue
		}
		if len(ms) != 1 || string(ms[0].Data) != "b" {
			t.Fatalf("after the loss: %v", ms)
		}
		return
	}
	t.Error("the follower did not heal")
}

func TestNotice(t *testing.T) {
	n := Notice{Digest: [32]byte{1, 2}, Tenant: 70, Collector: "c", Lane: "live", Epoch: "e", Seq: 1 << 60, Received: 123, Events: 4, Size: 5, Quarantined: true, Urgent: true, Blob: "p:1"}
	got, err := ParseNotice(n.Encode())
	if err != nil || got != n {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseNotice([]byte(`{"digest":"00"}`)); err == nil {
		t.Error("took a short digest")
	}
	if s := Subject(70); s != "batch.06" {
		t.Error(s)
	}
}

func FuzzParseNotice(f *testing.F) {
	f.Add(Notice{Tenant: 1, Blob: "x"}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ParseNotice(b)
		if err != nil {
			return
		}
		if again, err := ParseNotice(n.Encode()); err != nil || again.Digest != n.Digest || again.Seq != n.Seq || again.Tenant != n.Tenant {
			t.Errorf("round trip: %+v, %v", again, err)
		}
	})
}

// child publishes until it is killed and prints each sequence after Publish returned.
func child(dir string) {
	b, err := Open(Options{Dir: dir, TrimEvery: -1})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		seq, err := b.Publish(context.Background(), "batch.00", fmt.Sprintf("%d-%d", os.Getpid(), i), []byte("x"))
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(seq)
	}
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	var last uint64
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "BUS_TEST_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			seq, err := strconv.ParseUint(sc.Text(), 10, 64)
			if err != nil {
				t.Fatal(sc.Text())
			}
			last = seq
			if n == 40 {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
	}
	b := open(t, Options{Dir: dir})
	c := consumer(t, b, "w", "batch.*")
	seen := uint64(0)
	for {
		ms, err := c.Fetch(context.Background(), 1000, 50*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(ms) == 0 {
			break
		}
		for _, m := range ms {
			if m.Seq != seen+1 {
				t.Fatalf("sequence %d after %d", m.Seq, seen)
			}
			seen = m.Seq
		}
	}
	if seen < last {
		t.Errorf("%d messages were acknowledged to the publisher, %d are there", last, seen)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, writers := range []int{1, 32} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			bus := open(b, Options{})
			data := Notice{Collector: "019aa0b4-7c00-7000-8000-000000000001", Epoch: "00112233445566778899aabbccddeeff", Lane: "live"}.Encode()
			ids := make(chan int)
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for i := range ids {
						if _, err := bus.Publish(context.Background(), Subject(1), fmt.Sprint(i), data); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := 0; b.Loop(); i++ {
				ids <- i
			}
			close(ids)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
		})
	}
}
