package app

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/chart"
	"tocsin/internal/enrich"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/gate"
	"tocsin/internal/intel"
	"tocsin/internal/member"
	"tocsin/internal/notify"
	"tocsin/internal/outbox"
	"tocsin/internal/report"
	"tocsin/internal/worker"
)

// rows is the event store as the worker asks for it.
type rows struct{ s *eventstore.Store }

func (r rows) NewBlock() worker.Block { return eventstore.NewBlock() }

func (r rows) Insert(ctx context.Context, token string, b worker.Block, redo bool) error {
	block, ok := b.(*eventstore.Block)
	if !ok {
		return fmt.Errorf("rows are a %T, not a block of the event store", b)
	}
	if redo {
		return r.s.Redo(ctx, token, block)
	}
	return r.s.Insert(ctx, token, block)
}

// knowledge is what the hub adds to each event: place and network, and whether it touches an indicator.
type knowledge struct {
	places *enrich.Enricher
	intel  *sightings
}

// Version names the place data. Indicators are not in it: which were in force is told by the set's version in the manifest.
func (k knowledge) Version() string { return k.places.Version() }

func (k knowledge) Enrich(e *event.Event) {
	k.places.Enrich(e)
	k.intel.see(e)
}

// sightings counts hits of indicators in memory and hands them on now and then: they are figures for people, so a crash may lose the last
// seconds of them.
type sightings struct {
	intel *intel.Store
	mu    sync.Mutex
	hits  map[intel.Hit]intel.Count // guarded by mu
}

func newSightings(s *intel.Store) *sightings {
	return &sightings{intel: s, hits: map[intel.Hit]intel.Count{}}
}

func (s *sightings) see(e *event.Event) {
	if !s.intel.Match(e) {
		return
	}
	hash, err := strconv.ParseUint(e.Str(event.TocsinIndicatorID), 16, 64)
	if err != nil {
		return // a collector wrote something else there; it is only not counted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := intel.Hit{Kind: strings.Clone(e.Str(event.TocsinIndicatorKind)), Hash: hash}
	if _, known := s.hits[h]; !known && len(s.hits) >= 10_000 {
		return
	}
	c := s.hits[h]
	c.N++
	c.Last = max(c.Last, e.Created)
	s.hits[h] = c
}

func (s *sightings) flush(ctx context.Context) error {
	s.mu.Lock()
	hits := s.hits
	s.hits = map[intel.Hit]intel.Count{}
	s.mu.Unlock()
	return s.intel.Seen(ctx, hits)
}

// accounts is the members' records with what the workers stored filled in, so that each collector's sum goes from device to store.
type accounts struct {
	*member.Store
	plans *worker.Plans
}

func (a accounts) Collectors(ctx context.Context, scope access.Scope) ([]member.Collector, error) {
	list, err := a.Store.Collectors(ctx, scope)
	if err != nil {
		return nil, err
	}
	return list, a.fill(ctx, list)
}

func (a accounts) Collector(ctx context.Context, scope access.Scope, id string) (member.Collector, error) {
	c, err := a.Store.Collector(ctx, scope, id)
	if err != nil {
		return c, err
	}
	one := []member.Collector{c}
	err = a.fill(ctx, one)
	return one[0], err
}

func (a accounts) fill(ctx context.Context, list []member.Collector) error {
	stored, err := a.plans.StoredByCollector(ctx)
	if err != nil {
		return err
	}
	by := make(map[string]worker.Stored, len(stored))
	for _, s := range stored {
		by[s.Collector] = s
	}
	for i := range list {
		s, b := by[list[i].ID], &list[i].Balance
		b.Stored, b.Refused = s.Events, s.Dead
		b.InFlight = int64(b.Accepted) - int64(b.Stored) - int64(b.Refused)
	}
	return nil
}

// checkpoint is the ledger's newest, which every receipt carries beside it.
func (h *hub) checkpoint() string {
	cp, err := h.ledger.Load().Latest(context.Background())
	if err != nil {
		h.log.Warn("reading the newest checkpoint", "err", err)
		return ""
	}
	return string(cp)
}

// far is how many messages behind counts as full pressure on collectors.
const far = 20_000

// pressure tells collectors to come less often when the worker is behind: 0 at once, 1 far behind.
func (h *hub) pressure() float64 { return math.Float64frombits(h.behind.Load()) }

// watchLag keeps pressure true: asking the bus is too dear to do for each batch.
func (h *hub) watchLag(ctx context.Context) error {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			pressure := 1.0
			if lag, err := h.workerLag(ctx); err == nil {
				pressure = min(1, float64(lag)/far)
			}
			h.behind.Store(math.Float64bits(pressure))
		}
	}
}

// workerLag is how many batches on the bus the worker has not done. It acknowledges them only when a snapshot of the detector covers them, so
// what is not acknowledged would always be half a minute's worth.
func (h *hub) workerLag(ctx context.Context) (uint64, error) {
	lag, err := h.bus.Lag(ctx, workerFollower)
	if err != nil || lag == 0 {
		return lag, err
	}
	last, err := h.bus.LastSeq(ctx)
	if err != nil {
		return 0, err
	}
	if done := h.worker.Load().Position(); done > 0 && done <= last { // 0: since its start it has only rebuilt what it knew
		lag = min(lag, last-done)
	}
	return lag, nil
}

