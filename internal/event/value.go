package event

import (
	"encoding/binary"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// Value is one typed value. The zero Value is absent (None). A string, and an IPv6 address, may share memory with its event. Values are compared
// by Equal, not by ==.
//
// It is as small as a string, because events are copied value by value: where a string has its bytes, a number points to the tag of its kind.
type Value struct {
	_ [0]func()
	p unsafe.Pointer // to the bytes of a string or of an IPv6 address, or to a tag
	n uint64         // their length, that of an address with the highest bit set; int, float bits, bool, time, IPv4
}

// 64-bit processors only: p and n lie as a string does, whose length has 64 bits there. Elsewhere this does not compile.
const _ = uint(unsafe.Sizeof(uintptr(0)) - 8)

var _ [16]byte = [unsafe.Sizeof(Value{})]byte{}

// tags are pointed to, by Kind, and hold nothing. That of String is where an empty string begins, that of IP marks an IPv4 address.
var tags [Time + 1]byte

const sixteen = 1<<63 | 16 // n of an IPv6 address

func tagged(k Kind, n uint64) Value { return Value{p: unsafe.Pointer(&tags[k]), n: n} }

// StringValue makes a string.
func StringValue(s string) Value {
	if len(s) == 0 {
		return tagged(String, 0)
	}
	return Value{p: unsafe.Pointer(unsafe.StringData(s)), n: uint64(len(s))}
}

// IntValue makes an integer.
func IntValue(n int64) Value { return tagged(Int, uint64(n)) }

// FloatValue makes a floating-point number.
func FloatValue(f float64) Value { return tagged(Float, math.Float64bits(f)) }

// BoolValue makes a truth value.
func BoolValue(b bool) Value {
	if b {
		return tagged(Bool, 1)
	}
	return tagged(Bool, 0)
}

// TimeValue makes an instant from UTC nanoseconds.
func TimeValue(ns int64) Value { return tagged(Time, uint64(ns)) }

// IPValue makes an address. Its zone is dropped and an IPv4-mapped address becomes IPv4. The zero Addr gives the absent value. For an IPv6 address
// it allocates; SetIP and PutIP do not.
func IPValue(a netip.Addr) Value {
	switch {
	case !a.IsValid():
		return Value{}
	case a.Is4() || a.Is4In6():
		b := a.As4()
		return tagged(IP, uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return Value{p: unsafe.Pointer(&b), n: sixteen}
}

// Kind is None for an absent value.
func (v Value) Kind() Kind { return v.kind() }

func (v *Value) kind() Kind {
	if d := uintptr(v.p) - uintptr(unsafe.Pointer(&tags)); d < uintptr(len(tags)) {
		return Kind(d)
	}
	switch {
	case int64(v.n) < 0:
		return IP
	case v.p == nil:
		return None
	}
	return String
}

// is says whether v is of a kind that has a tag and never bytes.
func (v *Value) is(k Kind) bool { return v.p == unsafe.Pointer(&tags[k]) }

// str is the string of a String, "" for other kinds.
func (v *Value) str() string {
	if uintptr(v.p)-uintptr(unsafe.Pointer(&tags[Int])) <= uintptr(Time-Int) || int64(v.n) < 0 {
		return ""
	}
	return *(*string)(unsafe.Pointer(&v.p)) // p and n lie as a string does
}

// bytes are those of a string or an IPv6 address, "" for other kinds.
func (v *Value) bytes() string {
	if int64(v.n) < 0 && v.kind() == IP {
		return unsafe.String((*byte)(v.p), 16)
	}
	return v.str()
}

// setBytes puts other memory under what bytes gave: as many.
func (v *Value) setBytes(s string) { v.p = unsafe.Pointer(unsafe.StringData(s)) }

// Equal says whether v and w are of one kind and the same.
func (v Value) Equal(w Value) bool {
	return v.kind() == w.kind() && v.n == w.n && v.bytes() == w.bytes()
}

// Str is the string of a String, "" for other kinds.
func (v Value) Str() string { return v.str() }

// Int is the number of an Int, or 0.
func (v Value) Int() int64 {
	if !v.is(Int) {
		return 0
	}
	return int64(v.n)
}

// Float is the number of a Float or an Int, or 0.
func (v Value) Float() float64 {
	switch {
	case v.is(Float):
		return math.Float64frombits(v.n)
	case v.is(Int):
		return float64(int64(v.n))
	}
	return 0
}

// Bool is true for a true Bool.
func (v Value) Bool() bool { return v.is(Bool) && v.n == 1 }

// Time is the UTC nanoseconds of a Time, or 0.
func (v Value) Time() int64 {
	if !v.is(Time) {
		return 0
	}
	return int64(v.n)
}

// IP is the address of an IP, or the zero Addr.
func (v Value) IP() netip.Addr {
	if v.is(IP) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(v.n))
		return netip.AddrFrom4(b)
	}
	if v.kind() != IP {
		return netip.Addr{}
	}
	return netip.AddrFrom16(*(*[16]byte)(v.p))
}

// IPv4 is the number of an IPv4 address, the first byte highest; ok is false for everything else.
func (v *Value) IPv4() (n uint32, ok bool) { return uint32(v.n), v.is(IP) }

// AppendText appends the value as people and rules read it: numbers in decimal, addresses in canonical form, times as RFC 3339.
func (v Value) AppendText(dst []byte) []byte {
	switch v.kind() {
	case String:
		return append(dst, v.str()...)
	case Int:
		return strconv.AppendInt(dst, int64(v.n), 10)
	case Float:
		return strconv.AppendFloat(dst, math.Float64frombits(v.n), 'g', -1, 64)
	case Bool:
		return strconv.AppendBool(dst, v.n == 1)
	case IP:
		if v.is(IP) {
			return appendIPv4(dst, uint32(v.n))
		}
		return v.IP().AppendTo(dst)
	case Time:
		return appendTime(dst, int64(v.n))
	}
	return dst
}

// Text is AppendText as a string; it allocates for all kinds but String.
func (v Value) Text() string {
	if v.kind() == String {
		return v.str()
	}
	return string(v.AppendText(nil))
}

// ParseValue reads s as a value of the kind. ok is false when it is not one.
func ParseValue(kind Kind, s string) (v Value, ok bool) {
	switch kind {
	case String:
		return StringValue(s), true
	case Int:
		n, err := strconv.ParseInt(s, 10, 64)
		return IntValue(n), err == nil
	case Float:
		f, err := strconv.ParseFloat(s, 64)
		return FloatValue(f), err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
	case Bool:
		switch s {
		case "true":
			return BoolValue(true), true
		case "false":
			return BoolValue(false), true
		}
	case IP:
		if a, ok := ParseIP(s); ok {
			return IPValue(a), true
		}
	case Time:
		if ns, ok := parseTime(s); ok {
			return TimeValue(ns), true
		}
	}
	return Value{}, false
}

// ParseIP reads an address with a fast path for IPv4 dotted quads. Leading zeros in a quad are refused, as netip does: they are octal
// to some readers.
func ParseIP(s string) (netip.Addr, bool) {
	if n, ok := quad(s); ok {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], n)
		return netip.AddrFrom4(b), true
	}
	return parseIPSlow(s)
}

