package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"

	"tocsin/internal/batch"
	"tocsin/internal/blob"
	"tocsin/internal/bus"
	"tocsin/internal/keys"
	"tocsin/internal/member"
)

// problem is a refusal on its way to the caller.
type problem struct {
	status int
	batch.Problem
}

func (p *problem) Error() string { return p.Code + ": " + p.Detail }

func refusal(status int, code, title, detail, next string) *problem {
	return &problem{status, batch.Problem{Code: code, Title: title, Detail: detail, Next: next}}
}

func later(status int, code, title, detail, next string, wait time.Duration) *problem {
	p := refusal(status, code, title, detail, next)
	p.Retry = int(max(wait, 100*time.Millisecond) / time.Millisecond)
	return p
}

// refuse counts and answers. collector is the proven one, or empty.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, collector string, p *problem) {
	g.counts.add(collector, p.Code)
	level := g.log.InfoContext
	if p.status >= 500 && p.Code != batch.CodeBusy {
		level = g.log.ErrorContext
	}
	level(r.Context(), "refused", "code", p.Code, "collector", collector, "detail", p.Detail, "from", r.RemoteAddr)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	if p.Retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa((p.Retry+999)/1000))
	}
	w.WriteHeader(p.status)
	json.NewEncoder(w).Encode(p.Problem)
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(b, '\n'))
}

// peer remembers a connection's certificate check, which never changes but for its end.
type peer struct {
	once sync.Once
	id   keys.Peer
	err  error
}

type peerKey struct{}

// who says which collector a request is from: the certificate is looked at once a connection, its end and the registration on every request.
func (g *Gate) who(r *http.Request) (member.Registration, keys.Peer, *problem) {
	var none member.Registration
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return none, keys.Peer{}, refusal(http.StatusUnauthorized, batch.CodeNoCert, "No certificate was shown",
			"This address is for enrolled collectors, which show the certificate they got when they were enrolled.", "Enrol the collector: tocsin-collector enrol TOKEN. If it is enrolled, renew its certificate (POST /v1/renew); it does so by itself.")
	}
	now := g.o.Now()
	look := func() (keys.Peer, error) { return keys.Identify(r.TLS.PeerCertificates[0], g.o.CA.Certificate(), now) }
	var id keys.Peer
	var err error
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		p.once.Do(func() { p.id, p.err = look() })
		if id, err = p.id, p.err; err == nil && now.After(id.NotAfter) {
			err = keys.ErrExpiredCertificate
		}
	} else {
		id, err = look()
	}
	switch {
	case errors.Is(err, keys.ErrExpiredCertificate):
		return none, id, refusal(http.StatusUnauthorized, batch.CodeExpired, "The collector's certificate has expired",
			fmt.Sprintf("It ended at %s.", id.NotAfter.UTC().Format(time.RFC3339)), "The collector renews it by itself with its batch key (POST /v1/renew), also now. If it does not, restart it and run tocsin-collector doctor.")
	case err != nil:
		return none, id, refusal(http.StatusUnauthorized, batch.CodeUnknownCert, "The certificate is not of this scheme",
			"It was not issued by this hub's collector authority.", "Check that the collector was enrolled with this hub. If the hub's authority was replaced, the collector renews its certificate by itself.")
	}
	reg, err := g.o.Records.Authenticate(r.Context(), id.Collector, id.TLSKey)
	if err != nil {
		return none, id, g.refusedBy(err, "the registration could not be read")
	}
	return reg, id, nil
}

