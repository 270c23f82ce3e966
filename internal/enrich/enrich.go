// Package enrich says where an address is and whose network it belongs to.
//
// It reads, once and again on Reload: a country file and a network file (both optional), and the
// operator's own overlay table (optional). It writes source.geo.country_iso_code, source.as.number
// and source.as.organization.name, and the same under destination, into an event. Nothing is kept on
// disk, so there is nothing to lose in a crash. A missing file is not an error: the hub goes on
// without that knowledge, and Sources says which file is missing and how to bring it.
//
// For one address the first of these that knows an answer gives it, field by field: the overlay's most
// specific prefix; then, for private, documentation and other special ranges (RFC 6890), their name
// and no country; then the country and network files. So an operator may name the ranges of a
// private wide area network, or correct a wrong country, without touching the data.
//
// Every source is turned into sorted arrays at load (a million prefixes in under a second, about 40 MB
// for the bundled data), so that a look-up is a short binary search without allocation. All methods may be
// called from many goroutines, also during Reload.
package enrich

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"tocsin/internal/event"
)

// Place is what is known of one address. Empty fields are unknown.
type Place struct {
	Country      string // ISO 3166-1 alpha-2, upper case
	AS           uint32 // autonomous system number; 0 when unknown
	Organization string // who holds the AS
	Special      string // "private", "documentation", ... for addresses that are not of the public Internet (RFC 6890)
	Note         string // the operator's note from the overlay
	Overlay      bool   // the operator's overlay had a say
}

// Options say where the data are. The zero value is an Enricher that knows special ranges only.
type Options struct {
	// Dirs are searched in order, for each file on its own: country.mmdb or country.csv, asn.mmdb or the pair
	// asn-ipv4.csv and asn-ipv6.csv. So a newer file dropped into the first folder wins over the installed one.
	Dirs []string
	// Overlay is the operator's table (see ParseOverlay). "" for none; a named file that is missing is an error.
	Overlay string
	Logger  *slog.Logger
}

// Enricher answers look-ups. Make one with Open.
type Enricher struct {
	opt    Options
	log    *slog.Logger
	reload sync.Mutex // held by Reload: one at a time
	cur    atomic.Pointer[tables]
}

// tables is everything a look-up needs, never changed once published.
type tables struct {
	overlay *overlay // nil when there is none
	country *ranges[string]
	network *ranges[network]
	sources []Source
	files   map[string][]file // by role, as they were when read
	version string
}

type network struct {
	number uint32
	name   string
}

// Open reads the data. A missing country or network file is only noted (see Sources); a file that is there and
// cannot be understood, or a bad overlay, is an error that names the file, the line and what is wrong.
func Open(ctx context.Context, opt Options) (*Enricher, error) {
	e := &Enricher{opt: opt, log: opt.Logger}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	t, err := e.load(nil)
	if err != nil {
		return nil, err
	}
	e.cur.Store(t)
	for _, s := range t.sources {
		if s.Missing {
			e.log.WarnContext(ctx, "place data missing", "role", s.Role, "next", s.Next)
		} else {
			e.log.InfoContext(ctx, "place data loaded", "role", s.Role, "name", s.Name, "date", s.Date.Format("2006-01-02"), "records", s.Records)
		}
	}
	return e, nil
}

// Reload reads again what has changed on disk and swaps it in at once. On an error the old data stay in use.
// It reports whether anything changed.
func (e *Enricher) Reload(ctx context.Context) (changed bool, err error) {
	e.reload.Lock()
	defer e.reload.Unlock()
	old := e.cur.Load()
	t, err := e.load(old)
	if err != nil {
		return false, errors.Join(errors.New("place data not reloaded, the old stay in use"), err)
	}
	if t.version == old.version {
		return false, nil
	}
	e.cur.Store(t)
	e.log.InfoContext(ctx, "place data reloaded", "version", t.version)
	return true, nil
}

// Version names the data in use: 16 hex digits over the content of every file. A worker's plan records it, so
// that a batch done again after a crash can tell whether the same answers were given.
func (e *Enricher) Version() string { return e.cur.Load().version }

// Sources describes the data in use, for the pages that must show attribution and age.
func (e *Enricher) Sources() []Source { return append([]Source(nil), e.cur.Load().sources...) }

// Lookup says what is known of an address. IPv4 in IPv6 (::ffff:a.b.c.d) is taken as IPv4, zones are ignored.
func (e *Enricher) Lookup(a netip.Addr) Place {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return Place{}
	}
	return e.cur.Load().lookup(a)
}

func (t *tables) lookup(a netip.Addr) Place {
	var p Place
	if t.overlay != nil {
		if o, ok := t.overlay.table.Lookup(a); ok {
			p = Place{Country: o.Country, AS: o.AS, Organization: o.Organization, Note: o.Note, Overlay: true}
		}
	}
	p.Special = special.get(a)
	if p.Special != "" {
		return p
	}
	if p.Country == "" {
		p.Country = t.country.get(a)
	}
	if p.AS == 0 {
		n := t.network.get(a)
		p.AS = n.number
		if p.Organization == "" {
			p.Organization = n.name
		}
	}
	return p
}

// Enrich sets country and network of the event's source and destination. A value of another hand (a firewall's own
// idea of the country) is replaced where this package knows better, and otherwise kept.
func (e *Enricher) Enrich(ev *event.Event) {
	t := e.cur.Load()
	if a, ok := ev.IP(event.SourceIP); ok {
		t.set(ev, a, event.SourceGeoCountryISOCode, event.SourceASNumber, event.SourceASOrganizationName)
	}
	if a, ok := ev.IP(event.DestinationIP); ok {
		t.set(ev, a, event.DestinationGeoCountryISOCode, event.DestinationASNumber, event.DestinationASOrganizationName)
	}
}

func (t *tables) set(ev *event.Event, a netip.Addr, country, as, organization event.Key) {
	p := t.lookup(a.Unmap().WithZone(""))
	if p.Country != "" {
		ev.SetString(country, p.Country)
	}
	if p.AS != 0 {
		ev.SetInt(as, int64(p.AS))
	}
	if p.Organization != "" {
		ev.SetString(organization, p.Organization)
	}
}

// digest is the version of a set of files: each path's role and content, in order.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
