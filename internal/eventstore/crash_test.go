package eventstore

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/event"
	"tocsin/internal/eventstore/engine"
	"tocsin/internal/eventstore/engine/enginetest"
)

// long says whether the long form of a fault test is asked for.
func long() bool { return os.Getenv("TOCSIN_TORTURE") != "" }

// checkExact compares the rows of every batch, and every roll-up, with what was inserted.
func checkExact(t *testing.T, s *Store, want map[batchDay]int) {
	t.Helper()
	ctx := context.Background()
	b := NewBlock()
	b.perDay = want
	b.min, b.max = noon/1e3-20*day/1e3, noon/1e3+20*day/1e3
	tenants, days := map[uint32]bool{}, map[int32]bool{}
	for k := range want {
		tenants[uint32(k.tenant)], days[k.day] = true, true
	}
	wrong, err := s.wrongDays(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	for k, have := range wrong {
		t.Errorf("%s: %d rows, want %d", k, have, want[k])
	}
	var total int
	for _, n := range want {
		total += n
	}
	if got := rowCount(t, s); got != uint64(total) {
		t.Errorf("%d rows, want %d", got, total)
	}
	var ts []uint32
	for k := range tenants {
		ts = append(ts, k)
	}
	var ds []int32
	for d := range days {
		ds = append(ds, d)
	}
	if off, err := s.rollupsOff(ctx, ts, ds); err != nil || off {
		t.Errorf("roll-ups differ: %v, %v", off, err)
	}
}

// TestKillUnderLoad kills the engine's process at random while four writers insert and readers read. No call may fail: the
// queue in front makes a restart invisible. At the end every batch is there once, and so is every roll-up.
func TestKillUnderLoad(t *testing.T) {
	e := enginetest.Start(t, enginetest.Dir(t))
	s := openAt(t, Options{Address: e.Address(), Ready: e.Ready})
	kills := 4
	if long() {
		kills = 40
	}
	var (
		mu   sync.Mutex
		want = map[batchDay]int{}
		stop atomic.Bool
		wg   sync.WaitGroup
		acks atomic.Int64
		slow atomic.Int64
	)
	for writer := range 4 {
		wg.Go(func() {
			m := newMaker(uint64(writer))
			b := NewBlock()
			for n := uint64(1); !stop.Load(); n++ {
				b.Reset()
				tn := event.TenantID(10*writer + int(n%3) + 1)
				for d := range int64(3) {
					fill(t, b, m, []event.TenantID{tn}, n, 300, noon-d*day)
				}
				start := time.Now()
				if err := s.Insert(context.Background(), fmt.Sprintf("w%d-%d", writer, n), b); err != nil {
					t.Errorf("insert: %v", err)
					return
				}
				slow.Store(max(slow.Load(), int64(time.Since(start))))
				acks.Add(1)
				mu.Lock()
				for k, v := range b.counts() {
					want[k] += v
				}
				mu.Unlock()
			}
		})
	}
	var reads, longest atomic.Int64
	wg.Go(func() {
		for !stop.Load() {
			start := time.Now()
			if _, err := s.Summary(context.Background(), access.System("test"), noon-5*day, noon+day); err != nil {
				t.Errorf("a reader saw the restart: %v", err)
			}
			longest.Store(max(longest.Load(), int64(time.Since(start))))
			reads.Add(1)
		}
	})
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for range kills {
		before, at := e.Restarts(), acks.Load()
		waitFor(t, "inserts to go on", func() bool { return acks.Load() >= at+3 })
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond) // the kill should hit any stage of an insert
		if err := syscall.Kill(e.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the restart", func() bool { return e.Restarts() > before && e.Up() })
	}
	at := acks.Load()
	waitFor(t, "inserts to go on", func() bool { return acks.Load() >= at+4 })
	stop.Store(true)
	wg.Wait()
	checkExact(t, s, want)
	st := s.Stats()
	t.Logf("%d kills, %d inserts acknowledged, %d requests repeated, %d checks, %d repairs; longest insert %v, %d reads, longest %v", kills, acks.Load(), st.Repeated, st.Checks, st.Repairs, time.Duration(slow.Load()).Round(time.Millisecond), reads.Load(), time.Duration(longest.Load()).Round(time.Millisecond))
}

// TestCrashPoints kills the engine at the k-th storage system call of one insert, for every k there is, and repeats the
// insert after the restart. Without the repair of the deduplication logs, kills at renames lose rows here.
func TestCrashPoints(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED: strace is not installed")
	}
	e := enginetest.Start(t, enginetest.Dir(t))
	s := openAt(t, Options{Address: e.Address(), Ready: e.Ready})
	calls := []string{"rename,renameat,renameat2"}
	step := 1
	if long() {
		calls = append(calls, "fsync,fdatasync", "mkdir,mkdirat", "unlink,unlinkat,rmdir", "write,pwrite64")
	} else if testing.Short() {
		step = 3
	}
	want := map[batchDay]int{}
	m := newMaker(1)
	points, seq := 0, uint64(0)
	for _, set := range calls {
		for k := 1; ; k += step {
			seq++
			b := NewBlock()
			fill(t, b, m, []event.TenantID{1, 2}, seq, 20, noon)
			fill(t, b, m, []event.TenantID{1, 2}, seq, 20, noon-day)
			token := "point-" + strconv.FormatUint(seq, 10)
			before := e.Restarts()
			tracer := attach(t, strace, e, set, k)
			if tracer == nil {
				t.Skip("SKIPPED: this machine does not let strace attach")
			}
			// So that the insert finds an open connection; the kill may come as early as here, since a background merge also writes.
			err := s.c.retry(context.Background(), false, func(ctx context.Context) error { return s.c.do(ctx, "SELECT 1", nil, nil, nil) })
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Insert(context.Background(), token, b); err != nil {
				t.Fatalf("%s %d: %v", set, k, err)
			}
			for key, v := range b.counts() {
				want[key] += v
			}
			detach(tracer)
			waitFor(t, "the engine", e.Up)
			if e.Restarts() == before {
				break // fewer calls than k
			}
			points++
			wrong, err := s.wrongDays(context.Background(), b)
			if err != nil || len(wrong) > 0 {
				t.Errorf("killed at call %d of %s: %d batches wrong, %v", k, set, len(wrong), err)
			}
			if off, err := s.rollupsOff(context.Background(), b.tenants(), b.dayList()); err != nil || off {
				t.Errorf("killed at call %d of %s: roll-ups differ, %v", k, set, err)
			}
			if k > 400 {
				break
			}
		}
	}
	checkExact(t, s, want)
	st := s.Stats()
	if points == 0 {
		t.Error("no crash point was hit")
	}
	t.Logf("%d crash points, %d requests repeated, %d checks, %d repairs beyond the logs'", points, st.Repeated, st.Checks, st.Repairs)
}

// attach makes strace kill the engine at the k-th call of the set from now on, counted by thread.
func attach(t *testing.T, strace string, e *engine.Engine, set string, k int) *exec.Cmd {
	t.Helper()
	c := exec.Command(strace, "-f", "-p", strconv.Itoa(e.PID()), "-o", "/dev/null", "-e", "trace="+set, "-e", "inject="+set+":signal=SIGKILL:when="+strconv.Itoa(k))
	errs, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(errs)
	for sc.Scan() {
		if strings.Contains(sc.Text(), "attached") {
			go func() { // keep the pipe empty
				for sc.Scan() {
					continue
				}
			}()
			return c
		}
		if strings.Contains(sc.Text(), "ptrace") {
			break
		}
	}
	c.Process.Kill()
	c.Wait()
	return nil
}

func detach(c *exec.Cmd) {
	c.Process.Signal(syscall.SIGINT)
	c.Wait()
}
