package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
)

// TokenPrefix begins every enrolment token.
const TokenPrefix = "tocsin1."

// ErrToken means that a text is not an enrolment token.
var ErrToken = errors.New("this is not a complete enrolment token")

// A Token is what a member pastes into a collector to join: where the hub is, what its scheme root is, and a secret that works once.
type Token struct {
	Address string   // host:port of the gate
	Root    [32]byte // SHA-256 of the scheme root's SPKI
	Secret  [16]byte
}

// NewToken returns a token with a fresh secret.
func NewToken(address string, root [32]byte) (Token, error) {
	t := Token{Address: address, Root: root}
	if err := checkAddress(address); err != nil {
		return t, fmt.Errorf("make enrolment token: %w", err)
	}
	_, err := rand.Read(t.Secret[:])
	return t, err
}

// SecretHash is the SHA-256 of the secret: all that the hub keeps of a token.
func (t Token) SecretHash() [32]byte { return HashSecret(t.Secret[:]) }

// HashSecret returns the SHA-256 under which the hub looks a secret up. Secrets are 128 random bits: nothing slower is needed.
func HashSecret(secret []byte) [32]byte { return sha256.Sum256(secret) }

// String returns the token's text: one word, with four bytes of checksum so that a token cut off in copying is noticed.
func (t Token) String() string {
	b := append(append(append([]byte{}, t.Root[:]...), t.Secret[:]...), t.Address...)
	sum := sha256.Sum256(b)
	return TokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// ParseToken reads a token's text. White space is dropped wherever it stands: mail programs wrap long words.
func ParseToken(s string) (Token, error) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	var t Token
	enc, ok := strings.CutPrefix(s, TokenPrefix)
	if !ok {
		return t, fmt.Errorf("%w: it does not begin with %q. Copy the whole line, as the centre gave it to you", ErrToken, TokenPrefix)
	}
	if len(enc) > 1024 {
		return t, fmt.Errorf("%w: it is too long. Copy only the token's line", ErrToken)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(enc)
	if err != nil || len(b) < len(t.Root)+len(t.Secret)+4 {
		return t, fmt.Errorf("%w: part of it is missing or changed. Copy the whole line, as the centre gave it to you", ErrToken)
	}
	body, sum := b[:len(b)-4], sha256.Sum256(b[:len(b)-4])
	if subtle.ConstantTimeCompare(b[len(b)-4:], sum[:4]) != 1 {
		return t, fmt.Errorf("%w: part of it is missing or changed. Copy the whole line, as the centre gave it to you", ErrToken)
	}
	copy(t.Root[:], body)
	copy(t.Secret[:], body[32:])
	t.Address = string(body[48:])
	if err := checkAddress(t.Address); err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || len(a) > 255 {
		return fmt.Errorf("the hub's address %.80q is not host:port", a)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the hub's address %.80q has no usable port", a)
	}
	for _, r := range host {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-.:%_", r) {
			return fmt.Errorf("the hub's address %.80q holds a character no host name has", a)
		}
	}
	return nil
}

//go:embed words.txt
var wordText string

var words = strings.Fields(wordText)

// CheckWords returns the four words that both sides show after enrolment: 36 bits of a digest over the collector's two keys and the scheme
// root. If a person reads the same words at the collector and in the portal, nobody has enrolled another machine in its place.
func CheckWords(batchSPKI, tlsSPKI []byte, root [32]byte) [4]string {
	h := sha256.New()
	h.Write([]byte("tocsin check words v1\x00"))
	for _, p := range [][]byte{root[:], batchSPKI, tlsSPKI} {
		d := sha256.Sum256(p)
		h.Write(d[:])
	}
	sum := h.Sum(nil)
	var out [4]string
	for i := range out {
		out[i] = words[(int(sum[2*i])<<8|int(sum[2*i+1]))%len(words)]
	}
	return out
}
