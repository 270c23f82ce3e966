package collector

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/keys"
)

// RawLine is a line of the archive with what proves that it is the one an event was made of: the event's event.hash is HMAC-SHA256 of the line's bytes
// under Key. The key proves this line and opens no other.
type RawLine struct {
	Asked    string    `json:"asked"`
	Found    bool      `json:"found"`
	Number   uint64    `json:"line,omitempty"` // event.sequence of its event
	Received time.Time `json:"received,omitzero"`
	Sender   string    `json:"sender,omitempty"`
	Via      string    `json:"via,omitempty"`
	Cut      bool      `json:"cut,omitempty"` // it was longer than listen.max_line
	Bytes    []byte    `json:"bytes,omitempty"`
	Hash     string    `json:"hash,omitempty"` // event.hash of its event
	Key      string    `json:"key,omitempty"`
}

// ErrLineName means that a text names no line.
var ErrLineName = errors.New("a line is named by its number, event.sequence of its event, or by its event.hash, 64 hexadecimal digits")

// RawLines finds lines in the archive of this collector's folder by event.sequence or event.hash, in the order asked for. It reads only this machine and
// tells nobody: whoever may read the folder decides to whom a line is shown.
func RawLines(ctx context.Context, c *Config, names []string) ([]RawLine, error) {
	out := make([]RawLine, len(names))
	numbers, hashes, missing := map[uint64][]int{}, map[[32]byte][]int{}, len(names)
	for i, name := range names {
		out[i].Asked = name
		if h, err := hex.DecodeString(strings.TrimPrefix(name, "sha256:")); err == nil && len(h) == 32 {
			hashes[[32]byte(h)] = append(hashes[[32]byte(h)], i)
		} else if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			numbers[n] = append(numbers[n], i)
		} else {
			return nil, fmt.Errorf("%q: %w", name, ErrLineName)
		}
	}
	if _, err := keys.OpenCollector(c.KeyDir()); err != nil { // without it a new secret would be made, which proves nothing
		return nil, err
	}
	s, err := secret(c.KeyDir(), "archive")
	if err != nil {
		return nil, err
	}
	archiveSecret := archive.Secret(s)
	digests := archiveSecret.Digester()
	r, err := archive.View(c.path("archive"))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var l archive.Line
	for n := 0; missing > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := r.Next(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		at := numbers[l.Number]
		if len(hashes) > 0 {
			at = append(at[:len(at):len(at)], hashes[digests.Digest(l.Number, l.Text)]...)
		}
		for _, i := range at {
			hash, key := digests.Digest(l.Number, l.Text), digests.LineKey(l.Number)
			missing--
			out[i] = RawLine{Asked: names[i], Found: true, Number: l.Number, Received: time.Unix(0, l.Created).UTC(), Via: l.Via.String(), Cut: l.Cut,
				Bytes: append([]byte(nil), l.Text...), Hash: hex.EncodeToString(hash[:]), Key: hex.EncodeToString(key[:])}
			if l.Sender.IsValid() {
				out[i].Sender = l.Sender.String()
			}
		}
	}
	return out, nil
}
