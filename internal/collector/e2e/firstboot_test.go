package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector"
)

// The appliance's first-boot page, by the real program: the code on its console, the token from a real hub, wrong ones, and a stranger's web
// page that tries to speak with it.
func TestFirstBoot(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	built.Store(true)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &site{t: t, cfg: collector.DefaultConfig(), logs: &logBuffer{}}
	s.cfg.Dir = filepath.Join(dir, "c")
	if err := os.Mkdir(s.cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	settings := filepath.Join(s.cfg.Dir, "collector.yaml")
	_, tcp := ports(t)
	if err := os.WriteFile(settings, fmt.Appendf(nil, "# kept\ndir: "+s.cfg.Dir+"\nlisten:\n  syslog:\n    - {tcp: \"127.0.0.1:%d\"}\nown_ranges: [] # yours\n", tcp), 0o640); err != nil {
		t.Fatal(err)
	}
	_, secure := ports(t)
	_, plain := ports(t)
	cmd := exec.Command(bin, "firstboot", "--dir", s.cfg.Dir, "--https", fmt.Sprintf("127.0.0.1:%d", secure), "--http", fmt.Sprintf("127.0.0.1:%d", plain))
	cmd.Stderr = s.logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(syscall.SIGTERM); io.Copy(io.Discard, console); cmd.Wait() }()
	screen := bufio.NewReader(console)
	readCode := func() string {
		t.Helper()
		for {
			line, err := screen.ReadString('\n')
			if err != nil {
				t.Fatalf("the console shows no code: %v\n%s", err, s.logs)
			}
			if m := regexp.MustCompile(`Code: +(\d{4} \d{4})`).FindStringSubmatch(line); m != nil {
				return m[1]
			}
		}
	}
	code := readCode()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 20 * time.Second} // as a person who compared the fingerprint
	page := fmt.Sprintf("https://127.0.0.1:%d/", secure)
	answer := func(res *http.Response, err error) (int, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	status, body := answer(client.Get(fmt.Sprintf("http://127.0.0.1:%d/", plain))) // sent on to HTTPS
	if status != 200 || !strings.Contains(body, "Enrolment token") || strings.Contains(body, strings.ReplaceAll(code, " ", "")) {
		t.Fatalf("the page: %d %s", status, body)
	}
	if status, body := answer(client.Get(page + "page.css")); status != 200 || !strings.Contains(body, "prefers-color-scheme") {
		t.Errorf("style: %d", status)
	}
	req, err := http.NewRequest(http.MethodGet, page, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "rebound.example"
	if status, _ := answer(client.Do(req)); status != http.StatusMisdirectedRequest {
		t.Errorf("a strange name: %d", status)
	}
	post := func(code, token, ranges string) (int, string) {
		t.Helper()
		return answer(client.PostForm(page, url.Values{"code": {code}, "token": {token}, "name": {"Server room <1>"}, "ranges": {ranges}}))
	}
	token := h.token("First Boot School").String()
	for range 10 {
		if status, body := post("0000 000", token, ""); status != http.StatusForbidden || !strings.Contains(body, "Server room &lt;1&gt;") {
			t.Fatalf("a wrong code: %d %s", status, body)
		}
	}
	old := code
	if code = readCode(); code == old {
		t.Error("the code is the same after ten wrong ones")
	}
	if status, _ := post(old, token, ""); status != http.StatusForbidden {
		t.Errorf("the old code: %d", status)
	}
	if status, body := post(code, token[:40], ""); status != http.StatusBadGateway || !strings.Contains(body, "not complete") {
		t.Errorf("half a token: %d %s", status, body)
	}
	if status, body := post(code, token, "everything"); status != http.StatusBadRequest || !strings.Contains(body, "198.51.100.0/24") {
		t.Errorf("no range: %d %s", status, body)
	}
	h.away()
	if status, body := post(code, token, ""); status != http.StatusBadGateway || !strings.Contains(body, "not used up") {
		t.Errorf("no hub: %d %s", status, body)
	}
	h.back()
	status, body = post(strings.ReplaceAll(code, " ", "-"), token[:50]+"\r\n "+token[50:], "198.51.100.7, 203.0.113.0/24")
	if status != 200 || !strings.Contains(body, "First Boot School") || !strings.Contains(body, "check words") {
		t.Fatalf("the enrolment: %d %s", status, body)
	}
	e, err := s.cfg.Enrolment()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range e.CheckWords {
		if !strings.Contains(body, w) {
			t.Errorf("the page does not show the word %q", w)
		}
	}
	b, err := os.ReadFile(settings)
	if err != nil || !strings.Contains(string(b), "own_ranges: [198.51.100.7/32, 203.0.113.0/24]") || !strings.Contains(string(b), "# kept") {
		t.Errorf("the settings: %v %s", err, b)
	}
	if status, body := post(code, h.token("Another").String(), ""); status != 200 || !strings.Contains(body, "First Boot School") {
		t.Errorf("a second enrolment: %d %s", status, body)
	}
	// The collector runs with these settings, and the page shows what arrives.
	c := s.spawn(settings)
	up(t, s)
	if err := h.store.ConfirmWords(context.Background(), operator, "test", e.Collector, strings.Join(e.CheckWords, " ")); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // a poll of another process, bounded by end
		if _, body = answer(client.Get(page)); strings.Contains(body, "Lines received") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the page shows no count: %s", body)
		}
	}
	c.term()
}
