package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/app/status"
	"tocsin/internal/batch"
	"tocsin/internal/collector/send"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/load/local"
)

// hub is `tocsin hub` as an operator runs it, on loopback.
type hub struct {
	*process
	dir    string // its data folder
	config string
	gate   string
	web    string
	centre *local.Centre
	set    []string
}

// newHub creates a scheme and starts its hub. More settings may be given as KEY=VALUE.
func newHub(t testing.TB, settings ...string) *hub {
	t.Helper()
	needEngine(t)
	dir := folder(t)
	h := &hub{dir: filepath.Join(dir, "hub"), config: filepath.Join(dir, "hub.yaml"), gate: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))}
	for _, kv := range settings {
		h.set = append(h.set, "--set", kv)
	}
	h.web = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	must(t, "", "tocsin", "admin", "--data", h.dir, "init", "--name", "Test", "--offline", filepath.Join(dir, "offline"))
	err := os.WriteFile(h.config, fmt.Appendf(nil, "data_dir: %s\ngate: {listen: %q, address: %q}\nweb: {listen: %q}\n", h.dir, h.gate, h.gate, h.web), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	h.centre = local.NewCentre(filepath.Join(h.dir, "run", "admin.sock"))
	h.start(t)
	return h
}

// start starts the hub (again).
func (h *hub) start(t testing.TB) {
	t.Helper()
	h.process = start(t, "tocsin", append([]string{"hub", "--config", h.config}, h.set...)...)
	eventually(t, time.Minute, "the hub's start", func() error { return errors.Join(h.dead(), h.centre.Ready(t.Context())) })
}

// admin is `tocsin admin` on this hub's folder.
func (h *hub) admin(t testing.TB, args ...string) string {
	t.Helper()
	return must(t, "", "tocsin", append([]string{"admin", "--config", h.config, "--json"}, args...)...)
}

func (h *hub) status(t testing.TB) status.Status {
	t.Helper()
	s, err := h.centre.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// failed is how often a stage of the hub has refused something for a reason.
func (h *hub) failed(t testing.TB, stage, reason string) uint64 {
	t.Helper()
	return h.status(t).Stages[stage].Failed[reason]
}

// rows counts the rows of one collector's streams in the event store.
func (h *hub) collector(t testing.TB, id string) status.Collector {
	t.Helper()
	for _, m := range h.status(t).Members {
		for _, c := range m.Collectors {
			if c.ID == id {
				return c
			}
		}
	}
	t.Fatalf("the hub does not know the collector %s", id)
	return status.Collector{}
}

// site is an enrolled collector's folder.
type site struct {
	t      testing.TB
	hub    *hub
	dir    string
	name   string // of the member
	tenant event.TenantID
	id     string
	keys   *keys.Collector
	trust  *keys.Trust
	stream batch.Stream
	seq    uint64
	prev   [32]byte
}

// names makes every member's name new.
var names struct {
	sync.Mutex
	n int
}

// token makes a member and an enrolment token for it.
func (h *hub) token(t testing.TB) (name, token string) {
	t.Helper()
	names.Lock()
	names.n++
	name = fmt.Sprintf("Member %d", names.n)
	names.Unlock()
	tenant, err := h.centre.AddMember(t.Context(), name, "education", "North")
	if err != nil {
		t.Fatal(err)
	}
	if token, err = h.centre.AddToken(t.Context(), tenant, "Main building"); err != nil {
		t.Fatal(err)
	}
	return name, token
}

// join enrols a collector with its program and confirms its check words.
func (h *hub) join(t testing.TB) *site {
	t.Helper()
	name, token := h.token(t)
	dir := filepath.Join(folder(t), "c")
	var answer struct {
		Collector  string      `json:"collector"`
		CheckWords local.Words `json:"check_words"`
	}
	out := must(t, token, "tocsin-collector", "enrol", "--dir", dir, "--json")
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := h.centre.Confirm(t.Context(), answer.Collector, answer.CheckWords); err != nil {
		t.Fatal(err)
	}
	s := h.open(t, dir)
	s.name = name
	return s
}

// open reads the folder of an enrolled collector, for tests that play one.
func (h *hub) open(t testing.TB, dir string) *site {
	t.Helper()
	s := &site{t: t, hub: h, dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, "enrolment.json"))
	if err != nil {
		t.Fatal(err)
	}
	var e send.Enrolment
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	s.id, s.tenant = e.Collector, event.TenantID(e.Tenant)
	if s.keys, err = keys.OpenCollector(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	if s.trust, err = s.keys.Trust(); err != nil {
		t.Fatal(err)
	}
	s.epoch()
	return s
}

// epoch begins a new stream.
func (s *site) epoch() {
	var e [16]byte
	_, _ = rand.Read(e[:]) // it never fails
	s.stream = batch.Stream{Collector: s.id, Tenant: s.tenant, Lane: batch.Live, Epoch: hex.EncodeToString(e[:])}
	s.seq, s.prev = 0, [32]byte{}
}

// client is an HTTP client with a connection of its own; cert nil shows none.
func (s *site) client(cert *tls.Certificate) *http.Client {
	s.t.Helper()
	tr := &http.Transport{TLSClientConfig: keys.ClientConfig(func() *keys.Trust { return s.trust }, func() *tls.Certificate { return cert })}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience * 30 * time.Second}
}

