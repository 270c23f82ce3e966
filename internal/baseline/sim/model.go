package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"tocsin/internal/event"
)

// Begin is when the invented time begins: a Monday in winter. It runs over the change to summer time, one half-term week, and Easter.
var Begin = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// Options of a run.
type Options struct {
	Seed    uint64
	Members int
	Days    int
	Warm    int // days before the first planted attack
	// State is a file in which a run that takes longer than Slice is kept until it is called again with the same options; "" or 0: it is never cut.
	State string
	Slice time.Duration
}

// attack is one planted, or one honest change that looks like one.
type attack struct {
	member  event.TenantID
	name    string   // what it is, as in the table
	kinds   []string // ids of detections that count as having told it
	from    int64
	to      int64
	honest  bool // nobody attacks: telling it is right, and yet nobody needs it
	found   int64
	size    float64
	source  netip.Addr
	every   time.Duration
	jitter  float64
	account int
}

// member is one organisation as the model sees it.
type member struct {
	id      event.TenantID
	seed    uint64
	pcg     *rand.PCG // of r
	r       *rand.Rand
	school  bool
	denied  float64 // an hour, on average
	failed  float64 // in a working hour
	ids     float64
	bytes   float64 // sent in a working hour
	noise   float64 // spread of an hour's level
	hosts   int
	users   int
	proven  bool // its devices speak TLS or TCP
	gapFrom int  // hours in which its collector is off
	gapTo   int
	step    int // hour at which its firewall is replaced by one that reports three times as much
	attacks []*attack
}

func newMember(seed uint64, id int) *member {
	pcg := rand.NewPCG(seed, uint64(id)+1000)
	r := rand.New(pcg)
	log := func(mid, spread float64) float64 { return mid * math.Exp(spread*r.NormFloat64()) }
	m := &member{id: event.TenantID(id), seed: seed, pcg: pcg, r: r, school: r.IntN(10) < 4, denied: log(120, 0.9), failed: log(1.5, 1), ids: log(0.7, 1.2), bytes: log(60e6, 1), noise: 0.1 + 0.2*r.Float64(),
		hosts: 8 + r.IntN(40), users: 5 + r.IntN(30), proven: r.IntN(10) < 4, gapFrom: -1, step: -1}
	return m
}

