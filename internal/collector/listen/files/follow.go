package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// id is what a file keeps when it is renamed.
type id struct{ dev, ino uint64 }

// file is a followed file. It belongs to Serve's goroutine.
type file struct {
	place
	f       *os.File
	gone    time.Time // when its name was first seen to be another file's, or nobody's
	grown   time.Time // when it last had something new
	skip    bool      // the rest of an over-long line is being passed over
	partial int64     // size at which an unfinished line was last looked at
}

const (
	prints = 256 // first bytes of a file that tell it from another in the same inode
	// linger is how long a file that was rotated away is still read: its writer may not have noticed.
	linger = 5 * time.Second
)

func identify(st os.FileInfo) id {
	s := st.Sys().(*syscall.Stat_t)
	return id{uint64(s.Dev), s.Ino} //nolint:unconvert // Dev has other types elsewhere
}

func sum(b []byte) (s [16]byte) {
	h := sha256.Sum256(b)
	return [16]byte(h[:16])
}

// scan looks for files that match and are not followed yet, and for followed files whose name is another file's now.
func (in *Input) scan() {
	over := map[id]bool{} // a file may match more than one pattern
	for _, p := range in.o.Paths {
		names, err := filepath.Glob(p)
		if err != nil {
			continue
		}
		for _, name := range names {
			if packed(name) {
				continue
			}
			st, err := os.Stat(name)
			if err != nil || !st.Mode().IsRegular() {
				continue
			}
			if f := in.files[identify(st)]; f != nil {
				f.Path = name
				f.gone = time.Time{}
				in.last[name] = st.ModTime()
				continue
			}
			if len(in.files) >= maxFiles {
				over[identify(st)] = true
				continue
			}
			before, had := in.last[name]
			f, gone := in.begin(name, 0, in.o.FromEnd && !in.state.began)
			if had {
				in.siblings(name, before)
			} else if gone || f != nil && (id{f.Dev, f.Ino}) != identify(st) { // rotated away since the look at it
				in.siblings(name, st.ModTime())
			}
			if len(in.last) < 4*maxFiles {
				in.last[name] = st.ModTime()
			}
		}
	}
	if len(over) > 0 {
		in.say("many", "too many log files match; some are not read", fmt.Errorf("%d more than the %d that are followed at once", len(over), maxFiles))
	} else {
		delete(in.said, "many")
	}
	in.over.Store(int64(len(over)))
	in.state.began = true
	for k, f := range in.files {
		st, err := os.Stat(f.Path)
		if err == nil && identify(st) == k || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if f.gone.IsZero() {
			f.gone = in.o.Now()
			in.rotated.Add(1)
			in.siblings(f.Path, changed(f.f))
		}
	}
}

// siblings follows what was rotated away so soon after the file at path that it was never seen under that name: files in the same folder
// whose names begin with its name, and which have changed since. Files that were read to their end are not among them.
func (in *Input) siblings(path string, since time.Time) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 10_000 {
		return
	}
	base = strings.TrimSuffix(base, filepath.Ext(base))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), base) || packed(e.Name()) || len(in.files) >= maxFiles {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.ModTime().Before(since) || in.files[identify(info)] != nil || filepath.Join(dir, e.Name()) == path {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if f, _ := in.begin(name, 0, false); f != nil {
			switch {
			case in.finished(f):
				f.f.Close()
				delete(in.files, id{f.Dev, f.Ino})
			case !in.wanted(name):
				f.Path, f.gone = path, in.o.Now()
			}
		}
	}
	in.open.Store(int64(len(in.files)))
}

// changed is when the file was last written to.
func changed(f *os.File) time.Time {
	st, err := f.Stat()
	if err != nil {
		return time.Now()
	}
	return st.ModTime()
}

// finished says whether the file was read to its end lately.
func (in *Input) finished(f *file) bool {
	return slices.ContainsFunc(in.state.Done, func(p place) bool { return p.Dev == f.Dev && p.Ino == f.Ino && same(f.f, &p) })
}

// wanted says whether a name matches the patterns.
func (in *Input) wanted(name string) bool {
	return slices.ContainsFunc(in.o.Paths, func(p string) bool { ok, _ := filepath.Match(p, name); return ok })
}

