// Command gen rewrites real sample lines into the templates that the demo and the load generator send.
//
//	go run ./gen -from FOLDER
//
// FOLDER holds the shared sample logs. For each device one file of templates is written to ../lines, with SOURCES.tsv, and the
// traffic mix of the UCI Internet Firewall data to ../lines/mix.tsv. Each pick below names the file and line it came from
// and every change made to it: times, addresses, ports, counters and people become @{slots} (see package sample),
// hosts and names become invented ones. The output depends on nothing else, so that running it again changes nothing.
// A line that still holds an address, e-mail address or domain that is not reserved for documentation or private use stops the run.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// pick is one template: a line of a source file with edits, or (source "") a line written here after a vendor's documentation.
type pick struct {
	name   string
	source string
	line   int
	text   string   // when source is ""
	edits  []string // pairs: regular expression, replacement (first match only)
}

type device struct {
	name  string
	about string
	picks []pick
}

// Edits shared by several picks.
var (
	// bsd turns the header's time (with or without PRI) into a slot and gives it a PRI.
	bsd = []string{`^(<\d+>)? ?[A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d`, `<@{pri}>@{bsd}`}
	// eve wraps a bare EVE object the way a sensor's syslog output does, and marks what every EVE object has.
	eve = []string{
		`^(<134>[^{]*)?\{`, `<@{pri}>@{bsd} @{host} suricata[5885]: {`,
		`"timestamp": ?"[^"]*"`, `"timestamp":"@{eve}"`,
		`"flow_id":\d+`, `"flow_id":@{seq}`,
		`"pcap_cnt":\d+,`, ``,
		`"src_ip":"[^"]*"`, `"src_ip":"@{src}"`,
		`"src_port":\d+`, `"src_port":@{sport}`,
		`"dest_ip":"[^"]*"`, `"dest_ip":"@{dst}"`,
	}
	eveFlow = []string{
		`"pkts_toserver":\d+`, `"pkts_toserver":@{spkt}`, `"pkts_toclient":\d+`, `"pkts_toclient":@{rpkt}`,
		`"bytes_toserver":\d+`, `"bytes_toserver":@{sent}`, `"bytes_toclient":\d+`, `"bytes_toclient":@{rcvd}`,
		`"start":"[^"]*"`, `"start":"@{eve}"`,
	}
	evePort = []string{`"dest_port":\d+`, `"dest_port":@{dport}`}
	sshd    = join(bsd, []string{`(@\{bsd\}) \S+ (sshd\S*)\[\d+\]`, `$1 @{host} $2[@{pid}]`})
	// sonic are the composite fields of a SonicWall line.
	sonic = []string{
		`^<\d+>([A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \S+ \S+ +)?`, `<@{pri}>`,
		`sn=\S+`, `sn=18B169EXAMPLE`, `time="[^"]*"`, `time="@{utc} UTC"`, `fw=\S+`, `fw=@{nat}`, ` n=\d+`, ` n=@{seq}`,
	}
	openSense = []string{
		`^<134>1 \S+ opnsense filterlog \d+ - \[meta sequenceId="\d+"\]`, `<@{pri}>1 @{iso} @{host} filterlog 69805 - [meta sequenceId="@{seq}"]`,
	}
)

