// Package gate takes batches from collectors and speaks with them: enrolment, renewal, where their streams stand, the trust list, indicators.
//
// It reads HTTPS requests (TLS 1.3, client certificates of the scheme's own authority). For each batch it checks, in this order: size,
// certificate, signature, rate and share of the member, digest of the body, then the decompressed content, then its place in the stream. It
// claims the stream's next number for the batch in the records, writes the submission to the blob store, a notice to the bus, the accepted
// head to the records, and only then answers with a signed receipt.
//
// After a crash: a batch that has a receipt is durable in all three. One that has none may be in blob and bus already; the collector sends it
// again, the gate stores it again, and ledger and workers drop the second by their own heads. No other batch can take its number meanwhile:
// the claim is durable. A gate keeps no state of its own: any number may run. Rates are limited per gate.
//
// What callers may hold is bounded: handshakes being computed, connections of strangers and of each collector, requests and their memory,
// batches a second of each collector's lanes, new streams and forks that are recorded. Whoever proves nothing cannot use up what collectors
// need: renewals are limited after their signature is checked.
//
// Nothing that is refused is lost: the collector keeps it until it has a receipt. Every refusal is counted by its reason, and told to the
// collector as problem+json with what to do next. Refused batches that are evidence (forks, bodies that do not fit what was signed) are kept
// aside in the blob store, within bounds.
package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/event"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// Records are the registrations and stream heads: a *member.Store. Each call that changes something is durable on return; Claim is compare
// and set, so that of two gates with two batches under one number one wins before either is published.
type Records interface {
	Authenticate(ctx context.Context, id string, tlsKey [32]byte) (member.Registration, error)
	Registration(ctx context.Context, id string) (member.Registration, error)
	Redeem(ctx context.Context, e member.Enrolment, issue member.Issue) (member.Registration, []byte, time.Time, error)
	Renew(ctx context.Context, id string, tlsKey [32]byte, counter uint64, version string, issue member.Issue) (member.Registration, []byte, time.Time, error)
	Heads(ctx context.Context, reader, collector string) ([]member.Head, error)
	StreamEvents(ctx context.Context, collector string) (map[event.StreamID]uint64, error)
	Judge(ctx context.Context, b *member.Batch) (member.Verdict, error)
	Claim(ctx context.Context, b *member.Batch) (member.Verdict, error)
	Accept(ctx context.Context, b *member.Batch) (member.Verdict, error)
}

// RefusalNoter is implemented by Records that show the member what was refused. It is called every ten seconds with what came together.
type RefusalNoter interface {
	Refused(ctx context.Context, collector, reason string, n uint64) error
}

// Blobs keeps submissions: durable on return, called concurrently.
type Blobs interface {
	Put(ctx context.Context, b blob.Blob, data []byte) (ref string, err error)
}

// Bus carries notices: durable on return, called concurrently. An error means: not taken, try later.
type Bus interface {
	Publish(ctx context.Context, subject, id string, data []byte) (seq uint64, err error)
}

// Incident is what people should hear of: two pasts of one collector.
type Incident struct {
	Kind         string // fork or clone
	At           time.Time
	Collector    string
	Name         string
	Tenant       event.TenantID
	Organisation string
	Lane, Epoch  string
	Seq          uint64
	Have, Got    [32]byte // digests: of the accepted batch or head, and of the one that came
	Kept         string   // reference of the submission kept aside; empty if there was no room for it
	Detail       string   // plain sentence
}

