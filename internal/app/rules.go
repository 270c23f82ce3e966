package app

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/baseline"
	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/durable"
	"tocsin/internal/event"
	"tocsin/internal/health"
	"tocsin/internal/keys"
	"tocsin/internal/layer"
	"tocsin/internal/member"
	"tocsin/internal/ruleset"
	"tocsin/rules"
	"tocsin/sigma"
)

// ruleDir is where sets of rules and the operator's own lie.
func ruleDir(dir string) string { return filepath.Join(dir, "rules") }

// Rules is the folder of rule sets of a data folder.
func Rules(dir string) *ruleset.Store { return ruleset.Open(ruleDir(dir)) }

// BuiltInRules are the rules of the program itself.
func BuiltInRules() detect.Source { return detect.Source{FS: rules.FS} }

// LoadRules reads the rules that the hub on a data folder uses: those built in, each set that was taken in, and the operator's own.
func LoadRules(dir string) (*detect.Catalogue, error) {
	more, err := Rules(dir).Sources()
	if err != nil {
		return nil, err
	}
	return detect.LoadAll(append([]detect.Source{BuiltInRules()}, more...))
}

// Known is all that layers can change: the rules of a catalogue, the baselines, and what detection health raises.
type Known struct{ *detect.Catalogue }

// Find finds one by its id, its name or its title.
func (k Known) Find(text string) (detect.Found, bool) {
	if f, ok := k.Catalogue.Find(text); ok {
		return f, true
	}
	is := func(id, title string) bool { return strings.EqualFold(text, id) || strings.EqualFold(text, title) }
	// Correlation: exceptions go by what the detection says, no event is asked about.
	for _, b := range baseline.Infos() {
		if is(b.ID, b.Title) {
			runs := detect.Hub
			if b.Site {
				runs = detect.Site
			}
			return detect.Found{ID: b.ID, Title: b.Title, Level: b.Level, Runs: runs, Across: b.Across, OnSite: b.Site, AtHub: b.Hub, Correlation: true, EntityFields: b.EntityFields}, true
		}
	}
	for _, r := range health.Rules() {
		if is(r.ID, r.Title) {
			return detect.Found{ID: r.ID, Title: r.Title, Level: r.Level, Runs: detect.Hub, AtHub: true, Correlation: true}, true
		}
	}
	return detect.Found{}, false
}

// lookForRules is how often the hub looks whether the files of rules have changed. What has changed must be the same at two looks: a file that
// is being written is not read half.
const lookForRules = 2 * time.Second

// refreshLayers is at which of these looks the layers are read again; that one has come to its end is noticed at once.
const refreshLayers = 5

// ruleKeeper holds the rules in force and takes in new ones while the line runs.
type ruleKeeper struct {
	dir    string
	log    *slog.Logger
	apply  func(*detect.Catalogue) (detect.Reloaded, error) // to the running detector
	left   func() []*sigma.Error                            // rules that the running detector was started without
	layers *layer.Store

	mu    sync.Mutex // one reload at a time
	cat   atomic.Pointer[detect.Catalogue]
	fault atomic.Pointer[string] // why what lies in the folder is not in force; nil: it is

	reloads, refused atomic.Uint64
}

// reload takes in what lies in the folder. On an error the rules that ran run on.
func (k *ruleKeeper) reload(ctx context.Context) (detect.Reloaded, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	cat, err := LoadRules(k.dir)
	var r detect.Reloaded
	if err == nil {
		r, err = k.apply(cat)
	}
	if err != nil {
		k.refused.Add(1)
		text := err.Error()
		k.fault.Store(&text)
		k.log.ErrorContext(ctx, "new rules were not taken: the rules from before run on, nothing was lost", "err", err, "folder", ruleDir(k.dir), "next", "mend the file, or take it away; it is tried again when a file changes")
		return r, err
	}
	k.reloads.Add(1)
	k.cat.Store(cat)
	k.fault.Store(nil)
	k.log.InfoContext(ctx, "rules taken in", "rules", r.Rules, "digest", cat.Digest()[:16], "groups_kept", r.Groups, "groups_lost", r.Lost, "paused", r.Paused)
	return r, k.layers.Refresh(ctx, Known{cat})
}

// trouble is what health and doctor say: nil when all that lies in the folder is in force.
func (k *ruleKeeper) trouble() error {
	if t := k.fault.Load(); t != nil {
		return fmt.Errorf("changed rules are not in force, the ones from before run on: %s", *t)
	}
	if errs := k.left(); len(errs) > 0 {
		return fmt.Errorf("%d of the rules were left out when the hub started: %w", len(errs), errs[0])
	}
	return nil
}

// stamp changes when a file of rules does. It asks for names, sizes and times only.
func (k *ruleKeeper) stamp() (uint64, error) {
	h := fnv.New64a()
	note := func(path string, d fs.DirEntry) error {
		i, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err == nil {
			fmt.Fprintf(h, "%s\x00%d\x00%d\x00", path, i.Size(), i.ModTime().UnixNano())
		}
		return err
	}
	walk := func(dir string, only func(name string) bool) error {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() || !only(d.Name()) {
				return err
			}
			return note(path, d)
		})
		return err
	}
	err := walk(Rules(k.dir).Local(), func(string) bool { return true })
	sets, serr := filepath.Glob(filepath.Join(ruleDir(k.dir), "sets", "*", "set.json"))
	for _, s := range sets { // versions never change: which is in force does
		err = errors.Join(err, walk(s, func(string) bool { return true }))
	}
	return h.Sum64(), errors.Join(err, serr)
}

