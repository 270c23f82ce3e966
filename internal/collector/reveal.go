package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Revealed is what stands behind a pseudonym.
type Revealed struct {
	Pseudonym string    `json:"pseudonym"`
	Kind      string    `json:"kind"` // address or user
	Value     string    `json:"value,omitempty"`
	Found     bool      `json:"found"`
	How       string    `json:"how,omitempty"`  // ranges: by trying the member's ranges; archive: a line there holds it
	Line      uint64    `json:"line,omitempty"` // in the archive
	Seen      time.Time `json:"seen,omitzero"`  // when that line was received
}

// ErrPseudonym means that a text is not a pseudonym of this program.
var ErrPseudonym = errors.New("that is not a pseudonym: they look like fd12:3456:… (an address) or user-0123456789ab")

// Reveal turns pseudonyms back with the key in this collector's folder: addresses by trying the member's IPv4 ranges, and everything else,
// IPv6 and users, by looking through the archive for whatever has that pseudonym. It reads only this machine and tells nobody.
func Reveal(ctx context.Context, c *Config, pseudonyms []string) ([]Revealed, error) {
	out := make([]Revealed, len(pseudonyms))
	for i, p := range pseudonyms {
		out[i] = Revealed{Pseudonym: p, Kind: minimise.PseudonymKind(p)}
		if out[i].Kind == "" {
			return nil, fmt.Errorf("%q: %w", p, ErrPseudonym)
		}
	}
	if _, err := keys.OpenCollector(c.KeyDir()); err != nil {
		return nil, err
	}
	m, err := c.Minimiser()
	if err != nil {
		return nil, err
	}
	// The ranges that are short first, then what was seen, then those of millions of addresses.
	missing := len(out)
	try := func(wide bool) {
		for i := range out {
			if out[i].Found || out[i].Kind != minimise.AddressPseudonym || ctx.Err() != nil {
				continue
			}
			if a, ok := m.Reveal(netip.MustParseAddr(out[i].Pseudonym), wide); ok {
				out[i].Found, out[i].Value, out[i].How = true, a.String(), "ranges"
				missing--
			}
		}
	}
	try(false)
	if missing > 0 {
		if err := revealSeen(ctx, c, m, out, &missing); err != nil {
			return nil, err
		}
	}
	if missing > 0 {
		try(true)
	}
	return out, ctx.Err()
}

// revealSeen looks through the archive.
func revealSeen(ctx context.Context, c *Config, m *minimise.Minimiser, out []Revealed, missing *int) error {
	if _, err := os.Stat(c.path("archive")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r, err := archive.View(c.path("archive"))
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := newPipeline(c, m, nil, archive.Secret{}, nil)
	if err != nil {
		return err
	}
	var l archive.Line
	var e event.Event
	for n := 0; *missing > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		err := r.Next(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if !p.understandAgain(&e, &l) {
			continue
		}
		for i := range out {
			if out[i].Found {
				continue
			}
			if v, ok := m.RevealIn(&e, out[i].Pseudonym); ok {
				out[i].Found, out[i].Value, out[i].How, out[i].Line, out[i].Seen = true, v, "archive", l.Number, time.Unix(0, l.Created).UTC()
				*missing--
			}
		}
	}
	return nil
}
