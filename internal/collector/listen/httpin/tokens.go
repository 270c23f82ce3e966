package httpin

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"tocsin/internal/durable"
)

// Tokens are the tokens that senders may show. The file holds one line for each: the SHA-256 of the token in hexadecimal, a space, and a name
// for people. It is read again when it changes, so that a token can be made or taken back while the collector runs. A token has 256 random
// bits: a fast digest is enough.
type Tokens struct {
	file  string
	plain string // a file with one token as it is, for those who bring their own

	mu     sync.Mutex // guards what follows
	hashes [][32]byte
	times  [2]time.Time
	looked time.Time
}

// OpenTokens reads the tokens of file (which may not exist yet) and, if plain is not empty, the one token in that file.
func OpenTokens(file, plain string) (*Tokens, error) {
	t := &Tokens{file: file, plain: plain}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t, t.load()
}

// prefix tells people and secret scanners what the text is.
const prefix = "tocsin_log_"

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// NewToken makes a token, enters its digest in file, and gives the token. It is shown once and stored nowhere.
func NewToken(file, name string) (string, error) {
	if !nameRule.MatchString(name) {
		return "", errors.New("a token's name is letters, digits, dots, hyphens and underscores, at most 64")
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for line := range strings.Lines(string(old)) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == name {
			return "", fmt.Errorf("there is a token named %q already: take its line out of %s first, or choose another name", name, file)
		}
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	token := prefix + base64.RawURLEncoding.EncodeToString(secret[:])
	sum := sha256.Sum256([]byte(token))
	if len(old) > 0 && !bytes.HasSuffix(old, []byte{'\n'}) {
		old = append(old, '\n')
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	if err := durable.Replace(file, fmt.Appendf(old, "%s %s\n", hex.EncodeToString(sum[:]), name), 0o600); err != nil {
		return "", err
	}
	return token, nil
}

// load reads the files. The caller holds mu.
func (t *Tokens) load() error {
	var hashes [][32]byte
	b, err := os.ReadFile(t.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tokens: %w", err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		sum, err := hex.DecodeString(f[0])
		if err != nil || len(sum) != 32 {
			return fmt.Errorf("tokens: line %d of %s does not begin with the SHA-256 of a token: make tokens with: tocsin-collector token", n, t.file)
		}
		hashes = append(hashes, [32]byte(sum))
	}
	if t.plain != "" {
		st, err := os.Stat(t.plain)
		if err != nil {
			return fmt.Errorf("token_file: %w", err)
		}
		if st.Mode().Perm()&0o007 != 0 {
			return fmt.Errorf("token_file: everybody on this machine can read %s: run: chmod 640 %s", t.plain, t.plain)
		}
		b, err := os.ReadFile(t.plain)
		if err != nil {
			return fmt.Errorf("token_file: %w", err)
		}
		token := bytes.TrimSpace(b)
		if len(token) < 20 || bytes.ContainsAny(token, " \t\r\n") {
			return fmt.Errorf("token_file: %s must hold one token of at least 20 characters; openssl rand -base64 32 makes one", t.plain)
		}
		hashes = append(hashes, sha256.Sum256(token))
	}
	t.hashes = hashes
	t.times = t.changed()
	return nil
}

func (t *Tokens) changed() (out [2]time.Time) {
	for i, name := range []string{t.file, t.plain} {
		if st, err := os.Stat(name); err == nil {
			out[i] = st.ModTime()
		}
	}
	return out
}

// Len is how many tokens there are.
func (t *Tokens) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.hashes)
}

// Check says whether the token is one of them. It takes as long whatever is wrong with it.
func (t *Tokens) Check(token string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.Sub(t.looked) > time.Second {
		t.looked = now
		if t.changed() != t.times {
			_ = t.load() // a broken file: those known before stay
		}
	}
	sum := sha256.Sum256([]byte(token))
	found := 0
	for i := range t.hashes {
		found |= subtle.ConstantTimeCompare(sum[:], t.hashes[i][:])
	}
	return found == 1
}
