package people

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// MinPassword is the least number of characters of a password.
const MinPassword = 12

const maxPassword = 256

// Cost of a password's digest: OWASP's second choice for argon2id, 21 ms on the
// reference machine.
const (
	argonTime   = 2
	argonMemory = 19 * 1024 // KiB
	argonLanes  = 1
	argonKey    = 32
	argonSalt   = 16
)

// At most two digests are computed at once (38 MiB), and 64 wait.
const (
	argonAtOnce  = 2
	argonWaiting = 64
)

// common are beginnings of passwords that guessers try first.
var common = []string{"password", "passw0rd", "letmein", "welcome", "qwerty", "azerty", "123456", "abcdef", "iloveyou", "admin", "changeme", "football", "liverpool", "arsenal", "sunshine", "monkey", "dragon", "tocsin"}

// CheckPassword says whether a password may be chosen. Length is what counts;
// what is easily guessed for this person, or for anybody, is refused. Errors
// wrap ErrInvalid and say what to do.
func CheckPassword(password, email, name string) error {
	if !utf8.ValidString(password) {
		return fmt.Errorf("%w: the password is not UTF-8", ErrInvalid)
	}
	n := utf8.RuneCountInString(password)
	if n < MinPassword {
		return fmt.Errorf("%w: choose a password of at least %d characters; three or four unrelated words do well", ErrInvalid, MinPassword)
	}
	if n > maxPassword {
		return fmt.Errorf("%w: choose a password of at most %d characters", ErrInvalid, maxPassword)
	}
	different := map[rune]bool{}
	for _, r := range password {
		different[r] = true
	}
	if len(different) < 6 {
		return fmt.Errorf("%w: that password repeats itself; three or four unrelated words do well", ErrInvalid)
	}
	low := strings.ToLower(password)
	local, domain, _ := strings.Cut(strings.ToLower(email), "@")
	parts := append([]string{local, strings.SplitN(domain, ".", 2)[0]}, strings.Fields(strings.ToLower(name))...)
	rest := low
	for _, p := range append(parts, common...) {
		if len(p) >= 4 {
			rest = strings.ReplaceAll(rest, p, "")
		}
	}
	if utf8.RuneCountInString(rest) < 8 {
		return fmt.Errorf("%w: that password is mostly your name, your address or words that guessers try first; three or four unrelated words do well", ErrInvalid)
	}
	return nil
}

// hasher makes and checks digests, a bounded number at a time, so that a flood
// of sign-ins cannot take the memory.
type hasher struct {
	slots   chan struct{}
	waiting *atomic.Int32
	dummy   string // checked for addresses without an account
}

func newHasher() hasher {
	h := hasher{slots: make(chan struct{}, argonAtOnce), waiting: new(atomic.Int32)}
	salt := make([]byte, argonSalt)
	h.dummy = phc(salt, argon2.IDKey([]byte("nobody"), salt, argonTime, argonMemory, argonLanes, argonKey))
	return h
}

func (h *hasher) key(ctx context.Context, password string, salt []byte) ([]byte, error) {
	if h.waiting.Add(1) > argonWaiting {
		h.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.slots }()
	// The same characters typed on another machine must be the same password.
	return argon2.IDKey([]byte(norm.NFKC.String(password)), salt, argonTime, argonMemory, argonLanes, argonKey), nil
}

func (h *hasher) make(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails, see crypto/rand
	key, err := h.key(ctx, password, salt)
	if err != nil {
		return "", err
	}
	return phc(salt, key), nil
}

func phc(salt, key []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, b.EncodeToString(salt), b.EncodeToString(key))
}

// check takes the same time whether the digest is a person's or the dummy.
func (h *hasher) check(ctx context.Context, digest, password string) (bool, error) {
	if len(password) > 4*maxPassword {
		password = password[:4*maxPassword] // longer than any that was chosen: wrong
	}
	real := digest != ""
	if !real {
		digest = h.dummy
	}
	parts := strings.Split(digest, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) || parts[3] != fmt.Sprintf("m=%d,t=%d,p=%d", argonMemory, argonTime, argonLanes) {
		return false, errors.New("a password's digest in the database has parameters this program does not know")
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("a password's digest in the database is damaged: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil {
		return false, fmt.Errorf("a password's digest in the database is damaged: %w", err)
	}
	got, err := h.key(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && real, nil
}

// sealer keeps secrets that must be read again: AES-256-GCM under a key outside
// the database, bound to the account.
type sealer struct{ aead cipher.AEAD }

func newSealer(key [32]byte) (sealer, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealer{aead}, err
}

func (s sealer) seal(secret, account string) ([]byte, error) {
	return s.aead.Seal(nil, nil, []byte(secret), []byte("totp:"+account)), nil
}

func (s sealer) open(sealed []byte, account string) (string, error) {
	b, err := s.aead.Open(nil, nil, sealed, []byte("totp:"+account))
	if err != nil {
		return "", errors.New("a second factor cannot be read: the hub's key for its records was changed or lost; restore it, or reset the account")
	}
	return string(b), nil
}
