package report

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tool runs a stranger's program on a file, or skips the test aloud.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("SKIPPED: %s is not installed, so nobody but us has read the PDF", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func written(t *testing.T, r *Report) string {
	t.Helper()
	b, err := r.PDF()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.pdf")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPDFIsSound(t *testing.T) {
	out := tool(t, "qpdf", "--check", written(t, sample()))
	if !strings.Contains(out, "No syntax or stream encoding errors found") {
		t.Error(out)
	}
}

// TestPDFIsTagged reads the structure back with poppler.
func TestPDFIsTagged(t *testing.T) {
	file := written(t, sample())
	info := tool(t, "pdfinfo", file)
	for _, want := range []string{"Tagged:          yes", "Title:           Millbrook College, Coleg y Felin Wen ŵ ŷ: Weekly report, 16 to 22 November 2026", "Page size:       595.28 x 841.89 pts (A4)"} {
		if !strings.Contains(info, want) {
			t.Errorf("pdfinfo lacks %q:\n%s", want, info)
		}
	}
	tree := tool(t, "pdfinfo", "-struct-text", file)
	for what, re := range map[string]string{
		"a title":         `(?m)^  H1 \(block\)\n    "Weekly report "$`,
		"headings":        `(?s)H2 \(block\)\s+"Suspicious events each day ".*H2 \(block\)\s+"Alerts, and what to do ".*H2 \(block\)\s+"What they tried ".*H2 \(block\)\s+"Where it came from ".*H2 \(block\)\s+"What would help most now "`,
		"an alert":        `H3 \(block\)\s+"Critical Somebody may have got in through your VPN "`,
		"column headings": `TH:\s+/Scope /Column\s+"Week before "`,
		"row headings":    `TH:\s+/Scope /Row\s+"Friday 20 November "\s+TD\s+"11,114 "`,
		"a list":          `LI \(block\)\s+Lbl \(block\)\s+"• "\s+LBody \(block\)\s+"Telephone the person whose account it is. "`,
		"Welsh letters":   `"Millbrook College, Coleg y Felin Wen ŵ ŷ · Northshire Police area "`,
		"apostrophes":     `Côte d’Ivoire`,
	} {
		if !regexp.MustCompile(re).MatchString(tree) {
			t.Errorf("no %s in the structure (%s)", what, re)
		}
	}
	if n := strings.Count(tree, "H1 (block)"); n != 1 {
		t.Errorf("%d titles", n)
	}
	if strings.Contains(tree, "Page 1 of") {
		t.Error("the foot of a page is read as content")
	}
	if text := tool(t, "pdftotext", "-layout", file, "-"); !strings.Contains(text, "Page 1 of") || strings.Contains(text, "\ufffd") {
		t.Errorf("the text:\n%s", text)
	}
	// The sentence that stands for the chart, and the language, as they are in the file.
	plain := tool(t, "qpdf", "--qdf", "--object-streams=disable", file, "-")
	for _, want := range []string{"/Lang (en-GB)", "/DisplayDocTitle true", "/Marked true", "/Tabs /S", "/Alt <" + fmt.Sprintf("%x", "\xfe\xff\x00S\x00u\x00s\x00p")} {
		if !strings.Contains(plain, want) {
			t.Errorf("the file lacks %q", want)
		}
	}
}

// TestRowsAreNotSplit gives a table more rows than a page holds.
func TestRowsAreNotSplit(t *testing.T) {
	r := sample()
	for i := range 70 {
		r.Reporters = append(r.Reporters, Collector{fmt.Sprintf("collector-%02d", i), fmt.Sprintf("site-%02d", i), "Healthy", "good", fmt.Sprintf("note-%02d", i)})
	}
	file := written(t, r)
	pages := strings.Split(tool(t, "pdftotext", "-layout", file, "-"), "\f")
	for i := range 70 {
		on := map[string]int{}
		for n, p := range pages {
			for _, what := range []string{"collector", "site", "note"} {
				if strings.Contains(p, fmt.Sprintf("%s-%02d", what, i)) {
					on[what] = n + 1
				}
			}
		}
		if on["collector"] == 0 || on["collector"] != on["site"] || on["site"] != on["note"] {
			t.Errorf("row %d stands on pages %v", i, on)
		}
	}
	heads := 0
	for _, p := range pages {
		if strings.Contains(p, "Collector and site") {
			heads++
		}
	}
	if heads < 3 {
		t.Errorf("the head of a long table is on %d pages", heads)
	}
}

// TestLook writes the report to look at: REPORT_OUT=/somewhere/report.
func TestLook(t *testing.T) {
	out := os.Getenv("REPORT_OUT")
	if out == "" {
		t.Skip("REPORT_OUT is not set: nothing is written to look at")
	}
	for name, r := range map[string]*Report{"": sample(), "-invented": func() *Report { r := sample(); r.Invented = true; return r }(), "-long": func() *Report {
		r := sample()
		r.Organisation = strings.Repeat("The Very Long Name of a School ", 4)
		r.Scheme = strings.Repeat("Northshire ", 20)
		r.Events = Figure{Now: 1234567890123, Before: 3}
		r.Alerts = append(append(r.Alerts, r.Alerts...), r.Alerts...)
		return r
	}(), "-empty": {Organisation: "Ashgrove School", Scheme: "Tocsin", Week: Week{2026, 47}, From: Week{2026, 47}.Start(), To: Week{2026, 47}.End(), Made: Week{2026, 47}.End(), Tone: "good", Verdict: "Yes. It was a quiet week.", Reason: "Nothing."}} {
		b, err := r.PDF()
		if err != nil {
			t.Fatal(err)
		}
		h, err := r.HTML(Link{"/reports", "All reports", false}, Link{"x.pdf", "PDF, for printing", true})
		if err != nil {
			t.Fatal(err)
		}
		for end, body := range map[string][]byte{".pdf": b, ".html": h} {
			if err := os.WriteFile(out+name+end, body, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func BenchmarkPDF(b *testing.B) {
	r := sample()
	size := 0
	for b.Loop() {
		out, err := r.PDF()
		if err != nil {
			b.Fatal(err)
		}
		size = len(out)
	}
	b.ReportMetric(float64(size), "B/file")
}
