package flows

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"tocsin/internal/event"
)

// flow is one record. Numbers that were not given are 0, and -1 where 0 means something.
type flow struct {
	exporter netip.Addr
	version  uint16
	domain   uint32
	exported int64  // UTC nanoseconds
	uptime   uint32 // of the exporter when it exported, milliseconds

	src, dst, nextHop, natSrc, natDst       netip.Addr
	srcPort, dstPort, natSrcPort, natDstPrt uint16
	proto, tos, icmp, direction, fwEvent    int
	counted                                 bool // bytes or packets were given
	bytes, packets, revBytes, revPackets    uint64
	flags                                   uint16
	firstUp, lastUp                         uint32
	hasFirst, hasLast                       bool
	start, end, init, at                    int64 // UTC nanoseconds; init is when the exporter started
	duration                                int64
	inIf, outIf, srcAS, dstAS, appID        uint32
	vlan, outVlan, endReason, fwCode        int
	srcMac, dstMac                          [6]byte
	sampling, space                         uint64
	app, user, ifName, inName, outName, url string
	optionRecords                           int  // of the message so far
	unknownSet                              bool // the message holds data without a template
}

func (f *flow) reset(from netip.Addr, version uint16, domain uint32) {
	*f = flow{exporter: from, version: version, domain: domain, proto: -1, tos: -1, icmp: -1, direction: -1, fwEvent: -1, endReason: -1, fwCode: -1, vlan: -1, outVlan: -1, optionRecords: f.optionRecords, unknownSet: f.unknownSet}
}

// read takes one record off b.
func (f *flow) read(t *template, b []byte) (rest []byte, ok bool) {
	for i := range t.fields {
		fd := &t.fields[i]
		n := int(fd.Length)
		if fd.Length == 0xffff {
			if len(b) < 1 {
				return nil, false
			}
			n = int(b[0])
			b = b[1:]
			if n == 255 {
				if len(b) < 2 {
					return nil, false
				}
				n = int(binary.BigEndian.Uint16(b))
				b = b[2:]
			}
		}
		if len(b) < n {
			return nil, false
		}
		v := b[:n]
		b = b[n:]
		if i < t.scope && f.version == 9 {
			// Scopes of v9 have numbers of their own; 2 is the interface.
			if fd.ID == 2 {
				f.inIf = uint32(number(v))
			}
			continue
		}
		switch fd.PEN {
		case 0:
			f.field(fd.ID, v)
		case 29305: // the other direction of a flow (RFC 5103)
			switch fd.ID {
			case 1, 85:
				f.revBytes = number(v)
			case 2, 86:
				f.revPackets = number(v)
			}
		case 35632: // nProbe
			if fd.ID == 180 && f.url == "" {
				f.url = text(v)
			}
		}
	}
	return b, true
}

// number is an unsigned number of up to 8 bytes; of longer ones the last 8.
func number(v []byte) (n uint64) {
	if len(v) > 8 {
		v = v[len(v)-8:]
	}
	for _, x := range v {
		n = n<<8 | uint64(x)
	}
	return n
}

func addr(v []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(v)
	return a
}

