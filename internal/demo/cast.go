package demo

import (
	"fmt"
	"net/netip"
	"strings"
)

// Addresses of the story.
var (
	attacker  = netip.MustParseAddr("203.0.113.66")
	c2        = netip.MustParseAddr("203.0.113.200")
	vpnClient = netip.MustParseAddr("10.22.200.5")
	fileHost  = netip.MustParseAddr("10.22.1.20")
)

// member is one organisation of the demo with its devices.
type member struct {
	key     string // names its folder and log file
	name    string
	sector  string
	region  string
	site    string
	contact string // the address of the person who signs in for it
	person  string // their name
	host    string // what its collector's machine is called
	number  int    // 1..3: loopback addresses of its devices, noise addresses
	public  netip.Prefix
	inside  netip.Prefix
	hosts   []netip.Addr // public addresses that answer to something
	staff   []string
	devices []device
	// background says how often each kind of line comes, in parts of the sum.
	background []line
}

// device is one sender of log lines. Each has a loopback address of its own, as it would have on a network: collectors learn what each sender is.
type device struct {
	name string
	tcp  bool
	addr netip.Addr
}

// flow says which way a background line goes.
type flow uint8

const (
	outbound flow = iota // an inside host to the Internet, allowed
	noise                // a stranger to a public address, denied
	guess                // a stranger tries to sign in
	staff                // a person of the member signs in
	within               // the device itself, or inside to inside
)

// line is one kind of background line.
type line struct {
	device   int
	template string
	weight   int
	flow     flow
	udp      bool
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, addr(a))
	}
	return out
}

// cast is the three members, between them every format the collector knows by name.
var cast = []*member{
	{
		key: "school", name: "Alderwick High School", sector: "education", region: "North", site: "Main building", contact: "head@alderwick.example", person: "Helen Ashworth", host: "ahs-logs", number: 1,
		public: netip.MustParsePrefix("198.51.100.0/27"), inside: netip.MustParsePrefix("10.21.0.0/16"),
		hosts: addrs("198.51.100.2", "198.51.100.10", "198.51.100.12"), staff: []string{"r.holt", "s.iqbal", "t.penry", "u.vane"},
		devices: []device{{name: "vigor-1", addr: addr("127.21.0.1")}, {name: "ids-1", tcp: true, addr: addr("127.21.0.2")}, {name: "udm-1", addr: addr("127.21.0.3")}},
		background: []line{
			{0, "draytek/pass", 48, outbound, false}, {0, "draytek/pass", 22, outbound, true}, {0, "draytek/block", 6, noise, false}, {0, "draytek/icmp-block", 1, outbound, false},
			{0, "draytek/web-block", 2, outbound, false}, {0, "draytek/dns-block", 1, outbound, true},
			{1, "eve/flow", 10, outbound, false}, {1, "eve/dns", 5, outbound, true}, {1, "eve/tls", 4, outbound, false}, {1, "eve/http", 2, within, false}, {1, "eve/alert-apt", 1, outbound, false},
			{2, "cef/admin", 1, within, false},
		},
	},
	{
		key: "firm", name: "Brannock Precision Engineering Ltd", sector: "manufacturing", region: "Midlands", site: "Works", contact: "it@brannock.example", person: "Tom Brierley", host: "bpe-logs", number: 2,
		public: netip.MustParsePrefix("198.51.100.64/27"), inside: netip.MustParsePrefix("10.22.0.0/16"),
		hosts: addrs("198.51.100.66", "198.51.100.70", "198.51.100.71"), staff: []string{"j.moss", "k.adeyemi", "l.brandt", "m.quill", "n.osei", "p.tarn"},
		devices: []device{{name: "fgt-works", addr: addr("127.22.0.1")}, {name: "ids-works", tcp: true, addr: addr("127.22.0.2")}, {name: "build-1", tcp: true, addr: addr("127.22.0.3")}},
		background: []line{
			{0, "fortigate/close", 60, outbound, false}, {0, "fortigate/close", 20, outbound, true}, {0, "fortigate/deny", 6, noise, false}, {0, "fortigate/web", 3, outbound, false},
			{0, "fortigate/perf", 1, within, false}, {0, "fortigate/sniffer", 1, within, false}, {0, "fortigate/vpn-up", 1, staff, false}, {0, "fortigate/vpn-down", 1, staff, false},
			{1, "eve/flow", 8, outbound, false}, {1, "eve/tls", 4, outbound, false}, {1, "eve/alert-apt", 1, outbound, false},
			{2, "sshd/invalid-user", 1, guess, false}, {2, "sshd/closed", 1, guess, false}, {2, "sshd/accepted", 1, staff, false},
		},
	},
	{
		key: "council", name: "Corrowdale District Council", sector: "local government", region: "South West", site: "Civic Centre", contact: "security@corrowdale.example", person: "Priya Nair", host: "cdc-logs", number: 3,
		public: netip.MustParsePrefix("198.51.100.128/26"), inside: netip.MustParsePrefix("10.23.0.0/16"),
		hosts: addrs("198.51.100.130", "198.51.100.140", "198.51.100.141"), staff: []string{"a.fenn", "b.oduya", "c.lister", "d.marsh", "e.noor", "g.pike"},
		devices: []device{{name: "asa-civic", addr: addr("127.23.0.1")}, {name: "web-1", addr: addr("127.23.0.2")}, {name: "pf-library", addr: addr("127.23.0.3")}, {name: "sw-depot", addr: addr("127.23.0.4")}, {name: "sftp-1", tcp: true, addr: addr("127.23.0.5")}},
		background: []line{
			{0, "asa/built-tcp", 34, outbound, false}, {0, "asa/built-udp", 16, outbound, true}, {0, "asa/deny-acl", 3, noise, false}, {0, "asa/deny-in", 1, noise, false}, {0, "asa/vpn-up", 1, staff, false},
			{1, "netfilter/ufw-block", 1, noise, false}, {1, "netfilter/drop", 1, noise, false}, {1, "netfilter/accept", 6, within, false},
			{2, "filterlog/pass", 14, outbound, false}, {2, "filterlog/pass-out-udp", 8, outbound, true}, {2, "filterlog/block-syn", 1, noise, false}, {2, "filterlog/block-v6", 1, noise, true},
			{3, "sonicwall/closed", 10, outbound, false}, {3, "sonicwall/web", 3, outbound, false},
			{4, "sshd/accepted", 1, staff, false},
		},
	},
}

