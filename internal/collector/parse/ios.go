package parse

import (
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/event"
)

// ios reads "%FACILITY-SEVERITY-MNEMONIC: text" of Cisco IOS, IOS-XE, NX-OS and UCS, and of Arista EOS, whose access lists log
// the same way. m starts behind the %.
func (s *Set) ios(m string) bool {
	i := strings.IndexByte(m, ':')
	if i < 5 || i > 80 {
		return false
	}
	mark, text := m[:i], trimLeft(m[i+1:])
	// FACILITY[-SUBFACILITY]-SEVERITY-MNEMONIC
	j := strings.IndexByte(mark, '-')
	level := int64(-1)
	fac := mark[:max(j, 0)]
	mnemonic := ""
	for k := j; k > 0 && k+2 < len(mark); {
		if isDigit(mark[k+1]) && mark[k+2] == '-' {
			level, mnemonic = int64(mark[k+1]-'0'), mark[k+3:]
			break
		}
		n := strings.IndexByte(mark[k+1:], '-')
		if n < 0 {
			break
		}
		k += 1 + n
	}
	if level < 0 || mnemonic == "" || strings.IndexByte(mnemonic, ' ') >= 0 {
		return false
	}
	e := s.e
	e.SetString(event.EventCode, mnemonic)
	e.SetInt(event.EventSeverity, level)
	if s.h.app != "" && s.h.host == "" {
		s.h.host, s.h.app = s.h.app, ""
	}
	s.iosTime()
	vendor, product, dataset := "Cisco", "IOS", "cisco.ios"
	switch fac {
	case "ACL", "AGENT", "PROCMGR", "SYSDB", "LACP", "BGP", "ETH":
		if fac == "ACL" || fac == "AGENT" || fac == "PROCMGR" {
			vendor, product, dataset = "Arista", "EOS", "arista.eos"
		}
	case "UCSM", "CIMC":
		product, dataset = "UCS", "cisco.ucs"
	case "ACE":
		product, dataset = "ACE", "cisco.ace"
	case "LIVEACTION":
		return false
	}
	switch {
	case strings.HasPrefix(mnemonic, "IPACCESS"), strings.HasPrefix(mnemonic, "IPV6_ACCESS"), find.Has(text, " denied ") && find.Has(text, "->"),
		find.Has(text, " permitted ") && find.Has(text, "->"):
		s.iosACL(text)
	case strings.HasPrefix(mnemonic, "LOGIN_") || fac == "SEC_LOGIN":
		s.user(trim(firstOf(bracket(text, "user:"), bracket(text, "User:"))))
		s.ip(event.SourceIP, trim(firstOf(bracket(text, "Source:"), bracket(text, "source:"))))
		s.port(event.DestinationPort, trim(bracket(text, "localport:")))
		s.str(event.EventReason, trim(bracket(text, "Reason:")))
		s.low(event.EventAction, mnemonic)
		s.signIn("ssh", find.Has(mnemonic, "SUCCESS"))
	case strings.HasSuffix(mnemonic, "CONFIG_I"): // "by ann on vty0 (192.0.2.1)", NX-OS "by ann on 192.0.2.1@pts/0"
		s.user(after(text, " by "))
		if v, ok := between(text, "(", ")"); ok {
			s.ip(event.SourceIP, v)
		} else if v := after(text, " on "); v != "" {
			v, _, _ = strings.Cut(v, "@")
			s.ip(event.SourceIP, v)
		}
		s.category("configuration")
		s.kind("change")
		s.low(event.EventAction, mnemonic)
	case mnemonic == "SSH2_USERAUTH" || mnemonic == "SSH2_SESSION" || mnemonic == "LOGOUT" || mnemonic == "SSH2_CLOSE":
		u, _ := between(text, "'", "'")
		s.user(firstOf(u, bracket(text, "user:")))
		s.ip(event.SourceIP, after(text, " from "))
		if r, ok := strings.CutPrefix(text, "User "); ok && mnemonic == "LOGOUT" { // "User ann has exited tty session 3(192.0.2.1)"
			u, _ := cutSpace(r)
			s.user(u)
			if v, ok := between(r, "(", ")"); ok {
				s.ip(event.SourceIP, v)
			}
			s.category("session")
			s.kind("end")
		}
		s.low(event.EventAction, mnemonic)
		if mnemonic == "SSH2_USERAUTH" {
			s.signIn("ssh", !find.Has(text, "Failed"))
		}
	default:
		s.low(event.EventAction, mnemonic)
		if i := find.Index(text, " from "); i >= 0 && find.Has(text[i:], " to ") && asaLooksAddr(text[i+6:]) {
			s.asaPair(text, " from ", "to ") // "No MD5 digest from 192.0.2.1(64999) to 192.0.2.2(179)"
		}
		s.words(text)
	}
	s.device(vendor, product, "")
	s.dataset(dataset)
	s.str(event.Message, text)
	if !e.Has(event.EventKind) {
		e.SetString(event.EventKind, "event")
	}
	return true
}

