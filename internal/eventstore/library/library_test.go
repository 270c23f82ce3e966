package library

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestDigests(t *testing.T) {
	d := Digests()
	if len(d) == 0 {
		t.Fatal("no digest is committed")
	}
	for digest, version := range d {
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(digest) || version == "" {
			t.Errorf("digest %q version %q", digest, version)
		}
	}
}

func TestFindAndVerify(t *testing.T) {
	dir := t.TempDir()
	lib, note := filepath.Join(dir, File), filepath.Join(dir, "note")
	if _, err := Find(lib); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing library: %v", err)
	}
	if err := os.WriteFile(lib, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Find(lib); err != nil || p != lib {
		t.Errorf("%s, %v", p, err)
	}
	t.Setenv("TOCSIN_ENGINE_LIBRARY", lib)
	if p, err := Find(""); err != nil || p != lib {
		t.Errorf("from the environment: %s, %v", p, err)
	}
	if err := Verify(lib, note); err == nil || !strings.Contains(err.Error(), "not a tested version") {
		t.Errorf("an unknown library: %v", err)
	}
	// A note that names a good digest for another state of the file is not believed.
	for d := range Digests() {
		if err := os.WriteFile(note, []byte(d+" "+lib+" 1 2 3 4 5\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Verify(lib, note); err == nil {
		t.Error("an old note was believed")
	}
}

func TestVerifyInstalled(t *testing.T) {
	lib, err := Find("")
	if err != nil {
		t.Skip("SKIPPED, the real engine is not installed: ", err)
	}
	note := filepath.Join(t.TempDir(), "note")
	for range 2 { // the second time by the note
		if err := Verify(lib, note); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(note); err != nil || len(b) < 64 {
		t.Errorf("the note: %q %v", b, err)
	}
}
