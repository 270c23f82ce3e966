package parse

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unsafe"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

var (
	netfilterProduct  = newProduct("Linux", "netfilter", "firewall", "netfilter.iptables")
	ufwProduct        = newProduct("Linux", "ufw", "firewall", "netfilter.iptables")
	shorewallProduct  = newProduct("Linux", "Shorewall", "firewall", "netfilter.iptables")
	unifiProduct      = newProduct("Ubiquiti", "UniFi", "firewall", "unifi.firewall")
	vyosProduct       = newProduct("VyOS", "VyOS", "firewall", "vyos.firewall")
	smoothwallProduct = newProduct("Smoothwall", "Smoothwall", "firewall", "smoothwall.firewall")
	utmProduct        = newProduct("Sophos", "UTM", "firewall", "sophos.utm")
)

// netfilter reads the kernel's LOG target: "PREFIX IN=eth0 OUT= MAC=.. SRC=.. DST=.. PROTO=TCP SPT=.. DPT=.. SYN". Linux
// iptables and nftables, ufw ("[UFW BLOCK]"), Shorewall, SuSEfirewall2, UniFi gateways ("[WAN_IN-D-2001] DESCR=.."), Smoothwall
// ("REJECT_FORWARD"), Sophos UTM and others write it. The action is what the administrator's prefix says.
func (s *Set) netfilter(msg string) bool {
	src := find.Index(msg, "SRC=")
	if src < 0 || (src > 0 && msg[src-1] != ' ') {
		return false
	}
	in := find.Index(msg, "IN=")
	if in < 0 || in > src {
		in = src
	}
	e := s.e
	prefix := trim(msg[:in])
	if len(prefix) > 0 && prefix[0] == '[' && len(prefix) > 6 { // uptime: "[50028442.088484] "
		if j := strings.IndexByte(prefix, ']'); j > 0 && j < 20 && uptime(prefix[1:j]) {
			prefix = trim(prefix[j+1:])
		}
	}
	s.netfilterPairs(msg, in)
	if !e.Has(event.SourceIP) && !e.Has(event.DestinationIP) {
		return false
	}
	if !s.netfilterPrefix(prefix) {
		s.network()
	}
	return true
}

// netfilterPairs reads NAME=VALUE and single words from msg[i:] on, up to a bracket: behind it stands the packet an ICMP error is about, which
// is not this flow. Where names and values end is found once for the whole line.
func (s *Set) netfilterPairs(msg string, i int) {
	t, m := msg[i:], &s.run.marks
	n := len(t)
	if n >= find.MaxMarks {
		s.netfilterLong(t)
		return
	}
	m.Find(t, ' ', ' '<<24|' '<<16|'['<<8|'=')
	size := false
	i = 0
	w, f := 0, m.Any[0]
	p := unsafe.Pointer(unsafe.StringData(t)) // all places below are less than n
	for {
		for f == 0 {
			w++
			f = m.Any[w&(len(m.Any)-1)]
		}
		j := w<<6 + bits.TrailingZeros64(f)
		f &= f - 1
		if j >= n {
			return
		}
		if c := *(*byte)(unsafe.Add(p, j)); c != '=' {
			if c == '[' {
				return
			}
			i = j + 1 // a word, or one blank more
			continue
		}
		v, k := j+1, 0
		if v < n && *(*byte)(unsafe.Add(p, v)) == '"' {
			k = quoteEnd(t, v)
			s.netfilterPair(netfilterName(t[i:j]), t[v:k], &size)
			i = k
			w = k >> 6
			f = m.Any[w&(len(m.Any)-1)] >> (k & 63) << (k & 63)
			continue
		}
		for {
			for f == 0 {
				w++
				f = m.Any[w&(len(m.Any)-1)]
			}
			k = w<<6 + bits.TrailingZeros64(f)
			f &= f - 1
			if k >= n {
				k = n
				break
			}
			if *(*byte)(unsafe.Add(p, k)) == ' ' {
				break
			}
		}
		if k > v {
			switch j - i {
			case 3: // with the equals sign there are four bytes
				key := binary.LittleEndian.Uint32((*[4]byte)(unsafe.Add(p, i))[:])
				s.netfilterPair(key&0xffffff|3<<24, unsafe.String((*byte)(unsafe.Add(p, v)), k-v), &size)
			case 2, 5:
				s.netfilterPair(netfilterName(t[i:j]), t[v:k], &size)
			}
		}
		i = k + 1
	}
}

