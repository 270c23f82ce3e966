package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"

	"tocsin/internal/durable"
)

// A packed segment is the file as it was, compressed in the zstd seekable format: independent frames of packBlock bytes, then a skippable frame
// with the sizes of each. zstd -d gives the segment back; every place in it is still reached by reading one block.
const (
	packBlock    = 256 << 10
	maxPackBlock = 1 << 20 // of a block that is read
	maxPacked    = 1 << 31 // of a whole segment, expanded
	skippable    = 0x184D2A5E
	seekable     = 0x8F92EAB1
	packFooter   = 9
)

// unpacker is shared: what it is asked for is whole blocks, and one at a time is enough.
var unpacker = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxPackBlock))
})

// Packer compresses segments. It belongs to one goroutine.
type Packer struct {
	enc *zstd.Encoder
	in  []byte
	out []byte
}

// NewPacker makes a Packer; it holds some MiB of memory once it has been used.
func NewPacker() (*Packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(packBlock), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false)) // each record has its own checksum
	if err != nil {
		return nil, err
	}
	return &Packer{enc: enc}, nil
}

// Pack compresses a finished segment of l that is not packed yet. Readers that stand in it go on, and every Pos in it stays good. A crash leaves
// the segment as it was or packed.
func (p *Packer) Pack(l *Log, base uint64) error {
	l.mu.Lock()
	i, ok := l.index(base)
	active := ok && i == len(l.segments)-1
	var s Segment
	if ok {
		s = l.segments[i]
	}
	l.mu.Unlock()
	switch {
	case !ok || s.Packed:
		return nil
	case active:
		return fmt.Errorf("pack segment: %w", ErrActive)
	}
	name, temp := packedName(l.dir, base), packedName(l.dir, base)+tempSuffix
	size := int64(0)
	err := l.writeNew(temp, func(w io.Writer) error {
		f, err := os.Open(l.path(base))
		if err != nil {
			return err
		}
		defer f.Close()
		size, err = p.write(w, io.LimitReader(f, s.Size))
		return err
	})
	if err == nil {
		err = os.Chtimes(temp, s.ModTime, s.ModTime) // its lines are as old as they are
	}
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("pack segment %016x: %w", base, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if i, ok = l.index(base); !ok { // deleted meanwhile
		return os.Remove(temp)
	}
	if err := errors.Join(os.Rename(temp, name), durable.SyncDir(l.dir)); err != nil {
		return fmt.Errorf("pack segment %016x: %w", base, err)
	}
	l.segments[i].Packed, l.segments[i].packed = true, size
	if err := os.Remove(l.path(base)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what is packed: %w", err) // Open does it
	}
	return nil
}

func (p *Packer) write(w io.Writer, r io.Reader) (size int64, err error) {
	if p.in == nil {
		p.in = make([]byte, packBlock)
	}
	var table []byte
	blocks := uint32(0)
	for {
		n, err := io.ReadFull(r, p.in)
		if n > 0 {
			p.out = p.enc.EncodeAll(p.in[:n], p.out[:0])
			if _, err := w.Write(p.out); err != nil {
				return 0, err
			}
			size += int64(len(p.out))
			table = binary.LittleEndian.AppendUint32(table, uint32(len(p.out)))
			table = binary.LittleEndian.AppendUint32(table, uint32(n))
			blocks++
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	b := binary.LittleEndian.AppendUint32(nil, skippable)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(table)+packFooter))
	b = append(b, table...)
	b = binary.LittleEndian.AppendUint32(b, blocks)
	b = append(b, 0) // no checksums in the table
	b = binary.LittleEndian.AppendUint32(b, seekable)
	_, err = w.Write(b)
	return size + int64(len(b)), err
}

// unpacked reads a packed segment at the offsets of the file that it was. What cannot be expanded reads as the end of the file: to a log that
// is damage, which it passes over and counts.
type unpacked struct {
	f     *os.File
	from  []int64 // where each block begins in f, and where the last one ends
	at    []int64 // the same in what was packed
	block int     // in buf; -1: none
	buf   []byte
	raw   []byte
}

var errPacked = errors.New("the table of a packed segment is damaged")

func openPacked(name string) (*segmentFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s := &segmentFile{file: f, head: headerSize, packed: true}
	u := &unpacked{f: f, block: -1}
	s.data = u
	if err := u.table(); err != nil {
		if !errors.Is(err, errPacked) {
			f.Close()
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		u.at, u.from = nil, nil // nothing of it can be read: it counts as lost, and so large at most
		s.size = headerSize + 32*max(st.Size(), packBlock)
		return s, nil
	}
	s.size = u.at[len(u.at)-1]
	return s, nil
}

func (u *unpacked) table() error {
	st, err := u.f.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	var foot [packFooter]byte
	if size < packFooter+8 {
		return errPacked
	}
	if _, err := u.f.ReadAt(foot[:], size-packFooter); err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(foot[:]))
	start := size - packFooter - 8*n - 8
	if binary.LittleEndian.Uint32(foot[5:]) != seekable || foot[4] != 0 || n > maxPacked/(64<<10) || start < 0 {
		return errPacked
	}
	b := make([]byte, 8*n+8)
	if _, err := u.f.ReadAt(b, start); err != nil {
		return err
	}
	u.from, u.at = make([]int64, 1, n+1), make([]int64, 1, n+1)
	for b = b[8:]; len(b) > 0; b = b[8:] {
		packed, plain := int64(binary.LittleEndian.Uint32(b)), int64(binary.LittleEndian.Uint32(b[4:]))
		if plain == 0 || plain > maxPackBlock || packed > 2*maxPackBlock {
			return errPacked
		}
		u.from, u.at = append(u.from, u.from[len(u.from)-1]+packed), append(u.at, u.at[len(u.at)-1]+plain)
	}
	if u.from[len(u.from)-1] != start {
		return errPacked
	}
	return nil
}

// ReadAt is io.ReaderAt for one goroutine.
func (u *unpacked) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		i, found := slices.BinarySearch(u.at, off)
		if !found {
			i--
		}
		if i < 0 || i+1 >= len(u.at) {
			return n, io.EOF
		}
		if ok, err := u.load(i); err != nil || !ok {
			return n, errors.Join(err, io.EOF)
		}
		m := copy(b[n:], u.buf[off-u.at[i]:])
		n += m
		off += int64(m)
	}
	return n, nil
}

// load expands a block; not ok: it is damaged.
func (u *unpacked) load(i int) (ok bool, err error) {
	if u.block == i {
		return true, nil
	}
	u.block = -1
	size := int(u.from[i+1] - u.from[i])
	u.raw = slices.Grow(u.raw[:0], size)[:size]
	if _, err := u.f.ReadAt(u.raw, u.from[i]); err != nil {
		return false, nil //nolint:nilerr // shorter than its table says: damage
	}
	dec, err := unpacker()
	if err != nil {
		return false, err
	}
	b, err := dec.DecodeAll(u.raw, u.buf[:0])
	if err != nil || int64(len(b)) != u.at[i+1]-u.at[i] {
		return false, nil //nolint:nilerr // damage
	}
	u.buf, u.block = b, i
	return true, nil
}
