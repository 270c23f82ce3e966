package collector

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/listen/evtx"
	"tocsin/internal/collector/listen/files"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// input is one way in: a port, or files.
type input struct {
	server
	slot uint8  // which of the pipeline's parsers reads its lines; stands with each line in the archive
	kind string // syslog, …; names its counters
}

type server interface {
	Addr() net.Addr
	Serve(context.Context, listen.Sink) error
	Stats() listen.Stats
	Close() error
}

// Slots of the kinds of inputs. They are apart, so that a line in the archive still finds its parser when listeners of another kind were
// added or taken away.
const (
	slotSyslog = 0
	maxSyslog  = 64
	slotFiles  = 64
	slotHTTP   = 80
	slotBeats  = 96
	slotFlows  = 112
	slotOTLP   = 128
	slotDaily  = 160 // the collector's own daily test; no listener has it
	maxInputs  = 16  // of each kind but syslog
)

// slotted is what the pipeline needs to know of a slot.
type slotted struct {
	slot     uint8
	timezone string
	format   string
	relay    bool
	hostdown bool // the setting that makes a Cisco ASA harmless is made
	ready    bool // its lines are events as the collector itself writes them
}

// slots lists the slots that the settings use, and slot 0 always.
func (l *Listen) slots() []slotted {
	var out []slotted
	for i, s := range l.Syslog {
		out = append(out, slotted{slot: uint8(slotSyslog + i), timezone: s.Timezone, format: s.Format, relay: s.Relay, hostdown: s.PermitHostdown})
	}
	if len(l.Syslog) == 0 {
		out = append(out, slotted{slot: slotSyslog})
	}
	for i, f := range l.Files {
		out = append(out, slotted{slot: uint8(slotFiles + i), timezone: f.Timezone, format: f.Format, relay: true})
	}
	for i, h := range l.HTTP {
		out = append(out, slotted{slot: uint8(slotHTTP + i), timezone: h.Timezone, format: h.Format, relay: true})
	}
	for i, b := range l.Beats {
		out = append(out, slotted{slot: uint8(slotBeats + i), timezone: b.Timezone, format: b.Format, relay: true})
	}
	for i := range l.Flows {
		out = append(out, slotted{slot: uint8(slotFlows + i), relay: true, ready: true})
	}
	for i, o := range l.OTLP {
		out = append(out, slotted{slot: uint8(slotOTLP + i), timezone: o.Timezone, format: o.Format, relay: true})
	}
	return append(out, slotted{slot: slotDaily, relay: true})
}

// readers are the pipeline's parsers by slot. Slots of the same time zone share one.
type readers struct {
	sets       [256]*parse.Set
	hints      [256]string
	relay      [256]bool
	hostdown   [256]bool
	ready      [256]bool
	hinted     []hinted   // devices of which the settings say something of their own, the narrowest range first
	from       netip.Addr // the last line's sender, and what is said of it
	lastDevice *hinted
}

func newReaders(slots []slotted, devices []Device, lib *parse.Library) (*readers, error) {
	r := &readers{}
	zones := map[string]*parse.Set{}
	zone := func(name string) error {
		if zones[name] != nil {
			return nil
		}
		loc, err := location(name)
		if err == nil {
			zones[name] = parse.New(parse.Options{Location: loc, Library: lib})
		}
		return err
	}
	for i := range devices {
		h, err := devices[i].hinted()
		if err != nil {
			return nil, err
		}
		if z := devices[i].Timezone; z != "" {
			if err := zone(z); err != nil {
				return nil, err
			}
			h.set = zones[z]
		}
		r.hinted = append(r.hinted, h)
	}
	slices.SortStableFunc(r.hinted, func(a, b hinted) int { return b.of.Bits() - a.of.Bits() })
	for _, s := range slots {
		if err := zone(s.timezone); err != nil {
			return nil, err
		}
		r.sets[s.slot], r.hints[s.slot], r.relay[s.slot], r.hostdown[s.slot], r.ready[s.slot] = zones[s.timezone], s.format, s.relay, s.hostdown, s.ready
	}
	return r, nil
}

// parse reads a line into e, which holds it as raw text, and names the format that understood it.
func (r *readers) parse(e *event.Event, l *archive.Line) (format string, ok bool) {
	i := r.of(l.Listener)
	if !r.ready[i] {
		set, hint := r.sets[i], r.hints[i]
		if h := r.device(l.Sender); h != nil && i != slotDaily { // the test is no device's, whatever is said of this machine's address
			set, hint = cmp.Or(h.set, set), cmp.Or(h.hint, hint)
		}
		return set.ParseFrom(e, hint, parse.Origin{Listener: i, Sender: l.Sender, Stream: l.Stream})
	}
	id := e.ID
	if err := event.DecodeJSON(e, l.Text); err != nil {
		e.Reset()
	} else {
		format, ok = e.Str(event.EventModule), true
		e.SetString(event.TocsinFormat, format)
	}
	e.SetRaw(l.Text)
	e.Created, e.ID, e.Ingested = l.Created, id, 0
	return format, ok
}