// netfilterLong is netfilterPairs for a text of any length, from its beginning on.
func (s *Set) netfilterLong(t string) {
	size := false
	for i, n := 0, len(t); ; {
		start := i
		for i < n && t[i] != '=' && t[i] != ' ' && t[i] != '[' {
			i++
		}
		if i >= n || t[i] == '[' {
			return
		}
		if t[i] == ' ' {
			i++
			continue
		}
		key := t[start:i]
		i++
		start = i
		if i < n && t[i] == '"' {
			i = quoteEnd(t, i)
		} else {
			i = blankAt(t, i)
		}
		s.netfilterPair(netfilterName(key), t[start:i], &size)
	}
}

// The names that netfilterPair knows, as netfilterName gives them.
const (
	nfIN    = 'I' | 'N'<<8 | 2<<24
	nfOUT   = 'O' | 'U'<<8 | 'T'<<16 | 3<<24
	nfMAC   = 'M' | 'A'<<8 | 'C'<<16 | 3<<24
	nfSRC   = 'S' | 'R'<<8 | 'C'<<16 | 3<<24
	nfDST   = 'D' | 'S'<<8 | 'T'<<16 | 3<<24
	nfLEN   = 'L' | 'E'<<8 | 'N'<<16 | 3<<24
	nfSPT   = 'S' | 'P'<<8 | 'T'<<16 | 3<<24
	nfDPT   = 'D' | 'P'<<8 | 'T'<<16 | 3<<24
	nfPROTO = 'P' | 'R'<<8 | 'O'<<16 | 'T'<<24
)

// netfilterName gives a name as a number: its bytes, the first the lowest, and their number. 0 is none that counts; PROTO is its first four.
func netfilterName(key string) uint32 {
	switch {
	case len(key) == 2:
		return uint32(key[0]) | uint32(key[1])<<8 | 2<<24
	case len(key) == 3:
		return uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | 3<<24
	case key == "PROTO":
		return nfPROTO
	}
	return 0
}

// netfilterPair takes one pair. size says that the length of the packet has been passed: one behind PROTO is that of its payload.
func (s *Set) netfilterPair(key uint32, v string, size *bool) {
	switch key {
	case nfIN:
		s.str(event.ObserverIngressInterfaceName, v)
	case nfOUT:
		s.str(event.ObserverEgressInterfaceName, v)
	case nfMAC: // destination, source, ether type
		if len(v) >= 35 {
			s.mac(event.DestinationMAC, v[:17])
			s.mac(event.SourceMAC, v[18:35])
		}
	case nfSRC:
		s.ip(event.SourceIP, v)
	case nfDST:
		s.ip(event.DestinationIP, v)
	case nfLEN:
		if !*size {
			s.int(event.NetworkBytes, v)
		}
	case nfSPT:
		s.port(event.SourcePort, v)
	case nfDPT:
		s.port(event.DestinationPort, v)
	case nfPROTO:
		if v != "" {
			*size = true
			s.transport(v)
		}
	}
}

// blankAt gives the place of the first blank of t at or behind i, or its length.
func blankAt(t string, i int) int {
	for i+8 <= len(t) {
		if f := zeroBytes(load(t, i) ^ ' '*ones); f != 0 {
			return i + bits.TrailingZeros64(f)>>3
		}
		i += 8
	}
	for i < len(t) && t[i] != ' ' {
		i++
	}
	return i
}

