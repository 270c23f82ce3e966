package archive

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"

	"tocsin/internal/collector/spool"
)

// Transport says how a line came in.
type Transport uint8

// The transports of syslog, in the order of how much is known of the sender.
const (
	UDP Transport = iota
	TCP
	TLS
	Mutual // TLS with a client certificate
	Local  // a file or a socket on this machine
)

// String is the word of tocsin.sender.assurance.
func (t Transport) String() string {
	switch t {
	case UDP:
		return "udp"
	case TCP:
		return "tcp"
	case TLS:
		return "tls"
	case Mutual:
		return "mutual"
	}
	return "local"
}

// Line is one raw line as received.
type Line struct {
	Number   uint64
	Created  int64 // when it was received, UTC nanoseconds
	Listener uint8 // which of the configured listeners took it, from 0
	Via      Transport
	Sender   netip.Addr
	Stream   uint32 // which of several files it stood in; 0: none. Programs from before packed files do not know it
	Cut      bool   // it was longer than the listener takes
	Text     []byte // without framing and line end; not always UTF-8
}

// The record of a line: flags (1 byte: transport in the low 3 bits, cut, has sender, has stream), listener (1), receive time (8), sender
// (16 or 0), stream (4 or 0), text. Numbers are little-endian.
const (
	flagVia    = 0x07
	flagCut    = 0x08
	flagSender = 0x10
	flagStream = 0x20
)

var errRecord = errors.New("archive record too short")

func (l *Line) decode(b []byte) error {
	if len(b) < 10 {
		return errRecord
	}
	flags := b[0]
	l.Via, l.Cut, l.Listener = Transport(flags&flagVia), flags&flagCut != 0, b[1]
	l.Created = int64(binary.LittleEndian.Uint64(b[2:]))
	b = b[10:]
	l.Sender = netip.Addr{}
	if flags&flagSender != 0 {
		if len(b) < 16 {
			return errRecord
		}
		l.Sender = netip.AddrFrom16([16]byte(b)).Unmap()
		b = b[16:]
	}
	l.Stream = 0
	if flags&flagStream != 0 {
		if len(b) < 4 {
			return errRecord
		}
		l.Stream = binary.LittleEndian.Uint32(b)
		b = b[4:]
	}
	l.Text = b
	return nil
}

// Batch gathers lines that are to be appended together.
type Batch struct {
	frames []byte
	n      int
}

// Add appends one line; its number is given by Append. The text is copied.
func (b *Batch) Add(l *Line) {
	var at int
	b.frames, at = spool.BeginFrame(b.frames)
	flags := byte(l.Via) & flagVia
	if l.Cut {
		flags |= flagCut
	}
	if l.Sender.IsValid() {
		flags |= flagSender
	}
	if l.Stream != 0 {
		flags |= flagStream
	}
	b.frames = append(b.frames, flags, l.Listener)
	b.frames = binary.LittleEndian.AppendUint64(b.frames, uint64(l.Created))
	if l.Sender.IsValid() {
		a := l.Sender.As16()
		b.frames = append(b.frames, a[:]...)
	}
	if l.Stream != 0 {
		b.frames = binary.LittleEndian.AppendUint32(b.frames, l.Stream)
	}
	b.frames = append(b.frames, l.Text...)
	spool.SealFrame(b.frames, at)
	b.n++
}

// Len is the number of lines gathered.
func (b *Batch) Len() int { return b.n }

// Size is the number of bytes gathered.
func (b *Batch) Size() int { return len(b.frames) }

// Reset empties the batch and keeps its memory, unless one huge batch made that large.
func (b *Batch) Reset() {
	b.frames, b.n = b.frames[:0], 0
	if cap(b.frames) > 1<<20 {
		b.frames = nil
	}
}

// Secret is the archive's secret, which never leaves the site.
type Secret [32]byte

// Digester makes the keyed digests of lines. It belongs to one goroutine.
type Digester struct {
	mac           hash.Hash // under the archive's secret
	msg, key, sum []byte    // kept from line to line, as what goes through an interface is memory of its own
}

// Digester makes one for the secret.
func (s *Secret) Digester() *Digester {
	return &Digester{mac: hmac.New(sha256.New, s[:]), msg: []byte("tocsin line key v1\x00")}
}

// LineKey is the key of one line's digest. It may be revealed with the line: no other line's key follows from it.
func (d *Digester) LineKey(number uint64) [32]byte {
	n := len(d.msg)
	d.msg = binary.BigEndian.AppendUint64(d.msg, number)
	d.mac.Reset()
	d.mac.Write(d.msg)
	d.key = d.mac.Sum(d.key[:0])
	d.msg = d.msg[:n]
	return [32]byte(d.key)
}

// Digest is the keyed digest of a line, event.hash on the wire.
func (d *Digester) Digest(number uint64, text []byte) [32]byte {
	d.LineKey(number)
	d.sum = lineMAC(d.sum[:0], d.key, text)
	return [32]byte(d.sum)
}

func lineMAC(dst, key, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return mac.Sum(dst)
}

// DigestWith is the digest under a revealed key: whoever gets a line with its key checks it against the event with this.
func DigestWith(key [32]byte, text []byte) [32]byte { return [32]byte(lineMAC(nil, key[:], text)) }
