package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tocsin/internal/collector"
	"tocsin/internal/collector/listen/httpin"
)

// inputs looks at what lines come from beside ports: files that are followed, folders that files are put into, and the tokens that senders
// over HTTP must show.
func (r *run) inputs() {
	for i, f := range r.c.Listen.Files {
		key := fmt.Sprintf("listen.files[%d]", i)
		for _, p := range f.Paths {
			r.followed(key, p)
		}
		if f.Drop != "" {
			r.drop(key, f.Drop)
		}
	}
	for i, h := range r.c.Listen.HTTP {
		r.token(fmt.Sprintf("listen.http[%d]", i), h.TokenFile, h.TLS+h.TCP)
	}
	for i, o := range r.c.Listen.OTLP {
		r.token(fmt.Sprintf("listen.otlp[%d]", i), o.TokenFile, o.TLS+o.TCP)
	}
}

// followed looks whether a followed file is there and may be read.
func (r *run) followed(key, pattern string) {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return // the settings' own check says so
	}
	if len(names) == 0 {
		r.add("file "+pattern, "file_missing", Warn, key+": there is no file "+pattern, "Look at the path, and whether what writes it is running. The file is read as soon as it is there.")
		return
	}
	for _, n := range names {
		f, err := os.Open(n)
		if err == nil {
			f.Close()
			continue
		}
		next := "Let the collector's user read it: setfacl -m u:tocsin-collector:r " + n + " (and x for its folders)."
		if os.IsPermission(err) && os.Geteuid() != r.owner() {
			r.add("file "+n, "file_unread", Skip, key+": this user may not read it; the collector's user may", "Run doctor as the user that the collector runs as.")
			continue
		}
		r.add("file "+n, "file_unread", Fail, key+": "+plainPath(err), next)
		return
	}
	r.add("file "+pattern, "file_ok", OK, fmt.Sprintf("%d files are followed", len(names)), "")
}

// owner is the user whose folder the collector's is; -1 when that cannot be seen.
func (r *run) owner() int {
	i, err := os.Stat(r.c.Dir)
	if err != nil {
		return -1
	}
	return int(ownerOf(i))
}

// drop looks whether the drop folder is there, and what became of files put into it.
func (r *run) drop(key, dir string) {
	if i, err := os.Stat(dir); err != nil || !i.IsDir() {
		r.add("folder "+dir, "no_drop", Fail, key+": there is no folder "+dir, "Make it, and give it to the collector's user: install -d -o tocsin-collector "+dir)
		return
	}
	failed, _ := filepath.Glob(filepath.Join(dir, "failed", "*")) // a pattern of ours is never wrong
	n := 0
	for _, f := range failed {
		if !strings.HasSuffix(f, ".reason.txt") { // what stands beside each
			n++
		}
	}
	if n > 0 {
		r.add("folder "+dir, "drop_failed", Warn, fmt.Sprintf("%d files could not be read and lie in %s", n, filepath.Join(dir, "failed")), "The reason stands beside each. Mend and put it in again, or delete it.")
		return
	}
	r.add("folder "+dir, "drop_ok", OK, "files that are put there are taken", "")
}

// token looks whether any sender can send over HTTP: without a token nobody can.
func (r *run) token(key, own, addr string) {
	if addr == "" {
		return
	}
	t, err := httpin.OpenTokens(r.c.TokensFile(), own)
	switch {
	case os.IsPermission(err):
		r.add("tokens", "tokens_unread", Skip, key+": this user may not read the tokens", "Run doctor with sudo, or as the user that the collector runs as.")
	case err != nil:
		r.add("tokens", "tokens_wrong", Fail, key+": "+err.Error(), "Correct the file, or delete it and make the tokens again: tocsin-collector token --name SENDER")
	case t.Len() == 0:
		r.add("tokens", "no_token", Warn, key+": no token has been made, so no sender may send there", "Make one for each sender: tocsin-collector token --name SENDER")
	}
}

func plainPath(err error) string {
	if e, ok := err.(*os.PathError); ok {
		return e.Path + ": " + e.Err.Error()
	}
	return err.Error()
}

// onlyFiles says whether lines come from files and nowhere else.
func onlyFiles(c *collector.Config) bool { return len(c.Ports()) == 0 && len(c.Listen.Files) > 0 }
