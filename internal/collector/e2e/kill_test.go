package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	lumber "github.com/elastic/go-lumber/client/v2"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/listen/httpin"
	"tocsin/internal/collector/spool"
)

// The real program is killed at random moments under load from every input at once, while the hub comes and goes. In the end no line that was
// acknowledged is lost, nothing is at the hub twice, and the sums balance. TOCSIN_TORTURE sets the number of kills (make torture: 200).
func TestKill(t *testing.T) {
	t.Parallel()
	kills := 5
	if n, err := strconv.Atoi(os.Getenv("TOCSIN_TORTURE")); err == nil && n > 0 {
		kills = n
	} else if testing.Short() {
		kills = 2
	}
	built.Store(true)
	if _, err := program(); err != nil { // before the load: what is rotated away before the first start was never to be read
		t.Fatal(err)
	}
	h := newHub(t)
	s := newSite(t, h, "Torture")
	l := newKillLoad(t, s)
	c := s.spawn(l.config)
	up(t, s)
	l.start()
	l.everyWay() // a file that was made and rotated away before it was ever seen is nobody's to read
	c.kill()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	away := false
	for i := range kills {
		c := s.spawn(l.config)
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond) // the moment is the point
		if i%4 == 2 {
			if away {
				h.back()
			} else {
				h.away()
			}
			away = !away
			time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond) // how long the hub is away or there, at random: that is the test
		}
		c.kill()
	}
	if away {
		h.back()
	}
	c = s.spawn(l.config)
	l.everyWay()
	l.finish()
	settledChild(t, s)
	c.term()
	k := h.take(s.id)
	k.balance(t)
	l.audit(k, audit(t, k, s))
}

// The ways in. An id is the way's number times ten million and rises; it stands in the line as sessionid, in a flow as its bytes.
const (
	bySyslog = iota // TCP: what a sender wrote into a connection that broke may or may not have come
	byTLS
	byUDP
	byFlows
	byFile // acknowledged when written: the file is there until it is read
	byDrop
	byHTTP // from here on the sender waits for an answer, and sends again what it got none for
	byOTLP
	byBeats
	ways
)

var wayNames = [ways]string{"syslog over TCP", "syslog over TLS", "syslog over UDP", "flows", "files", "drop folder", "HTTP", "OTLP", "Beats"}

const perWay = 10_000_000

// killLoad sends by every way until finish, whether the collector is there or not.
type killLoad struct {
	t      *testing.T
	s      *site
	config string
	logs   string
	port   [ways]int
	token  string
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	times map[int]int  // how often each id was sent
	acked map[int]bool // by the collector, or on the disk for it
}

func newKillLoad(t *testing.T, s *site) *killLoad {
	t.Helper()
	l := &killLoad{t: t, s: s, logs: t.TempDir(), times: map[int]int{}, acked: map[int]bool{}}
	l.port[byUDP], l.port[bySyslog] = ports(t)
	l.port[byFlows], l.port[byTLS] = ports(t)
	_, l.port[byHTTP] = ports(t)
	_, l.port[byOTLP] = ports(t)
	_, l.port[byBeats] = ports(t)
	l.config = filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(l.config, fmt.Appendf(nil, `dir: %s
listen:
  syslog: [{udp: "127.0.0.1:%d", tcp: "127.0.0.1:%d", tls: "127.0.0.1:%d", timezone: UTC}]
  files: [{paths: ["%s/*.log"], drop: "%s/drop", timezone: UTC}]
  http: [{tcp: "127.0.0.1:%d", timezone: UTC}]
  otlp: [{tcp: "127.0.0.1:%d", timezone: UTC}]
  beats: [{tcp: "127.0.0.1:%d", timezone: UTC}]
  flows: [{udp: "127.0.0.1:%d"}]
own_ranges: [198.51.100.0/24]
retry_max: 1s
log: {level: debug}
`, s.cfg.Dir, l.port[byUDP], l.port[bySyslog], l.port[byTLS], l.logs, l.logs, l.port[byHTTP], l.port[byOTLP], l.port[byBeats], l.port[byFlows]), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if l.token, err = httpin.NewToken(s.cfg.TokensFile(), "test"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(l.logs, "drop"), 0o700); err != nil {
		t.Fatal(err)
	}
	return l
}

// start begins to send.
func (l *killLoad) start() {
	ctx, stop := context.WithCancel(l.t.Context())
	l.stop = stop
	for _, send := range []func(context.Context){l.syslog, l.tls, l.udp, l.flows, l.files, l.drops, l.http, l.otlp, l.beats} {
		l.wg.Go(func() { send(ctx) })
	}
	l.t.Cleanup(func() { stop(); l.wg.Wait() })
}

// chunk gives the next n ids of a way.
func chunk(way, from, n int) (ids []int) {
	for i := range n {
		ids = append(ids, way*perWay+from+i)
	}
	return ids
}

// text is the line of an id: every third one is refused traffic, which leaves the site.
func text(id int) string {
	if id%3 == 1 {
		return traffic("deny", fmt.Sprintf("203.0.113.%d", id%250+1), "198.51.100.7", id)
	}
	return traffic("accept", "10.0.0.5", "203.0.113.200", id)
}

func texts(ids []int) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(text(id))
		b.WriteByte('\n')
	}
	return b.String()
}

