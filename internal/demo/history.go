package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tocsin/internal/access"
	"tocsin/internal/alert"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/enrich"
	"tocsin/internal/event"
	"tocsin/internal/eventstore"
	"tocsin/internal/indicator"
	"tocsin/internal/load/sample"
	organisations "tocsin/internal/member" // member is one of the cast here
	"tocsin/internal/people"
	"tocsin/rules"
)

// invented marks everything of a past that never was: it is a tag of each event and the collector it names, a tag of each alert and the end of
// its title. Members whose figures are invented for a span are noted too (member.Store.MarkInvented).
const invented = "invented"

// MaxHistory bounds the invented past, in days.
const MaxHistory = 400

// span is one stretch of the past, half open, in UTC nanoseconds. It is written down before its first row: the same days are
// made again after a crash, and a day's insert token must always name the same rows.
type span struct {
	From int64  `json:"from,string"`
	To   int64  `json:"to,string"`
	Seed uint64 `json:"seed"`
	Done bool   `json:"done"`
}

// planHistory adds what is missing of a past of so many days, today included: as long as the pages' longest period, and nothing of the one
// before it, which they compare with. The past ends where the first demo with one began; a longer one
// that is asked for later is put before it.
func planHistory(have []span, days int, seed uint64, now time.Time) []span {
	midnight := now.UTC().Truncate(day)
	from, to := midnight.Add(-time.Duration(days-1)*day).UnixNano(), now.Truncate(time.Minute).UnixNano()
	for _, s := range have {
		to = min(to, s.From)
	}
	if from >= to {
		return have
	}
	return append(have, span{From: from, To: to, Seed: seed})
}

// archive is where an invented past is written, and for whom.
type archive struct {
	Events  *eventstore.Store
	DB      *db.DB
	Overlay string            // the table that places the addresses
	Tenants [3]event.TenantID // of the cast, in its order
}

// history gives the members the past that was asked for.
func (d *demo) history(ctx context.Context) error {
	if d.opt.History > 0 {
		d.state.History = planHistory(d.state.History, d.opt.History, d.opt.Seed, time.Now())
		if err := d.state.save(); err != nil {
			return err
		}
	}
	for i := range d.state.History {
		s := &d.state.History[i]
		if s.Done {
			continue
		}
		d.say("Inventing the past from %s on; all of it is marked as invented.", time.Unix(0, s.From).UTC().Format("2 January 2006"))
		begun := time.Now()
		hub := filepath.Join(d.opt.Dir, "hub")
		records, err := db.Open(ctx, db.Options{Path: filepath.Join(hub, "db", "tocsin.db")})
		if err != nil {
			return err
		}
		events, err := eventstore.Open(ctx, eventstore.Options{Address: "unix:" + filepath.Join(hub, "run", "engine.sock")})
		if err != nil {
			return errors.Join(err, records.Close())
		}
		p := archive{Events: events, DB: records, Overlay: filepath.Join(d.opt.Dir, "overlay.csv")}
		for i, m := range d.members {
			p.Tenants[i] = event.TenantID(m.tenant)
		}
		n, err := p.write(ctx, *s)
		events.Close()
		if err := errors.Join(err, records.Close()); err != nil {
			return fmt.Errorf("invent the past: %w", err)
		}
		s.Done = true
		if err := d.state.save(); err != nil {
			return err
		}
		d.say("%s events and %s of the past are there, after %s.", number(uint64(n.events)), plural(n.alerts, "alert"), seconds(time.Since(begun)))
	}
	return nil
}

type written struct{ events, alerts int }

// scribe writes one span.
type scribe struct {
	archive
	span
	sites  [3]site
	hub    *detect.Engine
	places *enrich.Enricher
	alerts *alert.Store
	clock  int64 // what the alerts take for now
	by     []access.Principal
	member [3]access.Principal
	block  *eventstore.Block // being filled
	spare  *eventstore.Block // the other one
	days   int               // in block
	blocks int               // handed to the store
	stored chan error        // holds the outcome of the last one's insert
	e, out event.Event
	raw    []byte
	index  [3]uint32
	found  []finding // detections of the day
	n      written
}

