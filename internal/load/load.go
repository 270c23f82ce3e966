package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tocsin/internal/app/status"
	"tocsin/internal/collector/send"
	"tocsin/internal/keys"
	"tocsin/internal/load/local"
)

// Options say how much load, and where.
type Options struct {
	Members    int
	Rate       float64       // events a second over all members (with Collectors: lines a second)
	Duration   time.Duration // of sending
	Seed       uint64
	Collectors bool          // real collectors instead of pre-signed batches
	Interval   time.Duration // between a member's batches; 0 chooses: 1 s, longer for members with few events
	Incidents  float64       // lines a second over all members that must become alerts
	Hub        string        // address of the gate instead of the one in the enrolment token; loopback only
	Admin      string        // admin socket of a running hub; "" starts one
	Dir        string        // for everything this run writes; removed by the caller
	Tocsin     string        // the program tocsin, to start a hub
	Collector  string        // the program tocsin-collector
	Progress   io.Writer
}

// Limits of one run.
const (
	MaxMembers    = 10_000
	MaxCollectors = 100
	MaxRate       = 200_000
	MaxDuration   = time.Hour
	MaxEvents     = 100_000_000
)

// Validate says what is wrong with the options, in words for whoever typed them.
func (o *Options) Validate() error {
	most := MaxMembers
	if o.Collectors {
		most = MaxCollectors
	}
	switch {
	case o.Members < 1 || o.Members > most:
		return fmt.Errorf("--members must be from 1 to %d", most)
	case !(o.Rate >= 1 && o.Rate <= MaxRate):
		return fmt.Errorf("--rate must be from 1 to %d events a second", MaxRate)
	case o.Duration < time.Second || o.Duration > MaxDuration:
		return fmt.Errorf("--duration must be from 1s to %s", MaxDuration)
	case o.Rate*o.Duration.Seconds() > MaxEvents:
		return fmt.Errorf("--rate times --duration is %.0f events, at most %d", o.Rate*o.Duration.Seconds(), MaxEvents)
	case !(o.Incidents >= 0 && o.Incidents <= 100):
		return errors.New("--incidents must be from 0 to 100 a second")
	case o.Interval != 0 && (o.Interval < 200*time.Millisecond || o.Interval > 30*time.Second):
		return errors.New("--interval must be from 200ms to 30s, as a hub may ask of a collector")
	}
	if o.Hub != "" {
		return loopback(o.Hub)
	}
	return nil
}

// loopback refuses every address but this machine's own.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("the hub's address %q: want host:port", address)
	}
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		return nil
	}
	return fmt.Errorf("the hub's address %s is not on this machine: load is only made against a hub on 127.0.0.1 or localhost", address)
}

