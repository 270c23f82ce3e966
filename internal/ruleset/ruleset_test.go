package ruleset

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/detect"
	"tocsin/internal/keys"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func rule(n int, level, word string) string {
	return fmt.Sprintf("title: Rule %d\nid: 00000000-0000-4000-8000-%012d\nstatus: test\ndescription: Constructed.\nlogsource:\n  category: proxy\ndetection:\n  selection:\n    url.path|contains: %s\n  condition: selection\nlevel: %s\n", n, n, word, level)
}

func zipOf(t *testing.T, members map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for n, text := range members {
		f, err := w.Create(n)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarOf(t *testing.T, headers []*tar.Header, text func(*tar.Header) []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		body := text(h)
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func digest(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func put(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rules.archive")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func install(t *testing.T, s *Store, from, sum string) *Staged {
	t.Helper()
	st, err := s.Stage(t.Context(), UpdateOptions{Name: "up", From: from, Proof: Proof{SHA256: sum}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Install(); err != nil {
		t.Fatal(err)
	}
	return st
}

func running(t *testing.T, s *Store) map[string]string {
	t.Helper()
	src, err := s.Sources()
	if err != nil {
		t.Fatal(err)
	}
	cat, err := detect.LoadAll(src)
	if err != nil {
		t.Fatal(err)
	}
	if len(cat.Errors) > 0 {
		t.Fatal(cat.Errors)
	}
	out := map[string]string{}
	for _, i := range cat.Infos() {
		out[i.Title] = i.Level
	}
	return out
}

func TestUpdateAndRollBack(t *testing.T) {
	s := Open(t.TempDir())
	first := zipOf(t, map[string]string{
		"repo-1/rules/web/a.yml": rule(1, "high", "evil"), "repo-1/rules/web/b.yml": rule(2, "low", "odd"), "repo-1/rules/bad.yml": "title: [", "repo-1/.github/workflows/ci.yml": "on: push",
		"repo-1/tests/x.yml": "a: b", "repo-1/rules/tests/y.yml": rule(7, "high", "test"), "repo-1/LICENSE": "DRL", "repo-1/deprecated/old.yml": rule(9, "high", "old"),
	})
	st := install(t, s, put(t, first), digest(first))
	if len(st.Changes.Added) != 2 || len(st.Changes.LeftOut) != 1 || st.Changes.LeftOut[0].File != "rules/bad.yml" || st.Before != nil {
		t.Errorf("changes %+v", st.Changes)
	}
	if got := running(t, s); len(got) != 2 || got["Rule 1"] != "high" {
		t.Errorf("running %v", got)
	}
	second := zipOf(t, map[string]string{"repo-2/rules/web/a.yml": rule(1, "critical", "evil"), "repo-2/rules/c.yml": rule(3, "low", "new")})
	st = install(t, s, put(t, second), digest(second))
	if c := st.Changes; len(c.Added) != 1 || len(c.Changed) != 1 || len(c.Removed) != 1 || c.Removed[0].Title != "Rule 2" || c.Same != 0 {
		t.Errorf("changes %+v", c)
	}
	if got := running(t, s); got["Rule 1"] != "critical" || got["Rule 2"] != "" {
		t.Errorf("running %v", got)
	}
	if _, _, err := s.RollBack("up"); err != nil {
		t.Fatal(err)
	}
	if got := running(t, s); got["Rule 1"] != "high" || got["Rule 3"] != "" {
		t.Errorf("after rolling back %v", got)
	}
	install(t, s, put(t, second), digest(second)) // the version that was rolled back: its folder is still there
	if got := running(t, s); got["Rule 1"] != "critical" {
		t.Errorf("again %v", got)
	}
	x, err := s.Get("up")
	if err != nil || x.Previous == nil || x.Previous.SHA256 != digest(first) {
		t.Errorf("%+v %v", x, err)
	}
	if _, err := s.Remove("up"); err != nil {
		t.Fatal(err)
	}
	if sets, err := s.Sets(); err != nil || len(sets) != 0 {
		t.Errorf("%v %v", sets, err)
	}
}

func TestLevelsAndFolders(t *testing.T) {
	s := Open(t.TempDir())
	b := zipOf(t, map[string]string{"a/x.yml": rule(1, "high", "evil"), "b/y.yml": rule(2, "low", "odd"), "b/z.yml": rule(3, "medium", "more")})
	st, err := s.Stage(t.Context(), UpdateOptions{Name: "up", From: put(t, b), Proof: Proof{SHA256: digest(b)}, Only: []string{"b"}, MinLevel: "medium", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Changes.Added) != 1 || st.Changes.Added[0].Title != "Rule 3" || st.Changes.Skipped != 1 {
		t.Errorf("%+v", st.Changes)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.yml"), []byte(rule(1, "high", "evil")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = s.Stage(t.Context(), UpdateOptions{Name: "up", From: dir, Now: now})
	if !errors.Is(err, ErrUnproved) {
		t.Fatal(err)
	}
	sum := files{"a.yml": []byte(rule(1, "high", "evil"))}.tree()
	if !strings.Contains(err.Error(), sum) {
		t.Errorf("the refusal does not name the digest: %v", err)
	}
	if st, err := s.Stage(t.Context(), UpdateOptions{Name: "up", From: dir, Proof: Proof{SHA256: sum}, Now: now}); err != nil || len(st.Changes.Added) != 1 {
		t.Error(err)
	}
}

// Every way of giving other rules than those that were meant is refused, and leaves nothing behind.
func TestRefused(t *testing.T) {
	good := zipOf(t, map[string]string{"a.yml": rule(1, "high", "evil")})
	key, other := keys.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))), keys.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32)))
	sign := func(b []byte, k *keys.Signer, at time.Time) []byte {
		sig, err := Sign(b, k, at)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	pub := []ed25519.PublicKey{key.Public()}
	reg := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	text := func(*tar.Header) []byte { return []byte(rule(1, "high", "evil")) }
	for name, x := range map[string]struct {
		b     []byte
		proof Proof
		want  error
	}{
		"no proof":                       {good, Proof{}, ErrUnproved},
		"other checksum":                 {good, Proof{SHA256: digest([]byte("x"))}, ErrProof},
		"no checksum":                    {good, Proof{SHA256: "abc"}, ErrInvalid},
		"signed by another":              {good, Proof{Keys: pub, Signature: sign(good, other, now)}, ErrProof},
		"signature of another":           {good, Proof{Keys: pub, Signature: sign([]byte("x"), key, now)}, ErrProof},
		"no signature at all":            {good, Proof{Keys: pub, Signature: []byte("hello")}, ErrProof},
		"signature without a key":        {good, Proof{Signature: sign(good, key, now)}, ErrInvalid},
		"key named, no signature":        {good, Proof{SHA256: digest(good), Keys: pub}, fs.ErrNotExist},
		"good signature, other checksum": {good, Proof{SHA256: digest([]byte("x")), Keys: pub, Signature: sign(good, key, now)}, ErrProof},
		"no archive":                     {[]byte("hello"), Proof{SHA256: digest([]byte("hello"))}, ErrArchive},
		"path out of it, zip":            {zipOf(t, map[string]string{"../a.yml": rule(1, "high", "evil")}), Proof{}, ErrArchive},
		"absolute path, zip":             {zipOf(t, map[string]string{"/etc/a.yml": rule(1, "high", "evil")}), Proof{}, ErrArchive},
		"backslashes, zip":               {zipOf(t, map[string]string{`..\a.yml`: rule(1, "high", "evil")}), Proof{}, ErrArchive},
		"path out of it, tar":            {tarOf(t, []*tar.Header{reg("x/../../a.yml")}, text), Proof{}, ErrArchive},
		"link, tar":                      {tarOf(t, []*tar.Header{{Name: "a.yml", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}, text), Proof{}, ErrArchive},
		"hard link, tar":                 {tarOf(t, []*tar.Header{{Name: "a.yml", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}, text), Proof{}, ErrArchive},
		"twice, tar":                     {tarOf(t, []*tar.Header{reg("a.yml"), reg("a.yml")}, text), Proof{}, ErrArchive},
		"cut off":                        {tarOf(t, []*tar.Header{reg("a.yml")}, text)[:60], Proof{}, ErrArchive},
		"no rules":                       {zipOf(t, map[string]string{"README.md": "x"}), Proof{}, ErrInvalid},
		"nothing usable":                 {zipOf(t, map[string]string{"a.yml": "title: ["}), Proof{}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if x.proof.SHA256 == "" && x.proof.Signature == nil && name != "no proof" {
				x.proof.SHA256 = digest(x.b)
			}
			_, err := Open(dir).Stage(t.Context(), UpdateOptions{Name: "up", From: put(t, x.b), Proof: x.proof, Now: now})
			if !errors.Is(err, x.want) {
				t.Errorf("%v, want %v", err, x.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	s := Open(t.TempDir())
	for _, at := range []time.Time{now, now.Add(time.Hour)} {
		b := zipOf(t, map[string]string{"a.yml": rule(1, "high", at.Format("15"))})
		st, err := s.Stage(t.Context(), UpdateOptions{Name: "up", From: put(t, b), Proof: Proof{Keys: pub, Signature: sign(b, key, at)}, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Install(); err != nil || st.Manifest.SignedBy != key.ID() {
			t.Fatal(err, st.Manifest)
		}
	}
	b := zipOf(t, map[string]string{"a.yml": rule(1, "high", "evil")})
	if _, err := s.Stage(t.Context(), UpdateOptions{Name: "up", From: put(t, b), Proof: Proof{Keys: pub, Signature: sign(b, key, now)}, Now: now}); !errors.Is(err, ErrOlder) {
		t.Errorf("older rules: %v", err)
	}
}

// What expands beyond its bounds is refused before it is in memory.
func TestBombs(t *testing.T) {
	small := bounds{expanded: 1 << 20, file: 64 << 10, members: 100, depth: 4}
	reg := func(name string) *tar.Header { return &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	list := func(n int, name string) (out []*tar.Header) {
		for i := range n {
			out = append(out, reg(fmt.Sprintf(name, i)))
		}
		return out
	}
	of := func(n int) func(*tar.Header) []byte {
		return func(*tar.Header) []byte { return bytes.Repeat([]byte{'#'}, n) }
	}
	for name, b := range map[string][]byte{
		"one file of rules":   tarOf(t, list(1, "%d.yml"), of(65<<10)),
		"many files of rules": tarOf(t, list(30, "%d.yml"), of(60<<10)),
		"something else":      tarOf(t, list(1, "%d.txt"), of(2<<20)),
		"members":             tarOf(t, list(101, "%d.txt"), of(1)),
		"deep":                tarOf(t, list(1, "a/b/c/d/e/%d.yml"), of(1)),
		"zip":                 zipOf(t, map[string]string{"a.txt": strings.Repeat("#", 2<<20)}),
	} {
		if _, err := unpack(b, small); !errors.Is(err, ErrArchive) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := unpack(tarOf(t, list(10, "%d.yml"), of(100)), small); err != nil || len(got) != 10 {
		t.Error(len(got), err)
	}
}

// A rule of the set may not take the place of one that runs beside it.
func TestIDsOfOthers(t *testing.T) {
	b := zipOf(t, map[string]string{"a.yml": rule(1, "low", "nothing"), "b.yml": rule(2, "high", "x")})
	own := []detect.Source{{Name: "built-in", FS: files{"own.yml": []byte(rule(1, "critical", "evil"))}.fs(), Upstream: true}}
	st, err := Open(t.TempDir()).Stage(t.Context(), UpdateOptions{Name: "up", From: put(t, b), Proof: Proof{SHA256: digest(b)}, BuiltIn: own, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Changes.LeftOut) != 1 || st.Changes.LeftOut[0].File != "a.yml" || len(st.Changes.Added) != 1 {
		t.Errorf("%+v", st.Changes)
	}
}

func TestAddress(t *testing.T) {
	b := zipOf(t, map[string]string{"a.yml": rule(1, "high", "evil")})
	key := keys.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))
	sig, err := Sign(b, key, now)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/rules.zip":
			w.Write(b)
		case "/rules.zip.sig":
			w.Write(sig)
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/rules.zip", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	s := Open(t.TempDir())
	stage := func(from string, p Proof) error {
		_, err := s.Stage(t.Context(), UpdateOptions{Name: "up", From: from, Proof: p, Now: now})
		return err
	}
	if err := stage(srv.URL+"/rules.zip", Proof{Keys: []ed25519.PublicKey{key.Public()}}); err != nil {
		t.Error(err)
	}
	if err := stage(srv.URL+"/rules.zip", Proof{SHA256: digest(b)}); err != nil {
		t.Error(err)
	}
	for _, from := range []string{srv.URL + "/away", "http://192.0.2.1/rules.zip", "ftp://127.0.0.1/x", "https://"} {
		if err := stage(from, Proof{SHA256: digest(b)}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", from, err)
		}
	}
	if err := stage(srv.URL+"/none", Proof{SHA256: digest(b)}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

// What the detector passes over is not said to be taken in, nor are rules that count on those left out, however long the chain.
func TestNotRules(t *testing.T) {
	s := Open(t.TempDir())
	chain := "title: ["
	files := map[string]string{"a.yml": rule(1, "high", "evil"), "steps/b.yml": rule(2, "high", "odd"), "x/tests/c.yml": rule(3, "high", "more"), "x/steps/d.yml": rule(4, "high", "kept"), "c0.yml": chain}
	for n := range 10 {
		files[fmt.Sprintf("c%d.yml", n+1)] = fmt.Sprintf("title: Count %d\nid: 00000000-0000-4000-8000-0000000001%02d\nname: c%d\nlevel: high\ncorrelation: {type: event_count, rules: [c%d], group-by: [source.ip], timespan: 1h, condition: {gte: 2}}\n", n, n, n+1, n)
	}
	b := zipOf(t, files)
	st := install(t, s, put(t, b), digest(b))
	if st.Manifest.Files != 13 || st.Manifest.Rules != 2 || len(st.Changes.LeftOut) != 11 {
		t.Errorf("%d files, %d rules, left out %v", st.Manifest.Files, st.Manifest.Rules, st.Changes.LeftOut)
	}
	if got := running(t, s); len(got) != 2 || got["Rule 4"] != "high" {
		t.Errorf("running %v", got)
	}
}

// A crash between any two steps of an update leaves a version that works: the pointer is read before, between and after.
func TestCutShort(t *testing.T) {
	dir := t.TempDir()
	s := Open(dir)
	b := zipOf(t, map[string]string{"a.yml": rule(1, "high", "evil")})
	install(t, s, put(t, b), digest(b))
	if err := os.MkdirAll(filepath.Join(dir, "sets", "up", ".new-1", "x"), 0o700); err != nil { // as a kill leaves it
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "sets", "half"), 0o700); err != nil { // a first update that was cut short
		t.Fatal(err)
	}
	if got := running(t, s); len(got) != 1 {
		t.Fatal(got)
	}
	b = zipOf(t, map[string]string{"a.yml": rule(1, "low", "evil")})
	install(t, s, put(t, b), digest(b))
	if _, err := os.Stat(filepath.Join(dir, "sets", "up", ".new-1")); !errors.Is(err, os.ErrNotExist) {
		t.Error("what was cut short is still there")
	}
}

func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	m, err := w.Create("rules/a.yml")
	if err != nil {
		f.Fatal(err)
	}
	m.Write([]byte(rule(1, "high", "x")))
	w.Close()
	f.Add(b.Bytes())
	var g bytes.Buffer
	z := gzip.NewWriter(&g)
	tw := tar.NewWriter(z)
	tw.WriteHeader(&tar.Header{Name: "a.yml", Typeflag: tar.TypeReg, Size: 1})
	tw.Write([]byte("a"))
	tw.Close()
	z.Close()
	f.Add(g.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unpack(b, usual)
		if err != nil {
			if !errors.Is(err, ErrArchive) {
				t.Errorf("%v", err)
			}
			return
		}
		for n := range got {
			if !isRules(n) || strings.HasPrefix(n, "/") || strings.Contains(n, "..") && strings.Contains("/"+n+"/", "/../") {
				t.Errorf("took %q", n)
			}
		}
	})
}