// refusedBy turns an error of the records into a refusal.
func (g *Gate) refusedBy(err error, doing string) *problem {
	switch {
	case errors.Is(err, member.ErrRevoked):
		return refusal(http.StatusForbidden, batch.CodeRevoked, "This collector has been revoked", "The hub takes nothing more from it. What it has sent is kept.",
			"Ask your organisation's contact why. To connect this site again, enrol the collector with a new token.")
	case errors.Is(err, member.ErrUnknown):
		return refusal(http.StatusForbidden, "collector_unknown", "This collector is not registered here", "The hub has no record of it.", "Ask the centre for a token, and run: tocsin-collector enrol TOKEN.")
	case errors.Is(err, member.ErrRetired):
		return refusal(http.StatusUnauthorized, "certificate_replaced", "This certificate's key is not the collector's any more", "It was never issued to this collector, or has been replaced.", "The collector renews its certificate by itself (POST /v1/renew). If this goes on, another machine uses a copy of its folder: run tocsin-collector doctor.")
	case errors.Is(err, member.ErrToken):
		return refusal(http.StatusForbidden, "token_unknown", "This enrolment token cannot be used", "It is not known here, was cancelled, or has been used already.", "Make a new token in the portal; each works once.")
	case errors.Is(err, member.ErrExpired):
		return refusal(http.StatusForbidden, "token_expired", "This enrolment token is too old", "A token works for 24 hours.", "Make a new token in the portal and use it within a day.")
	case errors.Is(err, member.ErrKnownKey):
		return refusal(http.StatusConflict, "key_known", "A collector with this key is registered already", "Two collectors must not share a key; the folder was copied, or the token is for another collector.", "Run enrol in an empty folder, so that the collector makes its own keys.")
	case errors.Is(err, member.ErrReplay):
		return refusal(http.StatusConflict, batch.CodeStaleCounter, "This renewal is older than the last one", "Its counter is not higher than in the renewal before.", "The collector tries again with a higher counter by itself. If this goes on, another machine uses a copy of its folder.")
	case errors.Is(err, member.ErrInvalid):
		return refusal(http.StatusBadRequest, "invalid", "The request is not valid", err.Error(), "Upgrade the collector; if it is the newest, report this text.")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return later(http.StatusServiceUnavailable, batch.CodeBusy, "The hub is busy", "The request took too long.", "The collector tries again by itself; nothing is lost.", 5*time.Second)
	}
	g.log.Error(doing, "error", err)
	return later(http.StatusServiceUnavailable, "records_unavailable", "The hub cannot read or write its records now", "The fault is the hub's; its operator sees it in the log.", "The collector tries again by itself; nothing is lost.", 5*time.Second)
}

func (g *Gate) trust(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(g.o.Trust().Bundle)
}

// readSmall reads a request of at most n bytes.
func readSmall(w http.ResponseWriter, r *http.Request, n int64) ([]byte, *problem) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, n))
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return nil, refusal(http.StatusRequestEntityTooLarge, "too_big", "The request is too large", fmt.Sprintf("It may have %d bytes.", n), "Upgrade the collector; if it is the newest, report this text.")
	} else if err != nil {
		return nil, refusal(http.StatusBadRequest, "cut_off", "The request was cut off", "It did not arrive whole.", "The collector sends it again by itself.")
	}
	return b, nil
}

// knocking bounds the requests to enrol or renew of one address, before any of them is read.
func (g *Gate) knocking(r *http.Request) *problem {
	if ok, wait := g.callers.take(address(r.RemoteAddr), 1, g.o.Now()); !ok {
		return later(http.StatusTooManyRequests, batch.CodeTooFast, "Too many requests from one address", "The hub answers a bounded number of requests to enrol or renew from each address.", "The collector tries again by itself.", wait)
	}
	return nil
}

// slowly bounds enrolments, or renewals, of all callers together: each costs two signatures and a write. The two do not share a bound, and a
// renewal is proven before it counts: strangers must not keep members' collectors from renewing.
func (g *Gate) slowly(l *rate.Limiter) *problem {
	if l.AllowN(g.o.Now(), 1) {
		return nil
	}
	return later(http.StatusTooManyRequests, batch.CodeTooFast, "Too many collectors come at once", "The hub enrols and renews a bounded number each second.", "The collector tries again by itself.", 2*time.Second)
}

func (g *Gate) issue(csr string) member.Issue {
	return func(collector string) ([]byte, time.Time, error) {
		return g.o.CA.Issue([]byte(csr), collector, g.o.Now(), g.o.CertificateLife)
	}
}

