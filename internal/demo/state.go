package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"tocsin/internal/load/local"
)

// state is what a second start must know: DIR/demo.json, for its owner only. It holds the sign-ins of people who do not exist, of a hub
// that listens on loopback; a real hub shows a password once and keeps its hash.
type state struct {
	GatePort   int                        `json:"gate_port"`
	WebPort    int                        `json:"web_port"`
	SignIns    []local.SignIn             `json:"sign_ins,omitempty"`
	Collectors map[string]*collectorState `json:"collectors"`
	History    []span                     `json:"history,omitempty"` // the invented past

	path string
	lock *os.File
}

type collectorState struct {
	Port       int         `json:"port"` // syslog, UDP and TCP
	Enrolled   bool        `json:"enrolled"`
	CheckWords local.Words `json:"check_words,omitempty"`
	Confirmed  bool        `json:"confirmed"`
}

// openState locks the folder and reads what an earlier demo left there.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "demo.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close() // the lock is what matters, and it is not ours
		return nil, fmt.Errorf("a demo runs in %s already: stop it, or give this one another folder with --dir", dir)
	}
	s := &state{path: filepath.Join(dir, "demo.json"), lock: lock, Collectors: map[string]*collectorState{}}
	b, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(b, s); err != nil {
			return nil, fmt.Errorf("%s is damaged (%w): remove the folder %s to begin anew", s.path, err, dir)
		}
	}
	for _, m := range cast {
		if s.Collectors[m.key] == nil {
			s.Collectors[m.key] = &collectorState{}
		}
	}
	return s, nil
}

func (s *state) save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path+".new", append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(s.path+".new", s.path)
}

func (s *state) close() {
	_ = s.lock.Close() // releases the lock; there is nothing to lose
}

// ports gives every listener a port: the one it had, if that is free, else another.
func (s *state) ports(web int) error {
	var err error
	switch {
	case web != 0:
		if !local.Free(web, false) {
			return fmt.Errorf("port %d is taken by another program: choose another with --port, or 0 for any", web)
		}
		s.WebPort = web
	case s.WebPort == 0 || !local.Free(s.WebPort, false):
		if s.WebPort, err = local.FreePort(8080, 8081, 8082); err != nil {
			return err
		}
	}
	if s.GatePort == 0 || !local.Free(s.GatePort, false) {
		if s.GatePort, err = local.FreePort(); err != nil {
			return err
		}
	}
	for _, c := range s.Collectors {
		if c.Port == 0 || !local.Free(c.Port, true) {
			if c.Port, err = local.FreePort(); err != nil {
				return err
			}
		}
	}
	return nil
}
