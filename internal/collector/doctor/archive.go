package doctor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/archive"
	"tocsin/internal/event"
)

// device is what the newest raw lines tell of one sender.
type device struct {
	addr                      netip.Addr
	lines, understood         int // of its log
	flows                     int // flow records, which are no log
	traffic, allowed, denied  int // lines about connections through the device
	system                    int // lines of an operating system: sshd, cron, kernel without traffic
	facilities                map[int64]int
	formats                   map[string]int
	product                   map[string]int
	offsets                   []time.Duration // receipt minus the device's own time
	lowest                    int64           // the least urgent severity seen
	tcpASA                    bool
	firstCreated, lastCreated int64
}

// How much of the archive is looked at.
const (
	lookLines = 20_000
	lookBytes = 8 << 20
	enough    = 50 // lines of a sender before anything is said about it
)

// archive looks at the newest raw lines: whether each sender's log is the whole of it, and whether its clock is right.
func (r *run) archive() {
	devices, err := r.newest()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.add("senders", "archive_unread", Skip, "the archive of raw lines could not be read: "+err.Error(), "Run doctor with sudo, or as the user that the collector runs as.")
		return
	}
	for _, d := range devices {
		r.sender(d)
	}
}

func (r *run) newest() ([]*device, error) {
	rd, err := archive.Newest(r.c.ArchiveDir(), lookBytes)
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	byAddr := map[netip.Addr]*device{}
	reader, err := collector.NewUnderstander(r.c)
	if err != nil { // wrong settings, which are named already
		return nil, nil //nolint:nilerr // as said
	}
	var l archive.Line
	var e event.Event
	for n := 0; n < lookLines; n++ {
		if err := rd.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if reader.Test(&l) {
			continue
		}
		d := byAddr[l.Sender]
		if d == nil {
			if len(byAddr) == 256 {
				continue
			}
			d = &device{addr: l.Sender, facilities: map[int64]int{}, formats: map[string]int{}, product: map[string]int{}}
			byAddr[l.Sender] = d
		}
		format, ok := reader.Line(&e, &l)
		if reader.Flow(&l) {
			d.flows++
			continue
		}
		d.take(&l, &e, format, ok)
	}
	return slices.SortedFunc(maps.Values(byAddr), func(a, b *device) int { return b.lines - a.lines }), nil
}

func (d *device) take(l *archive.Line, e *event.Event, format string, ok bool) {
	d.lines++
	if d.firstCreated == 0 {
		d.firstCreated = l.Created
	}
	d.lastCreated = l.Created
	if f, has := e.Int(event.LogSyslogFacilityCode); has {
		d.facilities[f]++
	} else if f, has := facilityOf(l.Text); has {
		d.facilities[f]++
	}
	if n, has := e.Int(event.LogSyslogSeverityCode); has {
		d.lowest = max(d.lowest, n)
	}
	if !ok {
		return
	}
	d.understood++
	d.formats[format]++
	if p := e.Str(event.ObserverProduct); p != "" {
		d.product[strings.TrimSpace(e.Str(event.ObserverVendor)+" "+p)]++
	}
	if e.Has(event.SourceIP) && e.Has(event.DestinationIP) { // both ends of a connection
		d.traffic++
		switch {
		case e.HasString(event.EventType, "denied"):
			d.denied++
		case e.HasString(event.EventType, "allowed"):
			d.allowed++
		}
	} else if operatingSystem[format] || e.Str(event.ObserverProduct) == "" {
		d.system++
	}
	if format == "asa" && l.Via == archive.TCP {
		d.tcpASA = true
	}
	if e.Time != 0 && e.Time != e.Created && len(d.offsets) < 512 {
		d.offsets = append(d.offsets, time.Duration(e.Created-e.Time))
	}
}

// operatingSystem are the formats of a machine's own log, not of a firewall's.
var operatingSystem = map[string]bool{"sshd": true, "text": true, "dhcp": true, "windows": true}

