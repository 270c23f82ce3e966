package files

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	maxEntries = 10_000
	maxDone    = 256
	// relooks is how often a folder is listed again after it changed: a change within the same tick of its file system's clock shows no other time.
	relooks = 5
)

// folder is what is known of a folder that holds followed files.
type folder struct {
	mod    time.Time // its own time when it was last listed: what came into it later has not been looked at
	left   int       // listings to come although it looks unchanged
	listed time.Time // by Options.Now
}

// look finds files that were rotated away before they were ever seen under their own name: made and renamed between two looks, or while the
// program was not running. What is not followed yet, was written to since its folder was last listed, and has the usual name of a rotated file
// (origin) is read from its start. A copy that copytruncate made of a followed file is known by its bytes, and only what the writer
// added between our last look at the file and its being cut is read of it. At the first start of all nothing is: that is history.
func (in *Input) look(first bool) {
	now := in.o.Now()
	var dirs []string
	for _, p := range in.o.Paths {
		d := []string{filepath.Dir(p)}
		if strings.ContainsAny(d[0], `*?[\`) {
			d, _ = filepath.Glob(d[0]) // New checked the pattern
		}
		for _, d := range d {
			if len(dirs) < maxFiles && !slices.Contains(dirs, d) {
				dirs = append(dirs, d)
			}
		}
	}
	for _, dir := range dirs {
		st, err := os.Stat(dir)
		if err != nil || !st.IsDir() {
			continue
		}
		f := in.folders[dir]
		switch {
		case f == nil:
			f = &folder{mod: in.before, left: relooks}
			if at, ok := in.state.Folders[dir]; ok {
				f.mod = time.Unix(0, at)
			}
			in.folders[dir] = f
		case st.ModTime().Equal(f.mod) && f.left == 0 && now.Sub(f.listed) < time.Minute: // some file systems give folders no times
			continue
		case !st.ModTime().Equal(f.mod):
			f.left = relooks
		}
		since := f.mod
		if first {
			since = st.ModTime()
		}
		f.left = max(f.left-1, 0)
		f.listed = now
		if in.list(dir, since.Add(-2*time.Second), first) { // some keep whole seconds of their files' times
			f.mod = st.ModTime()
		} else {
			f.left = max(f.left, 1)
		}
	}
	clear(in.missed)
	if len(in.folders) > 2*maxFiles { // a pattern of folders by the day
		for dir := range in.folders {
			if !slices.Contains(dirs, dir) {
				delete(in.folders, dir)
			}
		}
	}
}

// keepFolders writes the folders' times down: what was found up to them is among the places.
func (in *Input) keepFolders() {
	if in.state.Folders == nil || len(in.state.Folders) > maxFiles {
		in.state.Folders = map[string]int64{}
	}
	for dir, f := range in.folders {
		in.state.Folders[dir] = f.mod.UnixNano()
	}
}

// list looks at the files of one folder, and says whether all of them could be judged.
func (in *Input) list(dir string, since time.Time, first bool) (whole bool) {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > maxEntries {
		err = fmt.Errorf("%d files in it, %d at most", len(entries), maxEntries)
	}
	if err != nil {
		in.say("list:"+dir, "cannot look for rotated log files in a folder; one that is rotated away before it is seen will not be read", err)
		return true
	}
	delete(in.said, "list:"+dir)
	stems := map[string]string{}
	for _, p := range in.places() {
		if d, base := filepath.Split(p.Path); filepath.Clean(d) == filepath.Clean(dir) && filepath.Ext(base) != "" {
			stems[strings.TrimSuffix(base, filepath.Ext(base))] = p.Path
		}
	}
	whole = true
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if !e.Type().IsRegular() || packed(name) || in.wanted(name) {
			continue
		}
		from := in.origin(dir, e.Name(), stems)
		if from == "" {
			continue
		}
		info, err := e.Info()
		if err != nil {
			whole = false // renamed meanwhile
			continue
		}
		k := identify(info)
		missed := in.missed[k]
		if !info.Mode().IsRegular() || info.Size() == 0 || in.files[k] != nil || info.ModTime().Before(since) && !missed {
			continue
		}
		if len(in.files) >= maxFiles {
			in.say("many", "too many log files; some are not followed", fmt.Errorf("more than %d files match", maxFiles))
			return false
		}
		told := in.said[name]
		f := in.begin(name, 0, false)
		switch {
		case f == nil && in.said[name]: // it must not be read
			if !told {
				in.lost.Add(1)
			}
		case f == nil:
			whole = false
		case k != id{f.Dev, f.Ino}: // renamed meanwhile
			in.forget(f)
			whole = false
		default:
			atStart := f.Offset == 0
			f.Path = from
			if atStart && !in.judge(f, info.Size(), first && !missed) {
				whole = false
			} else if !atStart {
				f.gone = in.o.Now()
			}
		}
	}
	return whole
}

// forget closes a file and follows it no more.
func (in *Input) forget(f *file) {
	f.f.Close()
	delete(in.files, id{f.Dev, f.Ino})
	in.open.Store(int64(len(in.files)))
}

// settle closes a file that nothing is to be read of any more.
func (in *Input) settle(f *file, size int64) {
	f.Offset = size
	in.forget(f)
	in.past(f.place)
}

// past remembers a place in a file that was read to its end or cut off.
func (in *Input) past(p place) {
	in.state.Done = slices.DeleteFunc(in.state.Done, func(o place) bool { return o.Dev == p.Dev && o.Ino == p.Ino })
	if in.state.Done = append(in.state.Done, p); len(in.state.Done) > maxDone {
		in.state.Done = slices.Delete(in.state.Done, 0, 1)
	}
	in.dirty = true
}

// copying is what was seen of a copy of a followed file.
type copying struct {
	size int64
	n    int // looks at that size
}

// judge decides what is still to be read of a rotated file that was found, and says whether that could be decided. What is wholly read is followed no more.
func (in *Input) judge(f *file, size int64, history bool) bool {
	k := id{f.Dev, f.Ino}
	if history {
		in.settle(f, size)
		return true
	}
	for _, live := range in.files {
		if live == f || live.Path != f.Path || !begins(live.f, f.f, size) {
			continue
		}
		// A copy of a file that is there still, perhaps one that is being made: what is in it is read from the file itself.
		c := in.copies[k]
		if c.size != size {
			c = copying{size: size}
		}
		if c.n++; c.n > 1 && (live.Offset >= size || c.n > 20) {
			delete(in.copies, k)
			in.settle(f, size)
			return true
		}
		if len(in.copies) >= maxFiles {
			clear(in.copies)
		}
		in.copies[k] = c
		in.forget(f)
		return false
	}
	delete(in.copies, k)
	var of *place // what is known of its beginning, the farthest
	for _, p := range in.places() {
		if &f.place != p && p.Path == f.Path && copied(f.f, size, p) && (of == nil || p.Offset > of.Offset) {
			of = p
		}
	}
	switch {
	case of == nil:
	case of.Dev == f.Dev && of.Ino == f.Ino: // itself: its writer has noticed late
		f.Offset, f.Tails, f.Tail = of.Offset, of.Tails, of.Tail
	case of.Copied: // another copy of the same
		f.Offset = size
	default:
		f.Offset, of.Copied = of.Offset, true
	}
	if f.Offset >= size {
		in.settle(f, size)
		return true
	}
	f.gone = in.o.Now()
	in.rotated.Add(1)
	in.o.Logger.Info("reading a log file that was rotated before it had been read to its end", "file", f.f.Name(), "from", f.Offset)
	return true
}

// places are those of the files that are followed and of those read or cut off lately.
func (in *Input) places() []*place {
	out := make([]*place, 0, len(in.files)+len(in.state.Done))
	for _, f := range sorted(in.files) {
		out = append(out, &f.place)
	}
	for i := range in.state.Done {
		out = append(out, &in.state.Done[i])
	}
	return out
}

// copied says whether a file of that size is a copy of what was read up to p, perhaps with more behind it.
func copied(f *os.File, size int64, p *place) bool {
	if p.Prints == 0 || p.Offset == 0 || size < p.Offset || !same(f, p) {
		return false
	}
	b := make([]byte, p.Tails)
	n, err := readAt(f, b, p.Offset-int64(p.Tails))
	return err == nil && n == p.Tails && (n == 0 || sum(b) == p.Tail)
}

// begins says whether a file begins with all of another one, as far as the first and last bytes of that tell.
func begins(f, with *os.File, size int64) bool {
	st, err := f.Stat()
	if err != nil || st.Size() < size {
		return false
	}
	a, b := make([]byte, min(prints, size)), make([]byte, min(prints, size))
	for _, at := range []int64{0, size - int64(len(a))} {
		n, err1 := readAt(f, a, at)
		m, err2 := readAt(with, b, at)
		if err1 != nil || err2 != nil || n != len(a) || m != len(b) || string(a) != string(b) {
			return false
		}
	}
	return true
}

// origin is the path that a rotated file of that name had, when that is one that is followed: "fw.log" of fw.log.1, fw.log-20261123,
// fw-20261123.log, fw.1.log, fw.log.old, and fw.1 where fw.log is followed; otherwise "". stems
// are the names of the folder's followed files without their endings.
func (in *Input) origin(dir, name string, stems map[string]string) string {
	if bare, ok := strings.CutSuffix(name, "~"); ok && in.wanted(filepath.Join(dir, bare)) {
		return filepath.Join(dir, bare)
	}
	for _, ext := range []string{"", filepath.Ext(name)} {
		stem := strings.TrimSuffix(name, ext)
		for cut := len(stem); ; {
			if cut = strings.LastIndexAny(stem[:cut], ".-_"); cut <= 0 || !marker(stem[cut+1:]) {
				break
			}
			if m := stem[cut:]; m[0] != '.' && digits(m) < 6 && digits(m) > 0 {
				continue // fw-2.log is another firewall's
			}
			if path := filepath.Join(dir, stem[:cut]+ext); in.wanted(path) {
				return path
			}
			if path := stems[stem[:cut]]; path != "" && ext == "" {
				return path
			}
		}
	}
	return ""
}

// marker says whether what rotation adds to names consists of numbers, dates and a few words.
func marker(s string) bool {
	for _, w := range strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		switch strings.ToLower(w) {
		case "old", "bak", "backup", "prev", "previous", "last", "rotated", "save":
			continue
		}
		for i := range len(w) {
			if c := w[i]; (c < '0' || c > '9') && (digits(w) == 0 || c != 'T' && c != 'Z' && c != ':' && c != '+') {
				return false
			}
		}
	}
	return s != ""
}

func digits(s string) (n int) {
	for i := range len(s) {
		if s[i] >= '0' && s[i] <= '9' {
			n++
		}
	}
	return n
}
