package detect

import (
	"testing"

	"tocsin/rules"
)

func TestOurRules(t *testing.T) {
	c, err := Load(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range c.Errors {
		t.Error(err)
	}
	for _, w := range []Where{Site, Hub} {
		e, err := New(Options{Catalogue: c, Where: w})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range e.Errors() {
			t.Error(err)
		}
	}
	results, err := c.Test(rules.FS)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%s: %s: %v", r.File, r.Case, r.Err)
		}
	}
	t.Logf("%d rules, %d cases", len(c.Infos()), len(results))
}
