package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tool runs a stranger's program and returns all it said.
func tool(t *testing.T, stdin string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, needTool(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// OpenSSL at the gate: TLS 1.3 and nothing older, a client certificate is asked for, and with the collector's own the gate knows who it is.
func TestPeerOpenSSLAtTheGate(t *testing.T) {
	t.Parallel()
	needTool(t, "openssl")
	h := newHub(t)
	s := h.join(t)
	ask := fmt.Sprintf("GET /v1/self HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", h.gate)

	out, err := tool(t, ask, "openssl", "s_client", "-connect", h.gate, "-tls1_3", "-msg", "-ign_eof")
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, want := range []string{"TLS 1.3, Handshake [length", "CertificateRequest", "HTTP/1.1 401", "application/problem+json", `"code":"certificate_missing"`, "tocsin-collector enrol"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, err := tool(t, "", "openssl", "s_client", "-connect", h.gate, "-tls1_2"); err == nil || !strings.Contains(out, "alert protocol version") {
		t.Errorf("TLS 1.2 was not refused: %v\n%s", err, out)
	}
	out, err = tool(t, ask, "openssl", "s_client", "-connect", h.gate, "-quiet", "-ign_eof", "-cert", filepath.Join(s.dir, "keys", "tls.crt"), "-key", filepath.Join(s.dir, "keys", "tls.key"))
	if err != nil || !strings.Contains(out, "HTTP/1.1 200") || !strings.Contains(out, `"collector":"`+s.id+`"`) || !strings.Contains(out, `"state":"live"`) {
		t.Errorf("%v\n%s", err, out)
	}
	// The authority issues client certificates for single collectors and nothing else.
	out, err = tool(t, "", "openssl", "x509", "-in", filepath.Join(s.dir, "keys", "tls.crt"), "-noout", "-text")
	if err != nil || !strings.Contains(out, "TLS Web Client Authentication") || strings.Contains(out, "TLS Web Server Authentication") || strings.Contains(out, "CA:TRUE") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A member's data protection officer opens what was sent with ordinary tools, and checks that it is what was signed.
func TestPeerPlainToolsOpenABatch(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"zstd", "openssl", "sha256sum", "head", "tail"} {
		needTool(t, name)
	}
	h := newHub(t)
	c := h.join(t).collect(t)
	now := time.Now()
	var lines strings.Builder
	const n = 40
	for i := range n {
		lines.WriteString(deny(i, now) + "\n")
	}
	if err := sendTCP(c.addr, lines.String()); err != nil {
		t.Fatal(err)
	}
	c.settled(t, n)
	c.stop()

	dir := folder(t)
	events := 0
	for digest := range strings.Lines(must(t, "", "tocsin-collector", "sent", "--dir", c.dir, "--json")) {
		var b struct {
			Digest, Receipt string
			Events          int
		}
		if err := json.Unmarshal([]byte(digest), &b); err != nil {
			t.Fatal(err)
		}
		if b.Receipt != "valid" {
			t.Errorf("receipt of %s: %s", b.Digest, b.Receipt)
		}
		file := filepath.Join(dir, "batch")
		if err := os.WriteFile(file, []byte(must(t, "", "tocsin-collector", "sent", "--dir", c.dir, "--extract", b.Digest)), 0o600); err != nil {
			t.Fatal(err)
		}
		// As docs/commands.md says.
		shell := func(script string) string {
			t.Helper()
			out, err := tool(t, "", "sh", "-ec", "cd \"$0\"; "+script, dir)
			if err != nil {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
			return out
		}
		var envelope struct {
			PayloadType, Payload string
			Signatures           []struct{ Keyid, Sig string }
		}
		if err := json.Unmarshal([]byte(shell("head -n 1 batch")), &envelope); err != nil || len(envelope.Signatures) != 1 {
			t.Fatalf("%v %+v", err, envelope)
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			t.Fatal(err)
		}
		var manifest struct {
			Collector  string
			Events     int
			BodySHA256 string `json:"body_sha256"`
		}
		if err := json.Unmarshal(payload, &manifest); err != nil || manifest.Collector != c.id || manifest.Events != b.Events {
			t.Errorf("%v %+v", err, manifest)
		}
		if got := strings.Fields(shell("tail -n +2 batch > body; sha256sum body"))[0]; got != manifest.BodySHA256 {
			t.Errorf("the body's digest is %s, the manifest says %s", got, manifest.BodySHA256)
		}
		if got := strings.Fields(shell("head -n 1 batch | head -c -1 | sha256sum"))[0]; got != b.Digest {
			t.Errorf("the envelope's digest is %s, the record says %s", got, b.Digest)
		}
		body := strings.Split(strings.TrimSuffix(shell("zstd -dq < body"), "\n"), "\n")
		if !strings.HasPrefix(body[0], `{"salt":"`) || len(body) != 1+b.Events {
			t.Errorf("%d events announced, the body is\n%s", b.Events, strings.Join(body, "\n"))
		}
		for _, l := range body[1:] {
			var e map[string]any
			if err := json.Unmarshal([]byte(l), &e); err != nil || e["destination.ip"] != "198.51.100.7" || e["event.created"] == nil {
				t.Errorf("%v: %s", err, l)
			}
			events++
		}
		// The signature, with the collector's public key: DSSE's pre-authentication encoding, Ed25519.
		der, err := x509.MarshalPKIXPublicKey(c.keys.Batch().Public())
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.StdEncoding.DecodeString(envelope.Signatures[0].Sig)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{
			"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "sig": sig,
			"pae": fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(envelope.PayloadType), envelope.PayloadType, len(payload), payload),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out := shell("openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in pae -sigfile sig"); !strings.Contains(out, "Signature Verified Successfully") {
			t.Errorf("%s", out)
		}
	}
	if events != n {
		t.Errorf("%d events opened, %d lines were sent", events, n)
	}
}

// rsyslog sends a log file over UDP, TCP by lines and TCP by counts, as a relay on a member's network does; each line arrives once.
func TestPeerRsyslogSends(t *testing.T) {
	t.Parallel()
	daemon := needTool(t, "rsyslogd")
	h := newHub(t)
	c := h.join(t).collect(t)
	const n = 300
	now := time.Now()
	var b strings.Builder
	for i := range n {
		_, text, _ := strings.Cut(deny(i, now), ">") // rsyslog gives it a priority and a header of its own
		b.WriteString(text + "\n")
	}
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "fw.log"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`global(workDirectory=%q)
module(load="imfile")
input(type="imfile" File=%q Tag="fw:" ruleset="out")
ruleset(name="out") {
	action(type="omfwd" target="127.0.0.1" port=%q protocol="udp")
	action(type="omfwd" target="127.0.0.1" port=%[3]q protocol="tcp" template="RSYSLOG_ForwardFormat")
	action(type="omfwd" target="127.0.0.1" port=%[3]q protocol="tcp" TCP_Framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format")
}
`, dir, filepath.Join(dir, "fw.log"), port)
	if err := os.WriteFile(filepath.Join(dir, "rsyslog.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "-n", "-f", filepath.Join(dir, "rsyslog.conf"), "-i", filepath.Join(dir, "pid"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which Wait says
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("rsyslogd said: %s", said.String())
		}
	}()
	on, at := c.settled(t, 3*n)
	if at.NotUnderstood != 0 || at.Left["denied_inbound"] != 3*n || on.Counts["oversized"] != 0 {
		t.Errorf("on site %v; at the hub %+v", on.Counts, at)
	}
	got := query(t, h.dir, "SELECT count(), uniqExact(stream, seq, idx), uniqExact(source_port), groupUniqArray(assurance) FROM tocsin.events")
	if number(t, got[0]) != 3*n || number(t, got[1]) != 3*n || number(t, got[2]) != n {
		t.Errorf("%v", got)
	}
	if s := strings.Join(got[3:], ""); !strings.Contains(s, "udp") || !strings.Contains(s, "tcp") {
		t.Errorf("how the sender is known: %s", s)
	}
}
