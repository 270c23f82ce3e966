package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"golang.org/x/mod/sumdb/note"
)

var t0 = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)

type scheme struct {
	dir, offline string
	trust        *Trust
}

func newScheme(t testing.TB) scheme {
	t.Helper()
	s := scheme{dir: filepath.Join(t.TempDir(), "keys"), offline: filepath.Join(t.TempDir(), "offline")}
	var err error
	if s.trust, err = CreateScheme(SchemeOptions{Dir: s.dir, Offline: s.offline, Name: "Test scheme", Now: t0}); err != nil {
		t.Fatal(err)
	}
	return s
}

func testSigner(seed byte) *Signer {
	return NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
}

// dsseVerifier lets the DSSE library, a stranger to our code, check our envelopes.
type dsseVerifier struct{ pub ed25519.PublicKey }

func (v dsseVerifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(v.pub, data, sig) {
		return errors.New("bad signature")
	}
	return nil
}
func (v dsseVerifier) KeyID() (string, error)   { return KeyID(v.pub), nil }
func (v dsseVerifier) Public() crypto.PublicKey { return v.pub }

func TestEnvelope(t *testing.T) {
	s, other := testSigner(1), testSigner(2)
	env, err := s.SignEnvelope("application/x", []byte(`{"a":"<&>"}`))
	if err != nil {
		t.Fatal(err)
	}
	again, _ := s.SignEnvelope("application/x", []byte(`{"a":"<&>"}`))
	if !bytes.Equal(env, again) {
		t.Error("signing the same payload twice gives different envelopes")
	}
	p, err := OpenEnvelope(env, "application/x", s.Public())
	if err != nil || string(p) != `{"a":"<&>"}` {
		t.Fatalf("OpenEnvelope = %q, %v", p, err)
	}
	var parsed dsse.Envelope
	if err := json.Unmarshal(env, &parsed); err != nil {
		t.Fatal(err)
	}
	ev, err := dsse.NewEnvelopeVerifier(dsseVerifier{s.Public()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ev.Verify(t.Context(), &parsed); err != nil {
		t.Errorf("the DSSE library refuses our envelope: %v", err)
	}
	lib, err := parsed.DecodeB64Payload()
	if err != nil || !bytes.Equal(lib, p) {
		t.Errorf("the DSSE library reads payload %q, %v", lib, err)
	}
	bad := []struct {
		name string
		env  []byte
		want error
	}{
		{"white space", append([]byte(" "), env...), ErrEnvelope},
		{"newline after", append(bytes.Clone(env), '\n'), ErrEnvelope},
		{"second document", append(bytes.Clone(env), env...), ErrEnvelope},
		{"unknown member", bytes.Replace(env, []byte(`{"payloadType"`), []byte(`{"x":1,"payloadType"`), 1), ErrEnvelope},
		{"repeated member", bytes.Replace(env, []byte(`{"payloadType"`), []byte(`{"payload":"","payloadType"`), 1), ErrEnvelope},
		{"member in capitals", bytes.Replace(env, []byte(`"keyid"`), []byte(`"keyID"`), 1), ErrEnvelope},
		{"other type", bytes.Replace(env, []byte(`application/x`), []byte(`application/y`), 1), ErrEnvelope},
		{"changed payload", bytes.Replace(env, []byte(parsed.Payload[:4]), []byte("AAAA"), 1), ErrSignature},
		{"other key id", bytes.Replace(env, []byte(s.ID()), []byte(other.ID()), 1), ErrSignature},
		{"empty", nil, ErrEnvelope},
	}
	for _, c := range bad {
		if _, err := OpenEnvelope(c.env, "application/x", s.Public()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := OpenEnvelope(env, "application/x", other.Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("other key: %v", err)
	}
	two, _ := SignEnvelope("application/x", p, s, other)
	if _, err := OpenEnvelope(two, "application/x", s.Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("one key where two signed: %v", err)
	}
	if _, err := OpenEnvelope(two, "application/x", s.Public(), other.Public()); err != nil {
		t.Errorf("two signatures: %v", err)
	}
}

func TestKeyIDIsWhatOpenSSLPrints(t *testing.T) {
	bin, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("skipped: no openssl here")
	}
	s := newScheme(t)
	der, err := exec.Command(bin, "pkey", "-in", filepath.Join(s.offline, "root.key"), "-pubout", "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(der); sum != s.trust.RootFingerprint() {
		t.Errorf("openssl gives fingerprint %x, we %x", sum, s.trust.RootFingerprint())
	}
}

func TestRolesOpenOnlyTheirKeys(t *testing.T) {
	s := newScheme(t)
	// A role whose machine holds only its own key must work: take the others away.
	for _, p := range HubPurposes {
		if p != Receipts {
			if err := os.Remove(filepath.Join(s.dir, string(p)+".key")); err != nil {
				t.Fatal(err)
			}
		}
	}
	r, err := Open(s.dir, Receipts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Signer(Receipts); err != nil {
		t.Error(err)
	}
	if _, err := r.Signer(IndicatorSets); err == nil {
		t.Error("a role got a key it did not open")
	}
	if _, err := r.CA(); err == nil {
		t.Error("a role got the authority without opening it")
	}
	if _, err := Open(s.dir, CollectorCA); err == nil {
		t.Error("opened a key that is not there")
	}
	for _, p := range OfflinePurposes {
		if _, err := Open(s.dir, p); err == nil {
			t.Errorf("the hub's folder holds the %s key", p)
		}
	}
}

func TestPermissions(t *testing.T) {
	s := newScheme(t)
	path := filepath.Join(s.dir, "receipts.key")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir, Receipts); !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable key: %v", err)
	}
	os.Chmod(path, 0o600)
	os.Chmod(s.dir, 0o755)
	if _, err := Open(s.dir, Receipts); !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("readable folder: %v", err)
	}
	if _, err := Open(filepath.Join(s.dir, "nowhere")); !errors.Is(err, ErrNoScheme) {
		t.Errorf("no folder: %v", err)
	}
	if _, err := CreateScheme(SchemeOptions{Dir: s.dir, Offline: s.offline, Name: "x", Now: t0}); err == nil {
		t.Error("a second scheme was created over the first")
	}
}

func TestTrustAdvances(t *testing.T) {
	s := newScheme(t)
	v1 := s.trust
	v2, err := RotateKey(s.dir, s.offline, Receipts, t0.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	v3, err := RotateRoot(s.dir, s.offline, t0.Add(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	v4, err := RotateRoot(s.dir, s.offline, t0.Add(3*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	v5, err := RotateKey(s.dir, s.offline, CollectorCA, t0.Add(4*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range []*Trust{v1, v2, v3, v4, v5} {
		if v.List.Version != uint64(i+1) {
			t.Errorf("version %d where %d was meant", v.List.Version, i+1)
		}
		// Whoever slept through any number of changes catches up, and a fresh token of any age of root does.
		if _, err := v.Advance(v5.Bundle); err != nil {
			t.Errorf("from version %d: %v", v.List.Version, err)
		}
		if _, err := FirstTrust(v5.Bundle, v.RootFingerprint()); err != nil {
			t.Errorf("first contact with root of version %d: %v", v.List.Version, err)
		}
		if i > 0 {
			if _, err := v.Advance(v1.Bundle); !errors.Is(err, ErrTrustOlder) && !errors.Is(err, ErrTrustRoot) {
				t.Errorf("version %d took version 1: %v", v.List.Version, err)
			}
		}
	}
	if _, err := v2.Advance(v1.Bundle); !errors.Is(err, ErrTrustOlder) {
		t.Errorf("older list: %v", err)
	}
	if got := v2.Ed25519(Receipts); len(got) != 2 || got[0].Equal(v1.Ed25519(Receipts)[0]) || !got[1].Equal(v1.Ed25519(Receipts)[0]) {
		t.Error("after rotation the new receipts key must come first and the old one stay for old receipts")
	}
	if _, err := Open(s.dir, HubPurposes...); err != nil {
		t.Errorf("open after rotations: %v", err)
	}
	other := newScheme(t)
	if _, err := v1.Advance(other.trust.Bundle); !errors.Is(err, ErrTrustRoot) {
		t.Errorf("another scheme's list: %v", err)
	}
	if _, err := FirstTrust(v1.Bundle, [32]byte{1}); !errors.Is(err, ErrTrustRoot) {
		t.Errorf("wrong fingerprint: %v", err)
	}

	// A rotation signed by the new root alone is a take-over.
	k, _ := newEd25519()
	l := nextList(v1, t0)
	l.PreviousRoot, l.Root = v1.List.Root, SPKI(k.Public().(ed25519.PublicKey))
	p, _ := json.Marshal(l)
	env, _ := SignEnvelope(TrustType, p, NewSigner(k))
	b, _ := json.Marshal(TrustBundle{Current: env})
	if _, err := v1.Advance(b); !errors.Is(err, ErrSignature) {
		t.Errorf("rotation without the old root: %v", err)
	}
	// The same version with another content, by the right root.
	root, err := readEd25519(filepath.Join(other.offline, "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	l = other.trust.List
	l.Scheme = "Changed"
	p, _ = json.Marshal(l)
	env, _ = SignEnvelope(TrustType, p, NewSigner(root))
	b, _ = json.Marshal(TrustBundle{Current: env})
	if _, err := other.trust.Advance(b); !errors.Is(err, ErrTrustForked) {
		t.Errorf("forked list: %v", err)
	}
	l.Version, l.Crit = 2, []string{"future"}
	p, _ = json.Marshal(l)
	env, _ = SignEnvelope(TrustType, p, NewSigner(root))
	b, _ = json.Marshal(TrustBundle{Current: env})
	if _, err := other.trust.Advance(b); !errors.Is(err, ErrTrustInvalid) {
		t.Errorf("list with a member that must be understood: %v", err)
	}
}

func TestRotationSurvivesACrash(t *testing.T) {
	s := newScheme(t)
	// As after a crash between publishing and renaming: the new key is still called next.
	if _, err := RotateKey(s.dir, s.offline, HubTLS, t0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.dir, "hub-tls.key"), filepath.Join(s.dir, "hub-tls.next.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir, HubTLS); err != nil {
		t.Error(err)
	}
	if _, err := RotateRoot(s.dir, s.offline, t0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.offline, "root.key"), filepath.Join(s.offline, "root.next.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := RotateKey(s.dir, s.offline, Packs, t0); err != nil {
		t.Error(err)
	}
}

// After a crash the only copy of an active key stands where the next rotation writes; it must be out of the way before that writes.
func TestRotationDoesNotOverwriteAnActiveKey(t *testing.T) {
	s := newScheme(t)
	held, err := RotateRoot(s.dir, s.offline, t0)
	if err != nil {
		t.Fatal(err)
	}
	rootKey, next := filepath.Join(s.offline, rootFile), filepath.Join(s.offline, nextRootFile)
	if err := os.Rename(rootKey, next); err != nil {
		t.Fatal(err)
	}
	if _, err := openRoot(s.offline, held); err != nil {
		t.Fatal(err)
	}
	if k, err := readEd25519(rootKey); err != nil || Fingerprint(k.Public().(ed25519.PublicKey)) != held.RootFingerprint() {
		t.Errorf("the root stands where the next rotation writes its key: %v", err)
	}
	if ok, _ := exists(next); ok {
		t.Error("the root still stands under the next one's name")
	}

	if held, err = RotateKey(s.dir, s.offline, CollectorCA, t0); err != nil {
		t.Fatal(err)
	}
	// Crashed when the certificate had its name and the key had not.
	key, nextKey := filepath.Join(s.dir, "collector-ca.key"), filepath.Join(s.dir, "collector-ca.next.key")
	if err := os.Rename(key, nextKey); err != nil {
		t.Fatal(err)
	}
	r, err := Open(s.dir, CollectorCA)
	if err != nil {
		t.Fatal(err)
	}
	if ca, err := r.CA(); err != nil || !bytes.Equal(ca.Certificate().RawSubjectPublicKeyInfo, held.ActiveSPKI(CollectorCA)) {
		t.Errorf("the authority's certificate is of another key: %v", err)
	}
	if err := finishRotation(s.dir, CollectorCA, held); err != nil {
		t.Fatal(err)
	}
	if ok, _ := exists(nextKey); ok {
		t.Error("the authority's key stands where the next rotation writes")
	}
	if _, err := RotateKey(s.dir, s.offline, CollectorCA, t0); err != nil {
		t.Error(err)
	}
}

func TestToken(t *testing.T) {
	tok, err := NewToken("hub.example.org:8443", [32]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	text := tok.String()
	if got, err := ParseToken(" \n" + text[:40] + "\r\n " + text[40:] + "\n"); err != nil || got != tok {
		t.Errorf("wrapped token: %v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "cut": text[:len(text)-3], "cut much": text[:20], "prefix": text[1:], "changed": text[:30] + "A" + text[31:], "long": text + strings.Repeat("A", 2000),
		"swapped": text[:20] + text[21:22] + text[20:21] + text[22:],
	} {
		if name == "changed" && bad == text || name == "swapped" && bad == text {
			continue
		}
		if _, err := ParseToken(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, a := range []string{"", "hub", "hub:0", "hub:99999", "hu b:1", "hub\n:1", ":443", "höb:443", "[::1]:8443"} {
		_, err := NewToken(a, [32]byte{})
		if ok := a == "[::1]:8443"; (err == nil) != ok {
			t.Errorf("address %q: %v", a, err)
		}
	}
}

// A token as Python makes it: those in members' mailboxes must work after an upgrade.
func TestTokenForm(t *testing.T) {
	const text = "tocsin1.AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9kZWZnaGlqa2xtbm9wcXJzaHViLmV4YW1wbGUub3JnOjg0NDOYGkJf"
	tok, err := ParseToken(text)
	if err != nil || tok.Address != "hub.example.org:8443" || tok.Root[31] != 31 || tok.Secret[0] != 100 || tok.String() != text {
		t.Errorf("%+v, %v, %s", tok, err, tok)
	}
}

func TestCheckWords(t *testing.T) {
	if len(words) < 256 {
		t.Fatalf("%d words", len(words))
	}
	seen := map[string]bool{}
	for _, w := range words {
		if seen[w] || len(w) < 4 || len(w) > 8 || strings.ToLower(w) != w {
			t.Errorf("word %q is repeated or unfit", w)
		}
		seen[w] = true
	}
	c, err := CreateCollector(filepath.Join(t.TempDir(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	root := [32]byte{7}
	req, err := c.EnrolRequest([16]byte{9}, "gateway", "1")
	if err != nil {
		t.Fatal(err)
	}
	e, spki, err := OpenEnrol(req)
	if err != nil {
		t.Fatal(err)
	}
	// The hub derives them from what it received, the collector from what it holds.
	if a, b := CheckWords(e.BatchKey, spki, root), c.CheckWords(root); a != b {
		t.Errorf("hub shows %v, collector %v", a, b)
	}
	if CheckWords(e.BatchKey, spki, [32]byte{8}) == c.CheckWords(root) {
		t.Error("another root gives the same words")
	}
	// Fixed so that hub and collector of different versions agree.
	if got, want := strings.Join(sl(CheckWords([]byte("batch"), []byte("tls"), [32]byte{})), " "), "winter gallery drawer ticket"; got != want {
		t.Errorf("check words drifted: %q, want %q", got, want)
	}
}

func sl(a [4]string) []string { return a[:] }

func TestEnrolAndRenewRequests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	c, err := CreateCollector(dir)
	if err != nil {
		t.Fatal(err)
	}
	c2, err := CreateCollector(dir)
	if err != nil || c2.Batch().ID() != c.Batch().ID() || !bytes.Equal(c2.TLSSPKI(), c.TLSSPKI()) {
		t.Fatalf("creating again must keep the keys: %v", err)
	}
	req, _ := c.RenewRequest("0190-x", "v", 5)
	if who, err := PeekRenew(req); err != nil || who != "0190-x" {
		t.Errorf("PeekRenew = %q, %v", who, err)
	}
	if r, _, err := OpenRenew(req, c.Batch().Public()); err != nil || r.Counter != 5 {
		t.Errorf("OpenRenew = %+v, %v", r, err)
	}
	if _, _, err := OpenRenew(req, testSigner(3).Public()); !errors.Is(err, ErrSignature) {
		t.Errorf("renewal by another key: %v", err)
	}
	// Somebody else's CSR inside an enrolment signed with one's own key still proves its own TLS key; a broken CSR does not pass.
	p, _ := json.Marshal(Enrol{Secret: make([]byte, 16), CSR: "nonsense", BatchKey: SPKI(c.Batch().Public())})
	env, _ := c.Batch().SignEnvelope(EnrolType, p)
	if _, _, err := OpenEnrol(env); err == nil {
		t.Error("took a broken CSR")
	}
	p, _ = json.Marshal(Enrol{Secret: make([]byte, 16), CSR: "x", BatchKey: SPKI(testSigner(4).Public())})
	env, _ = c.Batch().SignEnvelope(EnrolType, p)
	if _, _, err := OpenEnrol(env); !errors.Is(err, ErrSignature) {
		t.Errorf("batch key that did not sign: %v", err)
	}
	if _, err := OpenCollector(filepath.Join(dir, "none")); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("open nothing: %v", err)
	}
	if _, err := c.Certificate(); !errors.Is(err, ErrNotEnrolled) {
		t.Errorf("no certificate yet: %v", err)
	}
}

func TestNoteSigner(t *testing.T) {
	s := newScheme(t)
	ring, err := Open(s.dir, Checkpoints)
	if err != nil {
		t.Fatal(err)
	}
	sg, err := ring.NoteSigner("tocsin.test/ledger/1")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := note.Sign(&note.Note{Text: "tocsin.test/ledger/1\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"}, sg)
	if err != nil {
		t.Fatal(err)
	}
	vs, err := s.trust.NoteVerifiers("tocsin.test/ledger/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(msg, note.VerifierList(vs...)); err != nil {
		t.Error(err)
	}
}

func FuzzParseToken(f *testing.F) {
	tok, _ := NewToken("hub.example.org:8443", [32]byte{1})
	f.Add(tok.String())
	f.Add("tocsin1.")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Errorf("error without its class: %v", err)
			}
			return
		}
		if again, err := ParseToken(tok.String()); err != nil || again != tok {
			t.Errorf("round trip: %v, %v", again, err)
		}
	})
}

func FuzzTrust(f *testing.F) {
	s := newScheme(f)
	f.Add(s.trust.Bundle)
	rot, err := RotateRoot(s.dir, s.offline, t0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rot.Bundle)
	f.Add([]byte(`{"rotations":[],"current":{}}`))
	known := map[[32]byte]bool{s.trust.Digest: true, rot.Digest: true}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := s.trust.Advance(b)
		if err != nil {
			return
		}
		// Nobody without the root's key can make a list that is believed.
		if !known[got.Digest] {
			t.Errorf("believed a list that was never signed: %s", hex.EncodeToString(b))
		}
	})
}

func FuzzOpenEnvelope(f *testing.F) {
	s := testSigner(1)
	env, _ := s.SignEnvelope("t", []byte("{}"))
	f.Add(env)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenEnvelope(b, "t", s.Public()); err == nil && !bytes.Equal(b, env) {
			t.Errorf("took an envelope that was never signed: %q", b)
		}
	})
}

func TestSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "k")
	a, err := Secret(dir, "archive")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Secret(dir, "archive"); err != nil || b != a {
		t.Errorf("read again: %v", err)
	}
	if b, err := Secret(dir, "pseudonyms"); err != nil || b == a {
		t.Errorf("two names, one secret: %v", err)
	}
	if _, err := Secret(dir, "../x"); err == nil {
		t.Error("a path was taken for a name")
	}
	path := filepath.Join(dir, "archive.secret")
	os.Chmod(path, 0o644)
	if _, err := Secret(dir, "archive"); !errors.Is(err, ErrPermissions) {
		t.Errorf("readable secret: %v", err)
	}
	os.Chmod(path, 0o600)
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Secret(dir, "archive"); err == nil {
		t.Error("a damaged secret was taken")
	}
}
