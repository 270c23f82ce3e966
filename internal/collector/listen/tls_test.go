package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/keys"
)

// site is a collector's certificate for "localhost", and a device's certificate from an authority of its own.
type site struct {
	dir    string
	server *keys.Listener
	pool   *x509.CertPool
	client tls.Certificate
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir()}
	var err error
	if s.server, err = keys.OpenListener(filepath.Join(s.dir, "tls"), []string{"localhost", "127.0.0.1"}, time.Now); err != nil {
		t.Fatal(err)
	}
	if s.pool, err = keys.ReadAuthorities(s.server.Authority()); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "firewall"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s.client = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"client.crt": {Type: "CERTIFICATE", Bytes: der}, "client.key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *site) config(t *testing.T, mutual bool) *tls.Config {
	t.Helper()
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.server.Certificate, SessionTicketsDisabled: true}
	if mutual {
		pool, err := keys.ReadAuthorities(filepath.Join(s.dir, "client.crt"))
		if err != nil {
			t.Fatal(err)
		}
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return c
}

// Both framings over TLS, with and without a client's certificate; what does not speak TLS, has no certificate or the wrong one gets nothing in.
func TestTLS(t *testing.T) {
	site := newSite(t)
	for _, mutual := range []bool{false, true} {
		srv, s := tcp(t, Options{TLS: site.config(t, mutual)}), newStore()
		start(t, srv, s)
		good := &tls.Config{RootCAs: site.pool, ServerName: "localhost"}
		if mutual {
			good.Certificates = []tls.Certificate{site.client}
		}
		c, err := tls.Dial("tcp", srv.Addr().String(), good)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "<13>by line\n11 <13>counted<13>by line again\n")
		s.wait(t, 3)
		want := ViaTLS
		if mutual {
			want = ViaMutual
		}
		if s.via != want || s.lines[1] != "<13>counted" {
			t.Errorf("%q came by %d", s.lines, s.via)
		}
		c.Close()
		refused := uint64(1)
		plain := dial(t, srv)
		fmt.Fprintf(plain, "<13>not TLS\n")
		if b, err := readAll(plain); err == nil && strings.Contains(b, "<") {
			t.Errorf("answered %q", b)
		}
		if mutual {
			other := newSite(t)
			for _, certs := range [][]tls.Certificate{nil, {other.client}} {
				c, err := tls.Dial("tcp", srv.Addr().String(), &tls.Config{RootCAs: site.pool, ServerName: "localhost", Certificates: certs})
				if err == nil { // TLS 1.3 says so with the first answer
					fmt.Fprintf(c, "<13>a stranger\n")
					_, err = readAll(c)
					c.Close()
				}
				if err == nil {
					t.Errorf("a sender with %d certificates was let in", len(certs))
				}
				refused++
			}
		}
		for deadline := time.Now().Add(5 * time.Second); srv.Stats().Handshake < refused && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if st := srv.Stats(); st.Handshake != refused || st.Lines != 3 || s.count() != 3 {
			t.Errorf("%+v, %d refusals wanted", st, refused)
		}
	}
}

func readAll(c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// rsyslogd is a real sender that follows a file, and can be stopped in order and started again.
type rsyslogd struct {
	t   *testing.T
	dir string
	bin string
	cmd *exec.Cmd
	out strings.Builder
}

func newRsyslogd(t *testing.T, need, conf string) *rsyslogd {
	t.Helper()
	r := &rsyslogd{t: t, dir: t.TempDir(), bin: "/usr/sbin/rsyslogd"}
	if _, err := os.Stat(r.bin); err != nil {
		t.Skip("SKIPPED: rsyslogd is not installed (Debian: apt-get install rsyslog); rsyslog as a sender was not tested")
	}
	if need != "" {
		if found, _ := filepath.Glob("/usr/lib/*/rsyslog/" + need); len(found) == 0 {
			t.Skip("SKIPPED: rsyslog has no TLS (Debian: apt-get install rsyslog-gnutls); rsyslog as a TLS sender was not tested")
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "rsyslog.conf"), []byte(strings.ReplaceAll(conf, "DIR", r.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Logf("rsyslogd: %.3000s", r.out.String())
		}
	})
	return r
}

func (r *rsyslogd) start() {
	r.t.Helper()
	r.cmd = exec.Command(r.bin, "-n", "-f", filepath.Join(r.dir, "rsyslog.conf"), "-i", filepath.Join(r.dir, "pid"))
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rsyslogd) stop() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Wait() // says how it ended, which for a signal is no news
	r.cmd = nil
}

