// Package library finds libchdb, the event store's engine, and checks that it is a version that was tested. Part of what
// keeps stored events safe relies on an internal file format of the engine (package dedup), so any other build is refused.
package library

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// File is the library's file name.
const File = "libchdb.so"

// Package is where npm puts the library, below the folder that holds node_modules.
const Package = "node_modules/@chdb/lib-linux-x64-gnu"

//go:embed libchdb.sha256
var committed string

// Digests returns the SHA-256 of each accepted file, in hexadecimal, with the package version it came in.
func Digests() map[string]string {
	m := map[string]string{}
	s := bufio.NewScanner(strings.NewReader(committed))
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) == 3 && f[0] != "#" {
			m[f[0]] = f[2]
		}
	}
	return m
}

// ErrNotFound says that the library is in none of the usual places.
var ErrNotFound = errors.New("libchdb.so, the event store's engine, was not found")

// Find returns the library's path: the configured one; or TOCSIN_ENGINE_LIBRARY; or ../lib/tocsin beside the program;
// or /usr/lib/tocsin; or, for a program that runs from its source tree, the tree's node_modules.
func Find(configured string) (string, error) {
	if configured != "" {
		if _, err := os.Stat(configured); err != nil {
			return "", fmt.Errorf("%w at engine.library: %w", ErrNotFound, err)
		}
		return filepath.Abs(configured)
	}
	var tried []string
	try := func(p string) bool {
		tried = append(tried, p)
		_, err := os.Stat(p)
		return err == nil
	}
	if p := os.Getenv("TOCSIN_ENGINE_LIBRARY"); p != "" && try(p) {
		return filepath.Abs(p)
	}
	var starts []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		if p := filepath.Join(filepath.Dir(exe), "..", "lib", "tocsin", File); try(p) {
			return filepath.Clean(p), nil
		}
		starts = append(starts, filepath.Dir(exe))
	}
	if p := filepath.Join("/usr/lib/tocsin", File); try(p) {
		return p, nil
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, dir := range starts {
		for {
			// Only in a source tree: a node_modules somewhere above an installed program is nobody's to trust.
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				if p := filepath.Join(dir, Package, File); try(p) {
					return p, nil
				}
				break
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return "", fmt.Errorf("%w (looked at %s): in a source tree run `npm ci --ignore-scripts`, else set engine.library", ErrNotFound, strings.Join(tried, ", "))
}

// Verify checks the file's SHA-256 against the committed list. Reading half a gigabyte takes a second, so the answer is
// noted in the file note with the library's size, inode and change times, and believed while none of them changes;
// an empty note means check every time.
func Verify(path, note string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	stamp := path
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		stamp = fmt.Sprintf("%s %d %d %d %d.%09d %d.%09d", path, s.Dev, s.Ino, s.Size, s.Mtim.Sec, s.Mtim.Nsec, s.Ctim.Sec, s.Ctim.Nsec)
	}
	digests := Digests()
	if note != "" {
		if b, err := os.ReadFile(note); err == nil {
			digest, rest, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
			if _, ok := digests[digest]; ok && rest == stamp {
				return nil
			}
		}
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	digest := hex.EncodeToString(h.Sum(nil))
	if _, ok := digests[digest]; !ok {
		return fmt.Errorf("%s has SHA-256 %s, which is not a tested version of the engine: install the package version named in package.json", path, digest)
	}
	if note != "" {
		if err := os.WriteFile(note, []byte(digest+" "+stamp+"\n"), 0o600); err != nil {
			return fmt.Errorf("note the verified library: %w", err)
		}
	}
	return nil
}
