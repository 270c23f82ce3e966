package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/directive"
)

// stolenGate is a description that takes the daily test's line for its own, and reads no address in it: a mapping that is broken on purpose.
const stolenGate = `format: 1
name: stolengate
version: 1
vendor: Dairy Works
product: Stolen Gate
type: firewall
dataset: dairy.stolen
recognise:
  - starts: 'date='
    contains: tocsin-daily
    priority: 100
read:
  - line: 'date={day:word} {rest}'
fields:
  day: event.code
`

// The daily test of a real collector goes from its own port through parser, on-site rules, spool, batch, gate, worker and the hub's rules, and is no alert; a line of
// a device that looks like it is none. In the long form the mapping is broken on purpose: it is missed, and told once, within its time.
func TestDailyOfCollector(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Second
	h := newHub(t, "health.daily_within="+within.String())
	s := h.join(t)
	type test struct {
		Collector string    `json:"collector"`
		Sent      time.Time `json:"sent"`
		Arrived   time.Time `json:"arrived"`
		Found     bool      `json:"found"`
		Missed    bool      `json:"missed"`
		Millis    int64     `json:"ms"`
	}
	daily := func(more ...string) string {
		return must(t, "", "tocsin", append([]string{"rules", "daily", "--config", h.config, "--json"}, more...)...)
	}
	last := func() (test, error) {
		var list []test
		if err := json.Unmarshal([]byte(daily()), &list); err != nil {
			return test{}, err
		}
		for _, x := range list {
			if x.Collector == s.id {
				return x, nil
			}
		}
		return test{}, fmt.Errorf("none of the collector: %+v", list)
	}
	healthAlerts := func() (n int) {
		for _, a := range h.status(t).Alerts {
			if a.Family == "health-daily-site" {
				n++
			}
			if strings.Contains(a.Family, "daily-test") {
				t.Errorf("the test is an alert: %+v", a)
			}
		}
		return n
	}
	if out := daily("--now", "--member", s.name); !strings.Contains(out, s.id) {
		t.Fatalf("%s", out)
	}
	c := s.collect(t) // one that starts asks at once; one that runs does every half a minute
	again := func() {
		c.stop()
		c = s.collect(t)
	}
	var well test
	eventually(t, time.Minute, "the test has come by both ways", func() (err error) {
		if well, err = last(); err == nil && (well.Arrived.IsZero() || !well.Found || well.Missed) {
			err = fmt.Errorf("%+v", well)
		}
		return err
	})
	t.Logf("from being handed out to what would be the alert: %d ms", well.Millis)
	// What a device writes about itself counts for nothing.
	forged := strings.Replace(deny(1, time.Now()), `service="HTTPS"`, `service="HTTPS" msg="tocsin daily test `+strings.Repeat("0a", 16)+`"`, 1)
	if err := sendTCP(c.addr, forged+"\n"); err != nil {
		t.Fatal(err)
	}
	site, at := c.settled(t, 2)
	if site.Counts["left.daily_test"] != 1 || site.Counts["parsed"] != 2 || healthAlerts() != 0 {
		t.Errorf("on the site %v, at the hub %+v", site.Counts, at)
	}
	if os.Getenv("TOCSIN_TEST_TORTURE") == "" {
		return // a pack on its way and a test that is missed take a minute; package daily has them with a clock of its own
	}
	pack := filepath.Join(folder(t), "pack", "stolengate")
	if err := os.MkdirAll(pack, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"parser.yaml": stolenGate, "README.md": "# Stolen Gate\n"} {
		if err := os.WriteFile(filepath.Join(pack, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.admin(t, "pack", "publish", "parsers", filepath.Dir(pack), "--offline", filepath.Join(filepath.Dir(h.dir), "offline"))
	own := s.own()
	eventually(t, time.Minute, "the pack is handed out with its proof", func() error {
		got, err := s.handedOut(own)
		if err == nil && got[directive.Parsers] == 0 {
			err = fmt.Errorf("only %v", got)
		}
		return err
	})
	again() // takes the pack, and is tested at its next start
	eventually(t, time.Minute, "the pack is in use", func() error {
		b, err := os.ReadFile(filepath.Join(s.dir, "directives", directive.Parsers))
		if err == nil && len(b) == 0 {
			err = fmt.Errorf("it is empty")
		}
		return err
	})
	daily("--now", "--member", s.name)
	again()
	began := time.Now()
	eventually(t, time.Minute, "the broken test is told", func() error {
		_ = sendTCP(c.addr, deny(2, time.Now())+"\n") // so that the collector is heard
		x, err := last()
		if err == nil && (!x.Missed || healthAlerts() != 1) {
			err = fmt.Errorf("%+v, %d alerts", x, healthAlerts())
		}
		return err
	})
	t.Logf("told after %v, within %v of its time and the look for it", time.Since(began).Round(100*time.Millisecond), within)
}
