package parse

import (
	"strings"

	"tocsin/internal/event"
)

// zyxel reads Zyxel USG, ATP and FLEX: src="ip:port" dst="ip:port" msg="..." note="ACCESS BLOCK" user="" devID="" cat="...".
// proto is a service's name, protoID the protocol's number.
func (s *Set) zyxel(msg string) bool {
	if !strings.Contains(msg, "note=\"") || !strings.Contains(msg, "msg=\"") || !strings.Contains(msg, "cat=\"") && !strings.Contains(msg, "devID=") {
		return false
	}
	e := s.e
	var text, note, cat, action, proto, dir string
	w := kv{s: msg}
	for pairs := 0; pairs < 100; pairs++ {
		key, v, ok := w.next()
		if !ok {
			break
		}
		if v == "" {
			continue
		}
		switch key {
		case "src":
			s.endpoint(event.SourceIP, event.SourcePort, v)
		case "dst":
			s.endpoint(event.DestinationIP, event.DestinationPort, v)
		case "msg":
			text = v
			s.str(event.Message, v)
		case "note":
			note = v
		case "user", "usr":
			s.user(v)
		case "devID", "sn":
			s.str(event.ObserverSerialNumber, v)
		case "cat":
			cat = v
			s.str(event.RuleCategory, v)
		case "sent":
			s.int(event.SourceBytes, v)
		case "rcvd":
			s.int(event.DestinationBytes, v)
		case "duration":
			s.seconds(v)
		case "dir":
			dir = v
		case "protoID":
			s.transport(v)
		case "proto":
			proto = v
		case "action":
			action = v
		case "rulename", "ruleName", "policy":
			s.str(event.RuleName, v)
		case "class", "trans":
		default:
			s.generic(key, v)
		}
	}
	if proto != "" && proto != "others" {
		if t := transportName(proto); t != "" {
			s.str(event.NetworkTransport, t)
		} else {
			s.low(event.NetworkProtocol, proto)
		}
	}
	if i := strings.IndexByte(dir, ':'); i > 0 {
		s.str(event.ObserverIngressZone, dir[:i])
		s.str(event.ObserverEgressZone, dir[i+1:])
	}
	s.device("Zyxel", "USG", "firewall")
	s.dataset("zyxel.usg")
	switch {
	case strings.Contains(cat, "User") || containsFold(text, "login") || containsFold(text, "logged"):
		s.low(event.EventAction, text)
		if strings.HasPrefix(note, "Account: ") {
			s.user(note[9:])
		}
		if n := after(text, "User "); strings.HasPrefix(text, "User ") || n != "" {
			if j := strings.IndexByte(n, '('); j > 0 {
				n = n[:j]
			}
			if !notName(n) {
				s.user(n)
			}
		}
		switch {
		case containsFold(text, "logout"), containsFold(text, "logged out"):
			s.category("session")
			s.kind("end")
		case failWords(text):
			s.signIn("web", false)
		default:
			s.signIn("web", true)
		}
		s.str(event.EventKind, "event")
		return true
	case action != "":
		s.act(action)
	}
	switch note {
	case "ACCESS BLOCK":
		s.action("access block", deny)
	case "ACCESS FORWARD", "Traffic Log":
		if note == "Traffic Log" {
			s.str(event.EventAction, "traffic log")
		}
		s.action("access forward", allow)
	default:
		if strings.HasPrefix(note, "ACCESS ") {
			s.low(event.EventAction, note)
		}
	}
	if i := strings.LastIndex(text, ", "); i >= 0 {
		s.decide(verdictOf(text[i+2:]))
	}
	if strings.HasPrefix(text, "Match ") || strings.HasPrefix(text, "priority:") {
		if i := strings.IndexByte(text, ','); i > 0 {
			s.str(event.RuleName, text[:i])
		}
	} else if i := strings.Index(text, "rule:"); i >= 0 {
		s.str(event.RuleName, wordOf(text[i+5:]))
	}
	if strings.Contains(cat, "IDP") || strings.Contains(cat, "ADP") || strings.Contains(cat, "IPS") || strings.Contains(cat, "Virus") || strings.Contains(cat, "Malware") {
		s.alert("intrusion_detection")
	}
	if !e.Has(event.EventAction) {
		s.low(event.EventAction, note)
	}
	s.network()
	return true
}
