// Package blob keeps batches as they came, encrypted under their member's key of the month, so that destroying a key deletes them for good.
//
// It writes pack files: records one after another, each found again by its reference (what [Store.Put] returns) or, slower, by its name.
// Put returns when the record is on the disk; all who wait at the same moment share one flush.
//
//	DIR/YYYY-MM/TIME-RANDOM.pack   "TOCSINP1", then records: a header of 84 bytes (see header) and AES-256-GCM output
//	DIR/YYYY-MM/TIME-RANDOM.idx    names in order with offset and length, written when the pack is full or old
//
// A process never appends to a pack it did not begin. After a crash the last record of its pack may be torn: nobody was told of it. At the
// next Open the pack is read through and gets its index. A pack in use is locked (flock), so several processes may share DIR.
//
// Counted: records and bytes written, flushes, refusals for lack of room.
package blob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Errors a caller decides on.
var (
	ErrMissing = errors.New("there is no such blob")
	ErrDeleted = errors.New("the blob was deleted: its key has been destroyed")
	ErrCorrupt = errors.New("the blob is damaged")
	ErrFull    = errors.New("the disk of the blobs has no room") // come back later
	ErrClosed  = errors.New("the blob store is closed")
)

// Kind says what a blob is.
type Kind uint8

// The kinds.
const (
	Batch Kind = 1 // a submission that was accepted
	Aside Kind = 2 // a submission that was refused and is evidence: a fork, a body that does not fit its manifest
)

// Blob describes what is put.
type Blob struct {
	Name     [32]byte // SHA-256 of the envelope
	Tenant   event.TenantID
	Kind     Kind
	Received time.Time // decides the month, and so the key
}

// Options configure a Store.
type Options struct {
	Dir       string
	Keys      *keys.TenantKeys
	PackBytes int64         // begin another pack after so many; default 256 MiB
	PackAge   time.Duration // or when the pack is so old; default 1 h
	Reserve   uint64        // bytes of disk to leave free; default 1 GiB
	Logger    *slog.Logger
}

// MaxBlob is the largest blob, in bytes.
const MaxBlob = 4 << 20

// Stats are counts since Open.
type Stats struct {
	Puts, Bytes, Flushes, Full, Failed uint64
}

// Store is an open blob store. It is safe for concurrent use.
type Store struct {
	o   Options
	log *slog.Logger

	queue    chan *put
	closing  chan struct{}
	stopped  chan struct{}
	closeOne sync.Once

	mu     sync.RWMutex // guards active and files; held for map look-ups and opening a file, never while the disk is flushed
	active map[[32]byte]place
	pack   string // the active pack's path relative to Dir
	files  map[string]*os.File

	puts, bytes, flushes, full, failed atomic.Uint64
}

type put struct {
	rec  []byte
	name [32]byte
	ref  string
	at   place
	done chan error
}

// Open opens (or makes) the store, and gives an index to every pack that a crash left without one.
func Open(o Options) (*Store, error) {
	if o.Dir == "" || o.Keys == nil {
		return nil, errors.New("open blobs: the folder and the tenant keys must be given")
	}
	if o.PackBytes <= 0 {
		o.PackBytes = 256 << 20
	}
	if o.PackAge <= 0 {
		o.PackAge = time.Hour
	}
	if o.Reserve == 0 {
		o.Reserve = 1 << 30
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	s := &Store{o: o, log: o.Logger.With("part", "blob"), queue: make(chan *put, 1024), closing: make(chan struct{}), stopped: make(chan struct{}),
		active: map[[32]byte]place{}, files: map[string]*os.File{}}
	if err := s.repair(); err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	go s.write()
	return s, nil
}

// Close flushes what waits and closes the pack. Puts after it fail with [ErrClosed].
func (s *Store) Close() error {
	s.closeOne.Do(func() { close(s.closing) })
	<-s.stopped
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.Close()
	}
	clear(s.files)
	return nil
}

// Stats returns the counts.
func (s *Store) Stats() Stats {
	return Stats{s.puts.Load(), s.bytes.Load(), s.flushes.Load(), s.full.Load(), s.failed.Load()}
}

