package ruleset

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"tocsin/internal/keys"
)

// SignatureType is the DSSE payload type of a detached signature over an archive of rules.
const SignatureType = "application/vnd.tocsin.rules.v1+json"

// statement is what a detached signature says.
type statement struct {
	Format int       `json:"format"` // 1
	SHA256 string    `json:"sha256"` // of the archive
	Size   int64     `json:"size,string"`
	Issued time.Time `json:"issued"`
}

// Sign makes a detached signature over an archive: the content of FILE.sig.
func Sign(archive []byte, signer *keys.Signer, now time.Time) ([]byte, error) {
	sum := sha256.Sum256(archive)
	b, err := json.Marshal(statement{1, hex.EncodeToString(sum[:]), int64(len(archive)), now.UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	return signer.SignEnvelope(SignatureType, b)
}

// ParseKey reads a public key that may sign: base64 of its SubjectPublicKeyInfo, as release.pub holds it.
func ParseKey(text string) (ed25519.PublicKey, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%w: the key is not base64; give the one line that the file with the ending .pub holds", ErrInvalid)
	}
	return keys.ParseSPKI(der)
}

// Proof is what the operator says about what is to be taken in. One of the two is needed; of both, both must hold.
type Proof struct {
	SHA256    string              // of the archive (or the tree of a folder), in hexadecimal, from another place than the archive
	Keys      []ed25519.PublicKey // one of them must have signed; with
	Signature []byte              // the detached signature; nil: sought beside the archive, as NAME.sig
}

// check says whether the proof holds: who signed and when, if anybody did.
func (p Proof) check(archive []byte, sum string) (by string, issued time.Time, err error) {
	if p.SHA256 != "" {
		want := strings.ToLower(strings.TrimSpace(p.SHA256))
		if len(want) != 64 || strings.Trim(want, "0123456789abcdef") != "" {
			return "", issued, fmt.Errorf("%w: --sha256 wants 64 hexadecimal digits", ErrInvalid)
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(sum)) != 1 {
			return "", issued, fmt.Errorf("%w: its SHA-256 is %s, not the one that was given. It was damaged on the way, or somebody changed it; nothing was taken in", ErrProof, sum)
		}
	}
	if p.Signature == nil {
		if p.SHA256 != "" {
			return "", issued, nil
		}
		return "", issued, ErrUnproved
	}
	if len(p.Keys) == 0 {
		return "", issued, fmt.Errorf("%w: there is a signature, and no key to check it with: give --key, or set rules.keys", ErrInvalid)
	}
	signature := []byte(strings.TrimSuffix(string(p.Signature), "\n"))
	var st statement
	for _, k := range p.Keys {
		b, err := keys.OpenEnvelope(signature, SignatureType, k)
		if errors.Is(err, keys.ErrEnvelope) {
			return "", issued, fmt.Errorf("%w: the signature: %w", ErrProof, err)
		}
		if err != nil {
			continue
		}
		if err := json.Unmarshal(b, &st); err != nil || st.Format != 1 {
			return "", issued, fmt.Errorf("%w: the signature says something that this version does not understand", ErrProof)
		}
		if st.Size != int64(len(archive)) || subtle.ConstantTimeCompare([]byte(st.SHA256), []byte(sum)) != 1 {
			return "", issued, fmt.Errorf("%w: the signature is over another archive; nothing was taken in", ErrProof)
		}
		return keys.KeyID(k), st.Issued, nil
	}
	return "", issued, fmt.Errorf("%w: none of the keys that may sign has signed it; nothing was taken in", ErrProof)
}

// given is what was read of the place the operator named.
type given struct {
	from      string
	archive   []byte // nil: a folder
	files     files
	sum       string
	signature []byte // beside it, if there is one
}

// read fetches what lies at from: a folder, a file, or an https address.
func read(ctx context.Context, from string, client *http.Client, wantSignature bool) (*given, error) {
	g := &given{from: from}
	if strings.Contains(from, "://") {
		u, err := url.Parse(from)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("%w: %q is not an address", ErrInvalid, from)
		}
		if err := allowed(u); err != nil {
			return nil, err
		}
		g.from = u.Redacted()
		if g.archive, err = fetch(ctx, client, u, MaxArchive); err != nil {
			return nil, err
		}
		if wantSignature {
			s := *u
			s.Path += ".sig"
			if g.signature, err = fetch(ctx, client, &s, maxSignature); err != nil {
				return nil, fmt.Errorf("the signature beside the archive: %w", err)
			}
		}
	} else {
		st, err := os.Stat(from)
		if err != nil {
			return nil, err
		}
		if st.IsDir() {
			if g.files, err = readDir(from); err != nil {
				return nil, err
			}
			g.sum = g.files.tree()
			return g, nil
		}
		if g.archive, err = readFile(from, MaxArchive); err != nil {
			return nil, err
		}
		if wantSignature {
			if g.signature, err = readFile(from+".sig", maxSignature); err != nil {
				return nil, fmt.Errorf("the signature beside the archive: %w", err)
			}
		}
	}
	sum := sha256.Sum256(g.archive)
	g.sum = hex.EncodeToString(sum[:])
	return g, nil
}

const maxSignature = 16 << 10

func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f, name, most)
}

func bounded(r io.Reader, name string, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%w: %s has more than %d KiB", ErrArchive, name, most>>10)
	}
	return b, nil
}

// allowed says whether an address may be asked: https, or http on this machine.
func allowed(u *url.URL) error {
	if u.Scheme == "https" {
		return nil
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && a.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%w: rules are fetched by https only; download the file another way and give its name", ErrInvalid)
}

// fetchTime bounds one download.
const fetchTime = 5 * time.Minute

func fetch(ctx context.Context, client *http.Client, u *url.URL, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if client == nil {
		client = http.DefaultClient
	}
	c := *client
	c.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("too many redirections")
		}
		return allowed(r.URL)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", u.Redacted(), res.Status)
	}
	return bounded(res.Body, u.Redacted(), most)
}
