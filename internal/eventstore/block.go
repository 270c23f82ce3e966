package eventstore

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"tocsin/internal/event"
)

// What one block may hold. The engine deduplicates by block and partition, so a block must stay one insert block (below
// 1,048,449 rows and 256 MiB) and below 100 partitions.
const (
	MaxBlockRows  = 100_000
	MaxBlockBytes = 128 << 20
	maxBlockDays  = 64
)

// Meta is what the hub knows about an event beyond the event itself. It comes from the event's batch and from the plan, so
// that a redo makes the same row.
type Meta = struct {
	ClockOffset time.Duration // added to event.created to get the storage time
	Keep        uint16        // days the row is kept; 0 means DefaultKeep, less than MinKeep means MinKeep; see also expiry.go
	Quarantined bool          // stored, shown as such, counted in nothing shared
}

// DefaultKeep is how many days a row is kept when nothing else is said.
const DefaultKeep = 90

// MinKeep is the shortest retention: within it, rows and roll-ups can be compared and mended.
const MinKeep = 30

// BatchID names a collector's batch, and how many rows of it lie on each day. It is what counts are checked by.
type batchDay struct {
	tenant event.TenantID
	stream event.StreamID
	seq    uint64
	day    int32 // days since 1970
}

// Block is rows on their way into the store, column by column. It is filled by one goroutine, inserted, Reset and reused.
type Block struct {
	n                                                      int
	tenant, created, stamp, ingested, seq, idx, keep, quar number
	when                                                   number
	stream                                                 bytes16
	class, service, level                                  *low
	lows                                                   []*low     // by layout place
	texts                                                  []*text    //
	nums                                                   []*number  //
	ips                                                    []*bytes16 //
	tail                                                   tail
	raw                                                    text

	perDay   map[batchDay]int
	lastDay  batchDay
	lastN    int
	days     map[int32]struct{}
	min, max int64 // storage time, microseconds
	// Where the block begins and ends. Only its first batch may have begun in the block before, and only its last may go on in the next.
	first, last event.ID
	scratch     []byte
}

// NewBlock makes an empty block.
func NewBlock() *Block {
	b := &Block{
		class: newLow(), service: newLow(), level: newLow(),
		lows: make([]*low, len(layout)), texts: make([]*text, len(layout)), nums: make([]*number, len(layout)), ips: make([]*bytes16, len(layout)),
		perDay: map[batchDay]int{}, days: map[int32]struct{}{},
	}
	b.tail.keys = *newLow()
	b.tenant.width, b.idx.width, b.keep.width, b.quar.width = 4, 4, 2, 1
	for i, d := range layout {
		switch d.kind {
		case kindString:
			b.texts[i] = &text{}
		case kindLow, kindList:
			b.lows[i] = newLow()
		case kindIP:
			b.ips[i] = &bytes16{}
		case kindUint8:
			b.nums[i] = &number{width: 1}
		case kindUint16:
			b.nums[i] = &number{width: 2}
		case kindUint32:
			b.nums[i] = &number{width: 4}
		case kindUint64:
			b.nums[i] = &number{width: 8}
		}
	}
	return b
}

// Reset empties the block and keeps its memory.
func (b *Block) Reset() {
	b.n, b.lastN, b.lastDay, b.min, b.max = 0, 0, batchDay{}, 0, 0
	b.first, b.last = event.ID{}, event.ID{}
	for _, c := range []*number{&b.tenant, &b.created, &b.stamp, &b.ingested, &b.seq, &b.idx, &b.keep, &b.quar, &b.when} {
		c.rows = c.rows[:0]
	}
	b.stream.rows = b.stream.rows[:0]
	b.class.reset()
	b.service.reset()
	b.level.reset()
	for i := range layout {
		switch {
		case b.lows[i] != nil:
			b.lows[i].reset()
		case b.texts[i] != nil:
			b.texts[i].Reset()
		case b.nums[i] != nil:
			b.nums[i].rows = b.nums[i].rows[:0]
		case b.ips[i] != nil:
			b.ips[i].rows = b.ips[i].rows[:0]
		}
	}
	b.tail.ends = b.tail.ends[:0]
	b.tail.keys.reset()
	b.tail.values.Reset()
	b.raw.Reset()
	clear(b.perDay)
	clear(b.days)
}

// Len is the number of rows.
func (b *Block) Len() int { return b.n }

// StorageTime is where on the time line an event is stored, in UTC nanoseconds: event.created corrected by the clock's
// offset. Where that is more than 5 minutes ahead of ingestion, or so far behind it that the row would expire at once, it
// is event.ingested: bad clocks must not make endless partitions. The times the sender gave are kept beside it.
func StorageTime(e *event.Event, m Meta) int64 {
	t := e.Created + int64(m.ClockOffset)
	if e.Created == 0 || t > e.Ingested+int64(5*time.Minute) || t < e.Ingested-int64(keepDays(m)-2)*24*int64(time.Hour) {
		return e.Ingested
	}
	return t
}

func keepDays(m Meta) uint16 {
	switch {
	case m.Keep == 0:
		return DefaultKeep
	case m.Keep < MinKeep:
		return MinKeep
	}
	return m.Keep
}

