package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/collector/update"
	"tocsin/internal/release"

	"go.yaml.in/yaml/v3"
)

func updateCommand(ctx context.Context, e *env, args []string) error {
	s := settings{stay: true}
	var check, settle, scheduled, again bool
	var name, to string
	var limit int64
	rest, err := parseFlags("update", args, func(fs *flag.FlagSet) {
		s.define(fs)
		fs.BoolVar(&check, "check", false, "only look whether a newer release is there")
		fs.BoolVar(&again, "again", false, "also a release that was taken back here")
		fs.BoolVar(&scheduled, "scheduled", false, "as the nightly timer: install only where update.auto is set")
		fs.BoolVar(&settle, "settle", false, "as the service before each start: take back a release that ends again and again")
		fs.StringVar(&name, "fetch", "", "bring one file of the release, unverified; used by update itself")
		fs.StringVar(&to, "to", "", "where to")
		fs.Int64Var(&limit, "limit", 0, "at most so many bytes")
	})
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: update takes no arguments, only options", errUsage)
	}
	if settle {
		return settleCommand(e, &s)
	}
	if os.Getenv("TOCSIN_CONTAINER") != "" {
		return fmt.Errorf("%w: this collector runs in a container, which does not change itself: pull the newer image and start that", errUsage)
	}
	c, err := s.load(e)
	if err != nil {
		return err
	}
	if name != "" {
		return update.Fetch(ctx, &c, name, to, limit)
	}
	log := newLogger(e.stderr, c.Log)
	set, err := release.ReadKeySet(c.Update.Keys)
	if err != nil {
		if scheduled { // a package without release keys: its updates come through the package manager
			log.Info("no release keys: nothing to look for", "file", c.Update.Keys)
			return nil
		}
		return fmt.Errorf("%w. Updates of this collector come through the package manager, or name the file of your publisher's keys with update.keys", err)
	}
	o := update.Options{
		Config: &c, Own: programVersion(), Keys: set, Again: again, Logger: log,
		Args:    append([]string{"explain"}, s.again()...),
		Restart: func(ctx context.Context) error { return restart(ctx, c.Update.Restart) },
		Fetch: func(ctx context.Context, name, dst string, limit int64) error {
			return fetchAsOwner(ctx, &c, s.again(), name, dst, limit)
		},
	}
	if check || scheduled && !c.Update.Auto {
		f, err := update.Check(ctx, o)
		if err == nil || !scheduled {
			return sayFound(e, s.json, f, err, scheduled)
		}
		return quietly(log, err)
	}
	f, installed, err := update.Run(ctx, o)
	if scheduled && err != nil && !errors.Is(err, update.ErrUnhealthy) && ctx.Err() == nil {
		return quietly(log, err)
	}
	switch {
	case errors.Is(err, update.ErrUnhealthy):
		if s.json {
			_ = printJSON(e.stdout, map[string]any{"error": err.Error(), "exit_code": exitTakenBack})
		}
		fmt.Fprintf(e.stderr, "tocsin-collector update: %v\nThe collector runs as before and nothing is lost. Tell the publisher; update --again tries it once more.\n", err)
		return saidError(exitTakenBack)
	case err != nil:
		return err
	case installed == "":
		if err := sayFound(e, s.json, f, nil, true); err != nil {
			return err
		}
		return nil
	case s.json:
		return printJSON(e.stdout, map[string]any{"installed": installed})
	}
	_, err = fmt.Fprintf(e.stdout, "Version %s is installed and healthy.\n", installed)
	return err
}

// quietly: the nightly look did not work. It is looked for again the next night; doctor says when the last one worked.
func quietly(log *slog.Logger, err error) error {
	if errors.Is(err, update.ErrNoRelease) {
		log.Info("no release has been published")
		return nil
	}
	log.Warn("could not look for a newer release; the next look is tomorrow", "error", err)
	return nil
}

