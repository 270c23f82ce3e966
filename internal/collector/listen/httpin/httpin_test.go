package httpin

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"tocsin/internal/collector/listen/listentest"
)

func serve(t testing.TB, o Options, sink *listentest.Store) (*Server, string, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	token, err := NewToken(file, "test")
	if err != nil {
		t.Fatal(err)
	}
	if o.Tokens, err = OpenTokens(file, ""); err != nil {
		t.Fatal(err)
	}
	s, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	listentest.Serve(t, s, sink)
	return s, "http://" + s.Addr().String() + "/v1/logs", token
}

func post(t testing.TB, url, token, kind, encoding string, body []byte) (int, Problem, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	var p Problem
	if res.StatusCode != 200 {
		if err := json.Unmarshal(b, &p); err != nil || res.Header.Get("Content-Type") != "application/problem+json" || p.Next == "" || p.Status != res.StatusCode {
			t.Errorf("%d: not a problem: %s", res.StatusCode, b)
		}
	}
	return res.StatusCode, p, string(b)
}

func zipped(b string) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, b)
	w.Close()
	return z.Bytes()
}

func zstded(b string) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll([]byte(b), nil)
}

func TestPost(t *testing.T) {
	sink := &listentest.Store{}
	o := Options{MaxBody: 1 << 20}
	o.MaxLine = 1000
	s, url, token := serve(t, o, sink)
	const nd = "application/x-ndjson"
	for _, c := range []struct {
		name, token, kind, encoding string
		body                        []byte
		status                      int
		code                        string
		lines                       int
	}{
		{"lines", token, nd, "", []byte("{\"a\":1}\r\n\n {\"b\":\"x\"} \n{\"c\":{}}"), 200, "", 3},
		{"gzip", token, nd, "gzip", zipped("{}\n{}\n"), 200, "", 2},
		{"zstd", token, nd, "zstd", zstded("{}\n{}\n"), 200, "", 2},
		{"object over lines", token, "application/json; charset=utf-8", "", []byte("{\n \"a\": [1,\n2]}"), 200, "", 1},
		{"array", token, "application/json", "", []byte(`[{"a":1},{"b":2}]`), 200, "", 2},
		{"text", token, "text/plain", "", []byte("<13>one\nid=firewall two\r\n"), 200, "", 2},
		{"nothing", token, nd, "", nil, 200, "", 0},
		{"no token", "", nd, "", []byte("{}"), 401, "token", 0},
		{"wrong token", token + "x", nd, "", []byte("{}"), 401, "token", 0},
		{"one bad line", token, nd, "", []byte("{}\n{}\n{\"a\":\n"), 400, "json", 0},
		{"no object", token, nd, "", []byte("[1]"), 400, "json", 0},
		{"array of others", token, "application/json", "", []byte(`[{},1]`), 400, "json", 0},
		{"long line", token, nd, "", []byte(`{"a":"` + strings.Repeat("x", 2000) + `"}`), 400, "json", 0},
		{"long text", token, "text/plain", "", []byte(strings.Repeat("x", 2000)), 200, "", 1},
		{"broken gzip", token, nd, "gzip", zipped("{}\n{}\n")[:20], 400, "body", 0},
		{"not gzip", token, nd, "gzip", []byte("{}"), 400, "body", 0},
		{"brotli", token, nd, "br", []byte("{}"), 415, "encoding", 0},
		{"form", token, "application/x-www-form-urlencoded", "", []byte("a=1"), 415, "type", 0},
		{"big", token, nd, "", bytes.Repeat([]byte("{}\n"), 1<<19), 413, "too_big", 0},
		{"bomb", token, nd, "gzip", zipped(strings.Repeat("{}\n", 1<<20)), 413, "too_big", 0},
		{"zstd bomb", token, nd, "zstd", zstded(strings.Repeat("{}\n", 1<<20)), 413, "too_big", 0},
	} {
		before, _ := sink.Count()
		status, p, body := post(t, url, c.token, c.kind, c.encoding, c.body)
		after, synced := sink.Count()
		if status != c.status || p.Code != c.code || after-before != c.lines || status == 200 && body != fmt.Sprintf("{\"accepted\":%d}\n", c.lines) {
			t.Errorf("%s: %d %s, %d lines: %s", c.name, status, p.Code, after-before, body)
		}
		if synced != after {
			t.Errorf("%s: answered before it was durable", c.name)
		}
	}
	for _, l := range sink.Lines() {
		if strings.ContainsAny(l, "\r\n") || len(l) > 1000 {
			t.Errorf("%q", l)
		}
	}
	if res, err := http.Get(url); err != nil || res.StatusCode != 401 {
		t.Errorf("a stranger learns that the path is there: %v", err)
	}
	if status, _, _ := post(t, strings.Replace(url, "/v1/logs", "/other", 1), token, nd, "", nil); status != 404 {
		t.Error(status)
	}
	sink.Refuse(-1)
	if status, p, _ := post(t, url, token, nd, "", []byte("{}")); status != 503 || p.Code != "busy" {
		t.Errorf("a full disk: %d %+v", status, p)
	}
	if st := s.Stats(); st.By["refused_token"] != 3 || st.By["refused_json"] != 4 || st.By["refused_too_big"] != 3 || st.By["refused_busy"] != 1 || st.Lines != uint64(len(sink.Lines())) {
		t.Errorf("%+v", st)
	}
}

