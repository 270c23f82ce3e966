package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Hub is the settings of `tocsin hub`. The struct is the reference: each field says its meaning, unit and default.
type Hub struct {
	// DataDir holds everything the hub writes: keys, database, bus, batches, ledger, event store. Default: ./data.
	DataDir string `yaml:"data_dir"`
	// Scheme is the name people see, such as "Northshire Cyber Alarm". Default: "Tocsin".
	Scheme string `yaml:"scheme"`
	Gate   Gate   `yaml:"gate"`
	Web    Web    `yaml:"web"`
	Engine Engine `yaml:"engine"`
	Places Places `yaml:"places"`
	Bus    Bus    `yaml:"bus"`
	Rules  Rules  `yaml:"rules"`
	Health Health `yaml:"health"`
	Alerts Alerts `yaml:"alerts"`
	Mail   Mail   `yaml:"mail"`
	// Reports are the weekly reports that members get by mail.
	Reports   Reports   `yaml:"reports"`
	Retention Retention `yaml:"retention"`
	Log       Log       `yaml:"log"`
}

// Gate receives batches from collectors.
type Gate struct {
	// Listen is the address of the mutual-TLS listener. Default: ":8443".
	Listen string `yaml:"listen"`
	// Address is what collectors dial, host:port, written into enrolment tokens. Default: the listen address, with localhost for an empty host.
	Address string `yaml:"address"`
	// Names are the DNS names and addresses in the hub's certificate. Default: the host of Address.
	Names []string `yaml:"names"`
	// CertificateLife is how long a collector's certificate is valid. Default: 72h.
	CertificateLife time.Duration `yaml:"certificate_life"`
}

// Web serves the pages.
type Web struct {
	// Listen is the address of the pages. Default: "127.0.0.1:8080". Anything but loopback needs TLS here or a proxy that has it.
	Listen string `yaml:"listen"`
	// PublicURL is where people reach the pages; it stands in mails. Default: http://localhost:PORT.
	PublicURL string `yaml:"public_url"`
	// TLSCertificate and TLSKey are PEM files. Default: none, plain HTTP.
	TLSCertificate string `yaml:"tls_certificate"`
	TLSKey         string `yaml:"tls_key"`
	// TrustedProxies are the addresses or networks of the reverse proxies in front of the pages. Of these alone X-Forwarded-For is believed,
	// so that limits on sign-ins count people's own addresses. Default: none; behind a proxy everybody then counts as one place.
	TrustedProxies []string `yaml:"trusted_proxies"`
}

