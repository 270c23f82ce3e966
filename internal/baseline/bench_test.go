package baseline

import (
	"net/netip"
	"testing"
	"time"

	"tocsin/internal/event"
)

// BenchmarkObserve is one observation of the mix that leaves sites, of 1,000 members; BenchmarkProcess the same from an event on.
func BenchmarkObserve(b *testing.B) {
	e := engine(b, Options{})
	list := mix()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		o := &list[i%len(list)]
		o.At += int64(time.Second)
		e.Observe(o, o.At)
		i++
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "events/s")
}

func mix() []Observation {
	var list []Observation
	at := monday.UnixNano()
	for i := range 10_000 {
		o := Observation{Tenant: event.TenantID(1 + i%1000), ID: id(i), At: at, N: 1, What: DeniedInbound, Proven: true, Source: netip.AddrFrom4([4]byte{198, 51, byte(i % 3), byte(i)})}
		switch i % 10 {
		case 7:
			o.What, o.Session = FailedSignIn|Suspicious, true
		case 8:
			o.What, o.Session, o.Signature = Intrusion|Suspicious, true, "2001219"
		case 9:
			o.What, o.Session, o.User, o.Country = SignIn, true, "ann", "GB"
		}
		list = append(list, o)
	}
	return list
}

func BenchmarkProcess(b *testing.B) {
	e := engine(b, Options{})
	var ev event.Event
	ev.SetString(event.EventKind, "event")
	ev.SetString(event.EventCategory, "network")
	ev.SetString(event.TocsinVerdict, "deny")
	ev.SetString(event.NetworkDirection, "inbound")
	ev.SetString(event.TocsinSenderAssurance, "tls")
	ev.SetString(event.TocsinSourceProof, "none")
	ev.SetInt(event.DestinationPort, 3389)
	at := monday.UnixNano()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ev.SetIP(event.SourceIP, netip.AddrFrom4([4]byte{198, 51, byte(i % 3), byte(i)}))
		ev.Tenant, ev.Created = event.TenantID(1+i%1000), at+int64(i)*int64(time.Millisecond)
		ev.ID = id(i)
		e.Process(&ev, ev.Created)
		i++
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "events/s")
}
