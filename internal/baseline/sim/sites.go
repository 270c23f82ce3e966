package sim

import (
	"fmt"
	"net/netip"
	"time"

	"tocsin/internal/baseline"
	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// Sites plays what stays at home: sign-ins, connections to outside and let in, to one engine for each member, as each collector has.
func Sites(o Options) (*Result, error) {
	res := newResult(o)
	cut := newCut(o, "sites")
	first, over, err := cut.load(&judge{res: res}, nil)
	if err != nil || over {
		return res, err
	}
	for i := first; i < o.Members; i++ {
		if err := site(o, i+1, res); err != nil {
			return nil, err
		}
		if cut.now() && i+1 < o.Members {
			return nil, cut.cutAt(i+1, fmt.Sprintf("member %d of %d", i+1, o.Members), &judge{res: res}, nil)
		}
	}
	res.Weeks = float64(o.Members*o.Days) / 7
	return res, cut.over(res)
}

func site(o Options, n int, res *Result) error {
	e, err := baseline.New(baseline.Options{Where: baseline.Site, Key: &sketch.Key{A: o.Seed, B: uint64(n)}})
	if err != nil {
		return err
	}
	m := newMember(o.Seed^0x5117e5, n)
	m.plan(o, "account in a new country", "account in two places", "beacon", "data carried out", "door opened", "server calls a new network", "sweep of machines inside")
	for u := range m.users {
		if m.r.Float64() < 0.03*float64(o.Days)/365 { // three in a hundred sign in from abroad in a year
			m.honest("person travels", (o.Warm+m.r.IntN(max(o.Days-o.Warm-8, 1)))*24, 7*24*time.Hour, "baseline-account-country", "baseline-travel", "baseline-account-network").account = u
		}
	}
	if m.r.Float64() < float64(o.Days)/365 { // once a year a program that reports home is put on one machine
		a := m.honest("new program in a beat", (o.Warm+m.r.IntN(max(o.Days-o.Warm-8, 1)))*24, 7*24*time.Hour, "baseline-beacon")
		a.every, a.jitter, a.source = time.Duration(5+m.r.IntN(50))*time.Minute, 0.1, netip.AddrFrom4([4]byte{106, 1, 1, byte(n)})
	}
	for _, a := range m.attacks {
		a.member = 0 // a site has no number
	}
	j := &judge{res: res, by: map[event.TenantID][]*attack{0: m.attacks}, keys: map[string]bool{}}
	var batch []baseline.Observation
	for d := range o.Days {
		batch = batch[:0]
		for h := d * 24; h < d*24+24; h++ {
			if !m.off(h) {
				batch = m.siteHour(h, batch)
			}
		}
		batch = m.signIns(d, batch)
		j.play(e, batch)
	}
	j.end(e, o)
	res.Largest = max(res.Largest, e.Stats().Bytes)
	return nil
}

func hostOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// siteHour is what crosses one member's firewall in an hour: what many call (common), what few call, and what servers call.
func (m *member) siteHour(h int, out []baseline.Observation) []baseline.Observation {
	r := m.r
	at := func() int64 { return instant(h, time.Duration(r.IntN(3600_000))*time.Millisecond) }
	w := m.working(h)
	go1 := func(at int64, host int, to netip.Addr, port uint16, bytes float64) {
		out = append(out, baseline.Observation{ID: event.ID{Seq: 1}, At: at, What: baseline.Outbound, Proven: m.proven, Session: true, Source: hostOf(host), Destination: to, Port: port, Bytes: uint64(bytes)})
	}
	total := m.bytes * w * (0.7 + 0.6*r.Float64())
	for range poisson(r, 6*w) { // popular places
		go1(at(), 2+r.IntN(m.hosts), netip.AddrFrom4([4]byte{20, 1, byte(r.IntN(3)), byte(r.IntN(20))}), 443, total/8)
	}
	for range poisson(r, 4*w) { // the rest of the Internet, a place now and then again
		x := r.IntN(2000)
		go1(at(), 2+r.IntN(m.hosts), netip.AddrFrom4([4]byte{byte(60 + x%40), byte(x / 40), byte(r.IntN(4)), byte(x)}), 443, total/8)
	}
	if h%24 == 2 { // the server's backup and updates
		go1(at(), 0, netip.AddrFrom4([4]byte{20, 9, 0, 1}), 443, m.bytes*3)
		go1(at(), 1, netip.AddrFrom4([4]byte{20, 9, 0, 2}), 443, 1e5)
	}
	// Machines that have always reported home, one each hour, all day.
	go1(instant(h, time.Duration(r.IntN(60))*time.Second), 1, netip.AddrFrom4([4]byte{20, 9, 0, 3}), 8883, 2e3)
	if r.Float64() < 0.1*w {
		out = append(out, baseline.Observation{ID: event.ID{Seq: 1}, At: at(), What: baseline.AllowedInbound, Proven: m.proven, Session: true,
			Source: netip.AddrFrom4([4]byte{107, byte(r.IntN(256)), 1, 1}), Destination: netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(2))}), Port: 443})
	}
	for _, a := range m.attacks {
		share := a.during(h)
		if share == 0 {
			continue
		}
		begin := max(a.from, instant(h, 0))
		switch a.name {
		case "data carried out":
			for range 5 {
				go1(begin+int64(share*r.Float64()*float64(time.Hour)), 3, a.source, 443, a.size*share/5)
			}
		case "beacon", "new program in a beat":
			if a.found == 0 || a.honest {
				next := a.from
				if a.account != 0 {
					next = int64(a.account) // the next beat
				}
				for next < instant(h+1, 0) && next < a.to {
					if next >= instant(h, 0) {
						go1(next, 4, a.source, 443, 500)
					}
					next += int64(float64(a.every) * (1 + a.jitter*(2*r.Float64()-1)))
				}
				a.account = int(next)
			}
		case "door opened":
			for range poisson(r, 3*share) + 1 {
				t := begin + int64(r.Float64()*share*float64(time.Hour))
				out = append(out, baseline.Observation{ID: event.ID{Seq: 1}, At: t, What: baseline.AllowedInbound, Proven: m.proven, Session: true, Source: a.source, Destination: netip.AddrFrom4([4]byte{192, 0, 2, 9}), Port: 3389})
			}
		case "server calls a new network":
			go1(begin, 1, a.source, 443, 1e4)
		case "sweep of machines inside":
			for range int(a.size * share) {
				go1(begin+int64(r.Float64()*share*float64(time.Hour)), 5, netip.AddrFrom4([4]byte{byte(110 + r.IntN(60)), byte(r.IntN(256)), 1, 1}), 445, 100)
			}
		}
	}
	return out
}

