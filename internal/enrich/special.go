package enrich

import "net/netip"

// special names the ranges that are not part of the public Internet, after the IANA special-purpose address
// registries (RFC 6890) and the multicast assignments (RFC 5771, RFC 4291). They have no country and no network
// unless the operator's overlay gives them one.
var special = func() *ranges[string] {
	b := newBuilder[string]()
	for _, s := range []struct{ prefix, name string }{
		{"0.0.0.0/8", "this network"},
		{"10.0.0.0/8", "private"},
		{"100.64.0.0/10", "shared (carrier NAT)"},
		{"127.0.0.0/8", "loopback"},
		{"169.254.0.0/16", "link-local"},
		{"172.16.0.0/12", "private"},
		{"192.0.0.0/24", "protocol assignments"},
		{"192.0.2.0/24", "documentation"},
		{"192.88.99.0/24", "reserved"},
		{"192.168.0.0/16", "private"},
		{"198.18.0.0/15", "benchmarking"},
		{"198.51.100.0/24", "documentation"},
		{"203.0.113.0/24", "documentation"},
		{"224.0.0.0/4", "multicast"},
		{"240.0.0.0/4", "reserved"},
		{"255.255.255.255/32", "broadcast"},
		{"::/128", "unspecified"},
		{"::1/128", "loopback"},
		{"64:ff9b::/96", "translation (NAT64)"},
		{"64:ff9b:1::/48", "translation (NAT64)"},
		{"100::/64", "discard"},
		{"2001::/32", "tunnel (Teredo)"},
		{"2001:2::/48", "benchmarking"},
		{"2001:10::/28", "reserved"},
		{"2001:20::/28", "ORCHID"},
		{"2001:db8::/32", "documentation"},
		{"2002::/16", "tunnel (6to4)"},
		{"3fff::/20", "documentation"},
		{"5f00::/16", "segment routing"},
		{"fc00::/7", "private"},
		{"fe80::/10", "link-local"},
		{"ff00::/8", "multicast"},
	} {
		b.addPrefix(netip.MustParsePrefix(s.prefix), b.intern(s.name))
	}
	return b.table()
}()

// Special names the special-purpose range an address is in, "" for addresses of the public Internet.
func Special(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return ""
	}
	return special.get(a)
}
