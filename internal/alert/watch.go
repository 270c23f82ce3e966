package alert

import (
	"context"
	"fmt"
	"time"

	"tocsin/internal/access"
)

// Event kinds of Watch besides those of Change.
const (
	Resync = "resync" // the reader was too slow, or just began: read the queue again
	Ended  = "closed" // the alert is no longer open
)

type watcher struct {
	scope access.Scope
	out   chan Change
	lost  bool // guarded by Store.mu: a resync must be sent before anything else
}

// Watch returns the scope's alerts as they change, here or in another program,
// until ctx is done, when the channel is closed. Each change carries the alert
// as it is by then; several may come as one. A reader that does not keep up
// loses changes and gets one of the kind Resync; it never delays anybody.
func (s *Store) Watch(ctx context.Context, scope access.Scope) (<-chan Change, error) {
	var rev int64
	if err := s.db.Read().NewRaw("SELECT value FROM counters WHERE name = 'alert.rev'").Scan(ctx, &rev); err != nil {
		return nil, fmt.Errorf("watching alerts: %w", err)
	}
	w := &watcher{scope: scope, out: make(chan Change, 64)}
	s.mu.Lock()
	s.watchers[w] = struct{}{}
	if !s.polling {
		s.polling = true
		go s.poll(rev)
	}
	s.mu.Unlock()
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
		close(w.out)
	})
	return w.out, nil
}

// poll follows the alerts' revisions while anybody watches. There is at most one.
func (s *Store) poll(rev int64) {
	t := time.NewTicker(s.o.Poll)
	defer t.Stop()
	for {
		select {
		case <-s.changed:
		case <-t.C:
		}
		s.mu.Lock()
		if len(s.watchers) == 0 {
			s.polling = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		next, err := s.broadcast(ctx, rev)
		cancel()
		if err != nil {
			s.log.Error("looking for changed alerts", "error", err)
			continue
		}
		rev = next
	}
}

func (s *Store) broadcast(ctx context.Context, rev int64) (int64, error) {
	const most = 500
	var rows []Alert
	if err := selectAlerts(s.db.Read(), &rows).Where("a.rev > ?", rev).OrderExpr("a.rev").Limit(most).Scan(ctx); err != nil {
		return rev, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		a := &rows[i]
		kind := Updated
		switch {
		case !a.Open:
			kind = Ended
		case a.CreatedNS == a.UpdatedNS:
			kind = Opened
		}
		for w := range s.watchers {
			if w.scope.Covers(a.Tenant) {
				w.send(Change{Kind: kind, Alert: *a})
			}
		}
		rev = a.Rev
	}
	for w := range s.watchers {
		w.catchUp()
	}
	if len(rows) == most {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	return rev, nil
}

func (w *watcher) send(c Change) {
	if w.lost {
		return
	}
	select {
	case w.out <- c:
	default:
		w.lost = true
	}
}

// catchUp tells a reader that lost changes, once it has room again.
func (w *watcher) catchUp() {
	if !w.lost || len(w.out) > cap(w.out)/2 {
		return
	}
	select {
	case w.out <- Change{Kind: Resync}:
		w.lost = false
	default:
	}
}

// Run gives the notices that fall due until ctx is done.
func (s *Store) Run(ctx context.Context) error {
	t := time.NewTicker(s.o.Poll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if _, err := s.Due(ctx); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "giving notices", "error", err)
			}
		}
	}
}
