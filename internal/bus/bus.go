// Package bus carries word of each batch from the gates to those who follow: the ledger and the workers. It is NATS JetStream, embedded in
// the process (no socket is opened) or a cluster given by URL; the code is the same.
//
// It reads and writes Dir when embedded. A message is durable (flushed to disk) when [Bus.Publish] returns. Nothing is ever dropped to make
// room: at MaxBytes, or when the disk's reserve is reached, Publish fails with [ErrFull]. Messages are deleted by [Bus.Trim] only when every
// follower has acknowledged them.
//
// A follower's place is a cursor, a durable number under its name. After a crash it gets everything past its last AckThrough again, in
// order; so delivery is at least once and followers drop repeats by their own heads.
//
// JetStream streams: BATCHES (subjects batch.00 to batch.63, the partition of a tenant, and entity.00 to entity.15) and CURSORS (cursor.NAME,
// the last message counts).
//
// Counted: messages in, refused as full, failed; per follower the messages it has yet to see (lag).
package bus

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"tocsin/internal/event"
)

// Partitions is the number of parts the tenants are spread over.
const Partitions = 64

// Subject returns the subject of a tenant's batches.
func Subject(t event.TenantID) string { return fmt.Sprintf("batch.%02d", t%Partitions) }

// Notice is the message that a batch has come. The batch itself is in the blob store.
type Notice struct {
	Digest      [32]byte // of the envelope: the blob's name and the message id
	Tenant      event.TenantID
	Collector   string
	Lane        string
	Epoch       string
	Seq         uint64
	Received    int64 // UTC ns, by the gate's clock
	Events      int
	Size        int    // bytes of the submission
	Quarantined bool   // the collector's check words are not confirmed: store, count towards nothing shared
	Urgent      bool   // of the manifest
	Blob        string // where in the blob store; see blob.Store.Get
	Retry       *Retry // nil: the batch is new
}

// Retry makes a notice one of a batch that came before, of which something was put aside and is to be tried again.
type Retry struct {
	ID       string   `json:"id"`                 // of the try: what it stands for is done once, however often it is published
	Places   []uint32 `json:"places,omitempty"`   // indices of the events in the batch, rising; none: all
	Detected bool     `json:"detected,omitempty"` // the rules have seen these events
}

type wireNotice struct {
	Digest      string `json:"digest"`
	Tenant      uint32 `json:"tenant"`
	Collector   string `json:"collector"`
	Lane        string `json:"lane"`
	Epoch       string `json:"epoch"`
	Seq         uint64 `json:"seq"`
	Received    int64  `json:"received_ns"`
	Events      int    `json:"events"`
	Size        int    `json:"size"`
	Quarantined bool   `json:"quarantined,omitempty"`
	Urgent      bool   `json:"urgent,omitempty"`
	Blob        string `json:"blob"`
	Retry       *Retry `json:"retry,omitempty"`
}

// Encode returns the notice as a message's data, JSON.
func (n Notice) Encode() []byte {
	b, err := json.Marshal(wireNotice{hex.EncodeToString(n.Digest[:]), uint32(n.Tenant), n.Collector, n.Lane, n.Epoch, n.Seq, n.Received, n.Events, n.Size, n.Quarantined, n.Urgent, n.Blob, n.Retry})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return b
}

// ParseNotice reads a message's data.
func ParseNotice(b []byte) (Notice, error) {
	var w wireNotice
	if err := json.Unmarshal(b, &w); err != nil {
		return Notice{}, fmt.Errorf("bus notice: %w", err)
	}
	d, err := hex.DecodeString(w.Digest)
	if err != nil || len(d) != 32 {
		return Notice{}, fmt.Errorf("bus notice: digest %.80q is not 64 hexadecimal digits", w.Digest)
	}
	return Notice{[32]byte(d), event.TenantID(w.Tenant), w.Collector, w.Lane, w.Epoch, w.Seq, w.Received, w.Events, w.Size, w.Quarantined, w.Urgent, w.Blob, w.Retry}, nil
}

// Errors a caller decides on.
var (
	ErrFull        = errors.New("the bus is full")      // come back when followers have caught up or there is room on the disk
	ErrUnavailable = errors.New("the bus is not there") // come back soon
	ErrClosed      = errors.New("the bus is closed")
)

