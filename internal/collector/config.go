package collector

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/config"
	"tocsin/internal/directive"
	"tocsin/internal/durable"
)

// Config is the settings file of a collector. Every key may also be set as TOCSIN_COLLECTOR_SECTION_KEY, but for the list of listeners.
type Config struct {
	Dir       string   `yaml:"dir"`        // where keys, archive, spool and state live. Default /var/lib/tocsin-collector
	Hub       string   `yaml:"hub"`        // host:port of the gate; default: the address in the enrolment token
	Listen    Listen   `yaml:"listen"`     // where log lines come in
	OwnRanges []string `yaml:"own_ranges"` // the member's public ranges, such as 198.51.100.0/24; private ranges are own without being named
	Policy    Policy   `yaml:"policy"`     // what may leave
	Archive   Archive  `yaml:"archive"`    // raw lines kept on this machine
	Spool     Spool    `yaml:"spool"`      // events that wait to leave
	Sent      Sent     `yaml:"sent"`       // the record of what left
	LookBack  LookBack `yaml:"look_back"`  // questions about the past
	Page      Page     `yaml:"page"`       // the local page
	Log       Log      `yaml:"log"`
	Update    Update   `yaml:"update"` // newer releases of this program
	// RetryMax is the longest wait between two attempts to reach the hub. Default 1m; the waits are random and grow up to it.
	RetryMax time.Duration `yaml:"retry_max"`
}

// Listen lists the ports.
type Listen struct {
	Syslog         []Syslog  `yaml:"syslog"`
	Files          []Files   `yaml:"files"`
	HTTP           []HTTP    `yaml:"http"`
	Beats          []Beats   `yaml:"beats"`
	Flows          []Flows   `yaml:"flows"`
	OTLP           []HTTP    `yaml:"otlp"` // OpenTelemetry logs over HTTP and gRPC, on one port
	Devices        []Device  `yaml:"devices"`
	TLS            ListenTLS `yaml:"tls"`
	MaxLine        int       `yaml:"max_line"`        // bytes of one line that are kept; default 65536
	MaxConnections int       `yaml:"max_connections"` // of TCP, for each port; default 256
}

// ListenTLS is the certificate that TLS ports show. Without files the collector makes an authority of its own and a certificate, in DIR/tls.
type ListenTLS struct {
	Certificate string   `yaml:"certificate"` // PEM file; read again when it changes
	Key         string   `yaml:"key"`         // PEM file
	Names       []string `yaml:"names"`       // host names and addresses for the made certificate, beside this machine's own
}

// Files is a set of log files to follow, a folder whose files are taken whole, or both. The order of the entries names their places on disk:
// add new ones at the end.
type Files struct {
	Paths    []string `yaml:"paths"`    // files and patterns to follow, such as /var/log/nginx/*.log
	Drop     string   `yaml:"drop"`     // folder: every file put there is read and moved to done/ or failed/ below it
	FromEnd  bool     `yaml:"from_end"` // at the first start, pass over what the followed files hold already
	Timezone string   `yaml:"timezone"` // as for syslog
	Format   string   `yaml:"format"`   // as for syslog
}

// HTTP takes JSON lines, JSON and text with POST /v1/logs from senders that show a token.
type HTTP struct {
	TCP       string `yaml:"tcp"`        // address and port, such as 127.0.0.1:8088; without TLS the token can be read on the way
	TLS       string `yaml:"tls"`        // the same, with TLS, such as 0.0.0.0:8443
	ClientCA  string `yaml:"client_ca"`  // as for syslog
	TokenFile string `yaml:"token_file"` // a file with a token of your own, beside those made by tocsin-collector token
	Timezone  string `yaml:"timezone"`
	Format    string `yaml:"format"`
}

// Flows takes NetFlow v5, v9 and IPFIX.
type Flows struct {
	UDP string `yaml:"udp"` // address and port, such as 0.0.0.0:2055
}

// Beats takes events from filebeat, winlogbeat and their kin (output.logstash).
type Beats struct {
	TCP      string `yaml:"tcp"` // address and port, such as 0.0.0.0:5044
	TLS      string `yaml:"tls"`
	ClientCA string `yaml:"client_ca"`
	Timezone string `yaml:"timezone"`
	Format   string `yaml:"format"`
}

