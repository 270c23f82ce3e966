package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tocsin/internal/collector"
	"tocsin/internal/config"
)

// document is docs/commands.md in two parts, one a program, each with the environment.
func document(t *testing.T) (tocsin, onSite string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(), "docs", "commands.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	tocsin, rest, ok := strings.Cut(text, "\n## tocsin-collector\n")
	if !ok {
		t.Fatal("docs/commands.md has no section tocsin-collector")
	}
	onSite, environment, ok := strings.Cut(rest, "\n## Environment\n")
	if !ok {
		t.Fatal("docs/commands.md has no section Environment")
	}
	return tocsin + environment, onSite + environment
}

// program is what the source of a program defines for its users.
type program struct {
	options map[string]bool // names of flags
	codes   map[int]bool    // exit codes
	names   map[string]bool // of commands and actions
}

// read takes flags, exit codes and commands out of the source: names given to the flag package, constants called exit…, numbers
// returned by functions whose result is an exit code, and the names in tables and switches of commands.
func read(t *testing.T, dir string) program {
	t.Helper()
	p := program{map[string]bool{}, map[int]bool{}, map[string]bool{}}
	fset := token.NewFileSet()
	files, err := filepath.Glob(filepath.Join(root(), dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	text := func(e ast.Expr) (string, bool) {
		l, ok := e.(*ast.BasicLit)
		if !ok || l.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(l.Value)
		return s, err == nil
	}
	code := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.INT {
			if n, err := strconv.Atoi(l.Value); err == nil {
				p.codes[n] = true
			}
		}
	}
	flagCall := regexp.MustCompile(`^(String|Bool|Int|Int64|Uint64|Float64|Duration|Func|Var)(Var)?$`)
	action := regexp.MustCompile(`^[a-z]+( [a-z]+)?$`)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || !flagCall.MatchString(sel.Sel.Name) {
					break
				}
				for _, a := range n.Args[:min(2, len(n.Args))] {
					if s, ok := text(a); ok && s != "" && !strings.Contains(s, " ") {
						p.options[s] = true
						break
					}
				}
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if strings.HasPrefix(name.Name, "exit") && i < len(n.Values) {
						code(n.Values[i])
					}
				}
			case *ast.FuncDecl:
				// Functions that answer an exit code: their one result, or the first of two, is an int.
				if n.Type.Results == nil || len(n.Type.Results.List) == 0 {
					break
				}
				if id, ok := n.Type.Results.List[0].Type.(*ast.Ident); !ok || id.Name != "int" {
					break
				}
				ast.Inspect(n, func(n ast.Node) bool {
					if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) > 0 {
						code(r.Results[0])
					}
					return true
				})
			case *ast.CompositeLit: // map[string]func(…) {"member add": a.memberAdd, …}, {"demo", "what it does", runDemo} and {"run", "[--config FILE]", …}
				if m, ok := n.Type.(*ast.MapType); ok {
					if _, ok := m.Value.(*ast.FuncType); !ok {
						break
					}
					for _, e := range n.Elts {
						if s, ok := text(e.(*ast.KeyValueExpr).Key); ok {
							p.names[s] = true
						}
					}
				} else if len(n.Elts) >= 3 {
					if s, ok := text(n.Elts[0]); ok && action.MatchString(s) {
						if _, ok := n.Elts[len(n.Elts)-1].(*ast.Ident); ok {
							p.names[s] = true
						}
					}
				}
			case *ast.CaseClause: // case "check": return rulesCheck(…)
				if len(n.Body) == 0 {
					break
				}
				r, ok := n.Body[0].(*ast.ReturnStmt)
				if !ok || len(r.Results) != 1 {
					break
				}
				if _, ok := r.Results[0].(*ast.CallExpr); !ok {
					break
				}
				for _, e := range n.List {
					if s, ok := text(e); ok && action.MatchString(s) {
						p.names[s] = true
					}
				}
			}
			return true
		})
	}
	return p
}

// docs/commands.md names every command, option, exit code and setting that the programs have.
func TestCommandsDocument(t *testing.T) {
	tocsin, onSite := document(t)
	for _, c := range []struct {
		dir, text string
		least     [3]int // names, options, codes: that the source is still understood by this test
	}{{"cmd/tocsin", tocsin, [3]int{20, 40, 4}}, {"cmd/tocsin-collector", onSite, [3]int{6, 8, 7}}} {
		p := read(t, c.dir)
		t.Logf("%s: %d commands, %d options, %d exit codes", c.dir, len(p.names), len(p.options), len(p.codes))
		if len(p.names) < c.least[0] || len(p.options) < c.least[1] || len(p.codes) < c.least[2] {
			t.Errorf("%s: this test reads only %v, %v and %v out of it", c.dir, p.names, p.options, p.codes)
		}
		for name := range p.names {
			if !regexp.MustCompile("`(tocsin )?" + regexp.QuoteMeta(name) + "[` ]").MatchString(c.text) {
				t.Errorf("docs/commands.md does not name the command %q of %s", name, c.dir)
			}
		}
		for name := range p.options {
			if !regexp.MustCompile("--?" + regexp.QuoteMeta(name) + "[^a-z-]").MatchString(c.text) {
				t.Errorf("docs/commands.md does not name the option --%s of %s", name, c.dir)
			}
		}
		for code := range p.codes {
			if !strings.Contains(c.text, "**"+strconv.Itoa(code)+"**") {
				t.Errorf("docs/commands.md does not name the exit code %d of %s", code, c.dir)
			}
		}
	}
	settings(reflect.TypeFor[config.Hub](), "", func(key string) {
		if name := config.EnvName("TOCSIN", key); !strings.Contains(tocsin, "`"+name+"`") {
			t.Errorf("docs/commands.md does not name %s", name)
		}
	})
	settings(reflect.TypeFor[collector.Config](), "", func(key string) {
		if name := config.EnvName(collector.EnvPrefix, key); key != "listen.syslog" && key != "listen.devices" && !strings.Contains(onSite, "`"+name+"`") {
			t.Errorf("docs/commands.md does not name %s", name)
		}
	})
}

// settings gives each dotted key of a settings struct to f.
func settings(v reflect.Type, path string, f func(string)) {
	for i := range v.NumField() {
		field := v.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "" {
			continue
		}
		if path != "" {
			name = path + "." + name
		}
		if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[time.Time]() {
			settings(field.Type, name, f)
		} else {
			f(name)
		}
	}
}
