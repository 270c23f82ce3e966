package update

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"tocsin/internal/durable"
	"tocsin/internal/release"
)

// Version is a program that was stored here.
type Version struct {
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
	Serial  uint64 `json:"serial,string"`
}

// Trial is a program that must show that it is healthy.
type Trial struct {
	Version
	Began    time.Time `json:"began"`
	Deadline time.Time `json:"deadline"`
	Starts   int       `json:"starts"` // of the service since it began
	Before   Health    `json:"before"` // how it was before: what was broken already is not the new program's fault
}

// Refused is a program that was taken back.
type Refused struct {
	Version
	Why string    `json:"why"`
	At  time.Time `json:"at"`
}

// Health is what is known of how a collector does.
type Health struct {
	HubTrouble bool `json:"hub_trouble"`
}

// State is all that is kept between runs.
type State struct {
	Format   int             `json:"format"` // 1
	Seen     release.Seen    `json:"seen"`
	Keys     *release.KeySet `json:"keys,omitempty"` // set by a signed list in place of the packaged keys
	KeysFrom string          `json:"keys_from,omitempty"`
	InForce  *Version        `json:"in_force,omitempty"` // nil: the package's
	Trial    *Trial          `json:"trial,omitempty"`
	Refused  []Refused       `json:"refused,omitempty"`
	Checked  time.Time       `json:"checked"`
	Newest   string          `json:"newest,omitempty"` // the newest version that a list named
}

// limits of a trial.
const (
	maxStarts  = 4 // one by the updater, and three by the service manager after crashes
	maxRefused = 16
)

const stateFile = "state.json"

// ErrState means that the state is damaged or may be changed by others; nothing is run from such a folder.
var ErrState = errors.New("the folder of newer programs cannot be trusted")

// readState reads the state; an empty one when there is none.
func readState(dir string) (State, error) {
	s := State{Format: 1}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Format != 1 {
		return State{Format: 1}, fmt.Errorf("%w: %s is damaged", ErrState, stateFile)
	}
	return s, nil
}

// change changes the state under its lock: f sees the newest, and what it leaves is durable when change returns nil.
func change(dir string, f func(*State) error) (State, error) {
	lock, err := lockFile(filepath.Join(dir, "lock"), syscall.LOCK_EX)
	if err != nil {
		return State{}, err
	}
	defer unlock(lock)
	s, err := readState(dir)
	if err != nil {
		return s, err
	}
	if err := f(&s); err != nil {
		return s, err
	}
	if len(s.Refused) > maxRefused {
		s.Refused = s.Refused[len(s.Refused)-maxRefused:]
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return s, err
	}
	return s, durable.Replace(filepath.Join(dir, stateFile), append(b, '\n'), 0o644)
}

func lockFile(name string, how int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unlock frees the lock also when a child that is just being started holds a copy of the file.
func unlock(f *os.File) {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	f.Close()
}

// programPath is where a stored program stands.
func programPath(dir, sum string) string { return filepath.Join(dir, sum, "tocsin-collector") }

// verified says whether a stored program is whole.
func verified(dir string, v Version) bool {
	f, err := os.Open(programPath(dir, v.SHA256))
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == v.SHA256
}

// guarded refuses a folder or file that somebody else than root, or than ourselves, could have written.
func guarded(path string) error {
	i, err := os.Lstat(path)
	if err != nil {
		return err
	}
	s, ok := i.Sys().(*syscall.Stat_t)
	if !ok || s.Uid != 0 && int(s.Uid) != os.Geteuid() || i.Mode().Perm()&0o022 != 0 || i.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%w: others than root may write to %s", ErrState, path)
	}
	return nil
}

// Env tells a program that it was chosen, so that it does not choose again.
const Env = "TOCSIN_COLLECTOR_PROGRAM"

// Choose gives the program that is to run in place of the packaged one, whose version is own: the one on trial, or in force; "" for the
// packaged one itself. A damaged or unguarded folder is an error, and means the packaged one too.
func Choose(dir, own string) (path string, err error) {
	if os.Getenv(Env) != "" {
		return "", nil
	}
	if _, err := os.Stat(filepath.Join(dir, stateFile)); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	for _, p := range []string{dir, filepath.Join(dir, stateFile)} {
		if err := guarded(p); err != nil {
			return "", err
		}
	}
	s, err := readState(dir)
	if err != nil {
		return "", err
	}
	if s.Trial != nil && s.Trial.Starts <= maxStarts {
		if p, ok := usable(dir, s.Trial.Version, own); ok {
			return p, nil
		}
	}
	if s.InForce != nil {
		if p, ok := usable(dir, *s.InForce, own); ok {
			return p, nil
		}
		if release.Newer(s.InForce.Version, own) {
			return "", fmt.Errorf("%w: the program of version %s is damaged; the package's runs in its place", ErrState, s.InForce.Version)
		}
	}
	return "", nil
}

func usable(dir string, v Version, own string) (string, bool) {
	p := programPath(dir, v.SHA256)
	if !release.Newer(v.Version, own) || guarded(filepath.Dir(p)) != nil || guarded(p) != nil || !verified(dir, v) {
		return "", false
	}
	return p, true
}

// Settle is what the service runs before each start: it counts the starts of a trial, and takes back one that starts again and again or is
// past its time with nobody watching.
func Settle(dir string, now time.Time) (back *Refused, err error) {
	if s, err := readState(dir); err == nil && s.Trial == nil {
		return nil, nil
	}
	_, err = change(dir, func(s *State) error {
		t := s.Trial
		if t == nil {
			return nil
		}
		t.Starts++
		switch {
		case t.Starts > maxStarts:
			back = s.takeBack(fmt.Sprintf("it ended %d times on its own", t.Starts-1), now)
		case now.After(t.Deadline.Add(time.Minute)):
			// Nobody said that it is healthy, and nobody that it is not: the machine was off. It may be tried again.
			s.Trial = nil
		}
		return nil
	})
	return back, err
}

// takeBack ends a trial with a refusal.
func (s *State) takeBack(why string, now time.Time) *Refused {
	r := Refused{Version: s.Trial.Version, Why: why, At: now.UTC()}
	s.Trial = nil
	s.Refused = append(s.Refused, r)
	return &r
}