// Syslog is one listener: UDP, TCP, TLS or several of them.
type Syslog struct {
	UDP            string `yaml:"udp"`             // address and port, such as 0.0.0.0:514
	TCP            string `yaml:"tcp"`             // the same, for streams
	TLS            string `yaml:"tls"`             // the same, for streams with TLS (RFC 5425), such as 0.0.0.0:6514
	ClientCA       string `yaml:"client_ca"`       // PEM file: only TLS senders with a certificate from these authorities are let in
	Timezone       string `yaml:"timezone"`        // of senders that write none; default Europe/London
	Format         string `yaml:"format"`          // a product to try first; default auto
	Relay          bool   `yaml:"relay"`           // its senders pass on the logs of many devices: do not pin them to the products they first sent
	PermitHostdown bool   `yaml:"permit_hostdown"` // the Cisco ASAs that send here over TCP have "logging permit-hostdown": do not warn
}

// Device says how the lines of one sender, or of all in a range, are read, whichever port they come to. What is left out is the port's.
type Device struct {
	Address  string `yaml:"address"`  // such as 192.0.2.1 or 192.0.2.0/24; the narrowest range counts
	Timezone string `yaml:"timezone"` // as for syslog
	Format   string `yaml:"format"`   // as for syslog
	Relay    bool   `yaml:"relay"`    // as for syslog
}

// Policy says what may leave the site.
type Policy struct {
	Name       string   `yaml:"name"`       // metadata, full, or the path of a policy file; default metadata
	AlsoLeave  []string `yaml:"also_leave"` // fields let go beyond the policy, such as user.name
	AlsoKeep   []string `yaml:"also_keep"`  // fields kept back beyond the policy; stronger than also_leave
	Pseudonyms []string `yaml:"pseudonyms"` // addresses, users: leave as pseudonyms that only this machine can turn back
}

// Archive bounds the raw lines kept on this machine.
type Archive struct {
	MaxBytes int64 `yaml:"max_bytes"` // default 4294967296
	MaxDays  int   `yaml:"max_days"`  // default 30
}

// Spool bounds what waits while the hub is away. When it is full events are dropped, the lowest value first and of that the oldest, and counted.
type Spool struct {
	MaxBytes int64 `yaml:"max_bytes"` // default 1073741824
}

// Sent bounds the record of what left. What has no receipt is never deleted.
type Sent struct {
	Days     int   `yaml:"days"`      // after the receipt; default 14
	MaxBytes int64 `yaml:"max_bytes"` // default 2147483648
}

// LookBack says how questions about the past are answered.
type LookBack struct {
	Consent   string `yaml:"consent"`    // ask (each question waits for the member), standing, or never; default ask
	MaxEvents int    `yaml:"max_events"` // that one answer may hold, whatever the question says; default 1000
}

// Page is the page on which the member reads what happens here.
type Page struct {
	Listen string `yaml:"listen"` // loopback address and port; default 127.0.0.1:0 (any free port; tocsin-collector page names it); off: none
}

// Log says how much is written to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error; default info
	Format string `yaml:"format"` // text or json; default text
}

// DefaultConfig is what holds without a file.
func DefaultConfig() Config {
	return Config{
		Dir:     "/var/lib/tocsin-collector",
		Listen:  Listen{MaxLine: 64 << 10, MaxConnections: 256},
		Policy:  Policy{Name: "metadata"},
		Archive: Archive{MaxBytes: 4 << 30, MaxDays: 30},
		Spool:   Spool{MaxBytes: 1 << 30},
		Sent:    Sent{Days: 14, MaxBytes: 2 << 30}, LookBack: LookBack{Consent: ConsentAsk, MaxEvents: 1000}, Page: Page{Listen: "127.0.0.1:0"},
		Log: Log{Level: "info", Format: "text"}, RetryMax: time.Minute,
		Update: defaultUpdate(),
	}
}

// EnvPrefix begins the names of environment variables that set a collector's keys.
const EnvPrefix = "TOCSIN_COLLECTOR"

// LoadConfig reads defaults, the file (none when empty), the environment and flags, each over the one before, and checks the result.
func LoadConfig(file string, environ []string, flags map[string]string) (Config, config.Origins, error) {
	c := DefaultConfig()
	origins, err := config.Load(&c, config.Options{File: file, EnvPrefix: EnvPrefix, Environ: environ, Flags: flags})
	if err != nil {
		return c, nil, err
	}
	return c, origins, c.Check()
}