func sayFound(e *env, json bool, f update.Found, err error, done bool) error {
	if err != nil {
		return err
	}
	if json {
		if err := printJSON(e.stdout, f); err != nil {
			return err
		}
	} else {
		switch {
		case !f.Newer:
			fmt.Fprintf(e.stdout, "Version %s runs here; the newest release is %s.\n", f.Running, f.Newest)
		case f.Refused != "":
			fmt.Fprintf(e.stdout, "Version %s is there, but it was taken back here: %s. Version %s goes on. update --again tries it once more.\n", f.Newest, f.Refused, f.Running)
		default:
			fmt.Fprintf(e.stdout, "Version %s is there; %s runs here. To install it: tocsin-collector update\n", f.Newest, f.Running)
		}
		if f.Newer && f.Notes != "" {
			fmt.Fprintf(e.stdout, "\n%s\n", strings.TrimSpace(f.Notes))
		}
	}
	if f.Newer && !done {
		return saidError(exitNewer)
	}
	return nil
}

// settleCommand must never keep the collector from starting: what goes wrong is said, and that is all.
func settleCommand(e *env, s *settings) error {
	dir := s.programs(e)
	back, err := update.Settle(dir, time.Now())
	if err != nil {
		fmt.Fprintln(e.stderr, "tocsin-collector update --settle:", err)
	}
	if back != nil {
		fmt.Fprintf(e.stderr, "tocsin-collector update --settle: version %s is taken back: %s\n", back.Version.Version, back.Why)
	}
	return nil
}

// again are the options that make a child read the same settings.
func (s *settings) again() []string {
	var args []string
	if s.file != "" {
		args = append(args, "--config", s.file)
	}
	if s.dir != "" {
		args = append(args, "--dir", s.dir)
	}
	return args
}

// programs is the folder of newer programs. It is read leniently and before the settings proper: a newer program may know settings that
// this one does not.
func (s *settings) programs(e *env) string {
	for _, v := range e.environ {
		if dir, ok := strings.CutPrefix(v, collector.EnvPrefix+"_UPDATE_DIR="); ok && dir != "" {
			return dir
		}
	}
	c := collector.DefaultConfig()
	if name := s.fileName(); name != "" {
		var only struct {
			Update struct {
				Dir string `yaml:"dir"`
			} `yaml:"update"`
		}
		if b, err := os.ReadFile(name); err == nil && yaml.Unmarshal(b, &only) == nil && only.Update.Dir != "" {
			return only.Update.Dir
		}
	}
	return c.Update.Dir
}

// become runs the newer program in this one's place, if there is one.
func (s *settings) become(e *env) {
	if s.stay || !e.program {
		return
	}
	path, err := update.Choose(s.programs(e), programVersion())
	if err != nil {
		fmt.Fprintln(e.stderr, "tocsin-collector:", err)
	}
	if path == "" {
		return
	}
	err = syscall.Exec(path, append([]string{path}, os.Args[1:]...), append(e.environ, update.Env+"="+path))
	fmt.Fprintf(e.stderr, "tocsin-collector: cannot start %s: %v; going on as version %s\n", path, err, programVersion())
}

func restart(ctx context.Context, command string) error {
	w := strings.Fields(command)
	if len(w) == 0 {
		return errors.New("update.restart is empty: name the command that restarts the collector")
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, w[0], w[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %.300s", command, err, out)
	}
	return nil
}

// fetchAsOwner fetches in a child with the rights of the collector's folder: what speaks with the network is not root.
func fetchAsOwner(ctx context.Context, c *collector.Config, same []string, name, dst string, limit int64) error {
	cred := update.As(c.Dir)
	if cred == nil {
		return update.Fetch(ctx, c, name, dst, limit)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"update", "--fetch", name, "--to", dst, "--limit", strconv.FormatInt(limit, 10)}, same...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(strings.TrimPrefix(string(out), "tocsin-collector update: "))
	if strings.Contains(said, update.ErrNoRelease.Error()) {
		return fmt.Errorf("%w (%s)", update.ErrNoRelease, c.Update.Source)
	}
	if said == "" {
		said = err.Error()
	}
	return errors.New(said)
}

// asOwner gives up root for the owner of the collector's folder, so that what a command writes belongs to the collector.
func asOwner(dir string) error {
	c := update.As(dir)
	if c == nil {
		return nil
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(int(c.Gid)), syscall.Setuid(int(c.Uid))); err != nil {
		return fmt.Errorf("cannot go on as the owner of %s: %w", dir, err)
	}
	return nil
}