func uptime(v string) bool {
	for i := 0; i < len(v); i++ {
		if !isDigit(v[i]) && v[i] != '.' && v[i] != ' ' {
			return false
		}
	}
	return true
}

// netfilterPrefix finds the product, the rule and the action in the text before IN=. It answers whether what network sets is set as well.
func (s *Set) netfilterPrefix(p string) bool {
	e := s.e
	for p != "" && (p[len(p)-1] == ':' || p[len(p)-1] == ' ') {
		p = p[:len(p)-1]
	}
	product := netfilterProduct
	rule := p
	switch {
	case strings.HasPrefix(p, "[UFW "):
		product = ufwProduct
		word := strings.TrimSuffix(p[5:], "]")
		if i := strings.IndexByte(word, ']'); i >= 0 {
			word = word[:i]
		}
		s.low(event.EventAction, word)
		rule = ""
		switch {
		case hasFold(word, "block"), hasFold(word, "limit"):
			s.decide(deny)
		case hasFold(word, "allow"):
			s.decide(allow)
		case hasFold(word, "audit"):
			s.decide(detect)
		}
	case strings.HasPrefix(p, "[") && unifiPrefix(p):
		product = unifiProduct
		end := strings.IndexByte(p, ']')
		name := p[1:end]
		rule = name
		d, ok := between(p, `DESCR="`, `"`)
		if !ok {
			d, ok = between(p, `DESCR=\"`, `\"`) // relays write it so
		}
		if ok && d != "" {
			d = trim(strings.TrimPrefix(d, name))
			s.str(event.RuleDescription, trim(strings.TrimPrefix(d, "]")))
		}
		letter := ""
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if letter = name[i+1:]; allDigits(letter) || len(letter) > 3 {
				head := name[:i]
				letter = ""
				if j := strings.LastIndexByte(head, '-'); j >= 0 {
					letter = head[j+1:]
				}
			}
		}
		s.ruleLetter(letter)
	case strings.HasPrefix(p, "[") && vyosPrefix(p):
		product = vyosProduct
		rule = p[1 : len(p)-1]
		s.ruleLetter(rule[strings.LastIndexByte(rule, '-')+1:])
	case strings.HasPrefix(p, "Shorewall:"):
		product = shorewallProduct
		if i := strings.LastIndexByte(p, ':'); i > 9 {
			s.act(p[i+1:])
			rule = strings.TrimPrefix(p[:i], "Shorewall:")
		}
	case hasFold(s.h.host, "smoothwall"), smoothwallPrefix(p):
		product = smoothwallProduct
	case s.h.app == "ulogd" || find.Has(p, "sys=\"SecureNet\""):
		product = utmProduct
	}
	if p == "" && s.h.app != "kernel" { // "DENY: IN=": the prefix was taken for the program
		if _, v := actionWord(s.h.app); v != noVerdict {
			rule, s.h.app = s.h.app, ""
		}
	}
	s.of(product)
	rule = trimRule(rule)
	if rule != "" && len(rule) <= 128 {
		s.str(event.RuleName, rule)
	}
	if !e.Has(event.EventAction) {
		if w, v := actionWord(rule); v != noVerdict {
			s.str(event.EventAction, w)
			if g := packetGroups[v]; g != nil && e.SetGroup(g) {
				return true
			}
			s.decide(v)
		}
	}
	return false
}

// What a verdict on a packet means: decide and network in one.
var packetGroups = [...]*event.Group{
	allow:  newPacket("allow", "allowed", "success"),
	deny:   newPacket("deny", "denied", "failure"),
	detect: nil,
}

func newPacket(verdict, kind, outcome string) *event.Group {
	return event.NewGroup([]event.Key{event.TocsinVerdict, event.EventType, event.EventType, event.EventOutcome, event.EventCategory, event.EventKind},
		verdict, kind, "connection", outcome, "network", "event")
}

