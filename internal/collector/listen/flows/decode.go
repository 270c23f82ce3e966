package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// The bounds of what exporters, or whoever sends in their names, can make us keep.
const (
	maxDomains   = 1024    // exporter, version and observation domain
	maxTemplates = 256     // of a domain
	maxFields    = 512     // of a template
	maxAll       = 200_000 // fields of all templates
	maxNames     = 4096    // interfaces and applications of a domain

	// minRecord is the shortest record, in bytes, that is no options record: two IPv4 addresses take as many. Of a datagram of shorter ones, each
	// a line, one stranger's packet would be thousands; one of no bytes would repeat for ever.
	minRecord = 8
)

var (
	errVersion   = errors.New("neither NetFlow v5, v9 nor IPFIX")
	errMalformed = errors.New("malformed")
)

// field is one field of a template. Length 65535 is a variable one.
type field struct {
	ID, Length uint16
	PEN        uint32
}

type template struct {
	fields  []field
	scope   int // how many of them are scopes of an options template
	options bool
	min     int // bytes of the shortest record
}

// key is who a template belongs to.
type key struct {
	exporter netip.Addr
	version  uint16
	domain   uint32
}

// domain is what is known of one observation domain.
type domain struct {
	templates map[uint16]*template
	last      int64 // when it last sent something
	seq       uint32
	seen      bool // seq is set
	sampling  uint64
	init      int64 // when the exporter started, as its options say; IPFIX of softflowd counts from there
	ifNames   map[uint32]string
	apps      map[uint32]string
}

type counts struct{ noTemplate, options, lostSeq, refused, evicted uint64 }

// decoder belongs to one goroutine.
type decoder struct {
	domains map[key]*domain
	fields  int // of all templates
	counts  counts
	changed bool
	flow    flow
}

func newDecoder() *decoder { return &decoder{domains: map[key]*domain{}} }

// datagram gives emit each flow of one datagram; the flow is valid until emit returns.
func (d *decoder) datagram(from netip.Addr, b []byte, now int64, emit func(*flow)) error {
	if len(b) < 4 {
		return errMalformed
	}
	switch binary.BigEndian.Uint16(b) {
	case 5:
		return d.v5(from, b, now, emit)
	case 9:
		return d.v9(from, b, now, emit)
	case 10:
		return d.ipfix(from, b, now, emit)
	}
	return errVersion
}

func (d *decoder) v5(from netip.Addr, b []byte, now int64, emit func(*flow)) error {
	const head, size = 24, 48
	n := int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < head || n == 0 || n > 30 || len(b) < head+n*size {
		return fmt.Errorf("%w: NetFlow v5 of %d bytes with %d records", errMalformed, len(b), n)
	}
	be := binary.BigEndian
	secs, nsecs := int64(be.Uint32(b[8:])), int64(be.Uint32(b[12:]))
	engine := uint32(be.Uint16(b[20:]))
	dom := d.domain(key{from, 5, engine}, now)
	d.sequence(dom, be.Uint32(b[16:]), uint32(n))
	f := &d.flow
	for i := range n {
		r := b[head+i*size:]
		f.reset(from, 5, engine)
		f.exported, f.uptime = secs*1e9+min(nsecs, 999_999_999), be.Uint32(b[4:])
		f.sampling = uint64(be.Uint16(b[22:]) & 0x3fff)
		f.src, f.dst, f.nextHop = netip.AddrFrom4([4]byte(r)), netip.AddrFrom4([4]byte(r[4:])), netip.AddrFrom4([4]byte(r[8:]))
		f.inIf, f.outIf = uint32(be.Uint16(r[12:])), uint32(be.Uint16(r[14:]))
		f.packets, f.bytes = uint64(be.Uint32(r[16:])), uint64(be.Uint32(r[20:]))
		f.firstUp, f.lastUp, f.hasFirst, f.hasLast = be.Uint32(r[24:]), be.Uint32(r[28:]), true, true
		f.srcPort, f.dstPort = be.Uint16(r[32:]), be.Uint16(r[34:])
		f.flags, f.proto, f.tos = uint16(r[37]), int(r[38]), int(r[39])
		f.srcAS, f.dstAS = uint32(be.Uint16(r[40:])), uint32(be.Uint16(r[42:]))
		f.counted = true
		emit(f)
	}
	return nil
}