// headers are what lines have said of the columns of those behind them, of all parsers.
func (r *readers) headers() []parse.Header {
	var out []parse.Header
	done := map[*parse.Set]bool{}
	sets := r.sets[:]
	for i := range r.hinted {
		sets = append(sets[:len(sets):len(sets)], r.hinted[i].set)
	}
	for _, s := range sets {
		if s != nil && !done[s] {
			done[s] = true
			out = append(out, s.Headers()...)
		}
	}
	return out
}

// restoreHeaders gives the parsers back what headers gave, each to the one that reads its listener now.
func (r *readers) restoreHeaders(list []parse.Header) {
	by := map[*parse.Set][]parse.Header{}
	for _, h := range list {
		s := r.sets[h.Listener]
		if d := r.device(h.Sender); d != nil && s != nil {
			s = cmp.Or(d.set, s)
		}
		if s != nil {
			by[s] = append(by[s], h)
		}
	}
	for s, list := range by {
		s.RestoreHeaders(list)
	}
}

// of gives the slot to use for a line's: its own, or the first one when the settings have it no more.
func (r *readers) of(slot uint8) uint8 {
	if r.sets[slot] == nil {
		return slotSyslog
	}
	return slot
}

// hinted is what the settings say of a device, as the pipeline uses it.
type hinted struct {
	of    netip.Prefix
	set   *parse.Set // of its time zone; nil: its listener's
	hint  string     // ""; its listener's
	relay bool
}

func (d *Device) hinted() (h hinted, err error) {
	h.hint, h.relay = d.Format, d.Relay
	if a, aerr := netip.ParseAddr(d.Address); aerr == nil {
		a = a.Unmap().WithZone("")
		h.of = netip.PrefixFrom(a, a.BitLen())
	} else if h.of, err = netip.ParsePrefix(d.Address); err != nil || h.of.Addr().Is4In6() {
		err = fmt.Errorf("%q is no address or range, such as 192.0.2.1 or 192.0.2.0/24", d.Address)
	}
	return h, err
}

// device gives what the settings say of a sender, or nil.
func (r *readers) device(a netip.Addr) *hinted {
	if len(r.hinted) == 0 || !a.IsValid() {
		return nil
	}
	if a != r.from {
		r.from, r.lastDevice = a, nil
		plain := a.Unmap().WithZone("")
		for i := range r.hinted {
			if r.hinted[i].of.Contains(plain) {
				r.lastDevice = &r.hinted[i]
				break
			}
		}
	}
	return r.lastDevice
}

// relays says whether a line came from one that passes on the logs of many devices.
func (r *readers) relays(l *archive.Line) bool {
	if r.relay[r.of(l.Listener)] {
		return true
	}
	d := r.device(l.Sender)
	return d != nil && d.relay
}

// maxDevices is how many the settings may say something of.
const maxDevices = 256

// checkInputs says what is wrong with the settings of the inputs.
func (c *Config) checkInputs(bad func(format string, args ...any)) {
	for i, s := range c.Listen.Syslog {
		key := fmt.Sprintf("listen.syslog[%d]", i)
		if s.UDP == "" && s.TCP == "" && s.TLS == "" {
			bad("%s: none of udp, tcp and tls is set", key)
		}
		checkPort(bad, key+".udp", s.UDP)
		checkPort(bad, key+".tcp", s.TCP)
		checkPort(bad, key+".tls", s.TLS)
		if s.ClientCA != "" && s.TLS == "" {
			bad("%s.client_ca has no effect without tls", key)
		}
		checkClientCA(bad, key, s.ClientCA)
		checkReading(bad, key, s.Timezone, s.Format)
	}
	if len(c.Listen.Syslog) > maxSyslog {
		bad("listen.syslog: more than %d listeners", maxSyslog)
	}
	if len(c.Listen.Devices) > maxDevices {
		bad("listen.devices: more than %d; name ranges, such as 192.0.2.0/24", maxDevices)
	}
	seen := map[netip.Prefix]bool{}
	for i := range c.Listen.Devices {
		d, key := &c.Listen.Devices[i], fmt.Sprintf("listen.devices[%d]", i)
		h, err := d.hinted()
		if err != nil {
			bad("%s.address: %w", key, err)
		} else if seen[h.of.Masked()] {
			bad("%s.address: %s stands there twice", key, d.Address)
		}
		seen[h.of.Masked()] = true
		if d.Timezone == "" && d.Format == "" && !d.Relay {
			bad("%s: none of timezone, format and relay is set, so it says nothing", key)
		}
		checkReading(bad, key, d.Timezone, d.Format)
	}
	for i, f := range c.Listen.Files {
		key := fmt.Sprintf("listen.files[%d]", i)
		if len(f.Paths) == 0 && f.Drop == "" {
			bad("%s: neither paths nor drop is set", key)
		}
		if _, err := f.options(c, i); err != nil {
			bad("%s: %w", key, err)
		}
		checkReading(bad, key, f.Timezone, f.Format)
	}
	if len(c.Listen.Files) > maxInputs {
		bad("listen.files: more than %d entries; one entry may have many paths", maxInputs)
	}
	c.checkMore(bad)
	if t := c.Listen.TLS; (t.Certificate == "") != (t.Key == "") {
		bad("listen.tls: certificate and key belong together; leave both out and a certificate is made")
	}
}

