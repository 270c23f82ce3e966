package sim

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The bars: of what is planted, nine of ten are told; nothing is told wrongly more than once in twenty weeks of a member, hub and site together.
const (
	barRecall = 0.9
	barFalse  = 0.05
)

// TestScheme plays a small scheme in the ordinary run, and with TOCSIN_TEST_TORTURE=long ten thousand members over ninety days. That takes some
// twenty minutes of a processor, so it can be cut: with TOCSIN_TEST_STATE=FILE a run ends after two minutes and goes on when it is called again.
// TOCSIN_TEST_SEED and TOCSIN_TEST_MEMBERS ask for another scheme.
func TestScheme(t *testing.T) {
	o := Options{Seed: 1, Members: 60, Days: 56, Warm: 35}
	if os.Getenv("TOCSIN_TEST_TORTURE") == "long" {
		o = Options{Seed: number(t, "TOCSIN_TEST_SEED", 1), Members: int(number(t, "TOCSIN_TEST_MEMBERS", 10_000)), Days: 90, Warm: 42, State: os.Getenv("TOCSIN_TEST_STATE"), Slice: 2 * time.Minute}
	}
	begun := time.Now()
	s, serr := Sites(o)
	if errors.Is(serr, ErrCut) {
		t.Skipf("sites: %v", serr) // only with TOCSIN_TEST_STATE: the next call goes on
	} else if serr != nil {
		t.Fatal(serr)
	}
	o.Slice = max(o.Slice-time.Since(begun), time.Second)
	h, err := Hub(o)
	if errors.Is(err, ErrCut) {
		t.Skipf("hub: %v", err) // likewise
	} else if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("at the hub\n")
	h.Print(&text)
	text.WriteString("on the sites\n")
	s.Print(&text)
	t.Logf("\n%s", &text)
	t.Logf("the hub's engine: %d bytes for %d members, %d a member; the largest site %d bytes", h.Stats.Bytes, h.Stats.Tenants, h.Stats.Bytes/max(h.Stats.Tenants, 1), s.Largest)
	t.Logf("some of what nothing explains:\n%s\n%s", h.Explain(), s.Explain())
	for name, r := range map[string]*Result{"hub": h, "sites": s} {
		if r.Recall() < barRecall {
			t.Errorf("%s: %.3f of what was planted was told, the bar is %.2f", name, r.Recall(), barRecall)
		}
	}
	if f := h.FalseRate() + s.FalseRate(); f > barFalse {
		t.Errorf("%.4f false detections a member and week, the bar is %.2f", f, barFalse)
	}
	if n := h.Stats.Bytes / max(h.Stats.Tenants, 1); n > 64<<10 {
		t.Errorf("%d bytes a member at the hub", n)
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == 0 {
		t.Fatalf("%s is %q, want a number from 1 on", name, s)
	}
	return n
}

// A run that is cut every few moments says what one in a single go says.
func TestSlices(t *testing.T) {
	o := Options{Seed: 5, Members: 3, Days: 14, Warm: 8}
	for name, f := range map[string]func(Options) (*Result, error){"hub": Hub, "sites": Sites} {
		want, err := f(o)
		if err != nil {
			t.Fatal(err)
		}
		o := o
		o.State, o.Slice = filepath.Join(t.TempDir(), "state"), time.Nanosecond // so after each day or member
		cuts := 0
		got, err := f(o)
		for errors.Is(err, ErrCut) {
			cuts++
			got, err = f(o)
		}
		if err != nil {
			t.Fatal(err)
		}
		if cuts == 0 {
			t.Errorf("%s: it was never cut", name)
		}
		if again, err := f(o); err != nil || !reflect.DeepEqual(again.Planted, got.Planted) {
			t.Errorf("%s: asked again, it is not the same: %v", name, err)
		}
		got.Spent, want.Spent = 0, 0
		for _, r := range []*Result{got, want} {
			r.Options, r.Stats.Told = o, nil
			for _, m := range []map[string]*Row{r.Planted, r.Honest} {
				for _, row := range m {
					row.quantile(0) // sorts
				}
			}
		}
		if !reflect.DeepEqual(got.Planted, want.Planted) || !reflect.DeepEqual(got.Honest, want.Honest) || !reflect.DeepEqual(got.False, want.False) || got.Events != want.Events {
			t.Errorf("%s: after %d cuts %+v, in one go %+v", name, cuts, got, want)
		}
		o.Seed++
		if _, err := f(o); err == nil || errors.Is(err, ErrCut) {
			t.Errorf("%s: another scheme goes on with the file of this one: %v", name, err)
		}
	}
}