func (d *decoder) v9(from netip.Addr, b []byte, now int64, emit func(*flow)) error {
	if len(b) < 20 {
		return fmt.Errorf("%w: NetFlow v9 of %d bytes", errMalformed, len(b))
	}
	be := binary.BigEndian
	k := key{from, 9, be.Uint32(b[16:])}
	dom := d.domain(k, now)
	d.sequence(dom, be.Uint32(b[12:]), 1) // v9 counts datagrams
	return d.sets(k, dom, b[20:], int64(be.Uint32(b[8:]))*1e9, be.Uint32(b[4:]), emit)
}

func (d *decoder) ipfix(from netip.Addr, b []byte, now int64, emit func(*flow)) error {
	n := int(binary.BigEndian.Uint16(b[2:]))
	if len(b) < 16 || n < 16 || n > len(b) {
		return fmt.Errorf("%w: IPFIX of %d bytes that says %d", errMalformed, len(b), n)
	}
	// A datagram is one message, and some exporters (Nokia) say a little less than they send: the sets say for themselves how long they are.
	be := binary.BigEndian
	k := key{from, 10, be.Uint32(b[12:])}
	dom := d.domain(k, now)
	records := uint32(0)
	err := d.sets(k, dom, b[16:], int64(be.Uint32(b[4:]))*1e9, 0, func(f *flow) { records++; emit(f) })
	d.sequence(dom, be.Uint32(b[8:]), records+uint32(d.flow.optionRecords)) // IPFIX counts data records
	if d.flow.unknownSet {
		dom.seen = false
	}
	d.flow.optionRecords, d.flow.unknownSet = 0, false
	return err
}

// sequence counts what an exporter has sent and we have not seen. step is how far its number goes on with this datagram. A number far away is
// a restart of the exporter, one behind a datagram out of order.
func (d *decoder) sequence(dom *domain, seq, step uint32) {
	if gap := seq - dom.seq; dom.seen && gap > 0 && gap < 1<<16 {
		d.counts.lostSeq += uint64(gap)
	}
	dom.seq, dom.seen = seq+step, true
}

// domain gives what is known of a domain, and makes room for a new one.
func (d *decoder) domain(k key, now int64) *domain {
	dom := d.domains[k]
	if dom == nil {
		if len(d.domains) >= maxDomains {
			d.evict(nil)
		}
		dom = &domain{templates: map[uint16]*template{}}
		d.domains[k] = dom
	}
	dom.last = now
	return dom
}

// evict forgets the domain that has been silent longest, but not the one named.
func (d *decoder) evict(but *domain) {
	var oldest key
	found := false
	for k, dom := range d.domains {
		if dom == but {
			continue
		}
		if !found || dom.last < d.domains[oldest].last {
			oldest, found = k, true
		}
	}
	if found {
		for _, t := range d.domains[oldest].templates {
			d.fields -= len(t.fields)
		}
		delete(d.domains, oldest)
		d.counts.evicted++
		d.changed = true
	}
}

// add keeps a template, or forgets the one of that number when it has no fields (an IPFIX withdrawal).
func (d *decoder) add(dom *domain, id uint16, t *template) {
	old := dom.templates[id]
	if old != nil {
		d.fields -= len(old.fields)
		delete(dom.templates, id)
	}
	if len(t.fields) == 0 {
		d.changed = d.changed || old != nil
		return
	}
	for _, f := range t.fields {
		if f.Length == 0xffff {
			t.min++
		} else {
			t.min += int(f.Length)
		}
	}
	if t.min == 0 || t.min < minRecord && !t.options || id < 256 || len(t.fields) > maxFields || t.scope > len(t.fields) || old == nil && len(dom.templates) >= maxTemplates {
		d.counts.refused++
		return
	}
	for d.fields+len(t.fields) > maxAll && len(d.domains) > 1 {
		d.evict(dom)
	}
	dom.templates[id] = t
	d.fields += len(t.fields)
	if old == nil || !equal(old, t) {
		d.changed = true
	}
}

func equal(a, b *template) bool {
	if len(a.fields) != len(b.fields) || a.scope != b.scope || a.options != b.options {
		return false
	}
	for i := range a.fields {
		if a.fields[i] != b.fields[i] {
			return false
		}
	}
	return true
}