func join(parts ...[]string) []string {
	var all []string
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

const fortiHead = `<189>date=@{date} time=@{clock} devname="@{host}" devid="FGT60FEXAMPLE01" eventtime=@{epochns} tz="+0000" `

var devices = []device{
	{"draytek", "DrayTek Vigor router", []pick{
		{name: "block", source: "constructed/draytek.log", line: 1, edits: join(bsd, []string{`12:04:51`, `@{up}`, `203\.0\.113\.77:51514->198\.51\.100\.20:3389`, `@{src}:@{sport}->@{dst}:@{dport}`, `Seq=\d+`, `Seq=@{seq}`})},
		{name: "pass", source: "constructed/draytek.log", line: 2, edits: join(bsd, []string{`12:04:53`, `@{up}`, `192\.168\.10\.31:61022->192\.0\.2\.53:53\]\[UDP\]`, `@{src}:@{sport}->@{dst}:@{dport}][@{PROTO}]`, `TLen=\d+`, `TLen=@{sent}`})},
		{name: "icmp-block", source: "constructed/draytek.log", line: 3, edits: join(bsd, []string{`12:06:14`, `@{up}`, `192\.168\.10\.31->192\.0\.2\.9`, `@{src}->@{dst}`})},
		{name: "web-block", source: "constructed/draytek.log", line: 4, edits: join(bsd, []string{`192\.168\.10\.44:50988`, `@{src}:@{sport}`, `Seq=\d+`, `Seq=@{seq}`})},
		{name: "dns-block", source: "constructed/draytek.log", line: 5, edits: join(bsd, []string{`192\.168\.10\.44:49316`, `@{src}:@{sport}`})},
	}},
	{"filterlog", "pfSense and OPNsense packet filter", []pick{
		{name: "block", source: "crowdsec/pf-logs.log", line: 2, edits: join(bsd, []string{`pfSense`, `@{host}`, `,600,0,`, `,@{id16},0,`, `10\.0\.2\.2,10\.0\.2\.15,53792,22,0,S,31552001`, `@{src},@{dst},@{sport},@{dport},0,S,@{seq}`})},
		{name: "block-udp", source: "crowdsec/pf-logs.log", line: 4, edits: join(openSense, []string{`,28579,`, `,@{id16},`, `132,212\.102\.36\.22,37\.120\.48\.198,49838,52938,112`, `132,@{src},@{dst},@{sport},@{dport},112`})},
		{name: "pass", source: "crowdsec/pf-logs.log", line: 6, edits: join(openSense, []string{`pass,in`, `pass,out`, `,35656,`, `,@{id16},`, `96\.235\.167\.197,10\.0\.0\.200,61145,51918,0,S,349929896`, `@{src},@{dst},@{sport},@{dport},0,S,@{seq}`})},
		{name: "block-syn", source: "crowdsec/pf-logs.log", line: 7, edits: join(openSense, []string{`,59064,`, `,@{id16},`, `154\.6\.147\.87,37\.120\.48\.198,48473,13680,0,S,3023053886`, `@{src},@{dst},@{sport},@{dport},0,S,@{seq}`})},
		{name: "block-v6", source: "crowdsec/pf-logs.log", line: 9, edits: join(openSense, []string{`0x0ea87`, `0x@{hex5}`, `2008:8a0:702e:ce00:acc6:c7ee:fa01:2f8a,2c02:2454:ada:d900::1738,6881,51918,73`, `@{src6},@{dst6},@{sport},@{dport},73`})},
		{name: "pass-out-udp", source: "usiem/opnsense.log", line: 1, edits: join(bsd, []string{`OPNsense\.localdomain`, `@{host}`, `,25678,`, `,@{id16},`, `192\.168\.1\.8,8\.8\.8\.8,5074,53,40`, `@{src},@{dst},@{sport},@{dport},40`})},
	}},
	{"eve", "Suricata sensor", []pick{
		{name: "flow", source: "sc4s/suricata.log", line: 2, edits: join(eve, evePort, eveFlow, []string{`"end":"[^"]*"`, `"end":"@{eve}"`, `"proto":"TCP","app_proto":"http",`, `"proto":"TCP",`, `"metadata":\{"flowbits":\["http.dottedquadhost"\]\},`, ``})},
		{name: "dns", source: "sc4s/suricata.log", line: 3, edits: join(eve, evePort, []string{`monitoring\.us-west-2\.amazonaws\.com`, `updates.example.com`, `"id":\d+`, `"id":@{id16}`})},
		{name: "http", source: "sc4s/suricata.log", line: 5, edits: join(eve, evePort, []string{`"metadata":\{"flowbits":\["http.dottedquadhost"\]\},`, ``, `"hostname":"[^"]*"`, `"hostname":"intranet.example.org"`, `"length":\d+`, `"length":@{rcvd}`})},
		{name: "tls", source: "sc4s/suricata.log", line: 6, edits: join(eve, evePort, []string{`monitoring\.us-west-2\.amazonaws\.com`, `mail.example.com`})},
		{name: "alert-apt", source: "suricata_eve/first-org-conf-2015.ndjson", line: 42, edits: join(eve, evePort, eveFlow, []string{`se\.archive\.ubuntu\.com`, `archive.example.org`})},
		{name: "alert-irc", source: "suricata_eve/wrccdc-2017.ndjson", line: 1, edits: join(eve, evePort, eveFlow)},
		{name: "alert-masscan", source: "suricata_eve/first-org-conf-2015.ndjson", line: 62, edits: join(eve, evePort, eveFlow, []string{`masscan/1\.0 \(\S+\)`, `masscan/1.0`})},
		{name: "alert-sshscan", source: "suricata_eve/first-org-conf-2015.ndjson", line: 1, edits: join(eve, eveFlow)},
		{name: "alert-eternalblue", source: "suricata_eve/wrccdc-2018.ndjson", line: 118, edits: join(eve, eveFlow)},
	}},
	{"fortigate", "Fortinet FortiGate firewall and SSL VPN", []pick{
		{name: "perf", source: "sc4s/fortinet_ngfw.log", line: 1, edits: []string{`^<134> Apr 25 15:27:08 fortigate date=\S+ time=\S+ devname=\S+ devid=\S+`, `<189>date=@{date} time=@{clock} devname="@{host}" devid="FGT60FEXAMPLE01" eventtime=@{epochns} tz="+0000"`, `setuprate=2`, `setuprate=@{pid}`}},
		{name: "sniffer", source: "sc4s/fortinet_ngfw.log", line: 2, edits: []string{`^<134> Apr 25 15:27:08 fortigate date=\S+ time=\S+ devname=\S+ devid=\S+`, `<189>date=@{date} time=@{clock} devname="@{host}" devid="FGT60FEXAMPLE01" eventtime=@{epochns} tz="+0000"`, `srcip=\S+`, `srcip=@{src6}`, `dstip=\S+`, `dstip=ff02::1:ff00:1`, `sessionid=\d+`, `sessionid=@{seq}`}},
		{name: "web", source: "sc4s/fortinet_ngfw.log", line: 3, edits: []string{`^<134> Apr 25 15:27:08 fortigate date=\S+ time=\S+ devname=\S+ devid=\S+`, `<189>date=@{date} time=@{clock} devname="@{host}" devid="FGT60FEXAMPLE01" eventtime=@{epochns} tz="+0000"`, `sessionid=\d+`, `sessionid=@{seq}`, `srcip=\S+ srcport=\d+`, `srcip=@{src} srcport=@{sport}`, `dstip=\S+ dstport=\d+`, `dstip=@{dst} dstport=@{dport}`, `popo\.wan\.ijinshan\.com`, `www.example.com`, `url="[^"]*"`, `url="/launch?page=@{pid}"`, `sentbyte=\d+ rcvdbyte=\d+`, `sentbyte=@{sent} rcvdbyte=@{rcvd}`}},
		{name: "close", text: fortiHead + `logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=@{src} srcport=@{sport} srcintf="internal" srcintfrole="lan" dstip=@{dst} dstport=@{dport} dstintf="wan1" dstintfrole="wan" srccountry="Reserved" dstcountry="Reserved" sessionid=@{seq} proto=@{proto} action="close" policyid=4 policytype="policy" policyname="lan-out" service="@{service}" trandisp="snat" transip=@{nat} transport=@{nport} duration=@{dur} sentbyte=@{sent} rcvdbyte=@{rcvd} sentpkt=@{spkt} rcvdpkt=@{rpkt} appcat="unscanned"`},
		{name: "deny", text: fortiHead + `logid="0000000013" type="traffic" subtype="forward" level="notice" vd="root" srcip=@{src} srcport=@{sport} srcintf="wan1" srcintfrole="wan" dstip=@{dst} dstport=@{dport} dstintf="internal" dstintfrole="lan" srccountry="Reserved" dstcountry="Reserved" sessionid=@{seq} proto=@{proto} action="deny" policyid=0 policytype="policy" service="@{service}" trandisp="noop" duration=0 sentbyte=0 rcvdbyte=0 sentpkt=0 rcvdpkt=0 appcat="unscanned" crscore=30 craction=131072 crlevel="high"`},
		{name: "vpn-fail", text: fortiHead + `logid="0101039426" type="event" subtype="vpn" level="alert" vd="root" logdesc="SSL VPN login fail" action="ssl-login-fail" tunneltype="ssl-web" tunnelid=0 remip=@{src} user="@{user}" group="N/A" dst_host="N/A" reason="sslvpn_login_permission_denied" msg="SSL user failed to logged in"`},
		{name: "vpn-up", text: fortiHead + `logid="0101039947" type="event" subtype="vpn" level="information" vd="root" logdesc="SSL VPN tunnel up" action="tunnel-up" tunneltype="ssl-tunnel" tunnelid=@{seq} remip=@{src} tunnelip=@{nat} user="@{user}" group="vpn-users" dst_host="N/A" reason="tunnel established" msg="SSL tunnel established"`},
		{name: "vpn-down", text: fortiHead + `logid="0101039948" type="event" subtype="vpn" level="information" vd="root" logdesc="SSL VPN tunnel down" action="tunnel-down" tunneltype="ssl-tunnel" tunnelid=@{seq} remip=@{src} tunnelip=@{nat} user="@{user}" group="vpn-users" dst_host="N/A" reason="N/A" duration=@{dur} sentbyte=@{sent} rcvdbyte=@{rcvd} msg="SSL tunnel shutdown"`},
	}},
	{"asa", "Cisco ASA firewall and VPN", []pick{
		{name: "built-udp", source: "sc4s/cisco_asa.log", line: 2, edits: []string{`^<134>:Apr 25 15:27:08 UTC: `, `<@{pri}>:@{asa} UTC: `, `connection \d+`, `connection @{seq}`, `for outside:\S+ \(\S+\(LOCAL\\xxxxx\)`, `for outside:@{dst}/@{dport} (@{dst}/@{dport})`, `to inside:\S+ \(\S+\) gw-test-01`, `to inside:@{src}/@{sport} (@{nat}/@{nport})`}},
		{name: "esp", source: "sc4s/cisco_asa.log", line: 3, edits: []string{`^<134> Apr 25 15:27:08: `, `<@{pri}>@{asa}: `, `0x0C190BF9`, `0x@{hex8}`, `from gw-test-01 \(user= 192\.0\.0\.1\) to 192\.0\.0\.2`, `from @{src} (user= @{src}) to @{dst}`}},
		{name: "deny-in", source: "grok_samples/firewalls.log", line: 2, edits: []string{`^ASA-2-106001`, `<@{pri}>@{asa} @{host} : %ASA-2-106001`, `192\.168\.2\.2/43803 to 10\.10\.10\.10/14322`, `@{src}/@{sport} to @{dst}/@{dport}`, `out111`, `outside`}},
		{name: "deny-udp", source: "grok_samples/firewalls.log", line: 3, edits: []string{`^ASA-2-106006`, `<@{pri}>@{asa} @{host} : %ASA-2-106006`, `192\.168\.2\.2/65020 to 10\.10\.10\.10/65021`, `@{src}/@{sport} to @{dst}/@{dport}`, `fw111`, `outside`}},
		{name: "deny-icmp", source: "grok_samples/firewalls.log", line: 4, edits: []string{`^ASA-3-106014`, `<@{pri}>@{asa} @{host} : %ASA-3-106014`, `src fw111:10\.10\.10\.10 dst fw111:10\.10\.10\.11`, `src outside:@{src} dst inside:@{dst}`}},
		{name: "deny-acl", source: "grok_samples/firewalls.log", line: 9, edits: []string{`^Deny tcp`, `<@{pri}>@{asa} @{host} : %ASA-4-106023: Deny @{proto-name}`, `outside:192\.168\.1\.1/50240 dst inside:192\.168\.1\.2/23`, `outside:@{src}/@{sport} dst inside:@{dst}/@{dport}`}},
		{name: "built-tcp", source: "grok_samples/firewalls.log", line: 14, edits: []string{`^ASA-6-302013`, `<@{pri}>@{asa} @{host} : %ASA-6-302013`, `connection \d+`, `connection @{seq}`, `outside:100\.66\.205\.104/80 \(100\.66\.205\.104/80\)`, `outside:@{dst}/@{dport} (@{dst}/@{dport})`, `inside:172\.31\.98\.44/1772 \(172\.31\.98\.44/1772\)`, `inside:@{src}/@{sport} (@{nat}/@{nport})`}},
		{name: "syn-dup", source: "grok_samples/firewalls.log", line: 23, edits: []string{`^%ASA-4-419002`, `<@{pri}>@{asa} @{host} : %ASA-4-419002`, `OUTSIDE:10\.10\.66\.2/65087 to INSIDE:10\.10\.1\.6/443`, `outside:@{src}/@{sport} to inside:@{dst}/@{dport}`}},
		{name: "vpn-fail", text: `<@{pri}>@{asa} @{host} : %ASA-6-113015: AAA user authentication Rejected : reason = Invalid password : local database : user = @{user} : user IP = @{src}`},
		{name: "vpn-up", text: `<@{pri}>@{asa} @{host} : %ASA-6-113039: Group <GroupPolicy_Staff> User <@{user}> IP <@{src}> AnyConnect parent session started.`},
	}},
	{"netfilter", "Linux packet filter (iptables, ufw)", []pick{
		{name: "plain", source: "crowdsec/iptables-logs.log", line: 1, edits: join(bsd, []string{`sd-126005 kernel: \[50028442\.088484\]`, `@{host} kernel: [@{uptime}]`, `MAC=\S+`, `MAC=00:00:5e:00:53:01:00:00:5e:00:53:02:08:00`, `SRC=\S+ DST=\S+`, `SRC=@{src} DST=@{dst}`, `ID=\d+`, `ID=@{id16}`, `SPT=\d+ DPT=\d+`, `SPT=@{sport} DPT=@{dport}`})},
		{name: "drop", source: "grok_samples/firewalls.log", line: 32, edits: join(bsd, []string{` linux kernel:`, ` @{host} kernel: [@{uptime}]`, `MAC= `, `MAC=00:00:5e:00:53:01:00:00:5e:00:53:02:08:00 `, `SRC=\S+ DST=\S+`, `SRC=@{src} DST=@{dst}`, `ID=\d+`, `ID=@{id16}`, `SPT=\d+ DPT=\d+`, `SPT=@{sport} DPT=@{dport}`})},
		{name: "drop-udp", source: "grok_samples/firewalls.log", line: 30, edits: join(bsd, []string{` myth kernel:`, ` @{host} kernel: [@{uptime}]`, `MAC= `, `MAC=00:00:5e:00:53:01:00:00:5e:00:53:02:08:00 `, `SRC=\S+ DST=\S+`, `SRC=@{src} DST=@{dst}`, `ID=\d+`, `ID=@{id16}`, `SPT=\d+ DPT=\d+`, `SPT=@{sport} DPT=@{dport}`})},
		{name: "accept", source: "grok_samples/firewalls.log", line: 31, edits: join(bsd, []string{` black kernel: \[20474\.050964\]`, ` @{host} kernel: [@{uptime}]`, `MAC=\S+`, `MAC=00:00:5e:00:53:01:00:00:5e:00:53:02:08:00`, `SRC=\S+ DST=\S+`, `SRC=@{src} DST=@{dst}`, `ID=\d+`, `ID=@{id16}`, `SPT=\d+ DPT=\d+`, `SPT=@{sport} DPT=@{dport}`})},
		{name: "ufw-block", text: `<@{pri}>@{bsd} @{host} kernel: [@{uptime}] [UFW BLOCK] IN=eth0 OUT= MAC=00:00:5e:00:53:01:00:00:5e:00:53:02:08:00 SRC=@{src} DST=@{dst} LEN=40 TOS=0x00 PREC=0x00 TTL=243 ID=@{id16} PROTO=@{PROTO} SPT=@{sport} DPT=@{dport} WINDOW=1024 RES=0x00 SYN URGP=0`},
	}},
	{"sshd", "OpenSSH server", []pick{
		{name: "invalid-user", source: "crowdsec/sshd-logs.log", line: 1, edits: join(sshd, []string{`user \S+ from \S+ port \d+`, `user @{user} from @{src} port @{sport}`})},
		{name: "closed-authenticating", source: "crowdsec/sshd-logs.log", line: 6, edits: join(sshd, []string{`user \S+ \S+ port \d+`, `user @{user} @{src} port @{sport}`})},
		{name: "disconnected-invalid", source: "crowdsec/sshd-logs.log", line: 7, edits: join(sshd, []string{`user \S+ \S+ port \d+`, `user @{user} @{src} port @{sport}`})},
		{name: "no-kex", source: "crowdsec/sshd-logs.log", line: 12, edits: join(sshd, []string{`with \S+ port \d+`, `with @{src} port @{sport}`})},
		{name: "failed-password", source: "crowdsec/sshd-logs.log", line: 17, edits: join(sshd, []string{`user \S+ from \S+ port \d+`, `user @{user} from @{src} port @{sport}`})},
		{name: "closed", source: "crowdsec/sshd-logs.log", line: 21, edits: join(sshd, []string{`by \S+ port \d+`, `by @{src} port @{sport}`})},
		{name: "accepted", text: `<@{pri}>@{bsd} @{host} sshd[@{pid}]: Accepted publickey for @{user} from @{src} port @{sport} ssh2: ED25519 SHA256:EXAMPLEexampleEXAMPLEexampleEXAMPLEexample0`},
	}},
	{"cef", "UniFi gateway (CEF)", []pick{
		{name: "admin", source: "crowdsec/unifi-cef.log", line: 1, edits: []string{`^CEF:`, `<@{pri}>@{bsd} @{host} CEF:`, `UNIFIhost=Unifi Dream Machine`, `UNIFIhost=@{host}`, `UNIFIadmin=Secure Admin src=\S+`, `UNIFIadmin=@{user} src=@{src}`, `UNIFIutcTime=\S+`, `UNIFIutcTime=@{zulu}`, `msg=Secure Admin`, `msg=@{user}`, `Source IP: \S+`, `Source IP: @{src}`}},
		{name: "blocked", source: "crowdsec/unifi-cef.log", line: 3, edits: join(bsd, []string{`Express-7`, `@{host}`, `src=\S+ spt=\d+ dpt=\d+`, `src=@{src} spt=@{sport} dst=@{dst} dpt=@{dport}`, `UNIFIhost=Express 7`, `UNIFIhost=@{host}`, `UNIFIdeviceMac=\S+ UNIFIdeviceName=Express 7`, `UNIFIdeviceMac=00:00:5e:00:53:10 UNIFIdeviceName=@{host}`, `UNIFIdeviceIp=\S+`, `UNIFIdeviceIp=192.168.0.1`, `UNIFIdstClientAlias=DS920\+ macvlan UNIFIdstClientMac=\S+`, `UNIFIdstClientAlias=nas-office UNIFIdstClientMac=00:00:5e:00:53:11`, `UNIFIflowStartTime=Oct 26, 2025 at 7:59:41\.239 PM`, `UNIFIflowStartTime=@{utc}`, `UNIFIipsSessionId=\d+`, `UNIFIipsSessionId=@{seq}`, `UNIFIutcTime=\S+`, `UNIFIutcTime=@{zulu}`, `from 198\.51\.100\.10 to DS920\+ macvlan`, `from @{src} to nas-office`})},
	}},
	{"sonicwall", "SonicWall firewall (key=value)", []pick{
		{name: "web", source: "usiem/sonicwall.log", line: 4, edits: join(sonic, []string{`src=\S+`, `src=@{src}:@{sport}:X0`, `dst=\S+`, `dst=@{dst}:@{dport}:X1`, `srcMac=\S+ dstMac=\S+`, `srcMac=00:00:5e:00:53:20 dstMac=00:00:5e:00:53:21`, `sent=\d+ rcvd=\d+`, `sent=@{sent} rcvd=@{rcvd}`, `www\.suntrust\.com`, `www.example.com`})},
		{name: "closed", source: "sc4s/dell_sonicwall.log", line: 1, edits: join(sonic, []string{`src=\S+`, `src=@{src}:@{sport}:X0`, `dst=\S+`, `dst=@{dst}:@{dport}:X1`, `proto=udp/dns`, `proto=@{proto-name}/@{dport}`, `sent=\d+ rcvd=\d+`, `sent=@{sent} rcvd=@{rcvd}`, ` vpnpolicy="[^"]*"`, ``})},
	}},
}

func main() {
	from := flag.String("from", "", "folder of the shared sample logs")
	out := flag.String("out", "lines", "folder to write")
	flag.Parse()
	if err := run(*from, *out); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(from, out string) error {
	if from == "" {
		return errors.New("-from is needed: the folder of the shared sample logs")
	}
	licences, err := readIndex(filepath.Join(from, "index.tsv"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	var sources bytes.Buffer
	sources.WriteString("file\tsource\tcommit\tlicence\tchanges\n")
	for _, d := range devices {
		var b bytes.Buffer
		fmt.Fprintf(&b, "# %s. Written by gen from the sources named in SOURCES.tsv; do not edit.\n# name, tab, template\n", d.about)
		for _, p := range d.picks {
			text, err := p.rewrite(from)
			if err == nil {
				err = check(text)
			}
			if err != nil {
				return fmt.Errorf("%s %s: %w", d.name, p.name, err)
			}
			fmt.Fprintf(&b, "%s\t%s\n", p.name, text)
			origin, licence, changes := "this project, after the vendor's documented format", "CC0-1.0", "written, not captured; invented names and addresses"
			if p.source != "" {
				l, ok := licences[p.source]
				if !ok {
					return fmt.Errorf("%s is not in index.tsv", p.source)
				}
				origin, licence = fmt.Sprintf("%s, %s line %d", l[1], p.source, p.line), l[0]
				changes = "times, addresses, ports and counters became slots; hosts and people became invented names"
			}
			fmt.Fprintf(&sources, "%s.tmpl\t%s (template %s)\tnot recorded by the shared samples of November 2026\t%s\t%s\n", d.name, origin, p.name, licence, changes)
		}
		if err := os.WriteFile(filepath.Join(out, d.name+".tmpl"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	mix, err := readMix(filepath.Join(from, "uci_internet_firewall", "log2.csv.gz"))
	if err != nil {
		return err
	}
	fmt.Fprintf(&sources, "mix.tsv\tF. Ertam, UCI Machine Learning Repository 542, Internet Firewall Data\tnot recorded by the shared samples of November 2026\tCC-BY-4.0\tevery 16th session that names a port; columns destination port, action, bytes sent, bytes received, packets sent, packets received, seconds\n")
	if err := os.WriteFile(filepath.Join(out, "mix.tsv"), mix, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "SOURCES.tsv"), sources.Bytes(), 0o644)
}

func (p pick) rewrite(from string) (string, error) {
	text := p.text
	if p.source != "" {
		b, err := os.ReadFile(filepath.Join(from, p.source))
		if err != nil {
			return "", err
		}
		lines := strings.Split(string(b), "\n")
		if p.line > len(lines) {
			return "", fmt.Errorf("%s has only %d lines", p.source, len(lines))
		}
		text = strings.TrimSpace(lines[p.line-1])
	}
	for i := 0; i < len(p.edits); i += 2 {
		re, err := regexp.Compile(p.edits[i])
		if err != nil {
			return "", err
		}
		at := re.FindStringSubmatchIndex(text)
		if at == nil {
			if p.edits[i+1] == "" {
				continue // nothing to remove
			}
			return "", fmt.Errorf("%s:%d: no match for %s in %s", p.source, p.line, p.edits[i], text)
		}
		// @{slot} holds no $ that Expand would take for a group, but its braces must not follow one: ${1} is never used.
		text = text[:at[0]] + string(re.ExpandString(nil, p.edits[i+1], text, at)) + text[at[1]:]
	}
	return text, nil
}

var (
	// mac is a run of Ethernet addresses from the documentation range of RFC 7042 (and, in netfilter's way, the type after two of them).
	mac     = regexp.MustCompile(`\b(00:00:5e:00:53:[0-9a-f]{2}:?)+(08:00)?`)
	slot    = regexp.MustCompile(`@\{[A-Za-z0-9-]+\}`)
	anyMAC  = regexp.MustCompile(`(?i)\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`)
	ipv4    = regexp.MustCompile(`\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b`)
	ipv6    = regexp.MustCompile(`\b[0-9a-f]{1,4}(:[0-9a-f]{0,4}){2,7}\b`)
	domains = regexp.MustCompile(`\b[a-z0-9-]+(\.[a-z0-9-]+)*\.(com|net|org|edu|gov|uk|cn|de|io|local|localdomain)\b`)
	mail    = regexp.MustCompile(`[\w.]+@[\w.]+\.\w+`)
)

// check refuses a template that still holds something of somebody's.
func check(text string) error {
	bare := mac.ReplaceAllString(slot.ReplaceAllString(text, " "), " ")
	if anyMAC.MatchString(bare) {
		return fmt.Errorf("an Ethernet address is left in %s", text)
	}
	for _, s := range ipv4.FindAllString(bare, -1) {
		a, err := netip.ParseAddr(s)
		if err == nil && !a.IsPrivate() && a.As4()[0] < 224 && !strings.HasPrefix(s, "0.") {
			return fmt.Errorf("address %s is left in %s", s, text)
		}
	}
	for _, s := range ipv6.FindAllString(bare, -1) {
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() && !a.IsMulticast() && !a.IsUnspecified() {
			return fmt.Errorf("address %s is left in %s", s, text)
		}
	}
	for _, s := range domains.FindAllString(bare, -1) {
		if !strings.HasSuffix(s, "example.com") && !strings.HasSuffix(s, "example.org") && !strings.HasSuffix(s, "example.net") {
			return fmt.Errorf("domain %s is left in %s", s, text)
		}
	}
	if s := mail.FindString(bare); s != "" {
		return fmt.Errorf("e-mail address %s is left in %s", s, text)
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return fmt.Errorf("character %q in %s", r, text)
		}
	}
	return nil
}

// readIndex gives licence and origin of each source file.
func readIndex(path string) (map[string][2]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string][2]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		c := strings.Split(s.Text(), "\t")
		if len(c) >= 6 {
			m[c[0]+"/"+c[1]] = [2]string{c[4], c[5]}
		}
	}
	return m, s.Err()
}

// readMix keeps every 16th session: 4,000 are enough for a believable mix.
func readMix(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	c := csv.NewReader(z)
	head, err := c.Read()
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for i, h := range head {
		at[h] = i
	}
	want := []string{"Destination Port", "Action", "Bytes Sent", "Bytes Received", "pkts_sent", "pkts_received", "Elapsed Time (sec)"}
	for _, w := range want {
		if _, ok := at[w]; !ok {
			return nil, fmt.Errorf("%s: no column %q", path, w)
		}
	}
	var rows []string
	for n := 0; ; n++ {
		rec, err := c.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if n%16 != 0 {
			continue
		}
		if port, err := strconv.Atoi(rec[at["Destination Port"]]); err != nil || port == 0 {
			continue
		}
		var row []string
		for _, w := range want {
			row = append(row, strings.TrimSpace(rec[at[w]]))
		}
		rows = append(rows, strings.Join(row, "\t"))
	}
	sort.Strings(rows)
	return []byte("# destination port, action, bytes sent, bytes received, packets sent, packets received, seconds\n" + strings.Join(rows, "\n") + "\n"), nil
}
