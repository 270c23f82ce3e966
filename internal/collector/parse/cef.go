package parse

import (
	"math/bits"
	"strings"

	"tocsin/internal/collector/parse/find"
	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// cefEvent reads ArcSight's Common Event Format: "CEF:0|vendor|product|version|id|name|severity|key=value ...". Values hold
// blanks and end before the next key; "\|", "\=" and "\\" are escapes. A relay may have taken "CEF:" for the program's name, so
// the line may start with "0|" (UniFi). Defects that devices ship are forgiven: blanks after "=", repeated keys (the first
// counts), labels before or behind their values, missing header fields.
func (s *Set) cefEvent(msg string) bool {
	t := strings.TrimPrefix(msg, "CEF:")
	t = trimLeft(t)
	if len(t) < 8 || !isDigit(t[0]) {
		return false
	}
	if i := strings.IndexByte(t, '|'); i < 1 || i > 3 {
		return false
	}
	var head [7]string
	rest, n := cefHeader(t, head[:])
	if n < 6 {
		return false
	}
	vendor, product, version, id, name, severity := head[1], head[2], head[3], head[4], head[5], head[6]
	if s.h.app == "CEF" { // a relay took the mark for a program
		s.h.app = ""
	}
	line := packs.Line{Message: msg, Program: s.h.app, Host: s.h.host, ID: s.h.id, Data: s.h.sd}
	if p := s.packs.ByVendor(false, vendor, product, &line); p != nil && s.runPack(p, t) {
		s.as = p.Name
		return true
	}
	if strings.EqualFold(vendor, "MikroTik") && s.mikrotikCEF(name, rest) {
		s.cefHead(version, id, "")
		s.as = "mikrotik"
		return true
	}
	e := s.e
	if vendor != "" {
		e.SetString(event.ObserverVendor, vendor)
	}
	if product != "" {
		e.SetString(event.ObserverProduct, product)
	}
	s.cefHead(version, id, severity)
	s.dataset("cef.generic")
	s.cefExtension(rest, name)
	return true
}

// cefHead sets what a CEF header says beside vendor and product.
func (s *Set) cefHead(version, id, severity string) {
	s.str(event.ObserverVersion, version)
	s.str(event.EventCode, id)
	s.cefSeverity(severity)
}

// cefHeader cuts the fields between pipes; an escaped pipe is part of a field. It returns what follows the last.
func cefHeader(t string, head []string) (rest string, n int) {
	for n < len(head) {
		i := 0
		for {
			k := strings.IndexByte(t[i:], '|')
			if k < 0 {
				head[n] = t
				return "", n + 1
			}
			i += k
			b := 0
			for i-b-1 >= 0 && t[i-b-1] == '\\' {
				b++
			}
			if b%2 == 0 {
				break
			}
			i++
		}
		head[n] = t[:i]
		t = t[i+1:]
		n++
	}
	return t, n
}

// cefSeverity reads 0 to 10 or Low, Medium, High, Very-High.
func (s *Set) cefSeverity(v string) {
	if n, ok := atoi(v); ok {
		s.e.SetInt(event.EventSeverity, n)
		switch {
		case n > 10:
		case n >= 9:
			s.str(event.TocsinSeverity, "critical")
		case n >= 7:
			s.str(event.TocsinSeverity, "high")
		case n >= 4:
			s.str(event.TocsinSeverity, "medium")
		default:
			s.str(event.TocsinSeverity, "low")
		}
		return
	}
	s.severity(v)
}

// cefCustom remembers cs1..cs15, cn1..cn9, flexString1.., c6a1.. and their labels until both are known.
type cefCustom struct{ label, value string }

// cefWalk goes over the pairs of a CEF extension: quotes and escapes are undone, empty values passed over, values of custom fields and
// their labels kept until both are known. It is part of a Set, so that a line costs no memory.
type cefWalk struct {
	kv       kv
	n        int
	key, val string
	custom   bool // key is that of a custom field, its value or its label
	label    bool // its label
	slot     int  // its place in fields
	used     uint64
	fields   [48]cefCustom
}

// cefPairs begins a walk. There is one for each Set, so it ends before the next begins.
func (s *Set) cefPairs(ext string) *cefWalk {
	w := &s.cef
	for b := w.used; b != 0; b &= b - 1 {
		w.fields[bits.TrailingZeros64(b)] = cefCustom{}
	}
	w.kv, w.n, w.used = kv{s: ext, bare: true}, 0, 0
	return w
}

func (w *cefWalk) next(s *Set) bool {
	for w.n < maxPairs {
		w.n++
		key, v, ok := w.kv.next()
		if !ok {
			return false
		}
		if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
		}
		if v == "" {
			continue
		}
		if strings.IndexByte(v, '\\') >= 0 {
			v = s.cefUnescape(v)
		}
		slot, label, ok := customSlot(key)
		w.key, w.val, w.custom, w.label, w.slot = key, v, ok, label, slot
		if ok {
			w.used |= 1 << slot
			c := &w.fields[slot]
			if label && c.label == "" {
				c.label = v
			} else if !label && c.value == "" {
				c.value = v
			}
		}
		return true
	}
	return false
}