// text is a string as exporters pad them: valid UTF-8 without control characters.
func text(v []byte) string {
	s := strings.TrimRight(string(v), "\x00 ")
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// ntp is a time of 64 bits, seconds since 1900 and their fraction.
func ntp(v []byte) int64 {
	if len(v) != 8 {
		return 0
	}
	n := number(v)
	secs, frac := int64(n>>32)-2208988800, n&0xffffffff
	return secs*1e9 + int64(frac*1_000_000_000>>32)
}

// millis and seconds are times; one that cannot be a time is none.
func millis(v []byte) int64 {
	if n := number(v); n < 1<<42 {
		return int64(n) * 1e6
	}
	return 0
}

func seconds(v []byte) int64 { return int64(number(v)&0xffffffff) * 1e9 }

// field takes an information element (IANA's registry; the numbers of v9 are the same below 128).
func (f *flow) field(id uint16, v []byte) {
	switch id {
	case 1, 85, 231: // octets: delta, total, and of NSEL the initiator's
		if n := number(v); n > 0 || !f.counted {
			f.bytes = max(f.bytes, n)
		}
		f.counted = true
	case 2, 86, 298:
		f.packets = max(f.packets, number(v))
		f.counted = true
	case 232, 299: // the responder's
		if id == 232 {
			f.revBytes = number(v)
		} else {
			f.revPackets = number(v)
		}
	case 23: // as it left the exporter: the same octets again, unless nothing else counts them
		if f.bytes == 0 {
			f.bytes, f.counted = number(v), true
		}
	case 24:
		if f.packets == 0 {
			f.packets, f.counted = number(v), true
		}
	case 4:
		f.proto = int(number(v) & 0xff)
	case 5:
		f.tos = int(number(v) & 0xff)
	case 6:
		f.flags = uint16(number(v))
	case 7, 180, 182:
		if n := uint16(number(v)); n > 0 {
			f.srcPort = n
		}
	case 11, 181, 183:
		if n := uint16(number(v)); n > 0 {
			f.dstPort = n
		}
	case 8, 27:
		if a := addr(v); a.IsValid() && (!f.src.IsValid() || f.src.IsUnspecified()) {
			f.src = a
		}
	case 12, 28:
		if a := addr(v); a.IsValid() && (!f.dst.IsValid() || f.dst.IsUnspecified()) {
			f.dst = a
		}
	case 15, 18, 62, 63:
		if a := addr(v); a.IsValid() && !f.nextHop.IsValid() {
			f.nextHop = a
		}
	case 10, 252:
		f.inIf = uint32(number(v))
	case 14, 253:
		f.outIf = uint32(number(v))
	case 16:
		f.srcAS = uint32(number(v))
	case 17:
		f.dstAS = uint32(number(v))
	case 21:
		f.lastUp, f.hasLast = uint32(number(v)), true
	case 22:
		f.firstUp, f.hasFirst = uint32(number(v)), true
	case 32, 139: // type and code
		if len(v) == 2 {
			f.icmp = int(number(v))
		}
	case 176, 178:
		f.icmp = max(f.icmp, 0)&0xff | int(number(v)&0xff)<<8
	case 177, 179:
		f.icmp = max(f.icmp, 0)&0xff00 | int(number(v)&0xff)
	case 34, 50, 305:
		f.sampling = number(v)
	case 306:
		f.space = number(v)
	case 56:
		copyMac(&f.srcMac, v)
	case 80:
		copyMac(&f.dstMac, v)
	case 57, 81: // after the exporter: not the hosts' own
	case 58, 243:
		f.vlan = int(number(v) & 0xfff)
	case 59, 254:
		f.outVlan = int(number(v) & 0xfff)
	case 61:
		f.direction = int(number(v) & 0xff)
	case 82, 83:
		if f.ifName == "" {
			f.ifName = text(v)
		}
	case 95:
		f.appID = uint32(number(v))
	case 96:
		f.app = text(v)
	case 136:
		f.endReason = int(number(v) & 0xff)
	case 150:
		f.start = seconds(v)
	case 151:
		f.end = seconds(v)
	case 152:
		f.start = millis(v)
	case 153:
		f.end = millis(v)
	case 154, 156:
		f.start = ntp(v)
	case 155, 157:
		f.end = ntp(v)
	case 158:
		f.start = f.exported - int64(number(v)&0xffffffff)*1e3
	case 159:
		f.end = f.exported - int64(number(v)&0xffffffff)*1e3
	case 160:
		f.init = millis(v)
	case 161:
		f.duration = millis(v)
	case 162:
		f.duration = int64(number(v)&0xffffffff) * 1e3
	case 322:
		f.at = seconds(v)
	case 323:
		f.at = millis(v)
	case 225, 281, 40001: // 40001 to 40005: Cisco ASA before 8.4
		f.natSrc = addr(v)
	case 226, 282, 40002:
		f.natDst = addr(v)
	case 227, 40003:
		f.natSrcPort = uint16(number(v))
	case 228, 40004:
		f.natDstPrt = uint16(number(v))
	case 233, 40005:
		f.fwEvent = int(number(v) & 0xff)
	case 33002:
		f.fwCode = int(number(v) & 0xffff)
	case 371, 40000: // the latter: NSEL's user name
		f.user = text(v)
	}
}

func copyMac(to *[6]byte, v []byte) {
	if len(v) == 6 {
		*to = [6]byte(v)
	}
}

// up is a time given as the exporter's uptime in milliseconds, which goes around after 49 days.
func (f *flow) up(ms uint32) int64 {
	if f.version == 10 {
		if f.init == 0 {
			return 0
		}
		return f.init + int64(ms)*1e6
	}
	if ms == 0 && f.uptime > 60_000 { // no time rather than that of the exporter's start
		return 0
	}
	return f.exported - int64(int32(f.uptime-ms))*1e6
}

// Words of what a firewall did (element 233) and why a flow ended (136).
var (
	fwEvents   = [...]string{1: "flow-created", 2: "flow-deleted", 3: "flow-denied", 4: "flow-alert", 5: "flow-update"}
	endReasons = [...]string{1: "idle timeout", 2: "active timeout", 3: "end of flow detected", 4: "forced end", 5: "lack of resources"}
	protocols  = map[int]string{1: "icmp", 2: "igmp", 4: "ipv4", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp"}
)

// fill writes the flow into an event.
func (f *flow) fill(e *event.Event, received int64) {
	e.Reset()
	if f.start == 0 && f.hasFirst {
		f.start = f.up(f.firstUp)
	}
	if f.end == 0 && f.hasLast {
		f.end = f.up(f.lastUp)
	}
	if f.end == 0 && f.start != 0 && f.duration > 0 {
		f.end = f.start + f.duration
	}
	e.Time = f.exported
	for _, t := range []int64{f.at, f.end} {
		if t > 0 {
			e.Time = t
			break
		}
	}
	if e.Time <= 0 {
		e.Time = received
	}
	set := func(k event.Key, s string) {
		if s != "" {
			e.SetString(k, s)
		}
	}
	num := func(k event.Key, n uint64) {
		if n > 0 && n < 1<<63 {
			e.SetInt(k, int64(n))
		}
	}
	ip := func(k event.Key, a netip.Addr) {
		if a.IsValid() && !a.IsUnspecified() {
			e.SetIP(k, a.Unmap())
		}
	}
	e.SetString(event.EventKind, "event")
	e.SetString(event.EventModule, "netflow")
	e.SetString(event.EventDataset, "netflow.log")
	e.AddString(event.EventCategory, "network")
	e.AddString(event.EventType, "connection")
	e.SetString(event.ObserverType, "netflow")
	ip(event.ObserverIP, f.exporter)
	ip(event.SourceIP, f.src)
	ip(event.DestinationIP, f.dst)
	if f.proto != 1 && f.proto != 58 {
		num(event.SourcePort, uint64(f.srcPort))
		num(event.DestinationPort, uint64(f.dstPort))
	} else if f.icmp < 0 && f.dstPort > 0 { // where v5 and many others put type and code
		f.icmp = int(f.dstPort)
	}
	if f.proto >= 0 {
		set(event.NetworkIANANumber, strconv.Itoa(f.proto))
		set(event.NetworkTransport, protocols[f.proto])
	}
	if f.src.Is4() || f.dst.Is4() {
		e.SetString(event.NetworkType, "ipv4")
	} else if f.src.Is6() || f.dst.Is6() {
		e.SetString(event.NetworkType, "ipv6")
	}
	if f.counted {
		num(event.SourceBytes, f.bytes)
		num(event.SourcePackets, f.packets)
		num(event.DestinationBytes, f.revBytes)
		num(event.DestinationPackets, f.revPackets)
		num(event.NetworkBytes, f.bytes+f.revBytes)
		num(event.NetworkPackets, f.packets+f.revPackets)
	}
	if f.start > 0 {
		e.SetTime(event.EventStart, f.start)
	}
	if f.end > 0 {
		e.SetTime(event.EventEnd, f.end)
	}
	if f.start > 0 && f.end >= f.start {
		num(event.EventDuration, uint64(f.end-f.start))
	}
	num(event.SourceASNumber, uint64(f.srcAS))
	num(event.DestinationASNumber, uint64(f.dstAS))
	ip(event.SourceNATIP, f.natSrc)
	ip(event.DestinationNATIP, f.natDst)
	num(event.SourceNATPort, uint64(f.natSrcPort))
	num(event.DestinationNATPort, uint64(f.natDstPrt))
	set(event.SourceMAC, mac(f.srcMac))
	set(event.DestinationMAC, mac(f.dstMac))
	set(event.NetworkApplication, strings.ToLower(f.app))
	set(event.UserName, f.user)
	set(event.ObserverIngressInterfaceName, name(f.inName, f.inIf))
	set(event.ObserverEgressInterfaceName, name(f.outName, f.outIf))
	if f.vlan > 0 {
		set(event.NetworkVLANID, strconv.Itoa(f.vlan))
	}
	if f.outVlan > 0 {
		set(event.ObserverEgressVLANID, strconv.Itoa(f.outVlan))
	}
	e.SetString(event.EventAction, "netflow_flow")
	if f.fwEvent > 0 && f.fwEvent < len(fwEvents) {
		e.SetString(event.EventAction, fwEvents[f.fwEvent])
		switch f.fwEvent {
		case 1, 2, 5:
			e.SetString(event.TocsinVerdict, "allow")
			e.AddString(event.EventType, "allowed")
			e.SetString(event.EventOutcome, "success")
		case 3:
			e.SetString(event.TocsinVerdict, "deny")
			e.AddString(event.EventType, "denied")
			e.SetString(event.EventOutcome, "failure")
		case 4:
			e.SetString(event.TocsinVerdict, "detect")
		}
	}
	if f.endReason > 0 && f.endReason < len(endReasons) {
		set(event.EventReason, endReasons[f.endReason])
	}
	extra := func(n string, v string) {
		if v != "" {
			e.SetNamed(n, v)
		}
	}
	extra("netflow.version", strconv.Itoa(int(f.version)))
	extra("netflow.domain", strconv.FormatUint(uint64(f.domain), 10))
	if f.flags != 0 {
		extra("netflow.tcp_flags", tcpFlags(f.flags))
	}
	if f.tos > 0 {
		extra("netflow.tos", strconv.Itoa(f.tos))
	}
	if f.icmp >= 0 && (f.proto == 1 || f.proto == 58) {
		extra("netflow.icmp_type", strconv.Itoa(f.icmp>>8))
		extra("netflow.icmp_code", strconv.Itoa(f.icmp&0xff))
	}
	switch f.direction {
	case 0:
		extra("netflow.direction", "ingress")
	case 1:
		extra("netflow.direction", "egress")
	}
	if f.space > 0 && f.sampling > 0 { // so many taken, so many passed over
		f.sampling = (f.sampling + f.space) / f.sampling
	}
	if f.sampling > 1 {
		extra("netflow.sampling_interval", strconv.FormatUint(f.sampling, 10))
	}
	if f.nextHop.IsValid() && !f.nextHop.IsUnspecified() {
		extra("netflow.next_hop", f.nextHop.Unmap().String())
	}
	if f.fwCode > 0 {
		extra("netflow.firewall_extended_event", strconv.Itoa(f.fwCode))
	}
}

func name(s string, n uint32) string {
	if s != "" || n == 0 {
		return s
	}
	return strconv.FormatUint(uint64(n), 10)
}

// mac writes a hardware address as ECS does.
func mac(m [6]byte) string {
	if m == [6]byte{} {
		return ""
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, 17)
	for i, x := range m {
		if i > 0 {
			b = append(b, '-')
		}
		b = append(b, hex[x>>4], hex[x&15])
	}
	return string(b)
}

func tcpFlags(n uint16) string {
	var names []string
	for i, s := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} {
		if n&(1<<i) != 0 {
			names = append(names, s)
		}
	}
	return strings.Join(names, " ")
}
