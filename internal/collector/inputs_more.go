package collector

import (
	"fmt"

	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/listen/beats"
	"tocsin/internal/collector/listen/flows"
	"tocsin/internal/collector/listen/httpin"
	"tocsin/internal/collector/listen/otlp"
)

// The inputs whose senders wait for an acknowledgement, HTTP, OTLP and Beats, and flows.

// TokensFile is where the digests of the tokens for HTTP senders are.
func (c *Config) TokensFile() string { return c.path("tokens") }

// stream is what the settings of the ports of such inputs have in common.
type stream struct{ key, addr, tls, clientCA string }

func (s *stream) check(bad func(string, ...any)) {
	if s.addr == "" && s.tls == "" {
		bad("%s: neither tcp nor tls is set", s.key)
	}
	checkPort(bad, s.key+".tcp", s.addr)
	checkPort(bad, s.key+".tls", s.tls)
	if s.clientCA != "" && s.tls == "" {
		bad("%s.client_ca has no effect without tls", s.key)
	}
	checkClientCA(bad, s.key, s.clientCA)
}

func (c *Config) checkMore(bad func(string, ...any)) {
	for i, h := range c.Listen.HTTP {
		s := stream{fmt.Sprintf("listen.http[%d]", i), h.TCP, h.TLS, h.ClientCA}
		s.check(bad)
		checkReading(bad, s.key, h.Timezone, h.Format)
		if _, err := httpin.OpenTokens(c.TokensFile(), h.TokenFile); err != nil {
			bad("%s: %w", s.key, err)
		}
	}
	for i, b := range c.Listen.Beats {
		s := stream{fmt.Sprintf("listen.beats[%d]", i), b.TCP, b.TLS, b.ClientCA}
		s.check(bad)
		checkReading(bad, s.key, b.Timezone, b.Format)
	}
	for i, f := range c.Listen.Flows {
		if f.UDP == "" {
			bad("listen.flows[%d]: udp is not set", i)
		}
		checkPort(bad, fmt.Sprintf("listen.flows[%d].udp", i), f.UDP)
	}
	for i, h := range c.Listen.OTLP {
		s := stream{fmt.Sprintf("listen.otlp[%d]", i), h.TCP, h.TLS, h.ClientCA}
		s.check(bad)
		checkReading(bad, s.key, h.Timezone, h.Format)
		if _, err := httpin.OpenTokens(c.TokensFile(), h.TokenFile); err != nil {
			bad("%s: %w", s.key, err)
		}
	}
	for name, n := range map[string]int{"http": len(c.Listen.HTTP), "beats": len(c.Listen.Beats), "flows": len(c.Listen.Flows), "otlp": len(c.Listen.OTLP)} {
		if n > maxInputs {
			bad("listen.%s: at most %d entries", name, maxInputs)
		}
	}
}

// opener opens one port of an input. o has the TLS settings when it is to speak TLS.
type opener func(addr string, o listen.Options) (server, error)

// openStream opens the ports of one entry, without and with TLS.
func (a *Agent) openStream(s stream, lo listen.Options, open opener, add func(server), fail func(network, addr, key string, err error) error) error {
	if s.addr != "" {
		srv, err := open(s.addr, lo)
		if err != nil {
			return fail("TCP", s.addr, s.key+".tcp", err)
		}
		add(srv)
	}
	if s.tls != "" {
		var err error
		if lo.TLS, err = a.tlsConfig(s.clientCA); err != nil {
			return fmt.Errorf("%s.tls: %w", s.key, err)
		}
		srv, err := open(s.tls, lo)
		if err != nil {
			return fail("TCP", s.tls, s.key+".tls", err)
		}
		add(srv)
	}
	return nil
}

func (a *Agent) openMore(lo listen.Options, add func(slot uint8, kind string, s server), fail func(network, addr, key string, err error) error) error {
	c := &a.o.Config
	for _, kind := range []struct {
		name    string
		slot    uint8
		entries []HTTP
		open    func(addr string, o httpin.Options) (server, error)
	}{
		{"http", slotHTTP, c.Listen.HTTP, func(addr string, o httpin.Options) (server, error) { return httpin.Listen(addr, o) }},
		{"otlp", slotOTLP, c.Listen.OTLP, func(addr string, o httpin.Options) (server, error) { return otlp.Listen(addr, o) }},
	} {
		for i, h := range kind.entries {
			s := stream{fmt.Sprintf("listen.%s[%d]", kind.name, i), h.TCP, h.TLS, h.ClientCA}
			tokens, err := httpin.OpenTokens(c.TokensFile(), h.TokenFile)
			if err != nil {
				return fmt.Errorf("%s: %w", s.key, err)
			}
			if tokens.Len() == 0 {
				a.log.Warn("no token is known yet: every sender will be refused", "setting", s.key, "next", "tocsin-collector token --name SENDER")
			}
			open := func(addr string, o listen.Options) (server, error) {
				return kind.open(addr, httpin.Options{Options: o, Tokens: tokens})
			}
			if err := a.openStream(s, lo, open, func(s server) { add(kind.slot+uint8(i), kind.name, s) }, fail); err != nil {
				return err
			}
		}
	}
	for i, f := range c.Listen.Flows {
		s, err := flows.Listen(f.UDP, flows.Options{Options: lo, State: c.path(fmt.Sprintf("flows/%d.json", i))})
		if err != nil {
			return fail("UDP", f.UDP, fmt.Sprintf("listen.flows[%d].udp", i), err)
		}
		add(uint8(slotFlows+i), "flows", s)
	}
	for i, b := range c.Listen.Beats {
		s := stream{fmt.Sprintf("listen.beats[%d]", i), b.TCP, b.TLS, b.ClientCA}
		open := func(addr string, o listen.Options) (server, error) {
			return beats.Listen(addr, beats.Options{Options: o, MaxEvent: max(o.MaxLine, 256<<10)})
		}
		if err := a.openStream(s, lo, open, func(s server) { add(uint8(slotBeats+i), "beats", s) }, fail); err != nil {
			return err
		}
	}
	return nil
}