// Proxies are TrustedProxies as networks.
func (w Web) Proxies() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range w.TrustedProxies {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("web.trusted_proxies %q: want an address or a network, such as 127.0.0.1 or 10.1.2.0/24", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Bits() == 0 {
			return nil, fmt.Errorf("web.trusted_proxies %q: this is everybody, who could then write any address; name the proxies alone", text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Engine is the event store's child process.
type Engine struct {
	// Library is the path of libchdb.so. Default: sought in ../lib/tocsin beside the program, then /usr/lib/tocsin.
	Library string `yaml:"library"`
	// Program is the path of tocsin-engine. Default: beside this program.
	Program string `yaml:"program"`
	// Memory is the most the engine may use, in MiB. Default: 1024.
	Memory int `yaml:"memory"`
}

// Places is the data that gives addresses countries and networks.
type Places struct {
	// Dir holds the place data. Default: ../share/tocsin beside the program, then /usr/share/tocsin.
	Dir string `yaml:"dir"`
	// Overlay is the operator's own table, CSV: prefix, country, AS number, AS name, note. It wins over the data. Default: none.
	Overlay string `yaml:"overlay"`
}

// Bus carries batches from the gates to the ledger and the workers.
type Bus struct {
	// URL of an external NATS cluster. Default: none, embedded.
	URL string `yaml:"url"`
	// MaxBytes bounds the bus on disk, in MiB; beyond it gates answer 503 and collectors keep spooling. Default: 4096.
	MaxBytes int64 `yaml:"max_bytes"`
}

// Rules are the upstream detection rules that `tocsin rules update` takes in.
type Rules struct {
	// Keys are the public keys that may sign archives of rules, each the line of a release.pub (base64 of the SubjectPublicKeyInfo). With one of
	// them an archive needs no --sha256. Default: none.
	Keys []string `yaml:"keys"`
}

// Health says after which time the hub tells that something which detected attacks cannot any more (package health).
type Health struct {
	// CollectorSilent is how long nothing may be heard of a collector. Default: 30m.
	CollectorSilent time.Duration `yaml:"collector_silent"`
	// SourceSilent is the least silence of a device that is told; one that often pauses may be silent for three times its longest pause of the week,
	// up to 26 h. Default: 1h.
	SourceSilent time.Duration `yaml:"source_silent"`
	// SourceKnown is how long a device must have sent before its silence is told. Default: 24h.
	SourceKnown time.Duration `yaml:"source_known"`
	// Window is the least time over which events are compared to see whether a field has vanished; two of them are needed. Default: 15m.
	Window time.Duration `yaml:"window"`
	// DailyAt is the time of day, UTC, at which each member's line is tested with a harmless event: 05:30, or off. Default: 05:30.
	DailyAt string `yaml:"daily_at"`
	// DailyWithin is how long such a test may take before an alert tells that it is missing. Default: 10m.
	DailyWithin time.Duration `yaml:"daily_within"`
}

func (h Health) check() error {
	for _, x := range []struct {
		name string
		d    time.Duration
	}{{"collector_silent", h.CollectorSilent}, {"source_silent", h.SourceSilent}, {"source_known", h.SourceKnown}, {"window", h.Window}, {"daily_within", h.DailyWithin}} {
		if x.d < time.Second || x.d > 7*24*time.Hour {
			return fmt.Errorf("health.%s: must be between 1s and 168h, such as 30m", x.name)
		}
	}
	if h.DailyWithin > 12*time.Hour { // the next day's test takes its place: it must have been told by then
		return errors.New("health.daily_within: must be at most 12h")
	}
	return nil
}

// Alerts says where alerts go besides the pages.
type Alerts struct {
	// MailTo are addresses that get every alert of MinLevel and above. Default: none.
	MailTo []string `yaml:"mail_to"`
	// Webhook is a URL that gets a signed POST for each alert: https, or http on this machine. Only the hub's operator sets it, so it may
	// lead to an address inside; redirects are not followed. It is masked like a secret, for some receivers keep one in the path. Default: none.
	Webhook string `yaml:"webhook" secret:"true"`
	// WebhookSecret signs the POSTs (HMAC-SHA256). WebhookSecretFile is a file that holds it, and is better.
	WebhookSecret     string `yaml:"webhook_secret" secret:"true"`
	WebhookSecretFile string `yaml:"webhook_secret_file"`
	// MinLevel is the lowest level that is sent: informational, low, medium, high, critical. Default: medium.
	MinLevel string `yaml:"min_level"`
	// MailBudget is how many mails an hour one address gets about alerts, and as many again about critical ones. What is beyond is told
	// together, in one mail every ten minutes. 0 means no bound. Default: 20.
	MailBudget int `yaml:"mail_budget"`
}

// Mail is the relay that takes the hub's mail.
type Mail struct {
	// Host and Port of the relay. Default: none (no mail is sent), 587.
	Host string `yaml:"host"`
	Port int    `yaml:"port"`
	// From is the sender's address. Default: none; needed when Host is set.
	From string `yaml:"from"`
	// TLS is starttls (default), implicit, or none (only to a relay on loopback).
	TLS string `yaml:"tls"`
	// User and password for the relay. PasswordFile is a file that holds the password, and is better.
	User         string `yaml:"user"`
	Password     string `yaml:"password" secret:"true"`
	PasswordFile string `yaml:"password_file"`
}

// Reports are the weekly reports, mailed to each member's contact when mail.host is set. On demand they are always there.
type Reports struct {
	// Mail is false to mail none. Default: true.
	Mail bool `yaml:"mail"`
	// Weekday and Hour (0 to 23, London) are when the report of the week before goes out. Default: monday, 7.
	Weekday string `yaml:"weekday"`
	Hour    int    `yaml:"hour"`
}

// Retention is how long the hub keeps what members sent, in days. Records of alerts, the ledger and the counts stay.
type Retention struct {
	// Events is how long a stored event is kept from the day it was made. What is stored already keeps the term it was stored with. Default: 90; 30 to 3650.
	Events int `yaml:"events"`
	// Batches is how long a batch is kept as it came, encrypted: the evidence behind the events. Batches that still wait for the worker, and those
	// with events that could not be read, stay longer. Default: 90; 35 to 3650; 0 keeps them until the disk is full, when nothing new is taken in.
	Batches int `yaml:"batches"`
}

// Day is the weekday that Weekday names.
func (r Reports) Day() (time.Weekday, error) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if strings.EqualFold(r.Weekday, d.String()) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("reports.weekday %q: want monday, tuesday, wednesday, thursday, friday, saturday or sunday", r.Weekday)
}

// Log is how the hub reports to its operator, on stderr.
type Log struct {
	// Level is debug, info (default), warn or error.
	Level string `yaml:"level"`
	// Format is text (default) or json.
	Format string `yaml:"format"`
}

// DefaultHub gives the defaults that the fields of Hub name.
func DefaultHub() Hub {
	return Hub{
		DataDir: "data", Scheme: "Tocsin",
		Gate:      Gate{Listen: ":8443", CertificateLife: 72 * time.Hour},
		Web:       Web{Listen: "127.0.0.1:8080"},
		Engine:    Engine{Memory: 1024},
		Bus:       Bus{MaxBytes: 4096},
		Health:    Health{CollectorSilent: 30 * time.Minute, SourceSilent: time.Hour, SourceKnown: 24 * time.Hour, Window: 15 * time.Minute, DailyAt: "05:30", DailyWithin: 10 * time.Minute},
		Alerts:    Alerts{MinLevel: "medium", MailBudget: 20},
		Mail:      Mail{Port: 587, TLS: "starttls"},
		Reports:   Reports{Mail: true, Weekday: "monday", Hour: 7},
		Retention: Retention{Events: 90, Batches: 90},
		Log:       Log{Level: "info", Format: "text"},
	}
}

// Complete checks the settings together, fills those that follow from others and makes paths absolute.
func (h *Hub) Complete() error {
	abs, err := filepath.Abs(h.DataDir)
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	h.DataDir = abs
	if h.Gate.Address == "" {
		if h.Gate.Address, err = reachable(h.Gate.Listen); err != nil {
			return fmt.Errorf("gate.listen: %w", err)
		}
	}
	host, _, err := net.SplitHostPort(h.Gate.Address)
	if err != nil {
		return fmt.Errorf("gate.address %q: want host:port", h.Gate.Address)
	}
	if len(h.Gate.Names) == 0 {
		h.Gate.Names = []string{host}
	}
	if h.Gate.CertificateLife < time.Minute || h.Gate.CertificateLife > 90*24*time.Hour {
		return errors.New("gate.certificate_life: must be between 1m and 2160h; short lives are what makes a lost key harmless")
	}
	if (h.Web.TLSCertificate == "") != (h.Web.TLSKey == "") {
		return errors.New("web.tls_certificate and web.tls_key: set both or neither")
	}
	webHost, _, err := net.SplitHostPort(h.Web.Listen)
	if err != nil {
		return fmt.Errorf("web.listen %q: want host:port", h.Web.Listen)
	}
	if h.Web.PublicURL == "" {
		addr, err := reachable(h.Web.Listen)
		if err != nil {
			return fmt.Errorf("web.listen: %w", err)
		}
		h.Web.PublicURL = "http://" + addr
		if h.Web.TLSCertificate != "" {
			h.Web.PublicURL = "https://" + addr
		}
	}
	public, err := url.Parse(h.Web.PublicURL)
	if err != nil || public.Host == "" || public.Scheme != "http" && public.Scheme != "https" {
		return fmt.Errorf("web.public_url %q: want http://… or https://…", h.Web.PublicURL)
	}
	h.Web.PublicURL = strings.TrimSuffix(h.Web.PublicURL, "/")
	if public.Scheme == "http" && !loopback(webHost) {
		return fmt.Errorf("web.listen %q is reachable from other machines without TLS: set web.tls_certificate and web.tls_key, or listen on 127.0.0.1 behind a proxy and set web.public_url to its https address", h.Web.Listen)
	}
	if h.Engine.Memory < 256 {
		return errors.New("engine.memory: must be at least 256 (MiB)")
	}
	if h.Bus.MaxBytes < 64 {
		return errors.New("bus.max_bytes: must be at least 64 (MiB)")
	}
	if err := h.Health.check(); err != nil {
		return err
	}
	if h.Alerts.MailBudget < 0 {
		return fmt.Errorf("alerts.mail_budget %d: want how many mails an hour one address may get, or 0 for no bound", h.Alerts.MailBudget)
	}
	switch h.Alerts.MinLevel {
	case "informational", "low", "medium", "high", "critical":
	default:
		return fmt.Errorf("alerts.min_level %q: want informational, low, medium, high or critical", h.Alerts.MinLevel)
	}
	switch h.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		return fmt.Errorf("log.level %q: want debug, info, warn or error", h.Log.Level)
	}
	if h.Log.Format != "text" && h.Log.Format != "json" {
		return fmt.Errorf("log.format %q: want text or json", h.Log.Format)
	}
	switch h.Mail.TLS {
	case "starttls", "implicit":
	case "none":
		if !loopback(h.Mail.Host) && h.Mail.Host != "" {
			return errors.New("mail.tls none: only for a relay on this machine")
		}
	default:
		return fmt.Errorf("mail.tls %q: want starttls, implicit or none", h.Mail.TLS)
	}
	if h.Mail.Host != "" && h.Mail.From == "" {
		return errors.New("mail.from: needed when mail.host is set")
	}
	if len(h.Alerts.MailTo) > 0 && h.Mail.Host == "" {
		return errors.New("alerts.mail_to: needs mail.host, the relay that takes the mail")
	}
	if _, err := h.Web.Proxies(); err != nil {
		return err
	}
	if h.Alerts.Webhook != "" {
		u, err := url.Parse(h.Alerts.Webhook)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			return errors.New("alerts.webhook: want a whole address such as https://siem.example.org/tocsin")
		case u.Scheme == "http" && !loopback(u.Hostname()):
			return errors.New("alerts.webhook: members' alerts would cross the network readable by anybody; use https, or http only on this machine")
		case u.User != nil:
			return errors.New("alerts.webhook: leave name and password out of the address; the POSTs are signed with alerts.webhook_secret_file")
		}
	}
	if h.Alerts.Webhook != "" && h.Alerts.WebhookSecret == "" && h.Alerts.WebhookSecretFile == "" {
		return errors.New("alerts.webhook: needs alerts.webhook_secret_file, so that the receiver can tell our POSTs from others'")
	}
	if _, err := h.Reports.Day(); err != nil {
		return err
	}
	if h.Reports.Hour < 0 || h.Reports.Hour > 23 {
		return fmt.Errorf("reports.hour %d: want 0 to 23", h.Reports.Hour)
	}
	if d := h.Retention.Events; d < 30 || d > 3650 {
		return fmt.Errorf("retention.events %d: want 30 to 3650 days; within 30 days events and their sums can be compared and mended", d)
	}
	if d := h.Retention.Batches; d != 0 && (d < 35 || d > 3650) {
		return fmt.Errorf("retention.batches %d: want 35 to 3650 days, or 0 to keep all; a hub put back from an older copy reads up to 35 days of batches again", d)
	}
	for _, p := range []*string{&h.Engine.Library, &h.Engine.Program, &h.Places.Dir, &h.Places.Overlay} {
		if *p != "" {
			if *p, err = filepath.Abs(*p); err != nil {
				return err
			}
		}
	}
	return nil
}

// reachable turns a listen address into one that can be dialled on this machine.
func reachable(listen string) (string, error) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("%q: want host:port", listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
