package web

import (
	"slices"
	"strings"
	"unicode/utf8"

	"tocsin/internal/collector/minimise"
)

// The plain words that pages use for what the program counts under short names.

// unexplained are the services whose names say little to whoever does not work with them.
var unexplained = map[string]bool{"ssh": true, "vpn": true, "telnet": true, "remote_desktop": true, "dns": true, "ftp": true, "icmp": true, "directory": true, "windows": true, "remote_admin": true,
	"discovery": true, "industrial": true, "time": true, "iot": true, "other": true}

// sentence puts a capital in front.
func sentence(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + s[n:]
}

// policyReason is one clause of a policy as people read it.
type policyReason struct {
	word, text string
	leaves     bool
}

// policyWords reads the reasons of a built-in policy in its own order. A member
// may run a policy of its own, whose reasons the hub knows by their words only;
// those are shown as they are.
func policyWords(name string) (title string, reasons []policyReason, fields []string) {
	p, err := minimise.Load(name)
	if err != nil {
		return "", nil, nil
	}
	for i := range p.Events {
		c := &p.Events[i]
		reasons = append(reasons, policyReason{c.Reason(), sentence(c.Text), c.Leave != ""})
	}
	fields = append(slices.Clone(p.Fields.Leave), p.Fields.Address...)
	slices.Sort(fields)
	return p.Title, reasons, slices.Compact(fields)
}

// reasonText says one reason in words. What was given up for want of room is spool_full.REASON, with the reason for which it was to leave.
func reasonText(reasons []policyReason, word string, leaves bool) string {
	for _, r := range reasons {
		if r.word == word && r.leaves == leaves {
			return r.text
		}
	}
	if what, ok := strings.CutPrefix(word, "spool_full."); ok {
		return "Given up because the collector's disk was full while the centre was away: " + lower(reasonText(reasons, what, true))
	}
	switch word {
	case "daily_test":
		return "the collector's own daily test, which says nothing of you"
	case "site_detection":
		return "A rule on the site fired on them"
	case "detection":
		return "Findings of the rules on the site"
	case "evidence":
		return "Events that explain a finding"
	case "look_back":
		return "Answers to questions about the past, and the events found for them"
	case "raw":
		return "Raw lines that left while troubleshooting was on"
	case "spool_full":
		return "Given up because the collector's disk was full while the centre was away"
	case "spool_damage":
		return "Their file on the collector was damaged"
	case "unsendable":
		return "Too long to be sent"
	}
	return sentence(strings.ReplaceAll(word, "_", " "))
}

// techniqueNames are the MITRE ATT&CK techniques that detections on gateways and
// sign-ins name, enterprise matrix v17.
var techniqueNames = map[string]string{
	"T1021": "Remote Services", "T1021.001": "Remote Desktop Protocol", "T1021.002": "SMB/Windows Admin Shares", "T1021.004": "SSH",
	"T1041": "Exfiltration Over C2 Channel", "T1046": "Network Service Discovery", "T1048": "Exfiltration Over Alternative Protocol",
	"T1059": "Command and Scripting Interpreter", "T1059.001": "PowerShell", "T1071": "Application Layer Protocol", "T1071.001": "Web Protocols", "T1071.004": "DNS",
	"T1078": "Valid Accounts", "T1078.002": "Domain Accounts", "T1078.004": "Cloud Accounts", "T1090": "Proxy", "T1095": "Non-Application Layer Protocol",
	"T1098": "Account Manipulation", "T1105": "Ingress Tool Transfer", "T1110": "Brute Force", "T1110.001": "Password Guessing", "T1110.003": "Password Spraying", "T1110.004": "Credential Stuffing",
	"T1133": "External Remote Services", "T1189": "Drive-by Compromise", "T1190": "Exploit Public-Facing Application", "T1203": "Exploitation for Client Execution", "T1204": "User Execution",
	"T1210": "Exploitation of Remote Services", "T1486": "Data Encrypted for Impact", "T1498": "Network Denial of Service", "T1499": "Endpoint Denial of Service",
	"T1505.003": "Web Shell", "T1548": "Abuse Elevation Control Mechanism", "T1562": "Impair Defenses", "T1562.004": "Disable or Modify System Firewall", "T1566": "Phishing", "T1566.001": "Spearphishing Attachment", "T1566.002": "Spearphishing Link",
	"T1568": "Dynamic Resolution", "T1571": "Non-Standard Port", "T1572": "Protocol Tunneling", "T1573": "Encrypted Channel", "T1583": "Acquire Infrastructure",
	"T1590": "Gather Victim Network Information", "T1595": "Active Scanning", "T1595.001": "Scanning IP Blocks", "T1595.002": "Vulnerability Scanning", "T1595.003": "Wordlist Scanning", "T1608": "Stage Capabilities", "T1621": "Multi-Factor Authentication Request Generation",
}

// techniqueOf reads a Sigma tag, attack.t1110.003, as a technique.
func techniqueOf(tag string) (technique, bool) {
	id, ok := strings.CutPrefix(strings.ToLower(tag), "attack.t")
	if !ok || id == "" || strings.Trim(id, "0123456789.") != "" {
		return technique{}, false
	}
	id = "T" + id
	return technique{id, techniqueNames[id]}, true
}

func techniquesOf(tags []string) []technique {
	var out []technique
	for _, tag := range tags {
		if t, ok := techniqueOf(tag); ok && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}