func enrolAnswer(reg member.Registration, cert []byte, until time.Time) keys.EnrolAnswer {
	return keys.EnrolAnswer{Collector: reg.ID, Tenant: uint32(reg.Tenant), Organisation: reg.Organisation, Site: reg.Site, State: reg.State, Certificate: string(cert), NotAfter: until.UTC()}
}

func (g *Gate) enrolment(w http.ResponseWriter, r *http.Request) {
	reg, cert, until, p := g.doEnrol(w, r)
	if p != nil {
		g.refuse(w, r, "", p)
		return
	}
	g.log.InfoContext(r.Context(), "enrolled", "collector", reg.ID, "tenant", reg.Tenant, "site", reg.Site, "from", r.RemoteAddr)
	answer(w, enrolAnswer(reg, cert, until))
}

func (g *Gate) doEnrol(w http.ResponseWriter, r *http.Request) (reg member.Registration, cert []byte, until time.Time, p *problem) {
	if p = g.knocking(r); p != nil {
		return
	}
	body, p := readSmall(w, r, keys.MaxEnrol)
	if p != nil {
		return
	}
	e, spki, err := keys.OpenEnrol(body)
	if err != nil {
		p = refusal(http.StatusBadRequest, "enrolment_invalid", "The enrolment request is not valid", err.Error(), "Upgrade the collector; if it is the newest, report this text.")
		return
	}
	pub, err := keys.ParseSPKI(e.BatchKey)
	if err != nil {
		p = refusal(http.StatusBadRequest, "enrolment_invalid", "The enrolment request is not valid", err.Error(), "Upgrade the collector; if it is the newest, report this text.")
		return
	}
	if p = g.slowly(g.enrol); p != nil {
		return
	}
	words := keys.CheckWords(e.BatchKey, spki, g.o.Trust().RootFingerprint())
	reg, cert, until, err = g.o.Records.Redeem(r.Context(), member.Enrolment{Secret: e.Secret, BatchKey: pub, TLSKey: sha256.Sum256(spki), Words: words, Name: printable(e.Name), Version: printable(e.Version)}, g.issue(e.CSR))
	if err != nil {
		p = g.refusedBy(err, "the enrolment could not be recorded")
	}
	return
}

// printable takes out of a name what would spoil a page or a log line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || r == '\uFFFD' { // controls, and marks that turn the direction of writing
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

func (g *Gate) renewal(w http.ResponseWriter, r *http.Request) {
	collector, reg, cert, until, p := g.doRenew(w, r)
	if p != nil {
		g.refuse(w, r, collector, p)
		return
	}
	answer(w, enrolAnswer(reg, cert, until))
}

func (g *Gate) doRenew(w http.ResponseWriter, r *http.Request) (collector string, reg member.Registration, cert []byte, until time.Time, p *problem) {
	if p = g.knocking(r); p != nil {
		return
	}
	body, p := readSmall(w, r, keys.MaxEnrol)
	if p != nil {
		return
	}
	claimed, err := keys.PeekRenew(body)
	if err != nil {
		p = refusal(http.StatusBadRequest, "renewal_invalid", "The renewal request is not valid", err.Error(), "Upgrade the collector; if it is the newest, report this text.")
		return
	}
	known, err := g.o.Records.Registration(r.Context(), claimed)
	if err != nil {
		p = g.refusedBy(err, "the registration could not be read")
		return
	}
	n, spki, err := keys.OpenRenew(body, known.BatchKey)
	if err != nil {
		p = refusal(http.StatusForbidden, "renewal_signature", "The renewal is not signed with this collector's key", err.Error(), "If the collector's folder was replaced, enrol it again with a new token.")
		return
	}
	collector = known.ID // proven from here on
	if p = g.slowly(g.renew); p != nil {
		return
	}
	reg, cert, until, err = g.o.Records.Renew(r.Context(), known.ID, sha256.Sum256(spki), n.Counter, printable(n.Version), g.issue(n.CSR))
	if err != nil {
		p = g.refusedBy(err, "the renewal could not be recorded")
		if p.Code == batch.CodeStaleCounter {
			p.Higher = known.RenewCounter
		}
	}
	return
}

