package sim

import (
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tocsin/internal/baseline"
	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

// Result of a run.
type Result struct {
	Options
	Planted map[string]*Row // by attack
	Honest  map[string]*Row // by honest change
	False   map[string]int  // by kind: detections that nothing planted explains
	Reasons []string        // some of those
	Weeks   float64         // member-weeks
	Events  uint64          // observations
	Spent   time.Duration   // in the engines
	Stats   baseline.Stats  // of the hub's engine
	Largest int             // bytes of the largest site
}

// Row is one line of the table.
type Row struct {
	N, Found int
	Delays   []time.Duration
}

func newResult(o Options) *Result {
	return &Result{Options: o, Planted: map[string]*Row{}, Honest: map[string]*Row{}, False: map[string]int{}}
}

// judge is the scorer of some members: it knows what was planted there.
type judge struct {
	res  *Result
	by   map[event.TenantID][]*attack
	keys map[string]bool

	order []int // for play
}

const sweep = "sweep across members"

// slack is how long after its end an attack may still be told: an hour is closed 15 minutes after its end, and a day's sum with it.
const slack = int64(2 * time.Hour)

func (j *judge) see(dets []event.Detection, now int64) {
	for i := range dets {
		d := &dets[i]
		if d.RuleID == "baseline-elsewhere" || d.RuleID == "baseline-full" {
			continue
		}
		matched := false
		for _, a := range j.by[d.Tenant] {
			if !slices.Contains(a.kinds, d.RuleID) || now < a.from || now > a.to+slack {
				continue
			}
			if a.name == sweep && d.Entity.Value != a.source.String() {
				continue
			}
			matched = true
			if a.found == 0 {
				a.found = max(now, 1)
			}
		}
		again := j.keys[d.Key]
		j.keys[d.Key] = true
		if !matched && !again {
			j.res.False[d.RuleID]++
			if len(j.res.Reasons) < 40 {
				j.res.Reasons = append(j.res.Reasons, fmt.Sprintf("%s member %d %s: %s", d.RuleID, d.Tenant, time.Unix(0, now).UTC().Format("01-02 15:04"), d.Reason))
			}
		}
	}
}

func (j *judge) sum() {
	for _, list := range j.by {
		for _, a := range list {
			rows := j.res.Planted
			if a.honest {
				rows = j.res.Honest
			}
			row := rows[a.name]
			if row == nil {
				row = &Row{}
				rows[a.name] = row
			}
			row.N++
			if a.found != 0 {
				row.Found++
				row.Delays = append(row.Delays, time.Duration(a.found-a.from))
			}
		}
	}
}

// play gives a batch to an engine in the order of time, and what it tells to the judge.
func (j *judge) play(e *baseline.Engine, batch []baseline.Observation) {
	// Observations are large: their places are sorted, not they.
	j.order = j.order[:0]
	for i := range batch {
		j.order = append(j.order, i)
	}
	slices.SortFunc(j.order, func(x, y int) int { return cmp.Or(cmp.Compare(batch[x].At, batch[y].At), cmp.Compare(x, y)) })
	begun := time.Now()
	for _, i := range j.order {
		if out := e.Observe(&batch[i], batch[i].At); len(out) > 0 {
			j.see(out, batch[i].At)
		}
	}
	j.res.Spent += time.Since(begun)
	j.res.Events += uint64(len(batch))
}

// end closes what is open after the last day and counts what was told.
func (j *judge) end(e *baseline.Engine, o Options) {
	at := instant(o.Days*24+2, 0)
	j.see(e.Flush(at), at)
	j.sum()
}

// Hub plays what leaves the sites: refused connections, failed sign-ins, intrusion alerts, and sweeps across members, hour by hour over all
// members, to one engine. Every hour of a member has numbers of its own, so a run that was cut goes on as if it had not been (Options.State).
func Hub(o Options) (*Result, error) {
	e, err := baseline.New(baseline.Options{Where: baseline.Hub, Key: &sketch.Key{A: o.Seed, B: 99}})
	if err != nil {
		return nil, err
	}
	res := newResult(o)
	j := &judge{res: res, by: map[event.TenantID][]*attack{}, keys: map[string]bool{}}
	members := make([]*member, o.Members)
	for i := range members {
		m := newMember(o.Seed, i+1)
		m.plan(o, "password guessing wave", "surge of refused connections", "slow scan", "wave of intrusion alerts", "many sources", "firewall stops reporting")
		if m.step >= 0 {
			m.honest("firewall replaced", m.step, 21*24*time.Hour, "baseline-denied", "baseline-sources", "baseline-ids")
		}
		if m.gapFrom >= 0 {
			m.honest("collector off for days", m.gapTo, 12*time.Hour, "baseline-denied", "baseline-signins-failed", "baseline-ids", "baseline-sources", "baseline-denied-drop")
		}
		members[i] = m
		j.by[m.id] = m.attacks
	}
	r := rand.New(rand.NewPCG(o.Seed, 99))
	sweeps := map[int][]*attack{} // by hour of their begin
	for range 2 * (o.Days - o.Warm) {
		h := o.Warm*24 + r.IntN(max((o.Days-o.Warm-2)*24, 1))
		a := &attack{name: sweep, kinds: []string{"baseline-across-source"}, from: instant(h, 0), to: instant(h+2+r.IntN(18), 0), size: 12 + float64(r.IntN(50)), source: netip.AddrFrom4([4]byte{101, byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})}
		sweeps[h] = append(sweeps[h], a)
		j.by[0] = append(j.by[0], a)
	}
	cut := newCut(o, "hub")
	first, over, err := cut.load(j, e)
	if err != nil || over {
		return res, err
	}
	var going []*attack
	for h := range first {
		going = append(going, sweeps[h]...)
	}
	var batch []baseline.Observation
	pcg := &rand.PCG{}
	r = rand.New(pcg)
	for h := first; h < o.Days*24; h++ {
		batch = batch[:0]
		reseed(pcg, o.Seed, 99, h)
		going = append(slices.DeleteFunc(going, func(a *attack) bool { return a.to <= instant(h, 0) }), sweeps[h]...)
		for _, m := range members {
			if !m.off(h) {
				batch = m.hubHour(h, batch)
			}
		}
		for _, a := range going {
			// Its members come evenly over its time.
			n := a.size * float64(time.Hour) / float64(a.to-a.from)
			for range poisson(r, n) {
				m := members[r.IntN(len(members))]
				if m.off(h) {
					continue
				}
				batch = append(batch, baseline.Observation{Tenant: m.id, ID: event.ID{Seq: 1}, At: instant(h, time.Duration(r.IntN(3600))*time.Second), N: 2,
					What: baseline.FailedSignIn | baseline.Suspicious, Proven: true, Session: true, Source: a.source})
			}
		}
		j.play(e, batch)
		if h%24 == 23 && h+1 < o.Days*24 && cut.now() {
			return nil, cut.cutAt(h+1, fmt.Sprintf("day %d of %d", (h+1)/24, o.Days), j, e)
		}
	}
	j.end(e, o)
	res.Weeks = float64(o.Members*o.Days) / 7
	res.Stats = e.Stats()
	return res, cut.over(res)
}

// hubHour is what one member's devices report in an hour.
func (m *member) hubHour(h int, out []baseline.Observation) []baseline.Observation {
	reseed(m.pcg, m.seed, uint64(m.id)+1000, h)
	from, length := instant(h, 0), int64(time.Hour)
	add := func(what baseline.What, n int, source netip.Addr) {
		if n > 0 {
			out = append(out, baseline.Observation{Tenant: m.id, ID: event.ID{Seq: 1}, At: from + int64(m.r.Float64()*float64(length)), N: uint32(n), What: what, Proven: m.proven, Source: source})
		}
	}
	w := m.working(h)
	level := 1.0
	if m.step >= 0 && h >= m.step {
		level = 3
	}
	any := func(first byte) netip.Addr {
		return netip.AddrFrom4([4]byte{first, byte(m.r.IntN(256)), byte(m.r.IntN(256)), byte(m.r.IntN(256))})
	}
	denied := m.count(m.denied * level * (0.9 + 0.2*w))
	for _, a := range m.attacks {
		share := a.during(h)
		if share == 0 || a.honest {
			continue
		}
		from, length = max(a.from, instant(h, 0)), int64(share*float64(time.Hour))
		switch a.name {
		case "password guessing wave":
			// In five portions, so that it is known how soon it is told.
			for range 5 {
				add(baseline.FailedSignIn, poisson(m.r, a.size*share/5), a.source)
			}
		case "surge of refused connections":
			for range 5 {
				add(baseline.DeniedInbound, poisson(m.r, a.size*share/5), a.source)
			}
		case "slow scan":
			add(baseline.DeniedInbound, poisson(m.r, a.size*share), a.source)
		case "wave of intrusion alerts":
			for range 3 {
				add(baseline.Intrusion, poisson(m.r, a.size*share/3), a.source)
			}
		case "many sources":
			for range int(a.size * share) {
				add(baseline.DeniedInbound, 1, any(102))
			}
		case "firewall stops reporting":
			denied = 0
		}
	}
	from, length = instant(h, 0), int64(time.Hour)
	if denied > 1 {
		add(baseline.DeniedInbound, denied/2, any(103))
	}
	add(baseline.DeniedInbound, denied-denied/2, any(103))
	add(baseline.FailedSignIn, m.count(m.failed*w), any(104))
	add(baseline.Intrusion, m.count(m.ids*(0.4+0.6*w)), any(105))
	return out
}

// Print writes the table.
func (r *Result) Print(w io.Writer) {
	fmt.Fprintf(w, "seed %d, %d members, %d days, attacks from day %d; %d observations, %.0f ns each in the engine\n", r.Seed, r.Members, r.Days, r.Warm, r.Events, float64(r.Spent.Nanoseconds())/float64(max(r.Events, 1)))
	for _, t := range []struct {
		what string
		rows map[string]*Row
	}{{"planted", r.Planted}, {"honest changes", r.Honest}} {
		for _, name := range sorted(t.rows) {
			row := t.rows[name]
			fmt.Fprintf(w, "%-16s %-30s %6d  told %6d  %.3f  delay p50 %-8s p95 %s\n", t.what, name, row.N, row.Found, row.Share(), row.quantile(0.5), row.quantile(0.95))
		}
	}
	for _, k := range sorted(r.False) {
		fmt.Fprintf(w, "false            %-30s %6d  %.4f a member and week\n", k, r.False[k], float64(r.False[k])/r.Weeks)
	}
	fmt.Fprintf(w, "all planted told: %.3f; false: %.4f a member and week; honest changes told: %.4f\n", r.Recall(), r.FalseRate(), float64(r.honestTold())/r.Weeks)
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Share of those that were told.
func (r *Row) Share() float64 { return float64(r.Found) / float64(max(r.N, 1)) }

func (r *Row) quantile(q float64) time.Duration {
	if len(r.Delays) == 0 {
		return 0
	}
	slices.Sort(r.Delays)
	return r.Delays[int(q*float64(len(r.Delays)-1))].Round(time.Minute)
}

// Recall is the share of planted attacks that were told.
func (r *Result) Recall() float64 {
	var n, found int
	for _, row := range r.Planted {
		n += row.N
		found += row.Found
	}
	return float64(found) / float64(max(n, 1))
}

// FalseRate is how many detections nothing explains, for a member and week.
func (r *Result) FalseRate() float64 {
	n := 0
	for _, x := range r.False {
		n += x
	}
	return float64(n) / r.Weeks
}

func (r *Result) honestTold() (n int) {
	for _, row := range r.Honest {
		n += row.Found
	}
	return n
}

// Explain gives some of the false ones, for people who tune.
func (r *Result) Explain() string { return strings.Join(r.Reasons, "\n") }
