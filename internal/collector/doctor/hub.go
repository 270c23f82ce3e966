package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/send"
	"tocsin/internal/keys"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"
)

// stepTimeout bounds each step on the way to the hub.
const stepTimeout = 5 * time.Second

// enrolment looks who this collector is, at its certificate, and at the way to the hub step by step.
func (r *run) enrolment(ctx context.Context) bool {
	e, err := r.c.Enrolment()
	if err != nil {
		r.add("enrolment", code(errors.Is(err, keys.ErrNotEnrolled), "not_enrolled", "enrolment_damaged"), Fail, err.Error(), "")
		return false
	}
	r.add("enrolment", "enrolled", OK, fmt.Sprintf("%s, %s, as %s", e.Organisation, e.Site, e.Collector), "")
	k, err := keys.OpenCollector(r.c.KeyDir())
	if err != nil {
		r.add("keys", "keys_unread", Fail, err.Error(), "Run doctor with sudo, or as the user that the collector runs as. If the keys are lost, enrol again with a new token; the centre gives you one.")
		return false
	}
	address := r.c.Hub
	if address == "" {
		address = e.Address
	}
	client, err := send.New(send.Options{Address: address, Collector: e.Collector, Version: r.o.Version, Keys: k, Timeout: 10 * time.Second, Now: r.o.Now})
	if err != nil {
		r.add("keys", "keys_unread", Fail, err.Error(), "Enrol again with a new token; the centre gives you one.")
		return false
	}
	defer client.Close()
	r.certificate(k, client)
	proxy := r.proxyFor(address)
	way := r.way(ctx, address, proxy, client)
	if !way {
		r.ownClock()
		return true
	}
	r.hub(ctx, client, e, address)
	return true
}

func code(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

func (r *run) certificate(k *keys.Collector, client *send.Client) {
	cert, err := k.Certificate()
	if err != nil {
		r.add("certificate", "certificate_unread", Fail, err.Error(), "Enrol again with a new token; the centre gives you one.")
		return
	}
	left := client.NotAfter().Sub(r.now)
	switch {
	case r.now.Before(cert.Leaf.NotBefore.Add(-time.Minute)):
		r.add("certificate", "certificate_not_yet_valid", Fail, "this collector's certificate is valid only from "+cert.Leaf.NotBefore.Local().Format(time.DateTime)+" on: this machine's clock is behind", "Set the clock and switch on time synchronisation: timedatectl set-ntp true")
	case left < 0:
		r.add("certificate", "certificate_expired", Warn, "expired on "+client.NotAfter().Local().Format(time.DateTime), "It is renewed by itself when the collector runs and reaches the hub; nothing is lost meanwhile.")
	default:
		r.add("certificate", "certificate_ok", OK, fmt.Sprintf("valid for %s more", left.Round(time.Hour)), "")
	}
}

// proxyFor is the proxy that the collector uses for the address, by the environment of the process that runs, else by our own.
func (r *run) proxyFor(address string) *url.URL {
	environ := r.o.Environ
	where := ""
	if r.status != nil {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", r.status.PID)); err == nil {
			environ, where = strings.Split(string(b), "\x00"), " in the running collector's environment"
		}
	}
	mine, theirs := proxyOf(r.o.Environ, address), proxyOf(environ, address)
	if mine != nil && theirs == nil && where != "" {
		r.add("proxy", "proxy_not_in_service", Warn, fmt.Sprintf("this shell uses the proxy %s, the running collector none", mine.Redacted()), "If the collector needs it, put HTTPS_PROXY="+mine.Redacted()+" into /etc/default/tocsin-collector and restart it.")
	}
	return theirs
}

func proxyOf(environ []string, address string) *url.URL {
	get := func(name string) (v string) {
		for _, e := range environ {
			if k, val, ok := strings.Cut(e, "="); ok && strings.EqualFold(k, name) && val != "" {
				v = val
			}
		}
		return v
	}
	c := httpproxy.Config{HTTPSProxy: get("HTTPS_PROXY"), NoProxy: get("NO_PROXY")}
	u, err := c.ProxyFunc()(&url.URL{Scheme: "https", Host: address})
	if err != nil {
		return nil
	}
	return u
}