// More requests than may be in work wait for their turn, and are told to come again when it does not come.
func TestTurns(t *testing.T) {
	sink := &listentest.Store{}
	wait := make(chan struct{})
	sink.Wait(wait)
	_, url, token := serve(t, Options{Bodies: 2, Queue: 30 * time.Millisecond}, sink)
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for range 5 {
		wg.Go(func() {
			status, _, _ := post(t, url, token, "text/plain", "", []byte("x"))
			mu.Lock()
			defer mu.Unlock()
			if got[status]++; status == 503 && got[503] == 3 {
				close(wait)
			}
		})
	}
	wg.Wait()
	if lines, _ := sink.Count(); got[200] != 2 || got[503] != 3 || lines != 2 {
		t.Errorf("%v, %d lines", got, lines)
	}
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "tokens")
	tokens, err := OpenTokens(file, "")
	if err != nil || tokens.Check("") || tokens.Len() != 0 {
		t.Fatal(err)
	}
	a, err := NewToken(file, "filebeat.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewToken(file, "filebeat.1"); err == nil {
		t.Error("two tokens of one name")
	}
	if _, err := NewToken(file, "a b"); err == nil {
		t.Error("a name with a blank")
	}
	b, err := NewToken(file, "other")
	if err != nil || a == b {
		t.Fatal(err)
	}
	tokens.looked = time.Time{}
	if !tokens.Check(a) || !tokens.Check(b) || tokens.Check(a+b) || tokens.Check("") {
		t.Error("made while it runs")
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), a) || !strings.Contains(string(text), " other\n") {
		t.Errorf("%q %v", text, err)
	}
	plain := filepath.Join(dir, "plain")
	for content, ok := range map[string]bool{"short": false, "two tokens are not one token": false, "0123456789abcdefghijkl\n": true} {
		if err := os.WriteFile(plain, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := OpenTokens(file, plain)
		if (err == nil) != ok || ok && (!got.Check(strings.TrimSpace(content)) || !got.Check(a)) {
			t.Errorf("%q: %v", content, err)
		}
	}
	if err := os.Chmod(plain, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(file, plain); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(file, []byte("secret in plain text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTokens(file, ""); err == nil {
		t.Error("took a file that holds no digests")
	}
}

// Whatever comes as JSON: what is taken is valid JSON objects on one line each, within bounds.
func FuzzJSON(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n[{\"b\":[2,\n3]}]"))
	f.Add([]byte("[[{}]]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, split := range []func([]byte, int) ([][]byte, error){jsonLines, jsonValues} {
			out, err := split(b, 1000)
			if err != nil {
				continue
			}
			for _, l := range out {
				if l[0] != '{' || len(l) > 1000 || bytes.IndexByte(l, '\n') >= 0 || !json.Valid(l) {
					t.Fatalf("%q of %q", l, b)
				}
			}
		}
		plainLines(b)
	})
}
