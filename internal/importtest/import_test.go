package importtest

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// layers, lowest first. A package may import packages of lower layers only, but for the exceptions below. A new package is added here,
// and to docs/design.md section 5, in the same commit.
var layers = [][]string{
	{"internal/event", "internal/indicator", "internal/durable", "sigma", "rules"},
	{"internal/access", "internal/config", "internal/keys", "internal/batch", "internal/directive", "internal/steps"},
	{"internal/db", "internal/bus", "internal/blob", "internal/outbox", "internal/release"},
	{"internal/member", "internal/people", "internal/intel"},
	{"internal/collector/archive", "internal/collector/listen", "internal/collector/parse", "internal/collector/minimise", "internal/collector/spool", "internal/collector/send", "internal/gate", "internal/ledger",
		"internal/enrich", "internal/detect", "internal/baseline", "internal/eventstore", "internal/alert", "internal/notify", "internal/worker", "internal/chart"},
	{"internal/collector", "internal/report", "internal/web", "internal/ruleset", "internal/layer", "internal/health", "internal/rematch"},
	{"internal/app", "internal/app/status"},
	{"internal/demo", "internal/load"},
	{"cmd/tocsin", "cmd/tocsin-collector", "cmd/tocsin-engine", "cmd/tocsin-release"},
	{"internal/importtest", "internal/e2e", "docs/vectors"},
}

// below lists imports within one layer that are meant: importer, imported.
var below = map[[2]string]bool{
	{"internal/demo", "internal/load"}:                         true, // line templates, child processes and the admin socket's client
	{"internal/batch", "internal/keys"}:                        true,
	{"internal/directive", "internal/keys"}:                    true,
	{"internal/directive", "internal/batch"}:                   true, // proofs as they travel
	{"internal/outbox", "internal/db"}:                         true,
	{"internal/people", "internal/member"}:                     true,
	{"internal/collector/archive", "internal/collector/spool"}: true, // an archive is a spool.Log
	{"internal/app", "internal/app/status"}:                    true,
	{"internal/web", "internal/report"}:                        true, // the portal shows what report makes
}

// never lists what a program must not link, even through others: reasons in docs/decisions.
var never = map[string][]string{
	"cmd/tocsin":           {"github.com/ebitengine/purego"},
	"cmd/tocsin-collector": {"github.com/ebitengine/purego", "github.com/nats-io", "modernc.org/sqlite", "github.com/transparency-dev/tessera", "github.com/ClickHouse", "tocsin/internal/db", "tocsin/internal/eventstore", "tocsin/internal/bus"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, "tocsin/")
		pkgs = append(pkgs, p)
	}
}

// layerOf finds the layer of a package; a sub-package belongs to the layer of the nearest package above it.
func layerOf(path string) (layer int, owner string) {
	for p := path; p != "" && p != "."; {
		for i, names := range layers {
			for _, n := range names {
				if n == p {
					return i, n
				}
			}
		}
		at := strings.LastIndexByte(p, '/')
		if at < 0 {
			break
		}
		p = p[:at]
	}
	return -1, ""
}

func TestDirection(t *testing.T) {
	for _, p := range list(t) {
		from, owner := layerOf(p.ImportPath)
		if from < 0 {
			t.Errorf("%s is in no layer: add it to internal/importtest and docs/design.md", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			imp, ours := strings.CutPrefix(imp, "tocsin/")
			if !ours {
				continue
			}
			to, target := layerOf(imp)
			if to < from || target == owner || below[[2]string{owner, target}] {
				continue
			}
			t.Errorf("%s imports %s: layer %d may import only lower layers, and that one is layer %d", p.ImportPath, imp, from, to)
		}
	}
}

func TestNeverLinked(t *testing.T) {
	for _, p := range list(t) {
		for _, bad := range never[p.ImportPath] {
			for _, dep := range p.Deps {
				if dep == bad || strings.HasPrefix(dep, bad+"/") {
					t.Errorf("%s links %s, which it must not", p.ImportPath, dep)
				}
			}
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", "{{.ImportPath}}\t{{.Doc}}\t{{len .GoFiles}}", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) == 3 && f[1] == "" && f[2] != "0" {
			t.Errorf("%s has no package comment: say what it reads, writes, survives and counts", f[0])
		}
	}
}
