package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pquerna/otp/totp"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"tocsin/internal/app/status"
	"tocsin/internal/load/local"
)

// Options say how the demo runs.
type Options struct {
	Dir       string // everything is below it
	Port      int    // of the pages; 0 chooses 8080 or the next free one
	Once      bool   // play the story to its end and judge it, instead of running until ctx ends
	Rate      float64
	Seed      uint64
	History   int           // days of an invented past, 0 for none
	Tocsin    string        // the program tocsin
	Collector string        // the program tocsin-collector
	Progress  io.Writer     // plain sentences for people, one a line
	Linger    time.Duration // with Once: how long to wait after the story for alerts that should not come (default 5 s)

	disturb func(context.Context, *demo) error // tests kill children meanwhile
}

// Limits of waiting. None of them is a pause: each wait ends as soon as what it waits for is there.
const (
	hubStart       = 60 * time.Second
	collectorStart = 30 * time.Second
	storyEnd       = 60 * time.Second // after the last line, for the expected alerts
	balanceEnd     = 60 * time.Second // after the last line, for the sums
	drainTime      = 20 * time.Second
	poll           = 250 * time.Millisecond
)

// demo is one run.
type demo struct {
	opt     Options
	state   *state
	centre  *local.Centre
	hub     *local.Child
	members []*running
	say     func(format string, args ...any)

	tenants map[uint32]string // names
	began   time.Time         // of the story
	stopped time.Time         // when the devices sent their last line

	before map[int64]int64 // alerts that were there before the story, with their counts

	mu    sync.Mutex // guards shown and first
	shown map[int64]bool
	first time.Duration // from start to the first alert
	start time.Time
}

// running is a member of the cast with its processes.
type running struct {
	*member
	tenant uint32
	dir    string
	child  *local.Child
	feeder *feeder
	socket http.Client // the collector's own
	base   status.Collector
}

