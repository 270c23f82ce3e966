package keys

import (
	"errors"
	"testing"
	"time"
)

func TestDirective(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	trust, err := CreateScheme(SchemeOptions{Dir: dir + "/keys", Offline: dir + "/offline", Name: "Test", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := Open(dir+"/keys", IndicatorSets, Receipts)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ring.Signer(IndicatorSets)
	if err != nil {
		t.Fatal(err)
	}
	d := Directive{Type: IndicatorSet, Audience: Everybody, Version: 1 << 60, Issued: now, Expires: now.Add(time.Hour), Content: []byte("set")}
	env, err := SignDirective(signer, d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := trust.OpenDirective(env, IndicatorSets, "c1", now)
	if err != nil || got.Version != d.Version || string(got.Content) != "set" || !got.Expires.Equal(d.Expires) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := trust.OpenDirective(env, Receipts, "c1", now); !errors.Is(err, ErrSignature) {
		t.Errorf("opened as another purpose: %v", err)
	}
	if _, err := trust.OpenDirective(env, IndicatorSets, "c1", now.Add(time.Hour)); !errors.Is(err, ErrDirectiveExpired) {
		t.Errorf("opened after its time: %v", err)
	}
	d.Audience = "c2"
	if env, err = SignDirective(signer, d); err != nil {
		t.Fatal(err)
	}
	if _, err := trust.OpenDirective(env, IndicatorSets, "c1", now); !errors.Is(err, ErrDirective) {
		t.Errorf("opened by another collector: %v", err)
	}
	other, err := ring.Signer(Receipts)
	if err != nil {
		t.Fatal(err)
	}
	if env, err = SignDirective(other, d); err != nil {
		t.Fatal(err)
	}
	if _, err := trust.OpenDirective(env, IndicatorSets, "c2", now); !errors.Is(err, ErrSignature) {
		t.Errorf("opened though another key signed it: %v", err)
	}
	for _, bad := range []Directive{{}, {Type: "x", Audience: "*", Version: 1, Issued: now, Expires: now}, {Type: "x", Audience: "*", Issued: now, Expires: now.Add(1)}} {
		if _, err := SignDirective(signer, bad); !errors.Is(err, ErrDirective) {
			t.Errorf("%+v was signed: %v", bad, err)
		}
	}
	// A key that was replaced makes nobody do anything any more.
	d.Audience = Everybody
	if env, err = SignDirective(signer, d); err != nil {
		t.Fatal(err)
	}
	newer, err := RotateKey(dir+"/keys", dir+"/offline", IndicatorSets, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newer.OpenDirective(env, IndicatorSets, "c1", now); !errors.Is(err, ErrSignature) {
		t.Errorf("opened though the key was retired: %v", err)
	}
}