// Options configure a Gate. Those without a default must be given.
type Options struct {
	Records Records
	Blobs   Blobs
	Bus     Bus

	Receipts        *keys.Signer
	CA              *keys.CA
	Certificate     tls.Certificate    // of the listener; see keys.Ring.HubCertificate
	Trust           func() *keys.Trust // the list in force
	CertificateLife time.Duration      // default keys.DefaultCertificateLife

	Checkpoint func() string                              // the ledger's newest; default: none
	Indicators func() (envelope []byte, etag string)      // the signed set in force; default: none
	Releases   string                                     // folder of the collectors' release (docs/release.md); "": none
	Pressure   func() float64                             // 0: followers keep up, 1: they are far behind; slows collectors down; default 0
	Incident   func(ctx context.Context, i Incident)      // told once of each fork and clone; default: logged only
	Accepted   func(tenant event.TenantID, batch, ev int) // told of each accepted batch; default: nothing

	// Directives gives the signed packs and questions for a collector with their proofs in the ledger, and a tag that changes with them.
	// The answer is not looked at when the tag is have, the one of the answer before. seen is the tree that the collector saw last; default: none.
	Directives func(ctx context.Context, collector, have string, seen batch.Tree) (d batch.Directives, tag string, err error)

	// DailyTest gives the number of the test that a live collector is to send through itself, or ""; default: none.
	DailyTest func(ctx context.Context, tenant event.TenantID, collector string) string

	Limits Limits
	Now    func() time.Time
	Logger *slog.Logger
}

// Limits bound what callers can take. Zero fields get defaults.
type Limits struct {
	StreamRate      float64 // batches a second of one lane of a collector, whatever its epoch; default 5
	StreamBurst     int     // default 10
	UrgentRate      float64 // urgent batches a second beyond that; default 2
	UrgentBurst     int     // default 30
	StreamsRate     float64 // new streams a second of one collector; default one a minute
	StreamsBurst    int     // default 60
	ForksRate       float64 // forks a second of one collector that are recorded, ledgered and told; default one a minute
	ForksBurst      int     // default 30
	TenantEvents    float64 // events a second of one member at this gate; an event of over 2 KiB counts as several; default 20,000
	TenantBurst     int     // default 200,000
	EnrolRate       float64 // enrolments a second, of all, and as many renewals; default 50
	EnrolBurst      int     // default 200
	CallerRate      float64 // requests to enrol or renew of one address (IPv6: /64), valid or not; default 25
	CallerBurst     int     // default 200
	Batches         int     // of one collector on their way in at once; default 16
	BodyMemory      int64   // bytes of requests being read at once; default 256 MiB
	Opening         int     // batches being decompressed at once; default 2 + processors
	Handshakes      int     // TLS handshakes being computed at once; default 64
	Pending         int     // connections that have not finished their handshake; more wait in the kernel; default 1024
	PendingPerHost  int     // of one address; default 512
	Strangers       int     // connections without a certificate of this scheme; default 1024
	StrangersPer    int     // of one address (IPv6: /64); default 128
	Connections     int     // of one collector; default 32
	TargetBatches   float64 // batches a second the pace aims at; default 250
	AsideCollector  int     // refused batches kept aside, of one collector in an hour; default 10
	AsideBytes      int64   // of all, in an hour; default 64 MiB
	HandshakeBudget time.Duration
}