// Run plays the demo. With Once it returns the result; otherwise it runs until ctx ends and returns nil. Both end with every child drained
// and stopped.
func Run(ctx context.Context, opt Options) (res *Result, err error) {
	if opt.Rate <= 0 {
		opt.Rate = 25
	}
	if opt.Linger == 0 {
		opt.Linger = 5 * time.Second
	}
	var lock sync.Mutex
	d := &demo{opt: opt, tenants: map[uint32]string{0: ""}, before: map[int64]int64{}, shown: map[int64]bool{}, start: time.Now()}
	d.say = func(format string, args ...any) {
		lock.Lock()
		defer lock.Unlock()
		fmt.Fprintf(opt.Progress, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
	}
	if d.opt.Dir, err = filepath.Abs(opt.Dir); err != nil {
		return nil, err
	}
	if d.state, err = openState(d.opt.Dir); err != nil {
		return nil, err
	}
	defer d.state.close()
	if err := d.state.ports(opt.Port); err != nil {
		return nil, err
	}
	if err := d.configure(); err != nil {
		return nil, fmt.Errorf("write the demo's configuration: %w", err)
	}

	// The children outlive ctx: when it ends, feeders stop first, then the collectors drain to the hub, then the hub stops.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer d.stop()
	if err := local.CreateScheme(ctx, opt.Tocsin, filepath.Join(d.opt.Dir, "hub.yaml"), filepath.Join(d.opt.Dir, "hub"), "Tocsin demo"); err != nil {
		return nil, err
	}
	d.hub.Start(life)
	if err := d.waitHub(ctx); err != nil {
		return nil, err
	}
	if err := d.people(ctx); err != nil {
		return nil, err
	}
	// Before the collectors start: nothing else is being stored then.
	if err := d.history(ctx); err != nil {
		return nil, err
	}
	if err := d.join(ctx, life); err != nil {
		return nil, err
	}
	if err := d.baseline(ctx); err != nil {
		return nil, err
	}
	d.welcome()

	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	g, gctx := errgroup.WithContext(work)
	var feeders []*feeder
	for _, m := range d.members {
		feeders = append(feeders, m.feeder)
		g.Go(func() error { return m.feeder.background(gctx, opt.Rate, opt.Seed) })
	}
	played := make(chan struct{})
	d.began = time.Now()
	g.Go(func() error {
		defer close(played)
		if err := play(gctx, feeders); err != nil && gctx.Err() == nil {
			return err
		}
		if gctx.Err() == nil {
			d.say("The story is told; ordinary traffic goes on.")
		}
		return nil
	})
	g.Go(func() error { return d.watch(gctx) })
	if opt.disturb != nil {
		g.Go(func() error { return opt.disturb(gctx, d) })
	}

	if opt.Once {
		select {
		case <-played:
		case <-gctx.Done():
		}
		if err := d.waitAlerts(gctx); err != nil {
			stopWork()
			return nil, errors.Join(err, g.Wait())
		}
	} else {
		<-gctx.Done()
	}
	stopWork()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	for _, m := range d.members {
		m.feeder.close()
	}
	if !opt.Once {
		return nil, nil // stop, deferred, drains
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return d.finish(life)
}

// configure writes the children's configuration, as an operator and three members would have it.
func (d *demo) configure() error {
	dir := d.opt.Dir
	if err := os.WriteFile(filepath.Join(dir, "overlay.csv"), []byte(overlay()), 0o600); err != nil {
		return err
	}
	gate := net.JoinHostPort("127.0.0.1", strconv.Itoa(d.state.GatePort))
	hub := map[string]any{
		"data_dir": filepath.Join(dir, "hub"),
		"scheme":   "Tocsin demo",
		"gate":     map[string]any{"listen": gate, "address": gate},
		"web":      map[string]any{"listen": net.JoinHostPort("127.0.0.1", strconv.Itoa(d.state.WebPort)), "public_url": d.address()},
		"places":   map[string]any{"overlay": filepath.Join(dir, "overlay.csv")},
	}
	if err := writeYAML(filepath.Join(dir, "hub.yaml"), hub); err != nil {
		return err
	}
	d.hub = &local.Child{
		What: "the hub", Command: []string{d.opt.Tocsin, "hub", "--config", filepath.Join(dir, "hub.yaml")},
		Log: filepath.Join(dir, "logs", "hub.log"), Drain: drainTime, Say: func(s string) { d.say("%s", s) },
	}
	d.centre = local.NewCentre(filepath.Join(dir, "hub", "run", "admin.sock"))
	for _, m := range cast {
		r := &running{member: m, dir: filepath.Join(dir, m.key)}
		port := d.state.Collectors[m.key].Port
		syslog := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		own := []string{m.public.String(), m.inside.String(), fmt.Sprintf("2001:db8:10%d::/48", m.number)}
		config := map[string]any{
			"dir":        r.dir,
			"listen":     map[string]any{"syslog": []map[string]any{{"udp": syslog, "tcp": syslog, "timezone": "UTC"}}},
			"own_ranges": own,
		}
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			return err
		}
		if err := writeYAML(filepath.Join(r.dir, "collector.yaml"), config); err != nil {
			return err
		}
		r.child = &local.Child{
			What: "the collector of " + m.name, Command: []string{d.opt.Collector, "run", "--config", filepath.Join(r.dir, "collector.yaml")},
			Log: filepath.Join(dir, "logs", m.key+".log"), Drain: drainTime, Say: func(s string) { d.say("%s", s) },
		}
		r.feeder = newFeeder(m, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)))
		r.socket = local.UnixClient(filepath.Join(r.dir, "run", "status.sock"))
		d.members = append(d.members, r)
	}
	return d.state.save()
}

func writeYAML(path string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte("# Written by tocsin demo at every start.\n"), b...), 0o600)
}

func (d *demo) address() string { return "http://localhost:" + strconv.Itoa(d.state.WebPort) }