// Check says what is wrong with the settings, each with the key to change.
func (c *Config) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		bad("dir is empty: name the folder for keys, archive and spool")
	} else if abs, err := filepath.Abs(c.Dir); err == nil {
		c.Dir = abs
	}
	if c.Hub != "" {
		if _, _, err := net.SplitHostPort(c.Hub); err != nil {
			bad("hub: %q is not host:port", c.Hub)
		}
	}
	c.checkInputs(bad)
	if _, err := c.ownRanges(); err != nil {
		errs = append(errs, err)
	}
	for _, p := range c.Policy.Pseudonyms {
		if p != "addresses" && p != "users" {
			bad("policy.pseudonyms: %q is neither addresses nor users", p)
		}
	}
	if _, err := minimise.Load(c.Policy.Name); err != nil {
		bad("policy.name: %w", err)
	}
	if c.Listen.MaxLine < 1024 || c.Listen.MaxLine > 1<<20 {
		bad("listen.max_line must be between 1024 and 1048576")
	}
	if c.Archive.MaxBytes < 1<<20 || c.Archive.MaxDays < 1 {
		bad("archive needs at least 1 MiB (max_bytes) and a day (max_days)")
	}
	if c.Spool.MaxBytes < 1<<20 {
		bad("spool.max_bytes must be at least 1 MiB")
	}
	if c.Sent.Days < 1 || c.Sent.MaxBytes < 1<<20 {
		bad("sent needs at least a day (days) and 1 MiB (max_bytes)")
	}
	if !slices.Contains([]string{ConsentAsk, ConsentStanding, ConsentNever}, c.LookBack.Consent) {
		bad("look_back.consent is ask, standing or never")
	}
	if c.LookBack.MaxEvents < 1 || c.LookBack.MaxEvents > directive.MaxHits {
		bad("look_back.max_events must be between 1 and %d", directive.MaxHits)
	}
	if err := checkPage(c.Page.Listen); err != nil {
		bad("page.listen: %w", err)
	}
	if c.RetryMax < time.Second || c.RetryMax > time.Hour {
		bad("retry_max must be between 1s and 1h")
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) || !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		bad("log.level is debug, info, warn or error; log.format is text or json")
	}
	return errors.Join(errs...)
}

// location is a time zone by name; nil, the parser's default, for none.
func location(name string) (*time.Location, error) {
	if name == "" {
		return nil, nil
	}
	return time.LoadLocation(name)
}

func (c *Config) ownRanges() ([]netip.Prefix, error) {
	var own []netip.Prefix
	for _, s := range c.OwnRanges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil {
				return nil, fmt.Errorf("own_ranges: %q is neither an address nor a range such as 198.51.100.0/24", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		own = append(own, p.Masked())
	}
	return own, nil
}

// minimiser makes the minimiser that the settings ask for. key is the member's pseudonym key.
func (c *Config) minimiser(key [32]byte) (*minimise.Minimiser, error) {
	p, err := minimise.Load(c.Policy.Name)
	if err != nil {
		return nil, err
	}
	own, err := c.ownRanges()
	if err != nil {
		return nil, err
	}
	return minimise.New(minimise.Options{
		Policy: p, Own: own, AlsoLeave: c.Policy.AlsoLeave, AlsoKeep: c.Policy.AlsoKeep,
		PseudonymAddresses: slices.Contains(c.Policy.Pseudonyms, "addresses"),
		PseudonymUsers:     slices.Contains(c.Policy.Pseudonyms, "users"),
		PseudonymKey:       key,
	})
}

// Paths inside the collector's folder.
func (c *Config) path(name string) string { return filepath.Join(c.Dir, name) }

// KeyDir is the folder of the collector's keys.
func (c *Config) KeyDir() string { return c.path("keys") }

// StatusSocket is the unix socket on which a running collector answers.
func (c *Config) StatusSocket() string { return c.path(filepath.Join("run", "status.sock")) }

// enrolmentFile holds what the hub said at enrolment.
func (c *Config) enrolmentFile() string { return c.path("enrolment.json") }

// writeFile replaces a file so that a crash leaves the old one or the new one.
func writeFile(name string, b []byte) error { return durable.Replace(name, b, 0o600) }
