package beats

import (
	"bytes"
	"compress/zlib"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	lumber "github.com/elastic/go-lumber/client/v2"

	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/listen/listentest"
	"tocsin/internal/keys"
)

func start(t testing.TB, addr string, o Options, sink listen.Sink) (*Server, func()) {
	t.Helper()
	s, err := Listen(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	return s, listentest.Serve(t, s, sink)
}

// A stranger's sender: Elastic's own client, plain and compressed, over TCP and TLS with a certificate. Either side is restarted in the middle;
// what was acknowledged was durable, and what was not is sent again by whoever keeps the events, as Beats do.
func TestLumberPeer(t *testing.T) {
	n, chunk := 5000, 500
	if os.Getenv("TOCSIN_TEST_PEERS") != "" {
		n, chunk = 100_000, 2048
	}
	site, err := keys.OpenListener(filepath.Join(t.TempDir(), "tls"), []string{"localhost"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := keys.ReadAuthorities(site.Authority())
	if err != nil {
		t.Fatal(err)
	}
	for level, conf := range map[int]*tls.Config{0: nil, 3: {GetCertificate: site.Certificate, MinVersion: tls.VersionTLS12}} {
		sink := &listentest.Store{}
		o := Options{}
		o.TLS = conf
		addr := listentest.Addr(listentest.Port(t, "tcp"))
		_, stop := start(t, addr, o, sink)
		restarted := make(chan struct{})
		dial := func(network, address string) (net.Conn, error) {
			if conf == nil {
				return net.Dial(network, address)
			}
			return tls.Dial(network, address, &tls.Config{RootCAs: pool, ServerName: "localhost"})
		}
		connect := func() *lumber.SyncClient {
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				c, err := lumber.SyncDialWith(dial, addr, lumber.CompressionLevel(level), lumber.Timeout(10*time.Second))
				if err == nil {
					return c
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
		}
		c := connect()
		restarts := 0
		for at := 0; at < n; {
			var events []any
			for i := at; i < min(at+chunk, n); i++ {
				events = append(events, map[string]any{"@timestamp": "2026-11-22T10:00:00.000Z", "message": fmt.Sprintf("event %d \"quoted\"\nünï", i), "log": map[string]any{"file": map[string]any{"path": "/var/log/x"}}})
			}
			if at >= n/3 && restarts == 0 { // ours, while the sender sends
				restarts++
				go func() {
					defer close(restarted)
					stop()
					start(t, addr, o, sink)
				}()
			}
			if at >= 2*n/3 && restarts == 1 { // the sender
				restarts++
				c.Close()
				c = connect()
			}
			k, err := c.Send(events)
			if err == nil {
				if _, synced := sink.Count(); synced < at+k {
					t.Errorf("%d events acknowledged, %d durable", at+k, synced)
				}
			} else {
				c.Close()
				c = connect()
			}
			at += k
		}
		c.Close()
		<-restarted
		seen := make([]bool, n)
		for _, l := range sink.Lines() {
			var i int
			if _, rest, ok := strings.Cut(l, `"message":"event `); ok {
				_, err = fmt.Sscanf(rest, "%d", &i)
			}
			if err != nil || strings.Contains(l, "\n") {
				t.Fatalf("%q %v", l, err)
			}
			seen[i] = true
		}
		lost := 0
		for _, s := range seen {
			if !s {
				lost++
			}
		}
		want := listen.ViaTCP
		if conf != nil {
			want = listen.ViaTLS
		}
		if lost > 0 || restarts != 2 || sink.Via() != want {
			t.Errorf("%d of %d lost, %d restarts, via %d", lost, n, restarts, sink.Via())
		}
		t.Logf("compression %d: %d events, %d twice", level, n, len(sink.Lines())-n)
	}
}

func frame(kind byte, body []byte) []byte {
	b := append([]byte{version, kind}, binary.BigEndian.AppendUint32(nil, uint32(len(body)))...)
	return append(b, body...)
}

func win(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{version, window}, n) }

func jsonEvent(seq uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{version, jsonFrame}, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func deflate(b []byte) []byte {
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

// What strangers may send: each is answered by a closed connection or counted, and costs no memory.
func TestBad(t *testing.T) {
	sink := &listentest.Store{}
	o := Options{MaxEvent: 1000, Timeout: 100 * time.Millisecond}
	srv, _ := start(t, "127.0.0.1:0", o, sink)
	call := func(b []byte) (answer []byte, closed bool) {
		t.Helper()
		c, err := net.Dial("tcp", srv.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer = make([]byte, 6)
		_, err = io.ReadFull(c, answer)
		return answer, err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	for name, b := range map[string][]byte{
		"http":             []byte("GET / HTTP/1.1\r\n\r\n"),
		"huge window":      win(1 << 31),
		"huge event":       append(win(1), 0x32, 'J', 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff),
		"huge frame":       append(win(1), 0x32, 'C', 0xff, 0xff, 0xff, 0xff),
		"not compressed":   append(win(1), frame(compressed, []byte("not zlib"))...),
		"nested":           append(win(1), frame(compressed, deflate(frame(compressed, deflate(jsonEvent(1, "{}")))))...),
		"unknown frame":    append(win(1), 0x32, 'X'),
		"version 1":        []byte("1W\x00\x00\x00\x01"),
		"broken in middle": append(win(2), jsonEvent(1, "{}")...), // and then silence
	} {
		if answer, closed := call(b); !closed {
			t.Errorf("%s: answered %q", name, answer)
		}
	}
	if lines := sink.Lines(); len(lines) != 0 {
		t.Errorf("%q", lines)
	}
	good := bytes.Join([][]byte{win(4), jsonEvent(1, `{"a":1}`), frame(compressed, deflate(append(jsonEvent(2, "not json"), jsonEvent(3, `{"long":"`+strings.Repeat("x", 2000)+`"}`)...))), jsonEvent(4, "{\n\"b\": 2}")}, nil)
	answer, closed := call(good)
	if lines := sink.Lines(); closed || string(answer) != "2A\x00\x00\x00\x04" || len(lines) != 2 || lines[1] != `{ "b": 2}` {
		t.Errorf("%q %v %q", answer, closed, lines)
	}
	if st := srv.Stats(); st.By["refused_too_long"] != 1 || st.By["refused_not_json"] != 1 || st.Lines != 2 || st.Framing == 0 {
		t.Errorf("%+v", st)
	}
}

// While the sink waits the sender is told that we live, and gets no acknowledgement; when the sink fails, neither.
func TestWaiting(t *testing.T) {
	sink := &listentest.Store{}
	wait := make(chan struct{})
	sink.Wait(wait)
	srv, _ := start(t, "127.0.0.1:0", Options{Alive: time.Millisecond}, sink)
	c, err := net.Dial("tcp", srv.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s%s", win(1), jsonEvent(1, "{}"))
	b := make([]byte, 6)
	for range 3 {
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "2A\x00\x00\x00\x00" {
			t.Fatalf("%q %v", b, err)
		}
	}
	close(wait)
	for string(b) == "2A\x00\x00\x00\x00" {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
	}
	if _, synced := sink.Count(); string(b) != "2A\x00\x00\x00\x01" || synced != 1 {
		t.Fatalf("%q, %d durable", b, synced)
	}
	sink.Refuse(-1)
	sink.Wait(nil)
	fmt.Fprintf(c, "%s%s", win(1), jsonEvent(1, "{}"))
	if _, err := io.ReadFull(c, b); err == nil {
		t.Errorf("answered %q although nothing was kept", b)
	}
}

// nowhere is a connection that only takes.
type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error)      { return len(b), nil }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

// Whatever comes: no panic, no more events than announced, each one line of JSON.
func FuzzWindow(f *testing.F) {
	f.Add(bytes.Join([][]byte{win(3), jsonEvent(1, `{"a":1}`), frame(compressed, deflate(append(jsonEvent(2, `{"b":[1,2]}`), jsonEvent(3, "{}")...)))}, nil))
	f.Add(append(win(1), jsonEvent(1, "x")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		sink := &listentest.Store{}
		o := Options{MaxEvent: 1 << 16, Chunk: 1 << 10, Timeout: time.Second, Alive: time.Minute}
		o.Options = o.Defaults()
		c := &connection{s: &Server{o: o}, conn: nowhere{}, sink: sink}
		in := bytes.NewReader(b)
		r := newReader(in)
		for c.window(t.Context(), r) == nil {
		}
		for _, l := range sink.Lines() {
			if strings.ContainsAny(l, "\r\n") || !strings.HasPrefix(strings.TrimSpace(l), "{") {
				t.Fatalf("%q", l)
			}
		}
	})
}

// A connection that says nothing is closed, so that it takes nobody's place.
func TestIdle(t *testing.T) {
	s, _ := start(t, "127.0.0.1:0", Options{Options: listen.Options{MaxConns: 1}, Idle: 20 * time.Millisecond}, &listentest.Store{})
	for range 3 {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d, %v", n, err)
		}
		conn.Close()
	}
}

// A window whose last event also fills a chunk is acknowledged once, not by the chunk and by its end: a sender with two windows under way would
// take the second for the next window's and let go of events that nobody kept.
func TestOneAcknowledgement(t *testing.T) {
	sink := &listentest.Store{}
	s, _ := start(t, "127.0.0.1:0", Options{Chunk: 1}, sink) // each event is a chunk
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	send := func() {
		b := win(3)
		for i := range uint32(3) {
			b = append(append(b, version, jsonFrame), binary.BigEndian.AppendUint32(nil, i+1)...)
			b = append(binary.BigEndian.AppendUint32(b, 2), "{}"...)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	var acks []uint32
	read := func() bool {
		var b [6]byte
		_, err := io.ReadFull(conn, b[:])
		if err == nil && b[1] == ack {
			acks = append(acks, binary.BigEndian.Uint32(b[2:]))
		}
		return err == nil
	}
	send()
	for len(acks) == 0 || acks[len(acks)-1] < 3 {
		if !read() {
			t.Fatalf("after %v the connection was closed", acks)
		}
	}
	sink.Refuse(-1) // what comes now is not kept, and the connection ends
	send()
	for read() {
	}
	if n := len(acks); n != 3 || acks[0] != 1 || acks[2] != 3 {
		t.Errorf("acknowledged %v, want 1, 2 and 3 once each", acks)
	}
	if n, _ := sink.Count(); n != 3 {
		t.Errorf("%d events kept", n)
	}
}