// forget leaves out the pair at hand, if it is one of a custom field.
func (w *cefWalk) forget() {
	switch {
	case w.label:
		w.fields[w.slot].label = ""
	case w.custom:
		w.fields[w.slot].value = ""
	}
}

// labelled gives the custom fields of which both label and value are known.
func (w *cefWalk) labelled(f func(label, v string)) {
	for b := w.used; b != 0; b &= b - 1 {
		if c := &w.fields[bits.TrailingZeros64(b)]; c.label != "" && c.value != "" {
			f(c.label, c.value)
		}
	}
}

// customSlot gives the place of "cs3" and "cs3Label" and whether it is a label.
func customSlot(key string) (slot int, label, ok bool) {
	base := -1
	n := 0
	switch {
	case strings.HasPrefix(key, "cs"):
		base, n = 0, 2
	case strings.HasPrefix(key, "cn"):
		base, n = 16, 2
	case strings.HasPrefix(key, "flexString"):
		base, n = 26, 10
	case strings.HasPrefix(key, "flexNumber"):
		base, n = 30, 10
	case strings.HasPrefix(key, "c6a"):
		base, n = 34, 3
	case strings.HasPrefix(key, "deviceCustomDate"):
		base, n = 39, 16
	default:
		return 0, false, false
	}
	d, l := digits(key[n:])
	if l == 0 || d > 15 {
		return 0, false, false
	}
	slot = base + int(d)
	if slot >= 48 {
		return 0, false, false
	}
	switch key[n+l:] {
	case "":
		return slot, false, true
	case "Label":
		return slot, true, true
	}
	return 0, false, false
}

