package demo

import (
	"cmp"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"tocsin/internal/load/sample"
)

const day = 24 * time.Hour

// pastLine is one log line that a device of a member is said to have sent.
type pastLine struct {
	at       int64 // UTC nanoseconds
	member   int   // index in cast
	device   int
	template string
	values   sample.Values
}

// past invents the log lines of days gone by: those which would have left the site, since what stays there leaves no trace at the hub.
// A day's lines depend on the seed and the day alone, so any span can be made again, and in any order.
type past struct {
	seed uint64
	out  []pastLine
	seq  uint64
}

// traffic is how strangers call on a member, in lines on an ordinary working day.
type traffic struct {
	lines int
	// kinds are the templates of refused traffic with their shares.
	kinds []line
	// typos are failed sign-ins of the member's own people a day, guesses those of strangers, both as templates of a device; "" for none.
	typo, guess line
	typos       float64
	guesses     float64
	sensor      int // device of the sensor, -1 for none
	alerts      float64
}

var pastTraffic = []traffic{
	{lines: 520, kinds: []line{{0, "draytek/block", 1, noise, false}}, sensor: 1, alerts: 5},
	{
		lines: 900, kinds: []line{{0, "fortigate/deny", 1, noise, false}}, typo: line{0, "fortigate/vpn-fail", 1, staff, false}, typos: 5,
		guess: line{2, "sshd/invalid-user", 1, guess, false}, guesses: 60, sensor: 1, alerts: 7,
	},
	{
		lines: 1500, kinds: []line{{0, "asa/deny-acl", 6, noise, false}, {1, "netfilter/ufw-block", 2, noise, false}, {1, "netfilter/drop", 1, noise, false}, {2, "filterlog/block-syn", 2, noise, false}, {2, "filterlog/block-v6", 1, noise, true}},
		typo: line{0, "asa/vpn-fail", 1, staff, false}, typos: 9, guess: line{4, "sshd/failed-password", 1, guess, false}, guesses: 90, sensor: -1,
	},
}

// aim is a service that strangers look for, with its ports and how common it is.
type aim struct {
	ports  []uint16
	weight float64
	// wave is how much its share swings over the weeks, period its length in days.
	wave, period float64
}

var aims = []aim{
	{[]uint16{23, 2323}, 17, 0.3, 61},
	{[]uint16{22, 2222}, 14, 0.4, 34},
	{[]uint16{3389}, 12, 0.9, 27},
	{[]uint16{80, 443, 8080, 8443}, 15, 0.3, 45},
	{[]uint16{445, 139}, 9, 0.5, 38},
	{[]uint16{500, 4500, 1194, 10443, 4433}, 8, 0.8, 31},
	{[]uint16{1433, 3306, 5432, 6379, 9200}, 8, 0.5, 24},
	{[]uint16{5900, 5901}, 4, 0.4, 20},
	{[]uint16{5060}, 6, 0.6, 17},
	{[]uint16{25, 587, 993}, 4, 0.3, 50},
	{[]uint16{554, 37777, 34567}, 3, 0.5, 29},
	{[]uint16{102, 502, 20000, 47808}, 1.5, 0.8, 41},
}

// wilds are the invented networks that strangers of the past come from: slices of the range kept for benchmarks (RFC 2544), which the
// operator's overlay gives a country and an AS number kept for documentation (RFC 5398).
var wilds = []struct {
	country string
	as      int
	name    string
	weight  float64
}{
	{"CN", 65536, "Example Backbone 1", 17}, {"US", 65537, "Example Cloud West", 15}, {"RU", 65538, "Example Telecom 2", 11}, {"NL", 65539, "Example Offshore Hosting", 9},
	{"IN", 65540, "Example Broadband 3", 8}, {"BR", 65541, "Example Cable", 7}, {"VN", 65542, "Example Post and Telecom", 6}, {"DE", 65543, "Example Rootservers", 6},
	{"KR", 65544, "Example Fibre", 4}, {"ID", 65545, "Example Mobile 4", 4}, {"TR", 65546, "Example ADSL", 3}, {"GB", 65547, "Example VPS", 3},
	{"IR", 65548, "Example National Network", 2}, {"UA", 65549, "Example Regional", 2}, {"ZA", 65550, "Example Wireless", 2}, {"AU", 65551, "Example Access 5", 1},
}

