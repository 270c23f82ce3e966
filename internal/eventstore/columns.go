package eventstore

import (
	"encoding/binary"
	"net/netip"

	"github.com/ClickHouse/ch-go/proto"
)

// The columns below are filled row by row and may lag behind: set pads with zero values up to its row first, and pad ends
// the block. So a row costs as much as the fields it has, not as many as the table.

type low struct {
	rows  []uint32 // index into values
	index map[string]uint32
	vals  []string
	bytes int
	// A direct-mapped cache before the map: neighbouring events mostly repeat a few values.
	cache [64]struct {
		s  string
		ix uint32
	}
}

func newLow() *low {
	l := &low{index: map[string]uint32{}}
	l.reset()
	return l
}

func (l *low) reset() {
	clear(l.index)
	clear(l.vals)
	l.rows, l.vals = l.rows[:0], append(l.vals[:0], "")
	l.index[""] = 0
	l.bytes = 0
	clear(l.cache[:])
}

func (l *low) pad(n int) {
	for len(l.rows) < n {
		l.rows = append(l.rows, 0)
	}
}

// set notes s for the row; s may be temporary memory, a new value is copied.
func (l *low) set(row int, s string) {
	l.pad(row)
	l.rows = append(l.rows, l.intern(s))
}

func (l *low) intern(s string) uint32 {
	if s == "" {
		return 0
	}
	c := &l.cache[(len(s)*7+int(s[0])*31+int(s[len(s)-1])*5+int(s[len(s)/2]))&63]
	if c.s == s {
		return c.ix
	}
	ix, ok := l.index[s]
	if !ok {
		own := string(append([]byte(nil), s...))
		ix = uint32(len(l.vals))
		l.vals = append(l.vals, own)
		l.index[own] = ix
		l.bytes += len(own)
	}
	c.s, c.ix = l.vals[ix], ix
	return ix
}

func (l *low) at(row int) string {
	if row >= len(l.rows) {
		return ""
	}
	return l.vals[l.rows[row]]
}

// encodeState writes the version of LowCardinality's keys: shared dictionaries with additional keys.
func (l *low) encodeState(b *proto.Buffer) { b.PutInt64(1) }

func (l *low) encode(b *proto.Buffer) {
	if len(l.rows) == 0 {
		return
	}
	const update = 1<<9 | 1<<10 // has additional keys, needs update
	width := int64(0)
	switch {
	case len(l.vals) > 1<<16:
		width = 2
	case len(l.vals) > 1<<8:
		width = 1
	}
	b.PutInt64(update | width)
	b.PutInt64(int64(len(l.vals)))
	for _, v := range l.vals {
		b.PutString(v)
	}
	b.PutInt64(int64(len(l.rows)))
	switch width {
	case 0:
		for _, ix := range l.rows {
			b.Buf = append(b.Buf, byte(ix))
		}
	case 1:
		for _, ix := range l.rows {
			b.Buf = binary.LittleEndian.AppendUint16(b.Buf, uint16(ix))
		}
	default:
		for _, ix := range l.rows {
			b.Buf = binary.LittleEndian.AppendUint32(b.Buf, ix)
		}
	}
}

// text is a String column.
type text struct{ proto.ColStr }

func (t *text) pad(n int) {
	for len(t.Pos) < n {
		t.Pos = append(t.Pos, proto.Position{Start: len(t.Buf), End: len(t.Buf)})
	}
}

func (t *text) set(row int, s string) {
	t.pad(row)
	t.Append(s)
}

func (t *text) at(row int) string {
	if row >= len(t.Pos) {
		return ""
	}
	return t.Row(row)
}

// number is a column of unsigned or signed integers of 1, 2, 4 or 8 bytes.
type number struct {
	rows  []uint64
	width int
}

func (c *number) pad(n int) {
	for len(c.rows) < n {
		c.rows = append(c.rows, 0)
	}
}

func (c *number) set(row int, v uint64) {
	c.pad(row)
	c.rows = append(c.rows, v)
}

func (c *number) at(row int) uint64 {
	if row >= len(c.rows) {
		return 0
	}
	return c.rows[row]
}

func (c *number) encode(b *proto.Buffer) {
	switch c.width {
	case 1:
		for _, v := range c.rows {
			b.Buf = append(b.Buf, byte(v))
		}
	case 2:
		for _, v := range c.rows {
			b.Buf = binary.LittleEndian.AppendUint16(b.Buf, uint16(v))
		}
	case 4:
		for _, v := range c.rows {
			b.Buf = binary.LittleEndian.AppendUint32(b.Buf, uint32(v))
		}
	default:
		for _, v := range c.rows {
			b.Buf = binary.LittleEndian.AppendUint64(b.Buf, v)
		}
	}
}

// bytes16 is a column of 16-byte values: addresses and streams.
type bytes16 struct{ rows [][16]byte }

func (c *bytes16) pad(n int) {
	for len(c.rows) < n {
		c.rows = append(c.rows, [16]byte{})
	}
}

func (c *bytes16) set(row int, v [16]byte) {
	c.pad(row)
	c.rows = append(c.rows, v)
}

func (c *bytes16) at(row int) [16]byte {
	if row >= len(c.rows) {
		return [16]byte{}
	}
	return c.rows[row]
}

func (c *bytes16) encode(b *proto.Buffer) {
	for i := range c.rows {
		b.Buf = append(b.Buf, c.rows[i][:]...)
	}
}

// tail is the column `fields`: Map(LowCardinality(String), String). A list is the same key several times.
type tail struct {
	ends   []uint64 // per row, the end of its pairs
	keys   low
	values text
}

func (c *tail) pad(n int) {
	for len(c.ends) < n {
		c.ends = append(c.ends, uint64(len(c.keys.rows)))
	}
}

// add appends a pair to the row, which must be the last or a new one.
func (c *tail) add(row int, key, value string) {
	c.pad(row)
	c.keys.rows = append(c.keys.rows, c.keys.intern(key))
	c.values.Append(value)
	if len(c.ends) == row {
		c.ends = append(c.ends, 0)
	}
	c.ends[row] = uint64(len(c.keys.rows))
}

// addBytes is add for a value built in scratch memory.
func (c *tail) addBytes(row int, key string, value []byte) {
	c.pad(row)
	c.keys.rows = append(c.keys.rows, c.keys.intern(key))
	c.values.AppendBytes(value)
	if len(c.ends) == row {
		c.ends = append(c.ends, 0)
	}
	c.ends[row] = uint64(len(c.keys.rows))
}

func (c *tail) span(row int) (from, to int) {
	if row >= len(c.ends) {
		return 0, 0
	}
	if row > 0 {
		from = int(c.ends[row-1])
	}
	return from, int(c.ends[row])
}

func (c *tail) encode(b *proto.Buffer) {
	for _, e := range c.ends {
		b.Buf = binary.LittleEndian.AppendUint64(b.Buf, e)
	}
	c.keys.encode(b)
	c.values.EncodeColumn(b)
}

// mapped is the address as 16 bytes, IPv4 as ::ffff:a.b.c.d.
func mapped(a netip.Addr) [16]byte { return a.As16() }

func unmapped(b [16]byte) netip.Addr { return netip.AddrFrom16(b).Unmap() }
