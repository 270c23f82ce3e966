package eventstore

import "tocsin/internal/event"

// Classes: what kind of sign an event is, in the words that pages and roll-ups group by. Derived once, when the row is made.
const (
	ClassDetection    = "detection"      // made by the rules on the site
	ClassIndicator    = "indicator"      // touches an address or name on the indicator list
	ClassMalware      = "malware"        // an anti-virus or mail filter's verdict
	ClassIDS          = "ids"            // an intrusion detection system's alert
	ClassSignInFailed = "sign_in_failed" // an authentication that failed
	ClassSignIn       = "sign_in"        // one that succeeded
	ClassDenied       = "denied"         // traffic that was refused
	ClassAllowed      = "allowed"        // traffic that was let through and left the site for another reason
	ClassOther        = "other"
	ClassRaw          = "raw" // a raw line that a member let leave while troubleshooting, or the hub's own daily test: it is read, and stands in no figure
	ServiceOther      = "other"
	ServiceNone       = "" // no destination port and no service named
	ServiceICMP       = "icmp"
)

// Classify gives the event's class, the service it was aimed at ("what they tried"), and its level: low, medium, high or critical.
func Classify(e *event.Event) (class, service, level string) {
	class = classOf(e)
	return class, serviceOf(e), levelOf(e, class)
}

// levelOf is how serious an event is by itself. What a device calls serious counts only where the device gives a verdict: firewalls rate plain
// denials by a reputation of their own, and a day of noise would look like a day of attacks.
func levelOf(e *event.Event, class string) string {
	s, usual := "", "low"
	switch class {
	case ClassDetection:
		s, usual = e.Str(event.TocsinDetectionLevel), "medium"
	case ClassIDS:
		s, usual = e.Str(event.TocsinSeverity), "medium"
	case ClassMalware:
		s, usual = e.Str(event.TocsinSeverity), "high"
	case ClassIndicator:
		usual = "high"
	case ClassSignInFailed:
		usual = "medium"
	}
	switch s {
	case "low", "medium", "high", "critical":
		return s
	case "informational":
		return "low"
	}
	return usual
}

func classOf(e *event.Event) string {
	switch e.Str(event.TocsinLeftReason) {
	case troubleshooting, dailyTest:
		return ClassRaw
	}
	switch {
	case e.IsDetection():
		return ClassDetection
	case e.Has(event.TocsinIndicatorID):
		return ClassIndicator
	case e.HasString(event.EventCategory, "malware"):
		return ClassMalware
	case e.HasString(event.EventCategory, "intrusion_detection"):
		return ClassIDS
	case e.HasString(event.EventCategory, "authentication"):
		if e.Str(event.EventOutcome) == "success" {
			return ClassSignIn
		}
		return ClassSignInFailed
	case e.HasString(event.EventType, "denied"):
		return ClassDenied
	case e.HasString(event.EventType, "allowed"):
		return ClassAllowed
	}
	return ClassOther
}

// dailyTest is the reason of the daily test (package daily). A collector that said so of an event would only take it out of its own member's figures.
const dailyTest = "daily_test"

// portService names the services that attackers look for, by destination port. Sources: IANA's service names and port
// numbers, and for 5985, 6379, 9200, 11211, 27017 the makers' documentation.
var portService = map[uint16]string{
	20: "ftp", 21: "ftp", 22: "ssh", 2222: "ssh", 23: "telnet", 2323: "telnet", 25: "mail", 465: "mail", 587: "mail", 110: "mail", 143: "mail", 993: "mail", 995: "mail",
	53: "dns", 853: "dns", 80: "web", 443: "web", 8000: "web", 8080: "web", 8443: "web", 8888: "web",
	135: "windows", 137: "windows", 138: "windows", 139: "file_sharing", 445: "file_sharing", 2049: "file_sharing", 548: "file_sharing",
	389: "directory", 636: "directory", 88: "directory",
	1433: "database", 1434: "database", 1521: "database", 3306: "database", 5432: "database", 6379: "database", 9200: "database", 11211: "database", 27017: "database",
	3389: "remote_desktop", 5900: "remote_desktop", 5901: "remote_desktop", 5938: "remote_desktop", 4899: "remote_desktop",
	5985: "remote_admin", 5986: "remote_admin", 2375: "remote_admin", 2376: "remote_admin", 6443: "remote_admin", 10250: "remote_admin", 623: "remote_admin", 161: "remote_admin", 7547: "remote_admin",
	500: "vpn", 4500: "vpn", 1194: "vpn", 1723: "vpn", 1701: "vpn", 10443: "vpn", 4433: "vpn",
	5060: "telephony", 5061: "telephony", 102: "industrial", 502: "industrial", 20000: "industrial", 44818: "industrial", 47808: "industrial",
	123: "time", 1900: "discovery", 5353: "discovery", 3702: "discovery", 1883: "iot", 8883: "iot", 554: "camera", 37777: "camera", 34567: "camera",
}

func serviceOf(e *event.Event) string {
	if s := e.Str(event.TocsinService); s != "" {
		if s == "rdp" {
			return "remote_desktop"
		}
		return s
	}
	port, ok := e.Int(event.DestinationPort)
	if !ok {
		switch e.Str(event.NetworkTransport) {
		case "icmp", "ipv6-icmp", "icmp6":
			return ServiceICMP
		}
		return ServiceNone
	}
	if port > 0 && port < 1<<16 {
		if s, ok := portService[uint16(port)]; ok {
			return s
		}
	}
	return ServiceOther
}