func (l *killLoad) note(ids []int, acked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if acked {
			l.acked[id] = true
		} else {
			l.times[id]++
		}
	}
}

// pace is how long a sender rests between two chunks, and a sender without a collector between two tries.
const pace = 15 * time.Millisecond

func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(pace):
	}
}

// stream writes lines into connections that dial makes.
func (l *killLoad) stream(ctx context.Context, way int, dial func() (net.Conn, error)) {
	for from := 0; ctx.Err() == nil; {
		c, err := dial()
		if err != nil {
			rest(ctx)
			continue
		}
		w := bufio.NewWriter(c)
		for ctx.Err() == nil {
			ids := chunk(way, from, 20)
			from += len(ids)
			l.note(ids, false)
			w.WriteString(texts(ids))
			if way == bySyslog { // what the on-site rules count
				fmt.Fprintln(w, vpn(from%500 != 0, fmt.Sprintf("203.0.113.%d", from%250+1), "someone"))
			}
			if w.Flush() != nil {
				break
			}
			rest(ctx)
		}
		c.Close()
	}
}

func (l *killLoad) address(way int) string { return fmt.Sprintf("127.0.0.1:%d", l.port[way]) }

func (l *killLoad) syslog(ctx context.Context) {
	l.stream(ctx, bySyslog, func() (net.Conn, error) { return net.Dial("tcp", l.address(bySyslog)) })
}

func (l *killLoad) tls(ctx context.Context) {
	l.stream(ctx, byTLS, func() (net.Conn, error) {
		return tls.Dial("tcp", l.address(byTLS), &tls.Config{InsecureSkipVerify: true}) // who answers is not in question here
	})
}

// datagrams sends what make makes of ids; nobody says whether it came.
func (l *killLoad) datagrams(ctx context.Context, way, n int, send func(c net.Conn, ids []int)) {
	c, err := net.Dial("udp", l.address(way))
	if err != nil {
		l.t.Error(err)
		return
	}
	defer c.Close()
	for from := 0; ctx.Err() == nil; from += n {
		ids := chunk(way, from, n)
		l.note(ids, false)
		send(c, ids)
		rest(ctx)
	}
}

func (l *killLoad) udp(ctx context.Context) {
	l.datagrams(ctx, byUDP, 20, func(c net.Conn, ids []int) {
		for _, id := range ids {
			_, _ = c.Write([]byte(text(id))) // refused while there is no collector
		}
	})
}

