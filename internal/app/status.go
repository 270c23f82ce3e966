package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/app/status"
	"tocsin/internal/event"
	"tocsin/internal/ledger"
	"tocsin/internal/web"
	"tocsin/internal/worker"
)

// maxAlerts bounds the alerts of one status answer, the newest first.
const maxAlerts = 2000

// status adds up what the hub knows of every line.
func (h *hub) status(ctx context.Context) (status.Status, error) {
	var out status.Status
	scope := access.System("status")
	records := accounts{h.office.Members, h.plans}
	orgs, err := records.Organisations(ctx, scope)
	if err != nil {
		return out, err
	}
	collectors, err := records.Collectors(ctx, scope)
	if err != nil {
		return out, err
	}
	by := map[event.TenantID][]status.Collector{}
	for _, c := range collectors {
		b := c.Balance
		by[c.Tenant] = append(by[c.Tenant], status.Collector{
			ID: c.ID, Name: c.Name, State: c.State, Received: b.Received, Parsed: b.Parsed, NotUnderstood: b.NotUnderstood, Kept: b.Kept, Left: b.Left, Made: b.Made, Dropped: b.Dropped,
			Sent: b.Sent, Acknowledged: b.Accepted, Stored: b.Stored, Dead: b.Refused, Batches: b.Batches, LastSeen: c.LastSeenNS,
		})
	}
	for _, o := range orgs {
		out.Members = append(out.Members, status.Member{Tenant: uint32(o.ID), Name: o.Name, Collectors: by[o.ID]})
	}
	if out.Alerts, err = h.alertList(ctx, scope); err != nil {
		return out, err
	}
	if out.Stages, err = h.stages(ctx); err != nil {
		return out, err
	}
	w := h.worker.Load().Stats()
	out.Latency = map[string]status.Quantiles{"receipt_to_alert_ms": quantiles(w.ReceiptToAlert), "receipt_to_stored_ms": quantiles(w.ReceiptToStored), "gate_to_alert_ms": quantiles(w.GateToAlert)}
	return out, nil
}

func (h *hub) alertList(ctx context.Context, scope access.Scope) ([]status.Alert, error) {
	var out []status.Alert
	f := alert.Filter{View: alert.ViewAll, Order: alert.ByRecent, Limit: 200}
	for {
		page, err := h.alerts.Queue(ctx, scope, f)
		if err != nil {
			return nil, err
		}
		for _, a := range page.Alerts {
			rule := ""
			if len(a.Details.Rules) > 0 {
				rule = a.Details.Rules[0].ID
			}
			out = append(out, status.Alert{
				ID: a.Num, Tenant: uint32(a.Tenant), Family: a.Family, Rule: rule, Title: a.Title, Level: a.Severity.String(), EntityKind: a.EntityKind, Entity: a.Entity,
				Count: a.Count, First: a.FirstNS, Raised: a.CreatedNS, Late: a.Late,
			})
		}
		if f.After = page.Next; f.After == "" || len(out) >= maxAlerts {
			return out, nil
		}
	}
}

func quantiles(q worker.Quantiles) status.Quantiles {
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	return status.Quantiles{P50: ms(q.P50), P95: ms(q.P95), P99: ms(q.P99), N: q.Count}
}

// stages counts in, out, failed and lag of each stage since the hub started.
func (h *hub) stages(ctx context.Context) (map[string]status.Stage, error) {
	g, w := h.gate.Stats(), h.worker.Load().Stats()
	l, err := h.ledger.Load().Stats(ctx)
	if err != nil {
		return nil, err
	}
	lag, err := h.workerLag(ctx)
	if err != nil {
		return nil, err
	}
	box, err := h.box.Stats(ctx)
	if err != nil {
		return nil, err
	}
	s, e, a := h.store.Stats(), h.detector.Load().Stats(), h.alerts.Stats()
	return map[string]status.Stage{
		"gate":   {In: g.In, Out: g.Out + g.Repeats, Failed: g.Refused},
		"ledger": {In: l.Added + l.Repeated, Out: l.Added, Failed: reason("failed", l.Failed), Lag: l.Lag},
		"worker": {In: w.Batches, Out: w.Batches - w.Aside, Failed: reason("dead", w.Dead), Lag: lag},
		"detect": {In: e.Events, Out: e.Detections, Failed: reasons(reason("evicted", e.Evicted), reason("coarse", e.Coarse))},
		"store":  {In: w.Events, Out: s.Rows, Failed: reason("failed_queries", s.Failed)},
		"alert":  {In: a.Detections, Out: a.Opened + a.Updated, Failed: reason("failed", a.Failed)},
		"outbox": {In: uint64(box.Waiting + box.Running + box.Done + box.Dead), Out: uint64(box.Done), Failed: reason("dead", uint64(box.Dead)), Lag: uint64(box.Waiting)},
	}, nil
}

// restarted says how often a part has been started again, when it has.
func restarted(n uint64) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "; restarted once since the hub started"
	}
	return fmt.Sprintf("; restarted %d times since the hub started", n)
}

func reason(name string, n uint64) map[string]uint64 {
	if n == 0 {
		return nil
	}
	return map[string]uint64{name: n}
}

// reasons puts several together.
func reasons(list ...map[string]uint64) map[string]uint64 {
	var out map[string]uint64
	for _, m := range list {
		if out == nil {
			out = m
		} else {
			maps.Copy(out, m)
		}
	}
	return out
}