// Put encrypts data and writes it, durable on return. The reference finds it again. The same name may be put twice; both stay.
func (s *Store) Put(ctx context.Context, b Blob, data []byte) (ref string, err error) {
	if len(data) > MaxBlob {
		return "", fmt.Errorf("put blob: %d bytes, at most %d", len(data), MaxBlob)
	}
	month := keys.MonthOf(b.Received)
	key, err := s.o.Keys.Create(uint32(b.Tenant), month)
	if err != nil {
		return "", fmt.Errorf("put blob: %w", err)
	}
	rec := make([]byte, headerSize, headerSize+len(data)+key.Overhead())
	rec = key.Seal(rec, data, aad(b.Name, uint32(b.Tenant), b.Kind))
	h := header{length: uint32(len(rec) - headerSize), dataCRC: crc32.Checksum(rec[headerSize:], castagnoli), tenant: uint32(b.Tenant), month: uint32(month), kind: b.Kind,
		keyID: key.ID, received: b.Received.UnixNano(), name: b.Name}
	h.put(rec)
	p := &put{rec: rec, name: b.Name, done: make(chan error, 1)}
	select {
	case <-s.closing:
		return "", fmt.Errorf("put blob: %w", ErrClosed)
	default:
	}
	select {
	case s.queue <- p:
	case <-ctx.Done():
		return "", fmt.Errorf("put blob: %w", ctx.Err())
	case <-s.stopped:
		return "", fmt.Errorf("put blob: %w", ErrClosed)
	}
	// Once queued it is written, whatever becomes of ctx; the caller learns how it ended.
	select {
	case err = <-p.done:
	case <-s.stopped:
		select {
		case err = <-p.done:
		default:
			err = ErrClosed
		}
	}
	if err != nil {
		return "", fmt.Errorf("put blob: %w", err)
	}
	return p.ref, nil
}

// write is the one goroutine that touches the active pack.
func (s *Store) write() {
	defer close(s.stopped)
	var a *appender
	defer func() { s.seal(a) }()
	idle := time.NewTicker(time.Minute)
	defer idle.Stop()
	for {
		var first *put
		select {
		case first = <-s.queue:
		case <-idle.C:
			if a != nil && time.Since(a.begun) > s.o.PackAge {
				s.seal(a)
				a = nil
			}
			continue
		case <-s.closing:
			select {
			case first = <-s.queue: // handed in before Close
			default:
				return
			}
		}
		group, size := []*put{first}, len(first.rec)
	more:
		for size < maxGroup {
			select {
			case p := <-s.queue:
				group, size = append(group, p), size+len(p.rec)
			default:
				break more
			}
		}
		if a != nil && (a.size+int64(size) > s.o.PackBytes || time.Since(a.begun) > s.o.PackAge) {
			s.seal(a)
			a = nil
		}
		var err error
		if err = s.room(uint64(size)); err == nil && a == nil {
			a, err = s.begin()
		}
		if err == nil {
			if err = a.write(group); err != nil {
				// What the disk holds is now unknown. Nobody is told of these records; the pack is closed and the next group begins another.
				s.seal(a)
				a = nil
			}
		}
		if err == nil {
			s.flushes.Add(1)
			s.mu.Lock()
			for _, p := range group {
				s.active[p.name] = p.at
			}
			s.mu.Unlock()
		}
		for _, p := range group {
			switch {
			case err == nil:
				s.puts.Add(1)
				s.bytes.Add(uint64(len(p.rec)))
			case errors.Is(err, ErrFull):
				s.full.Add(1)
			default:
				s.failed.Add(1)
			}
			p.done <- err
		}
	}
}

func (s *Store) room(need uint64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.o.Dir, &st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); free < s.o.Reserve+need {
		return fmt.Errorf("%w: %d MiB free, %d MiB are kept in reserve", ErrFull, free>>20, s.o.Reserve>>20)
	}
	return nil
}

var refForm = regexp.MustCompile(`^([0-9]{4}-[0-9]{2}/[0-9a-f]{16}-[0-9a-f]{8}\.pack):([0-9]{1,15}):([0-9]{1,8})$`)