// quad reads an IPv4 dotted quad, the first byte the highest.
func quad(s string) (uint32, bool) {
	if len(s) < 7 || len(s) > 15 {
		return 0, false
	}
	all, n, digits, dots := uint32(0), uint32(0), 0, 0
	for i := 0; i < len(s); i++ {
		c := uint32(s[i]) - '0'
		if c <= 9 {
			if n == 0 && digits > 0 {
				return 0, false
			}
			n = n*10 + c
			digits++
			continue
		}
		if s[i] != '.' || digits == 0 || n > 255 || dots == 3 || digits > 3 {
			return 0, false
		}
		all = all<<8 | n
		dots++
		n, digits = 0, 0
	}
	return all<<8 | n, dots == 3 && digits > 0 && digits <= 3 && n <= 255
}

func parseIPSlow(s string) (netip.Addr, bool) {
	if len(s) < 2 || len(s) > 64 || strings.IndexByte(s, ':') < 0 {
		return netip.Addr{}, false // a dotted quad that the fast path refused, or no address at all: no error value is made for it
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, false
	}
	return a.WithZone("").Unmap(), true
}

func appendIPv4(dst []byte, n uint32) []byte {
	for shift := 24; shift >= 0; shift -= 8 {
		b := byte(n >> shift)
		if b >= 100 {
			dst = append(dst, '0'+b/100)
		}
		if b >= 10 {
			dst = append(dst, '0'+b/10%10)
		}
		dst = append(dst, '0'+b%10)
		if shift > 0 {
			dst = append(dst, '.')
		}
	}
	return dst
}

