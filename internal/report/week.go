package report

import (
	"errors"
	"fmt"
	"time"
	_ "time/tzdata" // a machine without zones makes the same report
)

// london is the zone of every day and time in a report.
var london = func() *time.Location {
	l, err := time.LoadLocation("Europe/London")
	if err != nil {
		panic(err) // time/tzdata is linked
	}
	return l
}()

// ErrWeek says that a text does not name a week.
var ErrWeek = errors.New("a week is written like 2026-W47")

// Week is a week of ISO 8601, Monday to Sunday, by the days of London.
type Week struct {
	Year   int `json:"year"`
	Number int `json:"number"` // 1 to 53
}

// WeekOf is the week an instant lies in.
func WeekOf(t time.Time) Week {
	y, n := t.In(london).ISOWeek()
	return Week{y, n}
}

// ParseWeek reads what String writes.
func ParseWeek(s string) (Week, error) {
	var w Week
	if len(s) != 8 || s[4:6] != "-W" {
		return w, fmt.Errorf("%w, not %q", ErrWeek, clip(s, 20))
	}
	for i, c := range []byte(s) {
		switch {
		case i == 4 || i == 5:
		case c < '0' || c > '9':
			return Week{}, fmt.Errorf("%w, not %q", ErrWeek, clip(s, 20))
		case i < 4:
			w.Year = 10*w.Year + int(c-'0')
		default:
			w.Number = 10*w.Number + int(c-'0')
		}
	}
	if w.Year < 1970 || WeekOf(w.Start()) != w {
		return Week{}, fmt.Errorf("%w: there is no week %s", ErrWeek, s)
	}
	return w, nil
}

// String writes 2026-W47.
func (w Week) String() string { return fmt.Sprintf("%04d-W%02d", w.Year, w.Number) }

// MarshalText writes the week as String does.
func (w Week) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads the week as ParseWeek does.
func (w *Week) UnmarshalText(b []byte) (err error) {
	*w, err = ParseWeek(string(b))
	return err
}

// Start is Monday's midnight in London.
func (w Week) Start() time.Time {
	fourth := time.Date(w.Year, 1, 4, 0, 0, 0, 0, london) // always in week 1
	sinceMonday := (int(fourth.Weekday()) + 6) % 7
	return fourth.AddDate(0, 0, 7*(w.Number-1)-sinceMonday)
}

// End is the midnight after Sunday.
func (w Week) End() time.Time { return w.Start().AddDate(0, 0, 7) }

// Before is the week before.
func (w Week) Before() Week { return WeekOf(w.Start().AddDate(0, 0, -7)) }

// Words says the days: "16 to 22 November 2026".
func (w Week) Words() string {
	from, to := w.Start(), w.End().AddDate(0, 0, -1)
	switch {
	case from.Year() != to.Year():
		return from.Format("2 January 2006") + " to " + to.Format("2 January 2006")
	case from.Month() != to.Month():
		return from.Format("2 January") + " to " + to.Format("2 January 2006")
	}
	return from.Format("2") + " to " + to.Format("2 January 2006")
}

// clip cuts a text that is too long to be told.
func clip(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
