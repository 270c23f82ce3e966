package baseline

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/event"
)

// spent is the processor time of this program: other programs do not change it much.
func spent(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What ten thousand members cost: memory, the whole snapshot of each hour, the changes of each half minute, and a start. It prints what
// docs/performance.md says; TOCSIN_TEST_TORTURE=long runs it.
func TestTenThousandMembers(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_TORTURE") != "long" {
		t.Skip("TOCSIN_TEST_TORTURE=long measures ten thousand members")
	}
	const members, accounts, signatures = 10_000, 40, 30
	o := Options{Dir: t.TempDir()}
	e := engine(t, o)
	at := monday.UnixNano()
	n := 0
	feed := func(m int, f func(o *Observation)) {
		x := Observation{Tenant: event.TenantID(m + 1), ID: id(n), At: at, N: 1, Proven: m%2 == 0, Session: true, Source: netip.AddrFrom4([4]byte{198, 51, byte(n >> 8), byte(n)}), Country: "GB", Network: uint32(n % 7)}
		f(&x)
		e.Observe(&x, at)
		n++
	}
	for step := range accounts {
		for m := range members {
			feed(m, func(o *Observation) { o.What = DeniedInbound })
			feed(m, func(o *Observation) { o.What, o.User = SignIn, fmt.Sprint("user", step) })
			if step < signatures {
				feed(m, func(o *Observation) { o.What, o.Signature = Intrusion|Suspicious, fmt.Sprint(step*7+m%50) })
			} else {
				feed(m, func(o *Observation) { o.What = FailedSignIn | Suspicious })
			}
		}
		at += int64(20 * time.Minute)
	}
	took := func(what string, f func() int) {
		begin, cpu := time.Now(), spent(t)
		size := f()
		t.Logf("%-40s %8.1f MB %10v, of the processor %v", what, float64(size)/1e6, time.Since(begin).Round(time.Millisecond), (spent(t) - cpu).Round(time.Millisecond))
	}
	var s []byte
	snapshot := func() {
		var err error
		if s, err = e.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	took("in memory", func() int { return e.Stats().Bytes })
	took("whole snapshot, with the first changes", func() int {
		snapshot()
		files, err := filepath.Glob(filepath.Join(o.Dir, "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v %v", files, err)
		}
		i, err := os.Stat(files[0])
		if err != nil {
			t.Fatal(err)
		}
		return int(i.Size())
	})
	feed(0, func(o *Observation) { o.What = DeniedInbound }) // an hour is over by then
	took("the next whole one, with changes", func() int { snapshot(); return e.sizes[1] })
	for i := range 50_000 { // a minute at some 800 a second
		at += int64(time.Millisecond)
		feed(i%members, func(o *Observation) {
			o.What = DeniedInbound
			if i%20 == 0 {
				o.What, o.User = SignIn, "user1"
			}
		})
	}
	took("changes of a minute", func() int { snapshot(); return len(s) })
	b := engine(t, o)
	took("restored", func() int {
		if err := b.Restore(s); err != nil {
			t.Fatal(err)
		}
		return b.Stats().Bytes
	})
	if len(b.tenants) != members {
		t.Errorf("%d members came back", len(b.tenants))
	}
	took("an hour is closed", func() int { e.Flush(at + 2*hourNS); return 0 })
	if n := e.Stats().Bytes / members; n > TenantBytes(Hub) {
		t.Errorf("%d bytes a member, at most %d are stated", n, TenantBytes(Hub))
	}
}
