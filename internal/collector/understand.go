package collector

import (
	"time"

	"tocsin/internal/collector/archive"
	"tocsin/internal/collector/parse"
	"tocsin/internal/event"
	"tocsin/internal/keys"
)

// Understander reads raw lines as the collector of a folder does: by the listener that took them, and with the parsers that are in force there. It
// keeps and changes nothing in the folder.
type Understander struct{ read *readers }

// NewUnderstander makes one from the settings. Where the hub's parsers cannot be read it makes do with those that are built in.
func NewUnderstander(c *Config) (*Understander, error) {
	lib := parse.NewLibrary()
	if k, err := keys.OpenCollector(c.KeyDir()); err == nil {
		if kept := readKept(c, k, time.Now()); kept.parsers != nil {
			if set, err := parserPack(kept.parsers); err == nil {
				lib.Use(set)
			}
		}
	}
	r, err := newReaders(c.Listen.slots(), c.Listen.Devices, lib)
	if err != nil {
		return nil, err
	}
	return &Understander{r}, nil
}

// Line reads a line into e and names the format that understood it.
func (u *Understander) Line(e *event.Event, l *archive.Line) (format string, ok bool) {
	e.Reset()
	e.SetRaw(l.Text)
	e.Created = l.Created
	return u.read.parse(e, l)
}

// Test says whether a line is the collector's own daily test, and no device's.
func (u *Understander) Test(l *archive.Line) bool { return l.Listener == slotDaily }

// Flow says whether a line is a flow record, not a device's log: flows know neither refusals nor facilities, and end before they are sent.
func (u *Understander) Flow(l *archive.Line) bool { return u.read.ready[u.read.of(l.Listener)] }