func (l *Limits) defaults() {
	def(&l.StreamRate, 5)
	def(&l.StreamBurst, 10)
	def(&l.UrgentRate, 2)
	def(&l.UrgentBurst, 30)
	def(&l.StreamsRate, 1.0/60)
	def(&l.StreamsBurst, 60)
	def(&l.ForksRate, 1.0/60)
	def(&l.ForksBurst, 30)
	def(&l.TenantEvents, 20_000)
	def(&l.TenantBurst, 200_000)
	def(&l.EnrolRate, 50)
	def(&l.EnrolBurst, 200)
	def(&l.CallerRate, 25)
	def(&l.CallerBurst, 200)
	def(&l.Batches, 16)
	def(&l.BodyMemory, 256<<20)
	def(&l.Opening, 2+runtime.GOMAXPROCS(0))
	def(&l.Handshakes, 64)
	def(&l.Pending, 1024)
	def(&l.PendingPerHost, 512)
	def(&l.Strangers, 1024)
	def(&l.StrangersPer, 128)
	def(&l.Connections, 32)
	def(&l.TargetBatches, 250)
	def(&l.AsideCollector, 10)
	def(&l.AsideBytes, 64<<20)
	def(&l.HandshakeBudget, 10*time.Second)
	l.TenantBurst = max(l.TenantBurst, batch.MaxEvents) // or a full batch could never pass
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// lane is what has a rate. The epoch is not in it: a collector chooses that itself.
type lane struct {
	collector string
	tenant    event.TenantID
	lane      batch.Lane
}

// Gate is the receiving end. It is safe for concurrent use.
type Gate struct {
	o   Options
	log *slog.Logger
	mux *http.ServeMux

	memory *semaphore.Weighted
	bodies chan *batch.Body // as many as may be open at once
	ahead  chan *batch.Body // one more for what is urgent, which so waits for nothing else
	enrol  *rate.Limiter
	renew  *rate.Limiter

	streams limiters[lane]
	urgent  limiters[lane]
	opened  limiters[string] // by collector
	forks   limiters[string]
	callers limiters[string] // by address
	tenants limiters[event.TenantID]
	coming  tally[string] // batches on their way in, by collector
	locks   locks
	pace    pace
	aside   aside

	counts counts
	in     atomic.Uint64
	out    atomic.Uint64
	events atomic.Uint64
	bytes  atomic.Uint64
	again  atomic.Uint64
}

// New returns a Gate.
func New(o Options) (*Gate, error) {
	for name, missing := range map[string]bool{"Records": o.Records == nil, "Blobs": o.Blobs == nil, "Bus": o.Bus == nil, "Receipts": o.Receipts == nil, "CA": o.CA == nil,
		"Certificate": len(o.Certificate.Certificate) == 0, "Trust": o.Trust == nil} {
		if missing {
			return nil, fmt.Errorf("new gate: %s is not given", name)
		}
	}
	o.Limits.defaults()
	def(&o.CertificateLife, keys.DefaultCertificateLife)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Checkpoint == nil {
		o.Checkpoint = func() string { return "" }
	}
	if o.Indicators == nil {
		o.Indicators = func() ([]byte, string) { return nil, "" }
	}
	if o.Directives == nil {
		o.Directives = func(context.Context, string, string, batch.Tree) (batch.Directives, string, error) {
			return batch.Directives{}, "", nil
		}
	}
	if o.Pressure == nil {
		o.Pressure = func() float64 { return 0 }
	}
	if o.Incident == nil {
		o.Incident = func(context.Context, Incident) {}
	}
	if o.Accepted == nil {
		o.Accepted = func(event.TenantID, int, int) {}
	}
	l := o.Limits
	g := &Gate{
		o: o, log: o.Logger.With("stage", "gate"), mux: http.NewServeMux(),
		memory: semaphore.NewWeighted(l.BodyMemory), bodies: make(chan *batch.Body, l.Opening), ahead: make(chan *batch.Body, 1), enrol: rate.NewLimiter(rate.Limit(l.EnrolRate), l.EnrolBurst),
		renew: rate.NewLimiter(rate.Limit(l.EnrolRate), l.EnrolBurst),
	}
	for range l.Opening {
		g.bodies <- new(batch.Body)
	}
	g.ahead <- new(batch.Body)
	g.streams.set(l.StreamRate, l.StreamBurst)
	g.urgent.set(l.UrgentRate, l.UrgentBurst)
	g.opened.set(l.StreamsRate, l.StreamsBurst)
	g.forks.set(l.ForksRate, l.ForksBurst)
	g.callers.set(l.CallerRate, l.CallerBurst)
	g.tenants.set(l.TenantEvents, l.TenantBurst)
	g.aside.limits(l.AsideCollector, l.AsideBytes)
	g.pace.target = l.TargetBatches
	g.mux.HandleFunc("GET /v1/statement", g.statement)
	g.mux.HandleFunc("GET /v1/directives", g.directives)
	g.mux.HandleFunc("GET /v1/trust", g.trust)
	g.mux.HandleFunc("POST /v1/enrol", g.enrolment)
	g.mux.HandleFunc("POST /v1/renew", g.renewal)
	g.mux.HandleFunc("POST /v1/batches", g.batches)
	g.mux.HandleFunc("GET /v1/streams", g.heads)
	g.mux.HandleFunc("GET /v1/indicators", g.indicators)
	g.mux.HandleFunc("GET /v1/self", g.self)
	g.mux.HandleFunc("GET /v1/releases/{name}", g.releases)
	g.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		g.refuse(w, r, "", &problem{http.StatusNotFound, batch.Problem{Code: "no_such_address", Title: "There is nothing here", Detail: fmt.Sprintf("The collectors' interface has no %s %.100s.", r.Method, r.URL.Path),
			Next: "If this came from a collector, its version does not fit the hub's: upgrade the older of the two. People use the portal, at another address."}})
	})
	return g, nil
}

