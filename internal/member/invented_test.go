package member

import (
	"errors"
	"testing"

	"tocsin/internal/access"
)

func TestInvented(t *testing.T) {
	s, _ := newStore(t)
	a, _ := organisation(t, s, "Alderwick High School")
	b, _ := organisation(t, s, "Brannock Works")
	for _, span := range [][2]int64{{1000, 2000}, {500, 1000}, {1500, 1800}} { // spans grow together
		if err := s.MarkInvented(t.Context(), national, "test", a.ID, span[0], span[1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		from, to int64
		want     bool
	}{{0, 500, false}, {0, 501, true}, {600, 700, true}, {1999, 5000, true}, {2000, 5000, false}} {
		got, err := s.Invented(t.Context(), a.ID, c.from, c.to)
		if err != nil || got != c.want {
			t.Errorf("%d to %d: %v, %v, want %v", c.from, c.to, got, err, c.want)
		}
	}
	if got, err := s.Invented(t.Context(), b.ID, 0, 5000); err != nil || got {
		t.Errorf("another member's figures are called invented: %v, %v", got, err)
	}
	if err := s.MarkInvented(t.Context(), national, "test", a.ID, 10, 10); !errors.Is(err, ErrInvalid) {
		t.Errorf("an empty span: %v", err)
	}
	if err := s.MarkInvented(t.Context(), access.Only(b.ID), "test", a.ID, 10, 20); !errors.Is(err, ErrNotFound) {
		t.Errorf("outside of the scope: %v", err)
	}
}
