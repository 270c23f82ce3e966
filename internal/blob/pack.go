package blob

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/durable"
	"tocsin/internal/keys"
)

type place struct {
	offset int64
	length uint32
}

const (
	packMagic  = "TOCSINP1"
	recMagic   = 0x31424c54 // "TLB1"
	headerSize = 84
	maxGroup   = 32 << 20 // bytes flushed at once
	maxFiles   = 64       // packs kept open for reading
	idxEntry   = 32 + 8 + 4
	idxMagic   = "TOCSINI1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a record's fixed part, little endian: magic 4, crc32c of the bytes after it 4, length of the sealed data 4, its crc32c 4, tenant 4,
// month 4, kind 1, three zero bytes, key id 8, received 8, name 32, eight zero bytes.
type header struct {
	length, dataCRC uint32
	tenant, month   uint32
	kind            Kind
	keyID           [8]byte
	received        int64
	name            [32]byte
}

func (h *header) put(b []byte) {
	le := binary.LittleEndian
	clear(b[:headerSize])
	le.PutUint32(b[0:], recMagic)
	le.PutUint32(b[8:], h.length)
	le.PutUint32(b[12:], h.dataCRC)
	le.PutUint32(b[16:], h.tenant)
	le.PutUint32(b[20:], h.month)
	b[24] = byte(h.kind)
	copy(b[28:], h.keyID[:])
	le.PutUint64(b[36:], uint64(h.received))
	copy(b[44:], h.name[:])
	le.PutUint32(b[4:], crc32.Checksum(b[8:headerSize], castagnoli))
}

func (h *header) get(b []byte) bool {
	le := binary.LittleEndian
	if len(b) < headerSize || le.Uint32(b) != recMagic || le.Uint32(b[4:]) != crc32.Checksum(b[8:headerSize], castagnoli) {
		return false
	}
	h.length, h.dataCRC, h.tenant, h.month, h.kind = le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:]), Kind(b[24])
	copy(h.keyID[:], b[28:])
	h.received = int64(le.Uint64(b[36:]))
	copy(h.name[:], b[44:])
	return h.length <= MaxBlob+1024
}

// aad binds a record's content to what its header says of it.
func aad(name [32]byte, tenant uint32, kind Kind) []byte {
	b := make([]byte, 0, 37)
	b = append(b, name[:]...)
	b = binary.BigEndian.AppendUint32(b, tenant)
	return append(b, byte(kind))
}

// appender is an active pack.
type appender struct {
	f     *os.File
	path  string // relative to Dir
	size  int64
	begun time.Time
	buf   []byte
}

func (s *Store) begin() (*appender, error) {
	now := time.Now()
	month := keys.MonthOf(now).String()
	dir := filepath.Join(s.o.Dir, month)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var r [4]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, err
	}
	path := fmt.Sprintf("%s/%016x-%x.pack", month, now.UnixNano(), r)
	f, err := os.OpenFile(filepath.Join(s.o.Dir, path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		if _, err = f.WriteString(packMagic); err == nil {
			// The folders must be on the disk too, or the first record could be lost with its file's name.
			if err = durable.SyncDir(dir); err == nil {
				err = durable.SyncDir(s.o.Dir)
			}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	s.mu.Lock()
	clear(s.active)
	s.pack = path
	s.mu.Unlock()
	return &appender{f: f, path: path, size: int64(len(packMagic)), begun: now}, nil
}

func (a *appender) write(group []*put) error {
	a.buf = a.buf[:0]
	at := a.size
	for _, p := range group {
		p.at = place{at, uint32(len(p.rec))}
		p.ref = a.path + ":" + strconv.FormatInt(at, 10) + ":" + strconv.Itoa(len(p.rec))
		a.buf = append(a.buf, p.rec...)
		at += int64(len(p.rec))
	}
	_, err := a.f.WriteAt(a.buf, a.size)
	if err == nil {
		err = syscall.Fdatasync(int(a.f.Fd()))
	}
	if cap(a.buf) > 4<<20 {
		a.buf = nil
	}
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return err
	}
	a.size = at
	return nil
}

// seal gives a pack its index and lets go of it.
func (s *Store) seal(a *appender) {
	if a == nil {
		return
	}
	if err := s.index(a.path, a.size); err != nil {
		s.log.Error("a pack has no index yet; the next start makes it", "pack", a.path, "error", err)
	}
	a.f.Close() // and with it the lock
}

// index reads a pack through, up to size (negative: to its end or its first torn record), and writes its index.
func (s *Store) index(path string, size int64) error {
	f, err := os.Open(filepath.Join(s.o.Dir, path))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if size < 0 || size > st.Size() {
		size = st.Size()
	}
	type entry struct {
		name [32]byte
		at   place
	}
	var es []entry
	var hb [headerSize]byte
	var h header
	for at := int64(len(packMagic)); at+headerSize <= size; {
		if _, err := f.ReadAt(hb[:], at); err != nil {
			return err
		}
		n := int64(headerSize)
		if !h.get(hb[:]) {
			break
		}
		if n += int64(h.length); at+n > size {
			break
		}
		es = append(es, entry{h.name, place{at, uint32(n)}})
		at += n
	}
	slices.SortStableFunc(es, func(a, b entry) int { return bytes.Compare(a.name[:], b.name[:]) })
	out := make([]byte, 0, len(idxMagic)+len(es)*idxEntry+4)
	out = append(out, idxMagic...)
	for _, e := range es {
		out = append(out, e.name[:]...)
		out = binary.LittleEndian.AppendUint64(out, uint64(e.at.offset))
		out = binary.LittleEndian.AppendUint32(out, e.at.length)
	}
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
	return durable.Replace(filepath.Join(s.o.Dir, indexOf(path)), out, 0o600)
}

func indexOf(pack string) string { return strings.TrimSuffix(pack, ".pack") + ".idx" }

// packs lists the packs, newest first, by paths relative to Dir.
func (s *Store) packs() ([]string, error) {
	m, err := fs.Glob(os.DirFS(s.o.Dir), "[0-9]*-[0-9]*/*.pack")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(m, func(a, b string) int { return cmp.Compare(filepath.Base(b), filepath.Base(a)) })
	return m, nil
}

// repair indexes the packs that have no index and that nobody is writing.
func (s *Store) repair() error {
	packs, err := s.packs()
	if err != nil {
		return err
	}
	for _, p := range packs {
		if _, err := os.Stat(filepath.Join(s.o.Dir, indexOf(p))); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		f, err := os.OpenFile(filepath.Join(s.o.Dir, p), os.O_RDONLY, 0)
		if err != nil {
			return err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close() // another process is writing it
			continue
		}
		err = s.index(p, -1)
		f.Close()
		if err != nil {
			return fmt.Errorf("index %s: %w", p, err)
		}
	}
	return nil
}

// lookup searches one index by halving.
func lookup(path string, name [32]byte) (place, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return place{}, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return place{}, false, err
	}
	n := int(st.Size()-int64(len(idxMagic))-4) / idxEntry
	var b [idxEntry]byte
	lo, hi := 0, n
	for lo < hi {
		mid := (lo + hi) / 2
		if _, err := f.ReadAt(b[:], int64(len(idxMagic)+mid*idxEntry)); err != nil {
			return place{}, false, err
		}
		switch c := bytes.Compare(b[:32], name[:]); {
		case c == 0:
			return place{int64(binary.LittleEndian.Uint64(b[32:])), binary.LittleEndian.Uint32(b[40:])}, true, nil
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return place{}, false, nil
}
