package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/release/oci"
)

// blobOf reads a blob of a layout and checks its digest and size, as an engine does.
func blobOf(t *testing.T, dir string, d map[string]any) []byte {
	t.Helper()
	sum, _ := strings.CutPrefix(d["digest"].(string), "sha256:")
	b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", sum))
	if err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != sum || float64(len(b)) != d["size"].(float64) {
		t.Fatalf("the blob %s is not what it is called", sum)
	}
	return b
}

func object(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// The container image: read as an engine reads it, and run with a read-only root, without rights, as uid 65532. It
// listens, takes a line, and the hub has it.
func TestContainer(t *testing.T) {
	t.Parallel()
	built.Store(true)
	bin, err := program()
	if err != nil {
		t.Fatal(err)
	}
	elf, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	h := newHub(t)
	s := newSite(t, h, "Container")
	udp, tcp := ports(t)
	tmp := t.TempDir()
	image := oci.Image{
		Name: "tocsin-collector", Version: "1.0.0", Arch: runtime.GOARCH, Program: elf, CA: []byte("# none\n"), Created: time.Unix(1763800000, 0), Volume: "/var/lib/tocsin-collector",
		Files: map[string][]byte{"etc/tocsin/collector.yaml": fmt.Appendf(nil, "listen: {syslog: [{udp: \"127.0.0.1:%d\", tcp: \"127.0.0.1:%d\"}]}\n", udp, tcp)},
		Args:  []string{"run", "--config", "/etc/tocsin/collector.yaml"}, Env: []string{"TOCSIN_CONTAINER=oci"},
	}
	layout := filepath.Join(tmp, "layout")
	if err := oci.Write(layout, image); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := object(t, blobOf(t, layout, object(t, index)["manifests"].([]any)[0].(map[string]any)))
	image0 := object(t, blobOf(t, layout, manifest["config"].(map[string]any)))
	config := image0["config"].(map[string]any)
	layer := blobOf(t, layout, manifest["layers"].([]any)[0].(map[string]any))
	root := filepath.Join(tmp, "root")
	unpack(t, layer, root, image0["rootfs"].(map[string]any)["diff_ids"].([]any)[0].(string))
	if config["User"] != "65532:65532" {
		t.Errorf("the image's user is %v", config["User"])
	}
	bwrap, err := exec.LookPath("bwrap")
	if err != nil {
		if os.Getenv("TOCSIN_TEST_PEERS") != "" {
			t.Fatal("bubblewrap is not installed")
		}
		t.Skip("bubblewrap is not installed")
	}
	inside := func(command ...string) *exec.Cmd {
		args := []string{"--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", s.cfg.Dir, "/var/lib/tocsin-collector",
			"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--uid", "65532", "--gid", "65532", "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv"}
		for _, e := range config["Env"].([]any) {
			k, v, _ := strings.Cut(e.(string), "=")
			args = append(args, "--setenv", k, v)
		}
		cmd := exec.Command(bwrap, append(append(args, "--"), command...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	entry := config["Entrypoint"].([]any)[0].(string)
	if out, err := inside(entry, "version").CombinedOutput(); err != nil {
		if os.Getenv("TOCSIN_TEST_PEERS") == "" && strings.Contains(string(out), "bwrap:") {
			t.Skipf("bubblewrap cannot work here: %s", out)
		}
		t.Fatalf("%v %s", err, out)
	}
	command := []string{entry}
	for _, a := range config["Cmd"].([]any) {
		command = append(command, a.(string))
	}
	run := inside(command...)
	run.Stderr = s.logs
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { run.Wait(); close(done) }()
	defer func() { run.Process.Kill(); <-done }()
	up(t, s)
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "%s\n", traffic("deny", "203.0.113.1", "198.51.100.7", 1))
	conn.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a poll of another process, bounded by end
		if st, err := collector.FetchStatus(t.Context(), &s.cfg); err == nil && st.Counts["received"] == 1 && st.Acknowledged == 1 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the line: %v %+v\n%s", err, st, s.logs)
		}
	}
	// Nothing but the volume may be written to, also not by an update.
	out, err := inside(entry, "update").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "pull the newer image") {
		t.Errorf("update in a container: %v %s", err, out)
	}
	out, err = inside(entry, "firstboot", "--dir", "/etc/tocsin", "--https", "127.0.0.1:0", "--http", "").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "read-only file system") {
		t.Errorf("the root can be written to: %v %s", err, out)
	}
}

func unpack(t *testing.T, layer []byte, root, diffID string) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(plain); "sha256:"+hex.EncodeToString(sum[:]) != diffID {
		t.Error("the layer is not the one of the configuration")
	}
	for _, d := range []string{root, filepath.Join(root, "proc"), filepath.Join(root, "dev")} { // an engine makes the mount points
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for r := tar.NewReader(bytes.NewReader(plain)); ; {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(root, f.Name)
		if f.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, f.FileInfo().Mode().Perm())
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(name, b, f.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