// own is a client that shows the collector's certificate.
func (s *site) own() *http.Client {
	s.t.Helper()
	cert, err := s.keys.Certificate()
	if err != nil {
		s.t.Fatal(err)
	}
	return s.client(cert)
}

// line is one event as a collector sends it.
func line(n int) []byte {
	at := time.Now().UTC().Format(time.RFC3339Nano)
	return fmt.Appendf(nil, `{"@timestamp":%q,"event.created":%q,"event.kind":"event","event.category":["network"],"event.type":["denied"],"event.dataset":"fortinet.fortigate","source.ip":"203.0.113.%d","destination.ip":"198.51.100.7","destination.port":%d,"network.transport":"tcp","network.direction":"inbound"}`,
		at, at, n%250+1, 1000+n%60000)
}

// batch seals n events as the next of the stream, without moving on. change may alter the manifest.
func (s *site) batch(n int, change func(*batch.Manifest)) batch.Sealed {
	s.t.Helper()
	w := batch.NewWriter()
	for i := range n {
		if err := w.Add(line(i)); err != nil {
			s.t.Fatal(err)
		}
	}
	k := uint64(n)
	m := batch.Manifest{Stream: s.stream, Seq: s.seq + 1, Prev: s.prev, Created: time.Now().UTC(), CollectorVersion: "test",
		Counts: map[string]uint64{"received": k, "parsed": k, "left.denied_inbound": k, "sent": k}}
	if change != nil {
		change(&m)
	}
	sealed, err := w.Seal(m, s.keys.Batch())
	if err != nil {
		s.t.Fatal(err)
	}
	return sealed
}

// answer is what the gate says.
type answer struct {
	status  int
	problem batch.Problem // of a refusal
	ack     batch.Ack     // of a batch that was taken
	kind    string        // content type
}

// post sends any bytes as a batch, again when it comes too fast.
func post(t testing.TB, c *http.Client, gate string, b []byte) answer {
	t.Helper()
	for {
		a, err := try(t.Context(), c, gate, b)
		if err != nil {
			t.Fatal(err)
		}
		if a.problem.Code != batch.CodeTooFast {
			return a
		}
		time.Sleep(time.Duration(a.problem.Retry) * time.Millisecond)
	}
}

func try(ctx context.Context, c *http.Client, gate string, b []byte) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+gate+"/v1/batches", bytes.NewReader(b))
	if err != nil {
		return answer{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, kind: resp.Header.Get("Content-Type")}
	if a.status == http.StatusOK {
		return a, json.Unmarshal(text, &a.ack)
	}
	if err := json.Unmarshal(text, &a.problem); err != nil {
		return a, fmt.Errorf("status %d with no problem: %q", a.status, text)
	}
	return a, nil
}

