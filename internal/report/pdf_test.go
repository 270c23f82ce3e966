package report

import (
	"os"
	"testing"
)

func TestLook(t *testing.T) {
	out := os.Getenv("REPORT_OUT")
	if out == "" {
		t.Skip("REPORT_OUT is not set")
	}
	b, err := sample().PDF()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out+".pdf", b, 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err = sample().HTML(Link{"/reports", "All reports", false}, Link{"x.pdf", "Download as PDF", true}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(out+".html", b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPDF(b *testing.B) {
	r := sample()
	for b.Loop() {
		if _, err := r.PDF(); err != nil {
			b.Fatal(err)
		}
	}
}
