package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tocsin/internal/app/status"
	"tocsin/internal/keys"
	"tocsin/internal/load/local"
)

// enrolCollector does what a member's IT lead does.
func (r *run) enrolCollector(ctx context.Context, s *site, token keys.Token) error {
	cmd := exec.CommandContext(ctx, r.o.Collector, "enrol", "--dir", s.dir, "--json")
	cmd.Stdin = strings.NewReader(token.String()) // where no list of processes shows it
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("tocsin-collector enrol: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// collectors starts a real collector for each member and sends it raw lines over TCP.
func (r *run) collectors(ctx, life context.Context, began time.Time) error {
	children := make([]*local.Child, len(r.fleet))
	ports := make([]int, len(r.fleet))
	defer func() {
		var wg sync.WaitGroup
		for _, c := range children {
			if c != nil {
				wg.Go(c.Stop)
			}
		}
		wg.Wait()
	}()
	for i, s := range r.fleet {
		var err error
		if ports[i], err = local.FreePort(); err != nil {
			return err
		}
		config := fmt.Sprintf("# Written by tocsin load.\ndir: %q\nlisten: {syslog: [{tcp: \"127.0.0.1:%d\", timezone: UTC}]}\nown_ranges: [240.0.0.0/8]\n", s.dir, ports[i])
		path := filepath.Join(s.dir, "collector.yaml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			return err
		}
		children[i] = &local.Child{What: fmt.Sprintf("collector %d", i), Command: []string{r.o.Collector, "run", "--config", path}, Log: filepath.Join(s.dir, "log"), Drain: hubStop, Say: func(s string) { r.say("%s", s) }}
		children[i].Start(life)
	}
	conns := make([]net.Conn, len(r.fleet))
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close() // all was written, or the run has failed
			}
		}
	}()
	for i := range r.fleet {
		err := r.await(ctx, hubStart, children[i].What, func(ctx context.Context) error {
			if err := children[i].Err(); err != nil {
				return err
			}
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])))
			conns[i] = c
			if err != nil {
				conns[i] = nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%w\n%s", err, children[i].Tail())
		}
	}
	for i := range r.fleet {
		r.res.Incidents += len(incidents(&r.o, i))
	}
	then, err := r.usage(ctx, nil)
	if err != nil {
		return err
	}
	cpu := r.collectorCPU(children)
	r.res.PrepareS = time.Since(began).Seconds()
	r.say("Sending for %s.", r.o.Duration)
	begin := time.Now()
	var lines, bytes atomic.Uint64
	g, gctx := errgroup.WithContext(ctx)
	for i := range r.fleet {
		g.Go(func() error { return r.feed(gctx, i, conns[i], begin, &lines, &bytes) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r.res.Seconds, r.res.Lines, r.res.Bytes = time.Since(begin).Seconds(), lines.Load(), bytes.Load()
	r.res.Achieved = float64(r.res.Lines) / r.res.Seconds
	r.say("Sent; waiting until all is stored.")
	err = r.settle(ctx, func(sum status.Collector) error {
		switch {
		case sum.Received < r.res.Lines:
			return fmt.Errorf("the collectors have reported %d of %d lines", sum.Received, r.res.Lines)
		case total(sum.Left)+total(sum.Made) > sum.Sent+total(sum.Dropped):
			return fmt.Errorf("%d events wait on the sites", total(sum.Left)+total(sum.Made)-sum.Sent-total(sum.Dropped))
		case sum.Stored+sum.Dead < sum.Acknowledged:
			return fmt.Errorf("%d of %d events are stored", sum.Stored, sum.Acknowledged)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r.res.Received != r.res.Lines {
		r.res.Gaps = append(r.res.Gaps, fmt.Sprintf("%d lines were sent, the collectors reported %d", r.res.Lines, r.res.Received))
		r.res.Balanced = false
	}
	if _, err = r.usage(ctx, then); err != nil {
		return err
	}
	r.res.CPU["tocsin-collector (all)"] = r.collectorCPU(children) - cpu
	r.cost(r.res.Lines)
	return nil
}

func (r *run) collectorCPU(children []*local.Child) (sum float64) {
	for _, c := range children {
		p, err := readProcess(c.PID())
		if err != nil {
			continue // being started again; its time is lost to the sum, the restart is said
		}
		sum += p.cpu
		r.res.RSS["tocsin-collector (largest)"] = max(r.res.RSS["tocsin-collector (largest)"], p.rss)
	}
	return sum
}

// feed writes one member's lines at its rate, in spurts of at most 20 ms.
func (r *run) feed(ctx context.Context, i int, c net.Conn, begin time.Time, lines, bytes *atomic.Uint64) error {
	g := newGenerator(r.o.Seed, i, true)
	rate := r.o.Rate / float64(r.o.Members)
	all := uint64(rate * r.o.Duration.Seconds())
	spurt := max(time.Duration(float64(time.Second)/rate), 20*time.Millisecond)
	urgent := incidents(&r.o, i)
	tick := time.NewTicker(spurt)
	defer tick.Stop()
	var buf []byte
	var sent uint64
	next := 0
	for sent < all || next < len(urgent) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := time.Now()
		want := min(all, uint64(rate*now.Sub(begin).Seconds()))
		buf = buf[:0]
		n := uint64(0)
		for ; next < len(urgent) && now.Sub(begin) >= urgent[next]; next++ {
			buf = append(g.incident(buf, now, next), '\n')
			n++
		}
		for ; sent < want; sent++ {
			buf = append(g.next(buf, now), '\n')
			n++
		}
		if n == 0 {
			continue
		}
		if _, err := c.Write(buf); err != nil {
			return errors.Join(fmt.Errorf("collector %d does not take its lines", i), err)
		}
		lines.Add(n)
		bytes.Add(uint64(len(buf)))
	}
	return nil
}
