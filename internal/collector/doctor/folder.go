package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/minimise"

	"golang.org/x/sys/unix"
)

// folder looks whether the collector's folder is there and belongs to one user throughout. It gives false when nothing else can be said.
func (r *run) folder() bool {
	dir := r.c.Dir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.add("folder", "no_folder", Fail, dir+" does not exist", "Enrol first, with the token that the centre gave you: tocsin-collector enrol TOKEN --dir "+dir)
		return false
	case err != nil:
		r.add("folder", "folder_denied", Fail, err.Error(), "Run doctor with sudo, or as the user that the collector runs as.")
		return false
	case !info.IsDir():
		r.add("folder", "no_folder", Fail, dir+" is not a folder", "Name another folder with dir in the settings.")
		return false
	}
	owner := ownerOf(info)
	strange, unreadable := "", ""
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrPermission) && unreadable == "" {
				unreadable = name
			}
			return nil // a file that went away meanwhile, or one that is reported below
		}
		if i, err := d.Info(); err == nil && ownerOf(i) != owner && strange == "" {
			strange = name
		}
		return nil
	})
	var ro syscall.Statfs_t
	readOnly := syscall.Statfs(dir, &ro) == nil && ro.Flags&unix.ST_RDONLY != 0
	switch {
	case readOnly:
		r.add("folder", "read_only", Fail, dir+" is on a disk that is mounted read-only", "Look for disk errors (dmesg), then mount it writable: mount -o remount,rw")
	case err != nil:
		r.add("folder", "folder_denied", Fail, err.Error(), "Run doctor with sudo.")
	case strange != "":
		r.add("folder", "wrong_owner", Fail, fmt.Sprintf("%s belongs to another user than %s (%s): a command was run as the wrong user", strange, dir, userName(owner)),
			fmt.Sprintf("chown -R %s: %s, then restart the collector.", userName(owner), dir))
	case unreadable != "":
		r.add("folder", "folder_denied", Skip, unreadable+" may not be read by this user", "Run doctor with sudo, or as "+userName(owner)+".")
	case os.Geteuid() != 0 && unix.Access(dir, unix.W_OK) != nil:
		r.add("folder", "folder_denied", Warn, fmt.Sprintf("this user may not write to %s, which belongs to %s", dir, userName(owner)), "Run doctor and the collector as "+userName(owner)+".")
	case info.Mode().Perm()&0o077 != 0:
		r.add("folder", "folder_open", Warn, fmt.Sprintf("%s may be read by other users of this machine (mode %04o)", dir, info.Mode().Perm()), "chmod 700 "+dir)
	default:
		r.add("folder", "folder_ok", OK, fmt.Sprintf("%s, of %s", dir, userName(owner)), "")
	}
	return true
}

func ownerOf(i fs.FileInfo) uint32 {
	if s, ok := i.Sys().(*syscall.Stat_t); ok {
		return s.Uid
	}
	return 0
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.Itoa(int(uid))); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", uid)
}

func (r *run) disk() {
	var d syscall.Statfs_t
	if err := syscall.Statfs(r.c.Dir, &d); err != nil {
		r.add("disk", "disk_unknown", Skip, err.Error(), "")
		return
	}
	free := int64(d.Bavail) * d.Bsize
	c := r.c
	want := c.Archive.MaxBytes + c.Spool.MaxBytes + c.Sent.MaxBytes
	switch {
	case free < 256<<20:
		r.add("disk", "disk_full", Fail, fmt.Sprintf("%d MiB free in %s", free>>20, c.Dir), "Make room: while the disk is full no new lines are taken. Lowering archive.max_bytes in the settings frees the most.")
	case d.Files > 0 && d.Ffree < 1000:
		r.add("disk", "no_inodes", Fail, fmt.Sprintf("only %d more files can be made in %s", d.Ffree, c.Dir), "Some program has made very many small files: find and remove them (df -i).")
	case free < want/4:
		r.add("disk", "disk_small", Warn, fmt.Sprintf("%d MiB free in %s; archive, spool and record may grow to %d MiB", free>>20, c.Dir, want>>20), "Lower archive.max_bytes, spool.max_bytes or sent.max_bytes, or use a larger disk.")
	default:
		r.add("disk", "disk_ok", OK, fmt.Sprintf("%d MiB free", free>>20), "")
	}
}

// service asks systemd why the collector does not run: both answers are empty where there is no systemd, or no such service.
func service(ctx context.Context) (detail, next string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "tocsin-collector.service", "--property=LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus").Output()
	if err != nil {
		return "", ""
	}
	p := map[string]string{}
	for line := range strings.Lines(string(out)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		p[k] = v
	}
	switch {
	case p["LoadState"] != "loaded":
		return "", ""
	case p["ActiveState"] == "failed" || p["SubState"] == "auto-restart":
		return fmt.Sprintf("its service ends with exit code %s (%s)", p["ExecMainStatus"], p["Result"]), "Read why: journalctl -u tocsin-collector -n 20"
	case p["UnitFileState"] == "disabled":
		return "its service is switched off", "systemctl enable --now tocsin-collector"
	}
	return "its service is " + p["ActiveState"], "systemctl start tocsin-collector, then read: journalctl -u tocsin-collector -n 20"
}

// policyName is the name of the policy in the settings; of a file, the one that stands in it.
func policyName(c *collector.Config) string {
	if p, err := minimise.Load(c.Policy.Name); err == nil {
		return p.Name
	}
	return c.Policy.Name
}
