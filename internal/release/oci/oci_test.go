package oci

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The same image gives the same bytes, in another folder and later; another program gives others; a path out of the image is refused.
func TestWrite(t *testing.T) {
	tmp := t.TempDir()
	image := func(program string) Image {
		return Image{Name: "tocsin-collector", Version: "1.0.0", Arch: "amd64", Program: []byte(program), CA: []byte("pem\n"), Created: time.Unix(1763800000, 5), Volume: "/var/lib/tocsin-collector",
			Files: map[string][]byte{"etc/tocsin/b.yaml": []byte("b"), "etc/tocsin/a.yaml": []byte("a")}, Env: []string{"A=b"}, Ports: []string{"514/udp"}}
	}
	made := func(name, program string) []byte {
		t.Helper()
		dir := filepath.Join(tmp, name)
		arm := image(program)
		arm.Arch = "arm64"
		if err := Write(dir, image(program), arm); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Tar(&b, dir, time.Unix(1763800000, 0)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	one, two, other := made("one", "program"), made("two", "program"), made("three", "other")
	if !bytes.Equal(one, two) || bytes.Equal(one, other) {
		t.Error("the same image must give the same bytes, another one others")
	}
	if err := Write(filepath.Join(tmp, "one"), image("program")); err == nil {
		t.Error("an existing folder was written into")
	}
	bad := image("program")
	bad.Files = map[string][]byte{"../etc/passwd": nil}
	if err := Write(filepath.Join(tmp, "bad"), bad); err == nil || !strings.Contains(err.Error(), "not a path inside") {
		t.Errorf("a path out of the image: %v", err)
	}
	if _, err := os.Stat(filepath.Join(tmp, "bad")); !os.IsNotExist(err) {
		t.Error("a failed layout was left")
	}
}
