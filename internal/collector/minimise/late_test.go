package minimise

import (
	"testing"

	"tocsin/internal/event"
)

// A field that a rule names after the start is treated as it was without a key, under every policy.
func TestKeysThatComeLater(t *testing.T) {
	policy := func(name string, o Options) *Minimiser {
		t.Helper()
		var err error
		if o.Policy, err = Load(name); err != nil {
			t.Fatal(err)
		}
		m, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	register := func(name string) event.Key {
		t.Helper()
		k, err := event.Register(name)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	full, metadata := policy("full", Options{}), policy("metadata", Options{})
	open, shut := policy("metadata", Options{AlsoLeave: []string{"late.*"}}), policy("full", Options{AlsoKeep: []string{"late.*"}})
	first := register("late.first")
	second := register("threat.late.payload") // "threat.*" stands in the policy metadata
	for _, c := range []struct {
		name string
		m    *Minimiser
		key  event.Key
		want bool
	}{
		{"full", full, first, true}, {"full", full, second, true}, {"metadata", metadata, first, false}, {"metadata", metadata, second, false},
		{"let go by the member", open, first, true}, {"let go by the member", open, second, false}, {"kept by the member", shut, first, false}, {"kept by the member", shut, second, true},
	} {
		if got, _ := c.m.MayLeave(c.key); got != c.want {
			t.Errorf("%s: %s may leave: %v, want %v", c.name, c.key.Name(), got, c.want)
		}
	}
	third := register("late.third") // after the first was asked for
	if leave, _ := full.MayLeave(third); !leave {
		t.Error("a key registered still later stays under full")
	}
	var e, out event.Event
	e.SetString(first, "one")
	e.SetString(second, "two")
	full.Reduce(&out, &e)
	if out.Str(first) != "one" || out.Str(second) != "two" {
		t.Errorf("full lets go of %s", out.AppendJSON(nil))
	}
	metadata.Reduce(&out, &e)
	if out.Has(first) || out.Has(second) {
		t.Errorf("metadata lets go of %s", out.AppendJSON(nil))
	}
}
