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
	for i, s := range c.Listen.Syslog {
		for _, p := range []Port{{fmt.Sprintf("listen.syslog[%d].udp", i), "udp", s.UDP}, {fmt.Sprintf("listen.syslog[%d].tcp", i), "tcp", s.TCP}, {fmt.Sprintf("listen.syslog[%d].tls", i), "tcp", s.TLS}} {
			if p.Addr != "" {
				ports = append(ports, p)
			}
		}
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
