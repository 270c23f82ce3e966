package member

import (
	"fmt"
	"time"
)

// Condition is how a collector is, in the order in which the first that holds is said. Every page and report says it from here, so that no
// two of them answer differently.
type Condition uint8

// The conditions of a collector.
const (
	Healthy       Condition = iota
	ShutOut                 // revoked
	Unconfirmed             // joined, its check words not compared
	Silent                  // not heard for SilentAfter, or never
	Copied                  // two records under one number
	Unbalanced              // lines or events that are in none of the places they may be in
	Idle                    // connected, and no device has sent it a line
	NotUnderstood           // much of what its devices say is in no form we know
)

// SilentAfter is how long a collector may say nothing before it counts as silent: it asks at least every 30 seconds, and ten minutes are
// beyond any restart or update.
const SilentAfter = 10 * time.Minute

// Condition says how the collector is at an instant.
func (c *Collector) Condition(now time.Time) Condition {
	switch {
	case c.State == Revoked:
		return ShutOut
	case c.State == Quarantined:
		return Unconfirmed
	case c.LastSeenNS == 0 || now.Sub(time.Unix(0, c.LastSeenNS)) > SilentAfter:
		return Silent
	case c.Forks > 0:
		return Copied
	case c.Balance.Gap != 0:
		return Unbalanced
	case c.Balance.Received == 0:
		return Idle
	case c.Balance.Received > 100 && c.Balance.NotUnderstood*5 > c.Balance.Received:
		return NotUnderstood
	}
	return Healthy
}

// String is the condition in a word or two, for a badge.
func (c Condition) String() string {
	switch c {
	case ShutOut:
		return "Shut out"
	case Unconfirmed:
		return "Waiting for check words"
	case Silent:
		return "Silent"
	case Copied:
		return "Copied?"
	case Unbalanced:
		return "Gap"
	case Idle:
		return "No lines yet"
	case NotUnderstood:
		return "Not understood"
	}
	return "Healthy"
}

// Tone is good, warn or bad.
func (c Condition) Tone() string {
	switch c {
	case Healthy:
		return "good"
	case Unconfirmed, Idle, NotUnderstood:
		return "warn"
	}
	return "bad"
}

// Standing is what "are we all right?" is answered from: on the attack picture and in the weekly report with its mail alike.
type Standing struct {
	Critical, High, Medium int64 // open alerts that nobody at the member has dealt with; lower ones do not change the answer
	Well, Unwell, Waiting  int   // collectors that are healthy, that are not, and that wait for their check words; those taken out of service do not count
}

// Count adds a collector.
func (s *Standing) Count(c Condition) {
	switch c {
	case ShutOut:
	case Unconfirmed:
		s.Waiting++
	case Healthy:
		s.Well++
	default:
		s.Unwell++
	}
}

// Answer is why the answer is what it is.
type Answer uint8

// The answers, gravest first. What is mailed as something to look at is not answered with yes.
const (
	NotQuite    Answer = iota // a serious alert is open
	NearlyThere               // nothing but the check words is missing
	CannotSay                 // nobody watches
	CannotBeSure
	Mostly // an alert that is not serious, but worth a look; or one more collector waits for its check words
	AllRight
)

// Answer gives the one that holds.
func (s Standing) Answer() Answer {
	switch {
	case s.Serious() > 0:
		return NotQuite
	case s.Well+s.Unwell == 0 && s.Waiting > 0:
		return NearlyThere
	case s.Well+s.Unwell == 0:
		return CannotSay
	case s.Unwell > 0:
		return CannotBeSure
	case s.Medium+int64(s.Waiting) > 0:
		return Mostly
	}
	return AllRight
}

// Serious counts the open alerts that cannot wait.
func (s Standing) Serious() int64 { return s.Critical + s.High }

// Words say the answer, after "Are we all right?".
func (s Standing) Words() string {
	switch s.Answer() {
	case NotQuite:
		if s.Serious() == 1 {
			return "Not quite: one thing needs you."
		}
		return fmt.Sprintf("Not quite: %d things need you.", s.Serious())
	case NearlyThere:
		return "Nearly there."
	case CannotSay:
		return "We cannot say yet."
	case CannotBeSure:
		return "We cannot be sure."
	case Mostly:
		return "Mostly, with something to look at."
	}
	return "Yes. Nothing needs you."
}

// Tone is good, warn or bad.
func (s Standing) Tone() string {
	switch s.Answer() {
	case NotQuite:
		return "bad"
	case AllRight:
		return "good"
	}
	return "warn"
}
