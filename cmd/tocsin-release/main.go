// The program tocsin-release makes what is published of a release: the container image, the list of files, and its signature. Sign on a
// machine that is on no network; everything else can be made again by anybody and compared byte for byte (docs/release.md).
//
// Exit codes: 0 done; 1 it failed, or something does not verify; 2 wrong use.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tocsin/internal/keys"
	"tocsin/internal/release"
	"tocsin/internal/release/oci"
)

type command struct {
	name, args, short string
	run               func(args []string, out io.Writer) error
}

func commands() []command {
	return []command{
		{"keygen", "DIR", "make a release key in DIR, on a medium that is locked away", keygen},
		{"keyset", "--threshold N FILE.pub…", "print release-keys.json for packages", keyset},
		{"oci", "--version V --epoch SECONDS --ca FILE --out DIR amd64=PROGRAM [arm64=PROGRAM]", "write a container image as an OCI layout", ociCommand},
		{"sign", "--version V --serial N --key DIR [--key DIR…] [--next FILE] [--notes TEXT] [--life D] DIST", "list what is in DIST and sign the list", sign},
		{"verify", "--keys FILE DIST", "check the list, its signatures and every file", verify},
	}
}

var errUsage = errors.New("usage")

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name != args[0] {
				continue
			}
			err := c.run(args[1:], stdout)
			switch {
			case err == nil:
				return 0
			case errors.Is(err, errUsage), errors.Is(err, flag.ErrHelp):
				fmt.Fprintf(stderr, "tocsin-release: %v\nusage: tocsin-release %s %s\n", err, c.name, c.args)
				return 2
			}
			fmt.Fprintf(stderr, "tocsin-release %s: %v\n", c.name, err)
			return 1
		}
	}
	fmt.Fprintln(stderr, "tocsin-release: makes and checks what is published of a release")
	for _, c := range commands() {
		fmt.Fprintf(stderr, "  %s %s\n      %s\n", c.name, c.args, c.short)
	}
	return 2
}

func flags(name string, args []string, define func(*flag.FlagSet)) ([]string, error) {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	define(fs)
	if err := fs.Parse(args); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return fs.Args(), nil
}

func keygen(args []string, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("%w: name one folder", errUsage)
	}
	s, err := keys.CreateReleaseKey(args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Release key %s is in %s. Keep it and a copy away from every network.\nIts public half, release.pub, goes into release-keys.json: tocsin-release keyset --threshold 1 %s\n",
		s.ID()[:16], args[0], filepath.Join(args[0], "release.pub"))
	return err
}

func keyset(args []string, out io.Writer) error {
	threshold := 0
	files, err := flags("keyset", args, func(fs *flag.FlagSet) { fs.IntVar(&threshold, "threshold", 1, "") })
	if err != nil {
		return err
	}
	set := release.KeySet{Threshold: threshold}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		set.Keys = append(set.Keys, strings.TrimSpace(string(b)))
	}
	b, err := set.Encode()
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	return err
}

