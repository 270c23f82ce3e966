package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tocsin/internal/alert"
	"tocsin/internal/enrich"
)

// An alert that leaves the hub says where its source is: by code for programs, by name for people.
func TestNoticeSaysTheCountry(t *testing.T) {
	overlay := filepath.Join(t.TempDir(), "overlay.csv")
	if err := os.WriteFile(overlay, []byte("prefix,country,as_number,as_name,note\n203.0.113.0/24,NL,64501,Example Hosting,\n10.0.0.0/8,GB,,Inside,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	places, err := enrich.Open(t.Context(), enrich.Options{Overlay: overlay})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{cfg: settings(t), places: places}
	h.cfg.Alerts.MailTo = []string{"a@example.org"}
	for source, want := range map[string]string{"203.0.113.66": `"country":"NL","country_name":"Netherlands"`, "10.1.2.3": "", "j.marlowe": "", "": ""} {
		got, err := h.entries(alert.Notice{Kind: "opened", N: 1, Alert: alert.Alert{ID: "id", Ref: "AL-1", Tenant: 3, Organisation: "Ashdown School", Severity: alert.High, Source: source}})
		if err != nil || len(got) != 1 {
			t.Fatalf("%d entries, %v", len(got), err)
		}
		if text := string(json.RawMessage(got[0].Payload)); !strings.Contains(text, want) || want == "" && strings.Contains(text, "country") {
			t.Errorf("about %q: %s", source, text)
		}
	}
}
