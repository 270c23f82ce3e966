package health

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"tocsin/internal/db"
	"tocsin/internal/event"
)

// keepCounts is how often mere counts of a source are written: each one costs a row of some kilobytes.
const keepCounts = 10 * time.Minute

// saveChunk is how many sources are made into text before the worker may go on.
const saveChunk = 64

// Stored forms: fields may be added. A row without a dataset is about the collector itself.
type (
	storedRhythm struct {
		First  int64    `json:"first"` // UTC ns
		Last   int64    `json:"last"`
		Events uint64   `json:"events"`
		Gaps   [7]int64 `json:"gaps"`
		Day    int64    `json:"day"`
	}
	storedSource struct {
		storedRhythm
		Services []string                 `json:"services,omitempty"`
		Senders  []storedSender           `json:"senders,omitempty"`
		Fleet    bool                     `json:"fleet,omitempty"`
		Profiles map[string]storedProfile `json:"profiles"`
	}
	storedSender struct {
		Addr netip.Addr `json:"addr"`
		storedRhythm
	}
	storedProfile struct {
		Windows int                    `json:"windows"`
		Fields  map[string]storedField `json:"fields"`
	}
	storedField struct {
		Share float32 `json:"s"`
		Low   uint8   `json:"l,omitempty"`
		Gone  int64   `json:"g,omitempty"`
	}
	storedCounts struct {
		Received uint64  `json:"received"`
		Parsed   uint64  `json:"parsed"`
		Usual    float64 `json:"usual"`
		Bad      int64   `json:"bad,omitempty"`
	}
)

func (r *rhythm) stored() storedRhythm { return storedRhythm{r.first, r.last, r.events, r.gaps, r.day} }

func (r storedRhythm) rhythm() rhythm { return rhythm{r.First, r.Last, r.Events, r.Gaps, r.Day} }

func (s *source) stored() storedSource {
	out := storedSource{storedRhythm: s.rhythm.stored(), Services: s.services, Fleet: s.fleet, Profiles: map[string]storedProfile{}}
	for i := range s.senders {
		out.Senders = append(out.Senders, storedSender{s.senders[i].addr, s.senders[i].stored()})
	}
	for c, p := range s.profiles {
		x := storedProfile{p.windows, map[string]storedField{}}
		for _, f := range p.fields {
			if f.share > 0 || f.gone != 0 {
				x.Fields[f.key.Name()] = storedField{f.share, f.low, f.gone}
			}
		}
		out.Profiles[c] = x
	}
	return out
}

func (x storedSource) source(k key) *source {
	s := &source{key: k, rhythm: x.rhythm(), services: x.Services, fleet: x.Fleet, profiles: map[string]*profile{}}
	for _, a := range x.Senders {
		s.senders = append(s.senders, sender{a.Addr, a.rhythm()})
	}
	for c, p := range x.Profiles {
		q := &profile{windows: p.Windows}
		for name, f := range p.Fields {
			if k, known := event.Lookup(name); known { // a pack may have gone that had registered it
				q.fields = append(q.fields, field{key: k, share: f.Share, low: f.Low, gone: f.Gone})
			}
		}
		slices.SortFunc(q.fields, func(a, b field) int { return cmp.Compare(a.key, b.key) })
		s.profiles[c] = q
	}
	return s
}

func (w *Watch) load(ctx context.Context) error {
	rows, err := db.Bound(w.db.Read()).QueryContext(ctx, "SELECT tenant, collector, dataset, state FROM detection_seen LIMIT ?", 2*maxSources)
	if err != nil {
		return fmt.Errorf("detection health: %w", err)
	}
	defer rows.Close()
	now := w.now().UnixNano()
	for n := int64(0); rows.Next(); n++ {
		var k key
		var state string
		if err := rows.Scan(&k.tenant, &k.collector, &k.dataset, &state); err != nil {
			return fmt.Errorf("detection health: %w", err)
		}
		var err error
		if k.dataset == "" {
			var x storedCounts
			if err = json.Unmarshal([]byte(state), &x); err == nil {
				w.counts[k.collector] = &counted{tenant: k.tenant, received: x.Received, parsed: x.Parsed, usual: x.Usual, bad: x.Bad}
			}
		} else {
			var x storedSource
			if err = json.Unmarshal([]byte(state), &x); err == nil {
				s := x.source(k)
				s.kept = now - n*int64(time.Second)%int64(keepCounts) // not all at the same time
				w.sources[k] = s
				s.usage = w.usageOf(k.tenant)
				s.usage.sources++
				for _, p := range s.profiles {
					s.usage.fields += len(p.fields)
				}
			}
		}
		if err != nil {
			w.log.WarnContext(ctx, "what was known of a source cannot be read; it is learnt anew", "tenant", k.tenant, "collector", k.collector, "dataset", k.dataset, "err", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("detection health: %w", err)
	}
	return nil
}

// Save writes what is due; with all, everything that changed, as at the end.
func (w *Watch) Save(ctx context.Context, all bool) error {
	w.saving.Lock()
	defer w.saving.Unlock()
	now := w.now().UnixNano()
	w.mu.Lock()
	var due []*source
	for _, s := range w.sources {
		if s.dirty && (all || s.urgent || now-s.kept >= int64(keepCounts)) {
			due = append(due, s)
		}
	}
	gone := w.gone
	w.gone = nil
	var lines []line
	for id, c := range w.counts {
		if c.dirty {
			lines = append(lines, line{key{c.tenant, id, ""}, storedCounts{c.received, c.parsed, c.usual, c.bad}})
			c.dirty = false
		}
	}
	w.mu.Unlock()
	err := w.write(ctx, lines, gone)
	if err != nil {
		w.mu.Lock()
		w.gone = append(w.gone, gone...)
		for _, l := range lines {
			if c := w.counts[l.key.collector]; c != nil {
				c.dirty = true
			}
		}
		w.mu.Unlock()
		return err
	}
	for part := range slices.Chunk(due, saveChunk) {
		lines = lines[:0]
		w.mu.Lock()
		for _, s := range part {
			lines = append(lines, line{s.key, s.stored()})
			s.dirty, s.urgent, s.kept = false, false, now
		}
		w.mu.Unlock()
		if err := w.write(ctx, lines, nil); err != nil {
			w.mu.Lock()
			for _, s := range part {
				s.dirty, s.urgent = true, true
			}
			w.mu.Unlock()
			return err
		}
	}
	return nil
}

type line struct {
	key   key
	state any
}

func (w *Watch) write(ctx context.Context, lines []line, gone []key) error {
	if len(lines)+len(gone) == 0 {
		return nil
	}
	now := w.now().UnixNano()
	err := w.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		for _, k := range gone {
			if _, err := db.Bound(tx).ExecContext(ctx, "DELETE FROM detection_seen WHERE tenant = ? AND collector = ? AND dataset = ?", k.tenant, k.collector, k.dataset); err != nil {
				return err
			}
		}
		for _, l := range lines {
			b, err := json.Marshal(l.state)
			if err != nil {
				return err
			}
			if _, err := db.Bound(tx).ExecContext(ctx, "INSERT INTO detection_seen (tenant, collector, dataset, state, updated_ns) VALUES (?,?,?,?,?) ON CONFLICT (tenant, collector, dataset) DO UPDATE SET state = excluded.state, updated_ns = excluded.updated_ns",
				l.key.tenant, l.key.collector, l.key.dataset, string(b), now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("detection health: %w", err)
	}
	return nil
}
