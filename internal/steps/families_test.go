package steps_test

import (
	"strings"
	"testing"

	"tocsin/internal/baseline"
	"tocsin/internal/detect"
	"tocsin/internal/health"
	"tocsin/internal/steps"
	"tocsin/rules"
)

// priority are the products of the first thirteen places of the build order.
var priority = []string{"fortigate", "sophos-firewall", "draytek", "watchguard", "sonicwall", "meraki", "unifi", "smoothwall", "cisco-asa", "pfsense", "panos", "zyxel", "mikrotik"}

// hubFamilies are raised by the hub itself, beside what baselines and detection health raise.
var hubFamilies = []string{"collector-integrity"}

// No alert can appear without steps: each family of our rules, and each that the hub raises, on each of the products.
func TestEveryAlertHasSteps(t *testing.T) {
	b, err := steps.Default()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(b.Products(), " "); len(b.Products()) != len(priority) {
		t.Errorf("products %s", got)
	}
	cat, err := detect.Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]bool{}
	for _, r := range cat.Infos() {
		families[r.Family] = true
	}
	for _, f := range hubFamilies {
		families[f] = true
	}
	for _, f := range []string{"upstream-web", "upstream-antivirus", "upstream-network", "upstream-cloud", "upstream-host"} { // package detect, adopt
		families[f] = true
	}
	for _, b := range baseline.Infos() {
		families[b.Family] = true
	}
	for _, r := range health.Rules() {
		families[r.Family] = true
	}
	for f := range families {
		for _, p := range priority {
			g, ok := b.Guide(f, p)
			if !ok || len(g.Steps) == 0 && g.Elsewhere == "" {
				t.Errorf("an alert of the family %s could appear at a member with %s, and nothing says what to do", f, p)
			}
		}
	}
	for _, f := range b.Families() {
		if !families[f] {
			t.Errorf("families.yml has %s, which no rule makes", f)
		}
	}
	n := 0
	for range families {
		n += len(priority)
	}
	t.Logf("%d families on %d products: %d guides", len(families), len(priority), n)
}
