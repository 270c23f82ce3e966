package notify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/wneessen/go-mail"

	"tocsin/internal/outbox"
)

//go:embed mail.txt.tmpl mail.html.tmpl
var templates embed.FS

// MailOptions say which relay takes the mail.
type MailOptions struct {
	Host     string
	Port     int
	From     string
	TLS      string // starttls (default), implicit, none
	User     string
	Password string
	Scheme   string         // the name people see
	Location *time.Location // for times in the text; default UTC
	Roots    *tls.Config    // for tests: how the relay's certificate is checked
}

// Mailer sends mail through one relay. Safe for concurrent use.
type Mailer struct {
	o    MailOptions
	text *texttemplate.Template
	html *htmltemplate.Template
}

// NewMailer checks the options; it does not connect.
func NewMailer(o MailOptions) (*Mailer, error) {
	if o.Location == nil {
		o.Location = time.UTC
	}
	funcs := map[string]any{
		"at":    func(t time.Time) string { return t.In(o.Location).Format("2 January 2006, 15:04:05 MST") },
		"level": levelWord,
	}
	text, err := texttemplate.New("mail.txt.tmpl").Funcs(funcs).ParseFS(templates, "mail.txt.tmpl")
	if err != nil {
		return nil, err
	}
	html, err := htmltemplate.New("mail.html.tmpl").Funcs(funcs).ParseFS(templates, "mail.html.tmpl")
	if err != nil {
		return nil, err
	}
	m := &Mailer{o, text, html}
	if _, err := m.client(); err != nil {
		return nil, fmt.Errorf("mail relay: %w", err)
	}
	if err := mail.NewMsg().From(o.From); err != nil {
		return nil, fmt.Errorf("mail sender %q: %w", o.From, err)
	}
	return m, nil
}

func (m *Mailer) client() (*mail.Client, error) {
	opts := []mail.Option{mail.WithPort(m.o.Port), mail.WithTimeout(20 * time.Second)}
	switch m.o.TLS {
	case "", "starttls":
		opts = append(opts, mail.WithTLSPolicy(mail.TLSMandatory))
	case "implicit":
		opts = append(opts, mail.WithSSL())
	case "none":
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	default:
		return nil, fmt.Errorf("TLS %q: want starttls, implicit or none", m.o.TLS)
	}
	if m.o.User != "" {
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(m.o.User), mail.WithPassword(m.o.Password))
	}
	if m.o.Roots != nil {
		opts = append(opts, mail.WithTLSConfig(m.o.Roots))
	}
	return mail.NewClient(m.o.Host, opts...)
}

// Run is the outbox handler of KindMail.
func (m *Mailer) Run(ctx context.Context, e outbox.Entry) (string, error) {
	var p mailPayload
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return "", fmt.Errorf("%w: the entry cannot be read: %w", outbox.ErrPermanent, err)
	}
	msg, err := m.compose(e.Key, p)
	if err != nil {
		return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, err)
	}
	client, err := m.client()
	if err != nil {
		return "", err
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		var s *mail.SendError
		if errors.As(err, &s) && !s.IsTemp() && (s.Reason == mail.ErrSMTPRcptTo || s.Reason == mail.ErrSMTPMailFrom) {
			return "", fmt.Errorf("%w: the relay does not take mail for %s: %w", outbox.ErrPermanent, p.To, err)
		}
		return "", fmt.Errorf("mail to %s: %w", p.To, err)
	}
	return "the relay took the mail for " + p.To, nil
}

func (m *Mailer) compose(key string, p mailPayload) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(m.o.From); err != nil {
		return nil, err
	}
	if err := msg.To(p.To); err != nil {
		return nil, err
	}
	verb := ""
	if p.Message.Update > 0 {
		verb = "Update: "
	}
	msg.Subject(oneLine(fmt.Sprintf("[%s] %s%s – %s (%s)", levelWord(p.Message.Level), verb, p.Message.Title, p.Message.Organisation, p.Message.Number), 180))
	sum := sha256.Sum256([]byte(key))
	domain := "tocsin.invalid"
	if at := strings.LastIndexByte(m.o.From, '@'); at >= 0 {
		domain = strings.Trim(m.o.From[at+1:], "<> ")
	}
	msg.SetMessageIDWithValue(hex.EncodeToString(sum[:16]) + "@" + domain)
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	data := struct {
		Message
		Scheme string
	}{p.Message, m.o.Scheme}
	var text, html bytes.Buffer
	if err := m.text.Execute(&text, data); err != nil {
		return nil, err
	}
	if err := m.html.Execute(&html, data); err != nil {
		return nil, err
	}
	msg.SetBodyString(mail.TypeTextPlain, text.String())
	msg.AddAlternativeString(mail.TypeTextHTML, html.String())
	return msg, nil
}
