package collector

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What is done when the disk is full or cannot be written to. First the archive gives up its oldest lines that have been worked on. When it has none,
// the collector gives up the reserve: a file that holds some MiB for this moment. From then on, until there is room again, lines wait (TCP senders
// are slowed down; what UDP senders lose the kernel counts), and the reserve serves what makes room: batches are sealed and sent, and what is
// confirmed is deleted. While the hub cannot be reached, what is of low value in the spool is let go as when the spool is full; signs of attack are
// not let go for a full disk. A disk that cannot be written to at all is waited for: nothing is lost that was received.

const (
	maxReserve = 16 << 20
	minReserve = 4 << 20                // a write to the spool is up to 1 MiB, a sealed batch too
	roomEvery  = 200 * time.Millisecond // between two looks whether there is room again
)

func (a *Agent) reserveFile() string { return a.o.Config.path("reserve") }

// openReserve takes the reserve, when the disk has room for it twice: a sixteenth of the disk, but 4 to 16 MiB.
func (a *Agent) openReserve() bool {
	var st unix.Statfs_t
	if err := unix.Statfs(a.o.Config.Dir, &st); err != nil {
		return false
	}
	size := min(maxReserve, max(minReserve, int64(st.Blocks)*st.Bsize/16)) //nolint:unconvert // Bsize has other types elsewhere
	if have, err := os.Stat(a.reserveFile()); err == nil && have.Size() >= size {
		return true
	}
	if int64(st.Bavail)*st.Bsize < 2*size { //nolint:unconvert // as above
		return false
	}
	f, err := os.OpenFile(a.reserveFile(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		zeros := make([]byte, 64<<10)
		for err = nil; err == nil && size > 0; size -= int64(len(zeros)) {
			_, err = f.Write(zeros)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(a.reserveFile())
	}
	return err == nil
}

// waitForRoom waits a little after a failed write, or makes room; it says false when it is time to end.
func (a *Agent) waitForRoom(what string, err error) bool {
	now := a.o.Now()
	if now.Sub(a.saidFull).Abs() > 30*time.Second {
		a.saidFull = now
		a.log.Error("cannot write; waiting until there is room on the disk", "what", what, "error", err)
	}
	a.noRoom.Store(true)
	a.shown = time.Time{}
	a.publish()
	if a.archive.MakeRoom() {
		a.noRoom.Store(a.tight)
		return true
	}
	if !a.tight {
		a.tight, a.roomAt = true, now
		a.archive.Hold(true)
		if err := os.Remove(a.reserveFile()); err == nil {
			a.log.Error("the disk is full: lines wait, and the reserve is used to send what is here. Make room on the disk", "dir", a.o.Config.Dir)
			return true
		} else if !errors.Is(err, fs.ErrNotExist) {
			a.log.Error("the disk cannot be written to: lines wait", "dir", a.o.Config.Dir, "error", err)
		}
	}
	before := a.spool.Size()
	if a.removeSent(); a.spool.Size() < before {
		return true
	}
	select {
	case <-a.stopping:
		if !a.draining {
			a.draining, a.drainBy = true, now.Add(drainTime)
		}
	default:
	}
	if a.draining && now.After(a.drainBy) {
		return false
	}
	time.Sleep(100 * time.Millisecond) // there is nothing else to do: no event says that a disk has room
	return true
}

// room ends the time of a full disk when there is room again; the loop calls it.
func (a *Agent) room(now time.Time) error {
	if !a.tight || now.Sub(a.roomAt).Abs() < roomEvery {
		return nil
	}
	a.roomAt = now
	if a.openReserve() {
		a.tight = false
		a.archive.Hold(false)
		a.noRoom.Store(false)
		a.log.Info("there is room on the disk again")
		return nil
	}
	if a.archive.MakeRoom() {
		return nil
	}
	a.removeSent()
	if a.trouble.Load() == nil && a.checked { // what waits is being sent, which makes room
		return nil
	}
	return a.shed(a.spool.Size()-maxReserve, valueMiddle)
}
