package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tocsin/internal/load/local"
)

// What people type, and what they are told: testdata/script. Beside testscript's own commands the scripts have
//
//	exits CODE PROGRAM ARGS…  run it and demand this exit code
//	ready FOLDER              wait until the hub on that data folder answers
//	live FOLDER               wait until the collector in that folder runs and the hub has told it that it is live
//	field VAR NAME            set VAR to the member NAME of the JSON object in stdout
//	counted FOLDER NAME N     wait until the collector in that folder has counted N of NAME and nothing waits
//	send ADDRESS FILE         send the file to a TCP port
//	pdf FILE TEXT             where Poppler is installed: it reads the file without a complaint, and the text is in it
//
// and the variables GATE, WEB, SYSLOG and NOBODY: addresses on loopback that are free.
func TestScripts(t *testing.T) {
	needEngine(t)
	programs := filepath.Dir(bin(t, "tocsin"))
	testscript.Run(t, testscript.Params{
		Dir:         filepath.Join("testdata", "script"),
		WorkdirRoot: folder(t),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", programs+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("TZ", "UTC")
			for _, name := range []string{"GATE", "WEB", "SYSLOG", "NOBODY"} {
				port, err := local.FreePort()
				if err != nil {
					return err
				}
				e.Setenv(name, "127.0.0.1:"+strconv.Itoa(port))
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				code := 0
				var exit *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
					code = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if code != want {
					ts.Fatalf("%s ended with code %d, want %d", strings.Join(args[1:], " "), code, want)
				}
			},
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				c := local.NewCentre(filepath.Join(ts.MkAbs(args[0]), "run", "admin.sock"))
				await(ts, func() error { return c.Ready(t.Context()) })
			},
			"live": func(ts *testscript.TestScript, _ bool, args []string) {
				c := local.UnixClient(filepath.Join(ts.MkAbs(args[0]), "run", "status.sock"))
				await(ts, func() error {
					st, err := local.SiteStatus(t.Context(), &c)
					if err == nil && st.State != "live" {
						err = fmt.Errorf("its state is %q", st.State)
					}
					return err
				})
			},
			"counted": func(ts *testscript.TestScript, _ bool, args []string) {
				c := local.UnixClient(filepath.Join(ts.MkAbs(args[0]), "run", "status.sock"))
				await(ts, func() error {
					st, err := local.SiteStatus(t.Context(), &c)
					if err == nil && (strconv.FormatUint(st.Counts[args[1]], 10) != args[2] || st.Waiting != 0 || st.Unreported) {
						err = fmt.Errorf("counts %v, %d wait", st.Counts, st.Waiting)
					}
					return err
				})
			},
			"field": func(ts *testscript.TestScript, _ bool, args []string) {
				value, err := jsonField(ts.ReadFile("stdout"), args[1])
				ts.Check(err)
				ts.Setenv(args[0], value)
			},
			"pdf": func(ts *testscript.TestScript, _ bool, args []string) {
				if len(args) != 2 {
					ts.Fatalf("usage: pdf FILE TEXT")
				}
				for _, tool := range [][]string{{"pdfinfo", args[0]}, {"pdftotext", args[0], "-"}} {
					path, err := exec.LookPath(tool[0])
					if err != nil {
						ts.Logf("SKIPPED: %s is not installed; .ci/run installs it", tool[0])
						return
					}
					cmd := exec.Command(path, tool[1:]...)
					cmd.Dir = ts.MkAbs(".")
					var out, errs strings.Builder
					cmd.Stdout, cmd.Stderr = &out, &errs
					if err := cmd.Run(); err != nil || errs.Len() > 0 {
						ts.Fatalf("%s: %v\n%s", tool[0], err, errs.String())
					}
					if tool[0] == "pdftotext" && !strings.Contains(out.String(), args[1]) {
						ts.Fatalf("the text of %s has no %q:\n%s", args[0], args[1], out.String())
					}
				}
			},
			"send": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(sendTCP(args[0], ts.ReadFile(args[1])))
			},
		},
	})
}

// await asks for at most four minutes: one on a machine of its own.
func await(ts *testscript.TestScript, try func() error) {
	end := time.Now().Add(patience * time.Minute)
	for err := try(); err != nil; err = try() {
		if time.Now().After(end) {
			ts.Fatalf("not within four minutes: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