// packet is decide and network.
func (s *Set) packet(v verdict) {
	if g := packetGroups[v]; g == nil || !s.e.SetGroup(g) {
		s.decide(v)
		s.network()
	}
}

// trimRule takes brackets, stars and blanks from both ends.
func trimRule(v string) string {
	mark := func(c byte) bool { return c == '[' || c == ']' || c == '*' || c == ' ' }
	for v != "" && mark(v[0]) {
		v = v[1:]
	}
	for v != "" && mark(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return v
}

// smoothwallPrefix says whether a prefix is the chain's name that Smoothwall writes: "REJECT_FORWARD", "DROP_INPUT".
func smoothwallPrefix(p string) bool {
	word, chain, ok := strings.Cut(p, "_")
	return ok && (word == "REJECT" || word == "DROP" || word == "ACCEPT") && (chain == "FORWARD" || chain == "INPUT" || chain == "OUTPUT")
}

// ruleLetter takes the last letter of a rule's name, by which UniFi, EdgeOS and VyOS say what was done.
func (s *Set) ruleLetter(letter string) {
	switch letter {
	case "A":
		s.action("accept", allow)
	case "D":
		s.action("drop", deny)
	case "R":
		s.action("reject", deny)
	case "RET":
		s.action("return", allow)
	case "C":
		s.str(event.EventAction, "continue")
	case "DNAT": // "[PREROUTING-DNAT-5]": a port forward let it in
		s.action("dnat", allow)
	}
}

// vyosPrefix says whether a prefix is the name that VyOS and EdgeOS give: "[ipv4-INP-filter-default-D]", "[wan-local-20-R]".
func vyosPrefix(p string) bool {
	n := len(p)
	return n > 6 && p[n-1] == ']' && p[n-3] == '-' && strings.IndexByte("ADRC", p[n-2]) >= 0 && strings.IndexByte(p, ' ') < 0 && strings.IndexByte(p[:n-3], '-') > 0
}

// action sets event.action and its verdict in one step.
func (s *Set) action(word string, v verdict) {
	s.str(event.EventAction, word)
	s.decide(v)
}

func unifiPrefix(p string) bool {
	end := strings.IndexByte(p, ']')
	if end < 4 {
		return false
	}
	name := p[1:end]
	for _, z := range [...]string{"WAN", "LAN", "GUEST", "DMZ", "CUSTOM", "VPN", "PREROUTING", "UBIOS", "GEOIP", "TOR", "FW_A"} {
		if strings.HasPrefix(name, z) && (find.Has(name, "-") || find.Has(name, "_")) {
			return true
		}
	}
	return find.Has(p, "DESCR=")
}

// actionWord finds an action in a name that an administrator gave to a rule: a part of it between separators.
func actionWord(name string) (string, verdict) {
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && (isAlpha(name[i])) {
			continue
		}
		w := name[start:i]
		start = i + 1
		if len(w) < 3 || len(w) > 10 {
			continue
		}
		switch w[0] | 0x20 {
		case 'd':
			switch {
			case equalFold(w, "drop"), equalFold(w, "dropped"), equalFold(w, "drp"):
				return "drop", deny
			case equalFold(w, "deny"), equalFold(w, "denied"):
				return "deny", deny
			}
		case 'b':
			if equalFold(w, "block") || equalFold(w, "blocked") {
				return "block", deny
			}
		case 'r':
			if equalFold(w, "reject") || equalFold(w, "rejected") {
				return "reject", deny
			}
		case 'a':
			switch {
			case equalFold(w, "accept"), equalFold(w, "accepted"), equalFold(w, "acc"):
				return "accept", allow
			case equalFold(w, "allow"), equalFold(w, "allowed"):
				return "allow", allow
			}
		case 'p':
			if equalFold(w, "pass") || equalFold(w, "passed") || equalFold(w, "permit") {
				return "pass", allow
			}
		}
	}
	return "", noVerdict
}
