package parse

import (
	"strings"

	"tocsin/internal/event"
)

var pfSense = newProduct("Netgate", "pfSense", "firewall", "pfsense.filterlog")

// pf's filterlog of pfSense and OPNsense: CSV whose columns depend on the IP version and the protocol. The fields are listed in
// "Raw Filter Log Format", Netgate documentation:
//
//	rule,sub rule,anchor,tracker,interface,reason,action,direction,ip version,
//	  4: tos,ecn,ttl,id,offset,flags,protocol id,protocol,length,source,destination,
//	  6: class,flow label,hop limit,protocol,protocol id,length,source,destination,
//	  TCP: sport,dport,data length,flags,...  UDP: sport,dport,data length
//
// pfSense writes a tracker number in the fourth column, OPNsense a hash; some OPNsense versions leave the column out.
func (s *Set) filterlog(msg string) bool {
	if len(msg) < 20 || !(isDigit(msg[0]) || msg[0] == ',') || strings.IndexByte(msg, ',') > 6 {
		return false
	}
	c := &s.cols
	// Nine columns are common; the rest is cut one by one.
	n := split(c[:28], msg)
	if n < 9 {
		return false
	}
	o := 0
	if c[8] != "4" && c[8] != "6" {
		if c[7] == "4" || c[7] == "6" { // no tracker or anchor column
			o = -1
		} else {
			return false
		}
	}
	if !isPFAction(c[6+o]) {
		return false
	}
	e := s.e
	e.SetString(event.EventAction, c[6+o])
	s.of(pfSense)
	tracker := ""
	if o == 0 {
		tracker = c[3]
	}
	if tracker != "" && tracker != "0" {
		s.str(event.RuleID, tracker)
	} else {
		s.str(event.RuleID, c[0])
	}
	s.str(event.EventReason, c[5+o])
	s.str(event.ObserverIngressInterfaceName, c[4+o])
	// in and out are of the interface, not of the site: they say nothing of network.direction.
	var proto, num, length, src, dst, sport, dport string
	if c[8+o] == "4" {
		if n < 20+o {
			s.packet(verdictOf(c[6+o]))
			return true
		}
		num, proto, length, src, dst, sport, dport = c[15+o], c[16+o], c[17+o], c[18+o], c[19+o], "", ""
		if n >= 22+o {
			sport, dport = c[20+o], c[21+o]
		}
	} else {
		if n < 17+o {
			if n > 13+o {
				s.transport(c[13+o])
			}
			s.packet(verdictOf(c[6+o]))
			return true
		}
		proto, num, length, src, dst = c[12+o], c[13+o], c[14+o], c[15+o], c[16+o]
		if n >= 19+o {
			sport, dport = c[17+o], c[18+o]
		}
	}
	s.ip(event.SourceIP, src)
	s.ip(event.DestinationIP, dst)
	s.transport(proto)
	s.transport(num)
	if t := e.Str(event.NetworkTransport); t == "tcp" || t == "udp" {
		s.port(event.SourcePort, sport)
		s.port(event.DestinationPort, dport)
	}
	s.int(event.NetworkBytes, length)
	if len(tracker) >= 32 || s.h.sd != "" || hasFold(s.h.host, "opnsense") {
		e.SetString(event.ObserverVendor, "OPNsense")
		e.SetString(event.ObserverProduct, "OPNsense")
		e.SetString(event.EventDataset, "pfsense.filterlog")
	}
	s.packet(verdictOf(c[6+o]))
	return true
}

func isPFAction(v string) bool {
	switch v {
	case "pass", "block", "reject", "match", "nat", "rdr", "binat", "scrub", "unkn(1)", "unkn(2)":
		return true
	}
	return false
}
