package release

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tocsin/internal/keys"
)

var made = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func list(serial uint64) List {
	return List{Format: 1, Product: Product, Version: "1.2.3", Serial: serial, Issued: made, Expires: made.Add(Life),
		Files: []File{{Name: "tocsin-collector_1.2.3_linux_amd64", Kind: Program, OS: "linux", Arch: "amd64", Size: 3, SHA256: strings.Repeat("ab", 32)}}}
}

// signers makes n release keys, and the set of them that wants threshold signatures.
func signers(t *testing.T, n, threshold int) ([]*keys.Signer, KeySet) {
	t.Helper()
	set := KeySet{Threshold: threshold}
	var out []*keys.Signer
	for range n {
		dir := filepath.Join(t.TempDir(), "key")
		s, err := keys.CreateReleaseKey(dir)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "release.pub"))
		if err != nil {
			t.Fatal(err)
		}
		out, set.Keys = append(out, s), append(set.Keys, strings.TrimSpace(string(b)))
	}
	return out, set
}

func sign(t *testing.T, l List, by ...*keys.Signer) []byte {
	t.Helper()
	env, err := Sign(l, by...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// Two of three keys must sign: one that is stolen makes no release, and one that is lost stops none.
func TestTwoOfThree(t *testing.T) {
	k, set := signers(t, 3, 2)
	stranger, _ := signers(t, 1, 1)
	for name, c := range map[string]struct {
		by   []*keys.Signer
		want error
	}{
		"one":                   {k[:1], ErrUnsigned},
		"the first two":         {k[:2], nil},
		"the last two":          {k[1:], nil},
		"all three":             {k, nil},
		"one and a stranger":    {[]*keys.Signer{k[0], stranger[0]}, ErrUnsigned},
		"two and a stranger":    {[]*keys.Signer{k[0], k[1], stranger[0]}, ErrUnsigned},
		"a stranger":            {stranger, ErrUnsigned},
		"one key, twice signed": {[]*keys.Signer{k[2], k[2]}, ErrUnsigned},
	} {
		env, err := Sign(list(7), c.by...)
		if err == nil {
			_, err = Open(env, set, Seen{}, made)
		}
		if !errors.Is(err, c.want) && !(name == "one key, twice signed" && err != nil) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// A signature by the second key over another list does not count for this one.
	one, other := sign(t, list(7), k[0], k[1]), sign(t, list(8), k[0], k[1])
	mixed := bytes.Replace(one, payloadOf(one), payloadOf(other), 1)
	if _, err := Open(mixed, set, Seen{}, made); err == nil {
		t.Error("signatures of one list were taken for another")
	}
}

// payloadOf is the payload as it stands in an envelope.
func payloadOf(env []byte) []byte {
	_, rest, _ := bytes.Cut(env, []byte(`"payload":"`))
	p, _, _ := bytes.Cut(rest, []byte(`"`))
	return p
}

// Keys are replaced by a list that enough of both sets have signed.
func TestNextKeys(t *testing.T) {
	k, set := signers(t, 3, 2)
	n, next := signers(t, 3, 2)
	l := list(8)
	l.Next = &next
	for name, c := range map[string]struct {
		by   []*keys.Signer
		good bool
	}{
		"two of each":                 {[]*keys.Signer{k[0], k[1], n[0], n[1]}, true},
		"only the old":                {k, false},
		"only the new":                {n, false},
		"two of the old, one new":     {[]*keys.Signer{k[0], k[1], n[0]}, false},
		"one of the old, two new":     {[]*keys.Signer{k[0], n[0], n[1]}, false},
		"nobody else than both first": {[]*keys.Signer{k[0], n[0]}, false},
	} {
		_, err := Open(sign(t, l, c.by...), set, Seen{}, made)
		if c.good != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	both := KeySet{Threshold: 2, Keys: []string{set.Keys[0], set.Keys[1], next.Keys[0]}}
	l.Next = &both
	if _, err := Open(sign(t, l, k[0], k[1]), set, Seen{}, made); err != nil {
		t.Errorf("keys that stay count for both sets: %v", err)
	}
}

// What a holder-back, a roll-back and a hub with two faces can show is refused.
func TestOpenRefuses(t *testing.T) {
	k, set := signers(t, 1, 1)
	env := sign(t, list(7), k[0])
	got, err := Open(env, set, Seen{}, made)
	if err != nil || got.Version != "1.2.3" {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := Open(env, set, Seen{Serial: 8}, made); !errors.Is(err, ErrRollback) {
		t.Errorf("an older one: %v", err)
	}
	if _, err := Open(env, set, Seen{Serial: 7, Digest: strings.Repeat("00", 32)}, made); !errors.Is(err, ErrTwoFaces) {
		t.Errorf("another one of the same number: %v", err)
	}
	if _, err := Open(env, set, Seen{}, made.Add(Life)); !errors.Is(err, ErrExpired) {
		t.Errorf("one past its date: %v", err)
	}
	for name, change := range map[string]func(*List){
		"another product":  func(l *List) { l.Product = "other" },
		"no version":       func(l *List) { l.Version = "new" },
		"no number":        func(l *List) { l.Serial = 0 },
		"a path":           func(l *List) { l.Files[0].Name = "../../bin/sh" },
		"the list itself":  func(l *List) { l.Files[0].Name = Name },
		"a file twice":     func(l *List) { l.Files = append(l.Files, l.Files[0]) },
		"no files":         func(l *List) { l.Files = nil },
		"a huge program":   func(l *List) { l.Files[0].Size = MaxProgram + 1 },
		"a short digest":   func(l *List) { l.Files[0].SHA256 = "ab" },
		"a set of no keys": func(l *List) { l.Next = &KeySet{Threshold: 1} },
		"a threshold too high": func(l *List) {
			l.Next = &KeySet{Threshold: 2, Keys: set.Keys}
		},
	} {
		l := list(7)
		change(&l)
		if _, err := Sign(l, k[0]); !errors.Is(err, ErrList) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file is the one that is named to the byte, however it comes.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Describe(filepath.Join(dir, "f"), Program, "linux", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for content, good := range map[string]bool{"abc": true, "ab": false, "abcd": false, "abd": false, "": false} {
		var out bytes.Buffer
		err := f.Copy(&out, strings.NewReader(content))
		if good != (err == nil) || err != nil && !errors.Is(err, ErrFile) || out.Len() > 4 {
			t.Errorf("%q: %v, %d bytes", content, err, out.Len())
		}
	}
}