// site is what stands on a member's site.
type site struct {
	set    *parse.Set
	min    *minimise.Minimiser
	engine *detect.Engine
	stream event.StreamID
}

type finding struct {
	at int64
	d  event.Detection
}

// write makes the lines of each day and takes them the way that real ones go: parsed, judged by the policy and the on-site rules, placed,
// judged by the hub's rules, stored, alerted. Only sockets, batches and ledger are left out, so nothing here is counted as a collector's.
func (p archive) write(ctx context.Context, s span) (written, error) {
	w := &scribe{archive: p, span: s, block: eventstore.NewBlock(), spare: eventstore.NewBlock(), stored: make(chan error, 1)}
	w.stored <- nil
	if err := w.open(ctx); err != nil {
		return written{}, err
	}
	scope := access.System("demo")
	members := organisations.New(p.DB, organisations.Options{})
	for _, t := range p.Tenants { // first: no invented figure may be there without its mark
		if err := members.MarkInvented(ctx, scope, "demo", t, s.From, s.To); err != nil {
			return written{}, err
		}
	}
	lines := &past{seed: s.Seed}
	defer func() { w.stored <- <-w.stored }() // nothing is left running
	for at := time.Unix(0, s.From).UTC().Truncate(day); at.UnixNano() < s.To; at = at.Add(day) {
		if err := w.day(ctx, at, lines.lines(at)); err != nil {
			return w.n, fmt.Errorf("the day %s: %w", at.Format(time.DateOnly), err)
		}
	}
	if err := w.insert(ctx); err != nil {
		return w.n, err
	}
	err := <-w.stored
	w.stored <- nil
	if err != nil {
		return w.n, err
	}
	if err := w.leftOver(ctx, scope); err != nil {
		return w.n, err
	}
	return w.n, w.check(ctx, scope)
}

// leftOver closes what an earlier attempt raised and, cut short, left open.
func (w *scribe) leftOver(ctx context.Context, scope access.Scope) error {
	rng := rand.New(rand.NewPCG(w.Seed, uint64(w.From)))
	f := alert.Filter{View: alert.ViewOpen, Order: alert.ByRecent, Limit: 200}
	for {
		page, err := w.alerts.Queue(ctx, scope, f)
		if err != nil {
			return err
		}
		for i := range page.Alerts {
			if a := &page.Alerts[i]; slices.Contains(a.Details.Tags, invented) {
				if err := w.work(ctx, a, rng); err != nil {
					return err
				}
			}
		}
		if f.After = page.Next; f.After == "" {
			return nil
		}
	}
}

// insert hands the block over and goes on with the other one. The token names the block by its place in the span, and what it holds
// depends on the span alone, so a span that is begun again after a crash stores nothing twice.
func (w *scribe) insert(ctx context.Context) error {
	if err := <-w.stored; err != nil {
		w.stored <- nil
		return err
	}
	b := w.block
	token := fmt.Sprintf("demo/%s/%d/%d-%d-%d/%d-%d/%d", invented, w.Seed, w.Tenants[0], w.Tenants[1], w.Tenants[2], w.From, w.To, w.blocks)
	w.blocks++
	w.n.events += b.Len()
	go func() { w.stored <- w.Events.Insert(ctx, token, b) }()
	w.block, w.spare, w.days = w.spare, b, 0
	w.block.Reset()
	return nil
}