// incident raises an alert of two pasts of one collector: a copy of its disk, or somebody with its keys.
func (h *hub) incident(ctx context.Context, i gate.Incident) {
	at := i.At.UnixNano()
	title := "Two collectors use the same identity"
	if i.Kind == "fork" {
		title = "A collector sent two different batches under one number"
	}
	d := event.Detection{
		Tenant: i.Tenant, RuleID: "tocsin-collector-" + i.Kind, RuleTitle: title, Family: "collector-integrity", Level: "high",
		Entity: event.Entity{Kind: "host", Value: i.Name + " (" + i.Collector + ")"}, First: at, Last: at, Count: 1, Reason: i.Detail,
		Key: fmt.Sprintf("incident/%s/%s/%s/%s/%d", i.Kind, i.Collector, i.Lane, i.Epoch, i.Seq),
	}
	if _, err := h.alerts.Apply(ctx, d.Key, []event.Detection{d}); err != nil {
		h.log.ErrorContext(ctx, "raising an alert of a collector's "+i.Kind, "collector", i.Collector, "err", err)
	}
}

// openChannels connects the outbox to mail and webhook as the settings say.
func (h *hub) openChannels() error {
	location, err := time.LoadLocation("Europe/London")
	if err != nil {
		location = time.UTC
	}
	if h.cfg.Mail.Host != "" {
		password, err := secret(h.cfg.Mail.Password, h.cfg.Mail.PasswordFile)
		if err != nil {
			return fmt.Errorf("mail.password_file: %w", err)
		}
		mailer, err := notify.NewMailer(notify.MailOptions{
			Host: h.cfg.Mail.Host, Port: h.cfg.Mail.Port, From: h.cfg.Mail.From, TLS: h.cfg.Mail.TLS, User: h.cfg.Mail.User, Password: string(password),
			Scheme: h.cfg.Scheme, Location: location,
		})
		if err != nil {
			return err
		}
		h.box.Handle(notify.KindMail, outbox.Kind{Handler: mailer.Run, Parallel: 4})
		h.box.Handle(notify.KindDigest, outbox.Kind{Handler: h.budget.Digest(mailer, h.cfg.Web.PublicURL)})
		h.box.Handle(report.Kind, outbox.Kind{Handler: report.Handler(mailer), Timeout: time.Minute})
	}
	if h.cfg.Alerts.Webhook != "" {
		key, err := secret(h.cfg.Alerts.WebhookSecret, h.cfg.Alerts.WebhookSecretFile)
		if err != nil {
			return fmt.Errorf("alerts.webhook_secret_file: %w", err)
		}
		hook, err := notify.NewHook(key, nil)
		if err != nil {
			return err
		}
		h.box.Handle(notify.KindWebhook, outbox.Kind{Handler: hook.Run, Parallel: 8})
	}
	return nil
}

// entries makes of a notice one outbox entry for each address, so that one that fails holds up no other. They are recorded in the
// transaction of the alert's change.
func (h *hub) entries(n alert.Notice) ([]outbox.Entry, error) {
	least, err := alert.ParseSeverity(h.cfg.Alerts.MinLevel)
	if err != nil {
		return nil, err
	}
	if n.Alert.Severity < least {
		return nil, nil
	}
	m := message(n, h.cfg.Web.PublicURL)
	m.Country, m.CountryName = h.country(n.Alert.Source)
	var out []outbox.Entry
	for i, to := range h.cfg.Alerts.MailTo {
		if slices.Contains(h.cfg.Alerts.MailTo[:i], to) {
			continue
		}
		e, err := notify.Mail(m, to)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	if url := h.cfg.Alerts.Webhook; url != "" {
		e, err := notify.Webhook(m, url)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// country says where a source's address is registered: as a code and by name, both "" when it is not known.
func (h *hub) country(source string) (code, name string) {
	ip, err := netip.ParseAddr(source)
	if err != nil || h.places == nil || ip.IsPrivate() { // where an inside computer stands, its people know
		return "", ""
	}
	if code = h.places.Lookup(ip).Country; code == "" {
		return "", ""
	}
	return code, chart.Country(code)
}

// message is a notice in the words that leave the hub.
func message(n alert.Notice, publicURL string) notify.Message {
	a := n.Alert
	title := a.Details.Text.Title
	if title == "" {
		title = a.Title
	}
	organisation := a.Organisation
	if a.Tenant == access.Centre {
		organisation = "several members"
	}
	var do []string
	for line := range strings.Lines(a.Details.Text.Do) {
		if line = strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(line), "-*•0123456789. ")); line != "" {
			do = append(do, line)
		}
	}
	return notify.Message{
		Alert: a.ID, Number: a.Ref, Update: max(0, n.N-1), Tenant: a.Tenant, Organisation: organisation, Title: title, Level: a.Severity.String(), Family: a.Family,
		Techniques: slices.Clone(a.Details.Techniques), Reason: a.Details.Reason, What: a.Details.Text.What, Do: do, Entity: a.Entity, EntityKind: a.EntityKind,
		Source: a.Source, Count: a.Count, First: time.Unix(0, a.FirstNS), Last: time.Unix(0, a.LastNS), URL: publicURL + "/alerts/" + a.Ref,
	}
}

// secret reads a secret from its file, or takes the one in the settings.
func secret(text, file string) ([]byte, error) {
	if file == "" {
		return []byte(text), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if b = []byte(strings.TrimSpace(string(b))); len(b) == 0 {
		return nil, errors.New("the file is empty")
	}
	return b, nil
}
