package parse

import (
	"strings"

	"tocsin/internal/event"
)

// sign is a mark by which a product is known whose lines are read through the dictionary. Where says what is searched: the
// program's name ('a', a prefix of it) or the line ('l').
type sign struct {
	where           byte
	text            string
	vendor, product string
}

// signs are tried in order; the first that fits names the product.
var signs = []sign{
	{'a', "CISE_", "Cisco", "ISE"},
	{'a', "CSCOacs", "Cisco", "ACS"},
	{'a', "PulseSecure", "Pulse Secure", "Connect Secure"},
	{'a', "bluecoat", "Broadcom", "ProxySG"},
	{'a', "ProxySG", "Broadcom", "ProxySG"},
	{'a', "named", "ISC", "BIND"},
	{'a', "dhcpd", "ISC", "DHCP"},
	{'a', "unbound", "NLnet Labs", "Unbound"},
	{'a', "dnsmasq", "dnsmasq", "dnsmasq"},
	{'a', "postfix/", "Postfix", "Postfix"},
	{'a', "dovecot", "Dovecot", "Dovecot"},
	{'a', "openvpn", "OpenVPN", "OpenVPN"},
	{'a', "charon", "strongSwan", "strongSwan"},
	{'a', "radiusd", "FreeRADIUS", "FreeRADIUS"},
	{'a', "proftpd", "ProFTPD", "ProFTPD"},
	{'a', "tmm", "F5", "BIG-IP"},
	{'a', "ASM", "F5", "BIG-IP ASM"},
	{'a', "apmd", "F5", "BIG-IP APM"},
	{'a', "vpxd", "VMware", "vCenter"},
	{'a', "hostd", "VMware", "ESXi"},
	{'a', "vpxa", "VMware", "ESXi"},
	{'a', "dfwpktlogs", "VMware", "NSX"},
	{'a', "NSX", "VMware", "NSX"},
	{'a', "SymantecServer", "Broadcom", "Symantec Endpoint Protection"},
	{'a', "darktrace", "Darktrace", "Darktrace"},
	{'a', "Tanium", "Tanium", "Tanium"},
	{'a', "SecureAuth", "SecureAuth", "IdP"},
	{'a', "mwg", "McAfee", "Web Gateway"},
	{'a', "vectra", "Vectra", "Vectra"},
	{'a', "StealthINTERCEPT", "Netwrix", "StealthINTERCEPT"},
	{'a', "asterisk", "Sangoma", "Asterisk"},
	{'a', "sudo", "Linux", "sudo"},
	{'l', "Common.Login-Status", "Aruba", "ClearPass"},
	{'l', "nddevicename", "Aruba", "ClearPass"},
	{'l', "AviatrixVPNSession", "Aviatrix", "Aviatrix"},
	{'l', "product=NSS", "Zscaler", "NSS"},
	{'l', "vendor=Zscaler", "Zscaler", "Zscaler"},
	{'l', "vendor=Websense", "Forcepoint", "Web Security"},
	{'l', "logType=WF", "Barracuda", "Web Application Firewall"},
	{'l', `"awsRegion"`, "AWS", "CloudTrail"},
	{'l', `"legacyEventType"`, "Okta", "Okta"},
	{'l', `"debugContext"`, "Okta", "Okta"},
	{'l', `"UserKey"`, "Microsoft", "Microsoft 365"},
	{'l', `"RecordType"`, "Microsoft", "Microsoft 365"},
	{'l', `"callerIpAddress"`, "Microsoft", "Azure"},
	{'l', `"operationName"`, "Microsoft", "Azure"},
	{'l', `"userPrincipalName"`, "Microsoft", "Entra ID"},
	{'l', `"protoPayload"`, "Google", "Google Cloud"},
	{'l', `"admin#reports#activity"`, "Google", "Google Workspace"},
	{'l', `"EdgeResponseStatus"`, "Cloudflare", "Cloudflare"},
	{'l', `"ClientRequestHost"`, "Cloudflare", "Cloudflare"},
	{'l', `"id.orig_h"`, "Zeek", "Zeek"},
	{'l', `"event_simpleName"`, "CrowdStrike", "Falcon"},
	{'l', `"access_device"`, "Cisco", "Duo"},
	{'l', `"CClientAddr"`, "Untangle", "NG Firewall"},
	{'l', `com.untangle`, "Untangle", "NG Firewall"},
	{'l', `Microsoft-Windows-`, "Microsoft", "Windows"},
	{'l', `"oauth_application"`, "GitHub", "GitHub"},
	{'l', "msg=audit(", "Linux", "auditd"},
	{'l', "audit_action=\"", "McAfee", "Network Security Platform"},
	{'l', "attackid=\"", "McAfee", "Network Security Platform"},
	{'l', "mlwr=\"", "McAfee", "Web Gateway"},
	{'l', "sav-ev=", "Sophos", "Web Appliance"},
	{'l', "SecurityEvent=\"", "Sangoma", "Asterisk"},
}

// identify names vendor and product of a line that only the dictionary read, where a mark is unmistakable.
func (s *Set) identify() {
	e := s.e
	if e.Has(event.ObserverVendor) {
		if v := e.Str(event.ObserverVendor); strings.HasPrefix(v, "Websense") {
			e.SetString(event.ObserverVendor, "Forcepoint")
		}
		return
	}
	app := s.h.app
	line := e.Raw()
	if len(line) > 4096 {
		line = line[:4096]
	}
	for i := range signs {
		g := &signs[i]
		if g.where == 'a' {
			if !strings.HasPrefix(app, g.text) && !strings.HasPrefix(s.h.msg, g.text) {
				continue
			}
		} else if !strings.Contains(line, g.text) {
			continue
		}
		s.device(g.vendor, g.product, "")
		return
	}
}
