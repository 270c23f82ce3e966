package alert

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tocsin/internal/db"
	"tocsin/internal/event"
	"tocsin/internal/outbox"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TOCSIN_ALERT_CRASH"); dir != "" {
		crashChild(dir)
		return
	}
	os.Exit(m.Run())
}

func crashStore(dir string) (*Store, *outbox.Box, *db.DB, error) {
	d, err := db.Open(context.Background(), db.Options{Path: filepath.Join(dir, "t.db")})
	if err != nil {
		return nil, nil, nil, err
	}
	box := outbox.New(d, outbox.Options{})
	return New(d, Options{Outbox: box}), box, d, nil
}

// plan makes the detections of one plan; the same number, the same detections.
func plan(n int) []event.Detection {
	var out []event.Detection
	for i := range 7 {
		at := int64(1_700_000_000+n) * int64(time.Second)
		out = append(out, event.Detection{Tenant: event.TenantID(i % 3), RuleID: "r", RuleTitle: "A rule", Family: fmt.Sprint("f", i%2), Level: "high", Tags: []string{"attack.t1046"},
			Entity: event.Entity{Kind: "source", Value: fmt.Sprintf("203.0.113.%d", (n+i)%20)}, First: at, Last: at, Count: 3, Reason: "because", Key: fmt.Sprintf("%d/%d", n, i),
			Events: []event.ID{{Seq: uint64(n), Index: uint32(i)}}})
	}
	return out
}

// crashChild applies plans from the first on, again and again after each kill,
// as a worker does that lost its acknowledgements. It prints what is durable.
func crashChild(dir string) {
	s, _, _, err := crashStore(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for n := 0; ; n++ {
		if _, err := s.Apply(context.Background(), fmt.Sprint(n), plan(n)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// The program is killed at many moments and replays everything each time: in the
// end every plan counts exactly once, and every alert was told of exactly once.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for several seconds")
	}
	dir := t.TempDir()
	last := 0
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "TOCSIN_ALERT_CRASH="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		target := last + 23 + 7*round
		for sc.Scan() {
			n, err := strconv.Atoi(sc.Text())
			if err != nil {
				t.Fatal(err)
			}
			if last = max(last, n); n == target {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("round %d: the child ended by itself: %v", round, err)
		}
	}
	s, box, d, err := crashStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := d.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := &fixture{Store: s, t: t, box: box}
	plans := last + 50
	for n := range plans {
		if _, err := s.Apply(t.Context(), "again", plan(n)); err != nil {
			t.Fatal(err)
		}
	}
	var count, detections int64
	all := f.allAlerts()
	for _, a := range all {
		count += a.Count
		detections += a.Detections
	}
	if detections != int64(7*plans) || count != int64(21*plans) {
		t.Errorf("%d detections of %d events, want %d of %d", detections, count, 7*plans, 21*plans)
	}
	if len(all) != 3*2*20 {
		t.Errorf("%d alerts, want %d", len(all), 3*2*20)
	}
	opened := map[string]int{}
	for _, n := range f.notices() {
		if n.Kind == Opened {
			opened[n.Alert.ID]++
		}
	}
	for _, a := range all {
		if opened[a.ID] != 1 {
			t.Errorf("%s was told of %d times", a.Ref, opened[a.ID])
		}
	}
	f.recount()
	t.Logf("6 kills, %d plans, %d alerts", plans, len(all))
}

// What a notice becomes is the caller's; an error there takes the change back.
func TestEntries(t *testing.T) {
	f := newFixture(t)
	var fail error
	f.o.Entries = func(n Notice) ([]outbox.Entry, error) {
		return []outbox.Entry{{Key: fmt.Sprintf("mail/%s/%d", n.Alert.Ref, n.N), Kind: "mail", Tenant: n.Alert.Tenant, Payload: []byte(n.Alert.Title)},
			{Key: fmt.Sprintf("hook/%s/%d", n.Alert.Ref, n.N), Kind: "webhook", Tenant: n.Alert.Tenant}}, fail
	}
	f.apply(f.det(1))
	es, err := f.box.List(t.Context(), national, outbox.Filter{})
	if err != nil || len(es) != 2 || es[1].Kind != "mail" || string(es[1].Payload) != "Password guessing on the VPN" || es[1].Tenant != 1 {
		t.Errorf("%+v, %v", es, err)
	}
	fail = fmt.Errorf("no template")
	if _, err := f.Apply(t.Context(), "p", []event.Detection{f.det(2, func(d *event.Detection) { d.Tenant = 2 })}); err == nil || !strings.Contains(err.Error(), "no template") {
		t.Errorf("got %v", err)
	}
	if n := len(f.queue(national, Filter{})); n != 1 {
		t.Errorf("%d alerts", n)
	}
}
