package collector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"tocsin/internal/collector/send"
	"tocsin/internal/indicator"
	"tocsin/internal/keys"
)

// housekeeping does what is not the line: it renews the certificate at half its life, keeps the trust list and the indicator set fresh, and
// learns whether the member has confirmed the check words.
func (a *Agent) housekeeping(ctx context.Context) {
	var trustAt time.Time
	etag, directives := "", ""
	for attempt := 0; ; {
		err := a.keepHouse(ctx, &trustAt, &etag, &directives)
		if ctx.Err() != nil {
			return
		}
		wait := 30*time.Second + send.Backoff(4, 0, a.o.Config.RetryMax)
		if err != nil {
			a.log.Debug("housekeeping", "error", err)
			wait = max(send.Backoff(attempt+2, 0, a.o.Config.RetryMax), time.Second)
			attempt++
		} else {
			attempt = 0
		}
		if a.o.HouseEvery > 0 {
			wait = a.o.HouseEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (a *Agent) keepHouse(ctx context.Context, trustAt *time.Time, etag, directives *string) error {
	if a.client.RenewDue() {
		if err := a.client.Renew(ctx); err != nil {
			level := a.log.Warn
			if a.o.Now().After(a.client.NotAfter()) {
				level = a.log.Error
			}
			level("cannot renew the certificate; trying again", "not_after", a.client.NotAfter(), "error", err)
			if errors.Is(err, keys.ErrNotTheHub) {
				*trustAt = time.Time{}
			}
		} else {
			a.log.Info("renewed the certificate", "not_after", a.client.NotAfter())
		}
	}
	self, err := a.client.Self(ctx, true)
	if errors.Is(err, keys.ErrNotTheHub) || a.o.Now().Sub(*trustAt) > time.Hour {
		if terr := a.client.RefreshTrust(ctx); terr != nil {
			return terr
		}
		*trustAt = a.o.Now()
	}
	if err != nil {
		return err
	}
	if old := a.hub.Swap(&self); old == nil || old.State != self.State {
		a.log.Info("the hub's view of this collector", "state", self.State, "organisation", self.Organisation, "site", self.Site)
	}
	return errors.Join(a.fetchIndicators(ctx, etag), a.fetchDirectives(ctx, directives), a.sendDaily(ctx, self.DailyTest))
}

// loadedSet is the indicator set in force.
type loadedSet struct {
	name string // its version and a part of its digest, for manifests
	keys.Directive
	size int
}

func (a *Agent) setName() string {
	if s := a.set.Load(); s != nil {
		return s.name
	}
	return ""
}

// fetchIndicators fetches the indicator set when the hub has a newer one, checks it, keeps it and puts it in force.
func (a *Agent) fetchIndicators(ctx context.Context, etag *string) error {
	env, tag, changed, err := a.client.Directive(ctx, "/v1/indicators", *etag)
	var p *send.Problem
	if errors.As(err, &p) && p.Status == 404 { // the scheme has none yet
		return nil
	}
	if err != nil || !changed {
		return err
	}
	if err := a.useIndicators(env); err != nil {
		return errors.Join(err, a.inLoop(ctx, func() error { a.refuseOnce(sha256.Sum256(env), "an indicator set", err.Error()); return nil }))
	}
	if err := writeFile(a.o.Config.path("indicators"), env); err != nil {
		a.log.Error("cannot keep the indicator set", "error", err)
	}
	*etag = tag
	return nil
}

// useIndicators checks a signed set and puts it in force. A set that is older than the one in force is refused.
func (a *Agent) useIndicators(env []byte) error {
	d, err := openIndicators(env, a.client.Trust(), a.id.Collector, a.o.Now())
	if err != nil {
		return err
	}
	if old := a.set.Load(); old != nil && d.Version < old.Version {
		return fmt.Errorf("version %d is older than version %d in force", d.Version, old.Version)
	}
	set, err := indicator.Open(d.Content)
	if err != nil {
		return fmt.Errorf("indicator set: %w", err)
	}
	sum := sha256.Sum256(d.Content)
	a.min.SetIndicators(set)
	if old := a.set.Load(); old != nil && old.Version < d.Version {
		a.forgive.Store(true)
	}
	a.set.Store(&loadedSet{name: fmt.Sprintf("%d %s", d.Version, hex.EncodeToString(sum[:8])), Directive: d, size: set.Len(0)})
	a.log.Info("indicators in force", "version", d.Version, "indicators", set.Len(0))
	return nil
}

func openIndicators(env []byte, trust *keys.Trust, collector string, now time.Time) (keys.Directive, error) {
	d, err := trust.OpenDirective(env, keys.IndicatorSets, collector, now)
	if err == nil && d.Type != keys.IndicatorSet {
		return keys.Directive{}, fmt.Errorf("%w: it is a %.40q, not a set of indicators", keys.ErrDirective, d.Type)
	}
	return d, err
}

// loadIndicators puts the set in force that was kept before the restart.
func (a *Agent) loadIndicators() {
	env, err := os.ReadFile(a.o.Config.path("indicators"))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = a.useIndicators(env)
	}
	if err != nil {
		a.log.Warn("the kept indicator set is not used; a new one will be fetched", "error", err)
	}
}