// good sends the stream's next batch and demands a receipt for exactly it.
func (s *site) good(c *http.Client, n int) batch.Sealed {
	s.t.Helper()
	sealed := s.batch(n, nil)
	s.accepted(c, sealed)
	s.seq, s.prev = s.seq+1, sealed.Digest
	return sealed
}

// accepted demands a receipt for a batch.
func (s *site) accepted(c *http.Client, sealed batch.Sealed) []byte {
	s.t.Helper()
	a := post(s.t, c, s.hub.gate, sealed.Submission())
	if a.status != http.StatusOK {
		s.t.Fatalf("a good batch was refused: %d %+v", a.status, a.problem)
	}
	r, err := batch.VerifyReceipt(a.ack.Receipt, s.trust.Ed25519(keys.Receipts)...)
	if err != nil || r.Digest != sealed.Digest || r.Seq != sealed.Manifest.Seq || r.Stream != sealed.Manifest.Stream.ID() {
		s.t.Fatalf("the receipt is for something else: %+v %v", r, err)
	}
	return a.ack.Receipt
}

// collect starts the collector of a site with listeners, and more settings if any, and returns it.
func (s *site) collect(t testing.TB, settings ...string) *collecting {
	t.Helper()
	c := &collecting{site: s, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))}
	config := fmt.Sprintf("dir: %s\nlisten: {syslog: [{udp: %q, tcp: %q, timezone: UTC}]}\nown_ranges: [198.51.100.0/24]\nretry_max: 1s\n", s.dir, c.addr, c.addr) + strings.Join(settings, "")
	if err := os.WriteFile(filepath.Join(s.dir, "collector.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c.process = start(t, "tocsin-collector", "run", "--dir", s.dir)
	client := local.UnixClient(filepath.Join(s.dir, "run", "status.sock"))
	c.socket = &client
	eventually(t, time.Minute, "the collector's start", func() error {
		st, err := local.SiteStatus(t.Context(), c.socket)
		if err == nil && st.State != "live" {
			err = fmt.Errorf("its state is %q", st.State)
		}
		return errors.Join(c.dead(), err)
	})
	return c
}

// collecting is a collector that runs.
type collecting struct {
	*site
	*process
	addr   string
	socket *http.Client
}

// settled waits until n lines are received and all that left is acknowledged and stored.
func (c *collecting) settled(t testing.TB, n uint64) (local.OnSite, status.Collector) {
	t.Helper()
	var on local.OnSite
	var at status.Collector
	eventually(t, 2*time.Minute, fmt.Sprintf("%d lines accounted for", n), func() error {
		var err error
		if on, err = local.SiteStatus(t.Context(), c.socket); err != nil {
			return errors.Join(c.dead(), err)
		}
		at = c.hub.collector(t, c.id)
		if on.Counts["received"] != n || on.Waiting != 0 || on.Unreported || at.Received != n || at.Stored+at.Dead != at.Acknowledged || at.Sent != at.Acknowledged {
			return fmt.Errorf("on site %v, %d waiting; at the hub %+v", on.Counts, on.Waiting, at)
		}
		return nil
	})
	if at.Received != at.NotUnderstood+sum(at.Kept)+sum(at.Left) || sum(at.Left)+sum(at.Made) != at.Sent+sum(at.Dropped) || at.Dead != 0 {
		t.Errorf("the sums do not balance: %+v", at)
	}
	return on, at
}

// deny is a line of a FortiGate that refused something from outside; it leaves the site.
func deny(n int, at time.Time) string {
	return fmt.Sprintf(`<189>date=%s time=%s devname="FGT" devid="FG100" tz="+0000" logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=203.0.113.%d srcport=%d srcintf="wan1" dstip=198.51.100.7 dstport=443 dstintf="lan" sessionid=%d proto=6 action="deny" policyid=1 service="HTTPS" sentbyte=60 rcvdbyte=40`,
		at.UTC().Format(time.DateOnly), at.UTC().Format(time.TimeOnly), n%250+1, 1024+n%60000, n)
}

func words(s string) string { return strings.Join(strings.Fields(s), " ") }
