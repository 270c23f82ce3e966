// Package firstboot is the page that the appliance shows until it belongs to a scheme: whoever stands before it types a code from its
// console and the enrolment token that the centre gave out.
//
// It serves HTTPS on the appliance's own addresses, with a certificate that the appliance made (its fingerprint stands on the console), and
// on port 80 nothing but the way there. It reads the code that it shows on the console itself and what people type; it writes the
// collector's keys and enrolment (collector.Enrol) and the settings that were asked for. After a crash it begins again with another code;
// an enrolment is done or not done. It ends by itself an hour after the enrolment.
//
// Whoever can reach the page but not the console can do nothing: every form carries the code, a code dies after ten wrong tries, and a page
// is given only to a caller who names the machine by one of its addresses, so that a web page elsewhere cannot speak with it under a name
// of its own (DNS rebinding).
package firstboot

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/keys"

	"go.yaml.in/yaml/v3"
)

// Options say where.
type Options struct {
	Config   collector.Config // Dir is the collector's folder; its listeners are shown
	Settings string           // file that gets the settings asked for; it exists already
	Version  string
	HTTPS    net.Listener
	HTTP     net.Listener // may be nil
	Console  io.Writer    // where the code is shown
	Logger   *slog.Logger
	Now      func() time.Time
	Linger   time.Duration // how long the page stays after the enrolment; default an hour
}

const (
	maxTries = 10
	maxForm  = 64 << 10
)

// server is the page. mu guards code, tries and enrolled.
type server struct {
	o        Options
	cert     *keys.Listener
	mu       sync.Mutex
	code     string
	tries    int
	enrolled bool
	words    []string
	who      string
	done     chan struct{} // closed at the enrolment
}

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var page = template.Must(template.New("page").Parse(pageHTML))

// view is what the page shows.
type view struct {
	Error               string
	Token, Name, Ranges string // as typed, after an error
	Enrolled            bool
	Who                 string
	Words               []string
	Address             string
	Ports               []string
	State               string
	Received            uint64
	Understood          uint64
	Trouble             string
	Running             bool
	Version             string
}

// Serve shows the code on the console and serves the page until ctx ends, or Linger after the enrolment.
func Serve(ctx context.Context, o Options) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Linger <= 0 {
		o.Linger = time.Hour
	}
	cert, err := keys.OpenListener(filepath.Join(o.Config.Dir, "tls"), addresses(), o.Now)
	if err != nil {
		return fmt.Errorf("first boot: %w", err)
	}
	s := &server{o: o, cert: cert, done: make(chan struct{})}
	if e, err := o.Config.Enrolment(); err == nil {
		s.enrolled, s.words, s.who = true, e.CheckWords, e.Organisation+", "+e.Site
		close(s.done)
	}
	s.newCode("")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.show)
	mux.HandleFunc("POST /{$}", s.enrol)
	mux.HandleFunc("GET /page.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		io.WriteString(w, pageCSS)
	})
	quiet := log.New(io.Discard, "", 0) // a browser that does not know the certificate is no news
	main := &http.Server{Handler: s.guard(mux), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: quiet,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.Certificate}}
	way := &http.Server{Handler: s.guard(http.HandlerFunc(s.redirect)), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: quiet}
	failed := make(chan error, 2)
	go func() { failed <- main.ServeTLS(o.HTTPS, "", "") }()
	if o.HTTP != nil {
		go func() { failed <- way.Serve(o.HTTP) }()
	}
	var after <-chan time.Time
	enrolled := s.done
	for {
		select {
		case <-enrolled:
			after, enrolled = time.After(o.Linger), nil
			continue
		case <-after:
		case <-ctx.Done():
		case err = <-failed:
		}
		break
	}
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = main.Shutdown(end)
	_ = way.Shutdown(end)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// newCode makes a code and shows it. Eight digits and ten tries: one in ten million.
