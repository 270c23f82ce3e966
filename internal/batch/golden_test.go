package batch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tocsin/internal/keys"
)

// The golden vectors fix the format for ever: what was sealed once must open with every later version, to the same digest.
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "golden-v1.batch")
	want := filepath.Join("testdata", "golden-v1.json")
	type facts struct {
		PublicKey  string          `json:"public_key_spki"`
		Digest     string          `json:"digest"`
		Stream     string          `json:"stream_id"`
		Manifest   json.RawMessage `json:"manifest"`
		Lines      []string        `json:"lines"`
		Leaf1      string          `json:"leaf_1"`
		Disclosure Disclosure      `json:"disclosure_of_1"`
		Receipt    json.RawMessage `json:"receipt"`
	}
	if *update {
		w := NewWriter()
		for i := range w.salt {
			w.salt[i] = byte(i)
		}
		w.begin()
		for _, l := range []string{`{"@timestamp":"2026-11-22T13:43:58Z","source.ip":"203.0.113.5","event.action":"deny"}`, `{"@timestamp":"2026-11-22T13:43:59Z","user.name":"Zoë","event.action":"ssl-login-fail"}`, `{}`} {
			if err := w.Add([]byte(l)); err != nil {
				t.Fatal(err)
			}
		}
		s, err := w.Seal(testManifest(), signer)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, s.Submission(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sub, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, b, err := open(sub)
	if err != nil {
		t.Fatal(err)
	}
	env, _, _ := SplitSubmission(sub)
	digest := sha256.Sum256(env)
	id := m.Stream.ID()
	var f facts
	f.PublicKey = hex.EncodeToString(keys.SPKI(signer.Public()))
	f.Digest, f.Stream = hex.EncodeToString(digest[:]), hex.EncodeToString(id[:])
	if f.Manifest, err = keys.OpenEnvelope(env, Type, signer.Public()); err != nil {
		t.Fatal(err)
	}
	for _, l := range b.Lines() {
		f.Lines = append(f.Lines, string(l))
	}
	leaf := newLeafHasher(b.salt).leaf(1, b.lines[1])
	f.Leaf1 = hex.EncodeToString(leaf[:])
	if f.Disclosure, err = Disclose(env, b, 1); err != nil {
		t.Fatal(err)
	}
	if f.Receipt, err = SignReceipt(Receipt{Stream: id, Seq: m.Seq, Digest: digest, HubTime: m.Created}, signer); err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(want, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wb, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, wb) {
		t.Errorf("the format has drifted. Got:\n%s\nwant:\n%s", got, wb)
	}
	// And the manifest is written as it was then.
	again, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, f.Manifest); err != nil || !bytes.Equal(again, compact.Bytes()) {
		t.Errorf("the manifest is now written as %s", again)
	}
}

// A member must be able to look into what was sent without our programs.
func TestOrdinaryTools(t *testing.T) {
	for _, p := range []string{"zstd", "openssl", "sh", "base64"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("skipped: no %s here", p)
		}
	}
	lines := testLines(5)
	s := seal(t, testManifest(), lines...)
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("batch", s.Submission())
	write("key.der", keys.SPKI(signer.Public()))
	sh := func(script string) []byte {
		t.Helper()
		cmd := exec.Command("sh", "-ec", script)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			var ee *exec.ExitError
			if errors.As(err, &ee) {
				t.Fatalf("%s: %v: %s", script, err, ee.Stderr)
			}
			t.Fatal(err)
		}
		return out
	}
	got := sh(`tail -n+2 batch | zstd -dc`)
	_, rest, _ := bytes.Cut(got, []byte("\n"))
	if !bytes.Equal(rest, append(bytes.Join(lines, []byte("\n")), '\n')) {
		t.Errorf("zstd shows other events:\n%s", got)
	}
	if sum := strings.TrimSpace(string(sh(`tail -n+2 batch | sha256sum | cut -d' ' -f1`))); sum != hex.EncodeToString(s.Manifest.BodySHA256[:]) {
		t.Errorf("sha256sum of the body: %s", sum)
	}
	manifest := sh(`head -n1 batch | sed 's/.*"payload":"\([^"]*\)".*/\1/' | base64 -d`)
	if !json.Valid(manifest) || !bytes.Contains(manifest, []byte(`"lane":"live"`)) {
		t.Errorf("base64 shows no manifest: %s", manifest)
	}
	// The signature, by openssl, over DSSE's pre-authentication encoding.
	out := sh(`head -n1 batch | sed 's/.*"payload":"\([^"]*\)".*/\1/' | base64 -d > payload
		head -n1 batch | sed 's/.*"sig":"\([^"]*\)".*/\1/' | base64 -d > sig
		printf 'DSSEv1 ` + fmt.Sprint(len(Type)) + ` ` + Type + ` %s ' $(wc -c < payload) > pae; cat payload >> pae
		openssl pkeyutl -verify -pubin -inkey key.der -keyform DER -rawin -in pae -sigfile sig`)
	if !bytes.Contains(out, []byte("Verified Successfully")) {
		t.Errorf("openssl: %s", out)
	}
	// And the other way: what the zstd program makes, we open.
	write("plain", got)
	theirs := sh(`zstd -q -19 -c plain`)
	if err := checkFrame(theirs, len(got)); err != nil {
		t.Errorf("a frame of the zstd program: %v", err)
	}
}
