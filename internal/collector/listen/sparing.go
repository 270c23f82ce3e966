package listen

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// sayings is how often a message is written in a minute.
const sayings = 5

// Sparing gives a logger that writes each message a few times a minute at most, and says how many of it were not written: strangers can make a
// port say something as often as they like, and must not fill a disk with it. Messages are constant texts; what they are of stands beside them.
func Sparing(l *slog.Logger) *slog.Logger {
	return slog.New(&sparing{Handler: l.Handler(), said: &said{of: map[string]*saying{}}})
}

type sparing struct {
	slog.Handler
	said *said
}

type said struct {
	mu sync.Mutex // guards of
	of map[string]*saying
}

// saying is one message's minute.
type saying struct {
	began       time.Time
	n, withheld int
}

// Handle is slog.Handler.
func (s *sparing) Handle(ctx context.Context, r slog.Record) error {
	s.said.mu.Lock()
	x := s.said.of[r.Message]
	if x == nil {
		if len(s.said.of) >= 1000 { // somebody has made texts that are not constant
			clear(s.said.of)
		}
		x = &saying{began: r.Time}
		s.said.of[r.Message] = x
	}
	if r.Time.Sub(x.began).Abs() >= time.Minute {
		if x.withheld > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("not_written_before", x.withheld))
		}
		*x = saying{began: r.Time}
	}
	x.n++
	write := x.n <= sayings
	if !write {
		x.withheld++
	}
	s.said.mu.Unlock()
	if !write {
		return nil
	}
	return s.Handler.Handle(ctx, r)
}

// WithAttrs is slog.Handler.
func (s *sparing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sparing{s.Handler.WithAttrs(attrs), s.said}
}

// WithGroup is slog.Handler.
func (s *sparing) WithGroup(name string) slog.Handler {
	return &sparing{s.Handler.WithGroup(name), s.said}
}