// Options configure a bus.
type Options struct {
	Dir      string // embedded: where JetStream keeps its files
	URL      string // external: nats://…; Dir is then not used
	MaxBytes int64  // of BATCHES on disk; default 4 GiB
	Reserve  uint64 // embedded: bytes of disk to leave free; default 1 GiB
	Replicas int    // external: copies of each stream; default 1
	// Followers must have a cursor before anything is deleted. So a message waits for a follower that has not started yet.
	Followers []string
	TrimEvery time.Duration // how often to delete what every follower has acknowledged; default 10 s, negative: never
	Logger    *slog.Logger
}

// Stats are counts since Open.
type Stats struct {
	Published, Full, Failed uint64
	Messages, Bytes         uint64 // held now
	LastSeq                 uint64
}

// Bus is an open bus. It is safe for concurrent use.
type Bus struct {
	o      Options
	srv    *server.Server // nil when external
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	cursor jetstream.Stream
	log    *slog.Logger

	published, full, failed atomic.Uint64
	free                    atomic.Int64 // Unix ns until which the disk was seen to have room
	stop                    context.CancelFunc
	done                    sync.WaitGroup
}

const (
	streamName = "BATCHES"
	cursorName = "CURSORS"
)

// Open starts the embedded server, or connects to the external one, and makes the streams.
func Open(o Options) (*Bus, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 4 << 30
	}
	if o.Reserve == 0 {
		o.Reserve = 1 << 30
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.TrimEvery == 0 {
		o.TrimEvery = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Bus{o: o, log: o.Logger.With("part", "bus")}
	if err := b.open(); err != nil {
		b.Close()
		return nil, fmt.Errorf("open bus: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	if o.TrimEvery > 0 {
		b.done.Go(func() { b.trimLoop(ctx) })
	}
	return b, nil
}

func (b *Bus) open() error {
	opts := []nats.Option{nats.Name("tocsin"), nats.MaxReconnects(-1), nats.ReconnectWait(500 * time.Millisecond), nats.Timeout(10 * time.Second)}
	url := b.o.URL
	if url == "" {
		if b.o.Dir == "" {
			return errors.New("a folder or a URL must be given")
		}
		if err := os.MkdirAll(b.o.Dir, 0o700); err != nil {
			return err
		}
		srv, err := server.NewServer(&server.Options{
			ServerName: "tocsin", DontListen: true, JetStream: true, StoreDir: b.o.Dir, SyncAlways: true, NoSigs: true,
			// The store's own bound is above the stream's: the stream must be what refuses.
			JetStreamMaxStore: b.o.MaxBytes + 1<<30, JetStreamMaxMemory: 64 << 20, MaxPayload: 1 << 20,
		})
		if err != nil {
			return err
		}
		srv.SetLoggerV2(natsLog{b.log}, false, false, false)
		srv.Start()
		b.srv = srv
		if !srv.ReadyForConnections(30 * time.Second) {
			return errors.New("the embedded NATS server did not start within 30 s")
		}
		opts = append(opts, nats.InProcessServer(srv))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	b.nc = nc
	if b.js, err = jetstream.New(nc); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b.stream, err = b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{"batch.*", "entity.*"}, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
		Discard: jetstream.DiscardNew, MaxBytes: b.o.MaxBytes, MaxAge: 0, Duplicates: 2 * time.Minute, Replicas: b.o.Replicas, AllowDirect: true,
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", streamName, err)
	}
	b.cursor, err = b.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: cursorName, Subjects: []string{"cursor.*"}, Storage: jetstream.FileStorage, MaxMsgsPerSubject: 1, Discard: jetstream.DiscardOld, Replicas: b.o.Replicas,
	})
	if err != nil {
		return fmt.Errorf("stream %s: %w", cursorName, err)
	}
	return nil
}

// Close stops the bus. What Publish returned for is on disk.
func (b *Bus) Close() error {
	if b.stop != nil {
		b.stop()
	}
	b.done.Wait()
	if b.nc != nil {
		b.nc.Close()
	}
	if b.srv != nil {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	}
	return nil
}

