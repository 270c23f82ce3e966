package health

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"tocsin/internal/event"
)

// The memory of a national scheme: members with one collector and three kinds of devices each, of which two are two machines, with events of five
// categories and thirty fields. What is measured is what stays after a collection, over the size without members.
func TestMemoryOfAScheme(t *testing.T) {
	members, most := 100, 16_000
	if os.Getenv("TOCSIN_TEST_TORTURE") != "" {
		members = 10_000
	}
	r := newRig(t)
	size := func() uint64 {
		runtime.GC()
		runtime.GC() // what was freed by finalizers in the first
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var fields []event.Key
	for k := event.Key(1); len(fields) < 30 && int(k) < event.NumKeys(); k++ {
		if k != event.EventDataset && k != event.EventCategory && k != event.TocsinCollectorID && k != event.TocsinSenderIP {
			fields = append(fields, k)
		}
	}
	before := size()
	for m := range members {
		for d := range 3 {
			for i := range 5 * 2 * windowSize / 8 {
				var ev event.Event
				ev.Tenant, ev.Created = event.TenantID(m+1), r.clock.UnixNano()+int64(i)*int64(time.Minute)
				ev.SetString(event.EventDataset, fmt.Sprint("vendor.product", d))
				ev.SetString(event.EventCategory, fmt.Sprint("category", i%5))
				ev.SetString(event.TocsinCollectorID, fmt.Sprintf("00000000-0000-7000-8000-%012d", m))
				ev.SetIP(event.TocsinSenderIP, netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i%2*min(d, 1))}))
				for _, k := range fields {
					ev.SetText(k, "1")
				}
				r.w.Observe(&ev)
			}
		}
	}
	used := int64(size()) - int64(before) // what is freed meanwhile may be more
	n := r.w.Stats().Sources
	t.Logf("%d members, %d sources: %.1f MB, %d bytes a source, %d a member", members, n, float64(used)/1e6, used/int64(n), used/int64(members))
	if n != 3*members || used/int64(n) > int64(most) {
		t.Errorf("%d bytes a source, at most %d", used/int64(n), most)
	}
	runtime.KeepAlive(r.w)
}
