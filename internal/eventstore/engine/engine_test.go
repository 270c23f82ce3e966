package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/eventstore/engine"
	"tocsin/internal/eventstore/engine/enginetest"
)

// ask sends one statement to the engine and returns status, exception code and body.
func ask(t testing.TB, e *engine.Engine, sql string, query url.Values, body io.Reader) (int, string, string, error) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return net.Dial("unix", strings.TrimPrefix(e.Address(), "unix:"))
	}}}
	if query == nil {
		query = url.Values{}
	}
	if body != nil {
		query.Set("query", sql)
	} else {
		body = strings.NewReader(sql)
	}
	resp, err := c.Post("http://engine/?"+query.Encode(), "", body)
	if err != nil {
		return 0, "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("X-ClickHouse-Exception-Code"), string(b), err
}

func must(t testing.TB, e *engine.Engine, sql string) string {
	t.Helper()
	status, _, body, err := ask(t, e, sql, nil, nil)
	if err != nil || status != 200 {
		t.Fatalf("%s: %d %s %v", sql, status, body, err)
	}
	return strings.TrimSpace(body)
}

func TestHTTPInterface(t *testing.T) {
	dir := enginetest.Dir(t)
	e := enginetest.Start(t, dir)
	if st, err := os.Stat(filepath.Join(dir, "e.sock")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v; want mode 0600", st.Mode(), err)
	}
	if got := must(t, e, "SELECT timezone()"); got != "UTC" {
		t.Errorf("time zone %s", got)
	}
	// Bound parameters, quotes and all.
	status, _, body, err := ask(t, e, "SELECT {a:String}, {b:Array(UInt32)}", url.Values{"param_a": {`x' \\ "y"`}, "param_b": {"[1,2]"}, "default_format": {"JSONCompactEachRow"}}, nil)
	if err != nil || status != 200 || strings.TrimSpace(body) != `["x' \\ \"y\"", [1,2]]` {
		t.Errorf("parameters: %d %s %v", status, body, err)
	}
	// Errors: code in the header and the sentence in the body; after the first byte the answer breaks off.
	status, code, body, _ := ask(t, e, "SELECT * FROM nothing_there", nil, nil)
	if status != 404 || code != "60" || !strings.HasPrefix(body, "Code: 60.") {
		t.Errorf("unknown table: %d %s %s", status, code, body)
	}
	_, _, body, err = ask(t, e, "SELECT throwIf(number = 3000000) FROM numbers(4000000)", nil, nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(body, "__exception__") {
		t.Errorf("an error in mid answer: %v, ends %q", err, body[max(0, len(body)-200):])
	}
	if status, code, _, _ = ask(t, e, "SELECT 1", url.Values{"no_such": {"1"}}, nil); status != 400 || code != "115" {
		t.Errorf("unknown setting: %d %s", status, code)
	}
	if status, _, _, _ = ask(t, e, "", nil, nil); status != 400 {
		t.Errorf("empty statement: %d", status)
	}
	// The child has no network: not even loopback is up, and it listens on nothing but the socket.
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", e.PID())); err == nil && os.Getuid() == 0 {
		if n := strings.Count(string(b), ":"); n > 1 {
			t.Errorf("the engine sees network devices:\n%s", b)
		}
	}
}

