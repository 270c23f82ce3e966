package parse

import (
	"math/bits"
	"strings"
	"sync"

	"tocsin/internal/collector/parse/packs"
	"tocsin/internal/event"
)

// sign is a mark by which a product is known whose lines are read through the dictionary.
type sign struct{ text, vendor, product string }

// programSigns are starts of the program's name, or of the message. The first that fits names the product.
var programSigns = []sign{
	{"CISE_", "Cisco", "ISE"},
	{"CSCOacs", "Cisco", "ACS"},
	{"PulseSecure", "Pulse Secure", "Connect Secure"},
	{"bluecoat", "Broadcom", "ProxySG"},
	{"ProxySG", "Broadcom", "ProxySG"},
	{"named", "ISC", "BIND"},
	{"dhcpd", "ISC", "DHCP"},
	{"unbound", "NLnet Labs", "Unbound"},
	{"dnsmasq", "dnsmasq", "dnsmasq"},
	{"postfix/", "Postfix", "Postfix"},
	{"dovecot", "Dovecot", "Dovecot"},
	{"openvpn", "OpenVPN", "OpenVPN"},
	{"charon", "strongSwan", "strongSwan"},
	{"radiusd", "FreeRADIUS", "FreeRADIUS"},
	{"proftpd", "ProFTPD", "ProFTPD"},
	{"tmm", "F5", "BIG-IP"},
	{"ASM", "F5", "BIG-IP ASM"},
	{"apmd", "F5", "BIG-IP APM"},
	{"vpxd", "VMware", "vCenter"},
	{"hostd", "VMware", "ESXi"},
	{"vpxa", "VMware", "ESXi"},
	{"dfwpktlogs", "VMware", "NSX"},
	{"NSX", "VMware", "NSX"},
	{"SymantecServer", "Broadcom", "Symantec Endpoint Protection"},
	{"darktrace", "Darktrace", "Darktrace"},
	{"Tanium", "Tanium", "Tanium"},
	{"SecureAuth", "SecureAuth", "IdP"},
	{"mwg", "McAfee", "Web Gateway"},
	{"vectra", "Vectra", "Vectra"},
	{"StealthINTERCEPT", "Netwrix", "StealthINTERCEPT"},
	{"asterisk", "Sangoma", "Asterisk"},
	{"sudo", "Linux", "sudo"},
}

// lineSigns stand anywhere in the line; they are asked after programSigns. The first that fits names the product.
var lineSigns = []sign{
	{"Common.Login-Status", "Aruba", "ClearPass"},
	{"nddevicename", "Aruba", "ClearPass"},
	{"AviatrixVPNSession", "Aviatrix", "Aviatrix"},
	{"product=NSS", "Zscaler", "NSS"},
	{"vendor=Zscaler", "Zscaler", "Zscaler"},
	{"vendor=Websense", "Forcepoint", "Web Security"},
	{"logType=WF", "Barracuda", "Web Application Firewall"},
	{`"awsRegion"`, "AWS", "CloudTrail"},
	{`"legacyEventType"`, "Okta", "Okta"},
	{`"debugContext"`, "Okta", "Okta"},
	{`"UserKey"`, "Microsoft", "Microsoft 365"},
	{`"RecordType"`, "Microsoft", "Microsoft 365"},
	{`"callerIpAddress"`, "Microsoft", "Azure"},
	{`"operationName"`, "Microsoft", "Azure"},
	{`"userPrincipalName"`, "Microsoft", "Entra ID"},
	{`"protoPayload"`, "Google", "Google Cloud"},
	{`"admin#reports#activity"`, "Google", "Google Workspace"},
	{`"EdgeResponseStatus"`, "Cloudflare", "Cloudflare"},
	{`"ClientRequestHost"`, "Cloudflare", "Cloudflare"},
	{`"id.orig_h"`, "Zeek", "Zeek"},
	{`"event_simpleName"`, "CrowdStrike", "Falcon"},
	{`"access_device"`, "Cisco", "Duo"},
	{`"CClientAddr"`, "Untangle", "NG Firewall"},
	{`com.untangle`, "Untangle", "NG Firewall"},
	{`Microsoft-Windows-`, "Microsoft", "Windows"},
	{`"oauth_application"`, "GitHub", "GitHub"},
	{"msg=audit(", "Linux", "auditd"},
	{"audit_action=\"", "McAfee", "Network Security Platform"},
	{"attackid=\"", "McAfee", "Network Security Platform"},
	{"mlwr=\"", "McAfee", "Web Gateway"},
	{"sav-ev=", "Sophos", "Web Appliance"},
	{"SecurityEvent=\"", "Sangoma", "Asterisk"},
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
	for i := range programSigns {
		if g := &programSigns[i]; strings.HasPrefix(app, g.text) || strings.HasPrefix(s.h.msg, g.text) {
			s.device(g.vendor, g.product, "")
			return
		}
	}
	var found [2]uint64
	lineTexts().Find(line, found[:])
	for w, b := range found {
		if b != 0 {
			g := &lineSigns[w<<6+bits.TrailingZeros64(b)]
			s.device(g.vendor, g.product, "")
			return
		}
	}
}

// lineTexts are the texts of lineSigns; there are at most 128.
var lineTexts = sync.OnceValue(func() *packs.Texts {
	var list []string
	for _, g := range lineSigns {
		list = append(list, g.text)
	}
	return packs.NewTexts(list...)
})
