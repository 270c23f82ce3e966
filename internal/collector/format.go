package collector

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// Format is the newest form of a collector's folder that this program writes, and the newest that it reads; it reads every older one.
//
//	1   as it was before DIR/format stood there
//	2   packed files of the archive, thinned files of the spool, the file that an archived line stood in, events put behind a sealed batch
//
// DIR/format names the form before anything of it is written, so that an older program refuses the folder whole instead of reading half of it. A
// program on trial (package update) writes nothing that the one before cannot read: taking it back loses nothing.
const Format = 2

// ErrFormat means that a newer program has written in the folder.
var ErrFormat = errors.New("a newer version of this program has worked in the folder")

// formatEvery is how often a program on trial looks whether the trial is over.
const formatEvery = 10 * time.Second

func (a *Agent) formatFile() string { return a.o.Config.path("format") }

// openFormat refuses a folder of a newer program.
func (a *Agent) openFormat() error {
	b, err := os.ReadFile(a.formatFile())
	have := 1
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if have, err = strconv.Atoi(string(bytes.TrimSpace(b))); err != nil || have < 1 {
			return fmt.Errorf("%s holds no number: write %d into it if this is the newest version that ever ran here", a.formatFile(), Format)
		}
	}
	if have > Format {
		return fmt.Errorf("%w (%s: its form is %d, this program knows up to %d); nothing was changed: install the newer version again", ErrFormat, a.o.Config.Dir, have, Format)
	}
	if have == Format {
		a.modern.Store(true)
		return nil
	}
	a.keepFormat(a.o.Now())
	return nil
}

// raiseFormat lets this program write its own form, unless it is on trial.
func (a *Agent) raiseFormat() error {
	if a.o.OnTrial != nil && a.o.OnTrial() {
		return nil
	}
	if err := writeFile(a.formatFile(), fmt.Appendf(nil, "%d\n", Format)); err != nil {
		return fmt.Errorf("form of the folder: %w", err)
	}
	a.modern.Store(true)
	if a.archive != nil {
		a.archive.Modern()
	}
	return nil
}

// keepFormat looks now and then whether a trial is over, and whether what could not be written can; the loop calls it. A full disk is no reason not
// to begin: it is waited for.
func (a *Agent) keepFormat(now time.Time) {
	if a.modern.Load() || now.Sub(a.formatAt).Abs() < formatEvery {
		return
	}
	a.formatAt = now
	err := a.raiseFormat()
	if err != nil && !a.formatSaid {
		a.log.Warn("cannot write DIR/format; files go on being written as older versions of this program write them, and it is tried again", "error", err)
	}
	a.formatSaid = err != nil
}
