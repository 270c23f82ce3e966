package collector

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/listen"
	"tocsin/internal/detect"
	"tocsin/internal/event"
)

// The daily test of the whole way. Once a day the hub draws a number for this collector and hands it out to nobody else (GET /v1/self). The collector makes a line
// of it, as a firewall writes one, and sends it to its own syslog port. From there it goes the way of every line: archive, parser, on-site rules, spool, a
// batch of its own kind of urgency, the gate, the worker, the hub's rules. The hub awaits the number twice: once as an event, once as what the on-site rules
// found. No line of a device can pass for the test: it is known by its listener (slotDaily), which only a line has that is the newest
// test or a late copy of it, the same to the last byte, number and all. It says nothing of the member, so it leaves under every policy; it is counted as received, parsed and left.daily_test.
//
// After a crash the line stands in the archive with its listener and is worked on as ever; if it was not kept yet, the hub hands the number out again.

// dailyLine is a test as its listener knows it.
type dailyLine struct {
	text []byte
	kept chan struct{} // closed when the archive has it
	once sync.Once
}

func (d *dailyLine) is(text []byte) bool { return bytes.Equal(text, d.text) }
func (d *dailyLine) keep()               { d.once.Do(func() { close(d.kept) }) }

const (
	dailyTries = 3 // UDP may lose one
	dailyWait  = 2 * time.Second
	dailyMark  = `msg="tocsin daily test `
)

// dailySource is the address that the test's line names, one of those that belong to nobody (RFC 5737).
var dailySource = netip.MustParseAddr("192.0.2.1")

// dailyText is the line of a test: a dropped packet, as FortiOS writes it.
func dailyText(number string, now time.Time) []byte {
	return fmt.Appendf(nil, `<189>date=%s time=%s devname="tocsin-daily" devid="TOCSINDAILY" logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=%s srcport=40000 srcintf="wan1" dstip=198.51.100.1 dstport=9 dstintf="lan" proto=17 action="deny" policyid=0 service="udp/9" %s%s"`,
		now.Format(time.DateOnly), now.Format(time.TimeOnly), dailySource, dailyMark, number)
}

// dailyNumber is the number in a test's line; "" where there is none.
func dailyNumber(text []byte) string {
	_, after, _ := bytes.Cut(text, []byte(dailyMark))
	number, _, _ := bytes.Cut(after, []byte{'"'})
	if b, err := hex.DecodeString(string(number)); err != nil || len(b) != 16 {
		return ""
	}
	return string(number)
}

// sendDaily sends a test that the hub asks for, once. What does not come in is said here and missed at the hub.
func (a *Agent) sendDaily(ctx context.Context, number string) error {
	if number == "" || number == a.tested {
		return nil
	}
	line := &dailyLine{text: dailyText(number, a.o.Now()), kept: make(chan struct{})}
	if dailyNumber(line.text) != number {
		return fmt.Errorf("daily test: %.40q is not the number of a test", number)
	}
	a.tested = number
	network, addr := a.ownPort()
	if network == "" { // there is no plain syslog port: the line enters where listeners hand over
		text := listen.Line{Created: a.o.Now().UnixNano(), Via: listen.ViaLocal, Text: line.text}
		return (&sink{a: a, slot: slotDaily}).Receive(ctx, []listen.Line{text})
	}
	a.daily.Store(line) // until the next one: a copy may come late
	var err error
	for range dailyTries {
		if err = sendLine(ctx, network, addr, line.text); err == nil {
			select {
			case <-line.kept:
				return nil
			case <-ctx.Done():
				return nil
			case <-time.After(dailyWait):
				err = fmt.Errorf("the line was sent to %s %s and did not come in", network, addr)
			}
		}
	}
	a.log.Warn("the daily test did not come in by the collector's own port; lines of devices may not either", "error", err)
	return nil
}

