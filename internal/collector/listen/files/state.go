package files

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"tocsin/internal/durable"
)

// place is how far a file has been read.
type place struct {
	Path   string   `json:"path"` // the name it had when it was found; it may have been renamed since
	Dev    uint64   `json:"dev"`
	Ino    uint64   `json:"ino"`
	Prints int      `json:"prints"` // number of first bytes that Print is of
	Print  [16]byte `json:"print"`
	Offset int64    `json:"offset"`
	Size   int64    `json:"size"` // when it was last looked at
}

// state is what the file of places holds.
type state struct {
	Mark  uint64     `json:"mark,string"`  // the sink's when this was written: what it received later is behind these places
	Saved int64      `json:"saved,string"` // when, UTC nanoseconds of the clock that file times are of
	Files []place    `json:"files"`
	Done  []place    `json:"done"` // files that were rotated away and read to their end, lately
	Drop  *dropPlace `json:"drop,omitempty"`

	absent []place // of files that cannot be read now
	began  bool    // this is not the first time that files are looked for
}

// dropPlace is the dropped file that is being read.
type dropPlace struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Time    int64  `json:"time,string"` // of its last change, UTC nanoseconds
	Records int    `json:"records"`     // that were given to the sink
}

func (p *dropPlace) clone() *dropPlace {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func readState(name string) (*state, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{}, nil
	}
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, err
	}
	s.began = true
	return s, nil
}

// write replaces the file so that a crash leaves the old one or the new one.
func (s *state) write(name string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return durable.Replace(name, b, 0o600)
}
