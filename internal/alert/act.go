package alert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"tocsin/internal/access"
	"tocsin/internal/db"
	"tocsin/internal/event"
)

// act runs one person's deed on one alert in a transaction.
func (s *Store) act(ctx context.Context, by access.Principal, id, what string, fn func(ctx context.Context, w *work, t *touched) error) (Alert, error) {
	scope, err := access.Of(by)
	if err != nil {
		return Alert{}, err
	}
	var out Alert
	err = s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		a, err := get(ctx, tx, scope, id)
		if err != nil {
			return err
		}
		w := s.begin(tx)
		t, err := w.load(ctx, a.Num)
		if err != nil {
			return err
		}
		if t == nil {
			return fmt.Errorf("alert %s: %w", a.Ref, ErrNotFound)
		}
		t.kind, t.dirty = Updated, true
		if err := fn(ctx, w, t); err != nil {
			return err
		}
		if _, err := w.finish(ctx); err != nil {
			return err
		}
		out, err = get(ctx, tx, scope, a.ID)
		return err
	})
	if err != nil {
		return Alert{}, fmt.Errorf("%s: %w", what, err)
	}
	s.committed()
	return out, nil
}

func analyst(by access.Principal) error {
	if _, err := access.National(by); err != nil {
		return fmt.Errorf("%w: this is for the centre's analysts; write a note, and they will see it", ErrDenied)
	}
	return nil
}

func note(text string, least int) (string, error) {
	text = strings.TrimSpace(text)
	if n := utf8.RuneCountInString(text); n < least || n > maxText {
		return "", fmt.Errorf("%w: write %d to %d characters", ErrInvalid, least, maxText)
	}
	if !utf8.ValidString(text) {
		return "", fmt.Errorf("%w: the text is not UTF-8", ErrInvalid)
	}
	return text, nil
}

// Assign gives an open alert to an analyst or operator; to "" gives it back to
// the queue.
func (s *Store) Assign(ctx context.Context, by access.Principal, id, to string) (Alert, error) {
	if err := analyst(by); err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "assigning the alert", func(ctx context.Context, w *work, t *touched) error {
		if !t.a.Open {
			return fmt.Errorf("%s: %w; reopen it first", t.a.Ref, ErrClosed)
		}
		if t.a.Assignee == to {
			t.dirty = false
			return nil
		}
		t.a.Assignee = to
		if to == "" {
			t.a.State = StateNew
			w.act(t, by.UserID, by.Name, "unassigned", "Given back to the queue", false)
			return nil
		}
		var name, role string
		var disabled bool
		err := w.tx.QueryRowContext(ctx, "SELECT name, role, disabled FROM people WHERE id = ?", to).Scan(&name, &role, &disabled)
		if db.NotFound(err) || err == nil && (disabled || role == string(access.Member)) {
			return fmt.Errorf("%w: alerts can be given to analysts and operators with an account only", ErrInvalid)
		}
		if err != nil {
			return err
		}
		t.a.State = StateAssigned
		w.act(t, by.UserID, by.Name, "assigned", "Assigned to "+name, true)
		return nil
	})
}

// Escalate marks an open alert as needing more than its assignee and tells the
// channels at once.
func (s *Store) Escalate(ctx context.Context, by access.Principal, id, text string) (Alert, error) {
	if err := analyst(by); err != nil {
		return Alert{}, err
	}
	text, err := note(text, 0)
	if err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "escalating the alert", func(ctx context.Context, w *work, t *touched) error {
		switch {
		case !t.a.Open:
			return fmt.Errorf("%s: %w; reopen it first", t.a.Ref, ErrClosed)
		case t.a.EscalatedNS != 0:
			return fmt.Errorf("%s: %w: it is escalated already", t.a.Ref, ErrInvalid)
		}
		t.a.EscalatedNS = w.now
		t.notice, t.by, t.note = Escalated, by.Name, text
		w.act(t, by.UserID, by.Name, "escalated", text, false)
		return nil
	})
}

// Close ends an alert with a verdict and, if there is one, a note.
func (s *Store) Close(ctx context.Context, by access.Principal, id, verdict, text string) (Alert, error) {
	if err := analyst(by); err != nil {
		return Alert{}, err
	}
	if !slices.Contains(Verdicts, verdict) {
		return Alert{}, fmt.Errorf("closing the alert: %w: %q is not a verdict: use %s", ErrInvalid, clip(verdict, 40), strings.Join(Verdicts, ", "))
	}
	text, err := note(text, 0)
	if err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "closing the alert", func(ctx context.Context, w *work, t *touched) error {
		if t.a.State == StateClosed {
			return fmt.Errorf("%s: %w already", t.a.Ref, ErrClosed)
		}
		t.a.State, t.a.Open, t.a.ClosedNS, t.a.Verdict, t.a.DueNS = StateClosed, false, w.now, verdict, 0
		line := strings.ReplaceAll(verdict, "_", " ")
		if text != "" {
			line += ": " + text
		}
		w.act(t, by.UserID, by.Name, "closed", line, true)
		return nil
	})
}

