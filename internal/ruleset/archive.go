package ruleset

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing/fstest"

	"tocsin/internal/detect"
)

// MaxArchive is how many bytes an archive may have.
const MaxArchive = 64 << 20

// bounds of what is in an archive or folder.
type bounds struct {
	expanded int64 // bytes of all members, read or not
	file     int64 // bytes of one file of rules
	members  int
	depth    int // folders
}

var usual = bounds{expanded: 256 << 20, file: 4 << 20, members: 60_000, depth: 16}

// files are the rule files of an archive or folder, by their path.
type files map[string][]byte

// names lists them in order.
func (f files) names() []string {
	out := make([]string, 0, len(f))
	for n := range f {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// tree is a digest over names and contents.
func (f files) tree() string {
	h := sha256.New()
	for _, n := range f.names() {
		fmt.Fprintf(h, "%s\x00%d\x00", n, len(f[n]))
		h.Write(f[n])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// isRules says whether a member is a file of rules. Hidden folders (.github) hold none.
func isRules(name string) bool {
	for part := range strings.SplitSeq(path.Dir(name), "/") {
		if part != "." && strings.HasPrefix(part, ".") {
			return false
		}
	}
	ext := path.Ext(name)
	return (ext == ".yml" || ext == ".yaml") && !strings.HasPrefix(path.Base(name), ".")
}

// gather collects members with their limits.
type gather struct {
	bounds
	files files
	seen  int
	bytes int64
}

// take reads one member. size is what the archive says, which is not believed.
func (g *gather) take(name string, mode fs.FileMode, open func() (io.Reader, error)) error {
	if g.seen++; g.seen > g.members {
		return fmt.Errorf("%w: it has more than %d members", ErrArchive, g.members)
	}
	if strings.Contains(name, "\\") || strings.ContainsRune(name, 0) || !fs.ValidPath(strings.TrimSuffix(name, "/")) {
		return fmt.Errorf("%w: it has a member named %.200q, which would lie outside the folder it is unpacked to", ErrArchive, name)
	}
	if strings.Count(name, "/") > g.depth {
		return fmt.Errorf("%w: %.200q lies more than %d folders deep", ErrArchive, name, g.depth)
	}
	switch {
	case mode.IsDir():
		return nil
	case !mode.IsRegular():
		return fmt.Errorf("%w: %.200q is a link or a device; only files and folders are taken", ErrArchive, name)
	}
	r, err := open()
	if err != nil {
		return fmt.Errorf("%w: %.200q: %w", ErrArchive, name, err)
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	room := g.expanded - g.bytes
	if !isRules(name) {
		n, err := io.Copy(io.Discard, io.LimitReader(r, room+1))
		g.bytes += n
		return g.read(name, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, min(room, g.file)+1))
	g.bytes += int64(len(b))
	if err := g.read(name, err); err != nil {
		return err
	}
	if int64(len(b)) > g.file {
		return fmt.Errorf("%w: %.200q has more than %d MiB", ErrArchive, name, g.file>>20)
	}
	if _, twice := g.files[name]; twice {
		return fmt.Errorf("%w: it has two members named %.200q", ErrArchive, name)
	}
	g.files[name] = b
	return nil
}

func (g *gather) read(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %.200q cannot be read: %w", ErrArchive, name, err)
	}
	if g.bytes > g.expanded {
		return fmt.Errorf("%w: it expands to more than %d MiB", ErrArchive, g.expanded>>20)
	}
	return nil
}

// unpack reads a zip or tar.gz archive in memory; nothing of it touches the disk before it is checked.
func unpack(b []byte, most bounds) (files, error) {
	g := &gather{bounds: most, files: files{}}
	var err error
	switch {
	case bytes.HasPrefix(b, []byte("PK\x03\x04")), bytes.HasPrefix(b, []byte("PK\x05\x06")):
		err = g.zip(b)
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		err = g.tar(b)
	default:
		return nil, fmt.Errorf("%w: it is neither a zip nor a tar.gz file", ErrArchive)
	}
	if err != nil {
		return nil, err
	}
	return g.files.rooted(), nil
}

func (g *gather) zip(b []byte) error {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	for _, f := range z.File {
		err := g.take(f.Name, f.Mode(), func() (io.Reader, error) {
			if f.Flags&1 != 0 {
				return nil, errors.New("it is encrypted")
			}
			return f.Open()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *gather) tar(b []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	// Headers and padding count too: a tar of nothing but headers must end.
	t := tar.NewReader(io.LimitReader(z, g.expanded+int64(g.members)*1024))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
		mode := h.FileInfo().Mode()
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeLink:
			mode |= fs.ModeIrregular // a hard link looks like a file
		}
		if err := g.take(strings.TrimPrefix(h.Name, "./"), mode, func() (io.Reader, error) { return t, nil }); err != nil {
			if h.Name == "./" {
				continue
			}
			return err
		}
	}
}

// readDir reads a folder with the same limits. Links are not followed.
func readDir(dir string) (files, error) {
	g := &gather{bounds: usual, files: files{}}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir // .git
		}
		if !d.IsDir() && !isRules(name) {
			return nil
		}
		return g.take(name, d.Type(), func() (io.Reader, error) { return root.Open(name) })
	})
	if err != nil {
		return nil, err
	}
	return g.files, nil
}

// rooted takes away the one folder in which archives of repositories put everything, so that a version has the same names as the next.
func (f files) rooted() files {
	top := ""
	for n := range f {
		first, _, deeper := strings.Cut(n, "/")
		if !deeper || top != "" && first != top || strings.HasPrefix(first, "rules") {
			return f
		}
		top = first
	}
	out := files{}
	for n, b := range f {
		out[strings.TrimPrefix(n, top+"/")] = b
	}
	return out
}

// loaded says whether detect.LoadAll reads a file by this path: what it passes over must not be counted as taken in.
func loaded(name string) bool {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if detect.NotRules(dir) {
			return false
		}
	}
	return true
}

// only keeps what lies in the given folders; of a repository that keeps its rules in folders named rules…, those, if none is given.
func (f files) only(folders []string) files {
	f, out := maps.Clone(f), files{}
	maps.DeleteFunc(f, func(n string, _ []byte) bool { return !loaded(n) })
	for n, b := range f {
		for _, d := range folders {
			if d = strings.Trim(d, "/"); n == d || strings.HasPrefix(n, d+"/") {
				out[n] = b
			}
		}
		if len(folders) == 0 && strings.HasPrefix(n, "rules") && strings.Contains(n, "/") {
			out[n] = b
		}
	}
	if len(folders) == 0 && len(out) == 0 {
		return f
	}
	return out
}

// fs shows the files as a folder.
func (f files) fs() fs.FS {
	out := fstest.MapFS{}
	for n, b := range f {
		out[n] = &fstest.MapFile{Data: b}
	}
	return out
}
