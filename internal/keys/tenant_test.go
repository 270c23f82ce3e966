package keys

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestTenantKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tenants")
	now := t0
	ks, err := OpenTenantKeys(dir, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	m := MonthOf(t0)
	if m.String() != "2026-11" {
		t.Errorf("month %v", m)
	}
	if _, err := ks.Get(7, m); !errors.Is(err, ErrKeyDestroyed) {
		t.Errorf("no key yet: %v", err)
	}
	k, err := ks.Create(7, m)
	if err != nil {
		t.Fatal(err)
	}
	box := k.Seal(nil, []byte("secret"), []byte("name"))
	other, _ := OpenTenantKeys(dir, func() time.Time { return now })
	k2, err := other.Get(7, m)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := k2.Open(nil, box, []byte("name")); err != nil || string(p) != "secret" {
		t.Errorf("open in another process: %q, %v", p, err)
	}
	if _, err := k2.Open(nil, box, []byte("other")); err == nil {
		t.Error("opened under another name")
	}
	k8, _ := ks.Create(8, m)
	if _, err := k8.Open(nil, box, []byte("name")); err == nil {
		t.Error("opened with another member's key")
	}
	if err := ks.DestroyTenant(7); err != nil {
		t.Fatal(err)
	}
	if _, err := ks.Get(7, m); !errors.Is(err, ErrKeyDestroyed) {
		t.Errorf("after destroying: %v", err)
	}
	now = now.Add(recheck)
	if _, err := other.Get(7, m); !errors.Is(err, ErrKeyDestroyed) {
		t.Errorf("another process, later: %v", err)
	}
	k3, err := ks.Create(7, m)
	if err != nil || k3.ID == k.ID {
		t.Errorf("a new key must be another one: %v", err)
	}
	if _, err := k3.Open(nil, box, []byte("name")); err == nil {
		t.Error("what was deleted can be read again")
	}
	if err := ks.Destroy(99, m); err != nil {
		t.Errorf("destroying nothing: %v", err)
	}
}

// The machine stopped between overwriting a key and removing its file: the deletion stands, and the member goes on with a new key.
func TestTenantKeyDestroyedInACrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tenants")
	ks, err := OpenTenantKeys(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := MonthOf(t0)
	old, err := ks.Create(7, m)
	if err != nil {
		t.Fatal(err)
	}
	path := ks.path(tenantMonth{7, m})
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, len(b)), 0o600); err != nil {
		t.Fatal(err)
	}
	again, _ := OpenTenantKeys(dir, nil)
	if _, err := again.Get(7, m); !errors.Is(err, ErrKeyDestroyed) {
		t.Errorf("an overwritten key: %v", err)
	}
	if k, err := again.Create(7, m); err != nil || k.ID == old.ID {
		t.Errorf("the key after it: %v", err)
	}
}

func TestTenantKeysMadeAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tenants")
	ids := make([][8]byte, 8)
	var wg sync.WaitGroup
	for i := range ids {
		ks, err := OpenTenantKeys(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			k, err := ks.Create(1, MonthOf(t0))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = k.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two keys for one month: %x", ids)
		}
	}
}