// run looks for changed rules, and keeps the layers true.
func (k *ruleKeeper) run(ctx context.Context) error {
	every := time.NewTicker(lookForRules)
	seldom := time.NewTicker(time.Hour)
	defer every.Stop()
	defer seldom.Stop()
	warned := false
	warn := func(what string, err error) {
		if err != nil && ctx.Err() == nil && !warned {
			k.log.WarnContext(ctx, what, "err", err)
		}
		warned = err != nil
	}
	tried, err := k.stamp()
	warn("looking for changed rules", err)
	last := tried
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			// What exceptions kept back in the last seconds is written too.
			return k.layers.Refresh(context.WithoutCancel(ctx), Known{k.cat.Load()})
		case <-seldom.C:
			_, err := k.layers.Prune(ctx)
			warn("forgetting what layers of rules kept back long ago", err)
		case <-every.C:
			now, err := k.stamp()
			if err == nil && now != tried && now == last {
				tried = now
				k.reload(ctx) // it says itself what is wrong
			}
			last = now
			if n%refreshLayers == 0 {
				err = errors.Join(err, k.layers.Refresh(ctx, Known{k.cat.Load()}))
			}
			warn("reading files or layers of rules; those that were read before stay in force", err)
		}
	}
}

// exceptions are those in force, for the detector.
func (k *ruleKeeper) exceptions() detect.Exceptions {
	if s := k.layers.Set(); s != nil {
		return s
	}
	return nil
}

// filter takes out the detections that layers keep back.
func (k *ruleKeeper) filter(ctx context.Context, dets []event.Detection) ([]event.Detection, error) {
	if len(dets) == 0 {
		return dets, nil
	}
	return k.layers.Filter(ctx, dets)
}

var (
	rulesLoaded     = prometheus.NewDesc("tocsin_rules_loaded", "Rules that make detections, in force at this hub or at sites.", nil, nil)
	rulesReloads    = prometheus.NewDesc("tocsin_rules_reloads_total", "Times that changed rules were taken in, or refused because some of them cannot be used.", []string{"result"}, nil)
	rulesTrouble    = prometheus.NewDesc("tocsin_rules_trouble", "1 when rules lie in the hub's folder that are not in force because of a fault.", nil, nil)
	rulesSuppressed = prometheus.NewDesc("tocsin_rules_suppressed_total", "Detections that a layer of rules (switched off, exception) kept from becoming alerts.", nil, nil)
)

// Describe implements prometheus.Collector.
func (k *ruleKeeper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rulesLoaded, rulesReloads, rulesTrouble, rulesSuppressed} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (k *ruleKeeper) Collect(ch chan<- prometheus.Metric) {
	trouble := 0.0
	if k.trouble() != nil {
		trouble = 1
	}
	ch <- prometheus.MustNewConstMetric(rulesLoaded, prometheus.GaugeValue, float64(len(k.cat.Load().Infos())))
	ch <- prometheus.MustNewConstMetric(rulesReloads, prometheus.CounterValue, float64(k.reloads.Load()), "taken")
	ch <- prometheus.MustNewConstMetric(rulesReloads, prometheus.CounterValue, float64(k.refused.Load()), "refused")
	ch <- prometheus.MustNewConstMetric(rulesTrouble, prometheus.GaugeValue, trouble)
	ch <- prometheus.MustNewConstMetric(rulesSuppressed, prometheus.CounterValue, float64(k.layers.Suppressed()))
}

// serveReload takes in changed rules at once, and says what came of it.
func (h *hub) serveReload(r *http.Request) (any, error) {
	got, err := h.rules.reload(r.Context())
	if err != nil {
		return nil, fmt.Errorf("%w: the rules from before run on: %w", member.ErrInvalid, err)
	}
	return map[string]any{"rules": got.Rules, "groups_kept": got.Groups, "groups_lost": got.Lost, "paused_ms": float64(got.Paused.Microseconds()) / 1000, "digest": h.rules.cat.Load().Digest()}, nil
}

// NoteRules writes into the audit trail what was done to a set of rules.
func (o *Office) NoteRules(ctx context.Context, action, set, detail string) error {
	return o.DB.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		return db.Audit(ctx, tx, time.Now().UnixNano(), Operator.UserID, action, set, access.Centre, detail)
	})
}

// SignRules writes the detached signature of an archive of rules beside it, with the release key in dir.
func SignRules(dir, file string, now time.Time) error {
	signer, err := keys.OpenReleaseKey(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, ruleset.MaxArchive+1))
	if err != nil {
		return err
	}
	if len(b) > ruleset.MaxArchive {
		return fmt.Errorf("%s has more than %d MiB: no hub would take it in", file, ruleset.MaxArchive>>20)
	}
	sig, err := ruleset.Sign(b, signer, now)
	if err != nil {
		return err
	}
	return durable.Replace(file+".sig", append(sig, '\n'), 0o644)
}