// overlay is the operator's own table of places and networks (see package enrich): documentation addresses have neither, so that the demo's
// operator gives them some. AS numbers are those kept for documentation (RFC 5398).
func overlay() string {
	var b strings.Builder
	b.WriteString("prefix,country,as_number,as_name,note\n# Invented places for the documentation addresses of the demo.\n")
	for _, m := range cast {
		fmt.Fprintf(&b, "%s,GB,%d,%s,member of the demo\n", m.public, 64504+m.number, m.name)
		fmt.Fprintf(&b, "%s,GB,,%s,inside network\n", m.inside, m.name)
	}
	for _, r := range []struct {
		prefix, country string
		as              int
		name            string
	}{
		{"192.0.2.0/26", "US", 64496, "Example Content Network"}, {"192.0.2.64/26", "IE", 64497, "Example Cloud"}, {"192.0.2.128/26", "GB", 64498, "Example Broadband"},
		{"192.0.2.192/26", "DE", 64499, "Example Hosting East"}, {"203.0.113.0/26", "FR", 64500, "Example Access"}, {"203.0.113.64/27", "NL", 64501, "Example Hosting"},
		{"203.0.113.96/27", "CA", 64502, "Example Telecom"}, {"203.0.113.128/26", "SE", 64503, "Example Mobile"}, {"203.0.113.192/26", "US", 64504, "Example Virtual Servers"},
		{"2001:db8:100::/40", "GB", 64508, "Example IPv6 Access"}, {"2001:db8:200::/40", "FI", 64509, "Example IPv6 Hosting"},
	} {
		fmt.Fprintf(&b, "%s,%s,%d,%s,\n", r.prefix, r.country, r.as, r.name)
	}
	for n, w := range wilds {
		fmt.Fprintf(&b, "%s,%s,%d,%s,of the invented past\n", wildPrefix(n), w.country, w.as, w.name)
	}
	return b.String()
}

// indicators is the list an analyst imports: the address the story's inside host talks to, and others that nothing touches.
func indicators() string {
	return "# value,note\n" + c2.String() + ",command server of the demo's story\n" + listed.String() + ",second command server\nexfil.example.net,drop site of the demo's story\n"
}
