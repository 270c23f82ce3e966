package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/durable"
	"tocsin/internal/release"
)

// Options say what to update and how.
type Options struct {
	Config *collector.Config
	Own    string // version of the packaged program, which runs this
	Keys   release.KeySet
	Again  bool // also a release that was taken back here
	// Fetch brings the list (release.Name) or a file of the release to the path dst. It is not trusted.
	Fetch func(ctx context.Context, name, dst string, limit int64) error
	// Restart restarts the collector's service.
	Restart func(ctx context.Context) error
	// Args are given to the new program to see whether it takes the settings; it reads an empty input.
	Args   []string
	Now    func() time.Time
	Logger *slog.Logger
	// Reached is called at each step; tests kill the program there.
	Reached func(step string)
}

// Found is what a look at the newest release gave.
type Found struct {
	Running string       `json:"running"` // version in force here
	Newest  string       `json:"newest"`
	Newer   bool         `json:"newer"`
	Refused string       `json:"refused,omitempty"` // why it was taken back here, when it was
	Notes   string       `json:"notes,omitempty"`
	Issued  time.Time    `json:"issued"`
	file    release.File // of this machine
	list    release.List
}

// ErrUnhealthy means that the new program was not healthy and the old one runs again.
var ErrUnhealthy = errors.New("the new release was not healthy here and was taken back")

// ErrBusy means that another updater is at work.
var ErrBusy = errors.New("another update is under way")

func (o *Options) defaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Reached == nil {
		o.Reached = func(string) {}
	}
}

// Check looks for a newer release. Nothing is changed but what is known of releases.
func Check(ctx context.Context, o Options) (Found, error) {
	o.defaults()
	end, err := o.begin()
	if err != nil {
		return Found{}, err
	}
	defer end()
	return o.check(ctx)
}

// begin takes the updater's lock and clears away what an earlier run left.
func (o *Options) begin() (end func(), err error) {
	dir := o.Config.Update.Dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of newer programs: %w", err)
	}
	if err := guarded(dir); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(dir, "updater"), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, err
	}
	if err := o.sweep(); err != nil {
		unlock(lock)
		return nil, err
	}
	return func() { unlock(lock) }, nil
}

