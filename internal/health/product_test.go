package health

import (
	"testing"

	"tocsin/internal/collector/parse/packs"
)

// Two data sets that the program knows are not called the same.
func TestProduct(t *testing.T) {
	for dataset, want := range map[string]string{"zeek.dns": "Zeek (zeek.dns)", "windows.event": "Microsoft Windows (windows.event)", "fortinet.fortigate": "Fortinet FortiGate", "nobody.knows": "nobody.knows"} {
		if got := product(dataset); got != want {
			t.Errorf("%s is called %q, want %q", dataset, got, want)
		}
	}
	of := map[string]string{}
	for _, p := range packs.Builtin().Packs() {
		name := product(p.Dataset)
		if other := of[name]; other != "" && other != p.Dataset {
			t.Errorf("%s and %s are both called %q", other, p.Dataset, name)
		}
		of[name] = p.Dataset
	}
}
