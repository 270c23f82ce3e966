package gate

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"time"

	"tocsin/internal/batch"
)

// releaseName is what a file of a release may be called; no path is one.
var releaseName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}$`)

// releaseTime is how long the download of one file may take: 64 MiB at 1 Mbit/s.
const releaseTime = 10 * time.Minute

// releases gives enrolled collectors the files of the release that the operator put into the folder. The hub vouches for nothing in it:
// collectors verify the list's signatures by keys that no hub has (docs/release.md). The folder is read each time, so a release is
// published by moving release.json into it last.
func (g *Gate) releases(w http.ResponseWriter, r *http.Request) {
	_, id, p := g.who(r)
	if p != nil {
		g.refuse(w, r, id.Collector, p)
		return
	}
	none := func() {
		// No fault of anybody: collectors ask every night, and most schemes publish now and then.
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(batch.Problem{Code: "no_release", Title: "No release has been published here", Detail: "The scheme's operator has put none into the hub's folder of releases.", Next: "Nothing: the collector asks again by itself."})
	}
	name := r.PathValue("name")
	if g.o.Releases == "" || !releaseName.MatchString(name) {
		none()
		return
	}
	dir, err := os.OpenRoot(g.o.Releases) // follows no link that leads out of the folder
	if err != nil {
		none()
		return
	}
	defer dir.Close()
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		none()
		return
	}
	if err != nil {
		g.log.Error("cannot read a file of the release", "file", name, "error", err)
		none()
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		none()
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(releaseTime))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "private, no-cache")
	http.ServeContent(w, r, "", info.ModTime(), f)
}