func (w *scribe) open(ctx context.Context) (err error) {
	if w.places, err = enrich.Open(ctx, enrich.Options{Overlay: w.Overlay}); err != nil {
		return err
	}
	catalogue, err := detect.Load(rules.FS)
	if err != nil {
		return err
	}
	if w.hub, err = detect.New(detect.Options{Catalogue: catalogue, Where: detect.Hub, Origin: invented}); err != nil {
		return err
	}
	policy, err := minimise.Load("metadata")
	if err != nil {
		return err
	}
	var entries []indicator.Entry
	for row := range strings.Lines(indicators()) {
		value, _, _ := strings.Cut(strings.TrimSpace(row), ",")
		if kind, err := indicator.Guess(value); err == nil {
			entries = append(entries, indicator.Entry{Kind: kind, Value: value})
		}
	}
	list, err := indicator.Build([16]byte{1}, entries)
	if err != nil {
		return err
	}
	set, err := indicator.Open(list)
	if err != nil {
		return err
	}
	for i, m := range cast {
		x := &w.sites[i]
		x.set = parse.New(parse.Options{Location: time.UTC})
		own := []netip.Prefix{m.public, m.inside, netip.PrefixFrom(inside6(m, rand.New(rand.NewPCG(0, 0))), 48).Masked()}
		if x.min, err = minimise.New(minimise.Options{Policy: policy, Own: own}); err != nil {
			return err
		}
		x.min.SetIndicators(set)
		withhold := func(field string) bool {
			k, ok := event.Lookup(field)
			if !ok {
				return true
			}
			leave, _ := x.min.MayLeave(k)
			return !leave
		}
		if x.engine, err = detect.New(detect.Options{Catalogue: catalogue, Where: detect.Site, Origin: invented + m.key, Withhold: withhold}); err != nil {
			return err
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "tocsin demo, invented past\x00%d\x00%d", w.Tenants[i], w.Seed))
		x.stream = event.StreamID(sum[:16])
	}
	text := func(id string) alert.Text {
		info, ok := catalogue.Info(id)
		if !ok {
			return alert.Text{}
		}
		return alert.Text{Title: mark(info.Member.Title), What: info.Member.What, Do: info.Member.Do}
	}
	// Nobody is told of what never happened: no outbox.
	w.alerts = alert.New(w.DB, alert.Options{Text: text, Now: func() time.Time { return time.Unix(0, w.clock) }})
	return w.actors(ctx)
}

func mark(title string) string { return title + " (" + invented + ")" }

// actors finds the people who have worked on the alerts. Reading names needs no key of the accounts, which the demo has no business to know.
func (w *scribe) actors(ctx context.Context) error {
	store, err := people.New(w.DB, people.Options{Key: [32]byte{1}})
	if err != nil {
		return err
	}
	list, err := store.List(ctx, access.System("demo"))
	if err != nil {
		return err
	}
	for _, p := range list {
		who := access.Principal{UserID: p.ID, Name: p.Name, Email: p.Email, Role: p.Role, Tenant: p.Tenant}
		switch {
		case p.Role == access.Analyst || p.Role == access.Operator:
			w.by = append(w.by, who)
		default:
			for i, t := range w.Tenants {
				if t == p.Tenant {
					w.member[i] = who
				}
			}
		}
	}
	if len(w.by) == 0 {
		return errors.New("there is no analyst who could have closed the alerts")
	}
	return nil
}

// day takes one day's lines all the way.
func (w *scribe) day(ctx context.Context, start time.Time, lines []pastLine) error {
	w.found, w.index = w.found[:0], [3]uint32{}
	rng := rand.New(rand.NewPCG(w.Seed, uint64(start.Unix())))
	for i := range lines {
		l := &lines[i]
		// The network and the collector take their time.
		if delay := int64(20*time.Millisecond) + rng.Int64N(int64(400*time.Millisecond)); l.at+delay < w.To {
			if err := w.line(l, l.at+delay, uint64(start.Unix()/86400)); err != nil {
				return err
			}
		}
	}
	// An insert costs by the parts it makes, in each roll-up too: many days at once cost little more than one.
	if w.days++; w.days == blockDays {
		if err := w.insert(ctx); err != nil {
			return err
		}
	}
	return w.alert(ctx, start, rng)
}