// Result is what a run found.
type Result struct {
	Mode     string  `json:"mode"` // presigned or collectors
	Seed     uint64  `json:"seed"`
	Members  int     `json:"members"`
	Rate     float64 `json:"rate"`      // asked for, a second
	Achieved float64 `json:"achieved"`  // a second, over the time of sending
	Seconds  float64 `json:"seconds"`   // of sending
	DrainS   float64 `json:"drain_s"`   // from the last send until everything was stored
	PrepareS float64 `json:"prepare_s"` // enrolling and signing, before the measured time
	Lines    uint64  `json:"lines"`     // made
	Received uint64  `json:"received"`  // lines that the collectors' counts name
	Kept     uint64  `json:"kept"`      // lines that stayed at home
	Sent     uint64  `json:"sent"`      // events
	Acked    uint64  `json:"acked"`     // events in batches with a receipt that verified
	Stored   uint64  `json:"stored"`    // rows
	Dead     uint64  `json:"dead"`      // kept aside as unreadable
	Lost     int64   `json:"lost"`      // acknowledged and neither stored nor kept aside; below 0: stored twice
	Batches  uint64  `json:"batches"`
	Bytes    uint64  `json:"bytes"` // of submissions
	Late     uint64  `json:"late"`  // batches that began more than a second after their time, because the ones before took so long

	Refused map[string]uint64 `json:"refused"` // answers by code; refused batches were sent again
	Failed  uint64            `json:"failed"`  // batches given up

	AckMS      Quantiles                   `json:"ack_ms"`            // from when the batch was due to its receipt
	RequestMS  Quantiles                   `json:"request_ms"`        // of the request alone
	Incidents  int                         `json:"incidents"`         // lines that must become alerts
	Alerts     int                         `json:"alerts"`            // that did
	AlertMS    Quantiles                   `json:"alert_ms"`          // from the line's receipt to the alert
	OutboxMS   status.Quantiles            `json:"outbox_ms"`         // from a line's receipt until its alert and the outbox entries about it were committed, one transaction, as the hub measured for all detections
	HandedMS   Quantiles                   `json:"handed_ms"`         // from the line's receipt until a program outside the hub had the alert; of a hub that this run started
	HubLatency map[string]status.Quantiles `json:"hub_latency"`       // as the hub measured since it started
	CPU        map[string]float64          `json:"cpu_s"`             // seconds of each program while sending and draining
	CPUMillion float64                     `json:"cpu_s_per_million"` // of all of them, for a million events stored; with collectors for a million lines
	RSS        map[string]float64          `json:"rss_mib"`           // at the end
	Balanced   bool                        `json:"balanced"`          // every event accounted for exactly once
	Gaps       []string                    `json:"gaps"`

	outside bool // alerts were handed to a receiver of this run's own
}

// WriteJSON writes the result as one object on one line.
func (r *Result) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteText writes the result for people.
func (r *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d members, %s, seed %d\n", r.Members, r.Mode, r.Seed)
	unit := "events stored"
	if r.Mode == modeCollectors {
		unit = "lines"
		fmt.Fprintf(&b, "lines       %d in %.1f s: %.0f a second (asked: %.0f); %d received, %d stayed at home, %d events sent in %d batches\n", r.Lines, r.Seconds, r.Achieved, r.Rate, r.Received, r.Kept, r.Sent, r.Batches)
	} else {
		fmt.Fprintf(&b, "sent        %d events in %.1f s: %.0f a second (asked: %.0f); %d batches, %.1f bytes an event\n", r.Sent, r.Seconds, r.Achieved, r.Rate, r.Batches, float64(r.Bytes)/max(float64(r.Sent), 1))
		fmt.Fprintf(&b, "receipt     p50 %.1f ms, p95 %.1f ms, p99 %.1f ms from when a batch was due (request alone: p99 %.1f ms); %d batches late, %d given up\n", r.AckMS.P50, r.AckMS.P95, r.AckMS.P99, r.RequestMS.P99, r.Late, r.Failed)
	}
	fmt.Fprintf(&b, "stored      %d, %.1f s after the last was sent; %d kept aside, %d lost\n", r.Stored, r.DrainS, r.Dead, r.Lost)
	fmt.Fprintf(&b, "alerts      %d of %d incidents; p50 %.0f ms, p95 %.0f ms, p99 %.0f ms from the line's receipt\n", r.Alerts, r.Incidents, r.AlertMS.P50, r.AlertMS.P95, r.AlertMS.P99)
	fmt.Fprintf(&b, "outbox      p50 %.0f ms, p95 %.0f ms, p99 %.0f ms from a line's receipt, as the hub measured (%d detections)\n", r.OutboxMS.P50, r.OutboxMS.P95, r.OutboxMS.P99, r.OutboxMS.N)
	if r.outside {
		fmt.Fprintf(&b, "handed over %d of %d incidents; p50 %.0f ms, p95 %.0f ms, p99 %.0f ms from the line's receipt until a receiver outside had it\n", r.HandedMS.N, r.Incidents, r.HandedMS.P50, r.HandedMS.P95, r.HandedMS.P99)
	}
	fmt.Fprintf(&b, "CPU         %.1f s for a million %s (%s)\n", r.CPUMillion, unit, pairs(r.CPU, "%s %.1f s"))
	fmt.Fprintf(&b, "memory      %s (MiB at the end)\n", pairs(r.RSS, "%s %.0f"))
	if len(r.Refused) > 0 {
		fmt.Fprintf(&b, "refused     %v, all sent again\n", r.Refused)
	}
	for _, g := range r.Gaps {
		fmt.Fprintf(&b, "NOT ACCOUNTED FOR: %s\n", g)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Modes of a run.
const (
	modePresigned  = "presigned"
	modeCollectors = "collectors"
)

// run is the state of one measurement.
type run struct {
	o       Options
	centre  *local.Centre
	socket  string
	hub     *local.Child // nil when it was running before
	outside *receiver    // of our own hub's alerts
	fleet   []*site
	res     Result
	before  map[int64]bool // alerts that were there already
	tenants map[uint32]int // index in fleet
}

// site is one member of the load with its registration.
type site struct {
	index  int
	tenant uint32
	dir    string
	enrol  send.Enrolment
	client *send.Client // presigned
}

// Run makes the load and waits until the hub has stored it.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Interval == 0 {
		// Some 50 events make a batch worth its signature; nobody waits longer than 30 s.
		o.Interval = min(max(time.Duration(50*float64(o.Members)/o.Rate*float64(time.Second)), time.Second), 30*time.Second)
	}
	r := &run{o: o, before: map[int64]bool{}, tenants: map[uint32]int{}}
	r.res = Result{Mode: modePresigned, Seed: o.Seed, Members: o.Members, Rate: o.Rate, Refused: map[string]uint64{}, CPU: map[string]float64{}, RSS: map[string]float64{}}
	if o.Collectors {
		r.res.Mode = modeCollectors
	}
	began := time.Now()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer func() {
		if r.outside != nil {
			r.outside.stop()
		}
	}()
	if err := r.startHub(ctx, life); err != nil {
		return nil, err
	}
	defer func() {
		if r.hub != nil {
			r.hub.Stop()
		}
	}()
	r.say("Enrolling %d members.", o.Members)
	if err := r.enrol(ctx); err != nil {
		return nil, err
	}
	var err error
	if o.Collectors {
		err = r.collectors(ctx, life, began)
	} else {
		err = r.presigned(ctx, began)
	}
	if err != nil {
		return nil, err
	}
	return &r.res, nil
}

