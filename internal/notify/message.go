// Package notify carries alerts and letters out of the hub: mail for people, signed webhooks for programs. It is the outbox's channels.
//
// It reads outbox entries and speaks SMTP and HTTPS. It keeps nothing: what was recorded and what came of it is the outbox's. An attempt
// that may have succeeded before a crash is made again with the same Message-ID or Tocsin-Delivery, so that the receiver can tell.
package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/outbox"
)

// The kinds of outbox entries that this package runs.
const (
	KindMail    = "mail"
	KindWebhook = "webhook"
)

// Message is what an alert says outside. It stands on its own: what is sent is what was true when it was recorded.
type Message struct {
	Alert        string         `json:"alert"`  // the alert's id
	Number       string         `json:"number"` // as people quote it: AL-7K3M9QX
	Update       int            `json:"update"` // 0 the first notice, then 1, 2 …
	Tenant       event.TenantID `json:"tenant"`
	Organisation string         `json:"organisation"`
	Title        string         `json:"title"`
	Level        string         `json:"level"`
	Family       string         `json:"family"`
	Techniques   []string       `json:"techniques,omitempty"` // ATT&CK ids
	Reason       string         `json:"reason"`               // why it fired, with its numbers
	What         string         `json:"what,omitempty"`       // what happened, in plain words
	Do           []string       `json:"do,omitempty"`         // what to do, step by step
	Entity       string         `json:"entity"`
	EntityKind   string         `json:"entity_kind"`
	Source       string         `json:"source,omitempty"`
	Country      string         `json:"country,omitempty"`      // of the source, ISO 3166-1 alpha-2, for programs
	CountryName  string         `json:"country_name,omitempty"` // in English, for people
	Count        int64          `json:"count"`
	First        time.Time      `json:"first"`
	Last         time.Time      `json:"last"`
	URL          string         `json:"url"`
}

// mailPayload and hookPayload are what outbox entries hold.
type mailPayload struct {
	To      string  `json:"to"`
	Message Message `json:"message"`
}

type hookPayload struct {
	URL     string  `json:"url"`
	Message Message `json:"message"`
}

// Mail makes the outbox entry that mails m to one address.
func Mail(m Message, to string) (outbox.Entry, error) {
	return entry(KindMail, m, to, mailPayload{to, m})
}

// Webhook makes the outbox entry that posts m to a URL.
func Webhook(m Message, url string) (outbox.Entry, error) {
	// The key stands in logs and in a header, the address may hold a secret: a digest tells receivers apart as well.
	sum := sha256.Sum256([]byte(url))
	return entry(KindWebhook, m, hex.EncodeToString(sum[:8]), hookPayload{url, m})
}

func entry(kind string, m Message, to string, payload any) (outbox.Entry, error) {
	b, err := json.Marshal(payload)
	if err != nil {
		return outbox.Entry{}, fmt.Errorf("notice of alert %s: %w", m.Number, err)
	}
	return outbox.Entry{Key: fmt.Sprintf("alert/%s/%d/%s/%s", m.Alert, m.Update, kind, to), Kind: kind, Tenant: m.Tenant, Payload: b}, nil
}

// levelWord is how a level is said to people.
func levelWord(level string) string {
	if level == "informational" {
		return "For your information"
	}
	if level == "" {
		return "Alert"
	}
	return strings.ToUpper(level[:1]) + level[1:]
}

// oneLine makes text from outside fit for a header or a sentence: no line ends, no controls, nothing that turns the direction of what
// follows, not endless.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029:
			return ' '
		case r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c:
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return s
}

// plain is the message with what may hold words of an attacker, such as a user name that was tried, made fit for a mail's text: a line end
// in it would let them write a paragraph of their own there.
func (m Message) plain() Message {
	const most = 2000
	for _, s := range []*string{&m.Organisation, &m.Title, &m.Family, &m.Reason, &m.Entity, &m.EntityKind, &m.Source, &m.Country, &m.CountryName} {
		*s = oneLine(*s, most)
	}
	return m
}
