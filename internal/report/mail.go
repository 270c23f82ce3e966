package report

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	htmltemplate "html/template"
	texttemplate "text/template"

	"tocsin/internal/notify"
	"tocsin/internal/outbox"
)

// Kind is the outbox kind of mailed reports.
const Kind = "report"

//go:embed mail.html.tmpl mail.txt.tmpl
var mailFiles embed.FS

var (
	mailHTML = htmltemplate.Must(htmltemplate.ParseFS(mailFiles, "mail.html.tmpl"))
	mailText = texttemplate.Must(texttemplate.ParseFS(mailFiles, "mail.txt.tmpl"))
)

// payload is what an outbox entry holds: the report as it was when it was recorded, a tenth of the size of its PDF, which is drawn when the
// mail goes out.
type payload struct {
	To     string  `json:"to"`
	Name   string  `json:"name,omitempty"`
	Report *Report `json:"report"`
}

// Postman takes letters; *notify.Mailer is it.
type Postman interface {
	Send(ctx context.Context, key string, l notify.Letter) (string, error)
}

// Handler is the outbox handler of Kind.
func Handler(p Postman) outbox.Handler {
	return func(ctx context.Context, e outbox.Entry) (string, error) {
		var m payload
		if err := json.Unmarshal(e.Payload, &m); err != nil || m.Report == nil {
			return "", fmt.Errorf("%w: the entry cannot be read: %w", outbox.ErrPermanent, err)
		}
		l, err := m.letter()
		if err != nil {
			return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, err)
		}
		return p.Send(ctx, e.Key, l)
	}
}

// summary is what the templates of the mail see.
type summary struct {
	*Report
	Name string
}

// Shown are the alerts that stand in the mail.
func (s summary) Shown() []Alert { return s.Alerts[:min(len(s.Alerts), 3)] }

// First is the first piece of advice.
func (s summary) First() *Advice {
	if len(s.Advice) == 0 {
		return nil
	}
	return &s.Advice[0]
}

// Page is the address of the report's page.
func (s summary) Page() string {
	if s.PublicURL == "" {
		return ""
	}
	return s.PublicURL + "/reports/" + s.Week.String() + ".html"
}

func (m payload) letter() (notify.Letter, error) {
	pdf, err := m.Report.PDF()
	if err != nil {
		return notify.Letter{}, err
	}
	var text, html bytes.Buffer
	s := summary{m.Report, m.Name}
	if err := mailText.Execute(&text, s); err != nil {
		return notify.Letter{}, fmt.Errorf("writing the mail: %w", err)
	}
	if err := mailHTML.Execute(&html, s); err != nil {
		return notify.Letter{}, fmt.Errorf("writing the mail: %w", err)
	}
	subject := fmt.Sprintf("Weekly report of %s. Are we all right? %s", clip(m.Report.Organisation, 60), m.Report.Verdict)
	if m.Report.Invented {
		subject = "[Invented] " + subject
	}
	return notify.Letter{
		To: m.To, Subject: subject, Text: text.String(), HTML: html.String(),
		Files: []notify.File{{Name: m.Report.FileName() + ".pdf", Type: "application/pdf", Body: pdf}},
	}, nil
}
