package sketch

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

var key = Key{1, 2}

func keyOf(i int) uint64 { return key.Hash128([16]byte{}, uint64(i)) }

func TestFilterErrors(t *testing.T) {
	const most = 4096
	var f Filter
	for i := range 4 * most {
		f.Add(keyOf(i), uint16(100+i/200), 400, most)
		if n := f.Bytes(); n > FilterBytes(most) {
			t.Fatalf("after %d keys %d bytes, at most %d", i, n, FilterBytes(most))
		}
	}
	wrong := 0
	for i := range 100_000 {
		if f.Has(keyOf(1_000_000 + i)) {
			wrong++
		}
	}
	t.Logf("%d of 100,000 keys never added are taken for known ones", wrong)
	if wrong > 2000 {
		t.Errorf("%d of 100,000 false answers, stated at most 2 %%", wrong)
	}
	// The newest are always known.
	for i := 3 * most; i < 4*most; i++ {
		if !f.Has(keyOf(i)) {
			t.Fatalf("key %d was forgotten", i)
		}
	}
	if f.Forgot == 0 {
		t.Error("four times as many keys as it holds, and no fault was counted")
	}
}

func TestFilterAge(t *testing.T) {
	var f Filter
	const age = 60
	f.Add(1, 1000, age, 512)
	for day := uint16(1000); day < 1300; day++ {
		f.Add(uint64(day)*7919+13, day, age, 512) // one other a day, so that layers change
		if day == 1000 {
			continue
		}
		if day < 1030 && !f.Has(1) {
			t.Fatalf("day %d: forgotten within half of its age", day-1000)
		}
		if day > 1062 && f.Has(1) {
			t.Fatalf("day %d: still known", day-1000)
		}
		// A key seen every 29 days is never new.
		if day%29 == 0 {
			if known := f.Add(2, day, age, 512); !known && day > 1029 {
				t.Fatalf("day %d: a key that comes every 29 days is new", day-1000)
			}
		}
	}
}

func TestDistinct(t *testing.T) {
	var d Distinct
	for i := range exactMost {
		d.Add(keyOf(i))
		d.Add(keyOf(i))
		if d.N() != uint64(i+1) || !d.Exact() {
			t.Fatalf("%d keys count as %d", i+1, d.N())
		}
	}
	worst := 0.0
	for i := exactMost; i < 50_000; i++ {
		d.Add(keyOf(i))
		if i%997 == 0 {
			worst = max(worst, math.Abs(float64(d.N())/float64(i+1)-1))
			if q := float64(d.Quick())/float64(i+1) - 1; math.Abs(q) > 0.15 {
				t.Fatalf("%d keys: Quick is off by %.3f", i+1, q)
			}
		}
	}
	t.Logf("worst error %.2f %%", 100*worst)
	if worst > 4*0.0325 {
		t.Errorf("worst error %.3f, four standard errors are 0.13", worst)
	}
	if d.Bytes() > DistinctBytes {
		t.Errorf("%d bytes, stated %d", d.Bytes(), DistinctBytes)
	}
	var a, b Distinct
	for i := range 20 {
		a.Add(keyOf(i))
		b.Add(keyOf(i + 10))
	}
	a.Merge(&b)
	if a.N() != 30 {
		t.Errorf("20 and 20 keys of which 10 are shared count as %d", a.N())
	}
	a.Merge(&d)
	if n := float64(a.N()); math.Abs(n/50_000-1) > 0.15 {
		t.Errorf("merged with 50,000: %.0f", n)
	}
}

func TestSaved(t *testing.T) {
	var f Filter
	var small, large Distinct
	for i := range 3000 {
		f.Add(keyOf(i), uint16(i/100), 60, 1024)
		large.Add(keyOf(i))
	}
	small.Add(9)
	code := func(c *Codec, f *Filter, s, l *Distinct) {
		f.Code(c, 1024)
		s.Code(c)
		l.Code(c)
	}
	w := Writer(nil)
	code(w, &f, &small, &large)
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	var f2 Filter
	var s2, l2 Distinct
	r := Reader(w.Bytes())
	code(r, &f2, &s2, &l2)
	if r.Err() != nil || len(r.Bytes()) != 0 {
		t.Fatalf("%v, %d bytes left", r.Err(), len(r.Bytes()))
	}
	again := Writer(nil)
	code(again, &f2, &s2, &l2)
	if !bytes.Equal(again.Bytes(), w.Bytes()) {
		t.Error("saved again, it differs")
	}
	if l2.AtMost() != large.AtMost() {
		t.Errorf("read back, it is at most %d, not %d", l2.AtMost(), large.AtMost())
	}
	if s2.N() != 1 || l2.N() != large.N() || f2.Bytes() != f.Bytes() || f2.Forgot != f.Forgot {
		t.Errorf("read back: %d %d %d %d", s2.N(), l2.N(), f2.Bytes(), f2.Forgot)
	}
	for n := range len(w.Bytes()) {
		if n > 200 && n%97 != 0 {
			continue
		}
		r := Reader(w.Bytes()[:n])
		code(r, &Filter{}, &Distinct{}, &Distinct{})
		if !errors.Is(r.Err(), ErrState) {
			t.Fatalf("%d of %d bytes: %v", n, len(w.Bytes()), r.Err())
		}
	}
}

func FuzzSketches(f *testing.F) {
	w := Writer(nil)
	var filter Filter
	var d Distinct
	for i := range 100 {
		filter.Add(keyOf(i), uint16(i), 60, 64)
		d.Add(keyOf(i))
	}
	filter.Code(w, 64)
	d.Code(w)
	f.Add(w.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Reader(b)
		var filter Filter
		var d Distinct
		filter.Code(r, 64)
		d.Code(r)
		if r.Err() != nil {
			return
		}
		filter.Add(1, 2, 60, 64)
		d.Add(1)
		if d.N() == 0 || filter.Bytes() > 4*FilterBytes(64) {
			t.Fatalf("%d keys, %d bytes", d.N(), filter.Bytes())
		}
	})
}