// A stranger's sender over TLS: rsyslog with GnuTLS, its server authenticated by name, in both framings, with a certificate of its own. In the
// middle our side ends and begins again on the same port, and then rsyslog does. Nothing is lost; what rsyslog sends twice is logged.
func TestRsyslogTLSPeer(t *testing.T) {
	// The long form restarts either side in the middle. (Syslog has no acknowledgement: a sender that is held up between looking at its
	// connection and sending, for longer than we wait at the end, loses that.)
	n, modes, long := 1000, []string{"octet-counted"}, os.Getenv("TOCSIN_TEST_PEERS") != ""
	if long {
		n, modes = 100_000, []string{"octet-counted", "traditional"}
	}
	site := newSite(t)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			o := Options{TLS: site.config(t, true)}
			srv, s := tcp(t, o), newStore()
			addr := srv.Addr().String()
			_, port, _ := net.SplitHostPort(addr)
			peer := newRsyslogd(t, "lmnsd_gtls.so", fmt.Sprintf(`
global(workDirectory="DIR" DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile=%q DefaultNetstreamDriverCertFile=%q DefaultNetstreamDriverKeyFile=%q)
module(load="imfile" mode="inotify")
input(type="imfile" file="DIR/in.log" tag="test:" severity="info" facility="local0" PersistStateInterval="100" reopenOnTruncate="on")
action(type="omfwd" target="127.0.0.1" port=%q protocol="tcp" TCP_Framing=%q template="RSYSLOG_SyslogProtocol23Format"
	StreamDriver="gtls" StreamDriverMode="1" StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="localhost"
	action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList" queue.size="200000" queue.filename="q" queue.saveOnShutdown="on" queue.timeoutShutdown="10000")
`, site.server.Authority(), filepath.Join(site.dir, "client.crt"), filepath.Join(site.dir, "client.key"), port, mode))
			var text strings.Builder
			input := filepath.Join(peer.dir, "in.log")
			next := 0
			write := func(to int) {
				text.Reset()
				for ; next < to; next++ {
					fmt.Fprintf(&text, "message %d of a real sender with a \"quoted\" word and ünïcode\n", next)
				}
				f, err := os.OpenFile(input, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := f.WriteString(text.String()); err != nil {
					t.Fatal(err)
				}
			}
			stop := start(t, srv, s)
			write(n / 2)
			peer.start()
			if !long {
				write(n)
				s.wait(t, n)
				return
			}
			s.wait(t, n/4)
			stop()
			var err error
			for range 50 { // the kernel may still hold the port for the connection that is ending
				if srv, err = ListenTCP(addr, o); err == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err != nil {
				t.Fatal(err)
			}
			start(t, srv, s)
			s.wait(t, n/2)
			write(n * 3 / 4)
			s.wait(t, n*5/8)
			peer.stop()
			peer.start()
			s.wait(t, n*3/4)
			write(n)
			s.wait(t, n)
			seen := make([]int, n)
			for _, l := range s.lines {
				_, rest, _ := strings.Cut(l, "message ")
				var i int
				if _, err := fmt.Sscanf(rest, "%d of a real sender", &i); err != nil || i >= n || !strings.HasSuffix(l, "word and ünïcode") {
					t.Fatalf("%q", l)
				}
				seen[i]++
			}
			lost, twice := 0, 0
			for _, k := range seen {
				if k == 0 {
					lost++
				}
				twice += max(0, k-1)
			}
			if lost > 0 || s.via != ViaMutual {
				t.Errorf("%d of %d lost; came by %d", lost, n, s.via)
			}
			t.Logf("%d messages, %d sent twice by rsyslog", n, twice)
		})
	}
}