// way goes to the hub step by step: name, TCP, proxy, TLS, the hub's key. It gives false at the first that fails.
func (r *run) way(ctx context.Context, address string, proxy *url.URL, client *send.Client) bool {
	target := address
	if proxy != nil {
		target = proxy.Host
		if proxy.Port() == "" {
			target = net.JoinHostPort(proxy.Hostname(), map[string]string{"https": "443", "http": "80"}[proxy.Scheme])
		}
	}
	whose := "the hub " + address
	if proxy != nil {
		whose = "the proxy " + proxy.Redacted()
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		r.add("hub", "hub_address", Fail, fmt.Sprintf("%q is not an address and port", target), "Correct hub in the settings.")
		return false
	}
	if net.ParseIP(host) == nil {
		dctx, cancel := context.WithTimeout(ctx, stepTimeout)
		addrs, err := net.DefaultResolver.LookupHost(dctx, host)
		cancel()
		if err != nil {
			r.nameFault(host, whose, err)
			return false
		}
		r.add("name", "name_ok", OK, fmt.Sprintf("%s is %s", host, strings.Join(addrs, ", ")), "")
	}
	dialer := net.Dialer{Timeout: stepTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		r.dialFault(target, whose, proxy, err)
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * stepTimeout))
	if proxy != nil {
		if conn, err = r.connect(ctx, conn, proxy, address); err != nil {
			return false
		}
	}
	return r.tls(ctx, conn, address, proxy, client)
}

func (r *run) nameFault(host, whose string, err error) {
	servers := 0
	if b, rerr := os.ReadFile("/etc/resolv.conf"); rerr == nil {
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(strings.TrimSpace(line), "nameserver") {
				servers++
			}
		}
	}
	var dns *net.DNSError
	switch {
	case servers == 0:
		r.add("name", "dns_none", Fail, fmt.Sprintf("the name %s of %s cannot be looked up: this machine has no DNS server", host, whose), "Name one in the network's settings (or in /etc/resolv.conf).")
	case errors.As(err, &dns) && dns.IsNotFound:
		r.add("name", "dns_not_found", Fail, fmt.Sprintf("the name %s of %s does not exist, says this machine's DNS", host, whose), "Compare the name with the token's. If it is right, let your DNS server look up names of the outside.")
	default:
		r.add("name", "dns_silent", Fail, fmt.Sprintf("the name %s of %s cannot be looked up: the DNS server does not answer", host, whose), "Look at the DNS servers in /etc/resolv.conf, and let this machine reach them (UDP and TCP port 53).")
	}
}

func (r *run) dialFault(target, whose string, proxy *url.URL, err error) {
	what, next := "tcp_failed", "Look at this machine's network."
	detail := plainNet(err)
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		what, detail, next = "tcp_refused", "nothing listens at "+target, "Nothing listens there: is the hub running, and the port right? Ask the scheme's operator."
		if proxy != nil {
			next = "Nothing listens there: is the proxy running, and HTTPS_PROXY right?"
		}
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH):
		what, detail, next = "tcp_no_route", "there is no way from this machine to "+target, "Look at this machine's address and default gateway (ip route)."
	case errors.As(err, &timeout) && timeout.Timeout():
		what, detail, next = "tcp_silent", fmt.Sprintf("no answer from %s within %s", target, stepTimeout), "Let this machine reach "+target+" (TCP, outwards) through your firewall."
	}
	r.add("hub", what, Fail, whose+": "+detail, next)
}

// connect asks the proxy for a tunnel.
func (r *run) connect(ctx context.Context, conn net.Conn, proxy *url.URL, address string) (net.Conn, error) {
	if proxy.Scheme == "https" {
		t := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname()})
		if err := t.HandshakeContext(ctx); err != nil {
			r.add("proxy", "proxy_tls", Fail, fmt.Sprintf("the proxy %s: %v", proxy.Redacted(), err), "Use http:// in HTTPS_PROXY if the proxy itself speaks no TLS; the way to the hub is encrypted either way.")
			return nil, err
		}
		conn = t
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u := proxy.User; u != nil {
		p, _ := u.Password()
		basic := http.Request{Header: http.Header{}}
		basic.SetBasicAuth(u.Username(), p)
		req.Header.Set("Proxy-Authorization", basic.Header.Get("Authorization"))
	}
	if err := req.Write(conn); err != nil {
		r.add("proxy", "proxy_failed", Fail, fmt.Sprintf("the proxy %s: %s", proxy.Redacted(), plainNet(err)), "")
		return nil, err
	}
	br := bufio.NewReader(io.LimitReader(conn, 64<<10))
	res, err := http.ReadResponse(br, req)
	if err != nil {
		r.add("proxy", "proxy_failed", Fail, fmt.Sprintf("what answers at the proxy's address %s is no HTTP proxy: %s", proxy.Redacted(), plainNet(err)), "Correct HTTPS_PROXY.")
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		r.add("proxy", "proxy_ok", OK, proxy.Redacted()+" makes the connection", "")
		return conn, nil
	}
	what, next := "proxy_refused", "Let the proxy make connections (CONNECT) to "+address+" for this machine."
	switch res.StatusCode {
	case http.StatusProxyAuthRequired:
		what, next = "proxy_sign_in", "Put user and password into HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT), or let this machine pass the proxy without signing in."
	case http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusServiceUnavailable:
		what, next = "proxy_cannot", "The proxy cannot reach the hub: look at its own way out, and whether the hub is running."
	}
	r.add("proxy", what, Fail, fmt.Sprintf("the proxy %s answers %s", proxy.Redacted(), res.Status), next)
	return nil, errors.New(res.Status)
}

