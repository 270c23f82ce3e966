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

//go:embed mail.txt.tmpl mail.html.tmpl digest.txt.tmpl digest.html.tmpl
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
		"at":     func(t time.Time) string { return t.In(o.Location).Format("2 January 2006, 15:04:05 MST") },
		"level":  levelWord,
		"alerts": alerts,
		"number": number,
	}
	text, err := texttemplate.New("mail.txt.tmpl").Funcs(funcs).ParseFS(templates, "*.txt.tmpl")
	if err != nil {
		return nil, err
	}
	html, err := htmltemplate.New("mail.html.tmpl").Funcs(funcs).ParseFS(templates, "*.html.tmpl")
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
	return m.hand(ctx, msg, p.To)
}

// hand gives a mail to the relay.
func (m *Mailer) hand(ctx context.Context, msg *mail.Msg, to string) (string, error) {
	client, err := m.client()
	if err != nil {
		return "", err
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		var s *mail.SendError
		if errors.As(err, &s) && !s.IsTemp() && (s.Reason == mail.ErrSMTPRcptTo || s.Reason == mail.ErrSMTPMailFrom) {
			return "", fmt.Errorf("%w: the relay does not take mail for %s: %w", outbox.ErrPermanent, to, err)
		}
		return "", fmt.Errorf("mail to %s: %w", to, err)
	}
	return "the relay took the mail for " + to, nil
}

// Letter is a mail whose text somebody else wrote, such as a report.
type Letter struct {
	To      string
	Subject string
	Text    string // plain; what every mail program can show
	HTML    string // the same, for those that show more
	Files   []File
}

// File is what is attached to a letter.
type File struct {
	Name string // as the receiver sees it
	Type string // application/pdf
	Body []byte
}

// Send gives a letter to the relay, for handlers of outbox entries: key is the entry's, and makes the Message-ID. The result is for people;
// an error that trying again cannot mend wraps outbox.ErrPermanent.
func (m *Mailer) Send(ctx context.Context, key string, l Letter) (string, error) {
	msg, err := m.blank(key, l.To, l.Subject)
	if err != nil {
		return "", fmt.Errorf("%w: %w", outbox.ErrPermanent, err)
	}
	msg.SetBodyString(mail.TypeTextPlain, l.Text)
	if l.HTML != "" {
		msg.AddAlternativeString(mail.TypeTextHTML, l.HTML)
	}
	for _, f := range l.Files {
		if err := msg.AttachReader(oneLine(f.Name, 100), bytes.NewReader(f.Body), mail.WithFileContentType(mail.ContentType(f.Type))); err != nil {
			return "", fmt.Errorf("%w: attaching %s: %w", outbox.ErrPermanent, f.Name, err)
		}
	}
	return m.hand(ctx, msg, l.To)
}

// blank starts a mail: sender, receiver, subject, and the headers that every mail of ours has.
func (m *Mailer) blank(key, to, subject string) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(m.o.From); err != nil {
		return nil, err
	}
	if err := msg.To(to); err != nil {
		return nil, err
	}
	msg.Subject(oneLine(subject, 180))
	sum := sha256.Sum256([]byte(key))
	domain := "tocsin.invalid"
	if at := strings.LastIndexByte(m.o.From, '@'); at >= 0 {
		domain = strings.Trim(m.o.From[at+1:], "<> ")
	}
	msg.SetMessageIDWithValue(hex.EncodeToString(sum[:16]) + "@" + domain)
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	return msg, nil
}

func (m *Mailer) compose(key string, p mailPayload) (*mail.Msg, error) {
	verb := ""
	if p.Message.Update > 0 {
		verb = "Update: "
	}
	msg, err := m.blank(key, p.To, fmt.Sprintf("[%s] %s%s – %s (%s)", levelWord(p.Message.Level), verb, p.Message.Title, p.Message.Organisation, p.Message.Number))
	if err != nil {
		return nil, err
	}
	data := struct {
		Message
		Scheme string
	}{p.Message.plain(), m.o.Scheme}
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
