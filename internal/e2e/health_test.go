package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/directive"
)

// brokenGate is the parser of milkGate after somebody broke it: the port of the destination is read and not kept.
var brokenGate = strings.NewReplacer("version: 1", "version: 2", "  tport: destination.port\n", "").Replace(milkGate)

// devices send lines to a collector, also while it is started again elsewhere and while a test looks at something else.
type devices struct {
	mu   sync.Mutex // guards what follows
	to   string
	says func(n int) string
}

func (d *devices) set(to string, says func(n int) string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if to != "" {
		d.to = to
	}
	if says != nil {
		d.says = says
	}
}

// run sends ten times what the devices say, each 50 ms, until ctx is done.
func (d *devices) run(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		d.mu.Lock()
		to, says := d.to, d.says
		d.mu.Unlock()
		var b strings.Builder
		for range 10 {
			b.WriteString(says(n) + "\n")
			n++
		}
		_ = sendTCP(to, b.String()) // a collector that was stopped takes nothing
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Everything that makes detection blind, at a real collector and a real hub whose times are short: a device that no longer says what rules need, a mapping that
// is broken by a pack, lines that are not understood, a device that is silent, a collector that is, and rules with a fault. Each raises its own alert
// within its time, and the pages and the command line say so.
func TestDetectionHealthTorture(t *testing.T) {
	t.Parallel()
	if os.Getenv("TOCSIN_TEST_TORTURE") == "" {
		t.Skip("SKIPPED: set TOCSIN_TEST_TORTURE=long (make torture); waiting for silence takes half a minute. Package health has each case with a clock of its own")
	}
	const quiet, away = 4 * time.Second, 6 * time.Second
	h := newHub(t, "health.window=1s", "health.source_silent="+quiet.String(), "health.source_known=1s", "health.collector_silent="+away.String())
	s := h.join(t)
	c := s.collect(t)
	offline := filepath.Join(filepath.Dir(h.dir), "offline")
	own := s.own()
	publish := func(text string) {
		t.Helper()
		pack := filepath.Join(folder(t), "pack", "milkgate")
		if err := os.MkdirAll(pack, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string]string{"parser.yaml": text, "README.md": "# Milk Gate\n"} {
			if err := os.WriteFile(filepath.Join(pack, name), []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before, err := s.handedOut(own)
		if err != nil {
			t.Fatal(err)
		}
		h.admin(t, "pack", "publish", "parsers", filepath.Dir(pack), "--offline", offline)
		eventually(t, time.Minute, "the pack is handed out with its proof", func() error {
			got, err := s.handedOut(own)
			if err == nil && got[directive.Parsers] <= before[directive.Parsers] {
				err = fmt.Errorf("only %v", got)
			}
			return err
		})
	}
	var d devices
	again := func() { // a collector that starts asks for packs at once; one that runs does every half a minute
		t.Helper()
		c.stop()
		c = s.collect(t)
		d.set(c.addr, nil)
	}
	// alert waits for the one alert of a family about something, and says how long that took.
	alert := func(family, about string, within time.Duration) {
		t.Helper()
		began := time.Now()
		eventually(t, within+time.Minute, "an alert of "+family+" about "+about, func() error {
			var seen []string
			n := 0
			for _, a := range h.status(t).Alerts {
				if strings.HasPrefix(a.Family, "health-") {
					seen = append(seen, a.Family+" "+a.Entity)
				}
				if a.Family == family && strings.Contains(a.Entity, about) {
					n++
				}
			}
			if n != 1 {
				return fmt.Errorf("%d; there are %q", n, seen)
			}
			return nil
		})
		t.Logf("%s about %s: %v after it began; stated %v", family, about, time.Since(began).Round(100*time.Millisecond), within)
	}
	shut := func(n int) string {
		return fmt.Sprintf("<134>%s dairy milkgate: gate shut from 203.0.113.%d:%d to 198.51.100.7:%d/tcp", time.Now().UTC().Format(time.Stamp), n%250+1, 1024+n%60000, 1+n%1000)
	}
	publish(milkGate)
	again()
	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	defer sending.Wait()
	defer stop()
	d.set("", func(n int) string { return deny(n, time.Now()) + "\n" + shut(n) })
	sending.Go(func() { d.run(ctx) })
	list := func(more ...string) string {
		return must(t, "", "tocsin", append([]string{"rules", "health", "--config", h.config, "--member", s.name}, more...)...)
	}
	eventually(t, 2*time.Minute, "two sources that are known", func() error {
		var known []struct {
			Dataset string  `json:"dataset"`
			Events  int     `json:"events"`
			Mapped  float64 `json:"mapped"`
		}
		out := list("--json")
		if err := json.Unmarshal([]byte(out), &known); err != nil {
			return err
		}
		// A thousand events are five seconds of sending, so more than two windows were learnt from.
		if len(known) != 2 || known[0].Dataset != "dairy.gate" || known[1].Dataset != "fortinet.fortigate" || known[0].Events < 1000 || known[1].Events < 1000 || known[0].Mapped != 1 || known[1].Mapped != 1 {
			return fmt.Errorf("%+v", known)
		}
		return nil
	})
	for _, a := range h.status(t).Alerts {
		if a.Family == "health-fields" || a.Family == "health-lines" || a.Family == "health-detector" { // silence may be true on a busy machine
			t.Errorf("before anything is wrong: %+v", a)
		}
	}

	// An update of the firewall: its lines no longer say the port.
	d.set("", func(n int) string {
		return strings.Replace(deny(n, time.Now()), " dstport=443", "", 1) + "\n" + shut(n)
	})
	alert("health-fields", "fortinet.fortigate", 3*time.Second)
	// A mapping that is broken on purpose: the pack's next version forgets the port.
	publish(brokenGate)
	again()
	alert("health-fields", "dairy.gate", 3*time.Second)
	if out := list("-v"); strings.Count(out, "fields came before and come no more: destination.port") != 2 || !strings.Contains(out, "cannot: Port scan from one source: these fields came and come no more: destination.port") {
		t.Errorf("the command line says: %s", out)
	}
	// The firewall is silent, and the other device says things that nobody understands.
	d.set("", func(n int) string { return shut(n) + strings.Repeat(fmt.Sprintf("\n<134>zzz %d ???", n), 3) })
	alert("health-lines", s.id, 2*time.Second)
	alert("health-silent", "fortinet.fortigate", quiet+2*time.Second)
	analyst := h.signIn(t, "analyst@example.org", "analyst")
	eventually(t, time.Minute, "both on the centre's page", func() error {
		page := words(analyst.get("/detection"))
		for _, want := range []string{"2 sources cannot be seen as before", "Fortinet FortiGate", ">silent<", "no longer have destination.port"} {
			if !strings.Contains(page, want) {
				return fmt.Errorf("it lacks %q: %s", want, page)
			}
		}
		return nil
	})
	// The collector is away.
	stop()
	c.stop()
	alert("health-collector", s.id, away+2*time.Second)
	// A rule with a fault.
	local := filepath.Join(h.dir, "rules", "local")
	if err := os.MkdirAll(local, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(local, "bad.yml"), []byte("title: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	alert("health-detector", "detector", 8*time.Second)
}