// flows are IPFIX: source, destination, bytes and what the firewall did. The template comes with every tenth datagram.
func (l *killLoad) flows(ctx context.Context) {
	n := uint32(0)
	l.datagrams(ctx, byFlows, 20, func(c net.Conn, ids []int) {
		b := []byte{0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
		if n++; n%10 == 1 {
			b = append(b, 0, 2, 0, 24, 1, 0, 0, 4, 0, 8, 0, 4, 0, 12, 0, 4, 0, 1, 0, 4, 0, 233, 0, 1)
		}
		b = binary.BigEndian.AppendUint16(append(b, 1, 0), uint16(4+13*len(ids)))
		for _, id := range ids {
			b = append(b, 203, 0, 113, byte(id%250+1), 198, 51, 100, 7)
			b = binary.BigEndian.AppendUint32(b, uint32(id))
			if id%3 == 1 {
				b = append(b, 3)
			} else {
				b = append(b, 1)
			}
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint32(b[4:], uint32(time.Now().Unix()))
		_, _ = c.Write(b)
	})
}

// files appends to a log file, and rotates it now and then.
func (l *killLoad) files(ctx context.Context) {
	var f *os.File
	defer func() { f.Close() }()
	for from := 0; ctx.Err() == nil; from += 20 {
		if from%2000 == 0 {
			if f != nil {
				if err := errors.Join(f.Close(), os.Rename(f.Name(), filepath.Join(l.logs, fmt.Sprintf("fw.log.%d", from)))); err != nil {
					l.t.Error(err)
					return
				}
			}
			var err error
			if f, err = os.Create(filepath.Join(l.logs, "fw.log")); err != nil {
				l.t.Error(err)
				return
			}
		}
		ids := chunk(byFile, from, 20)
		if _, err := f.WriteString(texts(ids)); err != nil {
			l.t.Error(err)
			return
		}
		l.note(ids, false)
		l.note(ids, true)
		rest(ctx)
	}
}

// drops puts whole files into the drop folder.
func (l *killLoad) drops(ctx context.Context) {
	for from := 0; ctx.Err() == nil; from += 500 {
		ids := chunk(byDrop, from, 500)
		name := filepath.Join(l.logs, "drop", fmt.Sprintf("%08d.txt", from))
		if err := errors.Join(os.WriteFile(name+".tmp", []byte(texts(ids)), 0o600), os.Rename(name+".tmp", name)); err != nil {
			l.t.Error(err)
			return
		}
		l.note(ids, false)
		l.note(ids, true)
		for range 30 {
			rest(ctx)
		}
	}
}

// again sends chunks, each until it is acknowledged. send says how many were.
func (l *killLoad) again(ctx context.Context, way int, send func(ids []int) (acked int, err error)) {
	for from := 0; ctx.Err() == nil; from += 20 {
		ids := chunk(way, from, 20)
		for len(ids) > 0 && ctx.Err() == nil {
			l.note(ids, false)
			n, _ := send(ids) // what was not acknowledged is sent again, whatever was wrong
			l.note(ids[:n], true)
			ids = ids[n:]
			rest(ctx)
		}
	}
}

func (l *killLoad) post(ctx context.Context, way int, kind string, body func(ids []int) string) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	l.again(ctx, way, func(ids []int) (int, error) {
		req, err := http.NewRequest(http.MethodPost, "http://"+l.address(way)+"/v1/logs", strings.NewReader(body(ids)))
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+l.token)
		req.Header.Set("Content-Type", kind)
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			return 0, errors.New(res.Status)
		}
		_, err = io.Copy(io.Discard, res.Body)
		return len(ids), err // the status alone says that it was taken
	})
}

func (l *killLoad) http(ctx context.Context) { l.post(ctx, byHTTP, "text/plain", texts) }

func (l *killLoad) otlp(ctx context.Context) {
	l.post(ctx, byOTLP, "application/json", func(ids []int) string {
		var lines []string
		for _, id := range ids {
			lines = append(lines, text(id))
		}
		return string(otlpRequest(lines))
	})
}

// otlpRequest is an OTLP request in JSON, of records whose bodies are the lines.
func otlpRequest(lines []string) []byte {
	b := []byte(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[`)
	for i, l := range lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"body":{"stringValue":%q}}`, l)
	}
	return append(b, `]}]}]}`...)
}

// filebeat is an event as filebeat makes it of a line.
func filebeat(line string) map[string]any {
	return map[string]any{"@timestamp": "2026-11-22T10:00:00Z", "message": line, "agent": map[string]any{"type": "filebeat"}}
}

func (l *killLoad) beats(ctx context.Context) {
	var c *lumber.SyncClient
	l.again(ctx, byBeats, func(ids []int) (int, error) {
		if c == nil {
			var err error
			if c, err = lumber.SyncDial(l.address(byBeats), lumber.Timeout(20*time.Second)); err != nil {
				return 0, err
			}
		}
		var events []any
		for _, id := range ids {
			events = append(events, filebeat(text(id)))
		}
		n, err := c.Send(events)
		if err != nil {
			c.Close()
			c = nil
		}
		return n, err
	})
	if c != nil {
		c.Close()
	}
}

// everyWay waits until the collector has taken something by every way in this run: a test of which some never came to anything says nothing.
func (l *killLoad) everyWay() {
	l.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) { // a poll of another process, bounded by deadline
		st, err := collector.FetchStatus(l.t.Context(), &l.s.cfg)
		if err == nil && !slices.ContainsFunc(st.Listeners, func(in collector.ListenerStatus) bool { return in.Lines < 40 }) {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not every way: %v %+v", err, st)
		}
	}
}

// finish ends the load and waits until the collector has read what lies in files.
func (l *killLoad) finish() {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		missing := 0
		came := l.came()
		for _, way := range []int{byFile, byDrop} {
			for id := range l.acked {
				if id/perWay == way && came[id] == 0 {
					missing++
				}
			}
		}
		if missing == 0 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Errorf("%d lines in files were not read", missing)
			return
		}
		time.Sleep(200 * time.Millisecond) // the archive is read whole each time
	}
}

