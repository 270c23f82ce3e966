package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tocsin/sigma"
)

// evalFolder has a rule and two files of events, one of them without a line end, with blank lines, lines longer than a chunk and lines that are no events.
func evalFolder(t *testing.T) (rules string, files []string, want string) {
	dir := t.TempDir()
	rules = filepath.Join(dir, "rules")
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	rule := "title: x\nid: 0e95725d-7320-415d-80f7-004da920fc11\nlogsource: {category: c}\ndetection:\n  s: {a: b}\n  condition: s\n"
	if err := os.WriteFile(filepath.Join(rules, "x.yml"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 5))
	for f := range 2 {
		var text strings.Builder
		name := filepath.Join(dir, fmt.Sprint(f, ".jsonl"))
		for line := range 400 {
			switch n := rng.IntN(8); n {
			case 0:
			case 1:
				text.WriteString("{")
				want += fmt.Sprintf(`{"file":%q,"line":%d,"rules":[],"error":`, name, line) + "\n"
			case 2, 3:
				text.WriteString(`{"a":"b"}`)
				want += fmt.Sprintf(`{"file":%q,"line":%d,"rules":["0e95725d-7320-415d-80f7-004da920fc11"]}`, name, line) + "\n"
			default:
				fmt.Fprintf(&text, `{"a":%q}`, strings.Repeat("x", rng.IntN(300)))
				want += fmt.Sprintf(`{"file":%q,"line":%d,"rules":[]}`, name, line) + "\n"
			}
			if line < 399 {
				text.WriteByte('\n')
			}
		}
		if err := os.WriteFile(name, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	return rules, files, want
}

// cutErrors leaves the reasons out, which are not ours to repeat here.
func cutErrors(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if i := strings.Index(line, `"error":`); i >= 0 {
			line = line[:i+len(`"error":`)] + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestEvalOrder: whatever the number of workers and the size of chunks, each event has its line, in the order of the files.
func TestEvalOrder(t *testing.T) {
	rules, files, want := evalFolder(t)
	var out, errs bytes.Buffer
	if code := rulesEval(context.Background(), append([]string{"--rules", rules, "--logsource", "category=c", "--workers", "3"}, files...), nil, &out, &errs); code != 1 || cutErrors(out.String()) != want {
		t.Fatalf("exit %d, %s\n%s\nwant\n%s", code, errs.String(), out.String(), want)
	}
	c := &sigma.Collection{}
	if e := c.Parse("x.yml", must(os.ReadFile(filepath.Join(rules, "x.yml")))(t)); len(e) > 0 {
		t.Fatal(e)
	}
	for _, size := range []int{1, 17, 64, 1000} {
		names := &sigma.Names{}
		engine, err := sigma.Compile(c, sigma.Options{Schema: names})
		if err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		e := &evaluation{engine: engine, names: names, within: sigma.LogSource{Category: "c"}, workers: 4, size: size}
		if err := e.prepare(); err != nil {
			t.Fatal(err)
		}
		o, err := e.run(context.Background(), files, nil, &out, &errs)
		if err != nil || cutErrors(out.String()) != want || o.events != strings.Count(want, "\n") || o.bad != strings.Count(want, "error") {
			t.Fatalf("chunks of %d: %v, %d events, %d bad, %s\n%s\nwant\n%s", size, err, o.events, o.bad, errs.String(), out.String(), want)
		}
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// fullDisk takes some bytes and then no more.
type fullDisk struct{ room int }

var errFull = errors.New("no space left")

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// TestEvalStops: what cannot be written or read ends it, with the reason, and what was read before is written.
func TestEvalStops(t *testing.T) {
	rules, files, want := evalFolder(t)
	args := []string{"--rules", rules, "--logsource", "category=c"}
	var errs bytes.Buffer
	if code := rulesEval(context.Background(), append(args, files...), nil, &fullDisk{room: 100}, &errs); code != 1 || !strings.Contains(errs.String(), errFull.Error()) {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	errs.Reset()
	var out bytes.Buffer
	if code := rulesEval(context.Background(), append(args, append(files, files[0]+".absent")...), nil, &out, &errs); code != 1 || !strings.Contains(errs.String(), "absent") || cutErrors(out.String()) != want {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if code := rulesEval(ctx, append(args, files...), nil, &out, &errs); code != 1 || !strings.Contains(errs.String(), "canceled") {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}

// endless is a line that does not end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// TestEvalLine: the bound of a line is what it says, but for a chunk.
func TestEvalLine(t *testing.T) {
	for _, c := range []struct {
		length int64
		ok     bool
	}{{maxEventLine - 1, true}, {maxEventLine + 2*chunkSize, false}} {
		s := &eventSource{names: []string{"-"}, size: chunkSize, stdin: io.MultiReader(io.LimitReader(endless{}, c.length), strings.NewReader("\n"))}
		var got chunk
		if ok := s.next(context.Background(), &got); ok != c.ok || (s.Err() == nil) != c.ok || ok && len(got.lines) != int(c.length)+1 {
			t.Errorf("%d bytes: %v, %v", c.length, ok, s.Err())
		}
	}
}