// reserve is how much of the disk must be free: below it, blobs and bus refuse what is new.
const reserve = 1 << 30

// vital is what must work for the hub to do its work: what /healthz answers.
func (h *hub) vital(ctx context.Context) []web.Check {
	var out []web.Check
	check := func(name, good string, err error, next string) {
		c := web.Check{Name: name, OK: err == nil, Text: good}
		if err != nil {
			c.Text, c.Next = err.Error(), next
		}
		out = append(out, c)
	}
	_, err := h.office.DB.Version(ctx)
	check("Database", "answers", err, "See whether the disk is full and the folder belongs to the hub's user.")
	check("Event store", "answers"+restarted(h.engine.Restarts()), h.store.Ping(ctx), "It is started again by itself. If this stays, look at the log for why it ends; often it needs more engine.memory.")
	lag, err := h.workerLag(ctx)
	check("Bus", fmt.Sprintf("answers; %d batches wait for the worker", lag), err, "Restart the hub; what is on the bus is on the disk.")
	w := h.worker.Load().Stats()
	err = nil
	if !w.Running {
		err = errors.New("it stopped with an error and waits to be started again; nothing is stored or alerted meanwhile, and nothing is lost")
	}
	check("Worker", "runs"+restarted(w.Restarts), err, "It is started again by itself. If this stays, look at the log for why it stops.")
	l := h.ledger.Load()
	cp, err := l.Latest(ctx)
	good := "no checkpoint has been signed yet"
	if len(cp) > 0 {
		good = "its newest checkpoint is signed"
	}
	entries, serr := l.Stats(ctx)
	if err = errors.Join(err, serr); err == nil && !entries.Running {
		err = errors.New("it stopped with an error and waits to be started again; batches are taken and stored meanwhile, and are entered when it runs again")
	}
	check("Ledger", good+restarted(entries.Restarts), err,
		"It is started again by itself. If this stays, look at the log for why it stops; a damaged folder is put back from its newest copy.")
	var fs syscall.Statfs_t
	err = syscall.Statfs(h.cfg.DataDir, &fs)
	free := fs.Bavail * uint64(fs.Bsize)
	if err == nil && free < 2*reserve {
		err = fmt.Errorf("only %d MiB are free", free>>20)
	}
	check("Disk", fmt.Sprintf("%d GiB are free", free>>30), err, "Make room: below 1 GiB nothing new is taken in, and collectors keep it.")
	return out
}

// health is what the operator's page shows: the vital parts, and what works only in part.
func (h *hub) health(ctx context.Context) web.Health {
	out := web.Health{Version: h.o.Version}
	out.Checks = h.vital(ctx)
	check := func(name, good string, err error, next string) {
		c := web.Check{Name: name, OK: err == nil, Text: good}
		if err != nil {
			c.Text, c.Next = err.Error(), next
		}
		out.Checks = append(out.Checks, c)
	}
	for _, s := range h.places.Sources() {
		if s.Missing {
			check("Places: "+s.Role, "", fmt.Errorf("the data are missing"), s.Next)
		}
	}
	check("Rules", fmt.Sprintf("%d run here", h.detector.Load().Stats().Rules), h.rules.trouble(), "Mend or remove the file; it is read again by itself. `tocsin admin doctor` names every fault.")
	good, next, err := h.baselineHealth()
	check("Baselines", good, err, next)
	good, next, err = h.sourcesHealth()
	check("Sources", good, err, next)
	letters, events, err := h.plans.Aside(ctx)
	if err == nil && letters > 0 {
		err = fmt.Errorf("%d events could not be processed and lie aside, in %d letters", events, letters)
	}
	check("Put aside", "nothing: all that came could be processed", err, "Run `tocsin admin dead-letters list`: it names the reasons. When they are mended, `tocsin admin dead-letters retry --all` has them tried again.")
	if box, err := h.box.Stats(ctx); err != nil || box.Dead > 0 {
		if err == nil {
			err = fmt.Errorf("%d notices could not be delivered", box.Dead)
		}
		check("Outbox", "", err, "Run `tocsin admin outbox list`: it names the errors. Mend mail.* or alerts.webhook in the settings, or the receiver, then run `tocsin admin outbox retry --all`.")
	} else {
		check("Outbox", fmt.Sprintf("%d waiting", box.Waiting), nil, "")
	}
	if stages, err := h.stages(ctx); err == nil {
		for _, name := range []string{"gate", ledger.Follower, "worker", "detect", "store", "alert", "outbox"} {
			s := stages[name]
			var failed uint64
			for _, n := range s.Failed {
				failed += n
			}
			out.Stages = append(out.Stages, web.Stage{Name: name, In: int64(s.In), Out: int64(s.Out), Failed: int64(failed), Lag: fmt.Sprintf("%d", s.Lag)})
		}
	}
	w := h.worker.Load().Stats()
	for _, l := range []struct {
		name string
		q    worker.Quantiles
	}{{"Collector's receipt to alert", w.ReceiptToAlert}, {"Gate's receipt to alert", w.GateToAlert}, {"Collector's receipt to stored", w.ReceiptToStored}} {
		out.Latencies = append(out.Latencies, web.Latency{Name: l.name, P50: l.q.P50, P95: l.q.P95, P99: l.q.P99, N: int64(l.q.Count)})
	}
	return out
}
