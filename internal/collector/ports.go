package collector

import (
	"fmt"

	"tocsin/internal/collector/send"
)

// Port is one port that the settings ask for.
type Port struct {
	Key     string // the setting that names it, such as listen.syslog[0].udp
	Network string // udp or tcp
	Addr    string // address and port
}

// Ports are all ports that the settings ask for, in the order of the settings.
func (c *Config) Ports() []Port {
	var ports []Port
	add := func(network, addr, key string, args ...any) {
		if addr != "" {
			ports = append(ports, Port{fmt.Sprintf(key, args...), network, addr})
		}
	}
	for i, s := range c.Listen.Syslog {
		add("udp", s.UDP, "listen.syslog[%d].udp", i)
		add("tcp", s.TCP, "listen.syslog[%d].tcp", i)
		add("tcp", s.TLS, "listen.syslog[%d].tls", i)
	}
	for i, h := range c.Listen.HTTP {
		add("tcp", h.TCP, "listen.http[%d].tcp", i)
		add("tcp", h.TLS, "listen.http[%d].tls", i)
	}
	for i, b := range c.Listen.Beats {
		add("tcp", b.TCP, "listen.beats[%d].tcp", i)
		add("tcp", b.TLS, "listen.beats[%d].tls", i)
	}
	for i, f := range c.Listen.Flows {
		add("udp", f.UDP, "listen.flows[%d].udp", i)
	}
	for i, o := range c.Listen.OTLP {
		add("tcp", o.TCP, "listen.otlp[%d].tcp", i)
		add("tcp", o.TLS, "listen.otlp[%d].tls", i)
	}
	return ports
}

// ArchiveDir is the folder of raw lines.
func (c *Config) ArchiveDir() string { return c.path("archive") }

// Enrolment reads who this collector is. The error is keys.ErrNotEnrolled when it is nobody yet.
func (c *Config) Enrolment() (send.Enrolment, error) {
	e, err := readEnrolment(c)
	return e.Enrolment, err
}
