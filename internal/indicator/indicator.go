// Package indicator holds format 1 of the compact indicator set: what the hub
// pushes down so that collectors can see, on their own site, which traffic
// touches an address, domain, URL or file the scheme has been warned of.
//
// It reads entries (Build) or a set's bytes (Open) and writes nothing. A set is
// immutable once opened and safe for any number of goroutines; the matching
// functions do not allocate.
//
// # Format 1
//
// All numbers are little-endian.
//
//	 0   8  magic "TOCSINI\x01"
//	 8  16  key of the keyed hash, random for each set
//	24  4×4 numbers of address, domain, URL and file hashes
//	40  2×4 numbers of IPv4 and IPv6 prefixes
//	48   …  the hashes, 8 bytes each: addresses, domains, URLs, files;
//	        each section strictly ascending
//	     …  IPv4 prefixes, 5 bytes each (address, bits), strictly ascending
//	     …  IPv6 prefixes, 17 bytes each, strictly ascending
//	     4  CRC-32C of everything before it
//
// A hash is SipHash-2-4 of the canonical value under a key derived from the
// set's key and the kind, so that the list cannot be read off the set by
// somebody who merely holds a copy of another one, and a value of one kind
// never matches another kind. The CRC finds torn files; that the set comes from
// the hub is proved by the signed directive around it.
//
// # Bounds
//
// With MaxEntries hashes a look-up of something that is not listed matches with
// a chance below 10⁻¹². What would match half the internet is refused on both
// sides, because the collector does not trust the hub that far: prefixes wider
// than /16 (IPv6 /32) and addresses that are not public are refused by Build
// and by Open; a public suffix (co.uk, github.io) is refused by Build and,
// since a set holds only hashes, by MatchDomain.
package indicator

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// Kind says what an indicator names.
type Kind uint8

// The kinds of format 1. Prefix is an address range; it is matched by MatchIP.
const (
	IP Kind = iota + 1
	Domain
	URL
	File
	Prefix
)

// Limits of format 1.
const (
	MaxEntries  = 4_000_000 // hashes and prefixes of one set, all kinds together
	MaxPrefixes = 500_000
	MinBits4    = 16 // the widest IPv4 prefix a set may hold
	MinBits6    = 32 // the widest IPv6 prefix a set may hold
	maxURL      = 2048
	maxDomain   = 253
)

var kindNames = [...]string{IP: "ip", Domain: "domain", URL: "url", File: "file", Prefix: "cidr"}

// String returns the kind's name as lists and the database spell it.
func (k Kind) String() string {
	if k >= IP && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// ParseKind is the reverse of [Kind.String]; it also knows the names other
// products use (ipv4-addr, hostname, sha256 …).
func ParseKind(s string) (Kind, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "ip", "ipv4", "ipv6", "ip-dst", "ip-src", "ipv4-addr", "ipv6-addr", "address":
		return IP, nil
	case "domain", "hostname", "domain-name", "fqdn":
		return Domain, nil
	case "url", "uri", "link":
		return URL, nil
	case "file", "hash", "md5", "sha1", "sha-1", "sha256", "sha-256", "sha512", "sha-512", "filehash":
		return File, nil
	case "cidr", "prefix", "network", "subnet", "range":
		return Prefix, nil
	}
	return 0, fmt.Errorf("%q is not a kind of indicator: use ip, cidr, domain, url or file", s)
}

// Entry is one thing to look for.
type Entry struct {
	Kind  Kind
	Value string // any accepted spelling; Build makes it canonical
}

// Hit says what matched. ID is the set's keyed hash of the canonical value, the
// same number [Hash] gives, by which the hub finds the indicator again.
type Hit struct {
	ID   uint64
	Kind Kind
}

// ErrTooWide marks an entry that would match far more than an indicator may.
var ErrTooWide = errors.New("matches too much")

