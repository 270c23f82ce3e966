package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func do(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), &env{strings.NewReader(stdin), &out, &errs, nil, false}, args)
	return code, out.String(), errs.String()
}

func TestUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("dir: "+dir+"\nlisten:\n  sislog: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		stdin string
		args  []string
		code  int
		says  string // in stdout or stderr
	}{
		{"nothing", "", nil, 2, "enrol"},
		{"help", "", []string{"help"}, 0, "explain"},
		{"command help", "", []string{"sent", "--help"}, 0, "--extract"},
		{"unknown command", "", []string{"fly"}, 2, `no command "fly"`},
		{"unknown option", "", []string{"run", "--fast"}, 2, "usage: tocsin-collector run"},
		{"not enrolled", "", []string{"run", "--dir", dir}, 3, "tocsin-collector enrol TOKEN"},
		{"sent, not enrolled", "", []string{"sent", "--dir", dir}, 3, "not been enrolled"},
		{"wrong settings", "", []string{"run", "--config", bad}, 2, "sislog"},
		{"policy", "", []string{"policy", "--dir", dir}, 0, "stays   allowed                because it is allowed traffic"},
		{"another policy", "", []string{"policy", "full", "--dir", dir}, 0, "The raw line leaves too."},
		{"a policy's file", "", []string{"policy", "--file", "--dir", dir}, 0, "# What leaves the member's site"},
		{"no such policy", "", []string{"policy", "none", "--dir", dir}, 2, "use metadata, full, or the path"},
		{"version help", "", []string{"version", "--help"}, 0, "print the version"},
		{"no settings file", "", []string{"run", "--config", bad + "x"}, 2, "no such file"},
		{"no token", "", []string{"enrol", "--dir", dir}, 2, "token is missing"},
		{"not a token", "", []string{"enrol", "hello", "--dir", dir}, 2, "Copy the whole line, as the centre gave it"},
		{"half a token", "tocsin1.AAAA\n", []string{"enrol", "--dir", dir}, 2, "missing or changed"},
		{"doctor, not enrolled", "", []string{"doctor", "--dir", dir}, 7, "enrol TOKEN"},
		{"explain", "<38>Nov 22 14:00:01 gw sshd[1]: Failed password for root from 203.0.113.9 port 4711 ssh2\n", []string{"explain", "--dir", dir}, 0, "LEAVES, at once, as left.failed_authentication"},
		{"version", "", []string{"version"}, 0, "tocsin-collector "},
	} {
		code, out, errs := do(t, c.stdin, c.args...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: code %d, want %d; want %q in:\n%s%s", c.name, code, c.code, c.says, out, errs)
		}
		if n := strings.Count(errs, "usage:"); n > 1 || n == 1 && !strings.Contains(errs, "\nusage: tocsin-collector ") {
			t.Errorf("%s: usage is said %d times: %s", c.name, n, errs)
		}
		if strings.Contains(out+errs, "said") {
			t.Errorf("%s: an inner error is shown: %s%s", c.name, out, errs)
		}
	}
}

func TestJSON(t *testing.T) {
	dir := t.TempDir()
	code, out, _ := do(t, "garbage\n<38>Nov 22 14:00:01 gw sshd[1]: Failed password for root from 203.0.113.9 port 4711 ssh2\n", "explain", "--json", "--dir", dir)
	if code != 0 || strings.Count(out, "\n") != 2 {
		t.Fatalf("%d %s", code, out)
	}
	for l := range strings.Lines(out) {
		if !json.Valid([]byte(l)) {
			t.Errorf("not JSON: %s", l)
		}
	}
	code, out, _ = do(t, "", "enrol", "nonsense", "--json", "--dir", dir)
	var e struct {
		Error string `json:"error"`
		Code  int    `json:"exit_code"`
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.Code != code || e.Error == "" {
		t.Errorf("an error in JSON: %s", out)
	}
}

func TestRulePack(t *testing.T) {
	a, err := rulePack()
	b, _ := rulePack()
	if err != nil || a != b || !strings.HasPrefix(a, "built-in ") {
		t.Errorf("%q %q %v", a, b, err)
	}
}