func (g *Gate) self(w http.ResponseWriter, r *http.Request) {
	reg, id, p := g.who(r)
	if p != nil {
		g.refuse(w, r, id.Collector, p)
		return
	}
	self := batch.Self{Collector: reg.ID, Tenant: uint32(reg.Tenant), Organisation: reg.Organisation, Site: reg.Site, State: reg.State, PolicyCeiling: reg.Policy,
		NotAfter: id.NotAfter.UTC(), HubTime: g.o.Now().UTC()}
	if g.o.DailyTest != nil && reg.State == member.Live && r.URL.Query().Has("daily") { // programs from before the test do not ask for one
		self.DailyTest = g.o.DailyTest(r.Context(), reg.Tenant, reg.ID)
	}
	answer(w, self)
}

func wireHead(h member.Head) batch.Head {
	out := batch.Head{Lane: batch.Lane(h.Lane), Tenant: uint32(h.Tenant), Epoch: h.Epoch, Seq: h.Seq, Digest: hex.EncodeToString(h.Digest[:]), Created: time.Unix(0, h.CreatedNS).UTC(),
		Received: time.Unix(0, h.UpdatedNS).UTC(), Position: h.Position}
	if len(h.Receipt) > 0 {
		out.Receipt = h.Receipt
	}
	return out
}

func (g *Gate) heads(w http.ResponseWriter, r *http.Request) {
	reg, id, p := g.who(r)
	if p != nil {
		g.refuse(w, r, id.Collector, p)
		return
	}
	hs, err := g.o.Records.Heads(r.Context(), member.GateReader, reg.ID)
	if err != nil {
		g.refuse(w, r, reg.ID, g.refusedBy(err, "the stream heads could not be read"))
		return
	}
	out := batch.Heads{Streams: []batch.Head{}}
	for _, h := range hs {
		out.Streams = append(out.Streams, wireHead(h))
	}
	answer(w, out)
}