// wildPrefix is the network of wilds[n], 8,192 addresses.
func wildPrefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + n/8), byte(n % 8 * 32), 0}), 19)
}

// wild picks a stranger's address. Each member has its own strangers (by the remainder of the last part), so that none seems to call on
// several members; few of them call often, most hardly ever.
func wild(m int, rng *rand.Rand) netip.Addr {
	n := pick(rng, len(wilds), func(i int) float64 { return wilds[i].weight })
	r := rng.Float64()
	host := int(r * r * r * 2300)
	return wildAddr(n, 3*host+m)
}

func wildAddr(n, host int) netip.Addr {
	b := wildPrefix(n).Addr().As4()
	b[2] += byte(host / 250)
	b[3] = byte(2 + host%250)
	return netip.AddrFrom4(b)
}

func pick(rng *rand.Rand, n int, weight func(int) float64) int {
	var sum float64
	for i := range n {
		sum += weight(i)
	}
	x := rng.Float64() * sum
	for i := range n {
		if x -= weight(i); x < 0 {
			return i
		}
	}
	return n - 1
}

// hours is the daily rhythm of what strangers and people do, by hour of the day.
var (
	strangersHours = [24]float64{8, 8, 7, 7, 7, 8, 9, 10, 11, 12, 12, 12, 11, 12, 12, 12, 11, 11, 10, 10, 10, 9, 9, 8}
	peopleHours    = [24]float64{0, 0, 0, 0, 0, 0, 1, 6, 14, 12, 8, 6, 5, 7, 6, 5, 4, 3, 2, 2, 1, 1, 0, 0}
)

func instant(start time.Time, rng *rand.Rand, hours *[24]float64) int64 {
	h := pick(rng, 24, func(i int) float64 { return hours[i] })
	return start.UnixNano() + int64(h)*int64(time.Hour) + rng.Int64N(int64(time.Hour))
}

// lines makes all lines of the day that begins at start, in order of time.
func (p *past) lines(start time.Time) []pastLine {
	n := uint64(start.Unix() / 86400)
	p.out, p.seq = p.out[:0], n*1_000_000
	for m := range cast {
		p.ordinary(m, start, rand.New(rand.NewPCG(p.seed, n<<8|uint64(m))))
	}
	p.incidents(start, int(n), rand.New(rand.NewPCG(p.seed, n<<8|0xff)))
	slices.SortStableFunc(p.out, func(a, b pastLine) int { return cmp.Compare(a.at, b.at) })
	return p.out
}

func (p *past) add(at int64, m int, l line, v sample.Values) {
	p.seq++
	c := cast[m]
	v.Time, v.Seq, v.Host, v.UDP = time.Unix(0, at).UTC(), p.seq, c.devices[l.device].name, l.udp
	if !v.NAT.IsValid() {
		v.NAT = c.hosts[0]
	}
	p.out = append(p.out, pastLine{at, m, l.device, l.template, v})
}