// tls shakes hands and looks whether the other end is the hub.
func (r *run) tls(ctx context.Context, conn net.Conn, address string, proxy *url.URL, client *send.Client) bool {
	var issuer string
	cfg := keys.ClientConfig(client.Trust, func() *tls.Certificate { return nil })
	check := cfg.VerifyConnection
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) > 0 {
			issuer = s.PeerCertificates[0].Issuer.String()
		}
		return check(s)
	}
	err := tls.Client(conn, cfg).HandshakeContext(ctx)
	var header tls.RecordHeaderError
	switch {
	case err == nil:
		return true
	case errors.Is(err, keys.ErrNotTheHub):
		r.add("hub", "not_the_hub", Fail, fmt.Sprintf("what answers at %s is not your scheme's hub; its certificate was issued by %q", address, issuer),
			"Something on the way opens TLS (a web filter or a proxy with inspection): let "+address+" pass without inspection. If nothing does, ask the scheme's operator whether the hub has a new key.")
	case errors.As(err, &header):
		r.add("hub", "not_tls", Fail, fmt.Sprintf("what answers at %s does not speak TLS", address), "Is the port right? A captive portal or web filter may answer in the hub's place: let "+address+" pass.")
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		r.add("hub", "tls_cut", Fail, fmt.Sprintf("the connection to %s is cut as soon as TLS begins", address), "A web filter or firewall on the way refuses it: let "+address+" pass without inspection.")
	default:
		r.add("hub", "tls_failed", Fail, fmt.Sprintf("TLS with %s: %s", address, plainNet(err)), "Let "+address+" pass every web filter without inspection.")
	}
	return false
}

// hub asks the hub what it knows of this collector.
func (r *run) hub(ctx context.Context, client *send.Client, e send.Enrolment, address string) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	self, err := client.Self(ctx, false)
	expired := r.now.After(client.NotAfter())
	var p *send.Problem
	switch {
	case expired && (send.Refused(err) || errors.As(err, &p)):
		r.add("hub", "hub_refuses_expired", Warn, "the hub does not take this collector's certificate, which has expired", "Start the collector: it renews the certificate by itself.")
	case send.Refused(err) || send.CodeOf(err) == batch.CodeRevoked || err == nil && self.State == "revoked":
		r.add("hub", "revoked", Fail, "this collector has been revoked: the hub takes nothing from it any more",
			"If that was not meant, ask the centre for a new token and run: tocsin-collector enrol TOKEN --again. What waits here will then be sent.")
	case err != nil:
		r.add("hub", "hub_failed", Fail, fmt.Sprintf("%s: %s", address, plainNet(err)), "The way to the hub is open, but it does not answer as it should. Ask the scheme's operator.")
	case self.State == "quarantined":
		r.add("hub", "quarantined", Warn, "reached, but this collector is waiting to be confirmed", "Read these words to whoever opens the portal, and confirm there that it shows the same: "+strings.Join(e.CheckWords, " "))
	default:
		r.add("hub", "hub_ok", OK, "reached; state "+self.State, "")
	}
	if err != nil || self.HubTime.IsZero() {
		r.ownClock()
		return
	}
	if off := r.o.Now().Sub(self.HubTime); off.Abs() > time.Minute {
		way := "ahead of"
		if off < 0 {
			way = "behind"
		}
		r.add("clock", "clock_off", Warn, fmt.Sprintf("this machine's clock is %s %s the hub's", off.Abs().Round(time.Second), way), "Switch on time synchronisation: timedatectl set-ntp true")
	} else {
		r.add("clock", "clock_ok", OK, "agrees with the hub's", "")
	}
}

// ownClock asks the kernel whether the clock is kept right, when the hub could not be asked.
func (r *run) ownClock() {
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err != nil {
		return
	} else if state == unix.TIME_ERROR {
		r.add("clock", "clock_unsynchronised", Warn, "this machine's clock is not synchronised, says its kernel", "Switch on time synchronisation: timedatectl set-ntp true")
	}
}

// plainNet takes the address and call names out of a network error.
func plainNet(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}
