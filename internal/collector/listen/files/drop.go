package files

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
)

// dropped is what is known of the drop folder between two looks.
type dropped struct {
	seen  map[string]standing
	whole string // the file begun before a crash that has been read to its end since, and is not moved yet
}

// standing is since when a file has had its size and time.
type standing struct {
	size  int64
	mod   time.Time
	since time.Time
}

// takeDropped takes the files of the drop folder that have stopped changing.
func (in *Input) takeDropped(ctx context.Context) error {
	entries, err := os.ReadDir(in.o.Drop)
	if err != nil {
		in.say("drop", "cannot read the drop folder", err)
		return nil
	}
	delete(in.said, "drop")
	if d := in.state.Drop; d != nil { // what was begun is finished first
		if i := slices.IndexFunc(entries, func(e os.DirEntry) bool { return e.Name() == d.Name }); i > 0 {
			e := entries[i]
			entries = slices.Insert(slices.Delete(entries, i, i+1), 0, e)
		}
	}
	now := in.o.Now()
	seen := map[string]standing{}
	for _, e := range entries {
		name := e.Name()
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || unfinished(name) || len(seen) > 10_000 {
			continue
		}
		s := in.drop.seen[name]
		if s.since.IsZero() || s.size != info.Size() || !s.mod.Equal(info.ModTime()) {
			s = standing{info.Size(), info.ModTime(), now}
		}
		seen[name] = s
		if now.Sub(s.since) < in.o.Settle || ctx.Err() != nil {
			continue
		}
		// While lines of before a crash are passed over, places are not written: only the file that was begun then is read, the others wait.
		if in.out.known != nil && (in.state.Drop == nil || in.state.Drop.Name != name) {
			continue
		}
		err = in.take(ctx, name, info)
		if errors.Is(err, errStop) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, fs.ErrPermission) && !in.said["drop:"+name] {
			in.say("drop:"+name, "cannot take a dropped file: let the collector's user read it and write to the folder", err)
		}
		if !errors.Is(err, fs.ErrPermission) {
			if in.finish(name, err); in.state.Drop != nil { // it stands there still: with another begun, how far it was read would be forgotten
				for n, s := range in.drop.seen {
					if _, ok := seen[n]; !ok {
						seen[n] = s
					}
				}
				break
			}
		}
		delete(seen, name)
	}
	in.drop.seen = seen
	return nil
}

// mayWrite says what lets the collector write in a folder.
func mayWrite(dir string, err error) string {
	if errors.Is(err, syscall.EROFS) {
		return "for the collector it is read-only. If it runs as a service: make the folder if it is not there (install -d -o tocsin-collector " + dir + "), because without it the service would not start; then systemctl edit tocsin-collector, write [Service] and below it ReadWritePaths=" + dir + ", then systemctl restart tocsin-collector"
	}
	return "let the collector's user write there, and make it if it is not there"
}