// checkPort wants "host:port" with a port that exists. Empty is none.
func checkPort(bad func(string, ...any), key, addr string) {
	if addr == "" {
		return
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		bad("%s: %q is not an address and port, such as 0.0.0.0:514", key, addr)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		bad("%s: %q: there is no port %s; ports are 1 to 65535", key, addr, port)
	}
}

func checkClientCA(bad func(string, ...any), key, file string) {
	if file == "" {
		return
	}
	if _, err := keys.ReadAuthorities(file); err != nil {
		bad("%s.client_ca: %w; name a PEM file with the certificates of the authorities that your devices' certificates come from", key, err)
	}
}

func checkReading(bad func(string, ...any), key, timezone, format string) {
	if _, err := location(timezone); err != nil {
		bad("%s: there is no time zone %q; use a name such as Europe/London or UTC", key, timezone)
	}
	if format != "" && format != "auto" && !slices.Contains(parse.Formats(), format) {
		bad("%s: there is no format %q. %s Leave it out, or use auto, and each line's own is found", key, format, parse.FormatHint(format, parse.Formats()))
	}
}

// openListeners opens the ports.
func (a *Agent) openListeners() error {
	c := &a.o.Config
	lo := listen.Options{MaxLine: c.Listen.MaxLine, MaxConns: c.Listen.MaxConnections, Now: a.o.Now, Logger: listen.Sparing(a.log)}
	add := func(slot uint8, kind string, s server) {
		a.listeners = append(a.listeners, input{server: s, slot: slot, kind: kind})
		a.addrs = append(a.addrs, s.Addr())
	}
	fail := func(network, addr, key string, err error) error {
		return fmt.Errorf("cannot listen on %s %s (%s): %w", network, addr, key, portHint(err))
	}
	for i, s := range c.Listen.Syslog {
		key, slot := fmt.Sprintf("listen.syslog[%d]", i), uint8(slotSyslog+i)
		if s.UDP != "" {
			u, err := listen.ListenUDP(s.UDP, lo)
			if err != nil {
				return fail("UDP", s.UDP, key+".udp", err)
			}
			add(slot, "syslog", u)
		}
		if s.TCP != "" {
			t, err := listen.ListenTCP(s.TCP, lo)
			if err != nil {
				return fail("TCP", s.TCP, key+".tcp", err)
			}
			add(slot, "syslog", t)
		}
		if s.TLS != "" {
			to := lo
			var err error
			if to.TLS, err = a.tlsConfig(s.ClientCA); err != nil {
				return fmt.Errorf("%s.tls: %w", key, err)
			}
			t, err := listen.ListenTCP(s.TLS, to)
			if err != nil {
				return fail("TCP", s.TLS, key+".tls", err)
			}
			add(slot, "syslog", t)
		}
	}
	if err := a.openFiles(add); err != nil {
		return err
	}
	return a.openMore(lo, add, fail)
}

// openFiles opens what reads files.
func (a *Agent) openFiles(add func(slot uint8, kind string, s server)) error {
	for i, f := range a.o.Config.Listen.Files {
		o, err := f.options(&a.o.Config, i)
		if err == nil {
			o.Now, o.Logger = a.o.Now, a.log
			o.Decoders = []files.Decoder{{Name: "Windows event log", Knows: evtx.Knows, Read: evtx.Read}}
			var in *files.Input
			if in, err = files.New(o); err == nil {
				add(uint8(slotFiles+i), "files", in)
				continue
			}
		}
		return fmt.Errorf("listen.files[%d]: %w", i, err)
	}
	return nil
}

