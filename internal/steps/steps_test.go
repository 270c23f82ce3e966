package steps

import (
	"strings"
	"testing"
	"testing/fstest"

	"tocsin/internal/detect"
	"tocsin/rules"
)

// priority are the products of the first thirteen places of the build order.
var priority = []string{"fortigate", "sophos-firewall", "draytek", "watchguard", "sonicwall", "meraki", "unifi", "smoothwall", "cisco-asa", "pfsense", "panos", "zyxel", "mikrotik"}

// hubFamilies are raised by the hub itself.
var hubFamilies = []string{"collector-integrity", "detection-health"}

// No alert can appear without steps: each family of our rules, and each that the hub raises, on each of the products.
func TestEveryAlertHasSteps(t *testing.T) {
	b, err := Default()
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
	for f := range upstream {
		families[f] = true
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

// Each product is found by the data set that its parser writes.
func TestDatasets(t *testing.T) {
	b, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	for dataset, want := range map[string]string{"fortinet.fortigate": "fortigate", "sophos.xg": "sophos-firewall", "draytek.vigor": "draytek", "watchguard.firebox": "watchguard", "sonicwall.firewall": "sonicwall",
		"cisco_meraki.events": "meraki", "unifi.firewall": "unifi", "smoothwall.firewall": "smoothwall", "cisco.asa": "cisco-asa", "cisco.ftd": "cisco-asa", "pfsense.filterlog": "pfsense", "panw.panos": "panos", "zyxel.usg": "zyxel", "mikrotik.firewall": "mikrotik", "windows.event": ""} {
		if got := b.Product(dataset); got != want {
			t.Errorf("%s is %q, want %q", dataset, got, want)
		}
	}
	if _, ok := b.Guide("nothing", "fortigate"); ok {
		t.Error("a family that is not there has steps")
	}
	if _, ok := b.Guide("scan", "nothing"); ok {
		t.Error("a product that is not there has steps")
	}
}

func TestFaultsInContent(t *testing.T) {
	product := "name: X\nversion: 1\ndatasets: [x.y]\ntasks:\n"
	for _, k := range tasks {
		product += "  " + k.name + ": a sentence that is long enough to be of use to somebody\n"
	}
	good := fstest.MapFS{"families.yml": {Data: []byte("scan: {tasks: [update]}\n")}, "x.yml": {Data: []byte(product)}}
	if _, err := Read(good); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string][2]string{
		"task missing":   {"x.yml", strings.Replace(product, "  flood:", "  update2:", 1)},
		"too short":      {"x.yml", strings.Replace(product, "a sentence that is long enough to be of use to somebody", "short", 1)},
		"no version":     {"x.yml", strings.Replace(product, "version: 1\n", "", 1)},
		"unknown key":    {"x.yml", product + "more: 1\n"},
		"unknown task":   {"families.yml", "scan: {tasks: [dance]}\n"},
		"a task twice":   {"families.yml", "scan: {tasks: [update, update]}\n"},
		"nothing to do":  {"families.yml", "scan: {}\n"},
		"data set twice": {"z.yml", product},
	} {
		files := fstest.MapFS{}
		for n, f := range good {
			files[n] = f
		}
		files[x[0]] = &fstest.MapFile{Data: []byte(x[1])}
		if _, err := Read(files); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