// blockDays is how many days go into one block: far from the bounds of a block, which are 100,000 rows and 64 days.
const blockDays = 15

func (w *scribe) line(l *pastLine, created int64, day uint64) error {
	x, e := &w.sites[l.member], &w.e
	dev := cast[l.member].devices[l.device]
	e.Reset()
	w.raw = sample.All().Template(l.template).Append(w.raw[:0], &l.values)
	e.SetRaw(w.raw)
	e.Created = created
	if _, ok := x.set.Parse(e, ""); !ok {
		return fmt.Errorf("the collector does not understand the line %q", w.raw)
	}
	via := "udp"
	if dev.tcp {
		via = "tcp"
	}
	x.min.Prepare(e, minimise.Sender{Addr: dev.addr, Assurance: via})
	e.ID = event.ID{Stream: x.stream, Seq: day, Index: w.index[l.member]}
	w.index[l.member]++
	verdict := x.min.Decide(e)
	dets := x.engine.Process(e, created)
	if !verdict.Leave && len(dets) == 0 {
		return nil
	}
	x.min.Mark(e, verdict)
	if !verdict.Leave {
		e.SetString(event.TocsinLeftReason, "site_detection")
	}
	x.min.Reduce(&w.out, e)
	if err := w.arrive(l.member, e.ID); err != nil {
		return err
	}
	for i := range dets {
		x.min.Detection(&w.out, &dets[i])
		w.out.Created = created
		id := event.ID{Stream: x.stream, Seq: day, Index: w.index[l.member]}
		w.index[l.member]++
		if err := w.arrive(l.member, id); err != nil {
			return err
		}
	}
	return nil
}

// arrive is what the worker does with an event, w.out.
func (w *scribe) arrive(m int, id event.ID) error {
	e := &w.out
	e.ID, e.Tenant, e.Ingested = id, w.Tenants[m], e.Created+int64(350*time.Millisecond)
	e.SetString(event.TocsinCollectorID, invented)
	e.AddString(event.Tags, invented)
	w.places.Enrich(e)
	if e.IsDetection() {
		d, err := event.ToDetection(e)
		if err != nil {
			return err
		}
		d.Key = fmt.Sprintf("%s/%d/%s", invented, e.Tenant, d.Key)
		w.found = append(w.found, finding{e.Ingested, d})
	}
	for _, d := range w.hub.Process(e, e.Ingested) {
		d.Key = invented + "/" + d.Key
		w.found = append(w.found, finding{e.Ingested, d})
	}
	// As long as a real event is kept, from today on.
	keep := eventstore.DefaultKeep + (time.Now().UnixNano()-e.Created)/int64(day) + 1
	if !w.block.Add(e, eventstore.Meta{Keep: uint16(keep)}) {
		return fmt.Errorf("%d days are more than a block of the event store holds", blockDays)
	}
	return nil
}

// alert makes alerts of the day's detections, and has people work on them.
func (w *scribe) alert(ctx context.Context, start time.Time, rng *rand.Rand) error {
	opened, order := map[int64]*alert.Alert{}, []int64{}
	for _, f := range w.found {
		f.d.RuleTitle = mark(f.d.RuleTitle)
		f.d.Reason = "Invented for the demonstration: " + f.d.Reason
		f.d.Tags = append(f.d.Tags[:len(f.d.Tags):len(f.d.Tags)], invented)
		w.clock = f.at + int64(150*time.Millisecond)
		changes, err := w.alerts.Apply(ctx, invented+"/"+start.Format(time.DateOnly), []event.Detection{f.d})
		if err != nil {
			return err
		}
		for _, c := range changes {
			if opened[c.Alert.Num] == nil {
				order = append(order, c.Alert.Num)
			}
			if c.Alert.Open {
				opened[c.Alert.Num] = &c.Alert
			}
			if c.Kind == alert.Opened {
				w.n.alerts++
			}
		}
	}
	for _, num := range order {
		if a := opened[num]; a != nil {
			if err := w.work(ctx, a, rng); err != nil {
				return err
			}
		}
	}
	return nil
}

