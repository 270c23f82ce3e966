package blob

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tocsin/internal/keys"
)

var t0 = time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	if dir := os.Getenv("BLOB_TEST_CHILD"); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	ks, err := keys.OpenTenantKeys(filepath.Join(dir, "keys"), nil)
	if err != nil {
		t.Fatal(err)
	}
	o.Dir, o.Keys = filepath.Join(dir, "blobs"), ks
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func name(i int) [32]byte { return sha256.Sum256(fmt.Append(nil, i)) }

func content(i int) []byte {
	b := make([]byte, 100+i%1000)
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
	r.Read(b)
	return b
}

func TestPutGet(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, Options{PackBytes: 20_000})
	refs := make([]string, 200)
	for i := range refs {
		var err error
		if refs[i], err = s.Put(ctx, Blob{Name: name(i), Tenant: 7, Kind: Batch, Received: t0}, content(i)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(s *Store) {
		t.Helper()
		for i, ref := range refs {
			got, err := s.Get(ctx, 7, name(i), ref)
			if err != nil || !bytes.Equal(got, content(i)) {
				t.Fatalf("blob %d: %d bytes, %v", i, len(got), err)
			}
			if i%17 == 0 {
				if found, err := s.Find(ctx, name(i)); err != nil || found != ref {
					t.Errorf("found blob %d at %q, it is at %q: %v", i, found, ref, err)
				}
			}
		}
	}
	check(s)
	if packs, err := s.packs(); err != nil || len(packs) < 3 {
		t.Errorf("%d packs, %v", len(packs), err)
	}
	if _, err := s.Get(ctx, 8, name(0), refs[0]); !errors.Is(err, ErrMissing) {
		t.Errorf("another member's reference: %v", err)
	}
	if _, err := s.Get(ctx, 7, name(1), refs[0]); !errors.Is(err, ErrMissing) {
		t.Errorf("another name's reference: %v", err)
	}
	if _, err := s.Get(ctx, 7, name(9999), ""); !errors.Is(err, ErrMissing) {
		t.Errorf("a name never put: %v", err)
	}
	for _, bad := range []string{"x", "../../etc/passwd:0:100", "2026-11/../../x.pack:0:100", "2026-11/0000000000000000-00000000.pack:8:100", refs[0] + "0"} {
		if _, err := s.Get(ctx, 7, name(0), bad); !errors.Is(err, ErrMissing) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("reference %q: %v", bad, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(ctx, Blob{Name: name(1), Tenant: 7, Received: t0}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	check(open(t, dir, Options{}))
	// Nothing readable is on the disk.
	packs, _ := s.packs()
	for _, p := range packs {
		b, err := os.ReadFile(filepath.Join(dir, "blobs", p))
		if err != nil {
			t.Fatal(err)
		}
		for i := range refs {
			if bytes.Contains(b, content(i)[:32]) {
				t.Fatalf("blob %d is on the disk in clear", i)
			}
		}
	}
}

func TestDeletedWithItsKey(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, Options{})
	ref7, err := s.Put(ctx, Blob{Name: name(1), Tenant: 7, Kind: Batch, Received: t0}, content(1))
	if err != nil {
		t.Fatal(err)
	}
	ref8, err := s.Put(ctx, Blob{Name: name(2), Tenant: 8, Kind: Batch, Received: t0}, content(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.o.Keys.DestroyTenant(7); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, 7, name(1), ref7); !errors.Is(err, ErrDeleted) {
		t.Errorf("deleted member: %v", err)
	}
	if _, err := s.Get(ctx, 8, name(2), ref8); err != nil {
		t.Errorf("the other member: %v", err)
	}
	// A new key of the same month does not bring the old content back.
	if _, err := s.Put(ctx, Blob{Name: name(3), Tenant: 7, Kind: Batch, Received: t0}, content(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, 7, name(1), ref7); !errors.Is(err, ErrDeleted) {
		t.Errorf("deleted member after new data: %v", err)
	}
}

func TestDamage(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, Options{})
	ref, err := s.Put(ctx, Blob{Name: name(1), Tenant: 7, Kind: Batch, Received: t0}, content(1))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "blobs", strings.Split(ref, ":")[0])
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{8, 12, 20, 24, 30, 50, 83, 84, len(b) - 1} {
		b[at] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(ctx, 7, name(1), ref); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d changed: %d bytes, %v", at, len(got), err)
		}
		b[at] ^= 1
	}
}

func TestGroupCommit(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 20 {
				if _, err := s.Put(context.Background(), Blob{Name: name(w*100 + i), Tenant: 1, Kind: Batch, Received: t0}, content(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Puts != 640 || st.Flushes > 400 {
		t.Errorf("%d puts by 32 writers took %d flushes", st.Puts, st.Flushes)
	}
}

func TestFull(t *testing.T) {
	s := open(t, t.TempDir(), Options{Reserve: 1 << 62})
	if _, err := s.Put(context.Background(), Blob{Name: name(1), Tenant: 1, Received: t0}, nil); !errors.Is(err, ErrFull) {
		t.Errorf("full disk: %v", err)
	}
	s.o.Reserve = 1
	if _, err := s.Put(context.Background(), Blob{Name: name(1), Tenant: 1, Received: t0}, nil); err != nil {
		t.Errorf("after making room: %v", err)
	}
	if _, err := s.Put(context.Background(), Blob{Name: name(1), Tenant: 1, Received: t0}, make([]byte, MaxBlob+1)); err == nil {
		t.Error("took a blob that is too large")
	}
}

func TestExpire(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, Options{PackBytes: 1000})
	var refs []string
	for i := range 6 {
		ref, err := s.Put(ctx, Blob{Name: name(i), Tenant: 1, Received: t0}, content(900))
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	packs, err := s.packs()
	if err != nil || len(packs) != 6 {
		t.Fatal(len(packs), err)
	}
	old := time.Now().Add(-time.Hour)
	for _, p := range packs[2:] {
		if err := os.Chtimes(filepath.Join(dir, "blobs", p), old, old); err != nil {
			t.Fatal(err)
		}
	}
	held := func(pack string) bool { return pack == PackOf(refs[1]) }
	if n, size, err := s.Expire(ctx, time.Now().Add(-time.Minute), held); err != nil || n != 3 || size < 3*900 {
		t.Errorf("expired %d packs of %d bytes, %v", n, size, err)
	}
	for i, gone := range []bool{true, false, true, true, false, false} { // old, held, old, old, new, new
		if _, err := s.Get(ctx, 1, name(i), ""); gone != errors.Is(err, ErrMissing) || !gone && err != nil {
			t.Errorf("blob %d: %v", i, err)
		}
	}
	if PackOf("../../etc/passwd:1:2") != "" || PackOf("") != "" {
		t.Error("a pack was made of what is no reference")
	}
}

// child puts blobs until it is killed and prints each reference after Put returned.
func child(dir string) {
	ks, err := keys.OpenTenantKeys(filepath.Join(dir, "keys"), nil)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s, err := Open(Options{Dir: filepath.Join(dir, "blobs"), Keys: ks, PackBytes: 50_000})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; ; i += 8 {
				ref, err := s.Put(context.Background(), Blob{Name: name(i), Tenant: 7, Kind: Batch, Received: t0}, content(i))
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(i, ref)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestKill(t *testing.T) {
	dir := t.TempDir()
	refs := map[int]string{}
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for r := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "BLOB_TEST_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := 0; sc.Scan(); n++ {
			var i int
			var ref string
			if _, err := fmt.Sscan(sc.Text(), &i, &ref); err != nil {
				t.Fatal(sc.Text())
			}
			refs[i] = ref
			if n == 100+37*r {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
	}
	s := open(t, dir, Options{})
	for i, ref := range refs {
		if got, err := s.Get(context.Background(), 7, name(i), ref); err != nil || !bytes.Equal(got, content(i)) {
			t.Fatalf("blob %d was acknowledged and is lost: %v", i, err)
		}
		if _, err := s.Get(context.Background(), 7, name(i), ""); err != nil {
			t.Fatalf("blob %d is not found by its name: %v", i, err)
		}
	}
	packs, err := s.packs()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		if _, err := os.Stat(filepath.Join(dir, "blobs", indexOf(p))); err != nil {
			t.Errorf("pack %s has no index after opening again", p)
		}
	}
	t.Logf("%d blobs in %d packs survive %d kills", len(refs), len(packs), rounds)
}

func TestTornTail(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	s := open(t, dir, Options{})
	ref, err := s.Put(ctx, Blob{Name: name(1), Tenant: 7, Kind: Batch, Received: t0}, content(1))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	pack := filepath.Join(dir, "blobs", strings.Split(ref, ":")[0])
	whole, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	idx := filepath.Join(dir, "blobs", indexOf(strings.Split(ref, ":")[0]))
	for _, tail := range [][]byte{whole[8:20], whole[8 : len(whole)-1], make([]byte, 500), []byte("garbage")} {
		if err := os.WriteFile(pack, append(bytes.Clone(whole), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(idx); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, Options{})
		if got, err := s.Get(ctx, 7, name(1), ""); err != nil || !bytes.Equal(got, content(1)) {
			t.Errorf("after a torn tail of %d bytes: %v", len(tail), err)
		}
		s.Close()
	}
}

func FuzzHeader(f *testing.F) {
	var b [headerSize]byte
	(&header{length: 5, tenant: 7, kind: Batch}).put(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		var h header
		if !h.get(in) {
			return
		}
		var out [headerSize]byte
		h.put(out[:])
		var again header
		if !again.get(out[:]) || again != h {
			t.Errorf("round trip: %+v, %+v", h, again)
		}
	})
}

func BenchmarkPut32Writers(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	data := make([]byte, 40_000) // a batch of 500 events
	jobs := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range jobs {
				if _, err := s.Put(context.Background(), Blob{Name: name(i), Tenant: 1, Kind: Batch, Received: t0}, data); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	st := s.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "blobs/s")
	b.ReportMetric(float64(st.Puts)/float64(st.Flushes), "blobs/flush")
}
