package keys

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The certificate for a site's devices is made once, kept, renewed under the same authority before it ends, and made anew for more names.
func TestListener(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	clock := func() time.Time { return now }
	open := func(names ...string) *Listener {
		t.Helper()
		l, err := OpenListener(dir, names, clock)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	check := func(l *Listener, name string) {
		t.Helper()
		c, err := l.Certificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := ReadAuthorities(l.Authority())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: now}); err != nil {
			t.Fatal(err)
		}
	}
	l := open("logs.example", "192.0.2.9")
	check(l, "logs.example")
	check(l, "192.0.2.9")
	authority, err := os.ReadFile(l.Authority())
	if err != nil {
		t.Fatal(err)
	}
	first := l.Fingerprint()
	if again := open("logs.example"); again.Fingerprint() != first {
		t.Error("made anew although nothing changed")
	}
	more := open("logs.example", "192.0.2.9", "other.example")
	check(more, "other.example")
	now = now.Add(listenerLife - listenerRenew + time.Hour) // while it runs
	if more.Fingerprint() == first {
		t.Error("not renewed")
	}
	check(more, "logs.example")
	if b, err := os.ReadFile(l.Authority()); err != nil || string(b) != string(authority) {
		t.Error("the authority changed: every device would have to be told")
	}
	// Brought along: taken as it is, and read again.
	given, err := OpenListenerFiles(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), clock)
	if err != nil || given.Authority() != "" || given.Fingerprint() != more.Fingerprint() {
		t.Errorf("files: %v", err)
	}
	if _, err := OpenListenerFiles(filepath.Join(dir, "none.crt"), filepath.Join(dir, "server.key"), clock); err == nil {
		t.Error("no error for a file that is not there")
	}
}