// deeds are what people say about alerts of a family: the verdict, how many hours it took, the member's note, the closing note.
var deeds = map[string][]struct{ verdict, member, note string }{
	"scan": {
		{"benign", "", "A scan from the Internet; the firewall refused all of it."},
		{"benign", "", "Known mass scanner. Nothing answered."},
		{"true_positive", "", "A scan of remote access ports. Nothing is open there; watched for a day, nothing followed."},
	},
	"password-guessing": {
		{"true_positive", "We have blocked the address on our firewall.", "Blocked by the member. None of the accounts exists."},
		{"true_positive", "Thank you, everybody here has two-step sign-in.", "Second factor is on for all accounts; no success seen."},
		{"false_positive", "That was our backup server with an old password.", "A script of the member's own; mended."},
	},
	"account-takeover": {{"false_positive", "We rang her: she had forgotten the new password and then remembered it.", "Confirmed by the member by telephone. A member of staff."}},
	"ids":              {{"true_positive", "The server has been patched since 2017. We checked again.", "A probe from the Internet; the host is patched and did not answer with an exploit's response."}},
	"indicator":        {{"true_positive", "The computer has been taken off the network and installed anew.", "An unwanted browser extension called the listed server. Cleaned by the member."}},
	"campaign":         {{"true_positive", "", "One scanner at several members on the same day; all refused it."}},
}

// work is how analysts and the member deal with an alert of the past: taken, acknowledged, closed with a verdict and a note.
func (w *scribe) work(ctx context.Context, a *alert.Alert, rng *rand.Rand) error {
	list := deeds[a.Family]
	if len(list) == 0 {
		list = deeds["scan"]
	}
	deed, who := list[rng.IntN(len(list))], w.by[rng.IntN(len(w.by))]
	then := func(least, most time.Duration) {
		w.clock += int64(least) + rng.Int64N(int64(most-least))
	}
	w.clock = max(a.LastNS, a.CreatedNS, a.UpdatedNS)
	then(3*time.Minute, 50*time.Minute)
	if w.clock+int64(5*time.Hour) > w.To {
		return nil // there was no time for it yet: it is among the open ones
	}
	if _, err := w.alerts.Assign(ctx, who, a.ID, who.UserID); err != nil {
		return err
	}
	then(5*time.Minute, 90*time.Minute)
	if by := w.memberOf(a.Tenant); deed.member != "" && by.UserID != "" {
		if _, err := w.alerts.Acknowledge(ctx, by, a.ID, deed.member); err != nil {
			return err
		}
		then(2*time.Minute, 60*time.Minute)
	}
	_, err := w.alerts.Close(ctx, who, a.ID, deed.verdict, deed.note+" (Invented for the demonstration.)")
	return err
}

func (w *scribe) memberOf(t event.TenantID) access.Principal {
	for i, x := range w.Tenants {
		if x == t {
			return w.member[i]
		}
	}
	return access.Principal{}
}

// check counts what is stored of the span: a day that is missing or doubled is an error, not a picture with a hole.
func (w *scribe) check(ctx context.Context, scope access.Scope) error {
	buckets, err := w.Events.Histogram(ctx, scope.Narrow(w.Tenants[:]...), eventstore.Filter{From: w.From, To: w.To, Collector: invented}, day)
	if err != nil {
		return err
	}
	var n int
	for _, b := range buckets {
		n += int(b.Total())
	}
	if n != w.n.events {
		return fmt.Errorf("%d events were written and %d are stored; remove the demo's folder to begin anew", w.n.events, n)
	}
	return nil
}