// TestCutInsert breaks inserts off at every stage: nothing may be stored, and nothing may be answered with success.
func TestCutInsert(t *testing.T) {
	e := enginetest.Start(t, enginetest.Dir(t))
	must(t, e, "CREATE TABLE default.cut (x UInt64) ENGINE = MergeTree ORDER BY x")
	socket := strings.TrimPrefix(e.Address(), "unix:")
	q := "/?" + url.Values{"query": {"INSERT INTO default.cut FORMAT TabSeparated"}}.Encode()
	for _, c := range []struct{ what, request string }{
		{"content length not reached", "POST " + q + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n1\n2\n3\n"},
		{"chunks without an end", "POST " + q + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\n"},
		{"cut in a chunk", "POST " + q + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n1\n2\n"},
		{"a bad chunk", "POST " + q + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n1\n2\n"},
		{"a row that is no number", "POST " + q + " HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n1\n2\nabc\n"},
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, c.request)
		conn.(*net.UnixConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			if resp.StatusCode == 200 {
				t.Errorf("%s was answered with success", c.what)
			}
			resp.Body.Close()
		}
		conn.Close()
	}
	if got := must(t, e, "SELECT count() FROM default.cut"); got != "0" {
		t.Errorf("%s rows were stored by inserts that were cut", got)
	}
	status, _, body, err := ask(t, e, "INSERT INTO default.cut FORMAT TabSeparated", nil, strings.NewReader("1\n2\n"))
	if err != nil || status != 200 || must(t, e, "SELECT count() FROM default.cut") != "2" {
		t.Errorf("a whole insert: %d %s %v", status, body, err)
	}
}

func TestSupervisor(t *testing.T) {
	dir := enginetest.Dir(t)
	e := enginetest.Start(t, dir)
	must(t, e, "CREATE TABLE default.t (x UInt64) ENGINE = MergeTree ORDER BY x")
	first := e.PID()
	// A second engine on the same folder is refused with a sentence that says why.
	cmd := exec.Command(enginetest.Program(t), "--data", filepath.Join(dir, "engine"), "--socket", filepath.Join(dir, "other.sock"), "--library", enginetest.Library(t))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "another tocsin-engine has") {
		t.Errorf("a second engine: %v %s", err, out)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for e.PID() == first || e.PID() == 0 {
		if ctx.Err() != nil {
			t.Fatal("the engine was not started again")
		}
		time.Sleep(time.Millisecond)
	}
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if e.Restarts() != 1 || must(t, e, "EXISTS default.t") != "1" {
		t.Errorf("%d restarts", e.Restarts())
	}
	pid := e.PID()
	e.Close()
	e.Close()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child outlived its supervisor: %v", err)
	}
	if err := e.Ready(ctx); err == nil {
		t.Error("a closed engine says it is ready")
	}
	if _, err := os.Stat(filepath.Join(dir, "e.sock")); err == nil {
		t.Error("the socket is left behind")
	}
}

// TestKilledWhileStarting kills the engine before it answers: a few times is borne, always is an error that says so.
func TestKilledWhileStarting(t *testing.T) {
	dir := enginetest.Dir(t)
	script := func(name, kills string) string {
		p := filepath.Join(dir, name)
		text := "#!/bin/sh\necho >>'" + p + ".count'\nif [ $(wc -l <'" + p + ".count') -le " + kills + " ]; then kill -9 $$; fi\nexec '" + enginetest.Program(t) + "' \"$@\"\n"
		if err := os.WriteFile(p, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return p
	}
	o := engine.Options{Program: script("three", "3"), Library: enginetest.Library(t), Dir: filepath.Join(dir, "engine"), Socket: filepath.Join(dir, "e.sock"), Logger: slog.New(slog.DiscardHandler)}
	e, err := engine.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	must(t, e, "SELECT 1")
	if e.Restarts() != 3 {
		t.Errorf("%d restarts, want 3", e.Restarts())
	}
	e.Close()
	if !testing.Short() {
		o.Program = script("always", "1000")
		if e, err := engine.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "signal: killed") {
			if err == nil {
				e.Close()
			}
			t.Errorf("an engine that is always killed: %v", err)
		}
	}
}

// TestHungChild stops the child without killing it: the supervisor notices and replaces it.
func TestHungChild(t *testing.T) {
	dir := enginetest.Dir(t)
	e, err := engine.Start(context.Background(), engine.Options{Program: enginetest.Program(t), Library: enginetest.Library(t), Dir: filepath.Join(dir, "engine"), Socket: filepath.Join(dir, "e.sock"),
		Logger: slog.New(slog.DiscardHandler), Every: 200 * time.Millisecond, Patience: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	pid := e.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for e.Restarts() == 0 {
		if ctx.Err() != nil {
			t.Fatal("the hung engine was not replaced")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	must(t, e, "SELECT 1")
}

func TestStartErrors(t *testing.T) {
	dir := enginetest.Dir(t)
	fake := filepath.Join(dir, "libchdb.so")
	if err := os.WriteFile(fake, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	base := engine.Options{Program: enginetest.Program(t), Library: fake, Dir: filepath.Join(dir, "engine"), Socket: filepath.Join(dir, "e.sock"), Logger: slog.New(slog.DiscardHandler)}
	for what, c := range map[string]struct {
		change func(o *engine.Options)
		want   string
	}{
		"another library": {func(o *engine.Options) {}, "is not a tested version of the engine"},
		"no library":      {func(o *engine.Options) { o.Library = filepath.Join(dir, "none.so") }, "was not found"},
		"no program":      {func(o *engine.Options) { o.Program = filepath.Join(dir, "none") }, "no such file"},
		"long socket":     {func(o *engine.Options) { o.Socket = "/" + strings.Repeat("x", 120) }, "107 bytes"},
		"no folder":       {func(o *engine.Options) { o.Dir = "" }, "must be given"},
	} {
		o := base
		c.change(&o)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		e, err := engine.Start(ctx, o)
		cancel()
		if err == nil {
			e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a sentence with %q", what, err, c.want)
		}
	}
}
