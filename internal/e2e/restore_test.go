package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/load/local"
)

// cp copies folders as an operator does, with owners and modes.
func cp(t testing.TB, from, to string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-a", filepath.Join(from, name), to).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
	}
}

// restored is a scheme of one member whose hub is lost again and again.
type restored struct {
	t testing.TB
	*hub
	c    *collecting
	conn net.Conn
	n    uint64 // lines sent; each leaves
}

func (r *restored) lines(m int) {
	r.t.Helper()
	var text []byte
	for range m {
		r.n++
		text = fmt.Appendf(text, "%s\n", deny(int(r.n), time.Now()))
	}
	if _, err := r.conn.Write(text); err != nil {
		r.t.Fatal(err)
	}
}

// whole demands that everything that ever left is there, once, and that the sums say so on both sides.
func (r *restored) whole(what string) {
	r.t.Helper()
	_, at := r.c.settled(r.t, r.n)
	if at.Stored != r.n || at.Acknowledged != r.n {
		r.t.Errorf("%s: %d events left; the hub's sums are %+v", what, r.n, at)
	}
	rows := strings.Join(query(r.t, r.dir, "SELECT count(), uniqExact(stream, seq, idx), (SELECT sum(n) FROM tocsin.tenant_hour) FROM tocsin.events"), " ")
	if want := fmt.Sprintf("%d %d %d", r.n, r.n, r.n); rows != want {
		r.t.Errorf("%s: rows, events and the hourly roll-up are %s, want %s", what, rows, want)
	}
}

// said counts how often the hub has said something since its newest start.
func (r *restored) said(text string) int { return strings.Count(r.hub.log.String(), text) }

// A hub is lost and put back from copies that are not equally old, while collectors run on with newer state. Whatever has a receipt is there
// again, once: from the blobs, or sent again by the collector; what the event store has already is not doubled.
func TestRestoredHub(t *testing.T) { lose(t, false) }

// The same, and then the worst night: everything but the records is lost.
func TestTortureRestoredHub(t *testing.T) {
	if os.Getenv("TOCSIN_TEST_TORTURE") == "" {
		t.Skip("SKIPPED: set TOCSIN_TEST_TORTURE=long (make torture); a third loss costs as much time as the two of the ordinary run")
	}
	lose(t, true)
}

func lose(t *testing.T, worst bool) {
	t.Parallel()
	h := newHub(t)
	s := h.join(t)
	r := &restored{t: t, hub: h, c: s.collect(t)}
	var err error
	if r.conn, err = net.Dial("tcp", r.c.addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	store := filepath.Join(folder(t), "store") // the event store's copy, made with the hub stopped
	night := filepath.Join(folder(t), "night") // the copy made while it ran

	r.lines(20)
	r.whole("before the first copy")
	h.stop()
	cp(t, h.dir, store, "engine")
	h.start(t)
	r.lines(30)
	r.whole("before the second copy")
	cp(t, h.dir, night, "keys")
	if err := os.Mkdir(filepath.Join(night, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.admin(t, "backup", filepath.Join(night, "db", "tocsin.db"))
	cp(t, h.dir, night, "blobs", "ledger")
	r.lines(25)
	list := filepath.Join(folder(t), "list.txt")
	if err := os.WriteFile(list, []byte("203.0.113.250\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.admin(t, "indicator", "import", list, "--source", "later", "--tlp", "green", "--push")
	r.whole("before the loss")
	late := h.join(t) // it joins after the copy: the hub put back has never heard of it
	h.stop()
	r.lines(10) // while there is no hub

	// The records of the night, the event store of before, and the bus of another past left where it was.
	cp(t, night, h.dir, "keys", "db", "blobs", "ledger")
	cp(t, store, h.dir, "engine")
	h.start(t)
	r.whole("after the first restore")
	for _, text := range []string{"older copy than the bus, which is laid aside", "the event store is an older copy than the records", "a new ledger begins"} {
		if r.said(text) != 1 {
			t.Errorf("the hub said %d times %q", r.said(text), text)
		}
	}
	if text := r.c.log.String(); !strings.Contains(text, "the hub was restored from an older copy; it gets again what it lost") {
		t.Error("the collector did not notice")
	}
	// Who joined after the copy was made is told what to do; what it collected meanwhile stays in its folder.
	code, out, errs := run(t, "", "tocsin-collector", "doctor", "--dir", late.dir)
	if code != 7 || !strings.Contains(out, "not registered here") || !strings.Contains(out, "tocsin-collector enrol TOKEN") {
		t.Errorf("a collector that the restored hub does not know is told, with code %d: %s%s", code, out, errs)
	}

	// The records alone are put back: the event store and the blobs are newer.
	h.stop()
	cp(t, night, h.dir, "db")
	if err := os.RemoveAll(filepath.Join(h.dir, "bus")); err != nil {
		t.Fatal(err)
	}
	h.start(t)
	r.lines(5)
	r.whole("after the second restore")

	// The event store alone is put back, from before all that; records and bus are today's.
	h.stop()
	cp(t, store, h.dir, "engine")
	h.start(t)
	r.lines(5)
	r.whole("after the event store alone was put back")
	for _, text := range []string{"the event store does not know its newest mark", "the event store is an older copy than the records"} {
		if r.said(text) != 1 {
			t.Errorf("the hub said %d times %q", r.said(text), text)
		}
	}
	if !worst {
		return
	}
	// The worst night: blobs, event store and bus are gone. The collector has it all.
	h.stop()
	for _, name := range []string{"bus", "blobs", "engine", "ledger"} {
		if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	h.start(t)
	r.lines(5)
	r.whole("after the third restore")
	if r.said("the collector is asked for them again") == 0 {
		t.Error("the hub did not say that it asks the collector")
	}
	// The set that collectors hold of the lost past has a version that the records never heard of; the restored hub's is above it.
	r.c.process.stop()
	if strings.Contains(r.c.log.String(), "refused the hub's indicator set") {
		t.Error("the collector refuses the restored hub's indicators")
	}
	again := s.collect(t)
	eventually(t, time.Minute, "the restored hub's indicators at the collector", func() error {
		on, err := local.SiteStatus(t.Context(), again.socket)
		if version, _, _ := strings.Cut(on.Indicators, " "); err == nil && r.said("version="+version+" ") == 0 {
			err = errors.New(on.Indicators)
		}
		return err
	})
}