func (r *run) say(format string, args ...any) {
	if r.o.Progress != nil {
		fmt.Fprintf(r.o.Progress, format+"\n", args...)
	}
}

const (
	hubStart  = 60 * time.Second
	hubStop   = 30 * time.Second
	drainTime = 10 * time.Minute
	alertTime = 10 * time.Second // in which alerts about what was stored are made and handed over
	poll      = 200 * time.Millisecond
)

// await asks until ok.
func (r *run) await(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if r.hub != nil && r.hub.Err() != nil {
			return r.hub.Err()
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%s took longer than %s: %w", what, limit, err)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// startHub connects to the hub whose admin socket was given, or starts one of its own.
func (r *run) startHub(ctx, life context.Context) error {
	if r.o.Admin != "" {
		r.socket = r.o.Admin
		r.centre = local.NewCentre(r.socket)
		if err := r.centre.Ready(ctx); err != nil {
			return fmt.Errorf("the hub at %s is not ready: %w", r.socket, err)
		}
		return nil
	}
	data := filepath.Join(r.o.Dir, "hub")
	gate, err := local.FreePort()
	if err != nil {
		return err
	}
	web, err := local.FreePort()
	if err != nil {
		return err
	}
	if r.outside, err = startReceiver(); err != nil {
		return err
	}
	config := fmt.Sprintf("# Written by tocsin load.\ndata_dir: %q\nscheme: Load\ngate: {listen: \"127.0.0.1:%d\", address: \"127.0.0.1:%d\"}\nweb: {listen: \"127.0.0.1:%d\"}\nlog: {level: warn}\nalerts: {webhook: %q, webhook_secret: %q}\n", data, gate, gate, web, r.outside.at, r.outside.secret)
	path := filepath.Join(r.o.Dir, "hub.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	r.socket = filepath.Join(data, "run", "admin.sock")
	r.centre = local.NewCentre(r.socket)
	if err := local.CreateScheme(ctx, r.o.Tocsin, path, data, "Load"); err != nil {
		return err
	}
	r.hub = &local.Child{What: "the hub", Command: []string{r.o.Tocsin, "hub", "--config", path}, Log: filepath.Join(r.o.Dir, "hub.log"), Drain: hubStop, Say: func(s string) { r.say("%s", s) }}
	r.hub.Start(life)
	if err := r.await(ctx, hubStart, "starting the hub", r.centre.Ready); err != nil {
		r.hub.Stop()
		if r.hub.Err() == nil {
			err = fmt.Errorf("%w; %s", err, r.hub.Tail())
		}
		return err
	}
	return nil
}

// enrol makes the members and gives each a registration that is live.
func (r *run) enrol(ctx context.Context) error {
	st, err := r.centre.Status(ctx)
	if err != nil {
		return err
	}
	for _, a := range st.Alerts {
		r.before[a.ID] = true
	}
	have, err := r.centre.Members(ctx)
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, h := range have {
		taken[h.Name] = true
	}
	label := fmt.Sprintf("Load %d", r.o.Seed)
	for n := 2; taken[label+", member 0"]; n++ { // a hub that has seen such a run before gets new members
		label = fmt.Sprintf("Load %d run %d", r.o.Seed, n)
	}
	r.fleet = make([]*site, r.o.Members)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	var mu sync.Mutex
	for i := range r.fleet {
		g.Go(func() error {
			s := &site{index: i, dir: filepath.Join(r.o.Dir, fmt.Sprintf("m%05d", i))}
			var err error
			if s.tenant, err = r.centre.AddMember(gctx, fmt.Sprintf("%s, member %d", label, i), "load", "load"); err != nil {
				return err
			}
			text, err := r.centre.AddToken(gctx, s.tenant, "site")
			if err != nil {
				return err
			}
			token, err := keys.ParseToken(text)
			if err != nil {
				return err
			}
			if r.o.Hub != "" {
				token.Address = r.o.Hub
			}
			if err := loopback(token.Address); err != nil {
				return err
			}
			if r.o.Collectors {
				if err := r.enrolCollector(gctx, s, token); err != nil {
					return err
				}
			} else {
				if s.enrol, err = send.Enrol(gctx, token, s.dir, fmt.Sprintf("load-%05d", i), "load", time.Now()); err != nil {
					return err
				}
				k, err := keys.OpenCollector(s.dir)
				if err != nil {
					return err
				}
				if s.client, err = send.New(send.Options{Address: token.Address, Collector: s.enrol.Collector, Version: "load", Keys: k}); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			r.fleet[i] = s
			r.tenants[s.tenant] = i
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("enrol the members: %w", err)
	}
	all, err := r.centre.Collectors(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		i, ours := r.tenants[c.Tenant]
		if !ours || c.State != "quarantined" {
			continue
		}
		if err := r.centre.Confirm(ctx, c.ID, c.CheckWords); err != nil {
			return fmt.Errorf("confirm member %d: %w", i, err)
		}
	}
	return nil
}

// sums adds up what the hub says of our members.
func (r *run) sums(st status.Status) (sum status.Collector) {
	for _, m := range st.Members {
		if _, ours := r.tenants[m.Tenant]; !ours {
			continue
		}
		for _, c := range m.Collectors {
			sum.Received += c.Received
			sum.NotUnderstood += c.NotUnderstood
			sum.Sent += c.Sent
			sum.Acknowledged += c.Acknowledged
			sum.Stored += c.Stored
			sum.Dead += c.Dead
			sum.Batches += c.Batches
			sum.Kept = plus(sum.Kept, c.Kept)
			sum.Left = plus(sum.Left, c.Left)
			sum.Made = plus(sum.Made, c.Made)
			sum.Dropped = plus(sum.Dropped, c.Dropped)
		}
	}
	return sum
}

func plus(a, b map[string]uint64) map[string]uint64 {
	if a == nil {
		a = map[string]uint64{}
	}
	for k, v := range b {
		a[k] += v
	}
	return a
}

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// alerts measures those of our members' incidents.
func (r *run) alerts(st status.Status) {
	var ms []float64
	for _, a := range st.Alerts {
		if _, ours := r.tenants[a.Tenant]; ours && !r.before[a.ID] && incident(a.Entity) {
			ms = append(ms, float64(a.Raised-a.First)/1e6)
		}
	}
	r.res.Alerts, r.res.AlertMS, r.res.HubLatency, r.res.OutboxMS = len(ms), quantiles(ms), st.Latency, st.Latency["receipt_to_alert_ms"]
	if r.outside != nil {
		r.res.outside, r.res.HandedMS = true, r.outside.delivered()
	}
}

// incident says whether an alert's entity is the source of an incident (see generator.incident).
func incident(entity string) bool {
	a, err := netip.ParseAddr(entity)
	return err == nil && netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, 128, 0}), 17).Contains(a)
}

// settle waits until the hub has stored what it acknowledged, and fills the result.
func (r *run) settle(ctx context.Context, done func(sum status.Collector) error) error {
	began := time.Now()
	var stored time.Time
	var last status.Status
	err := r.await(ctx, drainTime, "storing what was acknowledged", func(ctx context.Context) error {
		st, err := r.centre.Status(ctx)
		if err != nil {
			return err
		}
		last = st
		if err := done(r.sums(st)); err != nil {
			return err
		}
		if stored.IsZero() {
			stored = time.Now()
		}
		r.alerts(st)
		if r.res.Alerts < r.res.Incidents && time.Since(stored) < alertTime { // the last ones may still be on their way
			return fmt.Errorf("%d of %d incidents have their alert", r.res.Alerts, r.res.Incidents)
		}
		if r.outside != nil && r.res.HandedMS.N < r.res.Incidents && time.Since(stored) < alertTime {
			return fmt.Errorf("%d of %d alerts were handed over", r.res.HandedMS.N, r.res.Incidents)
		}
		return nil
	})
	if stored.IsZero() {
		stored = time.Now()
	}
	r.res.DrainS = stored.Sub(began).Seconds()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.res.Gaps = append(r.res.Gaps, err.Error())
	}
	r.alerts(last)
	r.account(r.sums(last))
	return nil
}

// account compares what was sent with what the hub counts.
func (r *run) account(sum status.Collector) {
	r.res.Received, r.res.Kept, r.res.Stored, r.res.Dead = sum.Received, total(sum.Kept), sum.Stored, sum.Dead
	if r.o.Collectors {
		r.res.Sent, r.res.Acked, r.res.Batches = sum.Sent, sum.Acknowledged, sum.Batches
	} else if sum.Acknowledged != r.res.Acked {
		r.res.Gaps = append(r.res.Gaps, fmt.Sprintf("receipts came for %d events, the hub counts %d", r.res.Acked, sum.Acknowledged))
	}
	r.res.Lost = int64(r.res.Acked) - int64(r.res.Stored) - int64(r.res.Dead)
	if r.res.Lost != 0 {
		r.res.Gaps = append(r.res.Gaps, fmt.Sprintf("%d events acknowledged, %d stored, %d kept aside", r.res.Acked, r.res.Stored, r.res.Dead))
	}
	if r.res.Alerts < r.res.Incidents {
		r.res.Gaps = append(r.res.Gaps, fmt.Sprintf("%d incidents, %d alerts", r.res.Incidents, r.res.Alerts))
	}
	if r.outside != nil && r.res.HandedMS.N < r.res.Incidents {
		r.res.Gaps = append(r.res.Gaps, fmt.Sprintf("%d incidents, %d alerts handed over", r.res.Incidents, r.res.HandedMS.N))
	}
	r.res.Balanced = len(r.res.Gaps) == 0
}