// Canonical checks a value and returns its canonical spelling: addresses in
// their shortest form, prefixes masked, domains in lower case ASCII (IDNA)
// without a trailing dot, URLs with lower-case scheme and host, without default
// port and fragment, file hashes in lower-case hexadecimal. A prefix of a
// single address becomes that address, so the kind may change from Prefix to
// IP (and an IP written with a length becomes a Prefix).
//
// Errors say what is wrong in words for whoever keeps the list; those for
// entries that would match too much wrap ErrTooWide.
func Canonical(kind Kind, value string) (Kind, string, error) {
	value = strings.TrimSpace(value)
	switch kind {
	case IP, Prefix:
		if strings.Contains(value, "/") {
			p, err := netip.ParsePrefix(value)
			if err != nil {
				return 0, "", fmt.Errorf("%q is not an address range such as 192.0.2.0/24", clip(value))
			}
			return canonicalPrefix(p)
		}
		a, err := netip.ParseAddr(value)
		if err != nil {
			return 0, "", fmt.Errorf("%q is not an IP address", clip(value))
		}
		a = a.Unmap()
		if err := publicAddr(a); err != nil {
			return 0, "", err
		}
		return IP, a.String(), nil
	case Domain:
		d, err := canonicalDomain(value)
		return Domain, d, err
	case URL:
		var buf [maxURL]byte
		n, ok := canonicalURL(&buf, value)
		if !ok {
			return 0, "", fmt.Errorf("%q is not a URL with a scheme and a host, at most %d characters long", clip(value), maxURL)
		}
		return URL, string(buf[:n]), nil
	case File:
		v := strings.ToLower(value)
		if !hexDigest(v) {
			return 0, "", fmt.Errorf("%q is not a file hash: expected the hexadecimal digits of an MD5, SHA-1, SHA-256 or SHA-512", clip(value))
		}
		return File, v, nil
	}
	return 0, "", fmt.Errorf("unknown kind of indicator %d", kind)
}

// Guess finds the kind of a bare value, as a line of a plain list.
func Guess(value string) (Kind, error) {
	v := strings.TrimSpace(value)
	switch {
	case v == "":
		return 0, errors.New("empty value")
	case strings.Contains(v, "://"):
		return URL, nil
	case hexDigest(strings.ToLower(v)):
		return File, nil
	}
	if strings.Contains(v, "/") {
		if _, err := netip.ParsePrefix(v); err == nil {
			return Prefix, nil
		}
		return 0, fmt.Errorf("%q is neither an address range nor a URL (a URL needs its scheme, such as https://)", clip(v))
	}
	if _, err := netip.ParseAddr(v); err == nil {
		return IP, nil
	}
	if strings.Contains(v, ".") {
		if _, err := canonicalDomain(v); err != nil {
			return 0, err
		}
		return Domain, nil
	}
	return 0, fmt.Errorf("%q is not an address, address range, domain, URL or file hash", clip(v))
}

func canonicalPrefix(p netip.Prefix) (Kind, string, error) {
	a, bits := p.Addr(), p.Bits()
	if a.Is4In6() {
		if bits < 96 {
			return 0, "", fmt.Errorf("the range %s is %w: write it as an IPv4 range", p, ErrTooWide)
		}
		a, bits = a.Unmap(), bits-96
	}
	p = netip.PrefixFrom(a, bits).Masked()
	if err := checkPrefix(p); err != nil {
		return 0, "", err
	}
	if p.IsSingleIP() {
		return IP, p.Addr().String(), nil
	}
	return Prefix, p.String(), nil
}

func checkPrefix(p netip.Prefix) error {
	least := MinBits4
	if p.Addr().Is6() {
		least = MinBits6
	}
	if p.Bits() < least {
		return fmt.Errorf("the range %s %w: the widest allowed is /%d", p, ErrTooWide, least)
	}
	return publicAddr(p.Addr())
}