// ordinary is the noise of every day. No stranger tries more than one port of one host in a day or guesses more than a dozen passwords, so no
// rule may fire on it.
func (p *past) ordinary(m int, start time.Time, rng *rand.Rand) {
	t, c := pastTraffic[m], cast[m]
	weekend := start.Weekday() == time.Saturday || start.Weekday() == time.Sunday
	n := float64(start.Unix() / 86400)
	quiet, people := 1.0, 1.0
	if weekend {
		quiet, people = 0.68, 0.15
		if m == 0 {
			people = 0.05
		}
	}
	// Weeks differ, days differ, and all of it grows slowly.
	volume := quiet * (1 + 0.18*math.Sin(2*math.Pi*n/23+float64(m)) + 0.1*math.Sin(2*math.Pi*n/9)) * math.Exp(0.12*rng.NormFloat64()) * (1 + 0.0015*(math.Mod(n, 365)-180))
	seen := map[netip.Addr]bool{}
	stranger := func() netip.Addr {
		for {
			if a := wild(m, rng); !seen[a] {
				seen[a] = true
				return a
			}
		}
	}
	weights := make([]float64, len(aims))
	for i, a := range aims {
		weights[i] = a.weight * (1 + a.wave*math.Sin(2*math.Pi*n/a.period+float64(3*m)))
	}
	for left := int(float64(t.lines) * volume); left > 0; {
		kind := t.kinds[pick(rng, len(t.kinds), func(i int) float64 { return float64(t.kinds[i].weight) })]
		a := aims[pick(rng, len(aims), func(i int) float64 { return weights[i] })]
		x := sample.All().Pick(rng, true)
		v := sample.Values{Src: stranger(), Dst: c.hosts[rng.IntN(len(c.hosts))], DstPort: a.ports[rng.IntN(len(a.ports))], Sent: x.Sent, SentPkt: x.SentPkt, RcvdPkt: x.RcvdPkt, Seconds: x.Seconds}
		v.Src6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x02, byte(0x10 + c.number), byte(rng.IntN(6)), byte(rng.IntN(40)), 15: 1})
		v.Dst6 = inside6(c, rng)
		at := instant(start, rng, &strangersHours)
		for range min(left, 1+int(rng.ExpFloat64()*5)) {
			v.SrcPort = ephemeral(rng)
			p.add(at, m, kind, v)
			left--
			if at += int64(time.Minute) + rng.Int64N(int64(20*time.Minute)); at >= start.Add(day).UnixNano() {
				break
			}
		}
	}
	if t.guess.template != "" {
		for left := int(t.guesses * volume); left > 0; {
			v := sample.Values{Src: stranger(), Dst: c.hosts[0], DstPort: 22}
			at := instant(start, rng, &strangersHours)
			for range min(left, 1+rng.IntN(12)) {
				v.SrcPort, v.User = ephemeral(rng), guessed[rng.IntN(len(guessed))]
				p.add(at, m, t.guess, v)
				left--
				if at += int64(90*time.Second) + rng.Int64N(int64(8*time.Minute)); at >= start.Add(day).UnixNano() {
					break
				}
			}
		}
	}
	if t.typo.template != "" {
		for range poisson(rng, t.typos*people) {
			who := rng.IntN(len(c.staff))
			home := netip.AddrFrom4([4]byte{192, 0, 2, byte(128 + c.number*16 + who)})
			at := instant(start, rng, &peopleHours)
			for range 1 + rng.IntN(2) {
				p.add(at, m, t.typo, sample.Values{Src: home, Dst: c.hosts[0], SrcPort: ephemeral(rng), DstPort: 10443, User: c.staff[who]})
				at += int64(8*time.Second) + rng.Int64N(int64(20*time.Second))
			}
		}
	}
	if t.sensor >= 0 {
		for range poisson(rng, t.alerts*quiet) {
			x := sample.All().Pick(rng, false)
			v := sample.Values{Src: stranger(), Dst: c.hosts[rng.IntN(len(c.hosts))], SrcPort: ephemeral(rng), DstPort: 80, Sent: x.Sent, Rcvd: x.Rcvd, SentPkt: x.SentPkt, RcvdPkt: x.RcvdPkt}
			what, hours := "eve/alert-masscan", &strangersHours
			switch rng.IntN(4) {
			case 0:
				what, v.DstPort = "eve/alert-sshscan", 22
			case 1:
				what, hours = "eve/alert-apt", &peopleHours
				v.Src, v.Dst = host(c, rng), server(rng)
			}
			p.add(instant(start, rng, hours), m, line{t.sensor, what, 1, noise, false}, v)
		}
	}
}

var guessed = []string{"admin", "root", "test", "oracle", "ubuntu", "postgres", "git", "ftpuser", "support", "pi"}

// poisson draws a number of things that happen apart from each other; mean is small.
func poisson(rng *rand.Rand, mean float64) (n int) {
	for x := rng.ExpFloat64(); x < mean; x += rng.ExpFloat64() {
		n++
	}
	return n
}

