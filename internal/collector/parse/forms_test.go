package parse

import (
	"strings"
	"testing"

	"tocsin/internal/event"
)

// TestForms reads constructed lines, one of each form that once was read wrongly or not at all, and checks what mattered in it. A field that
// is expected to be "" must not be there.
func TestForms(t *testing.T) {
	s := testSet(t)
	var e event.Event
	for _, c := range []struct{ line, want string }{
		{`<166>7432: gw: 007438: Nov 12 08:50:01.123: %SYS-6-LOGOUT: User ann has exited tty session 3(192.0.2.7)`, "user.name=ann source.ip=192.0.2.7 event.category=session"},
		{`<190>9004: Nov 12 08:50:01.123: %TCP-6-BADAUTH: No MD5 digest from 192.0.2.7(64999) to 198.51.100.2(179)`, "source.ip=192.0.2.7 source.port=64999 destination.ip=198.51.100.2 destination.port=179"},
		{`<189>Nov 12 08:50:01 sw1 2026 Nov 12 08:50:00.928 UTC: %VSHD-5-VSHD_SYSLOG_CONFIG_I: Configured from vty by ann on 192.0.2.7@pts/0`, "user.name=ann source.ip=192.0.2.7 @time=1794473400"},
		{`<166>Nov 12 08:50:01 fw %ASA-6-302022: Built director stub TCP connection for in:192.0.2.7/38540 (192.0.2.7/38540) to out:198.51.100.2/443 (198.51.100.2/443)`, "network.transport=tcp source.ip=192.0.2.7 destination.port=443 network.direction="},
		{`<166>Nov 12 08:50:01 fw %ASA-6-106102: access-list dev permitted udp for user ann outside/192.0.2.7(49721) -> inside/198.51.100.2(53) hit-cnt 1`, "user.name=ann source.ip=192.0.2.7 source.port=49721 destination.port=53 tocsin.verdict=allow"},
		{`<166>Nov 12 08:50:01 fw %ASA-6-302016: Teardown UDP connection 9 for outside:192.0.2.7/67 to NP Identity Ifc:198.51.100.2/68 duration 0:00:30 bytes 585`, "destination.ip=198.51.100.2 destination.port=68"},
		{`<166>Nov 12 08:50:01 fw %ASA-6-113039: Group staff User ann IP 192.0.2.7 AnyConnect parent session started.`, "user.name=ann source.ip=192.0.2.7 event.outcome=success"},
		{`<166>Nov 12 08:50:01 fw %ASA-6-605005: Login permitted from 192.0.2.7/6651 to inside:198.51.100.2/ssh for user "ann"`, "destination.ip=198.51.100.2 destination.port= network.protocol=ssh"},
		{`<14>1 2026-11-12T08:50:01.000Z srx RT_FLOW - RT_FLOW_SESSION_DENY [junos@192.0.2.1 source-address="192.0.2.7" source-port="1034" destination-address="198.51.100.2" destination-port="23" protocol-id="6"]`, "source.ip=192.0.2.7 destination.port=23 tocsin.verdict=deny observer.vendor=Juniper"},
		{`[**] [1:1000006:0] TCP connection [**] [Priority: 2]  11/12-08:50:01.860730 192.0.2.7:57263 -> 198.51.100.2:22 TCP TTL:127 TOS:0x0 ID:53730`, "rule.id=1000006 source.port=57263 destination.ip=198.51.100.2 network.transport=tcp @time=1794473401"},
		{`<4>Nov 12 08:50:01 r kernel: [ipv4-INP-filter-default-D]IN=eth0 OUT= SRC=192.0.2.7 DST=198.51.100.2 LEN=40 PROTO=TCP SPT=4000 DPT=22`, "observer.vendor=VyOS rule.name=ipv4-INP-filter-default-D tocsin.verdict=deny"},
		{`<4>Nov 12 08:50:01 r kernel: [wan-local-20-A]IN=eth0 OUT= SRC=192.0.2.7 DST=198.51.100.2 LEN=40 PROTO=TCP SPT=4000 DPT=22`, "tocsin.verdict=allow"},
		{`Nov 12 08:50:01 DENY: IN=eth0 OUT= SRC=192.0.2.7 DST=198.51.100.2 LEN=40 PROTO=TCP SPT=4000 DPT=22`, "tocsin.verdict=deny process.name="},
		{`<134>1 1794473401.489500682 1_2_AP_1 events type=association radio='1' client_mac='02:00:5e:10:00:07'`, "observer.product=Meraki @time=1794473401"},
		{`0000248509 3 0 2026-11-12 08:50:01.264 +00:00 0005365098 5400 NOTICE Failed-Attempt: Authentication failed, ConfigVersionId=88, Device IP Address=192.0.2.6, DestinationIPAddress=198.51.100.2, UserName=ann, Calling-Station-ID=192.0.2.7`, "observer.product=ISE event.code=5400 user.name=ann source.ip=192.0.2.7 event.outcome=failure @time=1794473401"},
		{`<134>Nov 12 08:50:01 lb haproxy[7]: 192.0.2.7:51514 [12/Nov/2026:08:50:01.123] mail mail/imap1 1/0/5007 212 -- 2/1/1/1/0 0/0`, "destination.bytes=212 http.response.status_code= network.transport=tcp"},
		{`<30>Nov 12 08:50:01 ns named[812]: timed out resolving 'www.school.example/A/IN': 198.51.100.53#53`, "dns.question.name=www.school.example observer.product=BIND"},
		{`client @0xfc886160 192.0.2.7#54298 (www.school.example): answer: www.school.example IN A +E (198.51.100.53) -> NXDOMAIN`, "source.ip=192.0.2.7 dns.question.name=www.school.example dns.response_code=NXDOMAIN"},
		{`error: maximum authentication attempts exceeded for root from 192.0.2.7 port 63758 ssh2 [preauth]`, "user.name=root source.ip=192.0.2.7 event.outcome=failure observer.product=OpenSSH"},
		{`pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=ann`, "user.name=ann source.ip=192.0.2.7"},
		{`{"event_type":"user_login_attempt","timestamp":"2026-11-12T08:50:01Z","src_ip":"192.0.2.7","success":false}`, "tocsin.format=json source.ip=192.0.2.7"},
		{`{"preview":false,"result":{"_raw":"<166>Nov 12 08:50:01 fw %ASA-4-106023: Deny tcp src out:192.0.2.7/4000 dst in:198.51.100.2/22 by access-group \"a\""}}`, "tocsin.format=asa source.ip=192.0.2.7 destination.port=22"},
		{`{"system":"x","user":{"identifier":"S-1-5-21-1-2-3-1001"},"src_ip":"192.0.2.7"}`, "user.id=S-1-5-21-1-2-3-1001 user.name="},
		{`Nov 12 08:50:01 srv sshd[5]: Connection closed by invalid user x 198.51.100.9 port 1 192.0.2.7 port 4000 [preauth]`, "source.ip=192.0.2.7 source.port=4000 event.outcome=failure"},
		{`Nov 12 08:50:01 srv sshd[5]: ROOT LOGIN REFUSED FROM 192.0.2.7 port 4000`, "user.name=root source.ip=192.0.2.7 source.port=4000 event.outcome=failure"},
		{`Nov 12 08:50:01 srv sshd[5]: Bad protocol version identification 'x from 198.51.100.9' from 192.0.2.7 port 4000`, "source.ip=192.0.2.7 source.port=4000"},
		{`Nov 12 08:50:01 srv sshd[5]: error: kex_exchange_identification: client sent invalid protocol identifier "GET / from 198.51.100.9"`, "source.ip="},
		{`Nov 12 08:50:01 srv sshd[5]: Unable to negotiate with 192.0.2.7 port 4000: no matching cipher found. Their offer: x from 198.51.100.9 [preauth]`, "source.ip=192.0.2.7"},
		{`srv sshd[5]: Failed password for invalid user x from 198.51.100.9 from 192.0.2.7 port 4000 ssh2`, "tocsin.format=sshd host.name=srv source.ip=192.0.2.7"},
		{`Nov 12 08:50:01 edge01 CEF:0|MikroTik|hAP ax^2|7.20.4|10|system,error,critical|High|dvchost=edge01 msg=login failure for user guest from 203.0.113.73 via ssh app=ssh msg=login failure for user x from 192.0.2.9 via ssh`, "user.name=guest source.ip=203.0.113.73"},
		{`Nov 12 08:50:01 error,relay=192.0.2.7,msg="535 Authentication failed."`, "observer.vendor="},
		{`Nov 12 08:50:01 cgf Block: type=FWD|proto=TCP|srcIF=eth1|srcIP=192.0.2.7|srcPort=4000|dstIP=198.51.100.2|dstPort=22|rule=r`, "observer.vendor=Barracuda tocsin.verdict=deny event.action=block process.name= host.name=cgf"},
		{`Aug 13 08:50:01 Denied CONN=WAN SRC=192.0.2.7 DST=198.51.100.2 LEN=48 PROTO=TCP SPT=4000 DPT=80`, "observer.vendor=Peplink host.name= tocsin.verdict=deny"},
		{`Nov 12 08:50:01 192.0.2.7:4000 sshd[5]: Server listening on 0.0.0.0 port 22.`, "host.name="},
		{`<4>Nov 12 08:50:02 relay01 Nov 12 08:50:01 gate01 kernel: [ipv4-FWD-filter-8-D]IN=eth0 OUT=eth1 SRC=192.0.2.7 DST=198.51.100.2 PROTO=TCP SPT=4000 DPT=22`, "host.name=gate01 tocsin.verdict=deny rule.name=ipv4-FWD-filter-8-D source.port=4000"},
		{`<38>Nov 12 08:50:02 192.0.2.3 <86>Nov 12 08:50:01 shell01 sshd[21]: Failed password for root from 192.0.2.7 port 4022 ssh2`, "host.name=shell01 source.ip=192.0.2.7 process.pid=21"},
		{`<134>1 2026-11-12T08:50:02Z relay01 - - - - Nov 12 08:50:01 gate01 filterlog[5]: 5,,,1000000103,em0,match,block,in,4,0x0,,64,12345,0,DF,6,tcp,60,192.0.2.7,198.51.100.2,4000,443,0,S,1,,1024,,`, "host.name=gate01 tocsin.verdict=deny destination.port=443"},
		{`1 2026-11-12T08:50:01.000Z srx RT_FLOW - RT_FLOW_SESSION_DENY [junos@2636.1.1.1.2.49 source-address="192.0.2.7" source-port="1034" destination-address="198.51.100.2" destination-port="23" protocol-id="6"]`, "source.ip=192.0.2.7 tocsin.verdict=deny observer.vendor=Juniper host.name=srx"},
		{`LEEF:1.0|FireEye|MPS|7.0|malware-callback|src=192.0.2.7^proto=tcp^dst=198.51.100.2^srcPort=4000^dstPort=80`, "source.ip=192.0.2.7 source.port=4000 destination.ip=198.51.100.2 network.transport=tcp"},
		{`Nov 12 08:50:01 ns1: NetScreen device_id=ns1  [Root]system-alert-00012: UDP flood! From 192.0.2.7:4000 to 198.51.100.2:53, proto UDP (zone Untrust int  eth0). Occurred 2 times. (2026-11-12 08:50:01)`, "source.ip=192.0.2.7 source.port=4000 destination.ip=198.51.100.2 destination.port=53 network.transport=udp event.kind=alert"},
		{`Nov 12 08:50:01 ns1: NetScreen device_id=ns1  [Root]system-alert-00012: Portscan! From 192.0.2.7:4000 to 198.51.100.2:53, proto UDP (zone Untrust int  eth0). Occurred 2 times.`, "source.ip=192.0.2.7 event.action=portscan"},
		{`<133>ns1: NetScreen device_id=ns1  [Root]system-notification-00257(traffic): start_time="2026-11-12 08:50:01" duration=5 policy_id=1 service=tcp/port:9007 proto=6 src zone=Untrust dst zone=Trust action=Permit sent=1 rcvd=1 src=192.0.2.7 dst=198.51.100.2 src_port=4000 dst_port=9007 src-xlated ip=192.0.2.8 port=4001 dst-xlated ip=198.51.100.3 port=9008 session_id=1`, "source.ip=192.0.2.7 destination.port=9007 source.nat.ip=192.0.2.8 source.nat.port=4001 destination.nat.ip=198.51.100.3 destination.nat.port=9008 network.protocol= observer.ingress.zone=Untrust observer.egress.zone=Trust"},
		{`snort[9]: [122:17:0] (portscan) UDP-Portscan[Priority: 3]: {PROTO:255} 192.0.2.7 -> 198.51.100.2`, "source.ip=192.0.2.7 event.severity=3"},
		{`<166>Nov 12 08:50:01 fw %ASA-5-111005: 192.0.2.7 end configuration: OK`, "source.ip=192.0.2.7 event.outcome=success event.category=configuration"},
		{`<166>Nov 12 08:50:01 fw %ASA-5-111001: Begin configuration: 192.0.2.7 writing to memory`, "source.ip=192.0.2.7 event.category=configuration"},
		{`<166>Nov 12 08:50:01 fw %ASA-6-308001: console enable password incorrect for 3 tries (from 192.0.2.7)`, "source.ip=192.0.2.7 event.outcome=failure"},
		{`<166>Nov 12 08:50:01 fw %ASA-4-209005: Discard IP fragment set with more than 24 elements:  src = 192.0.2.7, dest = 198.51.100.2, proto = UDP, id = 48916`, "source.ip=192.0.2.7 destination.ip=198.51.100.2 network.transport=udp tocsin.verdict=deny"},
		{`device="SFW" date=2026-11-12 time=08:50:01 device_name="x" device_id=C1 log_id=010101600001 log_type="Firewall" log_component="Firewall Rule" log_subtype="Allowed" status="Allow" src_mac=00: 0:00: 0:00: 0 src_ip=192.0.2.7 dst_ip=198.51.100.2 protocol="TCP" src_port=4000 dst_port=443`, "source.ip=192.0.2.7 source.mac= destination.port=443"},
		{`Nov 12 08:50:01 192.0.2.1 11/12/2026:08:50:01 GMT ns1 0-PPE-0 : default SSLVPN LOGIN 4471 0 : User ann - Client_ip 192.0.2.7 - Nat_ip 198.51.100.9 - Vserver 198.51.100.2:443 - Browser_type "x"`, "source.ip=192.0.2.7 source.nat.ip=198.51.100.9 destination.ip=198.51.100.2 destination.port=443 user.name=ann event.outcome=success"},
		{`Nov 12 08:50:01 192.0.2.1 11/12/2026:08:50:01 GMT ns1 0-PPE-0 : default DNS DNS_QUERY 4471 0 : Source 192.0.2.7:4000 - Destination 198.51.100.2:53 User: ann - Domain: school.example - Category: 1 Action: DENY - Reason: x`, "source.ip=192.0.2.7 destination.port=53 user.name=ann tocsin.verdict=deny"},
		{`{"kind":"finding","name":"x","created":"2026-11-12T08:50:01Z"}`, "@time=1794473401"},
	} {
		format, _, json := oneLine(s, &e, []byte(c.line))
		e.SetString(event.TocsinFormat, format)
		for _, w := range strings.Fields(c.want) {
			name, want, _ := strings.Cut(w, "=")
			got := ""
			if name == "@time" {
				got = event.IntValue(e.Time / 1e9).Text()
			} else if k, ok := event.Lookup(name); ok {
				got = e.Text(k)
			}
			if got != want {
				t.Errorf("%s is %q, want %q: %s\n  %s", name, got, want, c.line, json)
			}
		}
	}
}
