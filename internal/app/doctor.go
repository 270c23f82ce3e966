package app

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/config"
	"tocsin/internal/db"
	"tocsin/internal/detect"
	"tocsin/internal/enrich"
	"tocsin/internal/eventstore/library"
	"tocsin/internal/keys"
)

// Finding is one thing that Doctor looked at.
type Finding struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`           // what was found
	Next string `json:"next,omitempty"` // what to do, when it is not well
}

// Doctor looks at a data folder and what the hub needs beside it. It changes nothing and works with the hub running or not.
func Doctor(ctx context.Context, h config.Hub) []Finding {
	var out []Finding
	look := func(name string, f func() (text, next string, err error)) {
		text, next, err := f()
		if err != nil {
			out = append(out, Finding{Name: name, Text: err.Error(), Next: next})
			return
		}
		out = append(out, Finding{Name: name, OK: true, Text: text})
	}
	look("data folder", func() (string, string, error) {
		st, err := os.Stat(h.DataDir)
		if err != nil {
			return "", "Give the right --data or --config, or run `tocsin admin init`.", err
		}
		if st.Mode().Perm()&0o077 != 0 {
			return "", "chmod 700 " + h.DataDir, fmt.Errorf("%s can be read by others (%o)", h.DataDir, st.Mode().Perm())
		}
		return h.DataDir, "", nil
	})
	look("keys", func() (string, string, error) {
		ring, err := keys.Open(keyDir(h.DataDir), keys.HubPurposes...)
		if err != nil {
			return "", "If there is no scheme yet, run `tocsin admin init`. If keys are missing, put the copy from your safe back; never make new ones over them.", err
		}
		root := ring.Trust().RootFingerprint()
		return "complete; root " + hex.EncodeToString(root[:]), "", nil
	})
	look("root key", func() (string, string, error) {
		for _, dir := range []string{keyDir(h.DataDir), filepath.Join(h.DataDir, "offline")} {
			if _, err := os.Stat(filepath.Join(dir, "root.key")); err == nil {
				return "", "Move " + dir + " to a medium that you take out. In the demo this is as it should be.", errors.New("the scheme's root key lies on this machine")
			}
		}
		return "not on this machine, as it should be", "", nil
	})
	look("database", func() (string, string, error) {
		if _, err := os.Stat(databaseFile(h.DataDir)); err != nil {
			return "", "It is made at the hub's first start.", err
		}
		d, err := db.Open(ctx, db.Options{Path: databaseFile(h.DataDir)})
		if err != nil {
			return "", "See whether the disk is full and the file belongs to the hub's user; otherwise put a backup back.", err
		}
		defer d.Close()
		if err := d.Check(ctx); err != nil {
			return "", "Stop the hub and put a backup back (docs/backup.md).", err
		}
		v, err := d.Version(ctx)
		return fmt.Sprintf("sound; schema %d", v), "", err
	})
	look("engine library", func() (string, string, error) {
		path, err := library.Find(h.Engine.Library)
		if err != nil {
			return "", "Run `make data`, or set engine.library.", err
		}
		if err := library.Verify(path, ""); err != nil {
			return "", "Remove it and run `make data`. Do not run a hub with it.", err
		}
		return path, "", nil
	})
	look("place data", func() (string, string, error) {
		e, err := enrich.Open(ctx, enrich.Options{Dirs: findBeside(h.Places.Dir, "share", "tocsin"), Overlay: h.Places.Overlay})
		if err != nil {
			return "", "Correct places.overlay.", err
		}
		var have []string
		for _, s := range e.Sources() {
			if s.Missing {
				return "", s.Next, fmt.Errorf("%s data are missing: addresses will have no %s", s.Role, s.Role)
			}
			text := s.Role + " " + s.Version
			if !s.Date.IsZero() {
				text += " of " + s.Date.Format("2 January 2006")
			}
			have = append(have, text)
		}
		return strings.Join(have, "; "), "", nil
	})
	look("rules", func() (string, string, error) {
		cat, err := LoadRules(h.DataDir)
		if err != nil {
			return "", "See whether the folder belongs to the hub's user.", err
		}
		e, err := detect.New(detect.Options{Catalogue: cat, Where: detect.Hub})
		if err != nil {
			return "", "Run `tocsin rules check`.", err
		}
		if errs := e.Errors(); len(errs) > 0 {
			return "", "Mend these files below " + ruleDir(h.DataDir) + ", or take them away; until then the rules from before run on.", &detect.BadRules{Errors: errs}
		}
		return fmt.Sprintf("%d make detections", len(cat.Infos())), "", nil
	})
	look("disk", func() (string, string, error) {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(h.DataDir, &fs); err != nil {
			return "", "Give the right --data or --config, or run `tocsin admin init`.", err
		}
		free := fs.Bavail * uint64(fs.Bsize)
		if free < 2*reserve {
			return "", "Make room: below 1 GiB nothing new is taken in, and collectors keep it.", fmt.Errorf("only %d MiB are free", free>>20)
		}
		return fmt.Sprintf("%d GiB free", free>>30), "", nil
	})
	look("clock", func() (string, string, error) {
		if now := time.Now(); now.Year() < 2026 {
			return "", "Set the clock; batches and certificates cannot be judged with a wrong one.", fmt.Errorf("it is said to be %s", now.Format(time.RFC3339))
		}
		return time.Now().UTC().Format(time.RFC3339), "", nil
	})
	return out
}