// incidents are the attacks of the day that rules must see. Rare ones come by the calendar, so that every longer span has some.
func (p *past) incidents(start time.Time, n int, rng *rand.Rand) {
	at := func(hours *[24]float64) int64 {
		return min(instant(start, rng, hours), start.Add(22*time.Hour).UnixNano())
	}
	// A source of incidents belongs to no member's everyday strangers: host numbers from 7,500 on.
	source := func() netip.Addr { return wildAddr(rng.IntN(len(wilds)), 7500+rng.IntN(400)) }
	const scanned = 24
	scan := func(m int, src netip.Addr, from int64) {
		c, t := cast[m], pastTraffic[m]
		first := rng.IntN(20)
		for i := range scanned {
			v := sample.Values{Src: src, Dst: c.hosts[i%len(c.hosts)], SrcPort: ephemeral(rng), DstPort: scanPorts[(first+i)%len(scanPorts)], Sent: 44, SentPkt: 1}
			p.add(from+int64(i)*int64(7*time.Second)+rng.Int64N(int64(4*time.Second)), m, t.kinds[0], v)
		}
	}
	guessing := func(m int, l line, src netip.Addr, port uint16, users []string, from int64, count int, gap time.Duration) (end int64) {
		for i := range count {
			end = from + int64(i)*int64(gap) + rng.Int64N(int64(gap/2))
			p.add(end, m, l, sample.Values{Src: src, Dst: cast[m].hosts[0], SrcPort: ephemeral(rng), DstPort: port, User: users[rng.IntN(len(users))]})
		}
		return end
	}
	for m := range cast {
		if rng.IntN(5) == 0 {
			scan(m, source(), at(&strangersHours))
		}
		if t := pastTraffic[m]; t.guess.template != "" && rng.IntN(9) == 0 {
			guessing(m, t.guess, source(), 22, guessed, at(&strangersHours), 30+rng.IntN(90), 9*time.Second)
		}
	}
	calendar := (n + int(p.seed%13)) // the seed moves the rare ones
	if calendar%11 == 3 {
		guessing(1, pastTraffic[1].typo, source(), 10443, cast[1].staff, at(&strangersHours), 18+rng.IntN(30), 21*time.Second)
	}
	if calendar%13 == 6 {
		guessing(2, pastTraffic[2].typo, source(), 10443, cast[2].staff, at(&strangersHours), 15+rng.IntN(40), 17*time.Second)
	}
	if calendar%19 == 8 { // one source at all three
		src, from := source(), at(&strangersHours)
		for m := range cast {
			scan(m, src, from+int64(m)*int64(11*time.Minute))
		}
	}
	if calendar%37 == 11 { // a member of staff who forgot the password, or somebody else
		home := netip.AddrFrom4([4]byte{192, 0, 2, byte(128 + cast[1].number*16 + 1)})
		end := guessing(1, pastTraffic[1].typo, home, 10443, []string{"k.adeyemi"}, at(&peopleHours), 12, 25*time.Second)
		p.add(end+int64(40*time.Second), 1, line{0, "fortigate/vpn-up", 1, staff, false}, sample.Values{Src: home, Dst: cast[1].hosts[0], User: "k.adeyemi", NAT: netip.AddrFrom4([4]byte{10, 22, 200, 9})})
	}
	if calendar%17 == 2 { // an exploit probe that a sensor sees
		m := calendar / 17 % 2
		src, from := source(), at(&strangersHours)
		for i := range 1 + rng.IntN(4) {
			p.add(from+int64(i)*int64(3*time.Second), m, line{pastTraffic[m].sensor, "eve/alert-eternalblue", 1, noise, false},
				sample.Values{Src: src, Dst: cast[m].hosts[1], SrcPort: ephemeral(rng), DstPort: 445, Sent: 2946, Rcvd: 2118, SentPkt: 19, RcvdPkt: 12})
		}
	}
	if calendar%29 == 20 { // a computer inside calls a listed address
		src, from := host(cast[1], rng), at(&peopleHours)
		for i := range 4 {
			p.add(from+int64(i)*int64(5*time.Minute), 1, line{0, "fortigate/close", 1, outbound, false},
				sample.Values{Src: src, Dst: listed, SrcPort: ephemeral(rng), DstPort: 443, NATPort: ephemeral(rng), Sent: 7320, Rcvd: 3410, SentPkt: 22, RcvdPkt: 19, Seconds: 6})
		}
	}
}

// listed is an address on the indicator list that the story does not touch.
var listed = netip.MustParseAddr("203.0.113.201")

var scanPorts = []uint16{21, 22, 23, 25, 53, 80, 81, 110, 111, 135, 139, 143, 389, 443, 445, 587, 993, 995, 1433, 1521, 1723, 2049, 3306, 3389, 5060, 5432, 5900, 6379, 8000, 8080, 8443, 8888, 9200, 10443, 27017}
