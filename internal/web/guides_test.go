package web

import (
	"bytes"
	"html/template"
	"log/slog"
	"os"
	"strings"
	"testing"

	"tocsin/internal/alert"
	"tocsin/internal/event"
)

// The steps for the member's own product stand on the alert's page, for members and for the centre.
func TestGuides(t *testing.T) {
	s := &server{o: Options{Logger: slog.New(slog.DiscardHandler), Products: func(t event.TenantID) []string {
		return map[event.TenantID][]string{1: {"draytek", "fortigate"}, 2: nil}[t]
	}}}
	got := s.guides(&alert.Alert{Tenant: 1, Family: "exposed-service"})
	if len(got) != 2 || got[0].Product != "DrayTek Vigor" || len(got[0].Steps) == 0 || !strings.Contains(got[1].Steps[0].How, "Virtual IPs") {
		t.Fatalf("%+v", got)
	}
	for _, a := range []*alert.Alert{{Tenant: 2, Family: "scan"}, {Tenant: 0, Family: "scan"}, {Tenant: 1, Family: "nothing"}} {
		if g := s.guides(a); len(g) > 0 {
			t.Errorf("%d %s: %+v", a.Tenant, a.Family, g)
		}
	}
	for _, file := range []string{"templates/alert.html", "templates/alert_member.html"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// The part alone, as it stands in the page.
		from := strings.Index(string(b), "{{range $a.Guides}}")
		to := strings.Index(string(b), "{{end}}<!-- guides -->")
		if from < 0 || to < from {
			t.Fatalf("%s does not show the steps for products", file)
		}
		part := strings.Replace(string(b)[from:to]+"{{end}}", "$a.Guides", ".", 1)
		var out bytes.Buffer
		if err := template.Must(template.New("x").Funcs(template.FuncMap{"code": code}).Parse(part)).Execute(&out, got); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"DrayTek Vigor", "FortiGate", "Port Redirection", got[0].Elsewhere} {
			if !strings.Contains(out.String(), string(code(want))) {
				t.Errorf("%s lacks %q: %s", file, want, out.String())
			}
		}
	}
}
