package collector

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tocsin/internal/batch"
	"tocsin/internal/collector/minimise"
	"tocsin/internal/keys"
)

// The local page: what happens here, for the member, in plain words. It listens on a loopback address only, changes nothing, runs no script,
// and loads nothing from anywhere. A page on the web can point a name of its own at 127.0.0.1, so the Host must be a literal loopback one; and
// other users of this machine can open its ports, so it wants a secret, which `tocsin-collector page` prints.

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"when": func(t time.Time) string {
		if t.IsZero() {
			return "—"
		}
		return t.Local().Format("2 Jan 2006, 15:04:05 MST") // as the portal writes it
	},
	"n":     thousands,
	"join":  func(s []string) string { return strings.Join(s, ", ") },
	"style": func() template.CSS { return template.CSS(pageStyle) },
	"text":  func(b []byte) string { return string(b) },
	"sentence": func(s string) string {
		r, n := utf8.DecodeRuneInString(s)
		return string(unicode.ToUpper(r)) + s[n:]
	},
	"size": func(n int64) string {
		if n < 1<<20 {
			return thousands(n>>10) + " KiB"
		}
		return thousands(n>>20) + " MiB"
	},
	"stateword": word(map[string]string{QuestionWaiting: "Waits for you", QuestionAllowed: "Being answered", QuestionDenied: "Denied", QuestionAnswered: "Answered", QuestionExpired: "Nobody decided in time", QuestionFailed: "Could not be answered"}),
	"consent":   word(map[string]string{ConsentAsk: "each waits for you", ConsentStanding: "answered at once, as you have set it (look_back.consent)", ConsentNever: "denied at once, as you have set it (look_back.consent)"}),
	"regime":    word(map[string]string{"uk-gdpr": "UK GDPR", "dpa2018-part3": "the Data Protection Act 2018, Part 3"}),
	"laneword":  word(map[batch.Lane]string{batch.Live: "events as they happen", batch.Backlog: "events that had waited", batch.LookBack: "answers about the past", batch.Raw: "raw lines, while troubleshooting"}),
}).Parse(pageText))

// word gives what people call a value; one that has no word is shown as it is.
func word[K ~string](words map[K]string) func(K) string {
	return func(k K) string {
		if w := words[k]; w != "" {
			return w
		}
		return string(k)
	}
}

// thousands writes a number with a comma every three digits, as the portal does.
func thousands(v any) string {
	s := fmt.Sprint(v)
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func checkPage(addr string) error {
	if addr == "off" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not an address and port such as 127.0.0.1:8990, nor off", addr)
	}
	if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
		return fmt.Errorf("%q is not on this machine alone: the page listens on a loopback address such as 127.0.0.1 only; from elsewhere use ssh -L", addr)
	}
	return nil
}

// page is the running page.
type page struct {
	a      *Agent
	addr   net.Addr
	secret string
	csp    string
}

const pageCookie = "tocsin_collector"

// servePage opens the page. A page that cannot be shown is said and is no reason not to collect.
func (a *Agent) servePage() (stop func()) {
	c := &a.o.Config
	if c.Page.Listen == "off" || c.Page.Listen == "" {
		return func() {}
	}
	ln, err := net.Listen("tcp", c.Page.Listen)
	if err != nil {
		a.log.Warn("the local page is not shown", "error", portHint(err))
		return func() {}
	}
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(err) // crypto/rand does not fail on the systems Go supports
	}
	sum := sha256.Sum256([]byte(pageStyle))
	p := &page{a: a, addr: ln.Addr(), secret: hex.EncodeToString(b[:]),
		csp: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}
	srv := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 60 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	a.page.Store(p)
	go srv.Serve(ln) //nolint:errcheck // it always ends with an error, when it is closed
	a.log.Info("the local page is there; tocsin-collector page prints the address to open", "listening", ln.Addr())
	return func() { a.page.Store(nil); srv.Close() }
}

// pageURL is the address to open, with the secret that signs in; "" when there is no page.
func (a *Agent) pageURL() string {
	p := a.page.Load()
	if p == nil {
		return ""
	}
	return "http://" + p.addr.String() + "/?key=" + p.secret
}