// packed says whether a name is that of a compressed file.
func packed(name string) bool {
	return slices.Contains([]string{".gz", ".zst", ".xz", ".bz2", ".zip"}, strings.ToLower(filepath.Ext(name)))
}

// begin follows a file from an offset on. It says whether the file is not there any more.
func (in *Input) begin(name string, offset int64, atEnd bool) (nf *file, gone bool) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) { // a rotation just now, which the next look sees
		in.o.Logger.Info("a log file was renamed or deleted between being seen and being opened; it is looked for beside its name", "file", name)
		return nil, true
	}
	if err != nil {
		text := "cannot open a log file; trying again"
		if errors.Is(err, fs.ErrPermission) {
			text = "cannot read a log file: let the collector's user read it"
		}
		in.say(name, text, err)
		return nil, false
	}
	delete(in.said, name)
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, false
	}
	k := identify(st)
	if atEnd {
		offset = st.Size()
	}
	nf = &file{place: place{Path: name, Dev: k.dev, Ino: k.ino, Offset: offset}, f: f, grown: in.o.Now()}
	in.print(nf)
	in.files[k] = nf
	in.open.Store(int64(len(in.files)))
	in.dirty = true
	return nf, false
}

// print remembers the first bytes of a file, as many as there are.
func (in *Input) print(f *file) {
	if f.Prints >= prints {
		return
	}
	b := make([]byte, prints)
	if n, err := readAt(f.f, b, 0); err == nil && n > f.Prints {
		f.Prints, f.Print = n, sum(b[:n])
	}
}

// same says whether the file still begins as it did.
func same(f *os.File, p *place) bool {
	if p.Prints == 0 {
		return true
	}
	b := make([]byte, p.Prints)
	n, err := readAt(f, b, 0)
	return err == nil && n == p.Prints && sum(b) == p.Print
}

// restore opens the files that were followed before the program ended, where they are now.
func (in *Input) restore() {
	old := in.state.Files
	in.base, in.begun, in.state.Files = slices.Clone(old), in.state.Drop.clone(), nil
	looked := map[string]bool{}
	for _, p := range old {
		looked[p.Path] = true
	}
	for _, p := range in.state.Done {
		if !looked[p.Path] {
			looked[p.Path] = true
			defer in.siblings(p.Path, time.Unix(0, in.state.Saved)) // when those of the old list are known
		}
	}
	for _, p := range old {
		if len(in.files) >= maxFiles {
			break
		}
		name, ok := whereIs(&p)
		if !ok {
			in.siblings(p.Path, time.Unix(0, in.state.Saved))
			if _, err := os.Stat(p.Path); err == nil || !errors.Is(err, fs.ErrNotExist) {
				// Another file has the name and the old one is not beside it: what it had after our place, nobody can say.
				in.lost.Add(1)
				in.o.Logger.Warn("a log file was rotated away while the collector was not running, and is not in its folder any more; what it held after the last place is not read", "file", p.Path, "place", p.Offset)
			}
			continue
		}
		if f, _ := in.begin(name, p.Offset, false); f != nil {
			f.Path, f.Prints, f.Print = p.Path, p.Prints, p.Print
			if name != p.Path {
				in.o.Logger.Info("a log file was rotated while the collector was not running; reading the rest of the old one", "file", name)
				in.rotated.Add(1)
				if !in.wanted(name) {
					f.gone = in.o.Now()
				}
				in.last[p.Path] = changed(f.f)
				in.siblings(p.Path, changed(f.f))
			}
			in.print(f)
		} else {
			in.state.absent = append(in.state.absent, p) // it cannot be read now: its place is kept
		}
	}
	if len(old) > 0 {
		in.state.began = true
	}
}