// appendTime appends RFC 3339 in UTC with as few of 0, 3, 6 or 9 decimals as keep the instant.
func appendTime(dst []byte, ns int64) []byte {
	sec, frac := ns/1e9, ns%1e9
	if frac < 0 {
		sec, frac = sec-1, frac+1e9
	}
	days, rem := sec/86400, sec%86400
	if rem < 0 {
		days, rem = days-1, rem+86400
	}
	// Civil date from days (H. Hinnant, "chrono-compatible low-level date algorithms").
	z := days + 719468
	era := z / 146097
	if z < 0 {
		era = (z - 146096) / 146097
	}
	doe := z - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	day := doy - (153*mp+2)/5 + 1
	month := mp + 3
	if month > 12 {
		month -= 12
	}
	year := yoe + era*400
	if month <= 2 {
		year++
	}
	dst = append(dst, byte('0'+year/1000%10), byte('0'+year/100%10), byte('0'+year/10%10), byte('0'+year%10), '-')
	dst = append2(dst, month)
	dst = append(dst, '-')
	dst = append2(dst, day)
	dst = append(dst, 'T')
	dst = append2(dst, rem/3600)
	dst = append(dst, ':')
	dst = append2(dst, rem/60%60)
	dst = append(dst, ':')
	dst = append2(dst, rem%60)
	if frac != 0 {
		dst = append(dst, '.')
		digits := 9
		for digits > 3 && frac%1000 == 0 {
			frac, digits = frac/1000, digits-3
		}
		start := len(dst)
		dst = append(dst, "000000000"[:digits]...)
		for i := start + digits - 1; i >= start; i-- {
			dst[i] = byte('0' + frac%10)
			frac /= 10
		}
	}
	return append(dst, 'Z')
}

func append2(dst []byte, n int64) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// parseTime reads RFC 3339 with any offset. Instants outside the years 1678 to 2261 do not fit and are refused.
func parseTime(s string) (int64, bool) {
	if len(s) < 20 || len(s) > 40 {
		return 0, false
	}
	if ns, ok := parseTimeUTC(s); ok {
		return ns, true
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1678 || t.Year() > 2261 {
		return 0, false
	}
	return t.UnixNano(), true
}

// parseTimeUTC is the fast path for what appendTime writes.
func parseTimeUTC(s string) (int64, bool) {
	if s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[len(s)-1] != 'Z' {
		return 0, false
	}
	year, month, day, hour, minute, sec := 100*two(s, 0)+two(s, 2), two(s, 5), two(s, 8), two(s, 11), two(s, 14), two(s, 17)
	if year < 1678 || year > 2261 || month < 1 || month > 12 || day < 1 || day > 28 || hour > 23 || minute > 59 || sec > 59 {
		return 0, false // days 29 to 31 take the slow path, which knows the months
	}
	var frac int64
	if rest := s[19 : len(s)-1]; rest != "" {
		if rest[0] != '.' || len(rest) > 10 || len(rest) == 1 {
			return 0, false
		}
		n, ok := digits(rest[1:])
		if !ok {
			return 0, false
		}
		frac = n
		for i := len(rest) - 1; i < 9; i++ {
			frac *= 10
		}
	}
	y := year
	if month <= 2 {
		y--
	}
	era := y / 400
	yoe := y - era*400
	mp := (month + 9) % 12
	doy := (153*mp+2)/5 + day - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	days := era*146097 + doe - 719468
	return (days*86400+hour*3600+minute*60+sec)*1e9 + frac, true
}

// two is the number of two digits at i, more than any such number, also times a hundred, when they are none.
func two(s string, i int) int64 {
	tens, units := s[i]-'0', s[i+1]-'0'
	if tens > 9 || units > 9 {
		return 1 << 20
	}
	return int64(tens)*10 + int64(units)
}

func digits(s string) (int64, bool) {
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