func (g *Gate) indicators(w http.ResponseWriter, r *http.Request) {
	_, id, p := g.who(r)
	if p != nil {
		g.refuse(w, r, id.Collector, p)
		return
	}
	env, tag := g.o.Indicators()
	if len(env) == 0 { // no fault of anybody, so not counted as a refusal
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(batch.Problem{Code: "no_indicators", Title: "There is no indicator set yet", Detail: "The scheme has not published one.", Next: "Nothing: the collector asks again by itself."})
		return
	}
	quoted := strconv.Quote(strings.Trim(tag, `"`))
	w.Header().Set("ETag", quoted)
	w.Header().Set("Cache-Control", "private, no-cache")
	if r.Header.Get("If-None-Match") == quoted {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(env)
}

func (g *Gate) batches(w http.ResponseWriter, r *http.Request) {
	g.in.Add(1)
	collector, ack, p := g.take(w, r)
	if p != nil {
		g.refuse(w, r, collector, p)
		return
	}
	answer(w, ack)
}

// readers lends buffers for submissions.
var readers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// take is the life of one submission. The order of its checks is that of TRUST.md.
func (g *Gate) take(w http.ResponseWriter, r *http.Request) (collector string, ack *batch.Ack, p *problem) {
	// Size.
	if r.ContentLength < 0 {
		return "", nil, refusal(http.StatusLengthRequired, "length_missing", "The request does not say how long it is", "A batch comes with its Content-Length.", "Upgrade the collector; if it is the newest, report this text.")
	}
	if r.ContentLength > batch.MaxSubmission {
		return "", nil, refusal(http.StatusRequestEntityTooLarge, "too_big", "The batch is over its limit", fmt.Sprintf("It has %d bytes; at most %d are taken.", r.ContentLength, batch.MaxSubmission), "Upgrade the collector; if it is the newest, report this text.")
	}
	// Certificate.
	reg, id, p := g.who(r)
	if p != nil {
		return id.Collector, nil, p
	}
	collector = reg.ID

	// Of one collector a bounded number at once, or one could hold all the memory for requests by sending slowly.
	if !g.coming.take(reg.ID, g.o.Limits.Batches) {
		return collector, nil, tooFast(time.Second)
	}
	defer g.coming.give(reg.ID)
	wait, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	err := g.memory.Acquire(wait, r.ContentLength)
	cancel()
	if err != nil {
		return collector, nil, later(http.StatusServiceUnavailable, batch.CodeBusy, "The hub is busy", "Too many batches are on their way in.", "The collector tries again by itself; nothing is lost.", 2*time.Second)
	}
	defer g.memory.Release(r.ContentLength)
	buf := readers.Get().(*bytes.Buffer)
	defer func() {
		buf.Reset()
		readers.Put(buf)
	}()
	buf.Grow(int(r.ContentLength) + bytes.MinRead)
	if _, err := buf.ReadFrom(http.MaxBytesReader(w, r.Body, batch.MaxSubmission)); err != nil {
		return collector, nil, refusal(http.StatusBadRequest, "cut_off", "The batch was cut off", "It did not arrive whole.", "The collector sends it again by itself.")
	}
	sub := buf.Bytes()

	// Signature.
	env, body, err := batch.SplitSubmission(sub)
	if err != nil {
		return collector, nil, g.badBatch(err)
	}
	m, digest, err := batch.Verify(env, reg.BatchKey)
	if err != nil {
		g.keepAside(r.Context(), reg, digest, sub)
		return collector, nil, g.badBatch(err)
	}
	if m.Stream.Collector != reg.ID {
		return collector, nil, refusal(http.StatusForbidden, "wrong_collector", "The batch names another collector", "Its manifest does not name the collector that sends it.", "If the collector was enrolled again, begin a new folder.")
	}
	if m.Stream.Tenant != reg.Tenant {
		return collector, nil, refusal(http.StatusForbidden, "wrong_member", "The batch is for another member", fmt.Sprintf("This collector is registered for member %d, the batch says %d.", reg.Tenant, m.Stream.Tenant), "If the collector was enrolled again, begin a new folder.")
	}
	stream := m.Stream.ID()
	now := g.o.Now()
	pacing := lane{reg.ID, reg.Tenant, m.Stream.Lane}
	if ok, wait := g.streams.take(pacing, 1, now); !ok {
		if !m.Urgent {
			return collector, nil, tooFast(wait)
		}
		if ok, wait := g.urgent.take(pacing, 1, now); !ok {
			return collector, nil, tooFast(wait)
		}
	}
	// What the member has signed for counts before it is decompressed: a budget that is kept only afterwards spares no work.
	if n := max(m.Events, m.Expanded>>11); n > 0 {
		if ok, wait := g.tenants.take(reg.Tenant, n, now); !ok {
			return collector, nil, later(http.StatusTooManyRequests, "member_budget", "The member sends more than its share", "All members have a budget of events a second, so that one cannot hold up the others.", "The collector sends the batch again by itself; nothing is lost. If this goes on, ask the operator for a larger budget.", wait)
		}
	}

	// Digest of the body, then decompression.
	if err := batch.CheckBody(m, body); err != nil {
		g.keepAside(r.Context(), reg, digest, sub)
		return collector, nil, g.badBatch(err)
	}
	if err := g.open(r.Context(), m, body); err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return collector, nil, g.refusedBy(err, "")
		}
		g.keepAside(r.Context(), reg, digest, sub)
		return collector, nil, g.badBatch(err)
	}

	// Its place in the stream. Batches of one stream wait for each other here, so that two copies of one collector do not both get through.
	unlock, err := g.locks.lock(r.Context(), stream)
	if err != nil {
		return collector, nil, g.refusedBy(err, "")
	}
	defer unlock()
	b := &member.Batch{
		Head: member.Head{Stream: stream, Collector: reg.ID, Tenant: reg.Tenant, Lane: string(m.Stream.Lane), Epoch: m.Stream.Epoch, Seq: m.Seq, Digest: digest, Position: m.Position,
			CreatedNS: m.Created.UnixNano()},
		Prev: m.Prev, Events: m.Events, Size: len(sub), ClockOffset: -m.ClockOffset, Counts: m.Counts, Version: printable(m.CollectorVersion), Policy: printable(m.PolicyDigest),
		ParserPack: printable(m.ParserPack), RulePack: printable(m.RulePack), IndicatorSet: printable(m.IndicatorSet),
	}
	v, err := g.o.Records.Judge(r.Context(), b)
	if err != nil {
		return collector, nil, g.refusedBy(err, "the stream's head could not be read")
	}
	switch v.Sequence {
	case member.Next:
	case member.Opening:
		if ok, wait := g.opened.take(reg.ID, 1, now); !ok {
			return collector, nil, later(http.StatusTooManyRequests, batch.CodeTooFast, "The collector begins too many streams", "A collector begins a new stream after a restore or a doubt; this one does so again and again.", "The collector tries again by itself; nothing is lost. If this goes on, run tocsin-collector doctor and report this text.", wait)
		}
	case member.Fork:
		if ok, _ := g.forks.take(reg.ID, 1, now); !ok {
			g.counts.add(collector, "fork_unrecorded") // it is refused all the same
		} else if v, err = g.o.Records.Accept(r.Context(), b); err != nil { // writes it into the register, once
			return collector, nil, g.refusedBy(err, "a fork could not be recorded")
		}
		fallthrough
	default:
		ack, p = g.notNext(r.Context(), reg, b, v, sub, now)
		return collector, ack, p
	}

	// The number is claimed while the blob is written. Only the one that has both goes on the bus: of two different batches under one number,
	// at two gates or before and after a crash, the followers must never see both.
	received := g.o.Now().UTC()
	claimed := make(chan error, 1)
	go func() {
		var err error
		v, err = g.o.Records.Claim(r.Context(), b)
		claimed <- err
	}()
	ref, err := g.o.Blobs.Put(r.Context(), blob.Blob{Name: digest, Tenant: reg.Tenant, Kind: blob.Batch, Received: received}, sub)
	if err := <-claimed; err != nil {
		return collector, nil, g.refusedBy(err, "the batch's number could not be claimed")
	}
	if err != nil {
		return collector, nil, g.noRoom(err, "the batch could not be written")
	}
	if v.Sequence != member.Next && v.Sequence != member.Opening { // another gate was faster
		ack, p = g.notNext(r.Context(), reg, b, v, sub, now)
		return collector, ack, p
	}

	// Durable in blob and bus, then the head. What a crash leaves in between is sent again and dropped by those who follow.
	notice := bus.Notice{Digest: digest, Tenant: reg.Tenant, Collector: reg.ID, Lane: string(m.Stream.Lane), Epoch: m.Stream.Epoch, Seq: m.Seq, Received: received.UnixNano(),
		Events: m.Events, Size: len(sub), Quarantined: reg.State == member.Quarantined, Urgent: m.Urgent, Blob: ref}
	if _, err := g.o.Bus.Publish(r.Context(), bus.Subject(reg.Tenant), hex.EncodeToString(digest[:]), notice.Encode()); err != nil {
		return collector, nil, g.noRoom(err, "the bus refused the batch")
	}
	if b.Receipt, err = batch.SignReceipt(batch.Receipt{Stream: stream, Seq: m.Seq, Digest: digest, HubTime: received}, g.o.Receipts); err != nil {
		return collector, nil, g.refusedBy(err, "the receipt could not be signed")
	}
	if v, err = g.o.Records.Accept(r.Context(), b); err != nil {
		return collector, nil, g.refusedBy(err, "the batch could not be recorded")
	}
	if v.Sequence != member.Next && v.Sequence != member.Opening { // another gate was faster
		ack, p = g.notNext(r.Context(), reg, b, v, sub, now)
		return collector, ack, p
	}
	g.out.Add(1)
	g.events.Add(uint64(m.Events))
	g.bytes.Add(uint64(len(sub)))
	g.o.Accepted(reg.Tenant, 1, m.Events)
	if v.Clone {
		g.counts.add(collector, "clone")
		if v.First {
			i := g.incident("clone", reg, b, v, now)
			i.Detail = fmt.Sprintf("The collector %q of %s began a new series of batches, yet the old series goes on (%s lane, batch %d). Two machines hold its keys: one is a copy, by accident or by theft.", reg.Name, reg.Organisation, b.Lane, b.Seq)
			g.tell(r.Context(), i)
		}
	}
	return collector, g.ack(reg, b.Receipt), nil
}