// iosTime reads the device's own time, which stands after a sequence number: "6340004: Apr 25 15:27:08.123: %SEC-". It counts more than
// that of a relay before it.
func (s *Set) iosTime() {
	raw := s.e.Raw()
	i := ciscoMark(raw)
	if i < 0 {
		return
	}
	head := raw[:i]
	for at := 0; at < len(head); {
		j := strings.IndexByte(head[at:], ' ')
		if j < 0 {
			return
		}
		at += j + 1
		p := head[at:]
		if len(p) > 0 && (p[0] == '*' || p[0] == '.') {
			p = p[1:]
		}
		var c civil
		if bsdAt(p, &c) > 0 {
			if t, ok := s.unix(&c); ok {
				s.e.Time = t
			}
			return
		}
		c = civil{}
		if isoAt(p, &c) > 0 {
			if t, ok := s.unix(&c); ok {
				s.e.Time = t
			}
			return
		}
	}
}

// iosACL reads "list NAME [interface] denied tcp 192.0.2.1(55244) -> 198.51.100.7(445), 1 packet".
func (s *Set) iosACL(t string) {
	i := find.Index(t, " denied ")
	word, v := "denied", deny
	if i < 0 {
		if i = find.Index(t, " permitted "); i < 0 {
			return
		}
		word, v = "permitted", allow
	}
	s.action(word, v)
	name := strings.TrimPrefix(strings.TrimPrefix(t[:i], "access-list logging rate-limited or missed"), "list ")
	name, ifc := cutSpace(name)
	s.str(event.RuleName, strings.TrimPrefix(name, "acl:"))
	s.str(event.ObserverIngressInterfaceName, ifc)
	r := t[i+len(word)+2:]
	proto, r2 := cutSpace(r)
	if tn := transportName(proto); tn != "" {
		s.str(event.NetworkTransport, tn)
		r = r2
	} else if _, _, ok := ipPort(proto); !ok {
		r = r2
	}
	j := find.Index(r, "-> ")
	if j < 0 { // "list 10 denied 192.0.2.1 1 packet"
		a, _ := asaEndpoint(r)
		s.asaSource(&a)
		s.network()
		return
	}
	a, _ := asaEndpoint(trim(r[:j]))
	b, _ := asaEndpoint(r[j+3:])
	a.ifc, b.ifc = "", ""
	s.asaSource(&a)
	s.asaDestination(&b)
	s.network()
}

// bracket reads "[key: value]".
func bracket(t, key string) string {
	i := find.Index(t, "["+key)
	if i < 0 {
		return ""
	}
	t = t[i+1+len(key):]
	if j := strings.IndexByte(t, ']'); j >= 0 {
		return trim(t[:j])
	}
	return ""
}

func firstOf(v ...string) string {
	for _, x := range v {
		if x != "" {
			return x
		}
	}
	return ""
}
