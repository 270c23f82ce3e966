package collector

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"tocsin/internal/keys"
)

// secret reads one of the member's own secrets, or makes it. It never leaves the site.
func secret(dir, name string) ([32]byte, error) { return keys.Secret(dir, name) }

// lockDir takes the folder for this process. The kernel frees it when the process is gone, however it went.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("collector's folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (%s): stop it first, or name another folder with dir", ErrRunning, dir)
		}
		return nil, fmt.Errorf("lock the collector's folder: %w", err)
	}
	return f, nil
}

// unlock gives the folder back. Closing the file is not enough: a program that is being started at this moment holds a copy of it until it
// has begun.
func unlock(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// portHint adds to an error of opening a port what to do about it.
func portHint(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program has the port (often rsyslog; see: ss -lnp). Stop it, or choose another port and set that on the firewall", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need the right CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep, or AmbientCapabilities in the systemd unit)", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: this machine does not have the address; use 0.0.0.0 for all", err)
	}
	return err
}
