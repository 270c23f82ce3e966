package baseline

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
	_ "time/tzdata" // a machine without zones learns the same hours

	"tocsin/internal/baseline/sketch"
	"tocsin/internal/event"
)

type eventID = event.ID

const (
	hourNS    = int64(time.Hour)
	lateAfter = int64(15 * time.Minute) // how long an hour stays open after its end
)

// Options for New.
type Options struct {
	Where Where
	// Origin tells the keys of detections made on different sites apart: the collector's id. At the hub it is empty.
	Origin string
	// Dir is a folder of the engine's own where whole snapshots are kept, so that Snapshot need only give what changed since the last hour.
	// "": Snapshot gives everything, as on a site.
	Dir string
	// Location is the zone whose hours and weekdays people live by; default Europe/London.
	Location *time.Location
	// Country gives the name of a country by its code; nil: the code is shown.
	Country func(code string) string
	// Area gives a member's region, "" when it has none; nil: none has. It is called for detections only.
	Area func(event.TenantID) string
	// Withhold says which fields must not be in a sentence; the policy of a site decides. nil: none.
	Withhold func(field string) bool
	// Share gives how many times the usual room a member has: an estate whose every event comes here needs more. nil: 1.
	Share func(event.TenantID) int
	// Warm is how long something must have been learnt before anything new is told; default 14 days.
	Warm time.Duration
	// AcrossAt is at how many members something is told to the centre; default 3, and never fewer than one in a thousand of all members.
	AcrossAt   int
	MaxTenants int // default 20,000 at the hub, 200 on a site
	Logger     *slog.Logger
	// Key is the secret of the hashes, for a simulation that must be the same again. nil: a random one, and nothing else where strangers send.
	Key *sketch.Key
}

// Engine learns and tells. It belongs to one goroutine, but for Stats.
type Engine struct {
	mu          sync.Mutex // held by every call that touches the state; waited for only by who asks for Stats
	opts        Options
	lim         limits
	key         sketch.Key
	warmSeconds uint32

	tenants map[event.TenantID]*tenant
	order   []*tenant // by number
	centre  tenant    // budgets of what is told to the centre
	clock   int64
	closed  int32 // every hour up to here is closed
	started uint32
	slots   [64]struct {
		hour  int32
		slot  uint8
		known bool
	}
	moments    [2]moment // of the open hours, by hour modulo 2
	crossings  table[crossing, *crossing]
	big        int    // keys with more members than have their place
	swept      uint32 // when they were last counted
	patterns   sketch.Filter
	signatures spread

	gen   uint32 // of the whole snapshot that is next
	base  fullFile
	sizes [2]int // of the last snapshots, changes and whole
	out   []event.Detection
	stats Stats
	anew  time.Time // see Stats; kept in the folder
	lost  bool      // a restore failed in this process
}

// Stats counts since the engine was made.
type Stats struct {
	Events     uint64 // looked at
	Observed   uint64 // of them, of a kind that baselines are made of
	Late       uint64 // came after their hour was closed: not counted
	Refused    uint64 // new members beyond the most, and new keys of one member beyond its share
	Untaught   uint64 // over UDP, where a known sender teaches the same
	Detections uint64
	Updates    uint64
	Suppressed uint64    // beyond what a member may be told of one kind in a day
	Evicted    uint64    // accounts, machines, beats and keys pushed out that were still worth keeping
	Anew       time.Time // since when it learns anew, because what it had learnt could not be read; zero: it could
	Tenants    int
	Keys       int               // across members
	Bytes      int               // in use, about
	Told       map[string]uint64 // by kind
}