func tooFast(wait time.Duration) *problem {
	return later(http.StatusTooManyRequests, batch.CodeTooFast, "The batches come too fast", "A stream may send five batches a second, and some urgent ones beyond.", "The collector waits and sends the batch again by itself; nothing is lost.", wait)
}

func (g *Gate) ack(reg member.Registration, receipt []byte) *batch.Ack {
	now := g.o.Now()
	return &batch.Ack{Receipt: receipt, NextIntervalMS: int(g.pace.next(reg.ID, now, g.o.Pressure()) / time.Millisecond), Checkpoint: g.o.Checkpoint(), HubTime: now.UTC()}
}

// open decompresses and checks a body with one of a bounded number of buffers.
func (g *Gate) open(ctx context.Context, m batch.Manifest, body []byte) error {
	ahead := g.ahead
	if !m.Urgent {
		ahead = nil
	}
	select {
	case b := <-g.bodies:
		defer func() { g.bodies <- b }()
		return b.Open(m, body)
	case b := <-ahead:
		defer func() { g.ahead <- b }()
		return b.Open(m, body)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notNext answers a batch that is not the one its stream is due.
func (g *Gate) notNext(ctx context.Context, reg member.Registration, b *member.Batch, v member.Verdict, sub []byte, now time.Time) (*batch.Ack, *problem) {
	switch v.Sequence {
	case member.Repeat:
		g.again.Add(1)
		return g.ack(reg, v.Receipt), nil
	case member.Fork:
		kept := g.keepAside(ctx, reg, b.Digest, sub)
		if v.First {
			i := g.incident("fork", reg, b, v, now)
			i.Kept = kept
			i.Detail = fmt.Sprintf("The collector %q of %s sent another batch under a number that it had used already (%s lane, batch %d). It was restored from an older copy, or a second machine holds its keys.", reg.Name, reg.Organisation, b.Lane, b.Seq)
			g.tell(ctx, i)
		}
		p := refusal(http.StatusConflict, batch.CodeFork, "This stream has another past here", fmt.Sprintf("The hub holds another batch %d of this stream, or this batch follows one that the hub does not hold.", b.Seq),
			"The collector begins a new epoch and sends the batch again in it; nothing is lost. If nobody restored this collector, a copy of it is running: revoke it in the portal.")
		if v.Head.Seq > 0 {
			h := wireHead(v.Head)
			p.Head = &h
		}
		return nil, p
	}
	p := refusal(http.StatusConflict, batch.CodeOutOfSequence, "Batches before this one are missing", fmt.Sprintf("Batch %d of this stream came, but the hub holds batches up to %d.", b.Seq, v.Head.Seq),
		"The collector sends those after the head first; nothing is lost.")
	if v.Head.Seq > 0 {
		h := wireHead(v.Head)
		p.Head = &h
	}
	return nil, p
}

func (g *Gate) incident(kind string, reg member.Registration, b *member.Batch, v member.Verdict, now time.Time) Incident {
	return Incident{Kind: kind, At: now, Collector: reg.ID, Name: reg.Name, Tenant: reg.Tenant, Organisation: reg.Organisation, Lane: b.Lane, Epoch: b.Epoch, Seq: b.Seq, Have: v.Head.Digest, Got: b.Digest}
}

func (g *Gate) tell(ctx context.Context, i Incident) {
	g.log.WarnContext(ctx, i.Kind, "collector", i.Collector, "tenant", i.Tenant, "lane", i.Lane, "epoch", i.Epoch, "seq", i.Seq, "detail", i.Detail)
	g.o.Incident(context.WithoutCancel(ctx), i)
}

// keepAside keeps a refused submission that is evidence, if there is room, and returns its reference.
func (g *Gate) keepAside(ctx context.Context, reg member.Registration, digest [32]byte, sub []byte) string {
	now := g.o.Now()
	if !g.aside.take(reg.ID, len(sub), now) {
		g.counts.add(reg.ID, "aside_full")
		return ""
	}
	ref, err := g.o.Blobs.Put(context.WithoutCancel(ctx), blob.Blob{Name: digest, Tenant: reg.Tenant, Kind: blob.Aside, Received: now.UTC()}, sub)
	if err != nil {
		g.counts.add(reg.ID, "aside_full")
		return ""
	}
	g.counts.add(reg.ID, "aside_kept")
	g.log.WarnContext(ctx, "a refused batch was kept aside", "collector", reg.ID, "digest", hex.EncodeToString(digest[:]), "at", ref)
	return ref
}

// noRoom answers when blob store or bus did not take the batch.
func (g *Gate) noRoom(err error, doing string) *problem {
	if errors.Is(err, blob.ErrFull) || errors.Is(err, bus.ErrFull) {
		return later(http.StatusServiceUnavailable, batch.CodeBusy, "The hub has no room now", "Its disk is at the reserve, or those who follow are behind.", "The collector keeps its batches and tries again by itself; nothing is lost.", 15*time.Second)
	}
	g.log.Error(doing, "error", err)
	return later(http.StatusServiceUnavailable, batch.CodeBusy, "The hub cannot take batches now", "The fault is the hub's; its operator sees it in the log.", "The collector keeps its batches and tries again by itself; nothing is lost.", 5*time.Second)
}

// badBatch says what is wrong with a batch. Each is the collector's fault or damage on the way, and sending it again will not help, but for
// the first.
func (g *Gate) badBatch(err error) *problem {
	const next = "Upgrade the collector; if it is the newest, run tocsin-collector doctor and report this text. It sets the batch aside and goes on."
	switch {
	case errors.Is(err, batch.ErrTooBig):
		return refusal(http.StatusRequestEntityTooLarge, "too_big", "The batch is over its limit", err.Error(), next)
	case errors.Is(err, batch.ErrSubmission):
		return refusal(http.StatusBadRequest, "malformed", "This is not a batch", err.Error(), next)
	case errors.Is(err, keys.ErrEnvelope):
		return refusal(http.StatusBadRequest, "malformed", "The batch's envelope is damaged", err.Error(), next)
	case errors.Is(err, keys.ErrSignature):
		return refusal(http.StatusForbidden, "bad_signature", "The batch is not signed by this collector", err.Error(), "The batch was changed on the collector's disk or on the way, or the collector's keys were replaced: run tocsin-collector doctor.")
	case errors.Is(err, batch.ErrVersion), errors.Is(err, batch.ErrCrit):
		return refusal(http.StatusUnprocessableEntity, "version", "The hub is older than this collector", err.Error(), "Upgrade the hub. The collector keeps its batches until then.")
	case errors.Is(err, batch.ErrManifest):
		return refusal(http.StatusUnprocessableEntity, "bad_manifest", "The batch's manifest is not valid", err.Error(), next)
	case errors.Is(err, batch.ErrBodyDigest):
		return refusal(http.StatusUnprocessableEntity, "bad_digest", "The batch's body is not the one that was signed", err.Error(), "The batch was damaged on the collector's disk or on the way; the collector sends it once more, then sets it aside. Run tocsin-collector doctor.")
	case errors.Is(err, batch.ErrFrame):
		return refusal(http.StatusUnprocessableEntity, "bad_frame", "The batch's body cannot be decompressed within its limits", err.Error(), next)
	case errors.Is(err, batch.ErrBody):
		return refusal(http.StatusUnprocessableEntity, "bad_body", "The batch's events are not as announced", err.Error(), next)
	case errors.Is(err, batch.ErrRoot):
		return refusal(http.StatusUnprocessableEntity, "bad_root", "The batch's events are not the ones that were signed", err.Error(), next)
	}
	return refusal(http.StatusUnprocessableEntity, "bad_batch", "The batch is not valid", err.Error(), next)
}