// publicAddr refuses addresses that mean something else on every site: listing
// one would mark the members' own machines. Documentation ranges are allowed;
// the demo and the tests live there.
func publicAddr(a netip.Addr) error {
	switch {
	case a.Zone() != "":
		return fmt.Errorf("the address %s has a zone and means something on one machine only", a)
	case a.IsUnspecified(), a.IsLoopback(), a.IsLinkLocalUnicast(), a.IsMulticast(), a.IsPrivate(), a.IsInterfaceLocalMulticast():
		return fmt.Errorf("the address %s is not public: it is a different machine on every member's site", a)
	case a.Is4():
		for _, p := range notPublic4 {
			if p.Contains(a) {
				return fmt.Errorf("the address %s is not public: %s is never the address of one machine on the internet", a, p)
			}
		}
	}
	return nil
}

// notPublic4 are the ranges of RFC 6890 that netip does not know: this network, the shared space between a provider and its customers, and
// what is reserved, the broadcast address included.
var notPublic4 = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("240.0.0.0/4")}

func canonicalDomain(s string) (string, error) {
	d := strings.TrimSuffix(strings.TrimSpace(s), ".")
	d = strings.TrimPrefix(d, "*.")
	ascii, err := idna.Lookup.ToASCII(d)
	if err != nil {
		// Names with underscores are no host names but are seen in DNS.
		ascii = strings.ToLower(d)
	}
	if len(ascii) == 0 || len(ascii) > maxDomain || !plainDomain(ascii) {
		return "", fmt.Errorf("%q is not a domain name", clip(s))
	}
	if tooBroad(ascii) {
		return "", fmt.Errorf("the domain %s %w: it is a public suffix, under which anybody can register a name", ascii, ErrTooWide)
	}
	return ascii, nil
}

func plainDomain(d string) bool {
	labels, start := 0, 0
	for i := 0; i <= len(d); i++ {
		if i < len(d) && d[i] != '.' {
			c := d[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
			continue
		}
		if n := i - start; n == 0 || n > 63 {
			return false
		}
		labels++
		start = i + 1
	}
	if labels < 2 {
		return false
	}
	// A name whose last label is a number is an address, or nonsense.
	last := d[strings.LastIndexByte(d, '.')+1:]
	for i := 0; i < len(last); i++ {
		if last[i] < '0' || last[i] > '9' {
			return true
		}
	}
	return false
}

// tooBroad tells whether a canonical domain is a public suffix.
func tooBroad(d string) bool {
	suffix, _ := publicsuffix.PublicSuffix(d)
	return suffix == d
}

func hexDigest(s string) bool {
	switch len(s) {
	case 32, 40, 64, 128:
	default:
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// canonicalURL writes the canonical form of s into buf. It does not validate
// more than matching needs: scheme and host in lower case, user information,
// default port and fragment dropped, an empty path made "/".
func canonicalURL(buf *[maxURL]byte, s string) (n int, ok bool) {
	i := strings.Index(s, "://")
	if i <= 0 || i > 16 {
		return 0, false
	}
	scheme, rest := s[:i], s[i+3:]
	for j := 0; j < len(scheme); j++ {
		c := lower(scheme[j])
		if !(c >= 'a' && c <= 'z' || j > 0 && (c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return 0, false
		}
		buf[n] = c
		n++
	}
	n += copy(buf[n:], "://")
	end := len(rest)
	for j := 0; j < len(rest); j++ {
		if c := rest[j]; c == '/' || c == '?' || c == '#' {
			end = j
			break
		}
	}
	host, path := rest[:end], rest[end:]
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	switch string(buf[:n]) {
	case "http://":
		host = strings.TrimSuffix(host, ":80")
	case "https://":
		host = strings.TrimSuffix(host, ":443")
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > maxDomain+6 {
		return 0, false
	}
	for j := 0; j < len(host); j++ {
		c := lower(host[j])
		if c <= ' ' || c == 0x7f || c == '\\' {
			return 0, false
		}
		buf[n] = c
		n++
	}
	if k := strings.IndexByte(path, '#'); k >= 0 {
		path = path[:k]
	}
	if path == "" || path[0] == '?' {
		buf[n] = '/'
		n++
	}
	if n+len(path) > maxURL {
		return 0, false
	}
	for j := 0; j < len(path); j++ {
		if path[j] <= ' ' || path[j] == 0x7f {
			return 0, false
		}
	}
	n += copy(buf[n:], path)
	return n, true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