// await asks until ok, the limit, the end of ctx, or a child that cannot be kept running.
func (d *demo) await(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if dead := d.dead(); dead != nil {
			return dead
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

// dead returns the error of a child that does not stay up.
func (d *demo) dead() error {
	if err := d.hub.Err(); err != nil {
		return err
	}
	for _, m := range d.members {
		if err := m.child.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) waitHub(ctx context.Context) error {
	d.say("The hub starts.")
	if err := d.await(ctx, hubStart, "starting the hub", d.centre.Ready); err != nil {
		return withTail(err, d.hub)
	}
	d.say("The hub is ready after %s.", seconds(time.Since(d.start)))
	return nil
}

// withTail adds what the child last said, unless the error is the child's own and says so already.
func withTail(err error, c *local.Child) error {
	if c.Err() != nil {
		return err
	}
	return fmt.Errorf("%w; %s", err, c.Tail())
}

// welcome prints where to look and how to sign in.
func (d *demo) welcome() {
	if d.opt.Once {
		return
	}
	w := d.opt.Progress
	fmt.Fprintf(w, "\n  Tocsin demo\n  Open  %s\n\n", d.address())
	fmt.Fprintf(w, "  %-28s %-10s %-24s %-34s %s\n", "sign in as", "role", "password", "authenticator secret", "code now")
	for _, s := range d.state.SignIns {
		code, err := totp.GenerateCode(s.Secret, time.Now())
		if err != nil {
			code = "-"
		}
		fmt.Fprintf(w, "  %-28s %-10s %-24s %-34s %s\n", s.Email, s.Role, s.Password, s.Secret, code)
	}
	fmt.Fprintf(w, "\n  Without an authenticator app: `tocsin demo --codes --dir %s` in another window shows fresh codes.\n  Stop: Ctrl-C. The next start goes on where this one ended.\n\n", d.opt.Dir)
	fmt.Fprintf(w, "  The story: one address looks for open ports at all three members, tries passwords on two VPNs and gets in at one;\n  a sensor sees an exploit from there, and a computer inside talks to a listed address.\n\n")
}

// watch tells people what happens until ctx ends.
func (d *demo) watch(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := d.dead(); err != nil {
			return err
		}
		st, err := d.centre.Status(ctx)
		if err != nil {
			continue // the hub is being started again; dead says when it stays away
		}
		d.tell(st)
		if time.Since(last) >= 10*time.Second {
			last = time.Now()
			d.summary(st)
		}
	}
}

// tell reports alerts that are new.
func (d *demo) tell(st status.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(st.Alerts) - 1; i >= 0; i-- {
		a := st.Alerts[i]
		if d.shown[a.ID] {
			continue
		}
		d.shown[a.ID] = true
		if d.first == 0 {
			d.first = time.Since(d.start)
			d.say("First alert, %s after the start.", seconds(d.first))
		}
		where := "at " + d.tenants[a.Tenant]
		if a.Tenant == 0 {
			where = "across members"
		}
		d.say("ALERT %-8s %s, %s, about %s.", strings.ToUpper(a.Level), a.Title, where, a.Entity)
	}
}

func (d *demo) summary(st status.Status) {
	var sent, received, kept, left, stored uint64
	for _, m := range d.members {
		sent += m.feeder.sent.Load()
		c, _ := collectorOf(st, m.tenant)
		received += c.Received - m.base.Received
		kept += sum(c.Kept) - sum(m.base.Kept)
		left += c.Sent - m.base.Sent
		stored += c.Stored - m.base.Stored
	}
	d.say("So far the devices sent %s lines; the collectors have reported %s, kept %s at home and sent %s events to the centre, which has stored %s. %s; 99 in 100 came within %.0f ms of their log line.",
		number(sent), number(received), number(kept), number(left), number(stored), plural(len(st.Alerts), "alert"), st.Latency["receipt_to_alert_ms"].P99)
}

// waitAlerts waits after the story until every expected alert is there, and then a little for those that should not come.
func (d *demo) waitAlerts(ctx context.Context) error {
	err := d.await(ctx, storyEnd, "raising the story's alerts", func(ctx context.Context) error {
		st, err := d.centre.Status(ctx)
		if err != nil {
			return err
		}
		want := expectations()
		compare(want, d.fresh(st), d.name, d.began.UnixNano())
		if m := missing(want); len(m) > 0 {
			return fmt.Errorf("%s still expected: %s", plural(len(m), "alert"), m[0])
		}
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		d.say("%v", err) // the result will say it again, in full
	}
	select {
	case <-time.After(d.opt.Linger): // an alert that should not come has no other sign than coming
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.dead()
}

func (d *demo) name(tenant uint32) string {
	if n, ok := d.tenants[tenant]; ok {
		return n
	}
	return fmt.Sprintf("tenant %d", tenant)
}

// fresh are the alerts of this run: those raised or added to since the story began.
func (d *demo) fresh(st status.Status) []status.Alert {
	var out []status.Alert
	for _, a := range st.Alerts {
		if then, old := d.before[a.ID]; !old || a.Count > then {
			out = append(out, a)
		}
	}
	return out
}

// finish waits for the sums, drains the collectors if something is still on its way, and makes the result.
func (d *demo) finish(ctx context.Context) (*Result, error) {
	d.say("The devices have stopped; waiting for the last lines to arrive.")
	d.stopped = time.Now()
	var res *Result
	balanced := func(ctx context.Context) error {
		st, err := d.centre.Status(ctx)
		if err != nil {
			return err
		}
		res = d.result(ctx, st)
		if !res.Balanced {
			return errors.New(res.Gap())
		}
		return nil
	}
	if err := d.await(ctx, balanceEnd, "accounting for every line", balanced); err != nil {
		d.say("%v", err)
		if res == nil {
			return nil, err
		}
	}
	return res, nil
}

// stop ends the children in order: collectors drain to the hub, then the hub.
func (d *demo) stop() {
	for _, m := range d.members {
		m.feeder.close()
	}
	d.say("Stopping: the collectors hand over what they have, then the hub closes.")
	var wg sync.WaitGroup
	for _, m := range d.members {
		wg.Go(m.child.Stop)
	}
	wg.Wait()
	d.hub.Stop()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func sum(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// number writes thousands with commas.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