// unfinished says whether a name is one that programs use while they still write.
func unfinished(name string) bool {
	if strings.HasPrefix(name, ".") {
		return true
	}
	for _, s := range []string{".tmp", ".part", ".filepart", ".crdownload", "~"} {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}

// take gives the sink everything in one file. After a crash it goes on where the places say.
func (in *Input) take(ctx context.Context, name string, info os.FileInfo) error {
	f, err := os.Open(filepath.Join(in.o.Drop, name))
	if err != nil {
		return err
	}
	defer f.Close()
	at := dropPlace{Name: name, Size: info.Size(), Time: info.ModTime().UnixNano()}
	pass := 0
	if p := in.state.Drop; p != nil && p.Name == at.Name && p.Size == at.Size && p.Time == at.Time {
		pass = p.Records
	}
	in.state.Drop = &at
	in.dirty = true
	if pass == 0 {
		in.save() // so that after a crash what is received from here on is known to be this file's
	}
	in.out.file = stream(filepath.Join(in.o.Drop, name))
	at.Records = pass
	records := 0
	pending := 0
	flush := func() error {
		if err := in.out.flush(); err != nil {
			return err
		}
		at.Records += pending
		pending = 0
		in.dirty = true
		if in.o.Now().Sub(in.saved) >= time.Second {
			in.save()
		}
		return ctx.Err()
	}
	emit := func(text []byte, cut bool) error {
		if records++; records <= pass {
			return nil
		}
		pending++
		if err := in.out.add(bytes.Clone(text), cut); err != nil {
			return err
		}
		if in.out.size >= in.o.Chunk || len(in.out.lines) >= 2000 {
			return flush()
		}
		return nil
	}
	if err := in.decode(f, emit); err != nil {
		// What was read before the damage has been received, or is now.
		if ferr := flush(); ferr != nil {
			return ferr
		}
		return err
	}
	return flush()
}

// decode finds out what a file is and reads it.
func (in *Input) decode(f *os.File, emit func(text []byte, cut bool) error) error {
	head := make([]byte, 16)
	n, err := readAt(f, head, 0)
	if err != nil {
		return err
	}
	head = head[:n]
	for _, d := range in.o.Decoders {
		if d.Knows(head) {
			if err := d.Read(f, func(text []byte) error {
				if len(text) > in.o.MaxLine {
					return emit(text[:in.o.MaxLine], true)
				}
				return emit(text, false)
			}); err != nil {
				return fmt.Errorf("%s: %w", d.Name, err)
			}
			return nil
		}
	}
	var r io.Reader = f
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(bufio.NewReader(f))
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		r = z
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(f, zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		defer z.Close()
		r = z
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return errors.New("a zip archive: unpack it first")
	case bytes.HasPrefix(head, []byte{0xff, 0xfe}), bytes.HasPrefix(head, []byte{0xfe, 0xff}):
		return errors.New("text in UTF-16: save it as UTF-8")
	case bytes.IndexByte(head, 0) >= 0:
		return errors.New("not a text file, and no kind of file that is known here")
	}
	return splitLines(r, in.o.MaxLine, emit)
}

// splitLines gives emit each line of r; text is valid until it returns.
func splitLines(r io.Reader, maxLine int, emit func(text []byte, cut bool) error) error {
	in := bufio.NewReaderSize(r, max(256<<10, maxLine+1))
	first := true
	for {
		b, err := in.ReadSlice('\n')
		cut := errors.Is(err, bufio.ErrBufferFull)
		if len(b) > 0 {
			if first {
				b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
				first = false
			}
			text := trim(b)
			long := cut || len(text) > maxLine
			if len(text) > maxLine {
				text = text[:maxLine]
			}
			if len(text) > 0 {
				if err := emit(text, long); err != nil {
					return err
				}
			}
		}
		for cut {
			_, err = in.ReadSlice('\n')
			cut = errors.Is(err, bufio.ErrBufferFull)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish moves a file that was read to done/, or to failed/ with the reason.
func (in *Input) finish(name string, cause error) {
	in.save() // what it held is durable before it goes
	if in.dirty {
		in.drop.whole = name
		return // it is not, or not yet: the file is taken again, and its records are passed over
	}
	dir := "done"
	if cause != nil {
		dir = "failed"
	}
	to := filepath.Join(in.o.Drop, dir, name)
	for i := 1; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) || i > 1000 {
			break
		}
		to = filepath.Join(in.o.Drop, dir, fmt.Sprintf("%s.%d", name, i))
	}
	if err := os.Rename(filepath.Join(in.o.Drop, name), to); err != nil {
		in.say("drop:"+name, "cannot move a file that was read out of the drop folder: "+mayWrite(in.o.Drop, err), err)
		return
	}
	now := in.o.Now()
	_ = os.Chtimes(to, now, now) // for pruneDone; if it fails the file goes by its own age
	in.state.Drop, in.drop.whole = nil, ""
	in.dirty = true
	if cause == nil {
		in.done.Add(1)
		in.o.Logger.Info("read a dropped file", "file", name)
		return
	}
	in.failed.Add(1)
	in.o.Logger.Error("cannot read a dropped file; it is in failed/ with the reason beside it", "file", name, "error", cause)
	_ = os.WriteFile(to+".reason.txt", fmt.Appendf(nil, "%s: %v\nWhat was read before that was taken. Mend the file and put it into the folder again; lines that were taken will then come twice.\n", name, cause), 0o640) // the log has it too
}

// pruneDone deletes what has been in done/ for long.
func (in *Input) pruneDone(now time.Time) {
	dir := filepath.Join(in.o.Drop, "done")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > in.o.KeepDone {
			_ = os.Remove(filepath.Join(dir, e.Name())) // tried again in an hour
		}
	}
}