func (s *Set) cefExtension(ext, name string) {
	e := s.e
	s.weak = ""
	act, outcome, request := "", "", ""
	w := s.cefPairs(ext)
	for w.next(s) {
		key, v := w.key, w.val
		switch {
		case s.owns(key):
			w.forget()
			continue
		case w.custom:
			continue
		}
		switch key {
		case "src", "sourceAddress", "caIP", "c-ip", "sourceIp":
			s.endpoint(event.SourceIP, event.SourcePort, v)
		case "dst", "destinationAddress", "destIp", "sip":
			s.endpoint(event.DestinationIP, event.DestinationPort, v)
		case "spt", "sourcePort", "cpt":
			s.port(event.SourcePort, v)
		case "dpt", "destinationPort":
			s.port(event.DestinationPort, v)
		case "proto", "transportProtocol":
			p, svc, _ := strings.Cut(v, "/")
			if t := transportName(p); t != "" {
				s.str(event.NetworkTransport, t)
				if svc != "" && isAlpha(svc[0]) {
					s.low(event.NetworkProtocol, svc)
				}
			} else {
				s.low(event.NetworkProtocol, v)
			}
		case "app", "applicationProtocol":
			s.low(event.NetworkProtocol, v)
		case "act", "deviceAction", "fwAction":
			if act == "" {
				act = v
			}
		case "outcome", "eventOutcome", "categoryOutcome":
			if outcome == "" {
				outcome = strings.TrimPrefix(v, "/")
			}
		case "suser", "sourceUserName":
			s.str(event.SourceUserName, person(v))
		case "duser", "destinationUserName":
			s.str(event.DestinationUserName, person(v))
		case "suid", "duid":
		case "in", "bytesIn":
			s.int(event.SourceBytes, v)
		case "out", "bytesOut":
			s.int(event.DestinationBytes, v)
		case "shost", "sourceHostName":
			s.domain(event.SourceDomain, v)
		case "dhost", "destinationHostName":
			s.domain(event.DestinationDomain, v)
		case "destinationDnsDomain":
			s.domain(event.DestinationDomain, v)
		case "smac", "sourceMacAddress":
			s.mac(event.SourceMAC, v)
		case "dmac", "destinationMacAddress":
			s.mac(event.DestinationMAC, v)
		case "request", "requestURL", "requestUrl":
			if request == "" {
				request = v
			}
		case "requestMethod", "method":
			s.str(event.HTTPRequestMethod, v)
		case "requestClientApplication":
			s.str(event.UserAgentOriginal, v)
		case "requestContext", "refererURL":
			if strings.HasPrefix(v, "http") {
				s.str(event.HTTPRequestReferrer, v)
			}
		case "msg", "message":
			s.str(event.Message, v)
		case "reason":
			s.str(event.EventReason, v)
		case "rt", "deviceReceiptTime":
			if e.Time == 0 {
				s.setTime(v)
			}
		case "start", "startTime":
			if t, ok := s.anyTime(v); ok {
				if e.Time == 0 {
					e.Time = t
				}
				if !e.Has(event.EventStart) {
					e.SetTime(event.EventStart, t)
				}
			}
		case "end", "endTime":
			if t, ok := s.anyTime(v); ok {
				if e.Time == 0 {
					e.Time = t
				}
				if !e.Has(event.EventEnd) {
					e.SetTime(event.EventEnd, t)
				}
			}
		case "deviceInboundInterface":
			s.str(event.ObserverIngressInterfaceName, v)
		case "deviceOutboundInterface":
			s.str(event.ObserverEgressInterfaceName, v)
		case "sourceTranslatedAddress":
			s.ip(event.SourceNATIP, v)
		case "sourceTranslatedPort":
			s.port(event.SourceNATPort, v)
		case "destinationTranslatedAddress":
			s.ip(event.DestinationNATIP, v)
		case "destinationTranslatedPort":
			s.port(event.DestinationNATPort, v)
		case "dvchost", "dvcHost", "deviceHostName":
			s.str(event.ObserverHostname, v)
		case "dvc", "deviceAddress":
			if !s.ip(event.ObserverIP, v) && domainLike(v) {
				s.str(event.ObserverHostname, v)
			}
		case "deviceExternalId", "sn":
			s.str(event.ObserverSerialNumber, v)
		case "fname", "fileName":
			s.str(event.FileName, baseName(v))
		case "filePath":
			s.str(event.FilePath, v)
			s.str(event.FileName, baseName(v))
		case "fsize", "fileSize":
			s.int(event.FileSize, v)
		case "fileHash":
			s.hash(v)
		case "fileType":
			s.str(event.FileMimeType, v)
		case "cat", "deviceEventCategory":
			s.str(event.RuleCategory, v)
		case "externalId", "eventId":
			s.str(event.EventID, v)
		case "spriv", "sntdom", "dntdom":
			if key != "spriv" {
				s.str(event.UserDomain, v)
			}
		case "sproc", "sourceProcessName", "deviceProcessName", "dproc":
			s.str(event.ProcessExecutable, v)
		case "UNIFIutcTime":
			if t, ok := s.anyTime(v); ok {
				e.Time = t
			}
		case "UNIFIipsSignature":
			s.str(event.RuleName, v)
		case "UNIFIipsSignatureId":
			s.str(event.RuleID, v)
		case "UNIFIpolicyName":
			s.str(event.RuleName, v)
		case "UNIFIadmin":
			s.user(v)
		case "UNIFIclientIp":
			s.ip(event.SourceIP, v)
		case "UNIFIhost":
			s.str(event.ObserverName, v)
		case "UNIFIrisk":
			s.e.Del(event.TocsinSeverity)
			s.low(event.TocsinSeverity, v)
		case "UNIFIdirection":
			switch v {
			case "incoming":
				s.str(event.NetworkDirection, "inbound")
			case "outgoing":
				s.str(event.NetworkDirection, "outbound")
			}
		case "UNIFIsrcZone":
			s.str(event.ObserverIngressZone, v)
		case "UNIFIdstZone":
			s.str(event.ObserverEgressZone, v)
		case "deviceDirection", "cnt", "baseEventCount", "type", "deviceZoneURI", "agt", "ahost", "av", "at", "art", "catdt", "dtz":
		default:
			if !s.generic(key, v) {
				s.extra(key, v)
			}
		}
	}
	w.labelled(func(label, v string) {
		if !s.owns(label) {
			s.customField(label, v)
		}
	})
	if request != "" {
		s.urlText(request)
	}
	if u := e.Str(event.SourceUserName); u != "" {
		s.user(u)
	} else if u := e.Str(event.DestinationUserName); u != "" {
		s.user(u)
	}
	if act != "" {
		s.act(act)
	}
	if !e.Has(event.TocsinVerdict) {
		// "Threat Detected and Blocked", "Blocked Host": the name says what was done.
		if w, v := actionWord(name); v != noVerdict {
			if !e.Has(event.EventAction) {
				s.str(event.EventAction, w)
			}
			s.decide(v)
		}
	}
	if outcome != "" {
		if o := outcomeOf(outcome); o != "" {
			e.SetString(event.EventOutcome, o)
		}
	}
	if name != "" {
		s.str(event.RuleDescription, name)
		if !e.Has(event.RuleName) && (e.Has(event.SourceIP) || e.Has(event.DestinationIP)) {
			s.str(event.RuleName, name)
		}
		if !e.Has(event.EventAction) {
			s.low(event.EventAction, name)
		}
		s.signInWords(name)
	}
	s.genericDone("cef.generic")
}