// whereIs finds a file by its inode and first bytes: under its name, or in the same folder.
func whereIs(p *place) (string, bool) {
	is := func(name string) bool {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrPermission) {
			st, err := os.Stat(name)
			return err == nil && identify(st) == id{p.Dev, p.Ino}
		}
		if err != nil {
			return false
		}
		defer f.Close()
		st, err := f.Stat()
		return err == nil && st.Mode().IsRegular() && identify(st) == id{p.Dev, p.Ino} && same(f, p)
	}
	if is(p.Path) {
		return p.Path, true
	}
	dir := filepath.Dir(p.Path)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 10_000 {
		return "", false
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && identify(info) == (id{p.Dev, p.Ino}) && is(filepath.Join(dir, e.Name())) {
			return filepath.Join(dir, e.Name()), true
		}
	}
	return "", false
}

// follow reads one chunk of each file that has grown, and says whether there is more.
func (in *Input) follow(ctx context.Context) (more bool, err error) {
	now := in.o.Now()
	for _, f := range sorted(in.files) {
		if ctx.Err() != nil {
			return false, nil
		}
		st, err := f.f.Stat()
		if err != nil {
			in.say(f.Path, "cannot read a log file", err)
			continue
		}
		size := st.Size()
		if size != f.Size || size < f.Offset { // also after a restart
			if size < f.Offset || !same(f.f, &f.place) {
				in.truncated.Add(1)
				in.o.Logger.Info("a log file was cut off or written anew; reading it from its start", "file", f.Path)
				f.Offset, f.skip, f.partial = 0, false, 0
				f.Prints = 0
			}
			f.Size = size
			f.grown = now
			in.print(f)
			in.dirty = true
		}
		ended := !f.gone.IsZero() && now.Sub(f.grown) >= linger && now.Sub(f.gone) >= linger
		if size > f.Offset && (size != f.partial || ended) {
			again, err := in.read(f, size, ended)
			if err != nil {
				return false, err
			}
			more = more || again
			if again {
				continue
			}
		}
		if ended && f.Offset >= size {
			f.f.Close()
			delete(in.files, id{f.Dev, f.Ino})
			in.open.Store(int64(len(in.files)))
			if in.state.Done = append(in.state.Done, f.place); len(in.state.Done) > maxDone {
				in.state.Done = slices.Delete(in.state.Done, 0, 1)
			}
			in.dirty = true
		}
	}
	return more, nil
}

func sorted(files map[id]*file) []*file {
	out := make([]*file, 0, len(files))
	for _, f := range files {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b *file) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// read takes the whole lines of one chunk. last: what has no line end is a line too.
func (in *Input) read(f *file, size int64, last bool) (more bool, err error) {
	want := int(min(int64(in.o.Chunk), size-f.Offset))
	buf := make([]byte, max(want, 0))
	n, err := readAt(f.f, buf, f.Offset)
	if err != nil {
		in.say(f.Path, "cannot read a log file", err)
		return false, nil
	}
	buf = buf[:n]
	if f.Offset == 0 {
		if bytes.HasPrefix(buf, []byte("\xef\xbb\xbf")) { // a byte order mark
			clear(buf[:3])
		}
	}
	in.out.file = stream(f.Path)
	used, skip := 0, f.skip
	for used < len(buf) {
		b := buf[used:]
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			switch {
			case skip:
				used = len(buf)
			case len(b) > in.o.MaxLine:
				_ = in.out.add(trim(b[:in.o.MaxLine]), true)
				used, skip = len(buf), true
			case last && f.Offset+int64(len(buf)) >= size:
				_ = in.out.add(trim(b), false)
				used = len(buf)
			}
			break
		}
		if !skip {
			text, cut := trim(b[:end]), false
			if len(text) > in.o.MaxLine {
				text, cut = text[:in.o.MaxLine], true
			}
			_ = in.out.add(text, cut)
		}
		skip = false
		used += end + 1
	}
	if err := in.out.flush(); err != nil {
		return false, err
	}
	f.partial = 0
	if used > 0 {
		f.Offset += int64(used)
		f.skip = skip
		in.dirty = true
	} else {
		f.partial = size // an unfinished line: look again when there is more
	}
	return used > 0 && f.Offset < size, nil
}

// trim takes the rest of a line end off, and NULs: a writer that does not append leaves a hole after the file was cut off.
func trim(b []byte) []byte {
	return bytes.TrimRight(bytes.TrimLeft(b, "\x00"), "\r\n\x00")
}