func (s *server) newCode(why string) {
	n, err := rand.Int(rand.Reader, big.NewInt(100_000_000))
	if err != nil {
		panic(err) // crypto/rand does not fail on the systems Go supports
	}
	digits := fmt.Sprintf("%08d", n)
	s.code, s.tries = digits, 0
	_, port, _ := net.SplitHostPort(s.o.HTTPS.Addr().String())
	if port == "443" {
		port = ""
	} else {
		port = ":" + port
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n\n  Tocsin collector %s\n\n", s.o.Version)
	if s.enrolled {
		fmt.Fprintf(&b, "  This machine belongs to %s.\n\n", s.who)
	} else {
		if why != "" {
			fmt.Fprintf(&b, "  %s\n\n", why)
		}
		fmt.Fprint(&b, "  To connect it, open one of these pages in a web browser:\n\n")
		for _, a := range addresses() {
			if ip, err := netip.ParseAddr(a); err == nil && !ip.IsLoopback() {
				if ip.Is6() {
					a = "[" + a + "]"
				}
				fmt.Fprintf(&b, "      https://%s%s/\n", a, port)
			}
		}
		fmt.Fprintf(&b, "\n  Code:  %s %s\n\n", digits[:4], digits[4:])
		fp := s.cert.Fingerprint()
		fmt.Fprintf(&b, "  The browser will warn once: it does not know this machine's own certificate.\n  Its SHA-256 fingerprint begins with %s.\n\n", strings.ToUpper(strings.Join(pairs(fp[:16]), ":")))
	}
	io.WriteString(s.o.Console, strings.ReplaceAll(b.String(), "\n", "\r\n"))
}

func pairs(s string) (list []string) {
	for p := range slices.Chunk([]byte(s), 2) {
		list = append(list, string(p))
	}
	return list
}

// addresses are the machine's own.
func addresses() (list []string) {
	as, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range as {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	return list
}

// guard sets the headers of every answer, and turns away whoever names the machine by anything but an address of its own.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil || !ip.IsLoopback() && !slices.Contains(addresses(), ip.String()) {
			http.Error(w, "Open this page by the address that the machine's console shows.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) redirect(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	if _, port, err := net.SplitHostPort(s.o.HTTPS.Addr().String()); err == nil && port != "443" {
		host += ":" + port
	}
	http.Redirect(w, r, "https://"+host+"/", http.StatusSeeOther)
}

func (s *server) render(w http.ResponseWriter, r *http.Request, status int, v view) {
	v.Version = s.o.Version
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		v.Address, _, _ = net.SplitHostPort(local.String())
	}
	for _, p := range s.o.Config.Ports() {
		_, port, _ := net.SplitHostPort(p.Addr)
		v.Ports = append(v.Ports, strings.ToUpper(p.Network)+" "+port)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := page.Execute(w, v); err != nil {
		s.o.Logger.Debug("page", "error", err)
	}
}

func (s *server) show(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	v := view{Enrolled: s.enrolled, Words: s.words, Who: s.who}
	s.mu.Unlock()
	if v.Enrolled {
		if st, err := collector.FetchStatus(r.Context(), &s.o.Config); err == nil {
			v.Running, v.State, v.Received, v.Understood, v.Trouble = true, st.State, st.Counts["received"], st.Counts["parsed"], st.HubTrouble
		}
	}
	s.render(w, r, http.StatusOK, v)
}

// enrol takes the form. One at a time: a second one waits and then finds the machine enrolled.
func (s *server) enrol(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "The form is too long.", http.StatusRequestEntityTooLarge)
		return
	}
	v := view{Token: strings.TrimSpace(r.PostFormValue("token")), Name: strings.TrimSpace(r.PostFormValue("name")), Ranges: strings.TrimSpace(r.PostFormValue("ranges"))}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.enrolled {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	code := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, r.PostFormValue("code"))
	if subtle.ConstantTimeCompare([]byte(code), []byte(s.code)) != 1 {
		s.tries++
		v.Error = "That is not the code on this machine's console. Look at its screen again: eight digits."
		if s.tries >= maxTries {
			s.newCode("Somebody typed the code wrongly ten times. This is a new one:")
			v.Error = "The code was wrong too often. The console shows a new one now."
		}
		s.render(w, r, http.StatusForbidden, v)
		return
	}
	ranges, err := readRanges(v.Ranges)
	if err != nil {
		v.Error = err.Error()
		s.render(w, r, http.StatusBadRequest, v)
		return
	}
	if err := keepRanges(s.o.Settings, ranges); err != nil {
		s.o.Logger.Error("cannot write the settings", "error", err)
		v.Error = "The settings could not be written: " + err.Error()
		s.render(w, r, http.StatusInternalServerError, v)
		return
	}
	e, err := collector.Enrol(r.Context(), collector.EnrolOptions{Config: s.o.Config, Token: v.Token, Name: v.Name, Version: s.o.Version})
	if err != nil {
		s.o.Logger.Warn("the enrolment failed", "error", err)
		v.Error = plain(err)
		s.render(w, r, http.StatusBadGateway, v)
		return
	}
	s.o.Logger.Info("enrolled", "organisation", e.Organisation, "site", e.Site, "collector", e.Collector)
	s.enrolled, s.words, s.who = true, e.CheckWords, e.Organisation+", "+e.Site
	s.newCode("")
	close(s.done)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// plain says what went wrong in words for whoever stands before the machine.
func plain(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, keys.ErrToken):
		return "The token is not complete. Copy all of it, as the centre gave it to you."
	case errors.Is(err, keys.ErrTrustRoot), errors.Is(err, keys.ErrNotTheHub):
		return "What answers is not the hub that this token is for. The token's secret was not sent. Copy the token again; if it is right, a web filter on the way opens the connection: let the hub's address pass without inspection."
	case errors.As(err, &network):
		return "The hub was not reached (" + err.Error() + "). Let this machine reach it through your firewall, then press Connect again: the token is not used up."
	}
	return strings.ToUpper(err.Error()[:1]) + err.Error()[1:]
}

// readRanges reads the member's public addresses: separated by commas, blanks or lines.
func readRanges(text string) ([]string, error) {
	var list []string
	for _, w := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\n' || r == '\r' || r == '\t' }) {
		p, err := netip.ParsePrefix(w)
		if a, aerr := netip.ParseAddr(w); err != nil && aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a range such as 198.51.100.0/24", w)
		}
		list = append(list, p.Masked().String())
	}
	return list, nil
}

// keepRanges writes own_ranges into the settings file and leaves the rest, comments included, as it is.
func keepRanges(file string, ranges []string) error {
	if file == "" || len(ranges) == 0 {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return fmt.Errorf("%s is not a file of settings", file)
	}
	top := doc.Content[0]
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, r := range ranges {
		list.Content = append(list.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: r})
	}
	set := false
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value == "own_ranges" {
			list.LineComment, list.HeadComment = top.Content[i+1].LineComment, top.Content[i+1].HeadComment
			top.Content[i+1], set = list, true
		}
	}
	if !set {
		top.Content = append(top.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "own_ranges"}, list)
	}
	out, err := yaml.Marshal(&doc)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(out)
	if err = errors.Join(err, f.Chmod(0o640), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