// Add appends one event. Its ID, Tenant, Created and Ingested must be set. Nothing of the event's memory is kept. False means
// that the block is full and the event must go to the next one: which events share a block depends on them alone.
func (b *Block) Add(e *event.Event, m Meta) bool {
	when := StorageTime(e, m) / 1e3
	day := int32(when / 86_400e6)
	if b.n >= MaxBlockRows || len(b.raw.Buf)+len(b.tail.values.Buf) > MaxBlockBytes {
		return false
	}
	key := batchDay{e.Tenant, e.ID.Stream, e.ID.Seq, day}
	if key != b.lastDay || b.n == 0 {
		if _, ok := b.days[day]; !ok {
			if len(b.days) >= maxBlockDays {
				return false
			}
			b.days[day] = struct{}{}
		}
		if b.lastN > 0 {
			b.perDay[b.lastDay] += b.lastN
		}
		b.lastDay, b.lastN = key, 0
	}
	b.lastN++
	if b.n == 0 || when < b.min {
		b.min = when
	}
	if b.n == 0 || when > b.max {
		b.max = when
	}

	if b.n == 0 {
		b.first = e.ID
	}
	b.last = e.ID
	row := b.n
	b.n++
	b.tenant.set(row, uint64(e.Tenant))
	b.when.set(row, uint64(when))
	b.created.set(row, uint64(e.Created/1e3-when))
	b.stamp.set(row, uint64(e.Time/1e3))
	b.ingested.set(row, uint64(e.Ingested/1e3))
	b.stream.set(row, e.ID.Stream)
	b.seq.set(row, e.ID.Seq)
	b.idx.set(row, uint64(e.ID.Index))
	b.keep.set(row, uint64(rowKeep(e, m, when*1e3)))
	if m.Quarantined {
		b.quar.set(row, 1)
	}
	class, service, level := Classify(e)
	b.class.set(row, class)
	b.service.set(row, service)
	b.level.set(row, level)
	if raw := e.Raw(); raw != "" {
		b.raw.set(row, raw)
	}

	var last event.Key
	for i, n := 0, e.Len(); i < n; {
		k, v := e.At(i)
		i++
		if k == last { // one more of a list whose first value is placed
			b.addTail(row, k, v)
			continue
		}
		last = k
		slot := uint8(0)
		if int(k) < len(slotOf) {
			slot = slotOf[k]
		}
		if slot == 0 {
			b.addTail(row, k, v)
			continue
		}
		at := int(slot) - 1
		switch layout[at].kind {
		case kindList:
			i = b.addList(row, at, e, i-1)
			continue
		case kindLow:
			if s := v.Str(); s != "" && len(s) <= maxLow {
				b.lows[at].set(row, s)
				continue
			}
		case kindString:
			if s := v.Str(); s != "" {
				b.texts[at].set(row, s)
				continue
			}
		case kindIP:
			if a := v.IP(); a.IsValid() && !(a.Is6() && a.IsUnspecified()) {
				b.ips[at].set(row, mapped(a))
				continue
			}
		default:
			c := b.nums[at]
			if n := v.Int(); n > 0 && (c.width == 8 || n < 1<<(8*c.width)) {
				c.set(row, uint64(n))
				continue
			}
		}
		b.addTail(row, k, v)
	}
	for _, x := range e.Extras() {
		b.tail.add(row, x.Name, x.Value)
	}
	return true
}

// maxLow keeps long, unique strings out of dictionaries.
const maxLow = 200

// addList joins the values from i on, as long as the key stays, with commas. It gives the index after them.
func (b *Block) addList(row, at int, e *event.Event, i int) int {
	k, v := e.At(i)
	j := i + 1
	for j < e.Len() {
		if kk, _ := e.At(j); kk != k {
			break
		}
		j++
	}
	if j == i+1 && listable(v) {
		b.lows[at].set(row, v.Str())
		return j
	}
	b.scratch = b.scratch[:0]
	ok := j-i <= 8
	for x := i; x < j && ok; x++ {
		_, v := e.At(x)
		if !listable(v) {
			ok = false
			break
		}
		if x > i {
			b.scratch = append(b.scratch, ',')
		}
		b.scratch = append(b.scratch, v.Str()...)
	}
	if ok {
		b.lows[at].set(row, string(b.scratch))
		return j
	}
	for x := i; x < j; x++ {
		_, v := e.At(x)
		b.addTail(row, k, v)
	}
	return j
}

func listable(v event.Value) bool {
	s := v.Str()
	return s != "" && len(s) <= 64 && strings.IndexByte(s, ',') < 0
}

func (b *Block) addTail(row int, k event.Key, v event.Value) {
	if v.Kind() == event.String {
		b.tail.add(row, k.Name(), v.Str())
		return
	}
	b.scratch = v.AppendText(b.scratch[:0])
	b.tail.addBytes(row, k.Name(), b.scratch)
}

// columnNames is the insert's column list, in the order encode writes.
var columnNames = func() string {
	var names []string
	for _, c := range headColumns {
		names = append(names, c.name)
	}
	for _, d := range layout {
		names = append(names, d.name)
	}
	return strings.Join(append(names, "fields", "raw"), ", ")
}()

