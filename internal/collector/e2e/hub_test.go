package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/collector"
	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/internal/gate"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
	"tocsin/internal/ledger"
	"tocsin/internal/member"
	"tocsin/rules"
)

var operator = access.System("test")

// hub is the real receiving side: database, bus, blobs and gate, on a real socket. It can be taken away, slowed down, and set back.
type hub struct {
	t     testing.TB
	dir   string
	ring  *keys.Ring
	db    *db.DB
	store *member.Store
	bus   *bus.Bus
	blobs *blob.Store
	addr  string
	life  time.Duration // of certificates

	mu         sync.Mutex
	stop       func()
	delay      time.Duration
	incidents  []gate.Incident
	set        []byte // indicator directive
	etag       string
	directives [][]byte
	ledger     *ledger.Ledger                             // see entered; nil: none has been needed
	tamper     func(d *batch.Directives, envelope []byte) // what a hostile hub makes of an answer; the envelope is the newest
	checkpoint string                                     // what acknowledgements say in place of the ledger's newest
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, dir: t.TempDir()}
	kd := filepath.Join(h.dir, "keys")
	if _, err := keys.CreateScheme(keys.SchemeOptions{Dir: kd, Offline: filepath.Join(h.dir, "offline"), Name: "Test", Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.ring, err = keys.Open(kd, keys.HubTLS, keys.CollectorCA, keys.Receipts, keys.Checkpoints, keys.IndicatorSets); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = ln.Addr().String()
	h.open()
	t.Cleanup(h.close)
	h.serve(ln)
	t.Cleanup(h.away)
	return h
}

func (h *hub) open() {
	var err error
	if h.db, err = db.Open(context.Background(), db.Options{Path: filepath.Join(h.dir, "t.db")}); err != nil {
		h.t.Fatal(err)
	}
	h.store = member.New(h.db, member.Options{Address: h.addr, Root: h.ring.Trust().RootFingerprint(), Now: time.Now})
	if h.bus, err = bus.Open(bus.Options{Dir: filepath.Join(h.dir, "bus"), TrimEvery: -1}); err != nil {
		h.t.Fatal(err)
	}
	tk, err := keys.OpenTenantKeys(filepath.Join(h.dir, "tenants"), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.blobs, err = blob.Open(blob.Options{Dir: filepath.Join(h.dir, "blobs"), Keys: tk}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) close() {
	h.blobs.Close()
	h.bus.Close()
	h.db.Close()
}

// slowBlobs waits before it keeps a batch, as long as the test says.
type slowBlobs struct{ h *hub }

func (s slowBlobs) Put(ctx context.Context, b blob.Blob, data []byte) (string, error) {
	s.h.mu.Lock()
	d := s.h.delay
	s.h.mu.Unlock()
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return s.h.blobs.Put(ctx, b, data)
}

func (h *hub) slow(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.delay = d
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (h *hub) serve(ln net.Listener) {
	g, err := gate.New(gate.Options{
		Records: h.store, Blobs: slowBlobs{h}, Bus: h.bus, Receipts: must(h.ring.Signer(keys.Receipts)), CA: must(h.ring.CA()),
		Certificate: must(h.ring.HubCertificate([]string{"127.0.0.1"}, time.Now())), Trust: h.ring.Trust, CertificateLife: h.life,
		Logger: slog.New(slog.DiscardHandler), Releases: filepath.Join(h.dir, "releases"),
		Indicators: func() ([]byte, string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.set, h.etag
		},
		Directives: h.handOut, Checkpoint: h.newestCheckpoint,
		Incident: func(_ context.Context, i gate.Incident) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.incidents = append(h.incidents, i)
		},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln) }()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			h.t.Error(err)
		}
	}
}

// away takes the gate off the network; back puts it there again.
func (h *hub) away() {
	h.mu.Lock()
	stop := h.stop
	h.stop = nil
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (h *hub) back() {
	h.t.Helper()
	var ln net.Listener
	var err error
	for range 100 {
		if ln, err = net.Listen("tcp", h.addr); err == nil {
			h.serve(ln)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.t.Fatal(err)
}

func (h *hub) token(org string) keys.Token {
	h.t.Helper()
	ctx := context.Background()
	o, err := h.store.FindOrganisation(ctx, operator, org)
	if err != nil {
		if o, err = h.store.AddOrganisation(ctx, "test", member.Organisation{Name: org}); err != nil {
			h.t.Fatal(err)
		}
	}
	site, err := h.store.FindSite(ctx, operator, o.ID, "")
	if err != nil {
		h.t.Fatal(err)
	}
	tok, _, err := h.store.MakeToken(ctx, operator, "test", site.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	return tok
}

func (h *hub) indicators(version uint64, values ...string) {
	h.t.Helper()
	var entries []indicator.Entry
	for _, v := range values {
		k, err := indicator.Guess(v)
		if err != nil {
			h.t.Fatal(err)
		}
		entries = append(entries, indicator.Entry{Kind: k, Value: v})
	}
	b, err := indicator.Build([16]byte{byte(version)}, entries)
	if err != nil {
		h.t.Fatal(err)
	}
	env, err := keys.SignDirective(must(h.ring.Signer(keys.IndicatorSets)), keys.Directive{Type: keys.IndicatorSet, Audience: keys.Everybody, Version: version,
		Issued: time.Now(), Expires: time.Now().Add(time.Hour), Content: b})
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set, h.etag = env, fmt.Sprintf(`"%d"`, version)
}

// taken is what the hub holds of one collector.
type taken struct {
	events  []event.Event
	ids     map[event.ID]bool
	byLine  map[int64][]int // event.sequence to indexes in events
	raw     []string        // each event's JSON
	counts  map[string]uint64
	streams map[event.StreamID]uint64 // batches
	lanes   map[batch.Lane]int        // events
	batches int
	// checkpoint is the one in the newest manifest.
	checkpoint string
}

// take reads everything the hub has accepted, checks chains, and sums.
func (h *hub) take(collectorID string) *taken {
	h.t.Helper()
	ctx := context.Background()
	reg, err := h.store.Registration(ctx, collectorID)
	if err != nil {
		h.t.Fatal(err)
	}
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	c, err := h.bus.Consumer(ctx, name, "batch.*")
	if err != nil {
		h.t.Fatal(err)
	}
	defer h.bus.Forget(ctx, name)
	out := &taken{ids: map[event.ID]bool{}, byLine: map[int64][]int{}, counts: map[string]uint64{}, streams: map[event.StreamID]uint64{}, lanes: map[batch.Lane]int{}}
	prev := map[event.StreamID][32]byte{}
	seen := map[[32]byte]bool{}
	for {
		ms, err := c.Fetch(ctx, 1000, 20*time.Millisecond)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(ms) == 0 {
			return out
		}
		for _, m := range ms {
			n, err := bus.ParseNotice(m.Data)
			if err != nil {
				h.t.Fatal(err)
			}
			if n.Collector != collectorID || seen[n.Digest] {
				continue // a repeat on the bus is dropped by followers
			}
			seen[n.Digest] = true
			data, err := h.blobs.Get(ctx, n.Tenant, n.Digest, n.Blob)
			if err != nil {
				h.t.Fatal(err)
			}
			env, body, err := batch.SplitSubmission(data)
			if err != nil {
				h.t.Fatal(err)
			}
			man, digest, err := batch.Verify(env, reg.BatchKey)
			if err != nil {
				h.t.Fatal(err)
			}
			id := man.Stream.ID()
			if man.Seq != out.streams[id]+1 || man.Seq > 1 && man.Prev != prev[id] {
				h.t.Fatalf("stream %s %s: batch %d after %d", man.Stream.Lane, man.Stream.Epoch, man.Seq, out.streams[id])
			}
			out.streams[id], prev[id] = man.Seq, digest
			out.batches++
			out.checkpoint = man.Checkpoint
			for k, v := range man.Counts {
				out.counts[k] += v
			}
			b, err := batch.Open(man, body)
			if err != nil {
				h.t.Fatal(err)
			}
			out.lanes[man.Stream.Lane] += len(b.Lines())
			for i, line := range b.Lines() {
				var e event.Event
				if err := event.DecodeJSON(&e, line); err != nil {
					h.t.Fatal(err)
				}
				e.ID = event.ID{Stream: id, Seq: man.Seq, Index: uint32(i)}
				out.ids[e.ID] = true
				if n, ok := e.Int(event.EventSequence); ok {
					out.byLine[n] = append(out.byLine[n], len(out.events))
				}
				out.events = append(out.events, e)
				out.raw = append(out.raw, string(line))
			}
		}
		if err := c.AckThrough(ctx, ms[len(ms)-1].Seq); err != nil {
			h.t.Fatal(err)
		}
	}
}

func sum(counts map[string]uint64, prefix string) (n uint64) {
	for k, v := range counts {
		if strings.HasPrefix(k, prefix) {
			n += v
		}
	}
	return n
}

// balance checks the two sums that must always hold, with nothing waiting, and that no line came twice.
func (k *taken) balance(t testing.TB) {
	t.Helper()
	c := k.counts
	if in, out := c["received"], c["not_understood"]+sum(c, "kept.")+sum(c, "left."); in != out {
		t.Errorf("received %d lines, accounted for %d: %v", in, out, c)
	}
	if made, gone := sum(c, "left.")+sum(c, "made."), c["sent"]+sum(c, "dropped."); made != gone {
		t.Errorf("%d events to leave, %d sent or dropped: %v", made, gone, c)
	}
	if c["sent"] != uint64(len(k.events)) {
		t.Errorf("the manifests say %d events, the hub has %d", c["sent"], len(k.events))
	}
	k.noDoubles(t)
}

func (k *taken) noDoubles(t testing.TB) {
	t.Helper()
	doubled := 0
	for n, at := range k.byLine {
		if len(at) > 1 {
			if doubled++; doubled < 4 {
				t.Errorf("line %d came %d times: %s", n, len(at), k.raw[at[0]])
			}
		}
	}
	if doubled > 3 {
		t.Errorf("%d lines came more than once", doubled)
	}
}

// site is a collector's folder.
type site struct {
	t    testing.TB
	cfg  collector.Config
	id   string
	logs *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newSite(t testing.TB, h *hub, org string) *site {
	t.Helper()
	s := &site{t: t, cfg: collector.DefaultConfig(), logs: &logBuffer{}}
	s.cfg.Dir = filepath.Join(t.TempDir(), "c")
	s.cfg.Listen.Syslog = []collector.Syslog{{UDP: "127.0.0.1:0", TCP: "127.0.0.1:0", Timezone: "UTC"}}
	s.cfg.RetryMax = 2 * time.Second
	s.cfg.OwnRanges = []string{"198.51.100.0/24"}
	e, err := collector.Enrol(context.Background(), collector.EnrolOptions{Config: s.cfg, Token: h.token(org).String(), Name: "test", Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s.id = e.Collector
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", org, s.logs)
		}
	})
	return s
}

func detector(o collector.DetectorOptions) (collector.Detector, error) {
	if o.Rules == nil {
		o.Rules = rules.FS
	}
	return detect.New(detect.Options{Rules: o.Rules, Where: detect.Site, Origin: o.Collector, Withhold: o.Withhold, Exceptions: o.Exceptions, Logger: o.Logger})
}

// running is a collector in this process.
type running struct {
	*collector.Agent
	t    testing.TB
	stop context.CancelFunc
	done chan error
	once sync.Once
}

func (s *site) start(change ...func(*collector.Options)) *running {
	s.t.Helper()
	o := collector.Options{Config: s.cfg, Version: "test", Detector: detector, RulePack: "test", HoldStart: 300 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, c := range change {
		c(&o)
	}
	a, err := collector.Open(o)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Agent: a, t: s.t, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- a.Run(ctx) }()
	s.t.Cleanup(func() { r.end() })
	return r
}

// end stops the collector in order.
func (r *running) end() {
	r.once.Do(func() {
		r.stop()
		select {
		case err := <-r.done:
			if err != nil {
				r.t.Errorf("run: %v", err)
			}
		case <-time.After(30 * time.Second):
			r.t.Error("the collector did not end")
		}
	})
}

// begin is a hub, a collector that is enrolled and runs there, and a connection to it.
func begin(t testing.TB, org string, change ...func(*collector.Options)) (*hub, *site, *running, net.Conn) {
	t.Helper()
	h := newHub(t)
	s := newSite(t, h, org)
	r := s.start(change...)
	return h, s, r, r.tcp()
}

func (r *running) tcp() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Addrs()[1].String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

func (r *running) udp() net.Conn {
	r.t.Helper()
	c, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c
}

// until waits for the status to say what is wanted.
func (r *running) until(what string, ok func(*collector.Status) bool) *collector.Status {
	r.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		s := r.Status()
		if ok(s) {
			return s
		}
		select {
		case err := <-r.done:
			r.done <- err
			r.t.Fatalf("the collector ended (%v) while waiting for: %s", err, what)
		default:
		}
		if time.Now().After(deadline) {
			b, _ := json.MarshalIndent(s, "", " ")
			r.t.Fatalf("waited in vain for: %s\n%s", what, b)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// settled waits until n lines are received and everything of them is confirmed.
func (r *running) settled(n uint64) *collector.Status {
	r.t.Helper()
	return r.until(fmt.Sprintf("%d lines received and confirmed", n), func(s *collector.Status) bool {
		return s.Counts["received"] >= n && s.Waiting == 0 && s.Sent == s.Acknowledged && !s.Unreported
	})
}

// copyDir copies a collector's folder as a backup of its disk would.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a segment that was removed meanwhile
			}
			return err
		}
		rel, _ := filepath.Rel(from, name)
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(dst, 0o700)
		case d.Type().IsRegular():
			in, err := os.Open(name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			defer in.Close()
			out, err := os.OpenFile(dst, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
			if err != nil {
				return err
			}
			_, err = io.Copy(out, in)
			return errors.Join(err, out.Close())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The lines of these tests. Addresses are for documentation; the product's format is FortiGate's.
func vpn(ok bool, ip, user string) string {
	now := time.Now().UTC()
	if ok {
		return fmt.Sprintf(`<190>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0101039424" type="event" subtype="vpn" level="information" vd="root" logdesc="SSL VPN tunnel up" action="tunnel-up" tunneltype="ssl-tunnel" tunnelid=123 remip=%s user="%s" group="staff" dst_host="N/A" reason="login successfully" msg="SSL tunnel established"`,
			now.Format(time.DateOnly), now.Format(time.TimeOnly), ip, user)
	}
	return fmt.Sprintf(`<189>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0101039426" type="event" subtype="vpn" level="alert" vd="root" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=%s user="%s" group="N/A" dst_host="N/A" reason="sslvpn_login_permission_denied" msg="SSL user failed to logged in"`,
		now.Format(time.DateOnly), now.Format(time.TimeOnly), ip, user)
}

func traffic(action, src, dst string, n int) string {
	now := time.Now().UTC()
	return fmt.Sprintf(`<189>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=%s srcport=%d srcintf="wan1" dstip=%s dstport=443 dstintf="lan" sessionid=%d proto=6 action="%s" policyid=1 service="HTTPS" sentbyte=60 rcvdbyte=40`,
		now.Format(time.DateOnly), now.Format(time.TimeOnly), src, 1024+n%60000, dst, n, action)
}

// dumpNames is for failures: the names of events that came.
func dumpNames(k *taken) string {
	c := map[string]int{}
	for i := range k.events {
		c[k.events[i].Str(event.TocsinLeftReason)]++
	}
	var out []string
	for r, n := range c {
		out = append(out, fmt.Sprintf("%s=%d", r, n))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (h *hub) told(kind string) []gate.Incident {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []gate.Incident
	for _, i := range h.incidents {
		if i.Kind == kind {
			out = append(out, i)
		}
	}
	return out
}

func removeAll(t testing.TB, dir, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
