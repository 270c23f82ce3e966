package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tocsin/internal/batch"
	"tocsin/internal/collector/listen"
)

// Status is what a running collector says of itself, as GET /status on its socket. The names under Counts are those of manifests.
type Status struct {
	Collector    string            `json:"collector"`
	Tenant       uint32            `json:"tenant"`
	Organisation string            `json:"organisation"`
	Site         string            `json:"site"`
	State        string            `json:"state"` // quarantined, live or revoked, as the hub last said; "" until it has
	CheckWords   []string          `json:"check_words"`
	Version      string            `json:"version"`
	PID          int               `json:"pid"`
	Started      time.Time         `json:"started"`
	Now          time.Time         `json:"now"`
	Policy       string            `json:"policy"`
	PolicyDigest string            `json:"policy_digest"`
	Indicators   string            `json:"indicators"` // version and digest of the set in force
	RulePack     string            `json:"rule_pack"`
	Counts       map[string]uint64 `json:"counts"`
	Sent         uint64            `json:"sent"`         // events in sealed batches, with or without a receipt
	Acknowledged uint64            `json:"acknowledged"` // events in batches with receipts
	Waiting      uint64            `json:"waiting"`      // events in the spool, not sealed
	Unreported   bool              `json:"unreported"`   // there are counts that no batch with a receipt has carried
	Backlog      bool              `json:"backlog"`      // some of what waits is in the backlog lane
	ArchiveLag   int64             `json:"archive_lag"`  // bytes of raw lines not worked on yet, about
	Full         bool              `json:"full"`         // lines are waiting for room on the disk
	HubTrouble   string            `json:"hub_trouble"`  // why the hub is not reached; "" when it answers
	Interval     float64           `json:"interval_s"`
	ClockOffset  float64           `json:"clock_offset_s"` // hub's clock minus ours
	LastReceipt  time.Time         `json:"last_receipt"`
	NotAfter     time.Time         `json:"not_after"` // end of the certificate
	LastLine     time.Time         `json:"last_line"` // when the newest line of any sender was received; zero: none has been
	SpoolBytes   int64             `json:"spool_bytes"`
	SpoolFull    bool              `json:"spool_full"` // nearly: what waits is let go, or soon will be
	ArchiveBytes int64             `json:"archive_bytes"`
	BatchBytes   int64             `json:"batch_bytes"`
	Streams      []StreamStatus    `json:"streams"`
	Listeners    []ListenerStatus  `json:"listeners"`
	Senders      []SenderStatus    `json:"senders"`
	ParserPack   string            `json:"parser_pack"`
	Refusals     []Refusal         `json:"refusals,omitempty"`     // what the hub asked and was not done, newest last
	SwitchedOff  []SwitchedOff     `json:"switched_off,omitempty"` // indicators and rules that would have let too much leave
	RuleChanges  []RuleChange      `json:"rule_changes,omitempty"` // made by the centre to rules that run here
	Questions    int               `json:"questions"`              // about the past, that wait for the member
	Raw          *Troubleshooting  `json:"troubleshooting,omitempty"`
	StreamTotals []StreamTotal     `json:"stream_totals"`
	Unknown      []Unknown         `json:"unknown"` // lines that are not understood yet, by sender
	Page         string            `json:"page,omitempty"`
	Warnings     []Warning         `json:"warnings"`
}

// openQuestions counts those that wait for the member.
func (a *Agent) openQuestions() (n int) {
	for _, q := range a.questions {
		if q.State == QuestionWaiting {
			n++
		}
	}
	return n
}

// StreamStatus is where a lane stands.
type StreamStatus struct {
	Lane    batch.Lane `json:"lane"`
	Epoch   string     `json:"epoch"`
	Seq     uint64     `json:"seq"` // of the last batch with a receipt
	Pending bool       `json:"pending"`
}

// ListenerStatus is what a listener has counted since the start.
type ListenerStatus struct {
	Address string `json:"address"`
	Network string `json:"network"`
	Kind    string `json:"kind"` // syslog, files, http, beats, flows, otlp
	listen.Stats
}

// SenderStatus is what is known of a device.
type SenderStatus struct {
	Address       string    `json:"address"`
	Lines         uint64    `json:"lines"`
	NotUnderstood uint64    `json:"not_understood"`
	Changed       uint64    `json:"product_changed"`
	Products      []string  `json:"products"`
	Refused       []string  `json:"refused,omitempty"` // products that it sent after it was learnt
	Last          time.Time `json:"last"`
}

const (
	publishEvery = 100 * time.Millisecond
	shownSenders = 100
	shownUnknown = 20
)