// options are those of an entry's input. It makes and opens nothing.
func (f *Files) options(c *Config, i int) (files.Options, error) {
	for _, p := range append([]string{f.Drop}, f.Paths...) {
		if _, err := filepath.Match(p, ""); err != nil || p != "" && !filepath.IsAbs(p) {
			return files.Options{}, fmt.Errorf("%q is not an absolute path or pattern, such as /var/log/firewall/*.log", p)
		}
	}
	return files.Options{Paths: f.Paths, Drop: f.Drop, FromEnd: f.FromEnd, MaxLine: c.Listen.MaxLine, State: c.path(fmt.Sprintf("files/%d.json", i))}, nil
}

// tlsConfig is what a TLS port shows and asks for. With clientCA only senders with a certificate from there are let in.
func (a *Agent) tlsConfig(clientCA string) (*tls.Config, error) {
	if a.cert == nil {
		t := &a.o.Config.Listen.TLS
		var err error
		if t.Certificate != "" {
			a.cert, err = keys.OpenListenerFiles(t.Certificate, t.Key, a.o.Now)
		} else {
			a.cert, err = keys.OpenListener(a.o.Config.path("tls"), listenerNames(t.Names), a.o.Now)
		}
		if err != nil {
			return nil, err
		}
		a.log.Info("the certificate that senders see", "sha256", a.cert.Fingerprint(), "authority", a.cert.Authority())
	}
	// No session tickets: nothing unread then lies in a sender's socket, and senders that look there for the end of the connection, as
	// rsyslog does, see it when it comes.
	conf := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: a.signing(a.cert.Certificate), SessionTicketsDisabled: true}
	if clientCA != "" {
		pool, err := keys.ReadAuthorities(clientCA)
		if err != nil {
			return nil, err
		}
		conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, pool
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.VerifiedChains) == 0 {
				return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: x509.UnknownAuthorityError{}}
			}
			return nil
		}
	}
	return conf, nil
}

// signing lets one handshake at a time use the certificate's key: strangers who only begin handshakes must not take the processor from those who
// send, and those who begin one and say nothing more keep nobody out.
func (a *Agent) signing(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		c, err := get(hello)
		if err != nil {
			return nil, err
		}
		key, ok := c.PrivateKey.(crypto.Signer)
		if !ok {
			return c, nil
		}
		limited := *c
		limited.PrivateKey = signer{key, &a.handshakes}
		return &limited, nil
	}
}

type signer struct {
	crypto.Signer
	one *sync.Mutex
}

// Sign is crypto.Signer.
func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s.one.Lock()
	defer s.one.Unlock()
	return s.Signer.Sign(rand, digest, opts)
}

// listenerNames adds what this machine is called and reached by to the names of the settings.
func listenerNames(names []string) []string {
	out := slices.Clone(names)
	if h, err := os.Hostname(); err == nil && h != "" {
		out = append(out, h)
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			out = append(out, n.IP.String())
		}
	}
	out = append(out, "localhost")
	slices.Sort(out)
	return slices.Compact(out)
}

// sink gives what an input received to the archive.
type sink struct {
	a    *Agent
	slot uint8
}

var batchPool = sync.Pool{New: func() any { return new(archive.Batch) }}

// Receive is listen.Sink: when it returns nil a killed process does not lose the lines.
func (s *sink) Receive(ctx context.Context, lines []listen.Line) error {
	b := batchPool.Get().(*archive.Batch)
	defer batchPool.Put(b)
	b.Reset()
	modern := s.a.modern.Load()
	var test *dailyLine
	for i := range lines {
		l := &lines[i]
		stream := l.Stream
		if !modern {
			stream = 0
		}
		slot := s.slot
		if d := s.a.daily.Load(); d != nil && d.is(l.Text) {
			slot, test = slotDaily, d
		}
		b.Add(&archive.Line{Created: l.Created, Listener: slot, Sender: l.Sender, Stream: stream, Cut: l.Cut, Via: transports[l.Via], Text: l.Text})
	}
	err := s.a.archive.Append(ctx, b)
	if test != nil && err == nil {
		test.keep()
	}
	return err
}

var transports = [...]archive.Transport{listen.ViaUDP: archive.UDP, listen.ViaTCP: archive.TCP, listen.ViaTLS: archive.TLS, listen.ViaMutual: archive.Mutual, listen.ViaLocal: archive.Local}