// Get returns the blob of a tenant by its name. ref is what Put returned; without it the blob is looked for in every pack.
func (s *Store) Get(ctx context.Context, tenant event.TenantID, name [32]byte, ref string) ([]byte, error) {
	if ref == "" {
		var err error
		if ref, err = s.Find(ctx, name); err != nil {
			return nil, err
		}
	}
	m := refForm.FindStringSubmatch(ref)
	if m == nil {
		return nil, fmt.Errorf("get blob: %w: %.100q is no reference", ErrMissing, ref)
	}
	at, err1 := strconv.ParseInt(m[2], 10, 64)
	n, err2 := strconv.Atoi(m[3])
	if err := errors.Join(err1, err2); err != nil || n < headerSize || n > headerSize+MaxBlob+1024 {
		return nil, fmt.Errorf("get blob: %w: %.100q is no reference", ErrMissing, ref)
	}
	f, err := s.file(m[1])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("get blob %x: %w: its pack is gone", name[:8], ErrMissing)
	} else if err != nil {
		return nil, fmt.Errorf("get blob %x: %w", name[:8], err)
	}
	rec := make([]byte, n)
	if _, err := f.ReadAt(rec, at); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("get blob %x: %w: %s is shorter than that", name[:8], ErrCorrupt, m[1])
	} else if err != nil {
		return nil, fmt.Errorf("get blob %x: %w", name[:8], err)
	}
	var h header
	if !h.get(rec) || int(h.length) != n-headerSize || h.dataCRC != crc32.Checksum(rec[headerSize:], castagnoli) {
		return nil, fmt.Errorf("get blob %x: %w at %s", name[:8], ErrCorrupt, ref)
	}
	if h.name != name || h.tenant != uint32(tenant) {
		return nil, fmt.Errorf("get blob %x of member %d: %w at %s", name[:8], tenant, ErrMissing, ref)
	}
	key, err := s.o.Keys.Get(h.tenant, keys.Month(h.month))
	if errors.Is(err, keys.ErrKeyDestroyed) || err == nil && key.ID != h.keyID {
		return nil, fmt.Errorf("get blob %x: %w", name[:8], ErrDeleted)
	} else if err != nil {
		return nil, fmt.Errorf("get blob %x: %w", name[:8], err)
	}
	data, err := key.Open(rec[headerSize:headerSize], rec[headerSize:], aad(h.name, h.tenant, h.kind))
	if err != nil {
		return nil, fmt.Errorf("get blob %x: %w: %w", name[:8], ErrCorrupt, err)
	}
	return data, nil
}

// file returns a pack open for reading. Few packs are read at a time, and those are the newest.
func (s *Store) file(path string) (*os.File, error) {
	s.mu.RLock()
	f := s.files[path]
	s.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.files[path]; f != nil {
		return f, nil
	}
	f, err := os.Open(filepath.Join(s.o.Dir, path))
	if err != nil {
		return nil, err
	}
	if len(s.files) >= maxFiles {
		oldest := ""
		for p := range s.files {
			if oldest == "" || filepath.Base(p) < filepath.Base(oldest) {
				oldest = p
			}
		}
		// Someone may be reading it this moment; the file closes itself when the last reference is gone.
		delete(s.files, oldest)
	}
	s.files[path] = f
	return f, nil
}

// Find returns the reference of the newest blob of that name. It looks through the index of every pack.
func (s *Store) Find(ctx context.Context, name [32]byte) (string, error) {
	s.mu.RLock()
	at, ok := s.active[name]
	pack := s.pack
	s.mu.RUnlock()
	if ok {
		return fmt.Sprintf("%s:%d:%d", pack, at.offset, at.length), nil
	}
	packs, err := s.packs()
	if err != nil {
		return "", fmt.Errorf("find blob: %w", err)
	}
	for _, p := range packs {
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("find blob: %w", err)
		}
		at, ok, err := lookup(filepath.Join(s.o.Dir, indexOf(p)), name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // in use by another process, or gone since
		} else if err != nil {
			return "", fmt.Errorf("find blob in %s: %w", p, err)
		}
		if ok {
			return fmt.Sprintf("%s:%d:%d", p, at.offset, at.length), nil
		}
	}
	return "", fmt.Errorf("find blob %x: %w", name[:8], ErrMissing)
}

// PackOf is the pack that a reference of Put leads to; empty for anything else.
func PackOf(ref string) string {
	if m := refForm.FindStringSubmatch(ref); m != nil {
		return m[1]
	}
	return ""
}

// Expire removes the packs that were last written before a moment, are no longer in use and are not held, and returns how many and their
// bytes. It is for retention; what must be gone at once goes with its key. held is asked for each pack (as PackOf names it); nil holds none.
func (s *Store) Expire(ctx context.Context, before time.Time, held func(pack string) bool) (n int, size int64, err error) {
	packs, err := s.packs()
	if err != nil {
		return 0, 0, fmt.Errorf("expire blobs: %w", err)
	}
	for _, p := range packs {
		if err := ctx.Err(); err != nil {
			return n, size, fmt.Errorf("expire blobs: %w", err)
		}
		full := filepath.Join(s.o.Dir, p)
		if _, err := os.Stat(filepath.Join(s.o.Dir, indexOf(p))); err != nil {
			continue // in use
		}
		st, err := os.Stat(full)
		if err != nil || !st.ModTime().Before(before) || held != nil && held(p) {
			continue
		}
		// The pack goes first: an index without a pack finds nothing, a pack without an index would be repaired.
		if err := errors.Join(os.Remove(full), os.Remove(filepath.Join(s.o.Dir, indexOf(p)))); err != nil {
			return n, size, fmt.Errorf("expire blobs: %w", err)
		}
		s.mu.Lock()
		delete(s.files, p)
		s.mu.Unlock()
		n++
		size += st.Size()
	}
	return n, size, nil
}