// sweep deletes programs that the state does not name, and what was fetched.
func (o *Options) sweep() error {
	dir := o.Config.Update.Dir
	s, err := readState(dir)
	if err != nil {
		return err
	}
	keep := map[string]bool{stateFile: true, "lock": true, "updater": true}
	if s.InForce != nil {
		keep[s.InForce.SHA256] = true
	}
	if s.Trial != nil {
		keep[s.Trial.SHA256] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Knowledge is what the state tells without asking anybody.
type Knowledge struct {
	Running string // version in force
	Newer   string // a newer version that was seen, and not taken back here
	Trial   string // version on trial
	Refused string // the newest version was taken back: which, and why
}

// Known reads what is known of releases. It needs no rights.
func Known(dir, own string) (Knowledge, error) {
	s, err := readState(dir)
	if errors.Is(err, fs.ErrPermission) {
		return Knowledge{Running: own}, nil
	}
	k := Knowledge{Running: own}
	if err != nil {
		return k, err
	}
	if s.InForce != nil && release.Newer(s.InForce.Version, own) {
		if !verified(dir, *s.InForce) {
			return k, fmt.Errorf("%w: the program of version %s is damaged", ErrState, s.InForce.Version)
		}
		k.Running = s.InForce.Version
	}
	if s.Trial != nil {
		k.Trial = s.Trial.Version.Version
	}
	if release.Newer(s.Newest, k.Running) {
		k.Newer = s.Newest
		for _, r := range s.Refused {
			if r.Version.Version == s.Newest {
				k.Newer, k.Refused = "", fmt.Sprintf("version %s was installed on %s and taken back: %s", s.Newest, r.At.Local().Format(time.DateTime), r.Why)
			}
		}
	}
	return k, nil
}

// running is the version that Choose gives.
func (o *Options) running(s State) string {
	if s.InForce != nil && release.Newer(s.InForce.Version, o.Own) && verified(o.Config.Update.Dir, *s.InForce) {
		return s.InForce.Version
	}
	return o.Own
}

func (o *Options) fetchDir() (string, error) {
	dir := filepath.Join(o.Config.Update.Dir, "fetch")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o755)
}

func (o *Options) check(ctx context.Context) (Found, error) {
	var f Found
	dir, err := o.fetchDir()
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, release.Name)
	if err := o.Fetch(ctx, release.Name, path, release.MaxList); err != nil {
		return f, err
	}
	env, err := readAtMost(path, release.MaxList)
	if err != nil {
		return f, err
	}
	s, err := readState(o.Config.Update.Dir)
	if err != nil {
		return f, err
	}
	set := o.Keys
	if s.Keys != nil && s.KeysFrom == digestOf(mustEncode(o.Keys)) {
		set = *s.Keys // a later package may bring other keys, which then hold
	}
	l, err := release.Open(env, set, s.Seen, o.Now())
	if err != nil {
		return f, err
	}
	s, err = change(o.Config.Update.Dir, func(s *State) error {
		s.Seen = release.Seen{Serial: l.Serial, Digest: digestOf(env)}
		s.Checked, s.Newest = o.Now().UTC(), l.Version
		if l.Next != nil {
			s.Keys, s.KeysFrom = l.Next, digestOf(mustEncode(o.Keys))
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	f = Found{Running: o.running(s), Newest: l.Version, Notes: l.Notes, Issued: l.Issued, list: l}
	if f.Newer = release.Newer(l.Version, f.Running); !f.Newer {
		return f, nil
	}
	if f.file, err = l.For(release.Program, runtime.GOOS, runtime.GOARCH); err != nil {
		return f, err
	}
	for _, r := range s.Refused {
		if r.SHA256 == f.file.SHA256 {
			f.Refused = r.Why
		}
	}
	return f, nil
}

// Run does the whole: it finishes what an earlier run left, looks, and installs what is newer. installed is the version now in force, ""
// when there was nothing to do. ErrUnhealthy: it was taken back, and the old program runs.
func Run(ctx context.Context, o Options) (f Found, installed string, err error) {
	o.defaults()
	end, err := o.begin()
	if err != nil {
		return f, "", err
	}
	defer end()
	if s, err := readState(o.Config.Update.Dir); err != nil {
		return f, "", err
	} else if s.Trial != nil { // killed in the middle of the switch: go on where it was
		o.Logger.Info("going on with an update that was interrupted", "version", s.Trial.Version.Version)
		installed, err := o.trial(ctx, s.Trial.Version, true)
		return f, installed, err
	}
	if f, err = o.check(ctx); err != nil || !f.Newer {
		return f, "", err
	}
	if f.Refused != "" && !o.Again {
		return f, "", nil
	}
	v := Version{Version: f.Newest, SHA256: f.file.SHA256, Serial: f.list.Serial}
	if err := o.store(ctx, f.file, v); err != nil {
		return f, "", err
	}
	o.Reached("stored")
	installed, err = o.trial(ctx, v, false)
	return f, installed, err
}

// store fetches, verifies and tries a program, and puts it in its place: whole, or not at all.
func (o *Options) store(ctx context.Context, file release.File, v Version) error {
	dir, err := o.fetchDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	src := filepath.Join(dir, "program")
	if err := o.Fetch(ctx, file.Name, src, file.Size); err != nil {
		return err
	}
	o.Reached("fetched")
	tmp := filepath.Join(o.Config.Update.Dir, ".new-"+v.SHA256)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	name := filepath.Join(tmp, "tocsin-collector")
	if err := copyVerified(file, src, name); err != nil {
		return err
	}
	if err := o.try(ctx, name, v.Version); err != nil {
		return err
	}
	final := filepath.Join(o.Config.Update.Dir, v.SHA256)
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		return err
	}
	return durable.SyncDir(o.Config.Update.Dir)
}

// copyVerified reads the fetched file once: what is verified is what is stored, whoever else may write to src.
func copyVerified(file release.File, src, dst string) error {
	r, err := os.OpenFile(src, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if i, err := r.Stat(); err != nil || !i.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", file.Name, release.ErrFile)
	}
	w, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	err = file.Copy(w, r)
	return errors.Join(err, w.Chmod(0o755), w.Sync(), w.Close(), durable.SyncDir(filepath.Dir(dst)))
}

// try starts the new program for two small things: to say its version, and to read the settings as they are.
func (o *Options) try(ctx context.Context, program, version string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	out, err := o.command(ctx, program, "version").Output()
	if err != nil {
		return fmt.Errorf("the new program does not start: %w", err)
	}
	if got := strings.TrimSpace(strings.TrimPrefix(string(out), "tocsin-collector")); got != version {
		return fmt.Errorf("the new program says it is version %.40q, the release says %q", got, version)
	}
	if len(o.Args) == 0 {
		return nil
	}
	if out, err := o.command(ctx, program, o.Args...).CombinedOutput(); err != nil {
		return fmt.Errorf("the new program does not take the settings: %w: %.500s", err, out)
	}
	return nil
}

// command is the new program with the rights of the collector's folder, not with ours.
func (o *Options) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), Env+"=try")
	cmd.WaitDelay = time.Second
	if c := As(o.Config.Dir); c != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	}
	return cmd
}

// As gives the owner of a folder as whom a child is to run; nil when we are not root, or it is root's.
func As(dir string) *syscall.Credential {
	i, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return nil
	}
	s, ok := i.Sys().(*syscall.Stat_t)
	if !ok || s.Uid == 0 {
		return nil
	}
	return &syscall.Credential{Uid: s.Uid, Gid: s.Gid}
}