var idRule = regexp.MustCompile(`sessionid=(\d+)|"source\.bytes":"?(\d+)`)

// came counts the ids in the archive.
func (l *killLoad) came() map[int]int {
	l.t.Helper()
	r, err := archive.View(filepath.Join(l.s.cfg.Dir, "archive"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	came := map[int]int{}
	for {
		var line archive.Line
		if err := r.Next(&line); errors.Is(err, io.EOF) {
			return came
		} else if err != nil {
			l.t.Fatal(err)
		}
		if m := idRule.FindSubmatch(line.Text); m != nil {
			id, _ := strconv.Atoi(string(m[1]) + string(m[2]))
			came[id]++
		}
	}
}

// audit compares what was sent with what came: nothing acknowledged is missing, nothing that was sent once is there twice, and nothing more often
// than it was sent. byLine says of lines in the archive how often each is at the hub: see audit.
func (l *killLoad) audit(k *taken, leaving map[int]int) {
	t := l.t
	came := l.came()
	var sent, again, received, acked, lost, doubled, atHub [ways]int
	for id, n := range l.times {
		way := id / perWay
		sent[way]++
		received[way] += min(came[id], 1)
		if n > 1 {
			again[way]++
		}
		if l.acked[id] {
			if acked[way]++; came[id] == 0 {
				lost[way]++
			}
		}
		if came[id] > n {
			doubled[way]++
		}
	}
	for id := range came {
		if l.times[id] == 0 {
			t.Errorf("id %d was never sent", id)
		}
	}
	for id, n := range leaving { // audit has said which are not there
		atHub[id/perWay] += min(n, 1)
		if n > came[id] {
			t.Errorf("id %d came %d times and is at the hub %d times", id, came[id], n)
		}
	}
	for way := range ways {
		t.Logf("%-16s sent %7d (%d more than once), acknowledged %7d, received %7d, left and at the hub %6d; lost %d, doubled %d", wayNames[way], sent[way], again[way], acked[way], received[way], atHub[way], lost[way], doubled[way])
		if lost[way]+doubled[way] > 0 {
			t.Errorf("%s: %d acknowledged lines lost, %d there more often than sent", wayNames[way], lost[way], doubled[way])
		}
		if received[way] == 0 || atHub[way] == 0 || way >= byFile && acked[way] == 0 {
			t.Errorf("%s: nothing was tested", wayNames[way])
		}
	}
	if len(k.events) == 0 {
		t.Error("no events")
	}
}

// leaves says whether a line in the archive is one that the policy lets leave.
func leaves(text []byte) bool {
	for _, sign := range []string{`action="deny"`, `action=\"deny\"`, `action="ssl-login-fail"`, `"event.action":"flow-denied"`} {
		if bytes.Contains(text, []byte(sign)) {
			return true
		}
	}
	return false
}

// audit compares what the hub took with the collector's own archive: every line there has been counted once, and every line that was to leave
// came exactly once. It gives how often each id of a killLoad is at the hub.
func audit(t *testing.T, k *taken, s *site) (atHub map[int]int) {
	t.Helper()
	a, err := archive.Open(archive.Options{Dir: filepath.Join(s.cfg.Dir, "archive")})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r := a.Reader(spool.Pos{})
	defer r.Close()
	atHub = map[int]int{}
	lines, leaving, missing := uint64(0), 0, 0
	for {
		var l archive.Line
		if err := r.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		lines++
		if !leaves(l.Text) {
			continue
		}
		leaving++
		n := len(k.byLine[int64(l.Number)])
		if n != 1 {
			if missing++; missing < 4 {
				t.Errorf("line %d (%.90s) is at the hub %d times", l.Number, l.Text, n)
			}
		}
		if m := idRule.FindSubmatch(l.Text); m != nil {
			id, _ := strconv.Atoi(string(m[1]) + string(m[2]))
			atHub[id] += n
		}
	}
	if missing > 3 {
		t.Errorf("%d lines are not at the hub exactly once", missing)
	}
	if r.Lost() != 0 {
		t.Errorf("%d raw lines damaged", r.Lost())
	}
	if k.counts["received"] != lines {
		t.Errorf("%d lines in the archive, the hub heard of %d", lines, k.counts["received"])
	}
	if lines == 0 || leaving == 0 || k.lanes[batch.Live] == 0 {
		t.Errorf("nothing was tested: %d lines, %d leaving", lines, leaving)
	}
	t.Logf("%d lines, %d of them leaving, %d events, %d batches", lines, leaving, len(k.events), k.batches)
	return atHub
}
