package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/doctor"
	"tocsin/internal/keys"

	"golang.org/x/sys/unix"
)

// diagnose runs the doctor of the real program and gives its findings by code.
func diagnose(t *testing.T, config string, environ []string, more ...string) (map[string]doctor.Finding, int) {
	t.Helper()
	built.Store(true)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, append([]string{"doctor", "--json", "--watch", "0", "--config", config}, more...)...)
	cmd.Env = environ
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return findings(t, out), cmd.ProcessState.ExitCode()
}

func findings(t *testing.T, out []byte) map[string]doctor.Finding {
	t.Helper()
	found := map[string]doctor.Finding{}
	for line := range bytes.Lines(out) {
		var f doctor.Finding
		if err := json.Unmarshal(line, &f); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if f.Code == "" || f.Check == "" || f.Detail == "" {
			t.Errorf("an incomplete finding: %s", line)
		}
		found[f.Code] = f
	}
	return found
}

// want demands a finding of that level whose words say what is meant.
func want(t *testing.T, found map[string]doctor.Finding, code, level string, words ...string) {
	t.Helper()
	f, ok := found[code]
	if !ok {
		t.Errorf("%s was not found: %v", code, found)
		return
	}
	if f.Level != level {
		t.Errorf("%s is %q, not %q: %+v", code, f.Level, level, f)
	}
	for _, w := range words {
		if !strings.Contains(f.Detail+" "+f.Next, w) {
			t.Errorf("%s does not say %q: %+v", code, w, f)
		}
	}
	if (level == doctor.Fail || level == doctor.Warn) && f.Next == "" && code != "enrolled" {
		t.Errorf("%s does not say what to do: %+v", code, f)
	}
}

