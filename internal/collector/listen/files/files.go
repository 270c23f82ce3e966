package files

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tocsin/internal/collector/listen"
)

// Options say what to read. Paths or Drop, and State, are needed.
type Options struct {
	Paths   []string // files and patterns (filepath.Match) to follow
	Drop    string   // folder whose files are taken whole
	State   string   // file of the places
	FromEnd bool     // pass over what is in a followed file when it is seen for the first time
	MaxLine int      // bytes; default 64 KiB
	Poll    time.Duration
	// Settle is how long a dropped file must have stood still. Default 2 s.
	Settle time.Duration
	// KeepDone is how long files stay in done/. Default 30 days.
	KeepDone time.Duration
	// Chunk is how many bytes of a file are read at once, and always room for one line. Default 256 KiB.
	Chunk int
	// Decoders read dropped files that are not lines. The first that knows the file's first bytes gets it.
	Decoders []Decoder
	Now      func() time.Time
	Logger   *slog.Logger
}

// Decoder reads one kind of file.
type Decoder struct {
	Name  string
	Knows func(head []byte) bool
	// Read gives emit every record as one line of text, in an order that is the same each time. It ends with emit's error when that gives one.
	Read func(f *os.File, emit func(text []byte) error) error
}

const (
	maxFiles = 1024 // followed at once
	maxDone  = 256  // of so many that were rotated away it is remembered that they were read to their end
)

// Input reads files. Serve may be called once.
type Input struct {
	o     Options
	state *state
	sink  listen.Sink
	files map[id]*file
	base  []place              // those in the file of places
	begun *dropPlace           // the one there
	last  map[string]time.Time // when the file that had a name was last seen to have changed
	out   batch
	saved time.Time
	dirty bool
	drop  dropped

	lines, bytes, cut, rotated, truncated, lost, done, failed atomic.Uint64
	open, over                                                atomic.Int64    // over: files that match and are not followed
	said                                                      map[string]bool // problems that were logged and still hold
}

