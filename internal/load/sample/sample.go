// Package sample holds log lines of real devices as templates, and fills them in.
//
// The templates (folder lines, embedded) were made from real sample lines by gen: their structure is as captured, while times,
// addresses, ports, counters and people are slots, written @{name}. SOURCES.tsv says for each where it came from, under which licence and
// what was changed. The demo and the load generator fill the slots with documentation addresses (RFC 5737, RFC 3849) or benchmarking ones (RFC 2544)
// and with the present time. The package also holds the traffic mix: 4,086 real firewall sessions (ports, action, bytes, packets, seconds)
// from the UCI Internet Firewall data, without addresses.
//
//go:generate go run ./gen -from ../../../../shared/data/logs
package sample

import (
	"embed"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed lines/*.tmpl lines/mix.tsv lines/SOURCES.tsv
var files embed.FS

// slot is what a template leaves open. Each is written by Values.append.
type slot uint8

const (
	literal slot = iota
	slotPri
	slotBSD
	slotISO
	slotEve
	slotASA
	slotDate
	slotClock
	slotUTC
	slotZulu
	slotEpochNS
	slotUptime
	slotUp
	slotHost
	slotUser
	slotSrc
	slotDst
	slotSrc6
	slotDst6
	slotNAT
	slotSport
	slotDport
	slotNport
	slotProto
	slotProtoName
	slotPROTO
	slotService
	slotSeq
	slotPID
	slotID16
	slotHex5
	slotHex8
	slotSent
	slotRcvd
	slotSpkt
	slotRpkt
	slotDur
)

var slots = map[string]slot{
	"pri": slotPri, "bsd": slotBSD, "iso": slotISO, "eve": slotEve, "asa": slotASA, "date": slotDate, "clock": slotClock, "utc": slotUTC, "zulu": slotZulu,
	"epochns": slotEpochNS, "uptime": slotUptime, "up": slotUp, "host": slotHost, "user": slotUser, "src": slotSrc, "dst": slotDst, "src6": slotSrc6, "dst6": slotDst6,
	"nat": slotNAT, "sport": slotSport, "dport": slotDport, "nport": slotNport, "proto": slotProto, "proto-name": slotProtoName, "PROTO": slotPROTO, "service": slotService,
	"seq": slotSeq, "pid": slotPID, "id16": slotID16, "hex5": slotHex5, "hex8": slotHex8, "sent": slotSent, "rcvd": slotRcvd, "spkt": slotSpkt, "rpkt": slotRpkt, "dur": slotDur,
}

// Values fill a template. Times are written in UTC. Src and Dst are the two ends as the line's sender sees them (the VPN user's address is Src).
type Values struct {
	Time       time.Time
	Host       string // the device's name
	User       string
	Src, Dst   netip.Addr
	NAT        netip.Addr // the translated source, or the address a VPN user was given
	Src6, Dst6 netip.Addr
	SrcPort    uint16
	DstPort    uint16
	NATPort    uint16
	UDP        bool
	Seq        uint64 // session, connection or sequence number; also the source of small numbers such as process ids
	Sent, Rcvd uint64 // bytes
	SentPkt    uint64
	RcvdPkt    uint64
	Seconds    uint64
}

// Template is one kind of line of one device.
type Template struct {
	Device string // the file it came from: asa, draytek ...
	Name   string
	parts  []part
}

type part struct {
	slot slot
	text string
}

// Key names the template: device/name.
func (t *Template) Key() string { return t.Device + "/" + t.Name }

// Has says whether the template has the slot of that name.
func (t *Template) Has(name string) bool {
	for _, p := range t.parts {
		if p.slot != literal && p.slot == slots[name] {
			return true
		}
	}
	return false
}

// Append writes the line, without a line end.
func (t *Template) Append(dst []byte, v *Values) []byte {
	for i := range t.parts {
		p := &t.parts[i]
		if p.slot == literal {
			dst = append(dst, p.text...)
			continue
		}
		dst = v.append(dst, p.slot)
	}
	return dst
}

func (v *Values) append(dst []byte, s slot) []byte {
	switch s {
	case slotPri:
		return append(dst, "134"...) // local0.info, the commonest
	case slotBSD:
		return v.Time.UTC().AppendFormat(dst, time.Stamp)
	case slotISO:
		return v.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000-07:00")
	case slotEve:
		return v.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000-0700")
	case slotASA:
		return v.Time.UTC().AppendFormat(dst, "Jan 02 2006 15:04:05")
	case slotDate:
		return v.Time.UTC().AppendFormat(dst, time.DateOnly)
	case slotClock:
		return v.Time.UTC().AppendFormat(dst, time.TimeOnly)
	case slotUTC:
		return v.Time.UTC().AppendFormat(dst, time.DateTime)
	case slotZulu:
		return v.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	case slotEpochNS:
		return strconv.AppendInt(dst, v.Time.UnixNano(), 10)
	case slotUptime: // a kernel started at the beginning of the month
		d := v.Time.UnixNano() % int64(30*24*time.Hour)
		dst = strconv.AppendInt(dst, d/1e9, 10)
		dst = append(dst, '.')
		return appendPadded(dst, uint64(d%1e9/1000), 6)
	case slotUp:
		d := v.Time.Unix() % (100 * 3600)
		dst = appendPadded(dst, uint64(d/3600), 2)
		dst = append(dst, ':')
		dst = appendPadded(dst, uint64(d/60%60), 2)
		dst = append(dst, ':')
		return appendPadded(dst, uint64(d%60), 2)
	case slotHost:
		return append(dst, v.Host...)
	case slotUser:
		return append(dst, v.User...)
	case slotSrc:
		return v.Src.AppendTo(dst)
	case slotDst:
		return v.Dst.AppendTo(dst)
	case slotSrc6:
		return v.Src6.AppendTo(dst)
	case slotDst6:
		return v.Dst6.AppendTo(dst)
	case slotNAT:
		return v.NAT.AppendTo(dst)
	case slotSport:
		return strconv.AppendUint(dst, uint64(v.SrcPort), 10)
	case slotDport:
		return strconv.AppendUint(dst, uint64(v.DstPort), 10)
	case slotNport:
		return strconv.AppendUint(dst, uint64(v.NATPort), 10)
	case slotProto:
		if v.UDP {
			return append(dst, "17"...)
		}
		return append(dst, '6')
	case slotProtoName:
		if v.UDP {
			return append(dst, "udp"...)
		}
		return append(dst, "tcp"...)
	case slotPROTO:
		if v.UDP {
			return append(dst, "UDP"...)
		}
		return append(dst, "TCP"...)
	case slotService:
		return v.appendService(dst)
	case slotSeq:
		return strconv.AppendUint(dst, v.Seq, 10)
	case slotPID:
		return strconv.AppendUint(dst, 1000+v.Seq%30000, 10)
	case slotID16:
		return strconv.AppendUint(dst, v.Seq&0xffff, 10)
	case slotHex5:
		return appendHex(dst, v.Seq, 5)
	case slotHex8:
		return appendHex(dst, v.Seq, 8)
	case slotSent:
		return strconv.AppendUint(dst, v.Sent, 10)
	case slotRcvd:
		return strconv.AppendUint(dst, v.Rcvd, 10)
	case slotSpkt:
		return strconv.AppendUint(dst, v.SentPkt, 10)
	case slotRpkt:
		return strconv.AppendUint(dst, v.RcvdPkt, 10)
	case slotDur:
		return strconv.AppendUint(dst, v.Seconds, 10)
	}
	return dst
}

func (v *Values) appendService(dst []byte) []byte {
	switch v.DstPort {
	case 53:
		return append(dst, "DNS"...)
	case 80:
		return append(dst, "HTTP"...)
	case 443:
		return append(dst, "HTTPS"...)
	case 22:
		return append(dst, "SSH"...)
	case 3389:
		return append(dst, "RDP"...)
	case 445:
		return append(dst, "SMB"...)
	}
	if v.UDP {
		dst = append(dst, "udp/"...)
	} else {
		dst = append(dst, "tcp/"...)
	}
	return strconv.AppendUint(dst, uint64(v.DstPort), 10)
}

func appendPadded(dst []byte, n uint64, width int) []byte {
	var digits [20]byte
	s := strconv.AppendUint(digits[:0], n, 10)
	for range width - len(s) {
		dst = append(dst, '0')
	}
	return append(dst, s...)
}

func appendHex(dst []byte, n uint64, width int) []byte {
	const digits = "0123456789abcdef"
	for i := width - 1; i >= 0; i-- {
		dst = append(dst, digits[n>>(4*i)&15])
	}
	return dst
}

// Session is one row of the traffic mix.
type Session struct {
	Port             uint16
	Denied           bool
	Sent, Rcvd       uint64 // bytes
	SentPkt, RcvdPkt uint64
	Seconds          uint64
}

// Set is all templates and the mix.
type Set struct {
	byKey   map[string]*Template
	keys    []string
	Allowed []Session // what was let through, in the order of the file
	Denied  []Session
}

// All returns the embedded templates. The result is shared and must not be changed.
var All = sync.OnceValue(func() *Set {
	s, err := load()
	if err != nil {
		panic("sample: the embedded templates are damaged: " + err.Error()) // a test reads them all
	}
	return s
})

// Template returns the template device/name; a name that is not there is a programming error.
func (s *Set) Template(key string) *Template {
	t := s.byKey[key]
	if t == nil {
		panic("sample: no template " + key)
	}
	return t
}

// Keys lists all templates as device/name, sorted.
func (s *Set) Keys() []string { return s.keys }

// Pick draws a session from the mix.
func (s *Set) Pick(rng *rand.Rand, denied bool) Session {
	if denied {
		return s.Denied[rng.IntN(len(s.Denied))]
	}
	return s.Allowed[rng.IntN(len(s.Allowed))]
}

// Sources is SOURCES.tsv, for whoever must show where the lines came from.
func Sources() string {
	b, err := files.ReadFile("lines/SOURCES.tsv")
	if err != nil {
		panic("sample: " + err.Error())
	}
	return string(b)
}

func load() (*Set, error) {
	s := &Set{byKey: map[string]*Template{}}
	entries, err := files.ReadDir("lines")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		device, ok := strings.CutSuffix(e.Name(), ".tmpl")
		if !ok {
			continue
		}
		b, err := files.ReadFile("lines/" + e.Name())
		if err != nil {
			return nil, err
		}
		for row := range strings.Lines(string(b)) {
			row = strings.TrimSuffix(row, "\n")
			if row == "" || row[0] == '#' {
				continue
			}
			name, text, ok := strings.Cut(row, "\t")
			if !ok {
				return nil, fmt.Errorf("%s: no tab in %q", e.Name(), row)
			}
			t, err := parse(text)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", e.Name(), name, err)
			}
			t.Device, t.Name = device, name
			if s.byKey[t.Key()] != nil {
				return nil, fmt.Errorf("%s: %s is there twice", e.Name(), name)
			}
			s.byKey[t.Key()] = t
			s.keys = append(s.keys, t.Key())
		}
	}
	sort.Strings(s.keys)
	return s, s.loadMix()
}

func parse(text string) (*Template, error) {
	t := &Template{}
	for text != "" {
		before, rest, ok := strings.Cut(text, "@{")
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		if !ok {
			break
		}
		name, after, ok := strings.Cut(rest, "}")
		s, known := slots[name]
		if !ok || !known {
			return nil, fmt.Errorf("no slot %q", name)
		}
		t.parts = append(t.parts, part{slot: s})
		text = after
	}
	return t, nil
}

func (s *Set) loadMix() error {
	b, err := files.ReadFile("lines/mix.tsv")
	if err != nil {
		return err
	}
	for row := range strings.Lines(string(b)) {
		if row[0] == '#' {
			continue
		}
		c := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
		if len(c) != 7 {
			return fmt.Errorf("mix.tsv: %d columns in %q", len(c), row)
		}
		var n [7]uint64
		for i := range c {
			if i == 1 {
				continue
			}
			if n[i], err = strconv.ParseUint(c[i], 10, 64); err != nil {
				return fmt.Errorf("mix.tsv: %w", err)
			}
		}
		x := Session{Port: uint16(n[0]), Denied: c[1] != "allow", Sent: n[2], Rcvd: n[3], SentPkt: n[4], RcvdPkt: n[5], Seconds: n[6]}
		if x.Denied {
			s.Denied = append(s.Denied, x)
		} else {
			s.Allowed = append(s.Allowed, x)
		}
	}
	return nil
}