// What keeps a collector from starting or from being heard, each situation made for real around the real program.
func TestDoctorMachine(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Doctor")
	udp, tcp := ports(t)
	config := s.writeConfig(udp, tcp)

	found, code := diagnose(t, config, nil)
	want(t, found, "not_running", doctor.Warn)
	want(t, found, "port_free", doctor.OK)
	want(t, found, "only_loopback", doctor.Warn, "0.0.0.0")
	want(t, found, "quarantined", doctor.Warn, "portal")
	if code != 0 {
		t.Errorf("nothing must be mended, but the exit code is %d: %v", code, found)
	}

	held, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", udp))
	if err != nil {
		t.Fatal(err)
	}
	found, code = diagnose(t, config, nil)
	held.Close()
	want(t, found, "port_in_use", doctor.Fail, fmt.Sprintf("process %d", os.Getpid()))
	if code != 7 {
		t.Errorf("exit code %d", code)
	}

	strange := filepath.Join(s.cfg.Dir, "strange")
	if os.Geteuid() == 0 {
		if err := os.WriteFile(strange, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(strange, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		found, code = diagnose(t, config, nil)
		want(t, found, "wrong_owner", doctor.Fail, "chown", strange)
		if code != 7 {
			t.Errorf("exit code %d", code)
		}
		os.Remove(strange)
	}

	elsewhere := s.cfg.Dir
	s.cfg.Dir = filepath.Join(t.TempDir(), "none")
	found, code = diagnose(t, s.writeConfig(udp, tcp), nil)
	want(t, found, "no_folder", doctor.Fail, "enrol")
	if code != 7 {
		t.Errorf("exit code %d", code)
	}
	s.cfg.Dir = elsewhere

	// A running collector whose settings were changed afterwards.
	c := s.spawn(config)
	up(t, s)
	udp2, _ := ports(t)
	found, code = diagnose(t, s.writeConfig(udp2, tcp), nil)
	want(t, found, "settings_changed", doctor.Fail, fmt.Sprintf("UDP 127.0.0.1:%d", udp2), "restart")
	want(t, found, "nothing_arrived", doctor.Warn, fmt.Sprintf("UDP port %d", udp2))
	if code != 7 {
		t.Errorf("exit code %d", code)
	}
	c.term()
}

// The way to the hub: name, port, proxies, inspection, certificates.
func TestDoctorWay(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Way")
	udp, tcp := ports(t)
	config := s.writeConfig(udp, tcp)
	at := func(address string) []string { return []string{"TOCSIN_COLLECTOR_HUB=" + address} }

	found, code := diagnose(t, config, at("hub.invalid:8443"))
	if _, ok := found["dns_not_found"]; !ok {
		// Without any DNS server, or with one that does not answer, the name cannot be told to be wrong.
		if _, none := found["dns_none"]; !none {
			want(t, found, "dns_silent", doctor.Fail, "resolv.conf")
		}
	}
	if code != 7 {
		t.Errorf("exit code %d", code)
	}

	_, free := ports(t)
	found, _ = diagnose(t, config, at(fmt.Sprintf("127.0.0.1:%d", free)))
	want(t, found, "tcp_refused", doctor.Fail, "is the hub running")

	// A server that speaks no TLS, one that cuts, and one that inspects.
	plain := listener(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n") })
	found, _ = diagnose(t, config, at(plain))
	want(t, found, "not_tls", doctor.Fail)
	cut := listener(t, func(c net.Conn) {
		var b [1]byte
		c.Read(b[:])
		c.(*net.TCPConn).SetLinger(0) // a reset, as filters send
	})
	found, _ = diagnose(t, config, at(cut))
	want(t, found, "tls_cut", doctor.Fail)
	dir := t.TempDir()
	if _, err := keys.CreateScheme(keys.SchemeOptions{Dir: filepath.Join(dir, "keys"), Offline: filepath.Join(dir, "offline"), Name: "Other", Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	other, err := keys.Open(filepath.Join(dir, "keys"), keys.HubTLS)
	if err != nil {
		t.Fatal(err)
	}
	cert := must(other.HubCertificate([]string{"127.0.0.1"}, time.Now()))
	inspector := listener(t, func(c net.Conn) {
		tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
	})
	found, code = diagnose(t, config, at(inspector))
	want(t, found, "not_the_hub", doctor.Fail, "without inspection")
	if code != 7 {
		t.Errorf("exit code %d", code)
	}

	// Proxies. Loopback addresses are never proxied, so the hub is named by a name that only the proxy knows.
	answer := "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
	proxy := listener(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil || req.Method != http.MethodConnect {
			return
		}
		if answer != "" {
			io.WriteString(c, answer)
			return
		}
		up, err := net.Dial("tcp", h.addr)
		if err != nil {
			return
		}
		defer up.Close()
		io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		go io.Copy(up, c)
		io.Copy(c, up)
	})
	through := []string{"TOCSIN_COLLECTOR_HUB=hub.example:8443", "HTTPS_PROXY=http://user:secret@" + proxy}
	found, _ = diagnose(t, config, through)
	want(t, found, "proxy_sign_in", doctor.Fail, "HTTPS_PROXY")
	if f := found["proxy_sign_in"]; strings.Contains(f.Detail+f.Next, "secret") {
		t.Errorf("the proxy's password is shown: %+v", f)
	}
	answer = "HTTP/1.1 403 Forbidden\r\n\r\n"
	found, _ = diagnose(t, config, through)
	want(t, found, "proxy_refused", doctor.Fail, "hub.example:8443")
	answer = "HTTP/1.1 502 Bad Gateway\r\n\r\n"
	found, _ = diagnose(t, config, through)
	want(t, found, "proxy_cannot", doctor.Fail)
	answer = ""
	found, code = diagnose(t, config, through)
	want(t, found, "proxy_ok", doctor.OK)
	want(t, found, "quarantined", doctor.Warn)
	if code != 0 {
		t.Errorf("exit code %d: %v", code, found)
	}
}

// Certificates and clocks, against the real hub, with the doctor's own clock moved.
func TestDoctorClock(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Clock")
	s.cfg.Listen.Syslog[0].UDP, s.cfg.Listen.Syslog[0].TCP = "127.0.0.1:0", ""
	visit := func(off time.Duration) map[string]doctor.Finding {
		found := map[string]doctor.Finding{}
		for _, f := range doctor.Run(context.Background(), doctor.Options{Config: &s.cfg, Version: "test", Now: func() time.Time { return time.Now().Add(off) }}) {
			found[f.Code] = f
		}
		return found
	}
	want(t, visit(0), "certificate_ok", doctor.OK)
	want(t, visit(0), "clock_ok", doctor.OK)
	want(t, visit(3*time.Minute), "clock_off", doctor.Warn, "ahead", "timedatectl")
	want(t, visit(-30*24*time.Hour), "certificate_not_yet_valid", doctor.Fail, "clock")
	want(t, visit(90*24*time.Hour), "certificate_expired", doctor.Warn)
}

// What the newest raw lines tell of each sender.
func TestDoctorSenders(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	s := newSite(t, h, "Senders")
	s.cfg.Listen.Syslog = []collector.Syslog{{UDP: "127.0.0.1:0", Timezone: "UTC"}}
	s.cfg.Listen.Flows = []collector.Flows{{UDP: "127.0.0.1:0"}}
	r := s.start()
	now := time.Now().UTC()
	n := uint64(0)
	send := func(from string, lines int, line func(int) string) {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("udp", r.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range lines {
			if _, err := io.WriteString(c, line(i)); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	send("127.0.5.1", 60, func(i int) string { return traffic("accept", "10.0.0.5", "203.0.113.9", i) })
	send("127.0.5.2", 60, func(i int) string { return traffic("deny", "203.0.113.9", "198.51.100.7", i) })
	send("127.0.5.3", 60, func(i int) string {
		return fmt.Sprintf("<86>%s gw sshd[%d]: Accepted publickey for admin from 10.0.0.9 port %d ssh2", now.Format(time.Stamp), i, 40000+i)
	})
	send("127.0.5.4", 60, func(i int) string { return vpn(true, "203.0.113.77", "someone") })
	send("127.0.5.5", 60, func(i int) string {
		return strings.Replace(traffic([]string{"deny", "accept"}[i%2], "203.0.113.9", "198.51.100.7", i), `tz="+0000"`, `tz="+0100"`, 1)
	})
	send("127.0.5.6", 60, func(i int) string { return fmt.Sprintf("<13>zzz %d qqq", i) })
	if c, err := net.Dial("udp", r.Addrs()[1].String()); err != nil {
		t.Fatal(err)
	} else if _, err = c.Write(ipfix(60, 0)); err != nil {
		t.Fatal(err)
	}
	n += 60
	r.until("all lines", func(s *collector.Status) bool { return s.Counts["received"] == n && s.ArchiveLag == 0 })
	bySender := map[string][]doctor.Finding{}
	for _, f := range doctor.Run(t.Context(), doctor.Options{Config: &s.cfg, Version: "test"}) {
		if a, ok := strings.CutPrefix(f.Check, "sender "); ok {
			bySender[a] = append(bySender[a], f)
		}
	}
	for a, w := range map[string]string{"127.0.5.1": "no_denials", "127.0.5.2": "only_denials", "127.0.5.3": "wrong_facility", "127.0.5.4": "only_events", "127.0.5.5": "device_zone", "127.0.5.6": "sender_not_understood",
		"127.0.0.1": "flows_ok"} {
		ok := false
		for _, f := range bySender[a] {
			ok = ok || f.Code == w && (f.Next != "" || f.Level == doctor.OK && len(bySender[a]) == 1)
		}
		if !ok {
			t.Errorf("%s: want %s, found %+v", a, w, bySender[a])
		}
	}
	if f := bySender["127.0.5.3"]; len(f) > 0 && !strings.Contains(f[0].Detail, "authpriv") {
		t.Errorf("the facility is not named: %+v", f)
	}
}

// A disk that is nearly full and one that is read-only, on a small file system of their own; and this machine's packet filter: in a
// namespace of their own, with the real nft and iptables, real datagrams, the real collector.
func TestDoctorNamespace(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"nft", "iptables-save", "iptables"} {
		if _, err := exec.LookPath(p); err != nil {
			if os.Getenv("TOCSIN_TEST_PEERS") != "" {
				t.Fatalf("%s is not installed", p)
			}
			t.Skipf("%s is not installed", p)
		}
	}
	h := newHub(t)
	s := newSite(t, h, "Namespace")
	built.Store(true)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	config := s.writeConfig(514, 6601)
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, bytes.ReplaceAll(b, []byte("127.0.0.1:"), []byte("0.0.0.0:")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), insideEnv+"="+bin, "TOCSIN_TEST_INSIDE_CONFIG="+config, "TOCSIN_TEST_INSIDE_DIR="+s.cfg.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		if errors := errs.String(); strings.Contains(errors, "operation not permitted") && os.Getenv("TOCSIN_TEST_PEERS") == "" {
			t.Skipf("no namespaces here: %s", errors)
		}
		t.Fatalf("%v\n%s%s", err, out, errs.String())
	}
	t.Logf("%s", errs.String())
	steps := map[string]map[string]doctor.Finding{}
	for part := range strings.SplitSeq(string(out), "== ") {
		name, rest, ok := strings.Cut(part, "\n")
		if ok {
			steps[name] = findings(t, []byte(rest))
		}
	}
	want(t, steps["no right"], "port_denied", doctor.Fail, "below 1024")
	want(t, steps["no filter"], "tcp_no_route", doctor.Fail, "192.0.2.1", "gateway")
	want(t, steps["no filter"], "port_free", doctor.OK)
	want(t, steps["nft policy"], "filter_drops", doctor.Fail, "policy of table inet filter, chain input", "nft insert rule inet filter input")
	want(t, steps["nft allowed"], "filter_ok", doctor.OK)
	if _, bad := steps["nft allowed"]["filter_drops"]; bad {
		t.Errorf("nft allowed: %v", steps["nft allowed"])
	}
	want(t, steps["nft some"], "filter_some", doctor.Warn, "address")
	want(t, steps["iptables"], "filter_drops", doctor.Fail, "iptables")
	want(t, steps["held back"], "held_back", doctor.Fail, "UDP port 514", "127.0.0.1")
	want(t, steps["held back"], "wrong_port", doctor.Fail, "UDP port 515")
	want(t, steps["nothing"], "nothing_comes", doctor.Warn)
	want(t, steps["disk full"], "disk_full", doctor.Fail, "archive.max_bytes")
	want(t, steps["read only"], "read_only", doctor.Fail, "remount")
}

const insideEnv = "TOCSIN_TEST_INSIDE"

// The test program itself, started again in its own namespaces, makes the situations and prints what the doctor found in each.
func init() {
	if bin := os.Getenv(insideEnv); bin != "" {
		os.Unsetenv(insideEnv)
		if err := inside(bin, os.Getenv("TOCSIN_TEST_INSIDE_CONFIG"), os.Getenv("TOCSIN_TEST_INSIDE_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func inside(bin, config, dir string) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	os.Setenv("TOCSIN_COLLECTOR_HUB", "192.0.2.1:8443") // there is no way to it from here
	step := func(name string, args ...string) error {
		cmd := exec.Command(bin, append([]string{"doctor", "--json", "--config", config}, args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if len(out) == 0 {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Printf("== %s\n%s", name, out)
		return nil
	}
	do := func(stdin, name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return nil
	}
	// As root without the one right.
	setpriv := exec.Command("setpriv", "--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service", bin, "doctor", "--json", "--watch", "0", "--config", config)
	out, err := setpriv.Output()
	if len(out) == 0 {
		return fmt.Errorf("setpriv: %w", err)
	}
	fmt.Printf("== no right\n%s", out)
	if err := step("no filter", "--watch", "0"); err != nil {
		return err
	}
	for _, r := range []struct{ name, rules string }{
		{"nft policy", "table inet filter {; chain input {; type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; tcp dport 22 accept; ip protocol icmp accept; }; }; "},
		{"nft allowed", "table inet filter {; chain mine {; udp dport { 514, 6514 } accept; tcp dport 6600-6700 counter accept; }; chain input {; type filter hook input priority 0; policy drop; ct state vmap { established : accept, related : accept, invalid : drop }; jump mine; }; }; "},
		{"nft some", "table inet filter {; chain input {; type filter hook input priority 0; policy drop; ip saddr 192.0.2.0/24 meta l4proto { tcp, udp } th dport { 514, 6601 } accept; }; }; "},
	} {
		if err := do("flush ruleset\n"+strings.ReplaceAll(r.rules, "; ", "\n"), "nft", "-f", "-"); err != nil {
			return err
		}
		if err := step(r.name, "--watch", "0"); err != nil {
			return err
		}
	}
	if err := do("flush ruleset", "nft", "-f", "-"); err != nil {
		return err
	}
	for _, args := range []string{"-A INPUT -i lo -p tcp -j ACCEPT", "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A INPUT -p udp -m udp --dport 514 -j REJECT"} {
		if err := do("", "iptables", strings.Fields(args)...); err != nil {
			return err
		}
	}
	if err := step("iptables", "--watch", "0"); err != nil {
		return err
	}
	// A running collector, a device that sends to it, and one that has the port wrong.
	run := exec.Command(bin, "run", "--config", config)
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := run.Start(); err != nil {
		return err
	}
	defer func() { run.Process.Kill(); run.Wait() }()
	c := collector.DefaultConfig()
	c.Dir = dir
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a poll of another process, bounded by end
		if _, err := collector.FetchStatus(context.Background(), &c); err == nil {
			break
		} else if time.Now().After(end) {
			return err
		}
	}
	if err := step("nothing", "--watch", "300ms"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		a, err := net.Dial("udp", "127.0.0.1:514")
		if err != nil {
			return
		}
		b, err := net.Dial("udp", "127.0.0.1:515")
		if err != nil {
			return
		}
		for ctx.Err() == nil {
			io.WriteString(a, traffic("deny", "203.0.113.9", "198.51.100.7", 1))
			io.WriteString(b, traffic("deny", "203.0.113.9", "198.51.100.7", 1))
			time.Sleep(20 * time.Millisecond) // a device's pace
		}
	}()
	err = step("held back", "--watch", "500ms")
	cancel()
	<-sent
	if err != nil {
		return err
	}
	run.Process.Kill()
	run.Wait()
	// Small disks.
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	held := filepath.Join(filepath.Dir(dir), "held")
	if err := os.Rename(dir, held); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m,mode=700"); err != nil {
		return fmt.Errorf("small disk: %w", err)
	}
	if err := do("", "cp", "-a", held+"/.", dir); err != nil {
		return err
	}
	if err := step("disk full", "--watch", "0"); err != nil {
		return err
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	return step("read only", "--watch", "0")
}

// loopbackUp switches the namespace's loopback interface on.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// listener serves every connection with f and closes it.
func listener(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return ln.Addr().String()
}