// Stats are counts since New.
type Stats struct {
	In      uint64            // batches that came
	Out     uint64            // batches accepted
	Repeats uint64            // batches that were accepted before and got their receipt again
	Events  uint64            // in accepted batches
	Bytes   uint64            // of accepted submissions
	Refused map[string]uint64 // by reason, of all requests
	Active  int               // collectors heard of in the last minute
}

// Stats returns the counts.
func (g *Gate) Stats() Stats {
	return Stats{In: g.in.Load(), Out: g.out.Load(), Repeats: g.again.Load(), Events: g.events.Load(), Bytes: g.bytes.Load(), Refused: g.counts.all(), Active: g.pace.active(g.o.Now())}
}

// Refused returns what was refused of one collector since New, by reason.
func (g *Gate) Refused(collector string) map[string]uint64 { return g.counts.of(collector) }

// Handler returns the HTTP interface. It must be served with TLS: requests without a TLS state are refused. Use [Gate.Serve] outside of tests.
func (g *Gate) Handler() http.Handler { return g.mux }

// TLSConfig returns the listener's TLS settings. A revoked collector is cut off in the handshake.
func (g *Gate) TLSConfig() *tls.Config {
	return keys.ServerConfig(keys.ServerOptions{Certificate: g.o.Certificate, CA: g.o.CA.Certificate(), Now: g.o.Now, Check: func(p keys.Peer) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r, err := g.o.Records.Registration(ctx, p.Collector)
		if err != nil {
			return nil // unknown, or the records are away: the request itself is told which
		}
		if r.State == member.Revoked {
			g.counts.add(p.Collector, "revoked")
			return member.ErrRevoked
		}
		return nil
	}})
}

// Serve answers requests on ln (a plain TCP listener) until ctx is done; then it finishes what it has begun, within ten seconds.
func (g *Gate) Serve(ctx context.Context, ln net.Listener) error {
	hl := newHandshaker(ln, g.TLSConfig(), g.o.Limits, g.collector, func(reason string) { g.counts.add("", reason) })
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
				w.Header().Set("Connection", "close") // who shows no certificate has one thing to ask
			}
			g.mux.ServeHTTP(w, r)
		}), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug), // strangers' broken requests are theirs
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, new(peer))
		},
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { g.noteRefusals(stop) })
	wg.Go(func() {
		<-stop.Done()
		shut, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer done()
		if err := srv.Shutdown(shut); err != nil {
			srv.Close()
		}
	})
	err := srv.Serve(hl)
	cancel()
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("gate: %w", err)
}

// collector says whose certificate a connection came with: the collector's id, or nothing if it is not of this scheme. One that has expired
// or been revoked still has a name.
func (g *Gate) collector(s tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	p, err := keys.Identify(s.PeerCertificates[0], g.o.CA.Certificate(), g.o.Now())
	if errors.Is(err, keys.ErrUnknownCertificate) {
		return ""
	}
	return p.Collector
}

// noteRefusals hands the counts of refusals to the records, for the member to see.
func (g *Gate) noteRefusals(ctx context.Context) {
	n, ok := g.o.Records.(RefusalNoter)
	if !ok {
		return
	}
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for last := false; !last; {
		select {
		case <-ctx.Done():
			last = true
		case <-t.C:
		}
		g.counts.drain(func(collector, reason string, k uint64) bool {
			c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			err := n.Refused(c, collector, reason, k)
			if errors.Is(err, member.ErrUnknown) {
				return true // a certificate of ours whose collector the records do not know (any more): nobody's page could show it
			}
			if err != nil {
				g.log.WarnContext(ctx, "refusals could not be noted", "collector", collector, "error", err)
				return false
			}
			return true
		})
	}
}
