package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test program plays the children, told by its environment what to do.
func TestMain(m *testing.M) {
	switch os.Getenv("TOCSIN_TEST_CHILD") {
	case "stay": // until SIGTERM, then say so
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("up", os.Getpid())
		<-c
		fmt.Println("drained")
		os.Exit(0)
	case "fail":
		fmt.Println("cannot open the thing")
		os.Exit(1)
	case "parent": // starts a child of its own and waits to be killed
		c := &Child{What: "the grandchild", Command: []string{os.Args[0]}, Log: os.Getenv("TOCSIN_TEST_LOG"), Drain: time.Second}
		os.Setenv("TOCSIN_TEST_CHILD", "stay")
		c.Start(context.Background())
		<-c.stopped
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// eventually asks until ok; the limit is only for a broken program.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%s did not come about", what)
		}
	}
}

func child(t *testing.T, role string) *Child {
	t.Helper()
	t.Setenv("TOCSIN_TEST_CHILD", role)
	return &Child{What: "the child", Command: []string{os.Args[0]}, Log: filepath.Join(t.TempDir(), "log"), Drain: 10 * time.Second}
}

func said(c *Child, text string) func() bool {
	return func() bool {
		b, err := os.ReadFile(c.Log)
		return err == nil && strings.Contains(string(b), text)
	}
}

// A child killed with -9 is started again; asked to stop it drains.
func TestChildRestartsAndDrains(t *testing.T) {
	c := child(t, "stay")
	told := make(chan string, 1)
	c.Say = func(s string) { told <- s }
	c.Start(context.Background())
	eventually(t, "the start", func() bool { return said(c, "up ")() })
	first := c.PID()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := <-told; !strings.Contains(s, "The child stopped (signal: killed)") {
		t.Errorf("told: %q", s)
	}
	eventually(t, "the restart", func() bool { return c.PID() != first && said(c, "up "+strconv.Itoa(c.PID()))() })
	c.Stop()
	if !said(c, "drained")() || c.Restarts() != 1 || c.Err() != nil {
		t.Errorf("drained %v, restarts %d, err %v", said(c, "drained")(), c.Restarts(), c.Err())
	}
	if err := syscall.Kill(c.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("it still runs: %v", err)
	}
	c.Stop() // stopping twice is harmless
}

// A child that never stays up is given up, with its last words.
func TestChildGivesUp(t *testing.T) {
	c := child(t, "fail")
	c.wait = time.Millisecond
	c.Start(context.Background())
	<-c.stopped
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "cannot open the thing") || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("%v", err)
	}
}

// When the parent is killed with -9, the child drains and ends too.
func TestChildEndsWithItsParent(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TOCSIN_TEST_CHILD=parent", "TOCSIN_TEST_LOG="+log)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &Child{Log: log}
	eventually(t, "the grandchild", said(c, "up "))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	eventually(t, "the grandchild's end", said(c, "drained"))
}

// The client speaks over a unix socket, and a refusal keeps the hub's words.
func TestCentre(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin/members", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"tenant":7,"name":"A"}]`)
	})
	mux.HandleFunc("POST /admin/indicators", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"added":%d}`, strings.Count(string(b), "\n"))
	})
	mux.HandleFunc("POST /admin/members", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"code":"exists","title":"That member exists","next":"Choose another name."}`)
	})
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	defer srv.Close()
	c := NewCentre(path)
	ctx := context.Background()
	if m, err := c.Members(ctx); err != nil || len(m) != 1 || m[0].Tenant != 7 {
		t.Errorf("%v %v", m, err)
	}
	if n, err := c.ImportIndicators(ctx, "a test", "a\nb\n"); err != nil || n != 2 {
		t.Errorf("%d %v", n, err)
	}
	_, err = c.AddMember(ctx, "A", "", "")
	var p *Problem
	if !errors.As(err, &p) || p.Status != http.StatusConflict || !strings.Contains(err.Error(), "That member exists") || !strings.Contains(err.Error(), "Choose another name.") {
		t.Errorf("%v", err)
	}
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	if err := NewCentre(path + "x").Ready(ctx); err == nil {
		t.Error("no socket, no error")
	}
}
