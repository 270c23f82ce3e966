package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/listen/listentest"
)

// A program on trial fills archive and spool and is taken back: the one before it goes on without losing or doubling anything. When the trial is
// over the newest form is written, and an older program refuses the folder and changes nothing. TOCSIN_TEST_OLD_COLLECTOR names a program of an
// older version to take the place of the one before; without it this version's does.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Chapel")
	s.cfg.Archive.MaxBytes, s.cfg.Spool.MaxBytes, s.cfg.RetryMax = 2<<20, 1<<20, 200*time.Millisecond
	var onTrial atomic.Bool
	onTrial.Store(true)
	trial := func(o *collector.Options) { o.OnTrial = onTrial.Load }
	// newForm says what in the folder an older program could not read.
	newForm := func() (found []string) {
		t.Helper()
		err := filepath.WalkDir(s.cfg.Dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			switch base := filepath.Base(name); {
			case base == "format", strings.HasSuffix(base, ".zst"):
				found = append(found, name)
			case strings.HasSuffix(base, ".seg"):
				b, err := os.ReadFile(name)
				if errors.Is(err, fs.ErrNotExist) || len(b) < 8 { // deleted since, or just begun
					return nil
				}
				if err != nil || b[7] != 1 {
					found = append(found, name)
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return found
	}
	n := uint64(0)
	send := func(conn net.Conn, m int) {
		for i := range m {
			n++
			fmt.Fprintf(conn, "%s\n", traffic("deny", fmt.Sprintf("203.0.113.%d", i%250+1), "198.51.100.7", i))
		}
	}
	h.away()
	r := s.start(trial)
	send(r.tcp(), 2600)
	r.until("the spool is full", func(st *collector.Status) bool {
		return st.Counts["received"] == n && sum(st.Counts, "dropped.") > 0 && st.SpoolBytes <= s.cfg.Spool.MaxBytes
	})
	r.end()
	if found := newForm(); len(found) > 0 {
		t.Errorf("on trial it wrote %v", found)
	}
	tcp := listentest.Port(t, "tcp")
	config := s.writeConfig(listentest.Port(t, "udp"), tcp)
	if err := appendTo(config, "archive: {max_bytes: 2097152}\n"); err != nil {
		t.Fatal(err)
	}
	h.back()
	c := s.spawnProgram(os.Getenv("TOCSIN_TEST_OLD_COLLECTOR"), config)
	up(t, s)
	conn, err := net.Dial("tcp", listentest.Addr(tcp))
	if err != nil {
		t.Fatal(err)
	}
	send(conn, 500)
	conn.Close()
	settledChild(t, s)
	c.term()
	k := h.take(s.id)
	k.balance(t)
	if k.counts["received"] != n || k.counts["left.denied_inbound"] != n {
		t.Errorf("%d lines: %v", n, k.counts)
	}
	onTrial.Store(false)
	r = s.start(trial)
	send(r.tcp(), 2600)
	r.settled(n)
	r.until("the archive is packed", func(*collector.Status) bool {
		packed, _ := filepath.Glob(filepath.Join(s.cfg.Dir, "archive", "*.zst"))
		return len(packed) > 0
	})
	r.end()
	h.take(s.id).balance(t)
	format := filepath.Join(s.cfg.Dir, "format")
	if b, err := os.ReadFile(format); err != nil || string(b) != fmt.Sprintf("%d\n", collector.Format) {
		t.Errorf("%q %v", b, err)
	}
	if err := os.WriteFile(format, fmt.Appendf(nil, "%d\n", collector.Format+1), 0o600); err != nil {
		t.Fatal(err)
	}
	before := listing(t, s.cfg.Dir)
	if a, err := collector.Open(collector.Options{Config: s.cfg, Version: "test", Detector: detector}); !errors.Is(err, collector.ErrFormat) || !strings.Contains(err.Error(), "install the newer version again") {
		t.Errorf("a folder of a newer program: %v", err)
		if err == nil {
			a.Close()
		}
	}
	if after := listing(t, s.cfg.Dir); after != before {
		t.Errorf("refused, and yet it changed the folder:\n%s\nbefore:\n%s", after, before)
	}
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// listing names every file below a folder with size and time.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err == nil {
			fmt.Fprintln(&b, name, i.Size(), i.ModTime().UnixNano())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
