package steps

import (
	"strings"
	"testing"
	"testing/fstest"
)

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