// Publish puts a message on the bus and returns its sequence when it is durable. A second message with the same id within two minutes is
// not stored again; the first one's sequence is returned. The error wraps [ErrFull] or [ErrUnavailable] when it is worth trying again later.
func (b *Bus) Publish(ctx context.Context, subject, id string, data []byte) (uint64, error) {
	if err := b.room(); err != nil {
		b.full.Add(1)
		return 0, fmt.Errorf("publish to %s: %w", subject, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	ack, err := b.js.Publish(ctx, subject, data, jetstream.WithMsgID(id))
	if err == nil {
		b.published.Add(1)
		return ack.Sequence, nil
	}
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && (strings.Contains(api.Description, "maximum bytes") || strings.Contains(api.Description, "no space left") ||
		api.ErrorCode == 10023 || api.ErrorCode == 10047): // insufficient resources, insufficient storage
		b.full.Add(1)
		return 0, fmt.Errorf("publish to %s: %w: %w", subject, ErrFull, err)
	case errors.Is(err, nats.ErrConnectionClosed):
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	b.failed.Add(1)
	return 0, fmt.Errorf("publish to %s: %w: %w", subject, ErrUnavailable, err)
}

// room checks the disk's reserve, at most once a second.
func (b *Bus) room() error {
	now := time.Now().UnixNano()
	if b.srv == nil || now < b.free.Load() {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(b.o.Dir, &st); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < b.o.Reserve {
		return fmt.Errorf("%w: %d MiB of disk free, %d MiB are kept in reserve", ErrFull, free>>20, b.o.Reserve>>20)
	}
	b.free.Store(now + int64(time.Second))
	return nil
}

// Stats returns the counts.
func (b *Bus) Stats(ctx context.Context) (Stats, error) {
	s := Stats{Published: b.published.Load(), Full: b.full.Load(), Failed: b.failed.Load()}
	info, err := b.stream.Info(ctx)
	if err != nil {
		return s, fmt.Errorf("bus: %w: %w", ErrUnavailable, err)
	}
	s.Messages, s.Bytes, s.LastSeq = info.State.Msgs, info.State.Bytes, info.State.LastSeq
	return s, nil
}

// Msg is one message.
type Msg struct {
	Subject string
	Data    []byte
	Seq     uint64 // of the bus: rising, with gaps where other subjects' messages are
}

type cursorValue struct {
	Seq      uint64   `json:"seq"`
	Subjects []string `json:"subjects"`
}

// Consumer is one follower's place on the bus. It belongs to one goroutine at a time; a name may be open once at a time, which the caller
// sees to (workers by lease).
type Consumer struct {
	b        *Bus
	name     string
	subjects []string
	acked    uint64
	read     uint64 // the last sequence handed out
	inner    jetstream.Consumer
	nextSeq  uint64 // the inner consumer's own count, to notice a lost delivery
}

// Consumer opens the follower called durable at its cursor, making the cursor if there is none (at the beginning of what the bus holds).
func (b *Bus) Consumer(ctx context.Context, durable string, subjects ...string) (*Consumer, error) {
	if durable == "" || strings.ContainsAny(durable, ".*> \t\r\n") || len(subjects) == 0 {
		return nil, fmt.Errorf("open follower %q: a plain name and subjects must be given", durable)
	}
	c := &Consumer{b: b, name: durable, subjects: subjects}
	v, ok, err := b.readCursor(ctx, durable)
	if err != nil {
		return nil, fmt.Errorf("open follower %s: %w", durable, err)
	}
	c.acked = v.Seq
	c.read = v.Seq
	if !ok || strings.Join(v.Subjects, " ") != strings.Join(subjects, " ") {
		if err := c.writeCursor(ctx, c.acked); err != nil {
			return nil, fmt.Errorf("open follower %s: %w", durable, err)
		}
	}
	return c, nil
}

func (b *Bus) readCursor(ctx context.Context, name string) (cursorValue, bool, error) {
	var v cursorValue
	m, err := b.cursor.GetLastMsgForSubject(ctx, "cursor."+name)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return v, false, nil
	} else if err != nil {
		return v, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := json.Unmarshal(m.Data, &v); err != nil {
		return v, false, fmt.Errorf("cursor of %s: %w", name, err)
	}
	return v, true, nil
}

func (c *Consumer) writeCursor(ctx context.Context, seq uint64) error {
	data, err := json.Marshal(cursorValue{seq, c.subjects})
	if err != nil {
		return err
	}
	if _, err := c.b.js.Publish(ctx, "cursor."+c.name, data); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Acked returns the follower's cursor.
func (c *Consumer) Acked() uint64 { return c.acked }

// Fetch returns up to limit messages, at least one if any comes within wait, in the bus's order. No message and no error: there was none.
func (c *Consumer) Fetch(ctx context.Context, limit int, wait time.Duration) ([]Msg, error) {
	if c.inner == nil {
		if err := c.start(ctx); err != nil {
			return nil, fmt.Errorf("fetch for %s: %w", c.name, err)
		}
	}
	out, err := c.fetch(nil, limit, 0)
	if err == nil && len(out) == 0 && wait > 0 {
		if out, err = c.fetch(nil, 1, wait); err == nil && len(out) == 1 && limit > 1 {
			out, err = c.fetch(out, limit-1, 0)
		}
	}
	if err != nil {
		c.inner = nil // begin again after the last message handed out
		if len(out) > 0 {
			return out, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("fetch for %s: %w: %w", c.name, ErrUnavailable, err)
	}
	return out, nil
}

func (c *Consumer) start(ctx context.Context) error {
	inner, err := c.b.js.CreateConsumer(ctx, streamName, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: c.read + 1, AckPolicy: jetstream.AckNonePolicy,
		FilterSubjects: c.subjects, MemoryStorage: true, Replicas: 1, InactiveThreshold: 5 * time.Minute, MaxWaiting: 16,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c.inner, c.nextSeq = inner, 1
	return nil
}

var errLost = errors.New("a delivery was lost on the way")

func (c *Consumer) fetch(out []Msg, limit int, wait time.Duration) ([]Msg, error) {
	var mb jetstream.MessageBatch
	var err error
	if wait > 0 {
		mb, err = c.inner.Fetch(limit, jetstream.FetchMaxWait(wait))
	} else {
		mb, err = c.inner.FetchNoWait(limit)
	}
	if err != nil {
		return out, err
	}
	lost := false
	for m := range mb.Messages() {
		meta, err := m.Metadata()
		if err != nil || meta.Sequence.Consumer != c.nextSeq || lost {
			lost = true // drain the rest; it comes again
			continue
		}
		c.nextSeq++
		c.read = meta.Sequence.Stream
		out = append(out, Msg{Subject: m.Subject(), Data: m.Data(), Seq: meta.Sequence.Stream})
	}
	if lost {
		return out, errLost
	}
	if err := mb.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, jetstream.ErrNoMessages) {
		return out, err
	}
	return out, nil
}

// AckThrough records, durably, that everything on the follower's subjects up to and including seq is done with. Lower numbers than before
// are ignored.
func (c *Consumer) AckThrough(ctx context.Context, seq uint64) error {
	if seq <= c.acked {
		return nil
	}
	if err := c.writeCursor(ctx, seq); err != nil {
		return fmt.Errorf("acknowledge through %d for %s: %w", seq, c.name, err)
	}
	c.acked = seq
	return nil
}

// Lag returns the number of messages past the follower's cursor.
func (c *Consumer) Lag(ctx context.Context) (uint64, error) {
	return c.b.Lag(ctx, c.name)
}

// Lag returns the number of messages on the bus past a follower's cursor, of its own subjects.
func (b *Bus) Lag(ctx context.Context, follower string) (uint64, error) {
	v, ok, err := b.readCursor(ctx, follower)
	if err != nil || !ok {
		return 0, err
	}
	inner, err := b.js.CreateConsumer(ctx, streamName, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: v.Seq + 1, AckPolicy: jetstream.AckNonePolicy,
		FilterSubjects: v.Subjects, MemoryStorage: true, Replicas: 1, InactiveThreshold: 10 * time.Second,
	})
	if err != nil {
		return 0, fmt.Errorf("lag of %s: %w: %w", follower, ErrUnavailable, err)
	}
	n := inner.CachedInfo().NumPending
	if err := b.js.DeleteConsumer(ctx, streamName, inner.CachedInfo().Name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return n, fmt.Errorf("lag of %s: %w: %w", follower, ErrUnavailable, err)
	}
	return n, nil
}

// LastSeq returns the sequence of the newest message that was ever put on the bus.
func (b *Bus) LastSeq(ctx context.Context) (uint64, error) {
	info, err := b.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("newest message: %w: %w", ErrUnavailable, err)
	}
	return info.State.LastSeq, nil
}

// Oldest is when the oldest message that the bus holds was published; ok is false when it holds none.
func (b *Bus) Oldest(ctx context.Context) (at time.Time, ok bool, err error) {
	info, err := b.stream.Info(ctx)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("oldest message: %w: %w", ErrUnavailable, err)
	}
	return info.State.FirstTime, info.State.Msgs > 0, nil
}

// Forget removes the cursor of a follower that will not come back, so that messages no longer wait for it.
func (b *Bus) Forget(ctx context.Context, follower string) error {
	if err := b.cursor.Purge(ctx, jetstream.WithPurgeSubject("cursor."+follower)); err != nil {
		return fmt.Errorf("forget follower %s: %w: %w", follower, ErrUnavailable, err)
	}
	return nil
}

// Trim deletes every message that all followers are past, and returns how many. A follower whose subjects are quiet does not hold the others'
// messages: it is counted as far as the next message on its own subjects.
func (b *Bus) Trim(ctx context.Context) (uint64, error) {
	info, err := b.cursor.Info(ctx, jetstream.WithSubjectFilter("cursor.*"))
	if err != nil {
		return 0, fmt.Errorf("trim bus: %w: %w", ErrUnavailable, err)
	}
	for _, name := range b.o.Followers {
		if _, ok := info.State.Subjects["cursor."+name]; !ok {
			return 0, nil
		}
	}
	if len(info.State.Subjects) == 0 {
		return 0, nil
	}
	st, err := b.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("trim bus: %w: %w", ErrUnavailable, err)
	}
	floor := st.State.LastSeq
	for subject := range info.State.Subjects {
		v, ok, err := b.readCursor(ctx, strings.TrimPrefix(subject, "cursor."))
		if err != nil || !ok {
			return 0, err
		}
		if v.Seq >= floor {
			continue
		}
		for _, s := range v.Subjects {
			m, err := b.stream.GetMsg(ctx, v.Seq+1, jetstream.WithGetMsgSubject(s))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			} else if err != nil {
				return 0, fmt.Errorf("trim bus: %w: %w", ErrUnavailable, err)
			}
			floor = min(floor, m.Sequence-1)
		}
	}
	if floor < st.State.FirstSeq || st.State.Msgs == 0 {
		return 0, nil
	}
	if err := b.stream.Purge(ctx, jetstream.WithPurgeSequence(floor+1)); err != nil {
		return 0, fmt.Errorf("trim bus: %w: %w", ErrUnavailable, err)
	}
	after, err := b.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("trim bus: %w: %w", ErrUnavailable, err)
	}
	return after.State.FirstSeq - st.State.FirstSeq, nil
}

func (b *Bus) trimLoop(ctx context.Context) {
	t := time.NewTicker(b.o.TrimEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if _, err := b.Trim(ctx); err != nil && ctx.Err() == nil {
				b.log.WarnContext(ctx, "messages could not be deleted", "error", err)
			}
		}
	}
}

// natsLog gives the embedded server's words to slog.
type natsLog struct{ l *slog.Logger }

func (n natsLog) Noticef(f string, v ...any) { n.l.Debug("nats", "says", fmt.Sprintf(f, v...)) }
func (n natsLog) Warnf(f string, v ...any)   { n.l.Warn("nats", "says", fmt.Sprintf(f, v...)) }
func (n natsLog) Fatalf(f string, v ...any)  { n.l.Error("nats", "says", fmt.Sprintf(f, v...)) }
func (n natsLog) Errorf(f string, v ...any)  { n.l.Error("nats", "says", fmt.Sprintf(f, v...)) }
func (n natsLog) Debugf(f string, v ...any)  {}
func (n natsLog) Tracef(f string, v ...any)  {}