// Reopen brings a closed or suppressed alert back, unless its group has a newer
// open one.
func (s *Store) Reopen(ctx context.Context, by access.Principal, id, text string) (Alert, error) {
	if err := analyst(by); err != nil {
		return Alert{}, err
	}
	text, err := note(text, 0)
	if err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "reopening the alert", func(ctx context.Context, w *work, t *touched) error {
		if t.a.Open {
			return fmt.Errorf("%s: %w already", t.a.Ref, ErrNotClosed)
		}
		group := groupKey(t.a.Tenant, t.a.Family, event.Entity{Kind: t.a.EntityKind, Value: t.a.Entity})
		var num int64
		var ref string
		var open bool
		err := w.tx.QueryRowContext(ctx, "SELECT g.alert, a.ref, a.open FROM alert_groups g JOIN alerts a ON a.num = g.alert WHERE g.grp = ?", group).Scan(&num, &ref, &open)
		if err != nil && !db.NotFound(err) {
			return err
		}
		if err == nil && num != t.a.Num && open {
			return fmt.Errorf("%w: %s, which is about the same, is open; work on that one", ErrInvalid, ref)
		}
		t.group, t.moved = group, true
		t.a.State, t.a.Open, t.a.ClosedNS, t.a.Verdict = StateNew, true, 0, ""
		if t.a.Assignee != "" {
			t.a.State = StateAssigned
		}
		w.act(t, by.UserID, by.Name, "reopened", text, true)
		return nil
	})
}

// Note adds a text to an alert's history. Members' notes, and those of analysts
// with shared set, are read by both sides.
func (s *Store) Note(ctx context.Context, by access.Principal, id, text string, shared bool) (Alert, error) {
	text, err := note(text, 1)
	if err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "writing the note", func(ctx context.Context, w *work, t *touched) error {
		w.act(t, by.UserID, by.Name, "note", text, shared || by.Role == access.Member)
		return nil
	})
}

// Acknowledge is a member's "we have seen to it", with a note if there is one.
func (s *Store) Acknowledge(ctx context.Context, by access.Principal, id, text string) (Alert, error) {
	text, err := note(text, 0)
	if err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "acknowledging the alert", func(ctx context.Context, w *work, t *touched) error {
		if t.a.AcknowledgedNS != 0 && text == "" {
			t.dirty = false
			return nil
		}
		if t.a.AcknowledgedNS == 0 {
			t.a.AcknowledgedNS = w.now
		}
		w.act(t, by.UserID, by.Name, "acknowledged", text, true)
		return nil
	})
}

// Suppress keeps an alert's group (tenant, family and entity) out of the queue
// until a time, with a reason.
func (s *Store) Suppress(ctx context.Context, by access.Principal, id string, untilNS int64, why string) (Alert, error) {
	if err := analyst(by); err != nil {
		return Alert{}, err
	}
	return s.act(ctx, by, id, "suppressing the alert", func(ctx context.Context, w *work, t *touched) error {
		row, err := s.newSuppression(by, Suppression{Tenant: t.a.Tenant, Family: t.a.Family, EntityKind: t.a.EntityKind, Entity: t.a.Entity, Reason: why, ExpiresNS: untilNS})
		if err != nil {
			return err
		}
		if t.a.State == StateClosed {
			return fmt.Errorf("%s: %w; add a suppression instead", t.a.Ref, ErrClosed)
		}
		if _, err := w.tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return err
		}
		t.a.State, t.a.Open, t.a.DueNS = StateSuppressed, false, 0
		w.act(t, by.UserID, by.Name, "suppressed", row.Reason, true)
		return nil
	})
}

// Due gives the notices whose time has come: the counts of alerts that went on
// after their last notice. It returns how many.
func (s *Store) Due(ctx context.Context) (int, error) {
	var waiting int
	if err := s.db.Read().NewRaw("SELECT count(*) FROM (SELECT 1 FROM alerts WHERE due_ns > 0 AND due_ns <= ? LIMIT 1)", s.now()).Scan(ctx, &waiting); err != nil || waiting == 0 {
		return 0, err
	}
	n := 0
	err := s.db.Write(ctx, func(ctx context.Context, tx bun.IDB) error {
		w := s.begin(tx)
		var nums []int64
		if err := tx.NewRaw("SELECT num FROM alerts WHERE due_ns > 0 AND due_ns <= ? ORDER BY due_ns LIMIT 200", w.now).Scan(ctx, &nums); err != nil {
			return err
		}
		n = len(nums)
		for _, num := range nums {
			t, err := w.load(ctx, num)
			if err != nil {
				return err
			}
			if t == nil {
				return errors.New("an alert vanished")
			}
			t.kind, t.notice, t.dirty = Updated, Updated, true
		}
		_, err := w.finish(ctx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("giving the notices that are due: %w", err)
	}
	if n > 0 {
		s.committed()
	}
	return n, nil
}