// encode appends the block in ClickHouse's Native format, revision 0.
func (b *Block) encode(out *proto.Buffer) error {
	n := b.n
	out.PutInt(len(headColumns) + len(layout) + 2)
	out.PutInt(n)
	head := func(name, typ string) {
		out.PutString(name)
		out.PutString(typ)
	}
	nums := map[string]*number{
		"tenant": &b.tenant, "time": &b.when, "timestamp": &b.stamp, "created_shift": &b.created, "ingested": &b.ingested, "seq": &b.seq, "idx": &b.idx, "keep": &b.keep, "quarantined": &b.quar,
	}
	for _, c := range headColumns {
		head(c.name, c.typ)
		switch c.name {
		case "stream":
			b.stream.pad(n)
			b.stream.encode(out)
		case "class":
			b.class.encodeState(out)
			b.class.encode(out)
		case "service":
			b.service.encodeState(out)
			b.service.encode(out)
		case "level":
			b.level.encodeState(out)
			b.level.encode(out)
		default:
			col, ok := nums[c.name]
			if !ok {
				return fmt.Errorf("no source for column %s", c.name)
			}
			col.pad(n)
			col.encode(out)
		}
	}
	for i, d := range layout {
		head(d.name, kindTypes[d.kind])
		switch {
		case b.lows[i] != nil:
			b.lows[i].pad(n)
			b.lows[i].encodeState(out)
			b.lows[i].encode(out)
		case b.texts[i] != nil:
			b.texts[i].pad(n)
			b.texts[i].EncodeColumn(out)
		case b.nums[i] != nil:
			b.nums[i].pad(n)
			b.nums[i].encode(out)
		case b.ips[i] != nil:
			b.ips[i].pad(n)
			b.ips[i].encode(out)
		}
	}
	head("fields", "Map(LowCardinality(String), String)")
	b.tail.pad(n)
	b.tail.keys.encodeState(out)
	b.tail.encode(out)
	head("raw", "String")
	b.raw.pad(n)
	b.raw.EncodeColumn(out)
	return nil
}

// counts gives the rows by batch and day.
func (b *Block) counts() map[batchDay]int {
	if b.lastN > 0 {
		b.perDay[b.lastDay] += b.lastN
		b.lastN = 0
	}
	return b.perDay
}

func (b *Block) tenants() []uint32 {
	var out []uint32
	for k := range b.counts() {
		out = append(out, uint32(k.tenant))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (b *Block) dayList() []int32 {
	out := make([]int32, 0, len(b.days))
	for d := range b.days {
		out = append(out, d)
	}
	slices.Sort(out)
	return out
}

// subset copies the rows that want answers true for into a new block.
func (b *Block) subset(want func(k batchDay) bool) *Block {
	out := NewBlock()
	for row := 0; row < b.n; row++ {
		k := b.keyAt(row)
		if !want(k) {
			continue
		}
		to := out.n
		out.n++
		out.perDay[k]++
		out.days[k.day] = struct{}{}
		when := int64(b.when.at(row))
		if to == 0 || when < out.min {
			out.min = when
		}
		if to == 0 || when > out.max {
			out.max = when
		}
		out.tenant.set(to, b.tenant.at(row))
		out.when.set(to, b.when.at(row))
		out.created.set(to, b.created.at(row))
		out.stamp.set(to, b.stamp.at(row))
		out.ingested.set(to, b.ingested.at(row))
		out.stream.set(to, b.stream.at(row))
		out.seq.set(to, b.seq.at(row))
		out.idx.set(to, b.idx.at(row))
		out.keep.set(to, b.keep.at(row))
		out.quar.set(to, b.quar.at(row))
		out.class.set(to, b.class.at(row))
		out.service.set(to, b.service.at(row))
		out.level.set(to, b.level.at(row))
		for i := range layout {
			switch {
			case b.lows[i] != nil:
				out.lows[i].set(to, b.lows[i].at(row))
			case b.texts[i] != nil:
				out.texts[i].set(to, b.texts[i].at(row))
			case b.nums[i] != nil:
				out.nums[i].set(to, b.nums[i].at(row))
			case b.ips[i] != nil:
				out.ips[i].set(to, b.ips[i].at(row))
			}
		}
		from, end := b.tail.span(row)
		for p := from; p < end; p++ {
			out.tail.add(to, b.tail.keys.at(p), b.tail.values.at(p))
		}
		out.raw.set(to, b.raw.at(row))
	}
	return out
}

func (b *Block) keyAt(row int) batchDay {
	return batchDay{event.TenantID(b.tenant.at(row)), b.stream.at(row), b.seq.at(row), int32(int64(b.when.at(row)) / 86_400e6)}
}

func (k batchDay) String() string {
	return fmt.Sprintf("tenant %d stream %s batch %d on %s", k.tenant, hex.EncodeToString(k.stream[:]), k.seq, dayString(k.day))
}

func dayString(d int32) string { return time.Unix(int64(d)*86400, 0).UTC().Format(time.DateOnly) }