// facilityOf reads the priority at the line's beginning.
func facilityOf(text []byte) (int64, bool) {
	if !isPriority(text) {
		return 0, false
	}
	n := int64(0)
	for _, c := range text[1:] {
		if c == '>' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n / 8, n < 192
}

// sender says what is wrong with one sender's log, at most one thing about its content and one about its clock.
func (r *run) sender(d *device) {
	name := d.addr.String()
	if !d.addr.IsValid() {
		name = "the files on this machine"
	}
	check := "sender " + name
	if p := most(d.product); p != "" {
		name += " (" + p + ")"
	}
	firewall := d.traffic > 0
	for f := range d.formats {
		firewall = firewall || firewallFormat[f]
	}
	if d.flows >= enough {
		r.add(check, "flows_ok", OK, fmt.Sprintf("%s sends flow records: %d of the newest lines", name, d.flows), "")
	}
	if d.lines >= enough {
		switch {
		case d.understood == 0:
			r.add(check, "sender_not_understood", Warn, fmt.Sprintf("none of the newest %d lines of %s was understood", d.lines, name), "Look at one with explain; choose another log format on the device, or tell us its product.")
		case d.traffic == 0 && !firewall && d.system > 0:
			r.add(check, "wrong_facility", Warn, fmt.Sprintf("from %s come a system's messages only (facilities %s), not a firewall's log", name, d.facilityNames()),
				"On the device choose traffic or firewall log for this syslog server; on a relay (rsyslog) let the facility of the firewall pass too, often local0 to local7.")
		case d.traffic == 0 && firewall:
			r.add(check, "only_events", Warn, fmt.Sprintf("%s sends events about itself, and no traffic", name), "Switch on the traffic log for this syslog server on the device."+trafficAdvice(d))
		case d.denied == 0 && d.allowed > 0:
			r.add(check, "no_denials", Warn, fmt.Sprintf("%s sends only traffic that it let through: of %d lines none is a refusal", name, d.traffic),
				"Refused traffic is where attacks show first: switch on logging of the implicit deny rule (or the last rule)."+denyAdvice(d))
		case d.allowed == 0 && d.denied >= enough:
			r.add(check, "only_denials", Warn, fmt.Sprintf("%s sends only traffic that it refused", name),
				"That is enough to share signs of attack. Logging allowed traffic too (it stays on this site) lets the collector see what got in."+allowAdvice(d))
		default:
			r.add(check, "sender_ok", OK, fmt.Sprintf("of the newest %d lines of %s %d were understood: %d allowed, %d denied", d.lines, name, d.understood, d.allowed, d.denied), "")
		}
	}
	if d.addr.IsValid() { // a file may be as old as it likes
		r.deviceClock(check, name, d)
	}
}

// firewallFormat are the formats that only firewalls write.
var firewallFormat = map[string]bool{"fortigate": true, "asa": true, "netfilter": true, "filterlog": true, "draytek": true, "sophos": true, "sophos-utm": true, "watchguard": true,
	"sonicwall": true, "meraki": true, "smoothwall": true, "panos": true, "zyxel": true, "mikrotik": true, "barracuda": true, "checkpoint": true, "junos": true, "netscreen": true, "stormshield": true}

func trafficAdvice(d *device) string {
	switch {
	case d.formats["fortigate"] > 0:
		return " FortiGate: config log syslogd filter, set forward-traffic enable."
	case d.formats["asa"] > 0:
		return " Cisco ASA: logging trap informational."
	case d.formats["sophos"] > 0:
		return " Sophos: System services > Log settings, tick Firewall for this server."
	}
	return ""
}

func denyAdvice(d *device) string {
	switch {
	case d.formats["fortigate"] > 0:
		return " FortiGate: Policy > Implicit Deny > Log violation traffic."
	case d.formats["asa"] > 0:
		return " Cisco ASA: end the access list with deny ip any any log."
	}
	return ""
}

func allowAdvice(d *device) string {
	if d.formats["asa"] > 0 && d.lowest > 0 && d.lowest < 6 {
		return " Cisco ASA: logging trap informational."
	}
	return ""
}

// deviceClock compares the device's own times with those of receipt. Whole half hours are a time zone, anything else a wrong clock.
func (r *run) deviceClock(check, name string, d *device) {
	if len(d.offsets) < 10 {
		return
	}
	slices.Sort(d.offsets)
	off := d.offsets[len(d.offsets)/2]
	if off.Abs() < 5*time.Minute {
		return
	}
	way := "behind"
	if off < 0 {
		way = "ahead"
	}
	zone := off.Round(30 * time.Minute)
	if (off-zone).Abs() < 2*time.Minute && zone.Abs() <= 14*time.Hour {
		r.add(check, "device_zone", Warn, fmt.Sprintf("the times of %s are %s %s", name, zone.Abs(), way), "Its time zone is set otherwise than here: set timezone of the listener, or of this device alone in listen.devices, in the settings to the device's zone (UTC, Europe/London …), or let the device write its zone.")
		return
	}
	r.add(check, "device_clock", Warn, fmt.Sprintf("the clock of %s is %s %s", name, off.Abs().Round(time.Minute), way), "Set an NTP server on the device.")
}

func most(m map[string]int) (best string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if best == "" || m[k] > m[best] {
			best = k
		}
	}
	return best
}

// facilityWords are the names of RFC 5424, table 1, as syslog programs write them.
var facilityWords = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}

func (d *device) facilityNames() string {
	var names []string
	for _, f := range slices.Sorted(maps.Keys(d.facilities)) {
		if f >= 0 && int(f) < len(facilityWords) {
			names = append(names, facilityWords[f])
		}
	}
	if len(names) == 0 {
		return "unknown"
	}
	return strings.Join(names, ", ")
}