func ociCommand(args []string, out io.Writer) error {
	var version, ca, dir, config, keyFile string
	var epoch int64
	programs, err := flags("oci", args, func(fs *flag.FlagSet) {
		fs.StringVar(&version, "version", "", "")
		fs.StringVar(&ca, "ca", "", "")
		fs.StringVar(&dir, "out", "", "")
		fs.StringVar(&config, "config", "", "")
		fs.StringVar(&keyFile, "release-keys", "", "")
		fs.Int64Var(&epoch, "epoch", 0, "")
	})
	if err != nil {
		return err
	}
	if version == "" || dir == "" || len(programs) == 0 {
		return fmt.Errorf("%w: --version, --out and a program are needed", errUsage)
	}
	files := map[string][]byte{}
	for name, path := range map[string]string{"etc/tocsin/collector.yaml": config, "usr/share/tocsin-collector/release-keys.json": keyFile} {
		if path == "" {
			continue
		}
		if files[name], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	var pem []byte
	if ca != "" {
		if pem, err = os.ReadFile(ca); err != nil {
			return err
		}
	}
	var images []oci.Image
	for _, p := range programs {
		arch, path, ok := strings.Cut(p, "=")
		if !ok {
			return fmt.Errorf("%w: %q is not ARCH=PROGRAM", errUsage, p)
		}
		program, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		images = append(images, oci.Image{
			Name: "tocsin-collector", Version: version, Arch: arch, Program: program, CA: pem, Files: files, Created: time.Unix(epoch, 0),
			Args: []string{"run", "--config", "/etc/tocsin/collector.yaml"}, Ports: []string{"514/tcp", "514/udp"}, Volume: "/var/lib/tocsin-collector",
			Env: []string{"PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", "TOCSIN_CONTAINER=oci"},
		})
	}
	if err := oci.Write(dir, images...); err != nil {
		return err
	}
	f, err := os.Create(dir + ".tar")
	if err != nil {
		return err
	}
	if err := errors.Join(oci.Tar(f, dir, time.Unix(epoch, 0)), f.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s.tar\n", dir)
	return err
}

// kindOf tells a file's kind and machine by its name, as scripts/packages.sh writes it; "" for what is not part of a release.
func kindOf(name string) (kind, arch string) {
	for suffix, k := range map[string]string{".deb": release.Deb, ".rpm": release.RPM, ".qcow2": release.Appliance, ".ova": release.Appliance, ".vhdx": release.Appliance} {
		if strings.HasSuffix(name, suffix) {
			kind = k
		}
	}
	for from, to := range map[string]string{"amd64": "amd64", "x86_64": "amd64", "arm64": "arm64", "aarch64": "arm64"} {
		if strings.Contains(name, from) {
			arch = to
		}
	}
	switch {
	case kind != "":
	case strings.HasSuffix(name, "-oci.tar"):
		kind = release.OCI
	case strings.HasPrefix(name, "tocsin-collector_") && strings.HasSuffix(name, "_linux_"+arch) && arch != "":
		kind = release.Program
	}
	return kind, arch
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func sign(args []string, out io.Writer) error {
	l := release.List{Format: 1, Product: release.Product, Issued: time.Now().UTC().Truncate(time.Second)}
	var dirs list
	var next, serial string
	life := release.Life
	rest, err := flags("sign", args, func(fs *flag.FlagSet) {
		fs.StringVar(&l.Version, "version", "", "")
		fs.StringVar(&serial, "serial", "", "")
		fs.StringVar(&l.Notes, "notes", "", "")
		fs.StringVar(&next, "next", "", "")
		fs.DurationVar(&life, "life", life, "")
		fs.Var(&dirs, "key", "")
	})
	if err != nil {
		return err
	}
	if len(rest) != 1 || len(dirs) == 0 || serial == "" {
		return fmt.Errorf("%w: --version, --serial, --key and one folder are needed", errUsage)
	}
	dist := rest[0]
	if l.Serial, err = strconv.ParseUint(serial, 10, 64); err != nil {
		return fmt.Errorf("%w: --serial is a number that rises with every release", errUsage)
	}
	l.Expires = l.Issued.Add(life)
	if next != "" {
		set, err := release.ReadKeySet(next)
		if err != nil {
			return err
		}
		l.Next = &set
	}
	entries, err := os.ReadDir(dist) // in the order of names
	if err != nil {
		return err
	}
	for _, e := range entries {
		kind, arch := kindOf(e.Name())
		if kind == "" || !e.Type().IsRegular() {
			continue
		}
		f, err := release.Describe(filepath.Join(dist, e.Name()), kind, "linux", arch)
		if err != nil {
			return err
		}
		l.Files = append(l.Files, f)
	}
	var signers []*keys.Signer
	for _, d := range dirs {
		s, err := keys.OpenReleaseKey(d)
		if err != nil {
			return err
		}
		signers = append(signers, s)
	}
	slices.SortFunc(signers, func(a, b *keys.Signer) int { return strings.Compare(a.ID(), b.ID()) })
	env, err := release.Sign(l, signers...)
	if err != nil {
		return err
	}
	name := filepath.Join(dist, release.Name)
	if err := os.WriteFile(name+".new", env, 0o644); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: release %s, number %d, %d files, to be believed until %s\n", name, l.Version, l.Serial, len(l.Files), l.Expires.Format(time.DateOnly))
	return err
}

func verify(args []string, out io.Writer) error {
	var keyFile string
	rest, err := flags("verify", args, func(fs *flag.FlagSet) { fs.StringVar(&keyFile, "keys", "", "") })
	if err != nil {
		return err
	}
	if len(rest) != 1 || keyFile == "" {
		return fmt.Errorf("%w: --keys and one folder are needed", errUsage)
	}
	set, err := release.ReadKeySet(keyFile)
	if err != nil {
		return err
	}
	env, err := os.ReadFile(filepath.Join(rest[0], release.Name))
	if err != nil {
		return err
	}
	l, err := release.Open(env, set, release.Seen{}, time.Now())
	if err != nil {
		return err
	}
	for _, f := range l.Files {
		if err := f.Check(rest[0]); err != nil {
			return err
		}
		fmt.Fprintf(out, "ok %s\n", f.Name)
	}
	_, err = fmt.Fprintf(out, "release %s, number %d, of %s, verified\n", l.Version, l.Serial, l.Issued.Format(time.DateOnly))
	return err
}