// trial puts a stored program on trial, restarts the service, and watches. resumed: it is on trial already.
func (o *Options) trial(ctx context.Context, v Version, resumed bool) (installed string, err error) {
	dir, u := o.Config.Update.Dir, o.Config.Update
	if !resumed {
		before := Health{}
		if st, err := collector.FetchStatus(ctx, o.Config); err == nil {
			before.HubTrouble = st.HubTrouble != ""
		}
		now := o.Now().UTC()
		if _, err := change(dir, func(s *State) error {
			s.Trial = &Trial{Version: v, Began: now, Deadline: now.Add(u.Deadline), Before: before}
			return nil
		}); err != nil {
			return "", err
		}
		o.Reached("trial")
	}
	s, err := readState(dir)
	if err != nil {
		return "", err
	}
	if s.Trial != nil && s.Trial.Starts == 0 { // also when the updater was killed before it came to this
		o.Logger.Info("starting the new release on trial", "version", v.Version)
		if err := o.Restart(ctx); err != nil {
			o.Logger.Error("cannot restart the service", "error", err)
		}
		o.Reached("restarted")
		if s, err = readState(dir); err != nil {
			return "", err
		}
	}
	why := "it was taken back by the service's start: it ended again and again"
	if s.Trial != nil && s.Trial.Version == v {
		why, err = o.watch(ctx, *s.Trial)
		if err != nil { // told to stop: the next run goes on
			return "", err
		}
	}
	if why == "" {
		o.Reached("healthy")
		done := false
		if _, err := change(dir, func(s *State) error {
			if done = s.Trial != nil && s.Trial.Version == v; done {
				s.InForce, s.Trial = &v, nil
			}
			return nil
		}); err != nil {
			return "", err
		}
		if done {
			o.Reached("in force")
			return v.Version, o.sweep()
		}
		why = "it was taken back by the service's start: it ended again and again"
	}
	o.Logger.Error("the new release is not healthy: taking it back", "version", v.Version, "why", why)
	if _, err := change(dir, func(s *State) error {
		if s.Trial != nil && s.Trial.Version == v {
			s.takeBack(why, o.Now())
		}
		return nil
	}); err != nil {
		return "", err
	}
	o.Reached("taken back")
	err = fmt.Errorf("%w: %s: %s", ErrUnhealthy, v.Version, why)
	if rerr := o.Restart(ctx); rerr != nil {
		return "", fmt.Errorf("%w; and the service could not be restarted: %w", err, rerr)
	}
	return "", errors.Join(err, o.sweep())
}

// watch waits until the new program has been healthy for Hold without a break: why is "" then. Otherwise why says what was wrong when time
// ran out, or when the trial was ended by Settle.
func (o *Options) watch(ctx context.Context, t Trial) (why string, err error) {
	u := o.Config.Update
	var since time.Time
	var pid int
	tick := time.NewTicker(min(u.Hold/10+time.Millisecond, time.Second))
	defer tick.Stop()
	// A resumed watch gets time to see for itself, also when the deadline passed while nobody watched.
	end := t.Deadline
	if least := o.Now().Add(2 * u.Hold); end.Before(least) {
		end = least
	}
	for {
		now := o.Now()
		st, ferr := collector.FetchStatus(ctx, o.Config)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case ferr != nil:
			why, since = "it does not answer", time.Time{}
		default:
			why = o.healthy(st, t)
			if why != "" || st.PID != pid {
				since, pid = time.Time{}, st.PID
			}
			if why == "" && since.IsZero() {
				since = now
			}
			if why == "" && now.Sub(since) >= u.Hold {
				return "", nil
			}
		}
		if s, err := readState(u.Dir); err != nil {
			return "", err
		} else if s.Trial == nil {
			return "it ended again and again", nil
		}
		if now.After(end) {
			if why == "" {
				why = "it ended again and again"
			}
			return why, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
	}
}

// healthy says what is wrong with a running collector; "" when nothing is.
func (o *Options) healthy(st *collector.Status, t Trial) string {
	if st.Version != t.Version.Version {
		return fmt.Sprintf("version %s runs in its place", st.Version)
	}
	if want := len(o.Config.Ports()); len(st.Listeners) < want {
		return fmt.Sprintf("it listens on %d of %d ports", len(st.Listeners), want)
	}
	switch {
	case st.Full:
		return "it cannot write to its disk"
	case st.HubTrouble != "" && !t.Before.HubTrouble:
		return "it does not reach the hub, which the old one did: " + st.HubTrouble
	case st.State == "" && !t.Before.HubTrouble:
		return "it has not heard from the hub yet"
	case st.ArchiveLag > 256<<20:
		return "it does not keep up with what arrives"
	}
	return ""
}

func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if i, err := f.Stat(); err != nil || !i.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", filepath.Base(path), limit)
	}
	return b, err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mustEncode(k release.KeySet) []byte {
	b, err := json.Marshal(k)
	if err != nil {
		panic(err) // strings and a number
	}
	return b
}
