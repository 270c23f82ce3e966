package member

import (
	"testing"
	"time"
)

func TestStanding(t *testing.T) {
	for _, tc := range []struct {
		s           Standing
		tone, words string
	}{
		{Standing{Well: 1}, "good", "Yes. Nothing needs you."},
		{Standing{Well: 1, Medium: 2}, "warn", "Mostly, with something to look at."},
		{Standing{Well: 1, High: 1}, "bad", "Not quite: one thing needs you."},
		{Standing{High: 2, Critical: 1, Unwell: 1}, "bad", "Not quite: 3 things need you."},
		{Standing{Well: 1, Unwell: 1, Medium: 1}, "warn", "We cannot be sure."},
		{Standing{}, "warn", "We cannot say yet."},
		{Standing{Waiting: 1}, "warn", "Nearly there."},
		{Standing{Waiting: 1, Well: 1}, "warn", "Mostly, with something to look at."},
	} {
		if tc.s.Tone() != tc.tone || tc.s.Words() != tc.words {
			t.Errorf("%+v: %s, %s", tc.s, tc.s.Tone(), tc.s.Words())
		}
	}
}

func TestCondition(t *testing.T) {
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	heard := now.Add(-time.Minute).UnixNano()
	fine := Collector{State: Live, LastSeenNS: heard, Balance: Balance{Received: 1000, NotUnderstood: 200}}
	for want, change := range map[Condition]func(c *Collector){
		Healthy:       func(*Collector) {},
		ShutOut:       func(c *Collector) { c.State = Revoked },
		Unconfirmed:   func(c *Collector) { c.State, c.LastSeenNS = Quarantined, 0 },
		Silent:        func(c *Collector) { c.LastSeenNS = now.Add(-SilentAfter - 1).UnixNano() },
		Copied:        func(c *Collector) { c.Forks = 1 },
		Unbalanced:    func(c *Collector) { c.Balance.Gap = -1 },
		Idle:          func(c *Collector) { c.Balance = Balance{} },
		NotUnderstood: func(c *Collector) { c.Balance.NotUnderstood = 201 },
	} {
		c := fine
		change(&c)
		if got := c.Condition(now); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	never := fine
	never.LastSeenNS = 0
	if got := never.Condition(now); got != Silent {
		t.Errorf("never heard: %s", got)
	}
	var s Standing
	for c := Healthy; c <= NotUnderstood; c++ {
		s.Count(c)
		if c.String() == "" || c.Tone() == "good" != (c == Healthy) {
			t.Errorf("%d: %q, %s", c, c, c.Tone())
		}
	}
	if s.Well != 1 || s.Waiting != 1 || s.Unwell != 5 {
		t.Errorf("%+v", s)
	}
}
