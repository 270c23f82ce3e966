package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrKeyDestroyed means that what was encrypted under this key can never be read again: that is what deletion is.
var ErrKeyDestroyed = errors.New("the key of this member's month has been destroyed")

// Month is a calendar month in UTC: year*12 + month-1.
type Month uint32

// MonthOf returns the month of t.
func MonthOf(t time.Time) Month {
	t = t.UTC()
	return Month(t.Year()*12 + int(t.Month()) - 1)
}

// String returns the month as YYYY-MM.
func (m Month) String() string { return fmt.Sprintf("%04d-%02d", m/12, m%12+1) }

// ParseMonth is the inverse of String.
func ParseMonth(s string) (Month, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return 0, fmt.Errorf("month %.20q: not YYYY-MM", s)
	}
	return MonthOf(t), nil
}

// A TenantKey encrypts one member's blobs of one month.
type TenantKey struct {
	ID   [8]byte // random; a key made after another was destroyed has another
	aead cipher.AEAD
}

// Seal encrypts data (AES-256-GCM, random nonce in front) bound to name, and appends it to dst.
func (k *TenantKey) Seal(dst, data, name []byte) []byte { return k.aead.Seal(dst, nil, data, name) }

// Open is the inverse of Seal.
func (k *TenantKey) Open(dst, sealed, name []byte) ([]byte, error) {
	return k.aead.Open(dst, nil, sealed, name)
}

// Overhead is the number of bytes that Seal adds.
func (k *TenantKey) Overhead() int { return k.aead.Overhead() }

// TenantKeys keeps the tenant-month keys in a folder of its own. It is safe for concurrent use, and several processes may share the folder.
type TenantKeys struct {
	dir string
	now func() time.Time

	mu    sync.Mutex // guards cache only; files are read and made outside of it
	cache map[tenantMonth]cachedKey
}

type tenantMonth struct {
	tenant uint32
	month  Month
}

type cachedKey struct {
	key    *TenantKey
	looked time.Time
}

// recheck is how long another process may go on using a key that was destroyed.
const recheck = 30 * time.Second

// maxCachedKeys bounds memory: 10,000 members have 20,000 keys in use around the turn of a month, some 700 bytes each.
const maxCachedKeys = 50_000

// OpenTenantKeys opens (or makes) the folder. now may be nil.
func OpenTenantKeys(dir string, now func() time.Time) (*TenantKeys, error) {
	if err := makeDir(dir); err != nil {
		return nil, fmt.Errorf("open tenant keys: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	return &TenantKeys{dir: dir, now: now, cache: map[tenantMonth]cachedKey{}}, nil
}

func (s *TenantKeys) path(tm tenantMonth) string {
	return filepath.Join(s.dir, strconv.FormatUint(uint64(tm.tenant), 10), tm.month.String()+".key")
}

// Get returns the key of a tenant's month, or [ErrKeyDestroyed].
func (s *TenantKeys) Get(tenant uint32, m Month) (*TenantKey, error) {
	return s.get(tenantMonth{tenant, m}, false)
}

// Create returns the key of a tenant's month and makes it if there is none. The key is durable on return.
func (s *TenantKeys) Create(tenant uint32, m Month) (*TenantKey, error) {
	return s.get(tenantMonth{tenant, m}, true)
}

func (s *TenantKeys) get(tm tenantMonth, create bool) (*TenantKey, error) {
	now := s.now()
	s.mu.Lock()
	c, ok := s.cache[tm]
	s.mu.Unlock()
	if ok && now.Sub(c.looked) < recheck && now.Sub(c.looked) >= 0 {
		return c.key, nil
	}
	k, err := s.read(tm)
	if errors.Is(err, os.ErrNotExist) {
		if !create {
			s.forget(tm)
			return nil, fmt.Errorf("member %d, %s: %w", tm.tenant, tm.month, ErrKeyDestroyed)
		}
		k, err = s.make(tm)
	}
	if err != nil {
		return nil, fmt.Errorf("tenant key of member %d, %s: %w", tm.tenant, tm.month, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= maxCachedKeys {
		clear(s.cache)
	}
	s.cache[tm] = cachedKey{k, now}
	return k, nil
}

func (s *TenantKeys) forget(tm tenantMonth) {
	s.mu.Lock()
	delete(s.cache, tm)
	s.mu.Unlock()
}

func (s *TenantKeys) read(tm tenantMonth) (*TenantKey, error) {
	path := s.path(tm)
	if err := checkMode(path); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > 0 && len(bytes.Trim(b, "\x00")) == 0 {
		// Destroy had overwritten it when the machine stopped: what it began is finished.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
		return nil, os.ErrNotExist
	}
	id, key, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	rawID, err1 := hex.DecodeString(id)
	rawKey, err2 := hex.DecodeString(key)
	if !ok || err1 != nil || err2 != nil || len(rawID) != 8 || len(rawKey) != 32 {
		return nil, fmt.Errorf("%s is damaged; restore it from the key copies", path)
	}
	return newTenantKey([8]byte(rawID), rawKey)
}

func newTenantKey(id [8]byte, key []byte) (*TenantKey, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &TenantKey{ID: id, aead: aead}, nil
}

// make writes a new key. When two processes do so at once, link decides and both read the winner's.
func (s *TenantKeys) make(tm tenantMonth) (*TenantKey, error) {
	path := s.path(tm)
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := syncDir(s.dir); err != nil {
		return nil, err
	}
	var b [40]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	tmp, err := writeTemp(path, fmt.Appendf(nil, "%x %x\n", b[:8], b[8:]))
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	return s.read(tm)
}

// Destroy overwrites and removes the key of a tenant's month. Destroying a key that is not there is no error.
func (s *TenantKeys) Destroy(tenant uint32, m Month) error {
	tm := tenantMonth{tenant, m}
	s.forget(tm)
	path := s.path(tm)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("destroy tenant key: %w", err)
	}
	// On a journalling or flash medium the old block may live on for a while; the medium's own encryption is the answer to that.
	_, err = f.Write(make([]byte, 8*2+1+32*2+1))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	s.forget(tm) // a Get in between may have read it once more
	if err != nil {
		return fmt.Errorf("destroy tenant key: %w", err)
	}
	return nil
}

// Months lists the months a tenant has keys for, in order.
func (s *TenantKeys) Months(tenant uint32) ([]Month, error) {
	es, err := os.ReadDir(filepath.Join(s.dir, strconv.FormatUint(uint64(tenant), 10)))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list tenant keys: %w", err)
	}
	var out []Month
	for _, e := range es {
		if name, ok := strings.CutSuffix(e.Name(), ".key"); ok {
			if m, err := ParseMonth(name); err == nil {
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// DestroyTenant destroys every key of a tenant.
func (s *TenantKeys) DestroyTenant(tenant uint32) error {
	months, err := s.Months(tenant)
	if err != nil {
		return err
	}
	for _, m := range months {
		if err := s.Destroy(tenant, m); err != nil {
			return err
		}
	}
	return nil
}