// loopbackHost says whether a Host header names this machine literally.
func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", p.csp)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !loopbackHost(r.Host) {
		http.Error(w, "This page is for this machine alone: open it as 127.0.0.1 or localhost.", http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "This page changes nothing. What can be changed is changed with tocsin-collector on the command line.", http.StatusMethodNotAllowed)
		return
	}
	if key := r.URL.Query().Get("key"); key != "" && p.is(key) {
		http.SetCookie(w, &http.Cookie{Name: pageCookie, Value: p.secret, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
		http.Redirect(w, r, r.URL.Path, http.StatusSeeOther)
		return
	}
	if c, err := r.Cookie(pageCookie); err != nil || !p.is(c.Value) {
		http.Error(w, "To open this page run on this machine, as the user that the collector runs as: tocsin-collector page\nIt prints the address with the secret that signs in.", http.StatusUnauthorized)
		return
	}
	var err error
	switch r.URL.Path {
	case "/":
		err = p.home(w, r)
	case "/sent":
		err = p.sent(w, r)
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		p.a.log.Warn("the local page cannot be shown", "path", r.URL.Path, "error", err)
		http.Error(w, "This cannot be shown now: "+err.Error(), http.StatusInternalServerError)
	}
}

func (p *page) is(key string) bool {
	return subtle.ConstantTimeCompare([]byte(key), []byte(p.secret)) == 1
}

// pageView is what the template gets.
type pageView struct {
	Tab       string
	Title     string
	Verdict   verdict
	Stayed    uint64 // lines
	Waiting   uint64 // events that have no receipt yet
	S         *Status
	Policy    *minimise.Policy
	Config    *Config
	Kept      []reasonView
	Left      []reasonView
	Made      []reasonView
	Dropped   []reasonView
	Questions []QuestionStatus
	Batches   []batchView
	Only      string // one batch
	Older     bool   // there are older batches than those shown
	Detail    *batchView
}

// QuietAfter is how long a working firewall does not stay silent: the quietest school's gateway refuses a scan every few minutes.
const QuietAfter = 15 * time.Minute

// verdict says at a glance whether all is well, and what to do when it is not.
type verdict struct {
	Tone          string // good, warn or bad
	Heading, Text string
	Words         []string // to compare
	Detail        string   // as a program says it
}

func verdictOf(s *Status, waiting uint64) verdict {
	syslog := slices.ContainsFunc(s.Listeners, func(l ListenerStatus) bool { return l.Kind == "syslog" })
	switch {
	case s.State == "revoked":
		return verdict{Tone: "bad", Heading: "This collector was shut out", Text: "The centre takes nothing from it any more. If that was not meant, ask your contact for a new token and enrol again: what waits here will then be sent."}
	case s.Full:
		return verdict{Tone: "bad", Heading: "The disk is full", Text: "New lines wait until there is room. Make room on this machine, or lower archive.max_bytes in the settings. If there is room, the disk may be damaged: tocsin-collector doctor looks at it."}
	case s.HubTrouble != "":
		keeps := "Nothing is lost: " + thousands(waiting) + " events wait here and leave when it answers. If this lasts, run"
		if s.SpoolFull {
			keeps = thousands(waiting) + " events wait here and leave when it answers. There is no room for more of them: the least important are let go, and counted below as lost. Run"
		}
		return verdict{Tone: "bad", Heading: "The centre is not reached", Text: keeps + " tocsin-collector doctor on this machine: it looks for what is in the way.", Detail: s.HubTrouble}
	case slices.ContainsFunc(s.Warnings, func(w Warning) bool { return w.Code == "listener_failed" }):
		return verdict{Tone: "bad", Heading: "Not all lines come in", Text: "One of the ways in has stopped, and what is sent there is not taken. Start the collector again on this machine: systemctl restart tocsin-collector"}
	case s.State == "quarantined":
		return verdict{Tone: "warn", Heading: "One last step: compare these words", Text: "Open the portal's page of this collector. If it shows the same words, confirm them there. If it shows others, do not, and tell your contact.", Words: s.CheckWords}
	case s.Counts["received"] == 0 && !syslog:
		return verdict{Tone: "warn", Heading: "No lines yet", Text: "Nothing has come from the files and programs that the settings name. Run tocsin-collector doctor on this machine: it looks for what is in the way."}
	case s.Counts["received"] == 0:
		return verdict{Tone: "warn", Heading: "No lines yet", Text: "Set this machine's address as the syslog server on your firewall. If lines do not come, run tocsin-collector doctor on this machine: it looks for what is in the way."}
	case syslog && !s.LastLine.IsZero() && s.Now.Sub(s.LastLine) > QuietAfter:
		return verdict{Tone: "warn", Heading: "No lines come any more", Text: "The last one came on " + s.LastLine.Local().Format("2 January at 15:04 MST") + ". Look whether the firewall is on and still sends its log to this machine, or run tocsin-collector doctor here: it looks for what is in the way."}
	case syslog && s.LastLine.IsZero() && s.Now.Sub(s.Started) > QuietAfter:
		return verdict{Tone: "warn", Heading: "No lines since the start", Text: "The collector was started on " + s.Started.Local().Format("2 January at 15:04 MST") + ", and no line has come since; the counts below are from before. Look whether the firewall is on and still sends its log to this machine, or run tocsin-collector doctor here: it looks for what is in the way."}
	case s.State == "":
		return verdict{Tone: "warn", Heading: "The centre has not answered yet", Text: "This takes a moment after the start."}
	}
	if syslog && s.LastLine.IsZero() {
		return verdict{Tone: "good", Heading: "Started, and waiting for lines", Text: "The centre answers. No line has come since the start on " + s.Started.Local().Format("2 January at 15:04 MST") + "; what is counted below is from before."}
	}
	return verdict{Tone: "good", Heading: "Working", Text: "Lines arrive, what should leave has left, and the centre answers."}
}

type reasonView struct {
	Word, Text string
	N          uint64
}

type batchView struct {
	*SentBatch
	Events [][]byte
}

var madeTexts = map[string]string{
	"detection": "detections that a rule on this machine made", "evidence": "events behind such a detection that would have stayed",
	"look_back": "answers to questions about the past, which you allowed or denied", "raw": "raw lines that left while troubleshooting was on",
	"spool_full": "they waited so long that the spool was full", "spool_damage": "their file was damaged", "unsendable": "they were too long to be sent",
	"archive_full": "lines that were deleted before they were looked at: archive.max_bytes in the settings is too small", "archive_damage": "lines whose file was damaged",
	"udp_dropped":    "lines over UDP that came faster than this machine took them: send them over TCP, or see doctor",
	"daily_test":     "this collector's own daily test",
	"site_detection": "a rule on this machine fired on it",
}

func (p *page) home(w http.ResponseWriter, r *http.Request) error {
	v := pageView{Tab: "home", Title: "Now", S: p.a.Status(), Policy: p.a.min.Policy(), Config: &p.a.o.Config}
	v.Waiting = v.S.Waiting + v.S.Sent - v.S.Acknowledged
	v.Verdict, v.Stayed = verdictOf(v.S, v.Waiting), v.S.Counts["not_understood"]
	text := map[string]string{}
	for i := range v.Policy.Events {
		c := &v.Policy.Events[i]
		text[c.Reason()] = c.Text
	}
	for _, name := range slices.Sorted(maps.Keys(v.S.Counts)) {
		kind, word, ok := strings.Cut(name, ".")
		if name == "udp_dropped" {
			kind, word, ok = "lost", name, true
		}
		if !ok {
			continue
		}
		x := reasonView{Word: word, Text: text[word], N: v.S.Counts[name]}
		if x.Text == "" {
			base, detail, _ := strings.Cut(word, ".")
			if x.Text = madeTexts[base]; detail != "" && text[detail] != "" {
				x.Text += ": " + text[detail]
			}
		}
		switch kind {
		case "kept":
			v.Kept = append(v.Kept, x)
			v.Stayed += x.N
		case "left":
			v.Left = append(v.Left, x)
		case "made":
			v.Made = append(v.Made, x)
		case "dropped", "lost":
			v.Dropped = append(v.Dropped, x)
		}
	}
	for _, l := range [][]reasonView{v.Kept, v.Left, v.Made} {
		slices.SortStableFunc(l, func(a, b reasonView) int {
			switch {
			case a.N > b.N:
				return -1
			case a.N < b.N:
				return 1
			}
			return 0
		})
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	if err := p.a.inLoop(ctx, func() error { v.Questions = p.a.questionList(); return nil }); err != nil && !errors.Is(err, ErrEnding) {
		return err
	}
	return p.render(w, &v)
}

const shownBatches = 100

// sent shows the newest batches, or one of them with its events.
func (p *page) sent(w http.ResponseWriter, r *http.Request) error {
	v := pageView{Tab: "sent", Title: "What left", S: p.a.Status(), Policy: p.a.min.Policy(), Config: &p.a.o.Config, Only: r.URL.Query().Get("batch")}
	k, err := keys.OpenCollector(p.a.o.Config.KeyDir())
	if err != nil {
		return err
	}
	err = readSent(&p.a.o.Config, sentTail, func(b *SentBatch) (bool, error) {
		if v.Only != "" {
			if b.Digest != v.Only {
				return true, nil
			}
			x := batchView{SentBatch: b}
			if x.Events, err = b.Lines(k); err != nil {
				return false, err
			}
			v.Detail = &x
			return false, nil
		}
		v.Batches = append(v.Batches, batchView{SentBatch: b})
		if len(v.Batches) > shownBatches {
			v.Batches, v.Older = v.Batches[1:], true
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(v.Batches)
	return p.render(w, &v)
}

func (p *page) render(w http.ResponseWriter, v *pageView) error {
	var b strings.Builder
	if err := pageTemplate.Execute(&b, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, b.String()) // it fails when the browser is gone
	return nil
}