// reseed begins the numbers of one hour of a stream.
func reseed(p *rand.PCG, seed, stream uint64, hour int) {
	mix := func(x uint64) uint64 { // so that neighbours have nothing in common
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	p.Seed(mix(seed+stream*0x9e3779b97f4a7c15), mix(stream<<24+uint64(hour)+1))
}

// working is how busy people are in an hour of local time, from 0 to 1.
func (m *member) working(hour int) float64 {
	t := Begin.Add(time.Duration(hour) * time.Hour).In(london)
	day := int(t.Sub(Begin) / (24 * time.Hour))
	if t.Weekday() == time.Saturday || t.Weekday() == time.Sunday || holiday(t) || m.school && schoolHoliday(day) {
		return 0.06
	}
	switch h := t.Hour(); {
	case h < 6:
		return 0.03
	case h < 8:
		return 0.25
	case h < 12:
		return 1
	case h < 13:
		return 0.7
	case h < 17:
		return 0.95
	case h < 20:
		return 0.3
	}
	return 0.1
}

var london = func() *time.Location {
	l, err := time.LoadLocation("Europe/London")
	if err != nil {
		panic(err)
	}
	return l
}()

// holiday says whether a day is a bank holiday: Good Friday and Easter Monday 2026, and the two in May.
func holiday(t time.Time) bool {
	switch t.Format("01-02") {
	case "04-03", "04-06", "05-04", "05-25":
		return true
	}
	return false
}

// schoolHoliday: half-term is the seventh week, Easter the thirteenth and fourteenth.
func schoolHoliday(day int) bool {
	return day >= 42 && day < 49 || day >= 84 && day < 98
}

// poisson draws a number with that mean.
func poisson(r *rand.Rand, mean float64) int {
	if mean > 40 {
		return max(int(mean+math.Sqrt(mean)*r.NormFloat64()+0.5), 0)
	}
	limit, k, p := math.Exp(-mean), 0, 1.0
	for {
		if p *= r.Float64(); p <= limit {
			return k
		}
		k++
	}
}

// count is a noisy count with that mean.
func (m *member) count(mean float64) int {
	return poisson(m.r, mean*math.Exp(m.noise*m.r.NormFloat64()-m.noise*m.noise/2))
}

func instant(hour int, within time.Duration) int64 {
	return Begin.Add(time.Duration(hour)*time.Hour + within).UnixNano()
}

// plan plants what happens at a member at the hub.
func (m *member) plan(o Options, names ...string) {
	span := o.Days - o.Warm - 4
	at := func() int { return (o.Warm+m.r.IntN(max(span, 1)))*24 + m.r.IntN(24) }
	add := func(name string, share float64, kinds []string, f func(a *attack)) {
		if m.r.Float64() >= share || !slices.Contains(names, name) {
			return
		}
		h := at()
		a := &attack{member: m.id, name: name, kinds: kinds, from: instant(h, time.Duration(m.r.IntN(30))*time.Minute), source: netip.AddrFrom4([4]byte{100, byte(m.r.IntN(256)), byte(m.r.IntN(256)), byte(m.r.IntN(256))})}
		f(a)
		m.attacks = append(m.attacks, a)
	}
	hours := func(a *attack, least, most int) {
		a.to = a.from + int64(time.Duration(least+m.r.IntN(most-least+1))*time.Hour)
	}
	rate := func(size float64, least, most int) func(a *attack) {
		return func(a *attack) { a.size = size; hours(a, least, most) }
	}
	add("password guessing wave", 0.3, []string{"baseline-signins-failed"}, rate(60+540*m.r.Float64(), 1, 3))
	add("surge of refused connections", 0.3, []string{"baseline-denied", "baseline-sources"}, rate(max(600, m.denied*(5+15*m.r.Float64())), 1, 4))
	add("slow scan", 0.3, []string{"baseline-denied"}, rate(max(m.denied, 30)*(1+m.r.Float64()), 36, 60))
	add("wave of intrusion alerts", 0.3, []string{"baseline-ids"}, rate(40+160*m.r.Float64(), 1, 2))
	add("many sources", 0.2, []string{"baseline-sources", "baseline-denied"}, rate(300+700*m.r.Float64(), 1, 3))
	add("firewall stops reporting", 0.1, []string{"baseline-denied-drop"}, rate(0, 12, 24))

	add("account in a new country", 0.3, []string{"baseline-account-country", "baseline-travel"}, func(a *attack) { a.account = m.r.IntN(m.users); hours(a, 12, 12) })
	add("account in two places", 0.3, []string{"baseline-travel"}, func(a *attack) { a.account = m.r.IntN(m.users); hours(a, 12, 12) })
	add("beacon", 0.4, []string{"baseline-beacon"}, func(a *attack) {
		a.every = time.Duration(float64(time.Minute) * math.Pow(120, m.r.Float64())) // a minute to two hours
		a.jitter = 0.4 * m.r.Float64()
		hours(a, 48, 96)
	})
	add("data carried out", 0.3, []string{"baseline-outbound"}, rate(3e9*math.Exp(m.r.Float64()*2), 1, 3))
	add("door opened", 0.3, []string{"baseline-port-opened"}, func(a *attack) { hours(a, 24, 48) })
	add("server calls a new network", 0.3, []string{"baseline-host-network", "baseline-beacon"}, func(a *attack) { hours(a, 1, 1) })
	add("sweep of machines inside", 0.2, []string{"baseline-new-networks"}, rate(200+800*m.r.Float64(), 1, 2))

	// What honest people do.
	if m.r.IntN(20) == 0 {
		m.gapFrom = at()
		m.gapTo = m.gapFrom + 24 + m.r.IntN(48)
	}
	if m.r.IntN(50) == 0 {
		m.step = at()
	}
}

// honest adds a change that looks like an attack.
func (m *member) honest(name string, hour int, length time.Duration, kinds ...string) *attack {
	a := &attack{member: m.id, name: name, kinds: kinds, honest: true, from: instant(hour, 0)}
	a.to = a.from + int64(length)
	m.attacks = append(m.attacks, a)
	return a
}

func (m *member) off(hour int) bool { return hour >= m.gapFrom && hour < m.gapTo && m.gapFrom >= 0 }

// during gives the share of an hour in which an attack goes on.
func (a *attack) during(hour int) float64 {
	from, to := max(a.from, instant(hour, 0)), min(a.to, instant(hour+1, 0))
	return max(float64(to-from), 0) / float64(time.Hour)
}

func user(i int) string { return fmt.Sprintf("user%d", i) }
