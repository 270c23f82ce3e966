package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tocsin/internal/batch"
	"tocsin/internal/collector"
)

// call runs the real program to its end.
func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	built.Store(true)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	t.Logf("$ tocsin-collector %.40s\n%.4000q\n%.1000s", strings.Join(args, " "), out.String(), errs.String())
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// The program as a person uses it: enrol, confirm the words, run, look at what left, ask the doctor, take the token twice, be revoked.
func TestProgram(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := &site{t: t, cfg: collector.DefaultConfig(), logs: &logBuffer{}}
	s.cfg.Dir = filepath.Join(t.TempDir(), "c")
	s.cfg.Spool.MaxBytes = 1 << 30
	tok := h.token("St Mary's").String()
	code, out, _ := call(t, tok[:40]+"\n  "+tok[40:]+"\n", "enrol", "--dir", s.cfg.Dir, "--name", "gw-logs") // as a mail program wraps it
	if code != 0 || !strings.Contains(out, "Check words:") || !strings.Contains(out, "St Mary's") {
		t.Fatalf("enrol: %d", code)
	}
	if code, _, errs := call(t, tok, "enrol", "--dir", s.cfg.Dir); code != 4 || !strings.Contains(errs, "--again") {
		t.Errorf("enrol twice: %d %s", code, errs)
	}
	if code, _, errs := call(t, tok, "enrol", "--dir", s.cfg.Dir+"2"); code != 5 {
		t.Errorf("a token used twice: %d %s", code, errs)
	}
	var e struct {
		Collector  string   `json:"collector"`
		CheckWords []string `json:"check_words"`
	}
	b, err := os.ReadFile(filepath.Join(s.cfg.Dir, "enrolment.json"))
	if err != nil || json.Unmarshal(b, &e) != nil {
		t.Fatal(err)
	}
	s.id = e.Collector
	udp, tcp := ports(t)
	config := s.writeConfig(udp, tcp)
	if code, _, _ := call(t, "", "doctor", "--config", config); code != 0 {
		t.Errorf("doctor before the start: %d", code)
	}
	c := s.spawn(config)
	up(t, s)
	if code, _, errs := call(t, "", "run", "--config", config); code != 4 || !strings.Contains(errs, "another collector is running") {
		t.Errorf("a second one: %d %s", code, errs)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		fmt.Fprintf(conn, "%s\n", traffic([]string{"deny", "accept"}[i%2], "203.0.113.1", "198.51.100.7", i))
	}
	conn.Close()
	settledChild(t, s)
	if err := h.store.ConfirmWords(context.Background(), operator, "test", s.id, strings.Join(e.CheckWords, " ")); err != nil {
		t.Errorf("the portal does not take the words: %v", err)
	}
	if code, out, _ := call(t, "", "doctor", "--config", config); code != 0 || !strings.Contains(out, "60 received") || !strings.Contains(out, "state live") {
		t.Errorf("doctor: %d", code)
	}
	code, out, _ = call(t, "", "sent", "--config", config)
	if code != 0 || !strings.Contains(out, "receipt of") || !strings.Contains(out, "30  left.denied_inbound") || !strings.Contains(out, "30  kept.allowed") {
		t.Errorf("sent: %d", code)
	}
	if code, out, _ := call(t, "", "sent", "--config", config, "--events"); code != 0 || strings.Count(out, "\n") != 30 {
		t.Errorf("sent --events: %d, %d lines", code, strings.Count(out, "\n"))
	}
	code, out, _ = call(t, "", "sent", "--config", config, "--json")
	var first collector.SentBatch
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &first); code != 0 || err != nil || first.Receipt != "valid" {
		t.Fatalf("sent --json: %d %v", code, err)
	}
	_, raw, _ := call(t, "", "sent", "--config", config, "--extract", first.Digest)
	if env, body, err := batch.SplitSubmission([]byte(raw)); err != nil || len(env) == 0 || len(body) == 0 {
		t.Errorf("sent --extract: %v", err)
	}
	// With ordinary tools, as the format's description says.
	if zstd, err := exec.LookPath("zstd"); err == nil {
		cmd := exec.Command(zstd, "-dc")
		_, body, _ := strings.Cut(raw, "\n")
		cmd.Stdin = strings.NewReader(body)
		if plain, err := cmd.Output(); err != nil || !strings.HasPrefix(string(plain), `{"salt":"`) {
			t.Errorf("zstd: %v %.80s", err, plain)
		}
	}
	if err := h.store.Revoke(context.Background(), operator, "test", s.id, "a test"); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := call(t, "", "doctor", "--config", config); code != 7 || !strings.Contains(out, "revoked") {
		t.Errorf("doctor of a revoked collector: %d", code)
	}
	c.term()
	h.away()
	if code, out, _ := call(t, "", "doctor", "--config", config); code != 7 || !strings.Contains(out, "is the hub running") {
		t.Errorf("doctor without hub: %d", code)
	}
}