// publish makes a new status now and then; the loop calls it.
func (a *Agent) publish() {
	now := a.o.Now()
	if !a.draining && now.Sub(a.shown) < publishEvery && a.status.Load() != nil {
		return
	}
	a.shown = now
	st := a.st
	counts := maps.Clone(st.Counts)
	a.pipe.peek(counts)
	s := &Status{
		Collector: a.id.Collector, Tenant: a.id.Tenant, Organisation: a.id.Organisation, Site: a.id.Site, CheckWords: a.id.CheckWords,
		Version: a.o.Version, PID: os.Getpid(), Started: a.began.UTC(), Now: now.UTC(), Policy: a.min.Policy().Name, PolicyDigest: a.min.Digest(), Indicators: a.setName(),
		RulePack: a.rulePack(), RuleChanges: a.pipe.changes.show(now), ParserPack: a.packs.parsers, Refusals: slices.Clone(a.packs.refusals), SwitchedOff: a.pipe.guard.list(), Questions: a.openQuestions(),
		StreamTotals: slices.Clone(st.Totals), Counts: counts, Acknowledged: st.Acknowledged, Sent: st.Acknowledged + st.sealed(), Waiting: st.waiting() + uint64(a.pipe.n),
		Unreported: a.uncounted(), Backlog: len(st.Ranges) > 0, Full: a.archive.Full() || a.noRoom.Load(), Interval: st.Interval.Seconds(), ClockOffset: st.Offset.Seconds(),
		LastReceipt: st.ReceiptTime, NotAfter: a.client.NotAfter(), SpoolBytes: a.spool.Size(), SpoolFull: a.spool.Size() > a.o.Config.Spool.MaxBytes/10*9, ArchiveBytes: a.archive.Size(), BatchBytes: a.batches.Size(),
	}
	if t := a.trouble.Load(); t != nil {
		s.HubTrouble = *t
	}
	if h := a.hub.Load(); h != nil {
		s.State = h.State
	}
	if end := a.archive.End(); a.st.Cursor.Before(end) {
		s.ArchiveLag = a.archive.Behind(a.st.Cursor)
	}
	for _, l := range a.lanes {
		s.Streams = append(s.Streams, StreamStatus{Lane: l.name, Epoch: l.st.Epoch, Seq: l.st.Seq, Pending: l.st.Pending != nil})
	}
	for i, l := range a.listeners {
		s.Listeners = append(s.Listeners, ListenerStatus{Address: a.addrs[i].String(), Network: a.addrs[i].Network(), Kind: l.kind, Stats: l.Stats()})
	}
	if p := a.page.Load(); p != nil {
		s.Page = p.addr.String()
	}
	if st.Raw != nil {
		raw := *st.Raw
		s.Raw = &raw
	}
	if s.Unknown = a.pipe.unknown.list(); len(s.Unknown) > shownUnknown {
		s.Unknown = s.Unknown[:shownUnknown]
	}
	for i, d := range a.pipe.senders.list() {
		x := d.status()
		if i < shownSenders {
			s.Senders = append(s.Senders, x)
		}
		if x.Last.After(s.LastLine) {
			s.LastLine = x.Last
		}
	}
	s.Warnings = append(slices.Clone(a.broken), a.pipe.senders.warnings()...)
	for i := range a.listeners {
		if l, ok := a.listeners[i].server.(interface{ Unfollowed() int }); ok {
			if n := l.Unfollowed(); n > 0 {
				s.Warnings = append(s.Warnings, Warning{Code: "files_not_followed", Text: fmt.Sprintf("%d log files of %s are not read: one entry follows 1,024 files at once", n, a.addrs[i]),
					Next: "In listen.files split the patterns over several entries, or name the live files and not their rotated copies."})
			}
		}
	}
	if n := counts["ledger_anew"]; n > 0 {
		s.Warnings = append(s.Warnings, Warning{Code: "ledger_anew", Text: fmt.Sprintf("the centre's ledger has begun anew (%d times so far)", n),
			Next: "That is right when the centre was restored from a copy, and only then: ask your contact at the scheme whether it was."})
	}
	a.status.Store(s)
}

// Status is the newest status, at most a fraction of a second old while the collector runs.
func (a *Agent) Status() *Status { return a.status.Load() }

// serveStatus answers on the folder's unix socket, which only the collector's own user may open.
func (a *Agent) serveStatus() (stop func(), err error) {
	path := a.o.Config.StatusSocket()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// The folder is locked by this process: a socket that is there was left by one that is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(a.Status())
	})
	a.control(mux)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	go srv.Serve(ln) //nolint:errcheck // it always ends with an error, when it is closed
	return func() { srv.Close(); os.Remove(path) }, nil
}

// A unix socket's path is at most 107 bytes. A longer one is reached through its folder's descriptor.
func socketPath(path string) (short string, done func(), err error) {
	if len(path) <= 107 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}

func listenUnix(path string) (net.Listener, error) {
	short, done, err := socketPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	ln, err := net.Listen("unix", short)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// ErrNotRunning means that no collector runs in the folder.
var ErrNotRunning = errors.New("no collector is running in this folder")

// FetchStatus asks the collector that runs in the folder.
func FetchStatus(ctx context.Context, c *Config) (*Status, error) {
	var s Status
	if err := callSocket(ctx, c, http.MethodGet, "/status", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}