func sendLine(ctx context.Context, network, addr string, text []byte) error {
	d := net.Dialer{Timeout: dailyWait}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	if network == "tcp" {
		text = append(bytes.Clone(text), '\n')
	}
	_, err = c.Write(text)
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// ownPort is a syslog port of this collector that takes lines without TLS, as it is reached from here; "" when there is none.
func (a *Agent) ownPort() (network, addr string) {
	for i, s := range a.o.Config.Listen.Syslog {
		for _, in := range a.listeners {
			if in.kind != "syslog" || int(in.slot) != slotSyslog+i {
				continue
			}
			network = in.Addr().Network()
			if network == "udp" && s.UDP == "" || network == "tcp" && s.TCP == "" {
				continue
			}
			at, err := netip.ParseAddrPort(in.Addr().String())
			if err != nil {
				continue
			}
			if ip := at.Addr().Unmap(); ip.IsUnspecified() {
				at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
			}
			return network, at.String()
		}
	}
	return "", ""
}

// daily works on the line of a test. It is no sender's, teaches nothing of any device, and is understood only if the parser says of it what it says.
func (p *pipeline) daily(l *archive.Line, f fate) {
	e := &p.e
	e.Reset()
	e.SetRaw(l.Text)
	e.Created, e.ID = l.Created, event.ID{Seq: l.Number}
	number := dailyNumber(l.Text)
	_, ok := p.read.parse(e, l)
	src, _ := e.IP(event.SourceIP)
	ok = ok && number != "" && src == dailySource && e.HasString(event.EventType, "denied")
	if f == full {
		p.tally.received++
		if ok {
			p.tally.parsed++
			p.tally.leftDaily++
		} else {
			p.tally.notUnderstood++
		}
	}
	if !ok {
		if f != replay {
			p.log.Warn("the daily test was not understood by the parser of firewalls; the centre will miss it", "line", l.Number)
		}
		return
	}
	e.Reset()
	e.SetRaw(l.Text)
	e.Created, e.Time, e.ID = l.Created, l.Created, event.ID{Seq: l.Number}
	dailyFields(e, number)
	e.SetString(event.TocsinSenderAssurance, l.Via.String())
	p.changes.uncount = f != full
	var own, others []event.Detection
	for _, d := range p.det.Process(e, l.Created) {
		if d.RuleID == detect.DailySiteRule {
			own = append(own, d)
		} else { // of attacks that go on: the test only came when their time was over
			others = append(others, d)
		}
	}
	send := !p.covered.contains(l.Number)
	p.told(others, l, f, send)
	if f == replay || !send {
		return
	}
	e.RawDigest, e.HasRawDigest = p.digests.Digest(l.Number, l.Text), true
	e.SetInt(event.EventSequence, int64(l.Number))
	p.min.Reduce(&p.out, e)
	dailyFields(&p.out, number)
	p.addDaily(&record{group: l.Number, line: l.Number})
	for i := range own {
		d := &own[i]
		if f == full {
			p.tally.madeDetection++
		}
		d.Events = nil
		p.min.Detection(&p.out, d)
		p.out.Created = l.Created
		p.out.SetString(event.TocsinDetectionEntity, number)
		p.out.SetString(event.TocsinLeftReason, detect.DailyReason)
		p.addDaily(&record{flags: recordDetection, group: l.Number, refs: []uint64{l.Number}})
	}
}

// addDaily spools what p.out holds.
func (p *pipeline) addDaily(r *record) {
	r.flags |= recordUrgent | byte(valueHigh)<<recordValue
	p.json = p.out.AppendJSON(p.json[:0])
	r.json = p.json
	p.add(r)
	p.urgent = true
}

// dailyFields are those by which the hub's rules and the on-site rules know a test.
func dailyFields(e *event.Event, number string) {
	e.SetString(event.EventKind, "event")
	e.SetString(event.EventModule, "tocsin")
	e.SetString(event.EventDataset, detect.DailyDataset)
	e.SetString(event.EventID, number)
	e.SetString(event.TocsinLeftReason, detect.DailyReason)
	e.SetBool(event.TocsinUrgent, true)
}