// Sync is listen.Syncer: when it returns nil a power cut does not lose what was received before it was called.
func (s *sink) Sync() error { return s.a.syncing.do(s.a.archive.Sync) }

// Mark is listen.Recaller.
func (s *sink) Mark() uint64 { return s.a.archive.Next() }

// Since is listen.Recaller.
func (s *sink) Since(mark uint64, f func(text []byte)) error {
	return s.a.archive.Since(mark, func(l *archive.Line) {
		if l.Listener == s.slot {
			f(l.Text)
		}
	})
}

// together lets callers that come at the same time share one call: each gets a call that began after it came.
type together struct {
	mu      sync.Mutex // guards next
	next    *round
	running sync.Mutex
}

type round struct {
	done chan struct{}
	err  error
}

func (t *together) do(f func() error) error {
	t.mu.Lock()
	r, first := t.next, false
	if r == nil {
		r, first = &round{done: make(chan struct{})}, true
		t.next = r
	}
	t.mu.Unlock()
	if first {
		t.running.Lock()
		t.mu.Lock()
		t.next = nil // who comes from now on may have written after f began
		t.mu.Unlock()
		r.err = f()
		t.running.Unlock()
		close(r.done)
	}
	<-r.done
	return r.err
}

// inputCounts adds what the inputs' counters have grown by to the state's counts.
func (a *Agent) inputCounts() {
	for i := range a.listeners {
		in := &a.listeners[i]
		now := countsOf(in.kind, in.Stats())
		for name, n := range now {
			if d := n - a.inputs[i][name]; d > 0 {
				a.st.Counts[name] += d
				a.dirty = true
			}
		}
		a.inputs[i] = now
	}
}

// countsOf names an input's counters for the state and the manifests.
func countsOf(kind string, s listen.Stats) map[string]uint64 {
	out := map[string]uint64{}
	add := func(name string, n uint64) {
		if n > 0 {
			out[name] += n
		}
	}
	add("udp_dropped", s.KernelDrops)
	prefix := "input." + kind + "."
	add(prefix+"lines", s.Lines)
	add(prefix+"bytes", s.Bytes)
	add(prefix+"refused_connections", s.Refused)
	add(prefix+"refused_tls", s.Handshake)
	add(prefix+"framing_lost", s.Framing)
	for name, n := range s.By {
		add(prefix+name, n)
	}
	return out
}

// hostdown warns of a sender that stops all traffic when it cannot log, once: a Cisco ASA with a TCP syslog target does, unless it is told
// not to. The sender is the one whose line was understood last.
func (p *pipeline) hostdown(e *event.Event, l *archive.Line) {
	if l.Via == archive.UDP || l.Via == archive.Local || p.read.hostdown[p.read.of(l.Listener)] {
		return
	}
	s := p.senders.last
	command := s.Hostdown != "" && strings.HasPrefix(e.Str(event.EventCode), "1110") // the ASA logs commands as 111008 and 111010
	if s.Hostdown != "" && !command || !s.Addr.IsValid() || e.Str(event.ObserverProduct) != "ASA" {
		return
	}
	switch {
	case strings.Contains(e.Raw(), "'no logging permit-hostdown'"):
		s.Hostdown = ""
	case strings.Contains(e.Raw(), "'logging permit-hostdown'"):
		s.Hostdown = hostdownSafe
	}
	if s.Hostdown != "" {
		return
	}
	s.Hostdown = hostdownWarned
	p.tally.hostdown++
	p.log.Warn(hostdownText, "sender", l.Sender, "next", hostdownNext)
}

// What is known of an ASA's setting.
const (
	hostdownWarned = "warned"
	hostdownSafe   = "safe"
)

// hostdownText is the warning, for the log, the status and doctor.
const (
	hostdownText = "a Cisco ASA sends its log over TCP: it lets no new traffic through while this collector is away"
	hostdownNext = "On the ASA: logging permit-hostdown. Or send over UDP. If it is set already, write permit_hostdown: true beside the port in the settings."
)

// Warning is something that needs a person and is not yet a fault.
type Warning struct {
	Code   string `json:"code"`
	Text   string `json:"text"`
	Next   string `json:"next"`
	Sender string `json:"sender,omitempty"`
}

func (t *senders) warnings() (out []Warning) {
	for addr, s := range t.table {
		if s.Hostdown == hostdownWarned {
			out = append(out, Warning{Code: "asa_permit_hostdown", Text: hostdownText, Next: hostdownNext, Sender: addr.String()})
		}
	}
	slices.SortFunc(out, func(a, b Warning) int { return strings.Compare(a.Sender, b.Sender) })
	return out
}
