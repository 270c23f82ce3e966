package eventstore

import (
	"net/netip"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/event"
)

// rowReader turns blocks of a SELECT of eventColumns back into events.
type rowReader struct {
	tenant   proto.ColUInt32
	when     proto.ColInt64
	stamp    proto.ColInt64
	shift    proto.ColInt64
	ingested proto.ColInt64
	stream   proto.ColFixedStr
	seq      proto.ColUInt64
	idx      proto.ColUInt32
	quar     proto.ColUInt8
	class    proto.ColStr
	service  proto.ColStr
	level    proto.ColStr
	texts    []*proto.ColStr
	nums     []*proto.ColUInt64
	ips      []*proto.ColIPv6
	fields   *proto.ColMap[string, string]
	raw      proto.ColStr
	results  proto.Results
}

// eventColumns is the SELECT list a rowReader reads. Times come as microseconds, dictionaries as plain strings.
var eventColumns = func() string {
	cols := []string{"tenant", "toUnixTimestamp64Micro(time)", "toUnixTimestamp64Micro(timestamp)", "created_shift", "toUnixTimestamp64Micro(ingested)", "stream", "seq", "idx", "quarantined", "CAST(class, 'String')", "CAST(service, 'String')", "CAST(level, 'String')"}
	for _, d := range layout {
		switch d.kind {
		case kindLow, kindList:
			cols = append(cols, "CAST("+d.name+", 'String')")
		case kindUint8, kindUint16, kindUint32:
			cols = append(cols, "toUInt64("+d.name+")")
		default:
			cols = append(cols, d.name)
		}
	}
	return strings.Join(append(cols, "CAST(fields, 'Map(String, String)')", "raw"), ", ")
}()

func newRowReader() *rowReader {
	r := &rowReader{texts: make([]*proto.ColStr, len(layout)), nums: make([]*proto.ColUInt64, len(layout)), ips: make([]*proto.ColIPv6, len(layout))}
	r.stream.SetSize(16)
	r.fields = proto.NewMap(new(proto.ColStr), new(proto.ColStr))
	add := func(c proto.ColResult) { r.results = append(r.results, proto.ResultColumn{Data: c}) }
	for _, c := range []proto.ColResult{&r.tenant, &r.when, &r.stamp, &r.shift, &r.ingested, &r.stream, &r.seq, &r.idx, &r.quar, &r.class, &r.service, &r.level} {
		add(c)
	}
	for i, d := range layout {
		switch d.kind {
		case kindIP:
			r.ips[i] = new(proto.ColIPv6)
			add(r.ips[i])
		case kindUint8, kindUint16, kindUint32, kindUint64:
			r.nums[i] = new(proto.ColUInt64)
			add(r.nums[i])
		default:
			r.texts[i] = new(proto.ColStr)
			add(r.texts[i])
		}
	}
	add(r.fields)
	add(&r.raw)
	return r
}

// Stored is an event as it lies in the store.
type Stored struct {
	*event.Event
	StoredAt    int64 // storage time, UTC nanoseconds
	Class       string
	Service     string
	Level       string
	Quarantined bool
}

// row builds the event of one row.
func (r *rowReader) row(i int) Stored {
	e := &event.Event{}
	e.Tenant = event.TenantID(r.tenant[i])
	copy(e.ID.Stream[:], r.stream.Row(i))
	e.ID.Seq, e.ID.Index = r.seq[i], r.idx[i]
	e.Time, e.Created, e.Ingested = r.stamp[i]*1e3, (r.when[i]+r.shift[i])*1e3, r.ingested[i]*1e3
	if raw := r.raw.RowBytes(i); len(raw) > 0 {
		e.SetRaw(raw)
	}
	for c, d := range layout {
		switch {
		case r.ips[c] != nil:
			if b := [16]byte((*r.ips[c])[i]); b != [16]byte{} {
				e.SetIP(d.key, unmapped(b))
			}
		case r.nums[c] != nil:
			if n := (*r.nums[c])[i]; n != 0 {
				e.SetInt(d.key, int64(n))
			}
		case d.kind == kindList:
			if s := r.texts[c].RowBytes(i); len(s) > 0 {
				for v := range strings.SplitSeq(e.Copy(s), ",") {
					e.AddString(d.key, v)
				}
			}
		default:
			if s := r.texts[c].RowBytes(i); len(s) > 0 {
				e.SetString(d.key, e.Copy(s))
			}
		}
	}
	keys, values := r.fields.Keys.(*proto.ColStr), r.fields.Values.(*proto.ColStr)
	from := 0
	if i > 0 {
		from = int(r.fields.Offsets[i-1])
	}
	for p := from; p < int(r.fields.Offsets[i]); p++ {
		name, value := keys.Row(p), e.Copy(values.RowBytes(p))
		if k, ok := event.Lookup(name); ok {
			v, ok := event.ParseValue(k.Kind(), value)
			if !ok {
				v = event.StringValue(value)
			}
			e.Add(k, v)
			continue
		}
		e.SetNamed(e.CopyString(name), value)
	}
	return Stored{Event: e, StoredAt: r.when[i] * 1e3, Class: r.class.Row(i), Service: r.service.Row(i), Level: r.level.Row(i), Quarantined: r.quar[i] != 0}
}

// Texts of bound parameters, in the engine's own notation.

func timeParam(ns int64) string { return time.Unix(0, ns).UTC().Format("2006-01-02 15:04:05.000000") }

func dayParam(ns int64) string { return time.Unix(0, ns).UTC().Format(time.DateOnly) }

func ipParam(a netip.Addr) string { return netip.AddrFrom16(a.As16()).String() }