// New makes an engine that has learnt nothing.
func New(o Options) (*Engine, error) {
	lim, ok := limitsAt[o.Where]
	if !ok {
		return nil, fmt.Errorf("baseline: where is %q, want site or hub", o.Where)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Location == nil {
		var err error
		if o.Location, err = time.LoadLocation("Europe/London"); err != nil {
			return nil, fmt.Errorf("baseline: %w", err)
		}
	}
	if o.Warm <= 0 {
		o.Warm = 14 * 24 * time.Hour
	}
	if o.AcrossAt <= 0 {
		o.AcrossAt = 3
	}
	if o.MaxTenants <= 0 {
		o.MaxTenants = map[Where]int{Hub: 20_000, Site: 200}[o.Where]
	}
	e := &Engine{opts: o, lim: lim, warmSeconds: uint32(o.Warm / time.Second)}
	e.forget()
	e.readAnew()
	return e, nil
}

func (e *Engine) forget() {
	var b [16]byte
	rand.Read(b[:])
	e.key = sketch.Key{A: binary.LittleEndian.Uint64(b[:]), B: binary.LittleEndian.Uint64(b[8:])}
	if e.opts.Key != nil {
		e.key = *e.opts.Key
	}
	e.tenants, e.order = map[event.TenantID]*tenant{}, nil
	e.centre = tenant{share: 1}
	e.clock, e.closed, e.started = 0, 0, 0
	e.crossings, e.big, e.swept = table[crossing, *crossing]{}, 0, 0
	e.patterns, e.signatures = sketch.Filter{}, spread{}
	e.gen, e.base = 1, fullFile{}
	e.stats = Stats{Told: map[string]uint64{}}
}

// Stats gives the counters. It may be called from any goroutine.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Told = make(map[string]uint64, len(e.stats.Told))
	for k, n := range e.stats.Told {
		s.Told[k] = n
	}
	s.Tenants, s.Keys, s.Anew = len(e.tenants), e.crossings.used, e.anew
	s.Bytes = len(e.crossings.slots)*crossingBytes + e.big*votesBytes + e.patterns.Bytes() + len(e.signatures.slots)*spreadBytes
	s.Evicted += uint64(e.crossings.Evicted) + uint64(e.signatures.Evicted)
	for _, t := range e.order {
		s.Bytes += t.bytes()
		s.Evicted += uint64(t.lost())
	}
	return s
}

// Process takes one event and gives what is unusual about it, and what the hours that ended with it held. now is the processing time in UTC
// nanoseconds; after a crash events must be processed again with the times they had. The event is not kept.
func (e *Engine) Process(ev *event.Event, now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Events++
	o, ok := Read(ev)
	if !ok {
		return nil
	}
	return e.observe(&o, now)
}

// Observe is Process for who has no event. A time that lies after now is set to now.
func (e *Engine) Observe(o *Observation, now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.observe(o, now)
}

// Flush ends the hours that are over when no events come.
func (e *Engine) Flush(now int64) []event.Detection {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.out = nil
	if e.clock != 0 && now-lateAfter > e.clock {
		e.advance(now - lateAfter)
	}
	return e.sorted()
}

func (e *Engine) observe(o *Observation, now int64) []event.Detection {
	e.out = nil
	e.stats.Observed++
	o.At = min(o.At, now) // a collector's clock that goes ahead must not move everybody's
	if o.At <= 0 || o.At > math.MaxInt64/2 {
		return nil
	}
	if o.At > e.clock {
		e.advance(o.At)
	}
	t := e.tenant(o)
	if t == nil {
		e.stats.Refused++
		return e.sorted()
	}
	lane := 0
	if !o.Proven {
		lane = 1
	}
	h := int32(o.At / hourNS)
	if h <= e.closed {
		e.stats.Late++
	} else {
		at := uint32(o.At / 1e9)
		if t.lanes[lane] == 0 {
			t.lanes[lane] = at
		}
		t.laneLast[lane] = max(t.laneLast[lane], at)
		t.any[h&1] = h
		e.rates(t, o)
	}
	if now-o.At <= lateAfter || e.opts.Where == Site { // what comes late is not compared with what came since
		if o.What&SignIn != 0 {
			e.signIn(t, o)
		}
		if o.What&Intrusion != 0 && e.opts.Where == Hub {
			e.intrusion(t, o)
		}
		if e.opts.Where == Site {
			if o.What&Outbound != 0 {
				e.contact(t, o)
				e.beatOf(t, o)
			}
			if o.What&AllowedInbound != 0 {
				e.letIn(t, o)
			}
		}
		e.cross(t, o)
	}
	return e.sorted()
}

func dayOf(ns int64) uint16 { return uint16(min(ns/(24*hourNS), math.MaxUint16)) }

var errNoSnapshot = errors.New("baseline: restore: not a snapshot of a known version")