// sets reads the sets of a v9 or IPFIX message.
func (d *decoder) sets(k key, dom *domain, b []byte, exported int64, uptime uint32, emit func(*flow)) error {
	be := binary.BigEndian
	d.flow.optionRecords, d.flow.unknownSet = 0, false
	for len(b) >= 4 {
		id, n := be.Uint16(b), int(be.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return fmt.Errorf("%w: a set of %d bytes, %d left", errMalformed, n, len(b))
		}
		body := b[4:n]
		b = b[n:]
		var err error
		switch {
		case k.version == 9 && id == 0, k.version == 10 && id == 2:
			err = d.templates(dom, body, k.version == 10)
		case k.version == 9 && id == 1:
			err = d.options9(dom, body)
		case k.version == 10 && id == 3:
			err = d.options10(dom, body)
		case id < 256: // reserved
		default:
			t := dom.templates[id]
			if t == nil {
				d.counts.noTemplate++
				d.flow.unknownSet = true // how many records that was cannot be known
				continue
			}
			for len(body) >= t.min {
				f := &d.flow
				f.reset(k.exporter, k.version, k.domain)
				f.exported, f.uptime = exported, uptime
				rest, ok := f.read(t, body)
				if !ok {
					break // padding that looks like the beginning of a record
				}
				body = rest
				if t.options {
					d.counts.options++
					f.optionRecords++
					dom.learn(f)
					continue
				}
				if f.sampling == 0 {
					f.sampling = dom.sampling
				}
				if f.init == 0 {
					f.init = dom.init
				}
				f.inName, f.outName = dom.ifNames[f.inIf], dom.ifNames[f.outIf]
				if f.app == "" && f.appID != 0 {
					f.app = dom.apps[f.appID]
				}
				emit(f)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf reads n fields.
func fieldsOf(b []byte, n int, pen bool) (fields []field, rest []byte, err error) {
	be := binary.BigEndian
	if n > maxFields || len(b) < 4*n {
		return nil, nil, fmt.Errorf("%w: a template of %d fields in %d bytes", errMalformed, n, len(b))
	}
	fields = make([]field, n)
	for i := range fields {
		if len(b) < 4 {
			return nil, nil, fmt.Errorf("%w: a template that ends early", errMalformed)
		}
		f := &fields[i]
		f.ID, f.Length = be.Uint16(b), be.Uint16(b[2:])
		b = b[4:]
		if pen && f.ID&0x8000 != 0 {
			if len(b) < 4 {
				return nil, nil, fmt.Errorf("%w: a template that ends early", errMalformed)
			}
			f.ID &= 0x7fff
			f.PEN = be.Uint32(b)
			b = b[4:]
		}
		if !pen && f.Length == 0xffff { // only IPFIX has variable lengths
			return nil, nil, fmt.Errorf("%w: a field of 65535 bytes", errMalformed)
		}
	}
	return fields, b, nil
}

func (d *decoder) templates(dom *domain, b []byte, pen bool) error {
	for len(b) >= 4 {
		id, n := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if id == 0 { // padding
			return nil
		}
		fields, rest, err := fieldsOf(b[4:], n, pen)
		if err != nil {
			d.counts.refused++
			return err
		}
		d.add(dom, id, &template{fields: fields})
		b = rest
	}
	return nil
}

func (d *decoder) options9(dom *domain, b []byte) error {
	for len(b) >= 6 {
		be := binary.BigEndian
		id, scope, options := be.Uint16(b), int(be.Uint16(b[2:]))/4, int(be.Uint16(b[4:]))/4
		if id == 0 {
			return nil
		}
		fields, rest, err := fieldsOf(b[6:], scope+options, false)
		if err != nil {
			d.counts.refused++
			return err
		}
		d.add(dom, id, &template{fields: fields, scope: scope, options: true})
		b = rest
	}
	return nil
}

func (d *decoder) options10(dom *domain, b []byte) error {
	for len(b) >= 4 {
		be := binary.BigEndian
		id, n := be.Uint16(b), int(be.Uint16(b[2:]))
		if id == 0 {
			return nil
		}
		if n == 0 { // withdrawal
			d.add(dom, id, &template{})
			b = b[4:]
			continue
		}
		if len(b) < 6 {
			return nil
		}
		scope := int(be.Uint16(b[4:]))
		fields, rest, err := fieldsOf(b[6:], n, true)
		if err != nil {
			d.counts.refused++
			return err
		}
		d.add(dom, id, &template{fields: fields, scope: scope, options: true})
		b = rest
	}
	return nil
}

// learn takes what an options record says.
func (dom *domain) learn(f *flow) {
	if f.sampling > 0 {
		dom.sampling = f.sampling
	}
	if f.init > 0 {
		dom.init = f.init
	}
	if f.ifName != "" && len(dom.ifNames) < maxNames {
		if dom.ifNames == nil {
			dom.ifNames = map[uint32]string{}
		}
		dom.ifNames[f.inIf] = f.ifName
	}
	if f.app != "" && f.appID != 0 && len(dom.apps) < maxNames {
		if dom.apps == nil {
			dom.apps = map[uint32]string{}
		}
		dom.apps[f.appID] = f.app
	}
}