// signIns is who signs in on a day: on working days most do, from the office or from home.
func (m *member) signIns(d int, out []baseline.Observation) []baseline.Observation {
	sign := func(at int64, u int, source netip.Addr, country string) {
		out = append(out, baseline.Observation{ID: event.ID{Seq: 1}, At: at, What: baseline.SignIn, Proven: m.proven, Session: true, User: user(u), Source: source, Country: country})
	}
	busy := m.working(d*24 + 10)
	for u := range m.users {
		abroad := ""
		for _, a := range m.attacks {
			if a.name == "person travels" && a.account == u && instant(d*24, 0) >= a.from && instant(d*24, 0) < a.to {
				abroad = []string{"ES", "FR", "IT", "US"}[u%4]
			}
		}
		if m.off(d*24+10) || m.r.Float64() > 0.85*busy+0.05 {
			continue
		}
		at := instant(d*24+8, time.Duration(m.r.IntN(9*3600))*time.Second)
		home := netip.AddrFrom4([4]byte{81, byte(u * 7), byte(int(m.id) % 250), byte(m.r.IntN(250))})
		office := netip.AddrFrom4([4]byte{82, 1, 1, 1})
		switch {
		case abroad != "":
			sign(at, u, netip.AddrFrom4([4]byte{83, byte(u), 1, 1}), abroad)
		case m.r.IntN(3) == 0:
			sign(at, u, home, "GB")
		default:
			sign(at, u, office, "GB")
		}
	}
	for _, a := range m.attacks {
		if a.from < instant(d*24, 0) || a.from >= instant(d*24+24, 0) {
			continue
		}
		switch a.name {
		case "account in a new country":
			sign(a.from, a.account, a.source, []string{"RU", "NG", "BR", "VN"}[a.account%4])
		case "account in two places":
			sign(a.from, a.account, netip.AddrFrom4([4]byte{82, 1, 1, 1}), "GB")
			sign(a.from+int64(40*time.Minute), a.account, a.source, []string{"CN", "BR", "ZA", "AU"}[a.account%4])
		}
	}
	return out
}
