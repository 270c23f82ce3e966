package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lumber "github.com/elastic/go-lumber/client/v2"

	"tocsin/internal/collector"
	"tocsin/internal/collector/listen/httpin"
	"tocsin/internal/event"
)

// Every way in at once, to the real gate: each line is received once, refused inbound traffic leaves whatever way it came, and each input's
// counters are in the manifests. Then once more after a restart.
func TestInputs(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Every Input")
	logs := t.TempDir()
	l := &s.cfg.Listen
	l.Syslog[0].TLS = "127.0.0.1:0"
	l.Files = []collector.Files{{Paths: []string{filepath.Join(logs, "*.log")}, Drop: filepath.Join(logs, "drop"), Timezone: "UTC"}}
	l.HTTP = []collector.HTTP{{TCP: "127.0.0.1:0", Timezone: "UTC"}}
	l.OTLP = []collector.HTTP{{TCP: "127.0.0.1:0", Timezone: "UTC"}}
	l.Flows = []collector.Flows{{UDP: "127.0.0.1:0"}}
	l.Beats = []collector.Beats{{TCP: "127.0.0.1:0", Timezone: "UTC"}}
	token, err := httpin.NewToken(s.cfg.TokensFile(), "test")
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	n := uint64(0)
	for round := range 2 {
		r := s.start()
		addr := map[string]string{}
		for _, in := range r.Status().Listeners {
			if in.Kind != "syslog" {
				addr[in.Kind] = in.Address
			}
		}
		line := func(k int) string { n++; return traffic("deny", fmt.Sprintf("203.0.113.%d", k), "198.51.100.7", k) }
		conn, err := tls.Dial("tcp", r.Addrs()[2].String(), &tls.Config{InsecureSkipVerify: true}) // who answers is not in question here
		must(err)
		fmt.Fprintf(conn, "%s\n", line(1+10*round))
		must(conn.Close())
		f, err := os.OpenFile(filepath.Join(logs, "fw.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		must(err)
		fmt.Fprintf(f, "%s\n", line(2+10*round))
		must(f.Close())
		if round == 0 { // a dropped file is left alone for two seconds
			must(os.WriteFile(filepath.Join(logs, "drop", "old.txt"), []byte(line(3)+"\n"), 0o600))
		}
		post := func(url, kind, body string) {
			t.Helper()
			req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
			must(err)
			req.Header.Set("Authorization", "Bearer "+token)
			req.Header.Set("Content-Type", kind)
			res, err := http.DefaultClient.Do(req)
			must(err)
			defer res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("%s: %s", url, res.Status)
			}
		}
		post("http://"+addr["http"]+"/v1/logs", "text/plain", line(4+10*round)+"\n")
		post("http://"+addr["otlp"]+"/v1/logs", "application/json", fmt.Sprintf(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":%q}}]}]}]}`, line(5+10*round)))
		client, err := lumber.SyncDial(addr["beats"])
		must(err)
		if k, err := client.Send([]any{map[string]any{"@timestamp": "2026-11-22T10:00:00Z", "message": line(6 + 10*round), "agent": map[string]any{"type": "filebeat"}}}); err != nil || k != 1 {
			t.Errorf("beats: %d %v", k, err)
		}
		must(client.Close())
		flow, err := net.Dial("udp", addr["flows"])
		must(err)
		// IPFIX: a template of source, destination, firewallEvent; a flow that was denied. In the second round without the template.
		set := []byte{1, 0, 0, 13, 203, 0, 113, byte(7 + 10*round), 198, 51, 100, 7, 3}
		if round == 0 {
			set = append([]byte{0, 2, 0, 20, 1, 0, 0, 3, 0, 8, 0, 4, 0, 12, 0, 4, 0, 233, 0, 1}, set...)
		}
		msg := append([]byte{0, 10, 0, byte(16 + len(set)), 0, 0, 0, 0, 0, 0, 0, byte(round), 0, 0, 0, 1}, set...)
		binary.BigEndian.PutUint32(msg[4:], 1_795_000_000)
		_, err = flow.Write(msg)
		must(err)
		must(flow.Close())
		n++
		r.settled(n)
		r.end()
	}
	k := h.take(s.id)
	k.balance(t)
	came := map[string]string{}
	for i := range k.events {
		e := &k.events[i]
		came[e.Text(event.SourceIP)] = e.Str(event.TocsinSenderAssurance)
	}
	for i, want := range []string{"tls", "local", "local", "tcp", "", "", "udp"} {
		for round := range 2 {
			from := fmt.Sprintf("203.0.113.%d", i+1+10*round)
			if i == 2 && round > 0 {
				continue
			}
			if got, ok := came[from]; want != "" && (!ok || got != want) { // what is inside OTLP and Beats is the parsers' matter
				t.Errorf("%s came by %q, want %q", from, got, want)
			}
		}
	}
	for name, want := range map[string]uint64{"received": n, "input.files.lines": 3, "input.http.lines": 2, "input.otlp.lines": 2, "input.beats.lines": 2, "input.flows.lines": 2, "input.syslog.lines": 2} {
		if k.counts[name] != want {
			t.Errorf("%s is %d, want %d", name, k.counts[name], want)
		}
	}
	if text, err := os.ReadFile(s.cfg.TokensFile()); err != nil || bytes.Contains(text, []byte(token)) {
		t.Errorf("the token itself is on the disk: %v", err)
	}
}
