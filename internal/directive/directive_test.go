package directive

import (
	"archive/zip"
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestPack(t *testing.T) {
	files := fstest.MapFS{"a/b.yml": {Data: []byte("x: 1\n")}, "c.yml": {Data: []byte("y: 2\n")}}
	b, err := Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Pack(files)
	if !bytes.Equal(b, again) {
		t.Error("the same files give other bytes")
	}
	got, err := Unpack(b)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := fs.ReadFile(got, "a/b.yml"); err != nil || string(text) != "x: 1\n" {
		t.Errorf("%q %v", text, err)
	}
	// Hostile packs: names that lead out of the folder, bombs, nothing, garbage.
	hostile := func(name string, size int) []byte {
		var out bytes.Buffer
		w := zip.NewWriter(&out)
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err != nil {
			t.Fatal(err)
		}
		f.Write(bytes.Repeat([]byte{0}, size))
		w.Close()
		return out.Bytes()
	}
	for name, b := range map[string][]byte{"up": hostile("../../etc/passwd", 3), "root": hostile("/etc/passwd", 3), "bomb": hostile("a.yml", 3<<20), "empty": hostile("x/", 0)[:0],
		"garbage": []byte("not a zip"), "dots": hostile("a/../b.yml", 3), "twice a slash": hostile("a//b.yml", 3)} {
		if _, err := Unpack(b); !errors.Is(err, ErrPack) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func question() Question {
	now := time.Now()
	return Question{ID: NewID(), Asked: now, By: "Regional SOC", Purpose: "to see who else was visited by the group that robbed a school", Indicators: []string{"203.0.113.66", "bad.example"},
		Authority: Authority{Regime: "uk-gdpr", Basis: "legitimate interests", Reference: "REF-1", Approver: "J. Duty"}, From: now.Add(-24 * time.Hour), To: now}
}

func TestQuestion(t *testing.T) {
	q := question()
	b, err := q.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseQuestion(b)
	if err != nil || got.Purpose != q.Purpose || got.Hits() != 1000 {
		t.Fatalf("%+v %v", got, err)
	}
	for name, change := range map[string]func(*Question){
		"id":        func(q *Question) { q.ID = "../x" },
		"purpose":   func(q *Question) { q.Purpose = " " },
		"asker":     func(q *Question) { q.By = "" },
		"regime":    func(q *Question) { q.Authority.Regime = "because" },
		"reference": func(q *Question) { q.Authority.Reference = "" },
		"nothing":   func(q *Question) { q.Indicators = nil },
		"both":      func(q *Question) { q.Rule = "title: x" },
		"time":      func(q *Question) { q.To = q.From },
		"span":      func(q *Question) { q.From = q.To.AddDate(-3, 0, 0) },
		"hits":      func(q *Question) { q.MaxHits = 1e6 },
		"wide":      func(q *Question) { q.Indicators = []string{"203.0.0.0/8"} },
		"wide6":     func(q *Question) { q.Indicators = []string{"2600::/12"} },
		"all":       func(q *Question) { q.Indicators = []string{"0.0.0.0/0"} },
		"suffix":    func(q *Question) { q.Indicators = []string{"co.uk"} },
		"private":   func(q *Question) { q.Indicators = []string{"10.0.0.1"} },
		"many":      func(q *Question) { q.Indicators = make([]string, 1001) },
		"long rule": func(q *Question) { q.Indicators = nil; q.Rule = strings.Repeat("x", 1<<20) },
	} {
		q := question()
		change(&q)
		if _, err := q.Encode(); !errors.Is(err, ErrQuestion) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
