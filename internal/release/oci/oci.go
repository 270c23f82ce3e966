// Package oci writes a container image of one static program as an OCI image layout (image-spec 1.1), without a container engine.
//
// It reads the program and the CA file, and writes one folder, or one tar of it, from nothing but its arguments: the same arguments give
// the same bytes, on any machine, on any day. The image has no shell and no package: the program, the CA certificates, passwd and group with
// one user, and the folders that are written to. It runs as uid 65532 with a read-only root.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// UID is the user and group of the program: the number that images without a distribution use for "nonroot".
const UID = 65532

// Image is what to write.
type Image struct {
	Name    string // org.opencontainers.image.ref.name, such as tocsin-collector
	Version string
	Arch    string            // amd64, arm64
	Program []byte            // a static ELF program
	CA      []byte            // PEM; may be empty
	Files   map[string][]byte // more files by their path, such as etc/tocsin/collector.yaml
	Created time.Time         // of everything in the image
	Args    []string          // after the program's path
	Ports   []string          // such as 514/udp
	Volume  string            // the folder that must be kept, such as /var/lib/tocsin-collector
	Env     []string
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// Write writes images of one program for several machines as a layout into dir, which must not exist. After an error dir is removed.
func Write(dir string, images ...Image) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("oci layout: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return fmt.Errorf("oci layout: %w", err)
	}
	put := func(mediaType string, b []byte) (descriptor, error) {
		sum := sha256.Sum256(b)
		d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(b))}
		return d, os.WriteFile(filepath.Join(blobs, hex.EncodeToString(sum[:])), b, 0o644)
	}
	var manifests []descriptor
	for i := range images {
		m, err := images[i].manifest(put)
		if err != nil {
			return fmt.Errorf("oci layout: %w", err)
		}
		manifests = append(manifests, m)
	}
	index := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
	b, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("oci layout: %w", err)
	}
	if len(manifests) > 1 { // one name for all machines: an index of the index
		d, err := put("application/vnd.oci.image.index.v1+json", b)
		if err != nil {
			return fmt.Errorf("oci layout: %w", err)
		}
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": images[0].Version}
		if b, err = json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []descriptor{d}}); err != nil {
			return fmt.Errorf("oci layout: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644); err != nil {
		return fmt.Errorf("oci layout: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return fmt.Errorf("oci layout: %w", err)
	}
	return nil
}

func (m *Image) manifest(put func(string, []byte) (descriptor, error)) (descriptor, error) {
	layer, err := m.layer()
	if err != nil {
		return descriptor{}, err
	}
	diff := sha256.Sum256(layer)
	var z bytes.Buffer
	gz := gzip.NewWriter(&z)                   // the best level costs four times as long for a hundredth of the size
	if _, err := gz.Write(layer); err != nil { // the header carries neither name nor time
		return descriptor{}, err
	}
	if err := gz.Close(); err != nil {
		return descriptor{}, err
	}
	l, err := put("application/vnd.oci.image.layer.v1.tar+gzip", z.Bytes())
	if err != nil {
		return descriptor{}, err
	}
	created := m.Created.UTC().Format(time.RFC3339)
	empty := map[string]struct{}{}
	ports := map[string]struct{}{}
	for _, p := range m.Ports {
		ports[p] = struct{}{}
	}
	volumes := empty
	if m.Volume != "" {
		volumes = map[string]struct{}{m.Volume: {}}
	}
	labels := map[string]string{"org.opencontainers.image.title": m.Name, "org.opencontainers.image.version": m.Version, "org.opencontainers.image.licenses": "Apache-2.0"}
	config, err := json.Marshal(map[string]any{
		"created": created, "architecture": m.Arch, "os": "linux",
		"config": map[string]any{
			"User": fmt.Sprintf("%d:%d", UID, UID), "Entrypoint": []string{"/usr/bin/" + m.Name}, "Cmd": m.Args, "Env": m.Env, "WorkingDir": "/",
			"ExposedPorts": ports, "Volumes": volumes, "Labels": labels, "StopSignal": "SIGTERM",
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(diff[:])}},
		"history": []map[string]any{{"created": created, "created_by": "tocsin-release oci"}},
	})
	if err != nil {
		return descriptor{}, err
	}
	c, err := put("application/vnd.oci.image.config.v1+json", config)
	if err != nil {
		return descriptor{}, err
	}
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": c, "layers": []descriptor{l}, "annotations": labels})
	if err != nil {
		return descriptor{}, err
	}
	d, err := put("application/vnd.oci.image.manifest.v1+json", b)
	if err != nil {
		return descriptor{}, err
	}
	d.Platform = &platform{Architecture: m.Arch, OS: "linux"}
	d.Annotations = map[string]string{"org.opencontainers.image.ref.name": m.Version}
	return d, nil
}

// layer is the root file system.
func (m *Image) layer() ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	made := map[string]bool{"": true, ".": true}
	var dir func(name string, mode int64, uid int) error
	dir = func(name string, mode int64, uid int) error {
		if made[name] {
			return nil
		}
		if err := dir(strings.TrimPrefix(path.Dir("/"+name), "/"), 0o755, 0); err != nil {
			return err
		}
		made[name] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: uid, Gid: uid, ModTime: m.Created.UTC().Truncate(time.Second), Format: tar.FormatUSTAR})
	}
	file := func(name string, mode int64, content []byte) error {
		if err := dir(strings.TrimPrefix(path.Dir("/"+name), "/"), 0o755, 0); err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: m.Created.UTC().Truncate(time.Second), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	if err := file("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\n%s:x:%d:%d:%s:%s:/sbin/nologin\n", m.Name, UID, UID, m.Name, m.Volume)); err != nil {
		return nil, err
	}
	if err := file("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\n%s:x:%d:\n", m.Name, UID)); err != nil {
		return nil, err
	}
	if len(m.CA) > 0 {
		if err := file("etc/ssl/certs/ca-certificates.crt", 0o644, m.CA); err != nil {
			return nil, err
		}
	}
	for _, name := range sortedKeys(m.Files) {
		if name != path.Clean(name) || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") {
			return nil, fmt.Errorf("%q is not a path inside the image", name)
		}
		if err := file(name, 0o644, m.Files[name]); err != nil {
			return nil, err
		}
	}
	if err := dir("tmp", 0o1777, 0); err != nil {
		return nil, err
	}
	if v := strings.TrimPrefix(m.Volume, "/"); v != "" {
		if err := dir(v, 0o700, UID); err != nil {
			return nil, err
		}
	}
	if err := file("usr/bin/"+m.Name, 0o755, m.Program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Tar writes the layout in dir as one tar file, the form in which container engines load it.
func Tar(out io.Writer, dir string, created time.Time) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error { // in the order of names
		if err != nil || name == dir {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeDir, Name: filepath.ToSlash(rel) + "/", Mode: 0o755, ModTime: created.UTC().Truncate(time.Second), Format: tar.FormatUSTAR}
		if !d.IsDir() {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			h.Typeflag, h.Name, h.Mode, h.Size = tar.TypeReg, filepath.ToSlash(rel), 0o644, int64(len(b))
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			_, err = w.Write(b)
			return err
		}
		return w.WriteHeader(h)
	})
	if err != nil {
		return fmt.Errorf("oci layout: %w", err)
	}
	return w.Close()
}

func sortedKeys(m map[string][]byte) []string { return slices.Sorted(maps.Keys(m)) }