// New checks the options and reads the places.
func New(o Options) (*Input, error) {
	if o.MaxLine <= 0 {
		o.MaxLine = 64 << 10
	}
	if o.Chunk <= 0 {
		o.Chunk = 256 << 10
	}
	o.Chunk = max(o.Chunk, o.MaxLine+2)
	if o.Poll <= 0 {
		o.Poll = 250 * time.Millisecond
	}
	if o.Settle <= 0 {
		o.Settle = 2 * time.Second
	}
	if o.KeepDone <= 0 {
		o.KeepDone = 30 * 24 * time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, p := range o.Paths {
		if _, err := filepath.Match(p, ""); err != nil || !filepath.IsAbs(p) {
			return nil, fmt.Errorf("%q is not an absolute path or pattern, such as /var/log/firewall/*.log", p)
		}
	}
	if o.Drop != "" {
		if !filepath.IsAbs(o.Drop) {
			return nil, fmt.Errorf("drop folder %q is not an absolute path", o.Drop)
		}
		for _, d := range []string{o.Drop, filepath.Join(o.Drop, "done"), filepath.Join(o.Drop, "failed")} {
			if err := os.MkdirAll(d, 0o750); err != nil {
				return nil, fmt.Errorf("drop folder: %w: %s", err, mayWrite(o.Drop, err))
			}
		}
	}
	st, err := readState(o.State)
	if err != nil {
		o.Logger.Error("the places in the log files cannot be read; they are read from the start, and lines that were read before are sent again", "error", err)
		st = &state{}
	}
	return &Input{o: o, state: st, files: map[id]*file{}, last: map[string]time.Time{}, drop: dropped{seen: map[string]standing{}}, said: map[string]bool{}}, nil
}

// Addr says what is read.
func (in *Input) Addr() net.Addr {
	names := in.o.Paths
	if in.o.Drop != "" {
		names = append(names[:len(names):len(names)], in.o.Drop+"/")
	}
	return addr(strings.Join(names, ", "))
}

type addr string

func (addr) Network() string  { return "file" }
func (a addr) String() string { return string(a) }

// Stats are the counters so far. Conns are the files open.
func (in *Input) Stats() listen.Stats {
	return listen.Stats{Lines: in.lines.Load(), Bytes: in.bytes.Load(), Cut: in.cut.Load(), Conns: in.open.Load(), By: map[string]uint64{
		"rotations": in.rotated.Load(), "truncations": in.truncated.Load(), "rotated_away_unread": in.lost.Load(),
		"files_done": in.done.Load(), "files_failed": in.failed.Load()}}
}

// Unfollowed is how many files match and are not read, because more than 1,024 do.
func (in *Input) Unfollowed() int { return int(in.over.Load()) }

// Close does nothing: Serve closes what it opened.
func (in *Input) Close() error { return nil }

// errStop means that the sink takes no more.
var errStop = errors.New("the sink takes no more")

// Serve reads until ctx ends or the sink takes no more.
func (in *Input) Serve(ctx context.Context, sink listen.Sink) error {
	in.sink = sink
	in.out = batch{in: in, ctx: ctx, via: listen.ViaLocal}
	defer func() {
		for _, f := range in.files {
			f.f.Close()
		}
	}()
	if err := in.recall(); err != nil {
		return err
	}
	in.restore()
	tick := time.NewTicker(in.o.Poll)
	defer tick.Stop()
	scanned, pruned := in.o.Now(), time.Time{}
	in.scan()
	in.keepNew()
	for {
		now := in.o.Now()
		if now.Sub(scanned) >= min(time.Second, 4*in.o.Poll) {
			scanned = now
			in.scan()
			in.keepNew()
		}
		more, err := in.follow(ctx)
		if err == nil && in.o.Drop != "" {
			err = in.takeDropped(ctx)
			if now.Sub(pruned) > time.Hour {
				pruned = now
				in.pruneDone(now)
			}
		}
		if err == nil && !more && in.out.known != nil && !in.unfinishedDrop() {
			in.out.known = nil // everything that was there before the crash has been passed: what comes now is new, also when it reads the same
		}
		if errors.Is(err, errStop) {
			err = nil
		} else if err == nil && ctx.Err() == nil {
			if now.Sub(in.saved) >= time.Second {
				in.save()
			}
			if more {
				continue
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
				continue
			}
		}
		in.save()
		return err
	}
}

// save makes the places durable, after what was read up to them. While lines of before a crash are still being passed over they stay as they
// are: behind newer places and a newer mark, what has still to be passed over would not be known after another crash.
func (in *Input) save() {
	if !in.dirty || in.out.known != nil {
		return
	}
	in.saved = in.o.Now()
	if s, ok := in.sink.(listen.Syncer); ok {
		if err := s.Sync(); err != nil {
			in.say("sync", "cannot make what was read durable; the places in the files stay where they are", err)
			return
		}
	}
	in.state.Files = in.state.Files[:0]
	for _, f := range in.files {
		in.state.Files = append(in.state.Files, f.place)
	}
	in.state.Files = append(in.state.Files, in.state.absent...)
	if r, ok := in.sink.(listen.Recaller); ok {
		in.state.Mark = r.Mark()
	}
	in.state.Saved = time.Now().UnixNano()
	if !in.write() {
		return
	}
	in.base, in.begun = slices.Clone(in.state.Files), in.state.Drop.clone()
	in.dirty = false
	delete(in.said, "sync")
}

// write writes the state as it is.
func (in *Input) write() bool {
	if err := in.state.write(in.o.State); err != nil {
		in.say("state", "cannot write the places in the files", err)
		return false
	}
	delete(in.said, "state")
	return true
}

// keepNew makes the files that were found durable before anything of them is read: a file that is rotated away after a crash is then looked for.
func (in *Input) keepNew() {
	fresh := in.state.Mark == 0
	base := in.base
	for _, f := range in.files {
		if !slices.ContainsFunc(in.base, func(p place) bool { return p.Dev == f.Dev && p.Ino == f.Ino }) {
			fresh = true
			base = append(base, f.place)
		}
	}
	if !fresh {
		return
	}
	in.dirty = true
	if in.out.known == nil {
		in.save()
		return
	}
	in.base = base
	in.keepOld()
}

// keepOld writes the places and the mark of before the crash again, with what has been found since: see save.
func (in *Input) keepOld() {
	drop := in.state.Drop
	in.state.Files, in.state.Drop = slices.Clone(in.base), in.begun
	in.write()
	in.state.Drop = drop
}

// say logs a problem once, until it is over.
func (in *Input) say(what, text string, err error) {
	if !in.said[what] && len(in.said) < 1000 {
		in.said[what] = true
		in.o.Logger.Error(text, "error", err)
	}
}

// recall asks the sink what it received after the places were written: those lines are in the files after the places, and are passed over.
func (in *Input) recall() error {
	r, ok := in.sink.(listen.Recaller)
	if !ok || in.state.Mark == 0 {
		return nil
	}
	known := map[[16]byte]int{}
	if err := r.Since(in.state.Mark, func(text []byte) { known[sum(text)]++ }); err != nil {
		return fmt.Errorf("log files: %w", err)
	}
	if len(known) > 0 {
		in.out.known = known
	}
	return nil
}

// unfinishedDrop says whether a dropped file that was being read when the program ended is still to be read to its end.
func (in *Input) unfinishedDrop() bool {
	if in.o.Drop == "" || in.state.Drop == nil {
		return false
	}
	_, err := os.Stat(filepath.Join(in.o.Drop, in.state.Drop.Name))
	return err == nil && in.drop.whole != in.state.Drop.Name && !in.said["drop:"+in.state.Drop.Name] // which cannot be taken: that must not hold up the places
}

// batch gathers lines for the sink.
type batch struct {
	in    *Input
	ctx   context.Context // Serve's; a batch lives within one call of it
	via   listen.Via
	file  uint32 // of the lines that are added now: listen.Line.Stream
	lines []listen.Line
	size  int
	known map[[16]byte]int // lines that the sink has from before a crash
}

// add takes a line; text must stay as it is until flush.
func (b *batch) add(text []byte, cut bool) error {
	if len(text) == 0 {
		return nil
	}
	if b.known != nil {
		k := sum(text)
		if n := b.known[k]; n > 0 {
			if b.known[k]--; n == 1 {
				delete(b.known, k)
			}
			if len(b.known) == 0 {
				b.known = nil
			}
			return nil
		}
	}
	if cut {
		b.in.cut.Add(1)
	}
	b.lines = append(b.lines, listen.Line{Created: b.in.o.Now().UnixNano(), Via: b.via, Stream: b.file, Cut: cut, Text: text})
	b.size += len(text)
	return nil
}

// flush gives the sink what was gathered. Only when it returns nil do the places move.
func (b *batch) flush() error {
	if len(b.lines) == 0 {
		return nil
	}
	err := b.in.sink.Receive(b.ctx, b.lines)
	if err == nil {
		b.in.lines.Add(uint64(len(b.lines)))
		b.in.bytes.Add(uint64(b.size))
	} else {
		err = fmt.Errorf("%w: %w", errStop, err)
	}
	b.lines, b.size = b.lines[:0], 0
	return err
}

// stream names a file by its path, also when it was rotated away, for listen.Line.
func stream(path string) uint32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, path) // never fails
	return max(h.Sum32(), 1)
}

func readAt(f *os.File, b []byte, at int64) (int, error) {
	n, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