// hash sets the file hash whose kind its length tells.
func (s *Set) hash(v string) {
	switch len(v) {
	case 32:
		s.str(event.FileHashMD5, v)
	case 40:
		s.str(event.FileHashSHA1, v)
	case 64:
		s.str(event.FileHashSHA256, v)
	}
}

// customField maps a labelled custom value by its label.
func (s *Set) customField(label, v string) {
	switch {
	case find.HasFold(label, "rule name"), find.HasFold(label, "rulename"), find.HasFold(label, "policy name"), equalFold(label, "policy"), equalFold(label, "rule"),
		equalFold(label, "policyname"), equalFold(label, "signature"), equalFold(label, "sname"), equalFold(label, "signature name"), equalFold(label, "threat name"):
		s.str(event.RuleName, v)
	case equalFold(label, "rule id"), equalFold(label, "ruleid"), equalFold(label, "policy id"), equalFold(label, "signature id"), equalFold(label, "sid"),
		equalFold(label, "rule uid"):
		s.str(event.RuleID, v)
	default:
		if !s.generic(label, v) {
			s.extra(label, v)
		}
	}
}

// cefUnescape undoes \=, \| and \\. \n stays: it may be the path C:\new, which CEF does not tell apart.
func (s *Set) cefUnescape(v string) string {
	b := s.buf[:0]
	changed := false
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			switch v[i+1] {
			case '=', '|', '\\':
				b = append(b, v[i+1])
				i++
				changed = true
				continue
			}
		}
		b = append(b, v[i])
	}
	s.buf = b
	if !changed {
		return v
	}
	return s.e.Copy(b)
}
