package collector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/listen"
	"tocsin/internal/collector/send"
	"tocsin/internal/keys"
)

// Finding is one thing that doctor looked at.
type Finding struct {
	Check  string `json:"check"`
	Level  string `json:"level"` // ok, warn or fail
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to do about it
}

// Doctor looks for the usual faults: settings, folder, disk, ports, buffers, enrolment, the way to the hub, clock, certificate, and whether
// anything arrives and is understood. It changes nothing.
func Doctor(ctx context.Context, c *Config, version string) []Finding {
	var fs []Finding
	add := func(check, level, detail, next string) { fs = append(fs, Finding{check, level, detail, next}) }
	if err := c.Check(); err != nil {
		add("settings", "fail", err.Error(), "Correct the settings file and run doctor again.")
	} else {
		add("settings", "ok", fmt.Sprintf("policy %s, %d listeners", c.Policy.Name, len(c.Listen.Syslog)), "")
	}
	if len(c.OwnRanges) == 0 {
		add("own ranges", "warn", "own_ranges is empty: only private addresses count as your own", "Add your public addresses, such as own_ranges: [198.51.100.0/24], so that directions are right.")
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(c.Dir, &disk); err != nil {
		add("folder", "fail", fmt.Sprintf("%s: %v", c.Dir, err), "Enrol first: tocsin-collector enrol TOKEN --dir "+c.Dir)
		return fs
	}
	free := int64(disk.Bavail) * disk.Bsize
	want := c.Archive.MaxBytes + c.Spool.MaxBytes + c.Sent.MaxBytes
	switch {
	case free < 256<<20:
		add("disk", "fail", fmt.Sprintf("%d MiB free in %s", free>>20, c.Dir), "Make room: while the disk is full no new lines are taken.")
	case free < want/4:
		add("disk", "warn", fmt.Sprintf("%d MiB free in %s; archive, spool and record may grow to %d MiB", free>>20, c.Dir, want>>20), "Lower archive.max_bytes, spool.max_bytes or sent.max_bytes, or use a larger disk.")
	default:
		add("disk", "ok", fmt.Sprintf("%d MiB free", free>>20), "")
	}
	st, running := (*Status)(nil), false
	switch s, err := FetchStatus(ctx, c); {
	case err == nil:
		st, running = s, true
		add("running", "ok", fmt.Sprintf("process %d since %s", s.PID, s.Started.Local().Format(time.DateTime)), "")
	case errors.Is(err, ErrNotRunning):
		add("running", "warn", "no collector is running in this folder", "Start it: tocsin-collector run --config FILE")
	default:
		add("running", "warn", err.Error(), "Run doctor as the user that the collector runs as.")
	}
	if len(c.Listen.Syslog) == 0 {
		add("listeners", "fail", "listen.syslog is empty: nothing can arrive", "Add a listener, such as listen: {syslog: [{udp: 0.0.0.0:5514, tcp: 0.0.0.0:5514}]}")
	}
	if !running {
		for i, s := range c.Listen.Syslog {
			for network, addr := range map[string]string{"udp": s.UDP, "tcp": s.TCP} {
				if addr == "" {
					continue
				}
				buffer, err := tryPort(network, addr)
				name := fmt.Sprintf("port %s %s", network, addr)
				switch {
				case err != nil:
					add(name, "fail", fmt.Sprintf("listen.syslog[%d].%s: %v", i, network, portHint(err)), "")
				case network == "udp" && buffer < 4<<20:
					add(name, "warn", fmt.Sprintf("the kernel gives a buffer of only %d KiB: bursts of UDP may be lost", buffer>>10), "Run as root once: sysctl -w net.core.rmem_max=16777216 (and put it in /etc/sysctl.d/).")
				default:
					add(name, "ok", "free", "")
				}
			}
		}
	}
	e, err := readEnrolment(c)
	if err != nil {
		add("enrolment", "fail", err.Error(), "")
		return fs
	}
	add("enrolment", "ok", fmt.Sprintf("%s, %s, as %s", e.Organisation, e.Site, e.Collector), "")
	k, err := keys.OpenCollector(c.KeyDir())
	if err != nil {
		add("keys", "fail", err.Error(), "")
		return fs
	}
	address := c.Hub
	if address == "" {
		address = e.Address
	}
	client, err := send.New(send.Options{Address: address, Collector: e.Collector, Version: version, Keys: k, Timeout: 10 * time.Second})
	if err != nil {
		add("keys", "fail", err.Error(), "Enrol again with a new token from the portal.")
		return fs
	}
	defer client.Close()
	if left := time.Until(client.NotAfter()); left < 0 {
		add("certificate", "warn", "expired on "+client.NotAfter().Local().Format(time.DateTime), "It is renewed by itself when the collector runs and reaches the hub; nothing is lost meanwhile.")
	} else {
		add("certificate", "ok", fmt.Sprintf("valid for %s more", left.Round(time.Hour)), "")
	}
	hctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	self, err := client.Self(hctx)
	switch {
	case send.Refused(err) && time.Now().After(client.NotAfter()):
		add("hub", "warn", "the hub does not take this collector's certificate, which has expired", "Start the collector: it renews the certificate by itself.")
	case send.Refused(err) || send.CodeOf(err) == batch.CodeRevoked || err == nil && self.State == "revoked":
		add("hub", "fail", "this collector has been revoked: the hub takes nothing from it any more", "If that was not meant, ask for a new token in the portal and run: tocsin-collector enrol TOKEN --again. What waits here will then be sent.")
	case err != nil:
		add("hub", "fail", fmt.Sprintf("%s: %s", address, plainNet(err)), hubHint(err, address))
	case self.State == "quarantined":
		add("hub", "warn", "reached, but this collector is waiting to be confirmed", "Read these words to whoever opens the portal, and confirm there that it shows the same: "+strings.Join(e.CheckWords, " "))
	default:
		add("hub", "ok", "reached; state "+self.State, "")
	}
	if err == nil && !self.HubTime.IsZero() {
		if off := time.Until(self.HubTime).Abs(); off > time.Minute {
			add("clock", "warn", fmt.Sprintf("this machine's clock differs from the hub's by %s", off.Round(time.Second)), "Switch on time synchronisation: timedatectl set-ntp true")
		} else {
			add("clock", "ok", "agrees with the hub's", "")
		}
	}
	if st == nil {
		return fs
	}
	received := st.Counts["received"]
	switch {
	case received == 0:
		add("lines", "warn", "nothing has arrived yet", "Set this machine's address and port as the syslog server on the firewall, and look whether a host firewall (nft, ufw) lets it in.")
	case st.Counts["not_understood"]*5 > received:
		add("lines", "warn", fmt.Sprintf("of %d lines %d were not understood", received, st.Counts["not_understood"]), "Look with explain at a few of them; choose another log format on the firewall, or tell us its product.")
	default:
		add("lines", "ok", fmt.Sprintf("%d received, %d understood, %d events confirmed by the hub", received, st.Counts["parsed"], st.Acknowledged), "")
	}
	var last time.Time
	for _, d := range st.Senders {
		if d.Last.After(last) {
			last = d.Last
		}
	}
	if received > 0 && time.Since(last) > 15*time.Minute {
		add("silence", "warn", "the last line came at "+last.Local().Format(time.DateTime), "Look whether the firewall still sends.")
	}
	if n := st.Counts["udp_dropped"]; n > 0 {
		add("udp", "warn", fmt.Sprintf("the kernel dropped %d UDP messages for want of room", n), "Use TCP on the firewall, or raise net.core.rmem_max.")
	}
	if st.Full {
		add("disk", "fail", "lines are waiting because they cannot be written", "Make room on the disk.")
	}
	if st.HubTrouble != "" {
		add("sending", "warn", st.HubTrouble, fmt.Sprintf("%d events wait on this machine and will be sent when the hub answers.", st.Waiting))
	}
	return fs
}

func tryPort(network, addr string) (buffer int, err error) {
	if network == "udp" {
		u, err := listen.ListenUDP(addr, listen.Options{})
		if err != nil {
			return 0, err
		}
		defer u.Close()
		return u.Stats().ReadBuffer, nil
	}
	t, err := listen.ListenTCP(addr, listen.Options{})
	if err != nil {
		return 0, err
	}
	return 0, t.Close()
}

// plainNet takes the address and call names out of a network error.
func plainNet(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

func hubHint(err error, address string) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, keys.ErrNotTheHub):
		return "Whatever answers there is not your scheme's hub. Something on the way may be inspecting TLS: let " + address + " pass without inspection."
	case errors.As(err, &dns):
		return "The name cannot be resolved: check this machine's DNS, or the address in the token."
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Nothing listens there: is the hub running, and the port right?"
	case os.IsTimeout(err) || errors.Is(err, context.DeadlineExceeded):
		return "No answer: let this machine reach " + address + " (TCP) through the firewall."
	}
	return ""
}
